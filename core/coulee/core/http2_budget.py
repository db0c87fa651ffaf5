"""How much of something a peer may do at once, and how much of it a second is forgiven: a bucket that leaks, on the
core's clock.

What is used is kept, and not when it will be forgiven: so points that come at one moment add up without rounding, the
last that is allowed is not refused for it, and a rate of 0 means never.
"""

from __future__ import annotations


class Budget:
    """`most` points, of which `per_s` are given back each second. Made for a peer when it first spends one."""

    __slots__ = ("_at", "_used", "most", "per_s")

    def __init__(self, most: float, per_s: float) -> None:
        assert most > 0 <= per_s, (most, per_s)
        self.most = most
        self.per_s = per_s
        self._used = 0.0
        self._at = 0.0

    def spend(self, points: float, now: float) -> float:
        """Use so many; gives the level that makes. More than there are can be used: it is the caller who says when it
        is too much, and it takes the longer to be forgiven."""
        self._used = used = self._left(now) + points
        self._at = now
        return used / self.most

    def level(self, now: float) -> float:
        """How much of all is used: 0.0 is nothing, 1.0 everything."""
        return self._left(now) / self.most

    def _left(self, now: float) -> float:
        """What is used and not forgiven."""
        used = self._used
        if not used:
            return used
        return max(0.0, used - (now - self._at) * self.per_s)
