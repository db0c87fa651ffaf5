"""What is sent first of what waits on an HTTP/2 connection: the extensible priorities of RFC 9218, without I/O.

`Priority` is what a client, or an origin, says of one answer; `Waiting` holds the bodies that have no room yet, and
gives out the next piece of them. Rules:

- Urgency is strict, as in nghttp2 and h2o: while anything of a lower number can be sent, nothing of a higher one is.
- Within one urgency nobody starves (section 10). Those that are not incremental go one after the other, in the order of
  their requests, and all of them together have one place in a round, in which each incremental one has a place of its
  own: at each turn one piece is sent. So a large body that nobody reads before its end does not keep the small ones
  waiting that are read at once, and one without an end keeps nobody waiting.
- A stream whose window is shut is passed over, and keeps its place. What has no bytes needs no window.
- Nothing is kept of a stream once its end was taken, or it was dropped.
- Who says nothing gets `UNSAID`, and not the default of section 4.2. See there.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

VALUE_BYTES_MAX: Final = 256
"""A longer Priority field is ignored. `u=0, i` is all that has a meaning today."""

VALUES_KEPT_MAX: Final = 128
"""Fields whose meaning is remembered: clients have some ten of them."""

URGENCY_MAX: Final = 7
"""The number of what is the least urgent (section 4.1)."""


@dataclass(frozen=True, slots=True)
class Priority:
    """How one answer is to be treated beside the others on its connection."""

    urgency: int = 3
    """From 0, the most urgent, to 7, what nobody waits for (section 4.1)."""

    incremental: bool = False
    """Whether its reader has a use for a part of it before its end (section 4.2)."""

    def __post_init__(self) -> None:
        assert 0 <= self.urgency <= URGENCY_MAX, self.urgency


UNSAID: Final = Priority(incremental=True)
"""What a stream is treated by whose client knows nothing of priorities. By the RFC's default its streams would go one
after the other, and one large answer would keep the small ones behind it waiting, which no such client asked for (a
gRPC channel, for one). Go's server judges so too."""


# -- the Priority field


def parse_priority(value: bytes | str) -> Priority:
    """What a Priority field of a request, or a PRIORITY_UPDATE frame, says (section 4). What is no dictionary of
    RFC 9651 is ignored whole; of one that is, parameters that are unknown, of another type or out of range."""
    return merged(_DEFAULT, value)


def merged(asked: Priority, value: bytes | str) -> Priority:
    """What the client asked for, but for what the answer's Priority field says otherwise (section 8)."""
    if not value or len(value) > VALUE_BYTES_MAX or not value.isascii():
        return asked
    urgency, incremental = _read(value if isinstance(value, bytes) else value.encode())
    return _ALL[
        (asked.urgency if urgency is None else urgency) * 2
        + (asked.incremental if incremental is None else incremental)
    ]


