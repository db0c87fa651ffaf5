"""HTTP/2 (RFC 9113): python-hyper's h2, in both roles, behind the contract of `codec.py`.

    bytes --> FrameReader --> h2 --> http2_fields --> parts
    parts --> http2_fields --> Waiting (what no window has room for) --> h2 --> bytes

h2 keeps the streams' states, the windows and header compression. Its own validation is switched off: ours, in front of
it and behind it, refuses more, costs less, and ends a stream where h2 would end the connection. Rules:

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError as H2Error
from h2.settings import SettingCodes, Settings

from coulee.core.codec import NEED_DATA, PREFACE, NeedData, ProtocolError, Role
from coulee.core.config import Config
from coulee.core.http2_fields import (
    FieldList,
    fields_of_answer,
    fields_of_interim,
    fields_of_request,
    fields_of_trailers,
    read_answer,
    read_request,
    read_trailers,
)
from coulee.core.http2_frames import (
    ACK,
    END_STREAM,
    HEAD_BYTES,
    PADDED,
    PRIORITISED,
    TINY_WINDOW_BYTES,
    Code,
    ConnectionFault,
    Frame,
    FrameReader,
    Kind,
    StreamFault,
    frame,
    goaway_frame,
    name_of,
    reset_frame,
    settings_frame,
)
from coulee.core.http2_hpack import Decoder, Encoder, Field
from coulee.core.http2_priority import Priority, Waiting, merged, parse_priority
from coulee.core.parts import Data, Interim, Part, Request, Response, Trailers
from coulee.core.seam import Bytes

if TYPE_CHECKING:
    import hpack

ENDLESS: Final = 2**31 - 1
"""The highest number of a stream, and the largest window."""

RESETS_REMEMBERED_MAX: Final = 1000
"""Streams that we have reset, of which frames may still come in that were on their way."""

FRAME_BYTES: Final = 2**14
"""A frame's payload, until the peer has said that it takes more (section 4.2)."""

JUDGED_EVERY: Final = 25
"""Frames that only count are told of after so many."""

_BODILESS: Final = frozenset({204, 304})


@dataclass(slots=True)
class Malformed:
    """A request whose head breaks the rules: it can be answered."""

    error: ProtocolError
    ended: bool


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


class _State:
    """What is known of one stream: how far each direction is."""

    __slots__ = ("asked", "head_read", "head_written", "interims", "left", "priority", "read", "to_write", "told",
                 "upgrade", "written")  # fmt: skip

    def __init__(self, asked: str = "", upgrade: str = "") -> None:
        self.asked = asked  # the method of the request
        self.upgrade = upgrade  # what it asks to switch to
        self.head_read = False  # the request's, or that of the final answer
        self.left: int | None = None  # of the body that was announced
        self.told = False  # of its end, which may still have to come
        self.read = False  # to its end
        self.interims = 0
        self.head_written = False
        self.to_write: int | None = None  # of the body that we announced
        self.written = False  # to its end, or it waits
        self.priority: Priority | None = None  # what was said of it


class _HeadsRead(Decoder):
    """Header compression as h2 sees it: of a head it gets the first field alone, which tells it a 1xx from an answer.
    Of the rest it would read lengths, and end the connection for what breaks no more than one message."""

    __slots__ = ("fields", "last")

    fields: FieldList
    last: bool  # nothing follows it on its stream: so it is no 1xx, or it is malformed

    def decode(self, block: bytes, raw: bool = True) -> FieldList:
        """See `Decoder`; all of it is in `fields`."""
        self.fields = fields = super().decode(block)
        return fields[:1] if fields and fields[0][0] == b":status" and not self.last else []


class _HeadsWritten(Encoder):
    """... and what it writes is what was put in `fields`."""

    __slots__ = ("fields",)

    fields: FieldList

    def encode(self, fields: Sequence[Field]) -> bytes:
        """See `Encoder`."""
        return super().encode(self.fields)


