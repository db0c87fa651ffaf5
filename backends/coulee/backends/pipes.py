"""Sockets in memory: the two ends of a simulated connection, with their windows, and what kernels do at its end.

Rules:

- Each direction has a window for what the peer has not yet taken. What does not fit is kept by the writer, who hears
  (`writable`) when all of it has moved into the window.
- What travels one way keeps its order, whatever the weather.
- As with real kernels: a close delivers everything and then the end of the stream; but one with bytes unread, and
  bytes that arrive behind a close, reset the connection. A reset destroys what is in flight both ways.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from coulee.core.seam import Address, ErrorKind

if TYPE_CHECKING:
    from coulee.backends.network import Network

READ_BYTES_MAX = 262_144  # of one read
READ_PAUSE_S = (0.001, 0.03)  # between two reads of a slow reader
STOP_S = (5.0, 120.0)  # how long a stopped reader stops

TEXTS: dict[ErrorKind | None, str] = {
    None: "",
    "refused": "connection refused",
    "unreachable": "no route to host",
    "timed_out": "connection timed out",
    "reset": "connection reset by peer",
    "resources": "cannot assign requested address",
}


class Owner(Protocol):
    """Who has a socket: a machine's wire, or a scripted end."""

    def joined(self, socket: Socket) -> None:
        """The connection stands."""

    def readable(self, data: bytes) -> None:
        """Bytes, or `b""` for the end of the stream."""

    def writable(self) -> None:
        """What was kept has moved into the window."""

    def broken(self, kind: ErrorKind | None, detail: str) -> None:
        """The connection, or the attempt at one, has ended. The last call."""


