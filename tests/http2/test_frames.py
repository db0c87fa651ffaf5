"""The builder and the parser of the tests agree with hyperframe and with hpack, which share no code with them."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder
from hpack.hpack import decode_integer
from hyperframe.frame import Frame as Hyperframe

from tests.http2 import frames
from tests.http2.frames import Code, cut, decoded, parse

BUILT = [
    frames.headers(1, frames.get(), end=False, more=True, padding=7, priority=bytes(5)),
    frames.continuation(1, b"\x88"),
    frames.data(1, b"abc", padding=3),
    frames.data(1, b"", end=True),
    frames.settings({frames.INITIAL_WINDOW_SIZE: 1, frames.MAX_FRAME_SIZE: 20000}),
    frames.settings(ack=True),
    frames.rst(3, Code.REFUSED_STREAM),
    frames.goaway(5, Code.ENHANCE_YOUR_CALM, b"why"),
    frames.ping(b"12345678", ack=True),
    frames.window_update(0, 2**31 - 1),
    frames.priority(3, 1, 4),
    frames.push_promise(1, 2, frames.get()),
]


@pytest.mark.parametrize("raw", BUILT, ids=lambda raw: str(parse(raw)[0]))
def test_hyperframe_reads_what_is_built(raw: bytes) -> None:
    [ours] = parse(raw)
    theirs, length = Hyperframe.parse_frame_header(memoryview(raw[:9]))
    theirs.parse_body(memoryview(raw[9:]))
    assert (length, theirs.type, theirs.stream_id) == (len(ours.payload), ours.type, ours.stream)
    assert theirs.serialize() == raw
    if ours.type in (frames.DATA, frames.HEADERS, frames.PUSH_PROMISE):
        assert ours.content == vars(theirs)["data"]
    if ours.type in (frames.RST_STREAM, frames.GOAWAY):
        assert ours.code == vars(theirs)["error_code"]
    if ours.type == frames.SETTINGS:
        assert ours.values == vars(theirs)["settings"]


def test_frames_are_cut_at_any_split() -> None:
    raw = b"".join(BUILT)
    whole = parse(raw)
    assert len(whole) == len(BUILT)
    for at in range(len(raw)):
        first, rest = cut(raw[:at])
        assert first + parse(rest + raw[at:]) == whole


def test_what_is_no_frame_is_told() -> None:
    with pytest.raises(AssertionError, match="2 bytes that are no frame"):
        parse(frames.ping() + b"ab")
    with pytest.raises(AssertionError, match="reserved"):
        parse(frames.frame(6, 0, 1 << 31, bytes(8)))
    with pytest.raises(AssertionError, match="padding"):
        _ = parse(frames.frame(frames.DATA, frames.PADDED, 1, b"\x03ab"))[0].content


@pytest.mark.parametrize("value", [0, 1, 14, 15, 30, 31, 32, 126, 127, 128, 254, 255, 256, 16384, 2**31])
@pytest.mark.parametrize("bits", [4, 5, 6, 7])
def test_integers_are_those_of_hpack(value: int, bits: int) -> None:
    raw = frames.integer(value, bits, 0xFF & ~((1 << bits) - 1))
    assert decode_integer(raw, bits) == (value, len(raw))


def test_blocks_are_read_as_they_were_meant() -> None:
    pairs = frames.request("/a", ("x", "y" * 300))
    for encoder in (None, Encoder()):
        assert decoded(parse(frames.headers(1, frames.fields(pairs, encoder)))) == [(1, pairs, True)]
    encoder, decoder = Encoder(), Decoder()
    for end in (True, False):
        block = frames.fields(pairs, encoder)
        raw = frames.headers(1, block[:3], end=end, more=True) + frames.continuation(1, block[3:])
        assert decoded(parse(raw), decoder) == [(1, pairs, end)]
