"""HTTP/2 frames as they come off the wire (RFC 9113 sections 3.4, 4 and 6), before anything is made of them.

Rules:

- A client begins with the preface, and either side with SETTINGS; else it does not speak HTTP/2.
- What a frame's own head tells is judged here: its size, its stream, its place within a head. Each fault has the code,
  and ends the connection or a stream, as its section says.
- Frames that cost the sender next to nothing are counted (`glitches`), but for the few that come along with work; and
  so are streams that were taken back (`resets`). How many are too many is for whoever has a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from coulee.core.codec import PREFACE, ProtocolError, Role
from coulee.core.config import Http2

HEAD_BYTES: Final = 9
"""Of each frame: length, type, flags, stream (section 4.1)."""

FRAME_BYTES: Final = 2**14
"""A frame's payload, until its reader has said that it takes more (section 4.2)."""

ENDLESS: Final = 2**31 - 1
"""The highest number of a stream, and the largest window."""

TINY_WINDOW_BYTES: Final = 64
"""A window that is opened by less than this costs more to use than it carries."""

EARNED: Final = 2
"""Frames without a use that one with a use excuses: gRPC libraries send a PING and a small WINDOW_UPDATE beside nearly
every message, to measure the line."""

CREDIT_MAX: Final = 200
"""... and how many of them may be left over for later."""

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20


class Kind(IntEnum):
    """Types of frames (section 6, and RFC 9218 section 7.1)."""

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9
    PRIORITY_UPDATE = 0x10


class Code(IntEnum):
    """Error codes (section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def name_of(code: int) -> str:
    """A code for people; those that nobody knows are numbers."""
    return Code(code).name if code in _CODES else f"error {code:#x}"


_CODES: Final = frozenset(Code)


class ConnectionFault(ProtocolError):
    """The peer broke a rule that the whole connection stands on (section 5.4.1)."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail, 0, "http2_error")
        self.code = code


class StreamFault(Exception):
    """The peer broke a rule of one stream (section 5.4.2)."""

    def __init__(self, stream: int, code: int, detail: str) -> None:
        super().__init__(detail)
        self.stream = stream
        self.code = code
        self.detail = detail


