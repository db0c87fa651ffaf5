"""What must hold for whatever frames a codec of HTTP/2 is fed. `check` raises `AssertionError` where something fails.

- Only `ConnectionFault` is raised; behind it nothing is read, kept or written.
- However the bytes are split, the same is read, the same is said of what is wrong, and the same is written.
- What is told of a stream makes a message: one head, a body as long as was announced, one end; and it is over once.
- What was consumed opens the connection's window again, to the byte; nothing that comes and is not wanted shuts it.
- We send nothing beyond the peer's windows, in no frame larger than it takes, and every head of ours can be decoded.
- What is kept has its bounds, and of a stream that is over nothing is.
- A request that is whole is the same when it is written on, as HTTP/2 and as HTTP/1.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from hpack import Decoder

from coulee.core.codec import NEED_DATA, PREFACE, ProtocolError
from coulee.core.config import Config, Limits
from coulee.core.headers import Headers
from coulee.core.http1 import Http1Codec
from coulee.core.http2 import Counted, Http2Codec, Leaving, Malformed, News, Ponged, Reset
from coulee.core.http2_frames import ConnectionFault
from coulee.core.http2_h2 import CLOSED_STREAMS_MAX
from coulee.core.http2_writing import RESETS_REMEMBERED_MAX
from coulee.core.parts import Data, Interim, Part, Request, Response, Trailers, respond
from coulee.core.seam import Bytes
from fuzz.http2_case import Case
from fuzz.properties import check_fields, check_head
from tests.http2 import frames as h2

WINDOW: Final = 65535
PIECES_MAX: Final = 400
ROOMY: Final = Config(limits=Limits(head_bytes_max=65536, line_bytes_max=32768, fields_max=200))


@dataclass
class Reading:
    """What came of a stream, and what was written."""

    events: list[tuple[int, str]] = field(default_factory=list)
    news: list[tuple[int, News]] = field(default_factory=list)
    fault: str = ""
    written: bytes = b""

    @property
    def refused(self) -> str:
        """What is wrong, for people."""
        return self.fault


def check(case: Case, codec_class: type[Http2Codec] = Http2Codec) -> Reading:
    """All of it, for one case."""
    whole = Player(case, codec_class).play([case.stream] if case.stream else [])
    size = max(1, len(case.stream) // PIECES_MAX)
    small = [case.stream[at : at + size] for at in range(0, len(case.stream), size)]
    for pieces in (case.pieces, small):
        again = Player(case, codec_class).play(pieces)
        for name in ("events", "fault", "written"):
            ours, theirs = getattr(whole, name), getattr(again, name)
            assert ours == theirs, f"{name}: whole: {ours}; in {len(pieces)} pieces: {theirs}"
    check_messages(case, whole)
    check_written(case, whole)
    if case.role == "server":
        check_again(whole)
    return whole


# ------------------------------------------------------------------------------------------------------- playing


class Player:
    """Reads for a codec and answers, always in the same way, by the numbers of the streams."""

    def __init__(self, case: Case, codec_class: type[Http2Codec]) -> None:
        self.case = case
        self.codec = codec_class(case.role, case.config)
        self.reading = Reading()
        self.owed: dict[int, int] = {}  # bytes that are read and not consumed
        self.head_due: dict[int, bool] = {}  # streams that are not answered yet
        if case.role == "client":
            for number, part in ASKED:
                self.write(number, part)

    def play(self, pieces: Iterable[bytes]) -> Reading:
        """Read the pieces, and look at what is left."""
        codec, reading = self.codec, self.reading
        try:
            for piece in pieces:
                codec.feed(piece)
                while isinstance(pulled := codec.next_part(), tuple):
                    number, news = pulled
                    if isinstance(news, Counted):  # which says when it was read, and no more
                        continue
                    reading.news.append(pulled)
                    assert len(reading.news) <= 3 * len(self.case.records) + 8, "news without end"
                    reading.events.append((number, repr(news)))
                    self.react(number, news)
                    reading.written += codec.output()
                assert pulled is NEED_DATA
            codec.feed_eof()
            assert codec.next_part() is NEED_DATA
        except ConnectionFault as fault:
            reading.fault = f"{int(fault.code)} {fault.detail}"
            self.check_broken()
            reading.written += codec.output()
            return reading
        self.consume()
        for _ in range(10_000):
            reading.written += codec.output()
            if not codec.flush(1000):
                break
        else:
            raise AssertionError("it goes on for ever")
        reading.written += codec.output()
        self.check_kept()
        return reading

    def write(self, number: int, *parts: Part) -> None:
        """Write what is still wanted."""
        for part in parts:
            if self.case.role == "server" and number not in self.codec._states:
                return
            self.reading.written += joined(self.codec.write(number, part))

    def react(self, number: int, news: News) -> None:
        """What a proxy would do."""
        if isinstance(news, Data):
            self.owed[number] = self.owed.get(number, 0) + len(news.data)
        if not self.case.slow or len(self.owed) > 2:
            self.consume()
        if isinstance(news, Leaving | Ponged | Reset):
            return
        if self.case.role == "client":
            if number == 3 and isinstance(news, Response):
                self.write_if_open(3, Data(b"x" * 50, True))
            return
        if isinstance(news, Request | Malformed):
            self.head_due[number] = True
        ended = isinstance(news, Malformed | Trailers) or (isinstance(news, Request | Data) and news.ended)
        if self.head_due.get(number) and (ended or not self.case.slow):
            self.head_due[number] = False
            self.answer(number, isinstance(news, Malformed))

    def answer(self, number: int, malformed: bool) -> None:
        """Each stream in a way of its own."""
        state = self.codec._states.get(number)
        if state is None:
            return
        way = number // 2 % 8
        if malformed or state.asked == "CONNECT" or (state.upgrade and way % 2):
            self.write(number, respond(400, b"no"))
        elif state.upgrade:
            self.write(number, Response(101, length=None, ended=False, upgrade=state.upgrade), Data(b"x" * 300))
            self.write(number, Data(b"", True))
        elif way == 0:
            self.write(number, Interim(103, HINTS), respond(200, b"x" * 10))
        elif way == 1:
            self.write(number, OPEN(), Data(b"x" * 300), Trailers(HINTS))
        elif way == 2:
            self.write(number, Response(204))
        elif way == 3:
            self.codec.reset(number, 8)
        elif way == 4:
            self.write(number, OPEN(), Data(bytes(70000)), Data(b"", True))
        elif way == 5:
            self.write(number, OPEN(), Data(b"x"), Data(b"y", True))
        elif way == 6:
            self.write(number, Response(200, Headers([("Priority", "u=1")]), length=5, data=b"hello"))
        else:
            self.write(number, OPEN(), Data(b"never ends"))
        if not self.codec.is_read(number) and self.codec.is_written(number):
            self.codec.reset(number, 0)

    def write_if_open(self, number: int, part: Part) -> None:
        """... of a stream that may be over."""
        if not self.codec.is_written(number):
            self.write(number, part)

    def consume(self) -> None:
        """All that is owed."""
        for number, count in self.owed.items():
            self.codec.consumed(number, count)
        self.owed.clear()

    # -- what is left

    def check_broken(self) -> None:
        """Nothing goes on behind a fault."""
        codec = self.codec
        assert not codec.reusable
        assert codec.buffered == 0, "a broken codec keeps what nobody will read"
        assert not codec.flush(1000)
        for number in list(codec._states):
            codec.consumed(number, 1)
            try:
                codec.write(number, Data(b""))
            except ProtocolError:
                codec.reset(number, 1)
                continue
            raise AssertionError("a broken codec writes")

    def check_kept(self) -> None:
        """Of a stream that is over nothing is kept, and no window is lost."""
        codec = self.codec
        library = codec._h2
        window = library._inbound_flow_control_window_manager
        lost = window.max_window_size - window.current_window_size - window._bytes_processed
        assert lost == 0, f"{lost} bytes of the connection's window are lost"
        open_ones = [number for number, stream in library.streams.items() if not stream.closed]
        assert open_ones == sorted(codec._states), f"open are {open_ones}, and known are {sorted(codec._states)}"
        assert len(library.streams) <= 2 * len(open_ones) + CLOSED_STREAMS_MAX + 64
        assert len(library.remote_settings) < 16, "settings are kept that nobody knows"
        assert len(codec._reset_by_us) <= RESETS_REMEMBERED_MAX
        assert len(codec._waiting._known) <= self.case.config.http2.streams_max
        assert set(codec._waiting._bodies) <= set(codec._states), "something waits of what is over"
        assert codec._waiting.total == sum(codec.unsent(number) for number in codec._states)
        assert not codec._news
        assert codec.buffered <= self.case.config.http2.frame_bytes_max + h2.WINDOW, codec.buffered
        for number, state in codec._states.items():
            stream = library.streams[number]
            if state.read:
                continue
            left = stream._inbound_window_manager
            assert left.max_window_size - left.current_window_size - left._bytes_processed == 0, f"{number} is shut"


def OPEN() -> Response:  # noqa: N802
    """An answer of a length that is not known."""
    return Response(200, length=None, ended=False)


HINTS: Final = Headers([("x-a", "b"), ("x-c", "d" * 40)])
HOST: Final = Headers([("Host", "a")])
ASKED: Final[list[tuple[int, Part]]] = [
    (1, Request("GET", "/", HOST, (2, 0))),
    (3, Request("POST", "/", HOST, (2, 0), length=None, ended=False)),
    (3, Data(b"x" * 100)),
    (5, Request("HEAD", "/", HOST, (2, 0))),
    (7, Request("POST", "/", HOST, (2, 0), length=70000, data=bytes(70000))),
    (9, Request("GET", "/", HOST, (2, 0), upgrade="websocket")),
]


def joined(data: Bytes) -> bytes:
    """One piece of what may be several."""
    return data if isinstance(data, bytes) else b"".join(data)


# ------------------------------------------------------------------------------------------------------ messages


def check_messages(case: Case, reading: Reading) -> None:
    """What was told of each stream makes one message."""
    streams: dict[int, list[News]] = {}
    for number, news in reading.news:
        assert (number == 0) == isinstance(news, Leaving | Ponged), f"{news!r} on stream {number}"
        streams.setdefault(number, []).append(news)
    streams.pop(0, None)
    for number, told in streams.items():
        assert number % 2, "a server begins no stream"
        check_message(case, told, number == 5 and case.role == "client")


def check_message(case: Case, told: list[News], bodiless: bool) -> None:
    """The same for one of them."""
    *before, last = told
    assert not any(isinstance(news, Reset) for news in before), "more of a stream that was reset"
    if isinstance(last, Reset):
        told = before
    if told and isinstance(told[0], Malformed):
        assert not any(isinstance(news, Request | Response) for news in told)
        return
    left: int | None = None
    head: Request | Response | None = None
    ended = tunnel = False
    for news in told:
        assert not ended, f"{news!r} behind the end"
        if isinstance(news, Interim):
            assert head is None, "an interim answer behind the final one"
            check_fields(news.headers)
        elif isinstance(news, Request | Response):
            assert head is None, "two heads"
            assert isinstance(news, Request) == (case.role == "server")
            head = news
            tunnel = news.upgrade != "" or (isinstance(news, Request) and news.method == "CONNECT")
            if tunnel:
                check_fields(news.headers)
            else:
                check_head(news)
            bodiless = bodiless or (isinstance(news, Response) and news.status in (204, 304))
            left = None if tunnel else 0 if bodiless else news.length
            ended = news.ended and not tunnel
            assert not ended or not left
        elif isinstance(news, Data):
            assert head is not None, "a body without a head"
            assert news.data or news.ended
            if left is not None:
                left -= len(news.data)
                assert left == 0 if news.ended else left >= 0, "a body that is not as long as was announced"
            ended = news.ended
        else:
            assert isinstance(news, Trailers)
            assert head is not None
            assert not left, "trailers, and bytes are missing"
            assert not tunnel, "trailers of what is no HTTP"
            check_fields(news.headers)
            ended = True


# ------------------------------------------------------------------------------------------------------- written


def check_written(case: Case, reading: Reading) -> None:
    """It is frames that the peer can take."""
    raw = reading.written
    if case.role == "client":
        assert raw.startswith(PREFACE)
        raw = raw[len(PREFACE) :]
    frames = h2.parse(raw)
    window, stream_window, frame_max, table_max = WINDOW, WINDOW, 16384, 4096
    opened: dict[int, int] = {}
    for each in h2.cut(case.stream.removeprefix(PREFACE), strict=False)[0]:  # at most, whatever their order
        if each.type == h2.WINDOW_UPDATE and len(each.payload) == 4:
            opened[each.stream] = opened.get(each.stream, 0) + (each.increment & 0x7FFFFFFF)
        elif each.type == h2.SETTINGS and len(each.payload) % 6 == 0:
            for at in range(0, len(each.payload), 6):
                number, value = int.from_bytes(each.payload[at : at + 2]), int.from_bytes(each.payload[at + 2 : at + 6])
                stream_window = max(stream_window, value) if number == h2.INITIAL_WINDOW_SIZE else stream_window
                frame_max = max(frame_max, value) if number == h2.MAX_FRAME_SIZE else frame_max
                table_max = max(table_max, value) if number == h2.HEADER_TABLE_SIZE else table_max
    sent: dict[int, int] = {}
    decoder = Decoder(max_header_list_size=2**20)
    decoder.max_allowed_table_size = table_max
    h2.decoded(frames, decoder)
    assert decoder.header_table_size <= case.config.http2.table_bytes_max or decoder.header_table_size == 4096
    for each in frames:
        assert len(each.payload) <= frame_max, f"a frame of {len(each.payload)} bytes"
        if each.type == h2.DATA:
            assert len(each.payload) <= case.config.http2.frame_bytes_max
            sent[each.stream] = sent.get(each.stream, 0) + len(each.payload)
    assert sum(sent.values()) <= window + opened.get(0, 0), "more than the connection's window"
    for number, count in sent.items():
        assert count <= stream_window + opened.get(number, 0), "more than a stream's window"


def check_again(reading: Reading) -> None:
    """Each whole request is read as the same when it is written on."""
    bodies: dict[int, tuple[Request, list[Part]]] = {}
    for number, news in reading.news:
        if isinstance(news, Request):
            bodies[number] = news, []
        elif isinstance(news, Data | Trailers) and number in bodies:
            bodies[number][1].append(news)
    for head, rest in bodies.values():
        whole = head.ended or (rest and (isinstance(rest[-1], Trailers) or getattr(rest[-1], "ended", False)))
        if not whole or head.method == "CONNECT" or head.upgrade:
            continue
        message: list[Part] = [head, *rest]
        client = Http2Codec("client", ROOMY)
        server = Http2Codec("server", ROOMY)
        raw = b"".join([joined(client.write(1, part)) for part in message])
        while client.flush(2**20):
            pass
        server.feed(raw + client.output())
        compare(message, pulled_from(server), raw)
        if not (rest and isinstance(rest[-1], Trailers) and head.length is not None):
            old = Http1Codec("client", ROOMY.limits)
            raw = b"".join([joined(old.write(1, part)) for part in message])
            reader = Http1Codec("server", ROOMY.limits)
            reader.feed(raw)
            compare(message, pulled_from(reader), raw)


def pulled_from(codec: Http1Codec | Http2Codec) -> list[Part]:
    """All parts that are there."""
    parts: list[Part] = []
    while isinstance(pulled := codec.next_part(), tuple):
        news = pulled[1]
        assert isinstance(news, Request | Data | Trailers), f"what we write is refused: {news!r}"
        parts.append(news)
    return parts


def compare(message: list[Part], again: list[Part], raw: bytes) -> None:
    """Two messages have the same meaning."""
    one, two = meaning(message), meaning(again)
    assert one == two, f"written as {raw!r}: {one} is read as {two}"


def meaning(message: list[Part]) -> tuple[object, ...]:
    """Of a request, all that is not framing."""
    head, *rest = message
    assert isinstance(head, Request)
    body = head.data + b"".join([part.data for part in rest if isinstance(part, Data)])
    trailers = [plain(part.headers) for part in rest if isinstance(part, Trailers)]
    return (
        head.method,
        head.target,
        head.authority.lower(),
        plain(head.headers),
        body,
        [each for each in trailers if each],
    )


def plain(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Fields as a set of pairs, without framing."""
    skipped = (b"content-length", b"transfer-encoding", b"te", b"host")
    return sorted((name.lower(), value) for name, value in headers.raw() if name.lower() not in skipped)
