"""CONNECT through the real program: curl, openssl and a WebSocket client who ask it for a way out, TLS end to end; and
coulee that asks another coulee."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee, Curl, Wire

HOST = "127.0.0.1"
WITHIN_S = 15.0
MEBIBYTE = 1024 * 1024
BIG = 10 * MEBIBYTE

FORWARD = """\
from coulee.core import Config, Exchange, Filter, Proxy, Response, respond
from coulee.core.forward import Forward
from coulee.lb import Cluster

class Door(Filter):
    def request_filter(self, exchange: Exchange) -> Response | None:
        if {credentials!r} and exchange.request.headers.get("proxy-authorization") != {credentials!r}:
            return respond(407, headers={{"Proxy-Authenticate": 'Basic realm="out"'}})

forward = Forward(hosts=("localhost", "127.0.0.1"), ports=({ports},))
proxy = Proxy(Cluster("http://127.0.0.1:9"), [Door()], Config(forward=forward))
"""

REVERSE = """\
from pathlib import Path
from coulee.core import Peer, Proxy, Through, Transport, UpstreamTls
from coulee.lb import Cluster

ca = Path({ca!r}).read_bytes()
hop = Transport(tls=UpstreamTls(ca=ca, server_name="localhost", verified_name="localhost")) if {tls} else Transport()
through = Through(Peer({hop!r}, "hop", transport=hop), user="alice", password={password!r})
tls = UpstreamTls(ca=ca) if {origin!r}.startswith("https:") else None
proxy = Proxy(Cluster({origin!r}, transport=Transport(tls=tls, through=through)))
"""

CHAINED = """\
from coulee.core import Config, Exchange, Filter, Peer, Proxy, Through, Transport
from coulee.core.forward import Forward
from coulee.lb import Cluster

class NextHop(Filter):
    def upstream_peer(self, exchange: Exchange) -> Peer:
        through = Through(Peer({hop!r}, "hop"), user="alice", password="secret")
        return Peer(("localhost", {ports}), transport=Transport(through=through))

