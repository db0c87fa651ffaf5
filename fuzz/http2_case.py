"""One input of the fuzzer of HTTP/2: what its bytes mean, and how it is written as a line of the corpus.

As bytes: the settings (role, limits, who is slow) in the bits of the first, three places to cut the stream at in the
next three, in parts of 256, and then frames. Each is four bytes, its type, flags, stream and length, and a payload: so
an input that was changed a little is a stream that was changed a little. With the highest bit of the type set the
payload is there 65 times, so that short inputs reach large limits. A payload that is cut short is a frame that is. As a
line, for people:

    server small slow 40:80:c0 4/0/0: 1/5/1:\\x82\\x86\\x84\\x41\\x01a 0x64/1/1:abc
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from coulee.core.codec import PREFACE, Role
from coulee.core.config import Config, Http2
from fuzz.case import SMALL, cut_at, escaped

TIMES: Final = 65
FRAMES_MAX: Final = 64

LITTLE: Final = Config(
    limits=replace(SMALL, fields_max=6, head_bytes_max=192, line_bytes_max=80),
    http2=Http2(streams_max=5, stream_window_bytes=300, connection_window_bytes=65535,
                continuations_max=2, head_bytes_max=4096),
)  # fmt: skip
"""So small that a short input reaches every limit."""

_HEADER: Final = 4


@dataclass(frozen=True)
class Record:
    """A frame of an input; `missing` bytes of its payload are not there."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    times: int = 1
    missing: int = 0

    @property
    def raw(self) -> bytes:
        """The frame."""
        payload = self.payload * self.times
        length = len(payload) + self.missing
        return length.to_bytes(3) + bytes((self.kind, self.flags)) + self.stream.to_bytes(4) + payload


@dataclass(frozen=True)
class Case:
    """A stream of frames, and how it is read."""

    records: tuple[Record, ...]
    role: Role = "server"
    small: bool = False  # LITTLE settings, and not those by default
    slow: bool = False  # bytes are consumed later, and requests answered behind their end
    begun: bool = True  # the peer has begun as it must, before all this
    cuts: tuple[int, int, int] = (64, 128, 192)

    @property
    def config(self) -> Config:
        """The settings of the codec."""
        return LITTLE if self.small else Config()

    @cached_property
    def stream(self) -> bytes:
        """What the peer sends."""
        begin = (PREFACE if self.role == "server" else b"") + bytes.fromhex("000000040000000000 000000040100000000")
        return (begin if self.begun else b"") + b"".join([record.raw for record in self.records])

    @property
    def pieces(self) -> list[bytes]:
        """The stream, cut at three places."""
        return cut_at(self.stream, self.cuts)

    # -- as bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> Case:
        """Every input means something; what is missing is 0."""
        settings, *cuts = data[:_HEADER].ljust(_HEADER, b"\0")
        records: list[Record] = []
        at = _HEADER
        while at < len(data) and len(records) < FRAMES_MAX:
            kind, flags, stream, length = data[at : at + 4].ljust(4, b"\0")
            at += 4
            payload = data[at : at + length]
            at += length
            times = TIMES if kind & 0x80 else 1
            records.append(Record(kind & 0x7F, flags, stream, payload, times, length - len(payload)))
        return cls(tuple(records), "client" if settings & 1 else "server", bool(settings & 2), bool(settings & 4),
                   not settings & 8, (cuts[0], cuts[1], cuts[2]))  # fmt: skip

    def to_bytes(self) -> bytes:
        """What `from_bytes` reads."""
        settings = (self.role == "client") | self.small << 1 | self.slow << 2 | (not self.begun) << 3
        out = bytes([settings, *self.cuts])
        for each in self.records:
            kind = each.kind | (0x80 if each.times > 1 else 0)
            out += bytes([kind, each.flags, each.stream, len(each.payload) + each.missing]) + each.payload
        return out

    # -- as a line

    @classmethod
    def from_line(cls, line: str) -> Case:
        """Raises `ValueError` for what is no such line."""
        who, size, when, cuts, *frames = line.split(" ")
        role, _, bare = who.partition("-")
        if role not in ("server", "client") or size not in ("small", "large") or when not in ("slow", "quick"):
            raise ValueError(f"{line!r} does not begin like a line of the corpus")
        one, two, three = bytes.fromhex(cuts.replace(":", " "))
        return cls(tuple([_record(each) for each in frames if each]), "client" if role == "client" else "server",
                   size == "small", when == "slow", bare != "bare", (one, two, three))  # fmt: skip

    def to_line(self) -> str:
        """What `from_line` reads."""
        who = self.role if self.begun else f"{self.role}-bare"
        size, when = "small" if self.small else "large", "slow" if self.slow else "quick"
        return " ".join([who, size, when, bytes(self.cuts).hex(":"), *map(_written, self.records)])


def _record(text: str) -> Record:
    numbers, _, payload = text.partition(":")
    kind, flags, stream, *missing = numbers.split("/")
    kind, _, times = kind.partition("x")
    raw = payload.encode("ascii").decode("unicode_escape").encode("latin-1")
    return Record(int(kind), int(flags), int(stream), raw, int(times or 1), int(missing[0]) if missing else 0)


def _written(record: Record) -> str:
    times = f"x{record.times}" if record.times > 1 else ""
    missing = f"/{record.missing}" if record.missing else ""
    payload = escaped(record.payload).replace(" ", "\\x20")
    return f"{record.kind}{times}/{record.flags}/{record.stream}{missing}:{payload}"
