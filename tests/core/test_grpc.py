"""gRPC above HTTP/2: what is a call, when it has to end, and how it is told what went wrong.

The exchanges are played over HTTP/1.1, whose requests are passed off as those of version 2: chunks can carry trailers.
"""

from __future__ import annotations

from math import inf
from random import Random
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core import (
    Config,
    Exchange,
    ExchangeError,
    Filter,
    Forwarding,
    Headers,
    Proxy,
    Request,
    Response,
    Retry,
    Timeouts,
)
from coulee.core.answers import error_answer
from coulee.core.codec import Codec, Role
from coulee.core.errors import REASONS
from coulee.core.grpc import STATUSES, Call, encode_message, is_grpc, status_of, timeout_of
from coulee.core.http1 import Http1Codec
from coulee.core.seam import Blocked, Sent
from coulee.lb import Breaker, Cluster
from tests.core.ledger import body, on
from tests.core.world import LISTENER, World
from tests.http2 import frames as h2

V2 = (2, 0)


def asking(kind: str | None, version: tuple[int, int] = V2, **fields: str) -> Request:
    headers = Headers(fields)
    if kind is not None:
        headers.add("content-type", kind)
    return Request("POST", "/a.B/C", headers, version)


# ---------------------------------------------------------------------------------------------------- what is a call


@pytest.mark.parametrize(
    ("kind", "is_one"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("application/grpc+json", True),
        ("Application/GRPC", True),
        ("application/grpc;charset=utf-8", True),
        ("application/grpc ;v=1", True),
        ("application/grpc\t", True),
        ("application/grpc-web", False),
        ("application/grpc-web+proto", False),
        ("application/grpc-web-text", False),
        ("application/grpcx", False),
        ("application/json", False),
        ("text/plain, application/grpc", False),
        ("", False),
        (None, False),
    ],
)
def test_what_a_call_is(kind: str | None, is_one: bool) -> None:
    assert is_grpc(asking(kind)) is is_one


def test_nothing_of_http_1_is_a_call() -> None:
    assert not is_grpc(asking("application/grpc", (1, 1)))
    assert is_grpc(asking("application/grpc", (3, 0)))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1H", 3600.0),
        ("2M", 120.0),
        ("30S", 30.0),
        ("250m", 0.25),
        ("5u", 5e-6),
        ("7n", 7e-9),
        ("0S", 0.0),
        ("00000001S", 1.0),
        ("99999999H", 99999999 * 3600.0),
        ("", None),
        ("S", None),
        ("1", None),
        ("1s", None),
        ("1h", None),
        ("123456789S", None),
        ("-1S", None),
        ("+1S", None),
        ("1.5S", None),
        (" 1S", None),
        ("1 S", None),
        ("1S\n", None),
        ("1S, 2S", None),
        ("1SS", None),
        ("\u0661S", None),
        ("\xb2S", None),
    ],
)
def test_what_a_timeout_says(value: str, seconds: float | None) -> None:
    assert timeout_of(value) == (seconds if seconds is None else pytest.approx(seconds))


# ------------------------------------------------------------------------------------------------ what is said of it


def test_each_reason_has_its_status() -> None:
    assert set(STATUSES) == set(REASONS)
    assert set(STATUSES.values()) <= set(range(1, 17))
    said = {word: code for word, code in STATUSES.items() if REASONS[word].status}
    by_status: dict[int, set[int]] = {}
    for word, code in said.items():
        by_status.setdefault(REASONS[word].status, set()).add(code)
    assert by_status == {
        400: {13}, 403: {7}, 405: {12}, 408: {4}, 413: {8}, 414: {8}, 417: {13}, 421: {14}, 429: {8}, 431: {8},
        500: {13}, 501: {12}, 502: {13, 14}, 503: {14}, 504: {4, 14}, 505: {12},
    }  # fmt: skip
    assert [word for word, code in said.items() if code == 14 and REASONS[word].status == 504] == [
        "upstream_connect_timeout"
    ]
    assert [word for word, code in said.items() if code == 13 and REASONS[word].status == 502] == ["upstream_invalid"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ExchangeError("bad_request"), 13),
        (ExchangeError("bad_request", status=401), 16),
        (ExchangeError("bad_request", status=403), 7),
        (ExchangeError("bad_request", status=404), 12),
        (ExchangeError("bad_request", status=429), 8),
        (ExchangeError("bad_request", status=418), 13),
        (ExchangeError("upstream_invalid", status=503), 14),
        (ExchangeError("upstream_invalid"), 13),
        (ExchangeError("forward_denied"), 7),
        (ExchangeError("circuit_open"), 14),
    ],
)
def test_the_status_of_an_error(error: ExchangeError, code: int) -> None:
    assert status_of(error) == code


