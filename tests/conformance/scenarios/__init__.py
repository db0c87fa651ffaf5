"""The scenarios: one set, played on every backend, with one outcome.

`SCENARIOS` has them by name; `golden.txt` beside this file has what comes of each, to be read. `python -m
tests.conformance.scenarios` writes it anew, in the simulator.
"""

from __future__ import annotations

from typing import Final

from tests.conformance.scenarios import (
    clients,
    endings,
    failures,
    filters,
    messages,
    refusals,
    times,
    upgrades,
    websockets,
)
from tests.conformance.stage import Scenario

SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.name: scenario
    for module in (messages, refusals, failures, clients, times, upgrades, websockets, filters, endings)
    for scenario in module.SET
}
