"""Field lists of HTTP/2 to parts and back: all that RFC 9113 section 8 wants of them, and what a gateway needs besides.

Read beside `http2.py`, which keeps the state; there is none here. What is accepted can be written as HTTP/1.1, and is
read there as the same message: no byte can be in a name or a value that means something to any other parser. Rules,
with their sections of RFC 9113 unless another is named:

- Pseudo-fields come first, each once, and only those that are defined (8.3). A `:path` begins with "/", or is the "*"
  of an OPTIONS; `:scheme` is what the connection is; `:authority` and Host are a host and a port, and agree (8.3.1).
- Names are tokens in lower case; a value has no control character, and no blank at either end (8.2.1).
- What belongs to a connection of HTTP/1 is refused: Connection, Keep-Alive, Proxy-Connection, Transfer-Encoding,
  Upgrade, and TE but for "trailers" in a request (8.2.2). Nor is any of them ever written.
- Content-Length, Expect, Range, refused methods and limits are judged as in HTTP/1. Fields are counted as they came,
  each crumb of a cookie by itself; then the crumbs are joined (8.2.3).
- TE is a field of one hop, and is taken off on its way through. A request that is gRPC's is written with it, because
  its servers demand it, and we do pass trailers on; so is one whose fields say it when it is written.
- Content-Length is written where the length is known. That of nothing at all goes without saying, for the end of the
  stream comes with the head, but for a POST and its like, and where it was said: an answer of gRPC that is all trailers
  stays what it is.
- An extended CONNECT (RFC 8441) is a GET with `upgrade`, and a 2xx to it a 101, so that the rest of the proxy sees an
  upgrade of HTTP/1. Behind it, as behind CONNECT and its 2xx, everything is `Data`, be it only the end.
- Faults are told as to a client; of what an origin sends, the codec makes them `fault_of_origin`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, TypeAlias

from hpack import HeaderTuple, NeverIndexedHeaderTuple

from coulee.core.codec import ProtocolError
from coulee.core.config import PROTOCOL, Limits
from coulee.core.forward import read_target
from coulee.core.headers import MARKS, TOKEN, UNDERSCORE, Headers
from coulee.core.http1_grammar import (
    BODY_EXPECTED,
    NOT_IN_TRAILERS,
    ONCE_IN_ANSWER,
    ONCE_IN_REQUEST,
    USUAL_METHODS,
    allowed_trailers,
    authority_of,
    check_asking,
    check_expect,
    check_length,
    check_ranges,
    check_refused,
    check_size,
    check_switch,
    framing_of,
    joined_once,
    start_of_request,
)
from coulee.core.parts import NOTHING_SENSITIVE, Interim, Request, Response, Trailers

FieldList: TypeAlias = list[tuple[bytes, bytes]]
"""Names with values; those that no table is to keep are hpack's `NeverIndexedHeaderTuple`."""

Marks: TypeAlias = dict[bytes, bytes]

_OF_REQUEST: Final = frozenset({b":method", b":scheme", b":authority", b":path"})
_OF_EXTENDED: Final = _OF_REQUEST | {b":protocol"}
_OF_ANSWER: Final = frozenset({b":status"})

_NAME: Final = rb"[!#$%&'*+\-.^`|~0-9a-z]"
_ODD_NAME: Final = rb"[!#$%&'*+\-.^_`|~0-9a-z]"


def _whole(name: bytes) -> re.Pattern[bytes]:
    """A pattern of fields as they are joined to be checked, all at once: LF behind each name, CR between fields. With
    as many CR as there are gaps no field has one of its own, and then none has an LF."""
    field = name + rb"++\n(?![\t ])[\t\x20-\x7e\x80-\xff]*+(?<![\t ])"
    return re.compile(rb"(?:%s(?:\r%s)*+)?" % (field, field))


