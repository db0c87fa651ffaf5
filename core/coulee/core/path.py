"""What a connection to a peer goes through before it carries anything: everything that opens one goes this way.

connect --> [TLS with a proxy on the way --> CONNECT] --> [header of the PROXY protocol] --> [TLS] --> ready
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from coulee.core.errors import ExchangeError
from coulee.core.peer import Peer
from coulee.core.proxy_protocol import Header, TlsInfo, to_bytes
from coulee.core.seam import CONNECT_OPTIONS
from coulee.core.through import Through, open_tunnel

if TYPE_CHECKING:
    from coulee.core.connection import Connection
    from coulee.core.sole_connection import SoleConnection


async def establish(connection: SoleConnection, peer: Peer, connect_limit_s: float) -> None:
    """Connect, up to where the peer's own protocol begins; the connection is held then. Each step has its own limit.
    Raises `ExchangeError`."""
    transport = peer.transport
    if transport.through is None:
        await connection.connect(peer.address, connect_limit_s, transport.options or CONNECT_OPTIONS)
    else:
        await _go_through(connection, peer, transport.through, connect_limit_s)
    if peer.prelude:
        connection.push(peer.prelude)
    if transport.tls is not None:
        security = await connection.secure(transport.tls, connection.timeouts.upstream_tls_timeout_s)
        if not security.alpn and transport.speaks_http2_only:
            raise ExchangeError("upstream_tls", "it does not speak HTTP/2, and alpn offers nothing else")


async def _go_through(connection: SoleConnection, peer: Peer, through: Through, limit_s: float) -> None:
    """Connect to the proxy on the way, and have it connect to the peer."""
    proxy = through.peer
    options = proxy.transport.options or peer.transport.options or CONNECT_OPTIONS
    await connection.connect(proxy.address, limit_s, options)
    if proxy.transport.tls is not None:
        await connection.secure(proxy.transport.tls, connection.timeouts.upstream_tls_timeout_s)
        connection.security = None  # that was with the proxy
    await open_tunnel(connection, peer.address, through, limit_s)


def announced(peer: Peer, client: Connection, upgrade: str = "") -> Peer:
    """The peer as it is for one client where each connection to it has to say who the client is; and as it is for an
    `upgrade`, which goes by HTTP/1.1 where there is a choice: every origin of that knows how."""
    if upgrade and peer.transport.may_speak_http2 and not peer.transport.speaks_http2_only:
        peer = peer.by(peer.transport.without_http2())
    version = peer.transport.proxy_protocol
    if not version:
        return peer
    if isinstance(client.peer, str) or isinstance(client.local, str):
        # A Unix socket means nothing elsewhere, and HAProxy refuses it. All take a header that speaks for nobody.
        return _with_header(peer, Header(None, None, version))
    security = client.security
    header = Header(client.peer, client.local, version)
    told = client.header
    if version == 2 and told is not None:  # what was said to us is said again, and below what we know ourselves
        header = replace(header, alpn=told.alpn, authority=told.authority, unique_id=told.unique_id, tls=told.tls)
    if version == 2 and security is not None:
        shown = security.certificate
        ours = TlsInfo(version=security.version, cipher=security.cipher, verified=shown is not None)
        header = replace(header, alpn=security.alpn, authority=client.server_name, tls=ours)
    return _with_header(peer, header)


def _with_header(peer: Peer, header: Header) -> Peer:
    return Peer(peer.address, peer.name, peer.group, peer.limits, peer.transport, to_bytes(header))
