"""Two layers, one within the other, are one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate, cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.backends.layer import TRUNCATED, LayerError, Nested
from coulee.backends.tls import Tls
from tests.backends.tls_ends import PLACE, LayerEnd, bytewise, certificate, downstream, joined, talk, upstream, whole

TLS = Tls()
OUTER = downstream()
INNER = downstream(certificate("b.test"))


def nested(cut: bool = False) -> tuple[LayerEnd, LayerEnd, LayerEnd, LayerEnd]:
    """Both sides of TLS within TLS behind both handshakes; and their outer layers."""
    outer_asks, outer_answers = joined(OUTER, tls=TLS)
    asks = LayerEnd(Nested(outer_asks.layer, TLS.layer(upstream("b.test"), PLACE)))
    answers = LayerEnd(Nested(outer_answers.layer, TLS.layer(INNER, PLACE)))
    assert isinstance(asks.layer, Nested)
    asks.layer.begin(b"")
    asks.start = lambda: None  # type: ignore[method-assign]
    pieces = bytewise if cut else whole
    talk(asks, answers, pieces, pieces)
    return asks, answers, outer_asks, outer_answers


@pytest.mark.parametrize("cut", [False, True])
def test_bytes_go_both_ways(cut: bool) -> None:
    asks, answers, *_ = nested(cut)
    answers.feed(asks.layer.encrypt(b"question"))
    asks.feed(answers.layer.encrypt([b"ans", b"wer"]))
    assert (answers.plain, asks.plain) == (b"question", b"answer")


def test_what_it_came_to_is_that_of_the_inner_one() -> None:
    asks, _, outer, _ = nested()
    assert asks.layer.security is not None
    assert asks.layer.security.certificate is not None
    assert asks.layer.security.certificate.names == ("DNS:b.test",)
    assert outer.layer.security is not asks.layer.security


def test_the_handshake_that_has_come_already() -> None:
    outer_asks, outer_answers = joined(OUTER, tls=TLS)
    inner = TLS.layer(upstream("b.test"), PLACE)
    inner.receive(b"")
    nest = Nested(outer_answers.layer, TLS.layer(INNER, PLACE))
    assert nest.begin(inner.to_send) == b""
    assert outer_asks.layer.receive(nest.to_send).startswith(b"\x16\x03\x03")  # the answer to it, within the other


def test_a_name_that_is_wrong_within() -> None:
    outer_asks, outer_answers = joined(OUTER, tls=TLS)
    asks = LayerEnd(Nested(outer_asks.layer, TLS.layer(upstream("c.test"), PLACE)))
    answers = LayerEnd(Nested(outer_answers.layer, TLS.layer(INNER, PLACE)))
    assert isinstance(asks.layer, Nested)
    asks.layer.begin(b"")
    answers.feed(asks.take())
    with pytest.raises(LayerError, match="not for c.test: it has b.test"):
        asks.feed(answers.take())


def test_an_alert_of_the_inner_one_goes_out() -> None:
    _, answers, outer_asks, _ = nested()
    with pytest.raises(LayerError, match="bad record mac"):
        answers.feed(outer_asks.layer.encrypt(b"\x17\x03\x03\x00\x20" + bytes(32)))
    assert outer_asks.layer.receive(answers.take()).startswith(b"\x17\x03\x03")


def test_farewells_in_order() -> None:
    asks, answers, outer_asks, outer_answers = nested()
    answers.feed(asks.layer.encrypt(b"last") + asks.layer.farewell())
    assert answers.plain == b"last"
    assert answers.layer.ended
    assert outer_answers.layer.ended
    asks.feed(answers.layer.farewell())
    assert asks.layer.ended
    assert outer_asks.layer.ended


def test_the_inner_one_ends_by_itself() -> None:
    asks, answers, outer_asks, outer_answers = nested()
    assert isinstance(asks.layer, Nested)
    answers.feed(outer_asks.layer.encrypt(asks.layer._inner.farewell()))
    assert answers.layer.ended
    assert not outer_answers.layer.ended


@pytest.mark.parametrize("pieces", [whole, bytewise])
def test_an_outer_one_that_ends_first_has_cut_the_inner_one_short(pieces: Callable[[bytes], Iterable[bytes]]) -> None:
    """What came in order is heard all the same, also in the same bytes."""
    asks, answers, outer_asks, _ = nested()
    sent = asks.layer.encrypt(b"some") + outer_asks.layer.farewell()
    heard, error = until_it_fails(answers, pieces(sent))
    assert (error.kind, error.detail) == ("truncated", TRUNCATED)
    assert heard == b"some"


@given(sizes=st.lists(st.integers(1, 200), min_size=1))
def test_any_split_of_what_ends_in_a_bad_record_gives_the_same_bytes(sizes: list[int]) -> None:
    asks, answers, outer_asks, _ = nested()
    sent = asks.layer.encrypt(b"one") + asks.layer.encrypt(b"two") + outer_asks.layer.encrypt(b"")
    sent += b"\x17\x03\x03\x00\x20" + bytes(32)
    ends = list(accumulate(islice(cycle(sizes), len(sent))))
    heard, error = until_it_fails(
        answers, (sent[end - size : end] for end, size in zip(ends, cycle(sizes), strict=False))
    )
    assert "bad record mac" in error.detail
    assert heard == b"onetwo"


def until_it_fails(end: LayerEnd, pieces: Iterable[bytes]) -> tuple[bytes, LayerError]:
    """What is heard of these, and how it ends."""
    heard = b""
    for piece in pieces:
        try:
            heard += end.layer.receive(piece)
        except LayerError as error:
            return heard + error.plain, error
    raise AssertionError("it has not failed")


def test_words_of_its_own_are_those_of_both() -> None:
    _, answers, _, _ = nested()
    answers.layer.to_send = b"x"
    assert answers.take() == b"x"
    assert answers.layer.to_send == b""
