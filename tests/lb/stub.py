"""A cluster as far as a policy sees it, and an exchange as far as a balancer does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from coulee.core.headers import Headers
from coulee.core.parts import Request
from coulee.core.seam import Address
from coulee.lb.endpoint import Endpoint
from coulee.lb.policy import Policy


class Asks:
    """An exchange, as far as a balancer sees it."""

    def __init__(
        self,
        target: str = "/",
        headers: Mapping[str, str] | None = None,
        client: Address = ("10.0.0.9", 50000),
        tried: Iterable[str] = (),
    ) -> None:
        self.request = Request("GET", target, Headers(headers or {}))
        self.client = client
        self.tried = list(tried)


def endpoints(count: int, weights: Sequence[int] | None = None) -> list[Endpoint]:
    """`a0`, `a1`, ... at 10.0.x.y:80."""
    made = [
        Endpoint(
            (f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 80), name=f"a{i}", weight=1 if weights is None else weights[i]
        )
        for i in range(count)
    ]
    for index, endpoint in enumerate(made):
        endpoint.index = index
    return made


class FakeView:
    """Does what the real cluster does for its policy, and nothing else."""

    def __init__(self, members: Sequence[Endpoint], policy: Policy | None = None, *, seed: int = 0) -> None:
        self.members: list[Endpoint] = list(members)
        self.usable: list[Endpoint] = []
        self.in_flight = 0
        self.now = 0.0
        self.rng = Random(seed)
        self.policy = policy.fresh() if policy is not None else Policy()
        self.policy.bind(self)
        self.place(self.members)

    def place(self, members: Sequence[Endpoint]) -> None:
        """The set of endpoints, or weights, have changed."""
        gone = [endpoint for endpoint in self.members if endpoint not in members]
        for endpoint in gone:
            endpoint.usable = endpoint.open = False
        for _ in self.policy.arrange(members):
            pass
        self.members = list(members)
        for index, endpoint in enumerate(self.members):
            endpoint.index = index
            endpoint.effective_weight = float(endpoint.weight)
        self._changed()

    def choose(self, exchange: Asks | None = None) -> Endpoint | None:
        """What the policy chooses; never one that is closed or was tried."""
        exchange = exchange or Asks()
        chosen = self.policy.choose(exchange, exchange.tried)
        assert chosen is None or (chosen.open and chosen.name not in exchange.tried)
        return chosen

    def begin(self, endpoint: Endpoint) -> None:
        """An attempt begins."""
        endpoint.in_flight += 1
        self.in_flight += 1
        self._fill(endpoint)
        self.policy.began(endpoint)

    def end(self, endpoint: Endpoint) -> None:
        """An attempt ends."""
        endpoint.in_flight -= 1
        self.in_flight -= 1
        self._fill(endpoint)
        self.policy.ended(endpoint)

    def close(self, endpoint: Endpoint) -> None:
        """It is not usable any more."""
        endpoint.usable = endpoint.open = False
        self._changed()

    def reopen(self, endpoint: Endpoint) -> None:
        """It is usable again."""
        endpoint.usable = endpoint.weight > 0
        self._fill(endpoint)
        self._changed()

    def _fill(self, endpoint: Endpoint) -> None:
        most = endpoint.limits.requests_max if endpoint.limits is not None else None
        endpoint.open = endpoint.usable and (most is None or endpoint.in_flight < most)

    def _changed(self) -> None:
        self.usable = [endpoint for endpoint in self.members if endpoint.usable]
        self.policy.changed()

    @property
    def wall_clock(self) -> float:
        """A day of 2023, and what has passed since."""
        return 1.7e9 + self.now
