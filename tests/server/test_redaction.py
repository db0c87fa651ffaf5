"""What is hidden from recordings, byte for byte, and what is not."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.seam import Send
from coulee.server.redaction import Redaction

REQUEST = (
    b"POST /a?token=s3cret&x=1 HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer s3cret\r\nCOOKIE:\tid=s3cret\r\n"
    b"Referer: http://a/b?q=s3cret\r\nX-Other: seen\r\nContent-Length: 6\r\n\r\ns3cret"
    b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n"
)
HIDDEN_REQUEST = (
    b"POST /a?**************** HTTP/1.1\r\nHost: a.example\r\nAuthorization: ****** ******\r\nCOOKIE:\t*********\r\n"
    b"Referer: http://a/b?********\r\nX-Other: seen\r\nContent-Length: 6\r\n\r\nxxxxxx"
    b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n"
)
UNTIL_THE_END = b"until the end: s3cret HTTP/1.1 200 OK\r\n\r\n"
ANSWERS = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: id=s3cret\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"6;ext=1\r\ns3cret\r\n1\r\n!\r\n0\r\nX-Api-Key: s3cret\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nLocation: /x?s3cret\r\n\r\n" + UNTIL_THE_END
)
HIDDEN_ANSWERS = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: *********\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"6;ext=1\r\nxxxxxx\r\n1\r\nx\r\n0\r\nX-Api-Key: ******\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nLocation: /x?******\r\n\r\n" + b"x" * len(UNTIL_THE_END)
)
CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
ALL = ("bodies", "query", "credentials")


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def hidden(
    requests: list[bytes], answers: list[bytes], names: tuple[str, ...] = ALL, *, accepted: bool = True
) -> bytes:
    """A conversation as it is kept: its requests, then its answers."""
    redactor = Redaction(names).redactor()
    redactor.opened(1, accepted)

    def hear(data: bytes) -> bytes:
        return redactor.received(1, data)

    def tell(data: bytes) -> bytes:
        kept = redactor.sent(Send(1, [data[:3], data[3:]], eof=True))
        assert kept.eof
        assert isinstance(kept.data, bytes)
        return kept.data

    ask, answer = (hear, tell) if accepted else (tell, hear)
    return b"".join([*map(ask, requests), *map(answer, answers)])


@pytest.mark.parametrize("accepted", [True, False], ids=["client", "origin"])
def test_bodies_queries_and_credentials_are_hidden_and_framing_is_not(accepted: bool) -> None:
    assert hidden([REQUEST], [ANSWERS], accepted=accepted) == HIDDEN_REQUEST + HIDDEN_ANSWERS


@given(st.lists(st.integers(0, 1000)), st.lists(st.integers(0, 1000)))
def test_it_does_not_matter_how_bytes_were_split(request: list[int], answer: list[int]) -> None:
    assert hidden(pieces(REQUEST, request), pieces(ANSWERS, answer)) == HIDDEN_REQUEST + HIDDEN_ANSWERS


def test_hiding_twice_is_hiding_once() -> None:
    assert hidden([HIDDEN_REQUEST], [HIDDEN_ANSWERS]) == HIDDEN_REQUEST + HIDDEN_ANSWERS


@given(st.lists(st.binary()), st.lists(st.binary()), st.sets(st.sampled_from((*ALL, "fields", "x-other"))))
def test_any_bytes_keep_their_number_and_hiding_them_again_changes_nothing(
    requests: list[bytes], answers: list[bytes], names: set[str]
) -> None:
    once = hidden(requests, answers, tuple(names))
    assert len(once) == sum(map(len, requests)) + sum(map(len, answers))
    asked = sum(map(len, requests))
    assert hidden([once[:asked]], [once[asked:]], tuple(names)) == once


@pytest.mark.parametrize(
    ("names", "there", "gone"),
    [
        (["bodies"], b"token=s3cret", b"\r\n\r\ns3cret"),
        (["query"], b"Bearer s3cret", b"token"),
        (["credentials"], b"\r\n\r\ns3cret", b"Bearer"),
        (["X-Other"], b"Bearer s3cret", b"seen"),
        (["fields"], b"Host: a.example\r\n", b"seen"),
        (["fields"], b"Content-Length: 6\r\n", b"Bearer"),
    ],
)
def test_each_word_hides_its_own(names: list[str], there: bytes, gone: bytes) -> None:
    kept = hidden([REQUEST], [], tuple(names))
    assert there in kept
    assert gone in REQUEST
    assert gone not in kept


def test_an_answer_to_head_has_no_body_and_neither_have_204_and_304() -> None:
    requests = [b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method for method in (b"HEAD", b"GET", b"GET", b"GET")]
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    ]
    assert hidden(requests, answers) == b"".join([*requests, *answers]).replace(b"abc", b"xxx")


def test_behind_an_upgrade_all_is_hidden_in_both_directions() -> None:
    ask = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\ns3cret\n"
    redactor = Redaction(["bodies"]).redactor()
    redactor.opened(1, True)
    assert redactor.received(1, ask) == ask
    assert redactor.sent(Send(1, answer)).data == answer.replace(b"s3cret", b"xxxxxx")
    assert redactor.received(1, b"s3cret\r\n") == b"xxxxxx\r\n"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (b"s3cret\r\ns3cret\r\n\r\n", b"s3cret\r\nxxxxxx\r\n\r\n"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", b"PRI * HTTP/2.0\r\n\r\nxx\r\n\r\nxx"),
        (CHUNKED + b"zz\r\ns3cret", CHUNKED + b"zz\r\nxxxxxx"),
    ],
)
def test_what_cannot_be_followed_is_hidden_but_for_the_ends_of_lines(said: bytes, kept: bytes) -> None:
    assert hidden([said], []) == kept


def test_a_line_without_an_end_is_hidden_from_a_length_on() -> None:
    kept = hidden([b"GET / HTTP/1.1\r\nX: ", *[b"s3cret" * 1000] * 20], [])
    assert len(kept) == 19 + 6 * 1000 * 20
    assert kept.endswith(b"x" * 6000)


def test_connections_are_apart_and_one_that_is_closed_is_forgotten() -> None:
    redactor = Redaction(["bodies"]).redactor()
    redactor.opened(1, True)
    redactor.opened(2, True)
    redactor.received(1, b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n")
    assert redactor.received(2, b"GET / HTTP/1.1\r\n") == b"GET / HTTP/1.1\r\n"
    assert redactor.received(1, b"abc") == b"xxx"
    redactor.closed(1)
    redactor.closed(1)
    assert redactor.received(1, b"abc") == b"abc"
    assert redactor.sent(Send(1, b"abc")) == Send(1, b"abc")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "'' is neither a field's name nor one of bodies, query, credentials, fields"),
        ("two words", "'two words' is neither"),
        ("Host", "'host' cannot be hidden: a replay could not follow"),
        ("content-length", "'content-length' cannot be hidden"),
    ],
)
def test_what_cannot_be_hidden_is_said(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Redaction([name])