_USUAL_FIELDS: Final = _whole(_NAME)
_FIELDS: Final = _whole(_ODD_NAME)
_LOWER_TOKEN: Final = re.compile(_ODD_NAME + rb"+")
_PATH: Final = re.compile(rb"/[\x21\x22\x24-\x7e]*+")
_PATH_TEXT: Final = re.compile(r"/[\x21\x22\x24-\x7e]*+")
_STATUS: Final = re.compile(rb"[1-9][0-9]{2}")
_PAIRS: Final = re.compile(rb"\n([^:]++):[\t ]*+([^\r]*+)")
_BODILESS: Final = frozenset({204, 304})
_CONNECTION_SPECIFIC: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te"}
)
_FRAMED: Final = frozenset({*_CONNECTION_SPECIFIC, b"content-length"})
_NOT_AS_FIELD: Final = frozenset({*_FRAMED, b"host"})
_SECRET: Final = frozenset({b"authorization", b"proxy-authorization", b"cookie"})
_SHORT_COOKIE_BYTES: Final = 20
"""A cookie that is shorter can be guessed byte by byte, by how well a guess is compressed (RFC 7541 section 7.1.3)."""

_ORDINARY: Final = frozenset({tuple, HeaderTuple})
_find_marks: Final = MARKS.findall  # a method of a name that is imported is looked up anew by each call
_headers_from: Final = Headers.from_block
_HTTP_2: Final = (2, 0)
_LINE_OF_ANSWER: Final = len("HTTP/1.1 200")


# -------------------------------------------------------------------------------------------------- requests, read


def read_request(
    fields: FieldList, *, ended: bool, limits: Limits, secure: bool | None, forwards: bool, extended: bool
) -> Request:
    """The head of a request. `ended` tells that nothing follows it on its stream, `secure` whether it came by TLS (None
    where its sender is believed about that), `forwards` that CONNECT is for us, and `extended` that we have said to
    take the CONNECT of RFC 8441. Raises `ProtocolError`."""
    pseudo = _pseudo_fields(fields, _OF_EXTENDED if extended else _OF_REQUEST)
    raw_method = pseudo.get(b":method", b"")
    method = USUAL_METHODS.get(raw_method)
    authority = pseudo.get(b":authority")
    upgrade = ""
    if method is None or b":protocol" in pseudo:
        method, upgrade = _unusual_method(raw_method, pseudo, forwards)
    if method == "CONNECT":
        assert authority is not None, "else it was refused"
        target = authority.decode("latin-1").lower()
        authority = authority.lower()
    else:
        path = pseudo.get(b":path", b"")
        if pseudo.get(b":scheme") != (b"https" if secure else b"http") or _PATH.fullmatch(path) is None:
            _check_unusual_target(pseudo, method, secure)
        target = path.decode("latin-1")
    rest = fields[len(pseudo) :]
    if authority is None:
        rest = _host_first(rest)
    else:
        rest.insert(0, (b"host", authority))
    line = len(raw_method) + len(target) + len(upgrade) + len("  HTTP/1.1")
    headers, marks = _fields_of_request(rest, line, limits)
    host = authority_of(marks[b"host"])
    if upgrade and b"content-length" in marks:
        raise ProtocolError("a CONNECT with a body (RFC 9110 section 9.3.6)")
    length: int | None = None
    if len(marks) > 1:  # more than a Host
        if not _CONNECTION_SPECIFIC.isdisjoint(marks):
            _check_connection_specific(marks, te_allowed=True)
        if method == "CONNECT":
            check_refused(method, marks[b"host"], marks, forwards)
        length, _ = framing_of(marks, old=False)
        if ended:
            check_length(b"", length, ended)  # RFC 9113 section 8.1.1
        check_ranges(marks, limits)
        if b"expect" in marks:
            check_expect(headers)
    if upgrade or method == "CONNECT":
        length, ended = 0, True
    elif length is None and ended:
        length = 0
    tls = secure if secure is not None else pseudo.get(b":scheme", b"").lower() == b"https"
    scheme = "https" if tls else "http"
    return Request(method, target, headers, _HTTP_2, scheme, host, length, b"", ended, upgrade, _sensitive_of(fields))


