"""What is to happen when: one heap, and the order of asking breaks ties."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappush
from math import inf
from random import Random
from typing import Any, TypeAlias

from coulee.server.whatif.scenario import Load

Call: TypeAlias = Callable[[Any, float], object]
"""What happens: it is given the thing that it happens to, and the time."""


class Agenda:
    """`heap` has what is to come, the soonest first; who takes something out calls it with its thing and its time."""

    __slots__ = ("heap", "number")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Call, Any]] = []
        self.number = 0

    def at(self, when: float, call: Call, thing: Any) -> None:
        """Have something happen at a time."""
        self.number += 1
        heappush(self.heap, (when, self.number, call, thing))


def arrivals_s(load: tuple[Load, ...], rng: Random | None) -> Iterator[float]:
    """When requests come, for ever: at random with an `rng` (a Poisson process), else evenly. With a load of 0 at the
    end it stops.

    Between two requests the load adds up to 1, or to what an exponential variable with the mean 1 comes to: so that
    holds across the steps of the load too (the inversion of Çinlar, Introduction to Stochastic Processes, 1975).
    """
    now = 0.0
    need = 1.0 if rng is None else rng.expovariate(1.0)
    for at, step in enumerate(load):
        until = load[at + 1].at_s if at + 1 < len(load) else inf
        rate = step.requests_per_s
        while rate and now + need / rate <= until:
            now += need / rate
            yield now
            need = 1.0 if rng is None else rng.expovariate(1.0)
        if until < inf:
            need = max(need - (until - now) * rate, 0.0)
            now = until
