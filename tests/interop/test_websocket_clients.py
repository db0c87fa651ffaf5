"""Real clients of WebSocket before coulee: the package `websockets`, its synchronous and its asynchronous client, and
aiohttp; each where bytes pass as they come, and where a filter sees the messages.

The short form runs with every test run, on one backend; WEBSOCKET_LONG=1 makes it all (`make websockets`).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.conftest import EVERY_BACKEND, installed
from tests.interop.fleet import HOST, WITHIN_S, until
from tests.interop.http2_proxied import serving
from tests.interop.websocket_doors import LONG, WAYS, before

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee

websockets = pytest.importorskip("websockets", reason="the package websockets is not installed")
aiohttp = pytest.importorskip("aiohttp", reason="the package aiohttp is not installed")

MEBIBYTE = 1024 * 1024
MESSAGE_BYTES_MAX = 16 * MEBIBYTE
NOISE = random.Random(5).randbytes(MEBIBYTE)
MESSAGES: list[str | bytes] = [
    "text",
    "",
    "é\N{GRINNING FACE}" * 1000,
    b"\x00binary\xff",
    b"",
    NOISE,
    NOISE.hex()[:MEBIBYTE],
]
CODES = [1000, 1001, 1003, 1007, 1011, 3000, 4999]
BACKENDS = EVERY_BACKEND if LONG else ["uvloop"]
NUMBERS = itertools.count()


# ------------------------------------------------------------------------------------------------------- clients


class Client(ABC):
    """A client, connected."""

    @property
    @abstractmethod
    def agreed(self) -> tuple[str | None, bool]:
        """The subprotocol, and whether it compresses."""

    @abstractmethod
    async def send(self, message: str | bytes) -> None: ...

    @abstractmethod
    async def receive(self) -> str | bytes:
        """The next message."""

    @abstractmethod
    async def ping(self) -> None:
        """And wait for its answer."""

    @abstractmethod
    async def close(self, code: int, reason: str) -> None:
        """With the answer to it."""

    @abstractmethod
    async def ended(self) -> tuple[int | None, str]:
        """The code and the reason that it hears at the end."""

    @abstractmethod
    async def leave(self) -> None:
        """Keep nothing, however it went."""


class Asynchronous(Client):
    """Of `websockets`."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    @classmethod
    async def connect(cls, url: str, compress: bool, subprotocols: list[str]) -> Client:
        from websockets.asyncio.client import connect
        from websockets.typing import Subprotocol

        names = [Subprotocol(name) for name in subprotocols]
        compression = "deflate" if compress else None
        return cls(await connect(url, compression=compression, subprotocols=names or None, max_size=None, proxy=None))

    @property
    def agreed(self) -> tuple[str | None, bool]:
        return self.connection.subprotocol, bool(self.connection.protocol.extensions)

    async def send(self, message: str | bytes) -> None:
        await self.connection.send(message)

    async def receive(self) -> str | bytes:
        message: str | bytes = await self.connection.recv()
        return message

    async def ping(self) -> None:
        await (await self.connection.ping(b"are you there"))

    async def close(self, code: int, reason: str) -> None:
        await self.connection.close(code, reason)
        received = self.connection.protocol.close_rcvd
        assert (received.code, received.reason) == (code, reason), "the answer"

    async def ended(self) -> tuple[int | None, str]:
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            await self.connection.recv()
        return self.connection.close_code, self.connection.close_reason or ""

    async def leave(self) -> None:
        self.connection.transport.abort()
        await self.connection.wait_closed()


