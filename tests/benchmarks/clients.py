"""Clients that each ask for one small answer after the other, all in this process, and remember how long each took.

Rules: an answer must be a 200 with a Content-Length; anything else, the end of a connection, or none within
`ANSWER_WITHIN_S` is an error.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Callable, Generator, Sequence

HOST = "127.0.0.1"
ANSWER_WITHIN_S = 15.0
READ_BYTES = 64 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class ClientError(Exception):
    """Somebody was not served."""


class Clients:
    """A closed loop on connections that are open, and on which nothing is under way."""

    def __init__(
        self, connections: Sequence[socket.socket], request: bytes, whole: Callable[[bytes], bool] | None = None
    ) -> None:
        self._request = request
        self._whole = whole or is_whole
        self._sockets = {each.fileno(): each for each in connections}
        self._poll = select.epoll()
        for each in connections:
            each.settimeout(ANSWER_WITHIN_S)
            self._poll.register(each, select.EPOLLIN)

    def run(self, seconds: float) -> list[float]:
        """Ask for so long, and wait for the answers that are then under way. The seconds that each took, sorted."""
        took: list[float] = []
        sent_at: dict[int, float] = {}
        so_far = dict.fromkeys(self._sockets, b"")
        end = time.monotonic() + seconds
        for fd, each in self._sockets.items():
            sent_at[fd] = time.monotonic()
            each.sendall(self._request)
        while sent_at:
            ready = self._poll.poll(ANSWER_WITHIN_S)
            if not ready:
                raise ClientError(f"{len(sent_at)} requests were not answered within {ANSWER_WITHIN_S:g} s")
            for fd, _ in ready:
                data = self._sockets[fd].recv(READ_BYTES)
                if not data:
                    raise ClientError(f"a connection was closed instead of answered: {so_far[fd][:60]!r}")
                so_far[fd] += data
                if not self._whole(so_far[fd]):
                    continue
                so_far[fd] = b""
                now = time.monotonic()
                took.append(now - sent_at.pop(fd))
                if now < end:
                    sent_at[fd] = now
                    self._sockets[fd].sendall(self._request)
        return sorted(took)

    def close(self) -> None:
        self._poll.close()


def is_whole(data: bytes) -> bool:
    """Whether this is an answer to its end. Raises `ClientError` where it is not a 200."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = _LENGTH.search(data, 0, end)
    if length is None or not data.startswith(b"HTTP/1.1 200 "):
        raise ClientError(f"a request was answered so: {data[:60]!r}")
    return len(data) >= end + 4 + int(length[1])


def percentile(took: Sequence[float], percent: float) -> float:
    """Of seconds that are sorted."""
    return took[min(len(took) - 1, int(len(took) * percent / 100))]


@contextlib.contextmanager
def who_stops_reading(port: int, path: str) -> Generator[socket.socket, None, None]:
    """One who asks for `path`, and reads nothing of the answer while the block lasts."""
    with socket.create_connection((HOST, port), timeout=ANSWER_WITHIN_S) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode("ascii"))
        yield client


@contextlib.contextmanager
def who_is_not_read(port: int, path: str, size: int) -> Generator[int, None, None]:
    """One who sends a body of `size` to `path`, which nobody reads, as far as that goes. Gives how far that is."""
    with socket.create_connection((HOST, port), timeout=ANSWER_WITHIN_S) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n".encode("ascii"))
        client.settimeout(1.0)  # without room for so long: it is full, all the way
        sent = 0
        block = bytes(READ_BYTES)
        with contextlib.suppress(TimeoutError):
            while sent < size:
                sent += client.send(block[: size - sent])
        yield sent
