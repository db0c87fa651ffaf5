"""coulee as a server of HTTP/2: every case on a machine, whose bytes come in whole, one by one, and cut anyhow.

However a case is cut, the same becomes of it. And whatever it was, in the end nothing of it is left, though the client
stays: no rule of HTTP/2, broken or kept, makes anything wait for ever.
"""

from __future__ import annotations

import pytest

from tests.http2.case import Case, play
from tests.http2.cases import CASES
from tests.http2.machine import Delivery, MachineWire, bytewise, split, whole
from tests.http2.outcomes import finish
from tests.http2.talk import Talk


def outcome(case: Case, delivery: Delivery) -> object:
    """Plays it, and tells what became of it."""
    wire = MachineWire(delivery, origin=case.origin)
    talk = Talk(wire)
    play(case, talk)
    wire.answers = True
    finish(talk, case.expected)
    missing = case.expected.missing(talk)
    assert not missing, f"{case}: {missing}; expected {case.expected}; came {'; '.join(map(str, talk.frames))}"
    case.check(talk)
    assert not wire.world.events("internal_error")
    wire.end()
    heads = [stream for stream, answer in talk.answers.items() if answer.head is not None]
    records = sorted((record.status, record.reason) for record in wire.world.access)
    assert len(records) >= len(heads), "each answer has its record"
    assert not wire.asked or not talk.goaways or talk.goaways[-1].last, "an origin was asked, and GOAWAY says not"
    answers = {stream: (answer.head, answer.body, answer.trailers) for stream, answer in talk.answers.items()}
    return answers, talk.resets, [(each.last, each.code) for each in talk.goaways], records


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_case(case: Case) -> None:
    as_whole = outcome(case, whole)
    assert outcome(case, bytewise) == as_whole
    assert outcome(case, split) == as_whole


@pytest.mark.parametrize("delivery", [whole, bytewise, split])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PRI", "PRIVATE"])
def test_http_1_is_spoken_at_the_same_address(method: str, delivery: Delivery) -> None:
    wire = MachineWire(delivery)
    asking = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    wire.send(f"{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n{asking}\r\n".encode())
    assert wire.receive(0).startswith(b"HTTP/1.1 200 "), "who asks for HTTP/2 in it is not heard (RFC 9113 section 3.1)"
    assert wire.asked[0].method == method
    assert wire.asked[0].get("http2-settings") == []
    wire.end()


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({str(case) for case in CASES}) == len(CASES)
