"""The whole cluster beside a small model of it: whatever comes, who may get a request is who the tables say.

Two clusters with one seed run in step. The model is written from the tables in `condition`, `health`, `outliers`,
`breaker` and `budget`, and shares no code with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coulee.core.errors import ExchangeError
from coulee.core.peer import Peer, PeerLimits
from coulee.lb.breaker import Breaker
from coulee.lb.budget import RetryBudget
from coulee.lb.cluster import Cluster
from coulee.lb.endpoint import Endpoint, Service
from coulee.lb.health import HealthCheck
from coulee.lb.loads import LeastRequests, TwoChoices
from coulee.lb.outliers import Outliers
from coulee.lb.policy import Policy
from coulee.lb.turns import RandomChoice, RoundRobin
from tests.lb.play import Attempt, Checks, Play, Sliced, filters_peer, named
from tests.lb.stub import Asks

NAMES: Final = [f"a{i}" for i in range(5)]
WEIGHT_MAX: Final = 3
POLICIES: Final[dict[str, type[Policy]]] = {
    "round robin": RoundRobin, "random": RandomChoice, "least": LeastRequests, "two": TwoChoices, "sliced": Sliced,
}  # fmt: skip
STARVED: Final = 2 * WEIGHT_MAX * len(NAMES)
"""Choices in which an endpoint was open all the time, of which one is its own; where nobody has turns to make up."""

FALL, RISE = 2, 2
ROW, EJECTION_S, EJECTION_MAX_S, SHARE = 3, 10.0, 25.0, 0.5
OPENS_AT, OPEN_S, OPEN_MAX_S, CLOSES_AT = 4, 5.0, 12.0, 2
BUDGET_SHARE, BUDGET_FLOOR, WINDOW_S = 0.5, 2.0, 10.0

OUTCOMES: Final[dict[str, tuple[str, int]]] = {
    "good": ("", 200),
    "refused": ("upstream_refused", 0),
    "unavailable": ("", 503),
    "cut": ("upstream_reset", 200),
    "left": ("client_gone", 0),
    "left late": ("client_gone", 200),
    "full": ("pool_full", 0),
}


@dataclass(eq=False)
class Known:
    """What the model knows of an endpoint."""

    name: str
    weight: int
    limit: int | None
    service: Service = "ready"
    member: bool = True
    in_flight: int = 0
    healthy: bool = True
    against: int = 0  # checks in a row that speak against that
    row: int = 0  # failures
    ejections: int = 0
    ejected_until: float = 0.0
    circuit: str = "closed"
    circuit_row: int = 0
    circuit_until: float = 0.0
    open_s: float = OPEN_S
    trials: int = 0

    @property
    def state(self) -> str:
        if not self.member:
            return "removed"
        if self.service != "ready":
            return "draining" if self.service == "drain" else "maintenance"
        if not self.weight:
            return "draining"
        if not self.healthy:
            return "unhealthy"
        if self.ejected_until:
            return "ejected"
        return {"closed": "healthy", "open": "circuit_open", "half_open": "half_open"}[self.circuit]

    def checked(self, good: bool) -> None:
        """A check."""
        self.against = 0 if good == self.healthy else self.against + 1
        if self.against == (FALL if self.healthy else RISE):
            self.healthy, self.against = good, 0

    def outcome(self, failed: bool, now: float) -> None:
        """Of an attempt, for the circuit."""
        if self.circuit == "closed":
            self.circuit_row = self.circuit_row + 1 if failed else 0
            if self.circuit_row == OPENS_AT:
                self.open_circuit(OPEN_S, now)
        elif self.circuit == "half_open" and self.trials:
            self.trials -= 1
            self.circuit_row += 1
            if failed:
                self.open_circuit(min(2 * self.open_s, OPEN_MAX_S), now)
            elif self.circuit_row == CLOSES_AT:
                self.enter("closed")

    def open_circuit(self, open_s: float, now: float) -> None:
        self.enter("open")
        self.open_s, self.circuit_until = open_s, now + open_s

    def enter(self, circuit: str) -> None:
        self.circuit, self.circuit_row, self.trials = circuit, 0, 0


@dataclass
class Model:
    """Who may get a request, and why nobody may."""

    panic: float
    members: list[Known] = field(default_factory=list)
    leaving: dict[str, Known] = field(default_factory=dict)
    strange: dict[str, int] = field(default_factory=dict)
    requests: list[float] = field(default_factory=list)
    grants: list[float] = field(default_factory=list)

    def known(self, name: str) -> Known | None:
        return next((each for each in self.members if each.name == name), None) or self.leaving.get(name)

    def usable(self) -> list[Known]:
        serving = [each for each in self.members if each.service == "ready" and each.weight]
        healthy = [each for each in serving if each.healthy and not each.ejected_until]
        who = serving if len(healthy) < self.panic * len(serving) else healthy
        return [each for each in who if each.circuit != "open"]

    def open(self) -> list[str]:
        return [
            each.name
            for each in self.usable()
            if (each.circuit == "closed" or each.trials == 0) and (each.limit is None or each.in_flight < each.limit)
        ]

    def reason(self) -> str:
        """Why there is nobody."""
        if any(each.circuit == "closed" or each.trials == 0 for each in self.usable()):
            return "pool_full"
        broken = any(each.state in ("circuit_open", "half_open") for each in self.members)
        return "circuit_open" if broken else "no_healthy_endpoint"

    def update(self, wanted: list[Endpoint]) -> None:
        before = {each.name: each for each in self.members}
        self.members = []
        for each in wanted:
            known = before.pop(each.name, None) or self.leaving.pop(each.name, None)
            limit = each.limits.requests_max if each.limits is not None else None
            known = known or Known(each.name, each.weight, limit)
            known.weight, known.limit, known.member = each.weight, limit, True
            self.members.append(known)
        for name, known in before.items():
            known.member = False
            if known.in_flight:
                self.leaving[name] = known

    def begin(self, name: str) -> None:
        known = self.known(name)
        if known is None:
            self.strange[name] = self.strange.get(name, 0) + 1
            return
        known.in_flight += 1
        if known.circuit == "half_open":
            known.trials += 1

    def end(self, known: Known, reason: str, status: int, now: float) -> None:
        known.in_flight -= 1
        blamed = reason.startswith("upstream")
        if blamed and not status:
            known.outcome(True, now)
        elif not status:
            known.trials = max(0, known.trials - 1)
        if blamed or status == 503 or not reason:
            self.note(known, blamed or status == 503, now, reason)
        if not known.in_flight:
            self.leaving.pop(known.name, None)

    def note(self, known: Known, failed: bool, now: float, reason: str) -> None:
        known.row = known.row + 1 if failed else 0
        room = len(self.members) - 1
        if reason != "upstream_refused":
            room = min(int(SHARE * len(self.members)), room)
        ejected = sum(1 for each in self.members if each.ejected_until)
        if known.row >= ROW and failed and known.state in ("healthy", "circuit_open", "half_open") and ejected < room:
            if known.ejections * EJECTION_S < EJECTION_MAX_S:
                known.ejections += 1
            known.ejected_until = now + min(known.ejections * EJECTION_S, EJECTION_MAX_S)

    def passes(self, now: float) -> None:
        """Time has come to this point."""
        for each in self.members:
            if each.ejected_until and each.ejected_until <= now:
                each.ejected_until, each.row = 0.0, 0
            if each.circuit == "open" and each.circuit_until <= now:
                each.enter("half_open")


@dataclass(eq=False)
class Going:
    """An attempt that is going on, in both clusters."""

    twins: list[Attempt]
    known: Known | None  # None: a filter has chosen its peer
    name: str
    answered: int = 0


names = st.sampled_from(NAMES)
policies = st.sampled_from(sorted(POLICIES))


@st.composite
def sets(draw: st.DrawFn) -> list[Endpoint]:
    """Definitions; not all of them with weight 0."""
    chosen = draw(st.lists(names, unique=True, min_size=1))
    made = [
        Endpoint(named(name), weight=draw(st.integers(0, WEIGHT_MAX)), limits=draw(st.sampled_from(LIMITS)))
        for name in chosen
    ]
    made[0].weight = max(made[0].weight, 1)
    return made


LIMITS: Final = [None, PeerLimits(requests_max=1), PeerLimits(requests_max=2)]


class ClusterMachine(RuleBasedStateMachine):
    """Everything that may happen to a cluster."""

    @initialize(
        start=sets(),
        panic=st.sampled_from([0.0, 0.5]),
        policy=st.sampled_from(sorted(POLICIES)),
        seed=st.integers(0, 9),
    )
    def begin_with(self, start: list[Endpoint], panic: float, policy: str, seed: int) -> None:
        self.policy = policy
        self.model = Model(panic)
        self.model.update(start)
        self.checks = Checks()
        self.plays = []
        for checks in (self.checks, Checks()):
            checks.bad = self.checks.bad
            cluster = Cluster(
                *start,
                policy=POLICIES[policy](),
                health=HealthCheck(checks, fall=FALL, rise=RISE, interval_s=4, unhealthy_interval_s=1, jitter=0),
                outliers=Outliers(
                    consecutive_failures=ROW, success_rate_stdevs=0, ejection_s=EJECTION_S, interval_s=1e6,
                    ejection_max_s=EJECTION_MAX_S, ejected_share_max=SHARE,
                ),
                breaker=Breaker(
                    failures_max=OPENS_AT, failed_share=0, open_s=OPEN_S, open_max_s=OPEN_MAX_S, successes=CLOSES_AT
                ),
                budget=RetryBudget(BUDGET_SHARE, BUDGET_FLOOR / WINDOW_S, WINDOW_S),
                panic=panic,
            )  # fmt: skip
            self.plays.append(Play(cluster, seed=seed))
        self.going: list[Going] = []
        self.waited: dict[str, int] = {}
        self.told = 0  # events that were looked at
        self.states: dict[str, tuple[str, float]] = {}
        self.catch_up()

    # -- the time

    @property
    def now(self) -> float:
        return self.plays[0].now

    def catch_up(self) -> None:
        """What is due now has happened, in the model too."""
        for play in self.plays:
            play.wait(0)
        self.model.passes(self.now)
        made, self.checks.made = self.checks.made, []
        for name in made:
            known = self.model.known(name)
            assert known is not None
            assert known.member
            assert known.service != "maintenance"
            known.checked(name not in self.checks.bad)

    @rule(seconds=st.sampled_from([0.5, 1, 3, 6, 11, 30]))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while (at := self.plays[0].bench.deadline) is not None and at <= until:
            for play in self.plays:
                play.wait(max(at - play.now, 0))
            self.catch_up()
        for play in self.plays:
            play.wait(until - play.now)
        self.catch_up()

    # -- what is said of endpoints

    @rule(name=names, good=st.booleans())
    def checks_find(self, name: str, good: bool) -> None:
        if good:
            self.checks.bad.pop(name, None)
        else:
            self.checks.bad[name] = "down"

    @rule(wanted=sets())
    def updated(self, wanted: list[Endpoint]) -> None:
        for play in self.plays:
            play.update(*wanted)
        self.model.update(wanted)
        self.waited.clear()
        self.catch_up()

    @rule(name=names, service=st.sampled_from(["ready", "drain", "maintenance"]))
    def operator_says(self, name: str, service: Service) -> None:
        known = self.model.known(name)
        if known is not None and known.member:
            for play in self.plays:
                play.turn(lambda play=play: play.cluster.set_service(name, service))  # type: ignore[misc]
            known.service = service
            self.catch_up()

    @rule(name=names, weight=st.integers(0, WEIGHT_MAX))
    def weighed(self, name: str, weight: int) -> None:
        known = self.model.known(name)
        if known is not None and known.member:
            for play in self.plays:
                play.turn(lambda play=play: play.cluster.set_weight(name, weight))  # type: ignore[misc]
            known.weight = weight
            self.waited.pop(name, None)

    # -- requests

    def choose(self, tried: list[str]) -> str:
        """Whom both choose; the reason, where that is nobody."""
        chosen, other = [play.choose(*tried) for play in self.plays]
        assert chosen == other
        open_ones = self.model.open()
        if not tried:
            self.model.requests.append(self.now)
        if open_ones:
            assert chosen in ([name for name in open_ones if name not in tried] or open_ones)
        else:
            assert chosen == self.model.reason()
        for name in NAMES:
            if name == chosen or name not in open_ones or name in tried:
                self.waited[name] = 0
            else:
                self.waited[name] = self.waited.get(name, 0) + 1
                assert self.policy != "round robin" or self.waited[name] <= STARVED, f"{name} starves"
        return chosen

    @rule(tried=st.lists(names, unique=True))
    def request(self, tried: list[str]) -> None:
        name = self.choose(tried)
        known = self.model.known(name)
        if known is not None:
            self.model.begin(name)
            self.going.append(Going([play.begin(name) for play in self.plays], known, name))

    @rule(times=st.integers(1, 40), tried=st.lists(names, unique=True, max_size=1))
    def many_ask(self, times: int, tried: list[str]) -> None:
        for _ in range(times):
            self.choose(tried)

    @rule(name=names)
    def filter_chooses(self, name: str) -> None:
        peer: Peer = filters_peer(name)
        self.model.begin(name)
        self.going.append(Going([play.begin(peer) for play in self.plays], None, name))

    @rule(name=names, times=st.integers(1, 5), outcome=st.sampled_from(["good", "refused", "unavailable", "cut"]))
    def some_at_one(self, name: str, times: int, outcome: str) -> None:
        for _ in range(times):
            self.filter_chooses(name)
            self.ends_with(self.going.pop(), outcome)

    @precondition(lambda self: self.going)
    @rule(data=st.data())
    def head_comes(self, data: st.DataObject) -> None:
        going = data.draw(st.sampled_from(self.going))
        if not going.answered:
            self.answer(going, data.draw(st.sampled_from([200, 503])))

    @precondition(lambda self: self.going)
    @rule(data=st.data(), outcome=st.sampled_from(sorted(OUTCOMES)))
    def attempt_ends(self, data: st.DataObject, outcome: str) -> None:
        going = data.draw(st.sampled_from(self.going))
        self.going.remove(going)
        self.ends_with(going, outcome)

    def answer(self, going: Going, status: int) -> None:
        going.answered = status
        for attempt in going.twins:
            attempt.answer(status)
        known = going.known or self.model.known(going.name)
        if known is not None:
            known.outcome(status == 503, self.now)

    def ends_with(self, going: Going, outcome: str) -> None:
        reason, status = OUTCOMES[outcome]
        if status and not going.answered:
            self.answer(going, status)
        for attempt in going.twins:
            attempt.end(reason, going.answered)
        known = going.known
        if known is None and self.model.strange.get(going.name):
            self.model.strange[going.name] -= 1
            return
        known = known or self.model.known(going.name)
        assert known is not None
        self.model.end(known, reason, going.answered, self.now)

    @rule(times=st.integers(1, 6))
    def retries_are_wanted(self, times: int) -> None:
        for _ in range(times):
            now, model = self.now, self.model
            one, other = [play.turn(lambda play=play: play.cluster.may_retry(Asks())) for play in self.plays]  # type: ignore[misc]
            assert one == other

            def within(moments: list[float], seconds: float, now: float = now) -> int:
                return sum(1 for moment in moments if moment >= now - seconds)

            granted = within(model.grants, WINDOW_S) + 1
            if one:
                model.grants.append(now)
                assert granted <= BUDGET_FLOOR + BUDGET_SHARE * within(model.requests, 1.1 * WINDOW_S)
            else:
                asked = within(model.requests, WINDOW_S)
                assert within(model.grants, 1.1 * WINDOW_S) + 1 > BUDGET_FLOOR + BUDGET_SHARE * asked

    # -- what always holds

    @invariant()
    def the_numbers_are_right(self) -> None:
        for play in self.plays:
            members = play.cluster.members
            assert [each.name for each in members] == [each.name for each in self.model.members]
            assert [each.in_flight for each in members] == [each.in_flight for each in self.model.members]
            leaving = sum(each.in_flight for each in self.model.leaving.values())
            assert play.cluster.in_flight == sum(each.in_flight for each in members) + leaving

    @invariant()
    def the_states_are_those_of_the_tables(self) -> None:
        for play in self.plays:
            assert play.states == {each.name: each.state for each in self.model.members}

    @invariant()
    def every_change_was_one_event(self) -> None:
        events, others = [play.bench.world.events("endpoint") for play in self.plays]
        assert events == others
        for event in events[self.told :]:
            name = str(event.fields["endpoint"])
            before, since = self.states.get(name, ("removed", 0.0))
            assert event.fields["before"] == before != event.fields["state"]
            assert event.fields["lasted_s"] == event.at - since
            self.states[name] = (str(event.fields["state"]), event.at)
        self.told = len(events)
        for endpoint in self.plays[0].cluster.members:
            if self.states.get(endpoint.name, ("removed",))[0] == "removed":
                begins = "healthy" if endpoint.weight else "draining"
                self.states[endpoint.name] = (begins, endpoint.since)  # a new one: how it begins is no change
            assert self.states[endpoint.name] == (endpoint.state, endpoint.since)

    def teardown(self) -> None:
        """What has come to its end leaves nothing."""
        if not hasattr(self, "plays"):
            return
        for going in self.going:
            self.ends_with(going, "left")
        for play in self.plays:
            assert play.cluster.in_flight == 0
            assert play.stopped() == {}
            assert not play.cluster._leaving
            assert not play.cluster._strangers


TestCluster = ClusterMachine.TestCase
TestCluster.settings = settings(max_examples=70, stateful_step_count=40, deadline=None)


def test_what_the_model_asks_of_an_error_is_in_the_list_of_reasons() -> None:
    for reason, _ in OUTCOMES.values():
        assert not reason or ExchangeError(reason).reason == reason
