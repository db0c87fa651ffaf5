"""The driver holds machines and backends to the laws: who breaks one trips an assertion that names him and the law."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Literal

import pytest

from coulee.backends.driver import GATHERED_BYTES_MAX, LARGE_READ_BYTES, Driver, Listener, Wire
from coulee.core.seam import (
    Accept,
    Accepted,
    Address,
    Blocked,
    Bytes,
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
    Listening,
    Machine,
    Operation,
    Receive,
    Received,
    Report,
    Run,
    Send,
    Sent,
)

HERE: Address = ("127.0.0.1", 1)
THERE: Address = ("127.0.0.1", 2)


class Script:
    """A machine that asks for what it is told to, turn by turn."""

    def __init__(self) -> None:
        self.heard: list[Completion | None] = []
        self.times: list[float] = []
        self.answers: list[list[Operation]] = []
        self.deadline: float | None = None
        self.finished = False

    def fresh(self, *, rng: Random, wall_clock_offset_s: float, listen: object) -> Script:
        return self

    def handle(self, completion: Completion | None, now: float) -> list[Operation]:
        self.heard.append(completion)
        self.times.append(now)
        return self.answers.pop(0) if self.answers else []


class PlainWire(Wire):
    """Does nothing by itself, and takes all."""

    __slots__ = ("calls", "takes", "trouble")

    def __init__(self, driver: Driver, conn: int, was_accepted: bool) -> None:
        super().__init__(driver, conn, was_accepted)
        self.calls: list[Any] = []
        self.takes = True
        self.trouble: OSError | None = None

    def _call(self, *call: object) -> None:
        self.calls.append(call)
        if self.trouble is not None:
            raise self.trouble

    def connect(self, address: Address) -> None:
        self._call("connect", address)

    def write(self, data: Bytes) -> bool:
        self._call("write", data)
        return self.takes

    def write_eof(self) -> None:
        self._call("write_eof")

    def pause(self) -> None:
        self._call("pause")

    def resume(self) -> None:
        self._call("resume")

    def close(self, abort: bool) -> None:
        self._call("close", abort)


class PlainListener(Listener):
    """Does nothing by itself."""

    __slots__ = ("trouble", "watched")

    def __init__(self, driver: Driver, number: int) -> None:
        super().__init__(driver, number)
        self.watched = 0
        self.trouble: OSError | None = None

    def listen(self, address: Address) -> None:
        if address == THERE:
            raise PermissionError(13, "permission denied")

    def watch(self) -> None:
        self.watched += 1
        if self.trouble is not None:
            raise self.trouble

    def close(self) -> None:
        if self.trouble is not None:
            raise self.trouble


class PlainDriver(Driver):
    """A backend whose world is the test."""

    def __init__(self, machine: Machine, reporter: Callable[[Any], object] | None = None) -> None:
        self.time = 100.0
        super().__init__(machine, lambda: self.time, reporter)
        self.armed: list[float] = []
        self.stopped: list[object] = []
        self.over = 0

    def arm(self, when: float) -> None:
        self.armed.append(when)

    def new_wire(self, conn: int, was_accepted: bool) -> Wire:
        return PlainWire(self, conn, was_accepted)

    def new_listener(self, number: int) -> Listener:
        return PlainListener(self, number)

    def start_job(self, job: int, mode: Literal["blocking", "native"], call: Callable[[], Any]) -> object:
        return mode, job

    def stop_job(self, handle: Any) -> None:
        self.stopped.append(handle)

    def on_finished(self) -> None:
        self.over += 1


class World:
    """A script under a plain driver."""

    def __init__(self) -> None:
        self.machine = Script()
        self.reports: list[object] = []
        self.driver = PlainDriver(self.machine, self.reports.append)
        self.driver.start()
        self.machine.heard.clear()

    def asks(self, *turns: Operation | list[Operation]) -> None:
        """The machine asks for this in its next turn; for lists, in its next turns."""
        self.machine.answers = [turn if isinstance(turn, list) else [turn] for turn in turns]
        self.driver.post(None)

    def wire(self, conn: int) -> PlainWire:
        wire = self.driver.wires[conn]
        assert isinstance(wire, PlainWire)
        return wire

    def listener(self, number: int) -> PlainListener:
        listener = self.driver.listeners[number]
        assert isinstance(listener, PlainListener)
        return listener

    def connection(self, conn: int = 1) -> PlainWire:
        """One that stands."""
        self.asks(Connect(conn, HERE))
        wire = self.wire(conn)
        wire.opened(HERE, THERE)
        self.machine.heard.clear()
        return wire

    def blocked(self, conn: int = 1) -> PlainWire:
        """One that is blocked."""
        wire = self.connection(conn)
        wire.takes = False
        self.asks(Send(conn, b"x"))
        return wire

    def heard(self) -> list[Completion]:
        heard = [item for item in self.machine.heard if item is not None]
        self.machine.heard.clear()
        return heard


@pytest.fixture
def world() -> World:
    return World()


# -- machines that break a law


def connect_twice(world: World) -> None:
    world.asks([Connect(1, HERE), Connect(1, HERE)])


def number_down(world: World) -> None:
    world.asks([Connect(2, HERE), Run(1, "blocking", int)])


def send_early(world: World) -> None:
    world.asks([Connect(1, HERE), Send(1, b"x")])


def receive_early(world: World) -> None:
    world.asks([Connect(1, HERE), Receive(1)])


def receive_twice(world: World) -> None:
    world.connection()
    world.asks([Receive(1), Receive(1)])


def hold_twice(world: World) -> None:
    world.connection()
    world.asks([Receive(1), Hold(1), Hold(1)])


def receive_behind_the_end(world: World) -> None:
    wire = world.connection()
    world.asks(Receive(1))
    wire.received(b"")
    world.asks(Receive(1))


def send_twice(world: World) -> None:
    world.connection()
    world.asks([Send(1, b"x"), Send(1, b"y")])


def send_while_blocked(world: World) -> None:
    world.blocked()
    world.asks(Send(1, b"y"))


def send_behind_the_end(world: World) -> None:
    world.connection()
    world.asks(Send(1, b"x", eof=True))
    world.asks(Send(1, b"y"))


def send_behind_close(world: World) -> None:
    world.connection()
    world.asks(Close(1))
    world.asks(Send(1, b"y"))


def receive_behind_close(world: World) -> None:
    world.connection()
    world.asks(Close(1))
    world.asks(Receive(1))


def close_twice(world: World) -> None:
    world.connection()
    world.asks([Close(1), Close(1)])


def abort_twice(world: World) -> None:
    world.connection()
    world.asks([Close(1, abort=True), Close(1, abort=True)])


def use_what_never_was(world: World) -> None:
    world.asks(Send(7, b"x"))


def use_what_is_gone(world: World) -> None:
    world.connection().lost(None)
    world.asks(Close(1))


def cancel_what_never_was(world: World) -> None:
    world.asks(Cancel(7))


def finish_too_soon(world: World) -> None:
    world.machine.finished = True
    world.asks(Run(1, "blocking", int))


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (connect_twice, "machine, law 3: Connect uses number 1, but 1 was given before"),
        (number_down, "machine, law 3: Run uses number 1, but 2 was given before"),
        (send_early, "machine, law 1: Send on 1 before it is open"),
        (receive_early, "machine, law 1: Receive on 1 before it is open"),
        (receive_twice, "machine, law 1: a second Receive on 1"),
        (hold_twice, "machine, law 1: Hold on 1, where no Receive stands"),
        (receive_behind_the_end, "machine, law 1: Receive on 1 after the end of its stream"),
        (send_twice, "machine, law 4: a second Send on 1 in one turn"),
        (send_while_blocked, "machine, law 4: Send on 1 while it is blocked"),
        (send_behind_the_end, "machine, law 4: Send on 1 behind its end of stream"),
        (send_behind_close, "machine, law 2: Send on 1 after Close"),
        (receive_behind_close, "machine, law 2: Receive on 1 after Close"),
        (close_twice, "machine, law 1: a second Close on 1"),
        (abort_twice, "machine, law 1: a second Close on 1"),
        (use_what_never_was, "machine, law 2: Send on 7, which was never open, or has had its last word"),
        (use_what_is_gone, "machine, law 2: Close on 1, which was never open, or has had its last word"),
        (cancel_what_never_was, "machine, law 2: Cancel on 7"),
        (finish_too_soon, "machine, law 1: it says that it has finished, with {'jobs': 1} outstanding"),
    ],
)
def test_a_machine_that_breaks_a_law(world: World, breaks: Callable[[World], None], words: str) -> None:
    with pytest.raises(AssertionError) as raised:
        breaks(world)
    assert str(raised.value).startswith(words)


# -- backends that break a law


def open_twice(world: World) -> None:
    world.connection().opened(HERE, THERE)


def open_behind_lost(world: World) -> None:
    world.asks(Connect(1, HERE))
    wire = world.wire(1)
    wire.lost("refused")
    wire.opened(HERE, THERE)


def lose_twice(world: World) -> None:
    wire = world.connection()
    wire.lost(None)
    wire.lost(None)


def read_behind_lost(world: World) -> None:
    wire = world.connection()
    wire.lost(None)
    wire.received(b"x")


def read_before_opened(world: World) -> None:
    world.asks(Connect(1, HERE))
    world.wire(1).received(b"x")


def read_behind_the_end(world: World) -> None:
    wire = world.connection()
    world.asks(Receive(1))
    wire.received(b"")
    wire.received(b"")


def read_twice_while_held(world: World) -> None:
    wire = world.connection()
    wire.received(b"x")
    wire.received(b"y")


def sent_what_is_not_blocked(world: World) -> None:
    world.connection().sent()


def listen_twice(world: World) -> None:
    world.asks(Listen(1, HERE))
    world.listener(1).opened(HERE)
    world.listener(1).opened(HERE)


def listen_behind_the_end(world: World) -> None:
    world.asks(Listen(1, HERE))
    listener = world.listener(1)
    world.asks(Close(1))
    listener.opened(HERE)


def lose_a_listener_twice(world: World) -> None:
    world.asks(Listen(1, HERE))
    listener = world.listener(1)
    listener.lost("resources")
    listener.lost("resources")


def admit_without_a_credit(world: World) -> None:
    world.asks(Listen(1, HERE))
    world.listener(1).admit()


def admit_behind_the_end(world: World) -> None:
    world.asks([Listen(1, HERE), Accept(2, 1)])
    listener = world.listener(1)
    world.asks(Close(1))
    listener.admit()


def finish_twice(world: World) -> None:
    world.asks(Run(1, "blocking", int))
    world.driver.finished(1)
    world.driver.finished(1)


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (open_twice, "backend, law 1: 1 was opened twice"),
        (open_behind_lost, "backend, law 2: opened() on 1 after lost()"),
        (lose_twice, "backend, law 1: 1 was lost twice"),
        (read_behind_lost, "backend, law 2: received() on 1 after lost()"),
        (read_before_opened, "backend, law 1: received() on 1 before opened()"),
        (read_behind_the_end, "backend, law 1: received() on 1 after the end of the stream"),
        (read_twice_while_held, "backend, law 8: a second read on 1, which is held"),
        (sent_what_is_not_blocked, "backend, law 1: sent() on 1, which is not blocked"),
        (listen_twice, "backend, law 1: listener 1 was opened twice"),
        (listen_behind_the_end, "backend, law 2: listener 1 opens after its end"),
        (lose_a_listener_twice, "backend, law 1: listener 1 was lost twice"),
        (admit_without_a_credit, "backend, law 1: listener 1 accepts without a credit"),
        (admit_behind_the_end, "backend, law 2: listener 1 accepts after its end"),
        (finish_twice, "backend, law 1: finished() for job 1, which is not running"),
    ],
)
def test_a_backend_that_breaks_a_law(world: World, breaks: Callable[[World], None], words: str) -> None:
    with pytest.raises(AssertionError) as raised:
        breaks(world)
    assert str(raised.value).startswith(words)


def test_a_machine_that_raised_is_not_run_again(world: World) -> None:
    wire = world.connection()
    with pytest.raises(AssertionError):
        world.asks([Send(1, b"x"), Send(1, b"y")])
    world.machine.heard.clear()
    wire.received(b"x")
    wire.lost("reset")
    world.driver.ring()
    world.driver.drain(0.0)
    assert not world.machine.heard


# -- what the driver does


def test_what_comes_up_in_a_turn_is_handed_over_in_the_same_turn(world: World) -> None:
    world.connection().takes = False
    world.asks(Send(1, b"x"))
    assert world.heard() == [Blocked(1)]
    world.wire(1).sent()
    assert world.heard() == [Sent(1)]


def test_a_send_of_nothing_writes_nothing(world: World) -> None:
    wire = world.connection()
    world.asks(Send(1, b"", eof=True))
    assert wire.calls[1:] == [("write_eof",)]


def test_the_early_read_is_kept_for_the_next_receive(world: World) -> None:
    wire = world.connection()
    wire.received(b"early")
    assert not world.heard()
    world.asks(Receive(1))
    assert world.heard() == [Received(1, b"early")]
    assert wire.calls[1:] == [("pause",), ("resume",)]


def test_an_early_end_is_kept_and_nothing_is_resumed_behind_it(world: World) -> None:
    wire = world.connection()
    wire.received(b"")
    world.asks(Receive(1))
    assert world.heard() == [Received(1, b"")]
    assert wire.calls[1:] == [("pause",)]


def test_a_hold_overtakes_the_early_read(world: World) -> None:
    world.connection().received(b"early")
    world.asks([Receive(1), Hold(1)])
    assert not world.heard()
    world.asks(Receive(1))
    assert world.heard() == [Received(1, b"early")]


def test_nothing_but_closed_comes_behind_a_close(world: World) -> None:
    wire = world.connection()
    wire.received(b"early")
    world.asks([Receive(1), Close(1)])
    wire.received(b"late")
    assert not world.heard()
    wire.lost("reset", "connection reset by peer")
    assert world.heard() == [Closed(1, "reset", "connection reset by peer")]


def test_an_abort_may_follow_a_close_and_ends_without_an_error(world: World) -> None:
    wire = world.connection()
    world.asks(Close(1))
    world.asks(Close(1, abort=True))
    wire.lost("reset", "connection reset by peer")
    assert world.heard() == [Closed(1)]
    assert wire.calls[1:] == [("close", False), ("close", True)]


def test_a_connect_that_is_closed_before_it_stands(world: World) -> None:
    world.asks(Connect(1, HERE))
    world.asks(Close(1))
    wire = world.wire(1)
    wire.opened(HERE, THERE)
    wire.lost(None)
    assert world.heard() == [Closed(1)]


def test_what_crosses_the_last_word_is_dropped(world: World) -> None:
    """One connection breaks while the machine is told of the other: what it still asks for is nobody's fault."""
    world.connection(1)
    world.asks([Connect(2, HERE), Connect(3, HERE)])
    wire = world.wire(1)
    wire.trouble = OSError(104, "connection reset by peer")
    world.asks([Receive(1), Send(1, b"x"), Hold(1), Close(1)])
    assert world.heard() == [Closed(1, "reset", "connection reset by peer")]
    assert wire.calls[-1] == ("close", True)
    wire.lost("reset")  # what the backend says while it tidies up is not heard


