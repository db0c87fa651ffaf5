"""What one health check does: connect, say hello in TLS, ask over HTTP, or ask the health service of gRPC.

    HealthCheck(Http(path="/health", statuses=(200, 204)))
    HealthCheck(Tcp(port=9001))

Rules:

- A probe returns where the endpoint is healthy, and raises where it is not. It keeps nothing between two checks.
- Each check has a connection of its own, closed behind it. It takes no place from exchanges and waits for none of
  theirs: an endpoint whose every connection is busy is no less healthy for it.
- `port` checks another port of the same host.
- How long a check may take is for `HealthCheck.timeout_s` to say; connecting, within it, 3 s at most.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from coulee.core.effects import dial, fetch
from coulee.core.headers import TOKEN, Headers, encode_field
from coulee.core.kernel import current_kernel
from coulee.core.parts import Request
from coulee.core.peer import Peer
from coulee.core.proxy_protocol import Header, to_bytes
from coulee.lb.endpoint import Endpoint
from coulee.lb.health import CheckFailed
from coulee.lb.tls_hello import client_hello, is_server_hello

Statuses: TypeAlias = Sequence[int | range] | Callable[[int], bool]
"""Statuses as numbers and ranges, `(200, range(300, 400))`, or a function that tells."""

BODY_BYTES_MAX: Final = 1024 * 1024
"""The body of an answer. A check whose answer is longer is a bad one."""

SEARCHED_BYTES_MAX: Final = 64 * 1024
"""... and how much of it is searched."""

_TARGET: Final = re.compile(r"(?:/[!-~]*|\*)")
_NAME: Final = re.compile(r"(?=.{1,253}\Z)(?![0-9.]+\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_AUTHORITY: Final = re.compile(r"[!-~]*")

SERVICE_BYTES_MAX: Final = 1024
"""The name of a gRPC service."""

_GROUP: Final = "health check"
"""Keeps the connections of checks apart from those of exchanges, and out of their cap."""


@dataclass(frozen=True, slots=True)
class Tcp:
    """It takes a connection. On a Unix socket as well."""

    port: int | None = None
    """The port, where it is not the endpoint's own."""

    def __post_init__(self) -> None:
        _require_port(self.port)

    async def __call__(self, endpoint: Endpoint) -> None:
        async with dial(_peer(endpoint, self.port)):
            pass


@dataclass(frozen=True, slots=True)
class TlsHello:
    """It answers a TLS ClientHello with a ServerHello. Whose certificate it has is not looked at."""

    server_name: str = ""
    """The host that is asked for (RFC 6066 section 3); "" names none."""

    port: int | None = None
    """The port, where it is not the endpoint's own."""

    def __post_init__(self) -> None:
        if self.server_name and not _NAME.fullmatch(self.server_name):
            raise ValueError(f"server_name is {self.server_name!r}; it must be a host name in ASCII, as example.com")
        _require_port(self.port)

    async def __call__(self, endpoint: Endpoint) -> None:
        peer = _peer(endpoint, self.port)
        peer.transport = replace(peer.transport, tls=None)  # it is spoken here
        async with dial(peer) as line:
            await line.send(client_hello(current_kernel.get().machine.rng, self.server_name))
            data = b""
            while not is_server_hello(data):
                more = await line.receive()
                if not more:
                    raise CheckFailed.unlike("TLS", data) if data else CheckFailed("closed without an answer")
                data += more


