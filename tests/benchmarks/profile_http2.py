"""Where the CPU time of an exchange over HTTP/2 goes: in the pure machine alone, without sockets, TLS or an event loop,
or in the whole program under the load of h2load.

Rules: the world is played to the machine by hand: ten clients with 32 requests at once each, whose bytes were made
beforehand, and origins that answer each request at once; only `handle` is timed. That is measured without a profile
first, so that the figure in microseconds is an honest one; the shares come from a second run under cProfile, which
makes small functions look larger than they are. What the standard library does counts for whoever called it, but for
asyncio. The whole program is run twice in the same way; what it waits, and what it takes to start, is left out.

    python -m tests.benchmarks.profile_http2 [--live] [--upstream h1|h2] [--varied] [--rounds N] [--lines N]
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import os
import pstats
import random
import re
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from coulee.core import Config, Limits, Proxy
from coulee.core.seam import (
    Accept,
    Accepted,
    Close,
    Closed,
    Completion,
    Connect,
    Connected,
    Listen,
    Listening,
    Received,
    Send,
)
from coulee.lb import Cluster
from tests.benchmarks.certificate import make_certificate
from tests.benchmarks.http2_codecs import PREFACE, Exchange, Peer, exchanges, hello
from tests.benchmarks.http2_peers import Http2Peers
from tests.benchmarks.load import Generator
from tests.benchmarks.nginx import Nginx
from tests.benchmarks.peers import Command
from tests.benchmarks.processes import child, cpu_ns, free_port, wait_ready
from tests.benchmarks.report import aligned
from tests.benchmarks.scenarios import H2C_SCENARIOS, HTTP2_SCENARIOS

CLIENTS, STREAMS = 10, 32
WARM_UP_ROUNDS = 3
IGNORED = "not its own"
HERE = ("127.0.0.1", 8000)
THERE = ("127.0.0.1", 9000)
SETTINGS_ACK = b"\0\0\0\4\1\0\0\0\0"
_HEADERS, _END_STREAM = 1, 1
_REQUEST_END = b"\r\n\r\n"

Upstream = Literal["h1", "h2"]


class Origin:
    """One connection of an origin."""

    def __init__(self, version: Upstream, answer: Exchange) -> None:
        self.version = version
        self.peer = Peer()
        self.answer = answer
        lines = [b"%b: %b" % field for field in answer.answer[1:]]
        self.text = b"\r\n".join((b"HTTP/1.1 200 OK", *lines, b"", answer.body))

    def hears(self, data: bytes) -> bytes:
        """What it says to that."""
        if self.version == "h1":
            return self.text * data.count(_REQUEST_END)
        said = b""
        if data.startswith(PREFACE):
            data = data[len(PREFACE) :]
            said = hello() + SETTINGS_ACK
        while data:
            end = 9 + int.from_bytes(data[:3], "big")
            if data[3] == _HEADERS:
                said += self.peer.say(int.from_bytes(data[5:9], "big"), self.answer.answer, self.answer.body)
            data = data[end:]
        return said


class Bed:
    """The machine, and the world around it."""

    def __init__(self, upstream: Upstream) -> None:
        self.rng = random.Random(9113)
        self.upstream: Upstream = upstream
        config = Config(limits=Limits(requests_per_connection_max=10**9, connections_per_address_max=0))
        scheme = "h2c" if upstream == "h2" else "http"
        proxy = Proxy(Cluster(f"{scheme}://{THERE[0]}:{THERE[1]}"), config=config)
        self.machine = proxy.fresh(rng=self.rng, wall_clock_offset_s=1e9, listen=[HERE])
        self.handle: Callable[[Completion | None, float], Sequence[Any]] = self.machine.handle
        self.now = 0.0
        self.cpu_ns = 0
        self.todo: deque[Completion | None] = deque([None])
        self.credits: list[Accept] = []
        self.origins: dict[int, Origin] = {}
        self.sent: dict[int, bytes] = {}
        self.answer = exchanges(self.rng, ["0" * 32])[0]
        self.turn()
        self.clients = {self.accepted(): Peer() for _ in range(CLIENTS)}
        for conn in self.clients:
            self.todo.append(Received(conn, PREFACE + hello() + SETTINGS_ACK))
        self.turn()
        self.stream = -1

    def accepted(self) -> int:
        credit = self.credits.pop(0)
        self.todo.append(Accepted(credit.conn, ("10.0.0.9", 50000), HERE))
        self.turn()
        return credit.conn

    def turn(self) -> None:
        """Give the machine all that there is to say, and what the origins say to that."""
        clock = time.process_time_ns
        while self.todo:
            completion = self.todo.popleft()
            self.now += 1e-5
            began = clock()
            operations = self.handle(completion, self.now)
            self.cpu_ns += clock() - began
            for operation in operations:
                self.carry_out(operation)

    def carry_out(self, operation: Any) -> None:
        if isinstance(operation, Send):
            data = operation.data if isinstance(operation.data, bytes) else b"".join(operation.data)
            origin = self.origins.get(operation.conn)
            if origin is None:
                self.sent[operation.conn] = self.sent.get(operation.conn, b"") + data
            elif said := origin.hears(data):
                self.todo.append(Received(operation.conn, said))
        elif isinstance(operation, Connect):
            self.origins[operation.conn] = Origin(self.upstream, self.answer)
            self.todo.append(Connected(operation.conn, THERE, HERE))
        elif isinstance(operation, Accept):
            self.credits.append(operation)
        elif isinstance(operation, Listen):
            self.todo.append(Listening(operation.listener, HERE))
        elif isinstance(operation, Close):
            self.todo.append(Closed(operation.conn))

    def round(self, varied: bool) -> None:
        """Each client asks on all streams at once; all are answered."""
        session = "0" * 32
        asked = exchanges(self.rng, [session] * STREAMS) if varied else exchanges(random.Random(1), [session]) * STREAMS
        streams = [self.stream + 2 * (number + 1) for number in range(STREAMS)]
        self.stream = streams[-1]
        self.sent.clear()
        for conn, peer in self.clients.items():
            said = [
                peer.say(stream, [_PLAIN.get(field, field) for field in each.request])
                for stream, each in zip(streams, asked, strict=True)
            ]
            self.todo.append(Received(conn, b"".join(said)))
        self.turn()
        answered = sum(answers(peer, self.sent[conn]) for conn, peer in self.clients.items())
        assert answered == CLIENTS * STREAMS, f"{answered} of {CLIENTS * STREAMS} were answered"


_PLAIN = {(b":scheme", b"https"): (b":scheme", b"http")}


def answers(peer: Peer, data: bytes) -> int:
    """How many whole answers are in these frames, all of them as they should be."""
    count = 0
    while data:
        end = 9 + int.from_bytes(data[:3], "big")
        if data[3] == _HEADERS:
            fields, _ = peer.read(data[:end])
            assert (b":status", b"200") in fields, fields
        count += data[3] <= _HEADERS and data[4] & _END_STREAM
        data = data[end:]
    return count


def shares(profile: pstats.Stats) -> Mapping[str, float]:
    """Seconds of each module, those of the standard library and of what is built in counted for their callers."""
    stats: dict[Any, Any] = vars(profile)["stats"]
    owners: dict[Any, dict[str, float]] = {}

    def owner(function: Any, depth: int = 0) -> dict[str, float]:
        """Whose a function's time is, in parts of one."""
        if function in owners:
            return owners[function]
        name = module_of(function[0], function[2])
        callers: dict[Any, Any] = stats[function][4]
        found: defaultdict[str, float] = defaultdict(float)
        if name is not None or not callers or depth > 5:
            found[name or "the rest"] = 1.0
        else:
            owners[function] = {"the rest": 1.0}  # where it calls itself
            whole = sum(each[2] for each in callers.values()) or 1.0
            for caller, each in callers.items():
                for module, part in owner(caller, depth + 1).items():
                    found[module] += part * each[2] / whole
        owners[function] = dict(found)
        return owners[function]

    seconds: defaultdict[str, float] = defaultdict(float)
    for function, each in stats.items():
        for module, part in owner(function).items():
            seconds[module] += part * each[2]
    return dict(sorted(seconds.items(), key=lambda each: -each[1]))


