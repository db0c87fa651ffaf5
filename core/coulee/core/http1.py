"""HTTP/1.1, strict and fast: our own codec, in both roles, behind the contract of `codec.py`.

A head is taken when its empty line is there: one regular expression validates all of its fields at once, and the few
that mean something to us are searched for in a lower-case copy, which `Headers` would need anyway. Nothing else is cut.
Rules, with their sections of RFC 9112 unless another is named:

- A line ends with CRLF, and neither CR, LF nor NUL stands anywhere else; a folded field is refused (2.2, 5.2).
- The body of a request, in this order (6.3): Transfer-Encoding with Content-Length, refused; Transfer-Encoding other
  than `chunked`, once, in 1.1, refused; chunked; Content-Length, once and in digits; none.
- The body of an answer: none to HEAD, with 204 and with 304; then the same; else all up to the end of the connection.
- A body that ends early is a fault, never an end (8).
- Behind a 101 or a 2xx to CONNECT nothing is HTTP: both directions are `Data` as it comes, to the connection's end.
- What we write is framed by us: by its length, by chunks, or, for a client of HTTP/1.0, by closing (6.1).
- What is wrong, and what is said of it, does not depend on how the bytes were split.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from coulee.core.codec import NEED_DATA, PAUSED, ProtocolError, Pulled, Role, look_for_http2
from coulee.core.config import Limits
from coulee.core.headers import MARKS, UNDERSCORE, Headers
from coulee.core.http1_grammar import (
    BODY_EXPECTED,
    FRAMING,
    JOIN_MAX,
    NOT_IN_TRAILERS,
    ONCE_IN_ANSWER,
    ONCE_IN_REQUEST,
    REFUSED_METHODS,
    USUAL_METHODS,
    authority_of,
    check_asking,
    check_beginning,
    check_expect,
    check_length,
    check_limits,
    check_ranges,
    check_refused,
    check_size,
    chunk_line,
    chunked_of,
    cut_short,
    fault_of_head,
    fault_of_origin,
    framing_of,
    head_of_switch,
    heads_with,
    is_target,
    joined_once,
    other_target,
    phrase_of,
    protocol_of,
    says_close,
    start_of_answer,
    start_of_request,
    switching,
    text_of,
    trailers_of,
    with_framing,
)
from coulee.core.http1_states import Reading, Writing
from coulee.core.parts import Data, Interim, Part, Request, Response, Trailers
from coulee.core.seam import Bytes

_HEAD: Final = Reading.HEAD  # an attribute of an enumeration is found more slowly than a name
_DONE: Final = Reading.DONE
_UNTIL_END: Final = Reading.UNTIL_END
_NOT_BEGUN: Final = Writing.HEAD
_WRITTEN: Final = Writing.DONE
_COUNTED: Final = Writing.LENGTH
_VERSION_1_1: Final = (1, 1)
_VERSION_1_0: Final = (1, 0)
_BODILESS: Final = frozenset({204, 304})
_find_marks, _headers_from = MARKS.findall, Headers.from_block  # a method of an imported name is looked up each time


class Http1Codec:
    """One HTTP/1.1 connection. `role` is ours: a `"server"` reads requests. `forwards` lets CONNECT be one of these."""

    __slots__ = ("_asked", "_blank_line_seen", "_data", "_easy", "_eof", "_error", "_expects_continue",
                 "_extensions", "_forwards", "_heads", "_interims", "_keep", "_last", "_left", "_limits", "_old",
                 "_prior_knowledge", "_reading", "_scanned", "_server", "_stream", "_trailers", "_upgrade",
                 "_whole_head", "_writing", "_writing_left", "buffered", "secure")  # fmt: skip

    def __init__(self, role: Role, limits: Limits, forwards: bool = False, prior_knowledge: bool = False) -> None:
        self._server = role == "server"
        self.secure = False
        self._prior_knowledge = prior_knowledge  # a client may begin with HTTP/2, which `Http2Begins` tells
        self._forwards = forwards
        self._heads = heads = heads_with(limits.fields_max)
        self._whole_head = heads.request if self._server else heads.answer
        self._limits = limits
        self._easy = min(limits.head_bytes_max, limits.line_bytes_max)  # no head up to this breaks a limit by its size
        self._data = b""  # fed, and not given out
        self.buffered = 0  # how much that is
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
        self._upgrade = ""  # what our request asks to switch to
        self._writing = Writing.HEAD
        self._writing_left = 0

    # -- state

    @property
    def reusable(self) -> bool:
        """See `Codec`. A request that was not written to its end, or bytes behind an answer, spoil the connection."""
        if self._last or self._error is not None or not self._keep:
            return False
        asked = self._server or self._writing is _WRITTEN or self._writing is _NOT_BEGUN
        return asked and (self._server or self._reading is not _DONE or not (self._eof or self._data))

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
        if self._data:
            data = self._data + data
        self._data = data
        self.buffered = len(data)

    def feed_eof(self) -> None:
        """See `Codec`."""
        self._eof = True

    def next_part(self) -> Pulled:
        """See `Codec`."""
        if self._error is not None:
            raise self._error
        reading = self._reading
        if reading is _DONE:
            if self._trailers is not None:
                trailers, self._trailers = self._trailers, None
                return self._stream, trailers
            if not self._server or self._writing is not _WRITTEN or self._last or not self._keep:
                return PAUSED
            self._next_cycle()
            reading = _HEAD
        if not self._data and not self._eof:
            return NEED_DATA
        try:
            part = self._head() if reading is _HEAD else self._rest_of_body()
        except ProtocolError as error:
            fault = self._break(error)
            if not error.body:
                raise fault from None
            part = Data(error.body)
        self.buffered = len(self._data)
        return NEED_DATA if part is None else (self._stream, part)

    def _break(self, error: ProtocolError) -> ProtocolError:
        """Nothing more is read, so nothing is kept."""
        self._data, self.buffered = b"", 0
        self._error = error if self._server else fault_of_origin(error)
        return self._error

    def _next_cycle(self) -> None:
        self._stream += 1
        self._reading = _HEAD
        self._writing = _NOT_BEGUN
        self._interims = 0
        self._blank_line_seen = False
        self._expects_continue = False
        self._asked = ""
        self._old = False
        self._upgrade = ""

    def _head(self) -> Part | None:
        """The next head with what is there of its body."""
        match = None if self._scanned else self._whole_head.match(self._data)
        odd = False
        if match is None:  # not whole, or broken, or an empty line is before it
            match = self._difficult_head()
            if match is None:
                return None
            odd = match.re is self._heads.odd_request
        one, two, three, block = match.groups()
        end = match.end()
        if end > self._easy:
            check_limits(block, end, self._limits)
        self._data = self._data[end:]
        lower = block.lower()
        found = _find_marks(lower)
        marks = dict(found)
        if len(marks) != len(found):
            marks = joined_once(found, ONCE_IN_REQUEST if self._server else ONCE_IN_ANSWER)
        headers = _headers_from(block, lower, marks)
        if self._server:
            if odd:
                marks[UNDERSCORE] = b""
            return self._request(one, two, three == b"0", headers, marks)
        return self._answer(int(two), text_of(three) if three else "", one == b"0", headers, marks)

    def _difficult_head(self) -> re.Match[bytes] | None:
        """A head that is not there whole and good at the first look; None where more may make it so."""
        data = self._data
        if self._prior_knowledge and self._stream == 1 and not self._blank_line_seen and look_for_http2(data):
            return None
        if self._server and not self._blank_line_seen and data.startswith(b"\r\n"):
            # Old clients send an empty line behind a body: one is ignored (section 2.2).
            self._blank_line_seen = True
            self._data = data = data[2:]
        check_beginning(data, self._server)
        end = data.find(b"\r\n\r\n", self._scanned)
        if end < 0:
            self._check_incomplete(data)
            self._scanned = max(len(data) - 3, 0)
            return None
        self._scanned = 0
        match = self._whole_head.match(data) or (self._heads.odd_request.match(data) if self._server else None)
        if match is None:
            line_end = data.find(b"\r\n")
            check_size(line_end, end + 4, self._limits)
            raise fault_of_head(data[:line_end], data[line_end:end], self._server, self._limits.fields_max)
        return match

    def _check_incomplete(self, data: bytes) -> None:
        """What can be said of a head that is not whole: that it never will be, or that it is too large already."""
        line_end = data.find(b"\r\n")
        check_size(len(data) - 1 if line_end < 0 else line_end, len(data), self._limits)
        if self._eof and (data or not self._server):
            raise cut_short(self._server)

    # -- requests, read

    def _request(
        self, raw_method: bytes, raw_target: bytes, old: bool, headers: Headers, marks: dict[bytes, bytes]
    ) -> Request:
        self._old = old
        method = USUAL_METHODS.get(raw_method)
        if method is None:
            method = text_of(raw_method)
            if method in REFUSED_METHODS:
                check_refused(method, raw_target, marks, self._forwards)
                self._last = True  # what follows a CONNECT cannot be told from a request
        self._asked = method
        host = marks.get(b"host")
        if host is None:
            if not old:
                raise ProtocolError("no Host field (RFC 9112 section 3.2)")
            authority = ""
        else:
            authority = authority_of(host)
        target = raw_target.decode("latin-1")
        if raw_target[0] != 0x2F or 0x23 in raw_target:  # not "/", or with a "#"
            target, absolute = other_target(raw_target, method, self.secure)
            if absolute is not None:
                authority = absolute
                headers.set("Host", absolute)  # what it said is to be ignored (section 3.2.2)
        length: int | None = 0
        self._keep = not old
        if len(marks) > 1 or host is None:  # more than a Host
            length, chunked = framing_of(marks, old)
            if not chunked:
                length = length or 0
            check_ranges(marks, self._limits)
            if not old:
                if b"expect" in marks:
                    check_expect(headers)
                    self._expects_continue = length != 0
                self._keep = not says_close(marks)
        request = Request(method, target, headers, _VERSION_1_0 if old else _VERSION_1_1, "http", authority, length)
        if length == 0:
            self._reading = _DONE
        else:
            self._begin_body(request, length)
        return request

    def _begin_body(self, head: Request | Response, length: int | None) -> None:
        """From here on the body is read; what is there of it goes with the head."""
        if length is None:
            self._reading = Reading.CHUNK_LINE
            self._extensions = 0
        elif length:
            self._reading = Reading.LENGTH
            self._left = length
        else:
            self._reading = _DONE
            return
        self._take_along(head)

    def _take_along(self, head: Request | Response) -> None:
        """A small message is one part. A fault in its body waits for its turn."""
        head.ended = False
        if not self._data:
            return
        try:
            part = self._body()
        except ProtocolError as error:
            self._break(error)
            head.data = error.body
            return
        if isinstance(part, Data):
            head.data, head.ended = part.data, part.ended
            self._expects_continue = False
        elif part is not None:
            self._trailers = part

    # -- answers, read

    def _answer(
        self, status: int, phrase: str, old: bool, headers: Headers, marks: dict[bytes, bytes]
    ) -> Response | Interim:
        if status < 200:
            return self._switched(phrase, headers, old) if status == 101 else self._interim(status, phrase, headers)
        if self._asked == "CONNECT" and status < 300:
            self._switch()  # whatever its framing says (RFC 9110 section 9.3.6)
            return Response(status, headers, phrase, length=None, ended=False)
        length, chunked = framing_of(marks, old)
        option = marks.get(b"connection")
        self._keep = not old and (option is None or option == b"keep-alive" or not says_close(marks))
        response = Response(status, headers, phrase, _VERSION_1_0 if old else _VERSION_1_1, length)
        if status in _BODILESS or self._asked == "HEAD":
            if status == 204:
                response.length = 0
            self._reading = _DONE
        elif length is not None and len(self._data) == length:  # so it nearly always is with a small one
            response.data, self._data = self._data, b""
            self._reading = _DONE
        elif chunked or length is not None:
            self._begin_body(response, length)
        else:
            self._reading = Reading.UNTIL_END
            self._keep = False
            response.ended = False
            response.data, self._data = self._data, b""
        return response

    def _switched(self, reason: str, headers: Headers, old: bool) -> Response:
        """A 101; what came behind it waits for its turn."""
        protocol = protocol_of(headers, "" if old else self._upgrade)
        self._switch()
        return Response(101, headers, reason, length=None, ended=False, upgrade=protocol)

    def _switch(self) -> None:
        self._keep = False
        self._reading = Reading.UNTIL_END
        self._writing = Writing.UNTIL_END

    def _interim(self, status: int, reason: str, headers: Headers) -> Interim:
        if b"transfer-encoding" in headers.marks or b"content-length" in headers.marks:
            raise ProtocolError(f"a {status} with a body (RFC 9110 section 15.2)")
        self._interims += 1
        if self._interims > self._limits.interims_max:
            raise ProtocolError(f"more than {self._limits.interims_max} interim answers")
        return Interim(status, headers, reason)

    # -- bodies, read

    def _rest_of_body(self) -> Part | None:
        if self._reading is _UNTIL_END:
            data, self._data = self._data, b""
            if self._eof:
                self._reading = _DONE
            return Data(data, self._eof)
        self._expects_continue = self._expects_continue and not self._data
        part = self._body()
        if part is None and self._eof:
            raise cut_short(self._server)
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
                self._reading = _DONE
            return Data(data, not left)
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
        match = chunk_line(data, at, limits)
        if match is None:
            return -1
        self._extensions += len(match[2])
        if self._extensions > limits.chunk_extensions_bytes_max:
            raise ProtocolError(f"more than {limits.chunk_extensions_bytes_max} bytes of chunk extensions")
        self._left = int(match[1], 16)
        self._reading = Reading.CHUNK_DATA if self._left else Reading.TRAILERS
        return match.end() + 2

    def _end_of_chunks(self, pieces: list[bytes], data: bytes) -> Data | Trailers | None:
        """The fields behind the last chunk, up to the empty line (section 7.1.2)."""
        limits = self._limits
        block = b""
        if data.startswith(b"\r\n"):
            self._data = data[2:]
        else:
            end = data.find(b"\r\n\r\n")
            if (len(data) - 3 if end < 0 else end) > limits.trailers_bytes_max:
                detail = f"the trailers are larger than {limits.trailers_bytes_max} bytes"
                raise ProtocolError(detail, 431, "header_too_large")
            if end < 0:
                self._data = data
                return Data(b"".join(pieces)) if pieces else None
            block = trailers_of(b"\r\n" + data[:end], limits)
            self._data = data[end + 4 :]
        self._reading = _DONE
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
        return _WRITERS[type(part)](self, part)

    def _write_interim(self, part: Interim) -> bytes:
        if not 100 <= part.status <= 199 or part.status == 101:
            raise ProtocolError(f"{part.status} is no interim answer")
        self._expects_continue = self._expects_continue and part.status != 100
        phrase = phrase_of(part.status, part.reason)
        return b"HTTP/1.1 %d %s%s\r\n\r\n" % (part.status, phrase, FRAMING.sub(b"", part.headers.block))

    def _write_request(self, part: Request) -> Bytes:
        if self._writing is _WRITTEN and self._reading is _DONE:
            self._next_cycle()
        method = part.method
        start = start_of_request(method)
        target = part.target
        if not is_target(target):
            raise ProtocolError(f"{target!r} is no target")
        headers = part.headers
        marks = headers._marks or headers.marks
        if b"host" not in marks:
            raise ProtocolError("a request needs a Host field (RFC 9112 section 3.2)")
        data = part.data
        ended = part.ended
        length = part.length
        if length == 0 and ended and not (data or method in BODY_EXPECTED or self._last or part.upgrade):
            self._asked = method  # the usual request
            self._writing = _WRITTEN
            framed = b"content-length" in marks or b"transfer-encoding" in marks
            block = with_framing(headers, b"") if framed else headers._block
            return b"".join((start, target.encode("latin-1"), b" HTTP/1.1", block, b"\r\n\r\n"))
        check_length(data, length, ended)
        if length:
            framing = b"\r\nContent-Length: %d" % length
        elif length is None:
            framing = b"\r\nTransfer-Encoding: chunked"
        else:
            framing = b"\r\nContent-Length: 0" if method in BODY_EXPECTED else b""
        self._asked = method
        block = with_framing(headers, framing)
        if part.upgrade:
            check_asking(part)
            self._upgrade = part.upgrade
            block = switching(headers.block, part.upgrade)
        elif self._last:
            block += b"\r\nConnection: close"
        head = b"%s%s HTTP/1.1%s\r\n\r\n" % (start, target.encode("latin-1"), block)
        self._writing = Writing.CHUNKS if length is None else Writing.LENGTH
        self._writing_left = length or 0
        return self._with_body(head, data, ended)

    def _write_response(self, part: Response) -> Bytes:
        status = part.status
        if status == 101:
            return self._write_switch(part)
        start = start_of_answer(status, part.reason)
        if self._writing is not _NOT_BEGUN:
            raise ProtocolError("a second answer to one request")
        headers = part.headers
        marks = headers._marks or headers.marks
        length = part.length
        data = part.data
        closing = self._last or not self._keep or self._error is not None
        if (
            part.ended
            and length is not None
            and len(data) == length <= JOIN_MAX
            and not (closing or status in _BODILESS or self._asked == "HEAD" or b"connection" in marks)
        ):
            self._writing = _WRITTEN  # the usual answer
            digits = b"%d" % length
            if marks.get(b"content-length") == digits and b"transfer-encoding" not in marks:
                block = headers._block  # it says so already
            else:
                block = with_framing(headers, b"\r\nContent-Length: " + digits)
            return b"".join((start, block, b"\r\n\r\n", data))
        if self._asked == "CONNECT" and status < 300:
            return self._write_switch(part)
        writing = _COUNTED
        if status in _BODILESS or self._asked == "HEAD":
            framing = b"" if length is None or status == 204 else b"\r\nContent-Length: %d" % length
            writing = Writing.DONE
        else:
            check_length(data, length, part.ended)
            if length is not None:
                framing = b"\r\nContent-Length: %d" % length
                self._writing_left = length
            elif self._old:
                framing = b""
                writing = Writing.UNTIL_END
            else:
                framing = b"\r\nTransfer-Encoding: chunked"
                writing = Writing.CHUNKS
        block = with_framing(headers, framing)
        if says_close(marks):
            self._last = True  # a filter says so
        elif closing:
            block += b"\r\nConnection: close"
        self._writing = writing
        head = b"%s%s\r\n\r\n" % (start, block)
        return head if writing is Writing.DONE else self._with_body(head, data, part.ended)

    def _write_switch(self, part: Response) -> Bytes:
        head = head_of_switch(part)
        if part.status == 101 and (self._reading is not _DONE or self._asked != "GET" or self._old):
            raise ProtocolError("a 101 to a request that could not ask for it")
        self._switch()
        return self._with_body(head, part.data, False)

    def _with_body(self, head: bytes, data: bytes, ended: bool) -> Bytes:
        if not data and not ended:
            return head
        body = self._framed(data, ended)
        if isinstance(body, list):
            return [head, *body]
        return head + body if len(body) <= JOIN_MAX else [head, body]

    def _write_data(self, part: Data) -> Bytes:
        return self._framed(part.data, part.ended)

    def _framed(self, data: bytes, ended: bool) -> Bytes:
        """A piece of the body in the framing that its head announced."""
        writing = self._writing
        if writing is _COUNTED:
            self._writing_left -= len(data)
            if self._writing_left < 0 or (ended and self._writing_left):
                raise ProtocolError("a body is longer or shorter than its head announced")
        elif writing is Writing.CHUNKS:
            if ended:
                self._writing = _WRITTEN
            return chunked_of(data, ended)
        elif writing is not Writing.UNTIL_END:
            raise ProtocolError("a body without a head, or behind its end")
        if ended:
            self._writing = _WRITTEN
        return data

    def _write_trailers(self, part: Trailers) -> bytes:
        if self._writing is not Writing.CHUNKS:
            self._framed(b"", True)  # nobody could read them behind another framing
            return b""
        self._writing = _WRITTEN
        return b"0%s\r\n\r\n" % NOT_IN_TRAILERS.sub(b"", part.headers.block)


_WRITERS: Final[dict[type, Callable[[Http1Codec, Any], Bytes]]] = {
    Response: Http1Codec._write_response,
    Request: Http1Codec._write_request,
    Data: Http1Codec._write_data,
    Trailers: Http1Codec._write_trailers,
    Interim: Http1Codec._write_interim,
}
