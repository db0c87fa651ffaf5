"""Clients that speak HTTP/2: many exchanges on one connection, and what may end one, or all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coulee.core import Config, Exchange, Limits, Response, Retry, Timeouts, respond, sleep
from coulee.core.config import Http2
from coulee.core.http2_connection import TURN_BYTES_MAX
from coulee.core.seam import Blocked, Drain, Hold, Sent
from tests.core.http2_ends import H2, OK, Client, End, Origin, answer, ends, peer, played, reasons, trailers
from tests.core.ledger import on
from tests.core.test_entrance import HELLO as TLS_HELLO
from tests.core.test_entrance import over_tls
from tests.core.world import World
from tests.http2 import frames as h2
from tests.http2.frames import (
    Code,
    data,
    fields,
    get,
    goaway,
    headers,
    ping,
    post,
    request,
    rst,
    settings,
    window_update,
)

NO_RETRY = Retry(retries_max=0)
CHUNKED = b"HTTP/1.1 200 OK\r\nDate: now\r\nTransfer-Encoding: chunked\r\n\r\n"


def origins(world: World, count: int = 1) -> list[int]:
    """HTTP/1.1 connections that the proxy has asked for, and has now; what was sent on them is read."""
    found = [world.connects() for _ in range(count)]
    for each in found:
        assert world.sent(each)
    return found


def head(path: str = "/") -> bytes:
    """The block of a HEAD."""
    return fields(request(path, method="HEAD"))


async def _says_hello(exchange: Exchange) -> Response:
    return respond(200, b"hello")


HELLO = on("request_filter", _says_hello)


# ------------------------------------------------------------------------------------- a transport that takes nothing


def test_the_end_of_a_body_that_comes_while_the_transport_is_blocked() -> None:
    world = played()
    client = Client(world)
    client.asks(1)
    (origin,) = origins(world)
    world.receives(origin, CHUNKED + b"2\r\nhi\r\n")
    world.gives(Blocked(client.conn))
    assert client.told() == ["1 200", "1 DATA 'hi'"]
    world.receives(origin, b"0\r\n\r\n")
    assert reasons(world) == [""]
    assert client.told() == []
    world.gives(Sent(client.conn))
    assert client.told() == ["1 DATA '' end"]
    world.wait(61)
    assert client.told() == ["GOAWAY all NO_ERROR", "GOAWAY 1 NO_ERROR"], "it is idle"
    ends(world)


def test_a_client_that_takes_no_answers_is_not_read_for_ever() -> None:
    """Heads of answers are bounded by nothing else: those without a body wait for no window."""
    numbers = iter(range(10_000))

    async def nothing(exchange: Exchange) -> Response:
        return respond(204, headers={"X": f"{next(numbers):01000}"})

    world = played(on("request_filter", nothing), limits=Limits(requests_per_connection_max=10_000))
    client = Client(world)
    world.gives(Blocked(client.conn))
    stream = 1
    while world.reading[client.conn]:
        client.asks(stream)
        stream += 2
        assert stream < 1000, "it is read, whatever we have to say to it"
    asked = stream // 2
    assert 60 <= asked < 70, "64 KiB of heads"
    world.gives(Sent(client.conn))
    assert world.reading[client.conn]
    assert len(client.told()) == asked
    client.leaves()
    ends(world)


def another_turn(world: World) -> None:
    """Time has passed, but hardly any."""
    assert world.machine.deadline is not None
    world.now = world.machine.deadline
    world.gives(None)


async def _large(exchange: Exchange) -> Response:
    return respond(200, b"x" * 10_000)


def greedy() -> tuple[World, Client]:
    """A client that has windows for all of a thousand large answers, and has asked for them in one read."""
    world = played(on("request_filter", _large), limits=Limits(requests_per_connection_max=10_000))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 2**30})
    client.says(window_update(0, 2**30))
    client.frames()
    client.asks(*range(1, 2001, 2))
    return world, client


def test_answers_of_one_turn_are_bounded() -> None:
    """Nobody knows before the end of a turn what the transport takes, and requests cost a client next to nothing."""
    world, client = greedy()
    turns = 0
    count = 0
    while count < 1000:
        turns += 1
        size = len(world.outbox[client.conn])
        assert size < TURN_BYTES_MAX + 11_000
        count += sum(word.endswith("end") for word in client.told())
        another_turn(world)
    assert turns > 30
    assert reasons(world) == [""] * 1000
    client.leaves()
    ends(world)


def test_answers_that_the_transport_does_not_take_count_as_streams() -> None:
    world, client = greedy()
    first = sum(word.endswith("end") for word in client.told())
    world.gives(Blocked(client.conn))
    world.wait(0.1)
    assert len(world.access) == first + 100
    assert client.told() == []
    assert world.events("http2_flood"), "and what was refused counts too"
    ends(world)


def test_what_is_left_of_a_read_waits_for_the_transport_too() -> None:
    numbers = iter(range(10_000))

    async def nothing(exchange: Exchange) -> Response:
        return respond(204, headers={"X": f"{next(numbers):02000}"})

    world = played(on("request_filter", nothing), limits=Limits(requests_per_connection_max=10_000))
    client = Client(world)
    world.gives(Blocked(client.conn))
    client.asks(*range(1, 1001, 2))
    assert 30 < len(world.access) < 40
    world.wait(1)
    assert len(world.access) < 40
    world.gives(Sent(client.conn))
    while len(world.access) < 500:
        assert len(world.outbox[client.conn]) < TURN_BYTES_MAX + 100_000
        client.frames()
        another_turn(world)
    client.leaves()
    ends(world)


def test_a_client_is_held_while_more_has_come_than_its_answers_leave_room_for() -> None:
    world = played(
        on("request_filter", _large),
        limits=Limits(
            requests_per_connection_max=10_000, head_bytes_max=1000, buffer_high_bytes=1000, buffer_low_bytes=10
        ),
    )
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 2**30})
    client.says(window_update(0, 2**30))
    client.asks(*range(1, 201, 2))
    assert not world.reading[client.conn]
    while len(world.access) < 100:
        another_turn(world)
    assert world.reading[client.conn]
    client.leaves()
    ends(world)


# --------------------------------------------------------------------------------------------------------- floods


def test_requests_that_are_taken_back_in_one_read_are_counted_one_by_one() -> None:
    world = played()
    client = Client(world)
    client.says(*(headers(stream, get()) + rst(stream) for stream in range(1, 4001, 2)))
    assert len(world.access) < 250, "nothing is done for the others"
    assert client.told()[-1].endswith("ENHANCE_YOUR_CALM")
    (event,) = world.events("http2_flood")
    client.leaves()
    ends(world)


def test_a_client_that_gives_up_again_and_again_is_heard_once() -> None:
    world = played()
    client = Client(world)
    client.asks(1)
    client.says(goaway(0, Code.INTERNAL_ERROR, b"no") * 50)
    assert [event.text for event in world.events("http2_goaway")] == [
        "the client gave the connection up: INTERNAL_ERROR no"
    ]
    (origin,) = origins(world)
    world.receives(origin, OK)
    assert client.told() == ["GOAWAY 1 NO_ERROR", "1 200", "1 DATA 'hi' end"]
    client.leaves()
    ends(world)


# --------------------------------------------------------------------------------------------------------- time


def test_a_head_whose_frame_comes_byte_by_byte_has_the_time_of_a_head() -> None:
    world = played()
    client = Client(world)
    for byte in headers(1, get("/" + "a" * 20))[:10]:
        client.says(bytes([byte]))
        world.wait(1)
    assert client.told() == ["GOAWAY 0 ENHANCE_YOUR_CALM"]
    assert world.events("header_timeout")
    client.leaves()
    ends(world)


def test_each_head_has_time_of_its_own() -> None:
    world = played(HELLO)
    client = Client(world)
    client.says(headers(1, get()[:5], more=True))
    for stream in range(1, 9, 2):
        world.wait(6)
        client.says(h2.continuation(stream, get()[5:]), headers(stream + 2, get()[:5], more=True))
    assert [word for word in client.told() if word.endswith("200")] == ["1 200", "3 200", "5 200", "7 200"]
    world.wait(11)
    assert client.told() == ["GOAWAY 7 ENHANCE_YOUR_CALM"]
    client.leaves()
    ends(world)


def test_pings_keep_no_connection_that_asks_nothing() -> None:
    world = played()
    client = Client(world)
    for _ in range(6):
        world.wait(9)
        client.says(ping())
        assert client.told() == ["PONG"]
    world.wait(7)
    assert client.told() == ["GOAWAY all NO_ERROR", "GOAWAY 0 NO_ERROR"]
    ends(world)


def test_a_request_that_was_answered_at_once_begins_the_idle_time_anew() -> None:
    world = played(HELLO)
    client = Client(world)
    world.wait(50)
    client.asks(1)
    world.wait(59)
    assert client.told() == ["1 200", "1 DATA 'hello' end"]
    world.wait(2)
    assert client.told() == ["GOAWAY all NO_ERROR", "GOAWAY 1 NO_ERROR"]
    ends(world)


def test_a_client_that_leaves_within_a_head_is_answered_what_it_asked_in_whole() -> None:
    world = played()
    client = Client(world)
    client.says(headers(1, get()), headers(3, get()[:5], more=True))
    (origin,) = origins(world)
    client.leaves()
    world.wait(20)
    world.receives(origin, OK)
    assert client.told() == ["1 200", "1 DATA 'hi' end"]
    assert client.closed
    ends(world)


def test_a_drain_does_not_wait_for_half_a_head() -> None:
    world = played()
    client = Client(world)
    client.says(headers(1, get()[:5], more=True))
    world.gives(Drain(100))
    world.wait(3)
    assert client.told() == ["GOAWAY all NO_ERROR", "GOAWAY 0 NO_ERROR"]
    assert client.closed


# ---------------------------------------------------------------------------------------------------- how it begins

SHORT = b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("at", range(1, 80))
def test_prior_knowledge_is_found_wherever_the_bytes_are_cut(at: int) -> None:
    world = played(HELLO)
    conn = world.client()
    sent = h2.PREFACE + settings() + headers(1, get())
    world.receives(conn, sent[:at])
    world.receives(conn, sent[at:])
    client = End(world, conn)
    assert client.told() == ["1 200", "1 DATA 'hello' end"]
    assert world.access[0].version == (2, 0)
    client.leaves()
    ends(world)


def test_a_short_request_of_http1_is_answered_at_once() -> None:
    world = played(HELLO)
    conn = world.client()
    world.receives(conn, b"P")
    world.receives(conn, b"RI / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert world.sent(conn).startswith(b"HTTP/1.1 200 OK\r\n")
    world.receives(conn, SHORT)
    assert world.sent(conn).startswith(b"HTTP/1.1 200 OK\r\n")
    world.receives(conn, b"")
    ends(world)


def test_without_cleartext_the_preface_is_a_bad_request() -> None:
    world = played(HELLO, http2=Http2(cleartext=False))
    conn = world.client()
    world.receives(conn, h2.PREFACE + settings())
    assert world.sent(conn).startswith(b"HTTP/1.1 505 ")
    world.receives(conn, b"")
    ends(world)


def test_half_a_preface_has_the_time_of_a_head() -> None:
    world = played()
    conn = world.client()
    world.receives(conn, h2.PREFACE[:20])
    world.wait(11)
    assert conn in world.eofs or conn in world.closing
    ends(world)
    world = played()
    conn = world.client()
    world.receives(conn, h2.PREFACE)
    world.wait(9)
    client = End(world, conn)
    assert client.told() == []
    world.wait(2)
    assert client.told() == ["GOAWAY 0 ENHANCE_YOUR_CALM"]
    ends(world)


def test_what_is_no_http2_behind_its_preface_ends_at_once() -> None:
    world = played()
    conn = world.client()
    world.receives(conn, h2.PREFACE + ping())
    client = End(world, conn)
    assert client.told() == ["GOAWAY 0 PROTOCOL_ERROR"]
    (event,) = world.events("http2_error")
    assert event.fields["code"] == "PROTOCOL_ERROR"
    client.leaves()
    assert client.closed
    ends(world)


# -------------------------------------------------------------------------------------------- exchanges beside others


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_exchanges_run_beside_one_another_and_end_in_any_order(order: tuple[int, ...]) -> None:
    world = played()
    client = Client(world)
    client.says(*(headers(1 + 2 * each, get(f"/{each}")) for each in range(3)))
    found = origins(world, 3)
    for each in order:
        world.receives(found[each], OK)
        assert client.told() == [f"{1 + 2 * each} 200", f"{1 + 2 * each} DATA 'hi' end"]
    assert [record.target for record in world.access] == [f"/{each}" for each in order]
    client.leaves()
    ends(world)


def test_a_body_goes_up_as_it_comes_and_its_window_opens_when_it_is_taken() -> None:
    world = played()
    client = Client(world)
    client.says(headers(1, post(), end=False))
    (origin,) = [world.connects()]
    assert b"transfer-encoding: chunked" in world.sent(origin).lower()
    client.says(data(1, b"x" * 16384))
    client.says(data(1, b"x" * 16384))
    assert world.sent(origin).count(b"x") == 32768
    opened = [frame for frame in client.frames() if frame.type == h2.WINDOW_UPDATE and frame.stream == 1]
    assert sum(frame.increment for frame in opened) == 32768
    world.gives(Blocked(origin))
    for _ in range(4):
        client.says(data(1, b"y" * 16384))
    assert world.reading[client.conn], "other streams go on"
    world.gives(Sent(origin))
    client.says(data(1, b"", end=True))
    assert world.sent(origin).count(b"y") == 4 * 16384
    world.receives(origin, OK)
    assert client.told() == ["1 200", "1 DATA 'hi' end"]
    assert world.access[0].bytes_in == 6 * 16384
    client.leaves()
    ends(world)


def test_interim_answers_100_continue_and_trailers_both_ways() -> None:
    world = played(peers=(peer(),))
    client = Client(world)
    client.says(headers(1, post("/", ("expect", "100-continue")), end=False))
    origin = Origin(world)
    assert origin.told() == ["1 POST /"]
    origin.says(answer(1, 103), answer(1, 100))
    assert client.told() == ["1 103", "1 100"]
    client.says(data(1, b"abc"), headers(1, fields([("x-sum", "3")]), end=True))
    assert origin.told() == ["1 DATA 'abc'", "1 x-sum=3 end"]
    origin.says(answer(1), data(1, b"hi"), trailers(1, ("x-end", "4")))
    assert client.told() == ["1 200", "1 DATA 'hi'", "1 x-end=4 end"]
    client.leaves()
    ends(world)


def test_a_filter_that_wants_the_body_tells_the_client_to_send_it() -> None:
    async def reads(exchange: Exchange) -> Response:
        return respond(200, await exchange.body())

    world = played(on("request_filter", reads))
    client = Client(world)
    client.says(headers(1, post("/", ("expect", "100-continue")), end=False))
    assert client.told() == ["1 100"]
    client.says(data(1, b"abc", end=True))
    assert client.told() == ["1 200", "1 DATA 'abc' end"]
    client.leaves()
    ends(world)


@pytest.mark.parametrize(
    ("method", "raw", "words"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\n", ["1 200 end"]),
        ("GET", b"HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n", ["1 204 end"]),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nDate: now\r\nContent-Length: 2\r\n\r\n", ["1 304 end"]),
        ("GET", b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 0\r\n\r\n", ["1 200", "1 DATA '' end"]),
    ],
)
def test_answers_without_a_body(method: str, raw: bytes, words: list[str]) -> None:
    world = played()
    client = Client(world)
    client.says(headers(1, fields(request("/", method=method))))
    (origin,) = origins(world)
    world.receives(origin, raw)
    assert client.told() in (words, [words[0] + " end"])
    client.leaves()
    ends(world)


def test_malformed_heads_are_answered_and_recorded() -> None:
    world = played(HELLO)
    client = Client(world)
    client.says(
        headers(1, fields([(":method", "GET"), (":scheme", "http"), (":path", "/")])),
        headers(3, fields(request("/", ("x", "y" * 16_000))), more=True),
        h2.continuation(3, fields([("x", "y" * 16_000)]), more=True),
        h2.continuation(3, fields([("x", "y" * 16_000)])),
        headers(5, fields(request("/", ("Upper", "case"))), end=False),
        headers(7, get()),
    )
    told = [word for word in client.told() if "DATA" not in word]
    assert told == ["1 400", "3 431", "5 400", "5 RST NO_ERROR", "7 200"]
    assert reasons(world) == ["bad_request", "header_too_large", "bad_request", ""]
    client.says(data(5, b"x" * 100, end=True))
    assert client.told() == []
    client.leaves()
    ends(world)


def test_a_body_that_is_too_large() -> None:
    world = played(limits=Limits(request_body_bytes_max=10))
    client = Client(world)
    client.says(headers(1, post("/", ("content-length", "11")), end=False))
    client.says(headers(3, post(), end=False), data(3, b"x" * 11))
    world.connects()
    told = [word for word in client.told() if "DATA" not in word]
    assert told == ["1 413", "1 RST NO_ERROR", "3 413", "3 RST NO_ERROR"]
    assert reasons(world) == ["body_too_large"] * 2
    client.leaves()
    ends(world)


def test_an_early_answer_resets_what_is_left_of_the_request() -> None:
    world = played()
    client = Client(world)
    client.says(headers(1, post(), end=False), data(1, b"abc"))
    (origin,) = origins(world)
    world.receives(origin, OK)
    assert client.told() == ["1 200", "1 DATA 'hi' end", "1 RST NO_ERROR"]
    client.says(data(1, b"more", end=True))
    client.asks(3)
    assert client.told() == []
    assert origin in world.closing
    world.receives(world.connects(), OK)
    assert client.told() == ["3 200", "3 DATA 'hi' end"]
    client.leaves()
    ends(world)


def test_a_cut_answer_is_a_reset() -> None:
    world = played(retry=NO_RETRY)
    client = Client(world)
    client.asks(1, 3)
    first, second = origins(world, 2)
    world.receives(first, CHUNKED + b"2\r\nhi\r\n")
    world.resets(first)
    assert client.told() == ["1 200", "1 DATA 'hi'", "1 RST INTERNAL_ERROR"]
    world.receives(second, OK)
    assert client.told() == ["3 200", "3 DATA 'hi' end"]
    assert reasons(world) == ["upstream_reset", ""]
    client.leaves()
    ends(world)


# ------------------------------------------------------------------------------------------------- too many streams


def test_streams_over_the_limit_are_refused() -> None:
    world = played(http2=Http2(streams_max=2))
    client = Client(world)
    client.asks(1, 3, 5)
    assert client.told() == ["5 RST REFUSED_STREAM"]
    (one, _) = origins(world, 2)
    world.receives(one, OK)
    client.asks(7)
    assert client.told() == ["1 200", "1 DATA 'hi' end"]
    client.says(rst(3))
    client.says(rst(7))
    assert reasons(world) == ["", "client_gone", "client_gone"]
    client.leaves()
    ends(world)


def test_who_takes_back_what_is_held_gains_no_room() -> None:
    async def holds(exchange: Exchange) -> None:
        await sleep(10)

    world = played(on("logging", holds), http2=Http2(streams_max=3))
    client = Client(world)
    for stream in range(1, 21, 2):
        client.asks(stream)
        client.says(rst(stream))
    assert len(world.connecting) == 0
    assert [word for word in client.told() if "REFUSED" in word] == [
        f"{stream} RST REFUSED_STREAM" for stream in range(7, 21, 2)
    ]
    world.wait(6)
    assert len(world.access) == 3
    client.asks(21)
    assert client.told() == []
    client.says(rst(21))
    client.leaves()
    ends(world)


# ------------------------------------------------------------------------------------------------------- who leaves


def test_a_client_that_resets_a_stream_ends_its_upstream_at_once() -> None:
    world = played(peers=(peer(),))
    client = Client(world)
    client.asks(1, 3)
    origin = Origin(world)
    origin.says(answer(1), data(1, b"so far"))
    client.says(rst(1, Code.CANCEL))
    assert origin.told()[-1] == "1 RST CANCEL"
    assert reasons(world) == ["client_gone"]
    assert world.access[0].detail == "the client took its request back (CANCEL)"
    origin.says(data(1, b"on its way"), answer(3, 204, end=True))
    assert client.told() == ["1 200", "1 DATA 'so far'", "3 204 end"]
    client.leaves()
    ends(world)


def test_a_stream_that_breaks_a_rule_ends_alone() -> None:
    world = played()
    client = Client(world)
    client.says(headers(1, post("/", ("content-length", "2")), end=False), headers(3, get()))
    client.says(data(1, b"abc"))
    assert client.told() == ["1 RST PROTOCOL_ERROR"]
    (record,) = world.access
    assert (record.reason, record.status) == ("bad_request", 0)
    origins(world)
    for conn in list(world.reading):
        if conn != client.conn and conn not in world.closing:
            world.receives(conn, OK)
    client.says(rst(3))
    client.leaves()
    ends(world)


@pytest.mark.parametrize("cancel", [False, True])
def test_a_client_that_sends_no_more(cancel: bool) -> None:
    world = played(cancel_on_half_close=cancel)
    client = Client(world)
    client.asks(1)
    client.says(headers(3, post(), end=False))
    first, second = origins(world, 2)
    client.leaves()
    assert second in world.closing, "its request will never be whole"
    if cancel:
        assert sorted(client.told()) == ["1 RST CANCEL", "3 RST CANCEL"]
        assert reasons(world) == ["client_gone"] * 2
    else:
        world.receives(first, OK)
        assert client.told() == ["3 RST CANCEL", "1 200", "1 DATA 'hi' end"]
        assert reasons(world) == ["client_gone", ""]
    assert client.closed
    ends(world)


@pytest.mark.parametrize("moment", range(6))
def test_a_client_that_is_gone_at_any_moment(moment: int) -> None:
    world = played()
    client = Client(world)
    steps: list[Callable[[], object]] = [
        lambda: client.says(headers(1, post(), end=False)),
        lambda: world.connects(),
        lambda: client.says(data(1, b"abc")),
        lambda: world.receives(max(world.reading), CHUNKED),
        lambda: world.receives(max(world.reading), b"2\r\nhi\r\n"),
    ]
    for step in steps[:moment]:
        step()
    world.resets(client.conn)
    assert reasons(world) == (["client_gone"] if moment else [])
    ends(world)


def test_a_client_that_is_gone_while_a_filter_holds_its_exchange() -> None:
    async def holds(exchange: Exchange) -> None:
        await sleep(3)

    world = played(on("logging", holds))
    client = Client(world)
    client.asks(1)
    world.resets(client.conn)
    assert world.access == []
    world.wait(4)
    assert reasons(world) == ["client_gone"]
    ends(world)


# -------------------------------------------------------------------------------------------- windows, and their time


def test_a_stream_whose_window_is_shut_leaves_the_others_alone() -> None:
    world = played(peers=(peer(),))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 2})
    client.asks(1, 3)
    origin = Origin(world)
    origin.says(answer(1), data(1, b"abcdef"), answer(3), data(3, b"xy", end=True))
    assert client.told() == ["1 200", "1 DATA 'ab'", "3 200", "3 DATA 'xy' end"]
    client.says(window_update(1, 3))
    assert client.told() == ["1 DATA 'cde'"]
    origin.says(data(1, b"", end=True))
    assert client.told() == []
    assert reasons(world) == ["", ""]
    client.says(window_update(1, 3))
    assert client.told() == ["1 DATA 'f' end"]
    client.leaves()
    ends(world)


def test_a_window_that_is_not_opened_again_ends_its_stream() -> None:
    world = played(peers=(peer(),), http2=Http2(ping_after_s=1000))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 2})
    client.asks(1, 3)
    origin = Origin(world)
    origin.says(answer(1), data(1, b"abcdef"), answer(3), data(3, b"abc", end=True))
    world.wait(20)
    client.says(window_update(1, 1))
    world.wait(20)
    assert client.told() == ["1 200", "1 DATA 'ab'", "3 200", "3 DATA 'ab'", "1 DATA 'c'", "3 RST CANCEL"]
    world.wait(11)
    assert client.told() == ["1 RST CANCEL"]
    assert sorted(reasons(world)) == ["", "send_timeout"], "of one, all was written"
    assert origin.told()[-1] == "1 RST CANCEL"
    client.asks(5)
    origin.says(answer(5, 204, end=True))
    assert client.told() == ["5 204 end"]
    client.leaves()
    ends(world)


def test_a_writer_waits_while_more_than_the_mark_is_not_taken() -> None:
    world = played(peers=(peer(),))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 0})
    client.asks(1)
    origin = Origin(world)
    origin.says(answer(1))
    for _ in range(4):
        origin.says(data(1, b"x" * 16384))
    assert sum(frame.increment for frame in origin.frames() if frame.type == h2.WINDOW_UPDATE and frame.stream) >= 32768
    for _ in range(4):
        origin.says(data(1, b"x" * 16384))
    assert not [frame for frame in origin.frames() if frame.type == h2.WINDOW_UPDATE and frame.stream]
    client.says(window_update(1, 40_000))
    assert [frame for frame in origin.frames() if frame.type == h2.WINDOW_UPDATE and frame.stream]
    client.says(rst(1))
    client.leaves()
    ends(world)


def test_a_writer_that_waits_hears_of_a_reset() -> None:
    world = played(peers=(peer(),))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 0})
    client.asks(1)
    origin = Origin(world)
    origin.says(answer(1), *(data(1, b"x" * 16384) for _ in range(4)))
    origin.says(data(1, b"x"))
    client.says(rst(1))
    assert reasons(world) == ["client_gone"]
    assert "1 RST CANCEL" in origin.told()
    client.leaves()
    ends(world)


def test_a_body_that_comes_too_slowly_fails_alone() -> None:
    world = played(peers=(peer(),), http2=Http2(ping_after_s=1000))
    client = Client(world)
    client.says(headers(1, post(), end=False), headers(3, post(), end=False))
    origin = Origin(world)
    for _ in range(4):
        world.wait(9)
        client.says(data(1, b"x"), data(3, b"x" * 2000))
    told = [word for word in client.told() if "DATA" not in word]
    assert told == ["1 408", "1 RST NO_ERROR"]
    assert reasons(world) == ["body_timeout"]
    client.says(data(3, b"", end=True))
    origin.says(answer(3, 204, end=True))
    assert client.told() == ["3 204 end"]
    client.leaves()
    ends(world)


# ------------------------------------------------------------------------------------------------ a blocked transport


def test_bodies_wait_while_the_transport_is_blocked_and_go_out_by_priority() -> None:
    world = played(peers=(peer(),))
    client = Client(world)
    client.says(headers(1, get("/", ("priority", "u=5"))), headers(3, get("/", ("priority", "u=1"))))
    origin = Origin(world)
    world.gives(Blocked(client.conn))
    origin.says(answer(1), data(1, b"late", end=True), answer(3), data(3, b"soon", end=True))
    client.says(ping())
    assert client.told() == []
    world.gives(Sent(client.conn))
    told = client.told()
    assert sorted(told[:3]) == ["1 200", "3 200", "PONG"]
    assert told[3:] == ["3 DATA 'soon' end", "1 DATA 'late' end"]
    client.leaves()
    ends(world)


def test_control_frames_that_are_not_taken_are_bounded() -> None:
    world = played(http2=Http2(unsent_control_bytes_max=1000, glitches_max=100_000))
    client = Client(world)
    world.gives(Blocked(client.conn))
    count = 0
    while world.reading[client.conn]:
        client.says(ping())
        count += 1
    assert 50 < count < 70
    world.gives(Sent(client.conn))
    assert client.told() == ["PONG"] * count
    assert world.reading[client.conn]
    client.leaves()
    ends(world)


def test_a_transport_that_takes_nothing_for_long_ends_all() -> None:
    world = played(peers=(peer(),))
    client = Client(world)
    client.asks(1, 3)
    origin = Origin(world)
    world.gives(Blocked(client.conn))
    origin.says(answer(1), data(1, b"x"), answer(3, 204, end=True))
    world.wait(31)
    assert client.closed
    assert sorted(reasons(world)) == ["", "send_timeout"]
    ends(world)


def test_many_writes_of_one_turn_let_out_no_more_than_one() -> None:
    world = played(peers=(peer(),), limits=Limits(buffer_high_bytes=2_000_000))
    client = Client(world)
    client.says(window_update(0, 2**30))
    client.asks(*range(1, 41, 2))
    origin = Origin(world)
    for stream in range(1, 41, 2):
        origin.says(answer(stream), *(data(stream, b"x" * 16384) for _ in range(4)))
        origin.says(*(data(stream, b"x" * 16384) for _ in range(3)))
        origin.frames()
    client.frames()
    client.says(*(window_update(stream, 2**20) for stream in range(1, 41, 2)))
    client.frames()
    origin.says(*(data(stream, b"y") for stream in range(1, 41, 2)))
    assert len(world.outbox[client.conn]) < TURN_BYTES_MAX + 20_000
    client.says(*(rst(stream) for stream in range(1, 41, 2)))
    client.leaves()
    ends(world)


def test_a_large_backlog_goes_out_over_several_turns() -> None:
    world = played(peers=(peer(),), limits=Limits(buffer_high_bytes=2_000_000))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 2**30})
    client.says(window_update(0, 2**30))
    client.asks(*range(1, 41, 2))
    origin = Origin(world)
    world.gives(Blocked(client.conn))
    for stream in range(1, 41, 2):
        origin.says(
            answer(stream), *(data(stream, b"x" * 16384) for _ in range(3)), data(stream, b"x" * 16384, end=True)
        )
        origin.frames()
    client.frames()
    world.gives(Sent(client.conn))
    turns = 0
    size = 0
    while world.outbox.get(client.conn):
        assert len(world.outbox[client.conn]) <= TURN_BYTES_MAX + 20_000
        size += sum(len(frame.content) for frame in client.frames() if frame.type == h2.DATA)
        turns += 1
        another_turn(world)
    assert size == 20 * 65536
    assert turns == 5
    client.leaves()
    ends(world)


# ------------------------------------------------------------------------------------------------------------ floods


def test_at_three_quarters_a_client_is_told_to_go_and_at_all_it_is_cut_off() -> None:
    world = played()
    client = Client(world)
    client.asks(1)
    origins(world)
    client.says(ping() * 160)
    assert client.told().count("GOAWAY all ENHANCE_YOUR_CALM") == 1
    client.says(ping() * 100)
    assert client.told()[-1] == "GOAWAY 1 ENHANCE_YOUR_CALM"
    assert reasons(world) == ["http2_flood"]
    (event,) = world.events("http2_flood")
    assert event.fields["requests"] == 1
    assert client.conn in world.eofs
    client.says(ping() * 100)
    assert client.told() == [], "it is not heard any more"
    world.wait(2)
    assert client.closed
    ends(world)


def test_what_is_forgiven_counts_no_more() -> None:
    world = played()
    client = Client(world)
    for _ in range(10):
        client.says(ping() * 100)
        world.wait(5)
    assert not [word for word in client.told() if "GOAWAY" in word]
    client.leaves()
    ends(world)


def test_a_fault_of_the_connection_ends_what_runs_with_it() -> None:
    world = played()
    client = Client(world)
    client.asks(1)
    client.says(data(0, b"x"))
    assert client.told() == ["GOAWAY 1 PROTOCOL_ERROR"]
    (record,) = world.access
    assert record.reason == "http2_error"
    assert world.events("http2_error")[0].fields["code"] == "PROTOCOL_ERROR"
    client.leaves()
    ends(world)


def test_a_head_of_too_many_frames_is_a_flood() -> None:
    world = played()
    client = Client(world)
    client.says(headers(1, b"", more=True), *(h2.continuation(1, b"x", more=True) for _ in range(9)))
    assert client.told() == ["GOAWAY 0 ENHANCE_YOUR_CALM"]
    assert world.events("http2_flood")
    client.leaves()
    ends(world)


# ---------------------------------------------------------------------------------------------------- leaving in steps


def test_a_worn_connection_ends_in_two_steps_and_cuts_nothing() -> None:
    world = played(limits=Limits(requests_per_connection_max=2))
    client = Client(world)
    client.asks(1, 3)
    found = origins(world, 2)
    assert client.told() == ["GOAWAY all NO_ERROR"]
    client.asks(5)
    found += origins(world)
    world.wait(0.6)
    assert client.told() == ["GOAWAY 5 NO_ERROR"]
    client.asks(7)
    assert client.told() == ["7 RST REFUSED_STREAM"]
    for each in found:
        assert client.conn not in world.eofs
        world.receives(each, OK)
    assert [word for word in client.told() if word.endswith("end")] == [
        f"{stream} DATA 'hi' end" for stream in (1, 3, 5)
    ]
    assert client.conn in world.eofs
    client.leaves()
    assert client.closed
    ends(world)


def test_a_connection_that_has_lived_for_long_enough() -> None:
    world = played(HELLO, timeouts=Timeouts(connection_life_s=30))
    client = Client(world)
    world.wait(29)
    client.asks(1)
    assert "GOAWAY all NO_ERROR" not in client.told()
    world.wait(2)
    client.asks(3)
    assert client.told() == ["3 200", "3 DATA 'hello' end", "GOAWAY all NO_ERROR"]
    world.wait(1)
    assert client.told() == ["GOAWAY 3 NO_ERROR"]
    ends(world)


def test_a_drain_lets_what_runs_end() -> None:
    world = played()
    client, idle = Client(world), Client(world)
    client.asks(1)
    (origin,) = origins(world)
    world.gives(Drain(10))
    assert client.told() == idle.told() == ["GOAWAY all NO_ERROR"]
    world.wait(1)
    assert client.told() == ["GOAWAY 1 NO_ERROR"]
    assert idle.told() == ["GOAWAY 0 NO_ERROR"]
    world.receives(origin, OK)
    assert client.told() == ["1 200", "1 DATA 'hi' end"]
    client.leaves()
    world.wait(2)
    assert world.machine.finished


def test_a_client_that_begins_while_we_drain() -> None:
    world = played(HELLO)
    conn = world.client()
    world.gives(Drain(10))
    world.receives(conn, h2.PREFACE + settings() + headers(1, get()))
    client = End(world, conn)
    assert client.told() == ["GOAWAY all NO_ERROR", "1 200", "1 DATA 'hello' end"]
    world.wait(2)
    assert client.told() == ["GOAWAY 1 NO_ERROR"]
    assert world.machine.finished


def test_the_end_of_a_drain_answers_503_and_cuts_what_has_begun() -> None:
    world = played(peers=(peer(),))
    client, idle, stuck = Client(world), Client(world), Client(world, {h2.INITIAL_WINDOW_SIZE: 0})
    client.asks(1, 3)
    stuck.asks(1)
    origin = Origin(world)
    origin.says(answer(3), data(3, b"so far"))
    world.gives(Drain(0.1))
    world.wait(0.2)
    told = [word for word in client.told() if "DATA" not in word or "so far" in word]
    begun = ["3 200", "3 DATA 'so far'", "GOAWAY all NO_ERROR"]
    assert told == [*begun, "1 503", "3 RST INTERNAL_ERROR", "GOAWAY 3 NO_ERROR"]
    assert idle.closed
    assert client.closed
    assert not stuck.closed
    world.wait(31)
    assert stuck.closed
    assert world.machine.finished


def test_a_client_that_says_that_it_goes_is_let_go() -> None:
    world = played(HELLO)
    client = Client(world)
    client.asks(1)
    client.says(goaway(0))
    assert client.told() == ["1 200", "1 DATA 'hello' end", "GOAWAY 1 NO_ERROR"]
    assert not world.events("http2_goaway")
    assert client.conn in world.eofs
    ends(world)


# ---------------------------------------------------------------------------------------------------- not welcome


def test_a_client_that_there_is_no_room_for_is_told_and_goes() -> None:
    world = played(HELLO, limits=Limits(downstream_connections_max=1))
    first = Client(world)
    second = Client(world)
    second.asks(1, 3)
    told = [word for word in second.told() if "DATA" not in word]
    assert told == ["1 503", "GOAWAY all NO_ERROR", "3 503"]
    assert reasons(world) == ["too_many_connections"] * 2
    world.wait(2)
    assert second.closed
    third = Client(world)
    for _ in range(3):
        world.wait(3)
        third.says(ping())
    world.wait(2)
    assert third.closed, "it has the time of a head to ask for something"
    first.asks(1)
    assert first.told()[0] == "1 200"
    first.leaves()
    ends(world)


# ------------------------------------------------------------------------------------------------------------- TLS


def over_h2() -> tuple[World, End]:
    """A client that has agreed on HTTP/2 by TLS, before certificates for a.test and all of b.test."""
    world = over_tls()
    conn = world.client()
    world.receives(conn, TLS_HELLO)
    world.secures(H2)
    return world, End(world, conn)


def test_what_tls_has_agreed_on_is_spoken_from_the_first_byte() -> None:
    world, client = over_h2()
    assert [frame.name for frame in client.frames()] == ["SETTINGS", "WINDOW_UPDATE"], "we need not be asked first"
    client.says(h2.PREFACE, settings(), headers(1, fields(request("/", scheme="https", authority="a.test"))))
    assert client.told()[0] == "1 200"
    assert (world.access[0].server_name, world.access[0].security) == ("a.test", H2)
    client.leaves()
    world.leaves_nothing()


def test_a_request_for_another_host_is_misdirected() -> None:
    world, client = over_h2()
    client.says(h2.PREFACE, settings())
    asked = (("a.test", 200), ("x.b.test", 421), ("a.test", 200), ("c.test", 421))
    for turn, (host, status) in enumerate(asked):
        client.frames()
        client.says(headers(1 + 2 * turn, fields(request("/", scheme="https", authority=host))))
        assert client.told()[0] == f"{1 + 2 * turn} {status}"
    assert reasons(world) == ["", "misdirected", "", "misdirected"]
    client.leaves()
    world.leaves_nothing()


def test_http1_by_tls_is_not_asked_for_prior_knowledge() -> None:
    world = over_tls()
    conn = world.client()
    world.receives(conn, TLS_HELLO)
    world.secures()
    world.receives(conn, h2.PREFACE)
    assert world.sent(conn).startswith(b"HTTP/1.1 505 ")
    world.receives(conn, b"")
    world.leaves_nothing()


# ---------------------------------------------------------------------------------------------------- odd moments


def test_a_fault_that_h2_itself_finds_ends_what_runs_with_it() -> None:
    """After it, h2 takes nothing more, not even a reset."""
    world = played()
    client = Client(world)
    client.says(headers(1, post(), end=False), headers(3, post(), end=False), data(3, b"abc"))
    client.says(*(data(1, b"x" * 16384) for _ in range(5)))
    assert client.told() == ["GOAWAY 3 FLOW_CONTROL_ERROR"]
    assert reasons(world) == ["http2_error"] * 2
    client.leaves()
    ends(world)


def test_a_fault_while_a_filter_holds_an_exchange() -> None:
    async def holds(exchange: Exchange) -> None:
        await sleep(3)

    timeouts = Timeouts(send_stall_timeout_s=2)
    world = played(on("logging", holds), http2=Http2(ping_after_s=1000), peers=(peer(),), timeouts=timeouts)
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 0})
    client.asks(1)
    origin = Origin(world)
    origin.says(answer(1), data(1, b"x"))
    client.says(window_update(1, 2**31 - 1), window_update(0, 2**31 - 1))
    assert client.told()[-1] == "GOAWAY 1 FLOW_CONTROL_ERROR"
    world.wait(4)
    assert reasons(world) == ["http2_error"]
    ends(world)


def test_a_transport_that_is_blocked_while_it_lingers() -> None:
    world = played(HELLO)
    client = Client(world)
    world.gives(Blocked(client.conn))
    client.says(data(0, b"x"))
    world.wait(5)
    assert not client.closed, "our last bytes are on their way"
    client.leaves()
    assert not client.closed
    world.gives(Sent(client.conn))
    assert client.told() == ["GOAWAY 0 PROTOCOL_ERROR"]
    assert client.conn in world.eofs or client.closed
    ends(world)


def test_a_client_that_has_left_and_takes_its_answer_later() -> None:
    world = played()
    client = Client(world)
    client.asks(1)
    (origin,) = origins(world)
    client.leaves()
    world.gives(Blocked(client.conn))
    world.receives(origin, OK)
    assert not client.closed
    world.gives(Sent(client.conn))
    assert client.told() == ["1 200", "1 DATA 'hi' end"]
    assert client.closed or client.conn in world.eofs
    ends(world)


def test_who_waits_for_room_when_its_time_has_come_and_is_then_reset() -> None:
    """The drain's answer waits for the window; who takes the request back ends that wait."""
    world = played(peers=(peer(),))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 0})
    client.asks(1)
    Origin(world)
    world.gives(Drain(0.1))
    world.wait(0.2)
    assert client.told()[-1] == "GOAWAY 1 NO_ERROR"
    client.says(rst(1))
    assert client.closed
    world.wait(1)
    assert world.machine.finished


