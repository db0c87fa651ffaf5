"""Frames of HTTP/2 built and cut by hand, for tests on bytes: no code of ours or of h2's is in it.

    client = PREFACE + settings() + headers(1, get("/a"))
    assert [frame.name for frame in parse(answer)] == ["SETTINGS", "SETTINGS", "HEADERS", "DATA"]

Rules: a builder builds what it is told, be it wrong (a length that lies is `frame(..., length=9)`); only `parse` and
`cut` are strict. A field block from hpack belongs to a connection, with its one `Encoder` and one `Decoder`; one of
`fields` without an encoder leaves no mark in a table, and can be sent anywhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
NAMES = ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE",
         "CONTINUATION")  # fmt: skip

ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)
ENABLE_CONNECT_PROTOCOL = 8
NO_RFC7540_PRIORITIES = 9

WINDOW = 65535  # of a connection and of its streams, until something else is said (RFC 9113 section 6.9.2)
FRAME_MAX = 16384  # what everybody must take (section 4.2)

Pairs = list[tuple[str, str]]


class Code(IntEnum):
    """Of RST_STREAM and GOAWAY (section 7)."""

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


@dataclass(frozen=True)
class Frame:
    """A frame as it was sent; its payload still has the padding, if any."""

    type: int
    flags: int
    stream: int
    payload: bytes

    @property
    def name(self) -> str:
        """Of its type."""
        return NAMES[self.type] if self.type < len(NAMES) else f"unknown {self.type:#x}"

    @property
    def ends(self) -> bool:
        """Whether it ends its stream."""
        return self.type in (DATA, HEADERS) and bool(self.flags & END_STREAM)

    @property
    def acks(self) -> bool:
        """Whether it says that a SETTINGS or a PING has arrived."""
        return self.type in (SETTINGS, PING) and bool(self.flags & ACK)

    @property
    def content(self) -> bytes:
        """What is in a DATA, HEADERS, PUSH_PROMISE or CONTINUATION, without padding and what stands before."""
        content = self.payload
        if self.flags & PADDED and self.type in (DATA, HEADERS, PUSH_PROMISE):
            assert content[0] < len(content), f"padding that is longer than its frame: {self}"
            content = content[1 : len(content) - content[0]]
        if self.type == HEADERS and self.flags & WITH_PRIORITY:
            content = content[5:]
        return content[4:] if self.type == PUSH_PROMISE else content

    @property
    def code(self) -> Code:
        """The error code of a RST_STREAM or a GOAWAY."""
        assert self.type in (RST_STREAM, GOAWAY), self
        return Code(int.from_bytes(self.payload[-4:] if self.type == RST_STREAM else self.payload[4:8]))

    @property
    def last(self) -> int:
        """The last stream that a GOAWAY speaks of."""
        assert self.type == GOAWAY, self
        return int.from_bytes(self.payload[:4])

    @property
    def increment(self) -> int:
        """Of a WINDOW_UPDATE."""
        assert self.type == WINDOW_UPDATE, self
        return int.from_bytes(self.payload)

    @property
    def values(self) -> dict[int, int]:
        """Of a SETTINGS."""
        assert self.type == SETTINGS, self
        return dict(struct.iter_unpack("!HI", self.payload))

    def __str__(self) -> str:
        told = f" {self.code.name}" if self.type in (RST_STREAM, GOAWAY) and len(self.payload) >= 4 else ""
        return f"{self.name}(stream {self.stream}, flags {self.flags:#x}, {len(self.payload)} bytes{told})"


# ---------------------------------------------------------------------------------------------------------- built


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Any frame (section 4.1). `stream` may have the reserved bit set."""
    length = len(payload) if length is None else length
    return length.to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def headers(
    stream: int, block: bytes, *, end: bool = True, more: bool = False, padding: int | None = None, flags: int = 0,
    priority: bytes = b"",
) -> bytes:  # fmt: skip
    """HEADERS. `end` ends the stream, `more` tells that CONTINUATION follows, `priority` are five bytes of it."""
    flags |= end * END_STREAM | (not more) * END_HEADERS | (WITH_PRIORITY if priority else 0)
    return _padded(HEADERS, flags, stream, priority + block, padding)


def continuation(stream: int, block: bytes, *, more: bool = False, flags: int = 0) -> bytes:
    """The rest of a field block, or some of it."""
    return frame(CONTINUATION, flags | (not more) * END_HEADERS, stream, block)


def data(stream: int, content: bytes = b"", *, end: bool = False, padding: int | None = None, flags: int = 0) -> bytes:
    """DATA. `padding` is how many bytes of it; None is without the flag."""
    return _padded(DATA, flags | end * END_STREAM, stream, content, padding)


