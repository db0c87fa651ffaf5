"""Clusters in a real proxy, as packet traces: who is asked, what is in flight, what the client is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coulee.core import Config, Exchange, Filter, Proxy
from coulee.core.config import Retry
from coulee.core.effects import fetch
from coulee.core.parts import Request, Response
from coulee.core.peer import Peer, Routed
from coulee.core.seam import Received
from coulee.lb.breaker import Breaker
from coulee.lb.budget import RetryBudget
from coulee.lb.cluster import Cluster
from coulee.lb.endpoint import Endpoint
from coulee.lb.health import HealthCheck
from coulee.lb.loads import PeakEwma
from coulee.lb.policy import Policy
from coulee.lb.turns import RoundRobin
from tests.core.world import World
from tests.lb.play import Checks
from tests.lb.stub import endpoints

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Trace:
    """A proxy before a cluster."""

    def __init__(self, cluster: Cluster, *filters: Filter, retry: Retry | None = None) -> None:
        self.proxy = Proxy(cluster, filters, Config(retry=retry or Retry()), listen=[("127.0.0.1", 8000)])
        self.world = World(self.proxy)
        assert isinstance(self.proxy.balancer, Cluster)
        self.cluster = self.proxy.balancer
        self.client = self.world.client()

    def asks(self) -> None:
        """The client sends a request."""
        self.world.receives(self.client, REQUEST)

    @property
    def asked(self) -> list[str]:
        """Where connections are being opened to."""
        return [connect.address[0] for connect in self.world.connecting]

    @property
    def in_flight(self) -> list[int]:
        """At each endpoint."""
        assert self.cluster.in_flight == sum(each.in_flight for each in self.cluster.members)
        return [each.in_flight for each in self.cluster.members]

    def told(self) -> str:
        """What the client has been sent."""
        return self.world.sent(self.client).decode()


def test_a_request_goes_on_to_another_endpoint_and_each_attempt_is_told_once() -> None:
    trace = Trace(Cluster(*endpoints(2)))
    trace.asks()
    assert (trace.asked, trace.in_flight) == (["10.0.0.0"], [1, 0])
    trace.world.refuses()
    assert (trace.asked, trace.in_flight) == (["10.0.0.1"], [0, 1])
    origin = trace.world.connects()
    trace.world.receives(origin, ANSWER)
    assert trace.told().startswith("HTTP/1.1 200 OK")
    assert trace.in_flight == [0, 0]
    assert [each.failures for each in trace.cluster.members] == [{"upstream_refused": 1}, {}]


def test_without_a_budget_the_first_failure_is_the_answer() -> None:
    trace = Trace(Cluster(*endpoints(2), budget=RetryBudget(share=0, floor_per_s=0)))
    trace.asks()
    trace.world.refuses()
    assert trace.told().startswith("HTTP/1.1 502 ")
    assert trace.cluster.retries.refused == 1


def test_with_all_dead_it_is_503_at_once_with_the_reason_and_when_to_come_back() -> None:
    checks = Checks()
    checks.bad = {"a0": "down", "a1": "down"}
    trace = Trace(Cluster(*endpoints(2), health=HealthCheck(checks, fall=1, interval_s=7, unhealthy_interval_s=7)))
    trace.asks()
    told = trace.told()
    assert told.startswith("HTTP/1.1 503 ")
    assert "\r\nRetry-After: 7\r\n" in told
    assert trace.world.access[-1].reason == "no_healthy_endpoint"
    assert trace.world.access[-1].detail == "a0 is unhealthy (down); a1 is unhealthy (down)"


def test_with_all_circuits_open_it_says_so() -> None:
    trace = Trace(Cluster(*endpoints(2), outliers=None, breaker=Breaker(failures_max=1, open_s=9)))
    trace.asks()
    trace.world.refuses()
    trace.world.refuses()
    assert trace.told().startswith("HTTP/1.1 502 ")
    trace.asks()
    told = trace.told()
    assert told.startswith("HTTP/1.1 503 ")
    assert "\r\nRetry-After: 9\r\n" in told
    assert trace.world.access[-1].reason == "circuit_open"


def test_a_circuit_is_closed_by_the_head_of_a_trials_answer() -> None:
    trace = Trace(Cluster(*endpoints(1), outliers=None, breaker=Breaker(failures_max=1, open_s=1, successes=1)))
    trace.asks()
    trace.world.refuses()
    assert [each.state for each in trace.cluster.members] == ["circuit_open"]
    trace.told()
    trace.world.wait(1)
    trace.asks()
    assert [each.state for each in trace.cluster.members] == ["half_open"]
    trace.world.receives(trace.world.connects(), ANSWER[:-1])
    assert [each.state for each in trace.cluster.members] == ["healthy"]


class Marks(RoundRobin):
    """Says who has answered, and looks at nothing else of an answer."""

    def mark(self, exchange: Routed, endpoint: Endpoint, response: Response) -> None:
        response.headers.set("X-From", endpoint.name)


@pytest.mark.parametrize("policy", [PeakEwma(), Marks()], ids=["scores", "marks"])
def test_a_policy_that_looks_at_answers_is_shown_them(policy: Policy) -> None:
    trace = Trace(Cluster(*endpoints(1), policy=policy))
    trace.asks()
    trace.world.wait(0.5)
    trace.world.receives(trace.world.connects(), ANSWER)
    chooser = trace.cluster.policy
    if isinstance(chooser, PeakEwma):
        assert [chooser.latency_s(each) for each in trace.cluster.members] == [0.5]
    else:
        assert "\r\nX-From: a0\r\n" in trace.told()


def test_who_fails_open_and_fails_everywhere_answers_for_the_cluster() -> None:
    checks = Checks()
    checks.bad = {"a0": "down", "a1": "down"}
    trace = Trace(Cluster(*endpoints(2), health=HealthCheck(checks, fall=1), panic=0.5))
    trace.asks()
    trace.world.refuses()
    trace.world.refuses()
    assert trace.told().startswith("HTTP/1.1 503 ")
    assert [(attempt.peer, attempt.reason) for attempt in trace.world.access[-1].attempts] == [
        ("a0", "upstream_refused"), ("a1", "upstream_refused"),
    ]  # fmt: skip
    assert trace.world.access[-1].reason == "no_healthy_endpoint"


def test_a_client_that_leaves_ends_its_attempt_and_blames_nobody() -> None:
    trace = Trace(Cluster(*endpoints(1)))
    trace.asks()
    trace.world.connects()
    assert trace.in_flight == [1]
    trace.world.resets(trace.client)
    assert trace.in_flight == [0]
    assert (trace.cluster.members[0].requests, trace.cluster.members[0].failures) == (1, {})


def test_a_hedged_request_is_in_flight_twice_and_who_comes_too_late_is_not_blamed() -> None:
    trace = Trace(Cluster(*endpoints(2)), retry=Retry(hedge_after_s=1))
    trace.asks()
    slow = trace.world.connects()
    assert trace.in_flight == [1, 0]
    trace.world.wait(1)
    assert trace.in_flight == [1, 1]
    quick = trace.world.connects()
    trace.world.receives(quick, ANSWER)
    assert trace.told().startswith("HTTP/1.1 200 OK")
    assert trace.in_flight == [0, 0]
    assert slow in trace.world.closed
    assert [each.failures for each in trace.cluster.members] == [{}, {}]
    assert [each.latency.count for each in trace.cluster.members] == [0, 1]
    assert trace.cluster.retries.granted == 1


def test_a_sub_request_is_a_request_like_any_other() -> None:
    class Asks(Filter):
        async def request_filter(self, exchange: Exchange) -> None:
            await fetch(Request("GET", "/who"))

    trace = Trace(Cluster(*endpoints(2)), Asks())
    trace.asks()
    assert trace.in_flight == [1, 0]
    first = trace.world.connects()
    trace.world.receives(first, ANSWER)
    assert trace.in_flight == [0, 1]
    second = trace.world.connects()
    trace.world.receives(second, ANSWER)
    assert trace.in_flight == [0, 0]
    assert [each.latency.count for each in trace.cluster.members] == [1, 1]


@pytest.mark.parametrize(("address", "counts"), [("10.0.0.1", [0, 1]), ("10.9.9.9", [0, 0])])
def test_a_peer_of_a_filter_counts_where_its_address_is_an_endpoints(address: str, counts: list[int]) -> None:
    class Chooses(Filter):
        def upstream_peer(self, exchange: Exchange) -> Peer:
            return Peer((address, 80), "mine")

    trace = Trace(Cluster(*endpoints(2)), Chooses())
    trace.asks()
    assert trace.in_flight == counts
    origin = trace.world.connects()
    trace.world.receives(origin, ANSWER)
    assert trace.in_flight == [0, 0]
    assert [each.requests for each in trace.cluster.members] == counts
    assert trace.world.access[-1].peer == "mine"


def test_connections_to_an_endpoint_that_leaves_end_and_its_exchange_goes_on() -> None:
    trace = Trace(Cluster(*endpoints(2)))
    trace.asks()
    origin = trace.world.connects()
    leaver = trace.cluster.members[0]
    trace.cluster.update(endpoints(2)[1:])
    trace.world.gives(None)
    assert (leaver.in_flight, trace.cluster.in_flight) == (1, 1)
    trace.world.receives(origin, ANSWER)
    assert trace.told().startswith("HTTP/1.1 200 OK")
    assert origin in trace.world.closed  # it would lie idle for nobody
    assert (leaver.in_flight, trace.cluster.in_flight) == (0, 0)


def test_a_drained_proxy_leaves_nothing() -> None:
    trace = Trace(Cluster(*endpoints(2), health=HealthCheck(Checks())))
    trace.asks()
    origin = trace.world.connects()
    trace.world.gives(Received(origin, ANSWER))
    trace.world.resets(trace.client)
    trace.proxy.balancer.stop()
    trace.world.leaves_nothing()


# -------------------------------------------------------------------------------------------------- equal seeds

RUN = """
from random import Random
from coulee.lb.breaker import Breaker
from coulee.lb.cluster import Cluster
from coulee.lb.health import HealthCheck
from coulee.lb.loads import PeakEwma
from tests.lb.play import Checks, Play
from tests.lb.stub import endpoints

