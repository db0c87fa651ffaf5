"""Passive health: each way to be an outlier, how long ejections last, and how many there may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from coulee.lb.endpoint import Endpoint
from coulee.lb.outliers import Detector, Outliers, Record
from tests.lb.stub import endpoints


def did(requests: int, failures: int = 0, mean_s: float = 0.01) -> Record:
    """What an endpoint has done: so many requests, the failures first."""
    record = Record()
    detector = Detector(Outliers(consecutive_failures=0))
    for number in range(requests):
        detector.note(record, number < failures, mean_s)
    return record


def rows(*records: Record) -> list[tuple[Endpoint, Record]]:
    return list(zip(endpoints(len(records)), records, strict=True))


def names(found: Sequence[tuple[Endpoint, str]]) -> list[str]:
    return [endpoint.name for endpoint, _ in found]


def ejected(detector: Detector, record: Record, now: float) -> float:
    """For how long."""
    assert detector.eject(record, now, 10, 0)
    return record.ejected_until - now


# ----------------------------------------------------------------------------------------------- failures in a row


def test_failures_in_a_row_are_seen_at_once_and_again() -> None:
    # Again, because at first there may have been too many ejected ones.
    detector, record = Detector(Outliers(consecutive_failures=3)), Record()
    causes = [detector.note(record, failed, 0.1) for failed in (True, True, False, True, True, True, True, False, True)]
    assert causes == ["", "", "", "", "", "3 failures in a row", "4 failures in a row", "", ""]


def test_no_number_of_failures_in_a_row_matters_where_that_is_off() -> None:
    detector, record = Detector(Outliers(consecutive_failures=0)), Record()
    assert not any(detector.note(record, True, 0.1) for _ in range(1000))
    assert record.consecutive == 1000


def test_a_record_has_what_happened_in_the_interval() -> None:
    record = did(7, failures=2, mean_s=0.5)
    assert (record.requests, record.failures, record.latency_sum_s) == (7, 2, 2.5)
    assert Detector(Outliers()).sweep(rows(record)) == []
    assert (record.requests, record.failures, record.latency_sum_s) == (0, 0, 0.0)


def test_a_row_of_failures_goes_on_over_the_end_of_an_interval() -> None:
    detector, record = Detector(Outliers(consecutive_failures=2)), Record()
    assert detector.note(record, True, 0.1) == ""
    detector.sweep(rows(record))
    assert detector.note(record, True, 0.1) == "2 failures in a row"


# --------------------------------------------------------------------------------------------------- success rates


def test_who_fails_far_more_often_than_the_others_is_an_outlier() -> None:
    found = Detector(Outliers()).sweep(rows(did(200, 2), did(200, 2), did(200, 80), did(200, 2), did(200, 2)))
    assert [(endpoint.name, cause) for endpoint, cause in found] == [
        ("a2", "80 of 200 requests failed, 8.8% is the mean")
    ]


def test_who_fails_as_all_do_is_none() -> None:
    assert Detector(Outliers()).sweep(rows(*[did(200, 190) for _ in range(6)])) == []


@pytest.mark.parametrize("failures", [0, 1, 7, 33])
def test_equal_endpoints_are_never_outliers_however_floats_are_rounded(failures: int) -> None:
    detector = Detector(Outliers(success_rate_gap_min=0, success_rate_stdevs=1e-9, success_rate_requests_min=49))
    for count in range(5, 60):
        assert detector.sweep(rows(*[did(49, failures) for _ in range(count)])) == []


def test_too_few_endpoints_with_enough_requests_are_not_compared() -> None:
    detector = Detector(Outliers())
    assert detector.sweep(rows(did(100), did(100), did(100, 90), did(100))) == []
    assert detector.sweep(rows(did(100), did(100), did(100, 90), did(100), did(99))) == []
    assert names(detector.sweep(rows(did(100), did(100), did(100, 90), did(100), did(100)))) == ["a2"]


def test_who_had_too_few_requests_is_not_judged_and_does_not_count() -> None:
    # With the two in the mean, a5 would be no outlier.
    found = Detector(Outliers()).sweep(rows(*[did(100) for _ in range(5)], did(100, 30), did(99, 99), did(50, 50)))
    assert names(found) == ["a5"]


def test_where_nearly_all_goes_well_one_failure_is_no_outlier() -> None:
    cluster = [did(1000), did(1000), did(1000, 1), did(1000), did(1000)]
    assert Detector(Outliers()).sweep(rows(*cluster)) == []
    cluster = [did(1000), did(1000), did(1000, 1), did(1000), did(1000)]
    assert names(Detector(Outliers(success_rate_gap_min=0)).sweep(rows(*cluster))) == ["a2"]  # as Envoy does


def test_rates_do_not_matter_where_that_is_off() -> None:
    detector = Detector(Outliers(success_rate_stdevs=0))
    assert detector.sweep(rows(did(200, 2), did(200, 2), did(200, 180), did(200, 2), did(200, 2))) == []


def test_the_worst_come_first() -> None:
    settings = Outliers(success_rate_stdevs=0.5, latency_factor=3)
    found = Detector(settings).sweep(
        rows(did(200), did(200, 20), did(200, 90), did(200, mean_s=1), did(200), did(200, 70), did(200, mean_s=2))
    )
    assert names(found) == ["a2", "a5", "a6", "a3"]


def test_an_endpoint_is_found_once_whatever_it_does_wrong() -> None:
    settings = Outliers(latency_factor=3)
    found = Detector(settings).sweep(rows(did(200), did(200), did(200), did(200), did(250, 90, mean_s=9)))
    assert [(endpoint.name, cause) for endpoint, cause in found] == [
        ("a4", "90 of 250 requests failed, 7.2% is the mean")
    ]


COUNTS = st.integers(1, 60).flatmap(lambda requests: st.tuples(st.just(requests), st.integers(0, requests)))


@given(
    st.lists(st.one_of(COUNTS, st.just((50, 0)), st.just((50, 1))), max_size=12),
    st.sampled_from([0.5, 1.0, 1.9, 3.0]),
    st.sampled_from([0.0, 0.05, 0.2]),
)
@example([(50, 0)] * 6 + [(10, 2)] + [(50, 0)] * 3, 3.0, 0.0)  # just three standard deviations
def test_it_is_envoys_rule(counts: Sequence[tuple[int, int]], stdevs: float, gap_min: float) -> None:
    # In exact numbers, all squared because roots are not exact.
    settings = Outliers(
        success_rate_stdevs=stdevs,
        success_rate_gap_min=gap_min,
        success_rate_endpoints_min=3,
        success_rate_requests_min=10,
    )
    judged = {
        f"a{i}": Fraction(requests - failures, requests)
        for i, (requests, failures) in enumerate(counts)
        if requests >= 10
    }
    expected: set[str] = set()
    if len(judged) >= 3:
        mean = sum(judged.values()) / Fraction(len(judged))
        variance = sum((rate - mean) ** 2 for rate in judged.values()) / Fraction(len(judged))
        for name, rate in judged.items():
            excess = (mean - rate) ** 2 - variance * Fraction(stdevs) ** 2
            assume(excess == 0 or abs(excess) > 1e-9)
            assume(abs(mean - rate - Fraction(gap_min)) > 1e-9 or gap_min == 0)
            if rate < mean - Fraction(gap_min) and excess > 0:
                expected.add(name)
    found = Detector(settings).sweep(rows(*[did(requests, failures) for requests, failures in counts]))
    assert set(names(found)) == expected
    assert [judged[name] for name in names(found)] == sorted(judged[name] for name in names(found))


# ------------------------------------------------------------------------------------------------------- latencies


def test_who_takes_far_longer_than_the_median_is_an_outlier() -> None:
    cluster = [did(100, mean_s=0.01), did(100, mean_s=0.0101), did(100, mean_s=0.06), did(100, mean_s=0.012)]
    found = Detector(Outliers(latency_factor=5)).sweep(rows(*cluster))
    assert [(endpoint.name, cause) for endpoint, cause in found] == [
        ("a2", "mean latency 60 ms, 10.1 ms is the median")
    ]


def test_latencies_do_not_matter_by_default() -> None:
    assert Detector(Outliers()).sweep(rows(did(100), did(100), did(100, mean_s=60.0))) == []


def test_of_two_endpoints_the_slow_one_is_found() -> None:
    detector = Detector(Outliers(latency_factor=3))
    assert names(detector.sweep(rows(did(100, mean_s=0.031), did(100, mean_s=0.01)))) == ["a0"]
    assert detector.sweep(rows(did(100, mean_s=0.029), did(100, mean_s=0.01))) == []
    assert detector.sweep(rows(did(100, mean_s=9.0))) == []
    assert detector.sweep([]) == []


def test_few_answers_and_failures_make_no_mean() -> None:
    detector = Detector(Outliers(latency_factor=3, success_rate_stdevs=0))
    assert detector.sweep(rows(did(100), did(100), did(99, mean_s=9.0))) == []
    assert detector.sweep(rows(did(100), did(100), did(150, 51, mean_s=9.0))) == []
    assert names(detector.sweep(rows(did(100), did(100), did(150, 50, mean_s=9.0)))) == ["a2"]
    # A connection that is refused takes no time, and makes nobody fast.
    record = did(100, mean_s=0.05)
    for _ in range(900):
        detector.note(record, True, 0.0)
    assert names(detector.sweep(rows(did(100), record))) == ["a1"]


def test_where_answers_take_no_time_nobody_is_slow() -> None:
    detector = Detector(Outliers(latency_factor=3))
    assert detector.sweep(rows(did(100, mean_s=0.0), did(100, mean_s=0.0), did(100, mean_s=1e-9))) == []


# ------------------------------------------------------------------------------------------------------- ejections


@pytest.mark.parametrize(
    ("share", "members", "most"),
    [
        (0.5, 1, 0),
        (0.5, 2, 1),
        (0.5, 3, 1),
        (0.5, 4, 2),
        (0.1, 5, 0),
        (0.29, 100, 29),  # 0.29 * 100 is less than 29
        (1.0, 1, 0),
        (1.0, 2, 1),
        (1.0, 7, 6),
        (0.0, 100, 0),
    ],
)
def test_so_many_may_be_ejected_at_once(share: float, members: int, most: int) -> None:
    detector = Detector(Outliers(ejected_share_max=share))
    records = [Record() for _ in range(members)]
    count = 0
    for record in records:
        count += detector.eject(record, 1.0, members, count)
    assert count == most
    assert [record.ejected_until for record in records] == [11.0] * most + [0.0] * (members - most)
    assert [record.ejections for record in records] == [1] * most + [0] * (members - most)


def test_who_is_ejected_already_is_not_ejected_again() -> None:
    detector, record = Detector(Outliers()), Record()
    assert detector.eject(record, 1.0, 4, 0)
    assert not detector.eject(record, 5.0, 4, 1)
    assert (record.ejected_until, record.ejections) == (11.0, 1)


def test_ejections_in_a_row_last_longer_and_longer_up_to_a_bound() -> None:
    detector, record = Detector(Outliers(ejection_max_s=35)), Record()
    now = 0.0
    lengths: list[float] = []
    for _ in range(6):
        lengths.append(ejected(detector, record, now))
        now = record.ejected_until
        detector.readmit(record)
        assert record.ejected_until == 0.0
    assert lengths == [10.0, 20.0, 30.0, 35.0, 35.0, 35.0]
    assert record.ejections == 4  # what has no use is not counted, for it would take as long to be forgotten


def test_whole_intervals_in_service_are_forgiving() -> None:
    detector, record = Detector(Outliers()), Record()
    steps = [  # what happens in an interval, and the number of ejections after its end
        ("ejected", 1),
        ("still ejected", 1),
        ("readmitted", 1),
        ("ejected", 2),
        ("readmitted and ejected", 3),
        ("readmitted", 3),
        ("in service", 2),
        ("ejected and readmitted", 3),
        ("in service", 2),
        ("in service", 1),
        ("in service", 0),
        ("in service", 0),
        ("ejected", 1),
    ]
    for number, (what, ejections) in enumerate(steps):
        for part in what.split(" and "):
            if part == "ejected":
                ejected(detector, record, number * 10.0)
            elif part == "readmitted":
                detector.readmit(record)
        detector.sweep(rows(record))
        assert (number, record.ejections) == (number, ejections)


def test_an_interval_at_whose_end_it_is_found_is_not_forgiving() -> None:
    detector = Detector(Outliers())
    record = Record()
    ejected(detector, record, 0.0)
    detector.readmit(record)
    detector.sweep(rows(record))
    for _ in range(150):
        detector.note(record, True, 0.1)
    assert names(detector.sweep(rows(record, *[did(100) for _ in range(5)]))) == ["a0"]
    assert record.ejections == 1
    assert ejected(detector, record, 30.0) == 20.0


def test_who_is_ejected_is_neither_found_nor_compared() -> None:
    # It may have requests all the same: those that were on their way, or all where the cluster fails open.
    detector = Detector(Outliers(latency_factor=2))
    out = [did(100, 95, mean_s=0.001) for _ in range(2)]
    for record in out:
        ejected(detector, record, 0.0)
    found = detector.sweep(rows(*out, *[did(100) for _ in range(5)], did(100, 40)))
    assert names(found) == ["a7"]
    assert [record.requests for record in out] == [0, 0]


def test_who_is_readmitted_starts_anew() -> None:
    detector = Detector(Outliers(consecutive_failures=3, latency_factor=2))
    record = did(200, 150, mean_s=9.0)
    for _ in range(3):
        cause = detector.note(record, True, 0.1)
    assert cause == "3 failures in a row"
    ejected(detector, record, 0.0)
    detector.note(record, True, 0.1)
    detector.readmit(record)
    assert detector.note(record, True, 0.1) == ""
    assert detector.sweep(rows(record, *[did(200) for _ in range(5)])) == []


@given(
    st.integers(1, 6),
    st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]),
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["fails", "fails", "answers", "waits", "sweep"])), max_size=120
    ),
)
def test_there_are_never_too_many_and_all_of_them_return(
    members: int, share: float, steps: Sequence[tuple[int, str]]
) -> None:
    settings = Outliers(
        consecutive_failures=2,
        success_rate_stdevs=1.0,
        success_rate_endpoints_min=2,
        success_rate_requests_min=1,
        ejection_s=3.0,
        ejection_max_s=10.0,
        ejected_share_max=share,
    )
    detector = Detector(settings)
    cluster = rows(*[Record() for _ in range(members)])
    now = 0.0

    def out() -> int:
        return sum(1 for _, record in cluster if record.ejected_until)

    def eject(record: Record) -> None:
        room = out() < min(math.floor(Fraction(str(share)) * members), members - 1)
        was_out = bool(record.ejected_until)
        assert detector.eject(record, now, members, out()) == (room and not was_out)
        assert out() <= share * members
        assert out() < members

    for which, what in steps:
        record = cluster[which % members][1]
        if what == "waits":
            now += which
        elif what == "sweep":
            for endpoint, _ in detector.sweep(cluster):
                eject(cluster[endpoint.index][1])
        elif detector.note(record, what == "fails", 0.01):
            eject(record)
        for _, each in cluster:
            assert each.ejected_until <= now + 10.0
            if each.ejected_until and now >= each.ejected_until:
                detector.readmit(each)
    for _ in range(5):  # the most in a row that are counted is four
        now += 10.0
        for _, record in cluster:
            if record.ejected_until:
                assert now >= record.ejected_until
                detector.readmit(record)
        detector.sweep(cluster)
    assert [record.ejections for _, record in cluster] == [0] * members


# -------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("consecutive_failures", -1, "consecutive_failures is -1; it must be above 0, or 0 for none"),
        ("success_rate_stdevs", -1.9, "success_rate_stdevs is -1.9; it must be above 0, or 0 for none"),
        ("success_rate_stdevs", math.nan, "success_rate_stdevs is nan; it must be above 0, or 0 for none"),
        ("success_rate_gap_min", -0.1, "success_rate_gap_min is -0.1; it must be above 0, or 0 for none"),
        ("interval_s", 0, "interval_s is 0; it must be above 0"),
        ("success_rate_endpoints_min", 0, "success_rate_endpoints_min is 0; it must be above 0"),
        ("success_rate_requests_min", 0, "success_rate_requests_min is 0; it must be above 0"),
        ("latency_requests_min", 0, "latency_requests_min is 0; it must be above 0"),
        ("latency_factor", 1, "latency_factor is 1; it must be above 1, or 0 for off"),
        ("latency_factor", -3, "latency_factor is -3; it must be above 1, or 0 for off"),
        ("ejection_s", 0, "ejection_s is 0; it must be above 0"),
        ("ejection_max_s", 9, "ejection_max_s is 9; it must be ejection_s, 10.0, or more"),
        ("ejected_share_max", 1.5, "ejected_share_max is 1.5; it must be from 0 to 1"),
        ("ejected_share_max", -0.5, "ejected_share_max is -0.5; it must be from 0 to 1"),
        ("statuses", (503, 99), "statuses has 99, which is no status; they are from 100 to 599"),
        ("statuses", (600,), "statuses has 600, which is no status; they are from 100 to 599"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        Outliers(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value) == message
