"""The proxy of HTTP/2 that one writes in Python with what there is: hypercorn, which speaks it to clients, and
aiohttp's client, which speaks HTTP/1.1 to the origin.

Rules: those of `aiohttp_proxy.py`: one shared session without limits, cookies or decompression, bodies stream both
ways, hop-by-hop fields are not passed on. Runs on uvloop where it is installed, else on asyncio.
Usage: hypercorn_proxy.py PORT ORIGIN_PORT CERTIFICATE KEY
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
from yarl import URL

HOST = "127.0.0.1"
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding"
    b" upgrade".split()
)
FOR_EVER = 10**9

Message = dict[str, Any]


class Forwarder:
    """The application: one request to the origin for each request that comes in."""

    def __init__(self, session: aiohttp.ClientSession, origin: str) -> None:
        self.session = session
        self.origin = origin

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        first = await receive()
        target = scope["raw_path"].decode("ascii")
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode("ascii")
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in end_to_end(scope["headers"])]
        answer = await self.session.request(
            scope["method"],
            URL(self.origin + target, encoded=True),
            headers=fields,
            data=body_of(first, receive) if first.get("more_body") else first.get("body") or None,
            allow_redirects=False,
        )
        async with answer:
            kept = end_to_end((name.lower(), value) for name, value in answer.raw_headers)
            await send({"type": "http.response.start", "status": answer.status, "headers": kept})
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def body_of(message: Message, receive: Callable[[], Awaitable[Message]]) -> AsyncIterator[bytes]:
    """The request's body, as it comes."""
    yield message["body"]
    while message.get("more_body"):
        message = await receive()
        yield message.get("body", b"")


def end_to_end(fields: Any) -> list[tuple[bytes, bytes]]:
    """The fields a proxy passes on."""
    kept = [(name, value) for name, value in fields if name not in HOP_BY_HOP]
    named = {word.strip().lower() for name, value in fields if name == b"connection" for word in value.split(b",")}
    return [field for field in kept if field[0] not in named] if named else kept


async def run(port: int, origin: int, certificate: str, key: str) -> None:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=600),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    )
    config = importlib.import_module("hypercorn.config").Config()  # not where the types of this are checked
    config.bind = [f"{HOST}:{port}"]
    config.certfile, config.keyfile = certificate, key
    config.accesslog = config.errorlog = None
    config.keep_alive_timeout = 600
    config.keep_alive_max_requests = FOR_EVER
    async with session:
        application = Forwarder(session, f"http://{HOST}:{origin}")
        serve: Any = importlib.import_module("hypercorn.asyncio").serve
        await serve(application, config, shutdown_trigger=asyncio.Event().wait)


def main() -> None:
    port, origin, certificate, key = sys.argv[1:]
    running = run(int(port), int(origin), certificate, key)
    try:
        import uvloop
    except ImportError:
        asyncio.run(running)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(running)


if __name__ == "__main__":
    main()
