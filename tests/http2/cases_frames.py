"""Cases of framing: the preface, and each type of frame by itself (RFC 9113 sections 3.4, 4 and 6)."""

from __future__ import annotations

from collections.abc import Callable

from tests.http2 import frames as f
from tests.http2.case import Case, go, wait
from tests.http2.frames import PREFACE, Code, data, frame, get, headers, ping, post, settings
from tests.http2.outcomes import Answered, Ended, EndsConnection, EndsStream, Expected, Nothing
from tests.http2.talk import Talk

PROTOCOL_ERROR = EndsConnection(Code.PROTOCOL_ERROR)
FRAME_SIZE_ERROR = EndsConnection(Code.FRAME_SIZE_ERROR)
FLOW_CONTROL_ERROR = EndsConnection(Code.FLOW_CONTROL_ERROR)
SHORT = EndsConnection(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)  # too short for what its flags announce: 4.2 or 6.1
ODD_FLAGS = 0xFF & ~(f.END_STREAM | f.END_HEADERS | f.PADDED | f.WITH_PRIORITY)
RESERVED = 1 << 31
OPEN = headers(1, post("/held"), end=False)  # a request whose body is still to come


def acked(*contents: bytes) -> Callable[[Talk], None]:
    """Each PING was acknowledged with what it had, and no other."""

    def check(talk: Talk) -> None:
        assert [each.payload for each in talk.acks(f.PING)] == list(contents)

    return check


def settled(times: int) -> Callable[[Talk], None]:
    """So many SETTINGS were acknowledged, beside the first."""

    def check(talk: Talk) -> None:
        assert len(talk.acks(f.SETTINGS)) == 1 + times

    return check


def echoed(body: bytes) -> Answered:
    """The origin has got that, and nothing of the padding."""
    return Answered(1, 200, body)


def preface(name: str, raw: bytes, expected: Expected, *, slow: bool = False, section: str = "3.4") -> Case:
    """A case that is the beginning of a connection."""
    return Case(section, name, (raw,), expected, begins=False, slow=slow)


