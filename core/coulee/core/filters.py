"""The phases of an exchange, and the chains that a list of filters makes of them.

A filter is a subclass of `Filter` that overrides the phases it needs, each a plain function or an `async def` one:

    early_request_filter      the head is here; nothing was decided
    request_filter            may answer: return a `Response`
    upstream_peer             may choose: return a `Peer`; otherwise the balancer does
      connected_to_upstream   | fail_to_connect (may say whether to retry)
      upstream_request_filter may change what is sent to the origin
        request_body_filter   each piece of the request's body    (while the answer may be coming in already)
        request_trailer_filter
      upstream_response_filter        the answer as the origin sent it; may answer otherwise
      upstream_response_body_filter
      response_filter                 the answer as the client will get it; may answer otherwise
      response_body_filter
      response_trailer_filter
      websocket_message       each message of a WebSocket, from either side; may answer, drop, split, close
      websocket_close         its end
    error_while_proxy         an attempt failed after connecting; may say whether to retry
    fail_to_proxy             the request failed; may give the answer
    logging                   always, last

Request phases run in the order of the list, response phases in reverse. A phase that nobody overrides costs the test of
an empty tuple. The names are Pingora's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from coulee.core.errors import ExchangeError
from coulee.core.kernel import FOREIGN_AWAIT, Cancelled

if TYPE_CHECKING:
    from coulee.core.exchange import Exchange
    from coulee.core.headers import Headers
    from coulee.core.parts import Request, Response
    from coulee.core.peer import Peer
    from coulee.core.websocket import Closing, Message, Outcome

Chain: TypeAlias = tuple[Callable[..., Any], ...]


class Filter:
    """Override the phases you need, as plain functions or `async def`. What they may await is in `coulee.core.effects`.

    One filter serves all exchanges; keep what belongs to one exchange in `exchange.tags`.
    """

    def early_request_filter(self, exchange: Exchange) -> Awaitable[Response | None] | Response | None:
        """The first word, before anything was decided. May answer."""
        return None

    def request_filter(self, exchange: Exchange) -> Awaitable[Response | None] | Response | None:
        """Decide about the request. To answer it here, return a `Response`; to go on, None."""
        return None

    def upstream_peer(self, exchange: Exchange) -> Awaitable[Peer | None] | Peer | None:
        """Choose where this attempt goes, or leave it to the balancer. Called for each attempt."""
        return None

    def connected_to_upstream(self, exchange: Exchange, reused: bool) -> Awaitable[None] | None:
        """A connection for this attempt is there."""
        return None

    def fail_to_connect(self, exchange: Exchange, error: ExchangeError) -> Awaitable[bool | None] | bool | None:
        """No connection could be had. True retries, False does not, None leaves it to the rules."""
        return None

    def upstream_request_filter(self, exchange: Exchange, request: Request) -> Awaitable[None] | None:
        """Change the head that goes to the origin. Called for each attempt; `exchange.attempts` tells a replay."""
        return None

    def request_body_filter(
        self, exchange: Exchange, data: bytes, ended: bool
    ) -> Awaitable[bytes | None] | bytes | None:
        """Give back what goes on instead of `data`, or None to let it pass. A replay begins anew with all of the body
        so far in one piece. The last call has `ended` set, and possibly no data."""
        return None

    def request_trailer_filter(self, exchange: Exchange, trailers: Headers) -> Awaitable[None] | None:
        """Change the fields after the request's body."""
        return None

    def upstream_response_filter(
        self, exchange: Exchange, response: Response
    ) -> Awaitable[Response | None] | Response | None:
        """The answer's head as the origin sent it. Change it, or return another answer instead."""
        return None

    def upstream_response_body_filter(
        self, exchange: Exchange, data: bytes, ended: bool
    ) -> Awaitable[bytes | None] | bytes | None:
        """The answer's body as the origin sent it; as `request_body_filter`."""
        return None

    def response_filter(self, exchange: Exchange, response: Response) -> Awaitable[Response | None] | Response | None:
        """The answer's head as the client will get it, also where a filter made the answer."""
        return None

    def response_body_filter(
        self, exchange: Exchange, data: bytes, ended: bool
    ) -> Awaitable[bytes | None] | bytes | None:
        """The answer's body as the client will get it; called for an answer without a body too, once, with `ended`."""
        return None

    def response_trailer_filter(self, exchange: Exchange, trailers: Headers) -> Awaitable[bytes | None] | bytes | None:
        """Change the fields after the answer's body. What is given back goes behind the body; so who cannot be sent
        trailers can have them there. This filter has had the last piece of the body by then, and those that are further
        out have it still to come. Without fields that are left, the body just ends."""
        return None

    def websocket_message(self, exchange: Exchange, message: Message) -> Awaitable[Outcome | None] | Outcome | None:
        """A whole message of a WebSocket, from the side that `message.sender` names. None lets it pass; text or bytes
        go on in its place; a `Reply` goes back to its sender, who gets it as it is; a `Closing` ends the WebSocket on
        both sides. A list does all of that in its order, so an empty one drops the message. Each of what goes on is
        seen by the filters behind: those of the client's messages run in the order of the list, those of the origin's
        in reverse. While one is awaited, nothing more is read from the sender."""
        return None

    def websocket_close(self, exchange: Exchange, closing: Closing) -> Awaitable[Closing | None] | Closing | None:
        """A WebSocket ends, and `closing` says how, and by whom. Another `Closing` has its code and reason go on to the
        other side in its place. Called once, where no message follows from the side that ends it."""
        return None

    def error_while_proxy(self, exchange: Exchange, error: ExchangeError) -> Awaitable[bool | None] | bool | None:
        """An attempt failed after it had a connection. True retries where that is possible at all (no byte of an answer
        was sent, and the request can be sent again), False does not, None leaves it to the rules."""
        return None

    def fail_to_proxy(self, exchange: Exchange, error: ExchangeError) -> Awaitable[Response | None] | Response | None:
        """The request has failed for good. May give the answer instead of the default one."""
        return None

    def logging(self, exchange: Exchange) -> Awaitable[None] | None:
        """The exchange is over, in whatever way. The last chance to set `exchange.tags`."""
        return None


