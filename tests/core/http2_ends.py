"""Clients and origins that speak HTTP/2, played by hand in a `World`: frames in, and what came out of them as short
words.

client = Client(world)
client.says(headers(1, get("/a")))
origin = Origin(world)                        # the proxy asked for a connection, and has it now
assert origin.told() == ["1 GET /a end"]
origin.says(answer(1), data(1, b"hi", end=True))
assert client.told() == ["1 200", "1 DATA 'hi' end"]

No end opens a window by itself, and `told` leaves SETTINGS and WINDOW_UPDATE out: `frames` has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any, Final

from hpack import Decoder

from coulee.core import Config, Filter, Forwarding, Peer, Proxy
from coulee.core.peer import Balancer, PeerLimits, Routed
from coulee.core.seam import Address, Security
from coulee.core.transport import Transport
from tests.core.world import CLIENT, LISTENER, World
from tests.http2 import frames as h2
from tests.http2.frames import Frame, Pairs, cut, fields, headers, settings

PLAIN = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False))
H2 = Security("TLSv1.3", "TLS_AES_256_GCM_SHA384", "h2")
DEFAULTS: Final[Mapping[int, int]] = {}
H2C = Transport(prior_knowledge=True)
OK = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nhi"


class Ways(Balancer):
    """Offers its peers in their order, those not tried first, and counts."""

    def __init__(self, *peers: Peer) -> None:
        self.peers = peers
        self.began = 0
        self.ended: list[str] = []

    def choose(self, exchange: Routed) -> Peer | None:
        return next((peer for peer in self.peers if peer.name not in exchange.tried), self.peers[0])

    def begin(self, peer: Peer) -> None:
        self.began += 1

    def end(self, peer: Peer, reason: str, status: int, latency_s: float) -> None:
        self.ended.append(reason)


def peer(name: str = "a", transport: Transport = H2C, limits: PeerLimits | None = None) -> Peer:
    """An origin, of HTTP/2 unless something else is said."""
    return Peer((f"10.0.0.{ord(name[0])}", 80), name, transport=transport, limits=limits)


def played(
    *filters: Filter, peers: tuple[Peer, ...] = (), config: Config = PLAIN, seed: int = 1, **changes: Any
) -> World:
    """A proxy, before one origin of HTTP/1.1 unless other peers are named."""
    config = replace(config, **changes)
    ways = Ways(*(peers or (peer(transport=Transport()),)))
    proxy = Proxy(ways, filters, config).fresh(rng=Random(seed), wall_clock_offset_s=1e9, listen=[LISTENER])
    return World(proxy)


def proxy_of(world: World) -> Proxy:
    assert isinstance(world.machine, Proxy)
    return world.machine


def reasons(world: World) -> list[str]:
    """Of the access records so far."""
    return [record.reason for record in world.access]


def ends(world: World) -> None:
    """All is over, and nothing is left of it."""
    world.leaves_nothing()
    proxy = proxy_of(world)
    assert not proxy.pool.desks
    assert not proxy.pool.idle
    assert not proxy.downstreams
    ways = proxy.balancer
    assert isinstance(ways, Ways)
    assert ways.began == len(ways.ended) == proxy.counters.attempts
    assert proxy.counters.requests == len(world.access)
    assert proxy.counters.attempts >= sum(len(record.attempts) for record in world.access)
    assert not world.events("internal_error"), world.events("internal_error")[0].fields["traceback"]


def answer(stream: int, status: int = 200, *extra: tuple[str, str], end: bool = False) -> bytes:
    """The head of an answer."""
    return headers(stream, fields([(":status", str(status)), *extra]), end=end)


def trailers(stream: int, *pairs: tuple[str, str]) -> bytes:
    """Fields behind a body."""
    return headers(stream, fields(pairs), end=True)


class End:
    """One end of a connection."""

    def __init__(self, world: World, conn: int) -> None:
        self.world = world
        self.conn = conn
        self.decoder = Decoder()
        self.unread = b""

    def says(self, *sent: bytes) -> None:
        """Send some frames, as one read."""
        self.world.receives(self.conn, b"".join(sent))

    def leaves(self) -> None:
        """Close this side, where that was not done for it."""
        if not self.closed:
            self.world.receives(self.conn, b"")

    def frames(self) -> list[Frame]:
        """All that has come since the last call."""
        found, self.unread = cut(self.unread + self.world.sent(self.conn))
        return found

    def told(self) -> list[str]:
        """The same in words, but for SETTINGS and WINDOW_UPDATE."""
        return [word for each in self.frames() if (word := self._word(each))]

    def _word(self, each: Frame) -> str:
        end = " end" if each.ends else ""
        if each.type == h2.HEADERS:
            pairs: Pairs = [
                (name.decode(), value.decode()) for name, value in self.decoder.decode(each.content, raw=True)
            ]
            return f"{each.stream} {self._head(pairs)}{end}"
        if each.type == h2.DATA:
            content = each.content
            shown = repr(content.decode()) if len(content) <= 40 else str(len(content))
            return f"{each.stream} DATA {shown}{end}"
        if each.type == h2.RST_STREAM:
            return f"{each.stream} RST {each.code.name}"
        if each.type == h2.GOAWAY:
            return f"GOAWAY {each.last if each.last < 2**31 - 1 else 'all'} {each.code.name}"
        if each.type == h2.PING:
            return "PONG" if each.acks else "PING"
        return ""

    def _head(self, pairs: Pairs) -> str:
        found = dict(pairs)
        if ":status" in found:
            return found[":status"]
        if ":method" in found:
            return f"{found[':method']} {found.get(':path', found[':authority'])}"
        return " ".join(f"{name}={value}" for name, value in pairs)

    @property
    def closed(self) -> bool:
        """Whether the proxy has closed it."""
        return self.conn in self.world.closing


class Client(End):
    """A client that has begun: its first frames are sent, and ours are read."""

    def __init__(self, world: World, values: dict[int, int] | None = None, *, address: Address = CLIENT) -> None:
        super().__init__(world, world.client(address))
        self.says(h2.PREFACE, settings(values or {}), settings(ack=True))
        self.first = self.frames()

    def asks(self, *streams: int, path: str = "/a") -> None:
        """Requests without a body."""
        self.says(*(headers(stream, h2.get(path)) for stream in streams))


class Origin(End):
    """The origin of the oldest `Connect`, which comes through. It begins with its SETTINGS, unless `values` is None."""

    def __init__(
        self, world: World, values: Mapping[int, int] | None = DEFAULTS, *, security: Security | None = None
    ) -> None:
        super().__init__(world, world.connects())
        if security is not None:
            world.secures(security)
        sent = world.sent(self.conn)
        assert sent.startswith(h2.PREFACE), sent
        self.unread = sent[len(h2.PREFACE) :]
        if values is not None:
            self.says(settings(values.items()), settings(ack=True))