def module_of(file: str, function: str) -> str | None:
    """The name that is shown for where a function is; None where it belongs to Python."""
    if file == __file__ or "importlib" in file or "epoll" in function:
        return IGNORED
    for part, name in (("_ssl", "OpenSSL"), ("_socket", "the system: sockets")):
        if f"'{part}." in function:
            return name
    library = re.search(r"/(hpack|hyperframe|h2|wsproto|asyncio|coulee)/", file)
    if library is None:
        return None
    if library[1] != "coulee":
        return library[1]
    return f"coulee: {Path(file).stem}" + ("" if "/core/coulee/" in file else f" ({Path(file).parent.name})")


def measure(bed: Bed, rounds: int, varied: bool) -> float:
    """CPU microseconds of the machine for each request."""
    bed.cpu_ns = 0
    for _ in range(rounds):
        bed.round(varied)
    return bed.cpu_ns / 1e3 / (rounds * CLIENTS * STREAMS)


def live(upstream: Upstream, rounds: int) -> tuple[float, pstats.Stats]:
    """CPU microseconds of the whole program for each request, on asyncio, and its profile."""
    scenario = HTTP2_SCENARIOS["h2"] if upstream == "h1" else H2C_SCENARIOS["h2-h2c"]
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coulee-profile-")))
        nginx, generator = Nginx(folder), Generator(cores[0], folder)
        ports = free_port(), free_port()
        wait_ready(stack.enter_context(child("origin", nginx.origin(*ports), cores[0], folder)), ports[0])
        origin, certificate = ports[upstream == "h2"], make_certificate(folder)
        peers = Profiled(nginx, origin, cores[-1], folder, certificate, to_http2=upstream == "h2")
        with replace(peers, written="").running("coulee-asyncio", [scenario]) as peer:
            generator.run(scenario, peer.port, 1)
            before = cpu_ns(peer.pid)
            load = generator.run(scenario, peer.port, rounds)
            alone = scenario.figure(load, cpu_ns(peer.pid) - before)
        written = str(folder / "profile")
        with replace(peers, written=written).running("coulee-asyncio", [scenario]) as peer:
            generator.run(scenario, peer.port, rounds)
        return alone, pstats.Stats(written)


