"""Who is let in: how many client connections there are, in all and from each address.

Rules:

- An address is an IPv4 address, or an IPv6 /64, for that is what one household or one machine is given. An IPv4 address
  in IPv6 clothes is the IPv4 address.
- A connection over a cap is let in to be told so, and is counted apart. Of these too there may be only so many at once.
- The table knows an address only while it has a connection that counts, so it is never larger than their number.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, TypeAlias, cast

if TYPE_CHECKING:
    from coulee.core.config import Limits

ADDRESSES_KEPT_MAX: Final = 4096
"""Addresses that are not read again when another connection comes from them: 4 µs of some 90."""

Origin: TypeAlias = str | int
"""What connections are counted by: the text of an IPv4 address, or the upper half of an IPv6 one."""


class Admission:
    """The counts. Whoever is told to come in, or to be refused, has to be told to leave."""

    __slots__ = ("admitted", "from_address", "limits", "refused")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.admitted = 0
        self.refused = 0
        self.from_address: dict[Origin, int] = {}

    @property
    def accepts(self) -> bool:
        """Whether there is a use for another connection: it may come in, or be refused."""
        return self.admitted < self.limits.downstream_connections_max or self.may_refuse

    @property
    def may_refuse(self) -> bool:
        """Whether one more connection may wait to be refused."""
        return self.refused < self.limits.refused_connections_max

    def obstacle(self, origin: Origin | None) -> str:
        """Why one more connection may not come in: "" where it may."""
        limits = self.limits
        if self.admitted >= limits.downstream_connections_max:
            return f"there are {self.admitted} connections"
        count = 0 if origin is None else self.from_address.get(origin, 0)
        if count and count >= limits.connections_per_address_max:
            return f"there are {count} connections from this address"
        return ""

    def enter(self, origin: Origin | None) -> None:
        """A connection comes in."""
        self.admitted += 1
        if origin is not None:
            self.from_address[origin] = self.from_address.get(origin, 0) + 1

    def leave(self, origin: Origin | None) -> None:
        """It is gone."""
        self.admitted -= 1
        if origin is not None:
            count = self.from_address[origin] - 1
            if count:
                self.from_address[origin] = count
            else:
                del self.from_address[origin]


def ip_of(address: object) -> IPv4Address | IPv6Address | None:
    """The IP address of a peer; None for a Unix socket, and for what is none."""
    return _parsed(str(cast("tuple[object, ...]", address)[0])) if isinstance(address, tuple) else None


@lru_cache(maxsize=ADDRESSES_KEPT_MAX)
def _parsed(host: str) -> IPv4Address | IPv6Address | None:
    try:
        ip = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def origin_of(address: object) -> Origin | None:
    """What a connection from this address is counted by; None where it is not counted."""
    ip = ip_of(address)
    if ip is None:
        return None
    return str(ip) if isinstance(ip, IPv4Address) else int(ip) >> 64
