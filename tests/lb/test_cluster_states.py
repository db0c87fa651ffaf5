"""The states of endpoints: what checks, requests and time make of them, and who is used when few are left."""

from __future__ import annotations

from functools import partial

import pytest

from coulee.core.errors import ExchangeError
from coulee.core.peer import PeerLimits
from coulee.lb import Cluster
from coulee.lb.breaker import Breaker
from coulee.lb.endpoint import Endpoint
from coulee.lb.health import HealthCheck
from coulee.lb.outliers import Outliers
from coulee.lb.slow_start import SlowStart
from tests.lb.play import Checks, Play, Sets, named
from tests.lb.stub import endpoints

A, B, C = "http://127.0.0.1:9001", "http://127.0.0.1:9002", "http://127.0.0.1:9003"


# ------------------------------------------------------------------------------------------------ failing open


def all_down(panic: float = 0.5, count: int = 4) -> tuple[Play, Checks]:
    """A cluster whose endpoints have all failed a check."""
    checks = Checks()
    checks.bad = {f"a{i}": "down" for i in range(count)}
    health = HealthCheck(checks, fall=1, rise=1, interval_s=5, unhealthy_interval_s=5, jitter=0)
    return Play(Cluster(*endpoints(count), health=health, panic=panic)), checks


def test_where_all_are_down_and_requests_fail_as_they_are_failing_open_it_is_the_cluster_that_fails() -> None:
    play, checks = all_down()
    assert play.choose() == "a0"
    failed = ExchangeError("upstream_refused", "connection refused")
    verdict = play.turn(lambda: play.cluster.verdict(failed))
    assert (verdict.reason, verdict.status, verdict.retry_after_s) == ("no_healthy_endpoint", 503, 5)
    assert verdict.detail == (
        "upstream_refused: connection refused; failing open: "
        "a0 is unhealthy (down); a1 is unhealthy (down); a2 is unhealthy (down); and 1 more"
    )
    checks.bad = {f"a{i}": "down" for i in range(3)}
    play.wait(5)
    assert play.turn(lambda: play.cluster.verdict(failed)) is failed  # one is healthy: it is what it met that fails


# ----------------------------------------------------------------------------------------- checks and failing open


def test_below_the_threshold_all_are_used_and_above_it_the_healthy_ones() -> None:
    play, checks = all_down(panic=0.5)
    cluster = play.cluster
    assert sorted(play.choose() for _ in range(4)) == ["a0", "a1", "a2", "a3"]
    assert (cluster.failing_open, cluster.healthy) == (True, 0)
    checks.bad = {"a0": "down", "a1": "down", "a2": "down"}
    play.wait(5)
    assert sorted(play.choose() for _ in range(4)) == ["a0", "a1", "a2", "a3"]
    assert (cluster.failing_open, cluster.healthy) == (True, 1)
    checks.bad = {"a0": "down", "a1": "down"}
    play.wait(5)
    assert sorted(play.choose() for _ in range(4)) == ["a2", "a2", "a3", "a3"]  # half of them is not below half
    assert (cluster.failing_open, cluster.healthy) == (False, 2)
    checks.bad = {"a0": "down", "a1": "down", "a3": "down"}
    play.wait(5)
    assert sorted(play.choose() for _ in range(4)) == ["a0", "a1", "a2", "a3"]


def test_without_a_threshold_it_is_503_where_all_are_down_with_the_time_of_the_next_check() -> None:
    play, _ = all_down(panic=0.0, count=2)
    found = play.error()
    assert (found.status, found.reason, found.retry_after_s) == (503, "no_healthy_endpoint", 5)
    assert found.detail == "a0 is unhealthy (down); a1 is unhealthy (down)"
    failed = ExchangeError("upstream_refused")
    assert play.turn(lambda: play.cluster.verdict(failed)) is failed


