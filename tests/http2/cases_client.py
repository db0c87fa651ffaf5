"""Cases of an origin: what it answers, and what must become of it for the client, and for the connection.

No client is ever given what looks whole and is not. An answer that is wrong ends its stream, and a connection that is
wrong all its streams (RFC 9113 section 5.4).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.http2 import frames as f
from tests.http2.frames import Code, Pairs, continuation, data, fields, frame, headers, ping, settings, window_update
from tests.http2.served import Got, Served, answer


@dataclass(frozen=True)
class Gets:
    """What the client is given: one of these statuses, whole."""

    statuses: tuple[int, ...] = (502,)
    body: bytes | None = None

    def missing(self, got: Got) -> str:
        """What of it is not so."""
        wrong = got.status not in self.statuses or not got.whole or (self.body is not None and got.body != self.body)
        return f"{got} with {got.body[:40]!r}" if wrong else ""


@dataclass(frozen=True)
class Cut:
    """The client is given the beginning of an answer, and sees that there is no end; or an error in its place."""

    def missing(self, got: Got) -> str:
        """What of it is not so."""
        return "" if got.cut or (got.status in (502, 504) and got.whole) else f"{got} with {got.body[:40]!r}"


@dataclass(frozen=True)
class Ends:
    """Of the connection: GOAWAY with one of these codes, and it is closed. No codes: it is only closed."""

    codes: tuple[Code, ...] = ()

    def missing(self, served: Served, reused: bool) -> str:
        """What of it is not so."""
        if not served.wire.closed:
            return "the connection is open"
        if self.codes and (not served.goaways or served.goaways[-1].code not in self.codes):
            return f"no GOAWAY of that code: {list(map(str, served.goaways))}"
        return ""


@dataclass(frozen=True)
class Resets:
    """Of the stream: RST_STREAM with one of these codes (none: perhaps without), and the connection carries others."""

    codes: tuple[Code, ...] = ()
    needed: bool = True

    def missing(self, served: Served, reused: bool) -> str:
        """What of it is not so."""
        if served.goaways or served.wire.closed or not reused:
            return f"the connection is not used again: {list(map(str, served.goaways))}, closed {served.wire.closed}"
        if 1 not in served.resets:
            return "no RST_STREAM" if self.needed else ""
        return "" if served.resets[1] in self.codes else f"RST_STREAM {served.resets[1].name}"


@dataclass(frozen=True)
class Either:
    """Where the RFC leaves the choice."""

    one: Ends | Resets
    other: Ends | Resets

    def missing(self, served: Served, reused: bool) -> str:
        """What of it is not so."""
        faults = [self.one.missing(served, reused), self.other.missing(served, reused)]
        return "" if "" in faults else ", and ".join(faults)


@dataclass(frozen=True)
class ClientCase:
    """One of them: `sends` goes out when the request, a GET on stream 1, has come whole."""

    section: str
    name: str
    sends: bytes
    gets: Gets | Cut
    then: Ends | Resets | Either
    begins: bool = True
    """The origin has sent its SETTINGS and has acknowledged ours; else it has said nothing yet."""

    closes: bool = False
    """It closes its side behind what it has sent."""

    method: str = "GET"
    ours: dict[int, int] = field(default_factory=dict)
    """The origin's SETTINGS."""

    def __str__(self) -> str:
        return f"{self.section} {self.name}"


FINE = Resets((), needed=False)
MALFORMED = Resets((Code.PROTOCOL_ERROR,))
LATE = Resets((Code.PROTOCOL_ERROR, Code.NO_ERROR, Code.CANCEL), needed=False)  # of a stream that is over anyway
GONE = Ends((Code.PROTOCOL_ERROR,))
SIZE = Ends((Code.FRAME_SIZE_ERROR,))
FLOW = Ends((Code.FLOW_CONTROL_ERROR,))
HPACK = Ends((Code.COMPRESSION_ERROR,))
BEHIND = Either(Resets((Code.STREAM_CLOSED,), needed=False), Ends((Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)))
BAD = Gets((502,))
OK = Gets((200,), b"hi")
TWO = data(1, b"hi", end=True)
HEAD = headers(1, answer(), end=False)
OF_FIVE = headers(1, answer("200", ("content-length", "5")), end=False)
TRAILERS = headers(1, fields([("x-sum", "7")]))

