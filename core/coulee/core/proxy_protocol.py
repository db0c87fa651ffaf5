"""The PROXY protocol: what a connection begins with when one proxy tells another whom it speaks for.

Read with `read_header`, written with `to_bytes`, in both of its versions: a line of text, and a binary block with
type-length-value fields (HAProxy, doc/proxy-protocol.txt, 2020-03-05).

Rules:

- What is not exactly as the specification has it is no header, for its addresses are believed and passed on, and nobody
  behind us should read others in it.
- A header may come in any pieces. What can still become one is waited for; what cannot is refused at the first byte
  that says so, for a client that speaks HTTP should not have to wait for a time limit. Only the addresses and fields of
  version 2 are looked at when all of them are there.
- What names no addresses (LOCAL, UNKNOWN, UNSPEC) is a header: those of the connection itself count.
- Texts are printable, because they end in logs. An IPv4 address in IPv6 clothes is the IPv4 address.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from struct import Struct
from typing import Final, Literal, NamedTuple, TypeAlias

from coulee.core.address import Address
from coulee.core.crc32c import crc32c

FIELDS_BYTES_MAX: Final = 3864
"""What the fields of version 2 may have; with the longest addresses, a header has 4,096 then. All that are known here
have less than 1,000; what is longer carries something like a certificate, which we have no use for. Whatever the
addresses, the bound is the same: so what is read can be passed on with others."""

LINE_BYTES_MAX: Final = 107
"""What one of version 1 may have, with its end (section 2.1)."""

UNIQUE_ID_BYTES_MAX: Final = 128
"""Section 2.2.5."""


class HeaderError(ValueError):
    """What has come is no header, nor the beginning of one: why, in one line."""


# --------------------------------------------------------------------------------------------------- what it says

Fields: TypeAlias = tuple[tuple[int, bytes], ...]
"""Types and values, in their order."""

_KNOWN: Final = (0x01, 0x02, 0x03, 0x04, 0x05, 0x20)
_ALPN, _AUTHORITY, _CHECKSUM, _PADDING, _UNIQUE_ID, _TLS = _KNOWN
_KNOWN_OF_TLS: Final = (0x21, 0x22, 0x23, 0x24, 0x25)
_VERSION, _COMMON_NAME, _CIPHER, _SIGNATURE_ALGORITHM, _KEY_ALGORITHM = _KNOWN_OF_TLS


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What is told of a client's TLS (section 2.2.6). That it is told at all says that the client spoke TLS."""

    version: str = ""
    """As `TLSv1.3`."""

    cipher: str = ""
    """By OpenSSL's name."""

    verified: bool = False
    """The client has shown a certificate, and it was found good. (A result of 0 alone does not say so: HAProxy gives it
    also where there was no certificate.)"""

    shown: bool = False
    """It has shown one on this connection, good or not."""

    shown_in_session: bool = False
    """It has shown one at least once in the session that this connection belongs to."""

    common_name: str = ""
    """Of that certificate."""

    signature_algorithm: str = ""
    """By which the certificate that the client was shown is signed, as `RSA-SHA256`."""

    key_algorithm: str = ""
    """Of the key of that certificate, as `RSA2048`."""

    others: Fields = ()
    """Fields that are not known here, as they are."""

    def __post_init__(self) -> None:
        if self.verified and not self.shown:
            object.__setattr__(self, "shown_in_session", True)  # or there was nothing to verify
        _check_text("common_name", self.common_name)
        for name in ("version", "cipher", "signature_algorithm", "key_algorithm"):
            _check_text(name, getattr(self, name), ascii_only=True)
        _check_others(self.others, _KNOWN_OF_TLS)


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says. Only `source` and `destination` are in one of version 1."""

    source: Address | None
    """Who the client is; a client of a Unix socket that has no name is ""."""

    destination: Address | None
    """Where it has connected to. Where these two cannot be said together, as a Unix socket and an IP address, or with
    None, nothing is said at all."""

    version: Literal[1, 2] = 2

    alpn: str = ""
    """The protocol that the client speaks, by its name in TLS (RFC 7301)."""

    authority: str = ""
    """The host that it asks for; in TLS, by SNI."""

    unique_id: bytes = b""
    """What the connection is called by all who pass it on, at most 128 bytes."""

    tls: TlsInfo | None = None
    """None where the client speaks no TLS, or nothing is said of it."""

    others: Fields = ()
    """Fields that are not known here, as they are."""

    checksum: bool = False
    """Whether a CRC-32C is in it (which was right, when read)."""

    def __post_init__(self) -> None:
        if self.version not in (1, 2):
            raise ValueError(f"version is {self.version!r}; the PROXY protocol has 1 and 2")
        for address in (self.source, self.destination):
            if isinstance(address, tuple) and not 0 <= address[1] <= 65535:
                raise ValueError(f"{address[1]} is no port; it must be from 0 to 65535")
        _check_text("alpn", self.alpn, ascii_only=True)
        _check_text("authority", self.authority)
        if len(self.unique_id) > UNIQUE_ID_BYTES_MAX:
            raise ValueError(f"unique_id has {len(self.unique_id)} bytes; it may have {UNIQUE_ID_BYTES_MAX}")
        _check_others(self.others, _KNOWN)


def _check_text(name: str, text: str, *, ascii_only: bool = False) -> None:
    if not text.isprintable() or (ascii_only and not text.isascii()):
        raise ValueError(f"{name} is {text!r}; it must be printable{' ASCII' if ascii_only else ''}")


def _check_others(others: Fields, known: tuple[int, ...]) -> None:
    for kind, _ in others:
        if not 0 <= kind <= 255 or kind in known:
            raise ValueError(f"others has a field of type {kind:#x}, which has an attribute of its own or is no byte")


# ------------------------------------------------------------------------------------------------------- reading

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"


def read_header(data: bytes) -> tuple[Header, int] | None:
    """The header at the beginning of `data` and how many bytes it has, or None if more of it has to come. Raises
    `HeaderError`."""
    if data[:1] == _SIGNATURE[:1]:
        return _read_block(data)
    return _read_line(data)


# -- version 1

_UNKNOWN: Final = "PROXY UNKNOWN"
_BEGINNINGS: Final = ("PROXY TCP4 ", "PROXY TCP6 ", _UNKNOWN)
_SHORTEST: Final = {"TCP4": ("0.0.0.0", "0.0.0.0", "0", "0"), "TCP6": ("::", "::", "0", "0")}  # noqa: S104 - no bind
_ENDINGS: Final = {
    "TCP4": ("", "0", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0", "0.0.0.0"),  # noqa: S104 - no bind
    "TCP6": ("", ":", "0", "::", ".0", "0.0", ".0.0", "0.0.0"),
}
"""One of these makes an address of every text that can become one."""


def _read_line(data: bytes) -> tuple[Header, int] | None:
    end = data.find(b"\r", 0, LINE_BYTES_MAX)
    text = _text(data[: LINE_BYTES_MAX - 1 if end < 0 else end], "the first line", ascii_only=True)
    if end < 0:
        if len(text) == LINE_BYTES_MAX - 1:
            raise HeaderError(f"there is no end of a line in the first {LINE_BYTES_MAX} bytes")
        if not _may_become_line(text):
            raise HeaderError(f"{text!r} begins no header of the PROXY protocol")
        return None
    header = _parse_line(text)
    if len(data) == end + 1:
        return None
    if data[end + 1] != 0x0A:
        raise HeaderError("there is a CR without LF")
    return header, end + 2


def _may_become_line(text: str) -> bool:
    """Whether there is a way to finish it. That is looked for by trying, for then nothing about addresses is written
    down twice."""
    if any(beginning.startswith(text) for beginning in _BEGINNINGS):
        return True
    if not text.startswith(_BEGINNINGS):
        return False
    if text.startswith(_UNKNOWN):
        return text[len(_UNKNOWN)] == " "
    _, family, *fields = text.split(" ")
    rest = "".join(f" {field}" for field in _SHORTEST[family][len(fields) :])
    return any(_is_line(text + ending + rest) for ending in _ENDINGS[family])


def _is_line(text: str) -> bool:
    try:
        return bool(_parse_line(text))
    except HeaderError:
        return False


def _parse_line(text: str) -> Header:
    if len(text) > LINE_BYTES_MAX - 2:
        raise HeaderError(f"the line has more than {LINE_BYTES_MAX} bytes")
    if text == _UNKNOWN or text.startswith(_UNKNOWN + " "):
        return Header(None, None, 1)
    match text.split(" "):
        case ["PROXY", "TCP4" | "TCP6" as family, source, destination, source_port, destination_port]:
            client = _parse_ip(source, family), _parse_port(source_port)
            return Header(client, (_parse_ip(destination, family), _parse_port(destination_port)), 1)
        case _:
            raise HeaderError(f"{text!r} is no header of the PROXY protocol")


def _parse_ip(text: str, family: str) -> str:
    """It may have its last 32 bits as IPv4 has them, which the specification does not mention: HAProxy and nginx write
    so, for both let `inet_ntop` write it."""
    try:
        if family == "TCP4":
            return str(IPv4Address(text))
        if "%" not in text:
            return _shown(IPv6Address(text).packed)
    except AddressValueError:
        pass
    raise HeaderError(f"{text!r} is no address of {family}")


def _parse_port(text: str) -> int:
    if text.isdecimal() and (text == "0" or text[0] != "0") and int(text) <= 65535:
        return int(text)
    raise HeaderError(f"{text!r} is no port")


# -- version 2

_PREFIX: Final = Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21  # with the version in the upper half
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_LENGTHS: Final = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}
"""Of both addresses."""

_CLOTHES: Final = bytes(10) + b"\xff\xff"
"""What makes an IPv6 address of an IPv4 one (RFC 4291 section 2.5.5.2)."""

_PORTS: Final = Struct("!HH")
_PATH_BYTES: Final = 108
_FIELD: Final = Struct("!BH")
_TLS_PREFIX: Final = Struct("!BI")
_SPEAKS_TLS, _SHOWN, _SHOWN_IN_SESSION = 0x01, 0x02, 0x04


def _read_block(data: bytes) -> tuple[Header, int] | None:
    if not _SIGNATURE.startswith(data[: len(_SIGNATURE)]):
        raise HeaderError("it begins like a header of version 2, and goes on otherwise")
    _check_prefix(data[len(_SIGNATURE) : _PREFIX.size])
    if len(data) < _PREFIX.size:
        return None
    _, command, family, length = _PREFIX.unpack_from(data)
    size = _PREFIX.size + length
    if len(data) < size:
        return None
    if command == _LOCAL:  # the rest is to be discarded, whatever it is (section 2.2)
        return Header(None, None, 2), size
    return _parse_block(data[:size], family), size


def _check_prefix(prefix: bytes) -> None:
    """The four bytes behind the signature, or as many as there are."""
    command = prefix[0] if prefix else _PROXY
    if command not in (_LOCAL, _PROXY):
        raise HeaderError(f"version and command are {command:#04x}, and only 0x20 (LOCAL) and 0x21 (PROXY) exist")
    family = prefix[1] if len(prefix) > 1 and command == _PROXY else _UNSPECIFIED
    if family not in _LENGTHS:
        raise HeaderError(f"family and protocol are {family:#04x}, which is no stream over IPv4, IPv6 or Unix sockets")
    length = prefix[2] << 8 if len(prefix) > 2 else 0
    if len(prefix) > 3:
        length |= prefix[3]
        if length < _LENGTHS[family]:
            raise HeaderError(f"it has {length} bytes, and its addresses alone have {_LENGTHS[family]}")
    if length - _LENGTHS[family] > FIELDS_BYTES_MAX:
        raise HeaderError(f"it has more than {FIELDS_BYTES_MAX} bytes of fields")


def _parse_block(block: bytes, family: int) -> Header:
    fields_at = _PREFIX.size + _LENGTHS[family]
    source, destination = _parse_addresses(block[_PREFIX.size : fields_at], family)
    found, others, values_at = _parse_fields(block, fields_at, _KNOWN)
    if _CHECKSUM in found:
        at = values_at[_CHECKSUM]
        told = int.from_bytes(found[_CHECKSUM], "big")
        if len(found[_CHECKSUM]) != 4 or told != crc32c(block[:at] + bytes(4) + block[at + 4 :]):
            raise HeaderError("its checksum is wrong")
    unique_id = found.get(_UNIQUE_ID, b"")
    if len(unique_id) > UNIQUE_ID_BYTES_MAX:
        raise HeaderError(f"its unique id has {len(unique_id)} bytes, more than {UNIQUE_ID_BYTES_MAX}")
    return Header(
        source,
        destination,
        2,
        alpn=_text(found.get(_ALPN, b""), "ALPN", ascii_only=True),
        authority=_text(found.get(_AUTHORITY, b""), "the authority"),
        unique_id=unique_id,
        tls=_parse_tls(found[_TLS]) if _TLS in found else None,
        others=others,
        checksum=_CHECKSUM in found,
    )


class _Found(NamedTuple):
    known: dict[int, bytes]
    others: Fields
    values_at: dict[int, int]
    """Where the values of those that are known begin."""


def _parse_fields(data: bytes, at: int, known: tuple[int, ...]) -> _Found:
    """The fields from there to the end, which the last one has to reach exactly."""
    found = _Found({}, (), {})
    others: list[tuple[int, bytes]] = []
    while at < len(data):
        begin = at + _FIELD.size
        if begin > len(data):
            raise HeaderError(f"the last {len(data) - at} bytes are too few for a field")
        kind, length = _FIELD.unpack_from(data, at)
        at = begin + length
        if at > len(data):
            raise HeaderError(f"the field of type {kind:#x} has {length} bytes, of which {len(data) - begin} are there")
        if kind not in known:
            others.append((kind, data[begin:at]))
        elif kind in found.known:
            raise HeaderError(f"there are two fields of type {kind:#x}")
        elif kind != _PADDING:
            found.known[kind] = data[begin:at]
            found.values_at[kind] = begin
    return found._replace(others=tuple(others))


def _parse_tls(value: bytes) -> TlsInfo | None:
    if len(value) < _TLS_PREFIX.size:
        raise HeaderError(f"the field about TLS has {len(value)} bytes, less than {_TLS_PREFIX.size}")
    flags, result = _TLS_PREFIX.unpack_from(value)
    found, others, _ = _parse_fields(value, _TLS_PREFIX.size, _KNOWN_OF_TLS)
    info = TlsInfo(
        version=_text(found.get(_VERSION, b""), "the version of TLS", ascii_only=True),
        cipher=_text(found.get(_CIPHER, b""), "the cipher", ascii_only=True),
        verified=result == 0 and bool(flags & (_SHOWN | _SHOWN_IN_SESSION)),
        shown=bool(flags & _SHOWN),
        shown_in_session=bool(flags & _SHOWN_IN_SESSION),
        common_name=_text(found.get(_COMMON_NAME, b""), "the common name"),
        signature_algorithm=_text(found.get(_SIGNATURE_ALGORITHM, b""), "the signature algorithm", ascii_only=True),
        key_algorithm=_text(found.get(_KEY_ALGORITHM, b""), "the key algorithm", ascii_only=True),
        others=others,
    )
    return info if flags & _SPEAKS_TLS else None


def _parse_addresses(data: bytes, family: int) -> tuple[Address | None, Address | None]:
    if family == _UNSPECIFIED:
        return None, None
    if family == _UNIX:
        return _parse_path(data[:_PATH_BYTES]), _parse_path(data[_PATH_BYTES:])
    size = (len(data) - _PORTS.size) // 2
    source_port, destination_port = _PORTS.unpack_from(data, 2 * size)
    return (_shown(data[:size]), source_port), (_shown(data[size : 2 * size]), destination_port)


def _shown(packed: bytes) -> str:
    return str(ip_address(packed.removeprefix(_CLOTHES)))


def _parse_path(data: bytes) -> str:
    """Up to the first NUL, as C has it; the abstract name behind a NUL, without what pads it."""
    if data[0] == 0:
        name = data[1:].rstrip(b"\0")
        return "@" + _text(name, "the abstract name of a Unix socket") if name else ""
    path = _text(data.partition(b"\0")[0], "the path of a Unix socket")
    if path[0] == "@":
        raise HeaderError(f"{path!r} is the path of a Unix socket, and reads like an abstract name")
    return path


def _text(data: bytes, what: str, *, ascii_only: bool = False) -> str:
    try:
        text = data.decode("ascii" if ascii_only else "utf-8")
    except UnicodeDecodeError:
        raise HeaderError(f"{what} is not {'ASCII' if ascii_only else 'UTF-8'}") from None
    if not text.isprintable():
        raise HeaderError(f"{what} has characters in it that cannot be printed")
    return text


# ------------------------------------------------------------------------------------------------------- writing


def to_bytes(header: Header) -> bytes:
    """The header as it is sent. Raises `ValueError` where it would be too long."""
    return _line(header) if header.version == 1 else _block(header)


def _line(header: Header) -> bytes:
    family, addresses = _pack_addresses(header)
    if family not in (_TCP4, _TCP6):
        return f"{_UNKNOWN}\r\n".encode()
    size = (len(addresses) - _PORTS.size) // 2
    source_port, destination_port = _PORTS.unpack_from(addresses, 2 * size)
    source, destination = _written(addresses[:size]), _written(addresses[size : 2 * size])
    name = "TCP4" if family == _TCP4 else "TCP6"
    return f"PROXY {name} {source} {destination} {source_port} {destination_port}\r\n".encode()


def _written(packed: bytes) -> str:
    """Version 1 knows no dots in an IPv6 address (section 2.1), where Python 3.13 writes some."""
    if packed.startswith(_CLOTHES):
        high, low = _PORTS.unpack(packed[12:])
        return f"::ffff:{high:x}:{low:x}"
    return str(ip_address(packed))


def _block(header: Header) -> bytes:
    family, addresses = _pack_addresses(header)
    if family == _UNSPECIFIED:
        # PROXY with this family could have fields, but HAProxy 2.6 refuses it, and whoever takes anything takes LOCAL.
        return _PREFIX.pack(_SIGNATURE, _LOCAL, family, 0)
    fields = [
        (_ALPN, header.alpn.encode()),
        (_AUTHORITY, header.authority.encode()),
        (_UNIQUE_ID, header.unique_id),
        (_TLS, b"" if header.tls is None else _pack_tls(header.tls)),
    ]
    packed = _pack_fields([field for field in fields if field[1]] + list(header.others))
    checksum = _FIELD.pack(_CHECKSUM, 4) + bytes(4) if header.checksum else b""
    size = len(checksum) + len(packed)
    if size > FIELDS_BYTES_MAX:
        raise ValueError(f"the fields have {size} bytes; a header of the PROXY protocol may have {FIELDS_BYTES_MAX}")
    begin = _PREFIX.pack(_SIGNATURE, _PROXY, family, len(addresses) + size) + addresses
    block = begin + checksum + packed
    end = len(begin) + len(checksum)
    return block[: end - 4] + crc32c(block).to_bytes(4, "big") + packed if checksum else block


def _pack_addresses(header: Header) -> tuple[int, bytes]:
    """The family, and both addresses with their ports."""
    source, destination = header.source, header.destination
    if isinstance(source, str) and isinstance(destination, str):
        paths = _pack_path(source), _pack_path(destination)
        if all(len(path) == _PATH_BYTES for path in paths):
            return _UNIX, b"".join(paths)
    elif isinstance(source, tuple) and isinstance(destination, tuple):
        ips = _pack_ip(source[0]), _pack_ip(destination[0])
        if all(ips):
            ports = _PORTS.pack(source[1], destination[1])
            if len(ips[0]) != len(ips[1]):  # then it is IPv6 for both
                ips = (_CLOTHES + ips[0])[-16:], (_CLOTHES + ips[1])[-16:]
            return (_TCP4 if len(ips[0]) == 4 else _TCP6), b"".join(ips) + ports
    return _UNSPECIFIED, b""


def _pack_ip(host: str) -> bytes:
    """b"" for a name. The zone of an IPv6 address means nothing elsewhere, and is left out."""
    try:
        return ip_address(host).packed.removeprefix(_CLOTHES)
    except ValueError:
        return b""


def _pack_path(path: str) -> bytes:
    """Of 108 bytes, unless it cannot be said."""
    if "\0" in path or path == "@" or not path.isprintable():
        return b""
    name = f"\0{path[1:]}" if path.startswith("@") else path
    return name.encode().ljust(_PATH_BYTES, b"\0")


def _pack_tls(info: TlsInfo) -> bytes:
    flags = _SPEAKS_TLS | (info.shown and _SHOWN) | (info.shown_in_session and _SHOWN_IN_SESSION)
    fields = [
        (_VERSION, info.version.encode()),
        (_COMMON_NAME, info.common_name.encode()),
        (_CIPHER, info.cipher.encode()),
        (_SIGNATURE_ALGORITHM, info.signature_algorithm.encode()),
        (_KEY_ALGORITHM, info.key_algorithm.encode()),
    ]
    prefix = _TLS_PREFIX.pack(flags, not info.verified)
    return prefix + _pack_fields([field for field in fields if field[1]] + list(info.others))


def _pack_fields(fields: list[tuple[int, bytes]]) -> bytes:
    """What is too long for a field is so for the whole, and refused as that."""
    return b"".join(_FIELD.pack(kind, min(len(value), 0xFFFF)) + value for kind, value in fields)
