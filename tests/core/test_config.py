"""What a configuration may not say."""

from __future__ import annotations

import pytest

from coulee.core import Config, Limits, Retry, Timeouts


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
    assert Retry(retries_max=0).retries_max == 0
    assert Limits(connections_per_address_max=0, refused_connections_max=0).refused_connections_max == 0
    assert Timeouts(body_rate_min_bytes_per_s=0, body_rate_grace_s=0).body_rate_grace_s == 0
