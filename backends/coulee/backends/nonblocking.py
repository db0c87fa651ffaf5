"""Connections and listeners on non-blocking sockets, for a loop that says which of them are ready.

Rules:

- A write goes to the socket at once. What that does not take is kept, and goes out when there is room.
- A pause is not told to the system: the loop may find one more time that there is something to read, and only then is
  asked not to look. So a `Hold` and a `Receive` with nothing between them cost nothing. The bytes stay in the kernel.
- While a connection is held, nobody looks at it, and a reset is not heard. The next write or `Receive` finds it.
- Each of several addresses gets a head start on the next, and the first that answers is taken (RFC 8305, section 5).
"""

from __future__ import annotations

import errno
import os
import socket
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

from coulee.backends import inherited, sockets
from coulee.backends.addresses import describe
from coulee.backends.driver import Driver, Listener, Wire
from coulee.backends.loop import EXCLUSIVE, READABLE, WRITABLE, Loop, Timer
from coulee.core.seam import LISTEN_OPTIONS, Address, Bytes, ConnectOptions, ListenOptions, Machine

READ_BYTES = 64 * 1024
"""Of one read. It costs the same whatever is asked for, so this bounds what a slow peer makes us keep."""

MORE_BYTES = 512 * 1024
"""Of one read from a connection that has filled the other once. 10 MiB answers took a tenth less CPU time than with 256
KiB, and on a busy machine a quarter less. It is the most that a slow peer makes us keep."""

_PIECES_MAX = 1024  # of one sendmsg (IOV_MAX)

Piece: TypeAlias = bytes | memoryview
Found: TypeAlias = list[sockets.Target] | OSError
"""What a name stands for, or why that cannot be told."""


class NonblockingDriver(Driver):
    """A driver on a loop of ours. What turns the loop, looks up names and runs jobs is left to the backend."""

    def __init__(
        self,
        machine: Machine,
        loop: Loop,
        reporter: Callable[[Any], object] | None = None,
        shared: Shared | None = None,
    ) -> None:
        super().__init__(machine, loop.clock, reporter)
        self.loop = loop
        self.shared = shared
        self.over = False  # finished, or failed
        self.failure: BaseException | None = None
        loop.on_alarm = self.ring
        loop.on_turned = self.deliver

    @abstractmethod
    def look_up(self, address: tuple[str, int], then: Callable[[Found], object]) -> None:
        """Find the addresses of a name. Answered by `then`, not from within, in the thread of the loop."""

    def shut(self) -> None:
        """Leave nothing behind, also when the machine has failed. The last call."""
        self._running = True  # what still comes is queued, and nobody looks at it
        for listener in self.listeners.values():
            listener.close()
        for wire in list(self.wires.values()):
            wire.close(True)
        self.loop.close()

    # -- what the driver asks for

    def arm(self, when: float) -> None:
        self.loop.arm(when)

    def new_wire(self, conn: int, was_accepted: bool) -> Wire:
        return NonblockingWire(self, conn, was_accepted)

    def new_listener(self, number: int) -> Listener:
        return NonblockingListener(self, number)

    def on_finished(self) -> None:
        self.over = True

    def on_failure(self, error: BaseException) -> None:
        self.failure = error
        self.over = True


