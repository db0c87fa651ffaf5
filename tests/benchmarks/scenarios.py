"""What is asked of every peer, and how a figure is made of what was counted.

Rules: a scenario is data; small answers are priced per request, large ones per byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

REQUEST_FIELDS = (  # with Host, which the generators add, ten
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7,fr;q=0.3",
    "Accept-Encoding: gzip, deflate, br",
    "Cache-Control: no-cache",
    "Referer: http://example.test/a/page/before/this/one",
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
    "Authorization: Bearer 0123456789abcdef0123456789abcdef",
    "X-Request-Id: 6f1c2a52-9c1b-4a55-8a0e-0d5f0d9f7b11",
)
GRPC_FIELDS = (
    "Content-Type: application/grpc",
    "TE: trailers",
    "User-Agent: grpc-python/1.70.0 grpc-c/45.0.0 (linux; chttp2)",
    "grpc-accept-encoding: identity, deflate, gzip",
)
ANSWER_FIELDS = (  # of /small; with Server, Date, Content-Type, Content-Length and Connection, which nginx adds, ten
    ("Cache-Control", "private, max-age=60"),
    ("ETag", "0123456789abcdef"),
    ("Vary", "Accept-Encoding"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Trace-Id", "6f1c2a52-9c1b-4a55-8a0e-0d5f0d9f7b11"),
)
FIELDS = 10


@dataclass(frozen=True, slots=True)
class Load:
    """What a load generator counted in one window."""

    requests: int
    bytes: int
    errors: int


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of every peer."""

    name: str
    unit: str
    digits: int  # after the point
    compared: bool = True  # whether a ratio to another peer's means something


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load."""

    name: str
    path: str
    size: int  # of the answer's body
    connections: int
    upload: int = 0  # the size of the request's body; with one, the method is POST
    close: bool = False  # a new connection for each request
    per_byte: bool = False
    tls: bool = False
    handshakes: Literal["", "full", "resumed"] = ""  # nothing but these, each on a new connection
    streams: int = 0  # of HTTP/2, at once on each connection; without, it is HTTP/1.1
    echo: bool = False  # messages on connections that stay, in place of requests
    grpc: bool = False  # with the fields of gRPC, and trailers after the answer

    @property
    def method(self) -> str:
        return "POST" if self.upload else "GET"

    @property
    def body(self) -> bytes:
        if self.grpc:  # one message: whether it is compressed, and its length, go before it
            return b"\0" + (self.upload - 5).to_bytes(4, "big") + bytes(self.upload - 5)
        return b"0123456789abcdef" * (self.upload // 16)

    @property
    def fields(self) -> tuple[str, ...]:
        """Of the request, but for Host and Content-Length."""
        if self.grpc:
            return GRPC_FIELDS
        return (*REQUEST_FIELDS, "Connection: close") if self.close else REQUEST_FIELDS

    @property
    def column(self) -> Column:
        if self.per_byte:
            return Column(self.name, "MB/CPU-s (more is better)", 0)
        if self.handshakes:
            return Column(self.name, "handshakes/CPU-s (more is better)", 0)
        return Column(self.name, f"CPU us/{'echo' if self.echo else 'request'}", 1)

    def figure(self, load: Load, cpu_ns: int) -> float:
        """MB per CPU second for a scenario priced per byte, handshakes per CPU second, else CPU microseconds per
        request."""
        if self.per_byte:
            return load.bytes * 1e3 / cpu_ns
        return load.requests * 1e9 / cpu_ns if self.handshakes else cpu_ns / 1e3 / load.requests


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("small", "/small", size=100, connections=50),
        Scenario("connect", "/small", size=100, connections=50, close=True),
        Scenario("post64k", "/post", size=100, connections=50, upload=64 * 1024),
        Scenario("64k", "/64k", size=64 * 1024, connections=50),
        Scenario("10m", "/10m", size=10 * 1024 * 1024, connections=4, per_byte=True),
    )
}
TLS_SCENARIOS = {
    each.name: each
    for each in (
        Scenario("tls-small", "/small", size=100, connections=50, tls=True),
        Scenario("tls-10m", "/10m", size=10 * 1024 * 1024, connections=4, per_byte=True, tls=True),
        Scenario("tls-full", "/small", size=100, connections=16, tls=True, handshakes="full"),
        Scenario("tls-resumed", "/small", size=100, connections=16, tls=True, handshakes="resumed"),
    )
}
HTTP2_SCENARIOS = {
    each.name: each
    for each in (
        Scenario("h2", "/small", size=100, connections=10, streams=32, tls=True),
        Scenario("h2-64k", "/64k", size=64 * 1024, connections=10, streams=32, tls=True),
    )
}
"""Of HTTP/2 by TLS; the origin speaks HTTP/1.1."""
H2C_SCENARIOS = {
    each.name: each
    for each in (
        Scenario("h2-h2c", "/small", size=100, connections=10, streams=32, tls=True),
        Scenario("grpc", "/bench.Echo/Unary", size=100, connections=10, streams=32, upload=100, grpc=True, tls=True),
    )
}
"""Of HTTP/2 by TLS; the origin speaks HTTP/2 too, without TLS."""
WEBSOCKET_SCENARIOS = {
    each.name: each
    for each in (
        Scenario("ws", "/", size=100, connections=50, echo=True),
        Scenario("ws-64k", "/", size=64 * 1024, connections=8, echo=True, per_byte=True),
    )
}
"""Messages of WebSockets that are echoed, priced up and down together."""
FILES = ("64k", "10m")  # what the origin serves from its disk
ENDLESS_BYTES = 64 * 1024 * 1024
"""Of the file /endless: more than everybody's buffers hold."""
