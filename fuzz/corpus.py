"""The corpus of a codec: one text file, a case a line, so that it can be read, searched and reviewed.

Lines above the mark were written by people, under headings that begin with `#`; what is below it was found by the
fuzzer, and is replaced by `make fuzz`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from fuzz.case import Case

PATH: Final = Path(__file__).with_name("corpus") / "http1.txt"
MARK: Final = "# ---- found by the fuzzer, each reaching what none above it does; `make fuzz` replaces them ----"
BYTES_MAX: Final = 190_000
"""Of the file: a corpus is read by every run of the tests, and by people."""


class Written(Protocol):
    """A case of any target."""

    def to_line(self) -> str:
        """As it stands in the file."""
        ...


def load(path: Path = PATH, read: Callable[[str], Any] = Case.from_line) -> tuple[list[Any], list[Any]]:
    """The cases written by people, and those found; `read` makes one of a line."""
    by_hand, _, found = path.read_text().partition(MARK)
    return _cases(by_hand, read), _cases(found, read)


def _cases(text: str, read: Callable[[str], Any]) -> list[Any]:
    return [read(line) for line in text.splitlines() if line and not line.startswith("#")]


def store(found: Sequence[Written], path: Path = PATH) -> int:
    """Put these below the mark, the short ones first, as many as there is room for; gives how many there were not."""
    head = path.read_text().partition(MARK)[0] + MARK + "\n"
    lines = sorted({case.to_line() for case in found}, key=lambda line: (len(line), line))
    room = BYTES_MAX - len(head)
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    path.write_text(head + "".join(f"{line}\n" for line in sorted(kept)))
    return len(lines) - len(kept)
