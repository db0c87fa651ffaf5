"""Quantiles of latencies against sorted lists of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coulee.lb.latency import BOUNDS, BUCKETS, ERROR_MAX, LONGEST_S, SHORTEST_S, Latency

SHARES = st.one_of(st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]), st.floats(0, 1))
TIMES = st.one_of(
    st.floats(SHORTEST_S, LONGEST_S),
    st.floats(-5, 3).map(lambda exponent: min(max(10**exponent, SHORTEST_S), LONGEST_S)),
    st.sampled_from(BOUNDS[:-1]),
)


def true_quantile(times: Sequence[float], share: float) -> float:
    """The nearest rank: the shortest time that so large a share does not exceed."""
    return sorted(times)[max(1, math.ceil(share * len(times))) - 1]


@given(st.lists(TIMES, min_size=1, max_size=80), SHARES)
@example([SHORTEST_S], 0.5)
@example([LONGEST_S], 0.5)
def test_a_quantile_is_near_the_true_one(times: Sequence[float], share: float) -> None:
    latency = Latency()
    for seconds in times:
        latency.add(seconds)
    assert latency.quantile(share) == pytest.approx(true_quantile(times, share), rel=ERROR_MAX)


def test_the_error_is_what_was_promised() -> None:
    assert ERROR_MAX <= 0.12


@given(st.lists(st.one_of(st.none(), TIMES), max_size=60), SHARES)
def test_it_tells_of_the_present_window_and_the_last_one_alone(steps: Sequence[float | None], share: float) -> None:
    latency = Latency()
    present: list[float] = []
    last: list[float] = []
    for seconds in steps:
        if seconds is None:
            latency.rotate()
            last, present = present, []
        else:
            latency.add(seconds)
            present.append(seconds)
    times = last + present
    assert latency.count == len(times)
    if times:
        assert latency.mean == pytest.approx(sum(times) / len(times))
        assert latency.quantile(share) == pytest.approx(true_quantile(times, share), rel=ERROR_MAX)
    else:
        assert latency.mean == 0.0
        assert latency.quantile(share) == 0.0


@given(st.lists(TIMES, min_size=1, max_size=40), st.lists(SHARES, min_size=2, max_size=5))
def test_a_larger_share_takes_no_less(times: Sequence[float], shares: Sequence[float]) -> None:
    latency = Latency()
    for seconds in times:
        latency.add(seconds)
    quantiles = [latency.quantile(share) for share in sorted(shares)]
    assert quantiles == sorted(quantiles)


@given(st.one_of(st.just(0.0), st.floats(0, SHORTEST_S, exclude_max=True)), st.floats(LONGEST_S * 1.001, 1e300))
def test_what_is_beyond_the_buckets_is_told_as_their_end(short: float, long: float) -> None:
    latency = Latency()
    latency.add(short)
    latency.add(long)
    assert latency.quantile(0.5) == SHORTEST_S
    assert latency.quantile(1.0) == LONGEST_S
    assert latency.mean == pytest.approx((short + long) / 2)


def test_where_nothing_was_seen_there_is_nothing_to_tell() -> None:
    latency = Latency()
    assert (latency.count, latency.mean, latency.quantile(0.99)) == (0, 0.0, 0.0)


def test_all_is_forgotten_after_two_rotations() -> None:
    latency = Latency()
    latency.add(1.0)
    latency.rotate()
    latency.add(0.001)
    assert latency.count == 2
    latency.rotate()
    assert latency.count == 1
    assert latency.mean == 0.001
    latency.rotate()
    assert (latency.count, latency.mean, latency.quantile(1.0)) == (0, 0.0, 0.0)


def test_the_median_of_two_is_the_shorter_one() -> None:
    latency = Latency()
    latency.add(0.001)
    latency.add(0.1)
    assert latency.quantile(0.5) == pytest.approx(0.001, rel=ERROR_MAX)
    assert latency.quantile(0.51) == pytest.approx(0.1, rel=ERROR_MAX)


def test_memory_is_the_same_after_anything() -> None:
    latency = Latency()
    for tick in range(5000):
        latency.add(tick / 7)
        if tick % 100 == 0:
            latency.rotate()
    assert len(latency._present) == len(latency._last) == BUCKETS == 82


@pytest.mark.parametrize("share", [-0.01, 1.01, 99, math.nan])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"^a quantile's share is .*; it must be from 0 to 1, such as 0.99$"):
        Latency().quantile(share)
