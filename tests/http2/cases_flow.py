"""Cases of flow control (RFC 9113 sections 5.2, 6.9 and 6.5.2), in both directions.

That an answer never has more than its windows is asserted for each frame of each case, by `Talk`.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.http2 import frames as f
from tests.http2.case import Case, Standstill, go, wait
from tests.http2.frames import INITIAL_WINDOW_SIZE, Code, data, frame, get, headers, post, settings, window_update
from tests.http2.origin import LARGE
from tests.http2.outcomes import Answered, EndsConnection, EndsStream, Nothing
from tests.http2.talk import Talk

PROTOCOL_ERROR = EndsConnection(Code.PROTOCOL_ERROR)
FLOW_CONTROL_ERROR = EndsConnection(Code.FLOW_CONTROL_ERROR)
FRAME_SIZE_ERROR = EndsConnection(Code.FRAME_SIZE_ERROR)
OPEN = headers(1, post("/held"), end=False)
HELD = headers(1, get("/held"))
WIDEST = 2**31 - 1

UPDATES = [
    Case("6.9", "WINDOW_UPDATE of 0", (HELD, window_update(1, 0)), EndsStream(1, Code.PROTOCOL_ERROR)),
    Case("6.9", "WINDOW_UPDATE of 0 and the reserved bit", (HELD, frame(f.WINDOW_UPDATE, 0, 1, b"\x80\0\0\0")),
         EndsStream(1, Code.PROTOCOL_ERROR)),
    Case("6.9", "WINDOW_UPDATE of 0 on the connection", (window_update(0, 0),), PROTOCOL_ERROR),
    Case("6.9", "WINDOW_UPDATE that is too short", (frame(f.WINDOW_UPDATE, 0, 0, bytes(3)),), FRAME_SIZE_ERROR),
    Case("6.9", "WINDOW_UPDATE that is too long", (frame(f.WINDOW_UPDATE, 0, 0, b"\0\0\0\1\0"),), FRAME_SIZE_ERROR),
    Case("6.9", "WINDOW_UPDATE on a stream that is too long", (HELD, frame(f.WINDOW_UPDATE, 0, 1, b"\0\0\0\1\0")),
         FRAME_SIZE_ERROR),
    Case("6.9.1", "a connection's window that is too large", (window_update(0, WIDEST),), FLOW_CONTROL_ERROR),
    Case("6.9.1", "... by two steps", (window_update(0, WIDEST - f.WINDOW), window_update(0, 1)), FLOW_CONTROL_ERROR),
    Case("6.9.1", "a connection's window as large as may be", (window_update(0, WIDEST - f.WINDOW),), Nothing()),
    Case("6.9.1", "a stream's window that is too large", (HELD, window_update(1, WIDEST)),
         EndsStream(1, Code.FLOW_CONTROL_ERROR)),
    Case("6.9.1", "... by two steps ", (HELD, window_update(1, WIDEST - f.WINDOW), window_update(1, 1)),
         EndsStream(1, Code.FLOW_CONTROL_ERROR)),
    Case("6.9.1", "a stream's window as large as may be", (HELD, window_update(1, WIDEST - f.WINDOW), go, wait(1)),
         Answered()),
    Case("6.9.2", "SETTINGS that make a stream's window too large",
         (HELD, window_update(1, 1), settings({INITIAL_WINDOW_SIZE: WIDEST})), FLOW_CONTROL_ERROR),
    Case("6.9.2", "SETTINGS that make a stream's window as large as may be",
         (HELD, settings({INITIAL_WINDOW_SIZE: WIDEST}), go, wait(1)), Answered()),
]  # fmt: skip


def has(count: int) -> Standstill:
    """So much of the body on stream 1 is here."""
    return Standstill(count)


def in_steps(step: int) -> Callable[[Talk], None]:
    """Take a large answer by windows of `step` bytes, all the way."""

    def takes(talk: Talk) -> None:
        have = 0

        def moved() -> bool:
            return talk.ended(1) or len(talk.answers[1].body) > have

        while not talk.ended(1):
            have = len(talk.answers[1].body)
            talk.send(window_update(1, step) + window_update(0, step))
            assert talk.until(moved), "the answer stands still"

    return takes


BODY = (bytes(range(250)) * (LARGE // 250))[:LARGE]
ANSWERS = [
    Case("6.9.1", "an answer of two bytes by windows of one",
         (headers(1, get()), has(0), window_update(1, 1), has(1), window_update(1, 1), wait(1)),
         Answered(1, 200, b"hi"), ours={INITIAL_WINDOW_SIZE: 0}),
    Case("6.9.1", "an answer without a body needs no window", (headers(1, f.fields(f.request(method="HEAD"))), wait(1)),
         Answered(), ours={INITIAL_WINDOW_SIZE: 0}),
    Case("6.9.2", "a window that SETTINGS open", (headers(1, get()), has(0), settings({INITIAL_WINDOW_SIZE: 1}), has(1),
         settings({INITIAL_WINDOW_SIZE: 2}), wait(1)), Answered(1, 200, b"hi"), ours={INITIAL_WINDOW_SIZE: 0}),
    Case("6.9.2", "the last of several values counts",
         (settings([(INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 1)]), headers(1, get()), has(1),
          window_update(1, 1), wait(1)), Answered(1, 200, b"hi")),
    Case("6.9.2", "a window below 0",
         (headers(1, get("/large")), has(100), settings({INITIAL_WINDOW_SIZE: 40}), window_update(1, 60), has(100),
          window_update(1, 1), has(101), settings({INITIAL_WINDOW_SIZE: 41}), has(102), window_update(1, LARGE),
          window_update(0, LARGE), wait(1)), Answered(1, 200, BODY), ours={INITIAL_WINDOW_SIZE: 100}),
    Case("6.9.2", "SETTINGS say nothing of the connection's window",
         (headers(1, get("/large")), has(f.WINDOW), window_update(0, 1), has(f.WINDOW + 1), window_update(0, LARGE),
          wait(1)), Answered(1, 200, BODY), ours={INITIAL_WINDOW_SIZE: WIDEST}),
    Case("6.9.1", "a stream's window does not help the connection's",
         (headers(1, get("/large")), has(f.WINDOW), window_update(1, LARGE), has(f.WINDOW), window_update(0, LARGE),
          wait(1)), Answered(1, 200, BODY)),
    Case("6.9.1", "a large answer in small steps", (headers(1, get("/large")), has(f.WINDOW), in_steps(7001)),
         Answered(1, 200, BODY)),
    Case("6.9.1", "an answer waits and another one does not",
         (headers(1, get("/large")), has(10), headers(3, get("/large")) + window_update(3, 2 * LARGE)
          + window_update(0, 2 * LARGE), wait(3), has(10), window_update(1, LARGE), wait(1)), Answered(1, 200, BODY),
         ours={INITIAL_WINDOW_SIZE: 10}),
    Case("6.9.1", "PING is answered while an answer waits",
         (headers(1, get("/large")), has(0), f.ping(b"12345678"), settings()), Nothing(), ours={INITIAL_WINDOW_SIZE: 0},
         check=lambda talk: _acked(talk)),
    Case("6.9.1", "an answer that waits for a window is taken back", (headers(1, get("/large")), has(10), f.rst(1)),
         Nothing(), ours={INITIAL_WINDOW_SIZE: 10}),
    Case("4.2", "frames of an answer to somebody who takes longer ones", (headers(1, get("/large")), wait(1)),
         Answered(1, 200, BODY), ours={f.MAX_FRAME_SIZE: 2**24 - 1, INITIAL_WINDOW_SIZE: LARGE}),
]  # fmt: skip
ANSWERS[-1] = Case(ANSWERS[-1].section, ANSWERS[-1].name, (window_update(0, LARGE), *ANSWERS[-1].steps),
                   ANSWERS[-1].expected, ANSWERS[-1].ours)  # fmt: skip


def _acked(talk: Talk) -> None:
    assert len(talk.acks(f.PING)) == 1
    assert len(talk.acks(f.SETTINGS)) == 2


def beyond_the_stream(talk: Talk) -> None:
    """A byte more than the stream's window, which nobody opens."""
    talk.send(OPEN)
    left = talk.theirs[INITIAL_WINDOW_SIZE] + 1
    while left:
        size = min(left, f.FRAME_MAX)
        talk.send(data(1, bytes(size)))
        left -= size


