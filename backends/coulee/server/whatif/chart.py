"""The picture of a run: what happened, requests, errors and retries, latencies, and for each endpoint its state and how
it did, all over one axis of time. SVG, written by hand, for light and dark.

Rules:

- A curve has a point for each slice of the time; areas are steps, because a slice is a mean.
- A strip shows the worst state that each column saw, and under it, as a dark line, when something was wrong with the
  origin itself: the distance between the two is how long the cluster took to see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10
from typing import Final

from coulee.server.whatif.scenario import Scenario
from coulee.server.whatif.tally import COLUMNS, SLICES, STATES, Row, Tally
from coulee.server.whatif.units import clock, decades, latency, share, span, ticks, time_ticks
from coulee.server.whatif.words import told, told_outages

WIDTH: Final = 1080
LEFT: Final = 132
RIGHT: Final = 24
INNER: Final = WIDTH - LEFT - RIGHT
GAP: Final = 46
"""Between panels: the next one's title stands in it."""

HEADROOM: Final = 1.05

HEATS: Final = 6
"""Shades that latencies are told apart by."""

STRIPS_MAX: Final = 120
LANES_MAX: Final = 6
NAME_MAX: Final = 18
"""Characters of an endpoint's name that there is room for."""

_LETTER: Final = 6.3
"""Width of a letter of 11 pixels in the widest of the usual fonts, roughly."""

_LEGEND_LETTER: Final = 7.0
"""... and of 12."""

_STYLE: Final = """\
    text { font-family: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; font-size: 12px;
      fill: #1f2a37 }
    .title { font-size: 18px; font-weight: 600 }
    .panel { font-size: 13px; font-weight: 600 }
    .note { fill: #5a6675 }
    .small { font-size: 11px }
    .end { text-anchor: end }
    .middle { text-anchor: middle }
    .paper { fill: #ffffff }
    .plot { fill: #f6f7f9 }
    .grid { stroke: #dfe3e8; fill: none }
    .good { fill: #a9cfe8 } .rescued { fill: #f0b93a } .bad { fill: #d1382c }
    .bad-line { stroke: #d1382c } .retry-line { stroke: #b98300 } .p50-line { stroke: #2f7db5 }
    .p99-line { stroke: #6b3fa0 }
    .line { fill: none; stroke-width: 1.8; stroke-linejoin: round }
    .load-line { fill: none; stroke: #1f2a37; stroke-opacity: 0.55 }
    .heat1 { fill: #e6eef6 } .heat2 { fill: #c6d9ea } .heat3 { fill: #9dbfdc } .heat4 { fill: #7a9fcb }
    .heat5 { fill: #6b7fb8 } .heat6 { fill: #5c559c }
    .lane { fill: #e4e7eb } .start { stroke: #1f2a37; stroke-width: 1.5 }
    .trouble { fill: #1f2a37 }
    .healthy { fill: #bfe3c6 } .slow_start { fill: #62b6e7 } .half_open { fill: #d3b4ea }
    .draining { fill: #4a7fb5 } .maintenance { fill: #8b95a1 } .removed { fill: #e4e7eb }
    .circuit_open { fill: #9a5fc4 } .ejected { fill: #f09a2e } .unhealthy { fill: #d1382c }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6e9ed } .note { fill: #a3adb9 } .paper { fill: #14181d } .plot { fill: #1b2027 }
      .grid { stroke: #303843 } .good { fill: #2f5f7f } .rescued { fill: #c9952a } .bad { fill: #e5584c }
      .bad-line { stroke: #e5584c } .retry-line { stroke: #e0ad3c } .p50-line { stroke: #6db3e0 }
      .p99-line { stroke: #b48be0 } .load-line { stroke: #ffffff } .lane { fill: #2b323b }
      .start { stroke: #e6e9ed } .trouble { fill: #f2f4f7 }
      .heat1 { fill: #1f2a37 } .heat2 { fill: #27405a } .heat3 { fill: #2f587f } .heat4 { fill: #4470a4 }
      .heat5 { fill: #6581c0 } .heat6 { fill: #9186d6 }
      .healthy { fill: #2c5a3a } .slow_start { fill: #3b86b3 } .half_open { fill: #7f62a0 }
      .draining { fill: #41709f } .maintenance { fill: #5c6672 } .removed { fill: #262d35 }
      .circuit_open { fill: #a86fd2 } .ejected { fill: #e08d27 } .unhealthy { fill: #e5584c }
    }
"""

