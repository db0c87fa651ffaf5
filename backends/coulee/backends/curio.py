"""The backend for curio: one task waits for the poller of all connections; jobs are tasks beside it.

It is experimental, because curio's author makes no more releases of it. Rules:

- Nothing in curio can be done without awaiting, not even starting a task. So all of it is done by the task that pumps,
  in between two turns of the driver, by traps that do not switch to another task.
- Threads are not curio's, whose threads die with an exception where they outlive its kernel. They note what they have
  done, and wake the pump.
- Time is a task that sleeps until it is due, and wakes the pump. curio's time-outs cost more than all else in a turn,
  and complain in the log where a turn was slow.
- Cancelling is for the task that pumps, and comes where it waits. What is to be done then cannot be cancelled again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from math import inf
from typing import Any

from coulee.backends.curio_module import import_curio
from coulee.backends.hosting import BLOCKING_JOBS_MAX, Outcome, Where, awaited, called, make_machine
from coulee.backends.memory import keep_heap
from coulee.backends.polled import PolledDriver, Work
from coulee.core.seam import Machine

curio = import_curio()


def run(
    proxy: Machine,
    listen: Where = "127.0.0.1:8000",
    *,
    reporter: Callable[[Any], object] | None = None,
    grace_s: float = 30.0,
    seed: int | None = None,
    on_ready: Callable[[CurioDriver], object] | None = None,
) -> None:
    """Run `proxy` until it is told to stop: a program's main. The arguments are those of `serve`.

    SIGINT and SIGTERM let what runs finish, within `grace_s` seconds; a second one ends it at once. Raises OSError
    where an address cannot be listened at.
    """
    driver = _make(proxy, listen, reporter, grace_s, seed)
    keep_heap()
    curio.run(_drive, driver, on_ready, True)


async def serve(
    proxy: Machine,
    listen: Where = (),
    *,
    reporter: Callable[[Any], object] | None = None,
    grace_s: float = 30.0,
    seed: int | None = None,
    on_ready: Callable[[CurioDriver], object] | None = None,
) -> None:
    """Run a fresh machine of `proxy` in this task, until it has finished.

    `listen` is one address or several, each as `(host, port)` or as text (see `parse_address`, which may raise
    ValueError). `reporter` is called with each record that the machine reports; `seed` makes its random choices
    repeatable. `on_ready` is called with the driver, once every listener asked for at the start is open:
    `driver.addresses` says where it listens, and `driver.stop()` ends it as a signal would, first within `grace_s`
    seconds and, asked again, at once. Cancelling ends it at once. Raises OSError where one of the
    addresses cannot be listened at.
    """
    await _drive(_make(proxy, listen, reporter, grace_s, seed), on_ready, False)


def _make(
    proxy: Machine,
    listen: Where,
    reporter: Callable[[Any], object] | None,
    grace_s: float,
    seed: int | None,
) -> CurioDriver:
    clock = time.monotonic  # as curio does
    return CurioDriver(make_machine(proxy, listen, seed, clock), clock, reporter, grace_s)


async def _drive(driver: CurioDriver, on_ready: Callable[[CurioDriver], object] | None, signals: bool) -> None:
    """Run the machine of a driver to its end, however that comes about."""
    try:
        if signals:
            driver.stop_on_signals()
        await driver.drive(on_ready)
    except curio.CancelledError:
        async with curio.disable_cancellation():
            driver.drain(0.0)
            await driver.last()
        raise
    finally:
        async with curio.disable_cancellation():
            await driver.end_tasks()
        driver.shut()


class CurioDriver(PolledDriver):
    """Runs one machine in a task of curio."""

    def __init__(
        self,
        machine: Machine,
        clock: Callable[[], float],
        reporter: Callable[[Any], object] | None,
        grace_s: float,
    ) -> None:
        super().__init__(machine, clock, reporter, grace_s)
        self._tasks: set[Any] = set()
        self._threads = {"blocking": ThreadPoolExecutor(BLOCKING_JOBS_MAX, "coulee-job"),
                         "look-up": ThreadPoolExecutor(BLOCKING_JOBS_MAX, "coulee-name")}  # fmt: skip
        self._called: deque[tuple[Work, Future[Outcome] | None]] = deque()
        self._sleeper: Any = None
        self._sleeps_until = inf

    async def pause(self) -> None:
        begin, stop = self.take()
        for work in begin:
            if work.mode == "native":
                work.handle = await curio.spawn(self._do_work, work, daemon=True)
                self._tasks.add(work.handle)
            else:
                work.handle = self._threads[work.mode].submit(called, work.call)
                work.handle.add_done_callback(partial(self._call_done, work))
        for work in stop:
            if work.mode == "native":
                await work.handle.cancel(blocking=False)
            else:
                work.handle.cancel()
                self._call_done(work, None)
        if self.due < self._sleeps_until:
            if self._sleeper is not None:
                await self._sleeper.cancel(blocking=False)
            self._sleeps_until = self.due
            self._sleeper = await curio.spawn(self._sleep, self.due, daemon=True)
        await curio.traps._read_wait(self.loop)
        self.turn()

    async def _sleep(self, until: float) -> None:
        await curio.sleep(max(0.0, until - self.clock()))
        self._sleeper, self._sleeps_until = None, inf
        self.wake()

    async def _do_work(self, work: Work) -> None:
        outcome: Outcome | None = None
        try:
            outcome = await awaited(work.call, curio.CancelledError)
        finally:
            self._tasks.discard(work.handle)
            if outcome is None:
                work.cancelled()
            else:
                work.done(*outcome)

    def _call_done(self, work: Work, future: Future[Outcome] | None) -> None:
        """In a thread, as a rule, so it is only noted. None: what runs there cannot be stopped, and is given up."""
        self._called.append((work, future))
        self.loop.nudge()

    def turn(self) -> None:
        super().turn()
        while self._called:
            work, future = self._called.popleft()
            if work.handle is None:
                continue  # given up before
            work.handle = None
            if future is None or future.cancelled():
                work.cancelled()
            else:
                work.done(*future.result())

    async def end_tasks(self) -> None:
        """Cancel what runs beside, and have curio forget the poller."""
        await curio.traps._io_release(self.loop)
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
        for task in [self._sleeper, *self._tasks]:
            if task is not None:
                await task.cancel()
