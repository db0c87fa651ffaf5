"""Sets of addresses, as users write them."""

from __future__ import annotations

import pytest

from coulee.core.networks import Networks


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        (("10.1.2.3", 1), True),
        (("10.255.255.255", 1), True),
        (("11.0.0.0", 1), False),
        (("192.0.2.7", 1), True),
        (("192.0.2.8", 1), False),
        (("2001:db8::1", 1), True),
        (("2001:db9::1", 1), False),
        (("fe80::1%eth0", 1), True),
        (("a.example", 1), False),
        ("/run/coulee.sock", False),
        ("", False),
        (None, False),
    ],
)
def test_a_peer_is_trusted_if_it_is_in_one_of_the_networks(address: object, trusted: bool) -> None:
    networks = Networks(("10.0.0.1/8", "192.0.2.7", "2001:db8::/32", "fe80::/10"))
    assert (address in networks) is trusted


def test_without_networks_nobody_is_trusted() -> None:
    assert ("127.0.0.1", 1) not in Networks(())


@pytest.mark.parametrize("network", ["10.0.0.0/33", "a.example", "", "10.0.0"])
def test_what_is_no_network_is_refused_with_the_cure(network: str) -> None:
    with pytest.raises(ValueError, match=r"^trusted_peers: .*; write networks like 10\.0\.0\.0/8$"):
        Networks(("10.0.0.0/8", network), "trusted_peers")


def test_unix_stands_for_who_comes_by_a_unix_socket() -> None:
    assert "" in Networks(("unix",))
    assert "/run/a.sock" in Networks(("10.0.0.0/8", "unix"))
    assert ("10.0.0.1", 1) not in Networks(("unix",))
