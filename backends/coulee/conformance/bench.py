"""A machine that does as a test tells it, and what a test asks of it.

The puppet also holds the backend to the laws from its own side: what it hears must have been asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import TypeVar

import pytest

from coulee.backends.trace import number_of
from coulee.conformance.harness import TCP, Harness, Peer
from coulee.core.seam import (
    Accept,
    Accepted,
    Address,
    Blocked,
    Cancel,
    Close,
    Closed,
    Completion,
    Connect,
    Connected,
    Drain,
    Finished,
    Hold,
    Listen,
    ListenAt,
    Listening,
    Operation,
    Receive,
    Received,
    Run,
    Secure,
    Secured,
    Send,
    Sent,
)

MUCH = bytes(range(256)) * 40_000  # 10 MB: more than kernels take from who does not find a reader

Kind = TypeVar("Kind", bound=Completion)


class Puppet:
    """See `seam.Machine`."""

    def __init__(self) -> None:
        self.heard: list[Completion] = []
        self.heard_of: defaultdict[int, list[Completion]] = defaultdict(list)  # the same, by what it is about
        self.count: defaultdict[int, int] = defaultdict(int)  # bytes received, by connection
        self.turns = 0
        self.outbox: list[Operation] = []
        self.react: Callable[[Completion], Sequence[Operation]] = lambda _: ()
        self.alarms: list[float] = []
        self.rung: list[tuple[float, float]] = []  # when it was due, and when it rang
        self.open: dict[int, str] = {}  # what awaits an answer, or its end
        self.reading: dict[int, bool] = {}
        self.blocked: dict[int, bool] = {}
        self.securing: set[int] = set()
        self.now = float("-inf")
        self.draining = False
        self._inside = False

    def fresh(self, *, rng: Random, wall_clock_offset_s: float, listen: Sequence[ListenAt]) -> Puppet:
        return self

    @property
    def deadline(self) -> float | None:
        return min(self.alarms, default=None)

    @property
    def finished(self) -> bool:
        return self.draining and not self.open

    def handle(self, completion: Completion | None, now: float) -> list[Operation]:
        assert not self._inside, "law 7: the machine was entered twice"
        assert now >= self.now, "law 6: the clock has gone backwards"
        self._inside = True
        self.now = now
        self.turns += 1
        operations: list[Operation] = []
        if completion is not None:
            self.heard.append(completion)
            self.heard_of[number_of(completion)].append(completion)
            self._check(completion)
            operations.extend(self.react(completion))
        for due in sorted(self.alarms):
            if due <= now:
                self.rung.append((due, now))
                self.alarms.remove(due)
        operations.extend(self.outbox)
        self.outbox.clear()
        for operation in operations:
            self._keep(operation)
        self._inside = False
        return operations

    def _keep(self, operation: Operation) -> None:
        match operation:
            case Listen():
                self.open[operation.listener] = "listen"
            case Accept() | Connect():
                self.open[operation.conn] = "open"
            case Run():
                self.open[operation.job] = "job"
            case Receive():
                self.reading[operation.conn] = True
            case Hold() | Close():
                self.reading[operation.conn] = False
            case Secure():
                self.securing.add(operation.conn)
            case _:
                pass

    def _check(self, completion: Completion) -> None:
        """The laws, as far as they can be seen from here."""
        match completion:
            case Drain():
                self.draining = True
            case Finished():
                assert self.open.pop(completion.job, "") == "job", "law 1: it was finished before"
            case Listening():
                assert self.open.get(completion.listener) == "listen", "law 1: it listens already"
                self.open[completion.listener] = "listening"
            case Accepted() | Connected():
                assert self.open.get(completion.conn) == "open", "law 1: it is open already"
                self.open[completion.conn] = "stands"
            case Secured():
                assert self.open.get(completion.conn) == "stands", "law 2: TLS on a connection that does not stand"
                assert completion.conn in self.securing, "law 1: TLS that was not asked for, or stands already"
                self.securing.remove(completion.conn)
            case Received():
                assert self.open.get(completion.conn) == "stands", "law 2: bytes of a connection that does not stand"
                assert completion.conn not in self.securing, "law 4: bytes before its TLS stands"
                assert self.reading[completion.conn], "law 4: bytes without a credit"
                self.count[completion.conn] += len(completion.data)
                if not completion.data:
                    self.reading[completion.conn] = False
            case Blocked():
                assert not self.blocked.get(completion.conn), "law 1: it is blocked already"
                self.blocked[completion.conn] = True
            case Sent():
                assert self.blocked.pop(completion.conn, False), "law 1: it was not blocked"
            case Closed():
                assert completion.conn in self.open, "law 2: it was closed before, or never open"
                del self.open[completion.conn]


class Bench:
    """A puppet on a backend."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.puppet = Puppet()
        self._numbers = 0
        harness.start(self.puppet)

    # -- giving orders

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def do(self, *operations: Operation) -> None:
        """Have the puppet ask for something, in one turn."""
        self.puppet.outbox.extend(operations)
        self.harness.call(partial(self.harness.driver.post, None))

    def react(self, kind: type[Kind], number: int, *operations: Operation) -> None:
        """Have the puppet ask for something in the turn in which it first hears this."""
        due = list(operations)

        def reaction(completion: Completion) -> Sequence[Operation]:
            if isinstance(completion, kind) and number_of(completion) == number:
                now = due[:]
                due.clear()
                return now
            return ()

        self.puppet.react = reaction

    # -- hearing

    def heard(self, kind: type[Kind], number: int) -> list[Kind]:
        return [item for item in self.puppet.heard_of[number] if isinstance(item, kind)]

    def wait(self, kind: type[Kind], number: int) -> Kind:
        """The first completion of a kind about a number."""
        self.harness.until(lambda: self.heard(kind, number))
        return self.heard(kind, number)[0]

    def read(self, conn: int) -> bytes:
        return b"".join(item.data for item in self.heard(Received, conn))

    def wait_to_close(self, conn: int) -> Closed:
        """The end of a connection that the peer has reset: by itself, or by the next Receive at the latest."""
        self.fence()
        if not self.heard(Closed, conn) and not self.ended(conn):
            self.do(Receive(conn))
        return self.wait(Closed, conn)

    def ended(self, conn: int) -> bool:
        return any(not item.data for item in self.heard(Received, conn))

    def wait_for_bytes(self, conn: int, count: int) -> bytes:
        self.harness.until(lambda: self.puppet.count[conn] >= count)
        return self.read(conn)

    def wait_for_end(self, conn: int) -> None:
        self.harness.until(lambda: self.ended(conn))

    def wait_for_peer(self, peer: Peer, data: bytes) -> None:
        """All that a peer has received by then is `data`."""
        self.harness.until(lambda: peer.count >= len(data))
        assert peer.received == data

    def wait_for_reset(self, peer: Peer) -> None:
        self.harness.until(lambda: peer.was_reset)

    # -- arranging

    def listener(self, address: Address = TCP) -> tuple[int, Address]:
        number = self.number()
        self.do(Listen(number, address))
        return number, self.wait(Listening, number).local

    def accepted(self, address: Address = TCP) -> tuple[int, Peer]:
        """A connection that a peer has made to us."""
        listener, local = self.listener(address)
        conn = self.number()
        self.do(Accept(conn, listener))
        peer = self.harness.connect(local)
        self.wait(Accepted, conn)
        return conn, peer

    def connected(self, address: Address = TCP) -> tuple[int, Peer]:
        """A connection that we have made to a peer."""
        local, peers = self.harness.listen(address)
        conn = self.number()
        self.do(Connect(conn, local))
        self.wait(Connected, conn)
        self.harness.until(lambda: peers)
        return conn, peers[0]

    def fence(self) -> None:
        """What was on its way when this was called has arrived: a byte has gone through a connection of its own."""
        conn, peer = self.accepted()
        peer.write(b".")
        self.do(Receive(conn))
        self.wait_for_bytes(conn, 1)
        self.do(Send(conn, b"."))
        self.harness.until(lambda: peer.received)

    def echo(self, conn: int, peer: Peer, data: bytes = b"echo") -> None:
        """Bytes go there and back again; a Receive must stand."""
        here, there = self.puppet.count[conn], peer.count
        self.do(Send(conn, data))
        self.harness.until(lambda: peer.count == there + len(data))
        peer.write(data)
        self.harness.until(lambda: self.puppet.count[conn] == here + len(data))

    def end(self) -> None:
        """Everything is closed, the machine drains and finishes, and nothing is left."""
        puppet = self.puppet
        for number, what in list(puppet.open.items()):
            if what == "job":
                self.do(Cancel(number))
            elif number in puppet.open:
                self.do(Close(number, abort=what == "stands"))
        self.harness.until(lambda: not puppet.open)
        if not puppet.draining:
            self.harness.call(partial(self.harness.driver.drain, 0.0))
        self.harness.until(lambda: self.harness.done)
        left = {kind: count for kind, count in self.harness.driver.outstanding.items() if count}
        assert not left, left


def port_of(address: Address) -> int:
    assert isinstance(address, tuple)
    return address[1]


class Chapter:
    """A part of the suite: tests that take the fixture `bench`, which takes your fixture `harness`."""

    @pytest.fixture
    def bench(self, harness: Harness, request: pytest.FixtureRequest) -> Iterator[Bench]:
        """A bench whose machine must finish in order."""
        bench = Bench(harness)
        failed_before = request.session.testsfailed
        yield bench
        try:
            bench.end()
        except Exception:
            if request.session.testsfailed == failed_before:
                raise  # else the test has failed, and has said why
