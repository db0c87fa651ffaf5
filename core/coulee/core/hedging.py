"""A second attempt beside one that is slow, and the answer that comes first (Dean and Barroso, The Tail at Scale).

Rules:

- Only for idempotent requests that are here whole, and only where the rules, the filters' choice of peers and the
  cluster's budget leave room for one more attempt.
- Who fails while the other runs is out of the race; so is an answer with a status that is tried again. The last one's
  failure, or answer, is that of the attempt.
- Who loses is cut off: its connection is closed, and its attempt is noted as `superseded`, which is nobody's fault.
- Where the request itself ends (its client leaves, a filter raises), both attempts end with what ended it.
- 1xx answers of a race are not passed on: nobody knows yet whose they are.
"""

from __future__ import annotations

from collections.abc import Generator
from types import coroutine
from typing import TYPE_CHECKING, Any, Final

from coulee.core.attempt import begin, chosen, filtered_request, note_tried, send_trailers
from coulee.core.errors import ExchangeError
from coulee.core.filters import FilterError
from coulee.core.kernel import PARKED, DeadlineExceeded, Nursery, Task, _Parked, deadline, nursery
from coulee.core.parts import Response
from coulee.core.path import announced

if TYPE_CHECKING:
    from coulee.core.exchange import Exchange
    from coulee.core.stream import Stream


_SUPERSEDED: Final = "another attempt was answered first"


async def race(exchange: Exchange, upstream: Stream | None) -> Response:
    """Run the attempt that has just begun, with `upstream` if it has a connection already, and after a while another
    beside it. The exchange is left as if the winner had been its only one. Raises `ExchangeError`."""
    course = _Race(exchange)
    try:
        with nursery() as tasks:
            course.enter(upstream, tasks)
            try:
                with deadline(exchange.proxy.config.retry.hedge_after_s):
                    await course.outcome()
            except DeadlineExceeded:
                await course.add_another(tasks)
                await course.outcome()
    except BaseException as error:
        course.cut_off(exchange.failure or _in_our_words(error))
        raise
    winner = course.winner
    if winner is None:
        assert course.error is not None
        raise course.error
    winner.over = True
    course.cut_off(ExchangeError("superseded", _SUPERSEDED))
    return winner.win()


def _in_our_words(error: BaseException) -> ExchangeError:
    if isinstance(error, ExchangeError):
        return error
    return ExchangeError("internal_error", f"{type(error).__name__}: {error}")


class _Race:
    """Who runs, and who has come in."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.racers: list[_Racer] = []
        self.running = 0
        self.winner: _Racer | None = None
        self.error: ExchangeError | None = None  # of the last that failed
        self.waiter: Task | None = None

    def enter(self, stream: Stream | None, tasks: Nursery) -> None:
        """The attempt that has just begun takes part."""
        racer = _Racer(self, stream)
        self.racers.append(racer)
        self.running += 1
        tasks.start(racer.run)

    @property
    def decided(self) -> bool:
        """Whether one has won, or all have failed."""
        return self.winner is not None or not self.running

    @coroutine
    def outcome(self) -> Generator[_Parked, Any, None]:
        """Wait until it is decided."""
        while not self.decided:
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
        if self.decided or peer is None or peer.name in exchange.tried or not proxy.balancer.may_retry(exchange):
            return
        proxy.counters.hedges += 1
        proxy.tell_hedge(exchange, peer)
        self.enter(begin(exchange, peer), tasks)

    def over(self) -> None:
        """Somebody has come in, or is out."""
        self.running -= 1
        if self.waiter is not None and self.decided:
            self.waiter.kernel.wake(self.waiter, None)

    def cut_off(self, error: ExchangeError) -> None:
        """End the attempts that have not come to an end, of which some may not even have had their first step."""
        for racer in self.racers:
            if not racer.over:
                racer.drop_out(error)


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
        self.over = False
        exchange.trying = False  # its end is ours to tell, until it has won

    async def run(self) -> None:
        """To the head of the answer, or to the error. Who is cancelled is cut off by the race."""
        course = self.course
        try:
            self.response = response = await self._ask()
        except FilterError:
            raise  # which fails the request, and not the attempt alone
        except ExchangeError as error:
            course.error = error
            self.drop_out(error)
        else:
            again = course.running > 1 and response.status in course.exchange.proxy.retry_statuses
            if course.winner is None and not again:
                course.winner = self
            else:
                self._hear(response, again)
        course.over()

    async def _ask(self) -> Response:
        exchange = self.course.exchange
        proxy = exchange.proxy
        if self.stream is None:
            proxy.counters.connects += 1
            self.stream = await proxy.pool.acquire(announced(self.peer, exchange.downstream.connection))
        stream = self.stream
        self._stand_for_the_exchange()
        self.upstream_request = request = await filtered_request(exchange, self.peer)
        stream.patience_s = exchange.answer_limit_s
        stream.write(request)
        if exchange.trailers is not None:
            await send_trailers(exchange, stream, exchange.trailers)
        part = await stream.receive()
        while not isinstance(part, Response):
            part = await stream.receive()
        return part

    def _hear(self, response: Response, again: bool) -> None:
        """Its answer is one that is not taken."""
        exchange = self.course.exchange
        balancer = exchange.proxy.balancer
        latency_s = exchange.proxy.kernel.now - self.began
        try:
            if balancer.hears_answers:
                balancer.answered(exchange, self.peer, response, latency_s)
        except Exception as broken:
            exchange.proxy.tell_balancer_failure(exchange, "answered", broken)
        error = ExchangeError("superseded", _SUPERSEDED)
        if again:
            error = ExchangeError("upstream_status", f"answered {response.status}")
        self.drop_out(error, response.status, latency_s)

    def drop_out(self, error: ExchangeError, status: int = 0, latency_s: float = 0.0) -> None:
        """It is over for this one."""
        exchange = self.course.exchange
        proxy = exchange.proxy
        self.over = True
        self._stand_for_the_exchange()
        note_tried(exchange)
        self.attempt.reason, self.attempt.detail = error.reason, error.detail
        if self.stream is not None:
            proxy.pool.release(self.stream, whole=False)
        try:
            proxy.balancer.end(self.peer, error.reason, status, latency_s)
        except Exception as broken:
            proxy.tell_balancer_failure(exchange, "end", broken)

    def _stand_for_the_exchange(self) -> None:
        """What filters, and the record, see of the exchange is of this attempt for now."""
        exchange = self.course.exchange
        exchange.peer = self.peer
        exchange.attempt = self.attempt
        exchange.reused = self.attempt.reused
        exchange.connected = self.stream is not None

    def win(self) -> Response:
        """From here on the exchange has one attempt, and it is this one."""
        exchange = self.course.exchange
        assert self.response is not None
        self._stand_for_the_exchange()
        exchange.began = self.began
        exchange.upstream = self.stream
        exchange.upstream_request = self.upstream_request
        exchange.trying = True
        return self.response
