"""What a proxy that runs on anybody's loop is put through: an origin, a client, and the loop turned by the test.

The client's thread does what a user of the proxy would; the test's own thread turns the loop until both have ended.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from coulee.core import Access, Config, Timeouts
from coulee.core.seam import Address
from tests.benchmarks.processes import free_port as free_port

LIMIT_S = 30.0
LARGE = os.urandom(1_048_576) * 16
PATIENCE = Config(timeouts=Timeouts(answer_timeout_s=0.3))


class Origin(ThreadingHTTPServer):
    """Answers with what it was asked. `/flaky` hangs up on the first who asks, `/never` on nobody, and too late."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.connections = 0
        self.asked: list[str] = []
        self.has_slow = threading.Event()
        self.go_on = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Origin
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        origin = self.server
        origin.asked.append(self.path)
        if self.path == "/flaky" and origin.asked.count("/flaky") == 1:
            self.close_connection = True
            return
        if self.path == "/never":
            origin.go_on.wait(LIMIT_S)
        if self.path == "/slow":
            origin.has_slow.set()
            origin.go_on.wait(LIMIT_S)
        self._answer(LARGE if self.path == "/large" else self.path.encode())

    def do_POST(self) -> None:
        self._answer(hashlib.sha256(self.rfile.read(int(self.headers["Content-Length"]))).hexdigest().encode())

    def _answer(self, body: bytes) -> None:
        try:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # of those who have waited for long enough
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nobody reads it."""


@contextmanager
def origin() -> Generator[Origin, None, None]:
    """An origin, while the block lasts."""
    with Origin() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.go_on.set()
            made.shutdown()
            thread.join()


def ask(conn: http.client.HTTPConnection, target: str) -> tuple[int, bytes]:
    conn.request("GET", target)
    answer = conn.getresponse()
    return answer.status, answer.read()


def client(origin: Origin, address: Address, drain: Callable[[], object]) -> None:
    """What is asked of a proxy with `PATIENCE`: 200 requests on a connection, large bodies, a retry, a time limit; and
    that it ends in order."""
    assert isinstance(address, tuple)
    conn = http.client.HTTPConnection(*address, timeout=LIMIT_S)
    for number in range(200):
        assert ask(conn, f"/{number}") == (200, b"/%d" % number)
    assert origin.connections == 1, "kept alive on both sides"
    assert ask(conn, "/large") == (200, LARGE)
    conn.request("POST", "/", LARGE)
    assert conn.getresponse().read().decode() == hashlib.sha256(LARGE).hexdigest()
    assert ask(conn, "/flaky") == (200, b"/flaky")
    assert ask(conn, "/never")[0] == 504
    conn.close()

    conn.request("GET", "/slow")
    assert origin.has_slow.wait(LIMIT_S)
    drain()
    limit = time.monotonic() + LIMIT_S
    try:
        while time.monotonic() < limit:  # until it has heard of that
            socket.create_connection(address, LIMIT_S).close()
        raise AssertionError("it goes on listening")
    except ConnectionError:
        origin.go_on.set()
    answer = conn.getresponse()
    assert (answer.status, answer.read(), answer.getheader("Connection")) == (200, b"/slow", "close")
    conn.close()


def judge(records: list[object]) -> None:
    """Each request has its record."""
    seen = {record.target: record for record in records if isinstance(record, Access)}
    assert len([record for record in records if isinstance(record, Access)]) == 205
    assert [attempt.reason for attempt in seen["/flaky"].attempts] == ["upstream_reset", ""]
    assert seen["/never"].reason == "upstream_timeout"
    assert [target for target, record in seen.items() if record.reason] == ["/never"]


def turn_until_done(work: Callable[[], object], turn: Callable[[], object], is_over: Callable[[], bool]) -> None:
    """Turn a loop in this thread while `work` does what it does in another, and then until it is over."""
    limit = time.monotonic() + 2 * LIMIT_S
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        while not (future.done() and (future.exception() or is_over())):
            assert time.monotonic() < limit
            turn()
        future.result()
