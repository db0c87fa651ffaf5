"""A cluster on a machine in virtual time, with its exchanges and its endpoints played by hand.

play = Play(Cluster(*endpoints(3), health=HealthCheck(checks := Checks())))
attempt = play.begin()                  # as an exchange does: choose, and begin
attempt.end("upstream_refused", 0)      # ... and end
play.wait(5)                            # time passes, and what is due is done
play.events                             # [("a0", "healthy", "unhealthy", cause, lasted_s)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from coulee.core.errors import ExchangeError
from coulee.core.headers import Headers
from coulee.core.parts import Response
from coulee.core.peer import Peer
from coulee.lb.cluster import Cluster
from coulee.lb.discovery import Found
from coulee.lb.endpoint import Endpoint
from coulee.lb.health import CheckFailed
from coulee.lb.turns import RoundRobin
from tests.lb.bench import Bench
from tests.lb.stub import Asks

T = TypeVar("T")


class Checks:
    """A probe: what is in `bad`, by name, fails for that cause."""

    def __init__(self) -> None:
        self.bad: dict[str, str] = {}
        self.made: list[str] = []

    async def __call__(self, endpoint: Endpoint) -> None:
        self.made.append(endpoint.name)
        if endpoint.name in self.bad:
            raise CheckFailed(self.bad[endpoint.name])


class Play:
    """One cluster, running."""

    def __init__(self, cluster: Cluster, *, seed: int = 0) -> None:
        self.bench = Bench(seed)
        self.cluster = cluster
        self.bench.balancer = cluster
        self.bench.does(lambda: cluster.start(self.bench))

    def turn(self, call: Callable[[], T]) -> T:
        """What `call` gives, in a turn of the machine."""
        given: list[T] = []
        self.bench.does(lambda: given.append(call()))
        return given[0]

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.bench.wait(seconds)

    @property
    def now(self) -> float:
        """The time."""
        return self.bench.now

    def __getitem__(self, name: str) -> Endpoint:
        return self.cluster.endpoint(name)

    def choose(self, *tried: str, target: str = "/") -> str:
        """The name of the endpoint that is chosen; the reason, where there is none."""
        try:
            return self.turn(lambda: self.cluster.choose(Asks(target, tried=tried))).name
        except ExchangeError as error:
            return error.reason

    def error(self) -> ExchangeError:
        """Why there is nothing to choose."""
        try:
            chosen = self.turn(lambda: self.cluster.choose(Asks()))
        except ExchangeError as error:
            return error
        raise AssertionError(f"{chosen.name} was chosen")

    def begin(self, peer: Peer | str | None = None, *, tried: Sequence[str] = ()) -> Attempt:
        """An attempt at whoever is chosen; or at this endpoint, or at this peer, as a filter may choose it."""
        if isinstance(peer, str):
            peer = self[peer]
        return Attempt(self, peer, tried)

    def succeed(self, name: str, times: int = 1, latency_s: float = 0.0) -> None:
        """So many attempts at an endpoint go well."""
        for _ in range(times):
            attempt = self.begin(name)
            if latency_s:
                self.wait(latency_s)
            attempt.end()

    def fail(self, name: str, times: int = 1, reason: str = "upstream_refused", status: int = 0) -> None:
        """So many attempts at an endpoint fail."""
        for _ in range(times):
            self.begin(name).end(reason, status)

    def update(self, *names: Endpoint | str) -> None:
        """The set of endpoints is another one; names are those of endpoints at the addresses of `stub.endpoints`."""
        self.turn(lambda: self.cluster.update([named(each) if isinstance(each, str) else each for each in names]))

    @property
    def states(self) -> dict[str, str]:
        """By name."""
        return {endpoint.name: endpoint.state for endpoint in self.cluster.members}

    @property
    def events(self) -> list[tuple[object, ...]]:
        """Changes of state: of which endpoint, from what, to what, why, and how long that had lasted."""
        fields = ("endpoint", "before", "state", "cause", "lasted_s")
        return [tuple(event.fields[field] for field in fields) for event in self.bench.world.events("endpoint")]

    def stopped(self) -> dict[str, int]:
        """What is left when it has been stopped."""
        self.turn(self.cluster.stop)
        return self.bench.left


class Attempt:
    """One attempt, from its beginning."""

    def __init__(self, play: Play, peer: Peer | None, tried: Sequence[str]) -> None:
        self.play = play
        self.exchange = Asks(tried=tried)
        cluster = play.cluster
        self.peer: Peer = play.turn(lambda: cluster.choose(self.exchange)) if peer is None else peer
        play.turn(lambda: cluster.begin(self.peer))
        self.began = play.now
        self.status, self.latency_s = 0, 0.0

    @property
    def name(self) -> str:
        """Of its peer."""
        return self.peer.name

    def answer(self, status: int = 200) -> Attempt:
        """The head of the answer is here."""
        response = Response(status, Headers({}))
        self.status, self.latency_s = status, self.play.now - self.began
        self.play.turn(lambda: self.play.cluster.answered(self.exchange, self.peer, response, self.latency_s))
        return self

    def end(self, reason: str = "", status: int = 200) -> None:
        """It is over; where no answer was here and `status` is not 0, it comes at the same time."""
        if status and not self.status:
            self.answer(status)
        self.play.turn(lambda: self.play.cluster.end(self.peer, reason, self.status, self.latency_s))


class Sliced(RoundRobin):
    """Round robin with tables that take `slices` to build: `table` has the names that it was last built for."""

    def __init__(self, slices: int = 2) -> None:
        super().__init__()
        self.slices = slices
        self.table: list[str] = []
        self.arranged: list[str] = []
        self.changes = 0
        self.building = 0

    def arrange(self, members: Sequence[Endpoint]) -> Iterator[None]:
        assert not self.building, "what is being built is given up before the next is begun"
        names = [endpoint.name for endpoint in members]
        self.arranged.append(" ".join(names))
        self.building += 1
        try:
            for _ in range(self.slices):
                yield
            self.table = names
        finally:
            self.building -= 1

    def changed(self) -> None:
        self.changes += 1
        super().changed()


class Sets:
    """A source that gives one set after another, and then nothing new; an exception is raised."""

    name = "sets"
    interval_s = 10.0
    timeout_s = 5.0

    def __init__(self, *sets: Sequence[Endpoint] | Exception) -> None:
        self.sets = list(sets)
        self.asked = 0

    def fresh(self) -> Sets:
        return Sets(*self.sets)

    async def find(self) -> Found:
        found = self.sets[min(self.asked, len(self.sets) - 1)]
        self.asked += 1
        if isinstance(found, Exception):
            raise found
        return Found(found)


def named(name: str, weight: int = 1) -> Endpoint:
    """The endpoint that `stub.endpoints` would give this name."""
    return Endpoint((f"10.0.0.{name[1:]}", 80), name=name, weight=weight)


def sliced(play: Play) -> Sliced:
    """The policy that it has."""
    policy = play.cluster.policy
    assert isinstance(policy, Sliced)
    return policy


def filters_peer(name: str) -> Peer:
    """A peer of the same address as an endpoint, as a filter makes it."""
    return Peer(named(name).address, name="of a filter")
