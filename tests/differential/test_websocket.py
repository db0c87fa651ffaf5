"""Frames of WebSocket in any order: what our side of it makes of them, and what the package `websockets` does.

It checks frames in its own way, and shares no code with wsproto. That text is UTF-8 it leaves to whoever reads it,
so that is done here, piece by piece (RFC 6455 section 8.1).
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coulee.core import Closing, Message, WebSocket
from coulee.core.websocket_codec import Fault, Ping, Pong, WebSocketCodec
from tests.core.websocket_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

pytest.importorskip("websockets", reason="the package websockets is not installed")

_payloads = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([b"\xe2\x82", b"\xac", b"\xed\xa0\x80", b"\xf0\x90", b"\x8d\x88", "grün".encode(), b"x" * 126]),
)
_codes = st.integers(0, 65535) | st.sampled_from([*range(995, 1020), 2999, 3000, 4999, 5000])
# One rule broken at a time: where a code and the words behind it are wrong, either may be told.
_closes = st.one_of(
    st.binary(max_size=1),
    st.builds(
        lambda code, words: code.to_bytes(2, "big") + words.encode(), _codes, st.sampled_from(["", "done", "grün"])
    ),
    _payloads.map(lambda words: b"\x03\xe8" + words[:100]),
)
_opcodes = st.sampled_from([TEXT, TEXT, BINARY, CONTINUATION, CONTINUATION, PING, PONG]) | st.integers(3, 7)
_usual = st.tuples(_opcodes, _payloads, st.booleans())
_odd = st.tuples(st.sampled_from(["rsv", "mask"]), _payloads, st.booleans())
_ends = st.tuples(st.just(CLOSE), _closes, st.just(True))
_frames = st.lists(st.one_of(_usual, _usual, _usual, _ends, _odd), max_size=8)


def as_bytes(kind: int | str, payload: bytes, fin: bool, client: bool) -> bytes:
    """A frame as one of the two sides sends it, or with something odd about it."""
    mask = b"mask" if client is not (kind == "mask") else None
    opcode = BINARY if isinstance(kind, str) else kind
    return frame(opcode, payload, mask=mask, fin=fin, rsv=2 if kind == "rsv" else 0)


def ours(data: bytes, client: bool) -> list[object]:
    """What we make of it."""
    settings = WebSocket()
    role, sender = ("server", "downstream") if client else ("client", "upstream")
    codec = WebSocketCodec(role, sender, settings, None, Random(1))  # type: ignore[arg-type]
    codec.feed(data)
    found: list[object] = []
    try:
        while (news := codec.next_news()) is not None:
            if isinstance(news, Message):
                found.append(news.data)
            elif isinstance(news, Closing):
                found.append(("close", news.code, news.reason))
            elif isinstance(news, Ping):
                found.append(("ping", bytes(news.payload)))
            elif isinstance(news, Pong):
                found.append(("pong", bytes(news.payload)))
    except Fault as fault:
        found.append(("fault", fault.code))
    return found


def theirs(data: bytes, client: bool) -> list[object]:
    """... and what they do."""
    from websockets.client import ClientProtocol
    from websockets.frames import Frame, Opcode
    from websockets.protocol import State
    from websockets.server import ServerProtocol
    from websockets.uri import parse_uri

    if client:
        protocol: ServerProtocol | ClientProtocol = ServerProtocol(state=State.OPEN, max_size=None)
    else:
        protocol = ClientProtocol(parse_uri("ws://a/"), state=State.OPEN, max_size=None)
    protocol.receive_data(data)
    found: list[object] = []
    kind: Opcode | None = None
    pieces = b""
    decoder = getincrementaldecoder("utf-8")()
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        payload = bytes(event.data)
        if event.opcode is Opcode.CLOSE:
            assert protocol.close_rcvd is not None
            found.append(("close", protocol.close_rcvd.code, protocol.close_rcvd.reason))
        elif event.opcode in (Opcode.PING, Opcode.PONG):
            found.append((event.opcode.name.lower(), payload))
        else:
            if event.opcode is not Opcode.CONT:
                kind, pieces, decoder = event.opcode, b"", getincrementaldecoder("utf-8")()
            pieces += payload
            if kind is Opcode.TEXT:
                try:
                    decoder.decode(payload, event.fin)
                except UnicodeDecodeError:
                    return [*found, ("fault", 1007)]
            if event.fin:
                found.append(pieces.decode() if kind is Opcode.TEXT else pieces)
    if str(protocol.parser_exc) == "incomplete fragmented message":
        # It minds a close frame between fragments, where control frames may be (section 5.4).
        assert protocol.close_rcvd is not None
        found.append(("close", protocol.close_rcvd.code, protocol.close_rcvd.reason))
    if protocol.parser_exc is not None and protocol.close_sent is not None and protocol.close_rcvd is None:
        found.append(("fault", protocol.close_sent.code))
    return found


@given(_frames, st.booleans())
@example([(CLOSE, b"\x03\xf6", True)], True)
@example([(TEXT, b"\xed\xa0\x80", False), (CONTINUATION, b"", True)], True)
@example([(PING, b"x" * 126, True)], False)
@example([("mask", b"", True)], False)
@example([(TEXT, b"", False), (PING, b"", True), (CLOSE, b"", True)], False)
def test_both_make_the_same_of_frames(frames: list[tuple[int | str, bytes, bool]], client: bool) -> None:
    data = b"".join(as_bytes(*each, client) for each in frames)
    assert ours(data, client) == theirs(data, client)
