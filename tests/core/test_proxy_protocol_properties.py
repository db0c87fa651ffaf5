"""Headers of the PROXY protocol: whatever is said comes through in any pieces, and whatever else comes is an error."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address, ip_address

from hypothesis import example, given
from hypothesis import strategies as st

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
from tests.core.test_entrance import BALANCER, GET, TRUSTED, make, reasons
from tests.core.test_proxy_protocol import SIGNATURE, header_of

ips = st.ip_addresses().map(str) | st.ip_addresses(v=4).map(lambda ip: f"::ffff:{ip}")
ports = st.integers(0, 65535)
texts = st.text(max_size=12).filter(str.isprintable)
words = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
names = texts.filter(lambda text: text[:1] != "@")


def others(*known: int) -> st.SearchStrategy[tuple[tuple[int, bytes], ...]]:
    kinds = st.integers(0, 255).filter(lambda kind: kind not in known)
    return st.lists(st.tuples(kinds, st.binary(max_size=9)), max_size=3).map(tuple)


infos = st.builds(
    TlsInfo, version=words, cipher=words, verified=st.booleans(), shown=st.booleans(), shown_in_session=st.booleans(),
    common_name=texts, signature_algorithm=words, key_algorithm=words, others=others(*range(0x21, 0x26)),
)  # fmt: skip
hosts = st.tuples(ips, ports)
pairs: list[st.SearchStrategy[tuple[Address | None, Address | None]]] = [
    st.just((None, None)),
    st.tuples(hosts, hosts),
    st.tuples(names | texts.filter(bool).map("@{}".format), names),
]
addresses = st.one_of(pairs)
fields = others(1, 2, 3, 4, 5, 0x20)


@st.composite
def blocks(draw: st.DrawFn) -> Header:
    return Header(*draw(addresses), 2, draw(words), draw(texts), draw(st.binary(max_size=128)),
                  draw(st.none() | infos), draw(fields), draw(st.booleans()))  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> Header:
    return Header(*draw(addresses), 1)


headers = blocks() | lines()


def as_read(header: Header) -> Header:
    """Of what is written, what the other side is told."""

    def told(address: Address | None) -> Address | None:
        if not isinstance(address, tuple):
            return address if header.version == 2 else None
        ip = ip_address(address[0])
        return str((ip.ipv4_mapped if isinstance(ip, IPv6Address) else None) or ip), address[1]

    both = told(header.source), told(header.destination)
    if header.version == 1 or header.source is None:
        return Header(*both, header.version)
    return replace(header, source=both[0], destination=both[1])


def outcome(data: bytes) -> tuple[Header, int] | str | None:
    try:
        return read_header(data)
    except HeaderError as error:
        return str(error)


@given(headers)
def test_what_is_written_is_read(header: Header) -> None:
    data = to_bytes(header)
    assert len(data) <= (LINE_BYTES_MAX if header.version == 1 else 16 + 216 + FIELDS_BYTES_MAX)
    assert header_of(data) == as_read(header)


@given(headers, st.binary(max_size=20), st.data())
def test_however_it_is_split_it_is_the_same(header: Header, behind: bytes, draw: st.DataObject) -> None:
    data = to_bytes(header)
    whole = read_header(data)
    cuts = range(len(data)) if len(data) < 200 else draw.draw(st.lists(st.integers(0, len(data) - 1), max_size=50))
    for cut in cuts:
        assert read_header(data[:cut]) is None
    assert read_header(data + behind) == whole


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A header with a few things changed in it, so that it may be none."""
    data = bytearray(to_bytes(draw(headers)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "insert", "remove", "double", "cut"])):
            case "change":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "insert":
                data.insert(at, draw(st.integers(0, 255)))
            case "remove":
                del data[at : at + 1]
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case _:
                del data[at:]
    return bytes(data)


@given(damaged())
def test_whatever_is_changed_in_it_there_is_a_header_or_an_error(data: bytes) -> None:
    """And what is known to be wrong stays wrong, and what has been read stays read, whatever comes behind it."""
    final = outcome(data)
    for cut in range(0, len(data), 1 + len(data) // 40):
        before = outcome(data[:cut])
        assert before is None or before == final or (isinstance(before, str) and isinstance(final, str))
    if isinstance(final, tuple):
        assert 0 < final[1] <= len(data)
        said = final[0]
        for passed_on in (said, replace(said, source="/a", destination="/b")):
            assert header_of(to_bytes(passed_on)) == as_read(passed_on)


@given(st.sampled_from([SIGNATURE, SIGNATURE + b"\x21", SIGNATURE + b"\x21\x00\x00", b"PROXY ", b"PROXY TCP6 "]),
       st.binary(max_size=300))  # fmt: skip
@example(SIGNATURE, b"\x21\x00\x00\x03\x02\x00\x00")
def test_rubbish_is_refused_or_waited_for(begin: bytes, rubbish: bytes) -> None:
    found = outcome(begin + rubbish)
    if isinstance(found, tuple):
        assert found[1] <= len(begin + rubbish)


LETTERS = b"0123456789abcdefF:. \r\nPROXYTCUNKWGET/\0\x20\x21\x11\x31Q\xff"


@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP4 1.2.3.4 ", b"PROXY TCP6 ", b"PROXY TCP6 ::1 ",
                        b"PROXY TCP6 1:2:3:4:5:6:", b"PROXY TCP4 1.1.1.1 1.1.1.1 ", SIGNATURE, SIGNATURE + b"\x21"]),
       st.lists(st.sampled_from(LETTERS), max_size=30))  # fmt: skip
def test_whoever_is_waited_for_can_still_say_it(data: bytes, choices: list[int]) -> None:
    """There is always a byte that leads on, so in the end, since a header has a bound, there is a header."""
    for choice in [*choices, *LETTERS]:
        wait = outcome(data + bytes([choice]))
        if isinstance(wait, tuple):
            return
        if wait is None:
            data += bytes([choice])
            if len(data) >= 16 and data[0] == 0x0D:
                return  # what is in a block is judged when it is whole
            assert any(not isinstance(outcome(data + bytes([byte])), str) for byte in LETTERS), data


@given(damaged(), st.lists(st.integers(1, 40), max_size=5))
@example(SIGNATURE, [])
@example(b"PROXY TCP4 1.2.3.4", [3])
def test_at_a_door_there_is_a_client_or_a_reason(data: bytes, sizes: list[int]) -> None:
    """Whatever comes, in whatever pieces: who is not let in is told nothing, and is gone when time is up."""
    whole = outcome(data + GET)
    world = make(proxied=TRUSTED)
    client = world.client(BALANCER)
    rest = data + GET
    for size in [*sizes, len(rest)]:
        if client not in world.closed and rest[:size]:
            world.receives(client, rest[:size])
            rest = rest[size:]
    if isinstance(whole, tuple):
        assert not reasons(world)
        if whole[1] == len(data):
            source = whole[0].source
            assert f"{BALANCER if source is None else source} http".encode() in world.sent(client)
        return
    world.wait(3.1)
    assert client in world.closed
    assert not world.sent(client)
    assert not world.access
    assert reasons(world) == ["proxy_header_timeout" if whole is None else "proxy_header_invalid"]
    world.leaves_nothing()