def _padded(kind: int, flags: int, stream: int, payload: bytes, padding: int | None) -> bytes:
    if padding is not None:
        flags |= PADDED
        payload = bytes((padding,)) + payload + bytes(padding)
    return frame(kind, flags, stream, payload)


def settings(values: dict[int, int] | Iterable[tuple[int, int]] = (), *, ack: bool = False, stream: int = 0) -> bytes:
    """SETTINGS: numbers with their values, in this order."""
    pairs = values.items() if isinstance(values, dict) else values
    return frame(SETTINGS, ack * ACK, stream, b"".join(struct.pack("!HI", *pair) for pair in pairs))


def rst(stream: int, code: int = Code.CANCEL) -> bytes:
    """RST_STREAM."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4))


def goaway(last: int = 0, code: int = Code.NO_ERROR, debug: bytes = b"", *, stream: int = 0) -> bytes:
    """GOAWAY."""
    return frame(GOAWAY, 0, stream, last.to_bytes(4) + code.to_bytes(4) + debug)


def ping(content: bytes = b"are you?", *, ack: bool = False, stream: int = 0) -> bytes:
    """PING."""
    return frame(PING, ack * ACK, stream, content)


def window_update(stream: int, increment: int) -> bytes:
    """WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4))


def priority(stream: int, depends_on: int = 0, weight: int = 15) -> bytes:
    """PRIORITY, which nobody heeds any more but that must be well formed."""
    return frame(PRIORITY, 0, stream, depends_on.to_bytes(4) + bytes((weight,)))


def push_promise(stream: int, promised: int, block: bytes, *, flags: int = END_HEADERS) -> bytes:
    """PUSH_PROMISE."""
    return frame(PUSH_PROMISE, flags, stream, promised.to_bytes(4) + block)


def fields(pairs: Iterable[tuple[str, str] | tuple[bytes, bytes]], encoder: Encoder | None = None) -> bytes:
    """A field block: by the encoder, or of literals that are never indexed (RFC 7541 section 6.2.2)."""
    if encoder is not None:
        return bytes(encoder.encode(list(pairs)))
    return b"".join(b"\0" + string(name) + string(value) for name, value in pairs)


def string(value: str | bytes) -> bytes:
    """A string of HPACK without Huffman's code (RFC 7541 section 5.2)."""
    raw = value.encode("latin-1") if isinstance(value, str) else value
    return integer(len(raw), 7) + raw


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """An integer of HPACK in the lower `bits` of a byte whose others are in `first` (RFC 7541 section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    out = bytearray((first | most,))
    value -= most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def request(
    path: str = "/", *extra: tuple[str, str], method: str = "GET", scheme: str = "http", authority: str = "a"
) -> Pairs:
    """The fields of a request, to be changed where it is to be wrong."""
    return [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path), *extra]


def get(path: str = "/", *extra: tuple[str, str]) -> bytes:
    """The block of a GET."""
    return fields(request(path, *extra))


def post(path: str = "/", *extra: tuple[str, str]) -> bytes:
    """The block of a POST."""
    return fields(request(path, *extra, method="POST"))


# ------------------------------------------------------------------------------------------------------------ cut


def cut(raw: bytes, *, strict: bool = True) -> tuple[list[Frame], bytes]:
    """The whole frames at the beginning of some bytes, and what is left. `strict` is not for frames of a test, which
    may have the reserved bit set."""
    frames: list[Frame] = []
    at = 0
    while len(raw) - at >= 9:
        end = at + 9 + int.from_bytes(raw[at : at + 3])
        if end > len(raw):
            break
        stream = int.from_bytes(raw[at + 5 : at + 9])
        assert stream < 2**31 or not strict, "the reserved bit is set"
        frames.append(Frame(raw[at + 3], raw[at + 4], stream & 0x7FFFFFFF, raw[at + 9 : end]))
        at = end
    return frames, raw[at:]


def parse(raw: bytes) -> list[Frame]:
    """The frames of bytes that have nothing else in them."""
    frames, rest = cut(raw)
    assert not rest, f"{len(rest)} bytes that are no frame"
    return frames


def decoded(frames: Iterable[Frame], decoder: Decoder | None = None) -> list[tuple[int, Pairs, bool]]:
    """The field blocks in some frames, in their order: stream, fields, and whether they end it. Needs all blocks of a
    connection from its first one on, or one `Decoder` for it."""
    decoder = decoder or Decoder()
    found: list[tuple[int, Pairs, bool]] = []
    block, ends = b"", False
    for each in frames:
        if each.type == HEADERS:
            block, ends = each.content, each.ends
        elif each.type == CONTINUATION:
            block += each.payload
        else:
            continue
        if each.flags & END_HEADERS:
            pairs = [
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in decoder.decode(block, raw=True)
            ]
            found.append((each.stream, pairs, ends))
    return found
