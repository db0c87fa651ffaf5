"""Cases of HPACK (RFC 7541, and RFC 9113 section 4.3): what cannot be decoded ends the connection, for nothing behind
it can be decoded either."""

from __future__ import annotations

from collections.abc import Iterable

from hpack import Encoder

from tests.http2 import frames as f
from tests.http2.case import Case, Step, wait
from tests.http2.frames import Code, fields, get, headers, integer, request, settings, string
from tests.http2.outcomes import Answered, EndsConnection, EndsStream, Malformed, Nothing
from tests.http2.talk import Talk

COMPRESSION_ERROR = EndsConnection(Code.COMPRESSION_ERROR)
TOO_LARGE = Malformed() | EndsStream(1, Code.ENHANCE_YOUR_CALM, Code.CANCEL, Code.INTERNAL_ERROR, Code.REFUSED_STREAM)
FIRST = 62  # of the dynamic table's entries
TABLE = 4096

INDEXED, INCREMENTAL, SIZE, NEVER, WITHOUT = 0x80, 0x40, 0x20, 0x10, 0x00


def huffman(raw: bytes) -> bytes:
    """A string that says that it is in Huffman's code, whatever it has."""
    return integer(len(raw), 7, 0x80) + raw


def size(value: int) -> bytes:
    """A dynamic table size update (section 6.3)."""
    return integer(value, 5, SIZE)


def index(number: int) -> bytes:
    """An indexed field (section 6.1)."""
    return integer(number, 7, INDEXED)


def broken(section: str, name: str, block: bytes) -> Case:
    """A block that cannot be decoded, alone or as a part of one."""
    return Case(f"7541 {section}", name, (headers(1, block),), COMPRESSION_ERROR)


def fine(section: str, name: str, *blocks: bytes, ours: dict[int, int] | None = None) -> Case:
    """Requests of which each is answered."""
    steps: list[Step] = [headers(1 + 2 * number, block) for number, block in enumerate(blocks)]
    steps.append(wait(*range(1, 2 * len(blocks), 2)))
    return Case(f"7541 {section}", name, tuple(steps), Answered(2 * len(blocks) - 1), ours or {})


BROKEN = [
    broken("2.3.3", "an index beyond the tables", get() + index(FIRST)),
    broken("2.3.3", "an index far beyond the tables", get() + index(2**31)),
    broken("2.3.3", "an indexed name beyond the tables", get() + integer(FIRST, 6, INCREMENTAL) + string("a")),
    broken("2.3.3", "an indexed name beyond the tables, not to be indexed",
           get() + integer(90, 4, WITHOUT) + string("a")),
    broken("6.1", "an index of 0", get() + index(0)),
    broken("6.3", "a table that is larger than may be", size(TABLE + 1) + get()),
    broken("6.3", "a table of 2^31", size(2**31) + get()),
    broken("6.3", "a table that is larger than may be, and then smaller", size(TABLE + 1) + size(100) + get()),
    broken("4.2", "a size of the table at the end", get() + size(100)),
    broken("4.2", "a size of the table between fields", fields(request()[:1]) + size(100) + fields(request()[1:])),
    broken("5.1", "an integer without end", get() + b"\xff" + b"\xff" * 20),
    broken("5.1", "an integer that is not finished", get() + b"\xff\x80"),
    broken("5.1", "an integer of 40 bytes", get() + b"\xff" + b"\xff" * 39 + b"\x01"),
    broken("5.2", "a string that is longer than its block", get() + b"\0\x03abc\x7f\x00abc"),
    broken("5.2", "a string whose length is beyond all", get() + b"\0\x01a\x7f\xff\xff\xff\xff\xff\xff\xff\xff\x7fa"),
    broken("5.2", "a name and no value", get() + b"\0\x01a"),
    broken("5.2", "a literal and no name", get() + b"\0"),
    broken("5.2", "Huffman's code with 8 bits of padding", get() + b"\0\x01a" + huffman(b"\xf8\xff")),
    broken("5.2", "Huffman's code with more than 8 bits of padding", get() + b"\0\x01a" + huffman(b"\x1f\xff\xff")),
    broken("5.2", "Huffman's code padded with zeros", get() + b"\0\x01a" + huffman(b"\x18")),
    broken("5.2", "Huffman's code with an end of string in it",
           get() + b"\0\x01a" + huffman(b"\x1f\xff\xff\xff\xff")),
    broken("5.2", "Huffman's code that is nothing but padding", get() + b"\0\x01a" + huffman(b"\xff")),
    Case("7541 2.3.3", "an entry that has gone from the table",
         (headers(1, size(0) + size(TABLE) + get() + b"\x40\x01a\x01b"),
          headers(3, size(0) + size(TABLE) + get() + index(FIRST))), COMPRESSION_ERROR),
    Case("9113 4.3", "trailers that cannot be decoded",
         (headers(1, f.post("/held"), end=False), f.data(1, b"a"), headers(1, index(0))), COMPRESSION_ERROR),
    Case("9113 4.3", "fields of a stream that is over that cannot be decoded",
         (headers(1, get()), wait(1), headers(1, index(0))),
         EndsConnection(Code.COMPRESSION_ERROR, Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)),
    Case("9113 4.3", "fields in CONTINUATION that cannot be decoded",
         (headers(1, get(), more=True) + f.continuation(1, index(0)),), COMPRESSION_ERROR),
    Case("9113 4.3", "a field block that is cut in a field",
         (headers(1, get()[:-1]),), COMPRESSION_ERROR),
]  # fmt: skip

