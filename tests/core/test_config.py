"""What a configuration may not say."""

from __future__ import annotations

from math import inf, nan

import pytest

from coulee.core import Config, Limits, Retry, Timeouts
from coulee.core.peer import PeerLimits


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Limits(head_bytes_max=0), "head_bytes_max is 0; it must be above 0"),
        (lambda: Limits(pool_waiters_max=-1), "pool_waiters_max is -1; it must be above 0"),
        (lambda: Limits(buffer_low_bytes=70_000), "buffer_low_bytes is larger than buffer_high_bytes"),
        (lambda: Limits(head_bytes_max=70_000), "head_bytes_max is larger than buffer_high_bytes"),
        (lambda: Timeouts(linger_s=0), "linger_s is 0; it must be above 0"),
        (lambda: Timeouts(head_timeout_s=float("nan")), "head_timeout_s is nan; it must be above 0"),
        (lambda: Config(upgrades=("web socket",)), "upgrades: 'web socket' is no name of a protocol"),
        (lambda: Config(upgrades=("websocket", "H2C")), "upgrades: h2c would carry requests past every filter"),
        (lambda: Retry(retries_max=-1), "retries_max is -1; 0 switches retries off"),
        (
            lambda: Retry(reasons=("upstream_reset", "client_gone")),
            "reasons: 'client_gone' cannot be retried; it must be",
        ),
        (
            lambda: Retry(reasons=("upstream_status",)),
            "reasons: 'upstream_status' cannot be retried; it must be one of ",
        ),
        (lambda: Retry(statuses=(503, 200)), "statuses: 200 is no answer to try again; it must be from 300 to 599"),
        (lambda: Retry(statuses=(299,)), "statuses: 299 is no answer to try again"),
        (lambda: Retry(statuses=(600,)), "statuses: 600 is no answer to try again"),
        (lambda: Retry(try_timeout_s=-1), "try_timeout_s is -1; it must be a number of seconds, and 0 is none"),
        (lambda: Retry(total_timeout_s=inf), "total_timeout_s is inf; it must be a number of seconds"),
        (lambda: Retry(backoff_s=nan), "backoff_s is nan; it must be a number of seconds"),
        (lambda: Retry(backoff_max_s=-0.1), "backoff_max_s is -0.1; it must be a number of seconds"),
        (lambda: Retry(hedge_after_s=-0.1), "hedge_after_s is -0.1; it must be a number of seconds"),
        (lambda: PeerLimits(connections_max=0), "connections_max is 0; it must be above 0, or None"),
        (lambda: PeerLimits(waiters_max=-1), "waiters_max is -1; it must be above 0, or None"),
        (lambda: PeerLimits(wait_s=0.0), "wait_s is 0.0; it must be above 0, or None"),
        (lambda: PeerLimits(requests_max=0), "requests_max is 0; it must be above 0, or None"),
        (lambda: PeerLimits(requests_per_connection_max=0), "requests_per_connection_max is 0; it must be above 0"),
        (lambda: PeerLimits(connection_life_s=nan), "connection_life_s is nan; it must be above 0, or None"),
        (lambda: Config(underscore_in_names=True), "underscore_in_names is True; it must be one of 'drop', 'pass', 'r"),  # type: ignore[arg-type]
        (lambda: Config(http1_codec="h2"), "http1_codec is 'h2'; it must be one of 'own', 'h11'"),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(make: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()  # type: ignore[operator]


def test_what_may_be_none_or_for_ever() -> None:
    assert Limits(pool_waiters_max=0, replay_bytes_max=0).pool_waiters_max == 0
    assert Timeouts(answer_timeout_s=float("inf")).answer_timeout_s == float("inf")
    assert Retry(retries_max=0, reasons=(), statuses=(300, 599), backoff_s=0, backoff_max_s=0).retries_max == 0
    assert PeerLimits(waiters_max=0).waiters_max == 0
    assert PeerLimits() == PeerLimits(None, None, None, None, None, None)
    assert Limits(connections_per_address_max=0, refused_connections_max=0).refused_connections_max == 0
    assert Timeouts(body_rate_min_bytes_per_s=0, body_rate_grace_s=0).body_rate_grace_s == 0
