"""One connection, as backends implement it and the driver uses it."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from coulee.backends.addresses import describe
from coulee.backends.layer import OWN_BYTES_MAX, TRUNCATED, Layer, LayerError, Nested
from coulee.core.seam import (
    CONNECT_OPTIONS,
    Accepted,
    Address,
    Bytes,
    Closed,
    Connected,
    ConnectOptions,
    ErrorKind,
    Received,
    Secured,
    Sent,
)

if TYPE_CHECKING:
    from coulee.backends.driver import Driver

NEVER: Final = sys.maxsize  # a turn that does not come


class Wire(ABC):
    """One connection, from the `Connect` that asks for it, or from its being accepted, to its `Closed`.

    A backend subclasses it, so that what the loop calls and what the driver calls is one object with no layer between.
    """

    __slots__ = (
        "aborted",
        "barred",
        "blocked",
        "closing",
        "conn",
        "driver",
        "early",
        "early_end",
        "ended",
        "failed",
        "gone",
        "half_closed",
        "is_open",
        "layer",
        "options",
        "own_bytes",
        "place",
        "reading",
        "securing",
        "was_accepted",
    )

    def __init__(self, driver: Driver, conn: int, was_accepted: bool) -> None:
        self.driver = driver
        self.conn = conn
        self.was_accepted = was_accepted
        self.is_open = False
        self.reading = False  # a Receive stands
        self.early: bytes | None = None  # the one read that came while held
        self.early_end = False  # and whether the end of the stream did
        self.ended = False  # the peer's end of stream has been heard
        self.barred = NEVER  # the last turn in which no Send may come: that of the last Send, or for good
        self.blocked = False
        self.half_closed = False  # we have sent our end of stream
        self.closing = False  # the machine has asked for the end
        self.aborted = False  # and for a reset
        self.failed = False  # an operation could not be carried out, and the driver has said `Closed` itself
        self.gone = False  # `Closed` is said
        self.place: Address = ""  # what it was to be connected to
        self.options: ConnectOptions = CONNECT_OPTIONS  # and how
        self.layer: Layer | None = None  # its TLS
        self.securing = False  # whose handshake goes on
        self.own_bytes = 0  # what TLS has said by itself since nothing is taken any more

    # -- what a backend implements; an OSError from any of these ends the connection

    @abstractmethod
    def connect(self, address: Address) -> None:
        """Begin to connect, with `options`. Answered by `opened` or `lost`. Resolves names, and tries every address of
        one."""

    @abstractmethod
    def write(self, data: Bytes) -> bool:
        """Write. True: taken whole. False: the backend keeps the rest, and calls `sent` when that is taken.

        May be called again when it has said False; what it then gets joins what it keeps.
        """

    @abstractmethod
    def write_eof(self) -> None:
        """Half-close behind everything written, also behind what is kept."""

    @abstractmethod
    def pause(self) -> None:
        """Deliver nothing more, or at most one read that is on its way. May be called when paused."""

    @abstractmethod
    def resume(self) -> None:
        """Deliver what comes, but not from within this call. A new connection delivers nothing before this."""

    @abstractmethod
    def close(self, abort: bool) -> None:
        """End the connection, or the attempt at one: behind what was written, or with a reset. Answered by `lost`.

        May be called a second time, with `abort`, where the first call was without.
        """

    # -- what a backend calls

    def opened(self, peer: Address, local: Address) -> None:
        """The connection stands."""
        assert not self.is_open, f"backend, law 1: {self.conn} was opened twice"
        assert not self.gone, f"backend, law 2: opened() on {self.conn} after lost()"
        self.is_open = True
        if self.closing:
            return
        self.barred = 0
        kind = Accepted if self.was_accepted else Connected
        self.driver.post(kind(self.conn, peer, local))

    def received(self, data: bytes) -> None:
        """Bytes came, or `b""` for the end of the stream."""
        if self.layer is not None:
            self._received_through(self.layer, data)
        else:
            self.deliver(data)

    def deliver(self, data: bytes) -> None:
        """Bytes for the machine, or the end of its stream."""
        if self.reading and data:
            self.driver.post(Received(self.conn, data))
        elif not self.failed:
            self._received_with_care(data)

    def _received_with_care(self, data: bytes) -> None:
        """The end of the stream, or a read while the connection is held or being closed."""
        assert not self.gone, f"backend, law 2: received() on {self.conn} after lost()"
        assert not self.ended, f"backend, law 1: received() on {self.conn} after the end of the stream"
        assert self.is_open, f"backend, law 1: received() on {self.conn} before opened()"
        if not data:
            self.ended = True
        if self.closing:
            return
        if self.reading:
            self.reading = self.driver.is_running  # what has to wait for its turn is read until then
            self.driver.post(Received(self.conn, data))
        else:
            second = data and self.early is not None and self.layer is None
            assert not second, f"backend, law 8: a second read on {self.conn}, which is held"
            self.keep(data)
            self.pause()

    def keep(self, data: bytes) -> None:
        """Until the next Receive."""
        if data:
            self.early = data if self.early is None else self.early + data
        else:
            self.early_end = True

    def sent(self) -> None:
        """What `write` did not take has been taken."""
        if self.failed:
            return
        assert self.blocked, f"backend, law 1: sent() on {self.conn}, which is not blocked"
        self.blocked = False
        self.own_bytes = 0
        if not self.closing:
            if not (self.half_closed or self.securing):
                self.barred = 0
            self.driver.post(Sent(self.conn))

    def lost(self, kind: ErrorKind | None, detail: str = "") -> None:
        """The connection, or the attempt at one, has ended. The last call on this wire."""
        if self.failed:
            return
        assert not self.gone, f"backend, law 1: {self.conn} was lost twice"
        if self.aborted:
            kind, detail = None, ""
        self._part(kind, detail)

    def fail(self, error: OSError, *, abort: bool = True) -> None:
        """An operation could not be carried out: say so at once, and leave the backend to tidy up by itself."""
        if not self.gone:
            self.failed = True
            self._part(*((None, "") if self.aborted else describe(error)))
            with suppress(OSError):  # it is said; what else is wrong with the socket changes nothing
                self.close(abort)

    # -- TLS

    def secure(self, layer: Layer, early: bytes) -> None:
        """Begin a handshake, with what has come of it already."""
        if self.early is not None:
            early += self.early
            self.early = None
        self.securing = self.reading = True
        self.barred = NEVER
        try:
            if self.early_end:
                raise LayerError("reset", "the connection ended before TLS began")
            self.resume()
            if self.layer is None:
                self.layer = layer
                self._take_in(layer, layer.receive, early)
            else:
                self.layer = nested = Nested(self.layer, layer)
                self._take_in(nested, nested.begin, early)
        except OSError as error:
            self.fail(error)

    def _received_through(self, layer: Layer, data: bytes) -> None:
        if self.failed or self.ended:
            return  # behind the last word of TLS nothing has a meaning
        if self.closing:
            self.ended = not data
        elif data:
            self._take_in(layer, layer.receive, data)
        else:
            self.fail(LayerError("reset" if self.securing else "truncated", TRUNCATED))

    def _take_in(self, layer: Layer, receive: Callable[[bytes], bytes], data: bytes) -> None:
        """What has come, and what TLS itself has to say to it."""
        try:
            plain = receive(data)
        except LayerError as error:
            if error.plain and not self.securing:
                self.deliver(error.plain)
            if not (self.gone or self.closing):
                self.fail(error, abort=not self._alert(layer))
            return
        if layer.to_send and not self._say(layer):
            return
        if self.securing:
            if layer.security is not None and not self.closing:
                self._stands(layer, plain)
            return
        if plain:
            self.deliver(plain)
        if layer.ended and not (self.gone or self.closing):
            self.deliver(b"")

    def _alert(self, layer: Layer) -> bool:
        """Send an alert, where there is one; False where the connection cannot be closed in order behind it, because
        somebody has to wait until the peer has taken it."""
        if self.blocked or self.half_closed or not layer.to_send:
            return not self.blocked
        try:
            return self.write(layer.to_send)
        except OSError:
            return False

    def take_leave(self, layer: Layer) -> None:
        """Say the last word of TLS, before the connection is closed."""
        farewell = layer.farewell()
        if farewell and not self.write(farewell):
            self.blocked = True  # the machine need not know

    def _stands(self, layer: Layer, plain: bytes) -> None:
        """The handshake is done. It counts as held: what has come with it is kept. The backend is not told to pause
        before more comes, for the machine is about to read, and each change costs asyncio 12 us."""
        assert layer.security is not None
        self.securing = self.reading = False
        if plain:
            self.keep(plain)
        self.early_end = self.ended = layer.ended
        if not (self.blocked or self.half_closed):
            self.barred = 0
        self.driver.post(Secured(self.conn, layer.security))

    def _say(self, layer: Layer) -> bool:
        """Send what TLS has to say by itself; False where that was the end."""
        data, layer.to_send = layer.to_send, b""
        if self.half_closed:
            return True
        try:
            taken = self.write(data)
        except OSError as error:
            self.fail(error)
            return False
        if not taken:
            self.own_bytes += len(data)
            if self.own_bytes > OWN_BYTES_MAX:
                self.fail(LayerError("aborted", f"more than {OWN_BYTES_MAX} bytes of TLS itself that nobody takes"))
                return False
            if not self.blocked:
                self.driver.tell_blocked(self)
        return not self.gone

    def _part(self, kind: ErrorKind | None, detail: str) -> None:
        self.gone = True
        self.reading = False
        driver = self.driver
        del driver.wires[self.conn]
        driver.last_word(Closed(self.conn, kind, detail), self.closing)
