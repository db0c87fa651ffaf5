"""`coulee.testing` in HTTP/2: what the ends say and hear, on either side, and what they do with many at once."""

from __future__ import annotations

from typing import Any

import pytest

from coulee.backends.weather import Weather
from coulee.core import (
    Config,
    Filter,
    Headers,
    PeerCertificate,
    Proxy,
    Request,
    Response,
    Security,
    Timeouts,
    Transport,
    UpstreamTls,
    fetch,
    nursery,
    respond,
)
from coulee.core.exchange import Exchange as CoreExchange
from coulee.core.parts import Data, Trailers
from coulee.lb import Cluster, peer_from_url
from coulee.testing import Exchange
from coulee.testing.http2 import Http2 as Spoken

PLAIN = "http://10.1.0.1:9000"
H2C = "h2c://10.1.0.1:9000"
MESSAGE = b"\0\0\0\0\2hi"


def h2_over_tls(*alpn: str) -> Cluster:
    return Cluster("https://o.test", transport=Transport(tls=UpstreamTls(verified_name="o.test", alpn=alpn)))


both = pytest.mark.parametrize(("url", "http2"), [(PLAIN, True), (H2C, False), (H2C, True)])


@both
def test_what_the_origin_sees_and_what_the_client_gets(url: str, http2: bool) -> None:
    x = Exchange(Proxy(Cluster(url)), http2=http2, client="192.0.2.7")
    x.start("PUT", "/a?b", headers={"Host": "a.test", "X-Case": "Kept", "Cookie": "a=b"}, body=b"hello")
    request = x.upstream.request
    assert (request.method, request.target, request.body, request.complete) == ("PUT", "/a?b", b"hello", True)
    assert request.version == ((2, 0) if url == H2C else (1, 1))
    assert request.headers["host"] == "a.test"
    assert request.headers["content-length"] == "5"
    assert request.headers["cookie"] == "a=b"
    assert request.headers["x-forwarded-for"] == "192.0.2.7"
    x.upstream.interim(103, headers={"Link": "</a>"})
    x.upstream.reply(json={"ok": True}, headers={"X-B": "c"})
    assert (x.response.status, x.response.complete, x.response.body) == (200, True, b'{"ok": true}')
    assert x.response.headers["x-b"] == "c"
    assert [(status, headers["link"]) for status, headers in x.interims] == [(103, "</a>")]
    assert x.record is not None
    assert (x.record.status, x.record.bytes_in) == (200, 5)


@both
def test_bodies_in_pieces_both_ways_with_trailers(url: str, http2: bool) -> None:
    x = Exchange(Proxy(Cluster(url)), http2=http2).start("POST", "/", more=True)
    x.send(b"ab")
    assert (x.upstream.request.body, x.upstream.request.complete) == (b"ab", False)
    x.upstream.begin(200)
    assert x.answered
    assert not x.response.complete
    x.upstream.send(b"xy")
    x.send(b"cd").end(trailers={"T": "up"})
    assert (x.upstream.request.body, x.upstream.request.trailers["t"]) == (b"abcd", "up")
    x.upstream.end(trailers={"T": "down"})
    assert (x.response.body, x.response.trailers["t"], x.response.complete) == (b"xy", "down", True)
    x.start("POST", "/again", more=True).end()
    x.upstream.begin(200, length=3)
    x.upstream.send(b"abc")
    x.upstream.end()
    assert (x.response.body, x.response.headers["content-length"]) == (b"abc", "3")
    assert not x.response.trailers
    assert (x.connected, len(x.records), len(x.upstreams)) == (True, 2, 1)
    assert [request.target for request in x.upstreams[0].requests] == ["/", "/again"]


@both
@pytest.mark.parametrize("split", [0.0, 1.0])
def test_an_origin_by_rule(url: str, http2: bool, split: float) -> None:
    def origin(request: Request) -> Response:
        return respond(200, f"{request.method} {request.target} {request.authority} {request.data.decode()}")

    x = Exchange(Proxy(Cluster(url)), origin=origin, http2=http2, weather=Weather(split=split), seed=3)
    for method, body in (("GET", None), ("POST", b"body"), ("HEAD", None)):
        x.start(method, "/a", body=body).advance(5)
        assert x.response.complete
        came = f"{method} /a example.com {(body or b'').decode()}"
        assert x.response.headers["content-length"] == str(len(came))
        assert x.response.body == (b"" if method == "HEAD" else came.encode())
    assert (len(x.records), len(x.upstreams)) == (3, 1)


