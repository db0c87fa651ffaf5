"""Certificates that are replaced fifty times under load, on every backend: nobody is refused, nobody is cut off, and
who comes next is shown the new one."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.backends.tls_ends import asking, issued
from tests.interop.fleet import HOST, WITHIN_S, until
from tests.interop.load import Crowd, wrk

if TYPE_CHECKING:
    import trustme

TIMES = 50
SEEN_WITHIN_S = 2.0
"""Of which the look itself is 50 ms; the rest is for a machine that has other things to do."""

APP = """
import json, sys
from importlib import import_module
from coulee.core import Event, Listener, Proxy, respond
from coulee.lb import Cluster
from coulee.tls import CertificateFiles, ListenerTls

name, folder = sys.argv[1:]
proxy = Proxy(Cluster("http://127.0.0.1:9"))

@proxy.on("request_filter")
def hello(exchange):
    return respond(200, "hello")

def tell(record):
    if isinstance(record, Event):
        print(json.dumps([record.name, record.text]), flush=True)

tls = ListenerTls(CertificateFiles(folder + "/cert.pem", folder + "/key.pem", interval_s=0.05))
backend = import_module("coulee.backends." + ("asyncio" if name == "uvloop" else name))
options = {"uvloop": True} if name == "uvloop" else {}
backend.run(
    proxy, Listener("127.0.0.1:0", tls=tls), reporter=tell, **options,
    on_ready=lambda driver: print(json.dumps(["ready", driver.addresses[0][1]]), flush=True),
)
"""


@contextlib.contextmanager
def serving(backend: str, folder: Path) -> Generator[tuple[int, list[list[str]]], None, None]:
    """The port, and what has happened."""
    (folder / "app.py").write_text(APP)
    with subprocess.Popen(
        [sys.executable, str(folder / "app.py"), backend, str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        said: list[list[str]] = []
        assert process.stdout is not None
        lines = process.stdout
        thread = threading.Thread(target=lambda: said.extend(json.loads(line) for line in iter(lines.readline, "")))
        thread.start()
        try:
            ready = until(lambda: next((each for each in said if each[0] == "ready"), None), "it listens")
            yield int(ready[1]), said
        finally:
            process.terminate()
            process.wait(WITHIN_S)
            thread.join(WITHIN_S)


def replace(folder: Path, leaf: trustme.LeafCert, in_place: bool) -> None:
    """As careful programs do it, and as others do. For a moment the two do not belong to each other."""
    parts = {"key.pem": leaf.private_key_pem, "cert.pem": leaf.cert_chain_pems[0]}
    for name, pem in parts.items():
        if in_place:
            (folder / name).write_bytes(pem.bytes())
        else:
            (folder / f"{name}.new").write_bytes(pem.bytes())
            (folder / f"{name}.new").replace(folder / name)


def shown_at(port: int) -> bytes:
    """The certificate that the next client is shown."""
    with (
        socket.create_connection((HOST, port), timeout=WITHIN_S) as sock,
        asking().wrap_socket(sock, server_hostname="a.test") as tls,
    ):
        return tls.getpeercert(True) or b""


@dataclass
class Comers(Crowd):
    """Clients that come, ask once, and go, in order; every second with the session of the last."""

    port: int
    answered: Counter[bool] = field(default_factory=Counter[bool])
    """By whether they had come by a session."""
    lost: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.gather(2)

    def _run(self) -> None:
        context, session = asking(), None
        while not self.over:
            try:
                with (
                    socket.create_connection((HOST, self.port), timeout=WITHIN_S) as sock,
                    context.wrap_socket(sock, server_hostname="a.test", session=session) as tls,
                ):
                    tls.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
                    answer = b""
                    while piece := tls.recv(65536):
                        answer += piece
                    session = tls.session if session is None else None
                    reused = bool(tls.session_reused)
                with self.lock:
                    if answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"hello"):
                        self.answered[reused] += 1
                    else:
                        self.lost.append(repr(answer))
            except (OSError, ssl.SSLError) as error:
                with self.lock:
                    self.lost.append(repr(error))
            time.sleep(0.002)  # for others, on a machine with few processors


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed (Debian: wrk)")
def test_fifty_times_under_load(backend: str, tmp_path: Path) -> None:
    replace(tmp_path, issued("a.test", "localhost"), False)
    slowest = 0.0
    with serving(backend, tmp_path) as (port, said):
        with wrk(f"https://localhost:{port}/", 16) as found, Comers(port) as comers:
            until(lambda: comers.answered.total(), "there is load")
            for index in range(TIMES):
                leaf = issued("a.test", "localhost")
                new = ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
                replace(tmp_path, leaf, in_place=index % 2 == 1)
                began = time.monotonic()
                until(lambda: shown_at(port) == new, "the new one is shown", SEEN_WITHIN_S)  # noqa: B023
                slowest = max(slowest, time.monotonic() - began)
        assert not comers.lost, (comers.lost[:3], len(comers.lost))
        assert comers.answered[False] > TIMES / 2
        assert comers.answered[True] > TIMES / 2
        assert found[0].errors == (0, 0, 0, 0, 0)
        assert found[0].requests > TIMES
    assert [text for name, text in said if name == "turned_away"] == []
    assert sum(name == "certificates" for name, _ in said) >= TIMES
    print(
        f"{backend}: {comers.answered}, {found[0].requests} by wrk, the slowest was seen after {slowest * 1e3:.0f} ms"
    )
