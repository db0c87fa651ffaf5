"""Header fields: ordered, with their names as they were written, kept as the raw lines and cut only where they must be.

The block is the fields' bytes, each field *preceded* by CRLF: `\\r\\nHost: a\\r\\nAccept: */*`. So a whole message head
is start line + block + CRLF CRLF, a field of a given name is found by one search for `\\r\\nname:`, and nothing is
built for fields that nobody asks for. Rules:

- Names compare without case (RFC 9110 section 5.1). The order of fields is kept.
- Text is ISO 8859-1: one character a byte, so that what came in goes out unchanged (RFC 9110 section 5.5).
- No field can hold CR, LF or NUL; `add` and `set` refuse them, and codecs refuse them before they make a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final, cast

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110 section 5.6.2."""

_VALUE: Final = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")

UNDERSCORE: Final = b"_"
"""The mark of a block that has an underscore in the name of a field."""

_UNDERSCORE_IN_NAME: Final = re.compile(rb"\r\n[^:\r_]*+_")


@lru_cache(maxsize=1024)
def _needle(name: str) -> bytes:
    """What to search for in a lower-case block; for what can be no name, what is in no block."""
    raw = name.encode("latin-1", "replace")
    return b"\r\n%s:" % raw.lower() if TOKEN.fullmatch(raw) else b"\n\n"


@lru_cache(maxsize=256)
def field_pattern(names: tuple[str, ...]) -> re.Pattern[bytes]:
    """A pattern that matches each whole field with one of these names in a block."""
    possible = [name.encode("latin-1") for name in names if name.isascii() and TOKEN.fullmatch(name.encode())]
    return re.compile(fields_named(b"|".join(map(re.escape, possible))) if possible else rb"(?!)")


def fields_named(names: bytes) -> bytes:
    """The source of a pattern for whole fields, from one for their names. Case is ignored in the names alone, so that
    the search can jump from CRLF to CRLF: half the cost."""
    return rb"\r\n(?i:%s):[^\r]*" % names


MARKS: Final = re.compile(
    rb"\n(host|c(?:ontent-(?:length|type)|onnection)|t(?:ransfer-encoding|e|railer)|date|expect|upgrade|range|via"
    rb"|keep-alive|proxy-(?:connection|authenticate|authorization)|x-forwarded-[!#-'*+\-.0-9^-z|~]*|forwarded"
    rb"|max-forwards):[ \t]*([^\r]*)"
)
"""The fields that mean something to a gateway, with their values, in a lower-case block: all found in one pass. Blanks
may be left behind a value."""


def encode_field(name: str, value: str) -> bytes:
    """One field as it stands in a block. Raises `ValueError` for what no field can be."""
    raw_name = name.encode("latin-1", "replace")
    if TOKEN.fullmatch(raw_name) is None:
        raise ValueError(f"{name!r} is no field name: use letters, digits and !#$%&'*+-.^_`|~")
    try:
        raw_value = value.encode("latin-1").strip(b" \t")
    except UnicodeEncodeError:
        raise ValueError(f"the value of {name} has characters past ISO 8859-1; encode them first") from None
    if _VALUE.fullmatch(raw_value) is None:
        raise ValueError(f"the value of {name} has a control character: {value!r}")
    return b"\r\n%s: %s" % (raw_name, raw_value)


