"""Plays a scenario: the real cluster on the core's kernel, in virtual time, between modelled clients and origins.

Rules:

- Time goes from one thing that happens to the next, so an hour takes as long as what happens in it.
- Arrivals, origins, troubles, checks and the machine have a random source each, made from the one seed: another policy
  meets the same requests and, but for what it causes itself, the same outages.
- The time is over when it is over: what is under way then is counted as such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from heapq import heappop
from math import inf
from random import Random
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from coulee.core.kernel import current_kernel
from coulee.core.report import Event
from coulee.core.seam import Report
from coulee.lb.endpoint import Endpoint
from coulee.server.whatif.agenda import Agenda, arrivals_s
from coulee.server.whatif.front import Front
from coulee.server.whatif.lines import TomlError
from coulee.server.whatif.origins import Origin, latencies_s
from coulee.server.whatif.scenario import ORDERS, Happening, OriginModel, Outages, Scenario
from coulee.server.whatif.subject import Order, machine_for, order
from coulee.server.whatif.tally import COLUMNS, Row, Tally

if TYPE_CHECKING:
    from coulee.core.proxy import Proxy

STEPS: Final = 200
"""So often it is said how far it is."""

Progress: TypeAlias = Callable[[float, int], None]
"""Called with the share of the time that is over, and the requests so far."""


class Play:
    """One run of a scenario on a definition. Raises `TomlError` for endpoints that it does not have."""

    def __init__(self, scenario: Scenario, definition: Proxy) -> None:
        self.scenario = scenario
        self.agenda = Agenda()
        self.tally = Tally(scenario.duration_s)
        self.latencies: dict[tuple[float, float], list[float]] = {}
        self.models = {name: model for name, _, model in scenario.origins}
        seed = scenario.seed
        self.origins_rng = Random(f"{seed} origins")
        self.checks_rng = Random(f"{seed} checks")
        self.trouble_rng = Random(f"{seed} outages")
        self.proxy, self.cluster = machine_for(definition, scenario, self._probe)
        self.origins = {endpoint.name: self._origin(endpoint) for endpoint in self.cluster.members}
        self.front = Front(
            scenario, self.proxy, self.cluster, self.agenda, self.tally, Random(f"{seed} clients"), self.origins
        )
        self._plan()

    def run(self, progress: Progress | None = None) -> Tally:
        """Play it, and give what was counted."""
        copy_context().run(self._run, progress)
        self.tally.close()
        return self.tally

    def _origin(self, endpoint: Endpoint) -> Origin:
        """The model behind an endpoint."""
        model = self.models.get(endpoint.name, self.scenario.origin)
        row = self.tally.rows[endpoint.name] = Row(endpoint.name, endpoint.weight, endpoint.state)
        return Origin(endpoint, row, model, self._latencies_s(model), self.proxy.config, self.origins_rng)

    def _latencies_s(self, model: OriginModel) -> list[float]:
        key = (model.median_s, model.p99_s)
        if key not in self.latencies:
            self.latencies[key] = latencies_s(*key)
        return self.latencies[key]

    async def _probe(self, endpoint: Endpoint) -> None:
        """Stands in the place of the cluster's checks."""
        await self.origins[endpoint.name].check(self.checks_rng)

    # -- time

    def _run(self, progress: Progress | None) -> None:
        scenario, front, agenda, proxy = self.scenario, self.front, self.agenda, self.proxy
        kernel = proxy.kernel
        current_kernel.set(kernel)
        rng = Random(f"{scenario.seed} arrivals") if scenario.arrivals == "poisson" else None
        arrivals = arrivals_s(scenario.load, rng)
        arrival = next(arrivals, inf)
        end = scenario.duration_s
        heap = agenda.heap
        step_s = end / STEPS
        step = 0.0
        self._turn(0.0)
        while True:
            due = heap[0][0] if heap else inf
            alarm = kernel.heap[0][0] if kernel.heap else inf
            now = min(arrival, due, alarm)
            if now >= end:
                break
            if now >= step:
                step += step_s
                if progress is not None:
                    progress(now / end, self.tally.requests)
            kernel.now = now
            if alarm <= now:
                self._turn(now)
            elif due <= now:
                _, _, call, thing = heappop(heap)
                call(thing, now)
            else:
                front.arrive(now)
                arrival = next(arrivals, inf)
            if kernel.ready or proxy.operations:
                self._turn(now)

    def _turn(self, now: float) -> None:
        """The cluster's own tasks and alarms. What it reports is its endpoints' changes; what else it asks of the world
        nobody hears."""
        for operation in self.proxy.handle(None, now):
            if isinstance(operation, Report) and isinstance(operation.record, Event):
                event = operation.record
                if event.name == "endpoint":
                    row = self.origins[str(event.fields["endpoint"])].row
                    self.tally.changed(row, str(event.fields["state"]), str(event.fields["cause"]), now)

    # -- troubles and orders

    def _plan(self) -> None:
        """Put all that is to happen on the agenda. Raises `TomlError`."""
        scenario, agenda = self.scenario, self.agenda
        for name, line, _ in scenario.origins:
            self._known((name,), line)
        for happening in scenario.happenings:
            endpoints = self._hit_by(happening)
            begin = self._order if happening.what in ORDERS else self._trouble
            agenda.at(happening.at_s, begin, (happening, endpoints))
        outages = scenario.outages
        if outages is not None:
            for origin in self.origins.values():
                agenda.at(self.trouble_rng.expovariate(1 / outages.mean_between_s), self._outage, (outages, origin))

    def _hit_by(self, happening: Happening) -> list[Origin]:
        members = self.cluster.members
        if happening.share:
            count = max(1, round(happening.share * len(members)))
            chosen = sorted(self.trouble_rng.sample(range(len(members)), count))
            return [self.origins[members[at].name] for at in chosen]
        if happening.zone:
            found = [self.origins[each.name] for each in members if each.zone == happening.zone]
            if not found:
                zones = ", ".join(dict.fromkeys(each.zone for each in members if each.zone)) or "none at all"
                raise self._wrong(happening.line, f"no endpoint is in zone {happening.zone}; there are: {zones}")
            return found
        return self._known(happening.names, happening.line)

    def _known(self, names: Sequence[str], line: int) -> list[Origin]:
        for name in names:
            if name not in self.origins:
                few = list(self.origins)[:4]
                more = ", ..." if len(self.origins) > len(few) else ""
                raise self._wrong(line, f"there is no endpoint {name}; there are {', '.join(few)}{more}")
        return [self.origins[name] for name in dict.fromkeys(names)]

    def _wrong(self, line: int, what: str) -> TomlError:
        return TomlError(f"{self.scenario.name}:{line}: {what}")

    def _trouble(self, what: tuple[Happening, list[Origin]], now: float) -> None:
        happening, origins = what
        for origin in origins:
            if happening.what == "recover":
                self._recover(origin, None, now)
            else:
                self._suffer(origin, happening.what, happening, now)
        if happening.what == "flap":
            self.agenda.at(now + happening.down_s, self._flap, (happening, origins, True))
        if happening.for_s:
            self.agenda.at(now + happening.for_s, self._trouble_ends, what)

    def _trouble_ends(self, what: tuple[Happening, list[Origin]], now: float) -> None:
        happening, origins = what
        for origin in origins:
            self._recover(origin, happening, now)

    def _flap(self, what: tuple[Happening, list[Origin], bool], now: float) -> None:
        """Those that still flap come up, or go down."""
        happening, origins, up = what
        left = [origin for origin in origins if origin.mode_by is happening]
        for origin in left:
            if up:
                self._recover(origin, happening, now)
                origin.mode_by = happening  # until it goes down again
            else:
                self._suffer(origin, "flap", happening, now)
        if left:
            self.agenda.at(now + (happening.up_s if up else happening.down_s), self._flap, (happening, left, not up))

    def _outage(self, what: tuple[Outages, Origin], now: float) -> None:
        """One of the random ones begins, and the next one is drawn."""
        outages, origin = what
        rng = self.trouble_rng
        kind = rng.choice(outages.kinds)
        length_s = rng.expovariate(1 / outages.mean_duration_s)
        self._suffer(origin, kind, outages, now)
        self.agenda.at(now + length_s, self._outage_ends, what)
        self.agenda.at(now + length_s + rng.expovariate(1 / outages.mean_between_s), self._outage, what)

    def _outage_ends(self, what: tuple[Outages, Origin], now: float) -> None:
        self._recover(what[1], what[0], now)

    def _suffer(self, origin: Origin, what: str, by: Happening | Outages, now: float) -> None:
        before = origin.mode
        origin.suffer(what, by)
        self._note_trouble(origin, now)
        if origin.mode == "dead" and before != "dead":
            self.front.network.reset_all(origin, now)

    def _recover(self, origin: Origin, by: object, now: float) -> None:
        before = origin.mode
        origin.recover(by)
        self._note_trouble(origin, now)
        if origin.mode == "well" and before != "well":
            self.front.network.go_on(origin, now)

    def _note_trouble(self, origin: Origin, now: float) -> None:
        origin.row.troubled(origin.in_trouble, now, COLUMNS / self.scenario.duration_s)

    def _order(self, what: tuple[Happening, list[Origin]], now: float) -> None:
        happening, origins = what
        before: list[tuple[Endpoint, Order, int]] = []
        for origin in origins:
            endpoint = origin.peer
            before.append((endpoint, "weight" if happening.what == "weight" else endpoint.service, endpoint.weight))
            self._order_one(endpoint, cast("Order", happening.what), happening.weight)
        if happening.for_s:
            self.agenda.at(now + happening.for_s, self._orders_end, before)

    def _orders_end(self, before: list[tuple[Endpoint, Order, int]], now: float) -> None:
        for endpoint, undo, weight in before:
            self._order_one(endpoint, undo, weight)

    def _order_one(self, endpoint: Endpoint, what: Order, weight: int) -> None:
        order(self.cluster, endpoint.name, what, weight)
        self.origins[endpoint.name].row.weight = endpoint.weight
