"""The driver passes the conformance suite, and the program runs."""

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from random import Random

import pytest
from select_driver import SelectDriver

from coulee.conformance import SocketHarness, Suite
from coulee.core import Proxy
from coulee.core.seam import Address, Machine
from coulee.lb import Cluster
from tests.docs import trial


class Face(SelectDriver):
    """What the suite asks of a driver beside `post` and `drain`."""

    @property
    def addresses(self) -> list[Address]:
        return [socks[0].getsockname() for socks in self.listeners.values() if socks]

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
        ("coulee.core.seam", "Address, ErrorKind"),
    ]
