"""Health checks of real servers, over real sockets: each probe with what it is for, and with what it is not."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import pytest

from coulee.backends.asyncio import AsyncioDriver, serve
from coulee.core import Proxy
from coulee.core.kernel import Task
from coulee.core.peer import Balancer
from coulee.core.seam import ListenAt, UpstreamTls
from coulee.core.transport import Transport
from coulee.lb.checks import Checker
from coulee.lb.endpoint import Endpoint
from coulee.lb.health import HealthCheck, Probe
from coulee.lb.probes import Grpc, Http, Tcp, TlsHello
from tests.interop.proxied import certificates_in

HOST = "127.0.0.1"
WITHIN_S = 15.0  # for anything that should happen at once, on a machine that may be busy


class Prober(Proxy):
    """Checks endpoints, which all start unhealthy, and reports each time that it hears of one."""

    def __init__(self, settings: HealthCheck, members: Sequence[Endpoint], rng: Random | None = None) -> None:
        super().__init__(Balancer(), rng=rng)
        self.settings = settings
        self.members = members
        self.checking: Task | None = None

    def fresh(self, *, rng: Random, wall_clock_offset_s: float = 0.0, listen: Sequence[ListenAt] = ()) -> Prober:
        return Prober(self.settings, self.members, rng)

    def start(self) -> None:
        super().start()
        self.checking = self.kernel.start(Checker(self.settings, self).run(), lambda task: None)

    def checked(self, endpoint: Endpoint, cause: str) -> None:
        self.report((endpoint, cause))

    def drain(self, grace_s: float) -> None:
        assert self.checking is not None
        self.checking.cancel()
        super().drain(grace_s)


def causes(
    probe: Probe,
    where: Sequence[int | Endpoint],
    on_cause: Callable[[int, str], None] = lambda count, cause: None,
    count: int = 0,
    **settings: Any,
) -> list[str]:
    """What checks of ports, or endpoints, come to: the first that is heard of each, or the first `count` of all, in
    order of time."""
    members = [each if isinstance(each, Endpoint) else Endpoint((HOST, each)) for each in where]
    heard: list[tuple[Endpoint, str]] = []

    async def main() -> None:
        done = asyncio.Event()
        drivers: list[AsyncioDriver] = []

        def hear(record: object) -> None:
            if isinstance(record, tuple):
                heard.append(record)
                on_cause(len(heard), record[1])
                if len(heard) == (count or len(members)):
                    done.set()

        prober = Prober(HealthCheck(probe, start="unhealthy", **{"timeout_s": 10.0} | settings), members)
        serving = asyncio.create_task(serve(prober, reporter=hear, on_ready=drivers.append))
        await asyncio.wait_for(done.wait(), WITHIN_S)
        drivers[0].stop()
        await asyncio.wait_for(serving, WITHIN_S)

    asyncio.run(main())
    if count:
        return [cause for _, cause in heard]
    return [next(cause for endpoint, cause in heard if endpoint is member) for member in members]


def cause(probe: Probe, port: int | Endpoint, **settings: Any) -> str:
    """What one check comes to; "" is healthy."""
    (text,) = causes(probe, [port], **settings)
    return text


# ------------------------------------------------------------------------------------------------- servers


class Pages(BaseHTTPRequestHandler):
    """`/STATUS` answers with that status and its Host and User-Agent as the body."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status = int(self.path[1:] or "200")
        body = f"{self.headers['Host']} {self.headers['User-Agent']}".encode()
        self.send_response(status)
        self.send_header("Location", "/500")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def pages() -> Iterator[int]:
    """The port of an HTTP server."""
    server = ThreadingHTTPServer((HOST, 0), Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def silent() -> Iterator[int]:
    """The port of a server that accepts, or rather its system does, and says nothing."""
    with socket.create_server((HOST, 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def nobody() -> Iterator[int]:
    """A port at which nobody listens, nor will."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield bound.getsockname()[1]


@contextlib.contextmanager
def speaking(serve_one: Callable[[socket.socket], object]) -> Generator[int, None, None]:
    """The port of a server that gives each connection to a function, and closes it behind it."""
    with socket.create_server((HOST, 0)) as listener:

        def run() -> None:
            while True:
                try:
                    conn, _ = listener.accept()
                except OSError:
                    return
                with conn, contextlib.suppress(OSError):
                    conn.settimeout(WITHIN_S)
                    serve_one(conn)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2",
               "-out", "cert.pem", "-keyout", "key.pem"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    return folder / "cert.pem", folder / "key.pem"


@contextlib.contextmanager
def tls_server(
    certificate: tuple[Path, Path], version: ssl.TLSVersion, ciphers: str = ""
) -> Generator[tuple[int, list[str | None]], None, None]:
    """The port of a TLS server that speaks one version, and the names that clients have asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(*certificate)
    if ciphers:
        context.set_ciphers(ciphers)
    names: list[str | None] = []
    context.sni_callback = lambda tls, name, context: names.append(name)

    def serve_one(conn: socket.socket) -> None:
        with context.wrap_socket(conn, server_side=True) as tls:
            tls.recv(1)

    with speaking(serve_one) as port:
        yield port, names


# ---------------------------------------------------------------------------------------------- whatever it is

PROBES: list[Probe] = [Tcp(), TlsHello(), Http(), Grpc()]


@pytest.mark.parametrize("probe", PROBES)
def test_a_port_that_refuses(probe: Probe, nobody: int) -> None:
    assert cause(probe, nobody).startswith("upstream_refused: ")


@pytest.mark.parametrize("probe", PROBES[1:])
def test_a_port_that_accepts_and_says_nothing(probe: Probe, silent: int) -> None:
    assert cause(probe, silent, timeout_s=0.2) == "no answer within 0.2 s"


@pytest.mark.parametrize("probe", PROBES[1:])
def test_a_port_that_closes(probe: Probe) -> None:
    with speaking(lambda conn: conn.recv(65536)) as port:
        said = cause(probe, port)
    assert said.startswith(("closed without an answer", "upstream_reset: the connection was closed"))


def test_a_port_that_accepts_is_enough_for_tcp(silent: int) -> None:
    assert cause(Tcp(), silent) == ""
    assert cause(Tcp(port=silent), 1) == ""


def test_many_are_checked_side_by_side(pages: int, nobody: int) -> None:
    said = causes(Http(), [pages, nobody] * 50, at_once_max=10)
    assert said[::2] == [""] * 50
    assert all(text.startswith("upstream_refused") for text in said[1::2])


# ---------------------------------------------------------------------------------------------------- http


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (Http(), ""),
        (Http(path="/204"), ""),
        (Http(path="/302"), ""),
        (Http(path="/503"), "status 503"),
        (Http(path="/503", statuses=(503,)), ""),
        (Http(host="a.example", body="a.example coulee-check"), ""),
        (Http(headers={"User-Agent": "me"}, body=b" me"), ""),
        (Http(body="all is well"), "status 200, without 'all is well' in its body"),
    ],
)
def test_http(probe: Http, expected: str, pages: int) -> None:
    assert cause(probe, pages) == expected


def test_http_at_a_tls_server_and_tls_and_grpc_at_an_http_server(pages: int, certificate: tuple[Path, Path]) -> None:
    with tls_server(certificate, ssl.TLSVersion.TLSv1_3) as (port, _):
        assert cause(Http(), port).startswith("upstream_")
        assert re.match(r"not HTTP/2: |closed|upstream_reset", cause(Grpc(), port))
    assert cause(TlsHello(), pages).startswith("not TLS: ")
    assert cause(Grpc(), pages).startswith("not HTTP/2: ")


def test_an_endpoint_that_comes_back_is_healthy_within_its_interval() -> None:
    well = threading.Event()

    def serve_one(conn: socket.socket) -> None:
        conn.recv(65536)
        conn.sendall(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % (200 if well.is_set() else 503))

    with speaking(serve_one) as port:
        said = causes(
            Http(), [port], lambda count, text: well.set(), count=2, interval_s=0.05, unhealthy_interval_s=0.05, rise=2
        )
    assert said == ["status 503", ""]


# ----------------------------------------------------------------------------------------------------- tls


@pytest.mark.parametrize(
    ("version", "ciphers"),
    [
        (ssl.TLSVersion.TLSv1_2, ""),
        (ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-CHACHA20-POLY1305"),
        (ssl.TLSVersion.TLSv1_3, ""),
    ],
)
def test_a_tls_server(version: ssl.TLSVersion, ciphers: str, certificate: tuple[Path, Path]) -> None:
    with tls_server(certificate, version, ciphers) as (port, names):
        assert cause(TlsHello(), port) == ""
        assert cause(TlsHello(server_name="a.example"), port) == ""
    assert names == [None, "a.example"]


def test_a_tls_server_that_has_nothing_in_common_with_us(certificate: tuple[Path, Path]) -> None:
    with tls_server(certificate, ssl.TLSVersion.TLSv1_2, "CAMELLIA128-SHA@SECLEVEL=0") as (port, _):
        assert cause(TlsHello(), port) == "TLS alert: handshake_failure (40)"


@contextlib.contextmanager
def openssl_server(certificate: tuple[Path, Path], *options: str) -> Generator[int, None, None]:
    """The port of an `openssl s_server`."""
    command = ["openssl", "s_server", "-accept", f"{HOST}:0", "-cert", str(certificate[0]), "-key",
               str(certificate[1]), *options]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            assert server.stdout is not None
            port = next(int(line.rpartition(b":")[2]) for line in server.stdout if line.startswith(b"ACCEPT"))
            yield port
        finally:
            server.kill()


@pytest.mark.parametrize(
    "options",
    [("-tls1_2",), ("-tls1_3",), ("-tls1_3", "-groups", "P-256"), ("-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA")],
)
def test_a_server_of_openssl(options: tuple[str, ...], certificate: tuple[Path, Path]) -> None:
    with openssl_server(certificate, *options) as port:
        assert cause(TlsHello(server_name="localhost"), port) == ""


def test_a_server_of_openssl_that_speaks_no_version_of_ours(certificate: tuple[Path, Path]) -> None:
    with openssl_server(certificate, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0") as port:
        assert cause(TlsHello(), port) == "TLS alert: protocol_version (70)"


# ---------------------------------------------------------------------------------------------------- grpc


@contextlib.contextmanager
def grpc_server(health: bool, pair: bytes = b"") -> Generator[tuple[int, Any], None, None]:
    """The port of a server of grpcio, and its health service, which may be missing; over TLS with a certificate."""
    grpc = pytest.importorskip("grpc")
    health_pb2_grpc = pytest.importorskip("grpc_health.v1.health_pb2_grpc")
    servicer = pytest.importorskip("grpc_health.v1.health").HealthServicer()
    server = grpc.server(ThreadPoolExecutor(2))
    if health:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if pair:
        port = server.add_secure_port(f"{HOST}:0", grpc.ssl_server_credentials([(pair, pair)]))
    else:
        port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    try:
        yield port, servicer
    finally:
        server.stop(0).wait()


def test_a_grpc_server() -> None:
    with grpc_server(health=True) as (port, servicer):
        servicer.set("acme.Billing", 1)
        servicer.set("acme.Shipping", 2)
        servicer.set("acme.Unknown", 0)
        assert cause(Grpc(), port) == ""
        assert cause(Grpc(service="acme.Billing", authority="a.example"), port) == ""
        assert cause(Grpc(service="acme.Shipping"), port) == "NOT_SERVING"
        assert cause(Grpc(service="acme.Unknown"), port) == "UNKNOWN"
        assert cause(Grpc(service="acme.Nothing"), port).startswith("NOT_FOUND (5)")
        servicer.enter_graceful_shutdown()
        assert cause(Grpc(), port) == "NOT_SERVING"
        assert cause(Http(), port).startswith("upstream_")


def test_a_grpc_server_over_tls(tmp_path: Path) -> None:
    certificates = certificates_in(tmp_path)
    tls = UpstreamTls(ca=certificates.ca.read_bytes(), alpn=("h2",))
    with grpc_server(health=True, pair=certificates.pair.read_bytes()) as (port, servicer):
        endpoint = Endpoint(f"https://localhost:{port}", transport=Transport(tls=tls))
        assert cause(Grpc(), endpoint) == ""
        servicer.enter_graceful_shutdown()
        assert cause(Grpc(), endpoint) == "NOT_SERVING"


def test_a_grpc_server_without_health_service() -> None:
    with grpc_server(health=False) as (port, _):
        assert cause(Grpc(), port) == "UNIMPLEMENTED (12): Method not found!"