@pytest.mark.parametrize("operation", [Send(1, b"x"), Send(1, b"", eof=True), Receive(1), Close(1)])
def test_performing_never_raises(world: World, operation: Operation) -> None:
    world.connection().trouble = OSError(32, "broken pipe")
    world.asks(operation)
    assert world.heard() == [Closed(1, "reset", "broken pipe")]


def test_a_hold_that_fails(world: World) -> None:
    wire = world.connection()
    world.asks(Receive(1))
    wire.trouble = OSError(32, "broken pipe")
    world.asks(Hold(1))
    assert world.heard() == [Closed(1, "reset", "broken pipe")]


def test_listeners_fail_without_raising(world: World) -> None:
    world.asks([Listen(1, THERE), Accept(2, 1)])
    assert world.heard() == [
        Closed(1, "unreachable", "permission denied"),
        Closed(2, "aborted", "the listener is closed"),
    ]
    world.asks(Listen(3, HERE))
    world.listener(3).opened(HERE)
    world.listener(3).trouble = OSError(24, "too many open files")
    world.asks(Accept(4, 3))
    assert world.heard() == [
        Listening(3, HERE),
        Closed(4, "aborted", "the listener is closed"),
        Closed(3, "resources", "too many open files"),
    ]


def test_credits_that_came_before_the_listener_stood_are_honoured(world: World) -> None:
    world.asks([Listen(1, HERE), Accept(2, 1), Accept(3, 1)])
    listener = world.listener(1)
    assert listener.watched == 0
    listener.opened(HERE)
    assert listener.watched == 1
    listener.admit().opened(THERE, HERE)
    assert world.heard() == [Listening(1, HERE), Accepted(2, THERE, HERE)]
    assert world.driver.addresses == [HERE]
    world.asks(Close(3))
    assert world.heard() == [Closed(3)]
    assert not listener.credits


