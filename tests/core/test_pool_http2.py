"""The pool with connections that carry many requests: who shares one, who hopes for one, and who opens his own."""

from __future__ import annotations

import pytest

from coulee.core import Exchange, Limits, Request, Response, Retry, UpstreamTls, respond
from coulee.core.config import Http2
from coulee.core.effects import fetch
from coulee.core.peer import Peer, PeerLimits
from coulee.core.seam import Drain
from coulee.core.transport import Transport
from tests.core.http2_ends import H2, H2C, OK, Client, Origin, answer, ends, peer, played, proxy_of, reasons
from tests.core.ledger import on
from tests.core.world import TLS, World
from tests.http2 import frames as h2
from tests.http2.frames import Code, data, goaway, headers, rst, settings

NO_RETRY = Retry(retries_max=0)
OVER_TLS = Transport(tls=UpstreamTls(alpn=("h2", "http/1.1")))
EITHER = Transport(tls=UpstreamTls(alpn=("http/1.1", "h2")))


def burst(world: World, count: int = 3) -> Client:
    """A client with so many requests at once."""
    client = Client(world)
    client.asks(*range(1, 2 * count, 2))
    return client


def limited(**limits: object) -> tuple[Peer, ...]:
    return (peer(limits=PeerLimits(**limits)),)  # type: ignore[arg-type]


def answers_all(origin: Origin) -> int:
    """Each request that has come is answered; how many there were."""
    asked = [int(word.split()[0]) for word in origin.told() if word.endswith("end")]
    origin.says(*(answer(stream, 204, end=True) for stream in asked))
    return len(asked)


# ------------------------------------------------------------------------------------------------------------ hopes


def test_requests_that_come_while_a_connection_is_being_opened_share_it() -> None:
    world = played(peers=(peer(),))
    client = burst(world, 100)
    assert len(world.connecting) == 1
    origin = Origin(world)
    assert answers_all(origin) == 100
    assert sorted(client.told()) == sorted(f"{stream} 204 end" for stream in range(1, 200, 2))
    assert [record.reused for record in world.access] == [False] * 100
    assert proxy_of(world).counters.connects == 100
    client.asks(201)
    assert answers_all(origin) == 1
    assert world.access[-1].reused
    client.leaves()
    ends(world)


def test_more_than_one_connection_has_room_for_open_another() -> None:
    world = played(peers=(peer(),), http2=Http2(upstream_streams_max=2))
    client = burst(world, 5)
    assert len(world.connecting) == 3
    origins = [Origin(world) for _ in range(3)]
    assert [answers_all(origin) for origin in origins] == [2, 2, 1]
    client.leaves()
    ends(world)


def test_those_who_hoped_for_an_origin_that_speaks_http1_open_their_own() -> None:
    world = played(peers=(peer(transport=OVER_TLS),), limits=Limits(connections_per_peer_max=3))
    client = burst(world, 5)
    assert len(world.connecting) == 1
    first = world.connects()
    world.secures(TLS)
    assert world.sent(first).startswith(b"GET /a HTTP/1.1\r\n")
    assert len(world.connecting) == 2
    others = [world.connects(), world.connects()]
    world.secures(TLS)
    world.secures(TLS)
    assert all(world.sent(other).startswith(b"GET /a HTTP/1.1\r\n") for other in others)
    for each in (first, *others, first, others[0]):
        world.receives(each, OK)
    assert sum(word.endswith("200") for word in client.told()) == 5
    client.asks(11)
    assert world.sent(first).startswith(b"GET /a HTTP/1.1\r\n"), "they lie idle"
    world.receives(first, OK)
    client.leaves()
    ends(world)


