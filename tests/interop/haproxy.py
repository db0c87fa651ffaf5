"""HAProxy as a child process; and clients of which it is known who they are.

Its sockets are made here and handed to it (`fd@`), so that their ports are known before it starts, and are nobody
else's. It is known by its process id and ended by it.
"""

from __future__ import annotations

import contextlib
import csv
import http.client
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Self

import pytest

from tests.interop.fleet import WITHIN_S, until

_CONFIG = """\
global
    nbthread 1
    stats socket unix@{folder}/stats.sock mode 600 level user
defaults
    mode http
    timeout connect 15s
    timeout client 15s
    timeout server 15s
"""


def program() -> str:
    """Where HAProxy is, or a skip."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    found = shutil.which("haproxy", path=path)
    if found is None:
        pytest.skip("haproxy is not installed (Debian: haproxy)")
    return found


class HAProxy:
    """One HAProxy: first its sockets, with `bind`, then `start`."""

    def __init__(self, folder: Path) -> None:
        self.program = program()
        self.folder = folder
        self.sockets: dict[str, socket.socket] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def bind(self, name: str, host: str = "127.0.0.1") -> str:
        """A socket that listens already, by a name; what to write for it in a line `bind`."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sockets[name] = sock = socket.create_server((host, 0), family=family)
        return f"fd@{sock.fileno()}"

    def address(self, name: str) -> tuple[str, int]:
        """Where that is."""
        host, port, *_ = self.sockets[name].getsockname()
        return host, port

    def start(self, sections: str) -> None:
        """Until it is there to be asked."""
        (self.folder / "haproxy.cfg").write_text(_CONFIG.format(folder=self.folder) + sections)
        with (self.folder / "haproxy.log").open("wb") as log:
            self.process = process = subprocess.Popen(
                [self.program, "-db", "-f", str(self.folder / "haproxy.cfg")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=[each.fileno() for each in self.sockets.values()],
            )  # fmt: skip

        def answers() -> bool:
            assert process.poll() is None, self.said
            with contextlib.suppress(OSError):
                return bool(self.stats())
            return False

        until(answers, "haproxy starts")

    @property
    def said(self) -> str:
        return (self.folder / "haproxy.log").read_text()

    def stats(self) -> dict[tuple[str, str], dict[str, str]]:
        """What it counts, for the proxies and servers by their names."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(WITHIN_S)
            sock.connect(str(self.folder / "stats.sock"))
            sock.sendall(b"show stat\n")
            with sock.makefile() as answer:
                rows = csv.DictReader(line.removeprefix("# ") for line in answer if line.strip())
                return {(row["pxname"], row["svname"]): row for row in rows}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for each in self.sockets.values():
            each.close()


class Client:
    """One connection of a client, whose requests go one after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.address: tuple[str, int] = sock.getsockname()[:2]
        self._conn = http.client.HTTPConnection("localhost")
        self._conn.auto_open = 0  # another connection would be another client
        self._conn.sock = sock

    def get(self, target: str, **fields: str) -> str:
        """The body of what has to be a 200."""
        self._conn.request("GET", target, headers={name.replace("_", "-"): value for name, value in fields.items()})
        answer = self._conn.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, (answer.status, body)
        return body


@contextlib.contextmanager
def connected(
    to: tuple[str, int] | str, source: str = "", context: ssl.SSLContext | None = None
) -> Generator[Client, None, None]:
    """A client at a port or a Unix socket, from an address of loopback; by TLS, with a context."""
    if isinstance(to, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(WITHIN_S)
        sock.connect(to)
    else:
        sock = socket.create_connection(to, WITHIN_S, (source, 0) if source else None)
    with sock:
        if context is None:
            yield Client(sock)
        else:
            with context.wrap_socket(sock, server_hostname="localhost") as secured:
                yield Client(secured)
