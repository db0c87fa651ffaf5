"""The proxy: what a user defines, and the machine that a backend drives.

A `Proxy` is a definition (balancer, filters, configuration) and a machine in its initial state at once. Backends and
tests make a machine of their own with `fresh`, so one definition can run in many workers and many tests, and none
leaves a mark on another, except through what filters keep in themselves.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from coulee.core.config import Config
from coulee.core.downstream import Downstream, TurnedAway, Unwelcome
from coulee.core.entrance import Count, Entrance, Guest
from coulee.core.errors import ExchangeError
from coulee.core.filters import PHASES, Chains, Filter
from coulee.core.http1 import Http1Codec
from coulee.core.http1_h11 import H11Codec
from coulee.core.http2_downstream import Http2Downstream
from coulee.core.http2_upstream import Http2Upstream
from coulee.core.kernel import Alarm, Task
from coulee.core.listener import ListenAt, as_listener
from coulee.core.machine import KernelMachine
from coulee.core.networks import Networks
from coulee.core.pool import Pool
from coulee.core.reception import Reception
from coulee.core.report import Access, Counters, Event
from coulee.core.seam import Accepted, Address, Close, Closed, Listen, Listening, Report, show_address
from coulee.core.upstream import Upstream

if TYPE_CHECKING:
    from coulee.core.codec import Codec, Role
    from coulee.core.connection import Connection
    from coulee.core.exchange import Exchange
    from coulee.core.peer import Balancer, Peer

Function = TypeVar("Function", bound=Callable[..., Any])


class _GraceEnd(Alarm):
    """The end of a drain's patience."""

    __slots__ = ("proxy",)

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self.proxy = proxy

    def ring(self, now: float) -> None:
        self.proxy.end_now()


