"""Scenarios played: what each trouble does to requests, what the rules of retries make of it, and what is counted."""

from __future__ import annotations

from math import isclose
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coulee.core import Config, Peer, Proxy
from coulee.core.config import Retry, Timeouts
from coulee.core.peer import Balancer, PeerLimits, Routed
from coulee.lb import Cluster, Outliers, RetryBudget
from coulee.lb.discovery import Found
from coulee.server.whatif.attempts import AT_WORK, QUEUED
from coulee.server.whatif.lines import TomlError
from coulee.server.whatif.play import Play
from coulee.server.whatif.scenario import TROUBLES, read_scenario
from coulee.server.whatif.table import as_json
from coulee.server.whatif.tally import Tally
from tests.server.whatif_stage import CONSTANT, checked, cluster, during, play, scenario


def event(what: str, more: str = "", *, at: str = "10s", who: str = 'endpoint = "a0"', for_: str = "20s") -> str:
    long = f'for = "{for_}"\n' if for_ else ""
    return f'[[event]]\nat = "{at}"\n{who}\nwhat = "{what}"\n{long}{more}\n'


# ------------------------------------------------------------------------------------------- nothing happens


def test_requests_go_round_and_are_answered_in_their_time() -> None:
    tally = play(scenario())
    assert (tally.requests, tally.ok, tally.failed, tally.under_way) == (599, 599, 0, 0)
    assert [(row.name, row.attempts) for row in tally.rows.values()] == [("a0", 300), ("a1", 299)]
    assert tally.errors == {}
    assert isclose(tally.all_latencies.quantile(0.5), 0.02, rel_tol=0.03)
    assert tally.all_latencies.quantile(0.999) == tally.all_latencies.quantile(0.5)


def test_what_is_under_way_at_the_end_is_counted_as_that() -> None:
    tally = play(scenario(endpoints='[endpoints]\nlatency = { median = "2s", p99 = "2s" }'))
    assert (tally.requests, tally.ok, tally.under_way) == (599, 579, 20)


def test_the_scenario_s_own_endpoints_take_the_place_of_the_program_s() -> None:
    tally = play(scenario(endpoints='[endpoints]\ncount = 3\nzones = ["eu", "us"]'))
    assert [(row.name, row.attempts) for row in tally.rows.values()] == [("a0", 200), ("a1", 200), ("a2", 199)]


def test_one_endpoint_may_be_unlike_the_others() -> None:
    other = '[[endpoint]]\nname = "a1"\nlatency = { median = "1s", p99 = "1s" }'
    tally = play(scenario(endpoints=CONSTANT + other))
    assert isclose(tally.rows["a1"].latency.quantile(0.5), 1.0, rel_tol=0.03)
    assert isclose(tally.rows["a0"].latency.quantile(0.5), 0.02, rel_tol=0.03)


def test_latencies_are_log_normal_between_the_median_and_the_99th_percentile() -> None:
    tally = play(scenario(endpoints='[endpoints]\nlatency = { median = "20ms", p99 = "200ms" }', length="20m"))
    whole = tally.all_latencies
    assert isclose(whole.quantile(0.5), 0.02, rel_tol=0.06)
    assert isclose(whole.quantile(0.99), 0.2, rel_tol=0.12)
    assert isclose(whole.quantile(0.01), 0.002, rel_tol=0.12)


def test_progress_is_told_with_growing_numbers() -> None:
    seen: list[tuple[float, int]] = []
    Play(scenario(), Proxy(cluster())).run(lambda part, requests: seen.append((part, requests)))
    assert len(seen) == 200
    assert seen == sorted(seen)
    assert seen[0][0] < 0.005
    assert 0.99 < seen[-1][0] < 1.0


