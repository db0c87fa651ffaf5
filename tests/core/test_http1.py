"""HTTP/1.1, by our own codec and by h11: bytes in, parts out, and back, in both roles."""

from __future__ import annotations

import pytest

from coulee.core.codec import NEED_DATA, PAUSED, ProtocolError, Role
from coulee.core.config import Limits
from coulee.core.headers import Headers
from coulee.core.http1 import Http1Codec
from coulee.core.http1_h11 import H11Codec
from coulee.core.parts import Data, Interim, Part, Request, Response, Trailers, respond

AnyCodec = Http1Codec | H11Codec
_used: list[type[AnyCodec]] = []


@pytest.fixture(autouse=True, params=[Http1Codec, H11Codec], ids=["own", "h11"])
def codec_class(request: pytest.FixtureRequest) -> type[AnyCodec]:
    """Every test is one of both."""
    chosen: type[AnyCodec] = request.param
    _used[:] = [chosen]
    return chosen


def make(role: Role, data: bytes = b"", limits: Limits | None = None) -> AnyCodec:
    codec = _used[0](role, limits or Limits())
    if data:
        codec.feed(data)
    return codec


def asking(method: str = "GET", **rest: object) -> AnyCodec:
    """A client that has sent a request."""
    codec = make("client")
    fields = {"Host": "a", **({"Transfer-Encoding": "x"} if rest.get("length", 0) is None else {})}
    codec.write(1, Request(method, "/", Headers(fields), **rest))  # type: ignore[arg-type]
    return codec


def part_of(codec: AnyCodec) -> Part:
    pulled = codec.next_part()
    assert isinstance(pulled, tuple), pulled
    return pulled[1]


def request_of(codec: AnyCodec) -> Request:
    part = part_of(codec)
    assert isinstance(part, Request)
    return part


def response_of(codec: AnyCodec) -> Response:
    part = part_of(codec)
    assert isinstance(part, Response)
    return part


def fault_of(codec: AnyCodec) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        codec.next_part()
    return caught.value


def joined(data: object) -> bytes:
    return data if isinstance(data, bytes) else b"".join(data)  # type: ignore[arg-type]


GET = b"GET /a?b HTTP/1.1\r\nHost: example.org:81\r\nX-Case: Kept\r\n\r\n"


# ------------------------------------------------------------------------------------------ requests, read


def test_a_request_without_a_body_is_one_part() -> None:
    codec = make("server", GET)
    request = request_of(codec)
    assert (request.method, request.target, request.path, request.query) == ("GET", "/a?b", "/a", "b")
    assert (request.version, request.authority, request.length, request.ended) == ((1, 1), "example.org:81", 0, True)
    assert request.headers.block == b"\r\nHost: example.org:81\r\nX-Case: Kept"
    assert codec.next_part() is PAUSED


