"""The PROXY protocol with those who speak it too: HAProxy and nginx, each before coulee and behind it; and clients that
say what they should not.

Nothing waits for a fixed time. Without HAProxy, or nginx, or nginx's module for streams, their tests are skipped.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coulee.core.proxy_protocol import LINE_BYTES_MAX, Header, TlsInfo, read_header
from coulee.core.seam import show_address
from tests.interop.fleet import HOST, WITHIN_S, until
from tests.interop.haproxy import Client, HAProxy, connected
from tests.interop.origins import NginxOrigin
from tests.interop.proxied import Certificates, Proxied, certificates_in, proxied
from tests.interop.stand import BREAKER, CHECKED, CLIENT, DOORS, TOLD, TRUSTED, WAYS, Stand, need_six, sending, standing

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")

STALLED_S = 0.3


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates, or a skip."""
    return certificates_in(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def stand(
    backend: str, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Stand, None, None]:
    """On each backend."""
    with standing(tmp_path_factory.mktemp("stand"), backend, certificates) as found:
        yield found


# ------------------------------------------------------------------------------------------- HAProxy before coulee


DIRECT = [name for name, way in WAYS.items() if way.listens != "unix"]
NAMELESS = [name for name in WAYS if name not in DIRECT]


@pytest.mark.parametrize("name", DIRECT)
def test_haproxy_tells_who_the_client_is(stand: Stand, name: str) -> None:
    with stand.client(name) as client:
        for number in range(2):
            target = f"/by/{name.replace(' ', '-')}/{number}"
            assert client.get(target) == client.address[0]
            assert stand.coulee.record(target)["client"] == list(client.address)


@pytest.mark.parametrize("name", NAMELESS)
def test_of_a_client_at_a_unix_socket_haproxy_tells_nothing_and_counts_itself(stand: Stand, name: str) -> None:
    target = f"/by/{name.replace(' ', '-')}"
    with stand.client(name) as client:
        assert client.get(target) == HOST
    assert stand.coulee.record(target)["client"][0] == HOST


@pytest.mark.parametrize("name", ["1 http", "2 http", "2 before TLS"])
def test_clients_whom_haproxy_serves_in_turns_are_told_apart(stand: Stand, name: str) -> None:
    with stand.client(name) as one, stand.client(name) as other:
        for number in range(4):
            for client in (one, other):
                target = f"/turns/{name.replace(' ', '-')}/{number}/{client.address[1]}"
                assert client.get(target) == CLIENT
                assert stand.coulee.record(target)["client"] == list(client.address)


@pytest.mark.parametrize("name", CHECKED)
def test_checks_of_haproxy_do_no_harm(stand: Stand, name: str) -> None:
    section = f"checked_{name.replace(' ', '_')}"

    good = "L7OK" if "http" in name else "L4OK"
    # One that takes longer than the interval is no good; on a machine that is busy the next may be. A star: it goes on.
    until(
        lambda: stand.haproxy.stats()[section, "coulee"]["check_status"].removeprefix("* ") == good,
        "a check of HAProxy's is good",
    )
    if "http" in name:  # a check stands for no client: it is HAProxy itself that asks
        record = stand.coulee.record(f"/{section}")
        assert (record["client"][0], record["status"]) == (HOST, 200)
    with connected(stand.haproxy.address(f"checked {name}"), CLIENT) as client:
        assert client.get(f"/behind/{section}") == CLIENT
    away = [line["client"][0] for line in stand.coulee.lines if line.get("event") == "turned_away"]
    assert HOST not in away


def test_all_that_haproxy_can_say_is_understood(certificates: Certificates, tmp_path: Path) -> None:
    options = "unique-id,authority,ssl,cert-cn,ssl-cipher,cert-sig,cert-key,crc32c"
    crt = f"ssl crt {certificates.pair} alpn http/1.1 ca-file {certificates.ca} verify optional"
    with socket.create_server((HOST, 0)) as listening, HAProxy(tmp_path) as haproxy:
        server = f"{HOST}:{listening.getsockname()[1]} send-proxy-v2 proxy-v2-options {options}"
        haproxy.start(sending("all", "tcp", f"{haproxy.bind('all')} {crt}", server))
        for context in (certificates.showing, certificates.plain):
            alice = context is certificates.showing
            with connected(haproxy.address("all"), CLIENT, context) as client:
                header = header_at(listening)
                assert isinstance(client.sock, ssl.SSLSocket)
                cipher = client.sock.cipher()
                assert cipher is not None
                assert header == Header(
                    client.address,
                    haproxy.address("all"),
                    alpn="http/1.1" if alice else "",
                    authority="localhost",
                    unique_id="id-{}:{}".format(*client.address).encode(),
                    tls=TlsInfo(
                        client.sock.version() or "",
                        cipher[0],
                        verified=alice,
                        shown=alice,
                        shown_in_session=alice,
                        common_name="Alice" if alice else "",
                        signature_algorithm="ecdsa-with-SHA256",
                        key_algorithm="EC256",
                    ),
                    checksum=True,
                )


def header_at(listening: socket.socket) -> Header:
    """What the next connection to a socket begins with."""
    listening.settimeout(WITHIN_S)
    with listening.accept()[0] as sock:
        sock.settimeout(WITHIN_S)
        data = b""
        while (found := read_header(data)) is None:
            piece = sock.recv(4096)
            assert piece, data
            data += piece
    return found[0]


# ------------------------------------------------------------------------------------------- HAProxy behind coulee


@pytest.mark.parametrize("by_tls", [False, True], ids=["", "by TLS"])
@pytest.mark.parametrize("tls", [False, True], ids=["", "before TLS"])
@pytest.mark.parametrize("version", [1, 2])
def test_haproxy_as_an_origin_is_told_and_no_client_has_the_connection_of_another(
    stand: Stand, version: int, tls: bool, by_tls: bool
) -> None:
    at = stand.coulee.at("open tls" if by_tls else "open")
    context = stand.certificates.plain if by_tls else None
    authority = "<localhost>" if version == 2 and by_tls else "<>"

    def ask(client: Client) -> str:
        who, where, name, number = client.get("/told", X_Way=stand.way(version, tls)).split()
        assert (who, where, name) == (show_address(client.address), show_address(at), authority)
        return number

    with connected(at, CLIENT, context) as one, connected(at, "127.0.0.6", context) as other:
        for number in range(1, 4):
            assert (ask(one), ask(other)) == (str(number), str(number)), "each has one connection, which is kept"
    with connected(at, CLIENT, context) as third:
        assert ask(third) == "1"


@pytest.mark.parametrize("version", [1, 2])
def test_haproxy_as_an_origin_is_told_of_ipv6(stand: Stand, version: int) -> None:
    need_six()
    at = stand.coulee.at("open six")
    with connected(at) as client:
        told = client.get("/told", X_Way=stand.way(version, tls=False))
        assert told == f"::1:{client.address[1]} ::1:{at[1]} <> 1"


@pytest.mark.parametrize("version", [1, 2])
def test_of_a_client_at_a_unix_socket_haproxy_is_told_nothing_and_takes_coulee_for_it(
    stand: Stand, version: int
) -> None:
    with connected(stand.coulee.addresses["open unix"]) as client:
        who, where, *_ = client.get("/told", X_Way=stand.way(version, tls=False)).split()
    assert (who.partition(":")[0], where) == (HOST, show_address(stand.haproxy.address("receiver")))


@pytest.mark.parametrize("name", ["1 http", "2 options", "2 before TLS", "2 six"])
@pytest.mark.parametrize("version", [1, 2])
def test_what_one_haproxy_tells_another_one_is_told(stand: Stand, name: str, version: int) -> None:
    with stand.client(name) as client:
        who, where, authority, _ = client.get("/told", X_Way=stand.way(version, tls=False)).split()
    host, port = stand.haproxy.address(name)
    assert (who, where) == ("{}:{}".format(*client.address), f"{host}:{port}")
    assert authority == ("<localhost>" if (name, version) == ("2 options", 2) else "<>")


# ------------------------------------------------------------------------------------------------------------ nginx


class ProxiedNginx(NginxOrigin):
    """Tells what it was told; by TLS, at a Unix socket."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        super().__init__("nginx", folder)
        config = self.folder / "nginx.conf"
        at = f"listen {self.at};"
        told = "$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port"
        text = config.read_text()
        text = text.replace(at, f"""listen {self.at} proxy_protocol;
        listen unix:{self.folder}/sock ssl proxy_protocol;
        ssl_certificate {certificates.pair};
        ssl_certificate_key {certificates.pair};""").replace('"nginx"', f'"{told} $connection_requests"')  # fmt: skip
        config.write_text(text)


@pytest.fixture(scope="module")
def proxied_nginx(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Generator[ProxiedNginx, None, None]:
    """It, or a skip."""
    nginx = ProxiedNginx(tmp_path_factory.mktemp("nginx"), certificates)
    try:
        nginx.start()
        yield nginx
    finally:
        nginx.close()


@pytest.mark.parametrize("tls", [False, True], ids=["", "before TLS"])
@pytest.mark.parametrize("version", [1, 2])
def test_nginx_as_an_origin_is_told(stand: Stand, proxied_nginx: ProxiedNginx, version: int, tls: bool) -> None:
    way = f"{version} tls unix:{proxied_nginx.folder}/sock" if tls else f"{version} plain {proxied_nginx.at}"
    at = stand.coulee.at("open")
    with connected(at, CLIENT) as one, connected(at, "127.0.0.6") as other:
        for number in range(1, 3):
            for client in (one, other):
                told = f"{show_address(client.address)} {show_address(at)} {number}"
                assert client.get("/told", X_Way=way) == told


STREAMS = """\
daemon off;
master_process off;
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
{load}
events {{ }}
stream {{
    server {{ listen {at}; proxy_pass {plain}; proxy_protocol on; }}
    server {{ listen unix:{folder}/tls.sock; proxy_pass {tls}; proxy_protocol on; proxy_ssl on; }}
}}
"""


class Streams(NginxOrigin):
    """nginx that passes bytes on to coulee; or a skip."""

    def __init__(self, folder: Path, coulee: Proxied) -> None:
        super().__init__("streams", folder)
        self.coulee = coulee

    def start(self) -> None:
        built = subprocess.run([self.program, "-V"], capture_output=True, text=True, check=False).stderr
        load = ""
        if "--with-stream " not in built:
            modules = re.search(r"--modules-path=(\S+)", built)
            module = Path(modules[1] if modules else "", "ngx_stream_module.so")
            if not module.exists():
                pytest.skip("nginx has no module for streams (Debian: libnginx-mod-stream)")
            load = f"load_module {module};"
        (self.folder / "nginx.conf").write_text(
            STREAMS.format(folder=self.folder, load=load, at=self.at, **self.coulee.addresses)
        )
        super().start()


def test_nginx_tells_who_the_client_is(stand: Stand, tmp_path: Path) -> None:
    nginx = Streams(tmp_path, stand.coulee)
    try:
        nginx.start()
        with connected((HOST, nginx.port), CLIENT) as client:
            assert client.get("/by/nginx") == CLIENT
            assert stand.coulee.record("/by/nginx")["client"] == list(client.address)
        with connected(f"{nginx.folder}/tls.sock") as client:
            assert client.get("/by/nginx/tls") == HOST, "PROXY UNKNOWN"
    finally:
        nginx.close()


# --------------------------------------------------------------------------------------------- whom not to believe

ASK = b"GET /forged HTTP/1.1\r\nHost: localhost\r\n\r\n"
ASK_ONCE = ASK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
LINE = b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ADDRESSES = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack("!HH", 1111, 80)


def block(rest: bytes, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    """A header of version 2, right or wrong."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest) if length is None else length) + rest


def field(kind: int, value: bytes) -> bytes:
    """One of its fields."""
    return struct.pack("!BH", kind, len(value)) + value


MALFORMED = {
    "HTTP": b"",
    "a ClientHello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a line in lower case": LINE.lower(),
    "a line without CR": LINE.replace(b"\r", b""),
    "a line with CR alone": LINE.replace(b"\n", b""),
    "a line of UDP": LINE.replace(b"TCP4", b"UDP4"),
    "a line that says the wrong family": LINE.replace(b"TCP4", b"TCP6"),
    "a line with two spaces": LINE.replace(b" 1111", b"  1111"),
    "a line with a port too many": LINE.replace(b" 80", b" 80 80"),
    "a line with a port beyond all": LINE.replace(b"1111", b"65536"),
    "a line with a port in octal": LINE.replace(b"1111", b"01111"),
    "a line with an address in octal": LINE.replace(b"192.0.2.1", b"192.0.02.1"),
    "a line without end": b"PROXY UNKNOWN " + b"x" * 100,
    "a signature that is none": SIGNATURE[:-1] + b"\r" + block(ADDRESSES)[12:],
    "a signature alone": SIGNATURE,
    "version 3": block(ADDRESSES, command=0x31),
    "a command that is none": block(ADDRESSES, command=0x22),
    "a block of UDP": block(ADDRESSES, family=0x12),
    "a block too short for its addresses": block(ADDRESSES[:-1]),
    "a block without end": block(ADDRESSES, length=0xFFFF),
    "a field that ends beyond the block": block(ADDRESSES + b"\x02\x00\x05name"),
    "half a field": block(ADDRESSES + b"\x02\x00"),
    "a wrong checksum": block(ADDRESSES + field(3, bytes(4))),
    "two names": block(ADDRESSES + field(2, b"a.test") + field(2, b"b.test")),
    "a name that begins a line": block(ADDRESSES + field(2, b"a.test\r\nX: y")),
}


def sent(to: tuple[str, int], data: bytes, source: str = HOST) -> socket.socket:
    """A connection that has said this."""
    sock = socket.socket()
    sock.settimeout(WITHIN_S)
    sock.bind((source, 0))
    with contextlib.suppress(ConnectionError):  # it may be closed by then
        sock.connect(to)
        sock.sendall(data)
    return sock


def answer(sock: socket.socket) -> bytes:
    """All up to the end, also where that is a reset."""
    pieces: list[bytes] = []
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(4096):
            pieces.append(piece)
    return b"".join(pieces)


def test_whoever_begins_otherwise_is_closed_without_an_answer(stand: Stand) -> None:
    with contextlib.ExitStack() as stack:
        clients = {
            name: stack.enter_context(sent(stand.coulee.at(f"broken {number % DOORS}"), data + ASK, BREAKER))
            for number, (name, data) in enumerate(MALFORMED.items())
        }
        for name, sock in clients.items():
            told = stand.coulee.turned_away(sock.getsockname())
            assert (name, told["reason"]) == (name, "proxy_header_invalid")
            assert told["detail"].isprintable()
            assert (name, answer(sock)) == (name, b"")
    assert not stand.coulee.first(target="/forged")


@pytest.mark.parametrize("data", [LINE, block(ADDRESSES), block(b"", command=0x20, family=0), b"PROXY UNKNOWN\r\n"])
def test_a_header_from_anybody_else_is_never_believed(stand: Stand, data: bytes) -> None:
    with sent(stand.coulee.at("wary"), data + ASK, CLIENT) as sock:
        told = stand.coulee.turned_away(sock.getsockname())
        assert told["reason"] == "proxy_header_untrusted"
        assert answer(sock) == b""
    assert not stand.coulee.first(target="/forged")


@pytest.mark.parametrize("data", [LINE, block(ADDRESSES)])
def test_a_header_where_none_is_awaited_is_no_request(stand: Stand, data: bytes) -> None:
    with sent(stand.coulee.at("open"), data + ASK) as sock:
        assert answer(sock).startswith(b"HTTP/1.1 400 ")
        port = sock.getsockname()[1]
    assert not stand.coulee.first(target="/forged")
    assert until(lambda: stand.coulee.first(client=[HOST, port]), "its record")["status"] == 400


BALANCER = "127.0.0.2"


@pytest.mark.parametrize(
    ("number", "data", "client"),
    [
        (1, LINE, "192.0.2.1"),
        (2, block(ADDRESSES), "192.0.2.1"),
        (3, block(ADDRESSES, command=0x20), BALANCER),  # LOCAL: whatever it says is to be ignored
        (4, b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1111 80\r\n", BALANCER),
    ],
)
def test_the_same_header_from_who_is_trusted_is_believed(stand: Stand, number: int, data: bytes, client: str) -> None:
    with sent(stand.coulee.at("wary"), data + ASK_ONCE.replace(b"forged", b"genuine/%d" % number), BALANCER) as sock:
        assert answer(sock).endswith(b"\r\n\r\n" + client.encode())
        named = ["192.0.2.1", 1111] if client != BALANCER else list(sock.getsockname())
    assert stand.coulee.record(f"/genuine/{number}")["client"] == named


def trickles(sock: socket.socket) -> bool:
    """Go on with a line, byte by byte, for longer than there is time for it. Whether nobody ends it."""
    sock.settimeout(STALLED_S / 10)
    with contextlib.suppress(ConnectionError):
        for _ in range(LINE_BYTES_MAX // 2):
            try:
                assert sock.recv(1) == b""
            except TimeoutError:
                sock.sendall(b"x")
            else:
                return False
        return True
    return False


def test_a_header_that_stalls_is_not_waited_for(backend: str, certificates: Certificates, tmp_path: Path) -> None:
    listen = {"plain": {"address": f"{HOST}:0", "trusted": TRUSTED}}
    with (
        proxied(tmp_path, certificates, backend=backend, origin="http://127.0.0.1:9", listen=listen,
                header_timeout_s=STALLED_S) as coulee,
        contextlib.ExitStack() as stack,
    ):  # fmt: skip
        began = time.monotonic()
        stalled = (b"", b"PROXY", LINE[:-2], LINE[:-1], SIGNATURE, block(ADDRESSES)[:-1], b"PROXY UNKNOWN ")
        clients = [stack.enter_context(sent(coulee.at("plain"), data)) for data in stalled]
        assert not trickles(clients[-1]), "a byte more is no time more"
        for sock in clients[:-1]:
            assert answer(sock) == b""
        assert time.monotonic() - began >= STALLED_S
        for sock in clients:
            assert coulee.turned_away(sock.getsockname())["reason"] == "proxy_header_timeout"


# ------------------------------------------------------------------------------------------------ the command line


def test_the_command_line_has_both(
    coulee: Callable[..., Coulee], backend: str, certificates: Certificates, tmp_path: Path
) -> None:
    with HAProxy(tmp_path) as haproxy:
        told = TOLD.replace(" %[var(sess.requests)]", "")
        haproxy.start(
            f"frontend receiver\n    bind {haproxy.bind('receiver')} accept-proxy\n    "
            f'http-request return status 200 content-type text/plain lf-string "{told}"\n'
        )
        proxy = coulee(
            "--backend", backend, "--log", "json", "--proxy-protocol", "127.0.0.1/32", "--tls", str(certificates.pair),
            "--to", "http://{}:{}".format(*haproxy.address("receiver")), "--send-proxy", "2", "--health", "/health",
        )  # fmt: skip
        with (
            sent((HOST, proxy.port), LINE) as sock,
            certificates.plain.wrap_socket(sock, server_hostname="localhost") as secured,
        ):
            secured.sendall(ASK_ONCE)
            # Only version 2 tells of TLS.
            assert answer(secured).endswith(b"\r\n\r\n192.0.2.1:1111 192.0.2.2:80 <localhost>")
        assert proxy.record("/forged")["client"] == ["192.0.2.1", 1111]
        with sent((HOST, proxy.port), LINE, BALANCER) as sock:
            assert answer(sock) == b""
        until(lambda: "proxy_header_untrusted" in proxy.said, "it says so")
        until(lambda: int(haproxy.stats()["receiver", "FRONTEND"]["hrsp_2xx"]) >= 2, "a check is answered too")
