"""Law 1 for the end of a stream: each direction ends by itself."""

from __future__ import annotations

from coulee.conformance.bench import MUCH, Bench, Chapter
from coulee.core.seam import Blocked, Close, Closed, Receive, Send, Sent


class HalfClose(Chapter):
    """See the top of the module."""

    def test_a_peer_that_half_closes_still_gets_what_we_send(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        bench.do(Receive(conn))
        peer.write(b"request")
        peer.write_eof()
        bench.wait_for_end(conn)
        for index in range(3):
            bench.do(Send(conn, b"answer"))
            bench.wait_for_peer(peer, b"answer" * (index + 1))
        bench.do(Send(conn, b" end", eof=True))
        bench.harness.until(lambda: peer.eof)
        assert peer.received == b"answer" * 3 + b" end"

    def test_we_half_close_and_still_hear_the_peer(self, bench: Bench) -> None:
        conn, peer = bench.connected()
        bench.do(Receive(conn), Send(conn, b"request", eof=True))
        bench.harness.until(lambda: peer.eof)
        assert peer.received == b"request"
        for index in range(3):
            peer.write(b"answer")
            bench.wait_for_bytes(conn, 6 * (index + 1))
        peer.close()
        bench.wait_for_end(conn)
        bench.do(Close(conn))
        assert bench.wait(Closed, conn).error is None

    def test_a_half_close_by_itself(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        bench.do(Send(conn, b"", eof=True))
        bench.harness.until(lambda: peer.eof)
        assert not bench.heard(Blocked, conn)

    def test_a_half_close_behind_what_is_blocked(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        peer.pause()
        bench.do(Send(conn, MUCH, eof=True))
        assert bench.heard(Blocked, conn)
        peer.resume()
        bench.wait(Sent, conn)
        bench.harness.until(lambda: peer.eof)
        assert peer.received == MUCH
