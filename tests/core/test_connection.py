"""Connections in odd moments: closes that drag on, writers that wait, and what a filter can break."""

from __future__ import annotations

from math import inf
from random import Random
from typing import Any

import pytest

from coulee.core import (
    Cancelled,
    Config,
    Exchange,
    ExchangeError,
    Filter,
    Forwarding,
    Headers,
    Limits,
    Peer,
    Proxy,
    Request,
    Response,
    Timeouts,
    blocking,
    fetch,
    native,
    respond,
    sleep,
)
from coulee.core.parts import Data
from coulee.core.peer import Balancer, Routed
from coulee.core.seam import Blocked, Close, Closed, Drain, Finished, Sent
from coulee.core.stream import SoleStream
from coulee.core.upstream import Upstream
from tests.core.ledger import body, on, status
from tests.core.test_exchange import GET, OK, PUT, make, pending
from tests.core.world import LISTENER, World

PLAIN = Forwarding(x_forwarded=False, forwarded=False)


# ------------------------------------------------------------------------------------------------------- endings


def test_a_close_whose_last_bytes_are_never_taken_becomes_a_reset() -> None:
    world = make()
    client, _ = pending(world)
    world.holds_closes = True
    world.receives(client, b"")
    origin = next(iter(world.reading.keys() - {client}))
    world.receives(origin, OK)
    assert world.closing[client] is False
    world.wait(29)
    assert world.closing[client] is False
    world.closed.remove(client)
    world.wait(2)
    assert world.closing[client] is True
    world.gives(Closed(client))
    world.holds_closes = False
    world.leaves_nothing()


