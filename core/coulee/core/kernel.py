"""The kernel runs `async def` code without an event loop: tasks, cancellation scopes and timers, stepped by `send`.

Its rules:

- A coroutine that awaits one of our primitives yields `PARKED` and is resumed by whoever it registered with. Anything
  else that comes out of a coroutine belongs to a foreign event loop, and is answered by a `TypeError` naming the cure.
- What becomes ready goes into one FIFO. `run()` empties it. Ties are broken by order of arrival, never by hash or id.
- There is one timer heap. An `Alarm` that is moved costs a float store: its heap entry is left where it is and put
  right when it rings (or pushed anew when the new time is earlier).
- Cancellation is one exception, `Cancelled`, thrown at the await point, at once, and again at every further await
  inside the cancelled scope (level-triggered, as in trio), except under `shielded(...)`.
- An exception that leaves a task goes to whoever started it, never to the kernel: see `Task.on_done`.

Read with: Nathaniel J. Smith, "Timeouts and cancellation for humans" (trio), and David Beazley's curio for the trap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import ContextVar
from heapq import heapify, heappop, heappush
from inspect import CORO_CREATED, CORO_RUNNING, getcoroutinestate
from math import inf
from types import CoroutineType, TracebackType, coroutine
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, cast

if TYPE_CHECKING:
    from coulee.core.machine import KernelMachine

AnyCoroutine: TypeAlias = Coroutine[Any, Any, Any]

current_kernel: ContextVar[Kernel] = ContextVar("coulee_kernel")
"""The kernel whose `handle` is on the stack. A context variable, because several may run in several threads."""


class _Parked:
    """The one value that our primitives yield: the task waits, and somebody knows for what."""

    __slots__ = ()


PARKED: Final = _Parked()


class Cancelled(BaseException):
    """Thrown into a task at its await point when its scope is cancelled. Clean up and let it pass: it is no
    `Exception`, so `except Exception` does."""


class DeadlineExceeded(TimeoutError):
    """A `with deadline(s)` block ran out of time."""


FOREIGN_AWAIT: Final = (
    "a filter awaited something that belongs to another event loop ({what}). "
    "Filters may await coulee's own effects only; wrap this as `await native(async_fn, *args)` "
    "or, for blocking code, as `await blocking(fn, *args)`"
)

STUBBORN_MAX: Final = 100
"""How often a coroutine may catch what we throw at it and await again, before it is abandoned."""


# ------------------------------------------------------------------------------------------------- alarms


Entry: TypeAlias = list[Any]
"""Of the heap: when, a number that breaks ties, and the `Alarm`, or None in its place once it is stale. So nothing
lives on, with whatever it holds, only because it had an alarm that was called off."""


class Alarm:
    """A point in time at which `ring(now)` is called. Subclass it, or give `Kernel.alarm` a callback.

    `deadline` may be set to `inf` at any time to call it off; to set it, use `Kernel.arm`.
    """

    __slots__ = ("armed", "deadline", "entry")

    def __init__(self) -> None:
        self.deadline = inf
        self.armed = inf  # the time of our entry in the heap
        self.entry: Entry | None = None

    def ring(self, now: float) -> None:
        """Called once when the deadline has come."""
        raise NotImplementedError


class _WakeUp(Alarm):
    """Resumes a sleeping task."""

    __slots__ = ("task",)

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def ring(self, now: float) -> None:
        self.task.kernel.wake(self.task, None)


# -------------------------------------------------------------------------------------------------- scopes


class Scope(Alarm):
    """A part of a task's stack that can be cancelled by itself: `with deadline(5):`.

    Raises `DeadlineExceeded` at its end if it was its own time limit that cancelled what ran inside.
    """

    __slots__ = ("cancelled", "limit_s", "outer", "shield", "task")

    def __init__(self, limit_s: float = inf, *, shield: bool = False) -> None:
        super().__init__()
        self.limit_s = limit_s
        self.shield = shield
        self.cancelled = False
        self.task: Task | None = None
        self.outer: Scope | None = None

    def __enter__(self) -> Self:
        task = current_kernel.get().running
        assert task is not None, "a scope is entered inside a task"
        assert self.task is None, "a scope is entered once"
        self.task = task
        self.outer = task.scope
        task.scope = self
        task.find_doom()
        if self.limit_s != inf:
            task.kernel.arm(self, task.kernel.now + self.limit_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:  # for type checkers, who then know that a block with a `return` in it returns
        if self.leave(error):
            raise DeadlineExceeded(f"no end within {self.limit_s:g} s") from None
        return False

    def leave(self, error: BaseException | None) -> bool:
        """The end of the block. True where `error` is our own cancellation, which has done its work."""
        task = self.task
        assert task is not None
        assert task.scope is self, "scopes are left in the reverse order of entering"
        task.kernel.disarm(self)
        task.scope = self.outer
        task.find_doom()
        return self.cancelled and isinstance(error, Cancelled) and task.doomed is None

    def ring(self, now: float) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Cancel what runs inside this scope."""
        if not self.cancelled:
            self.cancelled = True
            if self.task is not None:
                self.task.find_doom()
                self.task.interrupt()


