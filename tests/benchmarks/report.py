"""What was measured, as a table for people and as JSON for programs.

Rules: a figure is the median of its rounds; the ratio in parentheses is to nginx, the only comparison that holds from
one machine or hour to another, and is the median of each round's own ratio, since the machine drifts between rounds.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.scenarios import Scenario

_BASE = "nginx"
_GAP = "   "


@dataclass(slots=True)
class Results:
    """The figures of every peer and scenario, by the number of the round; a round that failed has none."""

    machine: str
    peers: Sequence[str]
    scenarios: Sequence[Scenario]
    figures: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict[tuple[str, str], dict[int, float]])

    def add(self, peer: str, scenario: Scenario, number: int, figure: float) -> None:
        self.figures.setdefault((peer, scenario.name), {})[number] = figure

    def rounds(self, peer: str, scenario: Scenario) -> dict[int, float]:
        return self.figures.get((peer, scenario.name), {})

    def median(self, peer: str, scenario: Scenario) -> float | None:
        return _median(list(self.rounds(peer, scenario).values()))

    def ratio(self, peer: str, scenario: Scenario) -> float | None:
        base = self.rounds(_BASE, scenario)
        return _median([figure / base[n] for n, figure in self.rounds(peer, scenario).items() if n in base])

    def table(self) -> str:
        """The peers as rows, the scenarios as columns."""
        rows = [["", *(each.name for each in self.scenarios)], ["peer", *(each.unit for each in self.scenarios)]]
        rows += [[peer, *(self._cell(peer, each) for each in self.scenarios)] for peer in self.peers]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)

    def write_json(self, path: Path) -> None:
        peers = {peer: {each.name: self._entry(peer, each) for each in self.scenarios} for peer in self.peers}
        units = {each.name: each.unit for each in self.scenarios}
        path.write_text(json.dumps({"machine": self.machine, "units": units, "peers": peers}, indent=2) + "\n")

    def _cell(self, peer: str, scenario: Scenario) -> str:
        figure, ratio = self.median(peer, scenario), self.ratio(peer, scenario)
        if figure is None:
            return "failed"
        shown = f"{figure:,.0f}" if scenario.per_byte else f"{figure:,.1f}"
        return shown if ratio is None else f"{shown} ({ratio:.2f}x)"

    def _entry(self, peer: str, scenario: Scenario) -> dict[str, object]:
        return {
            "median": self.median(peer, scenario),
            "ratio": self.ratio(peer, scenario),
            "rounds": self.rounds(peer, scenario),
        }


def _median(figures: Sequence[float]) -> float | None:
    return statistics.median(figures) if figures else None
