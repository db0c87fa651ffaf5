"""One tunnelled connection, from its client's first byte to its end. Read it from top to bottom: it is the phase
diagram.

    ClientHello --> connect, attempt after attempt --> bytes up | bytes down --> logging, and one record

Rules:

- What is read of a ClientHello is sent on as it came. One that is not read in one way by everybody goes nowhere, for a
  peer might find another name in it than we did.
- Another attempt follows only while no peer stands: what a client sends is sent to one peer, once.
- Each direction ends by itself, at its half-close; a reset of one side, or a time limit, resets the other.
- Once a peer has ended in order, and its client has taken that, a reset is told as an end in order too: those who close
  with bytes unread reset, and so do those to whom TLS says goodbye when they have gone.
- To a balancer, a connection that stands is the answer: 200, so long after the attempt began. The attempt itself lasts
  as long as the connection. A reset is held against a peer only if it had said nothing: many protocols end so.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from coulee.core.client_hello import HelloError, alert_record, is_tls, read_client_hello
from coulee.core.errors import ExchangeError
from coulee.core.filters import Chain, FilterError, decide
from coulee.core.kernel import Alarm, Cancelled, Task, deadline, nursery, shielded
from coulee.core.parts import Data, Request, Response
from coulee.core.path import announced, establish
from coulee.core.peer import Balancer, Peer
from coulee.core.report import Attempt, Event
from coulee.core.retrying import may_follow
from coulee.core.seam import Address, Security
from coulee.core.tunnel_end import ClientEnd, End, PeerEnd
from coulee.core.tunnel_filters import transform

if TYPE_CHECKING:
    from random import Random

    from coulee.core.entrance import Count, Guest
    from coulee.core.tunnel import Tunnel

UNRECOGNIZED_NAME: Final = 112  # RFC 6066 section 3

_RESETS: Final = ("client_gone", "upstream_reset")


@dataclass(slots=True)
class TunnelAccess:
    """One tunnelled connection, from its being let in to its end. Exactly one is reported for each.

    Times are seconds: `started` since 1970, the others since then. `connected_s` is the moment at which a peer stood,
    -1 where none did. `bytes_in` came from the client, `bytes_out` from the peer. `reason` is "" where both directions
    ended in order, else a word from `errors.REASONS`.
    """

    client: Address
    server_name: str
    alpn: tuple[str, ...]
    peer: str
    reason: str
    detail: str
    started: float
    duration_s: float
    connected_s: float
    bytes_in: int
    bytes_out: int
    attempts: list[Attempt]
    tags: dict[str, object]
    security: Security | None = None
    """The client's TLS, where it ends here."""