def test_a_credit_may_be_taken_back_while_the_listener_ends(world: World) -> None:
    world.asks([Listen(1, HERE), Accept(2, 1), Accept(3, 1)])
    world.machine.answers = [[Close(3)], []]
    world.listener(1).lost("resources", "out of memory")
    assert world.heard() == [
        Closed(2, "aborted", "the listener is closed"),
        Closed(3, "aborted", "the listener is closed"),
        Closed(1, "resources", "out of memory"),
    ]


def test_jobs(world: World) -> None:
    world.asks([Run(1, "blocking", int), Run(2, "native", int)])
    world.asks(Cancel(2))
    assert world.driver.stopped == [("native", 2)]
    world.driver.finished(1, 42)
    world.driver.finished(2, None, LookupError())
    first, second = world.heard()
    assert first == Finished(1, 42)
    assert isinstance(second, Finished)
    assert isinstance(second.error, LookupError)


def test_connected_or_accepted(world: World) -> None:
    world.asks(Connect(1, HERE))
    world.wire(1).opened(HERE, THERE)
    assert world.heard() == [Connected(1, HERE, THERE)]


def test_blocked_goes_ahead_of_what_was_queued_before_it(world: World) -> None:
    """Found by the simulator: a tunnel took the read that was kept as a reason to send more."""
    world.connection(1).takes = False
    world.connection(2).received(b"early")
    world.asks([Receive(2), Send(1, b"x")])
    assert world.heard() == [Blocked(1), Received(2, b"early")]


