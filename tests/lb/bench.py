"""A machine that runs what a test gives it, in virtual time, with the world of the core's tests on its other side."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

from coulee.core import Proxy
from coulee.core.kernel import Task
from coulee.core.peer import Balancer
from tests.core.world import World


@dataclass(slots=True)
class Do:
    """A completion that calls something inside a turn."""

    call: Callable[[], None]


class Bench(Proxy):
    """A proxy without listeners, for its kernel, its clock and its sub-requests."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(Balancer(), rng=Random(seed))
        self.world = World(self)
        self.world.gives(None)

    def does(self, call: Callable[[], Any]) -> None:
        """One turn that calls something."""
        completion: Any = Do(call)
        self.world.gives(completion)

    def runs(self, body: Coroutine[Any, Any, Any]) -> Task:
        """One turn that starts a task. It keeps its own error."""
        tasks: list[Task] = []
        self.does(lambda: tasks.append(self.kernel.start(body, lambda task: None)))
        return tasks[0]

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.world.wait(seconds)

    @property
    def now(self) -> float:
        """The time."""
        return self.world.now

    @property
    def left(self) -> dict[str, int]:
        """What is outstanding, without what there is none of."""
        return {kind: count for kind, count in self.leftovers.items() if count}

    def stray_error(self, task: Task) -> None:
        assert task.error is not None
        raise task.error

    def _do(self, completion: Do) -> None:
        completion.call()

    _dispatch: ClassVar[dict[type, Callable[[Any, Any], None]]] = {**Proxy._dispatch, Do: _do}
