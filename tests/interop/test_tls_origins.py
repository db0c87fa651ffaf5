"""TLS with origins, through the real program on every backend: nginx as one, right and wrong, and one that is cut off;
and nginx before coulee."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.backends.tls_ends import ROOT, STRANGER, VERSIONS, answering, issued
from tests.interop.conftest import running
from tests.interop.fleet import HOST, WITHIN_S, until

if TYPE_CHECKING:
    from coulee.core.tls import Version
    from tests.interop.conftest import Coulee, Curl

PORTS_TRIED = 5
MIB = 1024 * 1024

HTTP = """\
daemon off;
master_process off;
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    root {folder}/files;
    ssl_client_certificate {folder}/ca.pem;
{servers}
}}
"""

ORIGIN = """\
    server {{
        listen {host}:{port} ssl;
        server_name a.test;
        set $client "-$ssl_client_s_dn";
        ssl_certificate {folder}/{name}.pem;
        ssl_certificate_key {folder}/{name}.pem;
        {more}
        location /big {{ }}
        location / {{
            add_header X-Tls "$ssl_protocol $ssl_session_reused $ssl_server_name $client" always;
            return 200 "hello\\n";
        }}
    }}
"""

BEFORE = """\
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass https://{host}:{coulee};
            proxy_http_version 1.1;
            proxy_set_header Host a.test;
            proxy_set_header Connection "";
            proxy_ssl_server_name on;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {folder}/ca.pem;
            proxy_ssl_protocols TLSv{version};
            proxy_ssl_name {name};
            {more}
        }}
    }}
"""


def nginx_program() -> str:
    program = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))
    if program is None:
        pytest.skip("nginx is not installed (Debian: nginx-light)")
    return program


@contextlib.contextmanager
def nginx(
    folder: Path, names: list[str], servers: Callable[[dict[str, int]], str]
) -> Generator[dict[str, int], None, None]:
    """nginx while the block lasts, with a port for each name."""
    program = nginx_program()
    process, ports = _started(program, folder, names, servers)
    try:
        assert process.poll() is None, (folder / "log").read_text()
        yield ports
    finally:
        process.terminate()
        process.wait(WITHIN_S)


def _started(
    program: str, folder: Path, names: list[str], servers: Callable[[dict[str, int]], str]
) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
    """The process, or one that has ended; and its ports, which it cannot tell by itself."""
    tries = 0
    while True:
        tries += 1
        with contextlib.ExitStack() as stack:
            probes = {name: stack.enter_context(socket.create_server((HOST, 0))) for name in names}
            ports = {name: int(probe.getsockname()[1]) for name, probe in probes.items()}
        (folder / "pid").unlink(missing_ok=True)
        (folder / "conf").write_text(HTTP.format(folder=folder, servers=servers(ports)))
        command = [program, "-p", str(folder), "-e", "stderr", "-c", str(folder / "conf")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        until(lambda: (folder / "pid").exists() or process.poll() is not None, "nginx starts")  # noqa: B023
        if process.poll() is None or tries == PORTS_TRIED:
            return process, ports
        # Somebody else was given one of the ports a moment later.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the programs need as files."""
    folder = tmp_path_factory.mktemp("tls")
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)
    (folder / "files").mkdir()
    (folder / "files" / "big").write_bytes(os.urandom(MIB))
    (folder / "ca.pem").write_bytes(ROOT)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    leaves = {
        "a": issued("a.test"),
        "b": issued("b.test"),
        "expired": issued("a.test", expires=yesterday),
        "stranger": issued("a.test", authority=STRANGER),
        "coulee": issued("coulee.test"),
    }
    for name, leaf in leaves.items():
        leaf.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
    return folder


# ------------------------------------------------------------------------------------------------ nginx as origin


ORIGINS = {
    "tls1.2": ("a", "ssl_protocols TLSv1.2;"),
    "tls1.3": ("a", "ssl_protocols TLSv1.3;"),
    "closes1.2": ("a", "ssl_protocols TLSv1.2; keepalive_timeout 0;"),
    "closes1.3": ("a", "ssl_protocols TLSv1.3; keepalive_timeout 0;"),
    "wants": ("a", "ssl_verify_client on;"),
    "name": ("b", ""),
    "expired": ("expired", ""),
    "stranger": ("stranger", ""),
    "old": ("a", "ssl_protocols TLSv1.1; ssl_ciphers ALL:@SECLEVEL=0;"),
}
"""Which certificate each has, and what else."""

