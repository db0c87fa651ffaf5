"""Limits of what comes on a connection, from clients and from origins: how fast, how much, how long; and what then."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any, Literal

import pytest

from coulee.core import Config, Exchange, Filter, Forwarding, Limits, Proxy, Response, Timeouts, respond, sleep
from coulee.core.seam import Blocked, Sent
from coulee.core.sole_connection import SoleConnection
from coulee.core.stream import SoleStream
from coulee.lb import Cluster
from tests.core.ledger import on, proxy_of, status
from tests.core.world import LISTENER, World

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
CHUNKED = b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nhi"
PLAIN = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False))
CODECS: tuple[Literal["own", "h11"], ...] = ("own", "h11")


class Logged(Filter):
    """Notes what `logging` saw."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def logging(self, exchange: Exchange) -> None:
        self.reasons.append(exchange.error.reason if exchange.error is not None else "")


class Echo(Filter):
    """Answers itself."""

    def request_filter(self, exchange: Exchange) -> Response:
        return respond(200, exchange.request.path, headers={"Date": "now"})


def make(*filters: Filter, config: Config = PLAIN, **changes: Any) -> World:
    proxy = Proxy(Cluster("http://10.0.0.1"), filters, replace(config, **changes))
    return World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER]))


def is_last(world: World, client: int, answer: bytes, code: int, word: str) -> None:
    """The answer says what was wrong, and ends its connection."""
    assert status(answer) == code
    assert f'details="{word}"'.encode() in answer
    assert b"\r\nConnection: close\r\n" in answer
    assert client in world.eofs
    record = world.access[-1]
    assert (record.status, record.reason) == (code, word)
    assert record.detail


# --------------------------------------------------------------------------------------- a request body that is slow


def trickle(world: World, client: int, seconds: float, *, every_s: float = 10.0, piece: bytes = b"x") -> None:
    """A piece now and then, so that silence never lasts."""
    until = world.now + seconds
    while world.now + every_s <= until:
        world.wait(every_s)
        world.receives(client, piece)
    world.wait(until - world.now)


def test_a_body_that_trickles_is_ended_with_the_first_window() -> None:
    logged = Logged()
    world = make(logged)
    client = world.client()
    world.receives(client, PUT)
    origin = world.connects()
    trickle(world, client, 34.9)
    assert not world.sent(client), "5 s of grace, and 30 s"
    world.wait(0.2)
    is_last(world, client, world.sent(client), 408, "body_timeout")
    assert world.access[0].detail == "less than 100 bytes of the body a second"
    assert world.closing[origin] is True, "the origin must not take it for the whole"
    assert logged.reasons == ["body_timeout"]
    world.leaves_nothing()


def test_a_body_that_trickles_behind_the_beginning_of_its_answer_is_cut() -> None:
    world = make()
    client = world.client()
    world.receives(client, PUT)
    origin = world.connects()
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
    assert status(world.sent(client)) == 200
    trickle(world, client, 35.1)
    assert not world.sent(client)
    assert client in world.eofs, "less than the length that was announced"
    assert world.closing[origin] is True
    assert (world.access[0].status, world.access[0].reason) == (200, "body_timeout")


def test_a_body_that_comes_fast_enough_may_pause() -> None:
    world = make()
    client = world.client()
    world.receives(client, PUT)
    origin = world.connects()
    for _ in range(10):
        world.wait(29)
        world.receives(client, b"x" * 3000)
    world.receives(client, b"x" * 70_000)
    world.receives(origin, OK)
    assert world.sent(client) == OK
    assert world.access[0].bytes_in == 100_000


def test_each_window_is_reckoned_by_itself() -> None:
    world = make()
    client = world.client()
    world.receives(client, PUT + b"x" * 90_000)
    world.connects()
    trickle(world, client, 64.9)
    assert not world.sent(client), "the first window had plenty"
    world.wait(0.2)
    is_last(world, client, world.sent(client), 408, "body_timeout")


