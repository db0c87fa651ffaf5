"""What the policies that hash have in common: a key, a walk, a bound on each endpoint's load, and another policy.

Rules:

- A walk names endpoints in the order in which this key wants them, for as long as it takes to have named them all. The
  first that is open, untried and below the bound is the choice. So a key of an endpoint that is closed moves along its
  own walk, a key of any other stays, and each comes back when the endpoint does.
- Without a key another policy chooses; it is told all that this one is told.
- Bounded load (Mirrokni, Thorup and Zadimoghaddam, 2016; HAProxy's `hash-balance-factor`): with `bound=1.25` an attempt
  goes to no endpoint that has its share of the load, one and a quarter of the average, by weight. Since all shares
  together are more than the load, there is always room: among all that are usable, or, where some of them are full
  or were tried, among the rest. A slow start counts as so much less weight.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final

from coulee.lb.keys import bytes_of
from coulee.lb.policy import Policy
from coulee.lb.turns import RandomChoice

if TYPE_CHECKING:
    from coulee.core.parts import Response
    from coulee.core.peer import Routed
    from coulee.lb.endpoint import Endpoint
    from coulee.lb.keys import Key
    from coulee.lb.policy import View

STEPS_MAX: Final = 64
"""Steps of a walk before we look who is left at all: not to go round a large ring for nobody."""


class Deferring(Policy):
    """A policy that leaves some of its choices to another one."""

    def __init__(self, otherwise: Policy | None) -> None:
        self.otherwise = otherwise if otherwise is not None else RandomChoice()

    def bind(self, view: View) -> None:
        """See `Policy`, as for the rest."""
        self.view = view
        self.otherwise.bind(view)

    def arrange(self, members: Sequence[Endpoint]) -> Iterator[None]:
        """Override it with a generator that builds, yields from this one, and then puts in place what it has built:
        so a build that is given up has changed neither."""
        return self.otherwise.arrange(members)

    def changed(self) -> None:
        self.otherwise.changed()

    def began(self, endpoint: Endpoint) -> None:
        self.otherwise.began(endpoint)

    def ended(self, endpoint: Endpoint) -> None:
        self.otherwise.ended(endpoint)

    def answered(self, endpoint: Endpoint, latency_s: float) -> None:
        self.otherwise.answered(endpoint, latency_s)

    def mark(self, exchange: Routed, endpoint: Endpoint, response: Response) -> None:
        self.otherwise.mark(exchange, endpoint, response)


class Walking(Deferring):
    """A policy that has a walk for each key; override `walk`. Raises `ValueError` for a bound below 1."""

    def __init__(self, key: Key, otherwise: Policy | None, bound: float | None) -> None:
        super().__init__(otherwise)
        if bound is not None and not 1 <= bound < inf:
            raise ValueError(f"bound is {bound}; it must be 1 or more (1.25: a quarter above the average), or None")
        self.key = key
        self.bound = bound
        self._weight = 0.0

    def changed(self) -> None:
        """See `Policy`."""
        if self.bound is not None:
            self._weight = sum(endpoint.effective_weight for endpoint in self.view.usable)
        self.otherwise.changed()

    def walk(self, key: bytes) -> Iterator[Endpoint]:
        """Every endpoint that there is, at least once, in the order of preference of this key."""
        raise NotImplementedError

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        """See `Policy`."""
        key = self.key(exchange)
        if not key:
            return self.otherwise.choose(exchange, tried)
        raw = bytes_of(key)
        bounded = self.bound is not None
        for endpoint in islice(self.walk(raw), STEPS_MAX):
            if (
                endpoint.open
                and endpoint.name not in tried
                and not (bounded and self._has_its_share(endpoint, self._weight))
            ):
                return endpoint
        return self._choose_of_few(raw, tried)

    def _choose_of_few(self, raw: bytes, tried: Collection[str]) -> Endpoint | None:
        """The same, where a walk may be long."""
        left = [endpoint for endpoint in self.view.usable if endpoint.open and endpoint.name not in tried]
        if not left:
            return None
        weight = self._weight
        if self.bound is not None and all(self._has_its_share(endpoint, weight) for endpoint in left):
            weight = sum(endpoint.effective_weight for endpoint in left)
        for endpoint in self.walk(raw):
            if (
                endpoint.open
                and endpoint.name not in tried
                and (self.bound is None or not self._has_its_share(endpoint, weight))
            ):
                return endpoint
        return left[0]  # none of them is in the tables yet

    def _has_its_share(self, endpoint: Endpoint, weight: float) -> bool:
        """Whether one more would be more than ceil(bound * (all in flight + 1) * its weight / the weight of all)."""
        assert self.bound is not None
        if weight <= 0:
            return False
        return endpoint.in_flight >= self.bound * (self.view.in_flight + 1) * endpoint.effective_weight / weight


def number_of(data: bytes, purpose: bytes) -> int:
    """64 bits that depend on all of the data and on what they are for: the same on every machine."""
    return int.from_bytes(blake2b(data, digest_size=8, person=purpose).digest(), "big")
