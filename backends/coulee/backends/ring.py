"""Keeps in memory what machines were told lately, and writes it down when something fails: see `recorder`.

A recording is of use only from its machine's first turn on. So every so many seconds a fresh machine takes over
(see `Succession`), and what was recorded of one is forgotten when it has nothing left to do. That is the price: clients
come again to a new connection, the pool of connections to origins begins anew, and limits are counted apart by those
that finish and the one that has begun.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from coulee.backends.recorder import (
    FAILED,
    FILE_BYTES_MAX,
    Definition,
    Recorded,
    RecordingFile,
    Redactor,
    ignored,
    numbered,
    open_private,
    reason_to_end,
    record,
)
from coulee.backends.succession import Succession
from coulee.core.seam import ListenAt, Machine

RING_BYTES_MAX: Final = 64 << 20  # of one machine's recording
DUMPS_MAX: Final = 10  # files that one ring writes; what fails a thousand times fails as it did the first ten


class _Memory:
    """Keeps a recording until it is asked for, and writes it to a file from then on."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._file: RecordingFile | None = None

    @property
    def is_large(self) -> bool:
        """Whether it is time for another machine: half of what may be kept is for those who are still served."""
        return self._bytes > self._ring.bytes_max // 2

    def write(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
            return
        self._bytes += len(data)
        if self._bytes <= self._ring.bytes_max:
            self._pieces.append(data)
        else:
            self._pieces.clear()  # a part of it is of no use

    def settle(self, report: object) -> None:
        if self._file is None and self._ring.waits_for(report):
            self._dump()

    def end(self, why: str) -> None:
        if self._file is None and why.startswith(FAILED):
            self._dump()
        if self._file is not None:
            self._file.end(why)

    def _dump(self) -> None:
        if self._bytes > self._ring.bytes_max:
            self._ring.on_trouble(f"the recording of what has failed had grown beyond {self._ring.bytes_max} bytes")
            return
        self._file = self._ring.next_file()
        if self._file is not None:
            self._file.write(b"".join(self._pieces))
            self._pieces.clear()


class Ring(Definition):
    """A definition whose machines are recorded in memory, each for `seconds`; see the top of the module.

    `waits_for` is asked about each report whether it is a reason to write the recording down; a machine's failure is,
    always. The files are `path`, `path.2` and so on, `dumps_max` of them at most; `on_dump` is called with each.
    """

    def __init__(
        self,
        definition: Machine,
        path: str | Path,
        seconds: float,
        waits_for: Callable[[object], bool],
        *,
        about: Mapping[str, Any] | None = None,
        redactor: Callable[[], Redactor] | None = None,
        bytes_max: int = RING_BYTES_MAX,
        dumps_max: int = DUMPS_MAX,
        on_dump: Callable[[str], object] | None = None,
        on_trouble: Callable[[str], object] | None = None,
    ) -> None:
        self.definition = definition
        self.path = Path(path)
        self.seconds = seconds
        self.waits_for = waits_for
        self.about = dict(about or {})
        self.redactor = redactor
        self.bytes_max = bytes_max
        self.dumps_max = dumps_max
        self.on_dump = on_dump or ignored
        self.on_trouble = on_trouble or ignored
        self._dumps = 0
        self._successions: list[Succession] = []

    def fresh(self, *, rng: Random, wall_clock_offset_s: float, listen: Sequence[ListenAt] = ()) -> Succession:
        """See `seam.Machine`."""

        def make() -> Recorded:
            sink = _Memory(self)
            return record(self.definition, sink, rng, wall_clock_offset_s, listen, self.about, self.redactor)

        succession = Succession(make, self._is_due)
        self._successions.append(succession)
        return succession

    def close(self, error: BaseException | None = None) -> None:
        """The machines will not be run again; `error` is why, where whoever ran them has failed."""
        for succession in self._successions:
            for machine in succession.machines:
                assert isinstance(machine, Recorded)
                machine.end(reason_to_end(error))

    def _is_due(self, machine: Machine, age_s: float) -> bool:
        assert isinstance(machine, Recorded)
        assert isinstance(machine.sink, _Memory)
        return age_s >= self.seconds or machine.sink.is_large

    def next_file(self) -> RecordingFile | None:
        """A file for what has failed; None where there are enough of them, or none can be opened."""
        if self._dumps >= self.dumps_max:
            return None
        self._dumps += 1
        path = numbered(self.path, self._dumps)
        try:
            file = open_private(path)
        except OSError as error:
            self.on_trouble(f"{path}: {error.strerror or error}")
            return None
        self.on_dump(str(path))
        return RecordingFile(file, FILE_BYTES_MAX, self.on_trouble)
