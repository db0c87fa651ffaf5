"""Upgrades where a side speaks HTTP/2, by extended CONNECT (RFC 8441), as packet traces: who may ask, and bytes both
ways behind it, between all versions."""

from __future__ import annotations

from typing import Any

import pytest

from coulee.core import Exchange, Filter, Limits, Response, Timeouts, respond
from coulee.core.seam import Drain
from coulee.core.transport import DIRECT
from tests.core.http2_ends import H2C, OK, ends, peer, played, reasons
from tests.core.ledger import on
from tests.core.upgraded import Client2, End2, Origin1, Spoken, asked, switched
from tests.core.world import World
from tests.http2 import frames as h2

ALL: list[tuple[Spoken, Spoken]] = [("h1", "h1"), ("h2", "h1")]


def between(up: Spoken, *filters: Filter, **changes: Any) -> World:
    """A proxy before one origin, that speaks this."""
    return played(*filters, peers=(peer(transport=H2C if up == "h2" else DIRECT),), **changes)


def over(world: World, *all_ends: Any) -> None:
    """Nothing is left when they have gone."""
    for end in all_ends:
        end.leaves()
    ends(world)


def no_faults(world: World) -> None:
    assert not world.events("filter_error")
    assert not world.events("internal_error")


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
    ends_of = dict(zip(("down", "up"), switched(world, down, up), strict=True))
    one = ends_of[first]
    other = ends_of["up" if first == "down" else "down"]
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
    over(world, ends_of["down"], ends_of["up"])


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
    world.wait(50)
    client.says(b"hello")
    world.wait(59)
    assert not world.access
    world.wait(2)
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
    world.wait(20)
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


# ------------------------------------------------------------------------------------- what only HTTP/2 has, downstream


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
