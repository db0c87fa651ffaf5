"""The seam: what the core asks of the world, and what the world answers.

This file is all that a backend imports. Its rules, written out in docs/seam.md as eight laws:

- The core is a `Machine`: completions go in, operations come out. It has no socket, clock or randomness of its own.
- The core names everything. Connections, listeners and jobs are numbers that count up, from one sequence.
- `Listen`, `Accept`, `Connect` and `Run` are each answered exactly once. `Receive` is a standing credit: it is answered
  any number of times, until `Hold`, the end of the stream, or `Closed`. A `Send` that was taken is not answered at all.
- `Closed` is the only failure, the last word about a number, and stands for everything outstanding on it.
- Objects of this file are values. Nobody changes one after handing it over.

Times are float seconds on a clock that never goes backwards and whose zero means nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, Protocol, TypeAlias

Address: TypeAlias = tuple[str, int] | str
"""A TCP address as `(host, port)`, where host may be a name; or the path of a Unix socket."""

Bytes: TypeAlias = bytes | list[bytes]
"""What a `Send` carries: bytes, or a list of bytes where joining them would copy a large body."""

ErrorKind: TypeAlias = Literal["refused", "unreachable", "timed_out", "reset", "tls", "aborted", "resources", "other"]
"""Why a connection failed. Never an errno: those differ between systems; text for the log goes beside it."""


def show_address(address: Address) -> str:
    """An address as people write it."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# ---------------------------------------------------------------------------------------------- operations


@dataclass(slots=True)
class Listen:
    """Open a listening socket. Answered by `Listening`, or `Closed(listener)`. `Close(listener)` ends it."""

    listener: int
    address: Address


@dataclass(slots=True)
class Accept:
    """A credit to accept one connection, which will be called `conn`. Answered by `Accepted` or `Closed(conn)`."""

    conn: int
    listener: int


@dataclass(slots=True)
class Connect:
    """Open a connection called `conn`. Resolving names, trying every address of one, is the backend's."""

    conn: int
    address: Address


@dataclass(slots=True)
class Receive:
    """A standing credit to read, until `Hold(conn)`. Answered by `Received` each time bytes come."""

    conn: int


@dataclass(slots=True)
class Hold:
    """Stop reading. No `Received` comes after it until the next `Receive`."""

    conn: int


@dataclass(slots=True)
class Send:
    """Write. Silence means taken; else `Blocked` at once and `Sent` when there is room. `eof` half-closes behind
    `data`."""

    conn: int
    data: Bytes
    eof: bool = False


@dataclass(slots=True)
class Close:
    """End a connection, a pending `Accept` or `Connect`, or a listener. What was sent still goes out, unless `abort`,
    which resets the connection so that the peer cannot take what it has for the whole. Answered by `Closed`."""

    conn: int
    abort: bool = False


@dataclass(slots=True)
class Run:
    """Run user code outside the core: `"blocking"` calls it on a thread, `"native"` awaits it on the host's loop."""

    job: int
    mode: Literal["blocking", "native"]
    call: Callable[[], Any] | Callable[[], Awaitable[Any]]


@dataclass(slots=True)
class Cancel:
    """Ask a job to stop, as far as it can be stopped. Its `Finished` still comes."""

    job: int


@dataclass(slots=True)
class Report:
    """One access line or event for the host. One way: nothing comes back."""

    record: object


Operation: TypeAlias = Listen | Accept | Connect | Receive | Hold | Send | Close | Run | Cancel | Report


# --------------------------------------------------------------------------------------------- completions


@dataclass(slots=True)
class Listening:
    """The listener is open; `local` is its real address, with the port that the system chose for port 0."""

    listener: int
    local: Address


@dataclass(slots=True)
class Accepted:
    """A peer has connected. It counts as held: no bytes come before the first `Receive`."""

    conn: int
    peer: Address
    local: Address


@dataclass(slots=True)
class Connected:
    """The connection stands. It counts as held: no bytes come before the first `Receive`."""

    conn: int
    peer: Address
    local: Address


@dataclass(slots=True)
class Received:
    """Bytes from the peer; `b""` says that it will send no more (and may well go on reading)."""

    conn: int
    data: bytes


@dataclass(slots=True)
class Blocked:
    """The last `Send` was not taken whole. The backend keeps the rest; no further `Send` before `Sent`."""

    conn: int


@dataclass(slots=True)
class Sent:
    """What was blocked has been taken."""

    conn: int


@dataclass(slots=True)
class Closed:
    """The last word about a connection or listener; `error` is None where we closed it, or the peer did in order."""

    conn: int
    error: ErrorKind | None = None
    detail: str = ""


@dataclass(slots=True)
class Finished:
    """A job's result, or the exception that ended it."""

    job: int
    value: object = None
    error: BaseException | None = None


@dataclass(slots=True)
class Drain:
    """Not an answer: the host wants to stop. What runs may finish within `grace_s` seconds; nothing new begins."""

    grace_s: float


Completion: TypeAlias = Listening | Accepted | Connected | Received | Blocked | Sent | Closed | Finished | Drain


# ------------------------------------------------------------------------------------------------- machine


class Machine(Protocol):
    """What a backend drives: the proxy, a tunnel, or anything else built on the kernel."""

    def fresh(self, *, rng: Random, wall_clock_offset_s: float, listen: Sequence[Address]) -> Machine:
        """A machine of the same definition in its initial state; `handle(None, now)` starts it.

        `rng` is its only randomness; `wall_clock_offset_s` is Unix time less the clock that `handle` is given.
        """
        ...

    def handle(self, completion: Completion | None, now: float) -> list[Operation]:
        """Take in what the world answers, or None where time has passed; return what to do now.

        Time limits run out only with None. So whoever is late hands over what has come before it says that.
        """
        ...

    @property
    def deadline(self) -> float | None:
        """Call `handle(None, now)` no later than this."""
        ...

    @property
    def finished(self) -> bool:
        """Whether it was drained: nothing is open any more and nothing will be."""
        ...
