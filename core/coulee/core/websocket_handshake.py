"""The opening handshake of a WebSocket where a client and an origin speak different versions of HTTP.

By HTTP/1.1 a client sends a key, and the 101 proves by it that the origin has understood (RFC 6455 section 4). By
HTTP/2 there is neither, for the extended CONNECT itself says so much (RFC 8441 section 5). Rules:

- Between two of HTTP/1.1 nothing is touched.
- Towards an origin of HTTP/1.1 a client of HTTP/2 has a key of ours, and the origin's proof is checked.
- A client of HTTP/1.1 gets its proof from us, where an origin of HTTP/2 has accepted.
- All other `Sec-WebSocket-` fields mean the same in both, and pass.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha1, sha256
from typing import TYPE_CHECKING, Final

from coulee.core.errors import ExchangeError
from coulee.core.http2_upstream import OriginStream

if TYPE_CHECKING:
    from random import Random

    from coulee.core.exchange import Exchange
    from coulee.core.parts import Request, Response

KEY: Final = "Sec-WebSocket-Key"
ACCEPT: Final = "Sec-WebSocket-Accept"

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")
"""The base64 of 16 bytes (RFC 6455 section 4.1)."""


def put_key(exchange: Exchange, request: Request) -> None:
    """Make a request for a WebSocket one of the version that goes to the origin. Raises `ExchangeError` for a client's
    key that is none, where nobody else would look at it."""
    by_http2 = exchange.request.version >= (2, 0)
    if isinstance(exchange.upstream, OriginStream):
        if not by_http2 and _KEY.fullmatch(request.headers.get(KEY) or "") is None:
            raise ExchangeError("bad_request", "no Sec-WebSocket-Key of 16 bytes (RFC 6455 section 4.2.1)")
        request.headers.remove(KEY)
    elif by_http2:
        request.headers.set(KEY, new_key(exchange.rng))


def check_acceptance(exchange: Exchange, response: Response) -> None:
    """Whether an origin has understood what it was asked. Raises `ExchangeError` where it has not."""
    if exchange.request.version < (2, 0) or isinstance(exchange.upstream, OriginStream):
        return
    assert exchange.upstream_request is not None
    key = exchange.upstream_request.headers.get(KEY) or ""
    if response.headers.get(ACCEPT) != accept_of(key):
        raise ExchangeError("upstream_invalid", "a wrong Sec-WebSocket-Accept, or none (RFC 6455 section 4.1)")


def pass_acceptance(exchange: Exchange, response: Response) -> None:
    """Make a 101 for a WebSocket one of the client's version."""
    if exchange.request.version >= (2, 0):
        response.headers.remove(ACCEPT)
    elif isinstance(exchange.upstream, OriginStream):
        response.headers.set(ACCEPT, accept_of(exchange.request.headers.get(KEY) or ""))


def new_key(rng: Random) -> str:
    """A key for one handshake, that tells nothing of the randomness which it is from."""
    return b64encode(sha256(rng.randbytes(32)).digest()[:16]).decode()


def accept_of(key: str) -> str:
    """The proof that a key was read (RFC 6455 section 4.2.2)."""
    return b64encode(sha1((key + _GUID).encode("latin-1"), usedforsecurity=False).digest()).decode()