BEGINNINGS = [
    preface("a wrong preface", PREFACE.replace(b"SM", b"XX") + settings(), Ended()),
    preface("a wrong preface, and nothing behind it", b"PRI * HTTP/2.0\r\n\r\nSN", Ended(), slow=True),
    preface("a preface that stops", PREFACE[:20], Ended(), slow=True),
    preface("a preface without SETTINGS", PREFACE, Ended(), slow=True),
    preface("SETTINGS that stop", PREFACE + settings({1: 4096})[:-1], Ended(), slow=True),
    preface("PING comes first", PREFACE + ping(), PROTOCOL_ERROR),
    preface("HEADERS comes first", PREFACE + headers(1, get()), PROTOCOL_ERROR),
    preface("WINDOW_UPDATE comes first", PREFACE + f.window_update(0, 10), PROTOCOL_ERROR),
    preface("an unknown frame comes first", PREFACE + frame(0xBE), PROTOCOL_ERROR),
    Case(
        "3.4",
        "a request comes with the preface",
        (PREFACE + settings() + headers(1, get()), wait(1)),
        Answered(),
        begins=False,
    ),
    Case("3.4", "a second preface", (PREFACE,), EndsConnection(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)),
    Case("3.4", "a request of HTTP/1.1", (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",), SHORT),
]

FORMAT = [
    Case("4.1", "an unknown type of a connection", (frame(0xBE, 0xFF, 0, b"what?"),), Nothing()),
    Case("4.1", "an unknown type without payload", (frame(0x0A),), Nothing()),
    Case("4.1", "an unknown type of an idle stream", (frame(0xBE, 0, 1, b"what?"), headers(1, get()), wait(1)),
         Answered()),
    Case("4.1", "an unknown type within a body",
         (headers(1, post("/echo"), end=False) + data(1, b"a") + frame(0xFF, 0xFF, 1, b"?") + data(1, b"b", end=True),
          wait(1)), echoed(b"ab")),
    Case("4.1", "an unknown type on a stream that is over", (headers(1, get()), wait(1), frame(0xBE, 1, 1)), Nothing()),
    Case("4.1", "undefined flags of PING", (frame(f.PING, 0xFE, 0, b"12345678"),), Nothing(), check=acked(b"12345678")),
    Case("4.1", "undefined flags of SETTINGS", (frame(f.SETTINGS, 0xFE),), Nothing(), check=settled(1)),
    Case("4.1", "undefined flags of HEADERS", (headers(1, get(), flags=ODD_FLAGS), wait(1)), Answered()),
    Case("4.1", "undefined flags of DATA",
         (headers(1, post("/echo"), end=False) + data(1, b"a", end=True, flags=0xFF & ~(f.END_STREAM | f.PADDED)),
          wait(1)), echoed(b"a")),
    Case("4.1", "undefined flags of WINDOW_UPDATE", (frame(f.WINDOW_UPDATE, 0xFF, 0, b"\0\0\0\1"),), Nothing()),
    Case("4.1", "undefined flags of RST_STREAM", (OPEN, frame(f.RST_STREAM, 0xFF, 1, bytes(4))), Nothing()),
    Case("4.1", "undefined flags of PRIORITY", (frame(f.PRIORITY, 0xFF, 1, bytes(5)),), Nothing()),
    Case("4.1", "the reserved bit of PING", (frame(f.PING, 0, RESERVED, b"12345678"),), Nothing(),
         check=acked(b"12345678")),
    Case("4.1", "the reserved bit of HEADERS", (frame(f.HEADERS, 5, RESERVED | 1, get()), wait(1)), Answered()),
    Case("4.1", "the reserved bit of a window", (frame(f.WINDOW_UPDATE, 0, 0, b"\x80\0\0\1"),), Nothing()),
    Case("4.2", "DATA as long as may be",
         (headers(1, post("/echo"), end=False) + data(1, bytes(f.FRAME_MAX), end=True), wait(1)),
         echoed(bytes(f.FRAME_MAX))),
    Case("4.2", "DATA that is longer", (OPEN, data(1, bytes(f.FRAME_MAX + 1))),
         FRAME_SIZE_ERROR | EndsStream(1, Code.FRAME_SIZE_ERROR)),
    Case("4.2", "HEADERS that is longer", (headers(1, get("/", ("a", "b" * f.FRAME_MAX))),), FRAME_SIZE_ERROR),
    Case("4.2", "CONTINUATION that is longer",
         (headers(1, get(), more=True) + f.continuation(1, f.fields([("a", "b" * f.FRAME_MAX)])),), FRAME_SIZE_ERROR),
    Case("4.2", "SETTINGS that is longer", (settings([(9999, 0)] * 2731),), FRAME_SIZE_ERROR),
    Case("4.2", "an unknown type that is longer", (frame(0xBE, 0, 0, bytes(f.FRAME_MAX + 1)),), FRAME_SIZE_ERROR),
    Case("4.2", "a length that only threatens to be longer", (frame(f.SETTINGS, length=0xFFFFFF),), FRAME_SIZE_ERROR),
    Case("4.2", "a frame that stops", (ping()[:-1],), Ended(), slow=True),
    Case("4.2", "half a frame's head", (ping()[:5],), Ended(), slow=True),
]  # fmt: skip

DATA_HEADERS = [
    Case("6.1", "DATA on the connection", (data(0, b"a"),), PROTOCOL_ERROR),
    Case("6.1", "DATA that is padding and nothing else",
         (headers(1, post("/echo"), end=False) + data(1, b"", padding=5) + data(1, b"a", end=True), wait(1)),
         echoed(b"a")),
    Case("6.1", "DATA with the most of padding",
         (headers(1, post("/echo"), end=False) + data(1, b"abc", end=True, padding=255), wait(1)), echoed(b"abc")),
    Case("6.1", "DATA with padding of no length",
         (headers(1, post("/echo"), end=False) + data(1, b"abc", end=True, padding=0), wait(1)), echoed(b"abc")),
    Case("6.1", "padding as long as DATA", (OPEN, frame(f.DATA, f.PADDED, 1, b"\x06abcde")), PROTOCOL_ERROR),
    Case("6.1", "padding longer than DATA", (OPEN, frame(f.DATA, f.PADDED, 1, b"\xffabcde")), PROTOCOL_ERROR),
    Case("6.1", "padded DATA without a length of it", (OPEN, frame(f.DATA, f.PADDED, 1)), SHORT),
    Case("6.2", "HEADERS on the connection", (headers(0, get()),), PROTOCOL_ERROR),
    Case("6.2", "HEADERS with padding", (headers(1, get(), padding=100), wait(1)), Answered()),
    Case("6.2", "HEADERS with padding and priority", (headers(1, get(), padding=9, priority=b"\0\0\0\0\xff"), wait(1)),
         Answered()),
    Case("6.2", "HEADERS with an exclusive dependency", (headers(3, get(), priority=b"\x80\0\0\1\0"), wait(3)),
         Answered(3)),
    Case("6.2", "padding as long as HEADERS", (frame(f.HEADERS, f.PADDED | 5, 1, bytes((len(get()) + 1,)) + get()),),
         PROTOCOL_ERROR),
    Case("6.2", "padding longer than HEADERS", (frame(f.HEADERS, f.PADDED | 5, 1, b"\xff" + get()),), PROTOCOL_ERROR),
    Case("6.2", "padding that leaves no room for a priority",
         (frame(f.HEADERS, f.PADDED | f.WITH_PRIORITY | 5, 1, b"\x05" + bytes(9)),), SHORT),
    Case("6.2", "padded HEADERS without a length of it", (frame(f.HEADERS, f.PADDED | 5, 1),), SHORT),
    Case("6.2", "HEADERS too short for a priority", (frame(f.HEADERS, f.WITH_PRIORITY | 5, 1, bytes(4)),), SHORT),
    Case("6.3", "PRIORITY on the connection", (f.priority(0, 1),), PROTOCOL_ERROR),
    Case("6.3", "PRIORITY of an idle stream", (f.priority(7, 1), headers(7, get()), wait(7)), Answered(7)),
    Case("6.3", "PRIORITY of a stream below one that is used", (headers(5, get()), wait(5), f.priority(3)), Nothing()),
    Case("6.3", "PRIORITY of an open stream", (headers(1, get("/held")), f.priority(1, 3), go, wait(1)), Answered()),
    Case("6.3", "PRIORITY of a stream of even number", (f.priority(2, 1),), Nothing()),
    Case("6.3", "PRIORITY that is too short", (OPEN, frame(f.PRIORITY, 0, 1, bytes(4))),
         EndsStream(1, Code.FRAME_SIZE_ERROR) | FRAME_SIZE_ERROR),
    Case("6.3", "PRIORITY that is too long", (OPEN, frame(f.PRIORITY, 0, 1, bytes(6))),
         EndsStream(1, Code.FRAME_SIZE_ERROR) | FRAME_SIZE_ERROR),
    # RFC 7540 section 5.3.1 made this a stream error; RFC 9113 has no dependencies any more.
    Case("5.3.2", "PRIORITY of a stream that depends on itself", (OPEN, f.priority(1, 1)),
         Nothing() | EndsStream(1, Code.PROTOCOL_ERROR)),
    Case("5.3.2", "HEADERS of a stream that depends on itself", (headers(1, get(), priority=b"\0\0\0\1\0"), wait(1)),
         Answered() | EndsStream(1, Code.PROTOCOL_ERROR)),
]  # fmt: skip

CONNECTION = [
    Case("6.4", "RST_STREAM on the connection", (f.rst(0),), PROTOCOL_ERROR),
    Case("6.4", "RST_STREAM that is too short", (OPEN, frame(f.RST_STREAM, 0, 1, bytes(3))), FRAME_SIZE_ERROR),
    Case("6.4", "RST_STREAM that is too long", (OPEN, frame(f.RST_STREAM, 0, 1, bytes(5))), FRAME_SIZE_ERROR),
    Case("7", "RST_STREAM with an unknown code", (OPEN, f.rst(1, 0xDEADBEEF)), Nothing()),
    Case("6.5", "SETTINGS on a stream", (settings(stream=1),), PROTOCOL_ERROR),
    Case("6.5", "SETTINGS on an open stream", (OPEN, settings(stream=1)), PROTOCOL_ERROR),
    Case("6.5", "an acknowledgement with a payload", (frame(f.SETTINGS, f.ACK, 0, bytes(6)),), FRAME_SIZE_ERROR),
    Case("6.5", "SETTINGS that are no sixes", (frame(f.SETTINGS, 0, 0, bytes(5)),), FRAME_SIZE_ERROR),
    Case("6.5", "SETTINGS of a byte too much", (frame(f.SETTINGS, 0, 0, settings({1: 4096})[9:] + b"\0"),),
         FRAME_SIZE_ERROR),
    Case("6.5.2", "ENABLE_PUSH of 2", (settings({f.ENABLE_PUSH: 2}),), PROTOCOL_ERROR),
    Case("6.5.2", "ENABLE_PUSH of 2 and then of 0", (settings([(f.ENABLE_PUSH, 2), (f.ENABLE_PUSH, 0)]),),
         PROTOCOL_ERROR),
    Case("6.5.2", "ENABLE_PUSH of 0 and of 1", (settings({f.ENABLE_PUSH: 0}), settings({f.ENABLE_PUSH: 1})), Nothing(),
         check=settled(2)),
    Case("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", (settings({f.INITIAL_WINDOW_SIZE: 2**31}),), FLOW_CONTROL_ERROR),
    Case("6.5.2", "INITIAL_WINDOW_SIZE of 2^32-1", (settings({f.INITIAL_WINDOW_SIZE: 2**32 - 1}),), FLOW_CONTROL_ERROR),
    Case("6.5.2", "INITIAL_WINDOW_SIZE of 2^31-1", (settings({f.INITIAL_WINDOW_SIZE: 2**31 - 1}), headers(1, get()),
         wait(1)), Answered()),
    Case("6.5.2", "MAX_FRAME_SIZE of 16383", (settings({f.MAX_FRAME_SIZE: 16383}),), PROTOCOL_ERROR),
    Case("6.5.2", "MAX_FRAME_SIZE of 2^24", (settings({f.MAX_FRAME_SIZE: 2**24}),), PROTOCOL_ERROR),
    Case("6.5.2", "MAX_FRAME_SIZE of 2^24-1", (settings({f.MAX_FRAME_SIZE: 2**24 - 1}),), Nothing(), check=settled(1)),
    Case("6.5.2", "MAX_CONCURRENT_STREAMS of 0 is about pushes",
         (settings({f.MAX_CONCURRENT_STREAMS: 0}), headers(1, get()), wait(1)), Answered()),
    Case("6.5.2", "MAX_HEADER_LIST_SIZE of 0 is advice", (settings({f.MAX_HEADER_LIST_SIZE: 0}),), Nothing()),
    Case("6.5.2", "unknown settings", (settings([(0, 1), (0xFFFF, 2**32 - 1), (0x0A0A, 7)]),), Nothing(),
         check=settled(1)),
    Case("6.5.3", "each SETTINGS is acknowledged", (settings() * 3 + settings({1: 100}) + settings({1: 4096}),),
         Nothing(), check=settled(5)),
    Case("6.5.3", "an acknowledgement too many", (settings(ack=True) * 2,), Nothing() | PROTOCOL_ERROR),
    Case("6.6", "PUSH_PROMISE from a client", (OPEN, f.push_promise(1, 2, get())), PROTOCOL_ERROR),
    Case("6.6", "PUSH_PROMISE on the connection", (f.push_promise(0, 2, get()),), PROTOCOL_ERROR),
    Case("6.7", "PING is answered", (ping(b"\0\1\2\3\4\5\6\7") + ping(b"another!"),), Nothing(),
         check=acked(b"\0\1\2\3\4\5\6\7", b"another!")),
    Case("6.7", "the answer to a PING is not", (ping(ack=True),), Nothing(), check=acked()),
    Case("6.7", "PING on a stream", (OPEN, ping(stream=1)), PROTOCOL_ERROR),
    Case("6.7", "the answer to a PING on a stream", (OPEN, ping(stream=1, ack=True)), PROTOCOL_ERROR),
    Case("6.7", "PING that is too short", (ping(b"1234567"),), FRAME_SIZE_ERROR),
    Case("6.7", "PING that is too long", (ping(b"123456789"),), FRAME_SIZE_ERROR),
    Case("6.7", "PING without payload", (ping(b""),), FRAME_SIZE_ERROR),
    Case("6.8", "GOAWAY on a stream", (OPEN, f.goaway(stream=1)), PROTOCOL_ERROR),
    Case("6.8", "GOAWAY that is too short", (frame(f.GOAWAY, 0, 0, bytes(7)),), FRAME_SIZE_ERROR),
    Case("6.10", "CONTINUATION on the connection",
         (headers(1, get()[:4], more=True) + f.continuation(0, get()[4:]),), PROTOCOL_ERROR),
    Case("6.10", "CONTINUATION of no HEADERS", (OPEN, f.continuation(1, b"")), PROTOCOL_ERROR),
    Case("6.10", "CONTINUATION of another stream",
         (headers(1, get()[:4], more=True) + f.continuation(3, get()[4:]),), PROTOCOL_ERROR),
    Case("6.10", "CONTINUATION behind the end of the fields",
         (headers(1, get()[:4], more=True) + f.continuation(1, get()[4:]) + f.continuation(1, b""),), PROTOCOL_ERROR),
    Case("6.10", "CONTINUATION behind DATA", (OPEN, data(1, b"a") + f.continuation(1, get())), PROTOCOL_ERROR),
    Case("6.10", "fields in CONTINUATION", (headers(1, get()[:4], more=True) + f.continuation(1, get()[4:]), wait(1)),
         Answered()),
    Case("6.10", "all fields in CONTINUATION", (headers(1, b"", more=True) + f.continuation(1, get()), wait(1)),
         Answered()),
    Case("6.10", "undefined flags of CONTINUATION",
         (headers(1, get()[:4], more=True) + f.continuation(1, get()[4:], flags=0xFF), wait(1)), Answered()),
    Case("6.10", "fields in many CONTINUATION",
         (headers(1, get()[:1], more=True)
          + b"".join(f.continuation(1, get()[at : at + 1], more=True) for at in range(1, 7))
          + f.continuation(1, get()[7:]), wait(1)), Answered()),
    Case("6.10", "END_STREAM of HEADERS that go on in CONTINUATION",
         (headers(1, post("/echo")[:9], more=True) + f.continuation(1, post("/echo")[9:]), wait(1)), echoed(b"")),
    Case("6.10", "fields that are never ended", (headers(1, get()[:4], more=True),), Ended(), slow=True),
    Case("6.10", "fields that are never ended, of trailers", (OPEN, headers(1, b"", more=True)), Ended(), slow=True),
    *(Case("4.3", f"{name} within a field block", (OPEN, headers(3, get()[:4], more=True) + raw), PROTOCOL_ERROR)
      for name, raw in [
          ("DATA", data(1, b"a")), ("HEADERS", headers(3, get()[4:])), ("HEADERS of another stream", headers(5, get())),
          ("PRIORITY", f.priority(3)), ("RST_STREAM", f.rst(3)), ("SETTINGS", settings()), ("PING", ping()),
          ("GOAWAY", f.goaway()), ("WINDOW_UPDATE", f.window_update(0, 1)), ("an unknown type", frame(0xBE, 0, 3)),
      ]),
]  # fmt: skip

FRAMES: list[Case] = [*BEGINNINGS, *FORMAT, *DATA_HEADERS, *CONNECTION]
