"""Recordings: what is written, read, and replayed. The machines here are small, and know nothing of HTTP."""

from __future__ import annotations

import json
import stat
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.backends.recorder import Recorded, Recorder
from coulee.backends.recording import _LAST, Recording, RecordingError, _head
from coulee.backends.replay import Replay, Step
from coulee.core.seam import (
    Accept,
    Accepted,
    Blocked,
    Close,
    Closed,
    Completion,
    Connected,
    Drain,
    Finished,
    Listen,
    ListenAt,
    Listening,
    Machine,
    Operation,
    Received,
    Report,
    Run,
    Send,
    Sent,
)


@dataclass(slots=True)
class Note:
    """What the machine reports."""

    text: str
    number: int
    fields: dict[str, object] = field(default_factory=dict[str, object])


PATHS = count()  # a traceback names files, which are somewhere else in a replay


class Echo:
    """Sends back what it hears, with a random number in front, and reports it."""

    def __init__(self, rng: Random | None = None, shift: int = 0) -> None:
        self.rng = rng or Random(0)
        self.shift = shift
        self.deadline: float | None = None
        self.draining = False

    def fresh(self, *, rng: Random, wall_clock_offset_s: float, listen: Sequence[ListenAt] = ()) -> Echo:
        return Echo(rng, self.shift)

    @property
    def finished(self) -> bool:
        return self.draining

    def handle(self, completion: Completion | None, now: float) -> list[Operation]:
        match completion:
            case None:
                return [Listen(1, ("127.0.0.1", 80)), Accept(2, 1)]
            case Received(data=b"fail"):
                raise LookupError("as it was told")
            case Received():
                number = self.rng.randrange(1000) + self.shift
                note = Note("heard", number, {"traceback": f"in file {next(PATHS)}", "now": now})
                return [Send(completion.conn, b"%d " % number + completion.data), Report(note)]
            case Drain():
                self.draining = True
                return [Close(1)]
            case Finished():
                return [Report(Note(f"{completion.value!r} {completion.error!r}", 0))]
            case _:
                return []


BOMB = struct.pack("<BdQI", 253, 0.0, 2, len(LETTERS := zlib.compress(b"x" * (65 << 20), 1))) + LETTERS
SAID: list[Completion | None] = [
    None,
    Listening(1, ("127.0.0.1", 80)),
    Accepted(2, ("127.0.0.1", 4242), ("127.0.0.1", 80)),
    Received(2, b"hello"),
    Received(2, b"\x00" * 100_000),
    Connected(3, "/run/here.sock", ""),
    Blocked(2),
    Sent(2),
    Finished(4, {"a": (1, 2)}, None),
    Finished(5, None, OSError(5, "input and output")),
    Received(2, b""),
    Closed(2, "reset", "connection reset by peer"),
    Drain(30.0),
]


RECORDERS: list[Recorder] = []


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    while RECORDERS:
        RECORDERS.pop().close()


def recorder_of(path: Path, **options: object) -> Recorder:
    RECORDERS.append(Recorder(Echo(), path, **options))  # type: ignore[arg-type]
    return RECORDERS[-1]


def recorded(path: Path, completions: Sequence[Completion | None] = SAID, **options: object) -> Recorded:
    """A recording of an Echo."""
    machine = recorder_of(path, **options).fresh(
        rng=Random(7), wall_clock_offset_s=1e9, listen=[("127.0.0.1", 80), "/run/x.sock"]
    )
    for number, completion in enumerate(completions):
        machine.handle(completion, number / 8)
    return machine


def replayed(path: Path, definition: Machine | None = None) -> tuple[list[Step], str]:
    replay = Replay(Recording(path), definition or Echo())
    return [replay.step(turn) for turn in replay.recording], replay.recording.end


def test_a_replay_is_told_the_same_at_the_same_times_and_does_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorded(path)
    steps, end = replayed(path)
    assert [step.turn.completion for step in steps][:9] == SAID[:9]
    assert str(steps[9].turn.completion) == str(SAID[9])
    assert [step.turn.completion for step in steps][10:] == SAID[10:]
    assert [step.turn.now for step in steps] == [number / 8 for number in range(len(SAID))]
    assert not [step.difference for step in steps if step.difference]
    assert end == "the machine has finished"


