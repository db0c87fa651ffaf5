"""Our reading and writing of the PROXY protocol beside the package proxy-protocol's, both ways; where they differ, why.

That package reads what it can use and lets pass what it need not look at, and so does not see most that is malformed;
ours refuses it. The only other way round: it takes the path of a Unix socket for ASCII, and so refuses others.
(It would look at checksums with another package, `crc32c`, that is not installed; HAProxy judges ours, among the
interop tests.)
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from socket import SOCK_STREAM
from typing import Final, TypeAlias

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from proxyprotocol import ProxyProtocolIncompleteError, ProxyProtocolSyntaxError
from proxyprotocol.detect import ProxyProtocolDetect
from proxyprotocol.result import (
    ProxyResult,
    ProxyResultIPv4,
    ProxyResultIPv6,
    ProxyResultLocal,
    ProxyResultUnix,
    ProxyResultUnknown,
)
from proxyprotocol.tlv import ProxyProtocolSSLTLV, ProxyProtocolTLV, Type
from proxyprotocol.v1 import ProxyProtocolV1
from proxyprotocol.v2 import ProxyProtocolV2

from coulee.core.proxy_protocol import Header, HeaderError, TlsInfo, read_header, to_bytes
from coulee.core.seam import Address

ports = st.integers(0, 65535)
ipv4 = st.tuples(st.ip_addresses(v=4).map(lambda ip: IPv4Address(int(ip))), ports)
ipv6 = st.tuples(st.ip_addresses(v=6).map(lambda ip: IPv6Address(int(ip))), ports)
ascii_texts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12)
texts = st.text(max_size=12).filter(str.isprintable)
custom = st.dictionaries(st.integers(0xE0, 0xEF), st.binary(max_size=9), max_size=3)


@st.composite
def their_tls(draw: st.DrawFn) -> ProxyProtocolSSLTLV:
    return ProxyProtocolSSLTLV(
        has_ssl=draw(st.booleans()),
        has_cert_conn=draw(st.booleans()),
        has_cert_sess=draw(st.booleans()),
        verified=draw(st.booleans()),
        version=draw(ascii_texts),
        cn=draw(texts),
        cipher=draw(ascii_texts),
        sig_alg=draw(ascii_texts),
        key_alg=draw(ascii_texts),
    )


@st.composite
def their_fields(draw: st.DrawFn) -> ProxyProtocolTLV:
    return ProxyProtocolTLV(
        init=draw(custom),
        alpn=draw(ascii_texts).encode(),
        authority=draw(texts),
        unique_id=draw(st.binary(max_size=128)),
        ssl=draw(their_tls()),
    )


@st.composite
def their_results(draw: st.DrawFn, version: int) -> ProxyResult:
    """What they can say."""
    fields = draw(their_fields()) if version == 2 else ProxyProtocolTLV()
    protocol = SOCK_STREAM if version == 2 else None
    match draw(st.sampled_from(["ipv4", "ipv6", "unix", "local"] if version == 2 else ["ipv4", "ipv6", "unknown"])):
        case "ipv4":
            return ProxyResultIPv4(draw(ipv4), draw(ipv4), protocol=protocol, tlv=fields)
        case "ipv6":
            return ProxyResultIPv6(draw(ipv6), draw(ipv6), protocol=protocol, tlv=fields)
        case "unix":
            paths = [draw(ascii_texts.filter(lambda path: path[:1] != "@")) for _ in range(2)]
            return ProxyResultUnix(*paths, protocol=protocol, tlv=fields)
        case "local":
            return ProxyResultLocal(tlv=fields)
        case _:
            return ProxyResultUnknown()


Said: TypeAlias = tuple[Address | None, Address | None]


def addresses_of(result: ProxyResult) -> Said:
    """As ours are: an IPv4 address in IPv6 clothes is an IPv4 address."""

    def shown(address: object) -> Address | None:
        match address:
            case (IPv4Address() | IPv6Address() as ip, int(port)):
                mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
                return str(mapped or ip), port
            case str():
                return f"@{address[1:]}" if address.startswith("\0") else address.partition("\0")[0]
            case _:
                return None

    return shown(result.source), shown(result.dest)


def assert_same(header: Header, result: ProxyResult) -> None:
    """That both say the same, where something is said of a client at all."""
    assert (header.source, header.destination) == addresses_of(result)
    if isinstance(result, ProxyResultLocal | ProxyResultUnknown):
        return
    fields = result.tlv
    assert header.alpn.encode() == (fields.alpn or b"")
    assert header.authority == (fields.authority or "")
    assert header.unique_id == fields.unique_id
    assert dict(header.others) == {
        kind: value
        for kind, value in fields.items()
        if kind not in (Type.PP2_TYPE_ALPN, Type.PP2_TYPE_AUTHORITY, Type.PP2_TYPE_CRC32C, Type.PP2_TYPE_NOOP,
                        Type.PP2_TYPE_UNIQUE_ID, Type.PP2_TYPE_SSL)
    }  # fmt: skip
    tls = fields.ssl
    assert (header.tls is not None) == tls.has_ssl
    if header.tls is not None:
        shown = tls.has_cert_conn or tls.has_cert_sess
        assert header.tls == TlsInfo(
            version=tls.version or "",
            cipher=tls.cipher or "",
            verified=tls.verified and shown,  # they have it also where there was nothing to verify
            shown=tls.has_cert_conn,
            shown_in_session=tls.has_cert_sess,
            common_name=tls.cn or "",
            signature_algorithm=tls.sig_alg or "",
            key_algorithm=tls.key_alg or "",
            others=header.tls.others,
        )


def read(data: bytes) -> Header:
    found = read_header(data)
    assert found is not None
    assert found[1] == len(data)
    return found[0]


@given(their_results(1))
def test_we_read_their_lines(result: ProxyResult) -> None:
    """They write the dots of an IPv4 address in IPv6 clothes or do not, as the version of Python has it."""
    header = read(ProxyProtocolV1().pack(result))
    assert header.version == 1
    assert_same(header, result)


@given(their_results(2))
def test_we_read_their_blocks(result: ProxyResult) -> None:
    header = read(ProxyProtocolV2().pack(result))
    assert header.version == 2
    assert_same(header, result)


@st.composite
def our_headers(draw: st.DrawFn) -> Header:
    """What we can say. They have no two fields of a type, and know no name of a socket that is not ASCII."""
    ips = draw(st.sampled_from([st.ip_addresses(v=4), st.ip_addresses(v=6), st.ip_addresses()])).map(str)
    paths = ascii_texts.filter(lambda path: path[:1] != "@") | ascii_texts.filter(bool).map("@{}".format)
    kinds: list[st.SearchStrategy[Address | None]] = [st.tuples(ips, ports), paths, st.none()]
    address = draw(st.sampled_from(kinds))
    source, destination = draw(address), draw(address)
    if draw(st.booleans()):
        return Header(source, destination, 1)
    tls = TlsInfo(
        version=draw(ascii_texts),
        cipher=draw(ascii_texts),
        verified=draw(st.booleans()),
        shown=draw(st.booleans()),
        shown_in_session=draw(st.booleans()),
        common_name=draw(texts),
        signature_algorithm=draw(ascii_texts),
        key_algorithm=draw(ascii_texts),
    )
    return Header(
        source,
        destination,
        2,
        alpn=draw(ascii_texts),
        authority=draw(texts),
        unique_id=draw(st.binary(max_size=128)),
        tls=draw(st.sampled_from([tls, None])),
        others=tuple(draw(custom).items()),
        checksum=draw(st.booleans()),
    )


@given(our_headers())
def test_they_read_what_we_write(header: Header) -> None:
    data = to_bytes(header)
    result = ProxyProtocolDetect().unpack(data)
    assert_same(read(data), result)


# ---------------------------------------------------------------------------------------------- what is malformed

WE_REFUSE: Final = {
    "family and protocol are 0x[0-3]2,": "they let datagrams pass, which no connection here can be",
    "family and protocol are ": "they take what nobody has specified for UNKNOWN; receivers are to reject it",
    "more than 3864 bytes|more than 107 bytes|no end of a line in the first 107": "they have no bound",
    "the last [12] bytes are too few|bytes, of which [0-9]+ are there": "they drop what is left of fields that overrun",
    "there are two fields": "they take the last one, and others the first",
    "checksum": "they need another package to see it",
    "the field about TLS has [0-4] bytes": "they go on with what they assume",
    "unique id has": "they have no bound",
    "ALPN": "to them it is bytes",
    "cannot be printed|is not UTF-8|is not ASCII": "they decode a field when somebody asks, control characters too",
    "reads like an abstract name": "they do not tell names from paths",
    "is no port": "they have `int`, which takes signs, underscores, spaces and leading zeros",
    "%.* is no address of TCP6": "they let pass zones, which mean nothing elsewhere",
}
"""Why we refuse what they accept, by what we say of it."""

THEY_REFUSE: Final = {
    "codec can't decode": "a Unix socket's name is ASCII to them",
}
"""And why they refuse what we accept."""


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A header with up to three things changed in it."""
    packed = st.one_of(
        their_results(1).map(ProxyProtocolV1().pack), their_results(2).map(ProxyProtocolV2().pack),
        our_headers().map(to_bytes),
    )  # fmt: skip
    data = bytearray(draw(packed))
    pieces = st.sampled_from(
        [b"\0", b" ", b"0", b"+", b"_", b"%1", b"\xff", b"\x12", b"\x02\0\1a", b"\x03\0\4abcd", b":"]
    )
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(pieces | st.binary(max_size=2))
    return bytes(data)


