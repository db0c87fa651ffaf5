"""What a client goes through before it may ask anything: a header of the PROXY protocol, and TLS.

    accepted --> PROXY header --> ClientHello --> certificate chosen --> handshake --> a guest
                     |                 |                                     |
                     '-----------------'---------> turned away <------------'

Rules:

- A `Door` is what one listener asks for; an `Entrance` is one client on its way through it. It ends in a `Guest`, whom
  the machine lets in, or in the connection's end with an event that says why. Only plain HTTP at a door of TLS is
  answered, because it is a mistake that people make.
- The ClientHello is read here, and not by OpenSSL alone: so the certificate is chosen by the core, perhaps by asking a
  user's coroutine, and whoever offers no protocol that we speak is refused (RFC 7301 section 3.2).
- Whoever must say who it stands for (the PROXY protocol) is believed only where it is trusted, and must then say it. It
  is counted by the address that it tells.
- Each step has its time limit. While we wait for nothing from a client, nothing of it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from types import coroutine
from typing import TYPE_CHECKING, Final

from coulee.core.certificates import Certificates
from coulee.core.client_hello import ClientHello, HelloError, alert_record, read_client_hello
from coulee.core.connection import Connection
from coulee.core.errors import ExchangeError
from coulee.core.kernel import PARKED, Task, _Parked
from coulee.core.networks import Networks
from coulee.core.proxy_protocol import Header, HeaderError, read_header
from coulee.core.report import Event
from coulee.core.seam import Accepted, Address, DownstreamTls, ErrorKind, Security, show_address

if TYPE_CHECKING:
    from coulee.core.admission import Origin
    from coulee.core.listener import Listener
    from coulee.core.machine import KernelMachine

TOLD_MAX_PER_S: Final = 10
"""Events about clients that were turned away, in one second; of more only their number is told. Who attacks us is not
to fill the disk too."""

_NO_APPLICATION_PROTOCOL: Final = 120  # RFC 7301 section 3.2
_HANDSHAKE: Final = 0x16
_PORT: Final = re.compile(r":[0-9]*\Z")


@dataclass(slots=True)
class Guest:
    """A client that has come through."""

    number: int
    peer: Address
    local: Address
    held: bool = True
    """Whether a Receive is still to be given."""

    blocked: bool = False
    """Whether it has yet to take what TLS itself has said to it."""

    early: bytes = b""
    """What it has sent already."""

    security: Security | None = None
    tls: DownstreamTls | None = None
    server_name: str = ""
    """What it asked for in TLS, in lower case; "" where it named nobody."""

    header: Header | None = None
    """What was said of it by the PROXY protocol."""

    def covers(self, authority: str) -> bool:
        """Whether a request for this authority may come by the TLS that this client has (RFC 9110 section 7.4)."""
        tls = self.tls
        assert tls is not None
        # Which of several kinds of keys the client has taken is not known here, so all of them have to be for the host.
        host = authority.rpartition(":")[0] if _PORT.search(authority) else authority
        return not (tls.listener.covered_only and authority) or all(each.covers(host) for each in tls.certificates)


class Door:
    """What a listener asks of its clients; runs along with the machine."""

    __slots__ = ("_kept_back", "_second", "_told", "certificates", "machine", "settings", "trusted")

    def __init__(self, machine: KernelMachine, settings: Listener) -> None:
        self.machine = machine
        self.settings = settings
        self.trusted = None if settings.proxy_protocol is None else Networks(settings.proxy_protocol.trusted)
        self.certificates = None if settings.tls is None else Certificates(settings.tls)
        if self.certificates is not None:
            self.certificates.start(machine)
        if settings.tls is not None and settings.tls.key_log:
            text = (
                f"INSECURE: TLS session keys are written to {settings.tls.key_log}; whoever has it can read all traffic"
            )
            machine.report(Event("insecure", text, machine.wall_clock, {"key_log": settings.tls.key_log}))
        self._second = -1.0
        self._told = 0
        self._kept_back = 0

    def close(self) -> None:
        """Nobody comes in any more."""
        if self.certificates is not None:
            self.certificates.stop()

    def tell(self, client: Address, error: ExchangeError) -> None:
        """Somebody was turned away."""
        now = self.machine.kernel.now
        if now - self._second >= 1:
            self._second = now
            self._told = 0
        self._told += 1
        if self._told > TOLD_MAX_PER_S:
            self._kept_back += 1
            return
        text = f"{show_address(client) or 'a client'} was turned away: {error}"
        fields: dict[str, object] = {"client": client, "reason": error.reason, "detail": error.detail}
        if self._kept_back:
            text += f" (and {self._kept_back} more before)"
            fields["kept_back"] = self._kept_back
            self._kept_back = 0
        self.machine.report(Event("turned_away", text, self.machine.wall_clock, fields))


@dataclass(slots=True)
class Count:
    """What a client is counted by: from one address, among those let in or those that are to be refused, and among the
    handshakes under way."""

    origin: Origin | None
    obstacle: ExchangeError | None = None
    handshaking: bool = False


class Entrance(Connection):
    """One client at a door. `on_known` is told once it is known which address counts, and may object by raising; in the
    end either `on_through` is called, or `on_failure` with why not, which has to end the connection."""

    __slots__ = (
        "count",
        "door",
        "failure",
        "guest",
        "on_failure",
        "on_known",
        "on_through",
        "overdue",
        "reader",
        "task",
    )

    def __init__(
        self,
        door: Door,
        completion: Accepted,
        count: Count,
        on_known: Callable[[Entrance], None],
        on_through: Callable[[Entrance], None],
        on_failure: Callable[[Entrance, ExchangeError], None],
    ) -> None:
        machine = door.machine
        super().__init__(machine, completion.conn, machine.config)
        self.door = door
        self.peer = completion.peer
        self.local = completion.local
        self.guest = Guest(completion.conn, completion.peer, completion.local)
        self.count = count
        self.on_known = on_known
        self.on_through = on_through
        self.on_failure = on_failure
        self.reader: Task | None = None
        self.overdue = ""  # the word for it that a reader waits for too long
        self.failure: ExchangeError | None = None  # why it was given up
        self.task: Task | None = Task(machine.kernel, self._enter(), self._entered)
        machine.kernel.step(self.task, None, None)

    # -- the way in

    async def _enter(self) -> None:
        if self.door.trusted is not None:
            await self._read_header(self.door.trusted)
        self.on_known(self)
        if self.door.certificates is not None:
            await self._secure(self.door.certificates)

    async def _read_header(self, trusted: Networks) -> None:
        """The header of the PROXY protocol, and what it changes."""
        guest = self.guest
        if self.peer not in trusted:
            raise ExchangeError("proxy_header_untrusted", f"{show_address(self.peer)} is not among the trusted")
        until = self.machine.kernel.now + self.timeouts.proxy_header_timeout_s
        found: tuple[Header, int] | None = None
        while found is None:
            await self._more(until, "proxy_header_timeout")
            try:
                found = read_header(guest.early)
            except HeaderError as error:
                raise ExchangeError("proxy_header_invalid", str(error)) from error
        guest.header, length = found
        guest.early = guest.early[length:]
        if guest.header.source is not None:
            guest.peer = guest.header.source
        if guest.header.destination is not None:
            guest.local = guest.header.destination

    async def _secure(self, certificates: Certificates) -> None:
        """TLS, from the first byte of the ClientHello."""
        guest = self.guest
        limit_s = self.timeouts.tls_handshake_timeout_s
        until = self.machine.kernel.now + limit_s
        hello = self._hello()
        while hello is None:
            await self._more(until, "tls_timeout")
            hello = self._hello()
        guest.server_name = hello.server_name
        offered = self.door.settings.tls.alpn if self.door.settings.tls is not None else ()
        if hello.alpn and not any(protocol in offered for protocol in hello.alpn):
            self.push(alert_record(_NO_APPLICATION_PROTOCOL))
            raise ExchangeError("tls_failed", f"the client speaks {', '.join(hello.alpn)!r}, and none of {offered}")
        self.hold()
        guest.tls = await certificates.choose(hello.server_name)  # which may take its time
        early, guest.early = guest.early, b""
        guest.security = await self.secure(guest.tls, until - self.machine.kernel.now, early)

    def _hello(self) -> ClientHello | None:
        data = self.guest.early
        if data and data[0] != _HANDSHAKE and (data[:1].isalpha() or data[:1] in b"\r\n"):
            raise ExchangeError("plain_http", "this port speaks TLS: write https:// in place of http://")
        try:
            return read_client_hello(data)
        except HelloError as error:
            self.push(alert_record(error.alert))
            raise ExchangeError("tls_failed", str(error)) from error

    @coroutine
    def _more(self, until: float, overdue: str) -> Generator[_Parked, None, None]:
        """Wait for more bytes, until then. Raises `ExchangeError`."""
        self.reader = self.machine.kernel.running
        self.overdue = overdue
        self.limit_read(until - self.machine.kernel.now)
        self.receive()
        try:
            yield PARKED
        finally:
            self.reader = None

    def _entered(self, task: Task) -> None:
        """It is in, or it is not."""
        self.task = None
        error: BaseException | None = self.failure or task.error
        if error is None:
            self.machine.kernel.disarm(self)
            self.guest.held = self.held
            self.guest.blocked = self.blocked
            self.on_through(self)
            return
        if not isinstance(error, ExchangeError):
            self.machine.stray_error(task)
            error = ExchangeError("internal_error", f"{type(error).__name__}: {error}")
        self.on_failure(self, error)

    # -- what happens to it

    def received(self, data: bytes) -> None:
        if not data:
            self._interrupt(ExchangeError("client_gone", "the client left"))
            return
        self.guest.early += data
        self._interrupt(None)

    def gone(self, kind: ErrorKind | None, detail: str) -> None:
        self._interrupt(ExchangeError("client_gone", detail or "the client left"))

    def timed_out(self, reading: bool) -> None:
        if reading and self.task is not None:
            self._interrupt(ExchangeError(self.overdue, "it took too long"))
        else:
            self.close(abort=True)  # it is over, and our last words are not taken

    def not_opened(self, kind: ErrorKind | None, detail: str) -> ExchangeError:
        if kind == "tls":
            return ExchangeError("tls_failed", detail)
        return ExchangeError("client_gone", detail or "the client left during the handshake")

    def too_slow(self) -> ExchangeError:
        return ExchangeError("tls_timeout", f"no handshake within {self.timeouts.tls_handshake_timeout_s:g} s")

    def _interrupt(self, error: ExchangeError | None) -> None:
        """Go on, if more was awaited."""
        reader, self.reader = self.reader, None
        if reader is not None:
            self.machine.kernel.step(reader, None, error)
        elif error is not None and self.task is not None:
            self.failure = error
            self.task.cancel()
