"""coulee inside a trio program: the proxy and a task of the program's own share a nursery, and end together."""

from collections.abc import Callable
from typing import Any

import trio

from coulee.backends.trio import serve
from coulee.core import Exchange, Filter, Proxy, native
from coulee.lb import Cluster


class Audit(Filter):
    """Has each request written down before it goes on."""

    def __init__(self, book: trio.MemorySendChannel[str]) -> None:
        self.book = book

    async def request_filter(self, exchange: Exchange) -> None:
        await native(self.book.send, f"{exchange.request.method} {exchange.request.target}")


async def write_down(lines: trio.MemoryReceiveChannel[str]) -> None:
    async for line in lines:
        print(line, flush=True)


async def main(origin: str, listen: str, on_ready: Callable[[Any], object] | None = None) -> None:
    book, lines = trio.open_memory_channel[str](100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_down, lines)
        await serve(Proxy(Cluster(origin), [Audit(book)]), listen, on_ready=on_ready)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, "http://127.0.0.1:9000", "127.0.0.1:8000")
