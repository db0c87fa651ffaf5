"""Policies made of others: what each section sees and is told, and that a division given up leaves no trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Iterator, Sequence
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.parts import Response
from coulee.core.peer import PeerLimits, Routed
from coulee.lb.endpoint import Endpoint
from coulee.lb.policy import Policy, overrides
from coulee.lb.sections import Section, Sectioned
from coulee.lb.turns import RoundRobin
from tests.lb.stub import Asks, FakeView, endpoints


class Zones(Sectioned):
    """One section for each zone; the first of them that has one chooses."""

    def divide(self, members: Sequence[Endpoint]) -> Generator[None, None, dict[str, list[Endpoint]]]:
        yield
        divided: dict[str, list[Endpoint]] = {}
        for endpoint in members:
            for zone in endpoint.zone.split("+"):
                divided.setdefault(zone, []).append(endpoint)
        return divided

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        for section in self.sections.values():
            chosen = section.policy.choose(exchange, tried)
            if chosen is not None:
                return chosen
        return None


class Table(Policy):
    """The first of a table that takes some slices to build; writes down what it is told."""

    def __init__(self, slices: int = 0) -> None:
        self.slices = slices
        self.table: list[Endpoint] = []
        self.told: list[str] = []

    def arrange(self, members: Sequence[Endpoint]) -> Iterator[None]:
        for _ in range(self.slices):
            yield
        self.table = list(members)

    def changed(self) -> None:
        assert list(self.view.members) == self.table

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        return next((each for each in self.table if each.open and each.name not in tried), None)

    def began(self, endpoint: Endpoint) -> None:
        self.told.append(f"began {endpoint.name}")

    def ended(self, endpoint: Endpoint) -> None:
        self.told.append(f"ended {endpoint.name}")

    def answered(self, endpoint: Endpoint, latency_s: float) -> None:
        self.told.append(f"answered {endpoint.name} {latency_s}")

    def mark(self, exchange: Routed, endpoint: Endpoint, response: Response) -> None:
        self.told.append(f"mark {endpoint.name} {response.status}")


class Scores(Policy):
    """The one that has answered most often: what it knows, it has learnt."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        left = [each for each in self.view.usable if each.open and each.name not in tried]
        return max(left, key=lambda each: self.answers[each.name], default=None)

    def answered(self, endpoint: Endpoint, latency_s: float) -> None:
        self.answers[endpoint.name] += 1


class Plain(Policy):
    """Overrides what it must."""

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        return next((each for each in self.view.usable if each.open and each.name not in tried), None)


def zoned(zones: str) -> list[Endpoint]:
    """`a0`, `a1`, ... in these zones."""
    made = endpoints(len(zones.split()))
    for endpoint, zone in zip(made, zones.split(), strict=True):
        endpoint.zone = zone
    return made


def sectioned(view: FakeView) -> Zones:
    assert isinstance(view.policy, Zones)
    return view.policy


def told(section: Section) -> list[str]:
    assert isinstance(section.policy, Table)
    return section.policy.told


def picture(policy: Zones) -> list[tuple[object, ...]]:
    """All that a choice could depend on."""
    seen: list[tuple[object, ...]] = []
    for key, section in policy.sections.items():
        seen.append((key, section, list(section.members), list(section.usable), section.in_flight, section.policy))
        if isinstance(section.policy, Zones):
            seen += picture(section.policy)
    return seen


# ---------------------------------------------------------------------------------------------------------- sections


def test_each_section_has_its_endpoints_and_a_policy_of_its_own() -> None:
    view = FakeView(zoned("x y x"), Zones(Table()))
    a0, a1, a2 = view.members
    x, y = sectioned(view).sections["x"], sectioned(view).sections["y"]
    assert (x.members, y.members) == ([a0, a2], [a1])
    assert x.policy is not y.policy
    assert x.policy.view is x


def test_a_section_has_the_clock_and_the_randomness_of_its_cluster() -> None:
    view = FakeView(zoned("x"), Zones(Table()), seed=7)
    view.now = 12.5
    section = sectioned(view).sections["x"]
    assert section.now == 12.5
    assert section.wall_clock == view.wall_clock
    assert section.rng is view.rng
    assert section.rng.random() == Random(7).random()


def test_the_policy_of_a_section_goes_in_turn_by_default() -> None:
    policy = Zones()
    assert isinstance(policy.inner, RoundRobin)
    view = FakeView(zoned("x x"), policy)
    assert [str(view.choose()) for _ in range(4)] == [str(each) for each in view.members * 2]


