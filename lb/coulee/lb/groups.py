"""Priority groups: those of the first get everything while enough of them are usable, then the load spills over.

How much, is Envoy's rule. A level's health is the share of its weight that is usable, over `enough`, and 1 at most. In
turn, each level takes so much of the load, or what the ones before it have left. Where all healths together come to
less than 1, each takes its part of that. So, with `enough` at 0.7 and two levels:

| usable in level 0 | in level 1 | goes to level 0 | to level 1 |
|---|---|---|---|
| 100 %, or 70 % | any | 100 % | 0 % |
| 35 % | 100 % | 50 % | 50 % |
| 7 % | 100 % | 10 % | 90 % |
| 0 % | any but 0 % | 0 % | 100 % |
| 35 % | 7 % | 83 % | 17 % |

Whatever the table says, an exchange that finds nobody in its level (all were tried, or are full) goes to the others,
the first first. Weight is what was configured: a slow start is no loss of a level's capacity.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection, Generator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from coulee.lb.policy import Policy
from coulee.lb.sections import SLICE, Section, Sectioned

if TYPE_CHECKING:
    from coulee.core.peer import Routed
    from coulee.lb.endpoint import Endpoint

ENOUGH: Final = 0.7
"""A level keeps all of its load while so much of its weight is usable. Envoy's overprovisioning factor of 1.4 says
71 %."""

_NOTHING: Final = 1e-9
"""A share below it is a rounding error."""


class Levels(Sectioned):
    """Sections in an order of preference, 0 first: subclass it, and override `level_of` or `divide`."""

    def __init__(self, inner: Policy | None = None, *, enough: float = ENOUGH) -> None:
        super().__init__(inner)
        if not 0 <= enough <= 1:
            raise ValueError(f"enough is {enough}; it must be from 0 (any one is enough) to 1 (all must be usable)")
        self.enough = enough
        self._usable: list[Section] = []
        self._loaded: list[Section] = []
        self._bounds: list[float] = []

    def level_of(self, endpoint: Endpoint) -> int:
        """0 for those that are preferred."""
        raise NotImplementedError

    def divide(self, members: Sequence[Endpoint]) -> Generator[None, None, dict[int, list[Endpoint]]]:
        """One section for each level that occurs."""
        divided: dict[int, list[Endpoint]] = {}
        for at, endpoint in enumerate(members, 1):
            if at % SLICE == 0:
                yield
            divided.setdefault(self.level_of(endpoint), []).append(endpoint)
        return divided

    def changed(self) -> None:
        """Works out the table of shares, so that a choice need only look it up."""
        super().changed()
        in_order = [self.sections[level] for level in sorted(self.sections)]
        self._usable = [section for section in in_order if section.usable]
        shares = shares_of([self._health(section) for section in self._usable])
        loaded = [(section, share) for section, share in zip(self._usable, shares, strict=True) if share > _NOTHING]
        self._loaded = [section for section, _ in loaded]
        self._bounds = list(accumulate(share for _, share in loaded[:-1]))

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        """Of the level whose turn it is by the table; else of the first that has one."""
        drawn = None
        if self._loaded:
            at = bisect(self._bounds, self.view.rng.random()) if self._bounds else 0
            drawn = self._loaded[at]
            chosen = drawn.policy.choose(exchange, tried)
            if chosen is not None:
                return chosen
        for section in self._usable:
            if section is not drawn:
                chosen = section.policy.choose(exchange, tried)
                if chosen is not None:
                    return chosen
        return None

    def _health(self, section: Section) -> float:
        usable = sum(endpoint.weight for endpoint in section.usable)
        if not usable:
            return 0.0
        whole = sum(endpoint.weight for endpoint in section.members)
        return usable / whole / self.enough if self.enough else 1.0


def shares_of(healths: Sequence[float]) -> list[float]:
    """What goes to each level: 1 in all, or 0 where no level has any health. A health above 1 is as good as 1."""
    whole = min(1.0, sum(healths))
    shares: list[float] = []
    left = 1.0
    for health in healths:
        shares.append(min(left, health / whole) if whole else 0.0)
        left -= shares[-1]
    return shares


class Priority(Levels):
    """`Priority(LeastRequests())`: each `Endpoint(priority=...)` is a level, 0 first.

    With `enough=0`, the next level gets nothing until none of this one is usable: nginx's `backup`.
    """

    def level_of(self, endpoint: Endpoint) -> int:
        """What the endpoint says."""
        return endpoint.priority