PHASES: Final = tuple(name for name in vars(Filter) if not name.startswith("_"))
_RESPONSE_PHASES: Final = frozenset(
    {
        "upstream_response_filter",
        "upstream_response_body_filter",
        "response_filter",
        "response_body_filter",
        "response_trailer_filter",
        "websocket_close",
        "fail_to_proxy",
        "logging",
    }
)


class Chains:
    """For each phase the functions that some filter gave it, in their order; computed once."""

    __slots__ = (
        "answering",
        "connected_to_upstream",
        "early_request_filter",
        "endings",
        "error_while_proxy",
        "fail_to_connect",
        "fail_to_proxy",
        "logging",
        "relayed_body",
        "request_body_filter",
        "request_filter",
        "request_trailer_filter",
        "response_body_filter",
        "response_filter",
        "response_trailer_filter",
        "sending",
        "upstream_peer",
        "upstream_request_filter",
        "upstream_response_body_filter",
        "upstream_response_filter",
        "websocket",
        "websocket_close",
        "websocket_message",
    )

    early_request_filter: Chain
    request_filter: Chain
    upstream_peer: Chain
    connected_to_upstream: Chain
    fail_to_connect: Chain
    upstream_request_filter: Chain
    request_body_filter: Chain
    request_trailer_filter: Chain
    upstream_response_filter: Chain
    upstream_response_body_filter: Chain
    response_filter: Chain
    response_body_filter: Chain
    response_trailer_filter: Chain
    websocket_message: Chain
    websocket_close: Chain
    error_while_proxy: Chain
    fail_to_proxy: Chain
    logging: Chain
    answering: bool
    """Whether there is a phase that may answer before a peer is chosen."""
    sending: bool
    """Whether there is a phase that sees what is sent to an origin."""
    websocket: bool
    """Whether somebody wants to see the messages of a WebSocket, or its end."""
    relayed_body: Chain
    """What each piece of an origin's body goes through."""
    endings: tuple[tuple[Chain, Chain], ...]
    """Of each filter what sees the client's side of a body, and what its trailers; from the origin outwards."""

    def __init__(self, filters: Iterable[Filter]) -> None:
        filters = list(filters)
        for phase in PHASES:
            chain = [call for each in filters for call in _given(each, phase)]
            if phase in _RESPONSE_PHASES:
                chain.reverse()
            setattr(self, phase, tuple(chain))
        self.answering = bool(self.early_request_filter or self.request_filter)
        self.sending = bool(self.connected_to_upstream or self.upstream_request_filter or self.request_body_filter)
        self.websocket = bool(self.websocket_message or self.websocket_close)
        self.relayed_body = self.upstream_response_body_filter + self.response_body_filter
        pairs = [(_given(each, "response_body_filter"), _given(each, "response_trailer_filter")) for each in filters]
        self.endings = tuple([pair for pair in reversed(pairs) if any(pair)])


