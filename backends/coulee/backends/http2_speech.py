"""HTTP/2 as scripted ends speak it: through python-hyper's h2 with all its validation, and with manners of their own.

Rules:

- Only h2 judges what comes: a fault that it finds is told by an exception. What the core has around h2 is not here.
- GOAWAY is said and heard beside h2, which takes nothing more behind one (RFC 9113 section 6.8).
- A body waits for the windows, and what is heard opens them again as the manners say.
- Settings are told when those before them are acknowledged, for h2 takes any acknowledgement for that of the newest.
  What a client says first holds at once, because nothing is said to it before (section 3.4).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, SettingsAcknowledged, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from coulee.backends.far_end import FarEnd

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ENDLESS: Final = 2**31 - 1
"""The highest number of a stream: a GOAWAY with it takes whatever is on its way."""

NO_ERROR: Final = 0x0
INTERNAL_ERROR: Final = 0x2
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
HTTP_1_1_REQUIRED: Final = 0xD

LATE_S: Final = 0.03
"""How late a window is opened that is opened late."""

DROP_S: Final = 0.002
"""... and the pause between two bytes of one that is opened by bytes."""

_AT_ONCE: Final = (SettingCodes.INITIAL_WINDOW_SIZE, SettingCodes.ENABLE_PUSH)
_HEAD_BYTES: Final = 9
_DATA, _HEADERS, _GOAWAY, _CONTINUATION = 0x0, 0x1, 0x7, 0x9
_END_HEADERS, _PADDED = 0x4, 0x8


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame (section 4.1), whether it may be or not."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


BROKEN: Final = (
    frame(_DATA, 0, 0, b"of no stream"),
    frame(_CONTINUATION, 4, 1, b"of no head"),
    frame(0x4, 0, 0, b"odd"),
    frame(0x8, 0, 0, bytes(4)),
    frame(0x8, 0, 0, b"\x7f\xff\xff\xff"),
    frame(0x3, 0, 2**20 + 1, bytes(4)),
    frame(0x6, 0, 0, b"short"),
    frame(0x5, 4, 1, bytes(4)),
    frame(_HEADERS, 5, ENDLESS, b"\x80"),
    b"\x16\x03\x01 this is no HTTP\r\n\r\n",
)
"""What ends a connection, whoever says it (section 5.4.1)."""


class Unreadable(Exception):
    """What came is no HTTP/2: h2 says why."""


def _stream(data: bytes) -> int:
    return int.from_bytes(data[5:9], "big")


@dataclass(frozen=True, slots=True)
class Manners:
    """How an end speaks HTTP/2, apart from what it says.

    `settings` are told at the beginning, `later` ones after so many seconds. `window_bytes` is by how much the window
    of the connection is opened at the beginning. What comes opens the windows again as `opens` says: `at once`, by
    `opens_by` bytes at least, `late`, for the first `drops` times `by bytes`, or `never`. Data is padded by `padding`
    bytes, heads are cut into so many `continuations`, and there is a PING behind every so many `pings` frames of data,
    if that is not 0. An origin says at the beginning that it `takes_connect`, the extended one (RFC 8441 section 3).
    """

    settings: Mapping[int, int] = field(default_factory=dict[int, int])
    later: Sequence[tuple[float, Mapping[int, int]]] = ()
    window_bytes: int = 2**20
    opens: Literal["at once", "late", "by bytes", "never"] = "at once"
    opens_by: int = 64
    drops: int = 30
    padding: int = 0
    continuations: int = 0
    pings: int = 0
    takes_connect: bool = True


@dataclass(slots=True)
class _Body:
    """What has not been sent of a message."""

    waiting: bytearray = field(default_factory=bytearray)
    ended: bool = False
    trailers: Sequence[tuple[bytes, bytes]] = ()
    sent: Callable[[], None] | None = None


class Speech:
    """One side of one connection. `hear` is told of h2's events, `hear_goaway` of the last stream and the code."""

    def __init__(
        self,
        far: FarEnd,
        manners: Manners,
        *,
        client: bool,
        hear: Callable[[Event], None],
        hear_goaway: Callable[[int, int], None],
    ) -> None:
        self.conn = conn = H2Connection(H2Configuration(client_side=client, header_encoding=None))
        first = {code: value for code, value in manners.settings.items() if client and code in _AT_ONCE}
        rest = {code: value for code, value in manners.settings.items() if code not in first}
        initial: dict[SettingCodes, int] = {
            SettingCodes.MAX_CONCURRENT_STREAMS: 100, SettingCodes.MAX_HEADER_LIST_SIZE: 65536,
        }  # fmt: skip
        if manners.takes_connect and not client:
            initial[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
        initial.update({SettingCodes(code): value for code, value in first.items()})
        conn.local_settings = Settings(client, initial)
        self._settings_due: deque[Mapping[int, int]] = deque([rest] if rest else [])
        self._unacknowledged = True  # settings that were said
        self._far = far
        self._manners = manners
        self._hear = hear
        self._hear_goaway = hear_goaway
        self._heard = b""
        self._preface_left = 0 if client else len(PREFACE)
        self._bodies: dict[int, _Body] = {}
        self._listening: set[int] = set()  # streams that the other side may say more on; only asked, never iterated
        self._given_up: set[int] = set()  # by us; only asked, too
        self._owed: dict[int, int] = {}  # bytes heard, for which no window was opened yet
        self._drops_left = manners.drops
        self._opening = False  # a timer will open the windows
        self._data_frames = 0
        self._paused: dict[int, None] = {}  # streams of which nothing is taken

    def begin(self) -> None:
        """Say what comes first."""
        self.conn.initiate_connection()
        if self._manners.window_bytes:
            self.conn.increment_flow_control_window(self._manners.window_bytes)
        self.flush()
        for delay_s, settings in self._manners.later:
            self._far.call_later(delay_s, partial(self._change, settings))

    def _change(self, settings: Mapping[int, int]) -> None:
        self._settings_due.append(settings)
        self._tell_settings()
        self.flush()

    def _tell_settings(self) -> None:
        if self._settings_due and not self._unacknowledged and not self._far.is_closed:
            self._unacknowledged = True
            self.conn.update_settings(dict(self._settings_due.popleft()))

    # -- hearing

    def receive(self, data: bytes) -> None:
        """Take bytes. Raises `Unreadable`."""
        heard = self._heard + data
        at = 0
        if self._preface_left:
            if len(heard) < len(PREFACE):
                self._heard = heard
                return
            at, self._preface_left = len(PREFACE), 0
            self._events(PREFACE)
        while len(heard) >= at + _HEAD_BYTES and not self._far.is_closed:
            end = at + _HEAD_BYTES + int.from_bytes(heard[at : at + 3], "big")
            if end - at - _HEAD_BYTES > self.conn.max_inbound_frame_size:
                raise Unreadable(f"a frame of {end - at - _HEAD_BYTES} bytes")  # h2 would wait for all of it
            if len(heard) < end:
                break
            whole, at = heard[at:end], end
            if whole[3] == _GOAWAY:
                payload = whole[_HEAD_BYTES:]
                self._hear_goaway(int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big"))
            else:
                for event in self._events(whole):
                    self._take(event)
        self._heard = heard[at:]
        self._open_windows()
        self.flush()

    def _events(self, data: bytes) -> list[Event]:
        conn = self.conn
        if (
            data[3:4] == b"\1"
            and data[4] & (_END_HEADERS | _PADDED) == _END_HEADERS
            and _stream(data) in self._given_up
        ):
            conn.decoder.decode(data[_HEAD_BYTES:])  # it was on its way; h2 minds that where it is an interim answer
            return []
        if data[3] == _DATA and data[:3] == bytes(3):
            stream = _stream(data)
            window = conn.remote_flow_control_window(stream) if stream in self._listening else 0
            if window < 0:  # our settings made it smaller; h2 minds that even where nothing is taken of it
                conn.increment_flow_control_window(-window, stream)
        try:
            return conn.receive_data(data)
        except ProtocolError as error:
            raise Unreadable(f"{type(error).__name__}: {error}") from error

    def _take(self, event: Event) -> None:
        if isinstance(event, DataReceived) and event.flow_controlled_length:
            self._owed[event.stream_id] = self._owed.get(event.stream_id, 0) + event.flow_controlled_length
        elif isinstance(event, StreamEnded):
            self._listening.discard(event.stream_id)
        elif isinstance(event, StreamReset):
            self.forget(event.stream_id)
        elif isinstance(event, SettingsAcknowledged):
            self._unacknowledged = False
            self._tell_settings()
        self._hear(event)

    def listen(self, stream: int) -> None:
        """From now on the other side may say something on a stream."""
        self._listening.add(stream)

    def pause(self, stream: int) -> None:
        """Open the windows for nothing that comes on a stream."""
        self._paused[stream] = None

    def resume(self, stream: int) -> None:
        """... and do so again, for what came meanwhile as well."""
        if self._paused.pop(stream, ...) is None and not self._far.is_closed:
            self._open_windows()
            self.flush()

    @property
    def _open_for(self) -> list[int]:
        return [stream for stream in self._owed if stream not in self._paused]

    def forget(self, stream: int) -> None:
        """A stream is over."""
        self._paused.pop(stream, None)
        self._listening.discard(stream)
        self._bodies.pop(stream, None)

    def _open_windows(self) -> None:
        opens = self._manners.opens
        if not self._open_for or self._opening or opens == "never":
            return
        if opens == "late":
            self._opening = True
            self._far.call_later(LATE_S, self._open_late)
        elif opens == "by bytes" and self._drops_left:
            self._opening = True
            self._far.call_later(DROP_S, self._drop)
        else:
            self._open()

    def _open_late(self) -> None:
        self._opening = False
        if not self._far.is_closed:
            self._open()
            self.flush()

    def _drop(self) -> None:
        """One byte for each."""
        self._opening = False
        if self._far.is_closed:
            return
        self._drops_left -= 1
        for stream in self._open_for:
            self._open_one(stream, 1)
        self._open_windows()
        self.flush()

    def _open(self) -> None:
        least = 1 if self._manners.opens == "late" else self._manners.opens_by
        for stream in self._open_for:
            size = self._owed[stream]
            if size >= least or stream not in self._listening:
                self._open_one(stream, size)

    def _open_one(self, stream: int, size: int) -> None:
        left = self._owed[stream] - size
        if left:
            self._owed[stream] = left
        else:
            del self._owed[stream]
        self.conn.increment_flow_control_window(size)
        if stream in self._listening:
            self.conn.increment_flow_control_window(size, stream)

    # -- saying

    @property
    def may_connect(self) -> bool:
        """Whether the other side takes an extended CONNECT."""
        return bool(self.conn.remote_settings.enable_connect_protocol)

    @property
    def room(self) -> int:
        """How many more streams the other side lets us begin."""
        return self.conn.remote_settings.max_concurrent_streams - self.conn.open_outbound_streams

    @property
    def settled(self) -> bool:
        """Whether no settings are to be acknowledged, or to be said: more of them, beside h2, confuse it."""
        return not self._unacknowledged and not self._settings_due

    @property
    def busy(self) -> bool:
        """Whether a body is not out."""
        return bool(self._bodies)

    def is_said(self, stream: int) -> bool:
        """Whether nothing of a stream's body waits."""
        return stream not in self._bodies

    def head(self, stream: int, fields: Sequence[tuple[bytes, bytes]], *, ended: bool, odd: bool = False) -> None:
        """Send a head; an `odd` one as it is, whatever h2 would say to it."""
        conn = self.conn
        self.flush()
        conn.config.validate_outbound_headers = conn.config.normalize_outbound_headers = not odd
        conn.send_headers(stream, list(fields), end_stream=ended)
        conn.config.validate_outbound_headers = conn.config.normalize_outbound_headers = True
        self._far.write(self._cut(conn.data_to_send()))

    def _cut(self, data: bytes) -> bytes:
        """HEADERS, as they came of h2, in as many frames as it pleases."""
        payload = data[_HEAD_BYTES:]
        parts = min(self._manners.continuations + 1, len(payload))
        flags, padding = data[4], self._manners.padding
        if int.from_bytes(data[:3], "big") != len(payload) or len(payload) + padding > 16_000 or data[3] != _HEADERS:
            return data  # more than one already, or to be
        if parts < 2 and not padding:
            return data
        stream = _stream(data)
        size = len(payload) // parts
        pieces = [payload[at * size : (at + 1) * size if at + 1 < parts else None] for at in range(parts)]
        if padding:
            flags |= _PADDED
            pieces[0] = bytes([padding]) + pieces[0] + bytes(padding)
        if parts > 1:
            flags &= ~_END_HEADERS
        out = [frame(_HEADERS, flags, stream, pieces[0])]
        out += [frame(_CONTINUATION, 0, stream, piece) for piece in pieces[1:-1]]
        if parts > 1:
            out.append(frame(_CONTINUATION, _END_HEADERS, stream, pieces[-1]))
        return b"".join(out)

    def body(self, stream: int, data: bytes) -> None:
        """Send more of a body, when there is room."""
        self._bodies.setdefault(stream, _Body()).waiting += data
        self.flush()

    def end(
        self, stream: int, trailers: Sequence[tuple[bytes, bytes]] = (), sent: Callable[[], None] | None = None
    ) -> None:
        """... and its end; `sent` is called when it is out."""
        body = self._bodies.setdefault(stream, _Body())
        body.ended, body.trailers, body.sent = True, trailers, sent
        self.flush()

    def reset(self, stream: int, code: int) -> None:
        """Give a stream up."""
        self.forget(stream)
        self._given_up.add(stream)
        self.conn.reset_stream(stream, code)
        self.flush()

    def goaway(self, last: int, code: int = NO_ERROR) -> None:
        """Take nothing above `last`."""
        self.flush()
        self._far.write(frame(_GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big")))

    def raw(self, data: bytes) -> None:
        """Send what h2 knows nothing of."""
        self.flush()
        self._far.write(data)

    def flush(self) -> None:
        """Send what there is room for."""
        if self._far.is_closed:
            return
        out: list[Callable[[], None]] = []
        for stream, body in list(self._bodies.items()):
            if self._send(stream, body):
                del self._bodies[stream]
                if body.sent is not None:
                    out.append(body.sent)
        data = self.conn.data_to_send()
        if data:
            self._far.write(data)
        for call in out:
            call()

    def _send(self, stream: int, body: _Body) -> bool:
        """Whether all of it is out."""
        conn = self.conn
        while body.waiting:
            room = min(conn.local_flow_control_window(stream), conn.max_outbound_frame_size)
            padding = self._manners.padding if room > self._manners.padding + 1 else 0
            if padding:
                room -= padding + 1
            if room <= 0:
                return False
            piece = bytes(body.waiting[:room])
            del body.waiting[:room]
            last = body.ended and not body.waiting and not body.trailers
            conn.send_data(stream, piece, end_stream=last, pad_length=padding or None)
            self._data_frames += 1
            if self._manners.pings and not self._data_frames % self._manners.pings:
                conn.ping(self._data_frames.to_bytes(8, "big"))
            if last:
                return True
        if not body.ended:
            return False
        if body.trailers:
            conn.send_headers(stream, list(body.trailers), end_stream=True)
        else:
            conn.send_data(stream, b"", end_stream=True)
        return True
