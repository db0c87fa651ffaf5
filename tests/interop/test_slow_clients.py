"""Clients that are slow on purpose: slowhttptest in its four modes, side by side, against one coulee before nginx.

For eight seconds every mode opens 25 connections a second, and each of those would last for minutes if it were let.
What must hold: whoever asks in between is answered; each slow connection is ended by the limit that is for it; and the
memory, once as many are there as there will be at once, does not grow any more. The limits are shorter than they are by
default, so that they are seen at work, and the attackers have the lowest priority, since they would otherwise take all
of a small machine: one that reads slowly spins.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee, Nginx

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory and descriptors are read from Linux's /proc")

CONNECTIONS = 200
OPENED_PER_S = 25
LENGTH_S = 60  # at most: it ends when all of them were closed
CROWD_STANDS_AT_S = 5.0  # the limits below have begun to close as many connections as are opened
GROWTH_MAX_KIB = 20 * 1024  # after that; five times as much, and more, if none were closed
MEDIAN_MAX_S = 0.3
SLOWEST_MAX_S = 3.0
PAUSE_S = 0.05
LARGE = 8 * 1024 * 1024

APP = """
from coulee.core import Config, Limits, Proxy, Timeouts
from coulee.lb import Cluster

timeouts = Timeouts(head_timeout_s=2, body_rate_window_s=1, body_rate_grace_s=1, send_stall_timeout_s=0.3)
limits = Limits(connections_per_address_max=0)  # all of the attackers have the same one
proxy = Proxy(Cluster({url!r}), config=Config(limits=limits, timeouts=timeouts))
"""

ATTACKS = {
    # The mode with its options, what it asks for, and how each of its requests ends in the access log.
    "slow-head": (["-H", "-i", "1"], "/slow-head", (408, "header_timeout")),
    "slow-body": (["-B", "-i", "1", "-x", "8"], "/slow-body", (408, "body_timeout")),
    "ranges": (["-R", "-b", "1000"], "/file/ranges", (400, "bad_request")),
    "slow-read": (["-X", "-w", "1024", "-y", "2048", "-n", "1", "-z", "32"], "/file/large", (200, "send_timeout")),
}


class Attacks:
    """One slowhttptest for each mode."""

    def __init__(self, url: str, folder: Path) -> None:
        program = shutil.which("slowhttptest")
        assert program is not None
        self._folder = folder
        self._running = {}
        for name, (mode, path, _) in ATTACKS.items():
            options = ["-c", str(CONNECTIONS), "-r", str(OPENED_PER_S), "-l", str(LENGTH_S), "-u", url + path]
            with self._output(name).open("wb") as out:
                self._running[name] = subprocess.Popen(
                    ["nice", "-n", "19", program, *mode, *options],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )

    def are_over(self) -> bool:
        """Whether those are that notice it when they are closed."""
        return all(each.poll() is not None for name, each in self._running.items() if name != "slow-read")

    def last(self, within_s: float) -> bool:
        """Whether any of them goes on after that time."""
        for each in self._running.values():
            if each.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    each.wait(within_s)
                return True
        return False

    def said(self, name: str) -> str:
        return self._output(name).read_text(errors="replace")

    def end(self) -> None:
        for each in self._running.values():
            each.kill()
            each.wait()

    def _output(self, name: str) -> Path:
        return self._folder / name


def ask(port: int) -> float:
    """One ordinary request on a connection of its own; the seconds it took."""
    began = time.monotonic()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10.0)) as client:
        client.request("GET", "/etag")
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (200, b"tagged\n")
    return time.monotonic() - began


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.skipif(shutil.which("slowhttptest") is None, reason="slowhttptest is not installed")
def test_slow_clients_are_closed_while_others_are_served(
    coulee: Callable[..., Coulee], nginx: Nginx, backend: str, tmp_path: Path
) -> None:
    (nginx.folder / "files" / "file" / "large").write_bytes(b"x" * LARGE)
    proxy = coulee("--backend", backend, app=APP.format(url=nginx.url))
    ask(proxy.port)
    at_rest = descriptors(proxy.process.pid)
    took: list[float] = []
    memory: list[tuple[float, int]] = []
    ended: Counter[tuple[int, str]] = Counter()
    began = time.monotonic()
    attacks = Attacks(proxy.url, tmp_path)
    try:
        while attacks.last(PAUSE_S):
            took.append(ask(proxy.port))
            memory.append((time.monotonic() - began, proxy.memory_kib("VmRSS")))
            ended = Counter((record["status"], record["reason"]) for record in proxy.records)
            if attacks.are_over() and ended[ATTACKS["slow-read"][2]] >= CONNECTIONS:
                break
    finally:
        attacks.end()

    before = max(kib for at, kib in memory if at <= CROWD_STANDS_AT_S)
    after = max(kib for at, kib in memory if at > CROWD_STANDS_AT_S)
    print(f"{backend}: {len(took)} requests, median {statistics.median(took):.4f} s, slowest {max(took):.3f} s")
    print(f"{memory[0][1]} KiB at the start, {before} with the crowd, {after} at most after that; {dict(ended)}")
    assert statistics.median(took) < MEDIAN_MAX_S
    assert max(took) < SLOWEST_MAX_S
    assert after - before < GROWTH_MAX_KIB
    for name, (_, _, end) in ATTACKS.items():
        assert ended[end] >= CONNECTIONS, f"{name}: {ended}\n{attacks.said(name)}"
    for name in ("slow-head", "slow-body", "ranges"):  # who reads slowly does not notice
        assert "No open connections left" in attacks.said(name)
    assert descriptors(proxy.process.pid) <= at_rest + 10
