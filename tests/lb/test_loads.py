"""Policies by load: the least loaded is chosen, ties go in turn, slow ones are avoided but not for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from heapq import heappop, heappush
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.peer import PeerLimits
from coulee.lb.endpoint import Endpoint
from coulee.lb.loads import LATENCY_MIN_S, PENALTY_S, STALE_MAX, LeastRequests, PeakEwma, TwoChoices, load_of
from coulee.lb.policy import Policy
from coulee.lb.turns import RandomChoice
from tests.lb.laws import Story, cluster, letters, picks, play, stories, weights
from tests.lb.stub import Asks, FakeView, endpoints


def least(*each: int) -> FakeView:
    return FakeView(endpoints(len(each), each), LeastRequests())


def busy(view: FakeView, *in_flight: int) -> None:
    """So many attempts at each endpoint, in addition."""
    for endpoint, number in zip(view.members, in_flight, strict=True):
        for _ in range(number):
            view.begin(endpoint)


def steady(policy: Policy, each: Sequence[int], *, at_once: int, count: int, seconds: Sequence[float]) -> Counter[str]:
    """How many requests each endpoint gets when so many are always in flight, each for the seconds that are its
    endpoint's; those of the first half are not counted."""
    view = FakeView(endpoints(len(each), each), policy, seed=7)
    ends: list[tuple[float, int, Endpoint]] = []
    counts: Counter[str] = Counter()
    for number in range(count):
        if number >= at_once:
            view.now, _, endpoint = heappop(ends)
            view.end(endpoint)
            view.policy.answered(endpoint, seconds[endpoint.index])
        chosen = view.choose()
        assert chosen is not None
        view.begin(chosen)
        if number >= count // 2:
            counts[chosen.name] += 1
        heappush(ends, (view.now + seconds[chosen.index], number, chosen))
    return counts


def share(counts: Counter[str], name: str) -> float:
    return counts[name] / counts.total()


# -- least requests


@given(each=weights, story=stories)
def test_nobody_open_and_untried_has_less_load(each: list[int], story: Story) -> None:
    view = cluster(LeastRequests(), each)
    for exchange, chosen in play(view, story):
        able = [load_of(each) for each in view.members if each.open and each.name not in exchange.tried]
        assert (load_of(chosen) if chosen else None) == min(able, default=None)


def test_the_load_is_what_is_in_flight_and_the_next_by_weight() -> None:
    view = least(4, 2, 1)
    assert load_of(view.members[2]) == 0
    busy(view, 3, 2, 1)
    assert [load_of(endpoint) for endpoint in view.members] == [1, 1.5, 2]
    assert view.choose() is view.members[0]
    busy(view, 3, 0, 0)
    assert view.choose() is view.members[1]
    busy(view, 0, 2, 0)
    assert [load_of(endpoint) for endpoint in view.members] == [1.75, 2.5, 2]
    busy(view, 2, 0, 0)
    assert view.choose() is view.members[2]


def test_an_idle_endpoint_is_chosen_before_a_busy_one_whatever_it_weighs() -> None:
    view = least(1, 1000)
    busy(view, 0, 1)
    assert view.choose() is view.members[0]


@pytest.mark.parametrize(
    ("each", "order"), [((1, 1, 1), "abcabcabc"), ((2, 1), "abaaba"), ((5, 1, 1), "abcaaaaabcaaaa"), ((1,), "aaa")]
)
def test_an_idle_cluster_is_served_in_turn_by_weight(each: tuple[int, ...], order: str) -> None:
    assert letters(least(*each), len(order)) == order


def test_equal_loads_are_served_in_turn() -> None:
    view = least(1, 1, 1)
    for begun in ("abc", "abc", "abc"):
        for name in begun:
            chosen = view.choose()
            assert chosen is view.members["abc".index(name)]
            view.begin(chosen)


@given(each=weights, before=st.integers(0, 60))
def test_an_idle_cluster_starves_nobody(each: list[int], before: int) -> None:
    view = least(*each)
    picks(view, before)
    assert set(picks(view, sum(each) + len(each))) == set(range(len(each)))


def test_who_comes_back_has_nothing_to_catch_up_with() -> None:
    view = least(1, 1, 1)
    view.close(view.members[0])
    picks(view, 50)
    view.reopen(view.members[0])
    order = picks(view, 30)
    assert abs(order.count(0) - 10) <= 1
    assert 0 in order[:3]


