"""What every machine on the seam shares: a kernel, a table of connections, and one turn of `handle`.

One turn: take in the completion, or ring the alarms that are due, and step what became ready until nothing is. What a
connection sends in it is one `Send`, made when the first of it is known and added to until the turn is over. Alarms
ring in a turn without a completion only, for which the host first hands over what has come: what arrived in time must
not be overtaken by a deadline that passed while the host was busy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Final

from coulee.core.config import Config
from coulee.core.kernel import Kernel, Task, current_kernel
from coulee.core.seam import (
    Accept,
    Accepted,
    Address,
    Blocked,
    Cancel,
    Closed,
    Completion,
    Connected,
    Drain,
    Finished,
    Listening,
    Operation,
    Received,
    Report,
    Secured,
    Send,
    Sent,
)

if TYPE_CHECKING:
    from coulee.core.connection import Connection

_kernel_outside = current_kernel.get  # a method of a name that is imported is looked up anew by each call

_JOIN_MAX: Final = 16384
"""Up to this many bytes, what a connection sends in a turn is joined; beyond, copying costs more than a list."""


class KernelMachine:
    """The base of `Proxy` and `Tunnel`: subclasses say what an accepted connection becomes, and what a drain ends."""

    def __init__(self, rng: Random, wall_clock_offset_s: float, config: Config | None = None) -> None:
        self.rng = rng
        self.config = config or Config()
        self.wall_clock_offset_s = wall_clock_offset_s
        self.kernel = Kernel(self)
        self.operations: list[Operation] = []
        self.connections: dict[int, Connection] = {}
        self.listeners: dict[int, Address] = {}  # with the address asked for, until it is known which it became
        self.credits: dict[int, int] = {}  # accept credits by the number their connection will have: its listener
        self.jobs: dict[int, Task | None] = {}  # outstanding; None where the task that waited is gone
        self.jobs_max = 1024
        self.waiting_for_jobs: deque[Task] = deque()
        self.sends: dict[int, Send] = {}  # what each connection sends in this turn, so far
        self.lists: list[Send] = []  # those of them that have more than one piece
        self.numbers = 0
        self.draining = False
        self._started = False
        self._busy = False

    # -- what subclasses say

    def start(self) -> None:
        """The first turn."""

    def accepted(self, completion: Accepted, listener: int) -> None:
        """A client has connected."""
        raise NotImplementedError

    def listening(self, completion: Listening) -> None:
        """A listener is open."""
        raise NotImplementedError

    def listener_closed(self, address: Address, completion: Closed) -> None:
        """A listener could not be opened (then the completion says why), or is closed."""

    def connection_closed(self, connection: Connection) -> None:
        """A connection is gone, and has left the table."""

    def drain(self, grace_s: float) -> None:
        """Stop taking in new work, and end what is left after `grace_s` seconds."""
        raise NotImplementedError

    def stray_error(self, task: Task) -> None:
        """A task failed that nobody waited for: our own mistake, or a filter's."""
        assert task.error is not None
        raise task.error

    # -- the seam

    def handle(self, completion: Completion | None, now: float) -> list[Operation]:
        """One turn; see `seam.Machine`. Not re-entrant, and leaves nothing half done."""
        assert not self._busy, "handle() is not re-entrant: queue completions that come from within an operation"
        self._busy = True
        kernel = self.kernel
        kernel.now = now
        outer = _kernel_outside(None)
        if outer is not kernel:
            current_kernel.set(kernel)
        try:
            if type(completion) is Received:
                self.connections[completion.conn].received(completion.data)
            elif completion is not None:
                self._dispatch[type(completion)](self, completion)
            else:
                if not self._started:
                    self._started = True
                    self.start()
                kernel.run()
                kernel.expire(now)
            if kernel.ready:
                kernel.run()
            if self.sends:
                self.sends.clear()
                if self.lists:
                    self._join_lists()
        finally:
            if outer is not kernel and outer is not None:
                current_kernel.set(outer)  # one machine runs inside a filter of another
            self._busy = False
        operations = self.operations
        self.operations = []
        return operations

    @property
    def deadline(self) -> float | None:
        """See `seam.Machine`."""
        return self.kernel.next_alarm()

    @property
    def finished(self) -> bool:
        """See `seam.Machine`."""
        return self.draining and not (
            self.connections or self.listeners or self.credits or self.jobs or self.kernel.tasks
        )

    @property
    def leftovers(self) -> dict[str, int]:
        """What is outstanding, by kind; all zero in a machine that has come to rest."""
        return {
            "connections": len(self.connections),
            "listeners": len(self.listeners),
            "credits": len(self.credits),
            "jobs": len(self.jobs),
            "tasks": self.kernel.tasks,
            "alarms": self.kernel.alarms,
        }

    # -- for the parts of the machine

    @property
    def wall_clock(self) -> float:
        """Seconds since 1970."""
        return self.kernel.now + self.wall_clock_offset_s

    def number(self) -> int:
        """The next name for a connection, listener or job."""
        self.numbers += 1
        return self.numbers

    def ask_to_accept(self, listener: int) -> None:
        """Give one accept credit."""
        conn = self.number()
        self.credits[conn] = listener
        self.operations.append(Accept(conn, listener))

    def report(self, record: object) -> None:
        """Tell the host something; nothing comes back."""
        self.operations.append(Report(record))

    def _join_lists(self) -> None:
        """Small pieces go out as one, for joining them costs less than a list."""
        for send in self.lists:
            if sum(map(len, send.data)) <= _JOIN_MAX:  # type: ignore[arg-type]
                send.data = b"".join(send.data)  # type: ignore[arg-type]
        self.lists.clear()

    def forget_job(self, job: int) -> None:
        """The task that waited for a job does so no more."""
        if job in self.jobs:
            self.jobs[job] = None
            self.operations.append(Cancel(job))

    def next_job(self) -> None:
        """There is room for one more job: whoever has waited longest for it goes on."""
        if self.waiting_for_jobs:
            self.kernel.wake(self.waiting_for_jobs.popleft(), None)

    # -- completions

    def _accepted(self, completion: Accepted) -> None:
        self.accepted(completion, self.credits.pop(completion.conn))

    def _connected(self, completion: Connected) -> None:
        self.connections[completion.conn].connected(completion)

    def _secured(self, completion: Secured) -> None:
        self.connections[completion.conn].secured(completion)

    def _blocked(self, completion: Blocked) -> None:
        self.connections[completion.conn].block()

    def _sent(self, completion: Sent) -> None:
        self.connections[completion.conn].unblock()

    def _closed(self, completion: Closed) -> None:
        conn = completion.conn
        connection = self.connections.pop(conn, None)
        if connection is not None:
            connection.lost(completion.error, completion.detail)
            self.connection_closed(connection)
        elif conn in self.listeners:
            self.listener_closed(self.listeners.pop(conn), completion)
        else:
            del self.credits[conn]

    def _finished(self, completion: Finished) -> None:
        task = self.jobs.pop(completion.job)
        if task is not None:
            self.kernel.wake(task, completion.value, completion.error)
        self.next_job()

    def _listening(self, completion: Listening) -> None:
        self.listeners[completion.listener] = completion.local
        self.listening(completion)

    def _drain(self, completion: Drain) -> None:
        self.draining = True
        self.drain(completion.grace_s)

    _dispatch: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        Sent: _sent,
        Blocked: _blocked,
        Closed: _closed,
        Accepted: _accepted,
        Connected: _connected,
        Secured: _secured,
        Finished: _finished,
        Listening: _listening,
        Drain: _drain,
    }
