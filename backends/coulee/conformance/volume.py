"""Many connections, and the end of them all."""

from __future__ import annotations

from functools import partial

from coulee.conformance.bench import Bench, Chapter
from coulee.conformance.harness import TCP
from coulee.core.seam import Accept, Accepted, Connect, Connected, Drain, Receive, Send


class Volume(Chapter):
    """See the top of the module."""

    def test_a_drain_is_handed_on_and_the_end_awaits_the_last_connection(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        bench.harness.call(partial(bench.harness.driver.drain, 30.0))
        assert bench.heard(Drain, 0) == [Drain(30.0)]
        peer.write(b"still served")
        bench.do(Receive(conn))
        bench.wait_for_bytes(conn, 12)
        assert not bench.harness.done

    def test_many_connections_at_once(self, bench: Bench) -> None:
        listener, local = bench.listener(TCP)
        downs, ups = [bench.number() for _ in range(50)], [bench.number() for _ in range(50)]
        bench.do(*(Accept(conn, listener) for conn in downs))
        bench.do(*(Connect(conn, local) for conn in ups))
        for conn in (*downs, *ups):
            bench.wait(Accepted if conn in downs else Connected, conn)
            bench.do(Receive(conn), Send(conn, b"%d" % conn, eof=True))
        for conn in (*downs, *ups):
            bench.wait_for_end(conn)
        assert sorted(bench.read(conn) for conn in ups) == sorted(b"%d" % conn for conn in downs)
        assert sorted(bench.read(conn) for conn in downs) == sorted(b"%d" % conn for conn in ups)
