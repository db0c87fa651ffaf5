"""The driver passes the conformance suite on Twisted's reactor, and the program does what its page says."""

import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("twisted")

from twisted.internet.task import deferLater
from twisted_proxy import TwistedDriver, reactor

from coulee.conformance import SocketHarness, Suite
from coulee.core import Proxy
from coulee.core.seam import Machine
from coulee.lb import Cluster
from tests.docs import trial


@pytest.fixture(scope="module", autouse=True)
def reactor_that_is_turned_by_hand() -> Iterator[None]:
    reactor.startRunning(installSignalHandlers=False)
    yield
    reactor.disconnectAll()


class TwistedHarness(SocketHarness):
    driver: TwistedDriver

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[BaseException | None] = []

    @property
    def done(self) -> bool:  # type: ignore[override]
        return bool(self.ends)

    async def sleep(self, seconds: float) -> None:
        await deferLater(reactor, seconds)

    def start(self, machine: Machine) -> None:
        self.driver = TwistedDriver(machine, on_end=self.ends.append)
        self.driver.open()

    def breathe(self) -> None:
        reactor.iterate(0.0005)
        if self.ends and self.ends[0] is not None:
            raise self.ends[0]

    def end(self) -> None:
        super().end()
        self.driver.shut()


class TestTwistedDriver(Suite):
    one_after_another = 1_000

    @pytest.fixture
    def harness(self) -> Iterator[TwistedHarness]:
        made = TwistedHarness()
        yield made
        made.end()


def test_a_proxy_on_it() -> None:
    records: list[object] = []
    ends: list[BaseException | None] = []
    ready: list[Any] = []
    with trial.origin() as origin:
        proxy = Proxy(Cluster(origin.url), config=trial.PATIENCE)
        driver = TwistedDriver(proxy, "127.0.0.1:0", reporter=records.append, on_ready=ready.append, on_end=ends.append)
        driver.open()
        client = partial(trial.client, origin, ready[0].addresses[0], partial(driver.loop.call, driver.stop))
        trial.turn_until_done(client, partial(reactor.iterate, 0.05), lambda: bool(ends))
    assert ends == [None]
    trial.judge(records)


# ------------------------------------------------------------------------------------------------- the program


class Operator:
    """Who speaks with the console."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.answers = sock.makefile("r")

    def say(self, order: str) -> str:
        self.sock.sendall(f"{order}\n".encode())
        return self.answers.readline().strip()


@contextmanager
def program(origin: str) -> Generator[tuple[subprocess.Popen[str], int, Operator]]:
    """The program, where it listens, and its operator."""
    command = [sys.executable, str(Path(__file__).with_name("twisted_proxy.py")), origin, "127.0.0.1:0", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            console, port = (int(process.stdout.readline().rpartition(" ")[2]) for _ in range(2))
            with socket.create_connection(("127.0.0.1", console), trial.LIMIT_S) as sock:
                operator = Operator(sock)
                with closing(operator.answers):
                    yield process, port, operator
        finally:
            process.kill()


def get(port: int, target: str) -> tuple[int, bytes]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=trial.LIMIT_S)) as conn:
        return trial.ask(conn, target)


def test_the_operator_counts_holds_and_drains() -> None:
    with trial.origin() as origin, program(origin.url) as (process, port, operator), ThreadPoolExecutor() as pool:
        assert get(port, "/1") == (200, b"/1")
        assert operator.say("status") == "1 served, 0 waiting"
        assert operator.say("hold") == "hold"
        held = [pool.submit(get, port, f"/{number}") for number in (2, 3)]
        while operator.say("status") != "1 served, 2 waiting":
            pass
        assert not any(each.done() for each in held)
        assert operator.say("go") == "go"
        assert [each.result() for each in held] == [(200, b"/2"), (200, b"/3")]
        assert operator.say("status") == "3 served, 0 waiting"
        assert operator.say("help") == "status, hold, go, or drain?"

        slow = pool.submit(get, port, "/slow")
        assert origin.has_slow.wait(trial.LIMIT_S)
        assert operator.say("drain") == "drain"
        assert operator.say("status") == "3 served, 0 waiting", "the console goes on while it drains"
        origin.go_on.set()
        assert slow.result() == (200, b"/slow")
        assert process.wait(trial.LIMIT_S) == 0


def test_who_leaves_waits_no_more() -> None:
    with trial.origin() as origin, program(origin.url) as (_, port, operator):
        operator.say("hold")
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            while operator.say("status") != "0 served, 1 waiting":
                pass
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its close is a reset
        while operator.say("status") != "1 served, 0 waiting":  # it has its record
            pass
        assert not origin.asked


def test_a_signal_lets_finish_what_runs() -> None:
    with trial.origin() as origin, program(origin.url) as (process, port, _), ThreadPoolExecutor() as pool:
        slow = pool.submit(get, port, "/slow")
        assert origin.has_slow.wait(trial.LIMIT_S)
        process.send_signal(signal.SIGTERM)
        origin.go_on.set()
        assert slow.result() == (200, b"/slow")
        assert process.wait(trial.LIMIT_S) == 0


def test_an_address_that_is_taken_is_said_in_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = Path(__file__).with_name("twisted_proxy.py")
        command = [sys.executable, str(program), "http://127.0.0.1:9", f"127.0.0.1:{port}", "0"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=trial.LIMIT_S, check=False)
    assert ended.returncode == 1
    assert ended.stderr == f"twisted_proxy: cannot listen on 127.0.0.1:{port}: Address already in use\n"
