"""Law 1 for connects: each ends in a connection or in one failure, at TCP addresses and Unix sockets."""

from __future__ import annotations

from coulee.conformance.bench import Bench, Chapter, port_of
from coulee.conformance.harness import TCP
from coulee.core.seam import Accept, Accepted, Close, Closed, Connect, Connected, Receive


class Connecting(Chapter):
    """See the top of the module."""

    def test_addresses_of_both_ends_are_told(self, bench: Bench) -> None:
        listener, local = bench.listener()
        up, down = bench.number(), bench.number()
        bench.do(Accept(up, listener), Connect(down, local))
        accepted, connected = bench.wait(Accepted, up), bench.wait(Connected, down)
        assert accepted.local == connected.peer == local
        assert accepted.peer == connected.local

    def test_a_connect_that_is_refused(self, bench: Bench) -> None:
        conn = bench.number()
        bench.do(Connect(conn, bench.harness.nobody()))
        closed = bench.wait(Closed, conn)
        assert closed.error == "refused"
        assert closed.detail
        assert not bench.heard(Connected, conn)

    def test_a_connect_that_is_given_up(self, bench: Bench) -> None:
        _, local = bench.listener()
        conn = bench.number()
        bench.do(Connect(conn, local), Close(conn))
        assert bench.wait(Closed, conn).error is None
        bench.fence()
        assert not bench.heard(Connected, conn)

    def test_a_connect_that_nobody_answers_is_given_up(self, bench: Bench) -> None:
        port = port_of(bench.harness.nobody())
        hole = bench.harness.black_hole(port)
        conn = bench.number()
        bench.do(Connect(conn, (hole, port)))
        bench.fence()
        bench.do(Close(conn))
        assert bench.wait(Closed, conn).error is None
        bench.fence()
        assert len(bench.heard(Closed, conn)) == 1

    def test_a_connect_to_who_leaves_at_once_stands_and_then_ends(self, bench: Bench) -> None:
        local, peers = bench.harness.listen(TCP)
        conn = bench.number()
        bench.react(Connected, conn, Receive(conn))
        bench.do(Connect(conn, local))
        bench.harness.until(lambda: peers)
        peers[0].close()
        bench.wait(Connected, conn)
        bench.wait_for_end(conn)

    def test_a_path_where_nobody_listens(self, bench: Bench) -> None:
        conn = bench.number()
        bench.do(Connect(conn, bench.harness.path()))
        assert bench.wait(Closed, conn).error == "refused"
