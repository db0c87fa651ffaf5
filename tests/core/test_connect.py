"""CONNECT as packet traces, on both codecs: from the request to the last byte of the tunnel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coulee.core import Config, Exchange, ExchangeError, Filter, Peer, Proxy, Retry, Timeouts, respond
from coulee.core.forward import Forward
from coulee.core.parts import Response
from coulee.core.peer import PeerLimits
from coulee.core.seam import Address, Connected, Hold, Send
from coulee.core.transport import Transport
from tests.core.ledger import Ledger
from tests.core.world import LISTENER, TLS, World

FORWARD = Forward(hosts=("*.example.com", "api.internal", "10.0.0.0/8", "fd00::/8"), ports=(443, 8443))
ASK = b"CONNECT api.internal:443 HTTP/1.1\r\nHost: api.internal:443\r\n\r\n"
OPENED = b"HTTP/1.1 200 OK\r\nDate: Sun, 09 Sep 2001 01:46:40 GMT\r\n\r\n"
PUBLIC: Address = ("93.184.216.34", 443)
PRIVATE: Address = ("10.9.9.9", 443)
SECRET = b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n"

_used: list[Literal["own", "h11"]] = []


@pytest.fixture(autouse=True, params=["own", "h11"])
def codec_name(request: pytest.FixtureRequest) -> Literal["own", "h11"]:
    """Every test is one of both codecs."""
    chosen: Literal["own", "h11"] = request.param
    _used[:] = [chosen]
    return chosen


def make(
    *filters: Filter,
    forward: Forward | None = FORWARD,
    config: Config | None = None,
    listen: Address = LISTENER,
    balancer: Ledger | None = None,
) -> World:
    config = replace(config or Config(), http1_codec=_used[0], forward=forward)
    proxy = Proxy(balancer or Ledger(), filters, config).fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[listen])
    return World(proxy)


def on(phase: str, function: Callable[..., Any]) -> Filter:
    """A filter of one phase."""
    hook = Filter()
    setattr(hook, phase, function)
    return hook


def comes_to(world: World, at: Address = PRIVATE) -> int:
    """The connection that was asked for stands, with who is at this address."""
    connect = world.connecting.pop(0)
    world.gives(Connected(connect.conn, at, ("127.0.0.1", 40000)))
    return connect.conn


def tunnelled(world: World, ask: bytes = ASK) -> tuple[int, int]:
    """A client and a target with a tunnel between them."""
    client = world.client()
    world.receives(client, ask)
    target = comes_to(world)
    assert world.sent(client) == OPENED
    return client, target


def refused(world: World, ask: bytes = ASK) -> tuple[int, str, str]:
    """The status that a client is answered who asked for this, with its reason and what is recorded of it."""
    client = world.client()
    world.receives(client, ask)
    assert not world.connecting
    answer = world.sent(client)
    (record,) = world.access
    assert answer.startswith(b"HTTP/1.1 %d " % record.status)
    assert b"\r\nConnection: close\r\n" in answer
    world.leaves_nothing()
    return record.status, record.reason, record.detail


# ----------------------------------------------------------------------------------------------------- what is asked


def test_by_default_nobody_may_ask() -> None:
    assert Config().forward is None
    assert refused(make(forward=None))[:2] == (405, "method_not_allowed")


@pytest.mark.parametrize("forward", [FORWARD, None])
def test_a_trace_is_refused_as_ever(forward: Forward | None) -> None:
    ask = b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert refused(make(forward=forward), ask)[:2] == (405, "method_not_allowed")


@pytest.mark.parametrize(
    "target",
    [b"a", b"a:0", b"/", b"/a:443", b"*", b"u@a:443", b"a:443/", b"a:443#x", b"https://a:443/", b"[::1]", b"127.1:443"],
)
def test_its_target_is_a_host_and_a_port(target: bytes) -> None:
    world = make(forward=Forward(hosts=("*", "0.0.0.0/0", "::/0")))
    assert refused(world, b"CONNECT %s HTTP/1.1\r\nHost: a\r\n\r\n" % target)[:2] == (400, "bad_request")


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 0",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    ],
)
def test_no_body_comes_with_it(fields: bytes) -> None:
    ask = ASK.removesuffix(b"\r\n") + fields + b"\r\n\r\nhello"
    assert refused(make(), ask)[:2] == (400, "bad_request")


@pytest.mark.parametrize(
    "ask",
    [
        ASK.replace(b"Host: api.internal:443\r\n", b""),
        ASK.replace(b"Host: api.internal:443", b"Host: a b"),
        ASK.replace(b"Host: api.internal:443", b"Host:"),
        ASK.replace(b"\r\n\r\n", b"\r\nHost: api.internal:443\r\n\r\n"),
    ],
)
def test_it_has_a_host_like_any_request(ask: bytes) -> None:
    assert refused(make(), ask)[:2] == (400, "bad_request")


@pytest.mark.parametrize("host", [b"api.internal:443", b"api.internal", b"other.test", b"API.internal:443"])
def test_its_target_counts_and_not_its_host(host: bytes) -> None:
    seen: list[object] = []

    def look(exchange: Exchange) -> None:
        request = exchange.request
        seen.extend([request.method, request.target, request.authority, request.headers.get_all("host")])
        seen.extend([request.version, request.length, request.ended])

    world = make(on("request_filter", look))
    tunnelled(world, b"CONNECT Api.Internal:443 HTTP/1.1\r\nHost: %s\r\n\r\n" % host)
    assert seen == ["CONNECT", "api.internal:443", "api.internal:443", ["api.internal:443"], (1, 1), 0, True]


@pytest.mark.parametrize("host", [b"", b"Host: api.internal:443\r\n"])
def test_http_1_0_may_ask_too(host: bytes) -> None:
    world = make()
    client, target = tunnelled(world, b"CONNECT api.internal:443 HTTP/1.0\r\n" + host + b"\r\n")
    assert world.receives(client, b"hi") == [Send(target, b"hi")]


@pytest.mark.parametrize(
    "fields",
    [
        b"Expect: 100-continue",
        b"Proxy-Connection: keep-alive",
        b"Connection: close",
        b"Connection: upgrade\r\nUpgrade: websocket",
        b"Connection: keep-alive, x\r\nX: y",
    ],
)
def test_fields_that_are_often_there(fields: bytes) -> None:
    client, target = tunnelled(world := make(), ASK.removesuffix(b"\r\n") + fields + b"\r\n\r\n")
    assert world.receives(client, b"hi") == [Send(target, b"hi")]


# --------------------------------------------------------------------------------------------------------- the way


def test_the_way_through() -> None:
    world = make()
    client = world.client()
    world.receives(client, ASK)
    assert world.connecting[0].address == ("api.internal", 443)
    assert not world.sent(client), "nothing is promised"
    target = comes_to(world)
    assert world.sent(client) == OPENED
    assert world.receives(client, b"\x16\x03\x01") == [Send(target, b"\x16\x03\x01")]
    assert world.receives(target, b"\x16\x03\x03!") == [Send(client, b"\x16\x03\x03!")]
    assert world.receives(client, SECRET) == [Send(target, SECRET)], "nothing is HTTP any more"
    assert world.receives(target, b"HTTP/1.1 200 OK\r\n\r\n") == [Send(client, b"HTTP/1.1 200 OK\r\n\r\n")]
    assert not world.access, "it is not over"
    assert isinstance(world.machine, Proxy)
    assert (world.machine.counters.connects, world.machine.counters.reuses) == (1, 0)
    assert world.receives(client, b"") == [Send(target, b"", eof=True)]
    assert world.receives(target, b"late") == [Send(client, b"late")]
    world.receives(target, b"")
    assert client in world.eofs
    (record,) = world.access
    assert (record.status, record.reason, record.method) == (200, "", "CONNECT")
    assert (record.target, record.authority, record.peer) == ("api.internal:443",) * 3
    assert (record.bytes_in, record.bytes_out) == (3 + len(SECRET), 4 + 19 + 4)
    assert [(attempt.peer, attempt.reason) for attempt in record.attempts] == [("api.internal:443", "")]
    assert world.closing == {client: False, target: False}, "neither is used again"
    world.leaves_nothing()


@pytest.mark.parametrize(
    ("asked_for", "address"),
    [
        (b"10.1.2.3:443", ("10.1.2.3", 443)),
        (b"[FD00::1]:8443", ("fd00::1", 8443)),
        (b"[::ffff:10.1.2.3]:443", ("10.1.2.3", 443)),
        (b"A.Example.com.:443", ("a.example.com", 443)),
    ],
)
def test_it_goes_where_it_was_found_to_be_allowed(asked_for: bytes, address: Address) -> None:
    world = make()
    client = world.client()
    world.receives(client, b"CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n" % asked_for)
    assert [connect.address for connect in world.connecting] == [address]


@pytest.mark.parametrize("early", [SECRET, b"\x16\x03\x01", b"x" * 50_000])
@pytest.mark.parametrize("with_head", [True, False])
def test_what_is_sent_early_goes_up_when_the_connection_stands(early: bytes, with_head: bool) -> None:
    world = make()
    client = world.client()
    world.receives(client, ASK + early if with_head else ASK)
    if not with_head:
        world.receives(client, early)
    (connect,) = world.connecting
    assert not world.sent(connect.conn)
    target = comes_to(world)
    assert world.sent(target) == early
    assert world.sent(client) == OPENED


def test_who_sends_much_too_early_is_held() -> None:
    world = make()
    client = world.client()
    world.receives(client, ASK)
    assert world.receives(client, b"x" * 70_000) == [Hold(client)]
    target = comes_to(world)
    assert world.sent(target) == b"x" * 70_000
    assert world.reading[client]


def test_a_target_that_speaks_first() -> None:
    world = make(on("connected_to_upstream", lambda exchange, reused: None))
    client = world.client()
    world.receives(client, ASK)
    target = comes_to(world)
    assert world.sent(client) == OPENED
    assert world.receives(target, b"220 mail\r\n") == [Send(client, b"220 mail\r\n")]


def test_an_early_end_is_passed_on() -> None:
    world = make()
    client = world.client()
    world.receives(client, ASK + b"all of it")
    world.receives(client, b"")
    target = comes_to(world)
    assert world.sent(client) == OPENED
    assert (world.sent(target), world.eofs) == (b"all of it", [target])
    world.receives(target, b"answer")
    world.receives(target, b"")
    assert world.sent(client) == b"answer"
    assert world.access[0].reason == ""
    world.leaves_nothing()


def test_an_early_end_may_count_as_leaving() -> None:
    world = make(config=Config(cancel_on_half_close=True))
    client = world.client()
    world.receives(client, ASK)
    world.receives(client, b"")
    assert world.access[0].reason == "client_gone"
    world.leaves_nothing()
    client, target = tunnelled(world := make(config=Config(cancel_on_half_close=True)))
    world.receives(client, b"")
    assert (world.access, world.eofs) == ([], [target]), "in a tunnel it is only one direction"


def test_who_leaves_while_we_connect() -> None:
    world = make()
    client = world.client()
    world.receives(client, ASK)
    conn = world.connecting[0].conn
    world.resets(client)
    assert world.closing[conn] is True
    (record,) = world.access
    assert (record.status, record.reason) == (0, "client_gone")
    world.leaves_nothing()


@pytest.mark.parametrize("who", ["client", "target"])
def test_a_reset_of_one_side_resets_the_other(who: str) -> None:
    client, target = tunnelled(world := make())
    world.resets(client if who == "client" else target)
    other = target if who == "client" else client
    assert world.closing[other] is True
    (record,) = world.access
    assert (record.status, record.reason) == (200, "client_gone" if who == "client" else "upstream_reset")
    world.leaves_nothing()


def test_a_client_that_leaves_without_a_farewell_is_gone_though_the_target_has_ended() -> None:
    """Of a tunnel nobody knows who ends it last, as of a WebSocket."""
    client, target = tunnelled(world := make())
    world.receives(target, b"")
    world.resets(client, "truncated")
    assert world.closing[target] is True
    assert world.access[0].reason == "client_gone"
    world.leaves_nothing()


def test_a_tunnel_in_which_nothing_moves_ends() -> None:
    client, target = tunnelled(world := make(config=Config(timeouts=Timeouts(upgraded_idle_timeout_s=20.0))))
    for _ in range(3):
        world.wait(15)
        world.receives(client, b".")
    world.wait(19)
    assert not world.access
    world.wait(2)
    assert world.access[0].reason == "idle_timeout"
    assert world.closing == {client: True, target: True}
    world.leaves_nothing()


def test_the_time_for_all_attempts_is_not_the_tunnels() -> None:
    world = make(config=Config(retry=Retry(total_timeout_s=10.0)))
    client, target = tunnelled(world)
    world.wait(60)
    assert world.receives(client, b"hi") == [Send(target, b"hi")]
    world = make(config=Config(retry=Retry(total_timeout_s=1.0)))
    client = world.client()
    world.receives(client, ASK)
    world.wait(1.1)
    assert world.access[0].reason == "upstream_timeout"


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "where",
    [b"other.test:443", b"api.internal:22", b"127.0.0.1:443", b"[::1]:443", b"example.com:443", b"localhost:443"],
)
def test_where_nobody_may_go(where: bytes) -> None:
    world = make(on("upstream_peer", lambda exchange: pytest.fail("nobody is asked for another way")))
    status, reason, detail = refused(world, b"CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n" % where)
    assert (status, reason) == (403, "forward_denied")
    assert detail == f"{where.decode()} is not among the hosts and ports of `forward`"
    assert not world.access[0].attempts


def test_the_answer_says_why_and_no_address() -> None:
    world = make()
    client = world.client()
    world.receives(client, b"CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: x\r\n\r\n" + SECRET)
    answer = world.sent(client)
    assert b'\r\nProxy-Status: coulee; error=http_request_denied; details="forward_denied"\r\n' in answer
    assert b"127.0.0.1" not in answer
    assert answer.count(b"HTTP/1.1 ") == 1, "what it sent early is no request"
    assert client in world.eofs
    world.receives(client, SECRET)
    assert not world.sent(client)
    assert len(world.access) == 1


@pytest.mark.parametrize("at", ["127.0.0.1", "169.254.169.254", "::1", "nowhere"])
def test_a_name_that_turns_out_to_be_private(at: str) -> None:
    world = make(forward=Forward(hosts=("*",)))
    client = world.client()
    world.receives(client, ASK + b"early")
    target = comes_to(world, (at, 443))
    assert not world.sent(target)
    assert world.closing[target] is True
    assert world.sent(client).startswith(b"HTTP/1.1 403 ")
    (record,) = world.access
    where = f"[{at}]" if ":" in at else at
    assert record.detail == (
        f"api.internal:443 is at {where}:443, which is not public, nor among the hosts of `forward`"
    )
    assert [attempt.reason for attempt in record.attempts] == ["forward_denied"]
    world.leaves_nothing()


def test_a_name_that_turns_out_to_be_public() -> None:
    world = make(forward=Forward(hosts=("*",)))
    client = world.client()
    world.receives(client, ASK)
    comes_to(world, PUBLIC)
    assert world.sent(client) == OPENED


@pytest.mark.parametrize(
    ("kind", "status", "reason", "error"),
    [
        ("refused", 502, "upstream_refused", b"connection_refused"),
        ("unreachable", 502, "upstream_unreachable", b"destination_ip_unroutable"),
        ("timed_out", 504, "upstream_connect_timeout", b"connection_timeout"),
    ],
)
def test_a_target_that_cannot_be_reached(kind: Any, status: int, reason: str, error: bytes) -> None:
    world = make()
    client = world.client()
    world.receives(client, ASK + SECRET)
    world.refuses(kind)
    assert not world.connecting, "there is no other"
    answer = world.sent(client)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nProxy-Status: coulee; error=" + error in answer
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    (record,) = world.access
    assert (record.status, record.reason, record.peer) == (status, reason, "api.internal:443")
    world.leaves_nothing()


def test_a_target_that_takes_too_long() -> None:
    world = make()
    client = world.client()
    world.receives(client, ASK)
    world.wait(3.1)
    assert world.sent(client).startswith(b"HTTP/1.1 504 ")
    assert world.access[0].reason == "upstream_connect_timeout"
    world.leaves_nothing()


# --------------------------------------------------------------------------------------------------------- filters


def test_a_filter_may_ask_who_it_is() -> None:
    def authenticate(exchange: Exchange) -> Response | None:
        if exchange.request.headers.get("proxy-authorization") == "Basic YTpi":
            return None
        return respond(407, headers={"Proxy-Authenticate": 'Basic realm="way out"'})

    world = make(on("request_filter", authenticate))
    status, _, _ = refused(world)
    assert status == 407
    world = make(on("request_filter", authenticate))
    tunnelled(world, ASK.removesuffix(b"\r\n") + b"Proxy-Authorization: Basic YTpi\r\n\r\n")


@pytest.mark.parametrize("phase", ["request_filter", "response_filter"])
@pytest.mark.parametrize("status", [200, 204, 299])
def test_no_filter_opens_a_tunnel(phase: str, status: int) -> None:
    world = make(on(phase, lambda exchange, *rest: respond(status, "welcome" if status != 204 else "")))
    client = world.client()
    world.receives(client, ASK)
    if world.connecting:
        comes_to(world)
    answer = world.sent(client)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"welcome" not in answer
    assert world.access[0].reason == "filter_error"
    world.leaves_nothing()


def test_a_filter_may_refuse_when_the_connection_stands() -> None:
    seen: list[object] = []

    def refuse(exchange: Exchange, response: Response) -> Response:
        assert exchange.upstream is not None
        seen.append((exchange.upstream.connection.peer, response.status, response.length, response.ended))
        return respond(403, "not there")

    world = make(on("response_filter", refuse))
    client = world.client()
    world.receives(client, ASK + b"early")
    target = comes_to(world)
    answer = world.sent(client)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.endswith(b"\r\nConnection: close\r\n\r\nnot there")
    assert not world.sent(target)
    assert world.closing[target] is True
    assert seen == [(PRIVATE, 200, None, False)]
    world.leaves_nothing()


def test_a_filter_may_add_to_what_the_client_is_told() -> None:
    def add(exchange: Exchange, response: Response) -> None:
        response.headers.add("X-Way", "out")
        response.headers.add("Content-Length", "7")
        response.headers.add("Transfer-Encoding", "chunked")
        response.headers.add("Connection", "close")
        response.status = 201
        response.reason = "Here you go"

    world = make(on("response_filter", add))
    client = world.client()
    world.receives(client, ASK)
    target = comes_to(world)
    opened = OPENED.replace(b"200 OK", b"201 Here you go").replace(b"\r\n\r\n", b"\r\nX-Way: out\r\n\r\n")
    assert world.sent(client) == opened, "and framing is none of it (RFC 9110 section 9.3.6)"
    assert world.receives(target, b"x") == [Send(client, b"x")]
    world.receives(client, b"")
    world.receives(target, b"")
    assert world.access[0].status == 201
    world.leaves_nothing()


@pytest.mark.parametrize(("name", "value"), [("status", 403), ("status", 300), ("status", 101), ("ended", True)])
def test_a_filter_that_breaks_it(name: str, value: object) -> None:
    world = make(on("response_filter", lambda exchange, response: setattr(response, name, value)))
    client = world.client()
    world.receives(client, ASK)
    target = comes_to(world)
    assert world.sent(client).startswith(b"HTTP/1.1 500 ")
    assert world.access[0].reason == "filter_error"
    assert world.closing[target] is True
    world.leaves_nothing()


def test_filters_hear_of_its_connection_and_not_of_a_request() -> None:
    heard: list[str] = []
    phases = ("early_request_filter", "request_filter", "upstream_peer", "connected_to_upstream",
              "upstream_request_filter", "request_body_filter", "upstream_response_filter", "response_filter",
              "response_body_filter", "fail_to_connect", "error_while_proxy", "fail_to_proxy", "logging")  # fmt: skip

    def hear(phase: str) -> Filter:
        return on(phase, lambda exchange, *rest: heard.append(phase))

    client, target = tunnelled(world := make(*map(hear, phases)))
    world.receives(client, b"hi")
    world.receives(target, b"hi")
    world.receives(client, b"")
    world.receives(target, b"")
    assert heard == ["early_request_filter", "request_filter", "upstream_peer", "connected_to_upstream",
                     "response_filter", "logging"]  # fmt: skip


def test_what_fails_when_the_connection_stands_is_no_failure_to_connect() -> None:
    heard: list[str] = []

    def fail(exchange: Exchange, reused: bool) -> None:
        raise ExchangeError("upstream_reset", "not this one")

    world = make(
        on("connected_to_upstream", fail),
        on("fail_to_connect", lambda exchange, error: heard.append("fail_to_connect")),
        on("error_while_proxy", lambda exchange, error: heard.append(str(error))),
    )
    client = world.client()
    world.receives(client, ASK)
    target = comes_to(world)
    assert heard == ["upstream_reset: not this one"]
    assert world.sent(client).startswith(b"HTTP/1.1 502 ")
    assert world.closing[target] is True
    assert not world.connecting, "a CONNECT is not idempotent"
    world.leaves_nothing()


def test_a_filter_that_changes_the_target() -> None:
    world = make(on("request_filter", lambda exchange: setattr(exchange.request, "target", "a.example.com:8443")))
    client = world.client()
    world.receives(client, ASK)
    assert world.connecting[0].address == ("a.example.com", 8443)
    world = make(on("request_filter", lambda exchange: setattr(exchange.request, "target", "evil.test:443")))
    assert refused(world)[:2] == (403, "forward_denied")
    world = make(on("request_filter", lambda exchange: setattr(exchange.request, "target", "/index")))
    status, reason, detail = refused(world)
    assert (status, reason) == (500, "filter_error")
    assert detail.startswith("a filter changed the target to '/index': the target of a CONNECT is not")
    world = make(on("upstream_peer", lambda exchange: setattr(exchange.request, "target", "evil.test:443")))
    assert refused(world)[:2] == (403, "forward_denied"), "at whatever time"


def test_a_filter_may_send_it_elsewhere() -> None:
    elsewhere = Peer(("127.0.0.1", 3128), "next")
    world = make(on("upstream_peer", lambda exchange: elsewhere))
    client = world.client()
    world.receives(client, ASK + b"early")
    assert world.connecting[0].address == ("127.0.0.1", 3128)
    target = comes_to(world, ("127.0.0.1", 3128))
    assert world.sent(target) == b"early"
    assert world.sent(client) == OPENED
    world.resets(target)
    assert world.access[0].peer == "next"


def test_an_attempt_elsewhere_may_follow_one() -> None:
    ledger = Ledger()

    def choose(exchange: Exchange) -> Peer:
        chosen = ledger.choose(exchange)
        assert chosen is not None
        return chosen

    world = make(on("upstream_peer", choose))
    client = world.client()
    world.receives(client, ASK)
    first = world.connecting[0].address
    world.refuses()
    assert world.connecting[0].address != first
    comes_to(world)
    assert world.sent(client) == OPENED
    assert not world.access
    world.resets(client)
    assert [attempt.reason for attempt in world.access[0].attempts] == ["upstream_refused", "client_gone"]


# --------------------------------------------------------------------------------- what is shared with requests


def test_a_tunnel_has_a_connection_of_its_own() -> None:
    ledger = Ledger("a")
    world = make(on("upstream_peer", lambda exchange: ledger.offers[0]))
    client = world.client()
    world.receives(client, SECRET)
    origin = world.connects()
    world.receives(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    world.sent(origin)
    assert b" 200 " in world.sent(client)
    world.receives(client, ASK)
    assert len(world.connecting) == 1, "the idle one has carried a request"
    target = comes_to(world)
    assert world.sent(client) == OPENED
    world.receives(client, b"")
    world.receives(target, b"")
    other = world.client()
    world.receives(other, SECRET)
    assert not world.connecting, "... and carries others"
    assert world.sent(origin).startswith(b"GET /secret ")


def test_who_waits_for_a_tunnel_is_given_no_used_connection() -> None:
    ledger = Ledger("a", PeerLimits(connections_max=1))
    world = make(on("upstream_peer", lambda exchange: ledger.offers[0]))
    client = world.client()
    world.receives(client, SECRET)
    world.connects()
    other = world.client()
    world.receives(other, ASK)
    comes_to(world)
    assert world.sent(other) == OPENED
    third = world.client()
    world.receives(third, ASK)
    assert not world.connecting, "for tunnels the cap counts by itself"
    world.wait(5.1)
    assert world.sent(third).startswith(b"HTTP/1.1 503 ")


def test_a_balancer_hears_of_the_peer_that_was_chosen() -> None:
    class Listening(Ledger):
        def fresh(self) -> Ledger:
            return self

    ledger = Listening("a")
    world = make(on("upstream_peer", lambda exchange: ledger.offers[0]), balancer=ledger)
    client, target = tunnelled(world)
    world.receives(client, b"")
    world.receives(target, b"")
    assert ledger.heard == ["begin a", "end a well 0 0"]


def test_a_certificate_is_not_for_the_target() -> None:
    """On a listener with TLS the certificate is the proxy's, and the authority of a CONNECT another's."""
    world = make()
    client = world.client()
    downstream = world.machine.connections[client]
    assert downstream.security is None
    downstream.security = TLS
    world.receives(client, ASK)
    comes_to(world)
    assert world.sent(client) == OPENED


@given(st.lists(st.integers(0, 400), max_size=8), st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_how_it_is_cut_does_not_matter(cuts: list[int], early: bytes) -> None:
    whole = ASK + early
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    world = make()
    client = world.client()
    for start, end in pairwise(places):
        world.receives(client, whole[start:end])
    target = comes_to(world)
    assert world.sent(client) == OPENED
    assert world.sent(target) == early
    world.receives(client, b"")
    world.receives(target, b"")
    assert world.access[0].bytes_in == len(early)


def test_a_tunnel_to_a_peer_of_http2_goes_by_no_http_at_all() -> None:
    """What the peer speaks is for its connections that carry requests."""
    peer = Peer(("10.0.0.1", 80), "a", transport=Transport(prior_knowledge=True))

    def choose(exchange: Exchange) -> Peer:
        return peer

    world = make(on("upstream_peer", choose))
    client, target = tunnelled(world)
    world.receives(client, SECRET)
    assert world.sent(target) == SECRET