@pytest.mark.parametrize("word", [word for word, reason in REASONS.items() if reason.status])
def test_an_error_of_ours_is_an_error_of_grpc(word: str) -> None:
    answer = error_answer(ExchangeError(word, "10.0.0.1 is secret"), asking("application/grpc+proto"), "edge")
    assert (answer.status, answer.data, answer.length, answer.ended) == (200, b"", 0, True)
    message = answer.headers["grpc-message"]
    assert list(answer.headers) == [
        ("content-type", "application/grpc"),
        ("proxy-status", f'edge; error={REASONS[word].proxy_error}; details="{word}"'),
        ("grpc-status", str(STATUSES[word])),
        ("grpc-message", message),
    ]
    assert unquote(message) == f"{word}: {REASONS[word].meaning}"


def test_who_asks_for_no_call_is_answered_as_ever() -> None:
    answer = error_answer(ExchangeError("pool_full"), asking("application/grpc-web"), "edge")
    assert answer.status == 503
    assert "grpc-status" not in answer.headers


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("all of it ~!$&", "all of it ~!$&"),
        ("100%", "100%25"),
        ("a\nb\x7f", "a%0Ab%7F"),
        ("na\xefve \u2192 \U0001f600", "na%C3%AFve %E2%86%92 %F0%9F%98%80"),
        ("", ""),
    ],
)
def test_what_a_message_looks_like(text: str, encoded: str) -> None:
    assert encode_message(text) == encoded


@given(st.text())
def test_a_message_can_be_read_again(text: str) -> None:
    encoded = encode_message(text)
    assert all(" " <= character <= "~" for character in encoded)
    assert unquote(encoded, errors="strict") == text


# ------------------------------------------------------------------------------------------------------- an exchange


class _Second(Http1Codec):
    """Passes off what it reads as version 2."""

    def next_part(self) -> Any:
        pulled = super().next_part()
        if isinstance(pulled, tuple) and isinstance(pulled[1], Request):
            pulled[1].version = V2
        return pulled


@pytest.fixture(autouse=True)
def version_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def new_codec(proxy: Proxy, role: Role, prior_knowledge: bool = False) -> Codec:
        kind = _Second if role == "server" else Http1Codec
        return kind(role, proxy.config.limits, prior_knowledge=prior_knowledge)

    monkeypatch.setattr(Proxy, "new_codec", new_codec)


CALL = b"POST /a.B/C HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\n%sContent-Length: 5\r\n\r\n\0\0\0\0\0"
HEAD = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"
MESSAGE = b"5\r\n\0\0\0\0\0\r\n"
FINE = b"0\r\ngrpc-status: 0\r\n\r\n"
LATE = (
    b"0\r\ngrpc-status: 4\r\n"
    b"grpc-message: deadline_exceeded: the gRPC call was not over by the deadline that its client gave it\r\n\r\n"
)
BROKEN = (
    b"0\r\ngrpc-status: 14\r\n"
    b"grpc-message: upstream_reset: the endpoint closed the connection before its answer was whole\r\n\r\n"
)


def make(
    *filters: Filter, to: tuple[str, ...] = ("http://10.0.0.1",), retry: Retry | None = None, **more: Any
) -> World:
    config = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False), retry=retry or Retry())
    proxy = Proxy(Cluster(*to, **more), filters, config)
    return World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER]))


def pending(world: World, timeout: bytes = b"") -> tuple[int, int]:
    """A client has made a call, and the origin has it."""
    client = world.client()
    world.receives(client, CALL % (b"grpc-timeout: %s\r\n" % timeout if timeout else b""))
    origin = world.connects()
    assert (b"grpc-timeout: %s\r\n" % timeout in world.sent(origin)) == bool(timeout), "it goes up as it came"
    return client, origin


def ended(world: World) -> tuple[int, str, object]:
    """What the only record says."""
    (record,) = world.access
    return record.status, record.reason, record.tags.get("grpc_status")


def test_a_call_that_goes_well() -> None:
    alarms: list[int] = []
    for timeout in (b"", b"1S"):
        world = make()
        client, origin = pending(world, timeout)
        world.receives(origin, HEAD + MESSAGE + FINE)
        assert body(world.sent(client)) == MESSAGE + FINE
        assert ended(world) == (200, "", 0)
        alarms.append(world.machine.leftovers["alarms"])
        world.leaves_nothing()
    assert alarms[0] == alarms[1], "no deadline is left"


