"""One machine after another behind one driver, as packet traces: what each of them and what the world is told."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from random import Random
from typing import Any

import pytest

from coulee.backends.succession import Succession
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
    Drain,
    Finished,
    Listen,
    ListenAt,
    Listening,
    Machine,
    Operation,
    Receive,
    Received,
    Report,
    Run,
    Send,
)

HERE: Address = ("127.0.0.1", 80)
CLIENT: Address = ("127.0.0.1", 4242)


class Scripted:
    """Listens once, accepts one after another, and answers as it is told."""

    def __init__(self, places: Sequence[Address] = (HERE,), credits_each: int = 1) -> None:
        self.places = places
        self.credits_each = credits_each
        self.heard: list[Completion | None] = []
        self.answers: dict[type, list[Operation]] = {}
        self.numbers = 0
        self.listeners: list[int] = []
        self.deadline: float | None = None
        self.finished = False

    def fresh(self, *, rng: Random, wall_clock_offset_s: float, listen: Sequence[ListenAt] = ()) -> Scripted:
        return Scripted()

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def handle(self, completion: Completion | None, now: float) -> list[Operation]:
        begins = not self.heard
        self.heard.append(completion)
        match completion:
            case None if begins:
                self.listeners = [self.number() for _ in self.places]
                return [Listen(number, place) for number, place in zip(self.listeners, self.places, strict=True)]
            case Listening():
                said = [Accept(self.number(), completion.listener) for _ in range(self.credits_each)]
                return [*said, Report(f"listening at {completion.local}")]
            case Accepted():
                return [Receive(completion.conn), Accept(self.number(), 1)]
            case Drain():
                ends: list[Operation] = [Close(number) for number in self.listeners]
                return [Report("draining"), *ends, *self.answers.get(Drain, [])]
            case Closed() if completion.conn in self.listeners:
                self.listeners.remove(completion.conn)
                return []
            case _:
                return self.answers.get(type(completion), [])


class World:
    """A succession of scripted machines, which follow each other when a test says so."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.machines: list[Scripted] = []
        self.due = False
        self.ages: list[float] = []
        self.succession = Succession(self.make, self.is_due)

    def make(self) -> Scripted:
        self.machines.append(Scripted(**self.options))
        return self.machines[-1]

    def is_due(self, machine: Machine, age_s: float) -> bool:
        assert machine is self.machines[-1]
        self.ages.append(age_s)
        due, self.due = self.due, False
        return due

    def tell(self, completion: Completion | None, now: float = 0.0) -> list[Operation]:
        return self.succession.handle(completion, now)


def begun(**options: Any) -> World:
    """A world whose first machine listens, and has one client, on connection 2."""
    world = World(**options)
    assert world.tell(None) == [Listen(1, HERE)]
    assert world.tell(Listening(1, HERE)) == [Accept(2, 1), Report(f"listening at {HERE}")]
    assert world.tell(Accepted(2, CLIENT, HERE)) == [Receive(2), Accept(3, 1)]
    return world


def test_the_first_machine_is_told_what_it_would_be_told_alone() -> None:
    world = begun()
    first = world.machines[0]
    assert first.heard == [None, Listening(1, HERE), Accepted(2, CLIENT, HERE)]
    first.answers[Received] = [Send(2, b"yes"), Connect(4, HERE), Run(5, "blocking", int)]
    assert world.tell(Received(2, b"?")) == first.answers[Received]
    first.answers[Connected] = [Cancel(5), Close(4)]
    assert world.tell(Connected(4, HERE, CLIENT)) == first.answers[Connected]
    assert world.tell(Finished(5, 42)) == []
    assert first.heard[-3:] == [Received(2, b"?"), Connected(4, HERE, CLIENT), Finished(5, 42)]


def test_the_next_connection_is_the_first_of_a_fresh_machine() -> None:
    world = begun()
    world.due = True
    asked = world.tell(Accepted(3, CLIENT, HERE), 60.0)
    first, second = world.machines
    assert first.heard[3:] == [
        Drain(inf),
        Closed(3, "aborted", "a fresh machine has taken over"),
        Closed(1),
    ], "it listens no more, as far as it knows"
    assert second.heard == [None, Listening(1, HERE), Accepted(2, CLIENT, HERE)], "as if it were alone"
    assert asked == [Receive(3), Accept(4, 1)], "the listener stays open, and nobody is told that anything has happened"
    assert world.ages == [0.0, 60.0]


def test_each_is_told_of_its_own_under_its_own_numbers() -> None:
    world = begun()
    world.due = True
    world.tell(Accepted(3, CLIENT, HERE))
    first, second = world.machines
    second.answers[Received] = [Send(2, b"new"), Connect(4, HERE)]
    assert world.tell(Received(3, b"x")) == [Send(3, b"new"), Connect(5, HERE)]
    first.answers[Received] = [Send(2, b"old"), Connect(4, HERE)]
    assert world.tell(Received(2, b"y")) == [Send(2, b"old"), Connect(6, HERE)], "numbers outside count up"
    world.tell(Connected(6, HERE, CLIENT))
    world.tell(Closed(5, "refused", "no"))
    assert first.heard[-2:] == [Received(2, b"y"), Connected(4, HERE, CLIENT)]
    assert second.heard[-2:] == [Received(2, b"x"), Closed(4, "refused", "no")]


