"""permessage-deflate: what is agreed, what it inflates to, and with the package `websockets` at the other end."""

from __future__ import annotations

import zlib
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import Opcode, RsvBits

from coulee.core import Message, WebSocket
from coulee.core.codec import ProtocolError
from coulee.core.websocket_codec import Fault, WebSocketCodec
from coulee.core.websocket_deflate import (
    SHORT_BYTES,
    Deflate,
    agree_downstream,
    agree_upstream,
    offered,
    parse_extensions,
)
from tests.core.websocket_frames import BINARY, CONTINUATION, PING, TEXT, frame, read

BOTH = WebSocket(compress_upstream=True)
AFRESH = "server_no_context_takeover; client_no_context_takeover"
PLAIN: dict[str, Any] = {"writes_bits": 12, "writes_afresh": False, "reads_bits": 15, "reads_afresh": False}
HELLO = b"\xf2\x48\xcd\xc9\xc9\x07\x00"  # of RFC 7692 section 7.2.3.1


def reader(deflate: Deflate | None = None, **settings: Any) -> WebSocketCodec:
    """The side of a client that deflates."""
    limits = WebSocket(**settings)
    return WebSocketCodec("server", "downstream", limits, deflate or Deflate(limits, **PLAIN), Random(1))


def packed(data: bytes, bits: int = 15) -> bytes:
    """A message as a client would deflate it, without anything before it."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -bits)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


# ------------------------------------------------------------------------------------------------- what is agreed


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (None, ""),
        ("permessage-deflate", "permessage-deflate; server_max_window_bits=12"),
        (
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (
            "permessage-deflate;client_max_window_bits=10 ; server_max_window_bits=9",
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits=10",
        ),
        (
            f'permessage-deflate; {AFRESH}; client_max_window_bits="\\1\\5"',
            f"permessage-deflate; {AFRESH}; server_max_window_bits=12; client_max_window_bits=12",
        ),
        ("permessage-deflate; server_max_window_bits=8", "permessage-deflate; server_max_window_bits=8"),
        ("x-first; a=1, permessage-deflate", "permessage-deflate; server_max_window_bits=12"),
        (
            "permessage-deflate; server_max_window_bits=16, permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; server_max_window_bits=10",
        ),
        # declined
        ("x-webkit-deflate-frame", ""),
        ("permessage-deflate; unknown", ""),
        ("permessage-deflate; server_max_window_bits", ""),
        ("permessage-deflate; server_max_window_bits=7", ""),
        ("permessage-deflate; server_max_window_bits=012", ""),
        ("permessage-deflate; client_max_window_bits=x", ""),
        ("permessage-deflate; server_no_context_takeover=1", ""),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits=9", ""),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", ""),
        ("permessage-deflate; =3", ""),
        ('permessage-deflate; client_max_window_bits="12', ""),
        ("permessage deflate", ""),
        ("", ""),
    ],
)
def test_what_is_agreed_with_a_client(value: str | None, answer: str) -> None:
    deflate, said = agree_downstream(WebSocket(), value)
    assert said == answer
    assert (deflate is not None) is bool(answer)


def test_what_is_switched_off_is_not_agreed() -> None:
    assert agree_downstream(WebSocket(compress_downstream=False), "permessage-deflate") == (None, "")
    assert offered(WebSocket()) == ""
    assert offered(BOTH) == "permessage-deflate; client_max_window_bits=12"


@pytest.mark.parametrize(
    "value",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits=12",
        "permessage-deflate; client_max_window_bits=8; server_max_window_bits=8",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10",
    ],
)
def test_what_an_origin_may_agree_to(value: str) -> None:
    assert agree_upstream(BOTH, None) is None
    assert agree_upstream(BOTH, value) is not None
    with pytest.raises(ProtocolError, match="not offered"):
        agree_upstream(WebSocket(), value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x-other",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=13",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; unknown",
        "permessage-deflate, permessage-deflate",
        "permessage-deflate, x-other",
        "permessage-deflate; a b",
    ],
)
def test_what_an_origin_may_not_agree_to(value: str) -> None:
    with pytest.raises(ProtocolError, match="offered"):
        agree_upstream(BOTH, value)


def test_extensions_as_they_are_written() -> None:
    assert parse_extensions('a; b; c="d, \\"e\\""; f = g , h') == [
        ("a", [("b", None), ("c", 'd, "e"'), ("f", "g")]),
        ("h", []),
    ]


@pytest.mark.parametrize(("client", "upstream"), [(True, False), (False, True)])
def test_no_part_of_it_is_left_to_wsproto(client: bool, upstream: bool) -> None:
    deflate = Deflate(WebSocket(), **PLAIN)
    assert deflate.enabled()
    assert deflate.offer() is False


# -------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "payload",
    [
        HELLO,
        b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",  # a block that is not compressed (7.2.3.3)
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",  # a final block, and another one (7.2.3.4)
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",  # two blocks (7.2.3.5)
    ],
)
def test_the_examples_of_the_standard(payload: bytes) -> None:
    codec = reader()
    codec.feed(frame(TEXT, payload, rsv=4))
    assert codec.next_news() == Message("Hello", "downstream")


def test_the_second_message_may_refer_to_the_first_and_its_pieces_may_be_cut_anywhere() -> None:
    codec = reader()
    codec.feed(frame(TEXT, HELLO, rsv=4) + frame(TEXT, b"\xf2\x00\x11", fin=False, rsv=4) + frame(PING))
    codec.feed(frame(CONTINUATION, b"\x00\x00") + frame(TEXT, b"plain"))
    codec.feed(frame(BINARY, b"", fin=True, rsv=4))
    assert codec.next_news() == Message("Hello", "downstream")
    codec.next_news()
    assert codec.next_news() == Message("Hello", "downstream")
    assert codec.next_news() == Message("plain", "downstream")
    assert codec.next_news() == Message(b"", "downstream")


def test_what_was_agreed_to_be_forgotten_is() -> None:
    codec = reader(Deflate(WebSocket(), **{**PLAIN, "reads_afresh": True}))
    codec.feed(frame(TEXT, HELLO, rsv=4) + frame(TEXT, b"\xf2\x00\x11\x00\x00", rsv=4))
    assert codec.next_news() == Message("Hello", "downstream")
    with pytest.raises(Fault, match="inflated") as failed:
        codec.next_news()
    assert failed.value.code == 1007


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xff\xff\xff", rsv=4), 1007),
        (frame(TEXT, b"a", fin=False) + frame(CONTINUATION, HELLO, rsv=4), 1002),
        (frame(PING, b"", rsv=4), 1002),
        (frame(TEXT, HELLO, rsv=2), 1002),
        (frame(TEXT, HELLO, rsv=6), 1002),
    ],
    ids=["broken", "continuation", "ping", "rsv2", "rsv1 and rsv2"],
)
def test_what_is_broken(data: bytes, code: int) -> None:
    codec = reader()
    codec.feed(data)
    with pytest.raises(Fault) as failed:
        codec.next_news()
    assert failed.value.code == code


@pytest.mark.parametrize(
    ("size", "settings", "fits"),
    [
        (1000, {"message_bytes_max": 1000}, True),
        (1001, {"message_bytes_max": 1000}, False),
        (65536, {}, True),
        (65537, {}, False),
        (3000, {"inflate_free_bytes": 0, "inflate_ratio_max": 1000}, True),
        (3000, {"inflate_free_bytes": 0, "inflate_ratio_max": 10}, False),
        (10_000_000, {"inflate_ratio_max": 2000}, True),
    ],
)
def test_how_much_a_message_may_become(size: int, settings: dict[str, Any], fits: bool) -> None:
    codec = reader(**settings)
    codec.feed(frame(BINARY, packed(bytes(size)), rsv=4))
    if fits:
        assert codec.next_news() == Message(bytes(size), "downstream")
    else:
        with pytest.raises(Fault, match="inflates to more") as failed:
            codec.next_news()
        assert failed.value.code == 1009


def test_what_is_too_much_is_not_made_first() -> None:
    """A bomb of a gibibyte in a mebibyte makes no more than what is allowed."""
    settings = WebSocket(inflate_ratio_max=1e9)
    deflate = Deflate(settings, **PLAIN)
    deflate.frame_inbound_header(None, Opcode.BINARY, RsvBits(True, False, False), 1)  # type: ignore[arg-type]
    block = packed(bytes(1 << 24)) + b"\x00\x00\xff\xff"
    made = 0
    for _ in range(64):
        out = deflate.frame_inbound_payload_data(None, block)  # type: ignore[arg-type]
        if not isinstance(out, bytes):
            break
        made += len(out)
    assert out == 1009
    assert made <= settings.message_bytes_max


# -------------------------------------------------------------------------------------------------------- writing


def test_short_messages_and_controls_go_out_as_they_are() -> None:
    codec = reader()
    assert read(codec.write("a" * (SHORT_BYTES - 1)))[0].rsv == 0
    assert read(codec.write("a" * SHORT_BYTES))[0].rsv == 4
    assert len(codec.write("a" * 1000)) < 100
    assert read(codec.write_ping(b"b" * 125))[0] == read(frame(PING, b"b" * 125, mask=None))[0]
    nothing = reader(Deflate(WebSocket(), **{**PLAIN, "writes_bits": 8}))
    assert read(nothing.write("a" * 1000))[0].rsv == 0, "zlib cannot deflate with 8 bits"


# -------------------------------------------------------------------------- with somebody else at the other end


_TERMS = st.fixed_dictionaries(
    {},
    optional={
        "server_no_context_takeover": st.just(None),
        "client_no_context_takeover": st.just(None),
        "server_max_window_bits": st.integers(9, 15),
        "client_max_window_bits": st.none() | st.integers(9, 15),
    },
)
_TEXTS = st.lists(
    st.sampled_from(["", "a", "lorem ipsum " * 20, "{}" * 500, "ä€" * 3000]) | st.text(max_size=90), max_size=6
)


def _field(terms: dict[str, int | None]) -> str:
    return "; ".join(
        ["permessage-deflate", *(name if value is None else f"{name}={value}" for name, value in terms.items())]
    )


@given(_TERMS, _TEXTS, st.integers(1, 50), st.integers(9, 15))
def test_a_client_of_websockets(terms: dict[str, int | None], texts: list[str], piece: int, bits: int) -> None:
    extensions = pytest.importorskip("websockets.extensions.permessage_deflate")
    frames = pytest.importorskip("websockets.frames")
    deflate, said = agree_downstream(WebSocket(window_bits=bits), _field(terms))
    factory = extensions.ClientPerMessageDeflateFactory(
        "server_no_context_takeover" in terms,
        "client_no_context_takeover" in terms,
        terms.get("server_max_window_bits"),
        terms["client_max_window_bits"] or True if "client_max_window_bits" in terms else None,
    )
    other = factory.process_response_params(dict(parse_extensions(said) or [])["permessage-deflate"], [])
    ours = WebSocketCodec("server", "downstream", WebSocket(window_bits=bits), deflate, Random(1))
    _talk(ours, other, texts, piece, frames, client=True)


@given(_TERMS, _TEXTS, st.integers(1, 50))
def test_an_origin_of_websockets(terms: dict[str, int | None], texts: list[str], piece: int) -> None:
    extensions = pytest.importorskip("websockets.extensions.permessage_deflate")
    frames = pytest.importorskip("websockets.frames")
    factory = extensions.ServerPerMessageDeflateFactory(
        "server_no_context_takeover" in terms,
        "client_no_context_takeover" in terms,
        terms.get("server_max_window_bits"),
        terms.get("client_max_window_bits"),
    )
    (offer,) = parse_extensions(offered(BOTH)) or []
    agreed, other = factory.process_request_params(offer[1], [])
    said = "; ".join(["permessage-deflate", *(f"{name}={value}" if value else name for name, value in agreed)])
    ours = WebSocketCodec("client", "upstream", BOTH, agree_upstream(BOTH, said), Random(1))
    _talk(ours, other, texts, piece, frames, client=False)


def _talk(ours: WebSocketCodec, other: Any, texts: list[str], piece: int, frames: Any, *, client: bool) -> None:
    """Messages both ways, those of the other end in fragments."""
    for words in texts:
        got = [
            other.decode(frames.Frame(frames.Opcode(each.opcode), each.payload, each.fin, bool(each.rsv & 4))).data
            for each in read(ours.write(words))
        ]
        assert b"".join(map(bytes, got)).decode() == words
        data = words.encode()
        cuts = list(range(0, len(data), max(piece, len(data) // 20))) or [0]
        for at, end in zip(cuts, [*cuts[1:], len(data)], strict=True):
            opcode = frames.Opcode.CONT if at else frames.Opcode.TEXT
            sent = other.encode(frames.Frame(opcode, data[at:end], end == len(data)))
            ours.feed(
                frame(
                    int(sent.opcode),
                    bytes(sent.data),
                    mask=b"mask" if client else None,
                    fin=sent.fin,
                    rsv=4 if sent.rsv1 else 0,
                )
            )
        news = ours.next_news()
        assert isinstance(news, Message)
        assert news.data == words
