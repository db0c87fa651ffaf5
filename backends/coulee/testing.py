"""Test a proxy without sockets, event loops or waiting: one client, the origins behind the proxy, and virtual time.

    from coulee.testing import Exchange

    def test_retries_after_reset():
        x = Exchange(proxy).start("GET", "/a", headers={"x-api-key": "s3cret"})
        x.upstream.reset()
        x.advance(seconds=0.1)
        x.upstream.reply(200, body=b"hi")
        assert x.response.status == 200 and x.response.body == b"hi" and x.attempts == 2

Rules:

- Every call returns when all that it causes has happened, short of what waits for a time limit: let time pass with
  `advance`. Nothing else makes time pass.
- Both ends speak through h11, which shares no code with coulee's codecs.
- What is not there yet is an `AssertionError` that says what is: a test need not ask for it first.
- The same test gives the same result, always. `seed` is where the proxy's own random choices come from.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import h11

from coulee.backends.far_end import FarEnd
from coulee.backends.layer import Layer
from coulee.backends.simulated_tls import SimulatedLayer
from coulee.backends.simulator import Simulator
from coulee.backends.weather import Weather
from coulee.core import Access, Event, Headers, Proxy, Request, Response, respond
from coulee.core.client_hello import read_client_hello
from coulee.core.parts import Fields
from coulee.core.proxy_protocol import Header as ProxyHeader
from coulee.core.proxy_protocol import HeaderError, read_header
from coulee.core.seam import (
    Address,
    Certificate,
    DownstreamTls,
    ErrorKind,
    Listener,
    ListenerTls,
    Security,
    UpstreamTls,
    parse_address,
    show_address,
)
from coulee.lb import peer_from_url

__all__ = ["Answer", "Exchange", "Upstream", "UpstreamRequest"]

INSTANT = Weather(latency_s=(0.0, 0.0), connect_s=(0.0, 0.0), job_s=(0.0, 0.0))
"""Bytes, connects and jobs take no time at all."""

_PROXY: Address = ("127.0.0.1", 8000)


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
    """What an origin got, as far as it came."""

    method: str
    target: str
    headers: Headers
    body: bytes = b""
    trailers: Headers = field(default_factory=Headers)
    complete: bool = False


class _World(Simulator):
    """A simulator in which some addresses are down."""

    def __init__(self, seed: int, weather: Weather) -> None:
        super().__init__(seed, weather)
        self.down: dict[Address, None] = {}
        self.security: Security | None = None  # of the client

    def place_of(self, address: Address) -> Any:
        return None if address in self.down else super().place_of(address)

    def layer(self, tls: DownstreamTls | UpstreamTls, place: Address = "") -> Layer:
        if isinstance(tls, UpstreamTls):
            return super().layer(replace(tls, verify=False), place)  # every origin here is who it should be
        if self.security is not None and tls.listener is _LISTENER:
            return _Told(tls, self.security)
        return super().layer(tls)


class _Told(SimulatedLayer):
    """The client's TLS, which came to what the test says."""

    def __init__(self, tls: DownstreamTls, told: Security) -> None:
        super().__init__(tls, lambda: 0.0)
        self._came_to = told

    def receive(self, data: bytes) -> bytes:
        plain = super().receive(data)
        if self.security is not None:
            self.security = self._came_to
        return plain


class _Anybody:
    """A source with a certificate that is as good as any."""

    name = "a test"
    interval_s = inf
    stamp = None
    certificates = (Certificate(b"", b"", ("localhost",), "ecdsa", 0.0, 4e9, "00" * 32, "a test"),)

    def look(self, stamp: object) -> None:
        """There is nothing new."""


_SPOKEN = ("http/1.1",)  # by both ends of a test
_LISTENER = ListenerTls(_Anybody(), alpn=_SPOKEN, covered_only=False)
_ORIGIN = ListenerTls(_Anybody(), alpn=_SPOKEN)


