"""Reloads and killed workers under the load of wrk and of a client that checks each answer.

The short form runs with every test run; RELOADS=20 KILLS=5 makes it the long one (`make reloads`).
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from coulee.server.control import ask
from tests.interop.fleet import HOST, WITHIN_S, Fleet, alive, app, fleet, until
from tests.interop.load import Crowd, Wrk, wrk

if TYPE_CHECKING:
    from tests.interop.conftest import Nginx

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the tests look at processes in Linux's /proc"),
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed (Debian: wrk)"),
]

RELOADS = int(os.environ.get("RELOADS", "4"))
KILLS = int(os.environ.get("KILLS", "2"))
CONNECTIONS = 200
CHECKED = 8  # connections of the client that checks
UNDER_WAY_S = 0.3  # of load, between two events


@dataclass
class Client(Crowd):
    """Keep-alive connections, each in a thread: a request, the whole answer, checked, and the next.

    `lost` has, for each request that was not answered, the process that had that connection, 0 where none had said so.
    """

    port: int
    answered: int = 0
    versions: set[str] = field(default_factory=set)
    lost: list[int] = field(default_factory=list)
    wrong: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gather(CHECKED)

    def _run(self) -> None:
        while not self.over:
            with socket.create_connection((HOST, self.port), timeout=WITHIN_S) as sock:
                self._converse(sock)

    def _converse(self, sock: socket.socket) -> None:
        pid = 0
        while not self.over:
            if select.select([sock], [], [], 0)[0]:
                return  # closed while nothing was asked: nothing is lost
            try:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = self._answer(sock)
            except (OSError, EOFError):
                with self.lock:
                    self.lost.append(pid)
                return
            head, _, body = answer.partition(b"\r\n\r\n")
            found = re.fullmatch(rb"(\w+) (\d+)", body)
            with self.lock:
                if found is None or not head.startswith(b"HTTP/1.1 200 OK\r\n"):
                    self.wrong.append(answer)
                    return
                self.answered += 1
                self.versions.add(found[1].decode())
            pid = int(found[2])
            if b"connection: close" in head.lower():
                return

    def _answer(self, sock: socket.socket) -> bytes:
        answer = b""
        length = -1
        while length < 0 or len(answer) < length:
            data = sock.recv(65536)
            if not data:
                raise EOFError
            answer += data
            head, mark, _ = answer.partition(b"\r\n\r\n")
            if mark and length < 0:
                found = re.search(rb"(?i)content-length: (\d+)", head)
                assert found is not None, answer
                length = len(head) + len(mark) + int(found[1])
        return answer


def load(running: Fleet) -> AbstractContextManager[list[Wrk]]:
    """wrk, at what takes the way through the origin."""
    return wrk(f"http://{HOST}:{running.port}/origin", CONNECTIONS, threads=2)


def reload_with(running: Fleet, version: str, origin: str) -> None:
    running.app.write_text(app(version, origin))
    answer = ask(running.folder / "coulee" / f"{running.process.pid}.sock", {"do": "reload"})
    assert answer["ok"], answer


def under_load(client: Client) -> None:
    """Until there has been some more of it."""
    began, before = time.monotonic(), client.answered
    until(lambda: time.monotonic() > began + UNDER_WAY_S and client.answered > before + CHECKED, "answers come")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["asyncio", "threads"])
def test_a_reload_loses_no_request(backend: str, nginx: Nginx) -> None:
    with fleet("--workers", "2", "--backend", backend, "--log", "json", origin=nginx.url) as running:
        versions = [f"v{number}" for number in range(RELOADS)]
        client = Client(running.port)
        with load(running) as report, client:
            under_load(client)
            for version in versions:
                reload_with(running, version, nginx.url)
                until(lambda: version in client.versions, "the new ones answer")  # noqa: B023
                under_load(client)
        [told] = report
        print(f"{backend}: {RELOADS} reloads, {told.requests} requests of wrk and {client.answered} checked ones, "
              f"errors {told.errors}, lost {client.lost}")  # fmt: skip
        assert told.requests > 100
        assert told.errors == (0, 0, 0, 0, 0)
        assert (client.lost, client.wrong) == ([], [])
        assert client.versions == {"one", *versions}
        # One line for each request, and each of them whole; those of wrk that it cut off at its end have one too.
        until(lambda: len(running.workers()) == len(running.status()["workers"]), "the old ones end")
        running.process.terminate()
        assert running.process.wait(WITHIN_S) == 0
        answered = sum(record["status"] == 200 and not record["reason"] for record in running.records)
        assert 0 <= answered - told.requests - client.answered <= CONNECTIONS


@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["asyncio", "threads"])
def test_a_killed_worker_loses_what_it_had_and_nothing_else(backend: str, nginx: Nginx) -> None:
    with fleet("--workers", "2", "--backend", backend, "--quiet", origin=nginx.url) as running:
        client = Client(running.port)
        killed: set[int] = set()
        with load(running) as report, client:
            under_load(client)
            for _ in range(KILLS):
                worker = running.workers()[0]
                os.kill(worker, signal.SIGKILL)
                killed.add(worker)
                until(lambda: not alive(worker) and len(running.workers()) == 2, "it is replaced")  # noqa: B023
                under_load(client)
        [told] = report
        print(f"{backend}: {KILLS} kills, {told.requests} requests of wrk and {client.answered} checked ones, "
              f"errors {told.errors}, lost {len(client.lost)}")  # fmt: skip
        assert (told.connect, told.timeout, told.other_statuses) == (0, 0, 0)
        assert told.read + told.write <= KILLS * CONNECTIONS
        assert client.wrong == []
        assert set(client.lost) <= killed | {0}
        assert len(client.lost) <= KILLS * CHECKED
        # And nothing is lost behind that.
        with load(running) as report, Client(running.port) as client:
            under_load(client)
        assert report[0].errors == (0, 0, 0, 0, 0)
        assert (client.lost, client.wrong) == ([], [])