APP = """
from pathlib import Path
from coulee.core import Peer, Proxy, Transport, UpstreamTls
from coulee.lb import Cluster
from coulee.tls import client_certificate

ca = Path({ca!r}).read_bytes()
proxy = Proxy(Cluster("http://127.0.0.1:9"))
peers = dict()
for name, port in {ports!r}.items():
    for shown, certificate in (("", None), ("shown-", client_certificate({own!r}))):
        tls = UpstreamTls(ca=ca, certificate=certificate).for_host("a.test")
        peers[shown + name] = Peer(("127.0.0.1", port), shown + name, transport=Transport(tls=tls))

@proxy.on("upstream_peer")
def choose(exchange):
    return peers[exchange.request.target.split("/")[1]]

@proxy.on("upstream_request_filter")
def cut(exchange, request):
    request.target = "/" + request.target.split("/", 2)[2]
"""


class Abrupt:
    """An origin whose bodies end with the connection: `/whole` with a farewell of TLS, `/cut` without."""

    def __init__(self) -> None:
        self.context = answering(issued("a.test"))
        self.listening = socket.create_server((HOST, 0))
        self.port = int(self.listening.getsockname()[1])
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listening.accept()
                sock.settimeout(WITHIN_S)
                with contextlib.suppress(OSError):
                    self._answer(sock)

    def _answer(self, sock: socket.socket) -> None:
        with self.context.wrap_socket(sock, server_side=True) as tls:
            request = b""
            while b"\r\n\r\n" not in request:
                request += tls.recv(65536)
            tls.sendall(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
            if b"/whole" in request:
                with contextlib.suppress(ssl.SSLError):
                    tls.unwrap()

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.thread.join(WITHIN_S)


@pytest.fixture(scope="module")
def origins(folder: Path) -> Iterator[dict[str, int]]:
    """The port of each."""

    def servers(ports: dict[str, int]) -> str:
        return "".join(
            ORIGIN.format(host=HOST, port=ports[each], folder=folder, name=name, more=more)
            for each, (name, more) in ORIGINS.items()
        )

    abrupt = Abrupt()
    with nginx(folder, list(ORIGINS), servers) as ports:
        yield {**ports, "abrupt": abrupt.port}
    abrupt.close()


@pytest.fixture(scope="module")
def proxy(backend: str, origins: dict[str, int], folder: Path) -> Generator[Coulee, None, None]:
    app = APP.format(ca=str(folder / "ca.pem"), own=str(folder / "coulee.pem"), ports=origins)
    with running("--backend", backend, app=app) as child:
        yield child


class TestOrigins:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_one_that_is_who_it_should_be(self, proxy: Coulee, curl: Curl, version: Version) -> None:
        answer = curl(f"{proxy.url}/tls{version}/")
        assert answer.body == b"hello\n"
        assert (answer.get("x-tls") or "").startswith(f"TLSv{version} . a.test")

    @pytest.mark.parametrize("version", VERSIONS)
    def test_a_large_body(self, proxy: Coulee, curl: Curl, folder: Path, version: Version) -> None:
        assert curl(f"{proxy.url}/tls{version}/big").body == (folder / "files" / "big").read_bytes()

    def test_one_that_asks_who_we_are(self, proxy: Coulee, curl: Curl) -> None:
        answer = curl(f"{proxy.url}/shown-wants/")
        assert answer.status == 200
        assert "O=trustme" in (answer.get("x-tls") or "")

    def test_and_gets_no_answer(self, proxy: Coulee, curl: Curl) -> None:
        """nginx says that in HTTP."""
        answer = curl(f"{proxy.url}/wants/")
        assert answer.status == 400
        assert b"No required SSL certificate was sent" in answer.body

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("name", "the peer's certificate is not for a.test: it has b.test"),
            ("expired", "its certificate cannot be trusted: certificate has expired"),
            ("stranger", "its certificate cannot be trusted: unable to get local issuer certificate"),
            ("old", "tlsv1 alert protocol version|the peer says: alert protocol version"),
        ],
    )
    def test_one_that_is_not(self, proxy: Coulee, curl: Curl, name: str, why: str) -> None:
        answer = curl(f"{proxy.url}/{name}/why")
        assert answer.status == 502
        assert b"upstream_tls" in answer.body
        record = proxy.record(f"/{name}/why")
        assert record["reason"] == "upstream_tls"
        assert any(each in record["detail"] for each in why.split("|")), record["detail"]

    def test_a_body_that_ends_with_the_connection_is_whole_with_a_farewell_only(
        self, proxy: Coulee, curl: Curl
    ) -> None:
        whole = curl(f"{proxy.url}/abrupt/whole")
        assert (whole.code, whole.body) == (0, b"until the end")
        cut = curl(f"{proxy.url}/abrupt/cut")
        assert cut.code in (18, 56), "it looks whole"
        assert proxy.record("/abrupt/cut")["reason"] == "upstream_reset"
        assert proxy.record("/abrupt/whole")["reason"] != "upstream_reset"

    @pytest.mark.parametrize("version", VERSIONS)
    def test_a_new_connection_goes_on_with_the_session_of_the_last(
        self, proxy: Coulee, curl: Curl, version: Version
    ) -> None:
        said = [curl(f"{proxy.url}/closes{version}/").get("x-tls") for _ in range(3)]
        assert said[1:] == [f"TLSv{version} r a.test -"] * 2


