"""A WebSocket whose messages filters see: two sides, each with a codec of its own, and what goes from one to the other.

    client --bytes--> codec --messages--> filters --messages--> codec --bytes--> origin, and back

Rules:

- One task a direction. It reads no further while a filter is awaited, or the other side does not take what it gets.
- A close frame is passed on, and so is its answer: each side ends when it has said and heard one, or in time. The first
  of them goes through `websocket_close`, as does an end without one (1006), a broken rule, and a drain (1001).
- Who breaks a rule is told which, and the other side that this one has gone: an origin hears 1001, a client 1011, for
  browsers know no better code for a bad gateway.
- A side that closes its connection without a close frame has that passed on as it is: a half-close as one, a reset as
  one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from math import inf
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, cast

from coulee.core.codec import ProtocolError
from coulee.core.connection import NEXT_TURN_S
from coulee.core.errors import ExchangeError
from coulee.core.filters import Chain, FilterError, outcome_of
from coulee.core.http2_budget import Budget
from coulee.core.kernel import PARKED, Alarm, Cancelled, Nursery, Task, _Parked, nursery, shielded, sleep
from coulee.core.parts import Data, Request, Response
from coulee.core.relay import Idle
from coulee.core.websocket import NO_CLOSE, NO_CODE, Closing, Message, Reply, Sender
from coulee.core.websocket_codec import TOO_LARGE, Fault, Ping, Pong, WebSocketCodec
from coulee.core.websocket_deflate import Deflate, agree_downstream, agree_upstream, offered

if TYPE_CHECKING:
    from collections.abc import Generator

    from coulee.core.exchange import Exchange
    from coulee.core.stream import Stream

_EXTENSIONS: Final = "Sec-WebSocket-Extensions"

GOING_AWAY: Final = 1001
POLICY: Final = 1008
INTERNAL: Final = 1011


class Side:
    """One of the two: what it sends is read here, and what goes to it is written."""

    __slots__ = ("at", "burst", "bytes", "chain", "codec", "controls", "heard", "limit", "messages", "name", "said",
                 "second", "sent", "shut", "stream", "waited_for")  # fmt: skip

    def __init__(self, name: Sender, stream: Stream, deflate: Deflate | None, exchange: Exchange) -> None:
        proxy = exchange.proxy
        settings = proxy.config.websocket
        chain = proxy.chains.websocket_message
        down = name == "downstream"
        self.name: Sender = name
        self.stream = stream
        self.codec = WebSocketCodec("server" if down else "client", name, settings, deflate, proxy.rng)
        self.chain = chain if down else chain[::-1]  # what its messages go through
        self.controls = _budget(settings.controls_at_once_max, settings.controls_per_s)
        self.messages = _budget(settings.messages_at_once_max, settings.messages_per_s if down else 0)
        self.bytes = _budget(settings.bytes_at_once_max, settings.bytes_per_s if down else 0)
        self.heard: Closing | None = None  # its close frame
        self.said = False  # whether it was sent one
        self.shut = False  # whether it will be sent nothing more
        # room
        self.limit = stream.connection.limits.buffer_high_bytes
        self.sent = 0
        self.at = -1.0  # when it was last written to
        self.burst = 0  # bytes since then, of which nobody knows yet whether they are taken
        self.waited_for = False
        self.second: Task | None = None

    @property
    def ending(self) -> bool:
        """Whether a close frame went one way or the other, so that it may be gone at any time."""
        return self.said or self.heard is not None

    def write(self, data: bytes) -> None:
        """Send a frame. Raises `ExchangeError` where it is lost."""
        now = self.stream.connection.machine.kernel.now
        if now != self.at:
            self.at = now
            self.burst = 0
        size = len(data)
        self.burst += size
        self.sent += size
        try:
            self.stream.pass_on(data)
        except ExchangeError:
            if not self.ending:
                raise

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, once; nothing goes behind it."""
        if not (self.said or self.shut or code == NO_CLOSE):
            self.said = True
            self.write(self.codec.write_close(code, reason))

    def shut_down(self) -> None:
        """Say that nothing more is sent."""
        if not self.shut:
            self.shut = True
            with suppress(ExchangeError):
                self.stream.send_eof()

    @property
    def full(self) -> bool:
        """Whether it may not be able to take more."""
        return self.stream.blocked or self._much

    @property
    def _much(self) -> bool:
        """Whether so much was written in this turn that the transport should have a say."""
        return self.burst > self.limit and self.at == self.stream.connection.machine.kernel.now

    async def room(self) -> None:
        """Wait until it can. Both directions may: one because it writes, the other because it answers. Raises
        `ExchangeError` where it is lost."""
        if self._much and not self.stream.blocked:
            await sleep(NEXT_TURN_S)  # then it is known whether the transport takes it
        while self.waited_for:
            await self._wait_behind()
        self.waited_for = True
        try:
            await self.stream.wait_for_room()
        except ExchangeError:
            if not self.ending:
                raise
        finally:
            self.burst = 0
            self.waited_for = False
            if self.second is not None:
                self.second.kernel.wake(self.second, None)
                self.second = None

    @coroutine
    def _wait_behind(self) -> Generator[_Parked, Any, None]:
        assert self.second is None, "there are but two directions"
        self.second = self.stream.connection.machine.kernel.running
        try:
            yield PARKED
        finally:
            self.second = None


