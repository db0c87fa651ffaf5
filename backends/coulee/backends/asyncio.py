"""The backend for asyncio, and for uvloop, which is asyncio in C.

The loop waits for the poller of all connections, and for the time that is due next, and calls back.

Neither transports nor streams of asyncio's are used. A transport costs a connection several turns of the loop before it
can be read, and each pause a system call: with them a new connection took 2.3 times the CPU time on asyncio and 1.9 on
uvloop, a handshake of TLS 1.4 and 1.2, and an idle connection half as much memory again. Rules:

- One turn of the driver for each time that the loop calls, so that other tasks of the loop have theirs in between,
  however busy the proxy is.
- What the driver wants in the thread of the loop it gets by `call_soon`. Other threads have `driver.loop.call`, as on
  every backend.
- Work is futures of the loop: native jobs its tasks, all else threads of ours, so that a host which keeps the threads
  of its loop busy holds up neither jobs nor the look-up of names.
- A timer of uvloop's counts whole milliseconds, and comes up to one of them early. So one that is early is set again,
  and never for less than that, which would be to spin.
- It is the task that serves which hears of the end and of what went wrong: an exception that came out of a callback
  would only be logged.
"""

from __future__ import annotations

import asyncio
import importlib
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any, Final

from coulee.backends.hosting import BLOCKING_JOBS_MAX, Outcome, Where, awaited, called, make_machine
from coulee.backends.memory import keep_heap
from coulee.backends.polled import Polling, Work
from coulee.core.seam import Machine

_SHORTEST_WAIT_S: Final = 0.001


def run(
    proxy: Machine,
    listen: Where = "127.0.0.1:8000",
    *,
    uvloop: bool = False,
    reporter: Callable[[Any], object] | None = None,
    grace_s: float = 30.0,
    seed: int | None = None,
    on_ready: Callable[[AsyncioDriver], object] | None = None,
) -> None:
    """Run `proxy` until it is told to stop: a program's main. The arguments are those of `serve`.

    SIGINT and SIGTERM let what runs finish, within `grace_s` seconds; a second one ends it at once. Raises OSError
    where an address cannot be listened at, ImportError where `uvloop` is wanted and not installed.
    """
    loop_factory = None
    if uvloop:
        try:
            loop_factory = importlib.import_module("uvloop").new_event_loop
        except ImportError as error:
            raise ImportError('uvloop is not installed: pip install "coulee[uvloop]"') from error

    async def main() -> None:
        await _drive(_make(proxy, listen, reporter, grace_s, seed), on_ready, signals=True)

    keep_heap()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


