"""The tunnel as packet traces: bytes both ways, half-closes, resets, back-pressure, time limits and the drain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from coulee.core.codec import NEED_DATA
from coulee.core.config import Config, Limits, Timeouts
from coulee.core.listener import Listener
from coulee.core.parts import Data
from coulee.core.raw import RawCodec
from coulee.core.seam import (
    Accept,
    Accepted,
    Address,
    Blocked,
    Close,
    Closed,
    Connect,
    Drain,
    Hold,
    Listen,
    Listening,
    Operation,
    Receive,
    Report,
    Send,
    Sent,
)
from coulee.core.tls import ListenerTls
from coulee.core.tunnel import Tunnel
from tests.core.tunnelled import Source

if TYPE_CHECKING:
    from tests.core.world import World

ORIGIN: Address = ("10.1.1.1", 5432)
HERE: Address = ("127.0.0.1", 8000)

MakeWorld = Callable[..., "World"]


def acts(operations: list[Operation]) -> list[Operation]:
    """What is done, apart from what is only told."""
    return [each for each in operations if not isinstance(each, Report)]


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world(Tunnel(ORIGIN, listen=[HERE]))


@pytest.fixture
def pair(world: World) -> tuple[int, int]:
    """A client, and the connection to the origin that was made for it."""
    return world.client(), world.connects()


# ------------------------------------------------------------------------------------------------------- opening


def test_a_tunnel_listens_accepts_connects_and_reads_both_ends() -> None:
    tunnel = Tunnel(ORIGIN, listen=[HERE])
    assert tunnel.handle(None, 0.0) == [Listen(1, HERE)]
    assert acts(tunnel.handle(Listening(1, HERE), 0.0)) == [Accept(2, 1)]
    assert tunnel.handle(Accepted(2, ("10.0.0.9", 50000), HERE), 0.0) == [Accept(3, 1), Receive(2), Connect(4, ORIGIN)]


def test_a_tunnel_without_listeners_asks_for_nothing() -> None:
    tunnel = Tunnel(ORIGIN)
    assert tunnel.handle(None, 0.0) == []
    assert tunnel.deadline is None
    assert tunnel.config == Config()


def test_a_fresh_tunnel_has_the_same_definition_and_nothing_of_its_past(world: World, pair: tuple[int, int]) -> None:
    old = world.machine
    assert isinstance(old, Tunnel)
    rng = Random(7)
    fresh = old.fresh(rng=rng, wall_clock_offset_s=5.0, listen=["/run/x"])
    assert (fresh.to, fresh.config, fresh.rng, fresh.wall_clock_offset_s) == (ORIGIN, old.config, rng, 5.0)
    assert fresh.handle(None, 0.0) == [Listen(1, HERE), Listen(2, "/run/x")]
    assert fresh.connections == {}


def test_each_client_has_a_tunnel_of_its_own(world: World) -> None:
    one, two = world.client(), world.client()
    up_one, up_two = world.connects(), world.connects()
    world.receives(one, b"1")
    world.receives(two, b"2")
    assert (world.sent(up_one), world.sent(up_two)) == (b"1", b"2")


# -------------------------------------------------------------------------------------------------------- bytes


def test_bytes_go_both_ways_each_in_the_turn_in_which_they_came(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    assert world.receives(client, b"question") == [Send(origin, b"question")]
    assert world.receives(origin, b"answer") == [Send(client, b"answer")]
    assert world.receives(origin, b"more") == [Send(client, b"more")]
    assert world.receives(client, b"again") == [Send(origin, b"again")]


def test_a_large_piece_is_passed_on_without_being_joined_or_cut(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    large = bytes(300_000)
    (send,) = world.receives(origin, large)
    assert isinstance(send, Send)
    assert send.data is large
    assert send.conn == client


# --------------------------------------------------------------------------------------------------- half-closes


def test_a_half_close_is_carried_over_and_the_other_way_stays_open(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    assert acts(world.receives(client, b"")) == [Send(origin, b"", eof=True)]
    assert world.receives(origin, b"still here") == [Send(client, b"still here")]
    assert acts(world.receives(origin, b"")) == [Send(client, b"", eof=True), Close(client), Close(origin)]
    world.leaves_nothing()


def test_the_origin_may_half_close_first(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    assert acts(world.receives(origin, b"")) == [Send(client, b"", eof=True)]
    assert world.receives(client, b"last words") == [Send(origin, b"last words")]
    assert acts(world.receives(client, b"")) == [Send(origin, b"", eof=True), Close(client), Close(origin)]
    world.leaves_nothing()


def test_bytes_and_the_end_behind_them_leave_in_order(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    world.gives(Blocked(origin))
    world.receives(client, b"the end")
    world.receives(client, b"")
    assert world.sent(origin) == b""
    assert world.gives(Sent(origin)) == [Send(origin, b"the end", eof=True)]


# -------------------------------------------------------------------------------------------------------- resets


def test_a_reset_of_the_client_resets_the_origin(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    assert acts(world.resets(client)) == [Close(origin, abort=True)]
    world.leaves_nothing()


def test_a_reset_of_the_origin_resets_the_client(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    assert acts(world.resets(origin)) == [Close(client, abort=True)]
    world.leaves_nothing()


def test_an_end_that_is_closed_in_order_without_a_half_close_resets_the_other(
    world: World, pair: tuple[int, int]
) -> None:
    # There is no more to come, and no way to say it: what the other end has may not be whole.
    client, origin = pair
    world.closed.append(origin)
    assert acts(world.gives(Closed(origin))) == [Close(client, abort=True)]
    world.leaves_nothing()


def test_a_reset_after_a_half_close_still_resets_the_other_end(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    world.receives(client, b"")
    assert acts(world.resets(client)) == [Close(origin, abort=True)]
    world.leaves_nothing()


def test_a_client_that_is_reset_while_the_origin_is_awaited_ends_the_wait(world: World) -> None:
    client = world.client()
    connect = world.connecting[0]
    assert acts(world.resets(client)) == [Close(connect.conn, abort=True)]
    world.leaves_nothing()


def test_a_client_that_was_closed_in_order_while_the_origin_was_awaited_is_found_out_then(world: World) -> None:
    client = world.client()
    world.closed.append(client)
    assert world.gives(Closed(client)) == []
    origin = world.connects()
    assert world.closing == {origin: True}
    world.leaves_nothing()


def test_a_client_is_heard_while_the_origin_is_awaited(world: World) -> None:
    # Credit is not deafness: without a Receive a backend cannot see that the client has left.
    client = world.client()
    assert Receive(client) in world.operations
    world.receives(client, b"early")
    origin = world.connects()
    assert world.sent(origin) == b"early"


# ------------------------------------------------------------------------------------------------ failed connects


def test_a_refused_connect_resets_the_client(world: World) -> None:
    client = world.client()
    world.refuses()
    assert world.closing == {client: True}
    world.leaves_nothing()


def test_a_connect_that_takes_too_long_is_given_up(world: World) -> None:
    client = world.client()
    connect = world.connecting[0]
    world.wait(2.9)
    assert world.closing == {}
    world.wait(0.1)
    assert world.closing == {client: True, connect.conn: True}
    world.leaves_nothing()


def test_the_limit_of_a_connect_is_a_setting(make_world: MakeWorld) -> None:
    world = make_world(Tunnel(ORIGIN, Config(timeouts=Timeouts(connect_timeout_s=0.5)), listen=[HERE]))
    client = world.client()
    world.wait(0.5)
    assert world.closing[client] is True


def test_a_connect_that_came_through_before_its_limit_rang_counts(world: World) -> None:
    # The host was busy: completion and alarm reach the machine in one turn, and the completion comes first.
    client = world.client()
    world.now = 3.5
    origin = world.connects()
    assert world.closing == {}
    assert world.receives(client, b"hello") == [Send(origin, b"hello")]


def test_the_limit_of_a_connect_is_over_with_it(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    world.wait(3599)
    assert world.closing == {}
    assert world.receives(client, b"x") == [Send(origin, b"x")]


# --------------------------------------------------------------------------------------------------- back-pressure


def test_a_reader_that_is_slow_stops_the_writer_at_the_other_end(make_world: MakeWorld) -> None:
    limits = Limits(buffer_high_bytes=100, buffer_low_bytes=10, head_bytes_max=100)
    world = make_world(Tunnel(ORIGIN, Config(limits=limits), listen=[HERE]))
    client, origin = world.client(), world.connects()
    assert world.receives(origin, b"a" * 60) == [Send(client, b"a" * 60)]
    world.gives(Blocked(client))
    assert world.receives(origin, b"b" * 100) == [], "gathered while the client takes nothing"
    assert world.receives(origin, b"c" * 100) == [], "waits with the pump"
    assert world.receives(origin, b"d" * 100) == [], "waits in the codec, at its mark"
    assert world.receives(origin, b"e") == [Hold(origin)]
    world.sent(client)
    everything = b"b" * 100 + b"c" * 100 + b"d" * 100 + b"e"
    assert world.gives(Sent(client)) == [Send(client, everything), Receive(origin)]
    assert world.receives(origin, b"f") == [Send(client, b"f")]


def test_a_peer_that_takes_nothing_for_too_long_is_cut_off(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    world.receives(origin, b"answer")
    world.gives(Blocked(client))
    world.wait(29.9)
    assert world.closing == {}
    world.wait(0.1)
    assert world.closing == {client: True, origin: True}
    world.leaves_nothing()


def test_a_peer_that_takes_what_it_refused_in_time_lives_on(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    world.receives(origin, b"answer")
    world.gives(Blocked(client))
    world.wait(29.0)
    world.gives(Sent(client))
    world.wait(60.0)
    assert world.closing == {}
    assert world.receives(origin, b"more") == [Send(client, b"more")]


def test_a_peer_that_half_closed_and_takes_nothing_is_cut_off_too(world: World, pair: tuple[int, int]) -> None:
    # Nobody reads from it any more and nobody waits to write to it, so nobody is there to hear of it.
    client, origin = pair
    world.receives(client, b"")
    world.receives(origin, b"answer")
    world.gives(Blocked(client))
    world.wait(30.0)
    assert world.closing == {client: True, origin: True}
    world.leaves_nothing()


def test_a_peer_that_never_takes_the_last_bytes_is_cut_off_when_both_ways_have_ended(
    world: World, pair: tuple[int, int]
) -> None:
    client, origin = pair
    world.receives(client, b"")
    world.receives(origin, b"answer")
    world.gives(Blocked(client))
    world.receives(origin, b"")
    assert world.closing == {origin: False}, "the client's end waits behind what it has not taken"
    world.wait(30.0)
    assert world.closing == {origin: False, client: True}
    world.leaves_nothing()


def test_the_last_bytes_are_sent_before_the_end_when_there_is_room_again(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    world.receives(client, b"")
    world.receives(origin, b"answer")
    world.gives(Blocked(client))
    world.receives(origin, b"!")
    world.receives(origin, b"")
    assert world.gives(Sent(client)) == [Send(client, b"!", eof=True), Close(client)]
    world.leaves_nothing()


# --------------------------------------------------------------------------------------------------------- drain


def test_a_drain_without_grace_cuts_every_tunnel_and_closes_the_listener(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    assert acts(world.gives(Drain(0.0))) == [
        Close(world.listeners[0]), Close(client, abort=True), Close(origin, abort=True)
    ]  # fmt: skip
    assert world.machine.finished
    world.leaves_nothing()


def test_a_drain_lets_tunnels_go_on_until_its_grace_is_over(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    assert acts(world.gives(Drain(30.0))) == [Close(world.listeners[0])]
    world.wait(29.9)
    assert world.receives(client, b"still here") == [Send(origin, b"still here")]
    world.wait(0.1)
    assert world.closing == {world.listeners[0]: False, client: True, origin: True}
    assert world.machine.finished
    world.leaves_nothing()


def test_a_drain_is_over_when_the_last_tunnel_has_ended(world: World, pair: tuple[int, int]) -> None:
    client, origin = pair
    world.gives(Drain(30.0))
    world.receives(client, b"")
    assert not world.machine.finished
    world.receives(origin, b"")
    assert world.machine.finished
    assert world.machine.deadline is None


def test_a_drain_gives_up_the_connects_that_are_under_way(world: World) -> None:
    client = world.client()
    connect = world.connecting[0]
    world.gives(Drain(0.0))
    assert world.closing == {world.listeners[0]: False, client: True, connect.conn: True}
    assert world.machine.finished


def test_a_client_that_slips_in_behind_a_drain_is_sent_away(world: World) -> None:
    # Its Accepted was on its way when the listener was closed. Nothing new begins, or the drain would never end.
    world.gives(None)
    credit = world.credits.pop(0)
    world.gives(Drain(0.0))
    world.gives(Accepted(credit.conn, ("10.0.0.9", 50000), HERE))
    assert world.credits == []
    assert world.connecting == []
    assert world.closing.get(credit.conn) is not None
    assert world.machine.finished


def test_a_listener_that_could_not_be_opened_leaves_nothing_behind() -> None:
    tunnel = Tunnel(ORIGIN, listen=[HERE])
    tunnel.handle(None, 0.0)
    assert acts(tunnel.handle(Closed(1, "other", "address in use"), 0.0)) == []
    assert tunnel.listeners == {}


# --------------------------------------------------------------------------------------------------------- codec


def test_the_raw_codec_gives_what_it_has_as_one_piece() -> None:
    codec = RawCodec()
    assert codec.next_part() is NEED_DATA
    codec.feed(b"ab")
    codec.feed(b"cd")
    assert codec.buffered == 4
    assert codec.next_part() == (1, Data(b"abcd", False))
    assert codec.buffered == 0
    assert codec.next_part() is NEED_DATA


def test_the_raw_codec_tells_the_end_once_with_the_last_bytes() -> None:
    codec = RawCodec()
    codec.feed(b"ab")
    codec.feed_eof()
    assert codec.next_part() == (1, Data(b"ab", True))
    assert codec.next_part() is NEED_DATA


def test_the_raw_codec_writes_the_bytes_and_nothing_else() -> None:
    codec = RawCodec()
    assert codec.write(1, Data(b"ab")) == b"ab"
    codec.close_after()
    codec.consumed(1, 2)
    assert codec.write(1, Data(b"cd", True)) == b"cd"
    assert (codec.reusable, codec.idle, codec.expects_continue) == (False, False, False)


@pytest.mark.parametrize(
    ("said", "offered"),
    [
        (None, ("http/1.1",)),
        (("h2", "http/1.1"), ("http/1.1",)),
        (("h2",), ("h2",)),
        ((), ()),
        (("http/1.1", "h2"), ("http/1.1", "h2")),
    ],
)
def test_a_client_whose_tls_ends_here_is_not_offered_http2_unasked(
    said: tuple[str, ...] | None, offered: tuple[str, ...]
) -> None:
    tls = ListenerTls(Source()) if said is None else ListenerTls(Source(), alpn=said)
    plain, secured = Listener("127.0.0.1:1"), Listener("127.0.0.1:2", tls)
    tunnel = Tunnel(ORIGIN, listen=[("127.0.0.1", 1), plain, secured])
    wanted = [plain, plain, replace(secured, tls=replace(tls, alpn=offered))]
    assert tunnel.listen_at == wanted
    machine = tunnel.fresh(rng=Random(1), listen=[secured])
    assert machine.listen_at == [*wanted, wanted[2]]