@dataclass(frozen=True, slots=True)
class Profiled(Http2Peers):
    """Runs coulee under cProfile, which writes to a file when the program ends; without one, as it is."""

    written: str = ""

    def _command(self, name: str, port: int, app: str) -> Command:
        command = Http2Peers._command(self, name, port, app)
        if not self.written:
            return command
        python, *words = command.words
        return replace(command, words=[python, "-m", "cProfile", "-o", self.written, *words])


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the time of an exchange over HTTP/2 goes.")
    parser.add_argument("--upstream", choices=["h1", "h2"], default="h1", help="what the origin speaks (h1)")
    parser.add_argument("--live", action="store_true", help="the whole program; a round is a second of load then")
    parser.add_argument("--varied", action="store_true", help="no two requests alike, as h2load's are")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help=f"of {CLIENTS * STREAMS} requests (10)")
    parser.add_argument("--lines", type=int, default=0, metavar="N", help="also the N functions that take longest")
    asked = parser.parse_args()
    if asked.live:
        alone, profile = live(asked.upstream, asked.rounds)
        print(f"{alone:.1f} CPU us/request in the whole program, on asyncio\n")
    else:
        alone, profile = in_the_machine(asked.upstream, asked.rounds, asked.varied)
        print(f"{alone:.1f} CPU us/request in the machine, without TLS, sockets or a loop\n")
    print(table(shares(profile), alone))
    if asked.lines:
        profile.sort_stats("tottime").print_stats(asked.lines)


def in_the_machine(upstream: Upstream, rounds: int, varied: bool) -> tuple[float, pstats.Stats]:
    """CPU microseconds of the machine for each request, and its profile."""
    bed = Bed(upstream)
    measure(bed, WARM_UP_ROUNDS, varied)
    alone = measure(bed, rounds, varied)
    profile = cProfile.Profile()
    handle = bed.machine.handle
    bed.handle = lambda completion, now: profile.runcall(handle, completion, now)
    measure(bed, rounds, varied)
    return alone, pstats.Stats(profile)


def table(seconds: Mapping[str, float], alone: float, unit: str = "us/request") -> str:
    """The modules, and how the microseconds fall to them."""
    counted = {name: each for name, each in seconds.items() if name != IGNORED}
    whole = sum(counted.values())
    rows = [[name, f"{each / whole:.1%}", f"{alone * each / whole:.1f}"] for name, each in counted.items()]
    return aligned([["", "share", unit], *[row for row in rows if row[1] != "0.0%"]])


if __name__ == "__main__":
    main()
