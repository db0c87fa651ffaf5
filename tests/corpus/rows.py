"""Reads the corpus: text files of raw messages, each with the section of its RFC and what must become of it.

The format is described in README.md beside this file. Reading is strict: what is not understood is an error that names
file and line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

HERE: Final = Path(__file__).parent

Verdict: TypeAlias = Literal["refuse", "truncated", "wait", "accept"]


@dataclass(slots=True)
class Expected:
    """A message that the other side must see. `start` is `GET /a` for a request, `200` for an answer."""

    start: str
    host: bytes = b"a"
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)  # must be there, once
    gone: list[bytes] = field(default_factory=list)  # names, in lower case


@dataclass(slots=True)
class Row:
    """One message, or several on one connection.

    `status` is what the client gets where the verdict is `refuse`, or in the end where it is `wait`, 0 for a silent
    close. `in_body` tells that the fault comes behind a head, which may be on its way by then. `to` is the method of
    the request that an answer belongs to; `eof`, whether the origin closes behind it; `reused`, whether the origin's
    connection may be used again; `interims` are passed on before. `h11` tells why h11 reads it otherwise.
    """

    id: str
    cls: str
    section: str
    verdict: Verdict
    status: int
    in_body: bool
    raw: bytes = b""
    expected: list[Expected] = field(default_factory=list)
    to: str = "GET"
    eof: bool = False
    reused: bool = True
    interims: list[int] = field(default_factory=list)
    h11: str = ""

    def __str__(self) -> str:
        return f"{self.cls}/{self.id}"


_CLASS: Final = re.compile(r"## ([a-z0-9-]+): \S.*")
_TITLE: Final = re.compile(
    r"\[([a-z0-9-]+)\] (RFC [0-9]{4} [0-9A-Z]+(?:\.[0-9]+)*|limits): "
    r"(?:(refuse|wait) ([0-9]{3}|close)( in body)?|(refuse|truncated|accept))"
)
_ESCAPE: Final = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|([rnt0\\])|\{([0-9]+)\*((?:\\\{[^}]*\}|[^}])+)\})")
_SIMPLE: Final = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


def unescaped(text: str) -> bytes:
    r"""The bytes of a text with `\r`, `\n`, `\t`, `\0`, `\\`, `\xHH`, and `\{3*ab}` for `ababab`."""
    out = b""
    at = 0
    for match in _ESCAPE.finditer(text):
        out += _plain(text[at : match.start()])
        at = match.end()
        byte, simple, count, repeated = match.groups()
        if byte:
            out += bytes([int(byte, 16)])
        elif simple:
            out += _SIMPLE[simple]
        else:
            out += unescaped(repeated) * int(count)
    return out + _plain(text[at:])


def _plain(text: str) -> bytes:
    if "\\" in text:
        raise ValueError(f"an escape that is none in {text!r}")
    return text.encode("ascii")


def message_line(text: str) -> bytes:
    """One line of a message: it ends with CRLF, unless a backslash stands at its end."""
    return unescaped(text[:-1]) if re.search(r"(?<!\\)(\\\\)*\\$", text) else unescaped(text) + b"\r\n"


def field_of(text: str) -> tuple[bytes, bytes]:
    """`Name: value` as a pair, with the name in lower case."""
    name, colon, value = unescaped(text).partition(b":")
    if not colon:
        raise ValueError(f"{text!r} is no field")
    return name.lower(), value.strip(b" \t")


def _expect(row: Row, text: str) -> None:
    """One line of what must become of a message."""
    word, _, rest = text.partition(" ")
    if word in ("request", "status"):
        row.expected.append(Expected(unescaped(rest).decode()))
    elif word == "to":
        row.to = rest
    elif word == "eof":
        row.eof = True
    elif word == "reused":
        row.reused = {"yes": True, "no": False}[rest]
    elif word == "interim":
        row.interims.append(int(rest))
    elif word == "h11":
        row.h11 = rest
    else:
        last = row.expected[-1]
        if word == "host":
            last.host = unescaped(rest)
        elif word == "body":
            last.body = unescaped(rest)
        elif word == "trailer":
            last.trailers.append(field_of(rest))
        elif word == "field":
            last.fields.append(field_of(rest))
        elif word == "gone":
            last.gone += [name.encode() for name in rest.split()]
        else:
            raise ValueError(f"{word!r} is no word of an expectation")


def read(text: str, name: str) -> list[Row]:
    """The rows of a file. Raises `ValueError` that names the line."""
    rows: list[Row] = []
    cls = ""
    for number, line in enumerate(text.split("\n"), 1):
        try:
            if line != line.rstrip():
                raise ValueError(r"a blank at the end, which nobody sees: write \x20")
            if not line or line.startswith("# "):
                continue
            if line.startswith("|"):
                rows[-1].raw += message_line(line[1:])
            elif line.startswith("> "):
                _expect(rows[-1], line[2:])
            elif (match := _CLASS.fullmatch(line)) is not None:
                cls = match[1]
            elif (match := _TITLE.fullmatch(line)) is not None:
                ident, section, refuse_or_wait, status, in_body, other = match.groups()
                code = int(status) if status and status != "close" else 0
                rows.append(Row(ident, cls, section, cast("Verdict", refuse_or_wait or other), code, bool(in_body)))
            else:
                raise ValueError(f"what is {line!r}?")
        except (ValueError, KeyError, IndexError) as error:
            raise ValueError(f"{name}, line {number}: {error}") from error
    return rows


@cache
def rows_of(folder: str) -> tuple[Row, ...]:
    """All rows of a folder of the corpus, in the order of its files."""
    rows: list[Row] = []
    for path in sorted((HERE / folder).glob("*.txt")):
        rows += read(path.read_text("ascii"), f"{folder}/{path.name}")
    return tuple(rows)
