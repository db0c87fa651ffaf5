"""One look at the origins when the program starts, so that a dead one is told before the first request meets it."""

from __future__ import annotations

import socket
import threading
from typing import TextIO

from coulee.core import Peer, Proxy
from coulee.lb import Cluster


def say_what_is_down(proxy: Proxy, out: TextIO) -> None:
    """Try each endpoint of the proxy's cluster once, on a thread, and name those that do not answer."""
    if isinstance(proxy.balancer, Cluster):
        peers = list(proxy.balancer.peers)
        threading.Thread(target=_look, args=(peers, out), name="coulee-first-look", daemon=True).start()


def _look(peers: list[Peer], out: TextIO) -> None:
    down = [(peer, why) for peer in peers if (why := _unreachable(peer)) is not None]
    for peer, why in down:
        left = len(peers) - len(down)
        rest = f"{left} of {len(peers)} endpoints left" if left else "requests will fail until it is up"
        print(f"! {peer.name} is down ({why}); {rest}", file=out, flush=True)


def _unreachable(peer: Peer) -> str | None:
    """Why a peer cannot be connected to, None where it can."""
    try:
        if isinstance(peer.address, str):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                probe.connect(peer.address)
        else:
            socket.create_connection(peer.address, timeout=1.0).close()
    except (OSError, ValueError) as error:  # ValueError: a name that no resolver takes
        return (getattr(error, "strerror", None) or str(error)).lower()
    return None
