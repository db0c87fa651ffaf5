"""Clients and origins of both versions over one proxy, in any sequence of events, against a small model of it.

What holds: every request has one access record; each gets its own answer, whole or visibly cut; no window is overrun;
and at the end nothing is left.
"""

from __future__ import annotations

import re
from collections import deque

from hpack import Decoder
from hypothesis import settings as run_with
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from coulee.core import Limits, Retry, Timeouts
from coulee.core.config import Http2
from coulee.core.peer import PeerLimits
from coulee.core.seam import Blocked, Sent
from coulee.core.transport import Transport
from tests.core.http2_ends import ends, peer, played, proxy_of
from tests.http2 import frames as h2
from tests.http2.frames import Code, Frame, cut, data, fields, goaway, headers, ping, rst, settings, window_update

LIMITS = Limits(replay_bytes_max=100, connections_per_peer_max=3, pool_waiters_max=3, requests_per_connection_max=30)
HTTP2 = Http2(streams_max=5, upstream_streams_max=4, glitches_max=1000, resets_max=1000)


class _Flow:
    """How much the proxy may send to an end that has said what its windows are."""

    def __init__(self, initial: int) -> None:
        self.initial = initial
        self.connection = h2.WINDOW
        self.streams: dict[int, int] = {}

    def takes(self, stream: int, size: int) -> None:
        self.connection -= size
        left = self.streams.get(stream, self.initial) - size
        self.streams[stream] = left
        assert self.connection >= 0, "the connection's window is overrun"
        assert not size or left >= 0, "a stream's window is overrun"


class _End:
    """One end of a connection of HTTP/2, and what it has heard by stream: the head, the body, and how it ended."""

    def __init__(self, conn: int, window: int) -> None:
        self.conn = conn
        self.flow = _Flow(window)
        self.decoder = Decoder()
        self.rest = b""
        self.heads: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: dict[int, str] = {}
        self.taken_back: set[int] = set()  # streams that this end has reset: more of them may be on its way
        self.gone = False

    def hears(self, sent: bytes) -> list[Frame]:
        found, self.rest = cut(self.rest + sent)
        for each in found:
            if each.type in (h2.HEADERS, h2.DATA):
                assert each.stream not in self.ended or each.stream in self.taken_back, each
            if each.type == h2.HEADERS:
                pairs = {name.decode(): value.decode() for name, value in self.decoder.decode(each.content, raw=True)}
                self.heads.setdefault(each.stream, pairs)
            elif each.type == h2.DATA:
                assert each.stream in self.heads, "DATA before its head"
                self.flow.takes(each.stream, len(each.payload))
                self.bodies[each.stream] = self.bodies.get(each.stream, b"") + each.content
            elif each.type == h2.RST_STREAM:
                self.ended[each.stream] = self.ended.get(each.stream) or each.code.name
            elif each.type == h2.GOAWAY and each.code != Code.NO_ERROR:
                raise AssertionError(f"nobody has broken a rule: {each}")
            if each.ends:
                self.ended[each.stream] = "whole"
        return found


class _Origin(_End):
    """... which answers."""

    def __init__(self, conn: int, window: int) -> None:
        super().__init__(conn, window)
        self.begun: dict[int, int] = {}  # the request of each stream that is being answered
        self.last = 2**31 - 1


