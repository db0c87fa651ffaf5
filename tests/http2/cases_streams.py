"""Cases of streams: their states, their numbers, how many there may be, how they end (RFC 9113 sections 5, 6.4, 6.8).

What comes on a stream that is closed may be taken for an error of the stream or of the connection, or be thrown away
(section 5.1, "closed"); but it is never a request, its field block has to be read, and its DATA has to be counted.
"""

from __future__ import annotations

from collections.abc import Callable

from hpack import Encoder

from tests.http2 import frames as f
from tests.http2.case import Case, Step, go, wait
from tests.http2.frames import Code, data, frame, get, headers, post
from tests.http2.outcomes import Answered, Ended, EndsConnection, EndsStream, Expected, Malformed, Nothing
from tests.http2.talk import Talk

PROTOCOL_ERROR = EndsConnection(Code.PROTOCOL_ERROR)
CLOSED = EndsConnection(Code.STREAM_CLOSED)
OPEN = headers(1, post("/held"), end=False)
HALF_CLOSED = headers(1, get("/held"))
WRONG = headers(1, f.fields([*f.request(), ("Upper", "a")]), end=False)
"""A request that is refused, of which more is on its way."""


def over(stream: int) -> Expected:
    """What may become of a frame on a stream that is closed."""
    return EndsStream(stream, Code.STREAM_CLOSED) | EndsConnection(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR) | Nothing()


IDLE = [
    Case("5.1", "DATA on an idle stream", (data(1, b"a"),), EndsConnection(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)),
    Case("5.1", "RST_STREAM on an idle stream", (f.rst(1),), PROTOCOL_ERROR),
    Case("5.1", "WINDOW_UPDATE on an idle stream", (f.window_update(1, 100),), PROTOCOL_ERROR),
    Case("5.1", "CONTINUATION on an idle stream", (f.continuation(1, get()),), PROTOCOL_ERROR),
    Case("5.1", "WINDOW_UPDATE on an idle stream of even number", (f.window_update(2, 100),), PROTOCOL_ERROR),
    Case("5.1", "RST_STREAM on an idle stream above others", (OPEN, f.rst(7)), PROTOCOL_ERROR),
]  # fmt: skip

HALF_CLOSED_REMOTE = [
    Case("5.1", "DATA behind the end of a request", (HALF_CLOSED, data(1, b"a")),
         EndsStream(1, Code.STREAM_CLOSED) | CLOSED),
    Case("5.1", "an empty DATA behind the end of a request", (HALF_CLOSED, data(1, b"", end=True)),
         EndsStream(1, Code.STREAM_CLOSED) | CLOSED),
    Case("5.1", "HEADERS behind the end of a request", (HALF_CLOSED, headers(1, get())),
         EndsStream(1, Code.STREAM_CLOSED) | CLOSED),
    Case("5.1", "trailers behind the end of a request",
         (OPEN, data(1, b"a", end=True), headers(1, f.fields([("a", "b")]))),
         EndsStream(1, Code.STREAM_CLOSED) | CLOSED),
    Case("5.1", "CONTINUATION behind the end of a request", (HALF_CLOSED, f.continuation(1, get())),
         EndsConnection(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)),
    Case("5.1", "WINDOW_UPDATE behind the end of a request", (HALF_CLOSED, f.window_update(1, 100), go, wait(1)),
         Answered()),
    Case("5.1", "PRIORITY behind the end of a request", (HALF_CLOSED, f.priority(1, 3), go, wait(1)), Answered()),
    Case("5.1", "RST_STREAM behind the end of a request", (HALF_CLOSED, f.rst(1), go), Nothing(), live=False),
]  # fmt: skip

DONE = headers(1, get())
CLOSED_STREAM = [
    *(Case("5.1", f"{name} on a stream that was answered", (DONE, wait(1), raw), over(1)) for name, raw in [
        ("DATA", data(1, b"a")), ("the end", data(1, b"", end=True)), ("HEADERS", headers(1, get())),
        ("trailers", headers(1, f.fields([("a", "b")]))),
    ]),
    Case("5.1", "WINDOW_UPDATE on a stream that was answered", (DONE, wait(1), f.window_update(1, 9)), Nothing()),
    Case("5.1", "RST_STREAM on a stream that was answered", (DONE, wait(1), f.rst(1)), Nothing()),
    Case("5.1", "PRIORITY on a stream that was answered", (DONE, wait(1), f.priority(1, 3)), Nothing()),
    Case("5.1", "CONTINUATION on a stream that was answered", (DONE, wait(1), f.continuation(1, get())),
         EndsConnection(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)),
    *(Case("5.1", f"{name} on a stream that was taken back", (OPEN, f.rst(1), raw), over(1)) for name, raw in [
        ("DATA", data(1, b"a")), ("HEADERS", headers(1, get())), ("trailers", headers(1, f.fields([("a", "b")]))),
    ]),
    Case("5.1", "WINDOW_UPDATE on a stream that was taken back", (OPEN, f.rst(1), f.window_update(1, 9)),
         Nothing() | EndsConnection(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)),
    Case("5.1", "RST_STREAM a second time", (OPEN, f.rst(1), f.rst(1)),
         Nothing() | EndsConnection(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)),
    Case("5.1", "PRIORITY on a stream that was taken back", (OPEN, f.rst(1), f.priority(1, 3)), Nothing()),
]  # fmt: skip


