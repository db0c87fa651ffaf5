"""A proxy served inside a program of a host's own, on each loop: how it begins, what it does for its host, how it ends.

A host is a loop under test; it runs a `main` of the test's, and knows how its loop starts and cancels a task. Clients
are plain sockets in threads. Nothing waits for a fixed time.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from coulee.core import (
    Access,
    DeadlineExceeded,
    Exchange,
    Filter,
    Peer,
    Proxy,
    Response,
    blocking,
    deadline,
    native,
    respond,
    sleep,
)
from coulee.core.seam import Address
from coulee.lb import Cluster

WITHIN_S = 10.0


class Host(ABC):
    """A loop, and the backend for it."""

    serve: Callable[..., Awaitable[None]]
    own_sleep: Callable[[float], Awaitable[Any]]

    @abstractmethod
    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        """Run a program."""

    @abstractmethod
    async def both(self, served: Callable[[], Awaitable[None]], then: Callable[[], Awaitable[None]]) -> None:
        """Run `served` in a task of its own; when `then` has ended, cancel it and wait for its end."""

    @abstractmethod
    async def in_thread(self, call: Callable[[], Any]) -> Any:
        """Call on a thread of this loop's."""


class OnAsyncio(Host):
    def __init__(self) -> None:
        from coulee.backends.asyncio import serve

        self.serve = serve
        self.own_sleep = asyncio.sleep

    def run(self, main: Callable[[], Any]) -> Any:
        return asyncio.run(main())

    async def both(self, served: Callable[[], Any], then: Callable[[], Awaitable[None]]) -> None:
        before = asyncio.all_tasks()
        task = asyncio.create_task(served())
        await then()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert asyncio.all_tasks() == before

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(call)


class OnUvloop(OnAsyncio):
    def __init__(self) -> None:
        super().__init__()
        import_module("uvloop").new_event_loop().close()  # the first one of a process opens a pipe that stays

    def run(self, main: Callable[[], Any]) -> Any:
        with asyncio.Runner(loop_factory=import_module("uvloop").new_event_loop) as runner:
            return runner.run(main())


class OnTrio(Host):
    def __init__(self) -> None:
        import trio

        from coulee.backends.trio import serve

        self.trio = trio
        self.serve = serve
        self.own_sleep = trio.sleep

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        return self.trio.run(main)

    async def both(self, served: Callable[[], Awaitable[None]], then: Callable[[], Awaitable[None]]) -> None:
        async with self.trio.open_nursery() as nursery:
            nursery.start_soon(served)
            await then()
            nursery.cancel_scope.cancel()

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        return await self.trio.to_thread.run_sync(call)


class OnCurio(Host):
    def __init__(self) -> None:
        from coulee.backends.curio import curio, serve

        self.curio = curio
        self.serve = serve
        self.own_sleep = curio.sleep

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        return self.curio.run(main)

    async def both(self, served: Callable[[], Awaitable[None]], then: Callable[[], Awaitable[None]]) -> None:
        kernel = await self.curio.traps._get_kernel()
        before = set(kernel._tasks)
        task = await self.curio.spawn(served)
        await then()
        await task.cancel()
        assert isinstance(task.exception, self.curio.CancelledError)
        assert set(kernel._tasks) == before

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        return await self.curio.run_in_thread(call)


HOSTS: dict[str, Callable[[], Host]] = {"asyncio": OnAsyncio, "uvloop": OnUvloop, "trio": OnTrio, "curio": OnCurio}


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> Host:
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return HOSTS[request.param]()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


@contextmanager
def nothing_left() -> Generator[None, None, None]:
    """No descriptor is left open by the block."""
    gc.collect()
    before = descriptors()
    yield
    assert descriptors() == before


# ----------------------------------------------------------------------------------------------- the proxies


class Answers(Filter):
    """Answers each request by what `answer` gives for its target."""

    def __init__(self, answer: Callable[[str], Awaitable[Any]]) -> None:
        self.answer = answer

    async def request_filter(self, exchange: Exchange) -> Response:
        return respond(200, f"{await self.answer(exchange.request.target)}\n")


def answering(answer: Callable[[str], Awaitable[Any]]) -> Proxy:
    return Proxy(Cluster(Peer("nowhere")), [Answers(answer)])


async def hello(target: str) -> str:
    return f"hello {target}"


def ask(address: Address, target: str = "/") -> bytes:
    """The answer to one request; what there is of it where the connection is cut."""
    got = b""
    assert isinstance(address, tuple)
    with socket.create_connection(address, timeout=WITHIN_S) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        try:
            while data := client.recv(65536):
                got += data
        except ConnectionError:
            pass
    return got


