"""The worlds of the sweep, recorded: a fresh core that is told the same does the same, whatever has happened.

`SEEDS=20000 pytest tests/simulation` runs more of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from coulee.backends.recorder import Recorder, Redactor
from coulee.backends.recording import Recording
from coulee.backends.replay import Replay
from coulee.backends.ring import Ring
from coulee.core import Proxy
from coulee.server.recording import is_failure
from coulee.server.redaction import Redaction
from tests.simulation.scenario import Scenario

SEEDS = max(60, int(os.environ.get("SEEDS", "0")) // 20)
Hide = Callable[[], Redactor]


def replay(path: Path, definition: Proxy, hide: Hide | None = None) -> str:
    """Run a fresh core through a recording; how that ended."""
    replay = Replay(Recording(path), definition, hide)
    for turn in replay.recording:
        step = replay.step(turn)
        assert not step.difference, f"turn {step.number}, {turn.completion!r:.200}: {step.difference}"
    return replay.recording.end


@pytest.mark.parametrize("hidden", [(), ("bodies", "query", "credentials", "x-number", "x-sum")], ids=["all", "hidden"])
def test_what_was_recorded_is_replayed(hidden: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    hide = Redaction(hidden).redactor if hidden else None
    for seed in range(SEEDS):
        for hostile in (False, True):
            scenario = Scenario(seed, hostile=hostile, wrapped=lambda proxy: Recorder(proxy, path, redactor=hide))
            scenario.run()
            if hidden and (scenario.versions.clients or scenario.versions.origins or scenario.websockets.style):
                continue  # what is hidden knows neither HTTP/2 nor messages
            assert replay(path, scenario.definition, hide) == "the machine has finished", f"seed {seed}"


def test_machines_may_follow_each_other_in_any_weather_and_what_fails_in_one_is_replayed(tmp_path: Path) -> None:
    machines = dumps = 0
    for seed in range(SEEDS):
        for hostile in (False, True):
            folder = tmp_path / f"{seed} {hostile}"
            folder.mkdir()
            scenario = Scenario(
                seed,
                hostile=hostile,
                wrapped=lambda proxy, at=folder / "a.rec": Ring(proxy, at, 0.05, is_failure),  # type: ignore[misc]
            )
            outcome = scenario.run()
            machines = max(machines, outcome.census["machines"])
            for path in folder.iterdir():
                replay(path, scenario.definition)
                dumps += 1
    assert machines >= 3
    assert dumps >= SEEDS // 4
