"""HTTP/1.1 on h11: the reference codec, in both roles, behind the contract of `codec.py`.

h11 cuts the bytes and keeps the state machine of RFC 9112; this file adds what a proxy must refuse and h11 lets pass,
and puts its events into our parts. Rules:

- A head takes along what has arrived of its body, so that a small message is one part.
- A message that is both a head and, later in the same bytes, a fault gives the head first and the fault after it: how
  the bytes were split must not matter.
- Framing is ours: Content-Length and Transfer-Encoding are taken out of what we write, and put in by `part.length`.
- Behind a 101, or a 2xx to CONNECT, h11 has no more to say: bytes go past it, in both directions.
- A new cycle begins by itself, once both sides have ended the one before.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

import h11

from coulee.core.codec import NEED_DATA, PAUSED, ProtocolError, Pulled, Role, look_for_http2
from coulee.core.config import Limits
from coulee.core.headers import MARKS, Headers
from coulee.core.http1_grammar import (
    BODY_EXPECTED,
    JOIN_MAX,
    NOT_IN_TRAILERS,
    ONCE_IN_REQUEST,
    REFUSED_METHODS,
    allowed_trailers,
    authority_of,
    check_asking,
    check_length,
    check_ranges,
    check_refused,
    check_switch,
    head_of_switch,
    joined_once,
    other_target,
    phrase_of,
    protocol_of,
    switching,
)
from coulee.core.parts import Data, Interim, Part, Request, Response, Trailers
from coulee.core.seam import Bytes

RawFields: TypeAlias = list[tuple[bytes, bytes]]

_READABLE: Final = (h11.IDLE, h11.SEND_RESPONSE, h11.SEND_BODY)
"""States of the peer in which something is still to come from it."""

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class H11Codec:
    """One HTTP/1.1 connection. `role` is ours: a `"server"` reads requests. `forwards` lets CONNECT be one of these."""

    __slots__ = ("_asked", "_blank_line_seen", "_chunked", "_conn", "_eof", "_error", "_fed", "_forwards", "_interims",
                 "_last", "_limits", "_prior_knowledge", "_role", "_stream", "_switched", "_trailers", "_upgrade",
                 "secure")  # fmt: skip

    def __init__(self, role: Role, limits: Limits, forwards: bool = False, prior_knowledge: bool = False) -> None:
        self.secure = False
        self._prior_knowledge = prior_knowledge  # a client may begin with HTTP/2, which `Http2Begins` tells
        self._forwards = forwards
        self._role: Role = role
        self._limits = limits
        self._conn = self._new_connection()
        self._fed: list[bytes] = []  # not yet given to h11
        self._eof = False
        self._error: ProtocolError | None = None  # the connection is broken, and this is what is said of it
        self._trailers: Trailers | None = None  # read together with the end of the body, to be given out next
        self._stream = 1
        self._last = False  # the present exchange is to be the last
        self._chunked = False  # how we frame the body that we write
        self._interims = 0
        self._blank_line_seen = False
        self._asked = b""  # the method of the request
        self._upgrade = ""  # what our request asks to switch to
        self._switched = False  # to another protocol

    def _new_connection(self) -> h11.Connection:
        # Twice the limit: h11 bounds what it holds, and `_check_fields` says what is too large, however it was split.
        bound = 2 * self._limits.head_bytes_max
        return h11.Connection(h11.SERVER if self._role == "server" else h11.CLIENT, max_incomplete_event_size=bound)

    # -- state

    @property
    def buffered(self) -> int:
        """See `Codec`."""
        return sum(map(len, self._fed)) + (0 if self._switched else len(self._conn.trailing_data[0]))

    @property
    def reusable(self) -> bool:
        """See `Codec`. A request that was not written to its end, or bytes behind an answer, spoil the connection."""
        conn = self._conn
        if self._switched:
            return False
        ends = (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)
        if self._last or self._error is not None or conn.our_state in ends or conn.their_state in ends:
            return False
        if self._role == "server":
            return True
        return conn.our_state in (h11.IDLE, h11.DONE) and (
            conn.their_state is not h11.DONE or not (self._eof or self.buffered)
        )

    @property
    def idle(self) -> bool:
        """See `Codec`."""
        conn = self._conn
        between = conn.their_state in (h11.IDLE, h11.CLOSED) or conn.our_state is conn.their_state is h11.DONE
        return between and not self.buffered

    @property
    def expects_continue(self) -> bool:
        """See `Codec`."""
        return self._conn.they_are_waiting_for_100_continue

    def close_after(self) -> None:
        """See `Codec`."""
        self._last = True

    def consumed(self, stream: int, count: int) -> None:
        """HTTP/1 has no window."""

    # -- reading

    def feed(self, data: bytes) -> None:
        """See `Codec`."""
        self._fed.append(data)

    def feed_eof(self) -> None:
        """See `Codec`."""
        self._eof = True

    def next_part(self) -> Pulled:
        """See `Codec`."""
        if self._error is not None:
            raise self._error
        if self._switched:
            return self._opaque()
        if self._trailers is not None:
            trailers, self._trailers = self._trailers, None
            return self._stream, trailers
        conn = self._conn
        if conn.their_state is h11.DONE:
            if conn.our_state is not h11.DONE or self._last or self._role == "client":
                return PAUSED
            self._next_cycle()
        elif conn.their_state not in _READABLE:
            return PAUSED
        if not self._pass_on():
            return NEED_DATA
        part = self._read()
        return NEED_DATA if part is None else (self._stream, part)

    def _switch(self) -> None:
        self._switched = True
        self._fed.insert(0, self._conn.trailing_data[0])

    def _opaque(self) -> Pulled:
        """Whatever is there of the other protocol."""
        data = b"".join(self._fed)
        ended, self._eof = self._eof, False
        self._fed.clear()
        return (self._stream, Data(data, ended)) if data or ended else NEED_DATA

    def _next_cycle(self) -> None:
        self._conn.start_next_cycle()
        self._stream += 1
        self._interims = 0
        self._blank_line_seen = False

    def _pass_on(self) -> bool:
        """Give h11 what was fed; False where nothing can come of it yet."""
        conn = self._conn
        data = b"".join(self._fed)
        self._fed.clear()
        begun = conn.trailing_data[0] + data
        if self._prior_knowledge and self._stream == 1 and begun[:4] == b"PRI " and look_for_http2(begun):
            self._fed.append(data)
            return False
        if self._role == "server" and conn.their_state is h11.IDLE and not self._blank_line_seen:
            data = self._without_blank_line(data)
            if data == b"\r" and not self._eof:
                self._fed.append(data)
                return False
            conn = self._conn
        if data:
            conn.receive_data(data)
        if self._role == "client" and conn.their_state is h11.SEND_RESPONSE:
            self._check_beginning(conn.trailing_data[0][:5])
        if self._eof and not conn.trailing_data[1]:
            conn.receive_data(b"")
        return True

    def _check_beginning(self, start: bytes) -> None:
        """h11 waits for a whole line, which something that is no answer may never bring."""
        if start != b"HTTP/"[: len(start)]:
            self._error = self._in_our_role(ProtocolError("the answer does not begin with HTTP/"))
            raise self._error

    def _without_blank_line(self, data: bytes) -> bytes:
        """One empty line before a request is ignored: old clients send it behind a body (RFC 9112 section 2.2)."""
        held, _ = self._conn.trailing_data
        if held == b"\r" or held.startswith(b"\r\n"):
            # Pipelined behind the request before; h11 offers no way to take it back but a new connection.
            data = held + data
            self._conn = self._new_connection()
        elif held:
            return data  # the head has begun
        if data.startswith(b"\r\n"):
            self._blank_line_seen = True
            return data[2:]
        return data

    def _read(self) -> Part | None:
        """The next part from h11, None where more is needed. Raises `ProtocolError`."""
        try:
            event = self._conn.next_event()
            if isinstance(event, h11.Request):
                self._asked = event.method
                request = _request(event, self._limits, self.secure, self._forwards)
                self._last = self._last or self._asked == b"CONNECT"  # what follows it cannot be told from a request
                return self._with_body(request)
            if isinstance(event, h11.InformationalResponse):
                return self._interim(event)
            if isinstance(event, h11.Response):
                if self._asked == b"CONNECT" and event.status_code < 300:
                    return self._tunnel(event)
                return self._with_body(self._response(event))
        except h11.RemoteProtocolError as error:
            raise self._fault(error) from error
        except ProtocolError as error:
            self._error = self._in_our_role(error)
            raise self._error from error
        if isinstance(event, h11.Data | h11.EndOfMessage):
            data, ended = self._gather(event)
            if not data and self._trailers is not None:
                trailers, self._trailers = self._trailers, None
                return trailers
            if not data and not ended and self._error is not None:
                raise self._error  # the fault is in what is behind the body, and nothing comes before it
            return Data(data, ended)
        return None  # NEED_DATA; PAUSED; or the peer has closed between two messages, which its connection knows

    def _with_body(self, head: Request | Response) -> Part:
        head.data, head.ended = self._gather(self._next_event())
        return head

    def _next_event(self) -> Any:
        """h11's next event; a fault in it waits for its turn."""
        try:
            return self._conn.next_event()
        except h11.RemoteProtocolError as error:
            self._fault(error)
            return h11.NEED_DATA

    def _gather(self, event: Any) -> tuple[bytes, bool]:
        """The bytes of the body that are there, and whether they are the last. Sets `_trailers`."""
        pieces: list[bytes] = []
        while isinstance(event, h11.Data):
            pieces.append(event.data)
            event = self._next_event()
        if not isinstance(event, h11.EndOfMessage):
            return b"".join(pieces), False
        try:
            block = allowed_trailers(_block(event.headers.raw_items()))
        except ProtocolError as error:
            self._error = self._in_our_role(error)
            return b"".join(pieces), False
        if len(block) > self._limits.trailers_bytes_max:
            detail = f"the trailers are larger than {self._limits.trailers_bytes_max} bytes"
            self._error = self._in_our_role(ProtocolError(detail, 431, "header_too_large"))
            return b"".join(pieces), False
        if block:
            self._trailers = Trailers(Headers.from_block(block))
        return b"".join(pieces), not block

    def _interim(self, event: h11.InformationalResponse) -> Interim | Response:
        if event.status_code == 101:
            _check_fields(event.headers.raw_items(), 0, self._limits)
            headers = _headers(event)
            protocol = protocol_of(headers, self._upgrade if event.http_version == b"1.1" else "")
            self._switch()
            reason = event.reason.decode("latin-1")
            return Response(101, headers, reason, length=None, ended=False, upgrade=protocol)
        self._interims += 1
        if self._interims > self._limits.interims_max:
            raise ProtocolError(f"more than {self._limits.interims_max} interim answers")
        _check_fields(event.headers.raw_items(), 0, self._limits)
        return Interim(event.status_code, _headers(event), event.reason.decode("latin-1"))

    def _tunnel(self, event: h11.Response) -> Response:
        """A 2xx to CONNECT, whatever its framing says (RFC 9110 section 9.3.6)."""
        _check_fields(event.headers.raw_items(), 0, self._limits)
        version = _version(event.http_version)
        self._switch()
        phrase = event.reason.decode("latin-1")
        return Response(event.status_code, _headers(event), phrase, version, length=None, ended=False)

    def _response(self, event: h11.Response) -> Response:
        fields = event.headers.raw_items()
        _check_fields(fields, 0, self._limits)
        length, chunked = _framing(event.headers)
        _check_framing(length, chunked, event.http_version)
        if event.status_code == 204:
            length = 0
        return Response(
            event.status_code,
            _headers(event),
            event.reason.decode("latin-1"),
            _version(event.http_version),
            length,
        )

    # -- faults

    def _fault(self, error: h11.RemoteProtocolError) -> ProtocolError:
        """What h11 found wrong, in our words; from now on the connection is broken."""
        detail = str(error)
        if self._eof and ("closed connection" in detail or "ConnectionClosed" in detail):
            if self._role == "server":
                self._error = ProtocolError("the client closed the connection in the middle of a request", 0,
                                            "client_gone")  # fmt: skip
            else:
                self._error = ProtocolError("the connection was closed before the answer was whole", 502,
                                            "upstream_reset")  # fmt: skip
        else:
            status = error.error_status_hint
            reason = {431: "header_too_large", 501: "not_implemented"}.get(status, "bad_request")
            self._error = self._in_our_role(ProtocolError(detail, status, reason))
        return self._error

    def _in_our_role(self, error: ProtocolError) -> ProtocolError:
        """A fault of an origin is a bad gateway, whatever it is."""
        return error if self._role == "server" else ProtocolError(error.detail, 502, "upstream_invalid")

    # -- writing

    def write(self, stream: int, part: Part) -> Bytes:
        """See `Codec`."""
        if self._switched:
            assert isinstance(part, Data)
            return part.data
        out: list[bytes] = []
        try:
            if isinstance(part, Request):
                self._write_request(part, out)
            elif isinstance(part, Response):
                self._write_response(part, out)
            elif isinstance(part, Interim):
                interim = h11.InformationalResponse(
                    status_code=part.status, headers=part.headers.raw(), reason=phrase_of(part.status, part.reason)
                )
                self._send(interim, out)
            elif isinstance(part, Data):
                self._write_body(part.data, part.ended, out)
            else:
                fields = NOT_IN_TRAILERS.sub(b"", part.headers.block) if self._chunked else b""
                self._send(h11.EndOfMessage(headers=Headers.from_block(fields).raw()), out)
        except h11.LocalProtocolError as error:
            raise ProtocolError(str(error)) from error
        if len(out) == 1:
            return out[0]
        return b"".join(out) if sum(map(len, out)) <= JOIN_MAX else out

    def _send(self, event: h11.Event, out: list[bytes]) -> None:
        pieces = self._conn.send_with_data_passthrough(event)
        if pieces:
            out.extend(pieces)

    def _write_request(self, part: Request, out: list[bytes]) -> None:
        conn = self._conn
        if conn.our_state is conn.their_state is h11.DONE:
            self._next_cycle()
        check_length(part.data, part.length, part.ended)
        fields = _unframed(part.headers)
        self._upgrade = part.upgrade
        if part.upgrade:
            check_asking(part)
            fields = Headers.from_block(switching(part.headers.block, part.upgrade)).raw()
        if part.length is None:
            fields.append((b"Transfer-Encoding", b"chunked"))
        elif part.length or part.method in BODY_EXPECTED:
            fields.append((b"Content-Length", b"%d" % part.length))
        if self._last and not part.upgrade:
            fields.append((b"Connection", b"close"))
        self._chunked = part.length is None
        self._asked = part.method.encode("latin-1")
        request = h11.Request(
            method=part.method.encode("latin-1"), target=part.target.encode("latin-1"), headers=fields
        )
        self._send(request, out)
        self._write_body(part.data, part.ended, out)

    def _write_switch(self, part: Response, out: list[bytes]) -> None:
        check_switch(part)
        fields = Headers.from_block(switching(part.headers.block, part.upgrade)).raw()
        head = h11.InformationalResponse(status_code=101, headers=fields, reason=phrase_of(101, part.reason))
        self._send(head, out)
        self._switch()
        if part.data:
            out.append(part.data)

    def _write_response(self, part: Response, out: list[bytes]) -> None:
        if part.status == 101:
            self._write_switch(part, out)
            return
        if self._asked == b"CONNECT" and part.status < 300 and self._conn.our_state is h11.SEND_RESPONSE:
            out.append(head_of_switch(part))
            self._switch()
            if part.data:
                out.append(part.data)
            return
        fields = _unframed(part.headers)
        bodiless = part.status == 204
        if not (bodiless or part.status == 304 or self._asked == b"HEAD"):
            check_length(part.data, part.length, part.ended)
        if part.length is not None and not bodiless:
            fields.append((b"Content-Length", b"%d" % part.length))
        if self._last or self._error is not None:
            fields.append((b"Connection", b"close"))
        their_version = self._conn.their_http_version
        self._chunked = part.length is None and not bodiless and their_version is not None and their_version > b"1.0"
        response = h11.Response(status_code=part.status, headers=fields, reason=phrase_of(part.status, part.reason))
        self._send(response, out)
        self._write_body(part.data, part.ended, out)

    def _write_body(self, data: bytes, ended: bool, out: list[bytes]) -> None:
        if data:
            self._send(h11.Data(data=data), out)
        if ended:
            self._send(h11.EndOfMessage(), out)


