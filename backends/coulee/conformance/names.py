"""Names: every address of one is tried, a dead one costs a moment, a late answer changes nothing."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence

import pytest

from coulee.conformance.bench import Bench, Chapter, port_of
from coulee.conformance.harness import TCP, Peer
from coulee.core.seam import Accept, Accepted, Close, Closed, Connect, Connected, Listen, Listening, Receive

NAME = "somewhere.test"
DEAD = "127.0.0.2"  # of this host, and nobody listens there


class Names(Chapter):
    """See the top of the module."""

    def test_a_name_is_looked_up(self, bench: Bench) -> None:
        asked: list[str] = []

        def look_up(name: str) -> Sequence[str]:
            asked.append(name)
            return ["127.0.0.1"]

        connect_by_name(bench, look_up)
        assert asked == [NAME]

    def test_an_address_that_refuses_does_not_end_a_connect(self, bench: Bench) -> None:
        connect_by_name(bench, lambda _: [DEAD, "127.0.0.1"])

    def test_an_address_that_does_not_answer_is_not_waited_for(self, bench: Bench) -> None:
        port, peers = listen_at_name(bench)
        hole = bench.harness.black_hole(port)
        bench.harness.look_up(lambda _: [hole, "127.0.0.1"])
        connect_at_name(bench, port, peers)
        before, conn = descriptors(), bench.number()
        bench.do(Connect(conn, (NAME, port)))
        bench.wait(Connected, conn)
        bench.harness.until(lambda: len(peers) == 2)
        bench.harness.until(lambda: descriptors() == before + 2)  # both ends, and nothing is left of the other attempt

    def test_a_family_that_is_dead_costs_one_attempt(self, bench: Bench) -> None:
        connect_by_name(bench, lambda _: ["::1", "127.0.0.1"])

    def test_the_last_of_many_addresses_is_reached(self, bench: Bench) -> None:
        connect_by_name(bench, lambda _: [f"127.0.0.{last}" for last in range(2, 12)] + ["127.0.0.1"])

    def test_all_addresses_are_dead(self, bench: Bench) -> None:
        bench.harness.look_up(lambda _: [DEAD, "127.0.0.3"])
        port = port_of(bench.harness.nobody())
        conn = bench.number()
        bench.do(Connect(conn, (NAME, port)))
        closed = bench.wait(Closed, conn)
        assert closed.error == "refused"
        assert closed.detail
        assert len(bench.heard(Closed, conn)) == 1

    def test_a_name_that_does_not_exist(self, bench: Bench) -> None:
        bench.harness.look_up(no_such_name)
        conn, listener, credit = bench.number(), bench.number(), bench.number()
        bench.do(Connect(conn, (NAME, 80)), Listen(listener, (NAME, 0)), Accept(credit, listener))
        for number in (conn, listener):
            closed = bench.wait(Closed, number)
            assert closed.error == "unreachable"
            assert closed.detail
        assert bench.wait(Closed, credit).error == "aborted"

    @pytest.mark.parametrize("name", ["nul\0.test", "a" * 64 + ".test", "two..dots.test"], ids=["nul", "long", "dots"])
    def test_what_cannot_be_a_name(self, bench: Bench, name: str) -> None:
        """Python cannot even encode these."""
        bench.harness.look_up(no_such_name)
        conn, listener = bench.number(), bench.number()
        bench.do(Connect(conn, (name, 80)), Listen(listener, (name, 0)))
        for number in (conn, listener):
            closed = bench.wait(Closed, number)
            assert closed.error in ("unreachable", "other")
            assert closed.detail

    def test_a_close_does_not_wait_for_the_answer(self, bench: Bench) -> None:
        port, peers = listen_at_name(bench)
        asked, answer = threading.Event(), threading.Event()

        def look_up(_: str) -> Sequence[str]:
            asked.set()
            answer.wait(10.0)
            return ["127.0.0.1"]

        bench.harness.look_up(look_up)
        conn, listener = bench.number(), bench.number()
        bench.do(Connect(conn, (NAME, port)), Listen(listener, (NAME, 0)))
        try:
            bench.harness.until(asked.is_set)
            bench.do(Close(conn), Close(listener))
            assert bench.wait(Closed, conn).error is None
            assert bench.wait(Closed, listener).error is None
        finally:
            answer.set()
        bench.fence()
        bench.fence()
        assert not peers
        assert not bench.heard(Connected, conn)
        assert not bench.heard(Listening, listener)

    def test_a_slow_look_up_holds_up_nobody_else(self, bench: Bench) -> None:
        port, peers = listen_at_name(bench)
        asked, answer = threading.Event(), threading.Event()

        def look_up(name: str) -> Sequence[str]:
            if name == "slow.test":
                asked.set()
                answer.wait(10.0)
            return ["127.0.0.1"]

        bench.harness.look_up(look_up)
        slow = bench.number()
        bench.do(Connect(slow, ("slow.test", port)))
        try:
            bench.harness.until(asked.is_set)
            connect_at_name(bench, port, peers)
            assert not bench.heard(Connected, slow)
        finally:
            answer.set()
        bench.wait(Connected, slow)

    def test_a_name_is_listened_at(self, bench: Bench) -> None:
        bench.harness.look_up(lambda _: ["127.0.0.1", DEAD])
        listener, local = bench.listener((NAME, 0))
        assert local[0] == "127.0.0.1"
        for host in ("127.0.0.1", DEAD):
            conn = bench.number()
            bench.do(Accept(conn, listener))
            bench.harness.connect((host, port_of(local)))
            bench.wait(Accepted, conn)


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/dev/fd"))


def no_such_name(name: str) -> Sequence[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def listen_at_name(bench: Bench) -> tuple[int, list[Peer]]:
    """Peers at 127.0.0.1, and nowhere else."""
    local, peers = bench.harness.listen(TCP)
    return port_of(local), peers


def connect_by_name(bench: Bench, look_up: Callable[[str], Sequence[str]]) -> None:
    """A connect to a name, one of whose addresses has somebody who listens."""
    port, peers = listen_at_name(bench)
    bench.harness.look_up(look_up)
    connect_at_name(bench, port, peers)


def connect_at_name(bench: Bench, port: int, peers: list[Peer]) -> None:
    conn, known = bench.number(), len(peers)
    bench.do(Connect(conn, (NAME, port)))
    assert bench.wait(Connected, conn).peer == ("127.0.0.1", port)
    bench.harness.until(lambda: len(peers) > known)
    bench.do(Receive(conn))
    bench.echo(conn, peers[known])
    bench.fence()
    assert len(peers) == known + 1, "the other attempts have been given up"