_STATE_NAMES: Final = {"slow_start": "slow start", "half_open": "half open", "circuit_open": "circuit open"}


def chart(tally: Tally, scenario: Scenario, program: str) -> str:
    """The whole picture of a run of `program`."""
    return _Chart(tally, scenario).draw(program)


class _Chart:
    def __init__(self, tally: Tally, scenario: Scenario) -> None:
        self.tally = tally
        self.scenario = scenario
        self.slice_s = tally.duration_s / SLICES
        self.lines: list[str] = []
        self.y = 0.0

    def draw(self, program: str) -> str:
        """From top to bottom; the height is known in the end."""
        self._title(program)
        self._events()
        self._requests()
        self._errors()
        self._latencies()
        rows = _most_telling(list(self.tally.rows.values()))
        self._strips(rows)
        self._work(rows)
        height = round(self.y + 16)
        what = escape(f"{program} under {self.scenario.name}")
        head = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"',
            '  role="img" aria-labelledby="title description">',
            f'  <title id="title">{what}</title>',
            f'  <desc id="description">{escape(self._summary())}</desc>',
            "  <style>",
            _STYLE + "  </style>",
            f'  <rect class="paper" width="{WIDTH}" height="{height}"/>',
        ]
        return "\n".join([*head, *self.lines, "</svg>", ""])

    # -- the parts

    def _title(self, program: str) -> None:
        scenario = self.scenario
        self._text(24, 34, f"{program} under {scenario.name}", "title")
        self._text(24, 55, self._summary(), "note")
        count = len(self.tally.rows)
        length = span(scenario.duration_s)
        self._text(
            WIDTH - RIGHT, 34, f"{count} endpoint{'s' * (count != 1)}, {length}, seed {scenario.seed}", "note end"
        )
        self.y = 60

    def _summary(self) -> str:
        tally = self.tally
        whole = tally.all_latencies
        return (
            f"{tally.requests:,} requests, {share(tally.ok, tally.ok + tally.failed)} went well; "
            f"{tally.failed:,} errors, {sum(tally.retries):,} retries; "
            f"latency {latency(whole.quantile(0.5))} at the median, {latency(whole.quantile(0.99))} at p99"
        )

    def _events(self) -> None:
        """A bar for each event that is written down, in as few lanes as it takes."""
        happenings = self.scenario.happenings
        outages = self.scenario.outages
        if not happenings and outages is None:
            return
        self._head("what happens", [])
        top = self.y
        ends: list[float] = []
        left_out = 0
        for happening in happenings:
            x = self._x(happening.at_s)
            if happening.at_s > self.tally.duration_s:
                continue
            label = told(happening)
            width = max(self._x(min(happening.at_s + happening.for_s, self.tally.duration_s)) - x, 2)
            reach = len(label) * _LETTER + 8
            over = max(0.0, x + reach - (LEFT + INNER))  # the label would leave the picture: it ends at the bar instead
            lane = next((lane for lane, end in enumerate(ends) if end <= x - over), len(ends))
            if lane == LANES_MAX:
                left_out += 1
                continue
            if lane == len(ends):
                ends.append(0.0)
            ends[lane] = x + max(width, reach) + 4
            y = top + lane * 19
            self._rect(x, y, width, 16, "lane", f"{label}, at {span(happening.at_s)}")
            self._line(f"M{x:.1f} {y:.1f}v16", "start")
            self._text(x + 5 if not over else LEFT + INNER, y + 12, label, "small" if not over else "small end")
        self.y = top + len(ends) * 19
        notes = [] if outages is None else [told_outages(outages)]
        if left_out:
            notes.append(f"and {left_out} more events")
        for note in notes:
            self._text(LEFT, self.y + 12, note, "small note")
            self.y += 18

    def _requests(self) -> None:
        tally = self.tally
        layers = [("bad", tally.bad), ("rescued", tally.rescued), ("good", tally.good)]
        most = max(max(map(sum, zip(tally.good, tally.rescued, tally.bad, strict=True))) / self.slice_s, 1) * HEADROOM
        self._head("requests a second", [("good", "well at once"), ("rescued", "well after a retry"), ("bad", "error")])
        height = 130.0
        self._plot(height, [(value, f"{value:,.0f}") for value in ticks(most)], most)
        base = [0.0] * SLICES
        for name, counts in layers:
            top = [low + count / self.slice_s for low, count in zip(base, counts, strict=True)]
            if any(counts):
                self._area(base, top, most, height, name)
            base = top
        self.y += height

    def _errors(self) -> None:
        tally = self.tally
        errors = [count / self.slice_s for count in tally.bad]
        retries = [count / self.slice_s for count in tally.retries]
        most = (max(*errors, *retries) or 1.0) * HEADROOM
        self._head("errors and retries a second", [("bad-line", "errors"), ("retry-line", "retries")])
        height = 90.0
        self._plot(height, [(value, f"{value:,.10g}") for value in ticks(most, 3)], most)
        self._area([0.0] * SLICES, errors, most, height, "bad")
        self._curve([retry / most for retry in retries], height, "retry-line")
        self.y += height

    def _latencies(self) -> None:
        seen = [each if each.count else None for each in self.tally.latency]
        p50 = [each.quantile(0.5) if each is not None else None for each in seen]
        p99 = [each.quantile(0.99) if each is not None else None for each in seen]
        values = [value for value in (*p50, *p99) if value]
        marks = decades(min(values, default=0.01), max(values, default=0.1))
        low, high = log10(marks[0]), log10(marks[-1])
        self._head("latency, as clients saw it", [("p50-line", "median"), ("p99-line", "p99")])
        height = 110.0
        self._plot(height, [(log10(mark) - low, _short_latency(mark)) for mark in marks], high - low)
        for name, points in (("p99-line", p99), ("p50-line", p50)):
            heights = [(log10(value) - low) / (high - low) if value is not None else None for value in points]
            self._curve(heights, height, name)
        self.y += height

    def _strips(self, rows: Sequence[Row]) -> None:
        left_out = len(self.tally.rows) - len(rows)
        seen = [state for state in STATES if any(STATES.index(state) in row.strip for row in rows)]
        legend = [(state, _STATE_NAMES.get(state, state)) for state in seen]
        if any(any(row.troubles) for row in rows):
            legend.append(("trouble", "something is wrong with it"))
        pitch = _pitch(rows)
        every = 1 if pitch > 12 else 2
        most = max(max(row.attempts_in) for row in rows) if pitch > 12 else 0
        if most:
            legend.append(("load-line", "requests to it"))
        self._head("state of each endpoint", legend)
        for at, row in enumerate(rows):
            y = self.y + at * pitch
            if at % every == 0:
                self._text(LEFT - 8, y + pitch / 2 + 3.5, _short_name(row.name), "small end")
            self._strip(row, y, pitch - 2)
            if most:
                self._sparkline(row, y, pitch - 2, most)
        self.y += len(rows) * pitch
        self._grid(self.y, 4, labels=True)
        self.y += 24
        if left_out:
            self._text(LEFT, self.y + 12, f"and {left_out} more endpoints, to which less happened", "small note")
            self.y += 18

    def _strip(self, row: Row, y: float, height: float) -> None:
        """Runs of one state are one rectangle."""
        for first, last, rank in _runs(row.strip):
            state = STATES[rank]
            when = f"{clock(first / COLUMNS * self.tally.duration_s)} - {clock(last / COLUMNS * self.tally.duration_s)}"
            tip = "" if state == "healthy" else f"{row.name}: {_STATE_NAMES.get(state, state)}, {when}"
            self._rect(_column(first), y, _column(last) - _column(first), height, state, tip)
        thick = 2.5 if height > 8 else 1.8
        for first, last, wrong in _runs(row.troubles):
            if wrong:
                self._rect(_column(first), y + height - thick, _column(last) - _column(first), thick, "trouble")

    def _sparkline(self, row: Row, y: float, height: float, most: int) -> None:
        """How many requests it got, on one scale for all."""
        points = [
            f"{LEFT + INNER * (at + 0.5) / SLICES:.1f} {y + 2 + (height - 4) * (1 - count / most):.1f}"
            for at, count in enumerate(row.attempts_in)
        ]
        self._line("M" + "L".join(points), "load-line")

    def _work(self, rows: Sequence[Row]) -> None:
        """How long each endpoint took, on one scale for all, and which share of what it got were failures, from below,
        and retries, from above."""
        means = [
            [wait_s / answers if answers else 0.0 for wait_s, answers in zip(row.waits_in, row.answers_in, strict=True)]
            for row in rows
        ]
        values = [mean_s for each in means for mean_s in each if mean_s]
        least, longest = min(values, default=0.0), max(values, default=0.0)
        legend = [("heat1", latency(least)), (f"heat{HEATS}", latency(longest))] if values else []
        if any(any(row.retries_in) for row in rows):
            legend.append(("rescued", "retries"))
        if any(any(row.failures_in) for row in rows):
            legend.append(("bad", "failures"))
        self._head("each endpoint: mean latency, retries and failures", legend)
        pitch = _pitch(rows)
        every = 1 if pitch > 12 else 2
        for at, (row, mean_s) in enumerate(zip(rows, means, strict=True)):
            y = self.y + at * pitch
            if at % every == 0:
                self._text(LEFT - 8, y + pitch / 2 + 3.5, _short_name(row.name), "small end")
            levels = bytearray(_level(each, least, longest) for each in mean_s)
            for first, last, level in _runs(levels):
                self._rect(
                    _slice(first), y, _slice(last) - _slice(first), pitch - 2, f"heat{level}" if level else "plot"
                )
            self._shares(row, row.retries_in, y, pitch - 2, "rescued", from_above=True)
            self._shares(row, row.failures_in, y, pitch - 2, "bad", from_above=False)
        self.y += len(rows) * pitch
        self._grid(self.y, 4, labels=True)
        self.y += 24

    def _shares(self, row: Row, counts: Sequence[int], y: float, height: float, name: str, *, from_above: bool) -> None:
        """Bars for a part of what an endpoint got in each slice; all of it is half of the strip's height."""
        for at, count in enumerate(counts):
            if count:
                tall = max(1.0, min(count / max(row.attempts_in[at], 1), 1.0) * height / 2)
                self._rect(_slice(at), y if from_above else y + height - tall, INNER / SLICES, tall, name)

    # -- what they are made of

    def _head(self, title: str, legend: Sequence[tuple[str, str]]) -> None:
        """A panel's title and legend; `y` is then its top."""
        self.y += GAP
        y = self.y - 12
        self._text(LEFT, y, title, "panel")
        x = float(LEFT + INNER)
        for name, label in reversed(legend):
            x -= len(label) * _LEGEND_LETTER
            self._text(x, y, label, "note")
            x -= 18
            if name.endswith("-line"):
                self._line(f"M{x:.1f} {y - 4:.1f}h13", f"line {name}")
            else:
                thin = name == "trouble"
                self._rect(x, y - (5.5 if thin else 9.5), 13, 3 if thin else 11, name)
            x -= 14

    def _plot(self, height: float, marks: Sequence[tuple[float, str]], most: float) -> None:
        """The ground of a panel, with its marks."""
        self._rect(LEFT, self.y, INNER, height, "plot")
        for value, label in marks:
            y = self.y + height * (1 - value / most)
            self._line(f"M{LEFT} {y:.1f}h{INNER}", "grid")
            self._text(LEFT - 8, y + 4, label, "small end note")
        self._grid(self.y, height)

    def _grid(self, y: float, height: float, *, labels: bool = False) -> None:
        for time in time_ticks(self.tally.duration_s):
            x = self._x(time)
            self._line(f"M{x:.1f} {y:.1f}v{height:g}", "grid")
            if labels:
                self._text(x, y + 18, span(time), "small middle note")

    def _area(self, low: Sequence[float], high: Sequence[float], most: float, height: float, name: str) -> None:
        """Between two rows of steps."""

        def steps(values: Sequence[float], order: Sequence[int]) -> str:
            back = order[0] > order[-1]
            points: list[str] = []
            for at in order:
                y = self.y + height * (1 - values[at] / most)
                points += [f"{LEFT + INNER * (at + end) / SLICES:.1f} {y:.1f}" for end in ((1, 0) if back else (0, 1))]
            return "L".join(points)

        there, back = range(SLICES), range(SLICES - 1, -1, -1)
        self.lines.append(f'  <path class="{name}" d="M{steps(high, there)}L{steps(low, back)}Z"/>')

    def _curve(self, heights: Sequence[float | None], height: float, name: str) -> None:
        """Through the middle of each slice; None is a gap."""
        path = ""
        pen = "M"
        for at, value in enumerate(heights):
            if value is None:
                pen = "M"
                continue
            path += f"{pen}{LEFT + INNER * (at + 0.5) / SLICES:.1f} {self.y + height * (1 - value):.1f}"
            pen = "L"
        if path:
            self._line(path, f"line {name}")

    def _x(self, at_s: float) -> float:
        return LEFT + INNER * at_s / self.tally.duration_s

    def _text(self, x: float, y: float, text: str, name: str) -> None:
        self.lines.append(f'  <text class="{name}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>')

    def _line(self, path: str, name: str) -> None:
        self.lines.append(f'  <path class="{name}" d="{path}"/>')

    def _rect(self, x: float, y: float, width: float, height: float, name: str, tip: str = "") -> None:
        rect = f'  <rect class="{name}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        self.lines.append(f"{rect}><title>{escape(tip)}</title></rect>" if tip else f"{rect}/>")


