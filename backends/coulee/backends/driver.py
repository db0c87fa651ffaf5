"""The driver: turns a machine's operations into calls on a transport, and what the transport says into completions.

Everything that backends have in common is here, so that none can get it wrong in its own way. A backend says how to do
things (the abstract methods of `Wire`, `Listener` and `Driver`) and reports what happened (`opened`, `received`,
`sent`, `lost`, `admit`, `finished`, `ring`). Rules:

- The driver runs the machine, and nobody else does. A completion that comes up while an operation is carried out waits
  in a queue and is handed over in the same turn of the loop; the machine is never entered twice.
- The driver holds both sides to the laws of the seam. An assertion that begins with "machine" is about a bug of the
  core, one that begins with "backend" about a bug of the backend. They cost a test or two an operation and stay on.
- What crosses is nobody's fault: an operation for a connection whose `Closed` is on its way is dropped without a word.
- After `Close(conn)` nothing but `Closed(conn)` is delivered, and after `Hold(conn)` no `Received(conn)`: the one read
  that a loop may still deliver is kept for the next `Receive`.
- Carrying out an operation never raises. An `OSError` becomes `Closed`, with an error kind and text for the log.
- What the machine sends is written last: when its turn is over, or where a loop gathers what many connections say at
  once, when all of that has been handed over. A Close is carried out behind what was sent before it.
- Bytes are passed on without being looked at. There is no timeout and no policy here.

Times are float seconds of the clock that the driver is given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any, Literal

from coulee.backends.addresses import describe
from coulee.backends.laws import complain_of_send
from coulee.backends.layer import Layer
from coulee.backends.listener import Listener as Listener
from coulee.backends.tls import Tls
from coulee.backends.trace import number_of
from coulee.backends.wire import NEVER
from coulee.backends.wire import Wire as Wire
from coulee.core.seam import (
    Accept,
    Address,
    Blocked,
    Cancel,
    Close,
    Closed,
    Completion,
    Connect,
    DownstreamTls,
    Drain,
    Finished,
    Hold,
    Listen,
    Machine,
    Receive,
    Received,
    Report,
    Run,
    Secure,
    Send,
    UpstreamTls,
)

GATHERED_BYTES_MAX = 1024 * 1024
"""How much may be read in all before the machine hears of it."""

LARGE_READ_BYTES = 256 * 1024
"""A read from a connection that has more of it: the machine hears of it at once, and may hold it back."""


class Driver(ABC):
    """Runs one machine. A backend subclasses it, together with `Wire` and `Listener`.

    `clock` tells the time; it may stand still or step back, and the machine does not see it do so. `reporter` is
    called with the record of each `Report`. An `OSError` from it (a full disk, a closed pipe) is counted in
    `reports_lost`, for a proxy outlives its log; any other exception counts as a failure of the machine.
    """

    def __init__(
        self, machine: Machine, clock: Callable[[], float], reporter: Callable[[Any], object] | None = None
    ) -> None:
        self.machine = machine
        self.clock = clock
        self.reporter = reporter
        self.reports_lost = 0
        self.unopened: list[str] = []  # listeners that could not be opened, and why
        self.now = -inf  # what the machine was told last; never goes backwards
        self.wires: dict[int, Wire] = {}
        self.listeners: dict[int, Listener] = {}
        self.credits: dict[int, Listener] = {}  # not yet spent, by the number that the connection will have
        self.jobs: dict[int, object] = {}
        self.tls: Tls | None = None  # made when it is first wanted
        self._queue: deque[Completion] = deque()
        self._outgoing: list[tuple[Wire, Send]] = []  # not yet written
        self._parting: dict[int, bool] = {}  # numbers whose last word is in the queue, and whether it was asked for
        self._running = False
        self._gathering = False
        self._gathered_bytes = 0
        self._rung = False  # while gathering
        self.draining = False
        self._turn = 0
        self._highest = 0  # the last number that the machine gave
        self._alarm_at = inf
        self._handle = machine.handle
        self._perform: dict[type, Callable[[Any], None]] = {
            Listen: self._listen,
            Accept: self._accept,
            Connect: self._connect,
            Secure: self._secure,
            Receive: self._receive,
            Hold: self._hold,
            Send: self._send,
            Close: self._close,
            Run: self._run,
            Cancel: self._cancel,
            Report: self._report,
        }

    # -- what a backend implements

    @abstractmethod
    def arm(self, when: float) -> None:
        """Call `ring` at `when`, or as soon as may be where that has passed. Replaces what was armed before."""

    @abstractmethod
    def new_wire(self, conn: int, was_accepted: bool) -> Wire:
        """A wire of this backend."""

    @abstractmethod
    def new_listener(self, number: int) -> Listener:
        """A listener of this backend."""

    @abstractmethod
    def start_job(self, job: int, mode: Literal["blocking", "native"], call: Callable[[], Any]) -> object:
        """Begin user code. Answered by `finished`, not from within. What this returns is what `stop_job` gets."""

    @abstractmethod
    def stop_job(self, handle: Any) -> None:
        """Cancel a job as far as that is possible; `finished` still comes. May be called twice."""

    @abstractmethod
    def on_finished(self) -> None:
        """The machine has finished, and nothing is outstanding. Called once, last."""

    def on_failure(self, error: BaseException) -> None:
        """The machine raised, or a law was broken: its state is not to be trusted, and it is not run again."""
        raise error

    # -- what a backend calls

    def start(self) -> None:
        """Give the machine its first turn."""
        self.post(None)

    def drain(self, grace_s: float) -> None:
        """Ask the machine to stop; what runs may finish within `grace_s` seconds. May be asked again, for less."""
        self.draining = True
        for listener in list(self.listeners.values()):
            listener.welcome()
        self.post(Drain(grace_s))

    def finished(self, job: int, value: object = None, error: BaseException | None = None) -> None:
        """A job has ended."""
        assert job in self.jobs, f"backend, law 1: finished() for job {job}, which is not running"
        del self.jobs[job]
        self.last_word(Finished(job, value, error), False)

    def ring(self) -> None:
        """The alarm rings. It may do so early, or after the deadline has moved: it is not taken at its word. A loop
        that is late first reads what is there, and then calls this."""
        if self._running and not self._gathering:
            return  # it is all over
        armed, self._alarm_at = self._alarm_at, inf
        deadline = self.machine.deadline
        if deadline is None:
            return
        if deadline > armed:  # it has moved since, and the alarm was left where it stood
            self._alarm_at = deadline
            self.arm(deadline)
        else:
            # Law 6. uvloop's timers come up to a millisecond early; by the clock's own time nothing would be due, and
            # with the deadline where it was nothing would be armed again.
            self.now = max(self.now, deadline)
            if self._gathering:
                self._rung = True  # what was read comes first
            else:
                self.post(None)

    @property
    def is_running(self) -> bool:
        """Whether what is reported has to wait for its turn."""
        return self._running

    @property
    def addresses(self) -> list[Address]:
        """Where the open listeners listen, in the order in which they were asked for."""
        return [listener.local for listener in self.listeners.values() if listener.is_open]

    @property
    def outstanding(self) -> dict[str, int]:
        """What is open or awaits an answer, by kind; all zero where nothing is left."""
        return {
            "listeners": len(self.listeners),
            "credits": len(self.credits),
            "connections": len(self.wires),
            "jobs": len(self.jobs),
            "queued": len(self._queue) + len(self._outgoing),
        }

    # -- the loop

    def post(self, completion: Completion | None) -> None:
        """Hand a completion to the machine and carry out what it asks for; where that is being done, queue it."""
        if self._running:
            if completion is not None:
                self._queue.append(completion)
            return
        self._running = True
        self._work(completion, False)

    def gather(self, wire: Wire, data: bytes) -> bool:
        """`received` of a wire, kept until `deliver`, and then handed to the machine with all else that is reported by
        then: for a loop that finds many connections ready at once. To read from them all, run the machine for them all
        and write to them all spares the system, and the peers, much waking and waiting. Delivers by itself where it has
        become much, so that who feeds us is held back in time. Says whether this is the first of what is gathered."""
        begins = not self._running
        if begins:
            self._running = self._gathering = True
        if wire.reading and data and wire.layer is None:
            self._queue.append(Received(wire.conn, data))
        else:
            wire.received(data)
        size = len(data)
        self._gathered_bytes += size
        if self._gathered_bytes >= GATHERED_BYTES_MAX or size >= LARGE_READ_BYTES:
            self.deliver()
        return begins

    def deliver(self) -> None:
        """See `gather`. Does nothing where nothing is being gathered."""
        self._gathered_bytes = 0
        if self._gathering:
            self._gathering = False
            self._work(self._next_due(), True)

    def _work(self, completion: Completion | None, together: bool) -> None:
        """Hand over a completion and what is queued behind it, and carry out what the machine asks for: what it sends
        comes last, of each turn or of all of them `together`."""
        now = self.clock()
        if now < self.now:
            now = self.now
        else:
            self.now = now
        perform = self._perform
        handle = self._handle
        queue = self._queue
        finished = False
        try:
            while True:
                self._turn += 1
                for operation in handle(completion, now):
                    perform[type(operation)](operation)
                if not (together and queue) and self._outgoing:
                    self._write_all()
                completion = self._next_due() if queue else None
                if completion is None:
                    if self._outgoing:  # what was queued has been overtaken, all of it
                        self._write_all()
                        completion = self._next_due()
                    if completion is None:
                        if not self._rung:
                            break
                        self._rung = False
            deadline = self.machine.deadline
            if deadline is not None and deadline < self._alarm_at:
                self._alarm_at = deadline
                self.arm(deadline)
            # A machine that has wires can only be finished by mistake; while it drains, look for that too.
            if (self.draining or not self.wires) and self.machine.finished:
                finished = True
                left = {kind: count for kind, count in self.outstanding.items() if count}
                assert not left, f"machine, law 1: it says that it has finished, with {left} outstanding"
        except BaseException as error:
            self.on_failure(error)  # _running stays: what still comes is queued, and nobody looks at it
            return
        if finished:
            self.on_finished()  # as above
        else:
            self._running = False

    def tell_blocked(self, wire: Wire) -> None:
        """Words of its own TLS could not get rid of."""
        wire.blocked = True
        wire.barred = NEVER
        self._queue.appendleft(Blocked(wire.conn))
        if not self._running:
            self.post(self._next_due())

    def last_word(self, completion: Closed | Finished, asked: bool) -> None:
        """Queue the last completion about a number, and see that the queue is worked off."""
        self._parting[number_of(completion)] = asked
        self._queue.append(completion)
        if not self._running:
            self.post(self._next_due())

    def _next_due(self) -> Completion | None:
        """The next completion of the queue that no operation since has overtaken."""
        queue = self._queue
        while queue:
            completion = queue.popleft()
            if isinstance(completion, Received):
                wire = self.wires.get(completion.conn)
                if wire is not None and wire.reading and completion.data:
                    return completion  # so it nearly always is
            elif isinstance(completion, Drain):
                return completion
            number = number_of(completion)
            if isinstance(completion, Closed | Finished):
                del self._parting[number]
                return completion
            wire = self.wires.get(number)
            if self._parting.get(number) or (wire is not None and wire.closing):
                continue  # the machine has closed it, and waits for one thing only
            if isinstance(completion, Received) and wire is not None:
                if not wire.reading:
                    wire.keep(completion.data)
                    continue
                wire.reading = bool(completion.data)
            return completion
        return None

    # -- operations, the frequent ones first

    def _send(self, operation: Send) -> None:
        wire = self.wires.get(operation.conn)
        if wire is None:
            self._stray(operation, operation.conn)
            return
        turn = self._turn
        if wire.barred >= turn and not self._crosses(wire):
            complain_of_send(wire)
        wire.barred = turn
        if operation.eof:
            wire.half_closed = True
            wire.barred = NEVER
        self._outgoing.append((wire, operation))

    def _write_all(self) -> None:
        """Write what the machine has sent."""
        outgoing, self._outgoing = self._outgoing, []
        for wire, operation in outgoing:
            if wire.gone:
                continue
            data = operation.data
            try:
                if wire.layer is not None:
                    data = wire.layer.encrypt(data) if data else b""
                    if operation.eof:
                        data += wire.layer.farewell()
                if data and not wire.write(data) and not wire.blocked:
                    wire.blocked = True
                    # Ahead of what was queued before: who does not know of it yet may take that for a reason to send
                    # more.
                    self._queue.appendleft(Blocked(operation.conn))
                if wire.blocked:
                    wire.barred = NEVER
                if operation.eof and not wire.gone:
                    wire.write_eof()
            except OSError as error:
                wire.fail(error)

    def _receive(self, operation: Receive) -> None:
        wire = self.wires.get(operation.conn)
        if wire is None:
            self._stray(operation, operation.conn)
            return
        assert wire.is_open, f"machine, law 1: Receive on {wire.conn} before it is open"
        assert not wire.closing, f"machine, law 2: Receive on {wire.conn} after Close"
        assert not wire.securing, f"machine, law 1: Receive on {wire.conn} before its TLS stands"
        assert not wire.reading, f"machine, law 1: a second Receive on {wire.conn}"
        wire.reading = True
        if wire.early is not None:
            self._queue.append(Received(wire.conn, wire.early))
            wire.early = None
        if wire.early_end:
            self._queue.append(Received(wire.conn, b""))
            wire.early_end = False
            return
        assert not wire.ended, f"machine, law 1: Receive on {wire.conn} after the end of its stream"
        try:
            wire.resume()
        except OSError as error:
            wire.fail(error)

    def _hold(self, operation: Hold) -> None:
        wire = self.wires.get(operation.conn)
        if wire is None:
            self._stray(operation, operation.conn)
            return
        assert wire.reading, f"machine, law 1: Hold on {wire.conn}, where no Receive stands"
        assert not wire.securing, f"machine, law 1: Hold on {wire.conn} before its TLS stands"
        wire.reading = False
        try:
            wire.pause()
        except OSError as error:
            wire.fail(error)

    def _accept(self, operation: Accept) -> None:
        self._name(operation, operation.conn)
        listener = self.listeners.get(operation.listener)
        if listener is None:
            self._stray(operation, operation.listener)
            self.last_word(Closed(operation.conn, "aborted", "the listener is closed"), False)
            return
        self.credits[operation.conn] = listener
        listener.credits.append(operation.conn)
        if listener.is_open:
            try:
                listener.watch()
            except OSError as error:
                listener.lost(*describe(error))

    def _connect(self, operation: Connect) -> None:
        self._name(operation, operation.conn)
        wire = self.wires[operation.conn] = self.new_wire(operation.conn, False)
        wire.place = operation.address
        wire.options = operation.options
        try:
            wire.connect(operation.address)
        except OSError as error:
            wire.fail(error)

    def _secure(self, operation: Secure) -> None:
        if self._outgoing:
            self._write_all()  # what was sent before goes before
        wire = self.wires.get(operation.conn)
        if wire is None:
            self._stray(operation, operation.conn)
            return
        assert wire.is_open, f"machine, law 1: Secure on {wire.conn} before it is open"
        assert not wire.closing, f"machine, law 2: Secure on {wire.conn} after Close"
        assert not wire.reading, f"machine, law 4: Secure on {wire.conn} while a Receive stands"
        assert not wire.half_closed, f"machine, law 4: Secure on {wire.conn} behind its end of stream"
        try:
            layer = self.new_layer(operation.tls, wire.place)
        except OSError as error:
            wire.fail(error)
            return
        self._take_back(wire)
        wire.secure(layer, operation.early)

    def _take_back(self, wire: Wire) -> None:
        """What was read and waits for its turn is no longer for the machine: keep it."""
        waiting = [item for item in self._queue if isinstance(item, Received) and item.conn == wire.conn]
        for item in waiting:
            wire.keep(item.data)
            self._queue.remove(item)

    def new_layer(self, tls: DownstreamTls | UpstreamTls, place: Address) -> Layer:
        """What is to lie between a wire and its bytes. Raises OSError."""
        if self.tls is None:
            self.tls = Tls()
        return self.tls.layer(tls, place)

    def _close(self, operation: Close) -> None:
        number = operation.conn
        if self._outgoing:
            self._write_all()  # what was sent before goes before
        wire = self.wires.get(number)
        if wire is not None:
            repeated = wire.closing and (wire.aborted or not operation.abort)
            assert not repeated, f"machine, law 1: a second Close on {number}, where only one with abort may follow"
            wire.closing = True
            wire.aborted = operation.abort
            wire.reading = False
            wire.early = None
            wire.barred = NEVER
            try:
                if wire.layer is not None and not (operation.abort or wire.half_closed):
                    wire.take_leave(wire.layer)
                wire.close(operation.abort)
            except OSError as error:
                wire.fail(error)
        elif number in self.credits:
            self.credits.pop(number).credits.remove(number)
            self.last_word(Closed(number), True)
        elif number in self.listeners:
            self.end_listener(self.listeners[number], Closed(number), asked=True)
        else:
            self._stray(operation, number)

    def _listen(self, operation: Listen) -> None:
        self._name(operation, operation.listener)
        listener = self.listeners[operation.listener] = self.new_listener(operation.listener)
        listener.address = operation.address
        listener.options = operation.options
        try:
            listener.listen(operation.address)
        except OSError as error:
            listener.lost(*describe(error))

    def end_listener(self, listener: Listener, completion: Closed, asked: bool) -> None:
        """Close a listener, answer every credit that it has left, and then say `Closed`."""
        del self.listeners[listener.number]
        listener.gone = True
        with suppress(OSError):  # a socket that cannot be closed in order is closed all the same
            listener.close()
        # All are queued before the machine hears of the first, for it may answer with a Close of the others.
        for conn in listener.credits:
            del self.credits[conn]
            self._parting[conn] = False
            self._queue.append(Closed(conn, "aborted", "the listener is closed"))
        self.last_word(completion, asked)

    def admitted(self, conn: int) -> Wire:
        """The wire on which a credit is spent."""
        del self.credits[conn]
        wire = self.wires[conn] = self.new_wire(conn, True)
        return wire

    def _run(self, operation: Run) -> None:
        self._name(operation, operation.job)
        self.jobs[operation.job] = self.start_job(operation.job, operation.mode, operation.call)

    def _cancel(self, operation: Cancel) -> None:
        if operation.job in self.jobs:
            self.stop_job(self.jobs[operation.job])
        else:
            self._stray(operation, operation.job)

    def _report(self, operation: Report) -> None:
        if self.reporter is not None:
            try:
                self.reporter(operation.record)
            except OSError:  # the record is lost, and nothing else is
                self.reports_lost += 1

    # -- laws

    def _name(self, operation: object, number: int) -> None:
        assert number > self._highest, (
            f"machine, law 3: {type(operation).__name__} uses number {number}, but {self._highest} was given before"
        )
        self._highest = number

    def _stray(self, operation: object, number: int) -> None:
        """An operation for what is not open: it has crossed the last word about it, or is a mistake."""
        what = f"{type(operation).__name__} on {number}"
        assert number in self._parting, f"machine, law 2: {what}, which was never open, or has had its last word"

    def _crosses(self, wire: Wire) -> bool:
        """Whether a Send on a blocked wire has crossed the `Blocked`, which waits behind that of another connection.
        What it carries joins what the backend keeps."""
        return wire.blocked and not (wire.closing or wire.half_closed) and Blocked(wire.conn) in self._queue
