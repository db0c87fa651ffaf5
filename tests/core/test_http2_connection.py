"""What both sides of HTTP/2 have in common, in odd moments: filters that break a body, tunnels, retries, transports
that are blocked before they speak HTTP/2."""

from __future__ import annotations

import pytest

from coulee.core import Cancelled, Exchange, Limits, Response, Retry, Timeouts, UpstreamTls, respond, sleep
from coulee.core.config import Http2
from coulee.core.forward import Forward
from coulee.core.seam import Blocked, Drain, Sent
from coulee.core.transport import Transport
from tests.core.http2_ends import H2, Client, End, Origin, answer, ends, peer, played, reasons
from tests.core.ledger import on
from tests.core.world import World
from tests.http2 import frames as h2
from tests.http2.frames import Code, data, fields, goaway, headers, ping, post, rst, settings, window_update

NO_RETRY = Retry(retries_max=0)


def through() -> tuple[World, Client, Origin]:
    """One stream from a client to an origin, both of HTTP/2."""
    world = played(peers=(peer(),))
    client = Client(world)
    client.asks(1)
    return world, client, Origin(world)


def test_a_filter_that_breaks_a_length_cuts_its_answer() -> None:
    def longer(exchange: Exchange, content: bytes, ended: bool) -> bytes:
        return content

    def lies(exchange: Exchange, response: Response) -> None:
        response.length = 3

    world = played(on("response_filter", lies), peers=(peer(),))
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    origin.says(answer(1), data(1, b"longer than that", end=True))
    assert client.told()[-1] == "1 RST INTERNAL_ERROR"
    assert reasons(world) == ["filter_error"]
    client.leaves()
    ends(world)


@pytest.mark.parametrize("rest", [data(1, b"", end=True), rst(1, Code.CANCEL), b""])
def test_an_answer_that_is_tried_again_is_read_to_its_end_where_that_is_here(rest: bytes) -> None:
    world = played(peers=(peer("a"), peer("b")), retry=Retry(statuses=(503,)))
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    origin.says(answer(1, 503), data(1, b"busy"), rest)
    other = Origin(world)
    other.says(answer(1, 204, end=True))
    assert client.told() == ["1 204 end"]
    assert not origin.closed
    client.leaves()
    ends(world)


def test_a_tunnel_on_a_stream() -> None:
    world = played(forward=Forward(hosts=("a.test",), ports=(443,)))
    client = Client(world)
    ask = fields([(":method", "CONNECT"), (":authority", "a.test:443")])
    client.says(headers(1, ask, end=False), headers(3, ask, end=False))
    one, two = world.connects(), world.connects()
    assert client.told() == ["1 200", "3 200"]
    client.says(data(1, b"up"), data(3, b"us", end=True))
    assert (world.sent(one), world.sent(two)) == (b"up", b"us")
    assert two in world.eofs
    world.receives(one, b"down")
    world.receives(two, b"")
    assert client.told() == ["1 DATA 'down'", "3 DATA '' end"]
    world.resets(one)
    assert "1 RST CONNECT_ERROR" in client.told(), "RFC 9113 section 8.5"
    assert len(world.access) == 2
    client.leaves()
    ends(world)


def test_a_tunnel_whose_origin_ends_first() -> None:
    world = played(forward=Forward(hosts=("a.test",), ports=(443,)))
    client = Client(world)
    client.says(headers(1, fields([(":method", "CONNECT"), (":authority", "a.test:443")]), end=False))
    origin = world.connects()
    world.receives(origin, b"bye")
    world.receives(origin, b"")
    assert client.told() == ["1 200", "1 DATA 'bye'", "1 DATA '' end"]
    client.says(data(1, b"last", end=True))
    assert world.sent(origin) == b"last"
    assert reasons(world) == [""]
    client.leaves()
    ends(world)


def test_a_tunnel_on_which_nothing_comes() -> None:
    world = played(forward=Forward(hosts=("a.test",), ports=(443,)), timeouts=Timeouts(upgraded_idle_timeout_s=5))
    client = Client(world)
    client.says(headers(1, fields([(":method", "CONNECT"), (":authority", "a.test:443")]), end=False))
    world.connects()
    assert client.told() == ["1 200"]
    world.wait(6)
    assert "1 RST CANCEL" in client.told(), "which is nobody's error"
    assert reasons(world) == ["idle_timeout"]
    client.leaves()
    ends(world)


