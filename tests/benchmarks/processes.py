"""Children of the benchmark: started pinned to one core, measured, and always ended.

Rules: a child is known by its own process id and ended by it; one that outlives the benchmark is killed by the kernel
(`PR_SET_PDEATHSIG`), so neither Ctrl-C nor a crash leaves anything behind; a child writes to a log file, and the last
line of that log is what an error quotes; nothing waits without a deadline.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
READY_WITHIN = 10.0
END_WITHIN = 3.0
_POLL = 0.01
_PORTS = range(20_000, 32_000)  # below those that Linux gives away by itself, and those of others
_CHOICE = random.SystemRandom()  # for what hypothesis has seeded gives the same to all that run at once
_PR_SET_PDEATHSIG = 1
_CPUCLOCK_SCHED = 2  # clock_getcpuclockid(3): the ns a process has run, all its threads, user and system
_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
_libc = ctypes.CDLL(None)


class BenchError(Exception):
    """Something the person at the terminal must know, in one line."""


@dataclass(slots=True)
class Child:
    """One running child and where it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it printed nothing"


@contextlib.contextmanager
def child(
    name: str, command: Sequence[str], core: int | None, folder: Path, environment: Mapping[str, str] | None = None
) -> Generator[Child, None, None]:
    """Run `command` on `core` (None: on any that we may use) for the length of the `with` block; `environment` is added
    to ours."""
    parent = os.getpid()

    def in_child() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before the request above was made
            os._exit(1)
        os.sched_setaffinity(0, _CORES if core is None else {core})

    log = folder / f"{name}.log"
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C reaches the benchmark only, which then ends its children
                preexec_fn=in_child,
            )
    except OSError as error:
        raise BenchError(f"{name} cannot be started: {error}") from error
    try:
        yield Child(name, process, log)
    finally:
        process.terminate()
        try:
            process.wait(END_WITHIN)
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago, and that no system gives away by itself: so that nobody
    comes to have it before it is used."""
    while True:
        port = _CHOICE.choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, port))
            return port


def wait_ready(target: Child, port: int) -> None:
    """Return when `target` accepts connections on `port`; raise when it ends or takes too long."""
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        if target.process.poll() is not None:
            raise BenchError(f"{target.name} ended with code {target.process.returncode}: {target.last_words()}")
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
            return
        time.sleep(_POLL)
    raise BenchError(f"{target.name} does not listen after {READY_WITHIN:.0f} s: {target.last_words()}")


def cpu_ns(pid: int) -> int:
    """CPU time, user and system, that a process and its living descendants have used."""
    return sum(cpu_ns_of_each(pid).values())


def cpu_ns_of_each(pid: int) -> dict[int, int]:
    """The same for each of them."""
    try:
        return {each: time.clock_gettime_ns((~each << 3) | _CPUCLOCK_SCHED) for each in descendants(pid)}
    except OSError as error:
        raise BenchError(f"process {pid} is gone: {error}") from error


def descendants(pid: int) -> list[int]:
    """The number of a process, and those of its living descendants."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [each for word in children.read_text().split() for each in descendants(int(word))]
    return found
