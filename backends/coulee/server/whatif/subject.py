"""The cluster that is played: the program's own, with other endpoints where the scenario has some, and with checks that
ask the model.
"""

from __future__ import annotations

from random import Random
from typing import Literal, TypeAlias

from coulee.core import Proxy
from coulee.lb import Cluster
from coulee.lb.endpoint import Endpoint, Service
from coulee.lb.health import Probe
from coulee.server.whatif.scenario import Scenario


def endpoints_of(scenario: Scenario) -> list[Endpoint]:
    """The endpoints that the scenario puts in place of the program's; none where it keeps those."""
    zones = scenario.zones or ("",)
    return [
        Endpoint((f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}", 80), name=f"a{at}", zone=zones[at % len(zones)])
        for at in range(scenario.count)
    ]


def machine_for(definition: Proxy, scenario: Scenario, probe: Probe) -> tuple[Proxy, Cluster]:
    """A machine that listens nowhere, whose cluster has the scenario's endpoints, none of them discovered, and asks
    `probe` in place of its checks. Raises `ValueError` where there is no endpoint."""
    cluster = definition.balancer
    if not isinstance(cluster, Cluster):
        what = type(cluster).__name__
        raise ValueError(f"its balancer is a {what}, not a Cluster; only clusters can be simulated")  # noqa: TRY004
    endpoints = endpoints_of(scenario) or cluster.definition
    if not endpoints:
        raise ValueError("its endpoints come from discovery; say how many there are, as `count = 3` in [endpoints]")
    proxy = Proxy(cluster, (), definition.config, rng=Random(f"{scenario.seed} machine"))
    proxy.balancer = machine = cluster.fresh(probe=probe, endpoints=endpoints)
    return proxy, machine


Order: TypeAlias = Service | Literal["weight"]
"""Something that an operator says of an endpoint."""


def order(cluster: Cluster, name: str, what: Order, weight: int) -> None:
    """What an operator would say."""
    if what == "weight":
        cluster.set_weight(name, weight)
    else:
        cluster.set_service(name, what, "the scenario says so")
