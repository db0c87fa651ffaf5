"""Connections to origins that speak HTTP/2: what is lent, what becomes of it, and when an origin is given up."""

from __future__ import annotations

from typing import Any

import pytest

from coulee.core import Config, Exchange, Filter, Limits, Request, Retry, Timeouts, UpstreamTls, sleep
from coulee.core.config import Http2
from coulee.core.http2_upstream import STREAMS_MAX, Http2Upstream
from coulee.core.seam import Blocked, Drain, Sent
from coulee.core.transport import Transport
from tests.core.http2_ends import (
    H2,
    PLAIN,
    Client,
    End,
    Origin,
    answer,
    ends,
    peer,
    played,
    proxy_of,
    reasons,
    trailers,
)
from tests.core.ledger import on
from tests.core.world import World
from tests.http2 import frames as h2
from tests.http2.frames import Code, data, goaway, headers, ping, rst, settings, window_update

NO_RETRY = Retry(retries_max=0)


def single(config: Config = PLAIN, *filters: Filter, values: dict[int, int] | None = None, **changes: Any) -> World:
    return played(*filters, peers=(peer(),), config=config, **changes)


async def _a_while(exchange: Exchange, request: Request) -> None:
    await sleep(5)


SLOW = on("upstream_request_filter", _a_while)


def lent_before_written(retry: Retry | None = None) -> tuple[World, Client, Origin]:
    """A stream is lent, and its request is not written yet: a filter takes its time."""
    world = single(PLAIN, SLOW, retry=retry or Retry())
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    assert origin.told() == []
    return world, client, origin


# ------------------------------------------------------------------------------- what is lent, and not yet written


@pytest.mark.parametrize("how", ["reset", "closed", "faulty", "flooded"])
def test_a_connection_that_dies_before_its_stream_is_written_on(how: str) -> None:
    """Nobody reads from such a stream, so that nobody would ever hear of it."""
    world, client, origin = lent_before_written(NO_RETRY)
    if how == "reset":
        world.resets(origin.conn)
    elif how == "closed":
        origin.leaves()
    elif how == "faulty":
        origin.says(data(0, b"x"))
    else:
        origin.says(ping() * 300)
    world.wait(6)
    assert client.told()[0] == "1 503"
    assert reasons(world) == ["upstream_refused_stream"]
    client.leaves()
    ends(world)


def test_a_stream_that_is_not_written_yet_is_not_begun_behind_a_goaway() -> None:
    world, client, origin = lent_before_written()
    origin.says(goaway(2**31 - 1))
    world.wait(6)
    assert origin.told() == []
    again = Origin(world)
    world.wait(6)
    assert again.told() == ["1 GET /a end"]
    again.says(answer(1, 204, end=True))
    assert client.told() == ["1 204 end"]
    client.leaves()
    ends(world)


def test_an_origin_that_allows_fewer_streams_while_one_is_about_to_begin() -> None:
    world, client, origin = lent_before_written()
    origin.says(settings({h2.MAX_CONCURRENT_STREAMS: 0}))
    world.wait(6)
    again = Origin(world)
    world.wait(6)
    assert again.told() == ["1 GET /a end"]
    again.says(answer(1, 204, end=True))
    assert client.told() == ["1 204 end"]
    client.leaves()
    ends(world)


# ------------------------------------------------------------------------------------------------ what comes back


def test_an_answer_that_is_whole_is_kept_though_its_stream_is_reset_behind_it() -> None:
    """RFC 9113 section 8.1: a server need not wait for the rest of a request that it does not want."""
    for code in (Code.NO_ERROR, Code.CANCEL):
        world = single(retry=NO_RETRY)
        client = Client(world)
        client.says(headers(1, h2.post(), end=False), data(1, b"abc"))
        origin = Origin(world)
        assert origin.told() == ["1 POST /", "1 DATA 'abc'"]
        origin.says(answer(1, 413), data(1, b"too", end=False), data(1, b" large", end=True), rst(1, code))
        assert client.told() == ["1 413", "1 DATA 'too large' end", "1 RST NO_ERROR"]
        assert reasons(world) == [""]
        client.leaves()
        ends(world)


