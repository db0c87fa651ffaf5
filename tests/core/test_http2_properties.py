"""What holds for the codec of HTTP/2 whatever it is fed and told: frames at random, both ends joined, and one end with
plain h2 at the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coulee.core.codec import Role
from coulee.core.config import Config
from coulee.core.headers import Headers
from coulee.core.http2 import Counted, Http2Codec, Malformed, Reset
from coulee.core.http2_frames import Code
from coulee.core.parts import Data, Interim, Part, Request, Response, Trailers
from fuzz.http2_case import Case, Record
from fuzz.http2_properties import check, joined
from tests.core.http2_sides import ask, configured, served
from tests.http2 import frames as h2
from tests.http2.frames import data, headers, post, rst

# ------------------------------------------------------------------------------------------------ frames at random

STREAMS = st.sampled_from([1, 1, 1, 3, 3, 5, 7, 9, 11, 2, 0])
BLOCKS = st.sampled_from(
    [h2.get(), h2.post(), h2.post("/", ("content-length", "5")), h2.get("/", ("priority", "u=1, i")), h2.get("a"),
     h2.fields([(":status", "200")]), h2.fields([(":status", "103")]), h2.fields([(":status", "204")]),
     h2.fields([(":status", "200"), ("content-length", "5")]), h2.fields([("a", "b")]), h2.fields([("A", "b")]),
     b"\x40\x03x-a\x01b" + h2.get(), h2.get() + b"\xbe", b"\x20" + h2.get(), b"\x80", b"", b"\x88\x10\x01a\x01b",
     h2.fields([(":method", "CONNECT"), (":protocol", "websocket"), *h2.request()[1:]])]
)  # fmt: skip
VALUES = st.sampled_from([0, 1, 5, 100, 16384, 40000, 70000, 2**31 - 1, 2**31, 2**32 - 1]).map(lambda n: n.to_bytes(4))
PAIR = st.tuples(st.sampled_from([1, 2, 3, 4, 5, 6, 8, 9, 77]), VALUES).map(lambda pair: pair[0].to_bytes(2) + pair[1])


def record(kind: int, flags: list[int], payload: st.SearchStrategy[bytes], times: int = 1) -> st.SearchStrategy[Record]:
    return st.builds(Record, st.just(kind), st.sampled_from(flags), STREAMS, payload, st.sampled_from([1, 1, times]))


HEAD = record(1, [4, 5, 4, 5, 0, 1], BLOCKS)
BODY = record(0, [0, 0, 1, 8, 9], st.sampled_from([b"", b"abc", b"hello", b"\x02abcd", b"x" * 252]), 65)
OTHER = st.one_of(
    record(2, [0], st.sampled_from([bytes(5), bytes(4)])),
    record(3, [0], VALUES),
    record(4, [0, 0, 0, 1], st.one_of(st.just(b""), st.lists(PAIR, max_size=3).map(b"".join))),
    record(5, [4], BLOCKS.map(lambda block: b"\0\0\0\2" + block)),
    record(6, [0, 1], st.just(b"12345678")),
    record(7, [0], VALUES.map(lambda value: value + bytes(4))),
    record(8, [0], VALUES),
    record(9, [0, 4], BLOCKS),
    record(16, [0], VALUES.map(lambda value: value + b"u=2")),
    record(99, [0, 255], st.binary(max_size=3)),
)
FRAMES = st.one_of(HEAD, HEAD, BODY, BODY, OTHER, st.builds(Record, *[st.integers(0, 99)] * 3, st.binary(max_size=12)))


@given(st.builds(Case, st.lists(FRAMES, max_size=10).map(tuple), st.sampled_from(["server", "client"]), st.booleans(),
                 st.booleans(), st.just(True), st.tuples(*[st.integers(0, 255)] * 3)))  # fmt: skip
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_all_properties_hold_for_frames_at_random(case: Case) -> None:
    check(case)


@given(st.binary(max_size=200), st.sampled_from(["server", "client"]))
def test_bytes_at_random_raise_nothing_else(raw: bytes, role: Role) -> None:
    check(Case.from_bytes(bytes([(role == "client") | 8, 1, 2, 3]) + raw))


# ------------------------------------------------------------------------------------------------ both ends, joined


@dataclass
class Told:
    """What one end was told of a stream."""

    head: Any = None
    interims: int = 0
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    reset: bool = False


@dataclass
class Message:
    """What is sent on a stream, each way."""

    method: str
    chunks: list[int]
    announced: bool
    trailers: bool
    priority: str
    interims: int = 0
    status: int = 200
    broken_off: str = ""  # by whom it is reset, and when

    @property
    def size(self) -> int:
        return sum(self.chunks)

    def fields(self) -> list[tuple[str, str]]:
        return [("priority", self.priority)] if self.priority else []

    def parts(self, number: int) -> list[Part]:
        """All behind the head."""
        body = content(number, self.size)
        out: list[Part] = []
        at = 0
        for size in self.chunks:
            out.append(Data(body[at : at + size]))
            at += size
        out.append(Trailers(Headers([("x-sum", str(at))])) if self.trailers else Data(b"", True))
        return out


def content(number: int, size: int) -> bytes:
    return (b"%d." % number * (size // 2 + 1))[:size]


SIZES = st.sampled_from([0, 1, 100, 16384, 20000, 70000])
MESSAGES = st.builds(
    Message, st.sampled_from(["GET", "POST", "HEAD", "PUT"]), st.lists(SIZES, max_size=3), st.booleans(), st.booleans(),
    st.sampled_from(["", "u=0", "u=5, i", "i"]), st.integers(0, 2), st.sampled_from([200, 404, 204, 304]),
    st.sampled_from(["", "", "", "client", "server", "late"]),
)  # fmt: skip
TALKS = st.lists(st.tuples(MESSAGES, MESSAGES), min_size=1, max_size=6)
KNOBS = st.fixed_dictionaries({"stream_window_bytes": st.sampled_from([1000, 65536]),
                               "table_bytes_max": st.sampled_from([200, 4096])})  # fmt: skip


class Joined:
    """A client and a server, and what is on its way between them."""

    def __init__(self, knobs: dict[str, Any], draw: Callable[[int], int]) -> None:
        config = configured(**knobs)
        self.client, self.server = Http2Codec("client", config), Http2Codec("server", config)
        self.draw = draw
        self.to_server = self.to_client = b""
        self.told: dict[tuple[str, int], Told] = {}
        self.resets: set[int] = set()

    def step(self) -> bool:
        """Some bytes go each way. False where nothing is left to do."""
        for codec in (self.client, self.server):
            codec.flush(30000)
        self.to_server += self.client.output()
        self.to_client += self.server.output()
        busy = bool(self.to_server or self.to_client)
        size = self.draw(len(self.to_server))
        self.read("server", self.server, self.to_server[:size])
        self.to_server = self.to_server[size:]
        size = self.draw(len(self.to_client))
        self.read("client", self.client, self.to_client[:size])
        self.to_client = self.to_client[size:]
        return busy

    def read(self, name: str, codec: Http2Codec, raw: bytes) -> None:
        codec.feed(raw)
        while isinstance(pulled := codec.next_part(), tuple):
            number, news = pulled
            assert not isinstance(news, Malformed), news
            if isinstance(news, Counted):
                continue
            told = self.told.setdefault((name, number), Told())
            assert not told.reset
            assert isinstance(news, Reset) or not told.ended, (name, number, news)
            if isinstance(news, Reset):
                assert not news.ours, news
                told.reset = True
            elif isinstance(news, Interim):
                told.interims += 1
            elif isinstance(news, Request | Response):
                assert told.head is None
                told.head = news
                told.ended = news.ended
            elif isinstance(news, Data):
                told.body += news.data
                told.ended = news.ended
                codec.consumed(number, len(news.data))
            elif isinstance(news, Trailers):
                told.trailers = list(news.headers)
                told.ended = True

    def write(self, codec: Http2Codec, number: int, part: Part) -> None:
        if number in self.resets or (codec.is_written(number) and not isinstance(part, Request)):
            return
        raw = joined(codec.write(number, part))
        if codec is self.client:
            self.to_server += raw
        else:
            self.to_client += raw

    def reset(self, codec: Http2Codec, number: int) -> None:
        self.resets.add(number)
        codec.reset(number, Code.CANCEL)


@given(TALKS, KNOBS, st.integers(0, 2**32))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_both_ends_agree(talks: list[tuple[Message, Message]], knobs: dict[str, int], seed: int) -> None:
    """Every message arrives whole, or its stream is reset; and nothing is left of it at either end."""
    rng = Random(seed)
    pair = Joined(knobs, lambda size: rng.randint(0, size) if rng.random() < 0.7 else size)
    streams = {2 * index + 1: talk for index, talk in enumerate(talks)}
    to_write: dict[int, list[Part]] = {}
    for number, (asked, _answer) in streams.items():
        length = asked.size if asked.announced and not asked.trailers else None
        pair.write(pair.client, number, ask(asked.method, f"/{number}", asked.fields(), length=length, ended=False))
        to_write[number] = asked.parts(number)
    answers: dict[int, list[Part]] = {}
    for _turn in range(3000):
        for number, parts in to_write.items():
            if parts and rng.random() < 0.5:
                pair.write(pair.client, number, parts.pop(0))
            if streams[number][0].broken_off == "client" and rng.random() < 0.2 and number not in pair.resets:
                pair.reset(pair.client, number)
        for number, (asked, answer) in streams.items():
            heard = pair.told.get(("server", number))
            if heard is None or heard.head is None or heard.reset:
                continue
            if number not in answers and rng.random() < 0.3:
                length = answer.size if answer.announced and not answer.trailers else None
                head = Response(answer.status, Headers(answer.fields()), length=length, ended=False)
                answers[number] = [*[Interim(103)] * answer.interims, head, *answer.parts(number)]
            elif answers.get(number):
                pair.write(pair.server, number, answers[number].pop(0))
            if asked.broken_off == "server" and rng.random() < 0.2 and number not in pair.resets:
                pair.reset(pair.server, number)
        busy = pair.step()
        written = [
            not to_write[number] and answers.get(number) == [] for number in streams if number not in pair.resets
        ]
        if not busy and all(written):
            break
    else:
        raise AssertionError("it never ends")
    for number, (asked, answer) in streams.items():
        heard, back = (pair.told.get((name, number), Told()) for name in ("server", "client"))
        if number in pair.resets:
            continue
        assert (heard.ended, heard.reset, back.ended, back.reset) == (True, False, True, False), number
        assert heard.head.method == asked.method
        assert heard.body == content(number, asked.size)
        assert heard.trailers == ([("x-sum", str(asked.size))] if asked.trailers else [])
        bodiless = answer.status in (204, 304) or asked.method == "HEAD"
        assert back.head.status == answer.status
        assert back.interims == answer.interims
        assert back.body == (b"" if bodiless else content(number, answer.size))
        assert back.trailers == ([("x-sum", str(answer.size))] if answer.trailers and not bodiless else [])
    for codec in (pair.client, pair.server):
        assert codec.idle
        assert not codec._waiting
        assert not codec._waiting._known
        window = codec._h2._inbound_flow_control_window_manager
        assert window.current_window_size + window._bytes_processed == window.max_window_size


# --------------------------------------------------------------------------------------------- windows are not lost


@given(st.lists(st.tuples(st.sampled_from(["read", "reset", "taken back", "answered", "malformed", "too much"]),
                          st.integers(0, 255), st.booleans()), min_size=1, max_size=8), st.booleans())  # fmt: skip
def test_a_peer_can_go_on_for_ever(ways: list[tuple[str, int, bool]], lag: bool) -> None:
    """Ten times the connection's window, over many streams that end in any way: it never has to wait."""
    window = 65535
    side = served(config=configured(connection_window_bytes=window))
    side.taken = False
    room, sent, number = window, 0, -1
    while sent < 10 * window:
        number += 2
        way, padding, ended = ways[number // 2 % len(ways)]
        block = {"malformed": h2.post("nowhere"), "too much": post("/", ("content-length", "20000"))}.get(way, post())
        side.hears(headers(number, block, end=False))
        for turn in range(4):
            content_size = 9000
            frame = data(number, bytes(content_size), padding=padding, end=ended and turn == 3)
            sent += content_size + padding + 1
            room -= content_size + padding + 1
            assert room >= 0, "the window is shut"
            side.hears(frame)
            if turn == 1 and way == "reset":
                side.codec.reset(number, Code.CANCEL)
            elif turn == 1 and way == "taken back":
                side.hears(rst(number))
            elif turn == 2 and way in ("answered", "malformed"):
                side.write(number, Response(200))
            if not lag or turn == 3:
                for stream, news in side.news:
                    if isinstance(news, Data):
                        side.codec.consumed(stream, len(news.data))
                side.news.clear()
            if turn == 3 and not side.codec.is_read(number):
                side.codec.reset(number, Code.NO_ERROR)
            elif turn == 3 and not side.codec.is_written(number):
                side.write(number, Response(200))
            for each in side.frames():
                room += each.increment if each.type == h2.WINDOW_UPDATE and each.stream == 0 else 0
    assert side.codec.idle


# ---------------------------------------------------------------------------------------------------- with plain h2

PAIRS = st.tuples(st.sampled_from(["x-a", "x-b", "accept"]), st.sampled_from(["", "b", "c" * 200]))
PLAIN_FIELDS = st.lists(PAIRS, max_size=4)


@given(st.lists(st.tuples(SIZES, PLAIN_FIELDS, st.booleans(), st.booleans()), min_size=1, max_size=5),
       st.sampled_from([None, 100, 16384]))  # fmt: skip
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_plain_h2_asks_and_reads_what_we_answer(asked: list[tuple[int, Any, bool, bool]], cut: int | None) -> None:
    theirs = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    theirs.initiate_connection()
    ours = Http2Codec("server", Config())
    heard: dict[int, Told] = {}
    back: dict[int, Told] = {}
    left: dict[int, bytes] = {}
    for index, (size, pairs, _, _) in enumerate(asked):
        number = 2 * index + 1
        theirs.send_headers(number, [*h2.request(f"/{number}", *pairs, method="POST")])
        left[number] = content(number, size)
    for _turn in range(100):
        for number, rest in list(left.items()):
            room = min(theirs.local_flow_control_window(number), theirs.max_outbound_frame_size, len(rest))
            theirs.send_data(number, rest[:room])
            left[number] = rest[room:]
            if not left[number]:
                del left[number]
                if asked[number // 2][2]:
                    theirs.send_headers(number, [("x-sum", "1")], end_stream=True)
                else:
                    theirs.end_stream(number)
        raw = theirs.data_to_send()
        out = b""
        for at in range(0, len(raw), cut or len(raw) or 1):
            ours.feed(raw[at : at + (cut or len(raw))])
            while isinstance(pulled := ours.next_part(), tuple):
                number, news = pulled
                told = heard.setdefault(number, Told())
                if isinstance(news, Request):
                    told.head = news
                elif isinstance(news, Data):
                    told.body += news.data
                    told.ended = news.ended
                    ours.consumed(number, len(news.data))
                else:
                    assert isinstance(news, Trailers)
                    told.trailers, told.ended = list(news.headers), True
                if told.ended:
                    out += answer(ours, number, told, trailers=asked[number // 2][3])
        ours.flush(2**20)
        for event in theirs.receive_data(out + ours.output()):
            told = back.setdefault(getattr(event, "stream_id", 0) or 0, Told())
            if isinstance(event, ResponseReceived):
                told.head = event.headers
            elif isinstance(event, DataReceived):
                told.body += event.data
                theirs.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, TrailersReceived):
                told.trailers = [(str(name), str(value)) for name, value in event.headers]
            elif isinstance(event, StreamEnded):
                told.ended = True
            else:
                assert not isinstance(event, StreamReset)
        if not left and all(back.get(2 * index + 1, Told()).ended for index in range(len(asked))):
            break
    else:
        raise AssertionError("it never ends")
    for index, (size, pairs, trailers, answered_with) in enumerate(asked):
        number = 2 * index + 1
        assert heard[number].body == back[number].body == content(number, size)
        assert list(heard[number].head.headers) == [("host", "a"), *pairs]
        assert heard[number].trailers == ([("x-sum", "1")] if trailers else [])
        assert back[number].head == [(":status", "200"), ("x-a", "b")]
        assert back[number].trailers == ([("x-end", "2")] if answered_with else [])
    assert ours.idle


def answer(codec: Http2Codec, number: int, told: Told, *, trailers: bool) -> bytes:
    """What came, back."""
    end = Trailers(Headers([("x-end", "2")])) if trailers else Data(b"", True)
    head = Response(200, Headers([("X-A", "b")]), length=None, ended=False)
    return b"".join([joined(codec.write(number, part)) for part in (head, Data(told.body), end)])


@given(st.lists(st.tuples(SIZES, PLAIN_FIELDS, st.booleans()), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_plain_h2_answers_and_reads_what_we_ask(asked: list[tuple[int, Any, bool]]) -> None:
    theirs = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    theirs.initiate_connection()
    ours = Http2Codec("client", Config())
    out = ours.output()
    bodies: dict[int, bytes] = {}
    heads: dict[int, Any] = {}
    echo: dict[int, bytes] = {}
    back: dict[int, Told] = {}
    for index, (size, pairs, trailers) in enumerate(asked):
        number = 2 * index + 1
        end = Trailers(Headers([("x-sum", "1")])) if trailers else Data(b"", True)
        head = ask("PUT", f"/{number}", pairs, length=None, ended=False)
        out += b"".join([joined(ours.write(number, part)) for part in (head, Data(content(number, size)), end)])
    for _turn in range(100):
        ours.flush(2**20)
        out += ours.output()
        events = theirs.receive_data(out)
        out = b""
        for event in events:
            if isinstance(event, RequestReceived):
                heads[event.stream_id] = event.headers
                bodies[event.stream_id] = b""
            elif isinstance(event, DataReceived):
                bodies[event.stream_id] += event.data
                theirs.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                theirs.send_headers(event.stream_id, [(":status", "103")])
                theirs.send_headers(event.stream_id, [(":status", "200"), ("x-a", "b")])
                echo[event.stream_id] = bodies[event.stream_id]
        for number, rest in list(echo.items()):
            room = min(theirs.local_flow_control_window(number), theirs.max_outbound_frame_size, len(rest))
            theirs.send_data(number, rest[:room])
            echo[number] = rest[room:]
            if not echo[number]:
                del echo[number]
                theirs.end_stream(number)
        ours.feed(theirs.data_to_send())
        while isinstance(pulled := ours.next_part(), tuple):
            number, news = pulled
            told = back.setdefault(number, Told())
            if isinstance(news, Interim):
                told.interims += 1
            elif isinstance(news, Response):
                told.head = news
            else:
                assert isinstance(news, Data)
                told.body += news.data
                told.ended = news.ended
                ours.consumed(number, len(news.data))
        if len(back) == len(asked) and all(told.ended for told in back.values()):
            break
    else:
        raise AssertionError("it never ends")
    for index, (size, pairs, _) in enumerate(asked):
        number = 2 * index + 1
        assert bodies[number] == back[number].body == content(number, size)
        assert back[number].interims == 1
        assert list(back[number].head.headers) == [("x-a", "b")]
        assert heads[number] == [*h2.request(f"/{number}", *pairs, method="PUT")]
    assert ours.idle
