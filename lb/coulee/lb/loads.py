"""Policies by load: least requests, the better of two, and peak EWMA.

Rules:

- The load of a busy endpoint is what it would have in flight, this request included, by weight; an idle one has none.
  So an idle endpoint is never passed over for a busy one, however little it weighs (HAProxy's rule for `leastconn`).
- Where loads are equal, weights decide whose turn it is: an idle cluster is served as by round robin, or at random.
- Least requests looks at all endpoints: best behind one proxy. Behind many, all of them choose the same endpoint at the
  same time; two choices do not (Mitzenmacher, 2001: The Power of Two Choices in Randomized Load Balancing).
"""

from __future__ import annotations

from collections.abc import Collection
from heapq import heapify, heappop, heappush, heapreplace
from math import exp
from typing import Final, TypeAlias

from coulee.core.peer import Routed
from coulee.lb.endpoint import Endpoint
from coulee.lb.policy import Policy
from coulee.lb.turns import Lots, weight_of

STALE_MAX: Final = 2
"""Entries in the heap of loads for each endpoint, before it is built again without those that hold no more."""

LATENCY_MIN_S: Final = 1e-6
"""What an endpoint is taken to need of which nothing is known, or nothing any more. Nothing answers as fast, so it is
asked soon."""

PENALTY_S: Final = 1000.0
"""... and what it is taken to need while it is being asked: one request at a time, until the first answer."""

_Key: TypeAlias = tuple[float, float, int]
"""The load, the start of the next turn, and the place in the table."""


class LeastRequests(Policy):
    """The one with the fewest requests in flight, by weight."""

    def __init__(self) -> None:
        self._rows: list[_Row] = []
        """Of the usable ones."""
        self._row_of: dict[Endpoint, _Row] = {}
        """Of all members."""
        self._heap: list[_Key] = []
        """Keys of rows, none above what it would be now: a load that has risen is noticed when its key comes up. Of a
        row's keys, only the one that it has as `key` holds; others are stale."""
        self._now = 0.0
        """The start of the latest turn, in turns of an endpoint that weighs 1."""

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        """The least loaded."""
        return self._least(tried) or (self._least(tried) if self._fetch() else None)

    def _least(self, tried: Collection[str]) -> Endpoint | None:
        rows, heap = self._rows, self._heap
        passed: list[_Key] = []
        chosen: Endpoint | None = None
        while heap and chosen is None:
            key = heap[0]
            row = rows[key[2]]
            endpoint = row.endpoint
            if key is not row.key:
                heappop(heap)
            elif not endpoint.open:
                heappop(heap)
                row.key = None
            elif key != (now := row.key_now()):
                row.key = now
                heapreplace(heap, now)
            elif endpoint.name in tried:
                passed.append(heappop(heap))
            else:
                chosen = endpoint
        for key in passed:
            heappush(heap, key)
        return chosen

    def _fetch(self) -> bool:
        """Nobody in the heap may be chosen: is there one who opened without a word?"""
        away = [row for row in self._rows if row.key is None and row.endpoint.open]
        for row in away:
            self._push(row, row.key_now())
        return bool(away)

    def began(self, endpoint: Endpoint) -> None:
        """It has had its turn."""
        row = self._row_of.get(endpoint)
        if row is not None:
            self._now = max(self._now, row.start)
            row.start = self._now + 1 / weight_of(endpoint)

    def ended(self, endpoint: Endpoint) -> None:
        """Its load has fallen, or it was full and is back."""
        row = self._row_of.get(endpoint)
        if row is not None and row.place >= 0:
            key = row.key_now()
            if row.key is None or key < row.key:
                self._push(row, key)

    def _push(self, row: _Row, key: _Key) -> None:
        row.key = key
        heappush(self._heap, key)
        if len(self._heap) > (STALE_MAX + 1) * len(self._rows):
            self._build()

    def changed(self) -> None:
        """Other endpoints, or weights; each member keeps its turn."""
        before, view = self._row_of, self.view
        self._row_of = {endpoint: before.get(endpoint) or _Row(endpoint) for endpoint in view.members}
        for row in self._row_of.values():
            row.place = -1
        self._rows = [self._row_of[endpoint] for endpoint in view.usable]
        for place, row in enumerate(self._rows):
            row.place = place
        self._build()

    def _build(self) -> None:
        for row in self._rows:
            row.key = row.key_now()
        self._heap = [row.key for row in self._rows if row.key is not None]
        heapify(self._heap)


