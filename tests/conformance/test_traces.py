"""What was recorded on a backend, a fresh core repeats, also in a process with another order of hashes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coulee.backends.recorder import Recorder
from coulee.core import Proxy
from coulee.core.seam import Machine
from tests.conformance.conftest import HARNESSES
from tests.conformance.replay_all import Entry, replayed
from tests.conformance.scenarios import SCENARIOS
from tests.conformance.stage import play

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("backend", HARNESSES)
def test_every_scenario_is_replayed_to_the_last_operation(backend: str, tmp_path: Path) -> None:
    entries: list[Entry] = []
    for number, scenario in enumerate(SCENARIOS.values()):
        path = tmp_path / f"{number}.rec"

        def recorded(machine: Machine, path: Path = path, name: str = scenario.name) -> Machine:
            assert isinstance(machine, Proxy)
            balancer: Any = machine.balancer
            entries.append((name, str(path), [(peer.address, peer.name) for peer in balancer.peers]))
            return Recorder(machine, path, about={"listen_at": [each.address for each in machine.listen_at]})

        harness = HARNESSES[backend]()
        try:
            play(scenario, harness, wrap=recorded)
        finally:
            harness.end()
    assert len(entries) == len(SCENARIOS)
    differences = [line for entry in entries for line in replayed(entry)]
    assert not differences
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(entries))
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance.replay_all", str(manifest)],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=100, env={**os.environ, "PYTHONHASHSEED": "4242"},
    )  # fmt: skip
    assert done.stdout == f"{len(entries)} replayed\n"
