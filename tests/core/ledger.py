"""A balancer that notes all it hears and judges it, and a world in which three peers can be played one by one.

world, ledger = played(retry=Retry(statuses=(503,)))
client = asks(world)
origin = reaches(world, "a")                  # the proxy asked for a connection to the peer a, and has it now
assert ledger.heard == ["begin a"]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from coulee.core import Config, Filter, Forwarding, Peer, Proxy, Response, Retry
from coulee.core.peer import Balancer, PeerLimits, Routed
from coulee.core.seam import Closed, Connected, ErrorKind
from tests.core.world import LISTENER, World

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = GET.replace(b"GET", b"HEAD")
POST = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
PUT = POST.replace(b"POST", b"PUT")
OK = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nhi"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nDate: now\r\nContent-Length: 4\r\n\r\nbusy"
ADDRESSES = {"a": ("10.0.0.1", 80), "b": ("10.0.0.2", 80), "c": ("10.0.0.3", 80)}
PLAIN = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False))


class Ledger(Balancer):
    """Offers its peers in their order, those not tried first. Each attempt begins and ends once, and is answered at
    most once in between."""

    def __init__(self, names: str = "ab", limits: PeerLimits | None = None) -> None:
        self.offers = [Peer(ADDRESSES[name], name, limits=limits) for name in names]
        self.grants = 1_000_000  # how many retries the budget has left
        self.heard: list[str] = []
        self.going_on: Counter[str] = Counter()
        self.answers_due: Counter[str] = Counter()
        self.began = 0
        self.ended = 0

    def choose(self, exchange: Routed) -> Peer | None:
        return next((peer for peer in self.offers if peer.name not in exchange.tried), self.offers[0])

    def begin(self, peer: Peer) -> None:
        self.heard.append(f"begin {peer.name}")
        self.began += 1
        self.going_on[peer.name] += 1
        self.answers_due[peer.name] += 1

    def answered(self, exchange: Routed, peer: Peer, response: Response, latency_s: float) -> None:
        self.heard.append(f"answered {peer.name} {response.status} {latency_s:g}")
        assert self.answers_due[peer.name] > 0, f"{peer.name} answers what it was not asked"
        self.answers_due[peer.name] -= 1

    def end(self, peer: Peer, reason: str, status: int, latency_s: float) -> None:
        self.heard.append(f"end {peer.name} {reason or 'well'} {status} {latency_s:g}")
        self.ended += 1
        assert self.going_on[peer.name] > 0, f"{peer.name} ends what has not begun"
        self.going_on[peer.name] -= 1
        if not status:
            assert self.answers_due[peer.name] > 0
            self.answers_due[peer.name] -= 1

    def may_retry(self, exchange: Routed) -> bool:
        self.grants -= 1
        return self.grants >= 0

    def closed(self) -> bool:
        """Whether every attempt has its end, and every answer its attempt."""
        return not self.going_on.total() and not self.answers_due.total()


def played(
    *filters: Filter,
    ledger: Ledger | None = None,
    retry: Retry | None = None,
    config: Config = PLAIN,
    seed: int = 1,
    **changes: Any,
) -> tuple[World, Ledger]:
    """A proxy before a ledger's peers."""
    ledger = ledger or Ledger()
    config = replace(config, retry=retry or config.retry, **changes)
    proxy = Proxy(ledger, filters, config).fresh(rng=Random(seed), wall_clock_offset_s=1e9, listen=[LISTENER])
    return World(proxy), ledger


def proxy_of(world: World) -> Proxy:
    assert isinstance(world.machine, Proxy)
    return world.machine


def asks(world: World, request: bytes = GET) -> int:
    """A client has sent a request."""
    client = world.client()
    world.receives(client, request)
    return client


def wanted(world: World) -> str:
    """The peers that the proxy is connecting to, in its order."""
    names = {address: name for name, address in ADDRESSES.items()}
    return "".join(names[connect.address] for connect in world.connecting)  # type: ignore[index]


def reaches(world: World, name: str) -> int:
    """The oldest Connect to a peer comes through; the number of the connection."""
    connect = world.connecting.pop(wanted(world).index(name))
    world.gives(Connected(connect.conn, connect.address, ("127.0.0.1", 40000)))
    return connect.conn


def misses(world: World, name: str, kind: ErrorKind = "refused") -> None:
    """The oldest Connect to a peer fails."""
    connect = world.connecting.pop(wanted(world).index(name))
    world.closed.append(connect.conn)
    world.gives(Closed(connect.conn, kind))


def on(phase: str, function: Callable[..., Any]) -> Filter:
    """A filter of one phase."""
    hook = Filter()
    setattr(hook, phase, function)
    return hook


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def attempts(world: World) -> list[tuple[str, str]]:
    """The attempts of the last access record: where, and what ended them."""
    return [(attempt.peer, attempt.reason) for attempt in world.access[-1].attempts]


def ends_well(world: World, ledger: Ledger, *clients: int) -> None:
    """The clients leave, and nothing is left of anything: no connection, no task, no attempt without its end."""
    for client in clients:
        if client not in world.closed and world.reading.get(client):
            world.receives(client, b"")
    world.leaves_nothing()
    proxy = proxy_of(world)
    assert not proxy.pool.desks
    assert ledger.closed(), ledger.heard
    assert ledger.began == proxy.counters.attempts == sum(len(record.attempts) for record in world.access)
    assert proxy.counters.requests == len(world.access)
