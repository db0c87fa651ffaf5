"""Clients that speak HTTP/2: many exchanges on one connection, and what may end one, or all of them."""

from __future__ import annotations

from coulee.core import Exchange, Limits, Response, Retry, respond
from coulee.core.http2_connection import TURN_BYTES_MAX
from coulee.core.seam import Blocked, Drain, Sent
from tests.core.http2_ends import (
    OK,
    Client,
    ends,
    played,
    reasons,
)
from tests.core.ledger import on
from tests.core.world import World
from tests.http2 import frames as h2
from tests.http2.frames import (
    Code,
    fields,
    get,
    goaway,
    headers,
    ping,
    request,
    rst,
    window_update,
)

NO_RETRY = Retry(retries_max=0)
CHUNKED = b"HTTP/1.1 200 OK\r\nDate: now\r\nTransfer-Encoding: chunked\r\n\r\n"


def origins(world: World, count: int = 1) -> list[int]:
    """HTTP/1.1 connections that the proxy has asked for, and has now; what was sent on them is read."""
    found = [world.connects() for _ in range(count)]
    for each in found:
        assert world.sent(each)
    return found


def head(path: str = "/") -> bytes:
    """The block of a HEAD."""
    return fields(request(path, method="HEAD"))


async def _says_hello(exchange: Exchange) -> Response:
    return respond(200, b"hello")


HELLO = on("request_filter", _says_hello)


# ------------------------------------------------------------------------------------- a transport that takes nothing


def test_the_end_of_a_body_that_comes_while_the_transport_is_blocked() -> None:
    world = played()
    client = Client(world)
    client.asks(1)
    (origin,) = origins(world)
    world.receives(origin, CHUNKED + b"2\r\nhi\r\n")
    world.gives(Blocked(client.conn))
    assert client.told() == ["1 200", "1 DATA 'hi'"]
    world.receives(origin, b"0\r\n\r\n")
    assert reasons(world) == [""]
    assert client.told() == []
    world.gives(Sent(client.conn))
    assert client.told() == ["1 DATA '' end"]
    world.wait(61)
    assert client.told() == ["GOAWAY all NO_ERROR", "GOAWAY 1 NO_ERROR"], "it is idle"
    ends(world)


def test_a_client_that_takes_no_answers_is_not_read_for_ever() -> None:
    """Heads of answers are bounded by nothing else: those without a body wait for no window."""
    numbers = iter(range(10_000))

    async def nothing(exchange: Exchange) -> Response:
        return respond(204, headers={"X": f"{next(numbers):01000}"})

    world = played(on("request_filter", nothing), limits=Limits(requests_per_connection_max=10_000))
    client = Client(world)
    world.gives(Blocked(client.conn))
    stream = 1
    while world.reading[client.conn]:
        client.asks(stream)
        stream += 2
        assert stream < 1000, "it is read, whatever we have to say to it"
    asked = stream // 2
    assert 60 <= asked < 70, "64 KiB of heads"
    world.gives(Sent(client.conn))
    assert world.reading[client.conn]
    assert len(client.told()) == asked
    client.leaves()
    ends(world)


def another_turn(world: World) -> None:
    """Time has passed, but hardly any."""
    assert world.machine.deadline is not None
    world.now = world.machine.deadline
    world.gives(None)


async def _large(exchange: Exchange) -> Response:
    return respond(200, b"x" * 10_000)


def greedy() -> tuple[World, Client]:
    """A client that has windows for all of a thousand large answers, and has asked for them in one read."""
    world = played(on("request_filter", _large), limits=Limits(requests_per_connection_max=10_000))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 2**30})
    client.says(window_update(0, 2**30))
    client.frames()
    client.asks(*range(1, 2001, 2))
    return world, client


def test_answers_of_one_turn_are_bounded() -> None:
    """Nobody knows before the end of a turn what the transport takes, and requests cost a client next to nothing."""
    world, client = greedy()
    turns = 0
    count = 0
    while count < 1000:
        turns += 1
        size = len(world.outbox[client.conn])
        assert size < TURN_BYTES_MAX + 11_000
        count += sum(word.endswith("end") for word in client.told())
        another_turn(world)
    assert turns > 30
    assert reasons(world) == [""] * 1000
    client.leaves()
    ends(world)


def test_answers_that_the_transport_does_not_take_count_as_streams() -> None:
    world, client = greedy()
    first = sum(word.endswith("end") for word in client.told())
    world.gives(Blocked(client.conn))
    world.wait(0.1)
    assert len(world.access) == first + 100
    assert client.told() == []
    assert world.events("http2_flood"), "and what was refused counts too"
    ends(world)


