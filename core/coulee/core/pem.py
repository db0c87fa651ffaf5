"""Takes apart files with certificates and keys (PEM, RFC 7468).

Rules:

- What stands between blocks is passed over, because people put comments there.
- No error quotes what is in a block: it may be a key.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field
from typing import Final

_BEGIN: Final = re.compile(rb"^-----BEGIN ([A-Z0-9 ]{1,40})-----[ \t\r]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One block."""

    label: str
    """What it says it is: `CERTIFICATE`, `PRIVATE KEY`."""

    text: bytes = field(repr=False)
    """All of it, from its first line to its last, with line ends as they were."""

    der: bytes = field(repr=False)
    """What is in it; b"" where that is encrypted."""

    encrypted: bool
    """Whether a password is needed: by its label, or as OpenSSL had it before PKCS #8 (RFC 1421 section 4.6.1.1)."""


def pem_blocks(data: bytes) -> list[Block]:
    """The blocks of a file, in their order. Raises `ValueError`."""
    blocks: list[Block] = []
    at = 0
    while (begin := _BEGIN.search(data, at)) is not None:
        label = begin[1].decode("ascii")
        last = b"-----END " + begin[1] + b"-----"
        end = data.find(last, begin.end())
        if end < 0:
            raise ValueError(f"it has no end of its block {label}, as if it were not written to its end")
        at = end + len(last)
        blocks.append(_block(label, data[begin.start() : at] + b"\n", data[begin.end() : end]))
    return blocks


def _block(label: str, text: bytes, body: bytes) -> Block:
    if label == "ENCRYPTED PRIVATE KEY" or b"Proc-Type: 4,ENCRYPTED" in body:
        return Block(label, text, b"", True)
    try:
        return Block(label, text, binascii.a2b_base64(b"".join(body.split()), strict_mode=True), False)
    except binascii.Error:
        raise ValueError(f"what is in its block {label} is not base64") from None


def has_certificates(data: bytes) -> bool:
    """Whether it looks like a file with certificates; to know it takes `pem_blocks`."""
    return data.isascii() and b"-----BEGIN CERTIFICATE-----" in data
