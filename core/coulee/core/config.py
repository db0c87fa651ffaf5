"""Every limit and time limit of the core, with its unit in its name and the reason for its default.

All are frozen dataclasses, so a configuration can be shared. To change one:
`Config(limits=replace(Limits(), head_bytes_max=65536))`, or simply `Config(limits=Limits(head_bytes_max=65536))`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from math import inf
from typing import Final, Literal

from coulee.core.forward import Forward

PROTOCOL: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:/[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?")
"""What Upgrade names: a protocol and perhaps its version (RFC 9110 section 7.8)."""


RETRIABLE: Final = (
    "upstream_refused", "upstream_unreachable", "upstream_connect_timeout", "upstream_tls", "pool_full",
    "upstream_reset", "upstream_refused_stream", "upstream_timeout", "upstream_invalid", "upgrade_unsupported",
)  # fmt: skip
"""Reasons for which an attempt may be followed by another: an endpoint's doing, the queue for it, or that it cannot."""


def _require_positive(settings: Limits | Timeouts | Http2 | WebSocket, zero_allowed: tuple[str, ...] = ()) -> None:
    """Every limit is a number above 0, but for those where 0 means none. Raises `ValueError`."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if isinstance(value, str):
            continue  # it is one of several words, and no number
        if not (value > 0 or (value == 0 and each.name in zero_allowed)):
            raise ValueError(f"{each.name} is {value}; it must be above 0")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much. Each bounds a queue, a buffer or a table."""

    head_bytes_max: int = 32 * 1024
    """A message head. nginx allows 32 KiB, HAProxy 16; more feeds no honest client. 431 beyond."""

    line_bytes_max: int = 8 * 1024
    """One line of a head: 414 for a longer request line, 431 for a longer field. nginx's number."""

    fields_max: int = 100
    """Fields in a head, trailers apart. Envoy's number. 431 beyond."""

    ranges_max: int = 64
    """Ranges in one Range field; more are an attack on the origin (RFC 9110 section 14.2). 400 beyond."""

    interims_max: int = 8
    """1xx answers to one request; an origin that sends more is broken."""

    trailers_bytes_max: int = 8 * 1024
    """The fields after a body."""

    trailer_fields_max: int = 32
    """... and their number."""

    chunk_line_bytes_max: int = 256
    """The line with a chunk's size and extensions, which nobody uses and we drop."""

    chunk_extensions_bytes_max: int = 16 * 1024
    """All chunk extensions of one body."""

    buffer_high_bytes: int = 64 * 1024
    """Bytes waiting in one direction of one connection before we stop reading what feeds it."""

    buffer_low_bytes: int = 16 * 1024
    """... and how few must be left before we read again."""

    replay_bytes_max: int = 64 * 1024
    """How much of a request body is kept so that it can be sent again. Beyond, the request cannot be retried."""

    unread_drain_bytes_max: int = 64 * 1024
    """How much of an unread request body we read and forget so that a connection can be used again."""

    request_body_bytes_max: int = 0
    """A request body; 0 is no limit, because bodies are passed on and not kept. nginx's `client_max_body_size`. 413
    beyond: before anything is sent to the origin where Content-Length tells, else as soon as so much has come."""

    downstream_connections_max: int = 16384
    """Client connections at once. The first request of one beyond is answered 503, `too_many_connections`."""

    connections_per_address_max: int = 256
    """... and from one address (an IPv6 address counts as its /64, a whole household's), so that no client can hold
    them all. 0 is no limit. Unix sockets and `trusted_peers` are not counted: many clients stand behind these."""

    handshakes_per_address_max: int = 128
    """TLS handshakes under way from one address, counted as connections are: to begin one is cheap, and to answer it is
    not. One beyond is closed."""

    refused_connections_max: int = 64
    """Connections beyond these caps at once, each of which may wait for its 503. Beyond, those from an address that has
    too many are closed at once; where there are too many in all, we stop accepting and the system's backlog holds
    them."""

    requests_per_connection_max: int = 1000
    """Exchanges on one client connection; nginx's number. It bounds what one connection can accumulate."""

    connections_per_peer_max: int = 1024
    """Connections to one upstream peer, busy and idle."""

    idle_connections_max: int = 512
    """Idle upstream connections in all; the one idle for longest goes first."""

    pool_waiters_max: int = 1024
    """Exchanges waiting for a connection to one peer. Beyond: 503, `pool_full`."""

    jobs_max: int = 1024
    """Jobs of filters (`blocking`, `native`) outstanding at once; more wait for their turn."""

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=("interims_max", "replay_bytes_max", "unread_drain_bytes_max",
                                              "idle_connections_max", "pool_waiters_max", "request_body_bytes_max",
                                              "connections_per_address_max", "refused_connections_max"))  # fmt: skip
        if self.buffer_low_bytes > self.buffer_high_bytes:
            raise ValueError("buffer_low_bytes is larger than buffer_high_bytes")
        if self.head_bytes_max > self.buffer_high_bytes:
            raise ValueError("head_bytes_max is larger than buffer_high_bytes, so such a head could never be read")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long, in seconds. All are watched by the core, on the core's clock."""

    head_timeout_s: float = 10.0
    """From the first byte of a request head to its last: the answer to a slow-loris."""

    tls_handshake_timeout_s: float = 5.0
    """For a client to be done with TLS."""

    proxy_header_timeout_s: float = 3.0
    """For a client to say who it stands for, at a listener with the PROXY protocol. HAProxy's number."""

    body_idle_timeout_s: float = 30.0
    """Without a byte of a request body that is not finished."""

    body_rate_min_bytes_per_s: float = 100.0
    """How fast a request body has to come, so that a byte now and then does not keep an exchange for ever: the answer
    to a slow POST. 0 is no limit. Only the time in which we wait for the client counts, not that in which the origin,
    or a filter, holds it back."""

    body_rate_window_s: float = 30.0
    """Over how much waiting that is reckoned, again and again. A pause within it is no matter."""

    body_rate_grace_s: float = 5.0
    """How much longer the first such window is, for a connection to come to its speed."""

    keep_alive_idle_s: float = 60.0
    """A client connection between two requests."""

    connection_life_s: float = 3600.0
    """A client connection in all: the first answer after that says that it is the last. nginx's number. So clients come
    to know of other addresses, and what a connection has accumulated is let go."""

    send_stall_timeout_s: float = 30.0
    """For a client, or an upstream, to take what it was sent: so long for each `buffer_high_bytes` of it, or part of
    them. With the defaults that is 2 kB/s."""

    connect_timeout_s: float = 3.0
    """To an established upstream connection, all its addresses tried."""

    upstream_tls_timeout_s: float = 5.0
    """For an upstream to be done with TLS, once it is connected."""

    answer_timeout_s: float = 60.0
    """From the last byte of the request that we sent to the whole head of its answer. nginx's number."""

    upstream_idle_timeout_s: float = 60.0
    """Without a byte of an answer's body that is not finished."""

    event_stream_idle_timeout_s: float = 3600.0
    """Without a byte of a stream of server-sent events (an answer of type text/event-stream), in place of the limit
    above: it may be quiet for long. Where origins send comments, to keep it alive, a little more than they are apart
    is enough, and finds those that have died without a word."""

    upstream_keep_alive_idle_s: float = 55.0
    """An idle upstream connection. Below 60, so that we close before an origin with the usual limit does."""

    upgraded_idle_timeout_s: float = 3600.0
    """Without a byte in either direction of an upgraded connection. Far above the pings of those who send any."""

    grpc_idle_timeout_s: float = 3600.0
    """Without a message of a gRPC call, in either direction, in place of the limits of other bodies and answers: a
    stream may be quiet for long, and the deadline of a call is the client's to say."""

    pool_wait_s: float = 5.0
    """In the queue for a connection to a busy peer."""

    linger_s: float = 1.0
    """For a client to close after our last byte, or to send the rest of a body that nobody wants (RFC 9112 section
    9.6)."""

    drain_idle_s: float = 0.05
    """For a client without a request, once a drain has begun: one that is on its way is still answered, as the last of
    its connection. It is also how long the client then gets to close. 0 closes at once, and loses what is on its
    way. Longer than a round trip of most clients, and short enough for a drain to end when its last exchange does."""

    logging_grace_s: float = 5.0
    """For asynchronous `logging` filters after the exchange is over."""

    close_grace_s: float = 30.0
    """For the last bytes to leave a connection that we closed, before it is reset."""

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=("body_rate_min_bytes_per_s", "body_rate_grace_s", "drain_idle_s"))


