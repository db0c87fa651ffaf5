"""What the command line says of HTTP/2, on both sides: what comes of it, and what is said of mistakes."""

from __future__ import annotations

import socket
import ssl
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest

from coulee.core import Config, Http2, Limits, Proxy, Tunnel
from coulee.core.listener import Listener
from coulee.core.tls import UpstreamTls
from coulee.core.transport import Transport
from coulee.lb import Cluster
from coulee.server.edges import Edges, taken_from
from tests.server.test_cli import AT, DEAD, Program, said_and_code
from tests.server.test_edges import Files, files, only

__all__ = ["files"]

HTTPS = "https://127.0.0.1:9"
H2C = "h2c://127.0.0.1:9"
BOTH = ("h2", "http/1.1")
ONE = ("http/1.1",)


# ------------------------------------------------------------------------------------------------ towards clients


def test_the_options_are_taken_from_the_others() -> None:
    assert taken_from({"http1_only": True, "upstream_http2": True}) == Edges(http1_only=True, upstream_http2=True)


def test_clients_are_offered_what_a_listener_offers_or_http1_alone(files: Files) -> None:
    usual, without = (only(Edges(tls=(files.option,), http1_only=each)).tls for each in (False, True))
    assert usual is not None
    assert without is not None
    assert usual.alpn == BOTH
    assert without == replace(usual, alpn=ONE, certificates=without.certificates)


def test_no_client_begins_with_http2_where_it_is_switched_off() -> None:
    config = Config(http2=Http2(streams_max=7), limits=Limits(fields_max=9))
    proxy = Proxy(Cluster(DEAD), config=config)
    Edges().impose(proxy)
    assert proxy.config is config
    Edges(http1_only=True).impose(proxy)
    assert proxy.config == Config(http2=Http2(streams_max=7, cleartext=False), limits=Limits(fields_max=9))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BOTH, ONE),
        (("h2",), ONE),
        (ONE, ONE),
        ((), ()),
        (("x", "h2"), ("x",)),
        (("http/1.1", "h2", "x"), ("http/1.1", "x")),
    ],
)
def test_what_a_program_listens_at_itself_does_not_offer_it_either(
    files: Files, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    tls = only(Edges(tls=(files.option,))).tls
    assert tls is not None
    plain, secured = Listener("127.0.0.1:1"), Listener("127.0.0.1:2", tls=replace(tls, alpn=before))
    for proxy in (Proxy(Cluster(DEAD), listen=[plain, secured]), Tunnel(Cluster(DEAD), listen=[plain, secured])):
        listeners = proxy.listen_at
        Edges().impose(proxy)
        assert proxy.listen_at is listeners
        Edges(http1_only=True).impose(proxy)
        assert proxy.listen_at == [plain, replace(secured, tls=replace(tls, alpn=after))]


# ------------------------------------------------------------------------------------------------ towards origins


@pytest.mark.parametrize(
    ("edges", "tls"),
    [
        (Edges(upstream_http2=True), UpstreamTls(alpn=BOTH)),
        (Edges(upstream_http2=True, insecure_upstreams=True), UpstreamTls(verify=False, alpn=BOTH)),
        (Edges(upstream_http2=True, upstream_name="a"), UpstreamTls("a", "a", alpn=BOTH)),
        (Edges(insecure_upstreams=True), UpstreamTls(verify=False, alpn=ONE)),
        (Edges(upstream_name="a"), UpstreamTls("a", "a", alpn=ONE)),
    ],
)
def test_origins_are_offered_http2_where_that_is_asked_for(edges: Edges, tls: UpstreamTls) -> None:
    assert edges.transport() == Transport(tls=tls)
    [member] = Cluster("https://a", transport=edges.transport()).members
    assert member.transport.tls == tls.for_host("a")


@pytest.mark.parametrize("url", ["http://a", "HTTP://a", "h2c://a:9000"])
@pytest.mark.parametrize(
    ("edges", "option"),
    [
        (Edges(upstream_http2=True), "--upstream-http2"),
        (Edges(upstream_name="a", upstream_http2=True), "--upstream-name"),
        (Edges(upstream_ca="ca.pem"), "--upstream-ca"),
        (Edges(insecure_upstreams=True), "--insecure-upstreams"),
    ],
)
def test_what_is_about_tls_is_not_for_origins_without(edges: Edges, option: str, url: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        edges.check_origins(["https://a", url])
    assert str(caught.value) == f"{option} is about TLS, and {url} is without: write https://, or leave that out"
    edges.check_origins(["https://a", "HTTPS://b"])
    Edges(http1_only=True, send_proxy=2).check_origins(["http://a", "h2c://b", "unix:/c", "https://d"])


def test_tls_to_a_unix_socket_has_to_be_asked_for_by_more_than_http2() -> None:
    Edges(upstream_name="a", upstream_http2=True).check_origins(["unix:/run/a"])
    with pytest.raises(ValueError, match="--upstream-http2 is about TLS, and unix:/run/a is without"):
        Edges(upstream_http2=True).check_origins(["unix:/run/a"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", DEAD, "--upstream-http2"), f"coulee: --upstream-http2 is about TLS, and {DEAD} is without: write"),
        (("--to", H2C, "--insecure-upstreams"), f"coulee: --insecure-upstreams is about TLS, and {H2C} is without"),
        (
            ("--to", "h2://a"),
            "Error: --to: 'h2://a': the scheme 'h2' is not supported; write http://..., https://... or",
        ),
        (("--to", "h2c://a/b"), "Error: --to: 'h2c://a/b': give scheme, host and port alone, as in h2c://a:80"),
        (("--to", H2C, "--to", DEAD), "Error: --to: endpoint 127.0.0.1:9 is given twice"),
    ],
)
def test_mistakes_are_one_line_and_code_2(arguments: tuple[str, ...], said: str) -> None:
    line, code = said_and_code(AT, *arguments)
    assert said in line
    assert code == 2


# ------------------------------------------------------------------------------------------------------------ for real


@pytest.mark.parametrize("options", [(), ("--workers", "1")])
def test_http1_only_agrees_on_http1_with_clients_that_know_both(files: Files, options: tuple[str, ...]) -> None:
    program = Program(AT, "--tls", files.option, "--to", H2C, "--http1-only", "--log", "none", *options)
    try:
        context = ssl.create_default_context(cafile=str(files.ca))
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", program.port()), timeout=15) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            assert secured.selected_alpn_protocol() == "http/1.1"
            secured.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert secured.recv(1000).startswith(b"HTTP/1.1 502 ")
    finally:
        program.close()


APP = """
from coulee.core import Proxy, respond
from coulee.lb import Cluster

proxy = Proxy(Cluster("h2c://127.0.0.1:9"))


@proxy.on("request_filter")
def tell(exchange):
    return respond(200, f"{exchange.proxy.config.http2.cleartext}")
"""


@pytest.mark.parametrize(("options", "cleartext"), [((), b"True"), (("--http1-only",), b"False")])
def test_a_program_is_run_without_prior_knowledge_too(
    tmp_path: Path, options: tuple[str, ...], cleartext: bytes
) -> None:
    (tmp_path / "app.py").write_text(APP)
    program = Program("run", "app.py", "--listen", AT, "--log", "none", *options, folder=tmp_path)
    try:
        with urlopen(f"http://127.0.0.1:{program.port()}/", timeout=15) as answer:
            assert answer.read() == cleartext
    finally:
        program.close()