def test_an_origin_that_prefers_http1_is_not_hoped_for_until_it_speaks_http2() -> None:
    world = played(peers=(peer(transport=EITHER),))
    client = burst(world, 2)
    assert len(world.connecting) == 2
    for _ in range(2):
        world.connects()
    world.secures(H2)
    world.secures(H2)
    origins = list(world.reading.keys() - {client.conn})
    assert len(origins) == 2
    for origin in origins:
        assert world.sent(origin).startswith(h2.PREFACE)
        world.receives(origin, settings() + answer(1, 204, end=True))
    client.asks(*range(5, 25, 2))
    assert not world.connecting
    client.leaves()
    ends(world)


def test_all_who_hoped_hear_that_it_has_failed_and_try_again() -> None:
    world = played(peers=(peer("a"), peer("b")))
    client = burst(world, 3)
    world.refuses()
    assert [connect.address[0] for connect in world.connecting] == ["10.0.0.98"]
    assert answers_all(Origin(world)) == 3
    assert client.told() == ["1 204 end", "3 204 end", "5 204 end"]
    tried = [[attempt.reason for attempt in record.attempts] for record in world.access]
    assert tried == [["upstream_refused", ""]] * 3
    client.leaves()
    ends(world)
    world = played(peers=(peer(),), retry=NO_RETRY)
    client = burst(world, 3)
    world.wait(4)
    assert reasons(world) == ["upstream_connect_timeout"] * 3
    client.leaves()
    ends(world)


def test_who_takes_his_request_back_does_not_end_what_others_hope_for() -> None:
    world = played(peers=(peer(),))
    client = burst(world, 3)
    client.says(rst(1))
    assert len(world.connecting) == 1
    origin = Origin(world)
    assert origin.told() == ["1 GET /a end", "3 GET /a end"]
    client.says(rst(3), rst(5))
    assert origin.told() == ["1 RST CANCEL", "3 RST CANCEL"]
    client.asks(7)
    assert answers_all(origin) == 1
    client.says(rst(9 - 2), headers(9, h2.get()))
    client.says(rst(9))
    client.leaves()
    ends(world)


def test_what_nobody_hopes_for_any_more_lies_idle() -> None:
    for transport in (H2C, OVER_TLS):
        world = played(peers=(peer(transport=transport),))
        client = burst(world, 1)
        client.says(rst(1))
        conn = world.connects()
        if world.securing:
            world.secures(TLS)
        assert len(proxy_of(world).pool.idle) == 1
        client.asks(3)
        assert world.sent(conn)
        assert not world.connecting
        client.says(rst(3))
        client.leaves()
        ends(world)


def test_those_who_hope_are_served_though_the_connection_is_worn_by_fewer() -> None:
    world = played(peers=limited(requests_per_connection_max=2))
    client = burst(world, 5)
    assert answers_all(Origin(world)) == 2
    rest = [answers_all(Origin(world)) for _ in range(len(world.connecting))]
    assert sum(rest) == 3
    assert sum(word.endswith("204 end") for word in client.told()) == 5
    client.leaves()
    ends(world)


def test_those_who_hope_are_served_though_we_drain() -> None:
    world = played(peers=(peer(),))
    client = burst(world, 3)
    world.gives(Drain(10))
    origin = Origin(world)
    assert answers_all(origin) == 3
    assert reasons(world) == [""] * 3
    assert origin.closed
    world.wait(3)
    assert client.closed


def test_those_who_hope_are_served_though_their_peer_is_deserted() -> None:
    world = played(peers=(peer(),))
    client = burst(world, 3)
    proxy_of(world).pool.desert(peer())
    origin = Origin(world)
    assert answers_all(origin) == 3
    assert origin.closed
    client.leaves()
    ends(world)


# ---------------------------------------------------------------------------------------------------------- the cap


