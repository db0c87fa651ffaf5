"""Bytes both ways as packet traces: that they are passed on as they come, whatever either side takes, and how it ends.

What else holds behind a 101 and a CONNECT is in `test_upgrade.py` and `test_connect.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coulee.core import Config, Forwarding, Limits, Proxy, Timeouts
from coulee.core.parts import Data, Part
from coulee.core.seam import Blocked, ErrorKind, Operation, Receive, Send, Sent
from coulee.core.stream import Stream
from coulee.lb import Cluster
from tests.core.world import LISTENER, World

CodecName = Literal["own", "h11"]
CODECS: tuple[CodecName, ...] = ("own", "h11")
CONFIG = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False))
PIECE_MAX, HIGH = 400, 500
SMALL = replace(CONFIG, limits=Limits(buffer_high_bytes=HIGH, buffer_low_bytes=50, head_bytes_max=HIGH))
ASK = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


def switched(codec: CodecName, config: Config = CONFIG) -> tuple[World, int, int]:
    """A client and an origin behind their 101."""
    proxy = Proxy(Cluster("http://10.0.0.1"), config=replace(config, http1_codec=codec))
    world = World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER]))
    client = world.client()
    world.receives(client, ASK)
    origin = world.connects()
    world.receives(origin, SWITCH)
    world.sent(client)
    world.sent(origin)
    return world, client, origin


# ------------------------------------------------------------------------------------------------- what is passed on


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("turned", [False, True])
def test_a_piece_is_the_same_object_on_the_other_side(codec: CodecName, turned: bool) -> None:
    world, source, sink = switched(codec)
    if turned:
        source, sink = sink, source
    for piece in (b"\x81\x02hi", b"GET / HTTP/1.1\r\n\r\n", bytes(70_000)):
        (send,) = world.receives(source, piece)
        assert isinstance(send, Send)
        assert send.conn == sink
        assert send.data is piece


def test_where_streams_share_a_connection_it_is_a_part_of_a_body() -> None:
    written: list[Part] = []

    class Shared(Stream):
        __slots__ = ()

        def __init__(self) -> None:
            """There is no connection."""

        def write(self, part: Part) -> None:
            written.append(part)

    Shared().pass_on(b"bytes")
    assert written == [Data(b"bytes")]


# ----------------------------------------------------------------------------------------------- whatever is taken


@dataclass(slots=True)
class End:
    """One of the two connections, as the property sees it."""

    conn: int
    given: bytes = b""  # by it
    taken: bytes = b""  # by it
    ended: bool = False
    blocked: bool = False


def note(world: World, ends: tuple[End, End], operations: list[Operation]) -> None:
    """Note what was sent; nobody who is blocked is sent anything."""
    for operation in operations:
        if isinstance(operation, Send):
            end = next(each for each in ends if each.conn == operation.conn)
            assert not end.blocked, "nothing is sent to who is blocked"
    for end in ends:
        end.taken += world.sent(end.conn)
    first, second = ends
    for source, sink in ((first, second), (second, first)):
        left = len(source.given) - len(sink.taken)
        assert source.given.startswith(sink.taken), "in order, and nothing twice"
        assert left <= 2 * HIGH + 3 * PIECE_MAX, "bounded"
        assert not left or sink.blocked, "nothing waits without a reason"
        assert world.reading[source.conn] or sink.blocked or source.ended, "and nobody is held without one"


STEPS = st.lists(
    st.tuples(st.sampled_from(["give", "give", "give", "block", "take", "end"]), st.booleans(), st.integers(1, 400)),
    max_size=40,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(codec=st.sampled_from(CODECS), steps=STEPS)
def test_bytes_arrive_in_order_and_bounded_whatever_is_taken_when(
    codec: CodecName, steps: list[tuple[str, bool, int]]
) -> None:
    world, client, origin = switched(codec, SMALL)
    ends = End(client), End(origin)
    for what, turned, size in steps:
        one, other = (ends[1], ends[0]) if turned else ends
        if what == "give" and world.reading[one.conn] and not one.ended:
            piece = (b"%d " % len(one.given) * size)[:size]
            one.given += piece
            note(world, ends, world.receives(one.conn, piece))
        elif what == "block" and not other.blocked and not one.ended and world.reading[one.conn]:
            one.given += b"!"
            note(world, ends, world.receives(one.conn, b"!"))
            other.blocked = True
            world.gives(Blocked(other.conn))
        elif what == "take" and one.blocked:
            one.blocked = False
            note(world, ends, world.gives(Sent(one.conn)))
        elif what == "end" and world.reading[one.conn] and not one.ended and not other.ended:
            one.ended = True
            note(world, ends, world.receives(one.conn, b""))
    for end in ends:
        if end.blocked:
            end.blocked = False
            note(world, ends, world.gives(Sent(end.conn)))
    for end in ends:
        if not end.ended:
            world.receives(end.conn, b"")
    first, second = ends
    assert (first.taken, second.taken) == (second.given, first.given)
    assert sorted(world.eofs) == sorted((client, origin)), "each is told once"
    assert world.closing == {client: False, origin: False}
    (record,) = world.access
    assert (record.reason, record.bytes_in, record.bytes_out) == ("", len(first.given), len(second.given))
    world.leaves_nothing()


# ------------------------------------------------------------------------------------------------------ how it ends


@pytest.mark.parametrize("codec", CODECS)
def test_an_origin_that_is_lost_while_nobody_reads_from_it_is_missed_by_the_next_bytes(codec: CodecName) -> None:
    world, client, origin = switched(codec, SMALL)
    world.receives(origin, b"a")
    world.gives(Blocked(client))
    world.receives(origin, b"b" * HIGH)
    world.receives(origin, b"c")  # the pump waits with it for room
    world.resets(origin)
    assert world.access == [], "what it said before may still arrive"
    world.receives(client, b"anybody there?")
    (record,) = world.access
    assert (record.reason, record.status) == ("upstream_reset", 101)
    assert world.closing == {client: True}
    world.leaves_nothing()


@pytest.mark.parametrize("codec", CODECS)
def test_what_a_lost_origin_said_last_arrives_before_its_end_does(codec: CodecName) -> None:
    world, client, origin = switched(codec, SMALL)
    world.receives(origin, b"a")
    world.gives(Blocked(client))
    world.receives(origin, b"b" * HIGH)
    world.receives(origin, b"c")
    world.resets(origin)
    world.sent(client)
    world.gives(Sent(client))
    assert world.sent(client).startswith(b"b" * HIGH)
    assert world.access[0].reason == "upstream_reset"
    assert world.closing == {client: True}, "its end must not look like one in order"


@pytest.mark.parametrize(
    ("kind", "takes", "reason"),
    [("truncated", True, ""), ("truncated", False, "client_gone"), ("reset", True, "client_gone")],
)
def test_a_client_that_was_told_the_end_may_leave_without_a_farewell(kind: ErrorKind, takes: bool, reason: str) -> None:
    """Browsers do, where a WebSocket goes by TLS."""
    world, client, origin = switched("own")
    world.receives(origin, b"a close frame")
    if not takes:
        world.gives(Blocked(client))
    world.receives(origin, b"")
    world.resets(client, kind)
    (record,) = world.access
    assert record.reason == reason, "it may not have heard all, or we not all of it"
    assert world.closing[origin] is True, "to whom nothing may look whole that is not"
    world.leaves_nothing()


def test_a_client_that_leaves_before_that_is_gone() -> None:
    world, client, origin = switched("own")
    world.receives(origin, b"a close frame")
    world.resets(client, "truncated")
    assert world.access[0].reason == "client_gone"
    assert world.closing[origin] is True
    world.leaves_nothing()


@pytest.mark.parametrize("turned", [False, True])
def test_what_came_while_one_side_was_full_counts_as_a_sign_of_life(turned: bool) -> None:
    timeouts = Timeouts(upgraded_idle_timeout_s=5.0, send_stall_timeout_s=60.0)
    world, source, sink = switched("own", replace(SMALL, timeouts=timeouts))
    if turned:
        source, sink = sink, source
    world.receives(source, b"a")
    world.gives(Blocked(sink))
    world.wait(4.0)
    world.receives(source, b"b" * HIGH)
    world.wait(4.0)
    assert world.closing == {}
    assert world.gives(Sent(sink)) == [Send(sink, b"b" * HIGH)]
    world.wait(1.0)
    assert world.closing == {source: True, sink: True}
    (record,) = world.access
    assert (record.reason, record.detail) == ("idle_timeout", "no byte in either direction for 5 s")


def test_who_is_held_is_read_again_when_the_other_has_room() -> None:
    world, client, origin = switched("own", SMALL)
    world.receives(client, b"a")
    world.gives(Blocked(origin))
    for piece in (b"b" * HIGH, b"c", b"d" * (HIGH + 1)):
        world.receives(client, piece)
    assert not world.reading[client]
    assert world.reading[origin], "the other direction goes on"
    assert Receive(client) in world.gives(Sent(origin))