def test_who_joins_has_nothing_to_catch_up_with() -> None:
    view = least(1, 1)
    picks(view, 50)
    view.place([*view.members, endpoints(3)[2]])
    assert abs(picks(view, 30).count(2) - 10) <= 1


def test_short_absences_give_no_more_turns() -> None:
    view = least(1, 1, 1, 1)
    counts: Counter[int] = Counter()
    for _ in range(100):
        counts.update(picks(view, 1))
        view.close(view.members[0])
        view.reopen(view.members[0])
    assert abs(counts[0] - 25) <= 1


def test_what_ends_at_one_that_is_closed_does_not_bring_it_back() -> None:
    view = least(1, 1)
    busy(view, 1, 4)
    assert view.choose() is view.members[0]
    view.close(view.members[1])
    for _ in range(4):
        view.end(view.members[1])
    assert letters(view, 2) == "aa"
    view.close(view.members[0])
    view.end(view.members[0])
    assert view.choose() is None
    view.reopen(view.members[1])
    assert letters(view, 2) == "bb"


def test_a_change_resets_no_turn() -> None:
    view = least(1, 1, 1, 1)
    assert letters(view, 6) == "abcdab"
    view.place(view.members[1:])
    assert letters(view, 6) == "cdbcdb"


@pytest.mark.parametrize("each", [(1, 1, 1), (3, 2, 1), (10, 1, 1), (7, 5)])
def test_where_all_take_as_long_weights_are_met(each: tuple[int, ...]) -> None:
    counts = steady(LeastRequests(), each, at_once=120, count=6000, seconds=[1.0] * len(each))
    for number, weight in enumerate(each):
        assert share(counts, f"a{number}") == pytest.approx(weight / sum(each), rel=0.05)


def test_who_is_slow_gets_less() -> None:
    counts = steady(LeastRequests(), [1, 1], at_once=40, count=4000, seconds=[1.0, 3.0])
    assert share(counts, "a0") == pytest.approx(0.75, abs=0.02)


def test_who_was_tried_is_passed_over_and_stays_where_it_is() -> None:
    view = least(1, 1, 1)
    busy(view, 0, 1, 1)
    assert view.choose(Asks(tried=["a0"])) is view.members[1]
    assert view.choose(Asks(tried=["a0", "a1"])) is view.members[2]
    assert view.choose(Asks(tried=["a0", "a1", "a2"])) is None
    assert view.choose() is view.members[0]


def test_who_is_full_is_passed_over_and_back_when_an_attempt_ends() -> None:
    view = least(100, 1)
    view.members[0].limits = PeerLimits(requests_max=2)
    busy(view, 2, 5)
    assert view.choose() is view.members[1]
    view.end(view.members[0])
    assert view.choose() is view.members[0]


def test_one_that_opened_without_a_word_is_found_when_nobody_else_is_there() -> None:
    view = least(1, 1)
    view.members[0].open = False
    assert letters(view, 3) == "bbb"
    view.members[0].open = True
    assert view.choose(Asks(tried=["a1"])) is view.members[0]
    assert 3 <= letters(view, 6).count("a") <= 4


def test_who_is_not_here_counts_for_nothing() -> None:
    view = least(1, 1)
    stranger = endpoints(3)[2]
    view.policy.began(stranger)
    view.policy.ended(stranger)
    assert letters(view, 4) == "abab"


@pytest.mark.parametrize("each", [(1,), (1, 1), (1, 2, 3, 4, 5)])
def test_the_heap_has_a_bound(each: tuple[int, ...]) -> None:
    view = least(*each)
    policy = view.policy
    assert isinstance(policy, LeastRequests)
    going_on: list[Endpoint] = []
    for step in range(1000):
        if step % 300 < 150 or step % 2:
            chosen = view.choose()
            assert chosen is not None
            view.begin(chosen)
            going_on.append(chosen)
        else:
            view.end(going_on.pop(step % len(going_on)))
        assert len(policy._heap) <= (STALE_MAX + 1) * len(each)


def test_stale_entries_go_when_they_come_up() -> None:
    view = least(1, 1)
    policy = view.policy
    assert isinstance(policy, LeastRequests)
    for _ in range(6):
        chosen = view.choose()
        assert chosen is not None
        view.begin(chosen)
    assert view.choose() is not None
    view.end(view.members[0])
    view.end(view.members[1])
    assert len(policy._heap) == 4
    busy(view, 3, 3)
    assert view.choose() is not None
    assert len(policy._heap) == 2


# -- two choices


