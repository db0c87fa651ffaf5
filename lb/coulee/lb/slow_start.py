"""Slow start: an endpoint that has just come up gets little at first, and its full weight when it has warmed up.

The share of its weight goes up in steps, since each one changes tables. It is Envoy's: what has passed of `duration_s`,
to the power of 1 / `curve`, and never below `share_min`. It never goes down, and is 1 exactly at the end.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

STEPS_MAX: Final = 1000
"""Each step is an alarm, and new tables for the policy."""


@dataclass(frozen=True, slots=True)
class SlowStart:
    """How weights go up: `SlowStart(30)` takes half a minute, in ten steps."""

    duration_s: float = 0.0
    """From coming up until the full weight; 0 switches slow start off."""

    share_min: float = 0.1
    """The share of its weight that an endpoint begins with: above 0, or nobody would ever warm it up."""

    steps: int = 10
    """In so many equal parts of the time, the share goes up."""

    curve: float = 1.0
    """1 is a straight line. Above it, the share goes up fast at first; below, late. Envoy calls it aggression."""

    def __post_init__(self) -> None:
        if not 0 <= self.duration_s < math.inf:
            raise ValueError(f"duration_s is {self.duration_s}; it must be 0 (off) or a number of seconds")
        if not 0 < self.share_min <= 1:
            raise ValueError(f"share_min is {self.share_min}; it must be above 0, and 1 at most")
        if not 1 <= self.steps <= STEPS_MAX:
            raise ValueError(f"steps is {self.steps}; it must be from 1 to {STEPS_MAX}")
        if not 0 < self.curve < math.inf:
            raise ValueError(f"curve is {self.curve}; it must be above 0, and 1 is a straight line")

    def weight(self, weight: float, since: float, now: float) -> float:
        """What a weight comes to at `now`, for an endpoint that came up at `since`."""
        return weight * self._share(self._step(since, now))

    def next_step(self, since: float, now: float) -> float | None:
        """When it will be more; None where it is all."""
        step = self._step(since, now)
        share = self._share(step)
        for later in range(step + 1, self.steps + 1):
            if self._share(later) > share:
                return self._begins(since, later)
        return None

    def _step(self, since: float, now: float) -> int:
        """How many steps are behind us."""
        return bisect_right(range(1, self.steps + 1), now, key=lambda step: self._begins(since, step))

    def _begins(self, since: float, step: int) -> float:
        return since + self.duration_s * (step / self.steps)

    def _share(self, step: int) -> float:
        return max(self.share_min, math.pow(step / self.steps, 1 / self.curve))
