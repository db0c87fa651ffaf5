"""CONNECT, by our own codec and by h11, in both roles: what it opens, and what stays an answer."""

from __future__ import annotations

import pytest

from coulee.core.codec import PAUSED, ProtocolError, Role
from coulee.core.config import Limits
from coulee.core.headers import Headers
from coulee.core.http1 import Http1Codec
from coulee.core.http1_h11 import H11Codec
from coulee.core.parts import Data, Interim, Part, Request, Response, respond

AnyCodec = Http1Codec | H11Codec
ASK = b"CONNECT api.internal:443 HTTP/1.1\r\nHost: api.internal:443\r\n\r\n"
SECRET = b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n"

_used: list[type[AnyCodec]] = []


@pytest.fixture(autouse=True, params=[Http1Codec, H11Codec], ids=["own", "h11"])
def codec_class(request: pytest.FixtureRequest) -> type[AnyCodec]:
    """Every test is one of both."""
    chosen: type[AnyCodec] = request.param
    _used[:] = [chosen]
    return chosen


def codec(role: Role = "server", *, forwards: bool = True) -> AnyCodec:
    return _used[0](role, Limits(), forwards)


def asked(data: bytes = ASK) -> AnyCodec:
    """A codec that has read a CONNECT."""
    reading = codec()
    reading.feed(data)
    pulled = reading.next_part()
    assert isinstance(pulled, tuple)
    assert isinstance(pulled[1], Request)
    return reading


def written(writing: AnyCodec, part: Part) -> bytes:
    data = writing.write(1, part)
    return data if isinstance(data, bytes) else b"".join(data)


def test_nothing_is_read_before_it_is_answered() -> None:
    reading = asked(ASK + SECRET)
    assert reading.next_part() is PAUSED
    assert reading.buffered == len(SECRET)
    assert not reading.reusable
    assert not reading.expects_continue
    reading.feed_eof()
    assert reading.next_part() is PAUSED
    assert written(reading, Response(200, length=None, ended=False)) == b"HTTP/1.1 200 OK\r\n\r\n"
    assert reading.next_part() == (1, Data(SECRET, True))
    assert written(reading, Data(b"GET", False)) == b"GET"
    assert written(reading, Data(b"!", True)) == b"!"
    assert not reading.reusable


def test_a_refusal_is_the_last_answer() -> None:
    reading = asked(ASK + SECRET)
    refusal = written(reading, respond(403, "no"))
    assert refusal.endswith(b"\r\nConnection: close\r\n\r\nno")
    assert reading.next_part() is PAUSED
    assert not reading.reusable


def test_an_opening_is_no_whole_answer_and_no_second_one() -> None:
    with pytest.raises(ProtocolError, match="200 to CONNECT would open a tunnel; to refuse, answer with a 4xx"):
        asked().write(1, respond(200, "hello"))
    reading = asked()
    written(reading, respond(403, "no"))
    with pytest.raises(ProtocolError):
        reading.write(1, Response(200, length=None, ended=False))


def test_an_opening_may_bring_bytes() -> None:
    opening = Response(200, length=None, data=b"220 hi\r\n", ended=False)
    assert written(asked(), opening) == b"HTTP/1.1 200 OK\r\n\r\n220 hi\r\n"


def test_a_200_to_another_request_is_an_answer() -> None:
    reading = asked(SECRET)
    assert b"\r\nContent-Length: 2\r\n" in written(reading, respond(200, "hi"))
    assert reading.reusable


def test_both_ends_of_a_tunnel() -> None:
    near, far = codec("client"), codec()
    far.feed(written(near, Request("CONNECT", "a:1", Headers({"Host": "a:1"}))))
    pulled = far.next_part()
    assert isinstance(pulled, tuple)
    near.feed(written(far, Interim(103)))
    near.feed(written(far, Response(200, Headers({"X": "y"}), length=None, ended=False)) + b"hello")
    pulled = near.next_part()
    assert isinstance(pulled, tuple)
    assert isinstance(pulled[1], Interim)
    pulled = near.next_part()
    assert isinstance(pulled, tuple)
    opening = pulled[1]
    assert isinstance(opening, Response)
    assert (opening.status, opening.length, opening.ended, opening.data) == (200, None, False, b"")
    assert near.next_part() == (1, Data(b"hello"))
    far.feed(written(near, Data(b"GET /")))
    assert far.next_part() == (1, Data(b"GET /"))
    near.feed_eof()
    assert near.next_part() == (1, Data(b"", True))
    assert not near.reusable


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Content-Length: 0"])
def test_framing_in_an_opening_means_nothing(framing: bytes) -> None:
    near = codec("client")
    near.write(1, Request("CONNECT", "a:1", Headers({"Host": "a:1"})))
    near.feed(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\nhello, world")
    pulled = near.next_part()
    assert isinstance(pulled, tuple)
    assert isinstance(pulled[1], Response)
    assert (pulled[1].length, pulled[1].ended) == (None, False)
    assert near.next_part() == (1, Data(b"hello, world"))


def test_a_refusal_of_a_connect_is_an_answer_with_a_body() -> None:
    near = codec("client")
    near.write(1, Request("CONNECT", "a:1", Headers({"Host": "a:1"})))
    near.feed(b"HTTP/1.1 407 Who\r\nContent-Length: 2\r\n\r\nhi")
    pulled = near.next_part()
    assert isinstance(pulled, tuple)
    assert isinstance(pulled[1], Response)
    assert (pulled[1].status, pulled[1].data, pulled[1].ended) == (407, b"hi", True)


def test_who_does_not_forward_reads_none() -> None:
    reading = codec(forwards=False)
    reading.feed(ASK)
    with pytest.raises(ProtocolError, match="CONNECT is not for a gateway"):
        reading.next_part()
