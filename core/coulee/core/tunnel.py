"""A tunnel: bytes in on one connection, the same bytes out on another, and nothing else. A proxy at level 4.

    Tunnel(BySni({"a.example": Cluster("http://10.0.0.1:443"), "*.b.example": "10.0.0.2:443"}), sni=True)

It is a proxy in all but what becomes of a client: listeners with what they ask for, caps, clusters with their health
checks, retries, and what filters may await are the same. Read on in `tunnel_exchange`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from coulee.core.errors import ExchangeError
from coulee.core.listener import as_listener
from coulee.core.proxy import Function, Proxy
from coulee.core.seam import Report
from coulee.core.tls import HTTP1, HTTP2_OR_1
from coulee.core.tunnel_end import ClientEnd, End
from coulee.core.tunnel_exchange import TunnelAccess, TunnelExchange
from coulee.core.tunnel_filters import TUNNEL_PHASES, TunnelChains, TunnelFilter
from coulee.core.tunnel_routes import BySni, Destination, Together, as_balancer

if TYPE_CHECKING:
    from coulee.core.config import Config
    from coulee.core.connection import Connection
    from coulee.core.entrance import Count, Guest
    from coulee.core.listener import ListenAt, Listener


class Tunnel(Proxy):
    """Relays every client to `to`: an address, a peer, a cluster, or what `BySni` says.

    With `sni`, the name that a client asks for in TLS is read without decrypting anything, and the client is given
    `tls_handshake_timeout_s` to say it: this is not for protocols in which the server speaks first. Where a listener
    has TLS, the client's ends here, the name is known anyway, and `sni` changes nothing; the client is offered HTTP/1.1
    alone then, unless `alpn` says something else than by default. Raises `ValueError`.
    """

    def __init__(
        self,
        to: Destination | BySni,
        config: Config | None = None,
        *,
        filters: Iterable[TunnelFilter] = (),
        sni: bool | None = None,
        rng: Random | None = None,
        wall_clock_offset_s: float = 0.0,
        listen: Sequence[ListenAt] = (),
    ) -> None:
        super().__init__(
            Together(to) if isinstance(to, BySni) else as_balancer(to),
            config=config,
            rng=rng,
            wall_clock_offset_s=wall_clock_offset_s,
            listen=[_for_any_origin(as_listener(where)) for where in listen],
        )
        self.to = to
        self.routes = self.balancer.routes if isinstance(self.balancer, Together) else None
        self.sni = isinstance(to, BySni) if sni is None else sni
        self.tunnel_filters = list(filters)
        self.tunnel_chains = TunnelChains(self.tunnel_filters)
        self.exchanges: dict[TunnelExchange, None] = {}

    def on(self, phase: str) -> Callable[[Function], Function]:
        """Add a function as the filter of one phase: `@tunnel.on("connect")`. Raises `ValueError`."""
        if phase not in TUNNEL_PHASES:
            raise ValueError(f"there is no phase {phase!r}; there are {', '.join(TUNNEL_PHASES)}")

        def add(function: Function) -> Function:
            hook = TunnelFilter()
            setattr(hook, phase, function)
            self.tunnel_filters.append(hook)
            self.tunnel_chains = TunnelChains(self.tunnel_filters)
            return function

        return add

    def fresh(self, *, rng: Random, wall_clock_offset_s: float = 0.0, listen: Sequence[ListenAt] = ()) -> Tunnel:
        """See `seam.Machine`."""
        return Tunnel(
            self.to,
            self.config,
            filters=self.tunnel_filters,
            sni=self.sni,
            rng=rng,
            wall_clock_offset_s=wall_clock_offset_s,
            listen=[*self.listen_at, *listen],
        )

    # -- clients

    def welcome(self, guest: Guest, count: Count) -> None:
        """See `reception.Host`."""
        self.counters.requests += 1
        exchange = TunnelExchange(self, guest, count)
        self.exchanges[exchange] = None
        obstacle = count.obstacle
        if obstacle is None and self.draining:
            obstacle = ExchangeError("shutting_down", "nothing new begins")
        exchange.start(obstacle)

    def connection_closed(self, connection: Connection) -> None:
        if isinstance(connection, ClientEnd):
            self.reception.gone(connection.count)
        super().connection_closed(connection)

    def finished_tunnel(self, exchange: TunnelExchange, record: TunnelAccess) -> None:
        """The last word about an exchange."""
        del self.exchanges[exchange]
        counters = self.counters
        counters.bytes_in += record.bytes_in
        counters.bytes_out += record.bytes_out
        if record.reason:
            counters.reasons[record.reason] = counters.reasons.get(record.reason, 0) + 1
        self.operations.append(Report(record))

    # -- ending

    def drain(self, grace_s: float) -> None:
        super().drain(grace_s)
        if grace_s <= 0:
            self.end_now()

    def end_now(self) -> None:
        """The grace period is over. Nobody knows where bytes may end: what still runs is cut."""
        super().end_now()
        for exchange in list(self.exchanges):
            exchange.cancel(ExchangeError("shutting_down", "the grace period of the shutdown ended"))
        for connection in list(self.connections.values()):
            if isinstance(connection, End):
                connection.close(abort=True)


def _for_any_origin(listener: Listener) -> Listener:
    """What is agreed with a client, its origin has to speak, and nobody tells it so: HTTP/2 is for who asks for it."""
    if listener.tls is None or listener.tls.alpn != HTTP2_OR_1:
        return listener
    return replace(listener, tls=replace(listener.tls, alpn=HTTP1))
