"""permessage-deflate: what is agreed to, messages there and back with the package websockets as judge, and bombs."""

from __future__ import annotations

import zlib
from itertools import product
from math import inf
from random import Random
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame as TheirFrame
from websockets.frames import Opcode as TheirOpcode
from websockets.headers import parse_extension

from coulee.core import Message, WebSocket
from coulee.core.codec import ProtocolError
from coulee.core.websocket_codec import Fault, WebSocketCodec
from coulee.core.websocket_deflate import FINAL_BLOCKS_MAX, Deflate, agree_downstream, agree_upstream, offered
from tests.core.websocket_frames import BINARY, CONTINUATION, PING, TEXT, frame, read

NAME: Final = "permessage-deflate"
OURS: Final = f"{NAME}; server_max_window_bits=12"
DOWN: Final = WebSocket()
UP: Final = WebSocket(compress_upstream=True)
KEYS: Final = ("inflate_bits", "inflate_anew", "deflate_bits", "deflate_anew")


def terms(deflate: Deflate | None) -> tuple[int, bool, int, bool] | None:
    """What was agreed: the bits of the peer and whether it begins anew with each message, and ours."""
    if deflate is None:
        return None
    return deflate.inflate_bits, deflate.inflate_anew, deflate.deflate_bits, deflate.deflate_anew


def made(**settings: Any) -> Deflate:
    """One that has agreed to ordinary things, but for what is said."""
    agreed: dict[str, Any] = dict(zip(KEYS, (15, False, 12, False), strict=True))
    agreed.update({key: settings.pop(key) for key in KEYS if key in settings})
    return Deflate(WebSocket(**settings), **agreed)


def reader(deflate: Deflate, **settings: Any) -> WebSocketCodec:
    """The side of a client."""
    return WebSocketCodec("server", "downstream", WebSocket(**settings), deflate, Random(1))


def heard(codec: WebSocketCodec, data: bytes, step: int = 0) -> list[str | bytes | int]:
    """The messages in some bytes that come `step` at a time, and the code of the fault behind them."""
    found: list[str | bytes | int] = []
    try:
        for at in range(0, len(data), step or len(data)):
            codec.feed(data[at : at + (step or len(data))])
            while (news := codec.next_news()) is not None:
                if isinstance(news, Message):
                    found.append(news.data)
    except Fault as fault:
        found.append(fault.code)
    return found


