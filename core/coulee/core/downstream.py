"""A client's connection: it waits for requests, starts an exchange for each in turn, and ends as RFC 9112 section 9
says.

    IDLE --request--> BUSY --answered--> IDLE
                        |   body unread --> DRAINING --its end--> IDLE
                        |   last one ----> LINGERING --FIN, or time--> closed
                        |   cut short --> LINGERING, where its framing shows that
                        '-- cut short ---> reset, where only the end of the connection would end it

An idle connection has no exchange and no timer but the one that ends it.
"""

from __future__ import annotations

from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING, Final, cast

from coulee.core.codec import Codec, ProtocolError
from coulee.core.connection import Connection, Stream
from coulee.core.errors import ExchangeError
from coulee.core.exchange import NO_REQUEST, Exchange
from coulee.core.parts import Data, Request, Trailers
from coulee.core.seam import Accepted, ErrorKind

if TYPE_CHECKING:
    from coulee.core.kernel import Task
    from coulee.core.proxy import Proxy


class State(Enum):
    """See the picture above."""

    IDLE = auto()
    BUSY = auto()
    DRAINING = auto()
    LINGERING = auto()


_IDLE: Final = State.IDLE  # an attribute of an enumeration is found more slowly than a name


class _Sink:
    """The codec of a lingering connection: it forgets what it is fed."""

    buffered = 0

    def feed(self, data: bytes) -> None:
        """Forget it."""

    def feed_eof(self) -> None:
        """It is heard by the connection."""


_SINK: Final = cast("Codec", _Sink())