def test_a_send_that_crosses_its_blocked_joins_what_is_kept(world: World) -> None:
    """Two connections are blocked in one turn, and the machine, told of one, sends on the other."""
    first, second = world.connection(1), world.connection(2)
    first.takes = second.takes = False
    world.asks([Send(1, b"x"), Send(2, b"x")], [Send(1, b"y")])
    assert world.heard() == [Blocked(2), Blocked(1)]
    assert first.calls[1:] == [("write", b"x"), ("write", b"y")]
    first.sent()
    assert world.heard() == [Sent(1)]


# -- what many connections say at once


def two_that_are_read(world: World) -> tuple[PlainWire, PlainWire]:
    wires = world.connection(1), world.connection(2)
    world.asks([Receive(1), Receive(2)])
    world.heard()
    return wires


def test_what_is_gathered_is_handed_over_together_and_written_behind_it(world: World) -> None:
    first, second = two_that_are_read(world)
    second.takes = False
    world.machine.answers = [[Send(2, b"x")], [Send(1, b"y")]]
    assert world.driver.gather(first, b"a")
    second.received(b"b")
    assert world.heard() == []
    world.driver.deliver()
    assert world.heard() == [Received(1, b"a"), Received(2, b"b"), Blocked(2)], "before the Blocked there was a turn"
    assert (first.calls[-1], second.calls[-1]) == (("write", b"y"), ("write", b"x"))


