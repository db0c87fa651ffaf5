"""Our own codec beside h11, on valid messages and on damaged ones: where both accept, they have read the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coulee.core.codec import Role
from coulee.core.config import Limits
from coulee.core.http1 import Http1Codec
from coulee.core.http1_h11 import H11Codec
from tests.differential.messages import streams
from tests.differential.reading import Reading, asking, read, read_by_h11
from tests.differential.verdicts import THEY_REFUSE, WE_REFUSE, Verdict, compare, whole

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"


def examples(count: int) -> settings:
    """So many in each run of the tests, always the same ones; twenty times as many, each time others, when asked."""
    return settings(max_examples=count * 20 if THOROUGH else count, derandomize=not THOROUGH, deadline=None,
                    database=None, suppress_health_check=list(HealthCheck))  # fmt: skip


def read_by(kind: type[Http1Codec | H11Codec], role: Role, asked: str, pieces: list[bytes]) -> Reading:
    codec = kind(role, Limits())
    if role == "client":
        asking(codec, asked)
    return read(codec, role, pieces)


def both(asked: str | None, data: bytes) -> tuple[Reading, Reading]:
    """What we read, and what h11 reads."""
    role: Role = "server" if asked is None else "client"
    return read_by(Http1Codec, role, asked or "", [data]), read_by_h11(role, asked or "", data)


SIDES = pytest.mark.parametrize("asked", [None, "GET", "HEAD", "POST"], ids=["requests", "GET", "HEAD", "POST"])


@SIDES
def test_what_is_valid_is_accepted_and_both_read_the_same(asked: str | None) -> None:
    @examples(100)
    @given(streams(asked, 0))
    def holds(data: bytes) -> None:
        ours, theirs = both(asked, data)
        assert not ours.fault
        assert not compare(ours, theirs, data)
        ends = [event for event in ours.events if event[0] == "end"]
        assert ends
        if not theirs.fault:
            assert ours.events == theirs.events

    holds()


@SIDES
def test_where_both_accept_they_agree_and_every_difference_is_on_the_lists(asked: str | None) -> None:
    accepted = refused = 0

    @examples(300)
    @given(streams(asked, 4))
    def holds(data: bytes) -> None:
        nonlocal accepted, refused
        ours, theirs = both(asked, data)
        if ours.fault:
            refused += 1
        else:
            accepted += 1
        assert not compare(ours, theirs, data), (compare(ours, theirs, data), ours.events, theirs.events)

    holds()
    assert min(accepted, refused) > 20, "both kinds are there"


@SIDES
def test_no_split_changes_anything(asked: str | None) -> None:
    role: Role = "server" if asked is None else "client"

    @examples(120)
    @given(streams(asked, 4), st.lists(st.integers(0, 400), max_size=6))
    def holds(data: bytes, places: list[int]) -> None:
        once = read_by(Http1Codec, role, asked or "", [data] if data else [])
        cuts = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
        pieces = [data[one:two] for one, two in pairwise(cuts) if one < two]
        again = read_by(Http1Codec, role, asked or "", pieces)
        assert again.same(once), (pieces, once, again)

    holds()


@SIDES
def test_the_codec_on_h11_reads_the_same_too(asked: str | None) -> None:
    """It is h11 with checks of our own, for those who choose it: where it accepts as well, it has read the same."""
    role: Role = "server" if asked is None else "client"

    @examples(100)
    @given(streams(asked, 4))
    def holds(data: bytes) -> None:
        ours = whole(read_by(Http1Codec, role, asked or "", [data]))
        other = whole(read_by(H11Codec, role, asked or "", [data]))
        for one, two in zip(ours, other, strict=False):
            assert one == two

    holds()


# ------------------------------------------------------------------------------------------- the lists themselves


@pytest.mark.parametrize("verdict", WE_REFUSE, ids=[verdict.says for verdict in WE_REFUSE])
def test_each_reason_of_ours_is_one(verdict: Verdict) -> None:
    ours, theirs = both(None if verdict.role == "server" else "GET", verdict.example)
    assert verdict.covers(ours.fault, verdict.example), ours.fault
    assert not theirs.fault
    assert not compare(ours, theirs, verdict.example)


@pytest.mark.parametrize("verdict", THEY_REFUSE, ids=[verdict.says for verdict in THEY_REFUSE])
def test_each_reason_of_h11_is_one(verdict: Verdict) -> None:
    ours, theirs = both(None if verdict.role == "server" else "GET", verdict.example)
    assert not ours.fault
    assert verdict.covers(theirs.fault, verdict.example), theirs.fault
    assert not compare(ours, theirs, verdict.example)


def _without_a_list(monkeypatch: pytest.MonkeyPatch, rows: list[Verdict]) -> Callable[[Verdict], str]:
    kept = list(rows)
    monkeypatch.setattr("tests.differential.verdicts.WE_REFUSE", [])
    monkeypatch.setattr("tests.differential.verdicts.THEY_REFUSE", [])

    def judged(verdict: Verdict) -> str:
        assert verdict in kept
        return compare(*both(None if verdict.role == "server" else "GET", verdict.example), verdict.example)

    return judged


def test_a_difference_that_is_on_no_list_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = _without_a_list(monkeypatch, [*WE_REFUSE, *THEY_REFUSE])
    assert all(judged(verdict).startswith("we refuse, and h11 does not") for verdict in WE_REFUSE)
    assert all(judged(verdict).startswith("h11 refuses, and we do not") for verdict in THEY_REFUSE)
