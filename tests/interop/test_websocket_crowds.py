"""Many WebSockets at once, and large ones, through the real program with bounded memory; by bytes and by messages.

The short form runs with every test run, on one backend; WEBSOCKET_LONG=1 makes it long, and all of them
(`make websockets`): a thousand clients with a message a second each, and 100 MiB in each direction.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.interop.conftest import EVERY_BACKEND, installed
from tests.interop.fleet import HOST, WITHIN_S
from tests.interop.http2_proxied import serving
from tests.interop.websocket_doors import LONG, WAYS, before

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

pytest.importorskip("websockets", reason="the package websockets is not installed")
pytest.importorskip("aiohttp", reason="the package aiohttp is not installed")

RUNS = list(itertools.product(EVERY_BACKEND, WAYS)) if LONG else [("threads", "filtered")]
CLIENTS, ROUNDS = (1000, 10) if LONG else (100, 2)
CONNECTING_AT_ONCE = 50
LATENCY_MAX_S = 5.0 if LONG else 2.0  # the 99th percentile, where all of this shares two cores with the rest
CLIENT_MAX_KIB = 128  # what one may cost, with both its connections

MEBIBYTE = 1024 * 1024
STREAM_MIB = 100
"""The long form sends all of it; the short one ends where nobody can get on."""

STREAM_MAX_KIB = {"passed": 8 * 1024, "filtered": 16 * 1024}
"""What coulee may grow by, however long the stream is: some buffers, and some messages of 1 MiB."""

BUFFER_BYTES = 64 * 1024  # of a client's socket
STILL_S = 0.5  # who has not got on for so long is stuck
NOISE = random.Random(9).randbytes(MEBIBYTE)


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Its URL."""
    with serving("web_origin.py") as ports:
        yield f"http://{HOST}:{ports['websockets']}"


@pytest.fixture(params=RUNS, ids="-".join)
def run(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A backend, and whether a filter sees the messages."""
    backend, way = request.param
    return installed(backend), way


async def connected(port: int) -> ClientConnection:
    from websockets.asyncio.client import connect

    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (HOST, port))
    return await connect(
        f"ws://{HOST}:{port}/chat", sock=sock, compression=None, max_size=None, max_queue=2, ping_interval=None,
        open_timeout=2 * WITHIN_S, proxy=None,
    )  # fmt: skip


async def crowd(port: int) -> list[float]:
    """Each client has a second of its own for each message; how long each echo took."""
    door = asyncio.Semaphore(CONNECTING_AT_ONCE)

    async def come() -> ClientConnection:
        async with door:
            return await connected(port)

    clients = await asyncio.gather(*(come() for _ in range(CLIENTS)))
    began = asyncio.get_running_loop().time()
    took: list[float] = []

    async def talk(number: int, client: ClientConnection) -> None:
        for round_ in range(ROUNDS):
            due = began + round_ + number / CLIENTS
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            sent, message = time.monotonic(), f"{number} says {round_}"
            await client.send(message)
            assert await client.recv() == message
            took.append(time.monotonic() - sent)

    await asyncio.gather(*(talk(number, client) for number, client in enumerate(clients)))
    await asyncio.gather(*(client.close() for client in clients))
    return took


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
def test_many_clients_with_a_message_a_second(origin: str, run: tuple[str, str]) -> None:
    backend, way = run
    with before(origin, way, backend) as proxy:
        first = proxy.memory_kib("VmRSS")
        took = sorted(asyncio.run(asyncio.wait_for(crowd(proxy.port), ROUNDS + 4 * WITHIN_S)))
        grown = proxy.memory_kib("VmHWM") - first
    late = took[len(took) * 99 // 100]
    print(f"{backend}, {way}: {len(took)} echoes, median {took[len(took) // 2]:.4f} s, 99 % within {late:.4f} s, "
          f"{grown / CLIENTS:.0f} KiB a client")  # fmt: skip
    assert len(took) == CLIENTS * ROUNDS
    assert late < LATENCY_MAX_S
    assert grown < CLIENT_MAX_KIB * CLIENTS + 8 * 1024


async def stream(port: int) -> int:
    """Messages of 1 MiB, whose echoes the client does not read until nobody can get on. How many were sent until then:
    some tens, for which the buffers of the operating system have room."""
    client = await connected(port)
    sent = 0
    count = STREAM_MIB

    async def send() -> None:
        nonlocal sent
        while sent < count:
            await client.send(sent.to_bytes(8, "big") + NOISE[8:])
            sent += 1

    sending = asyncio.create_task(send())
    before_, since = -1, time.monotonic()
    while time.monotonic() - since < STILL_S and not sending.done():
        if sent != before_:
            before_, since = sent, time.monotonic()
        await asyncio.sleep(0.01)
    stuck_at = sent
    if not LONG:
        count = min(stuck_at + 1, STREAM_MIB)  # one is on its way
    for number in range(count):
        assert await client.recv() == number.to_bytes(8, "big") + NOISE[8:]
    await sending
    await client.close()
    return stuck_at


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
def test_a_large_stream_each_way(origin: str, run: tuple[str, str]) -> None:
    """Who does not read holds up who sends, through coulee and the origin; nothing is piled up between."""
    backend, way = run
    with before(origin, way, backend) as proxy:
        asyncio.run(asyncio.wait_for(small(proxy.port), WITHIN_S))
        first = proxy.memory_kib("VmRSS")
        stuck_at = asyncio.run(asyncio.wait_for(stream(proxy.port), 6 * WITHIN_S))
        grown = proxy.memory_kib("VmHWM") - first
    print(f"{backend}, {way}: stuck at {stuck_at} of {STREAM_MIB} MiB, {grown} KiB more")
    assert grown < STREAM_MAX_KIB[way]
    assert stuck_at < STREAM_MIB, "nobody was held up"


async def small(port: int) -> None:
    """What everything is loaded by."""
    client = await connected(port)
    await client.send("x")
    assert await client.recv() == "x"
    await client.close()