class NonblockingWire(Wire):
    """A connection on a socket."""

    __slots__ = ("_dial", "_eof_due", "_fd", "_kept", "_mask", "_read_bytes", "_recv", "_send", "_sock", "loop")

    driver: NonblockingDriver

    def __init__(self, driver: NonblockingDriver, conn: int, was_accepted: bool) -> None:
        super().__init__(driver, conn, was_accepted)
        self.loop = driver.loop
        self._dial: Dial | None = None
        self._sock: socket.socket | None = None
        self._fd = -1
        self._mask = 0  # what the loop looks for
        self._kept: list[Piece] | None = None  # what the socket did not take
        self._eof_due = False
        self._read_bytes = READ_BYTES
        self._recv: Callable[[int], bytes]
        self._send: Callable[[Piece], int]

    # -- opening

    def connect(self, address: Address) -> None:
        places = sockets.targets(address)
        if places is None:
            self.driver.look_up(cast("tuple[str, int]", address), self._looked_up)
        else:
            self._begin(places)

    def _looked_up(self, found: Found) -> None:
        if self.gone:
            return
        try:
            if isinstance(found, OSError):
                raise found
            self._begin(found)
        except OSError as error:
            self.lost(*describe(error))

    def _begin(self, places: Sequence[sockets.Target]) -> None:
        self._dial = Dial(self, sockets.from_source(places, self.options))
        self._dial.go_on()

    def adopt(self, sock: socket.socket, peer: Any, mask: int) -> None:
        """Take over a socket that is connected, and that the loop watches for what is in `mask`."""
        self._dial = None
        self._sock = sock
        self._fd = sock.fileno()
        self._mask = mask
        self._recv = sock.recv
        self._send = sock.send
        self.loop.handles[self._fd] = self
        try:
            sockets.tune(sock)
            local = sockets.plain(sock.getsockname())
        except OSError as error:
            self._end(error)
            return
        self.opened(sockets.plain(peer), local)
        if self._mask & WRITABLE and self._kept is None:  # it was watched for that while it connected
            self._watch(self._mask & READABLE)

    # -- reading

    def ready(self, events: int) -> None:
        """See `loop.Handle`."""
        if events != READABLE:
            if self._kept is not None:
                self._flush()
            if events == WRITABLE or self._sock is None:
                return
        if not self.reading:
            self._watch(self._mask & WRITABLE)
            return
        try:
            data = self._recv(self._read_bytes)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if len(data) == self._read_bytes:
            self._read_bytes = MORE_BYTES
        self.driver.gather(self, data)  # what else is read in this turn of the loop goes with it

    def pause(self) -> None:
        """`ready` sees to it, when there is something to read."""

    def resume(self) -> None:
        if not self._mask & READABLE:
            self._watch(READABLE if self._kept is None else READABLE | WRITABLE)

    # -- writing

    def write(self, data: Bytes) -> bool:
        if self._kept is not None:
            self._kept.extend(data if isinstance(data, list) else (data,))
            return False
        try:
            if isinstance(data, list):
                assert self._sock is not None
                size = sum(map(len, data))
                sent = self._sock.sendmsg(data[:_PIECES_MAX])
            else:
                size = len(data)
                sent = self._send(data)
        except BlockingIOError:
            sent, size = 0, 1
        if sent == size:
            return True
        self._kept = _rest(data if isinstance(data, list) else [data], sent)
        self._watch(self._mask | WRITABLE)
        return False

    def _flush(self) -> None:
        """Write what is kept, as far as it goes."""
        kept, sock = self._kept, self._sock
        if kept is None or sock is None:
            return
        try:
            kept = _rest(kept, self._send(kept[0]) if len(kept) == 1 else sock.sendmsg(kept[:_PIECES_MAX]))
            if kept:
                self._kept = kept
                return
            self._kept = None
            if self._eof_due:
                sock.shutdown(socket.SHUT_WR)
            if not self.closing:
                self._watch(self._mask & READABLE)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if self.closing:
            self._end(None)
        else:
            self.sent()

    def write_eof(self) -> None:
        if self._kept is not None:
            self._eof_due = True
        else:
            assert self._sock is not None
            self._sock.shutdown(socket.SHUT_WR)

    # -- closing

    def close(self, abort: bool) -> None:
        if self._dial is not None:
            self._dial.give_up()
        if self._kept is not None and not abort:
            return  # `_flush` ends it
        if abort and self._sock is not None:
            sockets.reset_on_close(self._sock)
        self._end(None)

    def _end(self, error: OSError | None) -> None:
        """Close the socket, and say so."""
        self._dial = None
        self._kept = None
        sock, self._sock = self._sock, None
        if sock is not None:
            self.loop.forget(self._fd, self._mask)
            self._mask = 0
            sock.close()
        if not self.gone:
            self.lost(*((None, "") if error is None else describe(error)))

    def fell_through(self, error: OSError) -> None:
        """No address could be connected to."""
        self._end(error)

    def _watch(self, mask: int) -> None:
        if mask != self._mask:
            self.loop.watch(self._fd, mask, self._mask)
            self._mask = mask


