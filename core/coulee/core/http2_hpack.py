"""Header compression (RFC 7541): blocks to field lists and back, for one direction of one connection of HTTP/2.

h2 takes these in place of hpack's (`H2Connection.decoder` and `.encoder`), which cost more than all the rest of h2.
Sections without a number of an RFC are those of RFC 7541. Rules:

- A table is one connection's, and nothing else remembers a value: what is common to all tells one client of another.
- What a block may come to is counted while it is read, in bytes and in fields; the whole of it is never made first.
- A block that is wrong ends the connection (RFC 9113 section 4.3), and so does one that is far too large: nobody knows
  what the table should be then. What is only somewhat too large is given, and its reader can answer it; so whoever
  makes a decoder lets it take more than that reader will.
- A field that no table is to keep stays one (section 7.1.3), whatever is in a table already.
- What seldom comes twice has no entry: nghttp2's choice, with two fields more. Nor has what would take more than half
  of the table.
- Strings are written as they are: Huffman's code saves a quarter of what changes from head to head, and more than
  doubles what it costs to write. HAProxy writes none either. What comes in it is read (`http2_huffman.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from hpack import NeverIndexedHeaderTuple

from coulee.core.http2_frames import Code, ConnectionFault
from coulee.core.http2_huffman import plain

Field: TypeAlias = tuple[bytes, bytes]
"""A name and a value. One that no table is to keep is a `NeverIndexedHeaderTuple`, both ways."""

TABLE_BYTES: Final = 4096
"""Of either table, as long as nothing else was said (RFC 9113 section 6.5.2)."""

ENTRY_BYTES: Final = 32
"""What an entry counts for beside its name and value (section 4.1)."""

INTEGER_BYTES_MAX: Final = 5
"""Behind the first one: more than any length or index needs (section 5.1)."""

SIZES_MAX: Final = 2
"""So often a block may tell the table's size: the smallest that was, and the one that is (section 4.2)."""

SELDOM_TWICE: Final = frozenset(
    {b":path", b"age", b"content-length", b"content-range", b"etag", b"if-modified-since", b"if-none-match",
     b"last-modified", b"location", b"set-cookie"}
)  # fmt: skip
"""Fields whose values change with each message, so that an entry would only drive out a better one. All of them have
their names in the static table, so that these cost one byte all the same."""


class Decoder:
    """Blocks to field lists. The names of its attributes are those that h2 knows, but for `fields_max`.

    `head_bytes_max` counts a field as a table does, with `ENTRY_BYTES` more than it has."""

    __slots__ = (
        "_bytes", "_entries", "fields_max", "header_table_size", "max_allowed_table_size", "max_header_list_size"
    )  # fmt: skip

    def __init__(self, head_bytes_max: int, fields_max: int) -> None:
        self.max_header_list_size = head_bytes_max
        self.fields_max = fields_max
        self.max_allowed_table_size = TABLE_BYTES  # what the peer has heard that it may use
        self.header_table_size = TABLE_BYTES  # what it uses
        self._entries: list[Field] = []  # the newest last
        self._bytes = 0

    def decode(self, block: bytes, raw: bool = True) -> list[Field]:
        """The fields of one block. Raises `ConnectionFault`; there is no further block then. `raw` is for h2, which
        asks for bytes by it."""
        try:
            return self._fields(block, self._sizes(block))
        except IndexError:
            raise _wrong("a block that is cut short, or an index that has no entry") from None

    def _sizes(self, block: bytes) -> int:
        """The table's new size, where the block begins with it (section 6.3). Gives where its fields begin."""
        at = 0
        if block and block[0] & 0xE0 == 0x20:
            for _ in range(SIZES_MAX):
                size = block[at] & 0x1F
                at += 1
                if size == 0x1F:
                    size, at = _integer(block, at, size)
                if size > self.max_allowed_table_size:
                    raise _wrong("a larger table than is allowed (section 6.3)")
                self.header_table_size = size
                self._evict()
                if at == len(block) or block[at] & 0xE0 != 0x20:
                    break
        if self.header_table_size > self.max_allowed_table_size:
            raise _wrong("the table has not become as small as it must (section 4.2)")
        return at

    def _fields(self, block: bytes, at: int) -> list[Field]:
        fields: list[Field] = []
        entries = self._entries
        left = self.max_header_list_size
        end = len(block)
        most_fields = self.fields_max
        while at < end:
            first = block[at]
            at += 1
            if first >= 0x80:  # an entry (section 6.1)
                index = first & 0x7F
                if index == 0x7F:
                    index, at = _integer(block, at, index)
                if index >= _DYNAMIC:
                    field = entries[_DYNAMIC - 1 - index]
                elif index:
                    field = _STATIC[index]
                else:
                    raise _wrong("the index 0 (section 6.1)")
                left -= len(field[0]) + len(field[1]) + ENTRY_BYTES
            else:
                if first >= 0x40:  # a literal for the table (section 6.2.1)
                    most = 0x3F
                elif first < 0x20:  # ... and not for it (sections 6.2.2 and 6.2.3)
                    most = 0x0F
                else:
                    raise _wrong(f"a new size of the table behind a field, or after {SIZES_MAX} others (section 4.2)")
                index = first & most
                if index == most:
                    index, at = _integer(block, at, most)
                if not index:
                    name, at = _string(block, at)
                elif index < _DYNAMIC:
                    name = _STATIC[index][0]
                else:
                    name = entries[_DYNAMIC - 1 - index][0]
                value, at = _string(block, at)
                size = len(name) + len(value) + ENTRY_BYTES
                left -= size
                if first >= 0x40:
                    field = name, value
                    entries.append(field)
                    self._bytes += size
                    if self._bytes > self.header_table_size:
                        self._evict()
                else:
                    field = (name, value) if first < 0x10 else NeverIndexedHeaderTuple(name, value)
            if left < 0 or len(fields) == most_fields:
                what = "bytes" if left < 0 else "fields"
                raise ConnectionFault(Code.ENHANCE_YOUR_CALM, f"a head of more {what} than are taken at all")
            fields.append(field)
        return fields

    def _evict(self) -> None:
        """The oldest go until the rest has room (sections 4.3 and 4.4)."""
        entries = self._entries
        gone = 0
        while self._bytes > self.header_table_size:
            name, value = entries[gone]
            self._bytes -= len(name) + len(value) + ENTRY_BYTES
            gone += 1
        del entries[:gone]