GOOD = [
    ClientCase("8.1", "an answer", HEAD + TWO, OK, FINE),
    ClientCase("8.1", "an answer without a body", headers(1, answer("204")), Gets((204,)), FINE),
    ClientCase("8.1", "an answer whose end comes by itself", HEAD + data(1, b"hi") + data(1, b"", end=True), OK, FINE),
    ClientCase("8.1", "an answer with trailers", HEAD + data(1, b"hi") + TRAILERS, OK, FINE),
    ClientCase("8.1", "an answer with padding", headers(1, answer(), end=False, padding=9)
               + data(1, b"hi", end=True, padding=255), OK, FINE),
    ClientCase("8.1", "interim answers", headers(1, answer("103", ("link", "<a>")), end=False)
               + headers(1, answer("100"), end=False) + HEAD + TWO, OK, FINE),
    ClientCase("8.1", "just Content-Length", OF_FIVE + data(1, b"ab") + data(1, b"cde", end=True),
               Gets((200,), b"abcde"), FINE),
    ClientCase("8.1", "HEAD", headers(1, answer("200", ("content-length", "5"))), Gets((200,), b""), FINE,
               method="HEAD"),
    ClientCase("6.10", "an answer in CONTINUATION", headers(1, answer()[:3], end=False, more=True)
               + continuation(1, answer()[3:]) + TWO, OK, FINE),
    ClientCase("5.5", "unknown frames", frame(0xBE, 255, 0, b"?") + HEAD + frame(0xBE, 255, 1, b"?") + TWO, OK, FINE),
    ClientCase("6.7", "PING", ping() + HEAD + TWO, OK, FINE),
    ClientCase("6.5", "SETTINGS", settings({f.MAX_FRAME_SIZE: 20000, 9999: 1}) + HEAD + TWO, OK, FINE),
    ClientCase("6.3", "PRIORITY", f.priority(1, 3) + HEAD + f.priority(5) + TWO, OK, FINE),
    ClientCase("6.9", "windows", window_update(0, 9) + window_update(1, 9) + HEAD + TWO + window_update(1, 9), OK,
               FINE),
    ClientCase("6.5", "SETTINGS with the answer", settings() + settings(ack=True) + HEAD + TWO, OK, FINE, begins=False),
    ClientCase("8.1", "NO_ERROR behind a whole answer", HEAD + TWO + f.rst(1, Code.NO_ERROR), OK, FINE),
    ClientCase("6.8", "GOAWAY that takes the request on", f.goaway(1) + HEAD + TWO, OK, Ends()),
    ClientCase("6.8", "two GOAWAY", f.goaway(2**31 - 1) + f.goaway(1) + HEAD + TWO, OK, Ends()),
    ClientCase("6.5.2", "ENABLE_PUSH of 0", settings({f.ENABLE_PUSH: 0}) + HEAD + TWO, OK, FINE),
]  # fmt: skip


def wrong(section: str, name: str, pairs: Pairs) -> ClientCase:
    """The head of an answer, a wrong one; its body may follow."""
    return ClientCase(section, name, headers(1, fields(pairs), end=False), BAD, MALFORMED)


