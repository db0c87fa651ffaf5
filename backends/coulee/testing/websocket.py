"""A WebSocket that a test plays: both its ends, through a proxy, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from coulee.backends.weather import Weather
from coulee.backends.websocket_speech import (
    CLOSE,
    KEY,
    PING,
    PONG,
    Code,
    Reader,
    Writer,
    accept_of,
    agree,
    close_payload,
    deflate_of,
    frame,
)
from coulee.core import Headers, Proxy, Response, Security
from coulee.core.parts import Fields
from coulee.testing.ends import Line, Upstream
from coulee.testing.exchange import INSTANT, Exchange

_MASK = b"\x37\xfa\x21\x3d"  # that of the examples in RFC 6455


class WebSocket(Exchange):
    """A WebSocket from a client to an origin, through `proxy`: `client` and `origin` are its ends.

        with WebSocket(proxy, "/chat") as ws:
            ws.client.send("hello")
            assert ws.origin.receive() == "hello"
            ws.client.close(4000, "done")
            assert ws.origin.closed == (4000, "done")
        assert ws.record.reason == ""

    The origin agrees by itself, unless `accepts` is False: then `accept` does, or `upstream.reply(403)` refuses.
    `protocols` are offered, and the origin takes the first. With `deflate` both ends can do permessage-deflate, which
    they then do if the proxy lets them. All else is as for an `Exchange`, whose calls are here, too: `advance`,
    `drain`, `record`, `response`, `upstream`, `left` ...

    Used as a context, it is closed at its end, if nobody has; and what came to an end has to be a WebSocket.
    """

    def __init__(
        self,
        proxy: Proxy,
        target: str = "/",
        *,
        headers: Fields = (),
        protocols: Sequence[str] = (),
        deflate: bool = False,
        accepts: bool = True,
        client: str = "10.0.0.9",
        security: Security | None = None,
        server_name: str = "",
        http2: bool = False,
        origin_alpn: tuple[str, ...] = ("http/1.1", "h2"),
        seed: int = 0,
        weather: Weather = INSTANT,
    ) -> None:
        super().__init__(proxy, client=client, security=security, server_name=server_name, http2=http2,
                         origin_alpn=origin_alpn, seed=seed, weather=weather)  # fmt: skip
        self.client = End(self, "client")
        self.origin = End(self, "origin")
        self._accepts = accepts
        self._deflate = deflate
        fields = Headers(headers)
        fields.set("Sec-WebSocket-Version", "13")
        if not self._http2:
            fields.set("Sec-WebSocket-Key", KEY)
        if protocols:
            fields.set("Sec-WebSocket-Protocol", ", ".join(protocols))
        if deflate:
            fields.set("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
        self._connect().behind = self.client
        self.start("GET", target, headers=fields, upgrade="websocket")

    def accept(self, protocol: str = "", *, headers: Fields = ()) -> Self:
        """Have the origin agree, if it does not by itself. `protocol` is the one that it takes."""
        self._accept(self.upstream, protocol, Headers(headers))
        return self.settle()

    def _asked_to_switch(self, upstream: Upstream) -> None:
        if self._accepts:
            offered = upstream.request.headers.get("sec-websocket-protocol") or ""
            self._accept(upstream, offered.partition(",")[0].strip(), Headers())

    def _accept(self, upstream: Upstream, protocol: str, fields: Headers) -> None:
        asked = upstream.request
        if protocol:
            fields.set("Sec-WebSocket-Protocol", protocol)
        extensions = agree(asked.headers.get("sec-websocket-extensions") or "") if self._deflate else ""
        if extensions:
            fields.set("Sec-WebSocket-Extensions", extensions)
        if asked.version == (1, 1):
            fields.set("Connection", "Upgrade")
            fields.set("Upgrade", "websocket")
            fields.set("Sec-WebSocket-Accept", accept_of(asked.headers.get("sec-websocket-key") or ""))
        status = 101 if asked.version == (1, 1) else 200
        upstream.switch(Response(status, fields, ended=False), self.origin)

    @property
    def is_open(self) -> bool:
        """Whether the client's request was granted, and nothing has ended since."""
        client = self._client
        return client is not None and client.switched and not (self.client.is_over or self.origin.is_over)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        if self.is_open and self.client.said.closing is None:
            self.client.close()
        for end in (self.client, self.origin):
            assert not end.broken, f"what came to the {end.name} is no WebSocket: {end.broken}"


