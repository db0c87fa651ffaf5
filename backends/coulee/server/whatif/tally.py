"""What is counted while a scenario is played: in all, for each endpoint, and for each slice of the time.

All of it is bounded: latencies go into bins that are 5 % wide, times into `SLICES`, states into `COLUMNS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, log
from typing import Final

SLICES: Final = 120
"""Of the time, in the curves."""

COLUMNS: Final = 600
"""Of the time, in the strips of states: a column shows the worst state that it saw."""

CHANGES_MAX: Final = 10_000
"""Changes of state that are kept; the rest is counted."""

STATES: Final = ("healthy", "slow_start", "half_open", "draining", "maintenance", "removed",
                 "circuit_open", "ejected", "unhealthy")  # fmt: skip
"""The states of an endpoint, the worst last."""

RANKS: Final = {state: rank for rank, state in enumerate(STATES)}

_LEAST_S: Final = 0.0001
_BINS: Final = 331
"""Up to 1,000 s."""
_PER_FOLD: Final = 20.5
"""Bins in a factor of e: 5 % each."""


class Histogram:
    """Latencies in bins: `quantile` is 2.5 % off at most."""

    __slots__ = ("bins", "count")

    def __init__(self) -> None:
        self.bins = [0] * _BINS
        self.count = 0

    def add(self, seconds: float) -> None:
        """One more."""
        self.count += 1
        if seconds <= _LEAST_S:
            self.bins[0] += 1
        else:
            at = int(log(seconds / _LEAST_S) * _PER_FOLD)
            self.bins[at if at < _BINS else -1] += 1

    def quantile(self, share: float) -> float:
        """In seconds; 0 where nothing was added."""
        rank = share * self.count
        seen = 0
        for at, count in enumerate(self.bins):
            seen += count
            if count and seen >= rank:
                return _LEAST_S * exp((at + 0.5) / _PER_FOLD)
        return 0.0

    def take_in(self, other: Histogram) -> None:
        """Add all that another has seen."""
        self.count += other.count
        self.bins = [mine + theirs for mine, theirs in zip(self.bins, other.bins, strict=True)]


@dataclass(slots=True)
class Change:
    """An endpoint changed its state."""

    at_s: float
    name: str
    before: str
    state: str
    cause: str


class Row:
    """What is counted for one endpoint."""

    __slots__ = ("answers_in", "attempts", "attempts_in", "changes", "column", "failures", "failures_in", "latency",
                 "name", "retries", "retries_in", "since_s", "state", "strip", "times_s", "trouble_since_s", "troubles",
                 "waits_in", "weight")  # fmt: skip

    def __init__(self, name: str, weight: int, state: str, now: float = 0.0) -> None:
        self.name = name
        self.weight = weight
        self.attempts = 0
        self.retries = 0
        """... of them not a request's first."""
        self.failures: dict[str, int] = {}
        """... by the reason, or the status."""
        self.latency = Histogram()
        """To the head of an answer."""
        self.attempts_in = [0] * SLICES
        self.retries_in = [0] * SLICES
        self.failures_in = [0] * SLICES
        self.answers_in = [0] * SLICES
        self.waits_in = [0.0] * SLICES
        """The latencies of those answers, added up."""
        self.state = state
        self.changes = 0
        """... of it."""
        self.since_s = now
        self.times_s: dict[str, float] = {}
        """How long it was in each state."""
        self.strip = bytearray(COLUMNS)
        self.column = 0
        self.troubles = bytearray(COLUMNS)
        """In which columns something was wrong with it, whatever the cluster knew of it."""
        self.trouble_since_s = -1.0

    def tried(self, at: int, is_retry: bool) -> None:
        """An attempt begins, in this slice."""
        self.attempts += 1
        self.attempts_in[at] += 1
        if is_retry:
            self.retries += 1
            self.retries_in[at] += 1

    def answered(self, at: int, latency_s: float) -> None:
        """The head of an answer is here, in this slice."""
        self.latency.add(latency_s)
        self.answers_in[at] += 1
        self.waits_in[at] += latency_s

    def failed(self, at: int, reason: str) -> None:
        """An attempt has failed, in this slice."""
        self.failures[reason] = self.failures.get(reason, 0) + 1
        self.failures_in[at] += 1

    def becomes(self, state: str, now: float, columns_per_s: float) -> None:
        """Its state changes; also called at the end, with the state that it has."""
        rank = RANKS[self.state]
        last = min(int(now * columns_per_s), COLUMNS - 1)
        for column in range(self.column, last + 1):
            self.strip[column] = max(self.strip[column], rank)
        self.column = last
        self.times_s[self.state] = self.times_s.get(self.state, 0.0) + now - self.since_s
        self.since_s = now
        self.state = state

    def troubled(self, is_so: bool, now: float, columns_per_s: float) -> None:
        """Something goes wrong with it, or does not any more."""
        since_s = self.trouble_since_s
        if is_so and since_s < 0:
            self.trouble_since_s = now
        elif not is_so and since_s >= 0:
            self.trouble_since_s = -1.0
            last = min(int(now * columns_per_s), COLUMNS - 1)
            for column in range(int(since_s * columns_per_s), last + 1):
                self.troubles[column] = 1


