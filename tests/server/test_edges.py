"""What the command line says of TLS, the PROXY protocol and origins: what comes of it, and what is said of mistakes."""

from __future__ import annotations

import ssl
import subprocess
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from coulee.core.listener import Listener, ProxyProtocol
from coulee.core.seam import Address, CertificateError
from coulee.core.tls import UpstreamTls
from coulee.core.transport import DIRECT, Transport
from coulee.server.edges import Edges, taken_from, warnings
from tests.backends.issuing import AUTHORITY, issue
from tests.server.test_cli import AT, COULEE, DEAD, Program, said_and_code

AT_8443: list[Address] = [("127.0.0.1", 8443)]


class Files:
    """A certificate for localhost, its key and its authority, in files."""

    def __init__(self, folder: Path) -> None:
        self.chain_pem, self.key_pem = issue("localhost")
        self.certificate, self.key, self.ca = (folder / name for name in ("cert.pem", "key.pem", "ca.pem"))
        self.certificate.write_bytes(self.chain_pem)
        self.key.write_bytes(self.key_pem)
        self.ca.write_bytes(AUTHORITY.cert_pem.bytes())
        self.option = f"{self.certificate},{self.key}"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def only(edges: Edges) -> Listener:
    [listener] = edges.listeners(AT_8443)
    assert isinstance(listener, Listener)
    return listener


# ------------------------------------------------------------------------------------------------- what comes of it


def test_without_options_nothing_is_special() -> None:
    assert Edges().listeners(AT_8443) == AT_8443
    assert Edges().transport() is DIRECT
    assert warnings(Edges()) == []


def test_options_are_taken_from_the_others() -> None:
    options: dict[str, Any] = {"tls": ("a",), "quiet": True, "send_proxy": 2}
    assert taken_from(options) == Edges(tls=("a",), send_proxy=2)
    assert options == {"quiet": True}


