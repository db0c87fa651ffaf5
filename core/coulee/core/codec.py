"""The codec contract: bytes to parts and back, for one connection.

A codec knows one protocol version and one role, and nothing of connections, clocks or exchanges. Its rules:

- Pull: `feed` only stores; `next_part` gives one part at a time, because handling a part can change what the next may
  be.
- What it raises is `ProtocolError`, and only from `next_part` (the peer's fault) or `write` (the fault of whatever
  message we were told to pass on, such as a body shorter than its declared length).
- It never passes on framing that it received. `write` frames by `length` and `ended` of the part it is given.
- A body whose end is missing is an error, never an end (RFC 9112 section 8).
"""

from __future__ import annotations

from typing import Final, Literal, Protocol, TypeAlias

from coulee.core.parts import Part
from coulee.core.seam import Bytes


class NeedData:
    """More bytes are needed for the next part."""

    __slots__ = ()


class Paused:
    """Bytes may be there, but the next message waits until this exchange is over on our side too."""

    __slots__ = ()


NEED_DATA: Final = NeedData()
PAUSED: Final = Paused()

Role: TypeAlias = Literal["server", "client"]
"""Ours: a server reads requests and writes answers."""

Pulled: TypeAlias = tuple[int, Part] | NeedData | Paused


class ProtocolError(Exception):
    """A message that breaks the protocol. `status` is what a server answers to it; `reason` is from
    `errors.REASONS`."""

    body = b""  # what came of the body before the fault, in the same read as its head

    def __init__(self, detail: str, status: int = 400, reason: str = "bad_request") -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.reason = reason


PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client of HTTP/2 begins with (RFC 9113 section 3.4). It was made so that no server of HTTP/1 takes it for
more than one broken request."""


class Http2Begins(ProtocolError):
    """What came to a codec of HTTP/1 is no broken request, but HTTP/2: `data` is all of it so far."""

    def __init__(self, data: bytes) -> None:
        super().__init__("HTTP/2 on a connection of HTTP/1.1", 505, "version_not_supported")
        self.data = data


def look_for_http2(data: bytes) -> bool:
    """The first bytes of a connection: False where they are no HTTP/2, True where that is not known yet. Raises
    `Http2Begins`."""
    if data.startswith(PREFACE):
        raise Http2Begins(data)
    return PREFACE.startswith(data)


class Codec(Protocol):
    """Bytes to parts and back. HTTP/1 has one stream at a time, and calls it 1, 2, 3 ... like any other."""

    secure: bool
    """Whether its bytes come by TLS; set by whoever knows."""

    @property
    def buffered(self) -> int:
        """Bytes fed and not yet given out as parts."""
        ...

    @property
    def reusable(self) -> bool:
        """Whether, as far as is known now, this connection will carry another exchange after the present one."""
        ...

    @property
    def idle(self) -> bool:
        """Whether we are between two exchanges, with nothing of the next one read."""
        ...

    @property
    def expects_continue(self) -> bool:
        """Whether the peer waits for a 100 before it sends its body (RFC 9110 section 10.1.1)."""
        ...

    def feed(self, data: bytes) -> None:
        """Take in bytes from the peer."""
        ...

    def feed_eof(self) -> None:
        """The peer will send no more."""
        ...

    def next_part(self) -> Pulled:
        """The next part with the number of its stream, or why there is none. Raises `ProtocolError`."""
        ...

    def write(self, stream: int, part: Part) -> Bytes:
        """The bytes of a part. Raises `ProtocolError` where the part does not fit what was written before it."""
        ...

    def close_after(self) -> None:
        """Make the present exchange the connection's last, and say so in the head that is still to be written."""
        ...

    def consumed(self, stream: int, count: int) -> None:
        """The other side has taken `count` bytes of a body: a flow-control window, where there is one, may open
        again."""
        ...
