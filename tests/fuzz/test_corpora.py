"""The corpora of the fuzzer, replayed without it, and what they have to be."""

from __future__ import annotations

import pytest

from fuzz import corpus
from fuzz.targets import TARGETS, Target

BY_HAND_MIN = {"http1": 300, "http2": 200, "websocket": 300}
FOUND_MIN = 50
BYTES_MAX = 200_000

every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@every_target
def test_every_case_of_a_corpus_has_every_property(target: Target) -> None:
    by_hand, found = corpus.load(target.corpus, target.case.from_line)
    for case in [*by_hand, *found]:
        try:
            target.check(case)
        except AssertionError as error:
            raise AssertionError(case.to_line()) from error


@every_target
def test_a_corpus_is_large_enough_to_matter_and_small_enough_to_read(target: Target) -> None:
    by_hand, found = corpus.load(target.corpus, target.case.from_line)
    assert len(by_hand) >= BY_HAND_MIN[target.name]
    assert len(found) >= FOUND_MIN
    assert target.corpus.stat().st_size <= BYTES_MAX
    assert len({case.to_line() for case in [*by_hand, *found]}) == len(by_hand) + len(found)
