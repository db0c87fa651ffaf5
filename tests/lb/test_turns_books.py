"""What round robin keeps is right after whatever happens: queues, heaps and sums."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given

from coulee.core.peer import PeerLimits
from coulee.lb.turns import CYCLE, UNITS, RoundRobin
from tests.lb.laws import Story, cluster, letters, picks, play, stories, weights
from tests.lb.stub import Asks, FakeView, endpoints


def robin(*each: int) -> FakeView:
    """A cluster of endpoints of these weights, served in turn."""
    return FakeView(endpoints(len(each), each), RoundRobin())


def check(policy: RoundRobin) -> None:
    """Its books are right."""
    if policy._stale:
        policy._place_queues()
    queues = [queue for queue in policy._queues.values() if queue.turns]
    heaps = [*((False, *entry) for entry in policy._waiting), *((True, *entry) for entry in policy._ready)]
    assert sorted(queue.units for *_, queue in heaps) == sorted(queue.units for queue in queues)
    for ready, key, step, queue in heaps:
        assert step == queue.step
        assert key == queue.turns[0].start + (step if ready else 0)
    for queue in queues:
        starts = [turn.start for turn in queue.turns]
        assert starts == sorted(starts)
        assert starts[-1] <= starts[0] + 3 * queue.step
    standing = [turn for queue in queues for turn in queue.turns]
    assert policy._whole == sum(turn.units for turn in standing)
    assert policy._starts == sum(turn.units * turn.start for turn in standing)
    assert all(turn.units == queue.units for queue in queues for turn in queue.turns)
    for turn in policy._turns.values():
        assert not turn.away or abs(turn.start) * turn.units <= CYCLE
    here = [turn.endpoint.index for turn in policy._turns.values() if not turn.away]
    assert here == sorted(turn.endpoint.index for turn in standing)


def test_the_books_are_right_when_one_that_was_full_is_back() -> None:
    view = robin(1, 1, 1)
    assert isinstance(view.policy, RoundRobin)
    first = view.members[0]
    first.limits = PeerLimits(requests_max=1)
    view.begin(first)
    assert letters(view, 2) == "bc"
    assert view.policy._turns[first].away
    view.end(first)
    assert not view.policy._turns[first].away
    check(view.policy)


@pytest.mark.parametrize("count", range(1, 9))
def test_the_books_are_right_when_one_is_back_whose_turn_would_be_before_that_of_the_first(count: int) -> None:
    view = robin(1, 1, 4)
    assert isinstance(view.policy, RoundRobin)
    first = view.members[0]
    first.limits = PeerLimits(requests_max=1)
    view.begin(first)
    picks(view, count)
    view.end(first)
    check(view.policy)


def test_the_books_are_right_when_somebody_was_passed_over() -> None:
    view = robin(1, 1, 1)
    assert isinstance(view.policy, RoundRobin)
    assert letters(view, 1) == "a"
    assert view.choose(Asks(tried=["a1", "a2"])) is view.members[0]
    check(view.policy)
    assert letters(view, 5) == "bcabc"


def test_what_ends_at_one_that_is_closed_does_not_bring_it_back() -> None:
    view = robin(1, 1)
    assert isinstance(view.policy, RoundRobin)
    first = view.members[0]
    view.begin(first)
    view.close(first)
    view.end(first)
    assert view.policy._turns[first].away


@pytest.mark.parametrize("how", ["full", "closed"])
def test_who_is_back_has_as_much_of_its_turn_left_as_when_it_went(how: str) -> None:
    view = robin(3, 2, 1)
    policy = view.policy
    assert isinstance(policy, RoundRobin)
    last = view.members[2]
    last.limits = PeerLimits(requests_max=1)
    assert letters(view, 5) == "ababa"  # and c
    view.begin(last)
    if how == "closed":
        view.close(last)
    assert "c" not in letters(view, 6)
    left = policy._turns[last].start
    assert left == -CYCLE // UNITS * 5 // 6
    view.end(last)
    view.reopen(last)
    assert abs(policy._turns[last].start - policy._virtual_time() - left) <= 1


@given(each=weights, story=stories)
def test_the_books_are_right_whatever_happens(each: list[int], story: Story) -> None:
    view = cluster(RoundRobin(), each)
    assert isinstance(view.policy, RoundRobin)
    for _ in play(view, story):
        check(view.policy)
    check(view.policy)
    assert list(view.policy._turns) == view.members


def test_the_books_are_right_also_where_light_and_heavy_ones_come_and_go_all_the_time() -> None:
    rng = Random(64)
    for count in range(2, 12):
        view = robin(*rng.choices([1, 5, 100, 1000], k=count))
        assert isinstance(view.policy, RoundRobin)
        for _ in range(150):
            view.choose()
            some = view.policy._last if rng.random() < 0.5 else None
            some = some or rng.choice(view.members)
            rng.choice([view.close, view.reopen])(some)
            check(view.policy)
