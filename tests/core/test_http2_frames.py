"""Frames of HTTP/2 as they are cut, judged and counted, before anything is made of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.codec import PREFACE, Role
from coulee.core.config import Http2
from coulee.core.http2_frames import (
    CREDIT_MAX,
    EARNED,
    SETTINGS_MAX,
    TINY_WINDOW_BYTES,
    Code,
    ConnectionFault,
    Frame,
    FrameReader,
    Kind,
    StreamFault,
    frame,
    goaway_frame,
    name_of,
    reset_frame,
    settings_frame,
)
from tests.http2 import frames as built
from tests.http2.frames import continuation, data, goaway, headers, ping, priority, rst, settings, window_update

PRIORITY_UPDATE = 0x10


def reader(*sent: bytes, role: Role = "client", begun: bool = True, **changes: Any) -> FrameReader:
    """One that has been fed; without `begun` the beginning is in what is fed."""
    made = FrameReader(role, replace(Http2(), **changes))
    if begun:
        made.feed(PREFACE + settings() if role == "server" else settings())
        assert made.next_frame() is not None
    if sent:
        made.feed(b"".join(sent))
    return made


def all_of(made: FrameReader) -> list[Frame]:
    return list(iter(made.next_frame, None))


def fault_of(made: FrameReader) -> tuple[int, str]:
    with pytest.raises(ConnectionFault) as caught:
        all_of(made)
    return caught.value.code, caught.value.detail


# ----------------------------------------------------------------------------------------------------------- cutting


def test_frames_come_one_at_a_time() -> None:
    sent = [headers(1, b"block"), data(1, b"abc", end=True), ping()]
    made = reader(*sent)
    found = made.next_frame()
    assert found is not None
    assert found == Frame(Kind.HEADERS, 0x5, 1, sent[0])
    assert found.payload == b"block"
    assert made.buffered == len(sent[1]) + len(sent[2])
    assert [each.whole for each in all_of(made)] == sent[1:]
    assert made.buffered == 0
    assert made.next_frame() is None


def test_the_reserved_bit_is_no_part_of_the_stream() -> None:
    assert [each.stream for each in all_of(reader(built.frame(0, 0, 2**31 + 5, b"x")))] == [5]


@given(st.lists(st.integers(1, 60), max_size=12))
def test_frames_come_whole_however_they_arrive(sizes: list[int]) -> None:
    stream = PREFACE + settings({3: 7}) + headers(1, b"block", more=True) + continuation(1, b"rest") + data(1, b"abc")
    made = reader(role="server", begun=False)
    found: list[Frame] = []
    at = 0
    for size in [*sizes, len(stream)]:
        made.feed(stream[at : at + size])
        at += size
        found += all_of(made)
    assert [each.kind for each in found] == [4, 1, 9, 0]
    assert PREFACE + b"".join(each.whole for each in found) == stream
    assert made.buffered == 0


def test_of_a_frame_that_is_too_large_no_more_than_its_head_is_awaited() -> None:
    assert all_of(reader(data(1, bytes(16384))))[0].kind == Kind.DATA
    assert fault_of(reader(data(1, bytes(16385))[:9])) == (6, "a frame of 16385 bytes (section 4.2)")
    assert all_of(reader(data(1, bytes(20000)), frame_bytes_max=20000))


def test_what_is_cleared_is_gone() -> None:
    made = reader(ping()[:10])
    made.clear()
    assert made.buffered == 0
    assert made.next_frame() is None


# ----------------------------------------------------------------------------------------------------- the beginning


def test_a_client_begins_with_the_preface() -> None:
    made = reader(role="server", begun=False)
    assert made.within_head
    for byte in PREFACE:
        made.feed(bytes([byte]))
        assert made.next_frame() is None
    assert made.within_head
    made.feed(settings())
    assert made.next_frame() is not None
    assert not made.within_head


@pytest.mark.parametrize("at", [0, 1, 14, len(PREFACE) - 1])
def test_another_preface_is_told_at_its_first_wrong_byte(at: int) -> None:
    made = reader(PREFACE[:at] + b"x", role="server", begun=False)
    assert fault_of(made) == (1, "the connection does not begin like HTTP/2 (section 3.4)")


@pytest.mark.parametrize("first", [ping(), settings(ack=True), headers(1, b"")], ids=["PING", "ACK", "HEADERS"])
@pytest.mark.parametrize("role", ["server", "client"])
def test_either_side_begins_with_settings(first: bytes, role: Role) -> None:
    preface = PREFACE if role == "server" else b""
    assert fault_of(reader(preface, first[:9], role=role, begun=False)) == (
        1, "the first frame is not SETTINGS (section 3.4)")  # fmt: skip


def test_the_first_settings_are_no_glitch() -> None:
    made = reader(role="server")
    assert made.glitches == 0
    made.feed(settings(ack=True))
    all_of(made)
    assert made.glitches == 0, "and the answer to ours comes along with them"


# ------------------------------------------------------------------------------------------------- each kind of frame

HEAD = headers(1, b"x", more=True)
CONNECTION_FAULTS = [
    ("DATA on stream 0", data(0, b"x"), 1, "DATA on stream 0 (section 6.1)"),
    ("padding of DATA", built.frame(0, 8, 1, b"\x03ab"), 1, "padding that is longer than its frame (section 6.1)"),
    ("DATA without its padding", built.frame(0, 8, 1), 1, "padding that is longer than its frame (section 6.1)"),
    ("HEADERS on stream 0", headers(0, b"x"), 1, "HEADERS on stream 0 (section 6.2)"),
    ("padding of HEADERS", built.frame(1, 12, 1, b"\x03ab"), 1, "padding that is longer than its frame (section 6.2)"),
    ("padding in a priority", built.frame(1, 0x2C, 1, b"\x01" + bytes(5)), 1,
     "padding that is longer than its frame (section 6.2)"),
    ("HEADERS without a priority", built.frame(1, 0x24, 1, bytes(4)), 1,
     "padding that is longer than its frame (section 6.2)"),
    ("HEADERS without their padding", built.frame(1, 12, 1), 1, "padding that is longer than its frame (section 6.2)"),
    ("PRIORITY on stream 0", priority(0), 1, "PRIORITY on stream 0 (section 6.3)"),
    ("RST_STREAM on stream 0", rst(0), 1, "RST_STREAM on stream 0 (section 6.4)"),
    ("RST_STREAM of 3", built.frame(3, 0, 1, b"abc"), 6, "RST_STREAM of 3 bytes (section 6.4)"),
    ("SETTINGS on a stream", settings({1: 1}, stream=1), 1, "SETTINGS on a stream (section 6.5)"),
    ("SETTINGS of 5", built.frame(4, 0, 0, b"abcde"), 6, "SETTINGS of 5 bytes (section 6.5)"),
    ("an ACK with settings", settings({1: 1}, ack=True), 6, "SETTINGS of 6 bytes (section 6.5)"),
    ("many settings", settings([(1, 1)] * (SETTINGS_MAX + 1)), 11, "more than 64 settings at once"),
    ("ENABLE_PUSH 2", settings({2: 2}), 1, "the setting 2 is 2 (section 6.5.2)"),
    ("ENABLE_PUSH 2, and then not", settings([(2, 2), (2, 0)]), 1, "the setting 2 is 2 (section 6.5.2)"),
    ("a huge window", settings({4: 2**31}), 3, "the setting 4 is 2147483648 (section 6.5.2)"),
    ("small frames", settings({5: 2**14 - 1}), 1, "the setting 5 is 16383 (section 6.5.2)"),
    ("huge frames", settings({5: 2**24}), 1, "the setting 5 is 16777216 (section 6.5.2)"),
    ("ENABLE_CONNECT_PROTOCOL 2", settings({8: 2}), 1, "the setting 8 is 2 (section 6.5.2)"),
    ("NO_RFC7540_PRIORITIES 2", settings({9: 2}), 1, "the setting 9 is 2 (section 6.5.2)"),
    ("PUSH_PROMISE", built.push_promise(1, 2, b""), 1, "a push, which was not allowed (section 8.4)"),
    ("PING on a stream", ping(stream=1), 1, "PING on a stream (section 6.7)"),
    ("PING of 7", ping(b"1234567"), 6, "PING of 7 bytes (section 6.7)"),
    ("GOAWAY on a stream", goaway(stream=1), 1, "GOAWAY on a stream (section 6.8)"),
    ("GOAWAY of 7", built.frame(7, 0, 0, bytes(7)), 6, "GOAWAY of 7 bytes (section 6.8)"),
    ("WINDOW_UPDATE of 5", built.frame(8, 0, 0, bytes(5)), 6, "WINDOW_UPDATE of 5 bytes (section 6.9)"),
    ("WINDOW_UPDATE by 0", window_update(0, 0), 1, "a window opened by 0 (section 6.9)"),
    ("WINDOW_UPDATE by the reserved bit", window_update(0, 2**31), 1, "a window opened by 0 (section 6.9)"),
    ("CONTINUATION alone", continuation(1, b"x"), 1, "CONTINUATION without a head (section 6.10)"),
    ("another frame in a head", HEAD + ping(), 1, "another frame within a head (section 4.3)"),
    ("an unknown frame in a head", HEAD + built.frame(99, 0, 1), 1, "another frame within a head (section 4.3)"),
    ("the head of another", HEAD + continuation(3, b"x"), 1, "another frame within a head (section 4.3)"),
    ("an empty CONTINUATION", HEAD + continuation(1, b"", more=True), 11, "an empty CONTINUATION frame within a head"),
    ("many CONTINUATION", HEAD + continuation(1, b"x", more=True) * 9, 11,
     "more than 8 CONTINUATION frames within a head"),
    ("PRIORITY_UPDATE on a stream", built.frame(PRIORITY_UPDATE, 0, 1, bytes(5)), 1,
     "PRIORITY_UPDATE on a stream (section 7.1 of RFC 9218)"),
    ("PRIORITY_UPDATE of 3", built.frame(PRIORITY_UPDATE, 0, 0, bytes(3)), 6,
     "PRIORITY_UPDATE of 3 bytes (RFC 9218 section 7.1)"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "code", "detail"), [row[1:] for row in CONNECTION_FAULTS],
                         ids=[row[0] for row in CONNECTION_FAULTS])  # fmt: skip
def test_what_ends_the_connection(sent: bytes, code: int, detail: str) -> None:
    assert fault_of(reader(sent, role="server")) == (code, detail)


GOOD = [
    data(1, b"", padding=0), data(1, b"", padding=9, end=True), built.frame(0, 8, 1, b"\x02abc"),
    headers(1, b"", padding=3), headers(1, b"", priority=bytes(5)), headers(1, b"", priority=bytes(5), padding=1),
    settings([(1, 0)] * SETTINGS_MAX), settings({2: 1, 4: 2**31 - 1, 5: 2**14, 6: 0, 8: 1, 9: 1, 77: 2**32 - 1}),
    settings({2: 0, 4: 0, 5: 2**24 - 1}), goaway(0, 0, b"text"), window_update(1, 2**31 - 1), window_update(0, 1),
    built.frame(PRIORITY_UPDATE, 0, 0, bytes(4)), built.frame(0x4A, 0xFF, 0, b"x"), built.frame(0x11, 0, 9, b""),
]  # fmt: skip


@pytest.mark.parametrize("sent", GOOD, ids=lambda raw: str(built.parse(raw)[0]))
def test_what_goes_on(sent: bytes) -> None:
    assert [each.whole for each in all_of(reader(sent, role="server"))] == [sent]


def test_no_origin_asks_to_be_pushed_to() -> None:
    assert fault_of(reader(settings({2: 1}), role="client")) == (
        1, "an origin that asks to be pushed to (section 6.5.2)")  # fmt: skip
    assert all_of(reader(settings({2: 0}), role="client"))


def test_a_head_in_as_many_frames_as_are_allowed() -> None:
    made = reader(headers(1, b"x", more=True), continuation(1, b"x", more=True) * 7)
    assert len(all_of(made)) == 8
    assert made.within_head
    made.feed(continuation(1, b"x") + headers(3, b"", more=True) + continuation(3, b"x") + ping())
    assert len(all_of(made)) == 4
    assert not made.within_head


STREAM_FAULTS = [
    (built.frame(2, 0, 3, b"abc"), Code.FRAME_SIZE_ERROR, "PRIORITY of 3 bytes (section 6.3)"),
    (window_update(3, 0), Code.PROTOCOL_ERROR, "a window opened by 0 (section 6.9)"),
]


@pytest.mark.parametrize(("sent", "code", "detail"), STREAM_FAULTS, ids=["PRIORITY of 3", "WINDOW_UPDATE by 0"])
def test_what_ends_a_stream(sent: bytes, code: int, detail: str) -> None:
    made = reader(sent, ping())
    with pytest.raises(StreamFault) as caught:
        made.next_frame()
    assert (caught.value.stream, caught.value.code, caught.value.detail) == (3, code, detail)
    assert [each.kind for each in all_of(made)] == [Kind.PING]  # and the connection goes on


# ---------------------------------------------------------------------------------------------------------- counting

GLITCHES = [
    ("PING", ping(), 1),
    ("an answer to a PING", ping(ack=True), 1),
    ("SETTINGS", settings(), 1),
    ("an answer to SETTINGS", settings(ack=True), 1),
    ("PRIORITY", priority(5), 1),
    ("PRIORITY_UPDATE", built.frame(PRIORITY_UPDATE, 0, 0, bytes(4)), 1),
    ("an unknown frame", built.frame(0x77, 0, 0, b""), 1),
    ("the frame before PRIORITY_UPDATE", built.frame(0x0F, 0, 0, b""), 1),
    ("DATA without a byte", data(1), 1),
    ("DATA of padding", data(1, padding=200), 1),
    ("a window opened by 63", window_update(0, TINY_WINDOW_BYTES - 1), 1),
    ("a stream's window opened by 1", window_update(1, 1), 1),
    ("a window opened by 64", window_update(0, TINY_WINDOW_BYTES), 0),
    ("the end without a byte", data(1, end=True), 0),
    ("one byte", data(1, b"x"), 0),
    ("GOAWAY", goaway(), 1),
    ("RST_STREAM", rst(1), 0),
    ("HEADERS", headers(1, b""), 0),
]


@pytest.mark.parametrize(("sent", "glitches"), [row[1:] for row in GLITCHES], ids=[row[0] for row in GLITCHES])
def test_what_costs_its_sender_next_to_nothing_counts(sent: bytes, glitches: int) -> None:
    made = reader(ping() * (EARNED - 1))  # the credit of the beginning, but for what SETTINGS took
    all_of(made)
    assert made.glitches == 0
    made.feed(sent * 10)
    all_of(made)
    assert made.glitches == 10 * glitches
    assert made.resets == (10 if sent == rst(1) else 0)


def test_work_excuses_a_few_of_them() -> None:
    made = reader(ping() * (EARNED - 1))
    all_of(made)
    for useful in (headers(1, b""), data(1, b"x"), data(1, b"x", padding=3)):
        made.feed(useful + ping() * (EARNED + 1))
        before = made.glitches
        all_of(made)
        assert made.glitches == before + 1
    made.earn()
    made.feed(ping())
    all_of(made)
    assert made.glitches == 3


def test_nobody_saves_up_more_than_so_many() -> None:
    made = reader(data(1, b"x") * CREDIT_MAX, ping() * (CREDIT_MAX + 5))
    all_of(made)
    assert made.glitches == 5


# ----------------------------------------------------------------------------------------------------------- writing


def test_frames_are_written_as_they_are_read() -> None:
    assert frame(Kind.PING, 1, 0, b"12345678") == ping(b"12345678", ack=True)
    assert settings_frame({1: 0, 4: 2**31 - 1}) == settings({1: 0, 4: 2**31 - 1})
    assert reset_frame(7, Code.CANCEL) == rst(7)
    assert goaway_frame(7, Code.ENHANCE_YOUR_CALM, "why é") == goaway(7, 11, b"why ?")


def test_a_frame_is_changed_into_another() -> None:
    [found] = all_of(reader(settings([(4, 7), (4, 8), (99, 1)])))
    assert found.settings() == [(4, 7), (4, 8), (99, 1)]
    assert found.with_settings([(4, 8)]).whole == settings([(4, 8)])
    assert found.with_payload(b"").whole == settings()
    bare = headers(3, b"block", end=False)
    assert Frame(1, 4, 3, bare).with_flags(5) == Frame(1, 5, 3, headers(3, b"block"))
    for extra in (
        headers(3, b"block", padding=0),
        headers(3, b"block", padding=4),
        headers(3, b"block", priority=b"abcde"),
        headers(3, b"block", padding=4, priority=b"abcde"),
    ):
        [found] = all_of(reader(extra))
        assert found.without_extras() == Frame(1, 5, 3, headers(3, b"block"))


def test_codes_have_names() -> None:
    assert name_of(8) == name_of(Code.CANCEL) == "CANCEL"
    assert name_of(0x99) == "error 0x99"
    assert [int(code) for code in Code] == list(range(14))
