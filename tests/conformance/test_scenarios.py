"""One set of scenarios leaves the same access records and the same bytes on every backend."""

from __future__ import annotations

import pytest

from coulee.conformance import Harness
from tests.conformance.harness import SimulatedHarness
from tests.conformance.scenarios import SCENARIOS
from tests.conformance.scenarios.golden import read
from tests.conformance.stage import Stage, play

MOMENT_S = 0.03


@pytest.fixture(scope="module")
def golden() -> dict[str, str]:
    return read()


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_outcome_is_the_same_everywhere(name: str, harness: Harness, golden: dict[str, str]) -> None:
    assert play(SCENARIOS[name], harness, at_the_end=_nothing_is_due) == golden[name]


def _nothing_is_due(stage: Stage) -> None:
    """Where time costs nothing, see that the script has waited for all that was to happen."""
    if isinstance(stage.harness, SimulatedHarness):
        before = stage.transcript()
        stage.harness.simulator.advance(MOMENT_S)
        assert stage.transcript() == before, "the script has ended before its scenario"


def test_every_scenario_is_written_down(golden: dict[str, str]) -> None:
    assert list(golden) == list(SCENARIOS)
    assert len(golden) >= 60
