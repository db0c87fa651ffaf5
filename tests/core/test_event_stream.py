"""Server-sent events: what the standard's examples mean, what a filter makes of them, and that cuts change nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coulee.core import Exchange, ExchangeError, Headers, Request, Response, Retry, respond, sleep
from coulee.core.event_stream import EventReader, EventStream, Found, ServerSentEvent, is_event_stream
from tests.core.ledger import on, played, proxy_of, status
from tests.core.world import World

HEAD = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET /a HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nAccept-Encoding: gzip\r\n\r\n"
MARK = b"\xef\xbb\xbf"


class Seen(EventStream):
    """Notes the events, and does with them as it is told."""

    def __init__(self, act: Callable[[ServerSentEvent], Any] | None = None) -> None:
        self.events: list[ServerSentEvent] = []
        self.act = act

    def server_sent_event(self, exchange: Exchange, event: ServerSentEvent) -> Any:
        self.events.append(event)
        return None if self.act is None else self.act(event)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def unchunked(sent: bytes) -> bytes:
    """The data of whole chunks."""
    found: list[bytes] = []
    while sent:
        size, _, rest = sent.partition(b"\r\n")
        length = int(size, 16)
        found.append(rest[:length])
        assert rest[length : length + 2] == b"\r\n"
        sent = rest[length + 2 :]
    return b"".join(found)


def streaming(*filters: EventStream, head: bytes = HEAD, ask: bytes = GET) -> tuple[World, int, int]:
    """A stream has begun: the client's connection, and the origin's."""
    world, _ = played(*filters, retry=Retry(retries_max=0))
    client = world.client()
    world.receives(client, ask)
    origin = world.connects()
    world.sent(origin)
    world.receives(origin, head)
    world.sent(client)
    return world, client, origin


def through(filters: list[EventStream], *pieces: bytes) -> bytes:
    """What a client gets of a stream that comes in these pieces."""
    world, client, origin = streaming(*filters)
    for piece in filter(None, pieces):
        world.receives(origin, chunk(piece))
    world.receives(origin, b"0\r\n\r\n")
    assert world.access[-1].reason == "", world.access[-1].detail
    return unchunked(world.sent(client))


def read(*pieces: bytes, limit: int = 10_000) -> tuple[list[ServerSentEvent], bytes]:
    """The events of a stream, and all its bytes, by a reader alone."""
    reader = EventReader(None, limit)
    found = [one for piece in pieces for one in reader.read(piece, False)] + reader.read(b"", True)
    events = [one.event for one in found if isinstance(one, Found)]
    return events, b"".join([one.raw if isinstance(one, Found) else one for one in found])


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data, cut at some places."""
    at = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(at)]


# ------------------------------------------------------------------------------------------------- the standard

