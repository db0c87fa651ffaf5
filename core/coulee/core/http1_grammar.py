"""The grammar of HTTP/1.1 (RFC 9112), and what a head means for framing, routing and the connection. There is no state.

Read beside `http1.py`, which keeps the state. Everything here raises `ProtocolError` for what is not to be passed on.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from coulee.core.answers import PHRASES
from coulee.core.codec import ProtocolError
from coulee.core.headers import TOKEN, Headers, field_pattern
from coulee.core.seam import Bytes

JOIN_MAX: Final = 16384
"""Up to this many bytes a head, a chunk's size and its data are joined; beyond, copying costs more than a list."""


# ------------------------------------------------------------------------------------------------ the grammar

_T: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

REQUEST_LINE: Final = re.compile(rb"(%s++) ([\x21-\x7e]++) HTTP/([0-9])\.([0-9])" % _T)
STATUS_LINE: Final = re.compile(rb"HTTP/([0-9])\.([0-9]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*+))?")
FIELDS: Final = re.compile(rb"(?:\r\n%s++:[\t\x20-\x7e\x80-\xff]*+)*+" % _T)
TARGET: Final = re.compile(r"[\x21-\x7e]+")
PHRASE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

CHUNK_LINE: Final = re.compile(
    rb'([0-9A-Fa-f]{1,16})((?:[ \t]*;[ \t]*%s+(?:[ \t]*=[ \t]*(?:%s+|"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]'
    rb'|\\[\t\x20-\x7e\x80-\xff])*"))?)*)' % (_T, _T)
)
"""chunk-size and chunk-ext (section 7.1)."""

HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]+)(?::[0-9]*)?")
"""uri-host with an optional port (RFC 9110 section 7.2), never empty (section 4.2.1)."""

ABSOLUTE: Final = re.compile(rb"(?i)https?://([^/?#]*)([^#]*)")
FRAMING: Final = field_pattern(("content-length", "transfer-encoding"))