def test_the_first_line_says_what_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorded(path, about={"program": "app.py"})
    first = json.loads(path.read_bytes().split(b"\n")[0])
    assert first["coulee recording"] == 2
    assert first["about"]["program"] == "app.py"
    assert first["about"]["coulee"]
    header = Recording(path).header
    assert header.listen == [("127.0.0.1", 80), "/run/x.sock"]
    assert header.wall_clock_offset_s == 1e9
    assert header.seed == Random(7).getrandbits(128)


def test_another_machine_does_otherwise_and_the_turn_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorded(path)
    steps, _ = replayed(path, Echo(shift=1))
    assert [step.number for step in steps if step.difference] == [3, 4, 10]
    assert steps[3].difference == "operation 1 was Send 2, and is the same with another content"


class Other(Echo):
    """Does as it is told by `change`."""

    def __init__(self, change: Callable[[list[Operation]], list[Operation]], rng: Random | None = None) -> None:
        super().__init__(rng)
        self.change = change

    def fresh(self, *, rng: Random, wall_clock_offset_s: float, listen: Sequence[ListenAt] = ()) -> Other:
        return Other(self.change, rng)

    def handle(self, completion: Completion | None, now: float) -> list[Operation]:
        return self.change(super().handle(completion, now))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda asked: asked[:-1], "it asks for less: Accept 2 is missing"),
        (lambda asked: [*asked, Run(9, "blocking", int)], "it asks for more: Run 9"),
        (lambda asked: asked[::-1], "operation 1 was Listen 1, and is Accept 2"),
    ],
)
def test_what_differs_is_named(change: Callable[[list[Operation]], list[Operation]], says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorded(path)
    assert replayed(path, Other(change))[0][0].difference == says


def test_a_machine_that_raises_is_recorded_to_that_turn_and_raises_again(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    with pytest.raises(LookupError):
        recorded(path, [None, Received(2, b"fine"), Received(2, b"fail")])
    steps, end = replayed(path)
    assert [type(step.error) for step in steps] == [type(None), type(None), LookupError]
    assert not any(step.difference for step in steps)
    assert end == "the machine has failed: LookupError: as it was told"


def test_to_raise_where_none_was_raised_is_a_difference_and_the_other_way_round(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorded(path, [None])

    def fail(_: list[Operation]) -> list[Operation]:
        raise RuntimeError("only now")

    assert replayed(path, Other(fail))[0][0].difference == "it raises RuntimeError: only now"
    with pytest.raises(LookupError):
        recorded(path, [Received(2, b"fail")])

    class Mended(Echo):
        def fresh(self, **_: object) -> Mended:
            return self

        def handle(self, completion: Completion | None, now: float) -> list[Operation]:
            return []

    assert replayed(path, Mended())[0][0].difference == "it raised then, and does not now"


def test_what_was_told_is_in_the_file_before_the_next_turn_begins(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    machine = recorded(path, [None])
    for number in range(5):
        machine.handle(Received(2, b"x"), 1.0 + number)
        steps, end = replayed(path)
        assert len(steps) == number + 2
        assert "breaks off" in end


def test_a_file_that_breaks_off_anywhere_gives_its_whole_turns(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorded(path, [None, *SAID[3:4], *SAID[8:]])
    whole = path.read_bytes()
    counts = set[int]()
    for size in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:size])
        steps, end = replayed(path)
        counts.add(len(steps))
        assert not any(step.difference for step in steps)
        assert "breaks off" in end
    assert counts == set(range(8))


def test_an_end_without_a_word_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorded(path, [None])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\n") + 1] + _head.pack(_LAST, 0.0, 0, 0))
    with pytest.raises(RecordingError, match=r"^turn 0 is damaged: an end without a word$"):
        list(Recording(path))


@given(st.data())
def test_a_damaged_file_is_read_to_some_end_or_said_to_be_damaged(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.rec"
        recorded(path, [None, *SAID[1:4], *SAID[8:]])
        whole = bytearray(path.read_bytes())
        begins = whole.index(b"\n") + 1
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(begins, len(whole) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(whole)
        recording = Recording(path)
        try:
            turns = len(list(recording))
        except RecordingError as error:
            assert "damaged" in str(error) or "--trust" in str(error)  # noqa: PT017
        else:
            assert turns <= len(SAID)
            assert recording.end


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda _: b"", "no recording"),
        (lambda _: b"[1]\n", "no recording"),
        (lambda data: data.replace(b'"seed"', b'"seat"', 1), "no recording"),
        (lambda data: data.replace(b'recording": 2', b'recording": 3', 1), "its format is 3"),
        (lambda data: data.split(b"\n")[0] + b"\n" + b"\x63" + b"\0" * 40, "turn 0 is damaged"),
        (lambda data: data.split(b"\n")[0] + b"\n" + b"\x03" + b"\0" * 40, "turn 0 is damaged"),
        (lambda data: data.split(b"\n")[0] + b"\n" + b"\xfd" + b"\0" * 40, "turn 0 is damaged"),
        (lambda data: data.split(b"\n")[0] + b"\n" + BOMB, "turn 0 is damaged: a read that is larger than any"),
    ],
)
def test_a_file_that_makes_no_sense_is_said_so(damage: Callable[[bytes], bytes], says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorded(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RecordingError, match=says):
        replayed(path)


def test_a_job_s_result_that_is_pickled_is_read_for_who_trusts_it(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorded(path, [None, Finished(4, {1, 2}, None)])
    with pytest.raises(RecordingError, match=r"turn 1: a job has returned an object that was pickled.*--trust"):
        replayed(path)
    turns = list(Recording(path, trusted=True))
    assert turns[1].completion == Finished(4, {1, 2}, None)


def test_nobody_else_can_read_the_file_and_an_old_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    path.write_text("an older one, which everybody could read")
    path.chmod(0o644)
    recorded(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Recording(path).header.seed


def test_each_further_machine_has_a_file_of_its_own(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path / "a.rec")
    for _ in range(3):
        recorder.fresh(rng=Random(1), wall_clock_offset_s=0.0).handle(None, 0.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.rec", "a.rec.2", "a.rec.3"]


def test_a_recording_ends_at_its_limit_and_its_machine_goes_on(tmp_path: Path) -> None:
    path, complaints = tmp_path / "a.rec", list[str]()
    machine = recorded(path, bytes_max=50_000, on_trouble=complaints.append)
    assert complaints == [f"{path}: the recording has reached its limit, and ends here"]
    assert machine.handle(Received(2, b"still here"), 9.0)
    steps, end = replayed(path)
    assert len(steps) == 4
    assert end == "the recording has reached its limit, and ends here"
    assert path.stat().st_size < 50_000


def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    complaints = list[str]()
    machine = recorded(full, on_trouble=complaints.append)
    assert complaints == ["/dev/full: the recording ends here: No space left on device"]
    assert machine.handle(Received(2, b"still here"), 9.0)


def test_a_place_where_nothing_can_be_written_is_an_os_error_at_the_beginning(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file or directory"):
        recorded(tmp_path / "nowhere" / "a.rec")


def test_whoever_runs_it_can_say_that_it_has_failed(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorder = recorder_of(path)
    recorder.fresh(rng=Random(1), wall_clock_offset_s=0.0).handle(None, 0.0)
    recorder.close(AssertionError("machine, law 4: a second Send on 2 in one turn"))
    assert replayed(path)[1] == "the machine has failed: AssertionError: machine, law 4: a second Send on 2 in one turn"


def test_a_recording_that_is_closed_says_that_its_program_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorder = recorder_of(path)
    recorder.fresh(rng=Random(1), wall_clock_offset_s=0.0).handle(None, 0.0)
    recorder.close()
    recorder.close(RuntimeError("it is closed already"))
    assert replayed(path)[1] == "the program has ended"


def test_a_definition_does_not_run() -> None:
    with pytest.raises(TypeError, match="fresh"):
        Recorder(Echo(), "nowhere").handle(None, 0.0)


def test_a_fresh_one_of_a_recorded_machine_is_not_recorded(tmp_path: Path) -> None:
    machine = recorded(tmp_path / "a.rec", [None])
    assert isinstance(machine.fresh(rng=Random(1), wall_clock_offset_s=0.0), Echo)
    assert machine.deadline is None
    assert not machine.finished
