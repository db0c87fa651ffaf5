"""What is counted and how it is shown: arrivals, histograms, strips, units, words and bars."""

from __future__ import annotations

from itertools import islice
from math import isclose
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coulee.server.whatif.agenda import Agenda, arrivals_s
from coulee.server.whatif.bars import Bar
from coulee.server.whatif.origins import latencies_s
from coulee.server.whatif.scenario import Happening, Load, Outages
from coulee.server.whatif.tally import COLUMNS, Histogram, Row, Tally
from coulee.server.whatif.units import clock, decades, latency, share, span, ticks, time_ticks
from coulee.server.whatif.words import told, told_outages

# ------------------------------------------------------------------------------------------------ arrivals


def until(end_s: float, load: tuple[Load, ...], rng: Random | None = None) -> list[float]:
    """Arrivals before a time."""
    found: list[float] = []
    for at in arrivals_s(load, rng):
        if at >= end_s:
            break
        found.append(at)
    return found


def test_even_arrivals_are_evenly_spaced() -> None:
    assert list(islice(arrivals_s((Load(0.0, 4.0),), None), 4)) == [0.25, 0.5, 0.75, 1.0]


def test_a_step_of_the_load_takes_over_what_has_added_up() -> None:
    load = (Load(0.0, 1.0), Load(2.5, 2.0), Load(4.0, 0.0), Load(6.0, 1.0))
    assert until(8.0, load) == [1.0, 2.0, 2.75, 3.25, 3.75, 6.5, 7.5]


def test_with_no_load_nobody_comes() -> None:
    assert list(arrivals_s((Load(0.0, 0.0),), None)) == []
    assert list(arrivals_s((Load(0.0, 1.0), Load(2.0, 0.0)), Random(1)))[-1:] <= [2.0]


@given(
    st.lists(st.tuples(st.floats(0.1, 20), st.floats(0, 50)), min_size=1, max_size=6),
    st.booleans(),
    st.integers(0, 99),
)
@settings(deadline=None)
def test_as_many_arrive_as_the_load_adds_up_to(steps: list[tuple[float, float]], even: bool, seed: int) -> None:
    load: list[Load] = []
    at_s = whole = 0.0
    for length_s, rate in steps:
        load.append(Load(at_s, rate))
        at_s += length_s
        whole += length_s * rate
    found = until(at_s, tuple(load), None if even else Random(seed))
    assert found == sorted(found)
    if even:
        assert whole - 1.001 <= len(found) <= whole + 1e-6
    else:
        assert abs(len(found) - whole) <= 6 * (whole**0.5) + 6


def test_what_is_asked_for_first_happens_first() -> None:
    agenda = Agenda()
    for what in "cba":
        agenda.at(1.0, print, what)
    assert [entry[3] for entry in sorted(agenda.heap)] == ["c", "b", "a"]


# -------------------------------------------------------------------------------------------------- numbers


