"""What a second worker brings, where the work is CPU time of filters: each request costs two milliseconds of it.

Rules: no origin is asked, and the load is one light client, so that two cores are enough for two workers. One and two
workers run in turns. On a busy machine two workers get less than two cores, which says nothing of them; so beside the
throughput stands what it comes to with a core for each: the requests for each second of CPU time, with two as with one,
times two, less what of their time the workers were idle because the other had more to do.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.clients import ClientError, Clients
from tests.benchmarks.idle import connect, small_request
from tests.benchmarks.peers import Peer
from tests.benchmarks.processes import BenchError, cpu_ns_of_each
from tests.benchmarks.scenarios import Column

CLIENTS = 16
ROUNDS = 3
SECONDS = 1.5

ONE = Column("one worker", "requests/s", 0, compared=False)
TWO = Column("two workers", "requests/s", 0, compared=False)
GAIN = Column("gain", "times", 2, compared=False)
CORES = Column("cores they got", "CPU s/s", 2, compared=False)
GAIN_ON_FREE_CORES = Column("gain on free cores", "times", 2, compared=False)
COLUMNS = (ONE, TWO, GAIN, CORES, GAIN_ON_FREE_CORES)

APP = """\
# Written by the benchmark of workers: each request costs two milliseconds of CPU time.
from time import thread_time

from coulee.core import Filter, Proxy, respond
from coulee.lb import Cluster


class Work(Filter):
    def request_filter(self, exchange):
        end = thread_time() + 0.002
        while thread_time() < end:
            pass
        return respond(200, "x" * 100)


proxy = Proxy(Cluster("http://{host}:{origin}"), [Work()])
"""


@dataclass(frozen=True, slots=True)
class Window:
    """What was counted while one or several workers ran."""

    per_s: float  # requests
    per_cpu_s: float
    cores: float  # CPU seconds a second
    evenness: float  # 1 where all did as much as the one that did most

    @classmethod
    def of(cls, requests: float, wall_s: float, used_s: Sequence[float]) -> Window:
        """`used_s` is the CPU time of each worker."""
        total_s = sum(used_s)
        return cls(requests / wall_s, requests / total_s, total_s / wall_s, total_s / (len(used_s) * max(used_s)))


def window(peer: Peer, workers: int) -> Window:
    """Load a peer for a while."""
    with contextlib.ExitStack() as stack:
        try:
            clients = Clients([stack.enter_context(connect(peer)) for _ in range(CLIENTS)], small_request(peer.port))
            before, began = cpu_ns_of_each(peer.pid), time.monotonic()
            requests = len(clients.run(SECONDS))
            after, wall_s = cpu_ns_of_each(peer.pid), time.monotonic() - began
        except (ClientError, OSError) as error:
            raise BenchError(f"with {workers} workers: {error}") from error
    used_s = sorted(((after[pid] - before.get(pid, 0)) / 1e9 for pid in after), reverse=True)[:workers]
    return Window.of(requests, wall_s, used_s)


def gain_on_free_cores(one: Window, two: Window) -> float:
    """See the top of the module."""
    return 2 * two.evenness * two.per_cpu_s / one.per_cpu_s


def measure(running: Callable[[int], contextlib.AbstractContextManager[Peer]]) -> dict[Column, float]:
    """One worker beside two; `running(count)` starts a fresh peer with so many."""
    ones: list[Window] = []
    twos: list[Window] = []
    for _ in range(ROUNDS):
        for count, windows in ((1, ones), (2, twos)):
            with running(count) as peer:
                windows.append(window(peer, count))
    pairs = list(zip(ones, twos, strict=True))
    return {
        ONE: statistics.median(one.per_s for one in ones),
        TWO: statistics.median(two.per_s for two in twos),
        GAIN: statistics.median(two.per_s / one.per_s for one, two in pairs),
        CORES: statistics.median(two.cores for two in twos),
        GAIN_ON_FREE_CORES: statistics.median(gain_on_free_cores(one, two) for one, two in pairs),
    }
