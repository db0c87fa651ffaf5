"""One side of a WebSocket whose messages are seen: bytes to whole messages and back (RFC 6455), by wsproto's frames.

    bytes --> FrameProtocol --[Bounds, Deflate]--> frames --> Message, Ping, Pong, Closing
    Message, Ping, Pong, Closing --> frames --> bytes

Rules:

- What breaks a rule, or is larger than the settings allow, raises `Fault`, which has the code to close with; behind it,
  and behind a close frame, nothing is read. A frame that announces too much is refused before it has come.
- A message is given out whole, and goes out as one frame: how it was cut is no part of it (section 5.4).
- wsproto takes its masking keys from the operating system. Ours are drawn from the machine's own randomness, so that
  what is sent is the same in a replay.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import shake_128
from io import BytesIO, StringIO
from random import Random
from typing import Final, TypeAlias

from wsproto.extensions import Extension
from wsproto.frame_protocol import (
    CloseReason,
    Frame,
    FrameDecoder,
    FrameProtocol,
    Opcode,
    ParseFailed,
    RsvBits,
    XorMaskerSimple,
)

from coulee.core.codec import Role
from coulee.core.config import WebSocket
from coulee.core.websocket import NO_CODE, Closing, Message, Sender
from coulee.core.websocket_deflate import Deflate

TOO_LARGE: Final = 1009
"""What the sender of too much is closed with (section 7.4.1)."""

NO_UTF8: Final = 1007
"""... of text that is none."""

_KEYS_AT_ONCE: Final = 64
_LONG_BYTES: Final = 2048
_NOT_RESERVED: Final = RsvBits(False, False, False)


class Fault(Exception):
    """The peer broke a rule, or sent too much. `code` is what it is closed with."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(slots=True)
class Ping:
    """Asks for a pong with the same payload (section 5.5.2)."""

    payload: bytes


@dataclass(slots=True)
class Pong:
    """Answers a ping, or tells that its sender is there (section 5.5.3)."""

    payload: bytes


News: TypeAlias = Message | Ping | Pong | Closing


class WebSocketCodec:
    """Reads what `sender` sends and writes to it. `role` is ours: who takes that of a `"client"` masks."""

    __slots__ = ("_binary", "_bounds", "_frames", "_read", "_sender", "_text")

    def __init__(self, role: Role, sender: Sender, settings: WebSocket, deflate: Deflate | None, rng: Random) -> None:
        self._sender: Sender = sender
        self._bounds = Bounds(settings)
        extensions: list[Extension] = [self._bounds] if deflate is None else [self._bounds, deflate]
        keys = MaskingKeys(rng) if role == "client" else None
        self._frames = _Frames(role == "client", extensions, keys)
        self._read = False  # there is nothing behind it
        # What there is of a message that comes in pieces: they are put together as they come, because there may be
        # as many as it has bytes.
        self._text: StringIO | None = None
        self._binary: BytesIO | None = None

    # -- reading

    def feed(self, data: bytes) -> None:
        """Take in bytes of the peer."""
        if not self._read:
            self._frames.receive_bytes(data)

    def next_news(self) -> News | None:
        """What has come next, if it is here as a whole. Raises `Fault`."""
        if self._read:
            return None
        try:
            for frame in self._frames.received_frames():
                news = self._news_of(frame)
                if news is not None:
                    return news
        except ParseFailed as failed:
            self._read = True
            raise self._fault(failed) from failed
        return None

    def stop(self) -> None:
        """Read nothing more."""
        self._read = True

    def _news_of(self, frame: Frame) -> News | None:
        opcode, payload, _, whole = frame
        if isinstance(payload, tuple):
            self._read = True
            code, reason = payload
            return Closing(int(code), reason, self._sender)
        if opcode is Opcode.TEXT:
            assert isinstance(payload, str)
            if self._text is None:
                if whole:
                    return Message(payload, self._sender)
                self._text = StringIO()
            self._text.write(payload)
            if whole:
                text, self._text = self._text, None
                return Message(text.getvalue(), self._sender)
            return None
        assert isinstance(payload, bytes)
        if opcode is Opcode.BINARY:
            if self._binary is None:
                if whole:
                    return Message(payload, self._sender)
                self._binary = BytesIO()
            self._binary.write(payload)
            if whole:
                binary, self._binary = self._binary, None
                return Message(binary.getvalue(), self._sender)
            return None
        return Ping(payload) if opcode is Opcode.PING else Pong(payload)

    def _fault(self, failed: ParseFailed) -> Fault:
        """What wsproto has found, in words that name the setting where it is one of ours."""
        code = int(failed.code)
        detail = str(failed)
        if self._bounds.broken:
            detail = self._bounds.broken
        elif code == TOO_LARGE:
            detail = "a message that inflates to more than is allowed"
        elif detail == _OF_EXTENSION:
            detail = "a compressed message that cannot be inflated, or a bit of compression where it must not be"
        elif code == NO_UTF8:
            detail = "text that is not UTF-8 (RFC 6455 section 8.1)"
        return Fault(code, detail)

    # -- writing

    def write(self, data: str | bytes) -> bytes:
        """A message. Raises `UnicodeEncodeError` for text that UTF-8 has no bytes for."""
        return bytes(self._frames.send_data(data))

    def write_ping(self, payload: bytes) -> bytes:
        """See `Ping`."""
        return bytes(self._frames.ping(payload))

    def write_pong(self, payload: bytes) -> bytes:
        """See `Pong`."""
        return bytes(self._frames.pong(payload))

    def write_close(self, code: int, reason: str) -> bytes:
        """A close frame; for 1005 one without a code. A reason that is too long is cut."""
        return bytes(self._frames.close(None, None) if code == NO_CODE else self._frames.close(code, reason))


