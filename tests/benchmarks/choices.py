"""What a choice costs: each policy, among many endpoints, with requests that begin and end all the time.

Rules: endpoints weigh from 1 to 10, and half as many requests as endpoints are in flight, of which any may end next;
each exchange has a key of its own. A figure is the CPU time of the policy alone: of a choice, and of what it does when
an attempt begins and another ends; the loop itself, measured with a policy that does nothing, is taken off. Rounds run
every policy, and what is reported are medians.
"""

from __future__ import annotations

import importlib
import random
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

from coulee.core.peer import Routed
from coulee.lb.endpoint import Endpoint
from coulee.lb.loads import LeastRequests, PeakEwma, TwoChoices
from coulee.lb.policy import Policy, overrides
from coulee.lb.turns import RandomChoice, RoundRobin
from tests.benchmarks.report import aligned
from tests.lb.stub import Asks, FakeView, endpoints

COUNT = 1000
ROUNDS = 10
REQUESTS = 4000
KEYS = 1000

POLICIES: dict[str, Callable[[], Policy]] = {
    "round robin": RoundRobin,
    "random": RandomChoice,
    "least requests": LeastRequests,
    "two choices": TwoChoices,
    "peak EWMA": PeakEwma,
}
HASHED: dict[str, tuple[str, str]] = {
    "ketama": ("coulee.lb.ketama", "Ketama"),
    "maglev": ("coulee.lb.maglev", "Maglev"),
    "rendezvous": ("coulee.lb.rendezvous", "Rendezvous"),
}
"""Policies that take a key: module and name. One that is not there is left out."""
BARS_US: dict[str, float] = {
    "round robin": 3, "least requests": 5, "two choices": 5, "peak EWMA": 5, "ketama": 3, "maglev": 3,
}  # fmt: skip
"""What a choice may take, at `COUNT` endpoints (the project's bar)."""


class Choice(NamedTuple):
    """A row of the table."""

    policy: str
    microseconds: float


class Idle(Policy):
    """Chooses in no time."""

    def __init__(self, endpoint: Endpoint | None = None) -> None:
        self.endpoint = endpoint

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        """Always the same one."""
        return self.endpoint


def choices(count: int = COUNT, rounds: int = ROUNDS, requests: int = REQUESTS) -> list[Choice]:
    """What each policy takes for one request, among so many endpoints."""
    rng = random.Random(9112)
    weights = [rng.randint(1, 10) for _ in range(count)]
    made = {name: FakeView(endpoints(count, weights), make()) for name, make in known().items()}
    idle = FakeView(endpoints(count, weights), Idle(endpoints(1)[0]))
    exchanges = [Asks(f"/items/{number}") for number in range(KEYS)]
    times: dict[str, list[float]] = {name: [] for name in made}
    for number in range(-1, rounds):
        ending = [rng.randrange(count // 2) for _ in range(requests)]
        loop = one_round(idle, exchanges, ending)
        for name, view in made.items():
            taken = one_round(view, exchanges, ending) - loop
            if number >= 0:
                times[name].append(taken)
    return [Choice(name, statistics.median(each) / requests * 1e6) for name, each in times.items()]


def known() -> dict[str, Callable[[], Policy]]:
    """All policies that are here."""
    found = dict(POLICIES)
    for name, (module, policy) in HASHED.items():
        try:
            make: Any = getattr(importlib.import_module(module), policy)
        except ModuleNotFoundError:
            continue
        found[name] = partial(make, target)
    return found


def target(exchange: Routed) -> str:
    """A key."""
    return exchange.request.target


def one_round(view: FakeView, exchanges: Sequence[Asks], ending: Sequence[int]) -> float:
    """CPU seconds for as many requests as there are numbers in `ending`: for each that begins, that one ends."""
    policy = view.policy
    choose = policy.choose
    began = policy.began if overrides(policy, "began") else None
    ended = policy.ended if overrides(policy, "ended") else None
    going_on: list[Endpoint] = []
    for number in range(max(ending) + 1):
        chosen = choose(exchanges[number % KEYS], ())
        assert chosen is not None
        view.begin(chosen)
        going_on.append(chosen)
    start = time.process_time()
    for number, place in enumerate(ending):
        chosen = choose(exchanges[number % KEYS], ())
        assert chosen is not None
        chosen.in_flight += 1
        if began is not None:
            began(chosen)
        chosen, going_on[place] = going_on[place], chosen
        chosen.in_flight -= 1
        if ended is not None:
            ended(chosen)
    taken = time.process_time() - start
    for endpoint in going_on:
        view.end(endpoint)
        policy.answered(endpoint, 0.01)
    return taken


def table(rows: Sequence[Choice]) -> str:
    """One line for each policy."""
    lines = [[row.policy, f"{row.microseconds:.2f}", bar(row)] for row in rows]
    return aligned([["CPU us", "a choice", "at most"], *lines])


def bar(row: Choice) -> str:
    """What it may take, where that is said."""
    most = BARS_US.get(row.policy)
    if most is None:
        return ""
    return f"{most:g}" if row.microseconds <= most else f"{most:g}, missed"


def as_json(rows: Sequence[Choice]) -> dict[str, float]:
    """CPU microseconds."""
    return {row.policy: row.microseconds for row in rows}


if __name__ == "__main__":
    for endpoints_count in (10, COUNT, 10 * COUNT):
        print(f"\n{endpoints_count} endpoints\n\n{table(choices(endpoints_count))}", flush=True)
