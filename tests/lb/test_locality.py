"""Locality: the own zone first, and how much of its load goes abroad."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.peer import Routed
from coulee.lb.endpoint import Endpoint
from coulee.lb.groups import ENOUGH
from coulee.lb.locality import Locality
from coulee.lb.policy import Policy
from coulee.lb.turns import RoundRobin
from tests.lb.stub import Asks, FakeView, endpoints


def zoned(zones: str, weights: list[int] | None = None) -> list[Endpoint]:
    """`a0`, `a1`, ... in these zones; `-` is none."""
    made = endpoints(len(zones.split()), weights)
    for endpoint, zone in zip(made, zones.split(), strict=True):
        endpoint.zone = zone.strip("-")
    return made


def zones_seen(view: FakeView, choices: int = 10_000) -> dict[str, float]:
    """The share of choices that goes to each zone."""
    seen = Counter(chosen.zone for chosen in (view.choose() for _ in range(choices)) if chosen is not None)
    return {zone: count / choices for zone, count in sorted(seen.items())}


def test_everything_stays_at_home_while_all_are_usable() -> None:
    view = FakeView(zoned("us eu us eu -"), Locality("eu"))
    assert [view.choose() for _ in range(4)] == [view.members[1], view.members[3]] * 2


@pytest.mark.parametrize(("usable", "at_home"), [(10, 1.0), (7, 1.0), (6, 6 / 7), (5, 5 / 7), (1, 1 / 7), (0, 0.0)])
def test_the_rest_goes_abroad_below_enough(usable: int, at_home: float) -> None:
    view = FakeView(zoned("eu " * 10 + "us " * 10), Locality("eu"), seed=1)
    for endpoint in view.members[usable:10]:
        view.close(endpoint)
    # 10,000 draws: one in a thousand times they are further away than 3.3 / sqrt(10,000) / 2
    assert zones_seen(view).get("eu", 0.0) == pytest.approx(at_home, abs=0.0165)
    if at_home in (0.0, 1.0):
        assert zones_seen(view).get("eu", 0.0) == at_home


class ByWeight(Policy):
    """A weighted draw."""

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        left = [each for each in self.view.usable if each.open and each.name not in tried]
        return self.view.rng.choices(left, [each.weight for each in left])[0] if left else None


def test_all_other_zones_are_one_by_their_weights() -> None:
    view = FakeView(zoned("eu us us ap -", [1, 1, 1, 2, 4]), Locality("eu", ByWeight()))
    view.close(view.members[0])
    assert zones_seen(view) == pytest.approx({"": 0.5, "ap": 0.25, "us": 0.25}, abs=0.0165)


def test_others_that_are_half_dead_themselves_get_no_more_than_they_bear() -> None:
    view = FakeView(zoned("eu " * 10 + "us " * 10), Locality("eu"), seed=1)
    for endpoint in view.members[1:10] + view.members[11:]:
        view.close(endpoint)
    assert zones_seen(view)["eu"] == pytest.approx(0.5, abs=0.0165)


def test_zones_may_be_given_in_the_order_of_their_nearness() -> None:
    view = FakeView(zoned("ap us eu-2 eu-1"), Locality(["eu-1", "eu-2"]))
    ap, us, second, home = view.members
    assert view.choose() is home
    assert view.choose(Asks(tried=[home.name])) is second
    assert {view.choose(Asks(tried=[home.name, second.name])) for _ in range(2)} == {ap, us}


def test_a_zone_without_endpoints_is_served_from_abroad() -> None:
    view = FakeView(zoned("us -"), Locality("eu"))
    assert {view.choose() for _ in range(4)} == set(view.members)


def test_the_settings_are_kept() -> None:
    inner = RoundRobin()
    assert Locality("eu", inner).inner is inner
    assert Locality("eu").enough == ENOUGH
    view = FakeView(zoned("eu eu eu us"), Locality("eu", enough=0.3))
    view.close(view.members[0])
    view.close(view.members[1])
    assert zones_seen(view, 100) == {"eu": 1.0}


@pytest.mark.parametrize("zone", ["", [], ["eu", ""]])
def test_a_zone_without_a_name_is_refused(zone: str | list[str]) -> None:
    with pytest.raises(ValueError, match=r"^zone is empty; give the zone that this proxy runs in, as its endpoints"):
        Locality(zone)


@given(st.lists(st.sampled_from(["eu", "us", "ap", "-"]), min_size=1, max_size=8), st.integers(0, 255), st.integers(0))
def test_whoever_is_open_and_untried_is_found_those_at_home_first(zones: list[str], closed: int, seed: int) -> None:
    view = FakeView(zoned(" ".join(zones)), Locality("eu", enough=0), seed=seed)
    for at, endpoint in enumerate(view.members):
        if closed >> at & 1:
            view.close(endpoint)
    tried: list[str] = []
    left = len(view.usable)
    abroad = False
    while (chosen := view.choose(Asks(tried=tried))) is not None:
        assert not (abroad and chosen.zone == "eu")
        abroad = chosen.zone != "eu"
        tried.append(chosen.name)
    assert len(tried) == left
