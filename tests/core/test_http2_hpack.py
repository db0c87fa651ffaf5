"""Header compression: the examples of RFC 7541 appendix C, the rules one by one, and whatever comes. Beside hpack it is
in tests/differential/test_hpack.py."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.http2_frames import Code, ConnectionFault
from coulee.core.http2_hpack import (
    _NAMES,
    _STATIC,
    ENTRY_BYTES,
    SELDOM_TWICE,
    TABLE_BYTES,
    Decoder,
    Encoder,
    Field,
    _integer,
    _number,
)

# ------------------------------------------------------------------------------------------- the examples of the RFC

GET: list[Field] = [
    (b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com"),
]  # fmt: skip
REQUESTS: list[list[Field]] = [
    GET,
    [*GET, (b"cache-control", b"no-cache")],
    [
        (b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"), (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ],
]  # fmt: skip
TABLES_OF_REQUESTS: list[tuple[int, list[Field]]] = [  # how large, and what is in it, the newest first
    (57, [(b":authority", b"www.example.com")]),
    (110, [(b"cache-control", b"no-cache"), (b":authority", b"www.example.com")]),
    (164, [(b"custom-key", b"custom-value"), (b"cache-control", b"no-cache"), (b":authority", b"www.example.com")]),
]
REQUESTS_PLAIN = [  # appendix C.3
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
]
REQUESTS_CODED = [  # appendix C.4
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
]

PRIVATE = (b"cache-control", b"private")
SAME_DATE = (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT")
NEXT_DATE = (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT")
PLACE = (b"location", b"https://www.example.com")
COOKIE = (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")
GZIP = (b"content-encoding", b"gzip")
ANSWERS: list[list[Field]] = [
    [(b":status", b"302"), PRIVATE, SAME_DATE, PLACE],
    [(b":status", b"307"), PRIVATE, SAME_DATE, PLACE],
    [(b":status", b"200"), PRIVATE, NEXT_DATE, PLACE, GZIP, COOKIE],
]
TABLES_OF_ANSWERS: list[tuple[int, list[Field]]] = [
    (222, [PLACE, SAME_DATE, PRIVATE, (b":status", b"302")]),
    (222, [(b":status", b"307"), PLACE, SAME_DATE, PRIVATE]),
    (215, [COOKIE, GZIP, NEXT_DATE]),
]
ANSWERS_PLAIN = [  # appendix C.5
    (
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f"
        "7777772e6578616d706c652e636f6d"
    ),
    "4803333037c1c0bf",
    (
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b42"
        "5a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31"
    ),
]
ANSWERS_CODED = [  # appendix C.6
    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
    "4883640effc1c0bf",
    (
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f"
        "3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
    ),
]


def decoder(head_bytes_max: int = 10**6, fields_max: int = 1000) -> Decoder:
    return Decoder(head_bytes_max, fields_max)


def refused(block: bytes, match: str, of: Decoder | None = None) -> None:
    with pytest.raises(ConnectionFault, match=match) as caught:
        (of or decoder()).decode(block)
    assert caught.value.code == Code.COMPRESSION_ERROR


@pytest.mark.parametrize("blocks", [REQUESTS_PLAIN, REQUESTS_CODED])
def test_the_requests_of_the_rfc(blocks: list[str]) -> None:
    reads = decoder()
    for block, fields, (size, table) in zip(blocks, REQUESTS, TABLES_OF_REQUESTS, strict=True):
        assert reads.decode(bytes.fromhex(block)) == fields
        assert (reads._bytes, reads._entries[::-1]) == (size, table)


@pytest.mark.parametrize("blocks", [ANSWERS_PLAIN, ANSWERS_CODED])
def test_the_answers_of_the_rfc_with_a_table_of_256_bytes(blocks: list[str]) -> None:
    reads = decoder()
    reads.max_allowed_table_size = reads.header_table_size = 256
    for block, fields, (size, table) in zip(blocks, ANSWERS, TABLES_OF_ANSWERS, strict=True):
        assert reads.decode(bytes.fromhex(block)) == fields
        assert (reads._bytes, reads._entries[::-1]) == (size, table)


def test_the_requests_of_the_rfc_are_written_as_it_does_without_the_code() -> None:
    writes = Encoder()
    for block, fields, (size, table) in zip(REQUESTS_PLAIN, REQUESTS, TABLES_OF_REQUESTS, strict=True):
        assert writes.encode(fields).hex() == block
        assert (writes._bytes, list(writes._numbers)[::-1]) == (size, table)


@pytest.mark.parametrize(
    ("number", "most", "written"),
    [(10, 0x1F, "0a"), (1337, 0x1F, "1f9a0a"), (42, 0xFF, "2a")],  # appendix C.1
)
def test_the_integers_of_the_rfc(number: int, most: int, written: str) -> None:
    block = bytes.fromhex(written)
    assert _number(0, most, number) == block
    if number >= most:
        assert _integer(block, 1, block[0]) == (number, len(block))


@pytest.mark.parametrize(
    ("block", "field", "kept"),
    [  # appendix C.2
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", (b"custom-key", b"custom-header"), 55),
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), 0),
        ("100870617373776f726406736563726574", hpack.NeverIndexedHeaderTuple(b"password", b"secret"), 0),
        ("82", (b":method", b"GET"), 0),
    ],
)
def test_the_fields_of_the_rfc(block: str, field: Field, kept: int) -> None:
    reads, writes = decoder(), Encoder()
    [read] = reads.decode(bytes.fromhex(block))
    assert read == field
    assert type(read) is type(field)
    assert reads._bytes == kept
    assert writes.encode([field]).hex() == block
    assert writes._bytes == kept


def test_the_static_table_is_that_of_the_rfc() -> None:
    assert len(_STATIC) == 62
    reads = hpack.Decoder()
    for index in range(1, 62):
        block = bytes((0x80 | index,))
        assert decoder().decode(block) == [tuple(each) for each in reads.decode(block, raw=True)]
        name = _STATIC[index][0]
        assert _STATIC[_NAMES[name]][0] == name
        assert all(other != name for other, _ in _STATIC[1 : _NAMES[name]])  # the first of that name


# ----------------------------------------------------------------------------------------------------- what is written


def test_a_field_that_no_table_is_to_keep_is_always_written_so() -> None:
    field = hpack.NeverIndexedHeaderTuple(b"password", b"secret")
    writes = Encoder()
    block = writes.encode([field])
    assert writes.encode([field]) == block
    known = hpack.NeverIndexedHeaderTuple(b":method", b"GET")  # also where it is in a table
    assert writes.encode([known]) == b"\x12\x03GET"
    writes.encode([(b"password", b"secret")])
    assert writes.encode([field]) == b"\x1f\x2f\x06secret"  # though its name may come from there
    assert writes.encode([(b"password", b"secret")]) == b"\xbe"


def test_a_field_of_hpack_is_like_any_other() -> None:
    writes = Encoder()
    writes.encode([hpack.HeaderTuple(b"x-a", b"1")])
    assert writes.encode([(b"x-a", b"1"), hpack.HeaderTuple(b"x-a", b"1")]) == b"\xbe\xbe"


def test_what_seldom_comes_twice_has_no_entry() -> None:
    writes, reads = Encoder(), decoder()
    for name in SELDOM_TWICE:
        for _ in range(2):
            block = writes.encode([(name, b"7")])
            assert block[0] < 0x10
            assert len(block) <= len(b"\x0f\x7f\x017")  # its name is in the static table
            assert reads.decode(block) == [(name, b"7")]
    assert not reads._entries


def test_what_would_leave_room_for_little_else_has_no_entry() -> None:
    half = TABLE_BYTES // 2 - ENTRY_BYTES - len(b"large")
    assert Encoder().encode([(b"large", b"x" * half)])[0] == 0x40
    assert Encoder().encode([(b"large", b"x" * (half + 1))])[0] == 0


def test_what_was_written_once_is_one_byte() -> None:
    writes = Encoder()
    fields = [(b"x-one", b"1"), (b"x-two", b"2")]
    assert len(writes.encode(fields)) > 2
    assert writes.encode(fields) == b"\xbf\xbe"
    assert writes.encode([(b"x-one", b"3")]) == b"\x7f\x00\x013"  # the name of entry 63
    assert writes.encode([(b":method", b"POST"), (b"x-one", b"3")]) == b"\x83\xbe"


def test_indices_and_lengths_of_more_than_one_byte() -> None:
    writes, reads = Encoder(), decoder()
    many = [(b"x", b"%d" % number) for number in range(70)]
    assert reads.decode(writes.encode(many)) == many
    assert writes.encode([many[5]]) == b"\xfe"  # 126
    assert writes.encode([many[4]]) == b"\xff\x00"  # 127
    assert reads.decode(b"\xfe\xff\x00") == [many[5], many[4]]
    for size in (126, 127, 128, 300):
        for field in ((b"n" * size, b"v" * size), hpack.NeverIndexedHeaderTuple(b"m" * size, b"w" * size)):
            block = writes.encode([field])
            assert reads.decode(block) == [field]
            length = bytes((size,)) if size < 127 else b"\x7f" + bytes((size - 127,))
            if size < 255:
                assert block[1:].startswith(length + field[0])
                assert block.endswith(length + field[1])


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


def test_a_table_of_another_size_and_back_is_told() -> None:
    writes, reads = Encoder(), decoder()
    fields = [(b"x-a", b"1")]
    reads.decode(writes.encode(fields))
    for size in (0, 20, TABLE_BYTES):
        writes.header_table_size = size
    block = writes.encode(fields)
    assert block.startswith(b"\x20\x3f\xe1\x1f\x40")
    assert reads.decode(block) == fields
    writes.header_table_size = 0
    assert reads.decode(writes.encode(fields)) == fields
    assert (reads.header_table_size, reads._entries, len(writes._numbers)) == (0, [], 0)
    writes.header_table_size = TABLE_BYTES
    assert writes.encode(fields).startswith(b"\x3f\xe1\x1f\x40")  # nothing smaller since then


def test_a_larger_table_than_usual_is_used_where_both_want_it() -> None:
    writes, reads = Encoder(2 * TABLE_BYTES), decoder()
    assert writes.header_table_size == TABLE_BYTES  # the peer has not said so yet
    writes.header_table_size = reads.max_allowed_table_size = 10 * TABLE_BYTES
    many = [(b"x", b"%0500d" % number) for number in range(13)]
    assert reads.decode(writes.encode(many)) == many
    assert reads.header_table_size == 2 * TABLE_BYTES
    assert writes.encode(many) == bytes(range(0xCA, 0xBD, -1))


def test_the_oldest_goes_first_and_takes_no_newer_one_along() -> None:
    writes, reads = Encoder(), decoder()
    writes.header_table_size = reads.header_table_size = 3 * (ENTRY_BYTES + 4)
    for value in (b"1", b"2", b"3", b"4", b"1"):
        fields = [(b"x-a", value)]
        assert reads.decode(writes.encode(fields)) == fields
    assert writes.encode([(b"x-a", b"2")])[0] == 0x7E  # 2 is gone, its name is not
    assert writes.encode([(b"x-a", b"1")]) == b"\xbf"


# -------------------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ("block", "match"),
    [
        (b"\x80", "index 0"),
        (b"\xbe", "no entry"),
        (b"\xff\x00", "no entry"),
        (b"\x7e\x01a", "no entry"),
        (b"\x7f\x00\x01a", "no entry"),
        (b"\x0f\x2f\x01a", "no entry"),
        (b"\xff", "cut short"),
        (b"\x41", "cut short"),
        (b"\x40", "cut short"),
        (b"\x40\x01a", "cut short"),
        (b"\x41\x05abc", "cut short"),
        (b"\x41\x05abcd", "cut short"),
        (b"\x41\x81", "cut short"),
        (b"\x41\x85abc", "cut short"),
        (b"\x40\x05abc", "cut short"),
        (b"\x41\x7f\x80", "cut short"),
        (b"\x3f", "cut short"),
        (b"\x3f\x80", "cut short"),
        (b"\xff\x80\x80\x80\x80\x80\x00", "integer that is too long"),
        (b"\x41\x7f\xff\xff\xff\xff\xff\x01", "integer that is too long"),
        (b"\x41\x7f\xff\xff\xff\xff\x7f", "cut short"),
        (b"\x3f\x80\x80\x80\x80\x80\x00", "integer that is too long"),
        (b"\x82\x20", "behind a field"),
        (b"\x82\x3f", "behind a field"),
        (b"\x20\x20\x20", "after 2 others"),
        (b"\x3f\xe2\x1f", "larger table"),
        (b"\x20\x3f\xe2\x1f\x82", "larger table"),
        (b"\x41\x82\xf8\xff", "does not end well"),  # eight ones are left over
        (b"\x41\x81\x18", "does not end well"),  # a zero is
        (b"\x41\x84\xff\xff\xff\xff", "does not end well"),  # it says where it ends
        (b"\x40\x81\x18\x01a", "does not end well"),
    ],
)
def test_a_block_that_is_wrong(block: bytes, match: str) -> None:
    refused(block, match)


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        (b"", []),
        (b"\xff\x80\x80\x80\x80\x00", "no entry"),  # as long as an integer may be
        (b"\x3f\xe1\x1f", []),
        (b"\x20\x20\x82", [(b":method", b"GET")]),
        (b"\x40\x00\x00", [(b"", b"")]),  # a name of nothing is for others to refuse
        (b"\x00\x80\x80", [(b"", b"")]),
        (b"\x41\x7f\x80\x80\x80\x80\x00" + b"a" * 127, [(b":authority", b"a" * 127)]),
        (b"\x7f\x00\x01b", "no entry"),
        (b"\x40\x01a\x01b\x7f\x00\x01b", "no entry"),
        (b"\x40\x01a\x01b\x40\x01c\x01d\x7f\x00\x01b", [(b"a", b"b"), (b"c", b"d"), (b"a", b"b")]),
        (b"\x40\x01a\x01b\x0f\x2f\x01c", [(b"a", b"b"), (b"a", b"c")]),
    ],
)
def test_a_block_that_is_odd(block: bytes, fields: list[Field] | str) -> None:
    if isinstance(fields, str):
        refused(block, fields)
    else:
        assert decoder().decode(block) == fields


def test_a_table_that_must_become_smaller_does() -> None:
    reads = decoder()
    reads.decode(b"\x40\x01a\x01b")
    reads.max_allowed_table_size = 0
    for block in (b"\x82", b"", b"\xbe"):
        refused(block, "as small as it must", reads)
    assert reads.decode(b"\x20\x82") == [(b":method", b"GET")]
    refused(b"\xbe", "no entry", reads)


BROKEN = b"\xff" * 9
BEYOND = [b"\x82" + BROKEN, *(kind + b"\x01a\x00" + BROKEN for kind in (b"\x00", b"\x10", b"\x40"))]
"""A field, and what nobody comes to where that one is too many."""


def test_a_head_is_counted_while_it_is_read() -> None:
    size = len(b":method") + len(b"GET") + ENTRY_BYTES
    assert len(decoder(3 * size).decode(b"\x82" * 3)) == 3
    for behind in BEYOND:
        with pytest.raises(ConnectionFault, match="more bytes") as caught:
            decoder(3 * size).decode(b"\x82" * 3 + behind)
        assert caught.value.code == Code.ENHANCE_YOUR_CALM
    assert decoder(3 * size + 33).decode(b"\x82" * 3 + b"\x00\x01a\x00")[3:] == [(b"a", b"")]


def test_so_are_its_fields() -> None:
    for block in (b"\x82" * 3, b"\x20\x20" + b"\x82" * 3):
        assert len(decoder(fields_max=3).decode(block)) == 3
        for behind in BEYOND:
            with pytest.raises(ConnectionFault, match="more fields") as caught:
                decoder(fields_max=3).decode(block + behind)
            assert caught.value.code == Code.ENHANCE_YOUR_CALM


def test_an_entry_counts_for_32_bytes_more_than_it_has() -> None:  # section 4.1
    three = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
    for size, kept in ((3 * (32 + 2), 3), (3 * (32 + 2) - 1, 2)):
        writes, reads = Encoder(size), decoder()
        assert reads.decode(writes.encode(three)) == three
        assert len(writes._numbers) == len(reads._entries) == kept
    writes = Encoder()
    writes.encode(three)
    writes.header_table_size = 3 * (32 + 2)
    assert len(writes._numbers) == 3


def test_what_is_larger_than_the_table_empties_it() -> None:  # section 4.4
    reads = decoder()
    reads.decode(b"\x40\x01a\x01b")
    large = (b"x", b"y" * TABLE_BYTES)
    assert reads.decode(b"\x40" + b"\x01x" + _number(0, 0x7F, TABLE_BYTES) + large[1]) == [large]
    assert reads._bytes == 0
    refused(b"\xbe", "no entry", reads)


def test_an_entry_may_take_its_name_from_one_that_goes_for_it() -> None:  # section 4.4
    reads = decoder()
    reads.decode(b"\x40\x01a\x01b")
    block = b"\x7e" + _number(0, 0x7F, TABLE_BYTES - 33) + b"c" * (TABLE_BYTES - 33)
    assert reads.decode(block) == reads.decode(b"\xbe") == [(b"a", b"c" * (TABLE_BYTES - 33))]
    assert len(reads._entries) == 1


# ------------------------------------------------------------------------------------------------------- whatever comes

BYTES = st.one_of(
    st.binary(max_size=30),
    st.lists(
        st.sampled_from([b"\x82", b"\xbe", b"\x40\x01a\x01b", b"\x7e\x01c", b"\x20", b"\x3f\xe1\x1f", b"\xff", b"\x7f",
                         b"\x10\x81\x1f\x00", b"\x00", b"\x80", b"\x3f", b"\x1f"])
    ).map(b"".join),
)  # fmt: skip


@given(st.lists(BYTES, max_size=6))
def test_any_bytes_are_fields_or_a_fault(blocks: list[bytes]) -> None:
    reads = decoder(400, 12)
    for block in blocks:
        try:
            fields = reads.decode(block)
        except ConnectionFault:
            return
        assert len(fields) <= 12
        assert sum(map(size_of, fields)) <= 400
        assert sum(map(size_of, reads._entries)) == reads._bytes <= reads.header_table_size <= TABLE_BYTES


NAMES = st.sampled_from([b":path", b":status", b"etag", b"cookie", b"date", b"x-a", b"x-b", b"x-" + b"long" * 40])
VALUES = st.sampled_from([b"", b"200", b"a", b"b" * 150]) | st.binary(max_size=30)
FIELDS = st.lists(st.tuples(NAMES, VALUES) | st.builds(hpack.NeverIndexedHeaderTuple, NAMES, VALUES), max_size=8)
SIZES = st.lists(st.sampled_from([0, 50, 200, 300, TABLE_BYTES, 9000]), max_size=3)


@given(st.lists(st.tuples(SIZES, FIELDS), max_size=12), st.sampled_from([100, TABLE_BYTES, 8000]))
def test_what_we_write_we_read(blocks: list[tuple[list[int], list[Field]]], ours: int) -> None:
    writes, reads = Encoder(ours), decoder()
    for sizes, fields in blocks:
        for size in sizes:
            writes.header_table_size = reads.max_allowed_table_size = size
        read = reads.decode(writes.encode(fields))
        assert read == fields
        assert [type(each) for each in read] == [type(each) for each in fields]
        assert reads._entries == list(writes._numbers)
        assert reads._bytes == writes._bytes <= writes.header_table_size <= ours
        assert reads.header_table_size == writes.header_table_size
        assert sum(map(size_of, writes._numbers)) == writes._bytes
        assert {name for name, _ in writes._numbers} == set(writes._names)


def size_of(field: Field) -> int:
    return len(field[0]) + len(field[1]) + ENTRY_BYTES
