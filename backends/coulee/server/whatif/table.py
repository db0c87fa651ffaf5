"""The outcome of a run as text: a line for each endpoint, what it comes to in all, and the changes of state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from coulee.server.whatif.scenario import Scenario
from coulee.server.whatif.tally import Row, Tally
from coulee.server.whatif.units import clock, latency, share, span

CHANGES_SHOWN: Final = 40
"""Changes of state in the text; all that are kept are in the JSON."""

_HEADS: Final = ("endpoint", "weight", "requests", "share", "errors", "retries", "p50", "p99", "changes", "not healthy",
                 "in the end")  # fmt: skip
_WORDS_MAX: Final = 3
"""Reasons that a line names."""


def table(tally: Tally, scenario: Scenario, program: str) -> str:
    """All of it."""
    parts = [
        [f"{program} under {scenario.name}: {span(scenario.duration_s)}, seed {scenario.seed}"],
        _columns(_lines(tally)),
        _totals(tally),
        _changes(tally),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _lines(tally: Tally) -> list[tuple[str, ...]]:
    attempts = sum(row.attempts for row in tally.rows.values())
    return [_HEADS, *(_line(row, attempts) for row in tally.rows.values())]


def _line(row: Row, attempts: int) -> tuple[str, ...]:
    unwell_s = _unwell_s(row)
    return (
        row.name,
        str(row.weight),
        f"{row.attempts:,}",
        share(row.attempts, attempts),
        _reasons(row.failures),
        f"{row.retries:,}",
        latency(row.latency.quantile(0.5)),
        latency(row.latency.quantile(0.99)),
        str(row.changes),
        span(round(unwell_s, 1)) if unwell_s else "-",
        row.state.replace("_", " "),
    )


def _unwell_s(row: Row) -> float:
    """How long it was in no state that gets a full share of the requests."""
    return sum(length_s for state, length_s in row.times_s.items() if state not in ("healthy", "slow_start"))


def _reasons(counts: dict[str, int]) -> str:
    """`1,204 (upstream_refused 1,180, 503 24)`, the most frequent first."""
    if not counts:
        return "-"
    ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    shown = [f"{reason} {count:,}" for reason, count in ranked[:_WORDS_MAX]]
    more = ["..."] if len(ranked) > _WORDS_MAX else []
    return f"{sum(counts.values()):,} ({', '.join(shown + more)})"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Numbers to the right, words to the left."""
    words = (0, 4, 10)
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEADS))]
    return [
        "  ".join(
            cell.ljust(width) if at in words else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _totals(tally: Tally) -> list[str]:
    ended = tally.ok + tally.failed
    whole = tally.all_latencies
    retries, hedges = sum(tally.retries), tally.hedges
    quantiles = [
        f"{name} {latency(whole.quantile(at))}" for name, at in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
    ]
    rows = [
        ("requests", f"{tally.requests:,}" + (f", {tally.under_way:,} of them under way" if tally.under_way else "")),
        ("went well", f"{tally.ok:,} ({share(tally.ok, ended)}), {sum(tally.rescued):,} of them after a retry"),
        ("errors", _reasons(tally.errors)),
        ("retries", f"{retries:,}, {hedges:,} of them hedges; {tally.refusals:,} refused by the budget"),
        ("latency", f"{', '.join(quantiles)}, as clients saw it"),
    ]
    return [f"{head:<9}  {text}" for head, text in rows]


def _changes(tally: Tally) -> list[str]:
    lines: list[str] = []
    for change in tally.changes[:CHANGES_SHOWN]:
        because = f": {change.cause}" if change.cause else ""
        lines.append(f"{clock(change.at_s)}  {change.name} is {change.state.replace('_', ' ')}{because}")
    if tally.changes_in_all > len(lines):
        lines.append(f"... and {tally.changes_in_all - len(lines):,} more changes of state")
    return lines


def as_json(tally: Tally, scenario: Scenario, program: str) -> dict[str, Any]:
    """The same for machines, and what the curves are made of. Times are seconds."""
    whole = tally.all_latencies
    return {
        "program": program,
        "scenario": scenario.name,
        "seed": scenario.seed,
        "duration_s": scenario.duration_s,
        "requests": tally.requests,
        "ok": tally.ok,
        "failed": tally.failed,
        "under_way": tally.under_way,
        "rescued": sum(tally.rescued),
        "retries": sum(tally.retries),
        "hedges": tally.hedges,
        "budget_refusals": tally.refusals,
        "errors": tally.errors,
        "latency_s": _quantiles(whole.quantile(0.5), whole.quantile(0.99), whole.quantile(0.999)),
        "endpoints": [
            {
                "name": row.name,
                "weight": row.weight,
                "requests": row.attempts,
                "retries": row.retries,
                "failures": row.failures,
                "latency_s": _quantiles(row.latency.quantile(0.5), row.latency.quantile(0.99)),
                "changes": row.changes,
                "times_s": {state: round(length_s, 6) for state, length_s in row.times_s.items()},
                "state": row.state,
                "slices": {
                    "requests": row.attempts_in,
                    "retries": row.retries_in,
                    "failures": row.failures_in,
                    "mean_latency_s": [
                        round(wait_s / answers, 6) if answers else None
                        for wait_s, answers in zip(row.waits_in, row.answers_in, strict=True)
                    ],
                },
            }
            for row in tally.rows.values()
        ],
        "changes": [
            {"at_s": round(each.at_s, 6), "endpoint": each.name, "before": each.before, "state": each.state,
             "cause": each.cause} for each in tally.changes
        ],
        "changes_in_all": tally.changes_in_all,
        "slices": {
            "length_s": tally.duration_s / len(tally.arrived),
            "requests": tally.arrived,
            "ok_at_once": tally.good,
            "rescued": tally.rescued,
            "failed": tally.bad,
            "retries": tally.retries,
            "p50_s": [round(each.quantile(0.5), 6) for each in tally.latency],
            "p99_s": [round(each.quantile(0.99), 6) for each in tally.latency],
        },
    }  # fmt: skip


def _quantiles(p50: float, p99: float, p999: float | None = None) -> dict[str, float]:
    named = {"p50": p50, "p99": p99} | ({} if p999 is None else {"p99.9": p999})
    return {name: round(value, 6) for name, value in named.items()}
