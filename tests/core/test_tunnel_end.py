"""One end of a tunnel: what is put back, what it lacks before it stands, and which reset is an end in order."""

from __future__ import annotations

from random import Random

import pytest

from coulee.core import Timeouts
from coulee.core.codec import ProtocolError
from coulee.core.parts import Data
from coulee.core.seam import Blocked, Sent
from coulee.core.tunnel_end import PeerEnd
from coulee.lb.tls_hello import client_hello
from tests.core.tunnelled import OVER_TLS, Told, machine, make, reason, record, told


def test_a_codec_that_frames_nothing_can_find_no_fault() -> None:
    world = make()
    world.client()
    [exchange] = machine(world).exchanges
    with pytest.raises(AssertionError, match="finds no fault"):
        exchange.downstream.fault(ProtocolError("no"))


def test_there_are_no_bytes_before_a_peer_stands() -> None:
    world = make()
    world.client()
    [exchange] = machine(world).exchanges
    end = PeerEnd(exchange)
    with pytest.raises(AssertionError):
        assert end.line
    end.opened()
    assert end.line.connection is end


def test_what_is_put_back_is_read_again() -> None:
    world = make()
    world.client()
    [exchange] = machine(world).exchanges
    end = PeerEnd(exchange)
    end.put_back(b"ab")
    assert end.pull() == Data(b"ab", False)
    end.put_back(b"")
    assert end.pull() is None


@pytest.mark.parametrize("who", ["client", "origin"])
def test_a_reset_behind_the_end_of_the_peer_is_an_end_in_order(who: str) -> None:
    world = make(Told())
    client, origin = world.client(), world.connects()
    world.receives(origin, b"answer")
    world.receives(origin, b"")
    world.resets(client if who == "client" else origin)
    assert world.closing == {origin if who == "client" else client: True}, "the other is cut all the same"
    assert (reason(world), record(world).attempts[0].reason) == ("", "")
    assert told(world).ends == [("one", "")]
    world.leaves_nothing()


def test_a_reset_of_a_client_that_has_not_taken_all_is_none() -> None:
    world = make()
    client, origin = world.client(), world.connects()
    world.receives(origin, b"answer")
    world.gives(Blocked(client))
    world.receives(origin, b"")
    world.resets(client)
    assert reason(world) == "client_gone"


@pytest.mark.parametrize("who", ["client", "origin"])
def test_a_reset_behind_the_end_of_the_client_is_none(who: str) -> None:
    # Whoever closes while an answer is on its way to it ends first and resets then.
    world = make()
    client, origin = world.client(), world.connects()
    world.receives(client, b"")
    world.resets(client if who == "client" else origin)
    assert reason(world) == ("client_gone" if who == "client" else "upstream_reset")


def test_what_takes_too_long_behind_the_end_of_the_peer_is_no_end_in_order() -> None:
    world = make(timeouts=Timeouts(upgraded_idle_timeout_s=60.0))
    world.client()
    world.receives(world.connects(), b"")
    world.wait(60.0)
    assert reason(world) == "idle_timeout"


def test_a_client_that_has_yet_to_take_what_tls_has_said_is_sent_nothing_before() -> None:
    world = make(listener=OVER_TLS)
    client = world.client()
    world.receives(client, client_hello(Random(1), "a.example"))
    world.gives(Blocked(client))
    world.secures()
    origin = world.connects()
    world.receives(origin, b"answer")
    assert world.sent(client) == b""
    world.gives(Sent(client))
    assert world.sent(client) == b"answer"