def test_a_status_that_is_in_the_head_is_noted_too() -> None:
    world = make()
    client, origin = pending(world)
    world.receives(
        origin, b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 5\r\nContent-Length: 0\r\n\r\n"
    )
    assert b"\r\ngrpc-status: 5\r\n" in world.sent(client)
    assert ended(world) == (200, "", 5)


@pytest.mark.parametrize("status", [b"", b"x", b"-1", b"1234", b"\xb2"])
def test_what_is_no_status_is_passed_on_and_not_noted(status: bytes) -> None:
    world = make()
    client, origin = pending(world)
    world.receives(origin, HEAD + b"0\r\ngrpc-status: %s\r\n\r\n" % status)
    assert body(world.sent(client)).startswith(b"0\r\ngrpc-status:")
    assert ended(world) == (200, "", None)


def test_an_error_page_of_an_origin_is_passed_on() -> None:
    world = make()
    client, origin = pending(world)
    page = b"HTTP/1.1 502 Bad Gateway\r\nDate: now\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\noops"
    world.receives(origin, page)
    assert world.sent(client) == page
    assert ended(world) == (502, "", None)


def test_an_origin_that_is_down() -> None:
    world = make(retry=Retry(retries_max=0))
    client = world.client()
    world.receives(client, CALL % b"")
    world.refuses()
    sent = world.sent(client)
    assert sent.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n")
    assert b"\r\ngrpc-status: 14\r\n" in sent
    assert b"\r\ngrpc-message: upstream_refused: nothing listens at the endpoint's address\r\n" in sent
    assert b"\r\nproxy-status: coulee; error=connection_refused; " in sent
    assert b"\r\nDate: " in sent
    assert body(sent) == b""
    assert ended(world) == (200, "upstream_refused", 14)
    world.leaves_nothing()


# --------------------------------------------------------------------------------------------------------- deadlines


def test_the_deadline_comes_before_the_answer() -> None:
    world = make()
    client, origin = pending(world, b"250m")
    world.wait(0.249)
    assert world.sent(client) == b""
    world.wait(0.001)
    sent = world.sent(client)
    assert b"\r\ngrpc-status: 4\r\n" in sent
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert ended(world) == (200, "deadline_exceeded", 4)
    assert world.access[0].detail == "no end within the client's 0.25 s"
    assert world.access[0].attempts[0].reason == "deadline_exceeded"
    assert origin in world.closed, "which is cancelled"
    world.leaves_nothing()


def test_the_deadline_holds_for_the_body_too() -> None:
    world = make()
    client, origin = pending(world, b"10S")
    world.receives(origin, HEAD + MESSAGE)
    assert body(world.sent(client)) == MESSAGE
    world.wait(9.9)
    world.receives(origin, MESSAGE)
    assert world.sent(client) == MESSAGE
    world.wait(0.1)
    assert world.sent(client) == LATE
    assert ended(world) == (200, "deadline_exceeded", 4)
    assert origin in world.closed
    assert client not in world.closed
    world.receives(client, CALL % b"")
    assert world.connecting, "the client's next call is served"


def test_the_deadline_counts_from_the_head_over_all_attempts() -> None:
    world = make(to=("http://10.0.0.1", "http://10.0.0.2"))
    client = world.client()
    world.receives(client, CALL % b"grpc-timeout: 3S\r\n")
    world.wait(2.0)
    world.refuses()
    second = world.connects()
    assert b"\r\ngrpc-timeout: 3S\r\n" in world.sent(second), "unchanged"
    world.wait(0.9)
    assert world.sent(client) == b""
    world.wait(0.1)
    assert b"\r\ngrpc-status: 4\r\n" in world.sent(client)
    assert [attempt.reason for attempt in world.access[0].attempts] == ["upstream_refused", "deadline_exceeded"]


def test_deadlines_of_clients_open_no_circuit() -> None:
    world = make(breaker=Breaker(failures_max=1))
    for _ in range(3):
        client, _ = pending(world, b"1n")
        world.wait(0.1)
        assert b"\r\ngrpc-status: 4\r\n" in world.sent(client)
    assert {record.reason for record in world.access} == {"deadline_exceeded"}


def test_a_deadline_of_no_time_at_all() -> None:
    world = make()
    client = world.client()
    world.receives(client, CALL % b"grpc-timeout: 0n\r\n")
    world.wait(0.0)
    assert b"\r\ngrpc-status: 4\r\n" in world.sent(client)


