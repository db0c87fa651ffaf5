"""Health: the written table of rise and fall, and settings that make no sense."""

from __future__ import annotations

import re
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.lb.endpoint import Endpoint
from coulee.lb.health import NOT_CHECKED_YET, CheckFailed, Health, HealthCheck


async def probe(endpoint: Endpoint) -> None:
    """Never called."""


def played(checks: str, **settings: Any) -> str:
    """The state after each check, `+` for a good check or a healthy endpoint, `-` for a bad one."""
    health = Health(HealthCheck(probe, **settings))
    states = ""
    for check in checks:
        before = health.healthy
        assert health.note(check == "+", "" if check == "+" else "why") == (health.healthy != before)
        states += "+" if health.healthy else "-"
    return states


@pytest.mark.parametrize(
    ("checks", "states"),
    [
        ("---", "++-"),
        ("--+--+---", "++++++++-"),
        ("---++", "++--+"),
        ("---+-+-++", "++------+"),
        ("---++--+---", "++--++++++-"),
        ("---++---", "++--++" + "+-"),
    ],
)
def test_fall_bad_checks_in_a_row_make_unhealthy_and_rise_good_ones_healthy(checks: str, states: str) -> None:
    assert played(checks, rise=2, fall=3) == states


def test_with_a_rise_and_a_fall_of_one_each_check_decides() -> None:
    assert played("-+--++", rise=1, fall=1) == "-+--++"


@pytest.mark.parametrize(
    ("checks", "states"),
    [("+", "+"), ("+---", "+++-"), ("-+++", "---+"), ("-+-+++", "-----+")],
)
def test_what_starts_unhealthy_is_healthy_with_its_first_check_or_after_rise_good_ones(
    checks: str, states: str
) -> None:
    assert played(checks, rise=3, fall=3, start="unhealthy") == states


def test_what_starts_healthy_is_not_condemned_by_its_first_check() -> None:
    assert played("-", fall=2) == "+"


def test_the_cause_is_that_of_the_last_bad_check_while_it_is_unhealthy() -> None:
    health = Health(HealthCheck(probe, fall=2, rise=2))
    causes = [health.cause]
    for ok, cause in ((False, "a"), (False, "b"), (False, "c"), (True, ""), (True, ""), (False, "d")):
        health.note(ok, cause)
        causes.append(health.cause)
    assert causes == ["", "", "b", "c", "c", "", ""]


def test_what_was_not_checked_says_so() -> None:
    assert Health(HealthCheck(probe, start="unhealthy")).cause == NOT_CHECKED_YET
    assert Health(HealthCheck(probe)).cause == ""


def test_checks_are_counted() -> None:
    health = Health(HealthCheck(probe))
    for ok in (True, False, True, False, False):
        health.note(ok, "")
    assert (health.checks, health.failed) == (5, 3)


def test_checks_are_closer_while_it_is_unhealthy_or_on_the_way_to_a_change() -> None:
    health = Health(HealthCheck(probe, interval_s=5, unhealthy_interval_s=1, rise=2, fall=2))
    intervals = [health.interval_s]
    for ok in (False, True, False, False, True, True):
        health.note(ok, "why")
        intervals.append(health.interval_s)
    assert intervals == [5, 1, 5, 1, 1, 1, 5]


def test_checks_are_never_further_apart_than_the_interval() -> None:
    health = Health(HealthCheck(probe, interval_s=0.2, unhealthy_interval_s=1))
    health.note(False, "why")
    assert health.interval_s == 0.2


@given(
    st.lists(st.booleans(), max_size=60),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(["healthy", "unhealthy"]),
)
def test_the_state_changes_exactly_where_the_checks_since_the_last_change_say_so(
    checks: list[bool], rise: int, fall: int, start: Literal["healthy", "unhealthy"]
) -> None:
    health = Health(HealthCheck(probe, rise=rise, fall=fall, start=start))
    healthy = start == "healthy"
    since: list[bool] = []
    for index, ok in enumerate(checks):
        since.append(ok)
        first = index == 0 and not healthy
        needed = fall if healthy else 1 if first else rise
        changes = len(since) >= needed and all(each != healthy for each in since[-needed:])
        assert health.note(ok, "" if ok else f"why {index}") == changes
        if changes:
            healthy = not healthy
            since = []
        assert health.healthy == healthy
        assert (health.cause == "") == healthy
        assert (health.interval_s == 5.0) == (healthy and (not since or since[-1]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval_s": 0}, "interval_s is 0; it must be above 0, and finite"),
        ({"interval_s": float("inf")}, "interval_s is inf; it must be above 0, and finite"),
        ({"interval_s": float("nan")}, "interval_s is nan; it must be above 0, and finite"),
        ({"unhealthy_interval_s": -1}, "unhealthy_interval_s is -1; it must be above 0, and finite"),
        ({"timeout_s": 0}, "timeout_s is 0; it must be above 0, and finite"),
        ({"rise": 0}, "rise is 0; it must be 1 or more"),
        ({"fall": 0}, "fall is 0; it must be 1 or more"),
        ({"at_once_max": 0}, "at_once_max is 0; it must be 1 or more"),
        ({"jitter": 1}, "jitter is 1; it must be a share of the interval, from 0 to below 1"),
        ({"jitter": -0.1}, "jitter is -0.1; it must be a share of the interval, from 0 to below 1"),
        ({"start": "up"}, "start is 'up'; it must be 'healthy' or 'unhealthy'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        HealthCheck(probe, **settings)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n", "not TLS: HTTP/1.1 400 Bad Request"),
        (b"SSH-2.0-OpenSSH_9.2\n", "not TLS: SSH-2.0-OpenSSH_9.2"),
        (b"\0\x01\xff\n", "not TLS: \\x00\\x01\\xff"),
        (b"a" * 100, "not TLS: " + "a" * 60),
        (b"\r\nab", "not TLS: ab"),
    ],
)
def test_what_is_not_of_the_protocol_is_shown_by_its_first_line(data: bytes, text: str) -> None:
    assert str(CheckFailed.unlike("TLS", data)) == text