def test_a_transport_that_is_blocked_before_it_speaks_http2() -> None:
    transport = Transport(tls=UpstreamTls(alpn=("h2",)), proxy_protocol=1)
    world = played(peers=(peer(transport=transport),))
    client = Client(world)
    client.asks(1)
    conn = world.connects()
    assert world.sent(conn).startswith(b"PROXY")
    world.gives(Blocked(conn))
    world.secures(H2)
    assert world.sent(conn) == b""
    world.gives(Sent(conn))
    assert world.sent(conn).startswith(h2.PREFACE)
    client.leaves()
    ends(world)


def test_data_for_what_was_answered_already() -> None:
    """Its last bytes wait for a window, and nobody wants the rest of the request."""

    async def early(exchange: Exchange) -> Response:
        return respond(200, b"hello")

    world = played(on("request_filter", early), http2=Http2(connection_window_bytes=65535))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 0})
    client.says(headers(1, post(), end=False))
    for _ in range(4):
        client.says(data(1, b"x" * 16000))
    opened = [frame.increment for frame in client.frames() if frame.type == h2.WINDOW_UPDATE and not frame.stream]
    assert sum(opened) >= 32000
    client.says(headers(1, fields([("x", "y")]), end=True))
    client.says(window_update(1, 5))
    assert client.told() == ["1 DATA 'hello' end"]
    client.leaves()
    ends(world)


def test_a_stream_that_is_reset_while_its_last_bytes_wait() -> None:
    async def early(exchange: Exchange) -> Response:
        return respond(200, b"hello")

    world = played(on("request_filter", early), http2=Http2(streams_max=1))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 0})
    client.asks(1)
    client.asks(3)
    client.says(rst(1))
    client.asks(5)
    assert client.told() == ["1 200", "3 RST REFUSED_STREAM", "5 200"]
    client.says(window_update(5, 5))
    assert client.told() == ["5 DATA 'hello' end"]
    assert reasons(world) == ["", ""]
    client.leaves()
    ends(world)


def test_a_reset_whose_exchange_ends_by_what_came_before_it() -> None:
    world, client, origin = through()
    origin.says(answer(1), data(1, b"whole", end=True), rst(1, Code.NO_ERROR), goaway(1))
    assert client.told() == ["1 200", "1 DATA 'whole' end"]
    assert reasons(world) == [""]
    assert origin.closed
    client.leaves()
    ends(world)


def test_frames_behind_the_end_of_a_connection_are_not_read() -> None:
    world, client, origin = through()
    origin.says(answer(1, 204, end=True), ping() * 210, data(0, b"x"))
    assert client.told() == ["1 204 end"]
    assert origin.told()[-1] == "GOAWAY 0 ENHANCE_YOUR_CALM"
    client.leaves()
    ends(world)


def test_a_body_of_which_half_is_taken_before_its_time_is_over_goes_on() -> None:
    world = played(peers=(peer(),), http2=Http2(ping_after_s=1000), limits=Limits(buffer_high_bytes=40_000))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 0})
    client.asks(1)
    origin = Origin(world)
    origin.says(answer(1), *(data(1, b"x" * 16000) for _ in range(3)))
    for _ in range(4):
        world.wait(20)
        client.says(window_update(1, 1000))
    assert [word for word in client.told() if "DATA" in word] == ["1 DATA 1000"] * 4
    world.gives(Blocked(client.conn))
    world.wait(15)
    client.says(window_update(1, 1000))
    world.wait(14)
    world.gives(Sent(client.conn))
    assert client.told() == ["1 DATA 1000"]
    world.wait(29)
    assert client.told() == []
    world.wait(2)
    assert client.told() == ["1 RST CANCEL"]
    client.leaves()
    ends(world)


def test_a_connection_that_is_worn_while_it_leaves() -> None:
    world = played(limits=Limits(requests_per_connection_max=1))
    client = Client(world)
    client.asks(1, 3)
    assert client.told() == ["GOAWAY all NO_ERROR"]
    world.wait(1)
    assert client.told() == ["GOAWAY 3 NO_ERROR"]
    client.says(rst(1), rst(3))
    ends(world)