def test_at_the_cap_requests_wait_until_a_stream_is_free() -> None:
    world = played(peers=limited(connections_max=1, waiters_max=1), http2=Http2(upstream_streams_max=2), retry=NO_RETRY)
    client = burst(world, 4)
    assert reasons(world) == ["pool_full"]
    origin = Origin(world)
    assert origin.told() == ["1 GET /a end", "3 GET /a end"]
    origin.says(answer(1, 204, end=True))
    assert origin.told() == ["5 GET /a end"]
    client.asks(9)
    world.wait(6)
    assert reasons(world)[-1] == "pool_full"
    origin.says(answer(3, 204, end=True), answer(5, 204, end=True))
    client.leaves()
    ends(world)


def test_an_origin_that_allows_more_streams_serves_who_waits() -> None:
    world = played(peers=limited(connections_max=1))
    client = burst(world, 1)
    origin = Origin(world, {h2.MAX_CONCURRENT_STREAMS: 1})
    client.asks(3, 5)
    assert origin.told() == ["1 GET /a end"]
    origin.says(settings({h2.MAX_CONCURRENT_STREAMS: 2}))
    assert origin.told() == ["3 GET /a end"]
    origin.says(settings({h2.MAX_CONCURRENT_STREAMS: 1}), answer(1, 204, end=True))
    assert origin.told() == []
    origin.says(answer(3, 204, end=True))
    assert origin.told() == ["5 GET /a end"]
    origin.says(answer(5, 204, end=True))
    client.leaves()
    ends(world)


def test_who_waits_opens_a_connection_where_another_has_ended() -> None:
    world = played(peers=limited(connections_max=1), http2=Http2(upstream_streams_max=1))
    client = burst(world, 3)
    origin = Origin(world)
    origin.says(goaway(1), answer(1, 204, end=True))
    assert origin.closed
    again = Origin(world)
    assert answers_all(again) == 1
    assert answers_all(again) == 1
    assert client.told() == ["1 204 end", "3 204 end", "5 204 end"]
    client.leaves()
    ends(world)


def test_fewer_connections_are_allowed_than_lie_idle() -> None:
    world = played(peers=(peer(),), http2=Http2(upstream_streams_max=1))
    client = burst(world, 3)
    origins = [Origin(world) for _ in range(3)]
    for origin in origins[:2]:
        assert answers_all(origin) == 1
    fewer = peer(limits=PeerLimits(connections_max=1))
    pool = proxy_of(world).pool
    pool.set_limits(fewer)
    world.gives()
    assert [origin.closed for origin in origins] == [True, True, False]
    assert answers_all(origins[2]) == 1
    assert not origins[2].closed
    client.leaves()
    ends(world)


def test_fewer_connections_are_allowed_than_are_busy() -> None:
    world = played(peers=(peer(),), http2=Http2(upstream_streams_max=1))
    client = burst(world, 2)
    origins = [Origin(world) for _ in range(2)]
    proxy_of(world).pool.set_limits(peer(limits=PeerLimits(connections_max=1)))
    for origin in origins:
        assert answers_all(origin) == 1
    assert [origin.closed for origin in origins] == [True, False]
    client.leaves()
    ends(world)


# ------------------------------------------------------------------------------------------------------ fresh ones


def checked(**limits: object) -> World:
    """Where a request for /check is answered with what a fresh sub-request was answered."""

    async def check(exchange: Exchange) -> Response | None:
        if exchange.request.target != "/check":
            return None
        found = await fetch(Request("GET", "/health"), peer=peer(limits=PeerLimits(**limits)), fresh=True)  # type: ignore[arg-type]
        return respond(found.status)

    return played(on("request_filter", check), peers=limited(**limits), retry=NO_RETRY)


def test_a_fresh_one_shares_its_connection_with_nobody() -> None:
    world = checked()
    client = burst(world, 1)
    origin = Origin(world)
    client.asks(3, path="/check")
    assert origin.told() == ["1 GET /a end"]
    fresh = Origin(world)
    assert fresh.told() == ["1 GET /health end"]
    client.asks(5)
    assert origin.told() == ["3 GET /a end"]
    fresh.says(answer(1, 202, end=True))
    assert fresh.closed
    assert client.told() == ["3 202 end"]
    origin.says(answer(1, 204, end=True), answer(3, 204, end=True))
    client.leaves()
    ends(world)


