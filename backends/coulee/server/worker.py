"""What a worker process does: loads the program afresh, serves with the listening sockets it was given, and tells its
supervisor.

Rules:

- It was forked by a process that has never loaded the program, so what it loads is what there is now. It writes no
  bytecode: a `.pyc` does not tell two versions apart that are of one second and one length.
- What it tells are JSON lines: that it is ready, why it cannot start, and that its loop turns. It is told nothing but
  by signals, which every backend heeds already.
- It is the loop that serves which tells that it turns, by a timer of its own: one that hangs is silent.
- A thread waits for the end of that link, which is the death of the supervisor; then the worker drains as on a signal.
- Once its listeners are open it keeps no listening socket but theirs, so that when it drains none is left open.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from coulee.backends import inherited
from coulee.core import Proxy
from coulee.core.report import Event
from coulee.core.seam import Address
from coulee.server.console import Console
from coulee.server.load import LoadError
from coulee.server.program import Failure, Program
from coulee.server.watch import say_what_is_down


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker is given at its birth. `looks`: it is the one that says which origins are down."""

    link: socket.socket
    given: Sequence[tuple[Address, list[socket.socket]]]
    folder: str
    looks: bool
    beat_s: float


def work(program: Program, post: Post) -> int:
    """Be a worker, to the end; its exit code."""
    return _Worker(program, post).run()


class _Worker:
    def __init__(self, program: Program, post: Post) -> None:
        self.program = program
        self.post = post
        self.console = _Console(program.form)

    def run(self) -> int:
        threading.Thread(target=self._heed_the_end, name="coulee-link", daemon=True).start()
        for address, listening in self.post.given:
            inherited.give(address, listening)
        sys.dont_write_bytecode = True
        try:
            os.chdir(self.post.folder)  # it may be a new one of the old name
            proxy = self.program.make()
            self.program.run(proxy, self.console, lambda driver: self._ready(proxy, driver), is_worker=True)
        except (LoadError, Failure, OSError) as error:
            self._tell({"cannot": str(error)})
            return error.code if isinstance(error, Failure) else 2 if isinstance(error, LoadError) else 1
        return 0

    def _ready(self, proxy: Proxy, driver: Any) -> None:
        for listening in inherited.take_back().values():
            for sock in listening:
                sock.close()
        self._tell({"ready": True})
        if self.post.looks:
            say_what_is_down(proxy, self.console.errors)
        self._beat(getattr(driver, "drivers", [driver])[0].loop)

    def _beat(self, loop: Any) -> None:
        loop.call_later(self.post.beat_s, partial(self._beat, loop))
        self._tell({"beat": True})

    def _tell(self, message: dict[str, object]) -> None:
        """Never waits: a supervisor that is stopped, in a debugger perhaps, does not stop its workers."""
        with suppress(OSError):
            self.post.link.send(json.dumps(message).encode() + b"\n", socket.MSG_DONTWAIT)

    def _heed_the_end(self) -> None:
        """In a thread of its own, which sleeps until then; so it is the same on every backend."""
        with suppress(OSError):
            self.post.link.recv(1)
        if not self.console.draining:  # a second signal would end what the first has let finish
            os.kill(os.getpid(), signal.SIGTERM)


class _Console(Console):
    """Leaves to the supervisor what is to be said once."""

    draining = False

    def _event(self, event: Event) -> None:
        if event.name == "draining":
            self.draining = True
        else:
            super()._event(event)
