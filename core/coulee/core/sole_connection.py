"""A connection that carries one message at a time, each way: HTTP/1.1, and what is no HTTP.

Rules:

- A part is handed straight to the task that waits for it. Nothing is queued here: the codec keeps the bytes.
- Subclasses say what bytes mean when no stream wants them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coulee.core.codec import ProtocolError
from coulee.core.connection import Connection
from coulee.core.errors import ExchangeError
from coulee.core.parts import Part

if TYPE_CHECKING:
    from coulee.core.codec import Codec
    from coulee.core.config import Config
    from coulee.core.machine import KernelMachine
    from coulee.core.stream import SoleStream


class SoleConnection(Connection):
    """The base of those to clients and to origins."""

    __slots__ = ("codec", "stream", "unread")

    def __init__(self, machine: KernelMachine, number: int, codec: Codec, config: Config) -> None:
        super().__init__(machine, number, config)
        self.codec = codec
        self.stream: SoleStream | None = None
        self.unread = False  # whether the codec may hold a part that nobody has asked for

    # -- what subclasses say

    def wanted_by_nobody(self) -> None:
        """Bytes were fed to the codec, and no stream waits for a part."""
        raise NotImplementedError

    def ended_by_peer(self) -> None:
        """The peer has half-closed, and no stream waits for a part."""
        raise NotImplementedError

    def fault(self, error: ProtocolError) -> ExchangeError:
        """What a broken message on this connection means for the exchange."""
        raise NotImplementedError

    # -- reading

    def received(self, data: bytes) -> None:
        """Bytes from the peer, or `b""` at its end."""
        codec = self.codec
        stream = self.stream
        self.unread = True
        if not data:
            codec.feed_eof()
            if stream is not None and stream.reader is not None:
                stream.offer()
            else:
                self.ended_by_peer()
            return
        codec.feed(data)
        if stream is not None and stream.reader is not None:
            stream.offer()
        else:
            self.wanted_by_nobody()
        if codec.buffered > self.limits.buffer_high_bytes:
            self.hold()

    def read_on(self) -> None:
        """We hold, and parts were taken: read again where that has made room."""
        if self.codec.buffered <= self.limits.buffer_low_bytes:
            self.receive()

    def pull(self) -> Part | None:
        """The next part, or None when it has not arrived. Raises `ExchangeError`."""
        try:
            pulled = self.codec.next_part()
        except ProtocolError as error:
            raise self.fault(error) from error
        if self.held:
            self.read_on()
        if isinstance(pulled, tuple):
            return pulled[1]
        self.unread = False
        return None

    def has_room(self) -> None:
        if self.stream is not None:
            self.stream.room()
