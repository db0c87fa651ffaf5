"""Where a request goes: a peer, and the balancer that chooses one.

The core knows no policy. It asks a `Balancer` (in practice `coulee.lb.Cluster`) for a peer, and tells it what became of
each attempt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from coulee.core.seam import Address, show_address

if TYPE_CHECKING:
    from coulee.core.parts import Request

PoolKey: TypeAlias = tuple[Address, str]


@dataclass(slots=True)
class Peer:
    """One upstream to connect to.

    `name` is for people (the access record, the log); `group` keeps connections apart that could otherwise be shared.
    """

    address: Address
    name: str = ""
    group: str = ""
    key: PoolKey = field(init=False)
    """What two exchanges must have in common to use the same connection: exact, not a hash of it. The address, because
    it is another server; the group, because somebody said so."""

    @property
    def authority(self) -> str:
        """What to say in Host where the request does not."""
        if isinstance(self.address, str):
            return "localhost"
        return show_address(self.address).removesuffix(":80")

    def __post_init__(self) -> None:
        if not self.name:
            self.name = show_address(self.address)
        self.key = (self.address, self.group)


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


class Balancer(Protocol):
    """Chooses a peer for each attempt. Pure: it decides from what it was told."""

    def fresh(self) -> Balancer:
        """The same balancer in its initial state."""
        ...

    def choose(self, exchange: Routed) -> Peer | None:
        """A peer for the next attempt of this exchange, preferably none of `exchange.tried`; None where there is
        none."""
        ...

    def observe(self, peer: Peer, reason: str) -> None:
        """An attempt has ended: `reason` is "" where the peer answered, else the word from `errors.REASONS`."""
        ...
