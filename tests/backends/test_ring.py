"""Recordings in memory: when they are written, what is in them, and what bounds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import pytest

from coulee.backends.peers import Answer, Ask, H11Client, H11Origin, Reply
from coulee.backends.recording import Recording
from coulee.backends.replay import Replay
from coulee.backends.ring import Ring
from coulee.backends.simulator import SimulatedDriver, Simulator
from coulee.core import Access, Exchange, Filter, Peer, Proxy, Response, respond
from coulee.core.seam import Address, Listening, Report
from coulee.lb import Cluster
from coulee.server.recording import is_failure

HERE: Address = ("10.0.0.1", 80)
ORIGIN: Address = ("10.1.0.1", 80)


class Fallible(Filter):
    def request_filter(self, exchange: Exchange) -> Response | None:
        if exchange.request.path == "/bad":
            raise LookupError("a filter's mistake")
        return respond(200, b"y" * 1000) if exchange.request.path == "/here" else None


Rooms: TypeAlias = "Callable[..., Room]"


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    """Makes rooms, and closes what they record."""
    made: list[Room] = []

    def make(**options: Any) -> Room:
        made.append(Room(tmp_path, **options))
        return made[-1]

    yield make
    for room in made:
        room.ring.close()


class Room:
    """A ring around a proxy, in the simulator."""

    def __init__(self, folder: Path, *, seconds: float = 10.0, **options: Any) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.proxy = Proxy(Cluster(Peer(ORIGIN)), [Fallible()])
        self.ring = Ring(
            self.proxy, folder / "ring.rec", seconds, is_failure,
            on_dump=lambda path: self.said.append(Path(path).name), on_trouble=self.said.append, **options,
        )  # fmt: skip
        self.simulator = Simulator(3)
        self.simulator.listen(ORIGIN, lambda _: H11Origin(lambda _: Reply(200, [], [b"x" * 100])))
        self.driver: SimulatedDriver = self.simulator.run(self.ring, [HERE])

    @property
    def machines(self) -> int:
        return len(self.driver.machine.machines)  # type: ignore[attr-defined]

    def ask(self, *targets: str) -> list[Answer]:
        """A client of its own; its answers."""
        client = H11Client([Ask("GET", target, [("Host", "a")]) for target in targets])
        self.simulator.connect(HERE, client)
        self.simulator.advance(0.5)
        return client.answers

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def replayed(self, name: str) -> list[str]:
        """The targets that were asked for in a recording, which a fresh core goes through as it was."""
        replay = Replay(Recording(self.folder / name), self.proxy)
        targets: list[str] = []
        for turn in replay.recording:
            step = replay.step(turn)
            assert not step.difference
            targets += [
                operation.record.target
                for operation in step.operations
                if isinstance(operation, Report) and isinstance(operation.record, Access)
            ]
        return targets


def test_nothing_is_written_while_nothing_fails(rooms: Rooms, tmp_path: Path) -> None:
    room = rooms()
    assert [answer.status for answer in room.ask("/a", "/here")] == [200, 200]
    room.driver.drain(1.0)
    room.simulator.settle()
    assert room.driver.done
    assert room.files() == []
    assert room.said == []


def test_a_failing_filter_has_all_written_that_its_machine_was_told(rooms: Rooms, tmp_path: Path) -> None:
    room = rooms()
    room.ask("/a")
    assert room.ask("/bad", "/c")[0].status == 500
    assert room.said == ["ring.rec"]
    assert room.replayed("ring.rec")[:2] == ["/a", "/bad"]
    room.ask("/d")
    assert room.replayed("ring.rec")[-1] == "/d", "from then on it is written as it comes"


def test_what_lies_longer_back_is_forgotten_and_clients_notice_nothing(rooms: Rooms, tmp_path: Path) -> None:
    room = rooms(seconds=10.0)
    for name in "abc":
        assert [answer.status for answer in room.ask(f"/{name}")] == [200]
        room.simulator.advance(10.0)
    room.ask("/bad")
    assert room.replayed("ring.rec") == ["/bad"]
    assert room.machines <= 2
    assert [record.target for record in room.driver.records if isinstance(record, Access)] == ["/a", "/b", "/c", "/bad"]


def test_each_machine_that_fails_has_a_file_up_to_a_number(rooms: Rooms, tmp_path: Path) -> None:
    room = rooms(seconds=1.0, dumps_max=3)
    for _ in range(5):
        room.ask("/bad")
        room.ask("/bad")
        room.simulator.advance(2.0)
    assert room.files() == ["ring.rec", "ring.rec.2", "ring.rec.3"]
    for name in room.files():
        assert set(room.replayed(name)) == {"/bad"}


def test_much_in_little_time_makes_way_for_a_fresh_machine(rooms: Rooms, tmp_path: Path) -> None:
    room = rooms(seconds=1e9, bytes_max=40_000)
    for count in range(60):
        assert [answer.status for answer in room.ask(f"/{count}", "/here")] == [200, 200]
    room.ask("/bad")
    targets = room.replayed("ring.rec")
    assert targets[-1] == "/bad"
    assert 2 < len(targets) < 60
    assert (tmp_path / "ring.rec").stat().st_size < 40_000


def test_a_recording_that_has_grown_too_large_is_not_kept_and_said_so(rooms: Rooms, tmp_path: Path) -> None:
    room = rooms(seconds=1e9, bytes_max=10_000)
    answers = room.ask(*(f"/{count}" for count in range(50)), "/bad")
    assert [answer.status for answer in answers][-1] == 500
    assert room.said == ["the recording of what has failed had grown beyond 10000 bytes"]
    assert room.files() == []


def test_a_place_where_nothing_can_be_written_is_said_when_it_matters(rooms: Rooms, tmp_path: Path) -> None:
    room = rooms()
    room.ring.path = tmp_path / "nowhere" / "ring.rec"
    room.ask("/bad")
    assert room.said == [f"{room.ring.path}: No such file or directory"]


def test_when_a_driver_fails_its_machines_are_written_down(rooms: Rooms, tmp_path: Path) -> None:
    room = rooms()
    room.ask("/a")
    room.ring.close(AssertionError("backend, law 8: a second read on 7, which is held"))
    assert room.said == ["ring.rec"]
    assert room.replayed("ring.rec") == ["/a"]
    recording = Recording(tmp_path / "ring.rec")
    assert list(recording)
    assert recording.end == "the machine has failed: AssertionError: backend, law 8: a second read on 7, which is held"


def test_an_end_in_order_writes_nothing(rooms: Rooms, tmp_path: Path) -> None:
    room = rooms()
    room.ask("/a")
    room.ring.close()
    assert room.files() == []


def test_a_machine_that_raises_is_written_down(tmp_path: Path) -> None:
    class Broken(Proxy):
        def fresh(self, **given: Any) -> Broken:
            return Broken(self.balancer, **given)

        def listening(self, completion: object) -> None:
            raise ZeroDivisionError("a bug of ours")

    ring = Ring(Broken(Cluster(Peer(ORIGIN))), tmp_path / "ring.rec", 10.0, is_failure)
    machine = ring.fresh(rng=Random(1), wall_clock_offset_s=0.0, listen=[HERE])
    machine.handle(None, 0.0)
    with pytest.raises(ZeroDivisionError):
        machine.handle(Listening(1, HERE), 0.0)
    recording = Recording(tmp_path / "ring.rec")
    assert [turn.said is None for turn in recording] == [False, True]
    assert recording.end == "the machine has failed: ZeroDivisionError: a bug of ours"