class End:
    """One end of a `WebSocket`, which the test plays.

    It answers pings and close frames, and closes its side of the connection when the WebSocket is over, as all do; with
    `answers` set to False it does none of that.
    """

    def __init__(self, exchange: WebSocket, name: str) -> None:
        self.name = name
        self.answers = True
        self.ended = False
        """Whether the other side has said that nothing follows, at a close frame or without one."""
        self.error = ""
        """What has become of the connection, if it did not end in order: `"reset"`, and the like."""
        self.is_over = False
        """Whether it is closed."""
        self.said = Reader(name == "client")
        self._exchange = exchange
        self._line: Line | None = None
        self._given = 0  # messages
        self._has_ended = False
        self._writer = Writer()
        self._heard = Reader(name != "client")

    # -- what came

    def receive(self) -> str | bytes:
        """The next message that came: text or bytes. It must be there."""
        assert not self.broken, f"what came to the {self.name} is no WebSocket: {self.broken}"
        messages = self._heard.messages
        if self._given == len(messages):
            raise AssertionError(f"no message has come to the {self.name}: {self._whereabouts()}")
        self._given += 1
        return messages[self._given - 1]

    @property
    def messages(self) -> list[str | bytes]:
        """The messages that came, and were not given by `receive` yet."""
        return self._heard.messages[self._given :]

    @property
    def closed(self) -> Code | None:
        """The close frame that came: its code, 1005 where it had none, and its reason."""
        return self._heard.closing

    @property
    def pings(self) -> list[bytes]:
        """What the pings that came have carried."""
        return self._heard.pings

    @property
    def pongs(self) -> list[bytes]:
        """What the pongs that came have carried."""
        return self._heard.pongs

    @property
    def frames(self) -> int:
        """How many frames came."""
        return self._heard.frames

    @property
    def broken(self) -> str:
        """Which rule was broken by what came; behind that nothing is read."""
        return self._heard.broken

    def _whereabouts(self) -> str:
        exchange = self._exchange
        if self.closed is not None:
            return f"it was closed with {self.closed}"
        if self._line is None:
            return exchange._whereabouts()
        if self.error or self.ended or self.is_over:
            return f"its connection is at an end ({self.error or 'in order'})"
        return "the other end has sent none, or a filter keeps it; let time pass with advance(seconds=...)"

    # -- what it says

    def send(self, data: str | bytes, *, fragments: int = 1) -> WebSocket:
        """Send a message: text as `str`, binary as `bytes`; in so many frames."""
        return self.send_raw(b"".join(self._writer.message(data, fragments)))

    def ping(self, payload: bytes = b"") -> WebSocket:
        """Send a ping."""
        return self.send_raw(self._writer.control(PING, payload))

    def pong(self, payload: bytes = b"") -> WebSocket:
        """Send a pong."""
        return self.send_raw(self._writer.control(PONG, payload))

    def close(self, code: int = 1000, reason: str = "") -> WebSocket:
        """Send a close frame; 1005 is one without a code."""
        return self.send_raw(self._writer.control(CLOSE, close_payload(code, reason)))

    def send_frame(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool | None = None
    ) -> WebSocket:
        """Send one frame, be it allowed or not: a fragment, one with reserved bits (4 is RSV1), one that is masked and
        should not be."""
        mask = self._writer.mask if masked is None else _MASK if masked else b""
        return self.send_raw(frame(opcode, payload, mask=mask, fin=fin, rsv=rsv))

    def send_raw(self, data: bytes) -> WebSocket:  # what `send` is built on
        """Send bytes as they are."""
        self._write(data)
        return self._exchange.settle()

    def end(self) -> WebSocket:
        """Say that nothing follows, without a close frame if there was none: a half-close."""
        self._stands()
        self._end()
        return self._exchange.settle()

    def reset(self) -> WebSocket:
        """Reset the connection; in HTTP/2, the stream."""
        self._stands().reset()
        return self._exchange.settle()

    def _write(self, data: bytes) -> None:
        line = self._stands()
        self.said.feed(data)
        line.write(data)
        self._finish()

    def _stands(self) -> Line:
        assert self._line is not None, f"the {self.name} has no WebSocket: {self._exchange._whereabouts()}"
        assert not self._has_ended, f"the {self.name} has said that nothing follows"
        return self._line

    # -- what it hears

    def granted(self, line: Line, fields: Headers) -> None:
        """See `Behind`."""
        of_client, of_server = deflate_of(fields.get("sec-websocket-extensions") or "")
        is_client = self.name == "client"
        mine, theirs = (of_client, of_server) if is_client else (of_server, of_client)
        self._line = line
        self._writer = Writer(mask=_MASK if is_client else b"", deflate=mine)
        self.said, self._heard = Reader(is_client, mine), Reader(not is_client, theirs)
        self._given = 0
        self._has_ended = self.ended = self.is_over = False
        self.error = ""

    def heard(self, data: bytes) -> None:
        """See `Behind`."""
        if not data:
            self.ended = True
            if self.answers:
                self._end()
            return
        for opcode, payload in self._heard.feed(data):
            if self.answers and opcode != PONG and self.said.closing is None and not self._has_ended:
                self._write(self._writer.control(PONG if opcode == PING else CLOSE, payload))
        self._finish()

    def lost(self, why: str) -> None:
        """See `Behind`."""
        self.is_over = True
        self.error = self.error or why

    def _finish(self) -> None:
        """When both have sent a close frame, it is for the origin to close (RFC 6455 section 7.1.1)."""
        if self.name == "origin" and self.answers and self.said.closing is not None and self.closed is not None:
            self._end()

    def _end(self) -> None:
        if not self._has_ended and self._line is not None and not self.is_over:
            self._has_ended = True
            self._line.write_eof()