def theirs(data: bytes) -> ProxyResult | str | None:
    """What they make of it, or what is wrong with it. More bytes than a header says that it has are no part of it."""
    try:
        if data.startswith(b"PROXY") and b"\r\n" in data:
            data = data[: data.index(b"\r\n") + 2]
        elif len(data) >= 16:
            data = data[: 16 + int.from_bytes(data[14:16], "big")]
        return ProxyProtocolDetect().unpack(data)
    except ProxyProtocolIncompleteError:
        return None
    except (ProxyProtocolSyntaxError, ValueError) as error:  # they let others' through, as those of `int` and `decode`
        return str(error) or type(error).__name__
    except Exception as error:  # and those of `struct`, where an address is cut short
        return f"{type(error).__name__}: {error}"


def ours(data: bytes) -> tuple[Header | None, str]:
    """What we make of it, if it is whole, and what is wrong with it."""
    try:
        found = read_header(data)
    except HeaderError as error:
        return None, str(error)
    return (found[0] if found is not None else None), ""


LINE, BLOCK = (to_bytes(Header(("1.2.3.4", 1), ("1.2.3.5", 2), version)) for version in (1, 2))


def with_fields(fields: bytes) -> bytes:
    return BLOCK[:14] + (12 + len(fields)).to_bytes(2, "big") + BLOCK[16:] + fields


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (BLOCK.replace(b"\x21\x11", b"\x21\x12"), 0),
        (BLOCK.replace(b"\x21\x11", b"\x21\x41"), 1),
        (BLOCK.replace(b"\x21\x11", b"\x21\x01"), 1),
        (b"PROXY UNKNOWN" + b" " * 100 + b"\r\n", 2),
        (with_fields(b"\xe0\x10\0" + bytes(4096)), 2),
        (with_fields(b"\xe0\0"), 3),
        (with_fields(b"\xe0\0\2a"), 3),
        (with_fields(b"\2\0\1a\2\0\1b"), 4),
        (with_fields(b"\3\0\4abcd"), 5),
        (with_fields(b"\x20\0\4abcd"), 6),
        (with_fields(b"\5\0\x81" + bytes(129)), 7),
        (with_fields(b"\1\0\1\xff"), 8),
        (with_fields(b"\2\0\2a\n"), 9),
        (with_fields(b"\2\0\1\xff"), 9),
        (to_bytes(Header("/tmp/a", "/tmp/b")).replace(b"/tmp/a", b"@tmp/a"), 10),
        (LINE.replace(b" 1 2", b" +1 0_2"), 11),
        (LINE.replace(b" 1 2", b" 01 2"), 11),
        (b"PROXY TCP6 fe80::1%1 ::1 1 1\r\n", 12),
    ],
)
def test_what_they_accept_and_we_refuse(data: bytes, number: int) -> None:
    assert isinstance(theirs(data), ProxyResult)
    with pytest.raises(HeaderError, match=list(WE_REFUSE)[number]):
        read_header(data)


@pytest.mark.parametrize("path", ["/tmp/\xe9", "@\u0101"])
def test_what_we_accept_and_they_refuse(path: str) -> None:
    data = to_bytes(Header(path, "/tmp/b"))
    assert read(data).source == path
    with pytest.raises(UnicodeDecodeError, match=next(iter(THEY_REFUSE))):
        ProxyProtocolV2().unpack(data)


@given(damaged())
def test_where_one_refuses_what_the_other_accepts_there_is_a_reason(data: bytes) -> None:
    result = theirs(data)
    found, why = ours(data)
    if why:  # they may well wait for more of it
        agreed = not isinstance(result, ProxyResult)
        assert agreed or any(re.search(reason, why) for reason in WE_REFUSE), (why, result)
        return
    assume(found is not None)
    assert found is not None
    if isinstance(result, ProxyResult):
        assert (found.source, found.destination) == addresses_of(result)
    else:
        assert result is not None
        assert any(re.search(reason, result) for reason in THEY_REFUSE), (found, result)
