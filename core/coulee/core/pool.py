"""The pool of upstream connections: it lends streams, and is nothing but bookkeeping.

Rules:

- A connection goes back only if its request was fully written and its answer fully read; else it is closed.
- An idle connection is being read from. Any byte, or its end, retires it at once: nobody asked for anything.
- The one used last is lent first; the one idle for longest goes first when there are too many.
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

from coulee.core.codec import ProtocolError
from coulee.core.connection import Connection, Stream
from coulee.core.errors import ExchangeError
from coulee.core.kernel import PARKED, Alarm, Task, _Parked
from coulee.core.path import establish
from coulee.core.peer import PeerLimits
from coulee.core.report import Event
from coulee.core.seam import Address, ErrorKind

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from coulee.core.config import Config
    from coulee.core.peer import Peer, PoolKey
    from coulee.core.proxy import Proxy

_NO_LIMITS: Final = PeerLimits()

WARNED_MAX: Final = 1000
"""Peers of whom it is said that they are not verified; of more it is not."""


class Upstream(Connection):
    """One connection to an origin: connecting, then lent (`stream` is set) or idle."""

    __slots__ = ("desk", "on_loss", "pool", "until", "uses", "uses_max", "wears")

    def __init__(self, pool: Pool, desk: _Desk) -> None:
        super().__init__(pool.proxy, pool.proxy.number(), pool.proxy.new_codec("client"), pool.proxy.config)
        self.pool = pool
        self.desk = desk
        self.uses = 0  # streams lent so far
        self.uses_max = desk.uses_max
        self.until = pool.proxy.kernel.now + desk.life_s  # not used again from then on
        self.wears = desk.uses_max != inf or desk.life_s != inf  # whether these two matter
        self.on_loss: Callable[[ExchangeError], None] | None = None  # whom to tell when nobody reads from it any more

    def lend(self) -> Stream:
        """The stream for one exchange."""
        self.uses += 1
        self.read_by = inf  # it may have lain idle
        self.unread = False  # and nothing has come
        return Stream(self, self.uses, self.timeouts.answer_timeout_s)

    @property
    def left_s(self) -> float:
        """How long it may still be used."""
        return self.until - self.pool.proxy.kernel.now

    @property
    def is_worn(self) -> bool:
        """Whether it was used so often, or so long, that it is not to be used again."""
        return self.uses >= self.uses_max or self.left_s <= 0

    def spend(self) -> None:
        """Its present use is its last."""
        self.wears = True
        self.uses_max = 0

    # -- what happens to it

    def wanted_by_nobody(self) -> None:
        if self.stream is None:
            self.pool.retire(self)

    def ended_by_peer(self) -> None:
        if self.stream is None:
            self.pool.retire(self)

    def gone(self, kind: ErrorKind | None, detail: str) -> None:
        if self.stream is not None:
            self.fail(self.stream, ExchangeError("upstream_reset", detail or "the connection was closed"))
        else:
            self.pool.retire(self)

    def timed_out(self, reading: bool) -> None:
        timeouts = self.timeouts
        if self.close_wanted:
            self.close(abort=True)  # it was given back with its last bytes on their way, and does not take them
        elif self.stream is None:
            self.pool.retire(self)
        elif reading:
            self.stream.give_up(ExchangeError("upstream_timeout", f"no answer within {self.stream.patience_s:g} s"))
        else:
            waited = f"took nothing of the request for {timeouts.send_stall_timeout_s:g} s"
            self.fail(self.stream, ExchangeError("upstream_timeout", waited))

    def fail(self, stream: Stream, error: ExchangeError) -> None:
        """It is of no more use to who has it."""
        stream.fail(error)
        if self.on_loss is not None:
            self.on_loss(error)

    def fault(self, error: ProtocolError) -> ExchangeError:
        return ExchangeError(error.reason, error.detail, error.status)


class _Waiter(Alarm):
    """An exchange in the queue of a peer. It is given a connection, or a place to open one (`called` without
    `given`)."""

    __slots__ = ("called", "given", "task")

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.given: Upstream | None = None
        self.called = False

    def call(self, given: Upstream | None) -> None:
        """It is this one's turn."""
        self.given = given
        self.called = True
        self.task.kernel.wake(self.task, None)

    def ring(self, now: float) -> None:
        if not self.called:
            self.task.kernel.wake(self.task, None, ExchangeError("pool_full", "no connection became free in time"))


class _Desk:
    """All that is known of one peer: its connections, and who waits for one."""

    __slots__ = (
        "connections_max",
        "deserted",
        "idle",
        "life_s",
        "limits",
        "peer",
        "total",
        "uses_max",
        "wait_s",
        "waiters",
        "waiters_max",
    )

    def __init__(self, peer: Peer, config: Config) -> None:
        self.idle: list[Upstream] = []
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


