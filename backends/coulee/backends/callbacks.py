"""A driver for hosts whose loop calls back: Twisted's, a window toolkit's, a game's.

Such a host can call something when a descriptor is readable, and when some time has passed. No more is wanted:

    class MyDriver(CallbackDriver):
        def watch(self): ...               # call `self.tick` whenever `self.fileno()` is readable, level-triggered
        def set_timer(self, delay_s): ...  # call `self.tick` in so many seconds, in place of when it was due before
        def unwatch(self): ...             # neither, from now on
        def spawn(self, job): ...          # where the host runs coroutines: run `job()`, and return what cancels it

    driver = MyDriver(proxy, "127.0.0.1:8000", on_end=...)
    driver.open()

docs/embedding.md has a whole program. Rules:

- `tick` does what is ready and what is due. To call it for nothing does no harm, so a timer may ring early or late.
- All of it belongs to one thread, the host's, but for `driver.loop.call`, by which other threads have something called.
- Blocking jobs and the look-up of names have threads. Native jobs are the host's to run; where it has no coroutines,
  they run on a loop of asyncio's in a thread of its own, as those of the threads backend do.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from math import inf
from typing import Any

from coulee.backends.hosting import BLOCKING_JOBS_MAX, Outcome, Where, called, make_machine
from coulee.backends.polled import Polling, Work
from coulee.backends.threads import NativeLoop
from coulee.core.seam import Machine


class CallbackDriver(Polling):
    """Runs a fresh machine of `proxy` on a host's loop, from `open` to the call of `on_end`.

    `listen`, `reporter`, `grace_s` and `seed` are those of `serve` (docs/backends.md); ValueError where text is no
    address. `on_ready` is called with the driver once every listener asked for at the start is open: `addresses` says
    where it listens. `on_end` is called once, last: with None where the machine has finished; or with an OSError where
    one of the addresses cannot be listened at, or with what the machine or the reporter raised. `stop()` asks for the
    end, first within `grace_s` seconds, and asked again, at once. `clock` is the host's, in seconds.
    """

    def __init__(
        self,
        proxy: Machine,
        listen: Where = (),
        *,
        reporter: Callable[[Any], object] | None = None,
        grace_s: float = 30.0,
        seed: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_ready: Callable[[Any], object] | None = None,
        on_end: Callable[[BaseException | None], object] | None = None,
    ) -> None:
        super().__init__(make_machine(proxy, listen, seed, clock), clock, reporter, grace_s)
        self._on_ready = on_ready
        self._on_end = on_end
        self._works: set[Work] = set()  # begun, and not settled
        self._jobs_pool = ThreadPoolExecutor(BLOCKING_JOBS_MAX, "coulee-job")
        self._names_pool = ThreadPoolExecutor(BLOCKING_JOBS_MAX, "coulee-name")
        self._native = NativeLoop()
        self._trouble: OSError | None = None  # with the listeners asked for at the start
        self._is_ready = False
        self._is_shut = False

    # -- what a host implements

    @abstractmethod
    def watch(self) -> None:
        """Call `tick` whenever `fileno()` is readable, for as long as it is."""

    @abstractmethod
    def set_timer(self, delay_s: float) -> None:
        """Call `tick` in `delay_s` seconds, in place of when it was to be called before. 0 is as soon as may be."""

    @abstractmethod
    def unwatch(self) -> None:
        """Call `tick` no more, neither for the descriptor nor for the timer. The descriptor is about to be closed."""

    def spawn(self, job: Callable[[], Coroutine[Any, Any, Any]]) -> Callable[[], object]:
        """Run the coroutine `job()` on the host's loop, and return what cancels it. It raises nothing but
        KeyboardInterrupt."""
        return self._native.submit(job).cancel

    # -- for the host

    def fileno(self) -> int:
        """Of the one descriptor that is to be watched."""
        return self.loop.fileno()

    def open(self) -> None:
        """Begin: open the listeners, and have the host watch."""
        self.watch()
        self.start()
        self._go_round()

    def tick(self) -> None:
        """Do what is ready, and what is due."""
        if not self._is_shut:
            self.turn()
            self._go_round()

    def shut(self) -> None:
        """Leave nothing behind: what is open is reset, what runs is cancelled, nobody is told. For an end in order,
        `stop`."""
        if self._is_shut:
            return
        self._is_shut = True
        self.unwatch()
        for work in self._works:
            work.handle()
        self._works.clear()
        for pool in (self._jobs_pool, self._names_pool):
            pool.shutdown(wait=False, cancel_futures=True)
        self._native.close()
        super().shut()

    # -- a round

    def _go_round(self) -> None:
        """What there is to do before the next wait."""
        if not self._is_ready and not self.is_opening:
            self._is_ready = True
            if self.unopened:
                self._trouble = OSError(self.unopened[0])
                self.drain(0.0)
            elif self.failure is None and self._on_ready is not None:
                self._on_ready(self)
        begin, stop = self.take()
        for work in begin:
            self._begin_here(work)
        for work in stop:
            work.handle()
            self.loop.call(partial(self._settle, work, None, CancelledError("the job was cancelled")))  # if need be
        if self.over:
            self._end()
        elif self.due < inf:
            self.set_timer(max(0.0, self.due - self.clock()))

    def _end(self) -> None:
        self.shut()
        if self._on_end is not None:
            self._on_end(self.failure or self._trouble)

    # -- work

    def _begin_here(self, work: Work) -> None:
        self._works.add(work)
        if work.mode == "native":
            work.handle = self.spawn(partial(self._natively, work))
        else:
            pool = self._jobs_pool if work.mode == "blocking" else self._names_pool
            future = pool.submit(called, work.call)
            work.handle = future.cancel
            future.add_done_callback(partial(self._called, work))

    async def _natively(self, work: Work) -> Outcome:
        outcome: Outcome = None, CancelledError("the job was cancelled")
        try:
            outcome = await work.call(), None
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # as in `called`; and whatever the host cancels with, it has had its effect
            outcome = None, CancelledError("the job was cancelled") if work.stopped else error
        finally:
            self.loop.call(partial(self._settle, work, *outcome))
        return outcome

    def _called(self, work: Work, future: Future[Outcome]) -> None:
        """In whatever thread it is done."""
        if not future.cancelled():
            self.loop.call(partial(self._settle, work, *future.result()))

    def _settle(self, work: Work, value: Any, error: BaseException | None) -> None:
        """Its first outcome counts: what is given up may well go on."""
        if work in self._works:
            self._works.discard(work)
            work.done(value, error)
