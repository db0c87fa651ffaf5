"""What harnesses with real sockets share: peers that are polled, names of a test's own, and a want of descriptors.

class MyHarness(SocketHarness):
    def start(self, machine): ...         # run it, and set `driver`
    def breathe(self): ...                # let the loop turn once, without waiting for long
    done = ...                            # whether the machine has finished
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
import tempfile
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from coulee.backends.driver import Driver
from coulee.backends.sockets import plain
from coulee.conformance.harness import LIMIT_S, Peer
from coulee.core.seam import Address, Machine

_WRITE_BYTES = 262_144
_READ_BYTES = 1_048_576
_SPARE = 16  # descriptors to take before the system is out of them


class SocketPeer:
    """A peer on a real socket, polled."""

    def __init__(self, sock: socket.socket, address: Address | None = None) -> None:
        self.sock = sock
        self.count = 0
        self.unsent = 0
        self.eof = False
        self.was_reset = False
        self.is_closed = False
        self._in: list[bytes] = []
        self._out: deque[memoryview] = deque()
        self._eof_due = False
        self._close_due = False
        self._paused = False
        self._connecting = None if address is None else _place(address)
        sock.setblocking(False)
        self.poll()

    @property
    def received(self) -> bytes:
        if len(self._in) != 1:
            self._in = [b"".join(self._in)]
        return self._in[0]

    def write(self, data: bytes) -> None:
        if data:
            self._out.append(memoryview(data))
            self.unsent += len(data)
        self.poll()

    def write_eof(self) -> None:
        self._eof_due = True
        self.poll()

    def close(self) -> None:
        self._close_due = True
        self.poll()

    def reset(self) -> None:
        if not self.is_closed:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.shut()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def shut(self) -> None:
        self.is_closed = True
        self.sock.close()

    def poll(self) -> None:
        """Do what can be done now."""
        if self.is_closed:
            return
        try:
            if self._stands():
                self._write()
                self._read()
        except BlockingIOError:
            pass
        except OSError:
            self.was_reset = True
            self.shut()

    def _stands(self) -> bool:
        """Whether the connection does."""
        if self._connecting is None:
            return True
        code = self.sock.connect_ex(self._connecting)  # and once more asks how it goes; or tries again, with a path
        if code in _UNDER_WAY:
            return False
        if code not in (0, errno.EISCONN):
            raise OSError(code, os.strerror(code))
        self._connecting = None
        return True

    def _write(self) -> None:
        with suppress(BlockingIOError):
            while self._out:
                sent = self.sock.send(self._out[0][:_WRITE_BYTES])
                self.unsent -= sent
                if sent < len(self._out[0]):
                    self._out[0] = self._out[0][sent:]
                else:
                    self._out.popleft()
            if self._close_due:
                self.shut()
            elif self._eof_due:
                self._eof_due = False
                self.sock.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        while not (self._paused or self.eof or self.is_closed):
            data = self.sock.recv(_READ_BYTES)
            self._in.append(data)
            self.count += len(data)
            self.eof = not data


class SocketHarness(ABC):
    """The part of a harness that real sockets share.

    `limit_s` is how long a test waits for anything. `turn_descriptors` is what the loop itself takes for the time of
    `breathe`, and gives back. `has_tls` is False where the driver cannot do TLS, which it says with `Closed`.
    """

    driver: Driver
    done = False
    sleep: Callable[[float], Awaitable[Any]] | None = None
    limit_s = LIMIT_S
    turn_descriptors = 0
    has_socket_options = True
    has_tls = True

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._peers: list[SocketPeer] = []
        self._listening: list[tuple[socket.socket, list[Peer]]] = []
        self._idle: list[socket.socket] = []  # hold the place of somebody who does not answer
        self._paths = 0
        self._getaddrinfo = socket.getaddrinfo
        self.has_ipv6 = _has_ipv6()

    @abstractmethod
    def start(self, machine: Machine) -> None:
        """See `Harness`."""

    @abstractmethod
    def breathe(self) -> None:
        """Let the loop turn once, and wait for a millisecond at the most. Raises what the backend raised."""

    def until(self, condition: Callable[[], object], limit_s: float | None = None) -> None:
        limit_s = limit_s or self.limit_s
        limit = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < limit, f"this did not come about within {limit_s} s"
            self.breathe()
            for sock, peers in self._listening:
                with suppress(OSError):  # nobody is there; or there are no descriptors for them
                    self._peers.append(SocketPeer(sock.accept()[0]))
                    peers.append(self._peers[-1])
            for peer in self._peers:
                peer.poll()

    def call(self, call: Callable[[], object]) -> None:
        call()  # from where `breathe` is called

    def connect(self, address: Address) -> Peer:
        self._peers = [peer for peer in self._peers if not peer.is_closed]
        peer = SocketPeer(socket.socket(_family(address), socket.SOCK_STREAM), address)
        self._peers.append(peer)
        return peer

    def listen(self, address: Address) -> tuple[Address, list[Peer]]:
        sock = socket.socket(_family(address), socket.SOCK_STREAM)
        sock.setblocking(False)
        if isinstance(address, tuple):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(_place(address))
        sock.listen(8)
        peers: list[Peer] = []
        self._listening.append((sock, peers))
        return plain(sock.getsockname()), peers

    def nobody(self) -> Address:
        """Its port is kept, or it might be given to the driver itself when that listens."""
        sock = socket.socket()
        self._idle.append(sock)
        sock.bind(("127.0.0.1", 0))
        name: tuple[str, int] = sock.getsockname()
        return name

    def black_hole(self, port: int) -> str:
        """A backlog that is full: Linux drops the packets of who still comes."""
        host = "127.0.0.2"
        hole = socket.socket()
        self._idle.append(hole)
        try:
            hole.bind((host, port))
        except OSError:
            pytest.skip(f"this system has no {host}")
        hole.listen(0)
        while True:
            filler = socket.socket()
            self._idle.append(filler)
            filler.settimeout(0.2)
            try:
                filler.connect((host, port))
            except TimeoutError:
                return host
            if len(self._idle) > 20:
                pytest.skip("a full backlog of this system goes on answering")

    def path(self) -> str:
        self._paths += 1
        return str(Path(self._folder.name) / f"{self._paths}.sock")

    def look_at(self, local: Address, peer: Address | None = None) -> socket.socket:
        """The backend is in this process, and so are its sockets."""
        for name in os.listdir("/dev/fd"):
            with suppress(OSError):
                sock = socket.socket(fileno=int(name))
                try:
                    if _is_between(sock, local, peer):
                        return sock.dup()
                finally:
                    sock.detach()
        raise AssertionError(f"there is no socket between {local} and {peer}")

    def look_up(self, names: Callable[[str], Sequence[str]]) -> None:
        """Names are looked up by `socket.getaddrinfo`, as a rule. A backend that asks somebody else needs more here."""
        real = self._getaddrinfo

        def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
            try:
                numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
                return real(host, port, type=socket.SOCK_STREAM, flags=numeric)
            except socket.gaierror:
                if options.get("flags", 0) & socket.AI_NUMERICHOST:
                    raise
            return [info for each in names(host) for info in real(each, port, type=socket.SOCK_STREAM)]

        socket.getaddrinfo = getaddrinfo

    @contextmanager
    def exhausted(self) -> Generator[None, None, None]:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = [os.dup(2) for _ in range(_SPARE)]
        try:
            # Of the process, so of its threads too. No descriptor is lost: it is only that none is given.
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, before[1]))
            with suppress(OSError):
                while True:
                    taken.append(os.dup(2))
            for _ in range(self.turn_descriptors):
                os.close(taken.pop())
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for fd in taken:
                os.close(fd)

    def make_room(self, descriptors: int) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < descriptors:
            if hard != resource.RLIM_INFINITY and hard < descriptors:
                pytest.skip(f"{descriptors} descriptors are needed, and this process may have {hard}")
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))

    def end(self) -> None:
        socket.getaddrinfo = self._getaddrinfo
        for sock in (*self._idle, *(sock for sock, _ in self._listening)):
            sock.close()
        for peer in self._peers:
            peer.shut()
        self._folder.cleanup()


_UNDER_WAY = (errno.EINPROGRESS, errno.EALREADY, errno.EAGAIN)


def _family(address: Address) -> socket.AddressFamily:
    if isinstance(address, str):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _place(address: Address) -> Address:
    """An address as sockets take it."""
    return f"\0{address[1:]}" if isinstance(address, str) and address.startswith("@") else address


def _is_between(sock: socket.socket, local: Address, peer: Address | None) -> bool:
    """Whether it has these addresses. Raises OSError where it has no peer, and is to have one."""
    if peer is None:
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return bool(listens) and plain(sock.getsockname()) == local
    return plain(sock.getsockname()) == local and plain(sock.getpeername()) == peer


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True
