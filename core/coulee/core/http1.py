"""HTTP/1.1, strict and fast: our own codec, in both roles, behind the contract of `codec.py`.

A head is taken when its empty line is there: one regular expression validates all of its fields at once, and the few
that mean something to us are searched for in a lower-case copy, which `Headers` would need anyway. Nothing else is cut.
Rules, with their sections of RFC 9112 unless another is named:

- A line ends with CRLF, and neither CR, LF nor NUL stands anywhere else; a folded field is refused (2.2, 5.2).
- The body of a request, in this order (6.3): Transfer-Encoding with Content-Length, refused; Transfer-Encoding other
  than `chunked`, once, in 1.1, refused; chunked; Content-Length, once and in digits; none.
- The body of an answer: none to HEAD, with 204 and with 304; then the same; else all up to the end of the connection.
- A body that ends early is a fault, never an end (8).
- What we write is framed by us: by its length, by chunks, or, for a client of HTTP/1.0, by closing (6.1).
- What is wrong, and what is said of it, does not depend on how the bytes were split.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from coulee.core.answers import PHRASES
from coulee.core.codec import NEED_DATA, PAUSED, ProtocolError, Pulled
from coulee.core.config import Limits
from coulee.core.headers import TOKEN, Headers, field_pattern
from coulee.core.parts import Data, Interim, Part, Request, Response, Trailers
from coulee.core.seam import Bytes

Role: TypeAlias = Literal["server", "client"]

JOIN_MAX: Final = 16384
"""Up to this many bytes a head, a chunk's size and its data are joined; beyond, copying costs more than a list."""


# ------------------------------------------------------------------------------------------------ the grammar

_T: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

_REQUEST_LINE: Final = re.compile(rb"(%s++) ([\x21-\x7e]++) HTTP/([0-9])\.([0-9])" % _T)
_STATUS_LINE: Final = re.compile(rb"HTTP/([0-9])\.([0-9]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*+))?")
_FIELDS: Final = re.compile(rb"(?:\r\n%s++:[\t\x20-\x7e\x80-\xff]*+)*+" % _T)
_TARGET: Final = re.compile(r"[\x21-\x7e]+")
_PHRASE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

_CHUNK_LINE: Final = re.compile(
    rb'([0-9A-Fa-f]{1,16})((?:[ \t]*;[ \t]*%s+(?:[ \t]*=[ \t]*(?:%s+|"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]'
    rb'|\\[\t\x20-\x7e\x80-\xff])*"))?)*)' % (_T, _T)
)
"""chunk-size and chunk-ext (section 7.1)."""

_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]+)(?::[0-9]*)?")
"""uri-host with an optional port (RFC 9110 section 7.2), never empty (section 4.2.1)."""

_ABSOLUTE: Final = re.compile(rb"(?i)https?://([^/?#]*)([^#]*)")
_FRAMING: Final = field_pattern(("content-length", "transfer-encoding"))

