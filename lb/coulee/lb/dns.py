"""Endpoints from DNS: the addresses of a name (A and AAAA), or of a service (SRV, RFC 2782), as a name server has them.

Rules:

- It is asked over TCP from the start (RFC 7766): an answer of any length is whole, and who cannot see the connection
  cannot forge one. A look-up is one connection; questions that do not depend on each other are asked together.
- An answer counts only if its number and its question are those that were asked (RFC 5452 section 9.1).
- Servers are asked in turn, until one has an answer. That there is no such name is one; SERVFAIL and silence are none.
- Half of an answer is none: where A is answered and AAAA is not, what was found before is kept.
- It is asked again when the shortest TTL on the way has run out, within `ttl_min_s` and `ttl_max_s`.
- Whatever a server sends, all that is raised is `DiscoveryError`.

Messages are dnspython's: install `coulee[dns]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from struct import pack, unpack
from typing import Any, Final, Literal, Required, Self, TypeAlias, TypedDict, Unpack, get_args

from coulee.core.dial import Line, dial
from coulee.core.errors import ExchangeError
from coulee.core.kernel import DeadlineExceeded, current_kernel, deadline
from coulee.core.peer import Peer, PoolKey
from coulee.lb.discovery import DiscoveryError, Found, check_times
from coulee.lb.endpoint import Endpoint

try:
    import dns.exception
    import dns.flags
    import dns.message
    import dns.name
    import dns.rcode
    import dns.rdataclass
    import dns.rdatatype
except ModuleNotFoundError as error:
    raise ImportError('Dns needs: pip install "coulee[dns]"') from error

Kind: TypeAlias = Literal["A", "AAAA", "both"]
Server: TypeAlias = str | tuple[str, int]
"""`"10.0.0.53"`, or with a port `("10.0.0.53", 5353)`."""

Question: TypeAlias = tuple[dns.name.Name, str]
"""A name, and the type of record that is wanted of it."""

PORT: Final = 53

INTERVAL_S: Final = 30.0
"""The longest back-off. How often to ask is otherwise said by the answers."""

CNAMES_MAX: Final = 8
"""Further questions that one chain of aliases may take. A server that recurses has it in its first answer."""

PIPELINED_MAX: Final = 32
"""Questions on their way at once."""


class _Fault(Exception):
    """A server gave no answer that is one. The next may."""


class Settings(TypedDict, total=False):
    """What both kinds of look-up can be told."""

    server: Required[Server | Sequence[Server]]
    """Whom to ask; of several, one after another, until one has an answer."""

    kind: Kind
    """Which addresses. "A" unless it says otherwise."""

    server_timeout_s: float
    """For one server to answer all that is asked of it. 3."""

    ttl_min_s: float
    """Whatever the records say. 1."""

    ttl_max_s: float
    """... and 300."""


class _Lookup:
    """What both kinds of look-up share: whom to ask, for how long, and how long an answer counts."""

    def __init__(
        self,
        name: str,
        *,
        server: Server | Sequence[Server],
        kind: Kind = "A",
        server_timeout_s: float = 3.0,
        ttl_min_s: float = 1.0,
        ttl_max_s: float = 300.0,
    ) -> None:
        check_times(server_timeout_s=server_timeout_s, ttl_min_s=ttl_min_s, ttl_max_s=ttl_max_s)
        if ttl_min_s > ttl_max_s:
            raise ValueError(f"ttl_min_s is {ttl_min_s}, and more than ttl_max_s, which is {ttl_max_s}")
        if kind not in get_args(Kind):
            raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(map(repr, get_args(Kind)))}")
        self.qname = _name_of(name)
        self.host = name
        self.server = server
        self.servers = _servers_of(server)
        self.kind: Kind = kind
        self.kinds = ("A", "AAAA") if kind == "both" else (kind,)
        self.server_timeout_s = server_timeout_s
        self.ttl_min_s = ttl_min_s
        self.ttl_max_s = ttl_max_s
        self.interval_s = INTERVAL_S

    @property
    def name(self) -> str:
        """See `Source`."""
        return f"{self.host} ({' and '.join(self.kinds)})"

    @property
    def timeout_s(self) -> float | None:
        """See `Source`: each server has its time."""
        return self.server_timeout_s * len(self.servers) + 1.0

    def fresh(self) -> Self:
        """The same; it has no state."""
        return self

    async def find(self) -> Found:
        """Ask one server after another, until one has an answer."""
        faults: list[str] = []
        for server in self.servers:
            try:
                with deadline(self.server_timeout_s):
                    async with dial(server, self.server_timeout_s) as line:
                        endpoints, ttl_s = await self.look_up(_Talk(line))
                        return Found(endpoints, min(max(ttl_s, self.ttl_min_s), self.ttl_max_s))
            except DeadlineExceeded:
                faults.append(f"{server.name}: no answer within {self.server_timeout_s:g} s")
            except (ExchangeError, _Fault) as error:
                faults.append(f"{server.name}: {error}")
        raise DiscoveryError(f"{self.name}: {'; '.join(faults)}")

    async def look_up(self, talk: _Talk) -> tuple[list[Endpoint], float]:
        """The endpoints, and for how many seconds they are said to be so."""
        raise NotImplementedError


class Dns(_Lookup):
    """The addresses of a name: `Dns("api.internal", 8080, server=("10.0.0.53", 53))`.

    `server` may be a list, as `coulee.discovery.nameservers()` is. `kind` is "A", "AAAA" or "both"; with "both", a host
    that has addresses of either kind is an endpoint twice. Raises `ValueError`.
    """

    def __init__(self, name: str, port: int = 80, **settings: Unpack[Settings]) -> None:
        super().__init__(name, **settings)
        if not 0 < port < 65536:
            raise ValueError(f"port is {port}; it must be from 1 to 65535")
        self.port = port

    async def look_up(self, talk: _Talk) -> tuple[list[Endpoint], float]:
        records = await talk.resolve([(self.qname, kind) for kind in self.kinds])
        if all(each.is_missing for each in records):
            raise DiscoveryError(f"{self.name}: there is no such name")
        addresses = [address for each in records for address in each.addresses]
        if not addresses:
            raise DiscoveryError(f"{self.name}: there are no such records")
        return [Endpoint((address, self.port)) for address in addresses], min(each.ttl_s for each in records)


class DnsSrv(_Lookup):
    """The servers of a service: `DnsSrv("_http._tcp.api.internal", server=("10.0.0.53", 53))` (RFC 2782).

    The priorities of the records become 0, 1, ... in their order; a weight of 0, which means "hardly ever", becomes 1.
    An endpoint's label `target` is the host that its record named. `kind` is of its addresses. A server with several
    addresses is an endpoint with each of them. Raises `ValueError`.
    """

    @property
    def name(self) -> str:
        """See `Source`."""
        return f"{self.host} (SRV)"

    async def look_up(self, talk: _Talk) -> tuple[list[Endpoint], float]:
        (services,) = await talk.resolve([(self.qname, "SRV")])
        if services.is_missing:
            raise DiscoveryError(f"{self.name}: there is no such name")
        if not services.records:
            raise DiscoveryError(f"{self.name}: there are no such records")
        offered = [record for record in services.records if record.target != dns.name.root and record.port]
        if not offered:
            raise DiscoveryError(f"{self.name}: the service is decidedly not offered there")
        known = await self._addresses(talk, services, [record.target for record in offered])
        ranks = {priority: rank for rank, priority in enumerate(sorted({record.priority for record in offered}))}
        found: dict[PoolKey, Endpoint] = {}
        for record in sorted(offered, key=lambda each: (each.priority, each.target, each.port, -each.weight)):
            for each in known[record.target]:
                for address in each.addresses:
                    endpoint = Endpoint(
                        (address, record.port),
                        weight=max(record.weight, 1),
                        priority=ranks[record.priority],
                        labels={"target": record.target.to_text(omit_final_dot=True)},
                    )
                    found.setdefault(endpoint.key, endpoint)  # two records may lead to one address: the first counts
        if not found:
            raise DiscoveryError(f"{self.name}: no target has an address ({' or '.join(self.kinds)})")
        ttls = [each.ttl_s for several in known.values() for each in several]
        return list(found.values()), min(services.ttl_s, *ttls)

    async def _addresses(
        self, talk: _Talk, services: _Records, targets: Iterable[dns.name.Name]
    ) -> dict[dns.name.Name, list[_Records]]:
        """Those of each target: as they came with its record, or else by asking for them."""
        known: dict[dns.name.Name, list[_Records]] = {target: [] for target in targets}
        wanted: list[Question] = []
        for target, several in known.items():
            for kind in self.kinds:
                beside = services.beside(target, kind)
                if beside is None:
                    wanted.append((target, kind))
                else:
                    several.append(beside)
        for (target, _), records in zip(wanted, await talk.resolve(wanted), strict=True):
            known[target].append(records)
        return known


# ------------------------------------------------------------------------------------------------------------ answers


@dataclass(slots=True)
class _Records:
    """What is known of one name and type."""

    records: list[Any] = field(default_factory=list[Any])
    """dnspython's rdatas, of the type that was asked for."""

    ttl_s: float = inf
    is_missing: bool = False
    """There is no such name."""

    message: dns.message.Message | None = None
    """What it stood in."""

    @property
    def addresses(self) -> list[str]:
        """In one order, whatever the server's is."""
        return sorted(record.address for record in self.records)

    def beside(self, name: dns.name.Name, kind: str) -> _Records | None:
        """What the same message adds about another name, unasked."""
        assert self.message is not None
        rrset = self.message.get_rrset(self.message.additional, name, dns.rdataclass.IN, dns.rdatatype.from_text(kind))
        return None if rrset is None else _Records(list(rrset), rrset.ttl)


