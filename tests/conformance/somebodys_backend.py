"""What somebody writes who has a backend: a harness for it, and a class for pytest to find. test_kit.py runs it.

The backend is a small one on a loop of ours. `BUG` in the environment plants a bug in it, so that the suite can be seen
to find it. The file is copied elsewhere to be run, as a file of somebody's would be.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf
from typing import Any, Literal

import pytest

from coulee.backends import sockets
from coulee.backends.driver import Listener, Wire
from coulee.backends.loop import READABLE, Loop
from coulee.backends.nonblocking import Found, NonblockingDriver, NonblockingListener, NonblockingWire
from coulee.conformance import Harness, SocketHarness, Suite
from coulee.core.seam import Bytes, ErrorKind, Machine

BUG = os.environ.get("BUG", "")

sockets.ACCEPT_PAUSE_S = 0.0 if BUG == "spins where it cannot accept" else 0.1


class MyWire(NonblockingWire):
    """A connection, with bugs."""

    __slots__ = ()

    def write(self, data: Bytes) -> bool:
        taken = super().write(data)
        if BUG == "loses what it keeps" and not taken:
            self._kept = [b""]
        return taken

    def write_eof(self) -> None:
        if BUG == "half-closes before what it keeps" and self._sock is not None:
            self._sock.shutdown(socket.SHUT_WR)
        else:
            super().write_eof()

    def ready(self, events: int) -> None:
        if BUG == "reads while it is held" and not self.reading and events == READABLE and not self.ended:
            self.received(self._recv(3))
        else:
            super().ready(events)

    def close(self, abort: bool) -> None:
        super().close(abort and BUG != "aborts as it closes")

    def lost(self, kind: ErrorKind | None, detail: str = "") -> None:
        super().lost(kind, detail)
        if BUG == "has bytes behind a reset" and kind == "reset":
            self.received(b"late")


class MyListener(NonblockingListener):
    """A listener, with bugs."""

    __slots__ = ()

    def accept(self, listening: socket.socket, accepts_max: int | None = None) -> None:
        if BUG == "accepts without a credit" and not self.credits:
            sock, _ = listening.accept()
            sock.close()
        else:
            super().accept(listening, accepts_max)

    def _look_for(self, mask: int) -> None:
        super()._look_for(1 if BUG == "accepts without a credit" else mask)


class MyDriver(NonblockingDriver):
    """The rest of the backend: jobs, and names."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, Loop())
        self.threads = ThreadPoolExecutor(8)
        self.armed = inf

    def new_wire(self, conn: int, was_accepted: bool) -> Wire:
        return MyWire(self, conn, was_accepted)

    def new_listener(self, number: int) -> Listener:
        return MyListener(self, number)

    def arm(self, when: float) -> None:
        if BUG != "does not bring an alarm forward" or when > self.armed or self.armed < self.clock():
            self.armed = when
            super().arm(when)

    def start_job(self, job: int, mode: Literal["blocking", "native"], call: Callable[[], Any]) -> None:
        future = self.threads.submit(call if mode == "blocking" else partial(_await, call))
        future.add_done_callback(lambda done: self.loop.call(partial(self._end_job, job, done)))

    def _end_job(self, job: int, done: Any) -> None:
        error = done.exception()
        if BUG == "loses the job that fails" and error is not None:
            return
        self.finished(job, None if error else done.result(), error)

    def stop_job(self, handle: Any) -> None:
        """It cannot be stopped."""

    def look_up(self, address: tuple[str, int], then: Callable[[Found], object]) -> None:
        def done(future: Any) -> None:
            found: Found = future.exception() or sockets.in_turns(future.result())
            if isinstance(found, list) and BUG == "tries one address of a name":
                found = found[:1]
            self.loop.call(partial(then, found if isinstance(found, list | OSError) else OSError(str(found))))

        self.threads.submit(socket.getaddrinfo, *address, type=socket.SOCK_STREAM).add_done_callback(done)


def _await(call: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return await call()

    return asyncio.run(main())


class MyHarness(SocketHarness):
    """The backend, in this thread."""

    limit_s = 1.0 if BUG else 10.0
    mine: MyDriver

    @property
    def done(self) -> bool:  # type: ignore[override]
        return self.mine.over

    def start(self, machine: Machine) -> None:
        self.driver = self.mine = MyDriver(machine)
        self.driver.start()

    def breathe(self) -> None:
        self.mine.loop.turn(0.0005)
        if self.mine.failure is not None:
            raise self.mine.failure

    def end(self) -> None:
        super().end()
        self.mine.shut()
        self.mine.threads.shutdown()


class TestMyBackend(Suite):
    one_after_another = 100
    at_once = 100

    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        harness = MyHarness()
        yield harness
        harness.end()
