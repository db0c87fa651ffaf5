"""However the bytes are split: the same parts, the same answers, the same faults."""

from __future__ import annotations

import os
from itertools import pairwise
from random import Random
from typing import Any, Literal, TypeAlias

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coulee.core import Config, Filter, Limits, Proxy, Response, respond
from coulee.core.codec import NeedData, Paused, ProtocolError
from coulee.core.exchange import Exchange
from coulee.core.headers import Headers
from coulee.core.http1 import Http1Codec
from coulee.core.http1_h11 import H11Codec
from coulee.core.parts import Data, Interim, Request, Trailers
from coulee.lb import Cluster
from tests.core.world import LISTENER, World

Name: TypeAlias = Literal["own", "h11"]
BOTH = pytest.mark.parametrize("codec_name", ["own", "h11"])
CODECS: dict[str, type[Http1Codec | H11Codec]] = {"own": Http1Codec, "h11": H11Codec}
EXAMPLES = 2000 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 150
thorough = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])

tokens = st.text("abcXYZ-09", min_size=1, max_size=8)
values = st.text("abc XYZ-09,;=/\"'\xe9", max_size=12).map(str.strip)
bodies = st.binary(max_size=40)


@st.composite
def framed(draw: st.DrawFn, body: bytes) -> bytes:
    """Framing fields, the empty line, and the body."""
    if not draw(st.booleans()):
        return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    out = b"Transfer-Encoding: chunked\r\n\r\n"
    while body:
        size = draw(st.integers(1, len(body)))
        out += b"%x\r\n%s\r\n" % (size, body[:size])
        body = body[size:]
    trailers = draw(st.sampled_from([b"", b"X-Sum: 1\r\n", b"Cookie: evil\r\n"]))
    return out + b"0\r\n" + trailers + b"\r\n"


@st.composite
def fields(draw: st.DrawFn) -> bytes:
    pairs = draw(st.lists(st.tuples(tokens, values), max_size=3))
    return b"".join(b"X-%s: %s\r\n" % (name.encode(), value.encode("latin-1")) for name, value in pairs)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A good request."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE"]))
    head = f"{method} /{draw(tokens)} HTTP/1.1\r\nHost: a\r\n".encode() + draw(fields())
    blank = draw(st.sampled_from([b"", b"", b"\r\n"]))
    return blank + head + (draw(framed(draw(bodies))) if draw(st.booleans()) else b"\r\n")


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """An answer, with what may come before it."""
    interims = draw(st.sampled_from([b"", b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]))
    status = draw(st.sampled_from([200, 201, 404, 500]))
    return interims + b"HTTP/1.1 %d Some Thing\r\n" % status + draw(fields()) + draw(framed(draw(bodies)))


RUBBISH = (
    b"",
    b"garbage\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n" % (b"y" * 5000),
    b"\x16\x03\x01\r\n",
    b"GET / HTTP/7.1\r\nHost: a\r\n\r\n",
    b"GET / HT",
)
rubbish = st.sampled_from(RUBBISH)


