"""Policies by turn: round robin by weight, and weighted random.

Rules:

- Round robin is EEVDF (Stoica and Abdel-Wahab, 1995; Linux's scheduler since 6.6). A turn of an endpoint takes
  `1 / weight` of virtual time. One whose turn has started is eligible, and of those the one whose turn ends first is
  chosen. So no endpoint is a whole request ahead of its share, or behind it.
- Nobody is chosen twice in a row while there is another, unless its weight is more than half of the whole.
- Virtual time is the mean of all starts, by weight. So an endpoint that leaves or comes moves no other's start: there
  is nothing to reset. It is counted in integers: no error adds up, however long the proxy runs.
- Endpoints of one weight stand in one queue, in the order of their starts. Two heaps hold the queues, not the
  endpoints: with a few different weights, ten thousand endpoints cost what ten do.
- The time of one that is away stands still: when it is back, it has as much of its turn left as when it went, and
  nothing to catch up with. One that is full when its turn comes is away until an attempt of it ends, or `changed`.
- One that this exchange has tried is passed over, and neither loses a turn by it nor gains one.
"""

from __future__ import annotations

from bisect import bisect_right, insort_right
from collections import deque
from collections.abc import Collection, Sequence
from heapq import heapify, heappop, heappush
from itertools import accumulate
from operator import attrgetter
from random import Random
from typing import Final

from coulee.core.peer import Routed
from coulee.lb.endpoint import Endpoint
from coulee.lb.policy import Policy

UNITS: Final = 256
"""Parts of a weight of 1 that can be told apart, as a slow start needs it. One part is also what a weight of 0 counts,
where a cluster that fails open uses such an endpoint at all."""

CYCLE: Final = (720720 * UNITS) << 28
"""Virtual time of one turn of an endpoint that weighs one unit. Each whole weight up to 16 divides it; the turns of
others are rounded by less than one part in 2**31."""

DRAWS_MAX: Final = 16
"""Draws that may meet an endpoint that is full, or was tried, before all are looked at."""


