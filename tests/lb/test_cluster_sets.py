"""The set of endpoints of a cluster: what changes while it runs, by operators and by discovery, and what stays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from coulee.core.peer import Peer, PeerLimits
from coulee.core.pool import Pool
from coulee.lb import Cluster
from coulee.lb.breaker import Breaker
from coulee.lb.endpoint import Endpoint
from coulee.lb.health import HealthCheck
from coulee.lb.outliers import Outliers
from coulee.lb.slow_start import SlowStart
from tests.lb.play import Checks, Play, Sets, Sliced, filters_peer, named, sliced
from tests.lb.stub import Asks, endpoints

A, B, C = "http://127.0.0.1:9001", "http://127.0.0.1:9002", "http://127.0.0.1:9003"


# ------------------------------------------------------------------------------------------- the set of endpoints


def test_the_old_endpoints_serve_until_the_tables_of_the_new_ones_are_built() -> None:
    play = Play(Cluster(*endpoints(2), policy=Sliced(3)))
    busy = play.begin("a1")
    old = play.cluster.members
    play.update("a5", "a6")
    assert play.states == {"a0": "healthy", "a1": "healthy"}
    assert [play.choose() for _ in range(4)] == ["a0", "a1", "a0", "a1"]
    play.fail("a0", 5)  # something is known that was not: who is usable is found out anew
    assert [play.choose() for _ in range(2)] == ["a1", "a1"]
    assert not play.events[1:]
    play.wait(0)
    assert play.states == {"a5": "healthy", "a6": "healthy"}
    assert [play.choose() for _ in range(4)] == ["a5", "a6", "a5", "a6"]
    assert [(each.state, each.usable, each.open) for each in old] == [("removed", False, False)] * 2
    busy.end()
    assert play.cluster.in_flight == 0
    assert sliced(play).table == ["a5", "a6"]


def test_one_that_has_left_as_the_next_set_is_built_and_is_in_the_one_after_that_is_the_same_one() -> None:
    play = Play(Cluster(*endpoints(2), policy=Sliced(3)))
    play.wait(1)
    attempt = play.begin("a1")
    member = play["a1"]
    play.update("a0")
    play.wait(0)
    play.update("a0", "a1")  # is being built ...
    play.update("a0", "a2")  # ... when another one is wanted
    play.wait(0)
    play.update("a0", "a1")
    play.wait(0)
    assert play["a1"] is member
    assert (member.in_flight, play.cluster.in_flight) == (1, 1)
    attempt.end()
    assert (member.in_flight, play.cluster.in_flight) == (0, 0)


def test_a_new_endpoint_is_not_open_before_it_is_a_member() -> None:
    seen: list[list[bool]] = []

    class Looks(Sliced):
        def arrange(self, members: Sequence[Endpoint]) -> Iterator[None]:
            for _ in super().arrange(members):
                seen.append([endpoint.open for endpoint in members])
                yield

    play = Play(Cluster("http://10.0.0.0:80", policy=Looks(1)))
    play.update(Endpoint("http://10.0.0.0:80"), "a1")
    play.wait(0)
    assert seen == [[False], [True, False]]
    assert [endpoint.open for endpoint in play.cluster.members] == [True, True]


def test_a_newer_set_takes_the_place_of_one_that_is_being_built() -> None:
    play = Play(Cluster(*endpoints(2), policy=Sliced(2)))
    policy = sliced(play)
    play.update("a2", "a3")
    policy.slices = 0  # the next has less to build, and is there first
    play.update("a4")
    assert play.states == {"a4": "healthy"}
    play.wait(0)
    assert (policy.table, play.states) == (["a4"], {"a4": "healthy"})


def test_tables_are_built_in_slices_between_which_exchanges_go_on() -> None:
    play = Play(Cluster(*endpoints(2), policy=Sliced(4)))
    play.update("a1", "a2")
    turns = 0
    while "a2" not in play.states:
        play.bench.world.gives(None)
        assert play.choose() in ("a0", "a1", "a2")
        turns += 1
    assert turns == 4
    assert sliced(play).arranged == ["a0 a1", "a1 a2"]
    assert not play.cluster._tasks
    assert play.stopped() == {}


def test_stopped_while_tables_are_built_it_serves_with_those_that_it_had() -> None:
    play = Play(Cluster(*endpoints(2), policy=Sliced(4)))
    play.update("a1", "a2")
    assert play.stopped() == {}
    assert sliced(play).building == 0
    play.wait(1)
    assert [play.choose() for _ in range(3)] == ["a0", "a1", "a0"]


def test_a_policy_whose_tables_cannot_be_built_keeps_the_old_ones_and_that_is_reported() -> None:
    class Breaks(Sliced):
        def arrange(self, members: Sequence[Endpoint]) -> Iterator[None]:
            yield from super().arrange(members)
            if len(members) > 2:
                raise RuntimeError("too many")

    play = Play(Cluster(*endpoints(2), policy=Breaks(1)))
    play.update("a0", "a1", "a2")
    with pytest.raises(RuntimeError, match=r"^too many$"):  # as the machine of the tests reports it
        play.wait(0)
    assert [play.choose() for _ in range(3)] == ["a0", "a1", "a0"]
    play.update("a1")
    play.wait(0)
    assert play.choose() == "a1"


def test_what_ends_at_an_endpoint_that_has_left_is_counted_and_changes_nothing() -> None:
    breaker = Breaker(failures_max=2)
    play = Play(Cluster(*endpoints(4), outliers=Outliers(consecutive_failures=4), breaker=breaker))
    play.wait(3)
    leaver = play["a3"]
    attempts = [play.begin("a3") for _ in range(6)]
    play.update("a0", "a1", "a2")
    play.wait(1)
    for attempt in attempts[:5]:
        attempt.end("upstream_reset", 0)
    assert (leaver.failures, leaver.state, leaver.usable, leaver.open) == (
        {"upstream_reset": 5},
        "removed",
        False,
        False,
    )
    assert leaver.record is not None
    assert not leaver.ejected
    attempts[5].answer(503)
    assert play.events == [("a3", "healthy", "removed", "", 3)]
    play.wait(200)
    attempts[5].end("client_gone")
    play.wait(200)
    assert play.events == [("a3", "healthy", "removed", "", 3)]
    assert play.bench.left == {}


def test_one_that_left_with_attempts_in_flight_and_comes_back_before_they_end_is_the_same_one() -> None:
    play = Play(Cluster(*endpoints(3), slow_start=SlowStart(10, steps=2)))
    leaver = play["a2"]
    first, second = play.begin("a2"), play.begin("a2")
    play.update("a0", "a1")
    first.end()
    assert (leaver.in_flight, play.cluster.in_flight) == (1, 1)
    play.wait(4)
    play.update("a0", "a1", named("a2", weight=3))
    assert play["a2"] is leaver
    assert (leaver.requests, leaver.in_flight, leaver.weight, leaver.index) == (2, 1, 3, 2)
    second.end()
    assert (leaver.in_flight, play.cluster.in_flight, leaver.owner) == (0, 0, play.cluster)
    play.wait(10)
    assert play.events == [
        ("a2", "healthy", "removed", "", 0),
        ("a2", "removed", "slow_start", "", 4),
        ("a2", "slow_start", "healthy", "", 10),
    ]
    play.update("a0", "a1")
    play.update("a0", "a1", "a2")
    assert play["a2"] is not leaver  # nothing was in flight: what was known of it is gone


def test_one_that_leaves_in_its_slow_start_and_comes_back_begins_another() -> None:
    play = Play(Cluster(*endpoints(1), slow_start=SlowStart(10, steps=2, share_min=0.5)))
    play.update("a0", "a1")
    attempt = play.begin("a1")
    play.update("a0")
    play.wait(20)
    play.update("a0", named("a1", weight=2))
    assert (play["a1"].state, play["a1"].effective_weight) == ("slow_start", 1)
    attempt.end()
    play.wait(10)
    assert (play["a1"].state, play["a1"].effective_weight) == ("healthy", 2)
    play.wait(200)
    assert play.bench.left == {}


def test_how_a_new_endpoint_begins_is_no_change_of_its_state() -> None:
    checks = Checks()
    health = HealthCheck(checks, start="unhealthy")
    play = Play(Cluster(*endpoints(1), health=health, slow_start=SlowStart(10, steps=1)))
    assert play.events == [("a0", "unhealthy", "slow_start", "", 0)]  # its first check was good
    play.wait(2)
    checks.bad["a1"] = "down"
    play.update("a0", "a1")
    assert play.states["a1"] == "unhealthy"
    assert (play["a1"].cause, play["a1"].since) == ("down", 2)
    assert play.events[1:] == []


def test_connections_to_those_that_leave_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(Cluster(*endpoints(3)))
    deserted: list[str] = []
    monkeypatch.setattr(Pool, "desert", lambda pool, peer: deserted.append(peer.name))
    play.update("a1", "a3")
    assert deserted == ["a0", "a2"]


# ------------------------------------------------------------------------------------- peers that a filter chose


def numbers(play: Play) -> tuple[int, dict[str, int]]:
    """In flight: in all, and at each member."""
    return play.cluster.in_flight, {endpoint.name: endpoint.in_flight for endpoint in play.cluster.members}


def test_a_peer_at_the_address_of_an_endpoint_counts_and_a_foreign_one_does_not() -> None:
    play = Play(Cluster(*endpoints(2)))
    attempt, foreign = play.begin(filters_peer("a1")), play.begin(filters_peer("a7"))
    other_group = play.begin(Peer(named("a1").address, group="tenant"))
    assert numbers(play) == (1, {"a0": 0, "a1": 1})
    attempt.end("upstream_reset", 0)
    foreign.answer().end()
    other_group.end("upstream_reset", 0)
    assert numbers(play) == (0, {"a0": 0, "a1": 0})
    assert (play["a1"].requests, play["a1"].failures) == (1, {"upstream_reset": 1})


def test_an_attempt_at_an_address_that_becomes_an_endpoints_is_none_of_that_endpoint() -> None:
    play = Play(Cluster(*endpoints(1)))
    first, second = play.begin(filters_peer("a1")), play.begin(filters_peer("a1"))
    play.update("a0", "a1")
    ours = play.begin("a1")
    first.end()
    assert numbers(play) == (1, {"a0": 0, "a1": 1})
    ours.end()
    second.end()
    assert numbers(play) == (0, {"a0": 0, "a1": 0})
    again = play.begin(filters_peer("a1"))
    assert numbers(play) == (1, {"a0": 0, "a1": 1})
    again.end()
    assert numbers(play) == (0, {"a0": 0, "a1": 0})


def test_the_end_of_an_endpoints_own_attempt_is_never_taken_for_another() -> None:
    play = Play(Cluster(*endpoints(1)))
    strange = play.begin(filters_peer("a1"))
    play.update("a0", "a1")
    ours = play.begin("a1")
    ours.end()
    assert numbers(play) == (0, {"a0": 0, "a1": 0})
    strange.end()
    assert numbers(play) == (0, {"a0": 0, "a1": 0})


def test_an_attempt_of_a_filters_peer_ends_at_the_endpoint_that_has_left_meanwhile() -> None:
    play = Play(Cluster(*endpoints(2)))
    leaver = play["a1"]
    first, second = play.begin(filters_peer("a1")), play.begin(filters_peer("a1"))
    play.update("a0")
    first.answer()
    first.end()
    assert (leaver.in_flight, play.cluster.in_flight) == (1, 1)
    second.end()
    assert (leaver.in_flight, play.cluster.in_flight) == (0, 0)


def test_an_endpoint_that_a_filter_keeps_when_it_has_left_stands_for_its_address() -> None:
    play = Play(Cluster(*endpoints(3)))
    kept, busy_one = play["a2"], play["a1"]
    busy = play.begin("a1")
    play.update("a0")
    busy.end()
    old = [play.begin(kept), play.begin(busy_one)]
    assert (kept.in_flight, busy_one.in_flight, play.cluster.in_flight) == (0, 0, 0)
    play.update("a0", "a1", "a2")
    new = [play.begin(kept), play.begin(busy_one)]
    assert numbers(play) == (2, {"a0": 0, "a1": 1, "a2": 1})
    for attempt in old + new:
        attempt.end()
    assert numbers(play) == (0, {"a0": 0, "a1": 0, "a2": 0})


def test_one_that_is_to_come_back_and_whose_attempts_end_before_it_has_is_ours_all_the_same() -> None:
    play = Play(Cluster(*endpoints(2), policy=Sliced(2)))
    leaver = play["a1"]
    attempt = play.begin("a1")
    play.update("a0")
    play.wait(0)
    play.update("a0", "a1")
    attempt.end()
    play.wait(0)
    assert play["a1"] is leaver
    assert leaver.owner is play.cluster


# --------------------------------------------------------------------------------------------------- operators


def test_a_thousand_changes_between_two_requests_cost_one_look() -> None:
    play = Play(Cluster(*endpoints(1000), policy=Sliced(0)))
    policy = sliced(play)
    play.choose()
    changes, arranged = policy.changes, len(policy.arranged)

    def much_happens() -> None:
        for i in range(500):
            play.cluster.set_weight(f"a{i}", 2)
        for i in range(500, 1000):
            play.cluster.set_service(f"a{i}", "drain")

    play.turn(much_happens)
    play.choose()
    play.choose()
    assert policy.changes == changes + 1
    assert len(policy.arranged) == arranged + 1
    assert len(play.cluster.usable) == 500


def test_a_weight_is_another_at_once_in_the_tables_when_they_are_built_and_nothing_is_forgotten() -> None:
    play = Play(Cluster(*endpoints(2), policy=Sliced(2)))
    play.fail("a0", 2)
    member = play["a0"]
    busy = play.begin("a0")
    play.turn(lambda: play.cluster.set_weight("a0", 3))
    assert (member.effective_weight, sliced(play).building) == (3, 1)
    play.wait(0)
    assert sliced(play).building == 0
    assert play["a0"] is member
    assert (member.in_flight, member.requests, member.failures) == (1, 3, {"upstream_refused": 2})
    busy.end()
    assert sorted(play.choose() for _ in range(8)) == ["a0"] * 6 + ["a1"] * 2


def test_the_same_weight_again_is_no_change() -> None:
    play = Play(Cluster(*endpoints(2), policy=Sliced(0)))
    arranged = list(sliced(play).arranged)
    play.turn(lambda: play.cluster.set_weight("a0", 1))
    assert sliced(play).arranged == arranged


def test_a_weight_that_changes_while_a_set_is_built_counts_for_that_set() -> None:
    play = Play(Cluster(*endpoints(2), policy=Sliced(2)))
    play.update("a1", "a2")
    play.turn(lambda: play.cluster.set_weight("a1", 5))
    play.wait(0)
    assert (list(play.states), play["a1"].weight) == (["a1", "a2"], 5)
    play.update()
    play.turn(lambda: play.cluster.set_weight("a1", 6))
    play.wait(0)
    assert play.states == {}


def test_stopped_in_the_turn_in_which_weights_changed_it_leaves_nothing() -> None:
    play = Play(Cluster(*endpoints(2), policy=Sliced(2)))

    def weigh_and_stop() -> None:
        play.cluster.set_weight("a0", 3)
        play.cluster.stop()

    play.turn(weigh_and_stop)
    assert play.bench.left == {}
    play.turn(lambda: play.cluster.set_weight("a0", 4))
    play.wait(0)
    assert sliced(play).table == ["a0", "a1"]


def test_weights_may_change_before_it_starts() -> None:
    cluster = Cluster(*endpoints(2), policy=Sliced(3))
    cluster.set_weight("a1", 0)
    assert [endpoint.state for endpoint in cluster.members] == ["healthy", "draining"]
    assert [cluster.choose(Asks()).name for _ in range(3)] == ["a0"] * 3


def test_an_operators_word_that_is_none_and_a_set_that_makes_no_sense_are_refused_and_change_nothing() -> None:
    play = Play(Cluster(*endpoints(2)))
    word: Any = "draining"
    with pytest.raises(ValueError, match=r"^'draining' is nothing that a0 could be; say ready, drain, maintenance$"):
        play.cluster.set_service("a0", word)
    with pytest.raises(KeyError, match=r"there is no endpoint a7; there are a0, a1"):
        play.cluster.set_service("a7", "drain")
    with pytest.raises(ValueError, match=r"^endpoint a1: weight is -1; it must be from 0 to 65535$"):
        play.cluster.set_weight("a1", -1)
    with pytest.raises(ValueError, match=r"^endpoint a2 is given twice$"):
        play.cluster.update([named("a2"), named("a2")])
    with pytest.raises(ValueError, match=r"^all endpoints have weight 0: none would get a request; give one of them"):
        play.cluster.update([named("a0", weight=0), named("a2", weight=0)])
    assert play.states == {"a0": "healthy", "a1": "healthy"}
    assert [play.choose() for _ in range(2)] == ["a0", "a1"]


@pytest.mark.parametrize(("panic", "shown"), [(-0.1, "-0.1"), (1.1, "1.1"), (float("nan"), "nan")])
def test_a_panic_that_is_no_share_is_refused(panic: float, shown: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^panic is {shown}; it must be a share of the endpoints, from 0 \(never\) to 1$"
    ):
        Cluster(A, panic=panic)


def test_endpoints_that_would_all_get_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^all endpoints have weight 0"):
        Cluster(Endpoint(A, weight=0))
    assert Cluster(Endpoint(A, weight=0), B).choose(Asks()).name == "127.0.0.1:9002"


def test_a_drained_endpoint_gets_nothing_new_ends_what_it_has_and_is_still_checked() -> None:
    checks = Checks()
    play = Play(Cluster(*endpoints(2), health=HealthCheck(checks, interval_s=5, jitter=0, fall=1, rise=1)))
    play.wait(1)
    busy = play.begin("a0")
    play.turn(lambda: play.cluster.set_service("a0", "drain", "moving house"))
    assert [play.choose() for _ in range(3)] == ["a1"] * 3
    assert play.choose("a1") == "a1"
    busy.end("upstream_reset", 0)
    checks.made.clear()
    checks.bad["a0"] = "down"
    play.wait(10)
    assert checks.made.count("a0") > 1
    assert (play["a0"].state, play["a0"].cause) == ("draining", "moving house")
    play.turn(lambda: play.cluster.set_service("a0", "ready"))
    assert (play["a0"].state, play["a0"].cause) == ("unhealthy", "down")
    assert play.events == [
        ("a0", "healthy", "draining", "moving house", 1),
        ("a0", "draining", "unhealthy", "down", 10),
    ]


def test_an_endpoint_in_maintenance_is_not_checked_either_and_comes_back_as_it_was() -> None:
    checks = Checks()
    play = Play(Cluster(*endpoints(2), health=HealthCheck(checks, interval_s=5, jitter=0, fall=1)))
    play.fail("a0", 2)
    play.turn(lambda: play.cluster.set_service("a0", "maintenance"))
    checks.made.clear()
    play.wait(20)
    assert "a0" not in checks.made
    assert [play.choose() for _ in range(3)] == ["a1"] * 3
    assert (play["a0"].state, play["a0"].cause) == ("maintenance", "somebody said so")
    play.turn(lambda: play.cluster.set_service("a0", "ready"))
    assert checks.made[-1] == "a0"
    assert (play["a0"].state, play["a0"].cause, play["a0"].requests) == ("healthy", "", 2)
    assert "a0" in [play.choose() for _ in range(2)]


def test_where_all_are_drained_nobody_fails_open() -> None:
    play = Play(Cluster(*endpoints(2), panic=1.0))
    for name in ("a0", "a1"):
        play.turn(partial(play.cluster.set_service, name, "drain", "night"))
    found = play.error()
    assert (found.reason, found.detail) == ("no_healthy_endpoint", "a0 is draining (night); a1 is draining (night)")
    assert not play.cluster.failing_open


def test_an_update_keeps_what_is_known_of_those_that_stay_whatever_else_it_says_of_them() -> None:
    checks = Checks()
    checks.bad["a1"] = "down"
    play = Play(Cluster(*endpoints(3), health=HealthCheck(checks, fall=1)))
    busy = play.begin("a2")
    play.fail("a0", 3)
    before = {endpoint.name: endpoint for endpoint in play.cluster.members}
    new = Endpoint(before["a2"].address, name="a2", weight=4, priority=1, zone="eu", labels={"v": "2"},
                   limits=PeerLimits(requests_max=1))  # fmt: skip
    events = list(play.events)
    play.update(new, "a1", "a0", "a3")
    assert [endpoint.name for endpoint in play.cluster.members] == ["a2", "a1", "a0", "a3"]
    assert [endpoint.index for endpoint in play.cluster.members] == [0, 1, 2, 3]
    assert all(play[name] is endpoint for name, endpoint in before.items())
    a2 = play["a2"]
    assert (a2.weight, a2.effective_weight, a2.priority, a2.zone, dict(a2.labels)) == (4, 4, 1, "eu", {"v": "2"})
    assert (a2.in_flight, a2.requests) == (1, 1)
    assert (play["a1"].state, play["a0"].failures) == ("unhealthy", {"upstream_refused": 3})
    assert play.events == events
    assert [play.choose() for _ in range(4)] == ["a0", "a3", "a0", "a3"]  # a2 is full now
    busy.end()
    assert play.choose() == "a2"
    play.fail("a0", 2)
    assert play.states["a0"] == "ejected"


def test_an_update_may_call_an_endpoint_otherwise() -> None:
    play = Play(Cluster(*endpoints(2)))
    member = play["a1"]
    play.update("a0", Endpoint(member.address, name="blue"))
    assert play["blue"] is member
    assert play.choose("a0") == "blue"


def test_its_status_is_what_is_known() -> None:
    play = Play(Cluster(*endpoints(2)))
    play.bench.wall_clock_offset_s = 1000.0
    play.wait(2)
    play.fail("a0", 5)
    play.succeed("a1", 2, latency_s=0.1)
    busy = play.begin("a1")
    first, second = play.cluster.status()
    assert (first.name, first.state, first.cause, first.since) == (
        "a0", "ejected", "5 failures in a row, the last upstream_refused", 1002.0,
    )  # fmt: skip
    assert (second.in_flight, second.requests) == (1, 3)
    assert second.p50_s == pytest.approx(0.1, rel=0.12)
    busy.end()


# --------------------------------------------------------------------------------------------------- discovery


def test_what_is_found_takes_the_place_of_what_there_was() -> None:
    source = Sets([named("a0"), named("a1", weight=2)], [named("a1", weight=3), named("a2")])
    play = Play(Cluster(A, discovery=source))
    assert list(play.states) == ["a0", "a1"]
    member = play["a1"]
    play.succeed("a1")
    play.wait(11.1)
    assert list(play.states) == ["a1", "a2"]
    assert play["a1"] is member
    assert (member.weight, member.requests) == (3, 1)
    assert [event[:3] for event in play.events] == [
        ("127.0.0.1:9001", "healthy", "removed"),
        ("a0", "healthy", "removed"),
    ]
    assert play.stopped() == {}


def test_an_error_keeps_the_last_good_set_and_is_told_once_and_so_is_the_recovery() -> None:
    source = Sets(
        [named("a0")], RuntimeError("no answer"), RuntimeError("no answer"), [named("a0", weight=0)], [named("a1")]
    )
    play = Play(Cluster(discovery=source))
    play.wait(12)
    assert play.states == {"a0": "healthy"}
    assert "no answer" in play.cluster.discovery_error
    play.wait(25)
    assert play.states == {"a1": "healthy"}
    assert play.cluster.discovery_error == ""
    events = play.bench.world.events("discovery")
    assert [event.text.partition(":")[0] for event in events] == [
        "discovery failed, 1 endpoints stay", "discovery failed, 1 endpoints stay", "discovery works again",
    ]  # fmt: skip
    assert "all endpoints have weight 0" in events[1].text
    assert [bool(event.fields["error"]) for event in events] == [True, True, False]


def test_a_cluster_that_has_found_nothing_yet_says_why() -> None:
    play = Play(Cluster(discovery=Sets(RuntimeError("no answer"))))
    found = play.error()
    assert (found.reason, found.status) == ("no_healthy_endpoint", 503)
    assert found.detail.startswith("the cluster has no endpoints: sets: RuntimeError: no answer")
    assert play.bench.world.events("discovery")[0].text.startswith("discovery failed, there are no endpoints yet: ")
