"""Answers that come bit by bit, and late: each piece goes out in the turn in which it came in, on every way through the
proxy; a stream may be quiet for long; and what ends it when nothing comes."""

from __future__ import annotations

from typing import Any

import pytest

from coulee.core import Config, Exchange, Filter, Retry, Timeouts
from coulee.core.event_stream import EventStream, ServerSentEvent
from coulee.core.seam import Drain, Operation, Send
from coulee.core.transport import Transport
from tests.core.http2_ends import Client, Origin, answer, ends, peer, played, reasons
from tests.core.world import World
from tests.http2 import frames as h2
from tests.http2.frames import Code, data, headers, rst

KIND = ("content-type", "text/event-stream")
NO_RETRY = Retry(retries_max=0)


class Looks(Filter):
    """Sees each piece of the answer's body."""

    def response_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> bytes:
        return data


class SeesLater(EventStream):
    """Sees each event, by a function that might wait."""

    async def server_sent_event(self, exchange: Exchange, event: ServerSentEvent) -> None:
        exchange.tags["events"] = event.data


class Down:
    """A client that has asked for a stream by HTTP/1.1, or by HTTP/1.0, and reads it."""

    version = "1.1"

    def __init__(self, world: World) -> None:
        self.world = world
        self.conn = world.client()
        world.receives(
            self.conn, f"GET /a HTTP/{self.version}\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n".encode()
        )

    def got_head(self) -> None:
        head, _, rest = self.world.sent(self.conn).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert (b"\r\nTransfer-Encoding: chunked" in head) == (self.version == "1.1")
        assert b"content-length" not in head.lower()
        assert rest == b""

    def got(self) -> bytes:
        """The data of what has come since."""
        sent = self.world.sent(self.conn)
        size, _, rest = sent.partition(b"\r\n")
        assert len(rest) == int(size, 16) + 2, "one chunk, with its end"
        return rest[:-2]

    def got_end(self) -> None:
        assert self.world.sent(self.conn) == b"0\r\n\r\n"

    def is_cut(self) -> None:
        """Without the last chunk: so it sees that this is not the whole."""
        assert self.world.sent(self.conn) == b""
        assert self.conn in self.world.eofs or self.conn in self.world.closing

    def closes(self) -> None:
        """It is gone; all that one sees of it is that its side is closed."""
        self.world.receives(self.conn, b"")


class Old(Down):
    """... and HTTP/1.0, which knows no chunks."""

    version = "1.0"

    def got(self) -> bytes:
        return self.world.sent(self.conn)

    def got_end(self) -> None:
        assert self.world.sent(self.conn) == b""
        assert self.conn in self.world.eofs

    def is_cut(self) -> None:
        assert self.world.closing[self.conn] is True, "only a reset shows it"


