"""`make bench`: what coulee costs, in one run: its codec alone beside h11, its policies alone, and the whole proxy
beside nginx, blind relays and other proxies, in CPU time per request and in memory per idle connection; then how each
backend bears ten thousand connections and those who stop reading, what a second worker brings, and the same proxies
with TLS and with HTTP/2.

Rules: the proxies share one core, the load generator and the origin another; a figure is the proxy process's own user
and system time in a window divided by what was answered in it; every peer is warmed up with every scenario first;
rounds are interleaved, each running every peer once per scenario, so that a slow minute of the machine falls on all of
them. `--only` and `--peers` leave out what is not wanted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from tests.benchmarks import choices, codecs, http2_codecs, idle, many, rings, stopped, workers
from tests.benchmarks.certificate import make_certificate
from tests.benchmarks.http2_peers import BARRED, BARS, HTTP2_PEERS, Http2Peers, shares
from tests.benchmarks.load import Generator
from tests.benchmarks.nginx import Nginx
from tests.benchmarks.peers import CROWDED, PEERS, RELAYS, Peer, Peers, check, need_workers
from tests.benchmarks.processes import BenchError, child, cpu_ns, free_port, wait_ready
from tests.benchmarks.report import Results
from tests.benchmarks.scenarios import (
    H2C_SCENARIOS,
    HTTP2_SCENARIOS,
    SCENARIOS,
    TLS_SCENARIOS,
    WEBSOCKET_SCENARIOS,
    Column,
    Scenario,
)
from tests.benchmarks.websockets import WEBSOCKET_PEERS, WebSocketLoad, WebSocketPeers, echoing

WARM_UP = 1  # seconds
CODEC, CHOICES = "codec", "choices"
ALONE = (CODEC, CHOICES)  # without a proxy
IDLE = Column("idle", "KiB PSS/connection", 2)
MANY, STOPPED, WORKERS = "many", "stopped", "workers"
TLS, TLS_IDLE = "tls", Column("tls-idle", "KiB PSS/connection", 2)
HTTP2 = "http2"
TLS_PARTS = [*TLS_SCENARIOS, TLS_IDLE.name]
HTTP2_PARTS = [*HTTP2_SCENARIOS, *H2C_SCENARIOS]
WEBSOCKETS = "websockets"
PARTS = [*ALONE, *SCENARIOS, IDLE.name, MANY, STOPPED, WORKERS, *TLS_PARTS, *HTTP2_PARTS, *WEBSOCKET_SCENARIOS]
TOGETHER = {TLS: TLS_PARTS, HTTP2: HTTP2_PARTS, WEBSOCKETS: list(WEBSOCKET_SCENARIOS)}
"""Words for several parts."""
ALL_PEERS = list(dict.fromkeys((*PEERS, *HTTP2_PEERS, *WEBSOCKET_PEERS)))
COULEE = list(RELAYS)


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """The type of an option that takes a comma-separated choice of `known`, without repeats."""
    names = list(known)

    def parse(text: str) -> list[str]:
        chosen = [name for word in text.split(",") for name in TOGETHER.get(word.strip(), [word.strip()])]
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
    parser = argparse.ArgumentParser(prog="benchmarks", description="What coulee and its peers cost.")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="rounds; the median counts (3)")
    parser.add_argument("--seconds", type=positive, default=1, metavar="N", help="length of a window (1)")
    parser.add_argument(
        "--only",
        type=some_of(PARTS),
        default=PARTS,
        metavar="PART,...",
        help=f"{', '.join(PARTS)}; tls, http2, websockets: all of these",
    )
    parser.add_argument(
        "--peers", type=some_of(ALL_PEERS), default=ALL_PEERS, metavar="PEER,...", help=", ".join(ALL_PEERS)
    )
    parser.add_argument("--idle", type=positive, default=idle.CONNECTIONS, metavar="N", help="idle connections (5000)")
    parser.add_argument("--many", type=positive, default=many.CONNECTIONS, metavar="N", help="open ones (10000)")
    parser.add_argument("--tls-idle", type=positive, default=2000, metavar="N", help="those with TLS (2000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to FILE")
    return parser.parse_args(arguments)


def say(line: str) -> None:
    """Progress and complaints; the tables alone go to standard output."""
    print(line, file=sys.stderr, flush=True)


def machine(nginx: Nginx, generator: Generator, proxy_core: int, load_core: int) -> str:
    try:
        uvloop = f"uvloop {importlib.metadata.version('uvloop')}"
    except importlib.metadata.PackageNotFoundError:
        uvloop = "no uvloop"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    cores = f"{os.cpu_count()} cores (proxies on {proxy_core}, load and origin on {load_core})"
    generators = f"{generator.name}, {generator.http2_name}"
    return f"{python}, {uvloop}, {nginx.version}, {generators}, {platform.system()} {platform.release()}, {cores}"


def bench_codecs() -> dict[str, object]:
    """The codecs without a proxy around them; printed, and as JSON."""
    say("the codecs alone ...")
    times = codecs.measure()
    print(f"\nCodecs alone, one small exchange; median of {codecs.ROUNDS} rounds\n")
    print(codecs.table(times), end="\n\n", flush=True)
    say("the libraries of HTTP/2 alone ...")
    libraries = http2_codecs.measure()
    print(f"\nLibraries of HTTP/2 alone, one small exchange; median of {http2_codecs.ROUNDS} rounds\n")
    print(codecs.table(libraries), end="\n\n", flush=True)
    return codecs.as_json(times) | {"http2": http2_codecs.as_json(libraries)}


def bench_policies() -> dict[str, object]:
    """The policies without a proxy around them; printed, and as JSON."""
    say("the policies alone ...")
    chosen = choices.choices()
    print(f"\nPolicies alone, among {choices.COUNT:,} endpoints; median of {choices.ROUNDS} rounds\n")
    print(choices.table(chosen), end="\n\n", flush=True)
    say("their tables ...")
    built = rings.tables()
    print(f"\nTheir tables, for {rings.COUNT:,} endpoints; median of {rings.ROUNDS} rounds\n")
    print(rings.table(built), end="\n\n", flush=True)
    return {"choices": choices.as_json(chosen), "tables": rings.as_json(built)}


def bench(asked: argparse.Namespace) -> tuple[str, list[Results]]:
    """The whole proxies: start what they need, measure them, end everything. Also says on what machine."""
    cores = sorted(os.sched_getaffinity(0))
    load_core, proxy_core = cores[0], cores[-1]
    os.sched_setaffinity(0, {load_core})  # some of the load is made here
    if load_core == proxy_core:
        say("bench: only one core, so the peers share it with the load and the figures are rough")
    scenarios = [SCENARIOS[name] for name in asked.only if name in SCENARIOS]
    results = Results([name for name in asked.peers if name in PEERS], [each.column for each in scenarios])
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coulee-bench-")))
        nginx, generator = Nginx(folder), Generator(load_core, folder)
        origin, http2_origin = free_port(), free_port()
        # before the origin starts, which needs files too
        idling = IDLE.name in asked.only and may_open(IDLE.name, idle.files_needed(asked.idle))
        crowded = MANY in asked.only and may_open(MANY, asked.many + many.SPARE_FILES)
        wait_ready(stack.enter_context(child("origin", nginx.origin(origin, http2_origin), load_core, folder)), origin)
        for scenario in scenarios:
            check("origin", origin, scenario)
        peers = Peers(nginx, origin, proxy_core, folder)
        if scenarios:
            measure_cpu(asked, scenarios, peers, generator, results)
        if idling:
            measure_idle(asked.idle, peers, results, IDLE)
        tables = [results]
        if any(name in TLS_PARTS for name in asked.only):
            tables.append(over_tls(asked, replace(peers, certificate=make_certificate(folder)), generator))
        ours = [name for name in asked.peers if name in COULEE]
        if any(name in HTTP2_PARTS for name in asked.only):
            tables += over_http2(asked, replace(peers, certificate=make_certificate(folder)), http2_origin, generator)
        if any(name in WEBSOCKET_SCENARIOS for name in asked.only):
            tables.append(over_websockets(asked, peers, load_core))
        if crowded:
            base = [name for name in asked.peers if name == "nginx"]
            tables.append(each_alone(MANY, [*base, *ours], many.COLUMNS, lambda name: crowd_of(peers, name, asked)))
        if STOPPED in asked.only:
            tables.append(each_alone(STOPPED, ours, stopped.COLUMNS, lambda name: beside_stopped(peers, name, asked)))
        if WORKERS in asked.only:
            tables.append(each_alone(WORKERS, ours, workers.COLUMNS, lambda name: workers_of(peers, name)))
        return machine(nginx, generator, proxy_core, load_core), tables


def may_open(part: str, files: int) -> bool:
    """Whether so many files can be had; where not, it is said."""
    try:
        idle.allow_files(files)
    except BenchError as error:
        say(f"bench: {part} is left out: {error}")
        return False
    return True


def measure_cpu(
    asked: argparse.Namespace,
    scenarios: Sequence[Scenario],
    peers: Peers,
    generator: Generator | WebSocketLoad,
    results: Results,
) -> None:
    """Run the rounds; what cannot run is taken out of the results."""
    with contextlib.ExitStack() as stack:
        running: list[Peer] = []
        for name in list(results.peers):
            try:
                running.append(stack.enter_context(peers.running(name, scenarios)))
            except BenchError as error:
                say(f"bench: {name} is skipped: {error}")
        results.peers = [peer.name for peer in running]
        if not running:
            raise BenchError("no peer can run here")
        for number in range(1, asked.rounds + 1):
            for scenario in scenarios:
                for peer in running:
                    where = f"round {number}/{asked.rounds} {scenario.name} {peer.name}"
                    try:
                        if number == 1:
                            generator.run(scenario, peer.port, WARM_UP)
                        before = cpu_ns(peer.pid)
                        load = generator.run(scenario, peer.port, asked.seconds)
                        figure = scenario.figure(load, cpu_ns(peer.pid) - before)
                    except BenchError as error:
                        say(f"bench: {where}: {error}")
                    else:
                        results.add(peer.name, scenario.column, number, figure)
                        say(f"{where}: {figure:,.1f} ({load.requests:,} requests)")


def over_tls(asked: argparse.Namespace, peers: Peers, generator: Generator) -> Results:
    """The same proxies with TLS towards clients; relays are left out."""
    scenarios = [TLS_SCENARIOS[name] for name in asked.only if name in TLS_SCENARIOS]
    results = Results(
        [name for name in asked.peers if name in PEERS and name not in RELAYS.values()],
        [each.column for each in scenarios],
    )
    if scenarios:
        measure_cpu(asked, scenarios, peers, generator, results)
    if TLS_IDLE.name in asked.only and may_open(TLS_IDLE.name, idle.files_needed(asked.tls_idle)):
        measure_idle(asked.tls_idle, peers, results, TLS_IDLE)
    return results


def over_http2(asked: argparse.Namespace, peers: Peers, http2_origin: int, generator: Generator) -> list[Results]:
    """Those that speak HTTP/2 to clients, in front of an origin that does not, and of one that does."""
    tables: list[Results] = []
    for known, origin in ((HTTP2_SCENARIOS, peers.origin), (H2C_SCENARIOS, http2_origin)):
        scenarios = [known[name] for name in asked.only if name in known]
        if not scenarios:
            continue
        to_http2 = known is H2C_SCENARIOS
        running = Http2Peers(peers.nginx, origin, peers.core, peers.folder, peers.certificate, to_http2)
        results = Results([name for name in asked.peers if name in HTTP2_PEERS], [each.column for each in scenarios])
        measure_cpu(asked, scenarios, running, generator, results)
        tables.append(results)
    return tables


def over_websockets(asked: argparse.Namespace, peers: Peers, load_core: int) -> Results:
    """Messages that are echoed, unseen and seen by a filter."""
    scenarios = [WEBSOCKET_SCENARIOS[name] for name in asked.only if name in WEBSOCKET_SCENARIOS]
    results = Results([name for name in asked.peers if name in WEBSOCKET_PEERS], [each.column for each in scenarios])
    with echoing(load_core, peers.folder) as origin:
        running = WebSocketPeers(peers.nginx, origin, peers.core, peers.folder)
        measure_cpu(asked, scenarios, running, WebSocketLoad(), results)
    return results


def say_shares(results: Results) -> None:
    """Under a table of HTTP/2: what coulee costs of what the others do."""
    for column in results.columns:
        if column.name not in HTTP2_PARTS:
            continue
        costs = {name: results.median(name, column) for name in results.peers}
        bars = BARS if column.name == BARRED else {}
        lines = shares({name: cost for name, cost in costs.items() if cost is not None}, bars)
        if lines:
            print("\n" + "\n".join(f"{column.name} {line}" for line in lines), flush=True)


def measure_idle(connections: int, peers: Peers, results: Results, column: Column) -> None:
    """A fresh process of every peer, one after the other."""
    results.columns = [*results.columns, column]
    scenario = SCENARIOS["small"] if peers.certificate is None else TLS_SCENARIOS["tls-small"]
    for name in results.peers:
        try:
            with peers.running(name, [scenario], app=CROWDED) as peer:
                figure = idle.idle_kib(peer, connections)
        except BenchError as error:
            say(f"bench: {column.name} {name}: {error}")
        else:
            results.add(name, column, 1, figure)
            say(f"{column.name} {name}: {figure:,.2f} ({connections:,} connections)")


def each_alone(
    part: str, names: Sequence[str], columns: Sequence[Column], measure: Callable[[str], Mapping[Column, float]]
) -> Results:
    """What is not measured in rounds: every peer with a fresh process, one after the other."""
    results = Results(list(names), list(columns))
    for name in names:
        try:
            figures = measure(name)
        except BenchError as error:
            say(f"bench: {part} {name}: {error}")
            continue
        for column, figure in figures.items():
            results.add(name, column, 1, figure)
        say(f"{part} {name}: " + ", ".join(f"{column.name} {figure:,.2f}" for column, figure in figures.items()))
    return results


def crowd_of(peers: Peers, name: str, asked: argparse.Namespace) -> Mapping[Column, float]:
    with peers.running(name, [SCENARIOS["small"]], app=CROWDED) as peer:
        return many.measure(peer, asked.many, max(asked.seconds, 2)).figures


def beside_stopped(peers: Peers, name: str, asked: argparse.Namespace) -> Mapping[Column, float]:
    at_once = ["--grace", "0"]  # what is stuck would last
    with (
        stopped.origin_that_does_not_read() as stuck,
        peers.running(name, [SCENARIOS["small"]], app=stopped.APP.format(port=stuck), options=at_once) as peer,
    ):
        return stopped.measure(peer, asked.seconds)


def workers_of(peers: Peers, name: str) -> Mapping[Column, float]:
    need_workers()
    everywhere = replace(peers, core=None)

    def running(count: int) -> AbstractContextManager[Peer]:
        options = ["--workers", str(count)]
        return everywhere.running(name, [SCENARIOS["small"]], app=workers.APP, options=options)

    return workers.measure(running)


def stop(number: int, _: object) -> None:
    sys.exit(128 + number)


def main() -> int:
    asked = options()
    if not sys.platform.startswith("linux"):
        say("bench: needs Linux, for pinning and per-process CPU clocks")
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    found: dict[str, object] = {}
    try:
        for part in ALONE:
            if part in asked.only:
                found[part] = bench_codecs() if part == CODEC else bench_policies()
        if any(part not in ALONE for part in asked.only):
            about, tables = bench(asked)
            found |= {"machine": about, "tables": [each.as_json() for each in tables]}
            print(f"\n{about}")
            print(f"median of {asked.rounds} rounds of {asked.seconds} s; times nginx, times the relay of that backend")
            for each in tables:
                if each.columns:
                    print(f"\n{each.table()}", flush=True)
                    say_shares(each)
            if not any(each.figures for each in tables):
                return 1
        if asked.json is not None:
            asked.json.write_text(json.dumps(found, indent=2) + "\n")
    except KeyboardInterrupt:
        say("bench: stopped")
        return 130
    except (BenchError, OSError) as error:
        say(f"bench: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
