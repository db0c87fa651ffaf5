"""A sliding window: how often something happened lately.

Rules:

- Time is cut into slots, a tenth of the window each. What counts is the present slot and the ten before it: all of the
  last `window_s`, and of the tenth before that a part.
- Memory is eleven numbers, whatever happens. Time that passes costs no more than eleven steps, however long it was.
- Time does not go backwards.
"""

from __future__ import annotations

from typing import Final

SLOTS: Final = 10
"""Of one window; one more is kept, for the part of the oldest that the window still reaches into."""


class Window:
    """`count` is as of the last `add` or `turn`."""

    __slots__ = ("_slot", "_slot_s", "at", "count", "counts", "slot_ends")

    def __init__(self, window_s: float) -> None:
        self._slot_s = window_s / SLOTS
        self._slot = 0
        self.slot_ends = self._slot_s
        """When to call `turn`."""
        self.at = 0
        """The place of the present slot."""
        self.counts = [0] * (SLOTS + 1)
        self.count = 0

    def add(self, now: float) -> None:
        """It has happened once more."""
        if now >= self.slot_ends:
            self.turn(now)
        self.counts[self.at] += 1
        self.count += 1

    def turn(self, now: float) -> None:
        """Forget what is too long ago."""
        slot = int(now / self._slot_s)
        for entered in range(max(self._slot + 1, slot - SLOTS), slot + 1):
            at = entered % (SLOTS + 1)
            self.count -= self.counts[at]
            self.counts[at] = 0
        self._slot = slot
        self.at = slot % (SLOTS + 1)
        self.slot_ends = (slot + 1) * self._slot_s

    def clear(self) -> None:
        """It has never happened."""
        self.counts = [0] * (SLOTS + 1)
        self.count = 0