class _Row:
    """What is kept of an endpoint."""

    __slots__ = ("endpoint", "key", "place", "start")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.start = 0.0
        self.place = -1
        """Among the usable ones."""
        self.key: _Key | None = None

    def key_now(self) -> _Key:
        return load_of(self.endpoint), self.start, self.place


class TwoChoices(Policy):
    """The less loaded of two that are drawn by weight."""

    def __init__(self) -> None:
        self._lots = Lots()

    def changed(self) -> None:
        """Other lots."""
        self._lots = Lots(self.view.usable)

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        """The better of the two; the first where they are alike."""
        lots, rng = self._lots, self.view.rng
        one = lots.draw_place(rng, tried)
        if one < 0:
            return lots.search(rng, tried)
        first = lots.endpoints[one]
        other = lots.draw_place(rng, tried, one)
        if other < 0:
            return first
        second = lots.endpoints[other]
        return second if self._better(second, first) else first

    def _better(self, one: Endpoint, other: Endpoint) -> bool:
        return load_of(one) < load_of(other)


class PeakEwma(TwoChoices):
    """The better of two by how fast they answer, times their load: Finagle's policy of that name.

    The latency of an endpoint is an average over the last `decay_s` seconds, more or less, but a worse one replaces it
    at once. It fades while nothing is heard, so that an endpoint that was slow is tried again.
    """

    def __init__(self, decay_s: float = 10.0) -> None:
        if not 0 < decay_s < float("inf"):
            raise ValueError(f"decay_s is {decay_s}; it must be a number of seconds above 0, such as 10")
        super().__init__()
        self.decay_s = decay_s
        self._heard: dict[Endpoint, tuple[float, float]] = {}
        """The average latency of each that has answered, and when it last did."""

    def changed(self) -> None:
        """Other lots, and who is gone is forgotten."""
        super().changed()
        heard = self._heard
        self._heard = {endpoint: heard[endpoint] for endpoint in self.view.members if endpoint in heard}

    def answered(self, endpoint: Endpoint, latency_s: float) -> None:
        """An answer counts the more, the longer nothing was heard."""
        now = self.view.now
        average_s, then = self._heard.get(endpoint, (latency_s, now))
        kept = exp((then - now) / self.decay_s)
        self._heard[endpoint] = (max(latency_s, average_s * kept + latency_s * (1 - kept)), now)

    def latency_s(self, endpoint: Endpoint) -> float:
        """What it is taken to need now."""
        if endpoint not in self._heard:
            return PENALTY_S if endpoint.in_flight else LATENCY_MIN_S
        average_s, then = self._heard[endpoint]
        return max(average_s * exp((then - self.view.now) / self.decay_s), LATENCY_MIN_S)

    def _better(self, one: Endpoint, other: Endpoint) -> bool:
        cost, cost_other = self.latency_s(one), self.latency_s(other)
        if one.in_flight or other.in_flight:
            cost *= (one.in_flight + 1) / weight_of(one)
            cost_other *= (other.in_flight + 1) / weight_of(other)
        return cost < cost_other


def load_of(endpoint: Endpoint) -> float:
    """Requests in flight by weight, with the one that is to come; 0 for an idle endpoint."""
    return (endpoint.in_flight + 1) / weight_of(endpoint) if endpoint.in_flight else 0.0
