"""An origin of HTTP/2 by python-hyper's h2 and of HTTP/1.1 by h11, as a program: `h2_origin.py SETTINGS`.

SETTINGS is JSON, of which all may be missing: `pair` (a file with a certificate and its key, for the listeners with
TLS), `goaway_after` (so many requests, and a connection of HTTP/2 is told to go), `streams_max` and `window` (of its
SETTINGS). Its first line of output is JSON with its ports: `h1` and `h2` without TLS, `tls` that speaks both by ALPN,
`tls1` that has HTTP/1.1 only. It ends with its input.

What it does is said by the path (see the table at the end), how by the query. Most of it answers with what it has been
asked, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import h11
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame

Fields: TypeAlias = list[tuple[str, str]]

HOST: Final = "127.0.0.1"
BLOCK: Final = 16 * 1024
CONNECTION_WINDOW: Final = 16 * 1024 * 1024
COUNTS: Final = Counter[str]()
"""Connections and requests, by version; and what has been asked for before, by key."""


class Gone(Exception):
    """The other side has taken its request back, or left."""


class Exchange:
    """One request, and the answer to it, whatever the version."""

    version = ""
    method = ""
    target = ""
    authority = ""
    fields: Fields
    trailers: Fields

    async def read(self) -> bytes:
        """More of the body; b"" at its end. Raises `Gone`."""
        raise NotImplementedError

    async def interim(self, status: int, fields: Fields) -> None:
        raise NotImplementedError

    async def head(self, status: int, fields: Fields, ended: bool = False) -> None:
        raise NotImplementedError

    async def data(self, data: bytes) -> None:
        """Waits for room. Raises `Gone`."""
        raise NotImplementedError

    async def end(self, trailers: Fields | None = None) -> None:
        raise NotImplementedError

    def cut(self, code: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        """End it before its end."""
        raise NotImplementedError

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))


# --------------------------------------------------------------------------------------------------------- HTTP/2


class Stream(Exchange):
    """A stream of HTTP/2."""

    version = "2"

    def __init__(self, conn: Http2, number: int, headers: Sequence[tuple[str, str]]) -> None:
        self.conn = conn
        self.number = number
        said = dict(headers)
        self.method, self.target = said[":method"], said.get(":path", "")
        self.authority = said.get(":authority", said.get("host", ""))
        self.fields = [(name, value) for name, value in headers if not name.startswith(":")]
        self.trailers = []
        self.pieces: list[tuple[bytes, int]] = []
        self.ended = self.gone = False
        self.news = asyncio.Event()

    async def read(self) -> bytes:
        while not self.pieces:
            if self.gone:
                raise Gone
            if self.ended:
                return b""
            self.news.clear()
            await self.news.wait()
        data, size = self.pieces.pop(0)
        if size and not self.gone:  # only now is there room for more
            with contextlib.suppress(h2.exceptions.StreamClosedError):
                self.conn.h2.acknowledge_received_data(size, self.number)
            self.conn.flush()
        return data

    async def interim(self, status: int, fields: Fields) -> None:
        await self.head(status, fields)

    async def head(self, status: int, fields: Fields, ended: bool = False) -> None:
        self._check()
        self.conn.h2.send_headers(self.number, [(":status", str(status)), *fields], end_stream=ended)
        self.conn.flush()

    async def data(self, data: bytes) -> None:
        while data:
            self._check()
            room = min(self.conn.h2.local_flow_control_window(self.number), self.conn.h2.max_outbound_frame_size)
            if room <= 0:
                self.news.clear()
                await self.news.wait()
                continue
            self.conn.h2.send_data(self.number, data[:room])
            data = data[room:]
            self.conn.flush()
            await self.conn.drained()

    async def end(self, trailers: Fields | None = None) -> None:
        self._check()
        if trailers:
            self.conn.h2.send_headers(self.number, trailers, end_stream=True)
        else:
            self.conn.h2.end_stream(self.number)
        self.conn.flush()

    def cut(self, code: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        self._check()
        self.conn.h2.reset_stream(self.number, code)
        self.conn.flush()

    def _check(self) -> None:
        if self.gone:
            raise Gone


class Http2(asyncio.Protocol):
    """A connection of HTTP/2."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.goaway_after: int = settings.get("goaway_after", 0)
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_outbound_headers=False)
        )
        self.streams: dict[int, Stream] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.served = 0
        self.last = 0  # the last stream that is served, once we have said so

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.room = asyncio.Event()
        self.room.set()
        COUNTS["connections 2"] += 1
        self.h2.initiate_connection()
        codes = h2.settings.SettingCodes
        narrow = {"streams_max": codes.MAX_CONCURRENT_STREAMS, "window": codes.INITIAL_WINDOW_SIZE}
        # In a frame of their own, for they hold from when the other side says so.
        self.h2.update_settings({code: self.settings[name] for name, code in narrow.items() if name in self.settings})
        self.h2.increment_flow_control_window(CONNECTION_WINDOW)  # one that is not read holds up no other
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    async def drained(self) -> None:
        await self.room.wait()

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def data_received(self, data: bytes) -> None:
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            COUNTS["broken"] += 1
            print(f"the other side breaks HTTP/2: {error!r}", file=sys.stderr, flush=True)
            self.flush()
            self.transport.close()
            return
        for event in events:
            self._event(event)
        self.flush()

    def _event(self, event: h2.events.Event) -> None:
        number = getattr(event, "stream_id", None) or 0
        stream = self.streams.get(number)
        match event:
            case h2.events.RequestReceived(headers=headers):
                self._begin(number, headers or [])
            case h2.events.DataReceived(data=data, flow_controlled_length=size) if stream:
                stream.pieces.append((data or b"", size or 0))
            case h2.events.TrailersReceived(headers=headers) if stream:
                stream.trailers = list(headers or [])  # type: ignore[arg-type]
            case h2.events.StreamEnded() if stream:
                stream.ended = True
            case h2.events.StreamReset() if stream:
                COUNTS["resets"] += 1
                stream.gone = True
            case h2.events.ConnectionTerminated():
                COUNTS["goaways"] += 1
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged() if not number:
                for each in self.streams.values():
                    each.news.set()
        if stream:
            stream.news.set()

    def _begin(self, number: int, headers: Sequence[Any]) -> None:
        if self.last:
            return  # we have said that it is not served
        COUNTS["requests 2"] += 1
        self.served += 1
        stream = self.streams[number] = Stream(self, number, headers)
        task = asyncio.ensure_future(self._serve(stream))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        if self.served == self.goaway_after:
            self.last = number
            self.flush()
            # By hand: h2 takes no frame any more when it has sent it.
            self.transport.write(GoAwayFrame(0, last_stream_id=number, error_code=0).serialize())

    async def _serve(self, stream: Stream) -> None:
        try:
            await serve(stream)
        except (Gone, h2.exceptions.StreamClosedError, h2.exceptions.ProtocolError):
            COUNTS["gone"] += 1
        finally:
            if stream.ended or stream.gone:
                self.streams.pop(stream.number, None)
            if self.last and len(self.tasks) == 1:
                self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.room.set()
        for stream in self.streams.values():
            stream.gone = True
            stream.news.set()


