"""Scripted clients and origins for the simulator that speak HTTP/2, and HTTP/1.1 with who does not.

They are told what to do, and tell what they heard, as those of `peers.py`. Rules:

- A client speaks HTTP/2 where TLS has agreed on it, or where there is no TLS. An origin, with who begins with its
  preface.
- What an origin says that it has not looked at, it has not: it is in `refused`, and not in `asked`.
- What is done beyond the script (`take_back`, `flood` and the like) is done to who speaks HTTP/2 and is still there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, TypeAlias

from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    PingReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from coulee.backends.behind import Behind
from coulee.backends.far_end import FarEnd
from coulee.backends.http2_line import StreamLine
from coulee.backends.http2_speech import (
    BROKEN,
    CANCEL,
    ENDLESS,
    HTTP_1_1_REQUIRED,
    NO_ERROR,
    PREFACE,
    REFUSED_STREAM,
    Manners,
    Speech,
    Unreadable,
    frame,
)
from coulee.backends.peers import Answer, Ask, Asked, H11Client, H11Origin, RawFields, Reply, encoded
from coulee.core.seam import ErrorKind

Whim: TypeAlias = Literal["refuse", "http1", "goaway", "goaway_all", "bad_head", "early_end"]
"""What an origin does to a request besides its script: it refuses it, or wants HTTP/1.1 for it; it goes, and takes
nothing from this one on, or goes and takes what comes yet; it answers with a head that none may have; or it answers,
and says that it wants no more of the request."""

GRACE_S: Final = 0.1
"""How long an origin that goes stays for what is on its way."""

BAD_HEADS: Final = (
    [(b":status", b"200"), (b"X-Upper", b"1")],
    [(b"x-none", b"1")],
    [(b":status", b"99")],
    [(b":status", b"200"), (b"connection", b"close")],
    [(b":status", b"200"), (b"x-a", b"a\r\nb: c")],
    [(b":status", b"200"), (b":path", b"/")],
)
"""Answers that are none (RFC 9113 section 8.2.1)."""

_RESETS: Final = (CANCEL, NO_ERROR, 0x2, 0x1, 0xB)


def _speaks_http2(far: FarEnd) -> bool:
    layer = far.layer
    return layer is None or (layer.security is not None and layer.security.alpn == "h2")


def _plain(fields: Sequence[tuple[Any, Any]]) -> RawFields:
    """Without those that begin with a colon."""
    return [(bytes(name), bytes(value)) for name, value in fields if bytes(name)[:1] != b":"]


class H2Client(H11Client):
    """Sends its requests by HTTP/2, `at_once` of them at a time, and records the `answers`.

    `lies`: where a request has a Content-Length, its body is shorter or longer. `oddities` has the answers to what was
    asked besides the script.
    """

    def __init__(
        self,
        asks: Sequence[Ask],
        *,
        manners: Manners | None = None,
        at_once: int = 1,
        lies: Literal["", "less", "more"] = "",
        **of_http1: Any,
    ) -> None:
        super().__init__(asks, **of_http1)
        self.oddities: list[Answer] = []
        self.speech: Speech | None = None
        self.told_to_go = False
        self.told_off = False  # with an error
        self.taken_back: dict[str, float] = {}  # when which target was
        self.hanging: list[str] = []  # of whose answers nothing was told when the connection ended in order
        self._manners = manners or Manners()
        self._at_once = at_once
        self._lies = lies
        self._streams: dict[int, Answer] = {}  # that are not over
        self._lines: dict[int, StreamLine] = {}  # those of them that are no HTTP any more
        self._said_all = False  # its side is ended
        self._gaps = 0  # bodies that wait for their next piece

    def opened(self) -> None:
        if not _speaks_http2(self):
            super().opened()
            return
        self.speech = Speech(self, self._manners, client=True, hear=self._hear, hear_goaway=self._hear_goaway)
        self.speech.begin()
        FarEnd.opened(self)
        self._next()

    # -- asking

    def _next(self) -> None:
        speech = self.speech
        if speech is None:
            super()._next()
            return
        while self._asks and not self.told_to_go and not self.is_closed and not self.eof:
            if len(self._streams) >= self._at_once or speech.room <= 0:
                return
            if self._asks[0].behind is not None and not speech.may_connect:
                return  # its settings are on their way
            self._begin(speech, self._asks.popleft())
        if self._streams or self._gaps or speech.busy or self._stay or self.is_closed:
            return
        speech.goaway(0)
        self.close()

    def _begin(self, speech: Speech, ask: Ask) -> None:
        stream = speech.conn.get_next_available_stream_id()
        answer = self._streams[stream] = Answer(ask)
        self.answers.append(answer)
        fields = encoded(ask.fields)
        if ask.behind is not None:
            fields = [field for field in fields if field[0].lower() not in _OF_HTTP1]
        authority = next(value for name, value in fields if name.lower() == b"host")
        scheme = b"https" if self.layer is not None else b"http"
        head = [(b":method", ask.method.encode()), (b":scheme", scheme), (b":path", ask.target.encode()),
                (b":authority", authority)]  # fmt: skip
        head += [(name.lower(), value) for name, value in fields if name.lower() != b"host"]
        speech.listen(stream)
        if ask.behind is not None:
            head = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *head[1:]]
            speech.head(stream, head, ended=False)
            if ask.hasty and ask.behind.early:
                speech.body(stream, ask.behind.early)
            return
        pieces = list(ask.pieces)
        if pieces and self._lies and any(name == b"content-length" for name, _ in head):
            pieces = pieces[:-1] + ([pieces[-1] + b"more"] if self._lies == "more" else [pieces[-1][:-1]])
        speech.head(stream, head, ended=not pieces)
        if pieces:
            self._send_pieces(speech, stream, pieces, ask.gap_s)

    def _send_pieces(self, speech: Speech, stream: int, pieces: list[bytes], gap_s: float) -> None:
        while pieces:
            if stream not in self._streams:
                return
            speech.body(stream, pieces.pop(0))
            if gap_s:
                self._gaps += 1
                self.call_later(gap_s, partial(self._after_gap, speech, stream, pieces, gap_s))
                return
        if stream in self._streams:
            speech.end(stream, sent=partial(self._sent, stream))

    def _after_gap(self, speech: Speech, stream: int, pieces: list[bytes], gap_s: float) -> None:
        self._gaps -= 1
        self._send_pieces(speech, stream, pieces, gap_s)
        self._next()

    def _sent(self, stream: int) -> None:
        answer = self._streams.get(stream)
        if answer is not None and answer.complete:
            del self._streams[stream]
            self._next()
        if not self._asks and self._half_close and not self._gaps and self.speech is not None and not self.speech.busy:
            self._said_all = True
            self.write_eof()

    # -- what it does besides

    @property
    def _present(self) -> Speech | None:
        return None if self.is_closed or self.malformed or self.eof or self._said_all else self.speech

    def take_back(self, code: int = CANCEL) -> None:
        """Reset the oldest stream that is not over."""
        speech = self._present
        if speech is not None and self._streams:
            stream, answer = next(iter(self._streams.items()))
            assert self.network is not None
            answer.reset = code
            self.taken_back[answer.ask.target] = self.network.now
            del self._streams[stream]
            speech.reset(stream, code)
            if stream in self._lines:
                self._lines.pop(stream).lost(None)
            self._next()

    def leave(self, code: int = NO_ERROR) -> None:
        """Say that there will be no more, and wait for what is under way."""
        speech = self._present
        if speech is not None:
            speech.goaway(0, code)
            self._asks.clear()
            self._next()

    def say(self, data: bytes) -> None:
        """Bytes as they are."""
        speech = self._present
        if speech is not None:
            speech.raw(data)

    def flood(self, kind: Literal["pings", "settings", "resets", "empty"], count: int) -> None:
        """Much of what costs nothing. What is taken back was asked for `/flood`."""
        speech = self._present
        if speech is None:
            return
        if kind == "resets":
            for _ in range(count):
                if speech.room > 0 and not self.told_to_go:
                    stream = self.ask_oddly([(b":method", b"GET"), (b":scheme", self._scheme), (b":path", b"/flood"),
                                             (b":authority", b"example.com")])  # fmt: skip
                    self._streams.pop(stream)
                    speech.reset(stream, CANCEL)
            self._next()
        elif kind == "settings" and speech.settled:
            speech.raw(frame(0x4, 0, 0, b"") * count)
        elif kind != "empty":
            speech.raw(frame(0x6, 0, 0, b"are you?") * count)
        else:
            speech.raw(frame(0x2, 0, 1, bytes(5)) * count)

    @property
    def _scheme(self) -> bytes:
        return b"https" if self.layer is not None else b"http"

    def ask_oddly(self, fields: Sequence[tuple[bytes, bytes]]) -> int:
        """A head as it is; the number of its stream, or 0 where it could not be sent."""
        speech = self._present
        if speech is None or speech.room <= 0 or self.told_to_go:
            return 0
        stream = speech.conn.get_next_available_stream_id()
        answer = self._streams[stream] = Answer(Ask("GET", "/flood"))
        self.oddities.append(answer)
        speech.listen(stream)
        speech.head(stream, fields, ended=True, odd=True)
        return stream

    # -- listening

    def received(self, data: bytes) -> None:
        speech = self.speech
        if speech is None:
            super().received(data)
            return
        FarEnd.received(self, data)
        if not data:
            self.eof = True
            if not self.told_off:
                self.hanging = [answer.ask.target for answer in self._streams.values() if not answer.complete]
            self.close()
            return
        before = self.received_bytes
        self.received_bytes += len(data)
        if not before and data[:1] == b"H":  # an answer in HTTP/1.1 to who was not let in
            self.close()
        elif not self.malformed:
            try:
                speech.receive(data)
            except Unreadable as error:
                self.malformed = str(error)
                self.close()
        if self._leave_after is not None and self.received_bytes >= self._leave_after and not self.is_closed:
            self.left_early = True
            self.reset() if self._leave_by == "reset" else self.close()

    def _hear_goaway(self, last: int, code: int) -> None:
        self.told_to_go = True
        self.told_off = self.told_off or code != NO_ERROR
        for stream in [stream for stream in self._streams if stream > last]:
            self._streams.pop(stream).reset = REFUSED_STREAM
            if self.speech is not None:
                self.speech.forget(stream)
        self._next()

    def _hear(self, event: Event) -> None:
        stream: int | None = getattr(event, "stream_id", None)
        if isinstance(event, RemoteSettingsChanged):
            self._next()
        if isinstance(event, StreamReset):
            answer = self._streams.pop(event.stream_id, None)
            if answer is None:
                return
            answer.reset = int(event.error_code or 0)
            line = self._lines.pop(event.stream_id, None)
            if line is not None:
                line.lost("reset")
            self._next()
            return
        if stream is None or stream not in self._streams:
            return
        answer = self._streams[stream]
        if stream in self._lines:
            if isinstance(event, DataReceived | StreamEnded):
                self._lines[stream].hear(event.data if isinstance(event, DataReceived) else b"")
        else:
            self._hear_answer(event, stream, answer)

    def _hear_answer(self, event: Event, stream: int, answer: Answer) -> None:
        if isinstance(event, InformationalResponseReceived):
            fields = event.headers
            answer.interims.append((_status(fields), _plain(fields)))
        elif isinstance(event, ResponseReceived):
            answer.status = _status(event.headers)
            answer.fields = _plain(event.headers)
            if answer.ask.behind is not None and 200 <= answer.status <= 299:
                self._grant(stream, answer, answer.ask.behind)
        elif isinstance(event, DataReceived):
            answer.body += event.data
        elif isinstance(event, TrailersReceived):
            answer.trailers = _plain(event.headers)
        elif isinstance(event, StreamEnded):
            self._answered(answer)
            if answer.ask.behind is not None and self.speech is not None:
                self.speech.end(stream)  # it was refused, and there is nothing to say
            if self.speech is not None and self.speech.is_said(stream):
                del self._streams[stream]
            self._next()

    def _grant(self, stream: int, answer: Answer, behind: Behind) -> None:
        speech = self.speech
        assert speech is not None
        answer.granted = True
        self._answered(answer)
        line = self._lines[stream] = StreamLine(self, speech, stream, behind, partial(self._line_over, stream))
        if not answer.ask.hasty and behind.early:
            line.write(behind.early)
        behind.begin(line)

    def _line_over(self, stream: int) -> None:
        self._lines.pop(stream, None)
        self._streams.pop(stream, None)
        self._next()

    def closed(self, error: ErrorKind | None) -> None:
        for line in list(self._lines.values()):
            line.lost(error)
        super().closed(error)


_OF_HTTP1: Final = (b"connection", b"upgrade", b"sec-websocket-key", b"sec-websocket-accept")
"""What an extended CONNECT and its answer do without (RFC 8441 section 5)."""


def _status(fields: Sequence[tuple[Any, Any]]) -> int:
    return next(int(bytes(value)) for name, value in fields if bytes(name) == b":status")


@dataclass(slots=True)
class _Served:
    """A request that is not answered whole."""

    asked: Asked
    whim: Whim | None
    reply: Reply | None = None
    decided: bool = False
    answered: bool = False
    line: StreamLine | None = None


class H2Origin(H11Origin):
    """Answers in HTTP/2 who speaks it. `on_head` says of each request whether it has a whim; `refused` has those that
    it has not looked at."""

    def __init__(
        self,
        on_request: Callable[[Asked], Reply | None],
        *,
        manners: Manners | None = None,
        on_head: Callable[[Asked], Whim | None] = lambda _: None,
        **of_http1: Any,
    ) -> None:
        super().__init__(on_request, **of_http1)
        self.on_head = on_head
        self.refused: list[Asked] = []
        self.speech: Speech | None = None
        self._manners = manners or Manners()
        self._first = b""
        self._decided = False  # which version it is
        self._served: dict[int, _Served] = {}
        self.hanging: list[str] = []  # what it works on, and was told nothing of when the proxy ended the connection
        self._was_told_off = False
        self._was_asked = False  # by a PING, whether it is there
        self._above = ENDLESS  # streams that are not taken any more
        self._goes = False

    # -- listening

    def received(self, data: bytes) -> None:
        if not self._decided:
            self._first += data
            first = self._first[: len(PREFACE)]
            if data and PREFACE.startswith(first) and len(first) < len(PREFACE):
                return
            self._decided = True
            if first == PREFACE:
                speech = Speech(self, self._manners, client=False, hear=self._happened, hear_goaway=self._hear_goaway)
                self.speech = speech
                speech.begin()
            elif self._first and not data:
                super().received(self._first)
            data = self._first if data else b""
        if self.speech is None:
            super().received(data)
            return
        FarEnd.received(self, data)
        if not data:
            self.eof = True
            if not (self._was_asked or self._goes or self._was_told_off):
                self.hanging = [served.asked.target for served in self._served.values() if not served.answered]
            self.close()
        elif not self.malformed:
            try:
                self.speech.receive(data)
            except Unreadable as error:
                self.malformed = str(error)
                self.close()

    def _hear_goaway(self, last: int, code: int) -> None:
        self._was_told_off = self._was_told_off or code != NO_ERROR

    def _happened(self, event: Event) -> None:
        self._was_asked = self._was_asked or isinstance(event, PingReceived)
        if isinstance(event, RequestReceived):
            self._request(event.stream_id, event.headers, event.stream_ended is not None)
            return
        stream: int | None = getattr(event, "stream_id", None)
        if stream is None or stream not in self._served:
            return
        served = self._served[stream]
        if isinstance(event, StreamReset):
            del self._served[stream]
            if served.line is not None:
                served.line.lost("reset")
            self._one_less()
        elif served.line is not None:
            if isinstance(event, DataReceived | StreamEnded):
                served.line.hear(event.data if isinstance(event, DataReceived) else b"")
        elif isinstance(event, DataReceived):
            served.asked.body += event.data
        elif isinstance(event, TrailersReceived):
            served.asked.trailers = _plain(event.headers)
        elif isinstance(event, StreamEnded):
            served.asked.complete = True
            if served.answered:
                del self._served[stream]
                self._one_less()
            elif not served.decided:
                self._resolve(stream, served)

    def _request(self, stream: int, fields: Sequence[tuple[Any, Any]], ended: bool) -> None:
        speech = self.speech
        assert speech is not None
        of = {bytes(name): bytes(value).decode("latin-1") for name, value in fields}
        asked = Asked(of[b":method"], of[b":path"], [(b"host", of.get(b":authority", "").encode()), *_plain(fields)],
                      "2", complete=ended)  # fmt: skip
        speech.listen(stream)
        if stream > self._above:
            self.refused.append(asked)
            return
        self._begun += 1
        whim = self.on_head(asked)
        if whim in ("refuse", "http1"):
            self.refused.append(asked)
            speech.reset(stream, REFUSED_STREAM if whim == "refuse" else HTTP_1_1_REQUIRED)
            return
        if whim == "goaway":
            self.refused.append(asked)
            self._above = max(0, stream - 2)
            self._go(self._above)
            return
        if whim == "goaway_all":
            self._go(ENDLESS)
        self.asked.append(asked)
        served = self._served[stream] = _Served(asked, whim)
        if self._early or whim == "early_end" or b":protocol" in of:
            self._resolve(stream, served)
        elif self._continues and asked.get("expect") == "100-continue":
            speech.head(stream, [(b":status", b"100")], ended=False)

    # -- answering

    def _resolve(self, stream: int, served: _Served) -> None:
        served.decided = True
        served.reply = reply = self.on_request(served.asked)
        if reply is None or reply.fault == "silence":
            return
        if reply.delay_s:
            self.call_later(reply.delay_s, partial(self._reply_to, stream))
        else:
            self._reply_to(stream)

    def _reply_to(self, stream: int) -> None:
        speech, served = self.speech, self._served.get(stream)
        if self.is_closed or served is None or speech is None:
            return
        reply, asked = served.reply, served.asked
        assert reply is not None
        if reply.fault == "reset":
            self.reset()
        elif reply.fault == "close":
            self.close()
        elif reply.fault == "garbage":
            speech.raw(BROKEN[stream // 2 % len(BROKEN)])
        elif reply.fault == "unasked":
            speech.head(stream, [(b":status", b"101")], ended=False, odd=True)
        elif served.whim == "bad_head":
            speech.head(stream, BAD_HEADS[stream // 2 % len(BAD_HEADS)], ended=False, odd=True)
        else:
            for status, fields in reply.interims:
                speech.head(stream, [(b":status", b"%d" % status), *_lower(fields)], ended=False)
            if reply.status == 101 and reply.behind is not None:
                self._grant(speech, stream, served, reply)
            else:
                self._say_answer(speech, stream, reply, asked)

    def _grant(self, speech: Speech, stream: int, served: _Served, reply: Reply) -> None:
        assert reply.behind is not None
        behind = reply.behind()
        served.answered = True
        fields = [field for field in _lower(reply.fields) if field[0] not in _OF_HTTP1]
        speech.head(stream, [(b":status", b"200"), *fields], ended=False)
        served.line = line = StreamLine(self, speech, stream, behind, partial(self._line_over, stream))
        if behind.early:
            line.write(behind.early)
        behind.begin(line)
        if served.asked.body:
            line.hear(served.asked.body)
        if served.asked.complete:
            line.hear(b"")

    def _line_over(self, stream: int) -> None:
        self._served.pop(stream, None)
        self._one_less()

    def closed(self, error: ErrorKind | None) -> None:
        for served in list(self._served.values()):
            if served.line is not None:
                served.line.lost(error)
        super().closed(error)

    def _say_answer(self, speech: Speech, stream: int, reply: Reply, asked: Asked) -> None:
        bodiless = asked.method == "HEAD" or reply.status in (204, 304)
        pieces = [] if bodiless else [piece for piece in reply.pieces if piece]
        fields = [(b":status", b"%d" % reply.status), *_lower(reply.fields)]
        if reply.framing == "length" and reply.status not in (204, 304):
            fields.append((b"content-length", b"%d" % sum(map(len, reply.pieces))))
        if reply.fault == "extra":
            pieces.append(b"unasked")
        if reply.fault in ("reset_body", "truncate"):
            body = b"".join(pieces)
            pieces = [body[: len(body) // 2]]
        ends = not pieces and not reply.trailers and reply.fault not in ("reset_head", "reset_body", "truncate")
        speech.head(stream, fields, ended=ends)
        if reply.fault == "reset_head":
            self.call_later(0.001, partial(self._give_up, stream))
        elif ends:
            self._is_answered(stream)
        else:
            self._say_pieces(speech, stream, pieces)

    def _say_pieces(self, speech: Speech, stream: int, pieces: list[bytes]) -> None:
        served = self._served.get(stream)
        if self.is_closed or served is None or served.reply is None:
            return
        reply = served.reply
        while pieces:
            speech.body(stream, pieces.pop(0))
            if reply.gap_s and pieces:
                self.call_later(reply.gap_s, partial(self._say_pieces, speech, stream, pieces))
                return
        if reply.fault == "reset_body":
            self.call_later(0.001, partial(self._give_up, stream))
        elif reply.fault == "truncate" and reply.framing != "length":
            self.close()  # without a length it is cut by the end of the connection alone
        else:
            speech.end(stream, _lower(reply.trailers), partial(self._is_answered, stream))

    def _give_up(self, stream: int) -> None:
        if self._served.pop(stream, None) is not None and not self.is_closed and self.speech is not None:
            self.speech.reset(stream, _RESETS[stream // 2 % len(_RESETS)])
            self._one_less()

    def _is_answered(self, stream: int) -> None:
        served = self._served.pop(stream, None)
        if served is None or served.reply is None or self.speech is None:
            return
        if not served.asked.complete and (served.whim == "early_end" or served.reply.rude):
            self.speech.reset(stream, NO_ERROR)  # section 8.1
        elif not served.asked.complete:
            served.answered = True
            self._served[stream] = served  # the rest of its request may still come
        if served.reply.then_close:
            if served.reply.rude:
                self.close()
            else:
                self._go(ENDLESS)
        self._one_less()

    # -- going

    def _go(self, last: int) -> None:
        if self.speech is not None:
            self._goes = True
            self.speech.goaway(last)
            self._one_less()

    def _one_less(self) -> None:
        """When nothing is under way any more, and it wants to go or has waited long enough, it goes."""
        if self._goes:
            self.call_later(GRACE_S, self._go_if_done)
        elif not self._served:
            self._wait_idly()

    def _go_if_done(self) -> None:
        if not self._served and not self.is_closed:
            self.close()


def _lower(fields: Any) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in encoded(fields)]
