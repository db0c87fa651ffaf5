"""CONNECT: what a target is, and who may go where."""

from __future__ import annotations

from ipaddress import ip_address
from socket import inet_aton
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.forward import Forward, read_target

FORWARD = Forward(hosts=("*.example.com", "api.internal", "10.0.0.0/8", "fd00::/8"), ports=(443, 8443))


# -------------------------------------------------------------------------------------------------------- the list


@pytest.mark.parametrize(
    ("host", "port", "allowed"),
    [
        ("api.internal", 443, True),
        ("api.internal", 8443, True),
        ("api.internal", 80, False),
        ("internal", 443, False),
        ("xapi.internal", 443, False),
        ("x.api.internal", 443, False),
        ("a.example.com", 443, True),
        ("a.b.example.com", 443, True),
        ("example.com", 443, False),
        ("aexample.com", 443, False),
        ("a.example.com.evil.net", 443, False),
        ("a.example.com", 22, False),
        ("10.1.2.3", 443, True),
        ("11.1.2.3", 443, False),
        ("10.1.2.3", 25, False),
        ("fd12::1", 443, True),
        ("fe80::1", 443, False),
        ("localhost", 443, False),
    ],
)
def test_who_may_go_where(host: str, port: int, allowed: bool) -> None:
    assert FORWARD.allows(host, port) is allowed


def test_a_star_is_every_name_and_no_address() -> None:
    anywhere = Forward(hosts=("*", "192.0.2.1"))
    assert anywhere.allows("a.test", 443)
    assert not anywhere.allows("a.test", 80)
    assert anywhere.allows("192.0.2.1", 443)
    for ip in ("93.184.216.34", "127.0.0.1", "2606:4700::1", "::1"):
        assert not anywhere.allows(ip, 443)


@pytest.mark.parametrize(
    ("host", "at", "allowed"),
    [
        ("a.test", "93.184.216.34", True),
        ("a.test", "2606:4700::1", True),
        ("a.test", "127.0.0.1", False),
        ("a.test", "169.254.169.254", False),
        ("a.test", "192.168.1.1", False),
        ("a.test", "::1", False),
        ("a.test", "fe80::1%eth0", False),
        ("a.test", "::ffff:127.0.0.1", False),
        ("a.test", "10.1.2.3", True),  # listed
        ("a.test", "::ffff:10.1.2.3", True),
        ("a.test", "a.test", False),  # nobody can say where that is
        ("named.test", "127.0.0.1", True),
        ("x.named.net", "127.0.0.1", True),
        ("10.1.2.3", "10.1.2.3", True),
    ],
)
def test_what_a_star_lets_through_has_a_public_address(host: str, at: str, allowed: bool) -> None:
    forward = Forward(hosts=("*", "named.test", "*.named.net", "10.0.0.0/8"))
    assert forward.allows_at(host, (at, 443)) is allowed


def test_nothing_is_at_a_unix_socket() -> None:
    assert not Forward(hosts=("*",)).allows_at("a.test", "/run/x")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hosts": ()}, "nobody could go anywhere"),
        ({"hosts": ("a",), "ports": ()}, "nobody could go anywhere"),
        ({"hosts": "a.test"}, r"hosts is 'a.test'; write a list: \('a.test',\)"),
        ({"hosts": ("a",), "ports": (0,)}, "ports: 0 is none"),
        ({"hosts": ("a",), "ports": (65536,)}, "ports: 65536 is none"),
        ({"hosts": ("https://a.test",)}, "hosts: 'https://a.test' does not"),
        ({"hosts": ("a.test:443",)}, "hosts: 'a.test:443' does not"),
        ({"hosts": ("10.0.0.256",)}, "hosts: '10.0.0.256' does not"),
        ({"hosts": ("127.1",)}, "hosts: '127.1' does not"),
        ({"hosts": ("a b",)}, "hosts: 'a b' is no host"),
        ({"hosts": ("",)}, "hosts: '' is no host"),
        ({"hosts": ("a.*.test",)}, "hosts: 'a.*.test' is no host".replace("*", r"\*")),
        ({"hosts": ("*a.test",)}, r"hosts: '\*a.test' is no host"),
        ({"hosts": ("*.*.test",)}, r"hosts: '\*.\*.test' is no host"),
        ({"hosts": ("a..test",)}, "hosts: 'a..test' is no host"),
        ({"hosts": ("x" * 64,)}, "is no host"),
    ],
)
def test_lists_that_make_no_sense(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Forward(**settings)


def test_case_does_not_matter() -> None:
    assert Forward(hosts=("API.Internal", "*.Example.COM")).allows(*read_target("Api.INTERNAL:443"))
    assert FORWARD.allows(*read_target("A.EXAMPLE.com:443"))


# --------------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("a:1", ("a", 1)),
        ("a-b_c.D.test:65535", ("a-b_c.d.test", 65535)),
        ("a.test.:443", ("a.test", 443)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("10.0.0.1.:80", ("10.0.0.1", 80)),
        ("[::1]:80", ("::1", 80)),
        ("[2001:DB8:0:0::1]:80", ("2001:db8::1", 80)),
        ("[::ffff:10.0.0.1]:80", ("10.0.0.1", 80)),
        ("1.a:80", ("1.a", 80)),
        ("0x1g:80", ("0x1g", 80)),
    ],
)
def test_what_is_a_target(text: str, target: tuple[str, int]) -> None:
    assert read_target(text) == target


BROKEN = [
    "a", "a:", ":443", "a:0", "a:00443", "a:65536", "a:99999", "a:443x", "a:+443", "a: 443", "a:443:443", "", ":",
    "https://a:443", "/", "/a:443", "*", "u@a:443", "u:p@a:443", "a:443/", "a:443?x", "a:443#x", "a/b:443",
    "::1:443", "[::1]", "[::1]443", "[::1", "[]:443", "[a]:443", "[1.2.3.4]:443", "[::1%25eth0]:443", "[::g]:443",
    "[v1.a]:443", "[1:2:3]:443", "127.1:443", "2130706433:443", "0x7f000001:443", "0X7F.1:443", "0177.0.0.1:443",
    "256.0.0.1:443", "a.0x:443", "a.1:443", "1.2.3.4.5:443", ".:443", "..:443", "a..b:443", ".a:443", "a...:443",
    "%61:443", "a%2e:443", "x" * 64 + ":443", ".".join(["x" * 63] * 4) + ":443", "\xe4:443", "a!:443", "a,b:443",
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match="target"):
        read_target(text)


@given(st.text("019afx.:[]-", max_size=16), st.text("0123456789", max_size=6))
def test_a_target_that_is_read_is_one_place(written: str, digits: str) -> None:
    try:
        host, port = read_target(f"{written}:{digits}")
    except ValueError:
        return
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert read_target(shown) == (host, port)
    assert digits == str(port)
    try:
        ip: object = ip_address(host)
    except ValueError:
        ip = None
        with pytest.raises(OSError, match="illegal IP address"):
            inet_aton(host)  # which knows every way to write one
    assert (str(ip) == host) is (ip is not None)