def test_what_was_sent_before_a_close_is_written_before_it(world: World) -> None:
    first, second = two_that_are_read(world)
    world.machine.answers = [[Send(1, b"last words")], [Close(1)]]
    world.driver.gather(first, b"a")
    second.received(b"b")
    world.driver.deliver()
    assert first.calls[-2:] == [("write", b"last words"), ("close", False)]


def test_a_second_send_of_what_was_gathered_joins_the_first_where_that_is_not_taken(world: World) -> None:
    first, second = two_that_are_read(world)
    first.takes = False
    world.machine.answers = [[Send(1, b"x")], [Send(1, b"y")]]
    world.driver.gather(first, b"a")
    second.received(b"b")
    world.driver.deliver()
    assert first.calls[-2:] == [("write", b"x"), ("write", b"y")]
    assert world.heard() == [Received(1, b"a"), Received(2, b"b"), Blocked(1)]


def test_nothing_may_be_sent_behind_an_end_of_stream_that_is_not_written_yet(world: World) -> None:
    first, second = two_that_are_read(world)
    world.machine.answers = [[Send(1, b"x", eof=True)], [Send(1, b"y")]]
    world.driver.gather(first, b"a")
    second.received(b"b")
    with pytest.raises(AssertionError, match="machine, law 4: Send on 1 behind its end of stream"):
        world.driver.deliver()