def test_a_cluster_whose_endpoints_are_discovered_keeps_those_that_it_was_given() -> None:
    asked: list[str] = []

    class Elsewhere:
        name = "elsewhere"
        interval_s = 1.0
        timeout_s = 1.0

        def fresh(self) -> Elsewhere:
            return self

        async def find(self) -> Found:
            asked.append(self.name)
            return Found(())

    tally = play(scenario(), cluster(2, discovery=Elsewhere()))
    assert tally.ok == 599
    with pytest.raises(ValueError, match=r"^its endpoints come from discovery; say how many there are"):
        play(scenario(), Cluster(discovery=Elsewhere()))
    assert play(scenario(endpoints="[endpoints]\ncount = 1"), Cluster(discovery=Elsewhere())).ok == 599
    assert not asked


def test_what_is_no_cluster_cannot_be_played() -> None:
    class Mine(Balancer):
        def choose(self, exchange: Routed) -> Peer | None:
            return None

    with pytest.raises(ValueError, match=r"^its balancer is a Mine, not a Cluster"):
        Play(scenario(), Proxy(Mine()))


# ---------------------------------------------------------------------------------------- what origins suffer


def test_what_has_died_refuses_and_the_next_one_is_tried() -> None:
    tally = play(scenario(event("die")))
    assert tally.failed == 0
    assert tally.rows["a0"].failures == {"upstream_refused": sum(tally.rescued)}
    assert tally.rows["a1"].retries == sum(tally.retries) == sum(tally.rescued)
    assert 100 <= sum(tally.rescued) <= 200  # the turn that a retry takes leaves the dead one to the next request
    assert during(tally.rescued, tally, 0, 10) == during(tally.rescued, tally, 31, 60) == 0


def test_without_retries_what_died_is_seen_by_clients() -> None:
    tally = play(scenario(event("die")), retries_max=0)
    assert tally.errors == {"upstream_refused": 100}
    assert tally.retries == [0] * 120


def test_dying_resets_what_is_under_way_and_a_post_is_not_sent_again() -> None:
    slow = '[endpoints]\nlatency = { median = "1s", p99 = "1s" }'
    gets = play(scenario(event("die"), endpoints=slow))
    assert gets.rows["a0"].failures["upstream_reset"] == 5
    assert gets.failed == 0
    posts = play(scenario(event("die"), "posts = 1.0", endpoints=slow))
    assert posts.errors == {"upstream_reset": 5}  # what was refused had not been sent, and is tried again
    again = play(scenario(event("die"), "posts = 1.0", endpoints=slow), non_idempotent=True)
    assert again.failed == 0


def test_what_has_vanished_lets_connects_time_out() -> None:
    tally = play(scenario(event("vanish")))
    assert tally.failed == 0
    assert set(tally.rows["a0"].failures) == {"upstream_connect_timeout"}
    assert isclose(max(each.quantile(1.0) for each in tally.latency), 3.02, rel_tol=0.03)


def test_a_connect_takes_no_longer_than_one_try_may() -> None:
    tally = play(scenario(event("vanish")), try_timeout_s=0.5)
    assert isclose(max(each.quantile(1.0) for each in tally.latency), 0.52, rel_tol=0.03)


def test_what_hangs_answers_when_it_goes_on() -> None:
    tally = play(scenario(event("hang")))
    assert tally.failed == 0
    assert tally.retries == [0] * 120
    assert isclose(tally.all_latencies.quantile(1.0), 20.0, rel_tol=0.03)
    assert during(tally.good, tally, 10.5, 29.5) == 95  # those of the other one


def test_what_hangs_for_too_long_is_given_up() -> None:
    config = Config(timeouts=Timeouts(answer_timeout_s=5.0))
    tally = Play(scenario(event("hang", for_="")), Proxy(cluster(), config=config)).run()
    assert tally.errors == {"upstream_timeout": 225}
    assert isclose(tally.all_latencies.quantile(1.0), 5.0, rel_tol=0.03)


def test_a_limit_for_one_try_lets_another_follow() -> None:
    tally = play(scenario(event("hang")), try_timeout_s=1.0)
    assert tally.failed == 0
    assert set(tally.rows["a0"].failures) == {"upstream_timeout"}
    assert isclose(tally.all_latencies.quantile(1.0), 1.02, rel_tol=0.03)


