"""A stream of HTTP/2 that is no HTTP any more, behind an extended CONNECT (RFC 8441)."""

from __future__ import annotations

from collections.abc import Callable

from coulee.backends.behind import Behind
from coulee.backends.far_end import FarEnd
from coulee.backends.http2_speech import CANCEL, Speech
from coulee.core.seam import ErrorKind


class StreamLine:
    """As `Line` has it; `on_over` is called when it is over. Its resets are of the kind CANCEL (section 5)."""

    def __init__(self, far: FarEnd, speech: Speech, stream: int, behind: Behind, on_over: Callable[[], None]) -> None:
        self._far = far
        self._speech = speech
        self._stream = stream
        self._behind = behind
        self._on_over = on_over
        self._heard: list[bytes] | None = None  # while nothing is taken
        self._said_all = False
        self._heard_all = False
        self._over = False

    # -- as `Line`

    def write(self, data: bytes) -> None:
        """See `Line`."""
        if not (self._over or self._said_all):
            self._speech.body(self._stream, data)

    def write_eof(self) -> None:
        """See `Line`."""
        if not (self._over or self._said_all):
            self._said_all = True
            self._speech.end(self._stream, sent=self._finish)

    def reset(self) -> None:
        """See `Line`."""
        if not self._over:
            self._speech.reset(self._stream, CANCEL)
            self.lost(None)

    close = write_eof  # a stream is over when both sides have ended it

    def pause(self) -> None:
        """See `Line`."""
        if self._heard is None and not self._over:
            self._heard = []
            self._speech.pause(self._stream)

    def resume(self) -> None:
        """See `Line`."""
        heard, self._heard = self._heard, None
        for data in heard or ():
            self._behind.received(data)
        self._speech.resume(self._stream)
        self._finish()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        """See `Line`."""
        self._far.call_later(delay_s, call)

    # -- what comes

    def hear(self, data: bytes) -> None:
        """Bytes of it, or `b""` for their end."""
        self._heard_all = self._heard_all or not data
        if self._heard is not None:
            self._heard.append(data)
        else:
            self._behind.received(data)
            self._finish()

    def lost(self, error: ErrorKind | None) -> None:
        """It is over before its time, or by our own hand."""
        if not self._over:
            self._over = True
            self._behind.closed(error)
            self._on_over()

    def _finish(self) -> None:
        if self._heard_all and self._heard is None and self._speech.is_said(self._stream) and self._said_all:
            self.lost(None)