def _given(each: Filter, phase: str) -> Chain:
    """What a filter does in a phase: one function, or none."""
    call = getattr(each, phase)
    return () if getattr(call, "__func__", None) is getattr(Filter, phase) else (call,)


class FilterError(ExchangeError):
    """A filter raised, or returned what its phase cannot use. The exception is the cause (`__cause__`)."""

    def __init__(self, call: Callable[..., Any], detail: str) -> None:
        name = getattr(call, "__qualname__", repr(call))
        super().__init__("filter_error", f"{name}: {detail}")


def _filter_error(call: Callable[..., Any], error: BaseException) -> FilterError:
    """What a filter raised, in our words; where there is no event loop at all, asyncio complains before we can."""
    if isinstance(error, RuntimeError) and "no running event loop" in str(error):
        error = TypeError(FOREIGN_AWAIT.format(what="asyncio"))
    return FilterError(call, f"{type(error).__name__}: {error}")


def _is_awaitable(result: object) -> bool:
    return type(result) is CoroutineType or isinstance(result, Awaitable)


async def outcome_of(call: Callable[..., Any], *args: Any) -> Any:
    """What one filter makes of something. Raises `ExchangeError`, as `decide` does; which has the same in its loop, as
    `transform` has, because a coroutine more would cost more than all else that they do."""
    try:
        result: Any = call(*args)
        if result is not None and _is_awaitable(result):
            result = await result
    except (ExchangeError, Cancelled):
        raise
    except (Exception, SystemExit) as error:
        raise _filter_error(call, error) from error
    return result


async def decide(chain: Chain, wanted: type | tuple[type, ...], *args: Any) -> Any:
    """Call a chain until one gives something other than None, and give that. Raises `ExchangeError`.

    A filter may itself raise `ExchangeError`, to fail the request with a reason of its choice; anything else it raises
    is a `FilterError`.
    """
    for call in chain:
        try:
            result: Any = call(*args)
            if result is not None and _is_awaitable(result):
                result = await result
        except (ExchangeError, Cancelled):
            raise
        except (Exception, SystemExit) as error:
            raise _filter_error(call, error) from error
        if result is not None:
            if not isinstance(result, wanted):
                raise FilterError(call, f"returned {type(result).__name__}, which this phase has no use for")
            return result
    return None


async def transform(chain: Chain, exchange: Exchange, data: bytes, ended: bool) -> bytes:
    """Pass a piece of a body through a chain. Raises `ExchangeError`."""
    for call in chain:
        try:
            result: Any = call(exchange, data, ended)
            if result is not None and _is_awaitable(result):
                result = await result
        except (ExchangeError, Cancelled):
            raise
        except (Exception, SystemExit) as error:
            raise _filter_error(call, error) from error
        if result is not None:
            if not isinstance(result, bytes):
                raise FilterError(call, f"returned {type(result).__name__}; a body filter returns bytes or None")
            data = result
    return data


async def conclude(chains: Chains, exchange: Exchange, trailers: Headers, *, whole: bool) -> bytes:
    """The end of an answer with trailers: give what goes behind its body. Raises `ExchangeError`.

    From the origin outwards, each filter has its last call for the body and then that for the trailers, so that one
    that reckons over the body can put the sum into them, and what one moves from them into the body passes the filters
    behind it. A body that is not `whole` does not end, so there is no last call for it.
    """
    data = b""
    if whole:
        data = await transform(chains.upstream_response_body_filter, exchange, data, True)
    for body, trailer in chains.endings:
        if whole:
            data = await transform(body, exchange, data, True)
        if trailer:
            data += await decide(trailer, bytes, exchange, trailers) or b""
    return data