# --------------------------------------------------------------------------------------------- heads, read


def _request(event: h11.Request, limits: Limits, secure: bool, forwards: bool) -> Request:
    """A request's head in our terms. Raises `ProtocolError` for what a gateway must not pass on."""
    version = _version(event.http_version)
    fields = event.headers.raw_items()
    _check_fields(fields, len(event.method) + len(event.target), limits)
    method = event.method.decode("latin-1")
    if method in REFUSED_METHODS:
        check_refused(method, event.target, dict(event.headers), forwards)
    length, chunked = _framing(event.headers)
    _check_framing(length, chunked, event.http_version)
    headers = _headers(event)
    check_ranges(joined_once(MARKS.findall(headers.lower), ONCE_IN_REQUEST), limits)
    expect = headers.get("expect")
    if expect is not None and version > (1, 0) and expect.lower() != "100-continue":
        raise ProtocolError(f"Expect: {expect} is not 100-continue", 417, "expectation_failed")
    hosts = [value for name, value in event.headers if name == b"host"]
    given = authority_of(hosts[0]) if hosts else ""
    target, authority = _target(event, secure)
    if authority is not None:
        headers.set("Host", authority)  # what it said is to be ignored (RFC 9112 section 3.2.2)
    return Request(
        method,
        target,
        headers,
        version,
        authority=authority or given,
        length=None if chunked else length or 0,
    )