def _rest(pieces: Sequence[Piece], sent: int) -> list[Piece]:
    """What is left of `pieces` behind the first `sent` bytes."""
    for index, piece in enumerate(pieces):
        if sent < len(piece):
            return [memoryview(piece)[sent:], *pieces[index + 1 :]]
        sent -= len(piece)
    return []


# ----------------------------------------------------------------------------------------------- connecting


class Dial:
    """Finds the first of several places that can be connected to, for a wire."""

    __slots__ = ("_attempts", "_error", "_left", "_timer", "_wire", "loop")

    def __init__(self, wire: NonblockingWire, places: Sequence[sockets.Target]) -> None:
        self.loop = wire.loop
        self._wire = wire
        self._left = deque(places)
        self._attempts: list[_Attempt] = []
        self._timer: Timer | None = None
        self._error: OSError | None = None

    def go_on(self) -> None:
        """Try the next place, or those behind it where it fails at once. Where nothing is left, say so."""
        self._stop_timer()
        while self._left:
            try:
                attempt = _Attempt(self, *self._left.popleft(), self._wire.options)
            except OSError as error:
                self._error = error
                continue
            if attempt.peer is not None:
                self._win(attempt, attempt.peer)
                return
            self._attempts.append(attempt)
            if self._left:
                self._timer = self.loop.call_later(sockets.ATTEMPT_DELAY_S, self.go_on)
            return
        if not self._attempts:
            assert self._error is not None, "there was no place to try"
            self._wire.fell_through(self._error)

    def hear(self, attempt: _Attempt) -> None:
        """Something has become of an attempt; or nothing."""
        code = attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._attempts.remove(attempt)
            attempt.close()
            self._error = OSError(code, os.strerror(code))
            self.go_on()
            return
        try:
            peer = attempt.sock.getpeername()
        except OSError:
            return  # woken for nothing: see the rules of the loop
        self._attempts.remove(attempt)
        self._win(attempt, peer)

    def _win(self, attempt: _Attempt, peer: Any) -> None:
        self.give_up()
        self._wire.adopt(attempt.sock, peer, attempt.mask)

    def give_up(self) -> None:
        """Close what is open."""
        self._stop_timer()
        for attempt in self._attempts:
            attempt.close()
        self._attempts.clear()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Attempt:
    """A socket that connects. Raises OSError where it fails at once."""

    __slots__ = ("_dial", "mask", "peer", "sock")

    def __init__(self, dial: Dial, family: int, place: Any, options: ConnectOptions) -> None:
        self._dial = dial
        self.sock = sock = sockets.dialling(family, options)
        self.mask = 0
        self.peer: Any = None  # known where it stands at once
        try:
            code = sock.connect_ex(place)
            if not code:
                self.peer = sock.getpeername()
            elif code == errno.EINPROGRESS:
                fd = sock.fileno()
                dial.loop.handles[fd] = self
                dial.loop.watch(fd, WRITABLE, 0)
                self.mask = WRITABLE
            else:  # also EAGAIN, which is a Unix socket whose backlog is full
                raise OSError(code, os.strerror(code))
        except BaseException:
            self.close()
            raise

    def ready(self, _: int) -> None:
        """See `loop.Handle`."""
        self._dial.hear(self)

    def close(self) -> None:
        self._dial.loop.forget(self.sock.fileno(), self.mask)
        self.sock.close()


# ------------------------------------------------------------------------------------------------ listening