class Exchange:
    """A proxy, one client's connection to it, and every origin that it connects to.

    `proxy` is run as a fresh machine of its own. `origin`, if given, answers every request that goes up:
    `origin=lambda request: respond(200, "hi")`; else the test does so, through `upstream`. `client` is the client's
    address; `security` says that it comes by TLS, and to what that came, with its certificate, and `server_name` what
    it asks for there. `weather` brings delays and faults, see `coulee.backends.weather.Weather`. Origins of `https://`
    are who they should be.
    """

    def __init__(
        self,
        proxy: Proxy,
        *,
        origin: Callable[[Request], Response] | None = None,
        client: str = "10.0.0.9",
        security: Security | None = None,
        server_name: str = "",
        seed: int = 0,
        weather: Weather = INSTANT,
    ) -> None:
        self._world = _World(seed, weather)
        self._world.security = security
        self._server_name = server_name
        self._driver = self._world.run(proxy, [_PROXY if security is None else Listener(_PROXY, _LISTENER)])
        machine = self._driver.machine
        assert isinstance(machine, Proxy)
        self.proxy = machine
        self.upstreams: list[Upstream] = []
        """Every connection that an origin got, in order."""
        self._origin = origin
        self._client_host = client
        self._client: _Client | None = None
        self._before = 0  # attempts at the start of the present request
        self._world.listen(None, self._connected)

    # -- the client

    def start(
        self,
        method: str = "GET",
        target: str = "/",
        *,
        headers: Fields = (),
        body: bytes | None = None,
        more: bool = False,
    ) -> Exchange:
        """Send a request: on the connection of the one before, if that can be used again. Returns this exchange.

        With `more` the body is not complete: go on with `send` and `end`. Without a Content-Length it is then chunked.
        """
        self._before = self.proxy.counters.attempts
        self._connect().ask(method, target, Headers(headers), body or b"", more, body is not None)
        return self.settle()

    def get(self, target: str = "/", *, headers: Fields = ()) -> Answer:
        """Send a GET and give its answer, which must come without waiting."""
        return self.start("GET", target, headers=headers).response

    def post(self, target: str = "/", body: bytes = b"", *, headers: Fields = ()) -> Answer:
        """Send a POST and give its answer, which must come without waiting."""
        return self.start("POST", target, headers=headers, body=body).response

    def send(self, data: bytes) -> Exchange:
        """Send a piece of the request's body."""
        self._connection.send(data)
        return self.settle()

    def end(self, trailers: Fields = ()) -> Exchange:
        """End the request's body."""
        self._connection.end(Headers(trailers))
        return self.settle()

    def send_raw(self, data: bytes) -> Exchange:
        """Send bytes as they are, on a connection of their own if there is none: what no honest client would say."""
        client = self._connect()
        client.said_raw()
        client.write(data)
        return self.settle()

    def _connect(self) -> _Client:
        """The client's connection: a new one where that of before cannot be used again."""
        client = self._client
        if client is None or not client.usable:
            self._client = client = _Client(self)
            if self._world.security is not None:
                client.layer = self._world.layer(UpstreamTls(self._server_name, "", verify=False))
            self._world.connect(_PROXY, client, source=(self._client_host, self._world.free_port()))
        return client

    def leave(self) -> Exchange:
        """The client is gone, with a reset."""
        self._connection.reset()
        return self.settle()

    def half_close(self) -> Exchange:
        """The client closes its sending side."""
        self._connection.write_eof()
        return self.settle()

    @property
    def answered(self) -> bool:
        """Whether the head of the answer is there."""
        return self._client is not None and self._client.answer is not None

    @property
    def response(self) -> Answer:
        """The answer to the last request, whole or so far."""
        client = self._connection
        answer = client.answer
        if answer is None:
            raise AssertionError(f"there is no answer yet: {self._whereabouts()}")
        record = self.record
        if record is not None and record.reason:
            answer.why = f"{record.reason}: {record.detail}" if record.detail else record.reason
        return answer

    @property
    def interims(self) -> list[tuple[int, Headers]]:
        """The 1xx answers so far to the last request."""
        return self._connection.interims

    @property
    def connected(self) -> bool:
        """Whether the client's connection stands."""
        return self._client is not None and self._client.usable

    @property
    def _connection(self) -> _Client:
        assert self._client is not None, "nothing was asked for yet: begin with start() or get()"
        return self._client

    # -- the origins

    @property
    def upstream(self) -> Upstream:
        """The origin's connection that has a request to answer; the last, if there are several."""
        for upstream in reversed(self.upstreams):
            if upstream.pending:
                return upstream
        raise AssertionError(f"no origin has a request to answer: {self._whereabouts()}")

    def down(self, *endpoints: str) -> Exchange:
        """Let these refuse connections from now on: `down("http://127.0.0.1:9000")`."""
        self._world.down.update(dict.fromkeys(map(_address_of, endpoints)))
        return self

    def up(self, *endpoints: str) -> Exchange:
        """Let these accept connections again."""
        for endpoint in endpoints:
            self._world.down.pop(_address_of(endpoint), None)
        return self

    def _connected(self, far: FarEnd) -> FarEnd:
        upstream = Upstream(self, self._origin)
        self.upstreams.append(upstream)
        return upstream

    # -- time, and what was reported

    @property
    def now(self) -> float:
        """Seconds since this exchange was made."""
        return self._world.now

    def advance(self, seconds: float) -> Exchange:
        """Let time pass."""
        self._world.advance(seconds)
        return self.settle()

    def settle(self) -> Exchange:
        """Let everything arrive that is on its way. Every other call does so by itself."""
        self._world.flush()
        self._world.advance(0.0)
        return self

    def drain(self, grace_s: float = 30.0) -> Exchange:
        """Tell the proxy to stop."""
        self._driver.drain(grace_s)
        return self.settle()

    @property
    def attempts(self) -> int:
        """How many times the last request was tried at an origin."""
        return self.proxy.counters.attempts - self._before

    @property
    def records(self) -> list[Access]:
        """The access records so far."""
        return [record for record in self._driver.records if isinstance(record, Access)]

    @property
    def record(self) -> Access | None:
        """The access record of the last request that has ended."""
        records = self.records
        return records[-1] if records else None

    @property
    def events(self) -> list[Event]:
        """What the proxy reported besides: retries, failed filters."""
        return [record for record in self._driver.records if isinstance(record, Event)]

    @property
    def left(self) -> dict[str, int]:
        """What the proxy has open or waiting, by kind."""
        return self.proxy.leftovers

    def _whereabouts(self) -> str:
        """Where the last request is, for whoever looks for it in the wrong place."""
        client = self._client
        if client is None:
            return "nothing was asked for"
        if client.answer is not None and client.answer.complete:
            return f"the client has its answer, {client.answer!r}"
        if client.malformed:
            return f"what the client got is not HTTP: {client.malformed}"
        if not client.usable:
            return f"the client's connection is closed ({client.error or 'in order'})"
        pending = [upstream for upstream in self.upstreams if upstream.pending]
        if pending:
            return f"{show_address(pending[-1].address)} has not answered; use x.upstream.reply(...)"
        return "the proxy waits, in a filter or for a connection; let time pass with x.advance(seconds=...)"


