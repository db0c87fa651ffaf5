"""One attempt at one peer, and what follows where it failed.

Rules:

- The balancer hears of each attempt twice: when it begins, and when it has ended, whatever ended it.
- Its end gives the stream back to the pool, whole or not.
- Another may follow only while no byte of an answer was sent, and while all of the request's body so far is in the
  replay buffer. A truncated body is never sent as if it were whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coulee.core.errors import ExchangeError
from coulee.core.filters import FilterError, decide, transform
from coulee.core.kernel import Alarm, sleep
from coulee.core.parts import Data, Request, Response, Trailers
from coulee.core.path import announced
from coulee.core.report import Attempt
from coulee.core.retrying import backoff_s, may_follow
from coulee.core.translate import keep_allowed_trailers, request_for_upstream
from coulee.core.transport import DIRECT
from coulee.core.upgrade import is_websocket, sees_messages
from coulee.core.websocket_handshake import put_key
from coulee.core.websocket_relay import offer

if TYPE_CHECKING:
    from coulee.core.exchange import Exchange
    from coulee.core.peer import Peer
    from coulee.core.stream import Stream


OURS_BUT_ELSEWHERE: Final = frozenset({"pool_full", "upgrade_unsupported"})
"""Reasons that are no endpoint's fault, and that another endpoint may not have."""


def begin(exchange: Exchange, peer: Peer) -> Stream | None:
    """Note that an attempt begins. A stream to the peer on a connection that lies idle, if there is one."""
    proxy = exchange.proxy
    counters = proxy.counters
    before = exchange.attempt
    stream = None
    if exchange.request.method != "CONNECT" and (before is None or not before.reused):
        # What died under us once was idle for too long, and now a fresh one is wanted; for a tunnel always.
        plain = peer.transport is DIRECT
        stream = proxy.pool.take(
            peer if plain else announced(peer, exchange.downstream.connection, exchange.request.upgrade)
        )
    exchange.reused = reused = stream is not None
    if reused:
        counters.reuses += 1
    exchange.peer = peer
    exchange.connected = exchange.upstream_ended = False
    exchange.attempts += 1
    counters.attempts += 1
    exchange.attempt = record = Attempt(peer.name, "", "", reused)
    exchange.history.append(record)
    exchange.began = proxy.kernel.now
    exchange.status = 0
    exchange.latency_s = 0.0
    exchange.trying = True
    try:
        proxy.balancer.begin(peer)
    except Exception as error:
        proxy.tell_balancer_failure(exchange, "begin", error)
    return stream


def tell_balancer(exchange: Exchange, response: Response) -> None:
    """The head of the present attempt's answer is here."""
    proxy = exchange.proxy
    assert exchange.peer is not None
    try:
        proxy.balancer.answered(exchange, exchange.peer, response, exchange.latency_s)
    except Exception as error:
        proxy.tell_balancer_failure(exchange, "answered", error)


def end(exchange: Exchange, error: ExchangeError | None) -> None:
    """The present attempt is over, if there is one: `error` says what ended it, None that all went well."""
    if not exchange.trying:
        return
    exchange.trying = False
    peer, record = exchange.peer, exchange.attempt
    assert peer is not None
    assert record is not None
    if peer.name not in exchange.tried:
        exchange.tried.append(peer.name)
    if error is not None:
        record.reason, record.detail = error.reason, error.detail
    upstream, exchange.upstream = exchange.upstream, None
    if upstream is not None:
        exchange.proxy.pool.release(upstream, exchange.upstream_ended and exchange.body_ended)
    try:
        exchange.proxy.balancer.end(peer, record.reason, exchange.status, exchange.latency_s)
    except Exception as broken:
        exchange.proxy.tell_balancer_failure(exchange, "end", broken)


def note_tried(exchange: Exchange) -> None:
    """The present peer counts as tried: the next attempt goes elsewhere, if it can."""
    assert exchange.peer is not None
    if exchange.peer.name not in exchange.tried:
        exchange.tried.append(exchange.peer.name)


class Overtime(Alarm):
    """Rings when all attempts together have taken too long."""

    __slots__ = ("exchange", "limit_s")

    def __init__(self, exchange: Exchange, limit_s: float) -> None:
        super().__init__()
        self.exchange = exchange
        self.limit_s = limit_s
        exchange.proxy.kernel.arm(self, exchange.started + limit_s)

    def ring(self, now: float) -> None:
        late = ExchangeError("upstream_timeout", f"no answer within {self.limit_s:g} s, all attempts together")
        self.exchange.cancel(late)


# ------------------------------------------------------------------------------------------ what is sent


def plain_request(exchange: Exchange, peer: Peer) -> Request:
    """The request as this peer gets it, with what is here of its body; where no filter has a say in that."""
    exchange.upstream_request = request = request_for_upstream(
        exchange.request, exchange.client, exchange.downstream.connection.trusted, exchange.proxy.config
    )
    if not request.authority:  # HTTP/1.0 may leave it out, HTTP/1.1 must not (RFC 9112 section 3.2)
        request.headers.set("Host", peer.authority)
    if exchange.continued:
        request.headers.remove("expect")  # we answered it ourselves
    if request.upgrade and is_websocket(request):
        put_key(exchange, request)
        if sees_messages(exchange):
            offer(exchange, request)
    if exchange.replay:
        request.data = b"".join(exchange.replay)
    request.ended = exchange.body_ended and exchange.trailers is None
    return request


