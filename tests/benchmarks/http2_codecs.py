"""What HTTP/2 costs by itself: the four heads of one small exchange, through our own codec, which is h2 with checks of
ours around it, through h2 and what is called as it is, and through header compression alone.

Rules: the fields and the body are those of `codecs.py`; a pair of connections lasts for all rounds, as those of one
client do, so that the tables of header compression are warm, while path and marks of each exchange are new to them; a
head is written with the fields that were read, and read data are acknowledged. What peers send was encoded beforehand,
and what was written is decoded afterwards and must be what was read, in any order. Each round runs every library, and
what is reported are medians.
"""

from __future__ import annotations

import importlib
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, cast

from hpack import Decoder, Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, SettingsFrame, WindowUpdateFrame

from coulee.core.codec import NEED_DATA
from coulee.core.config import Config
from coulee.core.http2 import Http2Codec
from coulee.core.parts import Data, Response
from coulee.core.seam import Bytes
from tests.benchmarks.codecs import HEADS, PAIRS, Times, table
from tests.benchmarks.processes import BenchError
from tests.benchmarks.scenarios import ANSWER_FIELDS, REQUEST_FIELDS

ROUNDS = 40
WARM_UP_ROUNDS = 3
BODY_SIZE = 100
WINDOW = 2**31 - 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SESSION = "0123456789abcdef0123456789abcdef"
_MARK = "6f1c2a52-9c1b-4a55-8a0e-0d5f0d9f7b11"

Fields = Sequence[tuple[bytes, bytes]]


class Exchange(NamedTuple):
    """One request and its answer."""

    request: Fields
    answer: Fields
    body: bytes


class Pair(Protocol):
    """The two connections that a proxy has, towards a client and towards an origin."""

    def begin(self, client: bytes, origin: bytes) -> None:
        """Both have said hello."""
        ...

    def read_request(self, data: bytes) -> Any:
        """The head."""
        ...

    def write_request(self, head: Any) -> bytes:
        """The bytes of what was read."""
        ...

    def read_answer(self, data: bytes) -> Any:
        """The head with its body."""
        ...

    def write_answer(self, head: Any) -> bytes:
        """The bytes of what was read."""
        ...


class OfLibrary:
    """h2, or another module that is called as it is; with its own validation, or without."""

    def __init__(self, name: str, *, validated: bool) -> None:
        connection, config, settings, events = (
            importlib.import_module(f"{name}.{part}") for part in ("connection", "config", "settings", "events")
        )
        unchecked = {
            f"{what}_{way}_headers": validated for what in ("validate", "normalize") for way in ("inbound", "outbound")
        }
        self.server, self.client = (
            connection.H2Connection(config.H2Configuration(client_side=client_side, header_encoding=None, **unchecked))
            for client_side in (False, True)
        )
        self.data_received = events.DataReceived
        for each in (self.server, self.client):
            each.update_settings({settings.SettingCodes.ENABLE_PUSH: 0} if each is self.client else {})
            each.initiate_connection()
            each.data_to_send()

    def begin(self, client: bytes, origin: bytes) -> None:
        self.server.receive_data(client)
        self.client.receive_data(origin)
        for each in (self.server, self.client):
            each.data_to_send()

    def read_request(self, data: bytes) -> Any:
        requested, *_ = self.server.receive_data(data)
        return requested.stream_id, requested.headers

    def write_request(self, head: Any) -> bytes:
        client = self.client
        client.send_headers(head[0], head[1], end_stream=True)
        return bytes(client.data_to_send())

    def read_answer(self, data: bytes) -> Any:
        client = self.client
        answered, received, *_ = client.receive_data(data)
        client.acknowledge_received_data(received.flow_controlled_length, received.stream_id)
        return answered.stream_id, answered.headers, received.data

    def write_answer(self, head: Any) -> bytes:
        server = self.server
        stream, fields, body = head
        server.send_headers(stream, fields)
        server.send_data(stream, body, end_stream=True)
        return bytes(server.data_to_send())


