"""The two ends of a test: the client, and an origin's connection. What they speak is of `Speech`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from coulee.backends.far_end import FarEnd
from coulee.core import Headers, Request, Response, respond
from coulee.core.client_hello import read_client_hello
from coulee.core.parts import Data, Fields, Interim, Part, Trailers
from coulee.core.proxy_protocol import Header as ProxyHeader
from coulee.core.proxy_protocol import HeaderError, read_header
from coulee.core.seam import ErrorKind, show_address
from coulee.testing.http1 import Http1
from coulee.testing.http2 import PREFACE, Http2
from coulee.testing.speech import Gone, NotHttpError, Speech

if TYPE_CHECKING:
    from coulee.testing.exchange import Exchange


@dataclass(slots=True)
class Answer:
    """What the client got, as far as it came. `complete` tells whether that is all of it; `why` is the reason and
    detail of the access record where something went wrong."""

    status: int
    headers: Headers
    reason: str = ""
    body: bytes = b""
    trailers: Headers = field(default_factory=Headers)
    complete: bool = False
    why: str = ""

    def __repr__(self) -> str:
        why = f" ({self.why})" if self.why else ""
        return f"<Answer {self.status}{why} {self.body[:80]!r}{'' if self.complete else ' so far'}>"


@dataclass(slots=True)
class UpstreamRequest:
    """What an origin got, as far as it came. `version` is what it came in: `(1, 1)` or `(2, 0)`; `upgrade`, what it
    asks to switch to."""

    method: str
    target: str
    headers: Headers
    body: bytes = b""
    trailers: Headers = field(default_factory=Headers)
    complete: bool = False
    version: tuple[int, int] = (1, 1)
    upgrade: str = ""


class Behind(Protocol):
    """Who hears what comes behind an upgrade."""

    def granted(self, line: Line, fields: Headers) -> None:
        """It begins: what to speak on, and the head of the answer."""

    def heard(self, data: bytes) -> None:
        """Bytes, or `b""` for the end of what the other side says."""

    def lost(self, why: str) -> None:
        """The connection is no more, or the stream: in order, or why not."""


class Line:
    """What is no HTTP any more: one end's connection, or a stream of it."""

    def __init__(self, far: Client | Upstream, speech: Speech, stream: int) -> None:
        self._far = far
        self._speech = speech
        self._stream = stream

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._speech.say(self._stream, Data(data))
        self._far.flush()

    def write_eof(self) -> None:
        """Half-close behind them."""
        if self._speech.ends(self._stream):
            self._far.flush()
        else:
            FarEnd.write_eof(self._far)

    def reset(self) -> None:
        """Give it up."""
        if self._speech.gives_up(self._stream):
            self._far.flush()
        else:
            FarEnd.reset(self._far)


class Client(FarEnd):
    """The client's end of its connection."""

    def __init__(self, exchange: Exchange, *, http2: bool) -> None:
        super().__init__()
        self.exchange = exchange
        self.answer: Answer | None = None
        self.interims: list[tuple[int, Headers]] = []
        self.gone = ""  # why there will be no more of the answer, though the connection stands
        self.malformed = ""
        self.error: ErrorKind | None = None
        self.eof = False
        self._speech: Speech = Http2(asks=True) if http2 else Http1(asks=True)
        self._stream = 0
        self._upgrade = ""
        self.behind: Behind | None = None
        self.switched = False

    @property
    def usable(self) -> bool:
        """Whether another request can be sent here."""
        return not (self.is_closed or self.eof or self.malformed or self._speech.spent)

    def ask(self, request: Request) -> None:
        """Send a request."""
        if "host" not in request.headers:
            request.headers = Headers([("Host", "example.com"), *request.headers])
        self._stream = self._speech.ask(request)
        self._upgrade = request.upgrade
        self.switched = False
        self.answer = None
        self.interims = []
        self.gone = ""
        self.flush()

    def say(self, part: Data | Trailers) -> None:
        """Send more of the request."""
        self._speech.say(self._stream, part)
        self.flush()

    def say_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._speech.said_raw()
        self.answer = None
        self.flush()
        self.write(data)

    def flush(self) -> None:
        """Send what there is to send."""
        data = self._speech.taken()
        if data:
            self.write(data)

    def received(self, data: bytes) -> None:
        self.eof = self.eof or not data
        try:
            for _, part in self._speech.hear(data):
                if isinstance(part, Interim):
                    self.interims.append((part.status, part.headers))
                elif isinstance(part, Response):
                    self.answer = Answer(part.status, part.headers, part.reason)
                    self.switched = part.status == 101 or (bool(self._upgrade) and 200 <= part.status <= 299)
                    if self.switched and self.behind is not None:
                        self.behind.granted(Line(self, self._speech, self._stream), part.headers)
                elif isinstance(part, Gone):
                    self.gone = part.why
                    if self.switched and self.behind is not None:
                        self.behind.lost(part.why)
                elif self.switched and self.behind is not None:
                    self.behind.heard(part.data if isinstance(part, Data) else b"")
                elif isinstance(part, Data):
                    assert self.answer is not None
                    self.answer.body += part.data
                elif isinstance(part, Trailers):
                    assert self.answer is not None
                    self.answer.trailers = part.headers
                    self.answer.complete = True
        except NotHttpError as error:
            if not self.eof:
                self.malformed = str(error)
        self.flush()
        if self.eof and not (self.switched and self.behind is not None):
            self.write_eof()

    def closed(self, error: ErrorKind | None) -> None:
        self.error = error
        if self.switched and self.behind is not None:
            self.behind.lost(error or "")


