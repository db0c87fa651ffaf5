"""Sockets of the system, for every backend that has real ones: what to try for an address, and how to listen at it.

Nothing here waits, and nothing looks up a name: where that is needed `targets` says None and the backend asks its loop.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeAlias, cast

from coulee.core.seam import Address

ATTEMPT_DELAY_S = 0.25  # between the addresses of a name (RFC 8305, section 8, "Connection Attempt Delay")
ACCEPTS_MAX = 64  # in one turn of the loop, for the connections that are there want theirs too
BACKLOG = 1024  # connections that the kernel completes before we accept them; it cuts this to its own somaxconn
ACCEPT_PAUSE_S = 1.0  # how long to leave a listener alone when the system is out of descriptors or memory

Target: TypeAlias = tuple[int, Any]
"""A socket family, and an address as sockets of that family take it."""

# What accept() may say of one connection, or of the packet that brought it (accept(2), "Error handling"). All else is
# trouble of our own, which is there again at the next try.
PASSING_ERRORS = frozenset(
    {errno.EAGAIN, errno.EINTR, errno.ECONNABORTED, errno.EPROTO, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EPERM}
    | {errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH}
)


def targets(address: Address) -> list[Target] | None:
    """What to try for `address`, in this order; None where it holds a name that must be looked up.

    The empty host stands for every address of this host. Raises OSError.
    """
    if isinstance(address, str):
        return [(socket.AF_UNIX, address)]
    host, port = address
    if not 0 <= port <= 65535:
        raise OSError(f"port {port} is not within 0 and 65535")
    if not host:
        return [(socket.AF_INET, ("0.0.0.0", port)), (socket.AF_INET6, ("::", port))]
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        return in_turns(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=numeric))
    except socket.gaierror:
        return None
    except ValueError as error:  # a name with a NUL in it, or one that IDNA cannot encode
        raise OSError(f"{host!r} is not the name of a host: {error}") from error


def in_turns(infos: Sequence[tuple[Any, ...]]) -> list[Target]:
    """What `getaddrinfo` found, the families taking turns (RFC 8305, section 4): a dead family costs one attempt."""
    found: list[Target] = [(info[0], info[4]) for info in infos]
    first = [target for target in found if target[0] == found[0][0]]
    other = [target for target in found if target[0] != found[0][0]]
    mixed: list[Target] = []
    while first or other:
        mixed.extend(group.pop(0) for group in (first, other) if group)
    return mixed


def listen(places: list[Target], *, shared: bool = False) -> list[socket.socket]:
    """Sockets that listen at every place that this host has, all on one port. Raises OSError.

    `shared`: others that say so too may listen at the same TCP addresses, and the kernel deals out who comes.
    """
    opened: list[socket.socket] = []
    try:
        for family, asked in places:
            place = asked
            if opened and place[1] == 0:
                place = (place[0], opened[0].getsockname()[1], *place[2:])
            try:
                opened.append(_listen(family, place, shared))
            except OSError as error:
                # IPv6 is compiled in and switched off; or a name has an address that is not ours.
                missing = error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
                if not missing or (not opened and asked is places[-1][1]):
                    raise
    except OSError:
        for sock in opened:
            sock.close()
        raise
    return opened


def _listen(family: int, place: Any, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_UNIX:
            _bind_unix(sock, place)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
            sock.bind(place)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix(sock: socket.socket, path: str) -> None:
    """Bind to a path, also over what a process that is gone has left there."""
    try:
        sock.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise  # a file of somebody's, which connecting to would not tell from a socket that nobody listens at
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            if probe.connect_ex(path) != errno.ECONNREFUSED:
                raise
        os.unlink(path)
        sock.bind(path)


class Lent(socket.socket):
    """A listening socket that somebody else has too: its path, where it has one, is not ours to remove."""


def lend(sock: socket.socket) -> Lent:
    """A duplicate of a listening socket. Raises OSError."""
    lent = Lent(fileno=os.dup(sock.fileno()))
    lent.setblocking(False)
    return lent


def stop_listening(sock: socket.socket) -> None:
    """Close a listening socket, and remove the path it was bound to, where it is ours alone."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX and isinstance(name, str) and name and not isinstance(sock, Lent):
        with suppress(OSError):
            os.unlink(name)
    sock.close()


def plain(name: Any) -> Address:
    """What sockets call an address, as the core has it: without flow label and scope, and "" for an unnamed socket."""
    if isinstance(name, tuple):
        host, port = cast("tuple[str, int]", name[:2])
        return host, port
    return os.fsdecode(name)  # abstract Unix sockets are named in bytes


def tune(sock: socket.socket) -> None:
    """Switch off Nagle's algorithm: what the core sends in one turn is as large as it gets.

    asyncio does so too, but not for accepted sockets, whose `proto` is 0 (CPython 3.11).
    """
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def reset_on_close(sock: socket.socket) -> None:
    """Make the next close() a reset. Does nothing to a socket that is closed already."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
