"""A second, independent reader of HTTP/1: small, slow, strict, and sharing no code with coulee.

It reads whole streams that have been collected, cuts them line by line, and accepts nothing but what RFC 9112 generates
(with obs-text in values and blanks around chunk extensions, which a recipient has to bear). What it reads in the bytes
that a proxy sent is what any correct origin or client would have read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import h11

_TOKEN: Final = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_REQUEST_LINE: Final = re.compile(rb"(%s) ([!-~]+) HTTP/1\.([01])" % _TOKEN)
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2}) ?([\t -~\x80-\xff]*)")
_FIELD: Final = re.compile(rb"(%s):[ \t]*([\t -~\x80-\xff]*?)[ \t]*" % _TOKEN)
_QUOTED: Final = rb'"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t -~\x80-\xff])*"'
_EXTENSION: Final = rb"[ \t]*;[ \t]*%s(?:[ \t]*=[ \t]*(?:%s|%s))?" % (_TOKEN, _TOKEN, _QUOTED)
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:%s)*" % _EXTENSION)

Field = tuple[bytes, bytes]


@dataclass(slots=True)
class Message:
    """A message as it was read. Names of fields are in lower case; `whole` tells whether its body has ended."""

    start: tuple[str, ...]  # method and target, or the status
    minor: int
    fields: list[Field]
    body: bytes = b""
    trailers: list[Field] = field(default_factory=list)
    whole: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of this name."""
        return [value for known, value in self.fields if known == name]


class NotHttp(Exception):
    """The stream is none of whole, strict messages; the text says where it breaks."""


class _Cut(Exception):
    """The stream ends in the middle of a message."""


@dataclass(slots=True)
class _Source:
    data: bytes
    at: int = 0

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise _Cut
        line = self.data[self.at : end + 1]
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise NotHttp(f"a line that CRLF does not end: {line[:60]!r}")
        self.at = end + 1
        return line[:-2]

    def fields(self) -> list[Field]:
        fields: list[Field] = []
        while line := self.line():
            match = _FIELD.fullmatch(line)
            if match is None:
                raise NotHttp(f"no field: {line[:60]!r}")
            fields.append((match[1].lower(), match[2]))
        return fields

    def take(self, count: int, message: Message) -> None:
        piece = self.data[self.at : self.at + count]
        self.at += len(piece)
        message.body += piece
        if len(piece) < count:
            raise _Cut

    def chunks(self, message: Message) -> None:
        while True:
            match = _CHUNK_LINE.fullmatch(line := self.line())
            if match is None:
                raise NotHttp(f"no line of a chunk: {line[:60]!r}")
            size = int(match[1], 16)
            if not size:
                break
            self.take(size, message)
            if self.line():
                raise NotHttp("a chunk that its size does not end")
        message.trailers = self.fields()

    def body(self, message: Message, until_end: bool) -> None:
        """The body, framed by exactly one of the ways that RFC 9112 section 6.3 knows."""
        codings, lengths = message.values(b"transfer-encoding"), message.values(b"content-length")
        if len(codings) + len(lengths) > 1:
            raise NotHttp("more than one field frames the body")
        if codings:
            if codings[0].lower() != b"chunked" or not message.minor:
                raise NotHttp(f"Transfer-Encoding: {codings[0]!r} in HTTP/1.{message.minor}")
            self.chunks(message)
        elif lengths:
            if not re.fullmatch(rb"[0-9]+", lengths[0]):
                raise NotHttp(f"Content-Length: {lengths[0]!r}")
            self.take(int(lengths[0]), message)
        elif until_end:
            message.body = self.data[self.at :]
            self.at = len(self.data)
        message.whole = True


def read_requests(data: bytes, *, empty_line: bool = False) -> list[Message]:
    """The requests in a stream; the last may not be whole, and is not there at all if its head is not. With
    `empty_line`, one may stand before each (RFC 9112 section 2.2). Raises `NotHttp`."""
    source = _Source(data)
    read: list[Message] = []
    try:
        while source.at < len(data):
            line = source.line()
            if not line and empty_line:
                line = source.line()
            match = _REQUEST_LINE.fullmatch(line)
            if match is None:
                raise NotHttp(f"no request line: {line[:60]!r}")
            message = Message((match[1].decode(), match[2].decode()), int(match[3]), source.fields())
            read.append(message)
            if len(message.values(b"host")) != 1 and message.minor:
                raise NotHttp("not exactly one Host")
            source.body(message, until_end=False)
    except _Cut:
        pass
    return read


def read_answers(data: bytes, methods: list[str], *, ended: bool) -> list[Message]:
    """The answers in a stream, interim ones among them, to requests of these methods. `ended` tells whether the
    connection has ended in order behind them. Raises `NotHttp`."""
    source = _Source(data)
    waiting = list(methods)
    read: list[Message] = []
    try:
        while source.at < len(data):
            match = _STATUS_LINE.fullmatch(line := source.line())
            if match is None:
                raise NotHttp(f"no status line: {line[:60]!r}")
            status = int(match[2])
            message = Message((str(status),), int(match[1]), source.fields())
            read.append(message)
            if status < 200:
                message.whole = True
                continue
            if not waiting:
                raise NotHttp("more answers than requests")
            if waiting.pop(0) == "HEAD" or status in (204, 304):
                message.whole = True
                continue
            source.body(message, until_end=True)
            if not message.values(b"content-length") and not message.values(b"transfer-encoding"):
                message.whole = ended
    except _Cut:
        pass
    return read


def heard_by_h11(data: bytes) -> list[tuple[str, str, bytes]]:
    """Method, target and body of each request that h11 finds whole in a stream, for a second opinion."""
    heard: list[tuple[str, str, bytes]] = []
    if not data:
        return heard
    conn = h11.Connection(h11.SERVER)
    conn.receive_data(data)
    start = ("", "")
    body = b""
    while True:
        event = conn.next_event()
        if isinstance(event, h11.Request):
            start, body = (event.method.decode(), event.target.decode()), b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            heard.append((*start, body))
            conn.send(h11.Response(status_code=204, headers=[]))
            conn.send(h11.EndOfMessage())
            if conn.our_state is not h11.DONE:
                return heard
            conn.start_next_cycle()
        else:
            return heard
