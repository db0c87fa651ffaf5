"""The grammar of HTTP/1.1 (RFC 9112), and what a head means for framing, routing and the connection. There is no state.

Read beside `http1.py`, which keeps the state. Everything here raises `ProtocolError` for what is not to be passed on.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from coulee.core.answers import PHRASES
from coulee.core.codec import ProtocolError
from coulee.core.config import PROTOCOL, Limits
from coulee.core.forward import read_target
from coulee.core.headers import MARKS, TOKEN, Headers, field_pattern, joined
from coulee.core.parts import Request, Response
from coulee.core.seam import Bytes

JOIN_MAX: Final = 16384
"""Up to this many bytes a head, a chunk's size and its data are joined; beyond, copying costs more than a list."""


# ------------------------------------------------------------------------------------------------ the grammar

_T: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
_FIELDS: Final = rb"(?:\r\n%s++:%s)*+" % (_T, _VALUE)


class Heads:
    """Patterns of whole heads with up to so many fields. What matches none is not whole, or broken, or has more fields:
    `fault_of_head` tells. The names of a `request` have no underscore, as nearly all; where only `odd_request`
    matches, one has."""

    __slots__ = ("answer", "odd_request", "request")

    def __init__(self, fields_max: int) -> None:
        def fields(token: bytes) -> bytes:
            return b"((?:\\r\\n" + token + b"++:" + _VALUE + b"){0,%d}+)\\r\\n\\r\\n" % fields_max

        line = b"(" + _T + rb"++) ([\x21-\x7e]++) HTTP/1\.([01])"
        self.request = re.compile(line + fields(_T.replace(b"_", b"")))
        self.odd_request = re.compile(line + fields(_T))
        self.answer = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: (" + _VALUE + b"))?" + fields(_T))


heads_with: Final = lru_cache(maxsize=64)(Heads)

REQUEST_LINE: Final = re.compile(rb"%s++ [\x21-\x7e]++ HTTP/([0-9]\.[0-9])" % _T)
STATUS_LINE: Final = re.compile(rb"HTTP/([0-9]\.[0-9]) [1-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*+)?")
FIELDS: Final = re.compile(_FIELDS)
PHRASE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

CHUNK_LINE: Final = re.compile(
    rb'([0-9A-Fa-f]{1,16})((?:[ \t]*;[ \t]*%s+(?:[ \t]*=[ \t]*(?:%s+|"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]'
    rb'|\\[\t\x20-\x7e\x80-\xff])*"))?)*)' % (_T, _T)
)
"""chunk-size and chunk-ext (section 7.1)."""

HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]+)(?::[0-9]*)?")
"""uri-host with an optional port (RFC 9110 section 7.2), never empty (section 4.2.1)."""

ABSOLUTE: Final = re.compile(rb"(?i:http(s)?)://([^/?#]*)([^#]*)")
FRAMING: Final = field_pattern(("content-length", "transfer-encoding"))
SWITCHING: Final = field_pattern(("content-length", "transfer-encoding", "connection", "upgrade"))

