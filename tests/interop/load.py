"""Load: wrk, as much as it can, and a client beside it that looks at each answer."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Self

from tests.interop.fleet import HOST, WITHIN_S


@dataclass
class Wrk:
    """What wrk reports."""

    requests: int
    connect: int = 0
    read: int = 0
    write: int = 0
    timeout: int = 0
    other_statuses: int = 0

    @property
    def errors(self) -> tuple[int, int, int, int, int]:
        return self.connect, self.read, self.write, self.timeout, self.other_statuses


@contextlib.contextmanager
def wrk(url: str, connections: int, threads: int = 1) -> Generator[list[Wrk], None, None]:
    """wrk while the block lasts; then what it reports is in the list."""
    command = ["wrk", f"-t{threads}", f"-c{connections}", "-d1h", "--timeout", "10s", url]
    found: list[Wrk] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield found
        finally:
            process.send_signal(signal.SIGINT)
            text, _ = process.communicate(timeout=WITHIN_S)
    total = re.search(r"(\d+) requests in", text)
    assert total is not None, text
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    others = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    connect, read, write, timeout = map(int, errors.groups()) if errors else (0, 0, 0, 0)
    found.append(Wrk(int(total[1]), connect, read, write, timeout, int(others[1]) if others else 0))


class Crowd:
    """Clients that run side by side for a block, each in a thread; a subclass says what one does until it is `over`."""

    over = False

    def gather(self, count: int) -> None:
        """So many."""
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        for thread in self.threads:
            thread.join(WITHIN_S)
            assert not thread.is_alive()

    def _run(self) -> None:
        raise NotImplementedError


@dataclass
class Client(Crowd):
    """Keep-alive connections, each in a thread: a GET, the whole answer, and the next, while the block lasts."""

    port: int
    connections: int = 4
    answers: Counter[str] = field(default_factory=Counter[str])
    """Those with 200, by what they say."""
    wrong: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """Those with another status."""
    lost: list[str] = field(default_factory=list[str])
    """What came in place of an answer."""
    took_s: list[float] = field(default_factory=list[float])
    """From each request to its whole answer."""

    def __post_init__(self) -> None:
        self.gather(self.connections)

    @property
    def answered(self) -> int:
        return self.answers.total()

    def _run(self) -> None:
        conn = http.client.HTTPConnection(HOST, self.port, timeout=WITHIN_S)
        with contextlib.closing(conn):
            while not self.over:
                began = time.monotonic()
                try:
                    conn.request("GET", "/")
                    answer = conn.getresponse()
                    said = answer.read().decode()
                except (OSError, http.client.HTTPException) as error:
                    conn.close()
                    with self.lock:
                        self.lost.append(repr(error))
                    continue
                with self.lock:
                    self.took_s.append(time.monotonic() - began)
                    if answer.status == 200:
                        self.answers[said] += 1
                    else:
                        self.wrong.append((answer.status, said))
