"""Every case, from either side, as a whole and byte by byte: however it is cut, the same becomes of it.

Whatever it was, the offender hears why, the other side hears of the end, the access record has the reason, and nothing
is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest

from tests.core.test_websocket_relay import ASK, SWITCH, Line, Seen, bye, no_reason
from tests.core.websocket_frames import CLOSE, KEY, TEXT, Frame, close
from tests.websocket.case import SETTINGS, Case, Closes, Fails, Leaves, Passes, f, shut
from tests.websocket.cases import CASES
from tests.websocket.cases_deflate import DEFLATE

Who = Literal["client", "origin"]
REASONS = {1009: "websocket_too_large"}
EDGE_BYTES = 40


class Ends:
    """One side, and the other one."""

    def __init__(self, who: Who, deflate: bool) -> None:
        ask, switch = ASK, SWITCH
        settings: dict[str, Any] = dict(SETTINGS)
        if deflate and who == "client":
            ask = ASK.replace(b"Connection", b"Sec-WebSocket-Extensions: permessage-deflate\r\nConnection")
        elif deflate:
            switch = SWITCH.replace(b"Connection", b"Sec-WebSocket-Extensions: permessage-deflate\r\nConnection")
            settings["compress_upstream"] = True
        self.line = Line(Seen(), ask=ask, switch=switch, **settings)
        self.ours = who == "client"
        self.mask = KEY if self.ours else None

    def says(self, data: bytes) -> None:
        """The side sends bytes."""
        (self.line.says if self.ours else self.line.answers)(data)

    def answers(self, data: bytes) -> None:
        """The other one does."""
        (self.line.answers if self.ours else self.line.says)(data)

    @property
    def told(self) -> list[Frame]:
        """What the side has got."""
        return self.line.down if self.ours else self.line.up

    @property
    def heard(self) -> list[Frame]:
        """What the other one has."""
        return self.line.up if self.ours else self.line.down

    @property
    def other_mask(self) -> bytes | None:
        """What the other one masks with."""
        return None if self.ours else KEY


def cut(data: bytes) -> Iterator[bytes]:
    """One byte at a time; in the middle of long data more."""
    at = 0
    while at < len(data):
        size = 1 if at < EDGE_BYTES or at >= len(data) - EDGE_BYTES else min(4999, len(data) - EDGE_BYTES - at)
        yield data[at : at + size]
        at += size


def outcome(case: Case, who: Who, *, bytewise: bool) -> tuple[list[Frame], list[Frame], tuple[str, object]]:
    """Plays it: what the other side heard, what the side was told, and the access record."""
    ends = Ends(who, case.deflate)
    pieces = list(case.pieces)
    if isinstance(case.outcome, Fails):
        pieces.append(f(TEXT, b"never"))
    elif isinstance(case.outcome, Passes):
        pieces.append(shut(1000))
    data = b"".join(piece(ends.mask) for piece in pieces)
    for part in cut(data) if bytewise else [data] if data else []:
        ends.says(part)
    ends.line.world.wait(0.1)  # what finds no room in this turn goes in the next one
    heard, told = ends.heard, ends.told
    if isinstance(case.outcome, Leaves):
        assert not ends.line.world.access
        ends.says(b"")
        assert (ends.line.origin if ends.ours else ends.line.client) in ends.line.world.eofs
        ends.answers(b"")
        heard, told = heard + ends.heard, told + ends.told
    else:
        last = heard[-1]
        assert last.opcode == CLOSE
        if last.payload:
            ends.answers(close(int.from_bytes(last.payload[:2], "big"), mask=ends.other_mask))
        else:
            ends.answers(f(CLOSE)(ends.other_mask))
        told += ends.told
        ends.says(b"")
        ends.answers(b"")
    record = ends.line.record
    ends.line.is_over()
    return heard, told, record


@pytest.mark.parametrize("who", ["client", "origin"])
@pytest.mark.parametrize("case", [*CASES, *DEFLATE], ids=str)
def test_a_case(case: Case, who: Who) -> None:
    heard, told, record = outcome(case, who, bytewise=False)
    assert outcome(case, who, bytewise=True) == (heard, told, record)
    expected = case.outcome
    if isinstance(expected, Passes):
        assert heard == [*expected.frames, *bye(1000)]
        assert told == bye(1000)
        assert record == ("", 1000)
    elif isinstance(expected, Closes):
        code = int.from_bytes(expected.payload[:2], "big")
        assert heard == [*expected.frames, Frame(CLOSE, expected.payload)]
        assert told == [Frame(CLOSE, expected.payload[:2])], "which is the answer to it"
        assert record == ("", code or 1005)
    elif isinstance(expected, Leaves):
        assert (heard, told, record) == ([], [], ("", 1006))
    else:
        assert heard == [*expected.frames, *bye(1001 if who == "client" else 1011)]
        assert no_reason(told) == bye(expected.code)
        assert told[0].payload[2:].decode(), "why"
        reason = REASONS.get(expected.code, "websocket_error") if who == "client" else "upstream_invalid"
        assert record == (reason, expected.code)


def test_each_case_has_a_name_of_its_own() -> None:
    names = [str(case) for case in [*CASES, *DEFLATE]]
    assert sorted(set(names)) == sorted(names)
