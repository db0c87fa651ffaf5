"""Tunnels on real sockets, on every backend: origins told apart by name, half-closes, resets, much data, TLS that ends
here."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
import trustme

if TYPE_CHECKING:
    from tests.interop.conftest import Curl

HOST: Final = "127.0.0.1"
WITHIN_S: Final = 15.0
SIZE: Final = 10 * 1024 * 1024

PROGRAM: Final = """
import dataclasses, importlib, json, sys

from coulee.core import BySni, Config, Timeouts, Tunnel, TunnelAccess
from coulee.tls import CertificateFiles, Listener, ListenerTls

backend, to, pem = json.loads(sys.argv[1])


def tell(record):
    if isinstance(record, TunnelAccess):
        print(json.dumps(dataclasses.asdict(record), default=str), flush=True)
    elif record.name == "listening":
        print(json.dumps({"port": record.fields["address"][1]}), flush=True)


to = tuple(to) if isinstance(to, list) else BySni({name: tuple(where) for name, where in to.items()})
config = Config(timeouts=Timeouts(tls_handshake_timeout_s=1.0))
listener = Listener(("127.0.0.1", 0), tls=ListenerTls(CertificateFiles(pem)) if pem else None)
options = {"uvloop": True} if backend == "uvloop" else {}
module = importlib.import_module(f"coulee.backends.{'asyncio' if backend == 'uvloop' else backend}")
module.run(Tunnel(to, config, listen=[listener]), (), reporter=tell, grace_s=0.0, **options)
"""


class Tunnel:
    """A tunnel in a child process."""

    def __init__(self, backend: str, to: object, pem: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps([backend, to, pem])], stdout=subprocess.PIPE, text=True
        )
        self.port: int = self.told()["port"]

    def told(self) -> dict[str, Any]:
        """The next record."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the tunnel has ended"
        record: dict[str, Any] = json.loads(line)
        return record

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        assert self.process.wait(WITHIN_S) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()


