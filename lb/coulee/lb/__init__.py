"""Load balancing: clusters of endpoints and the policies that choose among them."""

from __future__ import annotations

from coulee.lb.cluster import Cluster
from coulee.lb.endpoint import peer_from_url

__all__ = ["Cluster", "peer_from_url"]
