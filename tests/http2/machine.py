"""A machine in a played world, with origins behind it, and a `Wire` to it: see `talk.py`.

Origins take a step whenever the client's bytes have all been delivered, and not between two pieces of them: so what
becomes of a case does not depend on how it is cut. Time passes only while the client waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from coulee.core import Config, Forwarding, Proxy
from coulee.lb import Cluster
from tests.core.world import LISTENER, World
from tests.http2.origin import Asked, Origin

TICK_S = 0.1
READ_BYTES = 65536  # what an origin's socket gives at once
PLAIN = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False))

Delivery = Callable[[bytes], Iterator[bytes]]


def whole(raw: bytes) -> Iterator[bytes]:
    """All at once."""
    yield raw


def bytewise(raw: bytes) -> Iterator[bytes]:
    """Each byte by itself; of what is long the middle goes in pieces, of a prime length so that no frame fits."""
    middle = max(len(raw) - 100, 1000)
    yield from (raw[at : at + 1] for at in range(min(1000, len(raw))))
    yield from (raw[at : min(at + 997, middle)] for at in range(1000, middle, 997))
    yield from (raw[at : at + 1] for at in range(middle, len(raw)))


def split(raw: bytes) -> Iterator[bytes]:
    """At places that are drawn by what it is."""
    rng = Random(raw)
    cuts = sorted(rng.randrange(len(raw) + 1) for _ in range(min(len(raw), rng.randrange(1, 8))))
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        if start < end:
            yield raw[start:end]


class MachineWire:
    """From a client to a machine that it has for itself."""

    def __init__(self, delivery: Delivery = whole, config: Config = PLAIN, *, origin: bool = True) -> None:
        proxy = Proxy(Cluster("http://10.0.0.1"), config=config)
        self.world = World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER]))
        self.conn = self.world.client()
        self.asked: list[Asked] = []
        self._delivery = delivery
        self.answers = origin  # or the addresses of origins are silent
        self._origins: dict[int, Origin] = {}
        self._unread: dict[int, bytes] = {}  # of what origins have said
        self._waiting = b""  # while the machine does not read

    @property
    def closed(self) -> bool:
        return self.conn in self.world.closed

    def send(self, raw: bytes) -> None:
        self._waiting += raw
        self._settle()

    def receive(self, patience_s: float) -> bytes:
        until = self.world.now + patience_s
        while not (raw := self.world.sent(self.conn)) and not self.closed and self.world.now < until:
            self.world.wait(TICK_S)
            self._settle()
        return raw

    def go(self) -> None:
        """The origins answer what they have held."""
        for conn, origin in self._origins.items():
            self._unread[conn] += origin.go()
        self._settle()

    def end(self) -> None:
        """Nothing may be left, though the client stays for as long as it may."""
        self.answers = False
        self.world.leaves_nothing()

    def _settle(self) -> None:
        """Until nobody has anything to say."""
        while True:
            if self._deliver() or (self.answers and self._origins_step()):
                continue
            return

    def _deliver(self) -> bool:
        if not self._waiting or self.closed or not self.world.reading.get(self.conn):
            return False
        raw, self._waiting = self._waiting, b""
        pieces = self._delivery(raw)
        for piece in pieces:
            self.world.receives(self.conn, piece)
            if self.closed or not self.world.reading[self.conn]:
                self._waiting = b"".join(pieces) + self._waiting
                break
        return True

    def _origins_step(self) -> bool:
        acted = False
        while self.world.connecting:
            conn = self.world.connects()
            self._origins[conn], self._unread[conn] = Origin(self.asked), b""
            acted = True
        for conn, origin in self._origins.items():
            if raw := self.world.sent(conn):
                self._unread[conn] += origin.feed(raw)
            if conn not in self.world.closed and self.world.reading[conn] and self._unread[conn]:
                raw, self._unread[conn] = self._unread[conn][:READ_BYTES], self._unread[conn][READ_BYTES:]
                self.world.receives(conn, raw)
                acted = True
        return acted
