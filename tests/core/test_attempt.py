"""Attempts, and what follows a failed one, as packet traces before a balancer that notes what it hears."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from coulee.core import Exchange, ExchangeError, Limits, Peer, Request, Response, Retry, Timeouts, respond, sleep
from coulee.core.peer import PeerLimits, Routed
from coulee.core.seam import Blocked, Drain, Sent
from tests.core.ledger import (
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

AGAIN = Retry(statuses=(502, 503))
LONG_PUT = b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"


# ------------------------------------------------------------------------------------------- what the balancer hears


def test_an_attempt_begins_is_answered_and_ends() -> None:
    world, ledger = played()
    client = asks(world)
    assert ledger.heard == ["begin a"]
    world.wait(0.25)
    origin = reaches(world, "a")
    world.wait(0.25)
    world.receives(origin, OK[:-1])
    assert ledger.heard == ["begin a", "answered a 200 0.5"]
    world.wait(0.25)
    world.receives(origin, OK[-1:])
    assert ledger.heard == ["begin a", "answered a 200 0.5", "end a well 200 0.5"]
    ends_well(world, ledger, client)


def test_a_balancer_that_has_no_use_for_answers_is_told_of_none() -> None:
    world, ledger = played()
    ledger.hears_answers = False
    client = asks(world)
    world.receives(reaches(world, "a"), OK)
    assert ledger.heard == ["begin a", "end a well 200 0"]
    assert world.sent(client) == OK


@pytest.mark.parametrize(
    ("moment", "heard"),
    [
        ("connecting", ["begin a", "end a client_gone 0 0"]),
        ("waiting", ["begin a", "end a client_gone 0 0"]),
        ("answering", ["begin a", "answered a 200 0", "end a client_gone 200 0"]),
    ],
)
def test_a_client_that_leaves_is_nobodys_failure(moment: str, heard: list[str]) -> None:
    world, ledger = played()
    client = asks(world)
    if moment != "connecting":
        origin = reaches(world, "a")
        if moment == "answering":
            world.receives(origin, OK[:-1])
    world.resets(client)
    assert ledger.heard == heard
    ends_well(world, ledger)


def test_an_answer_that_a_filter_replaces_is_the_origins_success() -> None:
    world, ledger = played(on("response_filter", lambda exchange, response: respond(418)))
    client = asks(world)
    world.receives(reaches(world, "a"), OK)
    assert status(world.sent(client)) == 418
    assert ledger.heard[-1] == "end a well 200 0"
    ends_well(world, ledger, client)


def test_a_filter_that_raises_is_not_the_peers_failure() -> None:
    def boom(*_: object) -> None:
        raise RuntimeError("boom")

    world, ledger = played(on("upstream_response_filter", boom))
    client = asks(world)
    world.receives(reaches(world, "a"), OK)
    assert status(world.sent(client)) == 500
    assert ledger.heard[-1] == "end a filter_error 200 0"
    ends_well(world, ledger, client)


def test_a_peer_that_a_filter_chose_is_told_too() -> None:
    own = Peer(("10.9.9.9", 99), "own")
    world, ledger = played(on("upstream_peer", lambda exchange: own))
    client = asks(world)
    assert ledger.heard == ["begin own"]
    world.resets(client)
    ends_well(world, ledger)


@pytest.mark.parametrize("method", ["begin", "answered", "end"])
def test_a_balancer_that_raises_is_reported_and_the_request_goes_on(method: str) -> None:
    class Broken(Ledger):
        pass

    def broken(self: Ledger, *given: Any) -> None:
        getattr(Ledger, method)(self, *given)
        raise KeyError("boom")

    setattr(Broken, method, broken)
    world, ledger = played(ledger=Broken())
    client = asks(world)
    world.receives(reaches(world, "a"), OK)
    assert world.sent(client) == OK
    (event,) = world.events("internal_error")
    assert f"{method}() of the balancer: KeyError: 'boom'" in event.text
    assert world.access[0].reason == ""
    ends_well(world, ledger, client)


@pytest.mark.parametrize("method", ["choose", "may_retry", "verdict"])
def test_a_balancer_that_raises_where_it_is_asked_fails_the_request(method: str) -> None:
    class Broken(Ledger):
        pass

    def broken(self: Ledger, *_: Any) -> None:
        raise KeyError("boom")

    setattr(Broken, method, broken)
    world, ledger = played(ledger=Broken())
    client = asks(world)
    if method != "choose":
        misses(world, "a")
    if method == "verdict":
        misses(world, "b")
    assert status(world.sent(client)) == 500
    assert world.access[0].reason == "internal_error"
    ends_well(world, ledger, client)


def test_what_a_request_is_told_that_failed_for_good_is_the_balancers_to_say() -> None:
    class Wider(Ledger):
        def verdict(self, error: ExchangeError) -> ExchangeError:
            return ExchangeError("no_healthy_endpoint", f"all are down: {error}", retry_after_s=6.2)

    world, ledger = played(ledger=Wider())
    client = asks(world)
    misses(world, "a")
    misses(world, "b")
    answer = world.sent(client)
    assert status(answer) == 503
    assert b"\r\nRetry-After: 7\r\n" in answer
    (record,) = world.access
    assert record.reason == "no_healthy_endpoint"
    assert record.detail.startswith("all are down: upstream_refused")
    assert [reason for _, reason in attempts(world)] == ["upstream_refused"] * 2, "what it was in truth"
    ends_well(world, ledger, client)


def test_a_balancer_that_says_why_it_has_nothing() -> None:
    class Closed(Ledger):
        def choose(self, exchange: Routed) -> Peer | None:
            raise ExchangeError("circuit_open", "a has failed", retry_after_s=3.5)

    world, ledger = played(ledger=Closed())
    client = asks(world)
    answer = world.sent(client)
    assert status(answer) == 503
    assert b'details="circuit_open"' in answer
    assert b"\r\nRetry-After: 4\r\n" in answer
    assert not ledger.heard
    ends_well(world, ledger, client)


def test_a_balancer_starts_with_the_machine_and_stops_with_its_drain() -> None:
    class Timed(Ledger):
        def start(self, proxy: Any) -> None:
            self.heard.append(f"start {proxy.kernel.now:g}")
            self.task = proxy.kernel.start(sleep(1e9))

        def stop(self) -> None:
            self.heard.append("stop")
            self.task.cancel()

    world, ledger = played(ledger=Timed())
    world.now = 2.0
    client = asks(world)
    assert ledger.heard == ["start 2", "begin a"]
    world.gives(Drain(1))
    assert ledger.heard[-1] == "stop"
    world.wait(30)
    assert world.machine.finished
    assert client in world.closed


def test_a_machine_whose_listener_never_stood_ends_its_balancer_too() -> None:
    class Timed(Ledger):
        def start(self, proxy: Any) -> None:
            self.task = proxy.kernel.start(sleep(1e9))

        def stop(self) -> None:
            self.task.cancel()

    world, _ = played(ledger=Timed())
    machine = proxy_of(world)
    machine.listen_at.clear()
    machine.handle(None, 0.0)
    machine.handle(Drain(1), 0.0)
    assert machine.finished


# ------------------------------------------------------------------------------------------------ where, and how often


def test_each_retry_goes_where_none_has_been() -> None:
    world, ledger = played(ledger=Ledger("abc"))
    client = asks(world)
    misses(world, "a")
    misses(world, "b")
    world.receives(reaches(world, "c"), OK)
    assert world.sent(client) == OK
    assert attempts(world) == [("a", "upstream_refused"), ("b", "upstream_refused"), ("c", "")]
    counters = proxy_of(world).counters
    assert (counters.attempts, counters.retries, counters.connects) == (3, 2, 3)
    ends_well(world, ledger, client)


def test_no_more_than_retries_max_follow() -> None:
    world, ledger = played(ledger=Ledger("abc"), retry=Retry(retries_max=1))
    client = asks(world)
    misses(world, "a")
    misses(world, "b")
    assert status(world.sent(client)) == 502
    assert wanted(world) == ""
    ends_well(world, ledger, client)


def test_the_budget_ends_it() -> None:
    world, ledger = played(ledger=Ledger("abc"))
    ledger.grants = 1
    client = asks(world)
    misses(world, "a")
    misses(world, "b")
    assert status(world.sent(client)) == 502
    assert attempts(world) == [("a", "upstream_refused"), ("b", "upstream_refused")]
    assert proxy_of(world).counters.retries == len(world.events("retry")) == 1
    ends_well(world, ledger, client)


def test_the_budget_is_asked_last() -> None:
    """What nobody could do, or may do, costs nothing of it."""
    world, ledger = played(ledger=Ledger("a"))
    client = asks(world)
    misses(world, "a")
    post = asks(world, POST)
    world.resets(reaches(world, "a"))
    assert [status(world.sent(each)) for each in (client, post)] == [502, 502]
    assert ledger.grants == 1_000_000
    ends_well(world, ledger, client, post)


def test_a_full_queue_is_passed_over_for_another_endpoint() -> None:
    world, ledger = played(limits=Limits(connections_per_peer_max=1, pool_waiters_max=0))
    first = asks(world)
    assert wanted(world) == "a"
    second = asks(world, POST)
    assert wanted(world) == "ab"
    world.receives(reaches(world, "b"), OK)
    assert world.sent(second) == OK
    assert attempts(world) == [("a", "pool_full"), ("b", "")]
    world.receives(reaches(world, "a"), OK)
    assert world.sent(first) == OK
    ends_well(world, ledger, first, second)


def test_where_all_queues_are_full() -> None:
    world, ledger = played(limits=Limits(connections_per_peer_max=1, pool_waiters_max=0))
    clients = [asks(world) for _ in range(3)]
    answer = world.sent(clients[2])
    assert status(answer) == 503
    assert b"\r\nRetry-After: 1\r\n" in answer
    assert attempts(world) == [("a", "pool_full"), ("b", "pool_full")]
    for client in clients[:2]:
        world.resets(client)
    ends_well(world, ledger, clients[2])


def test_reasons_that_are_not_on_the_list_end_it() -> None:
    world, ledger = played(retry=Retry(reasons=("upstream_reset",)))
    client = asks(world)
    misses(world, "a")
    assert status(world.sent(client)) == 502
    world.receives(client, GET)
    world.resets(reaches(world, "a"))
    world.receives(reaches(world, "b"), OK)
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


def test_what_is_no_http_is_tried_again_where_the_list_says_so() -> None:
    world, ledger = played(retry=Retry(reasons=("upstream_invalid",)))
    client = asks(world)
    world.receives(reaches(world, "a"), b"garbage\r\n\r\n")
    world.receives(reaches(world, "b"), OK)
    assert world.sent(client) == OK
    assert attempts(world) == [("a", "upstream_invalid"), ("b", "")]
    ends_well(world, ledger, client)


# ----------------------------------------------------------------------------------------------------- back-off


def test_only_an_endpoint_that_was_tried_is_given_a_moment() -> None:
    world, ledger = played(retry=Retry(retries_max=3, backoff_s=1.0, backoff_max_s=10.0))
    client = asks(world)
    world.resets(reaches(world, "a"))
    world.resets(reaches(world, "b"))
    assert wanted(world) == "", "both were tried"
    chance = Random(1).random()
    world.wait(chance - 0.001)
    assert wanted(world) == ""
    world.wait(0.002)
    world.resets(reaches(world, "a"))
    world.wait(2.0)
    world.receives(reaches(world, "a"), OK)
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


def test_the_first_retry_at_the_only_endpoint_goes_at_once() -> None:
    world, ledger = played(ledger=Ledger("a"), retry=Retry(backoff_s=1.0, backoff_max_s=1.0))
    client = asks(world)
    world.resets(reaches(world, "a"))
    assert wanted(world) == "a"
    world.resets(reaches(world, "a"))
    assert wanted(world) == ""
    world.wait(1.0)
    world.receives(reaches(world, "a"), OK)
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


def test_what_the_only_endpoint_did_not_process_goes_there_again_whatever_the_method() -> None:
    seen: list[Exchange] = []
    world, ledger = played(on("request_filter", lambda exchange: seen.append(exchange)), ledger=Ledger("a"))
    client = asks(world, POST)
    reaches(world, "a")
    upstream = seen[0].upstream
    assert upstream is not None
    upstream.fail(ExchangeError("upstream_refused_stream", "it was refused"))
    world.gives()
    origin = reaches(world, "a")
    assert body(world.sent(origin)) == b"abc"
    world.receives(origin, OK)
    assert world.sent(client) == OK
    assert attempts(world) == [("a", "upstream_refused_stream"), ("a", "")]
    ends_well(world, ledger, client)


def test_after_the_wait_the_balancer_is_asked_anew() -> None:
    world, ledger = played(ledger=Ledger("a"), retry=Retry(backoff_s=1.0, backoff_max_s=1.0))
    client = asks(world)
    world.resets(reaches(world, "a"))
    world.resets(reaches(world, "a"))
    ledger.offers = Ledger("b").offers
    world.wait(1.0)
    world.receives(reaches(world, "b"), OK)
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


def test_a_client_that_leaves_during_a_wait_ends_it() -> None:
    world, ledger = played(ledger=Ledger("a"), retry=Retry(backoff_s=1.0, backoff_max_s=1.0))
    client = asks(world)
    world.resets(reaches(world, "a"))
    world.resets(reaches(world, "a"))
    world.resets(client)
    world.wait(2)
    assert wanted(world) == ""
    assert [reason for _, reason in attempts(world)] == ["upstream_reset", "upstream_reset"]
    assert world.access[0].reason == "client_gone"
    ends_well(world, ledger)


def test_a_balancer_that_has_nothing_after_the_wait() -> None:
    class Emptied(Ledger):
        def choose(self, exchange: Routed) -> Peer | None:
            if len(self.heard) > 4:
                raise ExchangeError("no_healthy_endpoint")
            return super().choose(exchange) if self.offers else None

    for empty in (True, False):
        world, ledger = played(ledger=Emptied("a"), retry=Retry(backoff_s=1.0, backoff_max_s=1.0))
        client = asks(world)
        world.resets(reaches(world, "a"))
        world.resets(reaches(world, "a"))
        if empty:
            ledger.offers.clear()
        else:
            ledger.heard.append("and that is all")
        world.wait(1.0)
        answer = world.sent(client)
        assert status(answer) == 502, "what has failed says more than that there is nothing else"
        ends_well(world, ledger, client)


# ------------------------------------------------------------------------------------------------------ statuses


def test_a_status_of_the_list_is_tried_elsewhere() -> None:
    world, ledger = played(retry=AGAIN)
    client = asks(world)
    origin = reaches(world, "a")
    world.receives(origin, BUSY)
    assert not world.sent(client)
    world.receives(reaches(world, "b"), OK)
    assert world.sent(client) == OK
    assert attempts(world) == [("a", "upstream_status"), ("b", "")]
    assert world.access[0].attempts[0].detail == "answered 503"
    assert ledger.heard[:3] == ["begin a", "answered a 503 0", "end a upstream_status 503 0"]
    (event,) = world.events("retry")
    assert event.fields == {"peer": "a", "reason": "upstream_status", "detail": "answered 503"}
    assert origin not in world.closing, "its body was here whole"
    ends_well(world, ledger, client)


def test_a_status_that_is_not_on_the_list_is_passed_on() -> None:
    world, ledger = played(retry=Retry(statuses=(502,)))
    client = asks(world)
    world.receives(reaches(world, "a"), BUSY)
    assert world.sent(client) == BUSY
    ends_well(world, ledger, client)


@pytest.mark.parametrize(
    "change",
    [
        {"retry": Retry(statuses=(503,), retries_max=0)},
        {"retry": Retry(statuses=(503,), retries_max=1), "misses": True},
        {"retry": AGAIN, "request": POST},
        {"retry": AGAIN, "says": False},
        {"retry": AGAIN, "grants": 0},
    ],
    ids=["no retries", "none left", "not idempotent", "a filter says no", "no budget"],
)
def test_the_answer_goes_on_where_no_attempt_is_left(change: dict[str, Any]) -> None:
    says = change.get("says")
    world, ledger = played(on("error_while_proxy", lambda exchange, error: says), retry=change["retry"])
    ledger.grants = change.get("grants", 100)
    client = asks(world, change.get("request", GET))
    if "misses" in change:
        misses(world, "a")
        origin = reaches(world, "b")
    else:
        origin = reaches(world, "a")
    world.receives(origin, BUSY)
    assert world.sent(client) == BUSY
    assert wanted(world) == ""
    assert world.access[0].status == 503
    assert world.access[0].reason == ""
    assert ledger.heard[-1].endswith("well 503 0")
    ends_well(world, ledger, client)


def test_a_filter_may_have_a_status_tried_again_whatever_the_method() -> None:
    seen: list[str] = []

    def yes(exchange: Exchange, error: ExchangeError) -> bool:
        seen.append(str(error))
        return True

    world, ledger = played(on("error_while_proxy", yes), retry=AGAIN)
    client = asks(world, POST)
    world.receives(reaches(world, "a"), BUSY)
    origin = reaches(world, "b")
    assert body(world.sent(origin)) == b"abc"
    world.receives(origin, OK)
    assert world.sent(client) == OK
    assert seen == ["upstream_status: answered 503"]
    ends_well(world, ledger, client)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (BUSY, True),
        (BUSY.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), False),
        (BUSY[:-1], False),
        (b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: u\r\n\r\n", True),
        (b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", False),
        (b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nzz\r\n", False),
    ],
    ids=["whole", "closing", "cut", "chunked", "trailers", "not all", "broken"],
)
def test_the_connection_of_an_answer_that_is_thrown_away(answer: bytes, kept: bool) -> None:
    world, ledger = played(retry=AGAIN)
    client = asks(world)
    origin = reaches(world, "a")
    world.receives(origin, answer)
    assert (origin not in world.closing) is kept
    world.receives(reaches(world, "b"), OK)
    assert world.sent(client) == OK
    world.receives(client, GET)
    assert world.sent(origin).endswith(GET) if kept else wanted(world) == "a", "a whole one is used again"
    world.resets(client)
    ends_well(world, ledger)


def test_an_answer_without_a_body_is_thrown_away_whole() -> None:
    world, ledger = played(retry=AGAIN)
    client = asks(world, HEAD)
    origin = reaches(world, "a")
    world.receives(origin, BUSY[: -len(b"busy")])
    assert origin not in world.closing
    world.receives(reaches(world, "b"), OK[: -len(b"hi")])
    assert status(world.sent(client)) == 200
    ends_well(world, ledger, client)


def test_a_status_waits_for_a_moment_where_all_were_tried_and_is_passed_on_at_last() -> None:
    world, ledger = played(ledger=Ledger("a"), retry=AGAIN)
    client = asks(world)
    origin = reaches(world, "a")
    for _ in range(3):
        assert not world.sent(client)
        world.wait(0.05)
        conn = reaches(world, "a") if wanted(world) else origin
        world.receives(conn, BUSY)
    assert world.sent(client) == BUSY
    assert [reason for _, reason in attempts(world)] == ["upstream_status", "upstream_status", ""]
    ends_well(world, ledger, client)


def test_an_origin_that_dies_during_the_wait_does_not_matter() -> None:
    world, ledger = played(ledger=Ledger("a"), retry=AGAIN)
    client = asks(world)
    world.receives(reaches(world, "a"), BUSY[:-1])
    other = reaches(world, "a")
    world.receives(other, BUSY[:-1])
    world.resets(other)
    world.wait(0.05)
    world.receives(reaches(world, "a"), OK)
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


def test_a_body_in_the_replay_buffer_is_sent_again_after_a_status_and_goes_on() -> None:
    world, ledger = played(retry=AGAIN)
    client = asks(world, LONG_PUT + b"a" * 1000)
    first = reaches(world, "a")
    world.receives(client, b"b" * 1000)
    assert len(body(world.sent(first))) == 2000
    world.receives(first, BUSY)
    assert world.closing[first] is True, "it got a part of the body, and will not get the rest"
    second = reaches(world, "b")
    assert body(world.sent(second)) == b"a" * 1000 + b"b" * 1000
    world.receives(client, b"c" * 98_000)
    assert world.sent(second) == b"c" * 98_000
    world.receives(second, OK)
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


def test_a_body_that_is_spent_is_not_sent_again_after_a_status() -> None:
    world, ledger = played(on("error_while_proxy", lambda *_: True), retry=AGAIN)
    client = asks(world, LONG_PUT)
    first = reaches(world, "a")
    world.receives(client, b"a" * 70_000)
    world.receives(first, BUSY)
    assert wanted(world) == ""
    assert world.sent(client).startswith(BUSY[:12])
    world.receives(client, b"a" * 30_000)
    ends_well(world, ledger, client)


def test_nothing_is_kept_to_be_sent_again_once_the_answer_has_begun() -> None:
    kept: list[Exchange] = []
    world, ledger = played(on("upstream_peer", kept.append))
    client = asks(world, LONG_PUT + b"a" * 100)
    origin = reaches(world, "a")
    world.receives(client, b"a" * 100)
    assert kept[0].replay == [b"a" * 100] * 2
    world.receives(origin, OK[:-1])
    world.receives(client, b"a" * 100)
    assert kept[0].replay == []
    world.resets(client)
    ends_well(world, ledger)


def test_who_cannot_try_again_does_not_wait_for_it() -> None:
    retry = Retry(backoff_s=1.0, backoff_max_s=1.0)
    world, ledger = played(ledger=Ledger("a"), retry=retry, limits=Limits(replay_bytes_max=10))
    client = asks(world, LONG_PUT)
    world.resets(reaches(world, "a"))
    world.receives(client, b"a" * 11)
    world.resets(reaches(world, "a"))
    assert status(world.sent(client)) == 502, "at once"
    ends_well(world, ledger)


@pytest.mark.parametrize("who", ["the back-off", "a filter"])
def test_a_body_that_is_spent_during_a_wait_is_not_sent_again(who: str) -> None:
    """The rest of it goes on to the origin that has answered already, past what the replay buffer holds."""

    async def slow(exchange: Exchange) -> None:
        if exchange.attempts:
            await sleep(1.0)

    filters = [on("upstream_peer", slow)] if who == "a filter" else []
    retry = Retry(statuses=(503,), retries_max=3, backoff_s=1.0, backoff_max_s=1.0)
    world, ledger = played(*filters, ledger=Ledger("a"), retry=retry)
    client = asks(world, LONG_PUT)
    world.receives(client, b"a" * 1000)
    world.receives(reaches(world, "a"), BUSY)
    world.wait(0.5)
    if who == "the back-off":
        world.receives(reaches(world, "a"), BUSY)
    assert not world.sent(client)
    world.receives(client, b"b" * 70_000)
    world.wait(2.0)
    assert wanted(world) == "", "half of it is gone"
    assert status(world.sent(client)) == 503
    world.receives(client, b"c" * 29_000)
    ends_well(world, ledger, client)


# --------------------------------------------------------------------------------------------------- the limit of a try


@pytest.mark.parametrize("what", ["connect", "answer"])
def test_a_try_that_takes_too_long_is_tried_elsewhere(what: str) -> None:
    world, ledger = played(retry=Retry(try_timeout_s=0.5))
    client = asks(world)
    conn = world.connecting[0].conn
    if what == "answer":
        world.wait(0.4)
        reaches(world, "a")
    world.wait(0.6)
    assert world.closing[conn] is True
    world.receives(reaches(world, "b"), OK)
    assert world.sent(client) == OK
    reason = "upstream_timeout" if what == "answer" else "upstream_connect_timeout"
    assert attempts(world) == [("a", reason), ("b", "")]
    assert ledger.heard[1] == f"end a {reason} 0 0"
    ends_well(world, ledger, client)


def test_the_limit_of_a_try_is_not_one_of_the_body() -> None:
    world, ledger = played(retry=Retry(try_timeout_s=0.5))
    client = asks(world)
    origin = reaches(world, "a")
    world.receives(origin, OK[:-1])
    world.wait(10)
    world.receives(origin, OK[-1:])
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


def test_the_limit_of_a_try_is_not_one_of_a_body_that_began_before_the_request_had_ended() -> None:
    world, ledger = played(retry=Retry(try_timeout_s=0.5))
    client = asks(world, PUT[:-1])
    origin = reaches(world, "a")
    world.receives(origin, OK[:-1])
    world.receives(client, PUT[-1:])
    world.wait(10)
    world.receives(origin, OK[-1:])
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


def test_the_limit_of_a_try_begins_with_the_last_byte_of_the_request() -> None:
    world, ledger = played(retry=Retry(try_timeout_s=0.5))
    client = asks(world, PUT[:-1])
    origin = reaches(world, "a")
    world.wait(10)
    assert origin not in world.closing
    world.receives(client, PUT[-1:])
    world.wait(0.4)
    assert origin not in world.closing
    world.wait(0.2)
    assert world.closing[origin] is True
    world.receives(reaches(world, "b"), OK)
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


def test_who_is_slow_is_not_tried_again_where_it_is_not_a_tries_limit_that_has_passed() -> None:
    world, ledger = played(timeouts=Timeouts(answer_timeout_s=0.5))
    client = asks(world)
    reaches(world, "a")
    world.wait(0.6)
    assert status(world.sent(client)) == 504
    assert wanted(world) == ""
    ends_well(world, ledger, client)


def test_a_post_that_was_sent_is_not_tried_again_for_being_slow() -> None:
    world, ledger = played(retry=Retry(try_timeout_s=0.5))
    client = asks(world, POST)
    reaches(world, "a")
    world.wait(0.6)
    assert status(world.sent(client)) == 504
    ends_well(world, ledger, client)


# -------------------------------------------------------------------------------------------- the limit of all of them


def test_all_attempts_together_have_a_limit() -> None:
    world, ledger = played(retry=Retry(total_timeout_s=2.0, try_timeout_s=1.5))
    client = asks(world)
    reaches(world, "a")
    world.wait(1.5)
    second = reaches(world, "b")
    world.wait(0.4)
    assert not world.sent(client)
    world.wait(0.1)
    answer = world.sent(client)
    assert status(answer) == 504
    assert b'details="upstream_timeout"' in answer
    assert world.closing[second] is True
    (record,) = world.access
    assert record.detail == "no answer within 2 s, all attempts together"
    assert attempts(world) == [("a", "upstream_timeout"), ("b", "upstream_timeout")]
    world.receives(client, GET)
    world.receives(reaches(world, "a"), OK)
    assert world.sent(client) == OK, "its connection goes on"
    ends_well(world, ledger, client)


@pytest.mark.parametrize("moment", ["connecting", "queueing", "uploading", "sending", "waiting to try again"])
def test_the_limit_of_all_holds_at_any_moment_before_the_head(moment: str) -> None:
    limits = Limits(connections_per_peer_max=1 if moment == "queueing" else 1024)
    retry = Retry(total_timeout_s=2.0, backoff_s=100.0, backoff_max_s=100.0)
    world, ledger = played(ledger=Ledger("a"), retry=retry, limits=limits)
    others = [asks(world)] if moment == "queueing" else []
    if others:
        world.receives(reaches(world, "a"), OK[:-1])
    client = asks(world, LONG_PUT if moment == "uploading" else PUT if moment == "sending" else GET)
    if moment == "uploading":
        reaches(world, "a")
        world.wait(1.9)
        world.receives(client, b"x")
    elif moment == "sending":
        world.gives(Blocked(reaches(world, "a")))
    elif moment == "waiting to try again":
        world.resets(reaches(world, "a"))
        world.resets(reaches(world, "a"))
    world.wait(2.0)
    assert status(world.sent(client)) == 504
    assert world.access[0].reason == "upstream_timeout"
    for other in others:
        world.resets(other)
    ends_well(world, ledger, client)


def test_the_limit_of_all_holds_for_filters_too() -> None:
    async def slow(exchange: Exchange, *_: object) -> None:
        await sleep(1e6)

    for phase in ("upstream_peer", "connected_to_upstream", "upstream_request_filter", "error_while_proxy"):
        world, ledger = played(on(phase, slow), retry=Retry(total_timeout_s=2.0))
        client = asks(world)
        if world.connecting:
            origin = reaches(world, "a")
            if phase == "error_while_proxy":
                world.resets(origin)
        world.wait(2.0)
        assert status(world.sent(client)) == 504, phase
        ends_well(world, ledger, client)


def test_the_limit_of_all_begins_with_the_head_and_not_behind_the_filters() -> None:
    async def slow(exchange: Exchange) -> None:
        await sleep(1.5)

    world, ledger = played(on("request_filter", slow), retry=Retry(total_timeout_s=2.0))
    client = asks(world)
    world.wait(1.5)
    reaches(world, "a")
    world.wait(0.6)
    assert status(world.sent(client)) == 504
    ends_well(world, ledger, client)


def test_a_filter_that_takes_longer_than_all_may_leaves_no_time_for_an_attempt() -> None:
    async def slow(exchange: Exchange) -> None:
        await sleep(3.0)

    world, ledger = played(on("request_filter", slow), retry=Retry(total_timeout_s=2.0))
    client = asks(world)
    world.wait(3.0)
    assert status(world.sent(client)) == 504
    ends_well(world, ledger, client)


def test_the_limit_of_all_is_lifted_when_the_head_is_here() -> None:
    async def slow(exchange: Exchange, response: Response) -> None:
        await sleep(5.0)

    world, ledger = played(on("response_filter", slow), retry=Retry(total_timeout_s=2.0))
    client = asks(world)
    origin = reaches(world, "a")
    world.receives(origin, OK[:-1])
    world.wait(10.0)
    world.receives(origin, OK[-1:])
    assert world.sent(client) == OK
    assert world.access[0].reason == ""
    ends_well(world, ledger, client)


@pytest.mark.parametrize("who", ["client", "answer"])
def test_the_limit_of_all_leaves_no_alarm(who: str) -> None:
    world, ledger = played(retry=Retry(total_timeout_s=1000.0))
    client = asks(world)
    origin = reaches(world, "a")
    if who == "answer":
        world.receives(origin, OK)
        world.resets(origin)
    world.resets(client)
    assert proxy_of(world).leftovers["alarms"] == 0, "which would keep all that its exchange holds"
    ends_well(world, ledger)


def test_the_limit_of_all_is_lifted_when_they_have_failed() -> None:
    async def slow(exchange: Exchange, error: ExchangeError) -> Response:
        await sleep(5.0)
        return respond(599, "sorry")

    world, ledger = played(on("fail_to_proxy", slow), retry=Retry(total_timeout_s=2.0))
    client = asks(world)
    misses(world, "a")
    misses(world, "b")
    world.wait(10.0)
    assert status(world.sent(client)) == 599
    assert world.access[0].reason == "upstream_refused"
    ends_well(world, ledger, client)


def test_a_client_that_is_slow_to_take_the_answer_to_a_failure_is_no_limit_of_attempts() -> None:
    """The answer before fills its pipe; an error answer then waits for room as any other, and is not lost."""
    retry = Retry(total_timeout_s=2.0, retries_max=0)
    world, ledger = played(retry=retry, timeouts=Timeouts(send_stall_timeout_s=100))
    client = asks(world, GET * 2)
    big = b"x" * 100_000
    origin = reaches(world, "a")
    world.receives(origin, OK.replace(b"2\r\n\r\nhi", b"100000\r\n\r\n") + big)
    world.gives(Blocked(client))
    world.wait(0.1)
    assert body(world.sent(client)) == big
    assert world.sent(origin) == GET * 2
    world.resets(origin)
    world.wait(10)
    assert not world.sent(client)
    world.gives(Sent(client))
    assert status(world.sent(client)) == 502
    assert world.access[1].reason == "upstream_reset"
    ends_well(world, ledger, client)


def test_an_answer_with_a_status_is_bounded_by_the_limit_of_all() -> None:
    retry = Retry(statuses=(503,), total_timeout_s=2.0, backoff_s=100.0, backoff_max_s=100.0)
    world, ledger = played(ledger=Ledger("a"), retry=retry)
    client = asks(world)
    origin = reaches(world, "a")
    world.receives(origin, BUSY)
    world.receives(origin, BUSY)
    world.wait(2.0)
    assert status(world.sent(client)) == 504
    assert ledger.heard[-1] == "end a upstream_timeout 503 0"
    ends_well(world, ledger, client)


# ----------------------------------------------------------------------------------------------------- filters' words


def test_fail_to_connect_decides_about_a_full_queue() -> None:
    world, ledger = played(
        on("fail_to_connect", lambda exchange, error: False),
        limits=Limits(connections_per_peer_max=1, pool_waiters_max=0),
    )
    first, second = asks(world), asks(world)
    assert status(world.sent(second)) == 503
    world.resets(first)
    ends_well(world, ledger, second)


def test_fail_to_connect_may_insist_on_an_endpoint_that_refused() -> None:
    world, ledger = played(on("fail_to_connect", lambda exchange, error: True), ledger=Ledger("a"))
    client = asks(world)
    misses(world, "a")
    world.receives(reaches(world, "a"), OK)
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


def test_error_while_proxy_sees_the_attempt_that_failed() -> None:
    seen: list[tuple[str, int, list[str], str]] = []

    def note(exchange: Exchange, error: ExchangeError) -> None:
        assert exchange.peer is not None
        seen.append((exchange.peer.name, exchange.attempts, list(exchange.tried), error.reason))

    world, ledger = played(on("error_while_proxy", note), retry=AGAIN)
    client = asks(world)
    world.receives(reaches(world, "a"), BUSY)
    world.resets(reaches(world, "b"))
    assert seen == [("a", 1, ["a"], "upstream_status"), ("b", 2, ["a", "b"], "upstream_reset")]
    world.wait(1)
    world.resets(client)
    ends_well(world, ledger)


def test_a_filter_that_raises_where_another_attempt_would_go() -> None:
    def choose(exchange: Exchange) -> None:
        if exchange.tried:
            raise RuntimeError("boom")

    world, ledger = played(on("upstream_peer", choose))
    client = asks(world)
    misses(world, "a")
    assert status(world.sent(client)) == 500
    assert world.access[0].reason == "filter_error"
    ends_well(world, ledger, client)


def test_a_request_filter_sees_each_attempt() -> None:
    seen: list[int] = []

    def note(exchange: Exchange, request: Request) -> None:
        seen.append(exchange.attempts)

    world, ledger = played(on("upstream_request_filter", note), retry=AGAIN)
    client = asks(world)
    world.receives(reaches(world, "a"), BUSY)
    world.receives(reaches(world, "b"), OK)
    assert seen == [1, 2]
    assert world.sent(client) == OK
    ends_well(world, ledger, client)


def test_limits_of_a_peer_hold_for_attempts() -> None:
    world, ledger = played(ledger=Ledger("a", PeerLimits(connections_max=1, waiters_max=0)))
    first, second = asks(world), asks(world)
    assert status(world.sent(second)) == 503
    world.resets(first)
    ends_well(world, ledger, second)


def test_a_drain_lets_attempts_and_retries_come_to_their_end() -> None:
    world, ledger = played()
    client = asks(world)
    world.gives(Drain(5))
    misses(world, "a")
    world.receives(reaches(world, "b"), OK)
    assert status(world.sent(client)) == 200
    world.wait(10)
    assert world.machine.finished
    assert ledger.closed()
