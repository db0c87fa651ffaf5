"""Peers: how they are called when nobody named them, and what keeps their connections apart."""

from __future__ import annotations

from typing import cast

import pytest

from coulee.core.errors import ExchangeError
from coulee.core.parts import Response
from coulee.core.peer import Balancer, Peer, Routed
from coulee.core.seam import Address


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (("127.0.0.1", 9000), "127.0.0.1:9000"),
        (("origin.example", 80), "origin.example:80"),
        (("::1", 9000), "[::1]:9000"),
        ("/run/origin.sock", "/run/origin.sock"),
    ],
)
def test_a_peer_without_a_name_is_called_by_its_address(address: Address, name: str) -> None:
    assert Peer(address).name == name


def test_a_name_that_was_given_is_kept() -> None:
    assert Peer(("127.0.0.1", 9000), name="blue").name == "blue"


def test_connections_are_shared_by_address_and_group_whatever_the_name() -> None:
    address = ("127.0.0.1", 9000)
    assert Peer(address, name="blue").key == Peer(address, name="green").key == (address, "")
    assert Peer(address, group="tenant").key == (address, "tenant")
    assert Peer(("127.0.0.1", 9001)).key != Peer(address).key


def test_the_key_is_not_given_but_found() -> None:
    with pytest.raises(TypeError):
        Peer(("127.0.0.1", 9000), key=("else", ""))  # type: ignore[call-arg]


def test_a_balancer_has_to_choose_and_need_do_nothing_else() -> None:
    balancer, peer = Balancer(), Peer(("127.0.0.1", 9000))
    exchange = cast("Routed", None)
    with pytest.raises(NotImplementedError):
        balancer.choose(exchange)
    assert balancer.fresh() is balancer
    balancer.begin(peer)
    balancer.answered(exchange, peer, Response(200), 0.1)
    balancer.end(peer, "", 200, 0.1)
    assert balancer.may_retry(exchange)
    error = ExchangeError("upstream_reset")
    assert balancer.verdict(error) is error
    balancer.stop()


@pytest.mark.parametrize(
    ("address", "authority"),
    [
        (("127.0.0.1", 9000), "127.0.0.1:9000"),
        (("origin.example", 80), "origin.example"),
        (("origin.example", 8080), "origin.example:8080"),
        (("::80", 80), "[::80]"),
        (("::80", 9000), "[::80]:9000"),
        ("/run/origin.sock", "localhost"),
    ],
)
def test_the_host_to_name_where_the_request_names_none(address: Address, authority: str) -> None:
    assert Peer(address, name="blue").authority == authority
