"""The phases of a tunnelled connection, and the chains that a list of filters makes of them.

A filter is a subclass of `TunnelFilter` that overrides the phases it needs, each a plain function or an `async def`
one:

    connect        who the client is is known; may choose where it goes, or refuse it
      bytes_up     each piece of what the client sends
      bytes_down   each piece of what the peer sends
    logging        always, last

`connect` and `bytes_up` run in the order of the list, the others in reverse. A phase that nobody overrides costs the
test of an empty tuple.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Final

from coulee.core.filters import Chain, decide

if TYPE_CHECKING:
    from coulee.core.peer import Peer
    from coulee.core.tunnel_exchange import TunnelExchange


class TunnelFilter:
    """Override the phases you need, as plain functions or `async def`. What they may await is in `coulee.core.effects`.

    One filter serves all connections; keep what belongs to one of them in `exchange.tags`.
    """

    def connect(self, exchange: TunnelExchange) -> Awaitable[Peer | None] | Peer | None:
        """Choose where this attempt goes, or leave it to the balancer. To refuse the client, raise `ExchangeError`.
        Called for each attempt."""
        return None

    def bytes_up(self, exchange: TunnelExchange, data: bytes) -> Awaitable[bytes | None] | bytes | None:
        """Give back what goes on to the peer instead of `data`, or None to let it pass. Where a piece ends means
        nothing."""
        return None

    def bytes_down(self, exchange: TunnelExchange, data: bytes) -> Awaitable[bytes | None] | bytes | None:
        """The same for what goes on to the client."""
        return None

    def logging(self, exchange: TunnelExchange) -> Awaitable[None] | None:
        """The connection is over, in whatever way. The last chance to set `exchange.tags`."""
        return None


TUNNEL_PHASES: Final = tuple(name for name in vars(TunnelFilter) if not name.startswith("_"))
_REVERSED: Final = ("bytes_down", "logging")


class TunnelChains:
    """For each phase the functions that some filter gave it, in their order; computed once."""

    __slots__ = ("bytes_down", "bytes_up", "connect", "logging")

    connect: Chain
    bytes_up: Chain
    bytes_down: Chain
    logging: Chain

    def __init__(self, filters: Iterable[TunnelFilter]) -> None:
        filters = list(filters)
        for phase in TUNNEL_PHASES:
            default = getattr(TunnelFilter, phase)
            calls = [getattr(each, phase) for each in filters]
            chain = [call for call in calls if getattr(call, "__func__", None) is not default]
            if phase in _REVERSED:
                chain.reverse()
            setattr(self, phase, tuple(chain))


async def transform(chain: Chain, exchange: TunnelExchange, data: bytes) -> bytes:
    """Pass a piece through a chain. Raises `ExchangeError`."""
    for call in chain:
        changed: bytes | None = await decide((call,), bytes, exchange, data)
        if changed is not None:
            data = changed
    return data
