"""TOML with line numbers: reads a table key by key, and says of what is wrong in which line it stands.

Rules:

- Every reader of a value checks its type and its bounds; `end` refuses the keys that nobody has read.
- `tomllib` gives no lines, so they are found by a look at the text: headers of tables and `key =` at the start of a
  line. What stands inside an inline table has the line of that table.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from math import inf
from typing import Final, TypeAlias, cast

Path: TypeAlias = tuple[str | int, ...]
"""Where a value is: names of tables and keys, and numbers of those in an array of tables."""

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|h|m|s))+")
_PIECE: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_HEADER: Final = re.compile(r"\s*(\[\[?)([^\[\]]+)\]")
_KEY: Final = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)
_NAME: Final = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class TomlError(ValueError):
    """What is wrong, and where: `outage.toml:12: ...`."""


def parse(text: str, name: str) -> Table:
    """The whole of a file called `name`. Raises `TomlError`."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _PLACE.search(str(error))
        line = int(found[1]) if found and found[1] else len(text.splitlines())
        raise TomlError(f"{name}:{line}: {_PLACE.sub('', str(error))}") from None
    return Table(values, (), _lines_of(text), name)


def duration_s(text: str) -> float | None:
    """Seconds of `1h30m`, `250ms` or `2.5s`; None for what is no such thing."""
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PIECE.findall(text))


class Table:
    """One table of the file. Every method raises `TomlError`."""

    def __init__(self, values: Mapping[str, object], path: Path, lines: Mapping[Path, int], name: str) -> None:
        self.values = values
        self.path = path
        self.lines = lines
        self.name = name
        self.known: list[str] = []

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self.values

    def number(self, key: str, default: float, least: float = 0.0, most: float = inf) -> float:
        """A number from `least` to `most`."""
        value = self._take(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.error(key, f"{key} is {_shown(value)}; it must be a number")
        if not least <= value <= most or value == inf:
            bounds = f"from {least:g} to {most:g}" if most < inf else f"{least:g} or more"
            raise self.error(key, f"{key} is {value:g}; it must be {bounds}")
        return float(value)

    def whole(self, key: str, default: int, least: int = 0, most: int = 10**9) -> int:
        """A whole number from `least` to `most`."""
        value = self.number(key, default, least, most)
        if value != int(value):
            raise self.error(key, f"{key} is {value:g}; it must be a whole number")
        return int(value)

    def seconds(self, key: str, default: float, *, zero: bool = False) -> float:
        """A duration: `"1h30m"`, `"20ms"`, or a number of seconds."""
        value = self._take(key, default)
        length = duration_s(value) if isinstance(value, str) else value
        if not isinstance(length, int | float) or isinstance(length, bool):
            raise self.error(key, f'{key} is {_shown(value)}; write a duration such as "90s", "20ms" or "1h30m"')
        if not 0 <= length < inf or (length == 0 and not zero):
            raise self.error(key, f"{key} is {_shown(value)}; it must be longer than nothing")
        return float(length)

    def choice(self, key: str, default: str, known: Sequence[str]) -> str:
        """One of the words."""
        return self._word(key, self._take(key, default), known)

    def choices(self, key: str, default: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
        """Some of the words."""
        return tuple(self._word(key, word, known) for word in self.texts(key, default))

    def text(self, key: str, default: str = "") -> str:
        """A text; an empty one is as good as none, and is refused."""
        value = self._take(key, default)
        if not isinstance(value, str) or (key in self.values and not value):
            raise self.error(key, f"{key} is {_shown(value)}; it must be a text")
        return value

    def texts(self, key: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        """A list of texts, with at least one."""
        value = self._take(key, list(default))
        if not isinstance(value, list) or (value == [] and key in self.values):
            shown = _shown(self.values[key])
            raise self.error(key, f"{key} is {shown}; it must be a list with at least one text")
        found: list[str] = []
        for each in cast("list[object]", value):
            if not isinstance(each, str) or not each:
                raise self.error(key, f"{key} has {_shown(each)} in it; it must be a list of texts")
            found.append(each)
        return tuple(found)

    def table(self, key: str) -> Table:
        """A table of its own; an empty one where it is not there."""
        value = self._take(key, {})
        if isinstance(value, list):
            raise self.error(key, f"{key} must be written as [{key}], and once")
        if not isinstance(value, dict):
            raise self.error(key, f"{key} is {_shown(value)}; it must be a table")
        return Table(cast("dict[str, object]", value), (*self.path, key), self.lines, self.name)

    def tables(self, key: str) -> list[Table]:
        """An array of tables, each written under `[[key]]`."""
        value = self._take(key, [])
        found: list[Table] = []
        for at, each in enumerate(cast("list[object]", value) if isinstance(value, list) else [None]):
            if not isinstance(each, dict):
                raise self.error(key, f"{key} must be written as [[{key}]], once for each")
            path = (*self.path, key, at)
            found.append(Table(cast("dict[str, object]", each), path, self.lines, self.name))
        return found

    def end(self) -> None:
        """All keys that there are have been read; any other is a mistake."""
        for key in self.values:
            if key not in self.known:
                close = get_close_matches(key, self.known, 1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(self.known)}"
                raise self.error(key, f"there is no {key} here; {hint}")

    def line(self, key: str = "") -> int:
        """The line of a key, or of the table, or of whatever is around it."""
        path = (*self.path, key)
        while path and path not in self.lines:
            if (*path, 0) in self.lines:  # the first of an array of tables
                return self.lines[(*path, 0)]
            path = path[:-1]
        return self.lines.get(path, 1)

    def error(self, key: str, what: str) -> TomlError:
        """An error with the place of a key."""
        return TomlError(f"{self.name}:{self.line(key)}: {what}")

    def _take(self, key: str, default: object) -> object:
        self.known.append(key)
        return self.values.get(key, default)

    def _word(self, key: str, value: object, known: Sequence[str]) -> str:
        if value not in known:
            raise self.error(key, f"{key} is {_shown(value)}; it must be one of {', '.join(known)}")
        return str(value)


def _shown(value: object) -> str:
    """A value as the file has it, near enough."""
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def _lines_of(text: str) -> dict[Path, int]:
    """The line of each table and key."""
    lines: dict[Path, int] = {}
    counts: dict[tuple[str, ...], int] = {}
    table: Path = ()
    quote = ""  # of a text of several lines that goes on
    for number, line in enumerate(text.splitlines(), 1):
        if not quote:
            header = _HEADER.match(line)
            key = None if header else _KEY.match(line)
            if header:
                names = _names(header[2])
                if header[1] == "[[":
                    counts[names] = counts.get(names, -1) + 1
                table = _with_counts(names, counts)
                lines.setdefault(table, number)
            elif key:
                path = table
                for name in _names(key[1]):
                    path = (*path, name)
                    lines.setdefault(path, number)
        for mark in ('"""', "'''"):
            if quote in ("", mark) and line.count(mark) % 2:
                quote = "" if quote else mark
    return lines


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(name.strip("\"'") for name in _NAME.findall(dotted))


def _with_counts(names: tuple[str, ...], counts: Mapping[tuple[str, ...], int]) -> Path:
    """The path of a table, with the number of each array of tables that it is in."""
    path: list[str | int] = []
    for at, name in enumerate(names, 1):
        path.append(name)
        if names[:at] in counts:
            path.append(counts[names[:at]])
    return tuple(path)