NOT_IN_TRAILERS: Final = field_pattern(
    ("transfer-encoding", "content-length", "content-encoding", "content-type", "content-range", "trailer", "host",
     "connection", "te", "upgrade", "expect", "max-forwards", "range", "cache-control", "authorization", "cookie",
     "set-cookie", "proxy-authenticate", "proxy-authorization", "www-authenticate", "keep-alive", "age", "date",
     "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
)  # fmt: skip
"""Framing, routing, authentication and what controls caches must not come late (RFC 9110 section 6.5.1)."""

METHODS: Final = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
REFUSED_METHODS: Final = frozenset({"CONNECT", "TRACE"})
BODY_EXPECTED: Final = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose request says Content-Length: 0 where it has no body (RFC 9110 section 8.6)."""


# --------------------------------------------------------------------------------------------------- heads, read

TOKEN_BYTES: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
HEX_BYTES: Final = frozenset(b"0123456789ABCDEFabcdef")
METHOD_NAMES: Final = frozenset(METHODS.values())


def fault_of_origin(error: ProtocolError) -> ProtocolError:
    """A fault of an origin is a bad gateway, whatever it is."""
    if error.reason == "upstream_reset":
        return error
    return ProtocolError(error.detail, 502, "upstream_invalid")


def is_old(major: bytes, minor: bytes) -> bool:
    """Whether this is HTTP/1.0. Raises `ProtocolError` for what is neither that nor 1.1."""
    if major == b"1" and minor == b"1":
        return False
    if major == b"1" and minor == b"0":
        return True
    version = f"HTTP/{major.decode()}.{minor.decode()}"
    raise ProtocolError(f"{version} is not spoken here", 505, "version_not_supported")


def only(block: bytes, lower: bytes, needle: bytes) -> bytes | None:
    """The value of a field that may be there once. Raises `ProtocolError` where it is there twice."""
    at = lower.find(needle)
    if at < 0:
        return None
    start = at + len(needle)
    if lower.find(needle, start) >= 0:
        raise ProtocolError(f"more than one {needle[2:-1].decode()} field")
    end = lower.find(b"\r\n", start)
    return (block[start:] if end < 0 else block[start:end]).strip(b" \t")


def framing_of(block: bytes, lower: bytes, old: bool) -> tuple[int | None, bool]:
    """Content-Length, and whether the body is chunked (section 6.1 to 6.3)."""
    coding = only(block, lower, b"\r\ntransfer-encoding:")
    size = only(block, lower, b"\r\ncontent-length:")
    if coding is not None:
        if size is not None:
            raise ProtocolError("both Content-Length and Transfer-Encoding")
        if old:
            raise ProtocolError("Transfer-Encoding in HTTP/1.0")
        if coding.lower() != b"chunked":
            raise ProtocolError("the only transfer coding spoken here is chunked", 501, "not_implemented")
        return None, True
    if size is None:
        return None, False
    if not (size.isdigit() and len(size) <= 18):
        raise ProtocolError("Content-Length is not a number of up to 18 digits")
    return int(size), False


@lru_cache(maxsize=1024)
def authority_of(host: bytes) -> str:
    if HOST.fullmatch(host) is None:
        raise ProtocolError("the Host field is not a host with an optional port (RFC 9112 section 3.2)")
    return host.decode("latin-1")


def other_target(target: bytes, method: str) -> tuple[str, str | None]:
    """A target that is not in origin form, in that form, with its authority if it had one (section 3.2)."""
    if target == b"*" and method == "OPTIONS":
        return "*", None
    absolute = ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise ProtocolError("the request target has none of the forms of RFC 9112 section 3.2")
    authority, path = absolute.groups()
    if HOST.fullmatch(authority) is None:
        raise ProtocolError("the host of the request target is not a host with an optional port")
    if not path:
        path = b"*" if method == "OPTIONS" else b"/"  # section 3.2.4
    elif path.startswith(b"?"):
        path = b"/" + path
    return path.decode("latin-1"), authority.decode("latin-1")


def says_close(headers: Headers) -> bool:
    """Whether `close` is among the options of Connection (section 9.6)."""
    lower = headers.lower
    at = lower.find(b"\r\nconnection:")
    if at < 0 or lower.find(b"close", at) < 0:
        return False
    return "close" in [token.strip() for token in (headers.get("connection") or "").lower().split(",")]


def what_is_wrong_with(block: bytes) -> str:
    """The rule that a block of fields breaks; looked for only when one does."""
    for line in block.split(b"\r\n")[1:]:
        name, colon, _ = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            return "a folded field (RFC 9112 section 5.2)"
        if not colon or TOKEN.fullmatch(name) is None:
            return "a field without a name and a colon right behind it (RFC 9112 section 5.1)"
    return "a control character in the value of a field (RFC 9110 section 5.5)"


# ------------------------------------------------------------------------------------------------ heads, written


def unframed(block: bytes, lower: bytes) -> bytes:
    if lower.find(b"\r\ncontent-length:") >= 0 or lower.find(b"\r\ntransfer-encoding:") >= 0:
        return FRAMING.sub(b"", block)
    return block


def check_length(data: bytes, length: int | None, ended: bool) -> None:
    """Before a byte of a message is written, because afterwards nothing else can be said."""
    size = len(data)
    if length is not None and (size > length or (ended and size < length)):
        raise ProtocolError(f"a body of {size} bytes was announced as {length}")


def phrase_of(status: int, phrase: str) -> bytes:
    if not phrase:
        return PHRASE_OF.get(status, b"")
    if PHRASE.fullmatch(phrase) is None:
        raise ProtocolError(f"{phrase!r} is no phrase of a status line")
    return phrase.encode("latin-1")


PHRASE_OF: Final = {status: phrase.encode() for status, phrase in PHRASES.items()}


def chunked_of(data: bytes, ended: bool) -> Bytes:
    """Data as a chunk, and the last chunk behind it."""
    tail = b"\r\n0\r\n\r\n" if ended else b"\r\n"
    if not data:
        return tail[2:]
    if len(data) <= JOIN_MAX:
        return b"%x\r\n%s%s" % (len(data), data, tail)
    return [b"%x\r\n" % len(data), data, tail]
