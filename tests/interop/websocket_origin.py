"""A WebSocket server of the package `websockets`: `websocket_origin.py SETTINGS`; it echoes.

SETTINGS is JSON: perhaps `size_max`, of a message. Where it listens is a line of JSON on its output: `port`. It ends
with its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

MIB = 1024 * 1024


async def echo(connection: ServerConnection) -> None:
    """Until the client leaves."""
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)


async def main(settings: dict[str, Any]) -> None:
    """Serve."""
    size_max = settings.get("size_max", 64 * MIB)
    async with serve(echo, "127.0.0.1", 0, max_size=size_max, ping_interval=None) as server:
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
