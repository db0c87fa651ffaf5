"""The checker, in virtual time: who is checked when, how many at once, what a check comes to, what is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import suppress
from itertools import pairwise
from types import coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.errors import ExchangeError
from coulee.core.kernel import Cancelled, Task, deadline, shielded, sleep
from coulee.lb.checks import CAUSE_CHARACTERS_MAX, Checker, cause_of
from coulee.lb.endpoint import Endpoint
from coulee.lb.health import CheckFailed, HealthCheck
from tests.lb.bench import Bench
from tests.lb.stub import endpoints

Answer = str | BaseException | Callable[[], Awaitable[object]]


class Trial:
    """A checker with its cluster, and endpoints that answer as they are told.

    `answers[name]` is what a check of that endpoint comes to: "" for healthy, a cause, an exception, or something to
    await; `takes_s[name]` is how long it takes.
    """

    def __init__(self, members: Sequence[Endpoint], *, seed: int = 0, **settings: Any) -> None:
        self.bench = Bench(seed)
        self.rng = self.bench.rng
        self.members = list(members)
        self.answers: dict[str, Answer] = {}
        self.takes_s: dict[str, float] = {}
        self.begun: list[tuple[float, str]] = []
        self.ended: list[tuple[float, str]] = []
        self.running: list[str] = []
        self.told: list[tuple[float, str, str]] = []
        self.on_told: Callable[[], None] = lambda: None
        self.checker = Checker(HealthCheck(self.probe, **{"jitter": 0.0} | settings), self)
        self.task: Task | None = None

    async def probe(self, endpoint: Endpoint) -> None:
        """One check."""
        name = endpoint.name
        self.begun.append((self.bench.now, name))
        self.running.append(name)
        try:
            if self.takes_s.get(name):
                await sleep(self.takes_s[name])
            answer = self.answers.get(name, "")
            if isinstance(answer, BaseException):
                raise answer
            if callable(answer):
                await answer()
            elif answer:
                raise CheckFailed(answer)
        finally:
            self.running.remove(name)
            self.ended.append((self.bench.now, name))

    def checked(self, endpoint: Endpoint, cause: str) -> None:
        """The cluster hears of it."""
        assert endpoint.health is not None
        assert endpoint.health.healthy == (cause == "")
        self.told.append((self.bench.now, endpoint.name, cause))
        self.on_told()

    def start(self) -> Trial:
        """Begin to check."""
        self.task = self.bench.runs(self.checker.run())
        return self

    def stop(self) -> None:
        """Cancel what checks."""
        assert self.task is not None
        self.bench.does(self.task.cancel)

    def refresh(self) -> None:
        """The cluster says that something has changed."""
        self.bench.does(self.checker.refresh)

    def healthy(self, index: int = 0) -> bool:
        """What is known of an endpoint."""
        health = self.members[index].health
        assert health is not None
        return health.healthy


# ---------------------------------------------------------------------------------------------------- pace


def test_all_are_checked_at_the_start_and_then_each_interval() -> None:
    trial = Trial(endpoints(3), interval_s=5).start()
    assert trial.begun == [(0, "a0"), (0, "a1"), (0, "a2")]
    trial.bench.wait(4.9)
    assert len(trial.begun) == 3
    trial.bench.wait(5.2)
    assert trial.begun[3:] == [(5, "a0"), (5, "a1"), (5, "a2"), (10, "a0"), (10, "a1"), (10, "a2")]


def test_an_interval_runs_from_the_start_of_a_check() -> None:
    trial = Trial(endpoints(1), interval_s=5)
    trial.takes_s["a0"] = 1.5
    trial.start().bench.wait(11)
    assert [when for when, _ in trial.begun] == [0, 5, 10]


def test_a_check_that_outlasts_its_interval_is_followed_by_the_next() -> None:
    trial = Trial(endpoints(1), interval_s=1, timeout_s=10)
    trial.takes_s["a0"] = 1.5
    trial.start().bench.wait(4)
    assert [when for when, _ in trial.begun] == [0, 1.5, 3]


def test_an_endpoint_that_fails_is_checked_more_often_until_it_is_healthy_and_certain() -> None:
    trial = Trial(endpoints(2), interval_s=5, unhealthy_interval_s=1, fall=3, rise=2)
    trial.answers["a0"] = "down"
    trial.start().bench.wait(2.5)
    trial.answers["a0"] = ""
    trial.bench.wait(8)
    assert [when for when, name in trial.begun if name == "a0"] == [0, 1, 2, 3, 4, 9]
    assert [when for when, name in trial.begun if name == "a1"] == [0, 5, 10]
    assert trial.told == [(2, "a0", "down"), (4, "a0", "")]


def test_no_more_run_at_once_than_may_and_the_others_wait_their_turn() -> None:
    trial = Trial(endpoints(5), at_once_max=2, interval_s=10)
    trial.takes_s = {"a0": 1.0, "a1": 0.5, "a2": 1.0}
    trial.start()
    assert trial.running == ["a0", "a1"]
    trial.bench.wait(0.5)
    assert trial.running == ["a0", "a2"]
    trial.bench.wait(9)
    assert trial.begun == [(0, "a0"), (0, "a1"), (0.5, "a2"), (1, "a3"), (1, "a4")]
    trial.bench.wait(1.5)
    assert trial.begun[5:8] == [(10, "a1"), (10, "a0"), (10.5, "a2")]


def test_jitter_makes_intervals_shorter_by_its_share_at_most_and_equal_seeds_alike() -> None:
    def begun(seed: int) -> list[float]:
        trial = Trial(endpoints(1), seed=seed, interval_s=10, jitter=0.25).start()
        trial.bench.wait(2000)
        return [when for when, _ in trial.begun]

    times = begun(1)
    pauses = [later - sooner for sooner, later in pairwise(times)]
    assert 7.5 < min(pauses) < 7.7
    assert 9.8 < max(pauses) <= 10
    assert times == begun(1)
    assert times != begun(2)


def test_while_nothing_is_due_there_is_one_task_and_one_alarm() -> None:
    trial = Trial(endpoints(100), at_once_max=100).start()
    trial.bench.wait(1)
    assert trial.bench.left == {"tasks": 1, "alarms": 1}


# --------------------------------------------------------------------------------------- what a check comes to


def test_the_cluster_hears_of_a_change_and_of_another_cause_and_of_nothing_else() -> None:
    trial = Trial(endpoints(1), interval_s=1, fall=2, rise=2).start()
    for answer in ("refused", "refused", "refused", "silent", "", "silent", "", ""):
        trial.answers["a0"] = answer
        trial.bench.wait(1)
    assert trial.told == [(2, "a0", "refused"), (4, "a0", "silent"), (8, "a0", "")]


def test_an_endpoint_that_starts_unhealthy_is_healthy_with_its_first_check() -> None:
    trial = Trial(endpoints(2), start="unhealthy", rise=3)
    trial.answers["a1"] = "down"
    trial.start()
    assert trial.told == [(0, "a0", ""), (0, "a1", "down")]
    assert [trial.healthy(0), trial.healthy(1)] == [True, False]


def test_a_check_that_takes_too_long_is_cancelled_and_bad() -> None:
    trial = Trial(endpoints(1), fall=1, timeout_s=2)
    trial.takes_s["a0"] = 3
    trial.start().bench.wait(2.5)
    assert trial.ended == [(2, "a0")]
    assert trial.told == [(2, "a0", "no answer within 2 s")]


def test_a_check_that_ends_in_time_is_good_at_the_last_moment() -> None:
    trial = Trial(endpoints(1), fall=1, timeout_s=2)
    trial.takes_s["a0"] = 1.99
    trial.start().bench.wait(4)
    assert trial.told == []


async def deaf() -> None:
    """Takes the end of its time for nothing, once."""
    with suppress(Cancelled):
        await sleep(10)


async def stubborn() -> None:
    """... and again, and again."""
    while True:
        with suppress(Cancelled):
            await sleep(10)


async def clumsy() -> None:
    """Breaks when it is told that its time is over."""
    try:
        await sleep(10)
    finally:
        raise RuntimeError("broken")


async def impatient() -> None:
    """Has a time limit of its own."""
    with deadline(0.5):
        await sleep(10)


@coroutine
def foreign() -> Generator[Any, Any, None]:
    """Awaits what belongs to another event loop."""
    yield object()


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (CheckFailed("status 503"), "status 503"),
        (ExchangeError("upstream_refused"), "upstream_refused: nothing listens at the endpoint's address"),
        (KeyError("a"), "KeyError: 'a'"),
        (ValueError(), "ValueError"),
        (CheckFailed(), "CheckFailed"),
        (SystemExit(3), "SystemExit: 3"),
        (Cancelled(), "Cancelled"),
        (GeneratorExit(), "GeneratorExit"),
        (deaf, "no answer within 2 s"),
        (clumsy, "no answer within 2 s"),
        (impatient, "DeadlineExceeded: no end within 0.5 s"),
        (stubborn, "RuntimeError: a task caught 100 exceptions meant to end it, and was abandoned"),
        (foreign, "TypeError: a filter awaited something that belongs to another event loop (object)."),
    ],
)
def test_a_check_that_raises_is_bad_whatever_it_raises_and_is_followed_by_others(answer: Answer, cause: str) -> None:
    trial = Trial(endpoints(2), fall=1, interval_s=5, unhealthy_interval_s=5, timeout_s=2)
    trial.answers["a0"] = answer
    trial.start().bench.wait(4)
    ((_, name, text),) = trial.told
    assert name == "a0"
    assert text.startswith(cause)
    trial.answers["a0"] = ""
    trial.bench.wait(6)
    assert [name for _, name, _ in trial.told] == ["a0", "a0"]
    assert trial.healthy()
    trial.stop()
    assert trial.bench.left == {}


def test_a_probe_that_is_no_async_function_is_a_bad_check() -> None:
    trial = Trial(endpoints(1), fall=1)
    settings: Any = HealthCheck(lambda endpoint: None, fall=1)  # type: ignore[arg-type,return-value]
    trial.checker = Checker(settings, trial)
    trial.start()
    assert trial.told == [(0, "a0", "TypeError: object NoneType can't be used in 'await' expression")]


class Mute(Exception):
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError


def test_a_cause_is_one_short_line() -> None:
    assert cause_of(Mute()) == "Mute"
    assert cause_of(CheckFailed("a\r\nb\x00c\x1b[0m")) == "a  b c [0m"
    assert cause_of(CheckFailed("a" * 1000)) == "a" * CAUSE_CHARACTERS_MAX


# -------------------------------------------------------------------------------------------------- members


def test_members_that_come_are_checked_at_once_and_those_that_leave_no_more() -> None:
    members = endpoints(3)
    trial = Trial(members[:2], interval_s=5).start()
    trial.bench.wait(2)
    trial.members = [members[2], members[1]]
    trial.refresh()
    assert trial.begun[2:] == [(2, "a2")]
    trial.bench.wait(6)
    assert trial.begun[3:] == [(5, "a1"), (7, "a2")]


def test_the_check_of_an_endpoint_that_leaves_is_ended_and_nobody_hears_of_it() -> None:
    trial = Trial(endpoints(3), fall=1, at_once_max=2)
    trial.takes_s = {"a0": 1.0, "a1": 1.0}
    trial.answers = {"a0": "down", "a2": "down"}
    trial.start()
    gone = trial.members.pop(0)
    trial.refresh()
    assert trial.ended[0] == (0, "a0")
    assert trial.told == [(0, "a2", "down")]  # it has the room that has become free
    assert gone.health is None
    trial.bench.wait(3)
    assert [name for _, name in trial.begun].count("a0") == 1


def test_who_leaves_the_queue_is_not_checked() -> None:
    trial = Trial(endpoints(3), at_once_max=1)
    trial.takes_s = {"a0": 1.0}
    trial.start()
    del trial.members[1]
    trial.refresh()
    trial.bench.wait(1)
    assert trial.begun == [(0, "a0"), (1, "a2")]


def test_an_endpoint_in_maintenance_is_not_checked_and_keeps_what_is_known_of_it() -> None:
    trial = Trial(endpoints(2), fall=1, interval_s=5, unhealthy_interval_s=1)
    trial.answers["a0"] = "down"
    trial.start()
    trial.members[0].service = "maintenance"
    trial.refresh()
    trial.bench.wait(4)
    assert trial.begun == [(0, "a0"), (0, "a1")]
    assert not trial.healthy()
    trial.members[0].service = "drain"
    trial.refresh()
    assert trial.begun[2:] == [(4, "a0")]


def test_an_endpoint_that_leaves_and_comes_back_is_checked_once() -> None:
    trial = Trial(endpoints(1), interval_s=5)
    trial.takes_s["a0"] = 1
    trial.start().bench.wait(0.5)
    (member,) = trial.members
    for members in ([], [member]):
        trial.members = members
        trial.refresh()
    assert trial.begun == [(0, "a0"), (0.5, "a0")]
    assert trial.running == ["a0"]
    trial.bench.wait(6)
    assert trial.begun[2:] == [(5.5, "a0")]
    assert trial.members[0].health is not None
    assert trial.members[0].health.checks == 2


def test_an_endpoint_may_leave_and_come_back_from_within_its_own_check() -> None:
    trial = Trial(endpoints(1), fall=1)
    (member,) = trial.members

    async def replaced() -> None:
        trial.answers["a0"] = ""
        for members in ([], [member]):
            trial.members = members
            trial.checker.refresh()
        await sleep(0)

    trial.answers["a0"] = replaced
    trial.start().bench.wait(1)
    assert trial.begun == [(0, "a0"), (0, "a0")]
    assert trial.told == []
    assert member.health is not None
    assert member.health.checks == 1


def test_who_is_due_first_is_checked_first_when_another_has_left() -> None:
    members = endpoints(3)
    trial = Trial(members[:2], interval_s=5, unhealthy_interval_s=1)
    trial.answers = {"a0": "down", "a2": "down"}
    trial.start().bench.wait(0.5)
    trial.members = members
    trial.refresh()
    trial.bench.wait(0.25)
    trial.members = members[1:]
    trial.refresh()
    trial.bench.wait(1)
    assert trial.begun[2:] == [(0.5, "a2"), (1.5, "a2")]


def test_the_cluster_may_refresh_while_it_is_told() -> None:
    trial = Trial(endpoints(3), fall=1, interval_s=5)
    trial.answers["a1"] = "down"

    def remove() -> None:
        trial.members = [member for member in trial.members if member.name != "a1"]
        trial.checker.refresh()

    trial.on_told = remove
    trial.start().bench.wait(6)
    assert trial.begun == [(0, "a0"), (0, "a1"), (0, "a2"), (5, "a0"), (5, "a2")]


def test_a_cluster_without_endpoints_waits_for_some() -> None:
    trial = Trial([]).start()
    trial.bench.wait(10)
    trial.members = endpoints(1)
    trial.refresh()
    assert trial.begun == [(10, "a0")]


def test_what_the_cluster_knows_of_health_is_gone_on_with() -> None:
    trial = Trial(endpoints(1), fall=2, interval_s=1)
    trial.answers["a0"] = "down"
    trial.start()
    trial.stop()
    assert trial.told == []
    trial.start()
    assert trial.told == [(0, "a0", "down")]


# ------------------------------------------------------------------------------------------------------ end


def test_cancelling_leaves_nothing_behind() -> None:
    trial = Trial(endpoints(6), at_once_max=2, interval_s=5)
    trial.start()
    trial.takes_s = dict.fromkeys(("a0", "a1", "a2", "a3"), 1.0)
    trial.bench.wait(5.5)
    assert trial.running == ["a0", "a1"]
    trial.stop()
    assert trial.running == []
    assert trial.bench.left == {}
    trial.bench.wait(20)
    assert len(trial.begun) == 8


async def guarded() -> None:
    """Wants to end what it has begun."""
    with shielded(30):
        await sleep(20)


def test_cancelling_does_not_wait_for_a_probe_that_shields_itself() -> None:
    trial = Trial(endpoints(1))
    trial.answers["a0"] = guarded
    trial.start().stop()
    assert trial.running == []
    assert trial.bench.left == {}


def test_the_cluster_may_end_it_while_it_is_told() -> None:
    trial = Trial(endpoints(3), start="unhealthy", at_once_max=1)
    trial.takes_s["a0"] = 0.5
    trial.start()
    assert trial.task is not None
    trial.on_told = trial.task.cancel
    trial.bench.wait(10)
    assert trial.told == [(0.5, "a0", "")]
    assert trial.begun == [(0, "a0")]
    assert trial.bench.left == {}


def test_what_was_about_to_begin_does_not_when_it_is_cancelled_in_the_same_turn() -> None:
    trial = Trial(endpoints(1))

    def start_and_stop() -> None:
        trial.bench.kernel.start(trial.checker.run(), lambda task: None).cancel()

    trial.bench.does(start_and_stop)
    assert trial.begun == []
    assert trial.bench.left == {}


def test_a_refresh_before_the_start_or_behind_the_end_does_nothing() -> None:
    trial = Trial(endpoints(1))
    trial.refresh()
    assert trial.begun == []
    trial.start()
    trial.stop()
    trial.refresh()
    assert len(trial.begun) == 1
    assert trial.bench.left == {}


def test_two_runs_at_once_are_a_mistake() -> None:
    trial = Trial(endpoints(1)).start()
    with pytest.raises(AssertionError, match="it runs already"):
        raise trial.bench.runs(trial.checker.run()).error or RuntimeError
    trial.bench.wait(6)
    assert len(trial.begun) == 2


# ---------------------------------------------------------------------------------------------------- laws

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.1, 0.7, 1.0, 3.0, 6.0])),
        st.tuples(st.just("members"), st.lists(st.integers(0, 5), unique=True, max_size=6)),
        st.tuples(st.just("answer"), st.tuples(st.integers(0, 5), st.sampled_from(["", "down"]))),
        st.tuples(st.just("takes"), st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.3, 1.5, 9.0]))),
        st.tuples(st.just("maintenance"), st.integers(0, 5)),
    ),
    max_size=14,
)


def play(steps: Sequence[tuple[str, Any]], at_once_max: int) -> Trial:
    """Any life of a cluster. What must hold at any time is looked at on the way."""
    everybody = endpoints(6)
    trial = Trial(everybody, at_once_max=at_once_max, interval_s=2, unhealthy_interval_s=1, jitter=0.1).start()
    for what, value in steps:
        if what == "wait":
            for _ in range(round(value * 10)):
                trial.bench.wait(0.1)
                serving = [each.name for each in trial.members if each.service != "maintenance"]
                assert len(trial.running) <= at_once_max
                assert len(trial.running) == len({*trial.running})
                assert {*trial.running} <= {*serving}
        elif what == "members":
            trial.members = [everybody[index] for index in value]
            trial.refresh()
        elif what == "answer":
            trial.answers[f"a{value[0]}"] = value[1]
        elif what == "takes":
            trial.takes_s[f"a{value[0]}"] = value[1]
        else:
            endpoint = everybody[value]
            endpoint.service = "ready" if endpoint.service == "maintenance" else "maintenance"
            trial.refresh()
    return trial


@given(STEPS, st.integers(1, 4))
def test_in_any_life_of_a_cluster_all_members_are_checked_and_nothing_is_left(
    steps: list[tuple[str, Any]], at_once_max: int
) -> None:
    trial = play(steps, at_once_max)
    begun = len(trial.begun)
    serving = [each.name for each in trial.members if each.service != "maintenance"]
    trial.bench.wait(2 + 2 * 6)  # an interval, and six checks one after another that all run out of time
    assert {name for _, name in trial.begun[begun:]} == {*serving}
    again = play(steps, at_once_max)
    assert again.begun == trial.begun[: len(again.begun)]
    trial.stop()
    assert trial.bench.left == {}
    assert trial.running == []