def test_what_was_at_work_when_it_began_to_hang_is_answered_late_or_given_up() -> None:
    slow = '[endpoints]\nlatency = { median = "2s", p99 = "2s" }'
    late = play(scenario(event("hang", for_="5s"), endpoints=slow))
    assert isclose(late.all_latencies.quantile(1.0), 8.9, rel_tol=0.05)  # 1.9 s at work, 5 s of it hanging, 2 s more
    lost = play(scenario(event("hang", for_="5s"), endpoints=slow), try_timeout_s=3.0)
    assert lost.rows["a0"].failures == {"upstream_timeout": sum(lost.rescued)}
    assert sum(lost.rescued) > 20


def test_what_dies_while_it_hangs_resets_those_that_wait() -> None:
    events = event("hang", for_="") + event("die", at="20s", for_="")
    tally = play(scenario(events), retries_max=0)
    assert tally.errors["upstream_reset"] == 50
    assert tally.errors["upstream_refused"] == 200


def test_a_connect_that_is_lost_stays_so_when_the_origin_dies() -> None:
    tally = play(scenario(event("vanish", for_="5s") + event("die", at="11s", for_="5s")), retries_max=0)
    assert set(tally.errors) == {"upstream_connect_timeout", "upstream_refused"}
    assert tally.errors["upstream_connect_timeout"] == 5


def test_what_goes_on_works_in_the_order_in_which_requests_came() -> None:
    one = '[endpoints]\nconcurrency = 1\nlatency = { median = "250ms", p99 = "250ms" }\n'
    tally = play(scenario(event("hang", at="2s", for_="1s"), endpoints=one, length="10s"), cluster(1), retries_max=0)
    waited = [tally.latency[at].quantile(0.0) for at in range(39, 45)]  # from 3.25 s on
    assert isclose(max(waited), 2.6, rel_tol=0.1)  # in the queue before it hung, and so before those that came later


def test_slow_means_a_multiple_of_the_time() -> None:
    tally = play(scenario(event("slow", "factor = 10")))
    assert isclose(tally.rows["a0"].latency.quantile(0.9), 0.2, rel_tol=0.03)
    assert isclose(tally.rows["a1"].latency.quantile(1.0), 0.02, rel_tol=0.03)


def test_errors_are_a_share_of_the_answers() -> None:
    tally = play(scenario(event("errors", "rate = 0.5\nstatus = 500", for_=""), length="10m"))
    assert set(tally.errors) == {"500"}
    assert tally.rows["a0"].failures == tally.errors
    assert 0.45 < tally.failed / (590 * 5) < 0.55


def test_an_origin_may_give_errors_all_the_time() -> None:
    tally = play(scenario(endpoints=CONSTANT + "errors = 0.1", length="10m"))
    assert 0.08 < tally.errors["500"] / 6000 < 0.12
    better = play(scenario(event("errors", "rate = 0.0", who="share = 1.0"), endpoints=CONSTANT + "errors = 1.0"))
    assert [during(better.bad, better, at, at + 9) for at in (1, 11, 21, 31, 41)] == [90, 0, 0, 90, 90]


def test_a_4xx_is_no_error_of_the_origin_s() -> None:
    tally = play(scenario(event("errors", "status = 404")))
    assert tally.failed == 0


def test_statuses_may_be_tried_again() -> None:
    tally = play(scenario(event("errors")), statuses=(503,))
    assert tally.failed == 0
    assert tally.rows["a0"].failures == {"503": sum(tally.rescued)}