# --------------------------------------------------------------------------------------------------------- HTTP/1


class Http1(Exchange):
    """A request of HTTP/1.1, and the connection that has brought it."""

    version = "1.1"

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h11 = h11.Connection(h11.SERVER)
        self.asked = b""

    async def begin(self) -> bool:
        """The next request, where there is one."""
        event = await self._next()
        if not isinstance(event, h11.Request):
            return False
        COUNTS["requests 1.1"] += 1
        self.method, self.target = event.method.decode(), event.target.decode()
        self.fields = [(name.decode(), value.decode()) for name, value in event.headers]
        self.trailers = []
        self.authority = dict(self.fields)["host"]
        return True

    async def _next(self) -> Any:
        while (event := self.h11.next_event()) is h11.NEED_DATA:
            try:
                self.h11.receive_data(await self.reader.read(65536))
            except OSError as error:
                raise Gone from error
        return event

    async def read(self) -> bytes:
        while True:
            if self.h11.their_state is not h11.SEND_BODY:
                return b""
            event = await self._next()
            if isinstance(event, h11.Data) and event.data:
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                self.trailers = [(name.decode(), value.decode()) for name, value in event.headers]
            elif isinstance(event, h11.ConnectionClosed):
                raise Gone

    async def _send(self, event: Any) -> None:
        data = self.h11.send(event)
        if self.writer.is_closing():
            raise Gone
        self.writer.write(data or b"")
        await self.writer.drain()

    async def interim(self, status: int, fields: Fields) -> None:
        await self._send(h11.InformationalResponse(status_code=status, headers=fields))

    async def head(self, status: int, fields: Fields, ended: bool = False) -> None:
        if (
            ended
            and self.method != "HEAD"
            and status not in (204, 304)
            and not any(n == "content-length" for n, _ in fields)
        ):
            fields = [*fields, ("content-length", "0")]
        await self._send(h11.Response(status_code=status, headers=fields, reason=b"-"))
        if ended:
            await self.end()

    async def data(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end(self, trailers: Fields | None = None) -> None:
        await self._send(h11.EndOfMessage(headers=trailers or []))

    def cut(self, code: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        self.writer.close()  # what was said before arrives
        raise Gone


async def serve_http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A connection of HTTP/1.1."""
    COUNTS["connections 1.1"] += 1
    exchange = Http1(reader, writer)
    try:
        while await exchange.begin():
            await serve(exchange)
            while await exchange.read():
                pass
            if exchange.h11.our_state is not h11.DONE or exchange.h11.their_state is not h11.DONE:
                break
            exchange.h11.start_next_cycle()
    except (Gone, OSError, h11.ProtocolError):
        COUNTS["gone"] += 1
    finally:
        writer.close()


# ------------------------------------------------------------------------------------------------- what it does


async def echo(exchange: Exchange) -> None:
    """Read all, and say what it was. `answer` says how: by `length`, `unknown` length, `trailers`, or `none`; `status`
    and `interim` with which."""
    query = exchange.query
    if "interim" in query:
        await exchange.interim(int(query["interim"]), [("link", "</style.css>; rel=preload")])
    sha, size = hashlib.sha256(), 0
    while data := await exchange.read():
        sha.update(data)
        size += len(data)
    said = {
        "version": exchange.version, "method": exchange.method, "target": exchange.target,
        "authority": exchange.authority, "fields": exchange.fields, "size": size, "sha256": sha.hexdigest(),
        "trailers": exchange.trailers,
    }  # fmt: skip
    await answer(exchange, json.dumps(said).encode(), query)


async def answer(exchange: Exchange, body: bytes, query: dict[str, str]) -> None:
    """Answer as the query wants it."""
    kind, status = query.get("answer", "length"), int(query.get("status", "200"))
    fields: Fields = [("x-origin", exchange.version), ("set-cookie", "a=1"), ("set-cookie", "b=2")]
    if kind == "none" or exchange.method == "HEAD" or status in (204, 304):
        if kind == "length" and status not in (204, 304):
            fields.append(("content-length", str(len(body))))
        await exchange.head(status, [*fields, ("x-said", hashlib.sha256(body).hexdigest())], ended=True)
        return
    if kind == "length":
        fields.append(("content-length", str(len(body))))
    await exchange.head(status, fields)
    for at in range(0, len(body), BLOCK):
        await exchange.data(body[at : at + BLOCK])
    await exchange.end([("x-check", hashlib.sha256(body).hexdigest())] if kind == "trailers" else None)


async def copy(exchange: Exchange) -> None:
    """Send back what comes, as it comes."""
    await exchange.head(200, [("content-type", "application/octet-stream")])
    while data := await exchange.read():
        await exchange.data(data)
    await exchange.end(exchange.trailers)


async def make(exchange: Exchange) -> None:
    """`size` bytes, of which no two blocks are alike: see `made`. How many have gone out so far is counted by `key`."""
    size, key = int(exchange.query["size"]), f"sent {exchange.query.get('key')}"
    await exchange.head(200, [("content-length", str(size))])
    for number in range(-(-size // BLOCK)):
        piece = made(number)[: size - number * BLOCK]
        await exchange.data(piece)
        COUNTS[key] += len(piece)
    await exchange.end()


def made(number: int) -> bytes:
    """A block of what is made."""
    return hashlib.sha256(str(number).encode()).digest() * (BLOCK // 32)


async def drip(exchange: Exchange) -> None:
    """`times` a piece, `every` so many seconds."""
    await exchange.head(200, [])
    for _ in range(int(exchange.query["times"])):
        await exchange.data(b"drop")
        await asyncio.sleep(float(exchange.query["every"]))
    await exchange.end()


async def late(exchange: Exchange) -> None:
    """After `s` seconds."""
    await asyncio.sleep(float(exchange.query["s"]))
    await echo(exchange)


async def sip(exchange: Exchange) -> None:
    """Read a little, `every` so many seconds, and say in the end what it was."""
    sha = hashlib.sha256()
    while data := await exchange.read():
        sha.update(data)
        await asyncio.sleep(float(exchange.query["every"]))
    await answer(exchange, sha.hexdigest().encode(), {})


async def stuck(exchange: Exchange) -> None:
    """Never read, never answer, until it is taken back: `key` counts that."""
    COUNTS[f"begun {exchange.query.get('key')}"] += 1
    try:
        while True:
            if isinstance(exchange, Stream):
                if exchange.gone:
                    raise Gone
                exchange.news.clear()
                await exchange.news.wait()
            elif isinstance(exchange, Http1) and not await exchange.reader.read(BLOCK):
                raise Gone
    finally:
        COUNTS[f"ended {exchange.query.get('key')}"] += 1


async def cut(exchange: Exchange) -> None:
    """`size` bytes, and then no end but a cut."""
    await exchange.head(200, [])
    await exchange.data(b"x" * int(exchange.query["size"]))
    exchange.cut()


async def refused(exchange: Exchange) -> None:
    """The first time for each `key`, say that it was not looked at."""
    key = f"refused {exchange.query['key']}"
    COUNTS[key] += 1
    if COUNTS[key] == 1 and exchange.version == "2":
        exchange.cut(ErrorCodes.REFUSED_STREAM)
    else:
        await echo(exchange)


async def http11(exchange: Exchange) -> None:
    """Not by HTTP/2."""
    if exchange.version == "2":
        COUNTS["http11"] += 1
        exchange.cut(ErrorCodes.HTTP_1_1_REQUIRED)
    else:
        await echo(exchange)


async def counts(exchange: Exchange) -> None:
    """What has been counted so far."""
    await answer(exchange, json.dumps(COUNTS).encode(), {})


PATHS: Final[dict[str, Callable[[Exchange], Awaitable[None]]]] = {
    "/echo": echo,
    "/copy": copy,
    "/make": make,
    "/drip": drip,
    "/late": late,
    "/sip": sip,
    "/stuck": stuck,
    "/cut": cut,
    "/refused": refused,
    "/http11": http11,
    "/counts": counts,
}


async def serve(exchange: Exchange) -> None:
    """One request."""
    if any(name.lower() == "expect" for name, _ in exchange.fields):
        await exchange.interim(100, [])
    await PATHS.get(urlsplit(exchange.target).path, echo)(exchange)


# ------------------------------------------------------------------------------------------------------ the program


class Either(asyncio.Protocol):
    """Behind TLS: what ALPN has found."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        tls = transport.get_extra_info("ssl_object")
        protocol = Http2(self.settings) if tls.selected_alpn_protocol() == "h2" else stream_protocol()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def stream_protocol() -> asyncio.StreamReaderProtocol:
    """For HTTP/1.1."""
    return asyncio.StreamReaderProtocol(asyncio.StreamReader(), serve_http1)


async def main(settings: dict[str, Any]) -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    servers = {
        "h1": await loop.create_server(stream_protocol, HOST, 0),
        "h2": await loop.create_server(lambda: Http2(settings), HOST, 0),
    }
    if "pair" in settings:
        for name, protocols in (("tls", ["h2", "http/1.1"]), ("tls1", ["http/1.1"])):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(settings["pair"])
            context.set_alpn_protocols(protocols)
            servers[name] = await loop.create_server(lambda: Either(settings), HOST, 0, ssl=context)
    print(json.dumps({name: server.sockets[0].getsockname()[1] for name, server in servers.items()}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)  # what is under way is nobody's any more


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
