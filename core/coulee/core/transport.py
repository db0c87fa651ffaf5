"""How a peer is reached: socket options, TLS, HTTP/2 or not, the PROXY protocol, a proxy on the way.

Cluster("https://10.0.0.7:8443", transport=Transport(tls=UpstreamTls(ca=authority, verified_name="api.internal")))
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from coulee.core.options import ConnectOptions
from coulee.core.tls import UpstreamTls

if TYPE_CHECKING:
    from coulee.core.through import Through


@dataclass(frozen=True, slots=True)
class Transport:
    """Connections of peers with equal transports can be shared, and others cannot."""

    tls: UpstreamTls | None = None
    """TLS, and whom it has to be with. For a cluster's endpoints, what is left open here is filled in from their URLs;
    those of `http://` and `h2c://` have none, and are refused where it is set."""

    options: ConnectOptions | None = None
    """Of its sockets."""

    through: Through | None = None
    """An HTTP proxy on the way, asked to CONNECT. TLS, and all else, is then between the peer and us; `options`
    are of the connection to the proxy."""

    proxy_protocol: Literal[0, 1, 2] = 0
    """Begin each connection with a header of the PROXY protocol, of this version, that tells who the client is. Then a
    connection carries requests of one client connection only."""

    prior_knowledge: bool = False
    """Speak HTTP/2 without being asked, for an origin without TLS (RFC 9113 section 3.3): h2c. It is what `h2c://` in
    an endpoint's URL stands for. There is no fall-back: an origin that does not speak it fails."""

    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.proxy_protocol not in (0, 1, 2):
            raise ValueError(f"proxy_protocol is {self.proxy_protocol!r}; it must be version 1 or 2, or 0 for none")
        if self.prior_knowledge and self.tls is not None:
            raise ValueError(
                "prior_knowledge is for origins without TLS; with TLS the protocol is agreed by ALPN: "
                'UpstreamTls(alpn=("h2", "http/1.1"))'
            )
        same = (self.tls, self.options, self.through, self.proxy_protocol, self.prior_knowledge)
        object.__setattr__(self, "_hash", same.__hash__())

    @property
    def may_speak_http2(self) -> bool:
        """Whether a connection may turn out to speak HTTP/2."""
        return self.prior_knowledge or (self.tls is not None and "h2" in self.tls.alpn)

    @property
    def speaks_http2_only(self) -> bool:
        """Whether there is nothing else that a connection may turn out to speak."""
        return self.prior_knowledge or (self.tls is not None and self.tls.alpn == ("h2",))

    def without_http2(self) -> Transport:
        """The same for what only goes by HTTP/1.1."""
        tls = self.tls
        if tls is not None:
            tls = replace(tls, alpn=tuple(protocol for protocol in tls.alpn if protocol != "h2") or ("http/1.1",))
        return replace(self, tls=tls, prior_knowledge=False)

    def __hash__(self) -> int:
        return self._hash  # it is part of what connections are looked up by


DIRECT = Transport()
"""Plain TCP, or a Unix socket."""
