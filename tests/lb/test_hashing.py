"""The laws of the policies that hash: few keys move, all come back, and no endpoint has more than its share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from math import ceil, nan
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.parts import Response
from coulee.core.peer import PeerLimits, Routed
from coulee.lb import hashing
from coulee.lb.endpoint import Endpoint
from coulee.lb.hashing import STEPS_MAX, Deferring, Walking, number_of
from coulee.lb.ketama import Ketama
from coulee.lb.keys import Key, by_target
from coulee.lb.maglev import Maglev
from coulee.lb.policy import Policy
from coulee.lb.rendezvous import Rendezvous
from tests.lb.stub import Asks, FakeView, endpoints

KEYS = [f"/item/{number}" for number in range(200)]

Make = Callable[[Key], Policy]
MAKES: list[Make] = [Ketama, lambda key: Maglev(key, size=2003), Rendezvous]
EACH = pytest.mark.parametrize("make", MAKES, ids=["ketama", "maglev", "rendezvous"])
BOUNDED = pytest.mark.parametrize(
    "make", [lambda bound: Ketama(by_target(), bound=bound), lambda bound: Maglev(by_target(), size=307, bound=bound)],
    ids=["ketama", "maglev"],
)  # fmt: skip

weights_lists = st.lists(st.sampled_from([1, 1, 2, 5]), min_size=2, max_size=8)


def choices(view: FakeView, tried: Collection[str] = ()) -> list[Endpoint | None]:
    return [view.choose(Asks(key, tried=tried)) for key in KEYS]


# ------------------------------------------------------------------------------------------------ who moves


@EACH
def test_of_one_that_closes_only_its_own_keys_move_and_they_come_back(make: Make) -> None:
    @given(weights_lists, st.data())
    def holds(weights: list[int], data: st.DataObject) -> None:
        members = endpoints(len(weights), weights)
        view = FakeView(members, make(by_target()))
        before = choices(view)
        gone = data.draw(st.sampled_from(members))
        view.close(gone)
        during = choices(view)
        for was, now in zip(before, during, strict=True):
            assert now is not gone
            assert now is was or was is gone
        view.reopen(gone)
        assert choices(view) == before
        assert choices(view, [gone.name]) == during

    holds()


@EACH
def test_of_one_that_is_taken_away_hardly_more_move(make: Make) -> None:
    @given(st.integers(2, 12), st.integers(0, 1000))
    def holds(count: int, seed: int) -> None:
        members = endpoints(count)
        view = FakeView(members, make(by_target()))
        before = choices(view)
        gone = members[seed % count]
        view.place([endpoint for endpoint in members if endpoint is not gone])
        after = choices(view)
        others_moved = [was for was, now in zip(before, after, strict=True) if now is not was and was is not gone]
        assert gone not in after
        assert len(others_moved) <= (len(KEYS) * 0.1 if isinstance(view.policy, Maglev) else 0)
        view.place(Random(seed).sample(members, count))
        view.reopen(gone)
        assert choices(view) == before

    holds()


@EACH
def test_the_share_that_moves_is_one_in_n(make: Make) -> None:
    members = endpoints(10)
    view = FakeView(members, make(by_target()))
    keys = [Asks(str(number)) for number in range(3000)]
    before = [view.choose(key) for key in keys]
    for gone in members:
        view.place([endpoint for endpoint in members if endpoint is not gone])
        moved = sum(view.choose(key) is not was for key, was in zip(keys, before, strict=True))
        assert moved / len(keys) <= 1 / 10 + 0.1
        view.place(members)
        view.reopen(gone)


@EACH
def test_the_order_of_the_members_does_not_matter(make: Make) -> None:
    @given(weights_lists, st.randoms(use_true_random=False))
    def holds(weights: list[int], rng: Random) -> None:
        members = endpoints(len(weights), weights)
        shuffled = members.copy()
        rng.shuffle(shuffled)
        before = choices(FakeView(members, make(by_target())))
        assert choices(FakeView(shuffled, make(by_target()), seed=7)) == before

    holds()


@EACH
def test_names_do_not_matter_and_addresses_do(make: Make) -> None:
    def places(name: str, port: int) -> list[int]:
        members = [Endpoint((f"10.0.0.{at}", port), name=f"{name}{at}") for at in range(5)]
        return [members.index(chosen) for chosen in choices(FakeView(members, make(by_target()))) if chosen]

    assert places("a", 80) == places("b", 80) != places("a", 81)


@EACH
def test_weights_are_met(make: Make) -> None:
    weights = [1, 2, 3, 4, 10, 0]
    members = endpoints(6, weights)
    view = FakeView(members, make(by_target()))
    counts = Counter(view.choose(Asks(f"/{number}")) for number in range(6000))
    assert counts[members[5]] == 0
    for endpoint, weight in zip(members, weights, strict=True):
        # 160 points a weight are a share that is right within a tenth or two
        assert abs(counts[endpoint] / 6000 - weight / 20) < 0.03


@EACH
def test_there_is_a_choice_if_anybody_is_left(make: Make) -> None:
    @given(weights_lists, st.data())
    def holds(weights: list[int], data: st.DataObject) -> None:
        members = endpoints(len(weights), weights)
        view = FakeView(members, make(by_target()))
        for endpoint in data.draw(st.lists(st.sampled_from(members), unique=True)):
            view.close(endpoint)
        tried = data.draw(st.lists(st.sampled_from([endpoint.name for endpoint in members]), unique=True))
        left = [endpoint for endpoint in members if endpoint.open and endpoint.name not in tried]
        for key in KEYS[:5]:
            assert (view.choose(Asks(key, tried=tried)) is not None) == bool(left)

    holds()


# ------------------------------------------------------------------------------------------------ bounded load


@BOUNDED
def test_no_endpoint_has_more_than_its_share(make: Callable[[float], Policy]) -> None:
    @given(
        st.lists(st.sampled_from([1, 1, 2, 7]), min_size=1, max_size=6),
        st.sampled_from([1, 1.1, 1.25, 2]),
        st.lists(st.integers(0, 9), max_size=60),
    )
    def holds(weights: list[int], bound: float, steps: list[int]) -> None:
        view = FakeView(endpoints(len(weights), weights), make(bound))
        for step in steps:
            busy = [endpoint for endpoint in view.members if endpoint.in_flight]
            if step > 7 and busy:
                view.end(busy[step % len(busy)])
                continue
            share = [ceil(bound * (view.in_flight + 1) * weight / sum(weights)) for weight in weights]
            chosen = view.choose(Asks(f"/{step // 3}"))
            assert chosen is not None
            view.begin(chosen)
            assert chosen.in_flight <= share[chosen.index]

    holds()


@BOUNDED
def test_a_key_stays_where_it_is_while_there_is_room(make: Callable[[float], Policy]) -> None:
    bounded = FakeView(endpoints(5), make(1.25))
    free = FakeView(bounded.members, make(1e9))
    assert choices(bounded) == choices(free)
    popular = Asks("/popular")
    home = free.choose(popular)
    assert home is not None
    for _ in range(30):
        assert free.choose(popular) is home
        chosen = bounded.choose(popular)
        assert chosen is not None
        room = home.in_flight + 1 <= ceil(1.25 * (bounded.in_flight + 1) / 5)
        assert (chosen is home) == room
        bounded.begin(chosen)
    assert home.in_flight == 8


@BOUNDED
def test_what_has_its_share_goes_on_along_the_walk(make: Callable[[float], Policy]) -> None:
    view = FakeView(endpoints(6), make(1.25))
    walk = view.policy
    assert isinstance(walk, Walking)
    for key in KEYS[:20]:
        order = list(dict.fromkeys(walk.walk(key.encode())))
        view.begin(order[0])
        view.begin(order[1])
        assert view.choose(Asks(key)) is order[2]
        view.end(order[0])
        view.end(order[1])


@BOUNDED
def test_what_the_full_ones_cannot_take_the_others_share(make: Callable[[float], Policy]) -> None:
    """All that are open have their share of what all the usable ones should have, and still there is a choice."""
    members = endpoints(3)
    members[0].limits = PeerLimits(requests_max=1)
    view = FakeView(members, make(1))
    for number in range(20):
        left = [endpoint for endpoint in members if endpoint.open]
        chosen = view.choose(Asks(f"/{number % 2}"))
        assert chosen in left
        assert chosen.in_flight + 1 <= ceil((view.in_flight + 1) / len(left))
        view.begin(chosen)
    assert sorted(endpoint.in_flight for endpoint in members) == [1, 9, 10]


@BOUNDED
def test_what_is_in_flight_elsewhere_counts(make: Callable[[float], Policy]) -> None:
    """Closed ones drain; the others may take more meanwhile."""
    members = endpoints(2)
    view = FakeView(members, make(1.25))
    for _ in range(8):
        view.begin(members[0])
    view.close(members[0])
    for _ in range(12):
        chosen = view.choose(Asks("/"))
        assert chosen is members[1]
        view.begin(chosen)


@BOUNDED
def test_a_slow_start_is_a_smaller_share(make: Callable[[float], Policy]) -> None:
    view = FakeView(endpoints(4), make(1.0))
    slow = view.members[0]
    slow.effective_weight = 0.1
    view.policy.changed()
    key = next(key for key in KEYS if view.choose(Asks(key)) is slow)
    for _ in range(31):
        chosen = view.choose(Asks(key))
        assert chosen is not None
        view.begin(chosen)
    assert slow.in_flight == 1


@BOUNDED
def test_the_average_is_that_of_the_usable_ones(make: Callable[[float], Policy]) -> None:
    view = FakeView(endpoints(5), make(1.0))
    for endpoint in view.members[3:]:
        view.close(endpoint)
    view.members[0].effective_weight = 0.25
    view.policy.changed()
    key = next(key for key in KEYS if view.choose(Asks(key)) is view.members[1])
    for _ in range(20):
        chosen = view.choose(Asks(key))
        assert chosen is not None
        room = view.members[1].in_flight + 1 <= ceil((view.in_flight + 1) / 2.25)
        assert (chosen is view.members[1]) == room
        view.begin(chosen)


@BOUNDED
def test_no_weights_are_no_bound(make: Callable[[float], Policy]) -> None:
    view = FakeView(endpoints(2), make(1.0))
    for endpoint in view.members:
        endpoint.effective_weight = 0.0
    view.policy.changed()
    for key in KEYS[:10]:
        chosen = view.choose(Asks(key))
        assert chosen is not None
        view.begin(chosen)


@pytest.mark.parametrize("bound", [0, 0.99, -1, nan, float("inf")])
@pytest.mark.parametrize("make", [Ketama, Maglev])
def test_a_bound_below_the_average_is_refused(make: type[Ketama | Maglev], bound: float) -> None:
    with pytest.raises(ValueError, match="it must be 1 or more"):
        make(by_target(), bound=bound)


# ------------------------------------------------------------------------------------------------ long walks


@BOUNDED
def test_a_walk_may_be_long(make: Callable[[float], Policy]) -> None:
    """Of many only two are left; they share the keys as if they were alone."""
    view = FakeView(endpoints(200), make(9.0))
    left = view.members[7], view.members[150]
    for endpoint in view.members:
        if endpoint not in left:
            view.close(endpoint)
    alone = choices(view)
    assert {*alone} == {*left}
    if isinstance(view.policy, Ketama):
        assert alone == choices(FakeView(left, make(9.0)))
    assert {*choices(view, [left[0].name])} == {left[1]}
    assert choices(view, [left[0].name, left[1].name]) == [None] * len(KEYS)


@BOUNDED
def test_of_the_few_that_are_left_it_is_one_below_its_share(make: Callable[[float], Policy]) -> None:
    view = FakeView(endpoints(200), make(1.0))
    left = view.members[7], view.members[150]
    for endpoint in view.members:
        if endpoint not in left:
            view.close(endpoint)
    for number in range(20):
        chosen = view.choose(Asks("/one"))
        assert chosen is not None
        view.begin(chosen)
        assert abs(left[0].in_flight - left[1].in_flight) == (number + 1) % 2


class Steps(Walking):
    """Its walk is the members in order, and it counts how far that was gone."""

    gone = 0

    def walk(self, key: bytes):  # type: ignore[no-untyped-def]
        for endpoint in self.view.members:
            self.gone += 1
            yield endpoint


def test_nobody_walks_for_nobody() -> None:
    members = endpoints(1000)
    view = FakeView(members, Steps(by_target(), None, None))
    steps = view.policy
    assert isinstance(steps, Steps)
    for endpoint in members:
        endpoint.open = False
    assert view.choose() is None
    assert steps.gone == STEPS_MAX
    members[STEPS_MAX].open = True
    assert view.choose() is members[STEPS_MAX]
    members[STEPS_MAX - 1].open = True
    steps.gone = 0
    assert view.choose() is members[STEPS_MAX - 1]
    assert steps.gone == STEPS_MAX


def test_who_is_in_no_table_yet_is_chosen_last(monkeypatch: pytest.MonkeyPatch) -> None:
    members = endpoints(3)
    view = FakeView(members[:2], Ketama(by_target()))
    view.usable = members
    assert {*choices(view)} == {*members[:2]}
    for endpoint in members[:2]:
        endpoint.open = False
    assert {*choices(view)} == {members[2]}
    monkeypatch.setattr(hashing, "STEPS_MAX", 1)
    assert {*choices(view)} == {members[2]}


# ------------------------------------------------------------------------------------------------ otherwise


class Notes(Policy):
    """Another policy, which chooses the last one and says what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def arrange(self, members):  # type: ignore[no-untyped-def]
        self.told.append(("arrange", len(members)))
        yield
        self.told.append("arranged")

    def changed(self) -> None:
        self.told.append("changed")

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        left = [endpoint for endpoint in self.view.usable if endpoint.name not in tried]
        return left[-1] if left else None

    def began(self, endpoint: Endpoint) -> None:
        self.told.append(("began", endpoint.name))

    def ended(self, endpoint: Endpoint) -> None:
        self.told.append(("ended", endpoint.name))

    def answered(self, endpoint: Endpoint, latency_s: float) -> None:
        self.told.append(("answered", endpoint.name, latency_s))

    def mark(self, exchange: Routed, endpoint: Endpoint, response: Response) -> None:
        response.headers.add("X-Marked", endpoint.name)


