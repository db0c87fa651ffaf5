"""Field lists of HTTP/2: every rule that is held, one row each with its section, and what is written."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hpack import HeaderTuple, NeverIndexedHeaderTuple

from coulee.core.codec import ProtocolError
from coulee.core.config import Limits
from coulee.core.headers import UNDERSCORE, Headers
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
from coulee.core.parts import Interim, Request, Response, Trailers, respond

Field = tuple[bytes, bytes]

METHOD: Field = (b":method", b"GET")
POST: Field = (b":method", b"POST")
OPTIONS: Field = (b":method", b"OPTIONS")
CONNECT: Field = (b":method", b"CONNECT")
SCHEME: Field = (b":scheme", b"https")
AUTHORITY: Field = (b":authority", b"Example.org:81")
PATH: Field = (b":path", b"/a?b")
PROTOCOL: Field = (b":protocol", b"websocket")
GET: FieldList = [METHOD, SCHEME, AUTHORITY, PATH]
WITHOUT_AUTHORITY: FieldList = [METHOD, SCHEME, PATH]
TO: FieldList = [CONNECT, (b":authority", b"Api.internal:443")]
WEBSOCKET: FieldList = [CONNECT, PROTOCOL, SCHEME, (b":authority", b"a"), PATH]
OK: FieldList = [(b":status", b"200")]
LENGTH_5: Field = (b"content-length", b"5")
LIMITS = Limits()


def read(
    fields: FieldList,
    *,
    ended: bool = True,
    limits: Limits = LIMITS,
    secure: bool = True,
    forwards: bool = False,
    extended: bool = False,
) -> Request:
    return read_request(fields, ended=ended, limits=limits, secure=secure, forwards=forwards, extended=extended)


def answered(
    fields: FieldList, *, ended: bool = True, limits: Limits = LIMITS, asked: str = "GET", upgrade: str = ""
) -> Response:
    response = read_answer(fields, ended=ended, limits=limits, asked=asked, upgrade=upgrade)
    assert isinstance(response, Response)
    return response


def at(name: bytes, value: bytes, fields: FieldList = GET) -> FieldList:
    """The fields, one of them with another value."""
    return [(each, value if each == name else old) for each, old in fields]


# ------------------------------------------------------------------------------------------------- requests, read


def test_a_request_comes_and_goes() -> None:
    request = read([*GET, (b"accept", b"*/*"), (b"x", b"")])
    assert (request.method, request.target, request.path, request.query) == ("GET", "/a?b", "/a", "b")
    assert (request.version, request.scheme, request.authority) == ((2, 0), "https", "example.org:81")
    assert (request.length, request.data, request.ended, request.upgrade) == (0, b"", True, "")
    assert request.headers.block == b"\r\nhost: Example.org:81\r\naccept: */*\r\nx: "
    assert request.headers.marks == {b"host": b"example.org:81"}
    assert request.sensitive == frozenset()
    assert fields_of_request(request, secure=True) == [
        *at(b":authority", b"example.org:81"), (b"accept", b"*/*"), (b"x", b""),
    ]  # fmt: skip


REFUSED: list[tuple[str, str, FieldList, int]] = [
    # section, what, fields, status
    ("8.3", "a pseudo-field behind others", [METHOD, SCHEME, AUTHORITY, (b"a", b"b"), PATH], 400),
    ("8.3", "a pseudo-field behind all others", [*GET, (b"a", b"b"), METHOD], 400),
    ("8.3", "a pseudo-field twice", [*GET, PATH], 400),
    ("8.3", "a pseudo-field twice, in between", [METHOD, *GET], 400),
    ("8.3", "a pseudo-field that is of answers", [*GET, (b":status", b"200")], 400),
    ("8.3", "a pseudo-field that nobody knows", [*GET, (b":a", b"b")], 400),
    ("8.3", "a pseudo-field without a name", [*GET, (b":", b"b")], 400),
    ("8.3", "a pseudo-field in upper case", [(b":Method", b"GET"), *GET[1:]], 400),
    ("8.3.1", "no :method", GET[1:], 400),
    ("8.3.1", "no fields at all", [], 400),
    ("8.3.1", "an empty :method", at(b":method", b""), 400),
    ("8.3.1", "a :method with a blank", at(b":method", b"GET /"), 400),
    ("8.3.1", "a :method with CRLF", at(b":method", b"GET\r\n"), 400),
    ("8.3.1", "no :scheme", [METHOD, AUTHORITY, PATH], 400),
    ("8.3.1", "an empty :scheme", at(b":scheme", b""), 400),
    ("8.3.1", "another scheme", at(b":scheme", b"ftp"), 400),
    ("8.3.1", "a :scheme with a blank", at(b":scheme", b"https "), 400),
    ("RFC 9110 7.4", "http in TLS", at(b":scheme", b"http"), 421),
    ("8.3.1", "no :path", GET[:3], 400),
    ("8.3.1", "an empty :path", at(b":path", b""), 400),
    ("8.3.1", "an absolute :path", at(b":path", b"https://example.org/"), 400),
    ("8.3.1", "a :path without its slash", at(b":path", b"a"), 400),
    ("8.3.1", "only a query", at(b":path", b"?a"), 400),
    ("8.3.1", "* and no OPTIONS", at(b":path", b"*"), 400),
    ("8.3.1", "OPTIONS of what begins with *", [OPTIONS, SCHEME, AUTHORITY, (b":path", b"*a")], 400),
    ("8.3.1", "a fragment", at(b":path", b"/a#b"), 400),
    ("8.3.1", "a blank in :path", at(b":path", b"/a b"), 400),
    ("8.3.1", "a tab in :path", at(b":path", b"/a\tb"), 400),
    ("8.3.1", "a line end in :path", at(b":path", b"/ HTTP/1.1\r\nHost: b\r\n\r\n"), 400),
    ("8.3.1", "a line feed behind :path", at(b":path", b"/\n"), 400),
    ("8.3.1", "NUL in :path", at(b":path", b"/\0"), 400),
    ("8.3.1", "DEL in :path", at(b":path", b"/\x7f"), 400),
    ("8.3.1", "what is not ASCII in :path", at(b":path", b"/\xc3\xa9"), 400),
    ("8.3.1", "neither :authority nor Host", WITHOUT_AUTHORITY, 400),
    ("8.3.1", "an empty :authority", at(b":authority", b""), 400),
    ("8.3.1", "an empty Host", [*WITHOUT_AUTHORITY, (b"host", b"")], 400),
    ("8.3.1", "userinfo", at(b":authority", b"user@example.org"), 400),
    ("RFC 9110 7.2", "a path in :authority", at(b":authority", b"example.org/a"), 400),
    ("RFC 9110 7.2", "a blank in :authority", at(b":authority", b"a b"), 400),
    ("RFC 9110 7.2", "a blank behind :authority", at(b":authority", b"a "), 400),
    ("RFC 9110 7.2", "a port that is none", at(b":authority", b"a:b"), 400),
    ("RFC 9110 7.2", "a line end in :authority", at(b":authority", b"a\r\nb: c"), 400),
    ("RFC 9110 7.2", "LF in :authority", at(b":authority", b"a\nb"), 400),
    ("RFC 9110 7.2", "CR in :authority", at(b":authority", b"a\rb\nc"), 400),
    ("RFC 9110 7.2", "userinfo in Host", [*WITHOUT_AUTHORITY, (b"host", b"user@a")], 400),
    ("8.3.1", "a Host that is another", [*GET, (b"host", b"example.org")], 400),
    ("RFC 9112 3.2", "two Hosts", [*WITHOUT_AUTHORITY, (b"host", b"a"), (b"host", b"a")], 400),
    ("RFC 9112 3.2", "two Hosts beside :authority", [*GET, (b"host", AUTHORITY[1]), (b"host", AUTHORITY[1])], 400),
    ("8.2.1", "a name in upper case", [*GET, (b"Accept", b"*/*")], 400),
    ("8.2.1", "a letter of a name in upper case", [*GET, (b"x-A", b"b")], 400),
    ("8.2.1", "an empty name", [*GET, (b"", b"b")], 400),
    ("8.2.1", "a blank in a name", [*GET, (b"a b", b"c")], 400),
    ("8.2.1", "a blank behind a name", [*GET, (b"content-length ", b"5")], 400),
    ("8.2.1", "a colon in a name", [*GET, (b"a: b", b"c")], 400),
    ("8.2.1", "a colon behind a name", [*GET, (b"a:", b"c")], 400),
    ("8.2.1", "a line end in a name", [*GET, (b"a: b\r\nc", b"d")], 400),
    ("8.2.1", "LF in a name", [*GET, (b"a\nb", b"c")], 400),
    ("8.2.1", "CR in a name", [*GET, (b"a\rb", b"c")], 400),
    ("8.2.1", "two fields in a name", [*GET, (b"a\nb\rc", b"d")], 400),
    ("8.2.1", "NUL in a name", [*GET, (b"a\0", b"c")], 400),
    ("8.2.1", "DEL in a name", [*GET, (b"a\x7f", b"c")], 400),
    ("8.2.1", "what is not ASCII in a name", [*GET, (b"\xe9", b"c")], 400),
    ("8.2.1", "a line end in a value", [*GET, (b"a", b"b\r\nc: d")], 400),
    ("8.2.1", "LF in a value", [*GET, (b"a", b"b\nc")], 400),
    ("8.2.1", "CR in a value", [*GET, (b"a", b"b\rc")], 400),
    ("8.2.1", "two fields in a value", [*GET, (b"a", b"b\rc\nd")], 400),
    ("8.2.1", "two fields in the last value, and a Host", [*GET, (b"a", b"b\rhost\nc")], 400),
    ("8.2.1", "NUL in a value", [*GET, (b"a", b"b\0")], 400),
    ("8.2.1", "a control character in a value", [*GET, (b"a", b"b\x1f")], 400),
    ("8.2.1", "DEL in a value", [*GET, (b"a", b"\x7f")], 400),
    ("8.2.1", "LF behind a value", [*GET, (b"a", b"b\n")], 400),
    ("8.2.1", "a blank before a value", [*GET, (b"a", b" b")], 400),
    ("8.2.1", "a blank behind a value", [*GET, (b"a", b"b "), (b"c", b"d")], 400),
    ("8.2.1", "a tab before a value", [*GET, (b"a", b"\tb")], 400),
    ("8.2.1", "a tab behind a value", [*GET, (b"a", b"b\t")], 400),
    ("8.2.1", "but a blank", [*GET, (b"a", b" ")], 400),
    ("8.2.1", "a blank behind a crumb", [*GET, (b"cookie", b"a "), (b"cookie", b"b")], 400),
    ("8.2.1", "all that, beside an underscore", [*GET, (b"a_b", b"c\r\nd")], 400),
    ("8.2.2", "Connection", [*GET, (b"connection", b"close")], 400),
    ("8.2.2", "Keep-Alive", [*GET, (b"keep-alive", b"timeout=5")], 400),
    ("8.2.2", "Proxy-Connection", [*GET, (b"proxy-connection", b"keep-alive")], 400),
    ("8.2.2", "Transfer-Encoding", [*GET, (b"transfer-encoding", b"chunked")], 400),
    ("8.2.2", "an empty Transfer-Encoding", [*GET, (b"transfer-encoding", b"")], 400),
    ("8.2.2", "Upgrade", [*GET, (b"upgrade", b"h2c")], 400),
    ("8.2.2", "TE of something else", [*GET, (b"te", b"gzip")], 400),
    ("8.2.2", "TE of something else, too", [*GET, (b"te", b"trailers, deflate")], 400),
    ("8.2.2", "two TE", [*GET, (b"te", b"trailers"), (b"te", b"trailers")], 400),
    ("8.1.1", "a length, and the end", [*GET, LENGTH_5], 400),
    ("RFC 9110 8.6", "two lengths", [*GET, LENGTH_5, LENGTH_5], 400),
    ("RFC 9110 8.6", "a list of lengths", [*GET, (b"content-length", b"0, 0")], 400),
    ("RFC 9110 8.6", "no digits", [*GET, (b"content-length", b"")], 400),
    ("RFC 9110 8.6", "a sign", [*GET, (b"content-length", b"+0")], 400),
    ("RFC 9110 8.6", "hexadecimal", [*GET, (b"content-length", b"0x0")], 400),
    ("RFC 9110 8.6", "digits of elsewhere", [*GET, (b"content-length", b"\xb2")], 400),
    ("RFC 9110 8.6", "19 digits", [*GET, (b"content-length", b"0" * 19)], 400),
    ("RFC 9110 8.3", "two types", [*GET, (b"content-type", b"a/b"), (b"content-type", b"a/b")], 400),
    ("RFC 9110 10.1.1", "another expectation", [*GET, (b"expect", b"the best")], 417),
    ("RFC 9110 14.2", "ranges", [*GET, (b"range", b"bytes=" + b"0-1," * 64 + b"0-1")], 400),
    ("RFC 9110 9.3.8", "TRACE", at(b":method", b"TRACE"), 405),
    ("RFC 9110 9.3.6", "CONNECT", TO, 405),
    ("RFC 8441 4", ":protocol, and nobody has said that it may be", WEBSOCKET, 400),
    ("RFC 8441 4", ":protocol, and no CONNECT", [PROTOCOL, *GET], 400),
]  # fmt: skip


@pytest.mark.parametrize(("section", "what", "fields", "status"), REFUSED, ids=[f"{r[0]} {r[1]}" for r in REFUSED])
def test_a_request_that_is_refused(section: str, what: str, fields: FieldList, status: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        read(fields)
    assert caught.value.status == status
    assert caught.value.detail.isprintable()
    assert "\r" not in caught.value.detail
    with pytest.raises(ProtocolError):
        read([HeaderTuple(*field) for field in fields])


def test_no_two_rows_are_the_same() -> None:
    assert len({tuple(row[2]) for row in REFUSED}) == len(REFUSED)


def test_what_is_wrong_is_told() -> None:
    for fields, words in (
        ([METHOD, *GET], "more than one ':method'"),
        ([*GET, (b"a", b"b"), PATH], "':path' behind other fields"),
        ([*GET, (b"A" * 100, b"b")], f"'{'A' * 64}' is no name of a field in lower case"),
        ([*GET, (b"a\r\n", b"b")], r"'a\r\n' is no name of a field"),
        ([*GET, (b"ok", b""), (b"a", b"b ")], "or a blank at its end"),
        (at(b":scheme", b"http"), "an http target in TLS"),
    ):
        with pytest.raises(ProtocolError) as caught:
            read(fields)
        assert words in caught.value.detail
    with pytest.raises(ProtocolError, match="an https target without TLS") as caught:
        read(GET, secure=False)
    assert (caught.value.status, caught.value.reason) == (421, "misdirected")


def test_the_scheme_is_what_the_connection_is() -> None:
    assert read(at(b":scheme", b"http"), secure=False).scheme == "http"
    assert read(at(b":scheme", b"HTTPS")).scheme == "https"  # RFC 3986 section 3.1


def test_what_is_unusual_and_good() -> None:
    assert read([OPTIONS, SCHEME, AUTHORITY, (b":path", b"*")]).target == "*"
    assert read([PATH, AUTHORITY, SCHEME, (b":method", b"M-SEARCH")]).method == "M-SEARCH"
    assert read(at(b":method", b"get")).method == "get"
    assert read(at(b":method", b"X" * 40)).method == "X" * 40
    assert read(at(b":path", b'//a/../%00;<>"|{}[]\\^`')).target == '//a/../%00;<>"|{}[]\\^`'
    assert read(at(b":authority", b"[::1]:443")).authority == "[::1]:443"
    request = read([*GET, (b"a", b"\x80 \t\xff:;,"), (b"!#$%&'*+-.^`|~09az", b"b")])
    assert request.headers["a"] == "\x80 \t\xff:;,"
    assert UNDERSCORE not in request.headers.marks
    assert UNDERSCORE in read([*GET, (b"a_b", b"c")]).headers.marks
    assert read([*GET, (b"expect", b"100-Continue")], ended=False).headers["expect"] == "100-Continue"
    assert read([*GET, (b"te", b"trailers")]).headers["te"] == "trailers"
    assert read([*GET, (b"te", b"Trailers")]).headers["te"] == "Trailers"
    assert read([*GET, (b"range", b"bytes=" + b"0-1," * 63 + b"0-1")]).target == "/a?b"


def test_host_and_authority() -> None:
    block = b"\r\nhost: Example.org:81\r\na: b"
    assert read([*GET, (b"a", b"b")]).headers.block == block
    only_host = read([*WITHOUT_AUTHORITY, (b"a", b"b"), (b"host", b"Example.org:81")])
    assert (only_host.headers.block, only_host.authority) == (block, "example.org:81")
    both = read([*GET, (b"host", b"EXAMPLE.org:81"), (b"a", b"b")])
    assert (both.headers.block, both.authority) == (block, "example.org:81")


def test_crumbs_are_counted_and_joined() -> None:
    fields = [*GET, (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"), (b"cookie", b""), (b"cookie", b"c=3")]
    assert read(fields).headers.raw()[1:] == [(b"cookie", b"a=1; b=2; c=3"), (b"x", b"y")]
    assert read([*GET, (b"cookie", b""), (b"cookie", b"")]).headers.raw()[1:] == [(b"cookie", b"")]
    assert read(fields, limits=Limits(fields_max=6)).headers["x"] == "y"  # Host is one of them
    with pytest.raises(ProtocolError, match="more than 5 fields") as caught:
        read(fields, limits=Limits(fields_max=5))
    assert (caught.value.status, caught.value.reason) == (431, "header_too_large")


def test_crumbs_that_are_too_long_together() -> None:
    crumbs = [(b"cookie", b"a" * 5000), (b"cookie", b"b" * 5000)]
    with pytest.raises(ProtocolError, match="a field is longer than 8192") as caught:
        read([*GET, *crumbs])
    assert caught.value.status == 431


def test_sizes() -> None:
    small = Limits(head_bytes_max=200, line_bytes_max=100)
    line = len("GET  HTTP/1.1")
    host = len("host: Example.org:81\r\n") + len("\r\n\r\n")
    for fields, status in (
        (at(b":path", b"/" * (100 - line)), 0),
        (at(b":path", b"/" * (101 - line)), 414),
        ([*GET, (b"a", b"b" * 97)], 0),
        ([*GET, (b"a", b"b" * 98)], 431),
        ([*GET, (b"a" * 97, b"")], 431 if 97 + 2 > 100 else 0),
        (at(b":authority", b"a" * 95), 431),
        ([*GET, (b"a", b"b" * 95), (b"c", b"d" * (200 - line - 4 - host - 2 * 5 - 95))], 0),
        ([*GET, (b"a", b"b" * 95), (b"c", b"d" * (200 - line - 4 - host - 2 * 5 - 95 + 1))], 431),
    ):
        if status:
            with pytest.raises(ProtocolError) as caught:
                read(fields, limits=small)
            assert caught.value.status == status
        else:
            read(fields, limits=small)
    read([*GET, (b"a", b"b" * 102)], limits=Limits(head_bytes_max=150, line_bytes_max=1000))
    with pytest.raises(ProtocolError) as caught:
        read(at(b":protocol", b"a" * 9000, WEBSOCKET), ended=False, extended=True)
    assert caught.value.status == 414
    with pytest.raises(ProtocolError) as caught:
        read([*GET, (b"a", b"b" * 103)], limits=Limits(head_bytes_max=150, line_bytes_max=1000))
    assert (caught.value.status, caught.value.reason) == (431, "header_too_large")


@pytest.mark.parametrize(
    ("fields", "ended", "length"),
    [
        (GET, True, 0), (GET, False, None), ([*GET, LENGTH_5], False, 5), ([*GET, (b"content-length", b"0")], True, 0),
        ([*GET, (b"content-length", b"0")], False, 0), ([*GET, (b"content-length", b"9" * 18)], False, 10**18 - 1),
    ],
)  # fmt: skip
def test_length(fields: FieldList, ended: bool, length: int | None) -> None:
    request = read(fields, ended=ended)
    assert (request.length, request.ended) == (length, ended)


def test_what_no_table_is_to_keep() -> None:
    fields = [*GET[:3], NeverIndexedHeaderTuple(*PATH), (b"a", b"b"), NeverIndexedHeaderTuple(b"c", b"d")]
    request = read(fields)
    assert request.sensitive == frozenset({b":path", b"c"})
    written = fields_of_request(request, secure=True)
    assert [field[0] for field in written if isinstance(field, NeverIndexedHeaderTuple)] == [b":path", b"c"]
    assert read([HeaderTuple(*field) for field in GET]).sensitive == frozenset()


# ------------------------------------------------------------------------------------------------------- CONNECT


def test_connect() -> None:
    request = read(TO, ended=False, forwards=True)
    assert (request.method, request.target, request.authority) == ("CONNECT", "api.internal:443", "api.internal:443")
    assert request.headers.block == b"\r\nhost: api.internal:443"
    assert (request.length, request.ended, request.upgrade) == (0, True, "")
    assert fields_of_request(request, secure=True) == [CONNECT, (b":authority", b"api.internal:443")]
    assert read([*TO, (b"host", b"API.internal:443")], forwards=True).target == "api.internal:443"


@pytest.mark.parametrize(
    "fields",
    [
        [*TO, SCHEME], [*TO, PATH], [CONNECT], [CONNECT, (b"host", b"a:443")], [*TO, LENGTH_5],
        [*TO, (b"content-length", b"0")], [CONNECT, (b":authority", b"a")], [CONNECT, (b":authority", b"a:0")],
        [CONNECT, (b":authority", b"u@a:1")], [*TO, (b"host", b"api.internal")], [CONNECT, (b":authority", b"127.1:1")],
        [*TO, (b"connection", b"close")],
    ],
)  # fmt: skip
def test_a_connect_that_is_refused(fields: FieldList) -> None:
    with pytest.raises(ProtocolError) as caught:
        read(fields, ended=False, forwards=True)
    assert caught.value.status == 400


def test_extended_connect() -> None:
    request = read([*WEBSOCKET, (b"sec-websocket-version", b"13")], ended=False, extended=True)
    assert (request.method, request.target, request.authority) == ("GET", "/a?b", "a")
    assert (request.length, request.ended, request.upgrade) == (0, True, "websocket")
    assert fields_of_request(request, secure=True) == [*WEBSOCKET, (b"sec-websocket-version", b"13")]
    assert read(TO, forwards=True, extended=True).upgrade == ""


@pytest.mark.parametrize(
    "fields",
    [
        [*WEBSOCKET[:3], PATH], [*WEBSOCKET[:4]], [*WEBSOCKET[:2], *WEBSOCKET[3:]], [PROTOCOL, *GET], [PROTOCOL],
        [*WEBSOCKET, PROTOCOL], at(b":protocol", b"", WEBSOCKET), at(b":protocol", b"a b", WEBSOCKET),
        at(b":protocol", b"a\n", WEBSOCKET), [*WEBSOCKET, (b"content-length", b"0")], at(b":path", b"*", WEBSOCKET),
        [*WEBSOCKET, (b"upgrade", b"websocket")], [PROTOCOL, (b":method", b"C T"), *GET[1:]],
    ],
)  # fmt: skip
def test_an_extended_connect_that_is_refused(fields: FieldList) -> None:
    with pytest.raises(ProtocolError) as caught:
        read(fields, ended=False, extended=True)
    assert caught.value.status == 400


# ------------------------------------------------------------------------------------------------- answers, read


def test_an_answer_comes_and_goes() -> None:
    fields = [*OK, (b"set-cookie", b"a"), LENGTH_5, (b"set-cookie", b"b")]
    response = answered(fields, ended=False)
    assert (response.status, response.reason, response.version) == (200, "", (2, 0))
    assert (response.length, response.data, response.ended, response.upgrade) == (5, b"", False, "")
    assert response.headers.block == b"\r\nset-cookie: a\r\ncontent-length: 5\r\nset-cookie: b"
    assert response.headers.marks == {b"content-length": b"5"}
    assert fields_of_answer(response, asked="GET") == fields
    assert fields_of_answer(answered(OK), asked="GET") == OK


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        ("8.3.2", []), ("8.3.2", [(b"a", b"b")]), ("8.3.2", [(b":status", b"")]), ("8.3.2", [(b":status", b"20")]),
        ("8.3.2", [(b":status", b"2000")]), ("8.3.2", [(b":status", b"099")]), ("8.3.2", [(b":status", b"200 ")]),
        ("8.3.2", [(b":status", b"200 OK")]), ("8.3.2", [(b":status", b"+20")]),
        ("8.3.2", [(b":status", b"\xb2\xb2\xb2")]),
        ("8.3", OK + OK), ("8.3", [*OK, (b":path", b"/")]), ("8.3", [(b"a", b"b"), *OK]),
        ("8.3", [*OK, (b"a", b""), *OK]),
        ("8.2.1", [*OK, (b"A", b"b")]), ("8.2.1", [*OK, (b"a", b"b\r\nc: d")]), ("8.2.1", [*OK, (b"a", b"b\rc\nd")]),
        ("8.2.1", [*OK, (b"a: b", b"c")]), ("8.2.1", [*OK, (b"", b"")]), ("8.2.1", [*OK, (b"a", b" b")]),
        ("8.2.2", [*OK, (b"connection", b"close")]), ("8.2.2", [*OK, (b"transfer-encoding", b"chunked")]),
        ("8.2.2", [*OK, (b"te", b"trailers")]), ("8.2.2", [*OK, (b"upgrade", b"h2c")]),
        ("8.1.1", [*OK, LENGTH_5]), ("RFC 9110 8.6", [*OK, (b"content-length", b"0"), (b"content-length", b"0")]),
        ("RFC 9110 8.6", [*OK, (b"content-length", b"a")]), ("8.6", [(b":status", b"101")]),
        ("8.1", [(b":status", b"103")]),
    ],
)  # fmt: skip
def test_an_answer_that_is_refused(section: str, fields: FieldList) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_answer(fields, ended=True, limits=LIMITS, asked="GET")
    assert caught.value.status == 400, "of which the codec makes what an origin's faults are"


@pytest.mark.parametrize(
    ("status", "asked", "fields", "ended", "length", "bodiless"),
    [
        (200, "GET", [], True, 0, True), (200, "GET", [], False, None, False),
        (200, "GET", [LENGTH_5], False, 5, False),
        (200, "HEAD", [LENGTH_5], True, 5, True), (200, "HEAD", [LENGTH_5], False, 5, True),
        (200, "HEAD", [], True, None, True), (304, "GET", [LENGTH_5], True, 5, True),
        (304, "GET", [], False, None, True),
        (204, "GET", [LENGTH_5], True, 0, True), (204, "GET", [], False, 0, True), (999, "GET", [], True, 0, True),
    ],
)  # fmt: skip
def test_the_body_of_an_answer(
    status: int, asked: str, fields: FieldList, ended: bool, length: int | None, bodiless: bool
) -> None:
    response = answered([(b":status", b"%d" % status), *fields], ended=ended, asked=asked)
    assert (response.status, response.length, response.ended) == (status, length, bodiless)


@pytest.mark.parametrize("asked", ["HEAD", "GET"])
def test_the_length_of_what_has_no_body_is_a_number_too(asked: str) -> None:
    with pytest.raises(ProtocolError, match="not a number"):
        read_answer([(b":status", b"304"), (b"content-length", b"a")], ended=True, limits=LIMITS, asked=asked)


def test_interim_answers() -> None:
    hints = [(b":status", b"103"), (b"link", b"</a>")]
    interim = read_answer(hints, ended=False, limits=LIMITS, asked="GET")
    assert isinstance(interim, Interim)
    assert interim == Interim(103, Headers({"link": "</a>"}))
    assert fields_of_interim(interim) == hints
    for status, more, ended in ((b"103", [(b"content-length", b"0")], False), (b"100", [], True), (b"101", [], False)):
        with pytest.raises(ProtocolError):
            read_answer([(b":status", status), *more], ended=ended, limits=LIMITS, asked="GET")


def test_answers_to_connect() -> None:
    response = answered([*OK, LENGTH_5], ended=False, asked="CONNECT")
    assert (response.status, response.length, response.ended, response.upgrade) == (200, None, False, "")
    assert fields_of_answer(response, asked="CONNECT") == OK
    assert not answered(OK, asked="CONNECT").ended, "the end is one of data"
    refused = answered([(b":status", b"403"), LENGTH_5], ended=False, asked="CONNECT")
    assert (refused.length, refused.ended) == (5, False)
    with pytest.raises(ProtocolError, match="200 to CONNECT would open a tunnel"):
        fields_of_answer(respond(200), asked="CONNECT")
    assert fields_of_answer(Response(300), asked="CONNECT") == [(b":status", b"300")]


def test_answers_to_an_extended_connect() -> None:
    response = answered([*OK, (b"a", b"b")], ended=False, upgrade="websocket")
    assert (response.status, response.length, response.ended, response.upgrade) == (101, None, False, "websocket")
    assert fields_of_answer(response, asked="GET") == [*OK, (b"a", b"b")]
    refused = answered([(b":status", b"404")], upgrade="websocket")
    assert (refused.status, refused.upgrade, refused.length, refused.ended) == (404, "", 0, True)


def test_limits_of_an_answer() -> None:
    assert answered([*OK, (b"a", b"b"), (b"c", b"d")], limits=Limits(fields_max=2)).status == 200
    for fields, limits in (
        ([*OK, (b"a", b"b"), (b"c", b"d")], Limits(fields_max=1)),
        ([*OK, (b"a", b"b" * 8190)], LIMITS),
        ([*OK, *[(b"a", b"b" * 8000)] * 5], LIMITS),
    ):
        with pytest.raises(ProtocolError) as caught:
            answered(fields, limits=limits)
        assert caught.value.reason == "header_too_large"


def test_what_no_table_is_to_keep_of_an_answer() -> None:
    response = answered([*OK, NeverIndexedHeaderTuple(b"set-cookie", b"a"), (b"b", b"c")])
    assert response.sensitive == frozenset({b"set-cookie"})
    kinds = [isinstance(field, NeverIndexedHeaderTuple) for field in fields_of_answer(response, asked="GET")]
    assert kinds == [False, True, False]


# ------------------------------------------------------------------------------------------------------- trailers


def test_trailers_come_and_go() -> None:
    fields = [(b"grpc-status", b"0"), (b"grpc-message", b"")]
    trailers = read_trailers(fields, LIMITS)
    assert trailers.headers.block == b"\r\ngrpc-status: 0\r\ngrpc-message: "
    assert fields_of_trailers(trailers) == fields
    assert read_trailers([], LIMITS) == Trailers(Headers())
    assert fields_of_trailers(Trailers(Headers())) == []


def test_trailers_that_do_not_go_on() -> None:
    fields = [(b"a", b"b"), (b"set-cookie", b"c"), (b"content-type", b"d"), (b"e", b"f")]
    assert fields_of_trailers(read_trailers(fields, LIMITS)) == [(b"a", b"b"), (b"e", b"f")]
    told = Headers({"A": "b", "Content-Length": "5", "Proxy-Connection": "close", "Host": "c", "Keep-Alive": "d"})
    assert fields_of_trailers(Trailers(told)) == [(b"a", b"b")]


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        ("8.1", [(b":status", b"200")]), ("8.1", [(b"a", b"b"), (b":path", b"/")]), ("8.2.1", [(b"A", b"b")]),
        ("8.2.1", [(b"a", b"b\rc\nd")]), ("8.2.1", [(b"a", b"b\r\nc: d")]), ("8.2.1", [(b"a", b"b ")]),
        ("8.2.2", [(b"connection", b"a")]), ("8.2.2", [(b"te", b"trailers")]), ("8.2.2", [(b"keep-alive", b"a")]),
        ("RFC 9110 6.5.1", [LENGTH_5]), ("RFC 9110 6.5.1", [(b"host", b"a")]),
        ("RFC 9110 6.5.1", [(b"transfer-encoding", b"chunked")]),
    ],
)  # fmt: skip
def test_trailers_that_are_refused(section: str, fields: FieldList) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_trailers(fields, LIMITS)
    assert caught.value.status == 400


def test_limits_of_trailers() -> None:
    limits = Limits(trailer_fields_max=2, trailers_bytes_max=20)
    assert len(read_trailers([(b"a", b"b" * 5), (b"c", b"d" * 5)], limits).headers) == 2
    assert len(read_trailers([(b"a", b"b" * 17)], limits).headers) == 1
    for fields in ([(b"a", b"b")] * 3, [(b"a", b"b" * 18)]):
        with pytest.raises(ProtocolError) as caught:
            read_trailers(fields, limits)
        assert (caught.value.status, caught.value.reason) == (431, "header_too_large")


# -------------------------------------------------------------------------------------------------- requests, written

HOST = (b":authority", b"a")
WRITTEN: FieldList = [METHOD, SCHEME, HOST, (b":path", b"/")]


def asking(fields: dict[str, str] | None = None, method: str = "GET", target: str = "/", **rest: object) -> Request:
    return Request(method, target, Headers({"Host": "A", **(fields or {})}), **rest)  # type: ignore[arg-type]


def test_the_names_of_http1_in_lower_case_and_without_what_is_of_its_connection() -> None:
    fields = {
        "Accept": "*/*", "Connection": "close", "Keep-Alive": "a", "Proxy-Connection": "b", "Transfer-Encoding": "c",
        "Upgrade": "d", "TE": "gzip", "Content-Length": "9", "X-Y": "z",
    }  # fmt: skip
    assert fields_of_request(asking(fields), secure=True) == [*WRITTEN, (b"accept", b"*/*"), (b"x-y", b"z")]
    answer = Response(200, Headers(fields), length=None, ended=False)
    assert fields_of_answer(answer, asked="GET") == [*OK, (b"accept", b"*/*"), (b"x-y", b"z")]
    assert fields_of_interim(Interim(103, Headers(fields))) == [
        (b":status", b"103"), (b"accept", b"*/*"), (b"x-y", b"z"),
    ]  # fmt: skip


def test_blanks_around_a_value_stay_behind() -> None:
    for block in (b"\r\nHost:a \r\nA: \t b \r\nC:\t\r\nD:e", b"\r\nHost: a\r\nA:b\t\r\nC:\r\nD: e ",
                  b"\r\nhost: a\r\na: b\r\nc: \r\nd:e\t", b"\r\nHost:a\r\nA:b\t\r\nC:\r\nD:e",
                  b"\r\nHost:a\r\nA:b\r\nC:\r\nD:e "):  # fmt: skip
        request = Request("GET", "/", Headers.from_block(block))
        assert fields_of_request(request, secure=True) == [*WRITTEN, (b"a", b"b"), (b"c", b""), (b"d", b"e")]


def test_the_scheme_is_that_of_the_way_up() -> None:
    assert fields_of_request(asking(scheme="https"), secure=False)[1] == (b":scheme", b"http")


def test_the_length_of_a_request() -> None:
    def length(request: Request) -> bytes | None:
        return dict(fields_of_request(request, secure=True)).get(b"content-length")

    assert length(asking()) is None
    assert length(asking({"Content-Length": "7"})) is None
    assert length(asking(method="POST")) == b"0"
    assert length(asking(ended=False)) == b"0", "the end is still to come, and nothing before it"
    assert length(asking(length=5, ended=False)) == b"5"
    assert length(asking({"Content-Length": "7"}, "POST", length=5, data=b"abcde")) == b"5"
    assert length(asking({"Transfer-Encoding": "chunked"}, "POST", length=None, ended=False)) is None
    for request in (asking(length=5), asking(data=b"a"), asking(length=2, data=b"abc", ended=False)):
        with pytest.raises(ProtocolError, match="was announced as"):
            fields_of_request(request, secure=True)


def test_te() -> None:
    def told(fields: dict[str, str]) -> bool:
        return (b"te", b"trailers") in fields_of_request(asking(fields), secure=True)

    assert told({"TE": "trailers"})
    old = Request("GET", "/", Headers.from_block(b"\r\nHost: a\r\nTE: Trailers \t\r\nA: b"))
    assert (b"te", b"trailers") in fields_of_request(old, secure=True)
    assert told({"Content-Type": "Application/gRPC"})
    assert told({"content-type": "application/grpc+proto"})
    assert not told({"content-type": "application/json"})
    assert not told({"TE": "trailers, gzip"})


def test_secrets_go_into_no_table() -> None:
    secret = NeverIndexedHeaderTuple
    for name, value, kind in (
        ("Authorization", "a" * 99, secret), ("Proxy-Authorization", "a", secret), ("Cookie", "a" * 19, secret),
        ("Cookie", "a" * 20, tuple), ("X", "authorization:", tuple),
    ):  # fmt: skip
        fields = fields_of_request(asking({"Z": "z", name: value}), secure=True)
        assert [type(field) for field in fields[4:]] == [tuple, kind]
    cookie = asking({"Cookie": "a" * 99}, sensitive=frozenset({b"cookie"}))
    assert type(fields_of_request(cookie, secure=True)[-1]) is secret


@pytest.mark.parametrize(
    "request_",
    [
        Request("GET", "/"), asking(method="G T"), asking(method=""), asking(method="\u0100"), asking(target=""),
        asking(target="a"), asking(target="http://a/"), asking(target="/a b"), asking(target="/\r\n"),
        asking(target="/\n"), asking(target="/#"), asking(target="/\xe9"), asking(target="*"),
        asking(target="a", method="CONNECT"), asking(target="a:\u0661", method="CONNECT"),
        Request("GET", "/", Headers([("Host", "a"), ("Host", "b")])), Request("GET", "/", Headers({"Host": ""})),
        Request("GET", "/", Headers({"Host": "u@a"})), asking(upgrade="a b"),
        asking(method="POST", upgrade="websocket"), asking(length=None, ended=False, upgrade="websocket"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_written(request_: Request) -> None:
    with pytest.raises(ProtocolError):
        fields_of_request(request_, secure=True)


def test_a_request_of_everybody_and_an_upgrade() -> None:
    assert fields_of_request(asking(target="*", method="OPTIONS"), secure=False)[3] == (b":path", b"*")
    upgrade = asking({"Connection": "upgrade", "Upgrade": "websocket", "A": "b"}, upgrade="websocket")
    assert fields_of_request(upgrade, secure=True) == [CONNECT, PROTOCOL, *WRITTEN[1:], (b"a", b"b")]


# --------------------------------------------------------------------------------------------------- answers, written


def test_the_length_of_an_answer() -> None:
    def length(response: Response, asked: str = "GET") -> list[bytes]:
        fields = fields_of_answer(response, asked=asked)
        return [value for name, value in fields if name == b"content-length"]

    said = Headers({"Content-Length": "5"})
    assert length(respond(200, b"abcde")) == [b"5"]
    assert length(Response(200, said, length=5, ended=False)) == [b"5"]
    assert length(Response(200, said, length=7, ended=False)) == [b"7"]
    assert length(Response(200, said, length=None, ended=False)) == []
    assert length(Response(200, said)) == [b"0"]
    assert length(Response(200)) == [], "as in an answer of gRPC that is all trailers"
    assert length(Response(200, ended=False)) == [b"0"]
    assert length(Response(204, said)) == []
    assert length(Response(304, said, length=5)) == [b"5"]
    assert length(Response(304, said, length=None)) == []
    assert length(Response(200, said, length=5), "HEAD") == [b"5"]
    assert length(Response(200, length=5), "HEAD") == [b"5"]
    twice = Headers([("Content-Length", "5"), ("Content-Length", "5")])
    assert length(Response(200, twice, length=5, ended=False)) == [b"5"]
    for response in (Response(200, length=5), Response(200, data=b"a"), Response(404, said, length=5, data=b"abcd")):
        with pytest.raises(ProtocolError, match="was announced as"):
            fields_of_answer(response, asked="GET")


def test_the_phrase_stays_behind() -> None:
    assert fields_of_answer(Response(404, reason="Nothing"), asked="GET") == [(b":status", b"404")]


@pytest.mark.parametrize("status", [-200, 0, 99, 100, 103, 199, 1000])
def test_what_is_no_status(status: int) -> None:
    with pytest.raises(ProtocolError, match="is no status"):
        fields_of_answer(Response(status), asked="GET")
    if status < 100 or status > 199:
        with pytest.raises(ProtocolError, match="is no interim answer"):
            fields_of_interim(Interim(status))


def test_a_101_that_is_no_switch() -> None:
    with pytest.raises(ProtocolError, match="is no interim answer"):
        fields_of_interim(Interim(101))
    switch = Response(101, length=None, ended=False, upgrade="websocket")
    assert fields_of_answer(switch, asked="GET") == OK
    for broken in (replace(switch, upgrade=""), replace(switch, ended=True)):
        with pytest.raises(ProtocolError, match="101 is no answer"):
            fields_of_answer(broken, asked="GET")
