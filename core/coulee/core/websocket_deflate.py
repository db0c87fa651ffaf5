"""permessage-deflate (RFC 7692): what is agreed with each side apart, and messages deflated and inflated by it.

Rules:

- Of a client's offers the first that is well formed is taken; one that is not is passed over, never a fault. An origin
  may agree to what was offered and nothing else.
- Nothing is inflated without a bound: see `Deflate._allowed`. Whether a message is within it does not depend on how its
  bytes were cut on the way. (Whether zlib minds a window larger than agreed to does.)
- zlib cannot deflate with a window of 8 bits. Who insists on it gets its messages as they are, which it has to
  understand (section 6).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Final, TypeAlias

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from coulee.core.codec import ProtocolError
from coulee.core.config import WebSocket

NAME: Final = "permessage-deflate"

FINAL_BLOCKS_MAX: Final = 1024
"""In one message: behind each, zlib has to begin anew, and an empty one has two bytes."""

LEVEL: Final = 3
"""As fast as level 1 for messages of JSON, and half as much better as level 6, which takes up to three times as long
for it."""

_STEP_BYTES: Final = 512
_BITS_MAX: Final = 15
_DEFLATE_BITS_MIN: Final = 9
_TAIL: Final = b"\x00\x00\xff\xff"
_COMPRESSED: Final = RsvBits(True, False, False)
_NOT_RESERVED: Final = RsvBits(False, False, False)

_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_EXTENSION: Final = re.compile(rf"[ \t]*(?:({_WORD})[ \t]*)?")
_PARAMETER: Final = re.compile(rf";[ \t]*({_WORD})[ \t]*(?:=[ \t]*(?:({_WORD})|\"((?:[^\"\\]|\\.)*)\")[ \t]*)?")
_QUOTED_PAIR: Final = re.compile(r"\\(.)")
_BITS: Final = re.compile(r"[89]|1[0-5]")

Parameters: TypeAlias = list[tuple[str, str | None]]


def offered(settings: WebSocket) -> str:
    """What is offered to an origin. The origin's own window is left to it: many know no parameter for it, and would
    have to decline."""
    return f"{NAME}; client_max_window_bits={settings.window_bits}" if settings.compress_upstream else ""


def agree_upstream(settings: WebSocket, value: str | None) -> Deflate | None:
    """What an origin has agreed to. Raises `ProtocolError`."""
    if value is None:
        return None
    try:
        extensions = list(_extensions(value))
    except ValueError as error:
        raise ProtocolError(
            f"the origin's Sec-WebSocket-Extensions is malformed (RFC 6455 section 9.1): {error}"
        ) from None
    if not settings.compress_upstream or [name for name, _ in extensions] != [NAME]:
        raise ProtocolError("the origin agreed to an extension that was not offered (RFC 6455 section 9.1)")
    try:
        terms = _Terms(extensions[0][1])
    except ValueError as error:
        raise ProtocolError(f"the origin agreed to {NAME} with {error} (RFC 7692 section 7.1)") from None
    if terms.client_bits == 0:
        raise ProtocolError(
            f"the origin agreed to {NAME} with client_max_window_bits without a value (RFC 7692 section 7.1)"
        )
    if (terms.client_bits or 0) > settings.window_bits:
        raise ProtocolError(
            f"the origin agreed to {NAME} with client_max_window_bits={terms.client_bits}, and was offered"
            f" {settings.window_bits} (RFC 7692 section 7.1.2.2)"
        )
    return Deflate(
        settings,
        inflate_bits=terms.server_bits or _BITS_MAX,
        inflate_anew=terms.server_anew,
        deflate_bits=terms.client_bits or settings.window_bits,
        deflate_anew=terms.client_anew,
    )


def agree_downstream(settings: WebSocket, value: str | None) -> tuple[Deflate | None, str]:
    """What we agree to of a client's offers, and how that is said. Where it lets us say so, its window is no larger
    than ours."""
    if value is None or not settings.compress_downstream:
        return None, ""
    try:
        extensions = list(_extensions(value))
    except ValueError:
        return None, ""
    for name, parameters in extensions:
        if name != NAME:
            continue
        try:
            terms = _Terms(parameters)
        except ValueError:
            continue
        server_bits = min(terms.server_bits or _BITS_MAX, settings.window_bits)
        client_bits = _BITS_MAX
        agreed = f"{NAME}; server_max_window_bits={server_bits}"
        if terms.client_bits is not None:
            client_bits = min(terms.client_bits or _BITS_MAX, settings.window_bits)
            agreed += f"; client_max_window_bits={client_bits}"
        if terms.server_anew:
            agreed += "; server_no_context_takeover"
        if terms.client_anew:
            agreed += "; client_no_context_takeover"
        deflate = Deflate(
            settings,
            inflate_bits=client_bits,
            inflate_anew=terms.client_anew,
            deflate_bits=server_bits,
            deflate_anew=terms.server_anew,
        )
        return deflate, agreed
    return None, ""


class Deflate(Extension):
    """What was agreed with one side, at work: inflates what it sends and deflates what it is sent.

    With windows of 12 bits that is some 38 kB to deflate and 11 kB to inflate for each side, from its first compressed
    message on; with 15 bits 262 kB and 40 kB. With `..._anew`, each message is compressed for itself, and nothing is
    held between two.
    """

    name = NAME

    def __init__(
        self, settings: WebSocket, *, inflate_bits: int, inflate_anew: bool, deflate_bits: int, deflate_anew: bool
    ) -> None:
        self._bytes_max = settings.message_bytes_max
        self._ratio_max = settings.inflate_ratio_max
        self._free_bytes = settings.inflate_free_bytes
        self.inflate_bits = inflate_bits
        self.inflate_anew = inflate_anew
        self.deflate_bits = deflate_bits
        self.deflate_anew = deflate_anew
        self._inflater: zlib._Decompress | None = None
        self._deflater: zlib._Compress | None = None
        # What is coming.
        self._data = False  # whether the frame is one of a message
        self._within = False  # whether the message has had a frame
        self._compressed = False  # whether the message is
        self._line_bytes = 0
        self._inflated_bytes = 0
        self._final_blocks = 0

    def enabled(self) -> bool:
        """It always is: it is made when it has been agreed to."""
        return True

    def offer(self) -> bool:
        """See `offered`."""
        return False

    # -- what comes

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """The head of a frame; wsproto may come again with the same one. The bit may be set where a message begins
        (section 6.1)."""
        self._data = not opcode.iscontrol()
        if not self._data or opcode is Opcode.CONTINUATION:
            return _NOT_RESERVED
        if self._within:
            return CloseReason.PROTOCOL_ERROR  # before its bytes are taken for more of the message
        self._compressed = rsv.rsv1
        self._line_bytes = self._inflated_bytes = self._final_blocks = 0
        return _COMPRESSED

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        """Bytes of a frame."""
        if not (self._data and self._compressed):
            return data
        return self._inflate(data)

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> bytes | CloseReason | None:
        """The end of a frame."""
        if not self._data:
            return None
        self._within = not fin
        if not (fin and self._compressed):
            return None
        self._compressed = False
        # An empty message should have a byte (section 7.2.3.6), but some send none, and behind a final block there may
        # be nothing either: then there is no block that lacks its tail.
        rest = self._inflate(_TAIL) if self._inflater is not None and self._line_bytes else None
        if self.inflate_anew:
            self._inflater = None
        return rest

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        """More of a message: up to the next step by itself, for what zlib has read and what it has given out do not
        tell where in its input a bound was passed."""
        inflated: list[bytes] = []
        at = 0
        size = len(data)
        while at < size:
            inflater = self._inflater
            if inflater is None:
                inflater = self._inflater = zlib.decompressobj(-self.inflate_bits)
            steps = self._line_bytes // _STEP_BYTES + 1
            step = data[at : at + steps * _STEP_BYTES - self._line_bytes]
            room = self._allowed(steps) - self._inflated_bytes
            try:
                piece = inflater.decompress(step, room + 1)
            except zlib.error:
                return CloseReason.INVALID_FRAME_PAYLOAD_DATA
            self._inflated_bytes += len(piece)
            if len(piece) > room:
                return CloseReason.MESSAGE_TOO_BIG
            read = len(step)
            if inflater.eof:
                read -= len(inflater.unused_data)
                self._inflater = None
                self._final_blocks += 1
                if self._final_blocks > FINAL_BLOCKS_MAX:
                    return CloseReason.INVALID_FRAME_PAYLOAD_DATA
            at += read
            self._line_bytes += read
            inflated.append(piece)
        return b"".join(inflated)

    def _allowed(self, steps: int) -> int:
        """How large what has come on the line may have become: its bytes are counted in steps of 512, begun ones as
        whole, so that it does not matter whether they came one by one."""
        return int(min(self._bytes_max, max(self._free_bytes, self._ratio_max * _STEP_BYTES * steps)))

    # -- what goes

    def frame_outbound(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, data: bytes, fin: bool
    ) -> tuple[RsvBits, bytes]:
        """A message, which goes in one frame. An empty one goes as it is: zlib makes nothing of it, which is not what
        section 7.2.3.6 asks for."""
        if opcode.iscontrol() or not data or self.deflate_bits < _DEFLATE_BITS_MIN:
            return rsv, data
        assert fin, "a message goes in one frame"
        deflater = self._deflater
        if deflater is None:
            bits = self.deflate_bits
            deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, -bits, bits - 7)
        deflated = deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)
        if not self.deflate_anew:
            self._deflater = deflater
        return _COMPRESSED, deflated[:-4]


class _Terms:
    """The parameters of permessage-deflate. Raises `ValueError` for what section 7.1 does not know."""

    def __init__(self, parameters: Parameters) -> None:
        self.server_anew = self.client_anew = False
        self.server_bits: int | None = None
        self.client_bits: int | None = None  # 0 without a value, which is for an offer only
        seen: list[str] = []
        for name, value in parameters:
            if name in seen:
                raise ValueError(f"{name} twice")
            seen.append(name)
            if name == "server_no_context_takeover" and value is None:
                self.server_anew = True
            elif name == "client_no_context_takeover" and value is None:
                self.client_anew = True
            elif name == "server_max_window_bits" and value is not None and _BITS.fullmatch(value):
                self.server_bits = int(value)
            elif name == "client_max_window_bits" and (value is None or _BITS.fullmatch(value)):
                self.client_bits = int(value or 0)
            else:
                raise ValueError(name if value is None else f"{name}={value}")


def _extensions(field: str) -> Iterator[tuple[str, Parameters]]:
    """What a field lists, with its parameters (RFC 6455 section 9.1). Raises `ValueError`."""
    at = 0
    found = False
    while True:
        extension = _EXTENSION.match(field, at)
        assert extension is not None, "it may be empty, as an element of a list may"
        at = extension.end()
        if extension[1] is not None:
            parameters: Parameters = []
            while parameter := _PARAMETER.match(field, at):
                at = parameter.end()
                name, value, quoted = parameter.groups()
                if quoted is not None:
                    value = _QUOTED_PAIR.sub(r"\1", quoted)
                    if re.fullmatch(_WORD, value) is None:
                        raise ValueError("a quoted value that is no token")
                parameters.append((name, value))
            found = True
            yield extension[1], parameters
        if at == len(field):
            break
        if field[at] != ",":
            raise ValueError(f"something unexpected at its byte {at + 1}")
        at += 1
    if not found:
        raise ValueError("it names none")
