"""Headers of the PROXY protocol: what is one, what is none, and when that is known."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from coulee.core.crc32c import crc32c
from coulee.core.proxy_protocol import (
    FIELDS_BYTES_MAX,
    LINE_BYTES_MAX,
    Header,
    HeaderError,
    TlsInfo,
    read_header,
    to_bytes,
)
from coulee.core.seam import Address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
IPV4 = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + b"\xc3\x50\x01\xbb"
CLIENT, SERVER = ("192.0.2.1", 50000), ("198.51.100.2", 443)
LINE = b"PROXY TCP4 192.0.2.1 198.51.100.2 50000 443\r\n"


def block(family: int, content: bytes, command: int = 0x21, length: int | None = None) -> bytes:
    """A header of version 2, perhaps with a wrong length."""
    size = len(content) if length is None else length
    return SIGNATURE + bytes([command, family]) + size.to_bytes(2, "big") + content


def field(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def paths(source: bytes, destination: bytes = b"/run/a.sock") -> bytes:
    return source.ljust(108, b"\0") + destination.ljust(108, b"\0")


def tls(flags: int, result: int, *fields: bytes) -> bytes:
    return field(0x20, bytes([flags]) + result.to_bytes(4, "big") + b"".join(fields))


def header_of(data: bytes) -> Header:
    """What is read, of a header that has come whole."""
    found = read_header(data)
    assert found is not None
    header, size = found
    assert size == len(data)
    return header


def refusal(data: bytes) -> str:
    """Why it is refused."""
    with pytest.raises(HeaderError) as caught:
        read_header(data)
    text = str(caught.value)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------------------------------------------ version 1


@pytest.mark.parametrize(
    ("line", "source", "destination"),
    [
        (LINE, CLIENT, SERVER),
        (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", ("0.0.0.0", 0), ("255.255.255.255", 65535)),
        (b"PROXY TCP6 2001:DB8:0:0:0:0:0:1 ::1 1 10\r\n", ("2001:db8::1", 1), ("::1", 10)),
        (b"PROXY TCP6 0123:4567::1 :: 1 2\r\n", ("123:4567::1", 1), ("::", 2)),
        (b"PROXY TCP6 ::ffff:c000:0201 ::1 1 2\r\n", ("192.0.2.1", 1), ("::1", 2)),
        (b"PROXY TCP6 ::ffff:255.255.255.255 ::1.2.3.4 1 2\r\n", ("255.255.255.255", 1), ("::102:304", 2)),
        (b"PROXY TCP6 1:2:3:4:5:6:7:8 1:2:3:4:5:6::1 1 2\r\n", ("1:2:3:4:5:6:7:8", 1), ("1:2:3:4:5:6:0:1", 2)),
        (b"PROXY TCP6 1:2:3:4:5:6:1.2.3.4 ::2:3:4:5:6:7:8 1 2\r\n", ("1:2:3:4:5:6:102:304", 1), ("0:2:3:4:5:6:7:8", 2)),
        (b"PROXY UNKNOWN\r\n", None, None),
        (b"PROXY UNKNOWN 192.0.2.1 ~!* TCP4\r\n", None, None),
        (b"PROXY UNKNOWN    \r\n", None, None),
        (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None, None),
        (b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"fffe"] * 2) + b" 65535 65535\r\n",
         ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 65535), ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 65535)),
    ],
)  # fmt: skip
def test_a_line_says_who_the_client_is(line: bytes, source: Address | None, destination: Address | None) -> None:
    assert header_of(line) == Header(source, destination, 1)
    for size in range(len(line)):
        assert read_header(line[:size]) is None


@pytest.mark.parametrize(
    "line",
    [
        "proxy TCP4 192.0.2.1 198.51.100.2 50000 443",
        "PROXY  TCP4 192.0.2.1 198.51.100.2 50000 443",
        "PROXY\tTCP4 192.0.2.1 198.51.100.2 50000 443",
        " PROXY TCP4 192.0.2.1 198.51.100.2 50000 443",
        "PROXY TCP4 192.0.2.1 198.51.100.2 50000 443 ",
        "PROXY TCP4 192.0.2.1  198.51.100.2 50000 443",
        "PROXY TCP4 192.0.2.1 198.51.100.2 50000 443 1",
        "PROXY TCP4 192.0.2.1 198.51.100.2 50000 ",
        "PROXY TCP4 ",
        "PROXY ",
        "PROXY",
        "PROXY TCP 192.0.2.1 198.51.100.2 50000 443",
        "PROXY tcp4 192.0.2.1 198.51.100.2 50000 443",
        "PROXY UNKNOWNED",
        "PROXY TCP4 ::1 ::1 50000 443",
        "PROXY TCP6 192.0.2.1 198.51.100.2 50000 443",
        "PROXY TCP4 192.0.2.256 198.51.100.2 50000 443",
        "PROXY TCP4 192.0.2.01 198.51.100.2 50000 443",
        "PROXY TCP4 localhost 198.51.100.2 50000 443",
        "PROXY TCP6 fe80::1%1 ::1 50000 443",
        "PROXY TCP6 1::2::3 ::1 50000 443",
        "PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 50000 443",
        "PROXY TCP6 1:2:3:4:5:6:7 ::1 50000 443",
        "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443",
        "PROXY TCP4 192.0.2.1 198.51.100.2 050000 443",
        "PROXY TCP4 192.0.2.1 198.51.100.2 00 443",
        "PROXY TCP4 192.0.2.1 198.51.100.2 -1 443",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +1 443",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1_0 443",
        "PROXY TCP4 192.0.2.1 198.51.100.\xb2 50000 443",
        "PROXY UNKNOWN \xe9",
        "PROXY UNKNOWN \n",
        "PROXY UNKNOWN \r ",
    ],
)
def test_a_line_that_is_not_exactly_one_is_refused(line: str) -> None:
    refusal(line.encode("latin-1") + b"\r\n")


@pytest.mark.parametrize("end", [b"\n", b"\r\r\n", b"\rG", b"\r\0"])
def test_a_line_ends_with_cr_and_lf(end: bytes) -> None:
    refusal(LINE[:-2] + end)


def test_a_line_has_at_most_107_bytes() -> None:
    longest = b"PROXY UNKNOWN " + b"x" * 91
    assert len(longest) + 2 == LINE_BYTES_MAX == 107
    for end in (b"", b"\r"):
        assert read_header(longest + end) is None
    assert "107 bytes" in refusal(longest + b"x")
    assert "107 bytes" in refusal(longest + b"x\r\n")
    assert "107 bytes" in refusal(longest + b"x" * 100_000)
    dotted = b"0000:0000:0000:0000:0000:ffff:255.255.255.255"
    assert "107 bytes" in refusal(b"PROXY TCP6 %b %b 1234 1\r\n" % (dotted, dotted))
    fitting = b"PROXY TCP6 %b %b 1" % (dotted, dotted[:-1])
    assert read_header(fitting) is None
    assert header_of(fitting + b" 2\r\n").destination == ("255.255.255.25", 2)
    assert refusal(fitting + b"2"), "the other port does not fit any more"


@pytest.mark.parametrize(
    ("data", "bad_at"),
    [
        (b"GET / HTTP/1.1\r\n", 0),
        (b"POST / HTTP/1.1\r\n", 1),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 2),
        (b"PROXY / HTTP/1.1\r\n", 6),
        (b"\x16\x03\x01\x02\x00", 0),
        (b"\r\nGET / HTTP/1.1\r\n", 2),
        (b"\r\n\r\nGET / HTTP/1.1\r\n", 4),
        (b"PROXY TCP4 192.0.2.256 ", 21),
        (b"PROXY TCP4 192.0.2.01 ", 20),
        (b"PROXY TCP4 1.2.3. ", 17),
        (b"PROXY TCP4 1..", 13),
        (b"PROXY TCP4 1.2.3.4.", 18),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536", 31),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 01", 28),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 ", 30),
        (b"PROXY TCP6 1::2::", 16),
        (b"PROXY TCP6 :1", 12),
        (b"PROXY TCP6 12345", 15),
        (b"PROXY TCP6 1:2:3:4:5:6:7:8:", 26),
        (b"PROXY UNKNOWN\n", 13),
        (b"PROXY UNKNOWNS", 13),
        (SIGNATURE + b"\x11", 12),
        (SIGNATURE + b"\x22", 12),
        (SIGNATURE + b"\x21\x12", 13),
        (SIGNATURE + b"\x21\x11\x10", 14),
        (SIGNATURE + b"\x21\x11\x0f\x25", 15),
        (SIGNATURE + b"\x21\x11\x00\x0b", 15),
    ],
)
def test_what_is_hopeless_is_refused_at_the_first_byte_that_says_so(data: bytes, bad_at: int) -> None:
    for size in range(bad_at + 1):
        assert read_header(data[:size]) is None
    refusal(data[: bad_at + 1])
    refusal(data)


# ------------------------------------------------------------------------------------------------------ version 2


@pytest.mark.parametrize(
    ("family", "addresses", "source", "destination"),
    [
        (0x11, IPV4, CLIENT, SERVER),
        (0x21, b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01" + bytes(15) + b"\x01" + b"\0\1\0\2",
         ("2001:db8::1", 1), ("::1", 2)),
        (0x21, bytes(10) + b"\xff\xff\xc0\0\2\1" + bytes(10) + b"\xff\xfe\xc0\0\2\1" + b"\0\1\0\2",
         ("192.0.2.1", 1), ("::fffe:c000:201", 2)),
        (0x31, paths(b"/tmp/x", b""), "/tmp/x", ""),
        (0x31, paths(b"/tmp/x\0rubbish", b"\0name"), "/tmp/x", "@name"),
        (0x31, paths(b"p" * 108, "/tmp/\xe9".encode()), "p" * 108, "/tmp/\xe9"),
        (0x00, b"", None, None),
    ],
)  # fmt: skip
def test_a_block_says_who_the_client_is(
    family: int, addresses: bytes, source: Address | None, destination: Address | None
) -> None:
    assert header_of(block(family, addresses)) == Header(source, destination, 2)
    assert header_of(block(family, addresses + field(2, b"a.test"))).authority == "a.test"


def test_local_says_nothing_whatever_is_in_it() -> None:
    for content in (b"", IPV4, b"\xff" * 7, field(2, b"evil.test"), field(3, bytes(4))):
        for family in (0x00, 0x11, 0x12, 0xFF):
            assert header_of(block(family, content, 0x20)) == Header(None, None, 2)


@pytest.mark.parametrize("family", [each for each in range(256) if each not in (0x00, 0x11, 0x21, 0x31)])
def test_only_streams_are_spoken_for(family: int) -> None:
    assert f"{family:#04x}" in refusal(block(family, bytes(300)))


@pytest.mark.parametrize("command", [each for each in range(256) if each not in (0x20, 0x21)])
def test_only_two_commands_of_version_2_exist(command: int) -> None:
    assert f"{command:#04x}" in refusal(block(0x11, IPV4, command))


@pytest.mark.parametrize(("family", "size"), [(0x11, 12), (0x21, 36), (0x31, 216)])
def test_addresses_have_to_be_whole(family: int, size: int) -> None:
    for short in range(size):
        assert f"have {size}" in refusal(block(family, b"1" * short))
    header_of(block(family, b"1" * size))


@pytest.mark.parametrize(("family", "size"), [(0x00, 0), (0x11, 12), (0x21, 36), (0x31, 216)])
def test_fields_have_at_most_3864_bytes_whatever_the_addresses(family: int, size: int) -> None:
    assert 16 + 216 + FIELDS_BYTES_MAX == 4096
    longest = field(0xE0, bytes(FIELDS_BYTES_MAX - 3))
    assert header_of(block(family, b"1" * size + longest)).others == ((0xE0, bytes(FIELDS_BYTES_MAX - 3)),)
    assert "3864 bytes" in refusal(block(family, b"1" * size + longest, length=size + FIELDS_BYTES_MAX + 1))
    assert "3864 bytes" in refusal(block(family, b"", 0x20, FIELDS_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (b"/tmp/\xff", "UTF-8"),
        (b"/tmp/a\nb", "printed"),
        (b"@name", "abstract"),
        (b"\0a\0b", "printed"),
        (b"\0\xff", "UTF-8"),
        (b"\0\0name", "printed"),
    ],
)
def test_names_of_unix_sockets_have_to_be_texts_that_mean_one_thing(path: bytes, why: str) -> None:
    assert why in refusal(block(0x31, paths(path)))
    assert why in refusal(block(0x31, paths(b"/a", path)))


ALL_FIELDS = (
    field(1, b"h2")
    + field(2, "b\xfccher.test".encode())
    + field(4, b"padding")
    + field(5, b"\0id\xff")
    + field(0xE1, b"one")
    + tls(5, 0, field(0x21, b"TLSv1.3"), field(0x22, "Ann\xe9".encode()), field(0x23, b"TLS_AES_128_GCM_SHA256"),
          field(0x24, b"SHA256"), field(0x25, b"RSA2048"), field(0x26, b"X25519"), field(4, b""), field(0x26, b""))
    + field(4, b"")
    + field(0x30, b"netns")
    + field(0xE1, b"two")
)  # fmt: skip
ALL_SAID = Header(
    CLIENT,
    SERVER,
    2,
    alpn="h2",
    authority="b\xfccher.test",
    unique_id=b"\0id\xff",
    tls=TlsInfo(
        version="TLSv1.3",
        cipher="TLS_AES_128_GCM_SHA256",
        verified=True,
        shown=False,
        shown_in_session=True,
        common_name="Ann\xe9",
        signature_algorithm="SHA256",
        key_algorithm="RSA2048",
        others=((0x26, b"X25519"), (4, b""), (0x26, b"")),
    ),
    others=((0xE1, b"one"), (0x30, b"netns"), (0xE1, b"two")),
)


def test_fields_are_read_and_those_that_are_not_known_are_kept() -> None:
    assert header_of(block(0x11, IPV4 + ALL_FIELDS)) == ALL_SAID
    assert header_of(block(0x00, ALL_FIELDS)) == replace(ALL_SAID, source=None, destination=None)


def test_empty_texts_are_as_none() -> None:
    empty = b"".join(field(kind, b"") for kind in (1, 2, 5)) + tls(
        1, 1, *(field(kind, b"") for kind in range(0x21, 0x26))
    )
    assert header_of(block(0x11, IPV4 + empty)) == Header(CLIENT, SERVER, 2, tls=TlsInfo())


@pytest.mark.parametrize(
    ("flags", "result", "info"),
    [
        (0, 0, None),
        (6, 0, None),
        (1, 0, TlsInfo()),
        (1, 1, TlsInfo()),
        (3, 0, TlsInfo(verified=True, shown=True)),
        (5, 0, TlsInfo(verified=True, shown_in_session=True)),
        (7, 0, TlsInfo(verified=True, shown=True, shown_in_session=True)),
        (7, 1, TlsInfo(shown=True, shown_in_session=True)),
        (7, 1 << 31, TlsInfo(shown=True, shown_in_session=True)),
        (0xF9, 0, TlsInfo()),
    ],
)
def test_verified_is_only_who_has_shown_a_certificate_over_tls(flags: int, result: int, info: TlsInfo | None) -> None:
    assert header_of(block(0x11, IPV4 + tls(flags, result))).tls == info


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (b"\x02", "last 1 bytes"),
        (b"\x02\x00", "last 2 bytes"),
        (b"\x02\x00\x01", "has 1 bytes, of which 0"),
        (field(2, b"a.test") + b"\xe0\xff\xff1234", "has 65535 bytes, of which 4"),
        (field(0xE0, b"a")[:-1] + b"", "has 1 bytes, of which 0"),
        (field(2, b"a.test") + field(2, b"a.test"), "two fields of type 0x2"),
        (field(1, b"h2") + field(4, b"") + field(1, b"h2"), "two fields of type 0x1"),
        (field(5, b"") + field(5, b""), "two fields of type 0x5"),
        (tls(0, 0) + tls(0, 0), "two fields of type 0x20"),
        (field(3, bytes(4)) + field(3, bytes(4)), "two fields of type 0x3"),
        (field(1, b"\xff"), "ALPN is not ASCII"),
        (field(1, b"h\n"), "ALPN has characters"),
        (field(2, b"\xff"), "authority is not UTF-8"),
        (field(2, b"a\0.test"), "authority has characters"),
        (field(2, "a\u202e.test".encode()), "authority has characters"),
        (field(5, bytes(129)), "unique id has 129 bytes"),
        (field(0x20, b""), "TLS has 0 bytes"),
        (field(0x20, b"\1\0\0\0"), "TLS has 4 bytes"),
        (tls(1, 0, b"\x21"), "last 1 bytes"),
        (tls(1, 0, b"\x21\0\7TLSv1") + field(2, b"a.test"), "has 7 bytes, of which 5"),
        (tls(0, 0, b"\x21\0\7TLSv1"), "has 7 bytes, of which 5"),
        (tls(1, 0, field(0x22, b"a"), field(0x22, b"b")), "two fields of type 0x22"),
        (tls(1, 0, field(0x21, b"\xff")), "version of TLS is not ASCII"),
        (tls(1, 0, field(0x22, b"\xff")), "common name is not UTF-8"),
        (tls(1, 0, field(0x22, b"a\r\nb")), "common name has characters"),
        (tls(1, 0, field(0x23, b"\xff")), "cipher is not ASCII"),
        (tls(1, 0, field(0x24, b"\xff")), "signature algorithm is not ASCII"),
        (tls(1, 0, field(0x25, b"\xff")), "key algorithm is not ASCII"),
    ],
)
def test_fields_that_are_not_as_they_should_be_are_refused(fields: bytes, why: str) -> None:
    for family, addresses in ((0x11, IPV4), (0x00, b""), (0x31, paths(b"/a"))):
        assert why in refusal(block(family, addresses + fields))


def test_a_unique_id_has_at_most_128_bytes() -> None:
    assert header_of(block(0x11, IPV4 + field(5, bytes(128)))).unique_id == bytes(128)


def with_checksum(before: bytes = b"", behind: bytes = b"", wrong: int = 0) -> bytes:
    begin = block(0x11, IPV4 + before, length=len(IPV4 + before + behind) + 7) + b"\3\0\4"
    checksum = crc32c(begin + bytes(4) + behind) ^ wrong
    return begin + checksum.to_bytes(4, "big") + behind


def test_a_checksum_has_to_be_right() -> None:
    for before, behind in ((b"", b""), (field(1, b"h2"), b""), (b"", field(2, b"a.test")), (field(4, b""), ALL_FIELDS)):
        good = with_checksum(before, behind)
        assert header_of(good).checksum
        for wrong in (1, 1 << 31, 0xFFFFFFFF):
            assert "checksum" in refusal(with_checksum(before, behind, wrong))
        for at in (16, 27):  # an address, and a port
            assert "checksum" in refusal(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])


@pytest.mark.parametrize("value", [b"", bytes(3), bytes(5)])
def test_a_checksum_has_four_bytes(value: bytes) -> None:
    assert "checksum" in refusal(block(0x11, IPV4 + field(3, value)))


def test_five_bytes_are_no_checksum_even_if_the_number_is_right() -> None:
    for number in range(5000):  # one whose last byte is the fifth
        begin = block(0x11, IPV4[:8] + number.to_bytes(4, "big"), length=20) + b"\3\0\5"
        checksum = crc32c(begin + bytes(4) + bytes([number & 0xFF]))
        if checksum & 0xFF == number & 0xFF:
            assert "checksum" in refusal(begin + checksum.to_bytes(5, "big"))
            return
    raise AssertionError("there is one among so many")


# -------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (Header(CLIENT, SERVER, 1), LINE),
        (Header(("::ffff:192.0.2.1", 50000), SERVER, 1), LINE),
        (Header(("2001:DB8::1", 1), ("fe80::1%eth0", 2), 1), b"PROXY TCP6 2001:db8::1 fe80::1 1 2\r\n"),
        (Header(CLIENT, ("::1", 443), 1), b"PROXY TCP6 ::ffff:c000:201 ::1 50000 443\r\n"),
        (Header(("::1", 1), ("1.0.0.0", 2), 1), b"PROXY TCP6 ::1 ::ffff:100:0 1 2\r\n"),
        (Header(None, None, 1), b"PROXY UNKNOWN\r\n"),
        (Header("/a", "/b", 1), b"PROXY UNKNOWN\r\n"),
        (Header(CLIENT, None, 1), b"PROXY UNKNOWN\r\n"),
        (replace(ALL_SAID, version=1, checksum=True), LINE),
        (Header(CLIENT, SERVER), block(0x11, IPV4)),
        (Header(("::ffff:192.0.2.1", 50000), SERVER), block(0x11, IPV4)),
        (Header(CLIENT, ("::1", 443)),
         block(0x21, bytes(10) + b"\xff\xff\xc0\0\2\1" + bytes(15) + b"\1\xc3\x50\1\xbb")),
        (Header(("::1", 443), CLIENT),
         block(0x21, bytes(15) + b"\1" + bytes(10) + b"\xff\xff\xc0\0\2\1" + b"\1\xbb\xc3\x50")),
        (Header("/a", ""), block(0x31, paths(b"/a", b""))),
        (Header("@a", "/b"), block(0x31, paths(b"\0a", b"/b"))),
        (Header(None, None), block(0x00, b"", 0x20)),
        (Header(None, None, authority="a.test", checksum=True), block(0x00, b"", 0x20)),
        (Header(CLIENT, None), block(0x00, b"", 0x20)),
        (Header(None, SERVER), block(0x00, b"", 0x20)),
        (Header("/a", SERVER), block(0x00, b"", 0x20)),
        (Header(CLIENT, "/a"), block(0x00, b"", 0x20)),
        (Header(("a.test", 1), SERVER), block(0x00, b"", 0x20)),
        (Header(CLIENT, ("", 443)), block(0x00, b"", 0x20)),
        (Header("/a", "/b" * 55), block(0x00, b"", 0x20)),
        (Header("@" + "a" * 108, "/b"), block(0x00, b"", 0x20)),
        (Header("@", "/b"), block(0x00, b"", 0x20)),
        (Header("/a\0", "/b"), block(0x00, b"", 0x20)),
        (Header("/a\udcff", "/b"), block(0x00, b"", 0x20)),
        (Header(CLIENT, SERVER, tls=TlsInfo(verified=True)), block(0x11, IPV4 + tls(5, 0))),
        (Header(CLIENT, SERVER, tls=TlsInfo(verified=True, shown=True)), block(0x11, IPV4 + tls(3, 0))),
        (Header(CLIENT, SERVER, tls=TlsInfo(version="TLSv1.3", shown=True)),
         block(0x11, IPV4 + tls(3, 1, field(0x21, b"TLSv1.3")))),
    ],
)  # fmt: skip
def test_what_is_written(header: Header, data: bytes) -> None:
    assert to_bytes(header) == data
    header_of(data)


def test_all_that_can_be_said_comes_through() -> None:
    for header in (ALL_SAID, replace(ALL_SAID, checksum=True), replace(ALL_SAID, source="/a", destination="@b")):
        assert header_of(to_bytes(header)) == header


def test_the_longest_header_that_is_written_can_be_read() -> None:
    room = FIELDS_BYTES_MAX - 3
    for source, destination in ((CLIENT, SERVER), ("/a", "/b")):
        longest = Header(source, destination, others=((0xE0, bytes(room)),))
        assert header_of(to_bytes(longest)) == longest
    for size in (room + 1, 70_000):
        with pytest.raises(ValueError, match=rf"the fields have {3 + size} bytes; .* may have 3864"):
            to_bytes(Header(CLIENT, SERVER, others=((0xE0, bytes(size)),)))
    with pytest.raises(ValueError, match="may have 3864"):
        to_bytes(Header(CLIENT, SERVER, tls=TlsInfo(others=((0x28, bytes(70_000)),))))
    with pytest.raises(ValueError, match="have 3871 bytes"):
        to_bytes(replace(longest, checksum=True))


@pytest.mark.parametrize(
    ("made_of", "why"),
    [
        ({"version": 3}, "version is 3; the PROXY protocol has 1 and 2"),
        ({"source": ("192.0.2.1", 65536)}, "65536 is no port"),
        ({"destination": ("192.0.2.1", -1)}, "-1 is no port"),
        ({"alpn": "h2\n"}, r"alpn is 'h2\n'; it must be printable ASCII"),
        ({"alpn": "\xe9"}, "alpn is '\xe9'; it must be printable ASCII"),
        ({"authority": "a\0"}, r"authority is 'a\x00'; it must be printable"),
        ({"unique_id": bytes(129)}, "unique_id has 129 bytes; it may have 128"),
        ({"others": ((1, b"h2"),)}, "type 0x1,"),
        ({"others": ((0x20, b""),)}, "type 0x20,"),
        ({"others": ((0xE0, b""), (256, b""))}, "type 0x100,"),
        ({"others": ((-1, b""),)}, "type -0x1,"),
    ],
)
def test_what_cannot_be_said_is_no_header(made_of: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        replace(Header(CLIENT, SERVER), **made_of)


@pytest.mark.parametrize(
    "made_of",
    [{"version": "\xe9"}, {"cipher": "a\n"}, {"common_name": "\n"}, {"signature_algorithm": "\xe9"},
     {"key_algorithm": "\xe9"}, {"others": ((0x22, b""),)}, {"others": ((256, b""),)}],
)  # fmt: skip
def test_nor_what_cannot_be_said_of_tls(made_of: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{next(iter(made_of))} (is|has) "):
        TlsInfo(**made_of)
