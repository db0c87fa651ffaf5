"""What is peculiar to the threads backend: its workers, and the threads that jobs run on.

That it keeps the laws is shown by the conformance suite, that it serves by the interop tests.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from coulee.backends import threads
from coulee.backends.hosting import BLOCKING_JOBS_MAX
from coulee.conformance import Bench
from coulee.core import Access, Exchange, Filter, Proxy, Response, native, respond
from coulee.core.seam import (
    Address,
    Cancel,
    Closed,
    Connect,
    Finished,
    Run,
)
from coulee.lb import Cluster
from tests.conformance.harness import ThreadsHarness

WITHIN_S = 10.0
DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture
def bench() -> Iterator[Bench]:
    harness = ThreadsHarness()
    try:
        bench = Bench(harness)
        yield bench
        bench.end()
    finally:
        harness.end()


def waited(event: threading.Event) -> None:
    assert event.wait(WITHIN_S)


# ----------------------------------------------------------------------------------------------------- jobs


def test_native_jobs_share_one_loop_and_it_is_not_the_thread_of_the_machine(bench: Bench) -> None:
    async def where() -> tuple[object, threading.Thread]:
        await asyncio.sleep(0)
        return asyncio.get_running_loop(), threading.current_thread()

    one, two = bench.number(), bench.number()
    bench.do(Run(one, "native", where))
    bench.do(Run(two, "native", where))
    first, second = bench.wait(Finished, one).value, bench.wait(Finished, two).value
    assert first == second
    assert isinstance(first, tuple)
    assert first[1] is not threading.current_thread()


def test_a_native_job_that_is_cancelled_learns_of_it(bench: Bench) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    bench.do(Run(job := bench.number(), "native", wait))
    waited(begun)
    bench.do(Cancel(job), Cancel(job))
    assert isinstance(bench.wait(Finished, job).error, CancelledError)
    waited(cancelled)


def test_a_blocking_job_that_is_cancelled_goes_on_and_its_result_is_dropped(bench: Bench) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        waited(go_on)
        return "late"

    bench.do(Run(job := bench.number(), "blocking", work))
    waited(begun)
    bench.do(Cancel(job))
    assert isinstance(bench.wait(Finished, job).error, CancelledError)
    go_on.set()
    bench.do(Run(behind := bench.number(), "blocking", lambda: None))
    bench.wait(Finished, behind)
    bench.fence()
    assert len(bench.heard(Finished, job)) == 1


def test_so_many_blocking_jobs_run_and_the_others_wait(bench: Bench) -> None:
    go_on = threading.Event()
    running: list[int] = []

    def work(job: int) -> None:
        running.append(job)
        waited(go_on)

    jobs = [bench.number() for _ in range(BLOCKING_JOBS_MAX + 2)]
    bench.do(*(Run(job, "blocking", partial(work, job)) for job in jobs))
    bench.harness.until(lambda: len(running) == BLOCKING_JOBS_MAX)
    bench.do(Cancel(jobs[-1]))
    assert isinstance(bench.wait(Finished, jobs[-1]).error, CancelledError)
    bench.fence()
    assert len(running) == BLOCKING_JOBS_MAX
    go_on.set()
    for job in jobs[:-1]:
        assert bench.wait(Finished, job).error is None
    assert jobs[-1] not in running


def test_a_name_is_looked_up_while_all_threads_for_jobs_are_busy(bench: Bench) -> None:
    go_on = threading.Event()
    jobs = [bench.number() for _ in range(BLOCKING_JOBS_MAX + 1)]
    bench.do(*(Run(job, "blocking", partial(waited, go_on)) for job in jobs))
    port = int(bench.harness.nobody()[1])
    bench.do(Connect(conn := bench.number(), ("localhost", port)))
    assert bench.wait(Closed, conn).error == "refused"
    go_on.set()
    for job in jobs:
        bench.wait(Finished, job)


# --------------------------------------------------------------------------------------------------- workers


class Answer(Filter):
    """Answers by itself; `/native` with a native job, `/wait` when it is let to."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()

    async def request_filter(self, exchange: Exchange) -> Response:
        if exchange.request.target == "/native":
            await native(asyncio.sleep, 0)
        elif exchange.request.target == "/wait":
            self.asked.set()
            await native(asyncio.to_thread, self.go_on.wait, WITHIN_S)
        return respond(200, "hello")


@pytest.fixture
def answer() -> Answer:
    return Answer()


@pytest.fixture
def proxy(answer: Answer) -> Proxy:
    return Proxy(Cluster("http://127.0.0.1:1"), [answer])


