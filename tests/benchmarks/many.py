"""Many open connections of which few are busy: whether all are answered, what one costs, and what the busy ones cost.

Rules: every connection has one request answered when it comes, and one more at the end; in between one in a hundred of
them asks for one thing after the other. Memory is RSS, as the system counts it, against that of the process before the
crowd came; CPU time is that of the busy ones alone.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.clients import ClientError, Clients
from tests.benchmarks.idle import BUSY, WARM_UP_REQUESTS, ask, connect, small_request
from tests.benchmarks.peers import Peer
from tests.benchmarks.processes import BenchError, cpu_ns, descendants
from tests.benchmarks.scenarios import Column

CONNECTIONS = 10_000
SPARE_FILES = 1500  # the busy ones' upstream connections, and what a program has open besides
ACTIVE_SHARE = 100  # one in so many

CPU = Column("many", "CPU us/request", 1)
PER_CONNECTION = Column("many: memory", "KiB RSS/connection", 2)
BEFORE = Column("before", "MiB RSS", 1, compared=False)
AFTER = Column("with them", "MiB RSS", 1, compared=False)
COLUMNS = (CPU, PER_CONNECTION, BEFORE, AFTER)


@dataclass(frozen=True, slots=True)
class Crowd:
    """What was found."""

    requests: int
    cpu_us: float
    before_kib: int
    after_kib: int
    connections: int

    @property
    def figures(self) -> dict[Column, float]:
        grown = (self.after_kib - self.before_kib) / self.connections
        return {CPU: self.cpu_us, PER_CONNECTION: grown, BEFORE: self.before_kib / 1024, AFTER: self.after_kib / 1024}


def rss_kib(pid: int) -> int:
    """The resident memory of a process and its descendants."""
    total = 0
    for each in descendants(pid):
        lines = Path(f"/proc/{each}/status").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return total


def measure(peer: Peer, connections: int, seconds: float) -> Crowd:
    """Open so many connections to a fresh peer, and keep one in a hundred of them busy. Raises `BenchError` where
    anybody is not answered."""
    with contextlib.ExitStack() as stack:
        first = [stack.enter_context(connect(peer)) for _ in range(BUSY)]
        for _ in range(WARM_UP_REQUESTS):
            ask(first, peer)
        before = rss_kib(peer.pid)
        crowd = first
        while left := connections - len(crowd):
            some = [stack.enter_context(connect(peer)) for _ in range(min(left, BUSY))]
            ask(some, peer)
            crowd += some
        try:
            clients = Clients(crowd[::ACTIVE_SHARE], small_request(peer.port))
            used = cpu_ns(peer.pid)
            answered = len(clients.run(seconds))
            used = cpu_ns(peer.pid) - used
        except (ClientError, OSError) as error:
            raise BenchError(f"with {len(crowd):,} connections open: {error}") from error
        after = rss_kib(peer.pid)
        for at in range(0, len(crowd), BUSY):
            ask(crowd[at : at + BUSY], peer)
    return Crowd(answered, used / 1e3 / answered, before, after, connections)
