"""The budget of retries: how many more attempts than requests a cluster may make, so that retries do not become the
outage (Finagle's RetryBudget).

Rules:

- A retry, or the second attempt of a request that is hedged, is granted where, with it, those of the window are no more
  than `share` of the window's requests and `floor_per_s * window_s`. What a window is, `window.py` says.
- So in any `window_s` of time: no more than `floor_per_s * window_s`, and `share` of the requests in the 1.1 `window_s`
  that end with the last one granted.
- And in any longer time: no more than `floor_per_s` for each second of it and of one `window_s`, and `share` of the
  requests in it and in the 1.1 `window_s` before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from coulee.lb.window import Window


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """What may be spent on retries. The numbers are Finagle's. `RetryBudget(share=0, floor_per_s=0)`: nothing."""

    share: float = 0.2
    """Retries for each request. Where everything fails, the endpoints are asked 1.2 times as often as usual, and not
    as often as there are retries for a request."""

    floor_per_s: float = 10.0
    """... and so many more each second, because a fifth of few requests is none."""

    window_s: float = 10.0
    """Over how long both are reckoned. What is not used within it is lost."""

    def __post_init__(self) -> None:
        if not self.share >= 0:
            raise ValueError(f"share is {self.share}; it must be 0 or more, such as 0.2 for 20 %")
        if not self.floor_per_s >= 0:
            raise ValueError(f"floor_per_s is {self.floor_per_s}; it must be 0 or more")
        if not self.window_s > 0:
            raise ValueError(f"window_s is {self.window_s}; it must be above 0")


class Budget:
    """What has been spent, and what is left."""

    __slots__ = ("_floor", "_grants", "_requests", "granted", "refused", "settings")

    def __init__(self, settings: RetryBudget) -> None:
        self.settings = settings
        self.granted = 0
        """Since the start."""
        self.refused = 0
        """Since the start."""
        self._floor = settings.floor_per_s * settings.window_s
        self._requests = Window(settings.window_s)
        self._grants = Window(settings.window_s)

    @property
    def spent(self) -> int:
        """Granted within the window, as it was at the last request or retry."""
        return self._grants.count

    def request(self, now: float) -> None:
        """A request's first attempt."""
        requests = self._requests  # as `Window.add` has it: this is on every request's path
        if now >= requests.slot_ends:
            requests.turn(now)
        requests.counts[requests.at] += 1
        requests.count += 1

    def left(self, now: float) -> float:
        """How many would be granted now; a part of one is none."""
        self._requests.turn(now)
        self._grants.turn(now)
        return self.settings.share * self._requests.count + self._floor - self._grants.count

    def grant(self, now: float) -> bool:
        """Whether one more attempt may be made; if so, it is counted."""
        if self.left(now) < 1:
            self.refused += 1
            return False
        self._grants.add(now)
        self.granted += 1
        return True
