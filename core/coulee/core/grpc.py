"""gRPC above HTTP/2: what is a call, when it has to end, and how it is told what went wrong.

Rules:

- A call ends in a status of its own, in trailers, or in a head that is all there is of the answer. HTTP's status tells
  whether the question was understood at all, and is 200 also where the call fails (`PROTOCOL-HTTP2`, below).
- Errors of coulee are such statuses, so that a gRPC library shows code and reason. What an origin or a filter answers
  in plain HTTP is passed on as it is: libraries have a table for that, and nobody here knows better.
- The client's deadline ends a call in whatever state it is, its body included. That is the client's doing, so it counts
  against no endpoint. Grpc-Timeout goes up unchanged with each attempt: the origin's stream is cancelled when the
  deadline comes, so its own clock is but a second guard.
- gRPC needs trailers, which few can read in HTTP/1, so nothing of that version is a call. The filter `GrpcWeb` makes
  calls of what browsers can send.

Sources: github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md (PROTOCOL-HTTP2), doc/statuscodes.md for what the codes mean, and
doc/http-grpc-status-mapping.md for those of HTTP. See `STATUSES` for where we know better than that table can.
"""

from __future__ import annotations

import re
from math import inf
from typing import TYPE_CHECKING, Final

from coulee.core.errors import REASONS, ExchangeError
from coulee.core.headers import Headers
from coulee.core.kernel import Alarm
from coulee.core.parts import Request, Response

if TYPE_CHECKING:
    from coulee.core.exchange import Exchange

CANCELLED: Final = 1
DEADLINE_EXCEEDED: Final = 4
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16

STATUSES: Final = {
    "bad_request": INTERNAL,
    "method_not_allowed": UNIMPLEMENTED,
    "header_timeout": DEADLINE_EXCEEDED,
    "body_timeout": DEADLINE_EXCEEDED,
    "deadline_exceeded": DEADLINE_EXCEEDED,
    "body_too_large": RESOURCE_EXHAUSTED,
    "target_too_long": RESOURCE_EXHAUSTED,
    "header_too_large": RESOURCE_EXHAUSTED,
    "expectation_failed": INTERNAL,
    "misdirected": UNAVAILABLE,
    "plain_http": INTERNAL,
    "not_implemented": UNIMPLEMENTED,
    "version_not_supported": UNIMPLEMENTED,
    "forward_denied": PERMISSION_DENIED,
    "upstream_refused": UNAVAILABLE,
    "upstream_unreachable": UNAVAILABLE,
    "upstream_connect_timeout": UNAVAILABLE,
    "upstream_tls": UNAVAILABLE,
    "upstream_proxy_refused": UNAVAILABLE,
    "upstream_reset": UNAVAILABLE,
    "upstream_timeout": DEADLINE_EXCEEDED,
    "upstream_refused_stream": UNAVAILABLE,
    "upstream_invalid": INTERNAL,
    "upstream_status": UNAVAILABLE,
    "no_healthy_endpoint": UNAVAILABLE,
    "pool_full": UNAVAILABLE,
    "circuit_open": UNAVAILABLE,
    "upgrade_unsupported": UNAVAILABLE,
    "too_many_connections": UNAVAILABLE,
    "filter_error": INTERNAL,
    "internal_error": INTERNAL,
    "shutting_down": UNAVAILABLE,
    # with these nobody is left to be told
    "client_gone": CANCELLED,
    "superseded": CANCELLED,
    "send_timeout": UNAVAILABLE,
    "idle_timeout": UNAVAILABLE,
    "websocket_error": INTERNAL,
    "websocket_too_large": RESOURCE_EXHAUSTED,
    "rate_limited": RESOURCE_EXHAUSTED,
    "http2_flood": RESOURCE_EXHAUSTED,
    "http2_error": INTERNAL,
    "tls_failed": UNAVAILABLE,
    "tls_timeout": UNAVAILABLE,
    "too_many_handshakes": UNAVAILABLE,
    "proxy_header_invalid": UNAVAILABLE,
    "proxy_header_timeout": UNAVAILABLE,
    "proxy_header_untrusted": UNAVAILABLE,
}
"""The status that each reason is for a call. Libraries try again what is UNAVAILABLE, where they try again at all, so
that is for what was not done, and may be done a moment later or elsewhere: no connection was had, not even in time, or
it broke. An origin that took the request and was not done in time may have done it: DEADLINE_EXCEEDED, which the table
for HTTP cannot say, as 504 stands for both. Too much of something is RESOURCE_EXHAUSTED and a slow client
DEADLINE_EXCEEDED, as in nginx's own table (its guide "Publishing gRPC Services"); what breaks the protocol, on either
side, is INTERNAL, as a broken frame is."""

