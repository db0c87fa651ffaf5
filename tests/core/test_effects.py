"""Sub-requests: what a balancer hears of them, and connections of their own. What else filters may await is in
test_exchange.py, test_kernel.py and test_dial.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from coulee.core import Exchange, ExchangeError, Limits, Peer, Request, Response, deadline, fetch, respond
from coulee.core.kernel import DeadlineExceeded
from tests.core.ledger import (
    ADDRESSES,
    BUSY,
    GET,
    OK,
    Ledger,
    asks,
    body,
    misses,
    on,
    played,
    proxy_of,
    reaches,
    status,
    wanted,
)
from tests.core.world import World

CHECK = b"GET /check HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n"
OTHER = Peer(ADDRESSES["b"], "b")


def fetching(**how: Any) -> Callable[[Exchange], Awaitable[Response]]:
    """A filter's function that answers with what a sub-request was answered, or with what became of it."""

    async def phase(exchange: Exchange) -> Response:
        try:
            answer = await fetch(Request("GET", "/check"), **how)
        except ExchangeError as error:
            return respond(599, error.reason)
        return respond(answer.status, answer.data)

    return phase


def asked(world: World) -> int:
    return asks(world, GET)


def is_over(world: World, ledger: Ledger) -> None:
    world.leaves_nothing()
    assert not proxy_of(world).pool.desks
    assert ledger.closed(), ledger.heard


def test_a_balancer_that_has_no_use_for_answers_is_told_of_none() -> None:
    world, ledger = played(on("request_filter", fetching()))
    ledger.hears_answers = False
    asked(world)
    world.wait(0.5)
    world.receives(reaches(world, "a"), OK)
    assert ledger.heard == ["begin a", "end a well 200 0.5"]


def test_the_balancer_hears_of_a_sub_request_as_of_any_attempt() -> None:
    world, ledger = played(on("request_filter", fetching()))
    client = asked(world)
    assert ledger.heard == ["begin a"]
    world.wait(0.5)
    origin = reaches(world, "a")
    assert world.sent(origin) == CHECK
    world.wait(0.5)
    world.receives(origin, OK[:-1])
    assert ledger.heard == ["begin a", "answered a 200 1"], "when its head is here, and not when all of it is"
    world.wait(5)
    world.receives(origin, OK[-1:])
    assert ledger.heard[2:] == ["end a well 200 1"]
    assert body(world.sent(client)) == b"hi"
    assert proxy_of(world).counters.attempts == 0, "it is no attempt at the request"
    is_over(world, ledger)


def test_a_status_is_an_answer() -> None:
    world, ledger = played(on("request_filter", fetching()))
    client = asked(world)
    world.receives(reaches(world, "a"), BUSY)
    assert status(world.sent(client)) == 503
    assert ledger.heard == ["begin a", "answered a 503 0", "end a well 503 0"]
    is_over(world, ledger)


@pytest.mark.parametrize(
    ("play", "reason", "heard"),
    [
        ("refuses", "upstream_refused", ["end a upstream_refused 0 0"]),
        ("dies", "upstream_reset", ["end a upstream_reset 0 0"]),
        ("dies in its body", "upstream_reset", ["answered a 200 0", "end a upstream_reset 200 0"]),
        ("says too much", "upstream_invalid", ["answered a 200 0", "end a upstream_invalid 200 0"]),
        ("is silent", "upstream_timeout", ["end a upstream_timeout 0 0"]),
    ],
)
def test_a_sub_request_that_fails(play: str, reason: str, heard: list[str]) -> None:
    world, ledger = played(on("request_filter", fetching(body_bytes_max=10)))
    client = asked(world)
    if play == "refuses":
        misses(world, "a")
    else:
        origin = reaches(world, "a")
        if play == "is silent":
            world.wait(61)
        elif play == "says too much":
            world.receives(origin, OK.replace(b"2\r\n\r\nhi", b"20\r\n\r\n" + b"x" * 11))
        else:
            if play == "dies in its body":
                world.receives(origin, OK[:-1])
            world.resets(origin)
    assert body(world.sent(client)) == reason.encode()
    assert ledger.heard == ["begin a", *heard]
    is_over(world, ledger)


def test_who_no_longer_wants_it_is_nobodys_failure() -> None:
    world, ledger = played(on("request_filter", fetching()))
    client = asked(world)
    origin = reaches(world, "a")
    world.resets(client)
    assert world.closing[origin] is True
    assert ledger.heard == ["begin a", "end a client_gone 0 0"]
    is_over(world, ledger)


def test_a_deadline_around_it() -> None:
    async def hastily(exchange: Exchange) -> Response:
        try:
            with deadline(1.0):
                await fetch(Request("GET", "/check"))
        except DeadlineExceeded:
            return respond(599)
        raise AssertionError

    world, ledger = played(on("request_filter", hastily))
    client = asked(world)
    reaches(world, "a")
    world.wait(1.0)
    assert status(world.sent(client)) == 599
    assert ledger.heard == ["begin a", "end a client_gone 0 0"]
    is_over(world, ledger)


def test_a_balancer_that_says_why_there_is_nothing() -> None:
    class Broken(Ledger):
        def choose(self, exchange: object) -> Peer:
            raise ExchangeError("circuit_open", retry_after_s=9)

    world, ledger = played(on("request_filter", fetching()), ledger=Broken())
    client = asked(world)
    assert body(world.sent(client)) == b"circuit_open"
    assert not ledger.heard
    is_over(world, ledger)


def test_a_peer_of_ones_own_is_no_business_of_the_balancer() -> None:
    world, ledger = played(on("request_filter", fetching(peer=OTHER)))
    client = asked(world)
    world.receives(reaches(world, "b"), OK)
    assert body(world.sent(client)) == b"hi"
    assert not ledger.heard
    is_over(world, ledger)


@pytest.mark.parametrize("peer", [None, OTHER])
def test_a_fresh_one_has_a_connection_of_its_own(peer: Peer | None) -> None:
    name = "b" if peer else "a"
    world, ledger = played(on("request_filter", fetching(peer=peer)))
    client = asked(world)
    idle = reaches(world, name)
    world.receives(idle, OK)
    world.sent(client)
    proxy_of(world).chains.request_filter = (fetching(peer=peer, fresh=True),)
    world.receives(client, GET)
    assert wanted(world) == name, "though one lies idle"
    fresh = reaches(world, name)
    world.receives(fresh, OK)
    assert body(world.sent(client)) == b"hi"
    assert world.closing[fresh] is False, "and it is closed behind it"
    assert idle not in world.closing
    is_over(world, ledger)


def test_a_fresh_one_that_fails_leaves_nothing_either() -> None:
    world, ledger = played(on("request_filter", fetching(fresh=True)))
    client = asked(world)
    origin = reaches(world, "a")
    world.resets(origin)
    assert body(world.sent(client)) == b"upstream_reset"
    is_over(world, ledger)


def test_a_fresh_one_takes_its_place_at_the_cap() -> None:
    world, ledger = played(on("request_filter", fetching(fresh=True)), limits=Limits(connections_per_peer_max=1))
    first, second = asked(world), asked(world)
    assert wanted(world) == "a"
    world.receives(reaches(world, "a"), OK)
    assert body(world.sent(first)) == b"hi"
    assert wanted(world) == "a", "its place is free when it is closed"
    world.receives(reaches(world, "a"), OK)
    assert body(world.sent(second)) == b"hi"
    is_over(world, ledger)
