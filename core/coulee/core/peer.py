"""Where a request goes: a peer, and the balancer that chooses one.

The core knows no policy. It asks a `Balancer` (in practice `coulee.lb.Cluster`) for a peer, and tells it what became of
each attempt.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Protocol, TypeAlias

from coulee.core.seam import Address, show_address
from coulee.core.transport import DIRECT, Transport

if TYPE_CHECKING:
    from coulee.core.errors import ExchangeError
    from coulee.core.parts import Request, Response
    from coulee.core.proxy import Proxy

PoolKey: TypeAlias = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """Limits of one peer. None leaves it to what `Limits` and `Timeouts` say for all of them."""

    connections_max: int | None = None
    """Connections, busy and idle, in place of `connections_per_peer_max`."""

    waiters_max: int | None = None
    """Exchanges that wait for one of them, in place of `pool_waiters_max`. Beyond: 503, `pool_full`."""

    wait_s: float | None = None
    """... and for how long, in place of `pool_wait_s`."""

    requests_max: int | None = None
    """Requests in flight, waiting ones included: a cluster passes over an endpoint that has so many. Where all have:
    503, `pool_full`. None is no limit."""

    requests_per_connection_max: int | None = None
    """Requests on one connection, which is then closed. None is no limit."""

    connection_life_s: float | None = None
    """The age at which a connection is not used again. None is no limit."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and not (value > 0 or (value == 0 and each.name == "waiters_max")):
                raise ValueError(f"{each.name} is {value}; it must be above 0, or None")


@dataclass(slots=True)
class Peer:
    """One upstream to connect to.

    `name` is for people (the access record, the log); `group` keeps connections apart that could otherwise be shared.
    """

    address: Address
    name: str = ""
    group: str = ""
    limits: PeerLimits | None = None
    transport: Transport = DIRECT
    prelude: bytes = b""
    """What each connection begins with, before TLS: a header of the PROXY protocol."""

    key: PoolKey = field(init=False)
    """What two exchanges must have in common to use the same connection: exact, not a hash of it. The address, because
    it is another server; the group, because somebody said so; the transport, because it may be verified as somebody
    else; the prelude, because it tells who the client is."""

    @property
    def authority(self) -> str:
        """What to say in Host where the request does not."""
        if isinstance(self.address, str):
            return "localhost"
        return show_address(self.address).removesuffix(":80" if self.transport.tls is None else ":443")

    def __post_init__(self) -> None:
        if not self.name:
            self.name = show_address(self.address)
        self.name_key()

    def by(self, transport: Transport) -> Peer:
        """The same, reached another way. A subclass may have more to say of a peer, and nobody asks for that here."""
        return Peer(self.address, self.name, self.group, self.limits, transport, self.prelude)

    def name_key(self) -> None:
        """What it is made of has been set."""
        if self.transport == DIRECT and not self.prelude:
            self.key = (self.address, self.group)  # so it nearly always is, and it is looked up for each request
        else:
            self.key = (self.address, self.group, self.transport, self.prelude)


class Routed(Protocol):
    """What a balancer may look at: an exchange, or a sub-request of a filter."""

    @property
    def request(self) -> Request:
        """The request as the client sent it."""
        ...

    @property
    def client(self) -> Address:
        """Who sent it."""
        ...

    @property
    def tried(self) -> list[str]:
        """The names of the peers of earlier attempts."""
        ...


class Balancer:
    """Chooses a peer for each attempt; subclass it, and override at least `choose`. Pure: it decides from what it is
    told. Every attempt is told with one `begin` and one `end`, and between them, where an answer came, `answered`.
    """

    hears_answers = True
    """Whether `answered` is called at all; what it would be told, but for the answer itself, `end` is told too."""

    def fresh(self) -> Balancer:
        """The same balancer in its initial state; this one, where it has none."""
        return self

    def start(self, proxy: Proxy) -> None:
        """The proxy's first turn: a balancer may start tasks of its own, on `proxy.kernel`."""

    def choose(self, exchange: Routed) -> Peer | None:
        """A peer for the next attempt of this exchange, preferably none of `exchange.tried`; None where there is none.
        Raises `ExchangeError`, where it can say why there is none."""
        raise NotImplementedError

    def begin(self, peer: Peer) -> None:
        """An attempt begins; the peer may be one that a filter chose."""

    def answered(self, exchange: Routed, peer: Peer, response: Response, latency_s: float) -> None:
        """The head of the peer's answer is here, `latency_s` after the attempt began. Nobody has looked at it."""

    def end(self, peer: Peer, reason: str, status: int, latency_s: float) -> None:
        """An attempt has ended: `reason` is "" where it went well, else the word from `errors.REASONS`. `status` is
        that of the answer, and `latency_s` what `answered` was told; 0 where there was none."""

    def may_retry(self, exchange: Routed) -> bool:
        """Whether there is room for one more attempt than the one that each request has: the budget of retries."""
        return True

    def verdict(self, error: ExchangeError) -> ExchangeError:
        """What an exchange is told that failed for good with `error`: that, or something wider."""
        return error

    def stop(self) -> None:
        """The proxy drains: end the tasks."""
