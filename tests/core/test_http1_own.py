"""What our own codec does and h11 does not: exact grammar, bounded chunk lines, and early refusals."""

from __future__ import annotations

import pytest

from coulee.core.codec import NEED_DATA, PAUSED, ProtocolError, Role
from coulee.core.config import Limits
from coulee.core.headers import Headers
from coulee.core.http1 import Http1Codec
from coulee.core.parts import Data, Interim, Part, Request, Response, Trailers, respond

HOST = b"\r\nHost: a"


def make(data: bytes = b"", role: Role = "server", limits: Limits | None = None) -> Http1Codec:
    codec = Http1Codec(role, limits or Limits())
    codec.feed(data)
    return codec


def asking(data: bytes, method: str = "GET") -> Http1Codec:
    codec = Http1Codec("client", Limits())
    codec.write(1, Request(method, "/", Headers({"Host": "a"})))
    codec.feed(data)
    return codec


def part_of(codec: Http1Codec) -> Part:
    pulled = codec.next_part()
    assert isinstance(pulled, tuple), pulled
    return pulled[1]


def fault_of(codec: Http1Codec) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        codec.next_part()
    return caught.value


def chunked(body: bytes) -> bytes:
    return b"POST / HTTP/1.1" + HOST + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + body


REFUSED = [
    ("a folded field", b"GET / HTTP/1.1" + HOST + b"\r\nA: b\r\n c\r\n\r\n", "folded"),
    ("a bare LF", b"GET / HTTP/1.1" + HOST + b"\nA: b\r\n\r\n", "control character"),
    ("a bare CR", b"GET / HTTP/1.1" + HOST + b"\r\nA: b\rc\r\n\r\n", "control character"),
    ("a NUL", b"GET / HTTP/1.1" + HOST + b"\r\nA: b\x00c\r\n\r\n", "control character"),
    ("a blank before the colon", b"GET / HTTP/1.1" + HOST + b"\r\nA : b\r\n\r\n", "colon"),
    ("no colon", b"GET / HTTP/1.1" + HOST + b"\r\nAb\r\n\r\n", "colon"),
    ("no name", b"GET / HTTP/1.1" + HOST + b"\r\n: b\r\n\r\n", "colon"),
    ("two blanks in the request line", b"GET  / HTTP/1.1" + HOST + b"\r\n\r\n", "request line"),
    ("a small http", b"GET / http/1.1" + HOST + b"\r\n\r\n", "request line"),
    ("a byte past ASCII in the target", b"GET /\xe9 HTTP/1.1" + HOST + b"\r\n\r\n", "request line"),
    ("HTTP/0.9", b"GET /\r\n\r\n", "request line"),
    ("equal lengths twice", b"POST / HTTP/1.1" + HOST + b"\r\nContent-Length: 1" * 2 + b"\r\n\r\n", "more than one"),
    ("a list of lengths", b"POST / HTTP/1.1" + HOST + b"\r\nContent-Length: 1, 1\r\n\r\n", "digits"),
    ("an empty length", b"POST / HTTP/1.1" + HOST + b"\r\nContent-Length:\r\n\r\n", "digits"),
    (
        "a length past counting",
        b"POST / HTTP/1.1" + HOST + b"\r\nContent-Length: 9999999999999999999\r\n\r\n",
        "digits",
    ),
    ("two codings", b"POST / HTTP/1.1" + HOST + b"\r\nTransfer-Encoding: chunked" * 2 + b"\r\n\r\n", "more than one"),
    ("no CRLF behind a chunk", chunked(b"1\r\nabc"), "behind a chunk"),
    ("one byte too many in a chunk", chunked(b"1\r\nab"), "behind a chunk"),
    ("a blank behind a size", chunked(b"1 \r\na\r\n"), "size and extensions"),
    ("a bare semicolon", chunked(b"1;\r\na\r\n"), "size and extensions"),
    ("a control character in an extension", chunked(b"1;a=\x01\r\na\r\n"), "size and extensions"),
    ("a size of nothing", chunked(b"\r\n"), "size and extensions"),
    ("a size that begins wrongly", chunked(b"x"), "begin with its size"),
    ("a size past counting", chunked(b"1" * 17 + b"\r\n"), "size and extensions"),
    ("a long line of a chunk", chunked(b"1;" + b"a" * 300), "longer than 256"),
    ("a broken trailer", chunked(b"0\r\nA b\r\n\r\n"), "colon"),
    ("many trailers", chunked(b"0\r\n" + b"A: b\r\n" * 33 + b"\r\n"), "more than 32"),
    ("a large trailer so far", chunked(b"0\r\nA: " + b"b" * 9000), "larger than"),
]


