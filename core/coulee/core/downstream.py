"""A client's connection: it waits for requests, starts an exchange for each in turn, and ends as RFC 9112 section 9
says.

    IDLE --request--> BUSY --answered--> IDLE
                        |   body unread --> DRAINING --its end--> IDLE
                        |   last one ----> LINGERING --FIN, or time--> closed
                        |   cut short --> LINGERING, where its framing shows that
                        |-- cut short ---> reset, where only the end of the connection would end it
                        '--upgraded------> closed, when both directions have ended

An idle connection has no exchange and no timer but the one that ends it. A drain leaves it a short time, in which a
request that is on its way still comes through; after that, and after a last answer to a request that was read whole,
nobody is waited for.
"""

from __future__ import annotations

from collections.abc import Generator
from enum import Enum, auto
from math import inf
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, cast

from coulee.core.codec import Http2Begins, ProtocolError
from coulee.core.connection import NEXT_TURN_S, Connection
from coulee.core.errors import ExchangeError
from coulee.core.event_stream import sends_events
from coulee.core.exchange import NO_REQUEST, Exchange
from coulee.core.kernel import _Parked
from coulee.core.pace import Pace
from coulee.core.parts import Data, Part, Request, Trailers
from coulee.core.raw import SINK
from coulee.core.seam import ErrorKind
from coulee.core.sole_connection import SoleConnection
from coulee.core.stream import SoleStream

if TYPE_CHECKING:
    from coulee.core.config import Config
    from coulee.core.entrance import Count, Guest
    from coulee.core.kernel import Task
    from coulee.core.proxy import Proxy
    from coulee.core.proxy_protocol import Header


class State(Enum):
    """See the picture above."""

    IDLE = auto()
    BUSY = auto()
    DRAINING = auto()
    LINGERING = auto()


_IDLE: Final = State.IDLE  # an attribute of an enumeration is found more slowly than a name
_BUSY: Final = State.BUSY


