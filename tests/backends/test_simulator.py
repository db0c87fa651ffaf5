"""The simulator: its network behaves as kernels do, its weather brings every fault, and a seed is a whole run."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from coulee.backends.far_end import LAYER_FAULTS
from coulee.backends.simulator import FarEnd, SimulatedDriver, Simulator, Weather
from coulee.core.seam import (
    Accept,
    Accepted,
    Address,
    Cancel,
    Close,
    Closed,
    Completion,
    Connect,
    Connected,
    ErrorKind,
    Finished,
    Hold,
    Listen,
    ListenAt,
    Operation,
    Receive,
    Received,
    Report,
    Run,
    Send,
)
from coulee.core.tunnel import Tunnel
from tests.backends.ends import HERE, KIB, ORIGIN, Recorder, far_ends


class Echo(Recorder):
    """Says what it hears."""

    def received(self, data: bytes) -> None:
        super().received(data)
        if data:
            self.write(data)
        else:
            self.write_eof()


class Script:
    """A machine that asks for what it is told to, and writes down what it hears."""

    def __init__(self, *first: Operation, react: Callable[[Completion], Sequence[Operation]] = lambda _: ()) -> None:
        self.first: list[Operation] = list(first)
        self.react = react
        self.heard: list[tuple[float, Completion]] = []
        self.deadline: float | None = None
        self.rung: list[float] = []
        self.rng = Random(0)

    def fresh(self, *, rng: Random, wall_clock_offset_s: float, listen: Sequence[ListenAt]) -> Script:
        self.rng = rng
        self.offset = wall_clock_offset_s
        return self

    @property
    def finished(self) -> bool:
        return False

    def handle(self, completion: Completion | None, now: float) -> list[Operation]:
        if self.deadline is not None and self.deadline <= now:
            self.rung.append(now)
            self.deadline = None
        operations = self.first
        self.first = []
        if completion is not None:
            self.heard.append((now, completion))
            operations.extend(self.react(completion))
        return operations

    def ends(self) -> list[tuple[float, ErrorKind | None]]:
        return [(round(at, 6), item.error) for at, item in self.heard if isinstance(item, Closed)]


# -- time


def test_the_clock_starts_at_zero_and_jumps() -> None:
    sim = Simulator()
    assert not sim.step()
    rung: list[float] = []
    for delay in (3.0, 1.0, 1.0, 2.0):
        sim.call_later(delay, lambda: rung.append(sim.now))
    assert sim.step()
    assert rung == [1.0, 1.0]
    sim.advance(0.5)
    assert sim.now == 1.5
    sim.advance(0.5)
    assert rung == [1.0, 1.0, 2.0]
    sim.settle()
    assert sim.now == 3.0
    sim.settle()
    assert sim.now == 3.0


def test_settling_ends_at_its_limit() -> None:
    sim = Simulator()
    rung: list[float] = []

    def again() -> None:
        rung.append(sim.now)
        sim.call_later(10.0, again)

    again()
    sim.settle(35.0)
    assert rung == [0.0, 10.0, 20.0, 30.0]
    assert sim.now == 35.0


def test_a_circle_in_one_instant_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coulee.backends.network.EVENTS_MAX", 100)
    sim = Simulator()

    def again() -> None:
        sim.call_later(0.0, again)

    again()
    with pytest.raises(RuntimeError, match="in a circle"):
        sim.settle()


def test_flushing_waits_for_what_moves_and_rings_nothing_beyond() -> None:
    sim = Simulator()
    echo = Echo()
    sim.listen(ORIGIN, lambda _: echo)
    client = Recorder(b"hello")
    sim.connect(ORIGIN, client)
    rung: list[float] = []
    sim.call_later(5.0, lambda: rung.append(sim.now))
    sim.flush()
    assert client.got == b"hello"
    assert sim.now == pytest.approx(0.002)
    assert not rung


def test_ports_are_chosen_and_addresses_taken() -> None:
    sim = Simulator()
    driver = sim.run(Script(Listen(1, ("10.0.0.1", 0)), Listen(2, HERE), Listen(3, HERE), Accept(4, 2)))
    first, second = driver.addresses
    assert isinstance(first, tuple)
    assert first[1] > 0
    assert second == HERE
    assert sim.left == {"connections": 0, "listeners": 2, "credits": 1, "jobs": 0, "chunks": 0}
    assert sim.census["error:resources"] == 1


def test_who_leaves_the_backlog_is_not_accepted() -> None:
    machine = Script(Listen(1, HERE))
    sim = Simulator()
    sim.run(machine)
    gone, there = Recorder(), Recorder()
    sim.connect(HERE, gone)
    sim.flush()
    gone.reset()
    sim.connect(HERE, there)
    sim.flush()
    machine.first = [Accept(2, 1), Accept(3, 1)]
    machine.deadline = sim.now
    sim.drivers[0].post(None)
    sim.flush()
    assert [item.conn for _, item in machine.heard if isinstance(item, Accepted)] == [2]
    machine.first = [Close(1)]
    sim.drivers[0].post(None)
    sim.flush()
    late = Recorder()
    sim.connect(HERE, late)
    sim.flush()
    assert late.ends == ["refused"]


# -- machines


def test_machines_get_a_seeded_generator_and_a_wall_clock() -> None:
    one, two, other = Script(), Script(), Script()
    sim = Simulator(5)
    sim.run(one)
    sim.run(two)
    Simulator(5).run(other)
    drawn = [machine.rng.random() for machine in (one, two, other)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert one.offset == 1_700_000_000.0


def test_two_machines_in_one_world() -> None:
    sim = Simulator()
    sim.listen(ORIGIN, lambda _: Echo())
    second: Address = ("10.0.0.3", 8000)
    outer, inner = sim.run(Tunnel(second), [HERE]), sim.run(Tunnel(ORIGIN), [second])
    client = Recorder(b"through two", then_eof=True)
    sim.connect(HERE, client)
    sim.settle(10.0)
    assert client.got == b"through two"
    assert client.ends == [None]
    outer.drain(0.0)
    inner.drain(0.0)
    sim.settle()
    assert outer.done
    assert inner.done
    assert not any(sim.left.values())


def test_reports_are_kept_or_handed_on() -> None:
    sim = Simulator()
    assert sim.run(Script(Report("a"))).records == ["a"]
    told: list[object] = []
    assert sim.run(Script(Report("b")), reporter=told.append).records == []
    assert told == ["b"]


def test_alarms_ring_on_time_or_a_little_early() -> None:
    for share in (0.0, 1.0):
        machine = Script()
        sim = Simulator(0, Weather(early_alarm=share))
        machine.deadline = 5.0
        sim.run(machine)
        assert sim.step()
        assert machine.rung == [5.0]  # as far as the machine can tell
        assert (sim.now < 5.0) == bool(share)
        assert sim.census["fault:early_alarm"] == bool(share)


def test_jobs() -> None:
    async def native() -> int:
        await Bare()
        return 1

    async def waits() -> None:
        await Bare("something")

    async def sleeps() -> None:
        raise RuntimeError("no running event loop")

    async def yields() -> None:
        while True:
            await Bare()

    def exits() -> None:
        raise SystemExit(3)

    machine = Script(
        Run(1, "blocking", lambda: 42),
        Run(2, "blocking", exits),
        Run(3, "native", native),
        Run(4, "native", waits),
        Run(5, "native", sleeps),
        Run(6, "native", yields),
        Run(7, "blocking", lambda: 42),
        Cancel(7),
    )
    sim = Simulator()
    sim.run(machine)
    assert not machine.heard
    assert sim.left["jobs"] == 7
    sim.flush()
    done = {item.job: item for _, item in machine.heard if isinstance(item, Finished)}
    assert done[1] == Finished(1, 42)
    assert isinstance(done[2].error, SystemExit)
    assert done[3] == Finished(3, 1)
    assert str(done[4].error) == "a native job waits for a str, and the simulator has no host loop"
    assert "no host loop" in done[5].error.__notes__[0]  # type: ignore[union-attr]
    assert "has yielded 1000 times" in str(done[6].error)
    assert isinstance(done[7].error, CancelledError)


class Bare:
    """Awaited, it yields one thing."""

    def __init__(self, what: object = None) -> None:
        self.what = what

    def __await__(self) -> Any:
        yield self.what


# -- failures


def test_an_exception_carries_the_last_lines_of_the_trace() -> None:
    def react(completion: Completion) -> Sequence[Operation]:
        raise LookupError("a bug")

    sim = Simulator(77)
    sim.run(Script(Connect(1, ORIGIN), react=react))
    with pytest.raises(LookupError) as raised:
        sim.settle()
    (note,) = raised.value.__notes__
    assert "seed 77" in note
    assert "0.001000 1 < Closed 1 refused connection refused" in note


def test_an_exception_in_a_script_comes_out_too() -> None:
    sim = Simulator()

    def fail() -> None:
        raise LookupError("a bug")

    sim.call_later(1.0, fail)
    with pytest.raises(LookupError) as raised:
        sim.advance(2.0)
    assert "seed 0, at 1.0" in raised.value.__notes__[0]


def test_a_law_that_is_broken_comes_out() -> None:
    with pytest.raises(AssertionError, match="machine, law 2: Send on 9"):
        Simulator().run(Script(Send(9, b"x")))


# -- weather


def connecting(weather: Weather, *, faults: bool = True) -> tuple[Simulator, Script]:
    machine = Script(Connect(1, ORIGIN))
    sim = Simulator(0, weather)
    sim.listen(ORIGIN, lambda _: Recorder())
    sim.faults = faults
    sim.run(machine)
    sim.settle()
    return sim, machine


@pytest.mark.parametrize(
    ("fault", "kind", "at"),
    [
        ("refuse", "refused", 0.001),
        ("unreachable", "unreachable", 0.001),
        ("exhausted", "resources", 0.001),
        ("black_hole", "timed_out", 127.0),
    ],
)
def test_connects_fail(fault: str, kind: ErrorKind, at: float) -> None:
    weather = replace(Weather(), **{fault: 1.0})  # type: ignore[arg-type]
    sim, machine = connecting(weather)
    assert machine.ends() == [(at, kind)]
    assert sim.census[f"fault:{fault}"] == sim.census[f"error:{kind}"] == 1
    _, machine = connecting(weather, faults=False)
    assert [type(item) for _, item in machine.heard] == [Connected]


def test_scripted_clients_are_not_refused() -> None:
    near = Recorder()
    far_ends(near, Recorder(), Weather(refuse=1.0, unreachable=1.0, black_hole=1.0))
    assert near.is_open


def test_a_black_hole_can_be_given_up() -> None:
    machine = Script(Connect(1, ORIGIN))
    sim = Simulator(0, Weather(black_hole=1.0))
    sim.run(machine)
    sim.advance(1.0)
    machine.first = [Close(1)]
    sim.drivers[0].post(None)
    sim.flush()
    assert machine.ends() == [(1.0, None)]
    assert not any(sim.left.values())


def reading(weather: Weather, says: Sequence[bytes], *, react: Any = None, seed: int = 0) -> tuple[Simulator, Script]:
    """A machine that reads all that an origin says, in so many chunks."""

    def read(completion: Completion) -> Sequence[Operation]:
        return [Receive(1)] if isinstance(completion, Connected) else []

    origin = Recorder()
    origin.on_opened = None
    machine = Script(Connect(1, ORIGIN), react=react or read)
    sim = Simulator(seed, weather)
    sim.listen(ORIGIN, lambda _: origin)
    sim.run(machine)
    sim.flush()
    for chunk in says:
        origin.write(chunk)
    origin.write_eof()
    sim.settle()
    return sim, machine


def read_by(machine: Script) -> list[bytes]:
    return [item.data for _, item in machine.heard if isinstance(item, Received)]


def test_reads_are_split_and_joined_and_stay_in_order() -> None:
    says = [b"%03d " % index for index in range(200)]
    _, machine = reading(Weather(), says)
    assert read_by(machine) == [*says, b""]
    sizes: Counter[int] = Counter()
    for seed in range(20):
        sim, machine = reading(Weather(split=0.3, join=0.3, latency_s=(0.0, 0.01), shuffle=True), says, seed=seed)
        reads = read_by(machine)
        assert b"".join(reads) == b"".join(says)
        assert reads.count(b"") == 1
        assert not reads[-1]
        sizes.update(map(len, reads))
    assert sizes[1] > 0
    assert max(sizes) > 100
    assert sim.census["fault:split"] > 0
    assert sim.census["fault:join"] > 0


def test_a_reset_strikes_anywhere_within_a_chunk() -> None:
    got: set[int] = set()
    for seed in range(50):
        sim, machine = reading(Weather(reset=0.2), [b"0123456789"] * 10, seed=seed)
        data = b"".join(read_by(machine))
        assert data == (b"0123456789" * 10)[: len(data)]
        got.add(len(data))
        if sim.census["fault:reset"]:
            assert [kind for _, kind in machine.ends()] == ["reset"]
    assert len(got) > 10
    assert 100 in got


def test_a_read_may_still_come_behind_a_hold() -> None:
    def react(completion: Completion) -> Sequence[Operation]:
        if isinstance(completion, Connected):
            return [Receive(1)]
        return [Hold(1)] if isinstance(completion, Received) else []

    sim, machine = reading(Weather(early_read=1.0), [b"one", b"two", b"three"], react=react)
    assert len(read_by(machine)) == 1  # the driver keeps the second
    assert sim.census["fault:early_read"] == 1
    assert sim.drivers[0].wires[1].early is not None


def test_a_held_connection_may_be_deaf_to_a_reset() -> None:
    for share in (0.0, 1.0):
        origin = Recorder()
        machine = Script(Connect(1, ORIGIN))
        sim = Simulator(0, Weather(deaf=share))
        sim.listen(ORIGIN, lambda _, origin=origin: origin)  # type: ignore[misc]
        sim.run(machine)
        sim.flush()
        origin.reset()
        sim.settle()
        assert bool(machine.ends()) == (not share)
        if share:
            machine.first = [Send(1, b"hello?")]
            sim.drivers[0].post(None)
            sim.flush()
            assert [kind for _, kind in machine.ends()] == ["reset"]


def test_readers_are_slow_or_stop_until_faults_end() -> None:
    near, far = Recorder(), Recorder()
    sim = far_ends(near, far, Weather(slow_reader=1.0))
    near.write(bytes(200 * KIB))
    sim.flush()
    assert 0 < len(far.got) < 200 * KIB
    sim.advance(0.2)
    assert near.unsent > 0
    sim.faults = False
    sim.settle()
    assert len(far.got) == 200 * KIB
    near, far = Recorder(), Recorder()
    sim = far_ends(near, far, Weather(stopped_reader=1.0))
    near.write(bytes(256 * KIB))
    near.write(bytes(256 * KIB))
    sim.flush()
    assert len(far.got) < 512 * KIB
    assert sim.census["fault:stopped_reader"] == 1
    sim.advance(1.0)
    assert near.unsent > 0
    sim.faults = False
    sim.flush()
    assert len(far.got) == 512 * KIB
    assert sim.faults is False


def test_a_stopped_reader_goes_on_by_itself() -> None:
    near, far = Recorder(), Recorder()
    sim = far_ends(near, far, Weather(stopped_reader=1.0))
    near.write(bytes(256 * KIB))
    near.write(bytes(256 * KIB))
    sim.settle()
    assert len(far.got) == 512 * KIB
    assert 5.0 <= sim.now <= 121.0


def test_what_coincides_is_shuffled_across_connections_only() -> None:
    orders: set[tuple[str, ...]] = set()
    for seed in range(20):
        sim = Simulator(seed, Weather(shuffle=True))
        heard: list[str] = []

        def come(far: FarEnd, heard: list[str] = heard) -> None:
            far.on_received = lambda data: heard.append(data.decode())

        sim.listen(ORIGIN, come)
        for name in "abc":
            client = FarEnd()
            sim.connect(ORIGIN, client)
            client.write(f"{name}1".encode())
            client.write(f"{name}2".encode())
        sim.flush()
        text = "".join(heard)
        for name in "abc":
            assert text.index(f"{name}1") < text.index(f"{name}2")
        orders.add(tuple(heard))
    assert len(orders) > 5


# -- a seed is a run


def tunnelled(seed: int, weather: Weather) -> Simulator:
    """Clients through a tunnel to an echo, with the outcomes checked: whole, or visibly cut."""
    sim = Simulator(seed, weather)
    sim.listen(ORIGIN, lambda _: Echo())
    driver = sim.run(Tunnel(ORIGIN), [HERE])
    rng = sim.rng_for("clients")
    clients = [Recorder(rng.randbytes(int(2 ** (rng.random() * 17))), then_eof=True) for _ in range(8)]
    for client in clients:
        sim.call_later(rng.random() * 0.1, lambda client=client: sim.connect(HERE, client))  # type: ignore[misc]
    sim.advance(20.0)
    sim.faults = False
    sim.settle(1000.0)
    for client in clients:
        assert len(client.ends) == 1
        if client.ends == [None]:
            assert client.got == client.says
        else:
            assert client.says.startswith(client.got)
    finish(sim, driver)
    return sim


def finish(sim: Simulator, driver: SimulatedDriver) -> None:
    driver.drain(0.0)
    sim.settle()
    assert driver.done
    assert not any(sim.left.values()), sim.left


def test_seeds_give_runs_that_are_equal_when_repeated_and_whole_or_visibly_cut() -> None:
    census: Counter[str] = Counter()
    hashes: set[str] = set()
    for seed in range(60):
        sim = tunnelled(seed, Weather.swarm(Random(seed)))
        census.update(sim.census)
        hashes.add(sim.trace_hash)
        if seed % 10 == 0:
            assert tunnelled(seed, Weather.swarm(Random(seed))).trace_hash == sim.trace_hash
    assert len(hashes) == 60
    never = [kind for kind, count in census.items() if kind.startswith("fault:") and not count]
    # A tunnel hardly ever holds, and nobody here speaks TLS.
    assert not set(never) - {"fault:early_read", "fault:deaf", *(f"fault:{fault}" for fault in LAYER_FAULTS)}


def test_calm_weather_cuts_nothing() -> None:
    sim = tunnelled(1, Weather.calm())
    assert sim.census["completion:Connected"] == sim.census["completion:Accepted"] == 8
    assert not any(count for kind, count in sim.census.items() if kind.startswith("fault:") and kind != "fault:blocked")
    assert sim.census["error:aborted"] == 1  # the last credit, when the listener closes


def test_the_trace_is_kept_where_it_is_wanted() -> None:
    sim = Simulator(keep_trace=True)
    sim.listen(ORIGIN, lambda _: Echo())
    driver = sim.run(Tunnel(ORIGIN), [HERE])
    sim.connect(HERE, Recorder(b"hello", then_eof=True))
    sim.settle(10.0)
    finish(sim, driver)
    assert sim.trace is not None
    assert sim.trace[0] == "0.000000 1 > Listen 1 ('10.0.0.1', 8000)"
    assert any(line.endswith("1 > Send 2 5 bytes b'hello'") for line in sim.trace)
    assert Simulator().trace is None
    assert isinstance(driver.machine, Tunnel)
    assert any("Drain 0 0.0 s" in line for line in sim.trace)


PROGRAM = """
from tests.backends.test_simulator import tunnelled
from coulee.backends.simulator import Weather
from random import Random
print(tunnelled(3, Weather.swarm(Random(3))).trace_hash)
"""


def test_a_seed_is_the_same_run_in_every_process() -> None:
    here = tunnelled(3, Weather.swarm(Random(3))).trace_hash
    for hash_seed in ("1", "2"):
        out = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": "core:lb:backends:."},
        ).stdout
        assert out.strip() == here


def test_swarms_leave_whole_kinds_of_faults_out() -> None:
    off: Counter[str] = Counter()
    for seed in range(400):
        weather = Weather.swarm(Random(seed))
        for kind in ("split", "join", "refuse", "reset", "deaf", "early_read", "stopped_reader"):
            off[kind] += not getattr(weather, kind)
    assert all(150 < count < 250 for count in off.values()), off
