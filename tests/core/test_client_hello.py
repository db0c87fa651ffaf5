"""The ClientHello: what is read of one, where more is needed, and what is refused, with which alert."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.client_hello import (
    HELLO_BYTES_MAX,
    HELLO_RECORDS_MAX,
    RECORD_BYTES_MAX,
    ClientHello,
    HelloError,
    alert_record,
    is_tls,
    read_client_hello,
)
from coulee.lb.tls_hello import client_hello

UNEXPECTED, OVERFLOW, ILLEGAL, DECODE, VERSION = 10, 22, 47, 50, 70


# ----------------------------------------------------------------------------------------------------- builders


def sized(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2, "big") + sized(2, body)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    return extension(0, sized(2, b"".join(bytes([kind]) + sized(2, name) for name in names)))


def alpn(*names: bytes) -> bytes:
    return extension(16, sized(2, b"".join(sized(1, name) for name in names)))


def versions(*numbers: int) -> bytes:
    return extension(43, sized(1, b"".join(number.to_bytes(2, "big") for number in numbers)))


def message(
    *extensions: bytes,
    version: bytes = b"\3\3",
    session: bytes = b"",
    suites: bytes = b"\x13\x01",
    compressions: bytes = b"\0",
    block: bytes | None = None,
) -> bytes:
    """A ClientHello, without its records; `block` stands in the place of the extensions and their length."""
    if block is None:
        block = sized(2, b"".join(extensions))
    body = version + bytes(32) + sized(1, session) + sized(2, suites) + sized(1, compressions) + block
    return b"\1" + sized(3, body)


def record(content: bytes, kind: int = 22, version: bytes = b"\3\1") -> bytes:
    return bytes([kind]) + version + sized(2, content)


def hello(*extensions: bytes) -> bytes:
    return record(message(*extensions))


def cut(data: bytes, *at: int) -> bytes:
    """The same message in several records."""
    edges = [0, *at, len(data)]
    return b"".join(record(data[a:b]) for a, b in pairwise(edges))


def refused(data: bytes) -> tuple[int, str]:
    with pytest.raises(HelloError) as caught:
        read_client_hello(data)
    assert "\n" not in str(caught.value)
    return caught.value.alert, str(caught.value)


# ------------------------------------------------------------------------------------------------- what is read


def test_a_hello_says_whom_it_wants_and_what_it_speaks() -> None:
    data = hello(server_name(b"A.Example"), alpn(b"h2", b"\xff\x00"), versions(0x0A0A, 0x0304, 0x0303))
    assert read_client_hello(data) == ClientHello("a.example", ("h2", "\xff\0"), (0x0A0A, 0x0304, 0x0303))


def test_a_hello_without_extensions_says_what_its_version_is() -> None:
    assert read_client_hello(record(message(block=b""))) == ClientHello("", (), (0x0303,))
    assert read_client_hello(record(message(block=b"\0\0", version=b"\3\1"))) == ClientHello("", (), (0x0301,))


def test_the_hello_of_our_own_checks_can_be_read() -> None:
    found = read_client_hello(client_hello(Random(1), "a.test"))
    assert found == ClientHello("a.test", (), (0x0304, 0x0303))


def test_extensions_that_nobody_knows_are_no_matter() -> None:
    data = hello(extension(0x0A0A, b""), server_name(b"a.example"), extension(21, bytes(100)), extension(51, b"?"))
    assert read_client_hello(data) == ClientHello("a.example", (), (0x0303,))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        (b"localhost", "localhost"),
        (b"a.example.", "a.example"),
        (b"_srv.A-b.eXample", "_srv.a-b.example"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"r3---sn-x.example", "r3---sn-x.example"),
        (b"a" * 63 + b".b", "a" * 63 + ".b"),
        (b"10.0.0.1", "10.0.0.1"),
        (b"2001:DB8::1", "2001:db8::1"),
        (b".".join([b"a" * 63] * 3 + [b"b" * 61]), ".".join(["a" * 63] * 3 + ["b" * 61])),
        (b".".join([b"a" * 63] * 3 + [b"b" * 61]) + b".", ".".join(["a" * 63] * 3 + ["b" * 61])),
    ],
)
def test_names(name: bytes, read: str) -> None:
    found = read_client_hello(hello(server_name(name)))
    assert found is not None
    assert found.server_name == read


@pytest.mark.parametrize(
    "name",
    [
        b".", b"..", b".a", b"a..b", b"a..", b"a b", b"a\0", b"a.example\0", b"a\n", b"a.example\n", b"\xc3\xa4.b",
        b"*.example", b"a/b", b"a:443", b"[::1]", b"::x", b":::", b"1::2::3", b"a" * 64, b"a" * 64 + b".b",
        b"a." * 126 + b"bb", b"a@b", b"fe80::1%eth0",
    ],
)  # fmt: skip
def test_what_is_no_name(name: bytes) -> None:
    alert, text = refused(hello(server_name(name)))
    assert alert == ILLEGAL
    assert "is not the name of a host" in text


# ----------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("data", "alert", "text"),
    [
        # what is no TLS, or no ClientHello
        (b"G", UNEXPECTED, "not TLS"),
        (b"\x80\x2e\1", UNEXPECTED, "not TLS"),
        (b"\x16\2", UNEXPECTED, "not TLS"),
        (b"\x15\3\3\0\2\2\x28", UNEXPECTED, "not TLS"),
        (record(b"\2"), UNEXPECTED, "type 2 in place"),
        (record(b"\0"), UNEXPECTED, "type 0 in place"),
        (b"\x16\3\1\x40\1", OVERFLOW, "16385 bytes"),
        (b"\x16\3\1\0\0", UNEXPECTED, "without content"),
        (b"\x16\3\1\x40\0\1\0\x3f\xfd", ILLEGAL, "a ClientHello of 16385 bytes"),
        (b"\x16\3\1\0\5\1\xff\xff\xff", ILLEGAL, "a ClientHello of"),
        # records
        (record(message() + b"\0"), UNEXPECTED, "something follows"),
        (record(message(), 23), UNEXPECTED, "not TLS"),
        (record(message()[:9]) + record(message()[9:], 20), UNEXPECTED, "a record of type 20 within"),
        (record(message()[:9]) + record(message()[9:], 22, b"\2\0"), UNEXPECTED, "not TLS"),
        (record(message()[:9]) + record(b""), UNEXPECTED, "without content"),
        (record(message()[:9]) + record(message()[9:] + b"\0"), UNEXPECTED, "something follows"),
        # fields
        (record(b"\1\0\0\0"), DECODE, "ends within"),
        (record(b"\1" + sized(3, b"\3\3" + bytes(32))), DECODE, "ends within"),
        (record(b"\1" + sized(3, b"\3\3" + bytes(33))), DECODE, "ends within"),
        (record(b"\1" + sized(3, b"\3\3" + bytes(32) + b"\x20")), DECODE, "ends within"),
        (record(b"\1" + sized(3, b"\3\3" + bytes(33) + b"\0")), DECODE, "ends within"),
        (record(b"\1" + sized(3, b"\3\3" + bytes(33) + b"\0\2")), DECODE, "ends within"),
        (record(b"\1" + sized(3, b"\3\3" + bytes(33) + b"\0\2\x13\1")), DECODE, "ends within"),
        (record(message(version=b"\2\0")), VERSION, "0x0200"),
        (record(message(version=b"\4\0")), VERSION, "0x0400"),
        (record(message(session=bytes(33))), ILLEGAL, "a session of 33 bytes"),
        (record(message(suites=b"")), DECODE, "0 bytes of cipher suites"),
        (record(message(suites=b"\x13\1\0")), DECODE, "3 bytes of cipher suites"),
        (record(message(compressions=b"")), DECODE, "no compression"),
        (record(b"\1" + sized(3, b"\3\3" + bytes(33) + b"\0\2\x13\1\5\0")), DECODE, "do not end with"),
        (record(message(block=b"\0")), DECODE, "do not end with"),
        (record(message(block=b"\0\1")), DECODE, "do not end with"),
        (record(message(block=b"\0\0\0")), DECODE, "do not end with"),
        (record(message(block=b"\0\3\0\0\0")), DECODE, "ends within"),
        (record(message(block=b"\0\5\0\7\0\2\0")), DECODE, "extension 7 ends behind"),
        # extensions
        (hello(extension(7, b""), extension(9, b""), extension(7, b"")), ILLEGAL, "extension 7 comes twice"),
        (hello(server_name(b"a.example"), server_name(b"b.example")), ILLEGAL, "extension 0 comes twice"),
        (hello(extension(0, b"")), DECODE, "server_name"),
        (hello(extension(0, b"\0\0")), DECODE, "server_name"),
        (hello(server_name(b"")), ILLEGAL, "is not the name"),
        (hello(server_name(b"a", b"b")), DECODE, "not one host_name"),
        (hello(server_name(b"a", kind=1)), DECODE, "not one host_name"),
        (hello(extension(0, b"\0\5\0\0\1a")), DECODE, "not one host_name"),
        (hello(extension(0, b"\0\4\0\0\2a")), DECODE, "not one host_name"),
        (hello(extension(0, b"\0\4\0\0\1ab")), DECODE, "not one host_name"),
        (hello(extension(16, b"")), DECODE, "not a list"),
        (hello(alpn()), DECODE, "not a list"),
        (hello(extension(16, b"\0\3\2h2h")), DECODE, "not a list"),
        (hello(alpn(b"")), DECODE, "not a list"),
        (hello(alpn(b"h2", b"")), DECODE, "empty, or not whole"),
        (hello(extension(16, b"\0\3\3h2")), DECODE, "empty, or not whole"),
        (hello(extension(43, b"")), DECODE, "not a list"),
        (hello(versions()), DECODE, "not a list"),
        (hello(extension(43, b"\1\3")), DECODE, "not a list"),
        (hello(extension(43, b"\3\3\4\3")), DECODE, "not a list"),
        (hello(extension(43, b"\2\3\4\3")), DECODE, "not a list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(data: bytes, alert: int, text: str) -> None:
    got, said = refused(data)
    assert (got, text in said) == (alert, True), said


def test_alerts_are_records_of_their_own() -> None:
    assert alert_record(112) == b"\x15\3\3\0\2\2\x70"


def test_what_may_begin_tls() -> None:
    assert [is_tls(data) for data in (b"", b"\x16", b"\x16\3", b"\x16\3\xff\xff")] == [True] * 4
    assert [is_tls(data) for data in (b"\3", b"\x16\2", b"\x17\3", b"GET")] == [False] * 4


# ------------------------------------------------------------------------------------------------------- records

NAMED = message(server_name(b"a.example"), alpn(b"h2"), versions(0x0304))
WHOLE = ClientHello("a.example", ("h2",), (0x0304,))


@given(st.lists(st.integers(1, len(NAMED) - 1), max_size=HELLO_RECORDS_MAX - 1, unique=True).map(sorted))
def test_records_may_cut_it_anywhere(at: Sequence[int]) -> None:
    data = cut(NAMED, *at)
    assert read_client_hello(data) == WHOLE
    assert read_client_hello(data + b"whatever comes") == WHOLE
    for size in range(len(data)):
        assert read_client_hello(data[:size]) is None


def test_there_may_be_only_so_many_records() -> None:
    assert read_client_hello(cut(NAMED, *range(1, HELLO_RECORDS_MAX))) == WHOLE
    alert, text = refused(cut(NAMED, *range(1, HELLO_RECORDS_MAX + 1)))
    assert (alert, str(HELLO_RECORDS_MAX) in text) == (DECODE, True)


def test_it_may_be_as_long_as_a_record() -> None:
    padding = HELLO_BYTES_MAX - len(message(extension(21, b"")))
    largest = message(extension(21, bytes(padding)))
    assert len(largest) == HELLO_BYTES_MAX == RECORD_BYTES_MAX
    assert read_client_hello(record(largest)) == ClientHello("", (), (0x0303,))


def test_what_the_first_bytes_rule_out_is_refused_with_them() -> None:
    for data, needed in [(b"\x17\3\3", 1), (b"\x16\2\3", 2), (b"\x16\3\1\xff\xff\1", 5), (record(b"\2\0"), 6),
                         (b"\x16\3\1\0\x40\1\xff\xff\xff\3\3", 9)]:  # fmt: skip
        for size in range(needed):
            assert read_client_hello(data[:size]) is None
        refused(data[:needed])


# ---------------------------------------------------------------------------------------------------- properties

names = st.from_regex(rb"[a-z_][a-z0-9_-]{0,9}(\.[a-z_][a-z0-9-]{0,9}){0,3}", fullmatch=True)


@given(
    names,
    st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5),
    st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(44, 0xFFFF), st.binary(max_size=40)), max_size=6, unique_by=lambda pair: pair[0]),
    st.randoms(use_true_random=False),
)
def test_what_was_built_is_what_is_read(
    name: bytes, protocols: list[bytes], offered: list[int], others: list[tuple[int, bytes]], random: Random
) -> None:
    extensions = [server_name(name), alpn(*protocols), versions(*offered), *(extension(*each) for each in others)]
    random.shuffle(extensions)
    expected = ClientHello(name.decode(), tuple(each.decode("latin-1") for each in protocols), tuple(offered))
    assert read_client_hello(hello(*extensions)) == expected


@given(st.data())
def test_whatever_comes_is_read_or_refused_and_more_of_it_changes_no_verdict(data: st.DataObject) -> None:
    original = hello(server_name(b"a.example"), alpn(b"h2", b"http/1.1"), versions(0x0304, 0x0303))
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    verdicts: list[object] = []
    for size in range(len(changed) + 1):
        try:
            verdicts.append(read_client_hello(bytes(changed[:size])))
        except HelloError as error:
            verdicts.append(error.alert)
    settled = [verdict for verdict in verdicts if verdict is not None]
    assert all(verdict == settled[0] for verdict in settled), "the first verdict stands"
    assert verdicts.count(None) == len(verdicts) - len(settled)
    assert verdicts[len(verdicts) - len(settled) :] == settled


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_needed_read_or_refused(data: bytes) -> None:
    for candidate in (data, b"\x16\3\1" + data, record(b"\1" + sized(3, data)) if data else b""):
        verdict: object = DECODE
        try:
            read_client_hello(candidate)
        except HelloError as error:
            verdict = error.alert
        assert verdict in {UNEXPECTED, OVERFLOW, ILLEGAL, DECODE, VERSION}
