"""One end of a tunnel, where what it does is not seen in a whole one."""

from __future__ import annotations

import pytest

from coulee.core.codec import ProtocolError
from coulee.core.parts import Data
from coulee.core.tunnel_end import PeerEnd
from tests.core.tunnelled import machine, make


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
