"""Every row of the corpus through a whole proxy, whole and byte by byte.

What reached the origin is read by the strict reader of these tests and by h11, never by our own codec. A refused answer
is compared byte by byte with what the client gets for an answer that has no bytes in common with it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from coulee.core.errors import REASONS
from tests.corpus.passage import ORIGIN_SAYS, Passage, by_bytes, pass_answer, pass_request, whole
from tests.corpus.reader import Message, heard_by_h11, read_answers, read_requests
from tests.corpus.rows import Expected, Row, rows_of

REQUESTS = (*rows_of("requests"), *rows_of("unusual/requests"))
ANSWERS = (*rows_of("answers"), *rows_of("unusual/answers"))
WAYS = pytest.mark.parametrize("split", [whole, by_bytes], ids=["whole", "by-bytes"])
GRACE_S = 2
"""After the last answer, a client is let go within `linger_s`, and a head that is not whole is still waited for."""

PATIENCE_S = 70
"""Longer than any wait for the rest of a message, and for a request on an idle connection."""


def at_the_origins(passage: Passage) -> list[Message]:
    """The whole requests that the origins got, as both readers have it. Raises where either finds a fault."""
    messages: list[Message] = []
    for data in passage.origins:
        read = [message for message in read_requests(data) if message.whole]
        assert [(*message.start, message.body) for message in read] == heard_by_h11(data)
        messages += read
    return messages


def check_seen(seen: list[Message], expected: list[Expected]) -> None:
    """What was seen is what was to be seen."""
    assert [" ".join(message.start) for message in seen] == [each.start for each in expected]
    for message, each in zip(seen, expected, strict=True):
        assert message.body == each.body
        assert message.trailers == each.trailers
        for name, value in each.fields:
            assert message.values(name) == [value]
        for name in each.gone:
            assert not message.values(name), f"{name.decode()} is to be gone"


def statuses(data: bytes, answers: int) -> list[int]:
    """The final statuses of an answer stream to so many requests, each of which must be whole."""
    read = read_answers(data, ["GET"] * answers, ended=True)
    assert all(message.whole for message in read)
    return [int(message.start[0]) for message in read if not message.start[0].startswith("1")]


@WAYS
@pytest.mark.parametrize("row", [row for row in REQUESTS if row.verdict == "refuse"], ids=str)
def test_a_refused_request(row: Row, split: Callable[[bytes], list[bytes]]) -> None:
    passage = pass_request(split(row.raw), wait_s=GRACE_S)
    check_seen(at_the_origins(passage), row.expected)
    if not row.in_body and not row.expected:
        assert passage.origins == [], "not even a connection"
    assert statuses(passage.client, len(row.expected) + 1) == [200] * len(row.expected) + [row.status]
    last = read_answers(passage.client, ["GET"] * (len(row.expected) + 1), ended=True)[-1]
    assert last.values(b"connection") == [b"close"]
    assert passage.client_closed
    assert passage.later == b""
    assert len(passage.access) == len(row.expected) + 1, "one record a request"
    record = passage.access[-1]
    assert record.status == row.status
    assert REASONS[record.reason].side == "downstream"


@WAYS
@pytest.mark.parametrize("row", [row for row in REQUESTS if row.verdict == "wait"], ids=str)
def test_a_request_that_is_waited_for(row: Row, split: Callable[[bytes], list[bytes]]) -> None:
    assert not pass_request(split(row.raw), wait_s=GRACE_S).client_closed
    passage = pass_request(split(row.raw), wait_s=PATIENCE_S)
    assert at_the_origins(passage) == []
    assert bool(passage.origins) == row.in_body
    assert passage.client == b""
    assert passage.client_closed
    assert statuses(passage.later, 1) == ([row.status] if row.status else [])
    assert [record.status for record in passage.access] == ([row.status] if row.status else [])


@WAYS
@pytest.mark.parametrize("row", [row for row in REQUESTS if row.verdict == "accept" and row.expected], ids=str)
def test_an_accepted_request(row: Row, split: Callable[[bytes], list[bytes]]) -> None:
    passage = pass_request(split(row.raw), wait_s=0)
    seen = at_the_origins(passage)
    check_seen(seen, row.expected)
    assert [message.values(b"host") for message in seen] == [[each.host] for each in row.expected]
    answers = read_answers(passage.client, [each.start.split()[0] for each in row.expected], ended=True)
    assert [answer.start for answer in answers] == [("200",)] * len(row.expected)
    assert [record.reason for record in passage.access] == [""] * len(row.expected)


@cache
def bad_gateway(method: str, *, cut: bool) -> bytes:
    """What a client gets where nothing of the answer can have come through."""
    passage = pass_answer([b"H"], method, eof=True) if cut else pass_answer([b"\0"], method, eof=False)
    assert statuses_of_answer(passage, method) == [502]
    return passage.client


def statuses_of_answer(passage: Passage, method: str) -> list[int]:
    return [int(message.start[0]) for message in read_answers(passage.client, [method], ended=passage.client_closed)]


@WAYS
@pytest.mark.parametrize("row", [row for row in ANSWERS if row.verdict == "refuse"], ids=str)
def test_a_refused_answer(row: Row, split: Callable[[bytes], list[bytes]]) -> None:
    passage = pass_answer(split(row.raw), row.to, eof=row.eof)
    nothing_of_it = bad_gateway(row.to, cut=row.eof)
    assert passage.client.endswith(nothing_of_it), "not one byte of it reaches the client"
    before = read_answers(passage.client.removesuffix(nothing_of_it), [], ended=False)
    assert [int(message.start[0]) for message in before] == row.interims
    assert passage.later == b""
    assert passage.origin_closed
    (record,) = passage.access
    reason = "upstream_reset" if row.eof else "upstream_invalid"
    assert (record.status, record.reason) == (502, reason)
    assert b'details="%s"' % reason.encode() in passage.client


@WAYS
@pytest.mark.parametrize("row", [row for row in ANSWERS if row.verdict == "truncated"], ids=str)
def test_a_truncated_answer(row: Row, split: Callable[[bytes], list[bytes]]) -> None:
    passage = pass_answer(split(row.raw), row.to, eof=row.eof)
    message = read_answers(passage.client, [row.to], ended=False)[-1]
    assert not message.whole, "the client can tell"
    assert message.start == (row.expected[0].start,)
    assert message.body == row.expected[0].body
    assert passage.client_closed
    assert passage.origin_closed
    (record,) = passage.access
    assert record.reason == ("upstream_reset" if row.eof else "upstream_invalid")


@WAYS
@pytest.mark.parametrize("row", [row for row in ANSWERS if row.verdict == "accept" and row.expected], ids=str)
def test_an_accepted_answer(row: Row, split: Callable[[bytes], list[bytes]]) -> None:
    passage = pass_answer(split(row.raw), row.to, eof=row.eof)
    *interims, message = read_answers(passage.client, [row.to], ended=passage.client_closed)
    assert [int(interim.start[0]) for interim in interims] == row.interims
    assert message.whole
    check_seen([message], row.expected)
    assert passage.origin_closed == (row.eof or not row.reused)
    (record,) = passage.access
    assert record.reason == ""


def test_what_an_origin_says_to_a_whole_request_arrives() -> None:
    """Or else nothing above would mean anything."""
    passage = pass_request([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], wait_s=0)
    (answer,) = read_answers(passage.client, ["GET"], ended=False)
    assert (answer.whole, answer.body) == (True, ORIGIN_SAYS)
