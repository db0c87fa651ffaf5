"""A load generator for machines without wrk: epoll, keep-alive connections, one request at a time on each.

Rules: the last line it prints is one JSON object of exact counts, as `done.lua` makes wrk print; an answer must be 200
with a Content-Length; the bytes of an answer that the end of the window cut off count, the request does not.
Usage: blast.py PORT PATH CONNECTIONS SECONDS [FIELD ...]
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
    """One keep-alive connection and how much of its present answer is still to come."""

    __slots__ = ("head", "left", "socket")

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=10.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.start(request)

    def start(self, request: bytes) -> None:
        self.head = b""
        self.left = -1  # not known before the head is here
        self.socket.sendall(request)

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


def blast(port: int, request: bytes, connections: int, seconds: float) -> dict[str, int]:
    """Keep `connections` busy for `seconds`, then say what was counted."""
    poll = select.epoll()
    opened: dict[int, Connection] = {}

    def connect() -> None:
        connection = Connection(port, request)
        opened[connection.socket.fileno()] = connection
        poll.register(connection.socket, select.EPOLLIN)

    for _ in range(connections):
        connect()
    buffer = memoryview(bytearray(READ))
    counts = {"requests": 0, "bytes": 0, "errors": 0}
    now = time.monotonic()
    deadline = now + seconds
    while now < deadline:
        for fd, _ in poll.poll(deadline - now):
            connection = opened[fd]
            got = connection.socket.recv_into(buffer)
            if not got:  # ended in the middle of an answer, since a request is always under way
                counts["errors"] += 1
                connection.socket.close()
                del opened[fd]
                connect()
                continue
            counts["bytes"] += got
            if connection.took(buffer[:got]):
                counts["requests"] += 1
                connection.start(request)
        now = time.monotonic()
    for connection in opened.values():
        connection.socket.close()
    return counts


def main() -> None:
    port, path, connections, seconds, *fields = sys.argv[1:]
    request = "\r\n".join((f"GET {path} HTTP/1.1", f"Host: {HOST}:{port}", *fields, "", ""))
    try:
        counts = blast(int(port), request.encode("ascii"), int(connections), float(seconds))
    except (OSError, ValueError) as error:
        sys.exit(f"blast: {error}")
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