def get(address: Address, target: str = "/") -> bytes:
    if isinstance(address, str):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(WITHIN_S)
            sock.connect(address)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return sock.makefile("rb").read().rpartition(b"\r\n")[2]
    connection = http.client.HTTPConnection(*address, timeout=WITHIN_S)
    try:
        connection.request("GET", target)
        return connection.getresponse().read()
    finally:
        connection.close()


def refused(address: Address) -> bool:
    assert isinstance(address, tuple)
    with socket.socket() as sock:
        return sock.connect_ex(address) == errno.ECONNREFUSED


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No thread is left behind, and no descriptor."""
    before = {each.name for each in DESCRIPTORS.iterdir()} if DESCRIPTORS.is_dir() else set()
    yield
    deadline = time.monotonic() + WITHIN_S
    while any(thread.name.startswith("coulee-") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.001)
    if DESCRIPTORS.is_dir():
        assert len({each.name for each in DESCRIPTORS.iterdir()}) == len(before)


@pytest.mark.parametrize("workers", [1, 3])
def test_it_runs_beside_the_program_that_starts_it(proxy: Proxy, nothing_left: None, workers: int) -> None:
    records: list[object] = []
    running = threads.start(proxy, "127.0.0.1:0", workers=workers, reporter=records.append)
    [address] = running.addresses
    assert [get(address), get(address, "/native")] == [b"hello"] * 2
    assert not running.join(0.0)
    running.stop(5.0)
    assert running.join(WITHIN_S)
    assert refused(address)
    assert [record.status for record in records if isinstance(record, Access)] == [200, 200]
    running.stop()  # is too late, and does no harm


def test_workers_share_the_connections(proxy: Proxy, nothing_left: None) -> None:
    running = threads.start(proxy, ["127.0.0.1:0", "127.0.0.1:0"], workers=2)
    assert [driver.addresses for driver in running.drivers] == [running.addresses] * 2
    met: set[int] = set()
    open_sockets: list[socket.socket] = []
    for _ in range(200):  # the kernel chooses by a hash of the ports
        sock = socket.create_connection(running.addresses[-1], timeout=WITHIN_S)  # type: ignore[arg-type]
        open_sockets.append(sock)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        met = {number for number, driver in enumerate(running.drivers) if driver.wires}
        if len(met) == 2:
            break
    assert met == {0, 1}
    running.stop(0.0)
    running.join()
    for sock in open_sockets:
        sock.close()


def test_records_of_several_workers_come_one_at_a_time(proxy: Proxy, nothing_left: None) -> None:
    inside: list[object] = []
    together = threading.Event()

    def report(record: object) -> None:
        inside.append(record)
        if len(inside) > 1:
            together.set()
        if isinstance(record, Access):
            together.wait(0.02)  # for the other one
        inside.remove(record)

    running = threads.start(proxy, "127.0.0.1:0", workers=2, reporter=report)
    clients = [threading.Thread(target=get, args=(running.addresses[0],)) for _ in range(16)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(WITHIN_S)
    running.stop()
    running.join()
    assert not together.is_set()


def test_the_end_awaits_that_native_jobs_tidy_up(proxy: Proxy, answer: Answer, nothing_left: None) -> None:
    tidied = threading.Event()

    async def work() -> None:
        try:
            answer.asked.set()
            await asyncio.Event().wait()
        finally:
            threading.Event().wait(0.05)  # it takes its time
            tidied.set()

    class Working(Filter):
        async def request_filter(self, exchange: Exchange) -> None:
            await native(work)

    running = threads.start(Proxy(Cluster("http://127.0.0.1:1"), [Working()]), "127.0.0.1:0")
    with socket.create_connection(running.addresses[0], timeout=WITHIN_S) as client:  # type: ignore[arg-type]
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        waited(answer.asked)
        running.stop(0.0)
        assert running.join(WITHIN_S)
        assert tidied.is_set()


def test_nobody_need_wait_for_the_end(proxy: Proxy, nothing_left: None) -> None:
    running = threads.start(proxy, "127.0.0.1:0", workers=2)
    assert get(running.addresses[0], "/native") == b"hello"
    running.stop()


def test_workers_share_the_path_of_a_unix_socket(proxy: Proxy, nothing_left: None, tmp_path: Path) -> None:
    path = str(tmp_path / "proxy.sock")
    running = threads.start(proxy, path, workers=2)
    assert running.addresses == [path]
    assert [get(path) for _ in range(8)] == [b"hello"] * 8
    running.stop()
    running.join()
    assert not Path(path).exists()


@pytest.mark.parametrize("times", [1, 2])
def test_what_runs_is_finished_and_asked_again_it_ends_at_once(
    proxy: Proxy, answer: Answer, nothing_left: None, times: int
) -> None:
    running = threads.start(proxy, "127.0.0.1:0", grace_s=60.0)
    [address] = running.addresses
    got: list[bytes] = []
    client = threading.Thread(target=lambda: got.append(get(address, "/wait")))
    client.start()
    waited(answer.asked)
    running.stop()
    assert not running.join(0.0)
    if times == 1:
        answer.go_on.set()
    else:
        running.stop()
    client.join(WITHIN_S)
    assert got == [b"hello"] if times == 1 else b"shutting_down" in got[0]
    answer.go_on.set()
    assert running.join(WITHIN_S)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_address_that_is_taken(proxy: Proxy, nothing_left: None, workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host, port = taken.getsockname()
        for begin in (threads.start, threads.serve, threads.run):
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: "):
                begin(proxy, ["127.0.0.1:0", (host, port)], workers=workers)


def test_a_worker_that_fails_ends_all_and_is_told(proxy: Proxy, nothing_left: None) -> None:
    def refuse(record: object) -> None:
        if isinstance(record, Access):
            raise LookupError("no such log")  # noqa: TRY004 -- any exception that is not an OSError

    running = threads.start(proxy, "127.0.0.1:0", workers=2, reporter=refuse)
    with suppress(OSError, http.client.HTTPException):
        get(running.addresses[0])
    with pytest.raises(LookupError, match="no such log"):
        running.join(WITHIN_S)


@pytest.mark.parametrize("workers", [1, 2])
def test_serving_in_this_thread(proxy: Proxy, nothing_left: None, workers: int) -> None:
    got: list[bytes] = []

    def use(running: threads.Running) -> None:
        def work() -> None:
            got.append(get(running.addresses[0]))
            running.stop()

        user = threading.Thread(target=work)
        user.start()

    threads.serve(proxy, ("127.0.0.1", 0), workers=workers, on_ready=use)
    assert got == [b"hello"]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_on_ready_raises_ends_it(proxy: Proxy, nothing_left: None, workers: int) -> None:
    def refuse(running: threads.Running) -> None:
        raise LookupError(str(len(running.drivers)))

    with pytest.raises(LookupError, match=str(workers)):
        threads.serve(proxy, "127.0.0.1:0", workers=workers, on_ready=refuse)


@pytest.fixture
def signals() -> Iterator[None]:
    """Signals come to the main thread only, and afterwards do what they did before."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("these tests do not run in the main thread")
    found = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs us behind itself ignores it
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1
    signal.signal(signal.SIGINT, found)


