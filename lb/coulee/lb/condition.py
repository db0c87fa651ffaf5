"""What all that is known of an endpoint comes to: its state, with the cause; and why a cluster has nothing to offer.

The first line that applies:

| an operator said maintenance       | maintenance    | nothing                                   |
| an operator said drain             | draining       | nothing new                               |
| its weight is 0                    | draining       | nothing new                               |
| its checks fail                    | unhealthy      | nothing, unless the cluster fails open    |
| requests failed at it              | ejected        | nothing, unless the cluster fails open    |
| its circuit is open                | circuit_open   | nothing                                   |
| its circuit is half open           | half_open      | a few trials                              |
| it has just come up                | slow_start     | a part of its weight                      |
| none of these                      | healthy        | its weight                                |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from coulee.core.errors import ExchangeError
from coulee.lb.endpoint import Endpoint, State

_SHOWN_MAX: Final = 3
"""Endpoints that an error's detail names."""


def condition(endpoint: Endpoint) -> tuple[State, str]:
    """The state of an endpoint by the table above, and why it is that."""
    if endpoint.service == "maintenance":
        return "maintenance", endpoint.service_cause
    if endpoint.service == "drain":
        return "draining", endpoint.service_cause
    if not endpoint.weight:
        return "draining", "its weight is 0"
    health, circuit = endpoint.health, endpoint.circuit
    if health is not None and not health.healthy:
        return "unhealthy", health.cause
    if endpoint.ejected:
        return "ejected", endpoint.ejection_cause
    if circuit is not None and circuit.state != "closed":
        return "circuit_open" if circuit.state == "open" else "half_open", circuit.cause
    if endpoint.warm_since >= 0:
        return "slow_start", ""
    return "healthy", ""


def nothing_open(members: Sequence[Endpoint], now: float, discovery_error: str) -> ExchangeError:
    """Why no endpoint can be offered, in the word that fits best, and when to ask again."""
    if not members:
        why = f": {discovery_error}" if discovery_error else " yet"
        return ExchangeError("no_healthy_endpoint", f"the cluster has no endpoints{why}")
    if any(endpoint.open for endpoint in members):
        return ExchangeError("no_healthy_endpoint", "the policy offers this request none of those that are open")
    if any(_full(endpoint) for endpoint in members):
        return ExchangeError("pool_full", "every endpoint has as many requests in flight as it may have")
    return none_healthy(members, now)


def none_healthy(members: Sequence[Endpoint], now: float) -> ExchangeError:
    """What each endpoint is, where none is what it should be, and when one will be tried again."""
    again = min((_back_at(endpoint, now) for endpoint in members), default=inf)
    retry_after_s = min(max(again - now, 1.0), 60.0) if again != inf else 1.0
    broken = [endpoint for endpoint in members if endpoint.state in ("circuit_open", "half_open")]
    reason = "circuit_open" if broken else "no_healthy_endpoint"
    shown = [f"{each.name} is {words(each.state)} ({each.cause})" for each in (broken or members)[:_SHOWN_MAX]]
    more = len(members) - len(shown)
    detail = "; ".join(shown) + (f"; and {more} more" if more > 0 else "")
    return ExchangeError(reason, detail, retry_after_s=retry_after_s)


def words(state: State) -> str:
    """A state as people write it."""
    return state.replace("_", " ")


def _full(endpoint: Endpoint) -> bool:
    """Whether it is not open though it is usable, and has no trials going on: for what it has in flight."""
    return endpoint.usable and (endpoint.circuit is None or endpoint.circuit.allows)


def _back_at(endpoint: Endpoint, now: float) -> float:
    """When an endpoint will be tried again, where that is known."""
    if endpoint.record.ejected_until:
        return endpoint.record.ejected_until
    if endpoint.circuit is not None and endpoint.circuit.state == "open":
        return endpoint.circuit.until
    if endpoint.health is not None and not endpoint.health.healthy:
        return now + endpoint.health.interval_s
    return inf


@dataclass(slots=True)
class Status:
    """What is known of one endpoint. `since` is in seconds since 1970; latencies are to the head of the answer, over
    the last minute or two."""

    name: str
    weight: int
    state: State
    cause: str
    since: float
    in_flight: int
    requests: int
    failures: dict[str, int] = field(default_factory=dict[str, int])
    p50_s: float = 0.0
    p99_s: float = 0.0


def told(endpoint: Endpoint, wall_clock_offset_s: float) -> Status:
    """What is known of an endpoint, in a form that does not change any more."""
    return Status(
        endpoint.name,
        endpoint.weight,
        endpoint.state,
        endpoint.cause,
        endpoint.since + wall_clock_offset_s,
        endpoint.in_flight,
        endpoint.requests,
        dict(endpoint.failures),
        endpoint.latency.quantile(0.5),
        endpoint.latency.quantile(0.99),
    )
