"""Policies made of policies made of policies: whatever is nested in what, the laws of each single one hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from coulee.core.peer import PeerLimits, Routed
from coulee.lb.cluster import Cluster
from coulee.lb.endpoint import Endpoint
from coulee.lb.groups import Priority
from coulee.lb.ketama import Ketama
from coulee.lb.keys import by_target
from coulee.lb.loads import LeastRequests, PeakEwma
from coulee.lb.locality import Locality
from coulee.lb.maglev import Maglev
from coulee.lb.policy import Policy
from coulee.lb.sections import Sectioned
from coulee.lb.subsets import ByLabels, DeterministicSubset
from coulee.lb.turns import RoundRobin
from tests.lb.stub import Asks, FakeView, endpoints


class Draw(Policy):
    """One at random; as hard on those around it as a policy may be: it has tables that take slices to build, and checks
    that they, its view and what it is told agree."""

    def __init__(self) -> None:
        self.table: list[Endpoint] = []
        self.load = 0

    def arrange(self, members: Sequence[Endpoint]) -> Iterator[None]:
        for _ in members:
            yield
        self.table = list(members)

    def changed(self) -> None:
        assert list(self.view.members) == self.table
        assert all(endpoint in self.table for endpoint in self.view.usable)
        self.load = sum(endpoint.in_flight for endpoint in self.table)
        assert self.view.in_flight == self.load

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        left = [endpoint for endpoint in self.table if endpoint.open and endpoint.name not in tried]
        return self.view.rng.choice(left) if left else None

    def began(self, endpoint: Endpoint) -> None:
        assert endpoint in self.table
        self.load += 1
        assert self.load == self.view.in_flight

    def ended(self, endpoint: Endpoint) -> None:
        assert endpoint in self.table
        self.load -= 1
        assert self.load == self.view.in_flight


def fields(exchange: Routed) -> Mapping[str, str]:
    return dict(exchange.request.headers)


def around(inner: st.SearchStrategy[Policy]) -> st.SearchStrategy[Policy]:
    """What can be made of an inner policy."""
    enough = st.sampled_from([0.0, 0.4, 0.7, 1.0])
    return st.one_of(
        st.builds(Priority, inner, enough=enough),
        st.builds(Locality, st.sampled_from(["x", "y", "nowhere"]), inner, enough=enough),
        st.builds(ByLabels, st.just(fields), st.just(["v", "w"]), inner, subsets_max=st.sampled_from([1, 256])),
        st.builds(DeterministicSubset, st.integers(0, 3), st.integers(1, 4), inner, enough=enough),
    )


LEAVES: st.SearchStrategy[Policy] = st.one_of(
    st.builds(RoundRobin),
    st.builds(Draw),
    st.builds(LeastRequests),
    st.builds(PeakEwma),
    st.builds(Ketama, st.just(by_target()), bound=st.sampled_from([None, 1.25])),
    st.builds(Maglev, st.just(by_target()), size=st.just(13)),
)
NESTS = around(st.recursive(LEAVES, around, max_leaves=3))
LABELS = st.dictionaries(st.sampled_from("vw"), st.sampled_from("12"))


@st.composite
def members(draw: st.DrawFn) -> list[Endpoint]:
    """A few endpoints of all sorts."""
    made = endpoints(draw(st.integers(1, 7)))
    for endpoint in made:
        endpoint.weight = draw(st.sampled_from([1, 1, 2, 5]))
        endpoint.priority = draw(st.integers(0, 2))
        endpoint.zone = draw(st.sampled_from(["", "x", "y"]))
        endpoint.labels = draw(LABELS)
        if draw(st.booleans()):
            endpoint.limits = PeerLimits(requests_max=2)
    return made


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "begin", "end", "close", "reopen", "place", "abandon", "move"]),
        st.integers(0, 127),
        LABELS,
    ),
    max_size=25,
)


class Play:
    """A cluster with a policy, and what happens to it."""

    def __init__(self, made: Sequence[Endpoint], policy: Policy, seed: int) -> None:
        self.all = [each.fresh() for each in made]
        self.view = FakeView(self.all, policy, seed=seed)
        self.log: list[str] = []

    def step(self, step: str, number: int, labels: Mapping[str, str]) -> None:
        view = self.view
        endpoint = self.all[number % len(self.all)]
        some = [each for at, each in enumerate(self.all) if number >> at & 1]
        if step == "begin":
            chosen = self.choose(labels, tried=[endpoint.name] if number & 1 else [])
            if chosen is not None:
                view.begin(chosen)
                view.policy.answered(chosen, number / 100)
        elif step == "end" and endpoint.in_flight and endpoint in view.members:
            view.end(endpoint)
        elif step == "close" and endpoint in view.members:
            view.close(endpoint)
        elif step == "reopen" and endpoint in view.members:
            view.reopen(endpoint)
        elif step == "place":
            view.place(some)
        elif step == "abandon":
            arranging = view.policy.arrange(some)
            slices = 0
            for _ in islice(arranging, number % 10):
                view.policy.changed()
                self.choose(labels, [])
                slices += 1
            if slices < number % 10:
                view.place(some)  # it has been run to its end
        elif step == "move":
            endpoint.priority = number % 3
            endpoint.zone = "xy"[number % 2]
            endpoint.labels = labels
            view.place(view.members)

    def choose(self, labels: Mapping[str, str], tried: list[str]) -> Endpoint | None:
        """Open and untried; and there is one where there can be one."""
        chosen = self.view.choose(Asks(headers=labels, tried=tried))
        left = [each for each in self.view.members if each.open and each.name not in tried]
        assert (chosen is not None) == bool(left)
        assert chosen is None or chosen in left
        self.log.append(chosen.name if chosen is not None else "-")
        return chosen


@given(members(), NESTS, STEPS, st.integers(0, 3))
def test_any_nest_finds_whoever_is_open_and_untried_and_equal_seeds_choose_equally(
    made: list[Endpoint], policy: Policy, steps: list[tuple[str, int, dict[str, str]]], seed: int
) -> None:
    one, other = Play(made, policy, seed), Play(made, policy, seed)
    for step in steps:
        one.step(*step)
        other.step(*step)
        for labels in ({}, step[2]):
            one.choose(labels, [])
            other.choose(labels, [])
    assert one.log == other.log


@given(members(), NESTS, LABELS, st.integers(0, 3))
def test_any_nest_tries_each_endpoint_once(
    made: list[Endpoint], policy: Policy, labels: dict[str, str], seed: int
) -> None:
    play = Play(made, policy, seed)
    tried: list[str] = []
    while (chosen := play.choose(labels, tried)) is not None:
        tried.append(chosen.name)
    assert sorted(tried) == sorted(each.name for each in made)


def test_priority_of_localities() -> None:
    made = endpoints(6)
    for endpoint, (priority, zone) in zip(
        made, [(1, "eu"), (0, "us"), (0, "eu"), (1, "us"), (0, "eu"), (1, "eu")], strict=True
    ):
        endpoint.priority, endpoint.zone = priority, zone
    view = FakeView(made, Priority(Locality("eu", RoundRobin())))
    order: list[str] = []
    while (chosen := view.choose(Asks(tried=order))) is not None:
        order.append(chosen.name)
    assert order == ["a2", "a4", "a1", "a0", "a5", "a3"]
    inner = view.policy.sections[0].policy  # type: ignore[attr-defined]
    assert isinstance(inner, Locality)
    assert all(isinstance(each.policy, RoundRobin) for each in inner.sections.values())
    assert isinstance(view.policy, Sectioned)


def test_what_is_told_reaches_the_innermost() -> None:
    made = endpoints(2)
    made[0].labels = {"v": "1"}
    view = FakeView(made, ByLabels(fields, ["v"], Priority(Draw())))
    view.begin(made[0])
    view.begin(made[1])
    view.end(made[1])
    loads = [section.policy.sections[0].policy.load for section in view.policy.sections.values()]  # type: ignore[attr-defined]
    assert loads == [1, 1]


def test_a_real_cluster_takes_a_nest_and_changes_at_once() -> None:
    def named(*names: str) -> list[Endpoint]:
        return [
            Endpoint("http://" + name, zone="eu" if "eu" in name else "us", priority=int("spare" in name))
            for name in names
        ]

    cluster = Cluster(*named("us1", "eu1", "spare1"), policy=Priority(Locality("eu", LeastRequests()), enough=0.5))
    eu1 = cluster.choose(Asks())
    assert eu1.name == "eu1:80"
    cluster.begin(eu1)
    cluster.set_service("eu1:80", "drain")
    assert cluster.choose(Asks()).name == "us1:80"
    cluster.update(named("eu2", "spare1", "us1"))
    assert cluster.choose(Asks()).name == "eu2:80"
    cluster.end(eu1, "", 200, 0.1)  # it has left
    cluster.set_weight("eu2:80", 0)
    assert {cluster.choose(Asks(tried=tried)).name for tried in ([], ["us1:80"])} == {"us1:80", "spare1:80"}
    cluster.update(named("spare1"))
    assert cluster.choose(Asks()).name == "spare1:80"
