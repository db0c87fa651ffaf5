"""A cluster: a set of endpoints and the policy that chooses among them.

Round robin, the endpoints of the present exchange's earlier attempts last. Pure: it decides from what it is told.
"""

from __future__ import annotations

from coulee.core.peer import Balancer, Peer, Routed
from coulee.lb.endpoint import peer_from_url


class Cluster(Balancer):
    """`Cluster("http://127.0.0.1:9000", "http://127.0.0.1:9001")`: each once, all alike.

    Raises `ValueError` for a URL that names no endpoint.
    """

    def __init__(self, *endpoints: str | Peer) -> None:
        if not endpoints:
            raise ValueError("a cluster needs at least one endpoint, such as http://127.0.0.1:9000")
        self.peers = [each if isinstance(each, Peer) else peer_from_url(each) for each in endpoints]
        names = [peer.name for peer in self.peers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"endpoint {name} is given twice")
        self._next = 0

    def fresh(self) -> Cluster:
        """The same cluster in its initial state."""
        return Cluster(*self.peers)

    def choose(self, exchange: Routed) -> Peer | None:
        """The next endpoint in turn; one that this exchange has tried only when it has tried them all."""
        peers = self.peers
        at = self._next
        tried = exchange.tried
        if tried:
            for offset in range(len(peers)):
                candidate = (at + offset) % len(peers)
                if peers[candidate].name not in tried:
                    at = candidate
                    break
        self._next = at + 1 if at + 1 < len(peers) else 0
        return peers[at]
