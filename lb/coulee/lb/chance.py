"""Chance: each endpoint with the probability of its weight.

What the policies that go by a key do without one. It looks at every endpoint, so it is for that alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from coulee.lb.policy import Policy

if TYPE_CHECKING:
    from coulee.core.peer import Routed
    from coulee.lb.endpoint import Endpoint


class RandomChoice(Policy):
    """Weighted, and only among those that are open."""

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        """See `Policy`."""
        left = [endpoint for endpoint in self.view.usable if endpoint.open and endpoint.name not in tried]
        if not left:
            return None
        weights = [endpoint.effective_weight for endpoint in left]
        return self.view.rng.choices(left, weights)[0] if sum(weights) > 0 else left[0]
