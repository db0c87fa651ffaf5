"""A client's connection that speaks HTTP/2: each of its streams is an exchange, and they run beside one another.

    OPEN --we drain, it has lived, or misbehaves--> LEAVING --time for what is on its way--> LAST
      |                                                                                        |
      '------------ a rule of the connection broken -----> LINGERING <----the last stream------'

- LEAVING has told the client to open no more streams, and takes those that it had not heard that for; LAST tells which
  was the last that is served (RFC 9113 section 6.8). Nothing is cut by it.
- A stream counts until nothing of it goes on any more, here or at an origin: who takes back what it asked for gains no
  room by it.
- An answer that cannot be whole ends in RST_STREAM, and so does what is no HTTP any more, with the code that RFC 8441
  section 5 has for it. A request whose body is not wanted any more does too, behind its
  answer (section 8.1).
"""

from __future__ import annotations

from collections.abc import Generator
from enum import Enum, auto
from math import inf
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, cast

from coulee.core.errors import ExchangeError
from coulee.core.event_stream import sends_events
from coulee.core.exchange import NO_REQUEST, Exchange
from coulee.core.http2 import Http2Codec, Leaving, Malformed, Reset
from coulee.core.http2_connection import Http2Connection, Http2Stream, code_of
from coulee.core.http2_frames import ENDLESS, Code, ConnectionFault, name_of
from coulee.core.kernel import Alarm, _Parked
from coulee.core.pace import Pace
from coulee.core.parts import Data, Interim, Part, Request
from coulee.core.report import Event
from coulee.core.seam import ErrorKind
from coulee.core.upgrade import obstacle_to_upgrade

if TYPE_CHECKING:
    from coulee.core.entrance import Count, Guest
    from coulee.core.kernel import Task
    from coulee.core.proxy import Proxy
    from coulee.core.proxy_protocol import Header


NO_HEAD_REQUEST: Final = Request("HEAD", "-", version=(0, 0))
"""As `NO_REQUEST`, where so much could be understood."""

EARLY_REFUSED_MAX: Final = 1000
"""Streams over the limit that a client may have begun before it has heard of the limit."""


class State(Enum):
    """See the picture above."""

    OPEN = auto()
    LEAVING = auto()
    LAST = auto()
    LINGERING = auto()


class ClientStream(Http2Stream):
    """One request and its answer."""

    __slots__ = ("downstream", "exchange", "expecting", "head_bytes", "pace")

    def __init__(self, connection: Http2Downstream, number: int, request: Request) -> None:
        super().__init__(connection, number, inf)
        self.downstream = connection
        self.exchange: Exchange | None = None
        self.head_bytes = 0  # of its request
        self.pace: Pace | None = None
        self.expecting = False
        if not request.ended:
            self.pace = Pace(connection.machine.config, request)
            self.expecting = b"expect" in request.headers.marks  # there is nothing else that can be expected

    @coroutine
    def receive(self) -> Generator[_Parked, Any, Part]:
        """See `Stream`."""
        kernel = self.connection.machine.kernel
        pace = self.pace
        if pace is not None:
            self.patience_s = pace.wait_begins(kernel.now)
        part = yield from cast("Generator[_Parked, Any, Part]", super().receive())
        if pace is not None:
            self.expecting = False
            pace.wait_ends(kernel.now, part)
        return part

    def be_patient(self, idle_s: float) -> None:
        """See `Stream`."""
        if self.pace is not None:
            self.pace.be_patient(idle_s)

    def overdue(self) -> None:
        assert self.pace is not None, "of a request without a body nothing is awaited"
        verdict = self.pace.overdue(self.connection.machine.kernel.now)
        if isinstance(verdict, ExchangeError):
            self.give_up(verdict)
        else:
            self.limit(verdict)

    def write(self, part: Part) -> None:
        """See `Stream`."""
        if type(part) is Interim and part.status == 100:
            self.expecting = False
        super().write(part)

    @property
    def expects_continue(self) -> bool:
        return self.expecting

    def done(self, task: Task) -> None:
        """Its exchange has ended."""
        self.downstream.done(self, task)


class _Notice(Alarm):
    """Rings when a client has had the time to hear that it is to go."""

    __slots__ = ("downstream",)

    def __init__(self, downstream: Http2Downstream) -> None:
        super().__init__()
        self.downstream = downstream

    def ring(self, now: float) -> None:
        self.downstream.name_last()


