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
from coulee.core.config import Limits
from coulee.lb import Cluster


class Nothing(Filter):
    def websocket_message(self, exchange, message):
        return None


config = Config(limits=Limits(connections_per_address_max=0), websocket=WebSocket(**{settings!r}))
proxy = Proxy(Cluster({url!r}), {filters}, config)
"""
"""All clients of a test come from one address, which may have 256 connections else."""


@contextlib.contextmanager
def before(url: str, way: str, backend: str, *args: str, **settings: float) -> Generator[Coulee, None, None]:
    """coulee, while the block lasts; `settings` are what a filtered WebSocket is allowed."""
    app = APP.format(url=url, settings=settings, filters="[Nothing()]" if way == "filtered" else "[]")
    with running("--backend", backend, "--log", "json", "--grace", "0", *args, app=app) as child:
        yield child
