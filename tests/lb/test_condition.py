"""The state of an endpoint, line by line; and the word for a cluster that has nothing to offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coulee.core.peer import PeerLimits
from coulee.lb.breaker import Breaker, Circuit
from coulee.lb.condition import condition, none_healthy, nothing_open, told, words
from coulee.lb.endpoint import Endpoint
from coulee.lb.health import Health, HealthCheck
from coulee.lb.outliers import Record
from tests.lb.play import Checks
from tests.lb.stub import endpoints

BREAKER = Breaker(failures_max=1, open_s=7, successes=1)


def endpoint() -> Endpoint:
    """One of which all is known, and all of it good."""
    made = endpoints(1)[0]
    made.health = Health(HealthCheck(Checks(), fall=1, interval_s=5, unhealthy_interval_s=2))
    made.record = Record()
    made.circuit = Circuit(BREAKER)
    return made


def in_maintenance(each: Endpoint) -> None:
    each.service, each.service_cause = "maintenance", "new disks"


def drained(each: Endpoint) -> None:
    each.service, each.service_cause = "drain", "moving"


def weightless(each: Endpoint) -> None:
    each.weight = 0


def unhealthy(each: Endpoint) -> None:
    assert each.health is not None
    each.health.note(False, "down")


def ejected(each: Endpoint) -> None:
    assert each.record is not None
    each.record.ejected_until, each.ejection_cause = 12.0, "5 failures in a row"


def open_circuit(each: Endpoint) -> None:
    assert each.circuit is not None
    each.circuit.note(True, 0.0)


def half_open_circuit(each: Endpoint) -> None:
    assert each.circuit is not None
    open_circuit(each)
    each.circuit.ring(7.0)


def warming(each: Endpoint) -> None:
    each.warm_since = 0.0


LINES: list[tuple[Callable[[Endpoint], None], str, str]] = [
    (in_maintenance, "maintenance", "new disks"),
    (drained, "draining", "moving"),
    (weightless, "draining", "its weight is 0"),
    (unhealthy, "unhealthy", "down"),
    (ejected, "ejected", "5 failures in a row"),
    (open_circuit, "circuit_open", "1 failures in a row"),
    (half_open_circuit, "half_open", "1 failures in a row"),
    (warming, "slow_start", ""),
    (lambda each: None, "healthy", ""),
]


@pytest.mark.parametrize("number", range(len(LINES)))
def test_the_first_line_of_the_table_that_applies_is_the_state(number: int) -> None:
    line, state, cause = LINES[number]
    for other, _, _ in LINES[number:]:
        each = endpoint()
        if (line, other) != (open_circuit, half_open_circuit):  # which cannot both be
            other(each)
        if other is not line:
            line(each)
        assert condition(each) == (state, cause)


def test_an_endpoint_of_which_nothing_is_known_is_healthy() -> None:
    assert condition(endpoints(1)[0]) == ("healthy", "")


# ------------------------------------------------------------------------------------------ nothing to offer


def error(*members: Endpoint, now: float = 0.0, discovery_error: str = "") -> tuple[str, str, float]:
    """The word, the detail, and when to ask again."""
    found = nothing_open(members, now, discovery_error)
    return found.reason, found.detail, found.retry_after_s


def closed(*whats: Callable[[Endpoint], None]) -> list[Endpoint]:
    """Endpoints, each with something that speaks against it."""
    members = endpoints(len(whats))
    for each, what in zip(members, whats, strict=True):
        known = endpoint()
        each.health, each.record, each.circuit = known.health, known.record, known.circuit
        what(each)
        each.usable = each.open = False
        each.state, each.cause = condition(each)
    return members


@pytest.mark.parametrize(
    ("whats", "now", "expected"),
    [
        ([unhealthy], 0.0, ("no_healthy_endpoint", "a0 is unhealthy (down)", 2.0)),
        ([ejected], 0.0, ("no_healthy_endpoint", "a0 is ejected (5 failures in a row)", 12.0)),
        ([ejected], 11.9, ("no_healthy_endpoint", "a0 is ejected (5 failures in a row)", 1.0)),
        ([open_circuit], 1.0, ("circuit_open", "a0 is circuit open (1 failures in a row)", 6.0)),
        ([half_open_circuit], 7.0, ("circuit_open", "a0 is half open (1 failures in a row)", 1.0)),
        ([drained], 0.0, ("no_healthy_endpoint", "a0 is draining (moving)", 1.0)),
        (
            [in_maintenance, weightless],
            0.0,
            ("no_healthy_endpoint", "a0 is maintenance (new disks); a1 is draining (its weight is 0)", 1.0),
        ),
        (
            [ejected, unhealthy],
            0.0,
            ("no_healthy_endpoint", "a0 is ejected (5 failures in a row); a1 is unhealthy (down)", 2.0),
        ),
        ([unhealthy, open_circuit], 0.0, ("circuit_open", "a1 is circuit open (1 failures in a row); and 1 more", 2.0)),
        (
            [unhealthy] * 5,
            0.0,
            (
                "no_healthy_endpoint",
                "a0 is unhealthy (down); a1 is unhealthy (down); a2 is unhealthy (down); and 2 more",
                2.0,
            ),
        ),
    ],
)
def test_the_word_that_fits_best_and_when_to_ask_again(
    whats: Any, now: float, expected: tuple[str, str, float]
) -> None:
    assert error(*closed(*whats), now=now) == expected


def test_who_will_not_be_back_soon_is_not_waited_for_longer_than_a_minute() -> None:
    members = closed(ejected)
    assert members[0].record is not None
    members[0].record.ejected_until = 500.0
    assert error(*members)[2] == 60.0


def test_where_every_endpoint_is_full_it_is_the_limit_that_is_reached() -> None:
    members = closed(unhealthy, drained, lambda each: None)
    members[2].limits, members[2].in_flight, members[2].usable = PeerLimits(requests_max=1), 1, True
    assert error(*members) == ("pool_full", "every endpoint has as many requests in flight as it may have", 1.0)


def test_one_that_is_half_open_and_has_its_trials_is_not_full() -> None:
    members = closed(half_open_circuit)
    assert members[0].circuit is not None
    members[0].circuit.begin()
    members[0].usable = True  # so it is, in the few trials that it may have
    assert error(*members)[0] == "circuit_open"


def test_a_policy_may_offer_none_though_some_are_open() -> None:
    members = closed(unhealthy, drained)
    members[1].usable = members[1].open = True
    detail = "the policy offers this request none of those that are open"
    assert error(*members) == ("no_healthy_endpoint", detail, 1.0)


def test_a_cluster_without_endpoints_says_what_is_wrong_with_their_source() -> None:
    assert error() == ("no_healthy_endpoint", "the cluster has no endpoints yet", 1.0)
    assert error(discovery_error="no such name") == (
        "no_healthy_endpoint",
        "the cluster has no endpoints: no such name",
        1.0,
    )


def test_what_is_said_of_those_that_are_used_though_none_is_healthy_does_not_depend_on_their_being_open() -> None:
    members = closed(unhealthy, unhealthy)
    for each in members:
        each.usable = each.open = True
    found = none_healthy(members, 0.0)
    assert (found.reason, found.detail) == ("no_healthy_endpoint", "a0 is unhealthy (down); a1 is unhealthy (down)")


# --------------------------------------------------------------------------------------------------- what is told


def test_what_is_told_of_an_endpoint_does_not_change_any_more() -> None:
    each = endpoint()
    each.since, each.in_flight, each.requests, each.cause, each.state = 3.0, 2, 7, "why", "unhealthy"
    each.failures = {"503": 1}
    for _ in range(98):
        each.latency.add(0.01)
    for _ in range(2):
        each.latency.add(1.0)
    status = told(each, 100.0)
    each.failures["503"] = 2
    assert (status.name, status.weight, status.state, status.cause, status.since) == (
        "a0",
        1,
        "unhealthy",
        "why",
        103.0,
    )
    assert (status.in_flight, status.requests, status.failures) == (2, 7, {"503": 1})
    assert status.p50_s == pytest.approx(0.01, rel=0.12)
    assert status.p99_s == pytest.approx(1.0, rel=0.12)


def test_states_as_people_write_them() -> None:
    assert [words("circuit_open"), words("healthy")] == ["circuit open", "healthy"]
