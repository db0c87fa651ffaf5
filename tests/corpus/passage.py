"""Puts raw bytes through a whole proxy, and through the codec alone, and tells what came out.

Rules:

- The world is `tests/core/world.py`: no sockets, virtual time, every run the same.
- What came out is bytes; who wants to know what they mean asks `reader.py`, which is not ours.
- The origin answers each request that the strict reader finds whole, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Final

from coulee.core import Access, Config, Http2, Limits, Proxy, Request
from coulee.core.codec import NeedData, Paused, ProtocolError
from coulee.core.headers import Headers
from coulee.core.http1 import Http1Codec
from coulee.core.parts import Data, Interim, Response, Trailers
from coulee.lb import Cluster
from tests.core.world import LISTENER, World
from tests.corpus.reader import NotHttp, read_requests

LONG: Final = 2000
"""A message beyond this is not split at every byte: a head of 32 KiB would take minutes, and show nothing new."""

ORIGIN_SAYS: Final = b"ok"
HTTP1: Final = Config(http2=Http2(cleartext=False))
"""The corpora are of HTTP/1: what begins HTTP/2 is a broken request there."""


def whole(data: bytes) -> list[bytes]:
    """All at once."""
    return [data] if data else []


def by_bytes(data: bytes) -> list[bytes]:
    """One byte at a time; a long message in pieces of a prime number of bytes, but for its ends."""
    if len(data) <= LONG:
        return [data[at : at + 1] for at in range(len(data))]
    edges = [*range(64), *range(64, len(data) - 64, 997), *range(len(data) - 64, len(data) + 1)]
    return [data[start:end] for start, end in pairwise(edges)]


def in_two(data: bytes) -> list[list[bytes]]:
    """Every way to cut it in two; of a long message, every 997th, and all near its ends."""
    cuts = range(1, len(data)) if len(data) <= LONG else [len(pieces) for pieces in _prefixes(by_bytes(data))]
    return [[data[:cut], data[cut:]] for cut in cuts]


def _prefixes(pieces: list[bytes]) -> list[bytes]:
    out: list[bytes] = []
    seen = b""
    for piece in pieces[:-1]:
        seen += piece
        out.append(seen)
    return out


# ------------------------------------------------------------------------------------------------- the codec alone


@dataclass(slots=True)
class Heard:
    """A message as a codec read it. `complete` tells whether its end was read."""

    start: str
    authority: str
    headers: Headers
    body: bytes = b""
    trailers: Headers = field(default_factory=Headers)
    complete: bool = False


@dataclass(slots=True)
class Reading:
    """All that a codec read: messages, the statuses of interim answers, and status and reason of the fault that ended
    it."""

    heard: list[Heard] = field(default_factory=list)
    interims: list[int] = field(default_factory=list)
    fault: tuple[int, str] | None = None
    reusable: bool = True

    def take(self, part: object) -> bool:
        """Take in a part; gives whether a message has ended with it."""
        if isinstance(part, Interim):
            self.interims.append(part.status)
            return False
        if isinstance(part, Request):
            self.heard.append(Heard(f"{part.method} {part.target}", part.authority, part.headers, part.data))
            ended = part.ended
        elif isinstance(part, Response):
            self.heard.append(Heard(str(part.status), "", part.headers, part.data))
            ended = part.ended
        elif isinstance(part, Data):
            self.heard[-1].body += part.data
            ended = part.ended
        else:
            assert isinstance(part, Trailers)
            self.heard[-1].trailers = part.headers
            ended = True
        self.heard[-1].complete = ended
        return ended


def read_with(codec: Http1Codec, pieces: list[bytes], *, eof: bool = False) -> Reading:
    """What a codec reads in these pieces. A server answers each request when it has ended."""
    reading = Reading()
    server = codec._server
    for piece in [*pieces, None] if eof else pieces:
        if piece is None:
            codec.feed_eof()
        else:
            codec.feed(piece)
        while True:
            try:
                pulled = codec.next_part()
            except ProtocolError as error:
                reading.fault = (error.status, error.reason)
                reading.reusable = False
                return reading
            if isinstance(pulled, NeedData | Paused):
                break
            if reading.take(pulled[1]) and server:
                codec.write(pulled[0], Response(204))
    reading.reusable = codec.reusable
    return reading


def server_codec() -> Http1Codec:
    """Reads requests."""
    return Http1Codec("server", Limits())


def client_codec(method: str) -> Http1Codec:
    """Reads the answer to a request with this method."""
    codec = Http1Codec("client", Limits())
    codec.write(1, Request(method, "/", Headers({"Host": "a"})))
    return codec


# ---------------------------------------------------------------------------------------------------- a whole proxy


@dataclass(slots=True)
class Passage:
    """What became of the bytes: what each origin connection and the client got, which of them the proxy has closed, and
    what was recorded."""

    origins: list[bytes]
    client: bytes
    client_closed: bool
    access: list[Access]
    origin_closed: bool = False
    later: bytes = b""  # what the client got when time passed


@dataclass(slots=True)
class _Origin:
    conn: int
    got: bytes = b""
    answered: int = 0


class _Stage:
    """A proxy, its client, and origins that answer whole requests."""

    def __init__(self, config: Config) -> None:
        proxy = Proxy(Cluster("http://10.0.0.1"), config=config)
        self.world = World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER]))
        self.client = self.world.client()
        self.origins: list[_Origin] = []

    def connected(self) -> None:
        """Every `Connect` comes through."""
        while self.world.connecting:
            self.origins.append(_Origin(self.world.connects()))

    def client_says(self, piece: bytes) -> None:
        """Unless the proxy has closed or does not read."""
        if self.client not in self.world.closing and self.world.reading[self.client]:
            self.world.receives(self.client, piece)

    def play(self) -> None:
        """The origins take what came, and answer, until nothing happens any more."""
        moved = True
        while moved:
            moved = False
            self.connected()
            for origin in self.origins:
                if sent := self.world.sent(origin.conn):
                    origin.got += sent
                    moved = self._answer(origin) or moved

    def _answer(self, origin: _Origin) -> bool:
        try:
            whole_ones = [message for message in read_requests(origin.got) if message.whole]
        except NotHttp:
            return False  # the test will find it
        new = whole_ones[origin.answered :]
        for message in new:
            origin.answered += 1
            if origin.conn not in self.world.closing:
                said = b"" if message.start[0] == "HEAD" else ORIGIN_SAYS
                self.world.receives(origin.conn, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + said)
        return bool(new)

    def passage(self, wait_s: float) -> Passage:
        got = self.world.sent(self.client)
        if wait_s:
            self.world.wait(wait_s)
        return Passage(
            [origin.got for origin in self.origins],
            got,
            self.client in self.world.closed,
            self.world.access,
            any(origin.conn in self.world.closed for origin in self.origins),
            self.world.sent(self.client),
        )


def pass_request(pieces: list[bytes], *, wait_s: float, config: Config | None = None) -> Passage:
    """Requests on their way: the client sends these pieces, then `wait_s` seconds pass."""
    stage = _Stage(config or HTTP1)
    for piece in pieces:
        stage.client_says(piece)
        stage.play()
    return stage.passage(wait_s)


def pass_answer(pieces: list[bytes], method: str, *, eof: bool) -> Passage:
    """An answer on its way: the origin sends these pieces to a request, and closes behind them if `eof`. The time that
    passes is enough for a client to be let go, and not enough for an idle connection to be closed."""
    stage = _Stage(HTTP1)
    stage.client_says(b"%s /x HTTP/1.1\r\nHost: a\r\n\r\n" % method.encode())
    stage.connected()
    origin = stage.origins[0].conn
    stage.origins[0].got = stage.world.sent(origin)
    for piece in [*pieces, b""] if eof else pieces:
        if origin in stage.world.closing:
            break
        stage.world.receives(origin, piece)
    return stage.passage(wait_s=2)
