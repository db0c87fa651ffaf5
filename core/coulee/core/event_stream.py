"""Server-sent events: a filter that sees a stream of them event by event, and what an event is.

Rules:

- An event that nobody changes goes on byte for byte as it came, when its last byte has come.
- What is no event is not shown, and goes on at once: comments and blank lines, of which keep-alives are made; and
  fields without data, by which an origin says no more than where, or when, its client is to take up again.
- An event that has begun is kept until it is whole, up to a bound. Nothing else is kept.
- Where the bytes were cut makes no difference. A CR at the end of a piece ends a line; an LF that follows is its rest.
- Where the answer ends within an event, a browser forgets it, and others do not: so the filter sees it.

Source: the HTML standard (WHATWG), sections 9.2.5 "Parsing an event stream" and 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from coulee.core.errors import ExchangeError
from coulee.core.filters import Filter, FilterError, outcome_of
from coulee.core.headers import Headers

if TYPE_CHECKING:
    from coulee.core.config import Timeouts
    from coulee.core.exchange import Exchange
    from coulee.core.parts import Request, Response

TYPE: Final = "text/event-stream"

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_NO_FIELD: Final = b":\r\n"
"""What a line that is part of no event begins with, while none has begun."""

_COMMENT: Final = re.compile(rb"[^\r\n]*+")
_BETWEEN: Final = re.compile(rb"(?:(?::[^\r\n]*+)?(?:\r\n?|\n))*+(:[^\r\n]*+)?")
_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n?|\n)")
_LINE_END: Final = re.compile(r"\r\n?|\n")
_END_PART_BYTES_MAX: Final = 2
"""How much of an end may be here that is not yet one: CRLF, and a CR or an LF is missing."""
_AFTER_TYPE: Final = (b"", b";", b" ", b"\t")
_ACCEPTED: Final = re.compile(rf"(?:\A|,)[ \t]*{TYPE}[ \t]*(?:[,;]|\Z)")
_RETRY_DIGITS_MAX: Final = 15


def is_event_stream(headers: Headers) -> bool:
    """Whether an answer with these fields is a stream of events: by its Content-Type."""
    kind = (headers._marks or headers.marks).get(b"content-type")
    return kind is not None and kind.startswith(b"text/event-stream") and kind[17:18] in _AFTER_TYPE


def idle_limit_s(response: Response, timeouts: Timeouts) -> float:
    """How long the body of an answer may stand still."""
    quiet = not response.ended and is_event_stream(response.headers)
    return timeouts.event_stream_idle_timeout_s if quiet else timeouts.upstream_idle_timeout_s


def sends_events(exchange: Exchange) -> bool:
    """Whether a client is being sent a stream of events. When it closes its side it has left: for long nothing may come
    by which that would show otherwise."""
    answer = exchange.response if exchange.head_sent else None
    return answer is not None and is_event_stream(answer.headers)


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event. `dataclasses.replace(event, data="...")` makes another of it. Raises `ValueError` for what no event
    can be."""

    data: str
    """Its lines are joined by LF."""

    event: str = "message"
    """Its type; what a browser calls "message" where nothing is said."""

    id: str | None = None
    """What the client says in Last-Event-ID when it takes up again; None leaves it as it is, "" makes it forget."""

    retry_ms: int | None = None
    """How long the client is to wait before that."""

    comments: tuple[str, ...] = ()
    """Lines for nobody, that stood among the event's own. Those before it went on by themselves."""

    def __post_init__(self) -> None:
        kind, place = self.event, self.id
        if "\n" in kind or "\r" in kind:
            raise ValueError(f"event is {kind!r}; it can have no CR or LF")
        if place is not None and ("\n" in place or "\r" in place or "\0" in place):
            raise ValueError(f"id is {place!r}; it can have no CR, LF or NUL")
        if self.retry_ms is not None and self.retry_ms < 0:
            raise ValueError(f"retry_ms is {self.retry_ms}; it must be 0 or above")

    def encode(self) -> bytes:
        """The event as it stands in a stream, with the blank line that ends it."""
        lines = [f": {line}" for comment in self.comments for line in _LINE_END.split(comment)]
        if self.event not in ("message", ""):
            lines.append(f"event: {self.event}")
        lines += [f"data: {line}" for line in _LINE_END.split(self.data)]
        return "\n".join(lines).encode() + b"\n" + self.place() + b"\n"

    def place(self) -> bytes:
        """The lines of it that outlive the event: where its client takes up again, and when."""
        place = "" if self.id is None else f"id: {self.id}\n"
        if self.retry_ms is not None:
            place += f"retry: {self.retry_ms}\n"
        return place.encode()


