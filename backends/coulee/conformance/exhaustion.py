"""Out of descriptors: nobody is accepted, nothing spins, all else goes on, and it is over when it is over."""

from __future__ import annotations

import resource
import time
from typing import NamedTuple

from coulee.conformance.bench import Bench, Chapter
from coulee.conformance.harness import Harness
from coulee.core.seam import Accept, Accepted, Close, Closed, Connect, Connected, Listen, Listening, Receive

SPIN = 0.5  # a loop that goes round without an end takes all of the CPU; or what others leave of it, and never rests
WATCH_S = 0.3


class Exhaustion(Chapter):
    """See the top of the module."""

    def test_accepting_waits_until_there_are_descriptors_again(self, bench: Bench) -> None:
        want = bench.harness.exhausted()
        working, worker = bench.accepted()
        bench.do(Receive(working))
        bench.echo(working, worker)
        listener, local = bench.listener()
        peers = [bench.harness.connect(local) for _ in range(3)]
        bench.fence()
        idle = load(bench.harness)
        conns = [bench.number() for _ in peers]
        with want:
            bench.do(*(Accept(conn, listener) for conn in conns))
            bench.echo(working, worker)
            busy = load(bench.harness)
            bench.echo(working, worker)
            assert not any(bench.heard(Accepted, conn) for conn in conns)
        assert busy.share < max(3.0 * idle.share, SPIN), "it goes round and round"
        assert busy.between_rests_s < 10.0 * idle.between_rests_s, "it goes round and round"
        for conn in conns:
            bench.wait(Accepted, conn)
            bench.do(Receive(conn))
        for peer in peers:
            peer.write(b"still here")
        for conn in conns:
            assert bench.wait_for_bytes(conn, 10) == b"still here"

    def test_a_listener_can_be_closed_while_accepting_waits(self, bench: Bench) -> None:
        listener, local = bench.listener()
        bench.harness.connect(local)
        bench.fence()
        conn = bench.number()
        with bench.harness.exhausted():
            bench.do(Accept(conn, listener))
            load(bench.harness, 0.02)
            bench.do(Close(listener))
            assert bench.wait(Closed, conn).error == "aborted"
            assert bench.wait(Closed, listener).error is None

    def test_connecting_and_listening_fail_and_later_do_not(self, bench: Bench) -> None:
        local, peers = bench.harness.listen(("127.0.0.1", 0))
        conn, listener = bench.number(), bench.number()
        with bench.harness.exhausted():
            bench.do(Connect(conn, local), Listen(listener, ("127.0.0.1", 0)))
            for number in (conn, listener):
                closed = bench.wait(Closed, number)
                assert closed.error == "resources"
                assert closed.detail
        again, other = bench.number(), bench.number()
        bench.do(Connect(again, local), Listen(other, ("127.0.0.1", 0)))
        bench.wait(Connected, again)
        bench.wait(Listening, other)
        bench.harness.until(lambda: len(peers) == 1)


class Load(NamedTuple):
    share: float  # of the time that has passed, in which this process was at work
    between_rests_s: float  # of work, from one wait for something to the next


def load(harness: Harness, span_s: float = WATCH_S) -> Load:
    """What the process does in a span of time."""
    start, began = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    harness.until(lambda: time.monotonic() >= start + span_s)
    span_s, ended = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF)
    work_s = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    return Load(work_s / span_s, work_s / (ended.ru_nvcsw - began.ru_nvcsw + 1))
