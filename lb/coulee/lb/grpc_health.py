"""The health protocol of gRPC: one call of `grpc.health.v1.Health/Check`, as bytes in and bytes out.

Rules:

- HTTP/2 with prior knowledge, on a connection that serves for this call alone; h2 does the framing.
- Healthy is an answer of SERVING, with a status of 0, and nothing else. All else raises `CheckFailed` with what came.
- No more than `ANSWER_BYTES_MAX` bytes are read.

See github.com/grpc/grpc, doc/health-checking.md and doc/PROTOCOL-HTTP2.md. The two messages have a field each, so they
are written and read here: `HealthCheckRequest { string service = 1; }`, `HealthCheckResponse { Status status = 1; }`.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from coulee.lb.health import CheckFailed

ANSWER_BYTES_MAX: Final = 16 * 1024
"""All that a server sends, settings and fields and all. An honest answer is a few hundred bytes."""

SERVING: Final = 1
_STATES: Final = {0: "UNKNOWN", SERVING: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}

_CODES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""What a grpc-status means."""

_SETTINGS: Final = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: ANSWER_BYTES_MAX}

_SETTINGS_FRAME: Final = 4
_STREAM: Final = 1


class HealthCall:
    """One call. `feed` what comes, and send what `to_send` gives, at the start and after each."""

    __slots__ = ("_body", "_conn", "_count", "_fields", "_start")

    def __init__(self, authority: str, service: str = "", scheme: str = "http") -> None:
        self._conn = conn = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
        self._start = b""  # the first bytes that came, until it is known that they are HTTP/2
        self._count = 0
        self._body = b""
        self._fields: dict[str, str] = {}
        conn.local_settings = Settings(initial_values=_SETTINGS)
        conn.initiate_connection()
        conn.send_headers(_STREAM, [
            (":method", "POST"), (":scheme", scheme), (":path", "/grpc.health.v1.Health/Check"),
            (":authority", authority), ("te", "trailers"), ("content-type", "application/grpc"),
            ("user-agent", "coulee-check"),
        ])  # fmt: skip
        conn.send_data(_STREAM, encode_request(service), end_stream=True)

    def to_send(self) -> bytes:
        """What is to be sent now; may be nothing."""
        return self._conn.data_to_send()

    def feed(self, data: bytes) -> bool:
        """What the server sent, b"" where that was all. True once it has said that it serves. Raises `CheckFailed`."""
        if not data:
            raise CheckFailed("closed without a whole answer" if self._count else "closed without an answer")
        self._count += len(data)
        if self._count > ANSWER_BYTES_MAX:
            raise CheckFailed(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        if len(self._start) < 4:
            self._start = data = self._start + data
            if len(data) < 4:
                return False
            if data[3] != _SETTINGS_FRAME:  # the first frame is one (RFC 9113 section 3.4)
                raise CheckFailed.unlike("HTTP/2", data)
        try:
            events = self._conn.receive_data(data)
        except ProtocolError as error:
            raise CheckFailed(f"broken HTTP/2: {error}") from error
        return any(self._takes(event) for event in events)

    def _takes(self, event: Event) -> bool:
        if isinstance(event, ResponseReceived | TrailersReceived):
            self._fields.update((str(name), str(value)) for name, value in event.headers)
        elif isinstance(event, DataReceived):
            self._body += event.data
        elif isinstance(event, StreamReset):
            raise CheckFailed(f"the call was reset: {_named(event.error_code)}")
        elif isinstance(event, ConnectionTerminated):
            raise CheckFailed(f"the server closes the connection: {_named(event.error_code)}")
        elif isinstance(event, StreamEnded):
            judge(self._fields, self._body)
            return True
        return False


def judge(fields: dict[str, str], body: bytes) -> None:
    """Raises `CheckFailed` unless an answer, with its fields and trailers, says that the service serves."""
    status = fields[":status"]
    if status != "200":
        raise CheckFailed(f"HTTP status {status}")
    code = fields.get("grpc-status")
    if code is None:
        raise CheckFailed(f"not gRPC: no grpc-status, content-type {fields.get('content-type', 'unknown')}")
    if code != "0":
        name = _CODES[int(code)] if code in map(str, range(len(_CODES))) else "status"
        message = unquote(fields.get("grpc-message", ""))
        raise CheckFailed(f"{name} ({code}): {message}" if message else f"{name} ({code})")
    state = decode_answer(body)
    if state != SERVING:
        raise CheckFailed(_STATES.get(state, f"state {state}"))


def encode_request(service: str) -> bytes:
    """A HealthCheckRequest in its frame."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def decode_answer(frame: bytes) -> int:
    """The state in a HealthCheckResponse, which is 0 where it says none. Raises `CheckFailed` for what is none."""
    message = frame[5:]
    if frame[:5] != b"\0" + len(message).to_bytes(4, "big"):  # not compressed: we have not said that we could read it
        raise CheckFailed("not one whole message")
    state = at = 0
    try:
        while at < len(message):
            key, at = _read_varint(message, at)
            kind = key & 7
            if kind == 0:
                value, at = _read_varint(message, at)
                if key >> 3 == 1:
                    state = value
            elif kind == 2:
                length, at = _read_varint(message, at)
                at += length
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            else:
                raise CheckFailed("not a message of protobuf")
    except IndexError:
        at = len(message) + 1
    if at > len(message):
        raise CheckFailed("a message that is cut short")
    return state


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number, and where what follows it begins. Raises `IndexError` where the data ends first."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise CheckFailed("not a message of protobuf")


def _named(code: object) -> str:
    """An error code of HTTP/2: h2 knows the names of most."""
    return getattr(code, "name", None) or f"error {code}"