def test_certificates_may_be_in_files_one_file_or_a_directory(files: Files, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(files.chain_pem + files.key_pem)
    folder = tmp_path / "live"
    folder.mkdir()
    (folder / "a.pem").write_bytes(files.chain_pem + files.key_pem)
    for text in (files.option, str(both), str(folder)):
        tls = only(Edges(tls=(text,))).tls
        assert tls is not None
        assert [each.names for each in tls.sources[0].certificates] == [("localhost",)]
        assert tls.client_certificates is None


def test_a_certificate_that_is_made_is_for_this_machine_and_where_it_listens() -> None:
    edges = Edges(tls=("self-signed",))
    sources = [listener.tls.sources[0] for listener in edges.listeners([("10.1.2.3", 443), ("", 80)])
               if isinstance(listener, Listener) and listener.tls is not None]  # fmt: skip
    assert sorted(sources[0].certificates[0].names) == ["10.1.2.3", "127.0.0.1", "::1", "localhost"]
    assert sources[0] is sources[1]
    assert edges.listeners(AT_8443) == edges.listeners(AT_8443), "workers have the same"


@pytest.mark.parametrize("required", ["required", "optional"])
def test_clients_are_asked_for_certificates(files: Files, required: str) -> None:
    tls = only(Edges(tls=(files.option,), client_ca=str(files.ca), client_certificates=required)).tls
    assert tls is not None
    assert tls.client_certificates is not None
    assert tls.client_certificates.required is (required == "required")
    assert b"BEGIN CERTIFICATE" in tls.client_certificates.ca


def test_balancers_are_named_and_sockets_have_modes() -> None:
    listener = only(Edges(proxy_protocol="10.0.0.0/8,unix", socket_mode="660"))
    assert listener.proxy_protocol == ProxyProtocol(("10.0.0.0/8", "unix"))
    assert listener.options.mode == 0o660
    assert listener.tls is None


def test_origins_are_verified_by_what_is_given(files: Files) -> None:
    transport = Edges(upstream_ca=str(files.ca), upstream_name="api.test", send_proxy=1).transport()
    assert transport.proxy_protocol == 1
    assert transport.tls is not None
    assert (transport.tls.server_name, transport.tls.verified_name, transport.tls.verify) == ("api.test",) * 2 + (True,)
    assert b"BEGIN CERTIFICATE" in transport.tls.ca
    assert Edges(insecure_upstreams=True).transport() == Transport(tls=UpstreamTls(verify=False))


def test_origins_may_be_verified_by_an_address() -> None:
    tls = Edges(upstream_name="10.0.0.1").transport().tls
    assert tls is not None
    assert (tls.server_name, tls.verified_name) == ("", "10.0.0.1")


def test_a_worker_that_cannot_read_certificates_begins_with_those_of_its_supervisor(files: Files) -> None:
    edges = Edges(tls=(files.option,))
    before = only(edges).tls
    files.key.write_bytes(b"")
    after = only(edges).tls
    assert before is not None
    assert after is not None
    assert after.sources == before.sources
    with pytest.raises(CertificateError):
        Edges(tls=(files.option,)).listeners(AT_8443)


def test_what_is_not_safe_is_said_aloud() -> None:
    edges = Edges(tls=("self-signed",), insecure_upstreams=True, key_log="/tmp/keys")
    assert [line.split(":")[0] for line in warnings(edges)] == [
        "the certificate is self-signed", "INSECURE", "INSECURE",
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (Edges(client_ca="ca.pem"), "--client-ca is about TLS, and there is none: add --tls CERTIFICATE,KEY"),
        (Edges(key_log="keys"), "--key-log is about TLS"),
        (Edges(proxy_protocol="here"), "trusted: 'here' does not appear"),
        (Edges(proxy_protocol=""), "trusted: '' does not appear"),
        (Edges(socket_mode="rw"), "--socket-mode rw: write permissions in octal, as 660"),
        (Edges(socket_mode="7777"), "--socket-mode 7777: write permissions in octal"),
    ],
)
def test_what_makes_no_sense_is_said(edges: Edges, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        edges.listeners(AT_8443)


def test_origins_cannot_be_verified_and_not() -> None:
    with pytest.raises(ValueError, match="--insecure-upstreams looks at no certificate"):
        Edges(insecure_upstreams=True, upstream_name="a").transport()


@pytest.mark.parametrize("workers", [(), ("--workers", "1")])
def test_a_certificate_that_cannot_be_used_is_one_line_and_code_2(files: Files, workers: tuple[str, ...]) -> None:
    missing = str(files.key) + "s"
    for option, words in (
        (f"{files.certificate},{missing}", f"{missing}: there is no such file"),
        (str(files.certificate), f"{files.certificate}: there is no key in it"),
        (f"{files.ca},{files.key}", f"{files.key}: the key is not the one of the certificate in {files.ca}"),
    ):
        line, code = said_and_code(AT, "--tls", option, "--to", DEAD, *workers)
        assert words in line
        assert code == 2


def test_authorities_that_cannot_be_read_are_one_line_and_code_2(files: Files) -> None:
    line, code = said_and_code(AT, "--upstream-ca", "nowhere.pem", "--to", "https://a")
    assert line.startswith("coulee: nowhere.pem: there is no such file")
    assert code == 2


# ------------------------------------------------------------------------------------------------------------ for real


@pytest.mark.parametrize("options", [(), ("--workers", "1")])
def test_tls_is_spoken_from_the_command_line(files: Files, options: tuple[str, ...]) -> None:
    program = Program(AT, "--tls", files.option, "--to", DEAD, "--log", "none", *options)
    try:
        context = ssl.create_default_context(cafile=str(files.ca))
        connection = HTTPSConnection("localhost", program.port(), context=context, timeout=15)
        connection.request("GET", "/")
        assert connection.getresponse().status == 502
        connection.close()
    finally:
        program.close()


def test_help_tells_of_the_edges() -> None:
    told = subprocess.run([COULEE, "serve", "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    for option in ("--tls", "--client-ca", "--proxy-protocol", "--upstream-ca", "--insecure-upstreams", "--send-proxy"):
        assert option in told
