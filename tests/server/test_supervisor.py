"""The supervisor as what it is, a state machine: it is told what happened, and says what is to be done."""

from __future__ import annotations

from typing import Any

import pytest

from coulee.server.supervisor import (
    ANSWERS_MAX,
    BACKOFF_MAX_S,
    LATE_S,
    NOT_NOW,
    SETTLED_S,
    Action,
    Answer,
    Drain,
    End,
    EndSuccessor,
    Kill,
    Leave,
    Listening,
    Notify,
    Say,
    Start,
    Succeed,
    Supervisor,
)

GRACE_S = 30.0


class World:
    """A supervisor and its time; worker N is given the pid 100 + N."""

    def __init__(self, workers: int = 2, **options: Any) -> None:
        self.machine = Supervisor(workers=workers, grace_s=GRACE_S, pid=99, **options)
        self.now = 1000.0
        self.machine.begin(self.now)

    def take(self) -> list[Action]:
        """What it wants done; notices for the service manager apart."""
        return [action for action in self.all() if not isinstance(action, Notify)]

    def all(self) -> list[Action]:
        actions, self.machine.actions = self.machine.actions, []
        for action in actions:
            if isinstance(action, Start):
                self.machine.started(action.worker, 100 + action.worker)
        return actions

    def ready(self, *workers: int) -> list[Action]:
        for worker in workers:
            self.machine.ready(worker, self.now)
        return self.take()

    def died(self, worker: int, how: str = "was killed by SIGKILL", code: int = -9) -> list[Action]:
        self.machine.died(worker, how, code, self.now)
        return self.take()

    def later(self, seconds: float) -> list[Action]:
        self.now += seconds
        self.machine.tick(self.now)
        return self.take()

    def reload(self, asker: int | None = None) -> list[Action]:
        self.machine.reload(asker, self.now)
        return self.take()

    def stop(self) -> list[Action]:
        self.machine.stop(self.now)
        return self.take()

    def pids(self) -> list[tuple[int, str]]:
        workers: Any = self.machine.status(self.now)["workers"]
        return [(worker["pid"], worker["state"]) for worker in workers]


def serving(workers: int = 2, **options: Any) -> World:
    """One whose first generation is ready."""
    world = World(workers, **options)
    world.take()
    assert world.ready(*range(1, workers + 1)) == [Listening()]
    return world


def said(actions: list[Action]) -> str:
    return "\n".join(action.text for action in actions if isinstance(action, Say))


# ------------------------------------------------------------------------------------------------- start and death


def test_it_listens_when_all_of_the_first_generation_are_ready() -> None:
    world = World()
    assert world.take() == [Start(1, looks=True), Start(2, looks=False)]
    assert world.ready(2) == []
    assert world.ready(1) == [Listening()]
    assert world.pids() == [(101, "ready"), (102, "ready")]


def test_a_program_that_cannot_start_is_the_end_with_its_line_and_code() -> None:
    world = World()
    world.take()
    world.machine.cannot(2, "app.py:3: NameError: name 'Prxy' is not defined")
    assert world.died(2, "ended with code 2", 2) == [Leave(), Drain(1)]
    assert world.later(0.0) == [Kill(1)]
    assert world.died(1) == [End(2, "app.py:3: NameError: name 'Prxy' is not defined")]


def test_a_worker_that_is_killed_while_it_starts_is_the_end_with_code_1() -> None:
    world = World(1)
    world.take()
    assert world.died(1) == [Leave(), End(1, "worker 101 was killed by SIGKILL while it started")]


def test_a_dead_worker_is_replaced_at_once_and_then_with_back_off() -> None:
    world = serving()
    waits: list[float] = []
    worker = 2
    for _ in range(10):
        line = said(world.died(worker))
        assert f"! worker {100 + worker} was killed by SIGKILL; another one starts " in line
        wait_s = world.machine.deadline - world.now
        waits.append(round(wait_s, 6))
        assert line.endswith("at once" if not waits[-1] else f"in {waits[-1]:g} s")
        if wait_s:
            assert world.later(wait_s - 0.01) == []
        [start] = world.later(0.0 if not wait_s else 0.011)
        assert isinstance(start, Start)
        assert start.looks is False
        worker = start.worker
        assert said(world.ready(worker)) == f"worker {100 + worker} is ready"
    assert waits == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, BACKOFF_MAX_S, BACKOFF_MAX_S]
    status: Any = world.machine.status(world.now)
    assert [each["restarts"] for each in status["workers"]] == [0, 10]


def test_who_has_lived_long_enough_is_replaced_at_once_again() -> None:
    world = serving()
    world.died(2)
    [start] = world.later(0.0)
    assert isinstance(start, Start)
    world.ready(start.worker)
    world.later(SETTLED_S)
    assert said(world.died(start.worker)).endswith("at once")


