"""The death of either end of a WebSocket at every state of its life, in each way, in virtual time: what the other end
sees of it, and what the access record says. Passed through, and with a filter that sees the messages.

Each line of `TABLE`: the state; who goes, and how: by a `reset`, by an `end` of its side in order, or by `silence`;
then, passed through and filtered, what the other end sees / the reason of the record / the second at which that is
written. What is seen: close frames by their code, `end` for one in order, `reset`, `nothing`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from coulee.backends.websocket_speech import BINARY, TEXT
from coulee.core import Config, Exchange, Filter, Message, Proxy, Retry, Timeouts, WebSocket
from coulee.lb import Cluster
from coulee.testing import End
from coulee.testing import Exchange as PlayedExchange
from coulee.testing import WebSocket as Played

CONFIG: Final = Config(
    timeouts=Timeouts(
        head_timeout_s=7.0, keep_alive_idle_s=8.0, answer_timeout_s=9.0, send_stall_timeout_s=30.0,
        upgraded_idle_timeout_s=60.0,
    ),
    websocket=WebSocket(close_timeout_s=5.0),
    retry=Retry(retries_max=0),
)  # fmt: skip


class Watcher(Filter):
    """Sees every message, and changes none."""

    def websocket_message(self, exchange: Exchange, message: Message) -> None:
        return None


def _both(ws: Played, who: str) -> tuple[End, End]:
    ends = {"client": ws.client, "origin": ws.origin}
    return ends.pop(who), ends.popitem()[1]


def _as_it_is(ws: Played, who: str) -> None:
    """Nothing else has happened."""


def _in_a_frame(ws: Played, who: str) -> None:
    goes, _ = _both(ws, who)
    goes.send_raw(b"\x82\xfe\x01" if who == "client" else b"\x82\x7e\x01")


def _between_fragments(ws: Played, who: str) -> None:
    goes, _ = _both(ws, who)
    goes.send_frame(TEXT, b"hel", fin=False)


def _after_a_ping(ws: Played, who: str) -> None:
    """That it was sent, and does not answer."""
    goes, stays = _both(ws, who)
    goes.answers = False
    stays.ping(b"?")
    assert goes.pings == [b"?"]


def _it_has_closed(ws: Played, who: str) -> None:
    """It has sent a close frame, and has no answer yet."""
    goes, stays = _both(ws, who)
    stays.answers = False
    goes.close(4000)
    assert stays.closed == (4000, "")


def _it_was_closed(ws: Played, who: str) -> None:
    """It was sent a close frame, and has not answered."""
    goes, stays = _both(ws, who)
    goes.answers = False
    stays.close(4000)
    assert goes.closed == (4000, "")


def _both_have_closed(ws: Played, who: str) -> None:
    """And neither has ended its connection."""
    ws.client.answers = ws.origin.answers = False
    ws.client.close(4000)
    ws.origin.close(4000)
    assert ws.client.closed == ws.origin.closed == (4000, "")


def _the_other_is_half_closed(ws: Played, who: str) -> None:
    goes, stays = _both(ws, who)
    goes.answers = False
    stays.end()
    assert goes.ended


def _its_bytes_are_not_taken(ws: Played, who: str) -> None:
    goes, _ = _both(ws, who)
    reads = ws.upstream if who == "client" else ws._connection
    reads.pause()
    goes.send_frame(BINARY, bytes(400_000))


STATES: Final[dict[str, Callable[[Played, str], None]]] = {
    "asked": _as_it_is,
    "open": _as_it_is,
    "in a frame": _in_a_frame,
    "between fragments": _between_fragments,
    "was sent a ping": _after_a_ping,
    "has sent a close frame": _it_has_closed,
    "was sent a close frame": _it_was_closed,
    "both have sent one": _both_have_closed,
    "the other is half-closed": _the_other_is_half_closed,
    "its bytes are not taken": _its_bytes_are_not_taken,
}


TABLE: Final = """
asked                    | client | reset   | reset / client_gone / 0            | reset / client_gone / 0
asked                    | client | end     | reset / upstream_timeout / 9       | reset / upstream_timeout / 9
asked                    | client | silence | reset / upstream_timeout / 9       | reset / upstream_timeout / 9
asked                    | origin | reset   | 502 / upstream_reset / 0           | 502 / upstream_reset / 0
asked                    | origin | end     | 502 / upstream_reset / 0           | 502 / upstream_reset / 0
asked                    | origin | silence | 504 / upstream_timeout / 9         | 504 / upstream_timeout / 9
open                     | client | reset   | reset / client_gone / 0            | reset / client_gone / 0
open                     | client | end     | end / - / 0                        | end / - / 0
open                     | client | silence | reset / idle_timeout / 60          | 1001 end / idle_timeout / 70
open                     | origin | reset   | reset / upstream_reset / 0         | reset / upstream_reset / 0
open                     | origin | end     | end / - / 0                        | end / - / 0
open                     | origin | silence | reset / idle_timeout / 60          | 1001 end / idle_timeout / 70
in a frame               | client | reset   | reset / client_gone / 0            | reset / client_gone / 0
in a frame               | client | end     | end / - / 0                        | end / - / 0
in a frame               | client | silence | reset / idle_timeout / 60          | 1001 end / idle_timeout / 70
in a frame               | origin | reset   | reset / upstream_reset / 0         | reset / upstream_reset / 0
in a frame               | origin | end     | end / - / 0                        | end / - / 0
in a frame               | origin | silence | reset / idle_timeout / 60          | 1001 end / idle_timeout / 70
between fragments        | client | reset   | reset / client_gone / 0            | reset / client_gone / 0
between fragments        | client | end     | end / - / 0                        | end / - / 0
between fragments        | client | silence | reset / idle_timeout / 60          | 1001 end / idle_timeout / 70
between fragments        | origin | reset   | reset / upstream_reset / 0         | reset / upstream_reset / 0
between fragments        | origin | end     | end / - / 0                        | end / - / 0
between fragments        | origin | silence | reset / idle_timeout / 60          | 1001 end / idle_timeout / 70
was sent a ping          | client | reset   | reset / client_gone / 0            | reset / client_gone / 0
was sent a ping          | client | end     | end / - / 0                        | end / - / 0
was sent a ping          | client | silence | reset / idle_timeout / 60          | 1001 end / idle_timeout / 70
was sent a ping          | origin | reset   | reset / upstream_reset / 0         | reset / upstream_reset / 0
was sent a ping          | origin | end     | end / - / 0                        | end / - / 0
was sent a ping          | origin | silence | reset / idle_timeout / 60          | 1001 end / idle_timeout / 70
has sent a close frame   | client | reset   | 4000 reset / client_gone / 0       | 4000 end / client_gone / 0
has sent a close frame   | client | end     | 4000 end reset / idle_timeout / 60 | 4000 end / - / 10
has sent a close frame   | client | silence | 4000 reset / idle_timeout / 60     | 4000 end / - / 10
has sent a close frame   | origin | reset   | 4000 reset / upstream_reset / 0    | 4000 end / - / 10
has sent a close frame   | origin | end     | 4000 end reset / idle_timeout / 60 | 4000 end / - / 10
has sent a close frame   | origin | silence | 4000 reset / idle_timeout / 60     | 4000 end / - / 10
was sent a close frame   | client | reset   | reset / client_gone / 0            | reset / client_gone / 0
was sent a close frame   | client | end     | end / - / 0                        | 4000 end / - / 0
was sent a close frame   | client | silence | reset / idle_timeout / 60          | 4000 end / - / 10
was sent a close frame   | origin | reset   | reset / upstream_reset / 0         | 4000 end / - / 0
was sent a close frame   | origin | end     | end / - / 0                        | 4000 end / - / 0
was sent a close frame   | origin | silence | reset / idle_timeout / 60          | 4000 end / - / 10
both have sent one       | client | reset   | 4000 reset / client_gone / 0       | 4000 end / - / 0
both have sent one       | client | end     | 4000 end reset / idle_timeout / 60 | 4000 end / - / 10
both have sent one       | client | silence | 4000 reset / idle_timeout / 60     | 4000 end / - / 10
both have sent one       | origin | reset   | 4000 reset / upstream_reset / 0    | 4000 end / - / 10
both have sent one       | origin | end     | 4000 end reset / idle_timeout / 60 | 4000 end / - / 10
both have sent one       | origin | silence | 4000 reset / idle_timeout / 60     | 4000 end / - / 10
the other is half-closed | client | reset   | reset / client_gone / 0            | reset / client_gone / 0
the other is half-closed | client | end     | end / - / 0                        | end / - / 0
the other is half-closed | client | silence | reset / idle_timeout / 60          | end / - / 10
the other is half-closed | origin | reset   | reset / upstream_reset / 0         | reset / upstream_reset / 0
the other is half-closed | origin | end     | end / - / 0                        | end / - / 0
the other is half-closed | origin | silence | reset / idle_timeout / 60          | end / - / 10
its bytes are not taken  | client | reset   | reset / client_gone / 0            | reset / client_gone / 0
its bytes are not taken  | client | end     | reset / idle_timeout / 60          | reset / upstream_timeout / 10
its bytes are not taken  | client | silence | reset / idle_timeout / 60          | reset / idle_timeout / 70
its bytes are not taken  | origin | reset   | reset / upstream_reset / 0         | reset / upstream_reset / 0
its bytes are not taken  | origin | end     | reset / idle_timeout / 60          | reset / send_timeout / 10
its bytes are not taken  | origin | silence | reset / idle_timeout / 60          | reset / idle_timeout / 70
"""

LINES: Final = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()]


def came_of(state: str, who: str, way: str, *, filtered: bool) -> str:
    """Play one line."""
    ws = Played(Proxy(Cluster("http://10.1.0.1"), [Watcher()] if filtered else [], CONFIG), accepts=state != "asked")
    STATES[state](ws, who)
    goes, stays = _both(ws, who)
    if way == "silence":
        goes.answers = False
    elif state == "asked":
        far = ws._connection if who == "client" else ws.upstream
        far.reset() if way == "reset" else far.write_eof()
        ws.settle()
    elif way == "reset":
        goes.reset()
    else:
        goes.end()
    for _ in range(400):
        if ws.record is not None:
            break
        ws.advance(seconds=0.5)
    at_s = ws.now
    ws.advance(seconds=300.0)
    (record,) = ws.records
    seen = [str(stays.closed[0])] if stays.closed is not None else []
    seen += ["end"] * stays.ended + [stays.error] * bool(stays.error)
    if state == "asked" and who == "client":
        (upstream,) = ws.upstreams
        seen = [upstream.error or "end"] if upstream.is_closed else []
    elif state == "asked":
        seen = [str(ws.response.status)]
    left = {kind: count for kind, count in ws.left.items() if count}
    assert left == {"listeners": 1, "credits": 1}, left
    return f"{' '.join(seen) or 'nothing'} / {record.reason or '-'} / {at_s:g}"


@pytest.mark.parametrize("state", STATES)
def test_what_the_other_end_sees_and_what_the_record_says(state: str) -> None:
    lines = [line for line in LINES if line[0] == state]
    assert len(lines) == 6
    for _, who, way, passed, filtered in lines:
        assert came_of(state, who, way, filtered=False) == passed, (who, way)
        assert came_of(state, who, way, filtered=True) == filtered, (who, way)


@pytest.mark.parametrize(
    ("said", "way", "status", "reason", "at_s"),
    [
        (b"", "reset", 0, "", 0.0),
        (b"", "end", 0, "", 0.0),
        (b"", "silence", 0, "", 8.0),
        (b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgr", "reset", 0, "", 0.0),
        (b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgr", "end", 0, "client_gone", 0.0),
        (b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgr", "silence", 408, "header_timeout", 7.0),
    ],
)
def test_who_goes_before_it_has_asked(said: bytes, way: str, status: int, reason: str, at_s: float) -> None:
    x = PlayedExchange(Proxy(Cluster("http://10.1.0.1"), [Watcher()], CONFIG)).send_raw(said)
    if way == "reset":
        x.leave()
    elif way == "end":
        x.half_close()
    if at_s:
        x.advance(seconds=at_s - 0.1)
        assert x.connected
        x.advance(seconds=0.1)
    assert not x.connected
    assert (x.response.status if x.answered else 0) == status
    assert [record.reason for record in x.records] == [reason] * bool(reason)
    assert not x.upstreams
    x.advance(seconds=100.0)
    assert x.left["connections"] == x.left["alarms"] == 0