@pytest.mark.parametrize("status", [204, 304])
@both
def test_answers_without_a_body(url: str, http2: bool, status: int) -> None:
    x = Exchange(Proxy(Cluster(url)), origin=lambda request: respond(status), http2=http2)
    assert (x.get("/").status, x.response.complete, x.response.body) == (status, True, b"")


@both
def test_bodies_are_larger_than_windows(url: str, http2: bool) -> None:
    """Of a stream, and of a connection, twice: what is taken is acknowledged, and what is held back goes on."""
    large = bytes(range(256)) * 12_000
    x = Exchange(Proxy(Cluster(url)), http2=http2, origin=lambda request: respond(200, request.data))
    for _ in range(2):
        assert x.post("/", large).body == large
    x = Exchange(Proxy(Cluster(url)), http2=http2).start("POST", "/", more=True)
    x.send(large).end(trailers={"T": "up"})
    assert (x.upstream.request.body, x.upstream.request.trailers["t"]) == (large, "up")
    x.upstream.begin(200)
    x.upstream.send(large)
    x.upstream.end(trailers={"T": "down"})
    assert (x.response.body, x.response.trailers["t"]) == (large, "down")


@pytest.mark.parametrize("said", ["http/1.1", "h2", ""])
def test_a_client_of_http2_may_come_by_tls(said: str) -> None:
    class Who(Filter):
        def request_filter(self, exchange: CoreExchange) -> None:
            assert exchange.security is not None
            assert exchange.security.certificate is not None
            exchange.tags["who"] = f"{exchange.security.certificate.subject} {exchange.security.alpn}"

    alice = PeerCertificate("CN=alice", "CN=ca", ("DNS:alice.test",), "00ff", "1", 4e9)
    security = Security("TLSv1.3", "AES", said, False, alice)
    x = Exchange(Proxy(Cluster(PLAIN), [Who()]), http2=said != "h2", security=security, server_name="a.test")
    x.start("GET", "/", headers={"Host": "a.test"})
    assert x.upstream.request.headers.get("x-forwarded-proto") == "https"
    x.upstream.reply(200, b"hi")
    assert x.response.body == b"hi"
    assert x.record is not None
    assert (x.record.version, x.record.server_name, x.record.tags["who"]) == ((2, 0), "a.test", "CN=alice h2")


@pytest.mark.parametrize(
    ("offered", "options", "spoken"),
    [
        (("h2", "http/1.1"), {}, (1, 1)),
        (("h2",), {}, (2, 0)),
        (("h2", "http/1.1"), {"origin_alpn": ("h2", "http/1.1")}, (2, 0)),
        (("http/1.1",), {"origin_alpn": ("h2", "http/1.1")}, (1, 1)),
    ],
)
def test_what_origins_speak_over_tls(
    offered: tuple[str, ...], options: dict[str, Any], spoken: tuple[int, int]
) -> None:
    x = Exchange(Proxy(h2_over_tls(*offered)), **options)
    for target in ("/a", "/b"):
        x.start("GET", target)
        assert (x.upstream.request.target, x.upstream.request.version) == (target, spoken)
        assert x.upstream.server_name == "o.test"
        x.upstream.reply(200, b"hi")
        assert x.response.body == b"hi"
    assert len(x.upstreams) == 1


def test_an_origin_that_does_not_speak_what_is_offered() -> None:
    x = Exchange(Proxy(h2_over_tls("h2")), origin_alpn=("http/1.1",))
    assert x.get("/").status == 502
    assert "no application protocol" in x.response.why


@pytest.mark.parametrize("split", [0.0, 1.0])
@pytest.mark.parametrize("proxy_protocol", [0, 1, 2])
def test_origins_may_be_told_who_comes(proxy_protocol: Any, split: float) -> None:
    cluster = Cluster(H2C, transport=Transport(proxy_protocol=proxy_protocol))
    x = Exchange(Proxy(cluster), client="192.0.2.7", weather=Weather(split=split), seed=3)
    x.start("POST", "/a", body=b"hello").advance(seconds=5.0)
    assert (x.upstream.request.body, x.upstream.request.version) == (b"hello", (2, 0))
    assert (x.upstream.proxy_header is not None) == bool(proxy_protocol)