@dataclass(frozen=True, slots=True)
class Http:
    """It answers a request with a status that is expected, and a body that has what is expected in it.

    A redirection is an answer like any other, and not followed.
    """

    method: str = "GET"

    path: str = "/"
    """The request target, with its query."""

    host: str = ""
    """What to say in Host; "" is the endpoint's own address."""

    statuses: Statuses = (range(200, 400),)
    """The statuses of a healthy endpoint."""

    body: str | bytes | None = None
    """What the first 64 KiB of a healthy endpoint's answer have in them, text in UTF-8. None is anything."""

    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """More fields of the request. It has `User-Agent: coulee-check` unless they say otherwise."""

    port: int | None = None
    """The port, where it is not the endpoint's own."""

    def __post_init__(self) -> None:
        if not self.method.isascii() or not TOKEN.fullmatch(self.method.encode()):
            raise ValueError(f"method is {self.method!r}; it must be one of HTTP, as GET or HEAD")
        if not _TARGET.fullmatch(self.path):
            raise ValueError(f"path is {self.path!r}; it must be a path in ASCII without spaces, as /health?full=1")
        if not _AUTHORITY.fullmatch(self.host):
            raise ValueError(f"host is {self.host!r}; it must be a host and perhaps a port in ASCII, as example.com")
        if not self.statuses:
            raise ValueError("statuses is empty, so no answer would be good; leave it out for 200 to 399")
        if self.body is not None and (not self.body or self.method == "HEAD"):
            raise ValueError(f"body is {self.body!r}; it must be a part of a body that an answer to {self.method} has")
        for name, value in self.headers.items():
            encode_field(name, value)
            if name.lower() in ("host", "content-length", "transfer-encoding"):
                raise ValueError(f"headers: {name} is not for you to say; for the host there is `host`")
        _require_port(self.port)

    async def __call__(self, endpoint: Endpoint) -> None:
        headers = Headers(self.headers)
        if "user-agent" not in headers:
            headers.add("User-Agent", "coulee-check")
        request = Request(self.method, self.path, headers, authority=self.host)
        answer = await fetch(request, peer=_peer(endpoint, self.port), body_bytes_max=BODY_BYTES_MAX, fresh=True)
        if not self._expects(answer.status):
            raise CheckFailed(f"status {answer.status}")
        wanted = self.body.encode() if isinstance(self.body, str) else self.body
        if wanted is not None and wanted not in answer.data[:SEARCHED_BYTES_MAX]:
            raise CheckFailed(f"status {answer.status}, without {self.body!r} in its body")

    def _expects(self, status: int) -> bool:
        if callable(self.statuses):
            return self.statuses(status)
        return any(status == each if isinstance(each, int) else status in each for each in self.statuses)


@dataclass(frozen=True, slots=True)
class Grpc:
    """Its health service says SERVING (`grpc.health.v1`): over HTTP/2 by prior knowledge, and with TLS where the
    endpoint's transport has it, which then has to offer h2."""

    service: str = ""
    """The service that is asked about; "" is the whole server."""

    authority: str = ""
    """What to say in :authority; "" is the endpoint's own address."""

    port: int | None = None
    """The port, where it is not the endpoint's own."""

    def __post_init__(self) -> None:
        if len(self.service.encode()) > SERVICE_BYTES_MAX:
            raise ValueError(f"service is longer than {SERVICE_BYTES_MAX} bytes; it must be a name, as acme.Billing")
        if not _AUTHORITY.fullmatch(self.authority):
            raise ValueError(f"authority is {self.authority!r}; it must be a host and perhaps a port in ASCII")
        _require_port(self.port)

    async def __call__(self, endpoint: Endpoint) -> None:
        from coulee.lb.grpc_health import HealthCall  # which needs h2, and this probe alone does

        peer = _peer(endpoint, self.port)
        scheme = "http" if peer.transport.tls is None else "https"
        call = HealthCall(self.authority or peer.authority, self.service, scheme)
        async with dial(peer) as line:
            await line.send(call.to_send())
            while not call.feed(await line.receive()):
                reply = call.to_send()
                if reply:
                    await line.send(reply)


def _peer(endpoint: Endpoint, port: int | None) -> Peer:
    """Where to check. Raises `CheckFailed`."""
    address = endpoint.address
    if port is not None:
        if isinstance(address, str):
            raise CheckFailed(f"{endpoint.name} is a Unix socket, which has no port {port}")
        address = (address[0], port)
    transport = endpoint.transport
    if transport.proxy_protocol:  # a check speaks for nobody, and says so
        transport = replace(transport, proxy_protocol=0)
        return Peer(address, endpoint.name, _GROUP, transport=transport, prelude=to_bytes(Header(None, None, 2)))
    return Peer(address, endpoint.name, _GROUP, transport=transport)


def _require_port(port: int | None) -> None:
    """Raises `ValueError`."""
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"port is {port}; it must be from 1 to 65535, or None for the endpoint's own")
