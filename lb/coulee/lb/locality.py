"""Locality: the endpoints of our own zone first, for they answer sooner and nobody is charged for the traffic.

It is the rule of priority groups (see `groups`), and only that one has to be learnt: the own zone is the first level,
and all other zones together are the last. So everything stays at home while `enough` of the own zone's weight is
usable; below that, usable share / `enough` of it does, and the rest goes to the others by their weights.

Envoy's zone-aware routing reckons, besides, with how many proxies there are in each zone, and sends a part away always
where a zone has more of the proxies than of the endpoints. That needs every proxy to know of all others, and nobody can
tell beforehand what it will do. Here a zone's endpoints must be able to bear their own zone's traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coulee.lb.groups import ENOUGH, Levels
from coulee.lb.policy import Policy

if TYPE_CHECKING:
    from coulee.lb.endpoint import Endpoint


class Locality(Levels):
    """`Locality("eu-1")` prefers each `Endpoint(zone="eu-1")`; `Locality(["eu-1", "eu-2"])`, then those of the second.

    Endpoints of all other zones, and those of none, come last.
    """

    def __init__(self, zone: str | Sequence[str], inner: Policy | None = None, *, enough: float = ENOUGH) -> None:
        super().__init__(inner, enough=enough)
        zones = [zone] if isinstance(zone, str) else list(zone)
        if not zones or not all(zones):
            raise ValueError("zone is empty; give the zone that this proxy runs in, as its endpoints have it")
        self.zones = zones
        self._levels = {name: level for level, name in enumerate(zones)}

    def level_of(self, endpoint: Endpoint) -> int:
        """0 at home."""
        return self._levels.get(endpoint.zone, len(self.zones))