_OF_EXTENSION: Final = "error in extension"


class Bounds(Extension):
    """How large a message may be on the line, and in how many frames: looked at where wsproto reads the head of one."""

    name = "bounds"

    def __init__(self, settings: WebSocket) -> None:
        self._bytes_max = settings.message_bytes_max
        self._fragments_max = settings.fragments_max
        self._came = self._comes = (0, 0)  # bytes and frames of the message, without the frame that comes and with it
        self.broken = ""  # what was too much

    def enabled(self) -> bool:
        """It always is: nobody has to agree to it."""
        return True

    def offer(self) -> bool:
        """It is nobody's business but ours."""
        return False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """The head of a frame is here. wsproto comes again with the same one while its mask is not."""
        if opcode.iscontrol():
            return _NOT_RESERVED
        size, frames = self._came if opcode is Opcode.CONTINUATION else (0, 0)
        self._comes = (size + payload_length, frames + 1)
        if size + payload_length > self._bytes_max:
            self.broken = f"a message of more than {self._bytes_max} bytes (message_bytes_max)"
            return CloseReason.MESSAGE_TOO_BIG
        if frames >= self._fragments_max:
            self.broken = f"a message in more than {self._fragments_max} frames (fragments_max)"
            return CloseReason.MESSAGE_TOO_BIG
        return _NOT_RESERVED

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> None:
        """The frame has come."""
        self._came = self._comes


_BAD_GATEWAY: Final = 1014
"""A code that IANA has registered, and wsproto does not know."""


class _Frames(FrameProtocol):
    """wsproto's frames, but for where masking keys come from, and one code more."""

    def __init__(self, client: bool, extensions: list[Extension], keys: MaskingKeys | None) -> None:
        super().__init__(client, extensions)
        self._keys = keys

    def _process_close(self, frame: Frame) -> Frame:
        payload = frame.payload
        assert isinstance(payload, bytes)
        if payload[:2] != struct.pack("!H", _BAD_GATEWAY):
            return super()._process_close(frame)
        told = super()._process_close(frame._replace(payload=struct.pack("!H", 1000) + payload[2:])).payload
        assert isinstance(told, tuple)
        return frame._replace(payload=(_BAD_GATEWAY, told[1]))

    def _serialize_frame(self, opcode: Opcode, payload: bytes | bytearray = b"", fin: bool = True) -> bytearray:
        keys = self._keys
        if keys is None:
            return super()._serialize_frame(opcode, payload, fin)
        rsv, data = _NOT_RESERVED, bytes(payload)
        for extension in reversed(self.extensions):
            rsv, data = extension.frame_outbound(self, opcode, rsv, data, fin)
        first = fin << 7 | rsv.rsv1 << 6 | rsv.rsv2 << 5 | rsv.rsv3 << 4 | opcode
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", first, 0x80 | size)
        elif size < 65536:
            head = struct.pack("!BBH", first, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", first, 0x80 | 127, size)
        key = keys.next()
        return bytearray(head + key + masked(data, key))


class MaskingKeys:
    """Masking keys of which none tells anything of the next (RFC 6455 section 10.3): what a hash function makes of a
    secret and a count. The secret is from the machine's randomness, which by itself could be told from what was drawn
    of it."""

    __slots__ = ("_count", "_left", "_secret")

    def __init__(self, rng: Random) -> None:
        self._secret = rng.randbytes(32)
        self._count = 0
        self._left = b""

    def next(self) -> bytes:
        """Four bytes."""
        if not self._left:
            self._left = shake_128(self._secret + self._count.to_bytes(8, "big")).digest(4 * _KEYS_AT_ONCE)
            self._count += 1
        key, self._left = self._left[:4], self._left[4:]
        return key


def masked(data: bytes, key: bytes) -> bytes:
    """Bytes masked, or unmasked (section 5.3): short ones as two numbers, which is twice as fast there as what wsproto
    does, and half as fast for long ones."""
    size = len(data)
    if size > _LONG_BYTES:
        return bytes(XorMaskerSimple(key).process(bytearray(data)))
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")
