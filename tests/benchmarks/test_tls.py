"""The benchmark of TLS measures what it says, with nginx on the other side. No figure is judged here."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.benchmarks import handshakes, idle
from tests.benchmarks.__main__ import PARTS, TLS_PARTS, options
from tests.benchmarks.certificate import client_context, make_certificate
from tests.benchmarks.nginx import Nginx
from tests.benchmarks.peers import Peer, Peers, check
from tests.benchmarks.processes import HOST, BenchError, child, free_port, wait_ready
from tests.benchmarks.scenarios import SCENARIOS, TLS_SCENARIOS, Load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark needs Linux")


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Generator[Peers, None, None]:
    """What runs proxies that speak TLS, with an origin behind them."""
    folder = tmp_path_factory.mktemp("bench")
    try:
        nginx = Nginx(folder)
        certificate = make_certificate(folder)
    except BenchError as error:
        pytest.skip(str(error))
    port = free_port()
    with child("origin", nginx.origin(port), None, folder) as running:
        wait_ready(running, port)
        yield Peers(nginx, port, None, folder, certificate)


@pytest.fixture(scope="module")
def nginx(peers: Peers) -> Generator[Peer, None, None]:
    with peers.running("nginx", TLS_SCENARIOS.values()) as peer:
        yield peer


def test_who_speaks_tls_is_asked_in_tls(nginx: Peer) -> None:
    assert nginx.tls
    with pytest.raises(BenchError, match="answers /small with 400"):
        check("nginx", nginx.port, SCENARIOS["small"])


@pytest.mark.parametrize("name", ["aiohttp", "caddy", "node", "coulee-asyncio", "coulee-threads"])
def test_each_peer_answers_over_tls(name: str, peers: Peers) -> None:
    try:
        with peers.running(name, TLS_SCENARIOS.values()):
            pass
    except BenchError as error:
        if "installed" in str(error):
            pytest.skip(str(error))
        raise


@pytest.mark.parametrize("kind", ["full", "resumed"])
def test_handshakes_are_counted_that_are_of_the_kind_asked_for(kind: str, nginx: Peer) -> None:
    client = [sys.executable, str(Path(handshakes.__file__)), str(nginx.port), "4", "0.2", kind]
    done = subprocess.run(client, capture_output=True, check=True, timeout=20)
    words = done.stdout.decode()
    assert '"errors": 0' in words
    assert '"requests": 0' not in words


def test_a_handshake_that_should_be_resumed_and_is_not_is_an_error(
    nginx: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_session(*_: object) -> None:
        return None

    monkeypatch.setattr(handshakes, "session_of", no_session)
    counts = handshakes.run(nginx.port, 2, 0.05, resumed=True)
    assert counts["requests"] == 0
    assert counts["errors"] > 0


def test_handshakes_are_told_for_a_second_of_cpu_time() -> None:
    scenario = TLS_SCENARIOS["tls-full"]
    assert scenario.figure(Load(requests=300, bytes=0, errors=0), 500_000_000) == 600
    assert "handshakes/CPU-s" in scenario.column.unit


def test_idle_connections_with_tls_are_weighed_and_whoever_is_turned_out_is_seen(nginx: Peer) -> None:
    assert idle.idle_kib(nginx, 200) > 4
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, client_context().wrap_socket(ours, do_handshake_on_connect=False) as closed:
        assert idle._is_closed(closed)


def test_tls_is_all_of_its_parts() -> None:
    assert options(["--only", "small,tls"]).only == ["small", *TLS_PARTS]
    assert set(TLS_PARTS) < set(PARTS)
    assert HOST == handshakes.HOST
