"""The exchange that a test plays: the client, the origins and the clock, around a proxy in a simulated world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any, Self

from coulee.backends.far_end import FarEnd
from coulee.backends.layer import Layer
from coulee.backends.simulated_tls import SimulatedLayer
from coulee.backends.simulator import Simulator
from coulee.backends.weather import Weather
from coulee.core import Access, Event, Headers, Proxy, Request, Response
from coulee.core.parts import Data, Fields, Trailers
from coulee.core.seam import (
    Address,
    Certificate,
    DownstreamTls,
    Listener,
    ListenerTls,
    Security,
    UpstreamTls,
    parse_address,
    show_address,
)
from coulee.lb import peer_from_url
from coulee.testing.ends import Answer, Client, Upstream

INSTANT = Weather(latency_s=(0.0, 0.0), connect_s=(0.0, 0.0), job_s=(0.0, 0.0))
"""Bytes, connects and jobs take no time at all."""

_PROXY: Address = ("127.0.0.1", 8000)


class _World(Simulator):
    """A simulator in which some addresses are down."""

    def __init__(self, seed: int, weather: Weather) -> None:
        super().__init__(seed, weather)
        self.down: dict[Address, None] = {}
        self.door: ListenerTls | None = None
        self.security: Security | None = None  # of the client that comes there

    def place_of(self, address: Address) -> Any:
        return None if address in self.down else super().place_of(address)

    def layer(self, tls: DownstreamTls | UpstreamTls, place: Address = "") -> Layer:
        if isinstance(tls, UpstreamTls):
            return super().layer(replace(tls, verify=False), place)  # every origin here is who it should be
        if self.security is not None and tls.listener is self.door:
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


class Exchange:
    """A proxy, one client's connection to it, and every origin that it connects to.

    `proxy` is run as a fresh machine of its own. `origin`, if given, answers every request that goes up:
    `origin=lambda request: respond(200, "hi")`; else the test does so, through `upstream`. `client` is the client's
    address; `security` says that it comes by TLS, and to what that came, with its certificate, and `server_name` what
    it asks for there. With `http2` it speaks HTTP/2: as ALPN has it where it comes by TLS, else without asking.
    `weather` brings delays and faults, see `coulee.backends.weather.Weather`.

    Origins speak HTTP/2 where the proxy does so without asking, as to `h2c://`. Those of `https://` are who they should
    be, and speak the first protocol of `origin_alpn` that the proxy offers.
    """

    def __init__(
        self,
        proxy: Proxy,
        *,
        origin: Callable[[Request], Response] | None = None,
        client: str = "10.0.0.9",
        security: Security | None = None,
        server_name: str = "",
        http2: bool = False,
        origin_alpn: tuple[str, ...] = ("http/1.1", "h2"),
        seed: int = 0,
        weather: Weather = INSTANT,
    ) -> None:
        self._world = _World(seed, weather)
        self._server_name = server_name
        self._http2 = http2 or (security is not None and security.alpn == "h2")
        self._alpn = ("h2",) if self._http2 else ("http/1.1",)
        listener = _PROXY if security is None else Listener(_PROXY, self._open_door(security))
        self._origin_tls = DownstreamTls(_Anybody.certificates, ListenerTls(_Anybody(), alpn=origin_alpn))
        self._driver = self._world.run(proxy, [listener])
        machine = self._driver.machine
        assert isinstance(machine, Proxy)
        self.proxy = machine
        self.upstreams: list[Upstream] = []
        """Every connection that an origin got, in order."""
        self._origin = origin
        self._client_host = client
        self._client: Client | None = None
        self._before = 0  # attempts at the start of the present request
        self._world.listen(None, self._connected)

    def _open_door(self, security: Security) -> ListenerTls:
        """Where clients come by TLS, which comes to what the test says."""
        self._world.security = replace(security, alpn="h2") if self._http2 else security
        self._world.door = ListenerTls(_Anybody(), alpn=self._alpn, covered_only=False)
        return self._world.door

    # -- the client

    def start(
        self,
        method: str = "GET",
        target: str = "/",
        *,
        headers: Fields = (),
        body: bytes | None = None,
        more: bool = False,
        upgrade: str = "",
    ) -> Self:
        """Send a request: on the connection of the one before, if that can be used again. Returns this exchange.

        With `more` the body is not complete: go on with `send` and `end`. In HTTP/1.1 it is then
        chunked, without a Content-Length. `upgrade` asks to switch to another protocol, in HTTP/2 by an extended
        CONNECT; where that is granted, what the other side says behind it is the `body` of `response`, and of
        `upstream.request`.
        """
        self._before = self.proxy.counters.attempts
        fields = Headers(headers)
        if body is not None and not more and "content-length" not in fields and "transfer-encoding" not in fields:
            fields.add("Content-Length", str(len(body)))
        scheme = "http" if self._world.security is None else "https"
        client = self._connect()
        if upgrade and self._http2:
            self.settle()  # whether it may ask so is said by the settings of the other side
            more = True
        client.ask(Request(method, target, fields, scheme=scheme, data=body or b"", ended=not more, upgrade=upgrade))
        return self.settle()

    def get(self, target: str = "/", *, headers: Fields = ()) -> Answer:
        """Send a GET and give its answer, which must come without waiting."""
        return self.start("GET", target, headers=headers).response

    def post(self, target: str = "/", body: bytes = b"", *, headers: Fields = ()) -> Answer:
        """Send a POST and give its answer, which must come without waiting."""
        return self.start("POST", target, headers=headers, body=body).response

    def send(self, data: bytes) -> Self:
        """Send a piece of the request's body."""
        self._connection.say(Data(data))
        return self.settle()

    def end(self, trailers: Fields = ()) -> Self:
        """End the request's body."""
        self._connection.say(Trailers(Headers(trailers)))
        return self.settle()

    def send_raw(self, data: bytes) -> Self:
        """Send bytes as they are, on a connection of their own if there is none: what no honest client would say."""
        self._connect().say_raw(data)
        return self.settle()

    def _connect(self) -> Client:
        """The client's connection: a new one where that of before cannot be used again."""
        client = self._client
        if client is None or not client.usable:
            self._client = client = Client(self, http2=self._http2)
            if self._world.security is not None:
                client.layer = self._world.layer(UpstreamTls(self._server_name, "", verify=False, alpn=self._alpn))
            self._world.connect(_PROXY, client, source=(self._client_host, self._world.free_port()))
        return client

    def leave(self) -> Self:
        """The client is gone, with a reset."""
        self._connection.reset()
        return self.settle()

    def half_close(self) -> Self:
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
    def _connection(self) -> Client:
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

    def down(self, *endpoints: str) -> Self:
        """Let these refuse connections from now on: `down("http://127.0.0.1:9000")`."""
        self._world.down.update(dict.fromkeys(map(_address_of, endpoints)))
        return self

    def up(self, *endpoints: str) -> Self:
        """Let these accept connections again."""
        for endpoint in endpoints:
            self._world.down.pop(_address_of(endpoint), None)
        return self

    def _connected(self, far: FarEnd) -> FarEnd:
        upstream = Upstream(self, self._origin)
        self.upstreams.append(upstream)
        return upstream

    def _asked_to_switch(self, upstream: Upstream) -> None:
        """An origin was asked for what is no HTTP: for those who play that."""

    # -- time, and what was reported

    @property
    def now(self) -> float:
        """Seconds since this exchange was made."""
        return self._world.now

    def advance(self, seconds: float) -> Self:
        """Let time pass."""
        self._world.advance(seconds)
        return self.settle()

    def settle(self) -> Self:
        """Let everything arrive that is on its way. Every other call does so by itself."""
        self._world.flush()
        self._world.advance(0.0)
        return self

    def drain(self, grace_s: float = 30.0) -> Self:
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
        if client.gone:
            return f"the proxy has ended the client's request, but not its connection ({client.gone})"
        if client.is_closed or client.eof:
            return f"the client's connection is closed ({client.error or 'in order'})"
        pending = [upstream for upstream in self.upstreams if upstream.pending]
        if pending:
            return f"{show_address(pending[-1].address)} has not answered; use x.upstream.reply(...)"
        return "the proxy waits, in a filter or for a connection; let time pass with x.advance(seconds=...)"


def _address_of(endpoint: str) -> Address:
    return peer_from_url(endpoint).address if "://" in endpoint else parse_address(endpoint)
