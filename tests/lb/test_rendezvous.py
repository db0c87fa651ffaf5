"""The draw. (The laws of all policies that hash are in test_hashing.py.)"""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from coulee.lb import rendezvous
from coulee.lb.endpoint import Endpoint
from coulee.lb.keys import by_target
from coulee.lb.rendezvous import Rendezvous
from tests.lb.stub import Asks, FakeView, endpoints

ASKS = [Asks(f"/item/{number}") for number in range(4000)]


def shares(view: FakeView) -> list[float]:
    counts = Counter(view.choose(ask) for ask in ASKS)
    return [counts[endpoint] / len(ASKS) for endpoint in view.members]


@pytest.mark.parametrize(
    "weights", [[1, 1, 1], [2, 2, 2, 2, 2], [1, 2], [1, 2, 3, 4], [1, 9], [100, 300, 600], [7]], ids=str
)
def test_weights_are_met(weights: list[int]) -> None:
    for share, weight in zip(shares(FakeView(endpoints(len(weights), weights), Rendezvous(by_target()))), weights,
                             strict=True):  # fmt: skip
        assert abs(share - weight / sum(weights)) < 0.025


def test_each_pair_is_as_good_as_a_coin() -> None:
    """Whoever comes second does so by chance too: a poor mixture of key and endpoint would show here."""
    members = endpoints(4)
    view = FakeView(members, Rendezvous(by_target()))
    pairs = Counter[tuple[Endpoint | None, Endpoint | None]]()
    for ask in ASKS:
        first = view.choose(ask)
        assert first is not None
        pairs[first, view.choose(Asks(ask.request.target, tried=[first.name]))] += 1
    assert len(pairs) == 12
    assert all(abs(count / len(ASKS) - 1 / 12) < 0.02 for count in pairs.values())


def test_one_that_gains_weight_only_gains_keys() -> None:
    members = endpoints(4)
    view = FakeView(members, Rendezvous(by_target()))
    before = [view.choose(ask) for ask in ASKS]
    share = before.count(members[1])
    for weight in (1.5, 3.0):
        members[1].effective_weight = weight
        view.policy.changed()
        after = [view.choose(ask) for ask in ASKS]
        assert all(now is was or now is members[1] for was, now in zip(before, after, strict=True))
        assert after.count(members[1]) > share * 1.2
        before, share = after, after.count(members[1])


def test_equal_weights_choose_alike_whatever_they_are() -> None:
    ones, fives = (FakeView(endpoints(5, [weight] * 5), Rendezvous(by_target())) for weight in (1, 5))
    mixed = FakeView([*ones.members, Endpoint(("10.9.9.9", 80), weight=3)], Rendezvous(by_target()))
    mixed.close(mixed.members[5])
    for ask in ASKS[:500]:
        places = [view.choose(ask) for view in (ones, fives)]
        assert places[0] is not None
        assert places[1] is not None
        assert places[0].index == places[1].index
        assert mixed.choose(ask) is places[0]


def test_a_slow_start_from_nothing() -> None:
    members = endpoints(2)
    view = FakeView(members, Rendezvous(by_target()))
    members[0].effective_weight = 0.0
    view.policy.changed()
    assert shares(view) == [0.0, 1.0]
    assert view.choose(Asks(tried=["a1"])) is members[0]


@pytest.mark.parametrize(
    ("weights", "places"),
    [([1, 1, 1, 1], "003100201221032231232310332200"), ([1, 2, 1, 1], "003110211211032231132310112200")],
)
def test_the_choice_is_the_same_in_every_release(weights: list[int], places: str) -> None:
    view = FakeView(endpoints(4, weights), Rendezvous(by_target()))
    assert "".join(str(chosen.index) for n in range(30) if (chosen := view.choose(Asks(str(n))))) == places


def test_nobody_is_left() -> None:
    members = endpoints(2)
    view = FakeView(members, Rendezvous(by_target()))
    view.close(members[0])
    assert view.choose(Asks(tried=["a1"])) is None
    view.close(members[1])
    assert view.choose() is None


def test_the_lowest_number_is_a_number_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "number_of", lambda data, purpose: 0)
    view = FakeView(endpoints(3, [1, 3, 2]), Rendezvous(by_target()))
    assert view.choose() is view.members[1], "all draw it, and then weight decides"


def test_it_is_arranged_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "SLICE_ENDPOINTS", 10)
    members = endpoints(35)
    view = FakeView(members[:5], Rendezvous(by_target()))
    before = shares(view)
    assert len(list(islice(view.policy.arrange(members), 2))) == 2
    assert shares(view) == before
    assert sum(1 for _ in view.policy.arrange(members)) == 3
    assert len({view.choose(ask) for ask in ASKS}) == 35
