"""The supervisor of worker processes, as a state machine: it is told what happened, and says what is to be done.

It has no process, clock or signal of its own (`coulee.server.processes` has). Rules:

- Workers come in generations. One generation serves; a reload starts the next beside it, and when all workers of that
  are ready, those of the old one drain. Where one of them cannot start, the new ones go, and the old ones have noticed
  nothing.
- A worker that dies is replaced: at once the first time, and where that goes on, after a time that doubles. Who lived
  for `SETTLED_S` begins anew.
- A worker that gives no sign of life for `silence_max_s` is killed, also while it starts.
- What is asked for while something is under way waits for its turn, for a reload that has begun may have read a
  program that has changed since. Once the end has begun, there is nothing but the end.

Methods that tell it something take `now`, float seconds of one clock. What is to be done is in `actions`, in order;
`deadline` says when `tick` is to be called at the latest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Final, Literal, TypeAlias

BACKOFF_MIN_S: Final = 0.1
BACKOFF_MAX_S: Final = 10.0
SETTLED_S: Final = 10.0
"""A worker that dies younger than this is replaced later than the one before it."""

LATE_S: Final = 5.0
"""How much longer than the grace period a worker may take to end: then its loop hangs, and it is killed."""

ANSWERS_MAX: Final = 64
"""Reloads that may be waited for."""

NOT_NOW: Final = "coulee is about to end: nothing is reloaded"


# ------------------------------------------------------------------------------------------------- what to do


@dataclass(slots=True)
class Start:
    """Fork a worker, and call `started` or `died`. `looks`: it is the one of its generation that says what is down."""

    worker: int
    looks: bool


@dataclass(slots=True)
class Drain:
    """Have a worker finish what it has; or `at_once`, drop it."""

    worker: int
    at_once: bool = False


@dataclass(slots=True)
class Kill:
    """End a worker that does not end."""

    worker: int


@dataclass(slots=True)
class Say:
    """Tell whoever reads stderr."""

    text: str


@dataclass(slots=True)
class Notify:
    """Tell the service manager."""

    state: str


@dataclass(slots=True)
class Answer:
    """Tell who has asked for a reload how it went."""

    asker: int
    ok: bool
    text: str


@dataclass(slots=True)
class Listening:
    """All workers of the first generation are ready."""


@dataclass(slots=True)
class Succeed:
    """Start a successor: the same command line anew, with the listening sockets. Answered by `succeeded`."""


@dataclass(slots=True)
class EndSuccessor:
    """A successor that is not ready yet is wanted no more."""


@dataclass(slots=True)
class Leave:
    """The end has begun: nobody is to find this supervisor any more."""


@dataclass(slots=True)
class End:
    """All is over. Where `error` is not empty, it is the one line to say."""

    code: int
    error: str


Action: TypeAlias = Start | Drain | Kill | Say | Notify | Answer | Listening | Succeed | EndSuccessor | Leave | End


# ------------------------------------------------------------------------------------------------- who is there


@dataclass(slots=True)
class Worker:
    """One process, from the wish for it to its death."""

    number: int
    place: int  # from 0; who replaces it gets the same
    generation: int
    since: float
    state: Literal["starting", "ready", "draining", "killed"] = "starting"
    pid: int = 0
    seen: float = 0.0  # the last sign of life
    kill_at: float = inf
    error: str = ""  # why it cannot start


@dataclass(slots=True)
class _Place:
    """What is known of the workers that one place of a generation has had."""

    restarts: int = 0
    backoff_s: float = 0.0  # before the next replacement
    restart_at: float = inf


@dataclass(slots=True)
class _Generation:
    number: int
    places: list[_Place]
    workers: dict[int, Worker] = field(default_factory=dict[int, Worker])

    @property
    def is_ready(self) -> bool:
        return len(self.workers) == len(self.places) and all(each.state == "ready" for each in self.workers.values())

    @property
    def pids(self) -> str:
        return ", ".join(str(each.pid) for each in self.workers.values())


class Supervisor:
    """See the top of the module. `silence_max_s` and `watchdog_s` are 0 for never; `pid` is for what is said."""

    def __init__(
        self, *, workers: int, grace_s: float, pid: int, silence_max_s: float = 0.0, watchdog_s: float = 0.0
    ) -> None:
        self.count = workers
        self.grace_s = grace_s
        self.pid = pid
        self.silence_max_s = silence_max_s
        self.watchdog_s = watchdog_s
        self.actions: list[Action] = []
        self.began = 0.0
        self.stops = 0  # how often it was told to
        self.ended = False
        self.successor: Literal["", "coming", "ready"] = ""
        self.serves = False  # the first generation was ready
        self._current = _Generation(0, [])
        self._coming: _Generation | None = None
        self._leaving: dict[int, Worker] = {}
        self._askers: list[int | None] = []  # of the reload that is under way
        self._waiting: list[int | None] = []  # for the next one
        self._upgrade_waits = False
        self._workers = 0
        self._generations = 0
        self._pat_at = inf
        self._end_code = 0
        self._end_error = ""

    # -- what is asked of it

    def begin(self, now: float) -> None:
        """Start the first generation."""
        self.began = now
        self._current = self._generation(now)
        self._pat_at = now if self.watchdog_s else inf

    def reload(self, asker: int | None, now: float) -> None:
        """Replace the workers. `asker` is answered, None is not."""
        if self._is_leaving:
            self._answer([asker], False, NOT_NOW)
        elif len(self._waiting) >= ANSWERS_MAX:
            self._answer([asker], False, f"{ANSWERS_MAX} others wait for a reload already")
        else:
            self._waiting.append(asker)
            self._next(now)

    def upgrade(self, now: float) -> None:
        """Replace the program, this process included."""
        if not self.stops and not self.successor:
            self._upgrade_waits = True
            self._next(now)

    def stop(self, now: float) -> None:
        """Drain all workers; told again, end them at once; and once more, kill them."""
        self.stops += 1
        if self.stops == 1:
            if self.successor != "ready":
                self._do(Notify("STOPPING=1"))
            self._leave(now)
        elif self.stops == 2:
            for worker in self._leaving.values():
                self._do(Drain(worker.number, at_once=True))
                worker.kill_at = min(worker.kill_at, now + LATE_S)
        else:
            for worker in self._leaving.values():
                worker.kill_at = now
        self._settle(now)

    def status(self, now: float) -> dict[str, object]:
        """What there is, for people and programs."""
        return {
            "pid": self.pid,
            "age_s": round(now - self.began, 1),
            "state": "stopping" if self._is_leaving else "serving" if self.serves else "starting",
            "generation": self._current.number,
            "workers": [
                {
                    "pid": worker.pid,
                    "generation": worker.generation,
                    "state": worker.state,
                    "age_s": round(now - worker.since, 1),
                    "restarts": places[worker.place].restarts if places else 0,
                }
                for worker, places in self._all()
            ],
        }  # fmt: skip

    # -- what happens

    def started(self, number: int, pid: int) -> None:
        """A worker has been forked."""
        worker = self._find(number)
        if worker is not None:
            worker.pid = pid

    def beat(self, number: int, now: float) -> None:
        """A worker's loop has turned."""
        worker = self._find(number)
        if worker is not None:
            worker.seen = now

    def ready(self, number: int, now: float) -> None:
        """A worker listens."""
        worker = self._find(number)
        if worker is None or worker.state != "starting":
            return
        worker.state = "ready"
        worker.seen = now
        if worker.generation == self._current.number and self.serves:
            self._do(Say(f"worker {worker.pid} is ready"))
        self._settle(now)

    def cannot(self, number: int, error: str) -> None:
        """A worker says why it cannot start. Its death follows."""
        worker = self._find(number)
        if worker is not None:
            worker.error = error

    def died(self, number: int, how: str, code: int, now: float) -> None:
        """A worker has ended: `how` in words, and with which exit code (-1 for a signal)."""
        worker = self._find(number)
        if worker is None:
            return
        if self._leaving.pop(number, None) is None:
            if self._coming is not None and number in self._coming.workers:
                del self._coming.workers[number]
                self._reload_failed(worker.error or f"worker {worker.pid} {how} while it started", now)
            elif not self.serves:
                del self._current.workers[number]
                self._first_failed(worker, how, code, now)
            else:
                del self._current.workers[number]
                self._replace(worker, how, now)
        self._settle(now)

    def succeeded(self, pid: int, error: str, now: float) -> None:
        """A successor is ready; or, where `error` is not empty, there will be none."""
        if self.stops:
            self.successor = ""
        elif error:
            self.successor = ""
            self._do(Say(f"! the new program cannot take over: {error}; pid {self.pid} goes on"))
            self._do(Notify("READY=1"))
        else:
            self.successor = "ready"
            self._do(Say(f"pid {pid} has taken over; the workers of pid {self.pid} drain"))
            self._do(Notify(f"MAINPID={pid}\nREADY=1"))
            self._leave(now)
        self._settle(now)

    def tick(self, now: float) -> None:
        """Time has passed."""
        for worker, _ in list(self._all()):
            if worker.kill_at <= now:
                worker.kill_at = inf
                self._do(Kill(worker.number))
            elif self._silent_at(worker) <= now:
                silence = f"no sign of life for {self.silence_max_s:g} s"
                worker.error = "not ready in time" if worker.state == "starting" else silence
                worker.state = "killed"
                self._do(Kill(worker.number))
        for number, place in enumerate(self._current.places):
            if place.restart_at <= now:
                place.restart_at = inf
                self._start(self._current, number, False, now)
        if self._pat_at <= now:
            # One that hangs is seen to here; the service manager is to step in where all of them do.
            self._pat_at = now + self.watchdog_s / 4
            if any(worker.seen + self.watchdog_s > now for worker, _ in self._all() if worker.state != "killed"):
                self._do(Notify("WATCHDOG=1"))
        self._settle(now)

    @property
    def deadline(self) -> float:
        """When `tick` has something to do, whatever happens."""
        workers = [min(worker.kill_at, self._silent_at(worker)) for worker, _ in self._all()]
        return min([self._pat_at, *workers, *(place.restart_at for place in self._current.places)])

    # -- generations

    def _generation(self, now: float) -> _Generation:
        self._generations += 1
        generation = _Generation(self._generations, [_Place() for _ in range(self.count)])
        for place in range(self.count):
            self._start(generation, place, place == 0, now)
        return generation

    def _start(self, generation: _Generation, place: int, looks: bool, now: float) -> None:
        self._workers += 1
        worker = Worker(self._workers, place, generation.number, now, seen=now)
        generation.workers[worker.number] = worker
        self._do(Start(worker.number, looks))

    def _replace(self, dead: Worker, how: str, now: float) -> None:
        """Start another one in its place, sooner or later."""
        place = self._current.places[dead.place]
        if now - dead.since >= SETTLED_S:
            place.backoff_s = 0.0
        place.restarts += 1
        place.restart_at = now + place.backoff_s
        when = f"in {place.backoff_s:g} s" if place.backoff_s else "at once"
        why = f" ({dead.error})" if dead.error else ""
        self._do(Say(f"! worker {dead.pid} {how}{why}; another one starts {when}"))
        place.backoff_s = min(max(BACKOFF_MIN_S, place.backoff_s * 2), BACKOFF_MAX_S)

    def _first_failed(self, worker: Worker, how: str, code: int, now: float) -> None:
        """The program cannot start at all: that is the end, with what the first of them said."""
        error = worker.error or f"worker {worker.pid} {how} while it started"
        self._end_code, self._end_error = (code if code > 0 else 1), error
        self.stops = 2
        self._leave(now)
        for left in self._leaving.values():
            left.kill_at = now

    def _reload_failed(self, error: str, now: float) -> None:
        assert self._coming is not None
        self._drain(self._coming, now)
        self._coming = None
        self._do(Say(f"! not reloaded: {error}; the workers of before go on"))
        self._do(Notify("READY=1"))
        self._answer(self._askers, False, error)
        self._askers = []

    def _settle(self, now: float) -> None:
        """See what has come about."""
        if not self.serves and not self.stops and self._current.is_ready:
            self.serves = True
            self._do(Listening())
            self._do(Notify(f"READY=1\nSTATUS={self._what_serves}"))
        coming = self._coming
        if coming is not None and coming.is_ready:
            before, self._current, self._coming = self._current, coming, None
            self._drain(before, now)
            text = (
                f"reloaded: {counted(self.count, 'new worker')} ({'pids' if self.count > 1 else 'pid'} {coming.pids})"
            )
            self._do(Say(text))
            self._do(Notify(f"READY=1\nSTATUS={self._what_serves}"))
            self._answer(self._askers, True, text)
            self._askers = []
        self._next(now)
        if self._is_leaving and not self._leaving and not self.ended:
            self.ended = True
            self._do(End(self._end_code, self._end_error))

    def _next(self, now: float) -> None:
        """Begin what waits, where nothing is under way."""
        if not self.serves or self.stops or self.successor or self._coming is not None:
            return
        if self._waiting:
            self._askers, self._waiting = self._waiting, []
            self._notify_of_change(now)
            self._coming = self._generation(now)
        elif self._upgrade_waits:
            self._upgrade_waits = False
            self.successor = "coming"
            self._notify_of_change(now)
            self._do(Succeed())

    def _drain(self, generation: _Generation, now: float) -> None:
        """These go: they finish what they have, and nobody takes their place."""
        for worker in generation.workers.values():
            worker.state = "draining"
            worker.kill_at = now + self.grace_s + LATE_S
            self._leaving[worker.number] = worker
            self._do(Drain(worker.number))
        generation.workers.clear()
        for place in generation.places:
            place.restart_at = inf

    def _leave(self, now: float) -> None:
        """All go."""
        self._do(Leave())
        if self.successor == "coming":
            self._do(EndSuccessor())
        for generation in (self._coming, self._current):
            if generation is not None:
                self._drain(generation, now)
        self._coming = None
        self._answer([*self._askers, *self._waiting], False, NOT_NOW)
        self._askers, self._waiting = [], []

    # -- small things

    def _all(self) -> Iterator[tuple[Worker, list[_Place]]]:
        """Every worker, with the places of its generation where it has one."""
        for generation in (self._current, self._coming):
            if generation is not None:
                for worker in generation.workers.values():
                    yield worker, generation.places
        for worker in self._leaving.values():
            yield worker, []

    @property
    def _is_leaving(self) -> bool:
        return self.stops > 0 or self.successor == "ready"

    def _find(self, number: int) -> Worker | None:
        return next((worker for worker, _ in self._all() if worker.number == number), None)

    def _silent_at(self, worker: Worker) -> float:
        """When a worker has been silent for too long. One that drains has a limit of its own."""
        watched = self.silence_max_s and worker.state in ("starting", "ready")
        return worker.seen + self.silence_max_s if watched else inf

    @property
    def _what_serves(self) -> str:
        return f"{counted(self.count, 'worker')}, generation {self._current.number}"

    def _notify_of_change(self, now: float) -> None:
        self._do(Notify(f"RELOADING=1\nMONOTONIC_USEC={int(now * 1e6)}"))

    def _answer(self, askers: list[int | None], ok: bool, text: str) -> None:
        for asker in askers:
            if asker is not None:
                self._do(Answer(asker, ok, text))

    def _do(self, action: Action) -> None:
        self.actions.append(action)


def counted(count: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
