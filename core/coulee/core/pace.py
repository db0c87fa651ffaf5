"""How much of a request's body a client sends, and how fast.

Speed is reckoned over waits only. When they add up to a window, what came since the last such moment must have been
enough; so nothing is reckoned while the origin, or a filter, holds the body back, and nothing rings for each piece.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from coulee.core.errors import ExchangeError
from coulee.core.parts import Data, Part

if TYPE_CHECKING:
    from coulee.core.config import Config
    from coulee.core.parts import Request


class Pace:
    """That of one body, told of each wait and of each part."""

    __slots__ = ("bytes_max", "idle_s", "left_s", "reckoned", "since", "size", "timeouts")

    def __init__(self, config: Config, request: Request) -> None:
        self.timeouts = timeouts = config.timeouts
        self.bytes_max = config.limits.request_body_bytes_max or inf
        self.idle_s = timeouts.body_idle_timeout_s
        self.size = len(request.data)  # so far
        self.reckoned = 0  # how much of it has been reckoned with
        self.left_s = timeouts.body_rate_grace_s + timeouts.body_rate_window_s  # of waits, until that is done again
        self.since = 0.0  # the beginning of the present wait

    def be_patient(self, idle_s: float) -> None:
        """It may stand still for so long, and has no speed."""
        self.idle_s = idle_s
        self.left_s = inf

    def too_large(self, announced: int = 0) -> bool:
        """Whether the body is over the limit, or will be."""
        return self.size > self.bytes_max or announced > self.bytes_max

    def too_large_error(self) -> ExchangeError:
        """What is to be said of it then."""
        return ExchangeError("body_too_large", f"the body is larger than {self.bytes_max} bytes")

    def wait_begins(self, now: float) -> float:
        """Somebody waits for the next part: so long at most."""
        self.since = now
        return min(self.idle_s, self.left_s)

    def wait_ends(self, now: float, part: Part) -> None:
        """It has come. Raises `ExchangeError` where the body is too large now."""
        self.left_s -= now - self.since
        if isinstance(part, Data):
            self.size += len(part.data)
            if self.too_large():
                raise self.too_large_error()

    def overdue(self, now: float) -> ExchangeError | float:
        """The present wait has been long, or all of them together: what is wrong, or how long it may go on."""
        timeouts = self.timeouts
        idle_at = self.since + self.idle_s
        wanted = timeouts.body_rate_min_bytes_per_s
        if now >= idle_at:
            return ExchangeError("body_timeout", f"no byte of the body for {self.idle_s:g} s")
        if self.size - self.reckoned < wanted * timeouts.body_rate_window_s:
            return ExchangeError("body_timeout", f"less than {wanted:g} bytes of the body a second")
        self.reckoned = self.size
        self.left_s = now - self.since + timeouts.body_rate_window_s
        return min(idle_at - now, timeouts.body_rate_window_s)
