"""WebSockets across versions, through two proxies in a row: what goes from one to the other goes by extended CONNECT
(RFC 8441), so that both speak it, as an origin and as a client.

    websockets, aiohttp --HTTP/1.1--.                                           .--> websockets, aiohttp
    python-hyper's h2 ----HTTP/2----+--> coulee --HTTP/2--> coulee --HTTP/1.1---'
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest
from h2.errors import ErrorCodes

from tests.interop.conftest import EVERY_BACKEND, HOST, installed
from tests.interop.fleet import until
from tests.interop.h2_client import dialled
from tests.interop.http2_proxied import Doors, doors, serving
from tests.interop.proxied import Certificates, certificates_in
from tests.interop.websocket_doors import LONG
from tests.interop.websocket_http2 import WITHIN_S, Http2, Refused

if TYPE_CHECKING:
    from websockets.http11 import Request, Response
    from websockets.sync.client import ClientConnection
    from websockets.sync.server import ServerConnection

MEBIBYTE = 1024 * 1024
EVERY_KIND: list[str | bytes] = ["text", "", "é" * 1000, b"\x00binary\xff", bytes(MEBIBYTE), "x" * MEBIBYTE]


BACKENDS = EVERY_BACKEND if LONG else ["asyncio", "threads"]
"""Two in the short form, which runs with every test run; WEBSOCKET_LONG=1 has all of them (`make websockets`)."""


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


class Server:
    """Echoes by the package websockets, refuses /secret, and goes where it is told to."""

    def __init__(self) -> None:
        from websockets.sync.server import serve

        self.ends: list[tuple[str, int | None]] = []
        self.heads: list[dict[str, str]] = []
        self.server = serve(
            self.handle, HOST, 0, process_request=self.judge, subprotocols=["chat"], max_size=4 * MEBIBYTE,  # type: ignore[list-item]
            close_timeout=WITHIN_S,
        )  # fmt: skip
        self.url = f"http://{HOST}:{self.server.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def judge(self, connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(403, "you may not\n") if request.path == "/secret" else None

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
                    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    connection.socket.close()
                else:
                    connection.send(message)
        self.ends.append((connection.request.path, connection.protocol.close_code))

    def end_of(self, path: str) -> int | None:
        """The code with which a WebSocket has ended, once it has."""
        return until(lambda: next((end for end in self.ends if end[0] == path), None), f"the end of {path}")[1]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join(WITHIN_S)


@pytest.fixture(scope="module")
def server() -> Generator[Server, None, None]:
    pytest.importorskip("websockets", reason="the package websockets is not installed")
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates_in(tmp_path_factory.mktemp("websocket"))


@pytest.fixture(scope="module")
def chain(backend: str, certificates: Certificates, server: Server) -> Generator[Doors, None, None]:
    """The first of the two proxies."""
    with doors(backend, certificates, {"server": {"url": server.url}}) as second:
        origins: dict[str, dict[str, Any]] = {
            "second": {"url": f"h2c://{HOST}:{second.ports['plain']}"},
            "by tls": {"url": f"https://localhost:{second.ports['tls']}", "alpn": ["h2"]},
        }
        with doors(backend, certificates, origins) as first:
            yield first


@pytest.fixture(params=["plain", "tls"])
def http2(request: pytest.FixtureRequest, chain: Doors, certificates: Certificates) -> Iterator[Http2]:
    """A client of HTTP/2, by each listener."""
    context = certificates.plain if request.param == "tls" else None
    connection = Http2(dialled(chain.ports[request.param], context), "https" if context else "http")
    yield connection
    connection.close()


@pytest.fixture
def connect(chain: Doors) -> Callable[..., ClientConnection]:
    """Makes clients of HTTP/1.1, by the package websockets."""
    from websockets.sync.client import connect

    def connected(path: str, **options: Any) -> ClientConnection:
        url = f"ws://{HOST}:{chain.ports['plain']}{path}"
        options = {"subprotocols": ["chat"], "open_timeout": WITHIN_S, "close_timeout": WITHIN_S, **options}
        return cast("ClientConnection", connect(url, max_size=4 * MEBIBYTE, proxy=None, **options))

    return connected


@pytest.mark.parametrize("to", ["second", "by tls"])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_http1_to_http2(
    connect: Callable[..., ClientConnection], server: Server, chain: Doors, to: str, compression: str | None
) -> None:
    path = f"/{chain.backend}-{to[:2]}-{compression}"
    with connect(path, compression=compression, additional_headers={"X-To": to}) as client:
        assert client.subprotocol == "chat"
        assert bool(client.protocol.extensions) == (compression == "deflate"), "it was agreed with the server itself"
        for message in EVERY_KIND:
            client.send(message)
            assert client.recv(timeout=WITHIN_S) == message
        client.ping(b"are you there").wait(WITHIN_S)
        client.close(4000, "done")
    assert server.end_of(path) == 4000
    record = chain.record(path)
    assert (record["status"], record["reason"], record["version"]) == (101, "", "1.1")


def test_http2_to_http2(http2: Http2, server: Server, chain: Doors) -> None:
    """And in the second proxy to HTTP/1.1, with a key of its own."""
    paths = [f"/{chain.backend}-{http2.scheme}-{number}" for number in range(3)]
    streams = [http2.open(path) for path in paths]
    for stream in streams:
        assert stream.fields["sec-websocket-protocol"] == "chat"
        assert "sec-websocket-accept" not in stream.fields
    for message in EVERY_KIND:
        for stream in streams:
            stream.send(message)
        assert [stream.recv() for stream in streams] == [message] * 3
    streams[0].cancel()
    assert server.end_of(paths[0]) == 1006
    streams[1].send("still")
    assert streams[1].recv() == "still"
    assert streams[1].close(4002, "done") == (4002, "done")
    assert server.end_of(paths[1]) == 4002
    streams[2].send("leave")
    streams[2].wait_for_end()
    assert (streams[2].closing, streams[2].reset) == ((4001, "told to"), None)
    assert [chain.record(path)["reason"] for path in paths[:2]] == ["client_gone", ""]


def test_the_server_drops_its_connection(connect: Callable[..., ClientConnection], http2: Http2, chain: Doors) -> None:
    from websockets.exceptions import ConnectionClosedError

    with connect(f"/{chain.backend}-{http2.scheme}-drop1") as client:
        client.send("drop")
        with pytest.raises(ConnectionClosedError):
            client.recv(timeout=WITHIN_S)
    stream = http2.open(f"/{chain.backend}-{http2.scheme}-drop2")
    stream.send("drop")
    stream.wait_for_end()
    assert stream.reset == ErrorCodes.CANCEL
    for number in (1, 2):
        assert chain.record(f"/{chain.backend}-{http2.scheme}-drop{number}")["reason"] == "upstream_reset"


def test_a_refusal_is_an_answer(connect: Callable[..., ClientConnection], http2: Http2) -> None:
    from websockets.exceptions import InvalidStatus

    with pytest.raises(InvalidStatus) as refused:
        connect("/secret").__enter__()
    assert refused.value.response.status_code == 403
    assert refused.value.response.body == b"you may not\n"
    with pytest.raises(Refused) as told:
        http2.open("/secret")
    assert told.value.status == 403


def test_aiohttp_at_both_ends(certificates: Certificates) -> None:
    aiohttp = pytest.importorskip("aiohttp", reason="the package aiohttp is not installed")
    web = pytest.importorskip("aiohttp.web")
    closed_with: list[int] = []

    async def echo(request: Any) -> Any:
        answer = web.WebSocketResponse(max_msg_size=4 * MEBIBYTE)
        await answer.prepare(request)
        async for message in answer:
            await (answer.send_str if isinstance(message.data, str) else answer.send_bytes)(message.data)
        closed_with.append(answer.close_code)
        return answer

    async def talk() -> None:
        app = web.Application()
        app.router.add_get("/echo", echo)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0).start()
        (address,) = runner.addresses
        with (
            doors("asyncio", certificates, {"server": {"url": f"http://{HOST}:{address[1]}"}}) as second,
            doors("asyncio", certificates, {"s": {"url": f"h2c://{HOST}:{second.ports['plain']}"}}) as first,
        ):
            async with asyncio.timeout(WITHIN_S), aiohttp.ClientSession() as session:
                url = f"ws://{HOST}:{first.ports['plain']}/echo"
                async with session.ws_connect(url, compress=15, max_msg_size=4 * MEBIBYTE) as client:
                    for message in EVERY_KIND:
                        await (client.send_str if isinstance(message, str) else client.send_bytes)(message)
                        assert (await client.receive()).data == message
                    await client.close(code=4000)
                    assert (client.close_code, closed_with) == (1000, [4000]), "it answers each with its own"
        await runner.cleanup()

    asyncio.run(talk())


def test_an_origin_of_http2_that_does_not_offer_it(certificates: Certificates) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with (
        serving("h2_origin.py") as ports,
        doors("asyncio", certificates, {"origin": {"url": f"h2c://{HOST}:{ports['h2']}"}}) as coulee,
    ):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://{HOST}:{coulee.ports['plain']}/", proxy=None, open_timeout=WITHIN_S).__enter__()
        assert refused.value.response.status_code == 502
        assert coulee.record("/")["reason"] == "upgrade_unsupported"
