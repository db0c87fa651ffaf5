"""The way to a connected socket, for the drivers on a poller: names, and several addresses of one.

Each address gets a head start on the next (RFC 8305, section 5); the first connection that comes about is kept. Sockets
are non-blocking, and nothing waits: the driver's poller, timers and look-ups call back.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from coulee.backends import sockets
from coulee.core.seam import Address

if TYPE_CHECKING:
    from coulee.backends.polled import PolledDriver

Found: TypeAlias = "list[sockets.Target] | OSError"
"""What a name stands for, or why that cannot be told."""


class Dial:
    """One such way. It ends in one call of `done`, or in `end`."""

    def __init__(self, driver: PolledDriver, done: Callable[[socket.socket | OSError], None]) -> None:
        self.driver = driver
        self.done = done
        self.left: deque[sockets.Target] = deque()
        self.running: list[socket.socket] = []
        self.timer: list[Any] | None = None
        self.over = False

    def begin(self, address: Address) -> None:
        """Raises OSError where `address` cannot be one."""
        places = sockets.targets(address)
        if places is None:
            self.driver.look_up(address, self._found)
        else:
            self._found(places)

    def _found(self, found: Found) -> None:
        if self.over:
            return
        if isinstance(found, OSError):
            self._finish(found)
        else:
            self.left.extend(found)
            self._next()

    def _next(self) -> None:
        """Begin the next attempt."""
        self._stop_timer()
        place = self.left.popleft()
        if self.left:
            self.timer = self.driver.call_later(sockets.ATTEMPT_DELAY_S, self._next)
        try:
            sock = socket.socket(place[0], socket.SOCK_STREAM)
        except OSError as error:  # out of descriptors, or a family that this host has not
            self._failed(error)
            return
        sock.setblocking(False)
        self.running.append(sock)
        try:
            sock.connect(place[1])
        except OSError as error:
            # A Unix socket connects or fails at once: its EAGAIN is a full backlog.
            if error.errno == errno.EINPROGRESS:
                self.driver.selector.register(sock, selectors.EVENT_WRITE, partial(self._settled, sock))
            else:
                self._drop(sock)
                self._failed(error)
        else:
            self._won(sock)

    def _settled(self, sock: socket.socket, _: int) -> None:
        if sock not in self.running:
            return  # it came second by less than a turn
        self.driver.selector.unregister(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._drop(sock)
            self._failed(OSError(code, os.strerror(code)))
        else:
            self._won(sock)

    def _failed(self, error: OSError) -> None:
        if self.left:
            self._next()
        elif not self.running:
            self._finish(error)

    def _won(self, sock: socket.socket) -> None:
        self.running.remove(sock)
        self._finish(sock)

    def _finish(self, result: socket.socket | OSError) -> None:
        self.end()
        self.done(result)

    def end(self) -> None:
        """Give up whatever is under way."""
        self.over = True
        self._stop_timer()
        while self.running:
            sock = self.running[-1]
            with suppress(KeyError):  # not one that has just settled
                self.driver.selector.unregister(sock)
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        self.running.remove(sock)
        sock.close()

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.driver.cancel_timer(self.timer)
            self.timer = None