# ------------------------------------------------------------------------------------------------ whether it is there


def test_an_origin_that_is_silent_is_asked_though_requests_go_on_coming() -> None:
    world = single(timeouts=Timeouts(answer_timeout_s=1000), retry=NO_RETRY)
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    for turn in range(1, 5):
        world.wait(6)
        client.asks(1 + 2 * turn)
    assert [word for word in origin.told() if word == "PING"] == ["PING"]
    world.wait(9)
    assert origin.closed
    assert reasons(world) == ["upstream_timeout"] * 5
    client.leaves()
    ends(world)


def test_any_byte_is_a_sign() -> None:
    world = single(timeouts=Timeouts(answer_timeout_s=1000))
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    world.wait(21)
    assert origin.told() == ["1 GET /a end", "PING"]
    origin.says(window_update(0, 1000))
    world.wait(11)
    assert not origin.closed
    world.wait(200)
    assert origin.told() == [], "gRPC servers mind who asks often"
    world.wait(100)
    assert origin.told() == ["PING"]
    origin.says(ping(b"are you?", ack=True))
    world.wait(307)
    assert origin.told() == []
    world.wait(2)
    assert origin.told() == ["PING"]
    origin.says(answer(1, 204, end=True))
    assert client.told() == ["1 204 end"]
    world.wait(40)
    assert origin.told() == [], "it owes nothing"
    client.leaves()
    ends(world)


# ----------------------------------------------------------------------------------------------- many on one connection


def test_streams_end_in_any_order_and_each_gets_its_own_answer() -> None:
    world = single()
    client = Client(world)
    client.asks(1, 3, 5)
    origin = Origin(world)
    assert origin.told() == ["1 GET /a end", "3 GET /a end", "5 GET /a end"]
    origin.says(
        answer(5), data(5, b"five", end=True), answer(1), data(1, b"o"), answer(3, 204, end=True), data(1, b"ne")
    )
    assert client.told() == ["5 200", "5 DATA 'five' end", "1 200", "1 DATA 'one'", "3 204 end"]
    origin.says(trailers(1, ("x", "y")))
    assert client.told() == ["1 x=y end"]
    client.leaves()
    ends(world)


def test_http2_by_alpn() -> None:
    world = played(peers=(peer(transport=Transport(tls=UpstreamTls(alpn=("h2", "http/1.1")))),))
    client = Client(world)
    client.asks(1)
    origin = Origin(world, security=H2)
    assert origin.told() == ["1 GET /a end"]
    origin.says(answer(1, 204, end=True))
    assert client.told() == ["1 204 end"]
    client.leaves()
    ends(world)