class Synchronous(Asynchronous):
    """Of `websockets`, in a thread for each call."""

    @classmethod
    async def connect(cls, url: str, compress: bool, subprotocols: list[str]) -> Client:
        from websockets.sync.client import connect
        from websockets.typing import Subprotocol

        names = [Subprotocol(name) for name in subprotocols]
        compression = "deflate" if compress else None
        entered = connect(url, compression=compression, subprotocols=names or None, max_size=None, proxy=None).__enter__
        return cls(await asyncio.to_thread(entered))

    async def send(self, message: str | bytes) -> None:
        await asyncio.to_thread(self.connection.send, message)

    async def receive(self) -> str | bytes:
        message: str | bytes = await asyncio.to_thread(self.connection.recv, WITHIN_S)
        return message

    async def ping(self) -> None:
        assert await asyncio.to_thread(self.connection.ping(b"are you there").wait, WITHIN_S)

    async def close(self, code: int, reason: str) -> None:
        await asyncio.to_thread(self.connection.close, code, reason)
        received = self.connection.protocol.close_rcvd
        assert (received.code, received.reason) == (code, reason), "the answer"

    async def ended(self) -> tuple[int | None, str]:
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            await asyncio.to_thread(self.connection.recv, WITHIN_S)
        return self.connection.close_code, self.connection.close_reason or ""

    async def leave(self) -> None:
        await asyncio.to_thread(self.connection.close)


class Aiohttp(Client):
    """Of aiohttp, which answers pings here itself."""

    def __init__(self, session: Any, websocket: Any) -> None:
        self.session = session
        self.websocket = websocket

    @classmethod
    async def connect(cls, url: str, compress: bool, subprotocols: list[str]) -> Client:
        session = aiohttp.ClientSession()
        try:
            websocket = await session.ws_connect(
                url, compress=15 if compress else 0, protocols=subprotocols, max_msg_size=0, autoping=False
            )
        except BaseException:
            await session.close()
            raise
        return cls(session, websocket)

    @property
    def agreed(self) -> tuple[str | None, bool]:
        return self.websocket.protocol, bool(self.websocket.compress)

    async def send(self, message: str | bytes) -> None:
        await (self.websocket.send_str if isinstance(message, str) else self.websocket.send_bytes)(message)

    async def next(self) -> Any:
        """Whatever comes but a ping, which is answered."""
        while (message := await self.websocket.receive()).type is aiohttp.WSMsgType.PING:
            await self.websocket.pong(message.data)
        return message

    async def receive(self) -> str | bytes:
        message = await self.next()
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        data: str | bytes = message.data
        return data

    async def ping(self) -> None:
        await self.websocket.ping(b"are you there")
        message = await self.next()
        assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, b"are you there")

    async def close(self, code: int, reason: str) -> None:
        assert await self.websocket.close(code=code, message=reason.encode())
        assert self.websocket.close_code == code, "the answer"

    async def ended(self) -> tuple[int | None, str]:
        message = await self.next()
        if message.type is aiohttp.WSMsgType.CLOSE:
            return message.data, message.extra
        return self.websocket.close_code, ""

    async def leave(self) -> None:
        await self.websocket.close()
        await self.session.close()


Connect = Callable[[str, bool, list[str]], Awaitable[Client]]
CLIENTS: dict[str, Connect] = {
    "websockets": Asynchronous.connect,
    "websockets.sync": Synchronous.connect,
    "aiohttp": Aiohttp.connect,
}


# ------------------------------------------------------------------------------------------------------- around


