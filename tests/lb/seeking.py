"""A proxy that does nothing but keep the endpoints of a source, in a world that is played by hand; and what that world
needs to be a name server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import isawaitable
from random import Random
from struct import pack, unpack_from
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from coulee.core.kernel import Task
from coulee.core.peer import Balancer
from coulee.core.proxy import Proxy
from coulee.lb.discovery import Finder, Found, Source
from coulee.lb.endpoint import Endpoint
from tests.core.world import World


class Seeker(Balancer):
    """A host for a finder: it writes down which sets it got, and what was said."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.sets: list[list[Endpoint]] = []
        self.told: list[float] = []
        """When."""
        self.said: list[str] = []
        self.refuses: Exception | None = None
        self.task: Task | None = None
        self.rng = Random(0)
        self.proxy: Proxy | None = None

    @property
    def now(self) -> float:
        assert self.proxy is not None
        return self.proxy.kernel.now

    def start(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.rng = proxy.rng
        self.task = proxy.kernel.start(Finder(self.source, self).run())

    async def replace(self, endpoints: Sequence[Endpoint]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.sets.append(list(endpoints))
        self.told.append(self.now)

    def discovery_failed(self, text: str) -> None:
        self.said.append(text)

    def discovery_recovered(self, text: str) -> None:
        self.said.append(text)

    @property
    def names(self) -> list[list[str]]:
        """The names in each set."""
        return [[endpoint.name for endpoint in each] for each in self.sets]

    def stops(self) -> None:
        """Nobody wants to know any more."""
        assert self.task is not None
        self.task.cancel()


class Scripted:
    """A source that gives, or raises, one thing after another, the last for ever; it notes when it was asked."""

    def __init__(
        self, *answers: Any, interval_s: float = 10.0, timeout_s: float | None = 5.0, valid_s: float | None = None
    ) -> None:
        self.answers = list(answers)
        self.name = "script"
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self.valid_s = valid_s
        self.asked: list[float] = []
        self.clock: Callable[[], float] = lambda: 0.0

    def fresh(self) -> Scripted:
        return self

    async def find(self) -> Found:
        self.asked.append(self.clock())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Found):
            return answer
        if isawaitable(answer):
            await answer
            return Found([Endpoint("http://late")])
        return Found([Endpoint(each) for each in answer], self.valid_s)


def seeking(source: Source) -> tuple[World, Seeker]:
    """A world in which a source is asked, for the first time."""
    seeker = Seeker(source)
    world = World(Proxy(seeker, rng=Random(7)))
    if isinstance(source, Scripted):
        source.clock = lambda: world.now
    world.gives(None)
    return world, seeker


class NameServer:
    """Answers from a zone, as `{"a.internal A": ["60 10.0.0.1"]}`: TTL and content; a text is a response code. Names
    that are not in it do not exist, unless they have another type."""

    def __init__(self, world: World, zone: dict[str, list[str] | str], *, beside: Sequence[str] = ()) -> None:
        self.world = world
        self.zone = zone
        self.beside = beside
        """Records of the additional section, whole."""
        self.asked: list[str] = []
        self.unread = b""

    def serves(self, conn: int) -> None:
        """Answer all that comes on a connection, in one piece."""
        while queries := self.queries(conn):
            self.world.receives(conn, b"".join(framed(self.answer(query).to_wire()) for query in queries))

    def queries(self, conn: int) -> list[dns.message.Message]:
        """What was asked on a connection since the last call."""
        data = self.world.sent(conn)
        found: list[dns.message.Message] = []
        while data:
            (length,) = unpack_from("!H", data)
            found.append(dns.message.from_wire(data[2 : 2 + length]))
            data = data[2 + length :]
        return found

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        """What the zone has."""
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        key = f"{name} {question.rdtype.name}"
        self.asked.append(key)
        answer = dns.message.make_response(query, recursion_available=True)
        found = self.zone.get(key)
        if isinstance(found, str):
            answer.set_rcode(dns.rcode.from_text(found))
        elif found is not None:
            for line in found:
                owner, kind = name, question.rdtype.name
                words = line.split(" ", 1)
                if words[0].isdigit():
                    ttl, content = words
                else:  # a whole record, of another name or type
                    owner, ttl, kind, content = line.split(" ", 3)
                add(answer.answer, f"{owner} {ttl} {kind} {content}")
        elif not any(each.startswith(f"{name} ") for each in self.zone):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        for record in self.beside:
            add(answer.additional, record)
        return answer


def add(section: list[dns.rrset.RRset], record: str) -> None:
    """`a.internal 60 A 10.0.0.1`, beside others of its name and type."""
    owner, ttl, kind, content = record.split(" ", 3)
    rrset = dns.rrset.from_text(f"{owner}.", int(ttl), "IN", kind, content)
    for each in section:
        if each.match(rrset.name, rrset.rdclass, rrset.rdtype, rrset.covers):
            each.add(rrset[0])
            return
    section.append(rrset)


def framed(message: bytes) -> bytes:
    """With its length before it."""
    return pack("!H", len(message)) + message
