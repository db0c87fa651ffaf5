"""A circuit breaker: an endpoint that fails is left alone for a while, and then tried with few requests.

Rules:

- The table of `Circuit` is all that it does.
- Failures in a row, or a share of the requests of late (`window.py` says of when), open it; only a failure does.
- Half open, it lets few attempts through at once, the trials. One that fails opens it again, for twice as long; so many
  that succeed in a row close it, with nothing remembered.
- A trial goes on until its outcome, so one that becomes a tunnel, or a long answer, holds nobody up.
- An attempt from before may come to its outcome while it is half open, and nobody can tell it from a trial. It is taken
  for one where there is one, and else counts for nothing. So there may be one trial too many at once for each attempt
  that is left from before; but none of these can keep the circuit half open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from coulee.lb.window import Window

CircuitState: TypeAlias = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """When an endpoint's circuit opens, for how long, and what closes it again."""

    failures_max: int = 5
    """So many failures in a row open it. 0: no number does."""

    failed_share: float = 0.5
    """So large a share of the requests of the window opens it. 0: no share does."""

    requests_min: int = 20
    """... where the window has so many, because half of two says little."""

    window_s: float = 10.0
    """The window, in seconds. It is empty when the circuit closes."""

    open_s: float = 5.0
    """How long it is open. Twice as long after each trial that fails, and as at first when it has been closed."""

    open_max_s: float = 60.0
    """... and at most so long."""

    trials: int = 1
    """Attempts at once while it is half open."""

    successes: int = 2
    """How many of them in a row have to go well for it to close."""

    def __post_init__(self) -> None:
        if self.failures_max < 0:
            raise ValueError(f"failures_max is {self.failures_max}; it must be above 0, or 0 for no such limit")
        if not 0 <= self.failed_share <= 1:
            raise ValueError(f"failed_share is {self.failed_share}; it must be from 0 to 1, such as 0.5 for half")
        for name in ("requests_min", "window_s", "open_s", "trials", "successes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not self.open_max_s >= self.open_s:
            raise ValueError(f"open_max_s is {self.open_max_s}; it must be open_s, {self.open_s}, or more")


class Circuit:
    """The circuit of one endpoint.

    | state     | what happens                                        | next      | and                            |
    |-----------|-----------------------------------------------------|-----------|--------------------------------|
    | closed    | a success                                           | closed    | the row of failures ends       |
    | closed    | a failure, the last of `failures_max` in a row      | open      | for `open_s`                   |
    | closed    | a failure that makes `failed_share` of the window   | open      | for `open_s`                   |
    | closed    | any other failure                                   | closed    |                                |
    | open      | an attempt's outcome                                | open      | it counts for nothing          |
    | open      | the bell, before `until`                            | open      |                                |
    | open      | the bell, at `until` or later                       | half open |                                |
    | half open | an outcome, where no trial is going on              | half open | it counts for nothing          |
    | half open | a trial fails                                       | open      | twice as long as the last time |
    | half open | a trial succeeds, the last of `successes` in a row  | closed    | with nothing remembered        |
    | half open | any other trial succeeds                            | half open |                                |
    | any other | the bell                                            | the same  |                                |

    Attempts may begin while it is closed, and while it is half open and fewer than `trials` are going on. Each is told
    with a `begin`, and with a `note` or an `end`.
    """

    __slots__ = (
        "_failures",
        "_open_s",
        "_requests",
        "_row",
        "_trials",
        "allows",
        "cause",
        "settings",
        "state",
        "until",
    )

    def __init__(self, settings: Breaker) -> None:
        self.settings = settings
        self.state: CircuitState = "closed"
        self.allows = True
        """Whether an attempt may begin."""
        self.cause = ""
        """Why it was opened; "" where it is closed."""
        self.until = 0.0
        """When `ring` ends its being open; 0.0 where it is not."""
        self._open_s = settings.open_s
        self._requests = Window(settings.window_s)
        self._failures = Window(settings.window_s)
        self._row = 0
        """Closed: failures in a row. Half open: successes."""
        self._trials = 0
        """That are going on, half open; 0 else."""

    def begin(self) -> None:
        """An attempt begins."""
        if self.state == "half_open":
            self._trials += 1
            self.allows = self._trials < self.settings.trials

    def end(self) -> None:
        """An attempt has ended without an outcome, as when the client left."""
        if self._trials:
            self._trials -= 1
            self.allows = self._trials < self.settings.trials

    def note(self, failed: bool, now: float) -> bool:
        """An attempt's outcome: an answer's head, or that there is none. True where the state changes."""
        if self.state == "closed":
            return self._note_closed(failed, now)
        if not self._trials:
            return False
        self.end()
        if failed:
            self._open(now, min(2 * self._open_s, self.settings.open_max_s), "a trial failed")
            return True
        self._row += 1
        if self._row < self.settings.successes:
            return False
        self._close()
        return True

    def ring(self, now: float) -> bool:
        """The bell: `until` may have come. True where the state changes."""
        if self.state != "open" or now < self.until:
            return False
        self._enter("half_open", allows=True)
        return True

    def _note_closed(self, failed: bool, now: float) -> bool:
        self._requests.add(now)
        if not failed:
            self._row = 0
            return False
        self._failures.add(now)
        self._row += 1
        settings = self.settings
        failures, requests = self._failures.count, self._requests.count
        if self._row == settings.failures_max:
            cause = f"{self._row} failures in a row"
        elif (
            settings.failed_share and requests >= settings.requests_min and failures / requests >= settings.failed_share
        ):
            cause = f"{failures} of {requests} requests failed"
        else:
            return False
        self._open(now, settings.open_s, cause)
        return True

    def _open(self, now: float, open_s: float, cause: str) -> None:
        self._enter("open", allows=False)
        self.until = now + open_s
        self.cause = cause
        self._open_s = open_s

    def _close(self) -> None:
        self._enter("closed", allows=True)
        self.cause = ""
        self._requests.clear()
        self._failures.clear()

    def _enter(self, state: CircuitState, *, allows: bool) -> None:
        self.state = state
        self.allows = allows
        self.until = 0.0
        self._row = 0
        self._trials = 0