def test_nobody_hopes_for_a_fresh_one() -> None:
    world = checked()
    client = Client(world)
    client.asks(1, path="/check")
    client.asks(3)
    assert len(world.connecting) == 2
    fresh = Origin(world)
    assert fresh.told() == ["1 GET /health end"]
    world.refuses()
    assert reasons(world) == ["upstream_refused"]
    fresh.says(answer(1, 202, end=True))
    client.leaves()
    ends(world)


def test_at_the_cap_an_idle_connection_makes_room_for_a_fresh_one() -> None:
    world = checked(connections_max=1)
    client = burst(world, 1)
    origin = Origin(world)
    assert answers_all(origin) == 1
    client.asks(3, path="/check")
    assert origin.closed
    fresh = Origin(world)
    assert answers_all(fresh) == 1
    assert client.told() == ["1 204 end", "3 204 end"]
    assert fresh.closed
    client.leaves()
    ends(world)


def test_at_the_cap_a_fresh_one_shares_a_busy_connection() -> None:
    world = checked(connections_max=1)
    client = burst(world, 1)
    origin = Origin(world)
    client.asks(3, path="/check")
    assert answers_all(origin) == 2
    assert client.told() == ["1 204 end", "3 204 end"]
    assert not origin.closed
    client.leaves()
    ends(world)


# ------------------------------------------------------------------------------------------------------------ idle


def test_the_one_idle_for_longest_goes_when_there_are_too_many() -> None:
    world = played(peers=(peer(),), http2=Http2(upstream_streams_max=1), limits=Limits(idle_connections_max=1))
    client = burst(world, 2)
    first, second = Origin(world), Origin(world)
    assert answers_all(second) == 1
    assert answers_all(first) == 1
    assert second.closed
    assert not first.closed
    world.wait(54)
    assert not first.closed
    world.wait(2)
    assert first.closed
    client.leaves()
    ends(world)


def test_none_lies_idle_where_none_may() -> None:
    world = played(peers=(peer(),), limits=Limits(idle_connections_max=0))
    client = burst(world, 2)
    origin = Origin(world)
    origin.says(answer(1, 204, end=True))
    assert not origin.closed
    origin.says(answer(3, 204, end=True))
    assert origin.closed
    client.leaves()
    ends(world)


def test_a_connection_that_was_idle_and_is_shared_again_is_idle_anew() -> None:
    world = played(peers=(peer(),))
    client = burst(world, 1)
    origin = Origin(world)
    assert answers_all(origin) == 1
    world.wait(40)
    client.asks(3)
    world.wait(10)
    assert answers_all(origin) == 1
    world.wait(50)
    assert not origin.closed
    world.wait(10)
    assert origin.closed
    ends(world)


def test_a_peer_that_is_deserted_keeps_what_runs() -> None:
    world = played(peers=(peer(),))
    client = burst(world, 2)
    origin = Origin(world)
    proxy_of(world).pool.desert(peer())
    assert not origin.closed
    assert answers_all(origin) == 2
    assert origin.closed
    client.asks(5)
    again = Origin(world)
    assert answers_all(again) == 1
    proxy_of(world).pool.desert(peer())
    world.gives()
    assert again.closed
    client.leaves()
    ends(world)


def test_a_connection_ends_when_it_has_lived_for_long_enough() -> None:
    world = played(peers=limited(connection_life_s=10))
    client = burst(world, 1)
    origin = Origin(world)
    assert answers_all(origin) == 1
    client.asks(3)
    world.wait(11)
    client.asks(5)
    assert answers_all(origin) == 1
    assert origin.closed
    again = Origin(world)
    assert answers_all(again) == 1
    world.wait(11)
    assert again.closed, "it does not lie idle for longer than it may live"
    client.leaves()
    ends(world)