@pytest.mark.parametrize("method", ["PRI", "PUT", "P"])
def test_a_method_that_begins_like_http2(method: str) -> None:
    x = Exchange(Proxy(Cluster(PLAIN)), weather=Weather(split=1.0))
    x.start(method, "/a").advance(seconds=5.0)
    assert (x.upstream.request.method, x.upstream.request.version) == (method, (1, 1))


def test_a_request_that_is_taken_back_ends_no_connection_of_an_origin() -> None:
    x = Exchange(Proxy(Cluster(H2C)), http2=True).start("GET", "/one")
    x.upstream.begin(200)
    up = x.upstreams[0]
    up.send(b"a")
    assert up.pending
    x.leave()
    assert not up.pending
    assert not up.is_closed
    up.send(b"into the void")
    x.start("GET", "/two")
    assert [request.target for request in up.requests] == ["/one", "/two"]
    up.reply(200, b"hi")
    assert x.response.body == b"hi"


def test_an_origin_may_have_many_requests_at_once() -> None:
    """They are answered from the last to the first."""

    class Asks(Filter):
        async def request_filter(self, exchange: CoreExchange) -> None:
            async def ask(target: str) -> None:
                request = Request("POST", target, authority="a", data=target.encode() * 20_000)
                answer = await fetch(request, peer=peer_from_url(H2C))
                exchange.tags[target] = answer.data.decode()

            with nursery() as children:
                for target in ("/first", "/second"):
                    children.start(ask, target)
                await children.join()

    x = Exchange(Proxy(Cluster(H2C), [Asks()]))
    x.start("GET", "/before")
    while x.upstream.request.target != "/before":
        x.upstream.reply(200)
    x.upstream.reply(200)
    up = x.upstreams[0]
    x.start("GET", "/after")
    assert [request.target for request in up.requests[-2:]] == ["/first", "/second"]
    for request in up.requests[-2:]:
        assert request.complete
        assert request.body == request.target.encode() * 20_000
    up.begin(200)
    assert up.request.target == "/second"
    up.send(b"2")
    up.end()
    assert up.pending
    assert up.request.target == "/first"
    up.reply(200, b"1")
    assert x.upstream.request.target == "/after"
    x.upstream.reply(200, b"hi")
    assert x.response.body == b"hi"
    assert x.record is not None
    assert (x.record.tags["/first"], x.record.tags["/second"]) == ("1", "2")


def test_what_waits_for_the_other_side_is_said() -> None:
    large = bytes(4_000_000)
    x = Exchange(Proxy(Cluster(H2C)), http2=True).start("POST", "/", more=True)
    up = x.upstreams[0]
    up.pause()
    x.send(large).end(trailers={"T": "up"})
    assert not up.request.complete
    up.resume()
    x.settle()
    assert (up.request.body, up.request.trailers["t"]) == (large, "up")
    assert x._client is not None
    up.begin(200)
    x._client.pause()
    up.send(large)
    up.end(trailers={"T": "down"})
    assert not x.response.complete
    assert not up.pending
    x._client.resume()
    x.settle()
    assert (x.response.body, x.response.trailers["t"]) == (large, "down")


def test_host_is_the_authority_and_the_last_answer_is_said_to_be_so() -> None:
    client, origin = Spoken(asks=True), Spoken(asks=False)
    stream = client.ask(Request("GET", "/", Headers([("X", "y"), ("Host", "a")])))
    ((_, asked), *_) = origin.hear(client.taken())
    assert isinstance(asked, Request)
    assert list(asked.headers) == [("Host", "a"), ("x", "y")]
    origin.retire()
    assert not origin.spent
    origin.say(stream, Response(200, Headers(), data=b"hi", ended=True))
    answered = [part for _, part in client.hear(origin.taken())]
    assert [type(part) for part in answered] == [Response, Data, Trailers]
    assert (client.spent, origin.spent) == (True, True)


@pytest.mark.parametrize("http2", [True, False])
def test_origins_that_fail(http2: bool) -> None:
    x = Exchange(Proxy(Cluster(H2C, "h2c://10.1.0.2:9000")), http2=http2).start("GET", "/a")
    x.upstream.reset()
    x.advance(seconds=1)
    x.upstream.reply(200, b"hi", close=True)
    assert (x.response.body, x.attempts) == (b"hi", 2)
    assert all(upstream.is_closed for upstream in x.upstreams)
    x.start("POST", "/", body=b"x")
    x.upstream.close()
    assert x.response.status == 502
    x.start("GET", "/")
    x.upstream.send_raw(b"garbage\r\n\r\n" * 9)
    assert x.response.status == 502
    assert x.record is not None
    assert x.record.reason == "upstream_invalid"
    x.down(H2C, "h2c://10.1.0.2:9000")
    assert x.get("/").status == 502