@pytest.mark.parametrize("make", [Ketama, Maglev, Rendezvous])
@pytest.mark.parametrize("nothing", [None, "", b""])
def test_without_a_key_another_policy_chooses(
    make: type[Ketama | Maglev | Rendezvous], nothing: str | bytes | None
) -> None:
    notes = Notes()
    view = FakeView(endpoints(3), make(lambda exchange: nothing, otherwise=notes))
    assert [view.choose(Asks(key)) for key in KEYS[:20]] == [view.members[2]] * 20
    assert view.choose(Asks(tried=["a2"])) is view.members[1]
    view.close(view.members[2])
    assert view.choose() is view.members[1]
    assert notes.told == [], "a definition is not bound"


@pytest.mark.parametrize("make", [Ketama, Maglev, Rendezvous])
def test_by_default_that_is_chance(make: type[Ketama | Maglev | Rendezvous]) -> None:
    views = [FakeView(endpoints(4), make(lambda exchange: None), seed=seed) for seed in (1, 1, 2)]
    indices = [[chosen.index for _ in range(50) if (chosen := view.choose())] for view in views]
    assert indices[0] == indices[1] != indices[2]
    assert {*indices[0]} == {0, 1, 2, 3}


@pytest.mark.parametrize("make", [Ketama, Maglev, Rendezvous, lambda key, otherwise: Deferring(otherwise)])
def test_the_other_policy_is_told_all(make: Callable[..., Policy]) -> None:
    view = FakeView(endpoints(2), make(by_target(), otherwise=Notes()))
    assert isinstance(view.policy, Deferring)
    notes = view.policy.otherwise
    assert isinstance(notes, Notes)
    assert notes.view is view
    view.begin(view.members[1])
    view.policy.answered(view.members[1], 0.5)
    view.end(view.members[1])
    response = Response(200)
    view.policy.mark(Asks(), view.members[1], response)
    assert notes.told == [
        ("arrange", 2), "arranged", "changed", ("began", "a1"), ("answered", "a1", 0.5), ("ended", "a1")
    ]  # fmt: skip
    assert response.headers["x-marked"] == "a1"