def test_an_answer_that_nobody_betters_is_passed_on() -> None:
    tally = play(scenario(event("errors", who="share = 1.0")), statuses=(503,), backoff_s=0.0)
    assert tally.errors == {"503": 200}
    assert sum(tally.retries) == 400
    assert sum(row.failures["503"] for row in tally.rows.values()) == 600
    kept = play(scenario(event("errors", "status = 404", who="share = 1.0")), statuses=(404,), retries_max=1,
                balancer=cluster(budget=RetryBudget(0.0, 0.0)))  # fmt: skip
    assert kept.failed == 0
    assert kept.refusals == 200


def test_flapping_is_down_and_up_in_turns_until_it_ends() -> None:
    tally = play(scenario(event("flap", 'up = "4s"\ndown = "2s"')), retries_max=0)
    down = [during(tally.bad, tally, at, at + 2) for at in (10, 16, 22, 28)]
    up = [during(tally.bad, tally, at, at + 4) for at in (12, 18, 24, 30, 34)]
    assert down == [10, 10, 10, 10]
    assert up == [0, 0, 0, 0, 0]


def test_an_operator_ends_a_flapping_for_good() -> None:
    events = event("flap", 'up = "4s"\ndown = "2s"', for_="") + event("recover", at="17s", for_="")
    tally = play(scenario(events), retries_max=0)
    assert during(tally.bad, tally, 16, 17) == 5
    assert during(tally.bad, tally, 17.5, 60) == 0


def test_the_end_of_one_trouble_leaves_another_alone() -> None:
    events = event("slow", "factor = 10", for_="40s") + event("die", at="15s", for_="5s")
    tally = play(scenario(events), retries_max=0)
    assert during(tally.bad, tally, 20.5, 60) == 0
    assert isclose(max(each.quantile(1.0) for each in tally.latency[60:80]), 0.2, rel_tol=0.03)
    assert isclose(max(each.quantile(1.0) for each in tally.latency[102:]), 0.02, rel_tol=0.03)


def test_recover_ends_all_that_is_wrong() -> None:
    events = "".join(event(what, for_="") for what in ("slow", "errors", "hang"))
    tally = play(scenario(events + event("recover", at="20s", for_="")))
    assert during(tally.bad, tally, 21, 60) == 0
    assert isclose(max(each.quantile(1.0) for each in tally.latency[42:]), 0.02, rel_tol=0.03)
    assert tally.rows["a0"].troubles.count(1) == 101  # 10 s of 60, with the column in which they end


def test_a_share_and_a_zone_name_endpoints() -> None:
    half = play(scenario(event("errors", who="share = 0.5", for_="")), cluster(10))
    assert sum(1 for row in half.rows.values() if row.failures) == 5
    least = play(scenario(event("errors", who="share = 0.01", for_="")), cluster(10))
    assert sum(1 for row in least.rows.values() if row.failures) == 1
    zone = play(scenario(event("errors", who='zone = "eu"', for_="")), cluster(10))
    assert [row.name for row in zone.rows.values() if row.failures] == ["a1", "a3", "a5", "a7", "a9"]
    named = play(scenario(event("errors", who='endpoints = ["a2", "a1", "a2"]', for_="")), cluster(10))
    assert [row.name for row in named.rows.values() if row.failures] == ["a1", "a2"]


def test_outages_come_at_random_and_go() -> None:
    outages = '[outages]\nmean_between = "1m"\nmean_duration = "10s"\nkinds = ["die", "slow"]'
    tally = play(scenario(outages, length="30m"), cluster(4), retries_max=0)
    troubled = [row.troubles.count(1) for row in tally.rows.values()]
    assert all(0.05 * 600 < each < 0.4 * 600 for each in troubled)  # 10 of 70 s, on average
    assert set(tally.errors) <= {"upstream_refused", "upstream_reset"}
    assert 0.01 < tally.failed / tally.requests < 0.2


# ----------------------------------------------------------------------------------------- queues and limits


