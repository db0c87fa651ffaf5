"""The proxy one writes with aiohttp when one means it: what coulee is compared with among Python proxies.

Rules: the low-level server (no router), one shared session without limits, cookies or decompression; bodies stream both
ways; hop-by-hop fields are not passed on. Runs on uvloop where it is installed, else on asyncio.
Usage: aiohttp_proxy.py PORT ORIGIN_PORT [CERTIFICATE KEY]
"""

from __future__ import annotations

import asyncio
import ssl
import sys

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

HOST = "127.0.0.1"
HOP_BY_HOP = (
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
)


def end_to_end(fields: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The fields a proxy passes on."""
    kept = CIMultiDict(fields)
    connection = kept.get("Connection")
    if connection is not None:
        for name in connection.split(","):
            kept.popall(name.strip(), None)
    for name in HOP_BY_HOP:
        kept.popall(name, None)
    return kept


class Forwarder:
    """The handler: one request to the origin for each request that comes in."""

    def __init__(self, session: aiohttp.ClientSession, origin: str) -> None:
        self.session = session
        self.origin = origin

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await self.session.request(
                request.method,
                URL(self.origin + request.raw_path, encoded=True),
                headers=end_to_end(request.headers),
                data=request.content if request.body_exists else None,
                allow_redirects=False,
            )
        except aiohttp.ClientError as error:
            return web.Response(status=502, text=f"{error}\n")
        async with answer:
            response = web.StreamResponse(
                status=answer.status, reason=answer.reason, headers=end_to_end(answer.headers)
            )
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


async def serve(port: int, origin: int, tls: ssl.SSLContext | None) -> None:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=600),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    )
    async with session:
        handler = web.Server(Forwarder(session, f"http://{HOST}:{origin}"), access_log=None, keepalive_timeout=600)
        server = await asyncio.get_running_loop().create_server(handler, HOST, port, ssl=tls)
        await server.serve_forever()


def main() -> None:
    port, origin = int(sys.argv[1]), int(sys.argv[2])
    tls = None
    if sys.argv[3:]:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*sys.argv[3:])
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(port, origin, tls))
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(port, origin, tls))


if __name__ == "__main__":
    main()
