"""Policies by turn: who is next, that nobody gets more or less than its share, and that nothing resets a turn."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.peer import PeerLimits
from coulee.lb.endpoint import Endpoint
from coulee.lb.turns import DRAWS_MAX, UNITS, Lots, RandomChoice, RoundRobin
from tests.lb.laws import Story, cluster, letters, picks, play, stories, weights
from tests.lb.stub import Asks, FakeView, endpoints


def robin(*each: int) -> FakeView:
    """A cluster of endpoints of these weights, served in turn."""
    return FakeView(endpoints(len(each), each), RoundRobin())


# -- round robin: the order


@pytest.mark.parametrize(
    ("each", "order"),
    [
        ((1,), "aaaa"),
        ((1, 1, 1), "abcabcabc"),
        ((7, 7, 7, 7), "abcdabcd"),
        ((2, 1), "abaaba"),
        ((2, 1, 1), "abacabac"),
        ((1, 1, 2), "cacbcacb"),
        ((5, 1, 1), "abaacaaabaacaa"),
        ((3, 2, 1), "ababacababac"),
        ((2, 2, 1, 1), "abcabdabcabd"),
        ((4, 4, 1), "abcababababcababab"),
    ],
)
def test_the_order_of_turns(each: tuple[int, ...], order: str) -> None:
    assert letters(robin(*each), len(order)) == order


@given(each=weights, before=st.integers(0, 80))
def test_in_any_cycle_each_gets_its_weight_within_one_request(each: list[int], before: int) -> None:
    view = robin(*each)
    picks(view, before)
    counts = Counter(picks(view, sum(each)))
    for number, weight in enumerate(each):
        assert abs(counts[number] - weight) <= 1


@given(each=weights)
def test_at_no_time_is_anybody_more_than_one_request_off_its_share(each: list[int]) -> None:
    whole = sum(each)
    counts: Counter[int] = Counter()
    for count, number in enumerate(picks(robin(*each), 2 * whole), start=1):
        counts[number] += 1
        for other, weight in enumerate(each):
            assert abs(counts[other] * whole - count * weight) <= whole


@given(each=weights.filter(lambda each: max(each) * 2 <= sum(each)))
def test_nobody_is_twice_in_a_row_who_has_at_most_half_of_the_whole(each: list[int]) -> None:
    order = picks(robin(*each), 3 * sum(each))
    assert all(one != other for one, other in pairwise(order))


def test_no_error_adds_up() -> None:
    each = (3, 19, 7)
    assert Counter(picks(robin(*each), 29 * 3000)) == {number: weight * 3000 for number, weight in enumerate(each)}


def test_of_many_with_many_weights_each_gets_its_own() -> None:
    each = Random(5).sample(range(1, 200), 150)
    counts = Counter(picks(robin(*each), sum(each)))
    assert all(abs(counts[number] - weight) <= 1 for number, weight in enumerate(each))


# -- round robin: changes


@given(each=weights, changes=st.lists(st.booleans(), min_size=40, max_size=40))
def test_to_be_told_of_a_change_changes_no_turn(each: list[int], changes: list[bool]) -> None:
    view = robin(*each)
    order: list[int] = []
    for changed in changes:
        if changed:
            view.place(view.members)
        order += picks(view, 1)
    assert order == picks(robin(*each), len(changes))


def test_an_endpoint_that_closes_and_reopens_moves_nobody_else() -> None:
    view = robin(1, 1, 1, 1)
    assert letters(view, 6) == "abcdab"
    view.close(view.members[2])
    assert letters(view, 5) == "dabda"
    view.reopen(view.members[2])
    assert letters(view, 8) == "bdcabdca"


def test_an_endpoint_that_joins_or_leaves_moves_nobody_else() -> None:
    view = robin(1, 1, 1)
    assert letters(view, 4) == "abca"
    joins = endpoints(4)[3]
    view.place([*view.members, joins])
    assert letters(view, 8) == "bcdabcda"
    view.place(view.members[1:])
    assert letters(view, 6) == "bcdbcd"


def test_a_weight_that_changes_moves_nobody_else() -> None:
    view = robin(1, 1, 1, 1)
    assert letters(view, 6) == "abcdab"
    view.members[3].weight = 3
    view.place(view.members)
    order = letters(view, 12)
    assert order.replace("d", "") == "cabcab"
    assert order.count("d") == 6
    assert "dd" not in order


@given(each=weights.filter(lambda each: len(each) > 1), away=st.integers(0, 100), after=st.integers(1, 100))
def test_who_comes_back_has_nothing_to_catch_up_with(each: list[int], away: int, after: int) -> None:
    view = robin(*each)
    picks(view, 3)
    view.close(view.members[0])
    picks(view, away)
    view.reopen(view.members[0])
    counts = Counter(picks(view, after))
    assert abs(counts[0] * sum(each) - after * each[0]) < 2 * sum(each)


@given(each=weights.filter(lambda each: len(each) > 1), full=st.integers(1, 150), after=st.integers(1, 60))
def test_who_was_full_has_nothing_to_catch_up_with_either(each: list[int], full: int, after: int) -> None:
    view = robin(*each)
    first = view.members[0]
    first.limits = PeerLimits(requests_max=1)
    view.begin(first)
    assert 0 not in picks(view, full)
    view.end(first)
    counts = Counter(picks(view, after))
    assert abs(counts[0] * sum(each) - after * each[0]) < 2 * sum(each)


@given(each=weights)
def test_the_others_share_what_is_left_by_one_who_is_full(each: list[int]) -> None:
    view = robin(10, *each)
    view.members[0].limits = PeerLimits(requests_max=1)
    view.begin(view.members[0])
    whole = sum(each)
    counts: Counter[int] = Counter()
    for count, number in enumerate(picks(view, 2 * whole), start=1):
        counts[number - 1] += 1
        for other, weight in enumerate(each):
            assert abs(counts[other] * whole - count * weight) <= whole


def test_who_was_full_goes_between_those_of_its_weight() -> None:
    view = robin(1, 1, 1, 1)
    first = view.members[0]
    first.limits = PeerLimits(requests_max=1)
    view.begin(first)
    assert letters(view, 7) == "bcdbcdb"
    view.end(first)
    assert letters(view, 9) == "cdabcdabc"


def test_short_absences_give_no_more_turns() -> None:
    view = robin(1, 3, 3, 3)
    counts: Counter[int] = Counter()
    for _ in range(100):
        counts.update(picks(view, 1))
        view.close(view.members[0])
        view.reopen(view.members[0])
    assert 9 <= counts[0] <= 11


def test_of_a_turn_that_is_left_a_new_weight_changes_the_rest() -> None:
    view = robin(1, 1, 1, 1, 1, 1)
    assert letters(view, 2) == "ab"
    view.members[0].effective_weight = 20.0
    view.policy.changed()
    assert "a" in letters(view, 3)
    view.members[0].effective_weight = 1.0
    view.policy.changed()
    assert letters(view, 24).count("a") in (3, 4, 5)


def test_weights_that_change_all_the_time_starve_nobody() -> None:
    view = robin(*[1] * 10)
    counts: Counter[int] = Counter()
    for step in range(400):
        view.members[0].effective_weight = 0.5 + step % 2 / 10
        view.policy.changed()
        counts.update(picks(view, 1))
    assert abs(counts[0] - 400 * 0.55 / 9.55) < 2
    assert all(abs(counts[number] - 400 / 9.55) < 2 for number in range(1, 10))


@given(each=weights, story=stories)
def test_an_endpoint_that_stays_is_chosen_again_whatever_the_others_do(each: list[int], story: Story) -> None:
    view = cluster(RoundRobin(), [1, 1, *each])
    stays = view.members[1]
    asked = since = 0
    for exchange, chosen in play(
        view, [step for step in story if step[1] % len(view.members) != 1 or step[0] == "ask"]
    ):
        asked += not exchange.tried
        if chosen is stays:
            since = asked
        assert asked - since <= 2 * 9 * (2 + len(each))


def test_a_weight_of_zero_counts_a_little_when_the_cluster_fails_open() -> None:
    view = robin(1, 0)
    view.members[1].usable = view.members[1].open = True
    view.place(view.members)
    assert picks(view, UNITS + 1).count(1) == 1


# -- round robin: those that may not be chosen


@pytest.mark.parametrize(
    ("tried", "order"),
    [("", "abcabc"), ("a", "bcabca"), ("b", "acbacb"), ("ab", "ccabca"), ("ac", "bbacba"), ("bc", "aabcab")],
)
def test_who_was_tried_is_passed_over_and_neither_gains_nor_loses(tried: str, order: str) -> None:
    view = robin(1, 1, 1)
    chosen = view.choose(Asks(tried=[f"a{'abc'.index(each)}" for each in tried]))
    assert chosen is view.members["abc".index(order[0])]
    assert letters(view, 5) == order[1:]


def test_who_was_tried_is_passed_over_wherever_it_stands() -> None:
    view = robin(3, 1, 1)
    assert letters(view, 1) == "a"
    assert view.choose(Asks(tried=["a1", "a2"])) is view.members[0]
    assert view.choose(Asks(tried=["a0", "a1"])) is view.members[2]
    assert letters(view, 5) == "cabaa"


@given(
    each=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    retries=st.lists(st.booleans(), min_size=1, max_size=40),
    failing=st.integers(0, 5),
)
def test_retries_at_others_do_not_make_a_failing_one_the_first_choice(
    each: list[int], retries: list[bool], failing: int
) -> None:
    """Whoever fails, and how often a request goes on to another for it: of the first attempts each has its share."""
    view = robin(*each)
    bad = view.members[failing % len(each)]
    firsts: Counter[str] = Counter()
    whole = sum(each)
    for turn in range(10 * whole):
        chosen = view.choose()
        assert chosen is not None
        firsts[chosen.name] += 1
        if chosen is bad and retries[turn % len(retries)]:
            other = view.choose(Asks(tried=[bad.name]))
            assert other not in (None, bad)
    assert abs(firsts[bad.name] - 10 * bad.weight) <= 2


@given(turn=st.integers(0, 20), misses=st.integers(1, 40))
def test_who_is_always_passed_over_keeps_one_turn(turn: int, misses: int) -> None:
    view = robin(1, 1, 1, 1, 1)
    picks(view, turn)
    for _ in range(misses):
        chosen = view.choose(Asks(tried=["a0"]))
        assert chosen is not view.members[0]
    order = picks(view, 11)
    assert 0 in order[:8]
    assert order.count(0) <= 3


def test_nobody_is_chosen_where_there_is_nobody() -> None:
    view = robin(1, 1)
    assert view.choose(Asks(tried=["a0", "a1"])) is None
    for member in view.members:
        view.close(member)
    assert view.choose() is None
    view.reopen(view.members[1])
    assert letters(view, 2) == "bb"
    assert FakeView([], RoundRobin()).choose() is None


def test_when_all_were_full_turns_go_on_as_before() -> None:
    view = robin(1, 1)
    for member in view.members:
        member.limits = PeerLimits(requests_max=1)
    one, other = view.members
    view.begin(one)
    assert letters(view, 100) == "b" * 100
    view.begin(other)
    assert view.choose() is None
    view.end(one)
    view.end(other)
    assert letters(view, 8) in ("abababab", "babababa")


def test_one_that_opened_without_a_word_is_found_when_nobody_else_is_there() -> None:
    view = robin(1, 1)
    view.members[0].open = False
    assert letters(view, 3) == "bbb"
    view.members[0].open = True
    assert letters(view, 2) == "bb"
    assert view.choose(Asks(tried=["a1"])) is view.members[0]
    assert letters(view, 4) in ("abab", "baba")


def test_what_ends_elsewhere_is_nobodys_turn() -> None:
    view = robin(1, 1)
    view.policy.ended(endpoints(3)[2])
    assert letters(view, 4) == "abab"


# -- at random


def alike(counts: Counter[str], shares: dict[str, float]) -> bool:
    """Whether drawn numbers are within five standard deviations of what is expected."""
    drawn, whole = sum(counts.values()), sum(shares.values())
    expected = {name: drawn * share / whole for name, share in shares.items()}
    return counts.keys() == shares.keys() and all(
        abs(counts[name] - number) <= 5 * (number * (1 - number / drawn)) ** 0.5 for name, number in expected.items()
    )


def drawn(view: FakeView, count: int, *tried: str) -> Counter[str]:
    """How often each is chosen."""
    counts: Counter[str] = Counter()
    for _ in range(count):
        chosen = view.choose(Asks(tried=tried))
        assert chosen is not None
        counts[chosen.name] += 1
    return counts


def test_random_choices_are_by_weight() -> None:
    view = FakeView(endpoints(4, [1, 2, 3, 10]), RandomChoice(), seed=1)
    assert alike(drawn(view, 4000), {"a0": 1, "a1": 2, "a2": 3, "a3": 10})
    view.members[3].weight = 1
    view.place(view.members)
    assert alike(drawn(view, 4000), {"a0": 1, "a1": 2, "a2": 3, "a3": 1})
    view.close(view.members[1])
    assert alike(drawn(view, 4000), {"a0": 1, "a2": 3, "a3": 1})
    assert alike(drawn(view, 4000, "a3"), {"a0": 1, "a2": 3})


@pytest.mark.parametrize("full", [1, DRAWS_MAX * 4])
def test_random_choices_are_by_weight_also_when_some_or_nearly_all_are_full(full: int) -> None:
    view = FakeView(endpoints(full + 3, [1, 2, 3, *[4] * full]), RandomChoice(), seed=2)
    for endpoint in view.members[3:]:
        endpoint.limits = PeerLimits(requests_max=1)
        view.begin(endpoint)
    assert alike(drawn(view, 1000), {"a0": 1, "a1": 2, "a2": 3})


def test_nobody_is_drawn_where_there_is_nobody() -> None:
    view = FakeView(endpoints(2), RandomChoice())
    assert view.choose(Asks(tried=["a0", "a1"])) is None
    assert FakeView([], RandomChoice()).choose() is None


def test_a_weight_of_zero_is_drawn_when_the_cluster_fails_open() -> None:
    members = endpoints(2, [0, 0])
    for endpoint in members:
        endpoint.usable = endpoint.open = True
    assert alike(drawn(FakeView(members, RandomChoice(), seed=3), 1000), {"a0": 1, "a1": 1})


@given(each=weights, but=st.integers(0, 7), seed=st.integers())
def test_a_second_draw_is_another(each: list[int], but: int, seed: int) -> None:
    lots, rng = Lots(endpoints(len(each), each)), Random(seed)
    but %= len(each)
    for _ in range(10):
        place = lots.draw_place(rng, (), but)
        assert place != but
        assert (place < 0) == (len(each) == 1)


@pytest.mark.parametrize("but", range(4))
def test_a_second_draw_is_by_weight_too(but: int) -> None:
    lots, rng = Lots(endpoints(4, [1, 2, 3, 10])), Random(but)
    counts = Counter(lots.endpoints[lots.draw_place(rng, (), but)].name for _ in range(4000))
    assert alike(counts, {f"a{i}": weight for i, weight in enumerate([1, 2, 3, 10]) if i != but})


class Fixed(Random):
    """The same number always, and how often."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number
        self.drawn = 0

    def random(self) -> float:
        self.drawn += 1
        return self.number


