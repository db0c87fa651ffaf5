"""What every backend must do: each law of docs/seam.md, on real sockets and in the simulator."""

from __future__ import annotations

from concurrent.futures import CancelledError

from coulee.core.seam import (
    Accept,
    Accepted,
    Blocked,
    Cancel,
    Close,
    Closed,
    Connect,
    Connected,
    Drain,
    Finished,
    Hold,
    Listen,
    Listening,
    Receive,
    Received,
    Run,
    Send,
    Sent,
)
from tests.conformance.bench import Bench
from tests.conformance.harness import TCP

MUCH = bytes(range(256)) * 40_000  # 10 MB: more than kernels take from who does not find a reader


# -- law 1: every question is answered once; listening, accepting, connecting


def test_port_0_becomes_a_real_one(bench: Bench) -> None:
    listener, local = bench.listener()
    assert isinstance(local, tuple)
    assert local[0] == "127.0.0.1"
    assert local[1] > 0
    assert bench.harness.driver.addresses == [local]
    assert len(bench.heard(Listening, listener)) == 1


def test_a_listener_can_be_closed_and_its_address_used_again(bench: Bench) -> None:
    listener, local = bench.listener()
    bench.do(Close(listener))
    assert bench.wait(Closed, listener).error is None
    again, local_again = bench.listener(local)
    assert local_again == local
    conn = bench.number()
    bench.do(Accept(conn, again))
    bench.harness.connect(local)
    bench.wait(Accepted, conn)


def test_an_address_that_is_taken_fails_the_listener(bench: Bench) -> None:
    _, local = bench.listener()
    second, credit = bench.number(), bench.number()
    bench.do(Listen(second, local), Accept(credit, second))
    closed = bench.wait(Closed, second)
    assert closed.error == "resources"
    assert closed.detail
    assert bench.wait(Closed, credit).error == "aborted"


def test_nobody_is_accepted_without_a_credit(bench: Bench) -> None:
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


def test_credits_are_spent_in_order_and_each_once(bench: Bench) -> None:
    listener, local = bench.listener()
    conns = [bench.number() for _ in range(5)]
    bench.do(*(Accept(conn, listener) for conn in conns))
    for index, conn in enumerate(conns):
        bench.harness.connect(local)
        bench.wait(Accepted, conn)
        assert not [later for later in conns[index + 1 :] if bench.heard(Accepted, later)]


def test_a_credit_can_be_taken_back(bench: Bench) -> None:
    listener, local = bench.listener()
    first, second = bench.number(), bench.number()
    bench.do(Accept(first, listener), Accept(second, listener))
    bench.do(Close(first))
    assert bench.wait(Closed, first).error is None
    bench.harness.connect(local)
    bench.wait(Accepted, second)
    assert not bench.heard(Accepted, first)


def test_the_end_of_a_listener_answers_its_credits(bench: Bench) -> None:
    listener, _ = bench.listener()
    conns = [bench.number() for _ in range(3)]
    bench.do(*(Accept(conn, listener) for conn in conns))
    bench.do(Close(listener))
    for conn in conns:
        assert bench.wait(Closed, conn).error == "aborted"
    bench.wait(Closed, listener)


def test_addresses_of_both_ends_are_told(bench: Bench) -> None:
    listener, local = bench.listener()
    up, down = bench.number(), bench.number()
    bench.do(Accept(up, listener), Connect(down, local))
    accepted, connected = bench.wait(Accepted, up), bench.wait(Connected, down)
    assert accepted.local == connected.peer == local
    assert accepted.peer == connected.local


def test_a_connect_that_is_refused(bench: Bench) -> None:
    conn = bench.number()
    bench.do(Connect(conn, bench.harness.nobody()))
    closed = bench.wait(Closed, conn)
    assert closed.error == "refused"
    assert closed.detail
    assert not bench.heard(Connected, conn)


def test_a_connect_that_is_given_up(bench: Bench) -> None:
    _, local = bench.listener()
    conn = bench.number()
    bench.do(Connect(conn, local), Close(conn))
    assert bench.wait(Closed, conn).error is None
    bench.fence()
    assert not bench.heard(Connected, conn)


