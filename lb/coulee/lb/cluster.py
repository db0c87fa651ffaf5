"""A cluster: endpoints, the policy that chooses among them, and all that is known of their health.

    Cluster("http://10.0.0.1:80", Endpoint("http://10.0.0.2:80", weight=3), policy=LeastRequests(),
            health=HealthCheck(Http(path="/health")), breaker=Breaker())

Rules:

- A policy chooses among the endpoints that are `open`; whether one is, is decided here, from what an operator said,
  from checks, from what requests met, and from its circuit. `condition` has the table.
- An endpoint is its address. A new set of endpoints, another weight, a drain: none loses what is known of those that
  stay, and what is in flight at one that leaves is brought to its end.
- Nothing here takes long on an exchange's path: tables are built in slices, between which exchanges go on, and take the
  old ones' place at once.
- The methods for operators are for code that runs in the machine's turns, as filters do.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from math import inf
from random import Random
from typing import TYPE_CHECKING, Final

from coulee.core.errors import ExchangeError
from coulee.core.kernel import AnyCoroutine, Cancelled, Kernel, Task, sleep
from coulee.core.peer import Balancer, Peer, PoolKey, Routed
from coulee.core.report import Event
from coulee.core.transport import DIRECT, Transport
from coulee.lb.bell import Bell
from coulee.lb.breaker import Breaker, Circuit
from coulee.lb.budget import Budget, RetryBudget
from coulee.lb.checks import Checker
from coulee.lb.condition import Status, condition, none_healthy, nothing_open, told, words
from coulee.lb.discovery import Finder, Source
from coulee.lb.endpoint import SERVICES, Endpoint, Service, State, check_weight, endpoint_of
from coulee.lb.health import Health, HealthCheck, Probe
from coulee.lb.outliers import BLAMED, UNREACHABLE, Detector, Outliers, Record
from coulee.lb.policies import policy_named
from coulee.lb.policy import Policy, overrides
from coulee.lb.slow_start import SlowStart

if TYPE_CHECKING:
    from coulee.core.parts import Response
    from coulee.core.proxy import Proxy

USUAL_OUTLIERS: Final = Outliers()
USUAL_BUDGET: Final = RetryBudget()

_ALL: Final = object()

_DOWN: Final = frozenset({"unhealthy", "ejected", "maintenance", "draining", "removed"})
"""States after which an endpoint comes up, with a slow start. Not those of a circuit, which has had its trials."""


class _Standing:
    """The clock of a cluster that was not started."""

    now = 0.0


_STANDING: Final = _Standing()


class Cluster(Balancer):
    """`Cluster("http://127.0.0.1:9000", "http://127.0.0.1:9001")`: in turn, all alike, those that fail left out.

    `policy`, or the name of one, is how an endpoint is chosen; `health` how they are checked (not at all); `outliers`
    what makes one be left out that fails requests (five in a row; None: nothing does); `breaker` when its circuit opens
    (never); `budget` how many retries there may be; `slow_start` how one comes up; `discovery` where endpoints come
    from, in place of those given here, which serve until it has found some. `panic` is the healthy share of the
    endpoints below which all are used, healthy or not; with 0 they never are, and where none is healthy it is 503.
    `transport` is how they are reached, beside what their URLs say: TLS, HTTP/2, and more.

    Raises `ValueError` for what makes no sense.
    """

    def __init__(
        self,
        *endpoints: str | Peer,
        policy: Policy | str = "round-robin",
        health: HealthCheck | None = None,
        outliers: Outliers | None = USUAL_OUTLIERS,
        breaker: Breaker | None = None,
        budget: RetryBudget = USUAL_BUDGET,
        slow_start: SlowStart | None = None,
        discovery: Source | None = None,
        panic: float = 0.0,
        transport: Transport = DIRECT,
    ) -> None:
        if not endpoints and discovery is None:
            raise ValueError("a cluster needs at least one endpoint, such as http://127.0.0.1:9000")
        if not 0 <= panic <= 1:
            raise ValueError(f"panic is {panic}; it must be a share of the endpoints, from 0 (never) to 1")
        self.transport = transport
        self.definition = self._definitions(endpoints)
        self.health = health
        self.outliers = outliers
        self.breaker = breaker
        self.budget = budget
        self.slow_start = slow_start
        self.discovery = discovery
        self.panic = panic
        self.policy_definition = policy_named(policy) if isinstance(policy, str) else policy
        self.policy = self.policy_definition.fresh()
        # what is known
        self.members: list[Endpoint] = []
        self.usable: list[Endpoint] = []
        self.in_flight = 0
        self.failing_open = False
        self.healthy = 0
        """How many members are: those that may get requests without failing open."""
        self.retries = Budget(budget)
        self.discovery_error = ""
        """What is wrong with the source of endpoints; "" where nothing is."""
        self._by_key: dict[PoolKey, Endpoint] = {}
        self._leaving: dict[PoolKey, Endpoint] = {}  # no members any more, with attempts that are
        self._strangers: dict[PoolKey, int] = {}  # attempts at addresses that were no endpoint's as they began
        self._proxy: Proxy | None = None
        self._clock: Kernel | _Standing = _STANDING
        self._rng = Random(0)
        self._detector = Detector(outliers or Outliers())
        self._failing = frozenset(self._detector.settings.statuses)
        self._checker: Checker | None = None
        self._tasks: list[Task] = []
        self._bell = Bell(self, self._detector.settings.interval_s)
        self._stale = False  # something is known by which other endpoints may be usable
        self._reweighed = False  # ... or the same ones with other weights
        self._wanted: list[Endpoint] | None = None  # the set that tables are to be built for
        self._slices: Iterator[None] | None = None  # ... what is left to do of them
        self._rebuilder: Task | None = None  # what will begin anew in this turn, since weights are others
        self.policy.bind(self)
        self._hears_begin = overrides(self.policy, "began")
        self._hears_end = overrides(self.policy, "ended")
        self._hears_answer = overrides(self.policy, "answered")
        self._marks = overrides(self.policy, "mark")
        self.hears_answers = self._hears_answer or self._marks or breaker is not None
        members = [endpoint.fresh() for endpoint in self.definition]
        for endpoint in members:
            self._meet(endpoint)
        for _ in self.policy.arrange(members):
            pass
        self._install(members)

    def fresh(self, *, probe: Probe | None = None, endpoints: Sequence[Endpoint] | None = None) -> Cluster:
        """The same cluster in its initial state. For a simulation, whose endpoints are no servers: `probe` takes the
        place of that of its health checks, and `endpoints` that of its own and of discovery."""
        health, discovery = self.health, self.discovery
        if health is not None and probe is not None:
            health = replace(health, probe=probe)
        if endpoints is not None:
            discovery = None
        return Cluster(
            *(self.definition if endpoints is None else endpoints),
            policy=self.policy_definition,
            health=health,
            outliers=self.outliers,
            breaker=self.breaker,
            budget=self.budget,
            slow_start=self.slow_start,
            discovery=discovery.fresh() if discovery is not None else None,
            panic=self.panic,
            transport=self.transport,
        )

    def start(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._clock = proxy.kernel
        self._rng = proxy.rng
        for endpoint in self.members:
            endpoint.since = self.now
            self._bell.mind(endpoint)
        if self.health is not None:
            self._checker = Checker(self.health, self)
            self._run(self._checker.run())
        if self.discovery is not None:
            self._run(Finder(self.discovery, self).run())

    def stop(self) -> None:
        for task in list(self._tasks):  # each that ends leaves the list
            task.cancel()
        self._tasks.clear()
        self._rebuilder = None
        self._give_up()
        self._checker = None
        self._bell.stop()

    # -- for policies, checks and discovery: what a cluster knows

    @property
    def now(self) -> float:
        """The core's clock, in seconds."""
        return self._clock.now

    @property
    def wall_clock(self) -> float:
        """Seconds since 1970."""
        return self._proxy.wall_clock if self._proxy is not None else 0.0

    @property
    def kernel(self) -> Kernel | None:
        """What it runs on; None before its start."""
        return self._proxy.kernel if self._proxy is not None else None

    @property
    def rng(self) -> Random:
        """The machine's random source."""
        return self._rng

    @property
    def peers(self) -> Sequence[Peer]:
        """The members, as peers."""
        return self.members

    # -- exchanges

    def choose(self, exchange: Routed) -> Peer:
        tried = exchange.tried
        policy = self.policy
        if self._stale:
            self._refresh()
        if not tried:
            self.retries.request(self._clock.now)
        endpoint = policy.choose(exchange, tried)
        if endpoint is None and tried:
            endpoint = policy.choose(exchange, ())
        if endpoint is None:
            raise nothing_open(self.members, self.now, self.discovery_error)
        return endpoint

    def begin(self, peer: Peer) -> None:
        endpoint = peer if type(peer) is Endpoint and peer.owner is self else self._known(peer)
        if endpoint is None:
            self._strangers[peer.key] = self._strangers.get(peer.key, 0) + 1
            return
        endpoint.in_flight += 1
        endpoint.requests += 1
        self.in_flight += 1
        if endpoint.guarded:
            if endpoint.circuit is not None:
                endpoint.circuit.begin()
            self._set_open(endpoint)
        if self._hears_begin:
            self.policy.began(endpoint)

    def answered(self, exchange: Routed, peer: Peer, response: Response, latency_s: float) -> None:
        endpoint = peer if type(peer) is Endpoint and peer.owner is self else self._known(peer)
        if endpoint is None:
            return
        if endpoint.circuit is not None:
            self._note_circuit(endpoint, endpoint.circuit, response.status in self._failing)
        if self._hears_answer:
            self.policy.answered(endpoint, latency_s)
        if self._marks:
            self.policy.mark(exchange, endpoint, response)

    def end(self, peer: Peer, reason: str, status: int, latency_s: float) -> None:
        endpoint = peer if type(peer) is Endpoint and peer.owner is self else self._known(peer)
        if (endpoint is not peer and self._strangers and self._was_strange(peer)) or endpoint is None:
            return
        endpoint.in_flight -= 1
        self.in_flight -= 1
        if status:
            endpoint.latency.add(latency_s)
        if endpoint.guarded:
            circuit = endpoint.circuit
            if circuit is not None and not status:  # else the head of its answer was its outcome
                if reason in BLAMED:
                    self._note_circuit(endpoint, circuit, True)
                else:
                    circuit.end()
            self._set_open(endpoint)
        if self._hears_end:
            self.policy.ended(endpoint)
        if status in self._failing or reason == "upstream_status":
            self._note_failure(endpoint, str(status))
        elif not reason:
            endpoint.record.well(latency_s)
            if not self._bell.counting:
                self._bell.count()
        elif reason in BLAMED:
            self._note_failure(endpoint, reason)
        if self._leaving and not endpoint.in_flight and self._leaving.pop(endpoint.key, None) is not None:
            endpoint.owner = None

    def may_retry(self, exchange: Routed) -> bool:
        return self.retries.grant(self.now)

    def verdict(self, error: ExchangeError) -> ExchangeError:
        """Where no endpoint is healthy and the request failed at some all the same, it is the cluster that fails."""
        if self._stale:
            self._refresh()
        if self.failing_open and not self.healthy and error.side == "upstream":
            wider = none_healthy(self.members, self.now)
            return ExchangeError(
                wider.reason, f"{error}; failing open: {wider.detail}", retry_after_s=wider.retry_after_s
            )
        return error

    # -- for operators: while it runs, and without losing what is known

    def endpoint(self, name: str) -> Endpoint:
        """The member of that name. Raises `KeyError`."""
        for endpoint in self.members:
            if endpoint.name == name:
                return endpoint
        raise KeyError(f"there is no endpoint {name}; there are {', '.join(each.name for each in self.members[:8])}")

    def set_weight(self, name: str, weight: int) -> None:
        """Another share; 0 gives it nothing new. Takes effect at the end of this turn, or, where the policy has tables,
        when they are built. Raises `KeyError`, `ValueError`."""
        endpoint = self.endpoint(name)
        check_weight(weight, name)
        if weight != endpoint.weight:
            endpoint.weight = weight
            self._judge(endpoint)
            self._rebuild()

    def set_service(self, name: str, service: Service, cause: str = "") -> None:
        """`drain`: nothing new; `maintenance`: nor any checks; `ready`: as usual. Raises `KeyError`, `ValueError`."""
        endpoint = self.endpoint(name)
        if service not in SERVICES:
            raise ValueError(f"{service!r} is nothing that {name} could be; say {', '.join(SERVICES)}")
        endpoint.service = service
        endpoint.service_cause = cause or "somebody said so"
        self._judge(endpoint)
        if self._checker is not None:
            self._checker.refresh()

    def update(self, endpoints: Iterable[str | Peer]) -> None:
        """These are the endpoints from now on. Takes effect at once where the policy needs no tables, else when they
        are built. Raises `ValueError`, and changes nothing then."""
        wanted = self._definitions(endpoints)
        members: list[Endpoint] = []
        for each in wanted:
            endpoint = self._by_key.get(each.key) or self._leaving.get(each.key)
            if endpoint is None:
                endpoint = each.fresh()
                self._meet(endpoint)
            else:
                endpoint.describe(each)
            members.append(endpoint)
        self._build(members)

    def status(self) -> list[Status]:
        """What is known of each endpoint, for a table or a page."""
        offset_s = self.wall_clock - self.now
        return [told(endpoint, offset_s) for endpoint in self.members]

    # -- for checks and discovery: what they say

    def checked(self, endpoint: Endpoint, cause: str) -> None:
        """A check has changed the health of an endpoint, or the cause of its being unhealthy."""
        self._judge(endpoint)

    async def replace(self, endpoints: Sequence[Endpoint]) -> None:
        """A source has found these."""
        self.update(endpoints)

    def discovery_failed(self, text: str) -> None:
        """A source has an error, and the endpoints stay what they were."""
        self.discovery_error = text
        kept = f"{len(self.members)} endpoints stay" if self.members else "there are no endpoints yet"
        self._report("discovery", f"discovery failed, {kept}: {text}", {"error": text})

    def discovery_recovered(self, text: str) -> None:
        """The error is gone."""
        self.discovery_error = ""
        self._report("discovery", f"discovery works again: {text}", {"error": ""})

    # -- the set of endpoints

    def _definitions(self, endpoints: Iterable[str | Peer]) -> list[Endpoint]:
        """What users have written, as endpoints that are reached as this cluster says. Raises `ValueError`."""
        found = [endpoint_of(each) for each in endpoints]
        _check(found)
        if self.transport is not DIRECT:
            for endpoint in found:
                endpoint.reach_by(self.transport)
        return found

    def _known(self, peer: Peer) -> Endpoint | None:
        """What we know of a peer that is no endpoint of ours, as a filter may make one."""
        return self._by_key.get(peer.key) or self._leaving.get(peer.key)

    def _was_strange(self, peer: Peer) -> bool:
        """Whether this is the end of an attempt that began when its address was no endpoint's; of several at one
        address, those are taken to end first."""
        count = self._strangers.pop(peer.key, 0)
        if count > 1:
            self._strangers[peer.key] = count - 1
        return count > 0

    def _meet(self, endpoint: Endpoint) -> None:
        """A new endpoint. It gets nothing before it is a member."""
        endpoint.owner = self
        endpoint.usable = endpoint.open = False
        endpoint.since = self.now
        endpoint.record = Record()
        endpoint.guarded = self.breaker is not None or endpoint.limits is not None
        if self.breaker is not None:
            endpoint.circuit = Circuit(self.breaker)
        if self.health is not None:
            endpoint.health = Health(self.health)
        if self._proxy is not None and self.members:
            self._warm(endpoint)
        endpoint.state, endpoint.cause = condition(endpoint)  # how it begins is no change

    def _part(self, endpoint: Endpoint) -> None:
        """It is no member any more: nothing new, and its connections end."""
        endpoint.usable = endpoint.open = False
        endpoint.warm_since = -1.0
        self._tell(endpoint, "removed", "")
        endpoint.cause = ""
        self._bell.forget(endpoint)
        if endpoint.in_flight:
            self._leaving[endpoint.key] = endpoint
        else:
            endpoint.owner = None
        if self._proxy is not None:
            self._proxy.pool.desert(endpoint)

    def _build(self, members: Sequence[Endpoint]) -> None:
        """Let the policy build its tables for these members, in slices, and then put them in place: at once, where it
        has none to build."""
        self._give_up()
        self._wanted = wanted = list(members)
        slices = self.policy.arrange(wanted)
        for _ in slices:
            if self._proxy is not None:
                self._slices = slices
                self._run(self._go_on(wanted, slices))
                return
        self._install(wanted)

    async def _go_on(self, members: list[Endpoint], slices: Iterator[None]) -> None:
        """Build the rest, unless there is a newer set by then."""
        await sleep(0.0)
        while self._slices is slices:
            if next(slices, _ALL) is _ALL:
                self._slices = None
                self._install(members)
                return
            await sleep(0.0)

    def _rebuild(self) -> None:
        """The same endpoints have other weights: other tables, one time for all that is changed in this turn."""
        if self._proxy is None:
            self._build(self.members)
        elif self._rebuilder is None:
            self._rebuilder = self._run(self._rebuilt())

    async def _rebuilt(self) -> None:
        self._rebuilder = None
        self._build(self.members if self._wanted is None else self._wanted)

    def _give_up(self) -> None:
        """What is being built is for a set that nobody wants any more. It ends before another is begun: each puts its
        tables in place, or puts back what was there."""
        slices, self._slices = self._slices, None
        if isinstance(slices, Generator):
            slices.close()

    def _install(self, members: list[Endpoint]) -> None:
        """These are the members, from one moment to the next."""
        self._wanted = None
        before, self.members = self.members, members
        self._by_key = {endpoint.key: endpoint for endpoint in members}
        for endpoint in before:
            if endpoint.key not in self._by_key:
                self._part(endpoint)
        for index, endpoint in enumerate(members):
            endpoint.index, endpoint.owner = index, self
            self._leaving.pop(endpoint.key, None)
            self._judge(endpoint)
        self._reweighed = True
        self._refresh()
        if self._checker is not None:
            self._checker.refresh()

    # -- the state of an endpoint

    def _judge(self, endpoint: Endpoint) -> None:
        """Something is known of an endpoint that was not: what does it come to? Who is usable is found out when the
        next request asks, so that a thousand changes at once cost one look at all endpoints."""
        if self._by_key.get(endpoint.key) is not endpoint:
            return  # it has left: what still ends there is counted, and changes nothing
        state, cause = condition(endpoint)
        if state != endpoint.state:
            came_up = state == "healthy" and endpoint.state in _DOWN
            if came_up and self._warm(endpoint):
                state = "slow_start"
            self._tell(endpoint, state, cause)
        endpoint.cause = cause
        if state not in ("healthy", "slow_start"):
            endpoint.warm_since = -1.0
        weight = float(endpoint.weight)
        if endpoint.warm_since >= 0 and self.slow_start is not None:
            weight = self.slow_start.weight(endpoint.weight, endpoint.warm_since, self.now)
        if weight != endpoint.effective_weight:
            endpoint.effective_weight = weight
            self._reweighed = True
        self._stale = True
        self._bell.mind(endpoint)

    def _tell(self, endpoint: Endpoint, state: State, cause: str) -> None:
        before, lasted_s = endpoint.state, self.now - endpoint.since
        endpoint.state, endpoint.since = state, self.now
        because = f": {cause}" if cause else ""
        text = f"{endpoint.name} is {words(state)}{because} (it was {words(before)} for {lasted_s:.3g} s)"
        fields: dict[str, object] = {
            "endpoint": endpoint.name, "state": state, "before": before, "cause": cause, "lasted_s": lasted_s,
        }  # fmt: skip
        self._report("endpoint", text, fields)

    def _refresh(self) -> None:
        """Who is usable, now that something has changed; and tell the policy, where that makes a difference."""
        self._stale = False
        in_service = [endpoint for endpoint in self.members if endpoint.in_service]
        self.healthy = sum(1 for endpoint in in_service if endpoint.is_healthy)
        self.failing_open = bool(in_service) and self.healthy < self.panic * len(in_service)
        for endpoint in self.members:
            circuit = endpoint.circuit
            usable = endpoint.in_service and (endpoint.is_healthy or self.failing_open)
            endpoint.usable = usable and (circuit is None or circuit.state != "open")
            self._set_open(endpoint)
        usable_now = [endpoint for endpoint in self.members if endpoint.usable]
        if self._reweighed or usable_now != self.usable:
            self._reweighed = False
            self.usable = usable_now
            self.policy.changed()

    def _set_open(self, endpoint: Endpoint) -> None:
        """It may get a request now, or not."""
        circuit, limits = endpoint.circuit, endpoint.limits
        most = limits.requests_max if limits is not None else None
        endpoint.open = (
            endpoint.usable and (most is None or endpoint.in_flight < most) and (circuit is None or circuit.allows)
        )

    # -- what requests met

    def _note_failure(self, endpoint: Endpoint, failure: str) -> None:
        """An attempt has failed, and its endpoint is to blame."""
        endpoint.failures[failure] = endpoint.failures.get(failure, 0) + 1
        if not self._bell.counting:
            self._bell.count()
        if self.outliers is None:
            return
        record = endpoint.record
        cause = self._detector.note(record, True, 0.0)
        if cause and endpoint.is_healthy and endpoint.in_service and endpoint.state != "removed":
            self._eject(endpoint, record, f"{cause}, the last {failure}", unreachable=failure in UNREACHABLE)

    def _eject(self, endpoint: Endpoint, record: Record, cause: str, *, unreachable: bool = False) -> None:
        ejected = sum(1 for each in self.members if each.ejected)
        if self._detector.eject(record, self.now, len(self.members), ejected, unreachable=unreachable):
            endpoint.ejection_cause = cause
            self._judge(endpoint)

    def _note_circuit(self, endpoint: Endpoint, circuit: Circuit, failed: bool) -> None:
        was_open = endpoint.open
        if circuit.note(failed, self.now):
            self._judge(endpoint)
        self._set_open(endpoint)
        if endpoint.open and not was_open:  # before its attempt ends, which is when a policy would look at it again
            self._stale = self._reweighed = True

    # -- what ends by time

    def _warm(self, endpoint: Endpoint) -> bool:
        """It has just come up: begin its slow start, if there is one."""
        if self.slow_start is None or not self.slow_start.duration_s:
            return False
        endpoint.warm_since = self.now
        return True

    def due(self, endpoint: Endpoint) -> float:
        """When the next thing about an endpoint ends that ends by time; `inf` where nothing does."""
        due = inf
        record, circuit = endpoint.record, endpoint.circuit
        if record.ejected_until:
            due = record.ejected_until
        if circuit is not None and circuit.state == "open":
            due = min(due, circuit.until)
        if endpoint.warm_since >= 0 and self.slow_start is not None:
            step = self.slow_start.next_step(endpoint.warm_since, self.now)
            due = min(due, inf if step is None else step)
        return due

    def expire(self, endpoint: Endpoint, now: float) -> None:
        """It has ended."""
        record, circuit = endpoint.record, endpoint.circuit
        if record.ejected_until and record.ejected_until <= now:
            self._detector.readmit(record)
        if circuit is not None:
            circuit.ring(now)
        if (
            endpoint.warm_since >= 0
            and self.slow_start is not None
            and self.slow_start.next_step(endpoint.warm_since, now) is None
        ):
            endpoint.warm_since = -1.0
        self._judge(endpoint)

    def sweep(self) -> None:
        """An interval with requests has ended: compare."""
        rows = [(each, each.record) for each in self.members if each.in_service]
        if self.outliers is not None:
            for endpoint, cause in self._detector.sweep(rows):
                self._eject(endpoint, endpoint.record, cause)

    # -- the machine

    def _run(self, body: AnyCoroutine) -> Task:
        assert self._proxy is not None
        task = Task(self._proxy.kernel, body, self._ended)
        self._tasks.append(task)
        task.kernel.wake(task, None)
        return task

    def _ended(self, task: Task) -> None:
        if task in self._tasks:
            self._tasks.remove(task)
        if task.error is not None and not isinstance(task.error, Cancelled):
            assert self._proxy is not None
            self._proxy.stray_error(task)

    def _report(self, name: str, text: str, fields: dict[str, object]) -> None:
        if self._proxy is not None:
            self._proxy.report(Event(name, text, self.wall_clock, fields))


def _check(endpoints: Sequence[Endpoint]) -> None:
    """Raises `ValueError` where one is given twice, and where none would get anything."""
    names: dict[str, None] = {}
    keys: dict[PoolKey, None] = {}
    for endpoint in endpoints:
        if endpoint.name in names or endpoint.key in keys:
            raise ValueError(f"endpoint {endpoint.name} is given twice")
        names[endpoint.name] = None
        keys[endpoint.key] = None
    if endpoints and not any(endpoint.weight for endpoint in endpoints):
        raise ValueError("all endpoints have weight 0: none would get a request; give one of them a weight")
