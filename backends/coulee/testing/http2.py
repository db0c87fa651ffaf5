"""HTTP/2 as the ends of a test speak it: through python-hyper's h2, with all of its validation.

Rules:

- What comes is taken at once, so the other side's windows are always open. What is said waits for the other side's.
- h2 takes nothing more behind a GOAWAY, so it is not told of any (RFC 9113 section 6.8).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from coulee.core.headers import Headers
from coulee.core.parts import Data, Interim, Part, Request, Response, Trailers
from coulee.testing.speech import NOT_ANSWERED, Gone, Heard, NotHttpError, headers_of

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every connection begins with (RFC 9113 section 3.4)."""

_GOAWAY = 7


@dataclass(slots=True)
class _Stream:
    """What is to be sent of this end's message, and how far both are."""

    data: bytes = b""
    trailers: Headers = field(default_factory=Headers)
    ended: bool = False  # by this end, though perhaps not sent
    sent: bool = False
    heard: Headers = field(default_factory=Headers)  # trailers
    over: bool = False  # the other end has said all, or has ended it


class Http2:
    """See `Speech`."""

    def __init__(self, *, asks: bool) -> None:
        self._conn = H2Connection(H2Configuration(client_side=asks, header_encoding=None))
        if not asks:  # all here grant what is no HTTP (RFC 8441 section 3)
            self._conn.local_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
            self._conn.local_settings.acknowledge()
        self._conn.initiate_connection()
        self._asks = asks
        self._streams: dict[int, _Stream] = {}
        self._heard = b""
        self._begun = asks
        self._retires = False
        self._told_to_go = False

    @property
    def spent(self) -> bool:
        """See `Speech`."""
        return self._told_to_go if self._asks else self._retires and all(each.sent for each in self._streams.values())

    # -- saying

    def ask(self, request: Request) -> int:
        """See `Speech`."""
        assert all(each.over for each in self._streams.values()), NOT_ANSWERED
        stream = self._conn.get_next_available_stream_id()
        self._streams[stream] = _Stream()
        pseudo = {
            ":method": request.method,
            ":scheme": request.scheme,
            ":authority": request.headers.get("host") or "",
            ":path": request.target,
        }
        if request.upgrade:
            assert self._conn.remote_settings.enable_connect_protocol, "the proxy does not offer extended CONNECT"
            pseudo |= {":method": "CONNECT", ":protocol": request.upgrade}
        self._send_head(stream, pseudo, request.headers, request.data, request.ended)
        return stream

    def say(self, stream: int, part: Part) -> None:
        """See `Speech`."""
        state = self._streams[stream]
        if state.sent and not state.ended:
            return
        assert not state.ended, "this message was ended already"
        if isinstance(part, Response):
            self._send_head(stream, {":status": str(part.status)}, part.headers, part.data, part.ended)
        elif isinstance(part, Interim):
            self._conn.send_headers(stream, _pairs({":status": str(part.status)}, part.headers))
        elif isinstance(part, Data):
            self._send_body(stream, part.data, part.ended)
        elif isinstance(part, Trailers):
            state.trailers = part.headers
            self._send_body(stream, b"", True)

    def _send_head(self, stream: int, pseudo: dict[str, str], headers: Headers, data: bytes, ended: bool) -> None:
        state = self._streams[stream]
        state.ended = state.sent = ended and not data
        self._conn.send_headers(stream, _pairs(pseudo, headers), end_stream=state.sent)
        if not state.sent:
            self._send_body(stream, data, ended)

    def _send_body(self, stream: int, data: bytes, ended: bool) -> None:
        state = self._streams[stream]
        state.data += data
        state.ended = ended
        self._send_what_fits(stream, state)

    def _send_what_fits(self, stream: int, state: _Stream) -> None:
        """As much of a body as the other side has room for, and what follows it."""
        conn = self._conn
        while state.data:
            room = min(conn.local_flow_control_window(stream), conn.max_outbound_frame_size)
            if room <= 0:
                return
            piece, state.data = state.data[:room], state.data[room:]
            state.sent = state.ended and not state.data and not state.trailers
            conn.send_data(stream, piece, end_stream=state.sent)
        if state.ended and not state.sent:
            state.sent = True
            if state.trailers:
                conn.send_headers(stream, _pairs({}, state.trailers), end_stream=True)
            else:
                conn.end_stream(stream)

    def granted(self) -> Iterator[Heard]:
        """See `Speech`. What came was heard as it came."""
        yield from ()

    def gives_up(self, stream: int) -> bool:
        """See `Speech`."""
        self._gone(self._streams[stream], "")
        self._conn.reset_stream(stream, ErrorCodes.CANCEL)
        return True

    def ends(self, stream: int) -> bool:
        """See `Speech`."""
        self.say(stream, Trailers(Headers()))
        return True

    def taken(self) -> bytes:
        """See `Speech`."""
        if self.spent and not self._asks:
            self._conn.close_connection()
        return self._conn.data_to_send()

    # -- hearing

    def hear(self, data: bytes) -> Iterator[Heard]:
        """See `Speech`."""
        self._heard += data
        try:
            for frame in self._frames():
                if frame[3] == _GOAWAY:
                    yield from self._goes_away(frame)
                else:
                    for event in self._conn.receive_data(frame):
                        yield from self._means(event)
        except ProtocolError as error:
            raise NotHttpError(str(error)) from error
        for stream, state in self._streams.items():
            if not state.sent:
                self._send_what_fits(stream, state)

    def _frames(self) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            self._conn.receive_data(PREFACE)
            self._heard = self._heard[len(PREFACE) :]
        while len(self._heard) >= 9:
            size = int.from_bytes(self._heard[:3], "big")
            if size > self._conn.max_inbound_frame_size:
                raise NotHttpError(f"no frame of HTTP/2 begins with {self._heard[:9]!r}")
            if len(self._heard) < 9 + size:
                return
            frame, self._heard = self._heard[: 9 + size], self._heard[9 + size :]
            yield frame

    def _goes_away(self, frame: bytes) -> Iterator[Heard]:
        self._told_to_go = True
        served, code = int.from_bytes(frame[9:13], "big"), int.from_bytes(frame[13:17], "big")
        for stream, state in self._streams.items():
            if self._asks and stream > served and not state.over:
                yield stream, self._gone(state, f"GOAWAY, {_name(code)}")

    def _means(self, event: Event) -> Iterator[Heard]:
        if isinstance(event, RequestReceived):
            self._streams[event.stream_id] = _Stream()
            yield event.stream_id, _request(event.headers)
        elif isinstance(event, InformationalResponseReceived):
            yield event.stream_id, Interim(*_answer(event.headers))
        elif isinstance(event, ResponseReceived):
            yield event.stream_id, Response(*_answer(event.headers), version=(2, 0))
        elif isinstance(event, DataReceived):
            self._conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            yield event.stream_id, Data(event.data)
        elif isinstance(event, TrailersReceived):
            self._streams[event.stream_id].heard = headers_of(event.headers)
        elif isinstance(event, StreamEnded):
            state = self._streams[event.stream_id]
            state.over = True
            yield event.stream_id, Trailers(state.heard)
        elif isinstance(event, StreamReset):
            state = self._streams[event.stream_id]
            yield event.stream_id, self._gone(state, f"RST_STREAM, {_name(event.error_code)}")

    def _gone(self, state: _Stream, why: str) -> Gone:
        state.data = b""
        state.over = state.sent = True
        return Gone(why)

    def owes(self, stream: int) -> bool:
        """See `Speech`."""
        state = self._streams[stream]
        return not (state.ended or state.sent)

    def retire(self) -> None:
        """See `Speech`."""
        self._retires = True

    def said_raw(self) -> None:
        """See `Speech`. What belongs to no request of h2's is refused when it comes."""


