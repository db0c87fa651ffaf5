"""`make bench`: CPU time per request of coulee beside nginx, a blind relay and an aiohttp proxy, in one run.

Rules: the proxies share one core, the load generator and the origin another; a figure is the proxy process's own user
and system time in a window divided by what was answered in it; every window has a warm-up before it; rounds are
interleaved, each running every peer once per scenario, so that a slow minute of the machine falls on all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.benchmarks.load import Generator
from tests.benchmarks.nginx import Nginx
from tests.benchmarks.peers import PEERS, Peer, check, running
from tests.benchmarks.processes import BenchError, child, cpu_ns, free_port, wait_ready
from tests.benchmarks.report import Results
from tests.benchmarks.scenarios import SCENARIOS

WARM_UP = 1  # seconds


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """The type of an option that takes a comma-separated choice of `known`, without repeats."""
    names = list(known)

    def parse(text: str) -> list[str]:
        chosen = [word.strip() for word in text.split(",")]
        unknown = [word for word in chosen if word not in names]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)} (choose from {', '.join(names)})")
        return list(dict.fromkeys(chosen))

    return parse


def positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"not a whole number of at least 1: {text}")
    return number


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description="CPU time per request of coulee and its peers.")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="rounds; the median counts (3)")
    parser.add_argument("--seconds", type=positive, default=3, metavar="N", help="length of a window (3)")
    parser.add_argument("--only", type=some_of(SCENARIOS), default=list(SCENARIOS), metavar="SCENARIO,...")
    parser.add_argument("--peers", type=some_of(PEERS), default=list(PEERS), metavar="PEER,...")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to FILE")
    return parser.parse_args(arguments)


def say(line: str) -> None:
    """Progress and complaints; the table alone goes to standard output."""
    print(line, file=sys.stderr, flush=True)


def machine(nginx: Nginx, generator: Generator, proxy_core: int, load_core: int) -> str:
    try:
        uvloop = f"uvloop {importlib.metadata.version('uvloop')}"
    except importlib.metadata.PackageNotFoundError:
        uvloop = "no uvloop"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    cores = f"{os.cpu_count()} cores (proxies on {proxy_core}, load and origin on {load_core})"
    return f"{python}, {uvloop}, {nginx.version}, {generator.name}, {platform.system()} {platform.release()}, {cores}"


def bench(asked: argparse.Namespace) -> Results:
    """Start everything, run the rounds, end everything."""
    cores = sorted(os.sched_getaffinity(0))
    load_core, proxy_core = cores[0], cores[-1]
    if load_core == proxy_core:
        say("bench: only one core, so the peers share it with the load and the figures are rough")
    scenarios = [SCENARIOS[name] for name in asked.only]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coulee-bench-")))
        nginx, generator = Nginx(folder), Generator(load_core, folder)
        origin = free_port()
        wait_ready(stack.enter_context(child("origin", nginx.origin(origin), load_core, folder)), origin)
        for scenario in scenarios:
            check("origin", origin, scenario)
        peers: list[Peer] = []
        for name in asked.peers:
            try:
                peers.append(stack.enter_context(running(name, nginx, origin, proxy_core, folder, scenarios)))
            except BenchError as error:
                say(f"bench: {name} is skipped: {error}")
        if not peers:
            raise BenchError("no peer can run here")
        about = machine(nginx, generator, proxy_core, load_core)
        results = Results(about, [peer.name for peer in peers], scenarios)
        for number in range(1, asked.rounds + 1):
            for scenario in scenarios:
                for peer in peers:
                    where = f"round {number}/{asked.rounds} {scenario.name} {peer.name}"
                    try:
                        generator.run(scenario, peer.port, WARM_UP)
                        before = cpu_ns(peer.pid)
                        load = generator.run(scenario, peer.port, asked.seconds)
                        figure = scenario.figure(load, cpu_ns(peer.pid) - before)
                    except BenchError as error:
                        say(f"bench: {where}: {error}")
                    else:
                        results.add(peer.name, scenario, number, figure)
                        say(f"{where}: {figure:,.1f} ({load.requests:,} requests)")
        return results


def stop(number: int, _: object) -> None:
    sys.exit(128 + number)


def main() -> int:
    asked = options()
    if not sys.platform.startswith("linux"):
        say("bench: needs Linux, for pinning and per-process CPU clocks")
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        results = bench(asked)
        print(f"\n{results.machine}")
        print(f"median of {asked.rounds} rounds of {asked.seconds} s; times nginx (median of the rounds' ratios)\n")
        print(results.table(), flush=True)
        if asked.json is not None:
            results.write_json(asked.json)
    except KeyboardInterrupt:
        say("bench: stopped")
        return 130
    except (BenchError, OSError) as error:
        say(f"bench: {error}")
        return 1
    return 0 if results.figures else 1


if __name__ == "__main__":
    sys.exit(main())
