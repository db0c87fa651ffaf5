"""Hides secrets from a recording: what stands in bodies, queries and fields, byte for byte, before it is kept.

Rules:

- What is hidden keeps its length, so framing stays true, and a replay takes the same way as long as nobody looks at
  what was hidden. Bodies become `x`, queries and values become `*`.
- It follows HTTP/1 loosely, for the core has judged it, or will. Behind the first line that it cannot follow, and
  behind an upgrade, all is hidden but the ends of lines.
- Hiding twice is hiding once. So what a replay sends, which is made of hidden bytes, compares with what was sent.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from coulee.core.seam import Send

CREDENTIALS: Final = frozenset(
    {"authorization", "proxy-authorization", "authentication-info", "proxy-authentication-info", "cookie", "set-cookie"}
    | {"x-api-key", "x-auth-token", "x-csrf-token"}
)
"""What the word `credentials` stands for."""

FRAMING: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"}
    | {"max-forwards", "content-type", "range", "proxy-connection"}
)
"""What the word `fields` spares, for without it nothing could be read."""

WORDS: Final = ("bodies", "query", "credentials", "fields")
_LINE_MAX: Final = 64 << 10
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNKNOWN: Final = re.compile(rb"[^\r\n]")
_VALUE: Final = re.compile(rb"[^ \t\r\n]")
_QUERY: Final = re.compile(rb"(?<=\?)[^ \r\n]+")
_START: Final = re.compile(rb"HTTP/1\.[0-9] ([0-9]{3})|(?!PRI )([^ ]+) .* HTTP/[0-9]\.[0-9]\r?$")
_LENGTH: Final = re.compile(rb"(?i)content-length:[ \t]*([0-9]{1,18})[ \t]*\r?$")
_CHUNKED: Final = re.compile(rb"(?i)transfer-encoding:.*\bchunked[ \t]*\r?$")


class Redaction:
    """What is to be hidden, as `--record-redact` says it: names of fields, and the words in `WORDS`.

    Raises ValueError for what can be neither, and for fields that frame or route.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names: Sequence[str] = sorted({name.strip().lower() for name in names})
        for name in self.names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is neither a field's name nor one of {', '.join(WORDS)}")
            if name in FRAMING:
                raise ValueError(f"{name!r} cannot be hidden: a replay could not follow")
        chosen = set(self.names)
        self.bodies = "bodies" in chosen
        self.query = "query" in chosen
        self.most_fields = "fields" in chosen
        self.fields = chosen.difference(WORDS)
        if "credentials" in chosen:
            self.fields |= CREDENTIALS

    def redactor(self) -> HttpRedactor:
        """One for a machine's recording, or for a replay of it."""
        return HttpRedactor(self)

    def hides(self, name: str) -> bool:
        """Whether the values of a field are hidden."""
        return name in self.fields or (self.most_fields and name not in FRAMING)


_HANDSHAKE: Final = b"\x16"
_PROXY_LINE_MAX: Final = 107
_PROXY_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"


class HttpRedactor:
    """See `coulee.backends.recorder.Redactor`."""

    def __init__(self, redaction: Redaction) -> None:
        self.names = redaction.names
        self._redaction = redaction
        self._conversations: dict[int, _Conversation] = {}

    def opened(self, conn: int, was_accepted: bool) -> None:
        self._conversations[conn] = _Conversation(self._redaction, was_accepted)

    def received(self, conn: int, data: bytes) -> bytes:
        conversation = self._conversations.get(conn)
        return data if conversation is None else conversation.hear(data)

    def sent(self, operation: Send) -> Send:
        conversation = self._conversations.get(operation.conn)
        data = operation.data if isinstance(operation.data, bytes) else b"".join(operation.data)
        return operation if conversation is None else Send(operation.conn, conversation.tell(data), operation.eof)

    def closed(self, conn: int) -> None:
        self._conversations.pop(conn, None)


def _length_of_header(data: bytes) -> int | None:
    """How long the header of the PROXY protocol is that a connection begins with, which says who the client is and must
    be said in a replay too: 0 where there is none, None where that is not known yet."""
    if data.startswith(b"PROXY "):
        end = data.find(b"\r\n", 0, _PROXY_LINE_MAX)
        return end + 2 if end >= 0 else 0 if len(data) >= _PROXY_LINE_MAX else None
    if data.startswith(_PROXY_SIGNATURE):
        return 16 + int.from_bytes(data[14:16], "big") if len(data) >= 16 else None
    return None if b"PROXY ".startswith(data) or _PROXY_SIGNATURE.startswith(data) else 0