async def filtered_request(exchange: Exchange, peer: Peer) -> Request:
    """The same, through the filters."""
    chains = exchange.proxy.chains
    if chains.connected_to_upstream:
        await decide(chains.connected_to_upstream, (), exchange, exchange.reused)
    request = plain_request(exchange, peer)
    if chains.upstream_request_filter:
        await decide(chains.upstream_request_filter, (), exchange, request)
    if chains.request_body_filter:
        if request.data or exchange.body_ended:
            request.data = await transform(chains.request_body_filter, exchange, request.data, exchange.body_ended)
        request.length = len(request.data) if request.ended else None
    return request


async def pump_request(exchange: Exchange, upstream: Stream) -> None:
    """Pass the rest of the body up, as a child of the exchange."""
    chain = exchange.proxy.chains.request_body_filter
    while not exchange.body_ended:
        await upstream.wait_for_room()
        data = await exchange.read_body()
        if not exchange.spent:
            _keep_for_replay(exchange, data)
        ended = exchange.body_ended
        if chain:
            data = await transform(chain, exchange, data, ended)
        try:
            await upstream.send(Data(data, ended and exchange.trailers is None))
            if ended and exchange.trailers is not None:
                await send_trailers(exchange, upstream, exchange.trailers)
        except FilterError:
            raise
        except ExchangeError:
            return  # the origin takes no more; it may have answered already, and whoever reads that knows better
    if not exchange.status:  # else its head is here, and the time for an answer is over
        upstream.expect_within(exchange.answer_limit_s)


def _keep_for_replay(exchange: Exchange, data: bytes) -> None:
    """Keep a piece so that the body can be sent again, or note that it cannot any more."""
    exchange.replay_bytes += len(data)
    if exchange.replay_bytes > exchange.proxy.config.limits.replay_bytes_max or exchange.head_sent:
        exchange.spent = True
        exchange.replay = []
    else:
        exchange.replay.append(data)


async def send_trailers(exchange: Exchange, upstream: Stream, trailers: Trailers) -> None:
    """Pass the fields behind the body up."""
    proxy = exchange.proxy
    keep_allowed_trailers(trailers.headers, proxy.config)
    if proxy.chains.request_trailer_filter:
        await decide(proxy.chains.request_trailer_filter, (), exchange, trailers.headers)
    await upstream.send(trailers)


# ------------------------------------------------------------------------------------------ what follows


async def after_failure(exchange: Exchange, error: ExchangeError) -> Peer | None:
    """Where to try again after a failed attempt; None where the rules, or a filter, say that it was the last."""
    end(exchange, error)
    if exchange.head_sent or (error.side != "upstream" and error.reason not in OURS_BUT_ELSEWHERE):
        return None
    if error.reason == "upgrade_unsupported":
        exchange.connected = False  # as good as no connection: another endpoint may have one, and this one never will
    return await _another_peer(exchange, error)


async def instead_of(exchange: Exchange, upstream: Stream, response: Response) -> Peer | None:
    """Where to try again instead of passing on an answer with a status of `Retry.statuses`; None where it is passed
    on."""
    error = ExchangeError("upstream_status", f"answered {response.status}")
    note_tried(exchange)
    peer = await _another_peer(exchange, error)
    if peer is not None:
        exchange.upstream_ended = response.ended or _take_rest(upstream)
        end(exchange, error)
    return peer


async def _another_peer(exchange: Exchange, error: ExchangeError) -> Peer | None:
    proxy = exchange.proxy
    chains = proxy.chains
    connected = exchange.connected
    chain = chains.error_while_proxy if connected else chains.fail_to_connect
    wanted: bool | None = None
    if chain:
        wanted = await decide(chain, bool, exchange, error)
    retry = proxy.config.retry
    attempts = exchange.attempts
    method = exchange.request.method
    if exchange.spent or not may_follow(retry, attempts, error.reason, method, connected=connected, wanted=wanted):
        return None
    peer = await chosen(exchange)
    if peer is not None and peer.name in exchange.tried:
        if wanted is None and not connected:
            return None  # every endpoint was tried, and what refuses now refuses a moment later
        wait_s = backoff_s(retry, attempts, proxy.rng)
        if wait_s:
            await sleep(wait_s)
            peer = await chosen(exchange)
    if peer is None or exchange.spent or not proxy.balancer.may_retry(exchange):
        return None  # where a status is tried again, the body may have gone on during the wait
    proxy.counters.retries += 1
    proxy.tell_retry(exchange, error)
    return peer


async def chosen(exchange: Exchange) -> Peer | None:
    """Where another attempt would go. What has failed says more than that there is nothing else."""
    try:
        return await exchange.choose_peer()
    except FilterError:
        raise
    except ExchangeError:
        return None


def _take_rest(upstream: Stream) -> bool:
    """Take what has come of a body that nobody wants; True where that was all of it, and the connection is whole."""
    try:
        while (part := upstream.take()) is not None:
            if isinstance(part, Trailers) or (isinstance(part, Data) and part.ended):
                return True
    except ExchangeError:
        pass
    return False