def test_what_is_left_of_a_read_waits_for_the_transport_too() -> None:
    numbers = iter(range(10_000))

    async def nothing(exchange: Exchange) -> Response:
        return respond(204, headers={"X": f"{next(numbers):02000}"})

    world = played(on("request_filter", nothing), limits=Limits(requests_per_connection_max=10_000))
    client = Client(world)
    world.gives(Blocked(client.conn))
    client.asks(*range(1, 1001, 2))
    assert 30 < len(world.access) < 40
    world.wait(1)
    assert len(world.access) < 40
    world.gives(Sent(client.conn))
    while len(world.access) < 500:
        assert len(world.outbox[client.conn]) < TURN_BYTES_MAX + 100_000
        client.frames()
        another_turn(world)
    client.leaves()
    ends(world)


def test_a_client_is_held_while_more_has_come_than_its_answers_leave_room_for() -> None:
    world = played(
        on("request_filter", _large),
        limits=Limits(
            requests_per_connection_max=10_000, head_bytes_max=1000, buffer_high_bytes=1000, buffer_low_bytes=10
        ),
    )
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 2**30})
    client.says(window_update(0, 2**30))
    client.asks(*range(1, 201, 2))
    assert not world.reading[client.conn]
    while len(world.access) < 100:
        another_turn(world)
    assert world.reading[client.conn]
    client.leaves()
    ends(world)


# --------------------------------------------------------------------------------------------------------- floods


def test_requests_that_are_taken_back_in_one_read_are_counted_one_by_one() -> None:
    world = played()
    client = Client(world)
    client.says(*(headers(stream, get()) + rst(stream) for stream in range(1, 4001, 2)))
    assert len(world.access) < 250, "nothing is done for the others"
    assert client.told()[-1].endswith("ENHANCE_YOUR_CALM")
    (event,) = world.events("http2_flood")
    client.leaves()
    ends(world)


def test_a_client_that_gives_up_again_and_again_is_heard_once() -> None:
    world = played()
    client = Client(world)
    client.asks(1)
    client.says(goaway(0, Code.INTERNAL_ERROR, b"no") * 50)
    assert [event.text for event in world.events("http2_goaway")] == [
        "the client gave the connection up: INTERNAL_ERROR no"
    ]
    (origin,) = origins(world)
    world.receives(origin, OK)
    assert client.told() == ["GOAWAY 1 NO_ERROR", "1 200", "1 DATA 'hi' end"]
    client.leaves()
    ends(world)


# --------------------------------------------------------------------------------------------------------- time


def test_a_head_whose_frame_comes_byte_by_byte_has_the_time_of_a_head() -> None:
    world = played()
    client = Client(world)
    for byte in headers(1, get("/" + "a" * 20))[:10]:
        client.says(bytes([byte]))
        world.wait(1)
    assert client.told() == ["GOAWAY 0 ENHANCE_YOUR_CALM"]
    assert world.events("header_timeout")
    client.leaves()
    ends(world)


def test_each_head_has_time_of_its_own() -> None:
    world = played(HELLO)
    client = Client(world)
    client.says(headers(1, get()[:5], more=True))
    for stream in range(1, 9, 2):
        world.wait(6)
        client.says(h2.continuation(stream, get()[5:]), headers(stream + 2, get()[:5], more=True))
    assert [word for word in client.told() if word.endswith("200")] == ["1 200", "3 200", "5 200", "7 200"]
    world.wait(11)
    assert client.told() == ["GOAWAY 7 ENHANCE_YOUR_CALM"]
    client.leaves()
    ends(world)


def test_pings_keep_no_connection_that_asks_nothing() -> None:
    world = played()
    client = Client(world)
    for _ in range(6):
        world.wait(9)
        client.says(ping())
        assert client.told() == ["PONG"]
    world.wait(7)
    assert client.told() == ["GOAWAY all NO_ERROR", "GOAWAY 0 NO_ERROR"]
    ends(world)


def test_a_request_that_was_answered_at_once_begins_the_idle_time_anew() -> None:
    world = played(HELLO)
    client = Client(world)
    world.wait(50)
    client.asks(1)
    world.wait(59)
    assert client.told() == ["1 200", "1 DATA 'hello' end"]
    world.wait(2)
    assert client.told() == ["GOAWAY all NO_ERROR", "GOAWAY 1 NO_ERROR"]
    ends(world)


def test_a_client_that_leaves_within_a_head_is_answered_what_it_asked_in_whole() -> None:
    world = played()
    client = Client(world)
    client.says(headers(1, get()), headers(3, get()[:5], more=True))
    (origin,) = origins(world)
    client.leaves()
    world.wait(20)
    world.receives(origin, OK)
    assert client.told() == ["1 200", "1 DATA 'hi' end"]
    assert client.closed
    ends(world)


def test_a_drain_does_not_wait_for_half_a_head() -> None:
    world = played()
    client = Client(world)
    client.says(headers(1, get()[:5], more=True))
    world.gives(Drain(100))
    world.wait(3)
    assert client.told() == ["GOAWAY all NO_ERROR", "GOAWAY 0 NO_ERROR"]
    assert client.closed