def _zeroes() -> list[int]:
    return [0] * SLICES


@dataclass(slots=True)
class Tally:
    """What is counted for all of them. Each list has one number for each slice."""

    duration_s: float
    requests: int = 0
    arrived: list[int] = field(default_factory=_zeroes)
    good: list[int] = field(default_factory=_zeroes)
    """Answered at the first attempt, and not with a 5xx."""
    rescued: list[int] = field(default_factory=_zeroes)
    """... or after another one."""
    bad: list[int] = field(default_factory=_zeroes)
    """Those that got an error, whoever made it."""
    retries: list[int] = field(default_factory=_zeroes)
    """Attempts after the first, hedges included."""
    hedges: int = 0
    refusals: int = 0
    """Retries and hedges for which the budget had no room."""
    errors: dict[str, int] = field(default_factory=dict[str, int])
    """What clients got that was bad: reasons, and statuses of origins."""
    latency: list[Histogram] = field(default_factory=lambda: [Histogram() for _ in range(SLICES)])
    """From the request to whatever the client got, errors included."""
    rows: dict[str, Row] = field(default_factory=dict[str, Row])
    changes: list[Change] = field(default_factory=list[Change])
    changes_in_all: int = 0

    def ended(self, at: int, attempts: int, error: str, latency_s: float) -> None:
        """A request has ended; `error` is "" where it went well."""
        if error:
            self.bad[at] += 1
            self.errors[error] = self.errors.get(error, 0) + 1
        elif attempts > 1:
            self.rescued[at] += 1
        else:
            self.good[at] += 1
        self.latency[at].add(latency_s)

    def changed(self, row: Row, state: str, cause: str, now: float) -> None:
        """An endpoint has another state."""
        self.changes_in_all += 1
        if len(self.changes) < CHANGES_MAX:
            self.changes.append(Change(now, row.name, row.state, state, cause))
        row.changes += 1
        row.becomes(state, now, COLUMNS / self.duration_s)

    def close(self) -> None:
        """The end of the time."""
        for row in self.rows.values():
            row.becomes(row.state, self.duration_s, COLUMNS / self.duration_s)
            row.troubled(False, self.duration_s, COLUMNS / self.duration_s)

    @property
    def ok(self) -> int:
        """Requests that went well."""
        return sum(self.good) + sum(self.rescued)

    @property
    def failed(self) -> int:
        """Requests that got an error."""
        return sum(self.bad)

    @property
    def under_way(self) -> int:
        """Requests that had not ended when the time was over."""
        return self.requests - self.ok - self.failed

    @property
    def all_latencies(self) -> Histogram:
        """Those of all slices."""
        whole = Histogram()
        for each in self.latency:
            whole.take_in(each)
        return whole