def _pairs(pseudo: dict[str, str], headers: Headers) -> list[tuple[bytes, bytes]]:
    """As they go out; Host is in `:authority`."""
    fields = [(name.lower(), value) for name, value in headers.raw()]
    if ":method" in pseudo:
        fields = [(name, value) for name, value in fields if name != b"host"]
    return [*((name.encode(), value.encode("latin-1")) for name, value in pseudo.items()), *fields]


def _request(fields: list[tuple[bytes, bytes]]) -> Request:
    pseudo, headers = _parted(fields)
    if b":authority" in pseudo and "host" not in headers:
        headers = Headers([("Host", pseudo[b":authority"]), *headers])
    return Request(pseudo[b":method"], pseudo.get(b":path", ""), headers, (2, 0), pseudo.get(b":scheme", ""),
                   upgrade=pseudo.get(b":protocol", ""))  # fmt: skip


def _answer(fields: list[tuple[bytes, bytes]]) -> tuple[int, Headers]:
    pseudo, headers = _parted(fields)
    return int(pseudo[b":status"]), headers


def _parted(fields: list[tuple[bytes, bytes]]) -> tuple[dict[bytes, str], Headers]:
    pseudo = {name: value.decode("latin-1") for name, value in fields if name[:1] == b":"}
    return pseudo, headers_of((name, value) for name, value in fields if name[:1] != b":")


def _name(code: int) -> str:
    return ErrorCodes(code).name if code in list(ErrorCodes) else str(code)