class OfCodecs:
    """A pair of ours."""

    def __init__(self) -> None:
        self.server, self.client = Http2Codec("server", Config()), Http2Codec("client", Config())

    def begin(self, client: bytes, origin: bytes) -> None:
        for each, hello in ((self.server, client), (self.client, origin)):
            each.secure = True
            each.feed(hello)
            assert each.next_part() is NEED_DATA
            each.output()

    def read_request(self, data: bytes) -> Any:
        self.server.feed(data)
        return self.server.next_part()

    def write_request(self, head: Any) -> bytes:
        return _joined(self.client.write(*head))

    def read_answer(self, data: bytes) -> Any:
        client = self.client
        client.feed(data)
        stream, answer = cast("tuple[int, Response]", client.next_part())
        _, data_part = cast("tuple[int, Data]", client.next_part())
        client.consumed(stream, len(data_part.data))
        return stream, answer, data_part

    def write_answer(self, head: Any) -> bytes:
        stream, answer, data = head
        return _joined(self.server.write(stream, answer)) + _joined(self.server.write(stream, data))


def _joined(data: Bytes) -> bytes:
    return data if isinstance(data, bytes) else b"".join(data)


class OfHpack:
    """Header compression and nothing else: frames are cut by fixed sizes."""

    def __init__(self, encoder: Callable[[], Any], decoder: Callable[[], Any]) -> None:
        self.decoders = decoder(), decoder()
        self.encoders = encoder(), encoder()

    def begin(self, client: bytes, origin: bytes) -> None:
        """There is nothing to say."""

    def read_request(self, data: bytes) -> Any:
        return int.from_bytes(data[5:9], "big"), self.decoders[0].decode(data[9:], raw=True)

    def write_request(self, head: Any) -> bytes:
        return head_frame(head[0], self.encoders[0].encode(head[1]), end=True)

    def read_answer(self, data: bytes) -> Any:
        end = 9 + int.from_bytes(data[:3], "big")
        return int.from_bytes(data[5:9], "big"), self.decoders[1].decode(data[9:end], raw=True), data[end + 9 :]

    def write_answer(self, head: Any) -> bytes:
        stream, fields, body = head
        return head_frame(stream, self.encoders[1].encode(fields)) + data_frame(stream, body)


LIBRARIES: dict[str, Callable[[], Pair]] = {
    "coulee's own": OfCodecs,
    "h2, unvalidated": lambda: OfLibrary("h2", validated=False),
    "h2": lambda: OfLibrary("h2", validated=True),
    "hpack alone": lambda: OfHpack(Encoder, Decoder),
}


def known() -> dict[str, Callable[[], Pair]]:
    """Those that are here: jh2, a fork of h2 with header compression in Rust, only where somebody has installed it."""
    found = dict(LIBRARIES)
    try:
        compiled: Any = importlib.import_module("jh2._hazmat")
    except ImportError:
        return found
    found["jh2, unvalidated"] = lambda: OfLibrary("jh2", validated=False)
    found["jh2"] = lambda: OfLibrary("jh2", validated=True)
    found["jh2's hpack alone"] = lambda: OfHpack(lambda: _Compiled(compiled.Encoder()), compiled.Decoder)
    return found


class _Compiled:
    """jh2's encoder, called as hpack's is."""

    def __init__(self, encoder: Any) -> None:
        self._encode = encoder.encode

    def encode(self, fields: Fields) -> bytes:
        encoded: bytes = self._encode([(field[0], field[1], False) for field in fields])
        return encoded


class Peer:
    """Whoever is on the other side of one connection: says what is read, and reads what is written."""

    def __init__(self) -> None:
        self.encoder, self.decoder = Encoder(), Decoder()

    def say(self, stream: int, fields: Fields, body: bytes = b"") -> bytes:
        head = head_frame(stream, self.encoder.encode(fields), end=not body)
        return head + data_frame(stream, body) if body else head

    def read(self, data: bytes) -> tuple[Fields, bytes]:
        """The fields and the body of what was written, whatever the frames."""
        block, body = b"", b""
        while data:
            frame, length = Frame.parse_frame_header(memoryview(data[:9]))
            frame.parse_body(memoryview(data[9 : 9 + length]))
            data = data[9 + length :]
            if isinstance(frame, (HeadersFrame, ContinuationFrame)):
                block += frame.data
            elif isinstance(frame, DataFrame):
                body += frame.data
        return sorted((bytes(name), bytes(value)) for name, value in self.decoder.decode(block, raw=True)), body


class Line(NamedTuple):
    """A pair with its two peers."""

    pair: Pair
    client: Peer
    origin: Peer


def head_frame(stream: int, block: bytes, *, end: bool = False) -> bytes:
    """HEADERS with a whole block (RFC 9113 section 6.2)."""
    return len(block).to_bytes(3, "big") + bytes((1, 5 if end else 4)) + stream.to_bytes(4, "big") + block


