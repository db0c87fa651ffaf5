"""TLS with clients, through the real program on every backend: curl, openssl s_client and Python's ssl."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from tests.backends.tls_ends import ROOT, STRANGER, VERSIONS, PythonEnd, asking, bytewise, issued
from tests.interop.conftest import running
from tests.interop.fleet import HOST, WITHIN_S, until

if TYPE_CHECKING:
    from coulee.core.tls import Version
    from tests.interop.conftest import Coulee, Curl

MIB = os.urandom(1024) * 1024
LIMIT_S = 1.5  # for a handshake, here

APP = """
from coulee.core import Config, Proxy, Timeouts
from coulee.lb import Cluster

proxy = Proxy(Cluster({origin!r}), config=Config(timeouts=Timeouts(tls_handshake_timeout_s={limit_s})))

@proxy.on("response_filter")
def tell(exchange, response):
    security = exchange.security
    shown = security.certificate.names[0] if security.certificate else "nobody"
    response.headers.set("X-Tls", f"{{security.version}} {{security.resumed}} {{shown}} {{exchange.server_name}}")
"""


class _Echo(BaseHTTPRequestHandler):
    """Says back what it is told; `/close` ends its body with the connection."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is nothing to talk about."""


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with _Server((HOST, 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://{HOST}:{server.server_address[1]}"
        server.shutdown()
        thread.join(WITHIN_S)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the programs need as files."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "ca.pem").write_bytes(ROOT)
    issued("a.test", "localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    issued("alice.test").private_key_and_cert_chain_pem.write_to_path(str(folder / "alice.pem"))
    mallory = issued("mallory.test", authority=STRANGER)
    mallory.private_key_and_cert_chain_pem.write_to_path(str(folder / "mallory.pem"))
    return folder


@pytest.fixture(scope="module")
def proxy(backend: str, origin: str, files: Path) -> Generator[Coulee, None, None]:
    """coulee with TLS, on each backend. Clients may show certificates."""
    options = ["--client-ca", str(files / "ca.pem"), "--client-certificates", "optional"]
    app = APP.format(origin=origin, limit_s=LIMIT_S)
    with running("--backend", backend, "--tls", str(files / "server.pem"), *options, app=app) as child:
        yield child


def url_of(proxy: Coulee, path: str = "/", host: str = "localhost") -> str:
    return f"https://{host}:{proxy.port}{path}"


@contextlib.contextmanager
def dialled(
    proxy: Coulee, context: ssl.SSLContext, name: str = "a.test", session: ssl.SSLSession | None = None
) -> Generator[ssl.SSLSocket, None, None]:
    """A connection of Python's own."""
    with (
        socket.create_connection((HOST, proxy.port), timeout=WITHIN_S) as sock,
        context.wrap_socket(sock, server_hostname=name, session=session) as tls,
    ):
        yield tls


def asked(tls: ssl.SSLSocket) -> bytes:
    """A whole answer."""
    tls.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    return heard(tls)


def heard(tls: ssl.SSLSocket) -> bytes:
    """What comes of it."""
    answer = b""
    while not answer.endswith(b"hello"):
        piece = tls.recv(65536)
        assert piece, answer
        answer += piece
    return answer


# ---------------------------------------------------------------------------------------------------------- curl


class TestCurl:
    @pytest.fixture
    def trusting(self, files: Path) -> list[str]:
        return ["--cacert", str(files / "ca.pem")]

    @pytest.mark.parametrize("version", VERSIONS)
    def test_a_mebibyte_both_ways(self, proxy: Coulee, curl: Curl, trusting: list[str], version: Version) -> None:
        answer = curl(
            *trusting, f"--tlsv{version}", "--tls-max", version, "--data-binary", "@-", url_of(proxy), data=MIB
        )
        assert (answer.code, answer.status) == (0, 200)
        assert answer.body == MIB
        assert (answer.get("x-tls") or "").startswith(f"TLSv{version} ")

    @pytest.mark.parametrize(("asked", "version"), [([], b"2"), (["--http1.1"], b"1.1")])
    def test_two_requests_on_one_connection(
        self, proxy: Coulee, curl: Curl, trusting: list[str], asked: list[str], version: bytes
    ) -> None:
        told = "%{num_connects} %{http_version} %{ssl_verify_result}\n"
        done = curl.run(*trusting, *asked, "-w", told, url_of(proxy), url_of(proxy))
        assert done.stdout == b"hello1 %b 0\nhello0 %b 0\n" % (version, version)

    def test_one_that_does_not_know_our_authority(self, proxy: Coulee, curl: Curl) -> None:
        assert curl.run(url_of(proxy)).returncode == 60
        until(lambda: "the peer says: alert unknown ca" in proxy.said, "coulee says why")

    def test_a_name_that_is_not_ours(self, proxy: Coulee, curl: Curl, trusting: list[str]) -> None:
        resolve = f"b.test:{proxy.port}:{HOST}"
        assert curl.run(*trusting, "--resolve", resolve, url_of(proxy, host="b.test")).returncode == 60

    def test_one_that_shows_its_own(self, proxy: Coulee, curl: Curl, trusting: list[str], files: Path) -> None:
        answer = curl(*trusting, "--cert", str(files / "alice.pem"), url_of(proxy))
        assert answer.get("x-tls") == "TLSv1.3 False DNS:alice.test localhost"
        assert curl(*trusting, url_of(proxy)).get("x-tls") == "TLSv1.3 False nobody localhost"

    def test_one_that_shows_a_stranger_s(self, proxy: Coulee, curl: Curl, trusting: list[str], files: Path) -> None:
        assert curl.run(*trusting, "--cert", str(files / "mallory.pem"), url_of(proxy)).returncode in (35, 55, 56)

    def test_plain_http_by_mistake(self, proxy: Coulee, curl: Curl) -> None:
        answer = curl(f"http://{HOST}:{proxy.port}/")
        assert answer.status == 400
        assert b"plain_http" in answer.body

    def test_a_host_that_the_certificate_does_not_cover(self, proxy: Coulee, curl: Curl, trusting: list[str]) -> None:
        answer = curl(*trusting, "-H", "Host: b.test", url_of(proxy))
        assert answer.status == 421
        assert b"misdirected" in answer.body
        assert curl(*trusting, "-H", "Host: A.test:9", url_of(proxy)).status == 200


# ------------------------------------------------------------------------------------------------------- openssl


class TestOpenssl:
    @pytest.fixture
    def s_client(self, files: Path) -> list[str]:
        program = shutil.which("openssl")
        if program is None:
            pytest.skip("openssl is not installed")
        return [program, "s_client", "-CAfile", str(files / "ca.pem"), "-servername", "a.test", "-verify_return_error",
                "-verify_hostname", "a.test"]  # fmt: skip

    def run(self, s_client: list[str], proxy: Coulee, *args: str) -> str:
        """What it says of one request."""
        request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
        command = [*s_client, "-connect", f"{HOST}:{proxy.port}", "-ign_eof", *args]
        done = subprocess.run(command, input=request, capture_output=True, timeout=WITHIN_S, check=False)
        return done.stdout.decode() + done.stderr.decode()

    @pytest.mark.parametrize("version", VERSIONS)
    def test_what_it_finds(self, s_client: list[str], proxy: Coulee, version: Version) -> None:
        said = self.run(s_client, proxy, f"-tls{version.replace('.', '_')}", "-alpn", "http/1.1")
        assert "Verify return code: 0 (ok)" in said
        assert f"New, TLSv{version}, Cipher is" in said
        assert "ALPN protocol: http/1.1" in said
        assert "Compression: NONE" in said
        assert said.count("hello") == 1
        assert ("Secure Renegotiation IS supported" in said) is (version == "1.2")

    @pytest.mark.parametrize("version", ["1", "1.1"])
    def test_old_versions(self, s_client: list[str], proxy: Coulee, version: str) -> None:
        said = self.run(s_client, proxy, f"-tls{version.replace('.', '_')}", "-cipher", "ALL:@SECLEVEL=0")
        assert "alert protocol version" in said
        assert "hello" not in said

    @pytest.mark.parametrize("version", VERSIONS)
    def test_it_comes_again(self, s_client: list[str], proxy: Coulee, version: Version, tmp_path: Path) -> None:
        only, session = f"-tls{version.replace('.', '_')}", str(tmp_path / "session")
        first = self.run(s_client, proxy, only, "-sess_out", session)
        assert "New, TLS" in first
        assert re.findall(r"Max Early Data: (\d+)", first) == ([] if version == "1.2" else ["0"])
        again = self.run(s_client, proxy, only, "-sess_in", session)
        assert f"Reused, TLSv{version}" in again
        assert re.search(rf"X-Tls: TLSv{version} True", again)

    def test_a_protocol_that_we_do_not_speak(self, s_client: list[str], proxy: Coulee) -> None:
        assert "no application protocol" in self.run(s_client, proxy, "-alpn", "h3")

    def test_a_new_handshake_within_is_refused(self, s_client: list[str], proxy: Coulee) -> None:
        """RFC 5246 section 7.2.2: no_renegotiation. openssl gives up then."""
        with Dialogue([*s_client, "-connect", f"{HOST}:{proxy.port}", "-tls1_2"]) as openssl:
            openssl.hear("Verify return code", "---\n")
            openssl.say("R\n")
            openssl.hear("RENEGOTIATING", "no renegotiation")

    @pytest.mark.parametrize("word", ["K", "k"])
    def test_new_keys(self, s_client: list[str], proxy: Coulee, word: str) -> None:
        """K asks for the same in return."""
        with Dialogue([*s_client, "-connect", f"{HOST}:{proxy.port}", "-tls1_3"]) as openssl:
            openssl.hear("Verify return code", "---\n")
            for _ in range(2):
                openssl.say(f"{word}\n")
                openssl.hear("KEYUPDATE\n")
            openssl.say("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            openssl.hear("hello")


class Dialogue:
    """A program that is talked to."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        self.heard = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())

    def hear(self, *words: str) -> None:
        """Until it has said all of these, one behind the other."""
        assert self.process.stdout is not None
        for word in words:
            while word not in self.heard:
                ready, _, _ = select.select([self.process.stdout], [], [], WITHIN_S)
                piece = os.read(self.process.stdout.fileno(), 65536).decode() if ready else ""
                assert piece, f"{word!r} is missing in {self.heard!r}"
                self.heard += piece
            self.heard = self.heard.partition(word)[2]


# -------------------------------------------------------------------------------------------------------- Python


class TestPython:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_it_comes_again(self, proxy: Coulee, version: Version) -> None:
        context = asking(version)
        session = None
        for resumed in (False, True):
            with dialled(proxy, context, session=session) as tls:
                assert f"TLSv{version} {resumed}".encode() in asked(tls)
                assert tls.session_reused is resumed
                session = tls.session

    def test_100_at_once(self, proxy: Coulee) -> None:
        context = asking()
        with contextlib.ExitStack() as stack:
            all_of_them = [stack.enter_context(dialled(proxy, context)) for _ in range(100)]
            for tls in all_of_them:
                tls.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            for tls in all_of_them:
                heard(tls)

    def test_our_farewell(self, proxy: Coulee) -> None:
        """So that a client can tell the end from a cut."""
        with dialled(proxy, asking()) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
            answer = b""
            while piece := tls.recv(65536):  # raises SSLEOFError without it
                answer += piece
        assert answer.endswith(b"hello")

    def test_one_who_leaves_in_the_middle_of_a_body_without_a_farewell(self, proxy: Coulee) -> None:
        with dialled(proxy, asking()) as tls:
            tls.sendall(b"POST /cut HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello")
            os.close(tls.detach())
        assert "client_gone" in proxy.line("/cut")


class TestStalls:
    """A client that says nothing more is closed when its time is over, wherever it has stopped."""

    def test_at_each_flight(self, proxy: Coulee) -> None:
        """All at once, for it takes its time; and one that was done with it before is let alone."""
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            done = stack.enter_context(dialled(proxy, asking()))
            asked(done)
            stalled = [stack.enter_context(self.stalled(proxy, *how)) for how in self.HOWS]
            with socket.create_connection((HOST, proxy.port)) as slow:
                self.speak_slowly(slow)
            for sock in stalled:
                self.read_to_the_end(sock)
            asked(done)
        assert LIMIT_S - 0.1 <= time.monotonic() - began < LIMIT_S + 2
        until(lambda: proxy.said.count("tls_timeout") >= 1, "coulee says so")

    HOWS: tuple[tuple[Version, int, int], ...] = (
        ("1.3", 0, 0),
        ("1.3", 1, 0),
        ("1.3", 100, 0),
        ("1.3", 10_000, 0),
        ("1.3", 10_000, 20),
        ("1.2", 10_000, 0),
        ("1.2", 10_000, 1),
        ("1.2", 10_000, 80),
    )
    """With which version, and how many bytes of its first flight it sends, and of its second."""

    @contextlib.contextmanager
    def stalled(self, proxy: Coulee, version: Version, first: int, second: int) -> Generator[socket.socket, None, None]:
        end = PythonEnd(asking(version))
        end.start()
        with socket.create_connection((HOST, proxy.port), timeout=WITHIN_S) as sock:
            sock.sendall(end.take()[:first])
            flight = b""
            while second and not flight:
                end.feed(sock.recv(65536))
                flight = end.take()
            sock.sendall(flight[:second])
            yield sock

    def read_to_the_end(self, sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(65536):
                pass

    def speak_slowly(self, sock: socket.socket) -> None:
        """A byte of a ClientHello, and after a while the next, until nobody listens any more."""
        end = PythonEnd(asking())
        end.start()
        sock.settimeout(0.05)
        for byte in bytewise(end.take()):
            try:
                sock.sendall(byte)
                assert sock.recv(1000) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                pass
            return
        pytest.fail("it was listened to to the end")
