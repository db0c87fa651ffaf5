"""Two origins in one child process: the WebSocket server of the package `websockets`, and a site by aiohttp for
browsers.

`web_origin.py SETTINGS` takes no settings, prints its ports as JSON, by `websockets` and `site`, and ends with its
input. Both echo what they are sent, but for a few commands. `/ends` of the first tells how each WebSocket has ended,
and `/ended` of the second. Of the events of `/events`, one goes out for each request for `/next`, so that they have to
come one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any

from aiohttp import WSMsgType, web
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

HOST = "127.0.0.1"
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
EVENTS = 5
SUBPROTOCOLS = ["chat.v2", "chat.v1"]
PAGE = "<!doctype html><title>coulee</title>"


class Echo:
    """Of the package `websockets`, with compression."""

    def __init__(self) -> None:
        self.ends: dict[str, tuple[int | None, str | None]] = {}

    async def handle(self, connection: ServerConnection) -> None:
        """One client, until it goes or has us go."""
        assert connection.request is not None
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                await self.answer(connection, message)
        self.ends[connection.request.path] = (connection.protocol.close_code, connection.protocol.close_reason)

    async def answer(self, connection: ServerConnection, message: str | bytes) -> None:
        """Do what it says, or echo it."""
        command, _, rest = message.partition(" ") if isinstance(message, str) else ("", "", "")
        if command == "close":
            code, _, reason = rest.partition(" ")
            await connection.close(int(code), reason)
        elif command == "drop":
            connection.transport.abort()
        elif command == "ping":
            await (await connection.ping(rest))
            await connection.send("it answered")
        elif command == "pieces":
            await connection.send(rest.split())
        elif command == "extensions":
            await connection.send(" ".join(extension.name for extension in connection.protocol.extensions))
        else:
            await connection.send(message)

    def respond(self, connection: ServerConnection, request: Request) -> Response | None:
        """What is no WebSocket."""
        return connection.respond(200, json.dumps(self.ends)) if request.path == "/ends" else None


def chosen(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The one that we like best. The package refuses a client that offers none, unless it is told."""
    return next((Subprotocol(name) for name in SUBPROTOCOLS if name in offered), None)


class Site:
    """A page, a WebSocket and events."""

    def __init__(self) -> None:
        self.more: dict[str, asyncio.Semaphore] = {}
        self.ends: dict[str, int | None] = {}

    def application(self) -> web.Application:
        application = web.Application()
        paths = {"/page": self.page, "/chat": self.chat, "/ended": self.ended}
        paths |= {"/events": self.events, "/next": self.next}
        application.add_routes([web.get(path, handler) for path, handler in paths.items()])
        return application

    async def page(self, request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def chat(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(protocols=SUBPROTOCOLS, max_msg_size=MESSAGE_BYTES_MAX)
        await websocket.prepare(request)
        async for message in websocket:
            if message.type is WSMsgType.BINARY:
                await websocket.send_bytes(message.data)
            elif message.data.startswith("close "):
                _, code, reason = message.data.split(" ", 2)
                await websocket.close(code=int(code), message=reason.encode())
            else:
                await websocket.send_str(message.data)
        self.ends[request.path_qs] = websocket.close_code
        return websocket

    async def ended(self, request: web.Request) -> web.Response:
        return web.json_response(self.ends)

    async def events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        more = self.more[request.query_string] = asyncio.Semaphore(1)
        for number in range(EVENTS):
            await more.acquire()
            await response.write(b"id: %d\ndata: event %d\n\n" % (number, number))
        await response.write(b"event: end\ndata: all\n\n")
        return response

    async def next(self, request: web.Request) -> web.Response:
        self.more[request.query_string].release()
        return web.Response(text="soon")


async def main() -> None:
    """Until the input ends."""
    echo = Echo()
    runner = web.AppRunner(Site().application(), access_log=None, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    async with serve(
        echo.handle, HOST, 0, select_subprotocol=chosen, process_request=echo.respond, max_size=MESSAGE_BYTES_MAX,
        max_queue=2, backlog=1024,
    ) as server:  # fmt: skip
        ports: dict[str, Any] = {
            "websockets": next(iter(server.sockets)).getsockname()[1],
            "site": runner.addresses[0][1],
        }
        print(json.dumps(ports), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
