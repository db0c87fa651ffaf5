"""HTTP/2 (RFC 9113): python-hyper's h2, in both roles, behind the contract of `codec.py`.

    bytes --> FrameReader --> h2 --> http2_fields --> parts
    parts --> http2_fields --> Waiting (what no window has room for) --> h2 --> bytes

h2 keeps the streams' states and the windows. Its own validation is switched off (`http2_h2.py`): ours, in front of it
and behind it, refuses more, costs less, and ends a stream where h2 would end the connection. Here is what is read;
`http2_writing.py` has what is written. A stream has a `StreamState` as long as it is open in h2. Rules:

- h2 is given one frame at a time, so that what came before a fault is not lost with it.
- GOAWAY is ours alone, both ways: h2 takes nothing more behind one, but the streams that stand go on (section 6.8).
- A head that is malformed is told as such, so that it can be answered; any other fault of a stream ends that stream.
- DATA is counted against Content-Length before any of it is given out (section 8.1.1).
- A fault of the whole connection is the end: nothing is read or written behind it, but a GOAWAY.
- A window opens again when whoever reads has taken the bytes, and says so by `consumed`.
- What is written goes out at once as far as the windows let it, and the rest by `flush`, in the order of its priority
  (RFC 9218). While `corked`, all of a body waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError as H2Error
from h2.settings import SettingCodes

from coulee.core.codec import NEED_DATA, NeedData, ProtocolError, Role
from coulee.core.config import Config
from coulee.core.http2_fields import FieldList, read_answer, read_request, read_trailers
from coulee.core.http2_frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    ENDLESS,
    HEAD_BYTES,
    PADDED,
    PRIORITISED,
    Code,
    ConnectionFault,
    Frame,
    Kind,
    StreamFault,
    frame,
    name_of,
    reset_frame,
)
from coulee.core.http2_h2 import HEEDED
from coulee.core.http2_priority import Priority, parse_priority
from coulee.core.http2_writing import BODILESS, Http2Writer, StreamState, priority_field
from coulee.core.parts import Data, Interim, Part, Response

JUDGED_EVERY: Final = 25
"""Frames that only count are told of after so many."""


@dataclass(slots=True)
class Malformed:
    """A request whose head breaks the rules: it can be answered; without a body, where it asks for the head of one."""

    error: ProtocolError
    bodiless: bool = False


@dataclass(slots=True)
class Reset:
    """A stream is over before its end: by the peer's word, or by `ours`, because the peer broke a rule."""

    code: int
    detail: str
    ours: bool = False


@dataclass(slots=True)
class Leaving:
    """The peer will end the connection, and takes no stream above `last_stream` (section 6.8)."""

    last_stream: int
    code: int
    detail: str


@dataclass(slots=True)
class Ponged:
    """The peer has answered a PING of ours."""

    payload: bytes


@dataclass(slots=True)
class Counted:
    """Some frames have come that only count: whoever has a clock may judge of them, before there are more."""


News: TypeAlias = Part | Malformed | Reset | Leaving | Ponged | Counted
"""What comes of frames: parts, and what happens to a stream, or to the connection, which is stream 0."""