class RoundRobin(Policy):
    """Each its turn, by weight: with 5, 1 and 1 that is a b a a c a a."""

    def __init__(self) -> None:
        self._turns: dict[Endpoint, _Turn] = {}
        """Of all members."""
        self._queues: dict[int, _Queue] = {}
        """By the units that each in it weighs."""
        self._ready: list[tuple[int, int, _Queue]] = []
        """A heap of the queues whose first turn has started, by its end. No two have the same step."""
        self._waiting: list[tuple[int, int, _Queue]] = []
        """A heap of the other queues, by the start of their first turn. An empty queue is in neither."""
        self._whole = 0
        """What all weigh that stand in queues."""
        self._starts = 0
        """The sum of their starts, each times its weight."""
        self._last: Endpoint | None = None
        self._only: _Queue | None = None
        """The queue, where there is but one: who is first in it is next, and no heap needs to be asked."""
        self._stale = False
        """Whether that was done, so that the heaps do not know where it stands."""

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        """The one whose turn it is."""
        only = self._only
        if only is not None and not tried and only.turns:  # all weigh the same: so it nearly always is
            turns = only.turns
            turn = turns[0]
            endpoint = turn.endpoint
            if endpoint.open:
                start = turn.start + only.step
                if turns[-1].start <= start:
                    turns.rotate(-1)
                    turn.start = start
                else:
                    only.take(0)
                self._starts += only.gain
                self._stale = True
                self._last = endpoint
                return endpoint
        return self._next(tried) or (self._next(tried) if self._fetch() else None)

    def _next(self, tried: Collection[str]) -> Endpoint | None:
        if self._stale:
            self._place_queues()
        ready, waiting = self._ready, self._waiting
        now = self._virtual_time()
        while waiting and waiting[0][0] <= now:
            _, step, queue = heappop(waiting)
            heappush(ready, (queue.turns[0].start + step, step, queue))
        chosen: tuple[_Queue, int] | None = None
        looked_at: list[_Queue] = []
        while ready or waiting:
            queue = heappop(ready or waiting)[2]
            looked_at.append(queue)
            place = self._first(queue, tried, now)
            if place is None:
                continue
            chosen = queue, place
            if tried or queue.turns[place].endpoint is not self._last or queue.units * 2 > self._whole:
                break  # else it is chosen only where there is no other
        endpoint: Endpoint | None = None
        if chosen is not None:
            endpoint = chosen[0].take(chosen[1])
            self._starts += chosen[0].gain
        for queue in looked_at:
            if queue.turns:
                heappush(waiting, (queue.turns[0].start, queue.step, queue))
        if endpoint is not None and tried:
            self._let_time_pass(tried)
        else:
            self._last = endpoint or self._last
        return endpoint

    def _let_time_pass(self, tried: Collection[str]) -> None:
        """A retry is a turn among those that were not tried: time passes for the others meanwhile. Else whoever fails
        would be owed a turn for each retry, and soon be the first choice of every request."""
        turns = [turn for turn in self._turns.values() if turn.endpoint.name in tried and not turn.away]
        rest = self._whole - sum(turn.units for turn in turns)
        for turn in turns:
            queue = self._queues[turn.units]
            queue.turns.remove(turn)
            self._whole -= turn.units
            self._starts -= turn.units * turn.start
            turn.start += CYCLE // rest
            if queue.turns:
                turn.start = min(turn.start, queue.turns[0].start + 2 * queue.step)
            queue.put(turn)
            self._whole += turn.units
            self._starts += turn.units * turn.start
        self._stale = True

    def _first(self, queue: _Queue, tried: Collection[str], now: int) -> int | None:
        """The place of the first in a queue who may be chosen. Those before it who are not open go away."""
        turns = queue.turns
        place = 0
        while place < len(turns):
            turn = turns[place]
            if not turn.endpoint.open:
                del turns[place]
                self._whole -= queue.units
                self._starts -= queue.units * turn.start
                turn.leave(now)
            elif turn.endpoint.name in tried:
                place += 1
            else:
                return place
        return None

    def _virtual_time(self) -> int:
        return self._starts // self._whole if self._whole else 0

    def _fetch(self) -> bool:
        """Nobody in the queues may be chosen: is there one who opened without a word?"""
        before = self._whole
        for endpoint in self.view.usable:
            self.ended(endpoint)
        return self._whole > before

    def ended(self, endpoint: Endpoint) -> None:
        """One that was full is back."""
        turn = self._turns.get(endpoint)
        if turn is not None and turn.away and endpoint.open:
            if self._stale:
                self._place_queues()
            queue = self._queue_for(endpoint)
            turn.come(self._virtual_time(), queue.units, self._whole)
            if queue.turns:
                turn.start = max(turn.start, queue.turns[0].start)  # whose queue has its place in a heap
            self._add(queue, turn)
            if len(queue.turns) == 1:
                heappush(self._waiting, (turn.start, queue.step, queue))

    def changed(self) -> None:
        """All leave, and those that are usable come again: first those that were here, in the order that they had."""
        now = self._virtual_time()
        standing = [turn for queue in self._queues.values() for turn in queue.turns]
        for turn in standing:
            turn.leave(now)
        self._turns = {endpoint: self._turns.get(endpoint) or _Turn(endpoint) for endpoint in self.view.members}
        self._queues = {}
        self._whole = self._starts = 0
        coming = dict.fromkeys(self.view.usable)
        for turn in standing:
            if turn.endpoint in coming:
                del coming[turn.endpoint]
                queue = self._queue_for(turn.endpoint)
                turn.come(now, queue.units)
                self._add(queue, turn)
        for endpoint in coming:
            queue, turn = self._queue_for(endpoint), self._turns[endpoint]
            turn.come(self._virtual_time(), queue.units, self._whole)
            self._add(queue, turn)
        self._place_queues()

    def _place_queues(self) -> None:
        """Put all queues into the heap of those that wait."""
        self._stale = False
        self._ready = []
        self._waiting = [(queue.turns[0].start, queue.step, queue) for queue in self._queues.values() if queue.turns]
        heapify(self._waiting)
        self._only = next(iter(self._queues.values())) if len(self._queues) == 1 else None

    def _queue_for(self, endpoint: Endpoint) -> _Queue:
        units = max(1, round(endpoint.effective_weight * UNITS))
        queue = self._queues.get(units)
        if queue is None:
            queue = self._queues[units] = _Queue(units)
            self._only = queue if len(self._queues) == 1 else None
        return queue

    def _add(self, queue: _Queue, turn: _Turn) -> None:
        queue.add(turn)
        self._whole += queue.units
        self._starts += queue.units * turn.start


