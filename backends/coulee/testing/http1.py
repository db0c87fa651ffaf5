"""HTTP/1.1 as the ends of a test speak it: through h11, which shares no code with coulee's codecs."""

from __future__ import annotations

from collections.abc import Iterator

import h11

from coulee.core.headers import Headers
from coulee.core.parts import Data, Interim, Part, Request, Response, Trailers
from coulee.testing.speech import NOT_ANSWERED, Heard, NotHttpError, headers_of


class Http1:
    """See `Speech`. What has no length is chunked."""

    def __init__(self, *, asks: bool) -> None:
        self._conn = h11.Connection(h11.CLIENT if asks else h11.SERVER)
        self._stream = 0
        self._to_send = b""
        self._retires = False
        self._switched = False  # nothing is HTTP any more

    @property
    def spent(self) -> bool:
        """See `Speech`."""
        return self._conn.our_state in (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)

    def ask(self, request: Request) -> int:
        """See `Speech`."""
        assert self._conn.our_state is h11.IDLE, NOT_ANSWERED
        self._stream += 1
        fields = _framed(request.headers, request.ended)
        if request.upgrade:
            fields.add("Connection", "Upgrade")
            fields.add("Upgrade", request.upgrade)
        self._send(h11.Request(method=request.method, target=request.target, headers=fields.raw()))
        self._send_body(request.data, request.ended)
        return self._stream

    def say(self, stream: int, part: Part) -> None:
        """See `Speech`."""
        if self._switched:
            assert isinstance(part, Data), "what is no HTTP has no parts"
            self._to_send += part.data
        elif isinstance(part, Response) and part.status == 101:
            fields = _framed(part.headers, True)
            self._send(h11.InformationalResponse(status_code=101, headers=fields.raw()))
            self._switched = True
        elif isinstance(part, Response):
            fields = _framed(part.headers, part.ended)
            if self._retires:
                fields.set("Connection", "close")
            self._send(h11.Response(status_code=part.status, headers=fields.raw()))
            self._send_body(part.data, part.ended)
        elif isinstance(part, Interim):
            self._send(h11.InformationalResponse(status_code=part.status, headers=part.headers.raw()))
        elif isinstance(part, Data):
            self._send_body(part.data, part.ended)
        elif isinstance(part, Trailers):
            self._send_end(part.headers)

    def _send_body(self, data: bytes, ended: bool) -> None:
        if data:
            self._send(h11.Data(data=data))
        if ended:
            self._send_end(Headers())

    def _send_end(self, trailers: Headers) -> None:
        self._send(h11.EndOfMessage(headers=trailers.raw()))
        self._turn_over()

    def _send(self, event: h11.Event) -> None:
        self._to_send += self._conn.send(event) or b""

    def taken(self) -> bytes:
        """See `Speech`."""
        data, self._to_send = self._to_send, b""
        return data

    def hear(self, data: bytes) -> Iterator[Heard]:
        """See `Speech`."""
        conn = self._conn
        if self._switched:
            yield self._stream, Data(data) if data else Trailers(Headers())
            return
        try:
            conn.receive_data(data)
            while True:
                event = conn.next_event()
                if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                    self._switched = True
                    yield self._stream, Response(101, headers_of(event.headers.raw_items()))
                    yield from self.granted()
                    return
                if isinstance(event, h11.Request):
                    self._stream += 1
                    method, target = event.method.decode("latin-1"), event.target.decode("latin-1")
                    fields = headers_of(event.headers.raw_items())
                    yield self._stream, Request(method, target, fields, upgrade=fields.get("upgrade") or "")
                elif isinstance(event, h11.InformationalResponse):
                    yield self._stream, Interim(event.status_code, headers_of(event.headers.raw_items()))
                elif isinstance(event, h11.Response):
                    reason = event.reason.decode("latin-1")
                    yield self._stream, Response(event.status_code, headers_of(event.headers.raw_items()), reason)
                elif isinstance(event, h11.Data):
                    yield self._stream, Data(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    yield self._stream, Trailers(headers_of(event.headers.raw_items()))
                    self._turn_over()
                else:
                    return
        except h11.RemoteProtocolError as error:
            raise NotHttpError(str(error)) from error

    def granted(self) -> Iterator[Heard]:
        """See `Speech`."""
        data, ended = self._conn.trailing_data
        if data:
            yield self._stream, Data(data)
        if ended:
            yield self._stream, Trailers(Headers())

    def gives_up(self, stream: int) -> bool:
        """See `Speech`."""
        return False

    def ends(self, stream: int) -> bool:
        """See `Speech`."""
        return False

    def _turn_over(self) -> None:
        """Be ready for the next request."""
        if self._conn.our_state is self._conn.their_state is h11.DONE:
            self._conn.start_next_cycle()

    def owes(self, stream: int) -> bool:
        """See `Speech`."""
        owing = (h11.SEND_RESPONSE, h11.SEND_BODY, h11.SWITCHED_PROTOCOL)
        return stream == self._stream and self._conn.our_state in owing

    def retire(self) -> None:
        """See `Speech`."""
        self._retires = True

    def said_raw(self) -> None:
        """What h11 did not write, it need not understand: whatever comes is the answer to a GET."""
        self._conn = h11.Connection(h11.CLIENT)
        self._conn.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        self._conn.send(h11.EndOfMessage())


def _framed(headers: Headers, ended: bool) -> Headers:
    fields = headers.copy()
    if not ended and "content-length" not in fields and "transfer-encoding" not in fields:
        fields.add("Transfer-Encoding", "chunked")
    return fields
