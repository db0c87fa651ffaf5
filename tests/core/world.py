"""Plays the world to a machine, by hand: completions in, operations out. Tests with it read as packet traces.

    world = World(proxy)
    client = world.client()                       # Listening and Accepted were given
    world.gives(Received(client, b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"))
    origin = world.connects()                     # the proxy asked for a connection, and has it now
    assert world.sent(origin).startswith(b"GET / ")

It keeps the laws that it can see: nothing is answered twice, no bytes go to who is held or closed.
"""

from __future__ import annotations

from collections import deque

from coulee.core.machine import KernelMachine
from coulee.core.report import Access, Event
from coulee.core.seam import (
    Accept,
    Accepted,
    Address,
    Cancel,
    Close,
    Closed,
    Completion,
    Connect,
    Connected,
    ErrorKind,
    Hold,
    Listen,
    Listening,
    Operation,
    Receive,
    Received,
    Report,
    Run,
    Secure,
    Secured,
    Security,
    Send,
)

LISTENER: Address = ("127.0.0.1", 8000)
CLIENT: Address = ("10.0.0.9", 50000)
TLS = Security("TLSv1.3", "TLS_AES_256_GCM_SHA384", "http/1.1")


class World:
    """The other side of the seam."""

    def __init__(self, machine: KernelMachine, *, listen: Address = LISTENER) -> None:
        self.machine = machine
        self.now = 0.0
        self.holds_closes = False  # a Close is not answered: its last bytes are not taken
        self.answers: deque[Completion] = deque()  # to what the machine asked for in this turn
        self.operations: list[Operation] = []
        self.credits: list[Accept] = []
        self.connecting: list[Connect] = []
        self.securing: list[Secure] = []
        self.jobs: list[Run] = []
        self.cancelled: list[int] = []
        self.reading: dict[int, bool] = {}
        self.outbox: dict[int, bytes] = {}
        self.eofs: list[int] = []
        self.closing: dict[int, bool] = {}
        self.closed: list[int] = []
        self.records: list[object] = []
        self.listeners: list[int] = []
        self.listen_at = listen

    # -- turns

    def gives(self, completion: Completion | None = None) -> list[Operation]:
        """One turn. Answers `Close` with `Closed` at once, as a backend does."""
        operations = self.machine.handle(completion, self.now)
        for operation in operations:
            self._note(operation)
        while self.answers:
            self.gives(self.answers.popleft())
        return operations

    def _note(self, operation: Operation) -> None:
        self.operations.append(operation)
        if isinstance(operation, Send):
            assert operation.conn not in self.closing, "nothing is sent behind a Close"
            data = operation.data if isinstance(operation.data, bytes) else b"".join(operation.data)
            self.outbox[operation.conn] = self.outbox.get(operation.conn, b"") + data
            if operation.eof:
                self.eofs.append(operation.conn)
        elif isinstance(operation, Receive):
            self.reading[operation.conn] = True
        elif isinstance(operation, Hold):
            self.reading[operation.conn] = False
        elif isinstance(operation, Connect):
            self.connecting.append(operation)
        elif isinstance(operation, Secure):
            assert not self.reading.get(operation.conn), "TLS begins on a connection that is held"
            self.securing.append(operation)
        elif isinstance(operation, Accept):
            self.credits.append(operation)
        elif isinstance(operation, Listen):
            self.listeners.append(operation.listener)
            self.answers.append(Listening(operation.listener, operation.address))
        elif isinstance(operation, Run):
            self.jobs.append(operation)
        elif isinstance(operation, Cancel):
            self.cancelled.append(operation.job)
        elif isinstance(operation, Report):
            self.records.append(operation.record)
        elif isinstance(operation, Close):
            self._close(operation)

    def _close(self, operation: Close) -> None:
        conn = operation.conn
        if Closed(conn) in self.answers and operation.abort:  # it has crossed the answer to a Close without
            self.closing[conn] = True
            return
        assert conn not in self.closed, "a Close after the last word"
        self.closing[conn] = operation.abort
        self.closed.append(conn)
        self.connecting = [connect for connect in self.connecting if connect.conn != conn]
        self.securing = [secure for secure in self.securing if secure.conn != conn]
        pending = [credit for credit in self.credits if credit.listener == conn]
        if self.holds_closes:
            return
        self.answers.append(Closed(conn))
        for credit in pending:
            self.credits.remove(credit)
            self.answers.append(Closed(credit.conn, "aborted"))

    def wait(self, seconds: float) -> None:
        """Let time pass, and every alarm ring on the way."""
        until = self.now + seconds
        while (at := self.machine.deadline) is not None and at <= until:
            self.now = max(self.now, at)
            self.gives(None)
        self.now = until

    # -- the clients' side

    def client(self, peer: Address = CLIENT) -> int:
        """A client connects; returns the connection's number."""
        if not self.listeners:
            self.gives(None)
        credit = self.credits.pop(0)
        self.gives(Accepted(credit.conn, peer, self.listen_at))
        return credit.conn

    def receives(self, conn: int, data: bytes) -> list[Operation]:
        """Bytes arrive, if the machine reads; `b""` is the end of the stream."""
        assert self.reading.get(conn), "no Receive stands"
        return self.gives(Received(conn, data))

    def resets(self, conn: int, kind: ErrorKind = "reset", detail: str = "") -> list[Operation]:
        """The peer is gone."""
        self.closed.append(conn)
        self.securing = [secure for secure in self.securing if secure.conn != conn]
        return self.gives(Closed(conn, kind, detail))

    # -- the origins' side

    def connects(self) -> int:
        """The oldest `Connect` comes through; returns the connection's number."""
        connect = self.connecting.pop(0)
        self.gives(Connected(connect.conn, connect.address, ("127.0.0.1", 40000)))
        return connect.conn

    def secures(self, security: Security = TLS) -> Secure:
        """The oldest handshake is done; returns what was asked for."""
        secure = self.securing.pop(0)
        self.gives(Secured(secure.conn, security))
        return secure

    def refuses(self, kind: ErrorKind = "refused", detail: str = "connection refused") -> None:
        """The oldest `Connect` fails."""
        connect = self.connecting.pop(0)
        self.closed.append(connect.conn)
        self.gives(Closed(connect.conn, kind, detail))

    # -- what came out

    def sent(self, conn: int) -> bytes:
        """All that was sent on a connection since the last call."""
        return self.outbox.pop(conn, b"")

    @property
    def access(self) -> list[Access]:
        """The access records so far."""
        return [record for record in self.records if isinstance(record, Access)]

    def events(self, name: str) -> list[Event]:
        """The events of a name so far."""
        return [record for record in self.records if isinstance(record, Event) and record.name == name]

    def leaves_nothing(self) -> None:
        """All that is left at the end is the listener."""
        self.wait(400)
        left = {kind: count for kind, count in self.machine.leftovers.items() if count}
        assert left in ({"listeners": 1, "credits": 1}, {}), left
