"""Hands the listening sockets to a new program: what SIGUSR2 is for.

The same command line is started anew, with the sockets as inherited descriptors, which one environment variable names
together with their addresses. When all workers of the new program are ready it says so over a pipe, which is inherited
too; where it ends before, the end of the pipe says that. Nothing is written to a file.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from coulee.core.seam import Address

VARIABLE: Final = "COULEE_HANDOVER"
ENDING_S: Final = 5.0

Sockets = Mapping[Address, list[socket.socket]]


class Successor:
    """The new program, as the old one sees it. `fileno` is readable when there is news."""

    def __init__(self, sockets: Sockets, folder: str) -> None:
        """Start it. Raises OSError."""
        self._link, theirs = os.pipe()
        offer = {
            "sockets": [[address, [sock.fileno() for sock in group]] for address, group in sockets.items()],
            "link": theirs,
            "pid": os.getpid(),
        }
        descriptors = [theirs, *(sock.fileno() for group in sockets.values() for sock in group)]
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
        try:
            code = self._process.wait(ENDING_S)  # it has closed its end, so it is ending
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
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
        for address, descriptors in said["sockets"]:
            key: Address = address if isinstance(address, str) else (address[0], address[1])
            self.sockets[key] = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        for group in self.sockets.values():
            for sock in group:
                sock.setblocking(False)
                sock.set_inheritable(False)

    def take(self, address: Address) -> list[socket.socket] | None:
        """The sockets for one address."""
        return self.sockets.pop(address, None)

    def refuse_rest(self) -> None:
        """What the new program has no use for."""
        for group in self.sockets.values():
            for sock in group:
                sock.close()
        self.sockets.clear()

    def tell_ready(self) -> None:
        with suppress(OSError):
            os.write(self._link, b"ready\n")
        self.leave()

    def leave(self) -> None:
        """In a worker, where it means nothing; and when all is said."""
        if self._link >= 0:
            os.close(self._link)
            self._link = -1


def predecessor() -> Predecessor | None:
    """Whoever has started this process to take its place."""
    offer = os.environ.pop(VARIABLE, None)
    if offer is None:
        return None
    found = Predecessor(offer)
    if os.environ.get("WATCHDOG_PID") == str(found.pid):  # the service manager's watchdog is ours now
        os.environ["WATCHDOG_PID"] = str(os.getpid())
    return found
