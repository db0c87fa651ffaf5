"""One machine after another behind one driver: a fresh one takes the listeners over, the others finish what they have.

A `Succession` is a machine to the driver, and the world to the machines in it. Rules:

- When it is time (`is_due`), the next connection that a client makes is the first of a fresh machine. The one before is
  told to drain, without a limit: clients that it has are answered, and told to come again.
- Listeners stay open. A successor that asks to listen where its predecessor did is told that it does, and an accept
  credit that the predecessor has left is the successor's.
- Each machine has numbers of its own, as if it were alone, for each must be such as a fresh one would be in its place.
  Outside they are others, which count up in the order in which the machines ask for them.
- What the host says (`Drain`) is said to all of them. When all have finished, the succession has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from random import Random
from typing import Any, Final

from coulee.backends.trace import number_of
from coulee.core.seam import (
    Accept,
    Accepted,
    Address,
    Cancel,
    Close,
    Closed,
    Completion,
    Connect,
    Drain,
    Finished,
    Listen,
    ListenAt,
    Listening,
    Machine,
    Operation,
    Report,
    Run,
)


class _Member:
    """One of the machines."""

    def __init__(self, machine: Machine, born: float) -> None:
        self.machine = machine
        self.born = born
        self.outside: dict[int, int] = {}  # its numbers, and what they are outside
        self.listeners: list[int] = []  # its numbers
        self.credits: dict[int, int] = {}  # its numbers of accepts without an answer, and their listeners


class Succession:
    """See the top of the module. `make` makes a fresh machine; `is_due` says, of the one that takes clients now and of
    its age in seconds, whether it is time for another."""

    def __init__(self, make: Callable[[], Machine], is_due: Callable[[Machine, float], bool]) -> None:
        self._make = make
        self._is_due = is_due
        self._members: list[_Member] = []  # the last one takes clients
        self._owners: dict[int, tuple[_Member, int]] = {}  # numbers outside: whose they are, and what there
        self._places: dict[int, tuple[Address, Address | None]] = {}  # listeners outside: where it was asked, and is
        self._numbers = 0
        self._draining = False

    def fresh(self, *, rng: Random, wall_clock_offset_s: float, listen: Sequence[ListenAt] = ()) -> Machine:
        """See `seam.Machine`: a machine that has no successor."""
        return self._make().fresh(rng=rng, wall_clock_offset_s=wall_clock_offset_s, listen=listen)

    @property
    def machines(self) -> list[Machine]:
        """Those that have not finished; the last one takes clients."""
        return [member.machine for member in self._members]

    @property
    def deadline(self) -> float | None:
        due = [when for member in self._members if (when := member.machine.deadline) is not None]
        return min(due, default=None)

    @property
    def finished(self) -> bool:
        return self._draining and all(member.machine.finished for member in self._members)

    def handle(self, completion: Completion | None, now: float) -> list[Operation]:
        """See `seam.Machine`."""
        asked: list[Operation] = []
        if completion is None or isinstance(completion, Drain):
            self._draining = self._draining or completion is not None
            if not self._members:
                self._members.append(_Member(self._make(), now))
            for member in self._members:
                asked += self._tell(member, completion, now)
        else:
            if isinstance(completion, Accepted) and self._time_has_come(now):
                asked += self._succeed(completion.conn, now)
            owner = self._owners.get(number_of(completion))
            if owner is not None:  # else it is the end of a credit that nobody wanted
                member, number = owner
                self._note(member, number, completion)
                asked += self._tell(member, _renamed(completion, number), now)
        self._members = [each for each in self._members if each is self._members[-1] or not each.machine.finished]
        return asked

    # -- what passes through

    def _tell(self, member: _Member, completion: Completion | None, now: float) -> list[Operation]:
        """A turn of one machine; what it asks for goes on under other numbers."""
        return [self._passed_on(member, operation) for operation in member.machine.handle(completion, now)]

    def _passed_on(self, member: _Member, operation: Operation) -> Operation:
        if isinstance(operation, Report):
            return operation
        number = number_of(operation)
        if isinstance(operation, Accept):
            member.credits[number] = operation.listener
            return Accept(self._name(member, number), member.outside[operation.listener])
        if isinstance(operation, Listen):
            member.listeners.append(number)
            self._places[self._name(member, number)] = operation.address, None
        elif isinstance(operation, Connect | Run):
            self._name(member, number)
        renamed: Operation = _renamed(operation, member.outside[number])
        return renamed

    def _name(self, member: _Member, number: int) -> int:
        self._numbers += 1
        self._give(member, number, self._numbers)
        return self._numbers

    def _give(self, member: _Member, number: int, outside: int) -> None:
        member.outside[number] = outside
        self._owners[outside] = member, number

    def _note(self, member: _Member, number: int, completion: Completion) -> None:
        """Keep the tables."""
        if isinstance(completion, Accepted):
            del member.credits[number]
        elif isinstance(completion, Listening):
            asked, _ = self._places[completion.listener]
            self._places[completion.listener] = asked, completion.local
        elif isinstance(completion, Closed | Finished):
            del self._owners[member.outside.pop(number)]
            if isinstance(completion, Closed):
                member.credits.pop(number, None)
                if self._places.pop(completion.conn, None) is not None:
                    member.listeners.remove(number)

    # -- succeeding

    def _time_has_come(self, now: float) -> bool:
        last = self._members[-1]
        return not self._draining and self._is_due(last.machine, now - last.born)

    def _succeed(self, spent: int, now: float) -> list[Operation]:
        """A fresh machine takes the place of the last one. The credit `spent` has just been used, and is its own."""
        before = self._members[-1]
        unspent = [(before.outside[listener], before.outside[number]) for number, listener in before.credits.items()]
        asked = self._retire(before, now)
        unspent.sort(key=lambda credit: credit[1] != spent)
        self._members.append(member := _Member(self._make(), now))
        asked += self._begin(member, unspent, now)
        asked += [Close(number, abort=True) for _, number in unspent]  # what is left of them
        return asked

    def _retire(self, member: _Member, now: float) -> list[Operation]:
        """Drain a machine, and tell it that it listens no more, which outside is not so. That it drains is nobody's
        business."""
        drained = member.machine.handle(Drain(inf), now)
        asked = [
            self._passed_on(member, operation)
            for operation in drained
            if not isinstance(operation, Report)
            and not (isinstance(operation, Close) and operation.conn in member.listeners)
        ]
        farewells = [Closed(number, "aborted", "a fresh machine has taken over") for number in member.credits]
        farewells += [Closed(number) for number in member.listeners]
        member.credits.clear()
        member.listeners.clear()
        for farewell in farewells:
            del self._owners[member.outside.pop(farewell.conn)]
            asked += self._tell(member, farewell, now)
        return asked

    def _begin(self, member: _Member, unspent: list[tuple[int, int]], now: float) -> list[Operation]:
        """The first turns of a successor: it asks to listen, is told that it does, and asks to accept. Its reports say
        what was said when the first machine began."""
        asked: list[Operation] = []
        open_places = dict(self._places)
        turns: list[Completion | None] = [None]
        for completion in turns:
            for operation in member.machine.handle(completion, now):
                if isinstance(operation, Listen):
                    place = next((key for key, (at, _) in open_places.items() if at == operation.address), None)
                    if place is not None:
                        member.listeners.append(operation.listener)
                        self._give(member, operation.listener, place)
                        local = open_places.pop(place)[1]
                        if local is not None:
                            turns.append(Listening(operation.listener, local))
                        continue
                elif isinstance(operation, Accept):
                    outside = member.outside[operation.listener]
                    credit = next((each for each in unspent if each[0] == outside), None)
                    if credit is not None:
                        unspent.remove(credit)
                        member.credits[operation.conn] = operation.listener
                        self._give(member, operation.conn, credit[1])
                        continue
                if not isinstance(operation, Report):
                    asked.append(self._passed_on(member, operation))
        return asked


_FIELDS: Final[dict[type, str]] = {
    Listen: "listener",
    Listening: "listener",
    Run: "job",
    Cancel: "job",
    Finished: "job",
}


def _renamed(item: Any, number: int) -> Any:
    """The same operation or completion under another number."""
    return replace(item, **{_FIELDS.get(item.__class__, "conn"): number})