@dataclass(slots=True)
class Frame:
    """One frame: `whole` is all of it, with its head."""

    kind: int
    flags: int
    stream: int
    whole: bytes

    @property
    def payload(self) -> bytes:
        """What is behind its head."""
        return self.whole[HEAD_BYTES:]

    def settings(self) -> list[tuple[int, int]]:
        """Of SETTINGS, the pairs in their order (section 6.5.1)."""
        payload = self.payload
        return [
            (int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big"))
            for at in range(0, len(payload), 6)
        ]

    def with_settings(self, settings: list[tuple[int, int]]) -> Frame:
        """The same with others."""
        return self.with_payload(_pairs(settings))

    def with_payload(self, payload: bytes) -> Frame:
        """The same with another one."""
        return Frame(self.kind, self.flags, self.stream, frame(self.kind, self.flags, self.stream, payload))

    def with_flags(self, flags: int) -> Frame:
        """The same with others."""
        return Frame(self.kind, flags, self.stream, self.whole[:4] + bytes([flags]) + self.whole[5:])

    def without_extras(self) -> Frame:
        """Of HEADERS: without padding, and without the priority of RFC 7540, which nobody heeds (section 5.3.2)."""
        payload = self.payload
        end = len(payload) - payload[0] if self.flags & PADDED else len(payload)
        start = (1 if self.flags & PADDED else 0) + (5 if self.flags & PRIORITISED else 0)
        return self.with_flags(self.flags & ~(PADDED | PRIORITISED)).with_payload(payload[start:end])


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame as it is sent."""
    return b"%b%c%c%b%b" % (len(payload).to_bytes(3, "big"), kind, flags, stream.to_bytes(4, "big"), payload)


def settings_frame(settings: dict[int, int]) -> bytes:
    """SETTINGS (section 6.5)."""
    return frame(Kind.SETTINGS, 0, 0, _pairs(settings.items()))


def _pairs(settings: Iterable[tuple[int, int]]) -> bytes:
    return b"".join([number.to_bytes(2, "big") + value.to_bytes(4, "big") for number, value in settings])


def reset_frame(stream: int, code: int) -> bytes:
    """RST_STREAM (section 6.4)."""
    return frame(Kind.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway_frame(last_stream: int, code: int, detail: str = "") -> bytes:
    """GOAWAY (section 6.8); `detail` is for whoever debugs the peer."""
    text = detail.encode("ascii", "replace")
    return frame(Kind.GOAWAY, 0, 0, last_stream.to_bytes(4, "big") + code.to_bytes(4, "big") + text)


class FrameReader:
    """The frames of one connection, one at a time. `role` is ours."""

    __slots__ = ("_at", "_begun", "_continuations", "_credit", "_data", "_frame_bytes_max", "_head_of", "_preface_left",
                 "_role", "_settings", "glitches", "resets")  # fmt: skip

    def __init__(self, role: Role, settings: Http2) -> None:
        self._role = role
        self._settings = settings
        self._frame_bytes_max = settings.frame_bytes_max
        self._data = b""
        self._at = 0  # how much of it has been given out
        self._preface_left = PREFACE if role == "server" else b""
        self._begun = False  # the first SETTINGS have come
        self._head_of = 0  # the stream whose head is not complete
        self._continuations = 0
        self._credit = 0
        self.glitches = 0
        self.resets = 0

    @property
    def buffered(self) -> int:
        """Bytes fed and not yet given out."""
        return len(self._data) - self._at

    @property
    def within_head(self) -> bool:
        """Whether a head has begun that is not complete, or the connection has not begun as it must."""
        return self._head_of != 0 or not self._begun

    def earn(self) -> None:
        """A frame has come, or was sent, that carries something: with it, a few that carry nothing may come."""
        self._credit = min(self._credit + EARNED, CREDIT_MAX)

    def _glitch(self) -> None:
        """A frame costs its sender next to nothing. It counts where nothing was done for it."""
        if self._credit:
            self._credit -= 1
        else:
            self.glitches += 1

    def feed(self, data: bytes) -> None:
        """Take in bytes from the peer."""
        if self._at == len(self._data):
            self._data = data
        else:
            self._data = self._data[self._at :] + data
        self._at = 0

    def clear(self) -> None:
        """Nothing more will be read."""
        self._data = b""
        self._at = 0

    def next_frame(self) -> Frame | None:
        """The next whole frame; None where it has not arrived. Raises `ConnectionFault` and `StreamFault`."""
        if self._preface_left and not self._preface_is_here():
            return None
        data = self._data
        at = self._at
        if len(data) - at < HEAD_BYTES:
            return None
        size = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
        kind = data[at + 3]
        if size > self._frame_bytes_max:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of {size} bytes (section 4.2)")
        if not self._begun:
            self._check_first(kind, data[at + 4])
        end = at + HEAD_BYTES + size
        if len(data) < end:
            return None
        whole = data[at:end] if at or end != len(data) else data
        self._at = end
        stream = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
        found = Frame(kind, data[at + 4], stream, whole)
        if self._head_of or kind in _CHECKED:
            self._check(found, size)
        else:
            self._glitch()  # unknown: to be ignored (section 5.5), but not for ever
        return found

    def _preface_is_here(self) -> bool:
        """Whether all of the preface has come. Anything else is told at its first wrong byte."""
        left = self._preface_left
        taken = self._data[self._at : self._at + len(left)]
        if not left.startswith(taken):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "the connection does not begin like HTTP/2 (section 3.4)")
        self._at += len(taken)
        self._preface_left = left[len(taken) :]
        return not self._preface_left

    def _check_first(self, kind: int, flags: int) -> None:
        if kind != Kind.SETTINGS or flags & ACK:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "the first frame is not SETTINGS (section 3.4)")
        self._begun = True
        self.earn()  # these are no glitch

    def _check(self, found: Frame, size: int) -> None:
        """What is wrong with a frame by itself, and what it costs."""
        kind = found.kind
        if self._head_of:
            self._check_continuation(found, size)
            return
        on_stream, exact, section, check = _CHECKED[kind]
        if on_stream is not None and on_stream is (found.stream == 0):
            which = "on stream 0" if on_stream else "on a stream"
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"{Kind(kind).name} {which} (section {section})")
        if exact is not None and size != exact:
            detail = f"{Kind(kind).name} of {size} bytes (section {section})"
            if kind == Kind.PRIORITY:
                raise StreamFault(found.stream, Code.FRAME_SIZE_ERROR, detail)
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, detail)
        check(self, found, size)

    def _check_headers(self, found: Frame, size: int) -> None:
        self.earn()
        needed = 5 if found.flags & PRIORITISED else 0
        if found.flags & PADDED:
            needed += 1 + (found.whole[HEAD_BYTES] if size else 0)
        if needed > size:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "padding that is longer than its frame (section 6.2)")
        if not found.flags & END_HEADERS:
            self._head_of = found.stream
            self._continuations = 0

    def _check_continuation(self, found: Frame, size: int) -> None:
        if found.kind != Kind.CONTINUATION or found.stream != self._head_of:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "another frame within a head (section 4.3)")
        self._continuations += 1
        if self._continuations > self._settings.continuations_max or not size:
            detail = (
                f"more than {self._settings.continuations_max} CONTINUATION frames"
                if size
                else "an empty CONTINUATION frame"
            )
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, f"{detail} within a head")
        if found.flags & END_HEADERS:
            self._head_of = 0

    def _check_data(self, found: Frame, size: int) -> None:
        padding = 0
        if found.flags & PADDED:
            padding = 1 + found.whole[HEAD_BYTES] if size else 1
            if padding > size:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "padding that is longer than its frame (section 6.1)")
        if size == padding and not found.flags & END_STREAM:
            self._glitch()  # nothing is in it
        elif size > padding:
            self.earn()

    def _check_settings(self, found: Frame, size: int) -> None:
        self._glitch()
        if size % 6 or (size and found.flags & ACK):
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"SETTINGS of {size} bytes (section 6.5)")
        if size > 6 * SETTINGS_MAX:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, f"more than {SETTINGS_MAX} settings at once")
        for number, value in found.settings():
            least, most, code = _SETTINGS.get(number, (0, value, Code.NO_ERROR))
            if not least <= value <= most:
                raise ConnectionFault(code, f"the setting {number} is {value} (section 6.5.2)")
            if number == ENABLE_PUSH and value and self._role == "client":
                raise ConnectionFault(Code.PROTOCOL_ERROR, "an origin that asks to be pushed to (section 6.5.2)")

    def _check_window(self, found: Frame, size: int) -> None:
        increment = int.from_bytes(found.whole[HEAD_BYTES:], "big") & 0x7FFFFFFF
        if not increment:
            detail = "a window opened by 0 (section 6.9)"
            if found.stream:
                raise StreamFault(found.stream, Code.PROTOCOL_ERROR, detail)
            raise ConnectionFault(Code.PROTOCOL_ERROR, detail)
        if increment < TINY_WINDOW_BYTES:
            self._glitch()

    def _check_goaway(self, found: Frame, size: int) -> None:
        self._glitch()  # one is enough, or two
        if size < 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"GOAWAY of {size} bytes (section 6.8)")

    def _check_update(self, found: Frame, size: int) -> None:
        self._glitch()
        if size < 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"PRIORITY_UPDATE of {size} bytes (RFC 9218 section 7.1)")

    def _count_glitch(self, found: Frame, size: int) -> None:
        self._glitch()

    def _count_reset(self, found: Frame, size: int) -> None:
        self.resets += 1

    def _refuse_push(self, found: Frame, size: int) -> None:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a push, which was not allowed (section 8.4)")

    def _refuse_continuation(self, found: Frame, size: int) -> None:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION without a head (section 6.10)")


ENABLE_PUSH: Final = 0x2

_SETTINGS: Final = {
    ENABLE_PUSH: (0, 1, Code.PROTOCOL_ERROR),
    0x4: (0, 2**31 - 1, Code.FLOW_CONTROL_ERROR),  # INITIAL_WINDOW_SIZE
    0x5: (2**14, 2**24 - 1, Code.PROTOCOL_ERROR),  # MAX_FRAME_SIZE
    0x8: (0, 1, Code.PROTOCOL_ERROR),  # ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3)
    0x9: (0, 1, Code.PROTOCOL_ERROR),  # NO_RFC7540_PRIORITIES (RFC 9218 section 2.1)
}
"""What a setting may be, and the code where it is not. The peer sends them in their order, and each counts."""

SETTINGS_MAX: Final = 64
"""Settings in one frame; there are ten that anybody knows."""

_Check: TypeAlias = Callable[[FrameReader, Frame, int], None]

_CHECKED: Final[dict[int, tuple[bool | None, int | None, str, _Check]]] = {
    Kind.DATA: (True, None, "6.1", FrameReader._check_data),
    Kind.HEADERS: (True, None, "6.2", FrameReader._check_headers),
    Kind.PRIORITY: (True, 5, "6.3", FrameReader._count_glitch),
    Kind.RST_STREAM: (True, 4, "6.4", FrameReader._count_reset),
    Kind.SETTINGS: (False, None, "6.5", FrameReader._check_settings),
    Kind.PUSH_PROMISE: (None, None, "6.6", FrameReader._refuse_push),
    Kind.PING: (False, 8, "6.7", FrameReader._count_glitch),
    Kind.GOAWAY: (False, None, "6.8", FrameReader._check_goaway),
    Kind.WINDOW_UPDATE: (None, 4, "6.9", FrameReader._check_window),
    Kind.CONTINUATION: (None, None, "6.10", FrameReader._refuse_continuation),
    Kind.PRIORITY_UPDATE: (False, None, "7.1 of RFC 9218", FrameReader._check_update),
}
"""What is judged by a frame's head: whether it belongs to a stream, to none, or either; its exact size; its section;
and what else."""
