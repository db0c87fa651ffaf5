"""Where a tunnelled connection goes: to one balancer, or to one of several, by the name that the client asks for.

    Tunnel(BySni({"a.example": Cluster("http://10.0.0.1:443"), "*.b.example": "10.0.0.2:443"}))

Rules:

- An exact name comes before a wildcard, which stands for one label (RFC 9525 section 6.3), and that before `default`.
- Whoever asks for no name, or for one that nothing is known of, goes to `default`; where there is none, nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from coulee.core.address import parse_address
from coulee.core.errors import ExchangeError
from coulee.core.peer import Balancer, Peer, Routed
from coulee.core.seam import Address
from coulee.core.server_names import is_ip, normalized, wildcard_for

if TYPE_CHECKING:
    from coulee.core.proxy import Proxy

Destination: TypeAlias = Balancer | Peer | Address
"""A balancer, a peer, or the address of one, also as text; see `parse_address`."""

_NAME: Final = re.compile(r"(?:\*\.[0-9a-z_-]+\.)?(?:[0-9a-z_-]+\.)*[0-9a-z_-]+")


class BySni:
    """A destination for each name. Raises `ValueError` for what is no name, and for what is no destination."""

    def __init__(self, routes: Mapping[str, Destination], default: Destination | None = None) -> None:
        self.routes: dict[str, Balancer] = {}
        for name, destination in routes.items():
            known = normalized(name)
            if not _NAME.fullmatch(known) or is_ip(known):
                raise ValueError(
                    f"{name!r} is no name to route by; write 'a.example', or '*.b.example' for those below"
                )
            if known in self.routes:
                raise ValueError(f"{name!r} has two routes")
            self.routes[known] = as_balancer(destination)
        self.default = None if default is None else as_balancer(default)

    @property
    def balancers(self) -> list[Balancer]:
        """All of them, each once."""
        given = [*self.routes.values(), self.default]
        return [each for each in dict.fromkeys(given) if each is not None]

    def fresh(self) -> BySni:
        """The same routes, to balancers in their initial state."""
        twins = {each: each.fresh() for each in self.balancers}
        default = None if self.default is None else twins[self.default]
        return BySni({name: twins[each] for name, each in self.routes.items()}, default)

    def find(self, server_name: str) -> Balancer | None:
        """Where a name leads to; None: nowhere. The name is normalized, or ""."""
        exact = self.routes.get(server_name)
        if exact is not None:
            return exact
        return self.routes.get(wildcard_for(server_name), self.default)


class OnePeer(Balancer):
    """Always the same."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def choose(self, exchange: Routed) -> Peer:
        return self.peer


class Together(Balancer):
    """The balancers of routes, as the one that a proxy starts and stops."""

    def __init__(self, routes: BySni) -> None:
        self.routes = routes

    def fresh(self) -> Together:
        return Together(self.routes.fresh())

    def start(self, proxy: Proxy) -> None:
        for balancer in self.routes.balancers:
            balancer.start(proxy)

    def stop(self) -> None:
        for balancer in self.routes.balancers:
            balancer.stop()

    def choose(self, exchange: Routed) -> Peer | None:
        raise ExchangeError("no_healthy_endpoint", "there are several clusters here: say which peer is meant")


def as_balancer(to: Destination) -> Balancer:
    """The balancer that a destination is, or stands for. Raises `ValueError`."""
    if isinstance(to, Balancer):
        return to
    if isinstance(to, Peer):
        return OnePeer(to)
    return OnePeer(Peer(parse_address(to) if isinstance(to, str) else to))
