"""A connection of one's own, for what is no HTTP/1 request: a health check, a question to a name server.

    async with dial(peer) as line:
        await line.send(b"PING\\r\\n")
        answer = await line.receive()

It is no part of the pool: it is opened for the block and closed behind it.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from coulee.core.codec import ProtocolError
from coulee.core.errors import ExchangeError
from coulee.core.kernel import current_kernel
from coulee.core.machine import KernelMachine
from coulee.core.parts import Data
from coulee.core.path import establish
from coulee.core.peer import Peer
from coulee.core.raw import RawCodec
from coulee.core.seam import ErrorKind
from coulee.core.sole_connection import SoleConnection
from coulee.core.stream import SoleStream, Stream


class _Wire(SoleConnection):
    """The connection of a line. All that happens to it is for its stream, whoever reads at the moment."""

    __slots__ = ("name",)

    def __init__(self, machine: KernelMachine, name: str) -> None:
        super().__init__(machine, machine.number(), RawCodec(), machine.config)
        self.name = name

    def wanted_by_nobody(self) -> None:
        """The codec keeps it."""

    def ended_by_peer(self) -> None:
        """The codec tells it."""

    def gone(self, kind: ErrorKind | None, detail: str) -> None:
        if self.stream is not None:  # else it was given up before it stood
            self.stream.fail(ExchangeError("upstream_reset", detail or "the connection was closed"))

    def timed_out(self, reading: bool) -> None:
        assert self.stream is not None
        if self.close_wanted:
            self.close(abort=True)  # its block was left with bytes on their way that nobody takes
            return
        doing = "sent" if reading else "took"
        self.stream.fail(ExchangeError("upstream_timeout", f"{self.name} {doing} nothing in time"))

    def fault(self, error: ProtocolError) -> ExchangeError:
        raise AssertionError("a codec that frames nothing finds no fault")


class Line:
    """What `dial` gives: bytes to and from a peer, in order."""

    __slots__ = ("_limit_s", "_peer", "_stream", "_wire", "ended")

    def __init__(self, peer: Peer, connect_timeout_s: float) -> None:
        self._peer = peer
        self._limit_s = connect_timeout_s
        self._wire: _Wire | None = None
        self._stream: Stream | None = None
        self.ended = False
        """Whether the peer has sent its last byte."""

    async def __aenter__(self) -> Self:
        wire = self._wire = _Wire(current_kernel.get().machine, self._peer.name)
        try:
            await establish(wire, self._peer, self._limit_s)
        except BaseException:
            wire.close(abort=True)
            raise
        self._stream = SoleStream(wire, 1, wire.timeouts.answer_timeout_s)
        wire.receive()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._wire is not None
        self._wire.close(abort=error is not None)

    async def send(self, data: bytes) -> None:
        """Send bytes, once there is room for them. Raises `ExchangeError` where nobody takes them."""
        assert self._stream is not None, "a line is open inside its block"
        await self._stream.send(Data(data))

    async def receive(self) -> bytes:
        """The next bytes, as they come; b"" once the peer has sent its last. Raises `ExchangeError` where the
        connection breaks, or where nothing comes for `answer_timeout_s`; for a shorter wait use `deadline`."""
        assert self._stream is not None, "a line is open inside its block"
        if self.ended:
            return b""
        part = await self._stream.receive()
        assert isinstance(part, Data)
        self.ended = part.ended
        return part.data


def dial(peer: Peer, connect_timeout_s: float = 3.0) -> Line:
    """Open a connection for a block. Raises `ExchangeError` on entering, as `upstream_refused`, where there is none."""
    return Line(peer, connect_timeout_s)
