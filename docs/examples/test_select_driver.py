"""The driver passes the conformance suite, and the program runs."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from random import Random

import pytest
from blocking_calls import plain
from select_driver import SelectDriver

from coulee.conformance import Puppet, SocketHarness, Suite
from coulee.core import Proxy
from coulee.core.seam import (
    Accept,
    Accepted,
    Address,
    Blocked,
    Close,
    Closed,
    Completion,
    Hold,
    Listen,
    Machine,
    Operation,
    Receive,
    Received,
    Send,
)
from coulee.lb import Cluster
from tests.docs import trial


class Face(SelectDriver):
    """What the suite asks of a driver beside `post` and `drain`."""

    @property
    def addresses(self) -> list[Address]:
        return [plain(socks[0].getsockname()) for socks in self.listeners.values() if socks]

    @property
    def outstanding(self) -> dict[str, int]:
        kinds = ("listeners", "credits", "pending", "queue", "writers")
        return {"connections": len(self.conns), **{kind: len(getattr(self, kind)) for kind in kinds}}

    def wait_to_listen(self) -> Address:
        while not self.addresses:
            self.turn()
        return self.addresses[0]


class SelectHarness(SocketHarness):
    driver: Face  # type: ignore[assignment]
    sleep = staticmethod(asyncio.sleep)
    has_tls = False

    @property
    def done(self) -> bool:  # type: ignore[override]
        return self.driver.machine.finished

    def start(self, machine: Machine) -> None:
        self.driver = Face(machine)
        self.driver.post(None)

    def breathe(self) -> None:
        self.driver.turn(0.0005)

    def end(self) -> None:
        super().end()
        self.driver.shut()


class TestSelectDriver(Suite):
    one_after_another = 2_000
    at_once = 200  # select(2) takes no descriptor beyond 1023

    @pytest.fixture
    def harness(self) -> Iterator[SelectHarness]:
        made = SelectHarness()
        yield made
        made.end()


# ------------------------------------------------------------------------- what only shows turn by turn

MUCH = bytes(10_000_000)


@pytest.fixture
def driver() -> Iterator[Face]:
    made = Face(Puppet())
    yield made
    made.shut()


def heard(driver: Face, *kinds: type) -> list[Completion]:
    assert isinstance(driver.machine, Puppet)
    return [each for each in driver.machine.heard if isinstance(each, kinds)]


def do(driver: Face, *operations: Operation) -> None:
    assert isinstance(driver.machine, Puppet)
    driver.machine.outbox.extend(operations)
    driver.post(None)


@contextmanager
def two_clients(driver: Face) -> Iterator[list[socket.socket]]:
    """The connections 2 and 3, from the other side."""
    do(driver, Listen(1, ("127.0.0.1", 0)), Accept(2, 1), Accept(3, 1))
    address = driver.wait_to_listen()
    with socket.create_connection(address) as one, socket.create_connection(address) as two:  # type: ignore[arg-type]
        while len(heard(driver, Accepted)) < 2:
            driver.turn()
        yield [one, two]


@pytest.mark.parametrize("ending", [Hold, Close, partial(Close, abort=True)])
def test_what_an_earlier_event_of_the_turn_has_ended_is_not_heard(
    driver: Face, ending: Callable[[int], Operation]
) -> None:
    """Both connections have bytes. Whichever is read first, the machine then wants no more of the other."""
    assert isinstance(driver.machine, Puppet)
    driver.machine.react = lambda completion: (
        [ending(5 - completion.conn)] if isinstance(completion, Received) and len(heard(driver, Received)) == 1 else []
    )
    with two_clients(driver) as clients:
        do(driver, Receive(2), Receive(3))
        for client in clients:
            client.sendall(b"x")
        while not heard(driver, Received):
            driver.turn()
        driver.turn(0.0)
    assert len(heard(driver, Received)) == 1


def test_blocked_is_heard_first_and_not_behind_a_close(driver: Face) -> None:
    assert isinstance(driver.machine, Puppet)
    driver.machine.react = lambda completion: [Close(5 - completion.conn)] if isinstance(completion, Blocked) else []
    with two_clients(driver):
        do(driver, Accept(4, 1))
        before = len(driver.machine.heard)
        do(driver, Close(4), Send(2, MUCH), Send(3, MUCH))
        first, *others = driver.machine.heard[before:]
        assert isinstance(first, Blocked)
        assert others == [Closed(4)]


# ------------------------------------------------------------------------------------------------- whole proxies


def test_a_proxy_on_it() -> None:
    records: list[object] = []
    with trial.origin() as origin:
        proxy = Proxy(Cluster(origin.url), config=trial.PATIENCE)
        driver = Face(proxy.fresh(rng=Random(1), wall_clock_offset_s=0.0, listen=[("127.0.0.1", 0)]), records.append)
        try:
            driver.post(None)
            client = partial(
                trial.client, origin, driver.wait_to_listen(), partial(driver.later, partial(driver.drain, 30.0))
            )
            trial.turn_until_done(client, partial(driver.turn, 0.05), lambda: driver.machine.finished)
        finally:
            driver.shut()
    trial.judge(records)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program(number: signal.Signals) -> None:
    program = Path(__file__).with_name("select_driver.py")
    port = trial.free_port()
    with trial.origin() as origin:
        command = [sys.executable, str(program), origin.url, f"localhost:{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert "listening" in process.stdout.readline()
                with closing(HTTPConnection("127.0.0.1", port, timeout=trial.LIMIT_S)) as conn:
                    assert trial.ask(conn, "/hello") == (200, b"/hello")
                assert "target='/hello'" in process.stdout.readline()
                process.send_signal(number)
                assert "draining" in process.stdout.read()
                assert process.wait(trial.LIMIT_S) == 0
            finally:
                process.kill()


def test_it_knows_nothing_of_coulee_but_the_seam() -> None:
    here = Path(__file__).parent
    imports = re.findall(
        r"^from (coulee\S*) import (.*)$",
        (here / "select_driver.py").read_text() + (here / "blocking_calls.py").read_text(),
        re.MULTILINE,
    )
    assert imports == [
        ("coulee.core", "Proxy, seam"),  # Proxy and Cluster are what it runs
        ("coulee.lb", "Cluster"),
        ("coulee.core.seam", "Address, ConnectOptions, ErrorKind, ListenOptions"),
    ]
