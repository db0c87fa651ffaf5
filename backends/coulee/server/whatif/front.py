"""The proxy's part: where each request goes, and what follows an attempt that failed. As `coulee.core` does it, with
its rules (`coulee.core.retrying`) and the real balancer, but for what filters would say.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Final

from coulee.core.errors import ExchangeError
from coulee.core.headers import Headers
from coulee.core.parts import Request, Response
from coulee.core.retrying import IDEMPOTENT, backoff_s, may_follow
from coulee.server.whatif.attempts import Ask, Attempt
from coulee.server.whatif.network import Network
from coulee.server.whatif.tally import SLICES, Tally

if TYPE_CHECKING:
    from coulee.core.peer import Peer
    from coulee.core.proxy import Proxy
    from coulee.core.seam import Address
    from coulee.lb import Cluster
    from coulee.server.whatif.agenda import Agenda
    from coulee.server.whatif.origins import Origin
    from coulee.server.whatif.scenario import Scenario

BAD_FROM: Final = 500
"""Statuses from there on are errors of an origin."""


class Front:
    """See above. It is the `Sender` of a network of its own."""

    def __init__(
        self, scenario: Scenario, proxy: Proxy, cluster: Cluster, agenda: Agenda, tally: Tally, rng: Random,
        origins: Mapping[str, Origin],
    ) -> None:  # fmt: skip
        self.cluster = cluster
        self.retry = proxy.config.retry
        self.rng = proxy.rng
        self.agenda = agenda
        self.tally = tally
        self.network = Network(agenda, proxy.config, self)
        self.origins = origins
        self.slices_per_s = SLICES / scenario.duration_s
        self.random = rng.random
        self.clients: list[Address] = [
            (f"10.{200 + (at >> 16)}.{at >> 8 & 255}.{at & 255}", 50000) for at in range(scenario.clients)
        ]
        self.gets = [Request("GET", f"/{at}", Headers({"Host": "a"})) for at in range(scenario.paths)]
        self.posts = [Request("POST", f"/{at}", Headers({"Host": "a"})) for at in range(scenario.paths)]
        self.posts_share = scenario.posts

    def slice_at(self, now: float) -> int:
        """Which slice of the time it is."""
        at = int(now * self.slices_per_s)
        return at if at < SLICES else SLICES - 1

    # -- requests

    def arrive(self, now: float) -> None:
        """A request comes."""
        tally = self.tally
        random = self.random
        tally.requests += 1
        tally.arrived[self.slice_at(now)] += 1
        targets = self.posts if self.posts_share and random() < self.posts_share else self.gets
        clients = self.clients
        ask = Ask(targets[int(random() * len(targets))], clients[int(random() * len(clients))], now)
        if self.retry.total_timeout_s:
            self.agenda.at(now + self.retry.total_timeout_s, self._out_of_time, ask)
        try:
            peer = self.cluster.choose(ask)
        except ExchangeError as error:
            self._end(ask, error.reason, now)
            return
        self._begin(ask, peer, now)

    def _out_of_time(self, ask: Ask, now: float) -> None:
        """All attempts together have taken too long."""
        if not ask.over:
            self._stop_running(ask, "upstream_timeout", now)
            self._end(ask, "upstream_timeout", now)

    def _end(self, ask: Ask, error: str, now: float) -> None:
        ask.over = True
        self.tally.ended(self.slice_at(now), ask.attempts, error, now - ask.arrived)

    # -- attempts

    def _begin(self, ask: Ask, peer: Peer, now: float) -> None:
        origin = self.origins[peer.name]
        ask.attempts += 1
        ask.tried.append(peer.name)
        attempt = Attempt(ask, peer, origin, now)
        ask.running.append(attempt)
        at = self.slice_at(now)
        origin.row.tried(at, ask.attempts > 1)
        if ask.attempts > 1:
            self.tally.retries[at] += 1
        self.cluster.begin(peer)
        hedge_after_s = self.retry.hedge_after_s
        if hedge_after_s and ask.request.method in IDEMPOTENT and len(ask.running) == 1:
            self.agenda.at(now + hedge_after_s, self._hedge, attempt)
        self.network.send(attempt, now)

    def _hedge(self, attempt: Attempt, now: float) -> None:
        """An attempt is slow: let a second one run beside it, where that is allowed."""
        ask = attempt.ask
        if ask.over or ask.running != [attempt] or ask.attempts > self.retry.retries_max:
            return
        peer = self._another(ask)
        if peer is None or peer.name in ask.tried:
            return
        if not self.cluster.may_retry(ask):
            self.tally.refusals += 1
            return
        self.tally.hedges += 1
        self._begin(ask, peer, now)

    def answered(self, attempt: Attempt, status: int, now: float) -> None:
        """See `Sender`."""
        ask, peer, origin = attempt.ask, attempt.peer, attempt.origin
        row = origin.row
        attempt.status = status
        attempt.latency_s = latency_s = now - attempt.began
        at = self.slice_at(now)
        row.answered(at, latency_s)
        error = ""
        if status >= BAD_FROM:
            error = str(status)
            row.failed(at, error)
        self.cluster.answered(ask, peer, Response(status), latency_s)
        ask.running.remove(attempt)
        if status in self.retry.statuses:
            if ask.running:  # the race goes on without it
                self._ended(attempt, "upstream_status")
                return
            if self._may_follow(ask, "upstream_status", connected=True):
                self._pause_before(_Failure(ask, "upstream_status", True, attempt), now)
                return
        self._ended(attempt, "")
        if ask.running:
            self._stop_running(ask, "superseded", now)
        self._end(ask, error, now)

    def failed(self, attempt: Attempt, reason: str, connected: bool, now: float) -> None:
        """See `Sender`."""
        ask = attempt.ask
        attempt.origin.row.failed(self.slice_at(now), reason)
        ask.running.remove(attempt)
        self._ended(attempt, reason)
        if ask.running:
            return
        if self._may_follow(ask, reason, connected=connected):
            self._pause_before(_Failure(ask, reason, connected, None), now)
        else:
            self._give_up(ask, reason, now)

    def _ended(self, attempt: Attempt, reason: str) -> None:
        self.cluster.end(attempt.peer, reason, attempt.status, attempt.latency_s)

    def _stop_running(self, ask: Ask, reason: str, now: float) -> None:
        for attempt in ask.running:
            self.network.cancel(attempt, now)
            if reason != "superseded":
                attempt.origin.row.failed(self.slice_at(now), reason)
            self._ended(attempt, reason)
        ask.running.clear()

    # -- what follows

    def _may_follow(self, ask: Ask, reason: str, *, connected: bool) -> bool:
        return may_follow(self.retry, ask.attempts, reason, ask.request.method, connected=connected, wanted=None)

    def _pause_before(self, failure: _Failure, now: float) -> None:
        wait_s = backoff_s(self.retry, failure.ask.attempts, self.rng)
        if wait_s:
            self.agenda.at(now + wait_s, self._try_again, failure)
        else:
            self._try_again(failure, now)

    def _try_again(self, failure: _Failure, now: float) -> None:
        """Begin the next attempt, or give up."""
        ask, answered = failure.ask, failure.answered
        if ask.over:
            if answered is not None:
                self._ended(answered, "upstream_status")
            return
        peer = self._another(ask)
        if peer is not None and not failure.connected and peer.name in ask.tried:
            peer = None  # it would refuse again
        if peer is not None and not self.cluster.may_retry(ask):
            self.tally.refusals += 1
            peer = None
        if answered is not None:
            self._ended(answered, "upstream_status" if peer is not None else "")
        if peer is not None:
            self._begin(ask, peer, now)
        elif answered is not None:
            self._end(ask, str(answered.status) if answered.status >= BAD_FROM else "", now)
        else:
            self._give_up(ask, failure.reason, now)

    def _another(self, ask: Ask) -> Peer | None:
        try:
            return self.cluster.choose(ask)
        except ExchangeError:
            return None

    def _give_up(self, ask: Ask, reason: str, now: float) -> None:
        self._end(ask, self.cluster.verdict(ExchangeError(reason)).reason, now)


class _Failure:
    """What an attempt came to that another may follow; `answered` is the attempt where that is an answer."""

    __slots__ = ("answered", "ask", "connected", "reason")

    def __init__(self, ask: Ask, reason: str, connected: bool, answered: Attempt | None) -> None:
        self.ask = ask
        self.reason = reason
        self.connected = connected
        self.answered = answered
