"""Reads the ClientHello, with which a TLS connection begins, without decrypting anything (RFC 8446 section 4.1.2).

Rules:

- What is read here decides where a connection goes and which certificate it gets, and somebody else reads it again: so
  there is one way to read it, or none. Lengths agree to the byte, no extension comes twice, and a name is a name.
- What the first bytes rule out is refused with them: the type of the record and of the message, and how large they are
  said to be. The rest is looked at once all of it is here.
- Records may cut it anywhere (section 5.1). Whatever follows the record in which it ends is left alone.
- Ciphers, keys and all else that TLS makes of it are not judged here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from struct import Struct
from typing import Final

from coulee.core.server_names import is_ip

HELLO_BYTES_MAX: Final = 16 * 1024
"""A ClientHello. With post-quantum key shares 2 KiB are usual."""

HELLO_RECORDS_MAX: Final = 64
"""Records that it may be cut into: with each that comes, all are looked at again."""

RECORD_BYTES_MAX: Final = 2**14  # RFC 8446 section 5.1

UNEXPECTED_MESSAGE: Final = 10
RECORD_OVERFLOW: Final = 22
ILLEGAL_PARAMETER: Final = 47
DECODE_ERROR: Final = 50
PROTOCOL_VERSION: Final = 70
"""Alerts (RFC 8446 section 6)."""

_ALERT: Final = 0x15
_HANDSHAKE: Final = 0x16
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0  # RFC 6066 section 3
_ALPN: Final = 16  # RFC 7301 section 3.1
_SUPPORTED_VERSIONS: Final = 43  # RFC 8446 section 4.2.1
_SESSION_BYTES_MAX: Final = 32

_ENDS: Final = "the ClientHello ends within its fields"

_word: Final = Struct(">H").unpack_from
_two_words: Final = Struct(">HH").unpack_from
_name_head: Final = Struct(">HBH").unpack_from  # length of the list, type of the name, length of the name

_NAME: Final = re.compile(rb"(?=.{1,253}\.?\Z)(?:[0-9A-Za-z_-]{1,63}\.)*[0-9A-Za-z_-]{1,63}\.?\Z")
"""Labels of letters, digits and hyphens, and of the underscores that are in use too. IP addresses may not stand here
(RFC 6066 section 3), but some clients write them; they are names like others."""

_IPV6: Final = re.compile(rb"[0-9A-Fa-f:.]{2,45}")


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What is known of a client before anything is encrypted."""

    server_name: str
    """The host that it asks for, in lower case and without a dot at its end; "" where it asks for none."""

    alpn: tuple[str, ...]
    """The protocols that it offers, the preferred one first, each byte as one character."""

    versions: tuple[int, ...]
    """The versions that it offers, 0x0304 for TLS 1.3."""


class HelloError(ValueError):
    """What is no ClientHello, and why, in one line; `alert` is the number of the TLS alert that says so."""

    def __init__(self, detail: str, alert: int = DECODE_ERROR) -> None:
        super().__init__(detail)
        self.alert = alert


def read_client_hello(data: bytes) -> ClientHello | None:
    """The ClientHello at the beginning of `data`; None where more bytes are needed. Raises `HelloError` where it can be
    none, whatever comes."""
    message = _message(data)
    return None if message is None else _hello(message)


def is_tls(data: bytes) -> bool:
    """Whether these bytes, if there are any, may begin a TLS connection: a record of a handshake, of any version."""
    return data[:1] in b"\x16" and data[1:2] in b"\3"


def alert_record(number: int) -> bytes:
    """A fatal alert, before anything is encrypted (RFC 8446 section 6)."""
    return bytes([_ALERT, 3, 3, 0, 2, 2, number])


# ------------------------------------------------------------------------------------------------------ records


def _message(data: bytes) -> bytes | None:
    """The first handshake message, taken out of its records; None where more bytes are needed."""
    message = b""
    wanted = 0  # bytes of it; 0 while that is not known
    promised = 0  # bytes of it and what follows it, by the records that were begun
    at = 0
    for _ in range(HELLO_RECORDS_MAX):
        length = _record_length(data, at)
        if length is None:
            return None
        promised += length
        end = at + 5 + length
        message += data[at + 5 : end]
        if not wanted:
            wanted = _message_length(message)
        if wanted and promised > wanted:
            raise HelloError("something follows the ClientHello in its record", UNEXPECTED_MESSAGE)
        if len(data) < end:
            return None
        if promised == wanted:
            return message
        at = end
    raise HelloError(f"the ClientHello is cut into more than {HELLO_RECORDS_MAX} records")


