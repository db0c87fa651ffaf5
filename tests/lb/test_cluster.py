"""Clusters: endpoints in turn, those that were tried last, and one clear line for a cluster that is none."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from coulee.core.kernel import shielded, sleep
from coulee.core.parts import Response
from coulee.core.peer import Balancer, Peer, Routed
from coulee.lb import Cluster
from coulee.lb.breaker import Breaker
from coulee.lb.budget import RetryBudget
from coulee.lb.discovery import Found, Function
from coulee.lb.endpoint import Endpoint
from coulee.lb.health import HealthCheck
from coulee.lb.outliers import Outliers
from coulee.lb.policy import Policy
from coulee.lb.slow_start import SlowStart
from tests.lb.play import Checks, Play, Sets, Sliced, filters_peer, named, sliced
from tests.lb.stub import Asks, endpoints

A, B, C = "http://127.0.0.1:9001", "http://127.0.0.1:9002", "http://127.0.0.1:9003"


def chosen(balancer: Balancer, *tried: str) -> str:
    """The port of the peer for an exchange that has tried others."""
    exchange: Routed = Asks(tried=[f"127.0.0.1:{port}" for port in tried])
    peer = balancer.choose(exchange)
    assert peer is not None
    return peer.name.rpartition(":")[2]


def test_endpoints_are_chosen_in_turn() -> None:
    cluster = Cluster(A, B, C)
    assert [chosen(cluster) for _ in range(7)] == ["9001", "9002", "9003", "9001", "9002", "9003", "9001"]


def test_an_endpoint_that_was_tried_is_passed_over() -> None:
    cluster = Cluster(A, B, C)
    assert chosen(cluster, "9001") == "9002"
    assert chosen(cluster, "9001", "9003") == "9002"
    assert chosen(cluster, "9003") == "9001"


def test_a_retry_is_no_turn_that_those_who_were_tried_are_owed() -> None:
    cluster = Cluster(A, B, C)
    assert chosen(cluster) == "9001"
    assert chosen(cluster, "9001") == "9002"
    assert [chosen(cluster) for _ in range(6)] == ["9003", "9002", "9003", "9001", "9002", "9003"]


def test_when_all_were_tried_they_are_tried_again_in_turn() -> None:
    cluster = Cluster(A, B)
    everybody = ("9001", "9002")
    assert [chosen(cluster, *everybody) for _ in range(3)] == ["9001", "9002", "9001"]


def test_a_cluster_of_one_always_has_that_one_to_offer() -> None:
    cluster = Cluster(A)
    assert [chosen(cluster), chosen(cluster, "9001"), chosen(cluster)] == ["9001"] * 3


def test_a_peer_that_another_balancer_knows_counts_for_nothing() -> None:
    assert chosen(Cluster(A, B), "1234") == "9001"


def test_a_fresh_cluster_begins_at_the_first_endpoint_and_shares_nothing() -> None:
    cluster = Cluster(A, B)
    chosen(cluster)
    fresh = cluster.fresh()
    assert [chosen(fresh), chosen(fresh), chosen(fresh)] == ["9001", "9002", "9001"]
    assert chosen(cluster) == "9002"
    assert fresh.peers is not cluster.peers
    assert [peer.key for peer in fresh.peers] == [peer.key for peer in cluster.peers]


def test_endpoints_may_be_peers() -> None:
    peer = Peer(("127.0.0.1", 9001), name="blue", group="tenant")
    cluster = Cluster(peer, B)
    assert cluster.peers[0].key == peer.key
    assert cluster.choose(Asks()).name == "blue"


def test_a_cluster_of_nothing_is_refused_with_the_cure() -> None:
    with pytest.raises(ValueError, match=r"^a cluster needs at least one endpoint, such as http://127\.0\.0\.1:9000$"):
        Cluster()


@pytest.mark.parametrize("again", [A, f"{A}/", Peer(("127.0.0.1", 9001)), Peer("/x", name="127.0.0.1:9001")])
def test_an_endpoint_given_twice_is_refused(again: str | Peer) -> None:
    with pytest.raises(ValueError, match=r"^endpoint 127\.0\.0\.1:9001 is given twice$"):
        Cluster(B, A, again)


def test_a_url_that_names_no_endpoint_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^'127.0.0.1:9000' has no scheme; write http://127.0.0.1:9000$"):
        Cluster(A, "127.0.0.1:9000")


# ------------------------------------------------------------------------------------------- its tasks and alarms


def test_stopped_it_leaves_neither_a_task_nor_an_alarm() -> None:
    play = Play(Cluster(*endpoints(2), health=HealthCheck(Checks()), discovery=Sets([])))
    play.fail("a0", 5)
    assert play.bench.left["tasks"] == 2
    assert play.stopped() == {}
    play.fail("a1", 5)
    assert play.bench.left == {}


def test_stopped_it_forgets_a_task_that_takes_its_time_to_end() -> None:
    class Slow(Sets):
        def fresh(self) -> Slow:
            return self

        async def find(self) -> Found:
            with shielded(3):
                await sleep(2)
            return Found([named("a5")])

    play = Play(Cluster(*endpoints(1), discovery=Slow()))
    assert play.stopped()["tasks"] == 1
    play.wait(2)
    assert play.bench.left == {}


# ------------------------------------------------------------------------------------------------ what policies hear


class Hears(Sliced):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__(0)
        self.heard: list[str] = []

    def began(self, endpoint: Endpoint) -> None:
        self.heard.append(f"began {endpoint.name} {endpoint.in_flight} {self.view.in_flight}")

    def ended(self, endpoint: Endpoint) -> None:
        super().ended(endpoint)
        self.heard.append(f"ended {endpoint.name} {endpoint.in_flight} {self.view.in_flight}")

    def answered(self, endpoint: Endpoint, latency_s: float) -> None:
        self.heard.append(f"answered {endpoint.name} {latency_s:g}")

    def mark(self, exchange: Routed, endpoint: Endpoint, response: Response) -> None:
        self.heard.append(f"mark {exchange.request.target} {endpoint.name} {response.status}")


def test_a_policy_hears_of_each_attempt_in_its_order() -> None:
    play = Play(Cluster(*endpoints(2), policy=Hears()))
    policy = play.cluster.policy
    assert isinstance(policy, Hears)
    first, second = play.begin("a0"), play.begin("a1")
    play.wait(0.5)
    first.answer(201)
    second.end("upstream_timeout", 0)
    first.end()
    assert policy.heard == [
        "began a0 1 1", "began a1 1 2", "answered a0 0.5", "mark / a0 201", "ended a1 0 1", "ended a0 0 0",
    ]  # fmt: skip
    play.begin(filters_peer("a7")).answer().end()
    assert len(policy.heard) == 6


def test_a_policy_hears_of_a_change_where_it_makes_a_difference() -> None:
    play = Play(Cluster(*endpoints(3), policy=Sliced(0), slow_start=SlowStart(10, steps=1)))
    policy = sliced(play)
    play.choose()
    before = policy.changes
    play.turn(lambda: play.cluster.set_service("a0", "drain"))
    assert policy.changes == before  # nobody has asked since
    play.choose()
    assert policy.changes == before + 1
    play.turn(lambda: play.cluster.set_service("a0", "maintenance"))
    play.choose()
    assert policy.changes == before + 1  # it was not usable, and is not
    play.turn(lambda: play.cluster.set_service("a0", "ready"))
    play.choose()
    assert policy.changes == before + 2
    play.wait(10)
    play.choose()
    assert policy.changes == before + 3  # the same ones, with other weights


def test_a_policy_without_hooks_is_not_called() -> None:
    class Plain(Policy):
        def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
            return None

    play = Play(Cluster(*endpoints(1), policy=Plain()))
    play.succeed("a0")
    found = play.error()
    assert (found.reason, found.status) == ("no_healthy_endpoint", 503)


# ------------------------------------------------------------------------------------------- retries, and the rest


def test_retries_come_out_of_the_budget_and_only_first_attempts_go_into_it() -> None:
    play = Play(Cluster(*endpoints(2), budget=RetryBudget(share=0.5, floor_per_s=0)))
    for _ in range(4):
        play.choose()
        play.choose("a0")
    granted = [play.turn(lambda: play.cluster.may_retry(Asks())) for _ in range(3)]
    assert granted == [True, True, False]
    assert (play.cluster.retries.granted, play.cluster.retries.refused) == (2, 1)


def test_never_one_that_was_tried_while_another_is_open() -> None:
    play = Play(Cluster(*endpoints(3)))
    assert play.choose("a0", "a1") == "a2"
    play.fail("a2", 5)
    assert play.choose("a0", "a1") in ("a0", "a1")


def test_a_fresh_cluster_is_as_it_was_written() -> None:
    checks, other = Checks(), Checks()
    source = Sets([named("a5")])
    cluster = Cluster(
        *endpoints(2), policy=Hears(), health=HealthCheck(checks, rise=7), outliers=Outliers(consecutive_failures=9),
        breaker=Breaker(trials=3), budget=RetryBudget(share=0.7), slow_start=SlowStart(3), discovery=source, panic=0.25,
    )  # fmt: skip
    play = Play(cluster)
    play.succeed("a5")
    assert isinstance(cluster.policy, Hears)
    assert cluster.policy.heard
    fresh = cluster.fresh()
    assert [endpoint.name for endpoint in fresh.members] == ["a0", "a1"]
    assert isinstance(fresh.policy, Hears)
    assert fresh.policy.heard == []
    for name in ("health", "outliers", "breaker", "budget", "slow_start", "panic"):
        assert getattr(fresh, name) is getattr(cluster, name)
    assert isinstance(fresh.discovery, Sets)
    assert (fresh.discovery is source, fresh.discovery.asked) == (False, 0)
    probed = cluster.fresh(probe=other)
    assert probed.health == HealthCheck(other, rise=7)
    assert Cluster(A).fresh(probe=other).health is None


def test_before_it_starts_it_has_no_clock_and_tells_nobody() -> None:
    cluster = Cluster(*endpoints(2), breaker=Breaker(failures_max=1))
    assert (cluster.kernel, cluster.now, cluster.wall_clock) == (None, 0.0, 0.0)
    endpoint = cluster.members[0]
    cluster.begin(endpoint)
    cluster.end(endpoint, "upstream_reset", 0, 0.0)
    cluster.set_service("a1", "drain")
    assert [each.state for each in cluster.members] == ["circuit_open", "draining"]
    cluster.update(["http://10.0.0.9"])
    assert cluster.choose(Asks()).name == "10.0.0.9:80"
    cluster.stop()


def test_what_is_known_before_it_starts_is_minded_from_then_on() -> None:
    cluster = Cluster(*endpoints(2), breaker=Breaker(failures_max=1, open_s=5))
    cluster.begin(cluster.members[0])
    cluster.end(cluster.members[0], "upstream_reset", 0, 0.0)
    play = Play(cluster)
    assert cluster.rng is play.bench.rng
    play.wait(5)
    assert play.states["a0"] == "half_open"


def test_a_twin_for_a_simulation_has_its_own_endpoints_and_looks_for_no_others() -> None:
    async def find() -> list[str]:
        return ["http://10.0.0.9"]

    cluster = Cluster("http://10.0.0.1", discovery=Function(find))
    twin = cluster.fresh(endpoints=[Endpoint("http://10.0.0.2")])
    assert [each.name for each in twin.members] == ["10.0.0.2:80"]
    assert twin.discovery is None
    assert cluster.fresh().discovery is not None