ENTRY = b"\x40\x01a" + string("b" * 1000)  # 1033 bytes of the table
BIGGEST = b"\x40\x01a" + string("b" * (TABLE - 33))  # all of the table
TOO_BIG = b"\x40\x01a" + string("b" * (TABLE - 32))  # a byte more than the table has


def with_each_form() -> bytes:
    """A request in all ways of writing a field (section 6)."""
    return (
        index(2)  # :method GET
        + index(6)  # :scheme http
        + integer(4, 4, WITHOUT) + string("/")
        + integer(1, 4, NEVER) + huffman(b"\x1f")  # "a"
        + b"\x40" + string("x-new") + string("b")
        + b"\0" + string("x-never") + string("c")
        + b"\x10" + huffman(b"\xf3") + huffman(b"")
        + index(FIRST)
        + integer(FIRST, 6, INCREMENTAL) + string("d")
    )  # fmt: skip


def many(count: int) -> Iterable[bytes]:
    """Requests by one encoder that indexes; entries are used again, and others go, all the time."""
    encoder = Encoder()
    for number in range(count):
        extra = [(f"x-{number % 7}", "same"), (f"x-{number}", "v" * (number * 37 % 400))]
        yield fields(request(f"/{number % 5}", *extra), encoder)


FINE = [
    fine("6", "each form of a field", with_each_form()),
    fine("6.2.1", "what was indexed is used", get() + b"\x40\x01a\x01b", get() + index(FIRST)),
    fine("2.3.2", "the oldest entry goes first", get() + ENTRY * 3, get() + ENTRY + index(FIRST + 2)),
    fine("4.4", "an entry as large as the table", get() + BIGGEST, get() + index(FIRST)),
    fine("4.4", "an entry larger than the table empties it", get() + ENTRY + TOO_BIG, get()),
    Case("7541 4.4", "nothing is in a table that was emptied so",
         (headers(1, get() + ENTRY + TOO_BIG), wait(1), headers(3, get() + index(FIRST))), COMPRESSION_ERROR),
    fine("6.3", "a smaller table", size(100) + get() + b"\x40\x01a\x01b", get() + index(FIRST)),
    fine("6.3", "a table of nothing, and a whole one again", size(0) + get(), size(TABLE) + get() + b"\x40\x01a\x01b",
         get() + index(FIRST)),
    fine("4.2", "two sizes of the table", size(0) + size(TABLE) + get()),
    fine("5.2", "7 bits of padding", get() + b"\0\x01a" + huffman(b"\x18\xc6\x31\xff")),
    fine("2.3.2", "hundred requests of one encoder", *many(100)),
    Case("7541 2.2", "trailers are of the same table",
         (headers(1, f.post("/echo") + b"\x40\x01a\x01b", end=False) + f.data(1, b"a")
          + headers(1, index(FIRST) + b"\x40\x01c\x01d"), headers(3, get() + index(FIRST) + index(FIRST + 1)),
          wait(1, 3)),
         Answered(3)),
]  # fmt: skip

