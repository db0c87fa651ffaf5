"""A second attempt beside one that is slow, and the answer that comes first (Dean and Barroso, The Tail at Scale).

Rules:

- Only for idempotent requests that are here whole, and only where the rules, the filters' choice of peers and the
  cluster's budget leave room for one more attempt.
- Who fails while the other runs is out of the race; so is an answer with a status that is tried again. The last one's
  failure, or answer, is that of the attempt.
- Who loses is cut off: its connection is closed, and its attempt is noted as `superseded`, which is nobody's fault.
- 1xx answers of a race are not passed on: nobody knows yet whose they are.
"""

from __future__ import annotations

from collections.abc import Generator
from types import coroutine
from typing import TYPE_CHECKING, Any, Final

from coulee.core.attempt import begin, chosen, note_tried, prepared_request
from coulee.core.errors import ExchangeError
from coulee.core.filters import FilterError
from coulee.core.kernel import PARKED, DeadlineExceeded, Nursery, Task, _Parked, deadline, nursery
from coulee.core.parts import Response

if TYPE_CHECKING:
    from coulee.core.connection import Stream
    from coulee.core.exchange import Exchange


_SUPERSEDED: Final = "another attempt was answered first"


async def race(exchange: Exchange, upstream: Stream | None) -> Response:
    """Run the attempt that has just begun, with `upstream` if it has a connection already, and after a while another
    beside it. The exchange is left as if the winner had been its only one. Raises `ExchangeError`."""
    course = _Race(exchange)
    with nursery() as tasks:
        course.enter(_Racer(course, upstream), tasks)
        try:
            with deadline(exchange.proxy.config.retry.hedge_after_s):
                await course.outcome()
        except DeadlineExceeded:
            await course.add_another(tasks)
            await course.outcome()
    winner = course.winner
    if winner is None:
        assert course.error is not None
        raise course.error
    return winner.win()


class _Race:
    """Who runs, and who has come in."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.running = 0
        self.winner: _Racer | None = None
        self.error: ExchangeError | None = None  # of the last that failed
        self.waiter: Task | None = None

    def enter(self, racer: _Racer, tasks: Nursery) -> None:
        """One starts."""
        self.running += 1
        tasks.start(racer.run)

    @coroutine
    def outcome(self) -> Generator[_Parked, Any, None]:
        """Wait until one has won, or all have failed."""
        while self.winner is None and self.running:
            self.waiter = self.exchange.proxy.kernel.running
            try:
                yield PARKED
            finally:
                self.waiter = None

    async def add_another(self, tasks: Nursery) -> None:
        """Let a second one start, where that is allowed."""
        exchange = self.exchange
        proxy = exchange.proxy
        if exchange.attempts > proxy.config.retry.retries_max:
            return
        note_tried(exchange)
        peer = await chosen(exchange)
        if peer is None or peer.name in exchange.tried or not proxy.balancer.may_retry(exchange):
            return
        proxy.counters.hedges += 1
        proxy.tell_hedge(exchange, peer)
        self.enter(_Racer(self, begin(exchange, peer)), tasks)

    def over(self) -> None:
        """Somebody has come in, or is out."""
        self.running -= 1
        if self.waiter is not None and (self.winner is not None or not self.running):
            self.waiter.kernel.wake(self.waiter, None)


class _Racer:
    """One attempt of a race: what the exchange keeps of an attempt, as long as there are two."""

    def __init__(self, course: _Race, stream: Stream | None) -> None:
        exchange = course.exchange
        assert exchange.peer is not None
        assert exchange.attempt is not None
        self.course = course
        self.peer = exchange.peer
        self.attempt = exchange.attempt
        self.began = exchange.began
        self.stream = stream
        self.upstream_request = exchange.upstream_request
        self.response: Response | None = None
        exchange.trying = False  # its end is ours to tell, until it has won

    async def run(self) -> None:
        """To the head of the answer, or to the error."""
        course = self.course
        error: ExchangeError | None = None
        try:
            self.response = await self._ask()
            if course.winner is not None:
                error = ExchangeError("superseded", _SUPERSEDED)
            elif course.running > 1 and self.response.status in course.exchange.proxy.retry_statuses:
                error = ExchangeError("upstream_status", f"answered {self.response.status}")
        except FilterError as failure:
            error = failure
            raise
        except ExchangeError as failure:
            error = failure
        except BaseException:
            error = course.exchange.failure or ExchangeError("superseded", _SUPERSEDED)
            raise
        finally:
            if error is not None:
                self._drop_out(error)
        if error is None:
            course.winner = course.winner or self
        course.over()

    async def _ask(self) -> Response:
        exchange = self.course.exchange
        proxy = exchange.proxy
        if self.stream is None:
            proxy.counters.connects += 1
            self.stream = await proxy.pool.acquire(self.peer)
        exchange.reused = self.attempt.reused
        request = await prepared_request(exchange, self.peer)
        self.upstream_request = request
        stream = self.stream
        stream.patience_s = proxy.answer_limit_s
        stream.write(request)
        part = await stream.receive()
        while not isinstance(part, Response):
            part = await stream.receive()
        return part

    def _drop_out(self, error: ExchangeError) -> None:
        """It is over for this one."""
        exchange = self.course.exchange
        proxy = exchange.proxy
        self.course.error = error
        self.attempt.reason, self.attempt.detail = error.reason, error.detail
        exchange.connected = self.stream is not None
        if self.stream is not None:
            proxy.pool.release(self.stream, whole=False)
        try:
            proxy.balancer.end(self.peer, error.reason, 0, 0.0)
        except Exception as broken:
            proxy.tell_balancer_failure(exchange, "end", broken)

    def win(self) -> Response:
        """From here on the exchange has one attempt, and it is this one."""
        exchange = self.course.exchange
        assert self.response is not None
        exchange.peer = self.peer
        exchange.attempt = self.attempt
        exchange.reused = self.attempt.reused
        exchange.began = self.began
        exchange.upstream = self.stream
        exchange.upstream_request = self.upstream_request
        exchange.connected = exchange.trying = True
        return self.response
