"""A second attempt beside a slow one, as packet traces: who answers first is taken, and the other is cut off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coulee.core import Exchange, ExchangeError, Headers, Limits, Peer, Request, Response, Retry, Timeouts, sleep
from coulee.core.peer import Routed
from coulee.core.seam import Drain
from tests.core.ledger import (
    ADDRESSES,
    BUSY,
    GET,
    HEAD,
    OK,
    POST,
    PUT,
    Ledger,
    asks,
    attempts,
    body,
    ends_well,
    misses,
    on,
    played,
    proxy_of,
    reaches,
    status,
    wanted,
)
from tests.core.world import World

HEDGED = Retry(hedge_after_s=1.0)
SLOWLY = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 6\r\n\r\nabc"


def racing(world: World, request: bytes = GET) -> tuple[int, int, int]:
    """A client, and two origins that both have its request."""
    client = asks(world, request)
    first = reaches(world, "a")
    world.wait(1.0)
    return client, first, reaches(world, "b")


# -------------------------------------------------------------------------------------------------- who is first


def test_who_answers_in_time_has_no_rival() -> None:
    world, ledger = played(retry=HEDGED)
    client = asks(world)
    origin = reaches(world, "a")
    assert world.sent(origin) == GET
    world.wait(0.9)
    world.receives(origin, OK)
    assert world.sent(client) == OK
    world.wait(2)
    assert wanted(world) == ""
    assert ledger.heard == ["begin a", "answered a 200 0.9", "end a well 200 0.9"]
    counters = proxy_of(world).counters
    assert (counters.hedges, counters.retries, counters.attempts, counters.connects) == (0, 0, 1, 1)
    ends_well(world, ledger, client)


def test_the_second_is_faster() -> None:
    world, ledger = played(retry=HEDGED)
    client, first, second = racing(world)
    assert (world.sent(first), world.sent(second)) == (GET, GET)
    world.wait(0.5)
    world.receives(second, OK)
    assert world.sent(client) == OK
    assert world.closing[first] is True, "who loses is cut off"
    assert second not in world.closing, "and the winner's connection may be used again"
    assert ledger.heard == [
        "begin a", "begin b", "end a superseded 0 0", "answered b 200 0.5", "end b well 200 0.5",
    ]  # fmt: skip
    (record,) = world.access
    assert attempts(world) == [("a", "superseded"), ("b", "")]
    assert record.attempts[0].detail == "another attempt was answered first"
    assert (record.peer, record.status, record.reason, record.bytes_out) == ("b", 200, "", 2)
    counters = proxy_of(world).counters
    assert (counters.hedges, counters.retries, counters.attempts, counters.connects) == (1, 0, 2, 2)
    (event,) = world.events("hedge")
    assert event.text == "GET /a: a is slow, trying b too"
    assert event.fields == {"peer": "a", "beside": "b"}
    ends_well(world, ledger, client)


def test_the_first_is_faster_after_all() -> None:
    world, ledger = played(retry=HEDGED)
    client, first, second = racing(world)
    world.wait(0.5)
    world.receives(first, OK)
    assert world.sent(client) == OK
    assert world.closing[second] is True
    assert first not in world.closing
    assert ledger.heard[-3:] == ["end b superseded 0 0", "answered a 200 1.5", "end a well 200 1.5"]
    assert attempts(world) == [("a", ""), ("b", "superseded")]
    assert world.access[0].peer == "a"
    ends_well(world, ledger, client)


def test_who_has_no_connection_yet_can_lose_as_well() -> None:
    world, ledger = played(retry=HEDGED)
    client = asks(world)
    connect = world.connecting[0].conn
    world.wait(1.0)
    assert wanted(world) == "ab"
    world.receives(reaches(world, "b"), OK)
    assert world.sent(client) == OK
    assert world.closing[connect] is True, "a connect that nobody waits for is given up"
    ends_well(world, ledger, client)


def test_the_winners_body_streams_on_as_any_other() -> None:
    world, ledger = played(retry=HEDGED)
    client, _, second = racing(world)
    world.receives(second, SLOWLY)
    assert body(world.sent(client)) == b"abc"
    world.wait(30)
    world.receives(second, b"def")
    assert world.sent(client) == b"def"
    assert second not in world.closing
    assert world.access[0].bytes_out == 6
    ends_well(world, ledger, client)


def test_a_winner_that_dies_in_its_body_is_cut_and_not_replaced() -> None:
    world, ledger = played(retry=HEDGED)
    client, _, second = racing(world)
    world.receives(second, SLOWLY)
    world.resets(second)
    assert client in world.eofs
    assert wanted(world) == ""
    assert attempts(world) == [("a", "superseded"), ("b", "upstream_reset")]
    assert ledger.heard[-1] == "end b upstream_reset 200 0"
    ends_well(world, ledger)


def test_a_head_request_is_hedged_too() -> None:
    world, ledger = played(retry=HEDGED)
    client, first, second = racing(world, HEAD)
    world.receives(second, b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 9\r\n\r\n")
    assert b"Content-Length: 9" in world.sent(client)
    assert world.closing[first] is True
    ends_well(world, ledger, client)


def test_interim_answers_of_a_race_are_not_passed_on() -> None:
    world, ledger = played(retry=HEDGED)
    client, first, second = racing(world)
    world.receives(first, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    world.receives(second, b"HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n" + OK)
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


def test_an_idle_connection_is_used_by_either() -> None:
    world, ledger = played(retry=HEDGED, ledger=Ledger("ba"))
    client = asks(world)
    origin = reaches(world, "b")
    world.receives(origin, OK)
    world.sent(origin)
    ledger.offers.reverse()
    other = asks(world)
    first = reaches(world, "a")
    world.sent(first)
    world.wait(1.0)
    assert wanted(world) == ""
    assert world.sent(origin) == GET, "it lay idle"
    world.receives(origin, OK)
    assert [attempt.reused for attempt in world.access[-1].attempts] == [False, True]
    assert world.access[-1].reused
    ends_well(world, ledger, client, other)


def test_the_first_wins_on_a_connection_that_lay_idle() -> None:
    world, ledger = played(retry=HEDGED)
    client = asks(world)
    origin = reaches(world, "a")
    world.receives(origin, OK)
    world.receives(client, GET)
    world.wait(1.0)
    reaches(world, "b")
    world.receives(origin, OK)
    assert [attempt.reused for attempt in world.access[-1].attempts] == [True, False]
    assert world.access[-1].reused
    ends_well(world, ledger, client)


def test_a_body_that_is_here_whole_is_sent_to_both() -> None:
    world, ledger = played(retry=HEDGED)
    client, first, second = racing(world, PUT)
    assert body(world.sent(first)) == body(world.sent(second)) == b"abc"
    world.receives(second, OK)
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


async def read_body(exchange: Exchange) -> None:
    await exchange.body()


def test_trailers_that_a_filter_waited_for_are_sent_to_both() -> None:
    world, ledger = played(on("request_filter", read_body), retry=HEDGED)
    chunked = b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: u\r\n\r\n"
    client, first, second = racing(world, chunked)
    assert body(world.sent(first)) == body(world.sent(second)) == b"1\r\nx\r\n0\r\nT: u\r\n\r\n"
    world.receives(second, OK)
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


# ----------------------------------------------------------------------------------------------- where there is none


@pytest.mark.parametrize(
    "request_",
    [
        POST,
        b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na",
        b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
    ids=["not idempotent", "with a body on its way", "an upgrade"],
)
def test_what_must_not_be_sent_twice_is_not(request_: bytes) -> None:
    world, ledger = played(retry=HEDGED)
    client = asks(world, request_)
    reaches(world, "a")
    world.wait(2)
    assert wanted(world) == ""
    world.resets(client)
    assert proxy_of(world).counters.attempts == 1
    ends_well(world, ledger)


def test_a_cluster_of_one_has_nobody_else_to_ask() -> None:
    world, ledger = played(retry=HEDGED, ledger=Ledger("a"))
    client = asks(world)
    origin = reaches(world, "a")
    world.wait(2)
    assert wanted(world) == ""
    assert ledger.grants == 1_000_000, "the budget is not asked for what nobody could do"
    world.receives(origin, OK)
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


def test_the_budget_may_refuse() -> None:
    world, ledger = played(retry=HEDGED)
    ledger.grants = 0
    client = asks(world)
    origin = reaches(world, "a")
    world.wait(2)
    assert wanted(world) == ""
    world.receives(origin, OK)
    assert world.sent(client) == OK
    assert proxy_of(world).counters.hedges == 0
    assert not world.events("hedge")
    ends_well(world, ledger, client)


def test_where_no_retries_are_allowed_there_is_no_hedge() -> None:
    world, ledger = played(retry=replace(HEDGED, retries_max=0))
    client = asks(world)
    reaches(world, "a")
    world.wait(2)
    assert wanted(world) == ""
    world.resets(client)
    ends_well(world, ledger)


def test_a_hedge_counts_as_a_retry() -> None:
    world, ledger = played(retry=replace(HEDGED, retries_max=1), ledger=Ledger("abc"))
    client, first, second = racing(world)
    world.resets(first)
    world.resets(second)
    assert wanted(world) == "", "both attempts are spent"
    assert status(world.sent(client)) == 502
    world, ledger = played(retry=replace(HEDGED, retries_max=1), ledger=Ledger("abc"))
    client = asks(world)
    misses(world, "a")
    reaches(world, "b")
    world.wait(2)
    assert wanted(world) == "", "a retry left none for a hedge"
    world.resets(client)
    ends_well(world, ledger)


def test_a_balancer_with_nothing_more_to_offer() -> None:
    class Reluctant(Ledger):
        def choose(self, exchange: Routed) -> Peer | None:
            return None if exchange.tried else super().choose(exchange)

    world, ledger = played(retry=HEDGED, ledger=Reluctant())
    client = asks(world)
    origin = reaches(world, "a")
    world.wait(2)
    world.receives(origin, OK)
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


# --------------------------------------------------------------------------------------------------- who fails


def test_the_first_fails_while_the_second_runs() -> None:
    world, ledger = played(retry=HEDGED, ledger=Ledger("abc"))
    client, first, second = racing(world)
    world.resets(first)
    assert wanted(world) == "", "there is one left"
    assert ledger.heard[-1] == "end a upstream_reset 0 0"
    world.receives(second, OK)
    assert world.sent(client) == OK
    assert attempts(world) == [("a", "upstream_reset"), ("b", "")]
    ends_well(world, ledger, client)


def test_the_second_fails_while_the_first_runs() -> None:
    world, ledger = played(retry=HEDGED)
    client = asks(world)
    first = reaches(world, "a")
    world.wait(1)
    misses(world, "b")
    world.receives(first, OK)
    assert world.sent(client) == OK
    assert attempts(world) == [("a", ""), ("b", "upstream_refused")]
    assert world.access[0].peer == "a"
    ends_well(world, ledger, client)


def test_the_first_fails_before_there_is_a_second_and_another_endpoint_is_tried() -> None:
    world, ledger = played(retry=HEDGED)
    client = asks(world)
    misses(world, "a")
    assert wanted(world) == "b"
    world.receives(reaches(world, "b"), OK)
    assert world.sent(client) == OK
    assert proxy_of(world).counters.hedges == 0
    assert proxy_of(world).counters.retries == 1
    ends_well(world, ledger, client)


def test_an_endpoint_that_refuses_is_not_asked_again_where_there_is_no_other() -> None:
    world, ledger = played(retry=HEDGED, ledger=Ledger("a"))
    client = asks(world)
    misses(world, "a")
    assert wanted(world) == ""
    assert status(world.sent(client)) == 502
    assert attempts(world) == [("a", "upstream_refused")]
    ends_well(world, ledger, client)


def test_when_both_fail_the_last_failure_counts_and_a_third_is_tried() -> None:
    seen: list[tuple[str, str, str, int, list[str]]] = []

    def note(exchange: Exchange, error: ExchangeError) -> None:
        assert exchange.peer is not None
        assert exchange.attempt is not None
        tried = list(exchange.tried)
        seen.append((error.reason, exchange.peer.name, exchange.attempt.peer, exchange.attempts, tried))

    world, ledger = played(on("error_while_proxy", note), retry=HEDGED, ledger=Ledger("abc"))
    client = asks(world)
    first = reaches(world, "a")
    world.wait(1)
    misses(world, "b")
    world.resets(first)
    assert seen == [("upstream_reset", "a", "a", 2, ["a", "b"])]
    (event,) = world.events("retry")
    assert event.fields["peer"] == "a", "it was the one whose failure is tried again"
    world.receives(reaches(world, "c"), OK)
    assert world.sent(client) == OK
    assert attempts(world) == [("a", "upstream_reset"), ("b", "upstream_refused"), ("c", "")]
    ends_well(world, ledger, client)


def test_when_all_fail_the_record_names_the_last_that_did() -> None:
    world, ledger = played(retry=replace(HEDGED, retries_max=1))
    client = asks(world)
    first = reaches(world, "a")
    world.wait(1)
    misses(world, "b")
    world.resets(first)
    assert status(world.sent(client)) == 502
    assert (world.access[0].peer, world.access[0].reason) == ("a", "upstream_reset")
    ends_well(world, ledger, client)


def test_a_status_that_is_tried_again_is_out_while_another_runs() -> None:
    world, ledger = played(retry=replace(HEDGED, statuses=(503,)))
    client, first, second = racing(world)
    world.receives(first, BUSY)
    assert not world.sent(client)
    assert world.closing[first] is True
    assert ledger.heard[-2:] == ["answered a 503 1", "end a upstream_status 503 1"]
    world.receives(second, OK)
    assert world.sent(client) == OK
    assert attempts(world) == [("a", "upstream_status"), ("b", "")]
    assert world.access[0].attempts[0].detail == "answered 503"
    ends_well(world, ledger, client)


def test_a_balancer_that_has_no_use_for_answers_is_told_of_none() -> None:
    world, ledger = played(retry=replace(HEDGED, statuses=(503,)))
    ledger.hears_answers = False
    client, first, second = racing(world)
    world.receives(first, BUSY)
    world.receives(second, OK)
    assert world.sent(client) == OK
    assert ledger.heard == ["begin a", "begin b", "end a upstream_status 503 1", "end b well 200 0"]


def test_the_last_answer_is_passed_on_whatever_its_status() -> None:
    world, ledger = played(retry=replace(HEDGED, statuses=(503,), retries_max=1))
    client, first, second = racing(world)
    world.receives(first, BUSY)
    world.receives(second, BUSY)
    assert world.sent(client) == BUSY
    assert attempts(world) == [("a", "upstream_status"), ("b", "")]
    assert ledger.heard[-2:] == ["answered b 503 0", "end b well 503 0"]
    ends_well(world, ledger, client)


def test_a_status_that_is_tried_again_of_the_only_one() -> None:
    world, ledger = played(retry=replace(HEDGED, statuses=(503,)))
    client = asks(world)
    first = reaches(world, "a")
    world.receives(first, BUSY)
    assert first not in world.closing, "its body was here, so its connection is whole"
    world.receives(reaches(world, "b"), OK)
    assert world.sent(client) == OK
    assert ledger.heard[:3] == ["begin a", "answered a 503 0", "end a upstream_status 503 0"]
    ends_well(world, ledger, client)


def test_a_balancer_that_cannot_bear_what_it_hears_of_a_race() -> None:
    class Broken(Ledger):
        def answered(self, exchange: Routed, peer: Peer, response: Response, latency_s: float) -> None:
            super().answered(exchange, peer, response, latency_s)
            raise RuntimeError("boom")

        def end(self, peer: Peer, reason: str, status: int, latency_s: float) -> None:
            super().end(peer, reason, status, latency_s)
            raise RuntimeError("boom")

    world, ledger = played(retry=replace(HEDGED, statuses=(503,)), ledger=Broken())
    client, first, second = racing(world)
    world.receives(first, BUSY)
    world.receives(second, OK)
    assert world.sent(client) == OK
    assert [event.text[: event.text.index(" of")] for event in world.events("internal_error")] == [
        "internal_error: answered()", "internal_error: end()", "internal_error: answered()", "internal_error: end()",
    ]  # fmt: skip
    ends_well(world, ledger, client)


# ------------------------------------------------------------------------------------------- limits, and who leaves


def test_each_of_a_race_has_the_limit_of_a_try() -> None:
    world, ledger = played(retry=replace(HEDGED, try_timeout_s=2.5, retries_max=1))
    client, first, second = racing(world)
    world.wait(1.5)
    assert world.closing[first] is True
    assert second not in world.closing
    world.wait(1.0)
    assert status(world.sent(client)) == 504
    assert attempts(world) == [("a", "upstream_timeout"), ("b", "upstream_timeout")]
    ends_well(world, ledger, client)


def test_the_limit_of_all_attempts_ends_a_race() -> None:
    world, ledger = played(retry=replace(HEDGED, total_timeout_s=1.5))
    client, first, second = racing(world)
    world.wait(0.5)
    assert status(world.sent(client)) == 504
    assert world.closing[first] is world.closing[second] is True
    assert attempts(world) == [("a", "upstream_timeout"), ("b", "upstream_timeout")]
    ends_well(world, ledger, client)


def test_the_limit_of_all_attempts_may_pass_in_the_moment_of_the_hedge() -> None:
    world, ledger = played(retry=replace(HEDGED, total_timeout_s=1.5))
    client = asks(world)
    reaches(world, "a")
    world.now = 2.0  # the machine was busy elsewhere: both are due
    world.gives(None)
    assert status(world.sent(client)) == 504
    ends_well(world, ledger, client)


def test_an_idle_connection_that_a_hedge_took_in_that_moment_comes_back_or_ends() -> None:
    world, ledger = played(retry=replace(HEDGED, total_timeout_s=1.5), ledger=Ledger("ba"))
    before = asks(world)
    world.receives(reaches(world, "b"), OK)
    ledger.offers.reverse()
    client = asks(world)
    reaches(world, "a")
    world.now = 2.0
    world.gives(None)
    assert status(world.sent(client)) == 504
    ends_well(world, ledger, before, client)


@pytest.mark.parametrize("moment", ["first connects", "first waits", "second connects", "second waits", "answer"])
def test_a_client_that_leaves_ends_both(moment: str) -> None:
    world, ledger = played(retry=HEDGED)
    client = asks(world)
    conns = [world.connecting[0].conn]
    if moment != "first connects":
        reaches(world, "a")
    if moment.startswith(("second", "answer")):
        world.wait(1)
        conns.append(world.connecting[0].conn)
    if moment in ("second waits", "answer"):
        reaches(world, "b")
    if moment == "answer":
        world.receives(conns[1], SLOWLY)
    world.resets(client)
    assert all(world.closing[conn] is True for conn in conns)
    (record,) = world.access
    assert record.reason == "client_gone"
    ended = ["superseded", "client_gone"] if moment == "answer" else ["client_gone"] * len(conns)
    assert [attempt.reason for attempt in record.attempts] == ended
    ends_well(world, ledger)


def test_a_drain_that_ends_in_a_race_answers_503() -> None:
    world, ledger = played(retry=HEDGED)
    client, _, _ = racing(world)
    world.gives(Drain(0.5))
    world.wait(0.5)
    assert status(world.sent(client)) == 503
    assert attempts(world) == [("a", "shutting_down"), ("b", "shutting_down")]
    world.wait(60)
    assert world.machine.finished
    assert ledger.closed()


def test_a_queue_for_a_connection_is_a_part_of_an_attempt() -> None:
    world, ledger = played(
        retry=HEDGED, limits=Limits(connections_per_peer_max=1), timeouts=Timeouts(pool_wait_s=3), ledger=Ledger("a")
    )
    one = asks(world)
    origin = reaches(world, "a")
    ledger.offers.append(Peer(ADDRESSES["b"], "b"))
    two = asks(world)
    world.wait(1.0)
    assert wanted(world) == "b", "the one that waits for an answer; the one that waits for a connection waits there too"
    other = reaches(world, "b")
    world.receives(other, OK)
    assert world.sent(one) == OK
    assert world.closing[origin] is True
    world.receives(other, OK)
    assert world.sent(two) == OK
    assert attempts(world) == [("a", "superseded"), ("b", "")]
    ends_well(world, ledger, one, two)


# --------------------------------------------------------------------------------------------------------- filters


def test_filters_see_the_peer_whose_request_they_prepare() -> None:
    seen: list[tuple[str, bool, int, str]] = []

    def note(exchange: Exchange, request: Request) -> None:
        assert exchange.peer is not None
        assert exchange.attempt is not None
        seen.append((exchange.peer.name, exchange.reused, exchange.attempts, exchange.attempt.peer))
        request.headers.set("X-To", exchange.peer.name)

    answered: list[str] = []

    def look(exchange: Exchange, response: Response) -> None:
        assert exchange.peer is not None
        assert exchange.upstream_request is not None
        answered.append(f"{exchange.peer.name} {exchange.upstream_request.headers['x-to']}")

    world, ledger = played(on("upstream_request_filter", note), on("upstream_response_filter", look), retry=HEDGED)
    client = asks(world)
    world.wait(1)
    second = reaches(world, "b")
    first = reaches(world, "a")  # the slower one comes later
    assert seen == [("b", False, 2, "b"), ("a", False, 2, "a")]
    assert b"X-To: a" in world.sent(first)
    assert b"X-To: b" in world.sent(second)
    world.receives(second, OK)
    assert answered == ["b b"]
    ends_well(world, ledger, client)


@pytest.mark.parametrize("phase", ["connected_to_upstream", "upstream_request_filter"])
def test_a_filter_that_raises_in_one_of_a_race_fails_the_request(phase: str) -> None:
    def of_b(exchange: Exchange, *_: object) -> None:
        assert exchange.peer is not None
        if exchange.peer.name == "b":
            raise RuntimeError("boom")

    world, ledger = played(on(phase, of_b), retry=HEDGED)
    client, first, second = racing(world)
    assert status(world.sent(client)) == 500
    assert world.closing[first] is world.closing[second] is True
    assert attempts(world) == [("a", "filter_error"), ("b", "filter_error")]
    assert world.access[0].reason == "filter_error"
    ends_well(world, ledger, client)


def test_a_filter_that_raises_where_the_second_is_to_go_fails_the_request() -> None:
    def choose(exchange: Exchange) -> None:
        if exchange.attempts:
            raise RuntimeError("boom")

    world, ledger = played(on("upstream_peer", choose), retry=HEDGED)
    client = asks(world)
    first = reaches(world, "a")
    world.wait(1)
    assert status(world.sent(client)) == 500
    assert world.closing[first] is True
    assert attempts(world) == [("a", "filter_error")]
    ends_well(world, ledger, client)


def test_a_filter_that_fails_one_of_a_race_with_a_reason_takes_it_out() -> None:
    def of_b(exchange: Exchange, request: Request) -> None:
        assert exchange.peer is not None
        if exchange.peer.name == "b":
            raise ExchangeError("bad_request", "not to b")

    world, ledger = played(on("upstream_request_filter", of_b), retry=HEDGED)
    client, first, _ = racing(world)
    world.receives(first, OK)
    assert world.sent(client) == OK
    assert attempts(world) == [("a", ""), ("b", "bad_request")]
    ends_well(world, ledger, client)


@pytest.mark.parametrize("outcome", ["answers", "dies"])
def test_a_race_that_is_decided_while_a_filter_looks_for_a_second_has_none(outcome: str) -> None:
    async def choose(exchange: Exchange) -> None:
        if exchange.attempts == 1:
            await sleep(1)

    world, ledger = played(on("upstream_peer", choose), retry=replace(HEDGED, retries_max=1))
    client = asks(world)
    first = reaches(world, "a")
    world.wait(1.5)
    if outcome == "answers":
        world.receives(first, OK)
    else:
        world.resets(first)
    world.wait(1)
    counters = proxy_of(world).counters
    assert counters.hedges == 0
    if outcome == "answers":
        assert world.sent(client) == OK
        assert attempts(world) == [("a", "")]
    else:
        world.wait(1)
        world.receives(reaches(world, "b"), OK)
        assert world.sent(client) == OK
        assert counters.retries == 1, "it is an ordinary retry"
    ends_well(world, ledger, client)


async def until_three(exchange: Exchange, request: Request) -> None:
    await sleep(3.0 - exchange.now)


@pytest.mark.parametrize(
    ("answers", "taken", "ends"),
    [
        ((OK, OK), OK, ["end b superseded 200 2", "end a well 200 3"]),
        ((OK, BUSY), OK, ["end b superseded 503 2", "end a well 200 3"]),
        ((BUSY, OK), OK, ["end a upstream_status 503 3", "end b well 200 2"]),
        ((BUSY, BUSY), BUSY, ["end a upstream_status 503 3", "end b well 503 2"]),
    ],
)
def test_both_answer_in_the_same_turn(answers: tuple[bytes, bytes], taken: bytes, ends: list[str]) -> None:
    """Origins that answer before they are asked, and a filter that lets both be asked at the same moment."""
    retry = replace(HEDGED, statuses=(503,), retries_max=1)
    world, ledger = played(on("upstream_request_filter", until_three), retry=retry)
    client, first, second = racing(world)
    world.receives(first, answers[0])
    world.receives(second, answers[1])
    assert not world.sent(client)
    world.wait(2)
    assert world.sent(client) == taken
    assert [line for line in ledger.heard if line.startswith("end")] == ends
    assert len([line for line in ledger.heard if line.startswith("answered")]) == 2
    ends_well(world, ledger, client)


def test_a_filter_that_raises_for_the_second_in_the_turn_in_which_the_first_has_won() -> None:
    async def wait(exchange: Exchange, request: Request) -> None:
        assert exchange.peer is not None
        name = exchange.peer.name
        await sleep(3.0 - exchange.now)
        if name == "b":
            raise RuntimeError("boom")

    world, ledger = played(on("upstream_request_filter", wait), retry=HEDGED)
    client, first, second = racing(world)
    world.receives(first, OK)
    world.wait(2)
    assert status(world.sent(client)) == 500
    assert world.closing[first] is world.closing[second] is True
    assert attempts(world) == [("a", "filter_error"), ("b", "filter_error")]
    ends_well(world, ledger, client)


def test_a_mistake_in_a_race_is_an_internal_error() -> None:
    class Broken(Ledger):
        def may_retry(self, exchange: Routed) -> bool:
            raise RuntimeError("boom")

    world, ledger = played(retry=HEDGED, ledger=Broken())
    client = asks(world)
    first = reaches(world, "a")
    world.wait(1)
    assert status(world.sent(client)) == 500
    assert world.closing[first] is True
    assert attempts(world) == [("a", "internal_error")]
    assert world.access[0].attempts[0].detail == world.access[0].detail == "RuntimeError: boom"
    ends_well(world, ledger, client)


def test_a_hedge_after_a_retry() -> None:
    world, ledger = played(retry=HEDGED, ledger=Ledger("abc"))
    client = asks(world)
    misses(world, "a")
    reaches(world, "b")
    world.wait(1)
    world.receives(reaches(world, "c"), OK)
    assert world.sent(client) == OK
    assert attempts(world) == [("a", "upstream_refused"), ("b", "superseded"), ("c", "")]
    counters = proxy_of(world).counters
    assert (counters.hedges, counters.retries, counters.attempts) == (1, 1, 3)
    ends_well(world, ledger, client)


def test_headers_are_not_shared_between_the_two() -> None:
    def add(exchange: Exchange, request: Request) -> None:
        assert isinstance(request.headers, Headers)
        request.headers.add("X-Once", "1")

    world, ledger = played(on("upstream_request_filter", add), retry=HEDGED)
    client, first, second = racing(world)
    assert world.sent(first).count(b"X-Once") == world.sent(second).count(b"X-Once") == 1
    world.resets(client)
    ends_well(world, ledger)