def test_the_rest_of_an_unread_body_gives_its_window_back_though_the_answer_waits() -> None:
    world = played(HELLO, http2=Http2(connection_window_bytes=65535))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 0})
    client.says(headers(1, post(), end=False), *(data(1, b"x" * 16384) for _ in range(3)))
    opened = [frame for frame in client.frames() if frame.type == h2.WINDOW_UPDATE and not frame.stream]
    assert sum(frame.increment for frame in opened) >= 32768
    assert client.told() == []
    client.says(window_update(1, 10))
    assert client.told() == ["1 DATA 'hello' end", "1 RST NO_ERROR"]
    client.leaves()
    ends(world)


def test_what_came_of_a_body_that_a_filter_does_not_want_gives_its_window_back() -> None:
    async def thinks(exchange: Exchange) -> Response:
        await sleep(1)
        return respond(200, b"hello")

    world = played(on("request_filter", thinks), http2=Http2(connection_window_bytes=65535))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 0})
    client.says(headers(1, post(), end=False), *(data(1, b"x" * 16384) for _ in range(3)))
    assert not [frame for frame in client.frames() if frame.type == h2.WINDOW_UPDATE]
    world.wait(2)
    opened = [frame for frame in client.frames() if frame.type == h2.WINDOW_UPDATE and not frame.stream]
    assert sum(frame.increment for frame in opened) >= 32768, "at once: others may wait for it"
    client.says(window_update(1, 10))
    assert client.told() == ["1 DATA 'hello' end", "1 RST NO_ERROR"]
    client.leaves()
    ends(world)