class Served:
    """What a test sees of a driver."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.driver: Any = None
        self.records: list[Any] = []

    def ready(self, driver: Any) -> None:
        self.driver = driver

    @property
    def accesses(self) -> list[Access]:
        return [record for record in self.records if isinstance(record, Access)]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let the loop turn until the condition holds."""
        turns = 0
        while not condition():
            await self.host.own_sleep(0.001)
            turns += 1
            assert turns < WITHIN_S * 1000

    async def begin(self) -> Address:
        await self.until(lambda: self.driver is not None)
        address: Address = self.driver.addresses[0]
        return address

    async def serve(self, proxy: Proxy, listen: Any = "127.0.0.1:0", **options: Any) -> None:
        await self.host.serve(proxy, listen, reporter=self.records.append, on_ready=self.ready, **options)


# ------------------------------------------------------------------------------------------------- beginning


def test_requests_are_answered_and_the_host_goes_on_meanwhile(host: Host) -> None:
    served = Served(host)

    async def then() -> None:
        address = await served.begin()
        for number in range(3):
            answer = await host.in_thread(partial(ask, address, f"/{number}"))
            assert answer.endswith(f"\r\n\r\nhello /{number}\n".encode())

    async def main() -> None:
        await host.both(lambda: served.serve(answering(hello)), then)

    with nothing_left():
        host.run(main)
    assert [record.status for record in served.accesses] == [200, 200, 200]


def test_it_listens_at_every_address_that_it_is_given(host: Host, tmp_path: Any) -> None:
    served = Served(host)
    path = str(tmp_path / "a.sock")

    async def then() -> None:
        await served.begin()
        assert served.driver.addresses[1] == path
        assert served.driver.addresses[2][0] == "127.0.0.1"
        assert b"hello" in await host.in_thread(lambda: ask(served.driver.addresses[2]))

    async def main() -> None:
        await host.both(lambda: served.serve(answering(hello), ["127.0.0.1:0", path, "localhost:0"]), then)

    with nothing_left():
        host.run(main)
    assert not os.path.exists(path)


@pytest.mark.parametrize("name", ["taken", "unknown"])
def test_an_address_that_cannot_be_listened_at_is_an_oserror(host: Host, name: str) -> None:
    served = Served(host)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname() if name == "taken" else ("no-such-host.invalid", 8000)

        async def main() -> None:
            await served.serve(answering(hello), [("127.0.0.1", 0), address])

        with nothing_left(), pytest.raises(OSError, match=f"cannot listen on {address[0]}:{address[1]}: "):
            host.run(main)
    assert served.driver is None


# ------------------------------------------------------------------------------------------------------ jobs


def test_filters_wait_for_the_hosts_loop_for_threads_and_for_the_core(host: Host) -> None:
    here = threading.get_ident()

    async def natively() -> bool:
        await host.own_sleep(0.001)
        return threading.get_ident() == here

    def failing() -> None:
        raise LookupError("not there")

    async def answer(target: str) -> Any:
        await sleep(0.001)
        try:
            await blocking(failing)
        except LookupError as error:
            return (str(error), await native(natively), await blocking(threading.get_ident) != here)

    served = Served(host)

    async def then() -> None:
        address = await served.begin()
        answer = await host.in_thread(lambda: ask(address))
        assert answer.endswith(b"\r\n\r\n('not there', True, True)\n")

    async def main() -> None:
        await host.both(lambda: served.serve(answering(answer)), then)

    host.run(main)


def test_a_thread_that_is_given_up_disturbs_nobody_when_it_ends(host: Host) -> None:
    release, ended = threading.Event(), threading.Event()
    served = Served(host)

    def block() -> None:
        release.wait(WITHIN_S)
        ended.set()

    async def answer(target: str) -> str:
        try:
            with deadline(0.01):
                await blocking(block)
        except DeadlineExceeded:
            release.set()
            await blocking(ended.wait, WITHIN_S)
            await sleep(0.01)
            return "it goes on"
        return "too early"

    async def then() -> None:
        address = await served.begin()
        for _ in range(2):
            assert b"it goes on" in await host.in_thread(lambda: ask(address))
            release.clear()
            ended.clear()

    async def main() -> None:
        await host.both(lambda: served.serve(answering(answer)), then)

    host.run(main)


# --------------------------------------------------------------------------------------------------- the end


