"""Law 1 for listeners: each opens once or fails, and each of its credits is spent, taken back or answered."""

from __future__ import annotations

from coulee.conformance.bench import Bench, Chapter
from coulee.conformance.harness import TCP
from coulee.core.seam import Accept, Accepted, Address, Close, Closed, Listen, Listening, Receive, Send


class Listeners(Chapter):
    """See the top of the module."""

    def test_port_0_becomes_a_real_one(self, bench: Bench) -> None:
        listener, local = bench.listener()
        assert isinstance(local, tuple)
        assert local[0] == "127.0.0.1"
        assert local[1] > 0
        assert bench.harness.driver.addresses == [local]
        assert len(bench.heard(Listening, listener)) == 1

    def test_a_listener_can_be_closed_and_its_address_used_again(self, bench: Bench) -> None:
        listener, local = bench.listener()
        bench.do(Close(listener))
        assert bench.wait(Closed, listener).error is None
        again, local_again = bench.listener(local)
        assert local_again == local
        conn = bench.number()
        bench.do(Accept(conn, again))
        bench.harness.connect(local)
        bench.wait(Accepted, conn)

    def test_an_address_that_is_taken_fails_the_listener(self, bench: Bench) -> None:
        _, local = bench.listener()
        second, credit = bench.number(), bench.number()
        bench.do(Listen(second, local), Accept(credit, second))
        closed = bench.wait(Closed, second)
        assert closed.error == "resources"
        assert closed.detail
        assert bench.wait(Closed, credit).error == "aborted"

    def test_nobody_is_accepted_without_a_credit(self, bench: Bench) -> None:
        listener, local = bench.listener()
        first, second = bench.harness.connect(local), bench.harness.connect(local)
        bench.fence()
        one = bench.number()
        bench.do(Accept(one, listener))
        bench.wait(Accepted, one)
        bench.fence()
        two = bench.number()
        assert not bench.heard(Accepted, two)
        bench.do(Accept(two, listener), Send(one, b"welcome"))
        bench.wait(Accepted, two)
        bench.harness.until(lambda: first.received or second.received)

    def test_credits_are_spent_in_order_and_each_once(self, bench: Bench) -> None:
        listener, local = bench.listener()
        conns = [bench.number() for _ in range(5)]
        bench.do(*(Accept(conn, listener) for conn in conns))
        for index, conn in enumerate(conns):
            bench.harness.connect(local)
            bench.wait(Accepted, conn)
            assert not [later for later in conns[index + 1 :] if bench.heard(Accepted, later)]

    def test_a_credit_can_be_taken_back(self, bench: Bench) -> None:
        listener, local = bench.listener()
        first, second = bench.number(), bench.number()
        bench.do(Accept(first, listener), Accept(second, listener))
        bench.do(Close(first))
        assert bench.wait(Closed, first).error is None
        bench.harness.connect(local)
        bench.wait(Accepted, second)
        assert not bench.heard(Accepted, first)

    def test_the_end_of_a_listener_answers_its_credits(self, bench: Bench) -> None:
        listener, _ = bench.listener()
        conns = [bench.number() for _ in range(3)]
        bench.do(*(Accept(conn, listener) for conn in conns))
        bench.do(Close(listener))
        for conn in conns:
            assert bench.wait(Closed, conn).error == "aborted"
        bench.wait(Closed, listener)

    def test_connections_outlive_their_listener(self, bench: Bench) -> None:
        listener, local = bench.listener()
        conn = bench.number()
        bench.do(Accept(conn, listener))
        peer = bench.harness.connect(local)
        bench.wait(Accepted, conn)
        bench.do(Receive(conn), Close(listener))
        bench.wait(Closed, listener)
        bench.echo(conn, peer)

    def test_listeners_come_and_go_while_connections_are_at_work(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        bench.do(Receive(conn))
        address: Address = TCP
        for _ in range(10):
            listener, address = bench.listener(address)
            other = bench.number()
            bench.do(Accept(other, listener))
            guest = bench.harness.connect(address)
            bench.wait(Accepted, other)
            bench.do(Receive(other))
            bench.echo(conn, peer)
            bench.echo(other, guest)
            bench.do(Close(other), Close(listener))
            bench.wait(Closed, listener)
            bench.wait(Closed, other)
            bench.echo(conn, peer)

    def test_who_waits_at_a_listener_that_ends_is_turned_away(self, bench: Bench) -> None:
        listener, local = bench.listener()
        peer = bench.harness.connect(local)
        bench.fence()
        bench.do(Close(listener))
        bench.wait(Closed, listener)
        bench.harness.until(lambda: peer.was_reset or peer.eof)
        late = bench.harness.connect(local)
        bench.harness.until(lambda: late.was_reset)

    def test_two_listeners_have_credits_of_their_own(self, bench: Bench) -> None:
        (one, there), (two, here) = bench.listener(), bench.listener()
        waiting, conn = bench.number(), bench.number()
        bench.do(Accept(waiting, one), Accept(conn, two))
        bench.harness.connect(here)
        assert bench.wait(Accepted, conn).local == here
        assert not bench.heard(Accepted, waiting)
        bench.harness.connect(there)
        assert bench.wait(Accepted, waiting).local == there

    def test_who_resets_before_being_accepted_costs_one_credit_at_most(self, bench: Bench) -> None:
        listener, local = bench.listener()
        gone = bench.harness.connect(local)
        bench.fence()
        gone.reset()
        bench.fence()
        conns = [bench.number(), bench.number()]
        bench.do(*(Accept(conn, listener) for conn in conns))
        peer = bench.harness.connect(local)
        peer.write(b"here I am")
        bench.harness.until(lambda: [conn for conn in conns if bench.heard(Accepted, conn)])
        bench.fence()
        for conn in conns:
            if bench.heard(Accepted, conn) and not bench.heard(Closed, conn):
                bench.do(Receive(conn))
        bench.harness.until(lambda: any(bench.read(conn) for conn in conns))
        assert sorted(bench.read(conn) for conn in conns) == [b"", b"here I am"]
