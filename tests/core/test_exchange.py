"""An exchange from its head to its record, as packet traces: what comes from the world, and what goes out to it."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from coulee.core import (
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
    Retry,
    Timeouts,
    blocking,
    fetch,
    respond,
    sleep,
)
from coulee.core.peer import Balancer
from coulee.core.seam import Blocked, Close, Closed, Finished, Hold, Receive, Received, Send, Sent
from coulee.lb import Cluster
from tests.core.ledger import body, on, status
from tests.core.world import LISTENER, World

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nhi"
PLAIN = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False))
PHASES_OF_EVERY_EXCHANGE = (
    "early_request_filter", "request_filter", "upstream_peer", "connected_to_upstream",
    "upstream_request_filter", "request_body_filter", "upstream_response_filter", "response_filter",
    "upstream_response_body_filter", "response_body_filter",
)  # fmt: skip
TWO = ("http://10.0.0.1", "http://10.0.0.2")


def make(*filters: Filter, to: tuple[str, ...] = ("http://10.0.0.1",), config: Config = PLAIN) -> World:
    proxy = Proxy(Cluster(*to), filters, config).fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER])
    return World(proxy)


def pending(world: World, request: bytes = GET) -> tuple[int, int]:
    """A client has sent its request, and the origin has it."""
    client = world.client()
    world.receives(client, request)
    origin = world.connects()
    return client, origin


# ------------------------------------------------------------------------------------------------- the way through


def test_a_request_goes_up_and_its_answer_comes_down() -> None:
    world = make()
    client = world.client()
    world.receives(client, GET)
    assert world.connecting[0].address == ("10.0.0.1", 80)
    origin = world.connects()
    assert world.sent(origin) == GET
    world.receives(origin, OK)
    assert world.sent(client) == OK
    (record,) = world.access
    assert (record.status, record.reason, record.peer, record.reused) == (200, "", "10.0.0.1:80", False)
    assert (record.bytes_in, record.bytes_out, record.method, record.target) == (0, 2, "GET", "/a")
    assert record.started == 1e9
    world.receives(client, GET)
    assert world.sent(origin) == GET, "the second goes over the same connection"
    world.receives(origin, OK)
    assert world.access[1].reused
    world.leaves_nothing()


def test_a_small_message_is_one_send() -> None:
    world = make()
    client, origin = pending(
        world, GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc")
    )
    assert world.sent(origin).endswith(b"\r\n\r\nabc")
    operations = world.receives(origin, OK)
    assert [type(operation).__name__ for operation in operations] == ["Send", "Report"]
    assert world.sent(client) == OK


def test_a_body_streams_up_while_its_answer_comes_down() -> None:
    world = make()
    client, origin = pending(world, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab")
    assert body(world.sent(origin)) == b"ab"
    world.receives(origin, b"HTTP/1.1 200 OK\r\nDate: now\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
    assert body(world.sent(client)) == b"1\r\nx\r\n"
    world.receives(client, b"cd")
    assert world.sent(origin) == b"cd"
    world.receives(client, b"ef")
    assert world.sent(origin) == b"ef"
    world.receives(origin, b"2\r\nyz\r\n0\r\n\r\n")
    assert world.sent(client) == b"2\r\nyz\r\n0\r\n\r\n"
    assert (world.access[0].bytes_in, world.access[0].bytes_out) == (6, 3)
    world.receives(client, GET)
    assert world.sent(origin) == GET, "it was whole in both directions, so it is used again"


def test_trailers_pass_in_both_directions() -> None:
    world = make()
    client, origin = pending(world, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    world.receives(client, b"1\r\na\r\n0\r\nX-Up: 1\r\n\r\n")
    assert body(world.sent(origin)) == b"1\r\na\r\n0\r\nX-Up: 1\r\n\r\n"
    world.receives(origin, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nX-Down: 2\r\n\r\n")
    assert body(world.sent(client)) == b"1\r\nb\r\n0\r\nX-Down: 2\r\n\r\n"


def test_trailers_that_are_not_on_the_list_stay_here() -> None:
    world = make(config=replace(PLAIN, trailers=("x-sum",)))
    client, origin = pending(world, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    world.receives(client, b"1\r\na\r\n0\r\nX-Sum: 1\r\nX-Up: 1\r\n\r\n")
    assert body(world.sent(origin)) == b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"
    world.receives(origin, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nX-Down: 2\r\n\r\n")
    assert body(world.sent(client)) == b"1\r\nb\r\n0\r\n\r\n"


def test_trailers_that_are_there_with_the_head_pass_too() -> None:
    world = make(on("request_filter", read_body))
    client = world.client()
    world.receives(
        client, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Up: 1\r\n\r\n"
    )
    origin = world.connects()
    assert body(world.sent(origin)) == b"1\r\na\r\n0\r\nX-Up: 1\r\n\r\n"


async def read_body(exchange: Exchange) -> None:
    exchange.tags["body"] = await exchange.body()


def test_interim_answers_pass_but_not_to_http_1_0() -> None:
    world = make()
    client, origin = pending(world)
    world.receives(origin, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    assert world.sent(client) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    world.receives(origin, OK)
    assert world.sent(client) == OK
    world = make()
    client, origin = pending(world, b"GET / HTTP/1.0\r\n\r\n")
    assert b"\r\nHost: 10.0.0.1\r\n" in world.sent(origin), "HTTP/1.1 must have one"
    world.receives(origin, b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
    assert world.sent(client) == OK.replace(b"\r\n\r\nhi", b"\r\nConnection: close\r\n\r\nhi")


def test_expect_is_passed_on_and_the_origins_100_comes_back() -> None:
    world = make()
    request = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    client, origin = pending(world, request)
    assert b"Expect: 100-continue" in world.sent(origin)
    world.receives(origin, b"HTTP/1.1 100 Continue\r\n\r\n")
    assert world.sent(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
    world.receives(client, b"ab")
    assert world.sent(origin) == b"ab"
    world.receives(origin, OK)
    assert world.sent(client) == OK


def test_a_refused_expectation_ends_the_connection_because_the_body_may_or_may_not_come() -> None:
    world = make()
    client, origin = pending(world, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    world.receives(origin, b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
    answer = world.sent(client)
    assert status(answer) == 413
    assert b"\r\nConnection: close" in answer
    assert client in world.eofs


def test_a_filter_that_reads_the_body_tells_the_client_to_continue() -> None:
    world = make(on("request_filter", read_body))
    client = world.client()
    world.receives(client, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert world.sent(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
    world.receives(client, b"ab")
    origin = world.connects()
    sent = world.sent(origin)
    assert b"Expect" not in sent
    assert body(sent) == b"ab"
    world.receives(origin, b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert world.sent(client) == OK, "one 100 is enough"


def test_the_last_hop_answers_options() -> None:
    world = make()
    client = world.client()
    world.receives(client, b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n")
    answer = world.sent(client)
    assert status(answer) == 204
    assert b"\r\nAllow: GET, " in answer
    assert not world.connecting


# ---------------------------------------------------------------------------------------------------------- filters


class Everything(Filter):
    """Notes every phase, as a plain function or as an `async def` one."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def note(self, phase: str) -> None:
        self.notes.append(f"{self.name}:{phase}")

    def early_request_filter(self, exchange: Exchange) -> None:
        self.note("early")

    async def request_filter(self, exchange: Exchange) -> None:
        await sleep(0.001)
        self.note("request")

    def upstream_peer(self, exchange: Exchange) -> None:
        self.note("peer")

    def connected_to_upstream(self, exchange: Exchange, reused: bool) -> None:
        self.note("connected")

    async def upstream_request_filter(self, exchange: Exchange, request: Request) -> None:
        request.headers.set(f"X-{self.name}", str(exchange.attempts))
        self.note("upstream_request")

    def request_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> bytes:
        self.note(f"request_body({data.decode()},{ended})")
        return data.upper()

    def request_trailer_filter(self, exchange: Exchange, trailers: Headers) -> None:
        self.note("request_trailer")

    def upstream_response_filter(self, exchange: Exchange, response: Response) -> None:
        self.note("upstream_response")

    def upstream_response_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> None:
        self.note(f"upstream_body({data.decode()},{ended})")

    def response_filter(self, exchange: Exchange, response: Response) -> None:
        self.note("response")

    async def response_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> bytes:
        self.note(f"body({data.decode()},{ended})")
        return data + self.name.encode()

    def response_trailer_filter(self, exchange: Exchange, trailers: Headers) -> None:
        self.note("response_trailer")

    def logging(self, exchange: Exchange) -> None:
        self.note("logging")


