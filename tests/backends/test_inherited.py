"""Listening sockets that a process was given: who gets them, on each backend, and that nobody who comes is lost.

A server is a backend in a thread of this process, or in a process of its own. Two of them have one socket.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from ast import literal_eval
from collections.abc import Callable, Generator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from coulee.backends import inherited, sockets
from coulee.backends.loop import EXCLUSIVE, READABLE, Loop, Selector, new_poller
from coulee.conformance import Bench
from coulee.core import Exchange, Filter, Peer, Proxy, Response, respond
from coulee.core.seam import Accept, Accepted, Address, Close, Closed, Listen, Listening
from coulee.lb import Cluster
from tests.conformance.harness import ThreadsHarness

WITHIN_S = 10.0
ASKED: Address = ("127.0.0.1", 0)
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


class Name(Filter):
    """Answers with the name of who answers."""

    def __init__(self, name: str) -> None:
        self.name = name

    def request_filter(self, exchange: Exchange) -> Response:
        return respond(200, self.name)


class Server:
    """A process of its own that listens with what this one was given."""

    def __init__(self, backend: str, name: str, listen: Address = ASKED) -> None:
        lent = inherited.given(listen) or []
        handed = [sock.fileno() for sock in lent]  # none: it opens its own
        said = [backend, name, repr(listen), repr(handed)]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *said], pass_fds=handed, stdout=subprocess.PIPE, env=ENVIRONMENT
        )
        for sock in lent:
            sock.close()

    def is_up(self) -> None:
        assert self.process.stdout is not None
        up, _, address = self.process.stdout.readline().decode().partition(" ")
        assert up == "up"
        self.address: Address = literal_eval(address)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def say_up(running: Any) -> None:
    print("up", repr(running.addresses[0]), flush=True)


def serve(backend: str, name: str, listen: str, handed: str) -> None:
    """What such a process does: run a backend to its end."""
    address: Address = literal_eval(listen)
    given = [socket.socket(fileno=fd) for fd in literal_eval(handed)]
    if given:
        inherited.give(address, given)
    options = {"uvloop": True} if backend == "uvloop" else {}
    module = import_module(f"coulee.backends.{'asyncio' if backend == 'uvloop' else backend}")
    proxy = Proxy(Cluster(Peer("nowhere")), [Name(name)])
    module.run(proxy, [address], grace_s=WITHIN_S, on_ready=say_up, **options)


@pytest.fixture(params=["asyncio", "uvloop", "trio", "curio", "threads"])
def backend(request: pytest.FixtureRequest) -> str:
    library = {"threads": "coulee"}.get(request.param, request.param)
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    return str(request.param)


@pytest.fixture(autouse=True)
def _nothing_is_given_afterwards() -> Generator[None, None, None]:
    yield
    for listening in inherited.take_back().values():
        for sock in listening:
            sockets.stop_listening(sock)


@pytest.fixture
def start() -> Generator[Callable[..., list[Server]], None, None]:
    servers: list[Server] = []

    def begin(backend: str, *names: str, listen: Address = ASKED) -> list[Server]:
        begun = [Server(backend, name, listen) for name in names]
        servers.extend(begun)
        for server in begun:
            server.is_up()
        return begun

    yield begin
    for server in servers:
        server.end()


def given(address: Address = ASKED) -> Address:
    """Open what is listened at, and give it. Returns where it is."""
    opened = inherited.open_all(address)
    inherited.give(address, opened)
    return sockets.plain(opened[0].getsockname())


def dial(address: Address) -> socket.socket:
    client = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    client.settimeout(WITHIN_S)
    client.connect(address)
    return client


def answer(client: socket.socket) -> str:
    """Who answers; raises where the connection is reset, and says "" where nobody does."""
    got = b""
    with client:
        while data := client.recv(65536):
            got += data
    return got.rpartition(b"\r\n\r\n")[2].decode()


def ask(address: Address) -> str:
    client = dial(address)
    client.sendall(REQUEST)
    return answer(client)


# ------------------------------------------------------------------------------------------------ the registry


def test_what_is_given_is_handed_out_in_duplicate() -> None:
    (original,) = inherited.open_all(ASKED)
    inherited.give(ASKED, [original])
    (lent,) = inherited.given(ASKED) or []
    with lent:
        assert lent.fileno() != original.fileno()
        assert lent.getsockname() == original.getsockname()
        assert not lent.getblocking()
        assert not lent.get_inheritable()
    dial(original.getsockname()).close()
    assert inherited.given(("127.0.0.1", original.getsockname()[1])) is None, "not what was asked for"
    (other,) = inherited.open_all(ASKED, inheritable=True)
    assert other.get_inheritable()
    inherited.give(ASKED, [other])
    (lent,) = inherited.given(ASKED) or []
    with lent, original:
        assert lent.getsockname() == other.getsockname(), "the later one counts"
    with pytest.raises(ValueError, match="no socket"):
        inherited.give(ASKED, [])


@pytest.mark.parametrize(
    ("given_for", "asked", "same"),
    [
        (("::1", 80), ("0:0:0:0:0:0:0:1", 80), True),
        (("LocalHost", 80), ("localhost", 80), True),
        (("127.0.0.1", 80), ("127.0.0.1", 81), False),
        (("127.0.0.1", 0), ("127.0.0.1", 80), False),
        (("", 80), ("0.0.0.0", 80), False),
        (("", 80), ("", 80), True),
        ("./a.sock", os.path.abspath("a.sock"), True),
        ("/a/../b.sock", "/b.sock", True),
        ("@a", "@a", True),
        ("@a", "a", False),
        ("@a", "./@a", False),
        ("/b.sock", ("/b.sock", 0), False),
    ],
)
def test_which_addresses_are_the_same(given_for: Address, asked: Address, same: bool) -> None:
    (sock,) = inherited.open_all(ASKED)
    with inherited.giving(given_for, [sock]):
        found = inherited.given(asked)
        for lent in found or []:
            lent.close()
    assert (found is not None) is same
    assert inherited.given(given_for) is None
    sock.close()


def test_what_is_opened_is_what_a_backend_would_open() -> None:
    both = inherited.open_all(("", 0))
    assert {sock.family for sock in both} <= {socket.AF_INET, socket.AF_INET6}
    assert len({sock.getsockname()[1] for sock in both}) == 1
    named = inherited.open_all(("localhost", 0))
    assert named[0].getsockname()[0] in ("127.0.0.1", "::1")
    for sock in (*both, *named):
        sock.close()
    with pytest.raises(OSError, match="not known"):
        inherited.open_all(("no-such-host.invalid", 80))


def test_duplicates_that_cannot_be_had_leave_none() -> None:
    first, second = inherited.open_all(ASKED)[0], inherited.open_all(ASKED)[0]
    inherited.give(ASKED, [first, second])
    second.close()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        inherited.given(ASKED)
    assert len(os.listdir("/proc/self/fd")) == before
    inherited.take_back()
    first.close()


# ------------------------------------------------------------------------------------------------- the backends


def test_a_backend_listens_with_what_its_process_was_given(backend: str, start: Callable[..., list[Server]]) -> None:
    address = given()
    (one,) = start(backend, "one")
    assert ask(address) == "one"
    one.process.terminate()
    assert one.process.wait(WITHIN_S) == 0
    waiting = dial(address)
    waiting.sendall(REQUEST)
    start(backend, "two")
    assert answer(waiting) == "two", "the socket has lived on, and its backlog"


def test_a_path_that_was_given_stays_when_a_backend_ends(
    backend: str, start: Callable[..., list[Server]], tmp_path: Path
) -> None:
    path = str(tmp_path / "a.sock")
    assert given(path) == path
    one, _ = start(backend, "one", "two", listen=path)
    assert ask(path) in ("one", "two")
    one.process.terminate()
    assert one.process.wait(WITHIN_S) == 0
    assert ask(path) == "two"


def test_nobody_is_lost_when_one_of_two_goes(backend: str, start: Callable[..., list[Server]]) -> None:
    """Two processes have one socket. Clients come one after the other; in the midst of them one process goes."""
    address = given()
    one, _ = start(backend, "one", "two")
    answers: list[str] = []

    def come() -> None:
        for _ in range(50):
            answers.append(ask(address))

    clients = [threading.Thread(target=come) for _ in range(4)]
    for client in clients:
        client.start()
    while len(answers) < 60 and any(client.is_alive() for client in clients):
        clients[0].join(0.001)
    one.process.terminate()
    for client in clients:
        client.join(WITHIN_S)
    assert len(answers) == 200
    assert set(answers) <= {"one", "two"}
    assert one.process.wait(WITHIN_S) == 0
    assert ask(address) == "two"


def test_who_wakes_a_process_that_goes_is_not_forgotten(backend: str, start: Callable[..., list[Server]]) -> None:
    """A client comes together with the signal: it may have woken that process alone. Somebody serves it."""
    address = given()
    *going, _ = start(backend, "goes", "goes", "goes", "stays")
    for goes in going:
        goes.process.send_signal(signal.SIGSTOP)
        clients = [dial(address) for _ in range(3)]
        for client in clients:
            client.sendall(REQUEST)
        goes.process.terminate()
        goes.process.send_signal(signal.SIGCONT)
        assert {answer(client) for client in clients} <= {"goes", "stays"}
        assert goes.process.wait(WITHIN_S) == 0


def test_who_waits_when_a_process_ends_that_listens_alone_is_let_in(
    backend: str, start: Callable[..., list[Server]]
) -> None:
    (only,) = start(backend, "only")
    only.process.send_signal(signal.SIGSTOP)
    clients = [dial(only.address) for _ in range(20)]
    for client in clients:
        client.sendall(REQUEST)
    only.process.terminate()
    only.process.send_signal(signal.SIGCONT)
    assert [answer(client) for client in clients] == ["only"] * 20
    assert only.process.wait(WITHIN_S) == 0


# ----------------------------------------------------------------------------------------------------- our loop


class Ear:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.heard = 0

    def ready(self, _: int) -> None:
        self.heard += 1


@pytest.mark.skipif(not EXCLUSIVE, reason="this system has no EPOLLEXCLUSIVE")
def test_one_connection_wakes_one_of_the_loops_that_sleep() -> None:
    (door,) = inherited.open_all(ASKED)
    loops = [Loop() for _ in range(4)]
    ears = [Ear() for _ in loops]
    sleepers: list[threading.Thread] = []
    for loop, ear in zip(loops, ears, strict=True):
        loop.handles[door.fileno()] = ear
        loop.watch(door.fileno(), READABLE | EXCLUSIVE, 0)
        sleepers.append(threading.Thread(target=loop.turn, args=(WITHIN_S,)))
        sleepers[-1].start()
    for thread in sleepers:
        until_it_sleeps(thread)
    client = dial(door.getsockname())
    select.select([door], [], [], WITHIN_S)
    for loop in loops:
        loop.nudge()
    for thread in sleepers:
        thread.join(WITHIN_S)
    heard = [ear.heard for ear in ears]
    client.close()
    for loop in loops:
        loop.close()
    door.close()
    assert sorted(heard) == [0, 0, 0, 1]


class Watched:
    """A poller that writes down what is put into it."""

    def __init__(self) -> None:
        self.poller = new_poller()
        self.registered: list[int] = []
        self.modify, self.unregister = self.poller.modify, self.poller.unregister
        self.fileno, self.poll, self.close = self.poller.fileno, self.poller.poll, self.poller.close

    def register(self, fd: int, mask: int, /) -> None:
        self.registered.append(mask)
        self.poller.register(fd, mask)


def test_a_listener_that_is_closed_hears_no_more_of_a_socket_that_lives_on() -> None:
    """close() alone leaves it in epoll, for the process has another descriptor of it: then the loop would spin."""
    address, poller = given(), Watched()
    harness = ThreadsHarness(poller)
    bench = Bench(harness)
    listener, conn = bench.number(), bench.number()
    bench.do(Listen(listener, ASKED), Accept(conn, listener))
    bench.wait(Listening, listener)
    assert poller.registered[-1] == READABLE | EXCLUSIVE
    bench.do(Close(listener))
    with dial(address):
        assert poller.poll(0.0, 8) == []
    bench.end()
    harness.end()


def test_who_has_come_is_let_in_before_the_machine_is_told_to_stop() -> None:
    """Whoever has woken this process has perhaps woken no other."""
    address = given()
    harness = ThreadsHarness()
    bench = Bench(harness)
    listener, conn = bench.number(), bench.number()
    bench.do(Listen(listener, ASKED), Accept(conn, listener))
    bench.wait(Listening, listener)
    with dial(address):
        harness.driver.drain(1.0)
        assert bench.heard(Accepted, conn)
        bench.do(Close(listener), Close(conn))
        bench.wait(Closed, conn)
    bench.end()
    harness.end()


def until_it_sleeps(thread: threading.Thread) -> None:
    """Until a thread waits in epoll_wait, by what the system says of it."""
    limit = time.monotonic() + WITHIN_S
    wchan = Path(f"/proc/self/task/{thread.native_id}/wchan")
    while "poll" not in wchan.read_text() and time.monotonic() < limit:
        time.sleep(0.001)


def test_a_selector_takes_it_for_readable() -> None:
    (door,) = inherited.open_all(ASKED)
    loop, ear = Loop(Selector()), Ear()
    loop.handles[door.fileno()] = ear
    loop.watch(door.fileno(), READABLE | EXCLUSIVE, 0)
    client = dial(door.getsockname())
    loop.turn(WITHIN_S)
    assert ear.heard == 1
    client.close()
    loop.close()
    door.close()


if __name__ == "__main__":
    serve(*sys.argv[1:])
