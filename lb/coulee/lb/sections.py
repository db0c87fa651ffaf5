"""Policies made of others: each divides its cluster into sections, with a policy of its own for every section.

Rules:

- What users give as `inner` is a definition. Each section has a policy made from it, to which the section is the whole
  cluster; so such policies nest.
- An endpoint may be in several sections. What becomes of an attempt is told to all of them.
- Sections are divided in `arrange` and nowhere else: a section that is still there afterwards keeps its policy, and
  with it all that was learnt. One by one they are built and put in place; given up half-way, they are put back.
- Nobody is chosen who is not open, so an endpoint that is not a member yet must not be.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterator, Sequence
from copy import copy
from random import Random
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from coulee.lb.policy import Policy, View, overrides
from coulee.lb.turns import RoundRobin

if TYPE_CHECKING:
    from coulee.core.parts import Response
    from coulee.core.peer import Routed
    from coulee.lb.endpoint import Endpoint

K = TypeVar("K", bound=Hashable)


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
    def rng(self) -> Random:
        """The machine's random source."""
        return self.whole.rng


class Sectioned(Policy, Generic[K]):
    """Subclass it, and override `divide` and `choose`. `sections` holds them by their keys."""

    sections: dict[K, Section]

    def __init__(self, inner: Policy | None = None) -> None:
        self.inner = inner if inner is not None else RoundRobin()
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

    def divide(self, members: Sequence[Endpoint]) -> Generator[None, None, dict[K, list[Endpoint]]]:
        """The members of each section, in their order; none is empty. Each `yield` ends a slice, as in `arrange`."""
        raise NotImplementedError

    def arrange(self, members: Sequence[Endpoint]) -> Iterator[None]:
        """See `Policy.arrange`."""
        divided = yield from self.divide(members)
        present = self.sections
        self.sections = dict(present)
        replaced: list[tuple[Section, list[Endpoint]]] = []
        try:
            for key, its_members in divided.items():
                yield
                section = present.get(key) or Section(self.view, self.inner)
                yield from section.policy.arrange(its_members)
                replaced.append((section, section.members))
                self.sections[key] = section
                self._place(section, its_members)
                section.policy.changed()
        except BaseException:
            self.sections = present
            for section, its_members in replaced:
                if its_members:
                    for _ in section.policy.arrange(its_members):
                        pass
                self._place(section, its_members)
            self.changed()
            raise
        for key, section in present.items():
            if key not in divided:
                self._place(section, [])
        self.sections = {key: self.sections[key] for key in divided}

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

    def _place(self, section: Section, members: list[Endpoint]) -> None:
        """These are the section's members from now on."""
        sections_of = self._sections_of
        for endpoint in section.members:
            sections_of[endpoint].remove(section)
            if not sections_of[endpoint]:
                del sections_of[endpoint]
        for endpoint in members:
            sections_of.setdefault(endpoint, []).append(section)
        usable = dict.fromkeys(self.view.usable)
        section.members = members
        section.usable = [endpoint for endpoint in members if endpoint in usable]
        section.in_flight = sum(endpoint.in_flight for endpoint in members)
