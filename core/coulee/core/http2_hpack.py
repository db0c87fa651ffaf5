"""Header compression (RFC 7541): blocks to field lists and back, for one direction of one connection of HTTP/2.

h2 takes these in place of hpack's (`H2Connection.decoder` and `.encoder`), which cost more than all the rest of h2.
Rules:

- A table is one connection's, and nothing else remembers a value: what is common to all tells one client of another.
- What a block may come to is counted while it is read; the whole of it is never made first.
- A field that no table is to keep stays one (section 7.1.3). Nor is kept what seldom comes twice; nghttp2's choice, but
  for cookies.
- Strings are written as they are: Huffman's code saves a quarter of what is in no table, and costs more than all else
  that is done to it. So does HAProxy.
- A block that is wrong ends the connection (RFC 9113 section 4.3), for nobody knows what the table should be then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, TypeAlias

from hpack import NeverIndexedHeaderTuple
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable

from coulee.core.http2_frames import Code, ConnectionFault

Field: TypeAlias = tuple[bytes, bytes]

TABLE_BYTES: Final = 4096
"""Of either table, as long as nothing else was said (RFC 9113 section 6.5.2)."""

ENTRY_BYTES: Final = 32
"""What an entry counts for beside its name and value (section 4.1)."""

INTEGER_BYTES_MAX: Final = 5
"""Behind the first one: more than any length or index needs."""

SELDOM_TWICE: Final = frozenset(
    {b":path", b"age", b"content-length", b"content-range", b"etag", b"if-modified-since", b"if-none-match",
     b"last-modified", b"location", b"set-cookie"}
)  # fmt: skip
"""Fields whose values change with each message, so that an entry would only drive out a better one."""

_STATIC: Final[tuple[Field, ...]] = ((b"", b""), *HeaderTable.STATIC_TABLE)  # there is no index 0
_DYNAMIC: Final = len(_STATIC)  # the index of the newest entry


class Decoder:
    """Blocks to field lists. The names of its attributes are those that h2 knows."""

    __slots__ = ("_bytes", "_entries", "header_table_size", "max_allowed_table_size", "max_header_list_size")

    def __init__(self, head_bytes_max: int) -> None:
        self.max_header_list_size = head_bytes_max  # with `ENTRY_BYTES` for each field
        self.max_allowed_table_size = TABLE_BYTES  # what we have said that the peer may use
        self.header_table_size = TABLE_BYTES  # what it uses
        self._entries: list[Field] = []  # the newest last
        self._bytes = 0

    def decode(self, block: bytes, raw: bool = True) -> list[Field]:
        """The fields of one block. Raises `ConnectionFault`."""
        try:
            return self._fields(block)
        except IndexError:
            raise _wrong("a block that is cut short, or an index that has no entry") from None

    def _fields(self, block: bytes) -> list[Field]:
        fields: list[Field] = []
        entries = self._entries
        left = self.max_header_list_size
        at, end = 0, len(block)
        while at < end:
            first = block[at]
            at += 1
            if first >= 0x80:  # an entry (section 6.1)
                index = first & 0x7F
                if index == 0x7F:
                    index, at = _integer(block, at, index)
                field = _STATIC[index] if index < _DYNAMIC else entries[_DYNAMIC - 1 - index]
                if not index:
                    raise _wrong("the index 0 (section 6.1)")
                left -= len(field[0]) + len(field[1]) + ENTRY_BYTES
            else:
                if first >= 0x40:  # a literal for the table (section 6.2.1), or not for it (sections 6.2.2 and 6.2.3)
                    most = 0x3F
                elif first < 0x20:
                    most = 0x0F
                else:
                    at = self._resize(block, at, first & 0x1F, bool(fields))
                    continue
                index = first & most
                if index == most:
                    index, at = _integer(block, at, most)
                if not index:
                    name, at = _string(block, at)
                else:
                    name = (_STATIC[index] if index < _DYNAMIC else entries[_DYNAMIC - 1 - index])[0]
                value, at = _string(block, at)
                field = name, value
                size = len(name) + len(value) + ENTRY_BYTES
                left -= size
                if first >= 0x40:
                    entries.append(field)
                    self._bytes += size
                    if self._bytes > self.header_table_size:
                        self._evict()
                elif first >= 0x10:
                    field = NeverIndexedHeaderTuple(name, value)
            if left < 0:
                raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a head of more bytes than are taken at all")
            fields.append(field)
        if self.header_table_size > self.max_allowed_table_size:
            raise _wrong("the table has not become as small as it must (section 4.2)")
        return fields

    def _resize(self, block: bytes, at: int, size: int, late: bool) -> int:
        """The table's new size (section 6.3). Gives where what follows begins."""
        if late:
            raise _wrong("a new size of the table behind a field (section 4.2)")
        if size == 0x1F:
            size, at = _integer(block, at, size)
        if size > self.max_allowed_table_size:
            raise _wrong("a larger table than is allowed (section 6.3)")
        self.header_table_size = size
        self._evict()
        return at

    def _evict(self) -> None:
        """The oldest go until the rest has room (section 4.3)."""
        entries = self._entries
        gone = 0
        while self._bytes > self.header_table_size:
            name, value = entries[gone]
            self._bytes -= len(name) + len(value) + ENTRY_BYTES
            gone += 1
        del entries[:gone]


