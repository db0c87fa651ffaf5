"""The suite on a loop of one's own: any loop that speaks asyncio's language, here a fresh one of asyncio's."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from coulee.backends.asyncio import AsyncioDriver, serve
from coulee.conformance import Harness, SocketHarness, Suite
from coulee.core.seam import Machine


class MyHarness(SocketHarness):
    sleep: Callable[[float], Awaitable[Any]] | None = staticmethod(asyncio.sleep)  # what native jobs wait with

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()

    def start(self, machine: Machine) -> None:
        ready: list[AsyncioDriver] = []
        self.task = self.loop.create_task(serve(machine, on_ready=ready.append))
        self.until(lambda: ready)
        self.driver = ready[0]

    def breathe(self) -> None:
        self.loop.call_later(0.0005, self.loop.stop)
        self.loop.run_forever()
        self.done = self.task.done()
        if self.done:
            self.task.result()

    def end(self) -> None:
        super().end()
        self.task.cancel()
        self.loop.call_later(10.0, self.task.cancel)  # again, where the machine does not finish
        with suppress(asyncio.CancelledError):
            self.loop.run_until_complete(self.task)
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


class TestMyLoop(Suite):
    one_after_another = 200  # to be quick; 10,000 unless told
    at_once = 100
    body_bytes = 16 * 1024 * 1024

    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        harness = MyHarness()
        yield harness
        harness.end()
