"""What a filter may await. The same code runs on every backend, and in the simulator in no time at all.

    await sleep(0.5)                        the core's clock
    await blocking(function, *args)         on a thread of the host; for libraries that block
    await native(async_function, *args)     on the host's event loop; for libraries written for it
    await fetch(request, peer=...)          a sub-request through the same pool
    async with dial(peer) as line: ...      a connection of one's own, for bytes
    await exchange.body(limit)              the whole request body

    with deadline(2): ...                   raises `DeadlineExceeded` after two seconds
    with nursery() as n: n.start(f, x)      child tasks that cannot outlive the block

Awaiting anything else (an asyncio future, say) raises a `TypeError` that names the cure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field, replace
from functools import partial
from types import coroutine
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from coulee.core.dial import dial
from coulee.core.errors import ExchangeError
from coulee.core.headers import encode_field
from coulee.core.kernel import PARKED, _Parked, current_kernel, deadline, nursery, shielded, sleep
from coulee.core.parts import Data, Interim, Request, Response
from coulee.core.seam import Address, Run

if TYPE_CHECKING:
    from coulee.core.peer import Peer
    from coulee.core.proxy import Proxy

__all__ = ["blocking", "deadline", "dial", "fetch", "native", "nursery", "shielded", "sleep"]

T = TypeVar("T")
P = ParamSpec("P")


async def blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` on a thread of the host and wait for its result, or raise what it raised.

    Cancelling the wait does not stop the thread; what it gives is then thrown away.
    """
    return await _job("blocking", partial(function, *args, **kwargs))  # type: ignore[no-any-return]


async def native(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Await `function(...)` on the host's event loop, where its libraries work, and wait for its result."""
    return await _job("native", partial(function, *args, **kwargs))  # type: ignore[no-any-return]


@coroutine
def _job(mode: Literal["blocking", "native"], call: Callable[[], Any]) -> Generator[_Parked, Any, Any]:
    machine = current_kernel.get().machine
    task = machine.kernel.running
    assert task is not None
    while len(machine.jobs) >= machine.jobs_max:
        machine.waiting_for_jobs.append(task)
        try:
            yield PARKED
        except BaseException:
            if task in machine.waiting_for_jobs:
                machine.waiting_for_jobs.remove(task)
            else:
                machine.next_job()  # it was our turn, and we do not take it
            raise
    job = machine.number()
    machine.jobs[job] = task
    machine.operations.append(Run(job, mode, call))
    try:
        return (yield PARKED)
    finally:
        machine.forget_job(job)


@dataclass(slots=True)
class _Call:
    """What a balancer sees of a sub-request."""

    request: Request
    client: Address = ""
    tried: list[str] = field(default_factory=list[str])


async def fetch(
    request: Request, *, peer: Peer | None = None, body_bytes_max: int = 1024 * 1024, fresh: bool = False
) -> Response:
    """Send a request of our own and give the answer with its whole body. Raises `ExchangeError`.

    Without a `peer` the proxy's balancer chooses. The body of `request` is its `data`. `fresh` asks for a connection of
    its own, which is closed behind it; at the peer's cap it may have to share one of HTTP/2 that is busy. Not retried;
    give it a time limit with `deadline` if the usual ones are too long.
    """
    from coulee.core.proxy import Proxy  # the proxy knows the effects' users, not the effects

    proxy = current_kernel.get().machine
    assert isinstance(proxy, Proxy)
    if peer is not None:
        return await _ask(proxy, peer, request, body_bytes_max, fresh)
    call = _Call(request)
    balancer = proxy.balancer
    offered = balancer.choose(call)
    if offered is None:
        raise ExchangeError("no_healthy_endpoint", "the cluster offered no endpoint")
    balancer.begin(offered)
    began = proxy.kernel.now
    status, latency_s = 0, 0.0
    reason = "client_gone"  # unless it is answered, or fails: whoever wanted it has left

    def answered(head: Response) -> None:
        nonlocal status, latency_s
        status, latency_s = head.status, proxy.kernel.now - began
        if balancer.hears_answers:
            balancer.answered(call, offered, head, latency_s)

    try:
        answer = await _ask(proxy, offered, request, body_bytes_max, fresh, answered)
        reason = ""
    except ExchangeError as error:
        reason = error.reason
        raise
    finally:
        balancer.end(offered, reason, status, latency_s)
    return answer


async def _ask(
    proxy: Proxy,
    peer: Peer,
    request: Request,
    body_bytes_max: int,
    fresh: bool,
    on_head: Callable[[Response], None] | None = None,
) -> Response:
    """One request to one peer."""
    if request.upgrade:
        request = replace(request, upgrade="")  # what comes back is an answer, and never a connection
    request.length = len(request.data)
    request.ended = True
    if "host" not in request.headers:
        host = encode_field("Host", request.authority or peer.authority)
        request.headers.block = host + request.headers.block  # first, as RFC 9110 section 7.2 has it
    stream = (None if fresh else proxy.pool.take(peer)) or await proxy.pool.acquire(peer, fresh=fresh)
    whole = False
    try:
        await stream.send(request)
        head = await stream.receive()
        while isinstance(head, Interim):
            head = await stream.receive()
        assert isinstance(head, Response)
        if on_head is not None:
            on_head(head)
        pieces = [head.data]
        total = len(head.data)
        ended = head.ended
        while total <= body_bytes_max and not ended:
            part = await stream.receive()
            ended = not isinstance(part, Data) or part.ended
            if isinstance(part, Data):
                pieces.append(part.data)
                total += len(part.data)
        if total > body_bytes_max:
            raise ExchangeError("upstream_invalid", f"the answer to a sub-request is over {body_bytes_max} bytes")
        whole = True
    finally:
        proxy.pool.release(stream, whole)
    head.data = b"".join(pieces)
    head.length = len(head.data)
    head.ended = True
    return head
