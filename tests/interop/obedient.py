"""An origin that obeys, as a program: `obedient.py PORT NAME`.

Each line on its input is a JSON object of what is to be from now on, as `{"delay_s": 3, "status": 503}`, and is
answered by a line that says how many requests there were. A request is answered with the name, after the delay;
`/health` at once and with 200, whatever else is said, and it does not count. It ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from http import HTTPStatus


class Origin:
    """What it is told to be."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self.delay_s = 0.0
        self.status = 200
        self.requests = 0

    def obey(self, line: bytes) -> str:
        """What it is told, and what it says."""
        for name, value in json.loads(line).items():
            setattr(self, name, value)
        return str(self.requests)

    def answer(self, status: int) -> bytes:
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Length: {len(self.name)}\r\n\r\n"
        return head.encode() + self.name


class Served(asyncio.Protocol):
    """One connection, one request after the other. None has a body."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        head, mark, self.early = (self.early + data).partition(b"\r\n\r\n")
        if not mark:
            self.early = head
            return
        origin = self.origin
        if head.startswith(b"GET /health "):
            self.transport.write(origin.answer(200))
            return
        origin.requests += 1
        if origin.delay_s:
            loop = asyncio.get_running_loop()
            loop.call_later(origin.delay_s, self.transport.write, origin.answer(origin.status))
        else:
            self.transport.write(origin.answer(origin.status))


async def serve(port: int, origin: Origin) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Served(origin), "127.0.0.1", port)
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        print(origin.obey(line), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Origin(sys.argv[2])))
