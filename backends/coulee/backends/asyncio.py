"""The backend for asyncio, and for uvloop, which is asyncio in C.

A connection is a transport and its protocol; listening sockets are our own, because a server of asyncio accepts what
comes and knows no credits. What was found by trying, on CPython 3.11 and uvloop 0.23, and is relied upon:

- With a write buffer limit of 0 both loops write at once, and call `pause_writing` from within `write` exactly when
  something is left over.
- uvloop begins to read behind `connection_made`, whatever was paused in it; the driver keeps that early read.
- After the peer's end of stream asyncio, paused and resumed, delivers it a second time; the driver does neither then.
- While a transport is paused neither loop hears a reset. The next write finds it, or the next `Receive`.
- Between a transport's failure and its `connection_lost` uvloop raises RuntimeError where asyncio does nothing.
- uvloop's timers come up to a millisecond early, and its clock stands still while one turn of the loop lasts.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import select
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, cast

from coulee.backends import inherited, sockets
from coulee.backends.addresses import describe
from coulee.backends.driver import Driver, Listener, Wire
from coulee.backends.hosting import BLOCKING_JOBS_MAX, Where, awaited, called, make_machine
from coulee.backends.memory import keep_heap
from coulee.core.seam import LISTEN_OPTIONS, Address, Bytes, ConnectOptions, Machine

_LAST_TURNS_MAX = 8 * LISTEN_OPTIONS.backlog  # of the loop, to let in who waits when a drain begins


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
        driver.start()
        opening = [listener.task for listener in driver.listeners.values() if isinstance(listener, _Listener)]
        await asyncio.gather(*filter(None, opening))
        if driver.unopened:
            driver.drain(0.0)
            raise OSError(driver.unopened[0])
        if on_ready is not None:
            on_ready(driver)
        await asyncio.shield(driver.done)
    except asyncio.CancelledError:
        driver.drain(0.0)
        await driver.done
        raise
    finally:
        await driver.shut()


class AsyncioDriver(Driver):
    """Runs one machine on a running event loop."""

    def __init__(
        self,
        machine: Machine,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        reporter: Callable[[Any], object] | None,
        grace_s: float,
    ) -> None:
        super().__init__(machine, clock, reporter)
        self.loop = loop
        self.grace_s = grace_s
        self.done: asyncio.Future[None] = loop.create_future()
        self.tasks: set[asyncio.Task[Any]] = set()  # the loop itself holds them by weak references only
        self.threads = concurrent.futures.ThreadPoolExecutor(BLOCKING_JOBS_MAX, "coulee-job")
        self._alarm: asyncio.TimerHandle | None = None
        self._signals: list[signal.Signals] = []
        self._told_to_drain = False

    # -- for the host

    def stop(self) -> None:
        """Ask the machine to finish within `grace_s` seconds; asked again, at once."""
        self.drain(0.0 if self.draining else self.grace_s)

    def drain(self, grace_s: float) -> None:
        if grace_s and not self.draining and self._somebody_waits():
            self.draining = True
            self.spawn(self._let_in_and_drain(grace_s))
        else:
            self._told_to_drain = True
            super().drain(grace_s)

    async def _let_in_and_drain(self, grace_s: float) -> None:
        """Drain when those who wait are let in, some turns of the loop each: to close our sockets is to reset them."""
        for _ in range(_LAST_TURNS_MAX):
            if self._told_to_drain or not self._somebody_waits():
                break
            await asyncio.sleep(0)
        if not self._told_to_drain:
            self.drain(grace_s)

    def _somebody_waits(self) -> bool:
        return any(listener.has_company for listener in self.listeners.values() if isinstance(listener, _Listener))

    def stop_on_signals(self) -> None:
        """Let SIGINT and SIGTERM call `stop`. Not in a thread other than the main one: no signals come there."""
        with suppress(ValueError, RuntimeError, NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                self.loop.add_signal_handler(number, self._signalled)
                self._signals.append(number)

    def _signalled(self) -> None:
        if self.draining:
            self._ignore_signals()  # a third one does what it does by default, should even this not help
        self.stop()

    def _ignore_signals(self) -> None:
        while self._signals:
            self.loop.remove_signal_handler(self._signals.pop())

    async def shut(self) -> None:
        """Leave nothing behind, also when the machine has failed."""
        self._ignore_signals()
        if self._alarm is not None:
            self._alarm.cancel()
        for listener in self.listeners.values():
            listener.close()
        for wire in list(self.wires.values()):
            wire.close(True)
        for task in self.tasks:
            task.cancel()
        self.threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close their sockets in the turn after

    # -- what the driver asks for

    def arm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self.loop.call_at(when, self.ring)

    def new_wire(self, conn: int, was_accepted: bool) -> Wire:
        return _Wire(self, conn, was_accepted)

    def new_listener(self, number: int) -> Listener:
        return _Listener(self, number)

    def start_job(self, job: int, mode: Literal["blocking", "native"], call: Callable[[], Any]) -> asyncio.Future[Any]:
        if mode == "blocking":
            future: asyncio.Future[Any] = self.loop.run_in_executor(self.threads, called, call)
        else:
            future = self.spawn(awaited(call, asyncio.CancelledError))
        future.add_done_callback(partial(self._job_done, job))
        return future

    def stop_job(self, handle: asyncio.Future[Any]) -> None:
        handle.cancel()  # what runs in a thread cannot be stopped: it goes on, and its result is dropped

    def _job_done(self, job: int, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            self.finished(job, None, concurrent.futures.CancelledError("the job was cancelled"))
        else:
            self.finished(job, *future.result())

    def on_finished(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def on_failure(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    # -- for wires and listeners

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that is not forgotten while it runs."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


class _Wire(Wire, asyncio.Protocol):
    """A connection, and the protocol of its transport."""

    __slots__ = ("_eof_due", "_error", "_full", "_local", "_peer", "_put", "_sock", "_task", "_transport", "loop")

    driver: AsyncioDriver

    def __init__(self, driver: AsyncioDriver, conn: int, was_accepted: bool) -> None:
        super().__init__(driver, conn, was_accepted)
        self.loop = driver.loop
        self._task: asyncio.Task[None] | None = None
        self._sock: socket.socket | None = None
        self._transport: asyncio.Transport | None = None
        self._put: Callable[[bytes], None] = _nowhere
        self._full = False  # the transport keeps something that the socket did not take
        self._eof_due = False
        self._error: Exception | None = None
        self._peer: Address = ""
        self._local: Address = ""

    # -- opening

    def connect(self, address: Address) -> None:
        self._task = self.driver.spawn(self._begin(address))

    def adopt(self, sock: socket.socket, peer: Any) -> None:
        """Take over a socket that was accepted."""
        self._sock = sock
        self._peer = sockets.plain(peer)
        self._task = self.driver.spawn(self._begin(None))

    async def _begin(self, address: Address | None) -> None:
        """Have a transport made, for the socket accepted or a new one. Ends in `connection_made`, or in `lost`."""
        try:
            if address is not None:
                self._sock = await _dial(self.loop, address, self.options)
                self._peer = sockets.plain(self._sock.getpeername())
            sock = self._sock
            assert sock is not None
            self._local = sockets.plain(sock.getsockname())
            sock.setblocking(False)
            sockets.tune(sock)
            await self.loop.connect_accepted_socket(self._itself, sock)
        except OSError as error:
            if self._sock is not None:
                self._sock.close()
            if not self.gone:
                self.lost(*describe(error))

    def _itself(self) -> _Wire:
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        self._task = None  # it has done its work, and would cost 0.7 KiB for as long as the connection lasts
        if self.gone:  # closed before it was made; asyncio goes through with it none the less
            transport.abort()
            return
        self._transport = transport
        self._put = transport.write
        transport.set_write_buffer_limits(high=0)
        transport.pause_reading()
        self.opened(self._peer, self._local)

    # -- reading

    def data_received(self, data: bytes) -> None:
        driver = self.driver
        if driver.gather(self, data):  # what else is read in this turn of the loop goes with it
            self.loop.call_soon(driver.deliver)

    def eof_received(self) -> bool:
        self.received(b"")
        return True  # the other direction stays open

    def pause(self) -> None:
        assert self._transport is not None
        self._transport.pause_reading()

    def resume(self) -> None:
        assert self._transport is not None
        with suppress(RuntimeError):  # uvloop: the transport has failed, and connection_lost is on its way
            self._transport.resume_reading()

    # -- writing

    def write(self, data: Bytes) -> bool:
        try:
            if isinstance(data, list):
                self._write_list(data)
            else:
                self._put(data)
        except RuntimeError:  # uvloop: the transport has failed, and connection_lost is on its way
            return True
        return not self._full

    def _write_list(self, data: list[bytes]) -> None:
        transport = self._transport
        assert transport is not None
        transport.writelines(data)
        if not self._full and transport.get_write_buffer_size():
            # CPython 3.12 and some of 3.13 forget to say so after writelines; this makes them look.
            transport.set_write_buffer_limits(high=0)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._eof_due:
            self._half_close()
        self.sent()

    def write_eof(self) -> None:
        if self._full:
            self._eof_due = True  # by our own hand, for asyncio raises from a callback where the peer was faster
        else:
            self._half_close()

    def _half_close(self) -> None:
        transport = self._transport
        assert transport is not None
        try:
            transport.write_eof()
        except RuntimeError:  # uvloop: the transport has failed, and connection_lost is on its way
            pass
        except OSError as error:  # the peer has reset the connection, which a paused transport does not hear by itself
            self._error = error
            transport.abort()

    # -- closing

    def close(self, abort: bool) -> None:
        transport = self._transport
        if transport is None:
            assert self._task is not None
            self._task.cancel()
            if self._sock is not None:
                self._sock.close()
            self.lost(None)
        elif abort:
            if self._sock is not None:
                sockets.reset_on_close(self._sock)
            transport.abort()
        else:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.gone:
            return
        error = exc or self._error
        if error is None:
            self.lost(None)
        elif isinstance(error, OSError):
            self.lost(*describe(error))
        else:
            self.lost("other", str(error))


class _Listener(Listener):
    """Listening sockets that are read while there are credits."""

    __slots__ = ("_pause", "_sockets", "_watching", "task")

    driver: AsyncioDriver

    def __init__(self, driver: AsyncioDriver, number: int) -> None:
        super().__init__(driver, number)
        self.task: asyncio.Task[None] | None = None  # looking up a name
        self._sockets: list[socket.socket] = []
        self._watching = False
        self._pause: asyncio.TimerHandle | None = None

    def listen(self, address: Address) -> None:
        given = inherited.given(address, self.options)
        if given is not None:
            self._use(given)
            return
        places = sockets.targets(address)
        if places is None:
            self.task = self.driver.spawn(self._look_up(cast("tuple[str, int]", address)))
        else:
            self._open(places)

    async def _look_up(self, address: tuple[str, int]) -> None:
        try:
            infos = await self.driver.loop.getaddrinfo(*address, type=socket.SOCK_STREAM)
            self._open(sockets.in_turns(infos))
        except OSError as error:
            self.task = None  # `lost` closes this listener, and would cancel the task that it is called from
            self.lost(*describe(error))

    def _open(self, places: list[sockets.Target]) -> None:
        self._use(sockets.listen(places, self.options))

    def _use(self, opened: list[socket.socket]) -> None:
        self._sockets = opened
        self.opened(sockets.plain(self._sockets[0].getsockname()))

    @property
    def has_company(self) -> bool:
        """Whether somebody waits to be let in, whom nobody else can let in."""
        poll = select.poll()
        for sock in self._sockets:
            if not isinstance(sock, sockets.Lent):
                poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))

    def watch(self) -> None:
        if not self._watching:
            self._watching = True
            for sock in self._sockets:
                self.driver.loop.add_reader(sock, self._accept, sock)

    def _rest(self) -> None:
        if self._watching:
            self._watching = False
            for sock in self._sockets:
                self.driver.loop.remove_reader(sock)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(sockets.ACCEPTS_MAX):
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
                    self._watching = True  # as far as `watch` is concerned
                    self._pause = self.driver.loop.call_later(sockets.ACCEPT_PAUSE_S, self._resume)
                return
            cast("_Wire", self.admit()).adopt(sock, peer)

    def _resume(self) -> None:
        self._pause = None
        self._watching = False
        self.watch()

    def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
        if self._pause is not None:
            self._pause.cancel()
        else:
            self._rest()
        for sock in self._sockets:
            sockets.stop_listening(sock)


# ----------------------------------------------------------------------------------------------- connecting


async def _dial(loop: asyncio.AbstractEventLoop, address: Address, options: ConnectOptions) -> socket.socket:
    """A socket connected to `address`. Raises OSError."""
    places: Sequence[sockets.Target] | None = sockets.targets(address)
    if places is None:
        host, port = cast("tuple[str, int]", address)
        try:
            places = sockets.in_turns(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except UnicodeError as error:
            raise OSError(f"{host!r} is not the name of a host: {error}") from error
    places = sockets.from_source(places, options)
    if len(places) == 1:
        return await _attempt(loop, *places[0], options)
    return await _race(loop, places, options)


async def _race(
    loop: asyncio.AbstractEventLoop, places: Sequence[sockets.Target], options: ConnectOptions
) -> socket.socket:
    """The first connection that comes about, where each attempt gets a head start on the next (RFC 8305, section 5)."""
    running: set[asyncio.Task[socket.socket]] = set()
    left = iter(places)
    error: BaseException | None = None
    try:
        while True:
            place = next(left, None)
            if place is not None:
                running.add(loop.create_task(_attempt(loop, *place, options)))
            elif not running:
                assert error is not None
                raise error
            done, _ = await asyncio.wait(
                running, timeout=None if place is None else sockets.ATTEMPT_DELAY_S, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                running.discard(task)
                if error is None:
                    return task.result()
    finally:
        for task in running:
            if not task.cancel() and not task.cancelled() and task.exception() is None:
                task.result().close()  # it came second by less than a turn of the loop


async def _attempt(loop: asyncio.AbstractEventLoop, family: int, place: Any, options: ConnectOptions) -> socket.socket:
    sock = sockets.dialling(family, options)
    try:
        if family == socket.AF_UNIX:
            # It connects or fails at once. asyncio would take the EAGAIN of a full backlog for a connection under way.
            sock.connect(place)
        else:
            await loop.sock_connect(sock, place)
    except BaseException:
        sock.close()
        raise
    return sock


def _nowhere(_: bytes) -> None:
    raise AssertionError("backend: written to before it is open")
