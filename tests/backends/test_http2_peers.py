"""Scripted clients and origins of HTTP/2, with each other: whatever their manners, what one says the other hears."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import pytest
from h2.settings import SettingCodes

from coulee.backends.http2_peers import BAD_HEADS, H2Client, H2Origin, Whim
from coulee.backends.http2_speech import BROKEN, CANCEL, ENDLESS, HTTP_1_1_REQUIRED, REFUSED_STREAM, Manners
from coulee.backends.peers import Ask, Asked, H11Client, Reply
from coulee.backends.simulator import Simulator

AT = ("10.0.0.1", 80)
BODY = b"0123456789" * 7000

MANNERS = {
    "plain": Manners(),
    "padded and cut": Manners(padding=100, continuations=3, pings=2),
    "late": Manners(opens="late", window_bytes=0),
    "by bytes": Manners(opens="by bytes", drops=10),
    "small windows": Manners({SettingCodes.INITIAL_WINDOW_SIZE: 1000, SettingCodes.HEADER_TABLE_SIZE: 0}),
    "no window at first": Manners(
        {SettingCodes.INITIAL_WINDOW_SIZE: 0}, [(0.1, {SettingCodes.INITIAL_WINDOW_SIZE: 100_000})]
    ),
    "large": Manners({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1, SettingCodes.MAX_FRAME_SIZE: 2**24 - 1}),
    "a window that shrinks": Manners(later=[(0.002, {SettingCodes.INITIAL_WINDOW_SIZE: 1000})]),
    "one at a time": Manners({SettingCodes.MAX_CONCURRENT_STREAMS: 1}),
}


def play(
    client: H11Client,
    reply: Callable[[Asked], Reply | None] | Reply | None = None,
    **of_origin: Any,
) -> H2Origin:
    """Let a client meet an origin."""
    sim = Simulator(1)
    origin = H2Origin(reply if callable(reply) else lambda _: reply or Reply(), **of_origin)
    sim.listen(AT, lambda _: origin)
    sim.connect(AT, client)
    sim.advance(60.0)
    return origin


def asks(count: int, pieces: Sequence[bytes] = ()) -> list[Ask]:
    return [Ask("POST" if pieces else "GET", f"/{number}", pieces=pieces) for number in range(count)]


@pytest.mark.parametrize("manners", MANNERS.values(), ids=MANNERS)
def test_all_is_heard_whatever_the_manners(manners: Manners) -> None:
    client = H2Client(asks(3, [BODY[:5], BODY[5:]]), manners=manners, at_once=3)
    reply = Reply(201, [("X-A", "b")], [BODY, b"!"], trailers=[("X-Sum", "1")], interims=[(103, [("Link", "</a>")])])
    origin = play(client, lambda _: reply, manners=manners)
    assert not client.malformed + origin.malformed
    assert [asked.body for asked in origin.asked] == [BODY] * 3
    assert all(asked.complete and asked.version == "2" and asked.get("host") == "example.com" for asked in origin.asked)
    assert [answer.ask.target for answer in client.answers] == ["/0", "/1", "/2"]
    for answer in client.answers:
        assert (answer.status, answer.get("x-a"), answer.body) == (201, "b", BODY + b"!")
        assert (answer.interims, answer.trailers) == ([(103, [(b"link", b"</a>")])], [(b"x-sum", b"1")])
        assert (answer.complete, answer.reset) == (True, None)
    assert (client.is_closed, origin.is_closed) == (True, True)


def test_streams_run_beside_one_another() -> None:
    client = H2Client(asks(3), at_once=3)
    order: list[str] = []
    client._on_answer = lambda answer: order.append(answer.ask.target)
    play(client, lambda asked: Reply(delay_s=1.0 - int(asked.target[1:]) / 10))
    assert order == ["/2", "/1", "/0"]


def test_a_body_waits_for_a_window_that_is_never_opened() -> None:
    client = H2Client(asks(1), manners=Manners(opens="never", window_bytes=0))
    play(client, Reply(pieces=[BODY]))
    [answer] = client.answers
    assert (len(answer.body), answer.complete, answer.reset) == (65_535, False, None)


@pytest.mark.parametrize(
    ("fault", "came", "complete", "reset"),
    [
        ("silence", b"", False, False),
        ("close", b"", False, False),
        ("reset", b"", False, False),
        ("reset_head", b"", False, True),
        ("reset_body", b"abc", False, True),
    ],
)
def test_an_origin_cuts_its_answers(
    fault: Literal["silence", "close", "reset", "reset_head", "reset_body"], came: bytes, complete: bool, reset: bool
) -> None:
    client = H2Client(asks(1))
    play(client, Reply(pieces=[b"abcdef"], fault=fault))
    [answer] = client.answers
    assert (answer.body, answer.complete, answer.reset is not None) == (came, complete, reset)


@pytest.mark.parametrize("fault", ["truncate", "extra", "garbage"])
def test_h2_minds_what_an_origin_does_wrong(fault: Literal["truncate", "extra", "garbage"]) -> None:
    client = H2Client(asks(1))
    play(client, Reply(pieces=[b"abcdef"], fault=fault))
    assert client.malformed
    assert not client.answers[0].complete


def test_without_a_length_the_end_of_the_connection_cuts_a_body() -> None:
    client = H2Client(asks(1))
    play(client, Reply(pieces=[b"abcdef"], framing="close", fault="truncate"))
    assert (client.malformed, client.answers[0].body, client.answers[0].complete) == ("", b"abc", False)


@pytest.mark.parametrize(("whim", "code"), [("refuse", REFUSED_STREAM), ("http1", HTTP_1_1_REQUIRED)])
def test_an_origin_refuses_a_stream(whim: Whim, code: int) -> None:
    client = H2Client(asks(2))
    origin = play(client, on_head=lambda asked: whim if asked.target == "/0" else None)
    assert [answer.reset for answer in client.answers] == [code, None]
    assert ([asked.target for asked in origin.refused], [asked.target for asked in origin.asked]) == (["/0"], ["/1"])


def test_an_origin_goes_and_takes_nothing_more() -> None:
    client = H2Client(asks(4), at_once=3)
    origin = play(client, Reply(delay_s=1.0), on_head=lambda asked: "goaway" if asked.target == "/1" else None)
    assert [(answer.complete, answer.reset) for answer in client.answers] == [
        (True, None), (False, REFUSED_STREAM), (False, REFUSED_STREAM),
    ]  # fmt: skip
    assert [asked.target for asked in origin.refused] == ["/1", "/2"]
    assert client.told_to_go


def test_an_origin_goes_and_takes_what_is_on_its_way() -> None:
    client = H2Client(asks(4), at_once=3)
    origin = play(client, Reply(delay_s=1.0), on_head=lambda asked: "goaway_all" if asked.target == "/0" else None)
    assert [answer.complete for answer in client.answers] == [True] * 3
    assert (origin.is_closed, client.told_to_go) == (True, True)


def test_closing_behind_an_answer_is_going_and_rudely_it_is_an_end() -> None:
    client = H2Client(asks(9))
    play(client, Reply(then_close=True))
    assert ([answer.complete for answer in client.answers], client.told_to_go) == ([True, True], True)
    client = H2Client(asks(2))
    play(client, Reply(then_close=True, rude=True))
    assert (client.answers[0].complete, client.eof, client.told_to_go) == (True, True, False)


def test_an_answer_may_end_before_its_request() -> None:
    client = H2Client([Ask("POST", pieces=[b"a"] * 5, gap_s=0.1)])
    origin = play(client, on_head=lambda _: "early_end")
    assert (client.answers[0].complete, client.answers[0].reset) == (True, 0)
    assert not origin.asked[0].complete
    client = H2Client([Ask("POST", pieces=[b"a"] * 5, gap_s=0.1)])
    origin = play(client, early=True)
    assert (client.answers[0].complete, client.answers[0].reset) == (True, None)
    assert origin.asked[0].body == b"aaaaa", "the rest of it is still heard"


def test_a_head_that_none_may_have_is_minded() -> None:
    minded = 0
    for number in range(len(BAD_HEADS)):
        client = H2Client(asks(number + 1))
        play(client, on_head=lambda asked, last=number: "bad_head" if asked.target == f"/{last}" else None)
        assert not client.answers[number].complete
        minded += bool(client.malformed)
    assert minded >= 4, "h2 minds nearly all"


def test_an_origin_continues_where_it_is_asked_to() -> None:
    client = H2Client([Ask("POST", fields=[("Host", "a"), ("Expect", "100-continue")], pieces=[b"a"])])
    play(client)
    assert [status for status, _ in client.answers[0].interims] == [100]


def test_who_speaks_http1_is_answered_so() -> None:
    client = H11Client(asks(2))
    origin = play(client, Reply(pieces=[b"a"]))
    assert [(answer.complete, answer.body) for answer in client.answers] == [(True, b"a")] * 2
    assert [asked.version for asked in origin.asked] == ["1.1"] * 2


def test_an_idle_connection_is_closed() -> None:
    client = H2Client(asks(1), stay=True)
    origin = play(client, idle_s=1.0)
    assert (client.answers[0].complete, client.eof, origin.is_closed) == (True, True, True)


def _besides(act: Callable[[H2Client], Any], **of_client: Any) -> tuple[H2Client, H2Origin]:
    """A client does something while it waits for its answer."""
    client = H2Client(asks(1, [b"a"]), **of_client)
    sim = Simulator(1)
    origin = H2Origin(lambda _: Reply(delay_s=1.0, pieces=[b"abc"]))
    sim.listen(AT, lambda _: origin)
    sim.connect(AT, client)
    sim.call_later(0.5, partial(act, client))
    sim.advance(60.0)
    return client, origin


def test_a_client_takes_back_what_it_asked_for() -> None:
    client, origin = _besides(H2Client.take_back)
    assert (client.answers[0].complete, client.answers[0].reset) == (False, CANCEL)
    assert (origin.malformed, origin.is_closed) == ("", True)


def test_a_client_leaves_and_waits_for_what_is_under_way() -> None:
    client, _ = _besides(H2Client.leave)
    assert client.answers[0].complete


@pytest.mark.parametrize("kind", ["pings", "settings", "empty", "resets"])
def test_a_client_floods(kind: Literal["pings", "settings", "empty", "resets"]) -> None:
    client, origin = _besides(lambda client: client.flood(kind, 20))
    assert client.answers[0].complete
    assert not origin.malformed
    assert [asked.target for asked in origin.asked] == ["/0"] + ["/flood"] * (20 if kind == "resets" else 0)


@pytest.mark.parametrize("data", [data for data in BROKEN if data[3] != 0x3])  # h2 forgives a reset of no stream
def test_what_breaks_a_connection_is_minded(data: bytes) -> None:
    client, origin = _besides(lambda client: client.say(data))
    assert origin.malformed
    assert not client.answers[0].complete


def test_an_odd_head_goes_out_as_it_is() -> None:
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a"), (b"X-Up", b"1")]
    client, origin = _besides(lambda client: client.ask_oddly(fields))
    assert origin.malformed
    assert len(client.oddities) == 1


@pytest.mark.parametrize("lies", ["less", "more"])
def test_a_body_is_not_as_long_as_was_said(lies: Literal["less", "more"]) -> None:
    client = H2Client([Ask("POST", fields=[("Host", "a"), ("Content-Length", "3")], pieces=[b"abc"])], lies=lies)
    origin = play(client)
    assert origin.malformed
    assert not origin.asked[0].complete


@pytest.mark.parametrize(("leave_by", "error"), [("reset", "reset"), ("close", None)])
def test_a_client_leaves_early(leave_by: Literal["reset", "close"], error: str | None) -> None:
    client = H2Client(asks(1), leave_after_bytes=1000, leave_by=leave_by)
    origin = play(client, Reply(pieces=[BODY]))
    assert (client.left_early, client.answers[0].complete, origin.is_closed) == (True, False, True)
    assert origin.error == error


def test_a_client_ends_its_side_behind_its_last_request() -> None:
    client = H2Client(asks(2, [b"a"]), half_close=True, at_once=2)
    origin = play(client)
    assert origin.eof
    assert [asked.complete for asked in origin.asked] == [True, True]


def test_goaway_is_for_every_stream_there_can_be() -> None:
    assert ENDLESS == 2**31 - 1


def test_who_was_told_nothing_when_the_connection_ended_knows_it() -> None:
    client = H2Client(asks(1))
    play(client, Reply(fault="close"))
    assert client.hanging == ["/0"]
    client = H2Client(asks(1))
    play(client, Reply(fault="silence", then_close=True))
    assert client.hanging == [], "nothing has ended"
    client = H2Client(asks(2), at_once=2)
    client.on_opened = lambda: client.call_later(0.01, client.write_eof)
    origin = play(client, Reply(delay_s=1.0))
    assert origin.hanging == ["/0", "/1"]
    origin = play(H2Client(asks(2)))
    assert origin.hanging == []
