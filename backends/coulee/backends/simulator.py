"""The backend in virtual time: machines, scripted peers and a network with weather, all from one seed.

    sim = Simulator(seed=7, weather=Weather.swarm(Random(7)))
    sim.listen(("10.0.0.2", 80), lambda far: H11Origin(answer))
    sim.run(proxy, [("10.0.0.1", 8000)])
    sim.connect(("10.0.0.1", 8000), client)
    sim.settle()

Rules:

- Equal seeds give equal runs, in every process: `trace_hash` covers every operation and completion with its time.
- The machine runs under the same driver as on real sockets, so every run holds it to the laws of the seam.
- An exception in a machine, a script or a broken law comes out of `step` and what is built on it, with the last lines
  of the trace as a note.
- `"blocking"` jobs run on the spot and are answered later. `"native"` ones may not really wait: there is no host loop.

Times are float seconds and start at 0.0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from hashlib import blake2b
from struct import Struct
from typing import Any, Literal, cast

from coulee.backends.addresses import check_address
from coulee.backends.driver import Driver, Listener, Wire
from coulee.backends.far_end import LAYER_FAULTS, Stage
from coulee.backends.far_end import FarEnd as FarEnd
from coulee.backends.layer import Layer
from coulee.backends.network import Attempt, Network, Timer
from coulee.backends.pipes import Socket
from coulee.backends.simulated_tls import Sessions, SimulatedLayer
from coulee.backends.trace import CODES, COMPLETIONS, OPERATIONS, content_of, line, number_of
from coulee.backends.weather import CALM
from coulee.backends.weather import Weather as Weather
from coulee.core.seam import (
    Address,
    Bytes,
    Closed,
    Completion,
    DownstreamTls,
    ErrorKind,
    ListenAt,
    Machine,
    Operation,
    UpstreamTls,
)

WALL_CLOCK_OFFSET_S = 1_700_000_000.0  # Unix time at virtual time 0.0: in November 2023
BACKLOG = 1024  # connections that wait at a listener to be accepted; more are reset
EARLY_ALARM_S = 0.001  # how early an alarm may ring
LAST_LINES = 40  # of the trace, that an exception carries
YIELDS_MAX = 1000  # bare yields of one native job

_COUNTED = {kind: f"operation:{kind.__name__}" for kind in OPERATIONS} | {
    kind: f"completion:{kind.__name__}" for kind in COMPLETIONS
}
_ERROR_KINDS: tuple[ErrorKind, ...] = (
    "refused", "unreachable", "timed_out", "reset", "truncated", "tls", "aborted", "resources", "other",
)  # fmt: skip
_pack = Struct("<dIHQ").pack


class Simulator(Network):
    """A world of its own, in which machines run.

    `census` counts, by `fault:`, `operation:`, `completion:` and `error:` and the name, how often each really occurred.
    """

    def __init__(self, seed: int = 0, weather: Weather = CALM, *, keep_trace: bool = False) -> None:
        super().__init__(seed, weather)
        self.drivers: list[SimulatedDriver] = []
        self.trace: list[str] | None = [] if keep_trace else None
        self.census.update(dict.fromkeys(_COUNTED.values(), 0))
        self.census.update({f"error:{kind}": 0 for kind in _ERROR_KINDS})
        self.census.update({f"fault:{fault}": 0 for fault in LAYER_FAULTS})
        self._sessions: Sessions = {}
        self._hash = blake2b(digest_size=16)
        self._last: deque[tuple[float, int, Operation | Completion]] = deque(maxlen=LAST_LINES)

    # -- the world

    def run(
        self,
        machine: Machine,
        listen: Sequence[ListenAt] = (),
        *,
        reporter: Callable[[Any], object] | None = None,
    ) -> SimulatedDriver:
        """Start a fresh machine of `machine`; its listeners are open on return. Reports go to `reporter`, or are kept
        in `records` of the driver."""
        number = len(self.drivers) + 1
        fresh = machine.fresh(
            rng=self.rng_for(f"machine {number}"), wall_clock_offset_s=WALL_CLOCK_OFFSET_S, listen=listen
        )
        driver = SimulatedDriver(self, fresh, number, reporter)
        self.drivers.append(driver)
        driver.start()
        return driver

    def listen(self, address: Address | None, on_connect: Callable[[FarEnd], FarEnd | None]) -> None:
        """Put scripted peers at an address; None: wherever nobody else listens.

        `on_connect` is called with a plain `FarEnd` for each connection. It sets that one's callbacks, or returns
        another that takes its place. Raises OSError where the address is taken.
        """
        self.claim(address, Stage(self, on_connect))

    def unlisten(self, address: Address | None) -> None:
        """Refuse connections there from now on."""
        self.release(address)

    def connect(self, address: Address, far: FarEnd, source: Address | None = None) -> None:
        """Let a scripted client connect, from `source` if that matters."""
        far.dial(self, address, source)

    def layer(self, tls: DownstreamTls | UpstreamTls, place: Address = "") -> Layer:
        """What stands for TLS here, for a machine or a scripted end: its side is the one whose settings these are. With
        the same settings and `place` a session is resumed."""
        return SimulatedLayer(tls, self._wall_clock, self._sessions, place)

    def _wall_clock(self) -> float:
        return self.now + WALL_CLOCK_OFFSET_S

    @property
    def left(self) -> dict[str, int]:
        """What is still open in the world, by kind; all zero in one that has come to rest. Scripted listeners do not
        count."""
        left = {"connections": self.connections + self.attempts, "listeners": 0, "credits": 0, "jobs": 0}
        for driver in self.drivers:
            for kind in ("listeners", "credits", "jobs"):
                left[kind] += driver.outstanding[kind]
        left["chunks"] = self.chunks
        return left

    # -- the trace

    @property
    def trace_hash(self) -> str:
        """A hash over every operation and completion so far, with its time, its machine and its bytes."""
        return self._hash.hexdigest()

    def note(self, machine: int, item: Operation | Completion) -> None:
        """Enter an operation or completion into the trace."""
        kind = type(item)
        self.census[_COUNTED[kind]] += 1
        self._hash.update(_pack(self.now, machine, CODES[kind], number_of(item)))
        content = content_of(item)
        if content:
            self._hash.update(content)
        if isinstance(item, Closed) and item.error is not None:
            self.census[f"error:{item.error}"] += 1
        self._last.append((self.now, machine, item))
        if self.trace is not None:
            self.trace.append(line(self.now, item, machine))

    def happen(self, call: Callable[[Any], None], argument: Any) -> None:
        try:
            call(argument)
        except Exception as error:
            self.explain(error)
            raise

    def explain(self, error: BaseException) -> None:
        """Add the last lines of the trace to an exception."""
        if not getattr(error, "__notes__", None):
            lines = "\n  ".join(line(now, item, machine) for now, machine, item in self._last)
            error.add_note(f"seed {self.seed}, at {self.now:.6f} s, behind:\n  {lines}")


class SimulatedDriver(Driver):
    """Runs one machine in a simulator. `records` are its reports, where there is no reporter; `done` says that the
    machine has finished."""

    def __init__(
        self, simulator: Simulator, machine: Machine, number: int, reporter: Callable[[Any], object] | None
    ) -> None:
        self.records: list[Any] = []
        super().__init__(machine, self._time, reporter or self.records.append)
        self.simulator = simulator
        self.number = number
        self.done = False
        self._alarm: Timer | None = None
        self._handle = self._handle_and_note

    def _time(self) -> float:
        return self.simulator.now

    def _handle_and_note(self, completion: Completion | None, now: float) -> list[Operation]:
        note = self.simulator.note
        if completion is not None:
            note(self.number, completion)
        operations = self.machine.handle(completion, now)
        for operation in operations:
            note(self.number, operation)
        return operations

    # -- what the driver asks for

    def arm(self, when: float) -> None:
        simulator = self.simulator
        if self._alarm is not None:
            self._alarm.live = False
        if when > simulator.now and simulator.strikes("early_alarm", simulator.active.early_alarm):
            when -= simulator.rng.random() * EARLY_ALARM_S
        self._alarm = simulator.timer(when, self.ring)

    def new_wire(self, conn: int, was_accepted: bool) -> Wire:
        return _Wire(self, conn, was_accepted)

    def new_layer(self, tls: DownstreamTls | UpstreamTls, place: Address) -> Layer:
        return self.simulator.layer(tls, place)

    def new_listener(self, number: int) -> Listener:
        return _Listener(self, number)

    def start_job(self, job: int, mode: Literal["blocking", "native"], call: Callable[[], Any]) -> _Job:
        simulator = self.simulator
        handle = _Job(self, job, *(_called(call) if mode == "blocking" else _awaited(call)))
        simulator.at(simulator.now + simulator.between(simulator.active.job_s), handle.finish)
        return handle

    def stop_job(self, handle: _Job) -> None:
        handle.cancelled = True

    def on_finished(self) -> None:
        self.done = True
        if self._alarm is not None:
            self._alarm.live = False

    def on_failure(self, error: BaseException) -> None:
        self.simulator.explain(error)
        raise error


class _Wire(Wire):
    """A machine's end of a connection."""

    __slots__ = ("_attempt", "_network", "_socket")

    def __init__(self, driver: SimulatedDriver, conn: int, was_accepted: bool) -> None:
        super().__init__(driver, conn, was_accepted)
        self._network = driver.simulator
        self._attempt: Attempt | None = None
        self._socket: Socket | None = None

    # -- what the driver asks for

    def connect(self, address: Address) -> None:
        check_address(address)
        self._attempt = self._network.dial(self, address, None, exposed=True)

    def write(self, data: Bytes) -> bool:
        assert self._socket is not None
        return self._socket.write(data if isinstance(data, bytes) else b"".join(data))

    def write_eof(self) -> None:
        assert self._socket is not None
        self._socket.write_eof()

    def pause(self) -> None:
        socket = self._socket
        assert socket is not None
        share = self._network.active.early_read
        socket.pause(early=bool(share) and socket.reading and self._network.rng.random() < share)

    def resume(self) -> None:
        assert self._socket is not None
        self._socket.resume()

    def close(self, abort: bool) -> None:
        if self._socket is not None:
            self._socket.close(abort)
        elif self._attempt is not None:
            self._attempt.cancel()

    # -- what the network calls

    def joined(self, socket: Socket) -> None:
        """See `Owner`."""
        self._socket = socket
        socket.owner = self
        self.opened(socket.remote, socket.local)

    readable = Wire.received
    writable = Wire.sent
    broken = Wire.lost


