"""The cases of Autobahn, by kosoku: what the package `websockets` passes directly, it passes behind coulee, whether
bytes pass through or a filter sees each message.

The short form is a selection; WEBSOCKET_LONG=1 has all of them (`make sweep`, `make websockets`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.interop.fleet import HOST
from tests.interop.http2_proxied import serving
from tests.interop.websocket_doors import LONG, WAYS, before

Verdicts: TypeAlias = dict[str, tuple[str, str]]
"""Of each case how it went, and how its connection was closed."""

FRAGMENTS_MAX = 65_536
"""So many frames of 64 bytes has the message of 4 MiB in the cases 9.3.1 and 9.4.1."""

PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")
AT_ONCE = 8
SELECTION = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.1.*", "6.2.*", "6.3.*", "6.4.*", "7.*", "10.*", "9.1.1", "9.3.9",
             "9.5.1", "12.1.1", "12.1.3", "12.1.11", "12.2.4", "13.2.1", "13.7.3"]  # fmt: skip
CASES, FEWEST = (["*"], 517) if LONG else (SELECTION, 120)


def judged(port: int, folder: Path) -> Verdicts:
    """What kosoku finds of the server at a port."""
    program = str(Path(sys.executable).with_name("kosoku"))
    chosen = [part for case in CASES for part in ("-i", case)]
    command = [program, "-m", "fuzzingclient", "-p", str(AT_ONCE), *chosen, "-o", str(folder), f"ws://{HOST}:{port}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    index = folder / "index.json"
    assert index.exists(), f"kosoku ended with code {done.returncode}: {done.stderr}"
    agents = json.loads(index.read_text()).values()  # it knows a server by a field, where it got so far
    return {case: (found["behavior"], found["behaviorClose"]) for cases in agents for case, found in cases.items()}


def bad(verdicts: Verdicts) -> set[str]:
    """The cases that were not passed."""
    return {case for case, verdict in verdicts.items() if not set(verdict) <= set(PASSED)}


@pytest.fixture(scope="module")
def origin() -> Iterator[int]:
    """The port of a server that echoes."""
    for package in ("kosoku", "websockets"):
        pytest.importorskip(package, reason=f"the package {package} is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEBSOCKETS_MAX_FRAGMENTS", str(FRAGMENTS_MAX))
        with serving("websocket_origin.py") as ports:
            yield ports["port"]


@pytest.fixture(scope="module")
def directly(origin: int, tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """How the server does alone."""
    verdicts = judged(origin, tmp_path_factory.mktemp("directly"))
    assert len(verdicts) >= FEWEST, "kosoku has other cases than it had"
    assert len(bad(verdicts)) <= len(verdicts) // 50, f"more is wrong here than coulee: {bad(verdicts)}"
    return verdicts


@pytest.mark.parametrize("way", WAYS)
def test_what_passes_directly_passes_through_coulee(origin: int, directly: Verdicts, way: str, tmp_path: Path) -> None:
    with before(f"http://{HOST}:{origin}", way, "asyncio", fragments_max=FRAGMENTS_MAX) as coulee:
        verdicts = judged(coulee.port, tmp_path)
    assert verdicts.keys() == directly.keys()
    worse = {case: (directly[case], verdicts[case]) for case in bad(verdicts) - bad(directly)}
    assert not worse
