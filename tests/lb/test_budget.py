"""The budget of retries: that it is never exceeded, in any stretch of time, and never kept back either."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coulee.lb.budget import Budget, RetryBudget

SETTINGS = st.builds(
    RetryBudget,
    share=st.one_of(st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]), st.floats(0, 2)),
    floor_per_s=st.one_of(st.just(0.0), st.floats(0, 2)),
    window_s=st.one_of(st.just(10.0), st.floats(0.01, 100)),
)
PAUSES = st.one_of(st.just(0.0), st.floats(0, 3), st.floats(0, 40), st.floats(0, 1e6))
STEPS = st.lists(st.tuples(PAUSES, st.integers(0, 12), st.integers(0, 6)), max_size=40)
"""A pause, then so many requests, then so many that want one more attempt."""


def play(settings: RetryBudget, steps: Sequence[tuple[float, int, int]]) -> tuple[list[float], list[float]]:
    """The times of the requests, and of what was granted."""
    budget = Budget(settings)
    requests: list[float] = []
    grants: list[float] = []
    now = 0.0
    for pause, asked, wanted in steps:
        now += pause
        for _ in range(asked):
            budget.request(now)
            requests.append(now)
        grants += [now for _ in range(wanted) if budget.grant(now)]
    assert budget.granted == len(grants)
    assert budget.granted + budget.refused == sum(wanted for _, _, wanted in steps)
    return requests, grants


def within(times: Sequence[float], begin: float, end: float) -> int:
    return sum(1 for at in times if begin <= at <= end)


@given(SETTINGS, STEPS)
@example(RetryBudget(share=0, floor_per_s=0.1), [(9.99, 0, 1), (0.01, 0, 1), (9.99, 0, 1), (0.02, 0, 1)])
@example(RetryBudget(share=0.2, floor_per_s=0), [(0.99, 5, 1), (10.0, 4, 1), (0.1, 5, 1)])
def test_in_any_window_of_time_it_is_not_exceeded(
    settings: RetryBudget, steps: Sequence[tuple[float, int, int]]
) -> None:
    # A stretch that holds most ends with something granted.
    requests, grants = play(settings, steps)
    floor = settings.floor_per_s * settings.window_s
    for end in grants:
        rounding = end * 1e-12
        granted = within(grants, end - settings.window_s + rounding, end)
        asked = within(requests, end - 1.1 * settings.window_s - rounding, end)
        assert granted <= settings.share * asked + floor + 1e-9


@given(SETTINGS, STEPS)
def test_in_any_longer_time_it_is_not_exceeded(settings: RetryBudget, steps: Sequence[tuple[float, int, int]]) -> None:
    requests, grants = play(settings, steps)
    for begin in grants[::5]:
        for end in grants:
            if end >= begin:
                asked = within(requests, begin - 1.1 * settings.window_s - end * 1e-12, end)
                seconds = end - begin + settings.window_s
                assert within(grants, begin, end) <= settings.share * asked + settings.floor_per_s * seconds + 1e-6


@given(
    st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0]),
    st.sampled_from([0.0, 0.125, 0.5]),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9), st.integers(0, 4)), max_size=30),
)
def test_it_grants_just_what_there_is_room_for(
    share: float, floor_per_s: float, steps: Sequence[tuple[int, int, int]]
) -> None:
    # A slot is one second, times are eighths, shares are too: nothing is rounded.
    settings = RetryBudget(share=share, floor_per_s=floor_per_s)
    budget = Budget(settings)
    requests: list[int] = []
    grants: list[int] = []
    now = 0.0
    for pause, asked, wanted in steps:
        now += pause / 8
        slot = int(now)
        for _ in range(asked):
            budget.request(now)
            requests.append(slot)
        for _ in range(wanted):
            counted = sum(1 for at in grants if at >= slot - 10)
            most = share * sum(1 for at in requests if at >= slot - 10) + floor_per_s * 10
            assert budget.left(now) == most - counted
            granted = budget.grant(now)
            assert granted == (counted + 1 <= most)
            grants += [slot] * granted
            assert budget.spent == counted + granted


def test_a_fifth_of_the_requests_and_ten_a_second() -> None:
    budget = Budget(RetryBudget())
    for _ in range(1000):
        budget.request(1.0)
    assert sum(budget.grant(1.0) for _ in range(1000)) == 300
    assert (budget.spent, budget.granted, budget.refused) == (300, 300, 700)


def test_where_everything_fails_the_load_is_bounded() -> None:
    # A hundred requests a second for ten minutes, each of which is tried again as often as it is granted.
    budget = Budget(RetryBudget(share=0.2, floor_per_s=0.0))
    for tick in range(60_000):
        budget.request(tick / 100)
        for _ in range(3):
            budget.grant(tick / 100)
    assert 0.19 < budget.granted / 60_000 <= 0.2


def test_the_floor_holds_without_any_request_and_is_not_saved_up() -> None:
    budget = Budget(RetryBudget(share=0.2, floor_per_s=0.5))
    for now in (0.0, 11.0, 1000.0, 1e12):
        assert [budget.grant(now) for _ in range(6)] == [True] * 5 + [False]


def test_no_share_and_no_floor_is_no_retry() -> None:
    budget = Budget(RetryBudget(share=0, floor_per_s=0))
    for tick in range(1000):
        budget.request(tick / 10)
        assert not budget.grant(tick / 10)
    assert (budget.granted, budget.refused, budget.spent) == (0, 1000, 0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("share", -0.1, "share is -0.1; it must be 0 or more, such as 0.2 for 20 %"),
        ("share", math.nan, "share is nan; it must be 0 or more, such as 0.2 for 20 %"),
        ("floor_per_s", -1, "floor_per_s is -1; it must be 0 or more"),
        ("window_s", 0, "window_s is 0; it must be above 0"),
        ("window_s", math.nan, "window_s is nan; it must be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        RetryBudget(**{name: value})
    assert str(caught.value) == message