def _pseudo_fields(fields: FieldList, defined: frozenset[bytes]) -> Marks:
    """Those at the beginning. One that comes later has a name that is no token (section 8.3)."""
    pseudo: Marks = {}
    for name, value in fields:
        if name[:1] != b":":
            break
        if name in pseudo:
            raise ProtocolError(f"more than one {_shown(name)} (RFC 9113 section 8.3)")
        if name not in defined:
            raise ProtocolError(f"{_shown(name)} is no pseudo-field that can be here (RFC 9113 section 8.3)")
        pseudo[name] = value
    return pseudo


def _unusual_method(raw: bytes, pseudo: Marks, forwards: bool) -> tuple[str, str]:
    """A method that is not one of the usual, and for an extended CONNECT the protocol that it asks for."""
    if TOKEN.fullmatch(raw) is None:
        raise ProtocolError("no :method, or one that is no token (RFC 9113 section 8.3.1)")
    method = raw.decode("latin-1")
    if b":protocol" in pseudo:
        protocol = pseudo[b":protocol"].decode("latin-1")
        if method != "CONNECT":
            raise ProtocolError("a :protocol without CONNECT (RFC 8441 section 4)")
        if PROTOCOL.fullmatch(protocol) is None:
            raise ProtocolError("a :protocol that is none (RFC 8441 section 4)")
        return "GET", protocol
    if method in ("CONNECT", "TRACE"):
        if method == "CONNECT" and forwards and (b":scheme" in pseudo or b":path" in pseudo):
            raise ProtocolError("a CONNECT with :scheme or :path (RFC 9113 section 8.5)")
        check_refused(method, pseudo.get(b":authority", b""), {}, forwards)
    return method, ""


def _check_unusual_target(pseudo: Marks, method: str, secure: bool | None) -> None:
    """A target that is not a path in the scheme of the connection."""
    scheme = pseudo.get(b":scheme", b"").lower()
    if scheme not in (b"http", b"https"):
        raise ProtocolError("no :scheme, or neither http nor https (RFC 9113 section 8.3.1)")
    if secure is not None and (scheme == b"https") is not secure:
        what = "an http target in TLS" if secure else "an https target without TLS"
        raise ProtocolError(f"{what} (RFC 9110 section 7.4)", 421, "misdirected")
    path = pseudo.get(b":path", b"")
    if _PATH.fullmatch(path) is None and not (path == b"*" and method == "OPTIONS"):
        raise ProtocolError("no :path, or not that of a target (RFC 9113 section 8.3.1)")


def _host_first(rest: FieldList) -> FieldList:
    """The fields, with the Host before all others, where there is no `:authority`."""
    hosts = [field for field in rest if field[0] == b"host"]
    if len(hosts) != 1:
        raise ProtocolError("neither :authority nor one Host (RFC 9113 section 8.3.1)")
    return hosts + [field for field in rest if field[0] != b"host"]


def _fields_of_request(rest: FieldList, line: int, limits: Limits) -> tuple[Headers, Marks]:
    """The fields behind the pseudo-fields, Host first, and `line` bytes of a request line before them."""
    raw = _joined(rest, limits.fields_max, line, limits)
    odd = False
    if raw.count(b"\r") != len(rest) - 1 or _USUAL_FIELDS.fullmatch(raw) is None:
        _check_fields(rest, raw)
        odd = True
    if b"\rhost\n" in raw or raw.count(b"\rcookie\n") > 1:
        rest = _with_one_host_and_cookie(rest)
        raw = _joined(rest, limits.fields_max, line, limits)
    block = _block_of(raw)
    lower = block.lower()
    found = _find_marks(lower)
    marks = dict(found)
    if len(marks) != len(found):
        marks = joined_once(found, ONCE_IN_REQUEST)
    if odd:
        marks[UNDERSCORE] = b""
    return _headers_from(block, lower, marks), marks


def _with_one_host_and_cookie(rest: FieldList) -> FieldList:
    """`:authority` and a Host that agrees are one, and so are the crumbs of a cookie (sections 8.3.1 and 8.2.3)."""
    crumbs = [value for name, value in rest if name == b"cookie"]
    together = b"; ".join(filter(None, crumbs))
    out = rest[:1]
    host = rest[0][1].lower()
    seen_host = seen_cookie = False
    for field in rest[1:]:
        name, value = field
        if name == b"host":
            if seen_host or value.lower() != host:
                raise ProtocolError("more than one host, or one that is not :authority (RFC 9113 section 8.3.1)")
            seen_host = True
        elif name != b"cookie":
            out.append(field)
        elif not seen_cookie:
            seen_cookie = True
            out.append((b"cookie", together))
    return out