class Upstream(FarEnd):
    """One connection that the proxy made to an origin, played by the test. `address` is what it connected to,
    `requests` what came: answers are to the last of them that was not answered whole. `server_name` is what it asked
    for in TLS, and `proxy_header` what it said before in the PROXY protocol, if it spoke that."""

    def __init__(self, exchange: Exchange, origin: Callable[[Request], Response] | None) -> None:
        super().__init__()
        self.requests: list[UpstreamRequest] = []
        self.error: ErrorKind | None = None
        self.eof = False
        self._exchange = exchange
        self._origin = origin
        self.server_name = ""
        self.proxy_header: ProxyHeader | None = None
        self._speech: Speech | None = None  # until it is known which
        self._first = b""  # what came until then
        self._streams: list[int] = []  # of the requests
        self._early: bytes | None = b""  # of what comes before HTTP
        self.behind: Behind | None = None
        self._behind_at = -1  # of which request

    def readable(self, data: bytes) -> None:
        """See `Owner`. What comes before HTTP is taken as it comes."""
        if self._early is not None and data:
            self._begin(self._early + data)
        else:
            super().readable(data)

    def _begin(self, data: bytes) -> None:
        """Go on once it is known what the connection begins with."""
        self._early = data
        if self.proxy_header is None and data[:1] in (b"P", b"\r"):
            with suppress(HeaderError):  # then it is HTTP
                found = read_header(data)
                if found is None:
                    return
                self.proxy_header, length = found
                self._early = data = data[length:]
        hello = read_client_hello(data) if data[:1] == b"\x16" else None
        if hello is not None:
            self.server_name = hello.server_name
            self.layer = self._exchange._world.layer(self._exchange._origin_tls)
        elif data[:1] in (b"", b"\x16"):
            return
        self._early = None
        super().readable(data)

    @property
    def request(self) -> UpstreamRequest:
        """The last request that was not answered whole, or else the last: as far as it came."""
        assert self.requests, f"no request has come to {show_address(self.address)}"
        return self.requests[self._current]

    @property
    def pending(self) -> bool:
        """Whether a request is here that was not answered whole."""
        return not self.is_closed and any(self._owes(at) for at in range(len(self.requests)))

    @property
    def _current(self) -> int:
        """Which request is to be answered."""
        last = len(self.requests) - 1
        return next((at for at in range(last, -1, -1) if self._owes(at)), last)

    def _owes(self, at: int) -> bool:
        return self._speech is not None and self._speech.owes(self._streams[at])

    # -- answering

    def reply(
        self, status: int = 200, body: bytes | str = b"", *, json: Any = None, headers: Fields = (), close: bool = False
    ) -> Exchange:
        """Answer the request, whole. With `close` the connection ends behind it, and says so."""
        self._reply(respond(status, body, json=json, headers=headers), close)
        return self._exchange.settle()

    def begin(self, status: int = 200, *, headers: Fields = (), length: int | None = None) -> Exchange:
        """Begin an answer, to go on with `send` and `end`; in HTTP/1.1 it is chunked unless it has a length."""
        fields = Headers(headers)
        if length is not None:
            fields.set("Content-Length", str(length))
        return self._say(Response(status, fields, ended=False))

    def send(self, data: bytes) -> Exchange:
        """Send a piece of the answer's body."""
        return self._say(Data(data))

    def end(self, trailers: Fields = ()) -> Exchange:
        """End the answer."""
        return self._say(Trailers(Headers(trailers)))

    def interim(self, status: int, *, headers: Fields = ()) -> Exchange:
        """Send an answer before the answer, such as 103."""
        return self._say(Interim(status, Headers(headers)))

    def _say(self, part: Part) -> Exchange:
        self._tell(part)
        return self._exchange.settle()

    def _tell(self, part: Part) -> None:
        speech = self._speech
        assert speech is not None, f"no request has come to {show_address(self.address)}"
        speech.say(self._streams[self._current], part)
        self.flush()
        if isinstance(part, Response) and part.status == 101:
            for stream, early in speech.granted():
                self._take(stream, early)

    def switch(self, response: Response, behind: Behind) -> None:
        """Grant an upgrade, and say who hears what comes from now on. Time does not go on."""
        assert self._speech is not None
        self.behind, self._behind_at = behind, self._current
        behind.granted(Line(self, self._speech, self._streams[self._current]), response.headers)
        self._tell(response)

    def send_raw(self, data: bytes) -> Exchange:
        """Send bytes as they are: what no honest origin would say."""
        self.write(data)
        return self._exchange.settle()

    def reset(self) -> Exchange:  # type: ignore[override]
        """Reset the connection."""
        super().reset()
        return self._exchange.settle()

    def close(self) -> Exchange:  # type: ignore[override]
        """Close the connection in order, answered or not."""
        super().close()
        return self._exchange.settle()

    def _reply(self, response: Response, close: bool = False) -> None:
        speech = self._speech
        assert self.pending, f"{show_address(self.address)} has no request to answer: {self._exchange._whereabouts()}"
        assert speech is not None
        at = self._current
        fields = response.headers.copy()
        has_body = response.status not in (204, 304)
        if has_body and "content-length" not in fields:
            fields.add("Content-Length", str(len(response.data)))
        if close:
            speech.retire()
        data = response.data if has_body and self.requests[at].method != "HEAD" else b""
        speech.say(self._streams[at], Response(response.status, fields, data=data, ended=True))
        self.flush()

    def flush(self) -> None:
        """Send what there is to send."""
        speech = self._speech
        assert speech is not None
        data = speech.taken()
        if data:
            self.write(data)
        if speech.spent:
            super().close()

    # -- what comes

    def received(self, data: bytes) -> None:
        if not data:
            self.eof = True
            if self.behind is not None and self._speech is not None and self.requests[-1].version == (1, 1):
                self.behind.heard(b"")
            else:
                super().close()
            return
        if self._speech is None:
            self._first = data = self._first + data
            if PREFACE.startswith(data[: len(PREFACE)]) and len(data) < len(PREFACE):
                return  # it may be either
            self._speech = Http2(asks=False) if data.startswith(PREFACE) else Http1(asks=False)
        for stream, part in self._speech.hear(data):
            self._take(stream, part)
        self.flush()

    def _take(self, stream: int, part: Part | Gone) -> None:
        if isinstance(part, Request):
            self._streams.append(stream)
            self.requests.append(UpstreamRequest(part.method, part.target, part.headers, version=part.version,
                                                 upgrade=part.upgrade))  # fmt: skip
            if part.upgrade and part.version == (2, 0):
                self._exchange._asked_to_switch(self)  # it has no end
            return
        at = self._streams.index(stream)
        asked = self.requests[at]
        if self.behind is not None and at == self._behind_at:
            if isinstance(part, Gone):
                self.behind.lost(part.why)
            else:
                self.behind.heard(part.data if isinstance(part, Data) else b"")
            return
        if isinstance(part, Data):
            asked.body += part.data
        elif isinstance(part, Trailers):
            asked.trailers = part.headers
            asked.complete = True
            if asked.upgrade and asked.version == (1, 1):
                self._exchange._asked_to_switch(self)
            if self._origin is not None:
                self._reply(
                    self._origin(Request(asked.method, asked.target, asked.headers, asked.version, data=asked.body,
                                         length=len(asked.body), authority=asked.headers.get("host") or ""))
                )  # fmt: skip

    def closed(self, error: ErrorKind | None) -> None:
        self.error = error
        if self.behind is not None:
            self.behind.lost(error or "")