def _target(event: h11.Request, secure: bool) -> tuple[str, str | None]:
    """The target in origin form, and the authority if it had one."""
    if event.target.startswith(b"/") and b"#" not in event.target:
        return event.target.decode("latin-1"), None
    return other_target(event.target, event.method.decode("latin-1"), secure)


def _check_fields(fields: RawFields, start_line: int, limits: Limits) -> None:
    """h11 bounds a head only while it is not complete, does not count fields, and lets control characters pass."""
    if start_line > limits.line_bytes_max:
        raise ProtocolError(f"the first line is longer than {limits.line_bytes_max} bytes", 414, "target_too_long")
    if len(fields) > limits.fields_max:
        raise ProtocolError(f"more than {limits.fields_max} fields", 431, "header_too_large")
    if start_line + sum(len(name) + len(value) + 4 for name, value in fields) > limits.head_bytes_max:
        raise ProtocolError(f"the head is larger than {limits.head_bytes_max} bytes", 431, "header_too_large")
    for name, value in fields:
        if len(name) + len(value) + 2 > limits.line_bytes_max:
            raise ProtocolError(f"a field is longer than {limits.line_bytes_max} bytes", 431, "header_too_large")
        if _CONTROL.search(value):
            field = name.decode("latin-1")
            raise ProtocolError(f"a control character in the value of {field} (RFC 9110 section 5.5)")