_NOT_IN_TRAILERS: Final = field_pattern(
    ("transfer-encoding", "content-length", "content-encoding", "content-type", "content-range", "trailer", "host",
     "connection", "te", "upgrade", "expect", "max-forwards", "range", "cache-control", "authorization", "cookie",
     "set-cookie", "proxy-authenticate", "proxy-authorization", "www-authenticate", "keep-alive", "age", "date",
     "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
)  # fmt: skip
"""Framing, routing, authentication and what controls caches must not come late (RFC 9110 section 6.5.1)."""

_METHODS: Final = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
_REFUSED_METHODS: Final = frozenset({"CONNECT", "TRACE"})
_BODY_EXPECTED: Final = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose request says Content-Length: 0 where it has no body (RFC 9110 section 8.6)."""


class Reading(Enum):
    """Where in a message of the peer we are."""

    HEAD = auto()
    LENGTH = auto()  # so many bytes of body are left
    CHUNK_LINE = auto()
    CHUNK_DATA = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    UNTIL_END = auto()  # of the connection
    DONE = auto()


class Writing(Enum):
    """Where in a message of ours we are."""

    HEAD = auto()
    LENGTH = auto()
    CHUNKS = auto()
    UNTIL_END = auto()
    DONE = auto()


class Http1Codec:
    """One HTTP/1.1 connection. `role` is ours: `"server"` reads requests, `"client"` reads answers."""

    __slots__ = ("_asked", "_blank_line_seen", "_data", "_eof", "_error", "_expects_continue", "_extensions",
                 "_interims", "_keep", "_last", "_left", "_limits", "_old", "_reading", "_scanned", "_server",
                 "_stream", "_trailers", "_writing", "_writing_left")  # fmt: skip

    def __init__(self, role: Role, limits: Limits) -> None:
        self._server = role == "server"
        self._limits = limits
        self._data = b""  # fed, and not given out
        self._scanned = 0  # how much of it holds no end of a head
        self._eof = False
        self._error: ProtocolError | None = None
        self._stream = 1
        self._last = False  # the present exchange is to be the last, because we say so
        self._keep = True  # the peer lets the connection stand after it
        self._reading = Reading.HEAD
        self._left = 0  # bytes of the body, or of the chunk
        self._extensions = 0  # bytes of chunk extensions in this body
        self._trailers: Trailers | None = None
        self._blank_line_seen = False
        self._interims = 0
        self._expects_continue = False
        self._asked = ""  # the method of the request
        self._old = False  # the client speaks HTTP/1.0
        self._writing = Writing.HEAD
        self._writing_left = 0

    # -- state

    @property
    def buffered(self) -> int:
        """See `Codec`."""
        return len(self._data)

    @property
    def reusable(self) -> bool:
        """See `Codec`. Bytes that an origin sends behind its answer spoil the connection."""
        if self._last or self._error is not None or not self._keep:
            return False
        return self._server or self._reading is not Reading.DONE or not (self._eof or self._data)

    @property
    def idle(self) -> bool:
        """See `Codec`."""
        if self._data or self._error is not None:
            return False
        if self._reading is Reading.HEAD:
            return self._writing is Writing.HEAD
        return self._reading is Reading.DONE and self._writing is Writing.DONE

    @property
    def expects_continue(self) -> bool:
        """See `Codec`."""
        return self._expects_continue

    def close_after(self) -> None:
        """See `Codec`."""
        self._last = True

    def consumed(self, stream: int, count: int) -> None:
        """HTTP/1 has no window."""

    # -- reading

    def feed(self, data: bytes) -> None:
        """See `Codec`."""
        self._data = self._data + data if self._data else data

    def feed_eof(self) -> None:
        """See `Codec`."""
        self._eof = True

    def next_part(self) -> Pulled:
        """See `Codec`."""
        if self._error is not None:
            raise self._error
        reading = self._reading
        if reading is Reading.DONE:
            if self._trailers is not None:
                trailers, self._trailers = self._trailers, None
                return self._stream, trailers
            if not self._server or self._writing is not Writing.DONE or not self.reusable:
                return PAUSED
            self._next_cycle()
            reading = Reading.HEAD
        try:
            part = self._head() if reading is Reading.HEAD else self._rest_of_body()
        except ProtocolError as error:
            self._error = error if self._server else _of_origin(error)
            if not error.body:
                raise self._error from None
            part = Data(error.body)
        return NEED_DATA if part is None else (self._stream, part)

    def _next_cycle(self) -> None:
        self._stream += 1
        self._reading = Reading.HEAD
        self._writing = Writing.HEAD
        self._scanned = 0
        self._extensions = 0
        self._interims = 0
        self._blank_line_seen = False
        self._expects_continue = False
        self._asked = ""
        self._old = False

    def _head(self) -> Part | None:
        """The next head with what is there of its body."""
        data = self._data
        if self._server and not self._blank_line_seen and data.startswith(b"\r\n"):
            # Old clients send an empty line behind a body: one is ignored (section 2.2).
            self._blank_line_seen = True
            self._data = data = data[2:]
        end = data.find(b"\r\n\r\n", self._scanned)
        if end < 0:
            self._check_incomplete(data)
            self._scanned = max(len(data) - 3, 0)
            return None
        self._scanned = 0
        line_end = data.find(b"\r\n")
        self._check_size(line_end, end + 4)
        block = data[line_end:end]
        if _FIELDS.fullmatch(block) is None:
            raise ProtocolError(_what_is_wrong_with(block))
        if block.count(b"\r\n") > self._limits.fields_max:
            raise ProtocolError(f"more than {self._limits.fields_max} fields", 431, "header_too_large")
        if len(block) > self._limits.line_bytes_max:
            self._check_lines(block)
        self._data = data[end + 4 :]
        headers = Headers.from_block(block)
        if self._server:
            return self._request(data[:line_end], headers)
        return self._answer(data[:line_end], headers)

    def _check_incomplete(self, data: bytes) -> None:
        """What can be said of a head that is not whole: that it never will be, or that it is too large already."""
        if self._server:
            if data and data[0] not in _TOKEN_BYTES and data != b"\r":
                raise ProtocolError("this does not begin like a request")
        elif data[:5] != b"HTTP/"[: len(data)]:
            raise ProtocolError("the answer does not begin with HTTP/")
        line_end = data.find(b"\r\n")
        self._check_size(len(data) - 1 if line_end < 0 else line_end, len(data))
        if self._eof and data:
            raise self._cut()
        if self._eof and not self._server:
            raise self._cut()

    def _check_size(self, line: int, head: int) -> None:
        limits = self._limits
        if line > limits.line_bytes_max:
            detail = f"the first line is longer than {limits.line_bytes_max} bytes"
            raise ProtocolError(detail, 414, "target_too_long")
        if head > limits.head_bytes_max:
            raise ProtocolError(f"the head is larger than {limits.head_bytes_max} bytes", 431, "header_too_large")

    def _check_lines(self, block: bytes) -> None:
        """No field is longer than a line may be."""
        if max(map(len, block.split(b"\r\n"))) > self._limits.line_bytes_max:
            detail = f"a field is longer than {self._limits.line_bytes_max} bytes"
            raise ProtocolError(detail, 431, "header_too_large")

    def _cut(self) -> ProtocolError:
        if self._server:
            return ProtocolError("the client closed the connection in the middle of a request", 0, "client_gone")
        return ProtocolError("the connection was closed before the answer was whole", 502, "upstream_reset")

    # -- requests, read

    def _request(self, line: bytes, headers: Headers) -> Request:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError("the request line is not `method SP target SP HTTP/x.y` (RFC 9112 section 3)")
        raw_method, raw_target, major, minor = match.groups()
        method = _METHODS.get(raw_method) or raw_method.decode("latin-1")
        self._asked = method
        self._old = old = _is_old(major, minor)
        if method in _REFUSED_METHODS:
            raise ProtocolError(f"{method} is not for a gateway", 405, "method_not_allowed")
        block, lower = headers.block, headers.lower
        length, chunked = _framing(block, lower, old)
        host = _only(block, lower, b"\r\nhost:")
        if host is None:
            if not old:
                raise ProtocolError("no Host field (RFC 9112 section 3.2)")
            authority = ""
        else:
            authority = _authority(host)
        target = raw_target.decode("latin-1")
        if raw_target[0] != 0x2F or b"#" in raw_target:
            target, absolute = _other_target(raw_target, method)
            if absolute is not None:
                authority = absolute
                headers.set("Host", absolute)  # what it said is to be ignored (section 3.2.2)
        if not old and lower.find(b"\r\nexpect:") >= 0:
            self._expect(headers, length, chunked)
        self._keep = not old and (lower.find(b"\r\nconnection:") < 0 or "close" not in _tokens(headers))
        request = Request(method, target, headers, (1, 0) if old else (1, 1), "http", authority,
                          None if chunked else length or 0)  # fmt: skip
        self._begin_body(request, length, chunked)
        return request

    def _expect(self, headers: Headers, length: int | None, chunked: bool) -> None:
        expect = (headers.get("expect") or "").lower()
        if expect != "100-continue":
            raise ProtocolError(f"Expect: {expect} is not 100-continue", 417, "expectation_failed")
        self._expects_continue = chunked or bool(length)

    def _begin_body(self, head: Request | Response, length: int | None, chunked: bool) -> None:
        """From here on the body is read; what is there of it goes with the head."""
        if chunked:
            self._reading = Reading.CHUNK_LINE
        elif length:
            self._reading = Reading.LENGTH
            self._left = length
        else:
            self._reading = Reading.DONE
            return
        self._take_along(head)

    def _take_along(self, head: Request | Response) -> None:
        """A small message is one part. A fault in its body waits for its turn."""
        if not self._data:
            head.ended = False
            return
        try:
            part = self._body()
        except ProtocolError as error:
            self._error = error if self._server else _of_origin(error)
            head.data, head.ended = error.body, False
            return
        head.ended = False
        if isinstance(part, Data):
            head.data, head.ended = part.data, part.ended
            self._expects_continue = False
        elif part is not None:
            self._trailers = part

    # -- answers, read

    def _answer(self, line: bytes, headers: Headers) -> Response | Interim:
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError("the status line is not `HTTP/x.y SP status SP phrase` (RFC 9112 section 4)")
        major, minor, code, phrase = match.groups()
        old = _is_old(major, minor)
        status = int(code)
        reason = phrase.decode("latin-1") if phrase else ""
        if status < 200:
            return self._interim(status, reason, headers)
        block, lower = headers.block, headers.lower
        length, chunked = _framing(block, lower, old)
        self._keep = not old and (lower.find(b"\r\nconnection:") < 0 or "close" not in _tokens(headers))
        response = Response(status, headers, reason, (1, 0) if old else (1, 1), None if chunked else length)
        if status in (204, 304) or self._asked == "HEAD":
            if status == 204:
                response.length = 0
            self._reading = Reading.DONE
        elif chunked or length is not None:
            self._begin_body(response, length, chunked)
        else:
            self._reading = Reading.UNTIL_END
            self._keep = False
            response.ended = False
            response.data, self._data = self._data, b""
        return response

    def _interim(self, status: int, reason: str, headers: Headers) -> Interim:
        if status == 101:
            raise ProtocolError("a 101 that nobody asked for")
        if headers.lower.find(b"\r\ntransfer-encoding:") >= 0 or headers.lower.find(b"\r\ncontent-length:") >= 0:
            raise ProtocolError(f"a {status} with a body (RFC 9110 section 15.2)")
        self._interims += 1
        if self._interims > self._limits.interims_max:
            raise ProtocolError(f"more than {self._limits.interims_max} interim answers")
        return Interim(status, headers, reason)

    # -- bodies, read

    def _rest_of_body(self) -> Part | None:
        self._expects_continue = self._expects_continue and not self._data
        part = self._body()
        if part is None and self._eof:
            raise self._cut()
        return part

    def _body(self) -> Data | Trailers | None:
        """What is there of the body."""
        reading = self._reading
        data = self._data
        if reading is Reading.LENGTH:
            if not data:
                return None
            left = self._left
            if len(data) <= left:
                self._data = b""
            else:
                self._data = data[left:]
                data = data[:left]
            self._left = left = left - len(data)
            if not left:
                self._reading = Reading.DONE
            return Data(data, not left)
        if reading is Reading.UNTIL_END:
            self._data = b""
            if self._eof:
                self._reading = Reading.DONE
                return Data(data, True)
            return Data(data) if data else None
        return self._chunks()

    def _chunks(self) -> Data | Trailers | None:
        """All that is there of a chunked body, in one part."""
        pieces: list[bytes] = []
        data = self._data
        at = 0
        try:
            while True:
                reading = self._reading
                if reading is Reading.CHUNK_DATA:
                    piece = data[at : at + self._left]
                    if not piece:
                        break
                    pieces.append(piece)
                    at += len(piece)
                    self._left -= len(piece)
                    if self._left:
                        break
                    self._reading = Reading.CHUNK_END
                elif reading is Reading.CHUNK_END:
                    if len(data) - at < 2:
                        if data[at:] not in (b"", b"\r"):
                            raise ProtocolError("no CRLF behind a chunk (RFC 9112 section 7.1)")
                        break
                    if data[at : at + 2] != b"\r\n":
                        raise ProtocolError("no CRLF behind a chunk (RFC 9112 section 7.1)")
                    at += 2
                    self._reading = Reading.CHUNK_LINE
                elif reading is Reading.CHUNK_LINE:
                    line_end = self._chunk_line(data, at)
                    if line_end < 0:
                        break
                    at = line_end
                else:
                    return self._end_of_chunks(pieces, data[at:])
        except ProtocolError as error:
            error.body = b"".join(pieces)  # it came before the fault, and goes on before it
            raise
        self._data = data[at:]
        return Data(b"".join(pieces) if len(pieces) != 1 else pieces[0]) if pieces else None

    def _chunk_line(self, data: bytes, at: int) -> int:
        """Read the size of a chunk; gives where the line ends, -1 where it does not yet."""
        limits = self._limits
        end = data.find(b"\r\n", at)
        length = (len(data) if end < 0 else end) - at
        if length > limits.chunk_line_bytes_max:
            raise ProtocolError(f"the line of a chunk is longer than {limits.chunk_line_bytes_max} bytes")
        if end < 0:
            if length and data[at] not in _HEX_BYTES:
                raise ProtocolError("a chunk does not begin with its size (RFC 9112 section 7.1)")
            return -1
        match = _CHUNK_LINE.fullmatch(data, at, end)
        if match is None:
            raise ProtocolError("the line of a chunk is not its size and extensions (RFC 9112 section 7.1)")
        self._extensions += len(match[2])
        if self._extensions > limits.chunk_extensions_bytes_max:
            raise ProtocolError(f"more than {limits.chunk_extensions_bytes_max} bytes of chunk extensions")
        self._left = int(match[1], 16)
        self._reading = Reading.CHUNK_DATA if self._left else Reading.TRAILERS
        return end + 2

    def _end_of_chunks(self, pieces: list[bytes], data: bytes) -> Data | Trailers | None:
        """The fields behind the last chunk, up to the empty line (section 7.1.2)."""
        limits = self._limits
        block = b""
        if data.startswith(b"\r\n"):
            self._data = data[2:]
        else:
            end = data.find(b"\r\n\r\n")
            if (len(data) if end < 0 else end) > limits.trailers_bytes_max:
                detail = f"the trailers are larger than {limits.trailers_bytes_max} bytes"
                raise ProtocolError(detail, 431, "header_too_large")
            if end < 0:
                self._data = data
                return Data(b"".join(pieces)) if pieces else None
            block = b"\r\n" + data[:end]
            if _FIELDS.fullmatch(block) is None:
                raise ProtocolError(_what_is_wrong_with(block))
            if block.count(b"\r\n") > limits.trailer_fields_max:
                raise ProtocolError(f"more than {limits.trailer_fields_max} trailers", 431, "header_too_large")
            self._data = data[end + 4 :]
            block = _NOT_IN_TRAILERS.sub(b"", block)
        self._reading = Reading.DONE
        if not block:
            return Data(b"".join(pieces), True)
        trailers = Trailers(Headers.from_block(block))
        if not pieces:
            return trailers
        self._trailers = trailers
        return Data(b"".join(pieces))

    # -- writing

    def write(self, stream: int, part: Part) -> Bytes:
        """See `Codec`."""
        if isinstance(part, Data):
            return self._write_data(part.data, part.ended)
        if isinstance(part, Response):
            return self._write_response(part)
        if isinstance(part, Request):
            return self._write_request(part)
        if isinstance(part, Interim):
            if not 100 <= part.status <= 199 or part.status == 101:
                raise ProtocolError(f"{part.status} is no interim answer")
            self._expects_continue = self._expects_continue and part.status != 100
            phrase = _phrase(part.status, part.reason)
            return b"HTTP/1.1 %d %s%s\r\n\r\n" % (part.status, phrase, _FRAMING.sub(b"", part.headers.block))
        return self._write_trailers(part)

    def _write_request(self, part: Request) -> Bytes:
        if self._writing is Writing.DONE and self._reading is Reading.DONE:
            self._next_cycle()
        method = part.method
        if method not in _BY_TEXT and TOKEN.fullmatch(method.encode("latin-1", "replace")) is None:
            raise ProtocolError(f"{method!r} is no method")
        if _TARGET.fullmatch(part.target) is None:
            raise ProtocolError(f"{part.target!r} is no target")
        block, lower = part.headers.block, part.headers.lower
        if lower.find(b"\r\nhost:") < 0:
            raise ProtocolError("a request needs a Host field (RFC 9112 section 3.2)")
        length = part.length
        _check_length(part.data, length, part.ended)
        if length is None:
            framing = b"\r\nTransfer-Encoding: chunked"
            self._writing = Writing.CHUNKS
        else:
            framing = b"\r\nContent-Length: %d" % length if length or method in _BODY_EXPECTED else b""
            self._writing = Writing.LENGTH
            self._writing_left = length
        self._asked = method
        if self._last:
            framing += b"\r\nConnection: close"
        head = b"%s %s HTTP/1.1%s%s\r\n\r\n" % (
            method.encode(), part.target.encode("latin-1"), _unframed(block, lower), framing,
        )  # fmt: skip
        return self._with_body(head, part.data, part.ended)

    def _write_response(self, part: Response) -> Bytes:
        status = part.status
        if not 200 <= status <= 999:
            raise ProtocolError(f"{status} is no status of an answer")
        if self._writing is not Writing.HEAD:
            raise ProtocolError("a second answer to one request")
        phrase = _phrase(status, part.reason)
        block, lower = part.headers.block, part.headers.lower
        length = part.length
        bodiless = status in (204, 304) or self._asked == "HEAD"
        framing = b""
        if bodiless:
            if length is not None and status != 204:
                framing = b"\r\nContent-Length: %d" % length
            writing = Writing.DONE
        else:
            _check_length(part.data, length, part.ended)
            if length is not None:
                framing = b"\r\nContent-Length: %d" % length
                writing = Writing.LENGTH
                self._writing_left = length
            elif self._old:
                writing = Writing.UNTIL_END
            else:
                framing = b"\r\nTransfer-Encoding: chunked"
                writing = Writing.CHUNKS
        self._writing = writing
        if lower.find(b"\r\nconnection:") >= 0 and "close" in _tokens(part.headers):
            self._last = True  # a filter says so
        elif not self.reusable:
            framing += b"\r\nConnection: close"
        head = b"HTTP/1.1 %d %s%s%s\r\n\r\n" % (status, phrase, _unframed(block, lower), framing)
        return head if writing is Writing.DONE else self._with_body(head, part.data, part.ended)

    def _with_body(self, head: bytes, data: bytes, ended: bool) -> Bytes:
        if not data and not ended:
            return head
        body = self._write_data(data, ended)
        if isinstance(body, list):
            return [head, *body]
        return head + body if len(body) <= JOIN_MAX else [head, body]

    def _write_data(self, data: bytes, ended: bool) -> Bytes:
        writing = self._writing
        if writing is Writing.LENGTH:
            self._writing_left -= len(data)
            if self._writing_left < 0 or (ended and self._writing_left):
                raise ProtocolError("a body is longer or shorter than its head announced")
        elif writing is Writing.CHUNKS:
            if ended:
                self._writing = Writing.DONE
            return _chunked(data, ended)
        elif writing is not Writing.UNTIL_END:
            raise ProtocolError("a body without a head, or behind its end")
        if ended:
            self._writing = Writing.DONE
        return data

    def _write_trailers(self, part: Trailers) -> bytes:
        if self._writing is not Writing.CHUNKS:
            self._write_data(b"", True)  # nobody could read them behind another framing
            return b""
        self._writing = Writing.DONE
        return b"0%s\r\n\r\n" % _NOT_IN_TRAILERS.sub(b"", part.headers.block)


# --------------------------------------------------------------------------------------------------- heads, read

_TOKEN_BYTES: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_HEX_BYTES: Final = frozenset(b"0123456789ABCDEFabcdef")
_BY_TEXT: Final = frozenset(_METHODS.values())


def _of_origin(error: ProtocolError) -> ProtocolError:
    """A fault of an origin is a bad gateway, whatever it is."""
    if error.reason == "upstream_reset":
        return error
    return ProtocolError(error.detail, 502, "upstream_invalid")


def _is_old(major: bytes, minor: bytes) -> bool:
    """Whether this is HTTP/1.0. Raises `ProtocolError` for what is neither that nor 1.1."""
    if major == b"1" and minor == b"1":
        return False
    if major == b"1" and minor == b"0":
        return True
    version = f"HTTP/{major.decode()}.{minor.decode()}"
    raise ProtocolError(f"{version} is not spoken here", 505, "version_not_supported")


def _only(block: bytes, lower: bytes, needle: bytes) -> bytes | None:
    """The value of a field that may be there once. Raises `ProtocolError` where it is there twice."""
    at = lower.find(needle)
    if at < 0:
        return None
    start = at + len(needle)
    if lower.find(needle, start) >= 0:
        raise ProtocolError(f"more than one {needle[2:-1].decode()} field")
    end = lower.find(b"\r\n", start)
    return (block[start:] if end < 0 else block[start:end]).strip(b" \t")


def _framing(block: bytes, lower: bytes, old: bool) -> tuple[int | None, bool]:
    """Content-Length, and whether the body is chunked (section 6.1 to 6.3)."""
    coding = _only(block, lower, b"\r\ntransfer-encoding:")
    size = _only(block, lower, b"\r\ncontent-length:")
    if coding is not None:
        if size is not None:
            raise ProtocolError("both Content-Length and Transfer-Encoding")
        if old:
            raise ProtocolError("Transfer-Encoding in HTTP/1.0")
        if coding.lower() != b"chunked":
            raise ProtocolError("the only transfer coding spoken here is chunked", 501, "not_implemented")
        return None, True
    if size is None:
        return None, False
    if not (size.isdigit() and len(size) <= 18):
        raise ProtocolError("Content-Length is not a number of up to 18 digits")
    return int(size), False


@lru_cache(maxsize=1024)
def _authority(host: bytes) -> str:
    if _HOST.fullmatch(host) is None:
        raise ProtocolError("the Host field is not a host with an optional port (RFC 9112 section 3.2)")
    return host.decode("latin-1")


def _other_target(target: bytes, method: str) -> tuple[str, str | None]:
    """A target that is not in origin form, in that form, with its authority if it had one (section 3.2)."""
    if target == b"*" and method == "OPTIONS":
        return "*", None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise ProtocolError("the request target has none of the forms of RFC 9112 section 3.2")
    authority, path = absolute.groups()
    if _HOST.fullmatch(authority) is None:
        raise ProtocolError("the host of the request target is not a host with an optional port")
    if not path:
        path = b"*" if method == "OPTIONS" else b"/"  # section 3.2.4
    elif path.startswith(b"?"):
        path = b"/" + path
    return path.decode("latin-1"), authority.decode("latin-1")


def _tokens(headers: Headers) -> list[str]:
    """The options of Connection."""
    return [token.strip() for token in (headers.get("connection") or "").lower().split(",")]


def _what_is_wrong_with(block: bytes) -> str:
    """The rule that a block of fields breaks; looked for only when one does."""
    for line in block.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            return "a folded field (RFC 9112 section 5.2)"
        if not colon or TOKEN.fullmatch(name) is None:
            return "a field without a name and a colon right behind it (RFC 9112 section 5.1)"
        if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value):
            return f"a control character in the value of {name.decode('latin-1')} (RFC 9110 section 5.5)"
    return "fields that are none"


# ------------------------------------------------------------------------------------------------ heads, written


def _unframed(block: bytes, lower: bytes) -> bytes:
    if lower.find(b"\r\ncontent-length:") >= 0 or lower.find(b"\r\ntransfer-encoding:") >= 0:
        return _FRAMING.sub(b"", block)
    return block


def _check_length(data: bytes, length: int | None, ended: bool) -> None:
    """Before a byte of a message is written, because afterwards nothing else can be said."""
    size = len(data)
    if length is not None and (size > length or (ended and size < length)):
        raise ProtocolError(f"a body of {size} bytes was announced as {length}")


def _phrase(status: int, phrase: str) -> bytes:
    if not phrase:
        return _PHRASES.get(status, b"")
    if _PHRASE.fullmatch(phrase) is None:
        raise ProtocolError(f"{phrase!r} is no phrase of a status line")
    return phrase.encode("latin-1")


_PHRASES: Final = {status: phrase.encode() for status, phrase in PHRASES.items()}


def _chunked(data: bytes, ended: bool) -> Bytes:
    """Data as a chunk, and the last chunk behind it."""
    tail = b"\r\n0\r\n\r\n" if ended else b"\r\n"
    if not data:
        return tail[2:]
    if len(data) <= JOIN_MAX:
        return b"%x\r\n%s%s" % (len(data), data, tail)
    return [b"%x\r\n" % len(data), data, tail]
