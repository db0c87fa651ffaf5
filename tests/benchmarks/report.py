"""What was measured, as a table for people and as JSON for programs.

Rules: a figure is the median of its rounds; the first ratio in parentheses is to nginx, the second, where there is one,
to the blind relay of the same backend. Ratios are all that holds from one machine or hour to another; each is the
median of the rounds' own ratios, since the machine drifts between rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.benchmarks.peers import RELAYS
from tests.benchmarks.scenarios import Column

_BASE = "nginx"
_GAP = "   "


@dataclass(slots=True)
class Results:
    """The figures of every peer and column, by the number of the round; a round that failed has none."""

    peers: Sequence[str]
    columns: Sequence[Column]
    figures: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict[tuple[str, str], dict[int, float]])

    def add(self, peer: str, column: Column, number: int, figure: float) -> None:
        self.figures.setdefault((peer, column.name), {})[number] = figure

    def rounds(self, peer: str, column: Column) -> dict[int, float]:
        return self.figures.get((peer, column.name), {})

    def median(self, peer: str, column: Column) -> float | None:
        return _median(list(self.rounds(peer, column).values()))

    def ratio(self, peer: str, column: Column, to: str | None = _BASE) -> float | None:
        base = self.rounds(to, column) if to is not None and column.compared else {}
        return _median([figure / base[n] for n, figure in self.rounds(peer, column).items() if n in base])

    def table(self) -> str:
        """The peers as rows, the columns as they are."""
        rows = [["", *(each.name for each in self.columns)], ["peer", *(each.unit for each in self.columns)]]
        rows += [[peer, *(self._cell(peer, each) for each in self.columns)] for peer in self.peers]
        return aligned(rows)

    def as_json(self) -> dict[str, object]:
        return {
            "units": {each.name: each.unit for each in self.columns},
            "peers": {peer: {each.name: self._entry(peer, each) for each in self.columns} for peer in self.peers},
        }

    def _cell(self, peer: str, column: Column) -> str:
        figure = self.median(peer, column)
        if figure is None:
            return "failed"
        ratios = [self.ratio(peer, column), self.ratio(peer, column, RELAYS.get(peer))]
        shown = ", ".join(f"{each:.2f}x" for each in ratios if each is not None)
        return f"{figure:,.{column.digits}f}" + (f" ({shown})" if shown else "")

    def _entry(self, peer: str, column: Column) -> dict[str, object]:
        return {
            "median": self.median(peer, column),
            "ratio": self.ratio(peer, column),
            "ratio_to_relay": self.ratio(peer, column, RELAYS.get(peer)),
            "rounds": self.rounds(peer, column),
        }


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """The rows as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _median(figures: Sequence[float]) -> float | None:
    return statistics.median(figures) if figures else None