STATUS = (":status", "200")
HEADS = [
    wrong("8.3.2", "no :status", [("a", "b")]),
    wrong("8.3.2", "no fields", []),
    wrong("8.3.2", ":status twice", [STATUS, STATUS]),
    wrong("8.3.2", ":status behind a field", [("a", "b"), STATUS]),
    *(wrong("8.3.2", f"a :status of {value}", [(":status", value)])
      for value in ("", "abc", "20", "2000", "-20", "099", "2 0", "200 OK")),
    wrong("8.3", "a pseudo-field of a request", [STATUS, (":path", "/")]),
    wrong("8.3", "an unknown pseudo-field", [STATUS, (":a", "b")]),
    *(wrong("8.2.1", f"a name with {name}", [STATUS, (raw, "b")]) for name, raw in [
        ("an upper case letter", "Ab"), ("a blank", "a b"), ("a line end", "a\r\nb"), ("a colon", "a:"),
        ("nothing in it", "")]),
    *(wrong("8.2.1", f"a value with {name}", [STATUS, ("a", raw)]) for name, raw in [
        ("a line end", "b\r\nc: d"), ("NUL", "b\0"), ("LF", "b\nc"), ("a blank before it", " b"),
        ("a blank behind it", "b ")]),
    *(wrong("8.2.2", f"{name}: {value}", [STATUS, (name, value)]) for name, value in [
        ("connection", "close"), ("transfer-encoding", "chunked"), ("keep-alive", "timeout=1"), ("upgrade", "h2c"),
        ("proxy-connection", "close"), ("te", "trailers")]),
    *(wrong("8.1.1", f"a Content-Length of {value}", [STATUS, ("content-length", value)])
      for value in ("+5", "-1", "5,6", "0x5", "", "5 ")),
    wrong("8.1.1", "two Content-Length", [STATUS, ("content-length", "5"), ("content-length", "6")]),
    wrong("8.6", "101", [(":status", "101")]),
    ClientCase("8.1", "an interim answer that is the end", headers(1, answer("103")), BAD,
               Resets((Code.PROTOCOL_ERROR,), needed=False)),
    ClientCase("8.1.1", "a Content-Length and no body", headers(1, answer("200", ("content-length", "5"))), BAD, LATE),
]  # fmt: skip

BODIES = [
    ClientCase("8.1.1", "less than Content-Length", OF_FIVE + data(1, b"abcd", end=True), Cut(), LATE),
    ClientCase("8.1.1", "less than Content-Length, and trailers", OF_FIVE + data(1, b"abcd") + TRAILERS, Cut(), LATE),
    ClientCase("8.1.1", "more than Content-Length", OF_FIVE + data(1, b"abcdef", end=True), Cut(), LATE),
    ClientCase("8.1.1", "more than Content-Length, without end", OF_FIVE + data(1, b"abcdef"), Cut(), MALFORMED),
    ClientCase("8.1", "HEADERS within the body that are not the end", HEAD + data(1, b"h")
               + headers(1, fields([("a", "b")]), end=False), Cut(), MALFORMED),
    ClientCase("8.1", "an interim answer within the body", HEAD + data(1, b"h") + headers(1, answer("103"), end=False),
               Cut(), MALFORMED),
    ClientCase("8.1", "a second head as trailers", HEAD + data(1, b"h") + headers(1, answer()), Cut(), LATE),
    ClientCase("8.1", "trailers with a pseudo-field", HEAD + data(1, b"h") + headers(1, fields([(":path", "/")])),
               Cut(), LATE),
    ClientCase("8.1", "trailers with a line end", HEAD + data(1, b"h") + headers(1, fields([("a", "b\r\nc: d")])),
               Cut(), LATE),
    ClientCase("8.1", "trailers in upper case", HEAD + data(1, b"h") + headers(1, fields([("A", "b")])), Cut(), LATE),
    ClientCase("8.1", "DATA before the head", data(1, b"hi"), BAD, Either(GONE, MALFORMED)),
    ClientCase("8.1", "the end before the head", data(1, b"", end=True), BAD, Either(GONE, LATE)),
    ClientCase("8.1", "DATA before the head, behind an interim answer",
               headers(1, answer("103"), end=False) + data(1, b"h"),
               BAD, Either(GONE, MALFORMED)),
    ClientCase("8.1", "DATA in answer to HEAD", headers(1, answer(), end=False) + data(1, b"hi", end=True),
               Gets((200, 502)), LATE, method="HEAD"),
    ClientCase("6.4", "RST_STREAM and no answer", f.rst(1, Code.INTERNAL_ERROR), BAD, FINE),
    ClientCase("6.4", "RST_STREAM with an unknown code", f.rst(1, 0xDEADBEEF), BAD, FINE),
    ClientCase("6.4", "RST_STREAM behind the head", HEAD + f.rst(1, Code.INTERNAL_ERROR), Cut(), FINE),
    ClientCase("6.4", "RST_STREAM within a body of unknown length", HEAD + data(1, b"h") + f.rst(1), Cut(), FINE),
    ClientCase("6.4", "RST_STREAM within a body of known length", OF_FIVE + data(1, b"abc") + f.rst(1), Cut(), FINE),
    ClientCase("8.1", "NO_ERROR within a body", HEAD + data(1, b"h") + f.rst(1, Code.NO_ERROR), Cut(), FINE),
    ClientCase("8.1", "NO_ERROR and no answer", f.rst(1, Code.NO_ERROR), BAD, FINE),
    ClientCase("9.1", "a connection that closes", b"", BAD, Ends(), closes=True),
    ClientCase("9.1", "a connection that closes behind the head", HEAD, Cut(), Ends(), closes=True),
    ClientCase("9.1", "a connection that closes within a body of unknown length", HEAD + data(1, b"h"), Cut(), Ends(),
               closes=True),
    ClientCase("9.1", "a connection that closes within a body of known length", OF_FIVE + data(1, b"abc"), Cut(),
               Ends(), closes=True),
    ClientCase("9.1", "a connection that closes where a body of known length has all but its end",
               OF_FIVE + data(1, b"abcde"), Gets((200,), b"abcde"),
               Ends(), closes=True),  # all that was announced is there
    ClientCase("9.1", "a connection that closes within a frame", HEAD + TWO[:-1], Cut(), Ends(), closes=True),
    ClientCase("9.1", "a connection that closes behind GOAWAY", f.goaway(1) + HEAD + data(1, b"h"), Cut(), Ends(),
               closes=True),
    ClientCase("6.8", "GOAWAY that takes the request on, and no answer", f.goaway(1, Code.INTERNAL_ERROR), BAD, Ends(),
               closes=True),
    ClientCase("9.1", "an answer that is whole, and a connection that closes", HEAD + TWO, OK, Ends(), closes=True),
]  # fmt: skip