class Socket:
    """One end of a connection, as its kernel has it."""

    __slots__ = (
        "arrived",
        "closing",
        "cut_bytes",
        "cuts",
        "dead",
        "doomed",
        "early",
        "eof_due",
        "eof_sent",
        "joining",
        "kept",
        "kept_bytes",
        "last_arrival",
        "local",
        "network",
        "numb",
        "owner",
        "peer",
        "rank",
        "reading",
        "released",
        "remote",
        "room",
        "scripted",
        "slow",
        "stop_after",
        "stopped",
        "take_due",
        "window",
    )

    def __init__(self, network: Network, local: Address, remote: Address) -> None:
        self.network = network
        self.local = local
        self.remote = remote
        self.peer: Socket = self
        self.owner: Owner | None = None
        self.scripted = False
        # what we write
        low, high = network.active.window_bytes
        self.window = self.room = network.rng.randint(low, high) if low < high else low
        self.kept: deque[memoryview] = deque()  # views, for small windows cut a large body very often
        self.kept_bytes = 0
        self.eof_due = False
        self.eof_sent = False
        self.last_arrival = -1.0
        self.rank = 0.0
        self.joining: list[bytes] | None = None  # a chunk that waits for the next
        self.doomed = False  # a reset is on its way behind the last chunk
        # what we read
        self.arrived: deque[bytes] = deque()
        self.reading = False
        self.take_due = False
        self.early = False  # one read may still come
        self.cuts = 0
        self.cut_bytes = 1
        self.slow = False
        self.stop_after: int | None = None
        self.stopped = False
        # the end
        self.numb: ErrorKind | None = None  # a reset that is not heard yet
        self.dead = False  # nothing arrives any more, either way
        self.closing = False
        self.released = False

    # -- writing

    @property
    def unsent(self) -> int:
        """Bytes written that the peer has not taken."""
        return self.window - self.room + self.kept_bytes

    def write(self, data: bytes) -> bool:
        """Whether it was taken whole; if not, `writable` follows. Bytes for who is gone are lost without a word."""
        if self.numb is not None:
            self._wake_up()
        if self.dead or self.released or self.closing or self.eof_sent or self.eof_due:
            return True
        if self.kept:
            self.kept.append(memoryview(data))
            self.kept_bytes += len(data)
            return False
        room = self.room
        if len(data) <= room:
            self.room = room - len(data)
            self._ship(data)
            return True
        self.network.census["fault:blocked"] += 1
        if room:
            self.room = 0
            self._ship(data[:room])
        self.kept.append(memoryview(data)[room:])
        self.kept_bytes = len(data) - room
        return False

    def write_eof(self) -> None:
        """Half-close behind what was written."""
        if self.released or self.closing or self.eof_sent:
            return
        if self.kept:
            self.eof_due = True
        else:
            self._ship_eof()

    def _ship(self, data: bytes) -> None:
        network = self.network
        if self.joining is not None:
            self.joining.append(data)
            return
        if self.doomed or not data:
            return
        weather = network.active
        when = network.now + network.between(weather.latency_s)
        if network.strikes("reset", weather.reset):
            self.doomed = True
            self._send_off(when, self.peer.arrive, data[: network.rng.randrange(len(data) + 1)])
            self._send_off(when, self._cut, None)
        elif weather.join and network.rng.random() < weather.join:
            self.joining = [data]
            self._send_off(when + network.between((0.0, 0.02)), self._arrive_joined, None)
        else:
            self._send_off(when, self.peer.arrive, data)

    def _ship_eof(self) -> None:
        self.eof_sent = True
        if not self.doomed:
            network = self.network
            self._send_off(network.now + network.between(network.active.latency_s), self.peer.arrive_eof, None)

    def _send_off(self, when: float, call: Callable[[Any], None], argument: Any) -> None:
        """In order: never before what was sent earlier, and at the same instant behind it."""
        network = self.network
        if when > self.last_arrival:
            self.last_arrival = when
            self.rank = network.rank()
        network.chunks += 1
        network.at(self.last_arrival, call, argument, rank=self.rank)

    def _arrive_joined(self, _: object) -> None:
        joined, self.joining = self.joining, None
        assert joined is not None
        self.network.census["fault:join"] += len(joined) > 1
        self.peer.arrive(b"".join(joined))

    def _cut(self, _: object) -> None:
        """Somebody in between resets the connection; each end hears of it in its own time."""
        network = self.network
        network.chunks -= 1
        if not self.dead:
            self._destroy()
            for socket in (self, self.peer):
                network.at(network.now + network.between(network.active.latency_s), socket.hear, "reset")

    def regain(self, count: int) -> None:
        """The peer has taken `count` bytes out of the window."""
        if self.kept:
            network = self.network
            network.at(network.now + network.between(network.active.latency_s), self._open_window, count)
        else:
            self.room += count

    def _open_window(self, count: int) -> None:
        self.room += count
        kept = self.kept
        if self.dead or self.released or not kept:
            return
        while kept and self.room:
            data = kept.popleft()
            if len(data) > self.room:
                kept.appendleft(data[self.room :])
                data = data[: self.room]
            self.room -= len(data)
            self.kept_bytes -= len(data)
            self._ship(bytes(data))
        if kept:
            return
        if self.eof_due:
            self.eof_due = False
            self._ship_eof()
        if self.closing:
            self._finish_close()
        elif self.owner is not None:
            self.owner.writable()

    # -- reading

    def resume(self) -> None:
        """Deliver what comes."""
        self.reading = True
        self.early = False
        if self.numb is not None:
            self._wake_up()
        elif self.arrived:
            self._take_soon(0.0)

    def pause(self, early: bool = False) -> None:
        """Deliver nothing, or one more read."""
        self.reading = False
        self.early = early
        if early and self.arrived:
            self._take_soon(0.0)

    def arrive(self, data: bytes) -> None:
        """A chunk comes out of the network."""
        self.network.chunks -= 1
        if not self.dead and data:
            if self.released:  # nobody is there any more, and the kernel says so
                self._destroy()
                self.peer.hear_later("reset")
            else:
                self._queue(data)

    def arrive_eof(self, _: object) -> None:
        """The end of the stream comes out of the network."""
        self.network.chunks -= 1
        if not self.dead and not self.released:
            self._queue(b"")

    def _queue(self, data: bytes) -> None:
        self.arrived.append(data)
        if (self.reading or self.early) and not self.take_due:
            self._take(None)

    def _take_soon(self, pause_s: float) -> None:
        if not self.take_due:
            self.take_due = True
            self.network.at(self.network.now + pause_s, self._take, moving=not pause_s)

    def _take(self, _: object) -> None:
        """One read."""
        self.take_due = False
        if self.released or self.closing or self.stopped or not self.arrived:
            return
        if not self.reading:
            if not self.early:
                return
            self.early = False
            self.network.census["fault:early_read"] += 1
        data = self._next_read()
        if data:
            self.peer.regain(len(data))
            if self.stop_after is not None:
                self._count_down(len(data))
        assert self.owner is not None
        self.owner.readable(data)
        if self.arrived and self.reading and not self.released:
            self._take_soon(self.network.between(READ_PAUSE_S) if self.slow else 0.0)

    def _next_read(self) -> bytes:
        arrived = self.arrived
        data = arrived.popleft()
        if not data:
            return data
        if arrived and arrived[0]:
            pieces = [data]
            size = len(data)
            while arrived and arrived[0] and size < READ_BYTES_MAX:
                pieces.append(arrived.popleft())
                size += len(pieces[-1])
            data = b"".join(pieces)
        limit = self._read_limit(len(data))
        if limit < len(data):
            arrived.appendleft(data[limit:])
            data = data[:limit]
        return data

    def _read_limit(self, size: int) -> int:
        """How much the next read delivers."""
        network = self.network
        rng = network.rng
        limit = READ_BYTES_MAX
        if self.slow:
            if network.faults:
                limit = rng.randint(1, 8192)
            else:
                self.slow = False
        if self.cuts:
            self.cuts -= 1
            limit = min(limit, rng.randint(1, self.cut_bytes))
        elif size > 1 and network.strikes("split", network.active.split):
            self.cuts = rng.randrange(20)
            self.cut_bytes = rng.choice((1, 1, 8, 64, 1024))
            limit = min(limit, rng.randint(1, self.cut_bytes))
        return limit

    def slow_down(self) -> None:
        """A scripted end: the weather may make it read slowly, or stop."""
        network = self.network
        self.scripted = True
        self.slow = network.strikes("slow_reader", network.active.slow_reader)
        stops = network.active.stopped_reader
        if stops and network.rng.random() < stops:
            self.stop_after = int(2.0 ** (network.rng.random() * 18.0))

    def _count_down(self, count: int) -> None:
        assert self.stop_after is not None
        self.stop_after -= count
        if self.stop_after <= 0:
            self.stop_after = None
            network = self.network
            if network.faults:
                network.census["fault:stopped_reader"] += 1
                self.stopped = True
                network.stopped[self] = None
                network.at(network.now + network.between(STOP_S), self.go_on, moving=False)

    def go_on(self, _: object) -> None:
        """A reader that had stopped reads again."""
        if self.stopped:
            self.stopped = False
            self.network.stopped.pop(self, None)
            if self.arrived and self.reading:
                self._take_soon(0.0)

    # -- the end

    def close(self, abort: bool) -> None:
        """End the connection, behind what was written or with a reset. Answered by `broken`."""
        if self.released:
            return
        if abort:
            was_dead = self.dead
            self._destroy()
            self._release()
            if not was_dead:
                self.peer.hear_later("reset")
            self.network.at(self.network.now, self._tell)
        elif not self.closing:
            self.closing = True
            self.reading = False
            if not self.kept:
                self._finish_close()

    def _finish_close(self) -> None:
        """All that was written is in the hands of the kernel."""
        if not self.dead:
            if any(self.arrived):  # RFC 2525, section 2.17: the peer must learn that its bytes were not read
                self._destroy()
                self.peer.hear_later("reset")
            elif not self.eof_sent:
                self._ship_eof()
        self._release()
        self.network.at(self.network.now, self._tell)

    def hear_later(self, kind: ErrorKind) -> None:
        """A reset is on its way here."""
        network = self.network
        network.at(network.now + network.between(network.active.latency_s), self.hear, kind)

    def hear(self, kind: ErrorKind) -> None:
        """A reset arrives."""
        if self.released or self.numb is not None:
            return
        held = not (self.reading or self.scripted or self.kept or self.closing)
        if held and self.owner is not None and self.network.strikes("deaf", self.network.active.deaf):
            self.numb = kind
        else:
            self._break(kind)

    def _wake_up(self) -> None:
        kind, self.numb = self.numb, None
        self.network.at(self.network.now, self._break, kind)

    def _break(self, kind: ErrorKind) -> None:
        if not self.released:
            self._release()
            if self.owner is not None:
                self.owner.broken(kind, TEXTS[kind])

    def _destroy(self) -> None:
        self.dead = self.peer.dead = True

    def _release(self) -> None:
        self.released = True
        self.arrived.clear()
        self.kept.clear()
        self.kept_bytes = 0
        self.network.stopped.pop(self, None)
        if self.peer.released:
            self.network.connections -= 1

    def _tell(self, _: object) -> None:
        if self.owner is not None:
            self.owner.broken(None, "")
