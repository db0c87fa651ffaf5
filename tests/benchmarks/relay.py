"""The blind byte relay, the floor for any Python proxy: one upstream connection per client connection, no parsing.

Rules: bytes go on as they came; a full socket on one side stops reading on the other; an end on one side ends both (no
half-close). Runs on asyncio, or on uvloop. Usage: relay.py PORT ORIGIN_PORT asyncio|uvloop
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import cast

HOST = "127.0.0.1"


class Side(asyncio.Protocol):
    """One of the two connections; `other` is the one its bytes go to."""

    other: Side
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)

    def pause_writing(self) -> None:
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.other.transport.close()


class Upstream(Side):
    """The connection to the origin; once it stands, it takes what the client has sent so far."""

    def __init__(self, client: Client) -> None:
        self.client = self.other = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        client = self.client
        client.other = self
        self.transport.write(client.early)
        if client.transport.is_closing():
            self.transport.close()


class Client(Side):
    """The connection a client opened; until it has its upstream, it is its own `other` and keeps its bytes."""

    def __init__(self, origin: int) -> None:
        self.origin = origin
        self.early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.other = self
        self.connecting = asyncio.get_running_loop().create_task(self.connect())

    def data_received(self, data: bytes) -> None:
        if self.other is self:
            self.early += data
        else:
            self.other.transport.write(data)

    async def connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: Upstream(self), HOST, self.origin)
        except OSError:
            self.transport.abort()


async def serve(port: int, origin: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Client(origin), HOST, port)
    await server.serve_forever()


def main() -> None:
    port, origin, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    loop_factory = importlib.import_module("uvloop").new_event_loop if name == "uvloop" else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(port, origin))


if __name__ == "__main__":
    main()