def test_a_definition_stays_as_it_was_and_each_copy_is_for_itself() -> None:
    definition = Zones(Table())
    one, other = FakeView(zoned("x"), definition), FakeView(zoned("y"), definition)
    assert list(sectioned(one).sections) == ["x"]
    assert list(sectioned(other).sections) == ["y"]
    assert not hasattr(definition, "sections")
    assert not hasattr(definition.inner, "view")


def test_the_usable_of_a_section_are_those_that_the_cluster_takes_for_usable() -> None:
    view = FakeView(zoned("x y x"), Zones(Table()))
    a0, a1, a2 = view.members
    x = sectioned(view).sections["x"]
    view.close(a0)
    assert x.usable == [a2]
    view.close(a2)
    assert x.usable == []
    view.usable = [a0, a1, a2]  # it fails open
    view.policy.changed()
    assert x.usable == [a0, a2]


def test_what_becomes_of_an_attempt_is_told_to_each_section_of_the_endpoint() -> None:
    view = FakeView(zoned("x y x+y"), Zones(Table()))
    a0, _, a2 = view.members
    x, y = sectioned(view).sections["x"], sectioned(view).sections["y"]
    view.begin(a0)
    view.begin(a2)
    view.policy.answered(a2, 0.25)
    view.end(a2)
    assert told(x) == ["began a0", "began a2", "answered a2 0.25", "ended a2"]
    assert told(y) == ["began a2", "answered a2 0.25", "ended a2"]
    assert (x.in_flight, y.in_flight) == (1, 0)


def test_an_answer_is_marked_once() -> None:
    view = FakeView(zoned("x x+y"), Zones(Table()))
    a1 = view.members[1]
    view.policy.mark(Asks(), a1, Response(204))
    assert told(sectioned(view).sections["x"]) == ["mark a1 204"]
    assert told(sectioned(view).sections["y"]) == []


def test_a_policy_that_overrides_nothing_is_told_nothing_but_counts() -> None:
    view = FakeView(zoned("x"), Zones(Plain()))
    section = sectioned(view).sections["x"]
    for name in ("began", "ended", "answered", "mark"):
        assert not overrides(section.policy, name)
        setattr(section.policy, name, None)  # to call it would be an error
    view.begin(view.members[0])
    assert section.in_flight == 1
    view.policy.answered(view.members[0], 1.0)
    view.policy.mark(Asks(), view.members[0], Response(200))
    view.end(view.members[0])
    assert section.in_flight == 0


def test_a_stranger_is_nobodys() -> None:
    view = FakeView(zoned("x"), Zones(Table()))
    (stranger,) = endpoints(1)
    view.policy.began(stranger)
    view.policy.answered(stranger, 1.0)
    view.policy.mark(Asks(), stranger, Response(200))
    view.policy.ended(stranger)
    section = sectioned(view).sections["x"]
    assert told(section) == []
    assert section.in_flight == 0


# ---------------------------------------------------------------------------------------------------------- division


def test_a_section_that_stays_keeps_what_was_learnt_and_those_that_go_are_dropped() -> None:
    members = zoned("x y x z x")
    view = FakeView(members[:3], Zones(Scores()))
    before = dict(sectioned(view).sections)
    view.policy.answered(members[2], 1.0)
    assert view.choose() is members[2]
    view.place([members[3], members[4], members[0], members[2]])
    after = sectioned(view).sections
    assert list(after) == ["z", "x"]
    assert after["x"] is before["x"]
    assert after["x"].members == [members[4], members[0], members[2]]
    assert after["x"].policy.choose(Asks(), ()) is members[2]
    view.policy.answered(members[1], 1.0)  # it is a member no more
    scores = before["y"].policy
    assert isinstance(scores, Scores)
    assert not scores.answers


def test_nested_sections_keep_what_was_learnt_too() -> None:
    members = zoned("x x x")
    view = FakeView(members[:2], Zones(Zones(Scores())))
    view.policy.answered(members[1], 1.0)
    view.place(members)
    assert view.choose() is members[1]
    view.place([members[0], members[1]])
    assert view.choose() is members[1]


def test_a_policy_with_tables_of_its_own_is_made_anew() -> None:
    members = zoned("x x")
    view = FakeView(members[:1], Zones(Table()))
    view.begin(members[0])
    before = sectioned(view).sections["x"]
    view.place(members)
    after = sectioned(view).sections["x"]
    assert after is not before
    assert after.policy is not before.policy
    assert (after.members, after.usable, after.in_flight) == (members, members, 1)


def test_an_endpoint_that_changes_sections_takes_its_load_with_it() -> None:
    view = FakeView(zoned("x y"), Zones(Plain()))
    a0, _ = view.members
    view.begin(a0)
    a0.zone = "y"
    view.place(view.members)
    assert list(sectioned(view).sections) == ["y"]
    y = sectioned(view).sections["y"]
    assert y.in_flight == 1
    view.end(a0)
    assert y.in_flight == 0