forward = Forward(hosts=("localhost",), ports=({ports},))
proxy = Proxy(Cluster("http://127.0.0.1:9"), [NextHop()], Config(forward=forward))
"""

ALICE = "Basic YWxpY2U6c2VjcmV0"


# ---------------------------------------------------------------------------------------------------- origins


@dataclass
class Authority:
    """Who has signed the certificate of `localhost`, and that certificate."""

    ca: Path
    pair: Path
    context: ssl.SSLContext


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate for localhost, or a skip."""
    trustme = pytest.importorskip("trustme", reason="the package trustme is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    ca = trustme.CA()
    certificate = ca.issue_cert("localhost", HOST)
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "pair.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return Authority(folder / "ca.pem", folder / "pair.pem", context)


class _Handler(BaseHTTPRequestHandler):
    """Answers with as many bytes as its path says, and tells the SHA-256 of what it was sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        size = int(self.path[1:] or "2")
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(b"x" * size)

    def do_PUT(self) -> None:
        digest = hashlib.sha256(self.rfile.read(int(self.headers["Content-Length"]))).hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(digest)))
        self.end_headers()
        self.wfile.write(digest)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is nothing to talk about."""


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Generator[int, None, None]:
    """An origin on a thread; gives its port."""
    server = _Server((HOST, 0), _Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join(WITHIN_S)


@pytest.fixture(scope="module")
def origin(authority: Authority) -> Iterator[int]:
    """The port of an origin with TLS."""
    with serving(authority.context) as port:
        yield port


@pytest.fixture(scope="module")
def plain_origin() -> Iterator[int]:
    """The port of one without."""
    with serving() as port:
        yield port


def echo(sock: socket.socket) -> None:
    with contextlib.suppress(OSError), sock:
        while data := sock.recv(65536):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def echo_port() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    listening = socket.create_server((HOST, 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(listening.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(WITHIN_S)


# ----------------------------------------------------------------------------------------------- the proxies


@pytest.fixture
def forward(coulee: Callable[..., Coulee], backend: str) -> Callable[..., Coulee]:
    """Starts coulee as a forward proxy to these ports of localhost, on each backend."""

    def start(*ports: int, credentials: str = "", options: tuple[str, ...] = (), listen: str = f"{HOST}:0") -> Coulee:
        app = FORWARD.format(ports=", ".join(map(str, ports)), credentials=credentials)
        return coulee("--backend", backend, "--log", "json", *options, app=app, listen=listen)

    return start


def by(proxy: Coulee, authority: Authority, *more: str) -> tuple[str, ...]:
    """What curl has to be told to go through a proxy."""
    return ("--noproxy", "", "--proxy", proxy.url, "--cacert", str(authority.ca), *more)


def test_tls_end_to_end(
    forward: Callable[..., Coulee], authority: Authority, origin: int, plain_origin: int, curl: Curl
) -> None:
    proxy = forward(origin, plain_origin)
    answer = curl(*by(proxy, authority), f"https://localhost:{origin}/")
    assert (answer.status, answer.body, answer.code) == (200, b"xx", 0)
    (opening,) = answer.interims
    assert opening.status == 200
    assert (opening.get("content-length"), opening.get("transfer-encoding")) == (None, None)
    record = proxy.record(f"localhost:{origin}")
    assert (record["method"], record["status"], record["reason"]) == ("CONNECT", 200, "")
    assert record["bytes_out"] > 1000, "its certificate, at least"
    answer = curl(*by(proxy, authority), "--proxytunnel", f"http://{HOST}:{plain_origin}/5")
    assert (answer.status, answer.body) == (200, b"xxxxx")


def test_by_h11(forward: Callable[..., Coulee], authority: Authority, origin: int, curl: Curl) -> None:
    proxy = forward(origin, options=("--http1-codec", "h11"))
    answer = curl(*by(proxy, authority), f"https://localhost:{origin}/{MEBIBYTE}")
    assert (answer.status, len(answer.body)) == (200, MEBIBYTE)


def test_much_both_ways(forward: Callable[..., Coulee], authority: Authority, origin: int, curl: Curl) -> None:
    proxy = forward(origin)
    data = bytes(range(256)) * (BIG // 256)
    answer = curl(*by(proxy, authority), "-T", "-", "-H", f"Content-Length: {BIG}", "-H", "Transfer-Encoding:",
                  "-H", "Expect:", f"https://localhost:{origin}/", data=data)  # fmt: skip
    assert answer.body.decode() == hashlib.sha256(data).hexdigest()
    answer = curl(*by(proxy, authority), f"https://localhost:{origin}/{BIG}")
    assert (len(answer.body), answer.code) == (BIG, 0)


def test_much_both_ways_at_once(forward: Callable[..., Coulee], echo_port: int, dial: Callable[[int], Wire]) -> None:
    proxy = forward(echo_port)
    wire = dial(proxy.port)
    wire.send(f"CONNECT {HOST}:{echo_port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert wire.read_head().status == 200
    data = bytes(range(256)) * (BIG // 256)

    def send() -> None:
        wire.send(data)
        wire.sock.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    got = wire.rest()
    sender.join(WITHIN_S)
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    record = proxy.record(f"{HOST}:{echo_port}")
    assert (record["bytes_in"], record["bytes_out"], record["reason"]) == (BIG, BIG, "")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_who_sends_early_and_ends_early(
    forward: Callable[..., Coulee], echo_port: int, dial: Callable[[int], Wire], version: str
) -> None:
    wire = dial(forward(echo_port).port)
    wire.send(f"CONNECT {HOST}:{echo_port} HTTP/{version}\r\nHost: x\r\n\r\nearly".encode())
    wire.sock.shutdown(socket.SHUT_WR)
    assert wire.read_head().status == 200
    assert wire.rest() == b"early"


def test_where_nobody_may_go(
    forward: Callable[..., Coulee], authority: Authority, origin: int, echo_port: int, curl: Curl
) -> None:
    proxy = forward(origin)
    for where in (f"https://localhost:{echo_port}/", "https://other.invalid/", f"https://[::1]:{origin}/"):
        answer = curl(*by(proxy, authority), where)
        assert (answer.status, answer.code, answer.get("connection")) == (403, 56, "close")
        assert answer.get("proxy-status") == 'coulee; error=http_request_denied; details="forward_denied"'
    assert proxy.record(f"localhost:{echo_port}")["reason"] == "forward_denied"


def test_nobody_is_there(forward: Callable[..., Coulee], authority: Authority, curl: Curl) -> None:
    with socket.socket() as held:
        held.bind((HOST, 0))
        port = held.getsockname()[1]
        answer = curl(*by(forward(port), authority), f"https://{HOST}:{port}/")
    assert (answer.status, answer.code) == (502, 56)
    assert answer.get("proxy-status") == 'coulee; error=connection_refused; details="upstream_refused"'


def test_who_it_is_may_be_asked(forward: Callable[..., Coulee], authority: Authority, origin: int, curl: Curl) -> None:
    proxy = forward(origin, credentials=ALICE)
    url = f"https://localhost:{origin}/"
    assert curl(*by(proxy, authority), url).status == 407
    assert curl(*by(proxy, authority, "--proxy-user", "alice:wrong"), url).status == 407
    answer = curl(*by(proxy, authority, "--proxy-user", "alice:secret", "--proxy-anyauth"), url)
    assert (answer.status, answer.body) == (200, b"xx"), "asked a second time, by a second connection"
    assert [head.status for head in answer.interims] == [407, 200]


def test_a_proxy_with_tls(forward: Callable[..., Coulee], authority: Authority, origin: int, curl: Curl) -> None:
    proxy = forward(origin, options=("--tls", f"{authority.pair},{authority.pair}"))
    at = f"https://localhost:{proxy.port}"
    answer = curl("--noproxy", "", "--proxy", at, "--proxy-cacert", str(authority.ca), "--cacert", str(authority.ca),
                  f"https://localhost:{origin}/{MEBIBYTE}")  # fmt: skip
    assert (answer.status, len(answer.body), answer.code) == (200, MEBIBYTE, 0)


def test_openssl_by_http_1_0(forward: Callable[..., Coulee], authority: Authority, origin: int) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    proxy = forward(origin)
    done = subprocess.run(
        [program, "s_client", "-proxy", f"{HOST}:{proxy.port}", "-connect", f"localhost:{origin}",
         "-CAfile", str(authority.ca), "-verify_return_error", "-ign_eof", "-quiet"],
        input=b"GET /7 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        capture_output=True, check=False, timeout=WITHIN_S,
    )  # fmt: skip
    assert done.stdout.endswith(b"\r\n\r\nxxxxxxx"), done.stderr


def test_a_websocket(forward: Callable[..., Coulee]) -> None:
    pytest.importorskip("websockets", reason="the package websockets is not installed")
    from websockets.sync.client import connect
    from websockets.sync.server import ServerConnection, serve

    def handle(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    server = serve(handle, HOST, 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    port = server.socket.getsockname()[1]
    proxy = forward(port)
    with connect(f"ws://{HOST}:{port}/", proxy=proxy.url, open_timeout=WITHIN_S, close_timeout=WITHIN_S) as connection:
        for message in ("text", b"\x00\xff", "x" * 500_000):
            connection.send(message)
            assert connection.recv(timeout=WITHIN_S) == message
    server.shutdown()
    thread.join(WITHIN_S)
    assert proxy.record(f"{HOST}:{port}")["reason"] == ""


# ------------------------------------------------------------------------------------------- coulee asks coulee


@pytest.fixture(params=["tcp", "unix", "tls"])
def hop(request: pytest.FixtureRequest) -> str:
    """How the next proxy is reached."""
    name: str = request.param
    return name


@pytest.fixture
def chain(
    coulee: Callable[..., Coulee], forward: Callable[..., Coulee], backend: str, authority: Authority, tmp_path: Path
) -> Callable[..., tuple[Coulee, Coulee]]:
    """Starts a forward proxy, and a reverse proxy that reaches its origin through that."""

    def start(hop: str, scheme: str, port: int, password: str = "secret") -> tuple[Coulee, Coulee]:
        options = ("--tls", f"{authority.pair},{authority.pair}") if hop == "tls" else ()
        socket_file = str(tmp_path / "hop.sock")
        listen = f"unix:{socket_file}" if hop == "unix" else f"{HOST}:0"
        second = forward(port, credentials=ALICE, options=options, listen=listen)
        at = socket_file if hop == "unix" else (HOST, second.port)
        app = REVERSE.format(
            ca=str(authority.ca), tls=hop == "tls", hop=at, password=password, origin=f"{scheme}://localhost:{port}"
        )
        return coulee("--backend", backend, "--log", "json", app=app), second

    return start


def test_a_way_to_an_origin(chain: Callable[..., tuple[Coulee, Coulee]], hop: str, origin: int, curl: Curl) -> None:
    first, second = chain(hop, "https", origin)
    data = bytes(range(256)) * (BIG // 256)
    answer = curl("-T", "-", f"{first.url}/", "-H", f"Content-Length: {BIG}", "-H", "Transfer-Encoding:", data=data)
    assert (answer.status, answer.body.decode()) == (200, hashlib.sha256(data).hexdigest())
    answer = curl(f"{first.url}/{BIG}", f"{first.url}/{BIG}")
    assert (answer.status, len(answer.body)) == (200, 2 * BIG)
    first.end()
    record = second.record(f"localhost:{origin}")
    assert (record["status"], record["reason"]) == (200, "")
    assert len(second.lines) == 1, "one tunnel has carried all of it"


def test_a_way_to_an_origin_without_tls(
    chain: Callable[..., tuple[Coulee, Coulee]], hop: str, plain_origin: int, curl: Curl
) -> None:
    first, _ = chain(hop, "http", plain_origin)
    answer = curl(f"{first.url}/{MEBIBYTE}")
    assert (answer.status, len(answer.body)) == (200, MEBIBYTE)


def test_a_proxy_that_does_not_know_us(chain: Callable[..., tuple[Coulee, Coulee]], origin: int, curl: Curl) -> None:
    first, second = chain("tcp", "https", origin, password="mistaken")
    assert curl(f"{first.url}/").status == 502
    record = first.record("/")
    assert record["reason"] == "upstream_proxy_refused"
    assert record["detail"] == "the proxy hop: it answered 407 to CONNECT"
    for proxy in (first, second):
        said = proxy.said + "".join(proxy.lines)
        assert "mistaken" not in said
        assert "YWxpY2U" not in said


def test_a_way_out_by_a_way_out(
    coulee: Callable[..., Coulee], forward: Callable[..., Coulee], backend: str, authority: Authority, origin: int,
    curl: Curl,
) -> None:  # fmt: skip
    second = forward(origin, credentials=ALICE)
    app = CHAINED.format(hop=(HOST, second.port), ports=origin)
    first = coulee("--backend", backend, "--log", "json", app=app)
    answer = curl(*by(first, authority), f"https://localhost:{origin}/{BIG}")
    assert (answer.status, len(answer.body), answer.code) == (200, BIG, 0)
    assert first.record(f"localhost:{origin}")["bytes_out"] > BIG
    assert second.record(f"localhost:{origin}")["bytes_out"] > BIG
