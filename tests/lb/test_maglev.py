"""The table: who gets how many places, and that it is made in slices. (The laws of all policies that hash are in
test_hashing.py.)"""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.lb import maglev
from coulee.lb.keys import by_target
from coulee.lb.maglev import SIZE_MAX, Maglev, fill, next_prime
from tests.lb.stub import Asks, FakeView, endpoints


def table_of(names: list[bytes], weights: list[int], size: int) -> list[int]:
    table = array("I", [0]) * size
    for _ in fill(table, list(zip(names, weights, strict=True))):
        pass
    return table.tolist()


def policy_of(view: FakeView) -> Maglev:
    assert isinstance(view.policy, Maglev)
    return view.policy


def test_the_example_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Table 1: three backends with (offset, skip) of (3, 4), (0, 2) and (3, 1), and then the second one gone."""
    numbers = {b"B0": (3, 4), b"B1": (0, 2), b"B2": (3, 1)}

    def number_of(name: bytes, purpose: bytes) -> int:
        offset, skip = numbers[name]
        return {b"offset": offset, b"skip": skip - 1}[purpose]

    monkeypatch.setattr(maglev, "number_of", number_of)
    assert table_of([b"B0", b"B1", b"B2"], [1, 1, 1], 7) == [1, 0, 1, 0, 2, 2, 0]
    assert table_of([b"B0", b"B2"], [1, 1], 7) == [0, 0, 0, 0, 1, 1, 1]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.sampled_from([11, 101, 997]))
def test_shares_are_right_within_a_place_or_two(weights: list[int], size: int) -> None:
    counts = Counter(table_of([b"%d" % at for at in range(len(weights))], weights, size))
    assert sum(counts.values()) == size
    for index, weight in enumerate(weights):
        fair = size * weight / sum(weights)
        # the first round is everybody's, and costs the heavy ones so much
        assert counts[index] >= max(1, int(fair - (len(weights) - 1) * weight / sum(weights)) - 1)
        assert counts[index] <= fair + 2


def test_a_small_weight_beside_a_large_one_has_a_place() -> None:
    counts = Counter(table_of([b"a", b"b", b"c"], [1, 65535, 1], 101))
    assert counts == {0: 1, 1: 99, 2: 1}


def test_turns_come_in_proportion_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one order for all, the table is the sequence of the turns."""
    monkeypatch.setattr(maglev, "number_of", lambda name, purpose: 0)
    assert table_of([b"a", b"b", b"c"], [1, 2, 3], 13) == [0, 1, 2, 2, 1, 2, 0, 1, 2, 2, 1, 2, 0]


def test_the_table_is_the_same_in_every_release() -> None:
    view = FakeView(endpoints(4, [1, 2, 1, 1]), Maglev(by_target(), size=31))
    assert "".join(str(index) for index in policy_of(view)._table) == "1131103310330212021102110221031"
    assert (
        "".join(str(chosen.index) for n in range(20) if (chosen := view.choose(Asks(str(n))))) == "12100203131001010002"
    )


def test_the_walk_is_through_the_whole_table_from_the_keys_place_on() -> None:
    view = FakeView(endpoints(5), Maglev(by_target(), size=13))
    table = policy_of(view)._table.tolist()
    places = set[int]()
    for key in range(100):
        walk = [endpoint.index for endpoint in policy_of(view).walk(b"%d" % key)]
        turned = [at for at in range(13) if table[at:] + table[:at] == walk]
        assert turned
        places.update(turned)
    assert places == set(range(13))


def test_more_endpoints_than_places_double_the_table() -> None:
    view = FakeView(endpoints(30), Maglev(by_target(), size=7))
    assert len(policy_of(view)._table) == 37  # after 17
    assert {*policy_of(view)._table} == {*range(30)}
    view.place(view.members[:7])
    assert len(policy_of(view)._table) == 7
    assert sorted(policy_of(view)._table) == [*range(7)]


def test_nobody_with_a_weight_is_nobody_to_choose() -> None:
    view = FakeView(endpoints(2, [0, 0]), Maglev(by_target(), size=7))
    assert view.choose() is None
    assert list(policy_of(view).walk(b"a")) == []


def test_the_old_table_is_in_use_until_the_new_one_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maglev, "SLICE_STEPS", 100)
    members = endpoints(8)
    view = FakeView(members[:4], Maglev(by_target(), size=307))
    asks = [Asks(str(number)) for number in range(100)]
    before = [view.choose(ask) for ask in asks]
    for _ in view.policy.arrange(members):
        assert [view.choose(ask) for ask in asks] == before
    assert [view.choose(ask) for ask in asks] != before


def test_what_is_not_run_to_its_end_has_changed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maglev, "SLICE_STEPS", 100)
    members = endpoints(8)
    view = FakeView(members[:4], Maglev(by_target(), size=307))
    before = policy_of(view)._table
    assert len(list(islice(view.policy.arrange(members), 5))) == 5
    assert policy_of(view)._table is before


def test_slices_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maglev, "SLICE_STEPS", 100)
    monkeypatch.setattr(maglev, "SLICE_ENDPOINTS", 10)
    view = FakeView(endpoints(1), Maglev(by_target(), size=1009))
    alone = sum(1 for _ in view.policy.arrange(endpoints(1)))
    assert 1009 * maglev.STEPS_PER_TURN // 100 // 2 <= alone <= 1009 * maglev.STEPS_PER_TURN // 100 * 2
    assert sum(1 for _ in view.policy.arrange(endpoints(101))) > alone + 20
    # whoever comes last looks at many places for one turn
    assert sum(1 for _ in fill(array("I", [0]) * 10007, [(b"%d" % at, 1) for at in range(9)])) > 10007 * 8 // 100 * 1.0


@pytest.mark.parametrize("size", [2, 0, -7, SIZE_MAX + 1])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="it must be a prime from 3 to 5000011, such as 65537"):
        Maglev(by_target(), size=size)


@pytest.mark.parametrize(("size", "prime"), [(4, 5), (65536, 65537), (9, 11), (25, 29), (121, 127), (5000009, 5000011)])
def test_a_size_that_is_no_prime_is_refused(size: int, prime: int) -> None:
    with pytest.raises(ValueError, match=rf"size is {size}, which is no prime; the next one is {prime}$"):
        Maglev(by_target(), size=size)


def test_next_prime() -> None:
    primes = [number for number in range(3, 400) if all(number % divisor for divisor in range(2, number))]
    for number in range(3, 397):
        assert next_prime(number) == next(prime for prime in primes if prime >= number)
    assert Maglev(by_target(), size=SIZE_MAX).size == SIZE_MAX
    assert Maglev(by_target(), size=3).size == 3
