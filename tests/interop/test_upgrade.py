"""Upgrades through the real program: a WebSocket client and server who know nothing of it, and curl where it is
refused."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection
    from websockets.sync.server import ServerConnection

    from tests.interop.conftest import Coulee, Curl, Head, Raw, Wire

WITHIN_S = 15.0
MEBIBYTE = 1024 * 1024
ASK = ("-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
       "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip


class Server:
    """A WebSocket server that echoes, says why a client has left, and leaves where it is told to."""

    def __init__(self) -> None:
        from websockets.sync.server import serve

        self.ends: list[tuple[int | None, str | None]] = []
        self.heads: list[dict[str, str]] = []
        self.ended = threading.Event()
        self.server = serve(self.handle, "127.0.0.1", 0, max_size=4 * MEBIBYTE, close_timeout=WITHIN_S)
        self.url = f"http://127.0.0.1:{self.server.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def handle(self, connection: ServerConnection) -> None:
        """One client."""
        from websockets.exceptions import ConnectionClosed

        assert connection.request is not None
        self.heads.append({name.lower(): value for name, value in connection.request.headers.raw_items()})
        with contextlib.suppress(ConnectionClosed):
            for message in connection:
                if message == "leave":
                    connection.close(4001, "told to")
                elif message == "drop":
                    connection.socket.shutdown(socket.SHUT_RDWR)
                else:
                    connection.send(message)
        protocol = connection.protocol
        self.ends.append((protocol.close_code, protocol.close_reason))
        self.ended.set()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join(WITHIN_S)


@pytest.fixture
def server() -> Generator[Server, None, None]:
    """A WebSocket server on a thread."""
    pytest.importorskip("websockets", reason="the package websockets is not installed")
    server = Server()
    yield server
    server.close()


@pytest.fixture
def websocket_proxy(coulee: Callable[..., Coulee], backend: str, server: Server) -> Coulee:
    """coulee before it, on each backend."""
    return coulee("--to", server.url, "--backend", backend, "--log", "json")


@pytest.fixture
def client(websocket_proxy: Coulee) -> Generator[ClientConnection, None, None]:
    """A client of it."""
    from websockets.sync.client import connect

    url = f"ws://127.0.0.1:{websocket_proxy.port}/chat"
    connection = connect(
        url, compression=None, max_size=4 * MEBIBYTE, open_timeout=WITHIN_S, close_timeout=WITHIN_S, proxy=None
    )
    with connection:
        yield connection


def record_of(proxy: Coulee) -> dict[str, Any]:
    """What was logged of the exchange."""
    return proxy.record("/chat")


def test_messages_of_every_kind(client: ClientConnection, server: Server, websocket_proxy: Coulee) -> None:
    for message in ("text", "", "é" * 1000, b"\x00binary\xff", bytes(MEBIBYTE), "x" * MEBIBYTE):
        client.send(message)
        assert client.recv(timeout=WITHIN_S) == message
    client.ping(b"are you there").wait(WITHIN_S)
    client.send([b"in ", b"pieces"])
    assert client.recv(timeout=WITHIN_S) == b"in pieces"
    assert not websocket_proxy.lines, "it is not over"
    client.close(4000, "done")
    assert server.ended.wait(WITHIN_S)
    assert server.ends == [(4000, "done")]
    assert server.heads[0]["x-forwarded-for"] == "127.0.0.1"
    record = record_of(websocket_proxy)
    assert (record["status"], record["reason"]) == (101, "")
    assert 2 * MEBIBYTE < record["bytes_out"] < record["bytes_in"] < 3 * MEBIBYTE, "a client masks, which takes more"


def test_many_messages_at_once_come_in_order(client: ClientConnection) -> None:
    sent = [f"{number} " + "y" * (number * 37 % 5000) for number in range(500)]

    def send() -> None:
        for message in sent:
            client.send(message)

    sender = threading.Thread(target=send)
    sender.start()
    assert [client.recv(timeout=WITHIN_S) for _ in sent] == sent
    sender.join(WITHIN_S)


def test_the_server_leaves(client: ClientConnection, server: Server, websocket_proxy: Coulee) -> None:
    from websockets.exceptions import ConnectionClosed

    client.send("leave")
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=WITHIN_S)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "told to")
    assert record_of(websocket_proxy)["status"] == 101


def test_the_server_drops_its_connection(client: ClientConnection, websocket_proxy: Coulee) -> None:
    from websockets.exceptions import ConnectionClosedError

    client.send("drop")
    with pytest.raises(ConnectionClosedError):
        client.recv(timeout=WITHIN_S)
    assert record_of(websocket_proxy)["status"] == 101


def test_the_client_drops_its_connection(client: ClientConnection, server: Server, websocket_proxy: Coulee) -> None:
    client.send("hello")
    assert client.recv(timeout=WITHIN_S) == "hello"
    client.socket.shutdown(socket.SHUT_RDWR)
    assert server.ended.wait(WITHIN_S), "and the server hears of it"
    assert record_of(websocket_proxy)["status"] == 101


def test_a_drain_lets_it_live_for_its_grace(
    coulee: Callable[..., Coulee], backend: str, raw: Raw, dial: Callable[[int], Wire]
) -> None:
    def switch(wire: Wire, head: Head) -> None:
        wire.send(b"HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello")
        wire.send(wire.read(5))
        wire.rest()

    raw.on("/", switch)
    proxy = coulee("--to", raw.url, "--backend", backend)
    wire = dial(proxy.port)
    wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert wire.read_head().status == 101
    assert wire.read(5) == b"hello"
    proxy.process.terminate()
    wire.send(b"still")
    assert wire.read(5) == b"still"
    wire.close()
    assert proxy.end() == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: other\r\nConnection: upgrade\r\nContent-Length: 3\r\n\r\nno!",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n",
    ],
)
def test_an_origin_that_refuses(raw: Raw, raw_proxy: Coulee, curl: Curl, answer: bytes) -> None:
    def refuse(wire: Wire, head: Head) -> bool:
        wire.send(answer)
        return True

    raw.on("/", refuse)
    for _ in range(2):
        got = curl("--http1.1", *ASK, raw_proxy.url)
        assert (got.status, got.body, got.code) == (int(answer.split()[1]), b"no!", 0)
        assert (got.get("connection"), got.get("upgrade")) == ("close", None)
    assert (raw.heads[0].get("connection"), raw.heads[0].get("upgrade")) == ("upgrade", "websocket")
    assert raw.connections == 1, "the origin's connection is of use again"


def test_h2c_is_not_passed_on(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    def answer(wire: Wire, head: Head) -> bool:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        return True

    raw.on("/", answer)
    fields = ("-H", "Connection: Upgrade, HTTP2-Settings", "-H", "Upgrade: h2c", "-H", "HTTP2-Settings: AAMAAABk")
    assert curl("--http1.1", *fields, raw_proxy.url).body == b"hi"
    head = raw.heads[0]
    assert (head.get("upgrade"), head.get("connection"), head.get("http2-settings")) == (None, None, None)