CONNECTIONS = [
    ClientCase("3.4", "HTTP/1.1", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", BAD, Ends(), begins=False),
    ClientCase("3.4", "the answer comes before SETTINGS", HEAD + TWO, BAD, GONE, begins=False),
    ClientCase("3.4", "PING comes before SETTINGS", ping(), BAD, GONE, begins=False),
    ClientCase("3.4", "nothing, and an end", b"", BAD, Ends(), begins=False, closes=True),
    ClientCase("6.5.2", "ENABLE_PUSH of 1", settings({f.ENABLE_PUSH: 1}), BAD, GONE),
    ClientCase("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", settings({f.INITIAL_WINDOW_SIZE: 2**31}), BAD, FLOW),
    ClientCase("6.5.2", "MAX_FRAME_SIZE of 16383", settings({f.MAX_FRAME_SIZE: 16383}), BAD, GONE),
    ClientCase("6.5", "SETTINGS on a stream", settings(stream=1), BAD, GONE),
    ClientCase("6.5", "SETTINGS that are no sixes", frame(f.SETTINGS, 0, 0, bytes(5)), BAD, SIZE),
    ClientCase("6.5", "an acknowledgement with a payload", frame(f.SETTINGS, f.ACK, 0, bytes(6)), BAD, SIZE),
    ClientCase("6.6", "PUSH_PROMISE", f.push_promise(1, 2, fields(f.request())), BAD, GONE),
    ClientCase("5.1.1", "an answer on a stream of even number", headers(2, answer()), BAD, GONE),
    ClientCase("5.1", "an answer on an idle stream", headers(5, answer()), BAD, GONE),
    ClientCase("5.1", "DATA on an idle stream", data(5, b"a"), BAD, Ends((Code.PROTOCOL_ERROR, Code.STREAM_CLOSED))),
    ClientCase("5.1", "RST_STREAM on an idle stream", f.rst(5), BAD, GONE),
    ClientCase("5.1", "WINDOW_UPDATE on an idle stream", window_update(5, 9), BAD, GONE),
    ClientCase("5.1", "DATA behind the end of an answer", HEAD + TWO + data(1, b"a"), OK, BEHIND),
    ClientCase("5.1", "HEADERS behind the end of an answer", HEAD + TWO + headers(1, answer()), OK, BEHIND),
    ClientCase("6.7", "PING on a stream", ping(stream=1), BAD, GONE),
    ClientCase("6.7", "PING that is too short", ping(b"1234567"), BAD, SIZE),
    ClientCase("6.4", "RST_STREAM on the connection", f.rst(0), BAD, GONE),
    ClientCase("6.4", "RST_STREAM that is too short", frame(f.RST_STREAM, 0, 1, bytes(3)), BAD, SIZE),
    ClientCase("6.8", "GOAWAY on a stream", f.goaway(stream=1), BAD, GONE),
    ClientCase("6.8", "GOAWAY that is too short", frame(f.GOAWAY, 0, 0, bytes(7)), BAD, SIZE),
    ClientCase("6.1", "DATA on the connection", HEAD + data(0, b"a"), Cut(), GONE),
    ClientCase("6.1", "padding longer than DATA", HEAD + frame(f.DATA, f.PADDED, 1, b"\xffabc"), Cut(), GONE),
    ClientCase("6.2", "HEADERS on the connection", headers(0, answer()), BAD, GONE),
    ClientCase("6.2", "padding longer than HEADERS", frame(f.HEADERS, f.PADDED | 4, 1, b"\xff" + answer()), BAD, GONE),
    ClientCase("6.9", "WINDOW_UPDATE of 0", window_update(1, 0), BAD, Resets((Code.PROTOCOL_ERROR,))),
    ClientCase("6.9", "WINDOW_UPDATE of 0 on the connection", window_update(0, 0), BAD, GONE),
    ClientCase("6.9", "WINDOW_UPDATE that is too short", frame(f.WINDOW_UPDATE, 0, 0, bytes(3)), BAD, SIZE),
    ClientCase("6.9.1", "a connection's window that is too large", window_update(0, 2**31 - 1), BAD, FLOW),
    ClientCase("6.10", "CONTINUATION of no HEADERS", continuation(1, answer()), BAD, GONE),
    ClientCase("6.10", "CONTINUATION of another stream",
               headers(1, answer()[:3], more=True) + continuation(3, answer()[3:]), BAD, GONE),
    ClientCase("4.3", "PING within a field block", headers(1, answer()[:3], more=True) + ping(), BAD, GONE),
    ClientCase("4.3", "an unknown type within a field block", headers(1, answer()[:3], more=True) + frame(0xBE, 0, 1),
               BAD, GONE),
    ClientCase("4.2", "DATA that is longer than we take", HEAD + data(1, bytes(f.FRAME_MAX + 1)), Cut(),
               Either(SIZE, Resets((Code.FRAME_SIZE_ERROR,)))),
    ClientCase("4.2", "HEADERS that is longer than we take", headers(1, answer("200", ("a", "b" * f.FRAME_MAX))),
               BAD, SIZE),
    ClientCase("4.3", "fields that cannot be decoded", headers(1, answer() + b"\x80"), BAD, HPACK),
    ClientCase("4.3", "an index beyond the tables", headers(1, answer() + b"\xbe"), BAD, HPACK),
    ClientCase("4.3", "a table that is larger than may be", headers(1, b"\x3f\xe2\x1f" + answer()), BAD, HPACK),
    ClientCase("4.3", "trailers that cannot be decoded", HEAD + data(1, b"h") + headers(1, b"\x80"), Cut(), HPACK),
    ClientCase("10.5.1", "more fields than are taken", headers(1, answer() + b"\0\x01a\x01b" * 300), BAD,
               Resets((Code.PROTOCOL_ERROR, Code.ENHANCE_YOUR_CALM, Code.CANCEL), needed=False)),
    ClientCase("10.5.1", "a field that is longer than is taken", headers(1, answer("200", ("a", "b" * 12_000))), BAD,
               Resets((Code.PROTOCOL_ERROR, Code.ENHANCE_YOUR_CALM, Code.CANCEL), needed=False)),
]  # fmt: skip

CLIENT_CASES: list[ClientCase] = [*GOOD, *HEADS, *BODIES, *CONNECTIONS]
