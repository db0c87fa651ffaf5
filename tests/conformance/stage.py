"""Plays a scenario before a backend, and writes down what came of it.

    def a_get_and_its_answer(stage: Stage) -> None:
        client = stage.client(b"GET / HTTP/1.1\\r\\nHost: a.test\\r\\n\\r\\n")
        origin = stage.origin()
        origin.hears(END)
        origin.says(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi")
        client.hears(b"hi")

Rules:

- A scenario is a real proxy and a script of raw bytes. The same script is played on sockets and in the simulator.
- What comes next is said when what it follows from was heard: no script waits for a time. A script ends when all that
  it brings about has happened; what comes later is an error.
- What came of it is a text: the access records without their times, the names of events, all bytes that each client
  and each origin received, and how each connection ended. It is the same on every backend, to the last byte.
- Some things are the system's and no backend's, and stand in that text by a name: ephemeral ports and the client's
  host, the date, what the system says of an error, and how a body was cut into chunks on its way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Final

from coulee.conformance import TCP, Harness, Peer
from coulee.core import Access, Config, Event, Filter, Forwarding, Proxy
from coulee.core import Peer as Endpoint
from coulee.core.seam import (
    Accepted,
    Address,
    Closed,
    Completion,
    Connected,
    ListenAt,
    Machine,
    Operation,
    Received,
    Report,
    show_address,
)
from coulee.lb import Cluster

END: Final = b"\r\n\r\n"
PLAIN: Final = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False))
"""Says nothing about the client, so that what an origin hears is short."""

LINE_SHOWN: Final = 160  # bytes of a line that are shown; of a longer one, its hash

_DATE: Final = re.compile(rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n")
_CHUNKED: Final = re.compile(rb"\r\nTransfer-Encoding: chunked\r\n(?:[^\r\n]+\r\n)*\r\n")
_CHUNK: Final = re.compile(rb"([0-9a-fA-F]+)\r\n")
_CLIENT: Final = re.compile(rb"(X-Forwarded-For: |for=)(?:10\.0\.0\.9|127\.0\.0\.1)")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is played. `records` has the status and reason expected of each request, and the number of attempts where
    that is not one: `502 upstream_reset, 3 attempts`.

    `origins` says what stands at each endpoint: `tcp` or `unix`; or `nobody` or `no path` for one that is down, or
    `silence` for one that answers no connect.
    """

    name: str
    script: Callable[[Stage], None]
    records: tuple[str, ...]
    filters: Sequence[Callable[[], Filter]] = ()
    config: Config = PLAIN
    origins: tuple[str, ...] = ("tcp",)
    listens: str = "tcp"


