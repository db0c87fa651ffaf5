"""Header compression: the examples of RFC 7541, the rules one by one, and hpack as the other end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.http2_frames import Code, ConnectionFault
from coulee.core.http2_hpack import ENTRY_BYTES, SELDOM_TWICE, TABLE_BYTES, Decoder, Encoder, Field

ASKED: list[Field] = [
    (b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com"),
]  # fmt: skip
ASKED_AGAIN = [*ASKED, (b"cache-control", b"no-cache")]
ASKED_LAST: list[Field] = [
    (b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"), (b":authority", b"www.example.com"),
    (b"custom-key", b"custom-value"),
]  # fmt: skip


def answered(status: bytes, date: bytes) -> list[Field]:
    return [
        (b":status", status), (b"cache-control", b"private"), (b"date", date),
        (b"location", b"https://www.example.com"),
    ]  # fmt: skip


ANSWERS = [
    answered(b"302", b"Mon, 21 Oct 2013 20:13:21 GMT"),
    answered(b"307", b"Mon, 21 Oct 2013 20:13:21 GMT"),
    [
        (b":status", b"200"), (b"cache-control", b"private"), (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"),
        (b"location", b"https://www.example.com"), (b"content-encoding", b"gzip"),
        (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
]  # fmt: skip


LAST_ANSWER = (
    "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af2708"
    "7f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
)


def decoder(head_bytes_max: int = 10**6) -> Decoder:
    return Decoder(head_bytes_max)


def refused(block: bytes, match: str, of: Decoder | None = None) -> None:
    with pytest.raises(ConnectionFault, match=match) as caught:
        (of or decoder()).decode(block)
    assert caught.value.code == Code.COMPRESSION_ERROR


@pytest.mark.parametrize(
    "blocks",
    [
        (  # appendix C.3
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ),
        (  # appendix C.4
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ),
    ],
)
def test_the_requests_of_the_rfc(blocks: tuple[str, ...]) -> None:
    reads = decoder()
    assert [reads.decode(bytes.fromhex(block)) for block in blocks] == [ASKED, ASKED_AGAIN, ASKED_LAST]


def test_the_answers_of_the_rfc_with_a_small_table() -> None:  # appendix C.6
    reads = decoder()
    reads.max_allowed_table_size = reads.header_table_size = 256
    blocks = [
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        "4883640effc1c0bf",
        LAST_ANSWER,
    ]
    assert [reads.decode(bytes.fromhex(block)) for block in blocks] == ANSWERS


def test_a_field_that_no_table_is_to_keep_stays_one() -> None:  # appendix C.2.3
    block = bytes.fromhex("100870617373776f726406736563726574")
    [field] = decoder().decode(block)
    assert isinstance(field, hpack.NeverIndexedHeaderTuple)
    writes = Encoder()
    assert writes.encode([field]) == writes.encode([field]) == block
    known = hpack.NeverIndexedHeaderTuple(b":method", b"GET")  # also where it is in a table
    assert writes.encode([known]) == b"\x12\x03GET"
    writes.encode([(b"password", b"secret")])
    assert writes.encode([field]) == b"\x1f\x2f\x06secret"  # though its name may come from there


def test_what_seldom_comes_twice_has_no_entry() -> None:
    writes, reads = Encoder(), hpack.Decoder()
    for name in SELDOM_TWICE:
        for _ in range(2):
            block = writes.encode([(name, b"7")])
            assert block[0] < 0x10
            assert [tuple(field) for field in reads.decode(block, raw=True)] == [(name, b"7")]
    assert writes.encode([(b"large", b"x" * (TABLE_BYTES // 2))])[0] == 0  # nor what would leave room for little else
    assert not reads.header_table.dynamic_entries


def test_what_was_written_once_is_one_byte() -> None:
    writes = Encoder()
    fields = [(b"x-one", b"1"), (b"x-two", b"2")]
    assert len(writes.encode(fields)) > 2
    assert writes.encode(fields) == b"\xbf\xbe"
    assert writes.encode([(b"x-one", b"3")]) == b"\x7f\x00\x013"  # the name of entry 63
    assert writes.encode([(b":method", b"POST"), (b"x-one", b"3")]) == b"\x83\xbe"


def test_the_table_is_no_larger_than_both_want() -> None:
    writes = Encoder(100)
    assert writes.header_table_size == 100
    assert writes.encode([(b":method", b"GET")]) == b"\x3f\x45\x82"  # which has to be said first
    writes.header_table_size = 5000
    assert writes.encode([(b":method", b"GET")]) == b"\x82"
    writes.header_table_size = 30
    writes.header_table_size = 30
    writes.header_table_size = 60
    assert writes.encode([(b":method", b"GET")]) == b"\x3e\x3f\x1d\x82"  # the smallest, and what it is (section 4.2)
    assert writes.encode([(b":method", b"GET")]) == b"\x82"


def test_the_oldest_goes_first_and_takes_no_newer_one_along() -> None:
    writes, reads = Encoder(), decoder()
    writes.header_table_size = reads.header_table_size = 3 * (ENTRY_BYTES + 4)
    for value in (b"1", b"2", b"3", b"4", b"1"):
        fields = [(b"x-a", value)]
        assert reads.decode(writes.encode(fields)) == fields
    assert writes.encode([(b"x-a", b"2")])[0] == 0x7E  # 2 is gone, its name is not
    assert writes.encode([(b"x-a", b"1")]) == b"\xbf"


@pytest.mark.parametrize(
    ("block", "match"),
    [
        (b"\x80", "index 0"),
        (b"\xbe", "no entry"),
        (b"\xff\x00", "no entry"),
        (b"\x7f\x00\x01a", "no entry"),
        (b"\xff", "cut short"),
        (b"\x41", "cut short"),
        (b"\x41\x05abc", "cut short"),
        (b"\x40\x05abc", "cut short"),
        (b"\x41\x7f\x80", "cut short"),
        (b"\xff\x80\x80\x80\x80\x80\x01", "integer that is too long"),
        (b"\x41\x7f\xff\xff\xff\xff\xff\x01", "integer that is too long"),
        (b"\x82\x20", "behind a field"),
        (b"\x3f\xe2\x1f", "larger table"),
        (b"\x41\x82\xf8\xff", "does not end well"),  # eight ones are left over
        (b"\x41\x81\x18", "does not end well"),  # a zero is
        (b"\x41\x84\xff\xff\xff\xff", "says where it ends"),
    ],
)
def test_a_block_that_is_wrong(block: bytes, match: str) -> None:
    refused(block, match)


def test_a_table_that_must_become_smaller_does() -> None:
    reads = decoder()
    reads.decode(b"\x40\x01a\x01b")
    reads.max_allowed_table_size = 0
    refused(b"\x82", "as small as it must", reads)
    assert reads.decode(b"\x20\x82") == [(b":method", b"GET")]
    refused(b"\xbe", "no entry", reads)


def test_a_head_is_counted_while_it_is_read() -> None:
    size = len(b":method") + len(b"GET") + ENTRY_BYTES
    assert len(decoder(3 * size).decode(b"\x82" * 3)) == 3
    for block in (b"\x82" * 4, b"\x82" * 3 + b"\x00\x01a\x00", b"\x82" * 3 + b"\x40\x01a\x00" + b"\xff" * 9):
        with pytest.raises(ConnectionFault, match="more bytes") as caught:
            decoder(3 * size).decode(block)
        assert caught.value.code == Code.ENHANCE_YOUR_CALM


def test_an_entry_counts_for_32_bytes_more_than_it_has() -> None:  # section 4.1
    three = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
    for size, kept in ((3 * (32 + 2), 3), (3 * (32 + 2) - 1, 2)):
        writes, reads = Encoder(size), decoder()
        assert reads.decode(writes.encode(three)) == three
        assert len(writes._entries) == len(reads._entries) == kept
    writes = Encoder()
    writes.encode(three)
    writes.header_table_size = 3 * (32 + 2)
    assert len(writes._entries) == 3


def test_what_is_larger_than_the_table_empties_it() -> None:  # section 4.4
    reads, other = decoder(), hpack.Encoder()
    reads.decode(b"\x40\x01a\x01b")
    assert reads.decode(other.encode([(b"x", b"y" * 5000)], huffman=False)) == [(b"x", b"y" * 5000)]
    refused(b"\xbe", "no entry", reads)


def test_every_byte_can_be_written_in_the_code_of_huffman() -> None:
    value = bytes(range(256)) * 2
    assert decoder().decode(hpack.Encoder().encode([(value, value)])) == [(value, value)]


NAMES = [b":path", b":status", b"etag", b"cookie", b"date", b"x-a", b"x-b", b"x-" + b"long" * 40]
Block: TypeAlias = tuple[list[int], list[Field]]


def one_field(name: bytes, value: bytes, sensitive: bool) -> Field:
    return hpack.NeverIndexedHeaderTuple(name, value) if sensitive else (name, value)


VALUES = st.sampled_from([b"", b"200", b"a", b"b" * 150]) | st.binary(max_size=30)
FIELDS = st.lists(st.builds(one_field, st.sampled_from(NAMES), VALUES, st.booleans()), max_size=8)
BLOCKS = st.lists(st.tuples(st.lists(st.sampled_from([0, 50, 200, 4096, 9000]), max_size=2), FIELDS), max_size=12)


@given(BLOCKS)
def test_hpack_reads_what_we_write(blocks: list[Block]) -> None:
    writes, reads = Encoder(), hpack.Decoder()
    for sizes, fields in blocks:
        for size in sizes:
            writes.header_table_size = size
        assert told(reads.decode(writes.encode(fields), raw=True)) == told(fields)
        assert sum(map(size_of, writes._entries)) == writes._bytes <= writes.header_table_size
        assert len(writes._numbers) == len(writes._entries) >= len(writes._names)


@given(BLOCKS, st.booleans())
def test_we_read_what_hpack_writes(blocks: list[Block], huffman: bool) -> None:
    writes, reads, other = hpack.Encoder(), decoder(), hpack.Decoder()
    for sizes, fields in blocks:
        for size in sizes[:1]:  # of two alike hpack forgets to tell
            writes.header_table_size = min(size, TABLE_BYTES)
        block = writes.encode(fields, huffman=huffman)
        read = reads.decode(block)
        assert told(read) == told(other.decode(block, raw=True))
        assert read == fields
        assert sum(map(size_of, reads._entries)) == reads._bytes <= reads.header_table_size


@given(st.binary(max_size=60))
def test_whatever_comes_is_read_or_refused_as_by_hpack(block: bytes) -> None:
    try:
        expected = hpack.Decoder().decode(block, raw=True)
    except hpack.HPACKError:
        with pytest.raises(ConnectionFault):
            decoder(2**16).decode(block)
    else:
        assert told(decoder(2**16).decode(block)) == told(expected)


def size_of(field: Field) -> int:
    return len(field[0]) + len(field[1]) + ENTRY_BYTES


def told(fields: Iterable[Any]) -> list[tuple[bytes, bytes, bool]]:
    """Fields, each with whether a table may keep it."""
    return [(bytes(each[0]), bytes(each[1]), getattr(each, "indexable", True)) for each in fields]
