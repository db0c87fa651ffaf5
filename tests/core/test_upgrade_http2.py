"""Upgrades where a side speaks HTTP/2, by extended CONNECT (RFC 8441), as packet traces: who may ask, and bytes both
ways behind it, between all versions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from coulee.core import (
    Exchange,
    ExchangeError,
    Filter,
    Limits,
    Request,
    Response,
    Retry,
    Timeouts,
    UpstreamTls,
    respond,
    sleep,
)
from coulee.core.config import Http2
from coulee.core.seam import Blocked, Drain, Sent
from coulee.core.transport import DIRECT, Transport
from coulee.core.websocket import Message
from tests.core.http2_ends import H2, H2C, OK, ends, peer, played, reasons
from tests.core.ledger import on
from tests.core.upgraded import (
    NOTHING,
    OFFERED,
    PROOF,
    SAMPLE,
    Client,
    Client1,
    Client2,
    End,
    End2,
    Origin,
    Origin1,
    Origin2,
    Spoken,
    asked,
    switched,
)
from tests.core.websocket_frames import BINARY, frame
from tests.core.world import World
from tests.http2 import frames as h2

CONNECT = [
    (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a"), (":path", "/chat"),
]  # fmt: skip
ALL: list[tuple[Spoken, Spoken]] = [("h1", "h1"), ("h2", "h1"), ("h1", "h2"), ("h2", "h2")]


def between(up: Spoken, *filters: Filter, **changes: Any) -> World:
    """A proxy before one origin, that speaks this."""
    return played(*filters, peers=(peer(transport=H2C if up == "h2" else DIRECT),), **changes)


def over(world: World, *all_ends: Any) -> None:
    """Nothing is left when they have gone."""
    for end in all_ends:
        end.leaves()
    ends(world)


def time_passes(world: World, seconds: int, *listening: End) -> None:
    """While these answer what they are asked (by a PING)."""
    for _ in range(seconds):
        world.wait(1)
        for end in listening:
            end.listen()


# --------------------------------------------------------------------------------------------------- who may ask


def test_it_is_offered_where_anything_may_be_switched_to() -> None:
    client = Client2(played())
    assert client.h2.remote_settings.enable_connect_protocol == 1
    world = played(upgrades=())
    client = Client2(world)
    assert client.h2.remote_settings.enable_connect_protocol == 0
    client.h2.remote_settings._settings[h2.ENABLE_CONNECT_PROTOCOL][0] = 1
    client.asks()
    client.listen()
    assert (client.status, reasons(world)) == (400, ["bad_request"])
    over(world, client)


async def _never(exchange: Exchange) -> None:
    raise AssertionError("no phase of a request sees it")


@pytest.mark.parametrize("protocol", ["connect-udp", "websockets", "h2c", "websocket/13"])
def test_another_protocol_is_not_implemented(protocol: str) -> None:
    world = played(on("request_filter", _never))
    client = Client2(world)
    client.asks(protocol=protocol)
    client.listen()
    assert client.status == 501
    assert b"not_implemented" in client.body
    (record,) = world.access
    assert (record.status, record.reason, record.method, record.target) == (501, "not_implemented", "GET", "/chat")
    assert record.detail == f"a CONNECT for {protocol}, which is not among `upgrades`"
    over(world, client)


def test_names_of_protocols_have_no_case() -> None:
    world = played(upgrades=("WebSocket",))
    client = Client2(world)
    client.asks(protocol="webSOCKET")
    origin = Origin1(world)
    origin.accepts()
    client.listen()
    assert client.status == 101
    over(world, client)


def test_other_protocols_have_no_keys() -> None:
    world = played(upgrades=("websocket", "chat/2"))
    client = Client2(world)
    client.asks(protocol="chat/2")
    origin = Origin1(world)
    origin.listen()
    assert (origin.fields["upgrade"], origin.fields["connection"]) == ("chat/2", "upgrade")
    assert "sec-websocket-key" not in origin.fields
    world.receives(origin.conn, b"HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: chat/2\r\n\r\nhello")
    assert (client.heard(), client.status) == (b"hello", 101)
    over(world, client)


# ----------------------------------------------------------------------------------------------- bytes both ways


@pytest.mark.parametrize(("down", "up"), ALL)
def test_the_way_through(down: Spoken, up: Spoken) -> None:
    world = between(up)
    client, origin = switched(world, down, up)
    client.says(b"\x81\x85ping?")
    assert origin.heard() == b"\x81\x85ping?"
    origin.says(b"\x81\x05pong!")
    assert client.heard() == b"\x81\x05pong!"
    origin.says(b"HTTP/1.1 200 OK\r\n\r\n")
    assert client.heard() == b"HTTP/1.1 200 OK\r\n\r\n", "nothing is HTTP any more"
    assert not world.access, "it is not over"
    client.ends()
    origin.ends()
    client.listen()
    assert client.ended
    (record,) = world.access
    assert (record.status, record.reason, record.method, record.target) == (101, "", "GET", "/chat")
    assert record.version == ((1, 1) if down == "h1" else (2, 0))
    assert (record.bytes_in, record.bytes_out) == (7, 7 + 19)
    assert [attempt.reason for attempt in record.attempts] == [""]
    over(world, client, origin)


@pytest.mark.parametrize("first", ["down", "up"])
@pytest.mark.parametrize(("down", "up"), ALL)
def test_each_direction_ends_by_itself(down: Spoken, up: Spoken, first: str) -> None:
    world = between(up)
    client, origin = switched(world, down, up)
    one, other = (client, origin) if first == "down" else (origin, client)
    one.says(b"last words")
    one.ends()
    assert other.heard() == b"last words"
    assert other.ended
    assert not one.ended
    assert not world.access
    other.says(b"an answer")
    assert one.heard() == b"an answer"
    other.ends()
    one.listen()
    assert one.ended
    assert not (one.reset or other.reset)
    assert reasons(world) == [""]
    over(world, client, origin)


@pytest.mark.parametrize(("down", "up"), ALL)
def test_what_came_early_is_kept_in_order(down: Spoken, up: Spoken) -> None:
    world = between(up)
    client, origin = asked(world, down, up, b"early ")
    client.says(b"and more ")
    assert origin.heard() == b"", "nothing of it goes anywhere before the origin has agreed"
    origin.accepts(b"welcome ")
    assert client.heard() == b"welcome "
    client.says(b"and all")
    assert origin.heard() == b"early and more and all"
    over(world, client, origin)


@pytest.mark.parametrize(("down", "up"), ALL)
def test_a_refusal_has_a_body_and_opens_nothing(down: Spoken, up: Spoken) -> None:
    world = between(up)
    client, origin = asked(world, down, up, b"early")
    origin.answers(403, b"you may not")
    assert client.heard() == b"you may not"
    assert (client.status, client.fields["content-length"]) == (403, "11")
    assert origin.heard() == b""
    (record,) = world.access
    assert (record.status, record.reason) == (403, "")
    if isinstance(client, End2):
        assert client.ended
        assert client.reset == h2.Code.NO_ERROR, "nobody wants the rest of what it sends"
        assert client.conn not in world.closing, "its connection goes on"
    over(world, client, origin)


@pytest.mark.parametrize(("down", "up"), ALL)
def test_a_reset_of_the_client(down: Spoken, up: Spoken) -> None:
    world = between(up)
    client, origin = switched(world, down, up)
    client.resets()
    origin.listen()
    assert origin.reset
    assert reasons(world) == ["client_gone"]
    over(world, client, origin)


@pytest.mark.parametrize(("down", "up"), ALL)
def test_a_reset_of_the_origin(down: Spoken, up: Spoken) -> None:
    world = between(up)
    client, origin = switched(world, down, up)
    origin.resets()
    client.listen()
    assert client.reset
    if isinstance(client, End2):
        assert client.reset == h2.Code.CANCEL
    assert reasons(world) == ["upstream_reset"]
    over(world, client, origin)


@pytest.mark.parametrize(("down", "up"), ALL)
def test_a_reset_of_an_origin_that_has_said_all(down: Spoken, up: Spoken) -> None:
    world = between(up)
    client, origin = switched(world, down, up)
    origin.ends()
    origin.resets()
    client.listen()
    assert client.reset, "nobody reads from the origin any more, and it is told all the same"
    assert reasons(world) == ["upstream_reset"]
    over(world, client, origin)


@pytest.mark.parametrize(("down", "up"), ALL)
def test_one_in_which_nothing_moves_ends(down: Spoken, up: Spoken) -> None:
    world = between(up, timeouts=Timeouts(upgraded_idle_timeout_s=60))
    client, origin = switched(world, down, up)
    time_passes(world, 50, origin)
    client.says(b"hello")
    time_passes(world, 59, origin)
    assert not world.access
    time_passes(world, 2, origin)
    client.listen()
    origin.listen()
    assert client.reset
    assert origin.reset
    assert reasons(world) == ["idle_timeout"]
    over(world, client, origin)


@pytest.mark.parametrize(("down", "up"), ALL)
def test_a_drain_lets_it_live_for_its_grace(down: Spoken, up: Spoken) -> None:
    world = between(up)
    client, origin = switched(world, down, up)
    world.gives(Drain(30))
    time_passes(world, 20, origin)
    client.says(b"still")
    assert origin.heard() == b"still"
    origin.says(b"here")
    assert client.heard() == b"here"
    if isinstance(client, End2):
        assert client.told_to_go
    world.wait(11)
    client.listen()
    assert client.reset
    assert reasons(world) == ["shutting_down"]
    over(world, client, origin)


# ------------------------------------------------------------------------------- what only a client of HTTP/2 can do


def test_one_that_has_ended_with_its_head() -> None:
    """It says nothing, and may still hear all."""
    world = between("h1")
    client = Client2(world)
    client.asks(end=True)
    origin = Origin1(world)
    origin.accepts(b"all of it")
    assert client.heard() == b"all of it"
    assert origin.ended
    assert not world.access
    origin.ends()
    client.listen()
    assert client.ended
    assert not client.reset
    assert reasons(world) == [""]
    over(world, client, origin)


def test_others_go_on_beside_it() -> None:
    world = between("h1")
    client, origin = switched(world, "h2", "h1")
    assert isinstance(client, Client2)
    client.h2.send_headers(3, [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")], True)
    client.flush()
    other = world.connects()
    world.receives(other, OK)
    assert reasons(world) == [""]
    client.says(b"hello")
    assert origin.heard() == b"hello"
    second = client.beside(5)
    second.asks()
    world.receives(other, b"")
    origin_of_second = Origin1(world)
    origin_of_second.accepts(b"you are the second")
    client.listen()
    assert second.body == b"you are the second"
    client.resets()
    second.says(b"yes")
    assert origin_of_second.heard() == b"yes"
    over(world, client, origin_of_second)


def test_an_origin_that_answers_with_a_page_has_not_switched() -> None:
    """What is no more than ignoring Upgrade by HTTP/1.1 would open a tunnel by HTTP/2."""
    for status in (200, 204):
        world = between("h1")
        client, origin = asked(world, "h2", "h1")
        origin.answers(status, b"" if status == 204 else b"hi")
        assert client.heard().startswith(b'{"error": "upgrade_unsupported"')
        assert client.status == 502
        assert "error=http_upgrade_failed" in client.fields["proxy-status"]
        assert world.access[-1].detail.startswith(f"the endpoint answered {status} and did not switch")
        over(world, client)
    world = between("h1")
    client, origin = asked(world, "h1", "h1")
    origin.answers(200, b"hi")
    assert (client.heard(), client.status) == (b"hi", 200)
    over(world, client, origin)


def test_another_origin_may_switch() -> None:
    world = played(peers=(peer("a", DIRECT), peer("b", DIRECT)))
    client, first = asked(world, "h2", "h1")
    first.answers(200, b"hi")
    second = Origin1(world)
    second.accepts(b"hello")
    assert client.heard() == b"hello"
    assert not world.access
    client.ends()
    second.ends()
    (record,) = world.access
    assert [(attempt.peer, attempt.reason) for attempt in record.attempts] == [("a", "upgrade_unsupported"), ("b", "")]
    over(world, client)


@pytest.mark.parametrize("phase", ["request_filter", "response_filter", "fail_to_proxy"])
def test_no_filter_opens_one(phase: str) -> None:
    async def answer(exchange: Exchange, *args: object) -> Response:
        return respond(200, b"hi")

    world = between("h1", on(phase, answer))
    client = Client2(world)
    client.asks()
    if world.connecting and phase == "fail_to_proxy":
        world.refuses()
    elif world.connecting:
        Origin1(world).accepts()
    client.listen()
    assert client.status in (500, 0)
    assert client.status or client.reset == h2.Code.INTERNAL_ERROR
    assert reasons(world) == ["filter_error"]
    assert world.events("filter_error")
    client.leaves()


def test_trailers_of_one_break_its_stream() -> None:
    """Section 8.5 of RFC 9113 has only DATA on it."""
    world = between("h1")
    client, origin = switched(world, "h2", "h1")
    assert isinstance(client, Client2)
    world.receives(client.conn, h2.headers(1, h2.fields([("a", "b")])))
    client.listen()
    origin.listen()
    assert client.reset == h2.Code.PROTOCOL_ERROR
    assert origin.reset
    assert reasons(world) == ["bad_request"]
    over(world, client)


def test_a_call_of_grpc_is_no_upgrade() -> None:
    """The errors of calls are answered 200, which would say that it has switched."""
    world = between("h1")
    client = Client2(world)
    client.asks(fields=[("content-type", "application/grpc"), ("te", "trailers")])
    world.refuses()
    client.listen()
    assert (client.status, reasons(world)) == (502, ["upstream_refused"])
    over(world, client)


@pytest.mark.parametrize("cancels", [False, True])
def test_a_client_that_half_closes_its_connection(cancels: bool) -> None:
    """It has said all in the stream before, and may hear the rest."""
    world = between("h1", cancel_on_half_close=cancels)
    client, origin = switched(world, "h2", "h1")
    client.ends()
    world.receives(client.conn, b"")
    assert not world.access
    origin.says(b"the rest")
    assert client.heard() == b"the rest"
    origin.ends()
    client.listen()
    assert client.ended
    assert reasons(world) == [""]
    ends(world)


def test_a_client_that_half_closes_its_connection_within_it() -> None:
    world = between("h1")
    client, origin = switched(world, "h2", "h1")
    world.receives(client.conn, b"")
    origin.listen()
    assert origin.reset
    assert reasons(world) == ["client_gone"]
    ends(world)


def test_who_takes_nothing_stops_the_other() -> None:
    world = between("h1")
    client, origin = switched(world, "h2", "h1")
    assert isinstance(client, Client2)
    client.takes = False
    sent = 0
    while world.reading[origin.conn]:
        origin.says(bytes(16384))
        sent += 16384
        assert sent < 2**20, "it is never held"
    client.listen()
    got = len(client.body)
    assert got == h2.WINDOW
    client.h2.acknowledge_received_data(got, 1)
    client.takes = True
    client.flush()
    client.listen()
    while not world.reading[origin.conn]:
        client.listen()
    client.listen()
    assert len(client.body) == sent
    over(world, client, origin)


def test_a_client_that_is_not_heard_has_its_window_shut() -> None:
    """Until the origin has agreed, and while it takes nothing."""
    world = between("h1")
    client, origin = asked(world, "h2", "h1")
    assert isinstance(client, Client2)
    window = client.h2.local_flow_control_window(1)
    client.says(bytes(window))
    client.listen()
    assert client.h2.local_flow_control_window(1) == 0
    origin.accepts()
    client.listen()
    assert client.h2.local_flow_control_window(1) > 0
    assert len(origin.heard()) == window
    over(world, client, origin)


def test_the_limits_of_bodies_are_not_those_of_what_is_no_http() -> None:
    world = between("h1", limits=Limits(request_body_bytes_max=1000), timeouts=Timeouts(body_idle_timeout_s=1))
    client, origin = switched(world, "h2", "h1")
    client.says(bytes(2000))
    world.wait(100)
    client.says(b"still")
    assert len(origin.heard()) == 2005
    over(world, client, origin)


@pytest.mark.parametrize(
    "filters", [[], [on("websocket_close", lambda exchange, closing: None)]], ids=["bytes", "seen"]
)
@pytest.mark.parametrize("down", ["h1", "h2"])
def test_what_waits_for_the_window_of_an_origin_goes_out_though_all_is_said(
    down: Spoken, filters: list[Filter]
) -> None:
    world = between("h2", *filters)
    client, origin = switched(world, down, "h2")
    assert isinstance(origin, Origin2)
    origin.takes = False
    said = b"".join(frame(BINARY, bytes(40_000)) for _ in range(2))
    client.says(said[:60_000])
    client.listen()
    client.says(said[60_000:])
    client.ends()
    origin.ends()
    client.listen()
    origin.listen()
    assert len(origin.body) < len(said)
    assert not origin.reset
    assert client.ended
    client.leaves()
    got = len(origin.body)
    origin.h2.acknowledge_received_data(got, origin.stream)
    origin.takes = True
    origin.flush()
    origin.listen()
    assert len(origin.body) == len(said)
    assert origin.ended
    assert not origin.reset
    (record,) = world.access
    assert record.reason == ""
    world.leaves_nothing()


@pytest.mark.parametrize("seen", [False, True])
def test_an_origin_that_never_opens_its_window_is_not_waited_for_long(seen: bool) -> None:
    filters = [on("websocket_close", lambda exchange, closing: None)] if seen else []
    world = between("h2", *filters, timeouts=Timeouts(close_grace_s=3, send_stall_timeout_s=100))
    client, origin = switched(world, "h1", "h2")
    assert isinstance(origin, Origin2)
    origin.takes = False
    client.says(b"".join(frame(BINARY, bytes(40_000)) for _ in range(2)))
    client.ends()
    origin.ends()
    world.wait(20)
    (record,) = world.access
    assert record.reason == ("" if seen else "upstream_timeout")
    world.leaves_nothing()


# ------------------------------------------------------------------------------ what only an origin of HTTP/2 can do


@pytest.mark.parametrize("down", ["h1", "h2"])
def test_it_is_asked_by_extended_connect(down: Spoken) -> None:
    world = between("h2")
    client, origin = asked(world, down, "h2")
    assert origin.start == "CONNECT websocket http /chat"
    assert (origin.fields[":authority"], origin.fields["sec-websocket-version"]) == ("a", "13")
    assert "sec-websocket-key" not in origin.fields
    assert not {"connection", "upgrade", "content-length"} & set(origin.fields)
    origin.accepts()
    client.listen()
    assert client.status == 101
    over(world, client, origin)


def test_one_that_speaks_nothing_else_in_tls() -> None:
    tls = UpstreamTls(alpn=("h2",), verified_name="a")
    world = played(peers=(peer(transport=Transport(tls=tls)),))
    client = Client1(world)
    client.asks()
    conn = world.connects()
    world.secures(H2)
    origin = Origin2(world, conn=conn)
    assert origin.start == "CONNECT websocket https /chat"
    origin.accepts(b"hello")
    assert client.heard() == b"hello"
    over(world, client, origin)


def test_it_shares_a_connection_with_what_else_there_is() -> None:
    world = between("h2")
    client, origin = switched(world, "h1", "h2")
    assert isinstance(origin, Origin2)
    other = Client1(world)
    world.receives(other.conn, b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
    page = origin.beside(3)
    page.listen()
    assert page.fields[":path"] == "/page"
    page.answers(200, b"a page")
    assert other.heard() == b"a page"
    client.resets()
    page.listen()
    assert origin.reset == h2.Code.CANCEL
    world.receives(other.conn, b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
    third = origin.beside(5)
    third.listen()
    assert third.fields[":path"] == "/page"
    over(world, other, origin)


@pytest.mark.parametrize("down", ["h1", "h2"])
def test_it_waits_for_the_word_that_it_may_ask(down: Spoken) -> None:
    world = between("h2")
    client: Client = Client1(world) if down == "h1" else Client2(world)
    client.asks(b"early")
    origin = Origin2(world, None)
    other = Client1(world)
    world.receives(other.conn, b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
    world.wait(1)
    frames, _ = h2.cut(world.outbox[origin.conn][len(h2.PREFACE) :])
    assert [frame.stream for frame in frames if frame.type == h2.HEADERS] == [1], "others need no word"
    origin.stream = 3
    origin.begins(OFFERED)
    assert origin.start == "CONNECT websocket http /chat"
    origin.accepts(b"welcome")
    assert client.heard() == b"welcome"
    assert origin.heard() == b"early"
    over(world, client, other, origin)


@pytest.mark.parametrize("settings", [NOTHING, {h2.ENABLE_CONNECT_PROTOCOL: 0}])
@pytest.mark.parametrize("down", ["h1", "h2"])
@pytest.mark.parametrize("late", [False, True])
def test_where_it_is_not_offered(down: Spoken, settings: dict[int, int], late: bool) -> None:
    world = between("h2")
    if late:
        client: Client = Client1(world) if down == "h1" else Client2(world)
        client.asks()
        origin = Origin2(world, settings)
    else:
        before = Client1(world)
        world.receives(before.conn, b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
        origin = Origin2(world, settings)
        client = Client1(world) if down == "h1" else Client2(world)
        client.asks()
        before.leaves()
    assert client.heard().startswith(b'{"error": "upgrade_unsupported"')
    assert client.status == 502
    assert "error=http_upgrade_failed" in client.fields["proxy-status"]
    (record,) = [record for record in world.access if record.target == "/chat"]
    assert (record.reason, record.detail) == (
        "upgrade_unsupported", "it speaks HTTP/2, and does not offer extended CONNECT"
    )  # fmt: skip
    assert [attempt.peer for attempt in record.attempts] == ["a"], "it would refuse again"
    assert not (late and origin.fields), "nothing was asked of it"
    assert origin.conn not in world.closing, "it can be asked for other things"
    over(world, client, origin)


def test_another_origin_may_offer_it() -> None:
    world = played(peers=(peer("a", H2C), peer("b", DIRECT), peer("c", H2C)))
    heard: list[str] = []
    client = Client1(world)
    client.asks(b"early ")
    Origin2(world, NOTHING)
    second = Origin1(world)
    second.listen()
    assert second.fields["sec-websocket-key"] == SAMPLE, "as the client sent it"
    second.resets()
    third = Origin2(world)
    assert "sec-websocket-key" not in third.fields
    third.accepts()
    client.says(b"late")
    assert third.heard() == b"early late"
    client.listen()
    assert client.fields["sec-websocket-accept"] == PROOF
    client.resets()
    third.listen()
    assert third.reset == h2.Code.CANCEL
    (record,) = world.access
    heard = [f"{attempt.peer} {attempt.reason}" for attempt in record.attempts]
    assert heard == ["a upgrade_unsupported", "b upstream_reset", "c client_gone"]
    third.leaves()


def test_a_filter_hears_that_no_connection_for_it_could_be_had() -> None:
    heard: list[str] = []

    def note(exchange: Exchange, error: ExchangeError) -> None:
        heard.append(error.reason)

    world = between("h2", on("fail_to_connect", note), on("error_while_proxy", _never))
    client = Client1(world)
    client.asks()
    origin = Origin2(world, NOTHING)
    client.listen()
    assert (client.status, heard) == (502, ["upgrade_unsupported"])
    over(world, client, origin)


def test_an_origin_that_never_says_what_it_takes() -> None:
    world = between("h2", timeouts=Timeouts(answer_timeout_s=20), retry=Retry(retries_max=0))
    client = Client1(world)
    client.asks()
    origin = Origin2(world, None)
    world.wait(19)
    assert not world.access
    world.wait(2)
    client.listen()
    assert (client.status, reasons(world)) == (504, ["upstream_timeout"])
    over(world, client, origin)


@pytest.mark.parametrize("how", ["dies", "ends", "breaks", "is silent"])
def test_a_connection_that_ends_before_it_says_what_it_takes(how: str) -> None:
    world = between("h2", retry=Retry(retries_max=0))
    client = Client1(world)
    client.asks()
    origin = Origin2(world, None)
    if how == "dies":
        world.resets(origin.conn)
    elif how == "ends":
        world.receives(origin.conn, b"")
    elif how == "breaks":
        world.receives(origin.conn, h2.ping())
    else:
        world.wait(100)
    client.listen()
    word = {"breaks": "upstream_invalid", "is silent": "upstream_timeout"}.get(how, "upstream_reset")
    assert reasons(world) == [word]
    over(world, client)


@pytest.mark.parametrize("down", ["h1", "h2"])
def test_a_client_that_leaves_before_the_origin_says_what_it_takes(down: Spoken) -> None:
    world = between("h2")
    client: Client = Client1(world) if down == "h1" else Client2(world)
    client.asks()
    origin = Origin2(world, None)
    client.resets()
    assert reasons(world) == ["client_gone"]
    origin.begins(OFFERED)
    assert origin.start == "", "nobody asks any more"
    assert origin.conn not in world.closing
    over(world, client, origin)


def test_many_wait_and_not_all_have_room() -> None:
    world = between("h2", retry=Retry(retries_max=0))
    clients = [Client1(world) for _ in range(4)]
    for client in clients:
        client.asks()
    clients.pop(1).resets()
    origin = Origin2(world, None)
    origin.begins({**OFFERED, h2.MAX_CONCURRENT_STREAMS: 2})
    second = origin.beside(3)
    assert origin.start
    origin.accepts(b"one")
    second.start = "asked"
    second.accepts(b"two")
    assert [client.heard() for client in clients[:2]] == [b"one", b"two"]
    clients[2].listen()
    assert clients[2].status == 503
    assert reasons(world) == ["client_gone", "upstream_refused_stream"]
    over(world, *clients, origin)


def test_what_cannot_be_written_is_found_when_it_is() -> None:
    def change(exchange: Exchange, request: Request) -> None:
        request.target = "nowhere"

    world = between("h2", on("upstream_request_filter", change))
    client = Client1(world)
    client.asks()
    origin = Origin2(world)
    client.listen()
    assert (client.status, reasons(world)) == (500, ["filter_error"])
    client.leaves()
    origin.leaves()


def test_a_connection_that_is_given_up_as_it_is_asked() -> None:
    """It says at once that it is going: nothing is begun on it."""
    world = between("h2", retry=Retry(retries_max=0))
    client = Client1(world)
    client.asks()
    origin = Origin2(world, None)
    world.receives(origin.conn, h2.settings(dict(OFFERED)) + h2.goaway(0))
    client.listen()
    assert (client.status, reasons(world)) == (503, ["upstream_refused_stream"])
    over(world, client)


def test_an_offer_that_comes_late_counts_from_then_on() -> None:
    world = between("h2")
    first = Client1(world)
    first.asks()
    origin = Origin2(world, NOTHING)
    first.listen()
    assert first.status == 502
    origin.h2.update_settings({SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
    origin.flush()
    second = Client1(world)
    second.asks()
    origin.listen()
    origin.accepts(b"hello")
    assert second.heard() == b"hello"
    over(world, first, second, origin)


@pytest.mark.parametrize(
    "settings", [[(8, 0)], [(8, 1), (8, 0)], [(8, 2)]], ids=["taken back", "taken back at once", "no number for it"]
)
def test_an_offer_is_not_taken_back(settings: list[tuple[int, int]]) -> None:
    """Section 3."""
    world = between("h2")
    client, origin = switched(world, "h1", "h2")
    world.receives(origin.conn, h2.settings(settings))
    client.listen()
    assert client.reset
    assert reasons(world) == ["upstream_invalid"]
    assert [frame.code for frame in h2.cut(world.sent(origin.conn))[0] if frame.type == h2.GOAWAY] == [
        h2.Code.PROTOCOL_ERROR
    ]
    over(world, client)


def test_what_a_client_says_of_the_setting_is_nothing() -> None:
    """ "Receipt of this parameter by a server does not have any impact" (section 3)."""
    world = between("h1")
    client, origin = switched(world, "h2", "h1")
    world.receives(client.conn, h2.settings([(8, 1), (8, 0)]))
    client.says(b"hello")
    assert origin.heard() == b"hello"
    over(world, client, origin)


@pytest.mark.parametrize("down", ["h1", "h2"])
def test_an_origin_that_switches_and_says_no_more(down: Spoken) -> None:
    world = between("h2")
    client, origin = asked(world, down, "h2")
    assert isinstance(origin, Origin2)
    origin.accepts(end=True)
    client.listen()
    assert client.status == 101
    assert client.ended
    client.says(b"but I do")
    assert origin.heard() == b"but I do"
    client.ends()
    origin.listen()
    assert origin.ended
    assert reasons(world) == [""]
    over(world, client, origin)


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_refused_is_ended_and_not_reset(whole: bool) -> None:
    """A reset for each refusal would look like a flood of them to the origin."""
    world = between("h2")
    client, origin = asked(world, "h1", "h2")
    assert isinstance(origin, Origin2)
    if whole:
        origin.h2.send_headers(1, [(":status", "401"), ("date", "now")], end_stream=True)
        origin.flush()
    else:
        origin.answers(401, b"who are you?")
    client.listen()
    assert client.status == 401
    origin.listen()
    assert origin.ended
    assert origin.reset is None
    over(world, client, origin)


def test_trailers_of_an_origin_break_its_stream() -> None:
    world = between("h2")
    client, origin = switched(world, "h1", "h2")
    assert isinstance(origin, Origin2)
    world.receives(origin.conn, h2.headers(1, h2.fields([("a", "b")])))
    client.listen()
    origin.listen()
    assert client.reset
    assert origin.reset == h2.Code.PROTOCOL_ERROR
    assert reasons(world) == ["upstream_invalid"]
    over(world, client, origin)


@pytest.mark.parametrize("by", ["the origin", "time", "a drain"])
def test_an_origin_that_goes_lets_it_live(by: str) -> None:
    world = between("h2")
    client, origin = switched(world, "h1", "h2")
    world.receives(origin.conn, h2.goaway(1))
    client.says(b"still")
    assert origin.heard() == b"still"
    origin.ends()
    client.ends()
    assert reasons(world) == [""]
    assert origin.conn in world.eofs
    world.receives(origin.conn, h2.window_update(0, 5) + b"what nobody reads")
    assert origin.conn not in world.closing, "that would be answered by a reset, and what it has not read be lost"
    if by == "the origin":
        origin.leaves()
    elif by == "time":
        world.wait(0.9)
        assert origin.conn not in world.closing
        world.wait(0.2)
    else:
        world.gives(Drain(0.1))
        world.wait(0.2)
    assert world.closing[origin.conn] is (by == "a drain")
    over(world, client)


def test_a_connection_that_is_left_to_its_origin_to_close_counts_no_more() -> None:
    world = between("h2", limits=Limits(connections_per_peer_max=1))
    client, origin = switched(world, "h1", "h2")
    world.receives(origin.conn, h2.goaway(1))
    waiting = Client1(world)
    waiting.asks()
    assert not world.connecting
    origin.ends()
    client.ends()
    assert origin.conn not in world.closing
    second = Origin2(world)
    second.accepts(b"hello")
    assert waiting.heard() == b"hello"
    origin.leaves()
    over(world, client, waiting, second)


def test_an_origin_that_had_time_to_read_all_is_not_waited_for() -> None:
    world = between("h2")
    client, origin = switched(world, "h1", "h2")
    origin.ends()
    client.ends()
    world.wait(1)
    world.receives(origin.conn, h2.goaway(1))
    assert world.closing[origin.conn] is False
    over(world, client)


def test_an_origin_that_goes_before_it_has_looked() -> None:
    world = played(peers=(peer("a", H2C), peer("b", H2C)))
    client, origin = asked(world, "h1", "h2")
    world.receives(origin.conn, h2.goaway(0))
    second = Origin2(world)
    second.accepts(b"hello")
    assert client.heard() == b"hello"
    over(world, client, second)


def test_an_origin_that_wants_http1_for_it() -> None:
    """HTTP_1_1_REQUIRED (RFC 9113 section 7): the next attempt goes by Upgrade."""
    world = between("h2")
    client, origin = asked(world, "h2", "h2")
    assert isinstance(origin, Origin2)
    origin.h2.reset_stream(1, h2.Code.HTTP_1_1_REQUIRED)
    origin.flush()
    again = Origin1(world)
    again.accepts(b"by HTTP/1.1")
    assert client.heard() == b"by HTTP/1.1"
    over(world, client, again)


def test_an_origin_that_takes_nothing_stops_the_client() -> None:
    world = between("h2")
    client, origin = switched(world, "h1", "h2")
    assert isinstance(origin, Origin2)
    origin.takes = False
    sent = 0
    while world.reading[client.conn]:
        client.says(bytes(16384))
        sent += 16384
        assert sent < 2**20, "it is never held"
    origin.listen()
    assert len(origin.body) == h2.WINDOW
    origin.takes = True
    origin.h2.acknowledge_received_data(h2.WINDOW, 1)
    origin.flush()
    origin.listen()
    assert len(origin.body) == sent
    over(world, client, origin)


def test_an_origin_that_takes_nothing_for_too_long() -> None:
    world = between("h2", timeouts=Timeouts(send_stall_timeout_s=30))
    client, origin = switched(world, "h1", "h2")
    assert isinstance(origin, Origin2)
    origin.takes = False
    while world.reading[client.conn]:
        client.says(bytes(16384))
    time_passes(world, 31, origin)
    client.listen()
    assert client.reset
    assert origin.reset == h2.Code.CANCEL
    assert reasons(world) == ["upstream_timeout"]
    over(world, client, origin)


# ------------------------------------------------------------------------------------- filters that see messages


class Shout(Filter):
    def websocket_message(self, exchange: Exchange, message: Message) -> str | None:
        return message.data.upper() if isinstance(message.data, str) else None


@pytest.mark.parametrize(("down", "up"), ALL)
def test_messages_go_through_filters_in_all_versions(down: Spoken, up: Spoken) -> None:
    world = between(up, Shout())
    client, origin = switched(world, down, up)
    client.says(b"\x81\x85\0\0\0\0hello")
    heard = origin.heard()
    assert (heard[:2], len(heard)) == (b"\x81\x85", 11)
    assert bytes(byte ^ heard[2 + at % 4] for at, byte in enumerate(heard[6:])) == b"HELLO"
    origin.says(b"\x81\x03you")
    assert client.heard() == b"\x81\x03YOU"
    client.says(b"\x88\x82\0\0\0\0\x03\xe8")
    assert origin.heard()[:2] == b"\x88\x82"
    origin.says(b"\x88\x02\x03\xe8")
    origin.ends()
    assert client.heard() == b"\x88\x02\x03\xe8"
    assert client.ended
    client.ends()
    assert reasons(world) == [""]
    assert world.access[0].tags == {"websocket_close": 1000}
    over(world, client, origin)


# ------------------------------------------------------------------------- what is read when nobody has a stream


def test_the_end_of_one_that_was_not_taken() -> None:
    """A head that is also the end is two pieces of news."""
    world = between("h1", http2=Http2(streams_max=1))
    client, origin = switched(world, "h2", "h1")
    assert isinstance(client, Client2)
    second = client.beside(3)
    client.h2.remote_settings._settings[SettingCodes.MAX_CONCURRENT_STREAMS][0] = 2
    second.asks(end=True)
    client.listen()
    assert second.reset == h2.Code.REFUSED_STREAM
    client.says(b"still")
    assert origin.heard() == b"still"
    over(world, client, origin)


def test_the_end_of_an_answer_that_nobody_waits_for_any_more() -> None:
    """It was read, but not yet told, when the client left: the origin took too little of what we said."""
    world = between("h2", http2=Http2(unsent_control_bytes_max=1000))
    client, origin = asked(world, "h1", "h2")
    world.gives(Blocked(origin.conn))
    other = Client1(world)
    world.receives(other.conn, b"GET /page HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 2000 + b"\r\n\r\n")
    assert isinstance(origin, Origin2)
    origin.accepts(end=True)
    client.listen()
    assert client.status == 101
    client.resets()
    assert reasons(world) == ["client_gone"]
    world.gives(Sent(origin.conn))
    page = origin.beside(3)
    page.listen()
    assert page.fields[":path"] == "/page"
    page.answers(200, b"a page")
    assert other.heard() == b"a page"
    over(world, other, origin)


@given(st.lists(st.integers(0, 400), max_size=6), st.sampled_from(["h1", "h2"]))
@hypothesis_settings(max_examples=40)
def test_how_it_is_cut_does_not_matter(cuts: list[int], up: Spoken) -> None:
    world = between(up)
    conn = world.client()
    stream = b"".join(
        [
            h2.PREFACE, h2.settings(), h2.headers(1, h2.fields(CONNECT), end=False), h2.data(1, b"early "),
            h2.ping(), h2.data(1, b"and ", padding=3), h2.data(1), h2.data(1, b"more", end=True),
        ]
    )  # fmt: skip
    for at, end in pairwise([0, *sorted({min(cut, len(stream)) for cut in cuts} - {0, len(stream)}), len(stream)]):
        world.receives(conn, stream[at:end])
    origin: Origin = Origin1(world) if up == "h1" else Origin2(world)
    assert origin.heard() == b""
    origin.accepts()
    assert origin.heard() == b"early and more"
    assert origin.ended
    origin.ends()
    assert reasons(world) == [""]
    world.receives(conn, b"")
    over(world, origin)


# ------------------------------------------------------------------------------------ what mutations have got through


def test_an_origin_whose_settings_do_not_speak_of_it() -> None:
    world = between("h2")
    client = Client1(world)
    client.asks()
    origin = Origin2(world, None)
    world.receives(origin.conn, h2.settings())
    client.listen()
    assert (client.status, reasons(world)) == (502, ["upgrade_unsupported"])
    over(world, client)


def test_a_connection_that_dies_between_its_beginning_and_the_request() -> None:
    async def wait(exchange: Exchange, reused: bool) -> None:
        await sleep(5)

    world = between("h2", on("connected_to_upstream", wait), retry=Retry(retries_max=0))
    client = Client1(world)
    client.asks()
    origin = Origin2(world, None)
    world.resets(origin.conn)
    world.wait(6)
    client.listen()
    assert (client.status, reasons(world)) == (503, ["upstream_refused_stream"]), "it waits for nobody's word"
    over(world, client)


def test_any_2xx_of_a_filter_would_open_one() -> None:
    async def answer(exchange: Exchange) -> Response:
        return respond(204)

    world = between("h1", on("request_filter", answer))
    client = Client2(world)
    client.asks()
    client.listen()
    assert (client.status, reasons(world)) == (500, ["filter_error"])
    client.leaves()


@pytest.mark.parametrize(("down", "up"), [("h1", "h2"), ("h2", "h2")])
def test_other_protocols_have_no_proofs(down: Spoken, up: Spoken) -> None:
    world = between(up, upgrades=("chat/2",))
    sent = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat/2\r\n\r\n"
    client: Client = Client1(world) if down == "h1" else Client2(world)
    if isinstance(client, Client1):
        world.receives(client.conn, sent)
    else:
        client.asks(protocol="chat/2")
    origin = Origin2(world)
    assert origin.start == "CONNECT chat/2 http /chat"
    origin.accepts(fields=[("Sec-WebSocket-Accept", "mine")] if down == "h2" else [])
    client.listen()
    assert client.status == 101
    assert client.fields.get("sec-websocket-accept") == ("mine" if down == "h2" else None)
    over(world, client, origin)
