"""What the conformance suite needs of a backend: a `Harness`, which has the backend and the world around it.

Rules:

- Nothing waits for a fixed time: `until` waits for a condition, and fails after a limit.
- That something does *not* happen is judged behind a fence: a byte that goes through a connection made for it.
- What a world does not have is skipped by its harness, with `pytest.skip` and one line that says what is missing.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from coulee.backends.driver import Driver
from coulee.core.seam import Address, Machine

LIMIT_S = 10.0
TCP: Address = ("127.0.0.1", 0)


class Peer(Protocol):
    """The other end of a connection. It reads by itself, unless paused."""

    @property
    def received(self) -> bytes:
        """All that has come."""
        ...

    @property
    def count(self) -> int:
        """How many bytes that is."""
        ...

    @property
    def unsent(self) -> int:
        """How many bytes were written that the system, or the network, has not taken yet."""
        ...

    @property
    def eof(self) -> bool:
        """The end of the stream has come."""
        ...

    @property
    def was_reset(self) -> bool:
        """The connection, or the attempt at one, has failed."""
        ...

    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def reset(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Harness(Protocol):
    """A backend, and the world around it."""

    driver: Driver

    @property
    def sleep(self) -> Callable[[float], Awaitable[Any]] | None:
        """The host's own `sleep`, for native jobs; None where there is no loop to sleep on."""
        ...

    @property
    def has_ipv6(self) -> bool:
        """Whether there is a ::1."""
        ...

    @property
    def has_socket_options(self) -> bool:
        """Whether the backend has sockets of the system, and options of them: see `look_at`."""
        ...

    @property
    def has_tls(self) -> bool:
        """Whether it can do TLS. A backend on our `Driver` can; one that cannot answers a `Secure` with `Closed`."""
        ...

    @property
    def done(self) -> bool:
        """Whether the machine has finished."""
        ...

    def start(self, machine: Machine) -> None:
        """Run a fresh machine; `driver` is there when this returns."""
        ...

    def until(self, condition: Callable[[], object], limit_s: float | None = None) -> None:
        """Let things happen until the condition holds. Raises AssertionError after `limit_s`, or a limit of yours."""
        ...

    def call(self, call: Callable[[], object]) -> None:
        """Call the driver where it may be called from, and return behind it."""
        ...

    def connect(self, address: Address) -> Peer:
        """A peer that connects."""
        ...

    def listen(self, address: Address) -> tuple[Address, list[Peer]]:
        """Let peers listen, on a free port for port 0: where, and a list into which they come."""
        ...

    def nobody(self) -> Address:
        """A TCP address at which nobody listens."""
        ...

    def black_hole(self, port: int) -> str:
        """A host that does not answer who connects to this port."""
        ...

    def path(self) -> str:
        """A path for a Unix socket."""
        ...

    def look_at(self, local: Address, peer: Address | None = None) -> socket.socket:
        """A duplicate of the socket that the backend has between two addresses; or, without a peer, of the one that
        listens at `local`. Skips the test where there are no sockets."""
        ...

    def look_up(self, names: Callable[[str], Sequence[str]]) -> None:
        """From now on this says which addresses a name has. It may take its time, as it is called where a look-up may
        block, and may raise OSError."""
        ...

    def exhausted(self) -> AbstractContextManager[None]:
        """While it lasts, the backend gets no descriptor from the system."""
        ...

    def make_room(self, descriptors: int) -> None:
        """See to it that so many descriptors can be open, or skip the test."""
        ...

    def end(self) -> None:
        """Tidy up. Raises what the backend raised."""
        ...