def test_unix_sockets_both_ways(bench: Bench) -> None:
    for conn, peer in (bench.accepted(bench.harness.path()), bench.connected(bench.harness.path())):
        bench.do(Receive(conn), Send(conn, b"to the peer"))
        peer.write(b"from the peer")
        assert bench.wait_for_bytes(conn, 13) == b"from the peer"
        bench.wait_for_peer(peer, b"to the peer")


def test_a_path_where_nobody_listens(bench: Bench) -> None:
    conn = bench.number()
    bench.do(Connect(conn, bench.harness.path()))
    assert bench.wait(Closed, conn).error == "refused"


# -- law 4: credit is respected


def test_nothing_is_read_before_the_first_receive(bench: Bench) -> None:
    for conn, peer in (bench.accepted(), bench.connected()):
        peer.write(b"early")
        bench.fence()
        assert not bench.read(conn)
        bench.do(Receive(conn))
        assert bench.wait_for_bytes(conn, 5) == b"early"


def test_a_receive_stands_until_it_is_held(bench: Bench) -> None:
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


def test_a_hold_in_the_turn_of_a_read_holds_at_once_and_loses_nothing(bench: Bench) -> None:
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


def test_hold_and_receive_in_one_turn(bench: Bench) -> None:
    conn, peer = bench.accepted()
    bench.do(Receive(conn))
    for count in range(1, 20):
        bench.do(Hold(conn), Receive(conn))
        peer.write(b"x")
        bench.do(Hold(conn), Receive(conn))
        bench.wait_for_bytes(conn, count)
    assert bench.read(conn) == b"x" * 19


def test_the_end_of_the_stream_waits_while_held_and_is_heard_once(bench: Bench) -> None:
    conn, peer = bench.accepted()
    peer.write(b"last words")
    peer.write_eof()
    bench.fence()
    bench.do(Receive(conn))
    bench.wait_for_end(conn)
    bench.fence()
    assert bench.read(conn) == b"last words"
    assert len([item for item in bench.heard(Received, conn) if not item.data]) == 1


def test_a_send_that_is_not_taken_is_blocked_and_later_sent(bench: Bench) -> None:
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


def test_small_sends_are_taken_in_silence(bench: Bench) -> None:
    conn, peer = bench.connected()
    for index in range(100):
        bench.do(Send(conn, b"%02d " % index))
    bench.harness.until(lambda: len(peer.received) == 300)
    assert peer.received == b"".join(b"%02d " % index for index in range(100))
    assert not bench.heard(Blocked, conn)


def test_a_list_of_bytes_is_sent_as_one(bench: Bench) -> None:
    conn, peer = bench.accepted()
    peer.pause()
    bench.do(Send(conn, [b"head ", MUCH, b" tail"]))
    assert bench.heard(Blocked, conn)
    peer.resume()
    bench.wait(Sent, conn)
    bench.harness.until(lambda: len(peer.received) == len(MUCH) + 10)
    assert peer.received == b"head " + MUCH + b" tail"


def test_a_list_of_more_pieces_than_one_system_call_takes(bench: Bench) -> None:
    pieces = [b"%d," % number for number in range(5000)]
    conn, peer = bench.accepted()
    bench.do(Send(conn, pieces))
    bench.harness.until(lambda: len(peer.received) == sum(map(len, pieces)))
    assert peer.received == b"".join(pieces)


def test_reading_goes_on_while_writing_is_blocked(bench: Bench) -> None:
    conn, peer = bench.accepted()
    peer.pause()
    bench.do(Receive(conn), Send(conn, MUCH))
    peer.write(b"still here")
    assert bench.wait_for_bytes(conn, 10) == b"still here"


def test_blocked_is_heard_before_anything_else_can_be_done(bench: Bench) -> None:
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


# -- half-closing


def test_a_peer_that_half_closes_still_gets_what_we_send(bench: Bench) -> None:
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


def test_we_half_close_and_still_hear_the_peer(bench: Bench) -> None:
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


def test_a_half_close_by_itself(bench: Bench) -> None:
    conn, peer = bench.accepted()
    bench.do(Send(conn, b"", eof=True))
    bench.harness.until(lambda: peer.eof)
    assert not bench.heard(Blocked, conn)


