"""The benchmark measures what it says: its own load generator, and the codecs alone. No figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.benchmarks import codecs
from tests.benchmarks.nginx import Nginx
from tests.benchmarks.peers import check
from tests.benchmarks.processes import BenchError, child, cpu_ns, free_port, wait_ready
from tests.benchmarks.scenarios import SCENARIOS, Scenario

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


def test_a_process_that_is_gone_has_no_cpu_time() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        ended.wait()
    with pytest.raises(BenchError, match="is gone"):
        cpu_ns(ended.pid)