class Http2Codec:
    """One HTTP/2 connection. `role` is ours: a `"server"` reads requests. `forwards` lets CONNECT be one of these."""

    __slots__ = ("_broken", "_eof", "_fault", "_forwards", "_frame_bytes_max", "_frame_bytes_wanted", "_frames", "_h2",
                 "_heads_read", "_heads_written", "_highest", "_limits", "_news", "_out", "_role", "_server",
                 "_states", "_waiting", "_windows_opened", "believed", "corked", "resets_made",
                 "secure")  # fmt: skip

    expects_continue = False  # a stream knows

    def __init__(self, role: Role, config: Config) -> None:
        self.secure = False
        self.believed = False  # whether the peer is, about TLS that it ended before us
        self.corked = False
        self.resets_made = 0  # streams that we had to reset, because of what the peer did
        self._role: Role = role
        self._server = role == "server"
        self._limits = config.limits
        self._forwards = config.forward is not None
        self._frames = FrameReader(role, config.http2)
        self._frame_bytes_wanted = config.http2.frame_bytes_max
        self._frame_bytes_max = FRAME_BYTES  # of a body, as it is written
        self._states: dict[int, _State] = {}
        self._waiting: Waiting = Waiting(config.http2.streams_max)
        self._news: deque[tuple[int, News]] = deque()
        self._out: list[bytes] = []
        self._eof = False
        self._fault: ConnectionFault | None = None
        self._highest = 0  # the last stream that the peer has begun
        self._broken: dict[int, None] = {}  # streams that we have reset, the oldest first
        self._windows_opened = False
        # Twice the limit: a head that is somewhat too large is answered, and only what is far too large ends it all.
        self._heads_read = _HeadsRead(2 * self._limits.head_bytes_max)
        # The peer may let us keep more than we want to, but that would be our memory.
        self._heads_written = _HeadsWritten(config.http2.table_bytes_max)
        self._h2 = self._begin(config)

    def _begin(self, config: Config) -> H2Connection:
        """h2, and our first words."""
        http2 = config.http2
        h2 = H2Connection(
            H2Configuration(
                client_side=not self._server,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        # How many streams there may be is minded by whoever knows when one is really over, and not by h2.
        h2.local_settings = Settings(
            client=not self._server, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: ENDLESS}
        )
        settings: dict[SettingCodes | int, int] = {
            SettingCodes.HEADER_TABLE_SIZE: http2.table_bytes_max,
            SettingCodes.INITIAL_WINDOW_SIZE: http2.stream_window_bytes,
            SettingCodes.MAX_FRAME_SIZE: http2.frame_bytes_max,
        }
        h2.update_settings(settings)  # which counts from the peer's acknowledgement on
        h2.data_to_send()  # what h2 makes of it is not all that we say
        h2.decoder = cast("hpack.Decoder", self._heads_read)
        h2.encoder = cast("hpack.Encoder", self._heads_written)
        said = {int(number): value for number, value in settings.items()}
        said[SettingCodes.MAX_HEADER_LIST_SIZE] = self._limits.head_bytes_max
        if self._server:
            said[SettingCodes.MAX_CONCURRENT_STREAMS] = http2.streams_max
            h2.receive_data(PREFACE)  # the reader of frames has seen it
        else:
            said[SettingCodes.ENABLE_PUSH] = 0
            self._out.append(PREFACE)
        self._out.append(settings_frame(said))
        window = http2.connection_window_bytes
        if (
            not self._server
        ):  # whose clients take their answers at speeds of their own, and must not wait for each other
            window = min(max(window, http2.upstream_streams_max * http2.stream_window_bytes), ENDLESS)
        more = window - h2.inbound_flow_control_window
        if more > 0:
            h2.increment_flow_control_window(more)
            self._out.append(h2.data_to_send())
        return h2

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

    @property
    def next_stream(self) -> int:
        """The number of the next stream that we begin."""
        return self._h2.get_next_available_stream_id()

    @property
    def streams_max(self) -> int:
        """How many streams the peer lets us have open at once."""
        return self._h2.remote_settings.max_concurrent_streams

    def close_after(self) -> None:
        """See `Codec`: here a stream's end is no connection's."""

    def unsent(self, stream: int) -> int:
        """Bytes of a body that wait for a window, or for their turn."""
        return self._waiting.size(stream)

    def waits(self, stream: int) -> bool:
        """Whether something of a stream waits, if only its end."""
        return self._waiting.waits(stream)

    def is_written(self, stream: int) -> bool:
        """Whether all of a stream has gone out."""
        state = self._states.get(stream)
        return state is None or (state.written and not self.waits(stream))

    def is_read(self, stream: int) -> bool:
        """Whether all of a stream has come in."""
        state = self._states.get(stream)
        return state is None or state.read

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
        counted = self.glitches + self.resets
        while not news:
            if self.glitches + self.resets - counted >= JUDGED_EVERY:
                return 0, _COUNTED
            if self._fault is not None:
                raise self._fault
            try:
                found = self._frames.next_frame()
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
            raise ConnectionFault(int(getattr(error, "error_code", Code.PROTOCOL_ERROR)), str(error)) from error
        out = h2.data_to_send()
        if out:
            self._out.append(self._without_second_reset(found, out))
        return events

    def _without_second_reset(self, found: Frame, out: bytes) -> bytes:
        """h2 answers each frame for a stream that is over with a reset. Where we have reset it, one was enough: the
        frame was on its way (section 5.1). Other ones count."""
        if out[-_RESET_BYTES:-4] != reset_frame(found.stream, 0)[:-4]:
            return out
        if found.stream in self._broken:
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
        self._heads_read.last = bool(found.flags & END_STREAM)
        if state is not None and state.head_read and not state.read and not found.flags & END_STREAM:
            self._heads_read.last = True
            # h2 would end the connection for it; the compressed fields have to be read all the same.
            self._give(found.with_flags(found.flags | END_STREAM))
            if not self._h2_knows(number):
                self._out.append(reset_frame(number, Code.PROTOCOL_ERROR))  # it takes the stream for over
            raise StreamFault(number, Code.PROTOCOL_ERROR, "a second head that does not end its stream (section 8.1)")
        self._heads(found)

    def _heads(self, found: Frame) -> None:
        """HEADERS, or the CONTINUATION that completes them."""
        for event in self._give(found):
            if isinstance(event, RequestReceived):
                self._request(event.stream_id, self._heads_read.fields, event.stream_ended is not None)
            elif isinstance(event, ResponseReceived):
                self._answer(event.stream_id, self._heads_read.fields, event.stream_ended is not None)
            elif isinstance(event, InformationalResponseReceived):
                self._answer(event.stream_id, self._heads_read.fields, False)
            elif isinstance(event, TrailersReceived):
                self._trailers(event.stream_id, self._heads_read.fields)
            elif isinstance(event, StreamReset):
                self._was_reset(event)

    def _request(self, number: int, fields: FieldList, ended: bool) -> None:
        self._highest = number
        self._states[number] = state = _State()
        state.head_read = True
        state.read = ended
        try:
            request = read_request(
                fields,
                ended=ended,
                limits=self._limits,
                secure=None if self.believed and not self.secure else self.secure,
                forwards=self._forwards,
                extended=False,
            )
        except ProtocolError as error:
            self._news.append((number, Malformed(error, ended)))
            return
        state.asked = request.method
        tunnel = request.method == "CONNECT" or request.upgrade != ""  # and what follows has no length
        state.upgrade = request.upgrade
        state.left = None if ended or tunnel else request.length
        said = _priority_field(request)
        if said:
            state.priority = parse_priority(said)
            self._waiting.default = Priority()  # a client that knows priorities means the default by saying nothing
        self._news.append((number, request))
        if ended and tunnel:
            self._news.append((number, Data(b"", True)))

    def _answer(self, number: int, fields: FieldList, ended: bool) -> None:
        state = self._states.get(number)
        if state is None:
            return  # it was reset, and this was on its way
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
            if answer.status in _BODILESS or state.asked == "HEAD":
                state.left = 0
            else:
                state.left = answer.length
            if ended:
                self._is_read(number, state)
        self._news.append((number, answer))
        if ended and isinstance(answer, Response) and not answer.ended:
            self._news.append((number, Data(b"", True)))  # a tunnel that is over at once

    def _trailers(self, number: int, fields: FieldList) -> None:
        state = self._states.get(number)
        if state is None:
            return
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
        for event in self._give(found):
            if isinstance(event, DataReceived):
                size = event.flow_controlled_length
                data = event.data
                if state is None or number not in self._states:
                    self.consumed(number, size)
                    continue
                if size > len(data):
                    self.consumed(number, size - len(data))  # padding is taken by nobody else
                if ended:
                    self._is_read(number, state)
                if data or (ended and not state.told):
                    self._news.append((number, Data(data, ended)))
            elif isinstance(event, StreamReset):
                self._was_reset(event)

    def _on_reset(self, found: Frame) -> None:
        self._check_begun(found)
        for event in self._give(found):
            if isinstance(event, StreamReset):
                self._was_reset(event)

    def _on_settings(self, found: Frame) -> None:
        settings = found.settings()
        for number, value in settings:
            if number == SettingCodes.HEADER_TABLE_SIZE:  # h2 knows the last of several (RFC 7541 section 4.2)
                self._heads_written.header_table_size = value
        heeded = [pair for pair in settings if pair[0] in _HEEDED]
        if len(heeded) != len(settings):  # h2 would keep the others too, for good
            found = found.with_settings(heeded)
        for event in self._give(found):
            if isinstance(event, RemoteSettingsChanged):
                self._windows_opened = True
                self._frame_bytes_max = min(self._h2.max_outbound_frame_size, self._frame_bytes_wanted)

    def _on_window(self, found: Frame) -> None:
        self._windows_opened = True
        if found.stream:
            self._check_begun(found)
        if found.whole[HEAD_BYTES] & 0x80:  # a bit that is to be ignored (section 6.9), and h2 does not
            found = found.with_payload(bytes([found.whole[HEAD_BYTES] & 0x7F]) + found.payload[1:])
        for event in self._give(found):
            if isinstance(event, StreamReset):
                self._was_reset(event)

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
        if self._states.pop(number, None) is None:
            return
        self._waiting.drop(number)
        code = int(event.error_code or 0)
        self._news.append((number, Reset(code, name_of(code), not event.remote_reset)))

    def _break_stream(self, number: int, code: int, detail: str) -> None:
        """The peer broke a rule of a stream."""
        known = number in self._states  # for h2 it may be over
        if known or self._h2_knows(number):
            self.resets_made += 1
            self.reset(number, code)
            if known:
                self._news.append((number, Reset(code, detail, ours=True)))
        elif self._is_idle(number):
            self._break(ConnectionFault(code, detail))

    def _is_read(self, number: int, state: _State) -> None:
        state.read = True
        self._forget(number, state)

    def _forget(self, number: int, state: _State) -> None:
        """Forget a stream that is over in both directions."""
        if state.read and state.written and not self.waits(number):
            self._states.pop(number, None)
            self._waiting.drop(number)

    # -- writing

    def write(self, stream: int, part: Part) -> Bytes:
        """See `Codec`; what has no room yet waits, for `flush`."""
        if self._fault is not None:
            raise ProtocolError("the connection is over")
        state = self._states.get(stream)
        if isinstance(part, Request):
            self._write_request(stream, part)
        elif state is None:
            raise ProtocolError("the stream is over")
        elif isinstance(part, Response):
            self._write_answer(stream, state, part)
        elif isinstance(part, Data):
            self._write_data(stream, state, part.data, part.ended)
        elif isinstance(part, Trailers):
            self._write_trailers(stream, state, part)
        else:
            self._write_interim(stream, state, part)
        return self.output()

    def _write_interim(self, number: int, state: _State, part: Interim) -> None:
        if state.head_written:
            raise ProtocolError("an interim answer behind the final one")
        self._send_fields(number, fields_of_interim(part), ended=False)

    def _write_request(self, number: int, part: Request) -> None:
        fields = fields_of_request(part, secure=self.secure)
        state = _State(part.method, part.upgrade)
        state.head_written = True
        self._states[number] = state
        if part.method == "CONNECT" or part.upgrade:
            self._send_fields(number, fields, ended=False)  # what follows has no length
            return
        state.to_write = part.length
        bare = part.ended and not part.data
        self._send_fields(number, fields, ended=bare)
        if bare:
            state.written = True
        elif part.data or part.ended:
            self._write_data(number, state, part.data, part.ended)

    def _write_answer(self, number: int, state: _State, part: Response) -> None:
        if state.head_written:
            raise ProtocolError("a second answer")
        fields = fields_of_answer(part, asked=state.asked)
        state.head_written = True
        said = _priority_field(part)
        if said:
            asked = self._waiting.priority(number) or state.priority or self._waiting.default
            self._waiting.set_priority(number, merged(asked, said))
        bodiless = part.status in _BODILESS or state.asked == "HEAD"
        bare = bodiless or (part.ended and not part.data)
        tunnel = part.status == 101 or (state.asked == "CONNECT" and part.status < 300)
        state.to_write = 0 if bodiless else None if tunnel else part.length
        self._send_fields(number, fields, ended=bare)
        if bare:
            state.written = True
            self._forget(number, state)
        elif part.data or part.ended:
            self._write_data(number, state, part.data, part.ended)

    def _write_data(self, number: int, state: _State, data: bytes, ended: bool) -> None:
        if not state.head_written:
            raise ProtocolError("a body without a head")
        if state.written:
            if data:
                raise ProtocolError("more of a body behind its end")
            return
        if state.to_write is not None:
            state.to_write -= len(data)
            if state.to_write < 0 or (ended and state.to_write):
                raise ProtocolError("a body is longer or shorter than its head announced")
        if not data and not ended:
            return
        state.written = ended
        h2 = self._h2
        if (
            self.corked
            or self.waits(number)
            or (self._windows_opened and self._waiting)
            or len(data) > min(h2.local_flow_control_window(number), self._frame_bytes_max)
        ):
            if state.priority is not None and self._waiting.priority(number) is None:
                self._waiting.set_priority(number, state.priority)
            self._waiting.put(number, data, ended)
            self._windows_opened = True
            return
        h2.send_data(number, data, end_stream=ended)
        self._frames.earn()
        if ended:
            self._forget(number, state)

    def _write_trailers(self, number: int, state: _State, part: Trailers) -> None:
        if not state.head_written:
            raise ProtocolError("trailers without a head")
        if state.written:
            return
        if state.to_write:
            raise ProtocolError("a body is shorter than its head announced")
        fields = fields_of_trailers(part)
        if not fields:
            self._write_data(number, state, b"", True)
            return
        state.written = True
        if self.waits(number):
            self._waiting.close(number, fields)
            return
        self._send_fields(number, fields, ended=True)
        self._forget(number, state)

    def _send_fields(self, number: int, fields: FieldList, *, ended: bool) -> None:
        self._frames.earn()
        self._heads_written.fields = fields
        self._h2.send_headers(number, fields[:1], end_stream=ended)

    def flush(self, size_max: int) -> bool:
        """Let out what waits, as far as the windows and `size_max` bytes let it. True where there may be more of it."""
        if self.corked or not self._windows_opened or self._fault is not None:
            return False
        h2 = self._h2
        while size_max > 0:
            piece = self._waiting.take(self._frame_bytes_max, h2.local_flow_control_window)
            if piece is None:
                self._windows_opened = False
                return False
            number, data, ended, trailers = piece
            size_max -= len(data) + HEAD_BYTES
            if ended or len(data) >= TINY_WINDOW_BYTES:
                self._frames.earn()  # and not by what no more than a tiny window let out
            if data or trailers is None:
                h2.send_data(number, data, end_stream=ended and trailers is None)
            if trailers is not None:
                self._send_fields(number, cast("FieldList", trailers), ended=True)
            if ended:
                self._forget(number, self._states[number])
        return True

    def output(self) -> bytes:
        """What there is to send: what was written, and what the protocol itself has to say."""
        data = self._h2.data_to_send()
        if self._out:
            self._out.append(data)
            data = b"".join(self._out)
            self._out.clear()
        return data

    def consumed(self, stream: int, count: int) -> None:
        """See `Codec`."""
        if count and self._fault is None:
            self._h2.acknowledge_received_data(count, stream)

    def reset(self, stream: int, code: int) -> None:
        """End a stream that is not over (section 5.4.2)."""
        self._states.pop(stream, None)
        self._waiting.drop(stream)
        if self._fault is not None or not self._h2_knows(stream):
            return
        self._h2.reset_stream(stream, code)
        self._broken[stream] = None
        if len(self._broken) > RESETS_REMEMBERED_MAX:
            del self._broken[next(iter(self._broken))]

    def ping(self, payload: bytes) -> None:
        """Ask the peer whether it is there."""
        self._out.append(frame(Kind.PING, 0, 0, payload))

    def leave(self, last_stream: int, code: int, detail: str = "") -> None:
        """Tell the peer that the connection ends, and that no stream above `last_stream` is taken (section 6.8)."""
        self._out.append(self._h2.data_to_send())
        self._out.append(goaway_frame(last_stream, code, detail))

    def _h2_knows(self, number: int) -> bool:
        """Whether h2 has this stream open, so that it can be reset."""
        stream = self._h2.streams.get(number)
        return stream is not None and not stream.closed


_HEEDED: Final = frozenset(SettingCodes)
_RESET_BYTES: Final = HEAD_BYTES + 4
_COUNTED: Final = Counted()


def _priority_field(part: Request | Response) -> bytes:
    """What a head says of its stream's priority."""
    if b"\r\npriority:" not in part.headers.lower:
        return b""
    return (part.headers.get("priority") or "").encode("latin-1")


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
