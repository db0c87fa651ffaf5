"""Upgrades as packet traces, on both codecs: who may ask, what is a 101, and bytes both ways behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from coulee.core import (
    Config,
    Exchange,
    Filter,
    Forwarding,
    Limits,
    Proxy,
    Request,
    Response,
    Retry,
    Timeouts,
    fetch,
    respond,
    sleep,
)
from coulee.core.codec import PAUSED, ProtocolError
from coulee.core.headers import Headers
from coulee.core.http1 import Http1Codec
from coulee.core.http1_h11 import H11Codec
from coulee.core.parts import Data
from coulee.core.seam import Blocked, Close, Closed, Drain, Hold, Receive, Send, Sent
from coulee.lb import Cluster
from tests.core.world import LISTENER, World

PLAIN = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False))
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
ASK = b"GET /chat HTTP/1.1\r\nHost: a\r\n" + KEY + b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
ASKED = b"GET /chat HTTP/1.1\r\nHost: a\r\n" + KEY + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nDate: now\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nDate: now\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
)
OK = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nhi"
SECRET = b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n"

_used: list[Literal["own", "h11"]] = []


@pytest.fixture(autouse=True, params=["own", "h11"])
def codec_name(request: pytest.FixtureRequest) -> Literal["own", "h11"]:
    """Every test is one of both codecs."""
    chosen: Literal["own", "h11"] = request.param
    _used[:] = [chosen]
    return chosen


def make(*filters: Filter, config: Config = PLAIN, to: tuple[str, ...] = ("http://10.0.0.1",)) -> World:
    config = replace(config, http1_codec=_used[0])
    proxy = Proxy(Cluster(*to), filters, config).fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER])
    return World(proxy)


def on(phase: str, function: Callable[..., Any]) -> Filter:
    """A filter of one phase."""
    hook = Filter()
    setattr(hook, phase, function)
    return hook


def asked(world: World, request: bytes = ASK) -> tuple[int, int]:
    """A client has asked, and the origin has heard it."""
    client = world.client()
    world.receives(client, request)
    return client, world.connects()


def upgraded(world: World) -> tuple[int, int]:
    """A client and an origin behind their 101."""
    client, origin = asked(world)
    world.receives(origin, SWITCH)
    assert world.sent(origin) == ASKED
    assert world.sent(client) == SWITCHED
    return client, origin


# -------------------------------------------------------------------------------------------------------- asking


def test_the_way_through() -> None:
    world = make()
    client, origin = asked(world)
    assert world.sent(origin) == ASKED
    world.receives(origin, SWITCH)
    assert world.sent(client) == SWITCHED
    assert world.receives(client, b"\x81\x85ping?") == [Send(origin, b"\x81\x85ping?")]
    assert world.receives(origin, b"\x81\x05pong!") == [Send(client, b"\x81\x05pong!")]
    assert world.receives(origin, b"HTTP/1.1 200 OK\r\n\r\n") == [Send(client, b"HTTP/1.1 200 OK\r\n\r\n")]
    assert world.receives(client, SECRET) == [Send(origin, SECRET)], "nothing is HTTP any more"
    assert not world.access, "it is not over"
    world.receives(client, b"")
    world.receives(origin, b"")
    (record,) = world.access
    assert (record.status, record.reason, record.method, record.target) == (101, "", "GET", "/chat")
    assert (record.bytes_in, record.bytes_out) == (7 + len(SECRET), 7 + 19)
    assert [attempt.reason for attempt in record.attempts] == [""]
    assert world.closing == {client: False, origin: False}, "neither is used again"
    world.leaves_nothing()


@pytest.mark.parametrize(
    "request_head",
    [
        ASK.replace(b"Upgrade: websocket", b"Upgrade: WebSocket"),
        ASK.replace(b"keep-alive, Upgrade", b"UPGRADE"),
        ASK.replace(b"Connection: keep-alive, Upgrade", b"Connection: upgrade\r\nConnection: keep-alive"),
        ASK.replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_how_it_may_be_asked_for(request_head: bytes) -> None:
    world = make()
    _, origin = asked(world, request_head)
    asking = world.sent(origin).lower()
    assert asking.endswith(b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
    assert asking.count(b"upgrade:") == asking.count(b"connection:") == 1


@pytest.mark.parametrize(
    "request_head",
    [
        ASK.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        ASK.replace(b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
        ASK.replace(b"Upgrade: websocket", b"Upgrade: websocket\r\nUpgrade: websocket"),
        ASK.replace(b"Upgrade: websocket", b"Upgrade:"),
        ASK.replace(b"Upgrade: websocket", b"X: y"),
        ASK.replace(b"keep-alive, Upgrade", b"keep-alive"),
        ASK.replace(b"keep-alive, Upgrade", b"sec-x, upgrade-insecure-requests"),
        ASK.replace(b"Connection: keep-alive, Upgrade\r\n", b""),
        ASK.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"),
        ASK.replace(b"GET", b"HEAD"),
        ASK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ASK.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\nhi"),
        ASK.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ],
)
def test_what_does_not_ask_is_an_ordinary_request(request_head: bytes) -> None:
    world = make()
    client, origin = asked(world, request_head)
    sent = world.sent(origin).lower()
    assert b"\r\nupgrade:" not in sent
    assert b"\r\nconnection:" not in sent
    world.receives(origin, OK.removesuffix(b"hi") if request_head.startswith(b"HEAD") else OK)
    assert b"Connection: close" not in world.sent(client) or b"HTTP/1.0" in request_head
    if b"HTTP/1.0" not in request_head:
        world.receives(client, request_head)
        assert world.sent(origin).lower() == sent, "and both connections are of use"


def test_what_may_be_asked_for_is_a_setting() -> None:
    world = make(config=replace(PLAIN, upgrades=("TLS/1.3", "x")))
    _, origin = asked(world, ASK.replace(b"Upgrade: websocket", b"Upgrade: tls/1.3"))
    assert b"\r\nUpgrade: tls/1.3\r\n" in world.sent(origin)
    _, origin = asked(world)
    assert b"Upgrade" not in world.sent(origin)


def test_an_attempt_that_dies_before_the_101_is_followed_by_another() -> None:
    world = make(to=("http://10.0.0.1", "http://10.0.0.2"))
    client, first = asked(world)
    world.receives(client, b"early")
    world.resets(first)
    second = world.connects()
    assert world.sent(second) == ASKED
    world.receives(second, SWITCH)
    assert world.sent(client) == SWITCHED
    assert world.sent(second) == b"early"
    world.resets(second)
    assert not world.connecting, "behind a 101 nothing is tried again"
    assert [attempt.reason for attempt in world.access[0].attempts] == ["upstream_reset", "upstream_reset"]


def test_a_request_with_a_body_can_not_ask_whatever_a_filter_does() -> None:
    world = make(on("upstream_request_filter", lambda exchange, request: setattr(request, "method", "POST")))
    client, _ = asked(world)
    assert b" 500 " in world.sent(client)
    assert world.access[0].reason == "filter_error"


def test_a_filter_may_keep_the_wish_to_itself() -> None:
    world = make(on("upstream_request_filter", lambda exchange, request: setattr(request, "upgrade", "")))
    client, origin = asked(world)
    assert b"pgrade" not in world.sent(origin)
    world.receives(origin, OK)
    assert world.sent(client) == OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


def test_no_filter_writes_a_field_by_way_of_the_protocol() -> None:
    world = make(on("upstream_request_filter", lambda exchange, request: setattr(request, "upgrade", "x\r\nEvil: 1")))
    client, _ = asked(world)
    assert b" 500 " in world.sent(client)
    assert "is no protocol" in world.access[0].detail


def test_the_client_sees_what_it_asked_for_in_the_filters() -> None:
    seen: list[object] = []

    def look(exchange: Exchange) -> None:
        seen.append((exchange.request.upgrade, exchange.request.headers.get("upgrade")))

    asked(make(on("request_filter", look)))
    asked(make(on("request_filter", look)), ASK.replace(b"Upgrade: websocket", b"Upgrade: h2c"))
    assert seen == [("websocket", "websocket"), ("", "h2c")]


# ------------------------------------------------------------------------------------------- answers that are no 101


def test_an_origin_may_answer_otherwise_and_its_connection_is_used_again() -> None:
    world = make()
    client, origin = asked(world)
    world.receives(origin, OK)
    assert world.sent(client) == OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert client in world.eofs
    world.sent(origin)
    other = world.client()
    world.receives(other, SECRET)
    assert world.sent(origin) == SECRET


def test_an_interim_answer_is_none() -> None:
    world = make()
    client, origin = asked(world)
    world.receives(origin, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + SWITCH)
    assert world.sent(client) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + SWITCHED


@pytest.mark.parametrize("late", [False, True])
def test_what_a_client_sent_too_early_is_no_request(late: bool) -> None:
    world = make()
    client, origin = asked(world, ASK if late else ASK + SECRET)
    if late:
        world.receives(client, SECRET)
    assert world.sent(origin) == ASKED, "and not sent before the origin has agreed"
    world.receives(origin, b"HTTP/1.1 426 Upgrade Required\r\nDate: now\r\nContent-Length: 0\r\n\r\n")
    answer = world.sent(client)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in answer
    if not world.closing:
        world.receives(client, SECRET)  # whenever it comes
    assert not world.sent(origin)
    assert not world.sent(client)
    assert len(world.access) == 1
    world.leaves_nothing()


@pytest.mark.parametrize(
    "answer",
    [
        SWITCH.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        SWITCH.replace(b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
        SWITCH.replace(b"Upgrade: websocket", b"Upgrade: websocket\r\nUpgrade: websocket"),
        SWITCH.replace(b"Upgrade: websocket\r\n", b""),
        SWITCH.replace(b"Connection: Upgrade\r\n", b""),
        SWITCH.replace(b"Connection: Upgrade", b"Connection: keep-alive"),
        SWITCH.replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"),
        SWITCH.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
        SWITCH.replace(b"HTTP/1.1", b"HTTP/1.0"),
        SWITCH.replace(b"Date: now", b"Da te: now"),
    ],
)
def test_a_101_that_is_not_what_was_asked_for(answer: bytes) -> None:
    world = make()
    client, origin = asked(world)
    world.receives(origin, answer + b"hello")
    sent = world.sent(client)
    assert sent.startswith(b"HTTP/1.1 502 ")
    assert b"hello" not in sent
    assert b"s3pPLM" not in sent
    assert world.closing[origin] is True
    assert client in world.eofs
    assert (world.access[0].reason, world.access[0].status) == ("upstream_invalid", 502)
    world.leaves_nothing()


@pytest.mark.parametrize(
    "answer",
    [SWITCH.replace(b"websocket", b"WebSocket"), SWITCH.replace(b"Connection: Upgrade", b"Connection: x, UPGRADE")],
)
def test_a_101_may_be_written_otherwise(answer: bytes) -> None:
    world = make()
    client, origin = asked(world)
    world.receives(origin, answer)
    assert world.sent(client).lower().replace(b"s3pplm", b"s3pPLM").startswith(b"http/1.1 101 ")
    assert world.receives(origin, b"x") == [Send(client, b"x")]


def test_a_101_that_nobody_asked_for() -> None:
    for request, answer in (
        (SECRET, SWITCH),
        (SECRET, SWITCH.replace(b"Upgrade: websocket\r\n", b"")),
        (ASK.replace(b"websocket", b"h2c"), SWITCH.replace(b"websocket", b"h2c")),
    ):
        world = make()
        client, origin = asked(world, request)
        world.receives(origin, answer)
        assert world.sent(client).startswith(b"HTTP/1.1 502 ")
        assert world.access[0].reason == "upstream_invalid"


def test_the_second_request_of_an_origins_connection_asks_for_itself() -> None:
    # What the one before it asked for is over.
    world = make()
    _, origin = asked(world)
    world.receives(origin, OK)
    client = world.client()
    world.receives(client, SECRET)
    world.receives(origin, SWITCH)
    assert world.sent(client).startswith(b"HTTP/1.1 502 ")


# ------------------------------------------------------------------------------------------------------- filters


def test_the_head_of_a_101_goes_through_the_filters_and_its_bytes_do_not() -> None:
    class Watch(Filter):
        def upstream_response_filter(self, exchange: Exchange, response: Response) -> None:
            assert (response.status, response.upgrade, response.data) == (101, "websocket", b"")
            response.headers.remove("sec-websocket-accept")

        def response_filter(self, exchange: Exchange, response: Response) -> None:
            response.headers.set("X-Seen", "1")
            response.headers.set("Connection", "close")
            response.headers.set("Content-Length", "9")

        def response_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> bytes:
            raise AssertionError

        upstream_response_body_filter = response_body_filter

        def logging(self, exchange: Exchange) -> None:
            exchange.tags["bytes"] = exchange.bytes_in, exchange.bytes_out

    world = make(Watch())
    client, origin = asked(world)
    world.receives(origin, SWITCH + b"hello")
    sent = world.sent(client)
    assert sent.endswith(b"X-Seen: 1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello")
    assert b"Accept" not in sent
    assert b"Content-Length" not in sent
    world.receives(client, b"abc")
    assert world.sent(origin).endswith(b"\r\n\r\nabc")
    world.receives(client, b"")
    world.receives(origin, b"")
    assert world.access[0].tags == {"bytes": (3, 5)}


@pytest.mark.parametrize("phase", ["upstream_response_filter", "response_filter"])
def test_a_filter_may_answer_instead_of_a_101(phase: str) -> None:
    world = make(on(phase, lambda exchange, response: respond(403, "no")))
    client, origin = asked(world)
    world.receives(origin, SWITCH + b"hello")
    sent = world.sent(client)
    assert sent.startswith(b"HTTP/1.1 403 ")
    assert sent.endswith(b"\r\nConnection: close\r\n\r\nno")
    assert origin in world.closing
    assert client in world.eofs
    assert world.access[0].status == 403
    world.leaves_nothing()


def test_a_filter_may_answer_before_anybody_is_asked() -> None:
    world = make(on("request_filter", lambda exchange: respond(401, "no")))
    client = world.client()
    world.receives(client, ASK + SECRET)
    assert world.sent(client).endswith(b"\r\nConnection: close\r\n\r\nno")
    assert len(world.access) == 1


@pytest.mark.parametrize(("name", "value"), [("status", 200), ("upgrade", "x"), ("upgrade", "")])
def test_a_filter_can_not_make_something_else_of_a_101(name: str, value: object) -> None:
    world = make(on("response_filter", lambda exchange, response: setattr(response, name, value)))
    client, origin = asked(world)
    world.receives(origin, SWITCH)
    assert world.sent(client).startswith(b"HTTP/1.1 500 ")
    assert world.closing[origin] is True
    assert world.access[0].reason == "filter_error"


def test_a_filter_that_says_the_head_is_all_changes_nothing() -> None:
    world = make(on("response_filter", lambda exchange, response: setattr(response, "ended", True)))
    client, origin = upgraded(world)
    assert world.receives(origin, b"x") == [Send(client, b"x")]


def test_a_filter_may_have_the_first_word_behind_the_head() -> None:
    world = make(on("response_filter", lambda exchange, response: setattr(response, "data", b"first")))
    client, origin = asked(world)
    world.receives(origin, SWITCH + b"second")
    assert world.sent(client) == SWITCHED + b"firstsecond"
    world.receives(origin, b"")
    world.receives(client, b"")
    assert world.access[0].bytes_out == 11


@pytest.mark.parametrize("phase", ["request_filter", "response_filter"])
def test_a_101_is_no_answer_that_a_filter_can_give(phase: str) -> None:
    world = make(on(phase, lambda exchange, *rest: respond(101)))
    client = world.client()
    world.receives(client, ASK)
    if phase == "response_filter":
        world.receives(world.connects(), SWITCH)
    assert world.sent(client).startswith(b"HTTP/1.1 500 ")
    assert world.access[0].reason == "filter_error"


def test_bytes_wait_while_a_filter_thinks_about_a_101() -> None:
    async def think(exchange: Exchange, response: Response) -> None:
        await sleep(1.0)

    world = make(on("response_filter", think))
    client, origin = asked(world)
    world.receives(origin, SWITCH + b"a")
    world.receives(origin, b"b")
    world.receives(client, b"c")
    world.sent(origin)
    world.wait(1.0)
    assert world.sent(client) == SWITCHED + b"ab"
    assert world.sent(origin) == b"c"


@pytest.mark.parametrize("answer", [OK, SWITCH])
def test_a_sub_request_never_asks(answer: bytes) -> None:
    async def ask(exchange: Exchange) -> Response:
        got = await fetch(exchange.request)
        assert exchange.request.upgrade == "websocket", "which is the client's wish for all that"
        return respond(got.status)

    world = make(on("request_filter", ask))
    client, origin = asked(world)
    world.receives(origin, answer)
    assert world.sent(client).startswith(b"HTTP/1.1 200 " if answer is OK else b"HTTP/1.1 502 ")


# ---------------------------------------------------------------------------------------------- bytes, and their order


def test_bytes_that_came_with_either_head_are_kept_in_order() -> None:
    world = make()
    client, origin = asked(world, ASK + b"one ")
    world.receives(client, b"two ")
    assert world.sent(origin) == ASKED
    world.receives(origin, SWITCH + b"three ")
    assert world.sent(client) == SWITCHED + b"three "
    assert world.sent(origin) == b"one two "
    world.receives(client, b"four")
    assert world.sent(origin) == b"four"


def test_a_large_piece_is_passed_on_without_being_joined_or_cut() -> None:
    world = make()
    client, origin = upgraded(world)
    large = bytes(300_000)
    for source, sink in ((origin, client), (client, origin)):
        (send,) = world.receives(source, large)
        assert isinstance(send, Send)
        assert send.conn == sink
        assert send.data is large


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(up=st.binary(max_size=60), down=st.binary(max_size=60), data=st.data())
@example(up=b"HTTP/1.1 200 OK\r\n\r\n", down=SECRET, data=None)
def test_any_split_gives_the_same_bytes(up: bytes, down: bytes, data: st.DataObject | None) -> None:
    world = make()
    client = world.client()

    def pieces(whole: bytes) -> list[bytes]:
        cuts = [] if data is None else sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
        return [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)]) if start < end]

    early = data is not None and data.draw(st.booleans())
    for piece in pieces(ASK + (up if early else b"")):
        world.receives(client, piece)
    origin = world.connects()
    for piece in pieces(SWITCH + down):
        world.receives(origin, piece)
    for piece in [] if early else pieces(up):
        world.receives(client, piece)
    world.receives(client, b"")
    world.receives(origin, b"")
    assert world.sent(client) == SWITCHED + down
    assert world.sent(origin) == ASKED + up
    assert (world.access[0].bytes_in, world.access[0].bytes_out) == (len(up), len(down))
    world.leaves_nothing()


# ---------------------------------------------------------------------------------------------------- back-pressure


def small(**timeouts: float) -> Config:
    limits = Limits(buffer_high_bytes=500, buffer_low_bytes=50, head_bytes_max=500)
    return replace(PLAIN, limits=limits, timeouts=Timeouts(**timeouts))


def test_a_side_that_takes_nothing_stops_the_other_one() -> None:
    for turned in (False, True):
        world = make(config=small())
        client, origin = upgraded(world)
        source, sink = (client, origin) if turned else (origin, client)
        world.receives(source, b"a")
        world.gives(Blocked(sink))
        assert world.receives(source, b"b" * 500) == [], "gathered while nothing is taken"
        assert world.receives(source, b"c" * 500) == [], "waits with the pump"
        assert world.receives(source, b"d" * 501) == [Hold(source)]
        world.sent(sink)
        everything = b"b" * 500 + b"c" * 500 + b"d" * 501
        assert world.gives(Sent(sink)) == [Send(sink, everything), Receive(source)]
        assert world.receives(source, b"e") == [Send(sink, b"e")]


def test_what_a_client_sends_too_early_is_bounded() -> None:
    world = make(config=small())
    client, origin = asked(world)
    world.receives(client, b"x" * 501)
    assert not world.reading[client]
    world.sent(origin)
    world.receives(origin, SWITCH)
    assert world.reading[client]
    assert world.sent(origin) == b"x" * 501


def test_a_client_that_takes_nothing_is_cut_off() -> None:
    world = make()
    client, origin = upgraded(world)
    world.receives(origin, b"x")
    world.gives(Blocked(client))
    world.wait(31.0)
    assert world.closing == {client: True, origin: True}
    assert (world.access[0].status, world.access[0].reason) == (101, "send_timeout")
    world.leaves_nothing()


@pytest.mark.parametrize("half_closed", [False, True])
def test_an_origin_that_takes_nothing_is_cut_off(half_closed: bool) -> None:
    world = make()
    client, origin = upgraded(world)
    if half_closed:
        world.receives(origin, b"")  # nobody reads from it any more
    world.receives(client, b"x")
    world.gives(Blocked(origin))
    world.wait(31.0)
    assert world.closing == {client: True, origin: True}
    assert (world.access[0].status, world.access[0].reason) == (101, "upstream_timeout")
    world.leaves_nothing()


# ------------------------------------------------------------------------------------------ the end of each direction


def test_a_half_close_is_passed_on_and_the_other_direction_goes_on() -> None:
    world = make()
    client, origin = upgraded(world)
    assert world.receives(client, b"") == [Send(origin, b"", eof=True)]
    assert world.receives(origin, b"still here") == [Send(client, b"still here")]
    world.wait(120.0)
    assert world.receives(origin, b"and here") == [Send(client, b"and here")]
    assert Close(client) in world.receives(origin, b"")
    assert world.eofs == [origin, client]
    assert (world.access[0].reason, world.access[0].status) == ("", 101)
    world.leaves_nothing()


def test_the_origin_may_half_close_first() -> None:
    world = make()
    client, origin = upgraded(world)
    assert world.receives(origin, b"") == [Send(client, b"", eof=True)]
    assert world.receives(client, b"last words") == [Send(origin, b"last words")]
    world.receives(client, b"")
    assert world.eofs == [client, origin]
    assert world.closing == {client: False, origin: False}
    world.leaves_nothing()


@pytest.mark.parametrize("blocked", [False, True])
def test_a_client_that_half_closes_is_no_client_that_leaves(blocked: bool) -> None:
    world = make(config=replace(PLAIN, cancel_on_half_close=True, limits=Limits(buffer_high_bytes=32 * 1024)))
    client, origin = upgraded(world)
    if blocked:  # so that nobody waits for a part in the moment in which the end comes
        world.receives(client, b"x" * 32_768)
        world.gives(Blocked(origin))
        world.receives(client, b"x" * 32_768)
        world.receives(client, b"x")
    world.receives(client, b"")
    if blocked:
        world.gives(Sent(origin))
    assert world.eofs == [origin]
    assert world.receives(origin, b"still here") == [Send(client, b"still here")]


def test_an_end_that_came_before_the_101_is_passed_on_behind_it() -> None:
    world = make()
    client, origin = asked(world, ASK + b"all")
    world.receives(client, b"")
    world.sent(origin)
    world.receives(origin, SWITCH)
    assert world.sent(origin) == b"all"
    assert world.eofs == [origin]
    world.receives(origin, b"bye")
    world.receives(origin, b"")
    assert world.sent(client) == SWITCHED + b"bye"
    assert (world.access[0].reason, world.closing) == ("", {client: False, origin: False})


def test_an_origin_that_ends_with_its_101() -> None:
    world = make()
    client, origin = asked(world)
    world.receives(origin, SWITCH + b"bye")
    world.receives(origin, b"")
    assert world.sent(client) == SWITCHED + b"bye"
    assert world.eofs == [client]


def test_a_reset_of_the_client_resets_the_origin() -> None:
    for half_closed in (False, True):
        world = make()
        client, origin = upgraded(world)
        if half_closed:
            world.receives(client, b"")
        world.resets(client)
        assert world.closing == {origin: True}
        assert (world.access[0].reason, world.access[0].status) == ("client_gone", 101)
        world.leaves_nothing()


def test_a_reset_of_the_origin_resets_the_client() -> None:
    for half_closed in (False, True):
        world = make()
        client, origin = upgraded(world)
        if half_closed:
            world.receives(origin, b"")
        world.resets(origin)
        assert world.closing == {client: True}, "its end must not look like one in order"
        assert (world.access[0].reason, world.access[0].status) == ("upstream_reset", 101)
        assert world.access[0].attempts[0].reason == "upstream_reset"
        world.leaves_nothing()


def test_the_last_bytes_leave_before_the_end_on_either_side() -> None:
    for turned in (False, True):
        world = make()
        client, origin = upgraded(world)
        source, sink = (client, origin) if turned else (origin, client)
        world.receives(sink, b"")
        world.receives(source, b"a")
        world.gives(Blocked(sink))
        world.receives(source, b"b")
        world.receives(source, b"")
        assert len(world.access) == 1, "both directions have ended"
        assert world.closing == {source: False}
        assert world.gives(Sent(sink)) == [Send(sink, b"b", eof=True), Close(sink)]
        world.leaves_nothing()


def test_a_side_that_never_takes_the_last_bytes_is_cut_off() -> None:
    for turned in (False, True):
        world = make()
        client, origin = upgraded(world)
        source, sink = (client, origin) if turned else (origin, client)
        world.receives(sink, b"")
        world.receives(source, b"a")
        world.gives(Blocked(sink))
        world.receives(source, b"b")
        world.receives(source, b"")
        world.wait(31.0)
        assert world.closing == {source: False, sink: True}
        world.leaves_nothing()


def test_a_client_that_is_lost_with_the_last_bytes_on_their_way() -> None:
    world = make()
    client, origin = upgraded(world)
    world.receives(client, b"")
    world.receives(origin, b"a")
    world.gives(Blocked(client))
    world.receives(origin, b"")
    world.resets(client)
    assert world.access[0].reason == ""
    world.leaves_nothing()


# ----------------------------------------------------------------------------------------------------- time and drain


def test_no_time_limit_of_bodies_counts_but_one_of_their_own() -> None:
    world = make()
    client, origin = upgraded(world)
    world.wait(3599.0)
    world.receives(origin, b"x")
    world.wait(3599.0)
    world.receives(client, b"y")
    world.wait(3599.0)
    assert world.closing == {}
    world.wait(1.0)
    assert world.closing == {client: True, origin: True}
    assert (world.access[0].status, world.access[0].reason) == (101, "idle_timeout")
    world.leaves_nothing()


def test_no_minimum_rate_of_bodies_counts_and_no_size() -> None:
    world = make(config=replace(PLAIN, limits=Limits(request_body_bytes_max=10)))
    client, origin = upgraded(world)
    for _ in range(60):
        world.wait(29.0)
        assert world.receives(client, b"x") == [Send(origin, b"x")]


def test_the_limit_is_a_setting_and_holds_when_one_side_has_ended() -> None:
    world = make(config=replace(PLAIN, timeouts=Timeouts(upgraded_idle_timeout_s=5.0)))
    client, origin = upgraded(world)
    world.wait(4.0)
    world.receives(client, b"")
    world.wait(1.0)
    assert world.closing == {client: True, origin: True}


def test_no_alarm_is_set_anew_for_a_byte() -> None:
    world = make()
    client, origin = upgraded(world)
    kernel = world.machine.kernel
    before = kernel.sequence
    for step in range(20):
        world.now += 0.001
        world.receives(client, b"x%d" % step)
        world.receives(origin, b"y%d" % step)
    assert kernel.sequence == before


def test_an_origin_that_does_not_answer_is_a_timeout_as_ever() -> None:
    world = make(config=replace(PLAIN, retry=Retry(retries_max=0)))
    client, _ = asked(world)
    world.wait(60.0)
    assert world.sent(client).startswith(b"HTTP/1.1 504 ")


def test_a_drain_lets_it_live_for_its_grace_and_then_cuts_it() -> None:
    world = make()
    client, origin = upgraded(world)
    world.gives(Drain(10.0))
    world.wait(9.0)
    assert world.receives(client, b"x") == [Send(origin, b"x")]
    world.wait(1.0)
    assert world.closing == {world.listeners[0]: False, client: True, origin: True}
    assert (world.access[0].status, world.access[0].reason) == (101, "shutting_down")
    assert world.machine.finished


def test_a_drain_before_the_101_does_not_refuse_it() -> None:
    world = make()
    client, origin = asked(world)
    world.gives(Drain(10.0))
    world.receives(origin, SWITCH)
    assert world.sent(client) == SWITCHED
    world.receives(client, b"")
    world.receives(origin, b"")
    assert world.machine.finished


# -------------------------------------------------------------------------------------------------------- codecs


AnyCodec = Http1Codec | H11Codec


def codec(role: Literal["server", "client"]) -> AnyCodec:
    return (Http1Codec if _used[0] == "own" else H11Codec)(role, Limits())


def both() -> tuple[AnyCodec, AnyCodec]:
    """A client and a server behind a 101."""
    client, server = codec("client"), codec("server")
    server.feed(joined(client.write(1, Request("GET", "/", Headers({"Host": "a"}), upgrade="x"))) + b"early")
    server.next_part()
    assert server.next_part() is PAUSED
    client.feed(joined(server.write(1, Response(101, length=None, ended=False, upgrade="x"))) + b"first")
    return client, server


def joined(data: bytes | list[bytes]) -> bytes:
    return data if isinstance(data, bytes) else b"".join(data)


def test_a_codec_goes_opaque_at_the_101_in_both_roles() -> None:
    client, server = both()
    pulled = client.next_part()
    assert isinstance(pulled, tuple)
    response = pulled[1]
    assert isinstance(response, Response)
    assert (response.status, response.upgrade, response.length, response.ended) == (101, "x", None, False)
    assert response.reason == "Switching Protocols"
    for side, bytes_there in ((client, b"first"), (server, b"early")):
        assert side.buffered == len(bytes_there)
        assert side.next_part() == (1, Data(bytes_there, False))
        assert (side.buffered, side.reusable, side.idle, side.expects_continue) == (0, False, False, False)
        assert not isinstance(side.next_part(), tuple)
        side.feed(b"\x00\r\n")
        side.feed_eof()
        ends: list[object] = [side.next_part()]
        ends.append(side.next_part())
        assert ends[0] == (1, Data(b"\x00\r\n", True))
        assert not isinstance(ends[1], tuple), "an end is told once"
        assert side.write(1, Data(b"GET / ")) == b"GET / "
        assert side.write(1, Data(b"x", True)) == b"x"
        assert not side.reusable


def test_a_codec_that_was_told_that_it_is_the_last_still_switches() -> None:
    for close_first in (False, True):
        client, server = codec("client"), codec("server")
        if close_first:
            client.close_after()
            server.close_after()
        head = joined(client.write(1, Request("GET", "/", Headers({"Host": "a"}), upgrade="x")))
        assert head == b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
        server.feed(head)
        server.next_part()
        answer = Response(101, Headers({"Upgrade": "y", "X": "z"}), "Yes", length=None, ended=False, upgrade="x")
        answer.data = b"!"
        head = b"HTTP/1.1 101 Yes\r\nX: z\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
        assert joined(server.write(1, answer)) == head + b"!"


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_a_server_does_not_switch_where_nobody_can_have_asked(request_head: bytes) -> None:
    server = codec("server")
    server.feed(request_head)
    server.next_part()
    with pytest.raises(ProtocolError):
        server.write(1, Response(101, length=None, ended=False, upgrade="x"))


def test_a_101_that_says_too_little_is_not_written() -> None:
    for response in (Response(101, length=None, ended=False), Response(101, upgrade="x")):
        server = codec("server")
        server.feed(ASK)
        server.next_part()
        with pytest.raises(ProtocolError, match=r"101 is no answer"):
            server.write(1, response)
        assert joined(server.write(1, respond(200))).startswith(b"HTTP/1.1 200 "), "nothing is lost by it"


@pytest.mark.parametrize("rest", [{"length": 1}, {"length": None, "ended": False}, {"method": "POST"}])
def test_only_a_get_without_a_body_asks(rest: dict[str, Any]) -> None:
    request = Request(**{"method": "GET", "target": "/", "headers": Headers({"Host": "a"}), "upgrade": "x", **rest})
    request.ended = request.length == 0
    with pytest.raises(ProtocolError, match=r"beside an upgrade"):
        codec("client").write(1, request)


def test_the_closed_connection_of_an_origin_that_was_heard_in_order() -> None:
    world = make()
    client, origin = upgraded(world)
    world.closed.append(origin)
    world.gives(Closed(origin))
    assert world.closing == {client: True}
    assert world.access[0].reason == "upstream_reset"
