"""Why an exchange ended as it did: one closed list of words, used in access records, metrics, answers and the docs.

`REASONS` is the table; docs/errors.md is written from it. Everything that can go wrong in the world raises
`ExchangeError` with one of its words; `assert` is for our own mistakes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from coulee.core.seam import ErrorKind

Side: TypeAlias = Literal["downstream", "upstream", "coulee"]


@dataclass(frozen=True, slots=True)
class Reason:
    """One word of the list.

    `status` is what the client is answered by default, 0 where there is nobody left to answer; `side` is whose doing it
    was; `proxy_error` is the error type of RFC 9209 section 2.3; `advice` tells an operator what to do.
    """

    word: str
    status: int
    side: Side
    proxy_error: str
    meaning: str
    advice: str


_LIST: Final = [
    # the client's doing
    Reason("bad_request", 400, "downstream", "http_request_error",
           "the request breaks HTTP", "Mend the client; the detail names the rule."),
    Reason("method_not_allowed", 405, "downstream", "http_request_denied",
           "CONNECT or TRACE, which a gateway refuses", "Use another method."),
    Reason("header_timeout", 408, "downstream", "http_request_error",
           "the request's head did not arrive in time", "Raise `head_timeout_s` if real clients are that slow."),
    Reason("body_timeout", 408, "downstream", "http_request_error",
           "the request's body stopped arriving, or came too slowly",
           "See `body_idle_timeout_s` and `body_rate_min_bytes_per_s` if real clients are that slow."),
    Reason("body_too_large", 413, "downstream", "http_request_error",
           "the request's body is over the limit",
           "Raise `request_body_bytes_max`, or the limit that a filter gives to `exchange.body(limit)`."),
    Reason("target_too_long", 414, "downstream", "http_request_error",
           "the request's first line is over the limit", "Raise `line_bytes_max`, or send what is so long in a body."),
    Reason("deadline_exceeded", 504, "downstream", "http_response_timeout",
           "the gRPC call was not over by the deadline that its client gave it",
           "Nothing, unless there are many: then look at latency, or have the clients wait longer."),
    Reason("expectation_failed", 417, "downstream", "http_request_error",
           "an Expect field other than 100-continue", "Send no Expect field."),
    Reason("misdirected", 421, "downstream", "http_request_error",
           "the request is for a host that this connection is not for: its certificate is another's, or it has no TLS",
           "Send it to that host's own address; add the name to the certificate, or see `covered_only`."),
    Reason("plain_http", 400, "downstream", "http_request_error",
           "plain HTTP was sent to a port where TLS is spoken", "Write https:// in place of http://."),
    Reason("tls_failed", 0, "downstream", "tls_protocol_error",
           "the TLS handshake with the client failed", "The detail says why; seen in events only."),
    Reason("tls_timeout", 0, "downstream", "tls_protocol_error",
           "the TLS handshake with the client took too long",
           "Raise `tls_handshake_timeout_s` if real clients are that slow; seen in events only."),
    Reason("proxy_header_invalid", 0, "downstream", "http_request_error",
           "the connection did not begin with a header of the PROXY protocol",
           "Have the balancer send one, or listen without it; seen in events only."),
    Reason("proxy_header_timeout", 0, "downstream", "http_request_error",
           "the header of the PROXY protocol did not come in time", "Look at the balancer; seen in events only."),
    Reason("proxy_header_untrusted", 0, "downstream", "http_request_denied",
           "somebody connected who may not say for whom, at a listener of the PROXY protocol",
           "Add the balancer to `trusted`; seen in events only."),
    Reason("too_many_handshakes", 0, "downstream", "connection_limit_reached",
           "the client's address has too many TLS handshakes under way",
           "Raise `handshakes_per_address_max`; seen in events only."),
    Reason("header_too_large", 431, "downstream", "http_request_error",
           "the request's head is over the limit", "Raise `head_bytes_max` or `fields_max`, or send fewer cookies."),
    Reason("not_implemented", 501, "downstream", "http_request_error",
           "a transfer coding, a method or a protocol to switch to that coulee does not do",
           "Send the body plain or chunked; see `upgrades` for what may be switched to."),
    Reason("version_not_supported", 505, "downstream", "http_request_error",
           "an HTTP version that coulee does not speak", "Speak HTTP/1.1."),
    Reason("client_gone", 0, "downstream", "connection_terminated",
           "the client left before its answer was whole", "Nothing, unless there are many: then look at latency."),
    Reason("send_timeout", 0, "downstream", "connection_write_timeout",
           "the client stopped reading its answer", "Raise `send_stall_timeout_s` if real readers pause that long."),
    Reason("idle_timeout", 0, "downstream", "connection_read_timeout",
           "no byte came in either direction of an upgraded connection for too long",
           "Send pings, as WebSocket has them; or raise `upgraded_idle_timeout_s`."),
    Reason("websocket_error", 0, "downstream", "http_request_error",
           "the client broke WebSocket, so that it was closed with the code for that",
           "Mend the client; the detail names the rule."),
    Reason("websocket_too_large", 0, "downstream", "http_request_error",
           "the client sent a WebSocket message that is over a limit: closed with 1009",
           "Raise `message_bytes_max`, `fragments_max` or `inflate_ratio_max`, or send smaller messages."),
    Reason("rate_limited", 429, "downstream", "http_request_denied",
           "the client sent more than it may in a time",
           "See `messages_per_s`, `bytes_per_s` and `controls_per_s` if real clients do that."),
    Reason("forward_denied", 403, "downstream", "http_request_denied",
           "CONNECT to where nobody may go through this proxy",
           "Add the host and the port to `forward`, if they are to be reached."),
    Reason("http2_flood", 0, "downstream", "http_request_denied",
           "the client sent more than is allowed of what costs it nothing: resets, pings, empty frames and the like",
           "Look at who it is; see `glitches_max` and `resets_max` if real clients do that."),
    Reason("http2_error", 0, "downstream", "http_request_error",
           "the client broke HTTP/2 so that its connection had to end", "Mend the client; the detail names the rule."),
    # the origin's doing
    Reason("upstream_refused", 502, "upstream", "connection_refused",
           "nothing listens at the endpoint's address", "Start the origin, or correct its address."),
    Reason("upstream_unreachable", 502, "upstream", "destination_ip_unroutable",
           "no route to the endpoint, or its name does not resolve", "Check the address, DNS and network."),
    Reason("upstream_connect_timeout", 504, "upstream", "connection_timeout",
           "the endpoint did not accept the connection in time",
           "Look at the origin's backlog; see `connect_timeout_s`."),
    Reason("upstream_tls", 502, "upstream", "tls_protocol_error",
           "the TLS handshake with the endpoint failed", "The detail says why; check its certificate and name."),
    Reason("upstream_proxy_refused", 502, "upstream", "connection_refused",
           "the proxy on the way to the endpoint refused to let us through",
           "The detail has its status: 407 asks for a user and password, 403 does not allow the endpoint."),
    Reason("upstream_reset", 502, "upstream", "connection_terminated",
           "the endpoint closed the connection before its answer was whole", "Look at the origin's log."),
    Reason("upstream_timeout", 504, "upstream", "http_response_timeout",
           "the endpoint did not answer in time", "Find out why it is slow; see `answer_timeout_s`."),
    Reason("upstream_invalid", 502, "upstream", "http_protocol_error",
           "the endpoint's answer breaks HTTP", "The detail names the rule; mend the origin."),
    Reason("upstream_refused_stream", 503, "upstream", "destination_unavailable",
           "the endpoint said that it did not process the request: it refused it, or wants another connection for it",
           "Nothing, if it was restarted; else it is overloaded: see `upstream_streams_max`."),
    Reason("upstream_status", 502, "upstream", "http_response_incomplete",
           "the endpoint answered with a status that is tried again elsewhere",
           "Seen in attempts only: see `statuses`, of what is retried."),
    # ours
    Reason("no_healthy_endpoint", 503, "coulee", "destination_unavailable",
           "the cluster has no endpoint to offer", "Look at the health of the cluster's endpoints."),
    Reason("pool_full", 503, "coulee", "connection_limit_reached",
           "every connection to the endpoint is busy and the queue is full or took too long",
           "Raise `connections_per_peer_max`, or add endpoints."),
    Reason("circuit_open", 503, "coulee", "destination_unavailable",
           "every endpoint has failed too often and is left alone for a while",
           "Look at the origins' errors; the cluster's Breaker says when circuits open."),
    Reason("upgrade_unsupported", 502, "coulee", "http_upgrade_failed",
           "the endpoint switches to nothing: it speaks HTTP/2 and has not offered to, or has answered a client of "
           "HTTP/2 as though that had asked for a page",
           "Have the origin offer extended CONNECT (RFC 8441), or let it be reached by HTTP/1.1."),
    Reason("superseded", 0, "coulee", "connection_terminated",
           "another attempt at the same request answered first", "Seen in attempts only: see `hedge_after_s`."),
    Reason("too_many_connections", 503, "coulee", "connection_limit_reached",
           "the client's address, or all clients together, have too many connections",
           "Raise `connections_per_address_max` or `downstream_connections_max`; name proxies in `trusted_peers`."),
    Reason("filter_error", 500, "coulee", "proxy_internal_error",
           "a filter raised an exception", "The report has the traceback; mend the filter."),
    Reason("internal_error", 500, "coulee", "proxy_internal_error",
           "coulee itself raised an exception", "Please report it with the traceback."),
    Reason("shutting_down", 503, "coulee", "proxy_internal_response",
           "the grace period of a shutdown ended", "Nothing; raise the grace period if exchanges take longer."),
]  # fmt: skip

REASONS: Final = {reason.word: reason for reason in _LIST}


class ExchangeError(Exception):
    """What went wrong in an exchange. `reason` is a word of `REASONS`, `detail` is text for people.

    `status` may differ from the table's where a message has a closer one.
    """

    def __init__(self, reason: str, detail: str = "", status: int | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail or REASONS[reason].meaning)
        self.reason = reason
        self.detail = detail
        self.status = REASONS[reason].status if status is None else status
        self.retry_after_s = retry_after_s
        """With a 503: when it is worth asking again."""

    @property
    def side(self) -> Side:
        """Whose doing it was."""
        return REASONS[self.reason].side

    def __str__(self) -> str:
        return f"{self.reason}: {self.args[0]}"


_CONNECT: Final[dict[ErrorKind | None, str]] = {
    "refused": "upstream_refused",
    "unreachable": "upstream_unreachable",
    "timed_out": "upstream_connect_timeout",
    "tls": "upstream_tls",
    "resources": "upstream_unreachable",
}


def connect_error(kind: ErrorKind | None, detail: str) -> ExchangeError:
    """What a failed connect means for the exchange that wanted it."""
    return ExchangeError(_CONNECT.get(kind, "upstream_reset"), detail)
