"""Much of everything: connections one after another and at once, large bodies, a stopped reader; and the end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from coulee.conformance.bench import Bench, Chapter
from coulee.conformance.harness import TCP
from coulee.core.seam import (
    Accept,
    Accepted,
    Address,
    Blocked,
    Close,
    Closed,
    Completion,
    Connect,
    Connected,
    Drain,
    Hold,
    Operation,
    Receive,
    Received,
    Send,
)

MIB = 1_048_576


class Volume(Chapter):
    """See the top of the module. A subclass may set the numbers to others."""

    one_after_another = 10_000
    at_once = 1_000
    body_bytes = 64 * MIB
    kernel_bytes = 16 * MIB
    """What the system takes of one direction where nobody reads, at the most."""

    limit_s = 60.0

    def test_a_drain_is_handed_on_and_the_end_awaits_the_last_connection(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        bench.harness.call(partial(bench.harness.driver.drain, 30.0))
        assert bench.heard(Drain, 0) == [Drain(30.0)]
        peer.write(b"still served")
        bench.do(Receive(conn))
        bench.wait_for_bytes(conn, 12)
        assert not bench.harness.done

    def test_many_connections_one_after_another(self, bench: Bench) -> None:
        """Each is made and accepted by the backend under test, and carries a byte each way."""
        listener, local = bench.listener(TCP)
        line = Line(bench, listener, local, self.one_after_another)
        bench.puppet.react = line.react
        bench.do(*line.next())
        bench.harness.until(lambda: line.closed == 2 * self.one_after_another, self.limit_s)
        bench.puppet.react = lambda _: ()
        assert line.accepted == line.connected == line.there == line.back == self.one_after_another
        assert not line.errors
        assert bench.harness.driver.outstanding["connections"] == 0

    def test_many_connections_at_once(self, bench: Bench) -> None:
        bench.harness.make_room(2 * self.at_once + 100)
        listener, local = bench.listener(TCP)
        crowd = Crowd(bench)
        downs, ups = [bench.number() for _ in range(self.at_once)], [bench.number() for _ in range(self.at_once)]
        bench.puppet.react = crowd.react
        bench.do(*(Accept(conn, listener) for conn in downs))
        bench.do(*(Connect(conn, local) for conn in ups))
        bench.harness.until(lambda: crowd.stand == 2 * self.at_once, self.limit_s)
        for count in (8, 16, 24):
            bench.do(*(Send(conn, b"%8d" % conn) for conn in ups))
            bench.harness.until(partial(crowd.has_heard, ups, count), self.limit_s)
        assert bench.harness.driver.outstanding["connections"] == 2 * self.at_once
        assert all(bench.read(conn) == b"%8d" % conn * 3 for conn in ups)
        bench.do(*(Close(conn) for conn in ups))
        bench.harness.until(lambda: crowd.closed == 2 * self.at_once, self.limit_s)
        assert not crowd.errors

    def test_large_bodies_both_ways_at_once(self, bench: Bench) -> None:
        """First nobody reads: then no more is on its way than the system holds, and the backend hides none."""
        block = bytes(range(256)) * 4096
        blocks = self.body_bytes // len(block)
        whole = block * blocks
        conn, peer = bench.accepted()
        peer.pause()
        bench.do(Receive(conn))
        bench.react(Received, conn, Hold(conn))
        peer.write(whole)
        sent = 0
        while not bench.puppet.blocked.get(conn):
            assert sent * len(block) <= self.kernel_bytes, "somebody keeps more than one blocked Send"
            bench.do(Send(conn, block))
            sent += 1
        bench.fence()
        assert self.body_bytes - peer.unsent <= self.kernel_bytes, "somebody reads what nobody asked for"
        assert bench.puppet.count[conn] < self.kernel_bytes

        def go_on(_: Completion) -> Sequence[Operation]:
            nonlocal sent
            if sent == blocks or bench.puppet.blocked.get(conn):
                return ()
            sent += 1
            return [Send(conn, block)]

        peer.resume()
        bench.puppet.react = go_on
        bench.do(Receive(conn))
        while sent < blocks:
            bench.harness.until(lambda: sent == blocks or not bench.puppet.blocked.get(conn), self.limit_s)
            bench.do(*go_on(Drain(0.0)))
        bench.harness.until(lambda: peer.count == len(whole) == bench.puppet.count[conn], self.limit_s)
        assert peer.received == whole
        assert bench.read(conn) == whole

    def test_a_reader_that_has_stopped_holds_up_nobody_else(self, bench: Bench) -> None:
        block = bytes(MIB)
        stuck, reader = bench.accepted()
        others = [bench.accepted() for _ in range(10)]
        bench.do(*(Receive(conn) for conn, _ in others))
        reader.pause()
        sent = 0
        while not bench.heard(Blocked, stuck):
            bench.do(Send(stuck, block))
            sent += 1
        for _ in range(10):
            for conn, peer in others:
                bench.echo(conn, peer)
        assert reader.count <= self.kernel_bytes
        assert len(bench.heard(Blocked, stuck)) == 1
        reader.resume()
        bench.harness.until(lambda: reader.count == sent * len(block), self.limit_s)


class Line:
    """Connections one after another: the one that connects sends a byte, the other answers it, and both close."""

    def __init__(self, bench: Bench, listener: int, local: Address, count: int) -> None:
        self.bench = bench
        self.listener = listener
        self.local = local
        self.left = count
        self.accepted = self.connected = self.there = self.back = self.closed = 0
        self.errors: list[Closed] = []

    def next(self) -> Sequence[Operation]:
        self.left -= 1
        return [Accept(self.bench.number(), self.listener), Connect(self.bench.number(), self.local)]

    def react(self, completion: Completion) -> Sequence[Operation]:
        match completion:
            case Accepted(conn):
                self.accepted += 1
                return [Receive(conn)]
            case Connected(conn):
                self.connected += 1
                return [Receive(conn), Send(conn, b"?")]
            case Received(conn, b"?"):
                self.there += 1
                return [Send(conn, b"!")]
            case Received(conn, b"!"):
                self.back += 1
                return [Close(conn)]
            case Received(conn, b""):
                return [Close(conn)]
            case Closed():
                self.closed += 1
                if completion.error is not None:
                    self.errors.append(completion)
                if self.closed % 2 == 0 and self.left:
                    return self.next()
            case _:
                pass
        return ()


class Crowd:
    """Connections that are accepted send back what they get, and end when the other side does."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.ours: set[int] = set()
        self.stand = self.closed = 0
        self.errors: list[Closed] = []

    def react(self, completion: Completion) -> Sequence[Operation]:
        match completion:
            case Accepted(conn) | Connected(conn):
                self.stand += 1
                if isinstance(completion, Accepted):
                    self.ours.add(conn)
                return [Receive(conn)]
            case Received(conn, data) if conn in self.ours:
                return [Send(conn, data)] if data else [Close(conn)]
            case Closed():
                self.closed += 1
                if completion.error is not None:
                    self.errors.append(completion)
            case _:
                pass
        return ()

    def has_heard(self, conns: Sequence[int], count: int) -> bool:
        return all(self.bench.puppet.count[conn] == count for conn in conns)
