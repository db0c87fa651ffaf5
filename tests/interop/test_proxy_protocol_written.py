"""What we write of the PROXY protocol, judged by HAProxy: all that a header can say, its checksum, and what stands for
nobody."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coulee.core.proxy_protocol import Header, TlsInfo, to_bytes
from tests.interop.fleet import HOST, WITHIN_S, until
from tests.interop.haproxy import HAProxy, connected

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee

RECEIVER = """\
frontend receiver
    bind {bind} accept-proxy
    http-request return status 200 content-type text/plain lf-string \
"%[src] %[src_port] %[dst] %[dst_port] <%[fc_pp_authority]> <%[fc_pp_unique_id]>"
"""

CHECKING = """\
from coulee.core import Proxy, Transport
from coulee.lb import Cluster, HealthCheck, Http

health = HealthCheck(Http(path="/check"), unhealthy_interval_s=0.05, start="unhealthy")
proxy = Proxy(Cluster("http://127.0.0.1:%d", transport=Transport(proxy_protocol=%d), health=health, panic=0))
"""


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, int], None, None]:
    """Where HAProxy takes headers, and answers with what they say."""
    with HAProxy(tmp_path_factory.mktemp("receiver")) as haproxy:
        haproxy.start(RECEIVER.format(bind=haproxy.bind("receiver")))
        yield haproxy.address("receiver")


IPV4 = ("192.0.2.1", 5), ("192.0.2.2", 6)
IPV6 = ("2001:db8::1", 1), ("2001:db8::2", 443)
SAID_OF_IPV6 = "2001:db8::1 1 2001:db8::2 443"
TLS = TlsInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", verified=True, common_name="Ann")
ALL = Header(*IPV6, 2, "h2", "a.test", b"id", TLS, ((0xE0, b"x"),), checksum=True)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (Header(*IPV4, 1), "192.0.2.1 5 192.0.2.2 6 <> <>"),
        (Header(*IPV6, 1), f"{SAID_OF_IPV6} <> <>"),
        (Header(IPV4[0], IPV6[1], 1), "::ffff:192.0.2.1 5 2001:db8::2 443 <> <>"),
        (Header(*IPV4), "192.0.2.1 5 192.0.2.2 6 <> <>"),
        (Header(*IPV6), f"{SAID_OF_IPV6} <> <>"),
        (Header(IPV4[0], IPV6[1]), "::ffff:192.0.2.1 5 2001:db8::2 443 <> <>"),
        (Header(*IPV4, checksum=True), "192.0.2.1 5 192.0.2.2 6 <> <>"),
        (ALL, f"{SAID_OF_IPV6} <a.test> <id>"),
        (Header(None, None, 1), f"{HOST} "),
        (Header(None, None, 2), f"{HOST} "),
        (Header(IPV4[0], None, 2, authority="a.test"), f"{HOST} "),
    ],
)
def test_haproxy_reads_what_we_write(receiver: tuple[str, int], header: Header, said: str) -> None:
    with connected(receiver) as client:
        client.sock.sendall(to_bytes(header))
        assert client.get("/").startswith(said)


@pytest.mark.parametrize("at", [16, 50, -1], ids=["an address", "a port", "a field"])
def test_haproxy_looks_at_our_checksum(receiver: tuple[str, int], at: int) -> None:
    """Without it, what is changed here would be a header too."""
    for header, taken in ((ALL, False), (replace(ALL, checksum=False), True)):
        data = bytearray(to_bytes(header))
        data[at] ^= 1
        with socket.create_connection(receiver, WITHIN_S) as sock:
            sock.sendall(bytes(data) + b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            try:
                answer = sock.recv(65536)
            except ConnectionResetError:
                answer = b""
        assert answer.startswith(b"HTTP/1.1 200 ") == taken


@pytest.mark.parametrize("version", [1, 2])
def test_our_checks_stand_for_nobody_and_find_haproxy_well(
    receiver: tuple[str, int], coulee: Callable[..., Coulee], version: int
) -> None:
    child = coulee(app=CHECKING % (receiver[1], version))

    def served() -> tuple[str, int, str] | None:
        with connected((HOST, child.port)) as client:
            try:
                return *client.address, client.get("/")
            except AssertionError:  # 503, up to the second check
                return None

    host, port, told = until(served, "checks have found it well")
    assert told.startswith(f"{host} {port} {HOST} {child.port} ")
