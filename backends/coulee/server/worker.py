"""What a worker process does: loads the program afresh, serves with the listening sockets it was given, and tells its
supervisor.

Rules:

- It was forked by a process that has never loaded the program, so what it loads is what there is now. It writes no
  bytecode: a `.pyc` does not tell two versions apart that are of one second and one length.
- What it tells over its link are JSON lines: that it is ready, why it cannot start, and that its loop turns. That comes
  from the loop that serves, by a timer of its own: one that hangs is silent.
- It is told over the link too, in a thread, so on all backends alike: to drain, and to do so at once. The end of the
  link, which is the death of the supervisor, and a signal count as the first of these and never as the second: a
  service manager sends its signal to all processes of a service.
- Once its listeners are open it keeps no listening socket but theirs, so that when it drains none is left open.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from coulee.backends import inherited
from coulee.core import Proxy
from coulee.core.report import Event
from coulee.core.seam import Address
from coulee.server.console import Console
from coulee.server.load import LoadError
from coulee.server.program import Failure, Program
from coulee.server.watch import say_what_is_down

LINE_DRAIN: Final = b"drain\n"
LINE_AT_ONCE: Final = b"at once\n"


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
        self._driver: Any = None  # once it is ready
        self._lock = threading.Lock()

    def run(self) -> int:
        threading.Thread(target=self._listen, name="coulee-link", daemon=True).start()
        for address, listening in self.post.given:
            inherited.give(address, listening)
        sys.dont_write_bytecode = True
        try:
            os.chdir(self.post.folder)  # it may be a new one of the old name
            proxy = self.program.make()
            self.program.run(proxy, self.console, lambda running: self._ready(proxy, running), is_worker=True)
        except (LoadError, Failure, OSError) as error:
            self._tell({"cannot": str(error)})
            return error.code if isinstance(error, Failure) else 2 if isinstance(error, LoadError) else 1
        return 0

    def _ready(self, proxy: Proxy, running: Any) -> None:
        for listening in inherited.take_back().values():
            for sock in listening:
                sock.close()
        with self._lock:
            self._driver = getattr(running, "drivers", [running])[0]
        asyncios: Any = getattr(self._driver, "event_loop", None)  # asyncio hears of signals in a way of its own
        handle: Callable[..., object] = signal.signal if asyncios is None else asyncios.add_signal_handler
        for number in (signal.SIGTERM, signal.SIGINT):
            handle(number, self._signalled)  # in the place of the backend
        self._tell({"ready": True})
        if self.post.looks:
            say_what_is_down(proxy, self.console.errors)
        self._beat()

    def _beat(self) -> None:
        self._driver.loop.call_later(self.post.beat_s, self._beat)
        self._tell({"beat": True})

    def _tell(self, message: dict[str, object]) -> None:
        """Never waits: a supervisor that is stopped, in a debugger perhaps, does not stop its workers."""
        with suppress(OSError):
            self.post.link.send(json.dumps(message).encode() + b"\n", socket.MSG_DONTWAIT)

    def _listen(self) -> None:
        """In a thread of its own, which sleeps almost always."""
        data = b"-"
        while data:
            try:
                data = self.post.link.recv(64)
            except OSError:
                data = b""
            with self._lock:
                if self._driver is None:
                    os._exit(0)  # it has not begun yet
            self._drain(LINE_AT_ONCE in data)

    def _signalled(self, *_: object) -> None:
        self._drain(False)

    def _drain(self, at_once: bool) -> None:
        """In any thread, and where a signal is handled."""
        self._driver.loop.call(partial(self._drain_here, at_once))

    def _drain_here(self, at_once: bool) -> None:
        if at_once or not self._driver.draining:
            self._driver.drain(0.0 if at_once else self.program.grace_s)


class _Console(Console):
    """Leaves to the supervisor what is to be said once."""

    def _event(self, event: Event) -> None:
        if event.name != "draining":
            super()._event(event)