def squeezed(data: bytes, bits: int = 15, level: int = 9) -> bytes:
    """A message, deflated by itself."""
    deflater = zlib.compressobj(level, zlib.DEFLATED, -bits)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def final(data: bytes) -> bytes:
    """... and with a final block at its end."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflater.compress(data) + deflater.flush()


# ----------------------------------------------------------------------------------------------------- what is agreed

ANSWERS = [
    # what a client offers, with p for the name; what it is told behind that; and what holds
    ("p", "; server_max_window_bits=12", (15, False, 12, False)),
    ("p; client_max_window_bits", "; server_max_window_bits=12; client_max_window_bits=12", (12, False, 12, False)),
    ("p;client_max_window_bits=9", "; server_max_window_bits=12; client_max_window_bits=9", (9, False, 12, False)),
    ("p;client_max_window_bits=15", "; server_max_window_bits=12; client_max_window_bits=12", (12, False, 12, False)),
    ("p;client_max_window_bits=8", "; server_max_window_bits=12; client_max_window_bits=8", (8, False, 12, False)),
    ("p;server_max_window_bits=15", "; server_max_window_bits=12", (15, False, 12, False)),
    ("p;server_max_window_bits=10", "; server_max_window_bits=10", (15, False, 10, False)),
    ("p;server_max_window_bits=8", "; server_max_window_bits=8", (15, False, 8, False)),
    ('p;server_max_window_bits="1\\0"', "; server_max_window_bits=10", (15, False, 10, False)),
    ("p;server_no_context_takeover", "; server_max_window_bits=12; server_no_context_takeover", (15, False, 12, True)),
    ("p;client_no_context_takeover", "; server_max_window_bits=12; client_no_context_takeover", (15, True, 12, False)),
    ("\tp ; server_max_window_bits\t= 9 ;client_no_context_takeover ",
     "; server_max_window_bits=9; client_no_context_takeover", (15, True, 9, False)),
    # the first that can be taken
    ("p;server_max_window_bits=10, p", "; server_max_window_bits=10", (15, False, 10, False)),
    ("p;server_max_window_bits=16, p;server_max_window_bits=11", "; server_max_window_bits=11", (15, False, 11, False)),
    ("x-other; a=\"b\", , p", "; server_max_window_bits=12", (15, False, 12, False)),
    # none
    *[(offer, None, None) for offer in (
        "", " ", ",", "x-other", "P;", "p p", "p;", "p; =9", "p;a=", "p;server_max_window_bits",
        "p;client_max_window_bits=", "p;server_max_window_bits=7", "p;server_max_window_bits=16",
        "p;server_max_window_bits=09", "p;server_max_window_bits=12 3",
        "p;server_max_window_bits=+9", "p;server_max_window_bits=\u0661\u0660",
        "p;client_max_window_bits=7", "p;client_max_window_bits=08", "p;client_max_window_bits=x",
        'p;client_max_window_bits=""', 'p;client_max_window_bits="9', 'p;client_max_window_bits="1 0"',
        "p;server_no_context_takeover=1", "p;client_no_context_takeover=true", "p;x", "p;x=1",
        "p;client_no_context_takeover;client_no_context_takeover", "p;client_max_window_bits;client_max_window_bits=9",
        "p, x-other; \"", "permessage-deflate2", "p; Server_no_context_takeover",
    )],
]  # fmt: skip


@pytest.mark.parametrize(("offer", "told", "agreed"), ANSWERS)
def test_what_a_client_offers(offer: str, told: str | None, agreed: tuple[object, ...] | None) -> None:
    offer = _named(offer)
    deflate, said = agree_downstream(DOWN, offer)
    assert (said, terms(deflate)) == ("" if told is None else NAME + told, agreed)


def _named(field: str) -> str:
    """With p as the long name that it stands for, where it is one by itself."""
    return ",".join(
        part.replace("p", NAME, 1) if part.strip(" \t")[:2] in ("p", "p;", "p ") else part for part in field.split(",")
    )


def test_a_client_that_offers_nothing_or_may_not() -> None:
    assert agree_downstream(DOWN, None) == (None, "")
    assert agree_downstream(WebSocket(compress_downstream=False), NAME) == (None, "")
    assert offered(WebSocket()) == ""
    assert offered(UP) == f"{NAME}; client_max_window_bits=12"
    assert agree_upstream(WebSocket(), None) is None
    assert agree_upstream(UP, None) is None


TERMS = [
    ("p", (15, False, 12, False)),
    ("p; client_max_window_bits=12", (15, False, 12, False)),
    ("p; client_max_window_bits=10; server_max_window_bits=11", (11, False, 10, False)),
    ("p; client_max_window_bits=8; server_max_window_bits=8", (8, False, 8, False)),
    ('p; server_max_window_bits="14"', (14, False, 12, False)),
    ("p; server_no_context_takeover", (15, True, 12, False)),
    ("p; client_no_context_takeover,", (15, False, 12, True)),
]


@pytest.mark.parametrize(("answer", "agreed"), TERMS)
def test_what_an_origin_agrees_to(answer: str, agreed: tuple[object, ...]) -> None:
    assert terms(agree_upstream(UP, _named(answer))) == agreed


@pytest.mark.parametrize(("answer", "word"), [
    ("", "malformed"), (",", "malformed"), ("p; a=\"", "malformed"), ("p;", "malformed"),
    ("p, p", "not offered"), ("p, x-other", "not offered"), ("x-other", "not offered"),
    ("p; client_max_window_bits", "without a value"), ("p; server_max_window_bits", "server_max_window_bits"),
    ("p; client_max_window_bits=13", "was offered 12"),
    ("p; client_max_window_bits=7", "=7"), ("p; server_max_window_bits=010", "=010"),
    ("p; server_no_context_takeover; server_no_context_takeover", "twice"), ("p; x", "with x"),
])  # fmt: skip
def test_what_an_origin_must_not_agree_to(answer: str, word: str) -> None:
    with pytest.raises(ProtocolError, match=word):
        agree_upstream(UP, _named(answer))


def test_an_origin_that_was_offered_nothing() -> None:
    with pytest.raises(ProtocolError, match="not offered"):
        agree_upstream(WebSocket(), NAME)


@pytest.mark.parametrize("anew", list(product([False, True], [False, True])))
@pytest.mark.parametrize("server_bits", [None, 9, 15])
@pytest.mark.parametrize("client_bits", [None, True, 9, 15])
def test_websockets_takes_what_it_is_told_and_offers_what_is_taken(
    anew: tuple[bool, bool], server_bits: int | None, client_bits: int | bool | None
) -> None:
    client = ClientPerMessageDeflateFactory(anew[0], anew[1], server_bits, client_bits)
    offer = "; ".join(
        [NAME, *[key if value is None else f"{key}={value}" for key, value in client.get_request_params()]]
    )
    ours, told = agree_downstream(DOWN, offer)
    assert ours is not None
    ((_, parameters),) = parse_extension(told)
    theirs = client.process_response_params(parameters, [])
    assert terms(ours) == (
        theirs.local_max_window_bits, theirs.local_no_context_takeover,
        theirs.remote_max_window_bits, theirs.remote_no_context_takeover,
    )  # fmt: skip
    if client_bits is not True:
        server = ServerPerMessageDeflateFactory(anew[0], anew[1], server_bits, client_bits)
        ((_, parameters),) = parse_extension(offered(UP))
        answer, theirs = server.process_request_params(parameters, [])
        ours = agree_upstream(
            UP, "; ".join([NAME, *[key if value is None else f"{key}={value}" for key, value in answer]])
        )
        assert ours is not None
        assert (ours.inflate_bits, ours.inflate_anew) == (
            theirs.local_max_window_bits,
            theirs.local_no_context_takeover,
        )
        assert ours.deflate_bits <= theirs.remote_max_window_bits
        assert ours.deflate_anew == theirs.remote_no_context_takeover


# ------------------------------------------------------------------------------------------------------ there and back

BITS = st.integers(9, 15)
WORDS = st.lists(st.sampled_from(["", "a", "hello", "für", "x" * 300, "abc" * 3000, "".join(map(chr, range(32, 999)))]))


@given(BITS, st.booleans(), WORDS, st.lists(st.integers(0, 999), max_size=3), st.integers(1, 700))
def test_what_websockets_deflates_is_inflated(
    bits: int, anew: bool, words: list[str], cuts: list[int], step: int
) -> None:
    theirs = PerMessageDeflate(False, anew, 15, bits)
    data = b""
    for word in words:
        raw, opcode = word.encode(), TheirOpcode.TEXT
        for size in cuts:
            part, raw = raw[:size], raw[size:]
            sent = theirs.encode(TheirFrame(opcode, part, fin=False))
            data += frame(int(sent.opcode), bytes(sent.data), fin=False, rsv=4 * sent.rsv1) + frame(PING)
            opcode = TheirOpcode.CONT
        sent = theirs.encode(TheirFrame(opcode, raw))
        data += frame(int(sent.opcode), bytes(sent.data), rsv=4 * sent.rsv1)
    ours = made(inflate_bits=bits, inflate_anew=anew)
    assert heard(reader(ours), data, step) == words


@given(BITS, st.booleans(), WORDS)
def test_what_we_deflate_is_what_websockets_inflates(bits: int, anew: bool, words: list[str]) -> None:
    theirs = PerMessageDeflate(anew, False, bits, 15)
    ours = reader(made(deflate_bits=bits, deflate_anew=anew))
    for word in words:
        (sent,) = read(ours.write(word))
        got = theirs.decode(TheirFrame(TheirOpcode(sent.opcode), sent.payload, rsv1=sent.rsv == 4))
        assert bytes(got.data).decode() == word
        assert len(sent.payload) <= len(word.encode()) + 8


@given(st.lists(st.binary(max_size=2000) | st.integers(0, 90000).map(bytes)), st.integers(8, 15), st.booleans())
def test_both_ends_agree(messages: list[bytes], bits: int, anew: bool) -> None:
    settings = WebSocket(inflate_ratio_max=1e6)
    near = WebSocketCodec("client", "upstream", settings, made(deflate_bits=bits, deflate_anew=anew), Random(1))
    far = reader(made(inflate_bits=bits, inflate_anew=anew, inflate_ratio_max=inf))
    for message in messages:
        assert heard(far, near.write(message)) == [message]


def test_what_goes_compressed() -> None:
    kept, anew, never = made(), made(deflate_anew=True), made(deflate_bits=8)
    word = "much of what people say they have said before, " * 2
    for deflate, sizes in ((kept, [60, 8]), (anew, [60, 60]), (never, [len(word)] * 2)):
        for size in sizes:
            (sent,) = read(reader(deflate).write(word))
            assert sent.rsv == 4 * (deflate is not never)
            assert len(sent.payload) <= size
    for deflate in (kept, anew):
        (sent,) = read(reader(deflate).write(""))
        assert (sent.payload, sent.rsv) == (b"", 0)
    noise = Random(1).randbytes(500)
    (sent,) = read(reader(anew).write(noise))
    assert (sent.rsv, len(sent.payload)) == (4, 506), "also what gets no smaller: there are ends that count on it"
    (sent,) = read(reader(kept).write_ping(b"a" * 100))
    assert (sent.payload, sent.rsv) == (b"a" * 100, 0)


def test_a_window_is_no_larger_than_agreed() -> None:
    """What is repeated from further back than the window is sent again."""
    noise = Random(1).randbytes(5000)
    for bits, found in ((12, False), (13, True)):
        (sent,) = read(reader(made(deflate_bits=bits)).write(noise * 2))
        assert (len(sent.payload) < 6000) == found


def test_nothing_is_held_between_messages_that_begin_anew() -> None:
    deflate = made(inflate_anew=True, deflate_anew=True)
    assert (deflate.enabled(), deflate.offer()) == (True, False)
    codec = reader(deflate)
    assert heard(codec, frame(TEXT, squeezed(b"a"), rsv=4)) == ["a"]
    codec.write("a" * 100)
    assert (deflate._inflater, deflate._deflater) == (None, None)


# ---------------------------------------------------------------------------------- examples, and what is odd but right

HELLO: Final = bytes.fromhex("f248cdc9c90700")


@pytest.mark.parametrize(("data", "words"), [
    # RFC 7692 section 7.2.3, one after another
    (frame(TEXT, HELLO, rsv=4), ["Hello"]),
    (frame(TEXT, HELLO[:3], rsv=4, fin=False) + frame(CONTINUATION, HELLO[3:]), ["Hello"]),
    (frame(TEXT, HELLO, rsv=4) * 2, ["Hello"] * 2),
    (frame(TEXT, HELLO, rsv=4) + frame(TEXT, bytes.fromhex("f200110000"), rsv=4), ["Hello"] * 2),
    (frame(TEXT, bytes.fromhex("000500faff48656c6c6f00"), rsv=4), ["Hello"]),
    (frame(TEXT, bytes.fromhex("f348cdc9c9070000"), rsv=4) * 2, ["Hello"] * 2),
    (frame(TEXT, bytes.fromhex("f248050000 00ffffcac9c90700"), rsv=4), ["Hello"]),
    (frame(TEXT, b"\0", rsv=4), [""]),
    # no byte for an empty message, as wsproto and others send it; before and behind another
    (frame(TEXT, rsv=4) + frame(TEXT, HELLO, rsv=4) + frame(TEXT, rsv=4) + frame(TEXT, HELLO, rsv=4),
     ["", "Hello", "", "Hello"]),
    # final blocks: nothing behind; another behind; in two frames; a message without any behind one
    (frame(TEXT, final(b"Hello"), rsv=4) * 2 + frame(TEXT, HELLO, rsv=4), ["Hello"] * 3),
    (frame(TEXT, final(b"Hel") + final(b"lo"), rsv=4) + frame(TEXT, HELLO, rsv=4), ["Hello"] * 2),
    (frame(TEXT, final(b"Hel"), rsv=4, fin=False) + frame(CONTINUATION, squeezed(b"lo")), ["Hello"]),
    # some messages are compressed and some are not
    (frame(TEXT, HELLO, rsv=4) + frame(TEXT, b"plain") + frame(TEXT, HELLO, rsv=4), ["Hello", "plain", "Hello"]),
    (frame(TEXT, HELLO[:3], rsv=4, fin=False) + frame(PING, b"?") + frame(CONTINUATION, HELLO[3:]), ["Hello"]),
    (frame(TEXT, b"pl", fin=False) + frame(PING, b"?") + frame(CONTINUATION, b"ain"), ["plain"]),
    (frame(BINARY, squeezed(b"\xff"), rsv=4), [b"\xff"]),
    # a character that is cut by a frame
    (frame(TEXT, squeezed("für".encode())[:4], rsv=4, fin=False)
     + frame(CONTINUATION, squeezed("für".encode())[4:]), ["für"]),
    # the bit where it must not be, and other bits
    (frame(TEXT, HELLO[:3], rsv=4, fin=False) + frame(CONTINUATION, HELLO[3:], rsv=4), [1002]),
    (frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", rsv=4), [1002]),
    (frame(TEXT, HELLO, rsv=4, fin=False) + frame(TEXT, HELLO, rsv=4), [1002]),
    (frame(TEXT, b"a", fin=False) + frame(TEXT, HELLO), [1002]),
    # a new message within one, whatever its bytes would be as more of that one
    *[(frame(TEXT, HELLO[:3], rsv=4, fin=False) + frame(kind, b"\x07\xff\xff\xff", rsv=rsv), [1002])
      for kind in (TEXT, BINARY) for rsv in (0, 4)],
    (frame(CONTINUATION, HELLO, rsv=4), [1002]),
    (frame(CONTINUATION, HELLO), [1002]),
    (frame(TEXT, HELLO, rsv=4) + frame(CONTINUATION, b"\x07\xff\xff\xff"), ["Hello", 1002]),
    (frame(PING, rsv=4), [1002]),
    (frame(TEXT, HELLO, rsv=6), [1002]),
    (frame(TEXT, HELLO, rsv=5), [1002]),
    # data that is broken, text that is none, a window that was not agreed
    (frame(TEXT, b"\xff", rsv=4), [1007]),
    (frame(TEXT, HELLO, rsv=4) + frame(TEXT, b"\x07\xff", rsv=4), ["Hello", 1007]),
    (frame(TEXT, squeezed(b"\xff"), rsv=4), [1007]),
    (frame(TEXT, b"\x00\x05", rsv=4), [1007]),
])  # fmt: skip
@pytest.mark.parametrize("step", [0, 1])
def test_messages_as_they_are_sent(data: bytes, words: list[str | int], step: int) -> None:
    assert heard(reader(made()), data, step) == words


@pytest.mark.parametrize("deflate_anew", [False, True])
def test_a_window_that_should_not_have_been_kept(deflate_anew: bool) -> None:
    data = frame(TEXT, HELLO, rsv=4) + frame(TEXT, bytes.fromhex("f200110000"), rsv=4)
    assert heard(reader(made(inflate_anew=True, deflate_anew=deflate_anew)), data) == ["Hello", 1007]
    assert heard(reader(made(inflate_anew=False, deflate_anew=deflate_anew)), data) == ["Hello", "Hello"]


def test_a_window_that_was_not_agreed_to() -> None:
    noise = Random(1).randbytes(5000)
    data = frame(BINARY, squeezed(noise * 2), rsv=4)
    assert heard(reader(made(inflate_bits=13)), data, 1) == [noise * 2]
    assert heard(reader(made(inflate_bits=12)), data, 1) == [1007]


# ---------------------------------------------------------------------------------------------------------------- bombs


@pytest.mark.parametrize(("settings", "size", "fits"), [
    ({"inflate_free_bytes": 1000, "inflate_ratio_max": 1}, 1000, True),
    ({"inflate_free_bytes": 1000, "inflate_ratio_max": 1}, 1001, False),
    ({"inflate_free_bytes": 0, "inflate_ratio_max": 1}, 512, True),
    ({"inflate_free_bytes": 0, "inflate_ratio_max": 1}, 513, False),
    ({"inflate_free_bytes": 0, "inflate_ratio_max": 0.5}, 256, True),
    ({"inflate_free_bytes": 0, "inflate_ratio_max": 0.5}, 257, False),
    ({"message_bytes_max": 900}, 900, True),
    ({"message_bytes_max": 900}, 901, False),
    ({"message_bytes_max": 10**6, "inflate_ratio_max": inf}, 10**6, True),
    ({"message_bytes_max": 10**6, "inflate_ratio_max": inf}, 10**6 + 1, False),
    ({"inflate_ratio_max": 1030}, 10**6, True),
    ({"inflate_ratio_max": 500}, 10**6, False),
])  # fmt: skip
@pytest.mark.parametrize("cut", [None, 5, 30])
@pytest.mark.parametrize("step", [0, 1])
def test_how_large_a_message_may_become(
    settings: dict[str, Any], size: int, fits: bool, cut: int | None, step: int
) -> None:
    small = squeezed(bytes(size))
    data = frame(BINARY, small, rsv=4)
    if cut is not None:
        data = frame(BINARY, small[:cut], rsv=4, fin=False) + frame(CONTINUATION, small[cut:])
    codec = reader(made(**settings))
    assert heard(codec, data * 2, step) == ([bytes(size)] * 2 if fits else [1009])


@given(
    st.lists(st.tuples(st.sampled_from([b"\0", b"ab", Random(1).randbytes(700)]), st.integers(0, 2000)), max_size=4),
    st.integers(1, 300),
    st.integers(0, 20000),
    st.lists(st.integers(1, 1000), min_size=1, max_size=5),
)
def test_a_bomb_is_one_however_it_is_cut(
    runs: list[tuple[bytes, int]], ratio: int, free: int, sizes: list[int]
) -> None:
    data = squeezed(b"".join(piece * times for piece, times in runs)[:200_000])
    whole, cut = (made(inflate_ratio_max=ratio, inflate_free_bytes=free) for _ in range(2))
    told = heard(reader(whole), frame(BINARY, data, rsv=4))
    codec = reader(cut)
    found: list[str | bytes | int] = []
    line = frame(BINARY, data, rsv=4)
    while line and not found:
        size = sizes.pop(0)
        sizes.append(size)
        found = heard(codec, line[:size])
        line = line[size:]
    assert found == told


@pytest.mark.parametrize("step", [0, 1, 7, 512])
def test_a_bound_that_is_passed_at_the_end_of_a_step(step: int) -> None:
    """zlib reads on to what it has no room for, which is in the next 512 bytes: they count for nothing here."""
    found = 0
    for seed in range(12):
        rng = Random(seed)
        words = [rng.choice([rng.randbytes(rng.randrange(1, 40)), bytes(rng.randrange(3, 900))]) for _ in range(120)]
        data = squeezed(b"".join(words))[:560]
        size = len(zlib.decompressobj(-15).decompress(data[:512]))
        for free, fits in ((size - 1, False), (size, True)):
            codec = reader(made(inflate_free_bytes=free, inflate_ratio_max=1.9 * free / 1024))
            found += heard(codec, frame(BINARY, data, rsv=4, fin=False), step) == ([] if fits else [1009])
    assert found == 24


def test_no_more_is_inflated_than_is_asked_for() -> None:
    """The bound holds while it is inflated, and for what comes out with the tail."""
    deflate = made(message_bytes_max=1000)
    codec = reader(deflate)
    assert heard(codec, frame(BINARY, squeezed(bytes(10**7)), rsv=4)) == [1009]
    assert deflate._inflated_bytes == 1001
    # A stored block that lacks its four last bytes has them of the tail.
    stored = b"\x00\x05\x00\xfa\xffa"
    assert heard(reader(made(message_bytes_max=5)), frame(BINARY, stored, rsv=4)) == [b"a\0\0\xff\xff"]
    assert heard(reader(made(message_bytes_max=4)), frame(BINARY, stored, rsv=4)) == [1009]


def test_final_blocks_have_a_bound() -> None:
    empty = final(b"")
    codec = reader(made())
    assert heard(codec, frame(BINARY, empty * FINAL_BLOCKS_MAX, rsv=4) * 2) == [b"", b""]
    assert heard(codec, frame(BINARY, empty * (FINAL_BLOCKS_MAX + 1), rsv=4)) == [1007]


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_a_message_or_a_fault(data: bytes, step: int) -> None:
    line = frame(BINARY, data, rsv=4) * 2
    told = heard(reader(made()), line)
    assert heard(reader(made()), line, step) == told