def test_who_is_out_of_service_counts_neither_as_healthy_nor_as_one_of_all() -> None:
    play, checks = all_down(panic=0.5)
    checks.bad = {"a0": "down"}
    play.wait(5)
    play.turn(lambda: play.cluster.set_service("a1", "drain"))
    play.turn(lambda: play.cluster.set_weight("a2", 0))
    assert [play.choose() for _ in range(2)] == ["a3", "a3"]  # of a0 and a3, half is healthy
    play.turn(lambda: play.cluster.set_service("a3", "drain"))
    assert [play.choose() for _ in range(2)] == ["a0", "a0"]
    assert (play.cluster.failing_open, play.cluster.healthy) == (True, 0)


def test_an_open_circuit_gets_nothing_even_where_all_else_fails_open() -> None:
    checks = Checks()
    checks.bad = {"a0": "down", "a1": "down"}
    health = HealthCheck(checks, fall=1, interval_s=100, unhealthy_interval_s=100)
    play = Play(Cluster(*endpoints(2), health=health, breaker=Breaker(failures_max=1), panic=0.5))
    assert play.begin().name == "a0"
    play.fail("a0")
    assert [play.choose() for _ in range(3)] == ["a1"] * 3
    assert play.states == {"a0": "unhealthy", "a1": "unhealthy"}


def test_a_verdict_on_what_is_not_the_endpoints_doing_stands() -> None:
    play, _ = all_down()
    for reason in ("pool_full", "client_gone", "filter_error"):
        error = ExchangeError(reason)
        assert play.turn(partial(play.cluster.verdict, error)) is error


def test_a_verdict_looks_at_what_is_known_now() -> None:
    play, _ = all_down(panic=0.5, count=1)
    verdict = play.turn(lambda: play.cluster.verdict(ExchangeError("upstream_reset")))
    assert verdict.reason == "no_healthy_endpoint"  # nobody has asked for an endpoint since the checks failed


def test_each_change_of_state_is_one_event_with_its_cause_and_how_long_the_last_one_lasted() -> None:
    checks = Checks()
    health = HealthCheck(checks, fall=2, rise=2, interval_s=5, unhealthy_interval_s=1, jitter=0)
    play = Play(Cluster(*endpoints(1), health=health))
    play.bench.wall_clock_offset_s = 100.0
    play.wait(3)
    checks.bad["a0"] = "down"
    play.wait(5)
    checks.bad["a0"] = "on fire"
    play.wait(2)
    assert play["a0"].cause == "on fire"
    checks.bad.clear()
    play.wait(20)
    assert play.events == [("a0", "healthy", "unhealthy", "down", 6), ("a0", "unhealthy", "healthy", "", 6)]
    first, second = play.bench.world.events("endpoint")
    assert (first.text, first.at) == ("a0 is unhealthy: down (it was healthy for 6 s)", 106)
    assert second.text == "a0 is healthy (it was unhealthy for 6 s)"


# ------------------------------------------------------------------------------------------- what requests meet


def test_failures_in_a_row_eject_an_endpoint_for_a_while() -> None:
    play = Play(Cluster(*endpoints(2), outliers=Outliers(consecutive_failures=3, ejection_s=10)))
    play.fail("a0", 2)
    play.succeed("a0")
    play.fail("a0", 2)
    assert play.states["a0"] == "healthy"
    play.fail("a0", status=503, reason="")
    assert play.states["a0"] == "ejected"
    assert [play.choose() for _ in range(3)] == ["a1"] * 3
    play.wait(10)
    assert play.states["a0"] == "healthy"
    assert play.events == [
        ("a0", "healthy", "ejected", "3 failures in a row, the last 503", 0),
        ("a0", "ejected", "healthy", "", 10),
    ]
    assert play["a0"].failures == {"upstream_refused": 4, "503": 1}
    play.fail("a0", 2)  # in a row with those from before, it would be the fifth
    assert play.states["a0"] == "healthy"


