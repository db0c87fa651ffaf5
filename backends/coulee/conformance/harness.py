"""What the conformance suite needs of a backend: a `Harness`, and what those with real sockets share.

Rules:

- Nothing waits for a fixed time: `until` waits for a condition, and fails after a limit.
- That something does *not* happen is judged behind a fence: a byte that goes through a connection made for it.
"""

from __future__ import annotations

import socket
import struct
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from coulee.backends.driver import Driver
from coulee.core.seam import Address, Machine

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
        ...

    def start(self, machine: Machine) -> None:
        """Run a fresh machine; `driver` is there when this returns."""
        ...

    def until(self, condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
        """Let things happen until the condition holds. Raises AssertionError after `limit_s`."""
        ...

    def connect(self, address: Address) -> Peer:
        """A peer that connects."""
        ...

    def listen(self, address: Address) -> tuple[Address, list[Peer]]:
        """Let peers listen, on a free port for port 0: where, and a list into which they come."""
        ...

    def nobody(self) -> Address:
        """A TCP address at which nobody listens."""
        ...

    def path(self) -> str:
        """A path for a Unix socket."""
        ...

    def end(self) -> None:
        """Tidy up. Raises what the backend raised."""
        ...


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