class Encoder:
    """Field lists to blocks. The names of its attributes are those that h2 knows.

    An entry is known by its number among all that ever were; the newest has the lowest index."""

    __slots__ = ("_bytes", "_made", "_names", "_numbers", "_ours", "_size", "_smallest", "_to_tell")

    def __init__(self, table_bytes_max: int = TABLE_BYTES) -> None:
        self._ours = table_bytes_max
        self._size = TABLE_BYTES
        self._smallest = TABLE_BYTES  # since the last block, where there is something to tell
        self._to_tell = False
        self._bytes = 0
        self._made = 0
        self._numbers: dict[Field, int] = {}  # the oldest first
        self._names: dict[bytes, int] = {}  # the newest entry of each
        self.header_table_size = TABLE_BYTES

    @property
    def header_table_size(self) -> int:
        """How large our table is: no larger than the peer lets it be, and than we want it."""
        return self._size

    @header_table_size.setter
    def header_table_size(self, allowed: int) -> None:
        size = min(allowed, self._ours)
        if size != self._size:
            self._smallest = min(self._smallest, size) if self._to_tell else size
            self._size = size
            self._to_tell = True
            self._make_room(0)

    def encode(self, fields: Sequence[Field]) -> bytes:
        """One block."""
        pieces = self._told() if self._to_tell else []
        numbers = self._numbers
        for field in fields:
            name, value = field
            size = len(name) + len(value) + ENTRY_BYTES
            if type(field) is not tuple and isinstance(field, NeverIndexedHeaderTuple):
                kind, most = 0x10, 0x0F
            else:
                known = _WRITTEN.get(field)
                if known is not None:
                    pieces.append(known)
                    continue
                number = numbers.get(field)
                if number is not None:
                    index = _DYNAMIC - 1 + self._made - number
                    pieces.append(_BYTES[0x80 | index] if index < 0x7F else _number(0x80, 0x7F, index))
                    continue
                if name in SELDOM_TWICE or size > self._size >> 1:  # a large one would leave room for little else
                    kind, most = 0, 0x0F
                else:
                    kind, most = 0x40, 0x3F
            index = _NAMES.get(name, 0)
            if not index:
                number = self._names.get(name)
                if number is not None:
                    index = _DYNAMIC - 1 + self._made - number
            pieces.append(_BYTES[kind | index] if index < most else _number(kind, most, index))
            if not index:
                length = len(name)
                pieces.append(_BYTES[length] if length < 0x7F else _number(0, 0x7F, length))
                pieces.append(name)
            length = len(value)
            pieces.append(_BYTES[length] if length < 0x7F else _number(0, 0x7F, length))
            pieces.append(value)
            if kind == 0x40:
                if self._bytes + size > self._size:
                    self._make_room(size)
                numbers[field] = self._names[name] = self._made
                self._made += 1
                self._bytes += size
        return b"".join(pieces)

    def _told(self) -> list[bytes]:
        """What the peer must hear of our table before the next field (section 4.2)."""
        sizes = [self._smallest, self._size] if self._smallest < self._size else [self._size]
        self._to_tell = False
        return [_number(0x20, 0x1F, size) for size in sizes]

    def _make_room(self, size: int) -> None:
        """The oldest go (sections 4.3 and 4.4)."""
        numbers, names = self._numbers, self._names
        while numbers and self._bytes + size > self._size:
            field = next(iter(numbers))
            number = numbers.pop(field)
            name, value = field
            self._bytes -= len(name) + len(value) + ENTRY_BYTES
            if names[name] == number:
                del names[name]


