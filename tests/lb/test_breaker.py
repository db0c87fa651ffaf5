"""The circuit breaker: its table row by row, and any sequence of events against a naive model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coulee.lb.breaker import Breaker, Circuit

SETTINGS: Final = Breaker(
    failures_max=3,
    failed_share=0.5,
    requests_min=6,
    window_s=10.0,
    open_s=4.0,
    open_max_s=10.0,
    trials=1,
    successes=2,
)


def closed() -> Circuit:
    return Circuit(SETTINGS)


def opened(at: float = 1.0) -> Circuit:
    circuit = closed()
    assert [circuit.note(True, at) for _ in range(3)] == [False, False, True]
    return circuit


def half_open() -> Circuit:
    circuit = opened()
    assert circuit.ring(5.0)
    return circuit


def row_of(circuit: Circuit, outcomes: str, now: float) -> list[bool]:
    """Outcomes as they come, `x` for a failure: whether each changed the state."""
    return [circuit.note(outcome == "x", now) for outcome in outcomes]


# ---------------------------------------------------------------------------------------------------- the table


def a_success_ends_the_row(circuit: Circuit) -> None:
    row_of(circuit, "xx", 1.0)
    assert not circuit.note(False, 1.0)
    assert row_of(circuit, "xx", 1.0) == [False, False]


def a_row_of_failures(circuit: Circuit) -> None:
    assert row_of(circuit, "xxx", 1.0) == [False, False, True]
    assert (circuit.until, circuit.cause) == (5.0, "3 failures in a row")


def a_share_of_failures(circuit: Circuit) -> None:
    # Half of them fail from the second on; the sixth makes it enough of them.
    assert row_of(circuit, "oxoxox", 2.0) == [False] * 5 + [True]
    assert (circuit.until, circuit.cause) == (6.0, "3 of 6 requests failed")


def a_failure_more(circuit: Circuit) -> None:
    assert row_of(circuit, "oxoxooxooxoox", 2.0) == [False] * 13
    assert (circuit.until, circuit.cause) == (0.0, "")


def an_old_outcome(circuit: Circuit) -> None:
    assert row_of(circuit, "oooxxxx", 4.0) == [False] * 7
    assert (circuit.until, circuit.cause) == (5.0, "3 failures in a row")


def too_early(circuit: Circuit) -> None:
    assert not circuit.ring(math.nextafter(5.0, 0.0))
    assert circuit.until == 5.0


def in_time(circuit: Circuit) -> None:
    assert circuit.ring(5.0)
    assert (circuit.until, circuit.cause) == (0.0, "3 failures in a row")


def an_outcome_without_a_trial(circuit: Circuit) -> None:
    assert row_of(circuit, "xoo", 6.0) == [False] * 3
    circuit.begin()
    assert not circuit.note(False, 6.0)
    assert row_of(circuit, "xoo", 6.0) == [False] * 3


def a_trial_that_fails(circuit: Circuit) -> None:
    for now, until in ((6.0, 14.0), (14.0, 24.0), (25.0, 35.0)):
        circuit.begin()
        assert circuit.note(True, now)
        assert (circuit.until, circuit.cause) == (until, "a trial failed")
        circuit.ring(until)
    circuit.begin()
    circuit.note(True, 40.0)


def trials_that_succeed(circuit: Circuit) -> None:
    for changed in (False, True):
        circuit.begin()
        assert circuit.note(False, 6.0) == changed
    assert (circuit.until, circuit.cause) == (0.0, "")


def a_trial_more(circuit: Circuit) -> None:
    circuit.begin()
    assert not circuit.note(False, 6.0)


def a_bell_for_nobody(circuit: Circuit) -> None:
    for now in (5.0, 6.0, 1000.0):
        assert not circuit.ring(now)


TABLE: Final[dict[tuple[str, str], Callable[[Circuit], None]]] = {
    ("closed", "a success"): a_success_ends_the_row,
    ("closed", "a failure, the last of `failures_max` in a row"): a_row_of_failures,
    ("closed", "a failure that makes `failed_share` of the window"): a_share_of_failures,
    ("closed", "any other failure"): a_failure_more,
    ("open", "an attempt's outcome"): an_old_outcome,
    ("open", "the bell, before `until`"): too_early,
    ("open", "the bell, at `until` or later"): in_time,
    ("half open", "an outcome, where no trial is going on"): an_outcome_without_a_trial,
    ("half open", "a trial fails"): a_trial_that_fails,
    ("half open", "a trial succeeds, the last of `successes` in a row"): trials_that_succeed,
    ("half open", "any other trial succeeds"): a_trial_more,
    ("closed", "the bell"): a_bell_for_nobody,
    ("half open", "the bell"): a_bell_for_nobody,
}


def rows_of_the_table() -> list[tuple[str, str, str]]:
    lines = [line.strip() for line in (Circuit.__doc__ or "").splitlines() if line.strip().startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    rows: list[tuple[str, str, str]] = []
    for state, event, follows, _ in cells:
        states = ["closed", "half open"] if state == "any other" else [state]
        rows += [(each, event, each if follows == "the same" else follows) for each in states]
    return rows


def test_the_tests_have_each_row_of_the_table() -> None:
    assert [(state, event) for state, event, _ in rows_of_the_table()] == list(TABLE)


@pytest.mark.parametrize(("state", "event", "follows"), rows_of_the_table())
def test_a_row_of_the_table(state: str, event: str, follows: str) -> None:
    circuit = {"closed": closed, "open": opened, "half open": half_open}[state]()
    assert circuit.state == state.replace(" ", "_")
    TABLE[state, event](circuit)
    assert circuit.state == follows.replace(" ", "_")
    assert circuit.allows == (follows != "open")


# ---------------------------------------------------------------------------------------------------- in detail


def test_half_open_few_attempts_go_on_at_once() -> None:
    circuit = Circuit(Breaker(failures_max=1, trials=2, successes=5))
    circuit.note(True, 0.0)
    assert not circuit.allows
    circuit.ring(5.0)
    circuit.begin()
    assert circuit.allows
    circuit.begin()
    assert not circuit.allows
    circuit.end()
    assert circuit.allows


def test_a_trial_without_an_outcome_makes_room_for_another() -> None:
    # The client left: nobody knows how it would have ended.
    circuit = half_open()
    for _ in range(5):
        assert circuit.allows
        circuit.begin()
        assert not circuit.allows
        circuit.end()
    assert circuit.state == "half_open"


def test_a_trial_goes_on_until_its_outcome() -> None:
    circuit = half_open()
    circuit.begin()
    assert not circuit.allows
    assert not circuit.note(False, 6.0)
    assert circuit.allows


def test_attempts_from_before_keep_nothing_shut() -> None:
    circuit = closed()
    for _ in range(5):
        circuit.begin()
    row_of(circuit, "xxx", 1.0)
    circuit.end()
    assert not circuit.allows  # open
    circuit.ring(5.0)
    circuit.begin()
    assert not circuit.allows
    circuit.end()  # ... and this may be the fifth from before
    assert circuit.allows
    circuit.end()
    circuit.begin()
    assert not circuit.allows


def test_trials_are_nothing_once_it_is_open_or_closed_again() -> None:
    circuit = Circuit(Breaker(failures_max=1, trials=2, successes=1))
    circuit.note(True, 0.0)
    circuit.ring(5.0)
    circuit.begin()
    circuit.begin()
    circuit.note(True, 6.0)
    circuit.end()
    assert not circuit.allows
    circuit.ring(16.0)
    circuit.begin()
    circuit.begin()
    assert not circuit.allows
    circuit.note(False, 17.0)
    circuit.end()
    assert (circuit.state, circuit.allows) == ("closed", True)


def test_once_closed_again_nothing_is_remembered() -> None:
    # Neither the failures that opened it, which are still in the window, nor the requests, nor how long it was open.
    circuit = half_open()
    circuit.begin()
    circuit.note(True, 5.0)
    assert circuit.until == 13.0
    circuit.ring(13.0)
    for _ in range(2):
        circuit.begin()
        circuit.note(False, 13.0)
    row_of(circuit, "xxx", 13.0)
    assert circuit.until == 17.0
    circuit.ring(17.0)
    for _ in range(2):
        circuit.begin()
        circuit.note(False, 17.0)
    assert row_of(circuit, "oxoxox", 17.0) == [False] * 5 + [True]
    assert circuit.cause == "3 of 6 requests failed"


def test_failures_that_are_too_long_ago_make_no_share() -> None:
    circuit = closed()
    row_of(circuit, "xxoxxo", 1.0)
    assert row_of(circuit, "oooox", 12.0) == [False] * 5
    assert row_of(circuit, "oxoox", 13.0) == [False] * 5
    assert circuit.state == "closed"


def test_only_a_failure_opens_it() -> None:
    # Four of five have failed when the sixth request makes them enough; it went well.
    circuit = closed()
    assert row_of(circuit, "xxoxxo", 1.0) == [False] * 6
    assert circuit.note(True, 1.0)
    assert circuit.cause == "5 of 7 requests failed"


def test_a_share_is_divided_not_multiplied() -> None:
    # 0.55 * 100 is more than 55.
    circuit = Circuit(Breaker(failures_max=0, failed_share=0.55, requests_min=100))
    assert row_of(circuit, "o" * 45 + "x" * 55, 1.0) == [False] * 99 + [True]


def test_each_way_to_open_can_be_off() -> None:
    circuit = Circuit(Breaker(failures_max=0, failed_share=0))
    assert not any(row_of(circuit, "x" * 500, 1.0))
    circuit = Circuit(Breaker(failures_max=0))
    assert row_of(circuit, "x" * 20, 1.0) == [False] * 19 + [True]
    circuit = Circuit(Breaker(failed_share=0))
    assert not any(row_of(circuit, "xxxxo" * 100, 1.0))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("failures_max", -1, "failures_max is -1; it must be above 0, or 0 for no such limit"),
        ("failed_share", 1.1, "failed_share is 1.1; it must be from 0 to 1, such as 0.5 for half"),
        ("failed_share", -0.1, "failed_share is -0.1; it must be from 0 to 1, such as 0.5 for half"),
        ("requests_min", 0, "requests_min is 0; it must be above 0"),
        ("window_s", 0, "window_s is 0; it must be above 0"),
        ("open_s", -1, "open_s is -1; it must be above 0"),
        ("trials", 0, "trials is 0; it must be above 0"),
        ("successes", 0, "successes is 0; it must be above 0"),
        ("open_max_s", 4.9, "open_max_s is 4.9; it must be open_s, 5.0, or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        Breaker(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value) == message


# ---------------------------------------------------------------------------------------------------- any sequence


class Attempt:
    """One attempt, which the circuit cannot tell from another."""

    def __init__(self, trial_in: int) -> None:
        self.trial_in = trial_in
        """The round of trials that it began in; 0: in none."""


class Naive:
    """The table again, from lists of all that happened. A slot of the window is a second."""

    def __init__(self, settings: Breaker) -> None:
        self.settings = settings
        self.state = "closed"
        self.outcomes: list[tuple[int, bool]] = []
        """Since the state began: the second, and whether it failed."""
        self.openings: list[float] = []
        """Since it was closed: when."""
        self.going_on = 0

    @property
    def until(self) -> float:
        settings = self.settings
        if self.state != "open":
            return 0.0
        return self.openings[-1] + float(min(settings.open_s * 2 ** (len(self.openings) - 1), settings.open_max_s))

    @property
    def allows(self) -> bool:
        return self.state == "closed" or (self.state == "half_open" and self.going_on < self.settings.trials)

    def enter(self, state: str) -> None:
        self.state = state
        self.outcomes = []
        self.going_on = 0
        if state == "closed":
            self.openings = []

    def note(self, failed: bool, now: float) -> None:
        settings = self.settings
        if self.state == "closed":
            self.outcomes.append((int(now), failed))
            row = self.outcomes[-settings.failures_max :] if settings.failures_max else []
            in_a_row = len(row) == settings.failures_max > 0 and all(bad for _, bad in row)
            window = [bad for second, bad in self.outcomes if second >= int(now) - 10]
            share = 0 < settings.failed_share <= sum(window) / len(window) and len(window) >= settings.requests_min
            if failed and (in_a_row or share):
                self.openings.append(now)
                self.enter("open")
        elif self.going_on:
            self.going_on -= 1
            self.outcomes.append((int(now), failed))
            if failed:
                self.openings.append(now)
                self.enter("open")
            elif len(self.outcomes) == settings.successes:
                self.enter("closed")


class Sequences(RuleBasedStateMachine):
    """Attempts that begin, fail, succeed and end at any time and in any order, on a clock of eighths of a second."""

    @initialize(
        failures_max=st.integers(0, 4),
        failed_share=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
        requests_min=st.integers(1, 8),
        doublings=st.sampled_from([1.0, 3.0, 8.0]),
        trials=st.integers(1, 3),
        successes=st.integers(1, 3),
    )
    def start(
        self,
        failures_max: int,
        failed_share: float,
        requests_min: int,
        doublings: float,
        trials: int,
        successes: int,
    ) -> None:
        settings = Breaker(
            failures_max=failures_max,
            failed_share=failed_share,
            requests_min=requests_min,
            open_s=4.0,
            open_max_s=4.0 * doublings,
            trials=trials,
            successes=successes,
        )
        self.circuit = Circuit(settings)
        self.model = Naive(settings)
        self.now = 0.0
        self.round = 0
        self.attempts: list[Attempt] = []
        self.too_many = 0

    @rule(eighths=st.one_of(st.integers(0, 40), st.integers(0, 800)))
    def time_passes(self, eighths: int) -> None:
        self.now += eighths / 8

    @rule()
    def bell(self) -> None:
        due = self.model.state == "open" and self.now >= self.model.until
        if due:
            self.model.enter("half_open")
            self.round += 1
            self.too_many = 0
        assert self.circuit.ring(self.now) == due

    @precondition(lambda self: self.circuit.allows and len(self.attempts) < 20)
    @rule()
    def begin(self) -> None:
        self.attempts.append(Attempt(self.round if self.model.state == "half_open" else 0))
        self.circuit.begin()
        if self.model.state == "half_open":
            self.model.going_on += 1

    @precondition(lambda self: self.attempts)
    @rule(which=st.integers(0, 19), outcome=st.sampled_from([None, False, True, True]))
    def comes_to_something(self, which: int, outcome: bool | None) -> None:
        attempt = self.attempts.pop(which % len(self.attempts))
        before = self.model.state
        if outcome is None:
            self.model.going_on = max(0, self.model.going_on - 1)
            self.circuit.end()
        else:
            self.model.note(outcome, self.now)
            assert self.circuit.note(outcome, self.now) == (self.model.state != before)
        self.too_many += attempt.trial_in != self.round

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        circuit, model = self.circuit, self.model
        assert (circuit.state, circuit.until, circuit.allows) == (model.state, model.until, model.allows)
        assert (circuit.cause == "") == (model.state == "closed")

    @invariant()
    def trials_are_as_few_as_was_promised(self) -> None:
        if self.circuit.state == "half_open":
            trials = sum(1 for attempt in self.attempts if attempt.trial_in == self.round)
            assert trials <= self.model.settings.trials + self.too_many

    def teardown(self) -> None:
        # Whatever has happened: an endpoint that is well again is found to be, by as many trials as it takes.
        if not hasattr(self, "circuit"):
            return
        circuit = self.circuit
        for _ in self.attempts:
            circuit.end()
        circuit.ring(max(self.now, circuit.until))
        for _ in range(self.model.settings.successes):
            assert circuit.allows
            circuit.begin()
            circuit.note(False, self.now + 1000.0)
        assert circuit.state == "closed"


TestSequences = Sequences.TestCase
