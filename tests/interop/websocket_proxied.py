"""coulee before a WebSocket server, as tests start it: with a filter that sees every message and changes none, or with
none.

`WEBSOCKET_LONG=1` in the environment makes the tests of WebSocket as long as `make websockets` has them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator

from tests.interop.conftest import Coulee, running

LONG = bool(os.environ.get("WEBSOCKET_LONG"))

WAYS = ("passed", "filtered")
"""How messages go through coulee: as bytes that nobody looks at, or as messages that a filter has seen."""

SEEN = """
from coulee.core import Config, Filter, Proxy
from coulee.core.config import WebSocket
from coulee.lb import Cluster


class Look(Filter):
    '''Sees each message, and changes nothing.'''

    def websocket_message(self, exchange, message):
        exchange.tags["messages"] = exchange.tags.get("messages", 0) + 1


proxy = Proxy(Cluster({url!r}), [Look()], Config(websocket=WebSocket({settings})))
"""


@contextlib.contextmanager
def before(origin: str, way: str, backend: str = "asyncio", settings: str = "") -> Generator[Coulee, None, None]:
    """coulee before an origin while the block lasts; `settings` are those of the core's `WebSocket`."""
    args = ["--backend", backend, "--log", "json"]
    if way == "passed":
        context = running("--to", origin, *args)
    else:
        context = running(*args, app=SEEN.format(url=origin, settings=settings))
    with context as coulee:
        yield coulee