def test_what_is_sent_goes_out_where_all_else_that_was_gathered_is_overtaken(world: World) -> None:
    first, second = two_that_are_read(world)
    world.machine.answers = [[Close(2), Send(1, b"x")]]
    world.driver.gather(first, b"a")
    second.received(b"b")
    world.driver.deliver()
    assert world.heard() == [Received(1, b"a")]
    assert first.calls[-1] == ("write", b"x")


def test_what_was_sent_to_one_that_is_lost_meanwhile_is_dropped(world: World) -> None:
    first, second = two_that_are_read(world)
    world.machine.answers = [[Send(2, b"x")]]
    world.driver.gather(first, b"a")
    second.lost("reset", "gone")
    world.driver.deliver()
    assert world.heard() == [Received(1, b"a"), Closed(2, "reset", "gone")]
    assert ("write", b"x") not in second.calls


def test_what_is_gathered_has_a_beginning_and_is_delivered_once(world: World) -> None:
    first, second = two_that_are_read(world)
    assert world.driver.gather(first, b"a")
    assert not world.driver.gather(second, b"b"), "it is going on"
    world.driver.deliver()
    assert world.heard() == [Received(1, b"a"), Received(2, b"b")]
    world.driver.deliver()
    assert world.heard() == [], "there was nothing to deliver"


