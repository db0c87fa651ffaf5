"""The kernel: tasks, the order they wake in, scopes, nurseries and alarms, each driven by hand through `handle`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from math import inf
from random import Random
from types import coroutine
from typing import Any, ClassVar

import pytest

from coulee.core.kernel import (
    PARKED,
    STUBBORN_MAX,
    Alarm,
    Cancelled,
    DeadlineExceeded,
    Nursery,
    Scope,
    Task,
    deadline,
    nursery,
    shielded,
    sleep,
)
from coulee.core.machine import KernelMachine


@dataclass(slots=True)
class Do:
    """A completion that calls something inside a turn."""

    call: Callable[[], None]


class Bench(KernelMachine):
    """A machine with nothing but its kernel. It keeps the errors that nobody took."""

    def __init__(self) -> None:
        super().__init__(Random(0), 0.0)
        self.strays: list[BaseException | None] = []
        self.now = 0.0

    def stray_error(self, task: Task) -> None:
        self.strays.append(task.error)

    def does(self, call: Callable[[], None], now: float = 0.0) -> None:
        """One turn that calls something."""
        self.now = max(self.now, now)
        completion: Any = Do(call)
        self.handle(completion, self.now)

    def turn(self, now: float = 0.0) -> None:
        """One turn in which nothing happens but that time has passed."""
        self.now = max(self.now, now)
        self.handle(None, self.now)

    def runs(self, *bodies: Coroutine[Any, Any, Any]) -> list[Task]:
        """One turn that starts tasks, one after another, each up to its first wait."""
        tasks: list[Task] = []
        self.does(lambda: tasks.extend(self.kernel.start(body, self.ended) for body in bodies), self.now)
        return tasks

    def ended(self, task: Task) -> None:
        """Whoever started a task gets its error."""

    def _do(self, completion: Do) -> None:
        completion.call()

    _dispatch: ClassVar[dict[type, Callable[[Any, Any], None]]] = {**KernelMachine._dispatch, Do: _do}


@coroutine
def parked() -> Generator[Any, Any, Any]:
    """Wait to be woken; give what one is woken with."""
    return (yield PARKED)


@coroutine
def foreign(thing: object) -> Generator[Any, Any, Any]:
    """Yield something that is no primitive of ours, as the futures of event loops do."""
    return (yield thing)


class Rings(Alarm):
    """Writes down when it rang."""

    def __init__(self, log: list[Any], name: str = "ring") -> None:
        super().__init__()
        self.log = log
        self.name = name

    def ring(self, now: float) -> None:
        self.log.append((self.name, now))


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def log() -> list[Any]:
    return []


# ---------------------------------------------------------------------------------------- tasks and their order


def test_a_task_runs_up_to_its_first_wait_when_it_is_started(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        log.append("begun")
        await parked()
        log.append("not yet")

    (task,) = bench.runs(body())
    assert log == ["begun"]
    assert not task.done
    assert bench.kernel.tasks == 1


def test_a_task_that_never_waits_is_done_when_start_returns(bench: Bench) -> None:
    async def body() -> str:
        return "value"

    (task,) = bench.runs(body())
    assert (task.done, task.value, task.error) == (True, "value", None)
    assert bench.kernel.tasks == 0


def test_whoever_started_a_task_is_told_once_that_it_ended(bench: Bench, log: list[Any]) -> None:
    async def body() -> int:
        return int(await parked()) + 1

    tasks: list[Task] = []
    bench.does(lambda: tasks.append(bench.kernel.start(body(), lambda task: log.append(task.value))))
    assert log == []
    bench.does(lambda: bench.kernel.wake(tasks[0], 41))
    assert log == [42]
    bench.does(lambda: bench.kernel.wake(tasks[0], 41))
    assert log == [42]


def test_the_error_of_a_task_goes_to_whoever_started_it(bench: Bench) -> None:
    async def body() -> None:
        raise ValueError("broken")

    (task,) = bench.runs(body())
    assert isinstance(task.error, ValueError)
    assert bench.strays == []


def test_an_error_that_nobody_takes_goes_to_the_machine(bench: Bench) -> None:
    async def body() -> None:
        raise ValueError("broken")

    bench.does(lambda: void(bench.kernel.start(body())))
    assert [str(error) for error in bench.strays] == ["broken"]


def test_a_cancellation_that_nobody_takes_is_no_error(bench: Bench) -> None:
    async def body() -> None:
        await parked()

    bench.does(lambda: bench.kernel.start(body()).cancel())
    assert bench.strays == []
    assert bench.kernel.tasks == 0


def test_a_machine_that_says_nothing_else_raises_what_strays() -> None:
    class Plain(KernelMachine):
        def start(self) -> None:
            self.kernel.start(body())

    async def body() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match=r"^broken$"):
        Plain(Random(0), 0.0).handle(None, 0.0)


def test_tasks_wake_in_the_order_in_which_they_were_woken(bench: Bench, log: list[Any]) -> None:
    async def body(name: str) -> None:
        log.append((name, await parked()))

    a, b, c = bench.runs(body("a"), body("b"), body("c"))

    def wake() -> None:
        bench.kernel.wake(c, 1)
        bench.kernel.wake(a, 2)
        bench.kernel.wake(b, 3)

    bench.does(wake)
    assert log == [("c", 1), ("a", 2), ("b", 3)]


def test_what_is_woken_by_a_woken_task_comes_behind_what_was_ready(bench: Bench, log: list[Any]) -> None:
    async def first() -> None:
        await parked()
        bench.kernel.wake(third, None)
        log.append("first")

    async def other(name: str) -> None:
        await parked()
        log.append(name)

    one, two, third = bench.runs(first(), other("second"), other("third"))

    def wake() -> None:
        bench.kernel.wake(one, None)
        bench.kernel.wake(two, None)

    bench.does(wake)
    assert log == ["first", "second", "third"]


def test_a_task_can_be_woken_with_an_exception(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        try:
            await parked()
        except KeyError as error:
            log.append(error.args)

    (task,) = bench.runs(body())
    bench.does(lambda: bench.kernel.wake(task, None, KeyError("lost")))
    assert log == [("lost",)]


def test_a_task_that_is_woken_twice_in_a_turn_is_resumed_once_with_the_last_word(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        log.append(await parked())
        log.append(await parked())

    (task,) = bench.runs(body())

    def wake() -> None:
        bench.kernel.wake(task, "first")
        bench.kernel.wake(task, "last")

    bench.does(wake)
    assert log == ["last"]


def test_a_task_started_by_a_task_leaves_its_starter_the_running_one(bench: Bench, log: list[Any]) -> None:
    async def inner() -> None:
        log.append(bench.kernel.running)
        await parked()

    async def fails() -> None:
        raise ValueError

    async def outer() -> None:
        log.append(bench.kernel.running)
        inside = bench.kernel.start(inner(), bench.ended)
        bench.kernel.start(fails(), bench.ended)
        log.append(bench.kernel.running)
        log.append(inside)

    (task,) = bench.runs(outer())
    assert log[0] is log[2] is task
    assert log[1] is log[3] is not task
    assert bench.kernel.running is None


def test_a_keyboard_interrupt_passes_through_the_kernel(bench: Bench) -> None:
    async def body() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.runs(body())
    assert bench.kernel.running is None
    bench.turn()  # and the machine can go on


# ------------------------------------------------------------------------------------------------ cancellation


def test_a_parked_task_is_cancelled_at_once(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        try:
            await parked()
        finally:
            log.append("cleaned up")

    (task,) = bench.runs(body())

    def cancel() -> None:
        task.cancel()
        assert log == ["cleaned up"], "before cancel() returns"

    bench.does(cancel)
    assert isinstance(task.error, Cancelled)
    assert bench.kernel.tasks == 0


def test_except_exception_does_not_catch_a_cancellation(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        try:
            await parked()
        except Exception:
            log.append("caught")

    (task,) = bench.runs(body())
    bench.does(task.cancel)
    assert log == []
    assert isinstance(task.error, Cancelled)


def test_every_further_await_of_a_cancelled_task_raises_again(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        for at in range(3):
            try:
                await parked()
            except Cancelled:
                log.append(at)
        await parked()
        log.append("never")

    (task,) = bench.runs(body())
    bench.does(task.cancel)
    assert log == [0, 1, 2]
    assert isinstance(task.error, Cancelled)


def test_a_running_task_that_is_cancelled_meets_it_at_its_next_await(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        running = bench.kernel.running
        assert running is not None
        running.cancel()
        log.append("goes on")
        await parked()
        log.append("never")

    (task,) = bench.runs(body())
    assert log == ["goes on"]
    assert isinstance(task.error, Cancelled)


def test_a_cancelled_task_may_still_return_a_value_if_it_awaits_no_more(bench: Bench) -> None:
    async def body() -> str:
        try:
            await parked()
        except Cancelled:
            return "made the best of it"
        return "never"

    (task,) = bench.runs(body())
    bench.does(task.cancel)
    assert (task.value, task.error) == ("made the best of it", None)


def test_a_task_cancelled_before_its_first_step_never_begins(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        log.append("begun")

    def cancel() -> None:
        task = Task(bench.kernel, body(), lambda task: log.append(type(task.error)))
        bench.kernel.wake(task, None)
        task.cancel()

    bench.does(cancel)
    assert log == [Cancelled]
    assert bench.kernel.tasks == 0


def test_a_task_that_was_woken_and_then_cancelled_is_only_cancelled(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        log.append(await parked())

    (task,) = bench.runs(body())

    def wake_and_cancel() -> None:
        bench.kernel.wake(task, "value")
        task.cancel()

    bench.does(wake_and_cancel)
    assert log == []
    assert isinstance(task.error, Cancelled)


def test_cancelling_twice_or_after_the_end_does_nothing(bench: Bench, log: list[Any]) -> None:
    async def stays() -> None:
        try:
            await parked()
        except Cancelled:
            log.append("cancelled")
        with shielded(1):
            await parked()

    async def ends() -> None:
        return

    stayed, ended = bench.runs(stays(), ends())
    bench.does(stayed.cancel)
    bench.does(stayed.cancel)
    bench.does(ended.cancel)
    assert log == ["cancelled"]
    assert ended.error is None


# ------------------------------------------------------------------------------------------------------ shields


def test_a_shield_keeps_a_cancellation_away_until_it_ends(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        with shielded(5):
            log.append(await parked())
            log.append(await parked())
        log.append("left")
        await parked()
        log.append("never")

    (task,) = bench.runs(body())
    bench.does(task.cancel)
    assert not task.done
    bench.does(lambda: bench.kernel.wake(task, "one"))
    bench.does(lambda: bench.kernel.wake(task, "two"))
    assert log == ["one", "two", "left"]
    assert isinstance(task.error, Cancelled)
    assert bench.kernel.alarms == 0


def test_a_cancelled_task_can_clean_up_under_a_shield(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        try:
            await parked()
        finally:
            with shielded(5):
                await sleep(1)
                log.append("said goodbye")

    (task,) = bench.runs(body())
    bench.does(task.cancel)
    assert log == []
    bench.turn(1.0)
    assert log == ["said goodbye"]
    assert isinstance(task.error, Cancelled)


def test_a_shield_lasts_no_longer_than_its_grace(bench: Bench) -> None:
    async def body() -> None:
        try:
            await parked()
        finally:
            with shielded(2):
                await sleep(100)

    (task,) = bench.runs(body())
    bench.does(task.cancel, now=10.0)
    bench.turn(11.9)
    assert not task.done
    bench.turn(12.0)
    assert isinstance(task.error, Cancelled), "the cancellation from outside goes on"


def test_a_shield_that_runs_out_with_nothing_cancelled_outside_is_a_deadline(bench: Bench) -> None:
    async def body() -> None:
        with shielded(2):
            await sleep(100)

    (task,) = bench.runs(body())
    bench.turn(2.0)
    assert isinstance(task.error, DeadlineExceeded)


def test_a_scope_inside_a_shield_can_be_cancelled_by_itself(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        with shielded(10):
            try:
                with deadline(1):
                    await sleep(100)
            except DeadlineExceeded:
                log.append("inner")
            await sleep(1)
            log.append("still shielded")

    (task,) = bench.runs(body())
    bench.does(task.cancel)
    bench.turn(1.0)
    bench.turn(2.0)
    assert log == ["inner", "still shielded"]
    assert (task.done, task.error) == (True, None)


# ---------------------------------------------------------------------------------------------------- deadlines


def test_a_block_that_runs_out_of_time_raises_deadline_exceeded(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        try:
            with deadline(2.5):
                await parked()
        except TimeoutError as error:
            log.append((type(error), str(error)))

    (task,) = bench.runs(body())
    bench.turn(2.4)
    assert log == []
    bench.turn(2.5)
    assert log == [(DeadlineExceeded, "no end within 2.5 s")]
    assert (task.done, task.error) == (True, None)


def test_a_block_that_ends_in_time_leaves_no_alarm(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        with deadline(5):
            log.append(await parked())

    (task,) = bench.runs(body())
    assert bench.kernel.alarms == 1
    assert bench.kernel.next_alarm() == 5.0
    bench.does(lambda: bench.kernel.wake(task, "in time"), now=4.0)
    assert log == ["in time"]
    assert task.error is None
    assert bench.kernel.alarms == 0
    assert bench.kernel.next_alarm() is None


def test_an_exception_of_the_block_passes_through_its_deadline(bench: Bench) -> None:
    async def body() -> None:
        with deadline(5):
            raise KeyError("mine")

    (task,) = bench.runs(body())
    assert isinstance(task.error, KeyError)


def test_an_exception_raised_while_cleaning_up_after_a_deadline_is_what_counts(bench: Bench) -> None:
    async def body() -> None:
        with deadline(1):
            try:
                await parked()
            finally:
                raise KeyError("while cleaning up")

    (task,) = bench.runs(body())
    bench.turn(1.0)
    assert isinstance(task.error, KeyError)


def test_the_outer_of_two_deadlines_goes_through_the_inner_one(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        try:
            with deadline(1):
                try:
                    with deadline(5):
                        await parked()
                except DeadlineExceeded:
                    log.append("inner")
        except DeadlineExceeded as error:
            log.append(str(error))
        log.append(await parked())

    (task,) = bench.runs(body())
    bench.turn(1.0)
    bench.does(lambda: bench.kernel.wake(task, "goes on"))
    assert log == ["no end within 1 s", "goes on"]


def test_the_inner_of_two_deadlines_leaves_the_outer_one_alone(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        with deadline(5):
            try:
                with deadline(1):
                    await parked()
            except DeadlineExceeded as error:
                log.append(str(error))
            log.append(await parked())

    (task,) = bench.runs(body())
    bench.turn(1.0)
    bench.does(lambda: bench.kernel.wake(task, "goes on"), now=4.0)
    assert log == ["no end within 1 s", "goes on"]
    assert (task.done, task.error) == (True, None)


def test_when_both_deadlines_have_passed_the_outer_one_is_told(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        try:
            with deadline(2):
                try:
                    with deadline(1):
                        try:
                            await parked()
                        finally:
                            with shielded(10):
                                await parked()
                except DeadlineExceeded:
                    log.append("inner")
        except DeadlineExceeded:
            log.append("outer")

    (task,) = bench.runs(body())
    bench.turn(1.0)
    bench.turn(2.0)
    assert log == []
    bench.does(lambda: bench.kernel.wake(task, None))
    assert log == ["outer"]


def test_a_deadline_that_passes_while_its_task_runs_is_met_at_the_next_await(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        with deadline(5) as scope:
            scope.cancel()
            scope.cancel()
            log.append("goes on")
            await parked()
            log.append("never")

    (task,) = bench.runs(body())
    assert log == ["goes on"]
    assert isinstance(task.error, DeadlineExceeded)


def test_a_scope_cancelled_before_it_is_entered_ends_its_block_at_the_first_await(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        scope = Scope()
        scope.cancel()
        with scope:
            log.append("entered")
            await parked()
            log.append("never")

    (task,) = bench.runs(body())
    assert log == ["entered"]
    assert isinstance(task.error, DeadlineExceeded)


def test_a_scope_can_only_be_entered_inside_a_task(bench: Bench) -> None:
    def enter() -> None:
        with deadline(1):
            pass

    with pytest.raises(AssertionError, match=r"inside a task"):
        bench.does(enter)


def test_a_scope_can_only_be_entered_once(bench: Bench) -> None:
    async def body() -> None:
        scope = deadline(1)
        with scope:
            pass
        with scope:
            pass

    (task,) = bench.runs(body())
    assert isinstance(task.error, AssertionError)
    assert "entered once" in str(task.error)


def test_scopes_are_left_in_the_reverse_order_of_entering(bench: Bench) -> None:
    async def body() -> None:
        outer, inner = deadline(1), deadline(1)
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)

    (task,) = bench.runs(body())
    assert isinstance(task.error, AssertionError)
    assert "reverse order" in str(task.error)


def test_what_came_in_before_a_late_deadline_is_not_overtaken_by_it(bench: Bench, log: list[Any]) -> None:
    # The host was busy: the answer and the deadline reach the machine in one turn. It came in time, so it counts.
    async def body() -> None:
        with deadline(5):
            log.append(await parked())

    (task,) = bench.runs(body())
    bench.does(lambda: bench.kernel.wake(task, "answer"), now=5.1)
    assert log == ["answer"]
    assert task.error is None


# ---------------------------------------------------------------------------------------------------- nurseries


def test_a_child_begins_in_the_same_turn_behind_what_is_ready(bench: Bench, log: list[Any]) -> None:
    async def child(name: str) -> None:
        log.append(name)

    async def body() -> None:
        with nursery() as tasks:
            tasks.start(child, "first")
            tasks.start(child, "second")
            log.append("parent")
            await tasks.join()
        log.append("left")

    (task,) = bench.runs(body())
    assert log == ["parent", "first", "second", "left"]
    assert (task.done, task.error) == (True, None)
    assert bench.kernel.tasks == 0


def test_join_waits_for_all_children(bench: Bench, log: list[Any]) -> None:
    children: list[Task] = []

    async def child() -> None:
        log.append(await parked())

    async def body() -> None:
        with nursery() as tasks:
            children.extend(tasks.start(child) for _ in range(2))
            await tasks.join()
            log.append("joined")

    bench.runs(body())
    bench.does(lambda: bench.kernel.wake(children[1], "second"))
    assert log == ["second"]
    bench.does(lambda: bench.kernel.wake(children[0], "first"))
    assert log == ["second", "first", "joined"]


def test_join_without_children_does_not_wait(bench: Bench) -> None:
    async def body() -> str:
        with nursery() as tasks:
            await tasks.join()
        return "done"

    (task,) = bench.runs(body())
    assert task.value == "done"


def test_join_also_waits_for_a_child_that_was_started_when_the_last_one_ended(bench: Bench, log: list[Any]) -> None:
    async def late() -> None:
        log.append("late")

    async def body() -> None:
        with nursery() as tasks:

            async def first() -> None:
                log.append("first")
                tasks.start(late)

            tasks.start(first)
            await tasks.join()
            log.append("joined")

    bench.runs(body())
    assert log == ["first", "late", "joined"]


def test_a_joiner_that_is_woken_too_early_goes_on_waiting(bench: Bench, log: list[Any]) -> None:
    children: list[Task] = []

    async def body() -> None:
        with nursery() as tasks:
            children.append(tasks.start(parked_body))
            await tasks.join()
            log.append("joined")

    async def parked_body() -> None:
        await parked()

    (task,) = bench.runs(body())
    bench.does(lambda: bench.kernel.wake(task, None))
    assert log == []
    bench.does(lambda: bench.kernel.wake(children[0], None))
    assert log == ["joined"]


def test_children_are_cancelled_when_the_block_is_left(bench: Bench, log: list[Any]) -> None:
    async def child(name: str) -> None:
        try:
            await parked()
        finally:
            log.append(name)

    async def body() -> None:
        with nursery() as tasks:
            tasks.start(child, "a")
            tasks.start(child, "b")
            await sleep(1)
        log.append("left")

    (task,) = bench.runs(body())
    bench.turn(1.0)
    assert log == ["a", "b", "left"]
    assert (task.done, task.error) == (True, None)
    assert bench.kernel.tasks == 0


def test_a_child_that_never_began_does_not_begin_when_the_block_is_left(bench: Bench, log: list[Any]) -> None:
    async def child() -> None:
        log.append("begun")

    async def body() -> None:
        with nursery() as tasks:
            tasks.start(child)

    (task,) = bench.runs(body())
    assert log == []
    assert (task.done, task.error) == (True, None)
    assert bench.kernel.tasks == 0


def test_a_child_s_failure_cancels_the_block_and_its_siblings_and_is_raised_at_its_end(
    bench: Bench, log: list[Any]
) -> None:
    async def fails() -> None:
        await sleep(1)
        raise KeyError("child")

    async def sibling() -> None:
        try:
            await parked()
        finally:
            log.append("sibling cancelled")

    async def body() -> None:
        try:
            with nursery() as tasks:
                tasks.start(sibling)
                tasks.start(fails)
                try:
                    await parked()
                finally:
                    log.append("block cancelled")
        except KeyError as error:
            log.append(error.args)
        log.append(await parked())

    (task,) = bench.runs(body())
    bench.turn(1.0)
    assert log == ["block cancelled", "sibling cancelled", ("child",)]
    bench.does(lambda: bench.kernel.wake(task, "goes on"))
    assert log[-1] == "goes on"
    assert task.error is None


def test_only_the_first_of_two_failures_is_raised(bench: Bench) -> None:
    async def fails(name: str) -> None:
        try:
            await parked()
        finally:
            raise KeyError(name)

    async def body() -> None:
        with nursery() as tasks:
            tasks.start(fails, "first")
            tasks.start(fails, "second")
            await sleep(1)

    (task,) = bench.runs(body())
    bench.turn(1.0)
    assert isinstance(task.error, KeyError)
    assert task.error.args == ("first",)


def test_an_error_of_the_block_goes_before_one_of_its_children(bench: Bench) -> None:
    async def fails() -> None:
        try:
            await parked()
        finally:
            raise KeyError("child")

    async def body() -> None:
        with nursery() as tasks:
            tasks.start(fails)
            await sleep(1)
            raise ValueError("block")

    (task,) = bench.runs(body())
    bench.turn(1.0)
    assert isinstance(task.error, ValueError)
    assert bench.kernel.tasks == 0


def test_a_child_that_is_cancelled_by_hand_does_not_hurt_the_others(bench: Bench, log: list[Any]) -> None:
    async def child() -> None:
        await parked()

    async def body() -> None:
        with nursery() as tasks:
            one, two = tasks.start(child), tasks.start(child)
            await sleep(1)
            one.cancel()
            log.append((one.done, two.done))
            two.cancel()
            await tasks.join()
            log.append("joined")

    (task,) = bench.runs(body())
    bench.turn(1.0)
    assert log == [(True, False), "joined"]
    assert task.error is None


def test_a_cancellation_from_outside_cancels_the_children_and_goes_on(bench: Bench, log: list[Any]) -> None:
    async def child() -> None:
        try:
            await parked()
        finally:
            log.append("child")

    async def body() -> None:
        with nursery() as tasks:
            tasks.start(child)
            await tasks.join()
        log.append("never")

    (task,) = bench.runs(body())
    bench.does(task.cancel)
    assert log == ["child"]
    assert isinstance(task.error, Cancelled)
    assert bench.kernel.tasks == 0


def test_a_deadline_around_a_nursery_ends_its_children(bench: Bench, log: list[Any]) -> None:
    async def child() -> None:
        try:
            await parked()
        finally:
            log.append("child")

    async def body() -> None:
        try:
            with deadline(1), nursery() as tasks:
                tasks.start(child)
                await tasks.join()
        except DeadlineExceeded:
            log.append("deadline")

    (task,) = bench.runs(body())
    bench.turn(1.0)
    assert log == ["child", "deadline"]
    assert task.error is None


def test_a_nursery_that_is_cancelled_by_its_own_hand_ends_quietly(bench: Bench, log: list[Any]) -> None:
    async def child() -> None:
        await parked()

    async def body() -> None:
        with nursery() as tasks:
            tasks.start(child)
            tasks.cancel()
            await tasks.join()
            log.append("never")
        log.append("left")

    (task,) = bench.runs(body())
    assert log == ["left"]
    assert task.error is None
    assert bench.kernel.tasks == 0


def test_a_nursery_starts_nothing_before_it_is_entered(bench: Bench) -> None:
    async def child() -> None:
        """Never begun."""

    with pytest.raises(AssertionError, match=r"enter the nursery first"):
        nursery().start(child)


def test_a_nursery_starts_nothing_after_it_was_left(bench: Bench, log: list[Any]) -> None:
    # Otherwise its child would outlive the block.
    left: list[Nursery] = []

    async def child() -> None:
        log.append("begun")
        await parked()

    async def body() -> None:
        with nursery() as tasks:
            left.append(tasks)
        tasks.start(child)

    (task,) = bench.runs(body())
    assert isinstance(task.error, AssertionError)
    assert log == []
    assert bench.kernel.tasks == 0


def test_no_child_outlives_the_block_not_even_under_a_shield(bench: Bench, log: list[Any]) -> None:
    # A plain `with` cannot wait for the shield's grace to end, so the promise can only be kept by ending it.
    async def child() -> None:
        with shielded(60):
            await parked()

    async def body() -> None:
        with nursery() as tasks:
            tasks.start(child)
            await sleep(1)
        log.append(bench.kernel.tasks)

    bench.runs(body())
    bench.turn(1.0)
    assert log == [1], "only the parent is left when the block is"


def test_one_of_our_own_waits_can_be_a_child(bench: Bench) -> None:
    async def body() -> str:
        with nursery() as tasks:
            tasks.start(sleep, 60)
            await sleep(1)
        return "left"

    (task,) = bench.runs(body())
    bench.turn(1.0)
    assert (task.value, task.error) == ("left", None)
    assert bench.kernel.tasks == 0


# ------------------------------------------------------------------------------------ foreign awaits and stubbornness


def test_a_foreign_await_is_answered_by_a_type_error_that_names_the_cure(bench: Bench) -> None:
    class SomeFuture:
        pass

    async def body() -> None:
        await foreign(SomeFuture())

    (task,) = bench.runs(body())
    assert isinstance(task.error, TypeError)
    assert "another event loop (SomeFuture)" in str(task.error)
    assert "await native(async_fn, *args)" in str(task.error)
    assert "await blocking(fn, *args)" in str(task.error)


def test_a_foreign_await_after_a_wait_of_ours_is_found_as_well(bench: Bench) -> None:
    async def body() -> None:
        await parked()
        await foreign(None)

    (task,) = bench.runs(body())
    bench.does(lambda: bench.kernel.wake(task, None))
    assert isinstance(task.error, TypeError)
    assert "(NoneType)" in str(task.error)


def test_who_catches_the_type_error_may_await_what_is_ours(bench: Bench) -> None:
    async def body() -> str:
        try:
            await foreign(object())
        except TypeError:
            return str(await parked())
        return "never"

    (task,) = bench.runs(body())
    bench.does(lambda: bench.kernel.wake(task, "cured"))
    assert task.value == "cured"


def test_who_catches_the_type_error_and_returns_has_returned(bench: Bench) -> None:
    async def body() -> str:
        try:
            await foreign(object())
        except TypeError:
            return "never mind"
        return "never"

    (task,) = bench.runs(body())
    assert task.value == "never mind"


def test_a_coroutine_that_will_not_be_cancelled_is_abandoned(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        while True:
            try:
                await parked()
            except Cancelled:
                log.append("no")

    (task,) = bench.runs(body())
    bench.does(task.cancel)
    assert isinstance(task.error, RuntimeError)
    assert str(task.error) == "a task caught 100 exceptions meant to end it, and was abandoned"
    assert STUBBORN_MAX == 100
    assert len(log) == 101, "the one that met it where it waited, and a hundred more"
    assert bench.kernel.tasks == 0
    bench.does(lambda: bench.kernel.wake(task, None))
    assert len(log) == 101, "it is not resumed again"


def test_a_coroutine_that_insists_on_a_foreign_loop_is_abandoned(bench: Bench) -> None:
    async def body() -> None:
        while True:
            try:
                await foreign(object())
            except TypeError:
                continue

    (task,) = bench.runs(body())
    assert isinstance(task.error, RuntimeError)
    assert bench.kernel.tasks == 0


def test_an_abandoned_coroutine_is_closed_so_that_nothing_of_it_is_left(bench: Bench, log: list[Any]) -> None:
    # What it had registered with (an alarm here, a stream elsewhere) would step it again.
    async def body() -> None:
        try:
            while True:
                try:
                    await sleep(5)
                except Cancelled:
                    continue
        finally:
            log.append("closed")

    (task,) = bench.runs(body())
    bench.does(task.cancel)
    assert isinstance(task.error, RuntimeError)
    assert bench.kernel.alarms == 0
    assert log == ["closed"]


# ------------------------------------------------------------------------------------------------------- alarms


def test_an_alarm_rings_once_when_its_time_has_come(bench: Bench, log: list[Any]) -> None:
    alarm = Rings(log)
    bench.kernel.arm(alarm, 5.0)
    assert (bench.kernel.next_alarm(), bench.kernel.alarms) == (5.0, 1)
    bench.turn(4.9)
    assert log == []
    bench.turn(5.0)
    assert log == [("ring", 5.0)]
    bench.turn(99.0)
    assert log == [("ring", 5.0)]
    assert (bench.kernel.next_alarm(), bench.kernel.alarms) == (None, 0)


def test_alarms_of_one_time_ring_in_the_order_of_arming(bench: Bench, log: list[Any]) -> None:
    for name in ("c", "a", "b"):
        bench.kernel.arm(Rings(log, name), 5.0)
    bench.kernel.arm(Rings(log, "early"), 4.0)
    bench.turn(6.0)
    assert log == [("early", 6.0), ("c", 6.0), ("a", 6.0), ("b", 6.0)]


def test_an_alarm_moved_to_a_later_time_keeps_its_entry_and_is_put_right_when_it_rings(
    bench: Bench, log: list[Any]
) -> None:
    alarm = Rings(log)
    bench.kernel.arm(alarm, 5.0)
    bench.kernel.arm(alarm, 9.0)
    assert len(bench.kernel.heap) == 1
    assert (bench.kernel.next_alarm(), bench.kernel.alarms) == (5.0, 1)
    bench.turn(5.0)
    assert log == []
    assert (bench.kernel.next_alarm(), bench.kernel.alarms) == (9.0, 1)
    bench.turn(9.0)
    assert log == [("ring", 9.0)]


def test_an_alarm_moved_to_an_earlier_time_rings_then_and_only_then(bench: Bench, log: list[Any]) -> None:
    alarm = Rings(log)
    bench.kernel.arm(alarm, 9.0)
    bench.kernel.arm(alarm, 5.0)
    assert (bench.kernel.next_alarm(), bench.kernel.alarms) == (5.0, 1)
    bench.turn(5.0)
    bench.turn(9.0)
    assert log == [("ring", 5.0)]
    assert (bench.kernel.heap, bench.kernel.stale) == ([], 0)


def test_an_alarm_called_off_by_its_deadline_alone_does_not_ring_and_does_not_count(
    bench: Bench, log: list[Any]
) -> None:
    alarm = Rings(log)
    bench.kernel.arm(alarm, 5.0)
    alarm.deadline = inf
    assert bench.kernel.alarms == 0
    bench.turn(5.0)
    assert log == []
    assert bench.kernel.heap == []


def test_a_disarmed_alarm_is_forgotten(bench: Bench, log: list[Any]) -> None:
    alarm, other = Rings(log), Rings(log, "other")
    bench.kernel.arm(alarm, 5.0)
    bench.kernel.arm(other, 6.0)
    bench.kernel.disarm(alarm)
    bench.kernel.disarm(alarm)
    assert bench.kernel.alarms == 1
    assert bench.kernel.next_alarm() == 6.0
    bench.turn(7.0)
    assert log == [("other", 7.0)]
    assert (bench.kernel.heap, bench.kernel.stale) == ([], 0)


def test_the_heap_does_not_keep_alive_whose_alarm_was_called_off(bench: Bench, log: list[Any]) -> None:
    alarm, moved = Rings(log), Rings(log)
    bench.kernel.arm(alarm, 5.0)
    bench.kernel.disarm(alarm)
    bench.kernel.arm(moved, 6.0)
    bench.kernel.arm(moved, 4.0)
    bench.kernel.disarm(moved)
    assert len(bench.kernel.heap) == 3, "the entries are there still"
    gone = [weakref.ref(alarm), weakref.ref(moved)]
    del alarm, moved
    assert [each() for each in gone] == [None, None]


def test_a_stale_entry_on_top_of_the_heap_rings_nobody(bench: Bench, log: list[Any]) -> None:
    alarm = Rings(log)
    bench.kernel.arm(alarm, 5.0)
    bench.kernel.disarm(alarm)
    bench.turn(6.0)  # without having asked for the deadline
    assert log == []
    assert (bench.kernel.heap, bench.kernel.stale) == ([], 0)


def test_an_alarm_that_never_was_set_can_be_disarmed(bench: Bench, log: list[Any]) -> None:
    bench.kernel.disarm(Rings(log))
    assert bench.kernel.stale == 0


def test_an_alarm_can_set_itself_again_while_it_rings(bench: Bench, log: list[Any]) -> None:
    class Ticks(Rings):
        def ring(self, now: float) -> None:
            super().ring(now)
            bench.kernel.arm(self, now + 1)

    bench.kernel.arm(Ticks(log), 1.0)
    for second in (1.0, 2.0, 3.0):
        bench.turn(second)
    assert log == [("ring", 1.0), ("ring", 2.0), ("ring", 3.0)]
    assert bench.kernel.alarms == 1


def test_the_heap_is_compacted_when_most_of_it_is_stale(bench: Bench, log: list[Any]) -> None:
    alarms = [Rings(log, str(at)) for at in range(100)]
    for at, alarm in enumerate(alarms):
        bench.kernel.arm(alarm, 100.0 - at)
    for alarm in alarms[:64]:
        bench.kernel.disarm(alarm)
    assert len(bench.kernel.heap) == 100, "64 are too few to bother"
    bench.kernel.disarm(alarms[64])
    assert len(bench.kernel.heap) == 35
    assert (bench.kernel.stale, bench.kernel.alarms) == (0, 35)
    bench.turn(100.0)
    assert [name for name, _ in log] == [str(at) for at in range(99, 64, -1)]


def test_the_heap_is_left_alone_while_most_of_it_lives(bench: Bench, log: list[Any]) -> None:
    alarms = [Rings(log) for _ in range(200)]
    for alarm in alarms:
        bench.kernel.arm(alarm, 5.0)
    for alarm in alarms[:100]:
        bench.kernel.disarm(alarm)
    assert (len(bench.kernel.heap), bench.kernel.stale, bench.kernel.alarms) == (200, 100, 100)


def test_the_heap_may_be_compacted_while_alarms_ring(bench: Bench, log: list[Any]) -> None:
    others = [Rings(log, "other") for _ in range(100)]

    class Sweeps(Rings):
        def ring(self, now: float) -> None:
            super().ring(now)
            for other in others:
                bench.kernel.disarm(other)

    bench.kernel.arm(Sweeps(log, "sweeps"), 1.0)
    for other in others:
        bench.kernel.arm(other, 2.0)
    bench.kernel.arm(Rings(log, "last"), 3.0)
    bench.turn(5.0)
    assert log == [("sweeps", 5.0), ("last", 5.0)]
    assert bench.kernel.alarms == 0


def test_an_alarm_set_again_for_a_time_it_once_had_counts_once(bench: Bench, log: list[Any]) -> None:
    alarm = Rings(log)
    bench.kernel.arm(alarm, 5.0)
    bench.kernel.disarm(alarm)
    bench.kernel.arm(alarm, 5.0)
    assert bench.kernel.alarms == 1
    bench.turn(5.0)
    assert log == [("ring", 5.0)]


def test_an_alarm_says_what_it_does_in_a_subclass(bench: Bench) -> None:
    with pytest.raises(NotImplementedError):
        Alarm().ring(0.0)


# -------------------------------------------------------------------------------------------------------- sleep


def test_a_sleeper_wakes_when_its_time_has_come(bench: Bench, log: list[Any]) -> None:
    async def body() -> None:
        await sleep(2)
        log.append(bench.kernel.now)

    bench.runs(body())
    assert (bench.kernel.next_alarm(), bench.kernel.alarms) == (2.0, 1)
    bench.turn(1.9)
    assert log == []
    bench.turn(2.0)
    assert log == [2.0]
    assert bench.kernel.alarms == 0


def test_sleepers_wake_in_the_order_of_their_times_then_of_their_beginning(bench: Bench, log: list[Any]) -> None:
    async def body(name: str, seconds: float) -> None:
        await sleep(seconds)
        log.append(name)

    bench.runs(body("late", 3), body("first", 1), body("second", 1))
    bench.turn(5.0)
    assert log == ["first", "second", "late"]


@pytest.mark.parametrize("seconds", [0, -5])
def test_a_sleep_of_no_time_lets_others_run_first(bench: Bench, log: list[Any], seconds: float) -> None:
    async def sleeper() -> None:
        await sleep(seconds)
        log.append(("awake", bench.kernel.now))

    async def other() -> None:
        log.append("other")

    bench.turn(7.0)
    bench.runs(sleeper(), other())
    bench.turn(7.0)
    assert log == ["other", ("awake", 7.0)]


def test_a_cancelled_sleeper_leaves_no_alarm(bench: Bench) -> None:
    async def body() -> None:
        await sleep(60)

    (task,) = bench.runs(body())
    bench.does(task.cancel)
    assert bench.kernel.alarms == 0
    assert bench.kernel.next_alarm() is None


def void(_: object) -> None:
    """Throw a value away."""


def test_a_task_that_is_done_is_not_stepped_again() -> None:
    machine = KernelMachine(Random(0), 0.0)

    async def one() -> int:
        return 1

    task = machine.kernel.start(one())
    machine.kernel.step(task, None, None)
    assert (task.done, task.value) == (True, 1)
