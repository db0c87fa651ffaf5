"""The load generator: wrk where it is installed, else `blast.py`, both on the core of the origin; for handshakes
`handshakes.py`, and for HTTP/2 h2load.

Rules: one thread; the same ten request fields from both; the counts come from one JSON line, and a window in which
nothing was answered is an error.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.h2load import H2load
from tests.benchmarks.processes import HOST, BenchError, child
from tests.benchmarks.scenarios import Load, Scenario

_HERE = Path(__file__).parent
_LATE = 30.0


class Generator:
    """Runs one window of load at a time."""

    def __init__(self, core: int, folder: Path) -> None:
        self._core = core
        self._folder = folder
        self._wrk = shutil.which("wrk")
        self._h2load = H2load(folder)

    @property
    def name(self) -> str:
        if self._wrk is None:
            return "blast.py (no wrk)"
        first = subprocess.run([self._wrk, "-v"], capture_output=True, text=True, check=False).stdout.split()
        return " ".join(first[:2])

    @property
    def http2_name(self) -> str:
        return self._h2load.name

    def run(self, scenario: Scenario, port: int, seconds: int) -> Load:
        """Load `port` for `seconds`; return what was counted."""
        with child("generator", self._command(scenario, port, seconds), self._core, self._folder) as generator:
            try:
                code = generator.process.wait(seconds + _LATE)
            except subprocess.TimeoutExpired:
                raise BenchError(f"the load generator did not end within {seconds + _LATE:.0f} s") from None
            words = generator.last_words()
            printed = generator.log.read_text(errors="replace")
        if code != 0:
            raise BenchError(f"the load generator ended with code {code}: {words}")
        try:
            if scenario.streams:
                load = self._h2load.counted(scenario, port, seconds, printed)
            else:
                load = Load(**json.loads(words))
        except (ValueError, TypeError):
            raise BenchError(f"the load generator printed no counts: {words}") from None
        if load.errors or not load.requests:
            raise BenchError(f"{load.requests} requests answered, {load.errors} failed")
        return load

    def _command(self, scenario: Scenario, port: int, seconds: int) -> list[str]:
        if scenario.streams:
            return self._h2load.command(scenario, port, seconds)
        connections = str(scenario.connections)
        if scenario.handshakes:
            client = [sys.executable, str(_HERE / "handshakes.py"), str(port), connections, str(seconds)]
            return [*client, scenario.handshakes]
        if self._wrk is None:
            if scenario.tls:
                raise BenchError("only wrk speaks TLS, and it is not installed")
            blast = [sys.executable, str(_HERE / "blast.py"), str(port), scenario.path, connections, str(seconds)]
            return [*blast, str(scenario.upload), *scenario.fields]
        options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(_HERE / "wrk.lua")]
        fields = [word for field in scenario.fields for word in ("-H", field)]
        scheme = "https" if scenario.tls else "http"
        body = ["--", scenario.method, str(scenario.upload)] if scenario.upload else []
        return [self._wrk, *options, *fields, f"{scheme}://{HOST}:{port}{scenario.path}", *body]
