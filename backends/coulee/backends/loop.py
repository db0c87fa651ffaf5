"""A loop of our own: says which sockets are ready, when it is time, and what another thread wants.

It is all that the threads backend has of an event loop. Rules:

- One thread turns it. Of all its methods only `call` and `nudge` may be used from another one.
- Readiness is level-triggered: who is not told off is told again at the next turn. So a handle that does not want what
  it hears must ask for less, and may do so then and not before.
- A descriptor that was closed may have a new owner before the turn is over, who then hears what was meant for the old
  one. To be called for nothing must do no harm.
- Who is ready is told first, and then what was due when that was asked: a loop that is late does not let a time limit
  overtake what has come in time.
- There is one alarm, which is a number. Timers are for what a backend must know of time by itself: when to try the next
  address of a name, and when to accept again.

epoll says what is ready; where a system has none, what Python's `selectors` find there, which costs more. Both are a
descriptor that is readable when something is ready, so another loop can wait for this one.
"""

from __future__ import annotations

import heapq
import select
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from math import inf
from typing import Any, Final, Protocol

READABLE: Final = 1  # as epoll(7) has it
WRITABLE: Final = 4
EXCLUSIVE: Final[int] = getattr(select, "EPOLLEXCLUSIVE", 0)
"""Beside READABLE, of a listening socket that other processes accept from too: who comes wakes one of those that sleep,
and not all. Whoever sleeps and is woken has to accept, or nobody may. It cannot be changed, only put in and taken out;
and a loop inside another one's, which never sleeps itself, is always told."""
_TO_SELECTOR = {
    READABLE: selectors.EVENT_READ,
    WRITABLE: selectors.EVENT_WRITE,
    READABLE | WRITABLE: selectors.EVENT_READ | selectors.EVENT_WRITE,
}
_FROM_SELECTOR = {theirs: ours for ours, theirs in _TO_SELECTOR.items()}
_EVENTS_MAX = 256  # in one turn
_PATIENCE_S = 3600.0  # of one turn with nothing to do; epoll counts milliseconds in an int
_CALLS_BYTES = 4096  # that are taken at once from the socket that wakes the loop


class Handle(Protocol):
    """Who has a socket that is watched."""

    def ready(self, events: int, /) -> None:
        """Some of what was asked for has come about. Or an error or a hang-up has, as what it makes possible or as bits
        of their own, and that where anything at all was asked for."""


class Poller(Protocol):
    """What `select.epoll` offers, as far as it is used."""

    def register(self, fd: int, mask: int, /) -> None: ...
    def modify(self, fd: int, mask: int, /) -> None: ...
    def unregister(self, fd: int, /) -> object: ...
    def fileno(self) -> int: ...
    def poll(self, timeout_s: float, events_max: int, /) -> list[tuple[int, int]]: ...
    def close(self) -> None: ...


class Selector:
    """A poller for systems without epoll: kqueue, as a rule."""

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._selector = selectors.DefaultSelector() if selector is None else selector
        self.unregister = self._selector.unregister
        self.close = self._selector.close

    def register(self, fd: int, mask: int, /) -> None:
        self._selector.register(fd, _TO_SELECTOR[mask & ~EXCLUSIVE])

    def modify(self, fd: int, mask: int, /) -> None:
        self._selector.modify(fd, _TO_SELECTOR[mask])

    def poll(self, timeout_s: float, _: int, /) -> list[tuple[int, int]]:
        return [(key.fd, _FROM_SELECTOR[events]) for key, events in self._selector.select(timeout_s)]

    def fileno(self) -> int:
        descriptor: Any = self._selector  # poll(2) has none
        return int(descriptor.fileno())


def new_poller() -> Poller:
    """The best that this system has."""
    return select.epoll() if hasattr(select, "epoll") else Selector()


class Timer:
    """A call that is due at a time."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """See the top of the module. `on_alarm` is called when the alarm rings, which `arm` sets."""

    def __init__(self, poller: Poller | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.poller = new_poller() if poller is None else poller
        self.clock = clock
        self.handles: dict[int, Handle] = {}
        self.on_alarm: Callable[[], object] = _nothing
        self.on_turned: Callable[[], object] = _nothing  # all that was ready has been told
        self.on_timer: Callable[[], object] = _nothing  # one was made, and `due` may be sooner than it was
        self._alarm = inf
        self.due = inf  # when `turn` has something to do, whatever happens: the alarm, or the first timer
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = count()
        self._calls: deque[Callable[[], object]] = deque()
        self._ear, self.waker = socket.socketpair()
        self._ear.setblocking(False)
        self.waker.setblocking(False)
        self.handles[self._ear.fileno()] = self
        self.poller.register(self._ear.fileno(), READABLE)
        # What close() takes out of epoll by itself must be taken out of a selector by hand.
        self._unwatch = self.poller.unregister if isinstance(self.poller, Selector) else _nothing

    def turn(self, patience_s: float = _PATIENCE_S) -> None:
        """Wait for something to do, and do it."""
        wait_s = self.due - self.clock()
        if wait_s > patience_s:
            wait_s = patience_s
        elif wait_s < 0.0:
            wait_s = 0.0
        handles = self.handles
        found = self.poller.poll(wait_s, _EVENTS_MAX)
        polled_at = self.clock()
        for fd, events in found:
            handle = handles.get(fd)
            if handle is not None:
                handle.ready(events)
        if self.due <= polled_at:
            self._strike(polled_at)
        self.on_turned()

    def close(self) -> None:
        self._ear.close()
        self.waker.close()
        self.poller.close()

    def fileno(self) -> int:
        """Of a descriptor that is readable when something is ready."""
        return self.poller.fileno()

    # -- sockets

    def watch(self, fd: int, mask: int, was: int) -> None:
        """Have the handle of a descriptor told of what is in `mask`, where so far it was told of what is in `was`."""
        if not was:
            self.poller.register(fd, mask)
        elif mask:
            self.poller.modify(fd, mask)
        else:
            self.poller.unregister(fd)  # an empty mask would still have it told of errors, and that without end

    def forget(self, fd: int, was: int) -> None:
        """A descriptor is about to be closed."""
        self.handles.pop(fd, None)
        if was:
            self._unwatch(fd)

    # -- time

    def arm(self, when: float) -> None:
        """Call `on_alarm` at `when`, instead of when it was due before."""
        self._alarm = when
        self._set_due()

    def call_later(self, delay_s: float, call: Callable[[], object]) -> Timer:
        timer = Timer(call)
        heapq.heappush(self._timers, (self.clock() + delay_s, next(self._numbers), timer))
        self._set_due()
        self.on_timer()
        return timer

    def _strike(self, now: float) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            call = heapq.heappop(timers)[2].call
            if call is not None:
                call()
        if self._alarm <= now:
            self._alarm = inf
            self.on_alarm()
        self._set_due()

    def _set_due(self) -> None:
        self.due = min(self._alarm, self._timers[0][0]) if self._timers else self._alarm

    # -- other threads

    def call(self, call: Callable[[], object]) -> None:
        """Have something called by the thread that turns this loop. For any thread, and for what handles a signal."""
        self._calls.append(call)
        self.nudge()

    def nudge(self) -> None:
        """Have the loop find something ready."""
        with suppress(OSError):  # the socket is full of such bytes already; or the loop has ended
            self.waker.send(b"\0")

    def ready(self, _: int) -> None:
        """The waker has sent something, or a signal has come."""
        with suppress(BlockingIOError):
            self._ear.recv(_CALLS_BYTES)
        while self._calls:
            self._calls.popleft()()


def _nothing(*_: object) -> None:
    """Who is to be called when nobody wants to know."""