def _sensitive_of(fields: FieldList) -> frozenset[bytes]:
    if _ORDINARY.issuperset(map(type, fields)):
        return NOTHING_SENSITIVE
    return frozenset([field[0] for field in fields if not getattr(field, "indexable", True)])


# -------------------------------------------------------------------------------------------------- answers, read


def read_answer(fields: FieldList, *, ended: bool, limits: Limits, asked: str, upgrade: str = "") -> Response | Interim:
    """The head of an answer, to a request with the method `asked`, or to an extended CONNECT for `upgrade`. One that
    has no body is `ended`, though the end of its stream may still have to come. Raises `ProtocolError`."""
    pseudo = _pseudo_fields(fields, _OF_ANSWER)
    digits = pseudo.get(b":status", b"")
    if _STATUS.fullmatch(digits) is None:
        raise ProtocolError("no :status, or not three digits (RFC 9113 section 8.3.2)")
    status = int(digits)
    rest = fields[1:]
    raw = _joined(rest, limits.fields_max, _LINE_OF_ANSWER, limits)
    if raw.count(b"\r") != max(len(rest) - 1, 0) or _FIELDS.fullmatch(raw) is None:
        _check_fields(rest, raw)
    block = _block_of(raw) if rest else b""
    lower = block.lower()
    found = _find_marks(lower)
    marks = dict(found)
    if len(marks) != len(found):
        marks = joined_once(found, ONCE_IN_ANSWER)
    if not _CONNECTION_SPECIFIC.isdisjoint(marks):
        _check_connection_specific(marks, te_allowed=False)
    headers = _headers_from(block, lower, marks)
    if status < 200:
        return _interim(status, headers, ended)
    sensitive = _sensitive_of(fields)
    if status < 300 and (upgrade or asked == "CONNECT"):  # whatever its length says (RFC 9110 section 9.3.6)
        return Response(101 if upgrade else status, headers, "", _HTTP_2, None, b"", False, upgrade, sensitive)
    length, _ = framing_of(marks, old=False)
    if status in _BODILESS or asked == "HEAD":
        return Response(status, headers, "", _HTTP_2, 0 if status == 204 else length, b"", True, "", sensitive)
    if ended:
        check_length(b"", length, ended)
        length = 0
    return Response(status, headers, "", _HTTP_2, length, b"", ended, "", sensitive)


def _interim(status: int, headers: Headers, ended: bool) -> Interim:
    if status == 101:
        raise ProtocolError("a 101 in HTTP/2 (RFC 9113 section 8.6)")
    if ended or b"content-length" in headers.marks:
        raise ProtocolError(f"a {status} that is the end, or has a body (RFC 9113 section 8.1, RFC 9110 section 15.2)")
    return Interim(status, headers)


# ------------------------------------------------------------------------------------------------- trailers, read


def read_trailers(fields: FieldList, limits: Limits) -> Trailers:
    """The fields behind a body, those that go on. Raises `ProtocolError`."""
    raw = b"\r".join([name + b"\n" + value for name, value in fields])
    count = len(fields)
    if count > limits.trailer_fields_max:
        raise ProtocolError(f"more than {limits.trailer_fields_max} trailers", 431, "header_too_large")
    if len(raw) + 2 * count - 1 > limits.trailers_bytes_max:
        detail = f"the trailers are larger than {limits.trailers_bytes_max} bytes"
        raise ProtocolError(detail, 431, "header_too_large")
    if not fields:
        return Trailers(Headers())
    if raw.count(b"\r") != count - 1 or _FIELDS.fullmatch(raw) is None:
        _check_fields(fields, raw)
    block = _block_of(raw)
    _check_connection_specific(dict(_find_marks(block.lower())), te_allowed=False)
    return Trailers(Headers.from_block(allowed_trailers(block)))


# -------------------------------------------------------------------------------------------- what all are read by


