"""Rendezvous: each endpoint draws a number for the key, and the highest wins.

Highest random weight (Thaler and Ravishankar, 1998), weighted after Schindelhauer and Schomaker (2005) as the draft
"Weighted HRW and its applications" of the IETF has it: the score is weight / -ln(u). Rules:

- There is no table: a key moves only where its endpoint closes or another gains weight, and only to the one that gains.
  No other policy moves fewer, and here a slow start moves keys little by little.
- Each choice looks at every endpoint: a third of a microsecond each, half of one where weights differ. So it is for
  small clusters, of ten or twenty endpoints. Beyond, take Ketama or Maglev.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from math import log
from typing import TYPE_CHECKING, Final

from coulee.lb.hashing import Deferring, number_of
from coulee.lb.keys import bytes_of, identity

if TYPE_CHECKING:
    from coulee.core.peer import Routed
    from coulee.lb.endpoint import Endpoint
    from coulee.lb.keys import Key
    from coulee.lb.policy import Policy

SLICE_ENDPOINTS: Final = 1_000
"""Endpoints that are looked at in one slice of `arrange`: some milliseconds."""

_MASK: Final = (1 << 64) - 1
_FIRST: Final = 0xBF58476D1CE4E5B9
_SECOND: Final = 0x94D049BB133111EB
"""The multipliers of SplitMix64 (Steele, Lea and Flood, 2014): odd, and every bit of the product depends on many."""

_UNIT: Final = 2.0**-52


class Rendezvous(Deferring):
    """`Rendezvous(by_path())`. `otherwise` chooses where there is no key (at random, if it is not given)."""

    def __init__(self, key: Key, *, otherwise: Policy | None = None) -> None:
        super().__init__(otherwise)
        self.key = key
        self._seeds: list[tuple[Endpoint, int]] = []
        self._weighted = False

    def arrange(self, members: Sequence[Endpoint]) -> Iterator[None]:
        """See `Policy`."""
        seeds: list[tuple[Endpoint, int]] = []
        for endpoint in members:
            seeds.append((endpoint, number_of(identity(endpoint), b"endpoint")))
            if len(seeds) % SLICE_ENDPOINTS == 0:
                yield
        yield from super().arrange(members)
        self._seeds = seeds

    def changed(self) -> None:
        """See `Policy`."""
        usable = self.view.usable
        self._weighted = any(endpoint.effective_weight != usable[0].effective_weight for endpoint in usable)
        super().changed()

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        """See `Policy`."""
        key = self.key(exchange)
        if not key:
            return self.otherwise.choose(exchange, tried)
        number = number_of(bytes_of(key), b"key")
        weighted = self._weighted
        best: Endpoint | None = None
        highest = -1.0
        for endpoint, seed in self._seeds:
            if endpoint.open and endpoint.name not in tried:
                drawn = (number ^ seed) * _FIRST & _MASK
                drawn = (drawn ^ drawn >> 31) * _SECOND & _MASK
                score = ((drawn >> 12) + 0.5) * _UNIT  # between 0 and 1, and neither
                if weighted:
                    score = endpoint.effective_weight / -log(score)
                if score > highest:
                    best, highest = endpoint, score
        return best
