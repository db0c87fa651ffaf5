"""What is written on a connection of HTTP/2: parts to frames, as far as the peer's windows let them out.

The half of `Http2Codec` that knows what we have said of each stream; see there.
"""

from __future__ import annotations

from typing import Final, cast

from coulee.core.codec import ProtocolError, Role
from coulee.core.config import Config
from coulee.core.http2_fields import (
    FieldList,
    fields_of_answer,
    fields_of_interim,
    fields_of_request,
    fields_of_trailers,
)
from coulee.core.http2_frames import (
    ENDLESS,
    FRAME_BYTES,
    HEAD_BYTES,
    TINY_WINDOW_BYTES,
    ConnectionFault,
    FrameReader,
    Kind,
    frame,
    goaway_frame,
)
from coulee.core.http2_h2 import H2
from coulee.core.http2_priority import Priority, Waiting, merged
from coulee.core.parts import Data, Interim, Part, Request, Response, Trailers
from coulee.core.seam import Bytes

RESETS_REMEMBERED_MAX: Final = 1000
"""Streams that we have reset, of which frames may still come in that were on their way."""

BODILESS: Final = frozenset({204, 304})


class StreamState:
    """What is known of one stream: how far each direction is."""

    __slots__ = ("asked", "head_read", "head_written", "interims", "left", "priority", "read", "to_write", "told",
                 "tunnel", "upgrade", "written")  # fmt: skip

    def __init__(self, asked: str = "", upgrade: str = "") -> None:
        self.asked = asked  # the method of the request
        self.upgrade = upgrade  # what it asks to switch to
        self.head_read = False  # the request's, or that of the final answer
        self.left: int | None = None  # of the body that was announced
        self.told = False  # of its end, which may still have to come
        self.tunnel = False  # what is read of it is no HTTP
        self.read = False  # to its end
        self.interims = 0
        self.head_written = False
        self.to_write: int | None = None  # of the body that we announced
        self.written = False  # to its end, or it waits
        self.priority: Priority | None = None  # what was said of it


class Http2Writer:
    """One HTTP/2 connection, as it is written."""

    __slots__ = ("_fault", "_frame_bytes_max", "_frame_bytes_wanted", "_frames", "_h2", "_out", "_reset_by_us",
                 "_states", "_told_last", "_waiting", "_windows_opened", "corked", "secure")  # fmt: skip

    def __init__(self, role: Role, config: Config) -> None:
        self.secure = False
        self.corked = False
        self._frames = FrameReader(role, config.http2)
        self._frame_bytes_wanted = config.http2.frame_bytes_max
        self._frame_bytes_max = FRAME_BYTES  # of a body, as it is written
        self._states: dict[int, StreamState] = {}
        self._reset_by_us: dict[int, None] = {}  # the oldest first
        self._waiting = Waiting(config.http2.streams_max)
        self._windows_opened = False  # something of what waits may go out
        self._told_last = ENDLESS  # the last stream that is taken, as far as the peer was told
        self._fault: ConnectionFault | None = None
        self._h2 = H2(role, config)
        self._out = [self._h2.first_words]

    # -- state

    @property
    def next_stream(self) -> int:
        """The number of the next stream that we begin."""
        return self._h2.get_next_available_stream_id()

    @property
    def streams_max(self) -> int:
        """How many streams the peer lets us have open at once."""
        return self._h2.remote_settings.max_concurrent_streams

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

    def _forget(self, number: int, state: StreamState) -> None:
        """Forget a stream that is over in both directions."""
        if state.read and state.written and not self.waits(number):
            self._states.pop(number, None)
            self._waiting.drop(number)

    # -- parts

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

    def _write_interim(self, number: int, state: StreamState, part: Interim) -> None:
        if state.head_written:
            raise ProtocolError("an interim answer behind the final one")
        self._send_fields(number, fields_of_interim(part), ended=False)

    def _write_request(self, number: int, part: Request) -> None:
        fields = fields_of_request(part, secure=self.secure)
        if len(self._states) >= self.streams_max:
            raise ProtocolError("more requests at once than the peer allows (section 5.1.2)")
        state = StreamState(part.method, part.upgrade)
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

    def _write_answer(self, number: int, state: StreamState, part: Response) -> None:
        if state.head_written:
            raise ProtocolError("a second answer")
        fields = fields_of_answer(part, asked=state.asked, upgrade=state.upgrade)
        state.head_written = True
        said = priority_field(part)
        if said:
            asked = self._waiting.priority(number) or state.priority or self._waiting.default
            self._waiting.set_priority(number, merged(asked, said))
        bodiless = part.status in BODILESS or state.asked == "HEAD"
        bare = bodiless or (part.ended and not part.data)
        tunnel = part.status == 101 or (state.asked == "CONNECT" and part.status < 300)
        state.to_write = 0 if bodiless else None if tunnel else part.length
        self._send_fields(number, fields, ended=bare)
        if bare:
            state.written = True
            self._forget(number, state)
        elif part.data or part.ended:
            self._write_data(number, state, part.data, part.ended)

    def _write_data(self, number: int, state: StreamState, data: bytes, ended: bool) -> None:
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

    def _write_trailers(self, number: int, state: StreamState, part: Trailers) -> None:
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
        self._h2.heads_written.fields = fields
        self._h2.send_headers(number, fields[:1], end_stream=ended)

    # -- what goes out

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
            if ended or len(data) >= TINY_WINDOW_BYTES or len(data) < h2.local_flow_control_window(number):
                self._frames.earn()  # and not by what no more than a tiny window let out
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
        if self._fault is not None or not self._h2.has_open(stream):
            return
        self._h2.reset_stream(stream, code)
        self._reset_by_us[stream] = None
        if len(self._reset_by_us) > RESETS_REMEMBERED_MAX:
            del self._reset_by_us[next(iter(self._reset_by_us))]

    def ping(self, payload: bytes) -> None:
        """Ask the peer whether it is there."""
        self._out.append(frame(Kind.PING, 0, 0, payload))

    def leave(self, last_stream: int, code: int, detail: str = "") -> None:
        """Tell the peer that the connection ends, and that no stream above `last_stream` is taken (section 6.8)."""
        self._told_last = min(last_stream, self._told_last)  # one may say less than the one before, and never more
        self._out.append(self._h2.data_to_send())
        self._out.append(goaway_frame(self._told_last, code, detail))


def priority_field(part: Request | Response) -> bytes:
    """What a head says of its stream's priority."""
    if b"\r\npriority:" not in part.headers.lower:
        return b""
    return (part.headers.get("priority") or "").encode("latin-1")
