"""Policies made of others: each divides its cluster into sections, with a policy of its own for every section.

Rules:

- What users give as `inner` is a definition. Each section has a policy made from it, to which the section is the whole
  cluster; so such policies nest.
- An endpoint may be in several sections. What becomes of an attempt is told to all of them.
- Sections are divided in `arrange` and nowhere else, beside those in use, and put in their place all at once.
- A section that is still there afterwards keeps its policy, and with it all that was learnt. Only a policy that has
  tables to arrange is made anew, since it would put them to use before the other sections have theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from copy import copy
from random import Random
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from coulee.lb.policy import Policy, View, overrides
from coulee.lb.turns import RoundRobin

if TYPE_CHECKING:
    from coulee.core.parts import Response
    from coulee.core.peer import Routed
    from coulee.lb.endpoint import Endpoint

Key: TypeAlias = Any
"""What tells the sections of a policy apart: a level, say."""

SLICE: Final = 2000
"""Endpoints that are looked at in one slice, of about a millisecond. What takes less than one takes effect at once."""


class Section:
    """Some of a cluster's endpoints, and the policy that chooses among them: the `View` that this policy has."""

    __slots__ = ("in_flight", "members", "policy", "usable", "whole")

    def __init__(self, whole: View, inner: Policy) -> None:
        self.whole = whole
        self.members: list[Endpoint] = []
        self.usable: list[Endpoint] = []
        self.in_flight = 0
        self.policy = inner.fresh()
        self.policy.bind(self)

    @property
    def now(self) -> float:
        """The core's clock, in seconds."""
        return self.whole.now

    @property
    def wall_clock(self) -> float:
        """Seconds since 1970, for what outlives this process."""
        return self.whole.wall_clock

    @property
    def rng(self) -> Random:
        """The machine's random source."""
        return self.whole.rng


class Sectioned(Policy):
    """Subclass it, and override `divide` and `choose`. `sections` holds them by their keys."""

    sections: dict[Key, Section]

    def __init__(self, inner: Policy | None = None) -> None:
        self.inner = inner if inner is not None else RoundRobin()
        self._inner_arranges = overrides(self.inner, "arrange")
        self._inner_began = overrides(self.inner, "began")
        self._inner_ended = overrides(self.inner, "ended")
        self._inner_answered = overrides(self.inner, "answered")
        self._inner_mark = overrides(self.inner, "mark")

    def fresh(self) -> Self:
        """The same policy in its initial state. All state is made in `bind`, and `inner` is copied there."""
        return copy(self)

    def bind(self, view: View) -> None:
        """Before anything else, once."""
        super().bind(view)
        self.sections = {}
        self._sections_of: dict[Endpoint, list[Section]] = {}

    def divide(self, members: Sequence[Endpoint]) -> Generator[None, None, dict[Key, list[Endpoint]]]:
        """The members of each section, in their order; none is empty. Each `yield` ends a slice, as in `arrange`."""
        raise NotImplementedError

    def arrange(self, members: Sequence[Endpoint]) -> Iterator[None]:
        """See `Policy.arrange`."""
        put_in_place = yield from self.prepare(members)
        put_in_place()

    def prepare(self, members: Sequence[Endpoint]) -> Generator[None, None, Callable[[], None]]:
        """Builds the sections, and returns what puts them in their place: so that nested ones change together."""
        divided = yield from self.divide(members)
        sections: dict[Key, Section] = {}
        sections_of: dict[Endpoint, list[Section]] = {}
        inner_ones: list[Callable[[], None]] = []
        looked_at = 0
        for key, its_members in divided.items():
            looked_at += len(its_members)
            if looked_at > SLICE:
                looked_at = 0
                yield
            section = self.sections.get(key)
            if section is not None and isinstance(section.policy, Sectioned):
                inner_ones.append((yield from section.policy.prepare(its_members)))
            elif section is None or self._inner_arranges:
                section = Section(self.view, self.inner)
                yield from section.policy.arrange(its_members)
            sections[key] = section
            for endpoint in its_members:
                sections_of.setdefault(endpoint, []).append(section)

        def put_in_place() -> None:
            for inner_one in inner_ones:
                inner_one()
            for key, section in sections.items():
                section.members = divided[key]
                section.in_flight = sum(endpoint.in_flight for endpoint in section.members)
            self.sections = sections
            self._sections_of = sections_of

        return put_in_place

    def changed(self) -> None:
        """See `Policy.changed`."""
        for section in self.sections.values():
            section.usable = []
        for endpoint in self.view.usable:
            for section in self._sections_of.get(endpoint, ()):
                section.usable.append(endpoint)
        for section in self.sections.values():
            section.policy.changed()

    def began(self, endpoint: Endpoint) -> None:
        """Goes to all sections that the endpoint is in."""
        for section in self._sections_of.get(endpoint, ()):
            section.in_flight += 1
            if self._inner_began:
                section.policy.began(endpoint)

    def ended(self, endpoint: Endpoint) -> None:
        """Goes to all sections that the endpoint is in."""
        for section in self._sections_of.get(endpoint, ()):
            section.in_flight -= 1
            if self._inner_ended:
                section.policy.ended(endpoint)

    def answered(self, endpoint: Endpoint, latency_s: float) -> None:
        """Goes to all sections that the endpoint is in."""
        if self._inner_answered:
            for section in self._sections_of.get(endpoint, ()):
                section.policy.answered(endpoint, latency_s)

    def mark(self, exchange: Routed, endpoint: Endpoint, response: Response) -> None:
        """Goes to one section: two would contradict each other."""
        if self._inner_mark:
            section = self.section_for(exchange, endpoint)
            if section is not None:
                section.policy.mark(exchange, endpoint, response)

    def section_for(self, exchange: Routed, endpoint: Endpoint) -> Section | None:
        """The section in which an exchange is served by an endpoint; None where that is not a member any more."""
        return next(iter(self._sections_of.get(endpoint, ())), None)
