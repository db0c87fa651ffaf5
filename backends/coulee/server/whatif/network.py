"""The way of an attempt through the network and the origin, to an answer or a failure.

    send -> [waiting for a connection] -> connecting -> refused, or lost
                                       -> [queued in the origin] -> at work -> answered
                                                                 -> frozen, while the origin hangs
    ... and from everywhere: too late, or reset, or cancelled.

Whoever sends hears of each attempt once, by `answered` or by `failed`, unless it cancels it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from coulee.server.whatif.attempts import AT_WORK, CONNECTING, FROZEN, OVER, QUEUED, WAITING, Attempt
from coulee.server.whatif.origins import REFUSED_S

if TYPE_CHECKING:
    from coulee.core.config import Config
    from coulee.server.whatif.agenda import Agenda
    from coulee.server.whatif.origins import Origin


class Sender(Protocol):
    """Who hears what becomes of an attempt."""

    def answered(self, attempt: Attempt, status: int, now: float) -> None:
        """The head of an answer is here, and with it all of it."""

    def failed(self, attempt: Attempt, reason: str, connected: bool, now: float) -> None:
        """There will be no answer: `reason` is a word of `errors.REASONS`."""


class Network:
    """See above."""

    def __init__(self, agenda: Agenda, config: Config, sender: Sender) -> None:
        self.agenda = agenda
        self.sender = sender
        own_s = config.retry.try_timeout_s
        timeouts = config.timeouts
        self.connect_limit_s = min(timeouts.connect_timeout_s, own_s or timeouts.connect_timeout_s)
        self.answer_limit_s = min(timeouts.answer_timeout_s, own_s or timeouts.answer_timeout_s)

    def send(self, attempt: Attempt, now: float) -> None:
        """An attempt begins."""
        origin = attempt.origin
        if len(origin.attempts) < origin.connections_max:
            self._connect(attempt, now)
            return
        attempt.state = WAITING
        if len(origin.waiters) >= origin.waiters_max:
            self.agenda.at(now, self._waited, attempt)
        else:
            self.agenda.at(now + origin.wait_s, self._waited, attempt)
        origin.waiters[attempt] = None

    def cancel(self, attempt: Attempt, now: float) -> None:
        """Nobody wants the answer any more."""
        self._leave(attempt, now)

    # -- what happens to origins

    def reset_all(self, origin: Origin, now: float) -> None:
        """It has died: whatever it was at is lost."""
        lost = [attempt for attempt in origin.attempts if attempt.state != CONNECTING]
        for attempt in lost:
            self._leave(attempt, now)
            self.sender.failed(attempt, "upstream_reset", True, now)

    def go_on(self, origin: Origin, now: float) -> None:
        """It is well again: what it has not lost it works on now, in the order in which it came."""
        origin.queue.clear()
        for attempt in list(origin.attempts):
            if attempt.state == FROZEN or attempt.state == QUEUED:
                self._serve(attempt, now)

    # -- the steps

    def _connect(self, attempt: Attempt, now: float) -> None:
        origin = attempt.origin
        origin.attempts[attempt] = None
        mode = origin.mode
        if mode == "well":
            attempt.limit = now + self.answer_limit_s
            self._serve(attempt, now)
        elif mode == "hung":
            attempt.limit = now + self.answer_limit_s
            self._freeze(attempt)
        else:
            attempt.state = CONNECTING
            if mode == "dead":
                self.agenda.at(now + REFUSED_S, self._refused, attempt)
            else:
                self.agenda.at(now + self.connect_limit_s, self._lost, attempt)

    def _serve(self, attempt: Attempt, now: float) -> None:
        """The origin has it, and works on it at once or when it can."""
        origin = attempt.origin
        if origin.concurrency and origin.busy >= origin.concurrency:
            attempt.state = QUEUED
            origin.queue[attempt] = None
            self._limit(attempt)
            return
        origin.busy += 1
        attempt.state = AT_WORK
        done = now + origin.draw_s()
        if done <= attempt.limit:
            self.agenda.at(done, self._done, attempt)
        else:
            self._limit(attempt)

    def _freeze(self, attempt: Attempt) -> None:
        attempt.state = FROZEN
        self._limit(attempt)

    def _limit(self, attempt: Attempt) -> None:
        if not attempt.limited:
            attempt.limited = True
            self.agenda.at(attempt.limit, self._too_late, attempt)

    def _leave(self, attempt: Attempt, now: float) -> None:
        """It is over: what it held is for the next one."""
        origin = attempt.origin
        state = attempt.state
        attempt.state = OVER
        if state == WAITING:
            del origin.waiters[attempt]
            return
        del origin.attempts[attempt]
        if state == QUEUED:
            del origin.queue[attempt]
        elif state == AT_WORK:
            origin.busy -= 1
            if origin.queue:
                self._next_in_queue(origin, now)
        if origin.waiters:
            first = next(iter(origin.waiters))
            del origin.waiters[first]
            self._connect(first, now)

    def _next_in_queue(self, origin: Origin, now: float) -> None:
        queue = origin.queue
        while queue and origin.mode == "well" and origin.busy < origin.concurrency:
            attempt = next(iter(queue))
            del queue[attempt]
            self._serve(attempt, now)

    # -- what comes of it

    def _done(self, attempt: Attempt, now: float) -> None:
        if attempt.state != AT_WORK:
            return
        origin = attempt.origin
        if origin.mode != "well":  # it is not in a state to answer
            origin.busy -= 1
            self._freeze(attempt)
            return
        status = origin.draw_status() if origin.error_rate else 200
        self._leave(attempt, now)
        self.sender.answered(attempt, status, now)

    def _refused(self, attempt: Attempt, now: float) -> None:
        self._fail(attempt, CONNECTING, "upstream_refused", False, now)

    def _lost(self, attempt: Attempt, now: float) -> None:
        self._fail(attempt, CONNECTING, "upstream_connect_timeout", False, now)

    def _waited(self, attempt: Attempt, now: float) -> None:
        self._fail(attempt, WAITING, "pool_full", False, now)

    def _too_late(self, attempt: Attempt, now: float) -> None:
        self._fail(attempt, attempt.state, "upstream_timeout", True, now)

    def _fail(self, attempt: Attempt, state: int, reason: str, connected: bool, now: float) -> None:
        if attempt.state == state and state != OVER:
            self._leave(attempt, now)
            self.sender.failed(attempt, reason, connected, now)
