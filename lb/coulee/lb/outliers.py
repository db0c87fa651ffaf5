"""Passive health: endpoints that do worse than the others, as real requests find them, are ejected for a while.

Rules:

- Failures in a row are seen at once. Success rates and latencies are compared once per interval, among the endpoints in
  service that have had enough requests in it: the rules are Envoy's.
- The n-th ejection lasts n times `ejection_s`. n counts those in a row: each interval that an endpoint is in service
  from beginning to end, and is found to be no outlier, takes one off.
- However bad they are, no more than a share of the endpoints is ejected at once, and never the last one. The share does
  not protect those that take no connection: who stays gets no less load for it, only a failure more for each retry.
- An endpoint that is readmitted starts anew: what was counted before is forgotten, but for how often it was ejected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import TYPE_CHECKING, Final, TypeAlias

from coulee.core.errors import REASONS
from coulee.core.retrying import UNPROCESSED

if TYPE_CHECKING:
    from coulee.core.peer import PoolKey
    from coulee.lb.endpoint import Endpoint

BLAMED: Final = frozenset(word for word, reason in REASONS.items() if reason.side == "upstream") - {UNPROCESSED}
"""What an endpoint can be blamed for. Not that it did not process a request: so HTTP/2 ends a connection in order, as
nginx does after each thousand requests, and what is on its way then falls by the wayside."""

UNREACHABLE: Final = frozenset({"upstream_refused", "upstream_unreachable", "upstream_connect_timeout"})
"""... and which of it says that it takes no connection."""

_ROUNDING: Final = 1e-9
"""What a sum of floats may be wrong by: who is just at a bound is no outlier, and 29 % of 100 are 29."""


@dataclass(frozen=True, slots=True)
class Outliers:
    """What makes an endpoint an outlier, and what is done with one. A part with 0 is off."""

    consecutive_failures: int = 5
    """Failures in a row; 0: no number of them. Envoy's number. nginx (`max_fails`) counts those within `fail_timeout`,
    in a row or not, and its number is 1."""

    statuses: tuple[int, ...] = (502, 503, 504)
    """Answers that count as failures, beside the attempts without an answer. Not 500: that is what one request met, as
    a rule, and a client that found how to cause it could have all endpoints ejected. Envoy counts all from 500 to
    599."""

    interval_s: float = 10.0
    """How often success rates and latencies are compared. Envoy's number."""

    success_rate_stdevs: float = 1.9
    """By how many standard deviations an endpoint's share of successes must be below the mean of all such shares; 0:
    it does not matter. Envoy's number, which it gives in thousandths."""

    success_rate_gap_min: float = 0.05
    """... and by how much at least. Where nearly all goes well the deviation is next to nothing, and one failure would
    be an outlier: one of five that differs at all is 2 of them below the mean. Envoy has no such rule (its issue
    37723); 0 is as Envoy does."""

    success_rate_endpoints_min: int = 5
    """Endpoints with enough requests, without which shares are not compared. Envoy's number."""

    success_rate_requests_min: int = 100
    """Enough requests, in an interval. Envoy's number."""

    latency_factor: float = 0.0
    """Ejects an endpoint whose mean latency is more than so many times the median of all means (of two medians, the
    lower one, so that this works for two endpoints). Only answers that are no failures count. 0: off, because who is
    far away is slow and well. Neither nginx nor Envoy has it."""

    latency_requests_min: int = 100
    """Answers in an interval that make a mean."""

    ejection_s: float = 10.0
    """The first ejection; the second in a row is twice as long, the third three times. Envoy's is 30 s. nginx's is
    `fail_timeout`, 10 s, every time."""

    ejection_max_s: float = 300.0
    """... but never longer. Envoy's number."""

    ejected_share_max: float = 0.5
    """How large a share of the endpoints may be ejected at once, rounded down, and one is always left: those that stay
    get the load of all. One that takes no connection is ejected beyond it. Envoy's is 10 %, or one endpoint. nginx has
    no limit, and where all are ejected it uses all."""

    def __post_init__(self) -> None:
        for name in ("consecutive_failures", "success_rate_stdevs", "success_rate_gap_min"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0, or 0 for none")
        for name in ("interval_s", "success_rate_endpoints_min", "success_rate_requests_min", "latency_requests_min",
                     "ejection_s"):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not (self.latency_factor == 0 or self.latency_factor > 1):
            raise ValueError(f"latency_factor is {self.latency_factor}; it must be above 1, or 0 for off")
        if not self.ejection_max_s >= self.ejection_s:
            raise ValueError(
                f"ejection_max_s is {self.ejection_max_s}; it must be ejection_s, {self.ejection_s}, or more"
            )
        if not 0 <= self.ejected_share_max <= 1:
            raise ValueError(f"ejected_share_max is {self.ejected_share_max}; it must be from 0 to 1")
        for status in self.statuses:
            if not 100 <= status <= 599:
                raise ValueError(f"statuses has {status}, which is no status; they are from 100 to 599")


class Record:
    """What an endpoint has done of late."""

    __slots__ = ("consecutive", "ejected_until", "ejections", "failures", "latency_sum_s", "requests", "steady")

    def __init__(self) -> None:
        self.ejected_until = 0.0
        """0.0: it is not ejected."""
        self.ejections = 0
        """In a row: how many times `ejection_s` the last one lasted, less one for each quiet interval since."""
        self.steady = True
        """Not ejected at any moment of this interval: the sweep that ends it says so of the next."""
        self.forget()

    def well(self, latency_s: float) -> None:
        """An attempt has succeeded."""
        self.requests += 1
        self.consecutive = 0
        self.latency_sum_s += latency_s

    def forget(self) -> None:
        """It has done nothing."""
        self.consecutive = 0
        """Failures since the last success."""
        self.forget_interval()

    def forget_interval(self) -> None:
        """It has done nothing in this interval."""
        self.requests = 0
        """Attempts with an outcome."""
        self.failures = 0
        """... that failed."""
        self.latency_sum_s = 0.0
        """... of those that did not."""


Row: TypeAlias = "tuple[Endpoint, Record]"
Found: TypeAlias = "tuple[Endpoint, str]"


class Detector:
    """Finds outliers. It keeps nothing itself: all is in the records."""

    def __init__(self, settings: Outliers) -> None:
        self.settings = settings

    def note(self, record: Record, failed: bool, latency_s: float) -> str:
        """An attempt's outcome, one for each. Gives why its endpoint should be ejected now, or ""."""
        if not failed:
            record.well(latency_s)
            return ""
        record.requests += 1
        record.failures += 1
        record.consecutive += 1
        if record.consecutive < self.settings.consecutive_failures or not self.settings.consecutive_failures:
            return ""
        return f"{record.consecutive} failures in a row"

    def sweep(self, rows: Sequence[Row]) -> list[Found]:
        """An interval has ended: those that should be ejected now, with the cause, the worst first (for not all of them
        may be ejected). The next interval begins."""
        in_service = [row for row in rows if not row[1].ejected_until]
        found: dict[PoolKey, Found] = {}
        for endpoint, cause in (*self._failing(in_service), *self._slow(in_service)):
            found.setdefault(endpoint.key, (endpoint, cause))
        for endpoint, record in in_service:
            if record.steady and record.ejections and endpoint.key not in found:
                record.ejections -= 1
            record.steady = True
        for _, record in rows:
            record.forget_interval()
        return list(found.values())

    def eject(self, record: Record, now: float, members: int, ejected: int, *, unreachable: bool = False) -> bool:
        """Ejects an endpoint of a cluster of `members`, of which so many are `ejected`. False where that would be too
        many, and where it is ejected already. `unreachable`: it took no connection, so it bears no load anyhow."""
        settings = self.settings
        room = members - 1
        if not unreachable:
            room = min(int(settings.ejected_share_max * members + _ROUNDING), room)
        if record.ejected_until or ejected >= room:
            return False
        if record.ejections * settings.ejection_s < settings.ejection_max_s:
            record.ejections += 1
        record.ejected_until = now + min(record.ejections * settings.ejection_s, settings.ejection_max_s)
        record.steady = False
        return True

    def readmit(self, record: Record) -> None:
        """Its ejection has ended, or somebody knows better."""
        record.ejected_until = 0.0
        record.forget()

    def _failing(self, rows: Sequence[Row]) -> list[Found]:
        """Those with too low a share of successes, the lowest first."""
        settings = self.settings
        judged = [
            (1 - record.failures / record.requests, endpoint, record)
            for endpoint, record in rows
            if record.requests >= settings.success_rate_requests_min
        ]
        if not settings.success_rate_stdevs or len(judged) < settings.success_rate_endpoints_min:
            return []
        mean = math.fsum(rate for rate, _, _ in judged) / len(judged)
        stdev = math.sqrt(math.fsum((rate - mean) ** 2 for rate, _, _ in judged) / len(judged))
        gap = max(settings.success_rate_stdevs * stdev, settings.success_rate_gap_min) + _ROUNDING
        return [
            (endpoint, f"{record.failures} of {record.requests} requests failed, {1 - mean:.1%} is the mean")
            for rate, endpoint, record in sorted(judged, key=lambda each: each[0])
            if mean - rate > gap
        ]

    def _slow(self, rows: Sequence[Row]) -> list[Found]:
        """Those that take too long, the longest first."""
        settings = self.settings
        judged = [
            (record.latency_sum_s / (record.requests - record.failures), endpoint)
            for endpoint, record in rows
            if record.requests - record.failures >= settings.latency_requests_min
        ]
        if not settings.latency_factor or not judged:
            return []
        median = median_low([mean_s for mean_s, _ in judged])
        return [
            (endpoint, f"mean latency {mean_s * 1e3:.4g} ms, {median * 1e3:.4g} ms is the median")
            for mean_s, endpoint in sorted(judged, key=lambda each: -each[0])
            if mean_s > settings.latency_factor * median > 0
        ]