def test_no_more_than_a_share_is_ejected_at_once_and_the_next_failure_asks_again() -> None:
    play = Play(Cluster(*endpoints(4), outliers=Outliers(consecutive_failures=1, ejected_share_max=0.5, ejection_s=10)))
    for name in ("a0", "a1", "a2", "a3"):
        play.fail(name, reason="upstream_reset")
    assert list(play.states.values()) == ["ejected", "ejected", "healthy", "healthy"]
    play.wait(10)
    play.fail("a3", reason="upstream_reset")
    assert list(play.states.values()) == ["healthy", "healthy", "healthy", "ejected"]


@pytest.mark.parametrize("reason", ["upstream_refused", "upstream_unreachable", "upstream_connect_timeout"])
def test_the_share_keeps_nobody_in_who_takes_no_connection_but_the_last(reason: str) -> None:
    play = Play(Cluster(*endpoints(4), outliers=Outliers(consecutive_failures=2, ejected_share_max=0.25)))
    for name in ("a0", "a1", "a2", "a3"):
        play.fail(name, 2, reason=reason)
    assert list(play.states.values()) == ["ejected", "ejected", "ejected", "healthy"]


def test_who_is_unhealthy_or_out_of_service_is_not_ejected_beside() -> None:
    checks = Checks()
    checks.bad["a0"] = "down"
    health = HealthCheck(checks, fall=1)
    play = Play(Cluster(*endpoints(4), outliers=Outliers(consecutive_failures=1), health=health))
    play.turn(lambda: play.cluster.set_service("a1", "drain"))
    play.fail("a0")
    play.fail("a1")
    play.fail("a2")
    assert [endpoint.ejected for endpoint in play.cluster.members] == [False, False, True, False]


@pytest.mark.parametrize(
    ("reason", "status", "failure"),
    [
        ("", 200, ""),
        ("", 500, ""),
        ("", 502, "502"),
        ("upstream_reset", 0, "upstream_reset"),
        ("upstream_reset", 200, "upstream_reset"),
        ("upstream_status", 500, "500"),
        ("upstream_status", 503, "503"),
        ("upstream_timeout", 503, "503"),
        ("upstream_refused_stream", 0, None),
        ("client_gone", 503, "503"),
        ("client_gone", 200, None),
        ("pool_full", 0, None),
        ("superseded", 0, None),
        ("filter_error", 0, None),
    ],
)
def test_what_an_endpoint_is_blamed_for_and_what_says_nothing_of_it(
    reason: str, status: int, failure: str | None
) -> None:
    play = Play(Cluster(*endpoints(2)))
    play.begin("a0").end(reason, status)
    record = play["a0"].record
    assert record is not None
    assert play["a0"].failures == ({failure: 1} if failure else {})
    assert (record.requests, record.failures) == (int(failure is not None), int(bool(failure)))


def test_requests_that_were_not_processed_neither_eject_an_endpoint_nor_open_its_circuit() -> None:
    play = Play(Cluster(*endpoints(2), breaker=Breaker(failures_max=2)))
    for _ in range(50):
        play.begin("a0").end("upstream_refused_stream", 0)
    assert (play.states["a0"], play["a0"].failures, play["a0"].in_flight) == ("healthy", {}, 0)


def test_without_outliers_failures_are_counted_and_nobody_is_ejected() -> None:
    play = Play(Cluster(*endpoints(2), outliers=None))
    play.fail("a0", 50)
    play.wait(10)
    assert (play.states["a0"], play["a0"].failures) == ("healthy", {"upstream_refused": 50})


