"""What a policy is: it chooses among the endpoints of a cluster that are open.

Rules:

- A policy looks at an endpoint's `open` (healthy enough, in service, not full), never at why it is so.
- `choose` gives an endpoint that is open and whose name is not in `tried`, or None where there is none. It does not
  raise, and it changes nothing that another choice could see but its own turn.
- It costs a few microseconds whatever the number of endpoints: what needs longer is done in `arrange`, in slices, off
  the exchanges' path.
- Randomness is `view.rng`, time is `view.now`. Nothing depends on the order of a set.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from random import Random
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from coulee.core.parts import Response
    from coulee.core.peer import Routed
    from coulee.lb.endpoint import Endpoint


class View(Protocol):
    """What a policy sees of its cluster, or of a part of it."""

    @property
    def members(self) -> Sequence[Endpoint]:
        """All endpoints, in their order."""
        ...

    @property
    def usable(self) -> Sequence[Endpoint]:
        """Those that are healthy and in service (or all, where the cluster fails open), in the same order. One of them
        may be full, and so not open, at the moment."""
        ...

    @property
    def in_flight(self) -> int:
        """Attempts that are going on, at all of them."""
        ...

    @property
    def now(self) -> float:
        """The core's clock, in seconds."""
        ...

    @property
    def wall_clock(self) -> float:
        """Seconds since 1970, for what outlives this process."""
        ...

    @property
    def rng(self) -> Random:
        """The machine's random source."""
        ...


class Policy:
    """Subclass it and override `choose`; the rest is for those that keep tables or scores.

    `self.view` is the cluster, from `bind` on.
    """

    view: View

    def fresh(self) -> Self:
        """The same policy in its initial state. A definition is never bound, so a copy of it is one."""
        return deepcopy(self)

    def bind(self, view: View) -> None:
        """Before anything else, once."""
        self.view = view

    def arrange(self, members: Sequence[Endpoint]) -> Iterator[None]:
        """The endpoints, or their weights, will be these: build what it takes beside what is in use, and put it in its
        place at the end. Each `yield` lets exchanges go on; a slice should take a few milliseconds at most. If it is
        not run to its end, nothing has changed."""
        return iter(())

    def changed(self) -> None:
        """`view.usable`, or an `effective_weight` of them, has changed; `view.members` may have, after `arrange`."""

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        """See the module's rules."""
        raise NotImplementedError

    def began(self, endpoint: Endpoint) -> None:
        """An attempt at an endpoint has begun, and counts in its `in_flight`."""

    def ended(self, endpoint: Endpoint) -> None:
        """An attempt has ended, and counts no more."""

    def answered(self, endpoint: Endpoint, latency_s: float) -> None:
        """The head of an answer came `latency_s` after the attempt began."""

    def mark(self, exchange: Routed, endpoint: Endpoint, response: Response) -> None:
        """The answer's head on its way to the client: a policy may add a field, as a cookie is."""


def overrides(policy: Policy, name: str) -> bool:
    """Whether a policy has a hook of its own: those that have none cost nothing."""
    return getattr(type(policy), name) is not getattr(Policy, name)