def test_a_window_that_ends_just_when_bytes_come_is_reckoned_with_them() -> None:
    world = make()
    client = world.client()
    world.receives(client, PUT)
    world.connects()
    world.wait(17.5)
    world.receives(client, b"x" * 2000)
    world.wait(17.49)
    world.now = 35.5  # the host was busy
    world.receives(client, b"x" * 999)
    assert not world.sent(client), "what had come is heard first"
    world.wait(0)
    is_last(world, client, world.sent(client), 408, "body_timeout")


def test_a_client_whose_bytes_wait_for_a_filter_is_not_slow() -> None:
    async def think(exchange: Exchange, data: bytes, ended: bool) -> bytes:
        await sleep(50)
        return data

    world = make(on("request_body_filter", think), timeouts=Timeouts(answer_timeout_s=1000))
    client = world.client()
    world.receives(client, PUT.replace(b"100000", b"30"))
    origin = world.connects()
    for _ in range(3):
        world.receives(client, b"x" * 10)
        world.wait(50)
    world.receives(origin, OK)
    assert world.sent(client) == OK


def test_a_client_that_the_origin_holds_back_is_not_slow() -> None:
    limits = Limits(head_bytes_max=1000, buffer_high_bytes=2000, buffer_low_bytes=500)
    world = make(limits=limits, timeouts=Timeouts(body_rate_min_bytes_per_s=1000))
    client = world.client()
    world.receives(client, PUT)
    origin = world.connects()
    world.receives(client, b"x" * 10_000)
    world.gives(Blocked(origin))
    while world.reading[client]:
        world.receives(client, b"x" * 2000)
    for _ in range(4):
        world.wait(29)
        world.gives(Sent(origin))
        world.gives(Blocked(origin))
        while world.reading[client]:
            world.receives(client, b"x" * 2000)
    assert not world.sent(client), "in two minutes less than the 30 kB of one window"
    world.gives(Sent(origin))
    world.wait(31)
    assert b"no byte of the body for 30 s" in world.access[0].detail.encode()


def test_the_rate_may_be_switched_off() -> None:
    world = make(timeouts=Timeouts(body_rate_min_bytes_per_s=0))
    client = world.client()
    world.receives(client, PUT)
    world.connects()
    trickle(world, client, 600, every_s=29)
    assert not world.sent(client)
    world.wait(31)
    is_last(world, client, world.sent(client), 408, "body_timeout")


def test_a_filter_that_reads_a_slow_body_gets_no_more_of_it() -> None:
    async def read(exchange: Exchange) -> None:
        await exchange.body()

    world = make(on("request_filter", read))
    client = world.client()
    world.receives(client, PUT)
    trickle(world, client, 35.1)
    is_last(world, client, world.sent(client), 408, "body_timeout")
    assert not world.connecting


def test_a_request_without_a_body_is_not_watched() -> None:
    world = make()
    client = world.client()
    world.receives(client, GET)
    connection = proxy_of(world).connections[client]
    assert isinstance(connection, SoleConnection)
    stream = connection.stream
    assert type(stream) is SoleStream
    world.connects()
    world.wait(59)
    assert not world.sent(client)


# --------------------------------------------------------------------------------------- a request body that is large

SMALL = Limits(request_body_bytes_max=10)


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
@pytest.mark.parametrize("body", [b"", b"x" * 11])
def test_a_body_that_is_announced_too_large_goes_nowhere(expect: bytes, body: bytes) -> None:
    logged = Logged()
    world = make(logged, limits=SMALL)
    client = world.client()
    world.receives(client, b"PUT /a HTTP/1.1\r\nHost: a\r\n" + expect + b"Content-Length: 11\r\n\r\n" + body)
    is_last(world, client, world.sent(client), 413, "body_too_large")
    assert not world.connecting
    assert (world.access[0].method, world.access[0].target) == ("PUT", "/a")
    assert logged.reasons == ["body_too_large"]


