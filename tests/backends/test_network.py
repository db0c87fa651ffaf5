"""The simulator's network behaves as kernels do: windows, half-closes, resets, and what a close means."""

from __future__ import annotations

import pytest

from coulee.backends.simulator import FarEnd, Simulator, Weather
from tests.backends.ends import KIB, ORIGIN, Recorder, far_ends


def test_a_connection_carries_both_ways_and_half_closes_each_way() -> None:
    near, far = Recorder(b"question", then_eof=True), Recorder()
    sim = far_ends(near, far)
    assert (far.got, far.eofs) == (b"question", 1)
    far.write(b"answer")
    sim.flush()
    assert near.got == b"answer"
    assert not near.ends
    far.write_eof()
    sim.flush()
    assert near.ends == far.ends == [None]
    assert not any(sim.left.values())


def test_addresses_are_told_and_sources_can_be_chosen() -> None:
    sim = Simulator()
    ends: list[FarEnd] = []
    sim.listen(ORIGIN, ends.append)
    sim.listen("/run/a.sock", ends.append)
    sim.connect(ORIGIN, FarEnd(), source=("192.0.2.7", 1234))
    sim.connect(ORIGIN, FarEnd())
    sim.connect("/run/a.sock", FarEnd())
    sim.flush()
    assert [end.address for end in ends] == [ORIGIN, ORIGIN, "/run/a.sock"]
    assert ends[0].peer == ("192.0.2.7", 1234)
    assert ends[1].peer[0] == "10.0.0.9"
    assert ends[2].peer == ""


def test_who_listens_nowhere_in_particular_gets_what_nobody_else_does() -> None:
    sim = Simulator()
    some: list[FarEnd] = []
    rest: list[FarEnd] = []
    sim.listen(("", 80), some.append)
    sim.listen(None, rest.append)
    for address in (("a.example", 80), ("a.example", 81), "/run/x"):
        sim.connect(address, FarEnd())
    sim.flush()
    assert [end.address for end in some] == [("a.example", 80)]
    assert [end.address for end in rest] == [("a.example", 81), "/run/x"]
    sim.unlisten(None)
    client = Recorder()
    sim.connect("/run/x", client)
    sim.flush()
    assert client.ends == ["refused"]
    with pytest.raises(OSError, match="in use"):
        sim.listen(("", 80), some.append)


def test_callbacks_do_as_well_as_methods() -> None:
    sim = Simulator()
    told: list[object] = []

    def come(far: FarEnd) -> None:
        far.on_opened = lambda: told.append("opened")
        far.on_received = told.append
        far.on_closed = told.append

    sim.listen(ORIGIN, come)
    client = FarEnd()
    client.write(b"before it stands")
    client.write_eof()
    sim.connect(ORIGIN, client)
    client.close()
    sim.flush()
    assert told == ["opened", b"before it stands", b""]


def test_calls_behind_the_end_are_ignored() -> None:
    near, far = Recorder(), Recorder()
    sim = far_ends(near, far)
    near.close()
    sim.flush()
    for end in (near, far):
        end.reset()
        end.write(b"x")
        end.write_eof()
        end.close()
        end.pause()
        end.resume()
    sim.settle()
    assert (near.ends, far.ends) == ([None], [None])
    given_up = Recorder()
    sim.connect(ORIGIN, given_up)
    given_up.close()
    sim.settle()
    assert given_up.ends == [None]
    assert given_up.unsent == 0


def test_a_window_fills_and_empties() -> None:
    near, far = Recorder(), Recorder()
    sim = far_ends(near, far, Weather(window_bytes=(64 * KIB, 64 * KIB)))
    far.pause()
    near.write(bytes(200 * KIB))
    near.write_eof()
    sim.flush()
    assert near.unsent == 200 * KIB
    assert far.got == b""
    far.resume()
    sim.flush()
    assert near.unsent == 0
    assert len(far.got) == 200 * KIB
    assert far.eofs == 1


def test_a_close_delivers_everything_first() -> None:
    near, far = Recorder(), Recorder()
    sim = far_ends(near, far, Weather(window_bytes=(64 * KIB, 64 * KIB)))
    far.pause()
    near.write(bytes(100 * KIB))
    near.close()
    sim.flush()
    assert not near.ends  # not all is in the kernel's hands
    far.resume()
    sim.flush()
    assert (len(far.got), far.eofs, near.ends, far.ends) == (100 * KIB, 1, [None], [])


def test_a_reset_destroys_what_is_in_flight_both_ways() -> None:
    near, far = Recorder(), Recorder()
    sim = far_ends(near, far)
    near.write(b"lost")
    far.write(b"lost")
    near.reset()
    sim.flush()
    assert (near.got, far.got) == (b"", b"")
    assert (near.ends, far.ends) == ([None], ["reset"])
    assert not any(sim.left.values())


def test_a_close_with_bytes_unread_is_a_reset() -> None:
    near, far = Recorder(), Recorder()
    sim = far_ends(near, far)
    far.pause()
    near.write(b"unread")
    sim.flush()
    far.write(b"lost too")
    far.close()
    sim.flush()
    assert (near.got, near.ends, far.ends) == (b"", ["reset"], [None])


def test_bytes_behind_a_close_are_answered_with_a_reset() -> None:
    near, far = Recorder(), Recorder()
    sim = far_ends(near, far)
    far.close()
    sim.flush()
    assert (near.eofs, near.ends) == (1, [])
    near.write(b"anybody there?")
    sim.flush()
    assert near.ends == ["reset"]