async def serve(
    proxy: Machine,
    listen: Where = (),
    *,
    reporter: Callable[[Any], object] | None = None,
    grace_s: float = 30.0,
    seed: int | None = None,
    on_ready: Callable[[AsyncioDriver], object] | None = None,
) -> None:
    """Run a fresh machine of `proxy` on this event loop, until it has finished.

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
) -> AsyncioDriver:
    loop = asyncio.get_running_loop()
    # Both loops keep this clock, and asking it is cheaper than asking asyncio, finer than asking uvloop. A loop of
    # somebody's own may keep another.
    clock = time.monotonic if abs(loop.time() - time.monotonic()) < 1.0 else loop.time
    return AsyncioDriver(make_machine(proxy, listen, seed, clock), loop, clock, reporter, grace_s)


async def _drive(driver: AsyncioDriver, on_ready: Callable[[AsyncioDriver], object] | None, signals: bool) -> None:
    """Run the machine of a driver to its end, however that comes about."""
    try:
        if signals:
            driver.stop_on_signals()
        driver.open()
        await driver.opened
        if driver.unopened:
            driver.drain(0.0)
            raise OSError(driver.unopened[0])
        if on_ready is not None and driver.failure is None:
            on_ready(driver)
        await asyncio.shield(driver.done)
    except asyncio.CancelledError:
        driver.drain(0.0)
        await driver.done
        raise
    finally:
        try:
            await driver.end_works()
        finally:
            driver.shut()


class AsyncioDriver(Polling):
    """Runs one machine on a running loop of asyncio's, which is `event_loop`; `loop` is the driver's own."""

    def __init__(
        self,
        machine: Machine,
        event_loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        reporter: Callable[[Any], object] | None,
        grace_s: float,
    ) -> None:
        super().__init__(machine, clock, reporter, grace_s)
        self.event_loop = event_loop
        self.opened: asyncio.Future[None] = event_loop.create_future()  # the first listeners; or they never will be
        self.done: asyncio.Future[None] = event_loop.create_future()
        self._is_watching = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_set_for = inf
        self._works: set[asyncio.Future[Outcome]] = set()
        self._threads = {"blocking": ThreadPoolExecutor(BLOCKING_JOBS_MAX, "coulee-job"),
                         "look-up": ThreadPoolExecutor(BLOCKING_JOBS_MAX, "coulee-name")}  # fmt: skip

    # -- turns

    def open(self) -> None:
        """Begin, and have the loop call."""
        self._is_watching = True
        self.event_loop.add_reader(self.loop.fileno(), self._tick)
        self.start()
        self._go_round()

    def _tick(self) -> None:
        if self._is_watching:
            try:
                self.turn()
            except Exception as error:  # a bug of a connection's; what the machine raises is `failure` already
                self.on_failure(error)
            self._go_round()

    def wake(self) -> None:
        if not self._awake:
            self._awake = True
            self.event_loop.call_soon(self._tick)

    def _go_round(self) -> None:
        """What there is to do before the next wait."""
        begin, stop = self.take()
        for work in begin:
            self._begin_here(work)
        for work in stop:
            work.handle.cancel()  # what runs in a thread cannot be stopped: it goes on, and its result is dropped
        if not (self.opened.done() or self.is_opening):
            self.opened.set_result(None)
        if self.over:
            self._end()
        elif self.due < self._alarm_set_for:
            self._set_alarm()

    def _end(self) -> None:
        self._unwatch()
        if self.done.done():
            return  # whoever serves was cancelled twice, and does not wait
        if self.failure is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(self.failure)

    def _unwatch(self) -> None:
        if self._is_watching:
            self._is_watching = False
            self.event_loop.remove_reader(self.loop.fileno())
            self._unset_alarm()

    # -- time

    def _set_alarm(self) -> None:
        wait_s = self.due - self.clock()
        if wait_s <= 0.0:
            self.wake()
        else:
            self._unset_alarm()
            self._alarm_set_for = self.due
            self._alarm = self.event_loop.call_later(max(wait_s, _SHORTEST_WAIT_S), self._ring)

    def _unset_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_set_for = None, inf

    def _ring(self) -> None:
        self._alarm, self._alarm_set_for = None, inf
        self._tick()

    # -- work

    def _begin_here(self, work: Work) -> None:
        if work.mode == "native":
            work.handle = self.event_loop.create_task(awaited(work.call, asyncio.CancelledError))
        else:
            work.handle = self.event_loop.run_in_executor(self._threads[work.mode], called, work.call)
        self._works.add(work.handle)  # the loop itself holds its tasks by weak references only
        work.handle.add_done_callback(partial(self._work_done, work))

    def _work_done(self, work: Work, future: asyncio.Future[Outcome]) -> None:
        self._works.discard(future)
        if future.cancelled():
            work.cancelled()
        else:
            work.done(*future.result())

    async def end_works(self) -> None:
        """Turn no more, and cancel what runs beside."""
        self._unwatch()
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
        for future in self._works:
            future.cancel()
        await asyncio.gather(*self._works, return_exceptions=True)

    # -- signals

    def stop_on_signals(self) -> None:
        # By asyncio's own means, whose loop a signal wakes wherever it comes.
        with suppress(ValueError, RuntimeError, NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                self.event_loop.add_signal_handler(number, self._heed_signal)
                self._signals[number] = None

    def ignore_signals(self) -> None:
        while self._signals:
            self.event_loop.remove_signal_handler(self._signals.popitem()[0])
