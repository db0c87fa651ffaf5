"""The backends under test."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Iterator

import pytest

from coulee.backends.loop import Selector
from coulee.backends.simulator import Weather
from coulee.conformance import Harness
from tests.conformance.harness import AsyncioHarness, SimulatedHarness, ThreadsHarness

ROUGH = Weather(
    latency_s=(0.0, 0.01),
    split=0.3,
    join=0.3,
    window_bytes=(1000, 100_000),
    early_read=1.0,
    early_alarm=1.0,
    deaf=1.0,
    shuffle=True,
)


def _uvloop() -> Harness:
    pytest.importorskip("uvloop")
    return AsyncioHarness(importlib.import_module("uvloop").new_event_loop)


def _trio() -> Harness:
    pytest.importorskip("trio")
    from tests.conformance.trio_harness import TrioHarness

    return TrioHarness()


def _curio() -> Harness:
    if importlib.util.find_spec("curio") is None:
        pytest.skip("curio is not installed")
    from tests.conformance.curio_harness import CurioHarness

    return CurioHarness()


HARNESSES: dict[str, Callable[[], Harness]] = {
    "asyncio": lambda: AsyncioHarness(asyncio.new_event_loop),
    "uvloop": _uvloop,
    "trio": _trio,
    "curio": _curio,
    "threads": ThreadsHarness,
    "threads, without epoll": lambda: ThreadsHarness(Selector()),
    "simulator": lambda: SimulatedHarness(Weather.calm()),
    "simulator, rough": lambda: SimulatedHarness(ROUGH),
}


@pytest.fixture(params=HARNESSES)
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    made = HARNESSES[request.param]()
    try:
        yield made
    finally:
        made.end()
