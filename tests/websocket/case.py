"""A case: what one side of a WebSocket sends, and what RFC 6455 or RFC 7692 wants to become of it.

Each is played from the client's side, whose frames are masked, and from the origin's, whose frames are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.core.websocket_frames import BINARY, CLOSE, KEY, PING, PONG, TEXT, Frame, frame, xored

MESSAGE_BYTES_MAX: Final = 70_000
FRAGMENTS_MAX: Final = 4
SETTINGS: Final = {
    "message_bytes_max": MESSAGE_BYTES_MAX, "fragments_max": FRAGMENTS_MAX, "inflate_ratio_max": 10,
    "inflate_free_bytes": 10_000,
}  # fmt: skip

Piece = Callable[[bytes | None], bytes]
"""The bytes of a frame, with the masking key that the side has."""


def f(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, key: bytes = KEY) -> Piece:
    """A frame."""
    return lambda mask: frame(opcode, payload, mask=None if mask is None else key, fin=fin, rsv=rsv)


def mismasked(opcode: int, payload: bytes = b"") -> Piece:
    """One without a mask where there has to be one, and with one where there must be none."""
    return lambda mask: frame(opcode, payload, mask=KEY if mask is None else None)


def long(opcode: int, payload: bytes, octets: int, length: int | None = None) -> Piece:
    """One whose length has 2 or 8 octets, whatever it is, or says something else than is true."""
    size = len(payload) if length is None else length

    def made(mask: bytes | None) -> bytes:
        head = bytes([0x80 | opcode, (0 if mask is None else 0x80) | (126 if octets == 2 else 127)])
        return head + size.to_bytes(octets, "big") + (payload if mask is None else mask + xored(payload, mask))

    return made


def shut(code: int, reason: bytes = b"") -> Piece:
    """A close frame."""
    return f(CLOSE, code.to_bytes(2, "big") + reason)


def raw(data: bytes) -> Piece:
    """Bytes as they are."""
    return lambda mask: data


@dataclass(frozen=True)
class Passes:
    """The other side gets that, and it goes on."""

    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class Fails:
    """The offender is closed with that code, behind what came before it."""

    code: int
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True)
class Closes:
    """Its close frame goes on as it is, behind that, and nothing else does."""

    payload: bytes
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True)
class Leaves:
    """It sends no more, and has sent no close frame; the other side is told nothing but that."""


Outcome = Passes | Fails | Closes | Leaves


@dataclass(frozen=True)
class Case:
    """One of them."""

    section: str
    name: str
    pieces: tuple[Piece, ...]
    outcome: Outcome
    deflate: bool = False
    """permessage-deflate was agreed to with the side."""

    def __str__(self) -> str:
        return f"{self.section} {self.name}"


def row(section: str, name: str, outcome: Outcome, *pieces: Piece) -> Case:
    """A case of RFC 6455."""
    return Case(section, name, pieces, outcome)


def zrow(section: str, name: str, outcome: Outcome, *pieces: Piece) -> Case:
    """... with permessage-deflate."""
    return Case(section, name, pieces, outcome, deflate=True)


def text(*words: str) -> Passes:
    """Messages of text."""
    return Passes(tuple(Frame(TEXT, word.encode()) for word in words))


def binary(*payloads: bytes) -> Passes:
    """... and of bytes."""
    return Passes(tuple(Frame(BINARY, payload) for payload in payloads))


def pinged(*payloads: bytes) -> tuple[Frame, ...]:
    """Pings."""
    return tuple(Frame(PING, payload) for payload in payloads)


def ponged(*payloads: bytes) -> tuple[Frame, ...]:
    """... and pongs."""
    return tuple(Frame(PONG, payload) for payload in payloads)