class Downstream(SoleConnection):
    """One client."""

    __slots__ = (
        "all_read",
        "count",
        "covered",
        "drained",
        "exchange",
        "guest",
        "half_closed",
        "head_begun",
        "proxy",
        "requests",
        "serving",
        "state",
        "until",
    )

    def __init__(self, proxy: Proxy, guest: Guest, count: Count) -> None:
        may_begin_http2 = guest.security is None and proxy.config.http2.cleartext
        super().__init__(proxy, guest.number, proxy.new_codec("server", may_begin_http2), proxy.config)
        self.proxy = proxy
        self.peer = guest.peer
        self.local = guest.local
        self.security = guest.security
        told = guest.header.tls if guest.header is not None else None
        if guest.security is not None or told is not None:  # with us, or with the balancer that we trust
            self.codec.secure = True
        self.held = guest.held
        if guest.blocked:
            self.block()
        self.guest = None if guest.tls is None and guest.header is None else guest  # what else is known of it
        self.covered = ""  # the last authority that its certificate was found to cover
        self.count = count
        self.until = proxy.kernel.now + proxy.config.timeouts.connection_life_s
        self.state = State.IDLE
        self.exchange: Exchange | None = None
        self.requests = 0
        self.drained = 0  # bytes of an unwanted body read so far
        self.head_begun = False  # whether some, but not all, of a head is here
        self.half_closed = False
        self.all_read = True  # no body is left of which the client may still send us some
        self.serving = False  # whether `serve` is on the stack
        self.trusted = proxy.trusts(guest.peer)
        self.receive()
        self.limit_read(self.timeouts.drain_idle_s if proxy.draining else self.timeouts.keep_alive_idle_s)

    def start(self, early: bytes) -> None:
        """Serve what it has sent already."""
        if early:
            self.received(early)

    @property
    def server_name(self) -> str:
        return "" if self.guest is None else self.guest.server_name

    @property
    def header(self) -> Header | None:
        return None if self.guest is None else self.guest.header

    @property
    def exchanges(self) -> list[Exchange]:
        """The one that runs, if one does."""
        return [] if self.exchange is None else [self.exchange]

    # -- what bytes mean

    def received(self, data: bytes) -> None:
        if self.state is not _IDLE or not data:
            super().received(data)
            return
        self.codec.feed(data)
        self.serve()
        if self.codec.buffered > self.limits.buffer_high_bytes:
            self.hold()

    def wanted_by_nobody(self) -> None:
        if self.state is State.DRAINING:
            self.drain_body()

    def ended_by_peer(self) -> None:
        self.half_closed = True
        if self.state is State.IDLE:
            self.serve()
        elif self.state is not State.BUSY:
            self.close()
        elif (
            (exchange := self.exchange) is not None
            and not exchange.switched
            and (self.proxy.config.cancel_on_half_close or sends_events(exchange))
        ):
            self.cancel(ExchangeError("client_gone", "the client closed its side while it was being answered"))

    # -- exchanges

    def serve(self) -> None:
        """Start the exchanges that have arrived, one after the other, until one has to wait.

        Nobody knows before the end of the turn what the transport takes: when the mark is reached, the rest has to wait
        for the next turn. Else who pipelines, and reads nothing, would have a thousand answers made at once.
        """
        if self.serving:
            return
        self.serving = True
        while self.state is _IDLE and not self.closing:
            full = self.number in self.proxy.sends and self.sending >= self.limits.buffer_high_bytes
            if full and not self.codec.idle:
                self.limit_read(NEXT_TURN_S)
                break
            try:
                pulled = self.codec.next_part()
            except Http2Begins as begins:
                self.codec = SINK
                self.proxy.speak_http2(self, begins.data)
                return
            except ProtocolError as error:
                self.refuse(self.fault(error))
                continue
            if self.held:
                self.read_on()
            if not isinstance(pulled, tuple):
                self.unread = False
                self.wait_for_head()
                break
            self.unread = True  # a body may be behind it
            request = pulled[1]
            assert isinstance(request, Request)
            self.begin(request)
        self.serving = False

    def wait_for_head(self) -> None:
        """Nothing, or not all, of the next request is here."""
        timeouts = self.timeouts
        if self.codec.idle:
            self.head_begun = False  # it was an empty line, which is no head
            if self.half_closed:
                self.linger()
            elif self.proxy.draining:
                self.hurry()
            else:
                self.limit_read(timeouts.keep_alive_idle_s)
        elif not self.head_begun:
            self.head_begun = True
            self.limit_read(timeouts.head_timeout_s)

    def begin(self, request: Request) -> None:
        """A whole head is here."""
        proxy = self.proxy
        if self.codec.secure:
            request.scheme = "https"
        if self.security is not None:
            ours = request.method != "CONNECT"  # which always names another host
            if ours and request.authority != self.covered:
                assert self.guest is not None
                if not self.guest.covers(request.authority):
                    self.refuse(
                        ExchangeError("misdirected", f"the certificate is not for {request.authority}"), request
                    )
                    return
                self.covered = request.authority
        number = self.requests + 1
        if request.ended and not request.data:
            stream = SoleStream(self, number, inf)
        else:
            stream = RequestBody(self, number, proxy.config, request)
            if stream.pace.too_large(request.length or 0):
                self.refuse(stream.pace.too_large_error(), request)
                return
        self.state = _BUSY
        self.head_begun = False
        self.read_by = inf
        self.requests = number
        now = proxy.kernel.now
        if number >= self.limits.requests_per_connection_max or now >= self.until or proxy.draining:
            self.codec.close_after()
        self.exchange = exchange = Exchange(proxy, stream, request)
        exchange.start(exchange.run(), self.done)

    def refuse(self, error: ExchangeError, request: Request = NO_REQUEST) -> None:
        """What arrived is not a request, or not in time, or not to be served: answer so, and let the phases of the end
        see it."""
        self.state = State.BUSY
        self.read_by = inf
        self.requests += 1
        self.head_begun = False
        self.codec.close_after()
        self.exchange = exchange = Exchange(self.proxy, SoleStream(self, self.requests, inf), request)
        exchange.start(exchange.refuse(error), self.done)

    def done(self, task: Task) -> None:
        """An exchange has ended."""
        exchange = self.exchange
        assert exchange is not None
        self.stream = None
        self.exchange = None
        self.all_read = exchange.body_ended and exchange.request is not NO_REQUEST
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
            self.limit_read(self.timeouts.linger_s)
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
            self.read_by = by = self.machine.kernel.now + self.timeouts.keep_alive_idle_s
            if by < self.armed:
                self.machine.kernel.arm(self, by)

    # -- ending

    def linger(self) -> None:
        """Say that we send no more, and give the client a moment to read it: a close with unread bytes would destroy
        the answer on its way (RFC 9112 section 9.6)."""
        if (self.half_closed and not self.blocked) or self.proxy.ended:
            self.close()
            return
        self.state = State.LINGERING
        self.codec = SINK
        self.send_eof()
        self.receive()
        self.limit_read(self.timeouts.linger_s)
        if self.proxy.draining and self.all_read:
            self.hurry()

    def drain(self) -> None:
        """The proxy is shutting down: end as soon as nothing is cut by it."""
        if self.state is State.BUSY:
            if self.exchange is not None and not self.exchange.head_sent:  # else who was not told may send another
                self.codec.close_after()
        elif (self.state is State.IDLE and self.codec.idle) or (self.state is State.LINGERING and self.all_read):
            self.hurry()

    def end_now(self, error: ExchangeError) -> None:
        """There is no more time."""
        if self.exchange is None:
            self.close(abort=True)
        else:
            self.cancel(error)

    def hurry(self) -> None:
        """Wait for this client no longer than a drain does."""
        self.limit_read(min(self.timeouts.drain_idle_s, self.read_by - self.machine.kernel.now))

    def cancel(self, error: ExchangeError) -> None:
        """End the exchange that runs."""
        if self.exchange is not None:
            self.exchange.cancel(error)

    def gone(self, kind: ErrorKind | None, detail: str) -> None:
        self.cancel(ExchangeError("client_gone", detail))

    def timed_out(self, reading: bool) -> None:
        timeouts = self.timeouts
        if not reading:
            self.cancel(ExchangeError("send_timeout", f"nothing taken for {timeouts.send_stall_timeout_s:g} s"))
            self.close(abort=True)
        elif self.state is State.BUSY:
            assert isinstance(self.stream, RequestBody), "nothing else is awaited of a client that is served"
            self.stream.overdue()
        elif self.state is State.DRAINING:
            self.linger()
        elif self.state is State.LINGERING and self.blocked:
            self.limit_read(timeouts.linger_s)  # our last bytes are still on their way; the write limit watches them
        elif self.head_begun:
            self.refuse(ExchangeError("header_timeout", f"no whole head within {timeouts.head_timeout_s:g} s"))
        elif self.state is State.IDLE and not self.codec.idle:
            self.serve()  # this turn's share of what is pipelined
        else:
            self.close()

    def fault(self, error: ProtocolError) -> ExchangeError:
        return ExchangeError(error.reason, error.detail, error.status)


