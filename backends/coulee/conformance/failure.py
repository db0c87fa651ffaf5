"""Law 2: `Closed` is the only failure, and the last word."""

from __future__ import annotations

from coulee.conformance.bench import MUCH, Bench, Chapter
from coulee.core.seam import Blocked, Close, Closed, Receive, Send, Sent


class Failure(Chapter):
    """See the top of the module."""

    def test_a_close_goes_behind_what_was_sent(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        peer.pause()
        bench.do(Send(conn, MUCH))
        bench.do(Close(conn))
        peer.resume()
        assert bench.wait(Closed, conn).error is None
        bench.harness.until(lambda: peer.eof)
        assert peer.received == MUCH
        assert not bench.heard(Sent, conn), "only Closed comes behind a Close"

    def test_a_close_in_the_turn_of_a_send(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        bench.do(Send(conn, b"goodbye"), Close(conn))
        bench.wait(Closed, conn)
        bench.harness.until(lambda: peer.eof)
        assert peer.received == b"goodbye"

    def test_an_abort_is_a_reset_to_the_peer(self, bench: Bench) -> None:
        for conn, peer in (bench.accepted(), bench.connected()):
            bench.do(Close(conn, abort=True))
            assert bench.wait(Closed, conn).error is None
            bench.wait_for_reset(peer)
            assert not peer.eof

    def test_an_abort_destroys_what_is_blocked(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        peer.pause()
        bench.do(Send(conn, MUCH))
        bench.do(Close(conn, abort=True))
        assert bench.wait(Closed, conn).error is None
        peer.resume()
        bench.harness.until(lambda: peer.was_reset)
        assert len(peer.received) < len(MUCH)

    def test_an_abort_hastens_a_close(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        peer.pause()
        bench.do(Send(conn, MUCH))
        bench.do(Close(conn))
        bench.fence()
        assert not bench.heard(Closed, conn)
        bench.do(Close(conn, abort=True))
        assert bench.wait(Closed, conn).error is None
        assert len(bench.heard(Closed, conn)) == 1

    def test_a_peer_that_resets_is_heard(self, bench: Bench) -> None:
        for conn, peer in (bench.accepted(), bench.connected()):
            bench.do(Receive(conn))
            peer.write(b"x")
            bench.wait_for_bytes(conn, 1)
            peer.reset()
            closed = bench.wait(Closed, conn)
            assert closed.error == "reset"
            assert closed.detail

    def test_a_reset_while_blocked_stands_for_the_send_too(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        peer.pause()
        bench.do(Receive(conn), Send(conn, MUCH))
        assert bench.heard(Blocked, conn)
        peer.reset()
        assert bench.wait(Closed, conn).error == "reset"
        bench.fence()
        assert not bench.heard(Sent, conn)

    def test_a_reset_while_held_is_heard_at_the_next_receive_at_the_latest(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        peer.reset()
        bench.fence()
        if not bench.heard(Closed, conn):
            bench.do(Receive(conn))
        assert bench.wait(Closed, conn).error in ("reset", None)

    def test_sending_to_who_has_gone_ends_in_closed(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        bench.do(Receive(conn))
        peer.close()
        bench.wait_for_end(conn)
        bench.do(Send(conn, b"anybody there?"))
        bench.fence()
        if not bench.heard(Closed, conn):
            bench.do(Send(conn, b"hello?"))
        assert bench.wait(Closed, conn).error == "reset"

    def test_closing_with_bytes_unread_ends_the_connection_for_the_peer(self, bench: Bench) -> None:
        """By a reset, as a rule (RFC 2525, section 2.17); in order where the backend had read them early (uvloop)."""
        conn, peer = bench.accepted()
        peer.write(b"unread")
        bench.fence()
        bench.do(Close(conn))
        assert bench.wait(Closed, conn).error is None
        bench.harness.until(lambda: peer.was_reset or peer.eof)

    def test_nothing_is_heard_behind_a_close(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        bench.do(Receive(conn))
        peer.write(b"x")
        bench.wait_for_bytes(conn, 1)
        peer.write(b"y")
        bench.do(Close(conn))
        bench.wait(Closed, conn)
        bench.fence()
        assert bench.read(conn) == b"x"
        assert isinstance([item for item in bench.puppet.heard if getattr(item, "conn", 0) == conn][-1], Closed)

    def test_both_sides_close_at_once(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        bench.do(Receive(conn))
        peer.close()
        bench.do(Close(conn))
        bench.wait(Closed, conn)
