"""Where the CPU time of a WebSocket message goes, up and down, in the pure machine: seen by a filter, or unseen.

Rules: those of `profile_http2.py`: only `handle` is timed, first without a profile, so that the figure is an honest
one; the shares come from a second run under cProfile.

    python -m tests.benchmarks.profile_websocket [--unseen] [--bytes N] [--rounds N] [--lines N]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable
from random import Random
from typing import Any

from coulee.core import Exchange, Filter, Message, Proxy
from coulee.core.machine import KernelMachine
from coulee.core.seam import Accepted, Completion, Connected, Listening, Operation, Received
from coulee.lb import Cluster
from tests.benchmarks.echo_origin import head
from tests.benchmarks.profile_http2 import HERE, THERE, shares, table
from tests.benchmarks.websockets import ASK, masked_frame

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
WARM_UP_ROUNDS = 1000


class Look(Filter):
    """Sees each message, and changes nothing."""

    def websocket_message(self, exchange: Exchange, message: Message) -> None:
        return None


class Bed:
    """The machine with one client and one origin behind their 101."""

    def __init__(self, *filters: Filter, size: int) -> None:
        proxy = Proxy(Cluster(f"http://{THERE[0]}:{THERE[1]}"), filters)
        self.machine: KernelMachine = proxy.fresh(rng=Random(6455), wall_clock_offset_s=1e9, listen=[HERE])
        self.handle: Callable[[Completion | None, float], list[Operation]] = self.machine.handle
        self.now = 0.0
        self.cpu_ns = 0
        listen: Any = self.give(None)[0]
        (accept, *_) = self.give(Listening(listen.listener, HERE))[-1:]
        client: int = vars_of(accept)["conn"]
        self.give(Accepted(client, ("10.0.0.9", 50000), HERE))
        (connect,) = [each for each in self.give(Received(client, ASK)) if "address" in vars_of(each)]
        origin: int = vars_of(connect)["conn"]
        self.give(Connected(origin, THERE, HERE))
        self.give(Received(origin, SWITCH))
        self.up = Received(client, masked_frame(size))
        self.down = Received(origin, head(size) + bytes(size))

    def give(self, completion: Completion | None) -> list[Operation]:
        self.now += 1e-5
        began = time.process_time_ns()
        operations = self.handle(completion, self.now)
        self.cpu_ns += time.process_time_ns() - began
        return operations

    def measure(self, rounds: int) -> float:
        """CPU microseconds for a message up and one down."""
        self.cpu_ns = 0
        for _ in range(rounds):
            sent = self.give(self.up) + self.give(self.down)
            assert len(sent) == 2, sent
        return self.cpu_ns / 1e3 / rounds


def vars_of(operation: Operation) -> dict[str, Any]:
    """The fields of an operation."""
    return {name: getattr(operation, name) for name in type(operation).__slots__}


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the time of a WebSocket message goes.")
    parser.add_argument("--unseen", action="store_true", help="without a filter")
    parser.add_argument("--bytes", type=int, default=100, metavar="N", help="of a message (100)")
    parser.add_argument("--rounds", type=int, default=20_000, metavar="N", help="messages up and down (20,000)")
    parser.add_argument("--lines", type=int, default=0, metavar="N", help="also the N functions that take longest")
    asked = parser.parse_args()
    bed = Bed(*([] if asked.unseen else [Look()]), size=asked.bytes)
    bed.measure(min(WARM_UP_ROUNDS, asked.rounds))
    alone = bed.measure(asked.rounds)
    profile = cProfile.Profile()
    handle = bed.machine.handle
    bed.handle = lambda completion, now: profile.runcall(handle, completion, now)
    bed.measure(asked.rounds)
    print(f"{alone:.1f} CPU us in the machine for a message up and one down, without sockets or a loop\n")
    stats = pstats.Stats(profile)
    print(table(shares(stats), alone, "us/echo"))
    if asked.lines:
        stats.sort_stats("tottime").print_stats(asked.lines)


if __name__ == "__main__":
    main()