def test_an_alarm_from_before_a_close_rings_for_nobody() -> None:
    world = make(config=Config(timeouts=Timeouts(answer_timeout_s=2, connect_timeout_s=1), forwarding=PLAIN))
    client, origin = pending(world)
    world.holds_closes = True
    world.receives(origin, OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert world.closing[origin] is False
    world.wait(10)
    assert world.closing[origin] is False, "its grace is not over"
    world.gives(Closed(origin))
    assert status(world.sent(client)) == 200


def test_what_is_pushed_behind_a_close_is_dropped() -> None:
    world = make()
    client, _ = pending(world)
    connection = world.machine.connections[client]
    world.holds_closes = True
    connection.close(abort=True)
    connection.push(b"too late")
    connection.send_eof()
    connection.send_eof()
    connection.close()
    operations = world.gives()
    assert operations == [Close(client, True)]


def test_two_ends_of_stream_are_one() -> None:
    world = make()
    client, _ = pending(world)
    connection = world.machine.connections[client]
    connection.send_eof()
    connection.send_eof()
    world.gives()
    assert world.eofs == [client]


# ------------------------------------------------------------------------------------------------------- writers


def test_a_writer_that_waits_hears_that_its_connection_died() -> None:
    """The client's body goes up faster than the origin takes it; then the origin is gone."""
    world = make(config=Config(limits=Limits(replay_bytes_max=0), forwarding=PLAIN))
    client, origin = pending(world, PUT.replace(b"100000", b"900000"))
    world.receives(client, b"x" * 70_000)
    world.gives(Blocked(origin))
    world.receives(client, b"x" * 70_000)
    world.receives(client, b"x" * 70_000)
    world.resets(origin)
    assert status(world.sent(client)) == 502


def test_a_writer_that_waits_is_cancelled_with_its_client() -> None:
    world = make()
    client, origin = pending(world, PUT.replace(b"100000", b"900000"))
    world.receives(client, b"x" * 70_000)
    world.gives(Blocked(origin))
    world.receives(client, b"x" * 70_000)
    world.receives(client, b"x" * 70_000)
    world.resets(client)
    assert world.closing[origin] is True
    assert world.access[0].reason == "client_gone"


def test_a_writer_that_waited_goes_on_when_there_is_room() -> None:
    world = make()
    client, origin = pending(world, PUT.replace(b"100000", b"210000"))
    for _ in range(3):
        world.receives(client, b"x" * 70_000)
        if _ == 0:
            world.gives(Blocked(origin))
    world.gives(Sent(origin))
    assert len(world.sent(origin)) > 200_000
    world.receives(origin, OK)
    assert status(world.sent(client)) == 200


def test_an_origin_that_has_begun_to_answer_and_takes_no_more_is_given_up() -> None:
    world = make(config=Config(timeouts=Timeouts(send_stall_timeout_s=5), forwarding=PLAIN))
    client, origin = pending(world, PUT.replace(b"100000", b"900000"))
    world.receives(client, b"x" * 70_000)
    world.gives(Blocked(origin))
    world.receives(client, b"x" * 70_000)
    world.receives(client, b"x" * 70_000)
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na")
    world.wait(9.9)
    assert not world.access, "its last Send held more than 64 KiB, so it has twice the time"
    world.wait(0.2)
    assert world.access[0].reason == "upstream_timeout"
    assert client in world.eofs


def test_a_stream_that_has_failed_takes_nothing_more() -> None:
    world = make()
    _, origin = pending(world)
    proxy = world.machine
    assert isinstance(proxy, Proxy)
    connection = proxy.connections[origin]
    assert isinstance(connection, Upstream)
    stream = SoleStream(connection, 1, inf)
    stream.expect_within(3.0)
    first = ExchangeError("upstream_reset", "the first")
    stream.fail(first)
    stream.fail(ExchangeError("upstream_reset", "the second"))
    with pytest.raises(ExchangeError) as caught:
        stream.send(Data(b"x")).send(None)
    assert caught.value is first


def test_an_origin_that_is_gone_while_its_answer_is_looked_at_takes_no_more_of_the_body() -> None:
    async def think(exchange: Exchange, response: Response) -> None:
        await sleep(1)

    world = make(on("response_filter", think))
    client, origin = pending(world, PUT)
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na")
    world.resets(origin)
    world.receives(client, b"x" * 1000)
    world.wait(1)
    assert status(world.sent(client)) == 200
    assert client in world.eofs, "and its answer was cut"
    assert world.access[0].reason == "upstream_reset"


# ----------------------------------------------------------------------------------------- what filters can get wrong


@pytest.mark.parametrize(
    ("phase", "change"),
    [
        ("response_filter", lambda _, response: setattr(response, "length", 99)),
        ("response_filter", lambda _, response: setattr(response, "length", 1)),
        ("response_filter", lambda _, response: setattr(response, "status", 99)),
        ("upstream_request_filter", lambda _, request: setattr(request, "length", 7)),
        ("upstream_request_filter", lambda _, request: setattr(request, "method", "NO WAY")),
    ],
)
def test_a_message_that_a_filter_has_broken_is_a_500_and_no_empty_reply(phase: str, change: Any) -> None:
    world = make(on(phase, change))
    client, origin = pending(world)
    if origin not in world.closing:
        world.receives(origin, OK)
    answer = world.sent(client)
    assert status(answer) == 500
    assert b"filter_error" in answer
    assert len(world.events("filter_error")) == 1


def test_even_the_answer_to_a_failure_can_be_broken() -> None:
    world = make(on("fail_to_proxy", lambda exchange, error: Response(1000)))
    client = world.client()
    world.receives(client, GET)
    world.refuses()
    assert not world.sent(client)
    assert world.closing[client] is True
    assert world.access[0].reason == "filter_error"


def test_a_trailer_filter_that_raises() -> None:
    def boom(*_: object) -> None:
        raise RuntimeError("boom")

    world = make(on("request_trailer_filter", boom))
    client, _ = pending(world, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    world.receives(client, b"0\r\nT: u\r\n\r\n")
    assert status(world.sent(client)) == 500


def test_a_balancer_that_raises_is_an_internal_error() -> None:
    class Broken(Balancer):
        def choose(self, exchange: object) -> Peer | None:
            raise ZeroDivisionError

    world = World(Proxy(Broken()).fresh(rng=Random(1), listen=[LISTENER]))
    client = world.client()
    world.receives(client, GET)
    answer = world.sent(client)
    assert status(answer) == 500
    assert b"internal_error" in answer
    assert "ZeroDivisionError" in str(world.events("internal_error")[0].fields["traceback"])


def test_a_balancer_that_cannot_bear_to_be_told_is_reported_and_nothing_else() -> None:
    class Deaf(Balancer):
        def choose(self, exchange: object) -> Peer | None:
            return Peer(("10.0.0.1", 80))

        def begin(self, peer: Peer) -> None:
            raise ZeroDivisionError

        def answered(self, exchange: Routed, peer: Peer, response: Response, latency_s: float) -> None:
            raise ZeroDivisionError

        def end(self, peer: Peer, reason: str, status: int, latency_s: float) -> None:
            raise ZeroDivisionError

    world = World(Proxy(Deaf(), config=Config(forwarding=PLAIN)).fresh(rng=Random(1), listen=[LISTENER]))
    client, origin = pending(world)
    world.receives(origin, OK)
    assert world.sent(client) == OK
    assert [event.text for event in world.events("internal_error")] == [
        f"internal_error: {method}() of the balancer: ZeroDivisionError: " for method in ("begin", "answered", "end")
    ]
    assert world.access[0].reason == ""


def test_a_filter_that_thinks_too_long_about_the_last_answer_gets_none() -> None:
    async def think(exchange: Exchange, error: ExchangeError) -> None:
        await sleep(100)

    world = make(on("fail_to_proxy", think))
    client, _ = pending(world)
    world.gives(Drain(1))
    world.wait(7)
    assert world.closing[client] is True
    assert world.access[0].reason == "shutting_down"
    assert world.machine.finished


def test_a_filter_that_will_not_be_cancelled_is_left_behind_and_recorded() -> None:
    async def stubborn(exchange: Exchange) -> None:
        while True:
            try:
                await sleep(1)
            except Cancelled:  # what nobody should write
                continue

    world = make(on("request_filter", stubborn))
    client = world.client()
    world.receives(client, GET)
    world.resets(client)
    (record,) = world.access
    assert record.reason == "internal_error"
    assert "abandoned" in record.detail
    assert len(world.events("internal_error")) == 1
    client = world.client()
    world.receives(client, GET)
    world.gives(Drain(1))
    world.wait(10)
    assert len(world.access) == 2
    assert world.machine.finished


def test_a_stubborn_reader_of_a_body_gets_no_more_of_it() -> None:
    async def stubborn(exchange: Exchange) -> None:
        while True:
            try:
                await exchange.body()
            except Cancelled:
                continue

    world = make(on("request_filter", stubborn))
    client = world.client()
    world.receives(client, PUT)
    world.gives(Drain(1))
    world.wait(10)
    assert [record.reason for record in world.access] == ["internal_error"]
    assert world.machine.finished


def test_the_answer_to_who_was_refused_may_be_cut_short_by_their_leaving() -> None:
    async def think(exchange: Exchange, error: ExchangeError) -> None:
        await sleep(10)

    world = make(on("fail_to_proxy", think))
    client = world.client()
    world.receives(client, b"garbage\r\n\r\n")
    world.resets(client)
    assert world.access[0].reason == "client_gone"


def test_an_error_answer_that_finds_no_room_is_cancelled_with_its_client() -> None:
    world = make()
    client, origin = pending(world, GET + GET)
    world.receives(origin, OK.replace(b"Length: 2", b"Length: 100000") + b"x" * 60_000)
    world.gives(Blocked(client))
    world.receives(origin, b"x" * 39_998)
    second = world.sent(origin)
    assert GET in second
    connection = world.machine.connections[client]
    connection.out_bytes += 100_000  # as if much more were waiting
    world.receives(origin, b"garbage\r\n\r\n")
    world.resets(client)
    assert [record.reason for record in world.access] == ["", "client_gone"]


def test_the_phases_of_a_plain_filter_do_nothing() -> None:
    plain: Any = Filter()
    assert [
        plain.early_request_filter(None),
        plain.request_filter(None),
        plain.upstream_peer(None),
        plain.connected_to_upstream(None, False),
        plain.fail_to_connect(None, None),
        plain.upstream_request_filter(None, None),
        plain.request_body_filter(None, b"", True),
        plain.request_trailer_filter(None, None),
        plain.upstream_response_filter(None, None),
        plain.upstream_response_body_filter(None, b"", True),
        plain.response_filter(None, None),
        plain.response_body_filter(None, b"", True),
        plain.response_trailer_filter(None, None),
        plain.error_while_proxy(None, None),
        plain.fail_to_proxy(None, None),
        plain.logging(None),
    ] == [None] * 16


def test_a_body_filter_that_gets_nothing_with_the_head() -> None:
    calls: list[tuple[bytes, bool]] = []
    world = make(on("response_body_filter", lambda _, data, ended: calls.append((data, ended))))
    client, origin = pending(world)
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    assert calls == []
    world.receives(origin, b"hi")
    assert calls == [(b"hi", True)]
    assert body(world.sent(client)) == b"2\r\nhi\r\n0\r\n\r\n"


# ---------------------------------------------------------------------------------------------------------- jobs


def test_jobs_beyond_the_limit_wait_for_their_turn() -> None:
    async def ask(exchange: Exchange) -> Response:
        return respond(200, str(await native(answer)))

    async def answer() -> int:
        return 42

    world = make(on("request_filter", ask), config=Config(limits=Limits(jobs_max=1), forwarding=PLAIN))
    clients = [world.client() for _ in range(3)]
    for client in clients:
        world.receives(client, GET)
    assert len(world.jobs) == 1
    assert world.jobs[0].mode == "native"
    world.resets(clients[1])
    world.gives(Finished(world.jobs[0].job, 42))
    assert body(world.sent(clients[0])) == b"42"
    assert len(world.jobs) == 2, "the next in the queue, for one has left it"
    world.gives(Finished(world.jobs[1].job, 43))
    assert body(world.sent(clients[2])) == b"43"


def test_a_turn_that_nobody_takes_goes_to_the_next() -> None:
    async def ask(exchange: Exchange) -> Response:
        return respond(200, await blocking(str, exchange.request.target))

    world = make(on("request_filter", ask), config=Config(limits=Limits(jobs_max=1), forwarding=PLAIN))
    clients = [world.client() for _ in range(3)]
    for client in clients:
        world.receives(client, GET)
    proxy = world.machine
    proxy.next_job()  # it is the second one's turn, and in the same moment it leaves
    world.resets(clients[1])
    world.gives(Finished(world.jobs[0].job, "a"))
    assert len(world.jobs) == 2
    world.gives(Finished(world.jobs[1].job, "c"))
    assert body(world.sent(clients[2])) == b"c"


def test_a_sub_request_to_a_peer_of_ones_own_choice() -> None:
    async def ask(exchange: Exchange) -> None:
        request = Request("POST", "/check", Headers({"Host": "auth"}), data=b"who")
        answer = await fetch(request, peer=Peer("/run/auth.sock"))
        exchange.tags["auth"] = answer.status

    world = make(on("request_filter", ask))
    client = world.client()
    world.receives(client, GET)
    assert world.connecting[0].address == "/run/auth.sock"
    auth = world.connects()
    assert world.sent(auth) == b"POST /check HTTP/1.1\r\nHost: auth\r\nContent-Length: 3\r\n\r\nwho"
    world.receives(auth, b"HTTP/1.1 204 No Content\r\n\r\n")
    origin = world.connects()
    world.receives(origin, OK)
    assert world.access[0].tags == {"auth": 204}


# ------------------------------------------------------------------------------------------- the pool in odd moments


def test_a_connection_that_dies_in_the_hand_of_a_waiter_is_not_lent_again() -> None:
    world = make(config=Config(limits=Limits(connections_per_peer_max=1), forwarding=PLAIN))
    client, origin = pending(world)
    second = world.client()
    world.receives(second, GET)
    proxy = world.machine
    assert isinstance(proxy, Proxy)
    connection = proxy.connections[origin]
    assert isinstance(connection, Upstream)
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    (desk,) = proxy.pool.desks.values()
    waiter = desk.waiters[0]
    desk.waiters.popleft().call(connection.lend())
    waiter.ring(0.0)  # its time runs out in the same turn, and that is no matter any more
    connection.closing = True
    world.resets(second)
    assert connection not in proxy.pool.idle
    assert desk.total == 0
    connection.ended_by_peer()
    connection.stream = None
    connection.ended_by_peer()
    assert client not in world.closed


def test_the_first_reason_for_leaving_counts() -> None:
    ended: list[str] = []

    async def wait(exchange: Exchange) -> None:
        try:
            await sleep(1e9)
        finally:
            exchange.cancel(ExchangeError("send_timeout", "a second reason"))
            ended.append("once")

    world = make(on("request_filter", wait))
    client = world.client()
    world.receives(client, GET)
    world.resets(client)
    assert ended == ["once"]
    assert world.access[0].reason == "client_gone"


def test_an_exchange_that_breaks_behind_its_record_is_recorded_once() -> None:
    world = make()
    client, origin = pending(world)
    proxy = world.machine
    exchange = next(iter(proxy.downstreams)).exchange  # type: ignore[attr-defined]
    world.receives(origin, OK)
    exchange.abandoned(RuntimeError("too late"))
    world.gives()
    assert len(world.access) == 1
    assert world.sent(client) == OK


def test_a_drain_of_a_proxy_without_connections_waits_for_nothing() -> None:
    world = make()
    world.gives()
    world.gives(Drain(10))
    assert world.machine.finished
    assert world.machine.deadline is None


def test_of_an_origin_nobody_has_said_anything() -> None:
    world = make()
    world.receives(world.client(), GET)
    origin = world.machine.connections[world.connects()]
    assert (origin.header, origin.server_name, origin.security) == (None, "", None)