def test_a_half_close_behind_what_is_blocked(bench: Bench) -> None:
    conn, peer = bench.accepted()
    peer.pause()
    bench.do(Send(conn, MUCH, eof=True))
    assert bench.heard(Blocked, conn)
    peer.resume()
    bench.wait(Sent, conn)
    bench.harness.until(lambda: peer.eof)
    assert peer.received == MUCH


# -- law 2: Closed is the only failure, and the last word


def test_a_close_goes_behind_what_was_sent(bench: Bench) -> None:
    conn, peer = bench.accepted()
    peer.pause()
    bench.do(Send(conn, MUCH))
    bench.do(Close(conn))
    peer.resume()
    assert bench.wait(Closed, conn).error is None
    bench.harness.until(lambda: peer.eof)
    assert peer.received == MUCH
    assert not bench.heard(Sent, conn), "only Closed comes behind a Close"


def test_a_close_in_the_turn_of_a_send(bench: Bench) -> None:
    conn, peer = bench.accepted()
    bench.do(Send(conn, b"goodbye"), Close(conn))
    bench.wait(Closed, conn)
    bench.harness.until(lambda: peer.eof)
    assert peer.received == b"goodbye"


def test_an_abort_is_a_reset_to_the_peer(bench: Bench) -> None:
    for conn, peer in (bench.accepted(), bench.connected()):
        bench.do(Close(conn, abort=True))
        assert bench.wait(Closed, conn).error is None
        bench.wait_for_reset(peer)
        assert not peer.eof


def test_an_abort_destroys_what_is_blocked(bench: Bench) -> None:
    conn, peer = bench.accepted()
    peer.pause()
    bench.do(Send(conn, MUCH))
    bench.do(Close(conn, abort=True))
    assert bench.wait(Closed, conn).error is None
    peer.resume()
    bench.harness.until(lambda: peer.was_reset)
    assert len(peer.received) < len(MUCH)


def test_an_abort_hastens_a_close(bench: Bench) -> None:
    conn, peer = bench.accepted()
    peer.pause()
    bench.do(Send(conn, MUCH))
    bench.do(Close(conn))
    bench.fence()
    assert not bench.heard(Closed, conn)
    bench.do(Close(conn, abort=True))
    assert bench.wait(Closed, conn).error is None
    assert len(bench.heard(Closed, conn)) == 1


def test_a_peer_that_resets_is_heard(bench: Bench) -> None:
    for conn, peer in (bench.accepted(), bench.connected()):
        bench.do(Receive(conn))
        peer.write(b"x")
        bench.wait_for_bytes(conn, 1)
        peer.reset()
        closed = bench.wait(Closed, conn)
        assert closed.error == "reset"
        assert closed.detail


def test_a_reset_while_blocked_stands_for_the_send_too(bench: Bench) -> None:
    conn, peer = bench.accepted()
    peer.pause()
    bench.do(Receive(conn), Send(conn, MUCH))
    assert bench.heard(Blocked, conn)
    peer.reset()
    assert bench.wait(Closed, conn).error == "reset"
    bench.fence()
    assert not bench.heard(Sent, conn)


def test_a_reset_while_held_is_heard_at_the_next_receive_at_the_latest(bench: Bench) -> None:
    conn, peer = bench.accepted()
    peer.reset()
    bench.fence()
    if not bench.heard(Closed, conn):
        bench.do(Receive(conn))
    assert bench.wait(Closed, conn).error in ("reset", None)


def test_sending_to_who_has_gone_ends_in_closed(bench: Bench) -> None:
    conn, peer = bench.accepted()
    bench.do(Receive(conn))
    peer.close()
    bench.wait_for_end(conn)
    bench.do(Send(conn, b"anybody there?"))
    bench.fence()
    if not bench.heard(Closed, conn):
        bench.do(Send(conn, b"hello?"))
    assert bench.wait(Closed, conn).error == "reset"


