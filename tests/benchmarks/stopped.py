"""What one connection costs the others when its reader stops: a client that takes nothing of a large answer, and an
origin that takes nothing of a large request.

Rules: twenty clients ask for small answers, one after the other; the 99th percentile of how long they wait, while the
one is there, is divided by that without, and both belong to one round, a second apart. The memory of the proxy is RSS,
before the first of them came and while both are stopped.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
from collections.abc import Generator

from tests.benchmarks.clients import ClientError, Clients, percentile, who_is_not_read, who_stops_reading
from tests.benchmarks.idle import connect, small_request
from tests.benchmarks.many import rss_kib
from tests.benchmarks.peers import Peer
from tests.benchmarks.processes import HOST, BenchError
from tests.benchmarks.scenarios import ENDLESS_BYTES, Column

CLIENTS = 20
ROUNDS = 3
SETTLE_S = 0.5  # while the buffers of the one that is stopped fill

ALONE = Column("others", "ms, p99", 2)
BESIDE_CLIENT = Column("client stopped", "times that", 2, compared=False)
BESIDE_ORIGIN = Column("origin stopped", "times that", 2, compared=False)
GROWTH = Column("stopped: memory", "MiB RSS more", 1)
COLUMNS = (ALONE, BESIDE_CLIENT, BESIDE_ORIGIN, GROWTH)

APP = """\
# Written by the benchmark of stopped readers: /stuck is served by an origin that does not read, and the others ask for
# as much as they want on each connection.
from coulee.core import Config, Filter, Limits, Proxy
from coulee.lb import Cluster, peer_from_url


class Stuck(Filter):
    def upstream_peer(self, exchange):
        return stuck if exchange.request.target == "/stuck" else None


stuck = peer_from_url("http://{{host}}:{port}")
config = Config(limits=Limits(requests_per_connection_max=10**9))
proxy = Proxy(Cluster("http://{{host}}:{{origin}}"), [Stuck()], config)
"""


@contextlib.contextmanager
def origin_that_does_not_read() -> Generator[int, None, None]:
    """Its port. The system accepts for it, and keeps what its buffers hold."""
    with socket.create_server((HOST, 0)) as listening:
        port: int = listening.getsockname()[1]
        yield port


def measure(peer: Peer, seconds: float) -> dict[Column, float]:
    """All of it for one peer, which runs `APP`. Raises `BenchError` where one of the others is not answered."""
    alone: list[float] = []
    ratios: dict[Column, list[float]] = {BESIDE_CLIENT: [], BESIDE_ORIGIN: []}
    with contextlib.ExitStack() as stack:
        try:
            connections = [stack.enter_context(connect(peer)) for _ in range(CLIENTS)]
            clients = Clients(connections, small_request(peer.port))
            clients.run(SETTLE_S)
            before = rss_kib(peer.pid)
            most = before
            for _ in range(ROUNDS):
                without = percentile(clients.run(seconds), 99)
                alone.append(without)
                with who_stops_reading(peer.port, "/endless"):
                    clients.run(SETTLE_S)
                    ratios[BESIDE_CLIENT].append(percentile(clients.run(seconds), 99) / without)
                    most = max(most, rss_kib(peer.pid))
                without = percentile(clients.run(seconds), 99)
                with who_is_not_read(peer.port, "/stuck", ENDLESS_BYTES) as sent:
                    if sent >= ENDLESS_BYTES:
                        raise BenchError(f"{ENDLESS_BYTES} bytes were taken, and nobody read them")
                    ratios[BESIDE_ORIGIN].append(percentile(clients.run(seconds), 99) / without)
                    most = max(most, rss_kib(peer.pid))
        except (ClientError, OSError) as error:
            raise BenchError(f"beside a stopped reader: {error}") from error
    found = {column: statistics.median(each) for column, each in ratios.items()}
    return {ALONE: statistics.median(alone) * 1e3, **found, GROWTH: (most - before) / 1024}