class _Turn:
    """The present turn of an endpoint."""

    __slots__ = ("away", "endpoint", "start", "units")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.away = True
        """Whether it stands in no queue."""
        self.start = 0
        """In virtual time; while it is away, how far that was from the time when it went."""
        self.units = 0
        """What it weighed when it last came."""

    def leave(self, now: int) -> None:
        """Never more than one turn is owed, by it or to it, whatever the others did."""
        step = CYCLE // self.units
        self.start = min(max(self.start - now, -step), step)
        self.away = True

    def come(self, now: int, units: int, others: int = 0) -> None:
        """With another weight, the same part of its turn is left. What the others weigh counts, since it moves their
        mean: without it, whoever came and went all the time would have more turns (Linux, `place_entity`)."""
        left = self.start if units == self.units else self.start * self.units // units
        self.start = now + (left * (others + units) // others if others else left)
        self.units = units
        self.away = False


class _Queue:
    """Those of one weight, in the order of their starts. These lie within one turn, or three where requests were
    tried again: so the first, when it has had its turn, goes to the end, or near to it."""

    __slots__ = ("gain", "step", "turns", "units")

    def __init__(self, units: int) -> None:
        self.units = units
        self.step = CYCLE // units
        self.gain = units * self.step
        """Of the sum of all starts, when one has its turn."""
        self.turns: deque[_Turn] = deque()

    def add(self, turn: _Turn) -> None:
        turns = self.turns
        if turns:
            turn.start = min(max(turn.start, turns[-1].start - self.step), turns[0].start + self.step)
        self.put(turn)

    def put(self, turn: _Turn) -> None:
        """In its place by its start, behind those of the same."""
        turns = self.turns
        if not turns or turns[-1].start <= turn.start:
            turns.append(turn)
        else:
            insort_right(turns, turn, key=attrgetter("start"))

    def take(self, place: int) -> Endpoint:
        """The endpoint at a place has its turn."""
        turn = self.turns[place]
        del self.turns[place]
        turn.start += self.step
        self.put(turn)
        return turn.endpoint


class RandomChoice(Policy):
    """Anybody, by weight: nothing to keep, and nothing that many proxies could do in step."""

    def __init__(self) -> None:
        self._lots = Lots()

    def changed(self) -> None:
        """Other lots."""
        self._lots = Lots(self.view.usable)

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        """One drawn by weight."""
        return self._lots.draw(self.view.rng, tried)


class Lots:
    """Some endpoints, to be drawn by weight, with a few numbers for each."""

    def __init__(self, endpoints: Sequence[Endpoint] = ()) -> None:
        self.endpoints = list(endpoints)
        self.ends = list(accumulate(weight_of(endpoint) for endpoint in self.endpoints))
        """Each has what lies between the end of the one before it and its own."""

    def draw(self, rng: Random, tried: Collection[str]) -> Endpoint | None:
        """One that is open and was not tried; None where there is none."""
        place = self.draw_place(rng, tried)
        return self.search(rng, tried) if place < 0 else self.endpoints[place]

    def draw_place(self, rng: Random, tried: Collection[str], but: int = -1) -> int:
        """Its place; -1 where `DRAWS_MAX` draws met none. `but` is a place that is not drawn."""
        endpoints, ends = self.endpoints, self.ends
        last = len(ends) - 1
        if last < 0 or (last == 0 and but == 0):
            return -1
        before = ends[but - 1] if but > 0 else 0.0
        gap = ends[but] - before if but >= 0 else 0.0
        for _ in range(DRAWS_MAX):
            point = rng.random() * (ends[last] - gap)
            place = bisect_right(ends, point if point < before else point + gap, 0, last)
            endpoint = endpoints[place]
            if endpoint.open and place != but and endpoint.name not in tried:  # it may be `but`, as sums are rounded
                return place
        return -1

    def search(self, rng: Random, tried: Collection[str]) -> Endpoint | None:
        """The same, where most are full or were tried: all are looked at."""
        found = [endpoint for endpoint in self.endpoints if endpoint.open and endpoint.name not in tried]
        return rng.choices(found, [weight_of(endpoint) for endpoint in found])[0] if found else None


def weight_of(endpoint: Endpoint) -> float:
    """Its share; never 0, since an endpoint without a weight is usable only where a cluster fails open."""
    return max(endpoint.effective_weight, 1 / UNITS)