@pytest.mark.parametrize("fields", [b"grpc-timeout: soon\r\n", b"grpc-timeout: 1S\r\ngrpc-timeout: 1S\r\n"])
def test_a_deadline_that_cannot_be_read(fields: bytes) -> None:
    world = make()
    client = world.client()
    world.receives(client, CALL % fields)
    assert b"\r\ngrpc-status: 13\r\n" in world.sent(client)
    assert not world.connecting
    assert ended(world)[1] == "bad_request"
    assert "Grpc-Timeout" in world.access[0].detail


def test_what_is_no_call_has_no_deadline() -> None:
    world = make()
    client = world.client()
    world.receives(client, b"GET / HTTP/1.1\r\nHost: a\r\ngrpc-timeout: 1S\r\n\r\n")
    origin = world.connects()
    world.wait(2.0)
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert world.sent(client).startswith(b"HTTP/1.1 200 OK\r\n")
    assert ended(world) == (200, "", None)


def test_a_call_without_a_deadline_has_no_alarm_of_its_own() -> None:
    world = make()
    seen: list[Call] = []
    world = make(on("request_filter", lambda exchange: seen.append(exchange.call)))
    pending(world)
    assert (seen[0].limit_s, seen[0].deadline, seen[0].entry) == (inf, inf, None)


def test_a_deadline_that_comes_while_an_error_is_told_changes_nothing() -> None:
    world = make()
    client, origin = pending(world, b"5S")
    world.receives(origin, HEAD + b"20000\r\n" + b"x" * 0x20000 + b"\r\n")
    world.gives(Blocked(client))
    world.resets(origin)
    world.wait(10.0)
    assert world.access == []
    world.sent(client)
    world.gives(Sent(client))
    assert world.sent(client) == BROKEN
    assert ended(world) == (200, "upstream_reset", 14)


# --------------------------------------------------------------------------------------------------------- mid-stream


def test_an_origin_that_dies_in_the_middle() -> None:
    world = make()
    client, origin = pending(world)
    world.receives(origin, HEAD + MESSAGE)
    assert body(world.sent(client)) == MESSAGE
    world.resets(origin)
    assert world.sent(client) == BROKEN
    assert ended(world) == (200, "upstream_reset", 14)
    world.receives(client, CALL % b"")
    assert world.connecting, "the answer has ended in order, so the client's connection is used again"


def test_what_is_cut_and_is_no_answer_to_a_call_stays_cut() -> None:
    world = make()
    client, origin = pending(world, b"1S")
    world.receives(origin, HEAD.replace(b"application/grpc", b"text/html") + b"1\r\nx\r\n")
    world.wait(1.0)
    assert body(world.sent(client)) == b"1\r\nx\r\n"
    assert ended(world) == (200, "deadline_exceeded", None)
    assert world.eofs == [client]


def test_what_has_announced_its_length_stays_cut() -> None:
    world = make()
    client, origin = pending(world)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nContent-Length: 10\r\n\r\n"
    world.receives(origin, head + b"\0\0\0\0\0")
    world.resets(origin)
    assert body(world.sent(client)) == b"\0\0\0\0\0"
    assert ended(world) == (200, "upstream_reset", None)


def test_a_client_that_is_gone_is_told_nothing() -> None:
    world = make()
    client, origin = pending(world)
    world.receives(origin, HEAD + MESSAGE)
    world.sent(client)
    world.resets(client)
    assert world.sent(client) == b""
    assert ended(world) == (200, "client_gone", None)


def test_a_client_that_goes_while_it_would_be_told() -> None:
    world = make()
    client, origin = pending(world)
    world.receives(origin, HEAD + b"20000\r\n" + b"x" * 0x20000 + b"\r\n")
    world.gives(Blocked(client))
    world.resets(origin)
    world.resets(client)
    assert ended(world)[1] == "client_gone"
    world.leaves_nothing()


def test_a_stream_that_has_failed_when_it_would_be_told() -> None:
    def fail(exchange: Exchange, trailers: Headers) -> None:
        exchange.downstream.fail(ExchangeError("client_gone", "it has reset the stream"))

    world = make(on("response_trailer_filter", fail))
    _, origin = pending(world)
    world.receives(origin, HEAD + MESSAGE)
    world.resets(origin)
    assert (world.access[0].reason, world.access[0].detail) == ("client_gone", "it has reset the stream")
    assert world.events("filter_error") == []


class _Counts(Filter):
    """Adds to bodies, and to trailers."""

    def upstream_response_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> bytes:
        return data + b"." * ended

    def response_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> bytes:
        return data + b"!" * ended

    def response_trailer_filter(self, exchange: Exchange, trailers: Headers) -> bytes:
        trailers.add("seen", "1")
        return b"+"


