"""Chance, by weight."""

from __future__ import annotations

from collections import Counter

from coulee.lb.chance import RandomChoice
from tests.lb.stub import Asks, FakeView, endpoints


def test_weights_are_met_and_equal_seeds_choose_alike() -> None:
    members = endpoints(3, [1, 2, 5])
    choices = [[view.choose() for _ in range(4000)] for view in (FakeView(members, RandomChoice()) for _ in range(2))]
    assert choices[0] == choices[1]
    counts = Counter(choices[0])
    for endpoint in members:
        assert abs(counts[endpoint] / 4000 - endpoint.weight / 8) < 0.03


def test_only_what_is_open_and_untried() -> None:
    members = endpoints(3)
    view = FakeView(members, RandomChoice())
    members[0].open = False
    assert {view.choose(Asks(tried=["a1"])) for _ in range(20)} == {members[2]}
    assert view.choose(Asks(tried=["a1", "a2"])) is None


def test_weights_of_nothing_are_equal_to_none() -> None:
    members = endpoints(2)
    view = FakeView(members, RandomChoice())
    for endpoint in members:
        endpoint.effective_weight = 0.0
    assert view.choose() in members
