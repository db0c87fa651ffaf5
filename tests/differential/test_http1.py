"""Our own codec beside h11, on messages that were damaged at random: where both accept, they have read the same."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import pytest

from coulee.core.codec import NeedData, Paused, ProtocolError, Role
from coulee.core.config import Limits
from coulee.core.headers import Headers
from coulee.core.http1 import Http1Codec
from coulee.core.http1_h11 import H11Codec
from coulee.core.parts import Data, Interim, Request, Response, Trailers

CASES = 200_000 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 4_000
BLOCKS = 4

REQUESTS = (
    b"GET /a?b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: u\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"PUT http://b/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    b"GET / HTTP/1.0\r\n\r\n",
)
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 103 E\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.0 200\r\n\r\nabc",
    b"HTTP/1.1 204 No Content\r\n\r\n",
)
DEBRIS = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"#", b"*", b"0", b"\xff", b"f" * 16, b"HTTP/1.0",
    b"chunked", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"Connection: close\r\n",
)  # fmt: skip

STRICTER_H11 = ("illegal chunk header",)
"""What h11 refuses and we read: blanks around a chunk extension, which must be parsed (RFC 9112 section 7.1.1)."""


def damaged(rng: Random, data: bytes) -> bytes:
    """A message with up to four injuries."""
    out = bytearray(data)
    for _ in range(rng.randint(0, 4)):
        at = rng.randint(0, len(out))
        kind = rng.randint(0, 4)
        if kind == 0:
            del out[at : at + 1]
        elif kind == 1:
            out[at:at] = rng.choice(DEBRIS)
        elif kind == 2:
            out[at : at + 1] = bytes([rng.randint(0, 255)])
        elif kind == 3:
            out[at:at] = out[max(0, at - 8) : at]
        else:
            del out[at : at + rng.randint(0, 10)]
    return bytes(out)


def read(role: Role, codec: Http1Codec | H11Codec, pieces: list[bytes]) -> tuple[list[Any], ProtocolError | None]:
    """All that a codec reads, with the pieces of a body joined, and the fault that ended it."""
    seen: list[Any] = []
    body = b""
    for piece in [*pieces, None]:
        if piece is None:
            codec.feed_eof()
        else:
            codec.feed(piece)
        while True:
            try:
                pulled = codec.next_part()
            except ProtocolError as error:
                return [*seen, body], error
            if isinstance(pulled, NeedData | Paused):
                break
            stream, part = pulled
            ended = isinstance(part, Trailers)
            if isinstance(part, Interim):
                seen.append((part.status, fields(part.headers)))
            elif isinstance(part, Request):
                seen.append((part.method, part.target, part.version, part.authority, part.length, fields(part.headers)))
            elif isinstance(part, Response):
                seen.append((part.status, part.version, part.length, fields(part.headers)))
            elif isinstance(part, Trailers):
                seen.append(fields(part.headers))
            if isinstance(part, Request | Response | Data):
                body += part.data
                ended = part.ended
            if ended:
                seen.append(body)
                body = b""
                if role == "server":
                    codec.write(stream, Response(204))
    return [*seen, body], None


def fields(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Names in lower case, and values but for the case of `chunked`, which h11 changes."""
    pairs = [(name.lower(), value) for name, value in headers.raw()]
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in pairs]


def fresh(kind: type[Http1Codec | H11Codec], role: Role) -> Http1Codec | H11Codec:
    codec = kind(role, Limits())
    if role == "client":
        codec.write(1, Request("GET", "/", Headers({"Host": "a"})))
    return codec


@pytest.mark.parametrize("block", range(BLOCKS))
def test_where_both_accept_they_agree_and_no_split_changes_anything(block: int) -> None:
    rng = Random(f"differential {block}")
    accepted = refused = 0
    for _ in range(CASES // BLOCKS):
        role: Role = "server" if rng.random() < 0.7 else "client"
        whole = b"".join(rng.choices(REQUESTS, k=rng.randint(1, 2))) if role == "server" else rng.choice(ANSWERS)
        data = damaged(rng, whole)
        ours, our_fault = read(role, fresh(Http1Codec, role), [data])
        cut = rng.randint(0, len(data))
        again, fault = read(role, fresh(Http1Codec, role), [piece for piece in (data[:cut], data[cut:]) if piece])
        assert again == ours, (data, cut)
        assert _words(fault) == _words(our_fault), (data, cut)
        theirs, their_fault = read(role, fresh(H11Codec, role), [data])
        if our_fault is not None:
            refused += 1
        elif their_fault is None:
            accepted += 1
            assert ours == theirs, data
        else:
            assert str(their_fault).startswith(STRICTER_H11), (data, their_fault)
    assert min(accepted, refused) > CASES // BLOCKS // 20, "both kinds are there"


def _words(fault: ProtocolError | None) -> tuple[int, str] | None:
    return None if fault is None else (fault.status, fault.reason)