def test_clients_of_http1_share_a_connection_too() -> None:
    world = single()
    clients = [world.client() for _ in range(3)]
    for conn in clients:
        world.receives(conn, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
    origin = Origin(world)
    for stream, conn in zip((1, 3, 5), clients, strict=True):
        origin.says(answer(stream), data(stream, b"a", end=False), data(stream, b"b", end=True))
        assert world.sent(conn).partition(b"\r\n\r\n")[2] == b"2\r\nab\r\n0\r\n\r\n"
        world.receives(conn, b"")
    ends(world)


def test_an_origin_that_takes_nothing_of_a_body_fails_that_request_alone() -> None:
    world = single(retry=NO_RETRY, http2=Http2(ping_after_s=1000))
    client = Client(world)
    client.says(headers(1, h2.post(), end=False), data(1, b"abc"), headers(3, h2.get()))
    origin = Origin(world, {h2.INITIAL_WINDOW_SIZE: 0})
    assert sorted(origin.told()) == ["1 DATA 'abc'", "1 POST /", "3 GET / end"]
    client.says(data(1, b"defg", end=True))
    world.wait(31)
    assert origin.told() == ["1 RST CANCEL"]
    assert client.told()[0] == "1 504"
    origin.says(answer(3, 204, end=True))
    assert client.told() == ["3 204 end"]
    assert reasons(world) == ["upstream_timeout", ""]
    client.leaves()
    ends(world)


def test_a_body_waits_for_the_windows_of_the_origin() -> None:
    world = single()
    client = Client(world)
    client.says(headers(1, h2.post(), end=False))
    origin = Origin(world, {h2.INITIAL_WINDOW_SIZE: 5})
    client.says(data(1, b"abcdefgh", end=True))
    assert origin.told() == ["1 POST /", "1 DATA 'abcde'"]
    origin.says(settings({h2.INITIAL_WINDOW_SIZE: 2}))
    origin.says(window_update(1, 4))
    assert origin.told() == ["1 DATA 'f'"]
    origin.says(window_update(1, 100))
    assert origin.told() == ["1 DATA 'gh' end"]
    origin.says(answer(1, 204, end=True))
    client.leaves()
    ends(world)


def test_the_end_of_a_body_needs_no_window() -> None:
    world = single()
    client = Client(world)
    client.says(headers(1, h2.post(), end=False))
    origin = Origin(world, {h2.INITIAL_WINDOW_SIZE: 5})
    client.says(data(1, b"abcde"))
    origin.says(settings({h2.INITIAL_WINDOW_SIZE: 2}))
    origin.told()
    client.says(data(1, b"", end=True))
    assert origin.told() == ["1 DATA '' end"]
    origin.says(answer(1, 204, end=True))
    client.leaves()
    ends(world)


# ---------------------------------------------------------------------------------------------------------- refusals


def test_a_refused_stream_is_asked_again_whatever_its_method() -> None:
    world = single()
    client = Client(world)
    client.says(headers(1, h2.post(), end=False), data(1, b"abc", end=True))
    origin = Origin(world)
    assert origin.told() == ["1 POST /", "1 DATA 'abc' end"]
    origin.says(rst(1, Code.REFUSED_STREAM))
    assert origin.told() == ["3 POST /", "3 DATA 'abc' end"]
    origin.says(answer(3, 204, end=True))
    assert client.told() == ["1 204 end"]
    assert [attempt.reason for attempt in world.access[0].attempts] == ["upstream_refused_stream", ""]
    client.leaves()
    ends(world)


def test_a_goaway_leaves_what_is_below_it_and_sends_the_rest_elsewhere() -> None:
    world = played(peers=(peer("a"), peer("b")), limits=Limits(replay_bytes_max=10))
    client = Client(world)
    client.says(headers(1, h2.get()), headers(3, h2.post(), end=False), data(3, b"whole", end=True))
    client.says(headers(5, h2.post(), end=False), data(5, b"more than the buffer holds"))
    origin = Origin(world)
    origin.told()
    origin.says(answer(1), goaway(1, Code.NO_ERROR, b"later"))
    other = Origin(world)
    assert other.told() == ["1 POST /", "1 DATA 'whole' end"]
    assert [word for word in client.told() if "DATA" not in word] == ["1 200", "5 503", "5 RST NO_ERROR"]
    assert world.access[0].detail == "the endpoint has not looked at the request (NO_ERROR later)"
    origin.says(data(1, b"x", end=True))
    assert origin.closed
    other.says(answer(1, 204, end=True))
    assert client.told() == ["1 DATA 'x' end", "3 204 end"]
    client.leaves()
    ends(world)


# --------------------------------------------------------------------------------------- answers that are no answers


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        (headers(1, h2.fields([("x", "y")])), "upstream_invalid"),
        (answer(1, 99, end=True), "upstream_invalid"),
        (data(1, b"x"), "upstream_invalid"),
        (rst(1, Code.INTERNAL_ERROR), "upstream_reset"),
    ],
)
def test_a_broken_answer_fails_its_request_alone(broken: bytes, word: str) -> None:
    world = single(retry=NO_RETRY)
    client = Client(world)
    client.asks(1, 3)
    origin = Origin(world)
    origin.says(broken)
    assert reasons(world) == [word]
    assert client.told()[0] == "1 502"
    origin.says(answer(3, 204, end=True))
    assert client.told() == ["3 204 end"]
    assert not origin.closed
    client.leaves()
    ends(world)


