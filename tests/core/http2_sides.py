"""One side of a connection of HTTP/2: the codec, fed by hand, and what comes of it in short words.

side = served()                              # a server that has begun
assert side.hears(headers(1, get("/a"))) == ["1 GET /a end"]
side.write(1, Response(200))
assert side.says() == ["1 200 end"]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hpack import Decoder

from coulee.core.codec import NEED_DATA, Role
from coulee.core.config import Config, Http2, Limits
from coulee.core.headers import Headers
from coulee.core.http2 import Counted, Http2Codec, Leaving, Malformed, News, Ponged, Reset
from coulee.core.http2_frames import ConnectionFault, name_of
from coulee.core.parts import Data, Interim, Part, Request, Response, Trailers
from tests.http2 import frames as h2
from tests.http2.frames import Frame, cut, settings


class Side:
    """A codec, the words for what it reads, and the frames that it writes."""

    def __init__(self, role: Role, config: Config) -> None:
        self.codec = Http2Codec(role, config)
        self.decoder = Decoder()
        self.decoder.max_allowed_table_size = 2**32
        self.news: list[tuple[int, News]] = []
        self.raw = b""
        self.taken = True  # what is read is consumed at once

    # -- what it hears

    def hears(self, *sent: bytes) -> list[str]:
        """Feed it some frames, as one read; gives what it makes of them."""
        if sent:
            self.codec.feed(b"".join(sent))
        words: list[str] = []
        try:
            while isinstance(pulled := self.codec.next_part(), tuple):
                number, news = pulled
                self.news.append(pulled)
                words.append(word_of(number, news))
                if self.taken and isinstance(news, Data):
                    self.codec.consumed(number, len(news.data))
            assert pulled is NEED_DATA
        except ConnectionFault as fault:
            words.append(f"FAULT {name_of(fault.code)}")
        return words

    # -- what it says

    def write(self, stream: int, *parts: Part) -> None:
        """Write some parts."""
        for part in parts:
            written = self.codec.write(stream, part)
            assert isinstance(written, bytes)
            self.raw += written

    def output(self) -> bytes:
        """All that it has to send."""
        raw, self.raw = self.raw + self.codec.output(), b""
        return raw

    def frames(self) -> list[Frame]:
        """The same, cut."""
        frames, rest = cut(self.output())
        assert not rest
        return frames

    def says(self) -> list[str]:
        """The same in words."""
        return [self._word(frame) for frame in self.frames()]

    def flush(self, size_max: int = 2**31) -> list[str]:
        """Let out what waits, and say it in words."""
        self.codec.flush(size_max)
        return self.says()

    def _word(self, frame: Frame) -> str:
        end = " end" if frame.ends else ""
        if frame.type == h2.HEADERS and frame.flags & h2.END_HEADERS:
            pairs = [(name.decode(), value.decode()) for name, value in self.decoder.decode(frame.content, raw=True)]
            found = dict(pairs)
            if ":status" in found:
                return f"{frame.stream} {found[':status']}{end}"
            if ":method" in found:
                return f"{frame.stream} {found[':method']} {found.get(':path', found[':authority'])}{end}"
            return f"{frame.stream} {' '.join(f'{name}={value}' for name, value in pairs)}{end}"
        if frame.type == h2.DATA:
            return f"{frame.stream} DATA {shown(frame.content)}{end}"
        if frame.type == h2.RST_STREAM:
            return f"{frame.stream} RST {frame.code.name}"
        if frame.type == h2.GOAWAY:
            return f"GOAWAY {frame.last} {frame.code.name} {frame.payload[8:].decode()}".rstrip()
        if frame.type == h2.WINDOW_UPDATE:
            return f"{frame.stream} WINDOW +{frame.increment}"
        return f"{frame.name} ACK" if frame.acks else frame.name


def word_of(number: int, news: News) -> str:
    """News in a few words."""
    end = " end" if getattr(news, "ended", False) else ""
    match news:
        case Request():
            return f"{number} {news.method} {news.target}{end}"
        case Response() | Interim():
            return f"{number} {news.status}{end}"
        case Data():
            return f"{number} DATA {shown(news.data)}{end}"
        case Trailers():
            return f"{number} {' '.join(f'{name}={value}' for name, value in news.headers)} trailers".replace("  ", " ")
        case Malformed():
            return f"{number} MALFORMED {news.error.status}"
        case Reset():
            return f"{number} {'BROKEN' if news.ours else 'RESET'} {name_of(news.code)}"
        case Leaving():
            return f"LEAVING {news.last_stream} {news.detail}"
        case Ponged():
            return f"PONG {news.payload.decode()}"
        case Counted():
            return "COUNTED"


def shown(content: bytes) -> str:
    """Short bytes as they are, and how many there are of long ones."""
    return repr(content.decode("latin-1")) if len(content) <= 20 else str(len(content))


def configured(limits: Limits | None = None, **changes: Any) -> Config:
    """A configuration with some settings of HTTP/2 changed."""
    return Config(http2=replace(Http2(), **changes), limits=limits or Limits())


def served(values: dict[int, int] | None = None, config: Config | None = None) -> Side:
    """A server whose client has begun, by these settings."""
    side = Side("server", config or Config())
    assert side.hears(h2.PREFACE, settings(values or {}), settings(ack=True)) == []
    side.output()
    return side


def asking(*requests: Request, values: dict[int, int] | None = None, config: Config | None = None) -> Side:
    """A client that has sent some requests, to a server that has begun."""
    side = Side("client", config or Config())
    side.output()
    assert side.hears(settings(values or {}), settings(ack=True)) == []
    for request in requests:
        side.write(side.codec.next_stream, request)
    side.output()
    return side


def ask(method: str = "GET", target: str = "/", fields: Iterable[tuple[str, str]] = (), **rest: Any) -> Request:
    """A request as it goes to an origin."""
    return Request(method, target, Headers([("Host", "a"), *fields]), (2, 0), **rest)


def head(status: int = 200, fields: Iterable[tuple[str, str]] = ()) -> bytes:
    """The block of an answer."""
    return h2.fields([(":status", str(status)), *fields])
