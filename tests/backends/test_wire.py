"""A wire with TLS on it, and its driver, in a world where the test is the network and the machine.

What the layer says is scripted here where that is what matters, and OpenSSL's own elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from coulee.backends.layer import OWN_BYTES_MAX, TRUNCATED, Layer, LayerError
from coulee.core.seam import (
    Blocked,
    Bytes,
    Close,
    Closed,
    Connect,
    Hold,
    Operation,
    Receive,
    Received,
    Secure,
    Secured,
    Security,
    Send,
    Sent,
    UpstreamTls,
)
from tests.backends.test_driver import PlainWire, World
from tests.backends.tls_ends import (
    HANDSHAKE,
    KEY_UPDATE,
    PLACE,
    Hand,
    LayerEnd,
    PythonEnd,
    asking,
    certificate,
    downstream,
    issued,
    upstream,
)
from tests.backends.tls_ends import answering as python_answering

SECURITY = Security("TLSv1.3", "any")
SECURE = Secure(1, upstream())


class Scripted:
    """A layer that is told what to say. Bytes go through it in capitals."""

    def __init__(self) -> None:
        self.security: Security | None = None
        self.ended = False
        self.to_send = b""
        self.given: list[bytes] = []
        self.trouble: LayerError | None = None

    def receive(self, data: bytes) -> bytes:
        self.given.append(data)
        if b"hello" in data:  # the last word of its handshake
            self.security = SECURITY
            data = data.partition(b"hello")[2]
        if data.endswith(b"."):
            self.ended = True
            data = data[:-1]
        if self.trouble is not None:
            raise self.trouble
        return data.upper()

    def encrypt(self, data: Bytes) -> bytes:
        if self.trouble is not None:
            raise self.trouble
        return (data if isinstance(data, bytes) else b"".join(data)).upper()

    def farewell(self) -> bytes:
        return b"bye" if self.security else b""


class Stage(World):
    """A world whose layers are scripted, or given."""

    def __init__(self, layer: Layer | None = None) -> None:
        super().__init__()
        self.scripted = Scripted()
        self.layer: Layer = layer or self.scripted
        self.driver.new_layer = lambda tls, place: self.layer  # type: ignore[method-assign]

    def securing(self) -> PlainWire:
        """A connection whose handshake goes on."""
        wire = self.connection()
        self.asks(SECURE)
        wire.calls.clear()
        return wire

    def secured(self, *, reading: bool = True) -> PlainWire:
        """One whose handshake is done."""
        wire = self.securing()
        wire.received(b"hello")
        if reading:
            self.asks(Receive(1))
        assert self.heard() == [Secured(1, SECURITY)]
        wire.calls.clear()
        return wire

    def answers(self, *turns: Operation | Sequence[Operation]) -> None:
        """What the machine asks for in its next turns, without one now."""
        self.machine.answers = [list(turn) if isinstance(turn, Sequence) else [turn] for turn in turns]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def stage() -> Stage:
    return Stage()


def written(wire: PlainWire) -> list[Bytes]:
    return [call[1] for call in wire.calls if call[0] == "write"]


# ---------------------------------------------------------------------------------------------------- handshake


class TestHandshake:
    def test_it_is_read_for_without_a_receive_and_ends_held(self, stage: Stage) -> None:
        wire = stage.connection()
        stage.scripted.to_send = b"client hello"
        stage.asks(SECURE)
        assert wire.calls[1:] == [("resume",), ("write", b"client hello")]
        wire.received(b"more")
        assert stage.heard() == []
        wire.received(b"hello")
        assert stage.heard() == [Secured(1, SECURITY)]
        assert ("pause",) not in wire.calls, "a Receive follows at once, and who is held may deliver one read"
        assert not wire.reading

    def test_what_came_before_is_given_to_it_in_order(self, stage: Stage) -> None:
        wire = stage.connection()
        wire.received(b"two")  # the one read that a loop may deliver to who is held
        stage.asks(Secure(1, upstream(), b"one,"))
        assert stage.scripted.given == [b"one,two"]
        assert wire.early is None

    def test_what_was_read_and_waits_for_its_turn_is_given_to_it_too(self, stage: Stage) -> None:
        """uvloop reads more than once in a turn of its own; all of that is handed over together."""
        wire = stage.connection()
        stage.asks(Receive(1))
        stage.answers([Hold(1), Secure(1, upstream(), b"one,")])
        stage.driver.gather(wire, b"one,")
        stage.driver.gather(wire, b"two,")
        stage.driver.gather(wire, b"hello")
        stage.driver.deliver()
        assert stage.scripted.given == [b"one,two,hello"]
        assert stage.heard() == [Received(1, b"one,"), Secured(1, SECURITY)]

    def test_others_keep_what_was_read_of_them(self, stage: Stage) -> None:
        wire, other = stage.connection(), stage.connection(2)
        stage.asks([Receive(1), Receive(2)])
        stage.answers([Hold(1), Secure(1, upstream(), b"one")])
        stage.driver.gather(wire, b"one")
        stage.driver.gather(other, b"plain")
        stage.driver.deliver()
        assert stage.heard() == [Received(1, b"one"), Received(2, b"plain")]

    def test_an_end_of_the_stream_that_waits_for_its_turn(self, stage: Stage) -> None:
        wire = stage.connection()
        stage.asks(Receive(1))
        stage.answers([Hold(1), Secure(1, upstream(), b"one")])
        stage.driver.gather(wire, b"one")
        wire.received(b"")
        stage.driver.deliver()
        assert stage.heard() == [Received(1, b"one"), Closed(1, "reset", "the connection ended before TLS began")]

    def test_an_end_of_the_stream_before_it(self, stage: Stage) -> None:
        wire = stage.connection()
        wire.received(b"")
        stage.asks(SECURE)
        assert stage.heard() == [Closed(1, "reset", "the connection ended before TLS began")]

    def test_an_end_of_the_stream_within_it(self, stage: Stage) -> None:
        wire = stage.securing()
        wire.received(b"")
        assert stage.heard() == [Closed(1, "reset", TRUNCATED)]
        assert wire.calls == [("close", True)]

    def test_a_reset_within_it(self, stage: Stage) -> None:
        stage.securing().lost("reset", "connection reset by peer")
        assert stage.heard() == [Closed(1, "reset", "connection reset by peer")]

    def test_data_that_comes_with_it_is_kept(self, stage: Stage) -> None:
        wire = stage.securing()
        wire.received(b"hellodata")
        wire.received(b"more")  # before it was paused
        assert stage.heard() == [Secured(1, SECURITY)]
        stage.asks(Receive(1))
        assert stage.heard() == [Received(1, b"DATAMORE")]

    def test_the_whole_in_one_read(self, stage: Stage) -> None:
        wire = stage.securing()
        wire.received(b"hellodata.")
        assert stage.heard() == [Secured(1, SECURITY)]
        stage.asks(Receive(1))
        assert stage.heard() == [Received(1, b"DATA"), Received(1, b"")]

    def test_it_fails_and_the_alert_goes_out_before_the_end(self, stage: Stage) -> None:
        wire = stage.securing()
        stage.scripted.trouble = LayerError("tls", "no")
        stage.scripted.to_send = b"alert"
        wire.received(b"x")
        assert stage.heard() == [Closed(1, "tls", "no")]
        assert wire.calls == [("write", b"alert"), ("close", False)]

    def test_an_alert_that_nobody_takes_keeps_no_connection_open(self, stage: Stage) -> None:
        wire = stage.securing()
        stage.scripted.trouble = LayerError("tls", "no")
        stage.scripted.to_send = b"alert"
        wire.takes = False
        wire.received(b"x")
        assert wire.calls == [("write", b"alert"), ("close", True)]
        wire.sent()  # nobody minds
        assert stage.heard() == [Closed(1, "tls", "no")]

    def test_an_alert_to_who_takes_nothing_anyway(self, stage: Stage) -> None:
        wire = stage.secured()
        wire.takes = False
        stage.asks(Send(1, b"x"))
        wire.calls.clear()
        stage.scripted.trouble = LayerError("tls", "no")
        stage.scripted.to_send = b"alert"
        wire.received(b"x")
        assert wire.calls == [("close", True)]
        assert stage.heard() == [Blocked(1), Closed(1, "tls", "no")]

    def test_an_alert_behind_our_farewell(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.asks(Send(1, b"", eof=True))
        wire.calls.clear()
        stage.scripted.trouble = LayerError("tls", "no")
        stage.scripted.to_send = b"alert"
        wire.received(b"x")
        assert wire.calls == [("close", False)]

    def test_an_alert_that_cannot_be_written(self, stage: Stage) -> None:
        wire = stage.securing()
        stage.scripted.trouble = LayerError("tls", "no")
        stage.scripted.to_send = b"alert"
        wire.trouble = BrokenPipeError(32, "broken pipe")
        wire.received(b"x")
        assert stage.heard() == [Closed(1, "tls", "no")]

    def test_it_cannot_be_set_up(self, stage: Stage) -> None:
        stage.connection()

        def fail(*_: object) -> Layer:
            raise LayerError("tls", "TLS cannot be set up")

        stage.driver.new_layer = fail  # type: ignore[method-assign,assignment]
        stage.asks(SECURE)
        assert stage.heard() == [Closed(1, "tls", "TLS cannot be set up")]

    def test_the_socket_cannot_be_read(self, stage: Stage) -> None:
        wire = stage.connection()
        wire.trouble = ConnectionResetError(104, "connection reset by peer")
        stage.asks(SECURE)
        assert [(item.error) for item in stage.heard() if isinstance(item, Closed)] == ["reset"]

    def test_a_machine_that_ends_it(self, stage: Stage) -> None:
        wire = stage.securing()
        stage.asks(Close(1))
        assert wire.calls == [("close", False)]  # there is nobody yet to say farewell to
        wire.received(b"hello")
        wire.lost(None)
        assert stage.heard() == [Closed(1)]

    def test_a_machine_that_ends_it_as_it_hears_that_it_is_blocked(self, stage: Stage) -> None:
        """Which may be within the last flight: nobody is told then that the handshake is done."""
        wire = stage.securing()
        stage.answers(Close(1))
        wire.takes = False
        stage.scripted.to_send = b"flight"
        wire.received(b"hello")
        wire.lost(None)
        assert stage.heard() == [Blocked(1), Closed(1)]

    def test_a_machine_that_aborts(self, stage: Stage) -> None:
        wire = stage.securing()
        stage.asks(Close(1, abort=True))
        assert wire.calls == [("close", True)]

    def test_a_send_in_the_turn_before_goes_before(self, stage: Stage) -> None:
        wire = stage.connection()
        stage.scripted.to_send = b"client hello"
        stage.asks([Send(1, b"PROXY ..."), SECURE])
        assert written(wire) == [b"PROXY ...", b"client hello"]


class TestLaws:
    def test_a_send_before_it_stands(self, stage: Stage) -> None:
        stage.securing()
        with pytest.raises(AssertionError, match="machine, law"):
            stage.asks(Send(1, b"x"))

    def test_a_receive_before_it_stands(self, stage: Stage) -> None:
        stage.securing()
        with pytest.raises(AssertionError, match="machine, law 1: Receive on 1 before its TLS stands"):
            stage.asks(Receive(1))

    def test_a_hold_before_it_stands(self, stage: Stage) -> None:
        stage.securing()
        with pytest.raises(AssertionError, match="machine, law 1: Hold on 1 before its TLS stands"):
            stage.asks(Hold(1))

    def test_it_begins_while_a_receive_stands(self, stage: Stage) -> None:
        stage.connection()
        with pytest.raises(AssertionError, match="machine, law 4: Secure on 1 while a Receive stands"):
            stage.asks([Receive(1), SECURE])

    def test_it_begins_behind_an_end_of_stream(self, stage: Stage) -> None:
        stage.connection()
        with pytest.raises(AssertionError, match="machine, law 4: Secure on 1 behind its end of stream"):
            stage.asks([Send(1, b"", eof=True), SECURE])

    def test_it_begins_behind_a_close(self, stage: Stage) -> None:
        stage.connection()
        with pytest.raises(AssertionError, match="machine, law 2: Secure on 1 after Close"):
            stage.asks([Close(1), SECURE])

    def test_it_begins_before_the_connection_stands(self, stage: Stage) -> None:
        with pytest.raises(AssertionError, match="machine, law 1: Secure on 1 before it is open"):
            stage.asks([Connect(1, ("127.0.0.1", 1)), SECURE])

    def test_one_that_was_never_open(self, stage: Stage) -> None:
        with pytest.raises(AssertionError, match="machine, law 2: Secure on 9, which was never open"):
            stage.asks(Secure(9, upstream()))

    def test_one_that_crosses_the_last_word(self, stage: Stage) -> None:
        wire, _ = stage.connection(), stage.connection(2)
        stage.asks(Receive(2))
        stage.answers([SECURE])
        stage.driver.gather(stage.wire(2), b"x")
        wire.lost("reset")
        stage.driver.deliver()
        assert stage.heard() == [Received(2, b"x"), Closed(1, "reset")]


# -------------------------------------------------------------------------------------------------- both ways


class TestBytes:
    def test_they_go_through_it(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.asks(Send(1, [b"answ", b"er"]))
        wire.received(b"question")
        assert written(wire) == [b"ANSWER"]
        assert stage.heard() == [Received(1, b"QUESTION")]

    def test_what_holds_nothing_for_the_machine_is_no_end(self, stage: Stage) -> None:
        wire = stage.secured()
        wire.received(b"hello")  # a ticket, perhaps
        assert stage.heard() == []
        assert wire.reading

    def test_while_held_more_than_one_read_may_come(self, stage: Stage) -> None:
        """Of what is on its way, as it was asked for by TLS itself."""
        wire = stage.secured(reading=False)
        wire.received(b"one")
        wire.received(b"two")
        assert wire.calls == [("pause",), ("pause",)]
        stage.asks(Receive(1))
        assert stage.heard() == [Received(1, b"ONETWO")]

    def test_gathered(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.driver.gather(wire, b"one")
        stage.driver.gather(wire, b"two.")
        assert stage.heard() == []
        stage.driver.deliver()
        assert stage.heard() == [Received(1, b"ONE"), Received(1, b"TWO"), Received(1, b"")]

    def test_what_cannot_be_encrypted_ends_the_connection_and_nothing_else(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.scripted.trouble = LayerError("tls", "unfinished")
        stage.asks(Send(1, b"x"))
        assert stage.heard() == [Closed(1, "tls", "unfinished")]
        assert wire.calls == [("close", True)]

    def test_blocked_and_sent(self, stage: Stage) -> None:
        wire = stage.secured()
        wire.takes = False
        stage.asks(Send(1, b"x"))
        wire.sent()
        stage.asks(Send(1, b"y"))
        assert stage.heard() == [Blocked(1), Sent(1), Blocked(1)]

    def test_an_error_behind_bytes_in_order(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.scripted.trouble = LayerError("tls", "bad", b"good")
        wire.received(b"x")
        assert stage.heard() == [Received(1, b"good"), Closed(1, "tls", "bad")]

    def test_an_error_behind_bytes_with_which_the_machine_has_enough(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.scripted.trouble = LayerError("tls", "bad", b"good")
        stage.answers(Close(1))
        wire.received(b"x")
        wire.lost(None)
        assert stage.heard() == [Received(1, b"good"), Closed(1)]

    def test_an_error_behind_bytes_where_the_machine_is_busy(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.scripted.trouble = LayerError("tls", "bad", b"good")
        stage.driver.gather(wire, b"x")
        stage.driver.deliver()
        assert stage.heard() == [Received(1, b"good"), Closed(1, "tls", "bad")]


class TestOwnWords:
    """What TLS has to say by itself."""

    def test_they_go_out(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.scripted.to_send = b"key update"
        wire.received(b"x")
        assert written(wire) == [b"key update"]
        assert stage.scripted.to_send == b""
        assert stage.heard() == [Received(1, b"X")]

    def test_who_does_not_take_them_is_blocked(self, stage: Stage) -> None:
        wire = stage.secured()
        wire.takes = False
        stage.scripted.to_send = b"key update"
        wire.received(b"x")
        assert stage.heard() == [Blocked(1), Received(1, b"X")]
        with pytest.raises(AssertionError, match="machine, law 4"):
            stage.asks(Send(1, b"x"))

    def test_they_are_blocked_once(self, stage: Stage) -> None:
        wire = stage.secured()
        wire.takes = False
        stage.asks(Send(1, b"x"))
        stage.scripted.to_send = b"key update"
        wire.received(b"x")
        wire.sent()
        assert stage.heard() == [Blocked(1), Received(1, b"X"), Sent(1)]

    def test_a_flood_that_asks_for_answers_and_takes_none(self, stage: Stage) -> None:
        wire = stage.secured()
        wire.takes = False
        for _ in range(OWN_BYTES_MAX // 1024):
            stage.scripted.to_send = bytes(1024)
            wire.received(b"hello")
        assert stage.heard() == [Blocked(1)]
        stage.scripted.to_send = b"x"
        wire.received(b"hello")
        [closed] = stage.heard()
        assert isinstance(closed, Closed)
        assert closed.error == "aborted"
        assert "nobody takes" in closed.detail
        assert wire.calls[-1] == ("close", True)

    def test_who_takes_them_may_ask_on(self, stage: Stage) -> None:
        wire = stage.secured()
        for _ in range(OWN_BYTES_MAX // 1024):
            wire.takes = False
            stage.scripted.to_send = bytes(2048)
            wire.received(b"hello")
            wire.sent()
        assert stage.heard() == [Blocked(1), Sent(1)] * (OWN_BYTES_MAX // 1024)

    def test_they_cannot_be_written(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.scripted.to_send = b"key update"
        wire.trouble = BrokenPipeError(32, "broken pipe")
        wire.received(b"x")
        assert [item.error for item in stage.heard() if isinstance(item, Closed)] == ["reset"]

    def test_behind_our_farewell_there_are_none(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.asks(Send(1, b"", eof=True))
        wire.calls.clear()
        stage.scripted.to_send = b"key update"
        wire.received(b"x")
        assert wire.calls == []
        assert stage.heard() == [Received(1, b"X")]


# ------------------------------------------------------------------------------------------------------ the end


class TestTheEnd:
    def test_without_a_farewell_it_is_a_truncation(self, stage: Stage) -> None:
        wire = stage.secured()
        wire.received(b"data")
        wire.received(b"")
        assert stage.heard() == [Received(1, b"DATA"), Closed(1, "truncated", TRUNCATED)]

    def test_with_a_farewell(self, stage: Stage) -> None:
        wire = stage.secured()
        wire.received(b"data.")
        wire.received(b"")
        assert stage.heard() == [Received(1, b"DATA"), Received(1, b"")]
        stage.asks(Send(1, b"answer"))
        assert written(wire) == [b"ANSWER"]

    def test_a_farewell_while_held(self, stage: Stage) -> None:
        wire = stage.secured(reading=False)
        wire.received(b"data.")
        assert stage.heard() == []
        stage.asks(Receive(1))
        assert stage.heard() == [Received(1, b"DATA"), Received(1, b"")]

    def test_behind_a_farewell_nothing_has_a_meaning(self, stage: Stage) -> None:
        wire = stage.secured()
        wire.received(b".")
        wire.received(b"junk")
        wire.received(b"")
        assert stage.heard() == [Received(1, b"")]
        assert stage.scripted.given == [b"", b"hello", b"."]

    def test_a_reset_behind_a_farewell_is_still_heard(self, stage: Stage) -> None:
        wire = stage.secured()
        wire.received(b".")
        wire.lost("reset")
        assert stage.heard() == [Received(1, b""), Closed(1, "reset")]

    def test_a_machine_that_closes_as_it_hears_the_last_bytes(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.answers(Close(1))
        wire.received(b"data.")
        assert stage.heard() == [Received(1, b"DATA")]
        assert wire.calls == [("write", b"bye"), ("close", False)]

    def test_a_close_says_farewell(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.asks([Send(1, b"last"), Close(1)])
        assert wire.calls == [("write", b"LAST"), ("write", b"bye"), ("close", False)]

    def test_an_abort_does_not(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.asks(Close(1, abort=True))
        assert wire.calls == [("close", True)]

    def test_a_close_whose_farewell_has_to_wait(self, stage: Stage) -> None:
        """The machine need not know, and the backend may say that it is gone."""
        wire = stage.secured()
        wire.takes = False
        stage.asks(Close(1))
        wire.sent()
        wire.lost(None)
        assert stage.heard() == [Closed(1)]

    def test_an_end_of_stream_says_farewell_in_the_same_write(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.asks(Send(1, b"last", eof=True))
        assert wire.calls == [("write", b"LASTbye"), ("write_eof",)]
        stage.asks(Close(1))
        assert wire.calls[2:] == [("close", False)]  # and once only

    def test_an_end_of_stream_by_itself(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.asks(Send(1, b"", eof=True))
        assert wire.calls == [("write", b"bye"), ("write_eof",)]
        assert stage.heard() == []

    @pytest.mark.parametrize("data", [b"", b"last"])
    def test_an_end_of_stream_whose_farewell_has_to_wait(self, stage: Stage, data: bytes) -> None:
        wire = stage.secured()
        wire.takes = False
        stage.asks(Send(1, data, eof=True))
        wire.sent()
        assert stage.heard() == [Blocked(1), Sent(1)]

    def test_bytes_still_come_behind_our_end_of_stream(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.asks(Send(1, b"", eof=True))
        wire.received(b"data.")
        assert stage.heard() == [Received(1, b"DATA"), Received(1, b"")]

    def test_what_comes_while_it_is_closed_is_dropped(self, stage: Stage) -> None:
        wire = stage.secured()
        stage.asks(Close(1))
        wire.received(b"data")
        wire.received(b"")
        wire.lost(None)
        assert stage.heard() == [Closed(1)]
        assert b"data" not in stage.scripted.given


# --------------------------------------------------------------------------------------------- OpenSSL's own


class TestForReal:
    """The same world, with OpenSSL's layers on the wire."""

    def carry(self, wire: PlainWire, end: PythonEnd | LayerEnd) -> None:
        """Until both are silent."""
        while True:
            out = b"".join(data for data in written(wire) if isinstance(data, bytes))
            wire.calls.clear()
            if out:
                end.feed(out)
            back = end.take()
            if not back:
                return
            wire.received(back)

    def accepted(self, end: PythonEnd, world: World, secure: Secure) -> PlainWire:
        wire = world.connection()
        end.start()
        early = end.take()
        wire.calls.clear()
        world.asks(Secure(1, secure.tls, early))
        self.carry(wire, end)
        return wire

    def test_a_client(self, world: World) -> None:
        end = PythonEnd(asking())
        wire = self.accepted(end, world, Secure(1, downstream()))
        world.asks(Receive(1))
        wire.received(end.say(b"question"))
        world.asks(Send(1, b"answer"))
        self.carry(wire, end)
        assert end.plain == b"answer"
        secured, received = world.heard()
        assert isinstance(secured, Secured)
        assert received == Received(1, b"question")

    def test_tls_within_tls(self, world: World) -> None:
        """As where a peer is reached by a tunnel through a proxy to which we speak TLS."""
        wire = world.connection()
        outer = PythonEnd(python_answering(issued("a.test")), server=True)
        world.asks(Secure(1, upstream()))
        self.carry(wire, outer)
        inner = PythonEnd(python_answering(issued("b.test")), server=True)
        world.asks(Secure(1, upstream("b.test")))
        for _ in range(4):
            self.carry(wire, outer)
            inner.feed(outer.plain)
            outer.plain = b""
            out = inner.take()
            if out:
                wire.received(outer.say(out))
        world.asks([Receive(1), Send(1, b"question")])
        self.carry(wire, outer)
        inner.feed(outer.plain)
        assert inner.plain == b"question"
        wire.received(outer.say(inner.say(b"answer") + inner.farewell()))
        first, second, *rest = world.heard()
        assert isinstance(first, Secured)
        assert isinstance(second, Secured)
        assert first.security.certificate != second.security.certificate
        assert rest == [Received(1, b"answer"), Received(1, b"")]

    def test_a_client_that_breaks_off_a_message_of_tls_ends_nobody_but_himself(
        self, world: World, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        keys = tmp_path_factory.mktemp("keys") / "log"
        context = asking("1.3")
        context.keylog_filename = str(keys)
        wire = self.accepted(PythonEnd(context), world, Secure(1, downstream()))
        other = world.connection(2)
        world.heard()
        wire.received(Hand(keys.read_text()).record(HANDSHAKE, KEY_UPDATE[:4]))
        world.asks([Send(1, b"to him"), Send(2, b"to somebody else")])
        [closed] = world.heard()
        assert isinstance(closed, Closed)
        assert (closed.conn, closed.error) == (1, "tls")
        assert written(other) == [b"to somebody else"]

    def test_a_wrong_name(self, world: World) -> None:
        wire = world.connection()
        end = PythonEnd(python_answering(issued("b.test")), server=True)
        world.asks(Secure(1, upstream()))
        self.carry(wire, end)
        [closed] = world.heard()
        assert closed == Closed(1, "tls", "the peer's certificate is not for a.test: it has b.test")

    def test_settings_that_cannot_be(self, world: World) -> None:
        world.connection()
        world.asks(Secure(1, UpstreamTls(ciphers="none such")))
        [closed] = world.heard()
        assert isinstance(closed, Closed)
        assert closed.error == "tls"
        assert closed.detail.startswith("TLS cannot be set up: ")

    def test_one_driver_makes_its_layers_in_one_place(self, world: World) -> None:
        first = world.driver.new_layer(downstream(certificate("a.test")), PLACE)
        assert world.driver.new_layer(downstream(certificate("a.test")), PLACE) is not first
        assert world.driver.tls is not None