def test_shares_of_success_are_compared_at_the_end_of_an_interval_with_requests() -> None:
    outliers = Outliers(consecutive_failures=0, success_rate_requests_min=5, success_rate_endpoints_min=3,
                        success_rate_stdevs=1, ejection_s=4)  # fmt: skip
    play = Play(Cluster(*endpoints(3), outliers=outliers))
    play.wait(7)
    for name in ("a0", "a1", "a2"):
        play.succeed(name, 3)
        if name == "a1":
            play.fail(name, 2)
        else:
            play.succeed(name, 2)
    play.wait(9.9)
    assert play.events == []
    play.wait(0.2)
    cause = "2 of 5 requests failed, 13.3% is the mean"
    assert play.events == [("a1", "healthy", "ejected", cause, pytest.approx(17))]
    play.wait(4)
    assert play.states["a1"] == "healthy"
    play.wait(600)
    assert play.bench.left == {}


def test_who_is_out_of_service_is_not_compared() -> None:
    outliers = Outliers(consecutive_failures=0, success_rate_requests_min=2, success_rate_endpoints_min=3,
                        success_rate_stdevs=1)  # fmt: skip
    play = Play(Cluster(*endpoints(3), outliers=outliers))
    for name in ("a0", "a1"):
        play.succeed(name, 5)
    play.fail("a2", 5)
    play.turn(lambda: play.cluster.set_service("a2", "drain"))
    play.wait(12)
    assert [event[:3] for event in play.events] == [("a2", "healthy", "draining")]
    assert not play["a2"].ejected


def test_a_circuit_opens_is_tried_and_closes() -> None:
    breaker = Breaker(failures_max=2, open_s=5, trials=1, successes=2)
    play = Play(Cluster(*endpoints(2), outliers=None, breaker=breaker))
    play.fail("a0", 2)
    assert [play.choose() for _ in range(2)] == ["a1", "a1"]
    assert [each.name for each in play.cluster.usable] == ["a1"]
    play.wait(5)
    trial = play.begin("a0")
    assert [play.choose() for _ in range(2)] == ["a1", "a1"]  # no more than one at once
    trial.end()
    assert sorted(play.choose() for _ in range(2)) == ["a0", "a1"]
    play.begin("a0").answer()  # the head is enough, however long the rest takes
    assert play.events == [
        ("a0", "healthy", "circuit_open", "2 failures in a row", 0),
        ("a0", "circuit_open", "half_open", "2 failures in a row", 5),
        ("a0", "half_open", "healthy", "", 0),
    ]


def test_a_trial_whose_answer_takes_long_makes_room_for_the_next_with_its_head() -> None:
    breaker = Breaker(failures_max=1, open_s=5, trials=1, successes=2)
    play = Play(Cluster(*endpoints(2), outliers=None, breaker=breaker))
    play.fail("a0")
    play.wait(5)
    trial = play.begin("a0")
    assert [play.choose() for _ in range(4)] == ["a1"] * 4
    trial.answer()
    assert play.states["a0"] == "half_open"
    assert "a0" in [play.choose() for _ in range(2)]  # and no policy waits for the end of it
    second = play.begin("a0")
    trial.end("upstream_reset")  # which is no end of the other one
    assert [play.choose() for _ in range(4)] == ["a1"] * 4
    second.end()
    assert play.states["a0"] == "healthy"


def test_a_circuit_has_one_outcome_of_each_attempt_the_head_of_its_answer_or_that_there_is_none() -> None:
    play = Play(Cluster(*endpoints(2), outliers=None, breaker=Breaker(failures_max=3, failed_share=0)))
    play.fail("a0", 2)
    play.fail("a0", 5, "upstream_reset", 200)
    play.fail("a0", 2, "upstream_timeout", 503)
    assert play.states["a0"] == "healthy"
    play.fail("a0")
    assert play.states["a0"] == "circuit_open"


def test_a_trial_that_ends_without_an_outcome_makes_room_for_the_next() -> None:
    play = Play(Cluster(*endpoints(1), outliers=None, breaker=Breaker(failures_max=1, open_s=5)))
    play.fail("a0", status=503, reason="")
    found = play.error()
    assert (found.reason, found.retry_after_s) == ("circuit_open", 5)
    play.wait(5)
    trial = play.begin("a0")
    assert play.choose() == "circuit_open"
    trial.end("client_gone", 0)
    assert play.choose() == "a0"
    assert play.states == {"a0": "half_open"}


