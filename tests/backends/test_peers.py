"""The scripted HTTP peers, face to face: what a client asks an origin without any proxy between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from coulee.backends.peers import Ask, Asked, H11Client, H11Origin, Reply
from coulee.backends.simulator import FarEnd, Simulator, Weather
from coulee.core.seam import Address

ORIGIN: Address = ("10.0.0.2", 80)
UPGRADE = (("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "websocket"))


class World:
    """One client and the origin that it asks."""

    def __init__(
        self,
        asks: Sequence[Ask],
        reply: Reply | Callable[[Asked], Reply | None] | None,
        *,
        origin: Any = None,
        **how: Any,
    ) -> None:
        self.sim = Simulator(1, Weather(split=0.2))
        self.origins: list[H11Origin] = []

        def come(_: FarEnd) -> FarEnd:
            answer = reply if callable(reply) else lambda _: reply
            self.origins.append(H11Origin(answer, **(origin or {})))
            return self.origins[-1]

        self.sim.listen(ORIGIN, come)
        self.client = H11Client(asks, **how)
        self.sim.connect(ORIGIN, self.client)
        self.sim.settle()
        self.answers = self.client.answers
        self.origin = self.origins[0]


def test_plain_exchanges_one_after_the_other() -> None:
    world = World(
        [Ask(), Ask("POST", "/form", pieces=[b"ab", b"cd"])],
        lambda asked: Reply(fields=[("X-Kept-Raw", "1")], pieces=[asked.target.encode(), asked.body]),
    )
    assert [(answer.status, answer.body, answer.complete) for answer in world.answers] == [
        (200, b"/", True),
        (200, b"/formabcd", True),
    ]
    assert world.answers[0].fields[0] == (b"X-Kept-Raw", b"1")
    assert world.answers[1].get("content-length") == "9"
    assert [(asked.method, asked.get("HOST"), asked.complete) for asked in world.origin.asked] == [
        ("GET", "example.com", True),
        ("POST", "example.com", True),
    ]
    assert world.client.is_closed
    assert world.origin.is_closed
    assert world.client.error is world.origin.error is None
    assert not any(world.sim.left.values())


def test_pipelined_and_half_closed() -> None:
    world = World(
        [Ask(target=f"/{index}") for index in range(10)],
        lambda asked: Reply(pieces=[asked.target.encode()], delay_s=0.1),
        pipelined=True,
        half_close=True,
    )
    assert [answer.body for answer in world.answers] == [b"/%d" % index for index in range(10)]
    assert world.sim.now > 1.0


def test_pieces_interims_and_trailers() -> None:
    world = World(
        [Ask("POST", pieces=[b"a", b"b", b"c"], gap_s=1.0)],
        Reply(
            pieces=[b"x", b"y"],
            framing="chunked",
            gap_s=1.0,
            trailers=[("X-Sum", "7")],
            interims=[(103, [("Link", "</a>")]), (103, [])],
        ),
    )
    (answer,) = world.answers
    assert [status for status, _ in answer.interims] == [103, 103]
    assert (answer.body, answer.trailers, answer.complete) == (b"xy", [(b"X-Sum", b"7")], True)
    assert world.origin.asked[0].body == b"abc"
    assert world.sim.now > 4.0


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_bodies_that_end_by_closing(version: Any) -> None:
    world = World([Ask(version=version), Ask()], Reply(pieces=[b"all", b"of", b"it"], framing="close"))
    assert [(answer.body, answer.complete) for answer in world.answers] == [(b"allofit", True)]
    assert world.origin.asked[0].version == version


def test_answers_without_bodies() -> None:
    world = World(
        [Ask("HEAD"), Ask(), Ask()],
        lambda asked: Reply(204 if asked.method == "GET" else 200, pieces=[b"body"]),
    )
    assert [(answer.status, answer.get("content-length"), answer.body) for answer in world.answers] == [
        (200, "4", b""),
        (204, None, b""),
        (204, None, b""),
    ]


@pytest.mark.parametrize(
    ("fault", "status", "body", "error"),
    [
        ("close", 0, b"", None),
        ("reset", 0, b"", "reset"),
        ("reset_head", 200, b"", "reset"),
        ("reset_body", 200, b"12345", "reset"),
        ("truncate", 200, b"12345", None),
    ],
)
def test_answers_that_are_cut(fault: Any, status: int, body: bytes, error: str | None) -> None:
    world = World([Ask()], Reply(pieces=[b"1234567890"], fault=fault))
    (answer,) = world.answers
    assert (answer.status, answer.body, answer.complete) == (status, body, False)
    assert world.client.error == error
    assert not world.client.malformed


def test_garbage_is_judged_by_h11() -> None:
    world = World([Ask()], Reply(fault="garbage"))
    assert "illegal status line" in world.client.malformed
    sim = Simulator()
    origin = H11Origin(lambda _: Reply())
    sim.listen(ORIGIN, lambda _: origin)
    noise = FarEnd()
    noise.write(b"no HTTP at all\r\n\r\n")
    sim.connect(ORIGIN, noise)
    sim.flush()
    assert origin.malformed
    assert not origin.asked


def test_silence_and_leaving() -> None:
    world = World([Ask()], None)
    assert world.answers[0].status == 0
    assert not world.client.is_closed
    world = World([Ask()], Reply(pieces=[bytes(1000)] * 9, gap_s=1.0), leave_after_bytes=3000)
    assert world.client.left_early
    assert world.origin.error == "reset"
    assert len(world.answers[0].body) < 9000
    world = World([Ask()], Reply(pieces=[bytes(1000)] * 9, gap_s=1.0), leave_after_bytes=3000, leave_by="close")
    assert world.client.left_early


def test_bytes_that_nobody_asked_for() -> None:
    world = World([Ask()], Reply(fault="extra"), stay=True)
    assert world.client.unasked.endswith(b"unasked")
    assert world.answers[0].complete


def test_expectations() -> None:
    ask = Ask(
        "PUT", fields=[("Host", "a"), ("Expect", "100-continue"), ("Content-Length", "2")], pieces=[b"ab"], gap_s=1.0
    )
    assert [status for status, _ in World([ask], Reply()).answers[0].interims] == [100]
    assert not World([ask], Reply(), origin={"continues": False}).answers[0].interims


def test_an_answer_before_the_request_has_ended() -> None:
    world = World([Ask("POST", pieces=[b"a"] * 5, gap_s=1.0)], Reply(413), origin={"early": True})
    (answer,) = world.answers
    assert (answer.status, answer.complete) == (413, True)
    assert world.origin.asked[0].body == b"aaaaa"


def test_upgrades() -> None:
    world = World([Ask(fields=UPGRADE)], Reply(101, fields=UPGRADE[1:], pieces=[b"hello"]), stay=True)
    assert world.answers[0].status == 101
    assert world.client.switched == b"hello"
    world.client.write(b"and hello to you")
    world.sim.flush()
    world.origin.write(b"!")
    world.sim.flush()
    assert world.origin.switched == b"and hello to you"
    assert world.client.switched == b"hello!"


@pytest.mark.parametrize("hasty", [False, True])
@pytest.mark.parametrize("gap_s", [0.0, 1.0])
def test_what_is_said_behind_an_upgrade_is_echoed_to_its_end(hasty: bool, gap_s: float) -> None:
    ask = Ask(fields=UPGRADE, talk=[b"one ", b"two"], gap_s=gap_s, hasty=hasty)
    world = World([ask], Reply(101, fields=UPGRADE[1:], pieces=[b"hello "], echo=True))
    world.sim.advance(5.0)
    assert world.origin.switched == b"one two"
    assert world.client.switched == b"hello one two"
    assert world.client.eof
    assert world.origin.eof
    assert (world.client.error, world.client.is_closed) == (None, True)


def test_an_origin_may_reset_what_was_upgraded() -> None:
    world = World([Ask(fields=UPGRADE)], Reply(101, fields=UPGRADE[1:], fault="reset_body"), stay=True)
    world.sim.advance(1.0)
    assert (world.answers[0].status, world.client.error) == (101, "reset")


def test_connections_end_when_somebody_says_so() -> None:
    world = World([Ask(), Ask()], Reply(then_close=True))
    assert [answer.get("connection") for answer in world.answers] == ["close"]
    world = World([Ask(), Ask()], Reply(then_close=True, rude=True))
    assert world.answers[0].complete
    assert world.answers[0].get("connection") is None
    world = World([Ask(fields=[("Host", "a"), ("Connection", "close")]), Ask()], Reply())
    assert len(world.answers) == 1
    world = World([Ask()], Reply(), stay=True, origin={"idle_s": 5.0})
    assert world.client.eof
    assert 5.0 < world.sim.now < 6.0


def test_more_can_be_asked_later() -> None:
    told: list[Any] = []
    world = World([], Reply(), stay=True, on_answer=told.append)
    world.client.ask(Ask())
    world.sim.settle()
    assert [answer.status for answer in world.answers] == [200]
    assert told == world.answers