@st.composite
def split(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in pieces, now and then one by one."""
    if draw(st.integers(0, 5)) == 0:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    edges = [0, *cuts, len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


def parts_of(codec: Http1Codec | H11Codec, pieces: list[bytes], *, answer: bool) -> list[Any]:
    """What a codec makes of the pieces and the end of the stream, with the pieces of a body joined."""
    seen: list[Any] = []
    body = b""
    ended_at = -1
    for piece in [*pieces, None]:
        if piece is None:
            codec.feed_eof()
        else:
            codec.feed(piece)
        while True:
            try:
                pulled = codec.next_part()
            except ProtocolError as error:
                return [*seen, body, (error.status, error.reason)]
            if isinstance(pulled, NeedData | Paused):
                break
            stream, part = pulled
            if isinstance(part, Data):
                body += part.data
                ended = part.ended
            elif isinstance(part, Trailers):
                seen.append(part)
                ended = True
            elif isinstance(part, Interim):
                seen.append((stream, part))
                ended = False
            else:
                seen.append((stream, part.headers.block, part.length, getattr(part, "target", None)))
                body, ended = part.data, part.ended
            if ended:
                seen.append((stream, body))
                body = b""
                if answer and isinstance(part, Request | Data | Trailers) and stream != ended_at:
                    ended_at = stream
                    codec.write(stream, Response(204))
    return [*seen, body]


@BOTH
@thorough
@given(data=st.data(), messages=st.lists(requests(), max_size=3), end=rubbish)
def test_any_split_of_requests_gives_the_same_parts(
    codec_name: Name, data: st.DataObject, messages: list[bytes], end: bytes
) -> None:
    whole = b"".join(messages) + end
    limits = Limits(head_bytes_max=2000)
    expected = parts_of(CODECS[codec_name]("server", limits), [whole], answer=True)
    assert parts_of(CODECS[codec_name]("server", limits), data.draw(split(whole)), answer=True) == expected


@BOTH
@thorough
@given(data=st.data(), message=answers(), cut=st.integers(0, 200), method=st.sampled_from(["GET", "HEAD"]))
def test_any_split_of_an_answer_gives_the_same_parts(
    codec_name: Name, data: st.DataObject, message: bytes, cut: int, method: str
) -> None:
    whole = message[: len(message) - cut] if cut < len(message) and cut % 3 == 0 else message

    def codec() -> Http1Codec | H11Codec:
        client = CODECS[codec_name]("client", Limits())
        client.write(1, Request(method, "/", Headers({"Host": "a"})))
        return client

    expected = parts_of(codec(), [whole], answer=False)
    assert parts_of(codec(), data.draw(split(whole)), answer=False) == expected


class Echo(Filter):
    """Answers with the body that came."""

    async def request_filter(self, exchange: Exchange) -> Response:
        return respond(200, await exchange.body(), headers={"X-Target": exchange.request.target})


def read_answers(data: bytes, methods: list[str]) -> list[tuple[Any, ...]]:
    """What h11 reads in a stream of answers, each as a whole; how the bodies were chunked does not matter."""
    read: list[tuple[Any, ...]] = []
    for method in methods:
        conn = h11.Connection(h11.CLIENT)
        conn.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        conn.send(h11.EndOfMessage())
        conn.receive_data(data)
        conn.receive_data(b"")
        body = b""
        while True:
            event = conn.next_event()
            if isinstance(event, h11.InformationalResponse | h11.Response):
                read.append((event.status_code, event.headers.raw_items()))
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            else:
                break
        read.append((body, type(event).__name__))
        data = conn.trailing_data[0]
        if not data:
            break
    return read


def serve(
    name: Name, pieces: list[bytes], methods: list[str]
) -> tuple[list[tuple[Any, ...]], list[tuple[int, str, str]]]:
    """What a client gets from a proxy, and what is recorded, when it sends these pieces and its end of stream."""
    proxy = Proxy(Cluster("http://10.0.0.1"), [Echo()], Config(limits=Limits(head_bytes_max=2000), http1_codec=name))
    world = World(proxy.fresh(rng=Random(1), listen=[LISTENER]))
    client = world.client()
    for piece in [*pieces, b""]:
        if client in world.closing:
            break
        world.receives(client, piece)
    world.wait(100)
    read = read_answers(world.sent(client), [*methods, "GET"])
    return read, [(record.status, record.reason, record.target) for record in world.access]


@BOTH
@thorough
@given(data=st.data(), messages=st.lists(requests(), min_size=1, max_size=3), end=rubbish)
def test_any_split_of_requests_gives_the_same_answers(
    codec_name: Name, data: st.DataObject, messages: list[bytes], end: bytes
) -> None:
    whole = b"".join(messages) + end
    methods = [message.split()[0].decode() for message in messages]
    expected = serve(codec_name, [whole], methods)
    assert len(expected[1]) >= len(messages)
    assert serve(codec_name, data.draw(split(whole)), methods) == expected


@BOTH
@thorough
@given(data=st.data(), request=requests(), message=answers())
def test_any_split_of_an_answer_gives_the_client_the_same(
    codec_name: Name, data: st.DataObject, request: bytes, message: bytes
) -> None:
    method = request.split()[0].decode()
    results: list[Any] = []
    for pieces in ([message], data.draw(split(message))):
        proxy = Proxy(Cluster("http://10.0.0.1"), config=Config(http1_codec=codec_name))
        proxy = proxy.fresh(rng=Random(1), listen=[LISTENER])
        world = World(proxy)
        client = world.client()
        world.receives(client, request)
        origin = world.connects()
        sent = world.sent(origin)
        for piece in pieces:
            if origin in world.closing:
                break
            world.receives(origin, piece)
        reused = origin not in world.closing
        if reused:
            world.receives(origin, b"")
        results.append((sent, read_answers(world.sent(client), [method]), [r.reason for r in world.access]))
    assert results[0] == results[1]
