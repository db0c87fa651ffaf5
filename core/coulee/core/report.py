"""What a proxy tells its host: one access record per request, events, and counters.

Records go out with `Report`; counters are plain integers, read by whoever wants them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coulee.core.seam import Address, Security


@dataclass(slots=True)
class Attempt:
    """One try at one peer. `reason` is "" where it answered, else the word from `errors.REASONS` that ended it;
    `reused` tells whether it began on a connection that had lain idle."""

    peer: str
    reason: str
    detail: str = ""
    reused: bool = False


@dataclass(slots=True)
class Access:
    """One request, from its head to its end. Exactly one is reported for each request, malformed ones included.

    Times are seconds: `started` since 1970, the others since the request's head was complete. `first_byte_s` is the
    moment the answer's head was sent on, -1 where none was. `status` is what the client was sent, 0 where nothing.
    `bytes_in` and `bytes_out` count bodies, without framing. `reason` is "" where all went well.
    """

    client: Address
    method: str
    target: str
    version: tuple[int, int]
    authority: str
    status: int
    reason: str
    detail: str
    started: float
    duration_s: float
    first_byte_s: float
    bytes_in: int
    bytes_out: int
    peer: str
    reused: bool
    attempts: list[Attempt]
    tags: dict[str, object]
    security: Security | None = None
    """The client's TLS, with its certificate where it has shown one."""

    server_name: str = ""
    """The name that the client has asked for in TLS."""


@dataclass(slots=True)
class Event:
    """Something that happened outside, or in the middle, of a request.

    `name` is one of `listening`, `listen_failed`, `turned_away`, `certificates`, `insecure`, `retry`, `hedge`,
    `endpoint`, `discovery`, `filter_error`, `internal_error`, `http2_error`, `http2_flood`, `http2_goaway`,
    `header_timeout`, `draining`.
    `text` is for people; `fields` has what a program would want.
    """

    name: str
    text: str
    at: float
    fields: dict[str, object] = field(default_factory=dict[str, object])


@dataclass(slots=True)
class Counters:
    """Running totals of one machine."""

    connections: int = 0
    """Client connections accepted."""

    connections_refused: int = 0
    """... of which so many were over a cap, and had the time of one request to be told so."""

    connections_turned_away: int = 0
    """... and so many were closed at once, because `refused_connections_max` others were being told."""

    entrances_failed: int = 0
    """... and so many were closed for what they did before their first request: in TLS, or in the PROXY protocol."""

    requests: int = 0
    """Requests, malformed ones included; equals the number of access records."""

    attempts: int = 0
    """Attempts at upstream peers."""

    retries: int = 0
    """Attempts after the first of a request."""

    hedges: int = 0
    """Attempts made beside one that was slow; not counted as retries."""

    connects: int = 0
    """Upstream connections asked for."""

    reuses: int = 0
    """Attempts that used an idle connection."""

    bytes_in: int = 0
    """Of request bodies."""

    bytes_out: int = 0
    """Of answer bodies."""

    messages_in: int = 0
    """WebSocket messages from clients that filters saw, or could have."""

    messages_out: int = 0
    """... and from origins."""

    reasons: dict[str, int] = field(default_factory=dict[str, int])
    """How many requests ended with each reason, the good ones apart."""
