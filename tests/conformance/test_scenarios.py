"""One set of scenarios leaves the same access records and the same bytes on every backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import pytest

from coulee.backends.simulator import Weather
from coulee.conformance import Harness
from coulee.core.seam import Completion, ListenAt, Machine, Operation
from tests.conformance.harness import SimulatedHarness
from tests.conformance.scenarios import SCENARIOS
from tests.conformance.scenarios.golden import read
from tests.conformance.scenarios.script import answer, ask, chunk
from tests.conformance.stage import END, Scenario, Stage, play

MOMENT_S = 0.03


@pytest.fixture(scope="module")
def golden() -> dict[str, str]:
    return read()


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_outcome_is_the_same_everywhere(name: str, harness: Harness, golden: dict[str, str]) -> None:
    assert play(SCENARIOS[name], harness, at_the_end=_nothing_is_due) == golden[name]


def _nothing_is_due(stage: Stage) -> None:
    """Where time costs nothing, see that the script has waited for all that was to happen."""
    if isinstance(stage.harness, SimulatedHarness):
        before = stage.transcript()
        stage.harness.simulator.advance(MOMENT_S)
        assert stage.transcript() == before, "the script has ended before its scenario"


def test_every_scenario_is_written_down(golden: dict[str, str]) -> None:
    assert list(golden) == list(SCENARIOS)
    assert len(golden) >= 60


# -- the stage itself


def _in_the_simulator(script: Callable[[Stage], None], *records: str) -> str:
    return play(Scenario("a test", script, records), SimulatedHarness(Weather.calm()), at_the_end=_nothing_is_due)


def test_a_script_that_ends_too_early_is_found() -> None:
    def leaves_an_origin_alone(stage: Stage) -> None:
        client = stage.client(ask())
        stage.until(lambda: stage.places[0].peers, "somebody to come")
        client.resets()

    def leaves_an_exchange_alone(stage: Stage) -> None:
        stage.client(ask())
        stage.origin().hears(END)

    def does_not_wait_for_the_answer(stage: Stage) -> None:
        stage.client(ask())
        origin = stage.origin()
        origin.hears(END)
        origin.says(answer(body=b"hello"))

    with pytest.raises(AssertionError, match="that the script did not expect"):
        _in_the_simulator(leaves_an_origin_alone, "0 client_gone")
    with pytest.raises(AssertionError, match="before its scenario"):
        _in_the_simulator(leaves_an_exchange_alone)
    with pytest.raises(AssertionError, match="before its scenario"):
        _in_the_simulator(does_not_wait_for_the_answer, "200")


def test_a_record_that_is_not_as_expected_is_found() -> None:
    def plays(stage: Stage) -> None:
        stage.client(b"garbage\r\n\r\n").hears_eof()

    _in_the_simulator(plays, "400 bad_request")
    with pytest.raises(AssertionError, match="400 bad_request"):
        _in_the_simulator(plays, "200")


def test_where_a_body_is_cut_does_not_show_and_all_else_does() -> None:
    def in_chunks(*pieces: bytes) -> str:
        def plays(stage: Stage) -> None:
            client = stage.client(ask())
            origin = stage.origin()
            origin.hears(END)
            origin.says(answer("200 OK", "Transfer-Encoding: chunked"))
            heard = b""
            for piece in pieces:
                origin.says(chunk(piece))
                heard += piece
                client.hears_bytes(len(heard))
                client.heard = 0
                client.hears(heard)
            origin.says(b"0\r\n\r\n")
            client.hears(b"0\r\n\r\n")

        return _in_the_simulator(plays, "200")

    assert in_chunks(b"one", b"two") == in_chunks(b"onetwo") == in_chunks(b"o", b"netw", b"o")
    assert in_chunks(b"one", b"tw0") != in_chunks(b"onetwo")


def test_whoever_plays_may_wrap_the_machine() -> None:
    seen: list[Completion | None] = []

    class Listens:
        def __init__(self, machine: Machine) -> None:
            self.machine = machine

        def fresh(self, *, rng: Random, wall_clock_offset_s: float, listen: Sequence[ListenAt]) -> Listens:
            return Listens(self.machine.fresh(rng=rng, wall_clock_offset_s=wall_clock_offset_s, listen=listen))

        def handle(self, completion: Completion | None, now: float) -> list[Operation]:
            seen.append(completion)
            return self.machine.handle(completion, now)

        @property
        def deadline(self) -> float | None:
            return self.machine.deadline

        @property
        def finished(self) -> bool:
            return self.machine.finished

    name = "a get answered with a length"
    assert play(SCENARIOS[name], SimulatedHarness(Weather.calm()), wrap=Listens) == read()[name]
    assert [type(completion).__name__ for completion in seen[:4]] == ["NoneType", "Listening", "Accepted", "Received"]
