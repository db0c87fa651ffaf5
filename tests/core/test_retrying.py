"""Whether another attempt may follow, every combination of the rules' table; and how long it waits."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core import Retry
from coulee.core.config import RETRIABLE
from coulee.core.errors import REASONS
from coulee.core.retrying import IDEMPOTENT, UNPROCESSED, backoff_s, may_follow

METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "POST", "PATCH", "CONNECT", "PURGE")
WORDS = tuple(REASONS)
METHOD = st.sampled_from(METHODS)
WORD = st.sampled_from(WORDS)
RETRIES = st.builds(
    Retry,
    retries_max=st.integers(0, 5),
    reasons=st.lists(st.sampled_from(RETRIABLE), unique=True).map(tuple),
    statuses=st.sampled_from([(), (503,)]),
    non_idempotent=st.booleans(),
    try_timeout_s=st.sampled_from([0.0, 0.5]),
    backoff_s=st.floats(0, 10, allow_subnormal=False),
    backoff_max_s=st.floats(0, 10, allow_subnormal=False),
)


def test_what_is_idempotent() -> None:
    assert [method for method in METHODS if method in IDEMPOTENT] == [
        "GET",
        "HEAD",
        "OPTIONS",
        "PUT",
        "DELETE",
        "TRACE",
    ]


# One row: connected, the method is idempotent, non_idempotent, the reason is on the list, and what comes of it without
# a filter's word.
TABLE = [
    # connected, idempotent, non_idempotent, listed -> may follow
    (False, False, False, False, False),
    (False, False, False, True, True),
    (False, False, True, False, False),
    (False, False, True, True, True),
    (False, True, False, False, False),
    (False, True, False, True, True),
    (False, True, True, False, False),
    (False, True, True, True, True),
    (True, False, False, False, False),
    (True, False, False, True, False),
    (True, False, True, False, False),
    (True, False, True, True, True),
    (True, True, False, False, False),
    (True, True, False, True, True),
    (True, True, True, False, False),
    (True, True, True, True, True),
]


@pytest.mark.parametrize(("connected", "idempotent", "anyway", "listed", "follows"), TABLE)
@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_every_combination(
    connected: bool, idempotent: bool, anyway: bool, listed: bool, follows: bool, attempts: int
) -> None:
    retry = Retry(retries_max=2, reasons=("upstream_reset",) if listed else (), non_idempotent=anyway)
    for method in METHODS:
        if (method in IDEMPOTENT) is not idempotent:
            continue
        left = attempts <= 2
        for wanted, expected in ((None, follows), (True, True), (False, False)):
            got = may_follow(retry, attempts, "upstream_reset", method, connected=connected, wanted=wanted)
            assert got is (expected and left), (method, wanted)


@pytest.mark.parametrize("word", WORDS)
def test_without_a_setting_the_reasons_of_the_default_count_and_no_others(word: str) -> None:
    follows = may_follow(Retry(), 1, word, "GET", connected=True, wanted=None)
    assert follows is (word in Retry().reasons or word == "upstream_status")
    assert may_follow(Retry(reasons=()), 1, word, "GET", connected=True, wanted=None) is (word == "upstream_status")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("connected", [True, False])
def test_what_was_not_processed_may_be_sent_again_whatever_the_method(method: str, connected: bool) -> None:
    def follows(retry: Retry, attempts: int = 1, wanted: bool | None = None) -> bool:
        return may_follow(retry, attempts, "upstream_refused_stream", method, connected=connected, wanted=wanted)

    assert UNPROCESSED == "upstream_refused_stream"
    assert follows(Retry())
    assert follows(Retry(), 2)
    assert not follows(Retry(), 3), "the usual number of times"
    assert not follows(Retry(), wanted=False)
    assert not follows(Retry(reasons=("upstream_reset",))), "it can be switched off"


def test_a_status_is_never_on_the_list_for_its_own_setting_says_which() -> None:
    assert "upstream_status" not in RETRIABLE
    assert may_follow(Retry(reasons=()), 1, "upstream_status", "GET", connected=True, wanted=None)
    assert not may_follow(Retry(reasons=()), 1, "upstream_status", "POST", connected=True, wanted=None)


@pytest.mark.parametrize(("limit_s", "listed", "follows"), [(0.0, False, False), (0.5, False, True), (0.0, True, True)])
def test_the_limit_of_a_try_is_a_reason_of_its_own(limit_s: float, listed: bool, follows: bool) -> None:
    retry = Retry(reasons=("upstream_timeout",) if listed else (), try_timeout_s=limit_s)
    assert may_follow(retry, 1, "upstream_timeout", "GET", connected=True, wanted=None) is follows
    assert not may_follow(retry, 1, "upstream_timeout", "POST", connected=True, wanted=None)
    assert not may_follow(retry, 1, "upstream_invalid", "GET", connected=True, wanted=None)


@given(RETRIES, WORD, METHOD, st.booleans(), st.sampled_from([None, True, False]))
def test_there_are_never_more_than_retries_max(
    retry: Retry, word: str, method: str, connected: bool, wanted: bool | None
) -> None:
    attempts = 1
    while may_follow(retry, attempts, word, method, connected=connected, wanted=wanted):
        attempts += 1
        assert attempts <= 1 + retry.retries_max
    if wanted:
        assert attempts == 1 + retry.retries_max, "what a filter wants, it gets as long as there is one"


@given(RETRIES, WORD, METHOD, st.integers(1, 6), st.booleans())
def test_what_is_not_idempotent_and_was_sent_needs_somebodys_word(
    retry: Retry, word: str, method: str, attempts: int, connected: bool
) -> None:
    if may_follow(retry, attempts, word, method, connected=connected, wanted=None):
        assert not connected or retry.non_idempotent or method in IDEMPOTENT or word == UNPROCESSED
        assert word in RETRIABLE or word == "upstream_status"


@given(RETRIES, WORD, METHOD, st.integers(1, 6), st.booleans())
def test_a_filters_no_is_the_last_word(retry: Retry, word: str, method: str, attempts: int, connected: bool) -> None:
    assert not may_follow(retry, attempts, word, method, connected=connected, wanted=False)


# ------------------------------------------------------------------------------------------------------------ back-off


class Most(Random):
    """As little chance as there is: the longest wait."""

    def random(self) -> float:
        return 1.0


@pytest.mark.parametrize(
    ("attempts", "longest_s"), [(1, 0.0), (2, 0.025), (3, 0.05), (4, 0.1), (5, 0.2), (6, 0.25), (7, 0.25), (5000, 0.25)]
)
def test_the_longest_wait_doubles_up_to_its_end(attempts: int, longest_s: float) -> None:
    assert backoff_s(Retry(), attempts, Most()) == longest_s


def test_what_is_off_draws_nothing() -> None:
    rng = Random(1)
    assert backoff_s(Retry(backoff_s=0.0), 5, rng) == 0.0
    assert backoff_s(Retry(), 1, rng) == 0.0
    assert rng.random() == Random(1).random()
    assert backoff_s(Retry(backoff_max_s=0.0), 5, rng) == 0.0


@given(RETRIES, st.integers(1, 10_000), st.integers(0, 2**32))
def test_a_wait_has_its_bounds(retry: Retry, attempts: int, seed: int) -> None:
    wait_s = backoff_s(retry, attempts, Random(seed))
    assert 0.0 <= wait_s <= retry.backoff_max_s
    if attempts == 1:
        assert wait_s == 0.0
    elif attempts <= 30:
        assert wait_s <= retry.backoff_s * 2 ** (attempts - 2)
    if retry.backoff_s and attempts > 1:
        assert wait_s == Random(seed).random() * backoff_s(retry, attempts, Most()), (
            "the machine's chance, and no other"
        )


def test_waits_are_spread_over_all_of_their_range() -> None:
    rng = Random(7)
    waits = [backoff_s(Retry(backoff_s=1.0, backoff_max_s=1.0), 2, rng) for _ in range(1000)]
    tenths = [sum(1 for wait in waits if tenth <= 10 * wait < tenth + 1) for tenth in range(10)]
    assert min(tenths) > 70, "full jitter: as often short as long"
