"""permessage-deflate with either side, whatever the other one has: what is said in the heads, and what goes on."""

from __future__ import annotations

import zlib

import pytest

from tests.core.test_websocket_relay import ASK, SWITCH, Line, Seen, told
from tests.core.websocket_frames import TEXT, Frame, frame, text
from tests.websocket.cases_deflate import COMPRESSED, HELLO

WORDS = "as they say " * 20


def extended(head: bytes, value: str) -> bytes:
    """A head with extensions."""
    return head.replace(b"Connection", b"Sec-WebSocket-Extensions: " + value.encode() + b"\r\nConnection")


def inflated(each: Frame) -> str:
    """The text of a message that must be compressed."""
    assert (each.opcode, each.rsv) == (TEXT, COMPRESSED)
    return zlib.decompressobj(-12).decompress(each.payload + b"\0\0\xff\xff").decode()


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("origin", [None, False, True])
def test_each_side_has_its_own(client: bool, origin: bool | None) -> None:
    """`None` is an origin that is not asked."""
    ask = extended(ASK, "x-other, permessage-deflate; client_max_window_bits") if client else ASK
    switch = extended(SWITCH, "permessage-deflate; server_max_window_bits=9") if origin else SWITCH
    line = Line(Seen(), ask=ask, switch=switch, compress_upstream=origin is not None)
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n"
    assert (offer in line.asked) == (origin is not None)
    assert line.asked.count(b"Extensions") == (origin is not None)
    agreed = b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12; client_max_window_bits=12\r\n"
    assert (agreed in line.switched) == client
    assert line.switched.count(b"Extensions") == client
    for _ in range(2):
        line.says(frame(TEXT, HELLO, rsv=COMPRESSED) if client else text("Hello"))
        (up,) = line.up
        if origin:
            assert up.rsv == COMPRESSED
        else:
            assert [up] == told("Hello")
        line.answers(frame(TEXT, HELLO, mask=None, rsv=COMPRESSED) if origin else text("Hello", mask=None))
        (down,) = line.down
        if client:
            assert down.rsv == COMPRESSED
        else:
            assert [down] == told("Hello")


def test_what_a_filter_makes_is_compressed() -> None:
    line = Line(Seen(lambda exchange, message: WORDS), ask=extended(ASK, "permessage-deflate"))
    line.answers(text("a", mask=None))
    (down,) = line.down
    assert inflated(down) == WORDS
    assert len(down.payload) < 40


@pytest.mark.parametrize(
    "answer",
    ["permessage-deflate; client_max_window_bits=16", "permessage-deflate, permessage-deflate", "permessage-deflate;"],
)
def test_an_origin_that_agrees_to_what_there_is_not(answer: str) -> None:
    line = Line(Seen(), switch=extended(SWITCH, answer), compress_upstream=True)
    assert line.switched.startswith(b"HTTP/1.1 502 ")
    assert line.record == ("upstream_invalid", None)


def test_a_client_that_offers_nonsense_goes_on_without() -> None:
    line = Line(Seen(), ask=extended(ASK, 'permessage-deflate; client_max_window_bits="'))
    assert b"Extensions" not in line.switched
    line.answers(text("a", mask=None))
    assert line.down == told("a")


def test_offers_over_several_fields() -> None:
    ask = extended(extended(ASK, "permessage-deflate; server_max_window_bits=11"), "permessage-deflate; x")
    line = Line(Seen(), ask=ask)
    assert b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=11\r\n" in line.switched