def _joined(rest: FieldList, fields_max: int, line: int, limits: Limits) -> bytes:
    """All of them in one, to be checked: see `_whole`. Raises `ProtocolError` where a limit is broken, those that are
    of bytes as if they stood in a head of HTTP/1, behind a first line of `line` bytes."""
    count = len(rest)
    if count > fields_max:
        raise ProtocolError(f"more than {fields_max} fields", 431, "header_too_large")
    raw = b"\r".join([name + b"\n" + value for name, value in rest])
    head = line + len(raw) + 2 * count + len("\r\n\r\n") + 1
    if head > limits.line_bytes_max or head > limits.head_bytes_max:
        check_size(line, head, limits)
        if any(len(name) + len(value) + len(": ") > limits.line_bytes_max for name, value in rest):
            detail = f"a field is longer than {limits.line_bytes_max} bytes"
            raise ProtocolError(detail, 431, "header_too_large")
    return raw


def _block_of(raw: bytes) -> bytes:
    """Fields that were checked, as `Headers` has them."""
    return b"\r\n" + raw.replace(b"\n", b": ").replace(b"\r", b"\r\n")


def _check_fields(rest: FieldList, raw: bytes) -> None:
    """Of fields that are not as nearly all are: the rule that they break, unless it is but an underscore in a name."""
    if raw.count(b"\r") == len(rest) - 1 and _FIELDS.fullmatch(raw) is not None:
        return
    for name, _ in rest:
        if name[:1] == b":":
            raise ProtocolError(f"{_shown(name)} behind other fields (RFC 9113 section 8.3)")
        if _LOWER_TOKEN.fullmatch(name) is None:
            raise ProtocolError(f"{_shown(name)} is no name of a field in lower case (RFC 9113 section 8.2.1)")
    raise ProtocolError("a control character in the value of a field, or a blank at its end (RFC 9113 section 8.2.1)")


def _check_connection_specific(marks: Marks, te_allowed: bool) -> None:
    for name in marks:
        if name in _CONNECTION_SPECIFIC and not (te_allowed and name == b"te" and marks[name] == b"trailers"):
            raise ProtocolError(f"a field that is of a connection: {name.decode()} (RFC 9113 section 8.2.2)")


def _shown(name: bytes) -> str:
    """A name from a peer, for people."""
    return repr(name[:64].decode("latin-1"))


# ---------------------------------------------------------------------------------------------------- parts, written


def fields_of_request(request: Request, *, secure: bool) -> FieldList:
    """A request as fields. `secure` is whether the connection to the origin has TLS, which is what :scheme says.
    Raises `ProtocolError` for what cannot be written."""
    method = request.method
    headers = request.headers
    marks = headers._marks or headers.marks
    host = marks.get(b"host")
    if host is None:
        raise ProtocolError("a request needs a Host field (RFC 9113 section 8.3.1)")
    authority = authority_of(host).encode("latin-1")
    length = request.length
    check_length(request.data, length, request.ended)
    fields = _start_of_request(request, authority, b"https" if secure else b"http")
    fields += _pairs(headers, marks, _NOT_AS_FIELD)
    if length or (length == 0 and (method in BODY_EXPECTED or not request.ended)):
        fields.append((b"content-length", b"%d" % length))
    grpc = marks.get(b"content-type", b"").startswith(b"application/grpc")
    if grpc or marks.get(b"te", b"").rstrip(b"\t ") == b"trailers":
        fields.append((b"te", b"trailers"))
    lower = headers._lower or headers.lower
    if request.sensitive or b"authorization:" in lower or b"\r\ncookie:" in lower:
        return _with_never_indexed(fields, request.sensitive)
    return fields