@pytest.mark.parametrize("times", [1, 2])
def test_one_signal_lets_what_runs_finish_and_a_second_one_ends_it(
    proxy: Proxy, answer: Answer, nothing_left: None, signals: None, times: int
) -> None:
    got: list[bytes] = []
    users: list[threading.Thread] = []

    def use(running: threads.Running) -> None:
        def work() -> None:
            client = threading.Thread(target=lambda: got.append(get(address, "/wait")))
            client.start()
            waited(answer.asked)
            os.kill(os.getpid(), signal.SIGTERM)
            until(lambda: running.drivers[0].draining)
            if times == 2:
                os.kill(os.getpid(), signal.SIGINT)
                client.join(WITHIN_S)
            answer.go_on.set()
            client.join(WITHIN_S)

        [address] = running.addresses
        users.append(threading.Thread(target=work))
        users[0].start()

    threads.run(proxy, "127.0.0.1:0", grace_s=60.0, on_ready=use)
    users[0].join(WITHIN_S)
    assert got == [b"hello"] if times == 1 else b"shutting_down" in got[0]


def test_a_third_signal_does_what_it_would_do_without_us(proxy: Proxy, nothing_left: None, signals: None) -> None:
    def use(running: threads.Running) -> None:
        hear = signal.getsignal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is hear
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        raise KeyboardInterrupt  # as that does

    with pytest.raises(KeyboardInterrupt):
        threads.run(proxy, "127.0.0.1:0", on_ready=use)


def test_a_thread_without_signals_may_run_it_too(proxy: Proxy, nothing_left: None) -> None:
    got: list[bytes] = []

    def use(running: threads.Running) -> None:
        running.stop()
        got.append(b"ready")

    runner = threading.Thread(target=lambda: threads.run(proxy, "127.0.0.1:0", on_ready=use))
    runner.start()
    runner.join(WITHIN_S)
    assert got == [b"ready"]
    assert not runner.is_alive()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_one_worker_under_the_gil_and_one_a_core_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    assert threads.workers_by_default() == 1
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 3}, raising=False)
    assert threads.workers_by_default() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert threads.workers_by_default() == 5


def test_no_worker_at_all_is_a_mistake(proxy: Proxy, nothing_left: None) -> None:
    with pytest.raises(ValueError, match="at least one worker, and 0"):
        threads.start(proxy, "127.0.0.1:0", workers=0)