class Http2Downstream(Http2Connection[ClientStream]):
    """One client."""

    __slots__ = ("count", "covered", "guest", "half_closed", "head_begun",
                 "head_bytes", "notice", "obstacle",
                 "proxy", "refused", "requests", "state", "until")  # fmt: skip

    def __init__(self, proxy: Proxy, guest: Guest, count: Count, obstacle: ExchangeError | None = None) -> None:
        super().__init__(proxy, guest.number, Http2Codec("server", proxy.config), proxy.config)
        self.proxy = proxy
        self.guest = guest
        self.count = count
        self.obstacle = obstacle  # why it is not served
        self.peer = guest.peer
        self.local = guest.local
        self.security = guest.security
        told = guest.header.tls if guest.header is not None else None
        if guest.security is not None or told is not None:
            self.codec.secure = True
        self.covered = ""
        self.trusted = self.codec.believed = proxy.trusts(guest.peer)
        self.until = proxy.kernel.now + proxy.config.timeouts.connection_life_s
        self.state = State.OPEN
        self.requests = 0
        self.head_begun = False
        self.head_bytes = 0  # of all requests under way
        self.half_closed = False
        self.refused = 0  # streams for which there was no room
        self.notice = _Notice(self)
        self.held = guest.held
        if guest.blocked:
            self.block()
        self.receive()
        self.speak()
        self.settle()
        if proxy.draining:
            self.drain()

    def start(self, early: bytes) -> None:
        """Serve what it has sent already."""
        if early:
            self.received(early)

    @property
    def server_name(self) -> str:
        return self.guest.server_name

    @property
    def header(self) -> Header | None:
        return self.guest.header

    @property
    def exchanges(self) -> list[Exchange]:
        """Those that run."""
        return [stream.exchange for stream in self.streams.values() if stream.exchange is not None]

    # -- requests

    def take_in(self, number: int, news: Part | Malformed) -> None:
        if isinstance(news, Data):
            self.codec.consumed(number, len(news.data))  # of a request that was not taken
        elif isinstance(news, Malformed):
            fault = news.error
            request = NO_HEAD_REQUEST if news.bodiless else NO_REQUEST
            self._take(number, request, ExchangeError(fault.reason, fault.detail, fault.status))
        elif isinstance(news, Request):
            self._take(number, news, self._obstacle_to(news))

    def _obstacle_to(self, request: Request) -> ExchangeError | None:
        """Why a request is not served, if it is not."""
        if self.obstacle is not None:
            return self.obstacle
        if self.security is not None and request.method != "CONNECT" and request.authority != self.covered:
            if not self.guest.covers(request.authority):
                return ExchangeError("misdirected", f"the certificate is not for {request.authority}")
            self.covered = request.authority
        return obstacle_to_upgrade(request, self.proxy.config.upgrades) if request.upgrade else None

    def _take(self, number: int, request: Request, obstacle: ExchangeError | None) -> None:
        """A stream has begun."""
        self.head_begun = False  # the next head has a time of its own
        self.read_by = inf
        limits = self.machine.config.http2
        head_bytes = len(request.headers.block)
        full = len(self.streams) >= limits.streams_max or self.head_bytes + head_bytes > limits.head_bytes_max
        if self.state is State.LAST or full:
            self.refused += 1
            if self.state is not State.LAST and (self.codec.settled or self.refused > EARLY_REFUSED_MAX):
                self.codec.resets_made += 1  # it was told how many there may be
            self.codec.reset(number, Code.REFUSED_STREAM)
            return
        stream = ClientStream(self, number, request)
        if obstacle is None and stream.pace is not None and stream.pace.too_large(request.length or 0):
            obstacle = stream.pace.too_large_error()
        self.streams[number] = stream
        self.requests += 1
        stream.head_bytes = head_bytes
        self.head_bytes += head_bytes
        stream.exchange = exchange = Exchange(self.proxy, stream, request)
        exchange.start(exchange.run() if obstacle is None else exchange.refuse(obstacle), stream.done)
        request.headers.forget()
        proxy = self.proxy
        worn = self.requests >= proxy.config.limits.requests_per_connection_max or proxy.kernel.now >= self.until
        if self.state is State.OPEN and (worn or self.obstacle is not None):
            self.leave()

    def done(self, stream: ClientStream, task: Task) -> None:
        """An exchange has ended."""
        exchange = stream.exchange
        assert exchange is not None
        stream.exchange = None
        if task.error is not None:
            self.proxy.stray_error(task)
            exchange.abandoned(task.error)
        if self.closing or self.broken or self.streams.get(stream.number) is not stream:
            self.discard(stream)
        elif not exchange.answered:
            self.codec.reset(stream.number, _code_of_end(exchange))
            self.discard(stream)
        elif self.codec.is_written(stream.number):
            self.finished(stream)
            return
        else:
            stream.over = True  # its last bytes are still waiting
            self.codec.consumed(stream.number, stream.inbox_bytes)
            stream.inbox_bytes = 0
            stream.inbox.clear()
            self.speak()
            return
        if not (self.closing or self.broken):
            self.speak()
            self.settle()

    def discard(self, stream: ClientStream) -> None:
        super().discard(stream)
        self.head_bytes -= stream.head_bytes
        stream.head_bytes = 0

    def finished(self, stream: ClientStream) -> None:
        if not self.codec.is_read(stream.number):
            self.codec.reset(stream.number, Code.NO_ERROR)  # nobody wants the rest of its request (section 8.1)
        self.discard(stream)
        if not (self.closing or self.broken):
            self.speak()
            self.settle()

    def was_reset(self, stream: ClientStream, reset: Reset) -> None:
        if reset.ours:
            error = ExchangeError("bad_request", reset.detail, 0)
        else:
            error = ExchangeError("client_gone", f"the client took its request back ({reset.detail})")
        self._end(stream, error)

    def _end(self, stream: ClientStream, error: ExchangeError) -> None:
        """Nobody waits for the answer any more. The stream counts until its exchange has ended."""
        stream.fail(error)
        if stream.exchange is None:
            self.discard(stream)
        else:
            stream.exchange.cancel(error)

    def stalled(self, stream: ClientStream) -> None:
        error = ExchangeError("send_timeout", f"nothing taken for {self.timeouts.send_stall_timeout_s:g} s")
        self.codec.reset(stream.number, Code.CANCEL)
        self.let_go(stream)
        self._end(stream, error)
        self.speak()
        self.settle()

    # -- ending

    def leave(self, code: int = Code.NO_ERROR, detail: str = "") -> None:
        """Have the client open no more streams, and end when the last one has."""
        if self.state is not State.OPEN or self.closing:
            return
        self.state = State.LEAVING
        self.codec.leave(ENDLESS, code, detail)
        self.speak()
        self.proxy.kernel.arm(self.notice, self.proxy.kernel.now + self.proxy.config.http2.drain_notice_s)

    def name_last(self) -> None:
        """It has had the time to hear it: what it opens from now on is not taken."""
        if self.state is not State.LEAVING or self.closing:
            return
        self.state = State.LAST
        self.codec.leave(self.codec.last_stream, Code.NO_ERROR)
        self.speak()
        self.settle()

    def leaving(self, notice: Leaving) -> None:
        if self.state is State.LAST:
            return
        if notice.code != Code.NO_ERROR:
            detail = f"the client gave the connection up: {notice.detail}"
            self.machine.report(Event("http2_goaway", detail, self.machine.wall_clock, {"peer": self.peer}))
        self.state = State.LEAVING  # it opens none anyway, and ends it
        self.name_last()

    def broke(self, fault: ConnectionFault) -> None:
        word = "http2_flood" if fault.code == Code.ENHANCE_YOUR_CALM else "http2_error"
        self._break_off(fault.code, ExchangeError(word, fault.detail))

    def used_up(self, level: float, detail: str) -> None:
        if level >= 1:
            self._break_off(Code.ENHANCE_YOUR_CALM, ExchangeError("http2_flood", detail))
        elif self.state is State.OPEN:
            self.leave(Code.ENHANCE_YOUR_CALM, detail)

    def _break_off(self, code: int, error: ExchangeError) -> None:
        """Nothing more is read from it, and nothing answered."""
        fields: dict[str, object] = {"peer": self.peer, "code": name_of(code), "requests": self.requests}
        self.machine.report(Event(error.reason, error.detail, self.machine.wall_clock, fields))
        self.codec.leave(self.codec.last_stream, code, error.detail)
        self.speak()
        self.broken = True
        for stream in list(self.streams.values()):
            self._end(stream, error)
        self.linger()

    def linger(self) -> None:
        """Say that we send no more, and give the client a moment to read what we said."""
        self.proxy.kernel.disarm(self.notice)
        if (self.half_closed and not self.blocked) or self.proxy.ended:
            self.close()
            return
        self.state = State.LINGERING
        self.broken = True
        self.send_eof()
        self.receive()
        self.limit_read(self.timeouts.linger_s)

    def settle(self) -> None:
        """What applies now: the end, where it has come; a time limit for a head that has begun, or for a client that
        asks nothing."""
        if self.state is State.LINGERING:
            return
        if not self.streams and (self.state is State.LAST or self.half_closed):
            self.linger()
            return
        if not self.half_closed and (self.codec.within_head or (self.codec.buffered and not self.streams)):
            if not self.head_begun:
                self.head_begun = True
                self.limit_read(self.timeouts.head_timeout_s)
        elif self.streams or self.head_begun:
            self.head_begun = False
            self.read_by = inf
        if not self.streams and self.read_by == inf:  # a PING is no request: it does not begin anew for one
            unwelcome = self.obstacle is not None
            self.limit_read(self.timeouts.head_timeout_s if unwelcome else self.timeouts.keep_alive_idle_s)

    def ended_by_peer(self) -> None:
        """It sends no more. What it has asked for in whole is still answered."""
        self.half_closed = True
        for stream in list(self.streams.values()):
            if stream.exchange is not None and not self.codec.is_read(stream.number):
                self._end(stream, ExchangeError("client_gone", "the client closed the connection within a request"))
            elif stream.exchange is not None and (
                sends_events(stream.exchange)
                or (self.proxy.config.cancel_on_half_close and not stream.exchange.switched)
            ):
                self._end(
                    stream, ExchangeError("client_gone", "the client closed its side while it was being answered")
                )
        self.settle()

    def drain(self) -> None:
        """The proxy is shutting down: end as soon as nothing is cut by it."""
        self.leave()

    def end_now(self, error: ExchangeError) -> None:
        """There is no more time."""
        exchanges = self.exchanges
        for exchange in exchanges:
            exchange.cancel(error)
        if not exchanges:
            self.close(abort=True)
        elif not self.closing and self.state is not State.LINGERING:
            self.state = State.LAST
            self.codec.leave(self.codec.last_stream, Code.NO_ERROR)
            self.speak()
            self.settle()

    def gone(self, kind: ErrorKind | None, detail: str) -> None:
        self.proxy.kernel.disarm(self.notice)
        for stream in list(self.streams.values()):
            if stream.exchange is not None and not self._needs_nothing(stream, stream.exchange):
                self._end(stream, ExchangeError("client_gone", detail))
        self.streams.clear()

    def _needs_nothing(self, stream: ClientStream, exchange: Exchange) -> bool:
        """Whether an upgraded stream has ended both ways: its client may go, and what it said still goes to the
        origin."""
        return exchange.switched and self.codec.is_read(stream.number) and self.codec.is_written(stream.number)

    def timed_out(self, reading: bool) -> None:
        if not reading:
            error = ExchangeError("send_timeout", f"nothing taken for {self.timeouts.send_stall_timeout_s:g} s")
            for exchange in self.exchanges:
                exchange.cancel(error)
            self.close(abort=True)
        elif self.state is State.LINGERING:
            if self.blocked:
                self.limit_read(self.timeouts.linger_s)  # our last bytes are on their way, and that is watched
            else:
                self.close()
        elif self.head_begun:
            detail = f"no whole head within {self.timeouts.head_timeout_s:g} s"
            self._break_off(Code.ENHANCE_YOUR_CALM, ExchangeError("header_timeout", detail, 0))
        else:
            self.leave()  # it has asked nothing for long
            self.name_last()


def _code_of_end(exchange: Exchange) -> int:
    """With which code the stream of an exchange is reset whose answer is not whole."""
    error = exchange.error
    if not exchange.switched:
        return code_of(error)
    if exchange.request.upgrade:
        return Code.CANCEL  # RFC 8441 section 5: what a reset of TCP becomes
    ours = error is not None and error.side != "upstream"
    return code_of(error) if ours else Code.CONNECT_ERROR  # RFC 9113 section 8.5: ... behind a plain CONNECT
