"""The blind byte relay once more, on epoll and sockets alone: the floor for the backend that has no event loop.

Rules: those of `relay.py`. One read for each event, written at once; what a socket does not take is kept, and the other
side is not read until it is gone. Usage: threads_relay.py PORT ORIGIN_PORT
"""

from __future__ import annotations

import ctypes
import errno
import select
import socket
import sys

HOST = "127.0.0.1"
READ_BYTES = 256 * 1024
IN, OUT = select.EPOLLIN, select.EPOLLOUT
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3); as coulee does, or every large read would cost page faults


class Side:
    """One of the two connections; `other` is the one its bytes go to, which for a start is itself."""

    __slots__ = ("fd", "kept", "mask", "other", "poll", "recv", "send", "sock")

    def __init__(self, sock: socket.socket, poll: select.epoll, mask: int) -> None:
        self.sock = sock
        self.poll = poll
        self.fd = sock.fileno()
        self.mask = mask
        self.kept: bytes | memoryview = b""
        self.recv = sock.recv
        self.send = sock.send
        self.other = self
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(self.fd, mask)

    def readable(self) -> bool:
        """False where it has ended."""
        other = self.other
        try:
            data = self.recv(READ_BYTES)
            if not data:
                return False
            sent = other.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        if sent != len(data):
            other.kept = memoryview(data)[sent:]
            other.watch(other.mask | OUT)
            self.watch(self.mask & ~IN)
        return True

    def writable(self) -> bool:
        try:
            if self.kept:
                self.kept = self.kept[self.send(self.kept) :]
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not self.kept:
            self.watch(self.mask & ~OUT)
            self.other.watch(self.other.mask | IN)
        return True

    def watch(self, mask: int) -> None:
        if mask != self.mask:
            self.mask = mask
            self.poll.modify(self.fd, mask)


class Relay:
    """All connections."""

    def __init__(self, port: int, origin: int) -> None:
        self.origin = origin
        self.poll = select.epoll()
        self.sides: dict[int, Side] = {}
        self.listening = socket.create_server((HOST, port), backlog=1024)
        self.listening.setblocking(False)
        self.poll.register(self.listening, IN)

    def run(self) -> None:
        sides, poll, door = self.sides, self.poll.poll, self.listening.fileno()
        while True:
            for fd, events in poll(-1, 256):
                side = sides.get(fd)
                if side is None:
                    if fd == door:
                        self.accept()
                elif not ((events == OUT or side.readable()) and (not events & OUT or side.writable())):
                    self.end(side)

    def accept(self) -> None:
        try:
            sock, _ = self.listening.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        upstream = socket.socket()
        upstream.setblocking(False)
        if upstream.connect_ex((HOST, self.origin)) not in (0, errno.EINPROGRESS):
            sock.close()
            return
        one, two = Side(sock, self.poll, 0), Side(upstream, self.poll, IN | OUT)
        one.other, two.other = two, one  # `two` is writable when it stands, and then `one` is read
        self.sides[one.fd], self.sides[two.fd] = one, two

    def end(self, side: Side) -> None:
        for each in (side, side.other):
            del self.sides[each.fd]
            each.sock.close()


def main() -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 1024 * 1024)
        libc.mallopt(M_TRIM_THRESHOLD, 8 * 1024 * 1024)
    Relay(int(sys.argv[1]), int(sys.argv[2])).run()


if __name__ == "__main__":
    main()