def test_a_head_takes_along_what_is_there_of_its_body() -> None:
    codec = make("server", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    request = request_of(codec)
    assert (request.length, request.data, request.ended) == (6, b"abc", False)
    assert codec.next_part() is NEED_DATA
    codec.feed(b"d")
    codec.feed(b"ef")
    assert part_of(codec) == Data(b"def", True)
    assert codec.next_part() is PAUSED


def test_a_chunked_body_has_no_length_and_its_chunks_are_joined() -> None:
    codec = make("server", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    request = request_of(codec)
    assert (request.length, request.data, request.ended) == (None, b"ab", False)
    codec.feed(b"1\r\nc\r\n1\r\nd\r\n0\r\n\r\n")
    assert part_of(codec) == Data(b"cd", True)


def test_trailers_end_a_body_and_never_authenticate() -> None:
    body = b"1\r\na\r\n0\r\nX-Sum: 9\r\nCookie: evil\r\nAuthorization: evil\r\n\r\n"
    codec = make("server", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    request = request_of(codec)
    assert (request.data, request.ended) == (b"a", False)
    assert part_of(codec) == Trailers(Headers({"X-Sum": "9"}))
    assert codec.next_part() is PAUSED


def test_trailers_that_come_alone_and_those_behind_more_data() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    codec = make("server", head)
    request_of(codec)
    codec.feed(b"0\r\nX-Sum: 9\r\n\r\n")
    assert part_of(codec) == Trailers(Headers({"X-Sum": "9"}))
    codec = make("server", head)
    request_of(codec)
    codec.feed(b"1\r\na\r\n0\r\nX-Sum: 9\r\n\r\n")
    assert part_of(codec) == Data(b"a", False)
    assert part_of(codec) == Trailers(Headers({"X-Sum": "9"}))


def test_trailers_of_which_nothing_may_pass_end_a_body_plainly() -> None:
    codec = make("server", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    request_of(codec)
    codec.feed(b"0\r\nCookie: evil\r\n\r\n")
    assert part_of(codec) == Data(b"", True)


@pytest.mark.parametrize("field", [b"Content-Length: 1", b"Transfer-Encoding: chunked", b"Host: evil"])
def test_trailers_that_would_frame_or_route_are_refused(field: bytes) -> None:
    codec = make("server", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n" + field)
    request = request_of(codec)
    assert (request.data, request.ended) == (b"a", False)
    codec.feed(b"\r\n\r\n")
    assert fault_of(codec).status in (400, 501)


def test_pipelined_requests_come_one_by_one() -> None:
    codec = make("server", GET + GET.replace(b"/a", b"/c"))
    assert request_of(codec).path == "/a"
    assert codec.next_part() is PAUSED
    assert codec.buffered == len(GET)
    assert not codec.idle
    codec.write(1, respond(200))
    headers = Headers.from_block(b"\r\nHost: example.org:81\r\nX-Case: Kept")
    assert codec.next_part() == (2, Request("GET", "/c?b", headers, authority="example.org:81"))
    codec.write(2, respond(200))
    assert codec.next_part() is NEED_DATA
    assert codec.idle
    assert codec.reusable


@pytest.mark.parametrize(
    ("line", "target", "authority"),
    [
        (b"GET http://b.org/x?y", "/x?y", "b.org"),
        (b"GET http://b.org", "/", "b.org"),
        (b"GET HTTP://b.org:8080?q", "/?q", "b.org:8080"),
        (b"OPTIONS http://b.org", "*", "b.org"),
        (b"OPTIONS *", "*", "a"),
        (b"GET http://[::1]:80/", "/", "[::1]:80"),
    ],
)
def test_the_absolute_form_becomes_the_origin_form_and_its_host_wins(line: bytes, target: str, authority: str) -> None:
    request = request_of(make("server", line + b" HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert (request.target, request.authority, request.headers["host"]) == (target, authority, authority)


def test_http_1_0_may_come_without_host_and_ends_its_connection() -> None:
    codec = make("server", b"GET / HTTP/1.0\r\n\r\n")
    request = request_of(codec)
    assert (request.version, request.authority) == ((1, 0), "")
    head = joined(codec.write(1, Response(200, length=None, ended=False)))
    assert b"chunked" not in head
    assert head.endswith(b"Connection: close\r\n\r\n")
    assert codec.write(1, Data(b"abc")) == b"abc"
    assert codec.write(1, Trailers(Headers({"X-Sum": "9"}))) == b""
    assert not codec.reusable
    assert codec.next_part() is PAUSED


@pytest.mark.parametrize("split", [1, 2, 3])
def test_one_empty_line_before_a_request_is_ignored(split: int) -> None:
    codec = make("server")
    lines = b"\r\n" + GET
    codec.feed(lines[:split])
    assert codec.next_part() is NEED_DATA
    codec.feed(lines[split:])
    assert request_of(codec).path == "/a"


@pytest.mark.parametrize("split", [1, 2, 3])
def test_one_empty_line_behind_a_body_is_ignored(split: int) -> None:
    tail = b"\r\n" + GET
    codec = make("server", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx" + tail[:split])
    request_of(codec)
    codec.write(1, respond(204))
    assert codec.next_part() is NEED_DATA
    codec.feed(tail[split:])
    assert request_of(codec).path == "/a"


def test_two_empty_lines_are_no_request() -> None:
    assert fault_of(make("server", b"\r\n\r\n" + GET)).status == 400


def test_a_carriage_return_alone_and_then_the_end() -> None:
    codec = make("server", b"\r")
    codec.feed_eof()
    assert fault_of(codec).reason in ("bad_request", "client_gone")


HOST = b"\r\nHost: a"
REFUSED = [
    ("no host", b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
    ("two hosts", b"GET / HTTP/1.1" + HOST + HOST + b"\r\n\r\n", 400, "bad_request"),
    ("an empty host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "bad_request"),
    ("a host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "bad_request"),
    ("a host with a user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "bad_request"),
    ("absolute form, bad host", b"GET http://u@b/ HTTP/1.1" + HOST + b"\r\n\r\n", 400, "bad_request"),
    ("both framings", b"POST / HTTP/1.1" + HOST + b"\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400,
     "bad_request"),
    ("chunked in 1.0", b"POST / HTTP/1.0" + HOST + b"\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_request"),
    ("another coding", b"POST / HTTP/1.1" + HOST + b"\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "not_implemented"),
    ("lengths that differ", b"POST / HTTP/1.1" + HOST + b"\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400,
     "bad_request"),
    ("a signed length", b"POST / HTTP/1.1" + HOST + b"\r\nContent-Length: +1\r\n\r\n", 400, "bad_request"),
    ("version 2", b"GET / HTTP/2.0" + HOST + b"\r\n\r\n", 505, "version_not_supported"),
    ("CONNECT", b"CONNECT a:1 HTTP/1.1" + HOST + b"\r\n\r\n", 405, "method_not_allowed"),
    ("TRACE", b"TRACE / HTTP/1.1" + HOST + b"\r\n\r\n", 405, "method_not_allowed"),
    ("a target without a slash", b"GET a HTTP/1.1" + HOST + b"\r\n\r\n", 400, "bad_request"),
    ("a fragment", b"GET /a#b HTTP/1.1" + HOST + b"\r\n\r\n", 400, "bad_request"),
    ("asterisk with GET", b"GET * HTTP/1.1" + HOST + b"\r\n\r\n", 400, "bad_request"),
    ("https", b"GET https://a/ HTTP/1.1" + HOST + b"\r\n\r\n", 421, "misdirected"),
    ("https, bad host", b"GET https://u@a/ HTTP/1.1" + HOST + b"\r\n\r\n", 400, "bad_request"),
    ("another scheme", b"GET ftp://a/ HTTP/1.1" + HOST + b"\r\n\r\n", 400, "bad_request"),
    ("an unknown expectation", b"GET / HTTP/1.1" + HOST + b"\r\nExpect: tea\r\n\r\n", 417, "expectation_failed"),
    ("too many fields", b"GET / HTTP/1.1" + HOST + b"\r\nA: b" * 101 + b"\r\n\r\n", 431, "header_too_large"),
    ("a large head at once", b"GET / HTTP/1.1" + HOST + b"\r\nA: " + b"b" * 33000 + b"\r\n\r\n", 431,
     "header_too_large"),
    ("a large head so far", b"GET / HTTP/1.1" + HOST + b"\r\nA: " + b"b" * 66000, 431, "header_too_large"),
    ("a large target", b"GET /" + b"b" * 9000 + b" HTTP/1.1" + HOST + b"\r\n\r\n", 414, "target_too_long"),
    ("a large field", b"GET / HTTP/1.1" + HOST + b"\r\nA: " + b"b" * 9000 + b"\r\n\r\n", 431, "header_too_large"),
    ("a bell in a value", b"GET / HTTP/1.1" + HOST + b"\r\nA: b\x07c\r\n\r\n", 400, "bad_request"),
    ("a delete in a value", b"GET / HTTP/1.1" + HOST + b"\r\nA: b\x7fc\r\n\r\n", 400, "bad_request"),
    ("not HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00", 400, "bad_request"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "status", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_a_gateway_refuses(data: bytes, status: int, reason: str) -> None:
    codec = make("server", data)
    fault = fault_of(codec)
    assert (fault.status, fault.reason) == (status, reason)
    assert fault.detail
    assert fault_of(codec) is fault, "it stays broken"
    assert not codec.reusable
    answer = joined(codec.write(1, respond(status, "no")))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nno")


def test_expectations_of_http_1_0_do_not_count() -> None:
    assert request_of(make("server", b"GET / HTTP/1.0\r\nExpect: tea\r\n\r\n")).method == "GET"


def test_a_fault_behind_a_head_waits_for_its_turn() -> None:
    codec = make("server", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nzz\r\n")
    request = request_of(codec)
    assert (request.data, request.ended) == (b"a", False)
    assert fault_of(codec).reason == "bad_request"


def test_trailers_have_a_limit() -> None:
    codec = make("server", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    assert request_of(codec).data == b"a"
    codec.feed(b"0\r\nX: " + b"y" * 9000 + b"\r\n\r\n")
    fault = fault_of(codec)
    assert (fault.status, fault.reason) == (431, "header_too_large")


@pytest.mark.parametrize("data", [b"GE", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_a_request_that_is_never_finished_has_nobody_to_answer(data: bytes) -> None:
    codec = make("server", data)
    assert codec.next_part() is NEED_DATA
    assert not codec.idle
    codec.feed_eof()
    fault = fault_of(codec)
    assert (fault.status, fault.reason) == (0, "client_gone")


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_a_body_that_is_never_finished_is_a_fault(framing: bytes) -> None:
    codec = make("server", b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
    request_of(codec)
    codec.feed_eof()
    assert fault_of(codec).reason == "client_gone"


def test_the_end_between_two_requests_is_none() -> None:
    codec = make("server", GET)
    codec.feed_eof()
    request_of(codec)
    assert codec.next_part() is PAUSED
    codec.write(1, respond(200))
    assert codec.next_part() is NEED_DATA
    assert codec.idle
    assert codec.next_part() in (PAUSED, NEED_DATA)


def test_who_expects_to_be_told_to_continue() -> None:
    codec = make("server", b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n")
    request_of(codec)
    assert codec.expects_continue
    assert codec.write(1, Interim(100)) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert not codec.expects_continue
    codec.feed(b"x")
    assert part_of(codec) == Data(b"x", True)


# ----------------------------------------------------------------------------------------- answers, written


def answered(part: Part, request: bytes = GET) -> bytes:
    codec = make("server", request)
    codec.next_part()
    return joined(codec.write(1, part))


def test_framing_is_ours_whatever_the_fields_say() -> None:
    headers = Headers([("Content-Length", "99"), ("Transfer-Encoding", "gzip"), ("X-A", "b")])
    assert answered(Response(200, headers, length=2, data=b"hi")) == (
        b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\nhi"
    )
    assert answered(Response(200, headers, length=None, data=b"hi", ended=True)) == (
        b"HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    )


def test_a_phrase_of_ones_own_is_kept() -> None:
    assert answered(Response(299, reason="Whatever")).startswith(b"HTTP/1.1 299 Whatever\r\n")
    assert answered(Response(299)).startswith(b"HTTP/1.1 299 \r\n")


def test_answers_without_a_body() -> None:
    assert answered(Response(204)) == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert answered(Response(304, length=5)) == b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"
    head = GET.replace(b"GET", b"HEAD")
    assert answered(Response(200, length=5), head) == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


def test_trailers_are_written_behind_chunks_only() -> None:
    trailers = Trailers(Headers([("X-Sum", "9"), ("Content-Length", "7")]))
    codec = make("server", GET)
    codec.next_part()
    codec.write(1, Response(200, length=None, ended=False))
    assert codec.write(1, trailers) == b"0\r\nX-Sum: 9\r\n\r\n"
    codec = make("server", GET)
    codec.next_part()
    codec.write(1, Response(200, length=1, data=b"x", ended=False))
    assert codec.write(1, trailers) == b""


def test_a_body_that_does_not_fit_its_length_is_refused() -> None:
    codec = make("server", GET)
    codec.next_part()
    codec.write(1, Response(200, length=3, data=b"ab", ended=False))
    with pytest.raises(ProtocolError):
        codec.write(1, Data(b"", True))
    codec = make("server", GET)
    codec.next_part()
    with pytest.raises(ProtocolError):
        codec.write(1, Response(200, length=1, data=b"ab", ended=False))


def test_large_data_is_not_copied() -> None:
    codec = make("server", GET)
    codec.next_part()
    data = b"x" * 100_000
    out = codec.write(1, Response(200, length=len(data), data=data))
    assert isinstance(out, list)
    assert out[-1] is data


def test_an_exchange_can_be_made_the_last() -> None:
    codec = make("server", GET + GET)
    codec.next_part()
    assert codec.reusable
    codec.close_after()
    assert not codec.reusable
    assert b"\r\nConnection: close\r\n" in joined(codec.write(1, respond(200)))
    assert codec.next_part() is PAUSED


# ----------------------------------------------------------------------------------------- requests, written


def test_a_request_is_framed_by_its_length() -> None:
    def written(method: str, length: int | None, data: bytes = b"", ended: bool = True) -> bytes:
        request = Request(method, "/x", Headers({"Host": "a", "Content-Length": "77"}), length=length, data=data,
                          ended=ended)  # fmt: skip
        return joined(make("client").write(1, request)).removeprefix(method.encode() + b" /x HTTP/1.1\r\nHost: a\r\n")

    assert written("GET", 0) == b"\r\n"
    assert written("POST", 0) == b"Content-Length: 0\r\n\r\n"
    assert written("GET", 2, b"ab") == b"Content-Length: 2\r\n\r\nab"
    assert written("PUT", None, b"ab") == b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    assert written("PUT", None, b"ab", False) == b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"


def test_a_client_can_say_that_a_request_is_its_last() -> None:
    codec = make("client")
    codec.close_after()
    assert b"\r\nConnection: close\r\n" in joined(codec.write(1, Request("GET", "/", Headers({"Host": "a"}))))
    assert not codec.reusable


def test_what_h11_cannot_write_is_a_fault_of_ours() -> None:
    with pytest.raises(ProtocolError):
        make("client").write(1, Request("GET", "/a b", Headers({"Host": "a"})))


# ---------------------------------------------------------------------------------------------- answers, read

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def test_an_answer_with_its_body_is_one_part_and_the_connection_can_be_used_again() -> None:
    codec = asking()
    assert codec.next_part() is NEED_DATA
    codec.feed(OK)
    assert response_of(codec) == Response(200, Headers({"Content-Length": "2"}), "OK", length=2, data=b"hi")
    assert codec.reusable
    assert codec.idle
    codec.write(2, Request("GET", "/", Headers({"Host": "a"})))
    codec.feed(OK)
    assert codec.next_part() == (2, Response(200, Headers({"Content-Length": "2"}), "OK", length=2, data=b"hi"))


def test_a_body_that_only_the_end_ends() -> None:
    codec = asking()
    codec.feed(b"HTTP/1.1 200 OK\r\n\r\nabc")
    response = response_of(codec)
    assert (response.length, response.data, response.ended) == (None, b"abc", False)
    codec.feed(b"def")
    assert part_of(codec) == Data(b"def", False)
    codec.feed_eof()
    assert part_of(codec) == Data(b"", True)
    assert not codec.reusable


def test_a_body_that_ends_early_is_never_whole() -> None:
    for framing in (b"Content-Length: 9", b"Transfer-Encoding: chunked"):
        codec = asking()
        codec.feed(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        assert not response_of(codec).ended
        codec.feed_eof()
        fault = fault_of(codec)
        assert (fault.status, fault.reason) == (502, "upstream_reset")


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nA: b"])
def test_an_end_before_the_answer(data: bytes) -> None:
    codec = asking()
    if data:
        codec.feed(data)
        assert codec.next_part() is NEED_DATA
    codec.feed_eof()
    fault = fault_of(codec)
    assert (fault.status, fault.reason) == (502, "upstream_reset")


def test_answers_that_have_no_body_and_say_how_long_it_would_be() -> None:
    codec = asking("HEAD")
    codec.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n")
    response = response_of(codec)
    assert (response.length, response.data, response.ended) == (77, b"", True)
    codec = asking()
    codec.feed(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n")
    assert response_of(codec).length == 77
    codec = asking()
    codec.feed(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert response_of(codec).length == 0
    assert codec.reusable


def test_interim_answers_come_first_and_are_bounded() -> None:
    codec = asking()
    codec.feed(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
    assert part_of(codec) == Interim(103, Headers({"Link": "</a>"}), "Early Hints")
    assert response_of(codec).status == 200
    codec = asking()
    codec.feed(b"HTTP/1.1 100 Continue\r\n\r\n" * 9)
    for _ in range(8):
        assert isinstance(part_of(codec), Interim)
    fault = fault_of(codec)
    assert (fault.status, fault.reason) == (502, "upstream_invalid")


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/3.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\x08c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 33000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK" + b"\r\nA: b" * 101 + b"\r\n\r\n",
    ],
)
def test_an_answer_that_is_none_is_a_bad_gateway(data: bytes) -> None:
    codec = asking()
    codec.feed(data)
    fault = fault_of(codec)
    assert (fault.status, fault.reason) == (502, "upstream_invalid")
    assert not codec.reusable


def test_bytes_behind_an_answer_spoil_the_connection() -> None:
    codec = asking()
    codec.feed(OK + b"HTTP/1.1 200 OK\r\n\r\n")
    response_of(codec)
    assert not codec.reusable
    assert codec.next_part() is PAUSED
    codec = asking()
    codec.feed(OK)
    codec.feed_eof()
    response_of(codec)
    assert not codec.reusable


def test_an_answer_may_come_before_its_request_is_whole() -> None:
    codec = asking("POST", length=5, data=b"ab", ended=False)
    codec.feed(OK)
    assert response_of(codec).status == 200
    assert codec.next_part() is PAUSED
    codec.write(1, Data(b"cde", True))
    assert codec.reusable
    codec.consumed(1, 3)


def test_an_origin_that_closes_behind_its_answer() -> None:
    codec = asking()
    codec.feed(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    assert response_of(codec).ended
    assert not codec.reusable