def test_an_answer_that_is_cut() -> None:
    x = Exchange(Proxy(Cluster(PLAIN)), http2=True).start("GET", "/")
    x.upstream.begin(200, length=9)
    x.upstream.send(b"abc")
    x.upstream.reset()
    assert (x.response.status, x.response.body, x.response.complete) == (200, b"abc", False)
    assert x.connected
    client = x._client
    x.start("GET", "/again")
    with pytest.raises(AssertionError, match="10.1.0.1:9000 has not answered"):
        _ = x.response
    x.upstream.reply(200, b"hi")
    assert x.response.body == b"hi"
    assert x._client is client
    assert x.response.why == ""


@pytest.mark.parametrize("cause", ["refused", "goaway"])
def test_a_request_that_is_ended_without_an_answer(cause: str) -> None:
    x = Exchange(Proxy(Cluster(PLAIN)), http2=True).start("GET", "/")
    assert x._client is not None
    if cause == "refused":
        x._client.received(b"\0\0\4\3\0\0\0\0\1" + b"\0\0\0\7")
        says = "not its connection .RST_STREAM, REFUSED_STREAM"
    else:
        x._client.received(b"\0\0\x08\7\0\0\0\0\0" + bytes(4) + b"\0\0\0\x63")
        says = "not its connection .GOAWAY, 99"
    client = x._client
    with pytest.raises(AssertionError, match=says):
        _ = x.response
    x.start("GET", "/again")
    assert (x._client is client) == (cause == "refused")
    x.upstream.reply(200, b"hi")
    assert x.response.body == b"hi"


def test_a_drain_lets_the_answer_come() -> None:
    x = Exchange(Proxy(Cluster(H2C)), http2=True).start("GET", "/").drain(5)
    x.advance(seconds=1)
    with pytest.raises(AssertionError, match="10.1.0.1:9000 has not answered"):
        _ = x.response
    x.upstream.begin(200)
    x.upstream.send(b"ab")
    x.upstream.end()
    assert (x.response.body, x.response.complete) == (b"ab", True)
    x.advance(seconds=1)
    assert not x.connected
    assert not any(x.left.values())


def test_time_limits_cost_no_time() -> None:
    config = Config(timeouts=Timeouts(answer_timeout_s=3600))
    x = Exchange(Proxy(Cluster(H2C), config=config), http2=True).start("GET", "/")
    x.advance(3601)
    assert x.response.status == 504


@pytest.mark.parametrize(
    ("prepare", "ask", "says"),
    [
        (lambda x: x.start(), lambda x: x.response, "10.1.0.1:9000 has not answered; use x.upstream.reply"),
        (lambda x: x.start().leave(), lambda x: x.response, "the client's connection is closed"),
        (lambda x: (x.start(), x.upstream.reply(204)), lambda x: x.upstream, "the client has its answer, <Answer 204"),
        (lambda x: (x.start(), x.upstream.reply(204)), lambda x: x.upstreams[0].reply(), "has no request to answer"),
        (lambda x: (x.start(), x.upstream.reply(204)), lambda x: x.upstreams[0].end(), "was ended already"),
        (lambda x: (x.start(), x.upstream.reply(204)), lambda x: x.end(), "was ended already"),
        (lambda x: x.start("POST", more=True), lambda x: x.start(), "the request before is not answered yet"),
        (lambda x: x.send_raw(b"\xff" * 9).advance(1), lambda x: x.response, "the client's connection is closed"),
        (lambda x: x._connect().received(b"HTTP/1.1 "), lambda x: x.response, "what the client got is not HTTP: no fr"),
        (lambda x: x._connect().received(bytes(9)), lambda x: x.response, "what the client got is not HTTP: "),
    ],
)
def test_what_is_not_there_is_said_in_words(prepare: object, ask: object, says: str) -> None:
    x = Exchange(Proxy(Cluster(H2C)), http2=True)
    prepare(x)  # type: ignore[operator]
    with pytest.raises(AssertionError, match=says):
        ask(x)  # type: ignore[operator]


def test_a_client_that_half_closes_gets_its_answer() -> None:
    x = Exchange(Proxy(Cluster(H2C)), http2=True).start("GET", "/").half_close()
    x.upstream.reply(200, b"hi")
    assert x.response.body == b"hi"
