"""Upgrades (RFC 9110 section 7.8) and CONNECT (section 9.3.6): which requests may ask for what is no HTTP, and the life
of an exchange behind its 101, or its 200.

Rules:

- Whether a request asks is decided here, once: HTTP/1.1, a GET without a body, `upgrade` in Connection, and one
  protocol in Upgrade, which `Config.upgrades` allows. In any other request Upgrade is a hop-by-hop field like others:
  it is not passed on, and nothing comes of it. A server may always ignore it.
- By HTTP/2 it asks with an extended CONNECT (RFC 8441), which cannot be ignored: any other protocol is answered 501, as
  RFC 9220 section 3 has it for HTTP/3. There a 2xx is what a 101 is by HTTP/1.1, so that the 2xx of an origin which has
  not switched cannot be given to such a client.
- Nothing of what a client sends behind such a request goes anywhere before the origin has agreed. Where it does not
  agree those bytes are no request either, since they cannot be told from a smuggled one: so a request that asks is the
  last of its connection, whatever is answered.
- A CONNECT goes to its own target, if `Config.forward` allows it, or to the peer that a filter chooses. It gets a
  connection that carries nothing else. When that stands the client hears 200, and else an error, as ever.
- Behind the 101, or the 200, bytes go both ways as they come, and body filters do not see them. Each direction ends by
  itself, at its half-close; a reset of one side, or a time limit, resets the other. By HTTP/2 these are END_STREAM and
  RST_STREAM (RFC 8441 section 5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coulee.core.errors import ExchangeError
from coulee.core.filters import decide
from coulee.core.forward import read_target
from coulee.core.http1_grammar import options_of
from coulee.core.parts import Response
from coulee.core.path import announced
from coulee.core.peer import Peer
from coulee.core.raw import RawCodec
from coulee.core.relay import relay_bytes
from coulee.core.seam import Address, show_address
from coulee.core.stream import SoleStream
from coulee.core.translate import add_date
from coulee.core.websocket_handshake import check_acceptance, pass_acceptance

if TYPE_CHECKING:
    from coulee.core.exchange import Exchange
    from coulee.core.parts import Request
    from coulee.core.stream import Stream

_TUNNELS: Final = "\0tunnels"


def note_upgrade(exchange: Exchange) -> None:
    """Set `upgrade` of the client's request, if it asks for what we pass on."""
    protocol = _asked_for(exchange.request, exchange.proxy.config.upgrades)
    if protocol:
        exchange.request.upgrade = protocol
        exchange.downstream.close_after()


def _asked_for(request: Request, allowed: tuple[str, ...]) -> str:
    if request.version != (1, 1) or request.method != "GET" or request.length != 0:
        return ""
    if b"upgrade" not in options_of(request.headers.marks):
        return ""
    wanted = request.headers.get("upgrade") or ""  # two of them are joined, and on no list
    return wanted if _is_allowed(wanted, allowed) else ""


def obstacle_to_upgrade(request: Request, allowed: tuple[str, ...]) -> ExchangeError | None:
    """Why an extended CONNECT is not served, if it is not."""
    if _is_allowed(request.upgrade, allowed):
        return None
    return ExchangeError("not_implemented", f"a CONNECT for {request.upgrade}, which is not among `upgrades`")


def _is_allowed(protocol: str, allowed: tuple[str, ...]) -> bool:
    return protocol.lower() in [each.lower() for each in allowed]


def is_switched(exchange: Exchange, response: Response) -> bool:
    """Whether an origin has switched to what it was asked for. Raises `ExchangeError` for an answer that such a client
    cannot be given."""
    if response.status == 101:
        if is_websocket(exchange.request):
            check_acceptance(exchange, response)
        return True
    if response.status < 300 and exchange.request.version >= (2, 0):
        detail = f"the endpoint answered {response.status} and did not switch; by HTTP/2 that would say that it has"
        raise ExchangeError("upgrade_unsupported", detail)
    return False


async def relay_upgraded(exchange: Exchange, upstream: Stream, response: Response) -> None:
    """Send a 101 on, then bytes both ways until both directions have ended."""
    if response.status != 101 or response.upgrade.lower() != exchange.request.upgrade.lower():
        raise ExchangeError("filter_error", "a filter changed what a 101 switches to; to refuse, return another answer")
    response.ended = False
    if is_websocket(exchange.request):
        pass_acceptance(exchange, response)
    if exchange.websocket is not None:
        await exchange.websocket.run(response)
    else:
        await relay_bytes(exchange, upstream, response)


def is_websocket(request: Request) -> bool:
    """Whether a request asks for a WebSocket."""
    return request.upgrade.lower() == "websocket"


def sees_messages(exchange: Exchange) -> bool:
    """... and a filter wants to see its messages."""
    return exchange.proxy.chains.websocket and is_websocket(exchange.request)


class Target(Peer):
    """Where a CONNECT itself says that it goes."""

    __slots__ = ()


def target_of(exchange: Exchange) -> Target:
    """Where a CONNECT says that it goes. Raises `ExchangeError` where that is not allowed."""
    forward = exchange.proxy.config.forward
    assert forward is not None, "else a codec has refused it"
    target = exchange.request.target
    try:
        host, port = read_target(target)
    except ValueError as error:
        raise ExchangeError("filter_error", f"a filter changed the target to {target!r}: {error}") from None
    if not forward.allows(host, port):
        raise ExchangeError("forward_denied", f"{target} is not among the hosts and ports of `forward`")
    return Target((host, port), target)


async def relay_tunnel(exchange: Exchange, peer: Peer) -> None:
    """Connect a client to a peer, say so, then bytes both ways until both directions have ended. Raises
    `ExchangeError`."""
    proxy = exchange.proxy
    downstream = exchange.downstream
    proxy.counters.connects += 1
    upstream = await proxy.pool.acquire(announced(_apart(peer), downstream.connection))
    assert isinstance(upstream, SoleStream), "a peer of tunnels is reached for them alone"
    upstream.connection.codec = RawCodec()
    exchange.upstream = upstream
    exchange.connected = True
    if isinstance(peer, Target):
        _check_address(exchange, peer, upstream.connection.peer)
    chains = proxy.chains
    if chains.connected_to_upstream:
        await decide(chains.connected_to_upstream, (), exchange, False)
    response = Response(200, length=None, ended=False)
    add_date(response.headers, proxy.wall_clock)
    if chains.response_filter:
        other = await decide(chains.response_filter, Response, exchange, response)
        if other is not None:
            await exchange._answer_here(other, filtered=True)
            return
    if not 200 <= response.status <= 299:
        raise ExchangeError("filter_error", "a filter changed what opens a tunnel; to refuse, return another answer")
    if exchange.limit is not None:
        proxy.kernel.disarm(exchange.limit)
    await relay_bytes(exchange, upstream, response)


def _apart(peer: Peer) -> Peer:
    """The same peer in a group of its own, so that its connections are lent to no request, nor those of requests to
    it."""
    transport = peer.transport
    if transport.may_speak_http2:
        transport = transport.without_http2()
    return Peer(peer.address, peer.name, peer.group + _TUNNELS, peer.limits, transport, peer.prelude)


def _check_address(exchange: Exchange, target: Target, address: Address) -> None:
    """A name may be anywhere; where it is, is known only now."""
    forward = exchange.proxy.config.forward
    assert forward is not None
    assert isinstance(target.address, tuple)
    if not forward.allows_at(target.address[0], address):
        where = f"{target.name} is at {show_address(address)}, which is not public, nor among the hosts of `forward`"
        raise ExchangeError("forward_denied", where)