def refused(*steps: bytes) -> tuple[Step, ...]:
    """Behind a request that is refused while more of it comes."""
    return (WRONG, wait(1), *steps)


def only_once(talk: Talk) -> None:
    """The refusal is all that was said on the stream."""
    assert len([each for each in talk.frames if each.type == f.RST_STREAM and each.stream == 1]) <= 1
    answer = talk.answers.get(1)
    assert answer is None or answer.status in (0, 400)


def indexed(*names: str) -> tuple[bytes, ...]:
    """Blocks of an encoder that indexes each field; the last needs what those before it have told."""
    encoder = Encoder()
    return tuple(f.fields(f.request("/echo", (name, "indexed")), encoder) for name in names)


def flood(*extra: tuple[str, str]) -> Callable[[Talk], None]:
    """DATA of requests that are refused for a field of them, in all more than the window of the connection: it has to
    be opened again for each, though nobody has read a byte (section 5.1, "closed"; 6.9)."""

    def floods(talk: Talk) -> None:
        for stream in range(1, 161, 2):  # the first frame of each is more than that by itself
            talk.send(headers(stream, post("/", *extra), end=False))
            for _ in range(4):
                enough = talk.until(lambda: talk.credits[0] >= f.FRAME_MAX)
                assert enough, f"the connection's window is lost by stream {stream}"
                talk.send(data(stream, bytes(f.FRAME_MAX)))
            assert talk.until(lambda: stream in talk.answers or stream in talk.resets)  # noqa: B023
            if stream not in talk.resets:
                talk.send(f.rst(stream))
        talk.send(headers(201, post("/"), end=False))
        assert talk.upload(201, 300_000), "the window of the connection is lost"
        wait(201)(talk)

    return floods


BY_US = [
    Case("5.1", "DATA on a stream that we have refused", refused(data(1, bytes(1000)), data(1, b"", end=True)),
         over(1) | Malformed(1), check=only_once),
    Case("5.1", "trailers on a stream that we have refused", refused(headers(1, f.fields([("a", "b")]))),
         over(1) | Malformed(1), check=only_once),
    Case("5.1", "RST_STREAM on a stream that we have refused", refused(f.rst(1)), over(1) | Malformed(1)),
    Case("5.1", "WINDOW_UPDATE on a stream that we have refused", refused(f.window_update(1, 1)),
         over(1) | Malformed(1)),
    Case("5.1", "the windows of streams that we have refused", (flood(("Upper", "a")),), Answered(201), live=False),
    Case("6.9", "windows of bodies that are too long", (flood(("content-length", "1")),), Answered(201), live=False),
    Case("4.3", "a field block on a stream that was taken back is read for what it indexes",
         (headers(1, indexed("x-a")[0], end=False) + f.rst(1) + headers(1, indexed("x-a", "x-b")[1])
          + headers(3, indexed("x-a", "x-b", "x-b")[2]), wait(3)),
         Answered(3) | EndsConnection(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)),
    Case("4.3", "a field block of a request that is malformed is read for what it indexes",
         (headers(1, indexed("X-A")[0]) + headers(3, indexed("X-A", "x-b")[1])
          + headers(5, indexed("X-A", "x-b", "x-b")[2]), wait(3, 5)), Answered(5)),
]  # fmt: skip


def too_many(talk: Talk) -> None:
    """As many requests as may be, and one more."""
    most = talk.theirs[f.MAX_CONCURRENT_STREAMS]
    assert most == 100, "what is expected is made for that"
    for number in range(most):
        talk.send(headers(1 + 2 * number, get("/held")))
    assert not talk.resets
    talk.send(headers(1 + 2 * most, get("/held")))
    assert talk.until(lambda: bool(talk.resets or talk.wire.closed)), "one more was taken"
    talk.send(f.rst(1))
    talk.wire.go()
    for number in range(1, most):
        wait(1 + 2 * number)(talk)
        assert talk.answers[1 + 2 * number].status == 200


