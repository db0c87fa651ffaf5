"""The codec of HTTP/2 in both roles: frames in, parts and news out, and back."""

from __future__ import annotations

import pytest
from hpack import Encoder

from coulee.core.codec import NEED_DATA, PREFACE, ProtocolError
from coulee.core.config import Config, Limits
from coulee.core.forward import Forward
from coulee.core.headers import Headers
from coulee.core.http2 import JUDGED_EVERY, Http2Codec, Reset
from coulee.core.http2_frames import Code, ConnectionFault
from coulee.core.http2_h2 import CLOSED_STREAMS_MAX
from coulee.core.http2_writing import RESETS_REMEMBERED_MAX
from coulee.core.parts import Data, Interim, Part, Request, Response, Trailers, respond
from tests.core.http2_sides import Side, ask, asking, configured, head, served, shown
from tests.http2 import frames as h2
from tests.http2.frames import (
    FRAME_MAX,
    WINDOW,
    continuation,
    data,
    decoded,
    fields,
    get,
    goaway,
    headers,
    parse,
    ping,
    post,
    rst,
    settings,
    window_update,
)

A_B = Headers([("a", "b")])
GREASE = b"\0\x01x\x01y"
OPEN = Response(200, length=None, ended=False)


def priority_update(stream: int, value: bytes) -> bytes:
    return h2.frame(0x10, 0, 0, stream.to_bytes(4) + value)


def posted(*streams: int, config: Config | None = None, values: dict[int, int] | None = None) -> Side:
    """A server that has read the heads of some requests, whose bodies are still to come."""
    side = served(values, config)
    side.hears(*(headers(stream, post(), end=False) for stream in streams or (1,)))
    return side


def got(*streams: int, config: Config | None = None, values: dict[int, int] | None = None) -> Side:
    """A server that has read some whole requests."""
    side = served(values, config)
    side.hears(*(headers(stream, get()) for stream in streams or (1,)))
    return side


def is_over(side: Side) -> None:
    """Nothing is left of any stream."""
    assert side.codec.idle
    assert not any(side.codec.waits(number) for number in range(200))


# ----------------------------------------------------------------------------------------------------- the beginning


def test_a_server_begins_with_its_settings() -> None:
    side = Side("server", configured(Limits(head_bytes_max=9000), streams_max=7, table_bytes_max=100,
                                     stream_window_bytes=2**20))  # fmt: skip
    first, window = side.frames()
    assert first.name == "SETTINGS"
    assert first.values == {1: 100, 3: 7, 4: 2**20, 5: FRAME_MAX, 6: 9000, 8: 1}
    assert (window.stream, window.increment) == (0, 2**20 - WINDOW)
    assert side.codec.within_head
    assert not side.codec.idle
    assert side.hears(h2.PREFACE) == []
    assert side.codec.within_head
    assert side.hears(settings({1: 0})) == []
    assert not side.codec.within_head
    assert side.codec.idle
    assert side.says() == ["SETTINGS ACK"]


def test_a_client_begins_with_the_preface_and_its_settings() -> None:
    side = Side("client", configured(connection_window_bytes=WINDOW))
    raw = side.output()
    assert raw.startswith(PREFACE)
    first, window = parse(raw[len(PREFACE) :])
    assert first.values == {1: 4096, 2: 0, 4: 65536, 5: FRAME_MAX, 6: 32768}
    assert (window.stream, window.increment) == (0, 200 * 65536 - WINDOW), "no stream is to wait for another's reader"


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n", h2.PREFACE + ping()], ids=["HTTP/1.1", "no SETTINGS"])
def test_who_does_not_begin_so_does_not_speak_http2(sent: bytes) -> None:
    side = Side("server", Config())
    assert side.hears(sent) == ["FAULT PROTOCOL_ERROR"]
    assert not side.codec.reusable


def test_settings_of_ours_count_when_they_are_acknowledged() -> None:
    side = Side("server", configured(stream_window_bytes=10, frame_bytes_max=20000))
    assert side.hears(h2.PREFACE, settings(), headers(1, post(), end=False), data(1, bytes(11))) == [
        "1 POST /", f"1 DATA {shown(bytes(11))}"]  # fmt: skip
    assert side.hears(settings(ack=True), headers(3, post(), end=False), data(3, bytes(11))) == [
        "3 POST /", "FAULT FLOW_CONTROL_ERROR"]  # fmt: skip


# ----------------------------------------------------------------------------------------------------- one exchange


def test_a_request_is_read_and_answered() -> None:
    side = served()
    assert side.hears(headers(1, get("/a"))) == ["1 GET /a end"]
    assert not side.codec.idle
    assert side.codec.last_stream == 1
    assert side.codec.is_read(1)
    assert not side.codec.is_written(1)
    side.write(1, Interim(103, A_B), Response(200, A_B, length=2, data=b"hi"))
    assert side.says() == ["1 103", "1 200", "1 DATA 'hi' end"]
    assert side.codec.is_written(1)
    is_over(side)


def test_a_request_with_all_it_can_have() -> None:
    side = served()
    head_of_it = post("/a", ("content-length", "5"), ("cookie", "a=1"), ("cookie", "b=2"))
    sent = [headers(1, head_of_it[:9], end=False, more=True, padding=2, priority=bytes(5)),
            continuation(1, head_of_it[9:12], more=True), continuation(1, head_of_it[12:]), data(1, b"he", padding=3),
            data(1, b""), data(1, b"llo"), headers(1, fields([("a", "b")]))]  # fmt: skip
    assert side.hears(*sent) == ["1 POST /a", "1 DATA 'he'", "1 DATA 'llo'", "1 a=b trailers"]
    request = side.news[0][1]
    assert isinstance(request, Request)
    assert (request.length, request.headers.get("cookie"), request.authority) == (5, "a=1; b=2", "a")
    side.write(1, OPEN, Data(b"x"), Data(b""), Trailers(A_B))
    assert side.says() == ["1 200", "1 DATA 'x'", "1 a=b end"]
    is_over(side)


def test_an_exchange_with_an_origin() -> None:
    side = asking(ask("POST", "/a", length=None, ended=False))
    side.write(1, Data(b"x"), Trailers(A_B))
    assert side.says() == ["1 DATA 'x'", "1 a=b end"]
    assert side.codec.is_written(1)
    assert not side.codec.is_read(1)
    sent = [headers(1, head(103), end=False), headers(1, head(), end=False), data(1, b"hi"), data(1, end=True)]
    assert side.hears(*sent) == ["1 103", "1 200", "1 DATA 'hi'", "1 DATA '' end"]
    assert side.codec.is_read(1)
    is_over(side)


def test_an_answer_that_comes_before_all_is_asked() -> None:
    side = asking(ask("POST", length=9, ended=False))
    assert side.hears(headers(1, head())) == ["1 200 end"]
    assert side.codec.is_read(1)
    assert not side.codec.is_written(1)
    side.write(1, Data(b"123456789", True))
    assert side.says() == ["1 DATA '123456789' end"]
    is_over(side)


def test_a_client_numbers_its_streams_as_it_begins_them() -> None:
    side = asking(ask(), ask(), values={3: 5})
    assert side.codec.next_stream == 5
    assert side.codec.streams_max == 5
    assert side.hears(headers(3, head()), headers(1, head())) == ["3 200 end", "1 200 end"]
    is_over(side)