def test_a_replacement_that_cannot_start_is_told_and_tried_again_and_the_others_go_on() -> None:
    world = serving()
    world.died(2)
    world.later(0.0)
    world.machine.cannot(3, "app.py:1: invalid syntax")
    line = said(world.died(3, "ended with code 2", 2))
    assert line == "! worker 103 ended with code 2 (app.py:1: invalid syntax); another one starts in 0.1 s"
    assert world.pids() == [(101, "ready")]
    assert world.later(0.11) == [Start(4, looks=False)]


# ----------------------------------------------------------------------------------------------------------- reload


def test_a_reload_drains_the_old_when_all_of_the_new_are_ready() -> None:
    world = serving()
    assert world.reload(asker=7) == [Start(3, looks=True), Start(4, looks=False)]
    assert world.ready(4) == []
    text = "reloaded: 2 new workers (pids 103, 104)"
    assert world.ready(3) == [Drain(1), Drain(2), Say(text), Answer(7, True, text)]
    assert world.pids() == [(103, "ready"), (104, "ready"), (101, "draining"), (102, "draining")]
    assert world.died(1, "ended with code 0", 0) == []
    assert world.died(2, "ended with code 0", 0) == []
    assert world.pids() == [(103, "ready"), (104, "ready")]


def test_a_new_generation_that_cannot_start_leaves_the_old_one_as_it_was() -> None:
    world = serving()
    world.reload(asker=7)
    world.ready(3)
    world.machine.cannot(4, "app.py:2: invalid syntax")
    assert world.died(4, "ended with code 2", 2) == [
        Drain(3),  # it may have a connection by now, and finishes it
        Say("! not reloaded: app.py:2: invalid syntax; the workers of before go on"),
        Answer(7, False, "app.py:2: invalid syntax"),
    ]
    assert world.died(3, "ended with code 0", 0) == []
    assert world.pids() == [(101, "ready"), (102, "ready")]
    assert world.reload(asker=8) == [Start(5, looks=True), Start(6, looks=False)], "and it may be tried again"


def test_what_asks_during_a_reload_gets_one_that_begins_after_it_and_those_who_wait_share_it() -> None:
    world = serving(1)
    assert world.reload(asker=1) == [Start(2, looks=True)]
    assert world.reload(asker=2) == []
    assert world.reload(asker=3) == []
    first = world.ready(2)
    assert Answer(1, True, "reloaded: 1 new worker (pid 102)") in first
    assert first[-1] == Start(3, looks=True)
    second = world.ready(3)
    text = "reloaded: 1 new worker (pid 103)"
    assert second == [Drain(2), Say(text), Answer(2, True, text), Answer(3, True, text)]


def test_a_reload_before_the_first_are_ready_waits_for_them() -> None:
    world = World(1)
    world.take()
    assert world.reload(asker=1) == []
    assert world.ready(1) == [Listening(), Start(2, looks=True)]


def test_who_dies_during_a_reload_is_replaced_and_its_replacement_drains_too() -> None:
    world = serving(1)
    world.reload()
    assert "another one starts at once" in said(world.died(1))
    assert world.later(0.0) == [Start(3, looks=False)]
    assert said(world.ready(3)) == "worker 103 is ready"
    assert world.ready(2)[0] == Drain(3)


def test_a_replacement_that_is_due_is_not_started_once_its_generation_drains() -> None:
    world = serving(1)
    world.died(1)
    world.later(0.0)
    world.died(2)  # the next one is to come in 0.1 s
    world.reload()
    world.ready(3)
    assert world.later(1.0) == []


def test_the_number_of_those_who_wait_is_bounded() -> None:
    world = serving(1)
    world.reload()
    for asker in range(ANSWERS_MAX):
        assert world.reload(asker) == []
    [answer] = world.reload(1000)
    assert isinstance(answer, Answer)
    assert not answer.ok


# -------------------------------------------------------------------------------------------------------------- end


def test_a_stop_drains_all_and_a_second_one_hastens_them_and_a_third_kills() -> None:
    world = serving()
    assert world.stop() == [Leave(), Drain(1), Drain(2)]
    assert world.died(1, "ended with code 0", 0) == [], "nobody is replaced any more"
    assert world.stop() == [Drain(2, at_once=True)]
    assert world.stop() == []
    assert world.later(0.0) == [Kill(2)]
    assert world.died(2) == [End(0, "")]


@pytest.mark.parametrize("signals", [1, 2])
def test_a_worker_that_does_not_end_in_time_is_killed(signals: int) -> None:
    world = serving(1)
    for _ in range(signals):
        world.stop()
    limit_s = LATE_S if signals == 2 else GRACE_S + LATE_S
    assert world.machine.deadline == world.now + limit_s
    assert world.later(limit_s - 0.1) == []
    assert world.later(0.2) == [Kill(1)]
    assert world.died(1) == [End(0, "")]


def test_a_stop_during_a_reload_ends_both_generations_and_answers_who_waits() -> None:
    world = serving(1)
    world.reload(asker=1)
    world.reload(asker=2)
    assert world.stop() == [
        Leave(), Drain(2), Drain(1), Answer(1, False, NOT_NOW), Answer(2, False, NOT_NOW),
    ]  # fmt: skip
    assert world.reload(asker=3) == [Answer(3, False, NOT_NOW)]
    world.died(1)
    assert world.died(2) == [End(0, "")]


