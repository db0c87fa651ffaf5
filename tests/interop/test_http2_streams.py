"""Streams of HTTP/2 that share a connection, on every backend: one that stalls stalls no other, on either side, and
makes coulee hold little; many large bodies for readers of different speeds arrive as they were sent, in bounded memory.

Memory is read from /proc, so that part needs Linux. The short form runs with every test run; HTTP2_LONG=1 makes it the
long one (`make grpc`).
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import json
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from math import inf

import pytest

from tests.interop.fleet import HOST, WITHIN_S, until
from tests.interop.h2_client import Http2Client, dialled
from tests.interop.h2_origin import BLOCK, made
from tests.interop.http2_proxied import LONG, Doors, doors, serving
from tests.interop.proxied import Certificates, certificates_in

KIB, MIB = 1024, 1024 * 1024
STREAMS, SIZE = (100, 10 * MIB) if LONG else (20, MIB)
HELD_MAX = 5 * 64 * KIB
"""What a stream that is not read may take from its origin: the client's window and ours, our water mark, and what is
on its way between the two."""

GROWTH_MAX_KIB = 20 * KIB + STREAMS * 600  # a third of them have an origin of HTTP/1.1, where reads are large
WITHIN_LONG_S = 100.0
SHARES = (0.125, 0.25, 0.5, inf)
"""How much of a body a reader takes while the slowest of the fast has taken a whole one; one in four is fast."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates_in(tmp_path_factory.mktemp("http2"))


@pytest.fixture(scope="module")
def origin(certificates: Certificates) -> Iterator[dict[str, int]]:
    """The ports of our own."""
    with serving("h2_origin.py", pair=str(certificates.pair)) as ports:
        yield ports


@pytest.fixture(scope="module")
def coulee(backend: str, certificates: Certificates, origin: dict[str, int]) -> Generator[Doors, None, None]:
    origins = {
        "h1": {"url": f"http://{HOST}:{origin['h1']}"},
        "h2": {"url": f"h2c://{HOST}:{origin['h2']}"},
        "tls": {"url": f"https://{HOST}:{origin['tls']}"},
    }
    with doors(backend, certificates, origins, http2={"streams_max": 200}) as running:
        yield running


@pytest.fixture(params=["plain", "tls"])
def client(request: pytest.FixtureRequest, coulee: Doors, certificates: Certificates) -> Iterator[Http2Client]:
    """A connection, of either kind."""
    context = certificates.plain if request.param == "tls" else None
    with Http2Client(dialled(coulee.ports[request.param], context)) as found:
        yield found


def count(origin: Mapping[str, int], word: str) -> int:
    """How often that has been so far, at the origin."""
    conn = http.client.HTTPConnection(HOST, origin["h1"], timeout=WITHIN_S)
    with contextlib.closing(conn):
        conn.request("GET", "/counts")
        counts: dict[str, int] = json.loads(conn.getresponse().read())
    return counts.get(word, 0)


