"""What a connection to a peer goes through before it carries anything."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from coulee.core import Config, Forwarding, Peer, PeerLimits, Proxy, Retry, Timeouts
from coulee.core.connection import Connection
from coulee.core.listener import Listener, ProxyProtocol
from coulee.core.path import announced
from coulee.core.proxy_protocol import Header, TlsInfo, read_header, to_bytes
from coulee.core.seam import Closed, Connect, ConnectOptions, Operation, Receive, Secure, Security, Send, UpstreamTls
from coulee.core.through import Through
from coulee.core.tls import ListenerTls
from coulee.core.transport import DIRECT, Transport
from coulee.lb import Cluster
from tests.core.test_entrance import HELLO, A, Source
from tests.core.world import CLIENT, LISTENER, TLS, World

GET = b"GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
PLAIN = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False), retry=Retry(retries_max=0))
CA = b"-----BEGIN CERTIFICATE-----\n"


def make(*endpoints: str | Peer, transport: Transport = DIRECT, **changes: Any) -> World:
    proxy = Proxy(Cluster(*endpoints, transport=transport), (), replace(PLAIN, **changes))
    return World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER]))


def kinds(operations: list[Operation], conn: int) -> list[type]:
    return [type(each) for each in operations if getattr(each, "conn", None) == conn]


def asks(world: World, client: int | None = None) -> int:
    client = world.client() if client is None else client
    world.receives(client, GET)
    return client


def last(world: World) -> tuple[int, str, str]:
    record = world.access[-1]
    return record.status, record.reason, record.detail


# ------------------------------------------------------------------------------------------------------------ TLS


def test_tls_comes_before_the_request() -> None:
    world = make("https://a.test:8443")
    client = asks(world)
    assert [connect.address for connect in world.connecting] == [("a.test", 8443)]
    origin = world.connects()
    assert not world.reading.get(origin), "TLS begins on a connection that is held"
    secure = world.secures()
    assert secure.tls == UpstreamTls(server_name="a.test", verified_name="a.test")
    assert kinds(world.operations, origin) == [Connect, Secure, Receive, Send]
    assert world.sent(origin).startswith(b"GET /a HTTP/1.1\r\n")
    world.receives(origin, OK)
    assert b" 200 " in world.sent(client)
    asks(world, client)
    assert world.sent(origin).startswith(b"GET /a "), "it is used again, as it is"
    world.receives(origin, OK)
    world.leaves_nothing()


@pytest.mark.parametrize(
    ("kind", "detail", "reason", "status"),
    [
        ("tls", "its certificate cannot be trusted: expired", "upstream_tls", 502),
        ("reset", "connection reset by peer", "upstream_reset", 502),
    ],
)
def test_a_handshake_that_fails_fails_the_attempt(kind: Any, detail: str, reason: str, status: int) -> None:
    world = make("https://a.test")
    asks(world)
    world.resets(world.connects(), kind, detail)
    assert last(world) == (status, reason, detail)
    world.leaves_nothing()


def test_another_endpoint_is_tried_where_a_handshake_fails() -> None:
    world = make("https://a.test", "https://b.test", retry=Retry())
    client = asks(world)
    world.resets(world.connects(), "tls", "wrong name")
    second = world.connects()
    world.secures()
    world.receives(second, OK)
    assert b" 200 " in world.sent(client)
    assert [attempt.reason for attempt in world.access[-1].attempts] == ["upstream_tls", ""]


def test_a_handshake_has_its_own_time() -> None:
    world = make("https://a.test", timeouts=Timeouts(upstream_tls_timeout_s=2.0))
    asks(world)
    world.wait(2.9)
    origin = world.connects()
    world.wait(1.9)
    assert not world.access
    world.wait(0.2)
    assert last(world) == (504, "upstream_connect_timeout", "not done with TLS within 2 s")
    assert world.closing[origin], "by a reset"
    world.leaves_nothing()


def test_a_body_that_only_the_end_of_the_connection_ends_needs_the_word_of_tls() -> None:
    world = make("https://a.test")
    client = asks(world)
    origin = world.connects()
    world.secures()
    world.receives(origin, b"HTTP/1.1 200 OK\r\n\r\npart")
    world.gives(Closed(origin, "reset", "the connection ended without a close_notify of TLS"))
    assert world.access[-1].reason == "upstream_reset"
    assert not world.sent(client).endswith(b"0\r\n\r\n"), "it is not passed on as whole"


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (DIRECT, Transport(tls=UpstreamTls().for_host("a"))),
        (Transport(tls=UpstreamTls().for_host("a")), Transport(tls=UpstreamTls().for_host("b"))),
        (Transport(tls=UpstreamTls(ca=CA).for_host("a")), Transport(tls=UpstreamTls().for_host("a"))),
        (Transport(tls=UpstreamTls(verify=False)), Transport(tls=UpstreamTls())),
        (Transport(tls=UpstreamTls(alpn=("h2",))), Transport(tls=UpstreamTls())),
        (Transport(options=ConnectOptions(source="10.0.0.1")), DIRECT),
        (Transport(prior_knowledge=True), DIRECT),
    ],
)
def test_what_is_reached_in_another_way_has_connections_of_its_own(one: Transport, two: Transport) -> None:
    address = ("10.0.0.1", 443)
    assert Peer(address, transport=one).key != Peer(address, transport=two).key
    assert Peer(address, transport=one).key == Peer(address, transport=replace(one)).key


# --------------------------------------------------------------------------------------------------- PROXY protocol


@pytest.mark.parametrize("version", [1, 2])
def test_an_origin_may_be_told_who_the_client_is(version: Any) -> None:
    world = make("http://10.0.0.7", transport=Transport(proxy_protocol=version))
    asks(world)
    origin = world.connects()
    sent = world.sent(origin)
    found = read_header(sent)
    assert found is not None
    header, length = found
    assert (header.source, header.destination, header.version) == (CLIENT, LISTENER, version)
    assert sent[length:].startswith(b"GET /a ")


def test_it_is_told_before_tls() -> None:
    world = make("https://10.0.0.7", transport=Transport(proxy_protocol=2))
    asks(world)
    origin = world.connects()
    assert kinds(world.operations, origin) == [Connect, Send, Secure]
    assert read_header(world.sent(origin)) is not None
    secure = world.secures()
    assert isinstance(secure.tls, UpstreamTls)
    assert secure.tls.verified_name == "10.0.0.7"
    assert world.sent(origin).startswith(b"GET /a ")


def test_a_clients_tls_is_told_too() -> None:
    proxy = Proxy(Cluster("http://10.0.0.7", transport=Transport(proxy_protocol=2)), (), PLAIN)
    listener = Listener(LISTENER, ListenerTls(Source(A)))
    world = World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[listener]))
    client = world.client()
    world.receives(client, HELLO)
    world.secures()
    world.receives(client, GET)
    found = read_header(world.sent(world.connects()))
    assert found is not None
    header = found[0]
    assert (header.alpn, header.authority) == ("http/1.1", "a.test")
    assert header.tls is not None
    assert (header.tls.version, header.tls.cipher) == (TLS.version, TLS.cipher)


@pytest.mark.parametrize(("version", "nobody"), [(1, b"PROXY UNKNOWN\r\n"), (2, to_bytes(Header(None, None, 2)))])
@pytest.mark.parametrize(("client", "local"), [("", "/run/coulee.sock"), ("/run/client.sock", "/run/coulee.sock")])
def test_a_client_of_a_unix_socket_is_nobody_elsewhere(client: str, local: str, version: Any, nobody: bytes) -> None:
    world = make("http://10.0.0.7", transport=Transport(proxy_protocol=version))
    world.listen_at = local
    asks(world, world.client(client))
    assert world.sent(world.connects()).startswith(nobody + b"GET /a ")


def test_a_connection_that_tells_of_one_client_is_not_for_another() -> None:
    world = make("http://10.0.0.7", transport=Transport(proxy_protocol=2))
    first = asks(world)
    origin = world.connects()
    world.receives(origin, OK)
    asks(world, first)
    assert not world.connecting, "the same client goes on with it"
    world.receives(origin, OK)
    asks(world, world.client(("10.0.0.10", 1)))
    assert world.connecting, "another has one of its own"
    world.receives(world.connects(), OK)
    world.leaves_nothing()


def test_limits_and_the_end_of_a_peer_hold_for_all_its_clients() -> None:
    transport = Transport(proxy_protocol=2)
    world = make("http://10.0.0.7", transport=transport)
    clients = [world.client((f"10.0.1.{number}", 1)) for number in (1, 2)]
    origins: list[int] = []
    for client in clients:
        asks(world, client)
        origins.append(world.connects())
        world.receives(origins[-1], OK)
    assert isinstance(world.machine, Proxy)
    pool = world.machine.pool
    peer = Peer(("10.0.0.7", 80), transport=transport, limits=PeerLimits(connections_max=7))
    pool.set_limits(peer)
    assert [desk.connections_max for desk in pool.desks.values()] == [7, 7]
    pool.desert(peer)
    world.gives(None)
    assert not pool.desks
    assert sorted(world.closed) == sorted(origins)


def test_who_tells_nothing_is_reached_as_it_is() -> None:
    peer = Peer(("10.0.0.7", 80))
    world = make(peer)
    client = world.client()
    assert announced(peer, world.machine.connections[client]) is peer
    assert to_bytes(Header(None, None, 2))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="proxy_protocol is 3; it must be version 1 or 2, or 0 for none"):
        Transport(proxy_protocol=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"with TLS the protocol is agreed by ALPN: UpstreamTls\(alpn=\(\"h2\", "):
        Transport(tls=UpstreamTls(), prior_knowledge=True)


def test_transports_that_are_equal_can_be_looked_up_by_one_another() -> None:
    assert hash(Transport(prior_knowledge=True)) == hash(Transport(prior_knowledge=True)) != hash(DIRECT)
    assert Peer(("10.0.0.1", 80), transport=Transport(prior_knowledge=False)).key == Peer(("10.0.0.1", 80)).key


# ------------------------------------------------------------------------------------------------ a proxy on the way


@pytest.mark.parametrize("proxy_tls", [None, UpstreamTls(server_name="proxy.test", verified_name="proxy.test")])
@pytest.mark.parametrize("origin", ["http://a.test:81", "https://a.test:81"])
def test_a_proxy_on_the_way_is_asked_for_the_peer(proxy_tls: UpstreamTls | None, origin: str) -> None:
    proxy = Peer(("proxy.test", 3128), transport=Transport(tls=proxy_tls))
    world = make(origin, transport=Transport(through=Through(proxy)))
    client = asks(world)
    assert [connect.address for connect in world.connecting] == [("proxy.test", 3128)]
    line = world.connects()
    if proxy_tls is not None:
        assert world.secures().tls == proxy_tls
    assert world.sent(line) == b"CONNECT a.test:81 HTTP/1.1\r\nHost: a.test:81\r\n\r\n"
    world.receives(line, b"HTTP/1.1 200 OK\r\n\r\n")
    if origin.startswith("https"):
        assert not world.reading[line], "TLS begins on a connection that is held"
        assert world.secures().tls == UpstreamTls().for_host("a.test")
    assert world.sent(line).startswith(b"GET /a ")
    assert (world.machine.connections[line].security is not None) is origin.startswith("https"), "with the peer alone"
    world.receives(line, OK)
    assert b" 200 " in world.sent(client)
    world.leaves_nothing()


@pytest.mark.parametrize("own", [None, ConnectOptions(source="10.0.0.1")])
def test_options_are_of_the_connection_to_the_proxy(own: ConnectOptions | None) -> None:
    proxy = Peer(("proxy.test", 3128), transport=Transport(options=own))
    world = make("http://a.test", transport=Transport(through=Through(proxy), options=ConnectOptions(dscp=46)))
    asks(world)
    assert world.connecting[0].options == (own or ConnectOptions(dscp=46))


def test_a_proxy_that_does_not_let_us_through_is_told_apart_from_the_peer() -> None:
    proxy = Peer(("proxy.test", 3128))
    world = make("http://a.test", transport=Transport(through=Through(proxy, "me", "secret")))
    asks(world)
    world.receives(world.connects(), b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
    status, reason, detail = last(world)
    assert (status, reason) == (502, "upstream_proxy_refused")
    assert "407" in detail
    assert "secret" not in detail
    world.leaves_nothing()


def test_what_goes_through_a_proxy_is_not_shared_with_what_does_not() -> None:
    address = ("10.0.0.1", 443)
    one, two = Through(Peer(("p", 1))), Through(Peer(("p", 1)), "me", "secret")
    keys = [Peer(address, transport=Transport(through=through)).key for through in (None, one, two)]
    assert len(dict.fromkeys(keys)) == 3
    assert Peer(address, transport=Transport(through=Through(Peer(("p", 1))))).key == keys[1]


# ------------------------------------------------------------------------------------------------- what is said aloud


def test_that_nobody_verifies_a_peer_is_said_once() -> None:
    world = make("https://a.test", transport=Transport(tls=UpstreamTls(verify=False)))
    for _ in range(2):
        client = asks(world)
        origin = world.connects()
        world.secures()
        world.receives(origin, OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        world.resets(client)
    [event] = world.events("insecure")
    assert event.fields == {"peer": "a.test:443"}
    assert event.text.startswith("INSECURE: the certificate of a.test:443 is not verified")


def test_that_keys_are_written_down_is_said() -> None:
    proxy = Proxy(Cluster("http://10.0.0.7"), (), PLAIN)
    listener = Listener(LISTENER, ListenerTls(Source(A), key_log="/run/keys"))
    world = World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[listener]))
    world.gives(None)
    [event] = world.events("insecure")
    assert event.fields == {"key_log": "/run/keys"}


def test_what_a_balancer_has_said_is_said_to_the_origin_too() -> None:
    proxy = Proxy(Cluster("http://10.0.0.7", transport=Transport(proxy_protocol=2)), (), PLAIN)
    listener = Listener(LISTENER, proxy_protocol=ProxyProtocol(("10.0.0.9",)))
    world = World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[listener]))
    client = world.client()
    told = Header(
        ("192.0.2.1", 7), ("192.0.2.9", 443), 2, alpn="h2", authority="b.test", unique_id=b"one", tls=TlsInfo("TLSv1.2")
    )
    world.receives(client, to_bytes(told) + GET)
    found = read_header(world.sent(world.connects()))
    assert found is not None
    assert found[0] == told


def test_an_origin_that_does_not_speak_the_only_protocol_it_is_offered() -> None:
    world = make("https://a.test", transport=Transport(tls=UpstreamTls(alpn=("h2",))))
    asks(world)
    world.connects()
    world.secures(Security("TLSv1.3", "TLS_AES_256_GCM_SHA384", ""))
    assert last(world) == (502, "upstream_tls", "it does not speak HTTP/2, and alpn offers nothing else")
    world.leaves_nothing()


@pytest.mark.parametrize(
    ("transport", "only"),
    [
        (DIRECT, False),
        (Transport(prior_knowledge=True), True),
        (Transport(tls=UpstreamTls()), False),
        (Transport(tls=UpstreamTls(alpn=("h2",))), True),
        (Transport(tls=UpstreamTls(alpn=("h2", "http/1.1"))), False),
        (Transport(tls=UpstreamTls(alpn=("http/1.1", "h2"))), False),
    ],
)
def test_what_an_upgrade_goes_by(transport: Transport, only: bool) -> None:
    assert transport.speaks_http2_only is only
    world = make("https://a.test")
    client = world.machine.connections[world.client()]
    assert isinstance(client, Connection)
    peer = Peer(("10.0.0.1", 443), transport=transport)
    found = announced(peer, client, "websocket")
    assert found.transport.may_speak_http2 is only
    assert announced(peer, client).key == peer.key
    if only or not transport.may_speak_http2:
        assert found.key == peer.key, "it shares the connections of all else"
