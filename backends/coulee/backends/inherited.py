"""Listening sockets that this process was given: whoever listens at their address uses them, on every backend.

So several processes accept from one socket, and a new program goes on where an old one stops. Rules:

- An address is as it was asked for: what is given for port 0 serves who asks for port 0, whatever port that became. Two
  ways to write one IP address, or one path, are one address. The empty host is not the same as `0.0.0.0`.
- A backend gets a duplicate, and closes that. The process keeps the original, so what waits in its backlog waits on,
  and the path of a Unix socket stays. Closing the originals, and removing that path, is left to who gave them.
- Who asks twice for one address gets the same sockets twice.
- Options are set as far as that can be done to a socket that listens. The others are for who has opened it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address

from coulee.backends import sockets
from coulee.core.seam import LISTEN_OPTIONS, Address, ListenOptions

_given: dict[Address, list[socket.socket]] = {}


def give(address: Address, listening: Sequence[socket.socket]) -> None:
    """Whoever listens at `address` in this process uses these, and none that were given for it before. Raises
    ValueError where there are none."""
    if not listening:
        raise ValueError("no socket was given")
    _given[_key(address)] = list(listening)


def given(address: Address, options: ListenOptions = LISTEN_OPTIONS) -> list[socket.socket] | None:
    """Duplicates of what was given for `address`, for the caller to close; None where nothing was. Raises OSError."""
    originals = _given.get(_key(address))
    if originals is None:
        return None
    lent: list[socket.socket] = []
    try:
        for original in originals:
            lent.append(sockets.lend(original))
            sockets.adjust(lent[-1], options)
    except OSError:
        for sock in lent:
            sock.close()
        raise
    return lent


def same(one: Address, other: Address) -> bool:
    """Whether two addresses are one, however they are written."""
    return _key(one) == _key(other)


def take_back() -> dict[Address, list[socket.socket]]:
    """Give nothing more. Returns the originals."""
    taken = dict(_given)
    _given.clear()
    return taken


@contextmanager
def giving(address: Address, listening: Sequence[socket.socket]) -> Generator[None, None, None]:
    """Give for the length of a block."""
    before = dict(_given)
    give(address, listening)
    try:
        yield
    finally:
        _given.clear()
        _given.update(before)


def open_all(
    address: Address, options: ListenOptions = LISTEN_OPTIONS, *, inheritable: bool = False
) -> list[socket.socket]:
    """What a backend would open for `address`, to be given away. Looks up a name, and waits for that. `inheritable`:
    also by another program, across exec. Raises OSError."""
    places = sockets.targets(address)
    if places is None:
        assert not isinstance(address, str), "paths are not looked up"
        places = sockets.in_turns(socket.getaddrinfo(*address, type=socket.SOCK_STREAM))
    opened = sockets.listen(places, options)
    for sock in opened:
        sock.set_inheritable(inheritable)
    return opened


def _key(address: Address) -> Address:
    """What two ways to write one address have in common."""
    if isinstance(address, str):
        return address if address.startswith("@") else os.path.abspath(address)
    host, port = address
    try:
        return str(ip_address(host)), port
    except ValueError:
        return host.lower(), port
