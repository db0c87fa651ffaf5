"""Runs one seed of the sweep again and prints its trace: python tests/simulation/replay.py SEED [--fair]."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """The whole program."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.simulation.scenario import Scenario

    seed = int(sys.argv[1])
    scenario = Scenario(seed, hostile="--fair" not in sys.argv, keep_trace=True)
    try:
        scenario.run()
    finally:
        assert scenario.simulator.trace is not None
        print("\n".join(scenario.simulator.trace))
        for record in scenario.records:
            print(record)


if __name__ == "__main__":
    main()
