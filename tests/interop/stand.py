"""coulee with a HAProxy that is before it, and tells for whom in all the ways that it has; and behind it, as an origin.

Clients come from an address of their own, so that whoever is taken for one of them has been told so.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.interop.fleet import HOST
from tests.interop.haproxy import Client, HAProxy, connected
from tests.interop.proxied import Certificates, Proxied, proxied

CLIENT = "127.0.0.5"
SIX = "::1"
BREAKER = "127.0.0.9"  # who is trusted, and begins with all kinds of things
DOORS = 4  # where that may be tried; one door tells of only ten in a second
TRUSTED = (f"{HOST}/32",)  # who is before coulee, and no client


class Way(NamedTuple):
    """How a client's connection reaches coulee through HAProxy."""

    mode: str
    listens: str  # "ip", "six", "unix" or "tls": what clients connect to
    server: str  # a line of its configuration; a listener of coulee's stands in braces


WAYS = {
    "1": Way("tcp", "ip", "{plain} send-proxy"),
    "2": Way("tcp", "ip", "{plain} send-proxy-v2"),
    "1 six": Way("tcp", "six", "{plain} send-proxy"),
    "2 six": Way("tcp", "six", "{plain} send-proxy-v2"),
    "1 http": Way("http", "ip", "{plain} send-proxy"),
    "2 http": Way("http", "ip", "{plain} send-proxy-v2"),
    "2 ssl": Way("tcp", "tls", "{plain} send-proxy-v2-ssl"),
    "2 ssl http": Way("http", "tls", "{plain} send-proxy-v2-ssl-cn"),
    "2 options": Way("tcp", "tls", "{plain} send-proxy-v2 proxy-v2-options "
                     "unique-id,authority,ssl,cert-cn,ssl-cipher,cert-sig,cert-key,crc32c"),
    "1 before TLS": Way("http", "ip", "{tls} ssl verify none send-proxy"),
    "2 before TLS": Way("http", "ip", "{tls} ssl verify none send-proxy-v2 proxy-v2-options crc32c"),
    "2 to a path": Way("tcp", "ip", "unix@{unix} send-proxy-v2"),
    "1 from a path": Way("tcp", "unix", "{plain} send-proxy"),
    "2 from a path": Way("tcp", "unix", "{plain} send-proxy-v2 proxy-v2-options unique-id,crc32c"),
}  # fmt: skip

CHECKED = {
    "1 tcp": "{plain} send-proxy",
    "2 tcp": "{plain} send-proxy-v2",
    "1 http": "{plain} send-proxy",
    "2 http": "{plain} send-proxy-v2",
    "2 http before TLS": "{tls} ssl verify none send-proxy-v2",
}

TOLD = "%[src]:%[src_port] %[dst]:%[dst_port] <%[fc_pp_authority]> %[var(sess.requests)]"
"""What HAProxy answers as an origin: what it was told, and how many requests this one connection has carried."""

RECEIVING = """
frontend receiver
    bind {receiver} accept-proxy
    bind {receiver_tls} accept-proxy ssl crt {pair}
    http-request set-var(sess.requests) int(0) unless {{ var(sess.requests) -m found }}
    http-request set-var(sess.requests) var(sess.requests),add(1)
    http-request return status 200 content-type text/plain lf-string "{told}"
frontend origin
    bind {origin}
    http-request return status 200 content-type text/plain lf-string "%[req.fhdr(x-forwarded-for)]"
"""


def sending(name: str, mode: str, bind: str, server: str) -> str:
    """A section that passes on what comes. A check by HTTP asks for what has its name."""
    name = name.replace(" ", "_")
    check = f"    option httpchk GET /{name}\n" if mode == "http" and " check" in server else ""
    return (
        f"listen {name}\n    mode {mode}\n    bind {bind}\n{check}"
        f"    unique-id-format id-%ci:%cp\n    server coulee {server}\n"
    )