@dataclass
class Ground:
    """coulee, what is before it and what is behind it."""

    way: str
    proxy: Coulee
    origin: str
    client: str

    def run(
        self,
        talk: Callable[[Client], Awaitable[None]],
        *,
        compress: bool = False,
        subprotocols: tuple[str, ...] = (),
    ) -> str:
        """What a client does once it is connected; for which target it has asked."""
        target = f"/chat?{next(NUMBERS)}"

        async def within() -> None:
            url = f"ws://{HOST}:{self.proxy.port}{target}"
            client = await CLIENTS[self.client](url, compress, list(subprotocols))
            try:
                await talk(client)
            finally:
                await client.leave()

        asyncio.run(asyncio.wait_for(within(), 2 * WITHIN_S))
        return target

    def heard(self, target: str) -> list[Any]:
        """How it ended for the origin: a code and a reason."""

        def look() -> list[Any] | None:
            with urllib.request.urlopen(f"{self.origin}/ends", timeout=WITHIN_S) as answer:
                found: list[Any] | None = json.load(answer).get(target)
            return found

        return until(look, f"the origin's end of {target}")


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Its URL."""
    with serving("web_origin.py") as ports:
        yield f"http://{HOST}:{ports['websockets']}"


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Whether a filter sees the messages."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def proxy(origin: str, way: str, backend: str) -> Generator[Coulee, None, None]:
    with before(origin, way, backend) as child:
        yield child


@pytest.fixture(params=CLIENTS)
def ground(request: pytest.FixtureRequest, proxy: Coulee, way: str, origin: str) -> Ground:
    """With each client."""
    return Ground(way, proxy, origin, request.param)


# -------------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
def test_messages_of_every_kind(ground: Ground, compress: bool) -> None:
    async def talk(client: Client) -> None:
        assert client.agreed == (None, compress)
        for message in MESSAGES:
            await client.send(message)
            assert await client.receive() == message
        await client.send("extensions")
        passed = compress and ground.way == "passed"
        assert await client.receive() == ("permessage-deflate" if passed else ""), "a filter's origin has none"
        await client.send("pieces each in a frame of its own")
        assert await client.receive() == "eachinaframeofitsown"
        await client.close(1000, "enough")

    target = ground.run(talk, compress=compress)
    assert ground.heard(target) == [1000, "enough"]
    record = ground.proxy.record(target)
    assert (record["status"], record["reason"]) == (101, "")


def test_many_at_once_come_in_their_order(ground: Ground) -> None:
    sent = [f"{number} " + "y" * (number * 37 % 5000) for number in range(300)]

    async def talk(client: Client) -> None:
        async def send() -> None:
            for message in sent:
                await client.send(message)

        sending = asyncio.create_task(send())
        assert [await client.receive() for _ in sent] == sent
        await sending
        await client.close(1000, "")

    ground.run(talk)


def test_pings_both_ways(ground: Ground) -> None:
    async def talk(client: Client) -> None:
        await client.ping()
        await client.send("ping it says")
        assert await client.receive() == "it answered"
        await client.close(1000, "")

    ground.run(talk)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(("chat.v1", "chat.v2"), "chat.v2"), (("chat.v1",), "chat.v1"), (("chat.v1", "x"), "chat.v1")],
)
def test_subprotocols(ground: Ground, offered: tuple[str, ...], chosen: str) -> None:
    """The origin chooses, and it likes `chat.v2` best."""

    async def talk(client: Client) -> None:
        assert client.agreed == (chosen, False)
        await client.close(1000, "")

    ground.run(talk, subprotocols=offered)


def test_the_client_closes(ground: Ground) -> None:
    for code in CODES:

        async def talk(client: Client, code: int = code) -> None:
            await client.close(code, f"I say {code}")

        target = ground.run(talk)
        assert ground.heard(target) == [code, f"I say {code}"]
        tags = ground.proxy.record(target)["tags"]
        assert tags == ({"websocket_close": code} if ground.way == "filtered" else {})


def test_the_origin_closes(ground: Ground) -> None:
    for code in CODES:

        async def talk(client: Client, code: int = code) -> None:
            await client.send(f"close {code} it says {code}")
            assert await client.ended() == (code, f"it says {code}")

        target = ground.run(talk)
        answers = {"aiohttp": [1000, ""]}  # whatever it is told
        assert ground.heard(target) == answers.get(ground.client, [code, f"it says {code}"])
        record = ground.proxy.record(target)
        assert (record["status"], record["reason"]) == (101, "")
        assert record["tags"] == ({"websocket_close": code} if ground.way == "filtered" else {})


def test_the_origin_drops_its_connection(ground: Ground) -> None:
    async def talk(client: Client) -> None:
        await client.send("drop")
        assert await client.ended() == (1006, "")

    record = ground.proxy.record(ground.run(talk))
    assert record["status"] == 101
    assert record["tags"] == ({"websocket_close": 1006} if ground.way == "filtered" else {})
