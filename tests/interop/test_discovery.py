"""Endpoints found live: a name server on a real socket, a list over HTTP and a file, each changed while the proxy runs.

The name server is dnspython's messages behind a plain socket. Nothing waits for a fixed time.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dns.message
import dns.rcode
import dns.rrset
import pytest

from tests.interop.fleet import until

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee, Curl

HOST = "127.0.0.1"
APP = """
from coulee.core import Proxy, respond
from coulee.discovery import Dns, DnsSrv, File, HttpSd, Resolver
from coulee.lb import Cluster

proxy = Proxy(Cluster(discovery={source}))

@proxy.on("request_filter")
def tell(exchange):
    if exchange.request.path == "/error":
        return respond(200, exchange.proxy.balancer.discovery_error)
"""


class Served(ThreadingHTTPServer):
    """Answers every GET with what `content` says now."""

    daemon_threads = True
    content = b""
    asked: list[str]

    def __init__(self) -> None:
        super().__init__((HOST, 0), Answering)
        self.asked = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Served)
        server.asked.append(self.headers.get("X-Prometheus-Refresh-Interval-Seconds", ""))
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        self.wfile.write(server.content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class Names(socketserver.ThreadingTCPServer):
    """A name server over TCP. `zone` is `{"a.internal. IN A": ["a.internal. 1 IN A 127.0.0.1"]}`; None is SERVFAIL."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), Naming)
        self.zone: dict[str, list[str] | None] = {}

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Naming(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with suppress(ConnectionResetError):  # that is how a look-up is given up
            self.answer()

    def answer(self) -> None:
        server = self.server
        assert isinstance(server, Names)
        while head := self.rfile.read(2):
            query = dns.message.from_wire(self.rfile.read(struct.unpack("!H", head)[0]))
            answer = dns.message.make_response(query, recursion_available=True)
            records = server.zone.get(query.question[0].to_text(), [])
            if records is None:
                answer.set_rcode(dns.rcode.SERVFAIL)
            for record in records or ():
                owner, ttl, _, kind, content = record.split(" ", 4)
                answer.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, content))
            wire = answer.to_wire()
            self.wfile.write(struct.pack("!H", len(wire)) + wire)


@pytest.fixture
def start() -> Generator[Callable[[type[Any]], Any], None, None]:
    """Starts a server on a thread."""

    def started(kind: type[Any]) -> Any:
        server = kind()
        stack.callback(server.server_close)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        return server

    with ExitStack() as stack:
        yield started


@pytest.fixture
def origins(start: Callable[[type[Any]], Any]) -> tuple[Served, Served]:
    """Two origins, which say which they are."""
    one, two = start(Served), start(Served)
    one.content, two.content = b"one", b"two"
    return one, two


def answers(curl: Curl, proxy: Coulee, *wanted: str) -> None:
    """Wait until the proxy's answers are these, and no others."""

    def look() -> bool:
        found = [curl(f"{proxy.url}/") for _ in range(4)]
        return all(each.status == 200 for each in found) and {each.body.decode() for each in found} == {*wanted}

    until(look, f"answers {wanted}")


def error_of(curl: Curl, proxy: Coulee, words: str) -> None:
    """Wait until the source's error has these words, or is none."""
    until(
        lambda: words in (said := curl(f"{proxy.url}/error").body.decode()) and bool(said) == bool(words),
        f"the error {words!r}",
    )


def test_a_service_is_found_and_found_again_on_every_backend(
    backend: str,
    coulee: Callable[..., Coulee],
    curl: Curl,
    start: Callable[[type[Any]], Any],
    origins: tuple[Served, Served],
) -> None:
    one, two = origins
    names = start(Names)
    service = "_http._tcp.a.internal."
    names.zone["a.internal. IN A"] = ["a.internal. 1 IN A 127.0.0.1"]
    names.zone[f"{service} IN SRV"] = [f"{service} 1 IN SRV 0 1 {one.port} a.internal."]
    source = f"DnsSrv('{service}', server=[('{HOST}', 9), ('{HOST}', {names.port})], ttl_min_s=0.2)"
    proxy = coulee("--backend", backend, app=APP.format(source=source))
    answers(curl, proxy, "one")
    names.zone[f"{service} IN SRV"] = [f"{service} 1 IN SRV 0 1 {each.port} a.internal." for each in origins]
    answers(curl, proxy, "one", "two")
    names.zone[f"{service} IN SRV"] = None
    error_of(curl, proxy, "SERVFAIL")
    answers(curl, proxy, "one", "two")
    names.zone[f"{service} IN SRV"] = [f"{service} 1 IN SRV 0 1 {two.port} a.internal."]
    answers(curl, proxy, "two")
    error_of(curl, proxy, "")


def test_the_addresses_of_a_name(
    coulee: Callable[..., Coulee], curl: Curl, start: Callable[[type[Any]], Any], origins: tuple[Served, Served]
) -> None:
    one, _ = origins
    names = start(Names)
    names.zone["a.internal. IN A"] = ["a.internal. 1 IN CNAME b.internal."]
    names.zone["b.internal. IN A"] = ["b.internal. 1 IN A 127.0.0.1"]
    proxy = coulee(app=APP.format(source=f"Dns('a.internal', {one.port}, server=('{HOST}', {names.port}))"))
    answers(curl, proxy, "one")


def test_a_list_over_http(
    coulee: Callable[..., Coulee], curl: Curl, start: Callable[[type[Any]], Any], origins: tuple[Served, Served]
) -> None:
    listed = start(Served)
    one, two = origins
    listed.content = json.dumps([{"targets": [f"{HOST}:{one.port}"]}]).encode()
    proxy = coulee(app=APP.format(source=f"HttpSd('http://{HOST}:{listed.port}/targets', interval_s=0.2)"))
    answers(curl, proxy, "one")
    listed.content = json.dumps([{"targets": [f"{HOST}:{two.port}"]}]).encode()
    answers(curl, proxy, "two")
    listed.content = b"[{"
    error_of(curl, proxy, "no JSON")
    answers(curl, proxy, "two")
    assert set(listed.asked) == {"0.2"}


def test_a_file(coulee: Callable[..., Coulee], curl: Curl, tmp_path: Path, origins: tuple[Served, Served]) -> None:
    one, two = origins
    path = tmp_path / "endpoints.toml"
    path.write_text(f'[[endpoints]]\nurl = "http://{HOST}:{one.port}"\n')
    proxy = coulee(app=APP.format(source=f"File({str(path)!r}, interval_s=0.1)"))
    answers(curl, proxy, "one")
    other = tmp_path / "other"
    other.write_text(f'[[endpoints]]\nurl = "http://{HOST}:{two.port}"\n')
    os.replace(other, path)
    answers(curl, proxy, "two")
    path.write_text("[[endpoints]]\nurl = 3\n")
    error_of(curl, proxy, f"{path}:1: endpoints[0].url: 3 is no text")
    answers(curl, proxy, "two")


def test_this_machines_resolver(coulee: Callable[..., Coulee], curl: Curl, origins: tuple[Served, Served]) -> None:
    one, _ = origins
    if HOST not in {each[4][0] for each in socket.getaddrinfo("localhost", None, socket.AF_INET)}:
        pytest.skip("localhost is no name here")
    proxy = coulee(app=APP.format(source=f"Resolver('localhost', {one.port})"))
    answers(curl, proxy, "one")
