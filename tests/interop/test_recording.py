"""`--record` and `coulee replay`, as a user has them: real clients, every backend, workers, and what goes wrong."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from importlib.util import find_spec
from pathlib import Path

import pytest

COULEE = str(Path(sys.executable).with_name("coulee"))
BACKENDS = ("asyncio", "uvloop", "trio", "curio", "threads")
WITHIN_S = 15.0
APP = """
from coulee.core import Filter, Proxy, blocking, native, respond, sleep
from coulee.lb import Cluster


async def three():
    return 3


class Some(Filter):
    async def request_filter(self, exchange):
        match exchange.request.path:
            case "/bad":
                raise LookupError("a filter's mistake")
            case "/work":
                await sleep(0.01)
                exchange.tags["sum"] = await blocking(sum, [1, 2]) + await native(three)
        return respond(200, f"{exchange.rng.random()} {await exchange.body()}")


proxy = Proxy(Cluster("http://127.0.0.1:9"), [Some()])
"""


class Program:
    """coulee, recording."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        self.process = subprocess.Popen(
            [COULEE, "run", "app.py", "--listen", "127.0.0.1:0", "--quiet", *args],
            cwd=folder, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said: list[str] = []
        self.port = int(self.line("listening on").rpartition(":")[2])

    def line(self, word: str) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if word in line:
                return line.rstrip("\n")
        raise AssertionError(f"no line with {word!r}: {self.said}")

    def ask(self, *targets: str, body: str = "") -> list[int]:
        """Requests on one connection; the statuses of their answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN_S)
        statuses: list[int] = []
        for target in targets:
            connection.request("POST" if body else "GET", target, body or None, {"Authorization": "s3cret"})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
        return statuses

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(WITHIN_S)

    def replay(self, name: str, *args: str) -> tuple[int, str]:
        done = subprocess.run(
            [COULEE, "replay", name, *args], cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def start(tmp_path: Path) -> Generator[Callable[..., Program], None, None]:
    running: list[Program] = []

    def begin(*args: str) -> Program:
        running.append(Program(tmp_path, *args))
        return running[-1]

    yield begin
    for program in running:
        program.process.kill()
        program.process.wait()
        assert program.process.stderr is not None
        program.process.stderr.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_real_clients_did_is_replayed(start: Callable[..., Program], backend: str) -> None:
    if backend in ("uvloop", "trio", "curio") and find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    program = start("--backend", backend, "--record", "a.rec", "--grace", "5")
    assert "recording to a.rec, with all that is said; --record-redact" in "".join(program.said)
    assert program.ask("/a", "/work", "/bad") == [200, 200, 500]
    assert program.ask("/b", body="x" * 100_000) == [200]
    assert program.stop() == 0
    code, said = program.replay("a.rec")
    assert code == 0, said[-2000:]
    assert "all as recorded; the machine has finished" in said
    assert program.replay("a.rec", "--exchange", "2")[1].count("/work 200") == 1


def test_a_killed_process_leaves_a_recording_that_replays(start: Callable[..., Program]) -> None:
    program = start("--record", "a.rec")
    program.ask("/a")
    program.stop(signal.SIGKILL)
    code, said = program.replay("a.rec", "--quiet")
    assert code == 0
    assert "all as recorded; the file breaks off" in said


def test_secrets_are_not_in_the_file(start: Callable[..., Program]) -> None:
    program = start("--record", "a.rec", "--record-redact", "credentials,bodies,query")
    assert "recording to a.rec, without bodies, credentials, query" in "".join(program.said)
    assert program.ask("/a?token=hidden", body="private") == [200]
    assert program.ask("/b", body="private" * 100_000) == [200]
    program.stop()
    data = (program.folder / "a.rec").read_bytes()
    assert b"POST /a?*" in data
    assert len(data) < 20_000, "hidden bodies take no room"
    for secret in (b"s3cret", b"hidden", b"private"):
        assert secret not in data
    assert program.replay("a.rec", "--quiet")[0] == 0, "what the filter answers is hidden too"


def test_a_ring_writes_what_failed_and_nothing_before(start: Callable[..., Program]) -> None:
    program = start("--record", "a.rec", "--record-ring", "60")
    assert program.ask("/a", "/work") == [200, 200]
    assert not (program.folder / "a.rec").exists()
    assert program.ask("/bad") == [500]
    assert program.line("recorded:") == "coulee: recorded: a.rec (coulee replay a.rec)"
    program.stop()
    code, said = program.replay("a.rec")
    assert code == 0
    assert "Report filter_error: " in said


def test_a_ring_turns_without_a_client_noticing(start: Callable[..., Program]) -> None:
    program = start("--record", "a.rec", "--record-ring", "0.05", "--backend", "threads")
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        assert program.ask("/a", "/work") == [200, 200]
    assert program.ask("/bad") == [500]
    program.line("recorded:")
    assert program.stop() == 0
    assert program.replay("a.rec", "--quiet")[0] == 0
    assert (program.folder / "a.rec").stat().st_size < 100_000, "it does not hold all of that second"


def test_each_worker_has_a_recording_of_its_own(start: Callable[..., Program]) -> None:
    program = start("--record", "a.rec", "--workers", "2", "--backend", "threads")
    for _ in range(20):
        assert program.ask("/a") == [200]
    assert program.stop() == 0
    files = sorted(path.name for path in program.folder.glob("a.rec.*"))
    assert len(files) == 2
    for name in files:
        assert program.replay(name, "--quiet")[0] == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--record", "nowhere/a.rec"), "coulee: --record nowhere/a.rec: No such file or directory\n"),
        (("--record", "nowhere/a.rec", "--record-ring", "1"),
         "coulee: --record nowhere/a.rec: there is no such folder, or nothing can be written in it\n"),
        (("--record-ring", "1"), "Error: there is nothing to record without --record FILE\n"),
        (("--record", "a.rec", "--record-redact", "host"),
         "Error: --record-redact: 'host' cannot be hidden: a replay could not follow\n"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line_and_code_2(args: tuple[str, ...], says: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    done = subprocess.run(
        [COULEE, "run", "app.py", "--listen", "127.0.0.1:0", *args],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.endswith(says)
