"""What clients go through before their first request: the PROXY protocol, and TLS as far as it is the core's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from random import Random
from typing import Any

import pytest

from coulee.core import Config, Exchange, Filter, Forwarding, Limits, Proxy, Response, respond
from coulee.core.client_hello import alert_record
from coulee.core.effects import sleep
from coulee.core.entrance import TOLD_MAX_PER_S
from coulee.core.listener import Listener, ProxyProtocol
from coulee.core.proxy_protocol import Header, TlsInfo, to_bytes
from coulee.core.seam import Address, Blocked, Closed, Drain, PeerCertificate, Receive, Received, Secure, Sent
from coulee.core.tls import Certificate, DownstreamTls, ListenerTls
from coulee.lb import Cluster
from coulee.lb.tls_hello import client_hello
from tests.core.world import CLIENT, LISTENER, TLS, World

GET = b"GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n"
PLAIN = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False))
BALANCER: Address = ("10.0.0.7", 40000)


class Source:
    """Certificates that never change."""

    name = "here"
    interval_s = inf
    stamp = None

    def __init__(self, *certificates: Certificate) -> None:
        self.certificates: Sequence[Certificate] = certificates

    def look(self, stamp: object) -> None:
        return None


def certificate(*names: str, kind: str = "ecdsa") -> Certificate:
    return Certificate(b"chain", b"key", names, kind, 0.0, 4e9, "ab", f"{names[0]}.pem")


A, B = certificate("a.test"), certificate("*.b.test")


class Tell(Filter):
    """Answers with what is known of the client."""

    def request_filter(self, exchange: Exchange) -> Response:
        security = exchange.security
        shown = security.certificate.subject if security is not None and security.certificate is not None else "-"
        text = f"{exchange.client} {exchange.request.scheme} {exchange.server_name} {shown}"
        return respond(200, text, headers={"Date": "now"})


def make(tls: ListenerTls | None = None, proxied: ProxyProtocol | None = None, **changes: Any) -> World:
    proxy = Proxy(Cluster("http://10.0.0.1"), [Tell()], replace(PLAIN, **changes))
    listener = Listener(LISTENER, tls, proxied)
    return World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[listener]))


def over_tls(*certificates: Certificate, **changes: Any) -> World:
    return make(ListenerTls(Source(*certificates or (A, B))), **changes)


HELLO = client_hello(Random(1), "a.test")


def secured(world: World, hello: bytes = HELLO) -> int:
    """A client comes in by TLS."""
    client = world.client()
    world.receives(client, hello)
    world.secures()
    return client


def answered(world: World, client: int, request: bytes = GET) -> bytes:
    world.receives(client, request)
    return world.sent(client)


def reasons(world: World) -> list[object]:
    return [event.fields["reason"] for event in world.events("turned_away")]


# ----------------------------------------------------------------------------------------------------------- TLS


def test_a_client_that_speaks_tls_is_served() -> None:
    world = over_tls()
    client = world.client()
    world.receives(client, HELLO)
    [secure] = world.securing
    assert isinstance(secure.tls, DownstreamTls)
    assert (secure.conn, secure.early, secure.tls.certificates) == (client, HELLO, (A,))
    assert not world.reading[client]
    world.secures()
    assert world.reading[client]
    assert answered(world, client).endswith(f"{CLIENT} https a.test -".encode())
    record = world.access[-1]
    assert (record.security, record.server_name, record.status) == (TLS, "a.test", 200)
    world.leaves_nothing()


@pytest.mark.parametrize(
    ("name", "chosen"), [("a.test", A), ("x.b.test", B), ("c.test", A), ("x.y.b.test", A), ("", A)]
)
def test_the_certificate_is_the_one_for_the_name_that_is_asked_for(name: str, chosen: Certificate) -> None:
    world = over_tls()
    world.receives(world.client(), client_hello(Random(1), name))
    [secure] = world.securing
    assert isinstance(secure.tls, DownstreamTls)
    assert secure.tls.certificates == (chosen,)


@pytest.mark.parametrize("step", [1, 3, 50])
def test_the_hello_may_come_in_pieces(step: int) -> None:
    world = over_tls()
    client = world.client()
    for at in range(0, len(HELLO), step):
        assert not world.securing
        world.receives(client, HELLO[at : at + step])
    assert world.secures().early == HELLO
    assert b" 200 " in answered(world, client)


def test_what_comes_behind_the_hello_is_handed_on_with_it() -> None:
    world = over_tls()
    world.receives(world.client(), HELLO + b"\x14\x03\x03\x00\x01\x01")
    assert world.secures().early == HELLO + b"\x14\x03\x03\x00\x01\x01"


@pytest.mark.parametrize("plain", [GET, b"G", b"\r\nGET / HTTP/1.1\r\n"])
def test_plain_http_at_a_port_of_tls_is_told_so(plain: bytes) -> None:
    world = over_tls()
    client = world.client()
    answer = answered(world, client, plain)
    if plain != GET:
        assert not answer, "it is told when it has asked"
        answer = answered(world, client, (GET if plain == b"\r\nGET / HTTP/1.1\r\n" else GET[1:])[-len(GET) :]
                          if plain == b"G" else b"Host: a\r\n\r\n")  # fmt: skip
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'details="plain_http"' in answer
    assert b"Connection: close\r\n" in answer
    assert world.access[-1].reason == "plain_http"
    assert not world.securing
    world.leaves_nothing()


@pytest.mark.parametrize("garbage", [b"\x80\x2e\x01", b"\x15\x03\x01\x00\x02\x02\x28", b"\0", b"\x16\x02\x00"])
def test_what_is_neither_is_closed(garbage: bytes) -> None:
    world = over_tls()
    client = world.client()
    world.receives(client, garbage)
    assert client in world.closed
    assert reasons(world) == ["tls_failed"]
    assert not world.access
    world.leaves_nothing()


def test_who_offers_no_protocol_that_we_speak_is_refused() -> None:
    world = make(ListenerTls(Source(A), alpn=("http/1.1",)))
    client = world.client()
    hello = with_alpn(b"\x02h2")
    world.receives(client, hello)
    assert world.sent(client) == alert_record(120)
    assert client in world.closed
    assert reasons(world) == ["tls_failed"]
    client = world.client()
    world.receives(client, with_alpn(b"\x02h2\x08http/1.1"))
    assert world.securing[0].conn == client


def with_alpn(protocols: bytes) -> bytes:
    """A hello with one more extension (RFC 7301)."""
    extension = b"\0\x10" + (len(protocols) + 2).to_bytes(2, "big") + len(protocols).to_bytes(2, "big") + protocols
    body = HELLO[9:]
    at = 2 + 32
    at += 1 + body[at]  # the session
    at += 2 + int.from_bytes(body[at : at + 2], "big")  # the cipher suites
    at += 1 + body[at]  # compression
    extensions = body[at + 2 :] + extension
    body = body[:at] + len(extensions).to_bytes(2, "big") + extensions
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return HELLO[:3] + len(message).to_bytes(2, "big") + message


@pytest.mark.parametrize("begun", [b"", HELLO[:1], HELLO[:100]])
def test_who_does_not_say_hello_in_time_is_closed(begun: bytes) -> None:
    world = over_tls()
    client = world.client()
    if begun:
        world.receives(client, begun)
    world.wait(4.9)
    assert client not in world.closed
    world.wait(0.2)
    assert client in world.closed
    assert reasons(world) == ["tls_timeout"]
    world.leaves_nothing()


def test_who_stalls_in_the_handshake_is_closed() -> None:
    world = over_tls()
    client = world.client()
    world.wait(3)
    world.receives(client, HELLO)
    world.wait(1.9)
    assert client not in world.closed
    world.wait(0.2)
    assert client in world.closed
    assert reasons(world) == ["tls_timeout"]
    world.leaves_nothing()


def test_a_handshake_that_fails_is_told_with_its_cause() -> None:
    world = over_tls()
    client = world.client()
    world.receives(client, HELLO)
    world.gives(Closed(client, "tls", "no shared cipher"))
    [event] = world.events("turned_away")
    assert event.fields == {"client": CLIENT, "reason": "tls_failed", "detail": "no shared cipher"}
    assert "10.0.0.9:50000" in event.text
    assert not world.access
    world.machine.listeners.clear()


@pytest.mark.parametrize("kind", ["fin", "reset", "in the handshake"])
def test_who_leaves_is_nobodys_business(kind: str) -> None:
    world = over_tls()
    client = world.client()
    if kind == "fin":
        world.receives(client, b"")
    elif kind == "reset":
        world.resets(client)
    else:
        world.receives(client, HELLO)
        world.resets(client)
    assert not world.events("turned_away")
    world.leaves_nothing()


def test_a_users_function_chooses_and_may_take_its_time() -> None:
    asked: list[str] = []
    mine = certificate("mine.test")

    async def choose(name: str) -> Certificate | None:
        asked.append(name)
        await sleep(2)
        return mine if name == "mine.test" else None

    world = make(ListenerTls(Source(A), choose=choose))
    client = world.client()
    world.receives(client, client_hello(Random(1), "mine.test"))
    assert not world.reading[client], "nothing is read while it is awaited"
    assert not world.securing
    world.wait(2.1)
    secure = world.secures()
    assert isinstance(secure.tls, DownstreamTls)
    assert (asked, secure.tls.certificates) == (["mine.test"], (mine,))
    assert b" 200 " in answered(world, client, GET.replace(b"a.test", b"mine.test"))


@pytest.mark.parametrize("leaves", ["reset", "time"])
def test_a_choice_that_takes_too_long_is_given_up(leaves: str) -> None:
    async def choose(name: str) -> Certificate | None:
        await sleep(100)
        return None

    world = make(ListenerTls(Source(A), choose=choose))
    client = world.client()
    world.receives(client, HELLO)
    if leaves == "reset":
        world.resets(client)
        assert not world.events("turned_away")
    else:
        world.wait(5.1)
        assert reasons(world) == ["tls_timeout"]
        assert client in world.closed
    assert not world.securing
    world.leaves_nothing()


def test_a_choice_that_raises_is_our_users_mistake() -> None:
    def choose(name: str) -> Certificate | None:
        raise KeyError(name)

    world = make(ListenerTls(Source(A), choose=choose))
    client = world.client()
    world.receives(client, HELLO)
    assert client in world.closed
    assert reasons(world) == ["internal_error"]
    assert "KeyError" in str(world.events("internal_error")[0].fields["traceback"])
    world.leaves_nothing()


# ------------------------------------------------------------------------------------------------------------ 421


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"a.test", 200),
        (b"A.Test:8443", 200),
        (b"a.test.", 200),
        (b"b.test", 421),
        (b"x.b.test", 421),
        (b"10.0.0.1", 421),
        (b"[::1]:8443", 421),
    ],
)
def test_a_request_for_another_host_is_misdirected(host: bytes, status: int) -> None:
    world = over_tls()
    client = secured(world)
    answer = answered(world, client, GET.replace(b"a.test", host))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert world.access[-1].reason == ("" if status == 200 else "misdirected")


def test_a_connection_may_go_on_to_other_names_of_its_certificate() -> None:
    world = over_tls(certificate("a.test", "*.a.test", "10.0.0.1", "::1"))
    client = secured(world)
    for host in (b"a.test", b"x.a.test", b"10.0.0.1:8443", b"[0:0::1]", b"a.test"):
        assert b" 200 " in answered(world, client, GET.replace(b"a.test", host))
    assert b" 421 " in answered(world, client, GET.replace(b"a.test", b"x.x.a.test"))


def test_the_check_can_be_switched_off() -> None:
    world = make(ListenerTls(Source(A), covered_only=False))
    client = secured(world)
    assert b" 200 " in answered(world, client, GET.replace(b"a.test", b"elsewhere.test"))


def test_a_request_without_a_host_goes_to_whom_it_was_sent() -> None:
    world = over_tls()
    client = secured(world)
    assert b" 200 " in answered(world, client, b"GET /a HTTP/1.0\r\n\r\n")


@pytest.mark.parametrize(("target", "status"), [(b"https://a.test/a", 200), (b"http://a.test/a", 421)])
@pytest.mark.parametrize("codec", ["own", "h11"])
def test_a_target_says_the_scheme_of_the_connection(target: bytes, status: int, codec: str) -> None:
    world = over_tls(http1_codec=codec)
    client = secured(world)
    assert answered(world, client, GET.replace(b"/a", target)).startswith(f"HTTP/1.1 {status} ".encode())


# ----------------------------------------------------------------------------------------------------------- caps


def test_an_address_has_so_many_handshakes_under_way() -> None:
    world = over_tls(limits=Limits(handshakes_per_address_max=2))
    first, second = world.client(), world.client()
    world.receives(first, HELLO)
    third = world.client()
    assert third in world.closed
    assert reasons(world) == ["too_many_handshakes"]
    assert world.client(("10.0.0.10", 1)) not in world.closed
    world.secures()
    assert world.client() not in world.closed, "one is done"
    world.resets(second)
    assert world.client() not in world.closed, "one is gone"
    assert world.client() in world.closed


def test_who_is_beyond_the_cap_of_connections_is_told_so_by_tls() -> None:
    world = over_tls(limits=Limits(connections_per_address_max=1))
    secured(world)
    second = secured(world)
    answer = answered(world, second)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'details="too_many_connections"' in answer
    world.leaves_nothing()
    assert isinstance(world.machine, Proxy)
    admission = world.machine.admission
    assert (admission.admitted, admission.refused, admission.from_address) == (0, 0, {})
    assert not world.machine.reception.handshakes


def test_a_flood_does_not_fill_the_log() -> None:
    world = over_tls(limits=Limits(handshakes_per_address_max=1000, connections_per_address_max=1000))
    for _ in range(100):
        world.receives(world.client(), b"\0")
    assert len(world.events("turned_away")) == TOLD_MAX_PER_S
    world.wait(1.1)
    world.receives(world.client(), b"\0")
    last = world.events("turned_away")[-1]
    assert last.fields["kept_back"] == 100 - TOLD_MAX_PER_S
    assert last.text.endswith("(and 90 more before)")
    assert isinstance(world.machine, Proxy)
    assert world.machine.counters.entrances_failed == 101


# ----------------------------------------------------------------------------------------------------------- ending


def test_a_drain_lets_who_is_on_the_way_in_come_in() -> None:
    world = over_tls()
    client = world.client()
    world.receives(client, HELLO)
    world.gives(Drain(10.0))
    world.secures()
    answer = answered(world, client)
    assert b" 200 " in answer
    assert b"Connection: close\r\n" in answer
    world.receives(client, b"")
    world.wait(1)
    assert world.machine.finished


def test_the_end_of_a_drain_ends_handshakes() -> None:
    world = over_tls()
    client = world.client()
    world.receives(client, HELLO)
    world.gives(Drain(1.0))
    world.wait(1.1)
    assert client in world.closed
    world.wait(10)
    assert world.machine.finished


# -------------------------------------------------------------------------------------------------- PROXY protocol


TRUSTED = ProxyProtocol(("10.0.0.7/32", "unix"))
HEADER = to_bytes(Header(("192.0.2.1", 1234), ("192.0.2.9", 443), 2))


def test_the_client_is_who_the_header_says() -> None:
    world = make(proxied=TRUSTED)
    client = world.client(BALANCER)
    world.receives(client, HEADER + GET)
    assert world.sent(client).endswith(b"('192.0.2.1', 1234) http  -")
    assert world.access[-1].client == ("192.0.2.1", 1234)
    assert b" 200 " in answered(world, client)
    world.leaves_nothing()


def test_the_header_comes_before_tls() -> None:
    world = make(ListenerTls(Source(A)), TRUSTED)
    client = world.client(BALANCER)
    world.receives(client, HEADER + HELLO[:10])
    world.receives(client, HELLO[10:])
    assert world.secures().early == HELLO
    assert answered(world, client).endswith(b"('192.0.2.1', 1234) https a.test -")


@pytest.mark.parametrize("step", [1, 7])
def test_a_header_may_come_in_pieces(step: int) -> None:
    world = make(proxied=TRUSTED)
    client = world.client(BALANCER)
    for at in range(0, len(HEADER), step):
        world.receives(client, HEADER[at : at + step])
    assert answered(world, client).endswith(b"('192.0.2.1', 1234) http  -")


def test_a_header_that_names_nobody_leaves_the_connections_own_addresses() -> None:
    world = make(proxied=TRUSTED)
    client = world.client(BALANCER)
    world.receives(client, to_bytes(Header(None, None, 2)) + GET)
    assert world.sent(client).endswith(f"{BALANCER} http  -".encode())


def test_who_is_not_trusted_is_not_believed() -> None:
    world = make(proxied=TRUSTED)
    client = world.client(("10.0.0.8", 1))
    assert client in world.closed
    assert reasons(world) == ["proxy_header_untrusted"]
    assert world.client("") not in world.closed, "a Unix socket"
    assert not world.access


@pytest.mark.parametrize("data", [GET, b"PROXY TCP4 1.2.3.4\r\n", b"PROXY UNKNOWN" + b"x" * 200, HELLO])
def test_what_does_not_begin_with_a_header_is_closed(data: bytes) -> None:
    world = make(proxied=TRUSTED)
    client = world.client(BALANCER)
    world.receives(client, data)
    assert client in world.closed
    assert not world.sent(client)
    assert reasons(world) == ["proxy_header_invalid"]
    world.leaves_nothing()


def test_a_header_that_does_not_come_is_not_waited_for() -> None:
    world = make(proxied=TRUSTED)
    client = world.client(BALANCER)
    world.wait(2)
    world.receives(client, HEADER[:5])
    world.wait(1.1)
    assert client in world.closed
    assert reasons(world) == ["proxy_header_timeout"]


def test_the_address_in_the_header_is_the_one_that_counts() -> None:
    world = make(proxied=TRUSTED, limits=Limits(connections_per_address_max=1))
    other = to_bytes(Header(("192.0.2.2", 1234), ("192.0.2.9", 443), 2))
    first, second, third = (world.client(BALANCER) for _ in range(3))
    world.receives(first, HEADER + GET)
    world.receives(second, HEADER + GET)
    world.receives(third, other + GET)
    assert b" 200 " in world.sent(first)
    assert b" 503 " in world.sent(second)
    assert b" 200 " in world.sent(third)
    world.leaves_nothing()
    assert isinstance(world.machine, Proxy)
    admission = world.machine.admission
    assert (admission.admitted, admission.refused, admission.from_address) == (0, 0, {})


def test_trust_in_forwarding_is_for_the_address_in_the_header() -> None:
    forwarding = Forwarding(trusted_peers=("192.0.2.1",))
    world = make(proxied=TRUSTED, forwarding=forwarding)
    client = world.client(BALANCER)
    world.receives(client, HEADER + GET)
    assert isinstance(world.machine, Proxy)
    [downstream] = world.machine.downstreams
    assert downstream.trusted


# ---------------------------------------------------------------------------------------------------------- clients'


def test_a_clients_certificate_is_seen_by_filters_and_recorded() -> None:
    world = over_tls()
    shown = PeerCertificate("CN=alice", "CN=ca", ("DNS:alice.test",), "00ff", "1", 4e9)
    client = world.client()
    world.receives(client, HELLO)
    world.secures(replace(TLS, certificate=shown))
    assert answered(world, client).endswith(b"CN=alice")
    security = world.access[-1].security
    assert security is not None
    assert security.certificate == shown


def test_secure_is_never_asked_twice() -> None:
    world = over_tls()
    secured(world)
    assert sum(isinstance(each, Secure) for each in world.operations) == 1


# ------------------------------------------------------------------------------------------------------------ corners


def test_a_listener_of_the_proxy_protocol_can_be_closed() -> None:
    world = make(proxied=TRUSTED)
    client = world.client(BALANCER)
    assert isinstance(world.machine, Proxy)
    world.machine.unlisten(world.listeners[0])
    world.gives(None)
    assert not world.machine.reception.doors
    world.receives(client, HEADER + GET)
    assert b" 200 " in world.sent(client), "who is on the way in goes on"


def test_a_client_for_whom_there_is_not_even_room_to_be_refused() -> None:
    world = make(proxied=TRUSTED, limits=Limits(connections_per_address_max=1, refused_connections_max=1))
    first, second, third = (world.client(BALANCER) for _ in range(3))
    for client in (first, second, third):
        world.receives(client, HEADER)
    assert (first in world.closed, second in world.closed, third in world.closed) == (False, False, True)
    assert reasons(world) == ["too_many_connections"]
    for client in (first, second):
        world.resets(client)
    assert isinstance(world.machine, Proxy)
    admission = world.machine.admission
    assert (admission.admitted, admission.refused, admission.from_address) == (0, 0, {})


def test_an_alert_that_nobody_takes_is_not_waited_for() -> None:
    world = over_tls()
    client = world.client()
    world.holds_closes = True
    world.gives(Received(client, with_alpn(b"\x01x")))
    assert world.closing[client] is False
    with pytest.raises(AssertionError, match="a Close after the last word"):
        world.wait(31)  # which is how this world takes note of an abort behind a Close


def test_an_alert_behind_others_of_our_words_is_given_its_time() -> None:
    world = over_tls()
    client = world.client()
    world.gives(Blocked(client))
    world.receives(client, with_alpn(b"\x01x"))
    assert client not in world.closing, "the alert waits for its turn"
    world.wait(31)
    assert world.closing[client]
    world.leaves_nothing()


def test_nobody_is_to_be_trusted_by_nobody() -> None:
    with pytest.raises(ValueError, match="trusted is empty, so nobody could connect"):
        ProxyProtocol(())
    with pytest.raises(ValueError, match="trusted: .*; write networks like 10.0.0.0/8"):
        ProxyProtocol(("here",))


def test_who_has_come_in_is_timed_by_other_limits() -> None:
    world = make(proxied=TRUSTED)
    client = world.client(BALANCER)
    world.receives(client, HEADER)
    world.wait(30)
    assert b" 200 " in answered(world, client), "the time for the header is over, and means nothing any more"
    receives = [each for each in world.operations if isinstance(each, Receive) and each.conn == client]
    assert len(receives) == 1, "it is read from since it came"


def test_who_speaks_plain_http_to_tls_has_the_time_of_a_head_for_it() -> None:
    world = over_tls()
    client = world.client()
    world.receives(client, GET[:3])
    world.wait(9.9)
    assert client not in world.closed
    world.receives(client, GET[3:])
    assert b'details="plain_http"' in world.sent(client)


def test_plain_http_beyond_a_cap_is_told_of_the_cap() -> None:
    world = over_tls(limits=Limits(connections_per_address_max=1))
    first = world.client()
    second = world.client()
    assert b'details="too_many_connections"' in answered(world, second)
    world.resets(first)
    world.leaves_nothing()
    assert isinstance(world.machine, Proxy)
    admission = world.machine.admission
    assert (admission.admitted, admission.refused, admission.from_address) == (0, 0, {})


def test_of_several_kinds_of_keys_all_have_to_be_for_the_host() -> None:
    world = over_tls(certificate("a.test", "b.test"), certificate("a.test", kind="rsa"))
    client = secured(world)
    assert b" 200 " in answered(world, client)
    assert b" 421 " in answered(world, client, GET.replace(b"a.test", b"b.test")), "which one it has is not known"


def test_filters_see_what_a_balancer_has_said() -> None:
    seen: list[Header | None] = []
    proxy = Proxy(Cluster("http://10.0.0.1"), [Tell()], PLAIN)

    @proxy.on("early_request_filter")
    def look(exchange: Exchange) -> None:
        seen.append(exchange.proxy_header)

    listener = Listener(LISTENER, proxy_protocol=TRUSTED)
    for where, data in ((listener, HEADER + GET), (LISTENER, GET)):
        world = World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[where]))
        world.receives(world.client(BALANCER), data)
    assert seen == [Header(("192.0.2.1", 1234), ("192.0.2.9", 443), 2), None]


@pytest.mark.parametrize("told", [None, TlsInfo("TLSv1.3")])
def test_tls_that_ended_at_a_trusted_balancer_counts(told: TlsInfo | None) -> None:
    world = make(proxied=TRUSTED)
    client = world.client(BALANCER)
    header = to_bytes(Header(("192.0.2.1", 1234), ("192.0.2.9", 443), 2, tls=told))
    world.receives(client, header + GET)
    assert (b" https  -" in world.sent(client)) is (told is not None)


def test_who_has_yet_to_take_what_tls_has_said_is_sent_nothing_before() -> None:
    world = over_tls()
    client = world.client()
    world.receives(client, HELLO)
    world.gives(Blocked(client))  # its key updates come with the end of the handshake, and it takes no answer
    world.secures()
    assert answered(world, client) == b""
    world.gives(Sent(client))
    assert world.sent(client).startswith(b"HTTP/1.1 200 ")
    world.gives(Closed(client, "reset"))
    world.leaves_nothing()


def test_who_never_takes_it_is_given_up() -> None:
    world = over_tls()
    client = world.client()
    world.receives(client, HELLO)
    world.gives(Blocked(client))
    world.secures()
    world.wait(31)
    assert world.closing[client]
    world.leaves_nothing()
