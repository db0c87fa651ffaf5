"""The model of the origins and of the network to them: everything that is not the real thing.

Rules:

- An origin answers after a time that is drawn from its log-normal distribution, and works on `concurrency` requests at
  once; others queue in it, first come first served.
- What dies resets what it was working on, and refuses connections. What hangs takes requests and answers none; when it
  goes on, it answers those that still wait, as a stopped process does. What has vanished lets connects time out.
- Troubles of different kinds add up: an origin may be slow and give errors. Of those that stop it the last one counts,
  and when that ends it is well.
- The pool is a model too: connections and waiters are bounded as the real one's are, and it costs no time to connect.
"""

from __future__ import annotations

from math import exp, log
from random import Random
from statistics import NormalDist
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from coulee.core.kernel import sleep
from coulee.core.peer import PeerLimits
from coulee.lb.health import CheckFailed

if TYPE_CHECKING:
    from coulee.core.config import Config
    from coulee.lb.endpoint import Endpoint
    from coulee.server.whatif.attempts import Attempt
    from coulee.server.whatif.scenario import Happening, OriginModel, Outages
    from coulee.server.whatif.tally import Row

Mode: TypeAlias = Literal["well", "dead", "vanished", "hung"]

REFUSED_S: Final = 0.001
"""How long it takes to learn that nothing listens."""

FOREVER_S: Final = 3600.0

_DRAWS: Final = 4096
"""Latencies are drawn from so many quantiles, which is ten times as fast as to compute one."""
_Z99: Final = NormalDist().inv_cdf(0.99)
_MODES: Final[dict[str, Mode]] = {"die": "dead", "flap": "dead", "vanish": "vanished", "hang": "hung"}
_NO_LIMITS: Final = PeerLimits()


def latencies_s(median_s: float, p99_s: float) -> list[float]:
    """The quantiles of a log-normal distribution, evenly spaced."""
    centre, spread = log(median_s), (log(p99_s) - log(median_s)) / _Z99
    inverse = NormalDist().inv_cdf
    return [exp(centre + spread * inverse((at + 0.5) / _DRAWS)) for at in range(_DRAWS)]


class Origin:
    """One origin as it is at the moment, with what is going on between us and it."""

    __slots__ = ("at_work", "attempts", "busy", "concurrency", "connections", "connections_max", "error_rate",
                 "error_status", "errors", "errors_by", "mode", "mode_by", "peer", "queue", "rng", "row", "slow",
                 "slow_by", "times_s", "wait_s", "waiters", "waiters_max")  # fmt: skip

    def __init__(self, peer: Endpoint, row: Row, model: OriginModel, times_s: list[float], config: Config, rng: Random):
        self.peer = peer
        self.row = row
        self.rng = rng
        self.times_s = times_s
        self.concurrency = model.concurrency
        self.errors = model.errors
        # what happens to it
        self.mode: Mode = "well"
        self.mode_by: object = None
        self.slow = 1.0
        self.slow_by: object = None
        self.error_rate = model.errors
        self.error_status = 500
        self.errors_by: object = None
        # what it is doing
        self.attempts: dict[Attempt, None] = {}
        """Those with a connection to it."""
        self.busy = 0
        """... that it works on, and those that wait for it."""
        self.queue: dict[Attempt, None] = {}
        # the pool's part
        own = peer.limits or _NO_LIMITS
        limits = config.limits
        self.connections_max = own.connections_max or limits.connections_per_peer_max
        self.waiters_max = limits.pool_waiters_max if own.waiters_max is None else own.waiters_max
        self.wait_s = own.wait_s or config.timeouts.pool_wait_s
        self.waiters: dict[Attempt, None] = {}

    def draw_s(self) -> float:
        """How long the next answer takes."""
        return self.times_s[int(self.rng.random() * _DRAWS)] * self.slow

    def draw_status(self) -> int:
        """What the next answer is."""
        return self.error_status if self.error_rate and self.rng.random() < self.error_rate else 200

    def suffer(self, what: str, by: Happening | Outages) -> None:
        """A trouble begins, on behalf of `by`."""
        if what == "slow":
            self.slow, self.slow_by = by.factor, by
        elif what == "errors":
            self.error_rate, self.error_status, self.errors_by = by.rate, by.status, by
        else:
            self.mode, self.mode_by = _MODES[what], by

    def recover(self, by: object = None) -> None:
        """The troubles that `by` has made, or all of them, end."""
        if by is None or self.slow_by is by:
            self.slow, self.slow_by = 1.0, None
        if by is None or self.errors_by is by:
            self.error_rate, self.error_status, self.errors_by = self.errors, 500, None
        if by is None or self.mode_by is by:
            self.mode, self.mode_by = "well", None

    @property
    def in_trouble(self) -> bool:
        """Whether anything is wrong with it."""
        return self.mode_by is not None or self.slow_by is not None or self.errors_by is not None

    async def check(self, rng: Random) -> None:
        """What an active health check meets: returns where all is well, else raises."""
        mode = self.mode
        if mode == "dead":
            await sleep(REFUSED_S)
            raise CheckFailed("refused")
        while mode != "well":  # whoever checks has a time limit of its own
            await sleep(FOREVER_S)
        await sleep(self.times_s[int(rng.random() * _DRAWS)] * self.slow)
        if self.error_rate and rng.random() < self.error_rate:
            raise CheckFailed(f"answered {self.error_status}")
