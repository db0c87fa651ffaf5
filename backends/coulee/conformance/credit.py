"""Law 4: nothing is read without a credit, nothing is lost for want of one, and a writer is held back."""

from __future__ import annotations

from coulee.conformance.bench import MUCH, Bench, Chapter
from coulee.core.seam import Blocked, Hold, Receive, Received, Send, Sent


class Credit(Chapter):
    """See the top of the module."""

    def test_nothing_is_read_before_the_first_receive(self, bench: Bench) -> None:
        for conn, peer in (bench.accepted(), bench.connected()):
            peer.write(b"early")
            bench.fence()
            assert not bench.read(conn)
            bench.do(Receive(conn))
            assert bench.wait_for_bytes(conn, 5) == b"early"

    def test_a_receive_stands_until_it_is_held(self, bench: Bench) -> None:
        conn, peer = bench.connected()
        bench.do(Receive(conn))
        for count in range(1, 6):
            peer.write(b"x")
            bench.wait_for_bytes(conn, count)
        bench.do(Hold(conn))
        peer.write(b"y")
        bench.fence()
        assert bench.read(conn) == b"xxxxx"
        bench.do(Receive(conn))
        assert bench.wait_for_bytes(conn, 6) == b"xxxxxy"

    def test_a_hold_in_the_turn_of_a_read_holds_at_once_and_loses_nothing(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        sent = b""
        bench.do(Receive(conn))
        for turn in range(10):
            before = len(bench.read(conn))
            bench.react(Received, conn, Hold(conn))
            for piece in range(20):
                peer.write(b"%d-%d " % (turn, piece))
                sent += b"%d-%d " % (turn, piece)
            bench.wait_for_bytes(conn, before + 1)
            bench.fence()
            bench.puppet.react = lambda _: ()
            bench.do(Receive(conn))
            bench.wait_for_bytes(conn, len(sent))
        assert bench.read(conn) == sent

    def test_hold_and_receive_in_one_turn(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        bench.do(Receive(conn))
        for count in range(1, 20):
            bench.do(Hold(conn), Receive(conn))
            peer.write(b"x")
            bench.do(Hold(conn), Receive(conn))
            bench.wait_for_bytes(conn, count)
        assert bench.read(conn) == b"x" * 19

    def test_the_end_of_the_stream_waits_while_held_and_is_heard_once(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        peer.write(b"last words")
        peer.write_eof()
        bench.fence()
        bench.do(Receive(conn))
        bench.wait_for_end(conn)
        bench.fence()
        assert bench.read(conn) == b"last words"
        assert len([item for item in bench.heard(Received, conn) if not item.data]) == 1

    def test_a_send_that_is_not_taken_is_blocked_and_later_sent(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        peer.pause()
        bench.do(Send(conn, MUCH))
        assert bench.heard(Blocked, conn), "in the same turn"
        bench.fence()
        assert not bench.heard(Sent, conn)
        peer.resume()
        bench.wait(Sent, conn)
        bench.harness.until(lambda: len(peer.received) == len(MUCH))
        bench.do(Send(conn, b"more"))
        bench.harness.until(lambda: len(peer.received) == len(MUCH) + 4)
        assert peer.received == MUCH + b"more"
        assert len(bench.heard(Sent, conn)) == len(bench.heard(Blocked, conn)) == 1

    def test_small_sends_are_taken_in_silence(self, bench: Bench) -> None:
        conn, peer = bench.connected()
        for index in range(100):
            bench.do(Send(conn, b"%02d " % index))
        bench.harness.until(lambda: len(peer.received) == 300)
        assert peer.received == b"".join(b"%02d " % index for index in range(100))
        assert not bench.heard(Blocked, conn)

    def test_a_list_of_bytes_is_sent_as_one(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        peer.pause()
        bench.do(Send(conn, [b"head ", MUCH, b" tail"]))
        assert bench.heard(Blocked, conn)
        peer.resume()
        bench.wait(Sent, conn)
        bench.harness.until(lambda: len(peer.received) == len(MUCH) + 10)
        assert peer.received == b"head " + MUCH + b" tail"

    def test_a_list_of_more_pieces_than_one_system_call_takes(self, bench: Bench) -> None:
        pieces = [b"%d," % number for number in range(5000)]
        conn, peer = bench.accepted()
        bench.do(Send(conn, pieces))
        bench.harness.until(lambda: len(peer.received) == sum(map(len, pieces)))
        assert peer.received == b"".join(pieces)

    def test_reading_goes_on_while_writing_is_blocked(self, bench: Bench) -> None:
        conn, peer = bench.accepted()
        peer.pause()
        bench.do(Receive(conn), Send(conn, MUCH))
        peer.write(b"still here")
        assert bench.wait_for_bytes(conn, 10) == b"still here"

    def test_blocked_is_heard_before_anything_else_can_be_done(self, bench: Bench) -> None:
        """A read that was kept is handed over in the turn in which a Send blocks: it must not overtake the Blocked."""
        blocked, peer = bench.accepted()
        other, talker = bench.accepted()
        peer.pause()
        bench.do(Receive(other))
        talker.write(b"a")
        bench.wait_for_bytes(other, 1)
        bench.react(Received, other, Hold(other))
        talker.write(b"b")
        bench.wait_for_bytes(other, 2)
        talker.write(b"c")
        bench.fence()
        bench.puppet.react = lambda _: ()
        before = len(bench.puppet.heard)
        bench.do(Receive(other), Send(blocked, MUCH))
        assert isinstance(bench.puppet.heard[before], Blocked)
