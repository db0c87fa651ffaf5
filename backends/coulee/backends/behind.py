"""What goes on behind a 101: the line that is there then, and who speaks on it, whatever they speak.

An end of HTTP hands over to its own `Behind` and only passes on what comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from coulee.core.seam import ErrorKind


class Line(Protocol):
    """A connection, as `FarEnd` has it, or a stream of one."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def write_eof(self) -> None:
        """Half-close behind them."""

    def reset(self) -> None:
        """Give it up, with whatever is on its way."""

    def close(self) -> None:
        """Close it behind what was written."""

    def pause(self) -> None:
        """Take nothing more."""

    def resume(self) -> None:
        """Take what comes."""

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Have the script go on in `delay_s` seconds."""


class Behind(Protocol):
    """Who goes on, on either side."""

    @property
    def early(self) -> bytes:
        """What goes out together with the 101; or, of a hasty client, right behind its request."""
        ...

    def begin(self, line: Line) -> None:
        """The line is open, and what is early was sent."""

    def received(self, data: bytes) -> None:
        """Bytes came, or `b""` for the end of what the other side says."""

    def closed(self, error: ErrorKind | None) -> None:
        """The line is no more: in order, by our own hand, or by an error."""
