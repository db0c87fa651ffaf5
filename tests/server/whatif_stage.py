"""A stage for the what-if tool: a scenario in a few lines of TOML, a cluster, and what was counted.

Latencies are constant and arrivals even unless a test says otherwise, so that its numbers can be had by hand.
"""

from __future__ import annotations

from typing import Any

from coulee.core import Config, Proxy
from coulee.core.config import Retry
from coulee.lb import Cluster, Endpoint, HealthCheck, RetryBudget
from coulee.server.whatif.play import Play
from coulee.server.whatif.scenario import Scenario, read_scenario
from coulee.server.whatif.tally import SLICES, Tally

STEADY = 'arrivals = "even"\n'
CONSTANT = '[endpoints]\nlatency = { median = "20ms", p99 = "20ms" }\n'


async def never(endpoint: Endpoint) -> None:
    """A probe that the tool must replace."""
    raise AssertionError("the model is asked, and not the program's own probe")


def cluster(count: int = 2, **options: Any) -> Cluster:
    """a0, a1, ...; in zones us and eu by turns; nothing is ejected unless `outliers` are given, and
    retries are as good as unbounded unless a `budget` is."""
    options.setdefault("outliers", None)
    options.setdefault("budget", RetryBudget(1.0, 1000.0))
    endpoints = [
        Endpoint((f"10.1.0.{at + 1}", 80), name=f"a{at}", zone="eu" if at % 2 else "us", limits=options.get("limits"))
        for at in range(count)
    ]
    options.pop("limits", None)
    return Cluster(*endpoints, **options)


def checked(**options: Any) -> HealthCheck:
    """Checks each second; without jitter, so that times are known."""
    return HealthCheck(never, **{"interval_s": 1.0, "unhealthy_interval_s": 1.0, "jitter": 0.0, **options})


def scenario(events: str = "", top: str = "", *, endpoints: str = CONSTANT, length: str = "60s") -> Scenario:
    """10 requests a second for a minute."""
    return read_scenario(
        f'duration = "{length}"\nrequests_per_s = 10\n{STEADY}{top}\n{endpoints}\n{events}', "outage.toml"
    )


def play(what: Scenario, balancer: Cluster | None = None, **retry: Any) -> Tally:
    """Play it to the end."""
    return Play(what, Proxy(balancer or cluster(), config=Config(retry=Retry(**retry)))).run()


def during(counts: list[int], tally: Tally, begin_s: float, end_s: float) -> int:
    """The sum of the slices from one time to another."""
    per_s = SLICES / tally.duration_s
    return sum(counts[round(begin_s * per_s) : round(end_s * per_s)])
