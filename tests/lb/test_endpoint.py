"""Endpoints as users write them: what each URL names, and one clear line for each that names nothing."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from coulee.core import Proxy
from coulee.core.peer import Peer, PeerLimits
from coulee.core.seam import Address, UpstreamTls
from coulee.core.transport import DIRECT, Transport
from coulee.lb import Cluster, peer_from_url
from coulee.lb.endpoint import WEIGHT_MAX, Endpoint, endpoint_of
from coulee.lb.outliers import Record
from tests.core.world import LISTENER, World
from tests.http2 import frames as h2


@pytest.mark.parametrize(
    ("url", "address", "name"),
    [
        ("http://127.0.0.1:9000", ("127.0.0.1", 9000), "127.0.0.1:9000"),
        ("http://127.0.0.1:9000/", ("127.0.0.1", 9000), "127.0.0.1:9000"),
        ("http://origin.example", ("origin.example", 80), "origin.example:80"),
        ("HTTP://Origin.Example:65535", ("origin.example", 65535), "origin.example:65535"),
        ("http://[::1]:9000", ("::1", 9000), "[::1]:9000"),
        ("http://[2001:db8::1]", ("2001:db8::1", 80), "[2001:db8::1]:80"),
        ("https://origin.example", ("origin.example", 443), "origin.example:443"),
        ("h2c://127.0.0.1:9000", ("127.0.0.1", 9000), "127.0.0.1:9000"),
        ("H2C://origin.example/", ("origin.example", 80), "origin.example:80"),
        ("unix:/run/origin.sock", "/run/origin.sock", "unix:/run/origin.sock"),
        ("unix:origin.sock", "origin.sock", "unix:origin.sock"),
    ],
)
def test_a_url_names_a_peer(url: str, address: Address, name: str) -> None:
    peer = peer_from_url(url)
    assert peer.address == address
    assert peer.name == name


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("unix:", "'unix:' names no socket; write unix:/path/to/socket"),
        ("127.0.0.1:9000", "'127.0.0.1:9000' has no scheme; write http://127.0.0.1:9000"),
        ("localhost", "'localhost' has no scheme; write http://localhost"),
        ("wss://a:443", "'wss://a:443': the scheme 'wss' is not supported; write http://..., https://... or h2c://..."),
        ("ftp://a", "'ftp://a': the scheme 'ftp' is not supported; write http://..., https://... or h2c://..."),
        ("://a", "'://a': the scheme '' is not supported; write http://..., https://... or h2c://..."),
        ("h2://a", "'h2://a': the scheme 'h2' is not supported; write http://..., https://... or h2c://..."),
        ("h2c://:9000", "'h2c://:9000' has no host; write h2c://127.0.0.1:9000"),
        ("h2c://a/api", "'h2c://a/api': give scheme, host and port alone, as in h2c://a:80"),
        ("http://a:65536", "'http://a:65536': the port is no number from 1 to 65535"),
        ("http://a:-1", "'http://a:-1': the port is no number from 1 to 65535"),
        ("http://a:x", "'http://a:x': the port is no number from 1 to 65535"),
        ("http://a:0", "'http://a:0': port 0 is nobody's"),
        ("http://", "'http://' has no host; write http://127.0.0.1:9000"),
        ("http://:9000", "'http://:9000' has no host; write http://127.0.0.1:9000"),
        ("http:///path", "'http:///path' has no host; write http://127.0.0.1:9000"),
        ("http://a:1/api", "'http://a:1/api': give scheme, host and port alone, as in http://a:1"),
        ("http://a/?b", "'http://a/?b': give scheme, host and port alone, as in http://a:80"),
        ("http://a#b", "'http://a#b': give scheme, host and port alone, as in http://a:80"),
        ("http://me:secret@a:1", "'http://me:secret@a:1': give scheme, host and port alone, as in http://a:1"),
        ("http://@a:1", "'http://@a:1': give scheme, host and port alone, as in http://a:1"),
        ("http://[::1]:1/api", "'http://[::1]:1/api': give scheme, host and port alone, as in http://[::1]:1"),
    ],
)
def test_a_url_that_names_no_peer_is_answered_by_what_is_wrong_with_it(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        peer_from_url(url)
    assert str(caught.value) == message


@pytest.mark.parametrize("url", ["http://[::1", "http://::1]:9000", "http://[nonsense]:9000", "http://a\u2100b"])
def test_a_url_that_cannot_even_be_taken_apart_is_named_too(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        peer_from_url(url)
    assert str(caught.value).startswith(repr(url))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://a b:80", "http://a\nb", "http://a\tb:80", " http://a", "http://a\\b", "http://a,b"]
)
def test_a_host_with_characters_that_no_host_has_is_refused(url: str) -> None:
    # urlsplit drops tabs and line ends without a word, so that another host would be asked than the one written.
    with pytest.raises(ValueError, match=r".") as caught:
        peer_from_url(url)
    assert repr(url) in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- endpoints


@pytest.mark.parametrize("where", ["http://10.0.0.1:9000", ("10.0.0.1", 9000), Peer(("10.0.0.1", 9000))])
def test_an_endpoint_is_made_of_a_url_an_address_or_a_peer(where: str | Address | Peer) -> None:
    endpoint = Endpoint(where)
    assert (endpoint.address, endpoint.name, endpoint.key) == (
        ("10.0.0.1", 9000), "10.0.0.1:9000", (("10.0.0.1", 9000), ""),
    )  # fmt: skip
    assert (endpoint.weight, endpoint.priority, endpoint.zone, endpoint.labels, endpoint.limits) == (1, 0, "", {}, None)


def test_what_a_peer_says_counts_where_nothing_else_is_said() -> None:
    peer = Peer(("10.0.0.1", 9000), "blue", "tenant", PeerLimits(requests_max=1))
    endpoint = Endpoint(peer)
    assert (endpoint.name, endpoint.group, endpoint.limits) == ("blue", "tenant", peer.limits)
    other = Endpoint(peer, name="green", group="other", limits=PeerLimits(requests_max=2))
    assert (other.name, other.group, other.limits) == ("green", "other", PeerLimits(requests_max=2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight": -1}, "endpoint a: weight is -1; it must be from 0 to 65535"),
        ({"weight": 65536}, "endpoint a: weight is 65536; it must be from 0 to 65535"),
        ({"weight": float("nan")}, "endpoint a: weight is nan; it must be from 0 to 65535"),
        ({"priority": -1}, "endpoint a: priority is -1; the first group is 0, the next 1"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        Endpoint("http://10.0.0.1", name="a", **given)
    assert str(caught.value) == message


def test_the_least_and_the_most_that_an_endpoint_can_weigh() -> None:
    assert Endpoint("http://a", weight=WEIGHT_MAX).open
    none = Endpoint("http://a", weight=0)
    assert (none.usable, none.open, none.in_service) == (False, False, False)


def test_it_is_itself_and_none_other_whatever_they_have_in_common() -> None:
    one, other = Endpoint("http://a"), Endpoint("http://a")
    assert one != other
    assert one == one
    assert len({one, other}) == 2


def test_a_fresh_one_has_the_same_definition_and_nothing_is_known_of_it() -> None:
    labels = {"version": "2"}
    limits = PeerLimits(requests_max=1)
    one = Endpoint("http://a", name="n", group="g", weight=3, priority=1, zone="eu", labels=labels, limits=limits)
    one.in_flight, one.requests, one.failures, one.state, one.owner, one.service = (
        1,
        2,
        {"503": 1},
        "ejected",
        one,
        "drain",
    )
    one.record = Record()
    fresh = one.fresh()
    assert (fresh.key, fresh.name, fresh.weight, fresh.priority, fresh.zone) == (one.key, "n", 3, 1, "eu")
    assert (fresh.labels, fresh.limits) == (labels, limits)
    assert (fresh.in_flight, fresh.requests, fresh.failures, fresh.state) == (0, 0, {}, "healthy")
    assert (fresh.owner, fresh.service) == (None, "ready")
    assert fresh.record is not one.record
    labels["version"] = "3"
    assert fresh.labels == one.labels == {"version": "2"}


def test_another_definition_of_it_changes_what_it_says_and_not_what_is_known() -> None:
    one = Endpoint("http://a")
    one.in_flight, one.state, one.service = 2, "ejected", "drain"
    limits = PeerLimits(requests_max=1)
    one.describe(Endpoint("http://a", name="n", weight=3, priority=1, zone="eu", labels={"v": "2"}, limits=limits))
    assert (one.name, one.weight, one.priority, one.zone, one.labels, one.limits) == (
        "n",
        3,
        1,
        "eu",
        {"v": "2"},
        limits,
    )
    assert (one.in_flight, one.state, one.service) == (2, "ejected", "drain")


def test_what_users_may_write_in_its_place() -> None:
    endpoint = Endpoint("http://a")
    assert endpoint_of(endpoint) is endpoint
    assert endpoint_of("http://b:81").name == "b:81"
    assert endpoint_of(Peer("/run/c")).key == ("/run/c", "")


def test_how_it_shows_itself() -> None:
    endpoint = Endpoint("http://10.0.0.1:9000", weight=2)
    assert repr(endpoint) == "<Endpoint 10.0.0.1:9000 healthy weight 2 in flight 0>"


def test_whether_it_may_get_requests_and_what_speaks_for_it() -> None:
    endpoint = Endpoint("http://a")
    assert (endpoint.in_service, endpoint.is_healthy, endpoint.ejected) == (True, True, False)
    endpoint.record = Record()
    assert (endpoint.is_healthy, endpoint.ejected) == (True, False)
    endpoint.record.ejected_until = 5.0
    assert (endpoint.in_service, endpoint.is_healthy, endpoint.ejected) == (True, False, True)
    endpoint.service = "maintenance"
    assert not endpoint.in_service


# ------------------------------------------------------------------------------------------ how it is reached

A_AND_PORT = ("a.test", 80)
H2C = Transport(prior_knowledge=True)
TLS = Transport(tls=UpstreamTls(ca=b"-----BEGIN CERTIFICATE-----", alpn=("h2", "http/1.1")))
TLS_OF_A = Transport(tls=UpstreamTls("a.test", "a.test", ca=b"-----BEGIN CERTIFICATE-----", alpn=("h2", "http/1.1")))
TOLD = Transport(proxy_protocol=2)
URL_AND_TRANSPORT = [
    ("http://a.test", TOLD, TOLD),
    ("http://a.test", H2C, H2C),
    ("h2c://a.test", H2C, H2C),
    ("H2C://a.test", TOLD, Transport(proxy_protocol=2, prior_knowledge=True)),
    ("https://a.test", TLS, TLS_OF_A),
    ("HTTPS://a.test", TOLD, Transport(tls=UpstreamTls("a.test", "a.test"), proxy_protocol=2)),
    ("unix:/run/a", H2C, H2C),
    ("unix:/run/a", Transport(tls=UpstreamTls()), Transport(tls=UpstreamTls("localhost", "localhost"))),
    (A_AND_PORT, H2C, H2C),
    (A_AND_PORT, TLS, TLS_OF_A),
    (Peer(A_AND_PORT), TLS, TLS_OF_A),
    (peer_from_url("h2c://a.test"), TOLD, Transport(proxy_protocol=2, prior_knowledge=True)),
    (peer_from_url("https://a.test"), TOLD, Transport(tls=UpstreamTls("a.test", "a.test"), proxy_protocol=2)),
    (peer_from_url("https://a.test"), TLS, TLS_OF_A),
]
OPPOSITES = [
    (
        "http://a.test",
        TLS,
        "endpoint a.test:80: http:// is without TLS, and its transport has `tls`; write https://, or",
    ),
    ("h2c://a.test", TLS, "endpoint a.test:80: h2c:// is without TLS, and its transport has `tls`; write https://, or"),
    (peer_from_url("h2c://a.test"), TLS, "endpoint a.test:80: h2c:// is without TLS, and its transport has `tls`"),
    (
        "https://a.test",
        H2C,
        "endpoint a.test:443: https:// agrees on HTTP/2 by ALPN, and its transport has `prior_know",
    ),
]


@pytest.mark.parametrize(
    ("url", "transport"),
    [
        ("http://a.test", DIRECT),
        ("h2c://a.test", H2C),
        ("https://a.test", Transport(tls=UpstreamTls("a.test", "a.test", alpn=("http/1.1",)))),
        ("https://10.0.0.1", Transport(tls=UpstreamTls("", "10.0.0.1"))),
        ("unix:/run/a", DIRECT),
    ],
)
def test_what_a_url_says_of_how_it_is_reached(url: str, transport: Transport) -> None:
    assert Endpoint(url).transport == transport
    assert Endpoint(url).fresh().transport == transport
    assert Endpoint(url).key == Endpoint(peer_from_url(url)).key
    assert peer_from_url("http://a.test").transport is DIRECT, "which attempts look for"


@pytest.mark.parametrize(("where", "given", "both"), URL_AND_TRANSPORT)
def test_what_a_url_says_and_what_a_transport_says_are_taken_together(
    where: str | Address | Peer, given: Transport, both: Transport
) -> None:
    by_itself = Endpoint(where, transport=given)
    assert by_itself.transport == both
    assert by_itself.key == Peer(by_itself.address, transport=both).key
    by_its_cluster = Endpoint(where)
    [member] = Cluster(by_its_cluster, transport=given).members
    assert member.transport == both
    assert member.key == by_itself.key
    assert [each.transport for each in Cluster(member, transport=given).fresh().members] == [both]


@pytest.mark.parametrize(("where", "given", "said"), OPPOSITES)
def test_what_a_url_and_a_transport_say_must_not_be_opposites(where: str | Peer, given: Transport, said: str) -> None:
    makers: list[Callable[[], object]] = [
        lambda: Endpoint(where, transport=given),
        lambda: Cluster(where, transport=given),
        lambda: Cluster(Endpoint(where).fresh(), transport=given),
    ]
    for make in makers:
        with pytest.raises(ValueError, match=r".") as caught:
            make()
        assert str(caught.value).startswith(said)


def test_an_endpoint_with_a_transport_of_its_own_is_not_reached_as_the_others() -> None:
    own = Endpoint("h2c://a.test", transport=TOLD)
    others = Transport(proxy_protocol=1)
    assert [each.transport for each in Cluster(own, "h2c://b.test", transport=others).members] == [
        Transport(proxy_protocol=2, prior_knowledge=True), Transport(proxy_protocol=1, prior_knowledge=True),
    ]  # fmt: skip


def ask(extra: bytes = b"") -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + extra + b"\r\n"


def before(url: str) -> World:
    return World(Proxy(Cluster(url)).fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER]))


def test_an_upgrade_to_an_endpoint_of_http2_needs_its_word() -> None:
    world = before("h2c://127.0.0.1:9000")
    client = world.client()
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    world.receives(client, ask(b"Connection: upgrade\r\nUpgrade: websocket\r\n" + key))
    origin = world.connects()
    assert b":protocol" not in world.sent(origin)
    world.receives(origin, h2.settings({8: 1}))
    assert b":protocol" in world.sent(origin)


def test_an_endpoint_that_wants_http1_gets_it() -> None:
    world = before("h2c://127.0.0.1:9000")
    client = world.client()
    world.receives(client, ask())
    world.receives(world.connects(), h2.settings() + h2.rst(1, h2.Code.HTTP_1_1_REQUIRED))
    again = world.connects()
    assert world.sent(again).startswith(b"GET / HTTP/1.1\r\n")
    world.receives(again, b"HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n")
    assert world.access[0].status == 204
