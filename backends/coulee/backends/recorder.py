"""Writes down what a machine is told, on any backend, so that a fresh one can be told the same: see `replay`.

    run(Recorder(proxy, "monday.rec"), "127.0.0.1:8000")

A `Recorder` is a definition, like the proxy in it, and the machines that a backend makes of it are recorded from their
first turn on. So there is nothing about recording in any backend, nor in the driver. Rules:

- A recording that cannot go on (a full disk, its limit) ends, and says so; the proxy goes on.
- A turn is in the file before the next one begins. So what a machine was told is there also when its process is killed.
- What is to be hidden is hidden before it is kept anywhere.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any, BinaryIO, Final, Protocol

from coulee.backends.recorded_certificates import Numbers
from coulee.backends.recording import (
    Header,
    completion_bytes,
    last_bytes,
    operations_bytes,
    raised_bytes,
)
from coulee.core.seam import (
    Accepted,
    Closed,
    Completion,
    Connected,
    DownstreamTls,
    Drain,
    Finished,
    ListenAt,
    Machine,
    Operation,
    Received,
    Report,
    Secure,
    Send,
)

FILE_BYTES_MAX: Final = 1 << 30  # of one file
FAILED: Final = "the machine has failed"


class Redactor(Protocol):
    """Makes bytes unreadable before they are kept, as many as there were: see `coulee.server.redaction`."""

    names: Sequence[str]

    def opened(self, conn: int, was_accepted: bool) -> None:
        """A connection stands."""

    def received(self, conn: int, data: bytes) -> bytes:
        """What its peer has said."""
        ...

    def sent(self, operation: Send) -> Send:
        """What it is told."""
        ...

    def closed(self, conn: int) -> None:
        """It is gone."""


class Sink(Protocol):
    """Where a recording goes."""

    def write(self, data: bytes) -> None: ...
    def settle(self, report: object) -> None: ...
    def end(self, why: str) -> None: ...


class Definition:
    """What is no machine that runs, but has the shape of one, and makes some."""

    def handle(self, completion: Completion | None, now: float) -> list[Operation]:
        raise TypeError("a definition does not run: what fresh() makes does")

    deadline: float | None = None
    finished = False


class Recorder(Definition):
    """A definition whose machines are recorded, the first in `path`, and further ones (threads have several) in
    `path.2` and so on. An existing file is replaced; nobody but its owner can read it, for it holds what was said.

    `about` is kept in the file. `on_trouble` is called with one line where the recording ends before its machine does.
    """

    def __init__(
        self,
        definition: Machine,
        path: str | Path,
        *,
        about: Mapping[str, Any] | None = None,
        redactor: Callable[[], Redactor] | None = None,
        bytes_max: int = FILE_BYTES_MAX,
        on_trouble: Callable[[str], object] | None = None,
    ) -> None:
        self.definition = definition
        self.path = Path(path)
        self.about = dict(about or {})
        self.redactor = redactor
        self.bytes_max = bytes_max
        self.on_trouble = on_trouble or ignored
        self._recorded: list[Recorded] = []

    def fresh(self, *, rng: Random, wall_clock_offset_s: float, listen: Sequence[ListenAt] = ()) -> Recorded:
        """See `seam.Machine`. Raises OSError where the file cannot be written."""
        path = numbered(self.path, len(self._recorded) + 1)
        sink = RecordingFile(open_private(path), self.bytes_max, lambda why: self.on_trouble(f"{path}: {why}"))
        recorded = record(self.definition, sink, rng, wall_clock_offset_s, listen, self.about, self.redactor)
        self._recorded.append(recorded)
        return recorded

    def close(self, error: BaseException | None = None) -> None:
        """The machines will not be run again; `error` is why, where whoever ran them has failed."""
        for recorded in self._recorded:
            recorded.end(reason_to_end(error))


def reason_to_end(error: BaseException | None) -> str:
    """What the last frame says."""
    return "the program has ended" if error is None else f"{FAILED}: {type(error).__name__}: {error}"


def record(
    definition: Machine,
    sink: Sink,
    rng: Random,
    wall_clock_offset_s: float,
    listen: Sequence[ListenAt],
    about: Mapping[str, Any],
    redactor: Callable[[], Redactor] | None,
) -> Recorded:
    """A fresh machine of a definition, and its recording, begun."""
    seed = rng.getrandbits(128)
    hidden = redactor() if redactor is not None else None
    machine = definition.fresh(rng=Random(seed), wall_clock_offset_s=wall_clock_offset_s, listen=listen)
    names = list(hidden.names) if hidden is not None else []
    known = {**_circumstances(definition), **about}
    defined: list[ListenAt] = [*getattr(definition, "listen_at", ())]
    sink.write(Header(seed, wall_clock_offset_s, list(listen), names, known, defined).to_line())
    return Recorded(machine, sink, hidden)


def _circumstances(definition: Machine) -> dict[str, Any]:
    """What a replay may ask for, and what there is to know where it goes another way."""
    known: dict[str, Any] = {"coulee": version("coulee"), "python": platform.python_version()}
    config = getattr(definition, "config", None)
    if is_dataclass(config) and not isinstance(config, type):
        known["config"] = _settings(config)
    return known


def _settings(config: Any) -> dict[str, Any]:
    """What was set, and not what was made of it."""
    values = {each.name: getattr(config, each.name) for each in fields(config) if each.init}
    return {name: _settings(value) if is_dataclass(value) else value for name, value in values.items()}


class Recorded:
    """A machine whose every turn is written down. It is what it records in everything else."""

    def __init__(self, machine: Machine, sink: Sink, redactor: Redactor | None = None) -> None:
        self.machine = machine
        self.sink = sink
        self._redactor = redactor
        self._certificates = Numbers(machine)
        self._draining = False
        self._ended = False

    def fresh(self, *, rng: Random, wall_clock_offset_s: float, listen: Sequence[ListenAt] = ()) -> Machine:
        """See `seam.Machine`: one that is not recorded."""
        return self.machine.fresh(rng=rng, wall_clock_offset_s=wall_clock_offset_s, listen=listen)

    @property
    def deadline(self) -> float | None:
        return self.machine.deadline

    @property
    def finished(self) -> bool:
        return self.machine.finished

    def handle(self, completion: Completion | None, now: float) -> list[Operation]:
        sink, redactor = self.sink, self._redactor
        kept = completion
        if type(completion) is Finished:
            kept = self._certificates.kept(completion)
        elif redactor is not None and completion is not None:
            kept = redacted(redactor, completion)
        frame = completion_bytes(kept, now, redacted=redactor is not None)
        try:
            operations = self.machine.handle(completion, now)
        except BaseException as error:
            sink.write(frame + raised_bytes())
            self.end(reason_to_end(error))
            raise
        sink.write(frame + operations_bytes(operations, None if redactor is None else redactor.sent))
        for operation in operations:
            if type(operation) is Report:
                sink.settle(operation.record)
        if redactor is not None:
            begin_anew(redactor, operations)
        self._draining = self._draining or type(completion) is Drain
        if self._draining and self.machine.finished:
            self.end("the machine has finished")
        return operations

    def end(self, why: str) -> None:
        """Nothing more will be recorded."""
        if not self._ended:
            self._ended = True
            self.sink.end(why)


def redacted(redactor: Redactor, completion: Completion) -> Completion:
    """A completion as it is kept."""
    if isinstance(completion, Received):
        return Received(completion.conn, redactor.received(completion.conn, completion.data))
    if isinstance(completion, Accepted | Connected):
        redactor.opened(completion.conn, isinstance(completion, Accepted))
    elif isinstance(completion, Closed):
        redactor.closed(completion.conn)
    return completion


def begin_anew(redactor: Redactor, operations: Sequence[Operation]) -> None:
    """What is said inside TLS has nothing to do with what was said before."""
    for operation in operations:
        if type(operation) is Secure:
            redactor.opened(operation.conn, isinstance(operation.tls, DownstreamTls))


# ------------------------------------------------------------------------------------------------------- sinks


def numbered(path: Path, number: int) -> Path:
    """The name of the first file, or of a further one."""
    return path if number == 1 else path.with_name(f"{path.name}.{number}")


def open_private(path: Path) -> BinaryIO:
    """A new file that only its owner may read. Raises OSError."""
    with suppress(FileNotFoundError):
        if path.is_file():
            path.unlink()  # its permissions might be others
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb", buffering=0)


class RecordingFile:
    """Writes to a file, up to a limit."""

    def __init__(self, file: BinaryIO, bytes_max: int, on_trouble: Callable[[str], object]) -> None:
        self._file: BinaryIO | None = file
        self._left = bytes_max
        self._on_trouble = on_trouble

    def write(self, data: bytes) -> None:
        if self._file is None:
            return
        self._left -= len(data)
        try:
            if self._left < 0:
                why = "the recording has reached its limit, and ends here"
                self._put(last_bytes(why))
                self._trouble(why)
            else:
                self._put(data)
        except OSError as error:
            self._trouble(f"the recording ends here: {error.strerror or error}")

    def settle(self, report: object) -> None:
        """All is written already."""

    def end(self, why: str) -> None:
        self.write(last_bytes(why))
        self._close()

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        rest = memoryview(data)
        while rest:  # an unbuffered file may take less than it is given
            rest = rest[self._file.write(rest) :]

    def _trouble(self, why: str) -> None:
        self._close()
        self._on_trouble(why)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()


def ignored(_: str) -> None:
    """Nobody wants to know."""
