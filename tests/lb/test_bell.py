"""The bell: what ends by time is told when it ends, and when nothing does there is no alarm."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from coulee.core.kernel import Kernel
from coulee.lb.bell import LATENCY_WINDOW_S, Bell
from coulee.lb.endpoint import Endpoint
from tests.lb.bench import Bench
from tests.lb.stub import endpoints


class Minder:
    """A cluster, as the bell sees it: `dues` has what ends when, by name. What has ended is no more due."""

    def __init__(self, count: int = 3, *, interval_s: float = 10.0, started: bool = True) -> None:
        self.bench = Bench()
        self.members = endpoints(count)
        self.dues: dict[str, list[float]] = {}
        self.told: list[tuple[float, str]] = []
        self.started = started
        self.bell = Bell(self, interval_s)

    @property
    def kernel(self) -> Kernel | None:
        return self.bench.kernel if self.started else None

    def due(self, endpoint: Endpoint) -> float:
        return min(self.dues.get(endpoint.name, []), default=inf)

    def expire(self, endpoint: Endpoint, now: float) -> None:
        self.told.append((self.bench.now, endpoint.name))
        assert now == self.bench.now
        self.dues[endpoint.name] = [due for due in self.dues[endpoint.name] if due > now]
        self.bell.mind(endpoint)

    def sweep(self) -> None:
        self.told.append((self.bench.now, "sweep"))

    def mind(self, index: int, *dues: float) -> None:
        """These are the times of an endpoint from now on."""
        self.dues[f"a{index}"] = list(dues)
        self.bench.does(lambda: self.bell.mind(self.members[index]))

    def count(self) -> None:
        """A request, as the cluster notes it."""
        if not self.bell.counting:
            self.bench.does(self.bell.count)

    @property
    def at(self) -> float | None:
        """When it will ring."""
        return self.bench.deadline


def test_each_is_told_when_its_time_has_come_and_then_there_is_no_alarm() -> None:
    minder = Minder()
    minder.mind(0, 5)
    minder.mind(1, 3, 7)
    minder.mind(2)
    assert minder.at == 3
    minder.bench.wait(20)
    assert minder.told == [(3, "a1"), (5, "a0"), (7, "a1")]
    assert minder.at is None


def test_those_that_end_at_once_are_told_in_the_order_in_which_they_were_minded() -> None:
    minder = Minder(4)
    for index in (2, 0, 3, 1):
        minder.mind(index, 4)
    minder.bench.wait(4)
    assert minder.told == [(4, "a2"), (4, "a0"), (4, "a3"), (4, "a1")]


def test_what_ends_later_than_was_known_or_not_at_all_is_not_told_before() -> None:
    minder = Minder()
    minder.mind(0, 2)
    minder.mind(1, 2)
    minder.mind(0, 6)
    minder.mind(1)
    minder.bench.wait(5)
    assert minder.told == []
    minder.bench.wait(5)
    assert minder.told == [(6, "a0")]
    assert minder.at is None


def test_what_ends_earlier_than_was_known_is_told_then() -> None:
    minder = Minder()
    minder.mind(0, 9)
    minder.mind(1, 4)
    minder.mind(0, 2)
    minder.bench.wait(20)
    assert minder.told == [(2, "a0"), (4, "a1")]


def test_of_one_that_has_left_nothing_is_told() -> None:
    minder = Minder()
    minder.mind(0, 4)
    minder.bell.forget(minder.members[0])
    minder.bell.forget(minder.members[1])  # nothing of it was known
    minder.bench.wait(20)
    assert minder.told == []
    assert minder.at is None


def test_an_interval_begins_with_the_first_request_in_it() -> None:
    minder = Minder(interval_s=10)
    minder.bench.wait(7)
    assert minder.at is None
    minder.count()
    minder.bench.wait(4)
    minder.count()  # is in it
    assert minder.bell.counting
    minder.bench.wait(6)
    assert not minder.bell.counting
    minder.bench.wait(30)
    assert minder.told == [(17, "sweep")]
    minder.count()
    minder.bench.wait(10)
    assert minder.told == [(17, "sweep"), (57, "sweep")]


def test_latencies_are_forgotten_after_two_windows_and_when_there_are_none_there_is_no_alarm() -> None:
    minder = Minder(2, interval_s=10)
    minder.bench.wait(5)
    minder.count()
    latency = minder.members[1].latency
    latency.add(0.5)
    minder.bench.wait(LATENCY_WINDOW_S)
    assert latency.count == 1
    minder.count()
    latency.add(0.5)
    minder.bench.wait(LATENCY_WINDOW_S - 1)
    assert latency.count == 2
    minder.bench.wait(1)
    assert latency.count == 1
    minder.bench.wait(LATENCY_WINDOW_S)
    assert latency.count == 0
    assert minder.at is not None
    minder.bench.wait(LATENCY_WINDOW_S)
    assert minder.at is None
    minder.count()
    assert minder.at == minder.bench.now + 10  # and all begins anew
    latency.add(0.5)
    minder.bench.wait(2 * LATENCY_WINDOW_S)
    assert latency.count == 0


def test_a_window_does_not_begin_anew_with_each_interval() -> None:
    minder = Minder(1, interval_s=7)
    latency = minder.members[0].latency
    minder.count()
    latency.add(0.5)
    for _ in range(19):
        minder.bench.wait(7)
        minder.count()
    assert latency.count == 0


def test_before_its_cluster_has_started_nothing_is_set() -> None:
    minder = Minder(started=False)
    minder.mind(0, 4)
    minder.bench.does(minder.bell.count)
    assert not minder.bell.counting
    minder.bell.stop()
    assert minder.at is None


def test_stopped_it_rings_no_more() -> None:
    minder = Minder()
    minder.mind(0, 4)
    minder.count()
    minder.bench.does(minder.bell.stop)
    assert minder.at is None
    minder.mind(1, 4)
    minder.bench.does(minder.bell.count)
    assert minder.at is None
    minder.bench.wait(100)
    assert minder.told == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 4)), max_size=30))
def test_whatever_is_minded_each_is_told_at_the_last_time_that_was_said(steps: list[tuple[int, int, int]]) -> None:
    minder = Minder(4)
    due: dict[str, float] = {}
    expected: list[tuple[float, str]] = []
    for index, in_s, pause_s in steps:
        due[f"a{index}"] = minder.bench.now + in_s
        minder.mind(index, minder.bench.now + in_s)
        until = minder.bench.now + pause_s
        expected += [(at, name) for name, at in due.items() if at <= until]
        due = {name: at for name, at in due.items() if at > until}
        minder.bench.wait(pause_s)
    minder.bench.wait(10)
    expected += [(at, name) for name, at in due.items()]
    assert sorted(minder.told) == sorted(expected)
    assert minder.at is None
