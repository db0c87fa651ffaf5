"""coulee that speaks HTTP/2 as a child process (see `http2_doors.py`), and what tests of it share.

Its ports are its own (port 0, and look). It is known by its process id and ended by it. `HTTP2_LONG=1` in the
environment makes the tests of HTTP/2 as long as `make grpc` has them.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from tests.interop.conftest import memory_of
from tests.interop.fleet import WITHIN_S, until
from tests.interop.proxied import Certificates

LONG = bool(os.environ.get("HTTP2_LONG"))


class Doors:
    """coulee; `ports` has those of its listeners, "plain" and "tls"."""

    def __init__(self, backend: str, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.backend = backend
        self.process = process
        self.folder = folder
        self.ports: dict[str, int] = {}
        self._read = 0
        self._told: list[dict[str, Any]] = []

    def url(self, door: str) -> str:
        """Of a listener; its certificate is for this host."""
        return f"{'https' if door == 'tls' else 'http'}://localhost:{self.ports[door]}"

    @property
    def errors(self) -> str:
        return (self.folder / "errors").read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All that it has said."""
        with (self.folder / "out").open("rb") as out:
            out.seek(self._read)
            whole, mark, _ = out.read().rpartition(b"\n")
        self._read += len(whole) + len(mark)
        self._told += map(json.loads, whole.splitlines())
        return self._told

    def first(self, **values: object) -> dict[str, Any] | None:
        """What it has said that has these values."""
        return next((line for line in self.lines if all(line.get(name) == values[name] for name in values)), None)

    def record(self, target: str) -> dict[str, Any]:
        """Of the request for a target."""
        return until(lambda: self.first(target=target), f"a record of {target}")

    def memory_kib(self, name: str) -> int:
        """`VmRSS` or `VmHWM` of the process."""
        return memory_of(self.process.pid, name)

    def wait_ready(self) -> None:
        def ready() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.errors
            return self.first(event="ready")

        addresses: dict[str, str] = until(ready, "coulee listens")["addresses"]
        self.ports = {name: int(address.rpartition(":")[2]) for name, address in addresses.items()}

    def end(self) -> None:
        """Ask it to stop."""
        self.process.terminate()
        try:
            self.process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def doors(
    backend: str, certificates: Certificates, origins: Mapping[str, Mapping[str, Any]], **settings: Any
) -> Generator[Doors, None, None]:
    """coulee, while the block lasts. It complains of nothing."""
    settings |= {"backend": backend, "origins": origins, "pair": str(certificates.pair), "ca": str(certificates.ca)}
    program = str(Path(__file__).with_name("http2_doors.py"))
    with tempfile.TemporaryDirectory(prefix="coulee-http2-") as name:
        folder = Path(name)
        with (folder / "out").open("wb") as out, (folder / "errors").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, program, json.dumps(settings)], stdin=subprocess.DEVNULL, stdout=out, stderr=errors
            )
        coulee = Doors(backend, process, folder)
        try:
            coulee.wait_ready()
            yield coulee
        finally:
            coulee.end()
            faults = coulee.errors, coulee.first(event="internal_error"), coulee.first(event="filter_error")
            if sys.exc_info()[0] is not None and any(faults):
                print(*faults, sep="\n")  # pytest shows it beside what failed
        assert faults == ("", None, None)


@contextlib.contextmanager
def serving(program: str, **settings: Any) -> Generator[dict[str, int], None, None]:
    """A program of ours beside this file, which ends with its input; the ports that it tells."""
    command = [sys.executable, str(Path(__file__).with_name(program)), json.dumps(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ports: dict[str, int] = json.loads(process.stdout.readline())
            yield ports
        finally:
            process.stdin.close()
            try:
                process.wait(WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
