"""coulee with many doors as a child process, and the certificates that it and those around it need.

Its ports are its own (port 0, and look). It is known by its process id and ended by it.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.interop.fleet import WITHIN_S, until


@dataclass
class Certificates:
    """Of localhost, with its key in one file, and who has signed it; what a client has that shows none of its own, and
    one that does."""

    ca: Path
    pair: Path
    plain: ssl.SSLContext
    showing: ssl.SSLContext


def certificates_in(folder: Path) -> Certificates:
    """New ones, or a skip. The client's is Alice's, and it speaks HTTP/1.1 by name."""
    trustme = pytest.importorskip("trustme", reason="the package trustme is not installed")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    localhost = ca.issue_cert("localhost", "127.0.0.1")
    localhost.private_key_and_cert_chain_pem.write_to_path(str(folder / "pair.pem"))
    plain, showing = (ssl.create_default_context(cafile=str(folder / "ca.pem")) for _ in range(2))
    ca.issue_cert("alice@example.com", common_name="Alice").configure_cert(showing)
    showing.set_alpn_protocols(["http/1.1"])
    return Certificates(folder / "ca.pem", folder / "pair.pem", plain, showing)


class Proxied:
    """coulee: see `many_doors.py`. `addresses` are where its listeners are, by their names."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.addresses: dict[str, str] = until(self._ready, "coulee listens")["addresses"]

    def at(self, name: str) -> tuple[str, int]:
        """The host and the port of a listener."""
        host, _, port = self.addresses[name].rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def errors(self) -> str:
        return (self.folder / "errors").read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All that it has said."""
        whole, _, _ = (self.folder / "out").read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def first(self, **values: object) -> dict[str, Any] | None:
        """What it has said that has these values."""
        return next((line for line in self.lines if all(line.get(name) == values[name] for name in values)), None)

    def record(self, target: str) -> dict[str, Any]:
        """Of the request for a target."""
        return until(lambda: self.first(target=target), f"a record of {target}")

    def turned_away(self, client: tuple[str, int]) -> dict[str, Any]:
        """What it has said of a client."""
        return until(lambda: self.first(event="turned_away", client=list(client)), f"{client} is turned away")

    def _ready(self) -> dict[str, Any] | None:
        assert self.process.poll() is None, self.errors
        return self.first(event="ready")


@contextlib.contextmanager
def proxied(folder: Path, certificates: Certificates, **settings: Any) -> Generator[Proxied, None, None]:
    """coulee, while the block lasts. It complains of nothing."""
    settings |= {"pair": str(certificates.pair), "ca": str(certificates.ca)}
    program = str(Path(__file__).with_name("many_doors.py"))
    with (folder / "out").open("wb") as out, (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, program, json.dumps(settings)], stdin=subprocess.DEVNULL, stdout=out, stderr=errors
        )
    try:
        coulee = Proxied(process, folder)
        yield coulee
        faults = coulee.errors, coulee.first(event="internal_error"), coulee.first(event="filter_error")
    finally:
        process.terminate()
        try:
            process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert faults == ("", None, None)
