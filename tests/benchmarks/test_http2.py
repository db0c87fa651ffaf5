"""The benchmark of HTTP/2 measures what it says. No figure is judged here."""

from __future__ import annotations

import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks import http2_codecs, profile_http2
from tests.benchmarks.__main__ import ALL_PEERS, HTTP2_PARTS, PARTS, options
from tests.benchmarks.certificate import make_certificate
from tests.benchmarks.codecs import HEADS
from tests.benchmarks.h2load import LEAST_TURNS, H2load
from tests.benchmarks.http2_client import ask, check
from tests.benchmarks.http2_peers import BARS, HTTP2_PEERS, Http2Peers, shares
from tests.benchmarks.load import Generator as LoadGenerator
from tests.benchmarks.nginx import Nginx
from tests.benchmarks.processes import BenchError, child, free_port, wait_ready
from tests.benchmarks.scenarios import H2C_SCENARIOS, HTTP2_SCENARIOS, Load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark needs Linux")

MEASURED = """\
finished in 1.01s, 3000.00 req/s, 1.06MB/s
requests: 3200 total, 3200 started, 3000 done, {succeeded} succeeded, {failed} failed, {errored} errored, 1 timeout
status codes: 3000 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.06MB (1110000) total, 30.10KB (30822) headers (space savings 95.95%), 292.97KB (300000) data
"""


@pytest.fixture(scope="module")
def all_peers(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Http2Peers, Http2Peers], None, None]:
    """What runs proxies of HTTP/2, with an origin behind them that speaks HTTP/1.1, and with one that speaks HTTP/2."""
    folder = tmp_path_factory.mktemp("bench")
    try:
        nginx = Nginx(folder)
        certificate = make_certificate(folder)
    except BenchError as error:
        pytest.skip(str(error))
    port, http2_port = free_port(), free_port()
    with child("origin", nginx.origin(port, http2_port), None, folder) as running:
        wait_ready(running, port)
        peers = Http2Peers(nginx, port, None, folder, certificate)
        yield peers, replace(peers, origin=http2_port, to_http2=True)


@pytest.mark.parametrize("name", ["nginx", "haproxy", "caddy", "hypercorn", "mitmproxy"])
def test_each_peer_answers_by_http2_from_an_origin_of_http1(
    name: str, all_peers: tuple[Http2Peers, Http2Peers]
) -> None:
    running_or_skipped(all_peers[0], name)


@pytest.mark.parametrize("name", ["nginx", "haproxy", "caddy"])
def test_each_peer_that_can_answers_from_an_origin_of_http2(
    name: str, all_peers: tuple[Http2Peers, Http2Peers]
) -> None:
    running_or_skipped(all_peers[1], name)


def running_or_skipped(peers: Http2Peers, name: str) -> None:
    try:
        with peers.running(name, (H2C_SCENARIOS if peers.to_http2 else HTTP2_SCENARIOS).values()):
            pass
    except BenchError as error:
        if "installed" in str(error):
            pytest.skip(str(error))
        raise


def test_who_cannot_speak_http2_to_an_origin_is_left_out(all_peers: tuple[Http2Peers, Http2Peers]) -> None:
    with pytest.raises(BenchError, match="speaks HTTP/2 to no origin"), all_peers[1].running("mitmproxy", []):
        pass


def test_h2load_loads_and_counts(all_peers: tuple[Http2Peers, Http2Peers], tmp_path: Path) -> None:
    generator = LoadGenerator(0, tmp_path)
    with all_peers[1].running("nginx", []) as peer:
        for scenario in H2C_SCENARIOS.values():
            try:
                first = generator.run(scenario, peer.port, 1)
            except BenchError as error:
                if "installed" in str(error):
                    pytest.skip(str(error))
                raise
            assert first.requests > 0
            again = generator.run(scenario, peer.port, 1)
            assert again.requests == max(LEAST_TURNS * scenario.connections * scenario.streams, first.requests)
            assert again.bytes == again.requests * scenario.size


