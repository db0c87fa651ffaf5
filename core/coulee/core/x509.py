"""Reads from a certificate what has to be known to choose it (X.509, RFC 5280; DER, X.690).

Nothing is verified here: OpenSSL does that. Rules:

- Whatever the bytes are, there is an answer or a `ValueError`. What DER allows in one way only is read in no other.
- There is no recursion, and nothing is read twice: a certificate is a few fields in a fixed order.
- A common name is no name (RFC 9525 section 2): what a certificate is for stands in its subjectAltName.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import ip_address
from typing import Final

CERTIFICATE_BYTES_MAX: Final = 256 * 1024
"""Of one certificate in DER. Those with a hundred names have some 4 KiB."""

NAMES_MAX: Final = 4096
"""Of one certificate. Public authorities give a few hundred."""

_INTEGER, _BIT_STRING, _OCTET_STRING, _OID, _SEQUENCE = 0x02, 0x03, 0x04, 0x06, 0x30
_BOOLEAN, _UTC_TIME, _GENERALIZED_TIME = 0x01, 0x17, 0x18
_VERSION, _ISSUER_ID, _SUBJECT_ID, _EXTENSIONS = 0xA0, 0x81, 0x82, 0xA3
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87

_SUBJECT_ALT_NAME: Final = bytes.fromhex("551d11")  # 2.5.29.17
_KINDS: Final = {
    bytes.fromhex("2a8648ce3d0201"): "ecdsa",  # 1.2.840.10045.2.1
    bytes.fromhex("2a864886f70d010101"): "rsa",  # 1.2.840.113549.1.1.1
    bytes.fromhex("2b6570"): "ed25519",  # 1.3.101.112
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is in a certificate. See `tls.Certificate` for what each of these is."""

    names: tuple[str, ...]
    kind: str
    not_before: float
    not_after: float
    fingerprint: str


def read_certificate(der: bytes) -> Facts:
    """What is in a certificate. Raises `ValueError`."""
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise ValueError(f"it is longer than {CERTIFICATE_BYTES_MAX} bytes")
    outside = _Fields(der)
    certificate = _Fields(outside.take(_SEQUENCE))
    outside.end()
    signed = _Fields(certificate.take(_SEQUENCE))
    certificate.take(_SEQUENCE)  # the algorithm of the signature
    certificate.take(_BIT_STRING)
    certificate.end()

    signed.take_if(_VERSION)
    signed.take(_INTEGER)  # the serial number
    signed.take(_SEQUENCE)  # the algorithm of the signature, once more
    signed.take(_SEQUENCE)  # the issuer
    validity = _Fields(signed.take(_SEQUENCE))
    not_before, not_after = _time(validity), _time(validity)
    validity.end()
    signed.take(_SEQUENCE)  # the subject
    kind = _kind(_Fields(signed.take(_SEQUENCE)))
    signed.take_if(_ISSUER_ID)
    signed.take_if(_SUBJECT_ID)
    extensions = signed.take_if(_EXTENSIONS)
    signed.end()
    names = () if extensions is None else _names(extensions)
    return Facts(names, kind, not_before, not_after, sha256(der).hexdigest())


def _time(validity: _Fields) -> float:
    """RFC 5280 section 4.1.2.5: to the second, and in UTC."""
    text = validity.take_if(_UTC_TIME)
    if text is not None:
        century = b"19" if text[:2] >= b"50" else b"20"
        text = century + text
    else:
        text = validity.take(_GENERALIZED_TIME)
    digits = text[:-1]
    if len(digits) != 14 or not digits.isdigit() or text[-1:] != b"Z":
        raise ValueError("it has a time that is not one")
    month, day, hour, minute, second = (int(digits[at : at + 2]) for at in range(4, 14, 2))
    return datetime(int(digits[:4]), month, day, hour, minute, second, tzinfo=UTC).timestamp()


def _kind(key: _Fields) -> str:
    """Of the public key."""
    algorithm = _Fields(key.take(_SEQUENCE))
    key.take(_BIT_STRING)
    key.end()
    kind = _KINDS.get(algorithm.take(_OID))
    if kind is None:
        raise ValueError("its key is of an unknown kind; make one with ECDSA, RSA or Ed25519")
    return kind


def _names(extensions: bytes) -> tuple[str, ...]:
    """Those of the subjectAltName."""
    outside = _Fields(extensions)
    each = _Fields(outside.take(_SEQUENCE))
    outside.end()
    found: tuple[str, ...] | None = None
    while each.left:
        extension = _Fields(each.take(_SEQUENCE))
        what = extension.take(_OID)
        extension.take_if(_BOOLEAN)  # whether it is critical
        value = extension.take(_OCTET_STRING)
        extension.end()
        if what == _SUBJECT_ALT_NAME:
            if found is not None:
                raise ValueError("it has two lists of names")
            found = _subject_alt_name(value)
    return found or ()


def _subject_alt_name(value: bytes) -> tuple[str, ...]:
    """Host names and IP addresses; the other kinds of names (section 4.2.1.6) are none of a host."""
    outside = _Fields(value)
    each = _Fields(outside.take(_SEQUENCE))
    outside.end()
    names: list[str] = []
    while each.left:
        tag, content = each.any()
        if tag == _DNS_NAME:
            name = content.decode("latin-1").lower()
            if not (name.isascii() and name.isprintable() and name and " " not in name):
                raise ValueError(f"it has the name {name[:80]!a}, which no host can have")
            names.append(name)
        elif tag == _IP_ADDRESS:
            names.append(str(ip_address(content)))
        if len(names) > NAMES_MAX:
            raise ValueError(f"it has more than {NAMES_MAX} names")
    return tuple(names)


class _Fields:
    """The fields of a value in DER, read one after the other. Raises `ValueError`."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        """Whether there is one more."""
        return self._at < len(self._data)

    def end(self) -> None:
        """There must be no more."""
        if self.left:
            raise ValueError("there is more in it than there should be")

    def take(self, tag: int) -> bytes:
        """What is in the next field, which has this tag."""
        found, content = self.any()
        if found != tag:
            raise ValueError("it has other fields than a certificate has")
        return content

    def take_if(self, tag: int) -> bytes | None:
        """What is in the next field, if it has this tag."""
        return self.take(tag) if self._data[self._at : self._at + 1] == bytes((tag,)) else None

    def any(self) -> tuple[int, bytes]:
        """The tag of the next field, and what is in it (X.690 sections 8.1 and 10.1). All tags are of one byte here."""
        data, at = self._data, self._at
        header = data[at : at + 2]
        if len(header) < 2:
            raise ValueError("it ends too soon")
        tag, length = header
        at += 2
        if length >= 0x80:
            count = length - 0x80
            length = int.from_bytes(data[at : at + count], "big")
            at += count
            if not 1 <= count <= 4 or length < 0x80 or length >> 8 * (count - 1) == 0:
                raise ValueError("it has a length that DER has not")
        if tag & 0x1F == 0x1F or at + length > len(data):
            raise ValueError("it ends too soon")
        self._at = at + length
        return tag, data[at : self._at]
