"""h2 as we set it up: how much of a head is read before its connection is given up."""

from __future__ import annotations

import pytest

from coulee.core.config import Config, Limits
from coulee.core.http2_h2 import PSEUDO_FIELDS
from tests.core.http2_sides import ask, asking, served
from tests.http2.frames import data, fields, get, headers, post

TOO_MANY_AT_ALL = ["FAULT ENHANCE_YOUR_CALM"]


@pytest.mark.parametrize("field", [("a", "b"), ("accept", "")])
def test_somewhat_too_many_fields_can_be_answered_and_far_too_many_cannot(field: tuple[str, str]) -> None:
    limits = Limits()
    most = PSEUDO_FIELDS + 2 * limits.fields_max - len(("method", "scheme", "path", "authority"))
    for count in (limits.fields_max, most):
        side = served()
        [word] = side.hears(headers(1, get("/", *[field] * count)))
        assert "431" in word
        assert side.hears(headers(3, get("/next"))) == ["3 GET /next end"]
    assert served().hears(headers(1, get("/", *[field] * (most + 1)))) == TOO_MANY_AT_ALL


def test_trailers_may_be_more_than_fields() -> None:
    side = served(config=Config(limits=Limits(fields_max=2, trailer_fields_max=30)))
    side.hears(headers(1, post(), end=False), data(1, b"a"))
    [word] = side.hears(headers(1, fields([("a", "b")] * 30)))
    assert word == "1 " + "a=b " * 30 + "trailers"


def test_an_answer_of_an_origin_ends_its_connection_later_than_a_request_does() -> None:
    limits = Limits()
    most = PSEUDO_FIELDS + 4 * limits.fields_max
    for count, words in ((most, ["1 BROKEN PROTOCOL_ERROR"]), (most + 1, TOO_MANY_AT_ALL)):
        assert asking(ask()).hears(headers(1, fields([(":status", "200"), *[("a", "b")] * (count - 1)]))) == words


def test_many_small_fields_of_a_small_head_are_no_more_than_they_are() -> None:
    """Each counts for 32 bytes more in a table, and not in a head."""
    side = served(config=Config(limits=Limits(head_bytes_max=500, trailers_bytes_max=500)))
    assert side.hears(headers(1, get("/", *[("a", "b")] * 60))) == ["1 GET / end"]
    [word] = side.hears(headers(3, get("/", *[("a", "b")] * 90)))
    assert "431" in word
