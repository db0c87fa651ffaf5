"""Streams: one message each way, as the exchange, the filters and the pool see it. They know no version of HTTP.

`SoleStream` is that of a connection that carries one at a time; `Http2Stream` has others beside it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from math import inf
from types import coroutine
from typing import TYPE_CHECKING, Any

from coulee.core.codec import ProtocolError
from coulee.core.errors import ExchangeError
from coulee.core.kernel import PARKED, Task, _Parked
from coulee.core.parts import Data, Part

if TYPE_CHECKING:
    from coulee.core.connection import Connection
    from coulee.core.sole_connection import SoleConnection


class Stream:
    """What both kinds have in common: who waits, for how long, and what became of it."""

    __slots__ = ("connection", "error", "number", "patience_s", "reader", "writer")

    def __init__(self, connection: Connection, number: int, patience_s: float) -> None:
        self.connection = connection
        self.number = number
        self.patience_s = patience_s  # the longest wait for one part
        self.reader: Task | None = None
        self.writer: Task | None = None
        self.error: ExchangeError | None = None  # what became of it

    # -- what each kind says

    def receive(self) -> Awaitable[Part]:
        """The next part; to be awaited. Raises `ExchangeError` where there will be none."""
        raise NotImplementedError

    def take(self) -> Part | None:
        """The next part, if it is here. Raises `ExchangeError`."""
        raise NotImplementedError

    @property
    def blocked(self) -> bool:
        """Whether there may be no room for another part, so that `wait_for_room` has to say when there is."""
        raise NotImplementedError

    def wait_for_room(self) -> Awaitable[None]:
        """Wait until a part can be sent, or never will be."""
        raise NotImplementedError

    def write(self, part: Part) -> None:
        """Send a part now. Raises `ExchangeError` where nobody will get it, and where it does not fit what was written
        before: both codecs check what they read, so it was a filter that changed a length or left a body unfinished."""
        raise NotImplementedError

    def pass_on(self, data: bytes) -> None:
        """Of what is no HTTP any more: send bytes now. Raises `ExchangeError` where nobody will get them."""
        self.write(Data(data))

    def wait_until_out(self) -> Awaitable[None]:
        """Of what is no HTTP any more: wait until nothing of it would be lost if it was given up. Raises
        `ExchangeError` where it never will be out."""
        raise NotImplementedError

    def limit(self, seconds: float) -> None:
        """From now on, `seconds` for the part that is awaited."""
        raise NotImplementedError

    def send_eof(self) -> None:
        """Of what is no HTTP any more: we send no more."""
        raise NotImplementedError

    def end(self) -> None:
        """Of what is no HTTP any more: both directions have ended."""
        raise NotImplementedError

    def tell_of_loss(self, tell: Callable[[ExchangeError], None]) -> None:
        """Of a stream to an origin: whom to tell that it is of no more use, when nobody reads from it any more."""
        raise NotImplementedError

    @property
    def expects_continue(self) -> bool:
        """Whether the peer waits for a 100 before it sends its body (RFC 9110 section 10.1.1)."""
        raise NotImplementedError

    def close_after(self) -> None:
        """Where streams follow one another, let this one be the connection's last, and say so in the head that is still
        to be written."""
        raise NotImplementedError

    def be_patient(self, idle_s: float) -> None:
        """Of a request whose body may stand still for so long."""

    # -- what is the same

    async def send(self, part: Part) -> None:
        """Send a part, once there is room for it. Raises `ExchangeError` where it cannot be."""
        await self.wait_for_room()
        self.write(part)

    def expect_within(self, seconds: float) -> None:
        """Change the longest wait for a part, also of the wait that is going on."""
        self.patience_s = seconds
        if self.reader is not None:
            self.limit(seconds)

    def give_up(self, error: ExchangeError) -> None:
        """Whoever waits for a part has waited long enough."""
        reader = self.reader
        if reader is not None:
            self.reader = None
            self.connection.machine.kernel.wake(reader, None, error)

    def room(self) -> None:
        """More can be taken."""
        writer = self.writer
        if writer is not None:
            self.writer = None
            self.connection.machine.kernel.wake(writer, None)

    def fail(self, error: ExchangeError) -> None:
        """It is of no more use; whoever waits hears of it, after what it still has to read."""
        if self.error is None:
            self.error = error
        self.give_up(error)
        writer = self.writer
        if writer is not None:
            self.writer = None
            self.connection.machine.kernel.wake(writer, None, error)


class SoleStream(Stream):
    """The stream of a connection that has no other."""

    __slots__ = ()

    connection: SoleConnection

    def __init__(self, connection: SoleConnection, number: int, patience_s: float) -> None:
        super().__init__(connection, number, patience_s)
        connection.stream = self

    @coroutine
    def receive(self) -> Generator[_Parked, Any, Part]:
        """See `Stream`."""
        connection = self.connection
        if connection.unread:
            part = connection.pull()
            if part is not None:
                return part
        if self.error is not None:
            raise self.error
        self.reader = connection.machine.kernel.running
        connection.limit_read(self.patience_s)
        try:
            received: Part = yield PARKED
        finally:
            self.reader = None
            connection.read_by = inf
        return received

    def take(self) -> Part | None:
        """See `Stream`."""
        return self.connection.pull() if self.connection.unread else None

    @property
    def blocked(self) -> bool:
        return self.connection.blocked

    @coroutine
    def wait_for_room(self) -> Generator[_Parked, Any, None]:
        """See `Stream`."""
        connection = self.connection
        high = connection.limits.buffer_high_bytes
        while connection.blocked and connection.sending + connection.out_bytes >= high and self.error is None:
            self.writer = connection.machine.kernel.running
            try:
                yield PARKED
            finally:
                self.writer = None

    def write(self, part: Part) -> None:
        """See `Stream`."""
        if self.error is not None:
            raise self.error
        connection = self.connection
        try:
            data = connection.codec.write(self.number, part)
        except ProtocolError as error:
            raise ExchangeError("filter_error", error.detail) from error
        connection.push(data)

    def pass_on(self, data: bytes) -> None:
        """See `Stream`. A codec would add nothing to them, which costs more than all the rest of this."""
        if self.error is not None:
            raise self.error
        self.connection.push(data)

    async def wait_until_out(self) -> None:
        """See `Stream`: a connection is closed behind what is queued."""

    def limit(self, seconds: float) -> None:
        """See `Stream`."""
        self.connection.limit_read(seconds)

    def send_eof(self) -> None:
        """See `Stream`."""
        self.connection.send_eof()

    def end(self) -> None:
        """See `Stream`."""
        self.connection.close()

    @property
    def expects_continue(self) -> bool:
        return self.connection.codec.expects_continue

    def close_after(self) -> None:
        """See `Stream`."""
        self.connection.codec.close_after()

    def offer(self) -> None:
        """New bytes are there and a task waits: hand it its part, if that is whole."""
        reader = self.reader
        assert reader is not None
        kernel = self.connection.machine.kernel
        try:
            part = self.connection.pull()
        except ExchangeError as error:
            self.reader = None
            kernel.step(reader, None, error)
            return
        if part is not None:
            self.reader = None
            kernel.step(reader, part, None)
