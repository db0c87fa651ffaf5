"""A proxy on select(2): a complete driver, with nothing of coulee but the seam. docs/embedding.md explains it.

What it does not have is TLS, and it says so to who asks for it: `coulee.backends.layer` is what it would put between a
`Conn` and its bytes. A socket in `readers` or `writers` is watched, and what stands beside it is called when the socket
is ready. What blocks is done in threads (`blocking_calls`) and is `pending` until its outcome comes in by way of
`later`, for one thread alone runs the machine.
"""

import resource
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from blocking_calls import Outcome, Threads, close, connected, describe, listening, plain

from coulee.core import Proxy, seam
from coulee.lb import Cluster

ACCEPT_PAUSE_S = 1.0  # where there are no descriptors left: to try again at once would be to spin
READ_BYTES = 64 * 1024


@dataclass(eq=False, slots=True)
class Conn:
    """A connection that stands."""

    number: int
    sock: socket.socket
    left: bytes | memoryview = b""  # of a Send that was not taken whole
    eof: bool = False  # and behind that, the end of our stream
    closing: bool = False


class SelectDriver:
    """Runs one machine."""

    def __init__(self, machine: seam.Machine, report: Callable[[object], object] = print) -> None:
        self.machine = machine
        self.report = report
        self.clock = time.monotonic
        self.now = self.clock()
        self.queue: deque[seam.Completion | None] = deque()
        self.busy = False
        self.readers: dict[socket.socket, Callable[[], object]] = {}
        self.writers: dict[socket.socket, Callable[[], object]] = {}
        self.conns: dict[int, Conn] = {}
        self.listeners: dict[int, list[socket.socket]] = {}
        self.credits: dict[int, int] = {}  # connections to come, in order, and the listener of each
        self.pending: dict[int, Future[Any]] = {}  # connects, listeners and jobs
        self.threads = Threads()
        self.calls: deque[Callable[[], object]] = deque()
        self.ear, self.mouth = socket.socketpair()
        self.mouth.setblocking(False)
        self.readers[self.ear] = self.hear

    # ------------------------------------------------------------------------------------------- the loop

    def run(self) -> None:
        """Run the machine until it has drained."""
        try:
            self.post(None)
            while not self.machine.finished:
                self.turn()
        finally:
            self.shut()

    def turn(self, patience_s: float = 3600.0) -> None:
        """Wait for something to do, and do it."""
        deadline = self.machine.deadline
        wait_s = patience_s if deadline is None else max(0.0, min(patience_s, deadline - self.clock()))
        readable, writable, _ = select.select(list(self.readers), list(self.writers), [], wait_s)
        for watched, ready in ((self.readers, readable), (self.writers, writable)):
            for sock in ready:
                if sock in watched:  # an earlier one of this turn may have had it held or closed
                    watched[sock]()
        deadline = self.machine.deadline
        if deadline is not None and deadline <= self.clock():
            self.ring()

    def ring(self) -> None:
        """It is time. Should it be too early by the clock, the machine is told the time that it has asked for."""
        if self.machine.deadline is not None:
            self.now = max(self.now, self.machine.deadline)
            self.post(None)

    def post(self, completion: seam.Completion | None) -> None:
        """Tell the machine, and do what it asks for. What that brings up waits its turn: `handle` is not re-entrant."""
        self.queue.append(completion)
        if self.busy:
            return
        self.busy = True
        while self.queue:
            self.now = max(self.now, self.clock())
            for operation in self.machine.handle(self.queue.popleft(), self.now):
                self.perform(operation)
        self.busy = False

    def drain(self, grace_s: float) -> None:
        """Ask the machine to finish."""
        self.post(seam.Drain(grace_s))

    def later(self, call: Callable[[], object]) -> None:
        """Have the thread of the loop call something. For any thread, and for what handles a signal."""
        self.calls.append(call)
        with suppress(OSError):  # it is full, so the loop will wake up; or closed, and nobody will
            self.mouth.send(b"\0")

    def hear(self) -> None:
        """Do what other threads want."""
        self.ear.recv(READ_BYTES)
        while self.calls:
            self.calls.popleft()()

    def shut(self) -> None:
        """Leave nothing behind, also where the machine has failed."""
        self.pending.clear()  # so that what connects gives up
        self.threads.shut()
        self.drop(self.ear, self.mouth, *(conn.sock for conn in self.conns.values()))
        for socks in self.listeners.values():
            self.drop(*socks)

    # ------------------------------------------------------------------------------------------ operations

    def perform(self, operation: seam.Operation) -> None:
        """Nothing of this raises. An operation on what is not there has crossed its `Closed`, and is dropped."""
        match operation:
            case seam.Send(number, data, eof) if number in self.conns:
                self.send(self.conns[number], [data] if isinstance(data, bytes) else data, eof)
            case seam.Receive(number) if number in self.conns:
                self.readers[self.conns[number].sock] = partial(self.read, self.conns[number])
            case seam.Hold(number) if number in self.conns:
                self.readers.pop(self.conns[number].sock, None)
            case seam.Accept(number, listener):
                self.credits[number] = listener
                if listener in self.listeners:
                    self.watch(listener)
                else:
                    self.end(number, "aborted", "the listener is closed")
            case seam.Connect(number, address, options):
                is_wanted = partial(self.pending.__contains__, number)
                self.begin(number, self.stand, self.threads.dials.submit, connected, address, options, is_wanted)
            case seam.Listen(number, address, options):
                self.listeners[number] = []
                self.begin(number, self.open, self.threads.dials.submit, listening, address, options)
            case seam.Secure(number) if number in self.conns:
                self.end(number, "tls", "this driver has no TLS")
            case seam.Close(number, abort):
                self.close(number, abort)
            case seam.Run(job, mode, call):
                self.begin(job, self.finish, self.threads.run, mode, call)
            case seam.Cancel(job) if job in self.pending:
                self.pending.pop(job).cancel()  # what a thread is at goes on, and its result is dropped
                self.finish(job, (None, CancelledError("the job was cancelled")))
            case seam.Report(record):
                with suppress(OSError):
                    self.report(record)
            case _:
                pass

    def begin(self, number: int, then: Callable[..., None], submit: Callable[..., Future[Any]], *args: Any) -> None:
        """Have something done in another thread, and then call `then` with the number and the outcome."""
        self.pending[number] = Future()  # it may look whether it is wanted before we know its own
        self.pending[number] = submit(*args)
        self.pending[number].add_done_callback(lambda future: self.later(partial(self.settle, number, future, then)))

    def settle(self, number: int, future: Future[Any], then: Callable[..., None]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None and number in self.pending:
            del self.pending[number]
            then(number, future.result())
        elif error is None:
            close(future.result())  # it comes too late
        elif number in self.pending:
            self.end(number, *describe(error))

    def finish(self, job: int, outcome: Outcome) -> None:
        self.post(seam.Finished(job, *outcome))

    def close(self, number: int, abort: bool) -> None:
        """End whatever has this number. Behind this, nothing may be heard of it but `Closed`."""
        with suppress(ValueError):
            self.queue.remove(seam.Blocked(number))
        conn = self.conns.get(number)
        if conn is not None and abort:
            with suppress(OSError):
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if conn is not None and conn.left and not abort:
            conn.closing = True  # `write_on` ends it, when the rest has gone out
            self.readers.pop(conn.sock, None)
        elif any(number in kind for kind in (self.conns, self.credits, self.listeners, self.pending)):
            self.end(number)

    def end(self, number: int, kind: seam.ErrorKind | None = None, detail: str = "") -> None:
        """Say `Closed`: of a connection, a credit, a listener, or of what was to be one of them."""
        self.pending.pop(number, None)
        self.credits.pop(number, None)
        if number in self.conns:
            self.drop(self.conns.pop(number).sock)
        if number in self.listeners:
            self.drop(*self.listeners.pop(number))
            for conn in [conn for conn, listener in self.credits.items() if listener == number]:
                del self.credits[conn]
                self.queue.append(seam.Closed(conn, "aborted", "the listener is closed"))
        self.post(seam.Closed(number, kind, detail))

    def drop(self, *socks: socket.socket) -> None:
        for sock in socks:
            self.readers.pop(sock, None)
            self.writers.pop(sock, None)
        close([*socks])

    # ------------------------------------------------------------------------------- listeners, connections

    def open(self, number: int, socks: list[socket.socket]) -> None:
        self.listeners[number] = socks
        self.post(seam.Listening(number, plain(socks[0].getsockname())))
        self.watch(number)

    def watch(self, listener: int) -> None:
        """Look for who comes, while there are credits."""
        for sock in self.listeners.get(listener, ()):
            if listener in self.credits.values():
                self.readers[sock] = partial(self.accept, listener, sock)
            else:
                self.readers.pop(sock, None)

    def accept(self, listener: int, listening_at: socket.socket) -> None:
        try:
            sock, peer = listening_at.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            for each in self.listeners[listener]:
                self.readers.pop(each, None)
            pause = self.threads.dials.submit(time.sleep, ACCEPT_PAUSE_S)
            pause.add_done_callback(lambda _: self.later(partial(self.watch, listener)))
            return
        number = next(number for number, its_listener in self.credits.items() if its_listener == listener)
        del self.credits[number]
        self.watch(listener)
        self.stand(number, [sock], seam.Accepted, peer)

    def stand(self, number: int, socks: list[socket.socket], kind: Any = seam.Connected, peer: Any = None) -> None:
        [sock] = socks
        self.conns[number] = Conn(number, sock)
        try:
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            completion = kind(number, plain(sock.getpeername() if peer is None else peer), plain(sock.getsockname()))
        except OSError as error:
            self.end(number, *describe(error))
        else:
            self.post(completion)

    def read(self, conn: Conn) -> None:
        try:
            data = conn.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(conn.number, *describe(error))
            return
        if not data:
            del self.readers[conn.sock]  # the end of the stream is told once
        self.post(seam.Received(conn.number, data))

    def send(self, conn: Conn, pieces: list[bytes], eof: bool) -> None:
        was_blocked = bool(conn.left)  # this has crossed the `Blocked`, which is still in the queue: it joins the rest
        conn.left = memoryview(b"".join([conn.left, *pieces]))
        conn.eof = eof
        if not was_blocked and not self.write(conn):
            self.queue.appendleft(seam.Blocked(conn.number))  # ahead of all that may make the machine send more

    def write(self, conn: Conn) -> bool:
        """Write what is left. False where that will take longer."""
        try:
            while conn.left:
                conn.left = conn.left[conn.sock.send(conn.left) :]
            self.writers.pop(conn.sock, None)
            if conn.eof:
                conn.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            self.writers[conn.sock] = partial(self.write_on, conn)
            return False
        except OSError as error:
            self.end(conn.number, *describe(error))
        return True

    def write_on(self, conn: Conn) -> None:
        """There is room again for what was blocked."""
        if self.write(conn) and conn.number in self.conns:
            if conn.closing:
                self.end(conn.number)
            else:
                self.post(seam.Sent(conn.number))


def main(origin: str, listen: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))  # select(2) takes no others; beyond them, accept() fails
    host, _, port = listen.rpartition(":")
    machine = Proxy(Cluster(origin)).fresh(
        rng=Random(), wall_clock_offset_s=time.time() - time.monotonic(), listen=[(host, int(port))]
    )
    driver = SelectDriver(machine)
    graces_s = iter([30.0])
    for number in (signal.SIGINT, signal.SIGTERM):  # the first lets what runs finish, the second does not
        signal.signal(number, lambda *_: driver.later(lambda: driver.drain(next(graces_s, 0.0))))
    driver.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