def test_numbers_depend_on_all_of_the_data_and_on_what_they_are_for() -> None:
    assert number_of(b"a", b"key") == 0xB6CF3942C75D8D98
    assert len({number_of(b"a", b"key"), number_of(b"b", b"key"), number_of(b"a", b"skip")}) == 3
    assert all(0 <= number_of(str(n).encode(), b"key") < 2**64 for n in range(100))
    assert any(number_of(str(n).encode(), b"key") >= 2**63 for n in range(100))


@pytest.mark.parametrize("make", [Ketama, Maglev, Rendezvous])
def test_a_build_that_is_given_up_has_changed_nothing_in_the_other_policy_either(
    make: type[Ketama | Maglev | Rendezvous],
) -> None:
    few, many = endpoints(2), endpoints(4000)[2:]
    view = FakeView(few, make(lambda exchange: None, otherwise=Ketama(by_target())))
    slices = view.policy.arrange([*few, *many])
    assert next(slices, "all") is None, "it takes more than one slice"
    assert {view.choose(Asks(f"/{number}")) for number in range(50)} == {*few}
    for _ in slices:
        pass
    for endpoint in (*few, *many):
        endpoint.usable = endpoint.open = True
    view.members = [*few, *many]
    view._changed()
    assert len({view.choose(Asks(f"/{number}")) for number in range(50)}) > 40
