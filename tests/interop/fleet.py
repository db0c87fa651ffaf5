"""coulee with workers, as tests start it: an application that says which version of it answers and in which process,
and what its supervisor knows."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

from coulee.server.control import ask

HOST = "127.0.0.1"
WITHIN_S = 15.0  # for anything that should happen at once, on a machine that may be busy
COULEE = str(Path(sys.executable).with_name("coulee"))

APP = """
import os
import time
from coulee.core import Proxy, respond, sleep
from coulee.lb import Cluster

proxy = Proxy(Cluster({origin!r}))


@proxy.on("request_filter")
async def hello(exchange):
    _, what, *seconds = exchange.request.target.split("/")
    if what == "slow":
        await sleep(float(seconds[0]))
    elif what == "hang":
        time.sleep(float(seconds[0]))
    elif what == "origin":
        return None
    return respond(200, f"{version} {{os.getpid()}}")
"""

Value = TypeVar("Value")


def app(version: str = "one", origin: str = "http://127.0.0.1:9") -> str:
    """Answers with its version and its process; `/slow/S` after S seconds, `/hang/S` with its loop blocked for so long,
    `/origin` by way of the origin."""
    return APP.format(version=version, origin=origin)


def until(look: Callable[[], Value | None], what: str, within_s: float = WITHIN_S) -> Value:
    """The first value that `look` gives that is neither None nor False."""
    deadline = time.monotonic() + within_s
    while True:
        value = look()
        if value is not None and value is not False:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
        time.sleep(0.005)


def whole_lines(path: Path) -> list[str]:
    """Of a file that somebody writes to: the last may be half there, and is left out then."""
    return path.read_text().rpartition("\n")[0].splitlines()


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Fleet:
    """A supervisor and its workers."""

    def __init__(self, folder: Path, environment: dict[str, str], *args: str, **options: Any) -> None:
        self.folder = folder
        self.app = folder / "app.py"
        self.environment = {**environment, "XDG_RUNTIME_DIR": str(folder)}
        listen = options.pop("listen", f"{HOST}:0")
        with (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as errors:
            self.process = subprocess.Popen(
                [COULEE, "run", str(self.app), "--listen", listen, *args],
                stdin=subprocess.DEVNULL, stdout=options.pop("stdout", out), stderr=errors, env=self.environment,
                **options,
            )  # fmt: skip
        self.port = 0

    @property
    def said(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in whole_lines(self.folder / "stdout")]

    def wait_said(self, words: str) -> str:
        """The first line with these words."""

        def look() -> str | None:
            line = next((line for line in self.said.splitlines() if words in line), None)
            assert line or words not in "listening on" or self.process.poll() is None, self.said
            return line

        return until(look, f"coulee says {words!r}")

    def wait_ready(self) -> None:
        line = self.wait_said("listening on")
        if "/" not in line.rpartition(" ")[2]:
            self.port = int(line.rpartition(":")[2])

    # -- what it is

    def supervisors(self) -> list[int]:
        return sorted(int(path.stem) for path in (self.folder / "coulee").glob("*.sock"))

    def status(self, pid: int | None = None) -> dict[str, Any]:
        return ask(self.folder / "coulee" / f"{pid or self.process.pid}.sock", {"do": "status"})

    def workers(self, state: str = "ready", pid: int | None = None) -> list[int]:
        """The pids of its workers."""
        return [worker["pid"] for worker in self.status(pid)["workers"] if worker["state"] == state]

    # -- what is done to it

    def get(self, path: str = "/") -> tuple[str, int]:
        """The version and the process that answers."""
        conn = http.client.HTTPConnection(HOST, self.port, timeout=WITHIN_S)
        with contextlib.closing(conn):
            conn.request("GET", path)
            version, pid = conn.getresponse().read().decode().split()
            return version, int(pid)

    def command(self, *args: str) -> subprocess.CompletedProcess[str]:
        """`coulee reload` and the like."""
        return subprocess.run(
            [COULEE, *args], capture_output=True, text=True, timeout=WITHIN_S, check=False, env=self.environment
        )

    def close(self) -> None:
        pids = {self.process.pid, *self.supervisors()}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for pid in pids:
            until(lambda: not alive(pid), f"{pid} ends")  # noqa: B023


@contextlib.contextmanager
def fleet(
    *args: str, version: str = "one", origin: str = "http://127.0.0.1:9", **options: Any
) -> Generator[Fleet, None, None]:
    """`coulee run app.py ARGS`, ready, while the block lasts. It prints no traceback."""
    with tempfile.TemporaryDirectory(prefix="coulee-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "app.py").write_text(app(version, origin))
        running = Fleet(folder, dict(os.environ), *args, **options)
        try:
            running.wait_ready()
            yield running
            assert "Traceback" not in running.said, running.said
        finally:
            running.close()
