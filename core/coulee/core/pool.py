"""The pool of upstream connections: it lends streams, and is nothing but bookkeeping.

Rules:

- A connection of HTTP/1.1 goes back only if its request was fully written and its answer fully read; else it is closed.
  One of HTTP/2 has several streams, of which each goes by itself.
- An idle connection is being read from. Any byte, or its end, retires it at once: nobody asked for anything.
- The one used last is lent first; the one idle for longest goes first when there are too many.
- Where a connection is being opened that can be expected to speak HTTP/2, who comes next hopes for it, and opens none.
- At the cap of a peer, exchanges queue, first come first served, bounded in number and in time.
- A peer may have limits of its own, also for how often and how long a connection to it is used.
- Every change of state is one synchronous function. Only `acquire` awaits, and it holds no state across its awaits that
  is not in the tables here.

As httpcore learned (its PR 880): no I/O in the bookkeeping, and no connection between two states.
"""

from __future__ import annotations

from collections import deque
from math import inf
from types import coroutine
from typing import TYPE_CHECKING, Any, Final

from coulee.core.errors import ExchangeError
from coulee.core.http2_upstream import Http2Upstream, OriginStream
from coulee.core.kernel import PARKED, Alarm, Task, _Parked
from coulee.core.path import establish
from coulee.core.peer import Peer, PeerLimits
from coulee.core.report import Event
from coulee.core.seam import Address
from coulee.core.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Generator

    from coulee.core.config import Config
    from coulee.core.peer import PoolKey
    from coulee.core.proxy import Proxy
    from coulee.core.stream import Stream

_NO_LIMITS: Final = PeerLimits()

WARNED_MAX: Final = 1000
"""Peers of whom it is said that they are not verified; of more it is not."""


class _Waiter(Alarm):
    """An exchange in a queue of a peer. It is given a stream, or a place to open a connection (`called` without
    `given`), or an error."""

    __slots__ = ("called", "failed", "given", "task")

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.given: Stream | None = None
        self.called = False
        self.failed = False

    def call(self, given: Stream | None) -> None:
        """It is this one's turn."""
        self.given = given
        self.called = True
        self.task.kernel.wake(self.task, None)

    def disappoint(self, error: ExchangeError) -> None:
        """What it hoped for has not come about."""
        self.called = self.failed = True
        self.task.kernel.wake(self.task, None, error)

    def ring(self, now: float) -> None:
        if not self.called:
            self.task.kernel.wake(self.task, None, ExchangeError("pool_full", "no connection became free in time"))


class Desk:
    """All that is known of one peer: its connections, and who waits for one."""

    __slots__ = (
        "connections_max",
        "deserted",
        "hopeful",
        "idle",
        "life_s",
        "limits",
        "multiplexes",
        "opening",
        "peer",
        "shared",
        "total",
        "uses_max",
        "wait_s",
        "waiters",
        "waiters_max",
    )

    def __init__(self, peer: Peer, config: Config) -> None:
        self.idle: list[Upstream] = []
        self.shared: list[Http2Upstream] = []  # those that have room for another stream, also idle ones
        self.opening = 0  # connections that are being opened
        self.hopeful: deque[_Waiter] = deque()  # who waits for one of these
        self.multiplexes = False  # whether the next one is expected to speak HTTP/2
        self.total = 0  # connections, and places held for those that are about to be opened
        self.waiters: deque[_Waiter] = deque()
        self.deserted = False  # nobody will come here again: what comes back is closed
        self.peer = peer
        self.set_limits(peer, config)

    def set_limits(self, peer: Peer, config: Config) -> None:
        """What the peer says counts, and where it says nothing, what is said for all."""
        self.limits = peer.limits
        own = peer.limits or _NO_LIMITS
        limits = config.limits
        self.connections_max = own.connections_max or limits.connections_per_peer_max
        self.waiters_max = limits.pool_waiters_max if own.waiters_max is None else own.waiters_max
        self.wait_s = own.wait_s or config.timeouts.pool_wait_s
        self.uses_max = own.requests_per_connection_max or inf
        self.life_s = own.connection_life_s or inf

    @property
    def all_idle(self) -> list[Upstream | Http2Upstream]:
        """Its connections that nobody uses."""
        return [*self.idle, *(connection for connection in self.shared if not connection.lent)]


