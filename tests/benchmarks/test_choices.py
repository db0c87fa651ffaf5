"""The benchmark of choices measures every policy that is here. No figure is judged."""

from __future__ import annotations

from tests.benchmarks import choices


def test_each_policy_is_timed() -> None:
    rows = choices.choices(20, rounds=1, requests=200)
    assert [row.policy for row in rows] == list(choices.known())
    assert set(choices.POLICIES) <= set(choices.known())
    assert all(-100 < row.microseconds < 10_000 for row in rows)
    assert choices.table(rows).count("\n") == len(rows)