_DEFAULT: Final = Priority()
_ALL: Final = [Priority(rank // 2, bool(rank % 2)) for rank in range(2 * (URGENCY_MAX + 1))]

_KEY: Final = rb"[a-z*][a-z0-9_.*-]*+"
_BARE: Final = (
    rb"(?:-?(?:[0-9]{1,12}+\.[0-9]{1,3}+|[0-9]{1,15}+)"  # a decimal, an integer
    rb'|"(?:[ !#-\[\]-~]|\\["\\])*+"'  # a string
    rb"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*+"  # a token
    rb"|:[A-Za-z0-9+/]*+=*+:"  # bytes
    rb"|\?[01]"  # a boolean
    rb"|@-?[0-9]{1,15}+"  # a date
    rb'|%"(?:[ !#$&-~]|%[0-9a-f]{2})*+")'  # a string for people; that it is UTF-8 is not looked at
)
_PARAMETERS: Final = rb"(?:;\x20*+%s(?:=%s)?)*+" % (_KEY, _BARE)
_ITEM: Final = _BARE + _PARAMETERS
_MEMBER: Final = re.compile(
    rb"(%s)(?:=(?:(-?[0-9]{1,15})(?=[ \t,;]|\Z)|\?([01])|%s|\((?:\x20*+%s(?=[ )]))*+\x20*+\)))?+%s"
    rb"[ \t]*+(?:,[ \t]*+(?!\Z)|\Z)" % (_KEY, _BARE, _ITEM, _PARAMETERS)
)
"""One member of a dictionary, with what separates it from the next: its key, the integer or the boolean that it is."""


@lru_cache(maxsize=VALUES_KEPT_MAX)
def _read(value: bytes) -> tuple[int | None, bool | None]:
    """The urgency that a field names, and whether it says incremental; None for what it does not say."""
    text = value.strip(b" ")
    urgency: int | None = None
    incremental: bool | None = None
    at = 0
    while at < len(text):
        member = _MEMBER.match(text, at)
        if member is None:
            return None, None
        key, integer, boolean = member.groups()
        if key == b"u":  # the last of several counts, whatever it is (RFC 9651 section 4.2.2)
            urgency = int(integer) if integer and 0 <= int(integer) <= URGENCY_MAX else None
        elif key == b"i":
            bare = text[member.end(1) : member.end(1) + 1] != b"="
            incremental = True if bare else None if boolean is None else boolean == b"1"
        at = member.end()
    return urgency, incremental


# -- what waits

_IN_ORDER: Final = 0
"""The place of those that are not incremental in the round; no body has this number."""


class _Level:
    """The streams of one urgency: those that go one after the other, and the round."""

    __slots__ = ("in_order", "round")

    def __init__(self) -> None:
        self.in_order: list[int] = []
        self.round: list[int] = []  # at most 100 or so: to take one out of it costs next to nothing


class _Body:
    """What waits of one stream."""

    __slots__ = ("ended", "offset", "pieces", "priority", "size", "trailers")

    def __init__(self, priority: Priority) -> None:
        self.priority = priority
        self.pieces: list[bytes] = []
        self.offset = 0  # of the first piece: so much of it is gone
        self.size = 0
        self.ended = False
        self.trailers: object | None = None

    def cut(self, size: int) -> bytes:
        """Take so many bytes off. What goes whole is not copied."""
        self.size -= size
        pieces = self.pieces
        first = pieces[0]
        end = self.offset + size
        if end < len(first):
            data = first[self.offset : end]
            self.offset = end
            return data
        if end == len(first):
            data = first[self.offset :]
            self.offset = 0
            del pieces[0]
            return data
        return self._gather(size)

    def _gather(self, size: int) -> bytes:
        """So many bytes of several pieces."""
        pieces = self.pieces
        offset = self.offset
        parts: list[bytes] = []
        for piece in pieces:
            left = len(piece) - offset
            if left > size:
                break
            parts.append(piece[offset:])
            size -= left
            offset = 0
        del pieces[: len(parts)]
        if size:
            parts.append(pieces[0][:size])
        self.offset = size
        return b"".join(parts)


class Waiting:
    """The bodies that wait, of all streams of a connection. `known_max`: of how many streams the priority is
    remembered, among them those that have not begun (section 7.1)."""

    __slots__ = ("_bodies", "_known", "_known_max", "_levels", "default", "total")

    def __init__(self, known_max: int) -> None:
        self.default = UNSAID
        """For streams without a priority. `Priority()`, once a client has shown that it knows what that is."""
        self.total = 0
        """Bytes that wait."""
        self._bodies: dict[int, _Body] = {}
        self._known: dict[int, Priority] = {}
        self._known_max = known_max
        self._levels: dict[int, _Level] = {}  # by urgency, the first first; one that is empty stays

    def __bool__(self) -> bool:
        return bool(self._bodies)

    def waits(self, stream: int) -> bool:
        """Whether something of a stream waits, if only its end."""
        return stream in self._bodies

    def size(self, stream: int) -> int:
        """The bytes of a stream that wait."""
        body = self._bodies.get(stream)
        return 0 if body is None else body.size

    # -- what comes in

    def put(self, stream: int, data: bytes, ended: bool) -> None:
        """More of a body, which may end with it."""
        if data or ended:
            body = self._bodies.get(stream) or self._begin(stream)
            assert not body.ended
            if data:
                body.pieces.append(data)
                size = len(data)
                body.size += size
                self.total += size
            body.ended = ended

    def close(self, stream: int, trailers: object) -> None:
        """A body ends, and these go behind its last byte."""
        body = self._bodies.get(stream) or self._begin(stream)
        assert not body.ended
        body.ended = True
        body.trailers = trailers

    def drop(self, stream: int) -> None:
        """Forget a stream."""
        self._known.pop(stream, None)
        body = self._bodies.pop(stream, None)
        if body is not None:
            self.total -= body.size
            self._leave(stream, body.priority)

    def _begin(self, stream: int) -> _Body:
        priority = self._known.get(stream, self.default)
        self._bodies[stream] = body = _Body(priority)
        self._join(stream, priority)
        return body

    # -- priorities

    def priority(self, stream: int) -> Priority | None:
        """What was said of a stream, if anything was."""
        return self._known.get(stream)

    def set_priority(self, stream: int, priority: Priority) -> bool:
        """What counts for a stream from now on, begun or not. False where too many are known, so that it is not
        remembered: for a stream that has not begun, that breaks section 7.1."""
        body = self._bodies.get(stream)
        if body is not None and body.priority != priority:
            self._leave(stream, body.priority)
            body.priority = priority
            self._join(stream, priority)
        if stream not in self._known and len(self._known) >= self._known_max:
            return False
        self._known[stream] = priority
        return True

    def _join(self, stream: int, priority: Priority) -> None:
        level = self._levels.get(priority.urgency)
        if level is None:
            self._levels[priority.urgency] = level = _Level()
            self._levels = dict(sorted(self._levels.items()))
        if priority.incremental:
            level.round.append(stream)
            return
        if not level.in_order:
            level.round.append(_IN_ORDER)
        insort(level.in_order, stream)

    def _leave(self, stream: int, priority: Priority) -> None:
        level = self._levels[priority.urgency]
        if priority.incremental:
            level.round.remove(stream)
            return
        del level.in_order[bisect_left(level.in_order, stream)]
        if not level.in_order:
            level.round.remove(_IN_ORDER)

    # -- what goes out

    def take(self, size_max: int, windows: Callable[[int], int]) -> tuple[int, bytes, bool, object | None] | None:
        """The next piece: its stream, at most `size_max` bytes and no more than the stream's window lets out, whether
        the body ends with it, and what goes behind it. None where nothing can be sent now."""
        bodies = self._bodies
        if not bodies:
            return None
        for level in self._levels.values():
            for place in level.round:
                for stream in level.in_order if place == _IN_ORDER else (place,):
                    body = bodies[stream]
                    size = body.size
                    if size:
                        size = min(size, size_max, windows(stream))
                        if size <= 0:
                            continue
                    if len(level.round) > 1:
                        level.round.remove(place)
                        level.round.append(place)
                    return self._piece(stream, body, size)
        return None

    def _piece(self, stream: int, body: _Body, size: int) -> tuple[int, bytes, bool, object | None]:
        data = body.cut(size) if size else b""
        self.total -= size
        if body.size:
            return stream, data, False, None
        del self._bodies[stream]
        self._leave(stream, body.priority)
        if body.ended:
            self._known.pop(stream, None)
        return stream, data, body.ended, body.trailers
