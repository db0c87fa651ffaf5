"""The benchmarks of policies measure every one that is here, and say where one misses its bar. No figure is judged."""

from __future__ import annotations

import re

from tests.benchmarks import choices, rings
from tests.benchmarks.choices import Choice
from tests.benchmarks.rings import Building, Tables


def test_each_policy_is_timed() -> None:
    rows = choices.choices(20, rounds=1, requests=200)
    assert [row.policy for row in rows] == list(choices.known())
    assert set(choices.POLICIES) <= set(choices.known())
    assert all(-100 < row.microseconds < 10_000 for row in rows)
    assert choices.table(rows).count("\n") == len(rows)


def test_what_a_choice_may_take_is_beside_what_it_takes() -> None:
    rows = [Choice("ketama", 3.0), Choice("maglev", 3.01), Choice("random", 90.0)]
    assert choices.table(rows).splitlines() == [
        "CPU us   a choice   at most",
        "ketama   3.00       3",
        "maglev   3.01       3, missed",
        "random   90.00",
    ]
    assert set(choices.BARS_US) < set(choices.known())


def test_the_tables_of_each_policy_are_timed_slice_by_slice_and_weighed() -> None:
    rows = rings.tables(300, rounds=1)
    assert [row.policy for row in rows] == list(choices.known())
    found = {row.policy: row for row in rows}
    for row in rows:
        assert 0 <= row.anew.longest_s <= row.anew.total_s
        assert 0 < row.kept_kib < row.peak_kib
    ketama = found["ketama"]
    assert ketama.anew.slices >= 9, "there are 48,000 points, and no slice has more than some 5,000"
    assert 0 < ketama.anew.longest_s < ketama.anew.total_s
    assert ketama.replaced.slices < ketama.anew.slices / 2, "what stays costs little"
    assert found["round robin"].anew.slices == 1
    assert ketama.kept_kib > 48_000 * 8 / 1024
    assert rings.table(rows).count("\n") == len(rows) + 1
    assert set(rings.as_json(rows)) == set(choices.known())


def test_what_a_ring_may_take_is_beside_what_it_takes() -> None:
    def row(policy: str, total_s: float) -> Tables:
        return Tables(policy, Building(total_s, 0.002, 9), Building(0.1, 0.001, 1), 0.0001, 1024, 4096)

    rows = [row("ketama", 0.9), row("maglev", 1.1), row("random", 1.1)]
    rest = ["2.0", "100.0", "1.0", "0.1", "1,024", "4,096"]
    assert [re.split(" {3,}", line) for line in rings.table(rows).splitlines()[2:]] == [
        ["ketama", "900.0 (at most 1,000)", *rest],
        ["maglev", "1,100.0 (at most 1,000, missed)", *rest],
        ["random", "1,100.0", *rest],
    ]
    assert set(rings.BARS_S) < set(choices.known())
