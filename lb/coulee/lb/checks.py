"""Active health checks: when each endpoint of a cluster is checked, and by how many at once.

Rules:

- All that are there at the start, and all that come, are checked at once; from then on each has its own pace, by its
  health. An interval runs from the start of a check; one that outlasts it is followed by the next with no pause.
- No more than `at_once_max` checks run. What is due beyond them waits in one queue, first come first served, in which
  an endpoint stands once.
- A check that raises is a bad check, whatever it raises. Only the time limit and the cluster end one before its end.
- While nothing is due there is one task, parked, and one alarm; an endpoint costs an entry in a heap.
- A check of an endpoint that has left, or is in maintenance, is ended, and nobody hears what it came to. What is known
  of an endpoint in maintenance stands until it is back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from functools import partial
from heapq import heapify, heappop, heappush
from random import Random
from types import coroutine
from typing import Any, Final, Protocol

from coulee.core.errors import ExchangeError
from coulee.core.kernel import PARKED, Alarm, Kernel, Task, current_kernel, deadline
from coulee.lb.endpoint import Endpoint
from coulee.lb.health import CheckFailed, Health, HealthCheck

CAUSE_CHARACTERS_MAX: Final = 200
"""Of the text of what a probe raised."""


class Host(Protocol):
    """The cluster, as the checker sees it."""

    @property
    def members(self) -> Sequence[Endpoint]:
        """Its endpoints. Where they, or a `service` of theirs, have changed, it calls `Checker.refresh`."""
        ...

    @property
    def rng(self) -> Random:
        """The machine's random source."""
        ...

    def checked(self, endpoint: Endpoint, cause: str) -> None:
        """A check has changed what is known of an endpoint: it is healthy where `cause` is "", and else not, for this
        cause. So it is called where the health changes, and where an unhealthy endpoint has another cause; not for each
        check. `endpoint.health` tells the rest."""
        ...


class Checker(Alarm):
    """Checks the endpoints of one cluster for as long as `run` runs.

    It sets `endpoint.health` where the cluster has not.
    """

    __slots__ = ("_due", "_host", "_kernel", "_known", "_queue", "_running", "_sequence", "_settings")

    def __init__(self, settings: HealthCheck, host: Host) -> None:
        super().__init__()
        self._settings = settings
        self._host = host
        self._kernel: Kernel | None = None  # while `run` runs
        self._known: dict[Endpoint, None] = {}
        # each of them is in one of these
        self._due: list[tuple[float, int, Endpoint]] = []
        self._queue: deque[Endpoint] = deque()
        self._running: dict[Endpoint, Task] = {}
        self._sequence = 0  # breaks ties in the heap

    async def run(self) -> None:
        """Check until cancelled."""
        assert self._kernel is None, "it runs already"
        self._kernel = current_kernel.get()
        try:
            self.refresh()
            await _for_ever()
        finally:
            kernel, self._kernel = self._kernel, None
            kernel.disarm(self)
            self._forget(list(self._known))

    def refresh(self) -> None:
        """The members have changed, or what an operator said of one: check those that are new, and no more those that
        are gone. Does nothing while `run` does not run."""
        if self._kernel is None:
            return
        wanted = {endpoint: None for endpoint in self._host.members if endpoint.service != "maintenance"}
        gone = [endpoint for endpoint in self._known if endpoint not in wanted]
        if gone:
            self._forget(gone)
        for endpoint in wanted:
            if endpoint not in self._known:
                self._known[endpoint] = None
                self._queue.append(endpoint)
        self._begin()

    def ring(self, now: float) -> None:
        """Some are due."""
        while self._due and self._due[0][0] <= now:
            self._queue.append(heappop(self._due)[2])
        self._begin()

    # -- one check

    def _begin(self) -> None:
        """Start the checks for which there is room, and set the alarm for those that are due next."""
        kernel = self._kernel
        if kernel is None:
            return  # the cluster ended `run` when it was told
        while self._queue and len(self._running) < self._settings.at_once_max:
            endpoint = self._queue.popleft()
            task = Task(kernel, self._check(endpoint), partial(self._ended, endpoint, kernel.now))
            self._running[endpoint] = task
            kernel.wake(task, None)  # not at once: whoever called may be in the middle of something
        if self._due:
            kernel.arm(self, self._due[0][0])

    async def _check(self, endpoint: Endpoint) -> None:
        limit = deadline(self._settings.timeout_s)
        try:
            with limit:
                await self._settings.probe(endpoint)
        except Exception:
            if not limit.cancelled:
                raise
        if limit.cancelled:  # also where the probe would not hear of it
            raise CheckFailed(f"no answer within {self._settings.timeout_s:g} s")

    def _ended(self, endpoint: Endpoint, started: float, task: Task) -> None:
        """A check has ended, one way or another."""
        if self._running.get(endpoint) is not task:
            return  # we ended it
        del self._running[endpoint]
        health = endpoint.health
        if health is None:
            health = endpoint.health = Health(self._settings)
        before = health.cause
        health.note(task.error is None, "" if task.error is None else cause_of(task.error))
        self._sequence += 1
        pause_s = health.interval_s * (1 - self._settings.jitter * self._host.rng.random())
        heappush(self._due, (started + pause_s, self._sequence, endpoint))  # which may be past
        if health.cause != before:
            self._host.checked(endpoint, health.cause)  # which may call `refresh`
        self._begin()

    def _forget(self, gone: Sequence[Endpoint]) -> None:
        """Check these no more, and end the checks of them that run."""
        for endpoint in gone:
            del self._known[endpoint]
        self._due = [entry for entry in self._due if entry[2] in self._known]
        heapify(self._due)
        self._queue = deque(endpoint for endpoint in self._queue if endpoint in self._known)
        for task in [self._running.pop(endpoint) for endpoint in gone if endpoint in self._running]:
            task.kill()


def cause_of(error: BaseException) -> str:
    """What a failed check says of itself, in one line."""
    try:
        text = str(error)
    except Exception:
        text = ""
    if not isinstance(error, CheckFailed | ExchangeError) or not text:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return "".join(each if each.isprintable() else " " for each in text[:CAUSE_CHARACTERS_MAX])


@coroutine
def _for_ever() -> Generator[Any, Any, None]:
    yield PARKED
