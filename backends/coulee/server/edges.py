"""What the command line says of both edges: TLS, HTTP/2 and the PROXY protocol towards clients, and towards origins.

Rules:

- Files are read in each process that serves, when it starts: so a reload has new ones. A worker that cannot use what is
  there by then begins with what its supervisor has read, and says so, rather than not at all.
- A certificate that is made here is made once, before workers are forked, for they must all have the same.
- What is wrong with a file is one line with its name and the cure, and exit code 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from coulee.core.listener import ListenAt, Listener, ProxyProtocol
from coulee.core.options import LISTEN_OPTIONS, ListenOptions
from coulee.core.seam import Address, CertificateError, CertificateSource
from coulee.core.server_names import is_ip
from coulee.core.tls import HTTP1, HTTP2_OR_1, ClientCertificates, ListenerTls, UpstreamTls
from coulee.core.transport import DIRECT, Transport

if TYPE_CHECKING:
    from coulee.core import Proxy

SELF_SIGNED: Final = "self-signed"
ALWAYS_FOR: Final = ("localhost", "127.0.0.1", "::1")
"""What a self-signed certificate is for, beside the host that is listened at."""
EVERY_ADDRESS: Final = ("", "0.0.0.0", "::")  # noqa: S104 - what is written to listen at all of them


@dataclass(frozen=True)
class Edges:
    """The options, as they were written."""

    tls: tuple[str, ...] = ()
    client_ca: str | None = None
    client_certificates: str = "required"
    proxy_protocol: str | None = None
    socket_mode: str | None = None
    http1_only: bool = False
    upstream_ca: str | None = None
    upstream_name: str | None = None
    insecure_upstreams: bool = False
    upstream_http2: bool = False
    send_proxy: Literal[0, 1, 2] = 0
    key_log: str | None = None

    # -- towards clients

    def listeners(self, listen: Sequence[Address]) -> list[ListenAt]:
        """The listeners at these addresses. Raises `ValueError`, and so `CertificateError`."""
        if not self.tls:
            for name, value in (("--client-ca", self.client_ca), ("--key-log", self.key_log)):
                if value is not None:
                    raise ValueError(f"{name} is about TLS, and there is none: add --tls CERTIFICATE,KEY")
        proxied = ProxyProtocol(tuple(self.proxy_protocol.split(","))) if self.proxy_protocol is not None else None
        tls = self._listener_tls(listen) if self.tls else None
        options = self.options()
        if tls is None and proxied is None and options is LISTEN_OPTIONS:
            return list(listen)
        return [Listener(address, tls, proxied, options) for address in listen]

    def options(self) -> ListenOptions:
        """Of the sockets. Raises `ValueError`."""
        if self.socket_mode is None:
            return LISTEN_OPTIONS
        try:
            mode = int(self.socket_mode, 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777:
            raise ValueError(f"--socket-mode {self.socket_mode}: write permissions in octal, as 660")
        return ListenOptions(mode=mode)

    def _listener_tls(self, listen: Sequence[Address]) -> ListenerTls:
        from coulee.tls import client_ca

        try:
            sources = [self._source(each, listen) for each in self.tls]
        except CertificateError:
            sources = self.__dict__.get("_read_before", [])
            if not sources:
                raise
        self.__dict__["_read_before"] = sources
        asked = None
        if self.client_ca is not None:
            asked = ClientCertificates(client_ca(self.client_ca), required=self.client_certificates == "required")
        tls = ListenerTls(sources, client_certificates=asked, key_log=self.key_log or "")
        return _without_http2(tls) if self.http1_only else tls

    def _source(self, text: str, listen: Sequence[Address]) -> CertificateSource:
        from coulee.tls import CertificateDirectory, CertificateFiles

        if text == SELF_SIGNED:
            return self.self_signed(listen)
        certificate, _, key = text.partition(",")
        if not key and Path(certificate).is_dir():
            return CertificateDirectory(certificate)
        return CertificateFiles(certificate, key or None)

    def self_signed(self, listen: Sequence[Address]) -> CertificateSource:
        """The certificate that is made here; the same each time."""
        made: CertificateSource | None = self.__dict__.get("_made")
        if made is None:
            from coulee.tls import SelfSigned

            hosts = [address[0] for address in listen if isinstance(address, tuple)]
            names = dict.fromkeys([*ALWAYS_FOR, *(host for host in hosts if host not in EVERY_ADDRESS)])
            made = self.__dict__["_made"] = SelfSigned(*names)
        return made

    def impose(self, proxy: Proxy) -> None:
        """What is said here of all clients holds at the listeners of the program, too."""
        if self.http1_only:
            proxy.config = replace(proxy.config, http2=replace(proxy.config.http2, cleartext=False))
            proxy.listen_at = [
                each if each.tls is None else replace(each, tls=_without_http2(each.tls)) for each in proxy.listen_at
            ]

    # -- towards origins

    def check_origins(self, urls: Sequence[str]) -> None:
        """Raises `ValueError` where an option is about TLS, and an origin is without."""
        options = {
            "--upstream-ca": self.upstream_ca,
            "--upstream-name": self.upstream_name,
            "--insecure-upstreams": self.insecure_upstreams,
            "--upstream-http2": self.upstream_http2,
        }
        given = [name for name, value in options.items() if value not in (None, False)]
        for url in urls:
            scheme = url.partition(":")[0].lower()
            if given and (scheme in ("http", "h2c") or (scheme == "unix" and given == ["--upstream-http2"])):
                raise ValueError(f"{given[0]} is about TLS, and {url} is without: write https://, or leave that out")

    def transport(self) -> Transport:
        """How origins are reached. Raises `ValueError`."""
        if self.insecure_upstreams and (self.upstream_ca is not None or self.upstream_name is not None):
            raise ValueError("--insecure-upstreams looks at no certificate: leave out --upstream-ca, --upstream-name")
        tls: UpstreamTls | None = None
        alpn = HTTP2_OR_1 if self.upstream_http2 else HTTP1
        if self.insecure_upstreams:
            tls = UpstreamTls(verify=False, alpn=alpn)
        elif self.upstream_ca is not None or self.upstream_name is not None:
            from coulee.tls import client_ca

            ca = client_ca(self.upstream_ca) if self.upstream_ca is not None else b""
            name = self.upstream_name
            tls = UpstreamTls(ca=ca, server_name="" if name and is_ip(name) else name, verified_name=name, alpn=alpn)
        elif self.upstream_http2:
            tls = UpstreamTls(alpn=alpn)
        if tls is None and not self.send_proxy:
            return DIRECT
        return Transport(tls=tls, proxy_protocol=self.send_proxy)


def _without_http2(tls: ListenerTls) -> ListenerTls:
    """It is not offered; HTTP/1.1 is, where it was all that was."""
    if "h2" not in tls.alpn:
        return tls
    return replace(tls, alpn=tuple(each for each in tls.alpn if each != "h2") or HTTP1)


def edge_options(upstreams: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options of a command; those about origins are for the one that names them."""
    towards_clients = (
        click.option("--tls", multiple=True, metavar="CERTIFICATE[,KEY]", help="Speak TLS, with this certificate and "
                     "key (files in PEM); or all that are in a directory; or `self-signed`, for development. Files "
                     "are read again when they change."),
        click.option("--client-ca", metavar="FILE", help="Ask clients for a certificate of these authorities."),
        click.option("--client-certificates", type=click.Choice(["required", "optional"]), default="required",
                     show_default=True, help="Whether a client without one is let in."),
        click.option("--proxy-protocol", metavar="NETWORK,...", help="Connections begin with a header of the PROXY "
                     "protocol, and come from these networks: as 10.0.0.0/8; `unix` for a Unix socket."),
        click.option("--socket-mode", metavar="MODE", help="Permissions of a Unix socket, as 660."),
        click.option("--http1-only", is_flag=True, help="Do not speak HTTP/2 with clients. Else TLS offers it (ALPN), "
                     "and without TLS it is spoken to those that begin with it."),
        click.option("--key-log", metavar="FILE", help="Write TLS session keys to FILE: whoever has it can read all."),
    )  # fmt: skip
    towards_origins = (
        click.option("--upstream-ca", metavar="FILE", help="The authorities that origins of https:// are verified by "
                     "[default: the system's]."),
        click.option("--upstream-name", metavar="NAME", help="The name that their certificates have to be for "
                     "[default: the host of each URL]."),
        click.option("--insecure-upstreams", is_flag=True, help="Do not verify them. Anybody in between can be them."),
        click.option("--upstream-http2", is_flag=True, help="Offer HTTP/2 to origins of https://, which may decline "
                     "[default: HTTP/1.1]. Those of h2c:// have it without TLS."),
        click.option("--send-proxy", type=click.IntRange(0, 2), default=0, metavar="1|2", help="Tell origins who the "
                     "client is, with a header of this version of the PROXY protocol."),
    )  # fmt: skip

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed((*towards_clients, *(towards_origins if upstreams else ()))):
            function = option(function)
        return function

    return add


def taken_from(options: dict[str, Any]) -> Edges:
    """The edges that options describe, which are taken out of these."""
    names = list(Edges.__dataclass_fields__)
    return Edges(**{name: options.pop(name) for name in names if name in options})


def warnings(edges: Edges) -> list[str]:
    """What whoever starts it should know, each a line."""
    lines: list[str] = []
    if SELF_SIGNED in edges.tls:
        lines.append("the certificate is self-signed: for development, with clients that do not verify it (curl -k)")
    if edges.insecure_upstreams:
        lines.append("INSECURE: certificates of origins are not verified (--insecure-upstreams): anybody can be them")
    if edges.key_log is not None:
        lines.append(f"INSECURE: TLS session keys are written to {edges.key_log} (--key-log); whoever has it reads all")
    return lines