@pytest.mark.parametrize(
    "broken",
    [data(1, b"toolong", end=True), data(1, b"x", end=True), rst(1, Code.INTERNAL_ERROR), trailers(1, ("x", "y"))],
)
def test_what_breaks_within_an_answer_cuts_it_to_be_seen(broken: bytes) -> None:
    for version in (1, 2):
        world = single(retry=NO_RETRY)
        client = Client(world) if version == 2 else End(world, world.client())
        client.says(headers(1, h2.get("/a")) if version == 2 else b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        other = Client(world)
        other.asks(1)
        origin = Origin(world)
        origin.says(answer(1, 200, ("content-length", "5")), data(1, b"ab"))
        origin.says(broken)
        if version == 2:
            assert isinstance(client, Client)
            told = client.told()
            assert told[:2] == ["1 200", "1 DATA 'ab'"]
            assert told[-1] == "1 RST INTERNAL_ERROR"
            assert not [word for word in told if word.endswith("end")]
        else:
            raw = world.sent(client.conn)
            assert b"Content-Length: 5" in raw or b"content-length: 5" in raw
            assert len(raw.partition(b"\r\n\r\n")[2]) < 5
            assert client.conn in world.eofs or client.closed
        origin.says(answer(3, 204, end=True))
        assert other.told() == ["1 204 end"]
        client.leaves()
        other.leaves()
        ends(world)


def test_a_fault_of_the_connection_fails_all_on_it() -> None:
    world = single(retry=NO_RETRY)
    client = Client(world)
    client.asks(1, 3)
    origin = Origin(world)
    origin.says(answer(1), data(1, b"x"), h2.frame(h2.PUSH_PROMISE, 4, 1, b"\0\0\0\2"))
    assert origin.told()[-1] == "GOAWAY 0 PROTOCOL_ERROR"
    assert origin.closed
    told = [word for word in client.told() if not word.startswith("3 DATA")]
    assert told == ["1 200", "1 DATA 'x'", "1 RST INTERNAL_ERROR", "3 502"]
    assert reasons(world) == ["upstream_invalid"] * 2
    client.leaves()
    ends(world)


def test_a_fault_of_a_connection_whose_transport_is_blocked() -> None:
    world = single(retry=NO_RETRY)
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    world.gives(Blocked(origin.conn))
    origin.says(data(0, b"x"))
    assert reasons(world) == ["upstream_invalid"]
    assert not origin.closed
    client.asks(3)
    again = Origin(world)
    again.says(answer(1, 204, end=True))
    assert client.told()[-1] == "3 204 end"
    world.wait(31)
    assert world.closing[origin.conn] is True
    client.leaves()
    ends(world)


def test_a_blocked_origin_that_takes_nothing_fails_all_that_waits_for_it() -> None:
    world = single(retry=NO_RETRY, http2=Http2(ping_after_s=1000))
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    world.gives(Blocked(origin.conn))
    client.asks(3)
    world.wait(31)
    assert reasons(world) == ["upstream_timeout"] * 2
    assert world.closing[origin.conn] is True
    client.leaves()
    ends(world)


def test_a_body_that_is_blocked_goes_on_with_its_transport() -> None:
    world = single()
    client = Client(world)
    client.says(headers(1, h2.post(), end=False))
    origin = Origin(world)
    world.gives(Blocked(origin.conn))
    client.says(data(1, b"x" * 16384), data(1, b"x" * 16384), data(1, b"x" * 16384), data(1, b"x" * 16384))
    client.says(data(1, b"", end=True))
    assert origin.told() == ["1 POST /"]
    world.gives(Sent(origin.conn))
    assert origin.told() == ["1 DATA 16384"] * 3 + ["1 DATA 16383"]
    origin.says(window_update(0, 100), window_update(1, 100))
    assert origin.told()[-1].endswith("end")
    origin.says(answer(1, 204, end=True))
    assert client.told()[-1] == "1 204 end"
    client.leaves()
    ends(world)


def test_an_origin_that_floods_is_given_up_in_two_steps() -> None:
    world = single(retry=NO_RETRY)
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    origin.says(ping() * 170)
    client.asks(3)
    other = Origin(world)
    assert other.told() == ["1 GET /a end"], "nothing more is asked on the first one"
    origin.says(ping() * 100)
    assert origin.told()[-1] == "GOAWAY 0 ENHANCE_YOUR_CALM"
    assert reasons(world) == ["upstream_invalid"]
    other.says(answer(1, 204, end=True))
    assert client.told()[-1] == "3 204 end"
    client.leaves()
    ends(world)


# ------------------------------------------------------------------------------------------------------------ endings


def test_who_is_done_with_a_stream_that_is_not_over_cancels_it_and_nothing_else() -> None:
    world = single()
    client = Client(world)
    client.asks(1, 3)
    origin = Origin(world)
    origin.says(answer(1), data(1, b"x"))
    client.says(rst(1))
    assert origin.told()[-1] == "1 RST CANCEL"
    origin.says(data(1, b"on its way" * 100), answer(3, 204, end=True))
    assert client.told()[-1] == "3 204 end"
    assert not origin.closed
    client.asks(5)
    assert origin.told() == ["5 GET /a end"]
    client.leaves()
    ends(world)


def test_what_is_not_taken_of_a_stream_gives_the_window_of_the_connection_back() -> None:
    limits = Limits(head_bytes_max=1000, buffer_high_bytes=1000, buffer_low_bytes=10)
    world = single(http2=Http2(connection_window_bytes=65535), limits=limits)
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 0})
    origin: Origin | None = None
    for stream in range(1, 13, 2):
        client.asks(stream)
        origin = origin or Origin(world)
        origin.says(answer(stream), data(stream, b"x" * 16384))
        origin.says(data(stream, b"x" * 16384), data(stream, b"x" * 16384))
        client.says(rst(stream))
    assert origin is not None
    assert not origin.closed
    assert sum(frame.increment for frame in origin.frames() if frame.type == h2.WINDOW_UPDATE and not frame.stream) > 0
    client.leaves()
    ends(world)