def test_filters_see_the_trailers_of_a_failure_and_no_end_of_the_body() -> None:
    world = make(_Counts())
    client, origin = pending(world)
    world.receives(origin, HEAD + MESSAGE)
    assert body(world.sent(client)) == MESSAGE
    world.resets(origin)
    assert world.sent(client) == b"1\r\n+\r\n" + BROKEN[:-2] + b"seen: 1\r\n\r\n"
    assert world.access[0].bytes_out == 6


def test_a_filter_that_fails_in_the_middle() -> None:
    def fail(exchange: Exchange, data: bytes, ended: bool) -> None:
        raise LookupError("no such thing")

    world = make(on("upstream_response_body_filter", fail))
    client, origin = pending(world)
    world.receives(origin, HEAD)
    world.receives(origin, MESSAGE)
    assert body(world.sent(client)).startswith(b"0\r\ngrpc-status: 13\r\ngrpc-message: filter_error: ")
    assert ended(world) == (200, "filter_error", 13)


def test_a_filter_that_fails_over_the_trailers_of_a_failure() -> None:
    def fail(exchange: Exchange, trailers: Headers) -> None:
        raise LookupError("no such thing")

    world = make(on("response_trailer_filter", fail))
    client, origin = pending(world)
    world.receives(origin, HEAD + MESSAGE)
    world.resets(origin)
    assert body(world.sent(client)) == MESSAGE, "which is cut"
    assert world.access[0].reason == "filter_error"
    assert len(world.events("filter_error")) == 1
    assert world.eofs == [client]


def test_a_filters_own_answer_to_a_call_is_plain_http() -> None:
    world = make(on("request_filter", lambda _: Response(401)))
    client = world.client()
    world.receives(client, CALL % b"")
    assert world.sent(client).startswith(b"HTTP/1.1 401 ")
    assert ended(world) == (401, "", None)


# ----------------------------------------------------------------------------------------------------- over HTTP/2


def call(path: str = "/a.B/C", *more: tuple[str, str]) -> bytes:
    """The head of a call by HTTP/2."""
    return h2.headers(1, h2.post(path, ("content-type", "application/grpc"), ("te", "trailers"), *more), end=False)


def reaching(config: Config) -> tuple[World, int, int]:
    """A call with its first message has reached an origin, which speaks HTTP/2 too and has answered with its head."""
    proxy = Proxy(Cluster("h2c://10.0.0.1"), config=config)
    world = World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER]))
    client = world.client()
    world.receives(client, h2.PREFACE + h2.settings() + call() + h2.data(1, b"\0\0\0\0\1a"))
    origin = world.connects()
    heads = [frame for frame in h2.parse(world.sent(origin)[len(h2.PREFACE) :]) if frame.type == h2.HEADERS]
    assert [("te", "trailers") in fields for _, fields, _ in h2.decoded(heads)] == [True]
    world.receives(origin, h2.settings())
    return world, client, origin


def is_quiet(world: World, origin: int, seconds: float) -> None:
    """Time passes, and all that the origin does is to say that it is there."""
    until = world.now + seconds
    while world.now < until:
        world.wait(min(1.0, until - world.now))
        asked = [frame for frame in h2.parse(world.sent(origin)) if frame.type == h2.PING]
        for frame in asked:
            world.receives(origin, h2.ping(frame.payload, ack=True))


def test_a_call_may_be_quiet_for_long() -> None:
    world, client, origin = reaching(Config())
    is_quiet(world, origin, 1000)
    assert not world.closing, "neither the head of its answer, nor its next message, has a limit of its own"
    world.receives(origin, h2.headers(1, h2.fields([(":status", "200")]), end=False))
    is_quiet(world, origin, 1000)
    world.receives(client, h2.data(1, b"\0\0\0\0\1b", end=True))
    world.receives(origin, h2.data(1, b"\0\0\0\0\1c") + h2.headers(1, h2.fields([("grpc-status", "0")]), end=True))
    last = h2.parse(world.sent(client))[-1]
    assert (last.type, last.ends) == (h2.HEADERS, True)
    assert ended(world) == (200, "", 0)


def test_a_call_that_is_quiet_for_too_long() -> None:
    world, _, origin = reaching(Config(timeouts=Timeouts(grpc_idle_timeout_s=100)))
    head = h2.fields([(":status", "200"), ("content-type", "application/grpc")])
    world.receives(origin, h2.headers(1, head, end=False))
    is_quiet(world, origin, 99)
    assert not world.access
    world.wait(2)
    assert ended(world)[1:] in (("body_timeout", 4), ("upstream_timeout", 4))