def test_an_origin_works_on_so_many_at_once_and_others_queue_in_it() -> None:
    one = '[endpoints]\nconcurrency = 1\nlatency = { median = "250ms", p99 = "250ms" }'
    tally = play(scenario(endpoints=one), cluster(1))
    assert tally.ok == 239  # four a second
    assert tally.under_way == 360
    assert isclose(tally.all_latencies.quantile(1.0), 36.0, rel_tol=0.03)
    two = play(scenario(endpoints=one.replace("concurrency = 1", "concurrency = 3")), cluster(1))
    assert two.under_way == 2


def test_what_queues_in_an_origin_can_take_too_long() -> None:
    one = '[endpoints]\nconcurrency = 1\nlatency = { median = "250ms", p99 = "250ms" }'
    tally = play(scenario(endpoints=one), cluster(1), try_timeout_s=2.0, retries_max=0)
    assert set(tally.errors) == {"upstream_timeout"}
    assert isclose(tally.all_latencies.quantile(1.0), 2.0, rel_tol=0.03)
    hung = play(scenario(event("hang", for_="10s"), endpoints=one), cluster(1), retries_max=0)
    assert during(hung.good, hung, 30.5, 40) >= 37  # it works on what has queued


def test_the_pool_has_so_many_connections_to_one_peer_and_so_long_a_queue() -> None:
    limits = PeerLimits(connections_max=2, waiters_max=1, wait_s=0.15)
    half = '[endpoints]\nlatency = { median = "500ms", p99 = "500ms" }'
    tally = play(scenario(endpoints=half), cluster(1, limits=limits))
    assert set(tally.errors) == {"pool_full"}
    assert max(len(each.bins) for each in tally.latency)
    assert isclose(tally.all_latencies.quantile(1.0), 0.6, rel_tol=0.15)  # at most 0.15 s of waiting
    assert 3.5 * 59 < tally.ok < 4.1 * 60  # two at a time, half a second each
    none = play(scenario(endpoints=half), cluster(1, limits=PeerLimits(connections_max=1, waiters_max=0)))
    assert isclose(none.all_latencies.quantile(1.0), 0.5, rel_tol=0.03)


def test_all_attempts_together_may_take_so_long() -> None:
    tally = play(scenario(event("hang")), total_timeout_s=2.0)
    assert set(tally.errors) == {"upstream_timeout"}
    assert isclose(tally.all_latencies.quantile(1.0), 2.0, rel_tol=0.03)
    both = play(scenario(event("vanish", who="share = 1.0")), total_timeout_s=4.0, backoff_s=0.0)
    assert both.errors == {"upstream_timeout": 170}
    assert sum(both.rescued) == 30  # those whose second attempt began when all was well again
    assert isclose(both.all_latencies.quantile(1.0), 4.0, rel_tol=0.03)


def test_the_time_of_all_attempts_can_end_while_a_retry_waits() -> None:
    events = event("errors", who="share = 1.0")
    tally = play(scenario(events), statuses=(503,), total_timeout_s=0.05, backoff_s=30.0, backoff_max_s=30.0)
    assert set(tally.errors) == {"upstream_timeout"}
    limits = {"retries_max": 8, "total_timeout_s": 0.05, "backoff_s": 30.0, "backoff_max_s": 30.0}
    refused = play(scenario(event("die", who="share = 1.0")), cluster(9), **limits)
    assert set(refused.errors) == {"upstream_timeout"}
    config = Config(retry=Retry(statuses=(503,), total_timeout_s=0.05, backoff_s=5.0, backoff_max_s=5.0))
    run = Play(scenario(events), Proxy(cluster(), config=config))
    run.run()
    assert run.cluster.in_flight == 0  # the answers that were kept are let go


def test_retries_wait_before_they_come_again() -> None:
    at_once = play(scenario(event("errors", who="share = 1.0")), statuses=(503,), backoff_s=0.0)
    later = play(scenario(event("errors", who="share = 1.0")), statuses=(503,), backoff_s=2.0, backoff_max_s=2.0)
    assert isclose(at_once.all_latencies.quantile(1.0), 0.06, rel_tol=0.03)
    assert 1.5 < later.all_latencies.quantile(1.0) < 2.2


