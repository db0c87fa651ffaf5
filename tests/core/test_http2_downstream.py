"""Clients that speak HTTP/2: many exchanges on one connection, and what may end one, or all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coulee.core import Config, Exchange, Filter, Limits, Request, Response, Retry, Timeouts, respond, sleep
from coulee.core.config import Http2
from coulee.core.entrance import Guest
from coulee.core.http2_connection import TURN_BYTES_MAX
from coulee.core.http2_downstream import Http2Downstream
from coulee.core.seam import Blocked, Drain, Hold, Receive, Received, Security, Sent
from tests.core.http2_ends import H2, OK, PLAIN, Client, End, Origin, answer, ends, peer, played, proxy_of, reasons, trailers
from tests.core.ledger import on
from tests.core.world import World
from tests.http2 import frames as h2
from tests.http2.frames import Code, data, fields, get, goaway, headers, ping, post, request, rst, settings, window_update

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
    async def nothing(exchange: Exchange) -> Response:
        return respond(204, headers={"X": "x" * 1000})

    world = played(on("request_filter", nothing), limits=Limits(requests_per_connection_max=10_000))
    client = Client(world)
    world.gives(Blocked(client.conn))
    stream = 1
    while world.reading[client.conn]:
        client.asks(stream)
        stream += 2
        assert stream < 1000, "it is read, whatever we have to say to it"
    assert 60 < stream / 2 < 100, "64 KiB of heads"
    world.gives(Sent(client.conn))
    assert world.reading[client.conn]
    assert len(client.told()) == (stream - 1) / 2
    client.leaves()
    ends(world)


def test_answers_of_one_turn_are_bounded() -> None:
    """Nobody knows before the end of a turn what the transport takes, and requests cost a client next to nothing."""
    async def large(exchange: Exchange) -> Response:
        return respond(200, b"x" * 10_000)

    world = played(on("request_filter", large), limits=Limits(requests_per_connection_max=10_000))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 2**30})
    client.says(window_update(0, 2**30))
    client.frames()
    client.asks(*range(1, 2001, 2))
    first = client.told()
    assert 0 < sum(word.endswith("end") for word in first) < 60
    world.gives(Blocked(client.conn))
    world.wait(0.1)
    assert len(world.access) <= 200, "these count, until the transport has taken them"
    world.gives(Sent(client.conn))
    told = first
    for _ in range(1000):
        world.wait(0.001)
        told += client.told()
    assert sum(word.endswith("end") for word in told) + sum("REFUSED" in word for word in told) == 1000
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
    for byte in headers(1, get("/" + "a" * 20))[:12]:
        client.says(bytes([byte]))
        world.wait(1)
    assert client.told() == ["GOAWAY 0 ENHANCE_YOUR_CALM"]
    assert [event.name for event in world.records[-1:]] == ["header_timeout"]
    client.leaves()
    ends(world)


def test_each_head_has_time_of_its_own() -> None:
    world = played(HELLO)
    client = Client(world)
    client.says(headers(1, get()[:5], more=True))
    for stream in range(1, 9, 2):
        world.wait(6)
        client.says(h2.continuation(stream, get()[5:]), headers(stream + 2, get()[:5], more=True))
    assert client.told() == [word for stream in range(1, 9, 2) for word in (f"{stream} 200", f"{stream} DATA 'hello' end")]
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