def digest_of(size: int) -> str:
    """Of what an origin makes."""
    sha = hashlib.sha256()
    for number in range(-(-size // BLOCK)):
        sha.update(made(number)[: size - number * BLOCK])
    return sha.hexdigest()


numbers = itertools.count()
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")


# -------------------------------------------------------------------------------------------- one that stalls


@pytest.mark.parametrize("by", ["h1", "h2", "tls"])
def test_a_stream_that_its_client_does_not_read(client: Http2Client, origin: dict[str, int], by: str) -> None:
    size, key = 4 * MIB, str(next(numbers))
    sha = hashlib.sha256()
    way = [("x-to", by)]
    stalled = client.ask("GET", f"/make?size={size}&key={key}", way, held=True, keep=sha.update)
    answer = client.answers[stalled]
    client.until(lambda: answer.size == 65535, "its window is used up")
    began = time.monotonic()
    for _ in range(10):
        assert client.fetch("POST", "/echo", way, [b"x" * 1000]).status == 200
    other = hashlib.sha256()
    beside = client.ask("GET", f"/make?size={SIZE}", way, keep=other.update)
    client.answer(beside)
    assert time.monotonic() - began < WITHIN_S
    assert other.hexdigest() == digest_of(SIZE)
    assert answer.size == 65535
    if by != "h1":  # where the system's own buffers take what they may
        assert count(origin, f"sent {key}") <= HELD_MAX
    client.release(stalled)
    client.answer(stalled)
    assert sha.hexdigest() == digest_of(size)


@pytest.mark.parametrize("by", ["h2", "tls"])
def test_a_stream_that_its_origin_does_not_read(
    client: Http2Client, coulee: Doors, origin: dict[str, int], by: str
) -> None:
    """Both connections carry others."""
    key = f"{coulee.process.pid}-{next(numbers)}"
    way = [("x-to", by)]
    assert client.fetch("GET", "/echo", way).status == 200
    connections = count(origin, "connections 2")
    stalled = client.ask("POST", f"/stuck?key={key}", way, ended=False)
    until(lambda: count(origin, f"begun {key}"), "it is there")
    sent = poured(client, stalled)
    assert 65535 <= sent <= HELD_MAX
    for _ in range(10):
        assert client.fetch("POST", "/echo", way, [b"x" * 1000]).status == 200
    told = json.loads(client.fetch("POST", "/echo", way, [b"y" * SIZE]).body)
    assert told["size"] == SIZE
    assert poured(client, stalled) == 0
    client.cancel(stalled)
    until(lambda: count(origin, f"ended {key}"), "the origin is told")
    assert client.fetch("GET", "/echo", way).status == 200
    assert count(origin, "connections 2") == connections


def poured(client: Http2Client, number: int) -> int:
    """What goes out on a stream until there is no more room on it."""
    sent, answer = 0, client.answers[number]
    while True:
        while answer.room > 0 and client.room > 0:
            room = min(answer.room, client.room, 16384)
            client.data(number, b"x" * room)
            sent += room
        quiet_at = time.monotonic() + 0.1
        client.sock.settimeout(0.05)
        with contextlib.suppress(TimeoutError):
            while answer.room <= 0 and time.monotonic() < quiet_at:
                client.take()
        client.sock.settimeout(WITHIN_S)
        if answer.room <= 0:
            return sent


@pytest.mark.parametrize("by", ["h2", "tls"])
def test_many_streams_that_a_client_does_not_read_stall_no_other_client(
    client: Http2Client, coulee: Doors, by: str
) -> None:
    """Though both have the same connection to the origin."""
    way = [("x-to", by)]
    with Http2Client(dialled(coulee.ports["plain"])) as other:
        stalled = [client.ask("GET", f"/make?size={4 * MIB}", way, held=True) for _ in range(50)]
        client.until(
            lambda: all(client.answers[number].size == 65535 for number in stalled), "their windows are used up"
        )
        for _ in range(5):
            assert other.fetch("GET", "/make?size=100000", way).size == 100_000


# ----------------------------------------------------------------------------------------------- many and large


@LINUX
def test_large_answers_for_readers_of_different_speeds(client: Http2Client, coulee: Doors) -> None:
    before = warm(client, coulee)
    shas = [hashlib.sha256() for _ in range(STREAMS)]
    streams = [
        client.ask("GET", f"/make?size={SIZE}", [("x-to", ("h1", "h2", "tls")[number % 3])], held=True, keep=sha.update)
        for number, sha in enumerate(shas)
    ]
    fast = [client.answers[stream] for stream in streams[3::4]]
    deadline = time.monotonic() + (WITHIN_LONG_S if LONG else WITHIN_S)
    while not all(client.answers[stream].ended for stream in streams):
        assert time.monotonic() < deadline, "the fast have to wait for the slow, which wait for them"
        taken = min(answer.size for answer in fast)
        hold = not all(answer.ended for answer in fast)
        for number, stream in enumerate(streams):
            take_some(client, stream, SHARES[number % 4] * taken if hold else inf)
        assert client.take(), client.goaways
    expected = digest_of(SIZE)
    assert [sha.hexdigest() == expected for sha in shas] == [True] * STREAMS
    is_bounded(coulee, before)


def take_some(client: Http2Client, number: int, upto: float) -> None:
    """Give back what is due of a stream's window, which is so much in all."""
    answer = client.answers[number]
    due = int(min(answer.owed, upto - (answer.size - answer.owed)))
    if due > 0 and not answer.over:
        answer.owed -= due
        client.opened(number, due)


@LINUX
def test_large_requests_for_readers_of_different_speeds(client: Http2Client, coulee: Doors) -> None:
    before = warm(client, coulee)
    paces = (0, 0.001, 0.005, 0)
    size = MIB
    data = b"".join(made(number) for number in range(size // BLOCK))
    streams = [
        client.ask("POST", f"/sip?every={paces[number % 4]}", [("x-to", ("h2", "tls", "h1")[number % 3])], ended=False)
        for number in range(STREAMS)
    ]
    left = dict.fromkeys(streams, 0)
    deadline = time.monotonic() + WITHIN_LONG_S
    while left:
        assert time.monotonic() < deadline
        moved = False
        for stream, at in list(left.items()):
            room = min(client.answers[stream].room, client.room, 16384)
            if room > 0:
                moved = True
                piece = data[at : at + room]
                left[stream] += len(piece)
                ended = left[stream] == size
                client.data(stream, piece, ended=ended)
                if ended:
                    del left[stream]
        if not moved:
            assert client.take(), client.goaways
    expected = hashlib.sha256(data).hexdigest().encode()
    assert [bytes(client.answer(stream, WITHIN_LONG_S).body) == expected for stream in streams] == [True] * STREAMS
    is_bounded(coulee, before)


def warm(client: Http2Client, coulee: Doors) -> int:
    """What memory it needs behind a first request; or a skip, where another backend stands for this one by TLS."""
    if client.scheme == "https" and coulee.backend != "asyncio" and not LONG:
        pytest.skip("HTTP2_LONG=1 runs it")
    for by in ("h1", "h2", "tls"):
        assert client.fetch("GET", "/make?size=300000", [("x-to", by)]).status == 200
    return coulee.memory_kib("VmRSS")


def is_bounded(coulee: Doors, before: int) -> None:
    growth = coulee.memory_kib("VmHWM") - before
    print(f"memory grew by {growth} KiB from {before} KiB")
    assert growth < GROWTH_MAX_KIB
