"""The proxies that speak HTTP/2 to clients, by TLS: their names and commands, and whether this machine can run them.

Rules: those of `peers.py`; each has room for all streams of the load, and keeps as many connections to the origin as
they need; towards the origin it speaks HTTP/1.1, or HTTP/2 without TLS where it can and that is asked for. Those that
need much beside them, hypercorn and mitmproxy, have a virtual environment of their own, so that nothing else here is
held to the versions they want.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.certificate import CIPHERS, Certificate
from tests.benchmarks.peers import RELAYS, Command, Peers, caddy, need
from tests.benchmarks.processes import HOST, BenchError

_HERE = Path(__file__).parent
_OWN_PYTHON = _HERE.parents[1] / ".bench" / "peers" / "bin" / "python"  # where `make bench` has pip put them

HTTP2_PEERS = ("nginx", "haproxy", "caddy", "hypercorn", "mitmproxy", *RELAYS)
NOT_TO_HTTP2 = ("hypercorn", "mitmproxy")
"""Who has no HTTP/2 without TLS to an origin."""
BARRED = "h2"
BARS = {"hypercorn": 0.5, "mitmproxy": 0.1}
"""Of what it costs these, coulee may cost so much, for small answers (the project's bar)."""

APP = """\
# Written by the benchmark of HTTP/2, which asks for more on a connection than clients do: nothing else is changed.
from coulee.core import Config, Limits, Proxy
from coulee.lb import Cluster

config = Config(limits=Limits(requests_per_connection_max=10**9))
proxy = Proxy(Cluster("{scheme}://{host}:{origin}"), config=config)
"""

_HAPROXY = """\
global
    nbthread 1
    maxconn 2000
    ssl-default-bind-ciphers {ciphers}
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    http-reuse always
frontend clients
    bind {host}:{port} ssl crt {certificate.together} alpn h2,http/1.1
    default_backend origin
backend origin
    server origin {host}:{origin}{proto} pool-max-conn -1
"""


@dataclass(frozen=True, slots=True)
class Http2Peers(Peers):
    """What runs them. There must be a certificate."""

    to_http2: bool = False

    def _command(self, name: str, port: int, app: str) -> Command:
        certificate = self.certificate
        assert certificate is not None
        if self.to_http2 and name in NOT_TO_HTTP2:
            raise BenchError("it speaks HTTP/2 to no origin without TLS")
        if name == "nginx":
            words = self.nginx.proxy(port, self.origin, certificate, http2=True, to_http2=self.to_http2)
            return Command(words)
        if name == "haproxy":
            return Command(_haproxy(port, self.origin, certificate, self.folder, to_http2=self.to_http2))
        if name == "caddy":
            return caddy(port, self.origin, self.folder, certificate, http2=True, to_http2=self.to_http2)
        if name == "hypercorn":
            python = _python_with("hypercorn", "aiohttp")
            files = [str(certificate.chain), str(certificate.key)]
            return Command([python, str(_HERE / "hypercorn_proxy.py"), str(port), str(self.origin), *files])
        if name == "mitmproxy":
            return Command(_mitmproxy(port, self.origin, certificate, self.folder))
        backend = name.partition("-")[2]
        if backend not in ("asyncio", "threads"):
            need(backend)
        text = app or APP.replace("{scheme}", "h2c" if self.to_http2 else "http")
        files = [f"{certificate.chain},{certificate.key}"]
        return Command([*self._coulee(port, text), "--backend", backend, "--quiet", "--tls", *files])


def shares(costs: dict[str, float], bars: Mapping[str, float]) -> list[str]:
    """What coulee costs of what others do, a line for each backend; with the bar where there is one, and whether it is
    missed."""
    lines: list[str] = []
    for name in costs.keys() & RELAYS.keys():
        said: list[str] = []
        for other, cost in costs.items():
            if other in RELAYS:
                continue
            share, most = costs[name] / cost, bars.get(other)
            bar = "" if most is None else f" ({'bar' if share <= most else 'missed'}: {most:g})"
            said.append(f"{share:.2f} of {other}{bar}")
        lines.append(f"{name}: {', '.join(said)}")
    return sorted(lines)


def _haproxy(port: int, origin: int, certificate: Certificate, folder: Path, *, to_http2: bool) -> Sequence[str]:
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise BenchError("it is not installed")
    written = folder / f"haproxy{'-h2c' if to_http2 else ''}.cfg"
    proto = " proto h2" if to_http2 else ""
    written.write_text(
        _HAPROXY.format(host=HOST, port=port, origin=origin, certificate=certificate, ciphers=CIPHERS, proto=proto)
    )
    return [program, "-db", "-q", "-f", str(written)]


def _mitmproxy(port: int, origin: int, certificate: Certificate, folder: Path) -> Sequence[str]:
    """Bodies stream through it, large and small."""
    beside = Path(_python_with("mitmproxy")).with_name("mitmdump")
    settings = {
        "confdir": folder / "mitmproxy",
        "listen_host": HOST,
        "listen_port": port,
        "stream_large_bodies": 1,
        "store_streamed_bodies": "false",
        "flow_detail": 0,
        "termlog_verbosity": "error",
    }
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    mode = ["--mode", f"reverse:http://{HOST}:{origin}", "--certs", f"*={certificate.together}"]
    return [str(beside), *mode, *words]


def _python_with(*modules: str) -> str:
    """The Python that has all of these: that of the peers, or ours."""
    for python in (str(_OWN_PYTHON), sys.executable):
        if Path(python).exists():
            asked = [python, "-c", f"import {', '.join(modules)}"]
            if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
                return python
    raise BenchError(f"{modules[0]} is not installed (`make bench` does it, where it can be had)")