def test_an_answer_that_is_not_as_it_should_be_is_told(all_peers: tuple[Http2Peers, Http2Peers]) -> None:
    scenario, grpc = HTTP2_SCENARIOS["h2"], H2C_SCENARIOS["grpc"]
    with all_peers[0].running("nginx", []) as peer:
        with pytest.raises(BenchError, match="answers /small with 200 and 100 bytes"):
            check("peer", peer.port, replace(scenario, size=1))
        with pytest.raises(BenchError, match=r"answers /small with the trailers \{\}"):
            check("peer", peer.port, replace(grpc, path="/small"))
        missing = replace(scenario, path="/none")
        with pytest.raises(BenchError, match="answers /none with 404"):
            check("peer", peer.port, replace(missing, size=len(ask(peer.port, missing).body)))
        assert len(ask(peer.port, scenario).fields) == 10  # the ten of HTTP/1, with :status for Connection


def test_after_the_first_window_requests_are_counted_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def found(name: str) -> str:
        return f"/opt/{name}"

    monkeypatch.setattr("shutil.which", found)
    h2load, scenario = H2load(tmp_path), HTTP2_SCENARIOS["h2"]
    assert h2load.command(scenario, 1, 2)[:5] == ["/opt/h2load", "-t1", "-c10", "-m32", "-D2"]
    printed = MEASURED.format(succeeded=3000, failed=0, errored=0)
    assert h2load.counted(scenario, 1, 3, printed) == Load(requests=3000, bytes=300000, errors=1)
    assert h2load.command(scenario, 1, 3)[4] == "-n3000"
    assert h2load.command(scenario, 1, 1)[4] == f"-n{10 * 32 * LEAST_TURNS}"  # enough for each stream
    assert h2load.command(scenario, 2, 1)[4] == "-D1"
    assert h2load.counted(scenario, 1, 2, MEASURED.format(succeeded=2990, failed=10, errored=10)).errors == 21
    assert h2load.counted(scenario, 1, 2, MEASURED.format(succeeded=2990, failed=0, errored=0)).errors == 11
    with pytest.raises(BenchError, match="printed no counts: what\\?"):
        h2load.counted(scenario, 1, 2, "oh\nwhat?")


def test_without_h2load_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(_: str) -> None:
        return None

    monkeypatch.setattr("shutil.which", missing)
    with pytest.raises(BenchError, match="h2load is not installed"):
        H2load(tmp_path).command(HTTP2_SCENARIOS["h2"], 1, 1)


def test_what_coulee_may_cost_of_what_others_do_is_said() -> None:
    costs = {"nginx": 10.0, "hypercorn": 300.0, "mitmproxy": 2000.0, "coulee-trio": 150.0, "coulee-curio": 210.0}
    assert shares(costs, BARS) == [
        "coulee-curio: 21.00 of nginx, 0.70 of hypercorn (missed: 0.5), 0.10 of mitmproxy (missed: 0.1)",
        "coulee-trio: 15.00 of nginx, 0.50 of hypercorn (bar: 0.5), 0.07 of mitmproxy (bar: 0.1)",
    ]
    assert shares({"nginx": 10.0, "coulee-trio": 15.0}, {}) == ["coulee-trio: 1.50 of nginx"]
    assert shares({"nginx": 10.0}, BARS) == []


def test_http2_is_all_of_its_parts() -> None:
    assert options(["--only", "small,http2"]).only == ["small", *HTTP2_PARTS]
    assert set(HTTP2_PARTS) < set(PARTS)
    assert set(HTTP2_PEERS) < set(ALL_PEERS)


def test_each_library_carries_exchanges_and_is_timed() -> None:
    times = http2_codecs.measure(rounds=1, pairs=3)
    assert set(times) >= {"coulee's own", "h2", "h2, unvalidated", "hpack alone"}
    assert all(len(each) == len(HEADS) and min(each) > 0 for rounds in times.values() for each in rounds)


@pytest.mark.parametrize("upstream", ["h1", "h2"])
def test_the_machine_alone_answers_and_its_time_falls_to_modules(upstream: profile_http2.Upstream) -> None:
    alone, profile = profile_http2.in_the_machine(upstream, 1, varied=True)
    assert alone > 1
    seconds = profile_http2.shares(profile)
    assert {"h2", "hyperframe", "coulee: http2", "coulee: exchange"} < set(seconds)
    assert sum(seconds.values()) == pytest.approx(vars(profile)["total_tt"])
    assert profile_http2.table({"h2": 3.0, "hpack": 1.0, profile_http2.IGNORED: 5.0}, 100.0).splitlines()[1:] == [
        "h2      75.0%   75.0",
        "hpack   25.0%   25.0",
    ]
