"""Writes golden.txt anew, from the simulator: `python -m tests.conformance.scenarios`. Review what has changed."""

from __future__ import annotations

from coulee.backends.simulator import Weather
from tests.conformance.harness import SimulatedHarness
from tests.conformance.scenarios import SCENARIOS
from tests.conformance.scenarios.golden import GOLDEN, PREFACE
from tests.conformance.stage import play

texts = [play(scenario, SimulatedHarness(Weather.calm())) for scenario in SCENARIOS.values()]
GOLDEN.write_text("\n".join([PREFACE, *texts]))
print(f"{len(texts)} scenarios")
