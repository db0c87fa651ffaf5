"""One side of a WebSocket: any split gives the same news, both ends joined agree, and masks that give nothing away."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import XorMaskerSimple

from coulee.core import Closing, Message, WebSocket
from coulee.core.websocket_codec import Fault, MaskingKeys, Ping, Pong, WebSocketCodec, masked
from tests.core.websocket_frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, Frame, close, frame, read, text


def reader(**settings: Any) -> WebSocketCodec:
    """The side of a client, as we read it."""
    return WebSocketCodec("server", "downstream", WebSocket(**settings), None, Random(1))


def writer() -> WebSocketCodec:
    """The side of an origin, which gets what we mask."""
    return WebSocketCodec("client", "upstream", WebSocket(), None, Random(1))


def all_news(codec: WebSocketCodec) -> list[object]:
    """What there is, and the fault behind it."""
    found: list[object] = []
    try:
        while (news := codec.next_news()) is not None:
            found.append(news)
    except Fault as fault:
        found.append(fault.code)
    return found


TRACES = {
    "messages": text("a") + frame(BINARY, b"b") + text(""),
    "pieces": frame(TEXT, b"\xe2", fin=False) + frame(PING, b"?") + frame(CONTINUATION, b"\x82\xac"),
    "long": frame(BINARY, b"x" * 130) + frame(BINARY, b"y" * 66000),
    "end": text("a") + close(1000, "done") + text("never"),
    "bad": text("a") + frame(TEXT, b"\xff") + text("never"),
}


@pytest.mark.parametrize("name", TRACES)
@given(data=st.data())
def test_any_split_gives_the_same_news(name: str, data: st.DataObject) -> None:
    trace = TRACES[name]
    whole = reader()
    whole.feed(trace)
    expected = all_news(whole)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(trace)), max_size=6)))
    codec = reader()
    found: list[object] = []
    for start, end in zip([0, *cuts], [*cuts, len(trace)], strict=True):
        codec.feed(trace[start:end])
        found += all_news(codec)
    assert found == expected


_messages = st.text(st.characters(exclude_categories=["Cs"]), max_size=300) | st.binary(max_size=300)


@given(st.lists(_messages, max_size=5), st.integers(0, 2**32))
def test_what_is_written_is_read(messages: list[str | bytes], seed: int) -> None:
    up = WebSocketCodec("client", "upstream", WebSocket(), None, Random(seed))
    there = reader()
    for message in messages:
        there.feed(up.write(message))
    there.feed(up.write_ping(b"1") + up.write_pong(b"2") + up.write_close(4000, "ende"))
    assert all_news(there) == [
        *(Message(message, "downstream") for message in messages),
        Ping(b"1"),
        Pong(b"2"),
        Closing(4000, "ende", "downstream"),
    ]


def test_what_we_write_to_an_origin_is_read_by_others() -> None:
    codec = writer()
    for size in (0, 1, 125, 126, 3000, 65535, 65536):
        assert read(codec.write(b"z" * size)) == [Frame(BINARY, b"z" * size, masked=True)]
    assert read(codec.write_close(1005, "")) == [Frame(CLOSE, b"", masked=True)]
    assert read(codec.write_close(1000, "")) == [Frame(CLOSE, b"\x03\xe8", masked=True)]


def test_a_reason_that_is_too_long_is_cut_between_two_characters() -> None:
    (told,) = read(reader().write_close(4000, "ä" * 100))
    assert told.payload[2:].decode() == "ä" * 61


def test_a_message_in_a_thousand_pieces_of_a_byte() -> None:
    codec = reader()
    data = frame(TEXT, b"ab" * 5000)
    for at in range(len(data)):
        codec.feed(data[at : at + 1])
        news = codec.next_news()
    assert news == Message("ab" * 5000, "downstream")


@pytest.mark.parametrize("kind", [TEXT, BINARY])
def test_what_is_too_large_is_refused_by_what_it_announces(kind: int) -> None:
    codec = reader(message_bytes_max=1000)
    codec.feed(frame(kind, b"x" * 1000))
    assert isinstance(codec.next_news(), Message)
    codec.feed(frame(kind, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 401)[:8])
    with pytest.raises(Fault, match="1000 bytes") as failed:
        codec.next_news()
    assert failed.value.code == 1009
    codec.feed(text("never"))
    assert codec.next_news() is None


def test_controls_between_the_pieces_are_none_of_them() -> None:
    codec = reader(fragments_max=2, message_bytes_max=10)
    codec.feed(frame(TEXT, b"12345", fin=False) + frame(PING, b"x" * 100) * 5 + frame(CONTINUATION, b"67890"))
    assert all_news(codec) == [Ping(b"x" * 100)] * 5 + [Message("1234567890", "downstream")]


def test_the_head_of_a_frame_that_comes_in_pieces_counts_once() -> None:
    codec = reader(fragments_max=2, message_bytes_max=10)
    news: list[object] = []
    for byte in frame(TEXT, b"12345", fin=False) + frame(PING) + frame(CONTINUATION, b"67890"):
        codec.feed(bytes([byte]))
        news += all_news(codec)
    assert news == [Ping(b""), Message("1234567890", "downstream")]


def test_who_is_stopped_reads_nothing() -> None:
    codec = reader()
    codec.feed(text("a") + text("b"))
    assert codec.next_news() == Message("a", "downstream")
    codec.stop()
    codec.feed(text("c"))
    assert codec.next_news() is None


# --------------------------------------------------------------------------------------------------------- masks


@given(st.binary(max_size=5000), st.binary(min_size=4, max_size=4))
def test_masking_is_as_wsproto_does_it_and_undoes_itself(data: bytes, key: bytes) -> None:
    assert masked(data, key) == bytes(XorMaskerSimple(key).process(bytearray(data)))
    assert masked(masked(data, key), key) == data


def test_keys_are_the_same_for_the_same_secret_and_never_come_back() -> None:
    keys, again = MaskingKeys(Random(7)), MaskingKeys(Random(7))
    drawn = [keys.next() for _ in range(1000)]
    assert drawn == [again.next() for _ in range(1000)]
    assert len(set(drawn)) == 1000
    assert {len(key) for key in drawn} == {4}
    assert MaskingKeys(Random(8)).next() != drawn[0]


def test_a_connection_draws_once_from_the_machines_randomness() -> None:
    """What was drawn of it besides could be told from the keys otherwise, and the other way round."""
    rng = Random(7)
    WebSocketCodec("client", "upstream", WebSocket(), None, rng).write("x" * 1000)
    other = Random(7)
    other.randbytes(32)
    assert rng.random() == other.random()
