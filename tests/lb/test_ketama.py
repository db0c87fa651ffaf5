"""The ring: where its points are, how it changes, and that it does so in slices. (That it is nginx's is shown in
tests/differential/test_ketama.py, the laws of all policies that hash in test_hashing.py.)"""

from __future__ import annotations

from array import array
from itertools import islice
from random import Random
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.peer import Routed
from coulee.lb import ketama
from coulee.lb.endpoint import Endpoint
from coulee.lb.ketama import BUCKET_POINTS, POINTS_MAX, Ketama, points_of, points_wanted
from tests.lb.stub import Asks, FakeView, endpoints


def target(exchange: Routed) -> str:
    return exchange.request.target


def ketama_of(view: FakeView) -> Ketama:
    assert isinstance(view.policy, Ketama)
    return view.policy


def entries(view: FakeView) -> list[tuple[int, str]]:
    """The points in order, with whose they are."""
    ring = ketama_of(view)._ring
    return [(entry >> 32, ring.endpoints[entry & 0xFFFFFFFF].name) for bucket in ring.buckets for entry in bucket]


def expected(members: list[Endpoint]) -> list[tuple[int, str]]:
    """The same, made the plain way."""
    return sorted(
        (point, endpoint.name)
        for endpoint in members
        for piece in points_of(endpoint.address, points_wanted(endpoint.weight, 0))
        for point in piece
    )


def test_the_points_are_chained() -> None:
    first = crc32(b"10.0.0.1\x0080\x00\x00\x00\x00")
    second = crc32(b"10.0.0.1\x0080" + first.to_bytes(4, "little"))
    assert next(points_of(("10.0.0.1", 80), 2)) == [first, second]
    assert next(points_of(("::1", 80), 1)) == [crc32(b"[::1]\x0080\x00\x00\x00\x00")]
    assert next(points_of("/run/a:80", 1)) == [crc32(b"/run/a:80\x00\x00\x00\x00\x00")]
    assert next(points_of("/run/\udcff", 1)) == [crc32(b"/run/\xed\xb3\xbf\x00\x00\x00\x00\x00")]
    assert list(points_of(("10.0.0.1", 80), 0)) == []


def test_many_points_come_in_pieces_of_one_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = next(points_of("/a", 100))
    monkeypatch.setattr(ketama, "SLICE_POINTS", 30)
    assert [len(piece) for piece in points_of("/a", 100)] == [30, 30, 30, 10]
    assert [point for piece in points_of("/a", 100) for point in piece] == whole


def test_a_weight_has_points() -> None:
    assert [points_wanted(weight, 0) for weight in (0, 1, 2)] == [0, 160, 320]
    assert [points_wanted(weight, 9) for weight in (0, 1, 7)] == [0, 1, 2]


@given(st.integers(0, 2**32), st.lists(st.sampled_from([0, 0, 1, 1, 2, 5, 9]), min_size=1, max_size=8))
def test_a_ring_that_has_changed_is_the_ring_built_anew(seed: int, weights: list[int]) -> None:
    rng = Random(seed)
    everybody = endpoints(len(weights), weights)
    view = FakeView(everybody[:1], Ketama(target))
    for _ in range(3):
        members = rng.sample(everybody, rng.randint(1, len(everybody)))
        for endpoint in members:
            endpoint.weight = rng.choice(weights)
        view.place(members)
        assert entries(view) == expected(members)
        buckets = len(ketama_of(view)._ring.buckets)
        assert buckets // 8 <= len(entries(view)) // BUCKET_POINTS <= buckets * 8


def test_a_new_ring_shares_what_has_not_changed() -> None:
    members = endpoints(200)
    view = FakeView(members, Ketama(target))
    before = ketama_of(view)._ring
    view.place(members[1:])
    after = ketama_of(view)._ring
    same = sum(old is new for old, new in zip(before.buckets, after.buckets, strict=True))
    touched = {point >> before.shift for point in next(points_of(members[0].address, 160))}
    assert same == len(before.buckets) - len(touched) > 0


def test_the_old_ring_is_in_use_until_the_new_one_is_whole() -> None:
    members = endpoints(120)
    view = FakeView(members[:100], Ketama(target))
    asks = [Asks(str(number)) for number in range(200)]
    before = [view.choose(ask) for ask in asks]
    work = view.policy.arrange(members[50:])
    slices = 0
    for _ in work:
        slices += 1
        assert [view.choose(ask) for ask in asks] == before
    assert slices >= 3
    assert [view.choose(ask) for ask in asks] != before


