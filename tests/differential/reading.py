"""What is read from a stream of bytes, by a codec of ours and by plain h11, told in one form that can be compared.

The judge is `h11.Connection` itself and not `H11Codec`, which shares our grammar file: only code that shares nothing
can disagree with us, so only its agreement means something. What h11 does not do, because it is a proxy's affair, is
worked out here a second time and in another way: the parts of a target in absolute form (by `urllib`), and the length.
The one thing taken from us is which trailers are dropped: that is a choice, and not something to be right about.

A reading is a list of events, with each body joined, because how it was cut is nobody's affair:

    ("interim", status, phrase, fields)                              an answer before the answer
    ("request", method, target, version, authority, length, fields)
    ("answer", status, phrase, version, length, fields)
    ("body", bytes) ("trailers", fields) ("end", reusable)           what follows each of the two
    ("cut", bytes)                                                   a body of which only so much came before a fault
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import h11

from coulee.core.codec import Codec, NeedData, Paused, ProtocolError, Role
from coulee.core.headers import Headers
from coulee.core.http1_grammar import NOT_IN_TRAILERS
from coulee.core.parts import Data, Interim, Part, Request, Response

Fields: TypeAlias = list[tuple[bytes, bytes]]
Event: TypeAlias = tuple[Any, ...]


@dataclass
class Reading:
    """All that was read, and what was said of the fault that ended it, if one did."""

    events: list[Event] = field(default_factory=list)
    fault: str = ""
    status: int = 0
    reason: str = ""
    parts: list[Part] = field(default_factory=list)  # as they came; not compared

    @property
    def refused(self) -> str:
        """What is wrong, for people."""
        return f"{self.status} {self.reason}: {self.fault}"

    def same(self, other: Reading) -> bool:
        """Whether all is the same, to the word."""
        mine = (self.events, self.fault, self.status, self.reason)
        return mine == (other.events, other.fault, other.status, other.reason)


def normal(pairs: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Names in lower case, and the values whose case means nothing too: h11 changes the one, and we the other."""
    lower = [(name.lower(), value) for name, value in pairs]
    return [(name, value.lower() if name in (b"transfer-encoding", b"host") else value) for name, value in lower]


# ---------------------------------------------------------------------------------------------- by a codec of ours

ASKING = Headers({"Host": "a"})


def asking(codec: Codec, method: str) -> None:
    """A client asks before it reads."""
    codec.write(1, Request(method, "/", ASKING.copy()))


def read(
    codec: Codec,
    role: Role,
    pieces: Iterable[bytes],
    *,
    early: bool = False,
    watch: Callable[[Codec, int, int, bool], None] | None = None,
) -> Reading:
    """All that `codec` reads from the pieces and the end behind them. A server answers each request with a 404, behind
    its end or, where `early` is set, behind its head. `watch` is told after each pull, with the bytes fed, the bytes
    of bodies given out, and whether more is needed."""
    reading = Reading()
    body: list[bytes] = []
    fed = given = 0
    for piece in [*pieces, None]:
        if piece is None:
            if role == "client" and reading.events and reading.events[-1][0] == "end":
                reading.events[-1] = ("end", codec.reusable)  # what came behind an answer counts, too
            codec.feed_eof()
        else:
            codec.feed(piece)
            fed += len(piece)
        while True:
            try:
                pulled = codec.next_part()
            except ProtocolError as error:
                if body:
                    reading.events.append(("cut", b"".join(body)))
                reading.fault, reading.status, reading.reason = error.detail, error.status, error.reason
                return reading
            if isinstance(pulled, NeedData | Paused):
                if watch:
                    watch(codec, fed, given, isinstance(pulled, NeedData))
                break
            stream, part = pulled
            reading.parts.append(part)
            if isinstance(part, Request | Response | Data):
                given += len(part.data)
                if part.data:
                    body.append(part.data)
            if watch:
                watch(codec, fed, given, False)
            ended = _tell(reading.events, part, body)
            if role == "server" and (isinstance(part, Request) if early else ended):
                codec.write(stream, Response(404))
            if ended:
                reading.events.append(("end", role == "server" and codec.reusable))
                body.clear()
    return reading