# -------------------------------------------------------------------------------------------- who wants HTTP/1.1


def test_an_origin_that_wants_http1_gets_it() -> None:
    world = played(peers=(peer(transport=OVER_TLS),))
    client = Client(world)
    client.says(headers(1, h2.post(), end=False), data(1, b"abc", end=True), headers(3, h2.get()))
    origin = Origin(world, security=H2)
    origin.says(rst(1, Code.HTTP_1_1_REQUIRED))
    assert not origin.closed, "what runs goes on"
    again = world.connects()
    assert world.secures(TLS).tls.alpn == ("http/1.1",)  # type: ignore[union-attr]
    assert world.sent(again).startswith(b"POST / HTTP/1.1\r\n")
    world.receives(again, OK)
    origin.says(answer(3, 204, end=True))
    assert origin.closed
    assert client.told() == ["1 200", "1 DATA 'hi' end", "3 204 end"]
    client.asks(5)
    world.receives(again, OK)
    world.wait(56)
    client.asks(7, 9)
    assert len(world.connecting) == 2, "nobody hopes for what will not be"
    for each in [world.connects() for _ in range(2)]:
        assert world.secures(TLS).tls.alpn == ("http/1.1",), "it is remembered"
        world.receives(each, OK)
    client.leaves()
    world.wait(250)
    client = burst(world, 2)
    world.connects()
    assert world.secures(H2).tls.alpn == ("h2", "http/1.1"), "but not for ever"
    assert not proxy_of(world).pool.http1_only
    client.says(rst(1), rst(3))
    client.leaves()
    ends(world)


def test_a_goaway_can_want_http1_too() -> None:
    world = played(peers=(peer(),))
    client = burst(world, 2)
    origin = Origin(world)
    origin.says(goaway(0, Code.HTTP_1_1_REQUIRED))
    assert origin.closed
    assert len(world.connecting) == 2
    for each in [world.connects() for _ in range(2)]:
        assert world.sent(each).startswith(b"GET /a HTTP/1.1\r\n")
        world.receives(each, OK)
    assert sum(word.endswith("200") for word in client.told()) == 2
    client.leaves()
    ends(world)


@pytest.mark.parametrize("most", [0, 2])
def test_what_is_remembered_of_those_who_want_http1_is_bounded(most: int) -> None:
    world = played(peers=(peer(),), http2=Http2(http1_origins_max=most), retry=NO_RETRY)
    pool = proxy_of(world).pool
    world.gives()
    for name in "abcd":
        world.machine.balancer.peers = (peer(name),)  # type: ignore[attr-defined]
        client = burst(world, 1)
        Origin(world).says(rst(1, Code.HTTP_1_1_REQUIRED))
        client.leaves()
    assert [key[0] for key in pool.http1_only] == [peer(name).address for name in "abcd"[4 - most :]]
    ends(world)


def test_a_connection_that_is_worn_when_it_stands_is_followed_by_another() -> None:
    world = played(peers=(peer(limits=PeerLimits(connection_life_s=0.05)),))
    client = Client(world)
    client.asks(1)
    world.wait(0.06)
    world.connects()
    again = Origin(world)
    again.says(answer(1, 204, end=True))
    assert client.told() == ["1 204 end"]
    client.leaves()
    ends(world)


def test_who_hopes_for_a_connection_hears_of_whatever_has_become_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What opens it is a task of its own, whose failure nobody else would tell."""

    async def broken(*_: object) -> None:
        raise ValueError("no way")

    monkeypatch.setattr("coulee.core.pool.establish", broken)
    world = played(peers=(peer(),), retry=NO_RETRY)
    client = burst(world)
    assert client.told()[0::2] == ["1 500", "3 500", "5 500"]
    assert reasons(world) == ["internal_error"] * 3
    client.leaves()
    world.leaves_nothing()
