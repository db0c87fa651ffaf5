"""The sliding window against a list of all that happened."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from coulee.lb.window import SLOTS, Window

PAUSES = st.one_of(
    st.just(0.0),
    st.integers(0, 200).map(lambda eighths: eighths / 8),
    st.floats(0, 30, allow_nan=False),
    st.floats(0, 1e9, allow_nan=False),
)


def counts(window: Window) -> list[int]:
    return list(window.counts)


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=60), st.integers(0, 10**6))
@example([(8, True), (80, False)], 0)  # at the moment when a slot begins
@example([(8, True), (8, True), (80, False)], 0)
def test_it_counts_the_present_slot_and_the_ten_before_it(steps: Sequence[tuple[int, bool]], start: int) -> None:
    # One slot is one second, and all times are eighths of one: nothing is rounded.
    window = Window(10.0)
    now = start / 8
    seen: list[float] = []
    for pause, happens in steps:
        now += pause / 8
        if happens:
            window.add(now)
            seen.append(now)
        else:
            window.turn(now)
        assert window.count == sum(1 for at in seen if int(at) >= int(now) - SLOTS)


@given(st.floats(0.001, 1000), st.lists(PAUSES, min_size=1, max_size=60))
@example(10.0, [10.0])
def test_it_counts_all_of_the_window_and_nothing_older_than_a_tenth_more(
    window_s: float, pauses: Sequence[float]
) -> None:
    window = Window(window_s)
    now = 0.0
    seen: list[float] = []
    for pause in pauses:
        now += pause
        window.add(now)
        seen.append(now)
        rounding = now * 1e-12
        assert window.count >= sum(1 for at in seen if at > now - window_s + rounding)
        assert window.count <= sum(1 for at in seen if at > now - 1.1 * window_s - rounding)


def test_time_that_passes_is_forgotten_whatever_its_length() -> None:
    # A step for each slot that passes would take years.
    window = Window(10.0)
    for now in (5.0, 1e9, 1e15):
        window.add(now)
        assert window.count == 1
        assert sum(counts(window)) == 1
    window.turn(1e18)
    assert window.count == 0
    assert counts(window) == [0] * (SLOTS + 1)


def test_memory_is_the_same_after_anything() -> None:
    window = Window(1.0)
    for tick in range(10_000):
        window.add(tick / 64)
    assert len(counts(window)) == SLOTS + 1


def test_what_is_cleared_has_never_happened() -> None:
    window = Window(10.0)
    for now in (3.0, 4.0, 9.5):
        window.add(now)
    window.clear()
    assert window.count == 0
    window.add(9.6)
    window.turn(19.5)
    assert window.count == 1
    window.turn(20.0)
    assert window.count == 0
