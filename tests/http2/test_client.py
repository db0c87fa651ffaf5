"""coulee as a client of HTTP/2: every case of an origin that keeps the rules or breaks them, with bytes that come in
whole, one by one, and cut anyhow; then what takes more than one request."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coulee.core import Retry
from coulee.core.seam import Blocked
from tests.http2 import frames as f
from tests.http2.cases_client import CLIENT_CASES, ClientCase
from tests.http2.frames import INITIAL_WINDOW_SIZE, Code, data, headers, settings, window_update
from tests.http2.machine import PLAIN, Delivery, bytewise, split, whole
from tests.http2.served import Served, Stage, answer

DELIVERIES = [whole, bytewise, split]
TWICE = replace(PLAIN, retry=Retry(retries_max=1))


def outcome(case: ClientCase, delivery: Delivery) -> object:
    """Plays it, and tells what became of it."""
    stage = Stage(delivery)
    stage.asks(method=case.method)
    served = stage.serves(case.ours, begins=case.begins)
    assert served.until(lambda: served.ended(1)), "the request has not come"
    served.send(case.sends)
    if case.closes:
        served.close()
    served.wait(2)
    got = stage.gets()
    missing = case.gets.missing(got)
    assert not missing, f"{case}: the client has {missing}; wanted {case.gets}; {told(stage, served)}"
    stage.asks("/next")
    reused = not stage.world.connecting
    served.wait(2)
    missing = case.then.missing(served, reused)
    assert not missing, f"{case}: {missing}; wanted {case.then}; {told(stage, served)}"
    assert reused is (3 in served.answers)
    assert not stage.world.events("internal_error")
    stage.world.leaves_nothing()
    return got, set(served.resets), [(each.last, each.code) for each in served.goaways]


def told(stage: Stage, served: Served) -> str:
    """What has happened, for people."""
    records = [(record.status, record.reason, record.detail) for record in stage.world.access]
    return f"{records}; {'; '.join(map(str, served.frames[2:]))}"


@pytest.mark.parametrize("case", CLIENT_CASES, ids=str)
def test_a_case(case: ClientCase) -> None:
    as_whole = outcome(case, whole)
    assert outcome(case, bytewise) == as_whole
    assert outcome(case, split) == as_whole


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({str(case) for case in CLIENT_CASES}) == len(CLIENT_CASES)


def test_an_origin_that_says_nothing_is_given_up() -> None:
    stage = Stage()
    stage.asks()
    stage.serves(begins=False)
    got = stage.gets(patience_s=100)
    assert (got.status, got.whole) == (504, True)
    stage.world.leaves_nothing()


def test_an_origin_that_stops_within_an_answer_is_given_up() -> None:
    stage = Stage()
    stage.asks()
    served = stage.serves()
    served.send(headers(1, answer(), end=False) + data(1, b"h"))
    assert stage.gets(patience_s=200).cut
    stage.world.leaves_nothing()


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_wrong_answer_leaves_other_streams_alone(delivery: Delivery) -> None:
    stage = Stage(delivery)
    served = None
    for client in range(3):
        stage.asks(f"/{client}")
        served = served or stage.serves()
    assert served is not None
    assert not stage.world.connecting, "all on one connection"
    assert served.until(lambda: served.ended(5))
    good = headers(1, answer(), end=False) + headers(5, answer(), end=False)
    served.send(good + data(1, b"h") + headers(3, f.fields([("a", "b")])) + f.rst(5, Code.INTERNAL_ERROR))
    served.send(data(1, b"i", end=True))
    assert (stage.gets(0).status, stage.gets(0).whole, stage.gets(0).body) == (200, True, b"hi")
    assert (stage.gets(1).status, stage.gets(1).whole) == (502, True)
    assert stage.gets(2, 2).cut
    assert not served.wire.closed
    assert set(served.resets) <= {3}
    stage.world.leaves_nothing()


def test_an_error_of_the_connection_ends_all_its_streams() -> None:
    stage = Stage()
    stage.asks("/0")
    served = stage.serves()
    stage.asks("/1")
    served.send(headers(1, answer(), end=False) + f.frame(f.PING, 0, 1, bytes(8)))
    served.wait(2)
    assert stage.gets(0).cut
    assert (stage.gets(1).status, stage.gets(1).whole) == (502, True)
    assert served.goaways[-1].code == Code.PROTOCOL_ERROR
    assert served.wire.closed
    stage.world.leaves_nothing()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_is_refused_is_asked_again(method: str) -> None:
    stage = Stage(config=TWICE)
    stage.asks(method=method, body=b"ab" * (method == "POST"))
    served = stage.serves()
    served.send(f.rst(1, Code.REFUSED_STREAM))
    again = served if not stage.world.connecting else stage.serves()
    stream = 3 if again is served else 1
    assert again.until(lambda: again.ended(stream))
    assert again.answers[stream].body == b"ab" * (method == "POST")
    again.send(headers(stream, answer(), end=False) + data(stream, b"hi", end=True))
    assert (stage.gets().status, stage.gets().body) == (200, b"hi")
    stage.world.leaves_nothing()


def test_a_request_that_is_refused_twice_has_failed() -> None:
    stage = Stage(config=TWICE)
    stage.asks()
    served = stage.serves()
    served.send(f.rst(1, Code.REFUSED_STREAM))
    stage.world.wait(1)
    again = served if not stage.world.connecting else stage.serves()
    stream = 3 if again is served else 1
    assert again.until(lambda: again.ended(stream))
    again.send(f.rst(stream, Code.REFUSED_STREAM))
    assert stage.gets(patience_s=2).status == 503
    assert not stage.world.connecting
    stage.world.leaves_nothing()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_request_above_the_last_of_a_goaway_is_asked_elsewhere(method: str, delivery: Delivery) -> None:
    stage = Stage(delivery, TWICE)
    stage.asks("/0")
    served = stage.serves()
    stage.asks("/1", method=method, body=b"ab" * (method == "POST"))
    assert served.until(lambda: served.ended(3))
    served.send(f.goaway(1))
    assert stage.world.connecting, "it goes to another connection"
    other = stage.serves()
    assert other.until(lambda: other.ended(1))
    assert dict(other.answers[1].head or [])[":path"] == "/1"
    other.send(headers(1, answer(), end=False) + data(1, b"hi", end=True))
    served.send(headers(1, answer(), end=False) + data(1, b"ho", end=True))
    assert (stage.gets(0).body, stage.gets(1).body) == (b"ho", b"hi")
    served.wait(2)
    assert served.wire.closed, "and what was told to go is left, once it has answered"
    stage.world.leaves_nothing()


def test_what_was_processed_is_not_asked_again_for_a_post() -> None:
    stage = Stage(config=TWICE)
    stage.asks(method="POST", body=b"ab")
    served = stage.serves()
    served.send(f.goaway(1, Code.INTERNAL_ERROR))
    served.close()
    assert (stage.gets().status, stage.gets().whole) == (502, True)
    assert not stage.world.connecting
    stage.world.leaves_nothing()


def test_no_more_streams_than_the_origin_takes() -> None:
    stage = Stage()
    stage.asks("/0")
    served = stage.serves({f.MAX_CONCURRENT_STREAMS: 1})
    stage.asks("/1")
    assert 3 not in served.answers
    assert stage.world.connecting, "another connection is for it"
    other = stage.serves({f.MAX_CONCURRENT_STREAMS: 1})
    for each in (served, other):
        assert each.until(lambda each=each: each.ended(1))  # type: ignore[misc]
        each.send(headers(1, answer("204")))
    assert [stage.gets(client).status for client in (0, 1)] == [204, 204]
    stage.asks("/2")
    assert not stage.world.connecting
    stage.world.leaves_nothing()


def test_an_origin_that_takes_no_streams() -> None:
    stage = Stage()
    stage.asks("/0")
    served = stage.serves({f.MAX_CONCURRENT_STREAMS: 0})
    served.send(headers(1, answer("204")))
    stage.asks("/1")
    got = stage.gets(1, patience_s=120)
    assert got.whole
    assert got.status >= 500
    stage.world.leaves_nothing()


BODY = bytes(range(256)) * 400


def upload(stage: Stage, served: Served, step: int) -> None:
    """Open windows for a body by `step` bytes, until it is whole; `Served` sees that there is never more than that."""
    for _ in range(2 * len(BODY) // step + 2):
        served.send(window_update(1, step) + window_update(0, step))
        assert served.ended(1) or served.room(1) <= 0, "it stands still"
    assert served.answers[1].body == BODY
    served.send(headers(1, answer("204")))
    assert stage.gets().status == 204
    stage.world.leaves_nothing()


@pytest.mark.parametrize("step", [5003, 70000])
@pytest.mark.parametrize("initial", [0, 1, 65535])
def test_a_body_goes_as_the_windows_open(initial: int, step: int) -> None:
    stage = Stage()
    stage.asks(method="POST", body=BODY)
    served = stage.serves({INITIAL_WINDOW_SIZE: initial})
    upload(stage, served, step)


def test_a_window_below_0_keeps_a_body_back() -> None:
    stage = Stage()
    stage.asks(method="POST", body=BODY)
    served = stage.serves({INITIAL_WINDOW_SIZE: 1000})
    served.wait(0.2)
    before = len(served.answers[1].body)
    served.send(settings({INITIAL_WINDOW_SIZE: 10}))
    served.send(window_update(1, 5) + window_update(0, 2000))
    served.wait(0.2)
    assert len(served.answers[1].body) == before
    served.send(settings({INITIAL_WINDOW_SIZE: 65535}))
    upload(stage, served, 9999)


def test_frames_are_as_long_as_the_origin_takes() -> None:
    stage = Stage()
    stage.asks(method="POST", body=BODY)
    served = stage.serves({INITIAL_WINDOW_SIZE: 2**20, f.MAX_FRAME_SIZE: 2**20})
    upload(stage, served, 2**20)


def test_a_smaller_table_is_told_before_it_is_relied_on() -> None:
    stage = Stage()
    stage.asks("/0")
    served = stage.serves()
    served.send(headers(1, answer("204")))
    served.send(settings({f.HEADER_TABLE_SIZE: 0}))
    stage.asks("/1")
    assert served.until(lambda: served.ended(3))
    block = next(each.content for each in served.frames if each.type == f.HEADERS and each.stream == 3)
    assert block[0] == 0x20, "the first thing in the next block is the table's new size (RFC 7541 section 4.2)"
    served.send(headers(3, answer("204")))
    stage.world.leaves_nothing()


def test_an_early_answer_ends_what_is_still_to_be_sent() -> None:
    stage = Stage()
    stage.asks(method="POST", body=BODY[:1000], length=len(BODY))
    served = stage.serves()
    served.send(headers(1, answer("413"), end=False) + data(1, b"no", end=True) + f.rst(1, Code.NO_ERROR))
    got = stage.gets(patience_s=2)
    assert (got.status, got.body, got.whole) == (413, b"no", True)
    stage.asks("/next")
    assert served.until(lambda: served.ended(3)), "the connection is as good as before"
    served.send(headers(3, answer("204")))
    stage.world.leaves_nothing()


@pytest.mark.parametrize("wrong", ["an answer that is too long", "a client that leaves"])
def test_the_window_of_a_connection_survives_what_nobody_reads(wrong: str) -> None:
    stage = Stage()
    served = None
    for turn in range(80):
        client = stage.asks()
        served = served or stage.serves()
        stream = 1 + 2 * turn
        assert served.until(lambda: served.ended(stream)), f"it has its connection no more, in turn {turn}"  # noqa: B023
        length = ("content-length", "1" if wrong == "an answer that is too long" else "1000000")
        served.send(headers(stream, answer("200", length), end=False))
        if wrong == "a client that leaves":
            stage.world.resets(stage.clients[client])
        for _ in range(3):
            assert served.credits[0] >= f.FRAME_MAX, f"the window is lost in turn {turn}"
            served.send(data(stream, bytes(f.FRAME_MAX)))
    assert served is not None
    assert not served.goaways
    stage.world.leaves_nothing()


def test_an_origin_cannot_send_more_than_our_windows() -> None:
    stage = Stage()
    client = stage.asks()
    served = stage.serves()
    served.send(headers(1, answer(), end=False))
    stage.world.gives(Blocked(stage.clients[client]))
    sent = 0
    while (size := min(served.credit(1), f.FRAME_MAX)) > 0:
        served.send(data(1, bytes(size)))
        sent += size
        assert sent < 2**20, "windows open though nobody takes anything"
    served.send(data(1, b"x"))
    code = served.resets.get(1) or (served.goaways and served.goaways[-1].code)
    assert code == Code.FLOW_CONTROL_ERROR
    assert not stage.gets().whole