class Http2Codec(Http2Writer):
    """One HTTP/2 connection. `role` is ours: a `"server"` reads requests; CONNECT is one where `Config.forward` is."""

    __slots__ = ("_eof", "_extended", "_forwards", "_highest", "_limits", "_news", "_server", "believed", "resets_made",
                 "settled", "takes_upgrades")  # fmt: skip

    expects_continue = False  # a stream knows

    def __init__(self, role: Role, config: Config) -> None:
        super().__init__(role, config)
        self.believed = False  # whether the peer is, about TLS that it ended before us
        self.settled = False  # the peer has heard of our settings
        self.takes_upgrades: bool | None = None  # whether the peer takes the CONNECT of RFC 8441, once it is known
        self.resets_made = 0  # streams that we had to reset, because of what the peer did
        self._server = role == "server"
        self._limits = config.limits
        self._forwards = config.forward is not None
        self._extended = bool(config.upgrades)  # we have said that we take the CONNECT of RFC 8441
        self._news: deque[tuple[int, News]] = deque()
        self._eof = False
        self._highest = 0  # the last stream that the peer has begun

    # -- state

    @property
    def buffered(self) -> int:
        """See `Codec`."""
        return self._frames.buffered

    @property
    def idle(self) -> bool:
        """See `Codec`: no stream is open, and nothing of the next one is here."""
        return not self._states and not self._frames.within_head

    @property
    def within_head(self) -> bool:
        """Whether a head, or the beginning of the connection, is here in part."""
        return self._frames.within_head

    @property
    def reusable(self) -> bool:
        """See `Codec`."""
        return self._fault is None and not self._eof

    @property
    def glitches(self) -> int:
        """Frames so far that cost the peer next to nothing."""
        return self._frames.glitches

    @property
    def resets(self) -> int:
        """Streams so far that the peer took back, or made us reset."""
        return self._frames.resets + self.resets_made

    @property
    def last_stream(self) -> int:
        """The last stream that the peer has begun."""
        return self._highest

    def close_after(self) -> None:
        """See `Codec`: here a stream's end is no connection's."""

    # -- reading

    def feed(self, data: bytes) -> None:
        """See `Codec`."""
        if self._fault is None:
            self._frames.feed(data)

    def feed_eof(self) -> None:
        """See `Codec`."""
        self._eof = True

    def next_part(self) -> tuple[int, News] | NeedData:
        """See `Codec`: the next part, or other news of a stream. Raises `ConnectionFault`."""
        news = self._news
        frames = self._frames
        judged_at = frames.glitches + frames.resets + self.resets_made + JUDGED_EVERY
        while not news:
            if frames.glitches + frames.resets + self.resets_made >= judged_at:
                return 0, _COUNTED
            if self._fault is not None:
                raise self._fault
            try:
                found = frames.next_frame()
                if found is None:
                    return NEED_DATA
                handler = _HANDLERS.get(found.kind)
                if handler is not None:
                    handler(self, found)
            except StreamFault as fault:
                self._break_stream(fault.stream, fault.code, fault.detail)
            except ConnectionFault as fault:
                self._break(fault)
        return news.popleft()

    def _break(self, fault: ConnectionFault) -> None:
        """It is all over."""
        self._fault = fault
        self._frames.clear()

    def _give(self, found: Frame) -> list[Event]:
        """Give h2 a frame. Raises `ConnectionFault`."""
        h2 = self._h2
        written = h2.data_to_send()  # what stands before is no answer to this frame
        if written:
            self._out.append(written)
        try:
            events = h2.receive_data(found.whole)
        except ConnectionFault:
            h2.clear_outbound_data_buffer()
            raise
        except H2Error as error:
            h2.clear_outbound_data_buffer()  # a GOAWAY, which is ours to say
            detail = f"{Kind(found.kind).name} on stream {found.stream}: {type(error).__name__}, {error}"
            raise ConnectionFault(int(getattr(error, "error_code", Code.PROTOCOL_ERROR)), detail) from error
        out = h2.data_to_send()
        if out:
            self._out.append(self._without_second_reset(found, out))
        for event in events:
            if type(event) is StreamReset:
                self._was_reset(event)
        return events

    def _without_second_reset(self, found: Frame, out: bytes) -> bytes:
        """h2 answers each frame for a stream that is over with a reset. Where we have reset it, one was enough: the
        frame was on its way (section 5.1). Other ones count."""
        if out[-_RESET_BYTES:-4] != reset_frame(found.stream, 0)[:-4]:
            return out
        if found.stream in self._reset_by_us:
            return out[:-_RESET_BYTES]
        self.resets_made += 1
        return out

    def _on_headers(self, found: Frame) -> None:
        if found.flags & (PADDED | PRIORITISED):
            found = found.without_extras()
        number = found.stream
        if not self._server:
            self._check_begun(found)
        state = self._states.get(number)
        goes_on = not found.flags & END_STREAM
        self._h2.heads_read.may_be_interim = goes_on and state is not None and not state.head_read
        if goes_on and state is not None and state.head_read and not state.read:
            # h2 would end the connection for it; the compressed fields have to be read all the same.
            self._give(found.with_flags(found.flags | END_STREAM))
            if not self._h2.has_open(number):
                self._out.append(reset_frame(number, Code.PROTOCOL_ERROR))  # it takes the stream for over
            raise StreamFault(number, Code.PROTOCOL_ERROR, "a second head that does not end its stream (section 8.1)")
        self._heads(found)

    def _heads(self, found: Frame) -> None:
        """HEADERS, or the CONTINUATION that completes them."""
        for event in self._give(found):
            if isinstance(event, RequestReceived):
                self._request(event.stream_id, self._h2.heads_read.fields, event.stream_ended is not None)
            elif isinstance(event, ResponseReceived):
                self._answer(event.stream_id, self._h2.heads_read.fields, event.stream_ended is not None)
            elif isinstance(event, InformationalResponseReceived):
                self._answer(event.stream_id, self._h2.heads_read.fields, False)
            elif isinstance(event, TrailersReceived):
                self._trailers(event.stream_id, self._h2.heads_read.fields)

    def _request(self, number: int, fields: FieldList, ended: bool) -> None:
        self._highest = number
        self._states[number] = state = StreamState()
        state.head_read = True
        state.read = ended
        try:
            request = read_request(
                fields,
                ended=ended,
                limits=self._limits,
                secure=None if self.believed and not self.secure else self.secure,
                forwards=self._forwards,
                extended=self._extended,
            )
        except ProtocolError as error:
            bodiless = (b":method", b"HEAD") in fields
            state.asked = "HEAD" if bodiless else ""
            self._news.append((number, Malformed(error, bodiless)))
            return
        state.asked = request.method
        state.tunnel = request.method == "CONNECT" or request.upgrade != ""  # and what follows has no length
        state.upgrade = request.upgrade
        state.left = None if ended or state.tunnel else request.length
        said = priority_field(request)
        if said:
            state.priority = parse_priority(said)
            self._waiting.default = Priority()  # a client that knows priorities means the default by saying nothing
        self._news.append((number, request))
        if ended and state.tunnel:
            self._news.append((number, Data(b"", True)))

    def _answer(self, number: int, fields: FieldList, ended: bool) -> None:
        state = self._states[number]
        try:
            answer = read_answer(fields, ended=ended, limits=self._limits, asked=state.asked, upgrade=state.upgrade)
            if isinstance(answer, Interim):
                state.interims += 1
                if state.interims > self._limits.interims_max:
                    raise ProtocolError(f"more than {self._limits.interims_max} interim answers")
        except ProtocolError as error:
            raise StreamFault(number, Code.PROTOCOL_ERROR, error.detail) from error
        if isinstance(answer, Response):
            state.head_read = True
            state.told = answer.ended
            state.tunnel = answer.status == 101 or (state.asked == "CONNECT" and answer.status < 300)
            if answer.status in BODILESS or state.asked == "HEAD":
                state.left = 0
            else:
                state.left = answer.length
            if ended:
                self._is_read(number, state)
            if state.upgrade and not state.tunnel:
                self._write_data(number, state, b"", True)  # it was refused: we say nothing more
        self._news.append((number, answer))
        if ended and isinstance(answer, Response) and not answer.ended:
            self._news.append((number, Data(b"", True)))  # a tunnel that is over at once

    def _trailers(self, number: int, fields: FieldList) -> None:
        state = self._states[number]
        if state.tunnel:
            raise StreamFault(number, Code.PROTOCOL_ERROR, "trailers of a tunnel, which has none (section 8.5)")
        if state.left:
            raise StreamFault(number, Code.PROTOCOL_ERROR, f"{state.left} bytes less than announced (section 8.1.1)")
        try:
            trailers = read_trailers(fields, self._limits)
        except ProtocolError as error:
            raise StreamFault(number, Code.PROTOCOL_ERROR, error.detail) from error
        if not state.told:
            self._news.append((number, trailers))
        self._is_read(number, state)

    def _on_data(self, found: Frame) -> None:
        number = found.stream
        state = self._states.get(number)
        if state is None:
            self._check_begun(found)
        ended = bool(found.flags & END_STREAM)
        if state is not None and state.head_read and state.left is not None and not state.read:
            size = len(found.whole) - HEAD_BYTES
            if found.flags & PADDED:
                size -= 1 + found.whole[HEAD_BYTES]
            state.left -= size
            if state.left < 0 or (ended and state.left):
                what = "more" if state.left < 0 else f"{state.left} bytes less"
                self._break_stream(number, Code.PROTOCOL_ERROR, f"{what} than announced (section 8.1.1)")
                self._give(found)  # for the window of the connection
                return
        if state is not None and not self._server and not state.head_read:
            self._break_stream(number, Code.PROTOCOL_ERROR, "DATA before the head of an answer (section 8.1)")
        empty = len(found.whole) == HEAD_BYTES
        if empty and state is not None and not state.read and self._h2.remote_flow_control_window(number) < 0:
            self._on_nothing(state, found)
            return
        for event in self._give(found):
            if isinstance(event, DataReceived):
                size = event.flow_controlled_length
                data = event.data
                assert state is not None, "h2 takes nothing for a stream that is over"
                if size > len(data):
                    self.consumed(number, size - len(data))  # padding is taken by nobody else
                if ended:
                    self._is_read(number, state)
                if data or (ended and not state.told):
                    self._news.append((number, Data(data, ended)))

    def _on_nothing(self, state: StreamState, found: Frame) -> None:
        """DATA without a byte, on a stream whose window our SETTINGS have made negative. It needs none (section 6.9.1),
        but h2 thinks it does. Trailers are an end that it takes."""
        if found.flags & END_STREAM:
            self._give(
                Frame(Kind.HEADERS, 0, found.stream, frame(Kind.HEADERS, END_STREAM | END_HEADERS, found.stream, b""))
            )
            self._is_read(found.stream, state)
            self._news.append((found.stream, Data(b"", True)))

    def _on_reset(self, found: Frame) -> None:
        self._check_begun(found)
        self._give(found)

    def _on_settings(self, found: Frame) -> None:
        self.settled = self.settled or bool(found.flags & ACK)
        settings = found.settings()
        for number, value in settings:
            if number == SettingCodes.HEADER_TABLE_SIZE:  # h2 knows the last of several (RFC 7541 section 4.2)
                self._h2.heads_written.header_table_size = value
            elif number == SettingCodes.ENABLE_CONNECT_PROTOCOL and not self._server:  # a client says nothing by it
                if self.takes_upgrades and not value:
                    detail = "extended CONNECT was offered, and is no more (RFC 8441 section 3)"
                    raise ConnectionFault(Code.PROTOCOL_ERROR, detail)
                self.takes_upgrades = value == 1
        heeded = [pair for pair in settings if pair[0] in HEEDED]
        if len(heeded) != len(settings):  # h2 would keep the others too, for good
            found = found.with_settings(heeded)
        self._give(found)
        if found.flags & ACK:
            self._h2.open_windows(self._states)
        elif self.takes_upgrades is None:
            self.takes_upgrades = False
        self._windows_opened = True
        self._frame_bytes_max = min(self._h2.max_outbound_frame_size, self._frame_bytes_wanted)

    def _on_window(self, found: Frame) -> None:
        self._windows_opened = True
        if found.stream:
            self._check_begun(found)
        if found.whole[HEAD_BYTES] & 0x80:  # a bit that is to be ignored (section 6.9), and h2 does not
            found = found.with_payload(bytes([found.whole[HEAD_BYTES] & 0x7F]) + found.payload[1:])
        self._give(found)

    def _on_ping(self, found: Frame) -> None:
        if found.flags & ACK:
            self._news.append((0, Ponged(found.payload)))
        else:
            self._out.append(frame(Kind.PING, ACK, 0, found.payload))

    def _on_goaway(self, found: Frame) -> None:
        payload = found.payload
        last = int.from_bytes(payload[:4], "big") & ENDLESS
        code = int.from_bytes(payload[4:8], "big")
        text = payload[8 : 8 + 256].decode("ascii", "replace")
        self._news.append((0, Leaving(last, code, f"{name_of(code)} {text}".rstrip())))

    def _on_priority_update(self, found: Frame) -> None:
        if not self._server:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PRIORITY_UPDATE from a server (RFC 9218 section 7.1)")
        payload = found.payload
        number = int.from_bytes(payload[:4], "big") & ENDLESS
        if not number % 2:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PRIORITY_UPDATE for no request (RFC 9218 section 7.1)")
        self._waiting.default = Priority()
        if number > self._highest or number in self._states:
            known = self._waiting.set_priority(number, parse_priority(payload[4:]))
            if not known and number > self._highest:
                raise ConnectionFault(
                    Code.PROTOCOL_ERROR, "PRIORITY_UPDATE for too many requests to come (section 7.1)"
                )

    def _check_begun(self, found: Frame) -> None:
        """Raises `ConnectionFault` for a frame on a stream that nobody has begun (section 5.1)."""
        if self._is_idle(found.stream):
            detail = f"{Kind(found.kind).name} on stream {found.stream}, which was not begun (section 5.1)"
            raise ConnectionFault(Code.PROTOCOL_ERROR, detail)

    def _is_idle(self, number: int) -> bool:
        """Whether nobody has begun a stream yet. A server begins none (section 8.4)."""
        return not number % 2 or number > (self._highest if self._server else self._h2.highest_outbound_stream_id)

    def _was_reset(self, event: StreamReset) -> None:
        """h2 says that a stream is over."""
        number = event.stream_id
        del self._states[number]
        self._waiting.drop(number)
        code = int(event.error_code or 0)
        self._news.append((number, Reset(code, name_of(code), not event.remote_reset)))

    def _break_stream(self, number: int, code: int, detail: str) -> None:
        """The peer broke a rule of a stream."""
        if number in self._states:  # for h2 it may be over
            self.resets_made += 1
            self.reset(number, code)
            self._news.append((number, Reset(code, detail, ours=True)))
        elif self._is_idle(number):
            self._break(ConnectionFault(code, detail))

    def _is_read(self, number: int, state: StreamState) -> None:
        state.read = True
        self._forget(number, state)


_RESET_BYTES: Final = HEAD_BYTES + 4
_COUNTED: Final = Counted()

_HANDLERS: Final[dict[int, Callable[[Http2Codec, Frame], None]]] = {
    Kind.HEADERS: Http2Codec._on_headers,
    Kind.CONTINUATION: Http2Codec._heads,
    Kind.DATA: Http2Codec._on_data,
    Kind.RST_STREAM: Http2Codec._on_reset,
    Kind.SETTINGS: Http2Codec._on_settings,
    Kind.WINDOW_UPDATE: Http2Codec._on_window,
    Kind.PING: Http2Codec._on_ping,
    Kind.GOAWAY: Http2Codec._on_goaway,
    Kind.PRIORITY_UPDATE: Http2Codec._on_priority_update,
}