def _framing(headers: Any) -> tuple[int | None, bool]:
    """Content-Length, and whether the body is chunked. h11 has made sure that each is there at most once."""
    length: int | None = None
    chunked = False
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            chunked = True
    return length, chunked


def _check_framing(length: int | None, chunked: bool, version: bytes) -> None:
    """Where two could read a length differently, nobody is to read it (RFC 9112 section 6.1 and 6.3)."""
    if chunked and length is not None:
        raise ProtocolError("both Content-Length and Transfer-Encoding")
    if chunked and version < b"1.1":
        raise ProtocolError("Transfer-Encoding in HTTP/1.0")


def _version(version: bytes) -> tuple[int, int]:
    if version == b"1.1":
        return (1, 1)
    if version == b"1.0":
        return (1, 0)
    raise ProtocolError(f"HTTP/{version.decode('latin-1')} is not spoken here", 505, "version_not_supported")


def _headers(event: h11.Request | h11.Response | h11.InformationalResponse) -> Headers:
    return Headers.from_block(_block(event.headers.raw_items()))


def _block(fields: RawFields) -> bytes:
    return b"".join([b"\r\n%s: %s" % field for field in fields])


# ------------------------------------------------------------------------------------------ heads, written


def _unframed(headers: Headers) -> RawFields:
    return [field for field in headers.raw() if field[0].lower() not in (b"content-length", b"transfer-encoding")]
