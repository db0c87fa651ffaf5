"""An origin of HTTP/2 that says whatever a test wants to a coulee that is its client, and watches that coulee keeps the
rules; and the clients of HTTP/1.1 for which it asks.

    stage = Stage()
    stage.asks()                              # a GET comes to coulee, and goes on to the origin
    stage.origin.send(headers(1, answer()))
    assert stage.gets().whole
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import h11

from coulee.core import Config, Proxy, Retry
from coulee.lb import Cluster
from tests.core.world import LISTENER, World
from tests.http2 import frames as f
from tests.http2.frames import Frame, Pairs
from tests.http2.machine import PLAIN, TICK_S, Delivery, whole
from tests.http2.talk import CONNECTION_SPECIFIC, Answer, Talk

ONCE = replace(PLAIN, retry=Retry(retries_max=0))
PSEUDO = {":method", ":scheme", ":authority", ":path"}


class OriginWire:
    """From an origin to a machine."""

    def __init__(self, world: World, conn: int, delivery: Delivery) -> None:
        self.world = world
        self.conn = conn
        self._delivery = delivery

    @property
    def closed(self) -> bool:
        return self.conn in self.world.closed

    def send(self, raw: bytes) -> None:
        for piece in self._delivery(raw):
            if not self.closed:
                self.world.receives(self.conn, piece)

    def receive(self, patience_s: float) -> bytes:
        until = self.world.now + patience_s
        while not (raw := self.world.sent(self.conn)) and not self.closed and self.world.now < until:
            self.world.wait(TICK_S)
        return raw

    def go(self) -> None:
        raise NotImplementedError("it is the origin")


class Served(Talk):
    """The origin's side of a connection. What it is asked is in `answers`, by streams."""

    def __init__(self, wire: OriginWire) -> None:
        super().__init__(wire)
        self.origin = wire
        self._begun = b""

    def close(self) -> None:
        """The origin sends no more."""
        if not self.origin.closed:
            self.origin.world.receives(self.origin.conn, b"")

    def wait(self, seconds: float) -> None:
        """Time passes, and what comes meanwhile is looked at."""
        self.origin.world.wait(seconds)
        self.until(lambda: False, 0)

    def begin(self, values: dict[int, int] | None = None) -> None:
        """What each side has to say about itself."""
        self.until(lambda: bool(self.frames))
        self.send(f.settings(values or {}))
        self.send(f.settings(ack=True))

    def _take(self, raw: bytes) -> None:
        if len(self._begun) < len(f.PREFACE):
            missing = len(f.PREFACE) - len(self._begun)
            self._begun += raw[:missing]
            assert f.PREFACE.startswith(self._begun), f"no preface: {self._begun!r} (3.4)"
            raw = raw[missing:]
        super()._take(raw)

    def _keeps_the_rules(self, each: Frame) -> None:
        super()._keeps_the_rules(each)
        if each.type == f.HEADERS and not each.flags & f.WITH_PRIORITY:
            newer = [stream for stream in self.answers if stream > each.stream]
            assert not newer or self.answers[each.stream].head, "a number below one that was used (5.1.1)"

    def _settings(self, each: Frame) -> None:
        super()._settings(each)
        if not each.acks and len(self.frames) == 0:
            assert each.values.get(f.ENABLE_PUSH) == 0, "it takes pushes, which nobody wants (8.4)"

    def _field_list(self, answer: Answer, pairs: Pairs, ends: bool) -> None:
        names = [name for name, _ in pairs]
        assert all(name == name.lower() for name in names), names
        assert CONNECTION_SPECIFIC.isdisjoint(set(names) - {"te"}), f"{names} (8.2.2)"
        assert all(value == "trailers" for name, value in pairs if name == "te"), f"{pairs} (8.2.2)"
        answer.ended = ends
        if answer.head is None:
            pseudo = [name for name in names if name.startswith(":")]
            assert names[: len(pseudo)] == pseudo, f"{names} (8.3)"
            assert sorted(pseudo) == sorted(PSEUDO), f"{names} (8.3.1)"
            answer.head = pairs
        else:
            assert ends, "trailers that are not the end (8.1)"
            assert not any(name.startswith(":") for name in names), f"{names} in trailers (8.1)"
            answer.trailers = pairs


@dataclass
class Got:
    """What a client of HTTP/1.1 was given."""

    status: int = 0
    body: bytes = field(default=b"", repr=False)
    whole: bool = False
    interims: list[int] = field(default_factory=list)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    closed: bool = False

    @property
    def cut(self) -> bool:
        """It has begun, and everybody sees that it is not whole."""
        return self.status > 0 and not self.whole and self.closed


class Stage:
    """A machine between clients of HTTP/1.1 and an origin of HTTP/2."""

    def __init__(self, delivery: Delivery = whole, config: Config = ONCE) -> None:
        proxy = Proxy(Cluster("h2c://10.0.0.1"), config=config)
        self.world = World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER]))
        self.delivery = delivery
        self.clients: list[int] = []
        self.requests: list[bytes] = []

    def asks(self, path: str = "/", *, method: str = "GET", body: bytes = b"", length: int | None = None) -> int:
        """A new client asks; its number is for `gets`. `length` is for a body that does not come whole."""
        conn = self.world.client()
        extra = f"Content-Length: {len(body) if length is None else length}\r\n" if body else ""
        request = f"{method} {path} HTTP/1.1\r\nHost: a\r\n{extra}\r\n".encode() + body
        self.clients.append(conn)
        self.requests.append(method.encode())
        self.world.receives(conn, request)
        return len(self.clients) - 1

    def serves(self, values: dict[int, int] | None = None, *, begins: bool = True) -> Served:
        """The origin takes the connection that coulee wants."""
        served = Served(OriginWire(self.world, self.world.connects(), self.delivery))
        if begins:
            served.begin(values)
        else:
            served.until(lambda: bool(served.frames))
        return served

    def gets(self, client: int = 0, patience_s: float = 0.0) -> Got:
        """What one of the clients has by now."""
        if patience_s:
            self.world.wait(patience_s)
        conn = self.clients[client]
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method=self.requests[client], target="/", headers=[("Host", "a")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(self.world.outbox.get(conn, b""))
        got = Got(closed=conn in self.world.closed)
        if got.closed or conn in self.world.eofs:
            reader.receive_data(b"")
        while True:
            try:
                event = reader.next_event()
            except h11.RemoteProtocolError:
                return got  # it was cut
            if isinstance(event, h11.InformationalResponse):
                got.interims.append(event.status_code)
            elif isinstance(event, h11.Response):
                got.status = event.status_code
            elif isinstance(event, h11.Data):
                got.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                got.whole = True
                got.trailers = list(event.headers)
            else:
                return got


def answer(status: str = "200", *extra: tuple[str, str]) -> bytes:
    """The block of an answer."""
    return f.fields([(":status", status), *extra])
