"""A case: what a client does, and what RFC 9113 or RFC 7541 wants to become of it, with the section that decides.

Steps are bytes, or functions that are given the talk: `wait(1)` until stream 1 is over, `go` for the origin to answer
what it holds. Where the RFC leaves a choice, each way of it is in `expected`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.http2.outcomes import Expected
from tests.http2.talk import Talk

Step = bytes | Callable[[Talk], object]


@dataclass(frozen=True)
class Case:
    """One of them."""

    section: str
    name: str
    steps: tuple[Step, ...]
    expected: Expected
    ours: dict[int, int] = field(default_factory=dict)
    """The client's SETTINGS."""

    begins: bool = True
    """With a preface and SETTINGS; else the first step has them."""

    origin: bool = True
    """There is one; else nobody answers its address."""

    live: bool = True
    """Otherwise it is for machines only."""

    slow: bool = False
    """It waits for a time limit of seconds."""

    check: Callable[[Talk], None] = lambda talk: None
    """What else must be so."""

    @property
    def for_sockets(self) -> bool:
        """It needs no say in when the origin answers."""
        return self.live and not any(step is go or isinstance(step, Standstill) for step in self.steps)

    @property
    def of_literals(self) -> bool:
        """Its fields are written so that they can be found in its bytes."""
        return not self.section.startswith(("7541", "4.3"))

    def __str__(self) -> str:
        return f"{self.section} {self.name}"


@dataclass(frozen=True)
class Standstill:
    """A step: so much of the body on stream 1 has come, and no more does. It takes time, and is for where that is
    virtual."""

    count: int

    def __call__(self, talk: Talk) -> None:
        talk.until(lambda: 1 in talk.answers and len(talk.answers[1].body) > self.count, 1.0)
        answer = talk.answers[1]
        assert answer.head is not None, "a head needs no window"
        assert len(answer.body) == self.count
        assert not answer.ended


def wait(*streams: int) -> Callable[[Talk], None]:
    """Until streams are over: they have been answered, or refused, or their connection has ended."""

    def waits(talk: Talk) -> None:
        talk.until(lambda: talk.wire.closed or all(map(talk.ended, streams)))
        left = [stream for stream in streams if not talk.ended(stream)]
        assert not left or talk.goaways, f"stream {left} is not over; came {'; '.join(map(str, talk.frames))}"

    return waits


def go(talk: Talk) -> None:
    """The origin answers what it was held to answer."""
    talk.wire.go()


def play(case: Case, talk: Talk) -> None:
    """All steps."""
    if case.begins:
        talk.begin(case.ours)
    for step in case.steps:
        if isinstance(step, bytes):
            talk.send(step)
        else:
            step(talk)
