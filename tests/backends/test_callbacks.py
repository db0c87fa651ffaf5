"""The driver for loops that call back: with a host of one descriptor and one timer, which passes the whole suite."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from math import inf
from typing import Any

import pytest

from coulee.backends.callbacks import CallbackDriver
from coulee.conformance import Puppet, SocketHarness, Suite
from coulee.core.seam import Cancel, Close, Finished, Listen, Machine, Run

LIMIT_S = 10.0


class Host(CallbackDriver):
    """A loop that can wait for one descriptor and for a time."""

    watching = False
    timer = inf
    ticks = 0

    def watch(self) -> None:
        self.watching = True

    def set_timer(self, delay_s: float) -> None:
        self.timer = time.monotonic() + delay_s

    def unwatch(self) -> None:
        self.watching = False
        self.timer = inf

    def tick(self) -> None:
        self.ticks += 1
        super().tick()

    def once(self, patience_s: float) -> bool:
        """Wait, and call what is to be called; whether anything was."""
        if not self.watching:
            return False
        wait_s = max(0.0, min(patience_s, self.timer - time.monotonic()))
        readable, _, _ = select.select([self], [], [], wait_s)
        if self.timer <= time.monotonic():
            self.timer = inf
            self.tick()
        elif readable:
            self.tick()
        else:
            return False
        return True

    def until(self, condition: Callable[[], object]) -> None:
        limit = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < limit
            self.once(0.05)


class CallbackHarness(SocketHarness):
    driver: Host
    sleep = staticmethod(asyncio.sleep)

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[BaseException | None] = []

    @property
    def done(self) -> bool:  # type: ignore[override]
        return bool(self.ends)

    def start(self, machine: Machine) -> None:
        self.driver = Host(machine, on_end=self.ends.append)
        self.driver.open()

    def breathe(self) -> None:
        self.driver.once(0.0005)
        if self.ends and self.ends[0] is not None:
            raise self.ends[0]

    def end(self) -> None:
        super().end()
        self.driver.shut()


class TestConformance(Suite):
    one_after_another = 2_000

    @pytest.fixture
    def harness(self) -> Iterator[CallbackHarness]:
        made = CallbackHarness()
        yield made
        made.end()


# ------------------------------------------------------------------------------------------- beginning, ending


class Opening(Puppet):
    """Listens from the start."""

    def __init__(self, *listen: Any) -> None:
        super().__init__()
        self.outbox.extend(Listen(number, address) for number, address in enumerate(listen, 1))


@pytest.fixture
def made() -> Generator[list[Host], None, None]:
    hosts: list[Host] = []
    yield hosts
    for host in hosts:
        host.shut()


def new_host(made: list[Host], puppet: Puppet, **kwargs: Any) -> Host:
    made.append(Host(puppet, **kwargs))
    return made[-1]


def test_ready_is_said_once_when_names_too_have_been_looked_up(made: list[Host]) -> None:
    ready: list[Any] = []
    host = new_host(made, Opening(("127.0.0.1", 0), ("localhost", 0)), on_ready=ready.append)
    host.open()
    assert not ready
    host.until(lambda: ready)
    assert ready == [host]
    assert len(host.addresses) == 2
    host.tick()
    assert ready == [host]


def test_an_address_that_is_taken_ends_it_with_an_error(made: list[Host]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ready: list[Any] = []
        ends: list[BaseException | None] = []
        puppet = Opening(taken.getsockname())
        host = new_host(made, puppet, on_ready=ready.append, on_end=ends.append)
        host.open()
        host.until(lambda: ends)
    assert not ready
    assert isinstance(ends[0], OSError)
    assert "cannot listen on 127.0.0.1" in str(ends[0])


def test_stop_called_from_outside_ends_it_once_and_unwatches(made: list[Host]) -> None:
    ends: list[BaseException | None] = []
    puppet = Opening(("127.0.0.1", 0))
    host = new_host(made, puppet, on_end=ends.append)
    host.open()
    puppet.react = lambda _: [Close(1)] if puppet.open else []
    host.stop()
    assert not ends, "the host hears of it in a call of its own"
    host.until(lambda: ends)
    assert ends == [None]
    assert not host.watching
    assert host.timer == inf
    host.tick()
    host.shut()
    assert ends == [None]


def test_a_machine_that_fails_ends_it_with_what_it_raised(made: list[Host]) -> None:
    ends: list[BaseException | None] = []
    puppet = Opening(("127.0.0.1", 0))
    host = new_host(made, puppet, on_end=ends.append)
    host.open()

    def fail(_: object) -> Any:
        raise ZeroDivisionError

    puppet.react = fail
    host.drain(1.0)
    host.until(lambda: ends)
    assert isinstance(ends[0], ZeroDivisionError)
    assert not host.watching


def test_an_idle_host_is_not_called(made: list[Host]) -> None:
    host = new_host(made, Opening(("127.0.0.1", 0)))
    host.open()
    while host.once(0.0):
        pass
    ticks = host.ticks
    assert not host.once(0.02)
    assert host.ticks == ticks


def test_a_timer_that_rings_early_is_set_again(made: list[Host]) -> None:
    puppet = Puppet()
    host = new_host(made, puppet)
    host.open()
    puppet.alarms.append(puppet.now + 0.05)
    host.post(None)
    host.until(lambda: host.timer < inf)
    host.timer = inf
    host.tick()  # as a timer of whole milliseconds does
    assert not puppet.rung
    assert host.timer < inf
    host.until(lambda: puppet.rung)


# -------------------------------------------------------------------------------------------------------- jobs


def finished(puppet: Puppet) -> dict[int, Finished]:
    return {item.job: item for item in puppet.heard if isinstance(item, Finished)}


def test_a_thread_that_is_given_up_counts_as_cancelled_and_is_not_heard_later(made: list[Host]) -> None:
    puppet = Puppet()
    host = new_host(made, puppet)
    host.open()
    begun, go_on, over = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(LIMIT_S)
        over.set()

    puppet.outbox.append(Run(1, "blocking", work))
    host.post(None)
    host.until(begun.is_set)
    puppet.outbox.append(Cancel(1))
    host.post(None)
    host.until(lambda: finished(puppet))
    assert isinstance(finished(puppet)[1].error, CancelledError)
    go_on.set()
    host.until(over.is_set)
    puppet.outbox.append(Run(2, "blocking", lambda: 2))  # its result comes behind the other's
    host.post(None)
    host.until(lambda: 2 in finished(puppet))
    assert len([item for item in puppet.heard if isinstance(item, Finished)]) == 2


def test_native_jobs_are_spawned_on_the_loop_of_the_host(made: list[Host]) -> None:
    spawned: list[Any] = []
    cancelled: list[int] = []

    class WithCoroutines(Host):
        def spawn(self, job: Callable[[], Any]) -> Callable[[], object]:
            spawned.append(job())
            return lambda: cancelled.append(len(spawned))

    async def answer() -> int:
        return 42

    puppet = Puppet()
    made.append(WithCoroutines(puppet))
    host = made[0]
    host.open()
    puppet.outbox.extend([Run(1, "native", answer), Run(2, "native", answer), Run(3, "native", answer)])
    host.post(None)
    host.until(lambda: len(spawned) == 3)
    with pytest.raises(StopIteration):
        spawned[0].send(None)
    host.until(lambda: finished(puppet))
    assert finished(puppet)[1] == Finished(1, 42, None)
    puppet.outbox.append(Cancel(2))
    host.post(None)
    host.until(lambda: 2 in finished(puppet))
    assert cancelled == [3]
    assert isinstance(finished(puppet)[2].error, CancelledError)
    host.shut()
    assert len(cancelled) == 2, "what runs at the end is cancelled"
    for coroutine in spawned[1:]:
        coroutine.close()