def _address_of(endpoint: str) -> Address:
    return peer_from_url(endpoint).address if "://" in endpoint else parse_address(endpoint)


class _Client(FarEnd):
    """The client's end of its connection."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.exchange = exchange
        self.answer: Answer | None = None
        self.interims: list[tuple[int, Headers]] = []
        self.malformed = ""
        self.error: ErrorKind | None = None
        self.eof = False
        self._conn = h11.Connection(h11.CLIENT)

    @property
    def usable(self) -> bool:
        """Whether another request can be sent here."""
        ended = self._conn.our_state in (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)
        return not (self.is_closed or self.eof or self.malformed or ended)

    def ask(self, method: str, target: str, headers: Headers, body: bytes, more: bool, framed: bool) -> None:
        """Send a request."""
        conn = self._conn
        if conn.our_state is not h11.IDLE:
            assert conn.our_state is conn.their_state is h11.DONE, "the request before is not answered yet"
            conn.start_next_cycle()
        self.answer = None
        self.interims = []
        if "host" not in headers:
            headers = Headers([("Host", "example.com"), *headers])
        if "content-length" not in headers and "transfer-encoding" not in headers:
            if more:
                headers.add("Transfer-Encoding", "chunked")
            elif framed:
                headers.add("Content-Length", str(len(body)))
        self._say(h11.Request(method=method, target=target, headers=headers.raw()))
        if body:
            self.send(body)
        if not more:
            self.end(Headers())

    def said_raw(self) -> None:
        """What h11 did not write, it need not understand: whatever comes is the answer to a GET."""
        self._conn = h11.Connection(h11.CLIENT)
        self._conn.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        self._conn.send(h11.EndOfMessage())
        self.answer = None

    def send(self, data: bytes) -> None:
        """Send a piece of the body."""
        self._say(h11.Data(data=data))

    def end(self, trailers: Headers) -> None:
        """End the body."""
        self._say(h11.EndOfMessage(headers=trailers.raw()))

    def _say(self, event: h11.Event) -> None:
        self.write(self._conn.send(event) or b"")

    def received(self, data: bytes) -> None:
        self.eof = self.eof or not data
        conn = self._conn
        try:
            conn.receive_data(data)
            while True:
                event = conn.next_event()
                if isinstance(event, h11.InformationalResponse):
                    self.interims.append((event.status_code, _headers(event)))
                elif isinstance(event, h11.Response):
                    self.answer = Answer(event.status_code, _headers(event), event.reason.decode("latin-1"))
                elif isinstance(event, h11.Data):
                    assert self.answer is not None
                    self.answer.body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    assert self.answer is not None
                    self.answer.trailers = _headers(event)
                    self.answer.complete = True
                else:
                    break
        except h11.RemoteProtocolError as error:
            if not self.eof:
                self.malformed = str(error)
        if self.eof:
            self.write_eof()

    def closed(self, error: ErrorKind | None) -> None:
        self.error = error


class Upstream(FarEnd):
    """One connection that the proxy made to an origin, played by the test. `address` is what it connected to,
    `requests` what came; `server_name` what it asked for in TLS, and `proxy_header` what it said before in the PROXY
    protocol, if it spoke that."""

    def __init__(self, exchange: Exchange, origin: Callable[[Request], Response] | None) -> None:
        super().__init__()
        self.requests: list[UpstreamRequest] = []
        self.error: ErrorKind | None = None
        self.eof = False
        self._exchange = exchange
        self._origin = origin
        self.server_name = ""
        self.proxy_header: ProxyHeader | None = None
        self._conn = h11.Connection(h11.SERVER)
        self._early: bytes | None = b""  # of what comes before HTTP

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
            self.layer = self._exchange._world.layer(DownstreamTls(_Anybody.certificates, _ORIGIN))
        elif data[:1] in (b"", b"\x16"):
            return
        self._early = None
        super().readable(data)

    @property
    def request(self) -> UpstreamRequest:
        """The last request, whole or so far."""
        assert self.requests, f"no request has come to {show_address(self.address)}"
        return self.requests[-1]

    @property
    def pending(self) -> bool:
        """Whether a request is here that was not answered whole."""
        return bool(self.requests) and not self.is_closed and self._conn.our_state in (h11.SEND_RESPONSE, h11.SEND_BODY)

    # -- answering

    def reply(
        self, status: int = 200, body: bytes | str = b"", *, json: Any = None, headers: Fields = (), close: bool = False
    ) -> Exchange:
        """Answer the request, whole. With `close` the connection ends behind it, and says so."""
        self._reply(respond(status, body, json=json, headers=headers), close)
        return self._exchange.settle()

    def begin(self, status: int = 200, *, headers: Fields = (), length: int | None = None) -> Exchange:
        """Begin an answer, to go on with `send` and `end`; chunked unless it has a length."""
        fields = Headers(headers)
        if length is None:
            fields.add("Transfer-Encoding", "chunked")
        else:
            fields.add("Content-Length", str(length))
        self._say(h11.Response(status_code=status, headers=fields.raw()))
        return self._exchange.settle()

    def send(self, data: bytes) -> Exchange:
        """Send a piece of the answer's body."""
        self._say(h11.Data(data=data))
        return self._exchange.settle()

    def end(self, trailers: Fields = ()) -> Exchange:
        """End the answer."""
        self._say(h11.EndOfMessage(headers=Headers(trailers).raw()))
        self._turn_over()
        return self._exchange.settle()

    def interim(self, status: int, *, headers: Fields = ()) -> Exchange:
        """Send an answer before the answer, such as 103."""
        self._say(h11.InformationalResponse(status_code=status, headers=Headers(headers).raw()))
        return self._exchange.settle()

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
        assert self.pending, f"{show_address(self.address)} has no request to answer: {self._exchange._whereabouts()}"
        fields = response.headers.copy()
        if "content-length" not in fields and response.status not in (204, 304):
            fields.add("Content-Length", str(len(response.data)))
        if close:
            fields.set("Connection", "close")
        self._say(h11.Response(status_code=response.status, headers=fields.raw()))
        if response.data and self.request.method != "HEAD" and response.status not in (204, 304):
            self._say(h11.Data(data=response.data))
        self._say(h11.EndOfMessage())
        self._turn_over()

    def _say(self, event: h11.Event) -> None:
        self.write(self._conn.send(event) or b"")

    def _turn_over(self) -> None:
        conn = self._conn
        if conn.our_state is conn.their_state is h11.DONE:
            conn.start_next_cycle()
        elif conn.our_state is h11.MUST_CLOSE:
            super().close()

    # -- what comes

    def received(self, data: bytes) -> None:
        if not data:
            self.eof = True
            super().close()
            return
        conn = self._conn
        conn.receive_data(data)
        while True:
            event = conn.next_event()
            if isinstance(event, h11.Request):
                method, target = event.method.decode("latin-1"), event.target.decode("latin-1")
                self.requests.append(UpstreamRequest(method, target, _headers(event)))
            elif isinstance(event, h11.Data):
                self.request.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.request.trailers = _headers(event)
                self.request.complete = True
                if self._origin is not None:
                    asked = self.request
                    self._reply(
                        self._origin(Request(asked.method, asked.target, asked.headers, data=asked.body,
                                             length=len(asked.body), authority=asked.headers.get("host") or ""))
                    )  # fmt: skip
                self._turn_over()
            else:
                return

    def closed(self, error: ErrorKind | None) -> None:
        self.error = error


def _headers(event: Any) -> Headers:
    return Headers.from_block(b"".join(b"\r\n%s: %s" % field for field in event.headers.raw_items()))