def test_an_endpoint_that_has_all_it_may_have_is_passed_over() -> None:
    limits = PeerLimits(requests_max=2)
    play = Play(Cluster(*(Endpoint(each, limits=limits) for each in endpoints(2))))
    attempts = [play.begin() for _ in range(4)]
    assert sorted(attempt.name for attempt in attempts) == ["a0", "a0", "a1", "a1"]
    found = play.error()
    assert (found.status, found.reason) == (503, "pool_full")
    attempts[2].end()
    assert play.choose() == attempts[2].name


# ------------------------------------------------------------------------------------------------- slow start


def test_an_endpoint_that_comes_up_gets_its_weight_in_steps() -> None:
    checks = Checks()
    checks.bad["a1"] = "down"
    health = HealthCheck(checks, fall=1, rise=1, interval_s=1, unhealthy_interval_s=1, jitter=0)
    play = Play(Cluster(*endpoints(2, [1, 8]), health=health, slow_start=SlowStart(8, steps=4, share_min=0.125)))
    play.choose()
    checks.bad.clear()
    weights: list[float] = []
    play.wait(0.5)
    for _ in range(9):
        play.wait(1)
        weights.append(play["a1"].effective_weight)
    assert weights == [1, 1, 2, 2, 4, 4, 6, 6, 8]
    assert play.events[1:] == [("a1", "unhealthy", "slow_start", "", 1), ("a1", "slow_start", "healthy", "", 8)]
    assert sorted(play.choose() for _ in range(9)) == ["a0"] + ["a1"] * 8


def test_those_that_are_there_at_the_start_are_warm_and_those_that_come_later_are_not() -> None:
    play = Play(Cluster(*endpoints(2), slow_start=SlowStart(10, steps=5)))
    assert play.states == {"a0": "healthy", "a1": "healthy"}
    play.update("a0", "a1", named("a2", weight=10))
    assert (play["a2"].state, play["a2"].effective_weight) == ("slow_start", 1)
    play.turn(lambda: play.cluster.set_weight("a2", 20))
    assert play["a2"].effective_weight == 2
    play.wait(4)
    assert play["a2"].effective_weight == 8


def test_the_first_endpoints_that_are_found_are_warm_since_there_are_no_others() -> None:
    play = Play(Cluster(discovery=Sets([]), slow_start=SlowStart(10)))
    assert play.choose() == "no_healthy_endpoint"
    play.update("a0", "a1")
    assert play.states == {"a0": "healthy", "a1": "healthy"}


def test_a_slow_start_that_is_interrupted_begins_anew() -> None:
    play = Play(Cluster(*endpoints(1), slow_start=SlowStart(10, steps=2, share_min=0.25)))
    play.update("a0", named("a1", weight=4))
    play.wait(5)
    assert play["a1"].effective_weight == 2
    play.turn(lambda: play.cluster.set_service("a1", "drain"))
    assert play["a1"].effective_weight == 4  # nobody asks
    play.wait(1)
    play.turn(lambda: play.cluster.set_service("a1", "ready"))
    assert (play["a1"].state, play["a1"].effective_weight) == ("slow_start", 1)
    play.wait(10)
    assert play.states["a1"] == "healthy"


def test_a_slow_start_of_no_duration_is_none() -> None:
    play = Play(Cluster(*endpoints(1), slow_start=SlowStart(0)))
    play.update("a0", "a1")
    assert play.states["a1"] == "healthy"


def test_a_circuit_that_closes_has_had_its_trials_and_needs_no_slow_start() -> None:
    breaker = Breaker(failures_max=1, open_s=5, successes=1)
    play = Play(Cluster(*endpoints(2), outliers=None, breaker=breaker, slow_start=SlowStart(10)))
    play.fail("a0")
    play.wait(5)
    play.succeed("a0")
    assert play.states["a0"] == "healthy"
