"""Which name is for which host (RFC 9525)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.server_names import covers, is_ip, normalized, wildcard_for


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("a.test", "a.test"), ("A.Test", "a.tEST"), ("a.test.", "a.test"), ("a.test", "a.test."),
        ("*.a.test", "b.a.test"), ("*.A.test", "B.a.test."), ("localhost", "localhost"),
        ("10.0.0.1", "10.0.0.1"), ("::1", "[::1]"), ("[::1]", "::1"), ("2001:db8::1", "2001:DB8:0::0001"),
    ],
)  # fmt: skip
def test_a_name_that_covers_a_host(name: str, host: str) -> None:
    assert covers(["other.test", name], host)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("a.test", "b.test"), ("a.test", "b.a.test"), ("b.a.test", "a.test"), ("a.test", ""), ("", ""), ("", "a.test"),
        ("a.test", "a.test.."), ("*.a.test", "a.test"), ("*.a.test", "c.b.a.test"), ("*.a.test", ".a.test"),
        ("*.test", "a.test"), ("*", "test"), ("*", "a.test"), ("b*.a.test", "bc.a.test"), ("*c.a.test", "bc.a.test"),
        ("a.*.test", "a.b.test"), ("*.*.test", "a.b.test"), ("*.0.0.1", "10.0.0.1"), ("10.0.0.1", "10.0.0.10"),
        ("::1", "::2"), ("127.0.0.1", "::ffff:127.0.0.1"), ("a.test", "10.0.0.1"), ("10.0.0.1", "a.test"),
        ("10.0.0.1", "010.0.0.1"),
    ],
)  # fmt: skip
def test_a_name_that_does_not(name: str, host: str) -> None:
    assert not covers([name], host)


def test_no_names_cover_nothing() -> None:
    assert not covers([], "a.test")


@pytest.mark.parametrize(
    ("host", "wildcard"),
    [("b.a.test", "*.a.test"), ("c.b.a.test", "*.b.a.test"), ("a.test", ""), ("test", ""), ("", ""), (".a.test", ""),
     ("10.0.0.1", ""), ("a.", ""), ("1.a.test1", "*.a.test1")],
)  # fmt: skip
def test_the_wildcard_for_a_host(host: str, wildcard: str) -> None:
    assert wildcard_for(host) == wildcard


@pytest.mark.parametrize(
    ("host", "result"),
    [("A.Test", "a.test"), ("a.test.", "a.test"), ("[::1]", "::1"), ("[a", "[a"), ("a]", "a]"), ("", "")],
)
def test_a_host_as_it_is_compared(host: str, result: str) -> None:
    assert normalized(host) == result


@given(st.ip_addresses())
def test_an_address_is_one_however_it_is_written(address: IPv4Address | IPv6Address) -> None:
    for text in (str(address), address.exploded, address.exploded.upper(), f"[{address}]"):
        assert is_ip(text)
        assert covers([str(address)], text)
        assert covers([text], str(address))


@given(st.text(st.sampled_from("01a:.%[]g٣"), max_size=12))
def test_nothing_else_is_an_address(text: str) -> None:
    try:
        ip_address(normalized(text))
    except ValueError:
        assert not is_ip(text)
    else:
        assert is_ip(text)