chance = Random(7)
checks = Checks()
names = [f"a{i}" for i in range(12)]
play = Play(Cluster(*endpoints(8), policy=PeakEwma(), health=HealthCheck(checks, fall=1), breaker=Breaker(), panic=0.3))
going = []
for _ in range(1500):
    what = chance.random()
    if what < 0.45:
        if play.choose() in names:
            going.append(play.begin())
            print(going[-1].name)
    elif what < 0.8 and going:
        going.pop(chance.randrange(len(going))).end(*chance.choice([("", 200), ("", 503), ("upstream_reset", 0)]))
    elif what < 0.9:
        play.wait(chance.random() * 3)
    elif what < 0.95:
        checks.bad = {name: "down" for name in names if chance.random() < 0.3}
    elif what < 0.97:
        play.update(*(name for name in names if name == "a0" or chance.random() < 0.6))
    else:
        play.turn(lambda: play.cluster.set_weight("a0", chance.randrange(1, 9)))
print(play.events)
"""


def test_equal_seeds_give_equal_choices_whatever_the_order_of_hashes() -> None:
    root = Path(__file__).parents[2]
    path = ":".join(str(root / each) for each in ("core", "lb", "backends", "."))
    runs: list[str] = []
    for seed in ("1", "2"):
        env = {"PYTHONPATH": path, "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", RUN], env=env, capture_output=True, text=True, check=True)
        runs.append(run.stdout)
    assert runs[0] == runs[1]
    assert len({line for line in runs[0].splitlines() if line.startswith("a")}) == 12