class Ear:
    """A machine as its backend sees it, and what was said to it and by it. See `seam.Machine`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.records: list[Access] = []
        self.events: list[Event] = []
        self.accepted: set[int] = set()
        self.connected: set[int] = set()
        self.closed = 0  # connections that had stood
        self.heard_bytes = 0  # from clients
        self.systems_words: set[str] = set()  # what it said of errors

    def fresh(self, *, rng: Random, wall_clock_offset_s: float, listen: Sequence[ListenAt]) -> Ear:
        self.machine = self.machine.fresh(rng=rng, wall_clock_offset_s=wall_clock_offset_s, listen=listen)
        return self

    @property
    def deadline(self) -> float | None:
        return self.machine.deadline

    @property
    def finished(self) -> bool:
        return self.machine.finished

    def handle(self, completion: Completion | None, now: float) -> list[Operation]:
        match completion:
            case Accepted():
                self.accepted.add(completion.conn)
            case Connected():
                self.connected.add(completion.conn)
            case Received() if completion.conn in self.accepted:
                self.heard_bytes += len(completion.data)
            case Closed():
                self.closed += completion.conn in self.accepted | self.connected
                self.systems_words.add(completion.detail)
        operations = self.machine.handle(completion, now)
        for operation in operations:
            if isinstance(operation, Report):
                record = operation.record
                (self.records if isinstance(record, Access) else self.events).append(record)  # type: ignore[arg-type]
        return operations


class Player:
    """A client or an origin, at its end of one connection."""

    def __init__(self, stage: Stage, name: str, peer: Peer) -> None:
        self.stage = stage
        self.name = name
        self.peer = peer
        self.heard = 0  # how far the script has come in what was received
        self._seen: tuple[int, bytes] = 0, b""  # how many bytes there were at the last look, and what they say
        self.said_bytes = 0
        self.left = False  # it has closed or reset the connection itself
        self.takes_part_of: bytes | None = None

    # -- what it does

    def says(self, *pieces: bytes) -> None:
        data = b"".join(pieces)
        self.said_bytes += len(data)
        self.peer.write(data)

    def half_closes(self) -> None:
        self.peer.write_eof()

    def closes(self) -> None:
        self.left = True
        self.peer.close()

    def resets(self) -> None:
        self.left = True
        self.peer.reset()

    def stops_reading(self) -> None:
        self.peer.pause()

    def reads_on(self) -> None:
        self.peer.resume()

    # -- what it waits for

    def hears(self, data: bytes) -> None:
        """Wait for these bytes, behind those that were waited for before."""
        if self._missing(data):
            self.stage.until(
                lambda: self.peer.count > self._seen[0] and not self._missing(data),
                f"{self.name} to hear {data[-40:]!r}",
            )
        self.heard = self._seen[1].find(data, self.heard) + len(data)

    def _missing(self, data: bytes) -> bool:
        self._seen = self.peer.count, _join_chunks(self.peer.received)
        return self._seen[1].find(data, self.heard) < 0

    def hears_bytes(self, count: int) -> None:
        """Wait until so many have come in all, so that nobody has to look for the end of much."""
        self.stage.until(lambda: self.peer.count >= count, f"{self.name} to hear {count} bytes")

    def hears_eof(self) -> None:
        """Wait for the end of the stream."""
        self.stage.until(lambda: self.end != "open", f"{self.name} to hear the end")
        assert self.end == "eof", f"{self.name}: {self.end}"

    def hears_reset(self) -> None:
        """Wait until the connection is reset."""
        self.stage.until(lambda: self.end != "open", f"{self.name} to be reset")
        assert self.end == "reset", f"{self.name}: {self.end}"

    def has_part_of(self, data: bytes) -> None:
        """How much the system took on its way is the system's affair. What arrived is a beginning of `data`."""
        assert data.startswith(self.peer.received.partition(END)[2])
        self.takes_part_of = data

    @property
    def end(self) -> str:
        """How the connection has ended, as far as this end can tell."""
        if self.left:
            return "left"
        if self.peer.eof:
            return "eof"
        return "reset" if self.peer.was_reset else "open"


@dataclass
class Place:
    """Where an origin listens, and who has come."""

    name: str
    address: Address
    peers: list[Peer] = field(default_factory=list[Peer])
    taken: int = 0