def _wrong(detail: str) -> ConnectionFault:
    return ConnectionFault(Code.COMPRESSION_ERROR, detail)


def _integer(block: bytes, at: int, number: int) -> tuple[int, int]:
    """An integer that did not fit in its first byte (section 5.1), and where what follows begins."""
    for shift in range(0, 7 * INTEGER_BYTES_MAX, 7):
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise _wrong("an integer that is too long (section 5.1)")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """A string (section 5.2), and where what follows begins."""
    first = block[at]
    length = first & 0x7F
    at += 1
    if length == 0x7F:
        length, at = _integer(block, at, length)
    end = at + length
    if end > len(block):
        raise _wrong("a block that is cut short")
    text = block[at:end]
    if first < 0x80:
        return text, end
    try:
        return plain(text), end
    except ValueError as error:
        raise _wrong(str(error)) from None


def _number(kind: int, most: int, number: int) -> bytes:
    """An integer behind the bits of `kind` (section 5.1)."""
    if number < most:
        return _BYTES[kind | number]
    written = bytearray((kind | most,))
    number -= most
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


_STATIC: Final[tuple[Field, ...]] = (
    (b"", b""),  # there is no index 0
    (b":authority", b""), (b":method", b"GET"), (b":method", b"POST"), (b":path", b"/"), (b":path", b"/index.html"),
    (b":scheme", b"http"), (b":scheme", b"https"), (b":status", b"200"), (b":status", b"204"), (b":status", b"206"),
    (b":status", b"304"), (b":status", b"400"), (b":status", b"404"), (b":status", b"500"),
    (b"accept-charset", b""), (b"accept-encoding", b"gzip, deflate"), (b"accept-language", b""),
    (b"accept-ranges", b""), (b"accept", b""), (b"access-control-allow-origin", b""), (b"age", b""), (b"allow", b""),
    (b"authorization", b""), (b"cache-control", b""), (b"content-disposition", b""), (b"content-encoding", b""),
    (b"content-language", b""), (b"content-length", b""), (b"content-location", b""), (b"content-range", b""),
    (b"content-type", b""), (b"cookie", b""), (b"date", b""), (b"etag", b""), (b"expect", b""), (b"expires", b""),
    (b"from", b""), (b"host", b""), (b"if-match", b""), (b"if-modified-since", b""), (b"if-none-match", b""),
    (b"if-range", b""), (b"if-unmodified-since", b""), (b"last-modified", b""), (b"link", b""), (b"location", b""),
    (b"max-forwards", b""), (b"proxy-authenticate", b""), (b"proxy-authorization", b""), (b"range", b""),
    (b"referer", b""), (b"refresh", b""), (b"retry-after", b""), (b"server", b""), (b"set-cookie", b""),
    (b"strict-transport-security", b""), (b"transfer-encoding", b""), (b"user-agent", b""), (b"vary", b""),
    (b"via", b""), (b"www-authenticate", b""),
)  # fmt: skip
"""Appendix A."""

_DYNAMIC: Final = len(_STATIC)  # the index of the newest entry
_BYTES: Final = [bytes((number,)) for number in range(256)]
_WRITTEN: Final[dict[Field, bytes]] = {field: _BYTES[0x80 | index] for index, field in enumerate(_STATIC) if index}
_NAMES: Final[dict[bytes, int]] = {name: len(_STATIC) - index for index, (name, _) in enumerate(reversed(_STATIC), 1)}