class Shared:
    """The sockets at which the first worker of a program listens, for the others to listen at the same addresses.

    Machines of one definition number their listeners alike.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[int, Address], list[tuple[sockets.Target, socket.socket]]] = {}

    def open(
        self, number: int, address: Address, places: list[sockets.Target], options: ListenOptions
    ) -> list[socket.socket]:
        """The sockets of one more worker. Raises OSError."""
        first = self._first.get((number, address))
        if first is None:
            opened = sockets.listen(places, options, shared=True)
            self._first[number, address] = [((sock.family, sock.getsockname()), sock) for sock in opened]
            return opened
        if isinstance(address, str):  # a path is bound to once; the kernel lets whoever is first accept
            return [sock.dup() for _, sock in first]
        return sockets.listen([place for place, _ in first], options, shared=True)


class NonblockingListener(Listener):
    """Listening sockets that are read while there are credits."""

    __slots__ = ("_accepts_max", "_mask", "_pause", "_sockets", "loop")

    driver: NonblockingDriver

    def __init__(self, driver: NonblockingDriver, number: int) -> None:
        super().__init__(driver, number)
        self.loop = driver.loop
        self._sockets: list[socket.socket] = []
        self._mask = 0
        self._pause: Timer | None = None
        self._accepts_max = sockets.ACCEPTS_MAX

    def listen(self, address: Address) -> None:
        given = inherited.given(address, self.options)
        if given is not None:
            self._accepts_max = 1  # other processes may accept from it too: see `_step_back`
            self._use(given)
            return
        places = sockets.targets(address)
        if places is None:
            self.driver.look_up(cast("tuple[str, int]", address), self._looked_up)
        else:
            self._open(places)

    def _looked_up(self, found: Found) -> None:
        if self.gone:
            return
        try:
            if isinstance(found, OSError):
                raise found
            self._open(found)
        except OSError as error:
            self.lost(*describe(error))

    def _open(self, places: list[sockets.Target]) -> None:
        shared, options = self.driver.shared, self.options
        if shared is None:
            self._use(sockets.listen(places, options))
        else:
            self._use(shared.open(self.number, self.address, places, options))

    def _use(self, opened: list[socket.socket]) -> None:
        self._sockets = opened
        for sock in self._sockets:
            self.loop.handles[sock.fileno()] = _Door(self, sock)
        self.opened(sockets.plain(self._sockets[0].getsockname()))

    def watch(self) -> None:
        if self._pause is None:
            self._look_for(READABLE | EXCLUSIVE)

    def _look_for(self, mask: int) -> None:
        if mask != self._mask:
            for sock in self._sockets:
                self.loop.watch(sock.fileno(), mask, self._mask)
            self._mask = mask

    def welcome(self) -> None:
        # Whoever came while this loop slept has woken it, and perhaps no other process: see `loop.EXCLUSIVE`.
        if self._mask:
            for sock in self._sockets:
                self.accept(sock, max(self.options.backlog, LISTEN_OPTIONS.backlog) + 1)  # so many Linux completes

    def accept(self, listening: socket.socket, accepts_max: int | None = None) -> None:
        """Let in who is there, as far as there are credits."""
        self.driver.deliver()  # who has been let in is told to the machine at once, so that it gives the next credit
        for _ in range(accepts_max or self._accepts_max):
            if self.gone:
                return
            if not self.credits:
                self._look_for(0)
                return
            try:
                sock, peer = listening.accept()
            except OSError as error:
                if error.errno not in sockets.PASSING_ERRORS:
                    # Out of descriptors, or of memory. The connection stays in the backlog and the socket readable: to
                    # try again at once would be to spin.
                    self._look_for(0)
                    self._pause = self.loop.call_later(sockets.ACCEPT_PAUSE_S, self._go_on)
                return
            sock.setblocking(False)
            cast("NonblockingWire", self.admit()).adopt(sock, peer, 0)
        if self._accepts_max == 1:
            self._step_back()

    def _step_back(self) -> None:
        """The system wakes the process that has waited for the longest, and would go on to wake this one as long as it
        has nothing else to do: all who stay would be its own. So it goes to the end of the queue, as nginx does."""
        mask = self._mask
        self._look_for(0)
        self._look_for(mask)

    def _go_on(self) -> None:
        self._pause = None
        self.watch()

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._look_for(0)  # close() does not take from epoll what has a duplicate, which would be told of for ever
        for sock in self._sockets:
            self.loop.forget(sock.fileno(), 0)
            sockets.stop_listening(sock)


class _Door:
    """One socket of a listener."""

    __slots__ = ("_listener", "_sock")

    def __init__(self, listener: NonblockingListener, sock: socket.socket) -> None:
        self._listener = listener
        self._sock = sock

    def ready(self, _: int) -> None:
        """See `loop.Handle`."""
        self._listener.accept(self._sock)
