"""What is no HTTP any more: bytes both ways, behind a 101 or a tunnel's 200.

Each direction ends by itself, at its half-close; a reset of one side, or a time limit, resets the other, and so does an
end of TLS without its farewell. Body filters see nothing of it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from coulee.core.errors import ExchangeError
from coulee.core.kernel import Alarm, Cancelled, nursery, shielded
from coulee.core.parts import Data, Response

if TYPE_CHECKING:
    from coulee.core.exchange import Exchange
    from coulee.core.stream import Stream


async def relay_bytes(exchange: Exchange, upstream: Stream, response: Response) -> None:
    """Send the head on; behind it bytes go both ways until both directions have ended. Raises `ExchangeError`."""
    downstream = exchange.downstream
    await downstream.wait_for_room()
    exchange._send_head(response)
    downstream.patience_s = upstream.patience_s = inf
    idle = Idle(exchange)
    kernel = exchange.proxy.kernel
    kernel.arm(idle, kernel.now + idle.limit_s)
    try:
        with nursery() as tasks:
            # Both are children, so that to step one does not lead through the frames of the exchange above.
            tasks.start(_pump_up, exchange, upstream, idle)
            down = tasks.start(_pump_down, exchange, upstream, idle)
            try:
                await tasks.join()
                await _let_out(exchange, upstream)
            except Cancelled:
                told_all = down.done and down.error is None and not downstream.blocked
                if told_all and _may_leave(exchange):
                    exchange.failure = None
                raise
    finally:
        kernel.disarm(idle)
    exchange.answered = exchange.upstream_ended = True
    downstream.end()


def _may_leave(exchange: Exchange) -> bool:
    """Whether a client that is gone, and had been told everything before, has left as one may. A server is the first to
    close a WebSocket, when both have said in it that they end (RFC 6455 section 7.1.1); and then browsers leave a TLS
    connection without its farewell, which would be a loss else."""
    error = exchange.failure
    if error is None or error.reason != "client_gone" or exchange.request.upgrade != "websocket":
        return False
    return exchange.downstream.connection.lost_by == "truncated"


async def _let_out(exchange: Exchange, upstream: Stream) -> None:
    """What waits for an origin is not lost when its stream is given back, though the client has heard all and may go.
    Raises `ExchangeError`."""
    limit_s = exchange.proxy.config.timeouts.close_grace_s
    try:
        with shielded(limit_s):
            await upstream.wait_until_out()
    except TimeoutError:
        raise ExchangeError("upstream_timeout", f"did not take the last bytes within {limit_s:g} s") from None


async def _pump_up(exchange: Exchange, upstream: Stream, idle: Idle) -> None:
    downstream = exchange.downstream
    kernel = exchange.proxy.kernel
    ended = False
    while not ended:
        part = await downstream.receive()
        assert isinstance(part, Data)
        if part.data:
            idle.deadline = kernel.now + idle.limit_s
            exchange.bytes_in += len(part.data)
            if upstream.blocked:
                await upstream.wait_for_room()
            upstream.pass_on(part.data)
        ended = part.ended
    upstream.send_eof()


async def _pump_down(exchange: Exchange, upstream: Stream, idle: Idle) -> None:
    downstream = exchange.downstream
    kernel = exchange.proxy.kernel
    ended = False
    while not ended:
        part = await upstream.receive()
        assert isinstance(part, Data)
        if part.data:
            idle.deadline = kernel.now + idle.limit_s
            exchange.bytes_out += len(part.data)
            if downstream.blocked:
                await downstream.wait_for_room()
            downstream.pass_on(part.data)
        ended = part.ended
    downstream.send_eof()
    upstream.tell_of_loss(exchange.cancel)  # nobody reads from it any more, and so nobody else would hear of its end
    await downstream.wait_until_out()


class Idle(Alarm):
    """Rings when nothing has come from either side for too long. Whatever comes puts it off, by setting `deadline`: its
    alarm is put right when it rings."""

    __slots__ = ("exchange", "limit_s")

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.exchange = exchange
        self.limit_s = exchange.proxy.config.timeouts.upgraded_idle_timeout_s

    @property
    def error(self) -> ExchangeError:
        """What it means."""
        return ExchangeError("idle_timeout", f"no byte in either direction for {self.limit_s:g} s")

    def ring(self, now: float) -> None:
        self.exchange.cancel(self.error)
