"""coulee before an origin of WebSockets: `passed`, where no filter sees them, and `filtered`, where one does that
changes nothing.

`WEBSOCKET_LONG=1` in the environment makes the tests of WebSocket as long as `make websockets` has them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator

from tests.interop.conftest import Coulee, running

LONG = bool(os.environ.get("WEBSOCKET_LONG"))
WAYS = ["passed", "filtered"]

APP = """
from coulee.core import Config, Filter, Proxy, WebSocket
from coulee.lb import Cluster


class Nothing(Filter):
    def websocket_message(self, exchange, message):
        return None


proxy = Proxy(Cluster({url!r}), [Nothing()], Config(websocket=WebSocket(**{settings!r})))
"""


@contextlib.contextmanager
def before(url: str, way: str, backend: str, *args: str, **settings: float) -> Generator[Coulee, None, None]:
    """coulee, while the block lasts; `settings` are what a filtered WebSocket is allowed."""
    args = ("--backend", backend, "--log", "json", "--grace", "0", *args)
    with (
        running(*args, app=APP.format(url=url, settings=settings))
        if way == "filtered"
        else running("--to", url, *args) as child
    ):
        yield child
