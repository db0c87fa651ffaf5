"""Field lists of HTTP/2 with anything in them: what is accepted is what a slow and simple reader accepts, and the same
message in HTTP/1.1; and what came by HTTP/1.1 is the same in HTTP/2."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

import h11
from hpack import Decoder, Encoder, NeverIndexedHeaderTuple
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from coulee.core.codec import NEED_DATA, ProtocolError
from coulee.core.config import PROTOCOL, Limits
from coulee.core.forward import read_target
from coulee.core.headers import Headers
from coulee.core.http1 import Http1Codec
from coulee.core.http1_grammar import HOST
from coulee.core.http2_fields import (
    FieldList,
    fields_of_answer,
    fields_of_interim,
    fields_of_request,
    fields_of_trailers,
    read_answer,
    read_request,
    read_trailers,
)
from coulee.core.parts import Data, Interim, Part, Request, Response, Trailers

LIMITS: Final = Limits()
MANY: Final = settings(max_examples=4 * settings().max_examples)
WIDE: Final = Limits(head_bytes_max=65536, fields_max=200, line_bytes_max=16384)
"""For what we wrote: a field of framing may have been added."""

LOWER_TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
HOP: Final = (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te")

# ------------------------------------------------------------------------------------------------ what may come

PIECES: Final = [
    b"", b"\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b":", b": ", b";", b",", b"#", b"?", b"@", b"/", b"*", b"%0d",
    b"\x7f", b"\x80", b"\xff", b"_", b"A", b"a", b"b", b"0", b"5", b"\r\n\r\n", b"GET / HTTP/1.1", b"\r\nHost: b",
    b"\rhost\n", b"\ncontent-length\r", b"content-length", b"host", b"cookie", b"trailers", b"chunked", b"http://",
    b"a:443",
]  # fmt: skip
NAMES: Final = [
    b":method", b":scheme", b":authority", b":path", b":protocol", b":status", b":", b"host", b"cookie",
    b"content-length",
    b"content-type", b"transfer-encoding", b"connection", b"te", b"upgrade", b"keep-alive", b"proxy-connection",
    b"expect", b"range", b"a", b"a_b", b"x-forwarded-for", b"trailer", b"set-cookie", b"Host", b"authorization",
]  # fmt: skip
VALUES: Final = [
    b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"TRACE", b"get", b"https", b"http", b"HTTPS", b"a", b"A", b"b",
    b"a:443", b"[::1]", b"/", b"*", b"/a?b", b"//", b"http://a/", b"0", b"5", b"5, 5", b"+5", b"00", b"chunked",
    b"trailers", b"close", b"100-continue", b"websocket", b"a=1", b"", b"x y", b"bytes=0-1,2-3", b"200",
]  # fmt: skip

nasty = st.lists(st.sampled_from(PIECES) | st.binary(max_size=2), max_size=4).map(b"".join)
names = st.sampled_from(NAMES) | nasty
values = st.sampled_from(VALUES) | nasty
fields_alone = st.tuples(names, values)
good_fields = st.tuples(
    st.sampled_from([b"a", b"a_b", b"cookie", b"set-cookie", b"accept", b"x-!~"]),
    st.sampled_from([b"", b"a", b"a b", b"\xe9:\t;", b"c=d"]),
)

A: Final = (b":authority", b"A")
STARTS: Final[list[FieldList]] = [
    [(b":method", b"GET"), (b":scheme", b"https"), A, (b":path", b"/a?b")],
    [(b":method", b"POST"), (b":scheme", b"https"), A, (b":path", b"/")],
    [(b":scheme", b"https"), (b":path", b"*"), (b":method", b"OPTIONS"), (b"host", b"A")],
    [(b":method", b"HEAD"), (b":scheme", b"https"), A, (b":path", b"/"), (b"host", b"a")],
    [(b":method", b"POST"), (b":scheme", b"https"), A, (b":path", b"/"), (b"content-length", b"5")],
    [(b":method", b"CONNECT"), (b":authority", b"A:443")],
    [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"https"), A, (b":path", b"/")],
]


@st.composite
def lists(draw: st.DrawFn, starts: list[FieldList] = STARTS) -> FieldList:
    """A good list with a few things done to it."""
    fields = [*draw(st.sampled_from(starts)), *draw(st.lists(good_fields, max_size=4))]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(fields) - 1)) if fields else 0
        kind = draw(st.sampled_from(["value", "value", "spoil", "name", "insert", "append", "drop", "twice"]))
        if kind == "insert" or not fields:
            fields.insert(at, draw(fields_alone))
        elif kind == "append":
            fields.append(draw(fields_alone))
        elif kind == "drop":
            del fields[at]
        elif kind == "twice":
            fields.append(fields[at])
        else:
            name, value = fields[at]
            if kind == "name":
                name = draw(names)
            elif kind == "value":
                value = draw(values)
            else:
                cut = draw(st.integers(0, len(value)))
                value = value[:cut] + draw(nasty) + value[cut:]
            fields[at] = name, value
    return fields


# ------------------------------------------------------------------------------------------- the slow and simple reader


def fault_of_fields(rest: FieldList, te_allowed: bool) -> bool:
    """Whether a field that is none of the pseudo-fields breaks a rule by itself."""
    for name, value in rest:
        if not name or any(byte not in LOWER_TOKEN for byte in name):
            return True
        if any(byte == 0x7F or (byte < 0x20 and byte != 9) for byte in value) or value.strip(b" \t") != value:
            return True
        if name in HOP and not (te_allowed and name == b"te" and value.lower() == b"trailers"):
            return True
    return sum(name == b"te" for name, _ in rest) > 1


def all_of(fields: FieldList, name: bytes) -> list[bytes]:
    return [value for each, value in fields if each == name]


def length_of(rest: FieldList) -> int | None:
    """Content-Length, -1 where it is no good."""
    said = all_of(rest, b"content-length")
    if not said:
        return None
    good = len(said) == 1 and re.fullmatch(rb"[0-9]{1,18}", said[0])
    return int(said[0]) if good else -1


def cut(fields: FieldList) -> tuple[FieldList, FieldList]:
    """The pseudo-fields at the beginning, and all others."""
    count = 0
    while count < len(fields) and fields[count][0].startswith(b":"):
        count += 1
    return fields[:count], fields[count:]


def expected_request(fields: FieldList, *, ended: bool, secure: bool, forwards: bool, extended: bool) -> Request | None:
    """What must be read, or that nothing may be, rule by rule and field by field."""
    start, rest = cut(fields)
    pseudo = dict(start)
    known = {b":method", b":scheme", b":authority", b":path", *([b":protocol"] if extended else [])}
    if len(pseudo) != len(start) or not known.issuperset(pseudo) or fault_of_fields(rest, te_allowed=True):
        return None
    method = pseudo.get(b":method", b"")
    if not method or any(byte not in LOWER_TOKEN + b"ABCDEFGHIJKLMNOPQRSTUVWXYZ" for byte in method):
        return None
    hosts = all_of(rest, b"host")
    if len(hosts) > 1 or (not hosts and b":authority" not in pseudo):
        return None
    authority = pseudo.get(b":authority", hosts[0] if hosts else b"")
    if HOST.fullmatch(authority) is None or (hosts and hosts[0].lower() != authority.lower()):
        return None
    length = length_of(rest)
    if length == -1 or (ended and length) or len(all_of(rest, b"content-type")) > 1:
        return None
    expects = all_of(rest, b"expect")
    if expects and (len(expects) > 1 or expects[0].lower() != b"100-continue"):
        return None
    upgrade = ""
    if b":protocol" in pseudo:
        upgrade = pseudo[b":protocol"].decode("latin-1")
        if method != b"CONNECT" or not PROTOCOL.fullmatch(upgrade) or length is not None:
            return None
        method = b"GET"
    if method == b"TRACE":
        return None
    if method == b"CONNECT":
        if not forwards or length is not None or b":authority" not in pseudo or {b":scheme", b":path"} & set(pseudo):
            return None
        authority = authority.lower()
        target = authority.decode()
        try:
            read_target(target)
        except ValueError:
            return None
    else:
        path = pseudo.get(b":path", b"")
        good = path[:1] == b"/" and all(0x20 < byte < 0x7F and byte != 0x23 for byte in path)
        if not good and (path, method) != (b"*", b"OPTIONS"):
            return None
        if pseudo.get(b":scheme", b"").lower() != (b"https" if secure else b"http"):
            return None
        target = path.decode()
    pairs = [(b"host", authority)]
    crumbs = [crumb for crumb in all_of(rest, b"cookie") if crumb]
    for name, value in rest:
        if name == b"cookie" and not any(each == b"cookie" for each, _ in pairs):
            pairs.append((name, b"; ".join(crumbs)))
        elif name not in (b"host", b"cookie"):
            pairs.append((name, value))
    if upgrade or method == b"CONNECT":
        length, ended = 0, True
    elif length is None and ended:
        length = 0
    headers = Headers.from_block(b"".join([b"\r\n%s: %s" % pair for pair in pairs]))
    scheme = "https" if secure else "http"
    text = authority.decode().lower()
    return Request(method.decode(), target, headers, (2, 0), scheme, text, length, b"", ended, upgrade)


_T = TypeVar("_T")


def refused_or(read: Callable[[], _T]) -> _T | None:
    """What is read, None where it is refused."""
    try:
        return read()
    except ProtocolError as error:
        if error.status not in (400, 405, 417, 421):
            raise
        return None


# ----------------------------------------------------------------------------------------- the same message in HTTP/1.1


def bytes_of(codec: Http1Codec, part: Part) -> bytes:
    data = codec.write(1, part)
    return data if isinstance(data, bytes) else b"".join(data)


def pulled(codec: Http1Codec) -> Part:
    part = codec.next_part()
    assert isinstance(part, tuple), part
    return part[1]


def end_to_end(headers: Headers, *more: bytes) -> FieldList:
    """The fields in lower case, without those that are of a hop, framing, or `more`."""
    gone = (*HOP, b"content-length", *more)
    return [(name.lower(), value) for name, value in headers.raw() if name.lower() not in gone]


def body_of(part: Request | Response) -> bytes:
    return b"x" * min(part.length or 5, 5000) if not part.ended else b""


def check_by_http1(request: Request) -> None:
    """Write a request as HTTP/1.1 and read it again, by our own codec and by h11: it is one, and the same."""
    client = Http1Codec("client", WIDE)
    raw = bytes_of(client, request)
    body = body_of(request)
    if request.length is not None and len(body) != request.length:
        return  # as long as an announced body of many gigabytes
    raw += bytes_of(client, Data(body, True)) if not request.ended else b""
    server = Http1Codec("server", WIDE, forwards=True)
    server.secure = request.scheme == "https"
    server.feed(raw)
    again = pulled(server)
    assert isinstance(again, Request)
    assert (again.method, again.target, again.authority) == (request.method, request.target, request.authority)
    assert end_to_end(again.headers) == end_to_end(request.headers)
    assert (again.length, again.ended, again.data) == (request.length, True, body)
    assert (again.headers.get("upgrade") or "") == request.upgrade
    assert server.buffered == 0
    if request.method != "CONNECT" and not request.upgrade:
        bytes_of(server, Response(204))
        assert server.next_part() is NEED_DATA
    check_by_h11(raw, request, body)


def check_by_h11(raw: bytes, request: Request, body: bytes) -> None:
    conn = h11.Connection(h11.SERVER, max_incomplete_event_size=65536)
    conn.receive_data(raw)
    head = conn.next_event()
    assert isinstance(head, h11.Request)
    assert (head.method.decode(), head.target.decode()) == (request.method, request.target)
    pairs = [(name, value) for name, value in head.headers if name not in (*HOP, b"content-length")]
    assert pairs == end_to_end(request.headers)
    data = b""
    while isinstance(heard := conn.next_event(), h11.Data):
        data += heard.data
    assert isinstance(heard, h11.EndOfMessage)
    assert data == body
    assert conn.trailing_data[0] == b""


# ------------------------------------------------------------------------------------------------------- properties


@MANY
@given(lists(), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([True, True, True, False]))
@example([*STARTS[0], (b"a", b"b\rc\nd")], True, False, False, True)
@example([*STARTS[0], (b"a: b\r\nc", b"d")], True, False, False, True)
@example([*STARTS[0], (b"a\nb\rc", b"d")], True, False, False, True)
@example([*STARTS[0], (b"cookie", b""), (b"cookie", b"")], True, False, False, True)
@example([*STARTS[0], (b"te", b"trailers")], True, False, False, True)
@example([*STARTS[0], (b"content-length", b"00")], False, False, False, True)
@example([*STARTS[4], (b"cookie", b"a"), (b"cookie", b"b\r")], False, False, False, True)
def test_anything(fields: FieldList, ended: bool, forwards: bool, extended: bool, secure: bool) -> None:
    def read() -> Request:
        return read_request(fields, ended=ended, limits=LIMITS, secure=secure, forwards=forwards, extended=extended)

    request = refused_or(read)
    wanted = expected_request(fields, ended=ended, secure=secure, forwards=forwards, extended=extended)
    assert request == wanted
    event("refused" if request is None else "accepted")
    if request is not None:
        assert wanted is not None
        assert request.headers.block == wanted.headers.block
        assert request.headers.lower == wanted.headers.lower
        assert request.headers.marks == wanted.headers.marks
        check_by_http1(request)
        written = fields_of_request(request, secure=secure)
        again = read_request(
            written, ended=request.ended, limits=WIDE, secure=secure, forwards=True, extended=bool(request.upgrade)
        )
        assert end_to_end(again.headers) == [(b"host", request.authority.encode()), *end_to_end(request.headers)[1:]]
        assert replace(again, headers=request.headers) == replace(request, sensitive=again.sensitive)


@given(lists(), st.data())
def test_what_no_table_is_to_keep_is_told_through_hpack(fields: FieldList, data: st.DataObject) -> None:
    marked = [NeverIndexedHeaderTuple(*field) if data.draw(st.booleans()) else field for field in fields]
    decoded = list[tuple[bytes, bytes]](Decoder().decode(Encoder().encode(marked), raw=True))
    never = {field[0] for field in decoded if isinstance(field, NeverIndexedHeaderTuple)}  # not what all tables hold
    request = refused_or(
        lambda: read_request(decoded, ended=False, limits=LIMITS, secure=True, forwards=True, extended=True)
    )
    if request is not None:
        assert request.sensitive == never
        written = fields_of_request(request, secure=True)
        assert list(Decoder().decode(Encoder().encode(written), raw=True)) == written
        told = {field[0] for field in written if isinstance(field, NeverIndexedHeaderTuple)}
        assert never & {name for name, _ in written} <= told <= never | {b"authorization", b"cookie"}


ANSWERS: Final[list[FieldList]] = [
    [(b":status", b"200")],
    [(b":status", b"200"), (b"content-length", b"5")],
    [(b":status", b"304"), (b"content-length", b"5")],
    [(b":status", b"204")],
    [(b":status", b"103")],
]


@MANY
@given(lists(ANSWERS), st.booleans(), st.sampled_from(["GET", "HEAD", "CONNECT"]))
@example([*ANSWERS[0], (b"a", b"b\rc\nd")], True, "GET")
@example([*ANSWERS[0], (b"a: b\r\nc", b"d")], True, "GET")
def test_any_answer(fields: FieldList, ended: bool, asked: str) -> None:
    start, rest = cut(fields)
    answer = refused_or(lambda: read_answer(fields, ended=ended, limits=LIMITS, asked=asked))
    good = (
        [name for name, _ in start] == [b":status"]
        and re.fullmatch(rb"[1-9][0-9]{2}", start[0][1])
        and not fault_of_fields(rest, te_allowed=False)
        and len(all_of(rest, b"content-length")) <= 1
    )
    event("refused" if answer is None else "accepted")
    if answer is None:
        length = length_of(rest)
        status = int(start[0][1]) if good else 0
        assert not good or length == -1 or (ended and length) or (status < 200 and (ended or length is not None))
        return
    assert good
    assert answer.headers.raw() == rest
    if isinstance(answer, Interim):
        assert not ended
        assert read_answer(fields_of_interim(answer), ended=False, limits=LIMITS, asked=asked) == answer
    else:
        check_answer_by_http1(answer, asked)
        written = fields_of_answer(answer, asked=asked)
        again = read_answer(written, ended=answer.ended, limits=WIDE, asked=asked)
        assert end_to_end(again.headers) == end_to_end(answer.headers)
        said = "content-length" in answer.headers and answer.length is not None and answer.status != 204
        assert again.headers.get("content-length") == (str(answer.length) if said else None)
        assert isinstance(again, Response)
        assert replace(again, headers=answer.headers) == answer


def client_of(asked: str) -> Http1Codec:
    codec = Http1Codec("client", WIDE)
    target = "a:443" if asked == "CONNECT" else "/"
    codec.write(1, Request(asked, target, Headers({"Host": "a"})))
    return codec


def server_of(asked: str) -> Http1Codec:
    codec = Http1Codec("server", WIDE, forwards=True)
    target = "a:443" if asked == "CONNECT" else "/"
    codec.feed(f"{asked} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    codec.next_part()
    return codec


def check_answer_by_http1(answer: Response, asked: str) -> None:
    server, client = server_of(asked), client_of(asked)
    body = body_of(answer)
    if not answer.ended and answer.length is not None and len(body) != answer.length:
        return
    raw = bytes_of(server, answer)
    if not answer.ended:
        raw += bytes_of(server, Data(body, True))
    client.feed(raw)
    again = pulled(client)
    assert isinstance(again, Response)
    assert (again.status, again.length) == (answer.status, answer.length)
    assert end_to_end(again.headers) == end_to_end(answer.headers)
    data = again.data
    if not again.ended:  # behind a 2xx to CONNECT
        more = pulled(client)
        assert isinstance(more, Data)
        data += more.data
    assert data == body
    assert client.buffered == 0


@given(st.lists(good_fields, max_size=4), st.lists(fields_alone, max_size=2))
@example([], [(b"a", b"b\rc\nd")])
def test_any_trailers(good: FieldList, more: FieldList) -> None:
    fields = good + more
    trailers = refused_or(lambda: read_trailers(fields, LIMITS))
    bad = fault_of_fields(fields, te_allowed=False) or all_of(fields, b"content-length") or all_of(fields, b"host")
    assert (trailers is None) == bool(bad)
    if trailers is not None:
        kept = [field for field in fields if field in trailers.headers.raw()]
        assert trailers.headers.raw() == kept
        assert fields_of_trailers(trailers) == kept
        assert read_trailers(kept, LIMITS) == trailers


# ---------------------------------------------------------------------------------------- from HTTP/1.1, and back to it

old_names = st.sampled_from(
    [
        "Accept",
        "x-Y",
        "A_b",
        "Cookie",
        "Content-Type",
        "TE",
        "Keep-Alive",
        "Proxy-Connection",
        "Authorization",
        "Trailer",
    ]
)
old_values = st.sampled_from(["", "a", "a b", "\xe9 \t~", "trailers", "application/grpc", "a=1; b=2"])
blanks = st.sampled_from(["", " ", "\t", " \t "])
lines = st.tuples(old_names, blanks, old_values, blanks).map(lambda line: f"{line[0]}:{line[1]}{line[2]}{line[3]}\r\n")


@given(
    st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PROPFIND"]), st.sampled_from(["/", "/a?b=%20", "//;"]),
    st.sampled_from(["a", "Example.org:80", "[::1]"]), st.lists(lines, max_size=5), st.none() | st.binary(max_size=9),
    st.booleans(),
)  # fmt: skip
def test_a_request_from_http1(
    method: str, target: str, host: str, more: list[str], body: bytes | None, chunked: bool
) -> None:
    head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{''.join(more)}".encode("latin-1")
    if body is None:
        head += b"\r\n"
    elif chunked:
        head += b"Transfer-Encoding: chunked\r\n\r\n"
    else:
        head += b"Content-Length: %d\r\n\r\n" % len(body)
    server = Http1Codec("server", LIMITS)
    server.feed(head)
    request = refused_or(lambda: pulled(server))
    if request is None:
        return  # two Content-Types
    assert isinstance(request, Request)
    fields = fields_of_request(request, secure=False)
    through = read_request(fields, ended=request.ended, limits=LIMITS, secure=False, forwards=False, extended=False)
    assert (through.method, through.target, through.authority) == (method, target, host.lower())
    assert (through.length, through.ended) == (request.length, request.ended)
    before, after = end_to_end(request.headers, b"cookie", b"host"), end_to_end(through.headers, b"cookie", b"host")
    assert after == before
    crumbs = [value for value in request.headers.get_all("cookie") if value]
    assert (through.headers.get("cookie") or "") == "; ".join(crumbs)
    wants_trailers = (
        request.headers.get("te") == "trailers" or request.headers.get("content-type") == "application/grpc"
    )
    assert through.headers.get("te") == ("trailers" if wants_trailers else None)
    check_by_http1(through)


@given(
    st.sampled_from([200, 201, 204, 304, 404, 500, 999]), st.sampled_from(["", "OK", "\xe9 a"]),
    st.lists(lines, max_size=5), st.none() | st.integers(0, 9), st.sampled_from(["length", "chunked"]),
    st.sampled_from(["GET", "HEAD"]),
)  # fmt: skip
def test_an_answer_from_http1(
    status: int, phrase: str, more: list[str], size: int | None, framing: str, asked: str
) -> None:
    head = f"HTTP/1.1 {status} {phrase}\r\n{''.join(more)}".encode("latin-1")
    if size is not None:
        head += b"Content-Length: %d\r\n" % size if framing == "length" else b"Transfer-Encoding: chunked\r\n"
    client = client_of(asked)
    client.feed(head + b"\r\n")
    answer = pulled(client)
    assert isinstance(answer, Response)
    fields = fields_of_answer(answer, asked=asked)
    through = read_answer(fields, ended=answer.ended, limits=LIMITS, asked=asked)
    assert isinstance(through, Response)
    assert (through.status, through.length, through.ended) == (status, answer.length, answer.ended)
    assert end_to_end(through.headers) == end_to_end(answer.headers, b"te")
    check_answer_by_http1(through, asked)


@given(st.lists(lines, max_size=4))
def test_trailers_from_http1(more: list[str]) -> None:
    server = Http1Codec("server", LIMITS)
    start = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    server.feed(start + b"0\r\n" + "".join(more).encode("latin-1") + b"\r\n")
    head = pulled(server)
    assert isinstance(head, Request)
    if not head.ended:  # of others than these nothing is left
        trailers = pulled(server)
        assert isinstance(trailers, Trailers)
        fields = fields_of_trailers(trailers)
        assert fields == end_to_end(trailers.headers)
        assert read_trailers(fields, LIMITS).headers.raw() == fields
