"""gRPC-Web to gRPC and back: what a browser can send and read, in front of origins that speak gRPC.

Rules:

- A browser has no use for trailers, so the status of a call comes in a last frame of the body, or, where there is no
  body, in the head. It may also want base64, in both directions.
- Messages are framed alike on both sides and pass as they come. Nothing is kept but up to three characters of base64.
- Each piece of an answer is encoded by itself, with padding: kept back for the next, the end of a message would come
  with the one after it. Clients have to read such padding (PROTOCOL-WEB, "Text-encoded (response) streams").
- Without `origins` nothing is said of who may read the answers: that is for the origin, or another filter, to say.

Sources: github.com/grpc/grpc, doc/PROTOCOL-WEB.md (PROTOCOL-WEB); for what a browser asks before a call, the Fetch
standard, section 3.2.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from coulee.core.answers import proxy_status
from coulee.core.errors import ExchangeError
from coulee.core.filters import Filter
from coulee.core.grpc import Call, failed_call
from coulee.core.headers import TOKEN, Headers
from coulee.core.parts import Request, Response

if TYPE_CHECKING:
    from coulee.core.exchange import Exchange

PLAIN: Final = "application/grpc-web"
TEXT: Final = "application/grpc-web-text"

_SPOKEN: Final = re.compile(rb"application/grpc-web(-text(?:-base64)?)?(\+[^;, \t]+)?[ \t]*(?:;.*)?")
_ACCEPTED: Final = re.compile(r"application/grpc-web(-text)?(?=[-+;, \t]|\Z)")
_ANSWERED: Final = re.compile(r"application/grpc(\+[^;, \t]+)?[ \t]*(?:;.*)?", re.IGNORECASE)
_BETWEEN_PADDING: Final = re.compile(rb"[^=]*=*")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#,*\s]+")
_EXPOSED: Final = ("grpc-status", "grpc-message", "grpc-status-details-bin")
_TRAILERS: Final = b"\x80"
"""The flag of a frame that has trailers, as they are."""


class GrpcWeb(Filter):
    """Lets browsers call what speaks gRPC: `GrpcWeb("https://app.example.com")`. It belongs first in the list of
    filters, so that the others see gRPC in what goes up and comes down.

    `origins` are the sites whose scripts may call, as a browser names them, `scheme://host[:port]`; `"*"` is all of
    them. Requests by which a browser asks beforehand are answered then, and answers say who may read them. Without any
    there is no word of it, which is right where the site and the calls have the same address. `credentials` lets those
    scripts send cookies along, and is for sites that are named. `exposed` are fields of answers for scripts to see,
    next to those of gRPC; `max_age_s` is how long a browser need not ask again.
    """

    def __init__(
        self, *origins: str, credentials: bool = False, exposed: Iterable[str] = (), max_age_s: int = 600
    ) -> None:
        self.any_origin = "*" in origins
        self.origins = frozenset(origins)
        if self.any_origin and len(self.origins) > 1:
            raise ValueError(f'"*" is all origins: leave out the others, or name those that you mean: {origins}')
        if self.any_origin and credentials:
            raise ValueError('credentials for "*" would let any site act as its visitor; name the origins')
        for origin in origins:
            if origin != "*" and _ORIGIN.fullmatch(origin) is None:
                raise ValueError(f"{origin!r} is no origin; write scheme://host[:port], in lower case, with no path")
        names = [*_EXPOSED, *exposed]
        for name in names:
            if not name.isascii() or TOKEN.fullmatch(name.encode()) is None:
                raise ValueError(f"{name!r} in `exposed` is no field name")
        if max_age_s < 0:
            raise ValueError(f"max_age_s is {max_age_s}; it must be 0 or above")
        self.credentials = credentials
        self.exposed = ", ".join(names)
        self.max_age_s = max_age_s

    # -- the request

    def early_request_filter(self, exchange: Exchange) -> Response | None:
        """See `Filter`."""
        request = exchange.request
        if request.method == "POST":
            spoken = _spoken(request)
            if spoken is not None:
                exchange.call = _WebCall(exchange, spoken)
        elif self.origins and request.method == "OPTIONS" and _asks_for_call(request):
            return self._answer_beforehand(request)
        return None

    def upstream_request_filter(self, exchange: Exchange, request: Request) -> None:
        """See `Filter`."""
        call = exchange.call
        if isinstance(call, _WebCall):
            call.rest = b""  # an attempt begins anew
            request.headers.set("content-type", "application/grpc" + call.format)
            request.headers.set("te", "trailers")

    def request_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> bytes | None:
        """See `Filter`."""
        call = exchange.call
        return call.decoded(data, ended) if isinstance(call, _WebCall) and call.asks_in_text else None

    # -- the answer

    def response_filter(self, exchange: Exchange, response: Response) -> None:
        """See `Filter`."""
        call = exchange.call
        if isinstance(call, _WebCall):
            answered = _ANSWERED.fullmatch(response.headers.get("content-type") or "")
            call.translating = answered is not None
            if answered is not None:
                response.headers.set("content-type", call.kind + (answered[1] or ""))
            self._say_who_may_read(exchange.request, response.headers)

    def response_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> bytes | None:
        """See `Filter`."""
        call = exchange.call
        return call.encoded(data) if data and isinstance(call, _WebCall) and call.translating else None

    def response_trailer_filter(self, exchange: Exchange, trailers: Headers) -> bytes | None:
        """See `Filter`."""
        call = exchange.call
        if not isinstance(call, _WebCall) or not call.translating:
            return None
        block = b"".join([b"%s: %s\r\n" % (name.lower(), value) for name, value in trailers.raw()])
        trailers.block = b""
        return call.encoded(_TRAILERS + len(block).to_bytes(4, "big") + block)

    def fail_to_proxy(self, exchange: Exchange, error: ExchangeError) -> Response | None:
        """See `Filter`."""
        request = exchange.request
        spoken = _spoken(request) if request.method == "POST" else None
        if spoken is None:
            return None
        server_name = exchange.proxy.config.server_name
        kind = _kind_of_answer(request, spoken) + _format(spoken)
        answer = failed_call(error, proxy_status(error, server_name), kind)
        self._say_who_may_read(request, answer.headers)
        return answer

    # -- who may call, and read

    def _answer_beforehand(self, request: Request) -> Response:
        """Say to a browser whether a script of this site may call ("CORS preflight")."""
        headers = Headers()
        if not self._say_who_may_read(request, headers):
            return Response(403, headers, "Forbidden")
        headers.remove("access-control-expose-headers")
        headers.add("access-control-allow-methods", "POST")
        headers.add("access-control-allow-headers", request.headers["access-control-request-headers"])
        headers.add("access-control-max-age", str(self.max_age_s))
        return Response(204, headers, "No Content")

    def _say_who_may_read(self, request: Request, headers: Headers) -> bool:
        """Put it among the fields of an answer; True where the site of this request may."""
        if not self.origins:
            return False
        if not self.any_origin:
            headers.add("vary", "origin")  # also where it may not, or a cache would give that to who may
        origin = request.headers.get("origin")
        if origin is None or not (self.any_origin or origin in self.origins):
            return False
        headers.set("access-control-allow-origin", "*" if self.any_origin else origin)
        headers.set("access-control-expose-headers", self.exposed)
        if self.credentials:
            headers.set("access-control-allow-credentials", "true")
        return True


class _WebCall(Call):
    """A call from a browser: in what it asks, in what it is answered, and what is here of its base64."""

    __slots__ = ("answers_in_text", "asks_in_text", "format", "kind", "rest", "translating")

    def __init__(self, exchange: Exchange, spoken: re.Match[bytes]) -> None:
        super().__init__(exchange)
        self.asks_in_text = spoken[1] is not None
        self.format = _format(spoken)
        self.kind = _kind_of_answer(exchange.request, spoken)
        self.answers_in_text = self.kind is TEXT
        self.rest = b""  # of the request's body: up to three characters
        self.translating = False  # whether the answer is one of gRPC

    def encoded(self, data: bytes) -> bytes:
        """A piece of the answer, as the client wants it."""
        return b2a_base64(data, newline=False) if self.answers_in_text else data

    def decoded(self, data: bytes, ended: bool) -> bytes:
        """What a piece of base64 completes. Raises `ExchangeError` where it is none."""
        text = self.rest + data
        whole = len(text) & ~3
        self.rest = text[whole:]
        try:
            if ended and self.rest:
                raise Base64Error("it ends within a group")
            return _bytes_of(text[:whole])
        except Base64Error as error:
            raise ExchangeError("bad_request", f"the body is not base64: {error}") from None


def _bytes_of(text: bytes) -> bytes:
    """What whole groups of base64 mean. Padding may be anywhere between them, where a client has encoded in pieces."""
    if b"=" not in text[:-2]:
        return a2b_base64(text, strict_mode=True)
    return b"".join([a2b_base64(piece, strict_mode=True) for piece in _BETWEEN_PADDING.findall(text)])


# ------------------------------------------------------------------------------------------ what a request says


def _spoken(request: Request) -> re.Match[bytes] | None:
    """What Content-Type says of a request of gRPC-Web; None where it is none."""
    kind = request.headers.marks.get(b"content-type")
    return _SPOKEN.fullmatch(kind) if kind is not None else None


def _format(spoken: re.Match[bytes]) -> str:
    """The format of the messages, as `+proto`."""
    return (spoken[2] or b"").decode("latin-1")


def _kind_of_answer(request: Request, spoken: re.Match[bytes]) -> str:
    """What a client reads: what comes first in Accept, or else what it speaks itself."""
    accepted = _ACCEPTED.search((request.headers.get("accept") or "").lower())
    in_text = accepted[1] if accepted else spoken[1]
    return PLAIN if in_text is None else TEXT


def _asks_for_call(request: Request) -> bool:
    """Whether a browser asks for a script if it may call: all clients have X-Grpc-Web among the fields that they want
    to send, and what asks for anything else is not for us to answer."""
    headers = request.headers
    wanted = (headers.get("access-control-request-headers") or "").lower()
    method = headers.get("access-control-request-method")
    return method == "POST" and "origin" in headers and "x-grpc-web" in re.split(r"[, \t]+", wanted)
