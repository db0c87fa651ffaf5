"""One transport: it is opened, read, written and closed here, with time limits for all of it.

What its bytes mean is for subclasses: `SoleConnection` has one message at a time, `Http2Connection` has many.

Rules:

- Reading runs one read ahead: the `Receive` credit stands, also while nobody wants bytes, so that a peer's leaving is
  heard at once. Only while our own receive buffer is over its mark do we `Hold`.
- Writing gathers what a turn produces into one `Send`, however much that is: one turn cannot produce more than the
  reads it began with. While the transport is blocked, a stream that finds more than the mark waiting waits itself.
- Time limits are two floats, `read_by` and `write_by`, and one alarm that is put right when it rings; setting a limit
  that is later than the alarm is a float store.
"""

from __future__ import annotations

from collections.abc import Generator
from math import inf
from types import coroutine
from typing import TYPE_CHECKING, Any, Final

from coulee.core.errors import ExchangeError, connect_error
from coulee.core.kernel import PARKED, Alarm, Task, _Parked
from coulee.core.seam import (
    CONNECT_OPTIONS,
    Address,
    Bytes,
    Close,
    Connect,
    Connected,
    ConnectOptions,
    DownstreamTls,
    ErrorKind,
    Hold,
    Receive,
    Secure,
    Secured,
    Security,
    Send,
    UpstreamTls,
)

if TYPE_CHECKING:
    from coulee.core.config import Config
    from coulee.core.machine import KernelMachine
    from coulee.core.proxy_protocol import Header


NEXT_TURN_S: Final = 1e-6
"""So soon that it is the next turn, and so late that it is not this one."""


