"""Scripted HTTP/1.1 clients and origins for the simulator, who speak through h11: no code is shared with our codecs.

Rules:

- What a peer heard, and how it ended, is recorded; judging it is the test's business. Only h11 judges framing:
  `malformed` is what it complained of.
- A script says what is done, in plain data (`Ask`, `Reply`). Whatever is done in time, is done in virtual time.
- Header fields are recorded raw, in order, as `(name, value)` in bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

import h11

from coulee.backends.behind import Behind
from coulee.backends.far_end import FarEnd
from coulee.core.seam import ErrorKind

Fields: TypeAlias = Sequence[tuple[str | bytes, str | bytes]]
RawFields: TypeAlias = list[tuple[bytes, bytes]]

Fault: TypeAlias = Literal[
    "silence", "close", "reset", "reset_head", "reset_body", "truncate", "garbage", "extra", "unasked"
]

UNASKED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi"

_HEAD_BYTES_MAX = 1_048_576  # peers are no proxies: whether a head is too large is for those to say


@dataclass(slots=True)
class Ask:
    """A request to send. `pieces` is its body, sent with `gap_s` between them; without a length in `fields` a body goes
    out chunked. `talk` is what is said behind a 101, with the same pauses, and then an end; or, if it is `hasty`, right
    behind the request. `behind`, if given, goes on there instead."""

    method: str = "GET"
    target: str = "/"
    fields: Fields = (("Host", "example.com"),)
    pieces: Sequence[bytes] = ()
    gap_s: float = 0.0
    version: Literal["1.1", "1.0"] = "1.1"
    talk: Sequence[bytes] = ()
    hasty: bool = False
    behind: Behind | None = None


@dataclass(slots=True)
class Answer:
    """What a client got for a request, as far as it came."""

    ask: Ask
    interims: list[tuple[int, RawFields]] = field(default_factory=list[tuple[int, RawFields]])
    status: int = 0  # 0: no head came
    reason: bytes = b""
    fields: RawFields = field(default_factory=list[tuple[bytes, bytes]])
    body: bytes = b""
    trailers: RawFields = field(default_factory=list[tuple[bytes, bytes]])
    complete: bool = False
    reset: int | None = None  # of HTTP/2: the code by which its stream was given up, by either side
    granted: bool = False  # it is no HTTP any more

    def get(self, name: str) -> str | None:
        """The first value of a header field."""
        return _get(self.fields, name)


@dataclass(slots=True)
class Asked:
    """What an origin was asked, as far as it came."""

    method: str
    target: str
    fields: RawFields
    version: str
    body: bytes = b""
    trailers: RawFields = field(default_factory=list[tuple[bytes, bytes]])
    complete: bool = False

    def get(self, name: str) -> str | None:
        """The first value of a header field."""
        return _get(self.fields, name)


@dataclass(slots=True)
class Reply:
    """How an origin answers.

    `framing`: by `Content-Length`, chunked, or by closing behind the body. `trailers` need chunks. `fault`:
    no answer (`silence`), an end instead of it (`close`, `reset`), a reset behind its head or half way through its
    body, an end half way through (`truncate`), no HTTP (`garbage`), unasked bytes behind it (`extra`), or a 101 that
    nobody asked for (`unasked`).
    `then_close`: closes behind the answer, and says so unless it is `rude`. `echo`: behind a 101 and its `pieces`,
    sends back what it hears, up to its end; `behind` makes who goes on there instead.
    """

    status: int = 200
    fields: Fields = ()
    pieces: Sequence[bytes] = ()
    framing: Literal["length", "chunked", "close"] = "length"
    trailers: Fields = ()
    interims: Sequence[tuple[int, Fields]] = ()
    delay_s: float = 0.0
    gap_s: float = 0.0
    then_close: bool = False
    rude: bool = False
    echo: bool = False
    behind: Callable[[], Behind] | None = None
    fault: Fault | None = None


def _get(fields: RawFields, name: str) -> str | None:
    wanted = name.lower().encode()
    return next((value.decode("latin-1") for key, value in fields if key.lower() == wanted), None)


def _text(value: bytes) -> str:
    return bytes(value).decode("latin-1")


def encoded(fields: Fields) -> RawFields:
    """Fields of a script as they go over the line."""
    return [
        (
            name.encode() if isinstance(name, str) else name,
            value.encode("latin-1") if isinstance(value, str) else value,
        )
        for name, value in fields
    ]


# ---------------------------------------------------------------------------------------------------- client


class H11Client(FarEnd):
    """Sends requests, one after the other or `pipelined`, and records the `answers`.

    `half_close`: sends its end of stream behind the last request. `leave_after_bytes`: resets or closes the connection
    (`leave_by`) when it has received so many. `stay`: does not close when all is answered. `malformed` is what h11 says
    of bytes that are no answer; `error` is how the connection ended, `unasked` what came behind the last answer.
    """

    def __init__(
        self,
        asks: Sequence[Ask],
        *,
        pipelined: bool = False,
        half_close: bool = False,
        leave_after_bytes: int | None = None,
        leave_by: Literal["reset", "close"] = "reset",
        stay: bool = False,
        on_answer: Callable[[Answer], object] | None = None,
    ) -> None:
        super().__init__()
        self.answers: list[Answer] = []  # one for each request begun
        self.malformed = ""
        self.error: ErrorKind | None = None
        self.eof = False  # the proxy has ended its stream
        self.left_early = False
        self.received_bytes = 0
        self.switched = b""  # what came behind a 101, or a 200 to CONNECT
        self.unasked = b""
        self._asks = deque(asks)
        self._pipelined = pipelined
        self._half_close = half_close
        self._leave_after = leave_after_bytes
        self._leave_by = leave_by
        self._stay = stay
        self._on_answer = on_answer
        self._due: deque[tuple[h11.Connection, Answer]] = deque()  # not answered whole
        self._switched = False
        self._behind: Behind | None = None

    def ask(self, ask: Ask) -> None:
        """One more request, when those before it are answered."""
        self._asks.append(ask)
        if self.is_open and (self._pipelined or not self._due):
            self._next()

    def opened(self) -> None:
        super().opened()
        self._next()

    # -- asking

    def _next(self) -> None:
        if self.is_closed or self.eof or self._switched:
            return
        if self._asks:
            self._send(self._asks.popleft())
        elif not self._due and not self._stay:
            self.close()

    def _send(self, ask: Ask) -> None:
        conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES_MAX)
        answer = Answer(ask)
        self.answers.append(answer)
        self._due.append((conn, answer))
        fields = encoded(ask.fields)
        framed = any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in fields)
        if ask.pieces and not framed:
            fields.append((b"Transfer-Encoding", b"chunked"))
        head = conn.send(h11.Request(method=ask.method, target=ask.target, headers=fields))
        assert head is not None
        if ask.version == "1.0":  # which h11 does not speak
            head = head.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)
        self._send_body(conn, ask, 0, head)

    def _send_body(self, conn: h11.Connection, ask: Ask, index: int, before: bytes = b"") -> None:
        """The pieces from `index` on, as far as there is no pause between them, and `before` ahead of them."""
        if self.is_closed or self.eof or conn.our_state is h11.ERROR:
            return
        out = [before]
        while index < len(ask.pieces):
            out.append(conn.send(h11.Data(data=ask.pieces[index])) or b"")
            index += 1
            if ask.gap_s:
                self.write(b"".join(out))
                self.call_later(ask.gap_s, partial(self._send_body, conn, ask, index))
                return
        out.append(conn.send(h11.EndOfMessage()) or b"")
        if ask.hasty:
            out += ask.talk if ask.behind is None else [ask.behind.early]
        self.write(b"".join(out))
        if self._asks and self._pipelined:
            self._send(self._asks.popleft())
        elif not self._asks and self._half_close:
            self.write_eof()
        if self._due and self._due[0][0] is conn:
            self._read(b"")

    # -- listening

    def received(self, data: bytes) -> None:
        super().received(data)
        if not data and self._behind is not None:
            self.eof = True
            self._behind.received(data)
            return
        if not data:
            self._cut_off()
            return
        self.received_bytes += len(data)
        if self._behind is not None:
            self._behind.received(data)
        elif self._switched:
            self.switched += data
        elif self._due:
            self._read(data)
        else:
            self.unasked += data
        if self._leave_after is not None and self.received_bytes >= self._leave_after and not self.is_closed:
            self.left_early = True
            self.reset() if self._leave_by == "reset" else self.close()

    def _read(self, data: bytes) -> None:
        """Hand bytes to the oldest request that is not answered, and what is left of them to the next."""
        while self._due and not self.malformed:
            conn, answer = self._due[0]
            try:
                if data:
                    conn.receive_data(data)
                self._events(conn, answer)
            except h11.RemoteProtocolError as error:
                self.malformed = str(error)
                self.close()
                return
            if conn.their_state is h11.SWITCHED_PROTOCOL:
                self._switched = True
                if answer.ask.behind is not None:
                    self._goes_on(answer.ask, answer.ask.behind, conn.trailing_data[0])
                    return
                self.switched += conn.trailing_data[0]
                if answer.ask.talk:
                    self._talk(answer.ask, len(answer.ask.talk) if answer.ask.hasty else 0)
                return
            if not answer.complete or conn.our_state is h11.SEND_BODY:
                return
            data = conn.trailing_data[0]
            self._due.popleft()
            if not self._pipelined or not self._asks:
                self._after(conn)
        self.unasked += data

    def _goes_on(self, ask: Ask, behind: Behind, data: bytes) -> None:
        self._behind = behind
        self._due[0][1].granted = True
        if not ask.hasty and behind.early:
            self.write(behind.early)
        behind.begin(self)
        if data:
            behind.received(data)

    def _talk(self, ask: Ask, index: int) -> None:
        """What is said behind a 101, from one piece on, and the end of it."""
        while index < len(ask.talk):
            self.write(ask.talk[index])
            index += 1
            if ask.gap_s:
                self.call_later(ask.gap_s, partial(self._talk, ask, index))
                return
        self.write_eof()

    def _after(self, conn: h11.Connection) -> None:
        """One is answered: ask the next, unless the answer says that this was the last."""
        if h11.MUST_CLOSE in (conn.our_state, conn.their_state):
            if not self._stay:
                self.close()
        else:
            self._next()

    def _events(self, conn: h11.Connection, answer: Answer) -> None:
        while not answer.complete:
            event = conn.next_event()
            if isinstance(event, h11.InformationalResponse):
                answer.interims.append((event.status_code, event.headers.raw_items()))
                if conn.their_state is h11.SWITCHED_PROTOCOL:
                    answer.status = event.status_code
                    answer.fields = event.headers.raw_items()
                    self._answered(answer)
            elif isinstance(event, h11.Response):
                answer.status = event.status_code
                answer.reason = bytes(event.reason)
                answer.fields = event.headers.raw_items()
                if conn.their_state is h11.SWITCHED_PROTOCOL:
                    self._answered(answer)
            elif isinstance(event, h11.Data):
                answer.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                answer.trailers = event.headers.raw_items()
                self._answered(answer)
            else:
                return

    def _answered(self, answer: Answer) -> None:
        answer.complete = True
        if self._on_answer is not None:
            self._on_answer(answer)

    def _cut_off(self) -> None:
        """The proxy has ended its stream: that completes an answer which had no other end, and cuts any other."""
        self.eof = True
        if self._due and not self._switched:
            conn, answer = self._due[0]
            try:
                conn.receive_data(b"")
                self._events(conn, answer)
            except h11.RemoteProtocolError:
                pass  # cut short: `complete` says so
        self.close()

    def closed(self, error: ErrorKind | None) -> None:
        self.error = error
        if self._behind is not None:
            self._behind.closed(error)
        super().closed(error)


# ---------------------------------------------------------------------------------------------------- origin


class H11Origin(FarEnd):
    """Answers each request by what `on_request` says of it; None is silence.

    `on_request` is called when a request has come whole, or, where `early` is set, with its head. `idle_s`: closes a
    connection on which nothing was asked for so long. `continues`: answers an `Expect: 100-continue` with 100.
    `asked` has every request that began, `malformed` what h11 says of bytes that are no request.
    """

    def __init__(
        self,
        on_request: Callable[[Asked], Reply | None],
        *,
        early: bool = False,
        idle_s: float | None = None,
        continues: bool = True,
    ) -> None:
        super().__init__()
        self.on_request = on_request
        self.asked: list[Asked] = []
        self.malformed = ""
        self.error: ErrorKind | None = None
        self.eof = False  # the proxy has ended its stream
        self.switched = b""  # what came behind a 101
        self._early = early
        self._idle_s = idle_s
        self._continues = continues
        self._conn = self._fresh()
        self._current: Asked | None = None
        self._reply: Reply | None = None
        self._begun = 0  # requests
        self._answered = False  # the current one, whole
        self._switched = False
        self._behind: Behind | None = None

    def _fresh(self) -> h11.Connection:
        return h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES_MAX)

    def opened(self) -> None:
        super().opened()
        self._wait_idly()

    def _wait_idly(self) -> None:
        begun = self._begun

        def close() -> None:
            if self._begun == begun:
                self.close()

        if self._idle_s is not None:
            self.call_later(self._idle_s, close)

    # -- listening

    def received(self, data: bytes) -> None:
        super().received(data)
        if not data:
            self.eof = True
            if self._behind is not None:
                self._behind.received(data)
            elif self._current is None or not self._current.complete:
                self.close()  # nothing, or half a request: there is nobody to answer
            elif self._switched and self._reply is not None and self._reply.echo:
                self.write_eof()
        elif self._switched:
            self._hear(data)
        elif not self.malformed:
            self._read(data)

    def _read(self, data: bytes) -> None:
        try:
            if data:
                self._conn.receive_data(data)
            while self._event():
                pass
        except h11.RemoteProtocolError as error:
            self.malformed = str(error)
            self.close()

    def _event(self) -> bool:
        """One event of h11's; False where there is none."""
        event = self._conn.next_event()
        if isinstance(event, h11.Request):
            method, target, version = (_text(x) for x in (event.method, event.target, event.http_version))
            self._current = Asked(method, target, event.headers.raw_items(), version)
            self.asked.append(self._current)
            self._begun += 1
            self._answered = False
            self._reply = None
            if self._early:
                self._decide()
            elif self._continues and self._conn.they_are_waiting_for_100_continue:
                self._say(h11.InformationalResponse(status_code=100, headers=[]))
        elif isinstance(event, h11.Data):
            assert self._current is not None
            self._current.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert self._current is not None
            self._current.trailers = event.headers.raw_items()
            self._current.complete = True
            if not self._early:
                self._decide()
            self._turn_over()
        else:
            return False
        return True

    def _turn_over(self) -> None:
        """On to the next request, when this one has come whole and is answered whole."""
        if not (self._current is not None and self._current.complete and self._answered) or self.is_closed:
            return
        assert self._reply is not None
        if (
            self._reply.then_close
            or self._reply.framing == "close"
            or h11.MUST_CLOSE
            in (
                self._conn.our_state,
                self._conn.their_state,
            )
        ):
            self.close()
            return
        if self._switched:
            return
        rest = self._conn.trailing_data[0]
        self._conn = self._fresh()
        self._current = None
        if self.eof and not rest:
            self.close()
            return
        self._wait_idly()
        if rest:
            self._read(rest)

    # -- answering

    def _decide(self) -> None:
        assert self._current is not None
        self._reply = reply = self.on_request(self._current)
        if reply is None or reply.fault == "silence":
            return
        if reply.delay_s:
            self.call_later(reply.delay_s, self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        """The head of the answer, or what happens instead."""
        reply, asked = self._reply, self._current
        if self.is_closed or reply is None or asked is None:
            return
        if reply.fault == "reset":
            self.reset()
        elif reply.fault == "close":
            self.close()
        elif reply.fault == "unasked":
            self.write(UNASKED)
        elif reply.fault == "garbage":
            self.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            self.close()
        else:
            for status, fields in reply.interims:
                self._say(h11.InformationalResponse(status_code=status, headers=encoded(fields)))
            if reply.status == 101:
                self._switched = self._answered = True
                switch = h11.InformationalResponse(status_code=101, headers=encoded(reply.fields))
                if reply.behind is not None:
                    self._go_on(reply.behind(), self._conn.send(switch) or b"")
                    return
                self._say(switch)
                for piece in reply.pieces:
                    self.write(piece)
                self._hear(self._conn.trailing_data[0])
                if reply.fault == "reset_body":
                    self.call_later(0.001, self.reset)
                return
            self._send_head(reply, asked)

    def _go_on(self, behind: Behind, head: bytes) -> None:
        self._behind = behind
        self.write(head + behind.early)
        behind.begin(self)
        early = self._conn.trailing_data[0]
        if early:
            behind.received(early)
        if self.eof:
            behind.received(b"")

    def _hear(self, data: bytes) -> None:
        """Bytes behind a 101."""
        if self._behind is not None:
            self._behind.received(data)
            return
        self.switched += data
        if data and self._reply is not None and self._reply.echo:
            self.write(data)

    def _send_head(self, reply: Reply, asked: Asked) -> None:
        bodiless = asked.method == "HEAD" or reply.status in (204, 304)
        pieces = [] if bodiless else [piece for piece in reply.pieces if piece]
        fields = encoded(reply.fields)
        writer = self._conn
        if reply.framing == "length" and reply.status not in (204, 304):
            fields.append((b"Content-Length", b"%d" % sum(map(len, reply.pieces))))
        elif reply.framing == "chunked" and not bodiless:
            fields.append((b"Transfer-Encoding", b"chunked"))
        elif reply.framing == "close" and not bodiless:
            writer = _for_http10()
        if (reply.then_close or reply.framing == "close") and not reply.rude:
            fields.append((b"Connection", b"close"))
        head = writer.send(h11.Response(status_code=reply.status, headers=fields))
        assert head is not None
        if reply.fault == "reset_head":
            self.write(head)
            self.call_later(0.001, self.reset)
            return
        if reply.fault in ("reset_body", "truncate"):
            body = b"".join(pieces)
            pieces = [body[: len(body) // 2]]
        self._send_body(writer, deque(piece for piece in pieces if piece), head)

    def _send_body(self, writer: h11.Connection, pieces: deque[bytes], before: bytes = b"") -> None:
        """The pieces, as far as there is no pause between them, and `before` ahead of them."""
        reply = self._reply
        if self.is_closed or reply is None:
            return
        out = [before]
        while pieces:
            if reply.gap_s and any(out):
                self.write(b"".join(out))
                self.call_later(reply.gap_s, partial(self._send_body, writer, pieces))
                return
            out.append(writer.send(h11.Data(data=pieces.popleft())) or b"")
        if reply.fault == "reset_body":
            self.write(b"".join(out))
            self.call_later(0.001, self.reset)
            return
        if reply.fault == "truncate":
            self.write(b"".join(out))
            self.close()
            return
        out.append(writer.send(h11.EndOfMessage(headers=encoded(reply.trailers))) or b"")
        if reply.fault == "extra":
            out.append(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked")
        self.write(b"".join(out))
        self._answered = True
        self._turn_over()

    def _say(self, event: h11.InformationalResponse) -> None:
        said = self._conn.send(event)
        assert said is not None
        self.write(said)

    def closed(self, error: ErrorKind | None) -> None:
        self.error = error
        if self._behind is not None:
            self._behind.closed(error)
        super().closed(error)


def _for_http10() -> h11.Connection:
    """A writer that ends its body by closing, which h11 does only for who asks in HTTP/1.0."""
    conn = h11.Connection(h11.SERVER)
    conn.receive_data(b"GET / HTTP/1.0\r\n\r\n")
    conn.next_event()  # the request
    conn.next_event()  # and its end
    return conn