class Origin:
    """A server in a thread; `serve` is called with each connection, in a thread of its own."""

    def __init__(self, serve: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> None:
        self.serve = serve
        self.context = context
        self.failures: list[BaseException] = []
        self.listener = socket.create_server((HOST, 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.threads: list[threading.Thread] = []
        self.accepting = threading.Thread(target=self.accept)
        self.accepting.start()

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self.answer, args=(sock,))
            thread.start()
            self.threads.append(thread)

    def answer(self, sock: socket.socket) -> None:
        sock.settimeout(WITHIN_S)
        try:
            if self.context is not None:
                sock = self.context.wrap_socket(sock, server_side=True)
            with sock:
                self.serve(sock)
        except BaseException as error:  # told by whoever waits for us
            self.failures.append(error)
            sock.close()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in [self.accepting, *self.threads]:
            thread.join(WITHIN_S)
            assert not thread.is_alive()
        assert not self.failures, self.failures


@pytest.fixture
def origin() -> Iterator[Callable[..., Origin]]:
    with contextlib.ExitStack() as stack:
        yield lambda *args: stack.enter_context(contextlib.closing(Origin(*args)))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def identity(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """A server's context with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    authority.issue_cert(*names).configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    return context


def says(text: bytes) -> Callable[[socket.socket], None]:
    """Answers each connection's request with this."""

    def serve(sock: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(65536)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode()
        sock.sendall(head + text)
        with socket.socket(fileno=sock.detach()) as plain:  # no close_notify is waited for
            plain.settimeout(WITHIN_S)
            plain.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                rest(plain)

    return serve


def echo(sock: socket.socket) -> None:
    """Says what it hears, to the end."""
    while data := sock.recv(65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def count(sock: socket.socket) -> None:
    """Takes all, and then says the digest of it."""
    digest = hashlib.sha256()
    while data := sock.recv(65536):
        digest.update(data)
    sock.sendall(digest.digest())
    sock.shutdown(socket.SHUT_WR)


def rest(sock: socket.socket) -> bytes:
    """All that still comes."""
    pieces: list[bytes] = []
    while data := sock.recv(65536):
        pieces.append(data)
    return b"".join(pieces)


def connected(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), timeout=WITHIN_S)


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]
    return context


# -------------------------------------------------------------------------------------------------- by the name


def test_curl_reaches_each_origin_by_its_name_and_sees_its_certificate(
    backend: str, curl: Curl, origin: Callable[..., Origin], authority: trustme.CA, tmp_path: Path
) -> None:
    one = origin(says(b"I am one"), identity(authority, "one.example"))
    two = origin(says(b"I am two"), identity(authority, "*.two.example"))
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    with Tunnel(backend, {"one.example": one.address, "*.two.example": two.address}) as tunnel:
        for name, said in (
            ("one.example", b"I am one"),
            ("a.two.example", b"I am two"),
            ("b.two.example", b"I am two"),
        ):
            for version in ("1.2", "1.3"):
                at = f"{name}:{tunnel.port}"
                answer = curl("--cacert", str(ca), "--resolve", f"{at}:{HOST}", "--tls-max", version, f"https://{at}/")
                assert (answer.status, answer.body) == (200, said)
                told = tunnel.told()
                assert told["server_name"] == name
                assert told["reason"] in ("", "client_gone"), "curl has what it wants, and may reset the rest"
                assert told["bytes_in"] > 300 and told["bytes_out"] > 600
                assert "http/1.1" in told["alpn"]
        done = curl.run(
            "--cacert", str(ca), "--resolve", f"x.example:{tunnel.port}:{HOST}", f"https://x.example:{tunnel.port}/"
        )
        assert b"unrecognized name" in done.stderr
        assert tunnel.told()["reason"] == "misdirected"


def test_a_hello_that_comes_byte_by_byte_and_one_that_never_comes(
    backend: str, origin: Callable[..., Origin], authority: trustme.CA
) -> None:
    one = origin(says(b"I am one"), identity(authority, "one.example"))
    context = trusting(authority)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="one.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with Tunnel(backend, {"one.example": one.address}) as tunnel:
        with connected(tunnel.port) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in outgoing.read():
                sock.sendall(bytes([byte]))
            while client.version() is None or outgoing.pending:
                if outgoing.pending:
                    sock.sendall(outgoing.read())
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))
            assert client.version() == "TLSv1.3"
            client.write(b"GET / HTTP/1.1\r\n\r\n")
            sock.sendall(outgoing.read())
            assert rest(sock)
        assert tunnel.told()["server_name"] == "one.example"
        with connected(tunnel.port) as sock:
            sock.sendall(b"\x16\x03\x01")
            with contextlib.suppress(ConnectionResetError):
                assert rest(sock) == b""
        assert tunnel.told()["reason"] == "tls_timeout"


# ------------------------------------------------------------------------------------------------------- bytes


def test_half_closes_are_carried_over_each_way(backend: str, origin: Callable[..., Origin]) -> None:
    def first(sock: socket.socket) -> None:
        sock.sendall(b"that is all from here")
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b"and from here"

    for serve, client_first in ((count, True), (first, False)):
        with Tunnel(backend, origin(serve).address) as tunnel:
            with connected(tunnel.port) as sock:
                if client_first:
                    sock.sendall(b"question")
                    sock.shutdown(socket.SHUT_WR)
                    assert rest(sock) == hashlib.sha256(b"question").digest()
                else:
                    assert rest(sock) == b"that is all from here"
                    sock.sendall(b"and from here")
                    sock.shutdown(socket.SHUT_WR)
                told = tunnel.told()
            assert (told["reason"], told["bytes_in"] > 0, told["bytes_out"] > 0) == ("", True, True)


def test_much_data_both_ways_at_once(backend: str, origin: Callable[..., Origin]) -> None:
    data = hashlib.shake_128(b"much").digest(SIZE)
    with Tunnel(backend, origin(echo).address) as tunnel, connected(tunnel.port) as sock:

        def send() -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        got = rest(sock)
        sender.join(WITHIN_S)
        assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
        told = tunnel.told()
        assert (told["reason"], told["bytes_in"], told["bytes_out"]) == ("", SIZE, SIZE)


def test_a_reset_is_carried_over(backend: str, origin: Callable[..., Origin]) -> None:
    ended = threading.Event()

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"hello")
        with pytest.raises(ConnectionResetError):
            rest(sock)
        ended.set()

    with Tunnel(backend, origin(serve).address) as tunnel:
        sock = connected(tunnel.port)
        assert sock.recv(5) == b"hello"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        assert ended.wait(WITHIN_S)
        assert tunnel.told()["reason"] == "client_gone"


# ------------------------------------------------------------------------------------------- TLS that ends here


def test_tls_may_end_here(backend: str, origin: Callable[..., Origin], authority: trustme.CA, tmp_path: Path) -> None:
    pem = tmp_path / "here.pem"
    authority.issue_cert("here.example").private_key_and_cert_chain_pem.write_to_path(str(pem))
    data = hashlib.shake_128(b"much").digest(SIZE // 10)
    plain = origin(count)
    with Tunnel(backend, plain.address, str(pem)) as tunnel:
        sock = trusting(authority).wrap_socket(connected(tunnel.port), server_hostname="here.example")
        sock.sendall(data)
        with contextlib.suppress(ssl.SSLError):
            sock = sock.unwrap()  # type: ignore[assignment]
        sock.close()
        told = tunnel.told()
        assert (told["server_name"], told["alpn"], told["bytes_in"]) == ("here.example", ["http/1.1"], len(data))
        assert told["security"]["version"] == "TLSv1.3"