def test_the_budget_bounds_retries_and_what_it_refuses_is_counted() -> None:
    tally = play(scenario(event("die")), cluster(budget=RetryBudget(0.0, 0.0)))
    assert tally.errors == {"upstream_refused": tally.refusals}
    assert sum(tally.retries) == 0
    assert 100 <= tally.refusals <= 200


def test_where_every_endpoint_refuses_none_is_asked_twice() -> None:
    tally = play(scenario(event("die", who="share = 1.0")))
    assert tally.errors == {"upstream_refused": 200}
    assert sum(tally.retries) == 200


def test_a_hedge_is_sent_beside_what_is_slow_and_the_first_answer_counts() -> None:
    events = event("slow", "factor = 50")
    tally = play(scenario(events), hedge_after_s=0.1)
    assert tally.failed == 0
    assert tally.hedges == sum(tally.retries) == tally.rows["a1"].retries
    assert isclose(tally.all_latencies.quantile(1.0), 0.12, rel_tol=0.04)
    assert 100 <= tally.hedges <= 200
    assert play(scenario(events, "posts = 1.0"), hedge_after_s=0.1).hedges == 0
    assert play(scenario(events), hedge_after_s=0.1, retries_max=0).hedges == 0
    alone = play(scenario(events), cluster(1), hedge_after_s=0.1)
    assert (alone.hedges, alone.refusals) == (0, 0)
    refused = play(scenario(events), cluster(budget=RetryBudget(0.0, 0.0)), hedge_after_s=0.1)
    assert refused.hedges == 0
    assert 100 <= refused.refusals <= 200


def test_in_a_race_who_fails_is_out_and_the_other_goes_on() -> None:
    events = event("slow", "factor = 50", for_="") + event("errors", who='endpoint = "a1"', for_="")
    tally = play(scenario(events), hedge_after_s=0.1, statuses=(503,), retries_max=1)
    assert tally.failed < 299  # those alone that came to a1 first, and found that a0 is no better
    assert isclose(tally.rows["a0"].latency.quantile(0.9), 1.0, rel_tol=0.03)
    dead = play(scenario(event("hang") + event("die", who='endpoint = "a1"')), hedge_after_s=0.1)
    assert set(dead.errors) <= {"upstream_refused"}
    assert isclose(dead.all_latencies.quantile(1.0), 20.0, rel_tol=0.05)


# -------------------------------------------------------------------------------------- what the cluster does


def test_checks_find_what_is_dead_and_what_has_come_back() -> None:
    tally = play(scenario(event("die")), cluster(health=checked(rise=2, fall=3)))
    changes = [(each.name, each.before, each.state, each.cause) for each in tally.changes]
    assert changes == [("a0", "healthy", "unhealthy", "refused"), ("a0", "unhealthy", "healthy", "")]
    assert 12 < tally.changes[0].at_s < 13.1  # the third check that fails
    assert 31 < tally.changes[1].at_s < 32.1  # the second one that does not
    row = tally.rows["a0"]
    assert row.changes == tally.changes_in_all == 2
    assert isclose(row.times_s["unhealthy"], 19.0, abs_tol=1.1)
    assert isclose(sum(row.times_s.values()), 60.0)
    assert during(row.attempts_in, tally, 13, 30) == 0
    assert tally.rows["a1"].changes == 0


@pytest.mark.parametrize("what", ["hang", "vanish"])
def test_checks_find_what_does_not_answer(what: str) -> None:
    tally = play(scenario(event(what)), cluster(health=checked(timeout_s=0.5)))
    assert [(each.state, each.cause) for each in tally.changes] == [
        ("unhealthy", "no answer within 0.5 s"),
        ("healthy", ""),
    ]


def test_checks_meet_errors_and_slowness_as_requests_do() -> None:
    errors = play(scenario(event("errors", "status = 500")), cluster(health=checked()))
    assert errors.changes[0].cause == "answered 500"
    slow = play(scenario(event("slow", "factor = 100")), cluster(health=checked(timeout_s=0.5)))
    assert slow.changes[0].cause == "no answer within 0.5 s"