def test_an_answer_that_does_not_come_times_out_alone() -> None:
    world = single(retry=NO_RETRY, timeouts=Timeouts(answer_timeout_s=5))
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    world.wait(3)
    client.asks(3)
    world.wait(3)
    assert reasons(world) == ["upstream_timeout"]
    assert origin.told() == ["1 GET /a end", "3 GET /a end", "1 RST CANCEL"]
    origin.says(answer(3, 204, end=True))
    assert client.told()[-1] == "3 204 end"
    client.leaves()
    ends(world)


def test_an_origin_that_is_gone_or_closes_fails_what_runs() -> None:
    for closes in (False, True):
        world = single(retry=NO_RETRY)
        client = Client(world)
        client.asks(1, 3)
        origin = Origin(world)
        origin.says(answer(1), data(1, b"x"))
        if closes:
            origin.leaves()
        else:
            world.resets(origin.conn)
        told = [word for word in client.told() if not word.startswith("3 DATA")]
        assert told == ["1 200", "1 DATA 'x'", "1 RST INTERNAL_ERROR", "3 502"]
        client.leaves()
        ends(world)


def test_an_idle_connection_ends_in_time_and_at_the_origins_word() -> None:
    world = single()
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    origin.says(answer(1, 204, end=True))
    world.wait(54)
    assert not origin.closed
    assert origin.told() == ["1 GET /a end"], "nothing is asked of who owes nothing"
    world.wait(2)
    assert origin.closed
    for how in ("goaway", "closes", "gone", "floods"):
        client = Client(world)
        client.asks(1)
        origin = Origin(world)
        origin.says(answer(1, 204, end=True))
        if how == "goaway":
            origin.says(goaway(1))
        elif how == "closes":
            origin.leaves()
        elif how == "gone":
            world.resets(origin.conn)
        else:
            origin.says(ping() * 180)
        assert origin.closed or how == "gone"
        assert not proxy_of(world).pool.desks
        client.leaves()
    ends(world)


def test_what_is_lent_for_long_and_never_asks_keeps_its_connection() -> None:
    world, client, origin = lent_before_written()
    client.asks(3)
    world.wait(5)
    assert origin.told() == ["1 GET /a end", "3 GET /a end"]
    origin.says(answer(1, 204, end=True), answer(3, 204, end=True))
    world.wait(1)
    client.asks(5)
    world.wait(4)
    assert not origin.closed
    client.leaves()
    ends(world)


async def _very_slow(exchange: Exchange, sent: Request) -> None:
    if exchange.request.target == "/slow":
        await sleep(50)