@pytest.mark.parametrize(("data", "detail"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_h11_lets_pass_and_we_refuse(data: bytes, detail: str) -> None:
    with pytest.raises(ProtocolError, match=detail):
        drain(make(data))


def drain(codec: Http1Codec) -> None:
    """Read all that there is."""
    while isinstance(codec.next_part(), tuple):
        pass


def test_chunk_extensions_are_dropped_and_bounded_in_all() -> None:
    codec = make(chunked(b'1;a\r\nx\r\n1 ; b = "c\\"d"\r\ny\r\n0;last\r\n\r\n'))
    request = part_of(codec)
    assert isinstance(request, Request)
    assert (request.data, request.ended) == (b"xy", True)
    codec = make(chunked(b""), limits=Limits(chunk_extensions_bytes_max=9))
    part_of(codec)
    codec.feed(b"1;aaaa\r\nx\r\n1;aaaa\r\ny\r\n")
    assert part_of(codec) == Data(b"x"), "what came before the fault comes before it"
    assert "chunk extensions" in fault_of(codec).detail


def test_what_can_be_no_message_is_refused_at_once() -> None:
    assert fault_of(make(b"\x16")).status == 400
    assert fault_of(asking(b"<html")).reason == "upstream_invalid"
    assert asking(b"HTT").next_part() is NEED_DATA


def test_a_line_that_is_too_long_is_refused_before_its_end() -> None:
    assert fault_of(make(b"GET /" + b"a" * 9000)).status == 414
    assert fault_of(make(b"GET / HTTP/1.1" + HOST + b"\r\nA: " + b"b" * 40_000)).status == 431


def test_many_fields_of_ordinary_length_are_no_long_line() -> None:
    request = part_of(make(b"GET / HTTP/1.1" + HOST + (b"\r\nA: " + b"b" * 900) * 10 + b"\r\n\r\n"))
    assert isinstance(request, Request)
    assert len(request.headers) == 11


def test_a_chunk_arrives_byte_by_byte() -> None:
    codec = make(chunked(b""))
    part_of(codec)
    body = b""
    for byte in b"3\r\nabc\r\n0\r\n":
        codec.feed(bytes([byte]))
        pulled = codec.next_part()
        if isinstance(pulled, tuple):
            assert isinstance(pulled[1], Data)
            body += pulled[1].data
    assert body == b"abc"
    codec.feed(b"\r\n")
    assert part_of(codec) == Data(b"", True)


def test_trailers_that_are_not_whole_wait_and_the_data_before_them_does_not() -> None:
    codec = make(chunked(b""))
    part_of(codec)
    codec.feed(b"1\r\na\r\n0\r\nX: y")
    assert part_of(codec) == Data(b"a")
    assert codec.next_part() is NEED_DATA
    codec.feed(b"\r\n\r\n")
    assert part_of(codec) == Trailers(Headers({"X": "y"}))


def test_trailers_that_come_with_the_head() -> None:
    codec = make(chunked(b"0\r\nX: y\r\n\r\n"))
    request = part_of(codec)
    assert isinstance(request, Request)
    assert not request.ended
    assert part_of(codec) == Trailers(Headers({"X": "y"}))
    assert codec.next_part() is PAUSED


def test_connection_options_are_read_as_a_list() -> None:
    codec = make(b"GET / HTTP/1.1" + HOST + b"\r\nConnection: foo, Close\r\n\r\n")
    part_of(codec)
    assert not codec.reusable
    codec = make(b"GET / HTTP/1.1" + HOST + b"\r\nConnection: disclosed\r\n\r\n")
    part_of(codec)
    assert codec.reusable


def test_a_filter_may_end_the_connection_by_a_field() -> None:
    codec = make(b"GET / HTTP/1.1" + HOST + b"\r\n\r\n")
    part_of(codec)
    answer = codec.write(1, respond(200, headers={"Connection": "close"}))
    assert isinstance(answer, bytes)
    assert answer.count(b"Connection: close") == 1
    assert not codec.reusable


def test_answers_of_http_1_0_end_their_connection() -> None:
    codec = asking(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx")
    response = part_of(codec)
    assert isinstance(response, Response)
    assert (response.version, response.ended, codec.reusable) == ((1, 0), True, False)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
    ],
)
def test_answers_that_are_none(data: bytes) -> None:
    assert fault_of(asking(data)).reason == "upstream_invalid"


def test_a_fault_in_an_answers_body_is_the_origins() -> None:
    head = b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n"
    codec = asking(head + b"1\r\na\r\nzz\r\n")
    response = part_of(codec)
    assert isinstance(response, Response)
    assert (response.reason, response.data, response.ended) == ("", b"a", False)
    fault = fault_of(codec)
    assert (fault.status, fault.reason) == (502, "upstream_invalid")


@pytest.mark.parametrize(
    "part",
    [
        Interim(101),
        Interim(200),
        Response(199),
        Response(1000),
        Response(200, reason="a\r\nb"),
        Trailers(Headers()),
        Data(b"x"),
    ],
)
def test_what_cannot_be_written(part: Part) -> None:
    codec = make(b"GET / HTTP/1.1" + HOST + b"\r\n\r\n")
    part_of(codec)
    with pytest.raises(ProtocolError):
        codec.write(1, part)


def test_there_is_one_answer_to_a_request() -> None:
    codec = make(b"GET / HTTP/1.1" + HOST + b"\r\n\r\n")
    part_of(codec)
    codec.write(1, respond(204))
    with pytest.raises(ProtocolError, match="a second answer"):
        codec.write(1, respond(200))
    with pytest.raises(ProtocolError, match="behind its end"):
        codec.write(1, Data(b"x", True))


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request("GE T", "/", Headers({"Host": "a"})), "is no method"),
        (Request("\u20ac", "/", Headers({"Host": "a"})), "is no method"),
        (Request("GET", "/\xe9", Headers({"Host": "a"})), "is no target"),
        (Request("GET", "/"), "needs a Host"),
    ],
)
def test_requests_that_cannot_be_written(request_: Request, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        Http1Codec("client", Limits()).write(1, request_)


def test_a_method_of_ones_own_passes() -> None:
    request = part_of(make(b"PURGE /x HTTP/1.1" + HOST + b"\r\n\r\n"))
    assert isinstance(request, Request)
    out = Http1Codec("client", Limits()).write(1, request)
    assert out == b"PURGE /x HTTP/1.1\r\nHost: a\r\n\r\n"


def test_large_bodies_are_passed_on_as_they_are() -> None:
    codec = Http1Codec("client", Limits())
    data = b"x" * 100_000
    head = codec.write(1, Request("PUT", "/", Headers({"Host": "a"}), length=None, ended=False))
    assert isinstance(head, bytes)
    out = codec.write(1, Data(data))
    assert isinstance(out, list)
    assert out[1] is data
    codec = Http1Codec("client", Limits())
    out = codec.write(1, Request("PUT", "/", Headers({"Host": "a"}), length=None, data=data, ended=True))
    assert isinstance(out, list)
    assert out[2] is data
    assert out[3] == b"\r\n0\r\n\r\n"


AT_THE_LIMITS = [
    ("a chunk's line", chunked(b"1;a=" + b"b" * 252 + b"\r\na\r\n0\r\n\r\n")),
    ("the trailers", chunked(b"0\r\nA: " + b"b" * (8192 - 3) + b"\r\n\r\n")),
    ("the first line", b"GET /" + b"a" * (8192 - 14) + b" HTTP/1.1" + HOST + b"\r\n\r\n"),
]


@pytest.mark.parametrize("data", [row[1] for row in AT_THE_LIMITS], ids=[row[0] for row in AT_THE_LIMITS])
def test_what_is_just_within_its_limit_may_come_byte_by_byte(data: bytes) -> None:
    codec = make()
    for at in range(len(data)):
        codec.feed(data[at : at + 1])
        pulled = codec.next_part()
    assert pulled is not NEED_DATA
    assert codec.next_part() is PAUSED


@pytest.mark.parametrize(
    "data", [b"\x16\x03\r\n\r\n", b"\x16" * 9000 + b"\r\n\r\n", chunked(b"z\r\n"), chunked(b"z" * 300)]
)
def test_what_begins_wrongly_is_told_the_same_whole_and_byte_by_byte(data: bytes) -> None:
    def told(pieces: list[bytes]) -> tuple[int, str]:
        codec = make()
        try:
            for piece in pieces:
                codec.feed(piece)
                while codec.next_part() is not NEED_DATA:
                    pass
        except ProtocolError as error:
            return error.status, error.detail
        raise AssertionError("it was accepted")

    assert told([data]) == told([data[at : at + 1] for at in range(len(data))])


def test_a_broken_connection_keeps_nothing() -> None:
    codec = make(chunked(b"1\r\na\r\nzz\r\n" + b"x" * 1000))
    assert isinstance(part_of(codec), Request)
    assert codec.buffered == 0
    fault_of(codec)
    codec = make(b"\x16" + b"x" * 1000)
    fault_of(codec)
    assert codec.buffered == 0


def test_of_several_fields_that_are_there_twice_the_first_is_named() -> None:
    """And not the one that a set puts first, which another process may put last."""
    for first in (b"Content-Length: 1", b"Content-Type: a", b"Transfer-Encoding: y"):
        for second in (b"Content-Length: 1", b"Content-Type: a", b"Transfer-Encoding: y"):
            fields = b"\r\n".join([first, second, second, first])
            fault = fault_of(make(b"POST / HTTP/1.1" + HOST + b"\r\n" + fields + b"\r\n\r\n"))
            assert fault.detail == f"more than one {first.partition(b':')[0].decode().lower()} field"


def test_an_answer_of_no_length_and_what_is_behind_it() -> None:
    codec = asking(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1")
    answer = part_of(codec)
    assert isinstance(answer, Response)
    assert (answer.data, answer.ended) == (b"", True)
    assert not codec.reusable


@pytest.mark.parametrize("many", [64, 65])
def test_a_range_field_may_name_so_many_ranges(many: int) -> None:
    codec = make(b"GET / HTTP/1.1" + HOST + b"\r\nRange: bytes=" + b",".join([b"0-"] * many) + b"\r\n\r\n")
    if many == 64:
        assert isinstance(part_of(codec), Request)
    else:
        assert "more than 64 ranges" in fault_of(codec).detail


def test_a_trailer_that_means_something_to_a_gateway_and_is_no_framing_is_dropped_or_kept() -> None:
    codec = make(chunked(b"1\r\na\r\n0\r\nVia: 1.1 b\r\nTE: x\r\nX-Sum: 1\r\n\r\n"))
    assert isinstance(part_of(codec), Request)
    assert part_of(codec) == Trailers(Headers({"Via": "1.1 b", "X-Sum": "1"}))


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_the_framing_of_a_request_without_a_host_counts_as_any(framing: bytes) -> None:
    """HTTP/1.0 may leave out the Host; then the framing field is the only one that means something."""
    codec = make(b"POST / HTTP/1.0\r\n" + framing + b"\r\n\r\nhello")
    if framing.startswith(b"C"):
        request = part_of(codec)
        assert isinstance(request, Request)
        assert request.data == b"hello"
    else:
        assert fault_of(codec).status == 400
