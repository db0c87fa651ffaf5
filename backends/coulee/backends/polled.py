"""Connections on non-blocking sockets, all watched by one poller, for hosts that can wait for a descriptor.

A poller (epoll, kqueue) is a descriptor itself, and readable when one of its sockets is ready. So a host with a loop of
its own needs to wait for one thing, in one task, whatever the number of connections:

    while not driver.over:
        ...                      # begin and stop the work in `driver.take()`; wait until `driver.selector` is readable,
        driver.turn()            # or until the time `driver.due`; then

A connection costs no task and no turn of the host's loop, and what is ready together is carried out together. Rules:

- Nothing here awaits. All that the host's loop must do itself (run work, sleep, watch the poller) is noted and left to
  the one task that calls `turn`; `wake` makes the poller readable where that task sleeps. So the driver may be called
  from anywhere in the thread of the loop.
- A socket is watched for what is wanted of it and for nothing else, level-triggered. One that is held is not watched at
  all, for epoll reports a hang-up in any case: its reset is heard at the next `Receive`, or by writing.
- A callback of `turn` may find that an earlier one of the same turn has ended it: what it watches for says so.
- What a socket does not take at once is kept, and sent when there is room.
"""

from __future__ import annotations

import heapq
import selectors
import signal
import socket
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from itertools import islice
from math import inf
from typing import Any, Literal, cast

from coulee.backends import sockets
from coulee.backends.addresses import describe
from coulee.backends.dial import Dial, Found
from coulee.backends.driver import Driver, Listener, Wire
from coulee.core.seam import Address, Bytes, Machine

READ_BYTES_MAX = 262_144  # of one read; to begin with less costs more for large bodies than it saves for small ones
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_PIECES_MAX = 1024  # in one sendmsg: IOV_MAX of Linux, the BSDs and macOS


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


