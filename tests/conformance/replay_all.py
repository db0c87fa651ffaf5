"""Replays recordings of scenarios: `python -m tests.conformance.replay_all MANIFEST`, in a process of its own, whose
order of hashes may be another. Prints what differs, and then how many there were."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from coulee.backends.recording import Recording
from coulee.backends.replay import Replay
from coulee.core import Peer, Proxy
from coulee.lb import Cluster
from tests.conformance.scenarios import SCENARIOS

Entry = tuple[str, str, list[tuple[Any, str]]]
"""A scenario's name, the file, and its endpoints: address and name."""


def replayed(entry: Entry) -> list[str]:
    """What a fresh core does otherwise, as lines. The listeners are in the recording's first turn, and in `listen`."""
    name, path, endpoints = entry
    scenario = SCENARIOS[name]
    recording = Recording(path, trusted=True)
    peers = [Peer(where if isinstance(where, str) else (where[0], where[1]), name=known) for where, known in endpoints]
    listen_at = recording.header.about["listen_at"]
    places = [where if isinstance(where, str) else (where[0], where[1]) for where in listen_at]
    filters = [make() for make in scenario.filters]
    replay = Replay(recording, Proxy(Cluster(*peers), filters, scenario.config, listen=places))
    lines: list[str] = []
    for turn in recording:
        step = replay.step(turn)
        if step.difference:
            lines.append(f"{name}, turn {step.number}, {turn.completion!r:.150}: {step.difference}")
            break
    if not lines and recording.end != "the machine has finished":
        lines.append(f"{name}: {recording.end}")
    return lines


if __name__ == "__main__":
    entries: list[Entry] = json.loads(Path(sys.argv[1]).read_text())
    for each in entries:
        print(*replayed(each), sep="\n", end="")
    print(f"{len(entries)} replayed")
