"""A request, and one attempt at it, as far as the what-if tool needs them: small, for there are millions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from coulee.core.parts import Request
    from coulee.core.peer import Peer
    from coulee.core.seam import Address
    from coulee.server.whatif.origins import Origin

WAITING: Final = 0
"""In the pool's queue for a connection."""
CONNECTING: Final = 1
"""Nothing will come of it; who tries does not know that yet."""
QUEUED: Final = 2
"""In the origin, which has others to work on."""
AT_WORK: Final = 3
FROZEN: Final = 4
"""In an origin that answers nothing at the moment."""
OVER: Final = 5


class Ask:
    """A request: what a balancer sees of one, and its attempts that run, of which there are two where it is hedged."""

    __slots__ = ("arrived", "attempts", "client", "over", "request", "running", "tried")

    def __init__(self, request: Request, client: Address, now: float) -> None:
        self.request = request
        self.client = client
        self.tried: list[str] = []
        self.arrived = now
        self.attempts = 0
        self.running: list[Attempt] = []
        self.over = False


class Attempt:
    """One attempt at one origin."""

    __slots__ = ("ask", "began", "latency_s", "limit", "limited", "origin", "peer", "state", "status")

    def __init__(self, ask: Ask, peer: Peer, origin: Origin, now: float) -> None:
        self.ask = ask
        self.peer = peer
        self.origin = origin
        self.began = now
        self.limit = 0.0
        """When it will have taken too long."""
        self.limited = False
        """... of which the agenda knows."""
        self.state = OVER
        self.status = 0
        """Of the answer, and how long it took: 0 while there is none."""
        self.latency_s = 0.0
