"""How many client connections there may be, in all and from each address, and what those beyond are told."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from coulee.core import Config, Exchange, Filter, Forwarding, Limits, Proxy, Response, respond
from coulee.core.seam import Address, Drain
from coulee.lb import Cluster
from tests.core.world import LISTENER, World

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
PLAIN = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False))


class Echo(Filter):
    """Answers itself, and notes what `logging` saw."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def request_filter(self, exchange: Exchange) -> Response:
        return respond(200, exchange.request.path, headers={"Date": "now"})

    def logging(self, exchange: Exchange) -> None:
        self.reasons.append(exchange.error.reason if exchange.error is not None else "")


def make(*filters: Filter, **changes: Any) -> World:
    proxy = Proxy(Cluster("http://10.0.0.1"), filters, replace(PLAIN, **changes))
    return World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER]))


def proxy_of(world: World) -> Proxy:
    assert isinstance(world.machine, Proxy)
    return world.machine


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def is_last(world: World, client: int, answer: bytes, code: int, word: str) -> None:
    """The answer says what was wrong, and ends its connection."""
    assert status(answer) == code
    assert f'details="{word}"'.encode() in answer
    assert b"\r\nConnection: close\r\n" in answer
    assert client in world.eofs
    record = world.access[-1]
    assert (record.status, record.reason) == (code, word)


def test_an_address_with_too_many_connections_is_told_so() -> None:
    echo = Echo()
    world = make(echo, limits=Limits(connections_per_address_max=2))
    first, second = world.client(), world.client()
    third = world.client()
    assert not world.sent(third), "it is told when it asks"
    world.receives(third, GET + GET)
    answer = world.sent(third)
    is_last(world, third, answer, 503, "too_many_connections")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nRetry-After: 1\r\n" in answer
    assert b"error=connection_limit_reached" in answer
    assert world.access[0].target == "/a"
    assert world.access[0].detail == "there are 2 connections from this address"
    assert echo.reasons == ["too_many_connections"]
    other = world.client(("10.0.0.10", 1))
    for client in (first, second, other):
        world.receives(client, GET)
        assert status(world.sent(client)) == 200
    world.resets(first)
    world.receives(fourth := world.client(), GET)
    assert status(world.sent(fourth)) == 200, "there is room again"
    assert proxy_of(world).counters.connections_refused == 1


def test_an_address_is_forgotten_with_its_last_connection() -> None:
    world = make(Echo())
    table = proxy_of(world).admission.from_address
    clients = [world.client((f"10.0.0.{number}", 1)) for number in (1, 1, 2)]
    assert table == {"10.0.0.1": 2, "10.0.0.2": 1}
    for client in clients:
        world.resets(client)
    assert table == {}
    assert proxy_of(world).admission.admitted == 0


@pytest.mark.parametrize(
    ("one", "two", "counted_together"),
    [
        (("10.0.0.1", 1), ("10.0.0.1", 2), True),
        (("10.0.0.1", 1), ("::ffff:10.0.0.1", 2), True),
        (("2001:db8::1", 1), ("2001:db8::2:3:4:5", 2), True),
        (("fe80::1%eth0", 1), ("fe80::1%eth1", 2), True),
        (("2001:db8::1", 1), ("2001:db8:0:1::1", 2), False),
        (("0.0.0.1", 1), ("::1", 2), False),
        ("", "", False),  # Unix sockets
        (("192.168.0.1", 1), ("192.168.0.1", 2), False),  # a trusted peer
        (("::ffff:192.168.0.1", 1), ("::ffff:192.168.0.1", 2), False),
        (("somebody", 1), ("somebody", 2), False),
    ],
)
def test_what_counts_as_one_address(one: Address, two: Address, counted_together: bool) -> None:
    forwarding = Forwarding(trusted_peers=("192.168.0.0/16",))
    world = make(Echo(), limits=Limits(connections_per_address_max=1), forwarding=forwarding)
    first, second = world.client(one), world.client(two)
    world.receives(second, GET)
    assert status(world.sent(second)) == (503 if counted_together else 200)
    world.resets(first)
    world.resets(second)
    admission = proxy_of(world).admission
    assert (admission.admitted, admission.refused, admission.from_address) == (0, 0, {})


def test_addresses_may_have_any_number_of_connections() -> None:
    world = make(Echo(), limits=Limits(connections_per_address_max=0))
    for _ in range(300):
        client = world.client()
    world.receives(client, GET)
    assert status(world.sent(client)) == 200
    assert not proxy_of(world).admission.from_address


