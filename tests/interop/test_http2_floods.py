"""Floods of HTTP/2, on every backend: each ends with GOAWAY and a close, and somebody is told why; others are answered
meanwhile; and heads that are small on the wire and large behind it cost little.

All are bounded and on loopback. Memory is read from /proc, so that part needs Linux. HTTP2_LONG=1 (`make grpc`)
measures others beside each flood, and more strictly; the short form, which runs with every test run, beside all of them
in turn.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.benchmarks.clients import Clients, percentile
from tests.interop.fleet import HOST, WITHIN_S, until
from tests.interop.h2_client import Http2Client, dialled
from tests.interop.http2_floods import FLOODS, FRAMES_MAX, bombs, flooded
from tests.interop.http2_proxied import LONG, Doors, doors, serving
from tests.interop.proxied import Certificates, certificates_in

if TYPE_CHECKING:
    from tests.interop.conftest import Nginx

REASONS = ("http2_flood", "http2_error")
STALL_S = 0.2
CLIENTS = 10
WINDOW_S = 1.0 if LONG else 0.25
ROUNDS = 3
SLOWER_MAX = 1.5 if LONG else 5.0  # in the best of the rounds, for a busy machine can make any of them slow
BOMBERS = 10
COST_MAX_KIB = 1024  # of each of them


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates_in(tmp_path_factory.mktemp("http2"))


@pytest.fixture(scope="module")
def origins(nginx: Nginx) -> Iterator[dict[str, dict[str, Any]]]:
    with serving("h2_origin.py") as ports:
        yield {
            "h2": {"url": f"h2c://{HOST}:{ports['h2']}"},
            "h1": {"url": f"http://{HOST}:{ports['h1']}"},
            "nginx": {"url": nginx.url},
        }


@pytest.fixture(scope="module")
def coulee(
    backend: str, certificates: Certificates, origins: dict[str, dict[str, Any]]
) -> Generator[Doors, None, None]:
    """One that gives up soon on who takes nothing."""
    limits = {"requests_per_connection_max": 10**9}  # a flood is to be ended as one
    timeouts = {"send_stall_timeout_s": STALL_S, "linger_s": 0.2}
    with doors(backend, certificates, origins, limits=limits, timeouts=timeouts) as running:
        yield running


def words_of(line: dict[str, Any]) -> str:
    """What a line tells, as one text."""
    return " ".join(map(str, line.values()))


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends(coulee: Doors, name: str) -> None:
    heard = len(coulee.lines)
    told = flooded(coulee.ports["plain"], FLOODS[name])
    print(told)
    assert told.closed, f"it is still open behind {told.frames} frames"
    assert told.frames < FRAMES_MAX
    assert told.goaways, "nobody was told to go"
    assert told.goaways[-1][1] != 0, "it is said that all is well"

    def why() -> bool:
        return any(reason in words_of(line) for line in coulee.lines[heard:] for reason in REASONS)

    until(why, "somebody is told why")
    with Http2Client(dialled(coulee.ports["plain"])) as client:
        assert client.fetch("GET", "/sink", [("x-to", "nginx")]).status == 200


def test_a_flood_by_tls_ends(coulee: Doors, certificates: Certificates) -> None:
    told = flooded(coulee.ports["tls"], FLOODS["rapid_reset"], certificates.plain)
    assert told.closed
    assert told.goaways[-1][1] != 0


def test_windows_that_are_never_opened(coulee: Doors) -> None:
    """CVE-2019-9517: large answers are asked for, and none is taken. Small ones beside them are answered first."""
    with Http2Client(dialled(coulee.ports["plain"]), window=0) as client:
        for number in range(50):
            client.ask("GET", f"/make?size=1000000&held={number}", held=True)
        client.until(lambda: all(answer.status for answer in client.answers.values()), "they begin")
        deadline = time.monotonic() + STALL_S + WITHIN_S
        while not client.closed and not all(answer.over for answer in client.answers.values()):
            assert time.monotonic() < deadline, "they are held for ever"
            client.take()
        assert not any(answer.ended for answer in client.answers.values())
    for number in range(50):
        assert coulee.record(f"/make?size=1000000&held={number}")["reason"]


# ------------------------------------------------------------------------------------------------------- others


@pytest.fixture
def others(coulee: Doors) -> Generator[Clients, None, None]:
    """Those who are to notice nothing."""
    with contextlib.ExitStack() as stack:
        address = HOST, coulee.ports["plain"]
        connections = [stack.enter_context(socket.create_connection(address)) for _ in range(CLIENTS)]
        clients = Clients(connections, b"GET /sink HTTP/1.1\r\nHost: localhost\r\nX-To: nginx\r\n\r\n")
        yield clients
        clients.close()


@contextlib.contextmanager
def flooding(port: int, names: list[str]) -> Generator[None, None, None]:
    """A process that does these while the block lasts."""
    program = str(Path(__file__).with_name("http2_floods.py"))
    command = [sys.executable, program, str(port), *names, "60"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
            assert process.poll() is None
        finally:
            process.terminate()


@pytest.mark.parametrize("names", [[name] for name in FLOODS] if LONG else [list(FLOODS)], ids=lambda names: names[0])
def test_others_are_answered_meanwhile(coulee: Doors, others: Clients, names: list[str]) -> None:
    others.run(WINDOW_S)
    ratios: list[float] = []
    for _ in range(ROUNDS):
        alone = others.run(WINDOW_S)
        heard = len(coulee.lines)
        with flooding(coulee.ports["plain"], names):
            until(lambda: any("http2" in words_of(line) for line in coulee.lines[heard:]), "it has begun")  # noqa: B023
            beside = others.run(WINDOW_S)
        ratios.append(percentile(beside, 99) / percentile(alone, 99))
        assert min(len(alone), len(beside)) >= CLIENTS
        if ratios[-1] < SLOWER_MAX:
            break
    print(f"{' '.join(f'{each:.2f}' for each in ratios)} times")
    assert min(ratios) < SLOWER_MAX


# ------------------------------------------------------------------------------------------------------ memory


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")


@LINUX
@pytest.mark.parametrize(
    ("references", "target", "streams"),
    [(16_000, b"/echo", 50), (6, b"/stuck", 90)],
    ids=["far too large", "just small enough, and never answered"],
)
def test_a_bomb_of_fields_costs_little(coulee: Doors, references: int, target: bytes, streams: int) -> None:
    """64 MB of fields in 16 KiB are refused, and what is within the limits is not kept."""
    exploded(coulee, references, target, streams, 2)
    before = coulee.memory_kib("VmRSS")
    Path(f"/proc/{coulee.process.pid}/clear_refs").write_text("5")  # from here on VmHWM is counted anew
    with contextlib.ExitStack() as stack:
        for _ in range(BOMBERS):
            bomber = stack.enter_context(bombed(coulee, references, target, streams))
            assert references > 100 or not bomber.closed, "what is within the limits is taken"
        cost = (coulee.memory_kib("VmRSS") - before) / BOMBERS
        peak = (coulee.memory_kib("VmHWM") - before) / BOMBERS
    print(f"{cost:.0f} KiB a connection, {peak:.0f} at most")
    assert peak < COST_MAX_KIB


def exploded(coulee: Doors, references: int, target: bytes, streams: int, connections: int) -> None:
    """So that what is needed once is there."""
    for _ in range(connections):
        bombed(coulee, references, target, streams).close()


def bombed(coulee: Doors, references: int, target: bytes, streams: int) -> Http2Client:
    """A connection that is left open, where that is possible, with its windows closed."""
    client = Http2Client(dialled(coulee.ports["plain"]), window=0)
    client.settle()
    pieces = bombs(client, references, target)
    with contextlib.suppress(OSError):
        for _ in range(streams):
            client.send(next(pieces))
        client.send(b"\0\0\x08\6\0\0\0\0\0" + bytes(8))  # PING: all before it has been read when it is answered
        client.sock.settimeout(WITHIN_S)
        while not client.closed and not client.pongs:
            client.take()
    return client
