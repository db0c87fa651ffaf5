"""WebSockets whose messages filters see, as packet traces: bytes of either side in, bytes for either side out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from coulee.core import (
    Closing,
    Config,
    Exchange,
    ExchangeError,
    Filter,
    Forwarding,
    Message,
    Outcome,
    Proxy,
    Response,
    Timeouts,
    WebSocket,
    respond,
    sleep,
)
from coulee.core.seam import Blocked, Close, Closed, Drain, Received, Sent
from coulee.lb import Cluster
from tests.core.websocket_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    Frame,
    close,
    frame,
    read,
    text,
)
from tests.core.world import LISTENER, World

PLAIN = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False))
ASK = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nDate: now\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


class Seen(Filter):
    """Writes down what it sees, and makes of it what it is told to."""

    def __init__(self, make: Callable[[Exchange, Message], Any] | None = None) -> None:
        self.make = make
        self.messages: list[tuple[str | bytes, str]] = []
        self.ends: list[tuple[int, str, str]] = []

    def websocket_message(self, exchange: Exchange, message: Message) -> Any:
        self.messages.append((message.data, message.sender))
        return self.make(exchange, message) if self.make is not None else None

    def websocket_close(self, exchange: Exchange, closing: Closing) -> None:
        self.ends.append((closing.code, closing.reason, closing.sender))


class Ends(Filter):
    """Has something to say about the end only."""

    def __init__(self, make: Callable[[Closing], Any]) -> None:
        self.make = make

    def websocket_close(self, exchange: Exchange, closing: Closing) -> Any:
        return self.make(closing)


class Line:
    """A client, an origin, and coulee between them, behind the 101."""

    def __init__(self, *filters: Filter, ask: bytes = ASK, switch: bytes = SWITCH, **settings: Any) -> None:
        limits = settings.pop("timeouts", Timeouts())
        config = replace(PLAIN, websocket=WebSocket(**settings), timeouts=limits)
        proxy = Proxy(Cluster("http://10.0.0.1"), filters, config)
        self.proxy = proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER])
        self.world = World(self.proxy)
        self.client = self.world.client()
        self.world.receives(self.client, ask)
        self.origin = self.world.connects()
        self.asked = self.world.sent(self.origin)
        self.world.receives(self.origin, switch)
        head, end, rest = self.world.sent(self.client).partition(b"\r\n\r\n")
        self.switched = head + end
        if rest:
            self.world.outbox[self.client] = rest

    def says(self, data: bytes) -> None:
        """The client sends bytes."""
        self.world.receives(self.client, data)

    def answers(self, data: bytes) -> None:
        """The origin does."""
        self.world.receives(self.origin, data)

    @property
    def up(self) -> list[Frame]:
        """What the origin has got since it was last asked for, which must be masked."""
        frames = read(self.world.sent(self.origin))
        assert all(each.masked for each in frames)
        return [each._replace(masked=False) for each in frames]

    @property
    def down(self) -> list[Frame]:
        """... and the client, which must not."""
        frames = read(self.world.sent(self.client))
        assert not any(each.masked for each in frames)
        return frames

    @property
    def record(self) -> tuple[str, object]:
        """Why it has ended, and the code in the access record."""
        (record,) = self.world.access
        return record.reason, record.tags.get("websocket_close")

    def is_over(self) -> None:
        """Nothing is left of it."""
        assert {self.client, self.origin} <= set(self.world.closed)
        set_still = {type(alarm).__name__ for _, _, alarm in self.proxy.kernel.heap if alarm is not None}
        assert set_still <= {"Bell"}, "the cluster has one of its own; another would keep all that its exchange holds"
        self.world.leaves_nothing()


def told(*words: str | bytes) -> list[Frame]:
    """Messages, as they are read."""
    return [Frame(TEXT, word.encode()) if isinstance(word, str) else Frame(BINARY, word) for word in words]


def bye(code: int, reason: str = "") -> list[Frame]:
    """A close frame, as it is read."""
    return [Frame(CLOSE, code.to_bytes(2, "big") + reason.encode())]


def no_reason(frames: list[Frame]) -> list[Frame]:
    """Close frames without the words in them."""
    return [each._replace(payload=each.payload[:2]) if each.opcode == CLOSE else each for each in frames]


# ----------------------------------------------------------------------------------------------------- messages


def test_messages_of_both_kinds_and_sides() -> None:
    seen = Seen()
    line = Line(seen)
    line.says(text("hello") + frame(BINARY, b"\x00\xff"))
    assert line.up == told("hello", b"\x00\xff")
    line.answers(text("äöü", mask=None))
    assert line.down == told("äöü")
    assert seen.messages == [("hello", "downstream"), (b"\x00\xff", "downstream"), ("äöü", "upstream")]
    counters = line.proxy.counters
    assert (counters.messages_in, counters.messages_out) == (2, 1)


def test_a_message_in_pieces_goes_on_as_one_with_controls_between_them() -> None:
    seen = Seen()
    line = Line(seen)
    line.says(frame(TEXT, b"f\xc3", fin=False))
    line.says(frame(PING, b"?") + frame(CONTINUATION, b"", fin=False))
    assert line.up == [Frame(PING, b"?")], "which does not wait for the rest"
    line.says(frame(CONTINUATION, b"\xbcr"))
    assert line.up == told("für")
    line.says(frame(BINARY, b"a", fin=False) + frame(CONTINUATION, b"b", fin=False) + frame(CONTINUATION, b"c"))
    assert line.up == told(b"abc")
    assert seen.messages == [("für", "downstream"), (b"abc", "downstream")]


@pytest.mark.parametrize("step", [1, 2, 7])
def test_bytes_that_trickle(step: int) -> None:
    line = Line(Seen())
    data = text("a" * 200) + frame(PING, b"now") + frame(BINARY, b"b" * 70000)
    for at in range(0, len(data), step if step > 1 else 997):
        line.says(data[at : at + (step if step > 1 else 997)])
    assert line.up == [*told("a" * 200), Frame(PING, b"now"), *told(b"b" * 70000)]


@pytest.mark.parametrize(
    ("outcome", "up", "down"),
    [
        (lambda message: None, ["hi"], []),
        (lambda message: "ho", ["ho"], []),
        (lambda message: b"ho", [b"ho"], []),
        (lambda message: "", [""], []),
        (lambda message: [], [], []),
        (lambda message: ["a", b"b"], ["a", b"b"], []),
        (lambda message: message.reply("no"), [], ["no"]),
        (lambda message: [message.data, message.reply(b"got it"), "more"], ["hi", "more"], [b"got it"]),
    ],
    ids=["pass", "change", "other kind", "empty", "drop", "split", "answer", "all of it"],
)
def test_what_a_filter_makes_of_a_message(
    outcome: Callable[[Message], Outcome | None], up: list[str | bytes], down: list[str | bytes]
) -> None:
    line = Line(Seen(lambda exchange, message: outcome(message)))
    line.says(text("hi"))
    assert line.up == told(*up)
    assert line.down == told(*down)


def test_a_message_may_be_changed_in_place() -> None:
    def shout(exchange: Exchange, message: Message) -> None:
        assert isinstance(message.data, str)
        message.data = message.data.upper()

    line = Line(Seen(shout))
    line.says(text("hi"))
    assert line.up == told("HI")


def test_filters_follow_each_other_from_the_client_to_the_origin_and_back() -> None:
    def mark(letter: str) -> Filter:
        return Seen(lambda exchange, message: [f"{message.data!s}{letter}", f"{message.data!s}{letter.upper()}"])

    line = Line(mark("a"), mark("b"))
    line.says(text("1"))
    assert line.up == told("1ab", "1aB", "1Ab", "1AB")
    line.answers(text("2", mask=None))
    assert line.down == told("2ba", "2bA", "2Ba", "2BA")


def test_a_filter_may_take_its_time_and_messages_keep_their_order() -> None:
    async def think(exchange: Exchange, message: Message) -> str:
        await sleep(1 if message.data == "slow" else 0.1)
        return f"{message.data!s}!"

    line = Line(Seen(think))
    line.says(text("slow") + text("quick"))
    line.answers(text("other way", mask=None))
    assert line.up == []
    line.world.wait(0.5)
    assert (line.up, line.down) == ([], told("other way!")), "one direction does not wait for the other"
    line.world.wait(0.6)
    assert line.up == told("slow!", "quick!")


@pytest.mark.parametrize("pings", ["pass", "answer"])
def test_who_answers_a_ping(pings: str) -> None:
    line = Line(Seen(), pings=pings)
    line.says(frame(PING, b"1"))
    line.answers(frame(PING, b"2", mask=None))
    line.says(frame(PONG, b"3"))
    if pings == "pass":
        assert line.up == [Frame(PING, b"1"), Frame(PONG, b"3")]
        assert line.down == [Frame(PING, b"2")]
    else:
        assert line.up == [Frame(PONG, b"2")]
        assert line.down == [Frame(PONG, b"1")]


def test_bytes_that_came_with_the_heads_are_messages_too() -> None:
    line = Line(Seen(), ask=ASK + text("early"), switch=SWITCH + text("at once", mask=None))
    assert line.up == told("early")
    assert line.down == told("at once")


def test_the_same_seed_sends_the_same_bytes_and_another_one_other_masks() -> None:
    def masked(seed: int) -> bytes:
        line = Line(Seen())
        line.proxy.rng.seed(seed)
        client = line.world.client()
        line.world.receives(client, ASK)
        origin = line.world.connects()
        line.world.receives(origin, SWITCH)
        line.world.sent(origin)
        line.world.receives(client, text("a") * 70)
        return line.world.sent(origin)

    assert masked(1) == masked(1)
    assert masked(1) != masked(2)
    keys = {masked(1)[at + 2 : at + 6] for at in range(0, 70 * 7, 7)}
    assert len(keys) == 70, "and each frame has one of its own"


# --------------------------------------------------------------------------------------------------- the handshake


def test_extensions_are_agreed_with_each_side_apart() -> None:
    offer = ASK.replace(b"Connection", b"Sec-WebSocket-Extensions: x-unknown; a=1\r\nConnection")
    line = Line(Seen(), ask=offer)
    assert b"x-unknown" not in line.asked
    assert b"Extensions" not in line.switched


def test_what_passes_unseen_is_not_touched() -> None:
    offer = ASK.replace(b"Connection", b"Sec-WebSocket-Extensions: x-unknown; a=1\r\nConnection")
    agreed = SWITCH.replace(b"Connection", b"Sec-WebSocket-Extensions: x-unknown\r\nConnection")
    line = Line(ask=offer, switch=agreed)
    assert b"Extensions: x-unknown; a=1\r\n" in line.asked
    assert b"Extensions: x-unknown\r\n" in line.switched
    line.says(b"anything")
    assert line.world.sent(line.origin) == b"anything"


def test_an_origin_that_agrees_to_what_was_not_offered() -> None:
    line = Line(Seen(), switch=SWITCH.replace(b"Connection", b"Sec-WebSocket-Extensions: x-other\r\nConnection"))
    assert line.switched.startswith(b"HTTP/1.1 502 ")
    assert line.record == ("upstream_invalid", None)


def test_another_protocol_has_no_messages() -> None:
    config = replace(PLAIN, upgrades=("websocket", "echo"))
    proxy = Proxy(Cluster("http://10.0.0.1"), [Seen()], config)
    world = World(proxy.fresh(rng=Random(1), listen=[LISTENER]))
    client = world.client()
    world.receives(client, ASK.replace(b"Upgrade: websocket", b"Upgrade: echo"))
    origin = world.connects()
    world.receives(origin, SWITCH.replace(b"Upgrade: websocket", b"Upgrade: echo"))
    world.sent(origin)
    world.receives(client, b"anything")
    assert world.sent(origin) == b"anything"


def test_a_refusal_is_an_ordinary_answer() -> None:
    seen = Seen()
    line = Line(seen, switch=b"HTTP/1.1 403 Forbidden\r\nDate: now\r\nContent-Length: 3\r\n\r\nno\n")
    assert line.switched.startswith(b"HTTP/1.1 403 ")
    assert line.world.sent(line.client) == b"no\n"
    assert line.record == ("", None)
    assert seen.ends == []


def test_a_filter_that_refuses_the_101_and_a_drain_behind_it() -> None:
    class Refuse(Seen):
        def response_filter(self, exchange: Exchange, response: Response) -> Response:
            return respond(403)

    line = Line(Refuse())
    assert line.switched.startswith(b"HTTP/1.1 403 ")
    line.world.gives(Drain(1))
    line.world.leaves_nothing()


# --------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1011, 1014, 3000, 4999])
def test_a_close_frame_and_its_answer(code: int) -> None:
    seen = Seen()
    line = Line(seen)
    line.says(close(code, "done"))
    assert (line.up, line.down) == (bye(code, "done"), [])
    line.answers(text("last words", mask=None) + close(code, "ok", mask=None))
    assert line.down == [*told("last words"), *bye(code, "ok")]
    assert line.world.eofs == [line.client], "it is for a server to close first"
    line.answers(b"")
    line.says(b"")
    assert line.record == ("", code)
    assert seen.ends == [(code, "done", "downstream")]
    assert line.world.closing == {line.client: False, line.origin: False}
    line.is_over()


def test_the_origin_closes_first() -> None:
    seen = Seen()
    line = Line(seen)
    line.answers(frame(CLOSE, mask=None))
    assert line.down == [Frame(CLOSE, b"")]
    line.says(frame(CLOSE))
    assert line.up == [Frame(CLOSE, b"")]
    line.says(b"")
    line.answers(b"")
    assert seen.ends == [(1005, "", "upstream")]
    assert line.record == ("", 1005)
    line.is_over()


def test_both_close_at_once() -> None:
    seen = Seen()
    line = Line(seen)
    line.says(close(4000))
    line.answers(close(4001, mask=None))
    assert (line.up, line.down) == (bye(4000), bye(4001))
    assert seen.ends == [(4000, "", "downstream")]
    line.says(b"")
    line.answers(b"")
    line.is_over()


def test_nothing_is_read_behind_a_close_frame_nor_sent() -> None:
    seen = Seen()
    line = Line(seen)
    line.says(close(1000) + text("too late") + b"\xff\xff")
    assert line.up == bye(1000)
    assert seen.messages == []
    line.answers(close(1000, mask=None) + text("too late", mask=None))
    assert line.down == bye(1000)
    line.says(frame(PING) + b"\xff")
    assert line.up == []


def test_a_filter_may_change_how_it_ends() -> None:
    line = Line(Ends(lambda closing: Closing(4321, "changed")), Seen())
    line.says(close(1000, "done"))
    assert line.up == bye(4321, "changed")
    line.answers(close(4321, mask=None))
    assert line.down == bye(4321)


def test_a_filter_may_end_it() -> None:
    seen = Seen(lambda exchange, message: ["first", Closing(4001, "enough"), "never"])
    line = Line(seen)
    line.says(text("hi") + text("more"))
    assert line.up == [*told("first"), *bye(4001, "enough")]
    assert line.down == bye(4001, "enough")
    assert seen.ends == [(4001, "enough", "coulee")]
    line.says(close(4001))
    line.answers(close(4001, mask=None))
    line.says(b"")
    line.answers(b"")
    assert line.record == ("", 4001)
    line.is_over()


def test_who_does_not_answer_a_close_frame_is_waited_for_in_vain() -> None:
    line = Line(Seen(), close_timeout_s=3)
    line.says(close(4000, "done"))
    assert line.up == bye(4000, "done")
    line.world.wait(2.9)
    assert line.down == []
    line.world.wait(0.2)
    assert line.down == bye(4000, "done"), "it is answered in the place of the origin"
    assert not line.world.access
    line.world.wait(3)
    assert line.record == ("", 4000)
    line.is_over()


def test_a_side_that_goes_without_a_close_frame() -> None:
    seen = Seen()
    line = Line(seen)
    line.says(b"")
    assert seen.ends == [(1006, "", "downstream")]
    assert line.world.eofs == [line.origin], "which is passed on as it is"
    line.answers(text("last words", mask=None))
    assert line.down == told("last words")
    line.answers(b"")
    assert (line.up, line.down) == ([], [])
    assert line.record == ("", 1006)
    line.is_over()


def test_a_side_that_goes_without_a_close_frame_and_another_that_stays() -> None:
    line = Line(Seen(), close_timeout_s=2)
    line.answers(b"")
    assert line.world.eofs == [line.client]
    line.world.wait(4)
    assert (line.up, line.down) == ([], []), "1006 is never sent"
    assert line.record == ("", 1006)
    line.is_over()


def test_a_half_close_leaves_the_other_side_some_time_and_no_more() -> None:
    for side in ("client", "origin"):
        line = Line(Seen(), close_timeout_s=2)
        stays, goes = (line.answers, line.says) if side == "client" else (line.says, line.answers)
        more = text("more", mask=None if side == "client" else KEY)
        goes(b"")
        line.world.wait(1)
        stays(more)
        assert (line.down if side == "client" else line.up) == told("more")
        line.world.wait(1.5)
        stays(more)
        assert (line.up, line.down) == ([], [])
        line.world.wait(2)
        assert line.record == ("client_gone" if side == "client" else "upstream_reset", 1006), "something was lost"
        assert "(close_timeout_s)" in line.world.access[0].detail
        line.is_over()


@pytest.mark.parametrize("side", ["client", "origin"])
def test_who_does_not_take_what_is_left_is_cut_off_in_the_end(side: str) -> None:
    line = Line(Seen(), close_timeout_s=2)
    conn = line.client if side == "client" else line.origin
    slow, other = (line.says, line.answers) if side == "client" else (line.answers, line.says)
    mask = None if side == "client" else KEY
    other(text("more", mask=mask))
    line.world.gives(Blocked(conn))
    slow(b"")
    other(text("more", mask=mask))
    line.world.wait(3.9)
    assert not line.world.access
    line.world.wait(60)
    word = "send_timeout" if side == "client" else "upstream_timeout"
    assert line.record == (word, 1006), "nobody takes a part for the whole"
    assert "what was left within 4 s" in line.world.access[0].detail
    line.is_over()


def test_who_has_said_all_may_leave_without_the_answer() -> None:
    line = Line(Seen())
    line.answers(close(1000, mask=None))
    assert line.down == bye(1000)
    line.says(b"")
    assert line.up == bye(1000), "the origin is answered in its place"
    line.answers(b"")
    assert line.record == ("", 1000)
    line.is_over()


def test_a_client_that_has_said_all_may_be_gone() -> None:
    line = Line(Seen())
    line.answers(close(1000, mask=None))
    line.says(close(1000))
    line.world.resets(line.client)
    assert line.record == ("", 1000)
    assert line.world.closing[line.origin] is False, "what it was told is not destroyed by a reset"


def test_an_origin_that_has_said_all_may_be_gone() -> None:
    line = Line(Seen())
    line.answers(close(1001, mask=None))
    line.world.resets(line.origin)
    line.says(text("still talking") + close(1001))
    assert line.down == bye(1001)
    line.says(b"")
    assert line.record == ("", 1001)
    assert line.world.closing[line.client] is False


def test_the_client_is_lost() -> None:
    seen = Seen()
    line = Line(seen)
    line.world.resets(line.client)
    assert seen.ends == [(1006, "", "downstream")]
    assert line.record == ("client_gone", 1006)
    assert line.world.closing[line.origin] is True


def test_the_origin_is_lost() -> None:
    seen = Seen()
    line = Line(seen)
    line.world.resets(line.origin)
    assert seen.ends == [(1006, "", "upstream")]
    assert line.record == ("upstream_reset", 1006)
    assert line.world.closing[line.client] is True


def test_a_filter_that_hears_of_a_loss_has_a_while_for_it() -> None:
    async def slow(closing: Closing) -> None:
        await sleep(100)

    line = Line(Ends(slow), timeouts=Timeouts(logging_grace_s=2))
    line.world.resets(line.client)
    line.world.wait(1.9)
    assert not line.world.access
    line.world.wait(0.2)
    assert line.record == ("client_gone", 1006)
    line.is_over()


# -------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("bad", "code", "word"),
    [
        (frame(TEXT, b"\xff"), 1007, "websocket_error"),
        (frame(TEXT, b"a", rsv=1), 1002, "websocket_error"),
        (frame(TEXT, b"a", mask=None), 1002, "websocket_error"),
        (frame(CLOSE, b"\x03\xed"), 1002, "websocket_error"),
        (frame(BINARY, bytes(1001)), 1009, "websocket_too_large"),
        (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 3, 1009, "websocket_too_large"),
    ],
    ids=["utf-8", "rsv", "mask", "code", "size", "fragments"],
)
def test_what_a_client_must_not_do(bad: bytes, code: int, word: str) -> None:
    seen = Seen()
    line = Line(seen, message_bytes_max=1000, fragments_max=3)
    line.says(text("good") + bad + text("never"))
    assert no_reason(line.up) == [*told("good"), *bye(1001)]
    (said,) = line.down
    assert no_reason([said]) == bye(code)
    assert said.payload[2:], "and is told what it was"
    assert line.client in line.world.eofs
    assert [end[0] for end in seen.ends] == [code]
    line.answers(close(1001, mask=None))
    line.answers(b"")
    line.says(b"")
    assert line.record == (word, code)
    line.is_over()


def test_what_an_origin_must_not_do() -> None:
    line = Line(Seen())
    line.answers(text("masked"))
    assert no_reason(line.up) == bye(1002)
    assert line.down == bye(1011)
    line.says(close(1011))
    line.says(b"")
    line.answers(b"")
    assert line.record == ("upstream_invalid", 1002)
    line.is_over()


def test_a_filter_says_what_the_other_side_hears_of_it() -> None:
    line = Line(Ends(lambda closing: Closing(4400, "the client broke it")))
    line.says(frame(TEXT, b"\xff"))
    assert line.up == bye(4400, "the client broke it")
    assert no_reason(line.down) == bye(1007)


def test_a_rule_that_is_broken_at_the_end() -> None:
    line = Line(Seen())
    line.answers(close(1000, mask=None))
    line.says(b"\xff\xff")
    assert line.down == bye(1000), "and no second one"
    assert no_reason(line.up) == bye(1001)


def _raise(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize(
    ("make", "code", "word"),
    [
        (lambda exchange, message: _raise(RuntimeError("oops")), 1011, "filter_error"),
        (lambda exchange, message: 5, 1011, "filter_error"),
        (lambda exchange, message: ["fine", 5], 1011, "filter_error"),
        (lambda exchange, message: "\ud800", 1011, "filter_error"),
        (lambda exchange, message: setattr(message, "data", None), 1011, "filter_error"),
        (lambda exchange, message: Closing(1006), 1011, "filter_error"),
        (lambda exchange, message: Closing(1015), 1011, "filter_error"),
        (lambda exchange, message: Closing(1005, "words"), 1011, "filter_error"),
        (lambda exchange, message: _raise(ExchangeError("rate_limited", "slow down")), 1008, "rate_limited"),
        (lambda exchange, message: _raise(ExchangeError("upstream_invalid", "nonsense")), 1011, "upstream_invalid"),
    ],
)
def test_a_filter_that_fails(make: Callable[[Exchange, Message], Any], code: int, word: str) -> None:
    line = Line(Seen(make))
    line.says(text("hi"))
    assert line.up[-1:] == line.down == bye(code)
    line.says(close(code))
    line.answers(close(code, mask=None))
    line.says(b"")
    line.answers(b"")
    assert line.record == (word, code)
    assert len(line.world.events("filter_error")) == (word == "filter_error")
    line.is_over()


@pytest.mark.parametrize("make", [lambda closing: _raise(RuntimeError("oops")), lambda closing: "what"])
def test_a_filter_that_fails_at_the_end(make: Callable[[Closing], Any]) -> None:
    line = Line(Ends(make))
    line.says(close(4000))
    assert line.up == bye(4000)
    line.answers(close(4000, mask=None))
    line.says(b"")
    line.answers(b"")
    assert line.record == ("filter_error", 4000)


@pytest.mark.parametrize(
    ("settings", "flood"),
    [
        ({"messages_per_s": 1, "messages_at_once_max": 3}, text("a") * 4),
        ({"bytes_per_s": 1, "bytes_at_once_max": 10}, text("äöü") + text("12345")),
        ({"controls_per_s": 1, "controls_at_once_max": 3}, frame(PING) * 2 + frame(PONG) * 2),
    ],
)
def test_too_much_in_a_time(settings: dict[str, Any], flood: bytes) -> None:
    line = Line(Seen(), **settings)
    line.says(flood)
    assert no_reason(line.down) == bye(1008)
    assert no_reason(line.up)[-1:] == bye(1001)
    line.says(b"")
    line.answers(b"")
    assert line.record[0] == "rate_limited"


def test_what_is_allowed_in_a_time_comes_back() -> None:
    line = Line(Seen(), messages_per_s=1, messages_at_once_max=3)
    line.says(text("a") * 3)
    line.world.wait(2)
    line.says(text("b") * 2)
    assert line.up == told("a", "a", "a", "b", "b")
    line.answers(text("c", mask=None) * 50)
    assert line.down == told(*"c" * 50), "an origin may say what it likes"


# ------------------------------------------------------------------------------------------------- room, and time


def test_a_side_that_takes_nothing_stops_the_other_one_and_no_more() -> None:
    line = Line(Seen())
    world = line.world
    line.says(frame(BINARY, bytes(100_000)))
    world.gives(Blocked(line.origin))
    line.says(text("waits") * 3)
    assert len(line.up) == 1
    line.answers(text("goes on", mask=None))
    assert line.down == told("goes on")
    world.gives(Sent(line.origin))
    assert line.up == told("waits", "waits", "waits")


def test_so_much_in_one_turn_waits_for_the_next() -> None:
    line = Line(Seen(lambda exchange, message: [bytes(50_000)] * 4))
    line.says(text("go"))
    assert len(line.up) == 2
    line.world.gives(Blocked(line.origin))
    line.world.wait(1)
    assert line.up == [], "it is known now that nothing is taken"
    line.world.gives(Sent(line.origin))
    line.world.wait(1)
    assert len(line.up) == 2


def test_both_directions_wait_for_one_side() -> None:
    """One writes messages to the client, the other one its replies."""
    line = Line(Seen(lambda exchange, message: message.reply("got it") if message.sender == "downstream" else None))
    world = line.world
    line.answers(frame(BINARY, bytes(100_000), mask=None))
    world.gives(Blocked(line.client))
    line.answers(text("news", mask=None))
    line.says(text("hi"))
    assert line.down == told(bytes(100_000))
    world.gives(Sent(line.client))
    assert line.down == told("news", "got it")


@pytest.mark.parametrize("pings", ["pass", "answer"])
def test_pings_wait_for_room_too(pings: str) -> None:
    line = Line(Seen(), pings=pings)
    asked, other = (line.origin, line.up) if pings == "pass" else (line.client, line.down)
    assert other == []
    if pings == "pass":
        line.says(frame(BINARY, bytes(100_000)))
    else:
        line.answers(frame(BINARY, bytes(100_000), mask=None))
    line.world.gives(Blocked(asked))
    line.says(frame(PING, b"?"))
    line.world.sent(asked)
    line.world.gives(Sent(asked))
    assert [each.opcode for each in read(line.world.sent(asked))] == [PING if pings == "pass" else PONG]


@pytest.mark.parametrize("who", ["origin", "client"])
def test_a_side_that_is_lost_while_it_is_waited_for(who: str) -> None:
    line = Line(Seen())
    world = line.world
    conn = getattr(line, who)
    if who == "origin":
        line.says(frame(BINARY, bytes(100_000)))
    else:
        line.answers(frame(BINARY, bytes(100_000), mask=None))
    world.gives(Blocked(conn))
    (line.says if who == "origin" else line.answers)(text("never", mask=None if who == "client" else b"mask"))
    world.resets(conn)
    assert line.record[0] == ("upstream_reset" if who == "origin" else "client_gone")
    line.is_over() if who == "client" else world.leaves_nothing()


def test_an_ending_side_that_is_lost_while_it_is_waited_for() -> None:
    line = Line(Seen())
    world = line.world
    line.says(frame(BINARY, bytes(100_000)))
    world.gives(Blocked(line.origin))
    line.says(text("never"))
    line.answers(close(1000, mask=None))
    world.resets(line.origin)
    assert line.down == bye(1000)
    line.says(close(1000))
    line.says(b"")
    assert line.record == ("", 1000)


def test_silence_ends_with_a_close_frame() -> None:
    line = Line(Seen(), timeouts=Timeouts(upgraded_idle_timeout_s=60))
    line.world.wait(50)
    line.says(frame(PING))
    line.world.wait(50)
    line.answers(frame(PONG, mask=None))
    line.world.wait(59)
    assert not line.world.closing
    line.down, line.up  # noqa: B018
    line.world.wait(2)
    assert line.up == line.down == bye(1001)
    line.says(close(1001))
    line.answers(close(1001, mask=None))
    line.says(b"")
    line.answers(b"")
    assert line.record == ("idle_timeout", 1001)
    line.is_over()


def test_silence_at_the_end_is_no_matter() -> None:
    line = Line(Seen(), timeouts=Timeouts(upgraded_idle_timeout_s=1), close_timeout_s=3)
    line.says(close(4000))
    line.world.wait(10)
    assert line.record == ("", 4000)


def test_a_drain_sends_a_close_frame_in_a_while() -> None:
    seen = Seen()
    line = Line(seen, drain_after_s=2)
    line.world.gives(Drain(30))
    line.world.wait(1.9)
    line.says(text("still here"))
    assert (line.up, line.down) == (told("still here"), [])
    line.world.wait(2.2)
    assert line.up == line.down == bye(1001)
    assert seen.ends == [(1001, "", "coulee")]
    line.says(close(1001))
    line.answers(close(1001, mask=None))
    line.says(b"")
    line.answers(b"")
    assert line.record == ("", 1001)
    line.is_over()
    assert line.proxy.finished


def test_a_drain_before_the_101_and_one_at_the_end() -> None:
    line = Line(Seen(), drain_after_s=2)
    client = line.world.client()
    line.world.receives(client, ASK)
    origin = line.world.connects()
    line.says(close(1000))
    line.world.gives(Drain(60))
    line.world.receives(origin, SWITCH)
    line.world.sent(client)
    line.world.wait(4)
    assert read(line.world.sent(client)) == bye(1001)


def test_the_end_of_a_drains_grace() -> None:
    line = Line(Seen(), drain_after_s=60)
    line.world.gives(Drain(1))
    line.world.wait(1.1)
    assert line.record == ("shutting_down", 1006)


def test_a_close_frame_that_finds_nobody() -> None:
    """The origin half-closed long ago, and its connection is found to be gone when it is told of the end."""
    line = Line(Seen())
    line.answers(b"")
    line.world.gives(Closed(line.origin, "reset"))
    line.world.closed.append(line.origin)
    line.says(text("who hears?"))
    line.world.wait(20)
    assert line.world.access


def test_last_bytes_are_not_destroyed() -> None:
    line = Line(Seen())
    line.world.holds_closes = True
    line.says(close(1000))
    line.answers(close(1000, mask=None))
    line.answers(b"")
    line.world.gives(Received(line.client, b""))
    closes = [each for each in line.world.operations if isinstance(each, Close)]
    assert [(each.conn, each.abort) for each in closes] == [(line.client, False), (line.origin, False)]


def test_an_origin_that_is_lost_while_nobody_reads_from_it() -> None:
    async def think(exchange: Exchange, message: Message) -> None:
        if message.sender == "upstream":
            await sleep(100)

    line = Line(Seen(think))
    line.answers(text("hm", mask=None))
    line.says(frame(BINARY, bytes(100_000)))
    line.world.gives(Blocked(line.origin))
    line.says(text("never"))
    line.world.resets(line.origin)
    assert line.record == ("upstream_reset", 1006)


def test_a_loss_and_a_drain_when_the_end_has_begun() -> None:
    seen = Seen()
    line = Line(seen)
    line.says(close(4000))
    line.world.gives(Drain(60))
    line.world.wait(3)
    assert line.up == bye(4000), "and nothing more"
    line.world.resets(line.client)
    assert line.record == ("client_gone", 4000)
    assert [end[0] for end in seen.ends] == [4000]


def test_two_half_closes_are_one_end() -> None:
    seen = Seen()
    line = Line(seen)
    line.says(b"")
    line.answers(b"")
    assert [end[2] for end in seen.ends] == ["downstream"]
    assert line.record == ("", 1006)
    line.is_over()


def test_a_code_that_wsproto_does_not_know_with_words() -> None:
    line = Line(Seen())
    line.answers(frame(CLOSE, b"\x03\xf6\xff", mask=None))
    assert no_reason(line.up) == bye(1007), "which have to be UTF-8 there too"


def test_compression_with_each_side_apart() -> None:
    offer = ASK.replace(b"Connection", b"Sec-WebSocket-Extensions: permessage-deflate\r\nConnection")
    agreed = SWITCH.replace(b"Connection", b"Sec-WebSocket-Extensions: permessage-deflate\r\nConnection")
    line = Line(Seen(), ask=offer)
    assert b"Extensions" not in line.asked
    assert b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12\r\n" in line.switched
    line.answers(text("a" * 500, mask=None))
    (said,) = line.down
    assert said.rsv == 4
    assert len(said.payload) < 50
    line.says(frame(TEXT, said.payload, rsv=4))
    assert line.up == told("a" * 500)

    line = Line(Seen(), switch=agreed, compress_upstream=True)
    assert b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n" in line.asked
    assert b"Extensions" not in line.switched
    line.says(text("b" * 500))
    assert [each.rsv for each in line.up] == [4]


def test_the_first_reason_counts() -> None:
    line = Line(Ends(lambda closing: _raise(RuntimeError("oops"))))
    line.says(frame(TEXT, b"\xff"))
    line.answers(close(1001, mask=None))
    line.answers(b"")
    line.says(b"")
    assert line.record == ("websocket_error", 1007)
    assert line.world.events("filter_error"), "and the other one is told as well"


def test_a_drain_ends_each_at_a_time_of_its_own() -> None:
    line = Line(Seen(), drain_after_s=2)
    clients = [line.client]
    for _ in range(7):
        clients.append(line.world.client())
        line.world.receives(clients[-1], ASK)
        line.world.receives(line.world.connects(), SWITCH)
        line.world.sent(clients[-1])
    line.world.gives(Drain(30))
    told_by: list[int] = []
    for _ in range(20):
        line.world.wait(0.1 if told_by else 2.0)
        told_by.append(sum(1 for client in clients if line.world.outbox.get(client)))
    assert told_by[-1] == 8
    assert len(set(told_by)) > 4, "they do not all come back at once"