NOT_IN_TRAILERS: Final = field_pattern(
    ("transfer-encoding", "content-length", "content-encoding", "content-type", "content-range", "trailer", "host",
     "connection", "te", "upgrade", "expect", "max-forwards", "range", "cache-control", "authorization", "cookie",
     "set-cookie", "proxy-authenticate", "proxy-authorization", "www-authenticate", "keep-alive", "age", "date",
     "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
)  # fmt: skip
"""Framing, routing, authentication and what controls caches must not come late (RFC 9110 section 6.5.1)."""

NEVER_TRAILERS: Final = (b"content-length", b"transfer-encoding", b"host")
"""Of these, the ones that are not dropped but refused: there is no reason to send them but to be read two ways."""

REFUSED_METHODS: Final = frozenset({"CONNECT", "TRACE"})
USUAL_METHODS: Final = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
BODY_EXPECTED: Final = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose request says Content-Length: 0 where it has no body (RFC 9110 section 8.6)."""


# --------------------------------------------------------------------------------------------------- heads, read

TOKEN_BYTES: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
HEX_BYTES: Final = frozenset(b"0123456789ABCDEFabcdef")


def fault_of_origin(error: ProtocolError) -> ProtocolError:
    """A fault of an origin is a bad gateway, whatever it is."""
    if error.reason == "upstream_reset":
        return error
    return ProtocolError(error.detail, 502, "upstream_invalid")


def cut_short(server: bool) -> ProtocolError:
    """The end of a connection in the middle of a message that a server, or a client, reads."""
    if server:
        return ProtocolError("the client closed the connection in the middle of a request", 0, "client_gone")
    return ProtocolError("the connection was closed before the answer was whole", 502, "upstream_reset")


def check_beginning(data: bytes, server: bool) -> None:
    """What can be said of a head by its first bytes, and is said of one that is whole too."""
    if server:
        if data and data[0] not in TOKEN_BYTES and data != b"\r":
            raise ProtocolError("this does not begin like a request")
    elif data[:5] != b"HTTP/"[: len(data)]:
        raise ProtocolError("the answer does not begin with HTTP/")


def fault_of_head(line: bytes, block: bytes, server: bool, fields_max: int) -> ProtocolError:
    """What is wrong with a head that is whole and does not match."""
    match = (REQUEST_LINE if server else STATUS_LINE).fullmatch(line)
    if match is None:
        if server:
            return ProtocolError("the request line is not `method SP target SP HTTP/x.y` (RFC 9112 section 3)")
        return ProtocolError("the status line is not `HTTP/x.y SP status SP phrase` (RFC 9112 section 4)")
    if FIELDS.fullmatch(block) is None:
        return ProtocolError(what_is_wrong_with(block))
    if match[1] in (b"1.0", b"1.1"):
        return ProtocolError(f"more than {fields_max} fields", 431, "header_too_large")
    return ProtocolError(f"HTTP/{match[1].decode()} is not spoken here", 505, "version_not_supported")


def joined_once(found: list[tuple[bytes, bytes]], once: frozenset[bytes]) -> dict[bytes, bytes]:
    """See `headers.joined`. Raises `ProtocolError` where a field that may be there `once` is there twice."""
    names = [name for name, _ in found]
    for name in names:
        if name in once and names.count(name) > 1:
            raise ProtocolError(f"more than one {name.decode()} field")
    return joined(found)


ONCE_IN_REQUEST: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"content-type"})
ONCE_IN_ANSWER: Final = frozenset({b"content-length", b"transfer-encoding"})
"""Fields that two readers would take differently if they were there twice (RFC 9110 section 5.3)."""


def framing_of(marks: dict[bytes, bytes], old: bool) -> tuple[int | None, bool]:
    """Content-Length, and whether the body is chunked (section 6.1 to 6.3)."""
    size = marks.get(b"content-length")
    if b"transfer-encoding" in marks:
        coding = marks[b"transfer-encoding"]
        if size is not None:
            raise ProtocolError("both Content-Length and Transfer-Encoding")
        if old:
            raise ProtocolError("Transfer-Encoding in HTTP/1.0")
        if coding.rstrip(b" \t") != b"chunked":
            raise ProtocolError("the only transfer coding spoken here is chunked", 501, "not_implemented")
        return None, True
    if size is None:
        return None, False
    if not size.isdigit():
        size = size.rstrip(b" \t")
    if not size.isdigit() or len(size) > 18:
        raise ProtocolError("Content-Length is not a number of up to 18 digits")
    return int(size), False


def check_expect(headers: Headers) -> None:
    """There is one thing that can be expected (RFC 9110 section 10.1.1)."""
    expect = (headers.get("expect") or "").lower()
    if expect != "100-continue":
        raise ProtocolError(f"Expect: {expect} is not 100-continue", 417, "expectation_failed")


def check_ranges(marks: dict[bytes, bytes], limits: Limits) -> None:
    """Many ranges in one request make an origin send a body many times over (RFC 9110 section 14.2)."""
    if b"range" in marks and marks[b"range"].count(b",") >= limits.ranges_max:
        raise ProtocolError(f"more than {limits.ranges_max} ranges (RFC 9110 section 14.2)")


def check_size(line: int, head: int, limits: Limits) -> None:
    """Neither the first line nor a head as a whole is larger than it may be."""
    if line > limits.line_bytes_max:
        detail = f"the first line is longer than {limits.line_bytes_max} bytes"
        raise ProtocolError(detail, 414, "target_too_long")
    if head > limits.head_bytes_max:
        raise ProtocolError(f"the head is larger than {limits.head_bytes_max} bytes", 431, "header_too_large")


def check_limits(block: bytes, end: int, limits: Limits) -> None:
    """Whether a whole head, which ends at `end`, is too large in any way."""
    check_size(end - len(block) - 4, end, limits)
    if len(block) > limits.line_bytes_max and max(map(len, block.split(b"\r\n"))) > limits.line_bytes_max:
        detail = f"a field is longer than {limits.line_bytes_max} bytes"
        raise ProtocolError(detail, 431, "header_too_large")


def chunk_line(data: bytes, at: int, limits: Limits) -> re.Match[bytes] | None:
    """The line of a chunk: its size in hexadecimal digits, and its extensions. None where it is not whole yet."""
    end = data.find(b"\r\n", at)
    length = (len(data) - data.endswith(b"\r") if end < 0 else end) - at  # its CR may be there, and not its LF
    if length and data[at] not in HEX_BYTES:
        raise ProtocolError("a chunk does not begin with its size (RFC 9112 section 7.1)")
    if length > limits.chunk_line_bytes_max:
        raise ProtocolError(f"the line of a chunk is longer than {limits.chunk_line_bytes_max} bytes")
    if end < 0:
        return None
    match = CHUNK_LINE.fullmatch(data, at, end)
    if match is None:
        raise ProtocolError("the line of a chunk is not its size and extensions (RFC 9112 section 7.1)")
    return match


def trailers_of(block: bytes, limits: Limits) -> bytes:
    """Of the fields behind the last chunk, those that go on."""
    if FIELDS.fullmatch(block) is None:
        raise ProtocolError(what_is_wrong_with(block))
    if block.count(b"\r\n") > limits.trailer_fields_max:
        raise ProtocolError(f"more than {limits.trailer_fields_max} trailers", 431, "header_too_large")
    return allowed_trailers(block)


def allowed_trailers(block: bytes) -> bytes:
    """The trailers that go on. Raises `ProtocolError` for those that are only there to be read two ways."""
    for name, _ in MARKS.findall(block.lower()):
        if name in NEVER_TRAILERS:
            raise ProtocolError(f"{name.decode()} among the trailers (RFC 9110 section 6.5.1)")
    return NOT_IN_TRAILERS.sub(b"", block)


@lru_cache(maxsize=1024)
def authority_of(host: bytes) -> str:
    host = host.rstrip(b" \t")
    if HOST.fullmatch(host) is None:
        raise ProtocolError("the Host field is not a host with an optional port (RFC 9112 section 3.2)")
    return host.decode("latin-1").lower()  # RFC 3986 section 6.2.2.1: so two who compare it never differ


def check_refused(method: str, target: bytes, marks: dict[bytes, bytes], forwards: bool) -> None:
    """Of the methods that a gateway refuses, a forward proxy takes CONNECT. It goes to a host and a port, and has no
    body: what follows it is for them (RFC 9110 section 9.3.6)."""
    if method != "CONNECT" or not forwards:
        raise ProtocolError(f"{method} is not for a gateway", 405, "method_not_allowed")
    if b"content-length" in marks or b"transfer-encoding" in marks:
        raise ProtocolError("a CONNECT with a body (RFC 9110 section 9.3.6)")
    try:
        read_target(target.decode("latin-1"))
    except ValueError as error:
        raise ProtocolError(str(error)) from None


def other_target(target: bytes, method: str, secure: bool) -> tuple[str, str | None]:
    """A target that is not in origin form, in that form, with its authority if it had one (section 3.2). `secure` is
    whether it came by TLS."""
    if method == "CONNECT":
        where = target.decode("latin-1").lower()
        return where, where
    if target == b"*" and method == "OPTIONS":
        return "*", None
    absolute = ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise ProtocolError("the request target has none of the forms of RFC 9112 section 3.2")
    https, authority, path = absolute.groups()
    if HOST.fullmatch(authority) is None:
        raise ProtocolError("the host of the request target is not a host with an optional port")
    if bool(https) is not secure:
        what = "an https target without TLS" if https else "an http target in TLS"
        raise ProtocolError(f"{what} (RFC 9110 section 7.4)", 421, "misdirected")
    if not path:
        path = b"*" if method == "OPTIONS" else b"/"  # section 3.2.4
    elif path.startswith(b"?"):
        path = b"/" + path
    return path.decode("latin-1"), authority.decode("latin-1").lower()


def says_close(marks: dict[bytes, bytes]) -> bool:
    """Whether `close` is among the options of Connection (section 9.6)."""
    options = marks.get(b"connection")
    return options is not None and options != b"keep-alive" and b"close" in options_of(marks)


def options_of(marks: dict[bytes, bytes]) -> list[bytes]:
    """What Connection names, in lower case."""
    return [option.strip(b" \t") for option in marks.get(b"connection", b"").split(b",")]


def protocol_of(headers: Headers, asked: str) -> str:
    """The protocol that a 101 switches to, which must be the one asked for (RFC 9110 section 15.2.2)."""
    if not asked:
        raise ProtocolError("a 101 that nobody asked for")
    marks = headers.marks
    if b"content-length" in marks or b"transfer-encoding" in marks:
        raise ProtocolError("a 101 with a body (RFC 9110 section 15.2)")
    protocol = headers.get("upgrade") or ""  # two of them are joined, and no protocol
    if b"upgrade" not in options_of(marks) or protocol.lower() != asked.lower():
        raise ProtocolError(f"a 101 that does not switch to {asked}, which was asked for (RFC 9110 section 15.2.2)")
    return protocol


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


def with_framing(headers: Headers, framing: bytes) -> bytes:
    """The fields, with our framing in the place of what framing they hold: one field, or nothing. A Content-Length that
    is there and says just what ours would is left where it stands."""
    marks = headers._marks or headers.marks
    said = marks.get(b"content-length")
    if b"transfer-encoding" not in marks:
        if said is None:
            return headers._block + framing
        if said == framing[_BEFORE_LENGTH:]:
            return headers._block
    return FRAMING.sub(b"", headers.block) + framing


_BEFORE_LENGTH: Final = len("\r\nContent-Length: ")


def switching(block: bytes, protocol: str) -> bytes:
    """The fields of a head that asks for another protocol, or switches to it."""
    if PROTOCOL.fullmatch(protocol) is None:
        raise ProtocolError(f"{protocol!r} is no protocol to switch to")
    return b"%s\r\nConnection: upgrade\r\nUpgrade: %s" % (SWITCHING.sub(b"", block), protocol.encode())


def check_asking(request: Request) -> None:
    """Only a GET without a body asks for an upgrade: what follows it could be either."""
    if request.method != "GET" or request.length != 0 or not request.ended:
        raise ProtocolError(f"a {request.method} or a body beside an upgrade")


def check_switch(response: Response) -> None:
    """A 101 switches to a protocol, and what follows has no end but the connection's."""
    if not response.upgrade or response.ended:
        raise ProtocolError("101 is no answer, unless an origin switches to what was asked for")


def head_of_switch(part: Response) -> bytes:
    """A 101; or a 2xx to CONNECT, which has no framing either (RFC 9110 section 9.3.6)."""
    if part.status != 101:
        if part.ended:
            raise ProtocolError(f"{part.status} to CONNECT would open a tunnel; to refuse, answer with a 4xx")
        return start_of_answer(part.status, part.reason) + SWITCHING.sub(b"", part.headers.block) + b"\r\n\r\n"
    check_switch(part)
    fields = switching(part.headers.block, part.upgrade)
    return b"HTTP/1.1 101 %s%s\r\n\r\n" % (phrase_of(101, part.reason), fields)


def check_length(data: bytes, length: int | None, ended: bool) -> None:
    """Before a byte of a message is written, because afterwards nothing else can be said."""
    size = len(data)
    if length is not None and (size > length or (ended and size < length)):
        raise ProtocolError(f"a body of {size} bytes was announced as {length}")


@lru_cache(maxsize=1024)
def start_of_answer(status: int, phrase: str) -> bytes:
    """The first line of an answer, without its end. The phrase is our own where there is none."""
    if not 200 <= status <= 999:
        raise ProtocolError(f"{status} is no status of an answer")
    return b"HTTP/1.1 %d %s" % (status, phrase_of(status, phrase))


@lru_cache(maxsize=1024)
def start_of_request(method: str) -> bytes:
    """A method as it stands before a target. Raises `ProtocolError` for what is none."""
    raw = method.encode("latin-1", "replace")
    if TOKEN.fullmatch(raw) is None:
        raise ProtocolError(f"{method!r} is no method")
    return raw + b" "


def is_target(target: str) -> bool:
    """Whether this can stand in a request line: visible ASCII, and something of it."""
    return target.isascii() and target.isprintable() and " " not in target and target != ""


def phrase_of(status: int, phrase: str) -> bytes:
    """The reason phrase as bytes; our own where there is none."""
    if not phrase:
        return PHRASES.get(status, "").encode()
    if PHRASE.fullmatch(phrase) is None:
        raise ProtocolError(f"{phrase!r} is no phrase of a status line")
    return phrase.encode("latin-1")


@lru_cache(maxsize=1024)
def text_of(raw: bytes) -> str:
    """A method or a phrase as text: there are few, and they come again and again."""
    return raw.decode("latin-1")


def chunked_of(data: bytes, ended: bool) -> Bytes:
    """Data as a chunk, and the last chunk behind it."""
    tail = b"\r\n0\r\n\r\n" if ended else b"\r\n"
    if not data:
        return tail[2:]
    if len(data) <= JOIN_MAX:
        return b"%x\r\n%s%s" % (len(data), data, tail)
    return [b"%x\r\n" % len(data), data, tail]
