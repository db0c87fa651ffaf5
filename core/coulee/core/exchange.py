"""One request and its answer through the proxy. Read it from top to bottom: it is the phase diagram.

Rules:

- One coroutine per exchange. A request whose body came with its head needs no child task; another one has a child that
  pumps the body up while the exchange pumps the answer down.
- What an attempt sends, and whether another may follow it, is in `attempt`; here is what its answer goes through.
- Nothing that an origin or a filter does leaves the client with an empty reply: before the answer's head it gets an
  error answer, after it a visible cut.
- Whatever happens, the upstream stream goes back to the pool, `logging` runs, and one access record is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final

from coulee.core.answers import METHODS, error_answer
from coulee.core.attempt import (
    Overtime,
    after_failure,
    begin,
    end,
    filtered_request,
    instead_of,
    plain_request,
    pump_request,
    send_trailers,
    tell_balancer,
)
from coulee.core.errors import ExchangeError
from coulee.core.event_stream import EventReader, idle_limit_s
from coulee.core.filters import Chain, conclude, decide, transform
from coulee.core.grpc import Call, call_of, status_fields
from coulee.core.headers import UNDERSCORE
from coulee.core.hedging import race
from coulee.core.kernel import AnyCoroutine, Cancelled, Task, nursery, shielded
from coulee.core.parts import Data, Interim, Request, Response, Trailers, respond
from coulee.core.path import announced
from coulee.core.peer import Peer
from coulee.core.report import Access, Attempt, Event
from coulee.core.retrying import IDEMPOTENT
from coulee.core.seam import Address, Security
from coulee.core.translate import (
    add_date,
    drop_on_arrival,
    hops_left,
    interim_for_downstream,
    keep_allowed_trailers,
    response_for_downstream,
)
from coulee.core.upgrade import is_switched, note_upgrade, relay_tunnel, relay_upgraded, sees_messages, target_of
from coulee.core.websocket_relay import WebSocketRelay, agree

if TYPE_CHECKING:
    from random import Random

    from coulee.core.proxy import Proxy
    from coulee.core.proxy_protocol import Header
    from coulee.core.stream import Stream

NO_REQUEST: Final = Request("-", "-", version=(0, 0))
"""Stands in the place of a request that could not be understood."""

_HTTP_1: Final = (1, 1)
_BODILESS: Final = frozenset({204, 304})


class Exchange:
    """What filters see of a request on its way.

    `request` is as the client sent it, `upstream_request` as it goes to the origin, `response` the answer. `peer` is
    where the present attempt goes, `tried` where earlier ones went, `attempts` how many there were with this one.
    `tags` is for filters; it ends up in the access record. `client` is the address at the other end of the connection.
    """

    __slots__ = (
        "answered",
        "attempt",
        "attempts",
        "began",
        "body_ended",
        "bytes_in",
        "bytes_out",
        "call",
        "client",
        "connected",
        "continued",
        "downstream",
        "error",
        "event_streams",
        "failure",
        "first_byte",
        "head_sent",
        "history",
        "latency_s",
        "limit",
        "peer",
        "proxy",
        "recorded",
        "replay",
        "replay_bytes",
        "request",
        "response",
        "reused",
        "spent",
        "started",
        "status",
        "tags",
        "task",
        "trailers",
        "tried",
        "trying",
        "upstream",
        "upstream_ended",
        "upstream_request",
        "websocket",
    )

    # of the present attempt; set by `attempt.begin`
    began: float
    connected: bool
    status: int  # of the origin's answer
    latency_s: float  # to its head
    upstream_ended: bool  # it was written and read to its end

    def __init__(self, proxy: Proxy, downstream: Stream, request: Request) -> None:
        self.proxy = proxy
        self.downstream = downstream
        self.client: Address = downstream.connection.peer
        self.request = request
        self.upstream_request: Request | None = None
        self.response: Response | None = None
        self.tags: dict[str, object] = {}
        self.task: Task | None = None
        self.call: Call | None = None  # of gRPC
        self.websocket: WebSocketRelay | None = None  # one whose messages are seen
        self.event_streams: tuple[EventReader, ...] = ()  # of its answer, for those who see the events
        # where it goes
        self.peer: Peer | None = None
        self.upstream: Stream | None = None
        self.attempts = 0
        self.history: list[Attempt] = []
        self.tried: list[str] = []
        self.limit: Overtime | None = None  # for all attempts together
        self.attempt: Attempt | None = None  # the present one
        self.trying = False  # it has begun, and not ended
        self.reused = False
        # the request's body
        data = request.data
        size = len(data)
        self.replay: list[bytes] = [data] if data else []
        self.replay_bytes = size
        self.spent = False  # more of the body was taken from the client than the replay buffer holds
        self.body_ended = request.ended
        self.trailers: Trailers | None = None
        self.continued = False  # the client was told to send its body
        # how it ends
        self.head_sent = False
        self.answered = False  # to the end
        self.error: ExchangeError | None = None
        self.failure: ExchangeError | None = None  # why it was cancelled
        self.recorded = False
        self.started = proxy.kernel.now
        self.first_byte = -1.0
        self.bytes_in = size
        self.bytes_out = 0

    # -- for filters

    @property
    def now(self) -> float:
        """The core's clock, in seconds; only differences mean anything."""
        return self.proxy.kernel.now

    @property
    def security(self) -> Security | None:
        """The client's TLS: its version and cipher, and the client's certificate where it has shown one."""
        return self.downstream.connection.security

    @property
    def server_name(self) -> str:
        """The name that the client has asked for in TLS; "" where there is none."""
        return self.downstream.connection.server_name

    @property
    def proxy_header(self) -> Header | None:
        """What a balancer has said of the client by the PROXY protocol: its addresses, and what else it knows."""
        return self.downstream.connection.header

    @property
    def rng(self) -> Random:
        """The only randomness that keeps an exchange reproducible."""
        return self.proxy.rng

    @property
    def answer_limit_s(self) -> float:
        """How long the head of an answer may take, once the request has been sent."""
        proxy = self.proxy
        return proxy.answer_limit_s if self.call is None else proxy.call_limit_s

    async def body(self, limit: int = 1024 * 1024) -> bytes:
        """The whole request body, which still goes to the origin afterwards. Raises `ExchangeError` (413) past `limit`.

        For phases before the request is sent: `early_request_filter`, `request_filter`, `upstream_peer`.
        """
        assert self.upstream is None, "body() is for phases before the request is sent; use request_body_filter"
        declared = self.request.length
        if self.replay_bytes > limit or (declared is not None and declared > limit):
            raise ExchangeError("body_too_large", f"the body is larger than {limit} bytes")
        await self._tell_to_continue()
        while not self.body_ended:
            data = await self.read_body()
            self.replay.append(data)
            self.replay_bytes += len(data)
            if self.replay_bytes > limit:
                raise ExchangeError("body_too_large", f"the body is larger than {limit} bytes")
        whole = b"".join(self.replay)
        self.replay = [whole]
        return whole

    # -- its life, from outside

    def start(self, body: AnyCoroutine, on_done: Callable[[Task], None]) -> None:
        """Begin, up to the first wait."""
        proxy = self.proxy
        proxy.counters.requests += 1
        kernel = proxy.kernel
        self.task = task = Task(kernel, body, on_done)
        kernel.step(task, None, None)

    def cancel(self, error: ExchangeError) -> None:
        """End it now; `error` says why. What it waits for is cancelled with it."""
        if self.failure is None and self.task is not None:
            self.failure = error
            self.task.cancel()

    # -- its life, from inside

    async def run(self) -> None:
        """The whole exchange."""
        proxy = self.proxy
        request = self.request
        try:
            try:
                marks = request.headers._marks or request.headers.marks
                unusual = b"connection" in marks or UNDERSCORE in marks
                if unusual and drop_on_arrival(request.headers, proxy.config):
                    note_upgrade(self)
                if request.version > _HTTP_1:
                    self.call = call_of(self)
                answer: Response | None = None
                if proxy.chains.answering or request.method == "OPTIONS":
                    answer = await self._request_phases()
                if answer is not None:
                    await self._answer_here(answer)
                else:
                    if proxy.total_limit_s:
                        self.limit = Overtime(self, proxy.total_limit_s)
                    if request.method == "CONNECT":
                        target_of(self)  # before anybody chooses another way to it
                    peer: Peer | None
                    peer = await self.choose_peer() if proxy.chains.upstream_peer else self._balance()
                    while peer is not None:  # attempt after attempt, until one is answered
                        try:
                            peer = await self._attempt(peer)
                        except ExchangeError as error:
                            peer = await after_failure(self, error)
                            if peer is None:
                                raise proxy.balancer.verdict(error) from error
            except ExchangeError as error:
                await self._fail(error)
            except Exception as error:
                await self._fail(ExchangeError("internal_error", f"{type(error).__name__}: {error}"), error)
        except Cancelled:
            self.error = self.failure
            if self.failure is not None and self.failure.status:
                with suppress(TimeoutError, Cancelled), shielded(self.proxy.config.timeouts.logging_grace_s):
                    await self._fail(self.failure)
        finally:
            self._lift_limits()
            end(self, self.error)
        if proxy.chains.logging:
            await self._log()
        self._record()

    async def refuse(self, error: ExchangeError) -> None:
        """The exchange of a request that is none, or whose client was not let in: it only fails."""
        try:
            await self._fail(error)
        except Cancelled:
            self.error = self.failure
        await self._log()
        self._record()

    async def _request_phases(self) -> Response | None:
        chains = self.proxy.chains
        answer: Response | None = None
        if chains.early_request_filter:
            answer = await decide(chains.early_request_filter, Response, self)
        if answer is None and chains.request_filter:
            answer = await decide(chains.request_filter, Response, self)
        if answer is None and self.request.method == "OPTIONS" and hops_left(self.request) == 0:
            answer = respond(204, headers={"Allow": METHODS})  # the last hop answers (RFC 9110 section 7.6.2)
        return answer

    async def choose_peer(self) -> Peer:
        """Where the next attempt goes. Raises `ExchangeError` where there is nothing."""
        peer: Peer | None = None
        if self.proxy.chains.upstream_peer:
            peer = await decide(self.proxy.chains.upstream_peer, Peer, self)
        return peer or self._balance()

    def _balance(self) -> Peer:
        if self.request.method == "CONNECT":
            return target_of(self)
        peer = self.proxy.balancer.choose(self)
        if peer is None:
            raise ExchangeError("no_healthy_endpoint", "the cluster offered no endpoint")
        return peer

    async def _attempt(self, peer: Peer) -> Peer | None:
        """Send the request to a peer and pass its answer down. Where to try again instead; None: it is answered."""
        proxy = self.proxy
        upstream = begin(self, peer)
        if self.request.method == "CONNECT":
            await relay_tunnel(self, peer)
            return None
        if proxy.hedges and self.body_ended and self.request.method in IDEMPOTENT and not self.request.upgrade:
            response = await race(self, upstream)
            assert self.upstream is not None
            return await self._relay_answer(self.upstream, response)
        if upstream is None:
            proxy.counters.connects += 1
            upstream = await proxy.pool.acquire(announced(peer, self.downstream.connection, self.request.upgrade))
        self.upstream = upstream
        self.connected = True
        if proxy.chains.sending:
            request = await filtered_request(self, peer)
        else:
            request = plain_request(self, peer)
        if self.body_ended:
            upstream.patience_s = self.answer_limit_s
            upstream.write(request)
            if self.trailers is not None:
                await send_trailers(self, upstream, self.trailers)
            other = await self._relay_answer(upstream)
        else:
            other = None
            upstream.patience_s = inf  # its time to answer begins when the request is complete
            with nursery() as tasks:
                upstream.write(request)
                tasks.start(pump_request, self, upstream)
                other = await self._relay_answer(upstream)
        return other

    # -- the request's body

    async def read_body(self) -> bytes:
        """The next piece of the body from the client. Sets `body_ended`, and `trailers`."""
        part = await self.downstream.receive()
        if isinstance(part, Trailers):
            self.trailers = part
            self.body_ended = True
            return b""
        assert isinstance(part, Data)
        self.body_ended = part.ended
        self.bytes_in += len(part.data)
        return part.data

    async def _tell_to_continue(self) -> None:
        """Answer `Expect: 100-continue` ourselves, because we want the body before an origin could (RFC 9110
        10.1.1)."""
        if not self.continued and not self.body_ended and self.downstream.expects_continue:
            self.continued = True
            await self.downstream.send(Interim(100))

    # -- the answer

    async def _relay_answer(self, upstream: Stream, head: Response | None = None) -> Peer | None:
        """Pass the answer down, to its end; `head` is its head, where that is here already. Where to try again instead;
        None where it was passed on."""
        proxy = self.proxy
        chains = proxy.chains
        response = head or await upstream.receive()
        while not isinstance(response, Response):
            assert isinstance(response, Interim)
            await self._relay_interim(response)
            response = await upstream.receive()
        timeouts = proxy.config.timeouts
        upstream.patience_s = idle_limit_s(response, timeouts) if self.call is None else timeouts.grpc_idle_timeout_s
        self.status = response.status
        self.latency_s = proxy.kernel.now - self.began
        if proxy.balancer.hears_answers:
            tell_balancer(self, response)
        if proxy.retry_statuses and response.status in proxy.retry_statuses:
            other = await instead_of(self, upstream, response)
            if other is not None:
                return other
        if self.limit is not None:
            proxy.kernel.disarm(self.limit)
        switches = is_switched(self, response) if self.request.upgrade else response.status == 101
        self.upstream_ended = response.ended
        if chains.upstream_response_filter:
            other = await decide(chains.upstream_response_filter, Response, self, response)
            if other is not None:
                await self._answer_here(other)
                return None
        response_for_downstream(response, proxy.kernel.now + proxy.wall_clock_offset_s, proxy.config)
        if switches and sees_messages(self):
            self.websocket = agree(self, upstream, response)
        if chains.response_filter:
            other = await decide(chains.response_filter, Response, self, response)
            if other is not None:
                await self._answer_here(other, filtered=True)
                return None
        if switches:
            await relay_upgraded(self, upstream, response)
            return None
        body_chain = chains.relayed_body
        if body_chain:
            await self._filter_first_piece(response, body_chain)
        if self.downstream.blocked:
            await self.downstream.wait_for_room()
        self._send_head(response)
        if not response.ended:
            await self._relay_body(upstream, body_chain)
        return None

    async def _relay_interim(self, interim: Interim) -> None:
        """Pass on a 1xx (RFC 9110 section 15.2), but for a second 100, and not to who cannot know it."""
        if self.request.version < (1, 1) or (interim.status == 100 and self.continued):
            return
        if interim.status == 100:
            self.continued = True
        interim_for_downstream(interim)
        await self.downstream.send(interim)

    def _send_head(self, response: Response) -> None:
        """Send the answer's head with what is there of its body."""
        downstream = self.downstream
        self.response = response
        if self.call is not None:
            self.call.note(response.headers)
        if self.request.method == "HEAD" or response.status in _BODILESS:
            response.data = b""
        if not self.body_ended and downstream.expects_continue:
            downstream.close_after()  # the client may or may not send its body now
        downstream.write(response)
        self.head_sent = True
        if self.replay:
            self.replay = []
        self.bytes_out += len(response.data)
        self.first_byte = self.proxy.kernel.now
        self.answered = response.ended
        if not response.ended:
            response.data = b""  # it is on its way, and would be kept as long as the rest takes

    async def _filter_first_piece(self, response: Response, body_chain: Chain) -> None:
        """What came with the head goes through the body filters; then only a whole body has a known length."""
        had = response.data
        if had or response.ended:
            response.data = await transform(body_chain, self, had, response.ended)
        described = not had and (self.request.method == "HEAD" or response.status == 304)
        response.length = len(response.data) if response.ended and not described else None

    async def _relay_body(self, upstream: Stream, body_chain: Chain) -> None:
        downstream = self.downstream
        while True:
            if downstream.blocked:  # first, so that what the client does not take stays where it is
                await downstream.wait_for_room()
            part = await upstream.receive()
            if isinstance(part, Data):
                self.upstream_ended = part.ended
                if body_chain:
                    part = Data(await transform(body_chain, self, part.data, part.ended), part.ended)
                self.bytes_out += len(part.data)
                downstream.write(part)
                if part.ended:
                    break
            else:
                assert isinstance(part, Trailers)
                self.upstream_ended = True
                keep_allowed_trailers(part.headers, self.proxy.config)
                await self._relay_trailers(part)
                break
        self.answered = True

    async def _relay_trailers(self, trailers: Trailers, *, whole: bool = True) -> None:
        """End the answer with these fields, or without, where a filter has moved them into the body; which may not be
        `whole`."""
        chains = self.proxy.chains
        if self.call is not None:
            self.call.note(trailers.headers)
        data = b""
        if chains.relayed_body or chains.response_trailer_filter:
            data = await conclude(chains, self, trailers.headers, whole=whole)
        downstream = self.downstream
        await downstream.wait_for_room()  # once, so that nothing comes between the two
        self.bytes_out += len(data)
        if not trailers.headers:
            downstream.write(Data(data, True))
            return
        if data:
            downstream.write(Data(data))
        downstream.write(trailers)

    async def _answer_here(self, response: Response, *, filtered: bool = False) -> None:
        """Send an answer that a filter made."""
        chains = self.proxy.chains
        if chains.response_filter and not filtered:
            response = await decide(chains.response_filter, Response, self, response) or response
        if not response.ended:
            raise ExchangeError("filter_error", "a filter's answer must be whole; use respond()")
        add_date(response.headers, self.proxy.wall_clock)
        response.length = len(response.data)
        self._announce_close()
        if chains.response_body_filter:
            await self._filter_first_piece(response, chains.response_body_filter)
        await self.downstream.wait_for_room()
        self._send_head(response)

    def _announce_close(self) -> None:
        """Nobody will take the rest of the request's body: if it is too large to be read and forgotten, the client is
        told that the connection ends (RFC 9112 section 9.3)."""
        length = self.request.length
        rest = 0 if self.body_ended or length is None else length - self.bytes_in
        if rest > self.proxy.config.limits.unread_drain_bytes_max:
            self.downstream.close_after()

    # -- failing

    async def _fail(self, error: ExchangeError, cause: BaseException | None = None) -> None:
        """The request has failed for good: answer it, if that is still possible."""
        self.error = error
        self._lift_limits()  # no attempt follows, and the answer may take its time
        if error.reason in ("filter_error", "internal_error"):
            self.proxy.tell_failure(self, error, cause or error.__cause__ or error)
        if error.status == 0 or (self.head_sent and (self.call is None or not self.call.can_be_told)):
            return
        answer: Response | None = None
        try:
            if self.proxy.chains.fail_to_proxy and not self.head_sent:
                answer = await decide(self.proxy.chains.fail_to_proxy, Response, self, error)
        except ExchangeError as second:
            self.proxy.tell_failure(self, second, second.__cause__ or second)
        try:
            if self.head_sent:  # then the status of a call is behind its answer, as far as that came
                await self._relay_trailers(Trailers(status_fields(error)), whole=False)
                self.answered = True
                return
            answer = answer or error_answer(error, self.request, self.proxy.config.server_name)
            add_date(answer.headers, self.proxy.wall_clock)
            if error.status == 400 or (error.status in (408, 413) and not self.body_ended):
                self.downstream.close_after()  # of what is broken, slow or large, no more is awaited
            self._announce_close()
            await self.downstream.wait_for_room()
            self._send_head(answer)
        except ExchangeError as second:
            if second.reason == "filter_error":
                self.proxy.tell_failure(self, second, second.__cause__ or second)
            self.error = second
        except Cancelled:
            self.error = self.failure

    def _lift_limits(self) -> None:
        """Nothing cuts it short any more."""
        if self.limit is not None:
            self.proxy.kernel.disarm(self.limit)
        if self.call is not None:
            self.proxy.kernel.disarm(self.call)

    async def _log(self) -> None:
        """The phase `logging`."""
        for call in self.proxy.chains.logging:
            try:
                with shielded(self.proxy.config.timeouts.logging_grace_s):
                    await decide((call,), (), self)
            except ExchangeError as error:
                self.proxy.tell_failure(self, error, error.__cause__ or error)
            except (TimeoutError, Cancelled):
                self.proxy.report(Event("filter_error", "a logging filter took too long", self.proxy.wall_clock))

    @property
    def cut_shows(self) -> bool:
        """Whether the client can tell that the answer is not whole: by its length, or because the last chunk is missing
        (RFC 9112 section 8). A body that only the end of the connection ends must be ended by a reset, and so must what
        an upgraded connection carries."""
        response = self.response
        framed = response is not None and (response.length is not None or self.request.version >= (1, 1))
        return self.head_sent and framed and not self.switched

    @property
    def switched(self) -> bool:
        """Whether the client's connection has been upgraded, or is a tunnel."""
        if not self.head_sent or self.response is None:
            return False
        status = self.response.status
        return status == 101 or (self.request.method == "CONNECT" and 200 <= status <= 299)

    def abandoned(self, error: BaseException) -> None:
        """Its task had to be left behind, or was broken: nothing of it may be left, and its record is due."""
        broken = ExchangeError("internal_error", f"{type(error).__name__}: {error}")
        end(self, broken)
        if not self.recorded:
            self.error = broken
            self._record()

    def _record(self) -> None:
        """The last word about it."""
        self.recorded = True
        request = self.request
        response = self.response
        error = self.error
        reason = detail = ""
        if error is not None:
            reason, detail = error.reason, error.detail
        started = self.started
        proxy = self.proxy
        proxy.finished_exchange(
            Access(
                self.client,
                request.method,
                request.target,
                request.version,
                request.authority,
                response.status if response is not None and self.head_sent else 0,
                reason,
                detail,
                started + proxy.wall_clock_offset_s,
                proxy.kernel.now - started,
                self.first_byte - started if self.first_byte >= 0 else -1.0,
                self.bytes_in,
                self.bytes_out,
                self.peer.name if self.peer is not None else "",
                self.reused,
                self.history,
                self.tags,
                self.security,
                self.server_name,
            )
        )

    def __repr__(self) -> str:
        return f"<Exchange {self.request.method} {self.request.target} attempt {self.attempts}>"
