"""Codecs that frame nothing: `RawCodec` passes bytes on, `SINK` forgets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from coulee.core.codec import NEED_DATA, Pulled
from coulee.core.parts import Data, Part
from coulee.core.seam import Bytes

if TYPE_CHECKING:
    from coulee.core.codec import Codec


class RawCodec:
    """Bytes as `Data` parts, as they come; the end of the stream is the end of the body."""

    __slots__ = ("_data", "_eof", "buffered", "secure")

    reusable = False
    idle = False
    expects_continue = False

    def __init__(self) -> None:
        self.secure = False
        self._data: list[bytes] = []
        self._eof = False
        self.buffered = 0

    def feed(self, data: bytes) -> None:
        """See `Codec`."""
        self._data.append(data)
        self.buffered += len(data)

    def feed_eof(self) -> None:
        """See `Codec`."""
        self._eof = True

    def next_part(self) -> Pulled:
        """Whatever is there."""
        if not self._data and not self._eof:
            return NEED_DATA
        data = b"".join(self._data)
        ended, self._eof = self._eof, False
        self._data.clear()
        self.buffered = 0
        return 1, Data(data, ended)

    def write(self, stream: int, part: Part) -> Bytes:
        """The bytes of a `Data` part."""
        assert isinstance(part, Data)
        return part.data

    def close_after(self) -> None:
        """A tunnel has one exchange anyway."""

    def consumed(self, stream: int, count: int) -> None:
        """There is no window."""


class _Sink:
    """The codec of a connection of which nothing more is read."""

    buffered = 0

    def feed(self, data: bytes) -> None:
        """Forget it."""

    def feed_eof(self) -> None:
        """It is heard by the connection."""


SINK: Final = cast("Codec", _Sink())
