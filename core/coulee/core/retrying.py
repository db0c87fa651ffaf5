"""Whether a failed attempt may be followed by another, and after what wait: the rules, apart from who keeps them.

    no connection could be had     any method; at an endpoint not tried yet, for this one would refuse again
    it was not processed, as the   any method; at this endpoint too, on another connection (RFC 9113 section 8.7)
    endpoint said itself
    it died, or took too long,     idempotent methods only, unless `non_idempotent`
    or answered a status of
    `statuses`

A filter's word counts for more than these, but not for more than `retries_max`, than what can be sent again, or than
the cluster's budget.
"""

from __future__ import annotations

from random import Random
from typing import Final

from coulee.core.config import Retry

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
"""Sending these twice has the effect of sending them once (RFC 9110 section 9.2.2)."""

UNPROCESSED: Final = "upstream_refused_stream"
"""The reason of an attempt of which the endpoint has said that it did nothing about it."""


def may_follow(retry: Retry, attempts: int, reason: str, method: str, *, connected: bool, wanted: bool | None) -> bool:
    """Whether the `attempts`-th attempt, which failed with `reason`, may be followed by another. `wanted` is a filter's
    word, None where none was said."""
    if attempts > retry.retries_max or wanted is False:
        return False
    if wanted:
        return True
    may_repeat = retry.non_idempotent or method in IDEMPOTENT or reason == UNPROCESSED
    if connected and not may_repeat:
        return False
    own_limit = reason == "upstream_timeout" and retry.try_timeout_s > 0
    return reason in retry.reasons or reason == "upstream_status" or own_limit


def backoff_s(retry: Retry, attempts: int, rng: Random) -> float:
    """How long to wait after the `attempts`-th attempt before an endpoint is tried again: not at all after the first,
    then full jitter (Brooker, Exponential Backoff And Jitter, 2015)."""
    if attempts < 2 or not retry.backoff_s:
        return 0.0
    doubled = retry.backoff_s * 2.0 ** min(attempts - 2, 32)
    return rng.random() * min(doubled, retry.backoff_max_s)