class Stage:
    """One scenario on one backend."""

    def __init__(self, scenario: Scenario, harness: Harness, wrap: Callable[[Machine], Machine]) -> None:
        self.scenario = scenario
        self.harness = harness
        self.players: list[Player] = []
        self.clients: list[Player] = []
        self.vague: set[str] = set()  # counts of bytes that depend on how much the system takes on their way
        self.places: list[Place] = []
        kinds = list(enumerate(scenario.origins, 1))
        for number, kind in sorted(kinds, key=lambda each: each[1] in ("nobody", "silence")):
            self.places.append(self._place(number, kind))  # those that listen first: a port that is free may be next
        self.places.sort(key=lambda place: place.name)
        proxy = Proxy(
            Cluster(*(Endpoint(place.address, place.name) for place in self.places)),
            [make() for make in scenario.filters],
            scenario.config,
            listen=[TCP if scenario.listens == "tcp" else harness.path()],
        )
        self.ear = Ear(wrap(proxy))
        harness.start(self.ear)
        harness.until(lambda: harness.driver.addresses)
        self.address = harness.driver.addresses[0]

    def _nobody(self) -> Address:
        """An address where nobody listens, and that no other place has: a free port may be offered twice."""
        taken = [place.address for place in self.places]
        address = self.harness.nobody()
        while address in taken:
            address = self.harness.nobody()
        return address

    def _place(self, number: int, kind: str) -> Place:
        harness, name = self.harness, f"origin {number}"
        if kind == "nobody":
            return Place(name, self._nobody())
        if kind == "no path":
            return Place(name, harness.path())
        if kind == "silence":
            free = self._nobody()
            assert isinstance(free, tuple)
            return Place(name, (harness.black_hole(free[1]), free[1]))
        return Place(name, *harness.listen(TCP if kind == "tcp" else harness.path()))

    # -- for scripts

    def client(self, *pieces: bytes) -> Player:
        """A client that connects, and says this."""
        player = Player(self, f"client {len(self.clients) + 1}", self.harness.connect(self.address))
        self.clients.append(player)
        self.players.append(player)
        player.says(*pieces)
        return player

    def origin(self, number: int = 1) -> Player:
        """The next connection that comes to an origin."""
        place = self.places[number - 1]
        self.until(lambda: len(place.peers) > place.taken, f"a connection to {place.name}")
        place.taken += 1
        player = Player(self, f"{place.name}, connection {place.taken}", place.peers[place.taken - 1])
        self.players.append(player)
        return player

    def proxy_has_heard_all(self) -> None:
        """Wait until the proxy has all that clients have said."""
        said = sum(client.said_bytes for client in self.clients)
        self.until(lambda: self.ear.heard_bytes >= said, "the proxy to hear all that was said")

    def proxy_has_lost(self, count: int) -> None:
        """Wait until, in all, so many connections have had their last word at the proxy."""
        self.until(lambda: self.ear.closed >= count, f"{count} connections to end at the proxy")

    def has_records(self, count: int) -> None:
        """Wait for access records."""
        self.until(lambda: len(self.ear.records) >= count, f"{count} access records")

    def drains(self, grace_s: float) -> None:
        """The host wants to stop."""
        self.harness.call(lambda: self.harness.driver.drain(grace_s))

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for it."""
        try:
            self.harness.until(condition)
        except AssertionError as error:
            error.add_note(f"waiting for {what}; so far:\n{self.transcript()}")
            raise

    # -- its end

    def end(self) -> None:
        """Everybody leaves. Nothing more was to happen, and nothing is left of it."""
        before = self.ear.records[:], [len(player.peer.received) for player in self.players]
        for client in self.clients:
            if client.end != "left":
                client.peer.reset() if client.takes_part_of is not None else client.peer.close()
        if not self.harness.driver.draining:
            self.drains(5.0)
        self.harness.until(lambda: self.harness.done)
        after = self.ear.records, [len(player.peer.received) for player in self.players]
        assert before == after, f"the script has ended before its scenario:\n{self.transcript()}"
        left = {kind: count for kind, count in self.harness.driver.outstanding.items() if count}
        assert not left, left
        unseen = [place.name for place in self.places if len(place.peers) > place.taken]
        assert not unseen, f"a connection that the script did not expect: {unseen}"

    def transcript(self) -> str:
        """All that came of it."""
        lines = [f"## {self.scenario.name}", ""]
        events = [event.name for event in self.ear.events if event.name != "listening"]
        for record in self.ear.records:
            lines += self._record(record)
        if events:
            lines.append(f"events: {', '.join(events)}")
        for player in sorted(self.players, key=lambda player: player.name):
            lines += self._received(player)
        return "\n".join(lines) + "\n"

    def _record(self, record: Access) -> list[str]:
        assert record.duration_s >= 0
        assert record.started > 0
        assert (record.first_byte_s >= 0) == (record.status > 0)
        origin = "unix" if isinstance(record.client, str) else "tcp"
        version = "HTTP/{}.{}".format(*record.version)
        counts = [
            f"{name} {'some' if name in self.vague else getattr(record, name)}" for name in ("bytes_in", "bytes_out")
        ]
        lines = [
            f"record: {_short(record.method)} {_short(record.target)} {version} {record.authority or '-'}, by {origin}",
            f"    {record.status}, {', '.join(counts)}, peer {record.peer or '-'}{', reused' * record.reused}",
        ]
        if record.reason:
            lines.append(f"    {self._why(record.reason, record.detail)}")
        for attempt in record.attempts:
            why = f": {self._why(attempt.reason, attempt.detail)}" if attempt.reason else ""
            lines.append(f"    attempt at {attempt.peer}{', reused' * attempt.reused}{why}")
        if record.tags:
            lines.append(f"    tags {record.tags}")
        return lines

    def _why(self, reason: str, detail: str) -> str:
        words = "in the system's words" if detail in self.ear.systems_words else detail
        return f"{reason} ({words})" if detail else reason

    def _received(self, player: Player) -> list[str]:
        if player.takes_part_of is not None:
            head = player.peer.received.partition(END)[0] + END
            return [f"{player.name}, {player.end}, and part of a body:", *_shown(self._named(head))]
        if not player.peer.received:
            return [f"{player.name}, {player.end}"]
        return [f"{player.name}, {player.end}:", *_shown(self._named(player.peer.received))]

    def _named(self, data: bytes) -> bytes:
        """What is the system's, by its name."""
        data = _DATE.sub(b"\r\nDate: (today)\r\n", _join_chunks(data))
        for place in self.places:
            data = data.replace(show_address(place.address).encode(), f"({place.name})".encode())
        return _CLIENT.sub(rb"\1(client)", data)