class Down2(Down):
    """... by HTTP/2."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.end = Client(world)
        self.conn = self.end.conn
        self.end.says(headers(1, h2.get("/a")))

    def got_head(self) -> None:
        assert self.end.told() == ["1 200"]

    def got(self) -> bytes:
        frames = [frame for frame in self.end.frames() if frame.type == h2.DATA]
        assert len(frames) == 1
        assert not frames[0].ends
        return frames[0].content

    def got_end(self) -> None:
        assert self.end.told() == ["1 DATA '' end"]

    def is_cut(self) -> None:
        assert [word for word in self.end.told() if word.startswith("1 ")] == ["1 RST INTERNAL_ERROR"]


class Up:
    """An origin of HTTP/1.1 that has been asked, and answers in chunks."""

    transport = Transport()
    framing = b"Transfer-Encoding: chunked\r\n"

    def __init__(self, world: World) -> None:
        self.world = world
        self.conn = world.connects()
        world.sent(self.conn)

    def begins(self, kind: bytes = b"text/event-stream") -> None:
        self.world.receives(
            self.conn, b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Type: " + kind + b"\r\n" + self.framing + b"\r\n"
        )

    def says(self, piece: bytes) -> list[Operation]:
        return self.world.receives(self.conn, b"%x\r\n%s\r\n" % (len(piece), piece))

    def ends(self) -> None:
        self.world.receives(self.conn, b"0\r\n\r\n")

    @property
    def is_told(self) -> bool:
        """Whether it was told that nobody wants its answer any more."""
        return self.conn in self.world.closing


class Unframed(Up):
    """... and only the end of its connection ends the answer."""

    framing = b""

    def says(self, piece: bytes) -> list[Operation]:
        return self.world.receives(self.conn, piece)

    def ends(self) -> None:
        self.world.receives(self.conn, b"")


class Up2(Up):
    """... by HTTP/2."""

    transport = Transport(prior_knowledge=True)

    def __init__(self, world: World) -> None:
        self.world = world
        self.end = Origin(world)
        self.conn = self.end.conn
        self.end.told()

    def begins(self, kind: bytes = b"text/event-stream") -> None:
        self.end.says(answer(1, 200, ("content-type", kind.decode())))

    def says(self, piece: bytes) -> list[Operation]:
        return self.world.receives(self.conn, data(1, piece))

    def ends(self) -> None:
        self.end.says(data(1, b"", end=True))

    @property
    def is_told(self) -> bool:
        return "1 RST CANCEL" in self.end.told()


FILTERS: list[list[Filter]] = [[], [Looks()], [SeesLater(), Looks()]]
downs = pytest.mark.parametrize("down", [Down, Old, Down2])
ups = pytest.mark.parametrize("up", [Up, Unframed, Up2])


def begun(
    down: type[Down], up: type[Up], *filters: Filter, kind: bytes = b"text/event-stream", **changes: Any
) -> tuple[World, Down, Up]:
    """A client has the head of a stream, and nothing of the stream."""
    world = played(*filters, peers=(peer(transport=up.transport),), **changes)
    client = down(world)
    origin = up(world)
    origin.begins(kind)
    client.got_head()
    return world, client, origin


def lasts(world: World, origin: Up, seconds: float) -> None:
    """Time passes, in which an origin says no more than that it is there, where it is asked."""
    until = world.now + seconds
    while world.now < until:
        world.wait(min(1.0, until - world.now))
        if isinstance(origin, Up2) and not origin.end.closed:
            for frame in origin.end.frames():
                if frame.type == h2.PING and not frame.acks:
                    world.receives(origin.conn, h2.ping(frame.payload, ack=True))


def leave(world: World, client: Down) -> None:
    """Nobody is left, and nothing."""
    if client.conn not in world.closed and world.reading.get(client.conn):
        client.closes()
    ends(world)


# ------------------------------------------------------------------------------------------------- without delay


@pytest.mark.parametrize("filters", FILTERS, ids=["no filter", "body filter", "event filter"])
@ups
@downs
def test_each_piece_goes_out_in_the_turn_in_which_it_came_in(
    down: type[Down], up: type[Up], filters: list[Filter]
) -> None:
    world, client, origin = begun(down, up, *filters)
    for number in range(20):
        piece = b": still here\n" if number % 3 else b"id: %d\ndata: an event\n\n" % number
        sends = [one for one in origin.says(piece) if isinstance(one, Send) and one.conn == client.conn]
        assert len(sends) == 1, "in this very turn, and whole"
        assert client.got() == piece
        lasts(world, origin, (0.0, 0.01, 20.0)[number % 3])
    origin.ends()
    client.got_end()
    assert reasons(world) == [""]
    leave(world, client)


@ups
@downs
def test_pieces_of_any_type_do(down: type[Down], up: type[Up]) -> None:
    world, client, origin = begun(down, up, kind=b"application/x-ndjson")
    for number in range(5):
        piece = b'{"a": %d}\n' % number
        origin.says(piece)
        assert client.got() == piece
    origin.ends()
    client.got_end()
    leave(world, client)


# ------------------------------------------------------------------------------------------------------- quiet


@ups
@downs
def test_a_stream_of_events_may_be_quiet_for_long(down: type[Down], up: type[Up]) -> None:
    world, client, origin = begun(down, up)
    lasts(world, origin, 3590)
    assert not world.access
    origin.says(b"data: late\n\n")
    assert client.got() == b"data: late\n\n"
    lasts(world, origin, 3590)
    assert not world.access
    lasts(world, origin, 20)
    assert reasons(world) == ["upstream_timeout"]
    assert world.access[0].detail == "no answer within 3600 s"
    client.is_cut()
    leave(world, client)


@ups
def test_the_limit_of_streams_of_events_is_their_own(up: type[Up]) -> None:
    timeouts = Timeouts(event_stream_idle_timeout_s=100, upstream_idle_timeout_s=20)
    for kind, limit in ((b"Text/Event-Stream ;charset=utf-8", 100), (b"text/plain", 20), (b"text/event-streams", 20)):
        world, client, origin = begun(Down, up, kind=kind, timeouts=timeouts)
        lasts(world, origin, limit - 1)
        assert not world.access
        lasts(world, origin, 2)
        assert reasons(world) == ["upstream_timeout"]
        leave(world, client)


def test_that_of_a_call_of_grpc_is_its_own_whatever_its_answer_says() -> None:
    timeouts = Timeouts(event_stream_idle_timeout_s=10, grpc_idle_timeout_s=100)
    world = played(peers=(peer(),), timeouts=timeouts)
    client = Client(world)
    call = h2.fields([*h2.request("/a", method="POST"), ("content-type", "application/grpc"), ("te", "trailers")])
    client.says(headers(1, call, end=True))
    origin = Up2(world)
    origin.begins()
    lasts(world, origin, 50)
    assert not world.access
    client.leaves()
    ends(world)


# ------------------------------------------------------------------------------------------------- what ends it


@ups
@downs
@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_client_that_leaves_a_quiet_stream_ends_it_at_the_origin(down: type[Down], up: type[Up], how: str) -> None:
    """A browser that closes its window is seen by its FIN alone, as long as nothing is sent to it."""
    world, client, origin = begun(down, up)
    origin.says(b"data: a\n\n")
    assert client.got() == b"data: a\n\n"
    lasts(world, origin, 100)
    if how == "closes":
        client.closes()
    else:
        world.resets(client.conn)
    assert reasons(world) == ["client_gone"]
    assert origin.is_told
    leave(world, client)


def test_a_client_of_http2_that_takes_its_request_back() -> None:
    for up in (Up, Unframed, Up2):
        world, client, origin = begun(Down2, up)
        assert isinstance(client, Down2)
        client.end.says(rst(1, Code.CANCEL))
        assert reasons(world) == ["client_gone"]
        assert origin.is_told
        leave(world, client)


@pytest.mark.parametrize("down", [Down, Down2])
def test_a_client_that_closes_its_side_is_still_answered_what_is_no_stream_of_events(down: type[Down]) -> None:
    world, client, origin = begun(down, Up, kind=b"text/plain")
    client.closes()
    assert not world.access
    origin.says(b"a")
    assert client.got() == b"a"
    origin.ends()
    assert reasons(world) == [""]
    ends(world)


@pytest.mark.parametrize("down", [Down, Down2])
def test_a_client_that_has_closed_its_side_before_gets_the_stream(down: type[Down]) -> None:
    """`printf 'GET ...' | nc` does: nobody knows what is coming then; who has left resets what is sent to it."""
    world = played()
    client = down(world)
    origin = Up(world)
    client.closes()
    origin.begins()
    client.got_head()
    origin.says(b"data: a\n\n")
    assert client.got() == b"data: a\n\n"
    world.resets(client.conn)
    assert reasons(world) == ["client_gone"]
    assert origin.is_told
    ends(world)


@ups
@downs
def test_an_origin_that_dies_is_seen_as_a_cut(down: type[Down], up: type[Up]) -> None:
    world, client, origin = begun(down, up, SeesLater())
    origin.says(b"data: a\n\ndata: half")
    assert client.got() == b"data: a\n\n"
    world.resets(origin.conn)
    assert reasons(world) == ["upstream_reset"]
    client.is_cut()
    leave(world, client)


@ups
@downs
def test_a_drain_cuts_a_stream_that_does_not_end_when_its_grace_is_over(down: type[Down], up: type[Up]) -> None:
    world, client, origin = begun(down, up)
    world.gives(Drain(30))
    world.sent(client.conn)  # by HTTP/2, that it is to ask for no more
    lasts(world, origin, 29)
    origin.says(b"data: still\n\n")
    assert b"data: still\n\n" in world.sent(client.conn)
    assert not world.access
    lasts(world, origin, 2)
    assert reasons(world) == ["shutting_down"]
    client.is_cut()
    assert origin.conn in world.closed
    ends(world)


# ------------------------------------------------------------------------------------------------- long polling


@pytest.mark.parametrize("up", [Up, Up2])
@downs
def test_an_answer_that_takes_its_time(down: type[Down], up: type[Up]) -> None:
    world = played(peers=(peer(transport=up.transport),), timeouts=Timeouts(answer_timeout_s=600))
    client = down(world)
    origin = up(world)
    lasts(world, origin, 590)
    assert not world.access
    assert world.sent(client.conn) == b""
    origin.begins(b"text/plain")
    client.got_head()
    origin.says(b"news")
    assert client.got() == b"news"
    origin.ends()
    client.got_end()
    assert world.access[0].first_byte_s >= 590
    leave(world, client)


@pytest.mark.parametrize("up", [Up, Up2])
@downs
def test_a_client_that_leaves_before_its_answer_has_begun(down: type[Down], up: type[Up]) -> None:
    world = played(peers=(peer(transport=up.transport),))
    client = down(world)
    origin = up(world)
    lasts(world, origin, 50)
    world.resets(client.conn)
    assert reasons(world) == ["client_gone"]
    assert origin.is_told
    ends(world)


@pytest.mark.parametrize("wanted", [True, False])
@downs
def test_whether_its_fin_is_its_leaving_then_is_for_the_configuration(down: type[Down], wanted: bool) -> None:
    config = Config(cancel_on_half_close=wanted)
    world = played(config=config)
    client = down(world)
    origin = Up(world)
    client.closes()
    assert origin.is_told is wanted
    if not wanted:
        origin.begins(b"text/plain")
        origin.says(b"a")
        assert b"a" in world.sent(client.conn)
        origin.ends()
    assert reasons(world) == ["client_gone" if wanted else ""]
    ends(world)