def _slice(at: int) -> float:
    return LEFT + INNER * at / SLICES


def _level(seconds: float, least: float, longest: float) -> int:
    """From 1 to `HEATS`, by orders of magnitude; 0 where there is nothing."""
    if not seconds:
        return 0
    if longest <= least * 1.05:
        return 1
    return 1 + round((HEATS - 1) * log10(seconds / least) / log10(longest / least))


def _pitch(rows: Sequence[Row]) -> int:
    """The height of a strip and the gap below it."""
    return 24 if len(rows) <= 12 else 17 if len(rows) <= 40 else 9


def _column(at: int) -> float:
    return LEFT + INNER * at / COLUMNS


def _runs(values: bytearray) -> list[tuple[int, int, int]]:
    """`(first, behind the last, value)` of each run of equal ones."""
    runs: list[tuple[int, int, int]] = []
    first = 0
    for at in range(1, len(values) + 1):
        if at == len(values) or values[at] != values[first]:
            runs.append((first, at, values[first]))
            first = at
    return runs


def _most_telling(rows: list[Row]) -> list[Row]:
    """As many as there is room for, in their order: those first that were not healthy, or in trouble, for longest."""
    if len(rows) <= STRIPS_MAX:
        return rows
    ranked = sorted(rows, key=lambda row: COLUMNS - row.strip.count(0) + sum(row.troubles), reverse=True)
    kept = {row.name for row in ranked[:STRIPS_MAX]}
    return [row for row in rows if row.name in kept]


def _short_name(name: str) -> str:
    """The end of a name tells more than its beginning."""
    return name if len(name) <= NAME_MAX else "\u2026" + name[1 - NAME_MAX :]


def _short_latency(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"
