"""The harnesses of our own backends that need no library: asyncio, threads and the simulator."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

import pytest

from coulee.backends.asyncio import AsyncioDriver, serve
from coulee.backends.driver import Driver
from coulee.backends.hosting import make_machine
from coulee.backends.loop import Loop, Poller
from coulee.backends.network import BLACK_HOLE_S, Attempt
from coulee.backends.pipes import Owner
from coulee.backends.simulator import FarEnd, Simulator, Weather
from coulee.backends.threads import Running, ThreadsDriver
from coulee.conformance import LIMIT_S, Peer, SocketHarness
from coulee.core.seam import Address, ErrorKind, Machine


class AsyncioHarness(SocketHarness):
    """asyncio, or uvloop."""

    sleep = staticmethod(asyncio.sleep)

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        super().__init__()
        self.loop = new_loop()
        self._is_uvloop = not isinstance(self.loop, asyncio.SelectorEventLoop)
        if self._is_uvloop:
            self.turn_descriptors = 2  # it hears of signals through a pair of sockets, which each of its runs opens
        self._calls_within = False
        self._task: asyncio.Task[None] | None = None

    @property
    def done(self) -> bool:  # type: ignore[override]
        return self._task is not None and self._task.done()

    def start(self, machine: Machine) -> None:
        drivers: list[AsyncioDriver] = []
        self._task = self.loop.create_task(serve(machine, on_ready=drivers.append))
        self.until(lambda: drivers or self.done)
        if not drivers:
            self._task.result()
        self.driver = drivers[0]

    def call(self, call: Callable[[], object]) -> None:
        if not self._calls_within:
            call()
            return

        def call_and_stop() -> None:
            call()
            self.loop.stop()

        self.loop.call_soon(call_and_stop)
        self.loop.run_forever()

    @contextmanager
    def exhausted(self) -> Generator[None, None, None]:
        self._calls_within = self._is_uvloop  # outside of its runs there are descriptors
        with super().exhausted():
            yield
        self._calls_within = False

    def breathe(self) -> None:
        self.loop.call_later(0.0005, self.loop.stop)
        self.loop.run_forever()
        if self._task is not None and self._task.done():
            self._task.result()

    def end(self) -> None:
        super().end()
        try:
            if self._task is not None and not self._task.done():
                self._task.cancel()
                self.loop.call_later(LIMIT_S, self._task.cancel)  # again, where the machine does not finish
                with suppress(asyncio.CancelledError):
                    self.loop.run_until_complete(self._task)
        finally:
            self.loop.close()


class ThreadsHarness(SocketHarness):
    """A worker of the threads backend, whose loop this thread turns."""

    sleep = staticmethod(asyncio.sleep)

    def __init__(self, poller: Poller | None = None) -> None:
        super().__init__()
        self._running = Running(0.0)
        self._loop = Loop(poller)

    @property
    def done(self) -> bool:  # type: ignore[override]
        return self._running.drivers[0].over

    def start(self, machine: Machine) -> None:
        running = self._running
        fresh = make_machine(machine, (), None, time.monotonic)
        self.driver = driver = ThreadsDriver(fresh, None, running, loop=self._loop)
        running.drivers.append(driver)
        driver.open()

    def breathe(self) -> None:
        self._loop.turn(0.0005)
        failure = self._running.drivers[0].failure
        if failure is not None:
            raise failure

    def end(self) -> None:
        super().end()
        self._loop.close()
        self._running.abandon()


# --------------------------------------------------------------------------------------------------- simulator


class SimulatedPeer:
    """A peer in the simulator."""

    def __init__(self) -> None:
        self.count = 0
        self.eof = False
        self.was_reset = False
        self.far = far = FarEnd()
        far.on_received = self._take
        far.on_closed = self._gone
        self.write, self.write_eof = far.write, far.write_eof
        self.close, self.reset = far.close, far.reset
        self.pause, self.resume = far.pause, far.resume
        self._in: list[bytes] = []

    @property
    def received(self) -> bytes:
        self._in = [b"".join(self._in)]
        return self._in[0]

    @property
    def unsent(self) -> int:
        return self.far.unsent

    def _take(self, data: bytes) -> None:
        self._in.append(data)
        self.count += len(data)
        self.eof = self.eof or not data

    def _gone(self, error: ErrorKind | None) -> None:
        self.was_reset = error is not None


class World(Simulator):
    """A simulator in which some addresses do not answer, whatever the weather."""

    def __init__(self, weather: Weather) -> None:
        super().__init__(1, weather)
        self.holes: set[Address] = set()

    def dial(self, owner: Owner, address: Address, source: Address | None, exposed: bool) -> Attempt:
        if address not in self.holes:
            return super().dial(owner, address, source, exposed)
        attempt = Attempt(self, owner, address, source)
        self.at(self.now + BLACK_HOLE_S, attempt.fail, "timed_out", moving=False)
        return attempt


class SimulatedHarness:
    """The simulator."""

    driver: Driver
    sleep = None
    has_ipv6 = True
    has_socket_options = False
    has_tls = True

    def __init__(self, weather: Weather) -> None:
        self.simulator = World(weather)
        self._paths = 0

    @property
    def done(self) -> bool:
        return all(driver.done for driver in self.simulator.drivers)

    def start(self, machine: Machine) -> None:
        self.driver = self.simulator.run(machine)

    def until(self, condition: Callable[[], object], limit_s: float | None = None) -> None:
        limit_s = (limit_s or LIMIT_S) * 1000.0  # time costs nothing here, and small windows take a lot of it
        limit = self.simulator.now + limit_s
        while not condition():
            assert self.simulator.step(), "this did not come about, and nothing is left to happen"
            assert self.simulator.now < limit, f"this did not come about within {limit_s} s"

    def call(self, call: Callable[[], object]) -> None:
        call()

    def connect(self, address: Address) -> Peer:
        peer = SimulatedPeer()
        self.simulator.connect(address, peer.far)
        return peer

    def listen(self, address: Address) -> tuple[Address, list[Peer]]:
        if isinstance(address, tuple) and address[1] == 0:
            address = self.nobody()
        peers: list[Peer] = []

        def come(_: FarEnd) -> FarEnd:
            peer = SimulatedPeer()
            peers.append(peer)
            return peer.far

        self.simulator.listen(address, come)
        return address, peers

    def nobody(self) -> Address:
        return "127.0.0.1", self.simulator.free_port()

    def black_hole(self, port: int) -> str:
        self.simulator.holes.add(("127.0.0.2", port))
        return "127.0.0.2"

    def look_at(self, local: Address, peer: Address | None = None) -> socket.socket:
        pytest.skip("the simulator has no sockets of the system")

    def look_up(self, names: Callable[[str], Sequence[str]]) -> None:
        pytest.skip("a name in the simulator is a place by itself")

    def exhausted(self) -> AbstractContextManager[None]:
        pytest.skip("the simulator has no descriptors")

    def make_room(self, descriptors: int) -> None:
        """There is."""

    def path(self) -> str:
        self._paths += 1
        return f"/run/{self._paths}.sock"

    def end(self) -> None:
        """Nothing is left outside of the simulator."""
