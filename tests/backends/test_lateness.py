"""A loop that is late: what has come in time is heard before the time limit that has passed meanwhile."""

from __future__ import annotations

import socket
import threading
import time
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from coulee.core import Config, Exchange, Filter, Peer, Proxy, Response, Timeouts, respond
from coulee.lb import Cluster

WITHIN_S = 10.0
IDLE_S = 0.05
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


class Dawdle(Filter):
    """For `/late` it sends requests on other connections, and keeps the loop until the limit of these has passed."""

    def __init__(self) -> None:
        self.others: list[socket.socket] = []

    def request_filter(self, exchange: Exchange) -> Response:
        if exchange.request.target == "/late":
            for other in self.others:
                other.sendall(GET % b"other")
            time.sleep(2 * IDLE_S)
        return respond(200, exchange.request.target)


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio", "curio", "threads"])
def test_a_request_that_came_in_time_is_not_overtaken_by_the_limit(backend: str) -> None:
    module = "asyncio" if backend == "uvloop" else backend
    if backend != "threads" and find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    ready, drivers, dawdle = threading.Event(), [], Dawdle()

    def on_ready(driver: Any) -> None:
        drivers.append(driver)
        ready.set()

    config = Config(timeouts=Timeouts(keep_alive_idle_s=IDLE_S))
    proxy = Proxy(Cluster(Peer("nowhere")), [dawdle], config)
    options = {"uvloop": True} if backend == "uvloop" else {}
    run = import_module(f"coulee.backends.{module}").run
    thread = threading.Thread(target=run, args=(proxy, "127.0.0.1:0"), kwargs={"on_ready": on_ready, **options})
    thread.start()
    assert ready.wait(WITHIN_S)
    address = drivers[0].addresses[0]
    try:
        for _ in range(5):
            with dial(address) as late, dial(address) as one, dial(address) as two:
                dawdle.others = [one, two]
                assert all(ask(other, b"first").endswith(b"/first") for other in dawdle.others)
                assert ask(late, b"late").endswith(b"/late")
                assert all(other.recv(65536).endswith(b"/other") for other in dawdle.others)
    finally:
        if backend == "threads":
            drivers[0].stop()
        else:
            drivers[0].loop.call(drivers[0].stop)
        thread.join(WITHIN_S)


def dial(address: Any) -> socket.socket:
    return socket.create_connection(address, WITHIN_S)


def ask(client: socket.socket, path: bytes) -> bytes:
    client.sendall(GET % path)
    return client.recv(65536)