@given(st.lists(st.floats(0.0001, 900), min_size=1, max_size=200), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_near_that_of_the_sorted_list(values: list[float], part: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    ranked = sorted(values)
    exact = next(value for at, value in enumerate(ranked, 1) if at >= part * len(ranked))
    assert histogram.count == len(values)
    assert isclose(histogram.quantile(part), exact, rel_tol=0.026)


def test_what_is_beyond_the_bins_is_in_the_outer_ones() -> None:
    histogram = Histogram()
    for seconds in (0.0, 1e-9, 1e9):
        histogram.add(seconds)
    assert histogram.quantile(0.5) < 0.00011
    assert histogram.quantile(1.0) > 990
    assert Histogram().quantile(0.5) == 0.0


def test_latencies_have_the_median_and_the_99th_percentile_that_were_asked_for() -> None:
    times_s = latencies_s(0.02, 0.2)
    assert times_s == sorted(times_s)
    assert isclose(times_s[len(times_s) // 2], 0.02, rel_tol=0.01)
    assert isclose(times_s[int(len(times_s) * 0.99)], 0.2, rel_tol=0.01)
    assert isclose(min(latencies_s(1.0, 1.0)), max(latencies_s(1.0, 1.0)))


def test_a_strip_shows_the_worst_state_of_each_column() -> None:
    row = Row("a", 1, "healthy")
    per_s = COLUMNS / 60
    row.becomes("unhealthy", 10.0, per_s)
    row.becomes("half_open", 10.02, per_s)
    row.becomes("healthy", 20.0, per_s)
    row.becomes("healthy", 60.0, per_s)
    assert list(row.strip[98:103]) == [0, 0, 8, 2, 2]
    assert list(row.strip[198:203]) == [2, 2, 2, 0, 0]
    assert row.times_s == {"healthy": 50.0, "unhealthy": pytest.approx(0.02), "half_open": pytest.approx(9.98)}


def test_troubles_last_from_their_beginning_to_their_end() -> None:
    row = Row("a", 1, "healthy")
    for is_so, now in ((True, 10.0), (True, 11.0), (False, 12.0), (False, 30.0), (True, 59.99), (False, 60.0)):
        row.troubled(is_so, now, 10.0)
    assert [at for at, wrong in enumerate(row.troubles) if wrong] == [*range(100, 121), 599]


def test_changes_are_kept_up_to_a_bound_and_counted_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coulee.server.whatif.tally.CHANGES_MAX", 3)
    tally = Tally(60.0)
    row = Row("a", 1, "healthy")
    for at in range(10):
        tally.changed(row, "ejected" if at % 2 == 0 else "healthy", "", float(at))
    assert (len(tally.changes), tally.changes_in_all, row.changes) == (3, 10, 10)


# ---------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "-"), (0.0008, "0.8 ms"), (0.00994, "9.9 ms"), (0.00996, "10 ms"), (0.0214, "21 ms"), (0.9994, "999 ms"),
     (0.9996, "1.0 s"), (1.26, "1.3 s"), (99.94, "99.9 s"), (99.96, "100 s")],
)  # fmt: skip
def test_latencies(seconds: float, text: str) -> None:
    assert latency(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0"), (0.25, "0.25s"), (5, "5s"), (60, "1m"), (65, "1m5s"), (3600, "1h"), (5400, "1h30m"), (3601, "1h1s"),
     (59.9996, "60s"), (119.7, "2m")],
)  # fmt: skip
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0:00:00.0"), (61.25, "0:01:01.2"), (3599.99, "0:59:59.9"), (86400.0, "24:00:00.0")]
)
def test_clocks(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 0, "-"), (0, 10, "0.0 %"), (10, 10, "100.0 %"), (1, 3, "33.3 %"), (45, 100, "45.0 %"), (995, 1000, "99.50 %"),
     (9_993, 10_000, "99.930 %"), (12, 1_000_000, "0.0012 %"), (1, 10**9, "0.000000 %")],
)  # fmt: skip
def test_shares(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def test_ticks_are_round_and_within() -> None:
    assert ticks(1050) == [0, 500, 1000]
    assert ticks(4.2) == [0, 2, 4]
    assert ticks(0.9) == pytest.approx([0, 0.5])
    assert ticks(0) == [0.0]
    assert time_ticks(600) == [60 * at for at in range(11)]
    assert time_ticks(3600) == [300 * at for at in range(13)]
    assert len(time_ticks(90 * 86400)) == 91
    assert decades(0.02, 0.3) == pytest.approx([0.01, 0.1, 1.0])
    assert decades(0.01, 0.01) == pytest.approx([0.01, 0.1])


@given(st.floats(1e-6, 1e9))
def test_ticks_are_few_and_not_too_few(most: float) -> None:
    found = ticks(most)
    assert found[0] == 0
    assert found[-1] <= most * 1.001
    assert 2 <= len(found) <= 5


@pytest.mark.parametrize(
    ("happening", "text"),
    [
        (Happening(0, "die", 1, names=("a3",)), "a3 dies"),
        (Happening(0, "hang", 1, names=("a3", "a4")), "a3, a4 hang"),
        (Happening(0, "drain", 1, names=("a1", "a2", "a3", "a4")), "a1, a2 and 2 more drained"),
        (Happening(0, "slow", 1, zone="eu", factor=5), "zone eu: \u00d75 slower"),
        (Happening(0, "slow", 1, zone="eu", factor=0.5), "zone eu: \u00d70.5"),
        (Happening(0, "errors", 1, share=0.3, rate=0.5), "30 %: 50 % 503"),
        (Happening(0, "weight", 1, names=("a3",), weight=4), "a3: weight 4"),
    ],
)
def test_what_happens_is_told_in_a_few_words(happening: Happening, text: str) -> None:
    assert told(happening) == text


def test_outages_are_told_in_a_line() -> None:
    assert told_outages(Outages(3600, 90, ("die", "slow"))) == (
        "random outages (die, slow) of each endpoint: 1h apart, 1m30s long on average"
    )


# ----------------------------------------------------------------------------------------------------- bars


def counted() -> Tally:
    """1,000 requests, of which 2 failed, and 10 were rescued; one took long."""
    tally = Tally(60.0, requests=1000)
    tally.retries[0] = 12
    tally.hedges = 1
    for at in range(1000):
        tally.ended(0, 2 if at < 10 else 1, "503" if at >= 998 else "", 0.5 if at == 5 else 0.02)
    return tally


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("errors<0.3%", ""),
        ("errors < 0.2%", "errors are 0.20 %"),
        ("errors<=0.2%", ""),
        ("errors=2", ""),
        ("errors=0", "errors are 2"),
        ("ok>99%", ""),
        ("ok>=999", "ok are 998"),
        ("rescued>10", "rescued are 10"),
        ("retries<=1.2%", ""),
        ("hedges<1", "hedges are 1"),
        ("requests>=1000", ""),
        ("p50<25ms", ""),
        ("p99<10ms", "p99 is 20 ms"),
        ("p99.9<100ms", ""),
        ("p90<=1s", ""),
    ],
)
def test_a_bar_holds_or_tells_what_was_the_case(text: str, broken: str) -> None:
    assert Bar(text).broken_by(counted()) == broken


def test_a_share_of_nothing_is_nothing() -> None:
    assert Bar("errors<1%").broken_by(Tally(60.0)) == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("errors", "'errors' is no check; write one such as errors<0.1% or p99<300ms"),
        ("errors!1", "'errors!1' is no check; write one such as errors<0.1% or p99<300ms"),
        ("faults<1", ("'faults<1': there is no faults; there are requests, ok, errors, rescued, retries, hedges, p50, "
         "p90, p99, p99.9")),
        ("errors<few", "'errors<few': few is not a number or a share, such as 0.1%"),
        ("p99<0.3", "'p99<0.3': 0.3 is not a duration, such as 300ms"),
    ],
)  # fmt: skip
def test_what_is_no_bar_is_told(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        Bar(text)
    assert str(caught.value) == message
