"""The seam: what the core asks of the world, and what the world answers.

This file, with the values that it passes on, is all that a backend imports. Its rules, written out in docs/seam.md as
eight laws:

- The core is a `Machine`: completions go in, operations come out. It has no socket, clock or randomness of its own.
- The core names everything. Connections, listeners and jobs are numbers that count up, from one sequence.
- `Listen`, `Accept`, `Connect`, `Secure` and `Run` are each answered exactly once. `Receive` is a standing credit: it
  is answered any number of times, until `Hold`, the end of the stream, or `Closed`. A `Send` that was taken is not
  answered at all.
- `Closed` is the only failure, the last word about a number, and stands for everything outstanding on it.
- Objects of this file are values. Nobody changes one after handing it over.

Times are float seconds on a clock that never goes backwards and whose zero means nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, Protocol, TypeAlias

from coulee.core.address import Address as Address
from coulee.core.address import parse_address as parse_address
from coulee.core.address import show_address as show_address
from coulee.core.listener import ListenAt as ListenAt
from coulee.core.listener import Listener as Listener
from coulee.core.listener import ProxyProtocol as ProxyProtocol
from coulee.core.options import CONNECT_OPTIONS as CONNECT_OPTIONS
from coulee.core.options import LISTEN_OPTIONS as LISTEN_OPTIONS
from coulee.core.options import ConnectOptions as ConnectOptions
from coulee.core.options import KeepAlive as KeepAlive
from coulee.core.options import ListenOptions as ListenOptions
from coulee.core.server_names import covers as covers
from coulee.core.tls import Certificate as Certificate
from coulee.core.tls import CertificateError as CertificateError
from coulee.core.tls import CertificateSource as CertificateSource
from coulee.core.tls import ClientCertificates as ClientCertificates
from coulee.core.tls import DownstreamTls as DownstreamTls
from coulee.core.tls import ListenerTls as ListenerTls
from coulee.core.tls import PeerCertificate as PeerCertificate
from coulee.core.tls import Security as Security
from coulee.core.tls import UpstreamTls as UpstreamTls

Bytes: TypeAlias = bytes | list[bytes]
"""What a `Send` carries: bytes, or a list of bytes where joining them would copy a large body."""

ErrorKind: TypeAlias = Literal[
    "refused", "unreachable", "timed_out", "reset", "truncated", "tls", "aborted", "resources", "other"
]
"""Why a connection failed. Never an errno: those differ between systems; text for the log goes beside it. `truncated`
is an end in order of what TLS went over, without TLS's own: what came may be all, or not (RFC 8446 section 6.1)."""


# ---------------------------------------------------------------------------------------------- operations


@dataclass(slots=True)
class Listen:
    """Open a listening socket. Answered by `Listening`, or `Closed(listener)`. `Close(listener)` ends it."""

    listener: int
    address: Address
    options: ListenOptions = LISTEN_OPTIONS


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
    options: ConnectOptions = CONNECT_OPTIONS


@dataclass(slots=True)
class Secure:
    """Begin TLS on a connection that is open and held. Answered by `Secured` or `Closed`; it is held again then.

    `DownstreamTls` is for the side that answers, `UpstreamTls` for the one that asks. `early` is what came of the
    peer's first words before it was known what they are. May be repeated, for TLS within TLS.
    """

    conn: int
    tls: DownstreamTls | UpstreamTls
    early: bytes = b""


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


Operation: TypeAlias = Listen | Accept | Connect | Secure | Receive | Hold | Send | Close | Run | Cancel | Report


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
class Secured:
    """The handshake is done: from here on bytes are those inside TLS. The connection counts as held."""

    conn: int
    security: Security


@dataclass(slots=True)
class Received:
    """Bytes from the peer; `b""` says that it will send no more (and may well go on reading)."""

    conn: int
    data: bytes


@dataclass(slots=True)
class Blocked:
    """The last `Send` was not taken whole, or what TLS said by itself. The backend keeps the rest; no further `Send`
    before `Sent`."""

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


Completion: TypeAlias = (
    Listening | Accepted | Connected | Secured | Received | Blocked | Sent | Closed | Finished | Drain
)


# ------------------------------------------------------------------------------------------------- machine


class Machine(Protocol):
    """What a backend drives: the proxy, a tunnel, or anything else built on the kernel."""

    def fresh(self, *, rng: Random, wall_clock_offset_s: float, listen: Sequence[ListenAt]) -> Machine:
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
