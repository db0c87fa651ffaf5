"""permessage-deflate (RFC 7692): what is agreed with each side, and inflating within bounds.

Rules:

- Of a client's offers the first that can be met is taken; what is malformed in them is declined, and the WebSocket goes
  on without. An origin that agrees to what was not offered has broken the rules.
- Whatever was agreed, a message may go out as it is: short ones do, and all of them where 8 bits were asked for, which
  zlib cannot do.
- A message inflates to no more than its own limit, and to no more than a multiple of what came, once it is beyond what
  may be as compressible as it is. No more than that is ever made at once.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from coulee.core.codec import ProtocolError
from coulee.core.config import WebSocket

NAME: Final = "permessage-deflate"

SHORT_BYTES: Final = 64
"""A shorter message goes out as it is: deflating takes as long as all else that is done with it, and saves little."""

Parameters: TypeAlias = list[tuple[str, str | None]]

BITS_MAX: Final = 15
_BITS: Final = re.compile(r"[89]|1[0-5]")
_ZLIB_BITS_MIN: Final = 9
_TAIL: Final = b"\x00\x00\xff\xff"
"""Of what zlib makes when it flushes; it does not go on the line (section 7.2.1)."""

_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER: Final = re.compile(rf'[ \t]*;[ \t]*({_WORD})(?:[ \t]*=[ \t]*(?:({_WORD})|"((?:[^"\\]|\\.)*)"))?')
_EXTENSION: Final = re.compile(rf"[ \t]*({_WORD})((?:{_PARAMETER.pattern})*)[ \t]*(?:,|\Z)")


# ------------------------------------------------------------------------------------------------- what is agreed


def offered(settings: WebSocket) -> str:
    """What is offered to an origin in Sec-WebSocket-Extensions; "" where nothing is."""
    return f"{NAME}; client_max_window_bits={settings.window_bits}" if settings.compress_upstream else ""


def agree_upstream(settings: WebSocket, value: str | None) -> Deflate | None:
    """What an origin has agreed to, by the field of its 101. Raises `ProtocolError` for what was not offered."""
    if value is None:
        return None
    extensions = parse_extensions(value) or []
    agreed = Terms.of(extensions[0][1]) if [name for name, _ in extensions] == [NAME] else None
    known = agreed is not None and not agreed.client_bits_open
    if agreed is None or not (known and settings.compress_upstream):
        raise ProtocolError(f"the endpoint agreed to an extension that was not offered so: {value[:100]!r}")
    if (agreed.client_bits or 0) > settings.window_bits:
        raise ProtocolError("the endpoint agreed to more client_max_window_bits than were offered (RFC 7692)")
    return Deflate(
        settings,
        writes_bits=min(agreed.client_bits or BITS_MAX, settings.window_bits),
        writes_afresh=agreed.client_afresh,
        reads_bits=agreed.server_bits or BITS_MAX,
        reads_afresh=agreed.server_afresh,
    )


def agree_downstream(settings: WebSocket, value: str | None) -> tuple[Deflate | None, str]:
    """What we agree to of a client's offers, and what our 101 says of it; None and "" where there is nothing."""
    if value is None or not settings.compress_downstream:
        return None, ""
    for name, parameters in parse_extensions(value) or []:
        wanted = Terms.of(parameters) if name == NAME else None
        if wanted is None:
            continue
        agreed = Terms(
            # A client that says nothing of its window uses the largest.
            client_bits=min(wanted.client_bits or BITS_MAX, settings.window_bits) if wanted.client_bits_said else None,
            server_bits=min(wanted.server_bits or BITS_MAX, settings.window_bits),
            client_afresh=wanted.client_afresh,
            server_afresh=wanted.server_afresh,
        )
        deflate = Deflate(
            settings,
            writes_bits=agreed.server_bits or BITS_MAX,
            writes_afresh=agreed.server_afresh,
            reads_bits=agreed.client_bits or BITS_MAX,
            reads_afresh=agreed.client_afresh,
        )
        return deflate, str(agreed)
    return None, ""


@dataclass(frozen=True, slots=True)
class Terms:
    """The parameters of an offer, or of what is agreed (section 7.1). `*_afresh` forgets what earlier messages had
    ("no context takeover")."""

    client_bits: int | None = None
    server_bits: int | None = None
    client_afresh: bool = False
    server_afresh: bool = False
    client_bits_open: bool = False  # named without a value: an offer may leave it to us

    @property
    def client_bits_said(self) -> bool:
        """Whether an offer says anything of them, so that the answer may (section 7.1.2.2)."""
        return self.client_bits_open or self.client_bits is not None

    @classmethod
    def of(cls, parameters: Parameters) -> Terms | None:
        """What parameters say; None where they are malformed, unknown, or said twice."""
        known: dict[str, Any] = {}
        for name, value in parameters:
            field = _FIELDS.get(name)
            if field is None or field in known:
                return None
            if field.endswith("_afresh"):
                if value is not None:
                    return None
                known[field] = True
            elif value is not None:
                if _BITS.fullmatch(value) is None:
                    return None
                known[field] = int(value)
            elif field == "client_bits":
                known[field] = None
                known["client_bits_open"] = True
            else:
                return None
        return cls(**known)

    def __str__(self) -> str:
        said = [NAME]
        for name, field in _FIELDS.items():
            value = getattr(self, field)
            if value is True:
                said.append(name)
            elif value:
                said.append(f"{name}={value}")
        return "; ".join(said)


