"""Attempts of a tunnelled connection at peers: which follows which, what a balancer hears, and the ways to a peer."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from coulee.core import Balancer, ExchangeError, Peer, Response, Retry, Routed, Timeouts
from coulee.core.proxy_protocol import read_header
from coulee.core.seam import Blocked, Closed, Send
from coulee.core.through import Through
from coulee.core.tls import UpstreamTls
from coulee.core.transport import Transport
from coulee.lb import Cluster, HealthCheck, Tcp
from coulee.lb.tls_hello import client_hello
from tests.core.tunnelled import ONE, OVER_TLS, TWO, Told, machine, make, reason, record, told
from tests.core.world import CLIENT

# ------------------------------------------------------------------------------------------------------- attempts


def test_a_peer_that_refuses_is_followed_by_another() -> None:
    world = make(Told())
    client = world.client()
    world.receives(client, b"early")
    world.refuses()
    world.now = 2.0
    origin = world.connects()
    assert world.sent(origin) == b"early"
    world.receives(client, b"")
    world.receives(origin, b"")
    kept = record(world)
    assert (kept.peer, kept.reason, kept.connected_s) == ("two", "", 2.0)
    assert [(each.peer, each.reason) for each in kept.attempts] == [("one", "upstream_refused"), ("two", "")]
    [retry] = world.events("retry")
    assert retry.text == "one failed (upstream_refused), trying two"
    assert retry.fields == {"peer": "one", "reason": "upstream_refused", "detail": "connection refused"}
    assert machine(world).counters.retries == 1
    assert told(world).heard == [
        ("choose", "", CLIENT, ()), ("begin", "one"), ("end", "one", "upstream_refused", 0, 0.0),
        ("choose", "", CLIENT, ("one",)), ("begin", "two"), ("answered", "two", 200, 2.0), ("end", "two", "", 200, 2.0),
    ]  # fmt: skip
    world.leaves_nothing()


def test_attempts_are_counted() -> None:
    world = make(Told(), retry=Retry(retries_max=1))
    client = world.client()
    world.refuses()
    world.refuses("unreachable", "no route")
    assert world.closing == {client: True}
    kept = record(world)
    assert (kept.peer, kept.reason, kept.detail) == ("two", "upstream_unreachable", "no route")
    assert (kept.connected_s, len(kept.attempts)) == (-1.0, 2)
    assert told(world).ends == [("one", "upstream_refused"), ("two", "upstream_unreachable")]
    world.leaves_nothing()


def test_nothing_is_tried_twice() -> None:
    world = make(Told(Peer(ONE, "one"), Peer(TWO, "two")), retry=Retry(retries_max=5))
    world.client()
    world.refuses()
    world.refuses()
    assert not world.connecting
    assert reason(world) == "upstream_refused"


def test_a_peer_that_is_too_slow_is_followed_by_another_and_its_last_word_is_nothing_to_us() -> None:
    world = make(Told())
    client = world.client()
    slow = world.connecting[0].conn
    world.holds_closes = True
    world.wait(3.0)
    assert world.closing == {slow: True}
    world.gives(Closed(slow, "reset", "it crossed"))
    origin = world.connects()
    assert world.receives(client, b"x") == [Send(origin, b"x")]
    [exchange] = machine(world).exchanges
    assert [each.reason for each in exchange.history] == ["upstream_connect_timeout", ""]


def test_only_reasons_that_are_listed_are_followed() -> None:
    world = make(Told(), retry=Retry(reasons=("upstream_unreachable",)))
    world.client()
    world.refuses()
    assert not world.connecting
    assert reason(world) == "upstream_refused"


def test_the_budget_of_a_cluster_counts() -> None:
    world = make(Told())
    told(world).allows = False
    world.client()
    world.refuses()
    assert not world.connecting
    assert machine(world).counters.retries == 0


def test_nothing_follows_once_a_peer_stands() -> None:
    world = make(Told())
    client, origin = world.client(), world.connects()
    world.resets(origin)
    assert not world.connecting
    assert world.closing == {client: True}
    assert told(world).ends == [("one", "upstream_reset")]


def test_a_reset_behind_an_answer_is_not_held_against_a_peer() -> None:
    world = make(Told())
    world.client()
    origin = world.connects()
    world.receives(origin, b"bye")
    world.resets(origin)
    assert reason(world) == "upstream_reset"
    assert told(world).ends == [("one", "")]


def test_a_client_that_leaves_is_not_held_against_a_peer() -> None:
    world = make(Told())
    client = world.client()
    world.resets(client)
    assert told(world).ends == [("one", "client_gone")]
    assert record(world).attempts[0].reason == "client_gone"
    client, origin = world.client(), world.connects()
    world.receives(origin, b"bye")
    world.resets(client)
    assert told(world).ends[1:] == [("two", "client_gone")]


class Empty(Balancer):
    """Has nothing."""

    def __init__(self, *failures: Exception | Peer) -> None:
        self.failures: Iterator[Exception | Peer] = iter(failures)

    def choose(self, exchange: Routed) -> Peer | None:
        given = next(self.failures, None)
        if isinstance(given, Exception):
            raise given
        return given

    def verdict(self, error: ExchangeError) -> ExchangeError:
        return ExchangeError("circuit_open", str(error))


@pytest.mark.parametrize(
    ("balancer", "word", "detail"),
    [
        (Empty(), "no_healthy_endpoint", "the cluster offered no endpoint"),
        (Empty(ExchangeError("circuit_open", "all open")), "circuit_open", "all open"),
        (Empty(RuntimeError("oh")), "internal_error", "RuntimeError: oh"),
    ],
)
def test_where_there_is_nothing_to_go_to(balancer: Balancer, word: str, detail: str) -> None:
    world = make(balancer)
    client = world.client()
    assert world.closing == {client: True}
    assert (reason(world), record(world).detail, record(world).peer) == (word, detail, "")
    assert len(world.events("internal_error")) == (word == "internal_error")
    world.leaves_nothing()


def test_what_has_failed_says_more_than_that_there_is_nothing_else_and_the_balancer_has_the_last_word() -> None:
    world = make(Empty(Peer(ONE)))
    world.client()
    world.refuses()
    assert (reason(world), record(world).detail) == ("circuit_open", "upstream_refused: connection refused")


class Fragile(Told):
    """Cannot bear what it is told."""

    def begin(self, peer: Peer) -> None:
        raise ValueError("begin")

    def answered(self, exchange: Routed, peer: Peer, response: Response, latency_s: float) -> None:
        raise ValueError("answered")

    def end(self, peer: Peer, reason: str, status: int, latency_s: float) -> None:
        raise ValueError("end")


def test_a_balancer_that_fails_stops_nobody() -> None:
    world = make(Fragile())
    client, origin = world.client(), world.connects()
    assert world.receives(client, b"x") == [Send(origin, b"x")]
    world.resets(client)
    texts = [event.text for event in world.events("internal_error")]
    assert texts == [
        f"internal_error: {each}() of the balancer: ValueError: {each}" for each in ("begin", "answered", "end")
    ]
    assert all("Traceback" in str(event.fields["traceback"]) for event in world.events("internal_error"))
    world.leaves_nothing()


def test_a_balancer_that_hears_no_answers_is_told_of_none() -> None:
    balancer = Told()
    balancer.hears_answers = False
    world = make(balancer)
    world.client()
    world.connects()
    assert [each[0] for each in told(world).heard] == ["choose", "begin"]


def test_a_cluster_counts_checks_and_fails_over() -> None:
    cluster = Cluster("http://10.1.1.1:443", "http://10.1.1.2:443", health=HealthCheck(Tcp(), fall=1), outliers=None)
    world = make(cluster)
    world.gives(None)
    world.wait(1.0)
    checks = list(world.connecting)
    assert sorted(check.address for check in checks) == [ONE, TWO]
    for check in checks:
        if check.address == ONE:
            world.refuses()
        else:
            world.connects()
    for _ in range(3):
        world.client()
        assert world.connecting[0].address == TWO
        world.connects()
    [busy] = [each for each in machine(world).balancer.members if each.in_flight]  # type: ignore[attr-defined]
    assert (busy.name, busy.in_flight) == ("10.1.1.2:443", 3)


# ------------------------------------------------------------------------------------------------ ways to a peer


def test_a_peer_may_be_told_who_the_client_is_and_have_tls() -> None:
    tls = UpstreamTls().for_host("a.example")
    world = make(Peer(ONE, transport=Transport(tls=tls, proxy_protocol=1)))
    client = world.client()
    world.receives(client, b"early")
    origin = world.connects()
    assert world.sent(origin) == b"PROXY TCP4 10.0.0.9 127.0.0.1 50000 8000\r\n"
    assert world.secures().tls == tls
    assert world.sent(origin) == b"early"
    assert world.receives(client, b"x") == [Send(origin, b"x")]


def test_a_peer_that_does_not_even_take_who_the_client_is_is_followed_by_another() -> None:
    tls = UpstreamTls().for_host("a.example")
    first = Peer(ONE, "one", transport=Transport(tls=tls, proxy_protocol=2))
    world = make(Told(first, Peer(TWO, "two")), timeouts=Timeouts(upstream_tls_timeout_s=60.0))
    world.client()
    world.gives(Blocked(world.connects()))
    world.wait(30.0)
    world.connects()
    assert told(world).ends == [("one", "upstream_reset")]


def test_a_peer_is_told_of_the_tls_that_ends_here() -> None:
    world = make(Peer(ONE, transport=Transport(proxy_protocol=2)), listener=OVER_TLS)
    client = world.client()
    world.receives(client, client_hello(Random(1), "a.example"))
    world.secures()
    origin = world.connects()
    found = read_header(world.sent(origin))
    assert found is not None
    header = found[0]
    assert (header.source, header.authority, header.alpn) == (CLIENT, "a.example", "http/1.1")
    assert header.tls is not None
    assert header.tls.version == "TLSv1.3"


def test_tls_that_fails_is_followed_by_another() -> None:
    secured = Transport(tls=UpstreamTls().for_host("a.example"))
    world = make(Told(Peer(ONE, "one", transport=secured), Peer(TWO, "two")))
    client = world.client()
    origin = world.connects()
    world.resets(origin, "tls", "certificate has expired")
    other = world.connects()
    assert other != origin
    world.receives(client, b"")
    world.receives(other, b"")
    assert [each.reason for each in record(world).attempts] == ["upstream_tls", ""]


def test_a_peer_may_be_reached_through_a_proxy() -> None:
    through = Transport(through=Through(Peer(("10.9.9.9", 3128))))
    world = make(Peer(ONE, transport=through))
    client = world.client()
    world.receives(client, b"early")
    origin = world.connects()
    assert world.sent(origin).startswith(b"CONNECT 10.1.1.1:443 HTTP/1.1\r\n")
    world.receives(origin, b"HTTP/1.1 200 OK\r\n\r\n")
    assert world.sent(origin) == b"early"
    assert world.receives(origin, b"answer") == [Send(client, b"answer")]


@pytest.mark.parametrize("how", ["reset", "closed", "silence", "stall"])
def test_a_proxy_on_the_way_that_fails_is_followed_by_another_peer(how: str) -> None:
    through = Transport(through=Through(Peer(("10.9.9.9", 3128))))
    limits = Timeouts(connect_timeout_s=60.0 if how == "stall" else 3.0)
    world = make(Told(Peer(ONE, "one", transport=through), Peer(TWO, "two")), timeouts=limits)
    client, proxy = world.client(), world.connects()
    if how == "reset":
        world.resets(proxy)
    elif how == "closed":
        world.closed.append(proxy)
        world.gives(Closed(proxy))
    elif how == "silence":
        world.wait(3.0)
    else:
        world.gives(Blocked(proxy))
        world.wait(30.0)
    origin = world.connects()
    assert world.receives(client, b"x") == [Send(origin, b"x")]
    word = "upstream_connect_timeout" if how in ("silence", "stall") else "upstream_reset"
    assert told(world).ends == [("one", word)]
