"""Hands the listening sockets to a new program: what SIGUSR2 is for.

The same command line is started anew, with the sockets as inherited descriptors, which one environment variable names
together with their addresses. When all workers of the new program are ready it says so over a pipe, which is inherited
too; where it ends before, the end of the pipe says that. Nothing is written to a file.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from coulee.backends.sockets import Lent
from coulee.core.seam import Address

VARIABLE: Final = "COULEE_HANDOVER"

Sockets = Mapping[Address, list[socket.socket]]


class Successor:
    """The new program, as the old one sees it. `fileno` is readable when there is news."""

    def __init__(self, listening: Sockets, folder: str) -> None:
        """Start it. Raises OSError."""
        import subprocess  # here, for every start of coulee would pay for it

        self._link, theirs = os.pipe()
        offer = {
            "sockets": [
                [address, [sock.fileno() for sock in group], isinstance(group[0], Lent)]
                for address, group in listening.items()
            ],
            "link": theirs,
            "pid": os.getpid(),
        }
        descriptors = [theirs, *(sock.fileno() for group in listening.values() for sock in group)]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - what the user wrote, again
                # The interpreter by its own path, for the first word may be a name that was looked up.
                [sys.executable, *sys.orig_argv[1:]],
                pass_fds=descriptors,
                cwd=folder,
                env={**os.environ, VARIABLE: json.dumps(offer)},
            )
        except OSError:
            os.close(self._link)
            raise
        finally:
            os.close(theirs)
        self.pid = self._process.pid

    def fileno(self) -> int:
        return self._link

    def outcome(self) -> str:
        """What has become of it, after news: "" where it is ready, else why there will be none."""
        ready = os.read(self._link, 16) == b"ready\n"
        os.close(self._link)
        if ready:
            return ""
        code = self._process.wait()  # nothing but its end has closed the other end
        return f"it was killed by signal {-code}" if code < 0 else f"it ended with code {code}"

    def end(self) -> None:
        """It is wanted no more."""
        os.close(self._link)
        self._process.terminate()

    def abandon(self) -> None:
        """In a forked process."""
        os.close(self._link)


class Predecessor:
    """The old program, as the new one sees it, and what it hands over."""

    def __init__(self, offer: str) -> None:
        said = json.loads(offer)
        self.pid: int = said["pid"]
        self._link: int = said["link"]
        os.set_inheritable(self._link, False)
        self.sockets: dict[Address, list[socket.socket]] = {}
        for address, descriptors, is_lent in said["sockets"]:
            kind = Lent if is_lent else socket.socket
            group = [kind(fileno=descriptor) for descriptor in descriptors]
            for sock in group:
                sock.setblocking(False)
                sock.set_inheritable(False)
            self.sockets[_plain(address)] = group

    def tell_ready(self) -> None:
        with suppress(OSError):
            os.write(self._link, b"ready\n")
        self.leave()

    def leave(self) -> None:
        """When all is said; and in a worker, which would keep the pipe open."""
        if self._link >= 0:
            os.close(self._link)
            self._link = -1


def offered() -> list[Address]:
    """The addresses that are handed over to this process: those that the same command line meant before."""
    offer = os.environ.get(VARIABLE)
    return [_plain(address) for address, *_ in json.loads(offer)["sockets"]] if offer else []


def predecessor() -> Predecessor | None:
    """Whoever has started this process to take its place."""
    offer = os.environ.pop(VARIABLE, None)
    if offer is None:
        return None
    found = Predecessor(offer)
    if os.environ.get("WATCHDOG_PID") == str(found.pid):  # the service manager's watchdog is ours now
        os.environ["WATCHDOG_PID"] = str(os.getpid())
    return found


def _plain(address: str | list[Any]) -> Address:
    """An address that has been JSON."""
    return address if isinstance(address, str) else (address[0], address[1])
