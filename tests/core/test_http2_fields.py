"""Field lists of HTTP/2: every rule of RFC 9113 section 8 that is held, one row each, and what is written."""

from __future__ import annotations

from coulee.core.config import Limits
from coulee.core.http2_fields import FieldList, fields_of_request, read_request

GET: FieldList = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"Example.org:81"), (b":path", b"/a?b")]


def test_a_request_comes_and_goes() -> None:
    fields = [*GET, (b"accept", b"*/*"), (b"cookie", b"a=1"), (b"x", b""), (b"cookie", b"b=2")]
    request = read_request(fields, ended=True, limits=Limits(), secure=True, forwards=False, extended=False)
    assert (request.method, request.target, request.scheme, request.authority) == (
        "GET",
        "/a?b",
        "https",
        "example.org:81",
    )
    assert request.headers.block == b"\r\nhost: Example.org:81\r\naccept: */*\r\ncookie: a=1; b=2\r\nx: "
    assert (request.version, request.length, request.ended) == ((2, 0), 0, True)
    assert fields_of_request(request, secure=True) == [
        *GET[:2],
        (b":authority", b"example.org:81"),
        GET[3],
        (b"accept", b"*/*"),
        (b"cookie", b"a=1; b=2"),
        (b"x", b""),
    ]
