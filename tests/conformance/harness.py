"""What the conformance suite needs of a backend: a `Harness`. Write one for yours, and run the suite with it.

    class MyHarness(SocketHarness):           # peers on real sockets are there already
        def start(self, machine): ...         # set `driver`
        def breathe(self): ...                # let the loop turn once, without waiting for long

Rules:

- Nothing waits for a fixed time: `until` waits for a condition, and fails after a limit.
- That something does *not* happen is judged behind a fence: a byte that goes through a connection made for it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from coulee.backends.asyncio import AsyncioDriver, serve
from coulee.backends.driver import Driver
from coulee.backends.loop import Loop, Poller
from coulee.backends.simulator import FarEnd, Simulator, Weather
from coulee.backends.threads import Running, ThreadsDriver
from coulee.core.seam import Address, ErrorKind, Machine

LIMIT_S = 10.0
TCP: Address = ("127.0.0.1", 0)


class Peer(Protocol):
    """The other end of a connection. It reads by itself, unless paused."""

    @property
    def received(self) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def was_reset(self) -> bool: ...
    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def reset(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Harness(Protocol):
    """A backend, and the world around it."""

    driver: Driver

    @property
    def done(self) -> bool:
        """Whether the machine has finished."""

    def start(self, machine: Machine) -> None:
        """Run a fresh machine; `driver` is there when this returns."""

    def until(self, condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
        """Let things happen until the condition holds. Raises AssertionError after `limit_s`."""

    def connect(self, address: Address) -> Peer:
        """A peer that connects."""

    def listen(self, address: Address) -> tuple[Address, list[Peer]]:
        """Let peers listen, on a free port for port 0: where, and a list into which they come."""

    def nobody(self) -> Address:
        """A TCP address at which nobody listens."""

    def path(self) -> str:
        """A path for a Unix socket."""

    def end(self) -> None:
        """Tidy up. Raises what the backend raised."""


# ------------------------------------------------------------------------------------------------ real sockets


class SocketPeer:
    """A peer on a real socket, polled."""

    def __init__(self, sock: socket.socket, address: Address | None = None) -> None:
        self.sock = sock
        self.received = b""
        self.eof = False
        self.was_reset = False
        self._out = b""
        self._eof_due = False
        self._close_due = False
        self._paused = False
        self._closed = False
        sock.setblocking(False)
        self._connecting = address
        if address is not None:
            with suppress(BlockingIOError):
                sock.connect(address)
                self._connecting = None

    def write(self, data: bytes) -> None:
        self._out += data
        self.poll()

    def write_eof(self) -> None:
        self._eof_due = True
        self.poll()

    def close(self) -> None:
        self._close_due = True
        self.poll()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.shut()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def shut(self) -> None:
        self._closed = True
        self.sock.close()

    def poll(self) -> None:
        """Do what can be done now."""
        if self._closed:
            return
        try:
            self._poll()
        except BlockingIOError:
            pass
        except (ConnectionError, OSError):
            self.was_reset = True
            self.shut()

    def _poll(self) -> None:
        if self._connecting is not None:
            error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "connect")
            try:
                self.sock.getpeername()
            except OSError:
                return
            self._connecting = None
        with suppress(BlockingIOError):
            while self._out:
                self._out = self._out[self.sock.send(self._out[:262_144]) :]
            if self._close_due:
                self.shut()
                return
            if self._eof_due:
                self._eof_due = False
                self.sock.shutdown(socket.SHUT_WR)
        while not self._paused and not self.eof:
            data = self.sock.recv(1_048_576)
            self.received += data
            self.eof = not data


class SocketHarness(ABC):
    """The part of a harness that real sockets share."""

    driver: Driver
    done = False

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._peers: list[SocketPeer] = []
        self._listening: list[tuple[socket.socket, list[Peer]]] = []
        self._paths = 0

    @abstractmethod
    def breathe(self) -> None:
        """Let the loop turn once, and wait for a millisecond at the most."""

    def until(self, condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
        limit = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < limit, f"this did not come about within {limit_s} s"
            self.breathe()
            for sock, peers in self._listening:
                with suppress(BlockingIOError):
                    self._peers.append(SocketPeer(sock.accept()[0]))
                    peers.append(self._peers[-1])
            for peer in self._peers:
                peer.poll()

    def connect(self, address: Address) -> Peer:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        peer = SocketPeer(socket.socket(family, socket.SOCK_STREAM), address)
        self._peers.append(peer)
        return peer

    def listen(self, address: Address) -> tuple[Address, list[Peer]]:
        sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(8)
        peers: list[Peer] = []
        self._listening.append((sock, peers))
        return sock.getsockname(), peers

    def nobody(self) -> Address:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            name: tuple[str, int] = sock.getsockname()
        return name

    def path(self) -> str:
        self._paths += 1
        return str(Path(self._folder.name) / f"{self._paths}.sock")

    def end(self) -> None:
        for sock, _ in self._listening:
            sock.close()
        for peer in self._peers:
            peer.shut()
        self._folder.cleanup()


class AsyncioHarness(SocketHarness):
    """asyncio, or uvloop."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        super().__init__()
        self.loop = new_loop()
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
                with suppress(asyncio.CancelledError):
                    self.loop.run_until_complete(self._task)
        finally:
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()


class ThreadsHarness(SocketHarness):
    """A worker of the threads backend, whose loop this thread turns."""

    def __init__(self, poller: Poller | None = None) -> None:
        super().__init__()
        self._running = Running(0.0)
        self._loop = Loop(poller)

    @property
    def done(self) -> bool:  # type: ignore[override]
        return self._running.drivers[0].over

    def start(self, machine: Machine) -> None:
        running = self._running
        self.driver = driver = ThreadsDriver(machine, None, running, loop=self._loop)
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
        self.received = b""
        self.eof = False
        self.was_reset = False
        self.far = far = FarEnd()
        far.on_received = self._take
        far.on_closed = self._gone
        self.write, self.write_eof = far.write, far.write_eof
        self.close, self.reset = far.close, far.reset
        self.pause, self.resume = far.pause, far.resume

    def _take(self, data: bytes) -> None:
        self.received += data
        self.eof = self.eof or not data

    def _gone(self, error: ErrorKind | None) -> None:
        self.was_reset = error is not None


class SimulatedHarness:
    """The simulator."""

    driver: Driver

    def __init__(self, weather: Weather) -> None:
        self.simulator = Simulator(1, weather)
        self._paths = 0

    @property
    def done(self) -> bool:
        return all(driver.done for driver in self.simulator.drivers)

    def start(self, machine: Machine) -> None:
        self.driver = self.simulator.run(machine)

    def until(self, condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
        limit_s *= 100.0  # time costs nothing here, and small windows take a lot of it
        limit = self.simulator.now + limit_s
        while not condition():
            assert self.simulator.step(), "this did not come about, and nothing is left to happen"
            assert self.simulator.now < limit, f"this did not come about within {limit_s} s"

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

    def path(self) -> str:
        self._paths += 1
        return f"/run/{self._paths}.sock"

    def end(self) -> None:
        """Nothing is left outside of the simulator."""
