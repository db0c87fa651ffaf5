"""Our own header compression beside hpack, whose code it does not share: over whole conversations each reads what the
other writes, and of damaged blocks both take the same ones and read the same in them. What they are known to differ in:

- Of a third new size at the beginning of a block hpack makes nothing, and we refuse it (RFC 7541 section 4.2).
- hpack's encoder writes each of many sizes; here it is set twice at most between two blocks.
- Set twice to the same, it forgets to tell (4.2.0); here it is not.
- What no table is to keep, it writes as an index where a table has it already (section 6.2.3 says not to), and so it
  comes as an ordinary field.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, TypeAlias

import hpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coulee.core.http2_frames import ConnectionFault
from coulee.core.http2_hpack import SIZES_MAX, TABLE_BYTES, Decoder, Encoder, Field

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
LIMIT = 2**16
EXAMPLES = settings(
    max_examples=4000 if THOROUGH else 200, derandomize=not THOROUGH, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip

Told: TypeAlias = list[tuple[bytes, bytes, bool]]
Damage: TypeAlias = tuple[str, int, int]

NAMES = st.sampled_from([b":path", b":status", b"etag", b"cookie", b"date", b"x-a", b"x-b", b"x-" + b"long" * 40, b""])
VALUES = st.sampled_from([b"", b"200", b"a", b"b" * 150, b"c" * 3000]) | st.binary(max_size=40)
FIELDS = st.lists(st.tuples(NAMES, VALUES) | st.builds(hpack.NeverIndexedHeaderTuple, NAMES, VALUES), max_size=8)
SIZES = st.lists(st.sampled_from([0, 40, 90, 200, TABLE_BYTES]), max_size=SIZES_MAX)
BYTES = st.sampled_from([0x00, 0x10, 0x1F, 0x20, 0x3F, 0x40, 0x7F, 0x80, 0xBE, 0xFF]) | st.integers(0, 255)
DAMAGES = st.lists(
    st.tuples(st.sampled_from(["add", "change", "drop", "cut"]), st.integers(0, 10**4), BYTES), max_size=3
)
CONVERSATION = st.lists(st.tuples(SIZES, FIELDS), max_size=12)


def told(fields: Iterable[Any]) -> Told:
    """Fields, each with whether a table may keep it."""
    return [(bytes(each[0]), bytes(each[1]), getattr(each, "indexable", True)) for each in fields]


def resize(writes: hpack.Encoder, sizes: list[int]) -> None:
    for size in sizes:
        if size != writes.header_table_size:
            writes.header_table_size = size


def by_hpack(reads: hpack.Decoder, block: bytes) -> Told | None:
    """What hpack reads; None where it refuses."""
    try:
        return told(reads.decode(block, raw=True))
    except hpack.HPACKError:
        return None


def by_us(reads: Decoder, block: bytes) -> Told | ConnectionFault:
    try:
        return told(reads.decode(block))
    except ConnectionFault as fault:
        return fault


@EXAMPLES
@given(CONVERSATION, st.sampled_from([150, TABLE_BYTES, 2 * TABLE_BYTES]))
def test_hpack_reads_what_we_write(blocks: list[tuple[list[int], list[Field]]], ours: int) -> None:
    writes, reads = Encoder(ours), hpack.Decoder()
    for sizes, fields in blocks:
        for size in sizes:
            writes.header_table_size = size
        if sizes:
            reads.max_allowed_table_size = sizes[-1]
        assert by_hpack(reads, writes.encode(fields)) == told(fields)
        assert [tuple(each) for each in reads.header_table.dynamic_entries] == list(writes._numbers)[::-1]
        assert reads.header_table_size == writes.header_table_size


@EXAMPLES
@given(CONVERSATION, st.booleans())
def test_we_read_what_hpack_writes(blocks: list[tuple[list[int], list[Field]]], huffman: bool) -> None:
    writes, reads, other = hpack.Encoder(), Decoder(LIMIT, LIMIT), hpack.Decoder()
    for sizes, fields in blocks:
        resize(writes, sizes)
        block = writes.encode(fields, huffman=huffman)
        read = reads.decode(block)
        assert read == fields
        assert told(read) == by_hpack(other, block)
        assert reads._entries[::-1] == [tuple(each) for each in writes.header_table.dynamic_entries]
        assert reads.header_table_size == writes.header_table_size


@EXAMPLES
@given(CONVERSATION, st.booleans(), st.lists(DAMAGES, min_size=1, max_size=12))
def test_of_damaged_blocks_both_take_the_same(
    blocks: list[tuple[list[int], list[Field]]], huffman: bool, damages: list[list[Damage]]
) -> None:
    writes, reads, other = hpack.Encoder(), Decoder(LIMIT, LIMIT), hpack.Decoder()
    for number, (sizes, fields) in enumerate(blocks):
        resize(writes, sizes)
        block = damaged(writes.encode(fields, huffman=huffman), damages[number % len(damages)])
        if not agree(reads, other, block):
            return
        assert reads._entries[::-1] == [tuple(each) for each in other.header_table.dynamic_entries]


@EXAMPLES
@given(st.lists(st.binary(max_size=40) | st.lists(BYTES).map(bytes), max_size=4))
def test_of_any_blocks_both_take_the_same(blocks: list[bytes]) -> None:
    reads, other = Decoder(LIMIT, LIMIT), hpack.Decoder()
    for block in blocks:
        if not agree(reads, other, block):
            return


def agree(reads: Decoder, other: hpack.Decoder, block: bytes) -> bool:
    """Whether both have taken a block, and go on; where only one has, it is for what is known."""
    ours, theirs = by_us(reads, block), by_hpack(other, block)
    if isinstance(ours, ConnectionFault):
        assert theirs is None or f"after {SIZES_MAX} others" in ours.detail
        return False
    assert ours == theirs
    return True


def damaged(block: bytes, damages: list[Damage]) -> bytes:
    whole = bytearray(block)
    for what, where, byte in damages:
        at = where % (len(whole) + 1)
        if what == "add":
            whole.insert(at, byte)
        elif what == "cut":
            del whole[at:]
        elif at < len(whole):
            if what == "change":
                whole[at] = byte
            else:
                del whole[at]
    return bytes(whole)