def test_an_alarm_that_rings_while_gathering_is_told_behind_what_is_gathered(world: World) -> None:
    first, second = two_that_are_read(world)
    world.machine.deadline = 101.0
    world.asks()
    assert world.driver.armed == [101.0]
    turns = len(world.machine.heard)
    world.driver.gather(first, b"a")
    world.driver.time = 100.9995
    world.driver.ring()
    second.received(b"b")
    world.driver.deliver()
    assert world.machine.heard[turns:] == [Received(1, b"a"), Received(2, b"b"), None]
    assert world.machine.times[-1] == 101.0
    assert world.driver.armed == [101.0, 101.0], "for the machine has not said that it is done with it"


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (LARGE_READ_BYTES, 1),
        (LARGE_READ_BYTES // 2, 2 * GATHERED_BYTES_MAX // LARGE_READ_BYTES),
        (100, -(-GATHERED_BYTES_MAX // 100)),  # ten thousand that say little are much too
    ],
)
def test_a_large_read_and_many_small_ones_are_delivered_at_once(world: World, size: int, count: int) -> None:
    first, _ = two_that_are_read(world)
    for number in range(count):
        assert world.heard() == []
        assert world.driver.gather(first, bytes(size)) is (number == 0), "it begins once"
    assert world.heard() == [Received(1, bytes(size))] * count


def test_bytes_and_the_end_behind_them_are_both_gathered(world: World) -> None:
    first, _ = two_that_are_read(world)
    world.driver.gather(first, b"a")
    first.received(b"")
    world.driver.deliver()
    assert world.heard() == [Received(1, b"a"), Received(1, b"")]


@pytest.mark.parametrize("held_by", [1, 2])
def test_bytes_and_the_end_behind_them_are_kept_where_a_hold_comes_between(world: World, held_by: int) -> None:
    """The other connection, heard first, has the machine hold this one; or this one's own first bytes have."""
    first, second = two_that_are_read(world)
    world.machine.answers = [[Hold(1)]]
    if held_by == 2:
        world.driver.gather(second, b"x")
    world.driver.gather(first, b"a")
    world.driver.gather(first, b"")
    world.driver.deliver()
    heard = world.heard()
    assert heard == ([Received(2, b"x")] if held_by == 2 else [Received(1, b"a")])
    world.asks(Receive(1))
    assert world.heard() == ([Received(1, b"a")] if held_by == 2 else []) + [Received(1, b"")]


def test_who_has_failed_gathers_nothing(world: World) -> None:
    wire = world.connection(1)
    with pytest.raises(AssertionError, match="machine, law"):
        world.asks(Accept(1, 1))
    heard = len(world.machine.heard)
    assert not world.driver.gather(wire, b"a")
    world.driver.deliver()
    assert len(world.machine.heard) == heard


# -- time


def test_time_never_goes_backwards(world: World) -> None:
    world.driver.time = 200.0
    world.asks()
    world.driver.time = 150.0
    world.asks()
    assert world.machine.times[-2:] == [200.0, 200.0]


def test_an_alarm_that_rings_early_is_taken_for_the_deadline(world: World) -> None:
    world.machine.deadline = 101.0
    world.asks()
    assert world.driver.armed == [101.0]
    world.driver.time = 100.9995
    world.driver.ring()
    assert world.machine.times[-1] == 101.0


def test_an_alarm_is_left_where_it_is_when_the_deadline_moves_on(world: World) -> None:
    world.machine.deadline = 101.0
    world.asks()
    world.machine.deadline = 105.0
    world.asks()
    assert world.driver.armed == [101.0]
    turns = len(world.machine.times)
    world.driver.ring()
    assert len(world.machine.times) == turns
    assert world.driver.armed == [101.0, 105.0]
    world.machine.deadline = 103.0
    world.asks()
    assert world.driver.armed == [101.0, 105.0, 103.0]
    world.machine.deadline = None
    turns = len(world.machine.times)
    world.driver.ring()
    assert len(world.machine.times) == turns


# -- the end, and reports


def test_the_end_comes_once_and_last(world: World) -> None:
    world.driver.drain(5.0)
    assert world.heard() == [Drain(5.0)]
    world.machine.finished = True
    world.asks()
    assert world.driver.over == 1
    world.asks()
    world.driver.ring()
    assert world.driver.over == 1
    assert set(world.driver.outstanding.values()) == {0}


def test_reports_reach_the_reporter_and_a_full_disk_loses_only_them() -> None:
    def full(_: object) -> None:
        raise OSError(28, "no space left on device")

    world = World()
    world.asks([Report("one"), Report("two")])
    assert world.reports == ["one", "two"]
    machine = Script()
    driver = PlainDriver(machine, full)
    machine.answers = [[Report("one")]]
    driver.start()
    assert driver.reports_lost == 1
    silent = PlainDriver(Script())
    silent.machine.answers = [[Report("one")]]  # type: ignore[attr-defined]
    silent.start()


def test_any_other_exception_of_a_reporter_is_a_failure() -> None:
    def broken(_: object) -> None:
        raise ValueError("a bug")

    machine = Script()
    machine.answers = [[Report("one")]]
    with pytest.raises(ValueError, match="a bug"):
        PlainDriver(machine, broken).start()
