"""What must become of a case: each expectation tells what of it was not so, and "" where all was.

A case ends with a probe, a request on a new stream that has to be answered, wherever the connection is to go on. So
each case is judged by all that has come in: nothing has to be waited for any more.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.http2 import frames as f
from tests.http2.frames import Code
from tests.http2.talk import Talk

PROBE = 20001  # a stream that no case uses
FAULTS = range(400, 500)  # what a malformed request may be answered (RFC 9113 section 8.1.1)


class Expected:
    """Of a case."""

    may_end = False
    """The connection may be over."""

    may_go_on = False
    """... or not."""

    def missing(self, talk: Talk) -> str:
        """What is not as expected."""
        raise NotImplementedError

    def __or__(self, other: Expected) -> OneOf:
        return OneOf(self, other)


class OneOf(Expected):
    """Two ways, where the RFC leaves the choice."""

    def __init__(self, *ways: Expected) -> None:
        self.ways = ways
        self.may_end = any(way.may_end for way in ways)
        self.may_go_on = any(way.may_go_on for way in ways)

    def missing(self, talk: Talk) -> str:
        faults = [way.missing(talk) for way in self.ways]
        return "" if "" in faults else ", and ".join(faults)

    def __repr__(self) -> str:
        return " or ".join(map(repr, self.ways))


class Ended(Expected):
    """The connection is over, in whatever way."""

    may_end = True

    def missing(self, talk: Talk) -> str:
        return "" if talk.wire.closed else "the connection is open"


class EndsConnection(Expected):
    """A connection error (section 5.4.1): GOAWAY with the code, or one of them, and the connection is closed."""

    may_end = True

    def __init__(self, *codes: Code) -> None:
        self.codes = codes

    def missing(self, talk: Talk) -> str:
        if not talk.goaways:
            return "no GOAWAY"
        if talk.goaways[-1].code not in self.codes:
            return f"{talk.goaways[-1]}"
        if talk.goaways[-1].last >= PROBE:
            return f"GOAWAY takes on stream {talk.goaways[-1].last}, of which nobody has spoken"
        if any(stream > talk.goaways[-1].last and answer.head for stream, answer in talk.answers.items()):
            return f"GOAWAY says that above stream {talk.goaways[-1].last} nothing was done"
        return "" if talk.wire.closed else "GOAWAY, but the connection is open"

    def __repr__(self) -> str:
        return f"EndsConnection({'/'.join(code.name for code in self.codes)})"


class GoesOn(Expected):
    """The connection is as it was, and answers the probe."""

    may_go_on = True

    def missing(self, talk: Talk) -> str:
        if talk.goaways:
            return f"{talk.goaways[-1]}"
        if talk.wire.closed:
            return "the connection is closed"
        probe = talk.answers.get(PROBE)
        if probe is None or probe.status != 200 or not probe.ended:
            return f"the probe was not answered: {probe} {talk.resets.get(PROBE)}"
        return self.fault(talk)

    def fault(self, talk: Talk) -> str:
        """What is wrong though the connection goes on."""
        raise NotImplementedError


class Nothing(GoesOn):
    """What was sent is ignored, or taken without a word; requests before it are answered."""

    def fault(self, talk: Talk) -> str:
        return f"RST_STREAM {talk.resets}" if talk.resets else ""

    def __repr__(self) -> str:
        return "Nothing()"


class EndsStream(GoesOn):
    """A stream error (section 5.4.2): RST_STREAM with the code, or one of them, and no other stream suffers."""

    def __init__(self, stream: int, *codes: Code) -> None:
        self.stream = stream
        self.codes = codes

    def fault(self, talk: Talk) -> str:
        if self.stream not in talk.resets:
            return f"no RST_STREAM on stream {self.stream}"
        if talk.resets[self.stream] not in self.codes:
            return f"RST_STREAM {talk.resets[self.stream].name}"
        return f"RST_STREAM {talk.resets}" if len(talk.resets) > 1 else ""

    def __repr__(self) -> str:
        return f"EndsStream({self.stream}, {'/'.join(code.name for code in self.codes)})"


class Malformed(GoesOn):
    """A malformed request (section 8.1.1): a stream error of type PROTOCOL_ERROR, or better an answer that says so."""

    def __init__(self, stream: int = 1) -> None:
        self.stream = stream

    def fault(self, talk: Talk) -> str:
        if any(stream != self.stream for stream in talk.resets):
            return f"RST_STREAM {talk.resets}"
        answer = talk.answers.get(self.stream)
        code = talk.resets.get(self.stream)
        if answer is not None and answer.head is not None:
            if answer.status not in FAULTS:
                return f"it was answered {answer.status}"
            if not answer.ended and code is None:
                return f"it was answered {answer.status}, without an end"
            return "" if code in (None, Code.NO_ERROR, Code.PROTOCOL_ERROR) else f"it was reset with {code.name}"
        return "" if code == Code.PROTOCOL_ERROR else f"neither answered nor PROTOCOL_ERROR: {code!r}"

    def __repr__(self) -> str:
        return f"Malformed({self.stream})"


@dataclass
class Answered(GoesOn):
    """The request is answered."""

    stream: int = 1
    status: int = 200
    body: bytes | None = None

    def fault(self, talk: Talk) -> str:
        answer = talk.answers.get(self.stream)
        if answer is None or answer.head is None:
            return f"no answer on stream {self.stream}: {talk.resets}"
        if answer.status != self.status:
            return f"it was answered {answer.status}"
        if not answer.ended:
            return f"the answer has no end: {len(answer.body)} bytes, {talk.resets}"
        if self.body is not None and answer.body != self.body:
            return f"the answer has {len(answer.body)} bytes: {answer.body[:40]!r}"
        return f"RST_STREAM {talk.resets[self.stream].name}" if self.stream in talk.resets else ""


def finish(talk: Talk, expected: Expected) -> None:
    """The end of a case: what is on its way comes in, and the probe is asked where there may be an answer to it."""
    if expected.may_end:
        talk.until(lambda: talk.wire.closed, 0.2 if expected.may_go_on else 100)
    if expected.may_go_on and not talk.wire.closed:
        talk.send(f.headers(PROBE, f.fields(f.request("/probe", method="HEAD"))))
        talk.until(lambda: talk.wire.closed or talk.ended(PROBE))
    if talk.goaways:
        talk.until(lambda: talk.wire.closed)