def _tell(events: list[Event], part: Part, body: list[bytes]) -> bool:
    """Put a part among the events; gives whether it ends its message."""
    ended = False
    if isinstance(part, Interim):
        events.append(("interim", part.status, part.reason, normal(part.headers.raw())))
    elif isinstance(part, Request):
        events.append(("request", part.method, part.target, part.version, part.authority, part.length,
                       normal(part.headers.raw())))  # fmt: skip
        ended = part.ended
    elif isinstance(part, Response):
        events.append(("answer", part.status, part.reason, part.version, part.length, normal(part.headers.raw())))
        ended = part.ended
    elif isinstance(part, Data):
        ended = part.ended
    else:
        events.extend([("body", b"".join(body)), ("trailers", normal(part.headers.raw()))])
        return True
    if ended:
        events.append(("body", b"".join(body)))
    return ended


# ------------------------------------------------------------------------------------------------------- by h11


def read_by_h11(role: Role, asked: str, data: bytes) -> Reading:
    """What plain h11 reads from the same bytes and the end behind them, answering as `read` does."""
    conn = h11.Connection(h11.SERVER if role == "server" else h11.CLIENT, max_incomplete_event_size=1 << 20)
    if role == "client":
        conn.send(h11.Request(method=asked, target="/", headers=[("Host", "a")]))
        conn.send(h11.EndOfMessage())
    if data:
        conn.receive_data(data)
    reading = Reading()
    body: list[bytes] = []
    while True:
        try:
            event = conn.next_event()
        except h11.RemoteProtocolError as error:
            if body:
                reading.events.append(("cut", b"".join(body)))
            reading.fault = str(error)
            return reading
        if event is h11.NEED_DATA and not conn.trailing_data[1]:
            conn.receive_data(b"")
        elif isinstance(event, h11.Data):
            body.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            _tell_end(reading.events, event, body)
            behind, closed = conn.trailing_data
            more = _next_cycle(conn) if role == "server" else conn.their_state is h11.DONE and not (behind or closed)
            reading.events.append(("end", more))
            if role == "client" or not more:
                return reading
        elif isinstance(event, h11.InformationalResponse):
            told = ("interim", event.status_code, event.reason.decode("latin-1"), normal(event.headers.raw_items()))
            reading.events.append(told)
        elif isinstance(event, h11.Request):
            reading.events.append(_request(event))
        elif isinstance(event, h11.Response):
            reading.events.append(_answer(event))
        else:
            return reading


def _next_cycle(conn: h11.Connection) -> bool:
    """Answer; gives whether another request may follow."""
    conn.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
    conn.send(h11.EndOfMessage())
    if conn.our_state is not h11.DONE or conn.their_state is not h11.DONE:
        return False
    conn.start_next_cycle()
    return True


def _tell_end(events: list[Event], event: h11.EndOfMessage, body: list[bytes]) -> None:
    events.append(("body", b"".join(body)))
    body.clear()
    trailers = [pair for pair in event.headers.raw_items() if not NOT_IN_TRAILERS.match(b"\r\n%s:" % pair[0])]
    if trailers:
        events.append(("trailers", normal(trailers)))


def _framing(event: h11.Request | h11.Response) -> tuple[int | None, bool]:
    length: int | None = None
    chunked = False
    for name, value in event.headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            chunked = True
    return (None if chunked else length), chunked


def _version(event: h11.Request | h11.Response) -> tuple[int, int]:
    major, minor = event.http_version.split(b".")
    return int(major), int(minor)


def _request(event: h11.Request) -> Event:
    length, chunked = _framing(event)
    fields = normal(event.headers.raw_items())
    hosts = [value for name, value in fields if name == b"host"]
    authority = hosts[0].decode("latin-1") if hosts else ""
    method, target = event.method.decode("latin-1"), event.target.decode("latin-1")
    if not target.startswith("/") and target != "*":
        try:
            cut = urlsplit(target)
        except ValueError:
            cut = urlsplit("")
        authority = cut.netloc
        without = cut.path or ("*" if method == "OPTIONS" and not cut.query else "/")
        target = without + target[len(target.partition("?")[0]) :]
        if hosts:
            fields = [(name, authority.encode("latin-1") if name == b"host" else value) for name, value in fields]
        else:
            fields.append((b"host", authority.encode("latin-1")))
    length = None if chunked else length or 0
    return "request", method, target, _version(event), authority.lower(), length, normal(fields)


def _answer(event: h11.Response) -> Event:
    length, _ = _framing(event)
    if event.status_code == 204:
        length = 0
    fields = normal(event.headers.raw_items())
    return "answer", event.status_code, event.reason.decode("latin-1"), _version(event), length, fields
