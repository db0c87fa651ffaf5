"""Properties: whatever frames come in whatever order, coulee keeps the rules of HTTP/2 itself, nothing is raised and
nothing is left, and what becomes of it does not depend on how the bytes are cut.

The frames are those of the cases, for they know what is odd; here they meet each other, on streams that are drawn.
"""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from tests.http2 import frames as f
from tests.http2.cases import CASES
from tests.http2.cases_client import CLIENT_CASES
from tests.http2.frames import Code, Frame
from tests.http2.machine import Delivery, MachineWire, bytewise, whole
from tests.http2.served import Got, Stage
from tests.http2.talk import Talk

LONGEST = 3000  # a step with more bytes is for a window, and for a case of its own
FLAGS = (0, 0, 0, 0, 0, 0, f.END_STREAM, f.END_HEADERS, f.PADDED, f.WITH_PRIORITY)


def whole_frames(steps: Iterable[object]) -> list[tuple[Frame, ...]]:
    """The frames of each step that is made of them."""
    found = [f.cut(step, strict=False)[0] for step in steps if isinstance(step, bytes) and len(step) < LONGEST]
    return [tuple(frames) for frames in found if frames]


LEFT_ALONE = whole_frames(step for case in CASES if case.begins and not case.expected.may_end for step in case.steps)
ANY = whole_frames(step for case in CASES if case.begins for step in case.steps)
FROM_ORIGINS = whole_frames(case.sends for case in CLIENT_CASES if case.begins)


def moved(frames: tuple[Frame, ...], stream: int, flags: int) -> bytes:
    """These frames, on a stream perhaps, and with a flag more or less."""
    return b"".join(f.frame(each.type, each.flags ^ flags, each.stream and stream, each.payload) for each in frames)


def pieces(pool: list[tuple[Frame, ...]], most: int) -> st.SearchStrategy[list[bytes]]:
    """Some of them, on the first few streams."""
    one = st.builds(moved, st.sampled_from(pool), st.sampled_from((1, 3, 5, 7, 9)), st.sampled_from(FLAGS))
    return st.lists(one, min_size=1, max_size=most)


def said_to(delivery: Delivery, sent: list[bytes]) -> object:
    """What a client gets that says these things."""
    wire = MachineWire(delivery)
    talk = Talk(wire)
    talk.begin()
    for piece in sent:
        talk.send(piece)
    wire.go()
    talk.until(lambda: False, 1.0)
    assert not wire.world.events("internal_error")
    assert not talk.goaways or talk.goaways[-1].code == Code.NO_ERROR or wire.closed
    wire.end()
    talk.until(lambda: False, 0)
    answers = {stream: (answer.status, answer.body, answer.ended) for stream, answer in talk.answers.items()}
    return answers, talk.resets, [(each.last, each.code) for each in talk.goaways]


@given(pieces(ANY, 8))
def test_any_frames_from_a_client(sent: list[bytes]) -> None:
    assert said_to(bytewise, sent) == said_to(whole, sent)


@given(pieces(LEFT_ALONE, 25))
def test_frames_from_a_client_that_are_no_fault_by_themselves(sent: list[bytes]) -> None:
    assert said_to(bytewise, sent) == said_to(whole, sent)


def answered_by(delivery: Delivery, sent: list[bytes]) -> list[Got]:
    """What three clients get of an origin that says these things."""
    stage = Stage(delivery)
    stage.asks("/0")
    served = stage.serves()
    stage.asks("/1")
    stage.asks("/2", method="POST", body=b"abc")
    for piece in sent:
        if not served.wire.closed:
            served.send(piece)
    served.wait(2)
    got = [stage.gets(client) for client in range(3)]
    stage.world.leaves_nothing()
    assert not stage.world.events("internal_error")
    assert len(stage.world.access) == 3, "each request has its record"
    return got


@given(pieces(FROM_ORIGINS, 8))
def test_any_frames_from_an_origin(sent: list[bytes]) -> None:
    got = answered_by(whole, sent)
    assert answered_by(bytewise, sent) == got
    sum_of_data = sum(len(each.payload) for piece in sent for each in f.cut(piece)[0] if each.type == f.DATA)
    for each in got:
        assert each.status not in (200, 204) or len(each.body) <= sum_of_data, "bytes that no origin has sent"
