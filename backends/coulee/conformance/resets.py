"""Law 2 for resets: whatever a connection is at when its peer resets it, `Closed` is heard once, and stands for all."""

from __future__ import annotations

from coulee.conformance.bench import MUCH, Bench, Chapter
from coulee.core.seam import Accept, Accepted, Blocked, Close, Closed, Hold, Receive, Send, Sent


class Resets(Chapter):
    """See the top of the module."""

    def test_a_reset_as_soon_as_it_stands(self, bench: Bench) -> None:
        for conn, peer in (bench.accepted(), bench.connected()):
            peer.reset()
            assert bench.wait_to_close(conn).error == "reset"

    def test_a_reset_while_reading(self, bench: Bench) -> None:
        for conn, peer in (bench.accepted(), bench.connected()):
            bench.do(Receive(conn))
            bench.echo(conn, peer)
            peer.reset()
            assert bench.wait(Closed, conn).error == "reset"

    def test_a_reset_while_held_with_bytes_unread(self, bench: Bench) -> None:
        """A reset destroys what was on its way; what had come before it may be heard, or not."""
        conn, peer = bench.accepted()
        bench.do(Receive(conn))
        bench.echo(conn, peer)
        bench.do(Hold(conn))
        peer.write(b"unread")
        bench.fence()
        peer.reset()
        assert bench.wait_to_close(conn).error == "reset"
        assert bench.read(conn) in (b"echo", b"echounread")

    def test_a_reset_while_blocked_and_held(self, bench: Bench) -> None:
        """Who waits for room hears it without reading."""
        conn, peer = bench.accepted()
        peer.pause()
        bench.do(Send(conn, MUCH))
        assert bench.heard(Blocked, conn)
        peer.reset()
        assert bench.wait(Closed, conn).error == "reset"
        assert not bench.heard(Sent, conn)

    def test_a_reset_while_blocked_and_closing(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        peer.pause()
        bench.do(Send(conn, MUCH))
        bench.do(Close(conn))
        peer.reset()
        bench.wait(Closed, conn)
        bench.fence()
        assert len(bench.heard(Closed, conn)) == 1

    def test_a_reset_behind_our_end_of_stream(self, bench: Bench) -> None:
        conn, peer = bench.connected()
        bench.do(Receive(conn), Send(conn, b"request", eof=True))
        bench.harness.until(lambda: peer.eof)
        peer.write(b"half an ans")
        bench.wait_for_bytes(conn, 11)
        peer.reset()
        assert bench.wait(Closed, conn).error == "reset"

    def test_a_reset_behind_the_end_of_its_own_stream(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        bench.do(Receive(conn))
        peer.write_eof()
        bench.wait_for_end(conn)
        peer.reset()
        bench.fence()
        if not bench.heard(Closed, conn):
            bench.do(Send(conn, b"anybody there?"))
        assert bench.wait(Closed, conn).error == "reset"

    def test_a_reset_behind_both_ends(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        bench.do(Receive(conn), Send(conn, b"", eof=True))
        bench.harness.until(lambda: peer.eof)
        peer.write_eof()
        bench.wait_for_end(conn)
        peer.reset()
        bench.fence()
        if not bench.heard(Closed, conn):
            bench.do(Close(conn))
        bench.wait(Closed, conn)
        bench.fence()
        assert len(bench.heard(Closed, conn)) == 1

    def test_a_reset_in_the_turn_in_which_it_is_closed(self, bench: Bench) -> None:
        for abort in (False, True):
            conn, peer = bench.accepted()
            bench.do(Receive(conn))
            bench.echo(conn, peer)
            peer.reset()
            bench.do(Close(conn, abort))
            assert bench.wait(Closed, conn).error is None
            bench.fence()
            assert len(bench.heard(Closed, conn)) == 1

    def test_many_resets_at_once(self, bench: Bench) -> None:
        listener, local = bench.listener()
        conns = [bench.number() for _ in range(50)]
        bench.do(*(Accept(conn, listener) for conn in conns))
        peers = [bench.harness.connect(local) for _ in conns]
        for conn in conns:
            bench.wait(Accepted, conn)
        bench.do(*(Receive(conn) for conn in conns))
        for peer in peers:
            peer.write(b"x")
        bench.harness.until(lambda: all(bench.read(conn) for conn in conns))
        for peer in peers:
            peer.reset()
        for conn in conns:
            assert bench.wait(Closed, conn).error == "reset"
