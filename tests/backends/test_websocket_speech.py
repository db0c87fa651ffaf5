"""What scripted ends speak, with wsproto at the other end: what the one says the other reads, cut anywhere, and what
the one refuses the other does, too."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.utilities import generate_accept_token

from coulee.backends.websocket_speech import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    NO_CODE,
    PING,
    PONG,
    TEXT,
    Deflate,
    Reader,
    Writer,
    accept_of,
    agree,
    close_payload,
    deflate_of,
    frame,
)

SIZES = (0, 1, 125, 126, 127, 65_535, 65_536)
MASK = b"\x01\x80\xff\x7e"

messages = st.lists(st.one_of(st.text(max_size=200), st.binary(max_size=200)), max_size=5)


def wsproto(client: bool, deflate: str = "") -> Connection:
    extensions: list[Extension] = []
    if deflate:
        extensions.append(PerMessageDeflate())
        extensions[0].finalize(deflate)
    return Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER, extensions)


def heard_by(connection: Connection, data: bytes) -> list[str | bytes]:
    """The messages, put together."""
    connection.receive_data(data)
    whole: list[str | bytes] = []
    pieces: list[str | bytes] = []
    for event in connection.events():
        if isinstance(event, Message):
            pieces.append(event.data)
            if event.message_finished:
                kind = "" if isinstance(event, TextMessage) else b""
                whole.append(kind.join(pieces))  # type: ignore[arg-type]
                pieces = []
    return whole


def test_the_keys_of_the_handshake() -> None:
    assert accept_of("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert accept_of(KEY).encode() == generate_accept_token(KEY.encode())


@pytest.mark.parametrize("deflate", ["", "permessage-deflate", "permessage-deflate; client_no_context_takeover"])
@pytest.mark.parametrize("fragments", [1, 2, 5])
def test_wsproto_reads_what_is_written(fragments: int, deflate: str) -> None:
    said: list[str | bytes] = [
        kind for size in SIZES for kind in ("é" * (size // 2), Random(size).randbytes(size), "a" * size)
    ]
    writer = Writer(mask=MASK, deflate=deflate_of(deflate)[0])
    frames = [frame for message in said for frame in writer.message(message, fragments)]
    assert len(frames) == len(said) * fragments
    assert heard_by(wsproto(False, deflate), b"".join(frames)) == said


@pytest.mark.parametrize("deflate", ["", "permessage-deflate", "permessage-deflate; server_no_context_takeover"])
@given(said=messages, random=st.randoms(use_true_random=False))
def test_what_wsproto_writes_is_read_cut_anywhere(deflate: str, said: list[str | bytes], random: Random) -> None:
    other = wsproto(False, deflate)
    data = b""
    for message in said:
        event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        data += other.send(event) + other.send(Ping(b"?")) + other.send(Pong(b"!"))
    data += other.send(CloseConnection(3000, "done"))
    reader = Reader(False, deflate_of(deflate)[1])
    controls = []
    at = 0
    while at < len(data):
        step = random.choice((1, 1, 5, 1000))
        controls += reader.feed(data[at : at + step])
        at += step
    assert not reader.broken
    assert reader.messages == said
    assert controls == [(PING, b"?"), (PONG, b"!")] * len(said) + [(CLOSE, close_payload(3000, "done"))]
    assert reader.pings == [b"?"] * len(said)
    assert reader.pongs == [b"!"] * len(said)
    assert (reader.closing, reader.between_frames, reader.in_message) == ((3000, "done"), True, False)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (frame(TEXT, b"x", rsv=1), "reserved bits: 001"),
        (frame(TEXT, b"x", rsv=4), "reserved bits: 100"),
        (frame(TEXT, b"x", mask=MASK), "that is masked"),
        (frame(0x3, b"x"), "the opcode 3"),
        (frame(0xB, b"x"), "the opcode 11"),
        (frame(CONTINUATION, b"x"), "a fragment of no message"),
        (frame(TEXT, b"x", fin=False) + frame(BINARY), "a message within a message"),
        (frame(PING, b"x", fin=False), "a control frame that is cut"),
        (frame(PING, bytes(126)), "longer than 125"),
        (frame(CLOSE, b"\x03"), "half a code"),
        (frame(CLOSE, close_payload(999)), "the code 999"),
        (frame(CLOSE, (1005).to_bytes(2, "big")), "the code 1005"),
        (frame(CLOSE, close_payload(5000)), "the code 5000"),
        (frame(CLOSE, close_payload(1000) + b"\xff"), "no UTF-8"),
        (frame(TEXT, b"\xff"), "no UTF-8"),
        (frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x82"), "no UTF-8"),
        (b"\x82\x7e\x00\x01x", "more bytes than it needs"),
        (b"\x82\x7f" + bytes(7) + b"\x01x", "more bytes than it needs"),
    ],
)
def test_who_breaks_a_rule_is_told_which_and_by_wsproto_too(data: bytes, says: str) -> None:
    reader = Reader(False)
    reader.feed(data + frame(TEXT, b"not read"))
    assert says in reader.broken
    assert reader.messages == []
    assert not reader.between_frames
    other = wsproto(True)
    other.receive_data(data)
    refused = list(other.events())[-1]
    assert isinstance(refused, CloseConnection)
    assert refused.code in (1002, 1007)


def test_what_only_we_mind() -> None:
    reader = Reader(False)
    reader.feed(frame(CLOSE) + b"\0")
    assert (reader.closing, reader.broken) == ((NO_CODE, ""), "bytes behind a close frame")
    reader = Reader(False)
    reader.feed(b"\x82\x7f\x7f" + bytes(7))
    assert reader.broken.startswith("a frame of ")
    reader = Reader(True)
    reader.feed(frame(TEXT, b"x"))
    assert reader.broken == "a frame that is not masked"
    reader = Reader(False, Deflate())
    reader.feed(frame(TEXT, b"\xff\xff", rsv=4))
    assert reader.broken.startswith("what cannot be inflated")
    reader = Reader(False, Deflate())
    reader.feed(frame(TEXT, b"", rsv=4, fin=False) + frame(CONTINUATION, b"", rsv=4))
    assert reader.broken == "reserved bits: 100"


def test_what_is_between_and_how_much_there_was() -> None:
    reader = Reader(False)
    reader.feed(frame(TEXT, b"ab", fin=False))
    assert (reader.in_message, reader.between_frames) == (True, True)
    reader.feed(frame(PING, b"") + frame(CONTINUATION, bytes(300))[:-1])
    assert (reader.in_message, reader.between_frames, reader.frames) == (True, False, 2)
    reader.feed(b"\0")
    assert (reader.in_message, reader.frames, reader.longest) == (False, 3, 300)
    assert reader.messages == ["ab" + "\0" * 300]


def test_what_is_agreed_of_compression() -> None:
    assert agree("") == agree("x-other") == ""
    assert agree("x-other, permessage-deflate; client_max_window_bits") == "permessage-deflate"
    offer = "permessage-deflate; server_no_context_takeover; server_max_window_bits=10; client_max_window_bits=12"
    assert agree(offer) == offer
    assert deflate_of("") == (None, None)
    assert deflate_of(agree(offer)) == (Deflate(12), Deflate(10, afresh=True))