def test_what_is_not_run_to_its_end_has_changed_nothing() -> None:
    members = endpoints(120)
    view = FakeView(members[:100], Ketama(target))
    before = entries(view)
    assert len(list(islice(view.policy.arrange(members), 3))) == 3
    assert entries(view) == before
    view.place(members)
    assert entries(view) == expected(members)


def test_a_slice_is_not_more_than_a_few_thousand_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ketama, "SLICE_POINTS", 1000)
    view = FakeView(endpoints(1), Ketama(target))
    # 160 points each are made, sorted, and put into buckets
    assert 80 <= sum(1 for _ in view.policy.arrange(endpoints(200))) <= 100
    # ten that stay, and one with 16,000 points
    members = endpoints(11, [1] * 10 + [100])
    view.place(members[:10])
    assert 40 <= sum(1 for _ in view.policy.arrange(members)) <= 60
    # nobody comes or goes: they are looked through three times
    many = endpoints(2000)
    view.place(many)
    assert 4 <= sum(1 for _ in view.policy.arrange(many)) <= 6


def test_an_endpoint_with_the_same_address_takes_the_old_ones_place() -> None:
    members = endpoints(5)
    view = FakeView(members, Ketama(target))
    ring = ketama_of(view)._ring
    again = endpoints(5)
    view.place(again)
    assert all(new is old for new, old in zip(ketama_of(view)._ring.buckets, ring.buckets, strict=True))
    assert list(ketama_of(view)._ring.endpoints.values()) == again


def test_a_key_belongs_to_the_first_point_not_below_it_or_to_the_lowest(monkeypatch: pytest.MonkeyPatch) -> None:
    view = FakeView(endpoints(40), Ketama(target))
    assert len(ketama_of(view)._ring.buckets) == 32
    points = entries(view)
    hashes = {b"on": points[3000][0], b"above": points[3000][0] + 1, b"last": 2**32 - 1, b"first": 0}
    monkeypatch.setattr(ketama, "crc32", lambda key: hashes[key])
    names = [name for _, name in points]
    for key, at in (("on", 3000), ("above", 3001), ("last", 0), ("first", 0)):
        walk = [endpoint.name for endpoint in ketama_of(view).walk(key.encode())]
        assert walk == names[at:] + names[:at]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_with_one_point_it_is_the_first_by_address(order: int) -> None:
    pair = [Endpoint(("127.0.0.48", 9002)), Endpoint(("127.0.0.149", 9003))]
    view = FakeView(pair[::order], Ketama(target))
    at = [name for point, name in entries(view) if point == 0x423AB33B]
    assert at == ["127.0.0.149:9003", "127.0.0.48:9002"]
    chosen = view.choose(Asks("k9528"))
    assert chosen is pair[1]
    view.close(pair[1])
    assert view.choose(Asks("k9528")) is pair[0]
    view.place(pair[:1])
    assert view.choose(Asks("k9528")) is pair[0]


def test_there_is_a_bound_on_points() -> None:
    heavy = endpoints(3, [65535, 65535, 1])
    assert ketama.ring_for(ketama.Ring(0, 0), heavy).halvings == 3
    wanted = [points_wanted(endpoint.weight, 3) for endpoint in heavy]
    assert sum(wanted) <= POINTS_MAX
    assert wanted == [65535 * 20, 65535 * 20, 20]


def test_a_ring_with_other_halvings_is_built_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    members = endpoints(20)
    view = FakeView(members, Ketama(target))
    whole = entries(view)
    monkeypatch.setattr(ketama, "POINTS_MAX", 160 * 15)
    view.place(members)
    assert len(entries(view)) == 20 * 80
    assert set(entries(view)) < set(whole)
    monkeypatch.setattr(ketama, "POINTS_MAX", 160 * 20)
    view.place(members)
    assert entries(view) == whole


def test_an_empty_ring_has_no_walk() -> None:
    view = FakeView(endpoints(2, [0, 0]), Ketama(target))
    assert view.choose(Asks("a")) is None
    assert ketama_of(view)._ring.buckets == [array("Q")]
