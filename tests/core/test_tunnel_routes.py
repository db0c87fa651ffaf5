"""Routes by name: which name goes where, and what is no name."""

from __future__ import annotations

from random import Random

import pytest

from coulee.core import ExchangeError, Peer, Proxy, Request
from coulee.core.effects import fetch
from coulee.core.tunnel import Tunnel
from coulee.core.tunnel_exchange import TunnelExchange
from coulee.core.tunnel_filters import TunnelFilter
from coulee.core.tunnel_routes import BySni, Destination, OnePeer, Together, as_balancer
from tests.core.tunnelled import ONE, TWO, Told, make, reason, record

A, B, C, D = Told(), Told(), Told(), Told()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.example", A), ("x.a.example", B), ("y.x.a.example", C), ("example", D), ("", D), ("a_b.a.example", B),
        ("10.0.0.1", D), ("::1", D), ("x.b.example", C),
    ],
)  # fmt: skip
def test_an_exact_name_comes_before_a_wildcard_and_that_before_the_default(name: str, found: Told) -> None:
    routes = BySni({"A.Example.": A, "*.a.example": B, "x.a.example": B, "*.X.a.example": C, "x.b.example": C}, D)
    assert routes.find(name) is found


def test_without_a_default_some_names_lead_nowhere() -> None:
    routes = BySni({"a.example": A})
    assert routes.find("a.example") is A
    assert routes.find("b.example") is None
    assert routes.find("") is None


@pytest.mark.parametrize("name", ["", "*", "*.example", "a.*.example", "*a.example", "10.0.0.1", "::1", "a b", "a..b",
                                  "a:443", "ä.example", "*.", "*.*.example"])  # fmt: skip
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name to route by; write 'a.example', or"):
        BySni({name: A})


def test_a_name_has_one_route() -> None:
    with pytest.raises(ValueError, match=r"'A\.example\.' has two routes"):
        BySni({"a.example": A, "A.example.": B})


@pytest.mark.parametrize(
    ("to", "address"),
    [(ONE, ONE), ("10.1.1.1:443", ONE), ("/run/x", "/run/x"), ("unix:@x", "@x"), (Peer(TWO), TWO)],
)  # fmt: skip
def test_destinations(to: Destination, address: object) -> None:
    balancer = as_balancer(to)
    assert isinstance(balancer, OnePeer)
    assert balancer.peer.address == address
    assert as_balancer(A) is A


def test_what_is_no_destination_is_refused() -> None:
    with pytest.raises(ValueError, match="is a URL, and an address is wanted"):
        Tunnel("https://10.1.1.1")
    with pytest.raises(ValueError, match="has no port"):
        BySni({"a.example": "10.1.1.1"})


# --------------------------------------------------------------------------------------------- several balancers


class Twin(Told):
    """Makes others of itself, and knows whether it runs."""

    def __init__(self, generation: int = 0) -> None:
        super().__init__()
        self.generation = generation
        self.runs: list[str] = []

    def fresh(self) -> Twin:
        return Twin(self.generation + 1)

    def start(self, proxy: Proxy) -> None:
        self.runs.append("start")

    def stop(self) -> None:
        self.runs.append("stop")


def test_a_fresh_tunnel_has_balancers_of_its_own_and_what_is_shared_stays_shared() -> None:
    one, two = Twin(), Twin()
    tunnel = Tunnel(BySni({"a.example": one, "b.example": two, "*.b.example": one}, default=two))
    fresh = tunnel.fresh(rng=Random(1))
    for machine, generation in ((tunnel, 1), (fresh, 1)):
        routes = machine.routes
        assert routes is not None
        first, second = routes.find("a.example"), routes.find("b.example")
        assert isinstance(first, Twin) and isinstance(second, Twin)
        assert first is not one and first is not second
        assert (first.generation, second.generation) == (generation, generation)
        assert routes.find("x.b.example") is first
        assert routes.find("") is second
        assert routes.balancers == [first, second]
    assert tunnel.routes is not fresh.routes


def test_each_balancer_is_started_and_stopped_once() -> None:
    routes = BySni({"a.example": Twin(), "b.example": Twin()}).fresh()
    together = Together(routes)
    together.start(make().machine)  # type: ignore[arg-type]
    together.stop()
    assert [each.runs for each in routes.balancers] == [["start", "stop"]] * 2  # type: ignore[attr-defined]


class Asks(TunnelFilter):
    """Asks whoever there is."""

    async def connect(self, exchange: TunnelExchange) -> None:
        await fetch(Request("GET", "/"))


def test_who_asks_several_clusters_has_to_say_which() -> None:
    world = make(BySni({}, default=ONE), Asks(), sni=False)
    world.client()
    assert (reason(world), record(world).detail) == (
        "no_healthy_endpoint",
        "there are several clusters here: say which peer is meant",
    )


def test_together_says_so_too() -> None:
    with pytest.raises(ExchangeError, match="several clusters"):
        Together(BySni({})).choose(None)  # type: ignore[arg-type]