def test_an_exchange_whose_task_is_broken_is_recorded_and_reset() -> None:
    """What catches its own cancellation for ever has to be left behind."""

    async def stubborn(exchange: Exchange) -> None:
        while True:
            try:
                await sleep(10)
            except Cancelled:
                continue

    world = played(on("request_filter", stubborn))
    client = Client(world)
    client.asks(1)
    client.says(rst(1))
    assert len(world.access) == 1
    assert world.events("internal_error")
    client.leaves()
    world.leaves_nothing()


def test_a_client_whose_transport_is_blocked_when_it_begins() -> None:
    """Blocked by what an earlier kind of connection has sent."""
    world = played()
    client = world.client()
    world.gives(Blocked(client))
    world.receives(client, h2.PREFACE + settings())
    assert world.sent(client) == b""
    world.gives(Sent(client))
    assert [frame.name for frame in End(world, client).frames()] == ["SETTINGS", "WINDOW_UPDATE", "SETTINGS"]
    world.receives(client, b"")
    ends(world)


def test_an_answer_that_is_tried_again_and_breaks() -> None:
    world = played(peers=(peer("a"), peer("b")), retry=Retry(statuses=(503,)))
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    origin.says(answer(1, 503), rst(1, Code.CANCEL))
    Origin(world).says(answer(1, 204, end=True))
    assert client.told() == ["1 204 end"]
    client.leaves()
    ends(world)


def test_a_retry_may_share_what_it_was_refused_on() -> None:
    world, client, origin = through()
    origin.says(answer(1, 204, end=True))
    client.asks(3)
    origin.says(rst(3, Code.REFUSED_STREAM))
    origin.says(rst(5, Code.REFUSED_STREAM))
    world.wait(1)
    origin.says(answer(7, 204, end=True))
    assert client.told() == ["1 204 end", "3 204 end"]
    client.leaves()
    ends(world)


def test_a_reset_of_what_is_over_already() -> None:
    world, client, origin = through()
    origin.says(answer(1, 204, end=True))
    origin.says(rst(1))
    client.says(rst(1))
    assert client.told() == ["1 204 end"]
    client.leaves()
    ends(world)


def test_glitches_and_resets_are_judged_apart() -> None:
    world = played(http2=Http2(resets_max=4, resets_per_s=0.01))
    client = Client(world)
    client.says(ping() * 100)
    client.asks(1)
    client.says(rst(1))
    client.asks(3)
    client.says(rst(3))
    assert not [word for word in client.told() if "GOAWAY" in word]
    client.asks(5)
    client.says(rst(5))
    assert client.told() == ["GOAWAY all ENHANCE_YOUR_CALM"]
    client.leaves()
    ends(world)


def test_the_window_of_a_stream_is_not_blamed_for_a_blocked_transport() -> None:
    world = played(peers=(peer(),), http2=Http2(ping_after_s=1000))
    client = Client(world, {h2.INITIAL_WINDOW_SIZE: 0})
    client.asks(1)
    origin = Origin(world)
    origin.says(answer(1), data(1, b"x", end=True))
    world.wait(29)
    world.gives(Blocked(client.conn))
    world.wait(5)
    world.gives(Sent(client.conn))
    client.says(window_update(1, 10))
    assert client.told() == ["1 200", "1 DATA 'x' end"]
    client.leaves()
    ends(world)


def test_a_client_that_is_gone_while_the_last_bytes_of_an_answer_wait() -> None:
    world, client, origin = through()
    world.gives(Blocked(client.conn))
    origin.says(answer(1), data(1, b"x", end=True))
    assert reasons(world) == [""]
    world.resets(client.conn)
    ends(world)


def test_a_call_without_a_body_may_be_quiet_for_long() -> None:
    world = played(peers=(peer(),))
    client = Client(world)
    client.says(headers(1, post("/", ("content-type", "application/grpc"), ("te", "trailers"))))
    origin = Origin(world)
    origin.says(answer(1, 200, ("content-type", "application/grpc")), headers(1, fields([("grpc-status", "0")])))
    assert client.told()[-1] == "1 grpc-status=0 end"
    client.leaves()
    ends(world)


def test_a_client_that_was_told_to_go_and_then_we_drain() -> None:
    world = played(limits=Limits(requests_per_connection_max=1))
    client = Client(world)
    client.asks(1)
    world.gives(Drain(5))
    assert client.told() == ["GOAWAY all NO_ERROR"]
    world.wait(1)
    assert client.told() == ["GOAWAY 1 NO_ERROR"]
    client.says(rst(1))
    client.leaves()
    world.wait(10)
    assert world.machine.finished
