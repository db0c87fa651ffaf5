"""The blind byte relay as one writes it with curio: a task for each direction.

Rules: those of `relay.py`. curio is imported as coulee does it, for by itself it does not import on Python 3.12 and
later. Usage: curio_relay.py PORT ORIGIN_PORT
"""

from __future__ import annotations

import sys
from typing import Any

from coulee.backends.curio_module import import_curio

curio = import_curio()

HOST = "127.0.0.1"
READ_BYTES = 64 * 1024


async def pump(source: Any, sink: Any) -> None:
    """Carry one direction to its end."""
    try:
        while data := await source.recv(READ_BYTES):
            await sink.sendall(data)
    except OSError:
        pass


class Relay:
    """What `curio.tcp_server` calls for each client."""

    def __init__(self, origin: int) -> None:
        self.origin = origin

    async def __call__(self, client: Any, _: object) -> None:
        try:
            upstream = await curio.open_connection(HOST, self.origin)
        except OSError:
            return
        async with upstream, curio.TaskGroup(wait=any) as directions:  # the first that ends ends the other
            await directions.spawn(pump, client, upstream)
            await directions.spawn(pump, upstream, client)


def main() -> None:
    port, origin = int(sys.argv[1]), int(sys.argv[2])
    curio.run(curio.tcp_server, HOST, port, Relay(origin))


if __name__ == "__main__":
    main()