def test_requests_that_fail_eject_and_the_ejection_ends() -> None:
    tally = play(scenario(event("errors", for_="5s")), cluster(outliers=Outliers(consecutive_failures=3)))
    assert [(each.state, each.cause) for each in tally.changes] == [
        ("ejected", "3 failures in a row, the last 503"), ("healthy", "")]  # fmt: skip
    assert tally.failed == 3
    assert isclose(tally.rows["a0"].times_s["ejected"], 10.0, abs_tol=0.2)


def test_an_answer_that_is_tried_again_elsewhere_counts_against_its_origin() -> None:
    outliers = Outliers(consecutive_failures=3)
    tally = play(scenario(event("errors", "status = 500", for_="5s")), cluster(outliers=outliers), statuses=(500,))
    assert tally.changes[0].cause.startswith("3 failures in a row")


def test_a_cluster_that_fails_open_says_that_it_is_the_cluster_that_fails() -> None:
    tally = play(scenario(event("die", who="share = 1.0")), cluster(health=checked(), panic=0.5))
    assert set(tally.errors) == {"upstream_refused", "no_healthy_endpoint"}
    assert during(tally.rows["a0"].attempts_in, tally, 15, 30) > 0


def test_where_all_are_dead_clients_are_told_at_once() -> None:
    tally = play(scenario(event("die", who="share = 1.0")), cluster(health=checked()))
    assert tally.errors["no_healthy_endpoint"] > 150
    assert 149 <= during(tally.bad, tally, 15, 30) <= 151


def test_operators_drain_and_bring_back_and_weigh() -> None:
    drained = play(scenario(event("drain")))
    assert during(drained.rows["a0"].attempts_in, drained, 10.5, 30) == 0
    assert [(each.at_s, each.state) for each in drained.changes] == [(10.0, "draining"), (30.0, "healthy")]
    twice = play(scenario(event("drain", who='endpoints = ["a0", "a0"]')))
    assert [each.state for each in twice.changes] == ["draining", "healthy"]
    kept = play(scenario(event("maintenance", for_="") + event("ready", at="40s", for_="")), cluster(health=checked()))
    assert (kept.changes[0].at_s, kept.changes[0].state) == (10.0, "maintenance")
    assert during(kept.rows["a0"].attempts_in, kept, 10.5, 40) == 0
    assert during(kept.rows["a0"].attempts_in, kept, 45, 60) == 75
    weighed = play(scenario(event("weight", "value = 4")))
    assert 78 <= during(weighed.rows["a0"].attempts_in, weighed, 10, 20) <= 82
    assert 49 <= during(weighed.rows["a0"].attempts_in, weighed, 40, 50) <= 51
    assert weighed.rows["a0"].weight == 1
    assert play(scenario(event("weight", "value = 4", for_=""))).rows["a0"].weight == 4


# ---------------------------------------------------------------------------------------------------- laws


SOME_OF_ALL = """
requests_per_s = 40
posts = 0.1
seed = 7
duration = "2m"
[endpoints]
count = 6
concurrency = 3
errors = 0.01
[outages]
mean_between = "20s"
mean_duration = "5s"
kinds = ["die", "vanish", "hang", "slow", "errors", "flap"]
"""


def test_the_same_seed_gives_the_same_numbers_and_another_one_others() -> None:
    def run(seed: int) -> Tally:
        return play(read_scenario(SOME_OF_ALL.replace("7", str(seed)), "s.toml"), cluster(health=checked()))

    what = read_scenario(SOME_OF_ALL, "s.toml")
    assert as_json(run(7), what, "a") == as_json(run(7), what, "a")
    assert run(7).arrived != run(8).arrived


