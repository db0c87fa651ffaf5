"""coulee with a listener of every kind that has to do with the PROXY protocol, as a program: `proxied.py SETTINGS`.

SETTINGS is JSON: `backend`, `origin` (a URL), `listen` (names of listeners, and of each its `address`, whom it trusts,
and whether it speaks TLS), `pair` and `ca` (files), and perhaps `header_timeout_s`. A request goes to the origin, or
where its field X-Way says, as `2 tls 127.0.0.1:9000`: the version of the header that is sent, whether by TLS, the
address. All that is reported, and first where it listens, is a line of JSON on its output.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any, Literal, cast

from coulee.core import Config, Exchange, Filter, Peer, Proxy, Transport, UpstreamTls
from coulee.core.config import Timeouts
from coulee.core.listener import Listener, ProxyProtocol
from coulee.core.report import Access, Event
from coulee.core.seam import parse_address, show_address
from coulee.core.tls import ListenerTls
from coulee.lb import Cluster
from coulee.server.console import json_line
from coulee.server.program import BACKENDS
from coulee.tls import CertificateFiles, client_ca


class Ways(Filter):
    """Sends a request where it wants to go."""

    def __init__(self, ca: str) -> None:
        self.tls = UpstreamTls(ca=client_ca(ca), server_name="localhost", verified_name="localhost")

    def upstream_peer(self, exchange: Exchange) -> Peer | None:
        way = exchange.request.headers.get("x-way")
        if way is None:
            return None
        version, tls, address = way.split()
        transport = Transport(
            tls=self.tls if tls == "tls" else None, proxy_protocol=cast("Literal[1, 2]", int(version))
        )
        return Peer(parse_address(address), transport=transport)


def listener(settings: dict[str, Any], pair: str) -> Listener:
    """As it is described."""
    return Listener(
        settings["address"],
        ListenerTls(CertificateFiles(pair)) if settings.get("tls") else None,
        ProxyProtocol(tuple(settings["trusted"])) if "trusted" in settings else None,
    )


def report(record: Access | Event) -> None:
    """Tell of it."""
    if isinstance(record, Access):
        say(json_line(record))
    else:
        say(json.dumps({"event": record.name, **record.fields}, default=str))


def say(line: str) -> None:
    """In one write: there may be several threads."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(settings: dict[str, Any]) -> None:
    """Run until it is told to stop."""

    def ready(running: Any) -> None:
        addresses = dict(zip(settings["listen"], map(show_address, running.addresses), strict=True))
        say(json.dumps({"event": "ready", "addresses": addresses}))

    timeouts = Timeouts(proxy_header_timeout_s=settings.get("header_timeout_s", 30.0))  # nothing is late by accident
    proxy = Proxy(Cluster(settings["origin"]), [Ways(settings["ca"])], Config(timeouts=timeouts))
    listen = [listener(each, settings["pair"]) for each in settings["listen"].values()]
    chosen = BACKENDS[settings["backend"]]
    importlib.import_module(chosen.module).run(
        proxy, listen, reporter=report, grace_s=0, on_ready=ready, **chosen.options
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