class Pool:
    """Streams to upstream peers."""

    __slots__ = ("_warned", "desks", "http1_only", "idle", "proxy")

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._warned: dict[Address, None] = {}  # whom it was said of that nobody verifies them
        self.desks: dict[PoolKey, Desk] = {}
        self.idle: dict[Upstream | Http2Upstream, None] = {}  # all idle ones, the one idle for longest first
        self.http1_only: dict[
            PoolKey, float
        ] = {}  # peers that have asked for HTTP/1.1, and until when it is remembered

    # -- lending

    def take(self, peer: Peer) -> Stream | None:
        """A stream on a connection that is there already, at once, if there is one."""
        desk = self.desks.get(peer.key)
        if desk is None:
            return None
        if desk.idle:
            connection = desk.idle.pop()
            del self.idle[connection]
            return connection.lend()
        return self._share(desk) if desk.shared else None

    def _share(self, desk: Desk) -> Stream | None:
        """A stream beside others."""
        while desk.shared:
            connection = desk.shared[0]
            if connection.room > 0:
                self.idle.pop(connection, None)
                return connection.lend()
            del desk.shared[0]
            self.review(connection)
        return None

    async def acquire(self, peer: Peer, *, fresh: bool = False) -> Stream:
        """A stream on a new connection; at the peer's cap, on whatever is free, or becomes so first. Below it, a
        `fresh` one shares its connection with no other, ever. Raises `ExchangeError`."""
        desk = self.desks.get(peer.key)
        if desk is None:
            desk = self.desks[peer.key] = Desk(peer, self.proxy.config)
            desk.multiplexes = speaks_http2_first(self._as_it_wants(peer))
            tls = peer.transport.tls
            if tls is not None and not tls.verify:
                self._warn(peer)
        elif desk.limits is not peer.limits:
            self._set_limits(desk, peer)
        desk.deserted = False
        shared = None if fresh else self._share(desk)
        if shared is not None:
            return shared
        if self._may_hope(desk, fresh):
            given = await self._wait(desk, desk.hopeful, inf)
            if given is not None:
                return given
        else:
            if desk.total < desk.connections_max:
                desk.total += 1
            elif desk.idle or (fresh and desk.shared):
                shared = self._make_room(desk)
                if shared is not None:
                    return shared
            elif len(desk.waiters) >= desk.waiters_max:
                raise ExchangeError("pool_full", f"{len(desk.waiters)} exchanges wait for {peer.name} already")
            else:
                given = await self._wait(desk, desk.waiters, desk.wait_s)
                if given is not None:
                    return given
            if desk.multiplexes and not fresh:
                desk.opening += 1
                kernel = self.proxy.kernel
                kernel.wake(Task(kernel, self._open_for_all(desk)), None)  # once this one is among those who hope
                given = await self._wait(desk, desk.hopeful, inf)
                if given is not None:
                    return given
        return await self._open(desk, fresh)

    def _make_room(self, desk: Desk) -> Stream | None:
        """A fresh one is wanted at the peer's cap: an idle one makes room for it. Where there is none, it has to share,
        for nobody knows when it would be its turn."""
        idle = desk.all_idle
        if not idle:
            return self._share(desk)
        self.retire(idle[0])
        desk.total += 1
        self.desks[desk.peer.key] = desk
        return None

    def _may_hope(self, desk: Desk, fresh: bool) -> bool:
        """Whether a connection is being opened that will have room for one more."""
        room = desk.opening * self.proxy.config.http2.upstream_streams_max
        return desk.multiplexes and not fresh and len(desk.hopeful) < room

    def _warn(self, peer: Peer) -> None:
        """Say once of a peer that it may be anybody."""
        if peer.address not in self._warned and len(self._warned) < WARNED_MAX:
            self._warned[peer.address] = None
            text = (
                f"INSECURE: the certificate of {peer.name} is not verified, as verify=False asks for; anybody can be it"
            )
            proxy = self.proxy
            proxy.report(Event("insecure", text, proxy.wall_clock, {"peer": peer.name}))

    @coroutine
    def _wait(self, desk: Desk, queue: deque[_Waiter], wait_s: float) -> Generator[_Parked, Any, Stream | None]:
        """Wait for a stream, or for a place to open a connection (None). Those who hope wait as long as the opening
        takes, which has limits of its own."""
        kernel = self.proxy.kernel
        assert kernel.running is not None
        waiter = _Waiter(kernel.running)
        queue.append(waiter)
        if wait_s != inf:
            kernel.arm(waiter, kernel.now + wait_s)
        try:
            yield PARKED
        except BaseException:
            if not waiter.called:
                (desk.hopeful if waiter in desk.hopeful else desk.waiters).remove(waiter)
            elif waiter.given is not None:
                self.release(waiter.given, True)
            elif not waiter.failed:
                self._free_place(desk)
            raise
        finally:
            kernel.disarm(waiter)
        return waiter.given

    async def _open_for_all(self, desk: Desk) -> None:
        """Open a connection that many hope for. It belongs to none of them: who leaves does not end it."""
        connection = Upstream(self, desk)
        peer = self._as_it_wants(desk.peer)
        try:
            await establish(connection, peer, self.proxy.connect_limit_s)
        except Exception as broken:  # whatever it was: nobody else would ever tell those who hope
            error = broken
            if not isinstance(error, ExchangeError):
                error = ExchangeError("internal_error", f"{type(broken).__name__}: {broken}")
            desk.opening -= 1
            connection.close(abort=True)
            while desk.hopeful and not desk.opening:
                desk.hopeful.popleft().disappoint(ExchangeError(error.reason, error.detail, error.status))
            self._free_place(desk)
            return
        desk.opening -= 1
        joined = _as_it_speaks(connection, peer)
        joined.receive()
        if isinstance(joined, Http2Upstream):
            self.review(joined)
        elif desk.hopeful:
            desk.hopeful.popleft().call(joined.lend())
        else:
            self._put(joined)
        if not (desk.opening and desk.multiplexes):
            self._let_open(desk)

    async def _open(self, desk: Desk, fresh: bool) -> Stream:
        """Open a connection in the place held for it, for one who wants it."""
        connection = Upstream(self, desk)
        peer = self._as_it_wants(desk.peer)
        try:
            await establish(connection, peer, self.proxy.connect_limit_s)
        except BaseException:
            connection.close(abort=True)
            self._free_place(desk)
            raise
        joined = _as_it_speaks(connection, peer)
        stream = joined.lend()
        if fresh:
            joined.spend()
        joined.receive()
        if isinstance(joined, Http2Upstream):
            self.review(joined)
        return stream

    def _let_open(self, desk: Desk) -> None:
        """Those who hoped in vain to share a connection open their own, as far as there may be so many."""
        kernel = self.proxy.kernel
        while desk.hopeful:
            waiter = desk.hopeful.popleft()
            if desk.total < desk.connections_max:
                desk.total += 1
                self.desks[desk.peer.key] = desk  # what they hoped for may have been the last of it, and worn already
                waiter.call(None)
            else:
                desk.waiters.append(waiter)
                kernel.arm(waiter, kernel.now + desk.wait_s)

    def _as_it_wants(self, peer: Peer) -> Peer:
        """A peer that has asked for HTTP/1.1 is not offered HTTP/2 for a while (RFC 9113 section 7)."""
        until = self.http1_only.get(peer.key)
        if until is None:
            return peer
        if until <= self.proxy.kernel.now:
            del self.http1_only[peer.key]
            return peer
        return peer.by(peer.transport.without_http2())

    def require_http1(self, connection: Http2Upstream) -> None:
        """A peer has asked for HTTP/1.1: so it gets it, also for what goes by HTTP/2 now."""
        settings = self.proxy.config.http2
        desk = connection.desk
        desk.multiplexes = False
        if settings.http1_origins_max:
            self.http1_only.pop(desk.peer.key, None)
            while len(self.http1_only) >= settings.http1_origins_max:
                del self.http1_only[next(iter(self.http1_only))]
            self.http1_only[desk.peer.key] = self.proxy.kernel.now + settings.http1_origins_s
        for each in [connection, *desk.shared]:
            each.going = True
            self.review(each)

    # -- taking back

    def release(self, stream: Stream, whole: bool) -> None:
        """An exchange is done with a stream; `whole` says that nothing of it was cut short."""
        connection = stream.connection
        if isinstance(connection, Http2Upstream):
            assert isinstance(stream, OriginStream)
            connection.take_back(stream)
            self.review(connection)
            return
        assert isinstance(connection, Upstream)
        connection.stream = None
        if whole and connection.codec.reusable and not (connection.out or connection.blocked or connection.closing):
            assert not connection.held, "who has taken all of an answer has made room"
            self._put(connection)
        else:
            connection.close(abort=not whole)
            self._free_place(connection.desk)

    def _put(self, connection: Upstream) -> None:
        """A connection is free: for the first who waits, or to lie idle."""
        desk = connection.desk
        if self.proxy.draining or desk.deserted or (connection.wears and connection.is_worn):
            connection.close()
            self._free_place(desk)
        elif connection.closing:
            self._free_place(desk)
        elif desk.waiters:
            desk.waiters.popleft().call(connection.lend())
        else:
            desk.idle.append(connection)
            idle_s = connection.timeouts.upstream_keep_alive_idle_s
            self._lie_idle(connection, min(idle_s, connection.left_s) if connection.wears else idle_s)

    def _lie_idle(self, connection: Upstream | Http2Upstream, limit_s: float) -> None:
        self.idle[connection] = None
        connection.limit_read(limit_s)
        if len(self.idle) > connection.limits.idle_connections_max:
            self.retire(next(iter(self.idle)))

    def review(self, connection: Http2Upstream) -> None:
        """How much a connection of HTTP/2 can lend may have changed: let those have it who wait, or find its place."""
        desk = connection.desk
        queue = desk.hopeful or desk.waiters
        while queue and connection.room > 0:
            queue.popleft().call(connection.lend())
            queue = desk.hopeful or desk.waiters
        if self.proxy.draining or desk.deserted:
            connection.going = True
        offered = connection in desk.shared
        if connection.room > 0:
            if not offered:
                desk.shared.append(connection)
            if not connection.lent and connection not in self.idle:
                idle_s = connection.timeouts.upstream_keep_alive_idle_s
                self._lie_idle(connection, min(idle_s, connection.left_s))
            return
        if offered:
            desk.shared.remove(connection)
        self.idle.pop(connection, None)
        if not connection.lent and connection.room <= 0:
            connection.depart()
        if (connection.closing or connection.departing) and connection.placed:
            connection.placed = False
            self._free_place(desk)

    def retire(self, connection: Upstream | Http2Upstream) -> None:
        """End an idle connection. One that was given to a waiter a moment ago is noticed by `_put` or the exchange."""
        if connection not in self.idle:
            return
        if isinstance(connection, Http2Upstream):
            connection.going = True
            self.review(connection)
            return
        del self.idle[connection]
        connection.desk.idle.remove(connection)
        connection.close()
        self._free_place(connection.desk)

    def desert(self, peer: Peer) -> None:
        """Nobody will want this peer again: end its connections, those in use when their exchange is over."""
        for desk in self._desks_of(peer):
            desk.deserted = True
            offered: list[Upstream | Http2Upstream] = [*desk.idle, *desk.shared]
            for connection in offered:
                self.retire(connection)

    def set_limits(self, peer: Peer) -> None:
        """The limits of a peer are others than they were: more connections are for those that wait for one, and
        surplus ones end, those in use when their exchange is over. How often and how long a connection is used is what
        was said when it was opened."""
        for desk in self._desks_of(peer):
            self._set_limits(desk, peer)

    def _desks_of(self, peer: Peer) -> list[Desk]:
        """Its desk, if it has one; or one for each client that it has to be told of."""
        if peer.transport.proxy_protocol and not peer.prelude:
            reached = peer.key[:3]
            return [desk for key, desk in self.desks.items() if key[:3] == reached]
        desk = self.desks.get(peer.key)
        return [desk] if desk is not None else []

    def _set_limits(self, desk: Desk, peer: Peer) -> None:
        desk.set_limits(peer, self.proxy.config)
        while desk.waiters and desk.total < desk.connections_max:
            desk.total += 1
            desk.waiters.popleft().call(None)
        for idle in desk.all_idle[: max(0, desk.total - desk.connections_max)]:
            self.retire(idle)
        surplus = desk.total - desk.connections_max
        if surplus > 0:
            ours = (each for each in self.proxy.connections.values() if isinstance(each, Upstream | Http2Upstream))
            busy = [each for each in ours if each.desk is desk and each.busy]
            for connection in busy[:surplus]:
                connection.spend()

    def retire_all(self) -> None:
        """End all idle connections."""
        for connection in list(self.idle):
            self.retire(connection)

    def _free_place(self, desk: Desk) -> None:
        """A connection is gone, or has not come about: who waits may open another."""
        if desk.waiters and desk.total <= desk.connections_max:
            desk.waiters.popleft().call(None)
            return
        desk.total -= 1
        if desk.total == 0:
            del self.desks[desk.peer.key]


def speaks_http2_first(peer: Peer) -> bool:
    """Whether a connection to this peer can be expected to speak HTTP/2."""
    tls = peer.transport.tls
    return peer.transport.prior_knowledge or (tls is not None and tls.alpn[:1] == ("h2",))


def speaks_http2(connection: Upstream, peer: Peer) -> bool:
    """Whether this connection does: by ALPN (RFC 9113 section 3.2), or by prior knowledge (section 3.3)."""
    security = connection.security
    return peer.transport.prior_knowledge if security is None else security.alpn == "h2"


def _as_it_speaks(connection: Upstream, peer: Peer) -> Upstream | Http2Upstream:
    """A connection that stands, by what it has turned out to speak; the next one is expected to speak the same."""
    connection.desk.multiplexes = speaks_http2(connection, peer)
    return Http2Upstream(connection) if connection.desk.multiplexes else connection
