"""WebSocket as scripted ends speak it (RFC 6455, RFC 7692): frames and messages, by a writer and a reader of their own,
which share no code with coulee's codecs, nor with what those are built on.

Rules:

- The writer writes what it is told, whether it may be said or not.
- The reader judges everything, strictly, and names the first rule that was broken: `broken`. It reads nothing behind
  that, nor behind a close frame.
"""

from __future__ import annotations

import zlib
from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Final, TypeAlias

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

NO_CODE: Final = 1005
"""What stands for a close frame without a code (section 7.4.1)."""

KEY: Final = b64encode(b"sixteen bytes...").decode()
"""What a client asks with that need not guess (section 4.1)."""

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TAIL: Final = b"\x00\x00\xff\xff"
_NEVER_SENT: Final = (1004, 1005, 1006, 1015)
_FRAME_BYTES_MAX: Final = 64 * 1024 * 1024  # peers are no proxies: whether a frame is too large is for those to say

Code: TypeAlias = tuple[int, str]
"""Of a close frame, with the words behind it."""

Control: TypeAlias = tuple[int, bytes]
"""A control frame: its opcode, and what it carries."""


def accept_of(key: str) -> str:
    """What answers to a Sec-WebSocket-Key (section 4.2.2)."""
    return b64encode(sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()


# ----------------------------------------------------------------------------------------------------------- writing


def frame(opcode: int, payload: bytes = b"", *, mask: bytes = b"", fin: bool = True, rsv: int = 0) -> bytes:
    """One frame (section 5.2), masked by four bytes if they are given; `rsv` is of three bits, RSV1 the highest."""
    size = len(payload)
    first = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if size < 126:
        length = bytes([size])
    elif size < 65_536:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    if not mask:
        return first + length + payload
    return first + bytes([length[0] | 0x80]) + length[1:] + mask + _masked(payload, mask)


def _masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def close_payload(code: int, words: str = "") -> bytes:
    """What a close frame carries; 1005 is nothing."""
    return b"" if code == NO_CODE else code.to_bytes(2, "big") + words.encode()


@dataclass(frozen=True, slots=True)
class Deflate:
    """What permessage-deflate was agreed to be in one direction: the window, and whether each message begins anew."""

    bits: int = 15
    afresh: bool = False


class Writer:
    """Makes the frames of messages, compressed where `deflate` says how."""

    def __init__(self, *, mask: bytes = b"", deflate: Deflate | None = None) -> None:
        self.mask = mask
        self._deflate = deflate
        self._compressor = _compressor(deflate)

    def message(self, data: str | bytes, fragments: int = 1) -> list[bytes]:
        """The frames of a message, of about the same size."""
        payload, opcode, rsv = (data.encode(), TEXT, 0) if isinstance(data, str) else (data, BINARY, 0)
        if self._deflate is not None and self._compressor is not None:
            payload = self._compressor.compress(payload) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
            payload, rsv = payload.removesuffix(_TAIL), 4
            if self._deflate.afresh:
                self._compressor = _compressor(self._deflate)
        size = -(-len(payload) // fragments)
        return [
            frame(CONTINUATION if at else opcode, payload[at * size : (at + 1) * size], mask=self.mask,
                  fin=at == fragments - 1, rsv=0 if at else rsv)
            for at in range(fragments)
        ]  # fmt: skip

    def control(self, opcode: int, payload: bytes = b"") -> bytes:
        """A ping, a pong or a close frame."""
        return frame(opcode, payload, mask=self.mask)


def _compressor(deflate: Deflate | None) -> zlib._Compress | None:
    return None if deflate is None else zlib.compressobj(wbits=-deflate.bits)


# ----------------------------------------------------------------------------------------------------------- reading


class BrokenError(Exception):
    """A rule was broken."""


@dataclass(slots=True)
class Reader:
    """What one side says. `masked` is whether its frames have to be, which those of clients do (section 5.1).

    `frames` counts them, `longest` is the largest; `inflated` counts messages that came compressed; `closing` is the
    close frame.
    """

    masked: bool
    deflate: Deflate | None = None
    messages: list[str | bytes] = field(default_factory=list[str | bytes])
    pings: list[bytes] = field(default_factory=list[bytes])
    pongs: list[bytes] = field(default_factory=list[bytes])
    closing: Code | None = None
    broken: str = ""
    frames: int = 0
    longest: int = 0
    inflated: int = 0
    unread: bytearray = field(default_factory=bytearray)
    _pieces: list[bytes] = field(default_factory=list[bytes])  # of a message that is not whole
    _opcode: int = 0  # of it; 0 where there is none
    _deflated: bool = False
    _inflater: zlib._Decompress | None = None

    @property
    def between_frames(self) -> bool:
        """Whether nothing is half said."""
        return not (self.unread or self.broken)

    @property
    def in_message(self) -> bool:
        """Whether more fragments are to come."""
        return self._opcode != 0

    def feed(self, data: bytes) -> list[Control]:
        """Take bytes; the control frames that they complete. Messages are in `messages`."""
        heard: list[Control] = []
        self.unread += data
        while not self.broken:
            try:
                found = self._next_frame()
                if found is None:
                    break
                told = self._take(*found)
            except BrokenError as error:
                self.broken = str(error)
                break
            if told is not None:
                heard.append(told)
        return heard

    def _next_frame(self) -> tuple[int, bool, int, bytes] | None:
        """The opcode, whether it is the last of its message, the three bits, and what it carries."""
        unread = self.unread
        if unread and self.closing is not None:
            raise BrokenError("bytes behind a close frame")
        if len(unread) < 2:
            return None
        size, at = unread[1] & 0x7F, 2
        if size > 125:
            width = 2 if size == 126 else 8
            at += width
            if len(unread) < at:
                return None
            short, size = size, int.from_bytes(unread[2:at], "big")
            if size < (126 if short == 126 else 65_536):
                raise BrokenError("a length in more bytes than it needs")
            if size > _FRAME_BYTES_MAX:
                raise BrokenError(f"a frame of {size} bytes")
        if bool(unread[1] & 0x80) != self.masked:
            raise BrokenError("a frame that is masked" if not self.masked else "a frame that is not masked")
        mask = b""
        if self.masked:
            mask = bytes(unread[at : at + 4])
            at += 4
        if len(unread) < at + size:
            return None
        payload = bytes(unread[at : at + size])
        first = unread[0]
        del unread[: at + size]
        self.frames += 1
        self.longest = max(self.longest, size)
        return first & 0xF, bool(first & 0x80), first >> 4 & 7, _masked(payload, mask) if mask else payload

    def _take(self, opcode: int, fin: bool, rsv: int, payload: bytes) -> Control | None:
        if rsv & 3 or (rsv and (self.deflate is None or opcode not in (TEXT, BINARY))):
            raise BrokenError(f"reserved bits: {rsv:03b}")
        if opcode >= 8:
            if not fin or len(payload) > 125:
                raise BrokenError("a control frame that is cut, or longer than 125 bytes")
            return self._control(opcode, payload)
        if opcode not in (CONTINUATION, TEXT, BINARY):
            raise BrokenError(f"the opcode {opcode}")
        if (opcode == CONTINUATION) != self.in_message:
            raise BrokenError("a fragment of no message" if opcode == CONTINUATION else "a message within a message")
        if opcode:
            self._opcode, self._deflated = opcode, bool(rsv)
        self._pieces.append(payload)
        if not fin:
            return None
        whole, self._pieces = b"".join(self._pieces), []
        if self._deflated:
            whole = self._inflated(whole)
        is_text, self._opcode = self._opcode == TEXT, 0
        self.messages.append(_text(whole) if is_text else whole)
        return None

    def _inflated(self, data: bytes) -> bytes:
        deflate = self.deflate
        assert deflate is not None
        if deflate.afresh:
            self._inflater = None
        self.inflated += 1
        whole, data = b"", data + _TAIL
        while data and (self._inflater is not None or data != _TAIL):
            if self._inflater is None:
                self._inflater = zlib.decompressobj(wbits=-deflate.bits)
            try:
                whole += self._inflater.decompress(data)
            except zlib.error as error:
                raise BrokenError(f"what cannot be inflated: {error}") from error
            data = self._inflater.unused_data
            if self._inflater.eof:  # a final block (section 7.2.3.4), behind which another may begin
                self._inflater = None
        return whole

    def _control(self, opcode: int, payload: bytes) -> Control:
        if opcode == PING:
            self.pings.append(payload)
            return opcode, payload
        if opcode == PONG:
            self.pongs.append(payload)
            return opcode, payload
        if opcode != CLOSE:
            raise BrokenError(f"the opcode {opcode}")
        if len(payload) == 1:
            raise BrokenError("half a code in a close frame")
        code = int.from_bytes(payload[:2], "big") if payload else NO_CODE
        words = _text(payload[2:])
        if payload and (not 1000 <= code < 5000 or code in _NEVER_SENT or 1015 < code < 3000):
            raise BrokenError(f"the code {code} in a close frame")
        self.closing = code, words
        return opcode, payload


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BrokenError("text that is no UTF-8") from error


# ------------------------------------------------------------------------------------------------ permessage-deflate


def deflate_of(agreed: str) -> tuple[Deflate | None, Deflate | None]:
    """What a Sec-WebSocket-Extensions of a 101 has agreed for what a client says, and for what a server says."""
    name, *parameters = [each.strip() for each in agreed.split(";")]
    if name != "permessage-deflate":
        return None, None
    of = {name: value for name, _, value in (each.partition("=") for each in parameters)}
    client, server = (
        Deflate(max(9, int(of.get(f"{side}_max_window_bits", "15"))), f"{side}_no_context_takeover" in of)
        for side in ("client", "server")
    )
    return client, server


def agree(offers: str) -> str:
    """What a server agrees to that does whatever the first offer of it wants (RFC 7692 section 7.1); "" where there is
    none."""
    for offer in offers.split(","):
        name, *parameters = [each.strip() for each in offer.split(";")]
        if name == "permessage-deflate":
            return "; ".join([name, *(each for each in parameters if each != "client_max_window_bits")])
    return ""
