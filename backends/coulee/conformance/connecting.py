"""Law 1 for connects: each ends in a connection or in one failure, at TCP addresses and Unix sockets."""

from __future__ import annotations

from coulee.conformance.bench import Bench, Chapter
from coulee.core.seam import Accept, Accepted, Close, Closed, Connect, Connected, Receive, Send


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

    def test_unix_sockets_both_ways(self, bench: Bench) -> None:
        for conn, peer in (bench.accepted(bench.harness.path()), bench.connected(bench.harness.path())):
            bench.do(Receive(conn), Send(conn, b"to the peer"))
            peer.write(b"from the peer")
            assert bench.wait_for_bytes(conn, 13) == b"from the peer"
            bench.wait_for_peer(peer, b"to the peer")

    def test_a_path_where_nobody_listens(self, bench: Bench) -> None:
        conn = bench.number()
        bench.do(Connect(conn, bench.harness.path()))
        assert bench.wait(Closed, conn).error == "refused"
