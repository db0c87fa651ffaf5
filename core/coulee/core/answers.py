"""The answers that coulee itself gives when something went wrong.

They name the reason in three places, always with the same word of `errors.REASONS`: in the body (JSON, or a small page
for a browser; a call of gRPC has it in its status), in Proxy-Status (RFC 9209), and in the access record. They never
tell an address or an exception's text: those are for the operator, who finds them in the record.
"""

from __future__ import annotations

import json
from math import ceil
from typing import TYPE_CHECKING, Final

from coulee.core.errors import REASONS, ExchangeError
from coulee.core.grpc import failed_call, is_grpc
from coulee.core.headers import Headers
from coulee.core.parts import Response

if TYPE_CHECKING:
    from coulee.core.parts import Request

_PAGE: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>{status} {phrase}</title>'
    "<style>body{{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:32em;padding:0 1em;color:#223}}"
    "h1{{font-size:1.4em}}code{{background:#eef;padding:.1em .3em}}</style>"
    "<h1>{status} {phrase}</h1><p>{meaning}.</p><p><code>{word}</code></p></html>\n"
)

METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
"""What we pass on, for Allow."""

PHRASES: Final = {
    100: "Continue",
    101: "Switching Protocols",
    103: "Early Hints",
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    206: "Partial Content",
    301: "Moved Permanently",
    302: "Found",
    303: "See Other",
    304: "Not Modified",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    411: "Length Required",
    412: "Precondition Failed",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    417: "Expectation Failed",
    421: "Misdirected Request",
    422: "Unprocessable Content",
    426: "Upgrade Required",
    428: "Precondition Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}
"""Reason phrases (RFC 9110 section 15, RFC 6585), for answers that bring none of their own."""


def error_answer(error: ExchangeError, request: Request, server_name: str) -> Response:
    """The answer to a request that failed with `error`."""
    if is_grpc(request):
        return failed_call(error, proxy_status(error, server_name))
    reason = REASONS[error.reason]
    status = error.status
    phrase = PHRASES.get(status, "Error")
    headers = Headers()
    if _wants_page(request):
        headers.add("Content-Type", "text/html; charset=utf-8")
        meaning = reason.meaning[0].upper() + reason.meaning[1:]
        body = _PAGE.format(status=status, phrase=phrase, meaning=meaning, word=reason.word).encode()
    else:
        headers.add("Content-Type", "application/json")
        body = json.dumps({"error": reason.word, "status": status, "message": reason.meaning}).encode() + b"\n"
    headers.add("Cache-Control", "no-store")
    headers.add("Proxy-Status", proxy_status(error, server_name))
    if status == 503:
        headers.add("Retry-After", str(ceil(error.retry_after_s)))  # in whole seconds (RFC 9110 section 10.2.3)
    if status == 405:
        headers.add("Allow", METHODS)
    return Response(status, headers, phrase, length=len(body), data=body, ended=True)


def proxy_status(error: ExchangeError, server_name: str) -> str:
    """What Proxy-Status says of it (RFC 9209 section 2)."""
    reason = REASONS[error.reason]
    return f'{server_name}; error={reason.proxy_error}; details="{reason.word}"'


def _wants_page(request: Request) -> bool:
    """Whether the client is a browser: it names HTML, and before any JSON (RFC 9110 section 12.5.1, as far as it
    matters)."""
    accept = (request.headers.get("accept") or "").lower()
    page = accept.find("text/html")
    data = accept.find("json")
    return page >= 0 and (data < 0 or page < data)
