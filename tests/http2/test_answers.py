"""Answers of origins of HTTP/1.1 to clients of HTTP/2, whole and broken; and how connections come to their end without
anybody's fault."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coulee.core import Limits
from coulee.core.seam import Blocked, Drain
from tests.http2 import frames as f
from tests.http2.frames import Code, get, headers, post
from tests.http2.machine import PLAIN, MachineWire
from tests.http2.talk import Talk


class Served:
    """A client with requests for an origin that the test plays, on connections 0, 1, 2 ... in their order."""

    def __init__(self, *blocks: bytes, ours: dict[int, int] | None = None) -> None:
        self.wire = MachineWire(origin=False)
        self.world = self.wire.world
        self.talk = Talk(self.wire)
        self.talk.begin(ours)
        for number, block in enumerate(blocks):
            self.talk.send(headers(1 + 2 * number, block))
        self.origins = [self.world.connects() for _ in blocks]

    def answers(self, raw: bytes, origin: int = 0, *, closes: bool = False) -> None:
        """An origin sends something, and perhaps closes."""
        conn = self.origins[origin]
        self.world.receives(conn, raw)
        if closes and conn not in self.world.closed:
            self.world.receives(conn, b"")
        self.talk.until(lambda: False, 0)

    def end(self) -> None:
        """Nothing is left of it."""
        assert not self.world.events("internal_error")
        self.world.leaves_nothing()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


def test_fields_lose_what_is_of_a_connection() -> None:
    served = Served(get())
    served.answers(
        CHUNKED + b"X-MiXed: Value\r\nConnection: X-Own, keep-alive\r\nX-Own: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Connection: close\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n"
    )
    answer = served.talk.answers[1]
    head = dict(answer.head or [])
    assert (answer.status, answer.body, answer.ended) == (200, b"hi", True)
    assert head["x-mixed"] == "Value"
    assert "x-own" not in head
    assert answer.trailers == [("x-sum", "7")]
    served.end()


def test_interim_answers_come_before() -> None:
    served = Served(get())
    served.answers(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
    answer = served.talk.answers[1]
    assert answer.interims == [[(":status", "103"), ("link", "<a>")]]
    assert (answer.status, answer.body, answer.ended) == (204, b"", True)
    served.end()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        CHUNKED + b"\r\n4\r\nhalf\r\n",
        CHUNKED + b"\r\n4\r\nhalf\r\n0\r\n",
        CHUNKED + b"\r\n4\r\nhalf\r\nnonsense\r\n",
        CHUNKED + b"\r\n4\r\nhalf\r\n0\r\nbad trailer: 1\r\n\r\n",
    ],
)
def test_an_answer_that_is_cut_is_reset(answer: bytes) -> None:
    served = Served(get("/0"), get("/1"))
    served.answers(answer, closes=True)
    answer_0 = served.talk.answers[1]
    assert answer_0.status == 200
    assert answer_0.body in (b"", b"half")
    assert not answer_0.ended, "it must not look whole"
    assert served.talk.resets[1] not in (Code.NO_ERROR, Code.REFUSED_STREAM), "nor as if it had not been begun"
    served.answers(b"HTTP/1.1 204 No Content\r\n\r\n", 1)
    assert served.talk.answers[3].status == 204
    assert not served.talk.goaways
    served.end()


def test_an_answer_until_its_connection_closes_is_whole() -> None:
    served = Served(get())
    served.answers(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi", closes=True)
    assert (served.talk.answers[1].body, served.talk.answers[1].ended) == (b"hi", True)
    served.end()


def test_an_answer_that_no_client_takes_is_ended() -> None:
    served = Served(get(), ours={f.INITIAL_WINDOW_SIZE: 0})
    served.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(30000))
    assert served.talk.answers[1].body == b""
    assert served.talk.until(lambda: served.talk.ended(1), 100), "its client holds it for ever"
    assert served.talk.resets[1] not in (Code.NO_ERROR, Code.REFUSED_STREAM)
    assert not served.talk.goaways, "and the other streams are none the worse"
    assert [record.reason for record in served.world.access] == ["send_timeout"]
    served.end()


def test_a_connection_that_takes_nothing_is_ended() -> None:
    served = Served(get())
    served.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + bytes(30000))
    served.world.gives(Blocked(served.wire.conn))
    served.world.receives(served.origins[0], bytes(30000))
    served.world.wait(100)
    assert served.wire.closed
    served.end()


def test_a_client_that_leaves_takes_its_requests_along() -> None:
    served = Served(get("/0"), get("/1"))
    served.world.resets(served.wire.conn)
    served.world.wait(2)
    assert set(served.origins) <= set(served.world.closed), "what nobody waits for goes on"
    assert [record.reason for record in served.world.access] == ["client_gone"] * 2
    served.end()


def test_a_client_that_has_said_all_is_answered() -> None:
    served = Served(get("/0"), get("/1"))
    served.world.receives(served.wire.conn, b"")
    for number in range(2):
        served.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", number)
        assert served.talk.answers[1 + 2 * number].ended
    served.world.wait(2)
    assert served.wire.closed, "nothing more can come on it"
    served.end()


def test_a_body_that_stops_with_its_connection_is_not_whole() -> None:
    wire = MachineWire(origin=False)
    talk = Talk(wire)
    talk.begin()
    talk.send(headers(1, post(), end=False) + f.data(1, b"abc"))
    origin = wire.world.connects()
    wire.world.receives(wire.conn, b"")
    wire.world.wait(2)
    assert not wire.world.sent(origin).endswith(b"0\r\n\r\n"), "a request that looks whole, and is not"
    assert origin in wire.world.closed
    wire.end()


@pytest.mark.parametrize("window", [0, f.WINDOW])
def test_the_window_of_a_connection_survives_bodies_that_no_origin_takes(window: int) -> None:
    wire = MachineWire(origin=False)
    talk = Talk(wire)
    talk.begin({f.INITIAL_WINDOW_SIZE: window})
    for stream in range(1, 161, 2):
        talk.send(headers(stream, post(), end=False) + f.data(stream, bytes(f.FRAME_MAX)))
        wire.world.refuses()
        assert talk.until(lambda: stream in talk.answers), "its error was told"  # noqa: B023
        assert talk.credits[0] >= f.FRAME_MAX, f"the window is lost by stream {stream}"
        if not talk.ended(stream):
            talk.send(f.data(stream, bytes(f.FRAME_MAX)))  # the error waits for a window, and so does its stream
    assert {answer.status for answer in talk.answers.values()} == {502}
    assert talk.credits[0] > 2**19, "nobody has anything of it any more"
    assert not talk.goaways
    wire.end()


def test_an_early_answer_to_a_body_that_is_still_to_come() -> None:
    wire = MachineWire(origin=False)
    talk = Talk(wire)
    talk.begin()
    talk.send(headers(1, post(), end=False) + f.data(1, b"abc"))
    origin = wire.world.connects()
    wire.world.receives(origin, b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    assert talk.until(lambda: talk.ended(1))
    assert (talk.answers[1].status, talk.answers[1].body, talk.answers[1].ended) == (413, b"no", True)
    talk.until(lambda: 1 in talk.resets, 10)
    assert talk.resets[1] == Code.NO_ERROR, "what is behind the whole answer is not an error (8.1)"
    assert not talk.goaways
    wire.end()


@pytest.mark.parametrize("at_once", [True, False])
def test_a_connection_that_has_carried_enough_is_ended_in_peace(at_once: bool) -> None:
    wire = MachineWire(config=replace(PLAIN, limits=Limits(requests_per_connection_max=5)))
    talk = Talk(wire)
    talk.begin()
    requests = [headers(1 + 2 * number, get()) for number in range(8)]
    for raw in [b"".join(requests)] if at_once else requests:
        if not talk.goaways:
            talk.send(raw)
    talk.until(lambda: wire.closed, 10)
    assert wire.closed
    assert {each.code for each in talk.goaways} == {Code.NO_ERROR}
    last = talk.goaways[-1].last
    answered = {stream for stream, answer in talk.answers.items() if answer.status == 200 and answer.ended}
    assert answered == set(range(1, last + 1, 2)), "each up to the last is answered, and none above it"
    assert len(wire.asked) == len(answered) >= 5
    wire.end()


def test_a_drain_takes_what_is_on_its_way() -> None:
    served = Served(get("/0"))
    served.world.gives(Drain(30))
    served.talk.until(lambda: False, 0.1)
    [notice] = served.talk.goaways
    assert (notice.code, notice.last) == (Code.NO_ERROR, 2**31 - 1), "first a notice, which refuses nothing (6.8)"
    served.talk.send(headers(3, get("/1")))
    assert served.world.connecting, "what was sent before the notice arrived is served"
    served.origins.append(served.world.connects())
    served.world.wait(2)
    served.talk.until(lambda: False, 0)
    assert (served.talk.goaways[-1].code, served.talk.goaways[-1].last) == (Code.NO_ERROR, 3)
    served.talk.send(headers(5, get("/2")))
    assert not served.world.connecting, "what comes behind the last word is not"
    for number in range(2):
        served.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", number)
        assert served.talk.answers[1 + 2 * number].ended
    served.talk.until(lambda: served.wire.closed, 10)
    assert served.wire.closed
    assert 5 not in served.talk.answers or served.talk.resets.get(5) == Code.REFUSED_STREAM
    assert len(served.world.access) == 2
