"""Whatever happens at whatever moment: each attempt begins once and ends once at the balancer, is answered at most once
in between, and nothing is left."""

from __future__ import annotations

import os
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from coulee.core import Exchange, ExchangeError, Filter, Limits, Peer, Request, Retry, Timeouts, fetch, sleep
from coulee.core.filters import PHASES
from coulee.core.peer import PeerLimits
from coulee.core.seam import Blocked, Drain, Received, Sent
from tests.core.ledger import ADDRESSES, BUSY, GET, HEAD, OK, POST, PUT, Ledger, played, proxy_of

CHUNKED = b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
REQUESTS = (GET, GET, GET * 2, HEAD, POST, PUT, PUT[:-1], CHUNKED, CHUNKED + b"0\r\nT: u\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")  # fmt: skip
ANSWERS = (OK, OK, BUSY, OK[:-1], BUSY[:-1], b"HTTP/1.1 103 Early Hints\r\n\r\n", b"garbage\r\n\r\n", b"",
           b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
           b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: u\r\n\r\n",
           b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")  # fmt: skip
RETRIES = st.builds(
    Retry,
    retries_max=st.integers(0, 4),
    statuses=st.sampled_from([(), (503,)]),
    non_idempotent=st.booleans(),
    try_timeout_s=st.sampled_from([0.0, 0.7]),
    total_timeout_s=st.sampled_from([0.0, 1.0, 3.0]),
    backoff_s=st.sampled_from([0.0, 0.5]),
    hedge_after_s=st.sampled_from([0.0, 0.3, 1.0]),
)
EVENTS = st.sampled_from(
    ["asks", "asks", "connects", "connects", "connects", "refuses", "answers", "answers", "answers", "resets", "leaves",
     "says more", "blocks", "unblocks", "waits", "waits", "waits long", "deserts", "limits"]
)  # fmt: skip


class Mishaps(Filter):
    """In each phase, what is drawn for it: nothing, a wait, an exception, or another answer."""

    def __init__(self, rng: Random) -> None:
        for phase in PHASES:
            kind = rng.choice(("", "", "", "", "", "", "waits", "raises now and then", "fails", "asks"))
            if kind:
                setattr(self, phase, _mishap(kind, phase, rng))


def _mishap(kind: str, phase: str, rng: Random) -> object:
    async def happen(exchange: Exchange, *_: object) -> None:
        if kind == "waits":
            await sleep(rng.choice((0.0, 0.3, 1.0)))
        elif rng.random() < 0.3:
            if kind == "raises now and then":
                raise RuntimeError(phase)
            if kind == "fails":
                raise ExchangeError("bad_request", phase)
            await fetch(Request("GET", "/check"), peer=rng.choice((None, Peer(ADDRESSES["c"], "c"))))

    return happen


class Play:
    """One world, and what is done to it."""

    def __init__(self, retry: Retry, seed: int, hooks: bool) -> None:
        self.rng = rng = Random(seed)
        limits = rng.choice((None, PeerLimits(connections_max=1), PeerLimits(requests_per_connection_max=2,
                                                                             connection_life_s=1.0)))  # fmt: skip
        self.ledger = Ledger(rng.choice(("a", "ab", "abc")), limits)
        self.ledger.grants = rng.choice((0, 3, 1000))
        self.world, _ = played(
            *([Mishaps(rng)] if hooks else []),
            ledger=self.ledger,
            retry=retry,
            limits=Limits(
                connections_per_peer_max=rng.choice((1, 2, 1024)), replay_bytes_max=rng.choice((0, 2, 65536))
            ),
            timeouts=Timeouts(answer_timeout_s=2.0, pool_wait_s=1.0, keep_alive_idle_s=5.0, logging_grace_s=2.0),
        )
        self.world.gives()
        self.blocked: list[int] = []

    def open(self, ours: bool) -> list[int]:
        """Connections of clients (`ours` not) or to origins that bytes can come on."""
        proxy = proxy_of(self.world)
        clients = {each.number for each in proxy.downstreams}
        return [
            conn
            for conn, reading in self.world.reading.items()
            if reading
            and conn not in self.world.closing
            and conn not in self.world.closed
            and (conn in clients) is not ours
        ]

    def happens(self, event: str) -> None:
        world, rng = self.world, self.rng
        clients, origins = self.open(ours=False), self.open(ours=True)
        if event == "asks" and world.credits:
            world.receives(world.client(), rng.choice(REQUESTS))
        elif event in ("connects", "refuses") and world.connecting:
            world.connecting.insert(0, world.connecting.pop(rng.randrange(len(world.connecting))))
            world.connects() if event == "connects" else world.refuses()
        elif event == "answers" and origins:
            world.gives(Received(rng.choice(origins), rng.choice(ANSWERS)))
        elif event == "says more" and clients:
            world.gives(Received(rng.choice(clients), rng.choice((b"c", b"0\r\n\r\n", b"", GET))))
        elif event == "resets" and origins:
            self.gone(rng.choice(origins))
        elif event == "leaves" and clients:
            self.gone(rng.choice(clients))
        elif event == "blocks" and (fits := [each for each in clients + origins if each not in self.blocked]):
            conn = rng.choice(fits)
            self.blocked.append(conn)
            world.gives(Blocked(conn))
        elif event == "unblocks" and self.blocked:
            conn = self.blocked.pop()
            if conn not in world.closed:
                world.gives(Sent(conn))
        elif event == "waits":
            world.wait(rng.choice((0.1, 0.3, 0.5)))
        elif event == "waits long":
            world.now += 2.5  # the machine was busy: whatever is due by then, is due at once
            world.gives()
        elif event == "deserts":
            proxy_of(world).pool.desert(rng.choice(self.ledger.offers))
            world.gives()
        elif event == "limits":
            rng.choice(self.ledger.offers).limits = rng.choice((None, PeerLimits(connections_max=rng.randint(1, 3))))

    def gone(self, conn: int) -> None:
        if conn in self.blocked:
            self.blocked.remove(conn)
        self.world.resets(conn)

    def ends(self) -> None:
        """A drain, and its end."""
        world = self.world
        world.gives(Drain(self.rng.choice((0.0, 5.0))))
        for _ in range(400):
            if self.rng.random() < 0.2 and world.connecting:
                world.connects()
            world.wait(1.0)
        proxy = proxy_of(world)
        assert world.machine.finished, proxy.leftovers
        assert not proxy.pool.desks
        assert not proxy.pool.idle
        assert self.ledger.closed(), self.ledger.heard
        assert len(world.access) == proxy.counters.requests
        assert sum(len(record.attempts) for record in world.access) == proxy.counters.attempts
        assert not world.events("internal_error"), world.events("internal_error")[0].fields
        for record in world.access:
            assert len(record.attempts) <= 1 + proxy.config.retry.retries_max
            won = [attempt for attempt in record.attempts if not attempt.reason]
            assert len(won) <= 1
            if record.status and not record.reason:
                assert len(won) == (1 if record.attempts else 0)


@settings(max_examples=3000 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 500, deadline=None)
@given(RETRIES, st.integers(0, 2**32), st.booleans(), st.lists(EVENTS, min_size=5, max_size=60))
def test_every_attempt_begins_once_and_ends_once(retry: Retry, seed: int, hooks: bool, events: list[str]) -> None:
    play = Play(retry, seed, hooks)
    for event in events:
        play.happens(event)
    play.ends()


def test_the_property_sees_what_it_is_about() -> None:
    """Races, retries, full queues and answers that are thrown away occur in what is drawn."""
    seen: set[str] = set()
    events = ("asks", "connects", "connects", "refuses", "answers", "resets", "leaves", "waits")
    hedges = retries = 0
    for seed in range(60):
        rng = Random(seed)
        retry = Retry(statuses=(503,), hedge_after_s=0.3, retries_max=3, try_timeout_s=0.7)
        play = Play(retry, seed, hooks=False)
        for _ in range(60):
            play.happens(rng.choice(events))
        play.ends()
        counters = proxy_of(play.world).counters
        hedges += counters.hedges
        retries += counters.retries
        seen.update(attempt.reason for record in play.world.access for attempt in record.attempts)
    wanted = {
        "",
        "superseded",
        "upstream_status",
        "upstream_refused",
        "upstream_reset",
        "upstream_timeout",
        "client_gone",
    }
    assert wanted <= seen
    assert min(hedges, retries) > 20