def play(
    scenario: Scenario,
    harness: Harness,
    *,
    wrap: Callable[[Machine], Machine] = lambda machine: machine,
    at_the_end: Callable[[Stage], None] = lambda stage: None,
) -> str:
    """Play a scenario and give its text. `wrap` may put something of its own around the machine's definition, and
    `at_the_end` look at the stage before all leave it."""
    stage = Stage(scenario, harness, wrap)
    scenario.script(stage)
    stage.has_records(len(scenario.records))
    at_the_end(stage)
    said = tuple(_briefly(record) for record in stage.ear.records)
    assert said == scenario.records, f"{said}\n{stage.transcript()}"
    transcript = stage.transcript()
    stage.end()
    return transcript


def _briefly(record: Access) -> str:
    attempts = f", {len(record.attempts)} attempts" if len(record.attempts) > 1 else ""
    return f"{record.status} {record.reason}".rstrip() + attempts


def _short(text: str) -> str:
    return text if len(text) < LINE_SHOWN else f"{text[:20]}... of {len(text)}"


def _shown(data: bytes) -> list[str]:
    """Lines as they are sent; one that does not end with CR and LF ends with a backslash."""
    lines = data.split(b"\r\n")
    shown = [f"|{_line(line)}" for line in lines[:-1]]
    if lines[-1]:
        shown.append(f"|{_line(lines[-1])}\\")
    return shown


def _line(line: bytes) -> str:
    text = line[:LINE_SHOWN].decode("latin-1").encode("unicode_escape").decode()
    if len(line) <= LINE_SHOWN:
        return text
    return f"{text[:40]}... of {len(line)} bytes, sha256 {sha256(line).hexdigest()[:16]}"


def _join_chunks(data: bytes) -> bytes:
    """The same messages, each chunked body in one chunk: where a body is cut is up to the reads that brought it."""
    pieces: list[bytes] = []
    at = 0
    while (near := data.find(b"\r\nTransfer-Encoding:", at)) >= 0 and (head := _CHUNKED.search(data, near)):
        pieces.append(data[at : head.end()])
        at = head.end()
        body: list[bytes] = []
        while (chunk := _CHUNK.match(data, at)) and int(chunk[1], 16):
            start, size = chunk.end(), int(chunk[1], 16)
            body.append(data[start : start + size])
            at = min(start + size + 2, len(data))
        whole = b"".join(body)
        if whole:
            pieces += [b"%x\r\n" % len(whole), whole, b"\r\n"]
    pieces.append(data[at:])
    return b"".join(pieces)