def test_every_phase_in_its_order_requests_forwards_and_answers_backwards() -> None:
    notes: list[str] = []
    world = make(Everything("a", notes), Everything("b", notes))
    client = world.client()
    world.receives(client, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
    world.wait(0.01)
    origin = world.connects()
    sent = world.sent(origin)
    assert b"\r\nX-a: 1\r\nX-b: 1\r\n" in sent
    assert body(sent) == b"1\r\nX\r\n"
    world.receives(client, b"0\r\nT: u\r\n\r\n")
    assert world.sent(origin) == b"0\r\nT: u\r\n\r\n"
    world.receives(origin, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n0\r\nT: d\r\n\r\n")
    assert body(world.sent(client)) == b"3\r\nyba\r\n2\r\nba\r\n0\r\nT: d\r\n\r\n"
    assert notes == [
        "a:early", "b:early", "a:request", "b:request", "a:peer", "b:peer", "a:connected", "b:connected",
        "a:upstream_request", "b:upstream_request", "a:request_body(x,False)", "b:request_body(X,False)",
        "a:request_body(,True)", "b:request_body(,True)", "a:request_trailer", "b:request_trailer",
        "b:upstream_response", "a:upstream_response", "b:response", "a:response",
        "b:upstream_body(y,False)", "a:upstream_body(y,False)", "b:body(y,False)", "a:body(yb,False)",
        "b:upstream_body(,True)", "a:upstream_body(,True)", "b:body(,True)", "b:response_trailer", "a:body(b,True)",
        "a:response_trailer", "b:logging", "a:logging",
    ]  # fmt: skip


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Trailing(Filter):
    """Has its own idea of what is behind the body."""

    def __init__(self, moved: object, *drop: str) -> None:
        self.moved = moved
        self.drop = drop

    def response_trailer_filter(self, exchange: Exchange, trailers: Headers) -> Any:
        trailers.remove(*self.drop)
        return self.moved


class Bracketed(Filter):
    """A body filter that shows where it begins and ends."""

    def response_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> bytes:
        return b"<" + data + (b">" if ended else b"-")


@pytest.mark.parametrize(
    ("filters", "came"),
    [
        ([Trailing(b"")], b"1\r\na\r\n0\r\nX: 1\r\nY: 2\r\n\r\n"),
        ([Trailing(b"moved")], b"1\r\na\r\n5\r\nmoved\r\n0\r\nX: 1\r\nY: 2\r\n\r\n"),
        ([Trailing(b"moved", "X")], b"1\r\na\r\n5\r\nmoved\r\n0\r\nY: 2\r\n\r\n"),
        ([Trailing(b"moved", "X", "Y")], b"1\r\na\r\n5\r\nmoved\r\n0\r\n\r\n"),
        ([Trailing(None, "X", "Y")], b"1\r\na\r\n0\r\n\r\n"),
        ([Trailing(b"1"), Trailing(b"2", "X", "Y")], b"1\r\na\r\n2\r\n21\r\n0\r\n\r\n"),
        ([Bracketed(), Trailing(b"moved", "X")], b"3\r\n<a-\r\n7\r\n<moved>\r\n0\r\nY: 2\r\n\r\n"),
        ([Trailing(b"moved", "X"), Bracketed()], b"3\r\n<a-\r\n7\r\n<>moved\r\n0\r\nY: 2\r\n\r\n"),
    ],
)
def test_a_filter_may_move_trailers_into_the_body(filters: list[Filter], came: bytes) -> None:
    """... where the filters further out see them as a part of it."""
    world = make(*filters)
    client, origin = pending(world)
    world.receives(origin, CHUNKED + b"1\r\na\r\n0\r\nX: 1\r\nY: 2\r\n\r\n")
    assert body(world.sent(client)) == came
    assert world.access[0].bytes_out == sum(map(len, re.findall(rb"[<>a-]+|moved|21", came)))
    assert world.access[0].reason == ""
    world.receives(client, GET)
    assert world.sent(origin) == GET + GET, "both connections are whole"


def test_a_filter_that_gives_back_what_can_be_behind_no_body() -> None:
    world = make(Trailing("text"))
    client, origin = pending(world)
    world.receives(origin, CHUNKED + b"1\r\na\r\n0\r\nX: 1\r\n\r\n")
    assert body(world.sent(client)) == b"1\r\na\r\n", "which is cut"
    assert world.access[0].reason == "filter_error"
    assert "returned str" in world.access[0].detail


def test_an_answer_without_a_body_still_gets_its_last_call() -> None:
    calls: list[tuple[bytes, bool]] = []
    world = make(on("response_body_filter", lambda _, data, ended: calls.append((data, ended))))
    client, origin = pending(world)
    world.receives(origin, b"HTTP/1.1 204 No Content\r\n\r\n")
    assert calls == [(b"", True)]
    assert status(world.sent(client)) == 204


def test_a_body_filter_changes_the_length_of_what_is_whole() -> None:
    world = make(on("response_body_filter", lambda _, data, ended: data * 2))
    client, origin = pending(world)
    world.receives(origin, OK)
    answer = world.sent(client)
    assert b"Content-Length: 4\r\n" in answer
    assert body(answer) == b"hihi"


def test_a_body_filter_leaves_the_length_that_head_announces() -> None:
    world = make(on("response_body_filter", lambda _, data, ended: None))
    client, origin = pending(world, GET.replace(b"GET", b"HEAD"))
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    answer = world.sent(client)
    assert b"Content-Length" not in answer, "what a filter would have made of the body, nobody knows"
    assert body(answer) == b""


@pytest.mark.parametrize("phase", ["early_request_filter", "request_filter"])
def test_a_request_phase_may_answer(phase: str) -> None:
    seen: list[int] = []
    world = make(
        on(phase, lambda exchange: respond(401, json={"error": "key"})),
        on("response_filter", lambda exchange, response: seen.append(response.status)),
    )
    client = world.client()
    world.receives(client, GET)
    answer = world.sent(client)
    assert status(answer) == 401
    assert body(answer) == b'{"error": "key"}'
    assert b"\r\nDate: Sun, 09 Sep 2001 01:46:40 GMT" in answer
    assert seen == [401]
    assert not world.connecting
    assert (world.access[0].status, world.access[0].attempts) == (401, [])


@pytest.mark.parametrize("phase", ["upstream_response_filter", "response_filter"])
def test_a_response_phase_may_answer_otherwise(phase: str) -> None:
    world = make(on(phase, lambda exchange, response: respond(418, "tea")))
    client, origin = pending(world)
    world.receives(origin, OK)
    answer = world.sent(client)
    assert status(answer) == 418
    assert body(answer) == b"tea"


def test_another_answer_while_the_origins_body_is_not_read_ends_its_connection() -> None:
    world = make(on("response_filter", lambda exchange, response: respond(418)))
    client, origin = pending(world)
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    assert status(world.sent(client)) == 418
    assert world.closing[origin] is True


def test_an_answer_of_a_filter_must_be_whole() -> None:
    world = make(on("request_filter", lambda exchange: Response(200, ended=False)))
    client = world.client()
    world.receives(client, GET)
    assert status(world.sent(client)) == 500
    assert world.access[0].reason == "filter_error"


def test_a_filter_may_choose_the_peer() -> None:
    world = make(on("upstream_peer", lambda exchange: Peer(("10.9.9.9", 99), name="chosen")))
    pending_client = world.client()
    world.receives(pending_client, GET)
    assert world.connecting[0].address == ("10.9.9.9", 99)


def test_a_head_request_gets_no_body_from_a_filters_answer() -> None:
    world = make(on("request_filter", lambda exchange: respond(200, "hello")))
    client = world.client()
    world.receives(client, GET.replace(b"GET", b"HEAD"))
    answer = world.sent(client)
    assert b"Content-Length: 5" in answer
    assert body(answer) == b""


def test_functions_can_be_filters() -> None:
    proxy = Proxy(Cluster("http://10.0.0.1"), config=PLAIN)

    @proxy.on("response_filter")
    def no_date(exchange: Exchange, response: Response) -> None:
        response.headers.remove("date")

    world = World(proxy.fresh(rng=Random(1), listen=[LISTENER]))
    client, origin = pending(world)
    world.receives(origin, OK)
    assert b"Date" not in world.sent(client)
    with pytest.raises(ValueError, match="there is no phase 'nope'; there are early_request_filter"):
        proxy.on("nope")


def boom(*args: object) -> None:
    raise RuntimeError("boom")


@pytest.mark.parametrize("phase", PHASES_OF_EVERY_EXCHANGE)
def test_a_filter_that_raises_gives_500_and_one_report(phase: str) -> None:
    world = make(on(phase, boom))
    client = world.client()
    world.receives(client, GET)
    if world.connecting:
        origin = world.connects()
        if world.closing.get(origin) is None:
            world.receives(origin, OK)
    answer = world.sent(client)
    assert status(answer) == 500
    assert b'"error": "filter_error"' in answer
    assert b"boom" not in answer, "what went wrong inside is for the operator"
    (event,) = world.events("filter_error")
    assert "boom: RuntimeError: boom" in event.text
    assert "Traceback" in str(event.fields["traceback"])
    (record,) = world.access
    assert (record.status, record.reason) == (500, "filter_error")
    world.receives(client, GET)
    assert len(world.events("filter_error")) + len(world.connecting) >= 1, "the proxy goes on"


def test_a_logging_filter_that_raises_is_reported_and_nothing_else() -> None:
    world = make(on("logging", boom))
    client, origin = pending(world)
    world.receives(origin, OK)
    assert world.sent(client) == OK
    assert len(world.events("filter_error")) == 1
    assert world.access[0].reason == ""


def test_a_logging_filter_that_never_ends_is_ended() -> None:
    async def slow(exchange: Exchange) -> None:
        await sleep(1e6)

    world = make(on("logging", slow))
    client, origin = pending(world)
    world.receives(origin, OK)
    assert not world.access
    world.wait(5.1)
    assert len(world.access) == 1
    assert "too long" in world.events("filter_error")[0].text


def test_a_filter_that_awaits_a_foreign_loop_is_told_the_cure() -> None:
    import asyncio

    class Foreign:
        def __await__(self) -> Any:
            yield "something of another loop"

    async def asyncios(exchange: Exchange) -> None:
        await asyncio.sleep(1)

    async def others(exchange: Exchange) -> None:
        await Foreign()

    for function in (asyncios, others):
        world = make(on("request_filter", function))
        client = world.client()
        world.receives(client, GET)
        assert status(world.sent(client)) == 500
        assert "await native(async_fn, *args)" in world.events("filter_error")[0].text


def test_a_filter_that_returns_what_its_phase_cannot_use() -> None:
    world = make(on("request_filter", lambda exchange: "no"), on("response_body_filter", lambda *_: "no"))
    client = world.client()
    world.receives(client, GET)
    assert "returned str" in world.events("filter_error")[0].text
    world = make(on("response_body_filter", lambda *_: "no"))
    client, origin = pending(world)
    world.receives(origin, OK)
    assert status(world.sent(client)) == 500
    assert "returns bytes or None" in world.events("filter_error")[0].text


def test_a_filter_may_fail_a_request_with_a_reason_of_its_choice() -> None:
    def refuse(*_: object) -> None:
        raise ExchangeError("body_too_large", "not today", 499)

    world = make(on("request_filter", refuse))
    client = world.client()
    world.receives(client, GET)
    assert status(world.sent(client)) == 499
    assert (world.access[0].reason, world.access[0].detail) == ("body_too_large", "not today")
    world = make(on("response_body_filter", refuse))
    client, origin = pending(world)
    world.receives(origin, OK)
    assert status(world.sent(client)) == 499


def test_a_filter_may_give_the_answer_to_a_failure() -> None:
    world = make(on("fail_to_proxy", lambda exchange, error: respond(200, f"sorry: {error.reason}")))
    client = world.client()
    world.receives(client, GET)
    world.refuses()
    assert body(world.sent(client)) == b"sorry: upstream_refused"
    world = make(on("fail_to_proxy", boom))
    client = world.client()
    world.receives(client, GET)
    world.refuses()
    assert status(world.sent(client)) == 502, "and where that fails, there is still the usual one"
    assert len(world.events("filter_error")) == 1


def test_a_filter_can_read_the_body_within_a_limit() -> None:
    async def small(exchange: Exchange) -> None:
        exchange.tags["body"] = await exchange.body(4)

    request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    world = make(on("request_filter", small))
    client = world.client()
    world.receives(client, request)
    world.receives(client, b"2\r\nab\r\n")
    world.receives(client, b"2\r\ncd\r\n0\r\n\r\n")
    origin = world.connects()
    assert body(world.sent(origin)) == b"4\r\nabcd\r\n0\r\n\r\n"
    world.receives(origin, OK)
    assert world.access[0].tags == {"body": b"abcd"}
    client = world.client()
    world.receives(client, request + b"2\r\nab\r\n")
    world.receives(client, b"3\r\ncde\r\n0\r\n\r\n")
    assert status(world.sent(client)) == 413
    for too_large in (b"Content-Length: 5\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"):
        client = world.client()
        world.receives(client, b"POST / HTTP/1.1\r\nHost: a\r\n" + too_large)
        assert status(world.sent(client)) == 413


def test_a_filter_may_use_threads_and_the_hosts_loop() -> None:
    async def ask(exchange: Exchange) -> Response:
        return respond(200, await blocking(lambda: "from a thread"))

    world = make(on("request_filter", ask))
    client = world.client()
    world.receives(client, GET)
    (job,) = world.jobs
    assert (job.mode, job.call()) == ("blocking", "from a thread")
    world.gives(Finished(job.job, "from a thread"))
    assert body(world.sent(client)) == b"from a thread"
    world.receives(client, GET)
    world.gives(Finished(world.jobs[1].job, None, OSError("no")))
    assert status(world.sent(client)) == 500


def test_a_filter_may_send_a_request_of_its_own() -> None:
    async def ask(exchange: Exchange) -> Response:
        answer = await fetch(Request("GET", "/check", Headers({"X-A": "1"})))
        return respond(answer.status, answer.data)

    world = make(on("request_filter", ask))
    client, origin = pending(world)
    assert world.sent(origin) == b"GET /check HTTP/1.1\r\nHost: 10.0.0.1\r\nX-A: 1\r\n\r\n"
    world.receives(
        origin, b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 203 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
    )
    world.receives(origin, b"1\r\nb\r\n0\r\nT: x\r\n\r\n")
    answer = world.sent(client)
    assert (status(answer), body(answer)) == (203, b"ab")
    world.receives(client, GET)
    assert world.sent(origin), "its connection went back to the pool"
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 1_100_000)
    assert status(world.sent(client)) == 502


def test_a_sub_request_needs_an_endpoint() -> None:
    class Nobody(Balancer):
        def choose(self, exchange: object) -> None:
            return None

    async def ask(exchange: Exchange) -> None:
        await fetch(Request("GET", "/"))

    for filters in ([on("request_filter", ask)], []):
        proxy = Proxy(Nobody(), filters, PLAIN)
        world = World(proxy.fresh(rng=Random(1), listen=[LISTENER]))
        client = world.client()
        world.receives(client, GET)
        answer = world.sent(client)
        assert status(answer) == 503
        assert b"no_healthy_endpoint" in answer
        assert b"Retry-After: 1" in answer


# ---------------------------------------------------------------------------------------------- failures and retries


def test_a_refused_connect_fails_over_to_another_endpoint() -> None:
    world = make(to=TWO)
    client = world.client()
    world.receives(client, GET)
    assert world.connecting[0].address == ("10.0.0.1", 80)
    world.refuses()
    assert world.connecting[0].address == ("10.0.0.2", 80)
    origin = world.connects()
    world.receives(origin, OK)
    assert world.sent(client) == OK
    (record,) = world.access
    assert [(attempt.peer, attempt.reason) for attempt in record.attempts] == [
        ("10.0.0.1:80", "upstream_refused"),
        ("10.0.0.2:80", ""),
    ]
    (event,) = world.events("retry")
    assert event.text == "GET /a: 10.0.0.1:80 failed (upstream_refused), trying again"


@pytest.mark.parametrize(
    ("kind", "reason", "code"),
    [
        ("refused", "upstream_refused", 502),
        ("unreachable", "upstream_unreachable", 502),
        ("timed_out", "upstream_connect_timeout", 504),
        ("tls", "upstream_tls", 502),
        ("resources", "upstream_unreachable", 502),
        ("other", "upstream_reset", 502),
    ],
)
def test_when_nobody_can_be_reached(kind: Any, reason: str, code: int) -> None:
    world = make(to=TWO)
    client = world.client()
    world.receives(client, GET)
    world.refuses(kind)
    world.refuses(kind)
    assert not world.connecting, "both were tried, and once is enough"
    answer = world.sent(client)
    assert status(answer) == code
    assert f'details="{reason}"'.encode() in answer
    assert world.access[0].reason == reason
    assert [attempt.reason for attempt in world.access[0].attempts] == [reason, reason]


def test_a_connect_that_takes_too_long() -> None:
    world = make()
    client = world.client()
    world.receives(client, GET)
    world.wait(3.1)
    answer = world.sent(client)
    assert status(answer) == 504
    assert b"upstream_connect_timeout" in answer


def test_a_filter_decides_whether_a_failed_connect_is_tried_again() -> None:
    world = make(on("fail_to_connect", lambda exchange, error: True))
    client = world.client()
    world.receives(client, GET)
    world.refuses()
    world.refuses()
    assert not world.connecting, "it was tried already, and is given a moment"
    world.wait(0.025)
    world.refuses()
    assert not world.connecting, "within the limit of retries"
    assert status(world.sent(client)) == 502
    world = make(on("fail_to_connect", lambda exchange, error: False), to=TWO)
    client = world.client()
    world.receives(client, GET)
    world.refuses()
    assert status(world.sent(client)) == 502


def test_a_filter_may_say_no_more_than_yes_or_no_about_a_retry() -> None:
    world = make(on("fail_to_connect", lambda exchange, error: "maybe"))
    client = world.client()
    world.receives(client, GET)
    world.refuses()
    assert status(world.sent(client)) == 500


def used(world: World) -> tuple[int, int]:
    """A client and an origin connection that lies idle."""
    client, origin = pending(world)
    world.receives(origin, OK)
    assert world.sent(client) == OK
    world.sent(origin)
    return client, origin


def test_a_reused_connection_that_dies_is_replaced_by_a_fresh_one_once() -> None:
    world = make()
    client, origin = used(world)
    world.receives(client, GET)
    assert world.sent(origin) == GET
    other, second = pending(world)
    world.receives(second, OK)  # so that the pool has another idle one
    world.sent(other)
    world.resets(origin)
    fresh = world.connects()
    assert world.sent(fresh) == GET, "not the other idle one"
    world.receives(fresh, OK)
    assert world.sent(client) == OK
    assert [(a.reason, a.reused) for a in world.access[-1].attempts] == [("upstream_reset", True), ("", False)]


def test_a_fresh_connection_that_dies_is_tried_again_within_the_limit() -> None:
    world = make()
    client, origin = pending(world)
    world.receives(origin, b"")
    origin = world.connects()
    world.resets(origin)
    world.wait(0.025)
    origin = world.connects()
    world.resets(origin, detail="connection reset by peer")
    answer = world.sent(client)
    assert status(answer) == 502
    assert b"upstream_reset" in answer
    assert len(world.access[0].attempts) == 3


POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"


def test_a_post_is_never_sent_twice_unless_somebody_says_so() -> None:
    world = make()
    client, origin = used(world)
    world.receives(client, POST + b"abc")
    world.resets(origin)
    assert status(world.sent(client)) == 502
    world = make(config=replace(PLAIN, retry=Retry(non_idempotent=True)))
    client, origin = used(world)
    world.receives(client, POST + b"abc")
    world.resets(origin)
    assert body(world.sent(world.connects())) == b"abc"
    world = make(on("error_while_proxy", lambda exchange, error: True))
    client, origin = used(world)
    world.receives(client, POST + b"abc")
    world.resets(origin)
    assert body(world.sent(world.connects())) == b"abc"


def test_a_filter_may_forbid_a_retry() -> None:
    world = make(on("error_while_proxy", lambda exchange, error: False))
    client, origin = pending(world)
    world.resets(origin)
    assert status(world.sent(client)) == 502


PUT = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"


def test_a_body_within_the_replay_buffer_is_sent_again_and_goes_on() -> None:
    world = make()
    client, origin = pending(world, PUT + b"a" * 1000)
    world.receives(client, b"b" * 1000)
    assert body(world.sent(origin)) == b"a" * 1000 + b"b" * 1000
    world.resets(origin)
    origin = world.connects()
    assert body(world.sent(origin)) == b"a" * 1000 + b"b" * 1000
    world.receives(client, b"c" * 98000)
    assert world.sent(origin) == b"c" * 98000
    world.receives(origin, OK)
    assert status(world.sent(client)) == 200


def test_a_body_past_the_replay_buffer_is_not() -> None:
    world = make(on("error_while_proxy", lambda exchange, error: True))
    client, origin = pending(world, PUT)
    world.receives(client, b"a" * 70000)
    world.resets(origin)
    assert not world.connecting, "not even where a filter asks for it: half of it is gone"
    assert status(world.sent(client)) == 502


def test_a_body_filter_sees_a_replay_from_its_beginning() -> None:
    calls: list[tuple[int, bytes, bool]] = []

    def note(exchange: Exchange, data: bytes, ended: bool) -> None:
        calls.append((exchange.attempts, data, ended))

    world = make(on("request_body_filter", note))
    client, origin = pending(world, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na")
    world.receives(client, b"b")
    world.resets(origin)
    origin = world.connects()
    world.receives(client, b"c")
    assert body(world.sent(origin)) == b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", "a filter may change the length"
    assert calls == [(1, b"a", False), (1, b"b", False), (2, b"ab", False), (2, b"c", True)]


def test_an_answer_that_began_is_never_begun_again() -> None:
    world = make()
    client, origin = pending(world)
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    assert body(world.sent(client)) == b"ab"
    world.resets(origin)
    assert not world.connecting
    assert client in world.eofs, "a cut that the client can see: less than the length"
    (record,) = world.access
    assert (record.status, record.reason, record.bytes_out) == (200, "upstream_reset", 2)


@pytest.mark.parametrize(("version", "reset"), [(b"1.1", False), (b"1.0", True)])
def test_a_body_without_a_length_is_cut_so_that_it_cannot_look_whole(version: bytes, reset: bool) -> None:
    world = make()
    client, origin = pending(world, GET.replace(b"1.1", version))
    world.receives(origin, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    assert body(world.sent(client)) == (b"ab" if reset else b"2\r\nab\r\n")
    world.resets(origin)
    if reset:
        assert world.closing[client] is True, "HTTP/1.0 would take a plain end for the end of the body"
    else:
        assert client in world.eofs
        assert not world.sent(client), "no last chunk"


def test_an_answer_that_is_none_is_not_asked_for_again() -> None:
    world = make()
    client, origin = pending(world)
    world.receives(origin, b"garbage\r\n\r\n")
    answer = world.sent(client)
    assert status(answer) == 502
    assert b'error=http_protocol_error; details="upstream_invalid"' in answer
    assert world.closing[origin] is True


def test_a_silent_origin_is_a_gateway_timeout() -> None:
    world = make()
    client, origin = pending(world)
    world.wait(60.1)
    answer = world.sent(client)
    assert status(answer) == 504
    assert b"upstream_timeout" in answer
    assert world.closing[origin] is True


def test_an_answer_that_stalls_is_cut() -> None:
    world = make()
    client, origin = pending(world)
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    world.wait(59)
    world.receives(origin, b"c")
    world.wait(59)
    assert client not in world.closing
    world.wait(2)
    assert client in world.eofs
    assert world.access[0].reason == "upstream_timeout"


def test_the_time_to_answer_begins_when_the_request_is_whole() -> None:
    world = make(config=replace(PLAIN, timeouts=Timeouts(answer_timeout_s=5)))
    client, origin = pending(world, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
    world.wait(17)
    world.receives(client, b"a")
    world.wait(17)
    world.receives(client, b"b")
    world.wait(4)
    assert not world.sent(client)
    world.wait(2)
    assert status(world.sent(client)) == 504


def test_a_body_that_stops_arriving() -> None:
    world = make()
    client, origin = pending(world, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
    world.wait(30.1)
    answer = world.sent(client)
    assert status(answer) == 408
    assert b"body_timeout" in answer
    assert world.closing[origin] is True


def test_a_body_that_breaks_its_framing() -> None:
    world = make()
    client, origin = pending(world, b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    world.receives(client, b"zz\r\n")
    answer = world.sent(client)
    assert status(answer) == 400
    assert world.closing[origin] is True
    assert world.access[0].reason == "bad_request"


def test_an_origin_that_answers_early_and_closes() -> None:
    world = make()
    client, origin = pending(world, PUT)
    world.receives(origin, b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    answer = world.sent(client)
    assert status(answer) == 413
    assert world.closing[origin] is True
    world.receives(client, b"a" * 60000)
    assert client not in world.closing, "some of the rest is read and forgotten"
    world.receives(client, b"a" * 30000)
    assert client in world.eofs, "but not all"


def test_an_origin_that_takes_no_more_of_a_body_but_answers() -> None:
    world = make()
    client, origin = pending(world, PUT)
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    world.sent(client)
    world.resets(origin)
    assert client in world.eofs
    assert world.access[0].reason == "upstream_reset"


def test_a_client_that_takes_nothing_is_given_up() -> None:
    world = make()
    client, origin = pending(world)
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + b"x" * 1000)
    world.gives(Blocked(client))
    world.wait(31)
    assert world.closing[client] is True
    assert world.closing[origin] is True
    assert world.access[0].reason == "send_timeout"


def test_an_origin_that_takes_nothing_is_given_up() -> None:
    world = make(to=TWO)
    client, origin = pending(world, PUT + b"a" * 1000)
    world.gives(Blocked(origin))
    world.wait(31)
    assert world.closing[origin] is True
    answer = world.sent(client)
    assert status(answer) in (408, 504)


# ------------------------------------------------------------------------------------------------ who leaves, and when


class Slow(Filter):
    """Waits for ever in one phase, and notes that it was cancelled."""

    def __init__(self, phase: str) -> None:
        self.ended: list[str] = []

        async def wait(*_: object) -> None:
            try:
                await sleep(1e9)
            finally:
                self.ended.append(phase)

        setattr(self, phase, wait)


@pytest.mark.parametrize("phase", [*PHASES_OF_EVERY_EXCHANGE, "fail_to_connect", "error_while_proxy", "fail_to_proxy"])
def test_a_client_that_leaves_cancels_what_waits_at_once(phase: str) -> None:
    slow = Slow(phase)
    world = make(slow)
    client = world.client()
    world.receives(client, GET)
    origin = None
    if world.connecting and phase in ("fail_to_connect", "fail_to_proxy"):
        world.refuses()
    elif world.connecting:
        origin = world.connects()
        if phase == "error_while_proxy":
            world.resets(origin)
            origin = None
        elif "response" in phase:
            world.receives(origin, OK)
    assert slow.ended == []
    world.resets(client)
    assert slow.ended == [phase], "in the same turn"
    assert len(world.access) == 1
    assert world.access[0].reason in ("client_gone", "upstream_refused")
    assert origin is None or origin in world.closing or "response" in phase
    world.leaves_nothing()


@pytest.mark.parametrize("moment", ["connecting", "waiting", "sending", "answering", "queueing"])
def test_a_client_that_leaves_ends_the_upstream_stream_at_once(moment: str) -> None:
    config = replace(PLAIN, limits=Limits(connections_per_peer_max=1)) if moment == "queueing" else PLAIN
    world = make(config=config)
    if moment == "queueing":
        pending(world)
    client = world.client()
    world.receives(client, PUT if moment == "sending" else GET)
    if moment == "queueing":
        world.resets(client)
        assert len(world.access) == 1
        return
    conn = world.connecting[0].conn
    if moment != "connecting":
        world.connects()
    if moment == "answering":
        world.receives(conn, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    world.resets(client)
    assert world.closing[conn] is True
    (record,) = world.access
    assert record.reason == "client_gone"
    world.leaves_nothing()


def test_a_job_of_a_client_that_left_is_cancelled() -> None:
    async def ask(exchange: Exchange) -> None:
        await blocking(lambda: None)

    world = make(on("request_filter", ask))
    client = world.client()
    world.receives(client, GET)
    world.resets(client)
    (job,) = world.jobs
    assert world.cancelled == [job.job]
    assert len(world.access) == 1
    world.gives(Finished(job.job))
    world.leaves_nothing()


def test_a_half_close_is_answered_unless_the_configuration_says_otherwise() -> None:
    world = make()
    client, origin = pending(world)
    world.receives(client, b"")
    world.receives(origin, OK)
    assert world.sent(client) == OK
    assert world.closing[client] is False
    world = make(config=replace(PLAIN, cancel_on_half_close=True))
    client, origin = pending(world)
    world.receives(client, b"")
    assert world.closing[origin] is True
    assert world.access[0].reason == "client_gone"


# -------------------------------------------------------------------------------------------------- slow and fast sides


def test_a_slow_reader_holds_back_the_origin() -> None:
    world = make()
    client, origin = pending(world)
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 60000)
    world.gives(Blocked(client))
    sent = 60000
    while world.reading[origin]:
        world.gives(Received(origin, b"x" * 60000))
        sent += 60000
        assert sent < 400_000, "the buffers are bounded"
    world.gives(Sent(client))
    assert world.reading[origin], "and it goes on as soon as there is room"


def test_a_slow_origin_holds_back_the_client() -> None:
    world = make()
    client, origin = pending(world, PUT.replace(b"100000", b"900000"))
    world.receives(client, b"x" * 60000)
    world.gives(Blocked(origin))
    sent = 60000
    while world.reading[client]:
        world.gives(Received(client, b"x" * 60000))
        sent += 60000
        assert sent < 400_000
    world.gives(Sent(origin))
    assert world.reading[client]


def test_a_connection_that_closes_in_order_while_it_is_lent() -> None:
    world = make()
    client, origin = pending(world)
    world.closed.append(origin)
    world.gives(Closed(origin))
    assert world.connecting, "an unanswered GET is tried again"


def test_an_exchange_can_be_shown() -> None:
    seen: list[str] = []
    world = make(on("request_filter", lambda exchange: seen.append(repr(exchange))))
    world.receives(world.client(), GET)
    assert seen == ["<Exchange GET /a attempt 0>"]


def test_what_a_filter_sees_of_time_and_chance() -> None:
    seen: list[object] = []

    def look(exchange: Exchange) -> None:
        seen.extend([exchange.now, exchange.rng.random() == Random(1).random(), exchange.tried])

    world = make(on("request_filter", look))
    world.now = 5.0
    world.receives(world.client(), GET)
    assert seen == [5.0, True, []]


def test_what_a_blocked_client_does_not_take_stays_with_the_origin() -> None:
    world = make()
    client, origin = pending(world)
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 210010\r\n\r\n" + b"x" * 70_000)
    world.gives(Blocked(client))
    assert world.receives(origin, b"y" * 10) == [], "it was awaited already"
    assert world.receives(origin, b"z" * 70_000) == [Hold(origin)], "not one more piece is taken from it"
    assert world.gives(Sent(client)) == [Send(client, [b"y" * 10, b"z" * 70_000]), Receive(origin)]
    assert world.receives(origin, b"w" * 70_000)[0] == Send(client, b"w" * 70_000)


def test_a_client_that_pipelines_more_than_the_mark_is_put_on_hold() -> None:
    world = make()
    client = world.client()
    operations = world.receives(client, GET * (70_000 // len(GET)))
    assert Hold(client) in operations
    origin = world.connects()
    for _ in range(10):  # some are answered, and there is no room yet
        assert Receive(client) not in world.receives(origin, OK)


def test_an_origin_that_says_much_behind_its_answer_is_closed_and_not_put_on_hold() -> None:
    world = make()
    client, origin = pending(world)
    operations = world.receives(origin, OK + b"x" * 70_000)
    assert Close(origin) in operations
    assert Hold(origin) not in operations
    assert world.sent(client) == OK


def test_the_answer_of_a_filter_goes_through_the_filters_of_the_body() -> None:
    world = make(
        on("request_filter", lambda exchange: respond(200, b"abc")),
        on("response_body_filter", lambda exchange, data, ended: data.upper()),
    )
    client = world.client()
    world.receives(client, GET)
    answer = world.sent(client)
    assert body(answer) == b"ABC"
    assert b"Content-Length: 3" in answer
