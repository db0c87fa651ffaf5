"""Ketama: consistent hashing on a ring of points, with the same choices as nginx's `hash $key consistent`.

Rules:

- An endpoint has 160 points for each unit of weight; each is the CRC32 of host, NUL, port and the point before it
  (Cache::Memcached::Fast, nginx's ngx_http_upstream_hash_module, pingora-ketama). A key belongs to the first point that
  is not below its own CRC32, or to the lowest of all.
- What is hashed is the address as nginx has it in `server 10.0.0.1:9000;`, an IPv6 host in brackets, a Unix socket by
  its path. A `server` line without a port has other points there: nginx hashes what is written.
- Where two endpoints have a point in common it is the one's whose address comes first, so that the ring does not depend
  on the order of the members. nginx takes the one that its file has first: sort that, and they are equal in this too.
- An endpoint that goes, or comes, changes nothing on the ring but its own points. One that is closed is passed over,
  which comes to the same as a ring without it.
- The ring is cut into buckets by the top bits of the points. A change makes a new ring that shares all buckets but
  those it touches, and puts it in the old one's place at the end.
- Beyond `POINTS_MAX` the points of all endpoints are halved until they fit. Then it is not nginx's ring any more.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Final
from zlib import crc32

from coulee.core.seam import show_address
from coulee.lb.hashing import Walking
from coulee.lb.keys import identity

if TYPE_CHECKING:
    from coulee.core.peer import PoolKey
    from coulee.core.seam import Address
    from coulee.lb.endpoint import Endpoint
    from coulee.lb.keys import Key
    from coulee.lb.policy import Policy

POINTS_PER_WEIGHT: Final = 160
"""nginx's number."""

POINTS_MAX: Final = 1 << 22
"""Points on a ring, 8 bytes each: 26,000 endpoints of weight 1."""

BUCKET_POINTS: Final = 256
"""Points in a bucket, on average, of a ring that is built anew; it may grow to four times, and shrink to a quarter."""

SLICE_POINTS: Final = 5_000
"""Points that are worked on in one slice of `arrange`: a few milliseconds."""

GROUPS: Final = 256
"""Into so many groups changes are sorted first."""

_POINT_BITS: Final = 32
_SLOT_MASK: Final = (1 << _POINT_BITS) - 1


class Ring:
    """Points in order. Not changed once it is in use."""

    __slots__ = ("buckets", "endpoints", "halvings", "points", "shift", "slots")

    def __init__(self, bits: int, halvings: int) -> None:
        self.shift = _POINT_BITS - bits
        """A point's bucket is given by its bits above these."""
        self.buckets = [array("Q")] * (1 << bits)
        """Each entry is a point, then the slot of its endpoint."""
        self.endpoints: dict[int, Endpoint] = {}
        """By slot."""
        self.slots: dict[PoolKey, int] = {}
        """Where an endpoint is, by its identity."""
        self.points: dict[int, int] = {}
        """By slot, how many points it has."""
        self.halvings = halvings

    def copy(self) -> Ring:
        """One that shares the buckets."""
        ring = Ring(0, self.halvings)
        ring.shift = self.shift
        ring.buckets = self.buckets.copy()
        ring.endpoints = self.endpoints.copy()
        ring.slots = self.slots.copy()
        ring.points = self.points.copy()
        return ring


class Ketama(Walking):
    """`Ketama(by_header("x-user"))`. Raises `ValueError` for a bound below 1.

    `otherwise` chooses where there is no key (at random, if it is not given); `bound=1.25` bounds the load of each
    endpoint (see `coulee.lb.hashing`).
    """

    def __init__(self, key: Key, *, otherwise: Policy | None = None, bound: float | None = None) -> None:
        super().__init__(key, otherwise, bound)
        self._ring = Ring(0, 0)

    def walk(self, key: bytes) -> Iterator[Endpoint]:
        """Round the ring, from the key's point on."""
        ring = self._ring
        buckets = ring.buckets
        endpoints = ring.endpoints
        point = crc32(key)
        first = point >> ring.shift
        bucket = buckets[first]
        start = bisect_left(bucket, point << _POINT_BITS)
        for entry in bucket[start:]:
            yield endpoints[entry & _SLOT_MASK]
        for at in range(first + 1 - len(buckets), first):  # a negative one counts from the end
            for entry in buckets[at]:
                yield endpoints[entry & _SLOT_MASK]
        for entry in bucket[:start]:
            yield endpoints[entry & _SLOT_MASK]

    def arrange(self, members: Sequence[Endpoint]) -> Iterator[None]:
        """See `Policy`. What stays as it is costs nothing."""
        ring = ring_for(self._ring, members)
        done = 0
        for points in place(ring, members):
            done += points
            if done >= SLICE_POINTS:
                done = 0
                yield
        yield from super().arrange(members)
        self._ring = ring