@dataclass(frozen=True, slots=True)
class Http2:
    """What is allowed on a connection of HTTP/2, on either side (RFC 9113). Streams have the time limits, and heads the
    sizes, that `Timeouts` and `Limits` say for all."""

    cleartext: bool = True
    """Speak it without TLS to clients that begin with it (section 3.3, "prior knowledge")."""

    streams_max: int = 100
    """Requests of a client at once, each counted until nothing of it is going on any more, here or at an origin: a
    client that takes its requests back gains no room by it. What h2 and Varnish allow. Beyond: REFUSED_STREAM."""

    head_bytes_max: int = 256 * 1024
    """Of all heads of a client's requests under way, so that few bytes on the line (header compression makes references
    of them) cannot hold many here (CVE-2016-6581). Beyond: REFUSED_STREAM, as above."""

    upstream_streams_max: int = 100
    """Requests at once on a connection to an origin, where that allows so many. With more of them another connection is
    opened."""

    stream_window_bytes: int = 64 * 1024
    """How much of one body the peer may send before we have passed on any of it. Envoy's advice for an edge."""

    connection_window_bytes: int = 1024 * 1024
    """... and of all bodies on one connection of a client together. Towards an origin there is no such limit but that
    of its streams, because clients of different speeds share the connection."""

    frame_bytes_max: int = 16 * 1024
    """A frame's payload, read or written. The least that everybody must take (section 4.2)."""

    table_bytes_max: int = 4 * 1024
    """The table of header compression that a peer may have us keep, and that we keep for it (RFC 7541 section 4.2)."""

    continuations_max: int = 8
    """CONTINUATION frames of one head; nghttp2's number. One without a byte is never taken."""

    glitches_max: int = 200
    """How many of the frames that cost the sender little and us something may come at once: PING, SETTINGS, PRIORITY,
    those without data, those that nobody knows, windows opened by next to nothing, resets. At three quarters a client
    is told to go, at the whole it is cut off. HAProxy's idea."""

    glitches_per_s: float = 20.0
    """... and how many a second are forgiven."""

    resets_max: int = 200
    """How many streams may be taken back at once, by the client, or by us because it broke a rule: to ask is cheap, and
    to serve is not (CVE-2023-44487, CVE-2025-8671). Judged as glitches are."""

    resets_per_s: float = 200 / 60
    """... and how many a second are forgiven."""

    unsent_control_bytes_max: int = 64 * 1024
    """Answers to PING, SETTINGS and the like that the peer does not take. Beyond, nothing more is read from it."""

    ping_after_s: float = 20.0
    """An origin that has not sent a byte for so long, and owes us an answer, is asked by a PING whether it is there."""

    ping_timeout_s: float = 10.0
    """... and has so long to say so; then its connection is closed, and its requests have failed."""

    ping_again_s: float = 310.0
    """Between two such PINGs at least: gRPC servers end a connection that asks more often than each five minutes while
    they have nothing to say."""

    drain_notice_s: float = 0.5
    """When we want to end a client's connection: how long requests that are on their way are still taken after it was
    told to send no more (section 6.8)."""

    http1_origins_max: int = 1000
    """Origins of which it is remembered that they want HTTP/1.1 for something (HTTP_1_1_REQUIRED)."""

    http1_origins_s: float = 300.0
    """... and for how long."""

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=("cleartext", "http1_origins_max"))
        for name, least, most in (("frame_bytes_max", 16384, 2**24 - 1), ("connection_window_bytes", 65535, 2**31 - 1),
                                  ("stream_window_bytes", 1, 2**31 - 1), ("table_bytes_max", 1, 65536)):  # fmt: skip
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from {least} to {most}")


