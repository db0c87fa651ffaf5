"""Whether an endpoint is healthy, by what its checks came to: the settings of checks, and the count that decides.

The whole table; `n` counts checks in a row that speak against the state:

| state               | a good check                          | a bad check                      |
|---------------------|---------------------------------------|----------------------------------|
| healthy             | n = 0                                 | n + 1; at `fall`: unhealthy      |
| unhealthy           | n + 1; at `rise`: healthy             | n = 0                            |
| not checked yet     | healthy at once                       | as in the state it starts in     |

Rules:

- A change of state begins a count anew. One bad check is no outage, and one good one no recovery.
- The first check alone decides for the good: where nothing is known, there is no failure to live down. HAProxy
  (`init-state down`) and Envoy do the same. A first check that is bad counts as any other: what starts healthy takes
  `fall` of them to go, and what starts unhealthy then takes `rise` good ones to come.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import Final, Literal, TypeAlias

from coulee.lb.endpoint import Endpoint

Probe: TypeAlias = Callable[[Endpoint], Awaitable[None]]
"""One check of one endpoint: an `async def` that returns where it is healthy, and raises where it is not. What it may
await are the effects of `coulee.core`. The text of what it raises is the cause that people read."""

NOT_CHECKED_YET: Final = "not checked yet"
"""Why an endpoint that starts unhealthy is so."""

_SHOWN_MAX: Final = 60
"""Characters of what came that a cause repeats."""


class CheckFailed(Exception):
    """What a probe raises: the endpoint is not healthy, and this is why."""

    @classmethod
    def unlike(cls, protocol: str, data: bytes) -> CheckFailed:
        """What came is not what the protocol has: the beginning of it says what it may be."""
        line = data.lstrip(b"\r\n").partition(b"\n")[0].rstrip(b"\r")[:_SHOWN_MAX].decode("latin-1")
        return cls(f"not {protocol}: {line if line.isprintable() and line.isascii() else ascii(line)[1:-1]}")


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How the endpoints of a cluster are checked: `HealthCheck(Http(path="/health"))`. Raises `ValueError`."""

    probe: Probe
    """What one check does: `Tcp()`, `Http()`, `TlsHello()`, `Grpc()`, or an `async def` of your own."""

    interval_s: float = 5.0
    """From the start of one check of an endpoint to that of its next, while it is healthy."""

    jitter: float = 0.1
    """The share of an interval by which it may be shorter, so that not all proxies check an endpoint at once."""

    unhealthy_interval_s: float = 1.0
    """The interval while it is unhealthy, or a count is on the way to a change: a change is then soon made, or found to
    be none. Never longer than `interval_s`, whatever stands here."""

    timeout_s: float = 2.0
    """For one check from beginning to end. One that takes longer is a bad one."""

    rise: int = 2
    """Good checks in a row that make an unhealthy endpoint healthy."""

    fall: int = 3
    """Bad checks in a row that make a healthy endpoint unhealthy."""

    start: Literal["healthy", "unhealthy"] = "healthy"
    """What an endpoint is before its first check. "unhealthy" sends it nothing that it might not answer, and has a
    cluster begin with no endpoint, for as long as a check takes."""

    at_once_max: int = 64
    """Checks of one cluster that run side by side. More wait, first come first served."""

    def __post_init__(self) -> None:
        for name in ("interval_s", "unhealthy_interval_s", "timeout_s"):
            if not 0 < getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0, and finite")
        for name in ("rise", "fall", "at_once_max"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter is {self.jitter}; it must be a share of the interval, from 0 to below 1")
        if self.start not in ("healthy", "unhealthy"):
            raise ValueError(f"start is {self.start!r}; it must be 'healthy' or 'unhealthy'")


class Health:
    """What the checks of one endpoint have come to."""

    __slots__ = ("_against", "_settings", "cause", "checks", "failed", "healthy")

    def __init__(self, settings: HealthCheck) -> None:
        self._settings = settings
        self._against = 0  # checks in a row that speak against the state
        self.healthy = settings.start == "healthy"
        self.cause = "" if self.healthy else NOT_CHECKED_YET
        """Why it is unhealthy: what its last bad check said; "" where it is healthy."""
        self.checks = 0
        """Checks so far."""
        self.failed = 0
        """... of which so many were bad."""

    def note(self, ok: bool, cause: str = "") -> bool:
        """A check has ended: what it came to, and why it was bad. True where the state changes."""
        self.checks += 1
        if not ok:
            self.failed += 1
            if not self.healthy:
                self.cause = cause
        if ok == self.healthy:
            self._against = 0
            return False
        self._against += 1
        needed = self._settings.fall if self.healthy else 1 if self.checks == 1 else self._settings.rise
        if self._against < needed:
            return False
        self._against = 0
        self.healthy = ok
        self.cause = "" if ok else cause
        return True

    @property
    def interval_s(self) -> float:
        """How long after the start of its last check the next is due, without jitter."""
        settings = self._settings
        if self.healthy and not self._against:
            return settings.interval_s
        return min(settings.interval_s, settings.unhealthy_interval_s)
