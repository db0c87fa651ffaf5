"""A connection to an origin that speaks HTTP/2: it carries many exchanges at once.

Rules:

- It takes over an `Upstream` that was found to speak HTTP/2, by ALPN or because the peer is known to.
- How many streams it lends is the smaller of what we want and of what the origin allows; which number a stream has is
  known when its request is written, for numbers go up in the order of heads (RFC 9113 section 5.1.1).
- What the origin says that it has not looked at (REFUSED_STREAM, a stream above the last of a GOAWAY) may be asked
  again, whatever the method (section 8.7). After a GOAWAY nothing more is lent, and what runs goes on.
- An upgrade waits for the origin's SETTINGS to say that it may be asked for (RFC 8441 section 3). Meanwhile its stream
  has a place in the table like others, with a number below 0: so its time limits, and the connection's end, are found
  as ever.
- A connection that nobody will have again is closed at once, but where the last word was ours a moment ago: then the
  origin is left some time to read it, for what it still says of windows would be answered by a reset, which destroys
  what it has not read.
- An origin that owes us an answer, and has sent nothing for a while, is asked by a PING whether it is there; not often,
  for gRPC servers mind.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from coulee.core.errors import ExchangeError
from coulee.core.http2 import Http2Codec, Leaving, Malformed, Reset
from coulee.core.http2_connection import Http2Connection, Http2Stream
from coulee.core.http2_frames import Code, ConnectionFault, name_of
from coulee.core.parts import Data, Part, Request
from coulee.core.seam import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from coulee.core.pool import Desk, Pool
    from coulee.core.upstream import Upstream

STREAMS_MAX: Final = 2**30 - 1
"""In all the life of a connection: then there are no more numbers for them."""

_QUESTION: Final = b"are you?"
"""What a PING says; an origin gives it back."""


class OriginStream(Http2Stream):
    """One request to the origin, and its answer."""

    __slots__ = ("on_loss", "upgrade", "upstream")

    def __init__(self, connection: Http2Upstream) -> None:
        super().__init__(connection, 0, connection.timeouts.answer_timeout_s)
        self.upstream = connection
        self.on_loss: Callable[[ExchangeError], None] | None = None
        self.upgrade: Request | None = None  # one that waits for the origin's word

    def write(self, part: Part) -> None:
        """See `Stream`: a request gives it its number."""
        if type(part) is Request and self.error is None:
            connection = self.upstream
            if part.upgrade and not self._may_ask(part):
                return
            if connection.refuses:
                gone = "the connection would take no more requests when this one was to be written"
                self.error = ExchangeError("upstream_refused_stream", gone)
            else:
                self.number = connection.codec.next_stream
                connection.streams[self.number] = self
                connection.expect_a_sign()
        super().write(part)

    def _may_ask(self, request: Request) -> bool:
        """Whether an upgrade can be asked for now; it waits where that is not known. Raises `ExchangeError` where it
        cannot be at all."""
        connection = self.upstream
        takes = connection.codec.takes_upgrades
        if takes is None and not connection.refuses:
            self.upgrade = request
            connection.unsettled -= 1
            self.number = connection.unsettled
            connection.streams[self.number] = self
            return False
        if takes is False:
            raise ExchangeError("upgrade_unsupported", "it speaks HTTP/2, and does not offer extended CONNECT")
        return True

    def send_eof(self) -> None:
        """See `Stream`."""
        super().send_eof()
        self.upstream.last_word_at = self.upstream.machine.kernel.now

    def go_on(self) -> None:
        """The origin's SETTINGS are here."""
        request, self.upgrade = self.upgrade, None
        assert request is not None
        try:
            self.write(request)
        except ExchangeError as error:
            self.fail(error)

    def tell_of_loss(self, tell: Callable[[ExchangeError], None]) -> None:
        """See `Stream`."""
        self.on_loss = tell

    def overdue(self) -> None:
        self.give_up(ExchangeError("upstream_timeout", f"no answer within {self.patience_s:g} s"))


