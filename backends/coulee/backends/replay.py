"""Runs a fresh machine through the turns of a recording, and compares what it asks for with what was asked then.

    replay = Replay(Recording("monday.rec"), proxy)
    for turn in replay.recording:
        step = replay.step(turn)

The definition must be the one that was recorded; `difference` tells where a machine of it does otherwise. What comes
after a difference is of no value: the world of the recording has answered somebody else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from coulee.backends.recorded_certificates import Objects
from coulee.backends.recorder import Redactor, begin_anew, redacted
from coulee.backends.recording import Recording, RecordingError, Said, Turn, told
from coulee.core.seam import Machine, Operation


@dataclass(slots=True)
class Step:
    """One turn, replayed. `difference` is "" where it went as recorded; `error` is what the machine raised."""

    number: int
    turn: Turn
    operations: list[Operation]
    difference: str = ""
    error: BaseException | None = None


class Replay:
    """See the top of the module. `machine` is the one that runs."""

    def __init__(
        self, recording: Recording, definition: Machine, redactor: Callable[[], Redactor] | None = None
    ) -> None:
        header = recording.header
        self.recording = recording
        self.machine = definition.fresh(
            rng=Random(header.seed), wall_clock_offset_s=header.wall_clock_offset_s, listen=header.listen
        )
        self._certificates = Objects(self.machine)
        self._redactor = redactor() if redactor is not None else None
        self._turns = 0

    def step(self, turn: Turn) -> Step:
        """Run one turn. Raises `RecordingError` where what was told makes no sense."""
        number, self._turns = self._turns, self._turns + 1
        try:
            completion = self._certificates.given(turn.completion)
        except ValueError as error:
            raise RecordingError(f"turn {number} is damaged: {error}") from None
        try:
            operations = self.machine.handle(completion, turn.now)
        except Exception as error:
            difference = "" if turn.said is None else f"it raises {type(error).__name__}: {error}"
            return Step(number, turn, [], difference, error)
        return Step(number, turn, operations, self._difference(turn, operations))

    def _difference(self, turn: Turn, operations: list[Operation]) -> str:
        redactor = self._redactor
        if redactor is not None and turn.completion is not None:
            redacted(redactor, turn.completion)
        said = list(told(operations, None if redactor is None else redactor.sent))
        if redactor is not None:
            begin_anew(redactor, operations)
        if turn.said is None:
            return "it raised then, and does not now"
        if said == turn.said:
            return ""
        for index, (then, now) in enumerate(zip(turn.said, said, strict=False)):
            if then != now:
                return f"operation {index + 1} was {_shown(then)}, and is {_shown(now, then)}"
        if len(said) > len(turn.said):
            return f"it asks for more: {_shown(said[len(turn.said)])}"
        return f"it asks for less: {_shown(turn.said[len(said)])} is missing"


def _shown(said: Said, other: Said | None = None) -> str:
    kind, number, _ = said
    if other is not None and other[:2] == said[:2]:
        return "the same with another content"
    return f"{kind.__name__} {number}".removesuffix(" 0")
