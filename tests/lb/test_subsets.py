"""Subsets: by the labels that a request asks for, and by the number of the proxy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.parts import Response
from coulee.core.peer import PeerLimits, Routed
from coulee.lb.endpoint import Endpoint
from coulee.lb.sections import SLICE
from coulee.lb.subsets import LABELS_MAX, SUBSETS_MAX, ByLabels, DeterministicSubset, by_header_label
from coulee.lb.turns import RoundRobin
from tests.lb.stub import Asks, FakeView, endpoints


def labelled(*labels: str) -> list[Endpoint]:
    """`labelled("version=1 stage=canary", "")`: two endpoints, the second without labels."""
    made = endpoints(len(labels))
    for endpoint, each in zip(made, labels, strict=True):
        endpoint.labels = dict(pair.split("=") for pair in each.split())
    return made


def fields(exchange: Routed) -> Mapping[str, str]:
    """Each field of the request is a label that it asks for."""
    return dict(exchange.request.headers)


def asks(tried: Sequence[str] = (), **labels: str) -> Asks:
    return Asks(headers=labels, tried=tried)


def served(view: FakeView, choices: int = 4, tried: Sequence[str] = (), **labels: str) -> list[str]:
    """The names of those that so many requests for these labels go to."""
    chosen = (view.choose(asks(tried, **labels)) for _ in range(choices))
    return [endpoint.name if endpoint is not None else "-" for endpoint in chosen]


# --------------------------------------------------------------------------------------------------------- by labels


def test_a_request_goes_to_those_that_have_its_labels_in_turn() -> None:
    view = FakeView(labelled("version=1", "version=2", "version=1"), ByLabels(fields, ["version"]))
    assert served(view, version="1") == ["a0", "a2", "a0", "a2"]
    assert served(view, version="2") == ["a1"] * 4


def test_who_asks_for_nothing_is_served_by_anybody() -> None:
    members = labelled("version=1", "version=2", "")
    assert served(FakeView(members, ByLabels(fields, ["version"]))) == ["a0", "a1", "a2", "a0"]
    nothing = ByLabels(lambda exchange: None, ["version"], otherwise="none")
    assert served(FakeView(members, nothing)) == ["a0", "a1", "a2", "a0"]


def test_all_labels_must_be_there_and_may_be_asked_for_in_any_order() -> None:
    members = labelled("version=1 stage=live", "version=1 stage=canary", "version=2 stage=canary", "stage=canary")
    view = FakeView(members, ByLabels(fields, ["version", "stage"]))
    assert served(view, 2, version="1", stage="canary") == ["a1", "a1"]
    assert served(view, 2, stage="canary", version="1") == ["a1", "a1"]
    assert served(view, 3, stage="canary") == ["a1", "a2", "a3"]
    assert isinstance(view.policy, ByLabels)
    assert view.policy.sections[("stage", "canary"),].members == members[1:]
    assert served(view, 2, version="1") == ["a0", "a1"]


def test_where_nobody_has_the_labels_anybody_serves_or_nobody() -> None:
    members = labelled("version=1", "version=2")
    for wish in ({"version": "3"}, {"unheard": "of"}, {"version": "1", "unheard": "of"}):
        assert served(FakeView(members, ByLabels(fields, ["version"])), 2, **wish) == ["a0", "a1"]
        assert served(FakeView(members, ByLabels(fields, ["version"], otherwise="none")), 2, **wish) == ["-", "-"]


def test_where_nobody_who_has_the_labels_is_left_anybody_serves_or_nobody() -> None:
    members = labelled("version=1", "version=2", "version=2")
    members[2].limits = PeerLimits(requests_max=1)
    for otherwise, name in (("any", "a0"), ("none", "-")):
        view = FakeView(members, ByLabels(fields, ["version"], otherwise=otherwise))  # type: ignore[arg-type]
        assert served(view, 2, ["a1", "a2"], version="2") == [name] * 2
        view.close(members[1])
        view.begin(members[2])
        assert served(view, 2, version="2") == [name] * 2
        view.end(members[2])
        assert served(view, 2, version="2") == ["a2"] * 2
        view.reopen(members[1])


def test_requests_make_no_subsets() -> None:
    view = FakeView(labelled("version=1", ""), ByLabels(fields, ["version"]))
    assert isinstance(view.policy, ByLabels)
    before = dict(view.policy.sections)
    for number in range(1000):
        served(view, 1, version=str(number))
    assert view.policy.sections == before
    assert list(before) == [(), (("version", "1"),)]


def test_subsets_come_and_go_with_their_endpoints() -> None:
    members = labelled("version=1", "version=1", "version=2")
    view = FakeView(members[:2], ByLabels(fields, ["version"], otherwise="none"))
    assert served(view, 1, version="1") == ["a0"]
    assert served(view, 1, version="2") == ["-"]
    view.place(members[1:])
    assert served(view, 2, version="1") == ["a1"] * 2
    assert served(view, 1, version="2") == ["a2"]
    members[1].labels = {"version": "2"}
    view.place(members[1:])
    assert served(view, 1, version="1") == ["-"]
    assert sorted(served(view, 2, version="2")) == ["a1", "a2"]


def test_an_empty_cluster_serves_nobody() -> None:
    view = FakeView([], ByLabels(fields, ["version"]))
    assert served(view, 1) == served(view, 1, version="1") == ["-"]


def test_subsets_are_bounded_the_first_ones_and_those_of_fewer_labels_are_kept() -> None:
    members = labelled("version=1 stage=x", "version=2 stage=x", "version=3 stage=y", "version=1 stage=x")
    policy = ByLabels(fields, ["version", "stage"], otherwise="none", subsets_max=3)
    view = FakeView(members, policy)
    assert isinstance(view.policy, ByLabels)
    assert len(view.policy.sections) == 4  # ... and that of all
    assert served(view, 3, stage="x") == ["a0", "a1", "a3"]
    assert served(view, 1, stage="y") == ["a2"]
    assert served(view, 3, version="1") == ["a0", "a3", "a0"]
    assert served(view, 1, version="2") == served(view, 1, version="1", stage="x") == ["-"]


def test_few_endpoints_are_divided_at_once_and_many_in_slices() -> None:
    members = labelled(*(f"version={at % 3}" for at in range(2 * SLICE)))
    view = FakeView(members[:100], ByLabels(fields, ["version"]))
    assert sum(1 for _ in view.policy.arrange(members[:100])) == 0
    # two to look at labels, one for the section of all, and one for the other three
    assert sum(1 for _ in view.policy.arrange(members)) == 2 + 1 + 1


def test_a_subset_and_the_whole_are_both_told_of_an_attempt() -> None:
    view = FakeView(labelled("version=1", ""), ByLabels(fields, ["version"]))
    assert isinstance(view.policy, ByLabels)
    view.begin(view.members[0])
    view.begin(view.members[1])
    assert [section.in_flight for section in view.policy.sections.values()] == [2, 1]


class Marks(RoundRobin):
    """Marks answers with its number of endpoints."""

    def mark(self, exchange: Routed, endpoint: Endpoint, response: Response) -> None:
        response.headers.add("X-Of", str(len(self.view.members)))


@pytest.mark.parametrize(
    ("labels", "at", "marks"),
    [
        ({"version": "1"}, 0, ["2"]),
        ({"version": "1"}, 2, ["3"]),  # chosen otherwise, or by a filter
        ({"version": "3"}, 0, ["3"]),
        ({}, 0, ["3"]),
    ],
)
def test_an_answer_is_marked_by_the_subset_that_was_asked_for(
    labels: dict[str, str], at: int, marks: list[str]
) -> None:
    view = FakeView(labelled("version=1", "version=1", "version=2"), ByLabels(fields, ["version"], Marks()))
    response = Response(200)
    view.policy.mark(asks(**labels), view.members[at], response)
    assert response.headers.get_all("X-Of") == marks


def test_a_stranger_marks_nothing() -> None:
    view = FakeView(labelled("version=1"), ByLabels(fields, ["version"], Marks()))
    response = Response(200)
    view.policy.mark(asks(version="1"), endpoints(1)[0], response)
    assert not response.headers


def test_a_field_of_the_request_may_be_the_label() -> None:
    members = labelled("version=1", "version=2")
    view = FakeView(members, by_header_label("X-Version", "version"))
    assert [view.choose(Asks(headers={"x-version": "2"})) for _ in range(2)] == [members[1]] * 2
    assert [view.choose() for _ in range(2)] == members
    strict = FakeView(members, by_header_label("X-Version", "version", Marks(), otherwise="none", subsets_max=1))
    assert strict.choose(Asks(headers={"X-Version": "2"})) is None
    assert strict.choose(Asks(headers={"X-Version": "1"})) is members[0]
    assert strict.choose(Asks(headers={"X-Version": ""})) is None
    assert isinstance(strict.policy, ByLabels)
    assert isinstance(strict.policy.inner, Marks)


def test_labels_given_twice_count_once() -> None:
    view = FakeView(labelled("version=1"), ByLabels(fields, ["version", "version"], subsets_max=1))
    assert isinstance(view.policy, ByLabels)
    assert list(view.policy.sections) == [(), (("version", "1"),)]


@pytest.mark.parametrize(
    ("labels", "arguments", "message"),
    [
        ([], {}, "labels is []; give the names of one to 4 labels, as ['version']"),
        ("version", {}, "labels is 'version'; give the names of one to 4 labels, as ['version']"),
        (list("abcde"), {}, "labels is ['a', 'b', 'c', 'd', 'e']; give the names of one to 4 labels, as ['version']"),
        (["a"], {"otherwise": "all"}, "otherwise is 'all'; it must be 'any' or 'none'"),
        (["a"], {"subsets_max": 0}, "subsets_max is 0; it must be 1 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(labels: list[str], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        ByLabels(fields, labels, **arguments)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_four_labels_and_256_subsets_are_the_most() -> None:
    assert ByLabels(fields, "abcd"[:LABELS_MAX].split()).subsets_max == SUBSETS_MAX == 256
    members = labelled(" ".join(f"{name}=1" for name in "abcd"))
    view = FakeView(members, ByLabels(fields, list("abcd")))
    assert isinstance(view.policy, ByLabels)
    assert len(view.policy.sections) == 16


LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"))


@given(st.lists(LABELS, min_size=1, max_size=8), LABELS, st.integers(0, 255), st.booleans())
def test_those_that_have_the_labels_serve_before_all_others(
    labels: list[dict[str, str]], wish: dict[str, str], closed: int, strict: bool
) -> None:
    members = endpoints(len(labels))
    for endpoint, each in zip(members, labels, strict=True):
        endpoint.labels = each
    view = FakeView(members, ByLabels(fields, list("abc"), otherwise="none" if strict else "any"))
    for at, endpoint in enumerate(members):
        if closed >> at & 1:
            view.close(endpoint)
    has = [each for each in members if wish.items() <= each.labels.items()]
    tried: list[str] = []
    while (chosen := view.choose(asks(tried, **wish))) is not None:
        assert chosen in has or all(each.name in tried or not each.open for each in has)
        assert chosen in has or not strict
        tried.append(chosen.name)
    assert len(tried) == len([each for each in (has if strict else members) if each.open])


# ----------------------------------------------------------------------------------------------------- deterministic


def subset(members: Sequence[Endpoint], instance: int, size: int) -> list[str]:
    """The names of the endpoints that a proxy uses while all are usable."""
    view = FakeView(members, DeterministicSubset(instance, size))
    return sorted({chosen.name for chosen in (view.choose() for _ in range(2 * size)) if chosen is not None})


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_any_number_of_proxies_use_all_endpoints_equally(count: int, size: int, instances: int) -> None:
    members = endpoints(count)
    uses = Counter({endpoint.name: 0 for endpoint in members})
    for instance in range(instances):
        names = subset(members, instance, size)
        assert len(names) == min(size, count)
        uses.update(names)
        assert max(uses.values()) - min(uses.values()) <= 1


def test_the_order_of_the_endpoints_and_their_names_and_weights_do_not_matter() -> None:
    members = endpoints(20)
    names = subset(members, 3, 5)
    assert subset(members[::-1], 3, 5) == names
    others = [Endpoint(each.address, name=f"b{at}", weight=1 + at % 3) for at, each in enumerate(members)]
    view = FakeView(others, DeterministicSubset(3, 5))
    assert {chosen.name for chosen in (view.choose() for _ in range(100)) if chosen is not None} == {
        f"b{name[1:]}" for name in names
    }


def test_subsets_are_the_same_for_ever() -> None:
    # Another proxy of the same number, of another version, say, must come to the same.
    members = endpoints(20)
    assert [subset(members, instance, 3) for instance in range(3)] == [
        ["a12", "a16", "a3"],
        ["a10", "a8", "a9"],
        ["a17", "a5", "a6"],
    ]


def test_subsets_differ_between_rounds() -> None:
    # If an endpoint is ill, the proxies that it hurts should not all be hurt by the same others.
    members = endpoints(12)
    seen = {tuple(subset(members, instance, 4)) for instance in range(30)}
    assert len(seen) >= 28


@pytest.mark.parametrize(("count", "size", "instances", "most"), [(100, 10, 50, 1.0), (300, 20, 37, 0.5)])
def test_where_an_endpoint_comes_or_goes_proxies_keep_almost_all_of_their_subsets(
    count: int, size: int, instances: int, most: float
) -> None:
    # Chapter 20 of "Site Reliability Engineering" changes 8 of 10, and 16 of 20, here.
    members = endpoints(count)
    changed = []
    for instance in range(instances):
        before = set(subset(members, instance, size))
        after = set(subset(members[:7] + members[8:], instance, size))
        changed.append(len(before - after))
    assert sum(changed) / instances < most


def test_the_policy_that_is_given_chooses_in_the_subset() -> None:
    inner = RoundRobin()
    assert DeterministicSubset(0, 1, inner).inner is inner


def test_another_group_at_the_same_address_is_another_endpoint() -> None:
    members = [Endpoint(("10.0.0.1", 80), name=name, group=name) for name in "ab"]
    assert {subset(members, 0, 1)[0], subset(members, 1, 1)[0]} == {"a", "b"}
    assert subset(members[::-1], 0, 1) == subset(members, 0, 1)


def test_a_subset_of_which_one_is_usable_is_kept_to_and_left_when_none_is() -> None:
    members = endpoints(10)
    view = FakeView(members, DeterministicSubset(1, 3))
    own = [each for each in members if each.name in subset(members, 1, 3)]
    view.close(own[0])
    view.close(own[1])
    assert {view.choose() for _ in range(10)} == {own[2]}
    assert view.choose(Asks(tried=[own[2].name])) not in own
    view.close(own[2])
    assert {view.choose() for _ in range(20)} == set(members) - set(own)
    view.reopen(own[0])
    assert {view.choose() for _ in range(10)} == {own[0]}


def test_with_enough_a_subset_spills_over_before() -> None:
    members = endpoints(10)
    view = FakeView(members, DeterministicSubset(1, 4, enough=1.0))
    own = [each for each in members if each.name in subset(members, 1, 4)]
    view.close(own[0])
    chosen = [view.choose() for _ in range(400)]
    assert sum(each in own for each in chosen) == pytest.approx(300, abs=29)


def test_a_proxy_works_out_the_subsets_before_its_own_in_slices() -> None:
    members = endpoints(SLICE // 4)
    assert sum(1 for _ in FakeView(members, DeterministicSubset(0, 5)).policy.arrange(members)) == 0
    assert sum(1 for _ in FakeView(members, DeterministicSubset(13, 5)).policy.arrange(members)) == 2
    many = endpoints(SLICE + 1)
    # one for the second half of the hashes, one for the proxy, and one for the sections
    assert sum(1 for _ in FakeView(many, DeterministicSubset(0, 5)).policy.arrange(many)) == 3


def test_an_address_that_is_no_text_is_an_address() -> None:
    members = [Endpoint("unix:/run/\udce9.sock", name="a"), Endpoint(("::1", 80), name="b")]
    assert len(subset(members, 0, 1)) == 1


@pytest.mark.parametrize(
    ("instance", "size", "message"),
    [
        (-1, 1, "instance is -1; proxies are counted from 0"),
        (0, 0, "size is 0; a subset needs at least one endpoint"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(instance: int, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        DeterministicSubset(instance, size)
    assert str(caught.value) == message