def test_who_is_to_be_refused_has_the_time_of_a_head_to_ask() -> None:
    world = make(Echo(), limits=Limits(connections_per_address_max=1))
    world.client()
    silent = world.client()
    world.wait(5)
    slow = world.client()
    world.receives(slow, GET[:5])
    world.wait(4.9)
    assert not world.closing
    world.wait(0.2)
    assert world.closing == {silent: False}
    assert not world.access
    for _ in range(4):
        world.wait(1)
        world.receives(slow, b"x")
    world.wait(1)
    is_last(world, slow, world.sent(slow), 408, "header_timeout")


def test_who_is_to_be_refused_may_leave_or_ask_nonsense() -> None:
    world = make(Echo(), limits=Limits(connections_per_address_max=1))
    world.client()
    world.receives(leaving := world.client(), b"")
    assert world.closing == {leaving: False}
    assert proxy_of(world).admission.refused == 0
    world.receives(confused := world.client(), b"garbage\r\n\r\n")
    is_last(world, confused, world.sent(confused), 400, "bad_request")
    large = world.client()
    world.receives(large, PUT + b"x" * 1000)
    is_last(world, large, world.sent(large), 503, "too_many_connections")
    world.receives(large, b"x" * 90_000)
    assert large not in world.closing, "it gets a moment to read that"
    world.wait(1.1)
    assert world.closing[large] is False
    assert proxy_of(world).admission.refused == 0


def test_so_many_are_refused_at_once_and_the_others_closed_without_a_word() -> None:
    limits = Limits(connections_per_address_max=1, refused_connections_max=1)
    world = make(Echo(), limits=limits)
    world.client()
    refused = world.client()
    away = world.client()
    assert world.closing == {away: True}
    assert away not in world.reading
    counters = proxy_of(world).counters
    assert (counters.connections, counters.connections_refused, counters.connections_turned_away) == (3, 1, 1)
    world.receives(other := world.client(("10.0.0.10", 1)), GET)
    assert status(world.sent(other)) == 200, "we go on accepting: others may come in"
    world.resets(refused)
    world.receives(again := world.client(), GET)
    assert status(world.sent(again)) == 503
    world.leaves_nothing()


def test_beyond_the_cap_in_all_some_are_refused_and_then_we_stop_accepting() -> None:
    world = make(Echo(), limits=Limits(downstream_connections_max=1, refused_connections_max=2))
    first = world.client(("10.0.0.1", 1))
    refused = [world.client(("10.0.0.2", 1)), world.client("")]
    assert not world.credits, "whoever comes now waits in the system's backlog"
    for client in refused:
        world.receives(client, GET)
        is_last(world, client, world.sent(client), 503, "too_many_connections")
        assert world.access[-1].detail == "there are 1 connections"
    world.receives(refused[0], b"")
    assert len(world.credits) == 1
    world.receives(world.client(), GET)
    world.resets(first)
    world.receives(welcome := world.client(), GET)
    assert status(world.sent(welcome)) == 200


def test_a_listener_that_was_closed_while_it_starved_takes_no_credit_from_another() -> None:
    world = make(Echo(), limits=Limits(downstream_connections_max=2, refused_connections_max=0))
    proxy = proxy_of(world)
    world.gives()
    other = proxy.listen(("127.0.0.1", 9999))
    world.gives()
    first, _, third = world.client(), world.client(), world.client()
    assert world.closing == {third: True}, "a credit that was given before the cap was reached"
    assert not world.credits
    proxy.unlisten(world.listeners[0])
    world.gives()
    world.resets(first)
    (credit,) = world.credits
    assert credit.listener == other


def test_who_is_to_be_refused_does_not_hold_up_a_drain() -> None:
    world = make(Echo(), limits=Limits(connections_per_address_max=1))
    world.client()
    silent = world.client()
    half = world.client()
    world.receives(half, GET[:5])
    world.gives(Drain(5))
    world.wait(0.051)
    assert world.closing == {world.listeners[0]: False, 2: False, silent: False}
    world.receives(half, GET[5:])
    is_last(world, half, world.sent(half), 503, "too_many_connections")
    world.wait(0.051)
    assert world.machine.finished


def test_who_is_to_be_refused_and_is_accepted_while_it_drains_is_told_or_ended_soon() -> None:
    world = make(Echo(), limits=Limits(connections_per_address_max=1))
    held = world.client()
    world.receives(held, GET[:5])
    proxy = world.machine
    proxy.draining = True
    late = world.client()
    world.receives(late, GET[:5])
    for says in (b"", b"\r\n"):
        proxy.draining = False
        proxy.ask_to_accept(world.listeners[0])
        world.gives()
        proxy.draining = True
        silent = world.client()
        if says:
            world.receives(silent, says)
        world.wait(0.04)
        assert silent not in world.closing
        world.wait(0.011)
        assert world.closing[silent] is False
    world.receives(late, GET[5:])
    is_last(world, late, world.sent(late), 503, "too_many_connections")
