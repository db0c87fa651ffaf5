"""A connection of HTTP/2: one transport, one codec, and many streams of parts. What both sides have in common.

Rules:

- It is read all the time. A body that nobody takes waits in its stream, and closes that stream's window: so it can be
  no longer than the window, and stops nobody else. Only while the peer does not take what no window holds back (heads,
  answers to its PING, and the like), nothing more is read.
- Of what has come, no more is read in a turn than makes us say `TURN_BYTES_MAX`; the rest is for the next one.
- What came in a turn is given out when all of it was read: many frames of one body are one part.
- A body that is sent waits in the codec while the transport, or a window, has no room for it, up to the high mark, and
  is let out in the order of priorities.
- Each stream has time limits of its own: for a part that is awaited, and for a body that is not taken, also where it is
  a window that the peer does not open. They are floats, looked at when the connection's alarm rings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from math import inf
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from coulee.core.codec import ProtocolError
from coulee.core.connection import NEXT_TURN_S, Connection
from coulee.core.errors import ExchangeError
from coulee.core.http2 import Counted, Http2Codec, Leaving, Malformed, News, Ponged, Reset
from coulee.core.http2_budget import Budget
from coulee.core.http2_frames import Code, ConnectionFault
from coulee.core.kernel import PARKED, _Parked
from coulee.core.parts import Data, Part
from coulee.core.stream import Stream

if TYPE_CHECKING:
    from coulee.core.config import Config
    from coulee.core.machine import KernelMachine

TURN_BYTES_MAX: Final = 256 * 1024
"""Of what waits, so much is let out in one turn: nobody knows before its end what the transport takes."""

WARNED_AT: Final = 0.75
"""Of a budget: a peer that has used so much of it is told to go. At all of it, it is cut off."""


class Http2Stream(Stream):
    """One message each way, beside others."""

    __slots__ = ("inbox", "inbox_bytes", "over", "read_by", "unsent", "write_by")

    connection: Http2Connection[Any]

    def __init__(self, connection: Http2Connection[Any], number: int, patience_s: float) -> None:
        super().__init__(connection, number, patience_s)
        self.inbox: deque[Part] = deque()  # read, and not taken
        self.inbox_bytes = 0
        self.unsent = 0  # bytes that waited when it was last looked at
        self.over = False  # nobody has it any more; what waits of it still goes out
        self.read_by = inf
        self.write_by = inf

    # -- reading

    @coroutine
    def receive(self) -> Generator[_Parked, Any, Part]:
        """See `Stream`."""
        if self.inbox:
            return self._next()
        if self.error is not None:
            raise self.error
        self.reader = self.connection.machine.kernel.running
        self.limit(self.patience_s)
        try:
            received: Part = yield PARKED
        finally:
            self.reader = None
            self.read_by = inf
        return received

    def take(self) -> Part | None:
        """See `Stream`."""
        if self.inbox:
            return self._next()
        if self.error is not None:
            raise self.error
        return None

    def _next(self) -> Part:
        """The next part of what is here, as one where it is of a body; its window opens again."""
        inbox = self.inbox
        part = inbox.popleft()
        if type(part) is not Data:
            return part
        if inbox and type(inbox[0]) is Data:
            pieces = [part.data]
            while inbox and type(inbox[0]) is Data:
                part = inbox.popleft()
                assert isinstance(part, Data)
                pieces.append(part.data)
            part = Data(b"".join(pieces), part.ended)
        size = self.inbox_bytes
        self.inbox_bytes = 0
        if size:
            connection = self.connection
            connection.codec.consumed(self.number, size)
            connection.speak()
        return part

    def put(self, part: Part) -> None:
        """A part has come."""
        if type(part) is Data:
            self.inbox_bytes += len(part.data)
        self.inbox.append(part)

    def offer(self) -> None:
        """Hand over what has come, if a task waits for it."""
        reader = self.reader
        if reader is not None and self.inbox:
            self.reader = None
            self.connection.machine.kernel.step(reader, self._next(), None)

    def limit(self, seconds: float) -> None:
        """See `Stream`."""
        self.read_by = by = self.connection.machine.kernel.now + seconds
        if by < self.connection.armed:
            self.connection.machine.kernel.arm(self.connection, by)

    def overdue(self) -> None:
        """The part that is awaited has not come in time."""
        raise NotImplementedError

    # -- writing

    @property
    def blocked(self) -> bool:
        return self.connection.codec.unsent(self.number) >= self.connection.limits.buffer_high_bytes

    @coroutine
    def wait_for_room(self) -> Generator[_Parked, Any, None]:
        """See `Stream`."""
        while self.blocked and self.error is None:
            self.writer = self.connection.machine.kernel.running
            try:
                yield PARKED
            finally:
                self.writer = None

    def write(self, part: Part) -> None:
        """See `Stream`."""
        if self.error is not None:
            raise self.error
        connection = self.connection
        try:
            data = connection.codec.write(self.number, part)
        except ProtocolError as error:
            raise ExchangeError("filter_error", error.detail) from error
        if data:
            connection.push(data)
        if connection.codec.waits(self.number):
            connection.watch_writing(self)
            if not connection.blocked:
                connection.let_out()

    @coroutine
    def wait_until_out(self) -> Generator[_Parked, Any, None]:
        """See `Stream`: a stream that is given up is reset, with all that waits for a window."""
        while self.connection.codec.waits(self.number) and self.error is None:
            self.writer = self.connection.machine.kernel.running
            try:
                yield PARKED
            finally:
                self.writer = None

    def send_eof(self) -> None:
        """See `Stream`."""
        self.write(Data(b"", True))

    def end(self) -> None:
        """See `Stream`: the connection lives on."""

    def close_after(self) -> None:
        """See `Stream`: no stream is the last by what it is answered."""


AnyStream = TypeVar("AnyStream", bound=Http2Stream)


class Http2Connection(Connection, Generic[AnyStream]):
    """The base of `Http2Downstream` and `Http2Upstream`."""

    __slots__ = (
        "_fed",
        "_flush_by",
        "_glitches",
        "_glitches_seen",
        "_heard_all",
        "_resets",
        "_resets_seen",
        "_unread",
        "broken",
        "codec",
        "streams",
        "waiting",
    )

    resets_count = True
    """Whether streams that the peer takes back, or has us reset, are judged."""

    def __init__(self, machine: KernelMachine, number: int, codec: Http2Codec, config: Config) -> None:
        super().__init__(machine, number, config)
        self.codec = codec
        self.streams: dict[int, AnyStream] = {}
        self.waiting: dict[int, Http2Stream] = {}  # those of them of which something waits to be let out
        self.broken = False  # what comes is not read any more
        self._heard_all = False  # up to the end of what the peer sends
        self._unread = False  # the codec may have more than was read in this turn
        self._fed: dict[int, AnyStream] = {}  # streams to which something has come in this turn
        self._flush_by = inf
        self._glitches: Budget | None = None
        self._glitches_seen = 0
        self._resets: Budget | None = None
        self._resets_seen = 0

    # -- what each side says

    def take_in(self, number: int, news: Part | Malformed) -> None:
        """A part of a stream that is not known: the beginning of one, or nothing."""
        raise NotImplementedError

    def was_reset(self, stream: AnyStream, reset: Reset) -> None:
        """A stream is over before its end."""
        raise NotImplementedError

    def leaving(self, notice: Leaving) -> None:
        """The peer wants the connection to end."""
        raise NotImplementedError

    def ended_by_peer(self) -> None:
        """The peer sends no more."""
        raise NotImplementedError

    def broke(self, fault: ConnectionFault) -> None:
        """The peer broke a rule of the whole connection."""
        raise NotImplementedError

    def used_up(self, level: float, detail: str) -> None:
        """The peer has used so much of a budget: at least `WARNED_AT`."""
        raise NotImplementedError

    def finished(self, stream: Any) -> None:
        """The last byte of a stream that nobody has any more is out."""
        raise NotImplementedError

    def stalled(self, stream: AnyStream) -> None:
        """The peer takes nothing of a stream's body."""
        raise NotImplementedError

    def settle(self) -> None:
        """What came in this turn is dealt with: look to the time limits, and whether it is all over."""
        raise NotImplementedError

    # -- reading

    def received(self, data: bytes) -> None:
        if self.broken:
            if not data:
                self.close()
            return
        if data:
            self.codec.feed(data)
            self.read()
        else:
            self._heard_all = True
            self.codec.feed_eof()
            self.ended_by_peer()

    def hold(self) -> None:
        if not self._heard_all:  # else no credit stands
            super().hold()

    def read(self) -> None:
        """Read what was fed, and hand it out."""
        codec = self.codec
        self._unread = False
        try:
            while isinstance(pulled := codec.next_part(), tuple):
                self._sort(*pulled)
                if codec.glitches != self._glitches_seen or (codec.resets != self._resets_seen and self.resets_count):
                    self._watch_budgets()
                if self.closing or self.broken:
                    break
                if self._said_enough():
                    self._unread = True
                    break
        except ConnectionFault as fault:
            self._hand_out()
            if not (self.closing or self.broken):
                self.broke(fault)
            return
        self._hand_out()
        if self.closing or self.broken:
            return
        self.let_out()
        if self.closing or self.broken:
            return
        if self._unread:
            if not self.blocked:
                self._go_on_later()
            if codec.buffered > self.limits.buffer_high_bytes:
                self.hold()
        elif self.held:
            self._read_on()
        self.settle()

    def _said_enough(self) -> bool:
        """Whether what was read has made us say so much that some of it has to be taken before more is read."""
        if self.blocked:
            return self.out_bytes > self.machine.config.http2.unsent_control_bytes_max
        return self.sending >= TURN_BYTES_MAX and self.number in self.machine.sends

    def _read_on(self) -> None:
        """We hold: read again, where there is no reason for it any more."""
        if not self._unread and self.out_bytes <= self.machine.config.http2.unsent_control_bytes_max:
            self.receive()

    def _go_on(self) -> None:
        """Read, and let out, what an earlier turn has left."""
        if self._unread:
            self.read()
        else:
            self.let_out()

    def _go_on_later(self) -> None:
        self._flush_by = by = self.machine.kernel.now + NEXT_TURN_S
        if by < self.armed:
            self.machine.kernel.arm(self, by)

    def _sort(self, number: int, news: News) -> None:
        stream = self.streams.get(number)
        if isinstance(news, Counted):
            pass
        elif isinstance(news, Reset):
            if stream is not None:
                self.let_go(stream)
                self.was_reset(stream, news)
        elif isinstance(news, Leaving):
            self.leaving(news)
        elif isinstance(news, Ponged):
            pass  # whatever comes tells that the peer is there
        elif stream is None or isinstance(news, Malformed):
            self.take_in(number, news)
        elif stream.over:
            if isinstance(news, Data):
                self.codec.consumed(number, len(news.data))  # nobody wants it
        else:
            stream.put(news)
            self._fed[number] = stream

    def _hand_out(self) -> None:
        """Give those who wait what has come for them."""
        if self._fed:
            fed, self._fed = self._fed, {}
            for stream in fed.values():
                stream.offer()

    def let_go(self, stream: AnyStream) -> None:
        """Nothing more comes of a stream. What came, and was not taken, still counts for the connection's window."""
        if stream.inbox_bytes and not (self.closing or self.broken):
            self.codec.consumed(stream.number, stream.inbox_bytes)
        stream.inbox_bytes = 0
        stream.read_by = stream.write_by = inf
        self.waiting.pop(stream.number, None)

    def discard(self, stream: AnyStream) -> None:
        """A stream leaves the table."""
        self.streams.pop(stream.number, None)
        self.let_go(stream)

    def _watch_budgets(self) -> None:
        """Look to what the peer has us do for nothing."""
        codec = self.codec
        settings = self.machine.config.http2
        now = self.machine.kernel.now
        level = 0.0
        what = ""
        if codec.glitches != self._glitches_seen:
            budget = self._glitches = self._glitches or Budget(settings.glitches_max, settings.glitches_per_s)
            level = budget.spend(codec.glitches - self._glitches_seen, now)
            self._glitches_seen = codec.glitches
            what = "frames that carry nothing"
        if codec.resets != self._resets_seen and self.resets_count:
            budget = self._resets = self._resets or Budget(settings.resets_max, settings.resets_per_s)
            resets = budget.spend(codec.resets - self._resets_seen, now)
            self._resets_seen = codec.resets
            if resets > level:
                level, what = resets, "streams that were taken back, or had to be reset"
        if level >= WARNED_AT:
            self.used_up(level, f"too many {what}")

    # -- writing

    def speak(self) -> None:
        """Send what the codec has to say. While nobody takes even that, nothing more is read."""
        data = self.codec.output()
        if data:
            self.push(data)
        if self.out_bytes > self.machine.config.http2.unsent_control_bytes_max:
            self.hold()

    def let_out(self) -> None:
        """Let out what waits of bodies, as far as there is room; not more of it than a turn may have."""
        self._flush_by = inf
        if self.waiting and not self.blocked:
            room = TURN_BYTES_MAX - (self.sending if self.number in self.machine.sends else 0)
            if room <= 0 or self.codec.flush(room):
                self._go_on_later()
        self.speak()
        if self.waiting:
            for stream in list(self.waiting.values()):
                self._went_out(stream)

    def _went_out(self, stream: Http2Stream) -> None:
        """See how much of a stream has gone out since it was last looked at."""
        unsent = self.codec.unsent(stream.number)
        if stream.over and self.codec.is_written(stream.number):
            self.finished(stream)
            return
        if not self.codec.waits(stream.number):
            del self.waiting[stream.number]
            stream.unsent = 0
            stream.write_by = inf
            stream.room()
        elif unsent != stream.unsent:
            stream.write_by = inf
            self.watch_writing(stream)
            if unsent < self.limits.buffer_high_bytes:
                stream.room()

    def watch_writing(self, stream: Http2Stream) -> None:
        """Something of a stream waits: for so long at most, without any of it being taken."""
        self.waiting[stream.number] = stream
        stream.unsent = self.codec.unsent(stream.number)
        if stream.write_by == inf:
            stream.write_by = by = self.machine.kernel.now + self.timeouts.send_stall_timeout_s
            if by < self.armed:
                self.machine.kernel.arm(self, by)

    def block(self) -> None:
        super().block()
        self.codec.corked = True

    def unblock(self) -> None:
        self.codec.corked = False
        super().unblock()
        if self.closing or self.broken:
            return
        self._go_on()
        if self.held:
            self._read_on()

    # -- time limits

    def ring(self, now: float) -> None:
        super().ring(now)
        if self.closing or self.broken:
            return
        if self._flush_by <= now:
            self._go_on()
        due = self._flush_by
        for stream in list(self.streams.values()):
            if stream.read_by <= now:
                stream.read_by = inf
                stream.overdue()
            if stream.write_by <= now:
                if self.blocked:  # its turn may come when that is over, and that is watched too
                    stream.write_by = now + self.timeouts.send_stall_timeout_s
                else:
                    stream.write_by = inf
                    self.stalled(stream)
            due = min(due, stream.read_by, stream.write_by)
        if self.closing:
            return
        if due < self.armed:
            self.machine.kernel.arm(self, due)


def code_of(error: ExchangeError | None) -> int:
    """With which code a stream is reset whose answer is not whole."""
    return Code.CANCEL if error is not None and error.side == "downstream" else Code.INTERNAL_ERROR
