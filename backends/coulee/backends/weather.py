"""The weather of a simulated run: which faults and delays it has, and how strong they are.

It is a value; chance itself is in `network`. Times are float seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

FAULTS = (
    "split",
    "join",
    "refuse",
    "unreachable",
    "exhausted",
    "black_hole",
    "reset",
    "slow_reader",
    "stopped_reader",
    "blocked",
    "early_read",
    "early_alarm",
    "deaf",
    "shuffle",
)


@dataclass(frozen=True, slots=True)
class Weather:
    """The faults and delays of one run; calm unless told. Shares and chances are from 0 to 1, pairs are (least, most).

    The faults of connecting meet machines only, for a scripted client that is refused tests nothing.
    """

    latency_s: tuple[float, float] = (0.0005, 0.0005)  # one way, for each chunk; order within a direction is kept
    connect_s: tuple[float, float] = (0.001, 0.001)
    job_s: tuple[float, float] = (0.001, 0.001)  # what user code takes
    split: float = 0.0  # share of reads that are cut into small pieces, down to one byte
    join: float = 0.0  # share of chunks that wait and arrive together with the next
    refuse: float = 0.0  # share of connects that are refused
    unreachable: float = 0.0  # share of connects that fail as unreachable
    exhausted: float = 0.0  # share of connects that fail for want of ports or descriptors
    black_hole: float = 0.0  # share of connects that nobody answers
    reset: float = 0.0  # chance for each chunk that the connection is reset somewhere within it
    slow_reader: float = 0.0  # share of scripted ends that take little at a time, with pauses
    stopped_reader: float = 0.0  # share of scripted ends that stop reading at some point, for long
    window_bytes: tuple[int, int] = (262_144, 262_144)  # what a direction holds before its writer is blocked
    early_read: float = 0.0  # share of Holds after which one read still arrives (law 4)
    early_alarm: float = 0.0  # share of alarms that ring up to 1 ms early (law 6)
    deaf: float = 0.0  # share of resets that a held connection hears only at its next Send or Receive, as loops do
    shuffle: bool = False  # what is due at one instant comes in any order across connections (law 5)

    @classmethod
    def calm(cls) -> Weather:
        """No faults, small constant delays."""
        return cls()

    @classmethod
    def swarm(cls, rng: Random) -> Weather:
        """Swarm testing: each kind of fault is wholly off in about half of the runs, and of any strength in the rest.

        Groce et al., "Swarm Testing" (ISSTA 2012): what is left out lets the rest go further.
        """

        def share(most: float) -> float:
            drawn, strength = rng.random() < 0.5, rng.random()
            return round(most * strength, 4) if drawn else 0.0

        return cls(
            latency_s=(0.0, share(0.02)),
            connect_s=(0.0, share(0.1)),
            job_s=(0.0, share(0.1)),
            split=share(0.5),
            join=share(0.3),
            refuse=share(0.3),
            unreachable=share(0.2),
            exhausted=share(0.1),
            black_hole=share(0.2),
            reset=share(0.1),
            slow_reader=share(0.5),
            stopped_reader=share(0.3),
            window_bytes=(rng.choice((64, 1024, 16_384)), 65_536) if rng.random() < 0.5 else (262_144, 262_144),
            early_read=share(1.0),
            early_alarm=share(1.0),
            deaf=share(1.0),
            shuffle=rng.random() < 0.5,
        )

    def subsided(self) -> Weather:
        """What is left when faults stop: delays, and the ways in which bytes and alarms may come."""
        return replace(
            self, refuse=0.0, unreachable=0.0, exhausted=0.0, black_hole=0.0, reset=0.0, deaf=0.0, slow_reader=0.0,
            stopped_reader=0.0,
        )  # fmt: skip


CALM = Weather()
