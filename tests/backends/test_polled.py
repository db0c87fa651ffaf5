"""The driver on a poller, with a host that is this test: it looks whether the poller is readable, and takes its turns.

What sockets do in general is in the conformance suite; here is what only shows where the turns are taken one by one.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
from collections.abc import Generator, Sequence
from math import inf

import pytest

from coulee.backends import sockets
from coulee.backends.polled import PolledDriver
from coulee.conformance import Puppet
from coulee.core.seam import (
    Accept,
    Accepted,
    Cancel,
    Close,
    Closed,
    Completion,
    Drain,
    Finished,
    Hold,
    Listen,
    Operation,
    Receive,
    Received,
    Run,
)

LOOPBACK = ("127.0.0.1", 0)


class ByHand(PolledDriver):
    """Its clock stands still unless it is moved."""

    def __init__(self, puppet: Puppet) -> None:
        self.time = 100.0
        self.puppet = puppet
        super().__init__(puppet, lambda: self.time, None, 30.0)

    async def pause(self) -> None:
        raise NotImplementedError

    def do(self, *operations: Operation) -> None:
        self.puppet.outbox.extend(operations)
        self.post(None)

    @property
    def readable(self) -> bool:
        """Whether a host that waits for it would go on."""
        return bool(select.select([self.loop], [], [], 0)[0])

    def sleep(self) -> None:
        """As a host does before it waits; what had woken it until now is read."""
        self.turn()
        self.take()
        assert not self.readable

    def clients(self, listener: int, count: int) -> list[socket.socket]:
        return [socket.create_connection(self.listeners[listener].local) for _ in range(count)]  # type: ignore[arg-type]


@pytest.fixture
def driver() -> Generator[ByHand, None, None]:
    made = ByHand(Puppet())
    made.start()
    yield made
    made.shut()


def heard(driver: ByHand, kind: type[Completion]) -> list[Completion]:
    return [each for each in driver.puppet.heard if isinstance(each, kind)]


# ---------------------------------------------------------------------------------- several events in one turn


@pytest.mark.parametrize("ending", ["hold", "close", "abort"])
def test_what_an_earlier_event_of_the_turn_has_ended_is_not_heard(driver: ByHand, ending: str) -> None:
    """Both connections have bytes. Whichever is read first, the machine then wants no more of the other."""
    driver.do(Listen(1, LOOPBACK), Accept(2, 1), Accept(3, 1))
    ends = driver.clients(1, 2)
    driver.turn()
    driver.do(Receive(2), Receive(3))
    for end in ends:
        end.sendall(b"x")

    def first(completion: Completion) -> Sequence[Operation]:
        if not isinstance(completion, Received):
            return ()
        other = 5 - completion.conn
        driver.puppet.react = lambda _: ()
        return [Hold(other) if ending == "hold" else Close(other, abort=ending == "abort")]

    driver.puppet.react = first
    driver.turn()
    assert len(heard(driver, Received)) == 1
    for end in ends:
        end.close()


def test_a_listener_that_is_closed_by_its_first_connection_accepts_no_second(driver: ByHand) -> None:
    driver.do(Listen(1, LOOPBACK), Accept(2, 1), Accept(3, 1))
    ends = driver.clients(1, 2)
    driver.puppet.react = lambda completion: [Close(1)] if isinstance(completion, Accepted) else ()
    driver.turn()
    assert [each.conn for each in heard(driver, Accepted) if isinstance(each, Accepted)] == [2]
    assert heard(driver, Closed) == [Closed(3, "aborted", "the listener is closed"), Closed(1)]
    assert driver.due == inf
    for end in ends:
        end.close()


# ------------------------------------------------------------------------------------------- out of descriptors


def test_a_listener_rests_while_there_are_no_descriptors(driver: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.do(Listen(1, LOOPBACK), Accept(2, 1))
    [end] = driver.clients(1, 1)

    tries: list[socket.socket] = []

    def fail(listening: socket.socket) -> None:
        tries.append(listening)
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "accept", fail)
        driver.turn()
        driver.sleep()  # it is not readable: nothing spins
        assert driver.due == driver.time + sockets.ACCEPT_PAUSE_S
        driver.do(Accept(3, 1))  # nor does a further credit have it tried again
        driver.sleep()
        assert len(tries) == 1
    driver.time = driver.due
    driver.turn()
    driver.turn()
    assert len(heard(driver, Accepted)) == 1
    end.close()


def test_a_listener_that_rests_can_be_closed(driver: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    test_a_listener_rests_while_there_are_no_descriptors(driver, monkeypatch)
    driver.do(Close(1))
    driver.time += 10.0
    driver.turn()
    assert not driver.listeners


# ------------------------------------------------------------------------------------------------------- waking


def test_all_that_the_host_must_do_wakes_it(driver: ByHand) -> None:
    driver.sleep()
    driver.do(Run(1, "blocking", lambda: 1), Run(2, "blocking", lambda: 2))
    assert driver.readable
    driver.turn()
    begun, _ = driver.take()
    assert [work.call() for work in begun] == [1, 2]
    for work in begun:
        work.handle = "running"
    driver.sleep()
    driver.do(Cancel(1))
    assert driver.readable
    driver.turn()
    assert driver.take() == ([], begun[:1])
    begun[0].cancelled()
    begun[1].done(2, None)
    assert [each.job for each in heard(driver, Finished) if isinstance(each, Finished)] == [1, 2]
    driver.sleep()
    driver.puppet.alarms.append(driver.time + 5.0)
    driver.do()
    assert driver.readable
    assert driver.due == driver.time + 5.0
    driver.sleep()
    driver.drain(0.0)
    assert driver.over
    assert driver.readable


def test_a_job_that_is_cancelled_before_it_is_begun_is_not_begun(driver: ByHand) -> None:
    driver.do(Run(1, "native", lambda: 1), Cancel(1))
    assert driver.take() == ([], [])
    assert len(heard(driver, Finished)) == 1


def test_a_failure_that_comes_while_the_host_waits_wakes_it(driver: ByHand) -> None:
    driver.sleep()
    driver.do(Receive(77))
    assert driver.readable
    assert driver.over
    assert isinstance(driver.failure, AssertionError)


# ------------------------------------------------------------------------------------------------------ signals


def test_signals_are_heard_between_turns_and_given_back_behind_the_second(driver: ByHand) -> None:
    before = signal.getsignal(signal.SIGTERM)
    driver.stop_on_signals()
    driver.do(Listen(1, LOOPBACK))
    driver.sleep()
    os.kill(os.getpid(), signal.SIGTERM)
    assert driver.readable
    assert not heard(driver, Drain)
    driver.turn()
    assert heard(driver, Drain) == [Drain(30.0)]
    os.kill(os.getpid(), signal.SIGINT)
    driver.turn()
    assert heard(driver, Drain) == [Drain(30.0), Drain(0.0)]
    assert signal.getsignal(signal.SIGTERM) == before