def beyond_the_connection(talk: Talk) -> None:
    """A byte more than the connection's window, on as many streams as that needs."""
    window = talk.theirs[INITIAL_WINDOW_SIZE]
    left = talk.credits[0] + 1
    for stream in range(1, 199, 2):
        talk.send(headers(stream, post("/held"), end=False))
        room = min(window, left)
        left -= room
        while room:
            size = min(room, f.FRAME_MAX)
            talk.send(data(stream, bytes(size)))
            room -= size
        if not left:
            return


def upload(size: int, *, length: bool = True) -> Callable[[Talk], None]:
    """A body, as the windows allow it."""

    def uploads(talk: Talk) -> None:
        extra = [("content-length", str(size))] if length else []
        talk.send(headers(1, post("/echo", *extra), end=False))
        assert talk.upload(1, size), f"the windows stay shut: {talk.credits[0]} and {talk.credit(1)}"

    return uploads


def padded_upload(talk: Talk) -> None:
    """What is padding is given back too, or the windows would shut."""
    talk.send(headers(1, post("/echo"), end=False))
    for turn in range(700):
        if min(talk.credits[0], talk.credit(1)) < 257:
            assert talk.until(lambda: min(talk.credits[0], talk.credit(1)) >= 257), f"shut after {turn} frames"
        talk.send(data(1, b"x", padding=255))
    talk.send(data(1, b"", end=True))


BODIES = [
    Case("6.9.1", "a body larger than its stream's window", (beyond_the_stream,),
         EndsStream(1, Code.FLOW_CONTROL_ERROR) | FLOW_CONTROL_ERROR, origin=False, live=False),
    Case("6.9.1", "bodies larger than the connection's window", (beyond_the_connection,), FLOW_CONTROL_ERROR,
         origin=False, live=False),
    Case("6.9", "windows open again", (window_update(0, 2**20), upload(2**20), wait(1)), Answered(1, 200, bytes(2**20)),
         ours={INITIAL_WINDOW_SIZE: 2**20}),
    Case("6.9", "windows open again for a body of unknown length",
         (window_update(0, 300_000), upload(300_000, length=False), wait(1)), Answered(1, 200, bytes(300_000)),
         ours={INITIAL_WINDOW_SIZE: 300_000}),
    Case("6.1", "windows open again for padding", (padded_upload, wait(1)), Answered(1, 200, b"x" * 700)),
]  # fmt: skip

FLOW: list[Case] = [*UPDATES, *ANSWERS, *BODIES]
