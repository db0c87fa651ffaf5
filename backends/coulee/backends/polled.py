"""A driver whose connections are all watched by one poller, for hosts that can wait for a descriptor.

A poller (epoll, kqueue) is a descriptor itself, and readable when one of its sockets is ready. So a host with a loop of
its own needs to wait for one thing, in one task, whatever the number of connections:

    while not driver.over:
        ...                      # begin and stop the work in `driver.take()`; wait until `driver.loop` is readable,
        driver.turn()            # or until the time `driver.due`; then

That is `Polling`. Where the host has coroutines, `PolledDriver` goes round this loop; where it calls back, the driver
of `coulee.backends.callbacks` does one round for each call.

A connection costs no task and no turn of the host's loop, and what is ready together is carried out together. The
connections themselves are those of `nonblocking`. Rules:

- Nothing here awaits. All that the host's loop must do itself (run work, sleep, watch the poller) is noted and left to
  the one task that calls `turn`; `wake` makes the poller readable where that task sleeps. So the driver may be called
  from anywhere in the thread of the loop.
"""

from __future__ import annotations

import signal
import socket
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from coulee.backends import sockets
from coulee.backends.listener import Listener
from coulee.backends.loop import Loop
from coulee.backends.nonblocking import Found, NonblockingDriver
from coulee.core.seam import Machine


class Work:
    """Something that the host's loop is to run: a job, or the look-up of a name, which blocks like a job but must not
    wait behind them."""

    __slots__ = ("call", "done", "handle", "mode", "stopped")

    def __init__(
        self,
        mode: Literal["blocking", "native", "look-up"],
        call: Callable[[], Any],
        done: Callable[[Any, BaseException | None], None],
    ) -> None:
        self.mode = mode
        self.call = call
        self.done = done  # to be called with the outcome, once
        self.stopped = False
        self.handle: Any = None  # whatever the backend needs for stopping it

    def cancelled(self) -> None:
        """It has been stopped, or was never begun."""
        self.done(None, CancelledError("the job was cancelled"))


class Polling(NonblockingDriver):
    """A driver whose host waits for `loop`, and calls `turn`."""

    def __init__(
        self,
        machine: Machine,
        clock: Callable[[], float],
        reporter: Callable[[Any], object] | None,
        grace_s: float,
    ) -> None:
        super().__init__(machine, Loop(clock=clock), reporter)
        self.grace_s = grace_s
        self.loop.on_timer = self.wake
        self._awake = True  # `turn` runs, or will without being asked to; or the poller has been made readable
        self._opening: list[Listener] = []
        self._to_begin: list[Work] = []
        self._to_stop: list[Work] = []
        self._signals: dict[int, Any] = {}  # and what handled them before

    # -- for the host

    def stop(self) -> None:
        """Ask the machine to finish within `grace_s` seconds; asked again, at once."""
        self.drain(0.0 if self.draining else self.grace_s)

    def start(self) -> None:
        super().start()
        self._opening = list(self.listeners.values())

    @property
    def is_opening(self) -> bool:
        """Whether one of the first listeners is not open yet, and may still come to be."""
        return not self.over and not all(listener.is_open or listener.gone for listener in self._opening)

    @property
    def due(self) -> float:
        """When `turn` is to be called at the latest."""
        return self.loop.due

    def turn(self) -> None:
        """Carry out what is ready, and what is due."""
        self._awake = True
        self.loop.turn(0.0)

    def take(self) -> tuple[Sequence[Work], Sequence[Work]]:
        """The work that is to begin, and the work that is to be stopped. Ask before each wait, and then wait."""
        self._awake = False
        if not (self._to_begin or self._to_stop):
            return (), ()
        begin, self._to_begin = self._to_begin, []
        stop, self._to_stop = self._to_stop, []
        for work in begin:
            if work.stopped:
                work.cancelled()
        return [work for work in begin if not work.stopped], [work for work in stop if work.handle is not None]

    def wake(self) -> None:
        """Have `turn` called soon."""
        if not self._awake:
            self._awake = True
            self.loop.nudge()

    def shut(self) -> None:
        self.ignore_signals()
        self.over = True
        super().shut()

    # -- signals

    def stop_on_signals(self) -> None:
        """Let SIGINT and SIGTERM call `stop`. Not in a thread other than the main one: no signals come there."""
        with suppress(ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                self._signals[number] = signal.signal(number, self._signalled)

    def _signalled(self, *_: object) -> None:
        # Python calls this between any two instructions, those of the machine's own turn included.
        self.loop.call(self._heed_signal)

    def _heed_signal(self) -> None:
        if self.draining:
            self.ignore_signals()  # a third one does what it does by default, should even this not help
        self.stop()

    def ignore_signals(self) -> None:
        """Give the signals back to who had them."""
        while self._signals:
            number, before = self._signals.popitem()
            signal.signal(number, before or signal.SIG_DFL)

    # -- what the driver asks for

    def arm(self, when: float) -> None:
        super().arm(when)
        self.wake()

    def start_job(self, job: int, mode: Literal["blocking", "native"], call: Callable[[], Any]) -> Work:
        return self._begin(Work(mode, call, partial(self.finished, job)))

    def stop_job(self, handle: Work) -> None:
        if not handle.stopped:
            handle.stopped = True
            self._to_stop.append(handle)
            self.wake()

    def look_up(self, address: tuple[str, int], then: Callable[[Found], object]) -> None:
        call = partial(socket.getaddrinfo, *address, type=socket.SOCK_STREAM)
        self._begin(Work("look-up", call, partial(self._looked_up, address[0], then)))

    def _looked_up(self, host: str, then: Callable[[Found], object], infos: Any, error: BaseException | None) -> None:
        if error is None:
            then(sockets.in_turns(infos))
        elif isinstance(error, OSError):
            then(error)
        else:  # a name that IDNA cannot encode; or the end
            then(OSError(f"{host!r} is not the name of a host: {error}"))
        self.wake()  # for `drive`, which may be waiting for this

    def _begin(self, work: Work) -> Work:
        self._to_begin.append(work)
        self.wake()
        return work

    def on_finished(self) -> None:
        super().on_finished()
        self.wake()

    def on_failure(self, error: BaseException) -> None:
        super().on_failure(error)
        self.wake()


class PolledDriver(Polling):
    """Goes round in a task of the host's."""

    async def drive(self, on_ready: Callable[[Any], object] | None) -> None:
        """Run the machine to its end. Raises OSError where one of the first listeners cannot be opened."""
        self.start()
        while self.is_opening:
            await self.pause()
        if self.failure is None:
            if self.unopened:
                self.drain(0.0)
                raise OSError(self.unopened[0])
            if on_ready is not None:
                on_ready(self)
        await self.last()

    async def last(self) -> None:
        """Until the machine has finished. Raises what it raised."""
        while not self.over:
            await self.pause()
        if self.failure is not None:
            raise self.failure

    @abstractmethod
    async def pause(self) -> None:
        """Do what `take` says, wait for the poller or for what is due, and `turn`."""
