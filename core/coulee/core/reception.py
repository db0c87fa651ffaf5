"""Who of those that connect becomes a client: caps for connections and handshakes, and the doors of listeners.

Rules:

- Every connection is counted once, from its being accepted to its end: as one let in, or as one that is there only to
  be told that it is not. What follows an entrance takes its count over.
- A listener without TLS and PROXY protocol has no door: its clients are let in in the turn in which they come.
- While we are full, listeners get no further credit, and the system's backlog holds who comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from coulee.core.admission import Admission, Origin, origin_of
from coulee.core.entrance import Count, Door, Entrance, Guest
from coulee.core.errors import ExchangeError
from coulee.core.listener import Listener
from coulee.core.report import Counters
from coulee.core.seam import Accepted, Address

if TYPE_CHECKING:
    from coulee.core.config import Config
    from coulee.core.kernel import Kernel


class Host(Protocol):
    """The machine, as its reception sees it."""

    config: Config
    counters: Counters
    kernel: Kernel
    listeners: dict[int, Address]
    draining: bool

    def ask_to_accept(self, listener: int) -> None:
        """See `KernelMachine`."""
        ...

    def trusts(self, peer: Address) -> bool:
        """Whether this peer stands for many clients."""
        ...

    def welcome(self, guest: Guest, count: Count) -> None:
        """Serve a client; or, where its count has an obstacle, tell it so. Whatever connection comes of it has the
        count as `count`."""
        ...

    def turn_away(self, number: int) -> None:
        """Close a connection at once."""
        ...


class Reception:
    """Lets in, refuses, and turns away."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.admission = Admission(host.config.limits)
        self.doors: dict[int, Door] = {}
        self.handshakes: dict[Origin, int] = {}
        self._starved: list[int] = []  # listeners that get no credit while we are full

    # -- listeners

    def open(self, listener: int, settings: Listener) -> None:
        """There is a listener."""
        if settings.tls is not None or settings.proxy_protocol is not None:
            self.doors[listener] = Door(self.host, settings)  # type: ignore[arg-type]

    def close(self, listener: int) -> None:
        """There is none any more. Who is on the way in goes on."""
        door = self.doors.pop(listener, None)
        if door is not None:
            door.close()

    # -- clients

    def accepted(self, completion: Accepted, listener: int) -> None:
        """A client has connected."""
        host = self.host
        host.counters.connections += 1
        self._let_in(completion, self.doors.get(listener))
        if host.draining or listener not in host.listeners:
            return
        if self.admission.accepts:
            host.ask_to_accept(listener)
        else:
            self._starved.append(listener)

    def _let_in(self, completion: Accepted, door: Door | None) -> None:
        unknown = door is not None and door.trusted is not None  # who it is, until it has said so
        count = self._counted("" if unknown else completion.peer)
        if count is None:
            self.host.turn_away(completion.conn)
        elif door is None:
            self.host.welcome(Guest(completion.conn, completion.peer, completion.local), count)
        else:
            Entrance(door, completion, count, self._known, self._through, self._failed)

    def _counted(self, peer: Address) -> Count | None:
        """Count one more client; None where there is not even room to refuse it."""
        host, admission = self.host, self.admission
        counted = host.config.limits.connections_per_address_max and not host.trusts(peer)
        origin = origin_of(peer) if counted else None
        obstacle = admission.obstacle(origin)
        if not obstacle:
            admission.enter(origin)
            return Count(origin)
        if admission.may_refuse:
            host.counters.connections_refused += 1
            admission.refused += 1
            return Count(origin, ExchangeError("too_many_connections", obstacle))
        host.counters.connections_turned_away += 1
        return None

    def _known(self, entrance: Entrance) -> None:
        """The address that counts is known: it may be another than the one that connected."""
        door, guest, count = entrance.door, entrance.guest, entrance.count
        if guest.header is not None and guest.header.source is not None:
            self._forget(count)
            other = self._counted(guest.peer)
            if other is None:
                self.admission.enter(None)  # until it is gone
                count.origin = count.obstacle = None
                raise ExchangeError("too_many_connections", "there are too many even to be refused")
            count.origin, count.obstacle = other.origin, other.obstacle
        origin = count.origin
        if door.certificates is not None and origin is not None:
            under_way = self.handshakes.get(origin, 0)
            if under_way >= self.host.config.limits.handshakes_per_address_max:
                raise ExchangeError("too_many_handshakes", f"{under_way} from this address are under way")
            self.handshakes[origin] = under_way + 1
            count.handshaking = True

    def _through(self, entrance: Entrance) -> None:
        self._end_handshake(entrance.count)
        self.host.welcome(entrance.guest, entrance.count)

    def _failed(self, entrance: Entrance, error: ExchangeError) -> None:
        self._end_handshake(entrance.count)
        if error.reason == "plain_http":
            count = entrance.count
            count.obstacle = count.obstacle or error
            entrance.guest.held = entrance.held
            self.host.kernel.disarm(entrance)
            self.host.welcome(entrance.guest, count)
            return
        if error.reason != "client_gone":  # which checks of balancers do all the time
            self.host.counters.entrances_failed += 1
            entrance.door.tell(entrance.guest.peer, error)
        entrance.close(abort=error.reason != "tls_failed")  # an alert may be on its way

    def _end_handshake(self, count: Count) -> None:
        if count.handshaking:
            count.handshaking = False
            origin = count.origin
            assert origin is not None
            left = self.handshakes[origin] - 1
            if left:
                self.handshakes[origin] = left
            else:
                del self.handshakes[origin]

    def gone(self, count: Count) -> None:
        """A connection that was counted is gone: another may come."""
        self._forget(count)
        host = self.host
        while self._starved and not host.draining and self.admission.accepts:
            listener = self._starved.pop()
            if listener in host.listeners:
                host.ask_to_accept(listener)
                break

    def _forget(self, count: Count) -> None:
        if count.obstacle is not None and count.obstacle.reason == "too_many_connections":
            self.admission.refused -= 1
        else:
            self.admission.leave(count.origin)
