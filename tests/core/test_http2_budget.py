"""What a peer may do at once, and what of it is forgiven."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.http2_budget import Budget


def test_points_add_up() -> None:
    budget = Budget(200, 20.0)
    assert budget.level(5.0) == 0.0
    for count in range(1, 201):
        assert budget.spend(1, 5.0) == count / 200
    assert budget.level(5.0) == 1.0
    assert budget.spend(100, 5.0) == 1.5  # more than there are


def test_time_forgives() -> None:
    budget = Budget(100, 8.0)
    budget.spend(50, 1.0)
    assert budget.level(3.5) == 0.3
    assert budget.level(2.0) == 0.42  # to look at it changes nothing
    assert budget.spend(10, 2.0) == 0.52
    assert budget.level(8.5) == 0.0
    assert budget.level(1000.0) == 0.0  # nothing is saved up
    assert budget.spend(25, 2000.0) == 0.25
    assert budget.spend(0, 2001.0) == 0.17


def test_nothing_is_forgiven_at_a_rate_of_nothing() -> None:
    budget = Budget(2, 0.0)
    budget.spend(1, 0.0)
    assert budget.spend(1, 1e9) == 1.0


def test_a_clock_may_begin_anywhere() -> None:
    for start in (-1e6, 1e9):
        budget = Budget(10, 1.0)
        assert budget.spend(1, start) == 0.1


@pytest.mark.parametrize(("most", "per_s"), [(0, 1.0), (-1, 1.0), (1, -1.0)])
def test_what_is_no_budget(most: float, per_s: float) -> None:
    with pytest.raises(AssertionError):
        Budget(most, per_s)


SPENT = st.lists(st.tuples(st.sampled_from([0.0, 0.001, 0.05, 1.0, 7.5, 400.0]), st.integers(0, 30)), max_size=60)


@given(SPENT, st.sampled_from([1, 20, 200]), st.sampled_from([0.0, 200 / 60, 20.0]), st.sampled_from([0.0, 1e6]))
def test_who_stays_below_has_not_spent_too_much(
    spent: list[tuple[float, int]], most: int, per_s: float, start: float
) -> None:
    """Over any time: no more than all of it at once, and what was forgiven meanwhile. And who stays within that from
    every moment on was never at more than all of it."""
    budget = Budget(most, per_s)
    now = start
    history: list[tuple[float, int]] = []
    for wait, points in spent:
        now += wait
        assert budget.level(now) == budget.spend(0, now)
        history.append((now, points))
        level = budget.spend(points, now)
        since = 0
        worst = 0.0  # the most that was spent over any time until now, less what was forgiven in it
        for then, count in reversed(history):
            since += count
            worst = max(worst, since - (now - then) * per_s)
        assert level == pytest.approx(worst / most, rel=1e-6, abs=1e-6)


@given(st.lists(st.floats(0, 0.2), max_size=300))
def test_small_steps_are_worth_what_one_large_one_is(steps: list[float]) -> None:
    looked_at, left_alone = Budget(1000, 3.0), Budget(1000, 3.0)
    looked_at.spend(500, 0.0)
    left_alone.spend(500, 0.0)
    now = 0.0
    for step in steps:
        now += step
        looked_at.spend(0, now)
    assert looked_at.level(now) == pytest.approx(left_alone.level(now), abs=1e-9)