def ring_for(ring: Ring, members: Sequence[Endpoint]) -> Ring:
    """What to place these members on: a copy of this ring, or an empty one where it has too few buckets or too many."""
    asked = sum(endpoint.weight for endpoint in members) * POINTS_PER_WEIGHT
    halvings = 0
    while asked >> halvings > POINTS_MAX:
        halvings += 1
    buckets = (asked >> halvings) // BUCKET_POINTS
    if halvings == ring.halvings and len(ring.buckets) // 4 <= buckets <= len(ring.buckets) * 4:
        return ring.copy()
    return Ring(buckets.bit_length(), halvings)


def place(ring: Ring, members: Sequence[Endpoint]) -> Iterator[int]:
    """Make these the endpoints on the ring; gives how much it has done since it was last asked, in points."""
    wanted = {endpoint.key: points_wanted(endpoint.weight, ring.halvings) for endpoint in members}
    yield len(members)
    removed = [slot for key, slot in ring.slots.items() if wanted.get(key) != ring.points[slot]]
    stale = frozenset(removed)
    yield len(members)
    changes = [array("Q") for _ in range(min(GROUPS, len(ring.buckets)))]
    """The entries that come and those that go, grouped by their top bits: so many ends to write at stay in a cache."""
    for slot in removed:
        gone = ring.endpoints.pop(slot)
        del ring.slots[gone.key]
        yield from _gather(changes, slot, points_of(gone.address, ring.points.pop(slot)))
    unused = (slot for slot in count() if slot not in ring.endpoints and slot not in stale)
    for endpoint in members:
        if endpoint.key in ring.slots:
            ring.endpoints[ring.slots[endpoint.key]] = endpoint
            yield 1
        elif points := wanted[endpoint.key]:
            slot = next(unused)
            ring.endpoints[slot] = endpoint
            ring.slots[endpoint.key] = slot
            ring.points[slot] = points
            yield from _gather(changes, slot, points_of(endpoint.address, points))
    for group in changes:
        yield len(group)
        yield from _merge(ring, sorted(group), stale)


def points_wanted(weight: int, halvings: int) -> int:
    """How many points such a weight has; one at least, if it is one."""
    return max(weight * POINTS_PER_WEIGHT >> halvings, min(weight, 1))


def points_of(address: Address, points: int) -> Iterator[list[int]]:
    """So many points of an address, in pieces."""
    host, _, port = (address, "", "") if isinstance(address, str) else show_address(address).rpartition(":")
    start = crc32(f"{host}\0{port}".encode("utf-8", "surrogatepass"))
    point = 0
    while points > 0:
        piece: list[int] = []
        for _ in range(min(points, SLICE_POINTS)):
            point = crc32(point.to_bytes(4, "little"), start)
            piece.append(point)
        yield piece
        points -= SLICE_POINTS


def _gather(changes: list[array[int]], slot: int, points: Iterator[list[int]]) -> Iterator[int]:
    """Put the entries of one endpoint into their groups."""
    shift = _POINT_BITS + 1 - len(changes).bit_length()
    for piece in points:
        for point in piece:
            changes[point >> shift].append(point << _POINT_BITS | slot)
        yield len(piece)


def _merge(ring: Ring, changes: list[int], stale: frozenset[int]) -> Iterator[int]:
    """Make new buckets of those in which there are changes. What goes stands in the old one and in the changes too."""

    def order(entry: int) -> tuple[int, bytes]:
        return entry >> _POINT_BITS, identity(ring.endpoints[entry & _SLOT_MASK])

    bits = _POINT_BITS + ring.shift
    start = 0
    while start < len(changes):
        at = changes[start] >> bits
        end = bisect_left(changes, at + 1 << bits, start)
        entries = changes[start:end]
        entries.extend(ring.buckets[at])
        if stale:
            entries = [entry for entry in entries if entry & _SLOT_MASK not in stale]
        entries.sort()
        if len({entry >> _POINT_BITS for entry in entries}) < len(entries):
            entries.sort(key=order)
        ring.buckets[at] = array("Q", entries)
        start = end
        yield len(entries)
