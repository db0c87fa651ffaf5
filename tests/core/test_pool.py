"""The pool of upstream connections: its rules one by one, and any sequence of events against a small model of it."""

from __future__ import annotations

import os
from collections import deque
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coulee.core import Config, Exchange, Forwarding, Limits, Peer, Proxy, Retry, Timeouts, sleep
from coulee.core.peer import PeerLimits
from coulee.core.seam import Blocked, Drain, Sent
from coulee.core.upstream import Upstream
from coulee.lb import Cluster
from tests.core.ledger import PLAIN, Ledger, ends_well, on, played, wanted
from tests.core.ledger import asks as asks_of
from tests.core.world import LISTENER, World

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nhi"
CLOSING = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


def make(limits: Limits | None = None, timeouts: Timeouts | None = None, *, retries: int = 0) -> World:
    config = Config(
        limits=limits or Limits(),
        timeouts=timeouts or Timeouts(),
        retry=Retry(retries_max=retries),
        forwarding=Forwarding(x_forwarded=False, forwarded=False),
    )
    return World(Proxy(Cluster("http://10.0.0.1"), config=config).fresh(rng=Random(1), listen=[LISTENER]))


def asks(world: World) -> int:
    client = world.client()
    world.receives(client, GET)
    return client


def proxy_of(world: World) -> Proxy:
    assert isinstance(world.machine, Proxy)
    return world.machine


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def idle_connections(world: World, count: int) -> list[int]:
    """Connections that lie idle, the one used first in front."""
    for _ in range(count):
        asks(world)
    origins = [world.connects() for _ in range(count)]
    for origin in origins:
        world.sent(origin)
        world.receives(origin, OK)
    return origins


# ------------------------------------------------------------------------------------------------------------- rules


