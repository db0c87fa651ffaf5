"""What a seed draws of load balancing: a policy, health, circuits, limits, retries, hedges, and an operator who
interferes; and the oracles of all that.

It is drawn by a source of its own, so that what a seed was without it, it still is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from coulee.backends.peers import Asked, Reply
from coulee.core import Exchange, Filter, Proxy, Retry
from coulee.core.errors import REASONS
from coulee.core.peer import PeerLimits
from coulee.core.report import Access, Event
from coulee.core.seam import Address
from coulee.core.transport import DIRECT, Transport
from coulee.lb import (
    Breaker,
    Cluster,
    Endpoint,
    HealthCheck,
    Http,
    Ketama,
    LeastRequests,
    Locality,
    Maglev,
    Outliers,
    PeakEwma,
    Policy,
    Priority,
    RandomChoice,
    Rendezvous,
    RetryBudget,
    RoundRobin,
    SlowStart,
    Sticky,
    Tcp,
    TwoChoices,
    by_address,
    by_path,
)

HEALTH = "/health"
"""What checks ask for."""

BUSY = 503
"""What an endpoint answers that has too much to do."""


class Balance:
    """The share of one seed in it: in fair weather a policy alone; else, in half of the seeds, everything."""

    def __init__(self, seed: int, *, hostile: bool) -> None:
        self.rng = rng = Random(f"{seed} balance")
        self.wild = hostile and rng.random() < 0.5
        self.has_policy = rng.random() < 0.7
        self.slow_s: list[float] = []  # of each endpoint, on top of what was planned for the request
        self.busy: list[float] = []  # the share of requests that each turns down
        self.operator = Operator()

    def cluster(self, addresses: Sequence[Address], transport: Transport = DIRECT) -> Cluster:
        rng = self.rng
        self.slow_s = [rng.choice((0.0, 0.0, 0.05, 0.6)) if self.wild else 0.0 for _ in addresses]
        self.busy = [rng.choice((0.0, 0.0, 0.5, 1.0)) if self.wild else 0.0 for _ in addresses]
        policy = _policy(rng) if self.has_policy else RoundRobin()
        if not self.wild:
            return Cluster(*map(Endpoint, addresses), policy=policy, transport=transport)
        limits = PeerLimits(
            connections_max=rng.choice((None, 1, 3)),
            waiters_max=rng.choice((None, 0, 2)),
            wait_s=rng.choice((None, 0.1)),
            requests_max=rng.choice((None, None, 1, 4)),
            requests_per_connection_max=rng.choice((None, 1, 2)),
            connection_life_s=rng.choice((None, 0.05, 1.0)),
        )
        endpoints = [
            Endpoint(
                address,
                weight=rng.choice((1, 1, 3)),
                priority=rng.choice((0, 0, 1)),
                zone=rng.choice(("here", "there")),
                limits=limits if rng.random() < 0.5 else None,
            )
            for address in addresses
        ]
        probe = rng.choice((Tcp(), Http(path=HEALTH)))
        return Cluster(
            *endpoints,
            policy=policy,
            transport=transport,
            health=_health(rng, probe) if rng.random() < 0.2 else None,
            outliers=rng.choice((None, Outliers(consecutive_failures=2, ejection_s=0.5, interval_s=1.0))),
            breaker=rng.choice((None, Breaker(failures_max=2, open_s=0.3, successes=rng.choice((1, 2))))),
            budget=rng.choice((RetryBudget(), RetryBudget(share=0.0, floor_per_s=0.2))),
            slow_start=rng.choice((None, SlowStart(0.5))),
            panic=rng.choice((0.0, 0.5, 1.0)),
        )

    def retry(self, usual: Retry) -> Retry:
        rng = self.rng
        if not self.wild:
            return usual
        return replace(
            usual,
            retries_max=rng.choice((0, 1, 2, 4)),
            statuses=rng.choice(((), (BUSY,), (500, BUSY))),
            try_timeout_s=rng.choice((0.0, 0.1, 0.5)),
            total_timeout_s=rng.choice((0.0, 0.0, 0.3, 2.0)),
            backoff_s=rng.choice((0.0, 0.025, 0.5)),
            hedge_after_s=rng.choice((0.0, 0.01, 0.03, 0.1)),
        )

    def filters(self) -> list[Filter]:
        return [self.operator] if self.wild and self.rng.random() < 0.5 else []

    def reply(self, place: int, asked: Asked, planned: Reply | None) -> Reply:
        """What the endpoint at that place answers to a request, or to a check, which has no plan."""
        if self.busy[place] and self.rng.random() < self.busy[place]:
            number = [("X-Number", asked.target[1:])] if planned is not None else []
            return Reply(BUSY, number, delay_s=self.slow_s[place])
        if planned is None:
            return Reply(delay_s=self.slow_s[place])
        if self.slow_s[place]:
            return replace(planned, delay_s=planned.delay_s + self.slow_s[place])
        return planned

    # -- judging

    def judge(self, proxies: Sequence[Proxy], records: Sequence[Access]) -> None:
        """When all is over, every attempt has been accounted for."""
        for proxy in proxies:
            cluster = proxy.balancer
            assert isinstance(cluster, Cluster)
            endpoints = [*cluster.members, *self.operator.removed(cluster)]
            assert cluster.in_flight == 0
            assert [endpoint.in_flight for endpoint in endpoints] == [0] * len(endpoints)
            assert sum(endpoint.requests for endpoint in endpoints) == proxy.counters.attempts
            for word in [word for endpoint in endpoints for word in endpoint.failures]:
                assert word in REASONS or 100 <= int(word) <= 599, "a reason, or a status that there was"
            assert proxy.counters.hedges + proxy.counters.retries <= cluster.retries.granted
        failures: Counter[str] = Counter()
        for record in records:
            answered = [attempt for attempt in record.attempts if not attempt.reason]
            assert len(answered) <= 1, "one answer is enough"
            assert not answered or record.status, "who was answered whole was answered"
            failures.update(attempt.reason for attempt in record.attempts)
        retries = proxies[0].config.retry.retries_max
        assert all(len(record.attempts) <= 1 + retries for record in records)
        assert failures["superseded"] <= sum(proxy.counters.hedges for proxy in proxies)

    def census(self, reported: Sequence[object]) -> Counter[str]:
        """What occurred."""
        census: Counter[str] = Counter()
        for event in reported:
            if isinstance(event, Access):
                reasons = [attempt.reason or "none" for attempt in event.attempts]
                census.update(f"attempt:{reason}" for reason in reasons)
                census["won:later"] += "superseded" in reasons[:-1] and reasons[-1] == "none"
                census["won:earlier"] += reasons[-1:] == ["superseded"]
                census["answered after a status"] += "upstream_status" in reasons and event.status < 500
            elif isinstance(event, Event) and event.name == "endpoint":
                census[f"state:{event.fields['state']}"] += 1
        return census


class Operator(Filter):
    """Somebody who drains endpoints, changes their weights, takes them out, and puts them in again; always one is left
    as it was."""

    def __init__(self) -> None:
        self.known: list[tuple[Cluster, Endpoint]] = []

    def early_request_filter(self, exchange: Exchange) -> None:
        cluster, rng = exchange.proxy.balancer, exchange.rng
        assert isinstance(cluster, Cluster)
        if rng.random() < 0.6 or len(cluster.definition) < 2:
            return
        kind = rng.choice(("service", "weight", "update"))
        endpoint = rng.choice(cluster.members)
        if kind == "service":
            cluster.set_service(endpoint.name, rng.choice(("ready", "ready", "drain", "maintenance")), "a drill")
        elif kind == "weight":
            cluster.set_weight(endpoint.name, rng.choice((0, 1, 2)))
        else:
            self.known += [(cluster, each) for each in cluster.members if (cluster, each) not in self.known]
            cluster.update(rng.choice((cluster.definition, cluster.definition[:1], cluster.definition[1:])))

    def removed(self, cluster: Cluster) -> list[Endpoint]:
        """Endpoints that were members once."""
        return [each for owner, each in self.known if owner is cluster and each not in cluster.members]


def _policy(rng: Random) -> Policy:
    """One of all there are, and some within others."""
    by = rng.choice((by_path(), by_address()))
    bound = rng.choice((None, 1.25))
    inner: Policy = rng.choice((RoundRobin(), TwoChoices(), LeastRequests(), Maglev(by_path(), size=101)))
    policies: tuple[Policy, ...] = (
        RandomChoice(), LeastRequests(), TwoChoices(), PeakEwma(),
        Ketama(by, bound=bound), Maglev(by, bound=bound, size=101), Rendezvous(by),
        Priority(inner), Locality("here", inner), Sticky(b"a key that is long enough", otherwise=inner),
    )  # fmt: skip
    return rng.choice(policies)


def _health(rng: Random, probe: Tcp | Http) -> HealthCheck:
    return HealthCheck(
        probe,
        interval_s=rng.choice((20.0, 60.0)),
        unhealthy_interval_s=10.0,
        timeout_s=rng.choice((0.1, 2.0)),
        rise=1,
        fall=rng.choice((1, 2)),
        start=rng.choice(("healthy", "unhealthy")),
    )