BOMB = b"\x40\x01a" + string("b" * 3900)
LIMITS = [
    Case("9113 10.5.1", "a field that is longer than is taken",
         (headers(1, get()) + headers(3, get("/", ("a", "b" * 12_000))), wait(1, 3)),
         Malformed(3) | EndsConnection(Code.ENHANCE_YOUR_CALM)),
    Case("9113 10.5.1", "more fields than are taken", (headers(1, get() + b"\0\x01a\x01b" * 200), wait(1)), TOO_LARGE),
    Case("9113 10.5.1", "a table that is told again and again",
         (headers(1, get() + BOMB), headers(3, get() + index(FIRST) * 1000), wait(3)),
         Malformed(3) | EndsConnection(Code.ENHANCE_YOUR_CALM, Code.COMPRESSION_ERROR)
         | EndsStream(3, Code.ENHANCE_YOUR_CALM, Code.REFUSED_STREAM)),
    Case("9113 10.5.1", "CONTINUATION without end",
         (headers(1, get(), more=True) + f.continuation(1, b"\0\x01a\x01b", more=True) * 200,),
         EndsConnection(Code.ENHANCE_YOUR_CALM, Code.PROTOCOL_ERROR, Code.FRAME_SIZE_ERROR)),
    Case("9113 10.5.1", "CONTINUATION without a byte",
         (headers(1, get(), more=True) + f.continuation(1, b"", more=True) * 3,),
         EndsConnection(Code.ENHANCE_YOUR_CALM, Code.PROTOCOL_ERROR)),
]  # fmt: skip


def blocks_of(talk: Talk) -> list[bytes]:
    """The field blocks of the answers, in their order."""
    return [each.content for each in talk.frames if each.type == f.HEADERS and each.flags & f.END_HEADERS]


def begins_with_size(talk: Talk, before: int, most: int) -> None:
    """The block behind so many says first that the table has become smaller, and to what."""
    block = blocks_of(talk)[before]
    assert block[0] & 0xE0 == SIZE, "it begins with something else than the table's size"
    told = block[0] & 0x1F
    assert told < 31
    assert told <= most


def table_of_nothing(talk: Talk) -> None:
    """After the table was made smaller by SETTINGS, the next block says so (section 4.2); a decoder of size 0 can read
    that and all others."""
    talk.send(headers(1, get()))
    wait(1)(talk)
    talk.send(settings({f.HEADER_TABLE_SIZE: 0}))
    talk.send(headers(3, get()) + headers(5, get()))
    wait(3, 5)(talk)
    begins_with_size(talk, 1, 0)


def smaller_and_larger(talk: Talk) -> None:
    """Made smaller and larger between two blocks: the smallest is told, and then the last (section 4.2)."""
    talk.send(headers(1, get()))
    wait(1)(talk)
    talk.send(settings({f.HEADER_TABLE_SIZE: 0}) + settings({f.HEADER_TABLE_SIZE: TABLE}))
    talk.send(headers(3, get()))
    wait(3)(talk)
    begins_with_size(talk, 1, 0)


def smaller_and_larger_at_once(talk: Talk) -> None:
    """The same where one SETTINGS has both (RFC 9113 section 6.5.3)."""
    talk.send(headers(1, get()))
    wait(1)(talk)
    talk.send(settings([(f.HEADER_TABLE_SIZE, 0), (f.HEADER_TABLE_SIZE, TABLE)]))
    talk.send(headers(3, get()))
    wait(3)(talk)
    begins_with_size(talk, 1, 0)


def table_larger(talk: Talk) -> None:
    """A larger table may be used, and need not be; whoever uses it says so."""
    talk.send(settings({f.HEADER_TABLE_SIZE: 65536}))
    for stream in (1, 3):
        talk.send(headers(stream, get()))
        wait(stream)(talk)


OURS = [
    Case("7541 4.2", "a table of nothing, told later", (table_of_nothing,), Nothing()),
    Case("7541 4.2", "a smaller table and then the old one", (smaller_and_larger,), Nothing()),
    Case("7541 4.2", "a smaller table and then the old one in one SETTINGS", (smaller_and_larger_at_once,), Nothing()),
    Case("7541 4.2", "a larger table", (table_larger,), Nothing()),
    fine("4.2", "a table of nothing from the beginning", get(), get(), ours={f.HEADER_TABLE_SIZE: 0}),
    fine("4.2", "a table of 100 bytes", get(), get(), get(), ours={f.HEADER_TABLE_SIZE: 100}),
]  # fmt: skip

HPACK: list[Case] = [*BROKEN, *FINE, *LIMITS, *OURS]
