"""What an idle keep-alive connection costs a proxy in memory.

Rules: every peer is a fresh process, warmed up by a few requests on as many connections as are ever busy at once; each
of the connections then has one small request answered, and lies idle; the figure is what the PSS of the process and its
descendants grew by, divided by their number; a connection that the peer has closed by then makes it an error, not a
bargain.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.certificate import client_context
from tests.benchmarks.peers import Peer
from tests.benchmarks.processes import HOST, BenchError, descendants
from tests.benchmarks.scenarios import SCENARIOS

CONNECTIONS = 5000
SPARE_FILES = 500
BUSY = 20  # connections that are answered at once
WARM_UP_REQUESTS = 10
SETTLED_AFTER_S = 1.0
ANSWER_WITHIN_S = 10.0
_SMALL = SCENARIOS["small"]


def allow_files(count: int) -> None:
    """Let this process and its children to come have so many open files. Raises `BenchError`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise BenchError(f"only {hard:,} open files are allowed (ulimit -Hn), and this needs {count:,}")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def files_needed(connections: int) -> int:
    """A peer may have one upstream connection for each client, as the blind relay does."""
    return 2 * connections + SPARE_FILES


def idle_kib(peer: Peer, connections: int) -> float:
    """KiB of PSS for each idle connection to `peer`, which must be fresh."""
    with contextlib.ExitStack() as stack:

        def connected(count: int) -> list[socket.socket]:
            return [stack.enter_context(connect(peer)) for _ in range(count)]

        first = connected(BUSY)
        for _ in range(WARM_UP_REQUESTS):
            ask(first, peer)
        before = pss_kib(peer.pid)
        crowd: list[socket.socket] = []
        while left := connections - len(crowd):
            some = connected(min(left, BUSY))
            ask(some, peer)
            crowd += some
        time.sleep(SETTLED_AFTER_S)
        after = pss_kib(peer.pid)
        closed = sum(map(_is_closed, crowd))
    if closed:
        raise BenchError(f"{closed} of {connections:,} idle connections were closed")
    return (after - before) / connections


def pss_kib(pid: int) -> int:
    """The memory of a process and its descendants, each shared page divided among those who share it."""
    total = 0
    for each in descendants(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError as error:
            raise BenchError(f"the memory of process {each} cannot be read: {error}") from error
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def connect(peer: Peer) -> socket.socket:
    """One more client."""
    try:
        plain = socket.create_connection((HOST, peer.port), timeout=ANSWER_WITHIN_S)
        return client_context().wrap_socket(plain) if peer.tls else plain
    except OSError as error:
        raise BenchError(f"a connection failed: {error}") from error


def ask(connections: Sequence[socket.socket], peer: Peer) -> None:
    """One small request on each, and the whole of its answer."""
    try:
        for each in connections:
            each.sendall(small_request(peer.port))
        for each in connections:
            _read_answer(each)
    except OSError as error:
        raise BenchError(f"a request was not answered: {error}") from error


def small_request(port: int) -> bytes:
    """The request of the scenario `small`."""
    return "\r\n".join((f"GET {_SMALL.path} HTTP/1.1", f"Host: {HOST}:{port}", *_SMALL.fields, "", "")).encode("ascii")


def _read_answer(connection: socket.socket) -> None:
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < _SMALL.size:
        data = connection.recv(65536)
        if not data:
            raise BenchError(f"a connection was closed instead of answered: {answer!r}")
        answer += data
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"a request was answered so: {answer[:60]!r}")


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