Outcome: TypeAlias = ServerSentEvent | list[ServerSentEvent]
"""What a filter may make of an event."""


class EventStream(Filter):
    """The base of filters that see server-sent events: override `server_sent_event`.

    Who overrides one of the other phases that are here calls that of this class too. Only what origins send is seen,
    not an answer that another filter makes.
    """

    event_bytes_max: int = 1024 * 1024
    """An event, which is kept until it is whole. An answer with a larger one fails, as `upstream_invalid`; it is cut
    where its head has been sent."""

    def server_sent_event(
        self, exchange: Exchange, event: ServerSentEvent
    ) -> Awaitable[Outcome | None] | Outcome | None:
        """An event of an answer. None lets it pass as it came; another event goes on in its place; a list of them
        splits it, and an empty one drops it. `event` itself stands in a list for what came."""
        return None

    def expects_events(self, exchange: Exchange, request: Request) -> bool:
        """Whether the answer to a request may be a stream of events, so that the origin is asked not to compress it:
        where Accept names the type, as that of browsers does. To be overridden where clients do not say so."""
        accept = request.headers.get("accept")
        return accept is not None and _ACCEPTED.search(accept.lower()) is not None

    def upstream_request_filter(self, exchange: Exchange, request: Request) -> None:
        """See `Filter`."""
        if self.expects_events(exchange, request):
            request.headers.set("Accept-Encoding", "identity")

    def upstream_response_filter(self, exchange: Exchange, response: Response) -> None:
        """See `Filter`."""
        others = tuple([reader for reader in exchange.event_streams if reader.owner is not self])
        exchange.event_streams = others  # so without what an attempt before has left
        if not is_event_stream(response.headers) or (response.ended and not response.data):
            return
        coding = (response.headers.get("content-encoding") or "identity").lower()
        if coding != "identity":
            advice = "say in expects_events() that such a request may be answered by events"
            raise FilterError(self.server_sent_event, f"cannot read events in the content coding {coding}; {advice}")
        exchange.event_streams = (*others, EventReader(self, self.event_bytes_max))

    def upstream_response_body_filter(
        self, exchange: Exchange, data: bytes, ended: bool
    ) -> Coroutine[Any, Any, bytes] | None:
        """See `Filter`."""
        for reader in exchange.event_streams:
            if reader.owner is self:
                return self._filtered(exchange, reader, data, ended)
        return None

    async def _filtered(self, exchange: Exchange, reader: EventReader, data: bytes, ended: bool) -> bytes:
        """What becomes of a piece of the stream."""
        written: list[bytes] = []
        for piece in reader.read(data, ended):
            reader.drop_lf = False
            if isinstance(piece, bytes):
                written.append(piece)
                continue
            outcome: object = await outcome_of(self.server_sent_event, exchange, piece.event)
            events = cast("list[object]", outcome) if isinstance(outcome, list) else [outcome]
            if outcome is None or (len(events) == 1 and events[0] is piece.event):
                written.append(piece.raw)
            else:
                written.append(self._instead(piece, events))
                reader.drop_lf = piece.raw.endswith(b"\r")
        if reader.kept:
            reader.drop_lf = False
        return b"".join(written)

    def _instead(self, found: Found, events: list[object]) -> bytes:
        """What goes on in the place of an event."""
        if not events:
            place = found.event.place()
            text = place and place + b"\n"
        else:
            text = b"".join([self._written(found, event) for event in events])
        return text if found.whole else text[:-1]

    def _written(self, found: Found, event: object) -> bytes:
        if event is found.event:
            return found.raw.rstrip(b"\r\n") + b"\n\n"
        if isinstance(event, ServerSentEvent):
            return event.encode()
        what = type(event).__name__
        raise FilterError(self.server_sent_event, f"gave {what}; it returns a ServerSentEvent, a list of them, or None")