def _record_length(data: bytes, at: int) -> int | None:
    """How long the record at `at` is; None where its head is not whole."""
    head = data[at : at + 5]
    if not is_tls(head):
        if at and head[0] != _HANDSHAKE:
            raise HelloError(f"a record of type {head[0]} within the ClientHello", UNEXPECTED_MESSAGE)
        raise HelloError(f"not TLS: it begins with {head[:2]!r}", UNEXPECTED_MESSAGE)
    if len(head) < 5:
        return None
    length: int = _word(head, 3)[0]
    if not length:
        raise HelloError("a record without content", UNEXPECTED_MESSAGE)
    if length > RECORD_BYTES_MAX:
        raise HelloError(f"a record of {length} bytes; {RECORD_BYTES_MAX} are allowed", RECORD_OVERFLOW)
    return length


def _message_length(message: bytes) -> int:
    """How long it is with its head; 0 where that is not known yet."""
    if message and message[0] != _CLIENT_HELLO:
        raise HelloError(f"a handshake message of type {message[0]} in place of a ClientHello", UNEXPECTED_MESSAGE)
    if len(message) < 4:
        return 0
    length = 4 + int.from_bytes(message[1:4], "big")
    if length > HELLO_BYTES_MAX:
        raise HelloError(f"a ClientHello of {length} bytes; {HELLO_BYTES_MAX} are allowed", ILLEGAL_PARAMETER)
    return length


# ------------------------------------------------------------------------------------------------- what it says


def _hello(message: bytes) -> ClientHello:
    """The fields of a whole message (RFC 8446 section 4.1.2)."""
    size = len(message)
    if size < 4 + 2 + 32 + 1:
        raise HelloError(_ENDS)
    version: int = _word(message, 4)[0]
    if version >> 8 != 3:
        raise HelloError(f"the version 0x{version:04x}, which is none of TLS", PROTOCOL_VERSION)
    session = message[38]  # behind the random bytes
    if session > _SESSION_BYTES_MAX:
        raise HelloError(f"a session of {session} bytes", ILLEGAL_PARAMETER)
    at = 39 + session
    if at + 2 > size:
        raise HelloError(_ENDS)
    ciphers: int = _word(message, at)[0]
    if ciphers % 2 or not ciphers:
        raise HelloError(f"{ciphers} bytes of cipher suites")
    at += 2 + ciphers
    if at >= size:
        raise HelloError(_ENDS)
    if not message[at]:
        raise HelloError("no compression method, not even that of none")
    at += 1 + message[at]
    if at == size:
        return ClientHello("", (), (version,))  # TLS 1.2 may end here (RFC 5246 section 7.4.1.2)
    if at + 2 > size or at + 2 + _word(message, at)[0] != size:
        raise HelloError("the extensions do not end with the ClientHello")
    return _with_extensions(message, at + 2, version)


def _with_extensions(message: bytes, at: int, version: int) -> ClientHello:
    size = len(message)
    server_name = ""
    alpn: tuple[str, ...] = ()
    versions: tuple[int, ...] = (version,)
    seen: set[int] = set()
    while at < size:
        if at + 4 > size:
            raise HelloError(_ENDS)
        kind, length = _two_words(message, at)
        at += 4
        end = at + length
        if end > size:
            raise HelloError(f"extension {kind} ends behind the ClientHello")
        if kind in seen:
            raise HelloError(f"extension {kind} comes twice", ILLEGAL_PARAMETER)
        seen.add(kind)
        if kind == _SERVER_NAME:
            server_name = _server_name(message[at:end])
        elif kind == _ALPN:
            alpn = _protocols(message[at:end])
        elif kind == _SUPPORTED_VERSIONS:
            versions = _versions(message[at:end])
        at = end
    return ClientHello(server_name, alpn, versions)


def _server_name(body: bytes) -> str:
    """RFC 6066 section 3: a list of names, of which there is one kind, and one of a kind."""
    if len(body) < 5:
        raise HelloError("an empty server_name")
    whole, kind, length = _name_head(body)
    if kind != 0 or whole != len(body) - 2 or length != len(body) - 5:
        raise HelloError("a server_name that is not one host_name")
    name = body[5:]
    if _NAME.match(name) is None and not (_IPV6.fullmatch(name) and is_ip(name.decode("ascii"))):
        raise HelloError(f"the server_name {name[:64]!r} is not the name of a host", ILLEGAL_PARAMETER)
    return name.decode("ascii").lower().removesuffix(".")


def _protocols(body: bytes) -> tuple[str, ...]:
    """RFC 7301 section 3.1."""
    if len(body) < 4 or _word(body)[0] != len(body) - 2:
        raise HelloError("an ALPN extension that is not a list")
    names: list[str] = []
    at = 2
    while at < len(body):
        length = body[at]
        end = at + 1 + length
        if not length or end > len(body):
            raise HelloError("a protocol of ALPN that is empty, or not whole")
        names.append(body[at + 1 : end].decode("latin-1"))
        at = end
    return tuple(names)


def _versions(body: bytes) -> tuple[int, ...]:
    """RFC 8446 section 4.2.1."""
    if len(body) < 3 or body[0] != len(body) - 1 or body[0] % 2:
        raise HelloError("a supported_versions extension that is not a list")
    return Struct(f">{body[0] // 2}H").unpack_from(body, 1)
