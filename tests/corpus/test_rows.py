"""The corpus itself: large enough, of every class, and written as its README says."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.corpus.rows import read, rows_of, unescaped

REQUESTS = rows_of("requests")
ANSWERS = rows_of("answers")
UNUSUAL = rows_of("unusual/requests") + rows_of("unusual/answers")


def test_there_are_enough_of_them() -> None:
    assert len(REQUESTS) >= 250
    assert len(ANSWERS) >= 80
    assert len(UNUSUAL) >= 100


def test_no_two_have_one_name_or_are_the_same() -> None:
    rows = [*REQUESTS, *ANSWERS, *UNUSUAL]
    names = Counter(row.id for row in rows)
    assert [name for name, count in names.items() if count > 1] == []
    for group in (REQUESTS, ANSWERS, UNUSUAL):
        raws = Counter((row.raw, row.to, row.eof) for row in group)
        assert [raw for raw, count in raws.items() if count > 1] == []


def test_what_is_accepted_says_what_is_seen_and_what_is_refused_whole_does_not() -> None:
    for row in [*REQUESTS, *ANSWERS]:
        if row.verdict == "accept":
            assert row.expected, f"{row}: what does the other side see?"
        if row in ANSWERS and row.verdict == "refuse":
            assert not row.expected, f"{row}: nothing is seen of it"


def test_every_status_that_a_request_can_be_refused_with_occurs() -> None:
    statuses = {row.status for row in REQUESTS if row.verdict == "refuse"}
    assert statuses == {400, 405, 414, 417, 421, 431, 501, 505}


def test_escapes() -> None:
    assert unescaped(r"a\r\n\t\0\\\xfF\{2*b\x41}") == b"a\r\n\t\0\\\xffbAbA"
    (row,) = read("## a-class: of rows\n[an-id] RFC 9112 7: accept\n> request GET /\n|a\n|b\\\\\n|c\\\n|d\\\n", "x")
    assert row.raw == b"a\r\nb\\\r\ncd"


@pytest.mark.parametrize(
    "text",
    ["|a", "> request GET /", "GET / HTTP/1.1", "[a] 9112 7: accept", "[a] RFC 9112 7: reject",
     "[a] RFC 9112 7: accept \n", "[a] RFC 9112 7: accept\n> body b", "[a] RFC 9112 7: accept\n|\\q",
     "[a] RFC 9112 7: accept\n> reused perhaps"],
)  # fmt: skip
def test_what_is_not_understood_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="x, line [12]"):
        read(text, "x")
