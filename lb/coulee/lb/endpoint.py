"""An endpoint: the address of one origin, with its weight, and all that its cluster knows of it.

Rules:

- Its identity is its address (with its group): a change of weight, labels or state loses nothing that is known.
- `open` is the one thing that policies look at: it is usable, and not full. Only the cluster sets it.
- What users write is a definition; a cluster makes endpoints of its own from it with `fresh`.
- What a URL says of how it is reached, and what a transport says, are taken together. Where one says the opposite of
  the other that is a mistake, and neither wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from coulee.core.peer import Peer, PeerLimits
from coulee.core.seam import Address, UpstreamTls, show_address
from coulee.core.transport import DIRECT, Transport
from coulee.lb.latency import Latency
from coulee.lb.outliers import Record

if TYPE_CHECKING:
    from coulee.lb.breaker import Circuit
    from coulee.lb.health import Health

WEIGHT_MAX: Final = 65535
"""nginx's and HAProxy's are 65535 and 256."""

Service: TypeAlias = Literal["ready", "drain", "maintenance"]
"""What an operator said: as usual; nothing new; nothing new, and no checks either."""

SERVICES: Final[tuple[Service, ...]] = get_args(Service)

State: TypeAlias = Literal[
    "healthy", "slow_start", "unhealthy", "ejected", "circuit_open", "half_open", "draining", "maintenance", "removed"
]
"""What it comes to. The first two are usable; a half-open one is for a few trials."""


SCHEMES: Final = ("http", "https", "h2c")
"""Of the URLs that name origins, beside `unix:`."""

_WITHOUT_TLS: Final = ("http", "h2c")
_H2C: Final = Transport(prior_knowledge=True)
_NO_HOST: Final = re.compile(r"[\x00-\x20\x7f\\,\"<>^`{|}]")
"""What stands in no host, and what `urlsplit` would drop without a word."""


class Endpoint(Peer):
    """`Endpoint("http://10.0.0.1:9000", weight=3, zone="eu")`. Raises `ValueError` for what makes no sense.

    `weight` is its share (0: nothing new), `priority` its group (0 first) and `zone` its place, for policies that look
    at those; `labels` are for selecting, as `{"version": "2"}`. `transport` is how it is reached, beside what its URL
    says of that.
    """

    __slots__ = (
        "cause",
        "circuit",
        "effective_weight",
        "ejection_cause",
        "failures",
        "guarded",
        "health",
        "in_flight",
        "index",
        "labels",
        "latency",
        "open",
        "owner",
        "priority",
        "record",
        "requests",
        "scheme",
        "service",
        "service_cause",
        "since",
        "state",
        "usable",
        "warm_since",
        "weight",
        "zone",
    )

    def __init__(
        self,
        where: str | Address | Peer,
        *,
        name: str = "",
        group: str = "",
        weight: int = 1,
        priority: int = 0,
        zone: str = "",
        labels: Mapping[str, str] | None = None,
        limits: PeerLimits | None = None,
        transport: Transport | None = None,
    ) -> None:
        peer = where if isinstance(where, Peer) else peer_of(where)
        super().__init__(peer.address, name or peer.name, group or peer.group, limits or peer.limits, peer.transport)
        self.scheme = self._scheme_of(where)
        """Of its URL, or of one that would say the same; "" where its transport alone says how it is reached."""
        if transport is not None:
            self._take(transport)
        check_weight(weight, self.name)
        if priority < 0:
            raise ValueError(f"endpoint {self.name}: priority is {priority}; the first group is 0, the next 1")
        self.weight = weight
        self.priority = priority
        self.zone = zone
        self.labels: Mapping[str, str] = dict(labels or {})
        # what its cluster knows
        self.index = 0
        """Where it stands among the members: breaks ties."""
        self.usable = weight > 0
        self.open = self.usable
        self.in_flight = 0
        self.effective_weight = float(weight)
        """`weight`, or the part of it that a slow start has reached."""
        self.owner: object = None
        """The cluster that it is of."""
        self.service: Service = "ready"
        self.service_cause = ""
        self.state: State = "healthy"
        self.cause = ""
        self.since = 0.0
        """When the state began, on the core's clock."""
        self.guarded = limits is not None
        """Whether a circuit or limits may close it between two requests."""
        self.requests = 0
        """Attempts so far."""
        self.failures: dict[str, int] = {}
        """... of which so many ended with each reason, or with each status that counts as a failure."""
        self.latency = Latency()
        self.warm_since = -1.0
        """When its slow start began; -1.0 where it is in none."""
        self.health: Health | None = None
        self.record = Record()
        self.ejection_cause = ""
        self.circuit: Circuit | None = None

    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]  # a dataclass that compares has none

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} {self.state} weight {self.weight} in flight {self.in_flight}>"

    def fresh(self) -> Endpoint:
        """The same endpoint, with nothing known of it."""
        return Endpoint(self, weight=self.weight, priority=self.priority, zone=self.zone, labels=self.labels)

    def describe(self, other: Endpoint) -> None:
        """Take over what another definition of the same address says, and keep what is known."""
        self.name, self.limits = other.name, other.limits  # its transport is a part of what it is
        self.weight, self.priority, self.zone, self.labels = other.weight, other.priority, other.zone, other.labels
        self.guarded = self.circuit is not None or self.limits is not None

    def reach_by(self, transport: Transport) -> None:
        """Use this transport, where it has none of its own but for what its URL asks for. Raises `ValueError` where
        its URL asks for the opposite."""
        if transport is not DIRECT and self.transport == _asked_for(self.scheme, self.host):
            self._take(transport)

    def _scheme_of(self, where: str | Address | Peer) -> str:
        """That of the URL which it is made of. A peer has none, but may be one that a URL would make."""
        if isinstance(where, Endpoint):
            return where.scheme
        if isinstance(where, str):
            scheme = where.partition(":")[0].lower()
            return scheme if scheme in SCHEMES else ""
        if self.transport is DIRECT:
            return ""
        return next((each for each in ("https", "h2c") if self.transport == _asked_for(each, self.host)), "")

    def _take(self, transport: Transport) -> None:
        """... with what its URL says."""
        scheme, tls = self.scheme, transport.tls
        if scheme in _WITHOUT_TLS and tls is not None:
            raise ValueError(
                f"endpoint {self.name}: {scheme}:// is without TLS, and its transport has `tls`; "
                "write https://, or leave that out"
            )
        if scheme == "https":
            if transport.prior_knowledge:
                raise ValueError(
                    f"endpoint {self.name}: https:// agrees on HTTP/2 by ALPN, and its transport has "
                    '`prior_knowledge`, which is without TLS; write h2c://, or tls=UpstreamTls(alpn=("h2", "http/1.1"))'
                )
            tls = tls or UpstreamTls()
        tls = tls.for_host(self.host) if tls is not None else None
        prior_knowledge = transport.prior_knowledge or scheme == "h2c"
        self.transport = replace(transport, tls=tls, prior_knowledge=prior_knowledge)
        self.name_key()

    @property
    def host(self) -> str:
        """The host of its address; that of a Unix socket has none, and is this one."""
        return "localhost" if isinstance(self.address, str) else self.address[0]

    @property
    def in_service(self) -> bool:
        """Whether its operator, and its weight, allow it requests."""
        return self.service == "ready" and self.weight > 0

    @property
    def ejected(self) -> bool:
        """Whether it is left out for a while for what requests met."""
        return self.record.ejected_until > 0

    @property
    def is_healthy(self) -> bool:
        """Whether its checks and requests speak for it; its circuit apart."""
        return (self.health is None or self.health.healthy) and not self.ejected


