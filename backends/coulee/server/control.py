"""The control socket of a supervisor, and the commands that talk to it: `coulee reload` and `coulee status`.

A line of JSON each way: `{"do": "reload"}` is answered, when it is over, by `{"ok": true, "text": "reloaded: ..."}`.
Rules:

- The socket is `PID.sock` in a folder that only its owner may enter, and nobody else may own. So whoever can talk to it
  is the user who runs the proxy, or root.
- What a supervisor that is gone has left there is removed by whoever comes next.
- Requests, connections and answers are bounded; nobody can make the supervisor wait.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, cast

import click

from coulee.server.supervisor import counted

CONNECTIONS_MAX: Final = 64
REQUEST_BYTES_MAX: Final = 4096
NOBODY_THERE: Final = 4  # the exit code

Answer = dict[str, Any]


def control_folder() -> Path:
    """Where supervisors of this user have their sockets."""
    import tempfile

    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "coulee" if runtime else Path(tempfile.gettempdir()) / f"coulee-{os.getuid()}"


def check_folder(folder: Path) -> None:
    """See that nobody else has a hand in it. Raises OSError."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} must be a folder of yours that nobody else may enter (chmod 700)")


# ---------------------------------------------------------------------------------------------- the supervisor's side


class Control:
    """Listens, and calls `on_request` with the number of who asks and what; `answer` ends that."""

    def __init__(self, selector: selectors.BaseSelector, on_request: Callable[[int, Answer], None]) -> None:
        self._selector = selector
        self._on_request = on_request
        self._askers: dict[int, tuple[socket.socket, bytearray]] = {}
        self._numbers = 0
        self.path: Path | None = None
        self._listening: socket.socket | None = None

    def open(self) -> None:
        """Raises OSError."""
        folder = control_folder()
        folder.mkdir(mode=0o700, exist_ok=True)
        check_folder(folder)
        remove_stale(folder)
        path = folder / f"{os.getpid()}.sock"
        path.unlink(missing_ok=True)  # of a process that had this number
        listening = socket.socket(socket.AF_UNIX)
        try:
            listening.setblocking(False)
            listening.bind(str(path))
            listening.listen(CONNECTIONS_MAX)
        except OSError:
            listening.close()
            raise
        self.path, self._listening = path, listening
        self._selector.register(listening, selectors.EVENT_READ, self._accept)

    def answer(self, asker: int, answer: Answer) -> None:
        """Answer, and part."""
        entry = self._askers.get(asker)
        if entry is not None:
            with suppress(OSError):
                entry[0].send(json.dumps(answer).encode() + b"\n")  # what is not taken at once is not waited for
            self._forget(asker)

    def close(self) -> None:
        """Be found no more. Whoever waits for an answer still gets it."""
        if self._listening is not None and self.path is not None:
            self._selector.unregister(self._listening)
            self.path.unlink(missing_ok=True)
            self._listening.close()
            self._listening = None

    def abandon(self) -> None:
        """In a forked process: close all, and remove nothing."""
        if self._listening is not None:
            self._listening.close()
        for sock, _ in self._askers.values():
            sock.close()

    def _accept(self) -> None:
        assert self._listening is not None
        with suppress(OSError):
            sock, _ = self._listening.accept()
            sock.setblocking(False)
            if len(self._askers) >= CONNECTIONS_MAX:
                self._forget(next(iter(self._askers)))
            self._numbers += 1
            self._askers[self._numbers] = (sock, bytearray())
            self._selector.register(sock, selectors.EVENT_READ, partial(self._read, self._numbers))

    def _read(self, asker: int) -> None:
        entry = self._askers.get(asker)
        if entry is None:
            return  # it was the one too many, a moment ago
        sock, request = entry
        try:
            data = sock.recv(REQUEST_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        request += data
        if not data:
            self._forget(asker)
        elif b"\n" in request:
            try:
                asked = json.loads(bytes(request))
            except ValueError:
                asked = None
            request.clear()
            self._on_request(asker, cast("Answer", asked) if isinstance(asked, dict) else {})
        elif len(request) > REQUEST_BYTES_MAX:
            self._forget(asker)

    def _forget(self, asker: int) -> None:
        sock, _ = self._askers.pop(asker)
        self._selector.unregister(sock)
        sock.close()


def remove_stale(folder: Path) -> list[Path]:
    """Remove the sockets that nobody listens at; those that are left."""
    alive: list[Path] = []
    for path in sorted(folder.glob("*.sock")):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
                alive.append(path)
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue  # gone just now, or no socket
    return alive


# ------------------------------------------------------------------------------------------------- the user's side


def ask(path: Path, request: Answer) -> Answer:
    """Ask a supervisor, and wait for its answer. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(json.dumps(request).encode() + b"\n")
        line = sock.makefile("rb").readline()
    if not line.endswith(b"\n"):
        raise ConnectionResetError("it has ended without an answer")
    answer: Answer = json.loads(line)
    return answer


def the_supervisor(control: str | None) -> Path:
    """The socket that was named, or the only one there is; otherwise says so and ends."""
    if control is not None:
        return Path(control)
    folder = control_folder()
    try:
        check_folder(folder)
        found = remove_stale(folder)
    except FileNotFoundError:
        found = []
    except OSError as error:
        _stop(str(error), 1)
    if not found:
        _stop(f"no supervisor of yours runs (none has a socket in {folder}): start one with --workers N, "
              "or name its socket with --control PATH", NOBODY_THERE)  # fmt: skip
    if len(found) > 1:
        lines = [f"coulee: {len(found)} supervisors run; say which with --control PATH:"]
        for path in found:
            with suppress(OSError, ValueError):
                status = ask(path, {"do": "status"})
                lines.append(f"  {path}  pid {status['pid']}, {', '.join(status['listen'])}: {status['command']}")
        click.echo("\n".join(lines), err=True)
        sys.exit(2)
    return found[0]


_CONTROL = click.option(
    "--control", metavar="PATH", help="The socket of the supervisor [default: the only one there is]."
)


@click.command()
@_CONTROL
def reload(control: str | None) -> None:
    """Replace the workers of a proxy that runs with --workers by new ones, which load the program anew.

    No connection is refused or reset. Where the new ones cannot start, the old ones go on.
    """
    answer = _asked(control, "reload")
    click.echo(answer["text"] if answer["ok"] else f"coulee: not reloaded: {answer['text']}", err=not answer["ok"])
    sys.exit(0 if answer["ok"] else 1)


@click.command()
@_CONTROL
@click.option("--json", "as_json", is_flag=True, help="All of it, as JSON.")
def status(control: str | None, as_json: bool) -> None:
    """Show the workers of a proxy that runs with --workers."""
    answer = _asked(control, "status")
    if as_json:
        click.echo(json.dumps(answer))
        return
    where = ", ".join(answer["listen"])
    click.echo(f"pid {answer['pid']}: {answer['state']} at {where} for {answer['age_s']:.0f} s: {answer['command']}")
    for worker in answer["workers"]:
        restarts = f", {counted(worker['restarts'], 'restart')}" if worker["restarts"] else ""
        click.echo(f"  worker {worker['pid']}: {worker['state']}, generation {worker['generation']}, "
                   f"{worker['age_s']:.0f} s{restarts}")  # fmt: skip


def _asked(control: str | None, what: str) -> Answer:
    path = the_supervisor(control)
    try:
        return ask(path, {"do": what})
    except (FileNotFoundError, ConnectionRefusedError):
        _stop(f"no supervisor listens at {path}", NOBODY_THERE)
    except (OSError, ValueError) as error:
        _stop(f"{path}: {error}", 1)


def _stop(message: str, code: int) -> NoReturn:
    click.echo(f"coulee: {message}", err=True)
    sys.exit(code)
