"""What the tables of a policy cost, among many endpoints: to build them anew, to replace one endpoint, and to pass over
one that is closed; in CPU time, in the longest time that exchanges wait meanwhile, and in memory.

Rules: each endpoint weighs 1, so that ten thousand have 1.6 million points on nginx's ring. Exchanges go on between the
slices of `arrange`, and so the longest slice is what one of them may wait; what follows a change of health is done on
the path of the next exchange. Times are CPU time, medians of rounds. Memory is what tracemalloc counts, in a run of its
own: what the tables hold, and the most that is held while one endpoint is replaced, the old ones included.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import NamedTuple

from coulee.lb.endpoint import Endpoint
from coulee.lb.policy import Policy
from tests.benchmarks.choices import known
from tests.benchmarks.report import aligned
from tests.lb.stub import Asks, FakeView, endpoints

COUNT = 10_000
ROUNDS = 3
BARS_S = {"ketama": 1.0, "maglev": 1.0}
"""What building a ring anew may take, at `COUNT` endpoints (the project's bar)."""


class Building(NamedTuple):
    """CPU seconds, as `arrange` took them."""

    total_s: float
    longest_s: float
    """... of which its longest slice."""
    slices: int


class Tables(NamedTuple):
    """A row of the table."""

    policy: str
    anew: Building
    replaced: Building
    """One endpoint goes and another comes."""
    closed_s: float
    """One endpoint is closed, and the next exchange chooses."""
    kept_kib: float
    peak_kib: float


def tables(count: int = COUNT, rounds: int = ROUNDS) -> list[Tables]:
    """What each policy takes for so many endpoints."""
    return [measure(name, make, count, rounds) for name, make in known().items()]


def measure(name: str, make: Callable[[], Policy], count: int, rounds: int) -> Tables:
    """One policy."""
    anew: list[Building] = []
    replaced: list[Building] = []
    closed_s: list[float] = []
    for _ in range(rounds):
        members, others = two_sets(count)
        view = FakeView([], make())
        anew.append(place(view, members))
        replaced.append(place(view, others))
        closed_s.append(close_one(view))
    return Tables(name, middle(anew), middle(replaced), statistics.median(closed_s), *memory(make, count))


def two_sets(count: int) -> tuple[list[Endpoint], list[Endpoint]]:
    """So many endpoints, and the same but for one, open and ready."""
    members = endpoints(count + 1)
    for endpoint in members:
        endpoint.usable = endpoint.open = True
        endpoint.effective_weight = 1.0
    return members[:-1], members[1:]


def place(view: FakeView, members: list[Endpoint]) -> Building:
    """Let these be the endpoints, up to the first choice; timed is what `arrange` takes, slice by slice."""
    clock = time.process_time
    slices = view.policy.arrange(members)
    total_s = longest_s = 0.0
    count = 0
    over = False
    while not over:
        count += 1
        began = clock()
        over = next(slices, view) is view
        taken_s = clock() - began
        total_s += taken_s
        longest_s = max(longest_s, taken_s)
    view.members = view.usable = members
    hear_and_choose(view)
    return Building(total_s, longest_s, count)


def hear_and_choose(view: FakeView) -> None:
    """Who is usable has changed, and an exchange comes."""
    view.policy.changed()
    assert view.policy.choose(Asks(), ()) is not None


def close_one(view: FakeView) -> float:
    """CPU seconds of what follows when an endpoint is closed."""
    closed = view.members[len(view.members) // 2]
    closed.usable = closed.open = False
    view.usable = [endpoint for endpoint in view.members if endpoint is not closed]
    began = time.process_time()
    hear_and_choose(view)
    return time.process_time() - began


def middle(built: Sequence[Building]) -> Building:
    """Of several rounds."""
    totals, longest, slices = zip(*built, strict=True)
    return Building(statistics.median(totals), statistics.median(longest), statistics.median_low(slices))


def memory(make: Callable[[], Policy], count: int) -> tuple[float, float]:
    """KiB that the tables hold, and the most that is held while one endpoint is replaced."""
    members, others = two_sets(count)
    view = FakeView([], make())
    tracemalloc.start()
    try:
        place(view, members)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        place(view, others)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return kept / 1024, peak / 1024


def table(rows: Sequence[Tables]) -> str:
    """One line for each policy."""
    heads = [["CPU ms", "anew", "", "one replaced", "", "one closed", "KiB", ""]]
    heads.append(["", "all", "longest slice", "all", "longest slice", "all", "kept", "at most"])
    lines = [
        [
            row.policy,
            f"{row.anew.total_s * 1e3:,.1f}" + bar(row),
            *(f"{each * 1e3:,.1f}" for each in (row.anew.longest_s, *row.replaced[:2], row.closed_s)),
            f"{row.kept_kib:,.0f}",
            f"{row.peak_kib:,.0f}",
        ]
        for row in rows
    ]
    return aligned([*heads, *lines])


def bar(row: Tables) -> str:
    """The bar, where there is one."""
    most_s = BARS_S.get(row.policy)
    if most_s is None:
        return ""
    return f" (at most {most_s * 1e3:,.0f}{'' if row.anew.total_s < most_s else ', missed'})"


def as_json(rows: Sequence[Tables]) -> dict[str, object]:
    """CPU seconds, and KiB."""
    return {
        row.policy: {
            "anew_s": row.anew.total_s,
            "anew_longest_slice_s": row.anew.longest_s,
            "anew_slices": row.anew.slices,
            "replaced_s": row.replaced.total_s,
            "replaced_longest_slice_s": row.replaced.longest_s,
            "replaced_slices": row.replaced.slices,
            "closed_s": row.closed_s,
            "kept_kib": row.kept_kib,
            "peak_kib": row.peak_kib,
        }
        for row in rows
    }


if __name__ == "__main__":
    print(table(tables()))
