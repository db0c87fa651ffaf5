"""Every row of the corpus through the codec alone: whole, byte by byte, and cut in two at every position."""

from __future__ import annotations

import pytest

from coulee.core.codec import Role
from coulee.core.http1 import Http1Codec
from tests.corpus.passage import Heard, Reading, by_bytes, client_codec, in_two, read_with, server_codec, whole
from tests.corpus.rows import Expected, Row, rows_of

REQUESTS = (*rows_of("requests"), *rows_of("unusual/requests"))
ANSWERS = (*rows_of("answers"), *rows_of("unusual/answers"))


def codec_for(role: Role, row: Row) -> Http1Codec:
    return server_codec() if role == "server" else client_codec(row.to)


def check_splits(role: Role, row: Row, eof: bool) -> Reading:
    """What the codec reads of the row, which no split may change."""
    once = read_with(codec_for(role, row), whole(row.raw), eof=eof)
    assert read_with(codec_for(role, row), by_bytes(row.raw), eof=eof) == once, "byte by byte"
    for pieces in in_two(row.raw):
        assert read_with(codec_for(role, row), pieces, eof=eof) == once, f"cut behind {pieces[0][-40:]!r}"
    return once


def check_message(heard: Heard, expected: Expected) -> None:
    assert (heard.start, heard.body) == (expected.start, expected.body)
    assert [(name.lower(), value) for name, value in heard.trailers.raw()] == expected.trailers
    for field in expected.fields:
        if not field[0].startswith(b"x-forwarded-"):  # those are not the codec's
            assert field in [(name.lower(), value) for name, value in heard.headers.raw()]


@pytest.mark.parametrize("row", REQUESTS, ids=str)
def test_a_request(row: Row) -> None:
    reading = check_splits("server", row, eof=False)
    complete = [heard for heard in reading.heard if heard.complete]
    if row.expected or row.verdict != "accept":
        assert [heard.start for heard in complete] == [expected.start for expected in row.expected]
    for heard, expected in zip(complete, row.expected, strict=False):
        check_message(heard, expected)
        assert heard.authority.encode() in (expected.host, b"")
    incomplete = len(reading.heard) - len(complete)
    assert incomplete == (1 if row.in_body else 0), "a head is read, or it is not"
    if row.verdict == "refuse":
        assert reading.fault is not None
        assert reading.fault[0] == row.status
    else:
        assert reading.fault is None


@pytest.mark.parametrize("row", [row for row in REQUESTS if row.status == 408], ids=str)
def test_a_request_that_is_cut_short_by_the_end_of_the_stream(row: Row) -> None:
    reading = check_splits("server", row, eof=True)
    assert reading.fault == (0, "client_gone")
    assert not any(heard.complete for heard in reading.heard)


@pytest.mark.parametrize("row", ANSWERS, ids=str)
def test_an_answer(row: Row) -> None:
    reading = check_splits("client", row, eof=row.eof)
    assert reading.interims == row.interims
    bad = (502, "upstream_reset" if row.eof else "upstream_invalid")
    if row.verdict == "refuse":
        assert reading.fault == bad
        assert not reading.heard
        return
    (heard,) = reading.heard
    if row.expected:
        check_message(heard, row.expected[0])
    assert heard.complete == (row.verdict == "accept")
    if row.verdict == "truncated":
        assert reading.fault == bad
    else:
        assert reading.fault is None
        if not row.eof:
            assert reading.reusable == row.reused
