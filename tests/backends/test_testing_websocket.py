"""What users test their message filters with: both ends of a WebSocket, and what is said where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coulee.backends.weather import Weather
from coulee.core import Config, Filter, Message, Proxy, Response, Security, Timeouts, respond, sleep
from coulee.core.exchange import Exchange as CoreExchange
from coulee.core.websocket import Outcome
from coulee.lb import Cluster
from coulee.testing import End, Exchange, WebSocket

FRAGMENT, TEXT = 0, 1
TLS = Security("TLSv1.3", "AES", "http/1.1")


def proxy(*filters: Filter, config: Config | None = None) -> Proxy:
    return Proxy(Cluster("http://10.1.0.1:9000", "http://10.1.0.2:9000"), filters, config)


class Nothing(Filter):
    """Sees messages, and changes none."""

    def websocket_message(self, exchange: CoreExchange, message: Message) -> None:
        return None


@pytest.fixture(params=["passed through", "filtered"])
def plain(request: pytest.FixtureRequest) -> Proxy:
    """What changes nothing, in either way."""
    return proxy(Nothing()) if request.param == "filtered" else proxy()


def test_the_headline(plain: Proxy) -> None:
    with WebSocket(plain, "/chat") as ws:
        assert ws.is_open
        assert ws.upstream.request.target == "/chat"
        ws.client.send("hello")
        assert ws.origin.receive() == "hello"
        ws.origin.send(b"\x00\xff").client.send("")
        assert ws.client.messages == [b"\x00\xff"]
        assert (ws.client.receive(), ws.origin.receive()) == (b"\x00\xff", "")
        assert ws.client.messages == []
        ws.client.close(4000, "done")
        assert ws.origin.closed == ws.client.closed == (4000, "done")
        assert not ws.is_open
    assert ws.record is not None
    assert (ws.record.reason, ws.record.status, ws.now) == ("", 101, 0.0)
    assert ws.left["connections"] == 0


def test_the_end_of_the_context_is_the_end_of_it(plain: Proxy) -> None:
    with WebSocket(plain) as ws:
        ws.origin.send("unread")
        assert ws.record is None
    assert ws.origin.closed == (1000, "")
    assert ws.record is not None
    with pytest.raises(RuntimeError, match="of the test's own"), WebSocket(plain) as ws:
        raise RuntimeError("of the test's own")
    assert ws.is_open


def test_either_end_may_close(plain: Proxy) -> None:
    with WebSocket(plain) as ws:
        ws.origin.close(1005)
        assert ws.client.closed == (1005, "")
        assert (ws.client.is_over, ws.origin.is_over, ws.client.error) == (True, True, "")
    assert ws.record is not None
    assert ws.record.reason == ""


def test_what_is_answered_by_itself_and_what_is_not(plain: Proxy) -> None:
    ws = WebSocket(plain)
    ws.client.ping(b"a")
    assert (ws.origin.pings, ws.client.pongs) == ([b"a"], [b"a"])
    ws.origin.answers = False
    ws.client.ping(b"b").client.close()
    assert (ws.origin.pings, ws.client.pongs, ws.client.closed) == ([b"a", b"b"], [b"a"], None)
    ws.origin.pong(b"b").origin.close(1000)
    assert ws.client.pongs == [b"a", b"b"]
    assert ws.client.closed == (1000, "")
    ws.origin.end()
    assert ws.record is not None
    assert ws.record.reason == ""


def test_fragments_and_what_comes_between_them() -> None:
    for through, frames in ((proxy(), 4), (proxy(Nothing()), 2)):
        ws = WebSocket(through)
        ws.client.send_frame(TEXT, b"hel", fin=False).client.ping(b"!")
        assert (ws.origin.pings, ws.origin.messages) == ([b"!"], [])
        ws.client.send_frame(FRAGMENT, b"", fin=False).client.send_frame(FRAGMENT, b"lo")
        assert ws.origin.receive() == "hello"
        assert ws.origin.frames == frames
        ws.origin.send("a longer one", fragments=3)
        assert ws.client.receive() == "a longer one"


def test_a_filter_is_called_for_each_message() -> None:
    class Shout(Filter):
        async def websocket_message(self, exchange: CoreExchange, message: Message) -> Outcome:
            await sleep(1.0)
            return message.reply("no") if message.data == "quietly" else f"{message.sender}: {message.data!s}!"

    with WebSocket(proxy(Shout())) as ws:
        ws.client.send("hello")
        with pytest.raises(AssertionError, match=r"has sent none, or a filter keeps it; let time pass with advance"):
            ws.origin.receive()
        ws.advance(seconds=1.0).origin.send("hi").advance(seconds=1.0)
        assert (ws.origin.receive(), ws.client.receive()) == ("downstream: hello!", "upstream: hi!")
        ws.client.send("quietly").advance(seconds=1.0)
        assert (ws.client.receive(), ws.origin.messages) == ("no", [])


def test_bad_frames() -> None:
    passed = WebSocket(proxy())
    passed.client.send_frame(TEXT, b"x", rsv=2)
    assert passed.origin.broken == "reserved bits: 010"
    with pytest.raises(AssertionError, match="what came to the origin is no WebSocket: reserved bits: 010"):
        passed.origin.receive()
    with pytest.raises(AssertionError, match="no WebSocket: reserved"):
        passed.__exit__(None, None, None)
    cases: list[tuple[Callable[[End], object], int]] = [
        (lambda end: end.send_frame(TEXT, b"x", rsv=2), 1002),
        (lambda end: end.send_frame(TEXT, b"x", masked=end.name == "origin"), 1002),
        (lambda end: end.send_frame(TEXT, b"\xff"), 1007),
        (lambda end: end.send_raw(b"\xff\xff\xff"), 1002),
    ]
    for say, code in cases:
        ws = WebSocket(proxy(Nothing()))
        say(ws.client)
        assert ws.client.closed is not None
        assert ws.client.closed[0] == code
        assert ws.origin.closed == (1001, "")
        assert ws.record is not None
        assert ws.record.reason == "websocket_error"


def test_ends_without_a_close_frame(plain: Proxy) -> None:
    ws = WebSocket(plain)
    ws.client.end()
    assert (ws.origin.ended, ws.client.ended, ws.origin.error) == (True, True, "")
    assert ws.record is not None
    assert ws.record.reason == ""
    ws = WebSocket(plain)
    ws.origin.reset()
    assert (ws.client.is_over, ws.client.error, ws.client.ended) == (True, "reset", False)
    with pytest.raises(AssertionError, match=r"no message has come to the client: its connection is at an end \(reset"):
        ws.client.receive()


def test_an_end_that_is_half_open_goes_on(plain: Proxy) -> None:
    ws = WebSocket(plain)
    ws.origin.answers = False
    ws.client.end()
    ws.origin.send("still here")
    assert ws.client.receive() == "still here"
    with pytest.raises(AssertionError, match="the client has said that nothing follows"):
        ws.client.send("x")


def test_what_is_asked_for_and_agreed(plain: Proxy) -> None:
    ws = WebSocket(plain, headers={"X-Key": "k"}, protocols=("chat.v2", "chat.v1"))
    assert ws.upstream.request.headers["X-Key"] == "k"
    assert ws.response.status == 101
    assert ws.response.headers["Sec-WebSocket-Protocol"] == "chat.v2"
    ws = WebSocket(plain, protocols=("a", "b"), accepts=False)
    assert not ws.is_open
    with pytest.raises(AssertionError, match=r"the client has no WebSocket: 10\.1\.0\.1:9000 has not answered"):
        ws.client.send("x")
    with pytest.raises(AssertionError, match="the origin has no WebSocket: 10"):
        ws.origin.send("x")
    with pytest.raises(AssertionError, match=r"no message has come to the client: 10\.1\.0\.1:9000 has not answered"):
        ws.client.receive()
    ws.accept("b", headers={"X-B": "c"}).client.send("x")
    assert (ws.response.headers["Sec-WebSocket-Protocol"], ws.response.headers["X-B"]) == ("b", "c")
    assert ws.origin.receive() == "x"


def test_a_client_that_speaks_before_it_is_answered(plain: Proxy) -> None:
    ws = WebSocket(plain, accepts=False)
    ws._connection.write(b"\x81\x82\0\0\0\0hi\x89\x80\0\0\0\0")
    ws.accept()
    assert ws.origin.receive() == "hi"
    assert ws.client.pongs == [b""]


def test_who_is_refused() -> None:
    ws = WebSocket(proxy(), accepts=False)
    ws.upstream.reply(403, b"no")
    assert (ws.response.status, ws.response.body, ws.is_open) == (403, b"no", False)
    with pytest.raises(AssertionError, match=r"the client has no WebSocket: the client has its answer, <Answer 403"):
        ws.client.send("x")

    class Deny(Filter):
        def request_filter(self, exchange: CoreExchange) -> Response:
            return respond(401)

    assert WebSocket(proxy(Deny())).response.status == 401


def test_an_origin_agrees_whenever_it_is_asked() -> None:
    class Wait(Filter):
        async def request_filter(self, exchange: CoreExchange) -> None:
            await sleep(5.0)

    ws = WebSocket(proxy(Wait()))
    assert not ws.is_open
    assert ws.advance(seconds=5.0).is_open


@pytest.mark.parametrize("filtered", [False, True])
def test_compression(filtered: bool) -> None:
    ws = WebSocket(proxy(*[Nothing()] * filtered), deflate=True)
    agreed = ws.response.headers.get("sec-websocket-extensions")
    for _ in range(2):
        ws.client.send("a" * 1000, fragments=2).origin.send(b"b" * 1000)
        assert (ws.origin.receive(), ws.client.receive()) == ("a" * 1000, b"b" * 1000)
    ws.client.close()
    assert ws.record is not None
    if agreed:
        assert ws.record.bytes_in < 200
    if not filtered:
        assert agreed == "permessage-deflate"
    with WebSocket(proxy()) as plain:
        plain.client.send("a" * 1000)
        assert plain.upstream.request.headers.get("sec-websocket-extensions") is None
        assert len(str(plain.origin.receive())) == 1000


def test_time_limits_and_drains() -> None:
    short = Config(timeouts=Timeouts(upgraded_idle_timeout_s=60.0))
    ws = WebSocket(proxy(config=short))
    ws.advance(seconds=61.0)
    assert ws.record is not None
    assert (ws.record.reason, ws.client.error, ws.origin.error) == ("idle_timeout", "reset", "reset")
    ws = WebSocket(proxy(Nothing()))
    ws.drain(30.0).advance(seconds=2.1)
    assert ws.client.closed == ws.origin.closed == (1001, "")
    ws = WebSocket(proxy())
    ws.drain(30.0).advance(seconds=29.0)
    assert ws.is_open
    ws.advance(seconds=2.0)
    assert ws.client.error == "reset"


@pytest.mark.parametrize("url", ["http://o", "https://o"])
@pytest.mark.parametrize("security", [None, TLS])
def test_by_tls(url: str, security: Security | None) -> None:
    with WebSocket(Proxy(Cluster(url), [Nothing()]), security=security, server_name="a.test") as ws:
        ws.client.send("x").origin.send("y")
        assert (ws.origin.receive(), ws.client.receive()) == ("x", "y")
    assert ws.record is not None
    assert ws.record.security == security


def test_the_weather_changes_nothing_but_the_time(plain: Proxy) -> None:
    def run(split: float) -> tuple[Any, ...]:
        ws = WebSocket(plain, weather=Weather(split=split), seed=5)
        ws.advance(seconds=1.0)
        for size in (0, 125, 126, 65_535, 65_536):
            ws.client.send("é" * (size // 2), fragments=3).origin.send(bytes(size))
        ws.advance(seconds=5.0).client.close(3000, "x").advance(seconds=1.0)
        return ws.origin.messages, ws.client.messages, ws.client.closed, ws.origin.closed

    assert run(0.0) == run(1.0)
    assert run(0.0)[2] == (3000, "x")


def test_an_upgrade_may_be_played_by_its_bytes() -> None:
    x = Exchange(proxy()).start(upgrade="websocket")
    assert x.upstream.request.upgrade == "websocket"
    x.upstream.begin(101, headers={"Connection": "upgrade", "Upgrade": "websocket"})
    assert x.response.status == 101
    x.send(b"up").upstream.send(b"down")
    assert (x.upstream.request.body, x.response.body) == (b"up", b"down")
    x.half_close()
    assert x.record is not None
    assert (x.record.bytes_in, x.record.bytes_out, x.record.reason) == (2, 4, "")


def _whereabouts(prepare: Callable[[WebSocket], object]) -> str:
    ws = WebSocket(proxy())
    prepare(ws)
    with pytest.raises(AssertionError) as caught:
        ws.client.receive()
    return str(caught.value)


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda ws: None, "has sent none, or a filter"),
        (lambda ws: ws.origin.close(1000), "it was closed with (1000, '')"),
        (lambda ws: ws.origin.end(), "at an end (in order)"),
        (lambda ws: ws.client.reset(), "at an end (in order)"),
    ],
)
def test_what_is_not_there_is_said_in_words(prepare: Callable[[WebSocket], object], says: str) -> None:
    assert says in _whereabouts(prepare)


def test_ends_are_what_they_are_called() -> None:
    ws = WebSocket(proxy())
    assert isinstance(ws.client, End)
    assert (ws.client.name, ws.origin.name) == ("client", "origin")
