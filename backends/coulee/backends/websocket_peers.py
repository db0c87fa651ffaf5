"""Scripted ends of a WebSocket for the simulator, to be put behind a 101: `Ask.behind`, `Reply.behind`.

    client = WebSocketEnd([Act(frame(TEXT, b"hello", mask=b"mask")), Act(after_s=1.0, then="end")], masks=True)
    H11Client([asking("/chat", behind=client)])

Rules:

- A script says bytes as they are, be they frames or not, cut anywhere. What is said besides, the answers to pings and
  to a close frame, waits until no frame of the script is half said.
- All that was said and heard is kept, as bytes; and, by a reader that shares no code with coulee's, as messages.
- As servers do, an origin's end closes the connection when both have said a close frame (section 7.1.1); a client's
  waits for that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from coulee.backends.behind import Behind, Line
from coulee.backends.peers import Ask, Asked, Fields
from coulee.backends.websocket_speech import CLOSE, KEY, PING, PONG, Deflate, Reader, accept_of, frame
from coulee.core.seam import ErrorKind

MASK = b"\x12\x34\x56\x78"
"""By which answers are masked."""


def asking(target: str, *, fields: Fields = (), hasty: bool = False, behind: Behind | None = None) -> Ask:
    """A request for a WebSocket (section 4.1)."""
    wanted = [("Host", "example.com"), ("Connection", "Upgrade"), ("Upgrade", "websocket"),
              ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", KEY), *fields]  # fmt: skip
    return Ask("GET", target, wanted, hasty=hasty, behind=behind)


def agreed(asked: Asked, fields: Fields = ()) -> Fields:
    """The fields of a 101 that grants it (section 4.2.2)."""
    accept = accept_of(asked.get("sec-websocket-key") or "")
    return [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Accept", accept), *fields]


@dataclass(frozen=True, slots=True)
class Act:
    """What an end does next, `after_s` seconds behind what it did before: it says `data`, and then, perhaps, nothing
    more (`end`), or it goes (`reset`, `close`); or it takes nothing any more (`stop`), until it does (`take`)."""

    data: bytes = b""
    after_s: float = 0.0
    then: Literal["", "end", "reset", "close", "stop", "take"] = ""


class WebSocketEnd:
    """One end. `masks`: it is a client's. `answers`: pings and close frames are answered. `dies_after_s`: it resets the
    connection so long after the 101, if that is not 0.

    `said` and `heard` are all bytes behind the head, `mine` and `theirs` what these say. `gone` is how this end has
    ended its side, `in_order` that it has once done so as one should, `was_told` that the other has. `error` is how the
    line ended, once it `is_closed`.
    """

    def __init__(
        self,
        acts: Sequence[Act] = (),
        *,
        masks: bool,
        early: bytes = b"",
        answers: bool = True,
        dies_after_s: float = 0.0,
        my_deflate: Deflate | None = None,
        their_deflate: Deflate | None = None,
    ) -> None:
        self.early = early
        self.said = bytearray(early)
        self.heard = bytearray()
        self.mine = Reader(masks, my_deflate)
        self.theirs = Reader(not masks, their_deflate)
        self.gone: Literal["", "end", "reset", "close"] = ""
        self.in_order = False
        self.was_told = False
        self.is_closed = False
        self.error: ErrorKind | None = None
        self.line: Line | None = None  # since it has begun
        self._acts = deque(acts)
        self._masks = masks
        self._dies_after_s = dies_after_s
        self._answers = answers
        self._owed: deque[bytes] = deque()
        self.mine.feed(early)

    @property
    def _over(self) -> bool:
        return self.is_closed or self.gone != ""

    def begin(self, line: Line) -> None:
        """See `Behind`."""
        self.line = line
        if self._dies_after_s:
            line.call_later(self._dies_after_s, self.kill)
        self._act(False)

    # -- saying

    def _act(self, has_waited: bool) -> None:
        """The script, up to its next pause."""
        line = self.line
        assert line is not None
        while self._acts and not self._over:
            act = self._acts[0]
            if act.after_s and not has_waited:
                line.call_later(act.after_s, partial(self._act, True))
                return
            has_waited = False
            self._acts.popleft()
            if act.data:
                self._say(act.data)
            self._pay()
            if act.then:
                self._carry_out(act, line)
        self._rest()

    def _say(self, data: bytes) -> None:
        assert self.line is not None
        self.said += data
        self.mine.feed(data)
        self.line.write(data)

    def _carry_out(self, act: Act, line: Line) -> None:
        if act.then == "end":
            self._end()
        elif act.then == "stop":
            line.pause()
        elif act.then == "take":
            line.resume()
        elif act.then == "reset":
            self.kill()
        else:
            self.gone = "close"
            self.in_order = True
            line.close()

    def kill(self) -> None:
        """Reset the connection now, if there is one."""
        if self.line is not None and not self.is_closed:
            self.gone = "reset"
            self.line.reset()

    def _pay(self) -> None:
        """Answer what is to be answered, if no frame is half said."""
        while self._owed and self.mine.between_frames and self.mine.closing is None and not self._over:
            self._say(self._owed.popleft())
        if self._answers and self.mine.closing is not None and self.theirs.closing is not None:
            self._acts = deque(Act(after_s=act.after_s, then="take") for act in self._acts if act.then == "take")
            if not self._masks:
                self._end()

    def _rest(self) -> None:
        """The script is over: so is all that we say, where the other side says no more."""
        if self.was_told and not self._acts:
            self._end()

    def _end(self) -> None:
        if not self._over and self.line is not None:
            self.gone = "end"
            self.in_order = True
            self.line.write_eof()

    # -- hearing

    def received(self, data: bytes) -> None:
        """See `Behind`."""
        if not data:
            self.was_told = True
            self._rest()
            return
        self.heard += data
        for opcode, payload in self.theirs.feed(data):
            if self._answers and opcode != PONG:
                answer = PONG if opcode == PING else CLOSE
                self._owed.append(frame(answer, payload, mask=MASK if self._masks else b""))
        if self._owed or self.theirs.closing is not None:
            self._pay()
            self._rest()

    def closed(self, error: ErrorKind | None) -> None:
        """See `Behind`."""
        self.is_closed = True
        self.error = error