class Proxying(RuleBasedStateMachine):
    """See the top."""

    def __init__(self) -> None:
        super().__init__()
        origins = (
            peer("a", limits=PeerLimits(connections_max=2)), peer("b", Transport()), peer("c")
        )  # fmt: skip
        timeouts = Timeouts(answer_timeout_s=30, upstream_idle_timeout_s=30, connect_timeout_s=50)
        self.world = played(peers=origins, limits=LIMITS, http2=HTTP2, timeouts=timeouts, retry=Retry(retries_max=2))
        self.world.gives(None)
        self.asked = 0  # requests so far, each with a number of its own
        self.clients: list[_End] = []
        self.next_stream: dict[int, int] = {}
        self.numbers: dict[tuple[int, int], int] = {}  # the request of a client's stream
        self.answers: dict[int, list[str]] = {}  # the bodies that were begun for a request, as far as they came
        self.plain: dict[int, int] = {}  # clients of HTTP/1.1, and the request of each
        self.heard: dict[int, bytes] = {}
        self.origins: dict[int, _Origin] = {}
        self.plain_origins: dict[int, deque[int]] = {}
        self.blocked: set[int] = set()
        self.unheard: set[int] = set()

    # -- what is true after each event

    def look(self) -> None:
        world = self.world
        for client in self.clients:
            if not client.gone:
                client.hears(world.sent(client.conn))
                client.gone = client.conn in world.closing
        for conn in self.plain:
            self.heard[conn] = self.heard.get(conn, b"") + world.sent(conn)
        for conn, origin in self.origins.items():
            if not origin.gone:
                origin.hears(world.sent(conn))
                origin.gone = conn in world.closing
        for conn, waiting in self.plain_origins.items():
            waiting.extend(map(int, re.findall(rb" /(\d+) HTTP/1.1\r\n", world.sent(conn))))
        for client in self.clients:
            for stream, head in client.heads.items():
                self._is_its_own(self.numbers[client.conn, stream], head[":status"], client, stream)

    def _is_its_own(self, number: int, status: str, client: _End, stream: int) -> None:
        if status != "200":
            return
        body = client.bodies.get(stream, b"").decode()
        begun = self.answers[number]
        if client.ended.get(stream) == "whole":
            assert f"{body}." in begun, (number, body, begun)
        else:
            assert any(each.startswith(body) for each in begun), (number, body, begun)

    def give(self, conn: int, *sent: bytes) -> None:
        if self.world.reading.get(conn) and conn not in self.world.closed:
            self.world.receives(conn, b"".join(sent))
        self.look()

    # -- clients

    @rule(window=st.sampled_from([0, 3, 65535]))
    def comes(self, window: int) -> None:
        if len(self.clients) < 4 and self.world.credits:
            client = _End(self.world.client(), window)
            self.clients.append(client)
            self.next_stream[client.conn] = 1
            self.give(client.conn, h2.PREFACE, settings({h2.INITIAL_WINDOW_SIZE: window}), settings(ack=True))

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 3), method=st.sampled_from(["GET", "POST", "unfinished"]), count=st.integers(1, 3))
    def asks(self, which: int, method: str, count: int) -> None:
        client = self.clients[which % len(self.clients)]
        if client.gone or not self.world.reading.get(client.conn):
            return
        deaf = client.conn in self.world.eofs or client.conn in self.blocked  # it may have ended, and not said so yet
        sent: list[bytes] = []
        for _ in range(count):
            stream = self.next_stream[client.conn]
            self.next_stream[client.conn] += 2
            self.asked += 1
            self.numbers[client.conn, stream] = self.asked
            self.answers[self.asked] = []
            if deaf:
                self.unheard.add(self.asked)
            if method == "GET":
                sent.append(headers(stream, h2.get(f"/{self.asked}")))
            else:
                sent.append(headers(stream, h2.post(f"/{self.asked}"), end=False))
                sent.append(data(stream, b"x" * 50, end=method == "POST"))
        self.give(client.conn, *sent)

    @rule()
    def asks_by_http1(self) -> None:
        if len(self.plain) < 4 and self.world.credits:
            conn = self.world.client()
            self.asked += 1
            self.plain[conn] = self.asked
            self.answers[self.asked] = []
            self.give(conn, b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % self.asked)

    @precondition(lambda self: self.clients)
    @rule(
        which=st.integers(0, 3),
        back=st.integers(1, 4),
        what=st.sampled_from(["reset", "window", "wide", "end", "ping"]),
    )
    def goes_on(self, which: int, back: int, what: str) -> None:
        client = self.clients[which % len(self.clients)]
        stream = self.next_stream[client.conn] - 2 * back
        if client.gone or stream < 1 or (what != "ping" and client.ended.get(stream)):
            return
        if not self.world.reading.get(client.conn):
            return
        if what == "reset":
            client.ended[stream] = "CANCEL"
            client.taken_back.add(stream)
            self.give(client.conn, rst(stream))
        elif what == "window":
            client.flow.streams[stream] = client.flow.streams.get(stream, client.flow.initial) + 2
            self.give(client.conn, window_update(stream, 2))
        elif what == "wide":
            client.flow.streams[stream] = client.flow.streams.get(stream, client.flow.initial) + 1000
            client.flow.connection += 1000
            self.give(client.conn, window_update(0, 1000), window_update(stream, 1000))
        elif what == "ping":
            self.give(client.conn, ping())

    # -- origins

    @precondition(lambda self: self.world.connecting)
    @rule(refused=st.integers(0, 9), window=st.sampled_from([0, 3, 65535]), most=st.sampled_from([1, 2, 100]))
    def connect(self, refused: int, window: int, most: int) -> None:
        while self.world.connecting:
            self.connects(not refused, window, most)

    def connects(self, refused: bool, window: int, most: int) -> None:
        address = self.world.connecting[0].address
        assert isinstance(address, tuple)
        if refused:
            self.world.refuses()
        elif address[0].endswith(str(ord("b"))):
            self.plain_origins[self.world.connects()] = deque()
        else:
            conn = self.world.connects()
            self.origins[conn] = origin = _Origin(conn, h2.WINDOW)
            sent = self.world.sent(conn)
            assert sent.startswith(h2.PREFACE) or not sent
            origin.hears(sent[len(h2.PREFACE) :])
            origin.flow.initial = window
            for stream in origin.flow.streams:
                origin.flow.streams[stream] += window - h2.WINDOW
            values = {h2.INITIAL_WINDOW_SIZE: window, h2.MAX_CONCURRENT_STREAMS: most}
            self.give(conn, settings(values), settings(ack=True))
        self.look()

    @precondition(lambda self: any(not origin.gone and origin.heads for origin in self.origins.values()))
    @rule(
        pick=st.integers(0, 50),
        what=st.sampled_from(["begins", "goes on", "ends", "ends", "refuses", "resets", "window"]),
    )
    def answers_one(self, pick: int, what: str) -> None:
        live = [(each, stream) for each in self.origins.values() if not each.gone for stream in each.heads]
        self.answers_of(*live[pick % len(live)], what)

    def answers_of(self, origin: _Origin, stream: int, what: str) -> None:
        over = origin.gone or stream > origin.last or origin.begun.get(stream, 0) < 0
        if over or origin.ended.get(stream) not in (None, "whole"):
            return
        number = int(origin.heads[stream][":path"][1:])
        content = b"<%d>" % number
        if what == "window":
            origin.flow.streams[stream] = origin.flow.streams.get(stream, origin.flow.initial) + 100
            self.give(origin.conn, window_update(stream, 100))
        elif what in ("refuses", "resets"):
            if what == "refuses" and stream in origin.begun:
                return
            origin.begun[stream] = -1
            origin.ended[stream] = "RST"
            origin.taken_back.add(stream)
            self.give(origin.conn, rst(stream, Code.REFUSED_STREAM if what == "refuses" else Code.INTERNAL_ERROR))
        else:
            sent: list[bytes] = []
            if stream not in origin.begun:
                origin.begun[stream] = len(self.answers[number])
                self.answers[number].append("")
                sent.append(headers(stream, fields([(":status", "200")]), end=False))
            if what != "begins":
                self.answers[number][origin.begun[stream]] += content.decode()
                sent.append(data(stream, content, end=what == "ends"))
            if what == "ends":
                self.answers[number][origin.begun[stream]] += "."
                origin.begun[stream] = -1
            self.give(origin.conn, *sent)

    @precondition(lambda self: any(self.plain_origins.values()))
    @rule(pick=st.integers(0, 5), whole=st.booleans())
    def answers_by_http1(self, pick: int, whole: bool) -> None:
        waiting = [conn for conn, numbers in self.plain_origins.items() if numbers]
        conn = waiting[pick % len(waiting)]
        number = self.plain_origins[conn].popleft()
        content = b"<%d>" % number
        if conn in self.world.closed:
            return
        if whole:
            self.answers[number].append(content.decode() + ".")
            self.give(conn, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))
        else:
            self.answers[number].append(content.decode())
            self.give(
                conn, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(content), content)
            )
            if conn not in self.world.closed:
                self.world.resets(conn)
        self.look()

    @precondition(lambda self: self.origins)
    @rule(pick=st.integers(0, 5), how=st.sampled_from(["goaway", "closes", "gone"]))
    def origin_leaves(self, pick: int, how: str) -> None:
        live = [origin for origin in self.origins.values() if not origin.gone]
        if not live:
            return
        origin = live[pick % len(live)]
        if how == "goaway":
            origin.last = min(origin.last, max(origin.begun, default=0))
            self.give(origin.conn, goaway(origin.last))
        elif how == "closes":
            origin.gone = True
            self.give(origin.conn, b"")
        else:
            origin.gone = True
            self.world.resets(origin.conn)
        self.look()

    # -- transports and time

    @rule(pick=st.integers(0, 20))
    def blocks(self, pick: int) -> None:
        live = [conn for conn in self.world.reading if conn not in self.world.closed and conn not in self.blocked]
        if live:
            conn = live[pick % len(live)]
            self.blocked.add(conn)
            self.world.gives(Blocked(conn))
            self.look()

    @rule()
    def unblocks(self) -> None:
        for conn in sorted(self.blocked):
            if conn not in self.world.closed:
                self.world.gives(Sent(conn))
        self.blocked.clear()
        self.look()

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 3), how=st.sampled_from(["closes", "gone"]))
    def leaves(self, which: int, how: str) -> None:
        client = self.clients[which % len(self.clients)]
        if client.gone or client.conn in self.world.closed:
            return
        if how == "closes":
            self.give(client.conn, b"")
        else:
            client.gone = True
            self.world.resets(client.conn)
        self.look()

    @rule(seconds=st.sampled_from([0.01, 0.1, 1.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.wait(seconds)
        self.look()

    def _finish(self) -> None:
        """No more faults: whatever can be answered is."""
        for _ in range(10):
            self.connect(1, h2.WINDOW, 100)
            for origin in list(self.origins.values()):
                for stream in list(origin.heads):
                    self.answers_of(origin, stream, "window")
                    self.answers_of(origin, stream, "ends")
            while any(self.plain_origins.values()):
                self.answers_by_http1(0, True)
            for which, client in enumerate(self.clients):
                for back in range((self.next_stream[client.conn] - 1) // 2):
                    self.goes_on(which, back + 1, "wide")

    def teardown(self) -> None:
        self.unblocks()
        self._finish()
        self.world.wait(400)
        self.look()
        for conn, number in self.plain.items():
            head, _, body = self.heard[conn].partition(b"\r\n\r\n")
            if b"200 OK" in head and b"chunked" not in head.lower():
                assert not body or f"{body.decode()}." in self.answers[number] or len(body) < len(f"<{number}>")
        recorded = [int(record.target[1:]) for record in self.world.access]
        assert len(set(recorded)) == len(recorded) == proxy_of(self.world).counters.requests
        unread = set(self.answers) - set(recorded)
        refused = {self.numbers[client.conn, stream] for client in self.clients
                   for stream, code in client.ended.items() if code == "REFUSED_STREAM"}  # fmt: skip
        assert unread <= refused | self.unheard, "each request has a record, unless it was refused"
        assert not refused & set(recorded)
        ends(self.world)


TestProxying = Proxying.TestCase
TestProxying.settings = run_with(deadline=None, max_examples=60, stateful_step_count=40)
