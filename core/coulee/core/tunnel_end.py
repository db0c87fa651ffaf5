"""One end of a tunnelled connection: to its client, or to the peer that it goes to."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from coulee.core.codec import ProtocolError
from coulee.core.errors import ExchangeError
from coulee.core.raw import RawCodec
from coulee.core.seam import ErrorKind
from coulee.core.sole_connection import SoleConnection
from coulee.core.stream import SoleStream

if TYPE_CHECKING:
    from coulee.core.entrance import Count, Guest
    from coulee.core.tunnel_exchange import TunnelExchange


class End(SoleConnection):
    """What happens to it is for its exchange, whoever reads at the moment, as long as it is one of its two. `loss` and
    `stall` are the words for its being gone, and for its doing nothing."""

    __slots__ = ("exchange", "loss", "stall")

    def __init__(self, exchange: TunnelExchange, number: int, loss: str, stall: str) -> None:
        tunnel = exchange.tunnel
        super().__init__(tunnel, number, RawCodec(), tunnel.config)
        self.exchange = exchange
        self.loss = loss
        self.stall = stall

    @property
    def line(self) -> SoleStream:
        """Its bytes, once they are those of the tunnel."""
        assert self.stream is not None
        return self.stream

    @property
    def server_name(self) -> str:
        return self.exchange.server_name

    def put_back(self, data: bytes) -> None:
        """This was read, and is to be read again. Nothing has come since."""
        if data:
            self.unread = True
            self.codec.feed(data)

    def wanted_by_nobody(self) -> None:
        """The codec keeps them for who will read."""

    def ended_by_peer(self) -> None:
        """The codec tells it to who will read."""

    def gone(self, kind: ErrorKind | None, detail: str) -> None:
        error = ExchangeError(self.loss, detail or "the connection was closed")
        if self.stream is not None:
            self.stream.fail(error)
        if kind is not None and self.exchange.has(self):
            self.exchange.cancel(error)

    def timed_out(self, reading: bool) -> None:
        if reading:  # only on the way through a proxy is there a limit for this
            self.line.give_up(ExchangeError(self.stall, f"nothing came for {self.line.patience_s:g} s"))
            return
        error = ExchangeError(self.stall, f"nothing taken for {self.timeouts.send_stall_timeout_s:g} s")
        if self.stream is not None:
            self.stream.fail(error)
        if self.exchange.has(self):
            self.exchange.cancel(error)
        self.close(abort=True)  # also where the exchange is over, and only the last bytes are left

    def fault(self, error: ProtocolError) -> ExchangeError:
        raise AssertionError("a codec that frames nothing finds no fault")


class ClientEnd(End):
    """The client's."""

    __slots__ = ("count",)

    def __init__(self, exchange: TunnelExchange, guest: Guest, count: Count) -> None:
        super().__init__(exchange, guest.number, "client_gone", "send_timeout")
        self.peer = guest.peer
        self.local = guest.local
        self.security = guest.security
        self.held = guest.held
        if guest.blocked:
            self.block()
        self.count = count
        SoleStream(self, 1, inf)
        self.put_back(guest.early)


class PeerEnd(End):
    """The peer's."""

    __slots__ = ()

    def __init__(self, exchange: TunnelExchange) -> None:
        super().__init__(exchange, exchange.tunnel.number(), "upstream_reset", "upstream_timeout")

    def opened(self) -> None:
        """It is connected, and what comes from now on is the peer's word."""
        SoleStream(self, 1, inf)