NUMBERS = [
    Case("5.1.1", "a stream of even number", (headers(2, get()),), PROTOCOL_ERROR),
    Case("5.1.1", "a stream below one that is used", (headers(5, get()), headers(3, get())),
         EndsConnection(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)),
    Case("5.1.1", "a stream below one that was answered", (headers(5, get()), wait(5), headers(3, get())),
         EndsConnection(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)),
    Case("5.1.1", "DATA on a stream that was passed over", (headers(5, get()), wait(5), data(3, b"a")),
         EndsConnection(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED) | EndsStream(3, Code.STREAM_CLOSED)),
    Case("5.1.1", "numbers that are left out", (headers(7, get()) + headers(1001, get()), wait(7, 1001)), Answered(7)),
    Case("5.1.2", "more streams than may be", (too_many,),
         EndsStream(201, Code.REFUSED_STREAM, Code.PROTOCOL_ERROR), live=False),
    Case("5.1.2", "streams that are over do not count", tuple(
        step for number in range(150) for step in (headers(1 + 2 * number, get()), wait(1 + 2 * number))), Nothing()),
]  # fmt: skip

ENDS = [
    Case("6.8", "GOAWAY from a client, whose requests are answered",
         (HALF_CLOSED + f.goaway(), go, wait(1)), Ended(), slow=True, live=False,
         check=lambda talk: _answered_at_last(talk)),
    Case("7", "GOAWAY with an unknown code and words", (HALF_CLOSED + f.goaway(0, 0xDEADBEEF, b"why"), go), Ended(),
         slow=True, live=False),
    Case("6.8", "a stream that was refused does not count for the last one",
         (HALF_CLOSED + f.goaway(), headers(9, get()), headers(3, get())),
         EndsConnection(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)),
    Case("6.8", "two GOAWAY", (f.goaway(2**31 - 1), f.goaway(0)), Ended(), slow=True),
    Case("6.8", "GOAWAY with the reserved bit", (frame(f.GOAWAY, 0, 0, b"\xff\xff\xff\xff\0\0\0\0"),), Ended(),
         slow=True),
    Case("5.4", "a connection on which nothing happens", (), Ended(), slow=True),
    Case("5.4", "a request that is never ended", (OPEN,), Ended(), slow=True),
]  # fmt: skip


def _answered_at_last(talk: Talk) -> None:
    assert talk.answers[1].status == 200
    assert talk.answers[1].ended


PRIORITY_UPDATE = 0x10


def update(of: int, value: bytes = b"u=1, i", *, stream: int = 0) -> bytes:
    """PRIORITY_UPDATE (RFC 9218 section 7.1)."""
    return frame(PRIORITY_UPDATE, 0, stream, of.to_bytes(4) + value)


PRIORITIES = [
    Case("9218 7.1", "PRIORITY_UPDATE of an idle stream", (update(7) + headers(7, get()), wait(7)), Answered(7)),
    Case("9218 7.1", "PRIORITY_UPDATE of an open stream", (HALF_CLOSED, update(1), go, wait(1)), Answered()),
    Case("9218 7.1", "PRIORITY_UPDATE of a stream that is over", (DONE, wait(1), update(1)), Nothing()),
    Case("9218 7.1", "PRIORITY_UPDATE on a stream", (OPEN, update(1, stream=1)), PROTOCOL_ERROR),
    Case("9218 7.1", "PRIORITY_UPDATE of the connection", (update(0),), PROTOCOL_ERROR),
    Case("9218 7.1", "PRIORITY_UPDATE of a push that nobody has promised", (update(2),), PROTOCOL_ERROR),
    Case("9218 7.1", "PRIORITY_UPDATE that is too short", (frame(PRIORITY_UPDATE, 0, 0, bytes(3)),),
         EndsConnection(Code.FRAME_SIZE_ERROR)),
    Case("9218 7.1", "PRIORITY_UPDATE that says nothing", (update(1, b"") + headers(1, get()), wait(1)), Answered()),
    Case("9218 7.1", "PRIORITY_UPDATE that makes no sense", (update(1, b"\xff(=,") + headers(1, get()), wait(1)),
         Answered() | PROTOCOL_ERROR),
    Case("9218 5", "a priority that makes no sense", (headers(1, get("/", ("priority", "u=9, =(i"))), wait(1)),
         Answered()),
    Case("9218 2.1", "NO_RFC7540_PRIORITIES of 1", (headers(1, get()), wait(1)), Answered(),
         {f.NO_RFC7540_PRIORITIES: 1}),
    Case("9218 2.1", "NO_RFC7540_PRIORITIES of 2", (f.settings({f.NO_RFC7540_PRIORITIES: 2}),), PROTOCOL_ERROR),
]  # fmt: skip

STREAMS: list[Case] = [*IDLE, *HALF_CLOSED_REMOTE, *CLOSED_STREAM, *BY_US, *NUMBERS, *ENDS, *PRIORITIES]