def test_a_stop_while_the_first_start() -> None:
    world = World(1)
    world.take()
    assert world.stop() == [Leave(), Drain(1)]
    assert world.ready(1) == [], "it is too late"
    assert world.died(1) == [End(0, "")]


# ---------------------------------------------------------------------------------------------------------- silence


def test_a_worker_that_is_silent_is_killed_and_replaced() -> None:
    world = serving(silence_max_s=4.0)
    world.now += 3.0
    world.machine.beat(1, world.now)
    actions = world.later(1.0)
    assert actions == [Kill(2)]
    assert world.later(1.0) == [], "once is enough"
    line = said(world.died(2))
    assert line == "! worker 102 was killed by SIGKILL (no sign of life for 4 s); another one starts at once"


def test_a_worker_that_is_not_ready_in_time_fails_a_reload() -> None:
    world = serving(1, silence_max_s=4.0)
    world.reload(asker=1)
    world.now += 3.9
    world.machine.beat(1, world.now)
    assert world.later(0.2) == [Kill(2)]
    assert Answer(1, False, "not ready in time") in world.died(2)


def test_without_a_limit_nobody_is_silent_for_too_long() -> None:
    assert serving().machine.deadline == float("inf")


# -------------------------------------------------------------------------------------------------------- successor


def test_a_successor_that_is_ready_takes_over() -> None:
    world = serving(1)
    world.machine.upgrade(world.now)
    assert world.take() == [Succeed()]
    world.machine.upgrade(world.now)
    assert world.take() == [], "one is enough"
    world.machine.succeeded(500, "", world.now)
    assert world.take() == [Say("pid 500 has taken over; the workers of pid 99 drain"), Leave(), Drain(1)]
    assert world.reload(asker=1) == [Answer(1, False, NOT_NOW)]
    assert world.died(1, "ended with code 0", 0) == [End(0, "")]


def test_a_successor_that_fails_changes_nothing_and_what_waited_for_it_goes_on() -> None:
    world = serving(1)
    world.machine.upgrade(world.now)
    world.take()
    assert world.reload(asker=1) == []
    world.machine.succeeded(500, "it ended with code 2", world.now)
    assert world.take() == [
        Say("! the new program cannot take over: it ended with code 2; pid 99 goes on"), Start(2, looks=True),
    ]  # fmt: skip


def test_an_upgrade_waits_for_a_reload() -> None:
    world = serving(1)
    world.reload()
    world.machine.upgrade(world.now)
    assert world.take() == []
    assert world.ready(2)[-1] == Succeed()


def test_a_stop_ends_a_successor_that_is_not_ready() -> None:
    world = serving(1)
    world.machine.upgrade(world.now)
    world.take()
    assert world.stop() == [Leave(), EndSuccessor(), Drain(1)]
    world.machine.upgrade(world.now)
    assert world.died(1) == [End(0, "")]


# -------------------------------------------------------------------------------------------------- service manager


def notices(world: World) -> list[str]:
    return [action.state for action in world.all() if isinstance(action, Notify)]


def test_the_service_manager_is_told_of_start_reload_and_stop() -> None:
    world = World(1)
    assert notices(world) == []
    world.machine.ready(1, world.now)
    assert notices(world) == ["READY=1\nSTATUS=1 worker, generation 1"]
    world.machine.reload(None, world.now)
    assert notices(world) == ["RELOADING=1\nMONOTONIC_USEC=1000000000"]
    world.machine.ready(2, world.now)
    assert notices(world) == ["READY=1\nSTATUS=1 worker, generation 2"]
    world.machine.reload(None, world.now)
    notices(world)
    world.machine.died(3, "ended with code 2", 2, world.now)
    assert notices(world) == ["READY=1"], "it is over, though nothing came of it"
    world.machine.stop(world.now)
    world.machine.stop(world.now)
    assert notices(world) == ["STOPPING=1"]


def test_the_service_manager_learns_who_the_successor_is_and_nothing_of_the_end_of_the_old_one() -> None:
    world = serving(1)
    world.machine.upgrade(world.now)
    assert notices(world) == ["RELOADING=1\nMONOTONIC_USEC=1000000000"]
    world.machine.succeeded(500, "", world.now)
    assert notices(world) == ["MAINPID=500\nREADY=1"]
    world.machine.stop(world.now)
    assert notices(world) == []


def test_the_watchdog_is_told_as_long_as_one_worker_shows_life() -> None:
    world = serving(2, watchdog_s=4.0)
    told: list[bool] = []
    for second in range(12):
        if second < 5:
            world.machine.beat(2, world.now)
        world.machine.tick(world.now)
        told.append("WATCHDOG=1" in notices(world))
        assert world.machine.deadline == world.now + 1.0
        world.now += 1.0
    assert told == [True] * 8 + [False] * 4