def test_closing_with_bytes_unread_ends_the_connection_for_the_peer(bench: Bench) -> None:
    """By a reset, as a rule (RFC 2525, section 2.17); in order where the backend had read them early (uvloop)."""
    conn, peer = bench.accepted()
    peer.write(b"unread")
    bench.fence()
    bench.do(Close(conn))
    assert bench.wait(Closed, conn).error is None
    bench.harness.until(lambda: peer.was_reset or peer.eof)


def test_nothing_is_heard_behind_a_close(bench: Bench) -> None:
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


def test_both_sides_close_at_once(bench: Bench) -> None:
    conn, peer = bench.accepted()
    bench.do(Receive(conn))
    peer.close()
    bench.do(Close(conn))
    bench.wait(Closed, conn)


# -- jobs


def test_blocking_jobs(bench: Bench) -> None:
    good, bad = bench.number(), bench.number()

    def fail() -> None:
        raise LookupError("not there")

    bench.do(Run(good, "blocking", lambda: 42), Run(bad, "blocking", fail))
    assert not bench.heard(Finished, good), "never from within the turn that asks"
    assert bench.wait(Finished, good) == Finished(good, 42, None)
    assert isinstance(bench.wait(Finished, bad).error, LookupError)


def test_native_jobs(bench: Bench) -> None:
    good, bad = bench.number(), bench.number()

    async def answer() -> int:
        return 42

    async def fail() -> None:
        raise LookupError("not there")

    bench.do(Run(good, "native", answer), Run(bad, "native", fail))
    assert not bench.heard(Finished, good)
    assert bench.wait(Finished, good) == Finished(good, 42, None)
    assert isinstance(bench.wait(Finished, bad).error, LookupError)


def test_a_cancelled_job_is_finished_once(bench: Bench) -> None:
    async def answer() -> int:
        return 42

    one, two = bench.number(), bench.number()
    bench.do(Run(one, "blocking", lambda: 42), Run(two, "native", answer), Cancel(one), Cancel(two))
    for job in (one, two):
        finished = bench.wait(Finished, job)
        assert finished.value == 42 or isinstance(finished.error, CancelledError)
    bench.fence()
    assert len(bench.heard(Finished, one)) == len(bench.heard(Finished, two)) == 1


# -- law 6: time


def test_alarms_ring_in_order_and_never_before_their_time(bench: Bench) -> None:
    puppet = bench.puppet
    due = [puppet.now + delay for delay in (0.03, 0.005, 0.02, 0.01, 0.0101)]
    puppet.alarms.extend(due)
    bench.do()
    bench.harness.until(lambda: not puppet.alarms)
    assert [when for when, _ in puppet.rung] == sorted(due)
    assert all(rung >= when for when, rung in puppet.rung)


def test_an_alarm_that_is_put_off_does_not_ring_early(bench: Bench) -> None:
    puppet = bench.puppet
    delay_s = 0.02
    while True:
        bench.do()
        puppet.alarms.append(puppet.now + delay_s)
        bench.do()
        if puppet.alarms:
            break
        delay_s *= 2.0  # this host was busy for so long that the alarm has rung
    puppet.rung.clear()
    later = puppet.alarms[0] + delay_s
    puppet.alarms[:] = [later]
    bench.do()
    bench.harness.until(lambda: puppet.rung)
    assert puppet.rung[0][1] >= later


def test_an_alarm_that_is_brought_forward_rings_then(bench: Bench) -> None:
    puppet = bench.puppet
    start = puppet.now
    puppet.alarms.append(start + 3600.0)
    bench.do()
    puppet.alarms.append(puppet.now + 0.005)
    bench.do()
    bench.harness.until(lambda: puppet.rung)
    assert puppet.rung[0][1] < start + 3600.0
    puppet.alarms.clear()


# -- law 7 and the end


def test_a_drain_is_handed_on_and_the_end_awaits_the_last_connection(bench: Bench) -> None:
    conn, peer = bench.accepted()
    bench.harness.driver.drain(30.0)
    assert bench.heard(Drain, 0) == [Drain(30.0)]
    peer.write(b"still served")
    bench.do(Receive(conn))
    bench.wait_for_bytes(conn, 12)
    assert not bench.harness.done


def test_many_connections_at_once(bench: Bench) -> None:
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
