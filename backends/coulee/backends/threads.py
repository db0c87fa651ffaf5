"""The backend without an event loop framework: worker threads, each with a machine and a loop of its own.

Rules:

- A worker is a machine, its driver and a loop (`coulee.backends.loop`), and nothing of it is touched by another thread.
  What comes from outside (a finished job, a looked-up name, a signal, `stop`) goes through `Loop.call`.
- There is one worker where the GIL lets only one run, and one a core on a free-threaded build. Several listen at the
  same TCP addresses, each with a socket of its own (SO_REUSEPORT). What they share is what machines of one definition
  share, which is the filters; and the reporter, which is called by one of them at a time.
- Blocking jobs run on a bounded pool of threads, which all workers share. The look-up of names blocks too, and has one
  of its own, for it must not wait behind jobs.
- Native jobs need an event loop of the host, and here there is none. So that filters run unchanged on every backend,
  the first native job starts one: asyncio's, in a thread of its own, for the jobs of all workers.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, TypeAlias

from coulee.backends import sockets
from coulee.backends.hosting import BLOCKING_JOBS_MAX, Outcome, Where, awaited, called, make_machine
from coulee.backends.loop import Loop
from coulee.backends.memory import keep_heap
from coulee.backends.nonblocking import Found, NonblockingDriver, Shared
from coulee.core.seam import Address, Machine

Result: TypeAlias = "Future[Outcome]"


def run(
    proxy: Machine,
    listen: Where = "127.0.0.1:8000",
    *,
    workers: int | None = None,
    reporter: Callable[[Any], object] | None = None,
    grace_s: float = 30.0,
    seed: int | None = None,
    on_ready: Callable[[Running], object] | None = None,
) -> None:
    """Run `proxy` until it is told to stop: a program's main. The arguments are those of `serve`.

    SIGINT and SIGTERM let what runs finish, within `grace_s` seconds; a second one ends it at once. Raises OSError
    where an address cannot be listened at.
    """
    keep_heap()
    _run_here(_made(proxy, listen, workers, reporter, grace_s, seed), on_ready, signals=True)


def serve(
    proxy: Machine,
    listen: Where = (),
    *,
    workers: int | None = None,
    reporter: Callable[[Any], object] | None = None,
    grace_s: float = 30.0,
    seed: int | None = None,
    on_ready: Callable[[Running], object] | None = None,
) -> None:
    """Run a fresh machine of `proxy` in this thread, until it has finished; and more of them in threads of their own.

    `listen` is one address or several, each as `(host, port)` or as text (see `parse_address`, which may raise
    ValueError). `workers` is how many machines there are: as a rule one, and one a core on a free-threaded build.
    `reporter` is called with each record that a machine reports; `seed` makes their random choices repeatable.
    `on_ready` is called with what `start` returns, once every listener asked for at the start is open. Raises OSError
    where one of the addresses cannot be listened at, and whatever a machine or the reporter raises.
    """
    _run_here(_made(proxy, listen, workers, reporter, grace_s, seed), on_ready, signals=False)


def start(
    proxy: Machine,
    listen: Where = (),
    *,
    workers: int | None = None,
    reporter: Callable[[Any], object] | None = None,
    grace_s: float = 30.0,
    seed: int | None = None,
) -> Running:
    """Run fresh machines of `proxy`, each in a thread of its own, and return when every listener is open.

    The arguments and errors are those of `serve`. The threads end with the program: `stop` and `join` are for an end
    in order.
    """
    running = _made(proxy, listen, workers, reporter, grace_s, seed)
    running.open()
    running.start(running.drivers)
    return running


def workers_by_default() -> int:
    """One under the GIL; on a free-threaded build, one for each core that this process may use."""
    gil_enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    if gil_enabled():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _made(
    proxy: Machine,
    listen: Where,
    workers: int | None,
    reporter: Callable[[Any], object] | None,
    grace_s: float,
    seed: int | None,
) -> Running:
    """Workers that have not begun."""
    count = workers_by_default() if workers is None else workers
    if count < 1:
        raise ValueError(f"a proxy needs at least one worker, and {count} were asked for")
    shared = Shared() if count > 1 else None
    if reporter is not None and count > 1:
        reporter = partial(_report, threading.Lock(), reporter)
    running = Running(grace_s)
    try:
        for number in range(count):
            machine = make_machine(proxy, listen, None if seed is None else seed + number, time.monotonic)
            running.drivers.append(ThreadsDriver(machine, reporter, running, shared))
    except BaseException:
        running.abandon()
        raise
    return running


def _report(lock: threading.Lock, reporter: Callable[[Any], object], record: object) -> None:
    with lock:
        reporter(record)


def _run_here(running: Running, on_ready: Callable[[Running], object] | None, signals: bool) -> None:
    """The first worker in this thread, the others in their own."""
    first, *others = running.drivers
    with _signals(running) if signals else nullcontext():  # before anybody hears that it listens
        running.open()
        try:
            running.start(others)
            if on_ready is not None:
                on_ready(running)
            first.run()
        except BaseException as error:
            running.fail(error)
    running.end(first)
    running.join()


@contextmanager
def _signals(running: Running) -> Generator[None, None, None]:
    """Let SIGINT and SIGTERM call `stop`. Not in a thread other than the main one: no signals come there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    def hear(*_: object) -> None:
        if running.stopping:
            restore()  # a third one does what it does by default, should even this not help
        running.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, hear)
    # Without this, one that comes just before the loop falls asleep would be heard when it wakes up by itself.
    heard_before = signal.set_wakeup_fd(running.drivers[0].loop.waker.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(heard_before)
        restore()


class Running:
    """A proxy that runs. All of this may be used by any thread."""

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self.drivers: list[ThreadsDriver] = []
        self.pool = ThreadPoolExecutor(BLOCKING_JOBS_MAX, "coulee-job")
        self.names = ThreadPoolExecutor(BLOCKING_JOBS_MAX, "coulee-name")
        self.native = NativeLoop()
        self.stopping = False
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None

    @property
    def addresses(self) -> list[Address]:
        """Where it listens, in the order in which that was asked for."""
        return self.drivers[0].addresses

    def stop(self, grace_s: float | None = None) -> None:
        """Ask it to finish within `grace_s` seconds. Without a number: within those that it was started with; asked
        again, at once."""
        if grace_s is None:
            grace_s = 0.0 if self.stopping else self.grace_s
        self.stopping = True
        for driver in self.drivers:
            driver.loop.call(partial(driver.drain, grace_s))

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until it has finished; False where that takes longer. Raises what a machine or the reporter raised."""
        limit = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if limit is None else max(0.0, limit - time.monotonic()))
            if thread.is_alive():
                return False
        self._shut()
        if self._failure is not None:
            raise self._failure
        return True

    # -- for this module

    def open(self) -> None:
        """Open the listeners of all workers, whose loops nobody turns yet. Raises OSError."""
        try:
            for driver in self.drivers:
                driver.open()
        except BaseException:
            self.abandon()
            raise

    def start(self, drivers: Sequence[ThreadsDriver]) -> None:
        """Give each of these workers a thread."""
        for number, driver in enumerate(drivers):
            thread = threading.Thread(target=self.work, args=(driver,), name=f"coulee-worker-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def work(self, driver: ThreadsDriver) -> None:
        """Turn the loop of a worker to its end."""
        try:
            driver.run()
        except BaseException as error:
            self.fail(error)
        finally:
            self.end(driver)

    def fail(self, error: BaseException) -> None:
        """A worker has failed: end the others too, and keep it for `join`."""
        if self._failure is None:
            self._failure = error
        self.stop(0.0)

    def end(self, driver: ThreadsDriver) -> None:
        """A worker has ended. The last one sees to what they share."""
        driver.shut()
        if all(each.is_shut for each in self.drivers):
            self._shut()

    def abandon(self) -> None:
        """End workers that have no thread."""
        for driver in self.drivers:
            driver.shut()
        self._shut()

    def _shut(self) -> None:
        for pool in (self.pool, self.names):
            pool.shutdown(wait=False, cancel_futures=True)
        self.native.close()


class ThreadsDriver(NonblockingDriver):
    """Runs one machine on one loop."""

    def __init__(
        self,
        machine: Machine,
        reporter: Callable[[Any], object] | None,
        running: Running,
        shared: Shared | None = None,
        loop: Loop | None = None,
    ) -> None:
        super().__init__(machine, loop or Loop(), reporter, shared)
        self.running = running
        self.is_shut = False

    def open(self) -> None:
        """Start the machine, and see every listener open that it asks for at the start. Raises OSError."""
        self.start()
        while not self.over and any(not listener.is_open for listener in self.listeners.values()):
            self.loop.turn()
        if self.unopened:
            self.drain(0.0)
            raise OSError(self.unopened[0])
        if self.failure is not None:
            raise self.failure

    def run(self) -> None:
        """Turn the loop until the machine has finished. Raises what it raised."""
        turn = self.loop.turn
        while not self.over:
            turn()
        if self.failure is not None:
            raise self.failure

    def shut(self) -> None:
        if not self.is_shut:
            super().shut()
            self.is_shut = True

    # -- what takes a thread

    def look_up(self, address: tuple[str, int], then: Callable[[Found], object]) -> None:
        future = self.running.names.submit(partial(socket.getaddrinfo, *address, type=socket.SOCK_STREAM))
        future.add_done_callback(partial(self._looked_up, address[0], then))

    def _looked_up(self, host: str, then: Callable[[Found], object], future: Future[Any]) -> None:
        """In whatever thread it is done."""
        if future.cancelled():
            return  # the workers have ended
        error = future.exception()
        if error is None:
            found: Found = sockets.in_turns(future.result())
        else:
            found = error if isinstance(error, OSError) else OSError(f"{host!r} cannot be looked up: {error}")
        self.loop.call(partial(then, found))

    def start_job(self, job: int, mode: Literal["blocking", "native"], call: Callable[[], Any]) -> tuple[int, Result]:
        running = self.running
        future: Result = running.pool.submit(called, call) if mode == "blocking" else running.native.submit(call)
        future.add_done_callback(partial(self._job_done, job))
        return job, future

    def stop_job(self, handle: tuple[int, Result]) -> None:
        job, future = handle
        if not future.cancel():  # what runs in a thread cannot be stopped: it goes on, and its result is dropped
            self.loop.call(partial(self._settle, job, None, _cancelled()))

    def _job_done(self, job: int, future: Result) -> None:
        """In whatever thread it is done."""
        value, error = (None, _cancelled()) if future.cancelled() else future.result()
        self.loop.call(partial(self._settle, job, value, error))

    def _settle(self, job: int, value: object, error: BaseException | None) -> None:
        if job in self.jobs:
            self.finished(job, value, error)


class NativeLoop:
    """The event loop that native jobs run on, from the first of them on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: Any = None
        self._close: Callable[[], object] = _nothing

    def submit(self, call: Callable[[], Any]) -> Result:
        """Have a job awaited there."""
        import asyncio  # a program without native jobs does without it

        with self._lock:
            if self._thread is None:
                started = threading.Event()
                self._thread = threading.Thread(
                    target=asyncio.run, args=(self._live(started),), name="coulee-native", daemon=True
                )
                self._thread.start()
                started.wait()
        return asyncio.run_coroutine_threadsafe(awaited(call, asyncio.CancelledError), self._loop)

    async def _live(self, started: threading.Event) -> None:
        import asyncio

        closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._close = partial(self._loop.call_soon_threadsafe, closed.set)
        started.set()
        await closed.wait()  # and asyncio.run cancels what still runs

    def close(self) -> None:
        """Cancel what runs there, and wait until it has ended."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._close()
            thread.join()


def _cancelled() -> CancelledError:
    return CancelledError("the job was cancelled")


def _nothing() -> None:
    """There is no loop yet."""
