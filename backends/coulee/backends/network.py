"""A network in memory and in virtual time: the clock, the events to come, who listens where, and chance.

Rules:

- One heap of events, and one clock that jumps from event to event. Ties go by number, or by lot where the weather
  shuffles.
- Chance comes from one seeded generator. There is no wall clock, and nothing depends on hashes or addresses of objects.

Times are float seconds and start at 0.0.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any, Protocol, TypeAlias

from coulee.backends.pipes import TEXTS, Owner, Socket
from coulee.backends.weather import FAULTS, Weather
from coulee.core.seam import Address, ErrorKind

BLACK_HOLE_S = 127.0  # after which a kernel gives up an unanswered connect (Linux, tcp_syn_retries = 6)
EVENTS_MAX = 1_000_000  # in one instant; more is a loop that time does not get out of
_GRID = 4096  # random delays are whole multiples of 1/4096 s, so that events of different connections often coincide


class Place(Protocol):
    """Somebody who listens."""

    def incoming(self, socket: Socket) -> None:
        """A connection has come."""


class Timer:
    """A call to come that can be called off, without moving the clock when its time is there."""

    __slots__ = ("call", "live")

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.live = True

    def ring(self, _: object) -> None:
        """It is time."""
        self.live = False
        self.call()


_Event: TypeAlias = tuple[float, float, int, Callable[[Any], None], Any, bool]


class Network:
    """The clock, the events to come, who listens where, and the weather."""

    def __init__(self, seed: int, weather: Weather) -> None:
        self.seed = seed
        self.now = 0.0
        self.weather = weather
        self.active = weather  # of this moment: without its faults once they are over
        self.rng = self.rng_for("weather")
        self.census: dict[str, int] = {f"fault:{fault}": 0 for fault in FAULTS}
        self.places: dict[Address | None, Place] = {}
        self.stopped: dict[Socket, None] = {}  # scripted ends that have stopped reading
        self.connections = 0
        self.attempts = 0
        self.chunks = 0  # in flight
        self._heap: list[_Event] = []
        self._numbers = 0
        self._ports = 32_768
        self._moving = 0  # events in the heap other than timers

    def rng_for(self, name: str) -> Random:
        """A generator for a machine or a script, of this run's seed. The same in every process, for a text is hashed
        with SHA-512 (`random.seed`, version 2)."""
        return Random(f"{self.seed} {name}")

    @property
    def faults(self) -> bool:
        """Whether the weather still brings faults. Set it to False for the phase in which everything must come to its
        end: stopped readers go on, and unanswered connects time out as they always do."""
        return self.active is self.weather

    @faults.setter
    def faults(self, on: bool) -> None:
        self.active = self.weather if on else self.weather.subsided()
        if not on:
            for socket in list(self.stopped):
                socket.go_on(None)

    # -- time

    def at(
        self, when: float, call: Callable[[Any], None], argument: Any = None, *, moving: bool = True, rank: float = -1.0
    ) -> None:
        """Have `call(argument)` made. `moving`: as a part of what `flush` waits for."""
        if rank < 0.0:
            rank = self.rank()
        self._numbers += 1
        self._moving += moving
        heappush(self._heap, (when, rank, self._numbers, call, argument, moving))

    def rank(self) -> float:
        """The place of an event among those of its instant."""
        return self.rng.random() if self.active.shuffle else 0.0

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Have a script go on in `delay_s` seconds."""
        self.timer(self.now + delay_s, call, rank=0.5)

    def timer(self, when: float, call: Callable[[], None], rank: float = -1.0) -> Timer:
        """A call that can be called off, by setting `live` to False."""
        timer = Timer(call)
        self.at(max(when, self.now), timer.ring, timer, moving=False, rank=rank)
        return timer

    def step(self) -> bool:
        """Let everything happen that is due at the next instant; False where nothing is left to happen."""
        when = self._next()
        if when is None:
            return False
        self.now = max(self.now, when)
        heap = self._heap
        census = self.census
        newest = 0
        for _ in range(EVENTS_MAX):
            if not heap or heap[0][0] > self.now:
                return True
            _, _, number, call, argument, moving = heappop(heap)
            self._moving -= moving
            if number < newest:
                census["fault:shuffle"] += 1
            else:
                newest = number
            if type(argument) is Timer and not argument.live:
                continue
            self.happen(call, argument)
        raise RuntimeError(f"more than {EVENTS_MAX} events at {self.now} s: something goes round in a circle")

    def happen(self, call: Callable[[Any], None], argument: Any) -> None:
        """One event."""
        call(argument)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, with all that happens in them."""
        until = self.now + seconds
        while (when := self._next()) is not None and when <= until:
            self.step()
        self.now = until

    def settle(self, limit_s: float = 3600.0) -> None:
        """Let time pass until nothing is left to happen, or for `limit_s` seconds where something always is."""
        until = self.now + limit_s
        while (when := self._next()) is not None:
            if when > until:
                self.now = until
                return
            self.step()

    def flush(self, limit_s: float = 60.0) -> None:
        """Let everything arrive that is on its way (bytes, connects, results of jobs) and what comes of it. Timers
        further off than that do not ring. Ends after `limit_s` seconds where things always are on their way."""
        until = self.now + limit_s
        while self._moving and (when := self._next()) is not None and when <= until:
            self.step()

    def _next(self) -> float | None:
        heap = self._heap
        while heap:
            argument = heap[0][4]
            if type(argument) is not Timer or argument.live:
                return heap[0][0]
            heappop(heap)
        return None

    # -- chance

    def between(self, pair: tuple[float, float]) -> float:
        """A delay, from the least to the most."""
        low, high = pair
        if low >= high:
            return low
        return low + int(self.rng.random() * ((high - low) * _GRID + 1.0)) / _GRID

    def strikes(self, fault: str, share: float) -> bool:
        """Whether a fault comes about, which the census then knows."""
        if not share or self.rng.random() >= share:
            return False
        self.census[f"fault:{fault}"] += 1
        return True

    # -- connections

    def claim(self, address: Address | None, place: Place) -> Address | None:
        """Listen at an address; returns it, with a port where 0 was asked for. Raises OSError where it is taken."""
        if isinstance(address, tuple) and address[1] == 0:
            address = (address[0], self.free_port())
        if address in self.places:
            raise OSError(errno.EADDRINUSE, "address already in use")
        self.places[address] = place
        return address

    def release(self, address: Address | None) -> None:
        """Listen there no more."""
        self.places.pop(address, None)

    def place_of(self, address: Address) -> Place | None:
        """Who answers a connect to `address`."""
        places = self.places
        place = places.get(address)
        if place is None and isinstance(address, tuple):
            if address[0] == "localhost":
                return self.place_of(("127.0.0.1", address[1]))
            for host in ("0.0.0.0", "::", ""):
                place = place or places.get((host, address[1]))
        return place or places.get(None)

    def free_port(self) -> int:
        """A port that nobody has. They come round again after 28,232, and no run has so many connections at once."""
        self._ports = self._ports + 1 if self._ports < 60_999 else 32_769
        return self._ports

    def dial(self, owner: Owner, address: Address, source: Address | None, exposed: bool) -> Attempt:
        """Begin to connect, exposed to the weather or not. Answered by `joined` or `broken` of the owner."""
        attempt = Attempt(self, owner, address, source)
        weather = self.active
        when = self.now + self.between(weather.connect_s)
        kind: ErrorKind | None = None
        if exposed:
            if self.strikes("black_hole", weather.black_hole):
                self.at(self.now + BLACK_HOLE_S, attempt.fail, "timed_out", moving=False)
                return attempt
            if self.strikes("refuse", weather.refuse):
                kind = "refused"
            elif self.strikes("unreachable", weather.unreachable):
                kind = "unreachable"
            elif self.strikes("exhausted", weather.exhausted):
                kind = "resources"
        if kind is not None:
            self.at(when, attempt.fail, kind)
        else:
            self.at(when, attempt.arrive)
        return attempt


class Attempt:
    """A connect on its way."""

    __slots__ = ("address", "network", "over", "owner", "source")

    def __init__(self, network: Network, owner: Owner, address: Address, source: Address | None) -> None:
        self.network = network
        self.owner = owner
        self.address = address
        self.source = source
        self.over = False
        network.attempts += 1

    def cancel(self) -> bool:
        """Give it up; its owner hears of it. Returns False where it is over already."""
        if self.over:
            return False
        self.network.at(self.network.now, self._cancelled)
        self._end()
        return True

    def _cancelled(self, _: object) -> None:
        self.owner.broken(None, "")

    def fail(self, kind: ErrorKind) -> None:
        """It has failed."""
        if not self.over:
            self._end()
            self.owner.broken(kind, TEXTS[kind])

    def arrive(self, _: object) -> None:
        """It has come to whoever listens."""
        if self.over:
            return
        network = self.network
        place = network.place_of(self.address)
        if place is None:
            self.fail("refused")
            return
        self._end()
        local = self.source
        if local is None:
            local = ("10.0.0.1", network.free_port()) if isinstance(self.address, tuple) else ""
        near, far = Socket(network, local, self.address), Socket(network, self.address, local)
        near.peer, far.peer = far, near
        near.owner = self.owner
        network.connections += 1
        network.at(network.now + network.between(network.active.latency_s), place.incoming, far)
        self.owner.joined(near)

    def _end(self) -> None:
        self.over = True
        self.network.attempts -= 1
