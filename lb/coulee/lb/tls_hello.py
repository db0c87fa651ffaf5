"""Enough of TLS to ask a server whether it speaks it: a ClientHello, and what comes back.

Rules:

- The hello offers TLS 1.2 and 1.3 with what servers of today take, so that the answer is a ServerHello (RFC 8446
  section 4.1.3), or an alert that says why not. There the check ends: no certificate is looked at.
- Nothing is encrypted, so nothing need be secret: the random bytes come from the machine's own source.

HAProxy's `ssl-hello-chk` does as much with SSLv3, and takes an alert for an answer; here it is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final

from coulee.lb.health import CheckFailed

HANDSHAKE: Final = 22
ALERT: Final = 21
SERVER_HELLO: Final = 2
WARNING: Final = 1
UNRECOGNIZED_NAME: Final = 112

_CIPHER_SUITES: Final = (
    0x1301, 0x1302, 0x1303,  # TLS 1.3
    0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8,  # ECDHE with AEAD
    0xC009, 0xC013, 0xC00A, 0xC014, 0x009C, 0x009D, 0x002F, 0x0035,  # what older servers have
)  # fmt: skip
_GROUPS: Final = (0x001D, 0x0017, 0x0018)  # x25519, secp256r1, secp384r1
_SIGNATURES: Final = (0x0403, 0x0503, 0x0603, 0x0807, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601)
_VERSIONS: Final = (0x0304, 0x0303)

_ALERTS: Final = {
    0: "close_notify", 10: "unexpected_message", 40: "handshake_failure", 47: "illegal_parameter", 50: "decode_error",
    70: "protocol_version", 71: "insufficient_security", 80: "internal_error", 86: "inappropriate_fallback",
    109: "missing_extension", UNRECOGNIZED_NAME: "unrecognized_name", 116: "certificate_required",
    120: "no_application_protocol",
}  # fmt: skip
"""RFC 8446 section 6; those that may answer a hello."""


def client_hello(rng: Random, server_name: str = "") -> bytes:
    """A ClientHello in its record (RFC 8446 sections 4.1.2 and 5.1). It names the server where that has a name."""
    extensions = [
        _extension(10, _sized(2, _words(_GROUPS))),
        _extension(11, _sized(1, b"\0")),  # points are uncompressed
        _extension(13, _sized(2, _words(_SIGNATURES))),
        _extension(23, b""),  # extended_master_secret, which some servers insist on
        _extension(43, _sized(1, _words(_VERSIONS))),
        _extension(51, _sized(2, _words([_GROUPS[0]]) + _sized(2, rng.randbytes(32)))),  # any 32 bytes are a key
        _extension(0xFF01, b"\0"),  # renegotiation_info, for the same reason
    ]
    if server_name:
        extensions.insert(0, _extension(0, _sized(2, b"\0" + _sized(2, server_name.encode("ascii")))))
    body = b"".join([
        b"\3\3", rng.randbytes(32), _sized(1, rng.randbytes(32)),  # a session to resume, as middleboxes like to see
        _sized(2, _words(_CIPHER_SUITES)),
        _sized(1, b"\0"),  # no compression
        _sized(2, b"".join(extensions)),
    ])  # fmt: skip
    return bytes([HANDSHAKE, 3, 1]) + _sized(2, b"\1" + _sized(3, body))


def is_server_hello(data: bytes, warned: bool = False) -> bool:
    """Whether a server's first bytes are a ServerHello; False where they are too few to tell. Raises `CheckFailed`
    where they are something else."""
    if data[:1] not in (b"", bytes([HANDSHAKE]), bytes([ALERT])) or data[1:2] not in (b"", b"\3"):
        raise CheckFailed.unlike("TLS", data)
    if len(data) < 7:
        return False
    if data[0] == HANDSHAKE:
        if data[5] != SERVER_HELLO:
            raise CheckFailed(f"not TLS: a handshake message of type {data[5]} in place of a ServerHello")
        return True
    level, description = data[5], data[6]
    if level == WARNING and description == UNRECOGNIZED_NAME and not warned:
        return is_server_hello(data[7:], warned=True)  # it goes on with another name (RFC 6066 section 3)
    raise CheckFailed(f"TLS alert: {_ALERTS.get(description, 'alert')} ({description})")


def _extension(number: int, body: bytes) -> bytes:
    return number.to_bytes(2, "big") + _sized(2, body)


def _sized(width: int, data: bytes) -> bytes:
    """Bytes behind their length, which takes `width` bytes."""
    return len(data).to_bytes(width, "big") + data


def _words(numbers: Iterable[int]) -> bytes:
    return b"".join(number.to_bytes(2, "big") for number in numbers)