class Connection(Alarm):
    """The base of what a proxy has to its clients and to its origins."""

    __slots__ = (
        "aborted",
        "blocked",
        "close_wanted",
        "closing",
        "eof_wanted",
        "held",
        "limits",
        "local",
        "lost_by",
        "machine",
        "number",
        "open_limit_s",
        "opener",
        "out",
        "out_bytes",
        "peer",
        "read_by",
        "security",
        "sending",
        "timeouts",
        "trusted",
        "write_by",
    )

    def __init__(self, machine: KernelMachine, number: int, config: Config) -> None:
        super().__init__()
        self.machine = machine
        self.number = number
        self.limits = config.limits
        self.timeouts = config.timeouts
        self.peer: Address = ""
        self.local: Address = ""
        self.security: Security | None = None  # what TLS it has
        self.trusted = False  # whether what the peer says about who is behind it counts
        self.held = True  # a new connection is, until its first Receive
        self.sending = 0  # bytes of the last Send, or of this turn's so far
        self.out: list[bytes] = []  # what waits while the transport is blocked
        self.out_bytes = 0
        self.blocked = False
        self.eof_wanted = False
        self.close_wanted = False
        self.opener: Task | None = None  # who waits for the transport, or for its TLS, to stand
        self.open_limit_s = inf
        self.closing = False
        self.aborted = False
        self.lost_by: ErrorKind | None = None
        self.read_by = inf
        self.write_by = inf
        machine.connections[number] = self

    @property
    def server_name(self) -> str:
        """The name that was asked for in TLS, where somebody has to know it."""
        return ""

    @property
    def header(self) -> Header | None:
        """What was said of the peer by the PROXY protocol."""
        return None

    # -- what subclasses say

    def received(self, data: bytes) -> None:
        """Bytes from the peer, or `b""` at its end."""
        raise NotImplementedError

    def has_room(self) -> None:
        """The transport has taken what it had refused."""

    def gone(self, kind: ErrorKind | None, detail: str) -> None:
        """The transport is closed."""
        raise NotImplementedError

    def timed_out(self, reading: bool) -> None:
        """A limit has passed, for reading or for writing."""
        raise NotImplementedError

    def not_opened(self, kind: ErrorKind | None, detail: str) -> ExchangeError:
        """What it means that the transport, or its TLS, has not come about."""
        return connect_error(kind, detail)

    def too_slow(self) -> ExchangeError:
        """... and that it has not come about in time."""
        what = "connected" if not self.peer else "done with TLS"
        return ExchangeError("upstream_connect_timeout", f"not {what} within {self.open_limit_s:g} s")

    # -- opening

    @coroutine
    def connect(
        self, address: Address, limit_s: float, options: ConnectOptions = CONNECT_OPTIONS
    ) -> Generator[_Parked, Any, None]:
        """Ask for the transport and wait until it stands. Raises `ExchangeError`."""
        self.machine.operations.append(Connect(self.number, address, options))
        yield from self._opened_within(limit_s)

    @coroutine
    def secure(
        self, tls: DownstreamTls | UpstreamTls, limit_s: float, early: bytes = b""
    ) -> Generator[_Parked, Any, Security]:
        """Ask for TLS and wait until it stands; the connection is held then, as it must be before. Raises
        `ExchangeError`."""
        assert self.held, "TLS begins on a connection that is held"
        self.machine.operations.append(Secure(self.number, tls, early))
        yield from self._opened_within(limit_s)
        assert self.security is not None
        return self.security

    def _opened_within(self, limit_s: float) -> Generator[_Parked, Any, None]:
        self.opener = self.machine.kernel.running
        self.open_limit_s = limit_s
        self.limit_read(limit_s)
        try:
            yield PARKED
        finally:
            self.opener = None
            self.read_by = inf

    def connected(self, completion: Connected) -> None:
        """The transport stands."""
        self.peer = completion.peer
        self.local = completion.local
        assert self.opener is not None, "after a Close nothing but Closed is delivered"
        self.machine.kernel.wake(self.opener, None)

    def secured(self, completion: Secured) -> None:
        """TLS stands."""
        self.security = completion.security
        assert self.opener is not None, "after a Close nothing but Closed is delivered"
        self.machine.kernel.wake(self.opener, None)

    # -- reading

    def receive(self) -> None:
        """Give the standing credit to read."""
        if self.held and not self.closing:
            self.held = False
            self.machine.operations.append(Receive(self.number))

    def hold(self) -> None:
        """Our buffer is over its mark: read no more, until `read_on`."""
        if not self.held and not self.closing:
            self.held = True
            self.machine.operations.append(Hold(self.number))

    # -- writing

    def push(self, data: Bytes) -> None:
        """Send bytes with what else this turn sends; while the transport is blocked, queue them."""
        if self.closing:
            return
        if self.blocked:
            self._queue(data)
            return
        machine = self.machine
        number = self.number
        send = machine.sends.get(number)
        if send is None:
            machine.sends[number] = send = Send(number, data)
            machine.operations.append(send)
            if isinstance(data, bytes):
                self.sending = len(data)  # so it nearly always is
                return
            self.sending = 0
            machine.lists.append(send)
        elif isinstance(send.data, bytes):
            send.data = [send.data]
            machine.lists.append(send)
            send.data.extend([data] if isinstance(data, bytes) else data)
        else:
            send.data.extend([data] if isinstance(data, bytes) else data)
        self.sending += len(data) if isinstance(data, bytes) else sum(map(len, data))

    def _queue(self, data: Bytes) -> None:
        if isinstance(data, bytes):
            self.out.append(data)
            self.out_bytes += len(data)
        else:
            self.out.extend(data)
            self.out_bytes += sum(map(len, data))

    def send_eof(self) -> None:
        """Half-close behind what is queued."""
        if self.blocked:
            self.eof_wanted = True
        elif not self.closing:
            self.push(b"")
            self.machine.sends[self.number].eof = True

    def block(self) -> None:
        """The transport did not take all of the last `Send`. It is given time by how much that was."""
        self.blocked = True
        self.limit_write(self.timeouts.send_stall_timeout_s * (1 + self.sending // self.limits.buffer_high_bytes))

    def unblock(self) -> None:
        """The transport has taken all of the last `Send`."""
        self.blocked = False
        self.write_by = inf
        if self.out:
            waiting, self.out = self.out, []
            self.out_bytes = 0
            self.push(waiting)
        if self.eof_wanted:
            self.eof_wanted = False
            self.send_eof()
        if self.close_wanted:
            self.close()
        else:
            self.has_room()

    # -- ending

    def close(self, *, abort: bool = False) -> None:
        """Ask for the end of the transport; `lost` follows. An abort may follow a close, to hasten it.

        What was gathered so far goes out first, unless it is an abort.
        """
        if self.aborted or (self.closing and not abort) or self.number not in self.machine.connections:
            return
        if not abort and (self.out or self.eof_wanted):
            self.close_wanted = True  # what we still hold goes first; the limit for writing watches it
            return
        self.aborted = abort
        self.closing = True
        self.out = []
        self.out_bytes = 0
        self.machine.operations.append(Close(self.number, abort))
        self.limit_read(self.timeouts.close_grace_s)

    def lost(self, kind: ErrorKind | None, detail: str) -> None:
        """The transport is closed."""
        self.machine.kernel.disarm(self)
        self.closing = True
        self.lost_by = kind
        self.read_by = self.write_by = inf
        self.out = []
        self.out_bytes = 0
        if self.opener is not None:
            self.machine.kernel.wake(self.opener, None, self.not_opened(kind, detail))
        else:
            self.gone(kind, detail)

    # -- time limits

    def limit_read(self, seconds: float) -> None:
        """From now on, `seconds` for the next part (or whatever is awaited); `inf` lifts the limit."""
        self.read_by = by = self.machine.kernel.now + seconds
        if by < self.armed:
            self.machine.kernel.arm(self, by)

    def limit_write(self, seconds: float) -> None:
        """From now on, `seconds` for the transport to take what it refused."""
        self.write_by = by = self.machine.kernel.now + seconds
        if by < self.armed:
            self.machine.kernel.arm(self, by)

    def ring(self, now: float) -> None:
        if self.closing:
            if self.read_by <= now:
                self.close(abort=True)
                self.read_by = inf
            else:
                self.machine.kernel.arm(self, self.read_by)
            return
        if self.read_by <= now:
            self.read_by = inf
            if self.opener is not None:
                self.machine.kernel.wake(self.opener, None, self.too_slow())
            else:
                self.timed_out(True)
        if self.write_by <= now:
            self.write_by = inf
            self.timed_out(False)
        due = min(self.read_by, self.write_by)
        if due < self.armed and not self.closing:
            self.machine.kernel.arm(self, due)
