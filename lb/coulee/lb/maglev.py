"""Maglev: consistent hashing by a table that the endpoints fill in turns.

After Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4. Rules:

- Each endpoint has an order of its own of all places of the table, from two hashes of its address. In its turn it takes
  the first place in that order that is free. Turns come by weight, as in Envoy; the first round is everybody's, so that
  a small weight beside a large one still has a place.
- A key has the place that its hash says. From there the walk goes on through the table, place by place: so the keys of
  one that is closed are spread over all others, and no other key moves.
- A table is made anew for other members or weights. Then a few more keys move than must: one or two in a hundred, and
  fewer in a larger table. What is gained over Ketama is balance: shares are right within one place.
- The order of the members does not matter: turns in a round go by address.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from heapq import heapreplace
from math import isqrt
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from coulee.lb.hashing import Walking, number_of
from coulee.lb.keys import identity

if TYPE_CHECKING:
    from coulee.lb.endpoint import Endpoint
    from coulee.lb.keys import Key
    from coulee.lb.policy import Policy

SIZE: Final = 65537
"""Places, in the paper and in Envoy: for up to some 600 endpoints. The paper asks for a hundred for each of them."""

SIZE_MAX: Final = 5_000_011
"""Envoy's."""

SLICE_ENDPOINTS: Final = 1_000
"""Endpoints that are looked at in one slice of `arrange`: a few milliseconds."""

SLICE_STEPS: Final = 20_000
"""... or places of the table."""

STEPS_PER_TURN: Final = 8
"""What a turn costs beside its looks at places that are taken, in such looks."""


class Maglev(Walking):
    """`Maglev(by_cookie("session"))`. Raises `ValueError` for a size that is no prime, and for a bound below 1.

    `size` is the number of places; where there are more endpoints, it is doubled until each has one. `otherwise`
    chooses where there is no key (at random, if it is not given); `bound=1.25` bounds the load of each endpoint (see
    `coulee.lb.hashing`).
    """

    def __init__(
        self, key: Key, *, size: int = SIZE, otherwise: Policy | None = None, bound: float | None = None
    ) -> None:
        super().__init__(key, otherwise, bound)
        if not 3 <= size <= SIZE_MAX:
            raise ValueError(f"size is {size}; it must be a prime from 3 to {SIZE_MAX}, such as {SIZE}")
        if next_prime(size) != size:
            raise ValueError(f"size is {size}, which is no prime; the next one is {next_prime(size)}")
        self.size = size
        self._endpoints: list[Endpoint] = []
        self._table = array("I")

    def walk(self, key: bytes) -> Iterator[Endpoint]:
        """Through the table, from the key's place on."""
        endpoints = self._endpoints
        table = self._table
        if endpoints:
            place = number_of(key, b"key") % len(table)
            for at in range(place - len(table), place):  # a negative one counts from the end
                yield endpoints[table[at]]

    def arrange(self, members: Sequence[Endpoint]) -> Iterator[None]:
        """See `Policy`."""
        named: list[tuple[bytes, Endpoint]] = []
        for endpoint in members:
            if endpoint.weight:
                named.append((identity(endpoint), endpoint))
                if len(named) % SLICE_ENDPOINTS == 0:
                    yield
        named.sort(key=itemgetter(0))
        size = self.size
        while size < len(named):
            size = next_prime(2 * size)
        table = array("I", [0]) * size
        yield from fill(table, [(name, endpoint.weight) for name, endpoint in named])
        yield from super().arrange(members)
        self._endpoints, self._table = [endpoint for _, endpoint in named], table


def fill(table: array[int], named: Sequence[tuple[bytes, int]]) -> Iterator[None]:
    """Let endpoints, of which the names and weights are given, take their places, in slices. Each place gets the index
    of one; there is one at least for each."""
    size = len(table)
    places: list[int] = []
    """Where each of them looks next."""
    skips: list[int] = []
    """How far it goes from there if that is taken; the size is prime, so it comes to every place."""
    for name, _ in named:
        places.append(number_of(name, b"offset") % size)
        skips.append(number_of(name, b"skip") % (size - 1) + 1)
        if len(places) % SLICE_ENDPOINTS == 0:
            yield
    turns = [(0.0, index) for index in range(len(named))]
    """When each of them has its next turn, soonest first: after n of them, at n / weight."""
    taken = bytearray(size)
    counts = [0] * len(named)
    steps = 0
    for _ in range(size if named else 0):
        index = turns[0][1]
        place = places[index]
        while taken[place]:
            place = (place + skips[index]) % size
            steps += 1
            if steps >= SLICE_STEPS:
                steps = 0
                yield
        taken[place] = 1
        table[place] = index
        places[index] = place
        counts[index] += 1
        steps += STEPS_PER_TURN
        heapreplace(turns, (counts[index] / named[index][1], index))


def next_prime(number: int) -> int:
    """The first prime that is not below this number, which is above 2."""
    number |= 1
    while any(number % divisor == 0 for divisor in range(3, isqrt(number) + 1, 2)):
        number += 2
    return number
