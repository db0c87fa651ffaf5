"""One input of the fuzzer: what its bytes mean, and how it is written as a line of the corpus.

As bytes: the settings (role, method asked, limits, when a server answers) in the bits of the first, three places to cut
the stream at in the next three, in parts of 256, and then the stream. As a line, for people:

    server small late 40:80:c0 GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from coulee.core.codec import Role
from coulee.core.config import Limits

METHODS: Final = ("GET", "HEAD", "POST", "OPTIONS")

SMALL: Final = Limits(
    head_bytes_max=160,
    line_bytes_max=48,
    fields_max=4,
    interims_max=2,
    trailers_bytes_max=32,
    trailer_fields_max=2,
    chunk_line_bytes_max=12,
    chunk_extensions_bytes_max=16,
    buffer_high_bytes=192,
    buffer_low_bytes=64,
)
"""So small that a short input reaches every one of them."""

_HEADER: Final = 4


@dataclass(frozen=True)
class Case:
    """A stream, and how it is read."""

    stream: bytes
    role: Role = "server"
    asked: str = "GET"  # the method of the request that a client's answers are to
    small: bool = False  # SMALL limits, and not those by default
    early: bool = False  # a server answers behind the head, and not behind the end
    cuts: tuple[int, int, int] = (64, 128, 192)

    @property
    def limits(self) -> Limits:
        """The limits of the codec."""
        return SMALL if self.small else Limits()

    @property
    def pieces(self) -> list[bytes]:
        """The stream, cut at three places."""
        return cut_at(self.stream, self.cuts)

    # -- as bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> Case:
        """Every input means something; what is missing is 0."""
        settings, *cuts = data[:_HEADER].ljust(_HEADER, b"\0")
        return cls(data[_HEADER:], "client" if settings & 1 else "server", METHODS[settings >> 1 & 3],
                   bool(settings & 8), bool(settings & 16), (cuts[0], cuts[1], cuts[2]))  # fmt: skip

    def to_bytes(self) -> bytes:
        """What `from_bytes` reads."""
        settings = (self.role == "client") | METHODS.index(self.asked) << 1 | self.small << 3 | self.early << 4
        return bytes([settings, *self.cuts]) + self.stream

    # -- as a line

    @classmethod
    def from_line(cls, line: str) -> Case:
        """Raises `ValueError` for what is no such line."""
        who, size, when, cuts, stream = line.split(" ", 4)
        role, _, asked = who.partition("-")
        one, two, three = bytes.fromhex(cuts.replace(":", " "))
        if role not in ("server", "client") or size not in ("small", "large") or when not in ("early", "late"):
            raise ValueError(f"{line!r} does not begin like a line of the corpus")
        raw = stream.encode("ascii").decode("unicode_escape").encode("latin-1")
        return cls(raw, "client" if role == "client" else "server", asked or "GET", size == "small", when == "early",
                   (one, two, three))  # fmt: skip

    def to_line(self) -> str:
        """What `from_line` reads."""
        who = f"client-{self.asked}" if self.role == "client" else "server"
        size, when = "small" if self.small else "large", "early" if self.early else "late"
        return f"{who} {size} {when} {bytes(self.cuts).hex(':')} {escaped(self.stream)}"


_NAMED: Final = {0x0D: "\\r", 0x0A: "\\n", 0x09: "\\t", 0x5C: "\\\\"}


def cut_at(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    """A stream, cut at these places, which are in parts of 256."""
    at = [0, *sorted(cut * len(stream) // 256 for cut in cuts), len(stream)]
    return [stream[one:two] for one, two in pairwise(at) if one < two]


def escaped(data: bytes) -> str:
    """Bytes as they stand in a literal of Python."""
    return "".join([_NAMED.get(byte) or (chr(byte) if 0x20 <= byte <= 0x7E else f"\\x{byte:02x}") for byte in data])
