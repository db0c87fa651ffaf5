"""Priority groups: who gets what share by the written table, and that nobody is left without a choice."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.peer import PeerLimits
from coulee.lb.endpoint import Endpoint
from coulee.lb.groups import ENOUGH, Levels, Priority, shares_of
from coulee.lb.sections import SLICE
from coulee.lb.turns import RoundRobin
from tests.lb.stub import Asks, FakeView, endpoints

ENVOY = 1 / 1.4


def levels(*counts: int, weight: int = 1) -> list[Endpoint]:
    """So many endpoints of priority 0, 1, ..."""
    made = endpoints(sum(counts), [weight] * sum(counts))
    priorities = [priority for priority, count in enumerate(counts) for _ in range(count)]
    for endpoint, priority in zip(made, priorities, strict=True):
        endpoint.priority = priority
    return made


def part_closed(view: FakeView, *usable: int) -> None:
    """In each level, so many stay usable."""
    for level, count in enumerate(usable):
        for endpoint in [each for each in view.members if each.priority == level][count:]:
            view.close(endpoint)


def shares_seen(view: FakeView, choices: int = 10_000) -> Counter[int]:
    """How many of so many choices go to each level."""
    seen: Counter[int] = Counter()
    for _ in range(choices):
        chosen = view.choose()
        assert chosen is not None
        seen[chosen.priority] += 1
    return seen


def chi_square(seen: Counter[int], shares: list[float]) -> float:
    """How far from the expected shares; for one to three levels, beyond 16 is one chance in a thousand or less."""
    whole = sum(seen.values())
    assert all(seen[level] == 0 for level, share in enumerate(shares) if share == 0)
    return sum((seen[level] - share * whole) ** 2 / (share * whole) for level, share in enumerate(shares) if share)


# ------------------------------------------------------------------------------------------------------------- table


@pytest.mark.parametrize(
    ("usable", "shares"),
    [
        # the tables of Envoy's manual, in percent, without their rounding down
        ((100, 100), (100, 0)),
        ((72, 100), (100, 0)),
        ((71, 100), (99.4, 0.6)),
        ((50, 100), (70, 30)),
        ((25, 100), (35, 65)),
        ((0, 100), (0, 100)),
        ((72, 72), (100, 0)),
        ((71, 71), (99.4, 0.6)),
        ((50, 50), (70, 30)),
        ((25, 25), (50, 50)),
        ((100, 100, 100), (100, 0, 0)),
        ((72, 72, 100), (100, 0, 0)),
        ((50, 50, 100), (70, 30, 0)),
        ((25, 100, 100), (35, 65, 0)),
        ((25, 25, 100), (35, 35, 30)),
        ((25, 25, 20), (100 * 25 / 70, 100 * 25 / 70, 100 * 20 / 70)),
    ],
)
def test_shares_are_those_of_envoy(usable: tuple[float, ...], shares: tuple[float, ...]) -> None:
    healths = [min(1.0, each / 100 / ENVOY) for each in usable]
    assert shares_of(healths) == pytest.approx([each / 100 for each in shares])


@given(st.lists(st.floats(0, 1), max_size=6))
def test_shares_add_up_and_are_taken_in_order(healths: list[float]) -> None:
    shares = shares_of(healths)
    whole = sum(healths)
    assert len(shares) == len(healths)
    assert all(0 <= share <= 1 for share in shares)
    assert sum(shares) == pytest.approx(1.0 if whole else 0.0)
    assert all(share == 0 for share, health in zip(shares, healths, strict=True) if health == 0)
    for at, (share, health) in enumerate(zip(shares, healths, strict=True)):
        if whole >= 1:
            before = sum(healths[:at])
            assert share == pytest.approx(max(0.0, min(health, 1 - before)), abs=1e-9)
        elif whole > 1e-300:
            assert share == pytest.approx(health / whole)


@pytest.mark.parametrize(
    ("usable", "shares"),
    [
        ((100, 100), [1.0, 0.0]),
        ((70, 100), [1.0, 0.0]),
        ((70, 0), [1.0, 0.0]),
        ((35, 100), [0.5, 0.5]),
        ((7, 100), [0.1, 0.9]),
        ((0, 1), [0.0, 1.0]),
        ((35, 7), [5 / 6, 1 / 6]),
    ],
)
def test_choices_follow_the_table_in_the_module(usable: tuple[int, int], shares: list[float]) -> None:
    view = FakeView(levels(100, 100), Priority(), seed=1)
    part_closed(view, *usable)
    assert chi_square(shares_seen(view), shares) < 16


def test_choices_follow_the_table_of_three_levels_with_another_factor() -> None:
    view = FakeView(levels(4, 4, 5), Priority(enough=ENVOY), seed=3)
    part_closed(view, 1, 1, 1)
    assert chi_square(shares_seen(view), [25 / 70, 25 / 70, 20 / 70]) < 16


def test_weight_counts_and_not_heads() -> None:
    members = levels(3, 1)
    members[0].weight = 8
    view = FakeView(members, Priority(), seed=2)
    view.close(members[0])
    assert chi_square(shares_seen(view), [0.2 / ENOUGH, 1 - 0.2 / ENOUGH]) < 16
    view.reopen(members[0])
    view.close(members[1])
    view.close(members[2])
    assert shares_seen(view, 100) == {0: 100}


def test_a_slow_start_takes_nothing_from_a_level() -> None:
    view = FakeView(levels(2, 1), Priority())
    for endpoint in view.members[:2]:
        endpoint.effective_weight = 0.1
    view.policy.changed()
    assert shares_seen(view, 100) == {0: 100}


def test_while_all_goes_to_one_level_no_chance_is_drawn() -> None:
    view = FakeView(levels(10, 10), Priority())
    before = view.rng.getstate()
    part_closed(view, 7)
    shares_seen(view, 10)
    assert view.rng.getstate() == before
    part_closed(view, 6)
    shares_seen(view, 1)
    assert view.rng.getstate() != before


def test_a_rounding_error_is_no_share() -> None:
    view = FakeView(levels(9, 9, 1), Priority(enough=1))
    part_closed(view, 8, 1)
    assert 1 - 8 / 9 - 1 / 9 > 0
    assert len(view.policy._loaded) == 2  # type: ignore[attr-defined]


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=4))
def test_a_level_has_a_share_while_those_before_it_have_not_all(counts: list[tuple[int, int]]) -> None:
    view = FakeView(levels(*(count for count, _ in counts)), Priority())
    part_closed(view, *(usable for _, usable in counts))
    whole = 0.0
    for level, section in sorted(view.policy.sections.items()):  # type: ignore[attr-defined]
        loaded = section in view.policy._loaded  # type: ignore[attr-defined]
        assert loaded == (whole < 1 - 1e-9 and bool(section.usable)), level
        whole += min(1.0, len(section.usable) / len(section.members) / ENOUGH)


# ------------------------------------------------------------------------------------------------------------ levels


def test_levels_are_what_endpoints_say_in_any_order_and_with_gaps() -> None:
    members = endpoints(4)
    for endpoint, priority in zip(members, (7, 2, 7, 40), strict=True):
        endpoint.priority = priority
    view = FakeView(members, Priority())
    assert view.choose() is members[1]
    view.close(members[1])
    assert [view.choose() for _ in range(4)] == [members[0], members[2]] * 2
    view.close(members[0])
    view.close(members[2])
    assert view.choose() is members[3]


def test_few_endpoints_are_divided_at_once_and_many_in_slices() -> None:
    members = levels(SLICE, SLICE)
    view = FakeView(members[:100], Priority())
    assert sum(1 for _ in view.policy.arrange(members[:100])) == 0
    assert sum(1 for _ in view.policy.arrange(members)) == 2 + 1


def test_a_level_that_was_tried_out_hands_over_to_the_next() -> None:
    view = FakeView(levels(2, 1, 1), Priority())
    a0, a1, a2, a3 = view.members
    assert view.choose(Asks(tried=["a0"])) is a1
    assert view.choose(Asks(tried=["a0", "a1"])) is a2
    assert view.choose(Asks(tried=["a0", "a1", "a2"])) is a3
    assert view.choose(Asks(tried=["a0", "a1", "a2", "a3"])) is None


def test_a_level_that_is_full_hands_over_and_the_first_takes_what_a_later_one_cannot() -> None:
    members = levels(10, 1)
    for endpoint in members:
        endpoint.limits = PeerLimits(requests_max=1)
    view = FakeView(members, Priority(), seed=5)
    for endpoint in members[:10]:
        view.begin(endpoint)
    assert view.choose() is members[10]
    for endpoint in members[:10]:
        view.end(endpoint)
    part_closed(view, 1)
    view.begin(members[10])
    assert {view.choose() for _ in range(50)} == {members[0]}
    view.begin(members[0])
    assert view.choose() is None


def test_with_enough_at_nothing_the_next_level_is_a_mere_backup() -> None:
    view = FakeView(levels(100, 1), Priority(enough=0))
    part_closed(view, 1)
    assert shares_seen(view, 100) == {0: 100}
    part_closed(view, 0)
    assert shares_seen(view, 100) == {1: 100}


def test_with_enough_at_one_each_loss_spills_over() -> None:
    view = FakeView(levels(10, 10), Priority(enough=1), seed=4)
    part_closed(view, 9)
    assert chi_square(shares_seen(view), [0.9, 0.1]) < 16


def test_where_the_cluster_fails_open_the_first_level_takes_all() -> None:
    view = FakeView(levels(2, 2), Priority())
    part_closed(view, 0, 0)
    assert view.choose() is None
    for endpoint in view.members:
        endpoint.open = endpoint.usable = True
    view.usable = list(view.members)
    view.policy.changed()
    assert shares_seen(view, 100) == {0: 100}


def test_endpoints_of_no_weight_that_are_usable_all_the_same_are_better_than_none() -> None:
    members = levels(1, 1, weight=0)
    view = FakeView(members, Priority())
    assert view.choose() is None
    for endpoint in members:
        endpoint.open = endpoint.usable = True
    view.usable = list(members)
    view.policy.changed()
    assert view.choose() is members[0]
    assert view.choose(Asks(tried=["a0"])) is members[1]


def test_each_level_has_a_policy_of_its_own() -> None:
    view = FakeView(levels(2, 2), Priority(RoundRobin()))
    turns = [view.choose(Asks(tried=tried)) for tried in ([], ["a0", "a1"], [], ["a0", "a1"])]
    assert turns == [view.members[0], view.members[2], view.members[1], view.members[3]]


def test_the_settings_are_kept() -> None:
    inner = RoundRobin()
    policy = Priority(inner, enough=0.5)
    assert policy.inner is inner
    assert policy.fresh().enough == 0.5
    assert Priority().enough == ENOUGH == 0.7


@pytest.mark.parametrize("enough", [-0.1, 1.1, float("nan")])
def test_an_impossible_enough_is_refused(enough: float) -> None:
    with pytest.raises(ValueError, match=rf"^enough is {enough}; it must be from 0 \(any one is enough\) to 1"):
        Priority(enough=enough)


# -------------------------------------------------------------------------------------------------------------- laws


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=10),
    st.integers(0, 1023),
    st.integers(0, 1023),
    st.floats(0, 1),
    st.integers(0, 9),
)
def test_whoever_is_open_and_untried_is_found_and_equal_seeds_choose_equally(
    priorities: list[int], closed: int, tried: int, enough: float, seed: int
) -> None:
    def play() -> list[str | None]:
        members = endpoints(len(priorities))
        for endpoint, priority in zip(members, priorities, strict=True):
            endpoint.priority = priority
        view = FakeView(members, Priority(enough=enough), seed=seed)
        for at, endpoint in enumerate(members):
            if closed >> at & 1:
                view.close(endpoint)
        asks = Asks(tried=[endpoint.name for at, endpoint in enumerate(members) if tried >> at & 1])
        left = [endpoint for endpoint in members if endpoint.open and endpoint.name not in asks.tried]
        names: list[str | None] = []
        for _ in range(5):
            chosen = view.choose(asks)
            assert (chosen is None) == (not left)
            names.append(chosen.name if chosen is not None else None)
        return names

    assert play() == play()


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 3))
def test_nobody_of_a_level_that_has_a_share_starves(preferred: int, usable: int, seed: int) -> None:
    view = FakeView(levels(preferred, 3), Priority(), seed=seed)
    part_closed(view, min(preferred, usable))
    seen = {view.choose() for _ in range(40 * preferred)}
    assert {each for each in view.usable if each.priority == 0} <= seen


def test_levels_of_nothing_in_particular_must_be_said() -> None:
    with pytest.raises(NotImplementedError):
        FakeView(endpoints(1), Levels())