def endpoint_of(each: str | Peer) -> Endpoint:
    """What users may write in place of an endpoint. Raises `ValueError`."""
    return each if isinstance(each, Endpoint) else Endpoint(each)


def check_weight(weight: int, name: str) -> None:
    """Raises `ValueError`."""
    if not 0 <= weight <= WEIGHT_MAX:
        raise ValueError(f"endpoint {name}: weight is {weight}; it must be from 0 to {WEIGHT_MAX}")


def peer_of(where: str | Address) -> Peer:
    """A peer from a URL, or from an address as the seam has it. Raises `ValueError`."""
    return peer_from_url(where) if isinstance(where, str) else Peer(where)


def peer_from_url(url: str) -> Peer:
    """The peer that a URL such as `http://127.0.0.1:9000` names. Raises `ValueError` with what is wrong with it. Of
    `https://` its certificate is verified, for the host of the URL and by the system's authorities. `h2c://` is HTTP/2
    without TLS, and without asking whether it is understood (RFC 9113 section 3.3).

    Only scheme, host and port count; `unix:/path` names a Unix socket.
    """
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        if not path:
            raise ValueError(f"{url!r} names no socket; write unix:/path/to/socket")
        return Peer(path, name=url)
    if not url.isascii() or _NO_HOST.search(url):
        raise ValueError(f"{url!r} has characters that no URL has")
    if "://" not in url:
        raise ValueError(f"{url!r} has no scheme; write http://{url}")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise ValueError(f"{url!r} is no URL: {error}") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(
            f"{url!r}: the scheme {parts.scheme!r} is not supported; write http://..., https://... or h2c://..."
        )
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"{url!r}: the port is no number from 1 to 65535") from None
    usual = 443 if parts.scheme == "https" else 80
    if not host:
        raise ValueError(f"{url!r} has no host; write {parts.scheme}://127.0.0.1:9000")
    if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        shown = f"{parts.scheme}://{show_address((host, port or usual))}"
        raise ValueError(f"{url!r}: give scheme, host and port alone, as in {shown}")
    if port == 0:
        raise ValueError(f"{url!r}: port 0 is nobody's")
    return Peer((host, port or usual), transport=_asked_for(parts.scheme, host))


def _asked_for(scheme: str, host: str) -> Transport:
    """What a URL asks for, where nobody says more."""
    if scheme == "https":
        return Transport(tls=UpstreamTls().for_host(host))
    return _H2C if scheme == "h2c" else DIRECT
