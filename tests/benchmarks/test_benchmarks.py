"""The benchmark measures what it says: its own load generators, the relays, and the codecs alone. No figure is judged
here."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from coulee.lb import RandomChoice
from tests.benchmarks import choices, codecs, many, rings, workers
from tests.benchmarks.__main__ import main
from tests.benchmarks.clients import ClientError, Clients, who_is_not_read
from tests.benchmarks.idle import small_request
from tests.benchmarks.nginx import Nginx
from tests.benchmarks.peers import RELAYS, Peer, Peers, check
from tests.benchmarks.processes import HOST, BenchError, child, cpu_ns, free_port, wait_ready
from tests.benchmarks.report import Results
from tests.benchmarks.scenarios import SCENARIOS, Column, Scenario
from tests.benchmarks.stopped import origin_that_does_not_read

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark needs Linux")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Generator[int, None, None]:
    """The port of an origin that knows every scenario."""
    folder = tmp_path_factory.mktemp("bench")
    try:
        nginx = Nginx(folder)
    except BenchError as error:
        pytest.skip(str(error))
    port = free_port()
    with child("origin", nginx.origin(port), 0, folder) as running:
        wait_ready(running, port)
        yield port


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_wrk_every_scenario_is_blasted(name: str, origin: int) -> None:
    scenario = SCENARIOS[name]
    check("origin", origin, scenario)
    blast = [sys.executable, str(Path(codecs.__file__).with_name("blast.py")), str(origin), scenario.path, "4", "0.3"]
    done = subprocess.run([*blast, str(scenario.upload), *scenario.fields], capture_output=True, check=True, timeout=20)
    counts = json.loads(done.stdout)
    assert counts["errors"] == 0
    assert counts["requests"] > 0
    assert counts["bytes"] >= counts["requests"] * scenario.size


def test_an_answer_that_is_not_as_it_should_be_is_told(origin: int) -> None:
    with pytest.raises(BenchError, match="answers /64k with 200 and 65536 bytes"):
        check("peer", origin, Scenario("64k", "/64k", size=1, connections=1))


def test_each_codec_carries_exchanges_and_is_timed() -> None:
    times = codecs.measure(rounds=1)
    assert list(times) == list(codecs.CODECS)
    assert all(0 < each < 10_000 for rounds in times.values() for heads in rounds for each in heads)
    assert codecs.table(times).count("\n") == len(codecs.CODECS)


def test_the_policies_are_a_part_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for module in (choices, rings):
        monkeypatch.setattr(module, "known", lambda: {"random": RandomChoice})
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "choices", "--json", str(tmp_path / "figures")])
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        assert main() == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    shown = capsys.readouterr()
    assert [line for line in shown.out.splitlines() if line.endswith("rounds")] == [
        "Policies alone, among 1,000 endpoints; median of 10 rounds",
        "Their tables, for 10,000 endpoints; median of 3 rounds",
    ]
    assert shown.err == "the policies alone ...\ntheir tables ...\n"
    found = json.loads((tmp_path / "figures").read_text())
    assert list(found) == ["choices"]
    assert set(found["choices"]["choices"]) == set(found["choices"]["tables"]) == {"random"}


def test_a_process_that_is_gone_has_no_cpu_time() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        ended.wait()
    with pytest.raises(BenchError, match="is gone"):
        cpu_ns(ended.pid)


@pytest.mark.parametrize("name", RELAYS.values())
def test_each_relay_passes_on_what_it_gets(name: str, origin: int, tmp_path: Path) -> None:
    try:
        peers = Peers(Nginx(tmp_path), origin, None, tmp_path)
        with peers.running(name, SCENARIOS.values()):
            pass
    except BenchError as error:
        if "is not installed" in str(error):
            pytest.skip(str(error))
        raise


def test_the_second_ratio_is_to_the_relay_of_the_same_backend() -> None:
    column = Column("small", "us", 1)
    results = Results(["nginx", "relay-trio", "coulee-trio"], [column])
    for peer, figures in (("nginx", (10, 20)), ("relay-trio", (20, 30)), ("coulee-trio", (40, 60))):
        for number, figure in enumerate(figures):
            results.add(peer, column, number, figure)
    assert results.table().splitlines()[2:] == [
        "nginx         15.0 (1.00x)",
        "relay-trio    25.0 (1.75x)",
        "coulee-trio   50.0 (3.50x, 2.00x)",
    ]


def test_clients_ask_for_one_thing_after_the_other_and_want_it_whole(origin: int) -> None:
    with socket.create_connection((HOST, origin)) as one, socket.create_connection((HOST, origin)) as other:
        clients = Clients([one, other], small_request(origin))
        took = clients.run(0.1)
        assert len(took) > 4
        assert took == sorted(took)
        assert took[0] > 0
        clients.close()
    with socket.create_connection((HOST, origin)) as one:
        clients = Clients([one], b"GET /none HTTP/1.1\r\nHost: a.test\r\n\r\n")
        with pytest.raises(ClientError, match="answered so: b'HTTP/1.1 404"):
            clients.run(0.1)
        clients.close()


def test_of_who_is_not_read_only_so_much_is_taken() -> None:
    size = 64 * 1024 * 1024
    with origin_that_does_not_read() as port, who_is_not_read(port, "/", size) as sent:
        assert 0 < sent < size


def test_of_many_connections_each_is_answered_and_few_are_busy(origin: int) -> None:
    crowd = many.measure(Peer("origin", os.getpid(), origin), 200, 0.1)
    assert crowd.requests > 2
    assert set(crowd.figures) == set(many.COLUMNS)


def test_what_a_second_worker_brings_is_told_without_what_a_busy_machine_takes() -> None:
    def window(requests: float, used_s: list[float]) -> workers.Window:
        return workers.Window.of(requests, 1.0, used_s)

    alone, crowded, uneven = window(400, [1.0]), window(400, [0.5, 0.5]), window(600, [1.0, 0.5])
    assert workers.gain_on_free_cores(alone, crowded) == pytest.approx(2.0)
    assert workers.gain_on_free_cores(alone, uneven) == pytest.approx(1.5)