class Proxy(KernelMachine):
    """A reverse proxy: `Proxy(Cluster("http://127.0.0.1:9000"), filters=[...])`.

    Run it with `coulee.backends.asyncio.run(proxy, listen="127.0.0.1:8000")`; test it with `coulee.testing.Exchange`.
    Raises `ValueError` where the configuration makes no sense.
    """

    def __init__(
        self,
        balancer: Balancer,
        filters: Iterable[Filter] = (),
        config: Config | None = None,
        *,
        rng: Random | None = None,
        wall_clock_offset_s: float = 0.0,
        listen: Sequence[ListenAt] = (),
    ) -> None:
        super().__init__(rng or Random(0), wall_clock_offset_s, config)
        self.jobs_max = self.config.limits.jobs_max
        self.filters = list(filters)
        self.chains = Chains(self.filters)
        self.balancer = balancer.fresh()
        self.pool = Pool(self)
        retry, timeouts = self.config.retry, self.config.timeouts
        self.hedges = bool(retry.hedge_after_s and retry.retries_max)
        self.retry_statuses = frozenset(retry.statuses) if retry.retries_max else frozenset[int]()
        self.total_limit_s = retry.total_timeout_s
        self.answer_limit_s = min(timeouts.answer_timeout_s, retry.try_timeout_s or inf)
        self.call_limit_s = min(timeouts.grpc_idle_timeout_s, retry.try_timeout_s or inf)  # that of a call of gRPC
        self.connect_limit_s = min(timeouts.connect_timeout_s, retry.try_timeout_s or inf)
        self.counters = Counters()
        self.listen_at = [as_listener(where) for where in listen]
        self.downstreams: dict[Downstream | Http2Downstream, None] = {}
        self._trusted = Networks(self.config.forwarding.trusted_peers, "trusted_peers")
        self.reception = Reception(self)
        self.admission = self.reception.admission
        self._grace_end = _GraceEnd(self)
        self.ended = False  # the grace period of a drain is over

    # -- for the definition

    def on(self, phase: str) -> Callable[[Function], Function]:
        """Add a function as the filter of one phase: `@proxy.on("request_filter")`. Raises `ValueError`."""
        if phase not in PHASES:
            raise ValueError(f"there is no phase {phase!r}; there are {', '.join(PHASES)}")

        def add(function: Function) -> Function:
            hook = Filter()
            setattr(hook, phase, function)
            self.filters.append(hook)
            self.chains = Chains(self.filters)
            return function

        return add

    def fresh(self, *, rng: Random, wall_clock_offset_s: float = 0.0, listen: Sequence[ListenAt] = ()) -> Proxy:
        """A machine of the same definition in its initial state; see `seam.Machine`."""
        return Proxy(
            self.balancer,
            self.filters,
            self.config,
            rng=rng,
            wall_clock_offset_s=wall_clock_offset_s,
            listen=[*self.listen_at, *listen],
        )

    # -- listeners and clients

    def start(self) -> None:
        self.balancer.start(self)
        for where in self.listen_at:
            self.listen(where)

    def listen(self, where: ListenAt) -> int:
        """Open one more listener; the number is for `unlisten`. Takes effect in this turn, or in the next one."""
        settings = as_listener(where)
        listener = self.number()
        self.listeners[listener] = settings.address
        self.reception.open(listener, settings)
        self.operations.append(Listen(listener, settings.address, settings.options))
        return listener

    def unlisten(self, listener: int) -> None:
        """Close a listener. Connections that it has accepted live on."""
        self.operations.append(Close(listener))

    def listening(self, completion: Listening) -> None:
        self.report(Event("listening", f"listening on {show_address(completion.local)}", self.wall_clock,
                          {"address": completion.local}))  # fmt: skip
        self.ask_to_accept(completion.listener)

    def listener_closed(self, address: Address, completion: Closed) -> None:
        self.reception.close(completion.conn)
        if completion.error is not None:
            fields: dict[str, object] = {"address": address, "kind": completion.error}
            self.report(Event("listen_failed", completion.detail, self.wall_clock, fields))

    def accepted(self, completion: Accepted, listener: int) -> None:
        self.reception.accepted(completion, listener)

    def welcome(self, guest: Guest, count: Count) -> None:
        """See `reception.Host`."""
        downstream: Downstream | Http2Downstream
        if guest.security is not None and guest.security.alpn == "h2":
            downstream = Http2Downstream(self, guest, count, count.obstacle)
        elif count.obstacle is None:
            downstream = Downstream(self, guest, count)
        else:
            downstream = Unwelcome(self, guest, count, count.obstacle)
        self.downstreams[downstream] = None
        downstream.start(guest.early)

    def speak_http2(self, before: Downstream, data: bytes) -> None:
        """A client has begun with HTTP/2: another kind of connection takes it over, with all that it has sent."""
        self.kernel.disarm(before)
        del self.downstreams[before]
        guest = before.guest or Guest(before.number, before.peer, before.local)
        guest.held, guest.blocked = before.held, before.blocked
        downstream = Http2Downstream(self, guest, before.count, before.count.obstacle)
        self.downstreams[downstream] = None
        downstream.start(data)

    def turn_away(self, number: int) -> None:
        """See `reception.Host`."""
        TurnedAway(self, number).close(abort=True)

    def connection_closed(self, connection: Connection) -> None:
        if isinstance(connection, Downstream | Http2Downstream):
            del self.downstreams[connection]
            self.reception.gone(connection.count)
        elif isinstance(connection, Entrance):
            self.reception.gone(connection.count)
        if self.draining and not self.connections:
            self.kernel.disarm(self._grace_end)

    # -- ending

    def drain(self, grace_s: float) -> None:
        self.balancer.stop()
        if not self.listeners and not self.connections:
            return
        self.report(Event("draining", f"draining for at most {grace_s:g} s", self.wall_clock, {"grace_s": grace_s}))
        for listener in list(self.listeners):
            self.operations.append(Close(listener))
            self.reception.close(listener)
        self.pool.retire_all()
        for downstream in list(self.downstreams):
            for exchange in downstream.exchanges:
                if exchange.websocket is not None:
                    exchange.websocket.drain()
            downstream.drain()
        if self.connections:
            self.kernel.arm(self._grace_end, self.kernel.now + grace_s)

    def end_now(self) -> None:
        """The grace period is over: what still runs is answered 503, or cut where its answer has begun."""
        self.ended = True
        for downstream in list(self.downstreams):
            downstream.end_now(ExchangeError("shutting_down", "the grace period of the shutdown ended"))
        for connection in list(self.connections.values()):
            if isinstance(connection, Upstream | Http2Upstream | Entrance):
                connection.close(abort=True)

    # -- for exchanges

    def new_codec(self, role: Role, prior_knowledge: bool = False) -> Codec:
        """The codec of a new connection; `prior_knowledge` says that a client may begin with HTTP/2."""
        forwards = self.config.forward is not None
        if self.config.http1_codec == "own":
            return Http1Codec(role, self.config.limits, forwards, prior_knowledge)
        return H11Codec(role, self.config.limits, forwards, prior_knowledge)

    def trusts(self, peer: Address) -> bool:
        """Whether what a client at this address says about who is behind it counts."""
        return peer in self._trusted

    def tell_retry(self, exchange: Exchange, error: ExchangeError) -> None:
        """Another attempt follows a failed one."""
        assert exchange.attempt is not None
        peer = exchange.attempt.peer
        text = f"{exchange.request.method} {exchange.request.target}: {peer} failed ({error.reason}), trying again"
        fields: dict[str, object] = {"peer": peer, "reason": error.reason, "detail": error.detail}
        self.report(Event("retry", text, self.wall_clock, fields))

    def tell_hedge(self, exchange: Exchange, peer: Peer) -> None:
        """A second attempt begins beside one that has not answered yet."""
        assert exchange.attempt is not None
        slow = exchange.attempt.peer
        text = f"{exchange.request.method} {exchange.request.target}: {slow} is slow, trying {peer.name} too"
        fields: dict[str, object] = {"peer": slow, "beside": peer.name}
        self.report(Event("hedge", text, self.wall_clock, fields))

    def tell_balancer_failure(self, exchange: Exchange, method: str, error: Exception) -> None:
        """A balancer cannot bear what it is told."""
        text = f"{method}() of the balancer: {type(error).__name__}: {error}"
        self.tell_failure(exchange, ExchangeError("internal_error", text), error)

    def tell_failure(self, exchange: Exchange, error: ExchangeError, cause: BaseException) -> None:
        """A filter, or we ourselves, raised an exception: one report with its traceback."""
        lines = "".join(traceback.format_exception(cause))
        self.report(Event(error.reason, str(error), self.wall_clock, {"traceback": lines}))

    def finished_exchange(self, record: Access) -> None:
        """The last word about an exchange."""
        counters = self.counters
        counters.bytes_in += record.bytes_in
        counters.bytes_out += record.bytes_out
        if record.reason:
            counters.reasons[record.reason] = counters.reasons.get(record.reason, 0) + 1
        self.operations.append(Report(record))

    def stray_error(self, task: Task) -> None:
        """A task of our own died of an exception that nobody expected. The proxy goes on; its connection does not."""
        assert task.error is not None
        lines = "".join(traceback.format_exception(task.error))
        self.report(Event("internal_error", str(task.error), self.wall_clock, {"traceback": lines}))