@dataclass
class Stand:
    """coulee with a HAProxy that is before it and behind it."""

    haproxy: HAProxy
    coulee: Proxied
    certificates: Certificates

    @contextlib.contextmanager
    def client(self, name: str) -> Generator[Client, None, None]:
        """A client that comes by one of the ways."""
        listens = WAYS[name].listens
        if listens == "six":
            need_six()
        to = path_of(self.haproxy, name) if listens == "unix" else self.haproxy.address(name)
        context = self.certificates.showing if listens == "tls" else None
        with connected(to, CLIENT if listens in ("ip", "tls") else "", context) as client:
            yield client

    def way(self, version: int, tls: bool) -> str:
        """To HAProxy as an origin: see `many_doors.py`."""
        host, port = self.haproxy.address("receiver_tls" if tls else "receiver")
        return f"{version} {'tls' if tls else 'plain'} {host}:{port}"


@cache
def has_six() -> bool:
    """Whether this machine has IPv6."""
    try:
        socket.create_server((SIX, 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def need_six() -> None:
    """It has, or a skip."""
    if not has_six():
        pytest.skip("this machine has no IPv6")


def path_of(haproxy: HAProxy, name: str) -> str:
    """Of a Unix socket at which HAProxy listens."""
    return str(haproxy.folder / name.replace(" ", "_"))


def sections(haproxy: HAProxy, coulee: Proxied, certificates: Certificates) -> str:
    """What HAProxy is to pass on to coulee."""
    text = ""
    tls = f" ssl crt {certificates.pair} ca-file {certificates.ca} verify optional"
    for name, way in WAYS.items():
        if way.listens == "unix":
            bind = f"unix@{path_of(haproxy, name)}"
        else:
            bind = haproxy.bind(name, SIX if way.listens == "six" and has_six() else HOST) + tls * (
                way.listens == "tls"
            )
        text += sending(name, way.mode, bind, way.server.format(**coulee.addresses))
    for name, server in CHECKED.items():
        checked = f"checked {name}"
        server = server.format(**coulee.addresses) + " check inter 300ms fall 1000"
        text += sending(checked, "http" if "http" in name else "tcp", haproxy.bind(checked), server)
    return text


@contextlib.contextmanager
def standing(folder: Path, backend: str, certificates: Certificates) -> Generator[Stand, None, None]:
    """Both, while the block lasts."""
    listen: dict[str, dict[str, Any]] = {
        "plain": {"address": f"{HOST}:0", "trusted": TRUSTED},
        "tls": {"address": f"{HOST}:0", "trusted": TRUSTED, "tls": True},
        "unix": {"address": f"unix:{folder}/coulee.sock", "trusted": ["unix"]},
        "open": {"address": f"{HOST}:0"},
        "open tls": {"address": f"{HOST}:0", "tls": True},
        "open six": {"address": "[::1]:0" if has_six() else f"{HOST}:0"},
        "open unix": {"address": f"unix:{folder}/open.sock"},
        "wary": {"address": f"{HOST}:0", "trusted": ["127.0.0.2/32"]},
    }
    for number in range(DOORS):
        listen[f"broken {number}"] = {"address": f"{HOST}:0", "trusted": [f"{BREAKER}/32"], "tls": number == 0}
    with HAProxy(folder) as haproxy:
        # At an address that is not coulee's, or nobody would know whose of both it tells.
        receivers = {name: haproxy.bind(name, "127.0.0.3") for name in ("receiver", "receiver_tls", "origin")}
        origin = "http://{}:{}".format(*haproxy.address("origin"))
        with proxied(folder, certificates, backend=backend, origin=origin, listen=listen) as coulee:
            receiving = RECEIVING.format(**receivers, pair=certificates.pair, told=TOLD)
            haproxy.start(receiving + sections(haproxy, coulee, certificates))
            yield Stand(haproxy, coulee, certificates)