_STATUSES_OF_HTTP: Final = {
    401: UNAUTHENTICATED, 403: PERMISSION_DENIED, 404: UNIMPLEMENTED, 413: RESOURCE_EXHAUSTED, 429: RESOURCE_EXHAUSTED,
    431: RESOURCE_EXHAUSTED, 503: UNAVAILABLE,
}  # fmt: skip
"""... for an error with a status that is closer than its reason's. 429 is what it says, and not UNAVAILABLE: who sends
too much should not be told to try again at once."""

_AFTER_TYPE: Final = (b"", b"+", b";", b" ", b"\t")
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_SECONDS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_ENCODED_IN_MESSAGE: Final = re.compile(rb"[^ -$&-~]")


def is_grpc(request: Request) -> bool:
    """Whether a request is a call: by its version, and by Content-Type, with or without a format (`+proto`)."""
    if request.version < (2, 0) or request.upgrade:
        return False
    headers = request.headers
    kind = (headers._marks or headers.marks).get(b"content-type")
    return kind is not None and kind.startswith(b"application/grpc") and kind[16:17] in _AFTER_TYPE


def timeout_of(value: str) -> float | None:
    """What Grpc-Timeout says, in seconds; None where it is malformed (PROTOCOL-HTTP2: up to eight digits and a unit).
    0 is no positive integer, as the grammar wants one, but everybody knows what it means."""
    found = _TIMEOUT.fullmatch(value)
    return int(found[1]) * _SECONDS[found[2]] if found else None


def call_of(exchange: Exchange) -> Call | None:
    """That an exchange is a call, if it is one. Raises `ExchangeError` where its deadline cannot be read."""
    return Call(exchange) if is_grpc(exchange.request) else None


class Call(Alarm):
    """A call, and the client's deadline for it, which rings. One that cannot be read is an error, as it is in grpc-go:
    to serve it without a deadline would be what nobody has asked for."""

    __slots__ = ("exchange", "limit_s")

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.exchange = exchange
        exchange.downstream.be_patient(exchange.proxy.config.timeouts.grpc_idle_timeout_s)
        self.limit_s = inf
        value = exchange.request.headers.get("grpc-timeout")
        if value is not None:
            limit_s = timeout_of(value)
            if limit_s is None:
                raise ExchangeError("bad_request", "Grpc-Timeout is not a number of up to 8 digits and one of HMSmun")
            self.limit_s = limit_s
            exchange.proxy.kernel.arm(self, exchange.started + limit_s)

    def ring(self, now: float) -> None:
        self.exchange.cancel(ExchangeError("deadline_exceeded", f"no end within the client's {self.limit_s:g} s"))

    def note(self, headers: Headers) -> None:
        """Put the status that is among these fields, if there is one, into the access record."""
        value = headers.get("grpc-status")
        if value is not None and value.isdecimal() and len(value) <= 3:
            self.exchange.tags["grpc_status"] = int(value)

    @property
    def can_be_told(self) -> bool:
        """Whether the answer, whose head was sent, is one that ends in a status. An error page of an origin does not;
        that is cut, as any other, and so is what has announced how long it is going to be."""
        response = self.exchange.response
        assert response is not None
        kind = response.headers.marks.get(b"content-type", b"")
        return response.length is None and kind.startswith(b"application/grpc")


# ------------------------------------------------------------------------------------------ what went wrong


def status_of(error: ExchangeError) -> int:
    """The status of a call that failed with `error`."""
    return _STATUSES_OF_HTTP.get(error.status) or STATUSES[error.reason]


def status_fields(error: ExchangeError) -> Headers:
    """What tells it to a client: the status, and the reason in words, which name nothing that is for the operator."""
    reason = REASONS[error.reason]
    message = encode_message(f"{reason.word}: {reason.meaning}")
    return Headers([("grpc-status", str(status_of(error))), ("grpc-message", message)])


def failed_call(error: ExchangeError, proxy_status: str, kind: str = "application/grpc") -> Response:
    """The whole answer to a call that failed before there was any other ("Trailers-Only")."""
    fields = Headers([("content-type", kind), ("proxy-status", proxy_status)])
    fields.block += status_fields(error).block
    return Response(200, fields, "OK")


def encode_message(text: str) -> str:
    """Text as Grpc-Message has it: UTF-8, and `%` with two digits for what is no printable ASCII, or `%` itself
    (PROTOCOL-HTTP2, Percent-Encoded)."""
    return _ENCODED_IN_MESSAGE.sub(lambda found: b"%%%02X" % ord(found[0]), text.encode()).decode()