class Encoder:
    """Field lists to blocks. The names of its attributes are those that h2 knows."""

    __slots__ = ("_bytes", "_entries", "_made", "_names", "_numbers", "_ours", "_size", "_smallest", "_to_tell")

    def __init__(self, table_bytes_max: int = TABLE_BYTES) -> None:
        self._ours = table_bytes_max
        self._size = TABLE_BYTES
        self._smallest = TABLE_BYTES  # since the last block
        self._to_tell = False
        self._bytes = 0
        self._made = 0  # entries so far; each is known by its number among them
        self._entries: deque[Field] = deque()  # the oldest first
        self._numbers: dict[Field, int] = {}
        self._names: dict[bytes, int] = {}
        self.header_table_size = TABLE_BYTES

    @property
    def header_table_size(self) -> int:
        """How large our table is: no larger than the peer lets it be, and than we want it."""
        return self._size

    @header_table_size.setter
    def header_table_size(self, allowed: int) -> None:
        size = min(allowed, self._ours)
        if size != self._size:
            self._smallest = min(self._smallest, size)
            self._size = size
            self._to_tell = True
            self._make_room(0)

    def encode(self, fields: Sequence[Field]) -> bytes:
        """One block."""
        pieces = self._told() if self._to_tell else []
        numbers = self._numbers
        for field in fields:
            name, value = field
            if type(field) is NeverIndexedHeaderTuple:
                kind, most, size = 0x10, 0x0F, 0
            else:
                known = _WRITTEN.get(field)
                if known is not None:
                    pieces.append(known)
                    continue
                number = numbers.get(field)
                if number is not None:
                    pieces.append(_number(0x80, 0x7F, _DYNAMIC - 1 + self._made - number))
                    continue
                size = len(name) + len(value) + ENTRY_BYTES
                if name in SELDOM_TWICE or size > self._size >> 1:
                    kind, most = 0, 0x0F
                else:
                    kind, most = 0x40, 0x3F
            index = _NAMES.get(name, 0)
            if not index:
                number = self._names.get(name)
                if number is not None:
                    index = _DYNAMIC - 1 + self._made - number
            pieces.append(_number(kind, most, index))
            if not index:
                pieces += (_number(0, 0x7F, len(name)), name)
            pieces += (_number(0, 0x7F, len(value)), value)
            if kind == 0x40:
                self._add(field, name, size)
        return b"".join(pieces)

    def _told(self) -> list[bytes]:
        """What the peer must hear of our table before the next field (section 4.2)."""
        sizes = [self._smallest, self._size] if self._smallest < self._size else [self._size]
        self._smallest = self._size
        self._to_tell = False
        return [_number(0x20, 0x1F, size) for size in sizes]

    def _add(self, field: Field, name: bytes, size: int) -> None:
        if self._bytes + size > self._size:
            self._make_room(size)
        self._numbers[field] = self._names[name] = self._made
        self._entries.append(field)
        self._made += 1
        self._bytes += size

    def _make_room(self, size: int) -> None:
        """The oldest go (sections 4.3 and 4.4). A name is known by its newest entry."""
        entries, names = self._entries, self._names
        while entries and self._bytes + size > self._size:
            oldest = self._made - len(entries)
            field = entries.popleft()
            name, value = field
            self._bytes -= len(name) + len(value) + ENTRY_BYTES
            del self._numbers[field]
            if names[name] == oldest:
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
    return (_plain(text) if first >= 0x80 else text), end


class _Node:
    """The bits of a symbol that were read, in Huffman's code."""

    __slots__ = ("next", "steps", "symbol", "well_ended")

    def __init__(self) -> None:
        self.next: list[_Node] = []  # with a 0, and with a 1
        self.symbol = -1  # that ends here
        self.well_ended = False  # a string may end here
        self.steps: list[tuple[_Node, bytes] | None] = []  # by the next byte; made when it is first here


_END_OF_STRING: Final = 256


def _tree() -> _Node:
    root = _Node()
    for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
        node = root
        for bit in range(length - 1, -1, -1):
            node.next = node.next or [_Node(), _Node()]
            node = node.next[code >> bit & 1]
        node.symbol = symbol
    node = root
    for _ in range(8):  # what is left of the last byte is all ones, and fewer than eight
        node.well_ended = True
        node = node.next[1]
    root.steps = [None] * 256
    return root


def _plain(coded: bytes) -> bytes:
    """What a string in Huffman's code says (section 5.2): a byte of it at a time."""
    node = _ROOT
    plain = bytearray()
    for byte in coded:
        node, symbols = node.steps[byte] or _step(node, byte)
        plain += symbols
    if not node.well_ended:
        raise _wrong("a string whose code does not end well (section 5.2)")
    return bytes(plain)


def _step(start: _Node, byte: int) -> tuple[_Node, bytes]:
    """Where a byte leads, and what was said on the way. Found once for all, and never for more than 256 nodes."""
    node = start
    symbols = bytearray()
    for bit in range(7, -1, -1):
        node = node.next[byte >> bit & 1]
        if node.symbol == _END_OF_STRING:
            raise _wrong("a string that says where it ends (section 5.2)")
        if node.symbol >= 0:
            symbols.append(node.symbol)
            node = _ROOT
    node.steps = node.steps or [None] * 256
    start.steps[byte] = step = node, bytes(symbols)
    return step


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


_ROOT: Final = _tree()
_BYTES: Final = [bytes((number,)) for number in range(256)]
_WRITTEN: Final = {field: _BYTES[0x80 | index] for index, field in enumerate(_STATIC) if index}
_NAMES: Final = {name: len(_STATIC) - index for index, (name, _) in enumerate(reversed(_STATIC), 1)}
