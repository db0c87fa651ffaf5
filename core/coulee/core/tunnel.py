"""A tunnel: bytes in on one connection, the same bytes out on another, and nothing else.

The smallest machine on the kernel, and so the place to see how one is written: a connection class that says what its
events mean, and a coroutine per accepted connection. Half-closes and resets carry over.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from random import Random

from coulee.core.codec import ProtocolError
from coulee.core.config import Config
from coulee.core.connection import Connection, Stream
from coulee.core.errors import ExchangeError
from coulee.core.kernel import Cancelled, Task, nursery
from coulee.core.listener import ListenAt, as_listener
from coulee.core.machine import KernelMachine
from coulee.core.parts import Data
from coulee.core.raw import RawCodec
from coulee.core.seam import Accepted, Address, Close, Closed, ErrorKind, Listen, Listening


class _End(Connection):
    """One end of a tunnel."""

    __slots__ = ("relay",)

    def __init__(self, tunnel: Tunnel, number: int) -> None:
        super().__init__(tunnel, number, RawCodec(), tunnel.config)
        self.relay: Task | None = None
        Stream(self, 1, inf)

    def wanted_by_nobody(self) -> None:
        """The codec keeps them for the pump."""

    def ended_by_peer(self) -> None:
        """The codec tells it to the pump."""

    def gone(self, kind: ErrorKind | None, detail: str) -> None:
        assert self.stream is not None
        self.stream.fail(ExchangeError("upstream_reset", detail))
        if self.relay is not None and kind is not None:
            self.relay.cancel()

    def timed_out(self, reading: bool) -> None:
        assert self.relay is not None
        self.relay.cancel()
        self.close(abort=True)  # also where the relay is over, and only the last bytes are left

    def fault(self, error: ProtocolError) -> ExchangeError:
        raise AssertionError("a codec that frames nothing finds no fault")


class Tunnel(KernelMachine):
    """Relays every accepted connection to one address."""

    def __init__(
        self,
        to: Address,
        config: Config | None = None,
        *,
        rng: Random | None = None,
        wall_clock_offset_s: float = 0.0,
        listen: Sequence[ListenAt] = (),
    ) -> None:
        super().__init__(rng or Random(0), wall_clock_offset_s, config)
        self.to = to
        self.listen_at = [as_listener(where) for where in listen]
        self.relays: dict[Task, None] = {}

    def fresh(self, *, rng: Random, wall_clock_offset_s: float = 0.0, listen: Sequence[ListenAt] = ()) -> Tunnel:
        """See `seam.Machine`."""
        return Tunnel(self.to, self.config, rng=rng, wall_clock_offset_s=wall_clock_offset_s, listen=listen)

    def start(self) -> None:
        for where in self.listen_at:
            listener = self.number()
            self.listeners[listener] = where.address
            self.operations.append(Listen(listener, where.address, where.options))

    def listening(self, completion: Listening) -> None:
        self.ask_to_accept(completion.listener)

    def listener_closed(self, address: Address, completion: Closed) -> None:
        """Nothing to do."""

    def accepted(self, completion: Accepted, listener: int) -> None:
        down = _End(self, completion.conn)
        if self.draining:
            down.close(abort=True)
            return
        self.ask_to_accept(listener)
        task = Task(self.kernel, self._relay(down), self._relayed)
        down.relay = task
        self.relays[task] = None
        self.kernel.wake(task, None)

    def drain(self, grace_s: float) -> None:
        """A tunnel cannot know where its bytes may end: it is cut at once."""
        for listener in list(self.listeners):
            self.operations.append(Close(listener))
        for task in list(self.relays):
            task.cancel()

    def _relayed(self, task: Task) -> None:
        self.relays.pop(task, None)

    async def _relay(self, down: _End) -> None:
        up = _End(self, self.number())
        up.relay = down.relay
        try:
            down.receive()  # its leaving is heard while we connect
            await up.connect(self.to, self.config.timeouts.connect_timeout_s)
            up.receive()
            with nursery() as pumps:
                pumps.start(_pump, down, up)
                pumps.start(_pump, up, down)
                await pumps.join()
        except (ExchangeError, Cancelled):
            down.close(abort=True)
            up.close(abort=True)
        else:
            down.close()
            up.close()


async def _pump(source: _End, sink: _End) -> None:
    """Move bytes one way, to their end."""
    assert source.stream is not None
    assert sink.stream is not None
    ended = False
    while not ended:
        part = await source.stream.receive()
        assert isinstance(part, Data)
        if part.data:
            await sink.stream.send(part)
        ended = part.ended
    sink.send_eof()