def test_a_ping_is_not_due_for_what_has_asked_for_nothing_yet() -> None:
    world = single(PLAIN, on("upstream_request_filter", _very_slow), timeouts=Timeouts(keep_alive_idle_s=1000))
    client = Client(world)
    client.asks(1)
    client.asks(3, path="/slow")
    origin = Origin(world)
    origin.says(answer(1, 204, end=True))
    world.wait(49)
    assert origin.told() == ["1 GET /a end"]
    client.asks(5)
    assert origin.told() == ["3 GET /a end"], "it is still shared"
    origin.says(answer(3, 204, end=True))
    world.wait(2)
    assert origin.told() == ["5 GET /slow end"]
    origin.says(answer(5, 204, end=True))
    assert client.told() == ["1 204 end", "5 204 end", "3 204 end"]
    client.leaves()
    ends(world)


def test_a_drain_ends_what_is_idle_and_what_is_left_at_its_end() -> None:
    world = single()
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    world.gives(Drain(1))
    assert not origin.closed
    world.wait(2)
    assert origin.closed
    assert reasons(world) == ["shutting_down"]
    world.wait(2)
    assert world.machine.finished


def test_upgrades_and_tunnels_go_by_http1_where_there_is_a_choice() -> None:
    tls = UpstreamTls(alpn=("h2", "http/1.1"), verified_name="a")
    world = played(peers=(peer(transport=Transport(tls=tls)),))
    conn = world.client()
    world.receives(conn, b"GET /w HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    origin = world.connects()
    asked = world.secures().tls
    assert isinstance(asked, UpstreamTls)
    assert asked.alpn == ("http/1.1",)
    assert world.sent(origin).startswith(b"GET /w HTTP/1.1\r\n")
    world.receives(origin, b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert world.sent(conn).startswith(b"HTTP/1.1 101 ")
    world.resets(conn)
    ends(world)


def test_a_slow_one_is_hedged_and_the_loser_is_cancelled() -> None:
    world = played(peers=(peer("a"), peer("b")), retry=Retry(hedge_after_s=1))
    client = Client(world)
    client.asks(1, 3)
    slow = Origin(world)
    slow.says(answer(3, 204, end=True))
    world.wait(1.5)
    fast = Origin(world)
    assert fast.told() == ["1 GET /a end"]
    fast.says(answer(1, 204, end=True))
    assert client.told() == ["3 204 end", "1 204 end"]
    assert slow.told()[-1] == "1 RST CANCEL"
    assert not slow.closed
    client.leaves()
    ends(world)


def test_a_connection_has_no_more_streams_than_there_are_numbers() -> None:
    world = single()
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    (connection,) = proxy_of(world).pool.desks[peer().key].shared
    assert isinstance(connection, Http2Upstream)
    assert connection.uses_max == STREAMS_MAX
    connection.uses = STREAMS_MAX
    client.asks(3)
    other = Origin(world)
    other.says(answer(1, 204, end=True))
    origin.says(answer(1, 204, end=True))
    assert origin.closed
    client.leaves()
    ends(world)


def test_a_prelude_that_is_still_waiting_goes_out_first() -> None:
    """The PROXY protocol's header was not taken at once."""
    world = played(peers=(peer(transport=Transport(prior_knowledge=True, proxy_protocol=1)),))
    client = Client(world)
    client.asks(1)
    conn = world.connects()
    sent = world.sent(conn)
    assert sent.startswith(b"PROXY TCP4 10.0.0.9 127.0.0.1 50000 8000\r\n" + h2.PREFACE)
    client.leaves()
    ends(world)


def test_an_origin_that_resets_behind_each_early_answer_is_no_flood() -> None:
    """As nginx does where it does not read a body (section 8.1)."""
    world = single()
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    origin.says(answer(1, 204, end=True))
    for turn in range(1, 260):
        number = 2 * turn + 1
        client.says(headers(number, h2.post("/a", ("content-length", "5")), end=False))
        origin.says(answer(number, 413, end=True), rst(number, 0))
    assert not origin.closed
    assert len(world.access) == 260
    client.leaves()
    ends(world)
