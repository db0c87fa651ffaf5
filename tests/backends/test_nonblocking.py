"""Connections on non-blocking sockets, and the loop that watches them, where they do more than the laws ask for.

That they keep the laws is shown by the conformance suite.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from selectors import PollSelector
from typing import Any

import pytest

from coulee.backends import inherited, nonblocking, sockets, threads
from coulee.backends.loop import READABLE, WRITABLE, Loop, Selector, new_poller
from coulee.conformance import Bench
from coulee.core import Proxy
from coulee.core.seam import (
    Accept,
    Accepted,
    Blocked,
    Close,
    Closed,
    Connect,
    Connected,
    Hold,
    Listen,
    Listening,
    Receive,
    Received,
    Send,
    Sent,
)
from coulee.lb import Cluster
from tests.conformance.harness import ThreadsHarness

WITHIN_S = 10.0
NAME = "origin.test"
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


# -------------------------------------------------------------------------------------------------- the loop


@pytest.fixture(params=[new_poller, Selector, lambda: Selector(PollSelector())])
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    loop = Loop(request.param())
    yield loop
    loop.close()


def test_timers_ring_in_order_and_not_when_cancelled(loop: Loop) -> None:
    rung: list[str] = []
    now = time.monotonic()
    loop.on_alarm = lambda: rung.append("alarm")
    loop.arm(now + 0.02)
    loop.call_later(0.03, lambda: rung.append("third"))
    loop.call_later(0.01, lambda: rung.append("first"))
    loop.call_later(0.015, lambda: rung.append("never")).cancel()
    while len(rung) < 3:
        loop.turn()
    assert rung == ["first", "alarm", "third"]
    assert time.monotonic() >= now + 0.03


def test_a_call_from_another_thread_wakes_the_loop(loop: Loop) -> None:
    heard: list[threading.Thread] = []
    caller = threading.Thread(target=loop.call, args=(lambda: heard.append(threading.current_thread()),))
    caller.start()
    began = time.monotonic()
    while not heard:
        loop.turn(WITHIN_S)
    assert heard == [threading.current_thread()]
    assert time.monotonic() < began + WITHIN_S
    caller.join()


def test_a_call_to_a_loop_that_has_ended_is_lost(loop: Loop) -> None:
    loop.close()
    loop.call(lambda: pytest.fail("who should call it?"))
    loop.waker, loop._ear = socket.socketpair()  # for the fixture to close


def test_who_asks_for_nothing_hears_nothing(loop: Loop) -> None:
    """Not even that the connection is reset, which epoll would say again and again."""
    heard: list[int] = []

    class Ear:
        def ready(self, events: int) -> None:
            heard.append(events)

    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = ours.fileno()
        loop.handles[fd] = Ear()
        loop.watch(fd, READABLE, 0)
        theirs.send(b"x")
        loop.turn(WITHIN_S)
        assert heard == [READABLE]
        loop.watch(fd, READABLE | WRITABLE, READABLE)
        loop.turn(WITHIN_S)
        assert heard == [READABLE, READABLE | WRITABLE]
        loop.watch(fd, 0, READABLE | WRITABLE)
        theirs.close()
        loop.turn(0.0)
        assert len(heard) == 2
        loop.forget(fd, 0)
        assert fd not in loop.handles


# ------------------------------------------------------------------------------------------- connections


def idle(bench: Bench) -> bool:
    """Whether the loop has nothing to tell."""
    return not bench.harness.driver.loop.poller.poll(0.0, 16)  # type: ignore[attr-defined]


def turn(bench: Bench, times: int = 3) -> None:
    for _ in range(times):
        bench.harness.driver.loop.turn(0.0)  # type: ignore[attr-defined]


def test_who_is_held_is_looked_at_once_more_and_then_left_alone(bench: Bench) -> None:
    conn, peer = bench.accepted()
    bench.do(Receive(conn))
    peer.write(b"a")
    bench.wait_for_bytes(conn, 1)
    bench.do(Hold(conn))
    peer.write(b"b")
    bench.fence()
    turn(bench)
    assert idle(bench), "bytes that nobody wants must not keep the loop awake"
    peer.reset()
    turn(bench)
    assert idle(bench), "nor must a reset"
    bench.do(Receive(conn))
    assert bench.wait(Closed, conn).error == "reset"


def test_who_has_said_all_is_left_alone(bench: Bench) -> None:
    conn, peer = bench.accepted()
    bench.do(Receive(conn))
    peer.write_eof()
    bench.wait_for_end(conn)
    turn(bench)
    assert idle(bench)
    bench.do(Send(conn, b"", eof=True))  # both directions are shut now, which is a hang-up to poll(2)
    bench.harness.until(lambda: peer.eof)
    turn(bench)
    assert idle(bench)


def test_who_has_read_it_all_is_left_alone(bench: Bench) -> None:
    conn, peer = bench.accepted()
    peer.pause()
    bench.do(Send(conn, b"x" * 10_000_000))
    assert bench.heard(Blocked, conn)
    peer.resume()
    bench.wait(Sent, conn)
    turn(bench)
    assert idle(bench)


def test_who_has_just_connected_is_left_alone(bench: Bench) -> None:
    conn, _ = bench.connected()
    turn(bench)
    assert idle(bench)
    local, _ = bench.harness.listen(("127.0.0.1", 0))
    brief = bench.number()
    bench.react(Connected, brief, Close(brief))
    bench.do(Connect(brief, local))
    assert bench.wait(Closed, brief).error is None
    bench.fence()
    assert not bench.heard(Closed, conn)


def test_a_socket_that_takes_nothing_at_all(bench: Bench) -> None:
    conn, peer = bench.accepted()
    peer.pause()
    wire: Any = bench.harness.driver.wires[conn]
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += wire._sock.send(b"x" * 65536)
    bench.do(Send(conn, b"end"))
    assert bench.heard(Blocked, conn)
    peer.resume()
    bench.wait(Sent, conn)
    bench.wait_for_peer(peer, b"x" * filled + b"end")


def test_reads_grow_with_a_large_body(bench: Bench) -> None:
    conn, peer = bench.accepted()
    peer.write(b"x" * 2_000_000)
    bench.fence()
    bench.do(Receive(conn))
    bench.wait_for_bytes(conn, 2_000_000)
    sizes = [len(item.data) for item in bench.heard(Received, conn)]
    assert sizes[0] == nonblocking.READ_BYTES
    assert max(sizes) == nonblocking.MORE_BYTES


def test_more_pieces_than_the_system_takes_at_once(bench: Bench) -> None:
    conn, peer = bench.accepted()
    pieces = [b"%d " % number for number in range(3000)]
    pieces[7] = b""
    bench.do(Send(conn, pieces))
    bench.wait_for_peer(peer, b"".join(pieces))


def test_to_be_woken_for_nothing_does_no_harm(bench: Bench) -> None:
    """As happens where a descriptor gets a new owner while a turn of the loop lasts."""
    conn, peer = bench.accepted()
    bench.do(Receive(conn))
    wire: Any = bench.harness.driver.wires[conn]
    for events in (READABLE, WRITABLE, READABLE | WRITABLE):
        wire.ready(events)
    assert not bench.heard(Received, conn)
    peer.write(b"x")
    assert bench.wait_for_bytes(conn, 1) == b"x"
    with silent() as place:
        bench.do(Connect(dialled := bench.number(), place))
        dialling: Any = bench.harness.driver.wires[dialled]
        dialling._dial._attempts[0].ready(WRITABLE)
        assert not bench.heard(Connected, dialled)
        assert not bench.heard(Closed, dialled)


# ----------------------------------------------------------------------------------------------- connecting


class silent:
    """An address that answers nothing: the queue of its listening socket is full."""

    def __enter__(self) -> tuple[str, int]:
        self.listening = socket.socket()
        self.listening.bind(("127.0.0.1", 0))
        self.listening.listen(0)
        self.crowd: list[socket.socket] = []
        place: tuple[str, int] = self.listening.getsockname()
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(place)
            self.crowd.append(sock)
        return place

    def __exit__(self, *_: object) -> None:
        for sock in (self.listening, *self.crowd):
            sock.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[str, int]]]:
    """What a look-up finds; every other name is unknown."""
    known: dict[str, list[tuple[str, int]]] = {}
    numeric = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        if host not in known or options.get("flags"):
            return numeric(host, port, **{**options, "flags": socket.AI_NUMERICHOST})
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def test_where_one_address_of_a_name_refuses_the_next_is_tried_at_once(
    bench: Bench, names: dict[str, list[tuple[str, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "ATTEMPT_DELAY_S", 3600.0)
    local, peers = bench.harness.listen(("127.0.0.1", 0))
    names[NAME] = [bench.harness.nobody(), bench.harness.nobody(), local]  # type: ignore[list-item]
    bench.do(Connect(conn := bench.number(), (NAME, 80)))
    assert bench.wait(Connected, conn).peer == local
    bench.do(Send(conn, b"hello"))
    bench.harness.until(lambda: peers and peers[0].received == b"hello")


def test_where_one_address_is_silent_the_next_is_tried_soon(
    bench: Bench, names: dict[str, list[tuple[str, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "ATTEMPT_DELAY_S", 0.05)
    local, _ = bench.harness.listen(("127.0.0.1", 0))
    with silent() as place:
        names[NAME] = [place, local]  # type: ignore[list-item]
        began = time.monotonic()
        bench.do(Connect(conn := bench.number(), (NAME, 80)))
        assert bench.wait(Connected, conn).peer == local
        assert time.monotonic() - began >= 0.05
    bench.fence()
    assert not bench.heard(Closed, conn), "the attempt that came second is forgotten"


def test_where_every_address_fails_the_last_error_is_told(
    bench: Bench, names: dict[str, list[tuple[str, int]]]
) -> None:
    names[NAME] = [bench.harness.nobody(), bench.harness.nobody()]  # type: ignore[list-item]
    bench.do(Connect(conn := bench.number(), (NAME, 80)))
    assert bench.wait(Closed, conn).error == "refused"


def test_a_name_that_nobody_knows(bench: Bench, names: dict[str, list[tuple[str, int]]]) -> None:
    bench.do(Connect(conn := bench.number(), (NAME, 80)), Listen(listener := bench.number(), (NAME, 80)))
    for number in (conn, listener):
        closed = bench.wait(Closed, number)
        assert closed.error == "unreachable"
        assert closed.detail


def test_listening_at_a_name(bench: Bench, names: dict[str, list[tuple[str, int]]]) -> None:
    names[NAME] = [("127.0.0.1", 0)]
    _, local = bench.listener((NAME, 0))
    assert local[0] == "127.0.0.1"


def test_who_is_given_up_while_being_looked_up_is_forgotten(
    bench: Bench, names: dict[str, list[tuple[str, int]]]
) -> None:
    names[NAME] = [("127.0.0.1", 1)]
    conn, listener = bench.number(), bench.number()
    bench.do(Connect(conn, (NAME, 80)), Listen(listener, (NAME, 0)), Close(conn), Close(listener))
    for number in (conn, listener):
        assert bench.wait(Closed, number).error is None
    bench.fence()
    assert not bench.heard(Listening, listener)
    assert not bench.heard(Connected, conn)


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="counts descriptors in /proc")
def test_who_is_given_up_while_being_dialled_leaves_no_socket(
    bench: Bench, names: dict[str, list[tuple[str, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "ATTEMPT_DELAY_S", 0.01)
    with silent() as place:
        names[NAME] = [place, place, place]
        before = len(list(DESCRIPTORS.iterdir()))
        bench.do(Connect(conn := bench.number(), (NAME, 80)))
        bench.harness.until(lambda: len(list(DESCRIPTORS.iterdir())) == before + 3)
        bench.do(Close(conn))
        assert bench.wait(Closed, conn).error is None
        assert len(list(DESCRIPTORS.iterdir())) == before


def test_a_unix_socket_with_a_full_backlog_fails_at_once(bench: Bench) -> None:
    path = bench.harness.path()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(0)
        conns = [bench.number() for _ in range(8)]
        bench.do(*(Connect(conn, path) for conn in conns))
        assert bench.wait(Closed, conns[-1]).error == "resources"


def test_out_of_descriptors_it_waits_and_does_not_spin(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "ACCEPT_PAUSE_S", 0.02)
    listener, local = bench.listener()
    conns = [bench.number() for _ in range(2)]
    tries: list[float] = []

    class Poor:
        """A listening socket while there are no descriptors left."""

        def accept(self) -> tuple[socket.socket, Any]:
            tries.append(time.monotonic())
            if len(tries) < 4:
                raise OSError(errno.EMFILE, "too many open files")
            return real.accept()

    driver: Any = bench.harness.driver
    [door] = [handle for handle in driver.loop.handles.values() if isinstance(handle, nonblocking._Door)]
    real = door._sock
    monkeypatch.setattr(door, "_sock", Poor())
    bench.do(*(Accept(conn, listener) for conn in conns))
    bench.harness.connect(local)
    bench.wait(Accepted, conns[0])
    gaps = [later - earlier for earlier, later in pairwise(tries[:4])]
    assert all(gap >= 0.02 for gap in gaps), gaps


def test_all_who_are_there_are_let_in_also_in_a_turn_in_which_others_were_read() -> None:
    """The machine gives one credit for each that it is told of, so it must be told of them one by one."""
    running = threads._made(Proxy(Cluster("http://127.0.0.1:9")), "127.0.0.1:0", 1, None, 0.0, 0)
    running.open()
    [driver] = running.drivers
    [address] = driver.addresses
    assert isinstance(address, tuple)
    clients = [socket.create_connection(address)]
    try:
        [listener] = driver.listeners.values()
        assert isinstance(listener, nonblocking.NonblockingListener)
        listener.accept(listener._sockets[0])
        [wire] = driver.wires.values()
        assert driver.gather(wire, b"GET / ")
        clients += [socket.create_connection(address) for _ in range(3)]
        listener.accept(listener._sockets[0])
        assert len(driver.wires) == 4
    finally:
        for client in clients:
            client.close()
        running.abandon()


@pytest.mark.skipif(not hasattr(select, "EPOLLEXCLUSIVE"), reason="all of them are woken, whoever comes")
def test_those_who_accept_from_one_socket_take_turns() -> None:
    """The system would wake the first of them, as long as it sleeps; and all clients who stay would be its own."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ExitStack() as stack:
        address = "127.0.0.1", listening.getsockname()[1]
        inherited.give(address, [listening])
        stack.callback(inherited.take_back)
        drivers: list[threads.ThreadsDriver] = []
        for _ in range(2):
            running = threads.start(Proxy(Cluster("http://127.0.0.1:9")), address)
            stack.callback(running.join)
            stack.callback(running.stop, 0.0)
            drivers += running.drivers
        for count in range(1, 9):
            stack.enter_context(socket.create_connection(address))
            deadline = time.monotonic() + WITHIN_S
            while sum(len(driver.wires) for driver in drivers) < count:
                assert time.monotonic() < deadline, "nobody accepts"
                time.sleep(0.001)
        assert min(len(driver.wires) for driver in drivers) >= 2, "one of them does nothing"
