"""One input of the fuzzer of WebSocket: what its bytes mean, and how it is written as a line of the corpus.

As bytes: the settings (role, limits, compression) in the bits of the first, three places to cut the stream at in the
next three, in parts of 256, and then frames. Each is three bytes, its first one as on the line, what is odd about it
and its length, and a payload: so an input that was changed a little is a stream that was changed a little. A payload
that is cut short is a frame that is. As a line, for people:

    server small deflate 40:80:c0 81:hello 01z:a 80zx65:b 88/2:\\x03
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from coulee.backends.websocket_speech import Deflate as Spoken
from coulee.core.codec import Role
from coulee.core.config import WebSocket
from coulee.core.websocket_deflate import Deflate
from fuzz.case import cut_at, escaped

Compression = Literal["plain", "deflate", "anew"]

TIMES: Final = 65
FRAMES_MAX: Final = 64
COMPRESSIONS: Final[tuple[Compression, ...]] = ("plain", "deflate", "anew")

LITTLE: Final = WebSocket(message_bytes_max=1000, fragments_max=3, inflate_ratio_max=0.5, inflate_free_bytes=100)
"""So small that a short input reaches every limit."""

MASK: Final = b"mask"

_HEADER: Final = 4
_TAIL: Final = b"\x00\x00\xff\xff"
_ODD: Final = {"m": 0x80, "x65": 0x40, "z": 0x20, "w": 0x10, "q": 0x08, "h": 0x04}
"""A mask where there must be none, or none where there must be one; the payload 65 times; deflated by us; its length in
16 bits, or in 64, whatever it is; and `HUGE` more than it is."""

HUGE: Final = 70_000

_FRAME: Final = re.compile(r"([0-9a-f]{2})(m?)(x65)?(z?)(w?)(q?)(h?)(?:/(\d+))?:(.*)", re.DOTALL)


@dataclass(frozen=True)
class Frame:
    """A frame of an input; `missing` bytes of its payload are not there."""

    first: int
    payload: bytes
    odd: int = 0
    missing: int = 0

    def has(self, name: str) -> bool:
        """Whether this is odd about it."""
        return bool(self.odd & _ODD[name])


@dataclass(frozen=True)
class Case:
    """A stream of frames, and how it is read."""

    frames: tuple[Frame, ...]
    role: Role = "server"
    small: bool = False  # LITTLE settings, and not those by default
    compression: Compression = "plain"
    cuts: tuple[int, int, int] = (64, 128, 192)

    @property
    def settings(self) -> WebSocket:
        """What is allowed."""
        return LITTLE if self.small else WebSocket()

    def deflate(self, settings: WebSocket) -> Deflate | None:
        """What was agreed with the peer. The window is the largest: whether zlib minds one that is too large depends on
        how bytes come."""
        if self.compression == "plain":
            return None
        anew = self.compression == "anew"
        return Deflate(settings, inflate_bits=15, inflate_anew=anew, deflate_bits=12, deflate_anew=anew)

    @property
    def spoken(self) -> Spoken | None:
        """The same, for somebody else."""
        return None if self.compression == "plain" else Spoken(15, self.compression == "anew")

    @cached_property
    def stream(self) -> bytes:
        """What the peer sends."""
        out = b""
        compressor = zlib.compressobj(wbits=-15)
        for each in self.frames:
            payload = each.payload * (TIMES if each.has("x65") else 1)
            fin = bool(each.first & 0x80)
            if each.has("z"):
                payload = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
                payload = payload.removesuffix(_TAIL) if fin else payload
                if fin and self.compression == "anew":
                    compressor = zlib.compressobj(wbits=-15)
            announced = len(payload) + each.missing + (HUGE if each.has("h") else 0)
            out += self._head(each, announced) + payload
        return out

    def _head(self, frame: Frame, size: int) -> bytes:
        masks = (self.role == "server") is not frame.has("m")
        top = 0x80 if masks else 0
        mask = bytes(4) if masks else b""  # which changes nothing, so that an input can be read
        if frame.has("q") or size > 0xFFFF:
            return bytes((frame.first, top | 127)) + size.to_bytes(8) + mask
        if frame.has("w") or size > 125:
            return bytes((frame.first, top | 126)) + size.to_bytes(2) + mask
        return bytes((frame.first, top | size)) + mask

    @property
    def pieces(self) -> list[bytes]:
        """The stream, cut at three places."""
        return cut_at(self.stream, self.cuts)

    # -- as bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> Case:
        """Every input means something; what is missing is 0."""
        settings, *cuts = data[:_HEADER].ljust(_HEADER, b"\0")
        frames: list[Frame] = []
        at = _HEADER
        while at < len(data) and len(frames) < FRAMES_MAX:
            first, odd, length = data[at : at + 3].ljust(3, b"\0")
            at += 3
            payload = data[at : at + length]
            at += length
            frames.append(Frame(first, payload, odd & 0xFC, length - len(payload)))
        return cls(tuple(frames), "client" if settings & 1 else "server", bool(settings & 2),
                   COMPRESSIONS[(settings >> 2) % 3], (cuts[0], cuts[1], cuts[2]))  # fmt: skip

    def to_bytes(self) -> bytes:
        """What `from_bytes` reads."""
        settings = (self.role == "client") | self.small << 1 | COMPRESSIONS.index(self.compression) << 2
        out = bytes([settings, *self.cuts])
        for each in self.frames:
            out += bytes([each.first, each.odd, len(each.payload) + each.missing]) + each.payload
        return out

    # -- as a line

    @classmethod
    def from_line(cls, line: str) -> Case:
        """Raises `ValueError` for what is no such line."""
        role, size, compression, cuts, *frames = line.split(" ")
        if role not in ("server", "client") or size not in ("small", "large") or compression not in COMPRESSIONS:
            raise ValueError(f"{line!r} does not begin like a line of the corpus")
        one, two, three = bytes.fromhex(cuts.replace(":", " "))
        return cls(tuple([_frame(each) for each in frames if each]), "client" if role == "client" else "server",
                   size == "small", COMPRESSIONS[COMPRESSIONS.index(compression)], (one, two, three))  # fmt: skip

    def to_line(self) -> str:
        """What `from_line` reads."""
        size = "small" if self.small else "large"
        return " ".join([self.role, size, self.compression, bytes(self.cuts).hex(":"), *map(_written, self.frames)])


def _frame(text: str) -> Frame:
    match = _FRAME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no frame")
    first, *odd, missing, payload = match.groups()
    raw = payload.encode("ascii").decode("unicode_escape").encode("latin-1")
    return Frame(int(first, 16), raw, sum(_ODD[each] for each in odd if each), int(missing or 0))


def _written(frame: Frame) -> str:
    odd = "".join(name for name in _ODD if frame.has(name))
    missing = f"/{frame.missing}" if frame.missing else ""
    payload = escaped(frame.payload).replace(" ", "\\x20")
    return f"{frame.first:02x}{odd}{missing}:{payload}"