class Downstream(Connection):
    """One client."""

    __slots__ = ("drained", "exchange", "half_closed", "head_begun", "proxy", "requests", "serving", "state")

    def __init__(self, proxy: Proxy, completion: Accepted) -> None:
        super().__init__(proxy, completion.conn, proxy.new_codec("server"), proxy.config)
        self.proxy = proxy
        self.peer = completion.peer
        self.local = completion.local
        self.state = State.IDLE
        self.exchange: Exchange | None = None
        self.requests = 0
        self.drained = 0  # bytes of an unwanted body read so far
        self.head_begun = False  # whether some, but not all, of a head is here
        self.half_closed = False
        self.serving = False  # whether `serve` is on the stack
        self.trusted = proxy.trusts(completion.peer)
        self.receive()
        self.limit_read(proxy.config.timeouts.keep_alive_idle_s)

    # -- what bytes mean

    def wanted_by_nobody(self) -> None:
        if self.state is State.IDLE:
            self.serve()
        elif self.state is State.DRAINING:
            self.drain_body()

    def ended_by_peer(self) -> None:
        self.half_closed = True
        if self.state is State.IDLE:
            self.serve()
        elif self.state is not State.BUSY:
            self.close()
        elif self.proxy.config.cancel_on_half_close:
            self.cancel(ExchangeError("client_gone", "the client closed its side while it was being answered"))

    # -- exchanges

    def serve(self) -> None:
        """Start the exchanges that have arrived, one after the other, until one has to wait."""
        if self.serving:
            return
        self.serving = True
        while self.state is _IDLE and not self.closing:
            try:
                part = self.pull()
            except ExchangeError as error:
                self.refuse(error)
                continue
            if part is None:
                self.wait_for_head()
                break
            assert isinstance(part, Request)
            self.begin(part)
        self.serving = False

    def wait_for_head(self) -> None:
        """Nothing, or not all, of the next request is here."""
        timeouts = self.proxy.config.timeouts
        if self.codec.idle:
            if self.half_closed or self.proxy.draining:
                self.linger()
            else:
                self.limit_read(timeouts.keep_alive_idle_s)
        elif not self.head_begun:
            self.head_begun = True
            self.limit_read(timeouts.head_timeout_s)

    def begin(self, request: Request) -> None:
        """A whole head is here."""
        proxy = self.proxy
        self.state = State.BUSY
        self.head_begun = False
        self.read_by = inf
        self.requests = number = self.requests + 1
        if number >= self.limits.requests_per_connection_max or proxy.draining:
            self.codec.close_after()
        stream = Stream(self, number, proxy.config.timeouts.body_idle_timeout_s)
        self.exchange = exchange = Exchange(proxy, stream, request)
        exchange.start(exchange.run(), self.done)

    def refuse(self, error: ExchangeError) -> None:
        """What arrived is not a request, or not in time: answer so, and let the phases of the end see it."""
        self.state = State.BUSY
        self.read_by = inf
        self.requests += 1
        self.head_begun = False
        self.codec.close_after()
        self.exchange = exchange = Exchange(self.proxy, Stream(self, self.requests, inf), NO_REQUEST)
        exchange.start(exchange.refuse(error), self.done)

    def done(self, task: Task) -> None:
        """An exchange has ended."""
        exchange = self.exchange
        assert exchange is not None
        self.stream = None
        self.exchange = None
        if task.error is not None:
            self.proxy.stray_error(task)
            exchange.abandoned(task.error)
        if self.closing:
            return
        if not exchange.answered:
            if exchange.cut_shows:
                self.linger()
            else:
                self.close(abort=True)
        elif not exchange.body_ended and self.codec.reusable:
            self.state = State.DRAINING
            self.drained = 0
            self.limit_read(self.proxy.config.timeouts.linger_s)
            self.drain_body()
        else:
            self.after_request()

    def drain_body(self) -> None:
        """Read and forget what is left of a request that was answered early, within bounds (RFC 9112 section 9.3)."""
        while self.drained <= self.limits.unread_drain_bytes_max:
            try:
                part = self.pull()
            except ExchangeError:
                break
            if part is None:
                return
            if isinstance(part, Data):
                self.drained += len(part.data)
            if isinstance(part, Trailers) or (isinstance(part, Data) and part.ended):
                self.after_request()
                return
        self.linger()

    def after_request(self) -> None:
        """A request was read and answered."""
        codec = self.codec
        if not codec.reusable:
            self.read_by = inf
            self.linger()
            return
        self.state = _IDLE
        if self.serving or codec.buffered or self.half_closed or self.proxy.draining:
            self.read_by = inf
            self.serve()
        else:  # so it nearly always is
            self.limit_read(self.proxy.config.timeouts.keep_alive_idle_s)

    # -- ending

    def linger(self) -> None:
        """Say that we send no more, and give the client a moment to read it: a close with unread bytes would destroy
        the answer on its way (RFC 9112 section 9.6)."""
        if (self.half_closed and not self.blocked) or self.proxy.ended:
            self.close()
            return
        self.state = State.LINGERING
        self.codec = _SINK
        self.send_eof()
        self.receive()
        self.limit_read(self.proxy.config.timeouts.linger_s)

    def drain(self) -> None:
        """The proxy is shutting down: end as soon as nothing is cut by it."""
        if self.state is State.BUSY:
            self.codec.close_after()
        elif self.state is State.IDLE and self.codec.idle:
            self.linger()

    def cancel(self, error: ExchangeError) -> None:
        """End the exchange that runs."""
        if self.exchange is not None:
            self.exchange.cancel(error)

    def gone(self, kind: ErrorKind | None, detail: str) -> None:
        self.cancel(ExchangeError("client_gone", detail))

    def timed_out(self, reading: bool) -> None:
        timeouts = self.proxy.config.timeouts
        if not reading:
            self.cancel(ExchangeError("send_timeout", f"nothing taken for {timeouts.send_stall_timeout_s:g} s"))
            self.close(abort=True)
        elif self.state is State.BUSY:
            assert self.stream is not None
            self.stream.give_up(
                ExchangeError("body_timeout", f"no byte of the body for {timeouts.body_idle_timeout_s:g} s")
            )
        elif self.state is State.DRAINING:
            self.linger()
        elif self.state is State.LINGERING and self.blocked:
            self.limit_read(timeouts.linger_s)  # our last bytes are still on their way; the write limit watches them
        elif self.head_begun:
            self.refuse(ExchangeError("header_timeout", f"no whole head within {timeouts.head_timeout_s:g} s"))
        else:
            self.close()

    def fault(self, error: ProtocolError) -> ExchangeError:
        return ExchangeError(error.reason, error.detail, error.status)