class RequestBody(SoleStream):
    """The client's side of an exchange whose request has a body."""

    __slots__ = ("pace",)

    def __init__(self, connection: SoleConnection, number: int, config: Config, request: Request) -> None:
        super().__init__(connection, number, inf)
        self.pace = Pace(config, request)

    @coroutine
    def receive(self) -> Generator[_Parked, Any, Part]:
        """See `Stream`."""
        kernel = self.connection.machine.kernel
        self.patience_s = self.pace.wait_begins(kernel.now)
        part = yield from cast("Generator[_Parked, Any, Part]", super().receive())
        self.pace.wait_ends(kernel.now, part)
        return part

    def be_patient(self, idle_s: float) -> None:
        """See `Stream`."""
        self.pace.be_patient(idle_s)

    def overdue(self) -> None:
        """The present wait has been long, or all of them together."""
        verdict = self.pace.overdue(self.connection.machine.kernel.now)
        if isinstance(verdict, ExchangeError):
            self.give_up(verdict)
        else:
            self.limit(verdict)


class Unwelcome(Downstream):
    """A client that is not served, because there is no room for it, or because it came by the wrong door: the answer to
    its first request says so. It has the time of a head for it."""

    __slots__ = ("obstacle",)

    def __init__(self, proxy: Proxy, guest: Guest, count: Count, obstacle: ExchangeError) -> None:
        super().__init__(proxy, guest, count)
        self.obstacle = obstacle
        if not proxy.draining:
            self.limit_read(proxy.config.timeouts.head_timeout_s)

    def wait_for_head(self) -> None:
        if self.half_closed or self.proxy.draining:
            super().wait_for_head()
        else:
            self.head_begun = not self.codec.idle  # the time for it runs since the beginning

    def begin(self, request: Request) -> None:
        self.refuse(self.obstacle, request)


class TurnedAway(Connection):
    """A client that is closed at once, up to its last word."""

    __slots__ = ()

    def __init__(self, proxy: Proxy, number: int) -> None:
        super().__init__(proxy, number, proxy.config)

    def gone(self, kind: ErrorKind | None, detail: str) -> None:
        """It was asked to."""
