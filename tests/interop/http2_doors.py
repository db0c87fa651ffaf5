"""coulee with a plain listener and one with TLS, before origins of any version: `http2_doors.py SETTINGS`.

SETTINGS is JSON: `backend`, `pair` and `ca` (files), `origins`: names, and of each `url` (`http`, `https`, or `h2c` for
HTTP/2 without TLS) and perhaps the `alpn` that is offered to it; perhaps `listener_alpn`, `grace_s`, and `limits`,
`timeouts`, `http2` and `retry` for the parts of `Config`. A request goes where its field X-To says, else to the first
origin. All that is reported, and first where it listens, is a line of JSON on its output.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from typing import Any

from coulee.core import Config, Exchange, Filter, Peer, Proxy, Request, Transport, UpstreamTls
from coulee.core.config import Http2, Limits, Retry, Timeouts
from coulee.core.listener import Listener
from coulee.core.report import Access, Event
from coulee.core.seam import parse_address, show_address
from coulee.core.tls import ListenerTls
from coulee.lb import Cluster
from coulee.server.console import json_line
from coulee.server.program import BACKENDS
from coulee.tls import CertificateFiles, client_ca

BOTH = ("h2", "http/1.1")


class To(Filter):
    """Sends a request where it wants to go."""

    def __init__(self, peers: dict[str, Peer]) -> None:
        self.peers = peers
        self.first = next(iter(peers.values()))

    def upstream_peer(self, exchange: Exchange) -> Peer | None:
        name = exchange.request.headers.get("x-to")
        return self.first if name is None else self.peers[name]

    def upstream_request_filter(self, exchange: Exchange, request: Request) -> None:
        request.headers.remove("x-to")


def peer(name: str, origin: dict[str, Any], ca: bytes) -> Peer:
    """As it is described."""
    scheme, _, address = origin["url"].partition("://")
    transport = Transport(prior_knowledge=scheme == "h2c")
    if scheme == "https":
        tls = UpstreamTls(ca=ca, alpn=tuple(origin.get("alpn", BOTH))).for_host("localhost")
        transport = replace(transport, tls=tls)
    return Peer(parse_address(address), name, transport=transport)


def report(record: Access | Event) -> None:
    """Tell of it."""
    if isinstance(record, Access):
        say(json_line(record))
    else:
        say(json.dumps({"event": record.name, "text": record.text, **record.fields}, default=str))


def say(line: str) -> None:
    """In one write: there may be several threads."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(settings: dict[str, Any]) -> None:
    """Run until it is told to stop."""

    def ready(running: Any) -> None:
        addresses = dict(zip(("plain", "tls"), map(show_address, running.addresses), strict=True))
        say(json.dumps({"event": "ready", "addresses": addresses}))

    config = Config(
        limits=Limits(**settings.get("limits", {})),
        timeouts=Timeouts(**settings.get("timeouts", {})),
        http2=Http2(**settings.get("http2", {})),
        retry=Retry(**settings.get("retry", {})),
    )
    ca = client_ca(settings["ca"])
    peers = {name: peer(name, origin, ca) for name, origin in settings["origins"].items()}
    proxy = Proxy(Cluster("http://127.0.0.1:9"), [To(peers)], config)
    alpn = tuple(settings.get("listener_alpn", BOTH))
    tls = ListenerTls(CertificateFiles(settings["pair"]), alpn=alpn)
    listen = [Listener(("127.0.0.1", 0)), Listener(("127.0.0.1", 0), tls)]
    chosen = BACKENDS[settings["backend"]]
    grace_s = settings.get("grace_s", 0)
    importlib.import_module(chosen.module).run(
        proxy, listen, reporter=report, grace_s=grace_s, on_ready=ready, **chosen.options
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
