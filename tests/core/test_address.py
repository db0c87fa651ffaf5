"""Addresses as people write them."""

from __future__ import annotations

import pytest

from coulee.core.address import parse_address, show_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("example.com:80", ("example.com", 80)),
        (":8000", ("", 8000)),
        ("[::1]:8000", ("::1", 8000)),
        ("a:0", ("a", 0)),
        ("a:65535", ("a", 65535)),
        ("unix:/run/a.sock", "/run/a.sock"),
        ("unix:a.sock", "./a.sock"),
        ("/run/a.sock", "/run/a.sock"),
        ("./a.sock", "./a.sock"),
        ("unix:@a", "@a"),
        ("@a", "@a"),
        ("@a/b", "@a/b"),
        ("unix:@@", "@@"),
        ("unix:a@b", "./a@b"),
        ("unix:/" + "p" * 106, "/" + "p" * 106),
        ("@" + "p" * 107, "@" + "p" * 107),
    ],
)
def test_addresses_are_read(text: str, address: object) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("8000", "127.0.0.1:8000"),
        ("example.com", "example.com:8000"),
        ("", "127.0.0.1:8000"),
        ("a:", "a number from 0 to 65535"),
        ("a:x", "a number from 0 to 65535"),
        ("a:65536", "a number from 0 to 65535"),
        ("a:-1", "a number from 0 to 65535"),
        ("a:\u0661", "a number from 0 to 65535"),  # a digit, to Python
        ("::1:8000", "in brackets"),
        ("[a:80", "in brackets"),
        ("[a]:80", "without brackets"),
        ("unix:", "unix:/run/coulee.sock"),
        ("unix:@", "'unix:/run/coulee.sock' or 'unix:@coulee'"),
        ("@", "'unix:/run/coulee.sock' or 'unix:@coulee'"),
        ("unix:/a\0b", "'/a\\x00b' names no Unix socket"),
        ("/a\0b", "'/a\\x00b' names no Unix socket"),
        ("@a\0b", "'@a\\x00b' names no Unix socket"),
        ("/" + "p" * 107, "it has 108 bytes of 107; write a shorter one"),
        ("unix:" + "p" * 106, "it has 108 bytes of 107; write a shorter one"),
        ("@" + "p" * 108, "it has 108 bytes of 107; write a shorter one"),
        ("/" + "\u00e9" * 54, "it has 109 bytes of 107"),
        ("/" + "\udcff" * 107, "it has 108 bytes of 107"),
        ("http://a:80", "without 'http://'"),
    ],
)
def test_what_is_no_address_is_told_how_to_be_one(text: str, advice: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        parse_address(text)
    assert advice in str(raised.value)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80), "[::1]:80"),
        (("", 80), ":80"),
        ("/run/a.sock", "/run/a.sock"),
        ("./a.sock", "./a.sock"),
        ("@a", "@a"),
    ],
)
def test_addresses_are_shown_as_they_can_be_read(address: tuple[str, int] | str, text: str) -> None:
    assert show_address(address) == text
    assert parse_address(text) == address
