"""A reader that stops costs the others nothing: one client that takes nothing of a large answer, and one origin that
takes nothing of a large request, each beside clients who ask for small answers, on every backend. Memory is read from
/proc, so this needs Linux."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.clients import Clients, percentile, who_is_not_read, who_stops_reading

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee, Nginx

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")

SIZE = 64 * 1024 * 1024
CLIENTS = 20
WINDOW_S = 0.3
ROUNDS = 3
GROWTH_MAX_KIB = 20 * 1024  # and a third of what is asked for: none of it waits in the proxy
SLOWER_MAX = 1.5  # in the best of the rounds, for a busy machine can make any of them slow

APP = """
from coulee.core import Config, Filter, Limits, Proxy
from coulee.lb import Cluster, peer_from_url


class Stuck(Filter):
    def upstream_peer(self, exchange):
        return stuck if exchange.request.target == "/stuck" else None


stuck = peer_from_url("http://127.0.0.1:{stuck}")
proxy = Proxy(Cluster({url!r}), [Stuck()], Config(limits=Limits(requests_per_connection_max=10**9)))
"""


@pytest.fixture
def proxy(coulee: Callable[..., Coulee], nginx: Nginx, backend: str) -> Generator[Coulee, None, None]:
    """coulee before nginx, and before an origin that accepts, and reads nothing."""
    with (nginx.folder / "files" / "file" / "endless").open("wb") as endless:
        endless.truncate(SIZE)
    with socket.create_server(("127.0.0.1", 0)) as stuck:
        app = APP.format(url=nginx.url, stuck=stuck.getsockname()[1])
        yield coulee("--backend", backend, "--grace", "0", "--quiet", app=app)


@pytest.fixture
def others(proxy: Coulee) -> Generator[Clients, None, None]:
    """Those who are to notice nothing."""
    with contextlib.ExitStack() as stack:
        address = "127.0.0.1", proxy.port
        connections = [stack.enter_context(socket.create_connection(address)) for _ in range(CLIENTS)]
        clients = Clients(connections, b"GET /etag HTTP/1.1\r\nHost: a.test\r\n\r\n")
        yield clients
        clients.close()


def slower(proxy: Coulee, others: Clients, stop: Callable[[], contextlib.AbstractContextManager[object]]) -> float:
    """How many times as long as without it the others wait, at the 99th percentile, beside one that `stop` stops; and
    that the memory of the proxy does not grow meanwhile."""
    others.run(WINDOW_S)
    before = proxy.memory_kib("VmRSS")
    ratios: list[float] = []
    for _ in range(ROUNDS):
        alone = others.run(WINDOW_S)
        with stop():
            others.run(WINDOW_S)  # meanwhile it fills what it can
            beside = others.run(WINDOW_S)
            assert proxy.memory_kib("VmRSS") - before < GROWTH_MAX_KIB
        ratios.append(percentile(beside, 99) / percentile(alone, 99))
        assert min(len(alone), len(beside)) >= CLIENTS
    print(f"{' '.join(f'{each:.2f}' for each in ratios)} times; {proxy.memory_kib('VmRSS') - before} KiB more")
    return min(ratios)


def test_a_client_that_stops_reading_costs_the_others_nothing(proxy: Coulee, others: Clients) -> None:
    def stop() -> contextlib.AbstractContextManager[object]:
        return who_stops_reading(proxy.port, "/file/endless")

    assert slower(proxy, others, stop) < SLOWER_MAX


def test_an_origin_that_stops_reading_costs_the_others_nothing(proxy: Coulee, others: Clients) -> None:
    @contextlib.contextmanager
    def stop() -> Generator[None, None, None]:
        with who_is_not_read(proxy.port, "/stuck", SIZE) as sent:
            assert sent < SIZE, "nobody read it, and all of it was taken"
            yield

    assert slower(proxy, others, stop) < SLOWER_MAX
