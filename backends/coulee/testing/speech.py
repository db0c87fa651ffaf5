"""What the ends of a test say and hear, whatever version of HTTP they speak: parts, each of a stream.

In HTTP/1.1 the streams of a connection come one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from coulee.core.headers import Headers
from coulee.core.parts import Part, Request

NOT_ANSWERED = "the request before is not answered yet"


class NotHttpError(Exception):
    """What came cannot be read."""


@dataclass(slots=True)
class Gone:
    """In place of a part: the other side has ended the stream before its time."""

    why: str


Heard: TypeAlias = tuple[int, Part | Gone]
"""By its stream. A message ends in `Trailers`, if only in empty ones."""


class Speech(Protocol):
    """One end of a connection. A head says by `ended` whether its `data` is all of its body."""

    @property
    def spent(self) -> bool:
        """Whether the connection is good for no other request."""
        ...

    def ask(self, request: Request) -> int:
        """Send the head of a request, on the stream that is returned. One with `upgrade` asks for what is no HTTP: if
        that is granted, all behind the answer is `Data`, both ways."""
        ...

    def say(self, stream: int, part: Part) -> None:
        """Send a part of a message. To a stream that the other side has ended there is nothing to say."""
        ...

    def hear(self, data: bytes) -> Iterator[Heard]:
        """What came, `b""` for the end. Raises `NotHttpError`, behind what could be read."""
        ...

    def taken(self) -> bytes:
        """What is to be sent, once."""
        ...

    def owes(self, stream: int) -> bool:
        """Whether this end has not said all of its message."""
        ...

    def retire(self) -> None:
        """Say with the next answer that it is the last."""
        ...

    def said_raw(self) -> None:
        """Something was sent that is not from here."""
        ...

    def granted(self) -> Iterator[Heard]:
        """An upgrade was granted: what came too early for that."""
        ...

    def gives_up(self, stream: int) -> bool:
        """Reset a stream. False where that is to reset the connection."""
        ...

    def ends(self, stream: int) -> bool:
        """Say that nothing follows on a stream. False where that is to half-close the connection."""
        ...


def headers_of(pairs: Any) -> Headers:
    """Fields as h11 and h2 have them."""
    return Headers.from_block(b"".join([b"\r\n%s: %s" % (name, value) for name, value in pairs]))
