"""The driver passes the conformance suite, and the program runs."""

import asyncio
from collections.abc import Iterator

import pytest
from select_driver import SelectDriver

from coulee.conformance import SocketHarness, Suite
from coulee.core.seam import Address, Machine


class Face(SelectDriver):
    """What the suite asks of a driver beside `post` and `drain`."""

    @property
    def addresses(self) -> list[Address]:
        return [socks[0].getsockname() for socks in self.listeners.values() if socks]

    @property
    def outstanding(self) -> dict[str, int]:
        kinds = ("listeners", "credits", "pending", "queue", "writers")
        return {"connections": len(self.conns), **{kind: len(getattr(self, kind)) for kind in kinds}}


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