def joined(found: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """What `MARKS` has found, several lines of one name joined by `, ` (RFC 9110 section 5.3)."""
    marks = dict(found)
    if len(marks) != len(found):
        for name in marks:
            marks[name] = b", ".join([value.rstrip(b" \t") for each, value in found if each == name])
    return marks


_new = object.__new__


class Headers:
    """An ordered multi-map of header fields.

    Made from pairs or a mapping: `Headers({"X-A": "1"})`, `Headers([("Set-Cookie", "a"), ("Set-Cookie", "b")])`.
    """

    __slots__ = ("_block", "_lower", "_marks")

    def __init__(self, fields: Headers | Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self._lower: bytes | None = None
        self._marks: dict[bytes, bytes] | None = None
        self._block: bytes
        if isinstance(fields, Headers):
            self._block = fields._block
        else:
            pairs: Iterable[tuple[str, str]]
            pairs = cast("Mapping[str, str]", fields).items() if isinstance(fields, Mapping) else fields
            self._block = b"".join([encode_field(name, value) for name, value in pairs])

    @classmethod
    def from_block(cls, block: bytes, lower: bytes | None = None, marks: dict[bytes, bytes] | None = None) -> Headers:
        """For codecs: fields that were validated already, each preceded by CRLF; and what is known of them already."""
        headers = _new(cls)
        headers._block = block
        headers._lower = lower
        headers._marks = marks
        return headers

    @property
    def block(self) -> bytes:
        """The raw lines, each preceded by CRLF."""
        return self._block

    @block.setter
    def block(self, block: bytes) -> None:
        self._block = block
        self._lower = None
        self._marks = None

    def known(self, block: bytes, marks: dict[bytes, bytes]) -> None:
        """Replace the block, where its marks are known already."""
        self._block = block
        self._lower = None
        self._marks = marks

    def forget(self) -> None:
        """Keep no more than the block: what else is known can be found again."""
        self._lower = None

    def copy(self) -> Headers:
        """An independent copy."""
        return Headers.from_block(self._block, self._lower, self._marks)

    # -- reading

    @property
    def lower(self) -> bytes:
        """The block in lower case, to search in; kept until the block changes."""
        lower = self._lower
        if lower is None:
            lower = self._lower = self._block.lower()
        return lower

    @property
    def marks(self) -> dict[bytes, bytes]:
        """Which of the fields that mean something to a gateway (see `MARKS`) are there: names and values in lower case,
        several lines of one name joined; and `UNDERSCORE`, where a name has one. Kept until the block changes; not to
        be changed."""
        marks = self._marks
        if marks is None:
            marks = self._marks = joined(MARKS.findall(self.lower))
            if _UNDERSCORE_IN_NAME.search(self._block) is not None:
                marks[UNDERSCORE] = b""
        return marks

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _needle(name) in self.lower

    def get(self, name: str, default: str | None = None) -> str | None:
        """The field's value; several lines of one name are joined by `", "` (RFC 9110 section 5.3).

        For Set-Cookie, whose lines cannot be joined, use `get_all`.
        """
        needle = _needle(name)
        lower = self.lower
        at = lower.find(needle)
        if at < 0:
            return default
        start = at + len(needle)
        if lower.find(needle, start) >= 0:
            return ", ".join(self.get_all(name))
        end = lower.find(b"\r\n", start)
        return (self._block[start:] if end < 0 else self._block[start:end]).strip(b" \t").decode("latin-1")

    def get_all(self, name: str) -> list[str]:
        """The values of every line of this name, in order."""
        needle = _needle(name)
        lower = self.lower
        values: list[str] = []
        at = lower.find(needle)
        while at >= 0:
            start = at + len(needle)
            end = lower.find(b"\r\n", start)
            raw = self._block[start:] if end < 0 else self._block[start:end]
            values.append(raw.strip(b" \t").decode("latin-1"))
            at = lower.find(needle, start)
        return values

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def raw(self) -> list[tuple[bytes, bytes]]:
        """The fields as pairs of bytes, names in their own case, values without the blanks around them."""
        pairs: list[tuple[bytes, bytes]] = []
        for line in self._block.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            pairs.append((name, value.strip(b" \t")))
        return pairs

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for name, value in self.raw():
            yield name.decode("latin-1"), value.decode("latin-1")

    def __len__(self) -> int:
        return self._block.count(b"\r\n")

    def __bool__(self) -> bool:
        return bool(self._block)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return [(n.lower(), v) for n, v in self.raw()] == [(n.lower(), v) for n, v in other.raw()]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Headers({list(self)!r})"

    # -- changing

    def add(self, name: str, value: str) -> None:
        """Append a field, beside others of its name."""
        self.block = self._block + encode_field(name, value)

    def set(self, name: str, value: str) -> None:
        """Put a field in the place of all others of its name, where the first of them stood, or at the end."""
        line = encode_field(name, value)
        lower = self.lower
        at = lower.find(_needle(name))
        if at < 0:
            self.block = self._block + line
        else:
            rest = field_pattern((name,)).sub(b"", self._block[at:])
            self.block = self._block[:at] + line + rest

    def remove(self, *names: str) -> None:
        """Drop all fields of these names; those that are not there do not matter."""
        self.block = field_pattern(names).sub(b"", self._block)

    def __setitem__(self, name: str, value: str) -> None:
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self.remove(name)