_FIELDS: Final = {
    "server_no_context_takeover": "server_afresh",
    "client_no_context_takeover": "client_afresh",
    "server_max_window_bits": "server_bits",
    "client_max_window_bits": "client_bits",
}


def parse_extensions(value: str) -> list[tuple[str, Parameters]] | None:
    """The extensions of a field (RFC 6455 section 9.1), with their parameters; None where it is malformed."""
    found: list[tuple[str, Parameters]] = []
    at = 0
    while at < len(value):
        extension = _EXTENSION.match(value, at)
        if extension is None:
            return None
        parameters: Parameters = [
            (each[1], each[2] if each[3] is None else re.sub(r"\\(.)", r"\1", each[3]))
            for each in _PARAMETER.finditer(extension[2])
        ]
        found.append((extension[1], parameters))
        at = extension.end()
    return found


# ---------------------------------------------------------------------------------------------------- what is done


class Deflate(Extension):
    """Both directions of one side, as agreed. What it keeps is eight times `window_bits` of what it deflates (32 KiB by
    default), and the peer's window (4 to 32 KiB, and 7 more)."""

    name = NAME

    def __init__(
        self, settings: WebSocket, *, writes_bits: int, writes_afresh: bool, reads_bits: int, reads_afresh: bool
    ) -> None:
        self._settings = settings
        self._writes_bits = writes_bits
        self._writes_afresh = writes_afresh
        self._reads_bits = max(reads_bits, _ZLIB_BITS_MIN)
        self._reads_afresh = reads_afresh
        self._deflater: Any = None
        self._inflater: Any = None
        self._is_data = False  # of the frame that is being read
        self._compressed = False  # of the message
        self._came = 0  # of it, on the line
        self._made = 0  # of it, inflated

    def enabled(self) -> bool:
        """It was agreed."""
        return True

    def offer(self) -> bool:
        """wsproto has no part in that."""
        return False

    # -- reading

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """The head of a frame: only the first of a message says that it is compressed (section 6)."""
        self._is_data = not opcode.iscontrol()
        first = self._is_data and opcode is not Opcode.CONTINUATION
        if rsv.rsv1 and not first:
            return CloseReason.PROTOCOL_ERROR
        if first:
            self._compressed = rsv.rsv1
            self._came = self._made = 0
        return _FIRST_RESERVED

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        """A piece of a frame."""
        return self._inflate(data) if self._compressed and self._is_data else data

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> bytes | CloseReason | None:
        """The end of a frame, and perhaps of the message."""
        if not (fin and self._compressed and self._is_data):
            return None
        rest = self._inflate(_TAIL)
        if self._reads_afresh:
            self._inflater = None
        return rest

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        settings = self._settings
        self._came += len(data)
        allowed = max(settings.inflate_free_bytes, self._came * settings.inflate_ratio_max)
        most = int(min(allowed, settings.message_bytes_max))
        made: list[bytes] = []
        try:
            while data:
                if self._inflater is None:
                    self._inflater = zlib.decompressobj(-self._reads_bits)
                piece = self._inflater.decompress(data, most - self._made + 1)
                self._made += len(piece)
                if self._made > most:
                    return CloseReason.MESSAGE_TOO_BIG
                made.append(piece)
                data = self._inflater.unconsumed_tail
                if self._inflater.eof:  # a final block, which need not be the end (section 7.2.3.4)
                    data = self._inflater.unused_data
                    self._inflater = None
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        return b"".join(made)

    # -- writing

    def frame_outbound(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, data: bytes, fin: bool
    ) -> tuple[RsvBits, bytes]:
        """A frame that goes out; ours are whole messages."""
        if opcode.iscontrol() or len(data) < SHORT_BYTES or self._writes_bits < _ZLIB_BITS_MIN:
            return rsv, data
        bits = self._writes_bits
        deflater = self._deflater
        if deflater is None:
            deflater = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -bits, bits - 7)
            self._deflater = None if self._writes_afresh else deflater
        data = deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)
        return _FIRST_RESERVED, data[: -len(_TAIL)]


_FIRST_RESERVED: Final = RsvBits(True, False, False)
