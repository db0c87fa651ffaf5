"""What a program of asyncio's, or uvloop's, sees of a proxy beside its own tasks: turns, time, work, what goes wrong.

What holds for every loop is in test_serving.py, and what sockets do is in the conformance suite.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest

from coulee.backends.asyncio import AsyncioDriver, serve
from coulee.backends.nonblocking import NonblockingWire
from coulee.conformance import Puppet
from coulee.core import Exchange, Filter, Peer, Proxy, Response, respond, sleep
from coulee.core.seam import Cancel, Completion, Finished, Listen, Operation, Run
from coulee.lb import Cluster
from tests.backends.test_serving import WITHIN_S, answering, ask, hello, nothing_left

Main = Callable[[], Awaitable[Any]]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Generator[Callable[[Main], Any], None, None]:
    """Runs a program, which leaves nothing behind and nothing in the log."""
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    new_loop = (
        asyncio.new_event_loop if request.param == "asyncio" else importlib.import_module("uvloop").new_event_loop
    )
    new_loop().close()  # uvloop's first one of a process opens a pipe that stays
    complaints: list[dict[str, Any]] = []

    def run(main: Main) -> Any:
        async def complaining() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            async with asyncio.timeout(WITHIN_S):
                return await main()

        with nothing_left(), asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(complaining())

    yield run
    assert not complaints


class Served:
    """A machine that is served while a block runs; then it is cancelled."""

    def __init__(self, machine: Any, *listen: Any) -> None:
        self.machine = machine
        self.listen = listen

    async def __aenter__(self) -> AsyncioDriver:
        ready: asyncio.Future[AsyncioDriver] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(serve(self.machine, self.listen, on_ready=ready.set_result))
        self.task.add_done_callback(lambda _: ready.cancel())
        return await ready

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        assert self.task.cancelled()


def counted_turns(driver: AsyncioDriver, then: Callable[[], object] = lambda: None) -> list[float]:
    """Grows by one with each turn of the driver."""
    turns: list[float] = []
    turned = driver.loop.on_turned

    def count() -> None:
        turns.append(driver.clock())
        turned()
        then()

    driver.loop.on_turned = count
    return turns


# ----------------------------------------------------------------------------------------------------- turns


def test_a_busy_proxy_leaves_a_turn_to_others_after_each_of_its_own(run: Callable[[Main], Any]) -> None:
    async def main() -> None:
        async with Served(Puppet()) as driver:
            turns = counted_turns(driver, driver.loop.nudge)  # there is always something to do
            driver.loop.nudge()
            mine = 0
            while len(turns) < 100:
                await asyncio.sleep(0)
                mine += 1
            assert mine >= 50

    run(main)


def test_an_idle_proxy_has_no_turns(run: Callable[[Main], Any]) -> None:
    async def main() -> None:
        async with Served(answering(hello), ("127.0.0.1", 0)) as driver:
            await asyncio.to_thread(ask, driver.addresses[0])
            for _ in range(10):
                await asyncio.sleep(0.001)
            turns = counted_turns(driver)
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not turns

    run(main)


def test_two_proxies_share_a_loop_and_end_one_by_one(run: Callable[[Main], Any]) -> None:
    async def main() -> None:
        async with Served(answering(hello), ("127.0.0.1", 0)) as stays:
            async with Served(answering(hello), ("127.0.0.1", 0)) as goes:
                for driver in (stays, goes):
                    assert b"hello /a" in await asyncio.to_thread(ask, driver.addresses[0], "/a")
            assert b"hello /b" in await asyncio.to_thread(ask, stays.addresses[0], "/b")

    run(main)


def test_another_thread_may_have_it_stopped(run: Callable[[Main], Any]) -> None:
    async def main() -> None:
        drivers: list[AsyncioDriver] = []
        task = asyncio.create_task(serve(answering(hello), "127.0.0.1:0", on_ready=drivers.append))
        while not drivers:
            await asyncio.sleep(0)
        threading.Thread(target=drivers[0].loop.call, args=(drivers[0].stop,)).start()
        await task

    run(main)


# ------------------------------------------------------------------------------------------------------ time


def armed(driver: AsyncioDriver, puppet: Puppet, delay_s: float) -> float:
    due = driver.clock() + delay_s
    puppet.alarms.append(due)
    driver.post(None)
    return due


@pytest.mark.parametrize("delay_s", [0.0, 0.0004, 0.0034, 0.02])
def test_an_alarm_rings_in_time_and_is_not_waited_for_by_spinning(run: Callable[[Main], Any], delay_s: float) -> None:
    async def main() -> None:
        puppet = Puppet()
        async with Served(puppet) as driver:
            turns = counted_turns(driver)
            due = armed(driver, puppet, delay_s)
            while not puppet.rung:
                await asyncio.sleep(0)
            assert puppet.rung[0][0] == due
            assert puppet.rung[0][1] >= due
            assert len(turns) <= 5

    run(main)


def test_what_has_become_due_within_a_turn_is_done_in_the_next(run: Callable[[Main], Any]) -> None:
    async def main() -> None:
        puppet = Puppet()
        async with Served(puppet) as driver:
            was_late: list[bool] = []

            def be_late() -> None:
                due = armed(driver, puppet, 0.0005)
                while driver.clock() < due:
                    pass
                was_late.append(not puppet.rung)

            driver.loop.call(be_late)
            while not was_late:
                await asyncio.sleep(0)
            assert was_late == [True]
            for _ in range(3):
                await asyncio.sleep(0)
            assert puppet.rung

    run(main)


def test_no_alarm_is_left_that_would_keep_the_driver(run: Callable[[Main], Any]) -> None:
    async def served() -> weakref.ref[AsyncioDriver]:
        puppet = Puppet()
        async with Served(puppet) as driver:
            for delay_s in (3600.0, 1800.0):
                armed(driver, puppet, delay_s)
                await asyncio.sleep(0.001)
            return weakref.ref(driver)

    async def main() -> None:
        driver = await served()
        await asyncio.sleep(0.001)
        gc.collect()
        assert driver() is None

    run(main)


def test_an_alarm_may_move_to_an_earlier_time(run: Callable[[Main], Any]) -> None:
    async def main() -> None:
        puppet = Puppet()
        async with Served(puppet) as driver:
            armed(driver, puppet, 3600.0)
            await asyncio.sleep(0.001)
            armed(driver, puppet, 0.002)
            while not puppet.rung:
                await asyncio.sleep(0)

    run(main)


def test_a_loop_that_keeps_a_time_of_its_own_keeps_that_of_the_machine() -> None:
    class Later(asyncio.SelectorEventLoop):
        def time(self) -> float:
            return super().time() + 1e6

    async def main() -> None:
        puppet = Puppet()
        async with Served(puppet) as driver:
            due = armed(driver, puppet, 0.002)
            assert due > time.monotonic() + 0.9e6
            while not puppet.rung:
                await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=Later) as runner:
        runner.run(main())


# ------------------------------------------------------------------------------------------------------ work


def test_a_native_job_that_is_cancelled_is_finished_when_it_has_tidied_up(run: Callable[[Main], Any]) -> None:
    events: list[str] = []

    async def job() -> None:
        events.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.001)
            events.append("tidied up")

    async def main() -> None:
        puppet = Puppet()

        def react(completion: Completion) -> Sequence[Operation]:
            if isinstance(completion, Finished):
                events.append("finished")
            return ()

        puppet.react = react
        async with Served(puppet) as driver:
            puppet.outbox.append(Run(1, "native", job))
            driver.post(None)
            while not events:
                await asyncio.sleep(0)
            puppet.outbox.append(Cancel(1))
            driver.post(None)
            while "finished" not in events:
                await asyncio.sleep(0)

    run(main)
    assert events == ["begun", "tidied up", "finished"]


def test_jobs_have_tidied_up_before_a_failure_comes_out(run: Callable[[Main], Any]) -> None:
    events: list[str] = []

    async def job() -> None:
        events.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.001)
            events.append("tidied up")

    async def main() -> None:
        puppet = Puppet()
        drivers: list[AsyncioDriver] = []
        task = asyncio.create_task(serve(puppet, on_ready=drivers.append))
        while not drivers:
            await asyncio.sleep(0)
        puppet.outbox.append(Run(1, "native", job))
        drivers[0].post(None)
        while not events:
            await asyncio.sleep(0)
        puppet.react = fail
        drivers[0].drain(1.0)
        with pytest.raises(ZeroDivisionError):
            await task
        assert events == ["begun", "tidied up"]

    run(main)


def test_names_are_looked_up_while_all_threads_of_the_loop_are_busy(run: Callable[[Main], Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        go = threading.Event()
        busy = loop.run_in_executor(None, go.wait, WITHIN_S)
        async with Served(Proxy(Cluster(Peer("nowhere"))), ("localhost", 0)) as driver:
            assert driver.addresses
            assert not busy.done()
        go.set()
        await busy

    run(main)


# --------------------------------------------------------------------------------------------- what goes wrong


def fail(_: object) -> Any:
    raise ZeroDivisionError


def test_a_machine_that_fails_while_it_opens_is_never_ready(run: Callable[[Main], Any]) -> None:
    async def main() -> None:
        puppet = Puppet()
        puppet.outbox.append(Listen(1, ("127.0.0.1", 0)))
        puppet.react = fail
        ready: list[AsyncioDriver] = []
        with pytest.raises(ZeroDivisionError):
            await serve(puppet, on_ready=ready.append)
        assert not ready

    run(main)


def test_what_a_connection_raises_comes_out_of_serve(
    run: Callable[[Main], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(self: NonblockingWire, events: int) -> None:
        raise LookupError("in a connection")

    async def main() -> None:
        monkeypatch.setattr(NonblockingWire, "ready", break_down)
        asking: list[asyncio.Future[bytes]] = []
        loop = asyncio.get_running_loop()

        def ready(driver: AsyncioDriver) -> None:
            asking.append(loop.run_in_executor(None, partial(ask, driver.addresses[0])))

        with pytest.raises(LookupError, match="in a connection"):
            await serve(answering(hello), "127.0.0.1:0", on_ready=ready)
        assert await asking[0] == b""

    run(main)


@pytest.mark.parametrize("listen", [("127.0.0.1", 0), ("localhost", 0)])
def test_what_on_ready_raises_comes_out_of_serve(run: Callable[[Main], Any], listen: Any) -> None:
    drivers: list[AsyncioDriver] = []

    def ready(driver: AsyncioDriver) -> None:
        drivers.append(driver)
        driver.wake()  # there will be nothing to wake any more
        raise LookupError("in on_ready")

    async def main() -> None:
        with pytest.raises(LookupError, match="in on_ready"):
            await serve(answering(hello), listen, on_ready=ready)
        await asyncio.sleep(0)
        assert drivers[0].failure is None

    run(main)


def test_it_may_be_cancelled_before_it_is_open(run: Callable[[Main], Any]) -> None:
    async def main() -> None:
        task = asyncio.create_task(serve(answering(hello), ("localhost", 0)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main)


@pytest.mark.parametrize("gives_in", [False, True])
def test_cancelled_twice_it_ends_whatever_the_machine_does(run: Callable[[Main], Any], gives_in: bool) -> None:
    class Stubborn(Puppet):
        is_stubborn = True

        @property
        def finished(self) -> bool:
            return not self.is_stubborn

    async def main() -> None:
        machine = Stubborn()
        drivers: list[AsyncioDriver] = []
        task = asyncio.create_task(serve(machine, on_ready=drivers.append))
        for attempt in range(2):
            for _ in range(5):
                await asyncio.sleep(0)
            assert not task.done()
            if attempt and gives_in:  # in the same moment, and it is carried out first
                machine.is_stubborn = False
                drivers[0].post(None)
            task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main)


class Wait(Filter):
    async def request_filter(self, exchange: Exchange) -> Response:
        await sleep(0.001)
        return respond(200, "waited")


def test_it_works_in_the_debug_mode_of_asyncio(run: Callable[[Main], Any]) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_debug(True)
        async with Served(Proxy(Cluster(Peer("nowhere")), [Wait()]), ("127.0.0.1", 0)) as driver:
            assert b"waited" in await asyncio.to_thread(ask, driver.addresses[0])

    run(main)