class Pool:
    """Streams to upstream peers."""

    __slots__ = ("_warned", "desks", "idle", "proxy")

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._warned: dict[Address, None] = {}  # whom it was said of that nobody verifies them
        self.desks: dict[PoolKey, _Desk] = {}
        self.idle: dict[Upstream, None] = {}  # all idle ones, the one idle for longest first

    # -- lending

    def take(self, peer: Peer) -> Stream | None:
        """A stream on an idle connection, at once, if there is one."""
        desk = self.desks.get(peer.key)
        if desk is None or not desk.idle:
            return None
        connection = desk.idle.pop()
        del self.idle[connection]
        return connection.lend()

    async def acquire(self, peer: Peer) -> Stream:
        """A stream on a new connection; at the peer's cap, on whatever becomes free first. Raises `ExchangeError`."""
        desk = self.desks.get(peer.key)
        if desk is None:
            desk = self.desks[peer.key] = _Desk(peer, self.proxy.config)
            tls = peer.transport.tls
            if tls is not None and not tls.verify:
                self._warn(peer)
        elif desk.limits is not peer.limits:
            self._set_limits(desk, peer)
        desk.deserted = False
        if desk.total < desk.connections_max:
            desk.total += 1
        elif desk.idle:
            self.retire(desk.idle[0])  # a fresh one is wanted, and an idle one can make room
            desk.total += 1
            self.desks[peer.key] = desk
        elif len(desk.waiters) >= desk.waiters_max:
            raise ExchangeError("pool_full", f"{len(desk.waiters)} exchanges wait for {peer.name} already")
        else:
            given = await self._wait(desk)
            if given is not None:
                return given.lend()
        return await self._open(desk)

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
    def _wait(self, desk: _Desk) -> Generator[_Parked, Any, Upstream | None]:
        kernel = self.proxy.kernel
        assert kernel.running is not None
        waiter = _Waiter(kernel.running)
        desk.waiters.append(waiter)
        kernel.arm(waiter, kernel.now + desk.wait_s)
        try:
            yield PARKED
        except BaseException:
            if not waiter.called:
                desk.waiters.remove(waiter)
            elif waiter.given is None:
                self._free_place(desk)
            else:
                self._put(waiter.given)
            raise
        finally:
            kernel.disarm(waiter)
        return waiter.given

    async def _open(self, desk: _Desk) -> Stream:
        """Open a connection in the place held for it."""
        connection = Upstream(self, desk)
        try:
            await establish(connection, desk.peer, self.proxy.connect_limit_s)
        except BaseException:
            connection.close(abort=True)
            self._free_place(desk)
            raise
        stream = connection.lend()
        connection.receive()
        return stream

    # -- taking back

    def release(self, stream: Stream, whole: bool) -> None:
        """An exchange is done with a stream; `whole` says that nothing of it was cut short."""
        connection = stream.connection
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
            desk.waiters.popleft().call(connection)
        else:
            desk.idle.append(connection)
            self.idle[connection] = None
            idle_s = connection.timeouts.upstream_keep_alive_idle_s
            connection.limit_read(min(idle_s, connection.left_s) if connection.wears else idle_s)
            if len(self.idle) > connection.limits.idle_connections_max:
                self.retire(next(iter(self.idle)))

    def retire(self, connection: Upstream) -> None:
        """End an idle connection. One that was given to a waiter a moment ago is noticed by `_put` or the exchange."""
        if connection in self.idle:
            del self.idle[connection]
            connection.desk.idle.remove(connection)
            connection.close()
            self._free_place(connection.desk)

    def desert(self, peer: Peer) -> None:
        """Nobody will want this peer again: end its connections, those in use when their exchange is over."""
        for desk in self._desks_of(peer):
            desk.deserted = True
            for connection in list(desk.idle):
                self.retire(connection)

    def set_limits(self, peer: Peer) -> None:
        """The limits of a peer are others than they were: more connections are for those that wait for one, and
        surplus ones end, those in use when their exchange is over. How often and how long a connection is used is what
        was said when it was opened."""
        for desk in self._desks_of(peer):
            self._set_limits(desk, peer)

    def _desks_of(self, peer: Peer) -> list[_Desk]:
        """Its desk, if it has one; or one for each client that it has to be told of."""
        if peer.transport.proxy_protocol and not peer.prelude:
            reached = peer.key[:3]
            return [desk for key, desk in self.desks.items() if key[:3] == reached]
        desk = self.desks.get(peer.key)
        return [desk] if desk is not None else []

    def _set_limits(self, desk: _Desk, peer: Peer) -> None:
        desk.set_limits(peer, self.proxy.config)
        while desk.waiters and desk.total < desk.connections_max:
            desk.total += 1
            desk.waiters.popleft().call(None)
        while desk.idle and desk.total > desk.connections_max:
            self.retire(desk.idle[0])
        surplus = desk.total - desk.connections_max
        if surplus > 0:
            busy = (each for each in self.proxy.connections.values() if each.stream is not None)
            ours = [each for each in busy if isinstance(each, Upstream) and each.desk is desk]
            for connection in ours[:surplus]:
                connection.spend()

    def retire_all(self) -> None:
        """End all idle connections."""
        for connection in list(self.idle):
            self.retire(connection)

    def _free_place(self, desk: _Desk) -> None:
        """A connection is gone: who waits may open another."""
        if desk.waiters and desk.total <= desk.connections_max:
            desk.waiters.popleft().call(None)
            return
        desk.total -= 1
        if desk.total == 0:
            del self.desks[desk.peer.key]