def test_what_never_takes_its_last_bytes_is_closed_though_nobody_has_it() -> None:
    world = make()
    client = world.client()
    world.receives(client, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab")
    origin = world.connects()
    world.gives(Blocked(origin))
    world.receives(client, b"cdef")
    world.receives(origin, CLOSING)
    assert status(world.sent(client)) == 200
    assert origin not in world.closing, "the rest of the request goes first"
    world.wait(31)
    assert world.closing[origin] is True
    world.leaves_nothing()


def test_the_one_used_last_is_lent_first() -> None:
    world = make()
    first, second = idle_connections(world, 2)
    asks(world)
    assert world.sent(second) == GET
    asks(world)
    assert world.sent(first) == GET


def test_the_one_idle_for_longest_goes_when_there_are_too_many() -> None:
    world = make(Limits(idle_connections_max=1))
    first, second = idle_connections(world, 2)
    assert world.closing[first] is False
    assert second not in world.closing


def test_an_idle_connection_ends_before_the_origin_would_end_it() -> None:
    world = make()
    (origin,) = idle_connections(world, 1)
    world.wait(54)
    assert origin not in world.closing
    world.wait(2)
    assert world.closing[origin] is False


def test_any_byte_on_an_idle_connection_ends_it() -> None:
    world = make()
    (origin,) = idle_connections(world, 1)
    world.receives(origin, OK)
    assert world.closing[origin] is False
    asks(world)
    assert world.connecting, "its bytes were nobody's answer"


def test_an_idle_connection_that_the_origin_ends() -> None:
    world = make()
    first, second = idle_connections(world, 2)
    world.receives(first, b"")
    assert world.closing[first] is False
    world.resets(second)
    asks(world)
    assert world.connecting


def test_bytes_behind_an_answer_end_its_connection() -> None:
    world = make()
    asks(world)
    origin = world.connects()
    world.receives(origin, OK + b"HTTP/1.1 200 OK\r\n\r\n")
    assert world.closing[origin] is False


def test_a_connection_whose_request_was_not_taken_whole_is_not_used_again() -> None:
    world = make()
    asks(world)
    origin = world.connects()
    world.gives(Blocked(origin))
    world.receives(origin, OK)
    assert origin in world.closing
    world = make()
    asks(world)
    origin = world.connects()
    world.gives(Blocked(origin))
    world.gives(Sent(origin))
    world.receives(origin, OK)
    assert origin not in world.closing


def test_at_the_cap_exchanges_queue_first_come_first_served() -> None:
    world = make(Limits(connections_per_peer_max=1))
    first, second, third = asks(world), asks(world), asks(world)
    origin = world.connects()
    assert not world.connecting
    for client in (first, second, third):
        assert world.sent(origin) == GET
        world.receives(origin, OK)
        assert world.sent(client) == OK


def test_the_queue_is_bounded_in_number_and_in_time() -> None:
    world = make(Limits(connections_per_peer_max=1, pool_waiters_max=1))
    asks(world)
    world.connects()
    patient, surplus = asks(world), asks(world)
    answer = world.sent(surplus)
    assert status(answer) == 503
    assert b"pool_full" in answer
    assert not world.sent(patient)
    world.wait(5.1)
    assert status(world.sent(patient)) == 503
    assert world.access[-1].detail == "no connection became free in time"


def test_who_waits_may_open_a_connection_when_another_is_gone() -> None:
    world = make(Limits(connections_per_peer_max=1))
    asks(world)
    waiting = asks(world)
    origin = world.connects()
    world.receives(origin, CLOSING)
    origin = world.connects()
    world.receives(origin, OK)
    assert world.sent(waiting) == OK


def test_who_leaves_the_queue_in_the_turn_of_being_called_passes_it_on() -> None:
    world = make(Limits(connections_per_peer_max=1))
    asks(world)
    second, third = asks(world), asks(world)
    origin = world.connects()
    pool = proxy_of(world).pool
    (desk,) = pool.desks.values()
    waiter = desk.waiters.popleft()
    connection = next(each for each in proxy_of(world).connections.values() if isinstance(each, Upstream))
    waiter.call(None)  # a place, which is not its own, for the next to have
    desk.total += 1
    desk.connections_max += 1
    world.resets(second)
    assert len(world.connecting) == 1
    assert connection.number == origin
    other = world.connects()
    world.receives(other, OK)
    assert world.sent(third) == OK


def test_who_leaves_the_queue_with_a_connection_in_hand_gives_it_back() -> None:
    world = make(Limits(connections_per_peer_max=1))
    first = asks(world)
    second = asks(world)
    origin = world.connects()
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh")
    proxy = proxy_of(world)
    pool = proxy.pool
    (desk,) = pool.desks.values()
    connection = proxy.connections[origin]
    assert isinstance(connection, Upstream)
    desk.waiters.popleft().call(connection.lend())
    world.resets(second)
    assert connection in pool.idle
    assert first not in world.closing


def test_a_fresh_connection_makes_room_for_itself_at_the_cap() -> None:
    world = make(Limits(connections_per_peer_max=2), retries=2)
    first, second = idle_connections(world, 2)
    client = asks(world)
    assert world.sent(second) == GET
    world.resets(second)
    assert first not in world.closing, "there is room"
    fresh = world.connects()
    other = asks(world)
    assert world.sent(first) == GET
    world.receives(fresh, OK)
    assert world.sent(client) == OK
    world.receives(first, OK)
    assert world.sent(other) == OK
    world = make(Limits(connections_per_peer_max=1), retries=2)
    (only,) = idle_connections(world, 1)
    proxy = proxy_of(world)
    desk = next(iter(proxy.pool.desks.values()))
    proxy.kernel.start(proxy.pool.acquire(desk.peer))  # what the second attempt of a request does
    world.gives()
    assert world.closing[only] is False
    assert len(world.connecting) == 1


def test_groups_do_not_share_connections() -> None:
    one, two = Peer(("10.0.0.1", 80), group="a"), Peer(("10.0.0.1", 80), group="b")
    assert one.key != two.key
    proxy = Proxy(Cluster("http://10.0.0.1")).fresh(rng=Random(1))
    assert proxy.pool.take(one) is None


def test_a_drain_ends_what_lies_idle() -> None:
    world = make()
    first, second = idle_connections(world, 2)
    world.gives(Drain(10))
    assert (world.closing[first], world.closing[second]) == (False, False)


def test_nothing_goes_back_while_draining() -> None:
    world = make(Limits(connections_per_peer_max=1))
    asks(world)
    waiting = asks(world)
    origin = world.connects()
    world.gives(Drain(10))
    world.receives(origin, OK)
    assert world.closing[origin] is False
    origin = world.connects()
    world.receives(origin, OK)
    assert status(world.sent(waiting)) == 200
    world.wait(2)
    assert world.machine.finished


# ------------------------------------------------------------------------------------------------ limits of one peer


def limited(**limits: Any) -> tuple[World, Ledger]:
    """A proxy before one peer that has limits of its own."""
    return played(ledger=Ledger("a", PeerLimits(**limits)), retry=Retry(retries_max=0))


def change(ledger: Ledger, **limits: Any) -> None:
    """Other limits from now on; the proxy learns of them with the next request that needs a connection."""
    ledger.offers[0].limits = PeerLimits(**limits)


def wait_for(world: World, *clients: int) -> list[int]:
    """Which of these were answered, and how."""
    return [status(answer) if (answer := world.sent(client)) else 0 for client in clients]


def test_a_peers_own_cap_and_queue() -> None:
    world, ledger = limited(connections_max=2, waiters_max=1)
    clients = [asks(world) for _ in range(4)]
    assert len(world.connecting) == 2
    assert wait_for(world, *clients) == [0, 0, 0, 503]
    assert world.access[0].detail == "1 exchanges wait for a already"
    origins = [world.connects(), world.connects()]
    for origin in (*origins, origins[0]):
        world.receives(origin, OK)
    assert wait_for(world, *clients) == [200, 200, 200, 0]
    ends_well(world, ledger, *clients)


def test_a_peer_that_nobody_may_wait_for() -> None:
    world, ledger = limited(connections_max=1, waiters_max=0)
    first, second = asks(world), asks(world)
    assert wait_for(world, first, second) == [0, 503]
    world.resets(first)
    ends_well(world, ledger, second)


def test_a_peers_own_patience() -> None:
    world, ledger = limited(connections_max=1, wait_s=0.5)
    first, second = asks(world), asks(world)
    world.connects()
    world.wait(0.4)
    assert wait_for(world, second) == [0]
    world.wait(0.2)
    assert wait_for(world, first, second) == [0, 503]
    world.resets(first)
    ends_well(world, ledger, second)


def test_each_peer_has_its_own() -> None:
    ledger = Ledger("ab")
    ledger.offers[0].limits = PeerLimits(connections_max=1, waiters_max=0)
    ledger.offers[1].limits = PeerLimits(connections_max=2, waiters_max=0)
    world, _ = played(ledger=ledger)
    clients = [asks(world) for _ in range(4)]
    assert wanted(world) == "abb", "the first is full with one, the second with two"
    assert wait_for(world, *clients) == [0, 0, 0, 503]
    for client in clients[:3]:
        world.resets(client)
    ends_well(world, ledger, clients[3])


def test_what_a_peer_does_not_say_is_what_is_said_for_all() -> None:
    world, ledger = played(
        ledger=Ledger("a", PeerLimits(waiters_max=5)),
        limits=Limits(connections_per_peer_max=1, pool_waiters_max=0),
        timeouts=Timeouts(pool_wait_s=2.0),
        retry=Retry(retries_max=0),
    )
    clients = [asks(world) for _ in range(7)]
    assert wait_for(world, *clients) == [0] * 6 + [503]
    world.wait(2.1)
    assert wait_for(world, *clients[1:6]) == [503] * 5
    world.resets(clients[0])
    ends_well(world, ledger, *clients[1:])


@pytest.mark.parametrize("uses", [1, 2, 3])
def test_so_many_requests_a_connection_bears(uses: int) -> None:
    world, ledger = limited(requests_per_connection_max=uses)
    client = asks(world)
    origin = world.connects()
    for use in range(1, uses + 1):
        assert origin not in world.closing
        world.receives(origin, OK)
        if use < uses:
            world.receives(client, GET)
            assert world.sent(origin).endswith(GET)
    assert world.closing[origin] is False
    world.receives(client, GET)
    assert wanted(world) == "a"
    world.resets(client)
    ends_well(world, ledger)


def test_a_worn_connection_is_not_for_those_who_wait() -> None:
    world, ledger = limited(connections_max=1, requests_per_connection_max=2)
    clients = [asks(world) for _ in range(3)]
    origin = world.connects()
    world.receives(origin, OK)
    assert world.sent(origin) == GET * 2
    world.receives(origin, OK)
    assert world.closing[origin] is False
    world.receives(world.connects(), OK)
    assert wait_for(world, *clients) == [200, 200, 200]
    ends_well(world, ledger, *clients)


def test_a_connection_that_lies_idle_ends_with_its_life() -> None:
    world, ledger = limited(connection_life_s=10.0)
    client = asks(world)
    world.wait(2)
    origin = world.connects()
    world.wait(2)
    world.receives(origin, OK)
    world.wait(5.9)
    assert origin not in world.closing
    world.wait(0.2)
    assert world.closing[origin] is False, "10 s after it was asked for"
    ends_well(world, ledger, client)


def test_a_long_life_leaves_the_usual_limit_of_idleness() -> None:
    world, ledger = limited(connection_life_s=1000.0)
    client = asks(world)
    origin = world.connects()
    world.receives(origin, OK)
    world.wait(54.9)
    assert origin not in world.closing
    world.wait(0.2)
    assert world.closing[origin] is False
    ends_well(world, ledger, client)


def test_a_connection_that_is_lent_ends_its_exchange_first() -> None:
    world, ledger = limited(connection_life_s=10.0, connections_max=1)
    first, second = asks(world), asks(world)
    origin = world.connects()
    world.receives(origin, OK[:-1])
    world.wait(4)
    assert wait_for(world, second) == [0]
    world.wait(0.9)
    world.receives(origin, OK[-1:])
    assert world.sent(origin) == GET * 2, "it is young enough for one more"
    world.receives(origin, OK[:-1])
    world.wait(6)
    assert origin not in world.closing
    world.receives(origin, OK[-1:])
    assert world.closing[origin] is False
    assert wait_for(world, first, second) == [200, 200]
    ends_well(world, ledger, first, second)


def test_a_higher_cap_is_for_those_who_wait_first() -> None:
    world, ledger = limited(connections_max=1)
    clients = [asks(world) for _ in range(4)]
    assert len(world.connecting) == 1
    change(ledger, connections_max=3)
    clients.append(asks(world))
    assert len(world.connecting) == 3
    for origin in [world.connects() for _ in range(3)]:
        world.receives(origin, OK)
    assert wait_for(world, *clients) == [200, 200, 200, 0, 0], "first come, first served"
    for client in clients[3:]:
        world.resets(client)
    ends_well(world, ledger, *clients[:3])


def test_a_lower_cap_ends_what_is_surplus() -> None:
    world, ledger = limited(connections_max=4)
    clients = [asks(world) for _ in range(4)]
    origins = [world.connects() for _ in range(4)]
    for origin in origins[2:]:
        world.receives(origin, OK)
    change(ledger, connections_max=1)
    assert isinstance(world.machine, Proxy)
    pool = world.machine.pool
    pool.set_limits(ledger.offers[0])
    assert [origin in world.closing for origin in origins] == [False] * 4
    world.gives()
    assert [origin in world.closing for origin in origins] == [False, False, True, True], "idle ones at once"
    waiting = asks(world)
    assert not world.connecting
    world.receives(origins[0], OK)
    assert world.closing[origins[0]] is False, "busy ones when they are done"
    assert wait_for(world, waiting) == [0]
    world.receives(origins[1], OK)
    world.receives(origins[1], OK)
    assert wait_for(world, waiting) == [200], "and the last one stays"
    assert origins[1] not in world.closing
    assert pool.desks[ledger.offers[0].key].total == 1
    ends_well(world, ledger, *clients, waiting)


def test_a_lower_cap_holds_also_where_a_busy_one_dies() -> None:
    world, ledger = limited(connections_max=2)
    clients = [asks(world) for _ in range(2)]
    origins = [world.connects() for _ in range(2)]
    change(ledger, connections_max=1)
    waiting = asks(world)
    world.resets(origins[1])
    assert not world.connecting, "there is one still, and one is the cap"
    world.resets(origins[0])
    world.receives(world.connects(), OK)
    assert wait_for(world, *clients, waiting) == [502, 502, 200]
    ends_well(world, ledger, *clients, waiting)


def test_limits_of_a_peer_that_has_no_connections_need_no_telling() -> None:
    world, ledger = limited(connections_max=2)
    world.gives()
    assert isinstance(world.machine, Proxy)
    world.machine.pool.set_limits(ledger.offers[0])
    assert not world.machine.pool.desks


def test_a_connection_keeps_how_long_it_may_be_used() -> None:
    world, ledger = limited(requests_per_connection_max=1)
    first, second = asks(world), asks(world)
    old = world.connects()
    change(ledger, requests_per_connection_max=2)
    other = asks(world)
    world.receives(old, OK)
    assert world.closing[old] is False
    for _ in range(2):
        world.receives(world.connects(), OK)
    assert wait_for(world, first, second, other) == [200, 200, 200]
    ends_well(world, ledger, first, second, other)


# ------------------------------------------------------------------------------------------------ peers that are gone


def deserted(world: World, ledger: Ledger) -> None:
    """The peer is no endpoint any more."""
    assert isinstance(world.machine, Proxy)
    world.machine.pool.desert(ledger.offers[0])
    world.gives()


def test_connections_of_a_peer_that_is_gone_end_idle_ones_at_once_and_busy_ones_when_they_are_done() -> None:
    world, ledger = limited()
    first, second = asks(world), asks(world)
    idle, busy = world.connects(), world.connects()
    world.receives(idle, OK)
    deserted(world, ledger)
    assert world.closing[idle] is False
    assert busy not in world.closing
    world.receives(busy, OK)
    assert world.closing[busy] is False
    assert wait_for(world, first, second) == [200, 200]
    ends_well(world, ledger, first, second)


def test_who_waits_at_a_peer_that_is_gone_is_still_served() -> None:
    world, ledger = limited(connections_max=1)
    first, second = asks(world), asks(world)
    origin = world.connects()
    deserted(world, ledger)
    world.receives(origin, OK)
    assert world.closing[origin] is False
    origin = world.connects()
    world.receives(origin, OK)
    assert world.closing[origin] is False
    assert wait_for(world, first, second) == [200, 200]
    ends_well(world, ledger, first, second)


def test_a_peer_that_comes_back_is_like_any_other() -> None:
    world, ledger = limited()
    first = asks(world)
    origin = world.connects()
    deserted(world, ledger)
    second = asks(world)
    other = world.connects()
    world.receives(origin, OK)
    world.receives(other, OK)
    assert origin not in world.closing
    assert other not in world.closing
    ends_well(world, ledger, first, second)


def test_a_peer_that_has_no_connections_leaves_none() -> None:
    world, ledger = limited()
    world.gives()
    deserted(world, ledger)
    assert isinstance(world.machine, Proxy)
    assert not world.machine.pool.desks


# ------------------------------------------------------------------------------------------------------------- model

CAP, QUEUE, IDLE, PATIENCE_S = 3, 2, 2, 5.0


class PoolModel(RuleBasedStateMachine):
    """A proxy with one peer, and beside it a pool of plain lists. They agree after any sequence of events."""

    def __init__(self) -> None:
        super().__init__()
        far = 1e9
        self.world = make(
            Limits(connections_per_peer_max=CAP, pool_waiters_max=QUEUE, idle_connections_max=IDLE),
            Timeouts(pool_wait_s=PATIENCE_S, connect_timeout_s=far, answer_timeout_s=far, keep_alive_idle_s=far,
                     upstream_keep_alive_idle_s=far),
        )  # fmt: skip
        self.idle: list[int] = []
        self.busy: dict[int, int] = {}
        self.connecting: deque[int] = deque()  # clients
        self.waiting: deque[tuple[int, float]] = deque()

    # -- the model

    def place_freed(self) -> None:
        if self.waiting:
            self.connecting.append(self.waiting.popleft()[0])

    def connection_freed(self, origin: int) -> None:
        if self.waiting:
            client, _ = self.waiting.popleft()
            self.busy[origin] = client
            assert self.world.sent(origin) == GET
        else:
            self.idle.append(origin)
            if len(self.idle) > IDLE:
                retired = self.idle.pop(0)
                assert self.world.closing[retired] is False
                self.place_freed()

    # -- events

    @rule()
    def a_request_comes(self) -> None:
        client = asks(self.world)
        if self.idle:
            origin = self.idle.pop()
            self.busy[origin] = client
            assert self.world.sent(origin) == GET
        elif len(self.busy) + len(self.connecting) < CAP:
            self.connecting.append(client)
        elif len(self.waiting) < QUEUE:
            self.waiting.append((client, self.world.now + PATIENCE_S))
        else:
            assert status(self.world.sent(client)) == 503

    @precondition(lambda self: self.connecting)
    @rule()
    def a_connect_succeeds(self) -> None:
        origin = self.world.connects()
        self.busy[origin] = self.connecting.popleft()
        assert self.world.sent(origin) == GET

    @precondition(lambda self: self.connecting)
    @rule()
    def a_connect_fails(self) -> None:
        client = self.connecting.popleft()
        self.world.refuses()
        assert status(self.world.sent(client)) == 502
        self.place_freed()

    @precondition(lambda self: self.busy)
    @rule(choice=st.randoms(use_true_random=False), closes=st.booleans())
    def an_answer_comes(self, choice: Random, closes: bool) -> None:
        origin = choice.choice(list(self.busy))
        client = self.busy.pop(origin)
        self.world.receives(origin, CLOSING if closes else OK)
        assert self.world.sent(client) == OK
        if closes:
            assert self.world.closing[origin] is False
            self.place_freed()
        else:
            self.connection_freed(origin)

    @precondition(lambda self: self.busy)
    @rule(choice=st.randoms(use_true_random=False))
    def a_busy_connection_dies(self, choice: Random) -> None:
        origin = choice.choice(list(self.busy))
        client = self.busy.pop(origin)
        self.world.resets(origin)
        assert status(self.world.sent(client)) == 502
        self.place_freed()

    @precondition(lambda self: self.idle)
    @rule(choice=st.randoms(use_true_random=False), how=st.sampled_from(["bytes", "end", "reset"]))
    def an_idle_connection_is_of_no_more_use(self, choice: Random, how: str) -> None:
        origin = choice.choice(self.idle)
        self.idle.remove(origin)
        if how == "reset":
            self.world.resets(origin)
        else:
            self.world.receives(origin, b"x" if how == "bytes" else b"")
            assert self.world.closing[origin] is False

    @precondition(lambda self: self.busy or self.connecting or self.waiting)
    @rule(choice=st.randoms(use_true_random=False))
    def a_client_leaves(self, choice: Random) -> None:
        waiting = [client for client, _ in self.waiting]
        client = choice.choice([*self.busy.values(), *self.connecting, *waiting])
        self.world.resets(client)
        if client in waiting:
            self.waiting = deque(entry for entry in self.waiting if entry[0] != client)
        elif client in self.connecting:
            self.connecting.remove(client)
            self.place_freed()
        else:
            (origin,) = [origin for origin, other in self.busy.items() if other == client]
            del self.busy[origin]
            assert self.world.closing[origin] is True
            self.place_freed()

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.wait(seconds)
        while self.waiting and self.waiting[0][1] <= self.world.now:
            client, _ = self.waiting.popleft()
            assert status(self.world.sent(client)) == 503

    # -- agreement

    @invariant()
    def they_agree(self) -> None:
        pool = proxy_of(self.world).pool
        held = len(self.idle) + len(self.busy) + len(self.connecting)
        if not held and not self.waiting:
            assert not pool.desks
            return
        (desk,) = pool.desks.values()
        assert [connection.number for connection in desk.idle] == self.idle
        assert [connection.number for connection in pool.idle] == self.idle
        assert desk.total == held
        assert len(desk.waiters) == len(self.waiting)
        assert len(self.world.connecting) == len(self.connecting)

    def teardown(self) -> None:
        """Nothing is left when all is over."""
        self.world.gives(Drain(1))
        self.world.wait(30)
        assert self.world.machine.finished
        proxy = proxy_of(self.world)
        assert not proxy.pool.desks
        assert proxy.counters.requests == len(self.world.access)


TestPoolModel = PoolModel.TestCase
TestPoolModel.settings = settings(
    max_examples=2000 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 150, stateful_step_count=40, deadline=None
)


@pytest.mark.parametrize("codec", ["own", "h11"])
def test_a_connection_whose_request_was_not_written_to_its_end_is_not_used_again(codec: Any) -> None:
    """The origin has answered early and whole, and the end of the body is still in the hands of a filter: what is
    written next would be taken for a part of that body."""

    async def slowly(exchange: Exchange, data: bytes, ended: bool) -> bytes:
        if ended:
            await sleep(1)
        return data

    config = Config(http1_codec=codec, forwarding=PLAIN.forwarding)
    world, _ = played(on("request_body_filter", slowly), ledger=Ledger("a"), config=config)
    client = asks_of(world, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    origin = world.connects()
    world.receives(client, b"def")
    world.receives(origin, OK)
    assert world.sent(client) == OK
    assert origin in world.closing
    asks_of(world)
    assert world.connecting, "a connection of its own"