class PolledDriver(Driver):
    """A driver whose host waits for `selector`, and calls `turn`."""

    def __init__(
        self,
        machine: Machine,
        clock: Callable[[], float],
        reporter: Callable[[Any], object] | None,
        grace_s: float,
    ) -> None:
        super().__init__(machine, clock, reporter)
        self.grace_s = grace_s
        self.over = False  # finished, or failed
        self.failure: BaseException | None = None
        self.selector = selectors.DefaultSelector()
        self.fd: int = cast("Any", self.selector).fileno()  # what the host waits for
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self.selector.register(self._woken, _READ, self._hear_waker)
        self._awake = True  # `turn` runs, or will without being asked to; or the poller has been made readable
        self._alarm = inf
        self._timers: list[list[Any]] = []  # a heap: when, a number that orders, what to call or None
        self._timers_made = 0
        self._to_begin: list[Work] = []
        self._to_stop: list[Work] = []
        self._signals: dict[int, Any] = {}  # and what handled them before
        self._signals_heard = 0

    # -- for the host

    def stop(self) -> None:
        """Ask the machine to finish within `grace_s` seconds; asked again, at once."""
        self.drain(0.0 if self.draining else self.grace_s)

    @property
    def due(self) -> float:
        """When `turn` is to be called at the latest."""
        return min(self._alarm, self._timers[0][0]) if self._timers else self._alarm

    def turn(self) -> None:
        """Carry out what is ready, and what is due."""
        self._awake = True
        for key, mask in self.selector.select(0):
            key.data(mask)
        if self._signals_heard:
            self._heed_signals()
        if self.due <= self.clock():
            self._ring_all()

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
            self._nudge()

    def _nudge(self) -> None:
        with suppress(OSError):  # there are bytes enough in it; or it is closed, and a thread has outlived us
            self._waker.send(b"\0")

    def _hear_waker(self, _: int) -> None:
        self._woken.recv(4096)

    async def drive(self, on_ready: Callable[[Any], object] | None) -> None:
        """Run the machine to its end. Raises OSError where one of the first listeners cannot be opened."""
        self.start()
        opening = list(self.listeners.values())
        while not self.over and not all(listener.is_open or listener.gone for listener in opening):
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

    def shut(self) -> None:
        """Leave nothing behind, also when the machine has failed. The last call."""
        self.ignore_signals()
        self.over = True
        for listener in self.listeners.values():
            listener.close()
        for wire in list(self.wires.values()):
            wire.close(True)
        self.selector.close()
        self._waker.close()
        self._woken.close()

    # -- signals

    def stop_on_signals(self) -> None:
        """Let SIGINT and SIGTERM call `stop`. Not in a thread other than the main one: no signals come there."""
        with suppress(ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                self._signals[number] = signal.signal(number, self._signalled)

    def _signalled(self, *_: object) -> None:
        # Python calls this between any two instructions, those of the machine's own turn included.
        self._signals_heard += 1
        self._nudge()

    def _heed_signals(self) -> None:
        self._signals_heard -= 1
        if self.draining:
            self.ignore_signals()  # a third one does what it does by default, should even this not help
        self.stop()
        if self._signals_heard:
            self._heed_signals()

    def ignore_signals(self) -> None:
        """Give the signals back to who had them."""
        while self._signals:
            number, before = self._signals.popitem()
            signal.signal(number, before or signal.SIG_DFL)

    # -- time

    def arm(self, when: float) -> None:
        self._alarm = when
        self.wake()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> list[Any]:
        """Call once. The timer that this returns is cancelled by `cancel_timer`."""
        self._timers_made += 1
        timer = [self.clock() + delay_s, self._timers_made, call]
        heapq.heappush(self._timers, timer)
        self.wake()
        return timer

    def cancel_timer(self, timer: list[Any]) -> None:
        """Have a timer of `call_later` do nothing."""
        timer[2] = None

    def _ring_all(self) -> None:
        now = self.clock()
        if self._alarm <= now:
            self._alarm = inf
            self.ring()
        while self._timers and (self._timers[0][2] is None or self._timers[0][0] <= now):
            call = heapq.heappop(self._timers)[2]
            if call is not None:
                call()

    # -- what the driver asks for

    def new_wire(self, conn: int, was_accepted: bool) -> Wire:
        return PolledWire(self, conn, was_accepted)

    def new_listener(self, number: int) -> Listener:
        return PolledListener(self, number)

    def start_job(self, job: int, mode: Literal["blocking", "native"], call: Callable[[], Any]) -> Work:
        return self._begin(Work(mode, call, partial(self.finished, job)))

    def stop_job(self, handle: Work) -> None:
        if not handle.stopped:
            handle.stopped = True
            self._to_stop.append(handle)
            self.wake()

    def look_up(self, address: Address, done: Callable[[Found], None]) -> None:
        """Ask what the name in `address` stands for."""
        host, port = cast("tuple[str, int]", address)
        call = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        self._begin(Work("look-up", call, partial(_looked_up, host, done)))

    def _begin(self, work: Work) -> Work:
        self._to_begin.append(work)
        self.wake()
        return work

    def on_finished(self) -> None:
        self.over = True
        self.wake()

    def on_failure(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self.over = True
        self.wake()


class PolledWire(Wire):
    """A connection on a non-blocking socket."""

    __slots__ = ("_dial", "_eof_due", "_kept", "_mask", "_sock")

    driver: PolledDriver

    def __init__(self, driver: PolledDriver, conn: int, was_accepted: bool) -> None:
        super().__init__(driver, conn, was_accepted)
        self._sock: socket.socket | None = None
        self._mask = 0  # what the poller watches the socket for
        self._kept: deque[bytes | memoryview] | None = None  # what the socket has not taken; never an empty one
        self._eof_due = False
        self._dial: Dial | None = None

    # -- opening

    def connect(self, address: Address) -> None:
        self._dial = Dial(self.driver, self._dialled)
        self._dial.begin(address)

    def _dialled(self, result: socket.socket | OSError) -> None:
        self._dial = None
        if isinstance(result, OSError):
            self.lost(*describe(result))
            return
        try:
            peer = result.getpeername()
        except OSError as error:  # reset already
            result.close()
            self.lost(*describe(error))
        else:
            self.adopt(result, peer)

    def adopt(self, sock: socket.socket, peer: Any) -> None:
        """Take over a socket that is connected."""
        try:
            sock.setblocking(False)
            sockets.tune(sock)
            local = sockets.plain(sock.getsockname())
        except OSError as error:
            sock.close()
            self.lost(*describe(error))
            return
        self._sock = sock
        self.opened(sockets.plain(peer), local)

    # -- reading

    def resume(self) -> None:
        self._watch(self._mask | _READ)

    def pause(self) -> None:
        self._watch(self._mask & ~_READ)

    def _watch(self, mask: int) -> None:
        before = self._mask
        if mask == before:
            return
        assert self._sock is not None
        selector = self.driver.selector
        if not before:
            selector.register(self._sock, mask, self._ready)
        elif mask:
            selector.modify(self._sock, mask, self._ready)
        else:
            selector.unregister(self._sock)
        self._mask = mask

    def _ready(self, mask: int) -> None:
        if mask & self._mask & _READ:
            self._read()
        if mask & self._mask & _WRITE:
            self._flush()

    def _read(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(READ_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(error)
            return
        if not data:
            self._watch(self._mask & ~_READ)
        self.received(data)

    # -- writing

    def write(self, data: Bytes) -> bool:
        if self._kept is not None:
            self._kept.extend(data if isinstance(data, list) else (data,))
            return False
        assert self._sock is not None
        try:
            if not isinstance(data, list):
                sent = self._sock.send(data)
                if sent == len(data):
                    return True
            else:
                sent = self._sock.sendmsg(data if len(data) <= _PIECES_MAX else data[:_PIECES_MAX])
                if sent == sum(map(len, data)):
                    return True
        except BlockingIOError:
            sent = 0
        self._kept = _rest(deque[bytes | memoryview](data if isinstance(data, list) else (data,)), sent)
        self._watch(self._mask | _WRITE)
        return False

    def _flush(self) -> None:
        """Send what is kept, as far as there is room."""
        assert self._sock is not None
        assert self._kept is not None
        try:
            if _rest(self._kept, self._sock.sendmsg(islice(self._kept, _PIECES_MAX))):
                return
            self._kept = None
            self._watch(self._mask & ~_WRITE)
            if self.closing:
                self._let_go()
                self.lost(None)
                return
            if self._eof_due:
                self._sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(error)
            return
        self.sent()

    def write_eof(self) -> None:
        if self._kept is not None:
            self._eof_due = True
        elif self._sock is not None:
            self._sock.shutdown(socket.SHUT_WR)

    # -- closing

    def close(self, abort: bool) -> None:
        if self._sock is None:
            if self._dial is not None:
                self._dial.end()
            self.lost(None)
        elif abort or self._kept is None:
            if abort:
                sockets.reset_on_close(self._sock)
            self._let_go()
            self.lost(None)
        else:
            self._watch(_WRITE)

    def _break(self, error: OSError) -> None:
        self._let_go()
        self.lost(*describe(error))

    def _let_go(self) -> None:
        assert self._sock is not None
        self._watch(0)
        self._kept = None
        self._sock.close()


class PolledListener(Listener):
    """Listening sockets that are watched while there are credits."""

    __slots__ = ("_pause", "_sockets", "_watching")

    driver: PolledDriver

    def __init__(self, driver: PolledDriver, number: int) -> None:
        super().__init__(driver, number)
        self._sockets: list[socket.socket] = []
        self._watching = False
        self._pause: list[Any] | None = None

    def listen(self, address: Address) -> None:
        places = sockets.targets(address)
        if places is None:
            self.driver.look_up(address, self._found)
        else:
            self._open(places)

    def _found(self, found: Found) -> None:
        if self.gone:
            return
        try:
            if isinstance(found, OSError):
                raise found
            self._open(found)
        except OSError as error:
            self.lost(*describe(error))
        self.driver.wake()  # for `drive`, which may be waiting for this

    def _open(self, places: list[sockets.Target]) -> None:
        self._sockets = sockets.listen(places)
        self.opened(sockets.plain(self._sockets[0].getsockname()))

    def watch(self) -> None:
        if not self._watching and self._pause is None:
            self._watching = True
            for sock in self._sockets:
                self.driver.selector.register(sock, _READ, partial(self._accept, sock))

    def _rest(self) -> None:
        if self._watching:
            self._watching = False
            for sock in self._sockets:
                self.driver.selector.unregister(sock)

    def _accept(self, listening: socket.socket, _: int) -> None:
        for _ in range(sockets.ACCEPTS_MAX):
            if not self._watching:  # closed by what came of the last one, or resting
                return
            if not self.credits:
                self._rest()
                return
            try:
                sock, peer = listening.accept()
            except OSError as error:
                if error.errno not in sockets.PASSING_ERRORS:
                    # Out of descriptors, or of memory. The connection stays in the backlog and the socket readable: to
                    # try again at once would be to spin.
                    self._rest()
                    self._pause = self.driver.call_later(sockets.ACCEPT_PAUSE_S, self._resume)
                return
            cast("PolledWire", self.admit()).adopt(sock, peer)

    def _resume(self) -> None:
        self._pause = None
        self.watch()

    def close(self) -> None:
        if self._pause is not None:
            self.driver.cancel_timer(self._pause)
        self._rest()
        for sock in self._sockets:
            sockets.stop_listening(sock)


def _looked_up(host: str, done: Callable[[Found], None], infos: Any, error: BaseException | None) -> None:
    if error is None:
        done(sockets.in_turns(infos))
    elif isinstance(error, OSError):
        done(error)
    else:  # a name that IDNA cannot encode; or the end
        done(OSError(f"{host!r} is not the name of a host: {error}"))


def _rest(pieces: deque[bytes | memoryview], sent: int) -> deque[bytes | memoryview]:
    """Take off what was sent."""
    while pieces and sent >= len(pieces[0]):
        sent -= len(pieces.popleft())
    if sent:
        pieces[0] = memoryview(pieces[0])[sent:]
    return pieces
