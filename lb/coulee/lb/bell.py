"""What ends by time in a cluster, and the one alarm that minds it: ejections, open circuits, steps of a slow start, the
intervals in which endpoints are compared, and the windows of their latencies.

Where nothing is going on the alarm is not set: an interval begins with the first request in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final, Protocol

from coulee.core.kernel import Alarm, Kernel
from coulee.lb.endpoint import Endpoint

LATENCY_WINDOW_S: Final = 60.0
"""Quantiles are over one to two of these."""


class Minded(Protocol):
    """The cluster."""

    @property
    def members(self) -> Sequence[Endpoint]:
        """Its endpoints."""
        ...

    @property
    def kernel(self) -> Kernel | None:
        """What it runs on, if it does."""
        ...

    def due(self, endpoint: Endpoint) -> float:
        """When the next thing about an endpoint ends; `inf` where nothing does."""
        ...

    def expire(self, endpoint: Endpoint, now: float) -> None:
        """That time has come."""
        ...

    def sweep(self) -> None:
        """An interval with requests has ended."""
        ...


class Bell(Alarm):
    """Rings for a cluster."""

    __slots__ = ("_cluster", "_interval_s", "_rotate_at", "_stopped", "_sweep_at", "_timed", "counting")

    def __init__(self, cluster: Minded, interval_s: float) -> None:
        super().__init__()
        self._cluster = cluster
        self._interval_s = interval_s
        self._timed: dict[Endpoint, float] = {}  # when the next of each ends
        self._sweep_at = self._rotate_at = inf
        self.counting = False
        """Whether an interval has begun."""
        self._stopped = False

    def mind(self, endpoint: Endpoint) -> None:
        """Something of an endpoint may end at another time than was known."""
        due = self._cluster.due(endpoint)
        if due != inf:
            self._timed[endpoint] = due
            self._set(due)
        else:
            self._timed.pop(endpoint, None)

    def forget(self, endpoint: Endpoint) -> None:
        """It is no member any more."""
        self._timed.pop(endpoint, None)

    def count(self) -> None:
        """The first request in a while: an interval begins."""
        kernel = self._cluster.kernel
        if kernel is None:
            return
        self.counting = True
        self._sweep_at = kernel.now + self._interval_s
        if self._rotate_at == inf:
            self._rotate_at = kernel.now + LATENCY_WINDOW_S
        self._set(min(self._sweep_at, self._rotate_at))

    def ring(self, now: float) -> None:
        for endpoint in [each for each, due in self._timed.items() if due <= now]:
            self._cluster.expire(endpoint, now)  # which calls `mind`
        if self._sweep_at <= now:
            self._sweep_at = inf
            self.counting = False
            self._cluster.sweep()
        if self._rotate_at <= now:
            self._rotate(now)
        self._set(min(self._sweep_at, self._rotate_at, min(self._timed.values(), default=inf)))

    def _rotate(self, now: float) -> None:
        """Forget old latencies; go on as long as there are any."""
        some = False
        for endpoint in self._cluster.members:
            some = some or endpoint.latency.count > 0
            endpoint.latency.rotate()
        self._rotate_at = now + LATENCY_WINDOW_S if some else inf

    def stop(self) -> None:
        """For good."""
        self._stopped = True
        if self._cluster.kernel is not None:
            self._cluster.kernel.disarm(self)

    def _set(self, due: float) -> None:
        """Ring at this time at the latest. That what was due earlier is so no more, is noticed when it rings: only then
        are all looked at."""
        kernel = self._cluster.kernel
        if kernel is not None and not self._stopped and due < self.deadline:
            kernel.arm(self, due)
