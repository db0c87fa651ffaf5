"""How much of something a peer may do at once, and how much of it a second is forgiven: a bucket that leaks."""

from __future__ import annotations


class Budget:
    """So much `most`, and `per_s` of it is given back each second of the core's clock."""

    __slots__ = ("_at", "_used", "most", "per_s")

    def __init__(self, most: float, per_s: float) -> None:
        self.most = most
        self.per_s = per_s
        self._used = 0.0
        self._at = 0.0

    def spend(self, points: float, now: float) -> float:
        """Use so much of it; gives how much of all that makes, where 1 is everything."""
        self._used = max(0.0, self._used - (now - self._at) * self.per_s) + points
        self._at = now
        return self._used / self.most