def test_stop_lets_what_runs_finish(host: Host) -> None:
    go = threading.Event()
    served = Served(host)
    answers: list[bytes] = []

    async def answer(target: str) -> str:
        await blocking(go.wait, WITHIN_S)
        return "done"

    def client(address: Address) -> None:
        answers.append(ask(address))

    async def main() -> None:
        def ready(driver: Any) -> None:
            served.ready(driver)
            thread = threading.Thread(target=client, args=driver.addresses, daemon=True)
            thread.start()
            threads.append(thread)

        threads: list[threading.Thread] = []
        proxy = answering(answer)

        @proxy.on("early_request_filter")
        def asked(exchange: Exchange) -> None:
            served.driver.stop()
            go.set()

        await host.serve(proxy, "127.0.0.1:0", on_ready=ready, grace_s=WITHIN_S)
        await host.in_thread(lambda: threads[0].join(WITHIN_S))

    with nothing_left():
        host.run(main)
    assert answers[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert answers[0].endswith(b"\r\n\r\ndone\n")


def test_stop_asked_twice_ends_at_once(host: Host) -> None:
    never = threading.Event()
    served = Served(host)
    answers: list[bytes] = []

    async def answer(target: str) -> str:
        served.driver.stop()
        await native(stop_again)
        await blocking(never.wait, WITHIN_S)
        return "too late"

    async def stop_again() -> None:
        served.driver.stop()

    async def main() -> None:
        def ready(driver: Any) -> None:
            served.ready(driver)
            threads.append(threading.Thread(target=lambda: answers.append(ask(driver.addresses[0])), daemon=True))
            threads[0].start()

        threads: list[threading.Thread] = []
        await host.serve(answering(answer), "127.0.0.1:0", reporter=served.records.append, on_ready=ready, grace_s=1e6)
        await host.in_thread(lambda: threads[0].join(WITHIN_S))

    try:
        host.run(main)
    finally:
        never.set()
    assert [record.reason for record in served.accesses] == ["shutting_down"]
    assert not answers[0].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("job", ["core", "native", "blocking"])
def test_cancelling_ends_it_at_once_and_leaves_nothing(host: Host, job: str) -> None:
    release = threading.Event()
    served = Served(host)
    asked: list[str] = []
    ended: list[bool] = []

    async def answer(target: str) -> str:
        asked.append(target)
        if job == "core":
            await sleep(1e6)
        elif job == "native":
            await native(host.own_sleep, 1e6)
        else:
            await blocking(block)
        return "too late"

    def block() -> None:
        release.wait(WITHIN_S)
        ended.append(True)

    async def then() -> None:
        address = await served.begin()
        client = threading.Thread(target=ask, args=(address,), daemon=True)
        client.start()
        clients.append(client)
        await served.until(lambda: asked)

    async def main() -> None:
        await host.both(lambda: served.serve(answering(answer)), then)

    clients: list[threading.Thread] = []
    with nothing_left():
        host.run(main)
        clients[0].join(WITHIN_S)
        assert not clients[0].is_alive()
        assert not ended, "it has waited for the thread"
        release.set()
    assert [record.reason for record in served.accesses] == ["shutting_down"]
    assert not any(served.driver.outstanding.values())


def test_a_broken_reporter_ends_it_with_its_own_exception(host: Host) -> None:
    def broken(record: Any) -> None:
        if isinstance(record, Access):
            raise ZeroDivisionError("in the reporter")

    def client(address: Address) -> None:
        ask(address)

    threads: list[threading.Thread] = []

    def ready(driver: Any) -> None:
        threads.append(threading.Thread(target=client, args=driver.addresses, daemon=True))
        threads[0].start()

    async def main() -> None:
        await host.serve(answering(hello), "127.0.0.1:0", reporter=broken, on_ready=ready)

    with nothing_left():
        with pytest.raises(ZeroDivisionError):
            host.run(main)
        threads[0].join(WITHIN_S)


# ---------------------------------------------------------------------------------------- names of several addresses


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


@pytest.mark.parametrize("first", ["refuses", "is silent", "is alone and refuses"])
def test_the_addresses_of_a_name_are_tried_in_turn(host: Host, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An origin by name: one of its addresses refuses, or does not answer at all (its backlog is full)."""
    with socket.socket() as refusing, socket.socket() as silent, listening() as live:
        refusing.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        dead = silent if first == "is silent" else refusing
        places = [dead.getsockname(), live.getsockname()][: 1 if "alone" in first else 2]
        real = socket.getaddrinfo

        def look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:
            if host != "origin.test":
                return real(host, port, *args, **options)
            if options.get("flags"):
                raise socket.gaierror(socket.EAI_NONAME, "not a number")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

        def originate() -> None:
            conn, _ = live.accept()
            with conn:
                conn.recv(65536)
                conn.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")

        origin = threading.Thread(target=originate, daemon=True)
        served = Served(host)

        async def then() -> None:
            address = await served.begin()
            answer = await host.in_thread(lambda: ask(address))
            if "alone" in first:
                assert answer.startswith(b"HTTP/1.1 502 ")
            else:
                assert answer.endswith(b"\r\n\r\nhi")

        async def main() -> None:
            await host.both(lambda: served.serve(Proxy(Cluster("http://origin.test:80"))), then)

        with nothing_left():
            if "alone" not in first:
                origin.start()
            host.run(main)
            if "alone" not in first:
                origin.join(WITHIN_S)
        for filler in fillers:
            filler.close()