class _Conversation:
    """One connection: requests one way, answers the other."""

    def __init__(self, redaction: Redaction, was_accepted: bool) -> None:
        self.methods: deque[bytes] = deque()  # of requests that are not answered yet
        self.beginning: bytes | None = b""  # of what is heard, until it is known what it is
        self.has_told = False  # something was sent
        self.in_hello = False  # what is heard is the beginning of TLS, in which there is nothing to hide
        requests, answers = _Way(redaction, self), _Way(redaction, self)
        self.ways = requests, answers
        self.heard, self.told = (requests, answers) if was_accepted else (answers, requests)

    def hear(self, data: bytes) -> bytes:
        """What is received, as it is kept."""
        if self.in_hello:
            return data
        if self.beginning is None:
            return self.heard.hide(data)
        whole = self.beginning + data
        length = _length_of_header(whole)
        if length is None or length > len(whole):
            self.beginning = whole
            return data
        self.beginning = None
        known = len(whole) - len(data)
        header, rest = whole[:length], whole[length:]
        self.in_hello = rest.startswith(_HANDSHAKE)
        if header and not rest:
            self.beginning = b""  # TLS may be behind it
        return (header + (rest if self.in_hello else self.heard.hide(rest)))[known:]

    def tell(self, data: bytes) -> bytes:
        """What is sent, as it is kept. A header of ours is sent whole, and first."""
        length = 0
        if not self.has_told and data:
            self.has_told = True
            length = _length_of_header(data) or 0
        return data[:length] + self.told.hide(data[length:])

    def lose_track(self) -> None:
        """What follows, in both directions, is not HTTP/1."""
        for way in self.ways:
            way.lost = True


class _Way:
    """One direction of a connection. `hide` is given its bytes as they come, in whatever pieces."""

    def __init__(self, redaction: Redaction, conversation: _Conversation) -> None:
        self._redaction = redaction
        self._conversation = conversation
        self.lost = False
        self._line = b""  # what has come of the present line
        self._expects: Callable[[bytes], None] = self._start_line  # what a whole line means
        self._body_left = 0
        self._until_end = False  # the body has no other end than that of the connection
        self._status = 0
        self._method = b""
        self._length: int | None = None
        self._chunked = False
        self._in_trailers = False

    def hide(self, data: bytes) -> bytes:
        out: list[bytes] = []
        at = 0
        while at < len(data):
            if self.lost:
                out.append(_UNKNOWN.sub(b"x", data[at:]))
                break
            if self._until_end or self._body_left:
                piece = data[at:] if self._until_end else data[at : at + self._body_left]
                self._body_left -= 0 if self._until_end else len(piece)
                out.append(b"x" * len(piece) if self._redaction.bodies else piece)
            else:
                piece = data[at : data.find(b"\n", at) + 1 or len(data)]
                out.append(self._piece_of_line(piece))
            at += len(piece)
        return b"".join(out)

    # -- lines

    def _piece_of_line(self, piece: bytes) -> bytes:
        before = len(self._line)
        self._line += piece
        hidden = self._hidden(self._line)[before:]
        if piece.endswith(b"\n"):
            line, self._line = self._line[:-1], b""
            self._expects(line)
        elif len(self._line) > _LINE_MAX:
            self._conversation.lose_track()
        return hidden

    def _hidden(self, line: bytes) -> bytes:
        """A line, or the beginning of one. What is hidden of a beginning is hidden of the whole."""
        redaction = self._redaction
        if self._expects == self._start_line:
            return _starred(_QUERY, line) if redaction.query else line
        name, colon, value = line.partition(b":")
        if self._expects != self._field_line or not colon:
            return line
        known = name.decode("latin-1").strip().lower()
        if redaction.hides(known):
            value = _starred(_VALUE, value)
        elif redaction.query and known in ("referer", "location", "content-location"):
            value = _starred(_QUERY, value)
        return name + colon + value

    def _start_line(self, line: bytes) -> None:
        if line in (b"", b"\r"):
            return  # an empty line before a request (RFC 9112 section 2.2)
        found = _START.match(line)
        if found is None:
            self._conversation.lose_track()
            return
        self._status, self._method = int(found[1] or 0), found[2] or b""
        self._length, self._chunked, self._in_trailers = None, False, False
        self._expects = self._field_line

    def _field_line(self, line: bytes) -> None:
        if line in (b"", b"\r"):
            self._expects = self._start_line
            if not self._in_trailers:
                self._head_ended()
        elif (length := _LENGTH.match(line)) is not None:
            self._length = int(length[1])
        elif _CHUNKED.match(line) is not None:
            self._chunked = True

    def _head_ended(self) -> None:
        """What follows it (RFC 9112 section 6.3)."""
        conversation, status = self._conversation, self._status
        if self._method:
            conversation.methods.append(self._method)
        elif status == 101:
            conversation.lose_track()
            return
        elif status < 200:
            return  # the answer is yet to come
        elif (conversation.methods.popleft() if conversation.methods else b"") == b"HEAD" or status in (204, 304):
            return
        elif not self._chunked and self._length is None:
            self._until_end = True
        if self._chunked:
            self._expects = self._chunk_line
        else:
            self._body_left = self._length or 0

    def _chunk_line(self, line: bytes) -> None:
        size = re.match(rb"[0-9A-Fa-f]{1,15}", line)
        if size is None:
            self._conversation.lose_track()
        elif int(size[0], 16):
            self._body_left = int(size[0], 16)
            self._expects = self._behind_chunk
        else:
            self._expects = self._field_line
            self._in_trailers = True

    def _behind_chunk(self, _: bytes) -> None:
        self._expects = self._chunk_line


def _starred(pattern: re.Pattern[bytes], text: bytes) -> bytes:
    return pattern.sub(lambda found: b"*" * len(found[0]), text)
