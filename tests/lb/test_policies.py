"""The policies that can be named: each name gives what it says, and one that is none is told which there are."""

from __future__ import annotations

import pytest

from coulee.lb import Cluster
from coulee.lb.ketama import Ketama
from coulee.lb.loads import LeastRequests, PeakEwma, TwoChoices
from coulee.lb.policies import POLICIES, policy_named
from coulee.lb.policy import Policy
from coulee.lb.turns import RandomChoice, RoundRobin
from tests.lb.stub import Asks, FakeView, endpoints

KINDS: dict[str, type[Policy]] = {
    "round-robin": RoundRobin,
    "random": RandomChoice,
    "least-requests": LeastRequests,
    "two-choices": TwoChoices,
    "peak-ewma": PeakEwma,
    "address": Ketama,
    "target": Ketama,
}


def test_each_name_has_its_policy() -> None:
    assert {name: type(policy_named(name)) for name in POLICIES} == KINDS


@pytest.mark.parametrize("name", POLICIES)
def test_whoever_asks_gets_one_of_their_own(name: str) -> None:
    assert policy_named(name) is not policy_named(name)


@pytest.mark.parametrize("name", POLICIES)
def test_a_cluster_takes_the_name_and_chooses(name: str) -> None:
    cluster = Cluster("http://10.0.0.1", "http://10.0.0.2", policy=name)
    assert type(cluster.policy) is KINDS[name]
    assert cluster.choose(Asks()) in cluster.members


@pytest.mark.parametrize(
    ("name", "asked", "alike", "others"),
    [
        (
            "address",
            Asks("/a", client=("10.0.0.9", 1)),
            [Asks("/a", client=("10.0.0.9", 2)), Asks("/b?c", client=("10.0.0.9", 1))],
            [Asks("/a", client=(f"10.0.1.{number}", 1)) for number in range(9)],
        ),
        (
            "target",
            Asks("/a?b", client=("10.0.0.9", 1)),
            [Asks("/a?b", client=("10.0.0.8", 2)), Asks("/a?b", headers={"Host": "b"})],
            [Asks(f"/a?{number}", client=("10.0.0.9", 1)) for number in range(9)],
        ),
    ],
)
def test_those_that_hash_send_who_is_alike_to_one_endpoint_and_others_elsewhere(
    name: str, asked: Asks, alike: list[Asks], others: list[Asks]
) -> None:
    view = FakeView(endpoints(100), policy_named(name))
    chosen = view.choose(asked)
    assert chosen is not None
    assert [view.choose(each) for each in alike] == [chosen] * len(alike)
    assert len({each.name for each in map(view.choose, others) if each is not None} - {chosen.name}) > 4


@pytest.mark.parametrize("name", ["", "round_robin", "Round-Robin", "ketama"])
def test_a_name_that_is_none_is_told_which_there_are(name: str) -> None:
    words = f"there is no policy {name!r}; there are {', '.join(POLICIES)}$"
    with pytest.raises(ValueError, match=words):
        policy_named(name)
    with pytest.raises(ValueError, match=words):
        Cluster("http://10.0.0.1", policy=name)
