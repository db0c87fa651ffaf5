"""A load generator for machines without wrk: epoll, one request at a time on each connection.

Rules: the last line it prints is one JSON object of exact counts, as `wrk.lua` makes wrk print; an answer must be 200
with a Content-Length; the bytes of an answer that the end of the window cut off count, the request does not. Where the
fields say `Connection: close`, each request has a connection of its own.
Usage: blast.py PORT PATH CONNECTIONS SECONDS BODY_SIZE [FIELD ...]
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time

HOST = "127.0.0.1"
READ = 256 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Connection:
    """One connection, how much of its present request is still to go out, and of its answer to come in."""

    __slots__ = ("full", "head", "left", "socket", "unsent")

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=10.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.full = False  # whether it is watched for room
        self.start(request)

    def start(self, request: bytes) -> None:
        self.head = b""
        self.left = -1  # not known before the head is here
        self.unsent = memoryview(request)
        self.send()

    def send(self) -> None:
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return

    def took(self, data: memoryview) -> bool:
        """Whether `data` ends the answer."""
        if self.left < 0:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return False
            length = _LENGTH.search(self.head, 0, end)
            if length is None or self.head[8:13] != b" 200 ":
                raise ValueError(f"not a 200 with a Content-Length: {self.head[:end]!r}")
            self.left = end + 4 + int(length[1]) - len(self.head)
        else:
            self.left -= len(data)
        return self.left == 0


class Blast:
    """Keeps `connections` busy, and counts."""

    def __init__(self, port: int, request: bytes, connections: int, close: bool) -> None:
        self.port = port
        self.request = request
        self.close = close
        self.counts = {"requests": 0, "bytes": 0, "errors": 0}
        self._poll = select.epoll()
        self._opened: dict[int, Connection] = {}
        self._buffer = memoryview(bytearray(READ))
        for _ in range(connections):
            self._connect()

    def run(self, seconds: float) -> None:
        now = time.monotonic()
        deadline = now + seconds
        while now < deadline:
            for fd, events in self._poll.poll(deadline - now):
                self._on(self._opened[fd], events)
            now = time.monotonic()
        for connection in self._opened.values():
            connection.socket.close()

    def _on(self, connection: Connection, events: int) -> None:
        if events & select.EPOLLOUT:
            connection.send()
            self._watch(connection)
        if not events & ~select.EPOLLOUT:
            return
        try:
            got = connection.socket.recv_into(self._buffer)
        except ConnectionError:
            got = 0
        self.counts["bytes"] += got
        if not got:  # in the middle of an answer, since a request is always under way
            self.counts["errors"] += 1
            self._replace(connection)
        elif connection.took(self._buffer[:got]):
            self.counts["requests"] += 1
            if self.close:
                self._replace(connection)
            else:
                connection.start(self.request)
                self._watch(connection)

    def _connect(self) -> None:
        connection = Connection(self.port, self.request)
        self._opened[connection.socket.fileno()] = connection
        self._poll.register(connection.socket, select.EPOLLIN)
        self._watch(connection)

    def _replace(self, connection: Connection) -> None:
        del self._opened[connection.socket.fileno()]
        connection.socket.close()
        self._connect()

    def _watch(self, connection: Connection) -> None:
        """Wait for room while something is unsent."""
        full = bool(connection.unsent)
        if full is not connection.full:
            connection.full = full
            self._poll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT if full else select.EPOLLIN)


def main() -> None:
    port, path, connections, seconds, size, *fields = sys.argv[1:]
    body = b"x" * int(size)
    length = [f"Content-Length: {size}"] if body else []
    start = f"{'POST' if body else 'GET'} {path} HTTP/1.1"
    head = "\r\n".join((start, f"Host: {HOST}:{port}", *fields, *length, "", ""))
    try:
        blast = Blast(int(port), head.encode("ascii") + body, int(connections), "Connection: close" in fields)
        blast.run(float(seconds))
    except (OSError, ValueError) as error:
        sys.exit(f"blast: {error}")
    print(json.dumps(blast.counts))


if __name__ == "__main__":
    main()
