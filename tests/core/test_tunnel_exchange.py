"""A tunnelled connection as packet traces: how it begins, what is known of its client, how it ends, and its record."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core import ExchangeError, Limits, Peer, Routed, Timeouts
from coulee.core.client_hello import alert_record
from coulee.core.effects import shielded, sleep
from coulee.core.entrance import Count, Guest
from coulee.core.kernel import Cancelled
from coulee.core.listener import Listener, ProxyProtocol
from coulee.core.proxy_protocol import Header, to_bytes
from coulee.core.seam import Accepted, Address, Blocked, Closed, Drain, Receive, Send
from coulee.core.tunnel_exchange import TunnelAccess, TunnelExchange
from coulee.core.tunnel_filters import TunnelFilter
from coulee.core.tunnel_routes import BySni
from coulee.lb.tls_hello import client_hello
from tests.core.tunnelled import ONE, OVER_TLS, THREE, TWO, Look, Told, machine, make, reason, record, records, told
from tests.core.world import CLIENT, LISTENER, TLS

HELLO = client_hello(Random(1), "a.example")


# ------------------------------------------------------------------------------------------------------- records


def test_a_tunnel_that_ends_in_order_is_told_once_with_all_that_is_known() -> None:
    world = make()
    world.now = 5.0
    client = world.client()
    world.now = 5.5
    origin = world.connects()
    world.receives(client, b"question")
    world.receives(origin, b"answer!")
    world.now = 7.0
    world.receives(client, b"")
    assert not records(world)
    world.receives(origin, b"")
    kept = record(world)
    assert kept == TunnelAccess(
        CLIENT, "", (), "10.1.1.1:443", "", "", 1e9 + 5.0, 2.0, 0.5, 8, 7, kept.attempts, {}, None
    )
    assert [(each.peer, each.reason) for each in kept.attempts] == [("10.1.1.1:443", "")]
    counters = machine(world).counters
    assert (counters.connections, counters.requests, counters.attempts, counters.connects) == (1, 1, 1, 1)
    assert (counters.bytes_in, counters.bytes_out, counters.reasons) == (8, 7, {})
    world.leaves_nothing()
    assert len(records(world)) == 1


@pytest.mark.parametrize(
    ("end", "word"), [("client", "client_gone"), ("origin", "upstream_reset"), ("closed", "upstream_reset")]
)
def test_a_tunnel_that_is_cut_says_by_whom(end: str, word: str) -> None:
    world = make()
    client, origin = world.client(), world.connects()
    world.receives(client, b"question")
    if end == "closed":
        world.closed.append(origin)
        world.gives(Closed(origin))
    else:
        world.resets(client if end == "client" else origin, detail="gone away")
    kept = record(world)
    assert (kept.reason, kept.bytes_in, kept.attempts[0].reason) == (word, 8, word)
    assert kept.detail == ("the connection was closed" if end == "closed" else "gone away")
    assert machine(world).counters.reasons == {word: 1}
    world.leaves_nothing()


@pytest.mark.parametrize(("stalled", "word"), [("client", "send_timeout"), ("origin", "upstream_timeout")])
def test_a_tunnel_whose_end_takes_nothing_says_which(stalled: str, word: str) -> None:
    world = make()
    client, origin = world.client(), world.connects()
    world.receives(origin, b"answer")
    world.receives(client, b"question")
    world.gives(Blocked(client if stalled == "client" else origin))
    world.wait(30.0)
    assert (reason(world), record(world).detail) == (word, "nothing taken for 30 s")
    assert world.closing == {client: True, origin: True}
    world.leaves_nothing()


def test_a_tunnel_in_which_nothing_comes_is_given_up() -> None:
    world = make(timeouts=Timeouts(upgraded_idle_timeout_s=60.0))
    client, origin = world.client(), world.connects()
    for end, other in ((client, origin), (origin, client)):
        world.wait(59.0)
        assert world.receives(end, b"x") == [Send(other, b"x")]
    world.wait(59.9)
    assert world.closing == {}
    world.wait(0.1)
    assert world.closing == {client: True, origin: True}
    assert (reason(world), record(world).detail) == ("idle_timeout", "no byte in either direction for 60 s")
    world.leaves_nothing()


def test_a_drain_says_so_to_what_it_cuts_and_to_who_comes_too_late() -> None:
    world = make()
    client, origin = world.client(), world.connects()
    late = world.credits.pop(0)
    world.gives(Drain(10.0))
    world.gives(Accepted(late.conn, CLIENT, LISTENER))
    assert (reason(world), world.closing[late.conn]) == ("shutting_down", True)
    world.wait(10.0)
    assert [each.reason for each in records(world)] == ["shutting_down"] * 2
    assert world.closing[client] and world.closing[origin]
    assert world.machine.finished


def test_a_drain_cuts_what_has_only_its_last_bytes_left() -> None:
    world = make()
    client, origin = world.client(), world.connects()
    world.receives(client, b"")
    world.receives(origin, b"answer")
    world.gives(Blocked(client))
    world.receives(origin, b"")
    assert reason(world) == ""
    world.gives(Drain(1.0))
    assert client not in world.closing
    world.wait(1.0)
    assert world.closing[client] is True
    assert world.machine.finished


# --------------------------------------------------------------------------------------------------- ClientHello


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_the_name_is_read_and_what_was_read_goes_on_as_it_came(step: int) -> None:
    world = make(Told(), sni=True)
    client = world.client()
    assert world.reading[client]
    for at in range(0, len(HELLO), step):
        assert not world.connecting
        world.receives(client, HELLO[at : at + step])
    origin = world.connects()
    assert world.sent(origin) == HELLO
    world.receives(client, b"\x14\3\3\0\1\1")
    assert world.sent(origin) == b"\x14\3\3\0\1\1"
    assert told(world).heard[0] == ("choose", "a.example", CLIENT, ())
    world.resets(client)
    assert (record(world).server_name, record(world).bytes_in) == ("a.example", len(HELLO) + 6)
    world.leaves_nothing()


@given(st.lists(st.integers(0, len(HELLO) + 40), max_size=6), st.integers(0, 7))
def test_however_it_is_cut_and_whenever_the_peer_stands_it_arrives_as_it_was(cuts: list[int], connect_at: int) -> None:
    world = make(BySni({"a.example": ONE}, default=TWO))
    client = world.client()
    data = HELLO + bytes(range(40))
    origin = 0
    edges = [0, *sorted(cuts), len(data)]
    for turn, (a, b) in enumerate(pairwise(edges)):
        if data[a:b]:
            world.receives(client, data[a:b])
        if not origin and turn >= connect_at and world.connecting:
            origin = world.connects()
    world.receives(client, b"")
    if not origin:
        assert world.connecting[0].address == ONE
        origin = world.connects()
    assert (world.sent(origin), world.eofs) == (data, [origin])


def test_what_comes_with_the_hello_and_its_end_go_on_behind_it() -> None:
    world = make(sni=True)
    client = world.client()
    world.receives(client, HELLO[:50])
    world.receives(client, HELLO[50:] + b"more")
    world.receives(client, b"")
    origin = world.connects()
    assert world.sent(origin) == HELLO + b"more"
    assert world.eofs == [origin]


@pytest.mark.parametrize("data", [b"SSH-2.0-x\r\n", b"\x16\x02", b"\x80", b"G"])
def test_what_is_not_tls_goes_on_without_a_name(data: bytes) -> None:
    world = make(ONE, Look(), sni=True)
    client = world.client()
    world.receives(client, data)
    origin = world.connects()
    assert world.sent(origin) == data
    world.resets(client)
    assert record(world).tags == {"known": (False, "", (), CLIENT), "now": (0.0, True)}


def test_what_is_not_tls_may_be_all_that_is_said() -> None:
    world = make(sni=True)
    client = world.client()
    world.receives(client, b"\x16")
    world.receives(client, b"G")
    world.receives(client, b"")
    origin = world.connects()
    assert (world.sent(origin), world.eofs) == (b"\x16G", [origin])
    world.receives(origin, b"")
    assert reason(world) == ""


def with_alpn(hello: bytes, *protocols: bytes) -> bytes:
    """The same hello, which offers protocols too."""
    names = b"".join(bytes([len(name)]) + name for name in protocols)
    more = b"\0\x10" + (len(names) + 2).to_bytes(2, "big") + len(names).to_bytes(2, "big") + names
    extensions_at = 9 + 34 + 1 + hello[43]
    extensions_at += 2 + int.from_bytes(hello[extensions_at : extensions_at + 2], "big")
    extensions_at += 1 + hello[extensions_at]
    body = hello[9:extensions_at]
    rest = hello[extensions_at + 2 :] + more
    body += len(rest).to_bytes(2, "big") + rest
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return hello[:3] + len(message).to_bytes(2, "big") + message


def test_what_is_known_of_tls_is_there_for_filters() -> None:
    world = make(ONE, Look(), sni=True)
    client = world.client()
    world.receives(client, with_alpn(HELLO, b"h2", b"http/1.1"))
    world.resets(client)
    assert record(world).tags["known"] == (True, "a.example", ("h2", "http/1.1"), CLIENT)
    assert (record(world).alpn, record(world).security) == (("h2", "http/1.1"), None)


def test_without_sni_nothing_is_waited_for() -> None:
    world = make(ONE, Look())
    client = world.client()
    [connect] = world.connecting
    world.receives(client, HELLO)
    world.connects()
    assert world.sent(connect.conn) == HELLO
    world.resets(client)
    assert record(world).tags["known"] == (False, "", (), CLIENT)


def test_a_hello_that_can_be_read_in_two_ways_goes_nowhere_and_is_told_so() -> None:
    world = make(sni=True)
    client = world.client()
    broken = HELLO.replace(b"a.example", b"a*example")
    world.receives(client, broken)
    assert not world.connecting
    assert world.sent(client) == alert_record(47)
    assert world.closing == {client: False}
    assert (reason(world), "'a*example'" in record(world).detail) == ("tls_failed", True)
    world.leaves_nothing()


def test_a_client_that_says_nothing_is_given_up() -> None:
    world = make(sni=True, timeouts=Timeouts(tls_handshake_timeout_s=2.0))
    client = world.client()
    world.wait(1.0)
    world.receives(client, HELLO[:10])
    world.wait(0.9)
    assert world.closing == {}
    world.wait(0.1)
    assert world.closing == {client: True}
    assert (reason(world), record(world).detail) == ("tls_timeout", "no ClientHello within 2 s")
    assert world.sent(client) == b""
    world.leaves_nothing()


@pytest.mark.parametrize("how", ["end", "end at once", "reset", "closed"])
def test_a_client_that_leaves_before_it_has_said_what_it_wants(how: str) -> None:
    world = make(sni=True)
    client = world.client()
    if how != "end at once":
        world.receives(client, HELLO[:40])
    if how == "reset":
        world.resets(client)
    elif how == "closed":
        world.closed.append(client)
        world.gives(Closed(client))
    else:
        world.receives(client, b"")
    assert reason(world) == "client_gone"
    assert not world.connecting
    world.leaves_nothing()


def test_a_name_without_a_route_goes_nowhere_and_is_told_so() -> None:
    world = make(BySni({"b.example": ONE}))
    client = world.client()
    world.receives(client, HELLO)
    assert world.sent(client) == alert_record(112)
    assert world.closing == {client: False}
    assert (reason(world), record(world).detail) == ("misdirected", "there is no route to a.example")
    assert record(world).server_name == "a.example"


def test_no_name_and_no_default_goes_nowhere() -> None:
    world = make(BySni({"b.example": ONE}))
    client = world.client()
    world.receives(client, b"SSH-2.0")
    assert world.closing == {client: True}, "no alert for what is no TLS"
    assert world.sent(client) == b""
    assert record(world).detail == "there is no route to no name"


def test_each_name_goes_its_way() -> None:
    world = make(BySni({"a.example": ONE, "*.b.example": Told(Peer(TWO))}, default=THREE))
    for name, where in (("a.example", ONE), ("x.b.example", TWO), ("c.example", THREE), ("", THREE)):
        client = world.client()
        world.receives(client, client_hello(Random(1), name))
        assert world.connecting[0].address == where
        world.connects()
    assert machine(world).sni


# ---------------------------------------------------------------------------------------------------- entrances


PROXIED = Listener(LISTENER, None, ProxyProtocol(("10.0.0.0/8",)))


def test_tls_may_end_here() -> None:
    world = make(BySni({"a.example": ONE}), Look(), listener=OVER_TLS)
    client = world.client()
    world.receives(client, HELLO)
    world.secures(replace(TLS, alpn="http/1.1"))
    origin = world.connects()
    world.receives(client, b"inside")
    assert world.sent(origin) == b"inside"
    world.resets(client)
    kept = record(world)
    assert kept.tags["known"] == (True, "a.example", ("http/1.1",), CLIENT)
    assert (kept.server_name, kept.alpn, kept.security) == ("a.example", ("http/1.1",), replace(TLS, alpn="http/1.1"))
    world.leaves_nothing()


def test_no_alert_in_plaintext_where_tls_ends_here() -> None:
    world = make(BySni({"b.example": ONE}), listener=OVER_TLS)
    client = world.client()
    world.receives(client, HELLO)
    world.secures()
    assert (reason(world), world.sent(client), world.closing) == ("misdirected", b"", {client: True})


def test_whoever_has_agreed_on_no_protocol_has_none() -> None:
    world = make(ONE, listener=OVER_TLS)
    client = world.client()
    world.receives(client, HELLO)
    world.secures(replace(TLS, alpn=""))
    world.resets(client)
    assert record(world).alpn == ()


def test_plain_http_at_a_door_of_tls_is_closed() -> None:
    world = make(ONE, listener=OVER_TLS)
    client = world.client()
    world.receives(client, b"GET / HTTP/1.1\r\n")
    assert (reason(world), world.closing) == ("plain_http", {client: True})
    assert not world.connecting
    world.leaves_nothing()


def test_who_comes_by_the_proxy_protocol_is_who_is_named_and_what_it_has_said_goes_on() -> None:
    world = make(ONE, Look(), listener=PROXIED)
    client = world.client(("10.0.0.7", 1))
    real: Address = ("198.51.100.1", 5555)
    world.receives(client, to_bytes(Header(real, LISTENER)) + b"early")
    origin = world.connects()
    assert world.sent(origin) == b"early"
    assert world.operations.count(Receive(client)) == 1, "the door has given it"
    world.resets(client)
    assert record(world).client == real
    assert record(world).tags["known"] == (False, "", (), real)


def test_a_drain_that_meets_a_client_at_the_door_leaves_one_record_of_it() -> None:
    world = make(ONE, listener=OVER_TLS)
    client = world.client()
    world.gives(Drain(10.0))
    world.receives(client, HELLO)
    world.secures()
    assert (reason(world), world.closing[client]) == ("shutting_down", True)
    assert world.machine.finished


def test_a_drain_cuts_who_is_still_at_the_door_without_a_record() -> None:
    world = make(ONE, listener=OVER_TLS)
    client = world.client()
    world.gives(Drain(1.0))
    world.wait(1.0)
    assert world.closing[client] is True
    assert not records(world)
    assert world.machine.finished


def test_one_client_too_many_is_closed_and_another_may_come_later() -> None:
    world = make(limits=Limits(connections_per_address_max=1))
    first, second = world.client(), world.client()
    assert world.closing == {second: True}
    assert reason(world) == "too_many_connections"
    world.resets(first)
    third = world.client()
    assert third not in world.closing
    assert machine(world).counters.connections_refused == 1
    world.resets(third)
    world.leaves_nothing()


def test_one_client_too_many_even_to_be_refused_is_closed_without_a_word() -> None:
    world = make(limits=Limits(connections_per_address_max=1, refused_connections_max=0))
    world.client()
    second = world.client()
    assert world.closing == {second: True}
    assert not records(world)
    assert machine(world).counters.connections_turned_away == 1


# -------------------------------------------------------------------------------------------------------- broken


class Stubborn(TunnelFilter):
    """Will not be ended."""

    async def connect(self, exchange: TunnelExchange) -> None:
        while True:
            with suppress(Cancelled):  # what nobody should write
                await sleep(10.0)


def test_a_filter_that_will_not_end_is_left_behind() -> None:
    world = make(ONE, Stubborn())
    client = world.client()
    world.resets(client)
    assert (reason(world), "abandoned" in record(world).detail) == ("internal_error", True)
    assert len(world.events("internal_error")) == 1
    assert not machine(world).exchanges
    world.leaves_nothing()


class Exiting(Told):
    """Would end the program."""

    def choose(self, exchange: Routed) -> Peer:
        raise SystemExit("no")


def test_what_nobody_expects_ends_one_tunnel_and_no_more() -> None:
    world = make(Exiting())
    client = world.client()
    assert world.closing == {client: True}
    assert (reason(world), record(world).detail) == ("internal_error", "SystemExit: no")
    assert [event.text for event in world.events("internal_error")] == ["no"]
    world.leaves_nothing()


class Shielded(TunnelFilter):
    """Finishes what it has begun."""

    async def connect(self, exchange: TunnelExchange) -> None:
        with shielded(5.0):
            await sleep(2.0)


def test_of_two_reasons_to_end_the_first_counts() -> None:
    world = make(ONE, Shielded())
    world.resets(world.client())
    world.gives(Drain(0.0))
    assert not records(world)
    world.wait(2.0)
    assert reason(world) == "client_gone"
    assert world.machine.finished


def test_a_tunnel_that_is_ended_before_it_has_begun_has_its_record() -> None:
    world = make()
    client = world.client()
    world.resets(client)
    tunnel = machine(world)
    count = Count(None)
    tunnel.admission.enter(None)
    tunnel.welcome(Guest(99, CLIENT, LISTENER), count)
    [exchange] = tunnel.exchanges
    exchange.cancel(ExchangeError("shutting_down", "too soon"))
    world.gives(None)
    assert [each.reason for each in records(world)] == ["client_gone", "shutting_down"]
    assert not world.events("internal_error")
    world.leaves_nothing()
