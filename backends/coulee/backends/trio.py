"""The backend for trio: one task waits for the poller of all connections, and a nursery holds the jobs.

Rules:

- All that touches trio is done by the task that pumps, in between two turns of the driver. So the machine's turns are
  free of checkpoints, and no `Cancelled` can come out of one.
- Cancelling from outside is for that task alone, and all others are shielded from it, for the machine must hear of the
  end before it hears of jobs that were cancelled. The pump hears of it where it waits, tells the machine, and lets the
  `Cancelled` go on when that has finished.
- The clock is that of the host's trio, so a mock clock is the machine's clock too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import trio
except ImportError as error:
    raise ImportError('coulee.backends.trio needs: pip install "coulee[trio]"') from error

from coulee.backends.hosting import BLOCKING_JOBS_MAX, Where, awaited, called, make_machine
from coulee.backends.memory import keep_heap
from coulee.backends.polled import PolledDriver, Work
from coulee.core.seam import Machine


def run(
    proxy: Machine,
    listen: Where = "127.0.0.1:8000",
    *,
    reporter: Callable[[Any], object] | None = None,
    grace_s: float = 30.0,
    seed: int | None = None,
    on_ready: Callable[[TrioDriver], object] | None = None,
) -> None:
    """Run `proxy` until it is told to stop: a program's main. The arguments are those of `serve`.

    SIGINT and SIGTERM let what runs finish, within `grace_s` seconds; a second one ends it at once. Raises OSError
    where an address cannot be listened at.
    """

    async def main() -> None:
        await _drive(_make(proxy, listen, reporter, grace_s, seed), on_ready, signals=True)

    keep_heap()
    trio.run(main)


async def serve(
    proxy: Machine,
    listen: Where = (),
    *,
    reporter: Callable[[Any], object] | None = None,
    grace_s: float = 30.0,
    seed: int | None = None,
    on_ready: Callable[[TrioDriver], object] | None = None,
) -> None:
    """Run a fresh machine of `proxy` in this task, until it has finished.

    `listen` is one address or several, each as `(host, port)` or as text (see `parse_address`, which may raise
    ValueError). `reporter` is called with each record that the machine reports; `seed` makes its random choices
    repeatable. `on_ready` is called with the driver, once every listener asked for at the start is open:
    `driver.addresses` says where it listens, and `driver.stop()` ends it as a signal would, first within `grace_s`
    seconds and, asked again, at once. Cancelling ends it at once. Raises OSError where one of the
    addresses cannot be listened at.
    """
    await _drive(_make(proxy, listen, reporter, grace_s, seed), on_ready, signals=False)


def _make(
    proxy: Machine,
    listen: Where,
    reporter: Callable[[Any], object] | None,
    grace_s: float,
    seed: int | None,
) -> TrioDriver:
    clock = trio.lowlevel.current_clock().current_time
    return TrioDriver(make_machine(proxy, listen, seed, clock), clock, reporter, grace_s)


async def _drive(driver: TrioDriver, on_ready: Callable[[TrioDriver], object] | None, signals: bool) -> None:
    """Run the machine of a driver to its end, however that comes about."""
    failure: BaseException | None = None
    try:
        if signals:
            driver.stop_on_signals()
        async with trio.open_nursery() as driver.nursery:
            driver.nursery.start_soon(driver.keep_time)
            try:
                await driver.drive(on_ready)
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    driver.drain(0.0)
                    await driver.last()
                raise
            except BaseException as error:
                failure = error  # kept out of the nursery, which would wrap it in a group
            finally:
                driver.end_tasks()
    finally:
        driver.shut()
    if failure is not None:
        raise failure


class TrioDriver(PolledDriver):
    """Runs one machine in a task of trio."""

    nursery: trio.Nursery

    def __init__(
        self,
        machine: Machine,
        clock: Callable[[], float],
        reporter: Callable[[Any], object] | None,
        grace_s: float,
    ) -> None:
        super().__init__(machine, clock, reporter, grace_s)
        self._limiter = trio.CapacityLimiter(BLOCKING_JOBS_MAX)
        self._tasks: set[trio.CancelScope] = set()
        self._alarm_clock = trio.CancelScope()

    async def pause(self) -> None:
        begin, stop = self.take()
        for work in begin:
            work.handle = trio.CancelScope(shield=True)
            self._tasks.add(work.handle)
            self.nursery.start_soon(self._do_work, work)
        for work in stop:
            work.handle.cancel()
        if self._alarm_clock.deadline != self.due:
            self._alarm_clock.deadline = self.due
        await trio.lowlevel.wait_readable(self.loop)
        self.turn()

    async def keep_time(self) -> None:
        """Wake the pump at the deadline of a scope, which it moves. A scope of its own for each turn would double the
        cost of waiting."""
        while not self.over:
            with trio.CancelScope(shield=True) as self._alarm_clock:
                self.wake()  # whoever set the one before has to set this
                await trio.sleep_forever()

    async def _do_work(self, work: Work) -> None:
        outcome = None
        try:
            with work.handle:
                if work.mode == "native":
                    outcome = await awaited(work.call, trio.Cancelled)
                else:
                    limiter = self._limiter if work.mode == "blocking" else None  # None stands for trio's own
                    outcome = await trio.to_thread.run_sync(called, work.call, abandon_on_cancel=True, limiter=limiter)
        finally:
            self._tasks.discard(work.handle)
            if outcome is None:
                work.cancelled()
            else:
                work.done(*outcome)

    def end_tasks(self) -> None:
        """Cancel what runs beside."""
        self.over = True
        for scope in (self._alarm_clock, *self._tasks):
            scope.cancel()