class TunnelExchange:
    """What filters see of a connection on its way.

    `client` is the address at its other end. `is_tls` tells whether it speaks TLS, as far as that was looked at;
    `server_name` and `alpn` are what it asks for, and `security` is there where its TLS ends here. `peer` is where the
    present attempt goes, `tried` where earlier ones went, `attempts` how many there were with this one. `bytes_in` and
    `bytes_out` count what came from the client and from the peer. `tags` is for filters; it ends up in the access
    record. `request` stands in for one, because there are policies that look at it.
    """

    __slots__ = (
        "alert",
        "alpn",
        "answered",
        "attempts",
        "balancer",
        "began",
        "bytes_in",
        "bytes_out",
        "client",
        "connected",
        "downstream",
        "error",
        "failure",
        "history",
        "is_tls",
        "latency_s",
        "peer",
        "recorded",
        "request",
        "security",
        "server_name",
        "started",
        "status",
        "tags",
        "task",
        "tried",
        "trying",
        "tunnel",
        "upstream",
    )

    def __init__(self, tunnel: Tunnel, guest: Guest, count: Count) -> None:
        security = guest.security
        self.tunnel = tunnel
        self.client: Address = guest.peer
        self.security = security
        self.is_tls = security is not None
        self.server_name = guest.server_name
        self.alpn: tuple[str, ...] = (security.alpn,) if security is not None and security.alpn else ()
        self.request = Request("-", "-", version=(0, 0))
        self.tags: dict[str, object] = {}
        self.task: Task | None = None
        # where it goes
        self.balancer: Balancer = tunnel.balancer
        self.peer: Peer | None = None
        self.attempts = 0
        self.tried: list[str] = []
        self.history: list[Attempt] = []
        # the present attempt
        self.trying = False  # it has begun, and not ended
        self.began = 0.0
        self.status = 0  # 200 once it stands
        self.latency_s = 0.0
        self.upstream: PeerEnd | None = None
        # how it ends
        self.started = tunnel.kernel.now
        self.connected = -1.0
        self.answered = False  # the peer has ended in order
        self.bytes_in = 0
        self.bytes_out = 0
        self.error: ExchangeError | None = None
        self.failure: ExchangeError | None = None  # why it was cancelled
        self.alert = 0  # of TLS, that tells the client why
        self.recorded = False
        self.downstream = ClientEnd(self, guest, count)

    # -- for filters

    @property
    def now(self) -> float:
        """The core's clock, in seconds; only differences mean anything."""
        return self.tunnel.kernel.now

    @property
    def rng(self) -> Random:
        """The only randomness that keeps it reproducible."""
        return self.tunnel.rng

    # -- its life, from outside

    def start(self, obstacle: ExchangeError | None) -> None:
        """Begin, later in this turn; or, where there is an obstacle, end so."""
        kernel = self.tunnel.kernel
        self.task = Task(kernel, self.run(obstacle), self.done)
        kernel.wake(self.task, None)

    def cancel(self, error: ExchangeError) -> None:
        """End it now; `error` says why."""
        if self.failure is None and self.task is not None:
            self.failure = error
            self.task.cancel()

    def has(self, end: End) -> bool:
        """Whether this is one of its two ends, and not one of an attempt that is over, or has not come so far."""
        return end is self.downstream or end is self.upstream

    # -- its life, from inside

    async def run(self, obstacle: ExchangeError | None) -> None:
        """All of it."""
        try:
            if obstacle is not None:
                raise obstacle
            if self.tunnel.sni and not self.is_tls:
                await self.read_hello()
            self.route()
            await self.relay(await self.connect())
        except ExchangeError as error:
            self.error = error
            if isinstance(error, FilterError):
                self.tell_failure(error, error.__cause__ or error)
        except Cancelled:
            self.error = self.failure
        except Exception as error:
            self.error = ExchangeError("internal_error", f"{type(error).__name__}: {error}")
            self.tell_failure(self.error, error)
        self.close()
        if self.tunnel.tunnel_chains.logging:
            await self.log()
        self.record()

    async def read_hello(self) -> None:
        """What a client asks for in TLS, where it speaks it."""
        downstream = self.downstream
        limit_s = downstream.timeouts.tls_handshake_timeout_s
        data = b""
        hello = None
        downstream.receive()
        try:
            with deadline(limit_s):
                while hello is None and is_tls(data):
                    part = await downstream.line.receive()
                    assert isinstance(part, Data)
                    if part.ended:
                        raise ExchangeError("client_gone", "the client left before it had said what it wants")
                    data += part.data
                    hello = read_client_hello(data) if is_tls(data) else None
        except TimeoutError as error:
            raise ExchangeError("tls_timeout", f"no ClientHello within {limit_s:g} s") from error
        except HelloError as error:
            self.alert = error.alert
            raise ExchangeError("tls_failed", str(error)) from error
        downstream.put_back(data)
        if hello is not None:
            self.is_tls = True
            self.server_name = hello.server_name
            self.alpn = hello.alpn

    def route(self) -> None:
        """Which balancer says where it goes."""
        self.request.authority = self.server_name
        if self.tunnel.routes is not None:
            balancer = self.tunnel.routes.find(self.server_name)
            if balancer is None:
                if self.is_tls and self.security is None:
                    self.alert = UNRECOGNIZED_NAME
                raise ExchangeError("misdirected", f"there is no route to {self.server_name or 'no name'}")
            self.balancer = balancer

    # -- connecting

    async def connect(self) -> PeerEnd:
        """A connection to a peer. Raises `ExchangeError` where none of those that were tried can be had."""
        self.downstream.receive()  # its leaving is heard while we connect
        peer: Peer | None = await self.choose()
        while True:
            assert peer is not None
            try:
                return await self.attempt(peer)
            except ExchangeError as error:
                self.end_attempt(error)
                peer = await self.another(error)
                if peer is None:
                    raise self.balancer.verdict(error) from error

    async def choose(self) -> Peer:
        """Where the next attempt goes. Raises `ExchangeError` where there is nothing."""
        peer: Peer | None = None
        if self.tunnel.tunnel_chains.connect:
            peer = await decide(self.tunnel.tunnel_chains.connect, Peer, self)
        peer = peer or self.balancer.choose(self)
        if peer is None:
            raise ExchangeError("no_healthy_endpoint", "the cluster offered no endpoint")
        return peer

    async def attempt(self, peer: Peer) -> PeerEnd:
        """Connect to a peer. Raises `ExchangeError`."""
        tunnel = self.tunnel
        tunnel.counters.attempts += 1
        tunnel.counters.connects += 1
        self.peer = peer
        self.attempts += 1
        self.history.append(Attempt(peer.name, ""))
        self.began = tunnel.kernel.now
        self.trying = True
        try:
            self.balancer.begin(peer)
        except Exception as error:
            self.tell_balancer_failure("begin", error)
        upstream = PeerEnd(self)
        try:
            await establish(upstream, announced(peer, self.downstream), tunnel.connect_limit_s)
        except BaseException:
            upstream.close(abort=True)
            raise
        upstream.opened()
        self.upstream = upstream
        self.connected = tunnel.kernel.now
        self.latency_s = self.connected - self.began
        self.status = 200
        if self.balancer.hears_answers:
            try:
                self.balancer.answered(self, peer, Response(200), self.latency_s)
            except Exception as error:
                self.tell_balancer_failure("answered", error)
        return upstream

    def end_attempt(self, error: ExchangeError | None) -> None:
        """The present attempt is over, if there is one."""
        if not self.trying:
            return
        self.trying = False
        assert self.peer is not None
        self.tried.append(self.peer.name)
        reason = ""
        if error is not None:
            self.history[-1].reason, self.history[-1].detail = error.reason, error.detail
            if not (self.bytes_out and error.side == "upstream"):
                reason = error.reason
        try:
            self.balancer.end(self.peer, reason, self.status, self.latency_s)
        except Exception as broken:
            self.tell_balancer_failure("end", broken)

    async def another(self, error: ExchangeError) -> Peer | None:
        """Where to try again after a failed attempt; None where it was the last."""
        tunnel = self.tunnel
        if not may_follow(tunnel.config.retry, self.attempts, error.reason, "", connected=False, wanted=None):
            return None
        try:
            peer = await self.choose()
        except FilterError:
            raise
        except ExchangeError:
            return None  # what has failed says more than that there is nothing else
        if peer.name in self.tried or not self.balancer.may_retry(self):
            return None
        tunnel.counters.retries += 1
        failed = self.history[-1].peer
        fields: dict[str, object] = {"peer": failed, "reason": error.reason, "detail": error.detail}
        text = f"{failed} failed ({error.reason}), trying {peer.name}"
        tunnel.report(Event("retry", text, tunnel.wall_clock, fields))
        return peer

    # -- bytes

    async def relay(self, upstream: PeerEnd) -> None:
        """Bytes both ways, until both directions have ended."""
        chains = self.tunnel.tunnel_chains
        kernel = self.tunnel.kernel
        idle = _Idle(self)
        kernel.arm(idle, kernel.now + idle.limit_s)
        upstream.receive()
        try:
            with nursery() as pumps:
                pumps.start(self.pump, self.downstream, upstream, chains.bytes_up, idle)
                pumps.start(self.pump, upstream, self.downstream, chains.bytes_down, idle)
                await pumps.join()
        finally:
            kernel.disarm(idle)

    async def pump(self, source: End, sink: End, chain: Chain, idle: _Idle) -> None:
        """Move bytes one way, to their end."""
        kernel = self.tunnel.kernel
        up = source is self.downstream
        ended = False
        while not ended:
            part = await source.line.receive()
            assert isinstance(part, Data)
            size = len(part.data)
            if size:
                idle.deadline = kernel.now + idle.limit_s
                if up:
                    self.bytes_in += size
                else:
                    self.bytes_out += size
                if chain:
                    part.data = await transform(chain, self, part.data)
                if sink.blocked:
                    await sink.line.wait_for_room()
                sink.line.write(part)
            ended = part.ended
        sink.send_eof()
        if not up:
            self.answered = True

    # -- ending

    def close(self) -> None:
        """End both connections, by a reset where one is cut short."""
        cut = self.error is not None
        if self.answered and not self.downstream.blocked and self.error is not None and self.error.reason in _RESETS:
            self.error = None
        if self.alert:
            self.downstream.push(alert_record(self.alert))
        self.downstream.close(abort=cut and not self.alert)
        if self.upstream is not None:
            self.upstream.close(abort=cut)
        self.end_attempt(self.error)

    async def log(self) -> None:
        """The phase `logging`."""
        tunnel = self.tunnel
        for call in tunnel.tunnel_chains.logging:
            try:
                with shielded(tunnel.config.timeouts.logging_grace_s):
                    await decide((call,), (), self)
            except ExchangeError as error:
                self.tell_failure(error, error.__cause__ or error)
            except (TimeoutError, Cancelled):
                tunnel.report(Event("filter_error", "a logging filter took too long", tunnel.wall_clock))

    def done(self, task: Task) -> None:
        """Its task has ended: as it should, or because it had to be left behind, or before it had begun."""
        error = task.error
        if error is not None and not isinstance(error, Cancelled):
            self.tunnel.stray_error(task)
            self.failure = ExchangeError("internal_error", f"{type(error).__name__}: {error}")
        if not self.recorded:
            self.error = self.failure
            self.close()
            self.record()

    def record(self) -> None:
        """The last word about it."""
        self.recorded = True
        tunnel = self.tunnel
        error = self.error
        tunnel.finished_tunnel(
            self,
            TunnelAccess(
                self.client,
                self.server_name,
                self.alpn,
                self.peer.name if self.peer is not None else "",
                error.reason if error is not None else "",
                error.detail if error is not None else "",
                self.started + tunnel.wall_clock_offset_s,
                tunnel.kernel.now - self.started,
                self.connected - self.started if self.connected >= 0 else -1.0,
                self.bytes_in,
                self.bytes_out,
                self.history,
                self.tags,
                self.security,
            ),
        )

    def tell_failure(self, error: ExchangeError, cause: BaseException) -> None:
        """A filter, or we ourselves, raised an exception: one report with its traceback."""
        lines = "".join(traceback.format_exception(cause))
        self.tunnel.report(Event(error.reason, str(error), self.tunnel.wall_clock, {"traceback": lines}))

    def tell_balancer_failure(self, method: str, error: Exception) -> None:
        """A balancer cannot bear what it is told."""
        text = f"{method}() of the balancer: {type(error).__name__}: {error}"
        self.tell_failure(ExchangeError("internal_error", text), error)


class _Idle(Alarm):
    """Rings when nothing has come from either side for too long. Whatever comes puts it off, by setting `deadline`: its
    alarm is put right when it rings."""

    __slots__ = ("exchange", "limit_s")

    def __init__(self, exchange: TunnelExchange) -> None:
        super().__init__()
        self.exchange = exchange
        self.limit_s = exchange.tunnel.config.timeouts.upgraded_idle_timeout_s

    def ring(self, now: float) -> None:
        self.exchange.cancel(ExchangeError("idle_timeout", f"no byte in either direction for {self.limit_s:g} s"))