def test_a_body_that_becomes_too_large_is_cut() -> None:
    world = make(limits=SMALL)
    client = world.client()
    world.receives(client, CHUNKED + b"5\r\nabcde\r\n")
    origin = world.connects()
    world.receives(client, b"5\r\nabcde\r\n")
    assert world.sent(origin).endswith(b"\r\n\r\n5\r\nabcde\r\n5\r\nabcde\r\n")
    assert not world.sent(client), "as much as there may be"
    world.receives(client, b"1\r\na\r\n0\r\n\r\n")
    is_last(world, client, world.sent(client), 413, "body_too_large")
    assert not world.sent(origin)
    assert world.closing[origin] is True, "it is not used again"
    world.receives(world.client(), GET)
    assert world.connecting


def test_a_chunked_body_that_is_too_large_in_its_first_piece_goes_nowhere() -> None:
    world = make(limits=SMALL)
    client = world.client()
    world.receives(client, CHUNKED + b"b\r\nabcdeabcdea\r\n")
    is_last(world, client, world.sent(client), 413, "body_too_large")
    assert not world.connecting


def test_a_body_that_becomes_too_large_behind_the_beginning_of_its_answer() -> None:
    world = make(limits=SMALL)
    client = world.client()
    world.receives(client, CHUNKED)
    origin = world.connects()
    world.receives(origin, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    world.sent(client)
    world.receives(client, b"b\r\nabcdeabcdea\r\n0\r\n\r\n")
    assert not world.sent(client), "no last chunk"
    assert client in world.eofs
    assert world.closing[origin] is True
    assert (world.access[0].status, world.access[0].reason) == (200, "body_too_large")


def test_a_body_as_large_as_it_may_be_passes() -> None:
    world = make(limits=SMALL)
    client = world.client()
    world.receives(client, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n" + b"x" * 10)
    origin = world.connects()
    world.receives(origin, OK)
    world.receives(client, CHUNKED + b"5\r\nabcde\r\n")
    world.receives(client, b"5\r\nabcde\r\n0\r\nT: x\r\n\r\n")
    world.receives(origin, OK)
    assert world.sent(client) == OK + OK


def test_of_a_body_that_a_filter_finds_too_large_no_more_is_awaited() -> None:
    async def read(exchange: Exchange) -> None:
        await exchange.body(10)

    world = make(on("request_filter", read))
    client = world.client()
    world.receives(client, CHUNKED)
    world.receives(client, b"b\r\nabcdeabcdea\r\n")
    is_last(world, client, world.sent(client), 413, "body_too_large")


# ------------------------------------------------------------------------------------------- the life of a connection


def test_the_first_answer_after_its_life_is_a_connections_last() -> None:
    world = make(Echo(), timeouts=Timeouts(connection_life_s=100))
    client = world.client()
    for seconds in (50, 49.9):
        world.wait(seconds)
        world.receives(client, GET)
        assert b"Connection: close" not in world.sent(client)
    world.wait(0.2)
    world.receives(client, GET + GET)
    answer = world.sent(client)
    assert answer.count(b"HTTP/1.1 200 OK") == 1, "nothing behind it is looked at"
    assert b"\r\nConnection: close\r\n" in answer
    assert client in world.eofs


def test_an_idle_connection_past_its_life_is_ended_by_its_idle_time() -> None:
    world = make(Echo(), timeouts=Timeouts(connection_life_s=100))
    client = world.client()
    world.wait(59)
    world.receives(client, GET)
    world.wait(59)
    assert client not in world.closing
    world.wait(2)
    assert world.closing[client] is False


# ------------------------------------------------------------------------------------------ what is refused, and how

HOST = b"\r\nHost: a"
REFUSED = [
    ("a broken head", GET.replace(b"Host", b"Ho st"), 400, "bad_request"),
    ("framed twice", b"PUT / HTTP/1.1" + HOST + b"\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400,
     "bad_request"),
    ("a long line of a chunk", CHUNKED + b"1;" + b"a" * 300 + b"\r\nx\r\n", 400, "bad_request"),
    ("CONNECT", b"CONNECT a:1 HTTP/1.1" + HOST + b"\r\n\r\n", 405, "method_not_allowed"),
    ("a long target", b"GET /" + b"a" * 9000 + b" HTTP/1.1" + HOST + b"\r\n\r\n", 414, "target_too_long"),
    ("an expectation", b"GET / HTTP/1.1" + HOST + b"\r\nExpect: tea\r\n\r\n", 417, "expectation_failed"),
    ("https without TLS", b"GET https://a/ HTTP/1.1" + HOST + b"\r\n\r\n", 421, "misdirected"),
    ("HTTPS without TLS", b"OPTIONS HTTPS://a HTTP/1.1" + HOST + b"\r\n\r\n", 421, "misdirected"),
    ("a large head", b"GET / HTTP/1.1" + HOST + (b"\r\nA: " + b"b" * 8000) * 5 + b"\r\n\r\n", 431, "header_too_large"),
    ("a long field", b"GET / HTTP/1.1" + HOST + b"\r\nA: " + b"b" * 9000 + b"\r\n\r\n", 431, "header_too_large"),
    ("many fields", b"GET / HTTP/1.1" + HOST + b"\r\nA: b" * 100 + b"\r\n\r\n", 431, "header_too_large"),
    ("large trailers", CHUNKED + b"0\r\nA: " + b"b" * 9000 + b"\r\n\r\n", 431, "header_too_large"),
    ("many trailers", CHUNKED + b"0\r\n" + b"A: b\r\n" * 33 + b"\r\n", 431, "header_too_large"),
    ("a coding", b"PUT / HTTP/1.1" + HOST + b"\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "not_implemented"),
    ("a version", b"GET / HTTP/2.0" + HOST + b"\r\n\r\n", 505, "version_not_supported"),
]  # fmt: skip

LET_PASS_BY_H11 = {"a long line of a chunk", "many trailers", "a long status line"}


def for_each_codec(names: list[str]) -> list[Any]:
    """Each row of a table with each codec that minds it."""
    pairs = [(row, codec) for row in range(len(names)) for codec in CODECS]
    return [
        pytest.param(row, codec, id=f"{names[row]}-{codec}")
        for row, codec in pairs
        if codec == "own" or names[row] not in LET_PASS_BY_H11
    ]


@pytest.mark.parametrize(("row", "codec"), for_each_codec([row[0] for row in REFUSED]))
def test_each_fault_has_its_status_ends_the_connection_and_is_recorded(row: int, codec: Literal["own", "h11"]) -> None:
    _, data, code, word = REFUSED[row]
    logged = Logged()
    world = make(logged, http1_codec=codec)
    client = world.client()
    world.receives(client, data)
    while world.connecting:  # the fault is in the body
        world.connects()
    is_last(world, client, world.sent(client), code, word)
    assert len(world.access) == 1
    assert logged.reasons == [word]
    world.receives(client, GET)
    assert len(world.access) == 1, "nothing behind it is looked at"
    world.leaves_nothing()


def test_all_chunk_extensions_together_are_bounded() -> None:
    world = make()
    client = world.client()
    world.receives(client, CHUNKED)
    origin = world.connects()
    for _ in range(70):
        world.receives(client, b"1;" + b"a" * 230 + b"\r\nx\r\n")
    world.receives(client, b"1;" + b"a" * 230 + b"\r\nx\r\n")
    is_last(world, client, world.sent(client), 400, "bad_request")
    assert world.access[0].detail == "more than 16384 bytes of chunk extensions"
    assert world.closing[origin] is True


def test_underscores_in_names_may_be_refused() -> None:
    world = make(underscore_in_names="refuse")
    client = world.client()
    world.receives(client, GET.replace(b"\r\n\r\n", b"\r\nX_A: 1\r\n\r\n"))
    is_last(world, client, world.sent(client), 400, "bad_request")
    assert world.access[0].detail == "a field with an underscore in its name"
    assert not world.connecting
    client = world.client()
    fine = GET.replace(b"\r\n\r\n", b"\r\nX-A: a_b\r\n\r\n")
    world.receives(client, fine)
    assert world.sent(world.connects()) == fine


def test_underscores_are_refused_before_a_filter_that_was_added_later_is_asked() -> None:
    asked: list[str] = []
    proxy = Proxy(Cluster("http://10.0.0.1"), config=replace(PLAIN, underscore_in_names="refuse"))

    @proxy.on("early_request_filter")
    def note(exchange: Exchange) -> None:
        asked.append(exchange.request.target)

    world = World(proxy.fresh(rng=Random(1), listen=[LISTENER]))
    world.receives(client := world.client(), GET.replace(b"Host", b"_: b\r\nHost"))
    assert status(world.sent(client)) == 400
    assert not asked
    world.receives(world.client(), GET)
    assert asked == ["/a"]


# --------------------------------------------------------------------------------------------- what an origin may not

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
INVALID = [
    ("a long status line", b"HTTP/1.1 200 " + b"a" * 9000 + b"\r\n\r\n", 502),
    ("a large head", b"HTTP/1.1 200 OK" + (b"\r\nA: " + b"b" * 8000) * 5 + b"\r\n\r\n", 502),
    ("a long field", b"HTTP/1.1 200 OK\r\nA: " + b"b" * 9000 + b"\r\n\r\n", 502),
    ("many fields", b"HTTP/1.1 200 OK" + b"\r\nA: b" * 101 + b"\r\n\r\n", 502),
    ("many interim answers", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + OK, 502),
    ("a long line of a chunk", HEAD + b"1;" + b"a" * 300 + b"\r\nx\r\n", 200),
    ("large trailers", HEAD + b"0\r\nA: " + b"b" * 9000 + b"\r\n\r\n", 200),
    ("many trailers", HEAD + b"0\r\n" + b"A: b\r\n" * 33 + b"\r\n", 200),
]


@pytest.mark.parametrize(("row", "codec"), for_each_codec([row[0] for row in INVALID]))
def test_an_answer_is_held_to_the_limits_of_a_request(row: int, codec: Literal["own", "h11"]) -> None:
    _, data, code = INVALID[row]
    world = make(http1_codec=codec)
    client = world.client()
    world.receives(client, GET)
    origin = world.connects()
    world.receives(origin, data)
    answer = world.sent(client)
    answer = answer[answer.index(b"HTTP/1.1 %d " % code) :]
    if code == 502:
        assert b'details="upstream_invalid"' in answer
        assert client not in world.eofs, "the client is not to blame"
    else:
        assert answer.endswith(b"\r\n\r\n1\r\nx\r\n"), "a cut that the client can see: no last chunk"
        assert client in world.eofs
    assert world.closing[origin] is True
    assert (world.access[0].status, world.access[0].reason) == (code, "upstream_invalid")


def test_all_chunk_extensions_of_an_answer_together_are_bounded() -> None:
    world = make()
    client = world.client()
    world.receives(client, GET)
    origin = world.connects()
    world.receives(origin, HEAD)
    for _ in range(71):
        world.receives(origin, b"1;" + b"a" * 230 + b"\r\nx\r\n")
    assert not world.sent(client).endswith(b"0\r\n\r\n")
    assert client in world.eofs
    assert world.access[0].reason == "upstream_invalid"


# ------------------------------------------------------------------------------------------------ what is used again


@pytest.mark.parametrize("rest", [b"x" * 10, b""])
def test_an_origin_that_answers_before_it_has_the_request_is_not_used_again(rest: bytes) -> None:
    world = make()
    client = world.client()
    world.receives(client, PUT.replace(b"100000", b"20") + b"x" * 10)
    origin = world.connects()
    world.receives(origin, OK)
    assert world.sent(client) == OK
    assert world.closing[origin] is True, "its request is not whole"
    if rest:
        world.receives(client, rest + GET)
        other = world.connects()
        assert world.sent(other) == GET, "the rest was forgotten, and is nobody's request"
        world.receives(other, OK)
        assert world.sent(client) == OK
    else:
        world.wait(1.1)
        assert client in world.eofs, "it is not waited for any longer"


def test_an_unread_body_is_forgotten_up_to_a_limit() -> None:
    for size, goes_on in ((65_536, True), (65_537, False)):
        world = make(Echo())
        client = world.client()
        world.receives(client, CHUNKED)
        assert status(world.sent(client)) == 200
        world.receives(client, b"%x\r\n" % size + b"x" * size + b"\r\n")
        world.receives(client, b"0\r\n\r\n" + GET)
        assert bool(world.sent(client)) is goes_on
        assert (client in world.eofs) is not goes_on


# ------------------------------------------------------------------------------------------- who asks and never reads


class Wordy(Filter):
    """Answers much at once."""

    def request_filter(self, exchange: Exchange) -> Response:
        return respond(200, b"x" * 10_000, headers={"Date": "now"})


def held_for(world: World, client: int) -> int:
    return proxy_of(world).connections[client].out_bytes


def test_who_pipelines_and_reads_nothing_is_answered_up_to_the_marks() -> None:
    world = make(Wordy())
    client = world.client()
    world.receives(client, GET * 900)
    first = len(world.sent(client))
    assert 65_536 <= first < 65_536 + 11_000, "one turn's share, though all had come in one read"
    world.gives(Blocked(client))
    world.wait(1)
    assert world.sent(client) == b""
    assert held_for(world, client) < 65_536 + 11_000, "and one more behind what is blocked"
    for _ in range(10):
        if world.reading[client]:
            world.receives(client, GET * 2000)
    assert not world.reading[client]
    assert len(world.access) < 20
    world.wait(60)
    assert world.closing[client] is True, "and then it has taken nothing for too long"
    world.leaves_nothing()


def test_who_pipelines_and_reads_gets_it_all_in_order_a_share_a_turn() -> None:
    world = make(Wordy())
    client = world.client()
    world.receives(client, GET * 900)
    turns = [len(world.sent(client))]
    while (deadline := world.machine.deadline) is not None and deadline < world.now + 1:
        world.now = deadline
        world.gives(None)
        turns.append(len(world.sent(client)))
    assert max(turns) < 65_536 + 11_000
    assert len(world.access) == 900
    assert world.now < 0.01
    assert client not in world.closing
    world.wait(59)
    assert client not in world.closing, "it is idle as any other"
    world.receives(client, GET)
    assert status(world.sent(client)) == 200


def test_requests_that_come_before_the_next_share_are_served_behind_it() -> None:
    world = make(Wordy())
    client = world.client()
    world.receives(client, GET * 7)
    assert len(world.access) == 7
    world.receives(client, GET[:5])
    world.receives(client, GET[5:] + GET * 7)
    assert len(world.access) == 14
    world.receives(client, GET * 2)
    assert len(world.access) == 17, "whatever comes begins a new turn"
    world.wait(9)
    assert client not in world.closing


def test_who_pipelines_to_an_origin_and_reads_nothing_is_held_back() -> None:
    world = make()
    client = world.client()
    world.receives(client, GET * 900)
    origin = world.connects()
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000
    world.receives(origin, large)
    world.gives(Blocked(client))
    while world.sent(origin):
        world.receives(origin, large)
    assert len(world.access) < 5
    assert held_for(world, client) < 200_000
    world.wait(121)
    assert world.closing[client] is True
    assert world.access[-1].reason == "send_timeout"
    world.leaves_nothing()
