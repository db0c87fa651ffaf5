"""Between the end of a handshake and the machine's first Receive a wire is held, and the backend hears of it late."""

from __future__ import annotations

import pytest

from coulee.backends.layer import Layer
from coulee.core.seam import Address, DownstreamTls, Receive, Received, Secure, Secured, Security, UpstreamTls
from tests.backends.test_driver import PlainDriver, PlainWire, World

SECURITY = Security("TLSv1.3", "none")


class Open:
    """TLS that consists of one word, `hello`, and then of nothing; until `bye`."""

    def __init__(self) -> None:
        self.security: Security | None = None
        self.ended = False
        self.to_send = b""

    def receive(self, data: bytes) -> bytes:
        if self.security is None and data.startswith(b"hello"):
            self.security = SECURITY
            data = data.removeprefix(b"hello")
        self.ended = data.endswith(b"bye")
        return data.removesuffix(b"bye")

    def encrypt(self, data: bytes | list[bytes]) -> bytes:
        return data if isinstance(data, bytes) else b"".join(data)

    def farewell(self) -> bytes:
        return b"bye"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    def new_layer(_driver: PlainDriver, _tls: DownstreamTls | UpstreamTls, _place: Address) -> Layer:
        return Open()

    monkeypatch.setattr(PlainDriver, "new_layer", new_layer)
    return World()


def shaken(world: World, word: bytes = b"hello") -> PlainWire:
    """A wire whose handshake is done."""
    wire = world.connection()
    world.asks(Secure(1, UpstreamTls()))
    wire.calls.clear()
    wire.received(word)
    assert world.heard() == [Secured(1, SECURITY)]
    return wire


def test_it_is_not_paused_where_nothing_comes(world: World) -> None:
    wire = shaken(world)
    world.asks(Receive(1))
    assert ("pause",) not in wire.calls
    wire.received(b"x")
    assert world.heard() == [Received(1, b"x")]


def test_a_read_that_comes_before_is_kept_and_then_it_is_paused(world: World) -> None:
    wire = shaken(world, b"helloone ")
    assert ("pause",) not in wire.calls
    wire.received(b"two")
    assert wire.calls == [("pause",)]
    assert world.heard() == []
    world.asks(Receive(1))
    assert world.heard() == [Received(1, b"one two")]
    assert wire.calls == [("pause",), ("resume",)]


def test_the_end_that_comes_before_is_kept_too(world: World) -> None:
    wire = shaken(world)
    wire.received(b"twobye")
    assert world.heard() == []
    world.asks(Receive(1))
    assert world.heard() == [Received(1, b"two"), Received(1, b"")]
    assert not wire.gone