def test_what_the_last_one_says_when_it_is_told_to_drain_goes_on_but_for_its_listeners() -> None:
    world = begun()
    world.machines[0].answers[Drain] = [Send(2, b"goodbye", eof=True)]
    world.due = True
    assert world.tell(Accepted(3, CLIENT, HERE)) == [Send(2, b"goodbye", eof=True), Receive(3), Accept(4, 1)]


def test_an_end_of_the_first_one_s_is_its_own_and_it_is_forgotten_when_it_has_finished() -> None:
    world = begun()
    world.due = True
    world.tell(Accepted(3, CLIENT, HERE))
    first, second = world.machines
    assert world.succession.machines == [first, second]
    world.tell(Closed(2))
    assert first.heard[-1] == Closed(2)
    assert len(world.succession.machines) == 2
    first.finished = True
    world.tell(None)
    assert world.succession.machines == [second]


def test_credits_that_nobody_wants_are_closed_and_a_crossing_end_is_nobody_s() -> None:
    world = World(credits_each=2)
    world.tell(None)
    assert world.tell(Listening(1, HERE))[:2] == [Accept(2, 1), Accept(3, 1)]
    world.options["credits_each"] = 1
    world.due = True
    asked = world.tell(Accepted(3, CLIENT, HERE))
    assert asked == [Close(2, abort=True), Receive(3), Accept(4, 1)], "the spent one is claimed first"
    assert world.machines[1].heard[-1] == Accepted(2, CLIENT, HERE)
    assert world.tell(Closed(2)) == []
    assert world.machines[1].heard[-1] == Accepted(2, CLIENT, HERE)


def test_several_listeners_find_their_successors_by_their_address() -> None:
    there: Address = "/run/there.sock"
    world = World(places=(HERE, there))
    assert world.tell(None) == [Listen(1, HERE), Listen(2, there)]
    world.tell(Listening(1, HERE))
    world.due = True
    asked = world.tell(Accepted(3, CLIENT, HERE))
    second = world.machines[1]
    assert second.heard == [None, Listening(1, HERE), Accepted(3, CLIENT, HERE)], "the other does not listen yet"
    assert asked == [Receive(3), Accept(4, 1)]
    assert world.tell(Listening(2, there)) == [Accept(5, 2), Report(f"listening at {there}")]
    assert second.heard[-1] == Listening(2, there), "who takes its place is told when it does"


def test_a_successor_may_ask_to_listen_somewhere_else_too() -> None:
    world = begun()
    there: Address = "/run/there.sock"
    world.options["places"] = (HERE, there)
    world.due = True
    assert world.tell(Accepted(3, CLIENT, HERE)) == [Listen(4, there), Receive(3), Accept(5, 1)]


def test_all_are_told_to_drain_and_the_end_is_when_all_have_finished() -> None:
    world = begun()
    world.due = True
    world.tell(Accepted(3, CLIENT, HERE))
    first, second = world.machines
    first.answers[Drain] = []
    asked = world.tell(Drain(5.0))
    assert asked[-1] == Close(1)
    assert first.heard[-1] == second.heard[-1] == Drain(5.0)
    assert not world.succession.finished
    first.finished = True
    assert not world.succession.finished
    second.finished = True
    assert world.succession.finished


def test_none_follows_while_the_host_drains() -> None:
    world = begun()
    world.tell(Drain(5.0))
    world.due = True
    world.tell(Accepted(3, CLIENT, HERE))
    assert len(world.machines) == 1


def test_the_deadline_is_the_first_of_all_and_all_are_told_that_time_has_passed() -> None:
    world = begun()
    assert world.succession.deadline is None
    world.due = True
    world.tell(Accepted(3, CLIENT, HERE))
    first, second = world.machines
    second.deadline = 9.0
    assert world.succession.deadline == 9.0
    first.deadline = 8.0
    assert world.succession.deadline == 8.0
    world.tell(None, 8.0)
    assert first.heard[-1] is None
    assert second.heard[-1] is None


def test_a_fresh_one_is_a_machine_without_successors() -> None:
    assert isinstance(World().succession.fresh(rng=Random(1), wall_clock_offset_s=0.0), Scripted)


@pytest.mark.parametrize("closed", [Closed(1, "other", "it broke"), Closed(1)])
def test_a_listener_that_is_gone_is_opened_by_who_comes_next(closed: Closed) -> None:
    world = World(places=(HERE, "/run/there.sock"))
    world.tell(None)
    world.tell(Listening(1, HERE))
    world.tell(Listening(2, "/run/there.sock"))
    world.tell(Closed(3, "aborted", ""))
    world.tell(closed)
    world.due = True
    asked = world.tell(Accepted(4, CLIENT, "/run/there.sock"))
    assert asked[0] == Listen(5, HERE)
    assert world.machines[1].heard[1] == Listening(2, "/run/there.sock")