@given(each=weights.filter(lambda each: len(each) > 1), story=stories, seed=st.integers(0, 1000))
def test_of_two_the_less_loaded_is_chosen(each: list[int], story: Story, seed: int) -> None:
    view = FakeView(endpoints(2, each[:2]), TwoChoices(), seed=seed)
    for exchange, chosen in play(view, story):
        able = [load_of(each) for each in view.members if each.open and each.name not in exchange.tried]
        assert (load_of(chosen) if chosen else None) == min(able, default=None)


def idle_counts(policy: Policy, each: Sequence[int], count: int) -> Counter[int]:
    return Counter(picks(FakeView(endpoints(len(each), each), policy, seed=5), count))


@pytest.mark.parametrize("each", [(1, 1), (2, 1), (1, 2, 3, 10)])
def test_an_idle_cluster_is_served_at_random_by_weight(each: tuple[int, ...]) -> None:
    counts = idle_counts(TwoChoices(), each, 4000)
    for number, weight in enumerate(each):
        assert counts[number] / 4000 == pytest.approx(weight / sum(each), abs=0.035)


@pytest.mark.parametrize("each", [(1, 1, 1), (3, 2, 1), (7, 5)])
def test_two_choices_meet_the_weights_where_all_take_as_long(each: tuple[int, ...]) -> None:
    counts = steady(TwoChoices(), each, at_once=120, count=6000, seconds=[1.0] * len(each))
    for number, weight in enumerate(each):
        assert share(counts, f"a{number}") == pytest.approx(weight / sum(each), rel=0.15)


def most_in_flight(policy: Policy) -> int:
    """Of 100 endpoints, with 100 requests that do not end."""
    view = FakeView(endpoints(100), policy, seed=3)
    for _ in range(100):
        chosen = view.choose()
        assert chosen is not None
        view.begin(chosen)
    return max(endpoint.in_flight for endpoint in view.members)


def test_two_choices_are_much_better_than_one() -> None:
    # In theory about ln n / ln ln n against ln ln n / ln 2.
    assert most_in_flight(LeastRequests()) == 1
    assert most_in_flight(TwoChoices()) <= 3
    assert most_in_flight(RandomChoice()) >= 4


@pytest.mark.parametrize("policy", [TwoChoices(), PeakEwma()])
def test_where_there_is_one_it_is_chosen(policy: Policy) -> None:
    view = FakeView(endpoints(1), policy)
    assert letters(view, 3) == "aaa"
    view = FakeView(endpoints(3), policy)
    assert view.choose(Asks(tried=["a0", "a2"])) is view.members[1]
    assert view.choose(Asks(tried=["a0", "a1", "a2"])) is None
    view = FakeView(endpoints(300), policy)
    for endpoint in view.members[:299]:
        endpoint.open = False
    assert all(view.choose() is view.members[299] for _ in range(20))
    view.close(view.members[299])
    assert view.choose() is None


# -- peak EWMA


def ewma(count: int, decay_s: float = 10.0, each: Sequence[int] | None = None) -> tuple[FakeView, PeakEwma]:
    view = FakeView(endpoints(count, each), PeakEwma(decay_s), seed=6)
    assert isinstance(view.policy, PeakEwma)
    return view, view.policy


def test_a_worse_latency_counts_at_once_and_a_better_one_slowly() -> None:
    view, policy = ewma(1, 20.0)
    (endpoint,) = view.members
    policy.answered(endpoint, 0.1)
    assert policy.latency_s(endpoint) == 0.1
    policy.answered(endpoint, 0.5)
    assert policy.latency_s(endpoint) == 0.5
    policy.answered(endpoint, 0.1)
    assert policy.latency_s(endpoint) == 0.5
    view.now = 20.0
    policy.answered(endpoint, 0.1)
    assert policy.latency_s(endpoint) == pytest.approx(0.1 + 0.4 * exp(-1))


@given(decay_s=st.floats(0.1, 100), waits=st.floats(0, 1000), latency_s=st.floats(0, 10))
def test_a_latency_fades_with_its_time_constant(decay_s: float, waits: float, latency_s: float) -> None:
    view, policy = ewma(1, decay_s)
    view.now = 5.0
    policy.answered(view.members[0], latency_s)
    view.now = 5.0 + waits
    faded = latency_s * exp(-waits / decay_s)
    assert policy.latency_s(view.members[0]) == pytest.approx(max(faded, LATENCY_MIN_S), rel=1e-6)


