"""Frames of WebSocket for tests (RFC 6455 section 5.2): made and read here, by nothing that is tested."""

from __future__ import annotations

from itertools import cycle
from typing import Final, NamedTuple

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
KEY: Final = b"mask"


class Frame(NamedTuple):
    """One frame, unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    masked: bool = False


def frame(opcode: int, payload: bytes = b"", *, mask: bytes | None = KEY, fin: bool = True, rsv: int = 0) -> bytes:
    """The bytes of a frame; masked, as a client sends it, or with `mask=None` as a server does."""
    size = len(payload)
    top = 0 if mask is None else 0x80
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([top | size])
    elif size < 65536:
        head += bytes([top | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([top | 127]) + size.to_bytes(8, "big")
    return head + payload if mask is None else head + mask + xored(payload, mask)


def text(words: str, *, mask: bytes | None = KEY) -> bytes:
    """A message of text in one frame."""
    return frame(TEXT, words.encode(), mask=mask)


def close(code: int, reason: str = "", *, mask: bytes | None = KEY) -> bytes:
    """A close frame."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode(), mask=mask)


def xored(data: bytes, mask: bytes) -> bytes:
    """Masked, or unmasked."""
    return bytes([byte ^ key for byte, key in zip(data, cycle(mask), strict=False)])


def read(data: bytes) -> list[Frame]:
    """All frames of some bytes; they must be whole."""
    frames: list[Frame] = []
    while data:
        first, second = data[0], data[1]
        size, at = second & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
        masked = bool(second & 0x80)
        mask = data[at : at + 4] if masked else bytes(4)
        at += 4 * masked
        payload = data[at : at + size]
        assert len(payload) == size, "the last frame is not whole"
        frames.append(Frame(first & 0x0F, xored(payload, mask), bool(first & 0x80), first >> 4 & 7, masked))
        data = data[at + size :]
    return frames