def test_the_highest_number_draws_the_last_also_where_sums_are_rounded() -> None:
    members = endpoints(3)
    for endpoint in members:
        endpoint.effective_weight = 0.1
    lots = Lots(members)
    assert [lots.draw_place(Fixed(1 - 2**-53), (), but) for but in (-1, 0, 1, 2)] == [2, 2, 2, 1]


def test_where_sums_are_rounded_a_second_draw_is_another_all_the_same() -> None:
    members = endpoints(2)
    members[0].effective_weight, members[1].effective_weight = 0.7, 3.0
    rng = Fixed(1 - 3 * 2**-53)  # 0.7, rounded, and so the second again
    assert Lots(members).draw_place(rng, (), 1) == -1
    assert rng.drawn == DRAWS_MAX


def test_where_there_is_one_nothing_is_drawn_for_a_second() -> None:
    rng = Fixed(0.5)
    assert Lots(endpoints(1)).draw_place(rng, (), 0) == -1
    assert rng.drawn == 0


# -- both


@pytest.mark.parametrize("policy", [RoundRobin(), RandomChoice()], ids=["round robin", "random"])
@given(each=weights, story=stories)
def test_there_is_a_choice_where_there_can_be_and_equal_seeds_choose_alike(
    policy: RoundRobin | RandomChoice, each: list[int], story: Story
) -> None:
    chosen = [[each and each.name for _, each in play(cluster(policy, each, seed=4), story)] for _ in range(2)]
    assert chosen[0] == chosen[1]


@given(st.data())
def test_one_queue_is_served_as_by_the_heaps(data: st.DataObject) -> None:
    """All weigh the same: the short way, and the long one that many weights need, choose alike."""
    count = data.draw(st.integers(1, 5))
    short, long = (FakeView(endpoints(count), RoundRobin()) for _ in range(2))
    for _ in range(data.draw(st.integers(1, 30))):
        at = data.draw(st.integers(0, count - 1))
        what = data.draw(st.sampled_from(["choose", "choose", "choose", "tried", "close", "reopen", "weigh"]))
        chosen: list[Endpoint | None] = []
        for view in (short, long):
            endpoint = view.members[at]
            if what == "close":
                view.close(endpoint)
            elif what == "reopen":
                view.reopen(endpoint)
            elif what == "weigh":
                endpoint.effective_weight = 1 + data.draw(st.just(0.5)) * (endpoint.effective_weight == 1)
                view.policy.changed()
            else:
                policy = view.policy
                assert isinstance(policy, RoundRobin)
                policy._only = None if view is long else policy._only
                chosen.append(view.choose(Asks(tried=[endpoint.name] if what == "tried" else [])))
        assert len({each and each.name for each in chosen}) <= 1
