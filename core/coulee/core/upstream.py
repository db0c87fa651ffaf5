"""A connection to an origin that carries one exchange at a time: HTTP/1.1, and what is no HTTP."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from coulee.core.codec import ProtocolError
from coulee.core.errors import ExchangeError
from coulee.core.seam import ErrorKind
from coulee.core.sole_connection import SoleConnection
from coulee.core.stream import SoleStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from coulee.core.pool import Desk, Pool


class LentStream(SoleStream):
    """The stream that somebody has of it."""

    __slots__ = ("upstream",)

    def __init__(self, upstream: Upstream, number: int, patience_s: float) -> None:
        super().__init__(upstream, number, patience_s)
        self.upstream = upstream

    def tell_of_loss(self, tell: Callable[[ExchangeError], None]) -> None:
        """See `Stream`."""
        self.upstream.on_loss = tell


class Upstream(SoleConnection):
    """One connection to an origin: connecting, then lent (`stream` is set) or idle."""

    __slots__ = ("desk", "on_loss", "pool", "until", "uses", "uses_max", "wears")

    def __init__(self, pool: Pool, desk: Desk) -> None:
        super().__init__(pool.proxy, pool.proxy.number(), pool.proxy.new_codec("client"), pool.proxy.config)
        self.pool = pool
        self.desk = desk
        self.uses = 0  # streams lent so far
        self.uses_max = desk.uses_max
        self.until = pool.proxy.kernel.now + desk.life_s  # not used again from then on
        self.wears = desk.uses_max != inf or desk.life_s != inf  # whether these two matter
        self.on_loss: Callable[[ExchangeError], None] | None = None  # whom to tell when nobody reads from it any more

    def lend(self) -> LentStream:
        """The stream for one exchange."""
        self.uses += 1
        self.read_by = inf  # it may have lain idle
        self.unread = False  # and nothing has come
        return LentStream(self, self.uses, self.timeouts.answer_timeout_s)

    @property
    def busy(self) -> bool:
        """Whether somebody has it."""
        return self.stream is not None

    @property
    def left_s(self) -> float:
        """How long it may still be used."""
        return self.until - self.pool.proxy.kernel.now

    @property
    def is_worn(self) -> bool:
        """Whether it was used so often, or so long, that it is not to be used again."""
        return self.uses >= self.uses_max or self.left_s <= 0

    def spend(self) -> None:
        """Its present use is its last."""
        self.wears = True
        self.uses_max = 0

    # -- what happens to it

    def wanted_by_nobody(self) -> None:
        if self.stream is None:
            self.pool.retire(self)

    def ended_by_peer(self) -> None:
        if self.stream is None:
            self.pool.retire(self)

    def gone(self, kind: ErrorKind | None, detail: str) -> None:
        if self.stream is not None:
            self.fail(self.stream, ExchangeError("upstream_reset", detail or "the connection was closed"))
        else:
            self.pool.retire(self)

    def timed_out(self, reading: bool) -> None:
        timeouts = self.timeouts
        if self.close_wanted:
            self.close(abort=True)  # it was given back with its last bytes on their way, and does not take them
        elif self.stream is None:
            self.pool.retire(self)
        elif reading:
            self.stream.give_up(ExchangeError("upstream_timeout", f"no answer within {self.stream.patience_s:g} s"))
        else:
            waited = f"took nothing of the request for {timeouts.send_stall_timeout_s:g} s"
            self.fail(self.stream, ExchangeError("upstream_timeout", waited))

    def fail(self, stream: SoleStream, error: ExchangeError) -> None:
        """It is of no more use to who has it."""
        stream.fail(error)
        if self.on_loss is not None:
            self.on_loss(error)

    def fault(self, error: ProtocolError) -> ExchangeError:
        return ExchangeError(error.reason, error.detail, error.status)
