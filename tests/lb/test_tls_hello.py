"""The ClientHello, taken apart again; and what a server may answer, whole and in pieces."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.lb.health import CheckFailed
from coulee.lb.tls_hello import client_hello, is_server_hello

SERVER_HELLO = bytes.fromhex("160303007a020000760303") + bytes(32)
WARNING = bytes.fromhex("15030100020170")  # unrecognized_name, and it goes on


def take(data: bytes, width: int) -> tuple[bytes, bytes]:
    """What stands behind its length of `width` bytes, and the rest."""
    length = int.from_bytes(data[:width], "big")
    assert len(data) >= width + length
    return data[width : width + length], data[width + length :]


def words(data: bytes) -> list[int]:
    """Numbers of two bytes."""
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


def extensions_of(hello: bytes) -> dict[int, bytes]:
    """The extensions of a ClientHello in its record, each once, whose every length is right."""
    assert hello[:3] == b"\x16\3\1"
    message, rest = take(hello[3:], 2)
    assert (message[:1], rest) == (b"\1", b"")
    body, rest = take(message[1:], 3)
    assert (body[:2], rest) == (b"\3\3", b"")
    session, rest = take(body[34:], 1)
    assert len(session) == 32
    suites, rest = take(rest, 2)
    assert {0x1301, 0xC02F, 0x002F} <= {*words(suites)}
    compressions, rest = take(rest, 1)
    assert compressions == b"\0"
    listed, rest = take(rest, 2)
    assert rest == b""
    found: dict[int, bytes] = {}
    while listed:
        number, listed = listed[:2], listed[2:]
        assert words(number)[0] not in found
        found[words(number)[0]], listed = take(listed, 2)
    return found


def test_the_hello_offers_both_versions_and_a_key() -> None:
    found = extensions_of(client_hello(Random(0)))
    assert words(take(found[43], 1)[0]) == [0x0304, 0x0303]
    shares, rest = take(found[51], 2)
    assert rest == b""
    assert words(shares[:2]) == [0x001D]
    assert len(take(shares[2:], 2)[0]) == 32
    assert 0x001D in words(take(found[10], 2)[0])
    assert {0x0403, 0x0804, 0x0401} <= {*words(take(found[13], 2)[0])}
    assert found[11] == b"\1\0"
    assert found[23] == b""
    assert found[0xFF01] == b"\0"
    assert 0 not in found


def test_the_hello_names_the_server() -> None:
    names, rest = take(extensions_of(client_hello(Random(0), "a.example"))[0], 2)
    assert (names[:1], rest) == (b"\0", b"")
    assert take(names[1:], 2) == (b"a.example", b"")


def test_equal_seeds_say_the_same_hello() -> None:
    assert client_hello(Random(1)) == client_hello(Random(1))
    assert client_hello(Random(1)) != client_hello(Random(2))


@pytest.mark.parametrize("answer", [SERVER_HELLO, WARNING + SERVER_HELLO])
def test_a_server_hello_is_known_as_soon_as_it_can_be(answer: bytes) -> None:
    known = [is_server_hello(answer[:length]) for length in range(len(answer) + 1)]
    assert known == [False] * known.count(False) + [True] * known.count(True)
    assert known.index(True) == len(answer) - len(SERVER_HELLO) + 7


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ("15030300020228", "TLS alert: handshake_failure (40)"),
        ("15030100020246", "TLS alert: protocol_version (70)"),
        ("15030300020270", "TLS alert: unrecognized_name (112)"),
        ("15030300020100", "TLS alert: close_notify (0)"),
        ("150303000202fe", "TLS alert: alert (254)"),
        ("1503010002017015030100020170", "TLS alert: unrecognized_name (112)"),
        ("16030300040e000000", "not TLS: a handshake message of type 14 in place of a ServerHello"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".hex(), "not TLS: HTTP/1.1 400 Bad Request"),
        ("16", None),
        ("1604", "not TLS: \\x16\\x04"),
        ("1504", "not TLS: \\x15\\x04"),
        ("00", "not TLS: \\x00"),
        ("17030300020000", "not TLS: \\x17\\x03\\x03\\x00\\x02\\x00\\x00"),
        ("1503010002017048", "not TLS: H"),
    ],
)
def test_anything_else_says_what_it_is(answer: str, cause: str | None) -> None:
    data = bytes.fromhex(answer)
    if cause is None:
        assert not is_server_hello(data)
    else:
        with pytest.raises(CheckFailed) as error:
            is_server_hello(data)
        assert str(error.value) == cause


@given(st.one_of(st.binary(max_size=40), st.binary(max_size=20).map(lambda tail: b"\x15\3" + tail)))
def test_no_bytes_are_undecided_for_long(data: bytes) -> None:
    try:
        undecided = not is_server_hello(data)
    except CheckFailed:
        return
    assert not undecided or len(data) < 14
