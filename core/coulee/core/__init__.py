"""The core of coulee: a proxy as one pure state machine. This is its public face.

To define a proxy: `Proxy`, `Filter`, `respond`, `Config`. To test one: `coulee.testing`. To run one: `coulee.backends`.
What filters may await is in `coulee.core.effects`.
"""

from __future__ import annotations

from coulee.core.config import Config, Forwarding, Http2, Limits, Retry, Timeouts, WebSocket
from coulee.core.effects import blocking, deadline, dial, fetch, native, nursery, shielded, sleep
from coulee.core.errors import REASONS, ExchangeError, Reason
from coulee.core.event_stream import EventStream, ServerSentEvent
from coulee.core.exchange import Exchange
from coulee.core.filters import Filter, FilterError
from coulee.core.forward import Forward
from coulee.core.grpc_web import GrpcWeb
from coulee.core.headers import Headers
from coulee.core.kernel import Cancelled, DeadlineExceeded
from coulee.core.listener import Listener, ProxyProtocol
from coulee.core.options import ConnectOptions, KeepAlive, ListenOptions
from coulee.core.parts import Data, Interim, Request, Response, Trailers, respond
from coulee.core.peer import Balancer, Peer, PeerLimits, Routed
from coulee.core.proxy import Proxy
from coulee.core.report import Access, Attempt, Counters, Event
from coulee.core.through import Through
from coulee.core.tls import ClientCertificates, ListenerTls, PeerCertificate, Security, UpstreamTls
from coulee.core.transport import Transport
from coulee.core.tunnel import Tunnel
from coulee.core.tunnel_exchange import TunnelAccess, TunnelExchange
from coulee.core.tunnel_filters import TunnelFilter
from coulee.core.tunnel_routes import BySni
from coulee.core.websocket import Closing, Message, Outcome, Reply

__all__ = [
    "REASONS",
    "Access",
    "Attempt",
    "Balancer",
    "BySni",
    "Cancelled",
    "ClientCertificates",
    "Closing",
    "Config",
    "ConnectOptions",
    "Counters",
    "Data",
    "DeadlineExceeded",
    "Event",
    "EventStream",
    "Exchange",
    "ExchangeError",
    "Filter",
    "FilterError",
    "Forward",
    "Forwarding",
    "GrpcWeb",
    "Headers",
    "Http2",
    "Interim",
    "KeepAlive",
    "Limits",
    "ListenOptions",
    "Listener",
    "ListenerTls",
    "Message",
    "Outcome",
    "Peer",
    "PeerCertificate",
    "PeerLimits",
    "Proxy",
    "ProxyProtocol",
    "Reason",
    "Reply",
    "Request",
    "Response",
    "Retry",
    "Routed",
    "Security",
    "ServerSentEvent",
    "Through",
    "Timeouts",
    "Trailers",
    "Transport",
    "Tunnel",
    "TunnelAccess",
    "TunnelExchange",
    "TunnelFilter",
    "UpstreamTls",
    "WebSocket",
    "blocking",
    "deadline",
    "dial",
    "fetch",
    "native",
    "nursery",
    "respond",
    "shielded",
    "sleep",
]