def data_frame(stream: int, body: bytes) -> bytes:
    """DATA that ends its stream (section 6.1)."""
    return len(body).to_bytes(3, "big") + b"\0\1" + stream.to_bytes(4, "big") + body


def hello() -> bytes:
    """What a peer says first: that it may be sent as much as one likes."""
    settings = SettingsFrame(
        0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: WINDOW, SettingsFrame.MAX_CONCURRENT_STREAMS: 100}
    )
    return settings.serialize() + WindowUpdateFrame(0, window_increment=WINDOW - 65535).serialize()


def line(make: Callable[[], Pair]) -> Line:
    """A pair that has shaken hands with its peers."""
    pair = make()
    pair.begin(PREFACE + hello(), hello())
    return Line(pair, Peer(), Peer())


def exchanges(rng: random.Random, sessions: Iterable[str]) -> list[Exchange]:
    """One for each session, no two alike."""
    made: list[Exchange] = []
    for session in sessions:
        mark, number = f"{rng.getrandbits(128):032x}", rng.getrandbits(24)
        asked = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"shop.example.test")]
        asked.append((b":path", b"/items/%d?page=%d" % (number, number % 97)))
        for each in REQUEST_FIELDS:
            own = each.replace(_MARK, mark).replace(f"={_SESSION}", f"={session}")
            name, _, value = own.partition(": ")
            asked.append((name.lower().encode("ascii"), value.encode("ascii")))
        answered = [(b":status", b"200"), (b"server", b"nginx"), (b"date", b"Mon, 02 Jun 2025 10:11:12 GMT")]
        answered += [(b"content-type", b"text/plain"), (b"content-length", b"%d" % BODY_SIZE)]
        for name, value in ANSWER_FIELDS:
            value = {"ETag": f'"{mark}"', "X-Trace-Id": mark}.get(name, value)
            answered.append((name.lower().encode("ascii"), value.encode("ascii")))
        made.append(Exchange(asked, answered, rng.randbytes(BODY_SIZE)))
    return made


def one_round(lines: Sequence[Line], work: Sequence[Exchange], stream: int) -> Times:
    """Carry one exchange through each pair, head by head; raise unless all come out whole."""
    clock = time.process_time_ns
    pairs = [each.pair for each in lines]
    said = [each.client.say(stream, exchange.request) for each, exchange in zip(lines, work, strict=True)]
    began = clock()
    requests = [pair.read_request(data) for pair, data in zip(pairs, said, strict=True)]
    read_request = clock() - began
    began = clock()
    asked = [pair.write_request(head) for pair, head in zip(pairs, requests, strict=True)]
    write_request = clock() - began
    said = [each.origin.say(stream, exchange.answer, exchange.body) for each, exchange in zip(lines, work, strict=True)]
    began = clock()
    answers = [pair.read_answer(data) for pair, data in zip(pairs, said, strict=True)]
    read_answer = clock() - began
    began = clock()
    answered = [pair.write_answer(head) for pair, head in zip(pairs, answers, strict=True)]
    write_answer = clock() - began
    for each, exchange, request, answer in zip(lines, work, asked, answered, strict=True):
        if each.origin.read(request) != (sorted(exchange.request), b""):
            raise BenchError(f"a request was spoiled: {request!r}")
        if each.client.read(answer) != (sorted(exchange.answer), exchange.body):
            raise BenchError(f"an answer was spoiled: {answer!r}")
    return [ns / 1e3 / len(work) for ns in (read_request, write_request, read_answer, write_answer)]


def measure(rounds: int = ROUNDS, pairs: int = PAIRS) -> dict[str, list[Times]]:
    """The times of every library, round by round."""
    rng = random.Random(9113)
    sessions = [f"{rng.getrandbits(128):032x}" for _ in range(pairs)]
    lines = {name: [line(make) for _ in range(pairs)] for name, make in known().items()}
    times: dict[str, list[Times]] = {name: [] for name in lines}
    for number in range(-WARM_UP_ROUNDS, rounds):
        for name, each in lines.items():
            taken = one_round(each, exchanges(rng, sessions), 2 * (number + WARM_UP_ROUNDS) + 1)
            if number >= 0:
                times[name].append(taken)
    return times


def as_json(times: dict[str, list[Times]]) -> dict[str, object]:
    """The medians, in CPU microseconds."""
    return {
        name: dict(zip(HEADS, (statistics.median(column) for column in zip(*rounds, strict=True)), strict=True))
        for name, rounds in times.items()
    }


if __name__ == "__main__":
    print(table(measure()))