# ------------------------------------------------------------------------------------------ reading


@dataclass(slots=True)
class Found:
    """An event, and the bytes that it came in; not `whole` where no blank line ends it."""

    event: ServerSentEvent
    raw: bytes
    whole: bool


class EventReader:
    """Cuts a stream into events and what is between them, for the filter that owns it."""

    __slots__ = ("begun", "drop_lf", "event_bytes_max", "in_comment", "kept", "owner")

    def __init__(self, owner: object, event_bytes_max: int) -> None:
        self.owner = owner
        self.event_bytes_max = event_bytes_max
        self.kept = bytearray()  # of an event that has begun
        self.begun = False  # the stream; a byte order mark is only at its begin
        self.in_comment = False  # the last piece has ended within one
        self.drop_lf = False  # an LF that comes next is the rest of a line that has not gone on

    def read(self, data: bytes, ended: bool) -> list[bytes | Found]:
        """What another piece brings, in its order. Raises `ExchangeError` where an event is too large."""
        kept = self.kept
        pieces: list[bytes | Found] = []
        if self.drop_lf and data:
            data = data.removeprefix(b"\n")
            self.drop_lf = False
        within = self.begun and bool(kept)
        search_from = max(0, len(kept) - _END_PART_BYTES_MAX)
        text: bytes | bytearray = data
        if kept:
            kept += data
            text = kept
        start = 0
        if not self.begun:
            if text != _BYTE_ORDER_MARK and _BYTE_ORDER_MARK.startswith(text) and not ended:
                self.kept = bytearray(text)
                return pieces
            start = self._begin(text, pieces)
        while start < len(text):
            if not within:
                if self.in_comment or text[start] in _NO_FIELD:
                    event_at = self._pass_over(text, start)
                    pieces.append(bytes(text[start:event_at]))
                    start = event_at
                    continue
                search_from = start
            end = _END.search(text, search_from)
            if end is None:
                break
            if end.start() - start > self.event_bytes_max:
                raise self._too_large()
            after = end.end()
            pieces.append(found_in(bytes(text[start:after]), whole=True))
            start = after
            within = False
        if text is kept:
            del kept[:start]
        elif start < len(text):
            kept += text[start:]
        if kept:
            if len(kept) - _END_PART_BYTES_MAX > self.event_bytes_max:
                raise self._too_large()
            if ended:
                pieces.append(found_in(bytes(kept), whole=False))
                kept.clear()
        return pieces

    def _begin(self, text: bytes | bytearray, pieces: list[bytes | Found]) -> int:
        """Where the first line begins."""
        self.begun = True
        if not text.startswith(_BYTE_ORDER_MARK):
            return 0
        pieces.append(_BYTE_ORDER_MARK)
        return len(_BYTE_ORDER_MARK)

    def _pass_over(self, text: bytes | bytearray, start: int) -> int:
        """Where the next event begins, behind comments and blank lines."""
        if self.in_comment:
            rest = _COMMENT.match(text, start)
            assert rest is not None
            start = rest.end()
            if start == len(text):
                return start
        found = _BETWEEN.match(text, start)
        assert found is not None
        self.in_comment = found.lastindex is not None
        return found.end()

    def _too_large(self) -> ExchangeError:
        return ExchangeError("upstream_invalid", f"an event is larger than {self.event_bytes_max} bytes")


def found_in(raw: bytes, *, whole: bool) -> bytes | Found:
    """What lines up to a blank one say: an event, or no more than bytes (section 9.2.6)."""
    data: list[bytes] = []
    kind = b""
    place: str | None = None
    retry_ms: int | None = None
    comments: list[str] = []
    for line in raw.splitlines():
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value
        elif name == b"id":
            if b"\0" not in value:
                place = value.decode("utf-8", "replace")
        elif name == b"retry":
            if value.isdigit() and len(value) <= _RETRY_DIGITS_MAX:
                retry_ms = int(value)
        elif line.startswith(b":"):
            comments.append(value.decode("utf-8", "replace"))
    if not data:
        return raw
    text = b"\n".join(data).decode("utf-8", "replace")
    event = ServerSentEvent(text, kind.decode("utf-8", "replace") or "message", place, retry_ms, tuple(comments))
    return Found(event, raw, whole)