def test_the_faster_of_two_is_chosen() -> None:
    view, policy = ewma(2)
    policy.answered(view.members[0], 0.010)
    policy.answered(view.members[1], 0.011)
    assert all(view.choose() is view.members[0] for _ in range(20))
    view.begin(view.members[0])
    assert all(view.choose() is view.members[1] for _ in range(20))


def test_between_idle_ones_latency_decides_alone_and_else_also_load_and_weight() -> None:
    view, policy = ewma(2, each=[1, 4])
    policy.answered(view.members[0], 0.010)
    policy.answered(view.members[1], 0.020)
    assert view.choose() is view.members[0]
    busy(view, 1, 0)
    assert view.choose() is view.members[1]  # 20 ms against 5
    busy(view, 0, 14)
    assert view.choose() is view.members[0]  # 20 ms against 75


def test_an_endpoint_without_an_answer_is_asked_one_thing_at_a_time() -> None:
    view, policy = ewma(2)
    policy.answered(view.members[0], 0.010)
    assert policy.latency_s(view.members[1]) == LATENCY_MIN_S
    assert view.choose() is view.members[1]
    view.begin(view.members[1])
    assert policy.latency_s(view.members[1]) == PENALTY_S
    busy(view, 50, 0)
    assert view.choose() is view.members[0]
    policy.answered(view.members[1], 0.010)
    assert view.choose() is view.members[1]


def test_who_was_slow_is_tried_again() -> None:
    view, policy = ewma(2)
    policy.answered(view.members[1], 2.0)
    chosen_at: dict[int, list[float]] = {0: [], 1: []}
    for second in range(200):
        view.now = float(second)
        chosen = view.choose()
        assert chosen is not None
        chosen_at[chosen.index].append(view.now)
        view.begin(chosen)
        policy.answered(chosen, [0.01, 2.0][chosen.index])
        view.end(chosen)
    assert len(chosen_at[1]) == 3  # every 53 seconds, since exp(-53 / 10) is 0.01 / 2
    assert chosen_at[1][0] == pytest.approx(53, abs=2)


def test_who_is_slow_gets_less_than_by_load_alone() -> None:
    seconds = [1.0] * 9 + [10.0]
    of = {
        policy: share(steady(policy, [1] * 10, at_once=60, count=4000, seconds=seconds), "a9")
        for policy in (RandomChoice(), TwoChoices(), PeakEwma())
    }
    random, two, peak = of.values()
    assert random > 2 * two
    assert two > 1.5 * peak > 0


@pytest.mark.parametrize("each", [(1, 1, 1), (3, 2, 1)])
def test_peak_ewma_meets_the_weights_where_all_are_busy_and_take_as_long(each: tuple[int, ...]) -> None:
    counts = steady(PeakEwma(), each, at_once=120, count=6000, seconds=[1.0] * len(each))
    for number, weight in enumerate(each):
        assert share(counts, f"a{number}") == pytest.approx(weight / sum(each), rel=0.15)


def test_who_leaves_is_forgotten_and_who_closes_is_not() -> None:
    view, policy = ewma(2)
    first, other = view.members
    policy.answered(first, 0.5)
    policy.answered(other, 0.5)
    view.close(first)
    assert policy.latency_s(first) == 0.5
    view.place([first])
    assert policy.latency_s(first) == 0.5
    assert policy.latency_s(other) == LATENCY_MIN_S


@pytest.mark.parametrize("decay_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_constant_that_is_none_is_refused(decay_s: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^decay_s is {decay_s}; it must be a number of seconds above 0, such as 10$"
    ):
        PeakEwma(decay_s)


# -- all


@pytest.mark.parametrize("policy", [LeastRequests(), TwoChoices(), PeakEwma()], ids=["least", "two", "peak ewma"])
@given(each=weights, story=stories)
def test_there_is_a_choice_where_there_can_be_and_equal_seeds_choose_alike(
    policy: Policy, each: list[int], story: Story
) -> None:
    chosen = [[each and each.name for _, each in play(cluster(policy, each, seed=4), story)] for _ in range(2)]
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("policy", [LeastRequests(), TwoChoices(), PeakEwma()], ids=["least", "two", "peak ewma"])
def test_nobody_starves(policy: Policy) -> None:
    counts = steady(policy, [9, 1, 1, 5], at_once=3, count=4000, seconds=[0.1, 0.1, 0.3, 0.2])
    assert min(counts[f"a{number}"] for number in range(4)) >= 10