def test_a_whole_body_that_comes_with_its_head() -> None:
    side = asking()
    side.write(1, ask("PUT", length=3, data=b"abc"))
    assert side.says() == ["1 PUT /", "1 DATA 'abc' end"]
    assert side.codec.is_written(1)
    side = asking(values={4: 0})
    side.write(1, ask("PUT", length=3, data=b"abc"))
    assert side.says() == ["1 PUT /"]
    assert side.codec.unsent(1) == 3


def test_only_what_is_bodiless_ends_with_its_head() -> None:
    for status, method in ((204, "GET"), (304, "GET"), (200, "HEAD")):
        side = served()
        side.hears(headers(1, fields(h2.request(method=method))))
        side.write(1, Response(status, length=5, data=b"", ended=False))
        assert side.says() == [f"1 {status} end"]
        side.write(1, *(() if side.codec.idle else (Data(b"", True),)))
        is_over(side)


def test_the_end_of_an_answer_without_a_body_is_told_once() -> None:
    for end in (data(1, end=True), data(1, padding=2, end=True), headers(1, fields([("a", "b")]))):
        side = asking(ask("HEAD"))
        assert side.hears(headers(1, head(200, [("content-length", "5")]), end=False)) == ["1 200 end"]
        assert not side.codec.is_read(1)
        assert side.hears(end) == []
        assert side.codec.is_read(1)
        is_over(side)


def test_trailers_of_which_none_may_go_on_end_a_body_all_the_same() -> None:
    side = got(1, 3)
    side.write(1, OPEN, Trailers(Headers()))
    assert side.says() == ["1 200", "1 DATA '' end"]
    side.write(3, OPEN, Trailers(Headers([("content-length", "5")])))
    assert side.says() == ["3 200", "3 DATA '' end"]
    is_over(side)


def test_who_may_be_believed_about_tls() -> None:
    wrong = headers(1, fields(h2.request(scheme="https")))
    assert served().hears(wrong) == ["1 MALFORMED 421"]
    side = served()
    side.codec.believed = True
    assert side.hears(wrong) == ["1 GET / end"]
    side = served()
    side.codec.secure = side.codec.believed = True
    assert side.hears(wrong) == ["1 GET / end"]
    assert side.hears(headers(3, get())) == ["3 MALFORMED 421"]


def test_tunnels() -> None:
    connect = fields([(":method", "CONNECT"), (":authority", "b:1")])
    side = served(config=Config(forward=Forward(("b",), (1,))))
    assert side.hears(headers(1, connect, end=False), data(1, b"abc")) == ["1 CONNECT b:1 end", "1 DATA 'abc'"]
    side.write(1, Response(200, length=None, ended=False), Data(b"x"), Data(b"y", True))
    assert side.says()[0] == "1 200"
    assert side.hears(data(1, end=True)) == ["1 DATA '' end"]
    is_over(side)
    assert side.hears(headers(3, connect)) == ["3 CONNECT b:1 end", "3 DATA '' end"]
    assert served().hears(headers(1, connect)) == ["1 MALFORMED 405"]


def test_tunnels_through_an_origin() -> None:
    side = asking()
    side.write(1, ask("GET", "/", upgrade="websocket"))
    side.write(3, Request("CONNECT", "b:1", Headers([("Host", "b:1")]), (2, 0)))
    side.write(1, Data(b"x"), Data(b"y", True))
    assert side.says() == ["1 CONNECT /", "3 CONNECT b:1", "1 DATA 'x'", "1 DATA 'y' end"]
    assert side.hears(headers(1, head(), end=False), data(1, b"z", end=True), headers(3, head())) == [
        "1 101", "1 DATA 'z' end", "3 200", "3 DATA '' end"]  # fmt: skip
    side.write(3, Data(b"", True))
    assert side.says() == ["3 DATA '' end"]
    is_over(side)
    side.write(5, Request("CONNECT", "b:1", Headers([("Host", "b:1")]), (2, 0)))
    assert side.hears(headers(5, head(403, [("content-length", "2")]), end=False), data(5, b"no", end=True)) == [
        "5 403", "5 DATA 'no' end"]  # fmt: skip


# ------------------------------------------------------------------------------------- what is malformed, and how far

MALFORMED = [
    ("an upper case", get("/", ("A", "b")), 400),
    ("no field at all", b"", 400),
    ("a path that is none", get("a"), 400),
    ("a long target", get("/" + "a" * 9000), 414),
    ("many fields", get("/", *[("a", "b")] * 200), 431),
    ("a large head", get("/", *[("a", "b" * 8000)] * 5), 431),
    ("a length with an end", get("/", ("content-length", "5")), 400),
    ("two lengths", get("/", ("content-length", "5"), ("content-length", "6")), 400),
    ("no length", get("/", ("content-length", "five")), 400),
    ("a status", head(), 400),
]