class Http2Upstream(Http2Connection[OriginStream]):
    """One connection to an origin, lent to several exchanges, or idle."""

    __slots__ = ("_asked", "_asked_at", "_heard", "departing", "desk", "going", "last_word_at", "lent", "placed",
                 "pool", "told_to_go", "unsettled", "until", "uses", "uses_max")  # fmt: skip

    resets_count = False  # an origin that answers early resets each request behind its answer (section 8.1)

    def __init__(self, before: Upstream) -> None:
        pool = before.pool
        super().__init__(pool.proxy, before.number, Http2Codec("client", pool.proxy.config), pool.proxy.config)
        pool.proxy.kernel.disarm(before)
        self.pool: Pool = pool
        self.desk: Desk = before.desk
        self.peer = before.peer
        self.local = before.local
        self.security = before.security
        self.codec.secure = before.security is not None
        self.sending = before.sending
        self.out, self.out_bytes = before.out, before.out_bytes
        if before.blocked:
            self.block()
        self.lent = 0  # streams that somebody has
        self.going = False  # nothing more is lent
        self.told_to_go = False  # nor is anything more begun of what was
        self.departing = False  # it is left to the origin to close it
        self.last_word_at = -inf  # when we last ended a stream whose origin might still be reading it
        self.unsettled = 0  # the last number below 0, of those that wait for the origin's SETTINGS
        self.placed = True  # it has a place in the count of its peer's connections
        self.uses = 0
        self.uses_max = min(before.uses_max, STREAMS_MAX)
        self.until = before.until
        self._heard = pool.proxy.kernel.now  # when the origin last sent anything
        self._asked = False  # a PING is not answered yet
        self._asked_at = -inf
        self.speak()

    # -- lending

    @property
    def room(self) -> int:
        """How many more streams it can lend now."""
        if self.going or self.closing or self.broken or self.is_worn:
            return 0
        return min(self.machine.config.http2.upstream_streams_max, self.codec.streams_max) - self.lent

    @property
    def refuses(self) -> bool:
        """Whether nothing can be begun on it any more, or nothing now: also what was lent before that was so."""
        dead = self.told_to_go or self.closing or self.broken
        return dead or len(self.streams) >= self.codec.streams_max

    @property
    def busy(self) -> bool:
        """Whether somebody has a stream of it that will go on being lent."""
        return self.lent > 0 and not self.is_worn

    @property
    def is_worn(self) -> bool:
        """See `Upstream`."""
        return self.uses >= self.uses_max or self.machine.kernel.now >= self.until

    @property
    def left_s(self) -> float:
        """See `Upstream`."""
        return self.until - self.machine.kernel.now

    def spend(self) -> None:
        """See `Upstream`: what runs goes on."""
        self.uses_max = 0

    def lend(self) -> OriginStream:
        """A stream for one exchange."""
        if not self.lent:
            self.read_by = inf  # it may have lain idle
        self.uses += 1
        self.lent += 1
        return OriginStream(self)

    def take_back(self, stream: OriginStream) -> None:
        """An exchange is done with a stream; what is not over of it is ended."""
        self.lent -= 1
        stream.on_loss = None
        if stream.number and not self.closing:
            codec = self.codec
            if self.streams.get(stream.number) is stream and not (
                codec.is_read(stream.number) and codec.is_written(stream.number)
            ):
                codec.reset(stream.number, Code.CANCEL)
            self.discard(stream)
            self.speak()
        if not self.streams:
            self._asked = False

    def depart(self) -> None:
        """Nobody has it, and nobody will."""
        linger_s = self.timeouts.linger_s
        has_read_all = self.machine.kernel.now >= self.last_word_at + linger_s
        if has_read_all or self.departing or self.broken or self.closing or self.pool.proxy.ended:
            self.close()
            return
        self.departing = self.broken = True
        self.send_eof()
        self.receive()
        self.limit_read(linger_s)

    # -- what happens to its streams

    def take_in(self, number: int, news: Part | Malformed) -> None:
        if isinstance(news, Data):
            self.codec.consumed(number, len(news.data))  # it was on its way when its stream was given up

    def was_reset(self, stream: OriginStream, reset: Reset) -> None:
        if reset.ours:
            error = ExchangeError("upstream_invalid", reset.detail)
        elif reset.code == Code.REFUSED_STREAM:
            error = ExchangeError("upstream_refused_stream", "the endpoint has not looked at the request")
        elif reset.code == Code.HTTP_1_1_REQUIRED:
            self.pool.require_http1(self)
            error = ExchangeError("upstream_refused_stream", "the endpoint wants HTTP/1.1 for this")
        else:
            error = ExchangeError("upstream_reset", f"the endpoint gave the request up ({reset.detail})")
        self.discard(stream)
        self._lose(stream, error)

    def _lose(self, stream: OriginStream, error: ExchangeError) -> None:
        """A stream is of no more use. What came of it before counts: its answer may be whole (section 8.1)."""
        stream.offer()
        stream.fail(error)
        if stream.on_loss is not None:
            stream.on_loss(error)

    def _lose_all(self, error: ExchangeError) -> None:
        for stream in list(self.streams.values()):
            self.discard(stream)
            self._lose(stream, error)

    def stalled(self, stream: OriginStream) -> None:
        waited = f"took nothing of the request for {self.timeouts.send_stall_timeout_s:g} s"
        self.codec.reset(stream.number, Code.CANCEL)
        self.discard(stream)
        self._lose(stream, ExchangeError("upstream_timeout", waited))
        self.speak()

    def finished(self, stream: OriginStream) -> None:
        raise AssertionError("a stream to an origin is somebody's, until it is taken back")

    # -- what happens to it

    def received(self, data: bytes) -> None:
        self._heard = self.machine.kernel.now
        self._asked = False  # any byte is a sign
        super().received(data)

    def leaving(self, notice: Leaving) -> None:
        self.going = self.told_to_go = True
        if notice.code == Code.HTTP_1_1_REQUIRED:
            self.pool.require_http1(self)
        error = ExchangeError(
            "upstream_refused_stream", f"the endpoint has not looked at the request ({notice.detail})"
        )
        for stream in list(self.streams.values()):
            if stream.number > notice.last_stream:
                self.codec.reset(stream.number, Code.CANCEL)
                self.discard(stream)
                self._lose(stream, error)

    def broke(self, fault: ConnectionFault) -> None:
        self.codec.leave(0, fault.code, fault.detail)
        self._give_up(ExchangeError("upstream_invalid", f"{name_of(fault.code)}: {fault.detail}"))

    def used_up(self, level: float, detail: str) -> None:
        if level >= 1:
            self.codec.leave(0, Code.ENHANCE_YOUR_CALM, detail)
            self._give_up(ExchangeError("upstream_invalid", detail))
        else:
            self.going = True

    def ended_by_peer(self) -> None:
        self._give_up(ExchangeError("upstream_reset", "the connection was closed"))

    def gone(self, kind: ErrorKind | None, detail: str) -> None:
        self._lose_all(ExchangeError("upstream_reset", detail or "the connection was closed"))
        self.pool.review(self)

    def _give_up(self, error: ExchangeError) -> None:
        """It is of no more use to anybody."""
        self.broken = True
        self._lose_all(error)
        self.speak()
        self.close()
        self.pool.review(self)

    def settle(self) -> None:
        if self.unsettled and self.codec.takes_upgrades is not None:
            self.unsettled = 0
            waiting = [stream for stream in self.streams.values() if stream.upgrade is not None]
            for stream in waiting:  # all of them, for those that are left count
                del self.streams[stream.number]
            for stream in waiting:
                stream.go_on()
        self.pool.review(self)

    def timed_out(self, reading: bool) -> None:
        settings = self.machine.config.http2
        if self.close_wanted or not reading:
            waited = f"took nothing for {self.timeouts.send_stall_timeout_s:g} s"
            self._lose_all(ExchangeError("upstream_timeout", waited))
            self.close(abort=True)
            self.pool.review(self)
        elif not self.lent:
            self.going = True  # it has lain idle for long enough
            self.pool.review(self)
        elif not self.streams:
            pass  # what is lent has asked for nothing yet, and will expect a sign when it has
        elif self._asked:
            silent = f"no answer to a PING within {settings.ping_timeout_s:g} s"
            self._give_up(ExchangeError("upstream_timeout", silent))
        else:
            now = self.machine.kernel.now
            ask_at = max(self._heard + settings.ping_after_s, self._asked_at + settings.ping_again_s)
            if now < ask_at:
                self.limit_read(ask_at - now)
            else:
                self._asked = True
                self._asked_at = now
                self.codec.ping(_QUESTION)
                self.speak()
                self.limit_read(settings.ping_timeout_s)

    def expect_a_sign(self) -> None:
        """It owes us an answer: look after a while whether it is there."""
        if self.read_by == inf:
            self._heard = self.machine.kernel.now
            self.limit_read(self.machine.config.http2.ping_after_s)
