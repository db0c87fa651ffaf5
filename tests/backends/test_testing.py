"""What users test their filters with: each call, what it shows, and what it says where there is nothing to show."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from coulee.backends.weather import Weather
from coulee.core import (
    Config,
    Filter,
    PeerCertificate,
    Proxy,
    Request,
    Response,
    Security,
    Timeouts,
    Transport,
    blocking,
    respond,
    sleep,
)
from coulee.core.exchange import Exchange as CoreExchange
from coulee.lb import Cluster
from coulee.testing import Exchange

ONE = "http://10.1.0.1:9000"
TWO = "http://10.1.0.2:9000"


def proxy(*filters: Filter, config: Config | None = None) -> Proxy:
    return Proxy(Cluster(ONE, TWO), filters, config)


def on(phase: str, function: object) -> Filter:
    hook = Filter()
    setattr(hook, phase, function)
    return hook


def test_the_headline() -> None:
    x = Exchange(proxy()).start("GET", "/a", headers={"x-api-key": "s3cret"})
    x.upstream.reset()
    x.advance(seconds=0.1)
    x.upstream.reply(200, body=b"hi")
    assert x.response.status == 200
    assert x.response.body == b"hi"
    assert x.attempts == 2
    assert x.now == 0.1


def test_what_the_origin_sees_and_what_the_client_gets() -> None:
    x = Exchange(proxy(), client="192.0.2.7").start("PUT", "/a?b", headers={"X-Case": "Kept"}, body=b"hello")
    request = x.upstream.request
    assert (request.method, request.target, request.body, request.complete) == ("PUT", "/a?b", b"hello", True)
    assert request.headers["X-Forwarded-For"] == "192.0.2.7"
    assert ("X-Case", "Kept") in list(request.headers)
    x.upstream.interim(103, headers={"Link": "</a>"})
    x.upstream.reply(json={"ok": True}, headers={"X-B": "c"})
    assert x.response.complete
    assert (x.response.status, x.response.reason, x.response.body) == (200, "OK", b'{"ok": true}')
    assert x.response.headers["x-b"] == "c"
    assert [(status, headers["link"]) for status, headers in x.interims] == [(103, "</a>")]
    assert x.record is not None
    assert (x.record.status, x.record.bytes_in) == (200, 5)


def test_bodies_in_pieces_both_ways_with_trailers() -> None:
    x = Exchange(proxy()).start("POST", "/", more=True)
    x.send(b"ab")
    assert (x.upstream.request.body, x.upstream.request.complete) == (b"ab", False)
    x.upstream.begin(200)
    assert x.answered
    assert not x.response.complete
    assert repr(x.response) == "<Answer 200 b'' so far>"
    x.upstream.send(b"xy")
    x.send(b"cd").end(trailers={"T": "up"})
    assert x.upstream.request.trailers["t"] == "up"
    x.upstream.end(trailers={"T": "down"})
    assert (x.response.body, x.response.trailers["t"], x.response.complete) == (b"xy", "down", True)
    x.start("GET", "/again")
    x.upstream.begin(200, length=3)
    x.upstream.send(b"abc")
    x.upstream.end()
    assert x.response.body == b"abc"
    assert (x.connected, len(x.records)) == (True, 2)


def test_an_origin_by_rule() -> None:
    def origin(request: Request) -> Response:
        return respond(200, f"{request.method} {request.target} {request.authority} {request.data.decode()}")

    x = Exchange(proxy(), origin=origin)
    assert x.get("/a").body == b"GET /a example.com "
    assert x.post("/b", b"body").body == b"POST /b example.com body"
    assert x.start("HEAD", "/c").response.body == b""
    assert [record.target for record in x.records] == ["/a", "/b", "/c"]
    assert x.connected


def test_endpoints_that_are_down() -> None:
    x = Exchange(proxy(), origin=lambda request: respond(200)).down(ONE)
    assert x.get("/").status == 200
    assert x.attempts == 2
    x.down("10.1.0.2:9000")
    x.upstreams[0].close()
    assert x.get("/").status == 502
    assert x.response.why == "upstream_refused: connection refused"
    assert repr(x.response).startswith("<Answer 502 (upstream_refused: connection refused) b'{")
    x.up(ONE, TWO)
    assert x.get("/").status == 200


def test_origins_that_misbehave() -> None:
    x = Exchange(proxy()).start("GET", "/")
    x.upstream.send_raw(b"garbage\r\n\r\n")
    assert x.response.status == 502
    assert x.record is not None
    assert x.record.reason == "upstream_invalid"
    x.start("GET", "/")
    x.upstream.reply(200, close=True)
    assert x.upstreams[-1].is_closed
    x.start("POST", "/", body=b"x")
    x.upstream.close()
    assert x.response.status == 502


def test_clients_that_misbehave() -> None:
    x = Exchange(proxy()).send_raw(b"GET / HTTP/1.1\r\n\r\n")
    assert x.response.status == 400
    assert not x.connected
    x.send_raw(b"GET / HTTP/1.1\r\nHost: a\r\n").send_raw(b"\r\n")
    assert x.upstream.request.target == "/"
    x.half_close()
    x.upstream.reply(204)
    assert x.response.status == 204


PHASES = (
    "early_request_filter", "request_filter", "upstream_peer", "connected_to_upstream", "upstream_request_filter",
    "request_body_filter", "upstream_response_filter", "response_filter", "upstream_response_body_filter",
    "response_body_filter", "fail_to_connect", "error_while_proxy", "fail_to_proxy", "request_trailer_filter",
    "response_trailer_filter",
)  # fmt: skip


@pytest.mark.parametrize("phase", PHASES)
def test_a_client_that_leaves_cancels_what_its_exchange_waits_for(phase: str) -> None:
    """In the simulator, within the tick: no time passes between its leaving and the end of everything of it."""
    cancelled: list[float] = []

    async def wait(*_: object) -> None:
        try:
            await sleep(1e6)
        finally:
            cancelled.append(x.now)

    x = Exchange(proxy(on(phase, wait)))
    if phase in ("fail_to_connect", "fail_to_proxy"):
        x.down(ONE, TWO)
    if phase == "request_trailer_filter":
        x.start("POST", "/", more=True).end(trailers={"T": "1"})
    else:
        x.start("POST" if "request_body" in phase else "GET", "/", body=b"x" if "request_body" in phase else None)
    if phase == "response_trailer_filter":
        x.upstream.begin(200)
        x.upstream.end(trailers={"T": "1"})
    elif "response" in phase:
        x.upstream.reply(200, b"hi")
    elif phase == "error_while_proxy":
        x.upstream.reset()
    x.advance(3.0)
    assert cancelled == []
    x.leave()
    assert cancelled == [3.0]
    assert (len(x.records), x.left["tasks"], x.left["jobs"]) == (1, 0, 0)
    assert x.left["alarms"] <= 1, "none but that of an upstream connection which lies idle"


@pytest.mark.parametrize("moment", ["connecting", "asked", "sending", "answering"])
def test_a_client_that_leaves_ends_its_upstream_stream(moment: str) -> None:
    slow = Weather(latency_s=(0.0, 0.0), connect_s=(1.0, 1.0), job_s=(0.0, 0.0))
    x = Exchange(proxy(), weather=slow if moment == "connecting" else Weather(latency_s=(0.0, 0.0)))
    if moment == "connecting":
        x._world.flush = lambda limit_s=60.0: None  # type: ignore[method-assign] # so that the connect stays under way
        x.start("GET", "/")
        x.advance(1.5)
        assert x.left["connections"] == 2
    elif moment == "sending":
        x.start("POST", "/", more=True).send(b"abc")
    else:
        x.start("GET", "/")
    if moment == "answering":
        x.upstream.begin(200, length=10)
        x.upstream.send(b"abc")
    x.leave()
    assert x.left["connections"] == 0
    assert x.records[0].reason == "client_gone"


def test_jobs_run_and_drains_end() -> None:
    async def ask(exchange: CoreExchange) -> Response:
        return respond(200, str(await blocking(sum, [1, 2])))

    x = Exchange(proxy(on("request_filter", ask)))
    assert x.get("/").body == b"3"
    x.drain(5)
    x.advance(seconds=0.1)
    assert not x.connected
    assert [event.name for event in x.events] == ["listening", "draining"]
    assert not any(x.left.values())


def test_time_limits_cost_no_time() -> None:
    x = Exchange(proxy(config=Config(timeouts=Timeouts(answer_timeout_s=3600)))).start("GET", "/")
    x.advance(3601)
    assert x.response.status == 504
    assert x.now == 3601


def test_the_same_seed_is_the_same_world() -> None:
    def run(seed: int) -> str:
        x = Exchange(
            proxy(), seed=seed, weather=Weather.swarm(Random(seed)), origin=lambda request: respond(200, "a" * 9999)
        )
        for _ in range(5):
            x.start("GET", "/").advance(1)
        x.advance(100)
        return x._world.trace_hash

    assert run(3) == run(3)
    assert run(3) != run(4)


@pytest.mark.parametrize(
    ("prepare", "ask", "says"),
    [
        (lambda x: x, lambda x: x.response, "nothing was asked for yet"),
        (lambda x: x, lambda x: x.upstream, "nothing was asked for"),
        (lambda x: x.start(), lambda x: x.response, "10.1.0.1:9000 has not answered; use x.upstream.reply"),
        (lambda x: x.start("GET", "/wait"), lambda x: x.response, "let time pass with x.advance"),
        (lambda x: x.start("GET", "/wait"), lambda x: x.upstream, "no origin has a request to answer"),
        (lambda x: x.start().leave(), lambda x: x.response, "the client's connection is closed"),
        (lambda x: (x.start(), x.upstream.reply(204)), lambda x: x.upstream, "the client has its answer, <Answer 204"),
        (lambda x: (x.start(), x.upstream.reply(204)), lambda x: x.upstreams[0].reply(), "has no request to answer"),
        (lambda x: x.start("POST", more=True), lambda x: x.start(), "the request before is not answered yet"),
    ],
)
def test_what_is_not_there_is_said_in_words(prepare: object, ask: object, says: str) -> None:
    async def wait(exchange: CoreExchange) -> None:
        if exchange.request.path == "/wait":
            await sleep(10)

    x = Exchange(proxy(on("request_filter", wait)))
    prepare(x)  # type: ignore[operator]
    with pytest.raises(AssertionError, match=says):
        ask(x)  # type: ignore[operator]


def test_an_answer_that_is_not_http_is_said_so() -> None:
    x = Exchange(proxy()).start("GET", "/")
    assert x._client is not None
    x._client.received(b"\x00\x01\x02\r\n\r\n")
    with pytest.raises(AssertionError, match="what the client got is not HTTP"):
        _ = x.response


def test_an_upstream_that_was_asked_nothing() -> None:
    x = Exchange(proxy()).start("GET", "/")
    x.upstreams[0].requests.clear()
    with pytest.raises(AssertionError, match=r"no request has come to 10\.1\.0\.1:9000"):
        _ = x.upstreams[0].request


# --------------------------------------------------------------------------------------------------------------- TLS


class Who(Filter):
    """Tells who the client is."""

    def request_filter(self, exchange: CoreExchange) -> None:
        security = exchange.security
        shown = security.certificate if security is not None else None
        exchange.tags["who"] = shown.subject if shown is not None else ""
        exchange.request.headers.set(
            "X-Who", f"{exchange.request.scheme} {exchange.server_name} {exchange.tags['who']}"
        )


ALICE = PeerCertificate("CN=alice", "CN=ca", ("DNS:alice.test",), "00ff", "1", 4e9)


def test_a_client_may_come_by_tls() -> None:
    security = Security("TLSv1.3", "AES", "http/1.1", False, ALICE)
    x = Exchange(Proxy(Cluster("http://o"), [Who()]), security=security, server_name="a.test")
    for _ in range(2):
        x.start("GET", "/", headers={"Host": "anything"})
        assert x.upstream.request.headers.get("x-who") == "https a.test CN=alice"
        assert x.upstream.request.headers.get("x-forwarded-proto") == "https"
        x.upstream.reply(200, b"hi")
        assert x.response.body == b"hi"
    assert x.records[-1].security == security
    assert x.records[-1].server_name == "a.test"


@pytest.mark.parametrize("proxy_protocol", [0, 1, 2])
@pytest.mark.parametrize("url", ["http://o", "https://o"])
def test_origins_may_have_tls_and_be_told_who_comes(url: str, proxy_protocol: Any) -> None:
    cluster = Cluster(url, transport=Transport(proxy_protocol=proxy_protocol))
    x = Exchange(Proxy(cluster), origin=lambda request: respond(200, request.target))
    assert x.get("/a").body == b"/a"
    assert x.get("/b").body == b"/b"
    assert len(x.upstreams) == 1


@pytest.mark.parametrize("split", [0.0, 1.0])
@pytest.mark.parametrize("proxy_protocol", [0, 1, 2])
@pytest.mark.parametrize("url", ["http://a.test", "https://a.test"])
def test_what_an_origin_is_told_before_http_is_seen(url: str, proxy_protocol: Any, split: float) -> None:
    cluster = Cluster(url, transport=Transport(proxy_protocol=proxy_protocol))
    x = Exchange(Proxy(cluster), client="192.0.2.7", weather=Weather(split=split), seed=3)
    x.start("POST", "/a", body=b"hello").advance(seconds=1.0)
    assert x.upstream.request.body == b"hello"
    assert x.upstream.server_name == ("a.test" if url.startswith("https") else "")
    header = x.upstream.proxy_header
    assert (header is not None) == bool(proxy_protocol)
    if header is not None:
        assert header.version == proxy_protocol
        assert header.source is not None
        assert header.source[0] == "192.0.2.7"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "PROPFIND", "PROXY"])
def test_a_method_that_begins_like_a_header_of_the_proxy_protocol(method: str) -> None:
    x = Exchange(Proxy(Cluster("http://a.test")), weather=Weather(split=1.0))
    x.start(method, "/a").advance(seconds=1.0)
    assert x.upstream.request.method == method
    assert x.upstream.proxy_header is None