def _start_of_request(request: Request, authority: bytes, scheme: bytes) -> FieldList:
    """The pseudo-fields."""
    method = request.method
    target = request.target
    if method == "CONNECT":
        try:
            read_target(target)
        except ValueError as error:
            raise ProtocolError(str(error)) from None
        return [(b":method", b"CONNECT"), (b":authority", target.encode())]
    if _PATH_TEXT.fullmatch(target) is None and not (target == "*" and method == "OPTIONS"):
        raise ProtocolError(f"{target!r} is no target (RFC 9113 section 8.3.1)")
    fields: FieldList = [
        (b":method", start_of_request(method)[:-1]),
        (b":scheme", scheme),
        (b":authority", authority),
        (b":path", target.encode()),
    ]
    if request.upgrade:
        check_asking(request)
        if PROTOCOL.fullmatch(request.upgrade) is None:
            raise ProtocolError(f"{request.upgrade!r} is no protocol to switch to")
        fields[0] = (b":method", b"CONNECT")
        fields.insert(1, (b":protocol", request.upgrade.encode()))
    return fields


def _with_never_indexed(fields: FieldList, sensitive: frozenset[bytes]) -> FieldList:
    """The fields, those that are for no table marked: what the part says, and what h2 would mark by itself."""
    watched = sensitive | _SECRET if sensitive else _SECRET
    return [
        NeverIndexedHeaderTuple(*field)
        if field[0] in watched
        and (field[0] != b"cookie" or len(field[1]) < _SHORT_COOKIE_BYTES or field[0] in sensitive)
        else field
        for field in fields
    ]


def fields_of_answer(response: Response, *, asked: str, upgrade: str = "") -> FieldList:
    """An answer to a request with the method `asked`, or to an extended CONNECT for `upgrade`, as fields. Raises
    `ProtocolError` for what cannot be written."""
    status = response.status
    headers = response.headers
    marks = headers._marks or headers.marks
    length = response.length
    digits: bytes | None = None
    if status == 101:
        check_switch(response)
        status = 200  # RFC 8441 section 5
    elif upgrade and status < 300:
        raise ProtocolError(f"{status} would switch to {upgrade} (RFC 8441); to refuse, answer with a 4xx")
    elif asked == "CONNECT" and 200 <= status < 300:
        if response.ended:
            raise ProtocolError(f"{status} to CONNECT would open a tunnel; to refuse, answer with a 4xx")
    else:
        if status not in _BODILESS and asked != "HEAD":
            check_length(response.data, length, response.ended)
        if length is not None and status != 204 and (length or b"content-length" in marks or not response.ended):
            digits = b"%d" % length
    fields: FieldList = [_status_field(status)]
    if digits is not None and marks.get(b"content-length") == digits:  # it says so already
        fields += _pairs(headers, marks, _CONNECTION_SPECIFIC)
    else:
        fields += _pairs(headers, marks, _FRAMED)
        if digits is not None:
            fields.append((b"content-length", digits))
    if response.sensitive:
        return _with_never_indexed(fields, response.sensitive)
    return fields


@lru_cache(maxsize=1024)
def _status_field(status: int) -> tuple[bytes, bytes]:
    if not 200 <= status <= 999:
        raise ProtocolError(f"{status} is no status of an answer")
    return b":status", b"%d" % status


def fields_of_interim(interim: Interim) -> FieldList:
    """An interim answer as fields. Raises `ProtocolError` for what cannot be written."""
    if not 100 <= interim.status <= 199 or interim.status == 101:
        raise ProtocolError(f"{interim.status} is no interim answer")
    headers = interim.headers
    return [(b":status", b"%d" % interim.status), *_pairs(headers, headers.marks, _FRAMED)]


def fields_of_trailers(trailers: Trailers) -> FieldList:
    """Those of the trailers that may be, as fields. Where none are left, the end is to be told by a frame of data."""
    headers = Headers.from_block(NOT_IN_TRAILERS.sub(b"", trailers.headers.block))
    return _pairs(headers, headers.marks, _FRAMED)


def _pairs(headers: Headers, marks: Marks, without: frozenset[bytes]) -> FieldList:
    """The fields, their names in lower case, but for those `without`, which all have a mark."""
    block = headers._block
    pairs = [(name.lower(), value) for name, value in _PAIRS.findall(block)]
    if not without.isdisjoint(marks):
        pairs = [field for field in pairs if field[0] not in without]
    if b" \r" in block or b"\t\r" in block or block.endswith((b" ", b"\t")):
        return [(name, value.rstrip(b" \t")) for name, value in pairs]
    return pairs