def test_another_cluster_meets_the_same_requests_and_the_same_outages() -> None:
    what = read_scenario(SOME_OF_ALL, "s.toml")
    one = play(what, cluster(health=checked()), retries_max=2)
    other = play(what, cluster(outliers=Outliers()), retries_max=0)
    assert one.arrived == other.arrived
    assert one.errors != other.errors
    assert [row.troubles for row in one.rows.values()] == [row.troubles for row in other.rows.values()]


@given(
    seed=st.integers(0, 10**6),
    retry=st.fixed_dictionaries({
        "retries_max": st.integers(0, 3), "statuses": st.sampled_from([(), (503,), (500, 503)]),
        "try_timeout_s": st.sampled_from([0.0, 0.3]), "total_timeout_s": st.sampled_from([0.0, 0.5]),
        "hedge_after_s": st.sampled_from([0.0, 0.05]), "backoff_s": st.sampled_from([0.0, 0.2]),
    }),
    kinds=st.sets(st.sampled_from(TROUBLES), min_size=1).map(sorted),
    concurrency=st.integers(0, 2),
    limits=st.sampled_from([None, PeerLimits(connections_max=2, waiters_max=2, wait_s=0.2)]),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_nothing_is_lost_and_nothing_is_counted_twice(
    seed: int, retry: dict[str, Any], kinds: list[str], concurrency: int, limits: PeerLimits | None
) -> None:
    outages = f'[outages]\nmean_between = "4s"\nmean_duration = "2s"\nkinds = {kinds}'.replace("'", '"')
    what = scenario(
        outages, f"seed = {seed}\nposts = 0.2", endpoints=f"[endpoints]\nconcurrency = {concurrency}", length="10s"
    )
    run = Play(
        what,
        Proxy(cluster(3, health=checked(), outliers=Outliers(), limits=limits), config=Config(retry=Retry(**retry))),
    )
    tally = run.run()
    assert sum(tally.arrived) == tally.requests
    assert tally.failed == sum(tally.errors.values())
    assert tally.all_latencies.count == tally.ok + tally.failed
    rows = tally.rows.values()
    assert sum(row.retries for row in rows) == sum(tally.retries)
    assert all(sum(row.attempts_in) == row.attempts for row in rows)
    assert all(isclose(sum(row.times_s.values()), 10.0) for row in rows)
    members = run.cluster.members
    assert [each.requests for each in members] == [row.attempts for row in rows]
    going_on = [len(origin.attempts) + len(origin.waiters) for origin in run.origins.values()]
    waiting_answers = sum(each.in_flight for each in members) - sum(going_on)
    assert 0 <= waiting_answers <= tally.under_way  # an answer that may be tried again is held while the retry waits
    for origin in run.origins.values():
        assert origin.busy == sum(1 for each in origin.attempts if each.state == AT_WORK)
        assert origin.busy <= (concurrency or 10**9)
        assert list(origin.queue) == [each for each in origin.attempts if each.state == QUEUED]
        assert len(origin.attempts) <= origin.connections_max
        assert len(origin.waiters) <= origin.waiters_max + 1


# ------------------------------------------------------------------------------------------- wrong scenarios


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (event("die", who='endpoint = "a9"'), "outage.toml:10: there is no endpoint a9; there are a0, a1"),
        (event("die", who='zone = "asia"'), "outage.toml:10: no endpoint is in zone asia; there are: us, eu"),
        ('[[endpoint]]\nname = "b"', "outage.toml:9: there is no endpoint b; there are a0, a1"),
    ],
)
def test_endpoints_that_are_not_there_are_named_with_their_line(text: str, message: str) -> None:
    with pytest.raises(TomlError) as caught:
        Play(scenario(text), Proxy(cluster()))
    assert str(caught.value) == message


def test_of_many_endpoints_the_message_names_a_few() -> None:
    with pytest.raises(TomlError, match=r"there are a0, a1, a2, a3, \.\.\.$"):
        Play(scenario(event("die", who='endpoint = "b"')), Proxy(cluster(5)))
