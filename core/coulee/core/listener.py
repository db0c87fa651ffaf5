"""What a user says of a listener: where, with which options, and what clients have to say before a request.

Listener("0.0.0.0:8443", tls=ListenerTls(CertificateFiles("cert.pem", "key.pem")))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from coulee.core.address import Address, parse_address
from coulee.core.networks import Networks
from coulee.core.options import LISTEN_OPTIONS, ListenOptions
from coulee.core.tls import ListenerTls


@dataclass(frozen=True, slots=True)
class ProxyProtocol:
    """Connections begin with a header of the PROXY protocol, version 1 or 2, that tells who the client is. One that
    begins otherwise, or comes from anybody else, is closed."""

    trusted: tuple[str, ...]
    """Networks, as `10.0.0.0/8`, whose word counts; `unix` stands for those that come by a Unix socket."""

    def __post_init__(self) -> None:
        if not self.trusted:
            raise ValueError("trusted is empty, so nobody could connect; name the balancer, as ('10.0.0.7/32',)")
        Networks(self.trusted)  # raises ValueError


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener. Raises ValueError."""

    address: Address
    """`(host, port)`, or text: `HOST:PORT`, `[IPV6]:PORT`, `:PORT`, `unix:/PATH`, `unix:@NAME`."""

    tls: ListenerTls | None = None
    """Speak TLS with clients."""

    proxy_protocol: ProxyProtocol | None = None
    """Who may say, and then must, for whom it connects."""

    options: ListenOptions = LISTEN_OPTIONS
    """Of its sockets."""

    def __post_init__(self) -> None:
        if isinstance(self.address, str):
            object.__setattr__(self, "address", parse_address(self.address))


ListenAt: TypeAlias = Address | Listener
"""Where to listen."""


def as_listener(where: ListenAt) -> Listener:
    """A listener at an address, or the one given."""
    return where if isinstance(where, Listener) else Listener(where)
