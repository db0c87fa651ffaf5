"""Parts: the pieces of an HTTP message, the same for every protocol version and both directions.

Rules:

- A head (`Request`, `Response`) carries the first bytes of its body and whether that is all of it, so a small message
  is one part. Otherwise `Data` parts follow, the last one `ended`; or `Trailers`, which end a body too.
- `length` is what the message declares its body to be, in bytes; None where only its end tells. It is framing, so it is
  here and not among the fields: codecs take Content-Length and Transfer-Encoding out of what they write and put their
  own. So is `upgrade`, the protocol that a request asks to switch to, or that a 101 switches to; "" in all others.
- `sensitive` names the fields, in lower case, that the sender wants in no table of header compression, which those
  after us have to respect (RFC 7541 section 7.1.3).
- Parts are mutable until they are handed on; filters change heads in place.
"""

from __future__ import annotations

import json as _json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from coulee.core.headers import Headers

NOTHING_SENSITIVE: Final[frozenset[bytes]] = frozenset()

Fields: TypeAlias = Headers | Mapping[str, str] | Iterable[tuple[str, str]]


@dataclass(slots=True)
class Request:
    """The head of a request.

    `target` is the request target in origin form (`/path?query`), absolute form, or `*`, as text of one byte a
    character (ISO 8859-1, so no byte is lost). `version` is `(1, 1)`. `authority` is the Host, or what replaces it.
    """

    method: str
    target: str
    headers: Headers = field(default_factory=Headers)
    version: tuple[int, int] = (1, 1)
    scheme: str = "http"
    authority: str = ""
    length: int | None = 0
    data: bytes = b""
    ended: bool = True
    upgrade: str = ""
    sensitive: frozenset[bytes] = NOTHING_SENSITIVE

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the first `?` of the target, or nothing."""
        return self.target.partition("?")[2]


@dataclass(slots=True)
class Response:
    """The head of a final answer. `reason` is the phrase of HTTP/1, which later versions do not have."""

    status: int
    headers: Headers = field(default_factory=Headers)
    reason: str = ""
    version: tuple[int, int] = (1, 1)
    length: int | None = 0
    data: bytes = b""
    ended: bool = True
    upgrade: str = ""
    sensitive: frozenset[bytes] = NOTHING_SENSITIVE


@dataclass(slots=True)
class Interim:
    """An answer before the answer: 100, 103 (RFC 9110 section 15.2). Never 101, which is a `Response`."""

    status: int
    headers: Headers = field(default_factory=Headers)
    reason: str = ""


@dataclass(slots=True)
class Data:
    """Bytes of a body, without their framing."""

    data: bytes
    ended: bool = False


@dataclass(slots=True)
class Trailers:
    """Fields after the body (RFC 9110 section 6.5); they end it."""

    headers: Headers


Part: TypeAlias = Request | Response | Interim | Data | Trailers


def respond(
    status: int,
    body: bytes | str = b"",
    *,
    json: Any = None,
    headers: Fields = (),
    content_type: str | None = None,
) -> Response:
    """An answer made here, for a filter to return: `respond(401, json={"error": "missing key"})`.

    `body` is sent as it is, text as UTF-8; `json` is encoded. The type is guessed from which of them was given, unless
    `content_type` or `headers` say it.
    """
    fields = Headers(headers)
    if json is not None:
        body = _json.dumps(json).encode()
        content_type = content_type or "application/json"
    elif isinstance(body, str):
        body = body.encode()
        content_type = content_type or "text/plain; charset=utf-8"
    if content_type and "content-type" not in fields:
        fields.add("Content-Type", content_type)
    return Response(status, fields, length=len(body), data=body, ended=True)