@dataclass(frozen=True, slots=True)
class WebSocket:
    """What is allowed on a WebSocket whose messages a filter sees (RFC 6455), and how it is spoken. Where no filter
    sees them, bytes pass as they come."""

    message_bytes_max: int = 16 * 1024 * 1024
    """A message, inflated; from either side. The sender of a larger one is closed with 1009. It is held until it is
    whole, so this is what each connection can make us hold; few applications need so much."""

    fragments_max: int = 1024
    """... and the frames that it may be sent in."""

    inflate_ratio_max: float = 100.0
    """How much larger than on the line a compressed message may become, so that few bytes cannot make many here. 1009
    beyond."""

    inflate_free_bytes: int = 64 * 1024
    """... but up to this size it may be as compressible as it is: much of what people send is."""

    compress_downstream: bool = True
    """Accept permessage-deflate (RFC 7692) where a client offers it. Each side has what was agreed with itself,
    whatever the other has."""

    compress_upstream: bool = False
    """... and offer it to the origin. It is usually near, and deflating is the most that a message can cost."""

    window_bits: int = 12
    """Of what we deflate, from 9 to 15: 2 to that power bytes, and eight times as much of memory; and of what a client
    does, where it lets us say so. What `websockets` uses, because more of it compresses messages little better."""

    pings: Literal["pass", "answer"] = "pass"
    """Who answers a ping: the other side, as if nobody were between, or we."""

    messages_per_s: float = 0.0
    """Messages from one client a second, in the long run. 0 is no limit. The sender of more is closed with 1008."""

    messages_at_once_max: int = 100
    """... and how many may come at once."""

    bytes_per_s: float = 0.0
    """Bytes of messages from one client a second, in the long run, judged the same way. 0 is no limit."""

    bytes_at_once_max: int = 4 * 1024 * 1024
    """... and how many may come at once."""

    controls_per_s: float = 20.0
    """Pings and pongs from one side a second, in the long run: each costs us, and the other side, more than its sender.
    0 is no limit. The sender of more is closed with 1008."""

    controls_at_once_max: int = 200
    """... and how many may come at once."""

    close_timeout_s: float = 5.0
    """For the answer to a close frame that we sent, and then for the origin to close its connection."""

    drain_after_s: float = 1.0
    """How long after the beginning of a drain both sides are sent a close frame (1001), drawn evenly from this to twice
    as long, so that clients do not all come back at once."""

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=("inflate_free_bytes", "compress_downstream", "compress_upstream",
                                              "messages_per_s", "bytes_per_s", "controls_per_s",
                                              "drain_after_s"))  # fmt: skip
        if not 9 <= self.window_bits <= 15:
            raise ValueError(f"window_bits is {self.window_bits}; it must be from 9 to 15")
        if self.pings not in ("pass", "answer"):
            raise ValueError(f"pings is {self.pings!r}; it must be 'pass' or 'answer'")


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed attempt may be followed by another."""

    retries_max: int = 2
    """Attempts after the first. Each goes to an endpoint not tried yet, while there is one."""

    reasons: tuple[str, ...] = (
        "upstream_refused", "upstream_unreachable", "upstream_connect_timeout", "upstream_tls", "pool_full",
        "upstream_reset", "upstream_refused_stream", "upgrade_unsupported",
    )  # fmt: skip
    """What a failed attempt may have failed for. A connection that could not be had is tried again at another endpoint
    only, whatever the method, for nothing was sent. What an origin of HTTP/2 says that it did not process is tried
    again whatever the method, too, and at the same endpoint where there is no other. `upstream_timeout` and
    `upstream_invalid` can be added: the origin may be at work on the first request then, and the next one doubles its
    load."""

    statuses: tuple[int, ...] = ()
    """Answers that are tried again, as 502, 503 and 504. The answer goes on to the client where no attempt is left."""

    non_idempotent: bool = False
    """Also resend POST and PATCH after they were sent. RFC 9110 section 9.2.2 forbids it to a proxy that does not know
    better: set it if your origins tolerate a request that arrives twice."""

    try_timeout_s: float = 0.0
    """For one attempt: to connect, and then from the last byte of the request to the head of its answer. What takes
    longer is tried again as what dies unanswered is. 0 leaves it to `connect_timeout_s` and `answer_timeout_s`."""

    total_timeout_s: float = 0.0
    """From the request's head to that of its answer, all attempts together. 0 is no limit but theirs."""

    backoff_s: float = 0.025
    """The longest wait before the second retry at an endpoint that was tried; twice as long before each further one.
    The first one goes at once, and so does each to another endpoint. A wait is drawn evenly from 0 to that, so that
    what failed together does not come back together. Envoy's number."""

    backoff_max_s: float = 0.25
    """... and its end. Envoy's number."""

    hedge_after_s: float = 0.0
    """Send an idempotent request to a second endpoint where the first has not answered within so long, and take the
    answer that comes first (Dean and Barroso, The Tail at Scale, 2013). Set it to the latency that 95 % keep within.
    0 never does. Each is a retry, for `retries_max` and for the cluster's budget."""

    def __post_init__(self) -> None:
        if self.retries_max < 0:
            raise ValueError(f"retries_max is {self.retries_max}; 0 switches retries off")
        for reason in self.reasons:
            if reason not in RETRIABLE:
                raise ValueError(f"reasons: {reason!r} cannot be retried; it must be one of {', '.join(RETRIABLE)}")
        for status in self.statuses:
            if not 300 <= status <= 599:
                raise ValueError(f"statuses: {status} is no answer to try again; it must be from 300 to 599")
        for name in ("try_timeout_s", "total_timeout_s", "backoff_s", "backoff_max_s", "hedge_after_s"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a number of seconds, and 0 is none")


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What we tell the upstream about the client."""

    trusted_peers: tuple[str, ...] = ()
    """Networks, as `10.0.0.0/8`, whose X-Forwarded-* and Forwarded fields are kept and added to. Others' are
    dropped."""

    x_forwarded: bool = True
    """Set X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host."""

    forwarded: bool = True
    """Set Forwarded (RFC 7239)."""

    via: str = ""
    """The name to give in Via (RFC 9110 section 7.6.3), in both directions; none is sent while it is empty."""


@dataclass(frozen=True, slots=True)
class Config:
    """All that can be set in the core."""

    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    http2: Http2 = field(default_factory=Http2)
    websocket: WebSocket = field(default_factory=WebSocket)
    retry: Retry = field(default_factory=Retry)
    forwarding: Forwarding = field(default_factory=Forwarding)

    upgrades: tuple[str, ...] = ("websocket",)
    """Protocols that a client may switch to with Upgrade (RFC 9110 section 7.8). Other wishes are not passed on. `h2c`
    cannot be here: nobody would look at what is asked in it."""

    forward: Forward | None = None
    """Where clients may go by CONNECT, which makes this a forward proxy too. By default nowhere: it is answered 405."""

    trailers: tuple[str, ...] = ("*",)
    """Names of trailer fields that are passed on, in both directions; `*` stands for all. Those that frame, route,
    authenticate or control caches never are, whatever stands here (RFC 9110 section 6.5.1)."""

    http1_codec: Literal["own", "h11"] = "own"
    """What reads and writes HTTP/1: our own codec, or h11, which is laxer and slower, and its judge in our tests."""

    server_name: str = "coulee"
    """How we call ourselves in Proxy-Status (RFC 9209)."""

    cancel_on_half_close: bool = False
    """Take a client's FIN for its leaving. By default it may have closed only its sending side, and is answered."""

    underscore_in_names: Literal["drop", "pass", "refuse"] = "drop"
    """What becomes of request fields with an underscore in their name, which many origins cannot tell from a hyphen:
    they are dropped, or passed on, or their request is refused with 400."""

    def __post_init__(self) -> None:
        for name, known in (("http1_codec", ("own", "h11")), ("underscore_in_names", ("drop", "pass", "refuse"))):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, known))}")
        for protocol in self.upgrades:
            if not PROTOCOL.fullmatch(protocol):
                raise ValueError(f"upgrades: {protocol!r} is no name of a protocol; write one like 'websocket'")
            if protocol.lower() == "h2c":
                raise ValueError("upgrades: h2c would carry requests past every filter; it cannot be allowed")