class Nursery(Scope):
    """A scope that owns child tasks: `with nursery() as n: n.start(f, x); await n.join()`.

    Leaving the block ends the children that are left, shielded or not, so none outlives it. A child's exception cancels
    the block and is raised at its end.
    """

    __slots__ = ("children", "failure", "left", "waiter")

    def __init__(self) -> None:
        super().__init__()
        self.left = False
        self.children: dict[Task, None] = {}
        self.failure: BaseException | None = None
        self.waiter: Task | None = None

    def start(self, function: Callable[..., AnyCoroutine], *args: Any) -> Task:
        """Run `function(*args)` as a child; it begins in this turn, after whatever is ready already."""
        assert self.task is not None, "enter the nursery first"
        assert not self.left, "the nursery was left: nothing would wait for a child of it"
        child = Task(self.task.kernel, function(*args), self._child_done)
        self.children[child] = None
        child.kernel.wake(child, None)
        return child

    @coroutine
    def join(self) -> Generator[_Parked, Any, None]:
        """Wait until all children are done."""
        while self.children:
            self.waiter = self.task
            try:
                yield PARKED
            finally:
                self.waiter = None

    def _child_done(self, child: Task) -> None:
        self.children.pop(child, None)
        if child.error is not None and not isinstance(child.error, Cancelled) and self.failure is None:
            self.failure = child.error
            self.cancel()
        elif not self.children and self.waiter is not None:
            self.waiter.kernel.wake(self.waiter, None)

    def __exit__(  # type: ignore[override]
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.left = True
        for child in list(self.children):
            child.kill()
        ours = self.leave(error)
        if self.failure is not None and (error is None or ours):
            raise self.failure
        return ours


def deadline(limit_s: float) -> Scope:
    """`with deadline(5):` gives the block five seconds; then raises `DeadlineExceeded` (a `TimeoutError`)."""
    return Scope(limit_s)


def shielded(grace_s: float) -> Scope:
    """`with shielded(1):` keeps cancellation from outside away from the block, for at most `grace_s` seconds."""
    return Scope(grace_s, shield=True)


def nursery() -> Nursery:
    """`with nursery() as n:` owns the tasks started with `n.start(async_fn, *args)`; none outlives the block."""
    return Nursery()


# --------------------------------------------------------------------------------------------------- tasks


class Task:
    """One running coroutine.

    `on_done(task)` is called when it ends, with `value` or `error` set. An error that nobody took (`on_done` is None)
    goes to `machine.stray_error`.
    """

    __slots__ = (
        "body",
        "cancelled",
        "done",
        "doomed",
        "error",
        "kernel",
        "killed",
        "on_done",
        "scope",
        "turn",
        "value",
    )

    def __init__(self, kernel: Kernel, body: AnyCoroutine, on_done: Callable[[Task], None] | None = None) -> None:
        self.kernel = kernel
        self.body = body if isinstance(body, CoroutineType) else _as_coroutine(body)  # `sleep` is a bare generator
        self.on_done = on_done
        self.scope: Scope | None = None
        self.cancelled = False  # the whole task is
        self.killed = False  # and no shield counts any more
        self.doomed: Scope | Task | None = None  # the scope that is cancelled around the point where we stand
        self.turn = 0  # an entry of the FIFO counts only while it bears this number
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        kernel.tasks += 1

    def cancel(self) -> None:
        """Cancel the whole task, at once unless it is the one that runs."""
        if not self.cancelled and not self.done:
            self.cancelled = True
            self.find_doom()
            self.interrupt()

    def kill(self) -> None:
        """Cancel the whole task, whatever shields it: whoever owns it is leaving."""
        self.cancelled = self.killed = True
        self.find_doom()
        self.interrupt()

    def find_doom(self) -> None:
        """Recompute whether a cancelled scope is around us that no shield keeps away."""
        if self.killed:
            self.doomed = self
            return
        scope = self.scope
        while scope is not None:
            if scope.cancelled:
                self.doomed = scope
                return
            if scope.shield:
                self.doomed = None
                return
            scope = scope.outer
        self.doomed = self if self.cancelled else None

    def interrupt(self) -> None:
        """Throw the cancellation in now, where the task is parked. A running task meets it at its next await."""
        if self.doomed is None or self.done:
            return
        state = getcoroutinestate(self.body)
        if state == CORO_CREATED:
            self.body.close()
            self.kernel.end(self, None, Cancelled())
        elif state != CORO_RUNNING:
            self.kernel.step(self, None, Cancelled())


async def _as_coroutine(awaitable: Any) -> Any:
    return await awaitable


class Kernel:
    """Tasks, timers, and the FIFO of what is ready. `now` is what the last `handle` was given."""

    __slots__ = ("heap", "machine", "now", "ready", "running", "sequence", "stale", "tasks")

    def __init__(self, machine: KernelMachine) -> None:
        self.machine = machine
        self.now = 0.0
        self.ready: deque[tuple[Task, int, Any, BaseException | None]] = deque()
        self.heap: list[Entry] = []
        self.sequence = 0  # breaks ties in the heap by order of arming
        self.stale = 0  # entries of the heap whose alarm was disarmed
        self.running: Task | None = None
        self.tasks = 0  # that have not ended

    # -- tasks

    def start(self, body: AnyCoroutine, on_done: Callable[[Task], None] | None = None) -> Task:
        """Start a task and run it up to its first wait."""
        task = Task(self, body, on_done)
        self.step(task, None, None)
        return task

    def wake(self, task: Task, value: Any, error: BaseException | None = None) -> None:
        """Resume a parked task with a value or an exception, in this turn, behind what is ready already."""
        task.turn += 1
        self.ready.append((task, task.turn, value, error))

    def step(self, task: Task, value: Any, error: BaseException | None) -> None:
        """Resume a task now and run it up to its next wait.

        Nobody but the kernel, `start`, and the connection that hands over a part may call this: elsewhere, `wake`.
        """
        if task.done:
            return
        outer = self.running
        self.running = task
        task.turn += 1
        try:
            yielded = task.body.send(value) if error is None else task.body.throw(error)
            if yielded is not PARKED or task.doomed is not None:
                self._insist(task, yielded)
        except StopIteration as stop:
            self.running = outer
            self.end(task, stop.value, None)
        except KeyboardInterrupt:
            self.running = outer
            raise
        except BaseException as failure:
            self.running = outer
            self.end(task, None, failure)
        else:
            self.running = outer

    def _insist(self, task: Task, yielded: object) -> None:
        """The coroutine awaits though it is cancelled, or awaits something foreign: throw until it sees reason."""
        for _ in range(STUBBORN_MAX):
            if yielded is not PARKED:
                yielded = task.body.throw(TypeError(FOREIGN_AWAIT.format(what=type(yielded).__name__)))
            elif task.doomed is not None:
                yielded = task.body.throw(Cancelled())
            else:
                return
        with suppress(BaseException):  # it may catch this one too; then it is left where it stands
            task.body.close()
        raise RuntimeError(f"a task caught {STUBBORN_MAX} exceptions meant to end it, and was abandoned")

    def end(self, task: Task, value: Any, error: BaseException | None) -> None:
        """A coroutine has come to its end."""
        task.done = True
        task.value = value
        task.error = error
        self.tasks -= 1
        if task.on_done is not None:
            task.on_done(task)
        elif error is not None and not isinstance(error, Cancelled):
            self.machine.stray_error(task)

    def run(self) -> None:
        """Step what is ready until nothing is."""
        ready = self.ready
        while ready:
            task, turn, value, error = ready.popleft()
            if turn == task.turn and not task.done:  # else it was cancelled meanwhile
                self.step(task, value, error)

    # -- time

    def arm(self, alarm: Alarm, when: float) -> None:
        """Have `alarm` ring at `when` instead of whenever it was to."""
        alarm.deadline = when
        if when < alarm.armed:
            if alarm.entry is not None:
                alarm.entry[2] = None
                self.stale += 1
            alarm.armed = when
            self.sequence += 1
            alarm.entry = entry = [when, self.sequence, alarm]
            heappush(self.heap, entry)

    def disarm(self, alarm: Alarm) -> None:
        """Call an alarm off for good, so that the heap does not keep its owner alive."""
        alarm.deadline = inf
        if alarm.entry is not None:
            alarm.armed = inf
            alarm.entry[2] = None
            alarm.entry = None
            self.stale += 1
            if self.stale > 64 and self.stale * 2 > len(self.heap):
                self.heap = [entry for entry in self.heap if entry[2] is not None]
                heapify(self.heap)
                self.stale = 0

    def next_alarm(self) -> float | None:
        """When to be called again at the latest."""
        heap = self.heap
        while heap:
            when, _, alarm = heap[0]
            if alarm is not None:
                return cast("float", when)
            heappop(heap)
            self.stale -= 1
        return None

    def expire(self, now: float) -> None:
        """Ring what has come due; put right the entries whose alarm was moved to a later time."""
        heap = self.heap
        while heap and heap[0][0] <= now:
            alarm = cast("Alarm | None", heappop(heap)[2])
            if alarm is None:
                self.stale -= 1
                continue
            alarm.armed = inf
            alarm.entry = None
            due = alarm.deadline
            if due <= now:
                alarm.deadline = inf
                alarm.ring(now)
            elif due != inf:
                self.arm(alarm, due)
            heap = self.heap  # ringing may have rebuilt it

    @property
    def alarms(self) -> int:
        """How many alarms are set."""
        return sum(1 for _, _, alarm in self.heap if alarm is not None and alarm.deadline != inf)


# -------------------------------------------------------------------------------------------------- waiting


@coroutine
def sleep(delay_s: float) -> Generator[_Parked, Any, None]:
    """Wait `delay_s` seconds of the core's clock (which the simulator makes fly)."""
    kernel = current_kernel.get()
    task = kernel.running
    assert task is not None
    alarm = _WakeUp(task)
    kernel.arm(alarm, kernel.now + max(delay_s, 0.0))
    try:
        yield PARKED
    finally:
        kernel.disarm(alarm)
