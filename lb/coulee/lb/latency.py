"""How long answers take: quantiles of the times of late, from counts in buckets.

Rules:

- Ten buckets for each factor of ten, from 10 µs to 1000 s, with one for all that is below and one for all above. Each
  is 26 % wider than the one before, and what is told for it is at most `ERROR_MAX` away from any time in it.
- Two windows, the present one and the last: `rotate` forgets the older. All that is told is over both.
- Memory is two lists of `BUCKETS` numbers, whatever happens.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate, pairwise
from typing import Final

DECADES: Final = 8
PER_DECADE: Final = 10
SHORTEST_S: Final = 1e-5
LONGEST_S: Final = 1e3

BOUNDS: Final = tuple(SHORTEST_S * 10 ** (i / PER_DECADE) for i in range(DECADES * PER_DECADE + 1))
"""Where one bucket ends and the next begins, in seconds."""

BUCKETS: Final = len(BOUNDS) + 1

_VALUES: Final = (
    SHORTEST_S,
    *(2 * low * high / (low + high) for low, high in pairwise(BOUNDS)),
    LONGEST_S,
)
"""What each bucket stands for: the harmonic mean of its bounds, which is as wrong for the one as for the other."""

ERROR_MAX: Final = 0.115
"""Of a quantile from 10 µs to 1000 s, relative to the true one."""


class Latency:
    """`latency.quantile(0.99)` is the time, in seconds, within which 99 % of the answers of late came."""

    __slots__ = ("_last", "_last_sum_s", "_present", "_present_sum_s")

    def __init__(self) -> None:
        self._present = [0] * BUCKETS
        self._present_sum_s = 0.0
        self._last = [0] * BUCKETS
        self._last_sum_s = 0.0

    def add(self, seconds: float) -> None:
        """One answer took so long."""
        self._present[bisect_right(BOUNDS, seconds)] += 1
        self._present_sum_s += seconds

    @property
    def count(self) -> int:
        """The number of answers."""
        return sum(self._present) + sum(self._last)

    @property
    def mean(self) -> float:
        """In seconds, exact; 0.0 where nothing was seen."""
        count = self.count
        return (self._present_sum_s + self._last_sum_s) / count if count else 0.0

    def quantile(self, share: float) -> float:
        """The shortest time that so large a share of the answers did not exceed; 0.0 where nothing was seen. Raises
        `ValueError`."""
        if not 0 <= share <= 1:
            raise ValueError(f"a quantile's share is {share}; it must be from 0 to 1, such as 0.99")
        up_to = list(accumulate(map(int.__add__, self._present, self._last)))
        count = up_to[-1]
        if not count:
            return 0.0
        rank = max(1, math.ceil(share * count))
        return _VALUES[bisect_right(up_to, rank - 1)]

    def rotate(self) -> None:
        """The present window becomes the last one, and that is forgotten."""
        self._last, self._last_sum_s = self._present, self._present_sum_s
        self._present, self._present_sum_s = [0] * BUCKETS, 0.0
