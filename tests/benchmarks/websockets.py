"""What a message of a WebSocket costs that is echoed through each proxy: the clients, and how the proxies are started.

Rules: each client waits for the answer to its message before it sends the next, so a figure is of one message up and
one down; all are made beforehand, and no payload is looked at. `filtered-*` is coulee with a filter that looks at each
message and changes nothing, `tunnel-*` coulee at level 4, which knows nothing of HTTP.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.clients import ANSWER_WITHIN_S, ClientError, Clients
from tests.benchmarks.echo_origin import head
from tests.benchmarks.peers import BACKENDS, RELAYS, Command, Peer, Peers, need
from tests.benchmarks.processes import HOST, BenchError, child, free_port, wait_ready
from tests.benchmarks.scenarios import Load, Scenario

_HERE = Path(__file__).parent
_MASK = b"mask"
_TUNNELS = tuple(f"tunnel-{backend}" for backend in BACKENDS)
FILTERED = tuple(f"filtered-{backend}" for backend in BACKENDS)
WEBSOCKET_PEERS = ("nginx", "relay-uvloop", "caddy", *_TUNNELS[:2], *RELAYS, *FILTERED)
ASK = (
    f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()

_FILTERED = """\
# Written by the benchmark of WebSockets.
from coulee.core import Filter, Proxy
from coulee.lb import Cluster


class Look(Filter):
    def websocket_message(self, exchange, message):
        return None


proxy = Proxy(Cluster("http://{host}:{origin}"), [Look()])
"""
_TUNNEL = """\
# Written by the benchmark of WebSockets.
from coulee.core import Tunnel
from coulee.lb import Cluster

proxy = Tunnel(Cluster("http://{host}:{origin}"))
"""


@dataclass(frozen=True, slots=True)
class WebSocketPeers(Peers):
    """What runs them."""

    @contextlib.contextmanager
    def running(
        self, name: str, asked: Iterable[Scenario], *, app: str = "", options: Sequence[str] = ()
    ) -> Generator[Peer, None, None]:
        """Run one peer, checked with every scenario, for the length of the `with` block."""
        port = free_port()
        command = self._command(name, port, app)
        with child(name, [*command.words, *options], self.core, self.folder, command.environment) as proxy:
            wait_ready(proxy, port)
            for scenario in asked:
                WebSocketLoad().run(scenario, port, 0)
            yield Peer(name, proxy.process.pid, port)

    def _command(self, name: str, port: int, app: str) -> Command:
        kind, _, backend = name.partition("-")
        if name == "nginx":
            return Command(self.nginx.proxy(port, self.origin, None, upgrades=True))
        if kind in ("filtered", "tunnel"):
            if backend not in ("asyncio", "threads"):
                need(backend)
            text = _FILTERED if kind == "filtered" else _TUNNEL
            return Command([*self._coulee(port, text), "--backend", backend, "--quiet"])
        return Peers._command(self, name, port, app)


@contextlib.contextmanager
def echoing(core: int | None, folder: Path) -> Generator[int, None, None]:
    """The port of an origin that echoes."""
    port = free_port()
    with child("echo", [sys.executable, "-m", "tests.benchmarks.echo_origin", str(port)], core, folder) as origin:
        wait_ready(origin, port)
        yield port


class WebSocketLoad:
    """The clients, in the shape of `load.Generator`."""

    def run(self, scenario: Scenario, port: int, seconds: float) -> Load:
        """Echo for so long. Raises `BenchError`."""
        try:
            with contextlib.ExitStack() as stack:
                conns = [stack.enter_context(_switched(port)) for _ in range(scenario.connections)]
                length = len(head(scenario.size)) + scenario.size
                clients = Clients(conns, masked_frame(scenario.size), lambda answer: len(answer) == length)
                stack.callback(clients.close)
                count = len(clients.run(seconds))
        except (OSError, ClientError) as error:
            raise BenchError(f"{scenario.name}: {error}") from error
        return Load(count, count * scenario.size, 0)


@contextlib.contextmanager
def _switched(port: int) -> Generator[socket.socket, None, None]:
    """A connection behind its 101."""
    with socket.create_connection((HOST, port), ANSWER_WITHIN_S) as conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn.sendall(ASK)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            data = conn.recv(65536)
            if not data:
                raise ClientError("it closed the connection instead of switching")
            answer += data
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise ClientError(f"it answered {answer[:60]!r}")
        yield conn


def masked_frame(size: int) -> bytes:
    """What a client sends: a binary message of so many zeros."""
    plain = head(size)
    return plain[:1] + bytes([plain[1] | 0x80]) + plain[2:] + _MASK + (_MASK * (size // 4 + 1))[:size]
