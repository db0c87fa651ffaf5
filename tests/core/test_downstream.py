"""A client's connection: keep-alive, pipelining, refusals, limits in time and number, lingering, and drains."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from coulee.core import Config, Filter, Forwarding, Limits, Proxy, Timeouts, respond
from coulee.core.exchange import Exchange
from coulee.core.parts import Response
from coulee.core.seam import Blocked, Closed, Drain, Listen, Sent
from coulee.lb import Cluster
from tests.core.world import CLIENT, LISTENER, World

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nhi"
PLAIN = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False))


class Echo(Filter):
    """Answers with the path that was asked for."""

    def request_filter(self, exchange: Exchange) -> Response:
        return respond(200, exchange.request.path, headers={"Date": "now"}, content_type="a/b")


def make(*filters: Filter, config: Config = PLAIN) -> World:
    proxy = Proxy(Cluster("http://10.0.0.1"), filters, config)
    return World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER]))


def echo(path: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Type: a/b\r\nContent-Length: %d\r\n\r\n%s" % (
        len(path),
        path.encode(),
    )


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_twenty_pipelined_requests_are_answered_in_order() -> None:
    world = make(Echo())
    client = world.client()
    world.receives(client, b"".join(GET.replace(b"/a", b"/%d" % turn) for turn in range(20)))
    assert world.sent(client) == b"".join(echo(f"/{turn}") for turn in range(20))
    assert len(world.access) == 20


def test_pipelined_requests_wait_for_the_answer_before() -> None:
    world = make()
    client = world.client()
    world.receives(client, GET + GET.replace(b"/a", b"/b"))
    origin = world.connects()
    assert world.sent(origin) == GET
    world.receives(origin, OK)
    assert world.sent(client) == OK
    assert world.sent(origin) == GET.replace(b"/a", b"/b")


def test_a_client_that_pipelines_too_much_is_held_back() -> None:
    world = make()
    client = world.client()
    world.receives(client, GET)
    origin = world.connects()
    world.receives(client, GET * 3000)
    assert not world.reading[client]
    while world.sent(origin):
        world.receives(origin, OK)
    world.sent(client)
    assert len(world.access) == 1000, "and its connection ends after so many"


def test_held_pipelined_bytes_are_read_on_when_few_are_left() -> None:
    world = make(config=replace(PLAIN, limits=Limits(buffer_high_bytes=100, buffer_low_bytes=50, head_bytes_max=99)))
    client = world.client()
    world.receives(client, GET)
    origin = world.connects()
    world.receives(client, GET * 5)
    assert not world.reading[client]
    for _ in range(5):
        world.receives(origin, OK)
    assert world.reading[client]


def test_an_idle_connection_is_ended() -> None:
    world = make(Echo())
    client = world.client()
    world.wait(59)
    assert client not in world.closing
    world.receives(client, GET)
    world.wait(59)
    assert client not in world.closing
    world.wait(2)
    assert world.closing[client] is False
    assert len(world.access) == 1, "silence is no request"


def test_a_head_that_takes_too_long_is_answered_408() -> None:
    world = make()
    client = world.client()
    world.receives(client, b"GET /a HT")
    for _ in range(9):
        world.wait(1)
        world.receives(client, b"T")
    world.wait(1.1)
    answer = world.sent(client)
    assert status(answer) == 408
    assert b"\r\nConnection: close\r\n" in answer
    assert b"header_timeout" in answer
    (record,) = world.access
    assert (record.status, record.reason, record.method) == (408, "header_timeout", "-")


def test_what_is_no_request_is_refused_recorded_and_logged() -> None:
    logged: list[str] = []

    class Log(Filter):
        def logging(self, exchange: Exchange) -> None:
            assert exchange.error is not None
            logged.append(exchange.error.reason)

    world = make(Log())
    client = world.client()
    world.receives(client, GET.replace(b"Host", b"Ghost"))
    answer = world.sent(client)
    assert status(answer) == 400
    assert client in world.eofs
    assert logged == ["bad_request"]
    (record,) = world.access
    assert (record.status, record.reason, record.client) == (400, "bad_request", CLIENT)
    world.receives(client, GET)
    assert len(world.access) == 1, "nothing behind it is looked at"


def test_good_requests_before_a_bad_one_are_answered() -> None:
    world = make(Echo())
    client = world.client()
    world.receives(client, GET + b"garbage\r\n\r\n" + GET)
    answer = world.sent(client)
    assert answer.startswith(echo("/a"))
    assert status(answer.removeprefix(echo("/a"))) == 400
    assert [record.status for record in world.access] == [200, 400]


def test_a_client_that_leaves_in_the_middle_of_a_head_is_recorded() -> None:
    world = make()
    client = world.client()
    world.receives(client, b"GET / HT")
    world.receives(client, b"")
    assert world.access[0].reason == "client_gone"
    assert world.closing[client] is True
    assert not world.sent(client)


def test_after_its_last_answer_a_client_gets_a_moment_to_read_it() -> None:
    world = make(Echo())
    client = world.client()
    world.receives(client, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert client in world.eofs
    assert client not in world.closing
    world.receives(client, b"whatever it still says")
    world.receives(client, b"")
    assert world.closing[client] is False
    world = make(Echo())
    client = world.client()
    world.receives(client, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    world.wait(1.1)
    assert world.closing[client] is False


def test_a_lingering_connection_whose_answer_is_still_on_its_way_is_not_cut() -> None:
    world = make(Echo())
    client = world.client()
    world.receives(client, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    world.gives(Blocked(client))
    world.wait(10)
    assert client not in world.closing
    world.gives(Sent(client))
    world.wait(1.1)
    assert world.closing[client] is False


def test_a_client_that_has_half_closed_is_closed_behind_its_answer() -> None:
    world = make(Echo())
    client = world.client()
    world.receives(client, GET)
    world.receives(client, b"")
    assert world.closing[client] is False
    world = make()
    client = world.client()
    world.receives(client, GET)
    world.receives(client, b"")
    origin = world.connects()
    world.receives(origin, OK.replace(b"Length: 2", b"Length: 200000") + b"x" * 100)
    world.gives(Blocked(client))
    world.receives(origin, b"y" * 100_000)
    world.receives(origin, b"z" * 99_898)
    assert client not in world.closing, "what is blocked goes out first"
    world.gives(Sent(client))
    assert world.closing[client] is False
    assert world.sent(client).endswith(b"z" * 100)


def test_an_early_answer_leaves_a_connection_of_use_if_the_body_is_small() -> None:
    world = make(Echo())
    client = world.client()
    world.receives(client, b"PUT /p HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    assert world.sent(client) == echo("/p")
    world.receives(client, b"67890" + GET)
    assert world.sent(client) == echo("/a")
    world.receives(client, b"PUT /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert world.sent(client) == echo("/p")
    world.receives(client, b"1\r\nx\r\n0\r\nT: y\r\n\r\n" + GET)
    assert world.sent(client) == echo("/a")


def test_an_early_answer_to_a_large_body_says_that_the_connection_ends() -> None:
    class Broken(Filter):
        def request_filter(self, exchange: Exchange) -> Response:
            raise RuntimeError

    for filters in (Echo(), Broken()):
        for length, said in ((65_536, False), (65_537, True)):
            world = make(filters)
            client = world.client()
            world.receives(client, b"PUT /p HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length)
            assert (b"\r\nConnection: close\r\n" in world.sent(client)) is said, (filters, length)


@pytest.mark.parametrize("rest", [b"", b"zz\r\n"])
def test_an_early_answer_whose_body_never_ends_or_breaks(rest: bytes) -> None:
    world = make(Echo())
    client = world.client()
    world.receives(client, b"PUT /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    if rest:
        world.receives(client, rest)
    world.wait(1.1)
    assert client in world.eofs
    world.wait(1.1)
    assert world.closing[client] is False


def test_an_early_answer_to_a_client_that_has_left_with_its_body() -> None:
    world = make(Echo())
    client = world.client()
    world.receives(client, b"PUT /p HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    world.receives(client, b"")
    assert world.closing[client] is False


def test_a_half_close_with_half_a_body_is_not_whole() -> None:
    world = make()
    client = world.client()
    world.receives(client, b"PUT /p HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    origin = world.connects()
    world.receives(client, b"")
    assert world.closing[origin] is True, "the origin must not take it for the whole"
    assert world.closing[client] is True
    assert world.access[0].reason == "client_gone"


def test_the_number_of_requests_on_a_connection_is_bounded() -> None:
    world = make(Echo(), config=replace(PLAIN, limits=Limits(requests_per_connection_max=2)))
    client = world.client()
    world.receives(client, GET * 3)
    first, second = world.sent(client).split(b"HTTP/1.1 ")[1:]
    assert b"Connection: close" not in first
    assert b"Connection: close" in second


def test_the_number_of_connections_is_bounded_by_credits() -> None:
    world = make(config=replace(PLAIN, limits=Limits(downstream_connections_max=2, refused_connections_max=0)))
    first = world.client()
    assert len(world.credits) == 1
    world.client()
    assert not world.credits, "whoever comes now waits in the system's backlog"
    world.resets(first)
    assert len(world.credits) == 1


# ---------------------------------------------------------------------------------------------------------- listeners


def test_listeners_come_and_go() -> None:
    world = make()
    proxy = world.machine
    assert isinstance(proxy, Proxy)
    client = world.client()
    other = proxy.listen(("127.0.0.1", 9999))
    assert any(isinstance(operation, Listen) and operation.listener == other for operation in world.gives())
    assert world.events("listening")[1].text == "listening on 127.0.0.1:9999"
    proxy.unlisten(other)
    world.gives()
    assert other in world.closed
    assert client not in world.closed
    assert not world.events("listen_failed")


def test_a_listener_that_cannot_be_opened_is_an_event() -> None:
    proxy = Proxy(Cluster("http://10.0.0.1")).fresh(rng=Random(1), listen=["/nowhere/socket"])
    (listen,) = proxy.handle(None, 0.0)
    assert isinstance(listen, Listen)
    (report,) = proxy.handle(Closed(listen.listener, "other", "no such place"), 0.0)
    assert report.record.name == "listen_failed"  # type: ignore[union-attr]
    assert report.record.text == "no such place"  # type: ignore[union-attr]


def test_a_client_of_a_listener_that_is_gone_is_served_but_is_the_last() -> None:
    world = make(Echo(), config=replace(PLAIN, limits=Limits(downstream_connections_max=1, refused_connections_max=0)))
    client = world.client()
    (listener,) = world.listeners
    world.machine.unlisten(listener)  # type: ignore[attr-defined]
    world.gives()
    world.receives(client, GET)
    assert world.sent(client) == echo("/a")
    world.resets(client)
    assert not world.credits


# --------------------------------------------------------------------------------------------------------------- drain


SOON_S = 0.051  # just over Timeouts.drain_idle_s


def test_a_drain_lets_what_runs_finish_and_ends_what_is_idle() -> None:
    world = make()
    idle = world.client()
    busy = world.client()
    world.receives(busy, GET)
    origin = world.connects()
    world.gives(Drain(5))
    assert world.listeners[0] in world.closed
    assert idle not in world.closing
    world.wait(SOON_S)
    assert world.closing[idle] is False
    assert busy not in world.closing
    assert not world.machine.finished
    world.receives(origin, OK)
    answer = world.sent(busy)
    assert status(answer) == 200
    assert b"\r\nConnection: close\r\n" in answer
    assert busy in world.eofs
    assert world.closing[origin] is False
    assert not world.machine.finished, "the client has a moment to read it"
    world.wait(SOON_S)
    assert world.closing[busy] is False
    assert world.machine.finished
    assert world.machine.deadline is None
    assert world.events("draining")[0].fields == {"grace_s": 5}


@pytest.mark.parametrize("has_asked_before", [True, False])
def test_a_request_that_is_on_its_way_when_a_drain_begins_is_answered(has_asked_before: bool) -> None:
    world = make(Echo())
    client = world.client()
    if has_asked_before:
        world.receives(client, GET)
        assert world.sent(client) == echo("/a")
    world.gives(Drain(5))
    world.wait(0.049)
    world.receives(client, GET)
    answer = world.sent(client)
    assert status(answer) == 200
    assert b"\r\nConnection: close\r\n" in answer
    assert client in world.eofs
    world.receives(client, b"")
    assert world.closing[client] is False
    assert world.machine.finished


def test_who_stays_silent_is_not_waited_for_any_longer_whatever_he_sends_and_who_asks_again() -> None:
    world = make(Echo())
    client = world.client()
    world.gives(Drain(5))
    world.wait(0.03)
    world.gives(Drain(4))
    world.receives(client, b"\r\n")
    world.wait(0.021)
    assert world.closing[client] is False
    assert world.machine.finished


def test_a_connection_that_was_about_to_end_does_so_when_it_would_have() -> None:
    world = make(Echo())
    client = world.client()
    world.wait(59.98)
    world.gives(Drain(5))
    world.wait(0.021)
    assert world.closing[client] is False


def test_a_drain_without_patience_ends_what_is_idle_at_once() -> None:
    world = make(Echo(), config=replace(PLAIN, timeouts=Timeouts(drain_idle_s=0)))
    client = world.client()
    half = world.client()
    world.receives(half, GET[:5])
    world.gives(Drain(5))
    world.wait(0)
    assert world.closing[client] is False
    world.receives(half, GET[5:])
    world.wait(0)
    assert world.closing[half] is False
    assert status(world.sent(half)) == 200
    assert world.machine.finished


def test_who_was_not_told_that_the_connection_ends_may_ask_once_more() -> None:
    """The head of the answer had gone out when the drain began."""
    for asks_again in (True, False):
        world = make()
        client = world.client()
        world.receives(client, GET)
        origin = world.connects()
        world.receives(origin, OK[:-1])
        assert b"Connection: close" not in world.sent(client)
        world.gives(Drain(5))
        world.receives(origin, OK[-1:])
        assert client not in world.eofs
        if asks_again:
            world.receives(client, GET)
            world.receives(world.connects(), OK)
            assert b"\r\nConnection: close\r\n" in world.sent(client)
            assert client in world.eofs
        world.wait(SOON_S)
        assert world.closing[client] is False
        assert world.machine.finished


def test_a_drain_hurries_who_lingers_already() -> None:
    world = make(Echo())
    client = world.client()
    world.receives(client, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert client in world.eofs
    world.gives(Drain(5))
    world.wait(SOON_S)
    assert world.closing[client] is False


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("data", [b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n", b"garbage\r\n\r\n"])
def test_a_drain_does_not_hurry_who_may_still_be_sending(data: bytes, first: bool) -> None:
    """A close would meet his bytes with a reset, which destroys the answer that is on its way."""
    world = make(Echo())
    client = world.client()
    if first:
        world.gives(Drain(5))
    world.receives(client, data)
    assert client in world.eofs
    if not first:
        world.gives(Drain(5))
    world.wait(0.9)
    assert client not in world.closing
    world.wait(0.2)
    assert world.closing[client] is False


def test_a_body_that_nobody_wanted_and_that_has_come_to_its_end_is_no_reason_to_wait() -> None:
    world = make(Echo())
    client = world.client()
    world.receives(client, b"PUT /p HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    world.gives(Drain(5))
    assert client not in world.closing
    world.receives(client, b"67890")
    world.wait(SOON_S)
    assert world.closing[client] is False
    assert world.machine.finished


def test_a_drain_lets_a_head_that_has_begun_be_finished() -> None:
    world = make(Echo())
    client = world.client()
    world.receives(client, GET[:10])
    world.gives(Drain(5))
    world.receives(client, GET[10:])
    answer = world.sent(client)
    assert status(answer) == 200
    assert b"Connection: close" in answer


def test_what_a_drain_cannot_wait_for_is_answered_503_or_cut() -> None:
    world = make()
    begun = world.client()
    world.receives(begun, GET)
    origin = world.connects()
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
    world.sent(begun)
    waiting = world.client()
    world.receives(waiting, GET)
    connecting = world.connecting[0].conn
    half = world.client()
    world.receives(half, GET[:9])
    world.gives(Drain(2))
    world.wait(2.1)
    assert world.closing[begun] is False, "its answer had begun, and is not whole"
    assert world.closing[origin] is True
    assert world.closing[connecting] is True
    assert world.closing[half] is True
    answer = world.sent(waiting)
    assert status(answer) == 503
    assert b"shutting_down" in answer
    assert b"\r\nConnection: close\r\n" in answer
    assert world.closing[waiting] is False
    assert [(record.reason, record.status) for record in world.access] == [
        ("shutting_down", 200),
        ("shutting_down", 503),
    ]
    assert world.machine.finished


def test_a_drain_ends_idle_upstream_connections_and_a_second_one_hastens_it() -> None:
    world = make()
    client = world.client()
    world.receives(client, GET)
    origin = world.connects()
    world.receives(origin, OK)
    busy = world.client()
    world.receives(busy, GET)
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
    world.gives(Drain(50))
    world.gives(Drain(0))
    world.wait(0)
    assert world.closing[busy] is False
    world.wait(1.1)
    assert world.machine.finished
    world.gives(Drain(0))
    assert world.machine.finished


def test_who_is_accepted_while_it_drains_is_served_and_is_told_that_it_ends() -> None:
    for silent in (True, False):
        world = make(Echo())
        world.receives(world.client(), GET[:5])
        world.machine.draining = True
        client = world.client()
        assert not world.credits
        if not silent:
            world.receives(client, GET)
            assert b"\r\nConnection: close\r\n" in world.sent(client)
        world.wait(SOON_S)
        assert world.closing[client] is False


def test_timeouts_can_be_lifted() -> None:
    world = make(Echo(), config=replace(PLAIN, timeouts=Timeouts(keep_alive_idle_s=float("inf"))))
    client = world.client()
    world.wait(1e6)
    assert client not in world.closing
    assert world.machine.deadline is None