def test_a_cluster_may_become_empty_and_full_again() -> None:
    members = zoned("x y")
    view = FakeView(members, Zones(Table()))
    view.place([])
    assert sectioned(view).sections == {}
    assert view.choose() is None
    members[1].usable = members[1].open = True
    view.place(members[1:])
    assert view.choose() is members[1]


@pytest.mark.parametrize("nested", [False, True])
def test_while_sections_are_built_those_in_use_are_as_they_were(nested: bool) -> None:
    # All endpoints are replaced: whoever let go of the old ones early would have nobody.
    old, new = endpoints(4)[:2], endpoints(4)[2:]
    for endpoint, zone in zip(old + new, "xyxy", strict=True):
        endpoint.zone = zone
    view = FakeView(old, Zones(Zones(Table(2)) if nested else Table(2)))
    view.begin(old[0])
    before = picture(sectioned(view))
    slices = 0
    for _ in view.policy.arrange(new):
        slices += 1
        view.policy.changed()
        assert view.choose() is old[0]
        assert picture(sectioned(view)) == before
    assert slices == (1 + 2 * (1 + 2) if nested else 1 + 2 * 2)
    assert [section.members for section in sectioned(view).sections.values()] == [[new[0]], [new[1]]]


def test_changes_while_sections_are_built_are_not_lost() -> None:
    members = zoned("x y z")
    view = FakeView(members[:2], Zones(Table(slices=1)))
    arranging = view.policy.arrange(members)
    for _ in islice(arranging, 4):
        pass
    view.begin(members[0])
    view.close(members[1])
    for _ in arranging:
        pass
    view.policy.changed()
    sections = sectioned(view).sections
    assert sections["x"].in_flight == 1
    assert sections["y"].usable == []
    assert sections["y"].members == [members[1]]


@pytest.mark.parametrize("inner", [Table(slices=2), Plain(), Zones(Table(slices=1))])
@given(
    after=st.integers(0, 20),
    zones=st.lists(st.sampled_from(["x", "y", "z", "x+y"]), min_size=8, max_size=8),
    moved=st.integers(0, 255),
)
def test_a_division_that_is_given_up_leaves_no_trace(inner: Policy, after: int, zones: list[str], moved: int) -> None:
    members = zoned(" ".join(zones))
    view = FakeView(members[:6], Zones(inner))
    for endpoint in members[:3]:
        view.begin(endpoint)
    view.close(members[1])
    before = picture(sectioned(view))
    for at, endpoint in enumerate(members):
        endpoint.zone = zones[at] if moved >> at & 1 else "z"
    slices = sum(1 for _ in islice(view.policy.arrange(members[2:]), after))
    if slices < after:
        return  # it was run to its end
    assert picture(sectioned(view)) == before
    for endpoint in members[:3]:
        view.end(endpoint)
    assert all(section.in_flight == 0 for section in sectioned(view).sections.values())


# ----------------------------------------------------------------------------------------------------- any sequence

STEPS = st.lists(
    st.tuples(st.sampled_from(["begin", "end", "close", "reopen", "place"]), st.integers(0, 63)), max_size=30
)


@pytest.mark.parametrize("inner", [Table(), Plain()])
@given(steps=STEPS)
def test_sections_always_add_up_to_what_the_cluster_has(inner: Policy, steps: list[tuple[str, int]]) -> None:
    members = zoned("x y z x+y x z")
    members[2].limits = PeerLimits(requests_max=1)
    view = FakeView(members, Zones(inner))
    for step, number in steps:
        endpoint = members[number % len(members)]
        if step == "begin" and endpoint.open:
            view.begin(endpoint)
        elif step == "end" and endpoint.in_flight and endpoint in view.members:
            view.end(endpoint)
        elif step == "close" and endpoint in view.members:
            view.close(endpoint)
        elif step == "reopen" and endpoint in view.members:
            view.reopen(endpoint)
        elif step == "place":
            view.place([each for at, each in enumerate(members) if number >> at & 1])
        divided: dict[str, list[Endpoint]] = {}
        for each in view.members:
            for zone in each.zone.split("+"):
                divided.setdefault(zone, []).append(each)
        sections = sectioned(view).sections
        assert {key: section.members for key, section in sections.items()} == divided
        for section in sections.values():
            assert section.usable == [each for each in section.members if each in view.usable]
            assert section.in_flight == sum(each.in_flight for each in section.members)
        assert (view.choose() is None) == (not any(each.open for each in view.members))
