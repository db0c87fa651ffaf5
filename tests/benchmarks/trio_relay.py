"""The blind byte relay as one writes it with trio: a task for each direction.

Rules: those of `relay.py`; trio's own streams, with their own sizes. Usage: trio_relay.py PORT ORIGIN_PORT
"""

from __future__ import annotations

import sys
from functools import partial

import trio

HOST = "127.0.0.1"


async def pump(source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Carry one direction to its end, and end the other with it."""
    try:
        async for data in source:
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel()


async def relay(origin: int, client: trio.SocketStream) -> None:
    try:
        upstream = await trio.open_tcp_stream(HOST, origin)
    except OSError:
        return
    async with upstream, trio.open_nursery() as nursery:
        nursery.start_soon(pump, client, upstream, nursery.cancel_scope)
        await pump(upstream, client, nursery.cancel_scope)


def main() -> None:
    port, origin = int(sys.argv[1]), int(sys.argv[2])
    trio.run(partial(trio.serve_tcp, partial(relay, origin), port, host=HOST))


if __name__ == "__main__":
    main()