class _Listener(Listener):
    """A machine's listener, with the connections that wait for a credit."""

    __slots__ = ("_address", "_backlog", "_network")

    def __init__(self, driver: SimulatedDriver, number: int) -> None:
        super().__init__(driver, number)
        self._network = driver.simulator
        self._address: Address | None = None
        self._backlog: deque[Socket] = deque()

    def listen(self, address: Address) -> None:
        check_address(address)
        self._address = self._network.claim(address, self)
        self.opened(cast("Address", self._address))

    def watch(self) -> None:
        if self._backlog:
            self._network.at(self._network.now, self._accept)

    def incoming(self, socket: Socket) -> None:
        """See `Place`."""
        if self.gone or len(self._backlog) >= BACKLOG:
            socket.close(True)
        else:
            self._backlog.append(socket)
            self._accept(None)

    def _accept(self, _: object) -> None:
        while self._backlog and self.credits and not self.gone:
            socket = self._backlog.popleft()
            if not socket.released:
                cast("_Wire", self.admit()).joined(socket)

    def close(self) -> None:
        if self._address is not None:
            self._network.release(self._address)
        for socket in self._backlog:
            socket.close(True)
        self._backlog.clear()


# ----------------------------------------------------------------------------------------------------- jobs


class _Job:
    """User code that has run, and whose result is on its way."""

    __slots__ = ("cancelled", "driver", "error", "job", "value")

    def __init__(self, driver: SimulatedDriver, job: int, value: object, error: BaseException | None) -> None:
        self.driver = driver
        self.job = job
        self.value = value
        self.error = error
        self.cancelled = False

    def finish(self, _: object) -> None:
        """The result arrives."""
        if self.cancelled:
            self.driver.finished(self.job, None, CancelledError("the job was cancelled"))
        else:
            self.driver.finished(self.job, self.value, self.error)


def _called(call: Callable[[], Any]) -> tuple[object, BaseException | None]:
    try:
        return call(), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # as on a thread
        return None, error


def _awaited(call: Callable[[], Any]) -> tuple[object, BaseException | None]:
    """Step an awaitable that waits for nothing; a bare yield (as in `asyncio.sleep(0)`) only asks to be stepped on."""
    try:
        steps = call().__await__()
        for _ in range(YIELDS_MAX):
            try:
                waits_for = next(steps)
            except StopIteration as stop:
                return stop.value, None
            if waits_for is not None:
                steps.close()
                what = type(waits_for).__name__
                return None, RuntimeError(f"a native job waits for a {what}, and the simulator has no host loop")
        return None, RuntimeError(f"a native job has yielded {YIELDS_MAX} times: the simulator has no host loop")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if "event loop" in str(error):
            error.add_note("the simulator has no host loop: a native job may only await what waits for nothing")
        return None, error
