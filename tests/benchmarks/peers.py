"""The proxies under test: their names, their commands, and whether this machine can run them.

Rules: a peer is one child process on the core of the proxies; a peer that is missing, does not start, or answers
wrongly is skipped with one line that says why, and the others run.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import subprocess
import sys
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.nginx import Nginx
from tests.benchmarks.processes import HOST, BenchError, child, free_port, wait_ready
from tests.benchmarks.scenarios import FIELDS, Scenario

_HERE = Path(__file__).parent
_HELP_WITHIN = 20.0
_ANSWER_WITHIN = 10.0

PEERS = ("nginx", "relay", "aiohttp", "coulee-asyncio", "coulee-uvloop")


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy that runs and answers."""

    name: str
    pid: int
    port: int


@contextlib.contextmanager
def running(
    name: str, nginx: Nginx, origin: int, core: int, folder: Path, asked: Iterable[Scenario]
) -> Generator[Peer, None, None]:
    """Run one peer, checked with every scenario, for the length of the `with` block."""
    port = free_port()
    with child(name, _command(name, nginx, port, origin), core, folder) as proxy:
        wait_ready(proxy, port)
        for scenario in asked:
            check(name, port, scenario)
        yield Peer(name, proxy.process.pid, port)


def check(name: str, port: int, scenario: Scenario) -> None:
    """Raise unless whoever listens on `port` answers `scenario` as it should."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER_WITHIN)
    try:
        connection.request("GET", scenario.path)
        answer = connection.getresponse()
        body, fields = answer.read(), len(answer.getheaders())
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"{name} does not answer {scenario.path}: {error!r}") from error
    finally:
        connection.close()
    if answer.status != 200 or len(body) != scenario.size:
        raise BenchError(f"{name} answers {scenario.path} with {answer.status} and {len(body)} bytes")
    if name == "origin" and scenario.name == "small" and fields != FIELDS:
        raise BenchError(f"the origin answers {scenario.path} with {fields} fields instead of {FIELDS}")


def _command(name: str, nginx: Nginx, port: int, origin: int) -> Sequence[str]:
    """The command that runs a peer; raise when it cannot be run here."""
    ports = [str(port), str(origin)]
    if name == "nginx":
        return nginx.proxy(port, origin)
    if name == "relay":
        return [sys.executable, str(_HERE / "relay.py"), *ports]
    if name == "aiohttp":
        _need("aiohttp")
        return [sys.executable, str(_HERE / "aiohttp_proxy.py"), *ports]
    backend = name.removeprefix("coulee-")
    if backend == "uvloop":
        _need("uvloop")
    coulee = [sys.executable, "-m", "coulee"]
    _answers_help(coulee)
    return [*coulee, f"{HOST}:{port}", "--to", f"http://{HOST}:{origin}", "--backend", backend, "--quiet"]


def _need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise BenchError(f"{module} is not installed")


def _answers_help(program: Sequence[str]) -> None:
    try:
        done = subprocess.run([*program, "--help"], capture_output=True, text=True, timeout=_HELP_WITHIN, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"`python -m coulee --help` takes more than {_HELP_WITHIN:.0f} s") from None
    if done.returncode != 0:
        words = (done.stderr.strip() or "it printed nothing").splitlines()[-1]
        raise BenchError(f"`python -m coulee --help` fails: {words}")
