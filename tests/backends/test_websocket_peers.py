"""Scripted ends of a WebSocket, face to face: what a client says to an origin without any proxy between them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from coulee.backends.http2_peers import H2Client, H2Origin
from coulee.backends.peers import Answer, Ask, Asked, H11Client, H11Origin, Reply
from coulee.backends.simulator import FarEnd, Simulator, Weather
from coulee.backends.websocket_peers import MASK, Act, WebSocketEnd, agreed, asking
from coulee.backends.websocket_speech import CLOSE, PING, TEXT, Writer, close_payload, frame
from coulee.core.seam import Address

ORIGIN: Address = ("10.0.0.2", 80)
WRITER = Writer(mask=b"mask")
BYE = frame(CLOSE, close_payload(1000, "bye"))


def masked(opcode: int, payload: bytes = b"", *, mask: bytes = b"mask") -> bytes:
    return frame(opcode, payload, mask=mask)


_by_http2: list[bool] = []


@pytest.fixture(autouse=True, params=[False, True], ids=["HTTP/1.1", "HTTP/2"])
def by_http2(request: pytest.FixtureRequest) -> bool:
    """Every test is one of both versions."""
    _by_http2[:] = [request.param]
    chosen: bool = request.param
    return chosen


class World:
    """A client's end and an origin's."""

    def __init__(self, client: WebSocketEnd, origin: WebSocketEnd, *, hasty: bool = False, split: float = 0.2) -> None:
        self.sim = Simulator(1, Weather(split=split))
        self.asked: list[Asked] = []

        def answer(asked: Asked) -> Reply:
            self.asked.append(asked)
            return Reply(101, agreed(asked), behind=lambda: origin, delay_s=0.5)

        def come(_: FarEnd) -> FarEnd:
            return (H2Origin if http2 else H11Origin)(answer)

        http2 = _by_http2[-1]
        self.sim.listen(ORIGIN, come)
        self.client = (H2Client if http2 else H11Client)([asking("/chat", hasty=hasty, behind=client)])
        self.sim.connect(ORIGIN, self.client)
        self.sim.settle()
        for end, other in ((client, origin), (origin, client)):
            assert other.said.startswith(end.heard)
            assert not (end.theirs.broken or end.mine.broken)
        assert not any(self.sim.left.values())
        assert self.answer.granted
        assert self.asked[0].method == ("CONNECT" if http2 else "GET")

    @property
    def answer(self) -> Answer:
        return self.client.answers[0]


def ends(client: Sequence[Act], origin: Sequence[Act] = ()) -> tuple[WebSocketEnd, WebSocketEnd]:
    return WebSocketEnd(client, masks=True), WebSocketEnd(origin, masks=False)


@pytest.mark.parametrize("split", [0.0, 1.0])
def test_messages_both_ways_up_to_a_close_frame(split: float) -> None:
    client, origin = ends(
        [
            Act(masked(TEXT, b"hello")),
            Act(masked(PING, b"?"), 1.0),
            Act(masked(CLOSE, close_payload(4000, "done")), 1.0),
        ],
        [Act(frame(TEXT, b"hi"), 1.5), Act(frame(TEXT, b"never said"), 60.0)],
    )
    world = World(client, origin, split=split)
    assert world.answer.status == (200 if _by_http2[0] else 101)
    assert (world.answer.get("sec-websocket-accept") is None) == _by_http2[0]
    assert origin.theirs.messages == ["hello"]
    assert (client.theirs.messages, client.theirs.pongs) == (["hi"], [b"?"])
    assert origin.theirs.closing == client.theirs.closing == (4000, "done")
    assert (client.gone, origin.gone, client.error, origin.error) == ("end", "end", None, None)
    assert client.was_told
    assert origin.was_told


@pytest.mark.parametrize("hasty", [False, True])
def test_what_is_said_early(hasty: bool) -> None:
    client = WebSocketEnd([Act(masked(CLOSE), 1.0)], masks=True, early=masked(TEXT, b"early") + b"\x81")
    client._acts.appendleft(Act(b"\x80\0\0\0\0"))
    origin = WebSocketEnd(masks=False, early=frame(TEXT, b"first"))
    World(client, origin, hasty=hasty)
    assert origin.theirs.messages == ["early", ""]
    assert client.theirs.messages == ["first"]


def test_answers_wait_until_no_frame_is_half_said() -> None:
    text = frame(TEXT, b"slowly")
    client, origin = ends(
        [Act(masked(PING, b"1"), 0.1), Act(masked(CLOSE), 5.0)],
        [Act(text[:3]), Act(text[3:4], 1.0), Act(text[4:], 1.0)],
    )
    World(client, origin)
    assert bytes(client.heard) == text + frame(0xA, b"1") + frame(CLOSE)


def test_who_does_not_answer() -> None:
    client = WebSocketEnd(
        [Act(masked(PING)), Act(masked(CLOSE)), Act(after_s=1.0, then="end")], masks=True, answers=False
    )
    origin = WebSocketEnd(masks=False, answers=False)
    World(client, origin)
    assert (bytes(client.heard), client.gone, origin.gone) == (b"", "end", "end")


def test_half_closes() -> None:
    client, origin = ends(
        [Act(masked(TEXT, b"a"), then="end")], [Act(frame(TEXT, b"b"), 1.0), Act(frame(TEXT, b"c"), 1.0)]
    )
    World(client, origin)
    assert client.theirs.messages == ["b", "c"]
    assert (client.gone, origin.gone, client.was_told, origin.was_told) == ("end", "end", True, True)
    assert client.in_order
    assert origin.in_order


def test_who_goes() -> None:
    client, origin = ends([Act(masked(TEXT, b"a")), Act(after_s=1.0, then="reset"), Act(b"not said")])
    World(client, origin)
    assert (client.gone, origin.error, origin.was_told) == ("reset", "reset", False)
    client, origin = ends([], [Act(frame(TEXT, b"a"), then="close")])
    World(client, origin)
    assert (origin.gone, client.was_told, client.error, client.theirs.messages) == ("close", True, None, ["a"])
    client = WebSocketEnd(masks=True)
    origin = WebSocketEnd(masks=False, dies_after_s=2.0)
    World(client, origin)
    assert (origin.gone, origin.in_order, client.error) == ("reset", False, "reset")
    client.kill()
    assert client.gone == ""


def test_a_slow_reader_takes_everything_in_the_end() -> None:
    client = WebSocketEnd([Act(then="stop"), Act(after_s=3.0, then="take")], masks=True)
    origin = WebSocketEnd([Act(frame(TEXT, b"x" * 600_000)), Act(BYE)], masks=False)
    world = World(client, origin)
    assert client.theirs.messages == ["x" * 600_000]
    assert world.sim.now > 3.0
    client = WebSocketEnd([Act(then="stop"), Act(after_s=3.0, then="take")], masks=True)
    origin = WebSocketEnd(masks=False, early=BYE)  # which comes with the 101
    World(client, origin, split=0.0)
    assert (client.theirs.closing, bytes(client.said)) == ((1000, "bye"), masked(CLOSE, BYE[2:], mask=MASK))
    assert client.was_told


def test_who_is_refused_has_no_line() -> None:
    sim = Simulator(1)
    origin, asker = (H2Origin, H2Client) if _by_http2[0] else (H11Origin, H11Client)
    sim.listen(ORIGIN, lambda _: origin(lambda asked: Reply(403, pieces=[b"no"])))
    end = WebSocketEnd(masks=True, early=masked(TEXT, b"early"))
    client = asker([asking("/", hasty=True, fields=[("X-A", "b")], behind=end), Ask()])
    sim.connect(ORIGIN, client)
    sim.settle()
    answers = [(answer.status, answer.body, answer.complete) for answer in client.answers]
    assert answers[0] == (403, b"no", True)
    assert (answers[1] == answers[0]) == _by_http2[0], "in HTTP/1.1 what was early is no request"
    assert (end.line, any(sim.left.values())) == (None, False)
    assert bytes(end.heard) == b""


def test_a_101_that_nobody_asked_for() -> None:
    sim = Simulator(1)
    sim.listen(ORIGIN, lambda _: H11Origin(lambda asked: Reply(fault="unasked")))
    client = H11Client([Ask()])
    sim.connect(ORIGIN, client)
    sim.settle()
    assert client.malformed