E = ServerSentEvent
EXAMPLES: list[tuple[bytes, list[ServerSentEvent]]] = [
    (b"data: YHOO\ndata: +2\ndata: 10\n\n", [E("YHOO\n+2\n10")]),
    # the last block has no blank line behind it: not for a browser, but for a filter
    (b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event",
     [E("first event", id="1"), E("second event", id=""), E(" third event")]),
    (b"data\n\ndata\ndata\n\ndata:", [E(""), E("\n"), E("")]),
    (b"data:test\n\ndata: test\n\n", [E("test"), E("test")]),
    (b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n", [E("73857293", "add"), E("2153", "remove")]),
    (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [E("a"), E("b"), E("c")]),
    (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", [E("a"), E("b"), E("c")]),
    (b"data: a\ndata: b\r\ndata: c\rdata: d\n\n", [E("a\nb\nc\nd")]),
    (MARK + b"data: a\n\n" + MARK + b"data: b\n\ndata: c\n\n", [E("a"), E("c")]),
    (MARK + b":before\ndata: a\n\n", [E("a")]),
    (b"id: 7\nretry: 2500\nevent: x\ndata: a\n\n", [E("a", "x", "7", 2500)]),
    (b"id: 1\nid: 2\nevent: x\nevent: y\nretry: 1\nretry: 2\ndata: a\n\n", [E("a", "y", "2", 2)]),
    (b"retry: -1\ndata: a\n\nretry: 1x\ndata: b\n\nretry:\ndata: c\n\n", [E("a"), E("b"), E("c")]),
    (b"retry: " + b"9" * 15 + b"\ndata: a\n\nretry: " + b"9" * 5000 + b"\ndata: b\n\n",
     [E("a", retry_ms=10**15 - 1), E("b")]),
    (b"id: a\0b\ndata: a\n\n", [E("a")]),
    (b"event:\ndata: a\n\nevent: \0\ndata: b\n\n", [E("a"), E("b", "\0")]),
    (b"data: a\n:one\n: two\n:  three\ndata: b\n\n", [E("a\nb", comments=("one", "two", " three"))]),
    (b":before\ndata: a\n\n", [E("a")]),
    (b"other: x\nDATA: y\ndata: a\n data: b\n\n", [E("a")]),
    (b"data: \xc3\xa9\xff\nevent: \xff\nid: \xe2\x82\xac\n\n", [E("é\ufffd", "\ufffd", "€")]),
    (b"data: a\x0bb\xe2\x80\xa8c\x85\x1c\n\n", [E("a\x0bb\u2028c\ufffd\x1c")]),
    (b"event: ping\n\nid: 5\n\nretry: 10\n\nfoo\n\n", []),
    (b"\n\n\r\n\r\r", []),
    (b"", []),
    (b"id: 1", []),
    (MARK[:2], []),
]  # fmt: skip


@pytest.mark.parametrize(("stream", "events"), EXAMPLES)
def test_what_a_stream_says(stream: bytes, events: list[ServerSentEvent]) -> None:
    assert read(stream) == (events, stream)
    assert read(*[stream[at : at + 1] for at in range(len(stream))]) == (events, stream)
    for at in range(len(stream)):
        assert read(stream[:at], stream[at:]) == (events, stream)


def reference(stream: bytes) -> list[ServerSentEvent]:
    """The events by another way: text, line by line, as the standard has it; but for comments."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    events: list[ServerSentEvent] = []
    data, kind, place, retry = [""][:0], "", None, None
    lines = re.split("\r\n|\r|\n", text)
    for number, line in enumerate([*lines, ""]):
        if line == "":
            if data:
                events.append(E("\n".join(data), kind or "message", place, retry))
            if data or number < len(lines):
                data, kind, place, retry = [], "", None, None
            continue
        name, colon, value = line.partition(":")
        value = value[1:] if value[:1] == " " else value
        if colon and not name:
            continue
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            place = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            retry = int(value)
    return events


PIECES = [b"\n", b"\r", b"\r\n", b":", b" ", b"data", b"data: x", b"id: 1", b"event", b"retry: 5", b"\0", MARK,
          MARK[:1], b"\xc3", b"\xa9", b"y"]  # fmt: skip
STREAMS = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)
CUTS = st.lists(st.integers(0, 120), max_size=12)


@given(STREAMS, CUTS)
@example(b"data: x\r\rdata: y\n\n", [8])
def test_any_cuts_give_the_events_of_the_standard_and_every_byte(stream: bytes, cuts: list[int]) -> None:
    events, raw = read(*split(stream, cuts))
    assert [replace(event, comments=()) for event in events] == reference(stream)
    assert raw == stream


def act(event: ServerSentEvent) -> Any:
    """One of all that a filter may do, by what is in the event."""
    return [
        None,
        replace(event, data="changed"),
        [],
        [event, E("b", "second"), event],
        event,
        [event],
        [E("only")],
    ][(len(event.data) + 3 * len(event.comments) + 2 * len(event.event)) % 7]


@given(STREAMS, CUTS)
@example(b"data\r\n\r\ndata\r\r\n\ndata:a\r\r\n", [8, 15])
@example(b"data: x\n\r\ndata: x\r\n\r\n", [9, 20])
@example(b"data:x\r\rdata:y\n\n", [14])
@example(b"data:x\n\n\n", [8])
@example(b"data:x\r\r:c\n\ndata:x\n\n", [10])
def test_any_cuts_give_the_same_stream_behind_a_filter(stream: bytes, cuts: list[int]) -> None:
    def behind(*pieces: bytes) -> tuple[bytes, list[ServerSentEvent]]:
        seen = Seen(act)
        return through([seen], *pieces), seen.events

    whole, events = behind(stream)
    assert behind(*split(stream, cuts)) == (whole, events)
    wanted: list[ServerSentEvent] = []
    for event in events:
        outcome = act(event)
        wanted += [event] if outcome is None else outcome if isinstance(outcome, list) else [outcome]
    assert [replace(event, comments=()) for event in read(whole)[0]] == [
        replace(event, comments=()) for event in wanted
    ]


TEXT = st.text(st.sampled_from("ab:\r\n é\u2028\x0b"), max_size=8)
WORD = st.text(st.sampled_from("ab: é\u2028\x0b"), max_size=4)
EVENTS = st.builds(E, TEXT, WORD, st.none() | WORD, st.none() | st.integers(0, 10**15 - 1), st.tuples(TEXT))


@given(st.lists(EVENTS, max_size=4))
def test_what_is_written_is_read_as_it_was_meant(events: list[ServerSentEvent]) -> None:
    meant = [
        replace(event, data=re.sub("\r\n?", "\n", event.data), event=event.event or "message", comments=())
        for event in events
    ]
    assert read(b"".join([event.encode() for event in events]))[0] == meant


def test_an_event_as_it_is_written() -> None:
    event = E("a\nb", "add", "7", 2500, ("why\nnot",))
    assert event.encode() == b": why\n: not\nevent: add\ndata: a\ndata: b\nid: 7\nretry: 2500\n\n"
    assert E("").encode() == b"data: \n\n"
    assert E("a", "").encode() == E("a").encode()
    assert E("a", id="", retry_ms=0).encode() == b"data: a\nid: \nretry: 0\n\n"


@pytest.mark.parametrize(
    "wrong",
    [{"event": "a\nb"}, {"event": "a\r"}, {"id": "a\n"}, {"id": "\r"}, {"id": "a\0"}, {"retry_ms": -1}],
)
def test_what_no_event_can_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} is .*; it (can have no|must be)"):
        E("a", **wrong)


# ---------------------------------------------------------------------------------------------- what a filter does


def test_what_is_no_event_goes_on_at_once_and_an_event_when_it_is_whole() -> None:
    seen = Seen()
    world, client, origin = streaming(seen)
    told: list[bytes] = []
    for piece in (MARK[:1], MARK[1:], b": pi", b"ng", b"\n", b":\r", b"\n", b"\n", b"retry: 5", b"\n", b"\n",
                  b"data: a", b"\r\n", b":x\r", b"\r", b"\n", b"\n", b"data: b\n\n:y\ndata: c\n\nda",
                  b"ta: d\n\n"):  # fmt: skip
        world.receives(origin, chunk(piece))
        told.append(unchunked(world.sent(client)))
    assert told == [b"", MARK, b": pi", b"ng", b"\n", b":\r", b"\n", b"\n", b"", b"", b"retry: 5\n\n", b"",
                    b"", b"", b"data: a\r\n:x\r\r", b"\n", b"\n", b"data: b\n\n:y\ndata: c\n\n",
                    b"data: d\n\n"]  # fmt: skip
    assert [event.data for event in seen.events] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("outcome", "behind"),
    [
        (None, b"id: 1\r\ndata: a\r\nx\r\n\r\n"),
        ([], b"id: 1\n\n"),
        (E("b"), b"data: b\n\n"),
        ([E("b"), E("c", "d")], b"data: b\n\nevent: d\ndata: c\n\n"),
    ],
)
def test_what_becomes_of_an_event(outcome: Any, behind: bytes) -> None:
    def at_once(event: ServerSentEvent) -> Any:
        return outcome

    async def later(event: ServerSentEvent) -> Any:
        return outcome

    for act in (at_once, later):
        assert through([Seen(act)], b":\ndata\n\n"[:2], b"id: 1\r\ndata: a\r\nx\r\n\r\n") == b":\n" + behind


def test_an_event_that_is_dropped_without_a_place_leaves_nothing() -> None:
    assert through([Seen(lambda _: [])], b"event: x\ndata: a\n\n:b\n\ndata: c\n\n") == b":b\n\n"
    assert through([Seen(lambda _: [])], b"retry: 7\ndata: a\n\n") == b"retry: 7\n\n"
    assert through([Seen(lambda _: [])], b"id\ndata: a\n\n") == b"id: \n\n"


def test_the_event_itself_in_a_list_stands_for_what_came() -> None:
    stream = b"other: x\r\ndata:a\r\r\n"
    assert through([Seen(lambda event: [event])], stream) == stream
    assert through([Seen(lambda event: [E("b"), event])], stream) == b"data: b\n\nother: x\r\ndata:a\n\n"
    assert through([Seen(lambda event: [event, E("b")])], stream) == b"other: x\r\ndata:a\n\ndata: b\n\n"


def test_an_event_that_the_end_cuts_off_is_seen_and_stays_cut_off() -> None:
    seen = Seen()
    assert through([seen], b"data: a\n\ndata: b\nid: 2") == b"data: a\n\ndata: b\nid: 2"
    assert seen.events == [E("a"), E("b", id="2")]
    assert through([Seen(lambda _: E("x"))], b"data: b\n") == b"data: x\n"
    assert through([Seen(lambda _: [E("x"), E("y")])], b"data: b\n") == b"data: x\n\ndata: y\n"
    assert through([Seen(lambda _: [])], b"data: b\nid: 2") == b"id: 2\n"
    assert through([Seen(lambda _: [])], b"data: b") == b""


def test_a_whole_stream_that_comes_with_its_head() -> None:
    world, _ = played(Seen(lambda event: replace(event, data=event.data.upper())))
    client = world.client()
    world.receives(client, GET)
    origin = world.connects()
    head = HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: 16")
    world.receives(origin, head + b"data: a\n\ndata: b")
    assert world.sent(client).endswith(b"Content-Length: 16\r\n\r\ndata: A\n\ndata: B\n".replace(b"16", b"17"))


def test_trailers_end_a_stream_too() -> None:
    world, client, origin = streaming(Seen(lambda _: E("x")))
    world.receives(origin, chunk(b"data: a") + b"0\r\nx: y\r\n\r\n")
    assert world.sent(client) == chunk(b"data: x\n") + b"0\r\nx: y\r\n\r\n"


def test_two_filters_see_one_after_the_other_what_goes_on() -> None:
    stream = b":c\ndata: a\n\n"
    for at in range(len(stream)):
        first = Seen(lambda event: [event, E(event.data + " first", "first")])
        second = Seen(lambda event: E(event.data + " second"))
        assert through([first, second], stream[:at], stream[at:]) == (
            b":c\ndata: a second\n\nevent: first\ndata: a second first\n\n"
        )
        assert [event.data for event in second.events] == ["a"], "the last of the list is nearest to the origin"


def test_a_filter_before_it_that_holds_a_piece_back_between_cr_and_lf() -> None:
    def hold(exchange: Exchange, data: bytes, ended: bool) -> bytes:
        return b"" if data == b"held" else data

    seen = Seen(lambda _: E("x"))
    world, _ = played(seen, on("upstream_response_body_filter", hold))
    client = world.client()
    world.receives(client, GET)
    origin = world.connects()
    world.receives(origin, HEAD)
    world.sent(client)
    for piece in (b"data: a\r\n\r", b"held", b"\n", b"\n"):
        world.receives(origin, chunk(piece))
    assert unchunked(world.sent(client)) == b"data: x\n\n\n"


def test_the_events_behind_one_that_takes_its_time_wait() -> None:
    async def slowly(event: ServerSentEvent) -> None:
        if event.data == "slow":
            await sleep(2)

    world, client, origin = streaming(Seen(slowly))
    world.receives(origin, chunk(b"data: slow\n\n") + chunk(b"data: b\n\n"))
    world.wait(1.9)
    assert world.sent(client) == b""
    world.wait(0.2)
    assert unchunked(world.sent(client)) == b"data: slow\n\ndata: b\n\n"


def test_a_filter_that_is_a_dataclass() -> None:
    """It cannot be the key of a table."""

    @dataclass
    class Redact(EventStream):
        word: str

        def server_sent_event(self, exchange: Exchange, event: ServerSentEvent) -> ServerSentEvent:
            return replace(event, data=event.data.replace(self.word, "-"))

    assert through([Redact("a"), Redact("b")], b"data: abc\n\n") == b"data: --c\n\n"


def test_a_filter_that_does_nothing() -> None:
    assert through([EventStream()], b"data: a\n\nda") == b"data: a\n\nda"


# ------------------------------------------------------------------------------------------------ what goes wrong


class _Small(Seen):
    event_bytes_max = 10


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n"])
def test_the_size_of_an_event_is_bounded_however_it_comes(end: bytes) -> None:
    stream = b"data: 1234" + end + b":" + b"x" * 100 + b"\ndata: 5678" + end
    for size in (1, 2, 3, len(stream)):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert through([_Small()], *pieces) == stream
        world, client, origin = streaming(_Small())
        for piece in [*pieces, b"data: 12345", *[end[at : at + 1] for at in range(len(end))]]:
            if world.reading[origin]:
                world.receives(origin, chunk(piece))
            if world.access:
                break
        assert unchunked(world.sent(client)) == stream, "without the last chunk: it shows that it was cut"
        assert (world.access[-1].status, world.access[-1].reason) == (200, "upstream_invalid")
        assert world.access[-1].detail == "an event is larger than 10 bytes"
        assert origin in world.closing


def test_a_large_event_is_stopped_before_it_is_whole() -> None:
    world, _, origin = streaming(Seen())
    world.receives(origin, chunk(b"data: "))
    for _ in range(15):
        world.receives(origin, chunk(b"x" * 65536))
    assert not world.access
    world.receives(origin, chunk(b"x" * 65536))
    assert world.access[-1].reason == "upstream_invalid"


def test_a_large_event_that_comes_with_the_head() -> None:
    world, _ = played(_Small(), retry=Retry(retries_max=0))
    client = world.client()
    world.receives(client, GET)
    world.receives(world.connects(), HEAD + chunk(b"data: 12345\n\n"))
    assert status(world.sent(client)) == 502


@pytest.mark.parametrize(
    ("outcome", "word"),
    [("text", "gave str"), ([E("a"), None], "gave NoneType"), ((E("a"),), "gave tuple"), (b"", "gave bytes")],
)
def test_what_a_filter_may_not_give(outcome: Any, word: str) -> None:
    world, client, origin = streaming(Seen(lambda _: outcome))
    world.receives(origin, chunk(b"data: a\n\n"))
    assert world.access[-1].reason == "filter_error"
    assert "Seen.server_sent_event: " + word in world.access[-1].detail
    assert world.sent(client) == b""


def test_a_filter_that_fails() -> None:
    def change(event: ServerSentEvent) -> None:
        event.data = "x"  # type: ignore[misc]

    world, _, origin = streaming(Seen(change))
    world.receives(origin, chunk(b"data: a\n\n"))
    assert world.access[-1].reason == "filter_error"
    assert FrozenInstanceError.__name__ in world.access[-1].detail


# ------------------------------------------------------------------------------------------------ which answers


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("text/event-stream", "identity"),
        ("Text/Event-Stream;q=0.9", "identity"),
        ("application/json, text/event-stream", "identity"),
        ("text/event-stream ,*/*", "identity"),
        ("text/event-streams", "gzip"),
        ("x-text/event-stream", "gzip"),
        ("*/*", "gzip"),
        ("", "gzip"),
    ],
)
def test_an_origin_is_asked_not_to_compress_events(accept: str, coding: str) -> None:
    world, _ = played(Seen())
    accepts = f"Accept: {accept}\r\n" if accept else ""
    world.receives(world.client(), f"GET /a HTTP/1.1\r\nHost: a\r\n{accepts}Accept-Encoding: gzip\r\n\r\n".encode())
    sent = world.sent(world.connects()).decode()
    assert re.findall(r"Accept-Encoding: (.*)\r\n", sent) == [coding]


class Chat(Seen):
    """Knows its clients, who do not say that they accept events."""

    def expects_events(self, exchange: Exchange, request: Request) -> bool:
        return request.path == "/chat"


def test_clients_that_do_not_say_that_they_accept_events() -> None:
    world, _ = played(Chat())
    client = world.client()
    world.receives(client, GET.replace(b"/a", b"/chat").replace(b"text/event-stream", b"*/*"))
    assert b"\r\nAccept-Encoding: identity\r\n" in world.sent(world.connects())


@pytest.mark.parametrize(
    ("kind", "is_one"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream", True),
        ("text/event-stream;charset=utf-8", True),
        ("text/event-stream ; x", True),
        ("text/event-stream\t", True),
        ("text/event-streams", False),
        ("text/plain; text/event-stream", False),
        ("", False),
    ],
)
def test_what_is_a_stream_of_events(kind: str, is_one: bool) -> None:
    assert is_event_stream(Headers({"content-type": kind} if kind else {})) is is_one
    seen = Seen(lambda _: E("seen"))
    world, client, origin = streaming(seen, head=HEAD.replace(b"text/event-stream", kind.encode()))
    world.receives(origin, chunk(b"data: a\n\nda"))
    assert unchunked(world.sent(client)) == (b"data: seen\n\n" if is_one else b"data: a\n\nda")


@pytest.mark.parametrize(("coding", "code"), [("gzip", 500), ("BR", 500), ("identity", 200), ("Identity", 200)])
def test_events_that_are_compressed_are_not_passed_on_unseen(coding: str, code: int) -> None:
    world, _ = played(Seen(lambda _: E("seen")), retry=Retry(retries_max=0))
    client = world.client()
    world.receives(client, GET)
    head = HEAD.replace(b"Transfer", f"Content-Encoding: {coding}\r\nTransfer".encode())
    world.receives(world.connects(), head + chunk(b"data: a\n\n"))
    answer = world.sent(client)
    assert status(answer) == code
    assert (chunk(b"data: seen\n\n") in answer) == (code == 200)
    if code == 500:
        assert (world.access[0].reason, len(world.access[0].attempts)) == ("filter_error", 1)
        assert f"content coding {coding.lower()}" in world.access[0].detail
        assert "expects_events()" in world.access[0].detail


def test_an_answer_without_a_body_may_say_what_it_likes() -> None:
    world, _ = played(Seen())
    client = world.client()
    world.receives(client, GET.replace(b"GET", b"HEAD"))
    world.receives(world.connects(), HEAD.replace(b"Transfer", b"Content-Encoding: gzip\r\nTransfer"))
    assert status(world.sent(client)) == 200


def test_an_answer_that_another_filter_makes_is_not_seen() -> None:
    async def instead(exchange: Exchange, response: Response) -> Response:
        return respond(200, "data: a\n\n", content_type="text/event-stream")

    seen = Seen(lambda _: E("seen"))
    for phase in ("upstream_response_filter", "response_filter"):
        world, _ = played(on(phase, instead), seen)
        client = world.client()
        world.receives(client, GET)
        world.receives(world.connects(), HEAD)
        assert world.sent(client).endswith(b"\r\n\r\ndata: a\n\n")


def test_what_an_attempt_before_has_begun_is_forgotten() -> None:
    """The filter next to the client refuses the first answer, when the one behind it has begun to read events."""
    asked: list[int] = []

    async def refuse(exchange: Exchange, response: Response) -> None:
        asked.append(response.status)
        if len(asked) == 1:
            raise ExchangeError("upstream_invalid", "no")

    for kind, behind in ((b"text/event-stream", b"data: seen\n\n"), (b"text/plain", b"data: a\n\n")):
        asked.clear()
        world, _ = played(on("upstream_response_filter", refuse), Seen(lambda _: E("seen")),
                          retry=Retry(reasons=("upstream_invalid",)))  # fmt: skip
        client = world.client()
        world.receives(client, GET)
        world.receives(world.connects(), HEAD)
        world.wait(1)
        world.receives(world.connects(), HEAD.replace(b"text/event-stream", kind) + chunk(b"data: a\n\n"))
        assert len(asked) == 2
        assert unchunked(world.sent(client).partition(b"\r\n\r\n")[2]) == behind
        exchange = next(iter(proxy_of(world).downstreams)).exchanges[0]
        assert len(exchange.event_streams) == (kind != b"text/plain")
