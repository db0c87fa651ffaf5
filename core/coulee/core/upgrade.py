"""Upgrades (RFC 9110 section 7.8): which requests may ask for one, and the life of an exchange behind its 101.

Rules:

- Whether a request asks is decided here, once: HTTP/1.1, a GET without a body, `upgrade` in Connection, and one
  protocol in Upgrade, which `Config.upgrades` allows. In any other request Upgrade is a hop-by-hop field like others:
  it is not passed on, and nothing comes of it. A server may always ignore it.
- Nothing of what a client sends behind such a request goes anywhere before the origin has agreed. Where it does not
  agree those bytes are no request either, since they cannot be told from a smuggled one: so a request that asks is the
  last of its connection, whatever is answered.
- Behind the 101 bytes go both ways as they come, and body filters do not see them. Each direction ends by itself, at
  its half-close; a reset of one side, or a time limit, resets the other.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from coulee.core.errors import ExchangeError
from coulee.core.http1_grammar import options_of
from coulee.core.kernel import Alarm, nursery
from coulee.core.parts import Data
from coulee.core.pool import Upstream

if TYPE_CHECKING:
    from coulee.core.connection import Stream
    from coulee.core.exchange import Exchange
    from coulee.core.parts import Request, Response


def note_upgrade(exchange: Exchange) -> None:
    """Set `upgrade` of the client's request, if it asks for what we pass on."""
    protocol = _asked_for(exchange.request, exchange.proxy.config.upgrades)
    if protocol:
        exchange.request.upgrade = protocol
        exchange.downstream.connection.codec.close_after()


def _asked_for(request: Request, allowed: tuple[str, ...]) -> str:
    if request.version != (1, 1) or request.method != "GET" or request.length != 0:
        return ""
    if b"upgrade" not in options_of(request.headers.marks):
        return ""
    wanted = request.headers.get("upgrade") or ""  # two of them are joined, and on no list
    return wanted if wanted.lower() in [protocol.lower() for protocol in allowed] else ""


async def relay_upgraded(exchange: Exchange, upstream: Stream, response: Response) -> None:
    """Send a 101 on, then bytes both ways until both directions have ended."""
    if response.status != 101 or response.upgrade.lower() != exchange.request.upgrade.lower():
        raise ExchangeError("filter_error", "a filter changed what a 101 switches to; to refuse, return another answer")
    downstream = exchange.downstream
    response.ended = False
    await downstream.wait_for_room()
    exchange._send_head(response)
    downstream.patience_s = upstream.patience_s = inf
    idle = _Idle(exchange)
    kernel = exchange.proxy.kernel
    kernel.arm(idle, kernel.now + idle.limit_s)
    try:
        with nursery() as tasks:
            # Both are children, so that to step one does not lead through the frames of the exchange above.
            tasks.start(_pump_up, exchange, upstream, idle)
            tasks.start(_pump_down, exchange, upstream, idle)
            await tasks.join()
    finally:
        kernel.disarm(idle)
    exchange.answered = exchange.upstream_ended = True
    downstream.connection.close()


async def _pump_up(exchange: Exchange, upstream: Stream, idle: _Idle) -> None:
    downstream = exchange.downstream
    kernel = exchange.proxy.kernel
    ended = False
    while not ended:
        part = await downstream.receive()
        assert isinstance(part, Data)
        if part.data:
            idle.deadline = kernel.now + idle.limit_s
            exchange.bytes_in += len(part.data)
            if upstream.connection.blocked:
                await upstream.wait_for_room()
            upstream.write(part)
        ended = part.ended
    upstream.connection.send_eof()


async def _pump_down(exchange: Exchange, upstream: Stream, idle: _Idle) -> None:
    downstream = exchange.downstream
    kernel = exchange.proxy.kernel
    ended = False
    while not ended:
        part = await upstream.receive()
        assert isinstance(part, Data)
        if part.data:
            idle.deadline = kernel.now + idle.limit_s
            exchange.bytes_out += len(part.data)
            if downstream.connection.blocked:
                await downstream.wait_for_room()
            downstream.write(part)
        ended = part.ended
    downstream.connection.send_eof()
    connection = upstream.connection
    assert isinstance(connection, Upstream)
    connection.on_loss = exchange.cancel  # nobody reads from it any more, and so nobody else would hear of its end


class _Idle(Alarm):
    """Rings when nothing has come from either side for too long. Whatever comes puts it off, by setting `deadline`: its
    alarm is put right when it rings."""

    __slots__ = ("exchange", "limit_s")

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.exchange = exchange
        self.limit_s = exchange.proxy.config.timeouts.upgraded_idle_timeout_s

    def ring(self, now: float) -> None:
        self.exchange.cancel(ExchangeError("idle_timeout", f"no byte in either direction for {self.limit_s:g} s"))