def _budget(most: int, per_s: float) -> Budget | None:
    return Budget(most, per_s) if per_s else None


def offer(exchange: Exchange, request: Request) -> None:
    """Make a request for a WebSocket one of ours: what it offers to the origin is what we can do, whatever the client
    can."""
    ours = offered(exchange.proxy.config.websocket)
    if ours:
        request.headers.set(_EXTENSIONS, ours)
    else:
        request.headers.remove(_EXTENSIONS)


def agree(exchange: Exchange, upstream: Stream, response: Response) -> WebSocketRelay:
    """Make an origin's 101 one of ours. Raises `ExchangeError` where it agrees to what was not offered."""
    settings = exchange.proxy.config.websocket
    try:
        for_origin = agree_upstream(settings, response.headers.get(_EXTENSIONS))
    except ProtocolError as error:
        raise ExchangeError("upstream_invalid", error.detail) from error
    for_client, ours = agree_downstream(settings, exchange.request.headers.get(_EXTENSIONS))
    if ours:
        response.headers.set(_EXTENSIONS, ours)
    else:
        response.headers.remove(_EXTENSIONS)
    return WebSocketRelay(exchange, upstream, for_client, for_origin)


class WebSocketRelay(Alarm):
    """What goes on behind a 101. It rings where it has to end: at a drain, and when a close frame was not answered in
    time."""

    __slots__ = ("closing", "downstream", "error", "exchange", "idle", "late", "tasks", "upstream")

    def __init__(
        self, exchange: Exchange, upstream: Stream, for_client: Deflate | None, for_origin: Deflate | None
    ) -> None:
        super().__init__()
        self.exchange = exchange
        self.downstream = Side("downstream", exchange.downstream, for_client, exchange)
        self.upstream = Side("upstream", upstream, for_origin, exchange)
        self.idle = _Idle(exchange)
        self.closing: Closing | None = None  # the first word about the end
        self.late = False  # the time for the second has passed
        self.error: ExchangeError | None = None  # why it ends, where that is no close frame of theirs
        self.tasks: Nursery | None = None

    async def run(self, response: Response) -> None:
        """Send the 101 on, then messages both ways until both sides have ended. Raises `ExchangeError`."""
        exchange = self.exchange
        kernel = exchange.proxy.kernel
        self.idle.relay = self
        await exchange.downstream.wait_for_room()
        exchange._send_head(response)
        self.downstream.stream.patience_s = self.upstream.stream.patience_s = inf
        kernel.arm(self.idle, kernel.now + self.idle.limit_s)
        try:
            with nursery() as tasks:
                self.tasks = tasks
                tasks.start(self._pump, self.downstream, self.upstream)
                tasks.start(self._pump, self.upstream, self.downstream)
                if exchange.proxy.draining:
                    self.drain()
                await tasks.join()
            await self._let_out()
        except ExchangeError as error:
            await self._lost(error)
            raise
        except Cancelled:
            await self._lost(exchange.failure)
            if self.upstream.said:
                await self._let_out()
            if self.downstream.said and (self.downstream.heard is not None or self.downstream.shut):
                exchange.failure = self.error  # who has said all may go at once
            raise
        finally:
            kernel.disarm(self.idle)
            kernel.disarm(self)
            exchange.bytes_out += self.downstream.sent
            if self.upstream.said:
                exchange.upstream_ended = True  # what it was told is not to be destroyed by a reset
            if self.closing is not None:
                exchange.tags["websocket_close"] = self.closing.code
        exchange.error = self.error
        exchange.answered = exchange.upstream_ended = True
        exchange.downstream.end()

    # -- from one side to the other

    async def _pump(self, source: Side, target: Side) -> None:
        """Pass on what one side sends, until it sends no more. Raises `ExchangeError` where a side is lost."""
        codec = source.codec
        ended = False
        while True:
            try:
                news = codec.next_news()
                if isinstance(news, Message):
                    await self._message_heard(source, target, news)
                elif news is None:
                    if ended:
                        break
                    ended = await self._read(source)
                elif isinstance(news, Closing):
                    await self._close_heard(source, target, news)
                else:
                    await self._control_heard(source, target, news)
            except Fault as fault:
                await self._broken(source, target, fault)
        if not source.ending:
            if self.closing is None:
                await self._begin_to_end(Closing(NO_CLOSE, "", source.name))
            target.shut_down()
        elif target.heard is not None:
            target.close(target.heard.code, target.heard.reason)  # nobody else will answer it
            self._finish()

    async def _read(self, source: Side) -> bool:
        """More bytes, for the codec. True where nothing follows. Raises `ExchangeError`."""
        try:
            part = await source.stream.receive()
        except ExchangeError:
            if source.ending:
                return True
            raise
        assert isinstance(part, Data)
        exchange = self.exchange
        self.idle.deadline = exchange.proxy.kernel.now + self.idle.limit_s
        if source is self.downstream:
            exchange.bytes_in += len(part.data)
        source.codec.feed(part.data)
        return part.ended

    async def _message_heard(self, source: Side, target: Side, message: Message) -> None:
        """Through the filters, and on. Raises `Fault` for one too many."""
        proxy = self.exchange.proxy
        now = proxy.kernel.now
        if source.messages is not None and source.messages.spend(1, now) > 1:
            raise Fault(POLICY, "too many messages (messages_per_s)")
        if source.bytes is not None and source.bytes.spend(message.size, now) > 1:
            raise Fault(POLICY, "too many bytes (bytes_per_s)")
        if source is self.downstream:
            proxy.counters.messages_in += 1
        else:
            proxy.counters.messages_out += 1
        try:
            await self._filter(source.chain, None, message, source, target)
        except ExchangeError as error:
            if error is source.stream.error or error is target.stream.error:
                raise  # it is lost
            await self.fail(error, POLICY if error.side == "downstream" else INTERNAL)

    async def _filter(
        self, chain: Chain, by: Callable[..., Any] | None, message: Message, source: Side, target: Side
    ) -> None:
        """What the filters of a chain make of a message, which is what an earlier one, `by`, has made."""
        for index, call in enumerate(chain):
            outcome = await outcome_of(call, self.exchange, message)
            by = call
            if outcome is None:
                continue
            many = cast("list[object]", outcome if isinstance(outcome, list) else [outcome])
            for each in many:
                if isinstance(each, str | bytes):
                    await self._filter(chain[index + 1 :], call, Message(each, message.sender), source, target)
                elif isinstance(each, Reply):
                    await self._deliver(source, each.data, call)
                elif isinstance(each, Closing):
                    await self._close_both(_checked(each, call))
                else:
                    raise FilterError(call, f"returned {type(each).__name__}, which this phase has no use for")
            return
        await self._deliver(target, message.data, by)

    async def _deliver(self, side: Side, data: str | bytes, by: Callable[..., Any] | None) -> None:
        """Send a message, unless there was a close frame before it."""
        if side.full:
            await side.room()
        if side.said or side.shut:
            if self.late:
                self._cut_off(side)
            return
        try:
            frame = side.codec.write(data)
        except (TypeError, UnicodeEncodeError) as error:
            assert by is not None, "what came can be sent"
            raise FilterError(by, f"made a message that cannot be sent: {error}") from error
        side.write(frame)

    async def _control_heard(self, source: Side, target: Side, control: Ping | Pong) -> None:
        """Pass a ping or a pong on, or answer it. Raises `Fault` for one too many."""
        kernel = self.exchange.proxy.kernel
        if source.controls is not None and source.controls.spend(1, kernel.now) > 1:
            raise Fault(POLICY, "too many pings and pongs (controls_per_s)")
        if self.exchange.proxy.config.websocket.pings == "answer":
            if isinstance(control, Ping):
                await self._control(source, control.payload, source.codec.write_pong)
        elif isinstance(control, Ping):
            await self._control(target, control.payload, target.codec.write_ping)
        else:
            await self._control(target, control.payload, target.codec.write_pong)

    async def _control(self, side: Side, payload: bytes, written: Callable[[bytes], bytes]) -> None:
        if side.full:
            await side.room()
        if not (side.said or side.shut):
            side.write(written(payload))

    # -- the end

    async def _close_heard(self, source: Side, target: Side, closing: Closing) -> None:
        """A close frame: the first word, or the answer to one."""
        source.heard = closing
        if self.closing is None:
            closing = await self._begin_to_end(closing)
        target.close(closing.code, closing.reason)
        self._finish()

    async def _broken(self, source: Side, target: Side, fault: Fault) -> None:
        """One side has broken a rule: nothing more is read of it but its end."""
        source.codec.stop()
        ours = source is self.downstream
        word = _WORDS.get(fault.code, "websocket_error") if ours else "upstream_invalid"
        self._note(ExchangeError(word, fault.detail))
        source.close(fault.code, fault.detail)
        source.shut_down()  # no answer is awaited of it (section 7.1.7)
        closing = Closing(fault.code, fault.detail)
        told = closing if self.closing is not None else await self._begin_to_end(closing)
        if told is closing:
            target.close(GOING_AWAY if ours else INTERNAL, "")
        else:
            target.close(told.code, told.reason)

    def _finish(self) -> None:
        """The closing handshake with the client may be over: then it is for a server to close (RFC 6455 section
        7.1.1). The origin does so by itself."""
        if self.downstream.said and self.downstream.heard is not None:
            self.downstream.shut_down()

    async def _close_both(self, closing: Closing) -> None:
        """We end it."""
        if self.closing is None:
            closing = await self._begin_to_end(closing)
        self.downstream.close(closing.code, closing.reason)
        self.upstream.close(closing.code, closing.reason)

    async def fail(self, error: ExchangeError, code: int) -> None:
        """We have to end it; `error` says why."""
        self._note(error)
        await self._close_both(Closing(code))

    async def _begin_to_end(self, closing: Closing) -> Closing:
        """The first word about the end, through the filters: what goes on."""
        self.closing = closing
        exchange = self.exchange
        kernel = exchange.proxy.kernel
        kernel.arm(self, kernel.now + exchange.proxy.config.websocket.close_timeout_s)
        for call in exchange.proxy.chains.websocket_close:
            try:
                outcome = await outcome_of(call, exchange, closing)
                if outcome is not None:
                    closing = _checked(outcome, call)
            except ExchangeError as error:
                self._note(error)
        return closing

    async def _lost(self, error: ExchangeError | None) -> None:
        """A side is gone, or the exchange has to end: `websocket_close` hears of it where it has not."""
        if self.closing is None:
            grace_s = self.exchange.proxy.config.timeouts.logging_grace_s
            with suppress(TimeoutError, Cancelled), shielded(grace_s):
                await self._begin_to_end(Closing(NO_CLOSE, "", error.side if error is not None else "coulee"))

    async def _let_out(self) -> None:
        """What the origin was told is not to be lost when its stream is given back."""
        self.upstream.shut_down()
        grace_s = self.exchange.proxy.config.websocket.close_timeout_s
        with suppress(ExchangeError, TimeoutError, Cancelled), shielded(grace_s):
            await self.upstream.stream.wait_until_out()

    def _note(self, error: ExchangeError) -> None:
        """Why it ends, for the access record: the first reason counts."""
        if error.reason == "filter_error":
            self.exchange.proxy.tell_failure(self.exchange, error, error.__cause__ or error)
        if self.error is None:
            self.error = error

    def _cut_off(self, side: Side) -> None:
        """A message comes too late for a side. That is a loss where it has ended by a half-close, and would read on."""
        closing = self.closing
        if closing is not None and closing.code == NO_CLOSE and closing.sender == side.name:
            limit_s = self.exchange.proxy.config.websocket.close_timeout_s
            word = "client_gone" if side is self.downstream else "upstream_reset"
            detail = f"ended without a close frame, and the other side did not end within {limit_s:g} s"
            self._note(ExchangeError(word, f"{detail} (close_timeout_s)"))

    def drain(self) -> None:
        """The proxy is shutting down: end it in a while."""
        if self.closing is None and self.tasks is not None:
            proxy = self.exchange.proxy
            after_s = proxy.config.websocket.drain_after_s * (1 + proxy.rng.random())
            proxy.kernel.arm(self, proxy.kernel.now + after_s)

    def ring(self, now: float) -> None:
        assert self.tasks is not None
        if self.closing is None:
            self.tasks.start(self._close_both, Closing(GOING_AWAY))
        elif not self.late:
            self.late = True
            for side in (self.downstream, self.upstream):
                side.close(self.closing.code, self.closing.reason)
                side.shut_down()
            self.exchange.proxy.kernel.arm(self, now + self.exchange.proxy.config.websocket.close_timeout_s)
        else:
            limit_s = self.exchange.proxy.config.websocket.close_timeout_s
            for side, word in ((self.downstream, "send_timeout"), (self.upstream, "upstream_timeout")):
                if side.stream.blocked:
                    self._note(ExchangeError(word, f"did not take what was left within {2 * limit_s:g} s"))
            self.tasks.cancel()


class _Idle(Idle):
    """Nothing has come for too long: both sides are told so, which a reset would not."""

    __slots__ = ("relay",)

    relay: WebSocketRelay

    def ring(self, now: float) -> None:
        relay = self.relay
        assert relay.tasks is not None
        if relay.closing is None:
            relay.tasks.start(relay.fail, self.error, GOING_AWAY)


_WORDS: Final = {TOO_LARGE: "websocket_too_large", POLICY: "rate_limited"}


def _checked(closing: object, call: Callable[..., Any]) -> Closing:
    """What a filter wants to close with. Raises `FilterError`."""
    if not isinstance(closing, Closing):
        raise FilterError(call, f"returned {type(closing).__name__}; this phase returns a Closing or None")
    code = closing.code
    if not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in (1004, NO_CLOSE):
        raise FilterError(call, f"{code} is no code to close with; take one of 1000 to 1014, or 3000 to 4999")
    if code == NO_CODE and closing.reason:
        raise FilterError(call, "1005 stands for a close frame without a code, which has no reason either")
    return closing
