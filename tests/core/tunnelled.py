"""What the tests of tunnels share: a tunnel in a world, its records, and a balancer that keeps what it hears."""

from __future__ import annotations

from math import inf
from random import Random
from typing import Any

from coulee.core import Balancer, Config, Peer, Response, Routed
from coulee.core.listener import Listener
from coulee.core.seam import Address
from coulee.core.tls import Certificate, ListenerTls
from coulee.core.tunnel import Tunnel
from coulee.core.tunnel_exchange import TunnelAccess, TunnelExchange
from coulee.core.tunnel_filters import TunnelFilter
from coulee.core.tunnel_routes import BySni, Destination
from tests.core.world import LISTENER, World

ONE: Address = ("10.1.1.1", 443)
TWO: Address = ("10.1.1.2", 443)
THREE: Address = ("10.1.1.3", 443)


class Told(Balancer):
    """Offers peers in turn, and keeps what it hears."""

    def __init__(self, *peers: Peer) -> None:
        self.peers = peers or (Peer(ONE, "one"), Peer(TWO, "two"), Peer(THREE, "three"))
        self.heard: list[tuple[Any, ...]] = []
        self.turn = 0
        self.allows = True

    def choose(self, exchange: Routed) -> Peer:
        self.heard.append(("choose", exchange.request.authority, exchange.client, tuple(exchange.tried)))
        self.turn += 1
        return self.peers[(self.turn - 1) % len(self.peers)]

    def begin(self, peer: Peer) -> None:
        self.heard.append(("begin", peer.name))

    def answered(self, exchange: Routed, peer: Peer, response: Response, latency_s: float) -> None:
        self.heard.append(("answered", peer.name, response.status, latency_s))

    def end(self, peer: Peer, reason: str, status: int, latency_s: float) -> None:
        self.heard.append(("end", peer.name, reason, status, latency_s))

    def may_retry(self, exchange: Routed) -> bool:
        return self.allows

    @property
    def ends(self) -> list[tuple[Any, ...]]:
        """Which attempts have ended, and with which reason."""
        return [each[1:3] for each in self.heard if each[0] == "end"]


def make(
    to: Destination | BySni = ONE,
    *filters: TunnelFilter,
    listener: Listener | None = None,
    sni: bool | None = None,
    **settings: Any,
) -> World:
    """A tunnel in a world; `settings` are those of its configuration."""
    tunnel = Tunnel(to, Config(**settings), filters=filters, sni=sni)
    return World(tunnel.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[listener or Listener(LISTENER)]))


def records(world: World) -> list[TunnelAccess]:
    """The records so far."""
    return [record for record in world.records if isinstance(record, TunnelAccess)]


def record(world: World) -> TunnelAccess:
    """The only one."""
    [only] = records(world)
    return only


def reason(world: World) -> str:
    """Why it ended."""
    return record(world).reason


def machine(world: World) -> Tunnel:
    """The tunnel."""
    assert isinstance(world.machine, Tunnel)
    return world.machine


def told(world: World) -> Told:
    """Its balancer."""
    balancer = machine(world).balancer
    assert isinstance(balancer, Told)
    return balancer


class Look(TunnelFilter):
    """Keeps what is known at `connect`."""

    def connect(self, exchange: TunnelExchange) -> None:
        exchange.tags["known"] = (exchange.is_tls, exchange.server_name, exchange.alpn, exchange.client)
        exchange.tags["now"] = (exchange.now, exchange.rng is exchange.tunnel.rng)


class Source:
    """A certificate that never changes."""

    name = "here"
    interval_s = inf
    stamp = None
    certificates = (Certificate(b"chain", b"key", ("a.example",), "ecdsa", 0.0, 4e9, "ab", "a.pem"),)

    def look(self, stamp: object) -> None:
        return None


OVER_TLS = Listener(LISTENER, ListenerTls(Source()))