def test_a_client_may_begin_too_much_before_it_has_heard_how_much_it_may() -> None:
    world = played()
    first = world.client()
    heads = b"".join(headers(number, get("/held")) for number in range(1, 801, 2))
    world.receives(first, h2.PREFACE + settings() + heads)
    told = [frame.name for frame in h2.parse(world.sent(first))]
    assert told.count("RST_STREAM") == 300
    assert "GOAWAY" not in told
    world.receives(
        first, settings(ack=True) + b"".join(headers(number, get("/held")) for number in range(801, 1401, 2))
    )
    assert h2.parse(world.sent(first))[-1].name == "GOAWAY"


def test_a_malformed_head_that_asks_for_a_head_is_answered_without_a_body() -> None:
    world = played()
    client = Client(world)
    client.says(headers(1, h2.fields([*h2.request("/a", method="HEAD"), ("A", "b")])))
    assert client.told() == ["1 400 end"]
    assert world.access[0].reason == "bad_request"


def test_who_has_said_all_is_held_no_more() -> None:
    """A Hold is for a Receive that stands."""
    world = played(config=Config(http2=Http2(unsent_control_bytes_max=100)))
    client = Client(world)
    client.asks(1, 3)
    origin = world.connects()
    other = world.connects()
    world.receives(client.conn, b"")
    world.gives(Blocked(client.conn))
    for conn in (origin, other):
        world.receives(conn, b"HTTP/1.1 200 OK\r\nDate: now\r\nX: %b\r\nContent-Length: 2\r\n\r\nhi" % (b"y" * 200))
    held = [each for each in world.operations if isinstance(each, Hold) and each.conn == client.conn]
    assert not held