# ----------------------------------------------------------------------------------------------- nginx before us


BEHIND = """
from coulee.core import Proxy, respond
from coulee.lb import Cluster

proxy = Proxy(Cluster("http://127.0.0.1:9"))

@proxy.on("request_filter")
def tell(exchange):
    security = exchange.security
    shown = security.certificate.names[0] if security.certificate else "nobody"
    return respond(200, f"{security.version} {shown} {exchange.server_name}")
"""

OWN = "proxy_ssl_certificate {folder}/coulee.pem; proxy_ssl_certificate_key {folder}/coulee.pem;"
CLIENTS = {
    "tls1.2": ("1.2", "a.test", OWN),
    "tls1.3": ("1.3", "a.test", OWN),
    "nobody": ("1.3", "a.test", "proxy_ssl_session_reuse off;"),  # it resumes what another `server` of its has begun
    "mistaken": ("1.3", "b.test", OWN + "proxy_ssl_session_reuse off;"),
}
"""Which version each speaks, whom it asks for, and what it shows."""


@pytest.fixture(scope="module")
def before(backend: str, folder: Path) -> Generator[dict[str, int], None, None]:
    """nginx before coulee, which wants a certificate of it."""
    own = folder / backend
    own.mkdir()
    (own / "ca.pem").write_bytes(ROOT)
    options = ["--tls", str(folder / "a.pem"), "--client-ca", str(folder / "ca.pem")]
    with running("--backend", backend, *options, app=BEHIND) as coulee:

        def servers(ports: dict[str, int]) -> str:
            return "".join(
                BEFORE.format(
                    host=HOST,
                    port=ports[name],
                    folder=folder,
                    version=version,
                    name=asked,
                    coulee=coulee.port,
                    more=more.format(folder=folder),
                )
                for name, (version, asked, more) in CLIENTS.items()
            )

        with nginx(own, list(CLIENTS), servers) as ports:
            yield ports


class TestBehindNginx:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_it_shows_its_certificate(self, before: dict[str, int], curl: Curl, version: Version) -> None:
        for _ in range(3):
            answer = curl(f"http://{HOST}:{before[f'tls{version}']}/")
            assert answer.body == f"TLSv{version} DNS:coulee.test a.test".encode()

    def test_it_shows_none(self, before: dict[str, int], curl: Curl) -> None:
        assert curl(f"http://{HOST}:{before['nobody']}/").status == 502

    def test_it_asks_for_somebody_else(self, before: dict[str, int], curl: Curl) -> None:
        assert curl(f"http://{HOST}:{before['mistaken']}/").status == 502