class _Talk:
    """Questions and answers on one connection."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._unread = bytearray()

    async def resolve(self, questions: Sequence[Question]) -> list[_Records]:
        """What there is for each question, in their order, aliases followed. Raises `_Fault`."""
        known = [_Records() for _ in questions]
        asked = list(enumerate(questions))
        rounds = 0
        while asked:
            if rounds > CNAMES_MAX:
                raise _Fault(f"an alias of an alias of an alias, and no end after {CNAMES_MAX}")
            rounds += 1
            answers = await self._ask([question for _, question in asked])
            further: list[tuple[int, Question]] = []
            for (index, (_, kind)), answer in zip(asked, answers, strict=True):
                alias = _read(answer, known[index])
                if alias is not None:
                    further.append((index, (alias, kind)))
            asked = further
        return known

    async def _ask(self, questions: Sequence[Question]) -> list[dns.message.QueryMessage]:
        answers: list[dns.message.QueryMessage] = []
        for start in range(0, len(questions), PIPELINED_MAX):
            answers += await self._ask_together(questions[start : start + PIPELINED_MAX])
        return answers

    async def _ask_together(self, questions: Sequence[Question]) -> list[dns.message.QueryMessage]:
        """Send all, then wait for the answers, which may come in any order (RFC 7766 section 7)."""
        rng = current_kernel.get().machine.rng
        numbers = rng.sample(range(65536), len(questions))
        queries = {
            number: dns.message.make_query(name, kind, id=number)
            for number, (name, kind) in zip(numbers, questions, strict=True)
        }
        wires = [query.to_wire() for query in queries.values()]
        await self._line.send(b"".join(pack("!H", len(wire)) + wire for wire in wires))
        answers: dict[int, dns.message.QueryMessage] = {}
        while len(answers) < len(queries):
            answer = _parse(await self._next_message())
            query = queries.get(answer.id)
            if query is None or answer.id in answers or not query.is_response(answer):
                raise _Fault("an answer to what was not asked")
            answers[answer.id] = answer
        return [answers[number] for number in numbers]

    async def _next_message(self) -> bytes:
        """The length in two bytes, then the message (RFC 1035 section 4.2.2)."""
        (length,) = unpack("!H", await self._exactly(2))
        return await self._exactly(length)

    async def _exactly(self, count: int) -> bytes:
        unread = self._unread
        while len(unread) < count:
            data = await self._line.receive()
            if not data:
                raise _Fault("it closed the connection before its answer was whole")
            unread += data
        taken = bytes(unread[:count])
        del unread[:count]
        return taken


def _parse(wire: bytes) -> dns.message.QueryMessage:
    try:
        message = dns.message.from_wire(wire)
    except Exception as error:  # of any kind: the bytes are a stranger's
        raise _Fault(f"an answer that is none ({type(error).__name__})") from None
    if not isinstance(message, dns.message.QueryMessage):
        raise _Fault("an answer that is none")
    if message.flags & dns.flags.TC:
        raise _Fault("a truncated answer")
    return message


def _read(answer: dns.message.QueryMessage, known: _Records) -> dns.name.Name | None:
    """Add to what is known. The alias to ask about next, where the answer ends with one. Raises `_Fault`."""
    rcode = answer.rcode()
    if rcode == dns.rcode.NXDOMAIN:
        known.is_missing = True
        return None
    if rcode != dns.rcode.NOERROR:
        raise _Fault(dns.rcode.to_text(rcode))
    try:
        chain = answer.resolve_chaining()
    except dns.exception.DNSException as error:
        raise _Fault(f"an answer that makes no sense ({type(error).__name__})") from None
    known.message = answer
    if chain.answer is None and chain.cnames:
        known.ttl_s = min(known.ttl_s, *(alias.ttl for alias in chain.cnames))
        return chain.canonical_name
    known.ttl_s = min(known.ttl_s, chain.minimum_ttl)
    known.records = list(chain.answer or ())
    return None


# ---------------------------------------------------------------------------------------------------------- settings


def _name_of(name: str) -> dns.name.Name:
    try:
        return dns.name.from_text(name)
    except dns.exception.DNSException as error:
        raise ValueError(f"{name!r} is no DNS name: {error}") from None


def _servers_of(server: Server | Sequence[Server]) -> list[Peer]:
    several = isinstance(server, list | tuple) and all(isinstance(each, str | tuple) for each in server)
    servers: Sequence[object] = server if several else [server]
    if not servers:
        raise ValueError('there is no name server; write server=("10.0.0.53", 53)')
    return [_peer_of(each) for each in servers]


def _peer_of(server: object) -> Peer:
    match server:
        case str(host):
            return Peer((host, PORT))
        case (str(host), int(port)):
            return Peer((host, port))
        case _:
            raise ValueError(f'{server!r} is no name server; write server=("10.0.0.53", 53)')
