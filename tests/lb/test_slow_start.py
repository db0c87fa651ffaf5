"""Slow start: what a weight comes to while an endpoint warms up, and when it changes next."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.lb.slow_start import STEPS_MAX, SlowStart

SETTINGS = st.builds(
    SlowStart,
    duration_s=st.floats(0, 1e6),
    share_min=st.floats(0.001, 1),
    steps=st.integers(1, 50),
    curve=st.floats(0.01, 100),
)
TIMES = st.floats(0, 1e9)
WEIGHTS = st.integers(0, 65535)


def ramp(slow_start: SlowStart, since: float = 0.0, weight: float = 1) -> list[tuple[float, float]]:
    """When the weight changes, and to what: what a cluster sees that arms an alarm for each step."""
    seen = [(since, slow_start.weight(weight, since, since))]
    while (due := slow_start.next_step(since, seen[-1][0])) is not None:
        seen.append((due, slow_start.weight(weight, since, due)))
    return seen


def test_it_is_off_by_default() -> None:
    assert SlowStart().weight(3, since=7.0, now=7.0) == 3
    assert SlowStart().next_step(since=7.0, now=7.0) is None


def test_a_straight_line_in_steps() -> None:
    slow_start = SlowStart(100, share_min=0.1, steps=5)
    assert ramp(slow_start, since=1000.0, weight=10) == [
        (1000.0, 1.0),
        (1020.0, 2.0),
        (1040.0, 4.0),
        (1060.0, pytest.approx(6.0)),
        (1080.0, 8.0),
        (1100.0, 10.0),
    ]


def test_between_two_steps_nothing_changes() -> None:
    slow_start = SlowStart(100, steps=5)
    assert slow_start.weight(10, 0.0, 39.999) == 2.0
    assert slow_start.weight(10, 0.0, 40.0) == 4.0
    assert slow_start.next_step(0.0, 39.999) == 40.0
    assert slow_start.next_step(0.0, 40.0) == 60.0


def test_the_curve_is_envoys_aggression() -> None:
    assert [share for _, share in ramp(SlowStart(4, share_min=0.01, steps=4, curve=2.0))] == [
        0.01,
        pytest.approx(0.25**0.5),
        pytest.approx(0.5**0.5),
        pytest.approx(0.75**0.5),
        1.0,
    ]
    assert [share for _, share in ramp(SlowStart(4, share_min=0.01, steps=4, curve=0.5))] == [
        0.01,
        pytest.approx(0.0625),
        pytest.approx(0.25),
        pytest.approx(0.5625),
        1.0,
    ]


def test_a_step_that_changes_nothing_is_none() -> None:
    assert ramp(SlowStart(10, share_min=0.55)) == [
        (0.0, 0.55),
        (6.0, 0.6),
        (7.0, 0.7),
        (8.0, 0.8),
        (9.0, 0.9),
        (10.0, 1.0),
    ]
    assert ramp(SlowStart(10, share_min=1.0)) == [(0.0, 1.0)]
    assert ramp(SlowStart(10, share_min=0.2, steps=1)) == [(0.0, 0.2), (10.0, 1.0)]


@given(SETTINGS, WEIGHTS, TIMES, st.lists(st.floats(0, 2e6), min_size=2, max_size=10))
def test_a_weight_goes_up_only_and_stays_in_its_bounds(
    slow_start: SlowStart, weight: int, since: float, elapsed: list[float]
) -> None:
    weights = [slow_start.weight(weight, since, since + each) for each in sorted(elapsed)]
    assert weights == sorted(weights)
    assert all(weight * slow_start.share_min <= each <= weight for each in weights)
    assert all(each > 0 for each in weights) == (weight > 0)


@given(SETTINGS, WEIGHTS, TIMES)
def test_it_is_the_full_weight_exactly_at_the_end(slow_start: SlowStart, weight: int, since: float) -> None:
    end = since + slow_start.duration_s
    assert slow_start.weight(weight, since, end) == weight
    assert slow_start.next_step(since, end) is None
    if slow_start.steps == 1 and slow_start.share_min < 1 and end > since:
        assert slow_start.next_step(since, math.nextafter(end, 0)) == end


@given(SETTINGS, TIMES)
def test_whoever_wakes_for_each_step_misses_none_and_wakes_for_nothing(slow_start: SlowStart, since: float) -> None:
    steps = ramp(slow_start, since)
    assert len(steps) <= slow_start.steps + 1
    assert steps[-1][1] == 1.0
    for (when, share), (due, later) in pairwise(steps):
        assert when < due
        assert share < later
        assert slow_start.weight(1, since, math.nextafter(due, 0)) == share


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"duration_s": -1}, "duration_s is -1; it must be 0 (off) or a number of seconds"),
        ({"duration_s": math.inf}, "duration_s is inf; it must be 0 (off) or a number of seconds"),
        ({"duration_s": math.nan}, "duration_s is nan; it must be 0 (off) or a number of seconds"),
        ({"share_min": 0}, "share_min is 0; it must be above 0, and 1 at most"),
        ({"share_min": 1.1}, "share_min is 1.1; it must be above 0, and 1 at most"),
        ({"steps": 0}, "steps is 0; it must be from 1 to 1000"),
        ({"steps": STEPS_MAX + 1}, "steps is 1001; it must be from 1 to 1000"),
        ({"curve": 0}, "curve is 0; it must be above 0, and 1 is a straight line"),
        ({"curve": math.inf}, "curve is inf; it must be above 0, and 1 is a straight line"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        SlowStart(**arguments)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_the_bounds_themselves_are_allowed() -> None:
    assert SlowStart(0, share_min=1, steps=STEPS_MAX).weight(2, 0.0, 0.0) == 2