@pytest.mark.parametrize(("block", "status"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_a_malformed_request_can_be_answered(block: bytes, status: int) -> None:
    side = served()
    pieces = [block[at : at + 16000] for at in range(0, len(block), 16000)] or [b""]
    sent = [headers(1, pieces[0], more=len(pieces) > 1)]
    sent += [continuation(1, piece, more=piece is not pieces[-1]) for piece in pieces[1:]]
    assert side.hears(*sent, headers(3, get("/b"))) == [f"1 MALFORMED {status}", "3 GET /b end"]
    side.write(1, respond(status, b"no"))
    assert side.says() == [f"1 {status}", "1 DATA 'no' end"]
    side.write(3, Response(200))
    is_over(side)


def test_the_body_of_a_malformed_request_is_given_until_it_is_refused() -> None:
    side = served()
    assert side.hears(headers(1, get("a"), end=False), data(1, b"abc")) == ["1 MALFORMED 400", "1 DATA 'abc'"]
    side.write(1, Response(400))
    assert not side.codec.idle
    side.codec.reset(1, Code.NO_ERROR)
    assert side.says() == ["1 400 end", "1 RST NO_ERROR"]
    assert side.hears(data(1, b"abc", end=True)) == []
    assert side.says() == []
    is_over(side)


def test_a_head_that_is_far_too_large_ends_the_connection() -> None:
    block = get("/", *[("a", "b" * 15000)] * 6)
    side = served()
    sent = [headers(1, block[:16000], more=True)]
    sent += [continuation(1, block[at : at + 16000], more=at + 16000 < len(block))
             for at in range(16000, len(block), 16000)]  # fmt: skip
    assert side.hears(*sent) == ["FAULT ENHANCE_YOUR_CALM"]


BAD_ANSWERS = [
    ("an upper case", headers(1, head(200, [("A", "b")]), end=False)),
    ("no status", headers(1, b"", end=False)),
    ("a path", headers(1, get(), end=False)),
    ("a 101", headers(1, head(101), end=False)),
    ("a 100 with a length", headers(1, head(100, [("content-length", "0")]), end=False)),
    ("many 100", headers(1, head(100), end=False) * 9),
    ("a body before its head", data(1, b"x")),
    ("a body behind a 100", headers(1, head(100), end=False) + data(1, b"x")),
    ("two lengths", headers(1, head(200, [("content-length", "5"), ("content-length", "6")]), end=False)),
    ("more than announced", headers(1, head(200, [("content-length", "2")]), end=False) + data(1, b"abc")),
    ("a body to none", headers(1, head(204), end=False) + data(1, b"abc")),
    ("a second head", headers(1, head(), end=False) + headers(1, head(), end=False)),
]  # fmt: skip
ENDED = [
    ("an upper case, at the end", headers(1, head(200, [("A", "b")]))),
    ("no status at the end", headers(1, b"")),
    ("an end that is a 100", headers(1, head(100))),
    ("an end that is not there", headers(1, head(200, [("content-length", "5")]))),
    ("less than announced", headers(1, head(200, [("content-length", "2")]), end=False) + data(1, b"a", end=True)),
    ("less than announced, and trailers", headers(1, head(200, [("content-length", "2")]), end=False) + data(1, b"a")
     + headers(1, fields([("a", "b")]))),
    ("a body to none at the end", headers(1, head(304), end=False) + data(1, b"a", end=True)),
    ("trailers with a path", headers(1, head(), end=False) + headers(1, get())),
    ("many trailers", headers(1, head(), end=False) + headers(1, fields([("a", "b")] * 60))),
]  # fmt: skip


@pytest.mark.parametrize("whole", [True, False], ids=["asked whole", "being asked"])
@pytest.mark.parametrize("sent", [row[1] for row in BAD_ANSWERS + ENDED],
                         ids=[row[0] for row in BAD_ANSWERS + ENDED])  # fmt: skip
def test_a_bad_answer_costs_its_stream_and_no_other(sent: bytes, whole: bool) -> None:
    side = asking(ask("POST", length=None, ended=whole), ask())
    words = side.hears(sent, headers(3, head()))
    assert words[-2:] == ["1 BROKEN PROTOCOL_ERROR", "3 200 end"]
    whole_ones = [word for word in words[:-2] if word.endswith("end")]
    assert not [word for word in whole_ones if word not in ("1 204 end", "1 304 end")], "nothing looks whole"
    resets = [word for word in side.says() if "RST" in word]
    ended = any(sent == row[1] for row in ENDED)
    assert resets == ([] if ended and whole and "DATA" not in str(parse(sent)[-1]) else ["1 RST PROTOCOL_ERROR"])
    assert side.codec.resets == 1
    with pytest.raises(ProtocolError, match="the stream is over"):
        side.write(1, Data(b"", True))
    is_over(side)


BAD_REQUESTS = [
    ("more than announced", post("/", ("content-length", "2")), data(1, b"abc")),
    ("more, with its end", post("/", ("content-length", "2")), data(1, b"abc", end=True)),
    ("less than announced", post("/", ("content-length", "2")), data(1, b"a", end=True)),
    ("less, with padding", post("/", ("content-length", "2")), data(1, b"a", padding=1, end=True)),
    ("nothing of it", post("/", ("content-length", "2")), data(1, end=True)),
    ("less, and trailers", post("/", ("content-length", "2")), data(1, b"a") + headers(1, fields([("a", "b")]))),
    ("trailers with a name in upper case", post(), headers(1, fields([("A", "b")]))),
    ("a second head", post(), headers(1, post(), end=False)),
    ("a second head of several frames", post(), headers(1, post()[:3], end=False, more=True)
     + continuation(1, post()[3:])),
]  # fmt: skip


@pytest.mark.parametrize("answered", [False, True], ids=["unanswered", "answered"])
@pytest.mark.parametrize(("block", "sent"), [row[1:] for row in BAD_REQUESTS], ids=[row[0] for row in BAD_REQUESTS])
def test_what_is_bad_behind_the_head_of_a_request_ends_it(block: bytes, sent: bytes, answered: bool) -> None:
    side = served()
    assert side.hears(headers(1, block, end=False)) == ["1 POST /"]
    if answered:
        side.write(1, Response(200))
        side.output()
    words = side.hears(sent, headers(3, get()))
    assert words[-2:] == ["1 BROKEN PROTOCOL_ERROR", "3 GET / end"]
    assert not any(word.startswith("1 DATA") and word.endswith("end") for word in words)
    # h2 takes the stream for over where it was answered and the bad head is its end
    assert side.says() in (["1 RST PROTOCOL_ERROR"], []) and (answered or side.codec.resets_made == 1)
    side.write(3, Response(200))
    is_over(side)


def test_bodies_that_are_as_long_as_announced() -> None:
    length = ("content-length", "5")
    for sent in (
        data(1, b"hello", end=True),
        data(1, b"he", padding=9) + data(1, b"llo", padding=0, end=True),
        data(1, b"hello") + data(1, end=True),
        data(1, b"hello") + headers(1, fields([("a", "b")])),
    ):
        side = served()
        words = side.hears(headers(1, post("/", length), end=False), sent)
        assert words[0] == "1 POST /"
        assert "BROKEN" not in " ".join(words)
        assert side.codec.is_read(1)
        side = asking(ask())
        words = side.hears(headers(1, head(200, [length]), end=False), sent)
        assert "BROKEN" not in " ".join(words)
        is_over(side)


# ----------------------------------------------------------------------------------------- faults of the connection

IDLE = [
    ("DATA", data(5, b"x"), "PROTOCOL_ERROR"),
    ("RST_STREAM", rst(5), "PROTOCOL_ERROR"),
    ("WINDOW_UPDATE", window_update(5, 9), "PROTOCOL_ERROR"),
    ("WINDOW_UPDATE by 0", window_update(5, 0), "PROTOCOL_ERROR"),
    ("PRIORITY of 4", h2.frame(2, 0, 5, b"1234"), "FRAME_SIZE_ERROR"),
    ("RST_STREAM on one that a server would begin", rst(2), "PROTOCOL_ERROR"),
    ("WINDOW_UPDATE on one", window_update(2, 9), "PROTOCOL_ERROR"),
    ("DATA on one", data(2, b"x"), "PROTOCOL_ERROR"),
    ("HEADERS on one", headers(2, get()), "PROTOCOL_ERROR"),
]


@pytest.mark.parametrize(("sent", "code"), [row[1:] for row in IDLE], ids=[row[0] for row in IDLE])
def test_frames_on_a_stream_that_nobody_has_begun_end_the_connection(sent: bytes, code: str) -> None:
    assert got(3).hears(sent) == [f"FAULT {code}"]
    assert asking(ask(), ask()).hears(sent) == [f"FAULT {code}"]


def test_an_origin_begins_no_stream() -> None:
    for stream in (2, 3, 7):
        assert asking(ask()).hears(headers(stream, head())) == ["FAULT PROTOCOL_ERROR"]


def test_numbers_go_up() -> None:
    assert got(5).hears(headers(3, get())) == ["FAULT PROTOCOL_ERROR"]
    side = got(5)
    assert side.hears(rst(3), window_update(3, 9), data(3, b"x"), headers(7, get())) == ["7 GET / end"]
    assert side.says() == ["3 RST STREAM_CLOSED"]  # section 5.1.1: it was closed when a higher one was begun


HPACK = [
    ("an index that has no entry", b"\xff\x00"),
    ("the index 0", b"\x80"),
    ("a cut string", b"\x00\x05ab"),
    ("a string with a wrong end", b"\x00\x81\x00\x00"),
    ("an endless integer", b"\xff" + b"\x80" * 20),
    ("too large a table", b"\x3f\xe2\x1f"),
    ("a size behind a field", b"\x82\x20"),
]


@pytest.mark.parametrize("block", [row[1] for row in HPACK], ids=[row[0] for row in HPACK])
def test_a_block_that_cannot_be_decoded_ends_the_connection(block: bytes) -> None:
    assert served().hears(headers(1, block)) == ["FAULT COMPRESSION_ERROR"]
    assert posted().hears(headers(1, block)) == ["FAULT COMPRESSION_ERROR"]
    assert asking(ask()).hears(headers(1, block)) == ["FAULT COMPRESSION_ERROR"]


def test_blocks_of_streams_that_are_over_are_decoded_all_the_same() -> None:
    """So that the table stays the one of the peer (section 4.3)."""
    encoder = Encoder()
    first, second, third = [fields(h2.request("/", ("x-a", each)), encoder) for each in ("b", "c", "c")]
    side = served()
    assert side.hears(headers(1, first, end=False)) == ["1 GET /"]
    side.codec.reset(1, Code.CANCEL)
    assert side.hears(headers(1, second[:2], more=True), continuation(1, second[2:]), headers(3, third)) == [
        "3 GET / end"]  # fmt: skip
    assert isinstance(part := side.news[-1][1], Request)
    assert part.headers.get("x-a") == "c"
    assert side.says() == ["1 RST CANCEL"]


FAULTS: list[tuple[str, list[bytes], list[str]]] = [
    ("a stream's window beyond its end", [window_update(1, 2**31 - 1)], ["1 BROKEN FLOW_CONTROL_ERROR"]),
    ("the connection's window beyond its end", [window_update(0, 2**31 - 1)], ["FAULT FLOW_CONTROL_ERROR"]),
    ("windows beyond their end, by SETTINGS", [window_update(1, 2**31 - 1 - WINDOW), settings({4: WINDOW + 1})],
     ["FAULT FLOW_CONTROL_ERROR"]),
    ("more than a stream's window", [data(1, bytes(FRAME_MAX))] * 5, ["FAULT FLOW_CONTROL_ERROR"]),
    ("a push", [h2.push_promise(1, 2, get())], ["FAULT PROTOCOL_ERROR"]),
    ("a head within a head", [headers(3, get(), more=True), headers(5, get())], ["FAULT PROTOCOL_ERROR"]),
    ("an ACK that nobody waits for", [settings(ack=True)], []),
    ("a priority that is its own", [headers(3, get(), priority=(3).to_bytes(4) + b"\0"), h2.priority(5, 5)],
     ["3 GET / end"]),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "words"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_what_is_wrong_with_a_frame_by_what_came_before(sent: list[bytes], words: list[str]) -> None:
    side = posted()
    side.taken = False
    heard = [word for word in side.hears(*sent) if "DATA" not in word]
    assert heard == words
    assert side.codec.reusable is not any("FAULT" in word for word in words)


def test_what_came_before_a_fault_is_not_lost_with_it() -> None:
    side = served()
    assert side.hears(headers(1, get()), headers(3, post(), end=False), data(3, b"x"), ping(stream=1)) == [
        "1 GET / end", "3 POST /", "3 DATA 'x'", "FAULT PROTOCOL_ERROR"]  # fmt: skip


def test_behind_a_fault_nothing_goes_in_or_out() -> None:
    for sent in (ping(stream=1), window_update(0, 2**31 - 1), headers(5, b"\x80"), data(1, bytes(FRAME_MAX)) * 5,
                 window_update(9, 0)):  # fmt: skip
        side = posted(1, 3, values={4: 5})
        side.taken = False
        side.write(1, OPEN, Data(b"123456789"))
        side.output()
        assert "FAULT" in side.hears(sent, headers(7, get()))[-1]
        side.output()
        assert side.hears(headers(9, get()))[-1].startswith("FAULT")  # again, whoever asks
        codec = side.codec
        assert codec.buffered == 0
        assert not codec.reusable
        codec.consumed(1, 5)
        codec.reset(1, Code.CANCEL)
        assert side.flush() == []
        with pytest.raises(ProtocolError, match="the connection is over"):
            side.write(3, Response(200))
        codec.leave(3, Code.PROTOCOL_ERROR, "why")
        assert side.says() == ["GOAWAY 3 PROTOCOL_ERROR why"]


def test_the_end_of_the_bytes() -> None:
    side = got()
    assert side.codec.reusable
    side.codec.feed_eof()
    assert not side.codec.reusable
    assert side.codec.next_part() is NEED_DATA
    side.codec.close_after()
    assert not side.codec.expects_continue
    side.write(1, Response(200))  # the other direction goes on
    assert side.says() == ["1 200 end"]


# ------------------------------------------------------------------------------------------------ resets and GOAWAY


def test_a_stream_is_taken_back() -> None:
    side = posted(values={4: 3})
    side.write(1, OPEN, Data(b"123456"))
    assert side.flush() == ["1 200", "1 DATA '123'"]
    assert side.codec.waits(1)
    assert side.hears(rst(1, Code.CANCEL)) == ["1 RESET CANCEL"]
    assert side.codec.resets == 1
    assert side.codec.unsent(1) == 0
    assert side.flush() == []
    is_over(side)
    assert side.hears(rst(1), window_update(1, 9), h2.priority(1)) == [], "what was on its way is no fault"
    side = got()
    assert side.hears(rst(1, 0x1234)) == ["1 RESET error 0x1234"]


def test_what_was_on_its_way_when_we_reset_a_stream_is_no_fault() -> None:
    side = posted(1, 3)
    side.codec.reset(1, Code.REFUSED_STREAM)
    side.codec.reset(1, Code.CANCEL)
    assert side.says() == ["1 RST REFUSED_STREAM"]
    assert side.hears(data(1, b"abc"), headers(1, fields([("a", "b")])), window_update(1, 9), rst(1)) == []
    assert side.says() == []
    assert side.codec.resets_made == 0
    assert side.codec.resets == 1  # the peer's


def test_an_interim_answer_may_be_on_its_way_to_a_stream_that_we_have_reset() -> None:
    side = asking(ask(), ask())
    side.codec.reset(1, Code.CANCEL)
    assert side.says() == ["1 RST CANCEL"]
    assert side.hears(headers(1, head(103), end=False), headers(3, head())) == ["3 200 end"]
    assert side.says() == []
    side = asking(ask("POST", length=None, ended=False))
    assert side.hears(headers(1, head()), headers(1, head(103), end=False)) == ["1 200 end", "1 BROKEN STREAM_CLOSED"]
    assert side.says() == ["1 RST STREAM_CLOSED"]


def test_frames_behind_the_end_are_a_fault_of_the_stream() -> None:
    side = got()
    assert side.hears(data(1, b"x")) == ["1 BROKEN STREAM_CLOSED"]
    assert side.says() == ["1 RST STREAM_CLOSED"]
    assert side.codec.resets_made == 1
    side = got()
    assert side.hears(headers(1, get())) == ["1 BROKEN STREAM_CLOSED"]
    assert side.says() == ["1 RST STREAM_CLOSED"]
    is_over(side)


def test_frames_on_a_stream_that_was_over() -> None:
    side = got()
    side.write(1, Response(200))
    side.output()
    assert side.hears(window_update(1, 9), rst(1), h2.priority(1)) == []
    assert side.hears(data(1, b"x")) == []
    assert side.says() == ["1 RST STREAM_CLOSED"]
    assert side.codec.resets_made == 1
    assert side.hears(headers(1, get())) == ["FAULT STREAM_CLOSED"]


def test_what_would_be_a_fault_of_a_stream_that_is_over_is_none() -> None:
    side = got()
    side.write(1, Response(200))
    assert side.hears(window_update(1, 0), h2.frame(2, 0, 1, b"abc"), headers(3, get())) == ["3 GET / end"]


def test_frames_for_a_stream_that_the_peer_has_reset_are_answered_by_one_reset_each() -> None:
    side = posted()
    assert side.hears(rst(1), data(1, b"x"), headers(1, fields([("a", "b")]))) == ["1 RESET CANCEL"]
    assert side.says() == ["1 RST STREAM_CLOSED", "1 RST STREAM_CLOSED"]
    assert side.codec.resets == 3, "and they count"


def test_a_reset_of_ours_that_waits_to_be_sent_is_not_taken_for_another() -> None:
    side = posted(1, 3)
    side.codec.reset(1, Code.CANCEL)
    assert side.says() == ["1 RST CANCEL"]
    side.codec.reset(3, Code.CANCEL)
    side.hears(window_update(1, 9), rst(1), data(1, b"x"), settings())
    assert side.says() == ["3 RST CANCEL", "SETTINGS ACK"]
    assert side.codec.resets_made == 0


def test_a_body_that_waits_to_be_sent_is_not_taken_for_a_reset() -> None:
    """h2 answers nothing here, and the last bytes before are those of a body that look like such an answer."""
    side = posted(1, 3)
    side.codec.reset(1, Code.CANCEL)
    side.output()
    side.codec.corked = True
    side.write(3, OPEN)
    side.codec.write(3, Data(b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x05"))
    side.codec.corked = False
    assert not side.codec.flush(1000)
    side.hears(window_update(1, 9))
    assert [len(frame.payload) for frame in side.frames()] == [1, 13]


def test_of_how_many_streams_that_we_reset_we_know_it() -> None:
    side = served()
    for number in range(1, 2 * RESETS_REMEMBERED_MAX + 5, 2):
        side.hears(headers(number, post(), end=False))
        side.codec.reset(number, Code.CANCEL)
    side.output()
    assert side.hears(data(1, b"x"), data(3, b"x"), data(5, b"x")) == []
    assert side.says() == ["1 RST STREAM_CLOSED", "3 RST STREAM_CLOSED"]
    assert side.codec.resets_made == 2
    is_over(side)


def test_goaway_ends_nothing_that_runs() -> None:
    side = posted()
    side.codec.leave(2**31 - 1, Code.NO_ERROR)
    side.codec.leave(1, Code.NO_ERROR, "bye")
    assert side.says() == [f"GOAWAY {2**31 - 1} NO_ERROR", "GOAWAY 1 NO_ERROR bye"]
    assert side.hears(goaway(0, Code.NO_ERROR, b"so long \xff"), data(1, b"x"), headers(3, get())) == [
        "LEAVING 0 NO_ERROR so long \ufffd", "1 DATA 'x'", "3 GET / end"]  # fmt: skip
    side.write(1, OPEN, Data(b"y", True))
    side.write(3, Response(200))
    assert side.says() == ["1 200", "1 DATA 'y' end", "3 200 end"]


def test_goaway_of_an_origin_ends_nothing_that_runs() -> None:
    side = asking(ask("POST", length=None, ended=False))
    assert side.hears(goaway(1, 0x77, b"x" * 9999)) == ["LEAVING 1 error 0x77 " + "x" * 256]
    side.write(1, Data(b"x", True))
    assert side.says() == ["1 DATA 'x' end"]
    assert side.hears(headers(1, head())) == ["1 200 end"]
    is_over(side)


def test_goaway_stands_behind_what_was_written_before() -> None:
    side = got()
    side.codec.corked = True
    side.write(1, OPEN, Data(b"x", True))
    side.codec.corked = False
    side.codec.flush(99)
    side.codec.leave(1, Code.NO_ERROR)
    assert side.says() == ["1 200", "1 DATA 'x' end", "GOAWAY 1 NO_ERROR"]


def test_pings() -> None:
    side = served()
    assert side.hears(ping(b"12345678"), ping(b"abcdefgh", ack=True)) == ["PONG abcdefgh"]
    side.codec.ping(b"ABCDEFGH")
    assert [(frame.payload, frame.acks) for frame in side.frames()] == [(b"12345678", True), (b"ABCDEFGH", False)]


def test_what_only_counts_is_told_now_and_then() -> None:
    side = served()
    assert side.hears(*[h2.frame(0x99)] * (2 * JUDGED_EVERY + 10)) == ["COUNTED", "COUNTED"]
    glitches = side.codec.glitches
    assert 2 * JUDGED_EVERY <= glitches <= 2 * JUDGED_EVERY + 10
    side = got(*range(1, 2 * JUDGED_EVERY, 2))
    for number in range(1, 2 * JUDGED_EVERY, 2):
        side.write(number, Response(200))
    assert side.hears(*(rst(number) for number in range(1, 2 * JUDGED_EVERY, 2))) == ["COUNTED"]
    assert side.codec.resets == JUDGED_EVERY


# --------------------------------------------------------------------------------------------------- our own windows


def test_windows_open_by_what_is_consumed_and_by_nothing_else() -> None:
    side = posted(config=configured(stream_window_bytes=WINDOW, connection_window_bytes=WINDOW))
    side.taken = False
    assert side.hears(*[data(1, bytes(16000))] * 3) == ["1 DATA 16000"] * 3
    assert side.says() == []
    side.codec.consumed(1, 16000)
    side.codec.consumed(1, 0)
    assert side.says() == []
    side.codec.consumed(1, 32000)
    assert side.says() == ["0 WINDOW +48000", "1 WINDOW +48000"]


def test_a_window_that_our_settings_have_made_negative_opens_again() -> None:
    side = Side("server", configured(stream_window_bytes=1000))
    assert side.hears(h2.PREFACE, settings(), headers(1, post(), end=False), data(1, bytes(16000))) == [
        "1 POST /", "1 DATA 16000"]  # fmt: skip
    side.output()
    assert side.hears(settings(ack=True)) == []
    assert side.says() == ["1 WINDOW +16000"]
    assert side.hears(data(1, bytes(1000), end=True)) == ["1 DATA 1000 end"]


def test_the_end_needs_no_window() -> None:
    for end, words in ((data(1, end=True), ["1 DATA '' end"]), (data(1), []),
                       (headers(1, fields([("a", "b")])), ["1 a=b trailers"])):  # fmt: skip
        side = Side("server", configured(stream_window_bytes=1000))
        side.taken = False
        side.hears(h2.PREFACE, settings(), headers(1, post(), end=False), data(1, bytes(16000)), settings(ack=True))
        assert side.hears(end) == words
        assert side.codec.is_read(1) is bool(words)
        side.output()
        side.codec.consumed(1, 16000)
        side.write(1, Response(200))
        assert side.says() == ["1 WINDOW +16000", "1 200 end"]


def test_padding_is_consumed_at_once() -> None:
    side = posted(config=configured(stream_window_bytes=WINDOW, connection_window_bytes=WINDOW))
    side.taken = False
    assert side.hears(*[data(1, b"", padding=255)] * 128) != []
    assert [word.split("+")[0] for word in side.says()] == ["0 WINDOW ", "1 WINDOW "]


def test_a_stream_that_is_over_gives_back_to_the_connection_alone() -> None:
    for over in ("by us", "by the peer", "by its end"):
        side = posted(config=configured(stream_window_bytes=WINDOW, connection_window_bytes=WINDOW))
        side.taken = False
        side.hears(*[data(1, bytes(16000))] * 2, data(1, bytes(16000), end=over == "by its end"))
        if over == "by us":
            side.codec.reset(1, Code.CANCEL)
        elif over == "by the peer":
            side.hears(rst(1))
        else:
            side.write(1, Response(200))
        side.output()
        side.codec.consumed(1, 48000)
        assert side.says() == ["0 WINDOW +48000"]


def test_what_comes_for_a_stream_that_is_over_is_given_back() -> None:
    config = configured(stream_window_bytes=WINDOW, connection_window_bytes=WINDOW)
    side = posted(1, 3, config=config)
    side.codec.reset(1, Code.CANCEL)
    side.output()
    side.hears(*[data(1, bytes(16000), padding=200)] * 3)
    assert side.says() == [f"0 WINDOW +{3 * 16201}"]


def test_what_is_more_than_was_announced_is_given_back() -> None:
    side = served(config=configured(stream_window_bytes=WINDOW, connection_window_bytes=WINDOW))
    side.hears(*(headers(number, post("/", ("content-length", "5")), end=False) for number in (1, 3, 5)))
    assert side.hears(*(data(number, bytes(16000)) for number in (1, 3, 5))) == [
        f"{number} BROKEN PROTOCOL_ERROR" for number in (1, 3, 5)]  # fmt: skip
    assert side.says() == [*(f"{number} RST PROTOCOL_ERROR" for number in (1, 3, 5)), "0 WINDOW +48000"]


def test_what_a_tiny_window_lets_out_excuses_nothing() -> None:
    side = got(values={4: 0})
    side.write(1, OPEN, Data(bytes(1000)))
    before = side.codec.glitches
    for _ in range(100):
        side.hears(window_update(1, 1))
        side.flush()
    assert side.codec.glitches - before > 90
    side.hears(window_update(1, 64), ping())
    side.flush()
    before = side.codec.glitches
    side.hears(ping(), ping())
    assert side.codec.glitches == before, "and what a larger one does, something"


# ------------------------------------------------------------------------------------------------- the peer's windows


def test_a_body_waits_for_its_windows() -> None:
    side = got(values={4: 5})
    side.write(1, Response(200, length=12, data=b"hello", ended=False), Data(b" world!", True))
    assert side.says() == ["1 200", "1 DATA 'hello'"]
    assert (side.codec.unsent(1), side.codec.waits(1), side.codec.is_written(1)) == (7, True, False)
    assert side.flush() == []
    assert side.hears(window_update(1, 2)) == []
    assert side.flush() == ["1 DATA ' w'"]
    side.hears(settings({4: 9}))
    assert side.flush() == ["SETTINGS ACK", "1 DATA 'orld'"]
    side.hears(window_update(1, 1))
    assert side.flush() == ["1 DATA '!' end"]
    assert side.codec.is_written(1)
    is_over(side)


def test_the_reserved_bit_of_a_window_is_ignored() -> None:
    side = got(values={4: 0})
    side.write(1, OPEN, Data(b"abc"))
    side.hears(window_update(1, 2**31 + 2))
    assert side.flush() == ["1 200", "1 DATA 'ab'"]


def test_a_window_of_nothing() -> None:
    side = got(1, 3, 5, values={4: 0})
    side.write(1, Response(200))
    side.write(3, OPEN, Data(b"", True))
    side.write(5, OPEN, Trailers(A_B))
    assert side.says() == ["1 200 end", "3 200", "3 DATA '' end", "5 200", "5 a=b end"], "the end needs no window"
    is_over(side)


def test_a_window_that_has_become_negative() -> None:
    side = got(1, 3, values={4: 10})
    side.write(1, OPEN, Data(b"1234567890"))
    side.hears(settings({4: 4}))
    side.output()
    side.write(1, Data(b"abcd"))
    assert side.flush() == []
    side.hears(window_update(1, 6))
    assert side.flush() == []
    side.hears(settings({4: 5}))
    assert side.flush() == ["SETTINGS ACK", "1 DATA 'a'"]
    side.hears(settings({4: 0}))
    side.write(3, OPEN, Data(b"", True))
    side.write(1, Data(b"", True))
    assert side.flush() == ["SETTINGS ACK", "3 200", "3 DATA '' end"]
    side.hears(settings({4: 100}))
    assert side.flush() == ["SETTINGS ACK", "1 DATA 'bcd' end"]
    is_over(side)


def test_the_end_behind_a_negative_window_goes_out_by_itself() -> None:
    side = got(values={4: 10})
    side.write(1, OPEN, Data(b"1234567890"))
    side.hears(settings({4: 0}))
    side.output()
    side.write(1, Data(b"", True))
    assert side.flush() == ["1 DATA '' end"]
    is_over(side)


def test_the_connections_window_is_all_streams() -> None:
    side = got(1, 3, 5, values={4: 2**20})
    side.write(1, OPEN, Data(bytes(WINDOW - 5)))
    assert [word for word in side.flush() if "16384" not in word] == ["1 200", f"1 DATA {WINDOW - 5 - 3 * FRAME_MAX}"]
    side.write(3, OPEN, Data(b"hello world"))
    side.write(5, OPEN, Data(b"hi"))
    assert side.says() == ["3 200", "5 200"]
    assert side.flush() == ["3 DATA 'hello'"]
    assert side.flush() == []
    side.hears(window_update(0, 100))
    assert side.flush() == ["5 DATA 'hi'", "3 DATA ' world'"]


def test_no_frame_is_larger_than_both_sides_want() -> None:
    for theirs, ours, most in ((None, None, FRAME_MAX), (20000, None, FRAME_MAX), (20000, 30000, 20000),
                               (None, 30000, FRAME_MAX), (2**24 - 1, 30000, 30000)):  # fmt: skip
        config = configured(frame_bytes_max=ours) if ours else None
        side = got(values={4: 2**20} | ({5: theirs} if theirs else {}), config=config)
        side.hears(window_update(0, 2**20))
        side.write(1, OPEN, Data(bytes(most)), Data(bytes(most + 1)))
        assert [word for word in side.flush() if "DATA" in word] == [
            f"1 DATA {most}",
            f"1 DATA {most}",
            "1 DATA '\\x00'",
        ]
    side.hears(settings({5: FRAME_MAX}))
    side.write(1, Data(bytes(20000)))
    assert [word for word in side.flush() if "DATA" in word] == [f"1 DATA {FRAME_MAX}", f"1 DATA {20000 - FRAME_MAX}"]


def test_a_large_head_goes_in_several_frames() -> None:
    side = got()
    side.write(1, Response(200, Headers([("a", "b" * 20000)])))
    first, second = side.frames()
    assert (first.name, len(first.payload), first.ends, second.name) == ("HEADERS", FRAME_MAX, True, "CONTINUATION")
    assert decoded([first, second])[0][1][1] == ("a", "b" * 20000)


def test_no_more_is_let_out_at_once_than_is_wanted() -> None:
    side = got()
    side.codec.corked = True
    side.write(1, OPEN, Data(bytes(50000)))
    side.codec.corked = False
    assert side.codec.flush(20000)
    assert side.says() == ["1 200", f"1 DATA {FRAME_MAX}", f"1 DATA {FRAME_MAX}"]
    assert side.codec.flush(1), "there is more"
    assert side.says() == [f"1 DATA {FRAME_MAX}"], "at least one piece goes out"
    assert not side.codec.flush(20000)
    assert side.says() == [f"1 DATA {50000 - 3 * FRAME_MAX}"]
    assert not side.codec.flush(20000)


def test_corked_all_of_a_body_waits_and_heads_do_not() -> None:
    side = got(1, 3)
    side.codec.corked = True
    side.write(1, Response(200, length=2, data=b"hi"))
    side.write(3, OPEN, Trailers(A_B))
    assert side.says() == ["1 200", "3 200", "3 a=b end"]
    assert not side.codec.flush(999)
    assert side.codec.unsent(1) == 2
    side.codec.corked = False
    assert side.flush() == ["1 DATA 'hi' end"]
    is_over(side)


def test_trailers_go_behind_what_waits() -> None:
    side = got(values={4: 2})
    side.write(1, OPEN, Data(b"abcd"), Trailers(A_B), Data(b"", True), Trailers(A_B))
    assert side.says() == ["1 200"]
    assert side.flush() == ["1 DATA 'ab'"]
    side.hears(window_update(1, 2))
    assert side.flush() == ["1 DATA 'cd'", "1 a=b end"]
    is_over(side)


def test_what_is_left_of_a_reset_stream_is_not_sent() -> None:
    side = got(1, 3, values={4: 2})
    side.write(1, OPEN, Data(b"abcd"))
    side.write(3, OPEN, Data(b"efgh"))
    side.output()
    side.codec.reset(1, Code.CANCEL)
    side.hears(window_update(3, 9), window_update(1, 9))
    assert side.flush() == ["1 RST CANCEL", "3 DATA 'efgh'"]
    assert not side.codec.waits(1)


# ------------------------------------------------------------------------------------------------- what goes out first


def waiting(*bodies: tuple[int, int], sent: bytes = b"", priorities: dict[int, str] | None = None) -> Side:
    """A server that has answered some streams, all corked."""
    side = served({4: 2**20})
    for number, _ in bodies:
        said = (priorities or {}).get(number)
        side.hears(headers(number, get("/", *([("priority", said)] if said else []))))
    side.hears(sent)
    side.codec.corked = True
    for number, size in bodies:
        side.write(number, OPEN, Data(bytes(size), True))
    side.output()
    side.codec.corked = False
    return side


def order(side: Side) -> list[int]:
    """The streams of the frames that go out."""
    return [int(word.split()[0]) for word in side.flush() if "DATA" in word]


def test_the_most_urgent_goes_first() -> None:
    assert order(waiting((1, 20000), (3, 20000), (5, 5), priorities={1: "u=5", 3: "u=1", 5: "u=0"})) == [5, 3, 3, 1, 1]


def test_who_says_nothing_shares() -> None:
    assert order(waiting((1, 20000), (3, 20000))) == [1, 3, 1, 3]


def test_one_word_of_priorities_makes_saying_nothing_the_default() -> None:
    assert order(waiting((1, 20000), (3, 20000), (5, 1), priorities={5: "u=3"})) == [1, 1, 3, 3, 5]
    assert order(waiting((1, 20000), (3, 20000), sent=priority_update(9, b"u=3"))) == [1, 1, 3, 3]


def test_an_update_counts_before_and_behind_the_request_and_its_field() -> None:
    side = served({4: 2**20})
    side.hears(priority_update(3, b"u=0"), headers(1, get()), headers(3, get("/", ("priority", "u=7"))),
               headers(5, get()), priority_update(5, b"u=1"))  # fmt: skip
    side.codec.corked = True
    for number in (1, 3, 5):
        side.write(number, OPEN, Data(b"x", True))
    side.output()
    side.codec.corked = False
    assert order(side) == [3, 5, 1]


def test_an_update_counts_for_what_waits() -> None:
    side = waiting((1, 20000), (3, 20000))
    side.hears(priority_update(3, b"u=1"))
    assert order(side) == [3, 3, 1, 1]


def test_the_answer_may_say_otherwise() -> None:
    side = served({4: 2**20})
    side.hears(headers(1, get("/", ("priority", "u=1"))), headers(3, get("/", ("priority", "u=2"))), headers(5, get()))
    side.codec.corked = True
    side.write(1, OPEN, Data(b"x", True))
    urgent = Headers([("Priority", "u=0")])
    side.write(3, Response(200, urgent, length=None, ended=False), Data(b"x", True))
    side.write(5, Response(200, urgent, length=None, ended=False), Data(b"x", True))
    side.output()
    side.codec.corked = False
    assert order(side) == [3, 5, 1]


def test_updates_that_break_a_rule() -> None:
    side = got(7)
    side.write(7, Response(200))
    assert side.hears(priority_update(7, b"u=1"), priority_update(3, b"u=1"), priority_update(9, b"nonsense=")) == []
    assert side.hears(priority_update(0, b"u=1")) == ["FAULT PROTOCOL_ERROR"]
    assert got().hears(priority_update(2, b"u=1")) == ["FAULT PROTOCOL_ERROR"]
    assert asking(ask()).hears(priority_update(1, b"u=1")) == ["FAULT PROTOCOL_ERROR"]


def test_only_so_many_requests_to_come_have_a_priority() -> None:
    side = got(config=configured(streams_max=3))
    assert side.hears(*(priority_update(number, b"u=1") for number in (3, 5, 7, 5))) == []
    assert side.hears(priority_update(1, b"u=1")) == [], "one that has begun may do without"
    assert side.hears(priority_update(9, b"u=1")) == ["FAULT PROTOCOL_ERROR"]


def test_what_waits_goes_before_what_comes_new() -> None:
    side = got(1, 3, values={4: 5})
    side.write(1, OPEN, Data(b"123456789"))
    side.output()
    side.hears(window_update(1, 9))
    side.write(3, OPEN, Data(b"x"))
    assert side.flush() == ["3 200", "1 DATA '123456789'", "3 DATA 'x'"]


# ---------------------------------------------------------------------------------------------- header compression


def test_our_table_is_never_larger_than_we_want() -> None:
    for config, said in ((None, 4096), (configured(table_bytes_max=100), 100)):
        side = served({1: 2**32 - 1}, config)
        side.hears(*(headers(number, (b"\x3f\x45" if said == 100 else b"") + get()) for number in (1, 3, 5)))
        for number in (1, 3, 5):
            side.write(number, Response(200, Headers([("x-a", "b" * 30), (f"x-{number}", "c" * 30)])))
        assert len(side.says()) == 3
        assert side.decoder.header_table_size == said
        assert sum(len(name) + len(value) + 32 for name, value in side.decoder.header_table.dynamic_entries) <= said


def test_the_peers_table_is_no_larger_than_we_said() -> None:
    small = configured(table_bytes_max=100)
    assert served(config=small).hears(headers(1, get())) == ["FAULT COMPRESSION_ERROR"]
    assert served(config=small).hears(headers(1, b"\x3f\x46" + get())) == ["FAULT COMPRESSION_ERROR"]
    assert served(config=small).hears(headers(1, b"\x3f\x45" + get())) == ["1 GET / end"]


def test_a_peer_that_keeps_nothing() -> None:
    side = got(1, 3, values={1: 0})
    for number in (1, 3):
        side.write(number, Response(200, Headers([("x-a", "b")])))
    assert side.says() == ["1 200 end", "3 200 end"]
    assert side.decoder.header_table_size == 0


def test_a_table_that_was_small_in_between_is_said_to_have_been() -> None:
    side = got(1, 3)
    side.write(1, Response(200, Headers([("x-a", "b")])))
    side.says()
    side.hears(settings([(1, 0), (1, 4096)]))
    side.write(3, Response(200, Headers([("x-a", "b")])))
    _, frame = side.frames()
    assert frame.payload.startswith(b"\x20\x3f\xe1\x1f\x88"), "0, and then 4096, before the first field"
    assert frame.payload.endswith(b"\x03x-a\x01b"), "and nothing of before is there"


def test_what_no_table_is_to_keep_is_in_none_both_ways() -> None:
    never = b"\x10\x06secret\x05value"
    side = served()
    side.hears(headers(1, get() + never))
    request = side.news[0][1]
    assert isinstance(request, Request)
    assert request.sensitive == {b"secret"}
    side.write(1, Response(200, Headers([("Secret", "value"), ("x", "y")]), sensitive=frozenset({b"secret"})))
    [frame] = side.frames()
    assert never in frame.payload
    side = asking(ask("GET", "/", [("Authorization", "abc"), ("Secret", "value")], sensitive=frozenset({b"secret"})))
    side = asking()
    side.write(1, ask("GET", "/", [("Authorization", "abc"), ("Secret", "value")], sensitive=frozenset({b"secret"})))
    frame = side.frames()[-1]
    assert never in frame.payload
    assert b"\x1f\x08\x03abc" in frame.payload
    side.hears(headers(1, head() + never))
    answer = side.news[0][1]
    assert isinstance(answer, Response)
    assert answer.sensitive == {b"secret"}


def test_settings_that_nobody_knows_are_not_kept() -> None:
    side = got()
    for number in range(20, 6000, 60):
        side.hears(settings(dict.fromkeys(range(number, number + 60), 7)))
        assert side.says() == ["SETTINGS ACK"]
    assert len(side.codec._h2.remote_settings) < 10
    side.hears(settings({99: 1, 4: 3, 98: 1}))
    side.write(1, OPEN, Data(b"abcd"))
    assert side.flush() == ["SETTINGS ACK", "1 200", "1 DATA 'abc'"]


# ------------------------------------------------------------------------------------ what cannot be written

UNWRITABLE: list[tuple[str, list[Part], str]] = [
    ("a body without a head", [Data(b"x")], "without a head"),
    ("an end without a head", [Data(b"", True)], "without a head"),
    ("trailers without a head", [Trailers(A_B)], "without a head"),
    ("a second answer", [OPEN, Response(200)], "a second answer"),
    ("an interim answer behind", [OPEN, Interim(103)], "behind the final one"),
    ("a 101 in between", [Interim(101)], "is no interim answer"),
    ("more than announced", [Response(200, length=2, ended=False), Data(b"abc")], "longer or shorter"),
    ("less than announced", [Response(200, length=2, ended=False), Data(b"a", True)], "longer or shorter"),
    ("less, and trailers", [Response(200, length=2, ended=False), Data(b"a"), Trailers(A_B)], "shorter"),
    ("more behind the end", [OPEN, Data(b"a", True), Data(b"b")], "behind its end"),
]


@pytest.mark.parametrize(("parts", "words"), [row[1:] for row in UNWRITABLE], ids=[row[0] for row in UNWRITABLE])
def test_what_cannot_be_written(parts: list[Part], words: str) -> None:
    side = posted()
    side.write(1, *parts[:-1])
    with pytest.raises(ProtocolError, match=words):
        side.write(1, parts[-1])
    side.codec.reset(1, Code.INTERNAL_ERROR)
    assert side.says()[-1] == "1 RST INTERNAL_ERROR"
    is_over(side)


def test_a_request_that_cannot_be_written_begins_no_stream() -> None:
    side = asking()
    with pytest.raises(ProtocolError, match="needs a Host"):
        side.write(1, Request("GET", "/"))
    is_over(side)
    assert side.codec.next_stream == 1


def test_no_more_requests_at_once_than_the_peer_allows() -> None:
    side = asking(ask(), ask(), values={3: 2})
    with pytest.raises(ProtocolError, match="more requests at once"):
        side.write(5, ask())
    assert side.hears(headers(1, head())) == ["1 200 end"]
    side.write(5, ask())
    assert [(frame.name, frame.stream) for frame in side.frames()] == [("HEADERS", 5)]


@pytest.mark.parametrize("role", ["server", "client"])
def test_h2_keeps_no_stream_for_long(role: str) -> None:
    side = served() if role == "server" else asking()
    for number in range(1, 5001, 2):
        if role == "server":
            side.hears(headers(number, get()))
            side.write(number, Response(200))
        else:
            side.write(number, ask())
            side.hears(headers(number, head()))
        side.output()
        assert len(side.codec._h2.streams) <= CLOSED_STREAMS_MAX + 2
    assert len(side.codec._h2._closed_streams) <= 1000
    is_over(side)


@pytest.mark.parametrize("role", ["server", "client"])
def test_h2_has_no_look_at_all_streams_for_each_new_one(role: str) -> None:
    side = got(*range(1, 101, 2)) if role == "server" else asking(*[ask()] * 50)
    most = 0
    for number in range(101, 1001, 2):
        if role == "server":
            side.hears(headers(number, get()))
            side.write(number, Response(200))
        else:
            side.write(number, ask())
            side.hears(headers(number, head()))
        side.output()
        most = max(most, len(side.codec._h2.streams))
    assert 100 <= most <= 2 * 50 + CLOSED_STREAMS_MAX + 1


def test_an_end_may_be_said_twice() -> None:
    side = posted()
    side.write(1, Response(200, ended=True), Data(b"", True), Trailers(A_B))
    assert side.says() == ["1 200 end"]


def test_streams_that_nobody_knows() -> None:
    side = served()
    with pytest.raises(ProtocolError, match="the stream is over"):
        side.write(1, Response(200))
    side.codec.reset(1, Code.CANCEL)
    assert side.says() == []
    assert side.codec.is_read(1)
    assert side.codec.is_written(1)
    assert (side.codec.unsent(1), side.codec.waits(1)) == (0, False)
    assert isinstance(side.codec, Http2Codec)
    assert Reset(1, "x") == Reset(1, "x", ours=False)
    assert issubclass(ConnectionFault, ProtocolError)


def test_small_pieces_that_waited_for_others_earn_and_what_a_tiny_window_let_out_does_not() -> None:
    for room, glitches in ((10_000, 0), (5, 1)):
        side = Side("server", Config())
        side.hears(h2.PREFACE, settings({h2.INITIAL_WINDOW_SIZE: 0}), headers(1, get()))
        side.codec.write(1, Response(200, length=None, data=b"x" * 5, ended=False))
        credit = side.codec._frames._credit
        side.hears(window_update(1, room))
        side.codec.flush(1000)
        assert side.codec._frames._credit - credit == (2 if not glitches else -1)
