"""Sockets of the system, for every backend that has real ones: what to try for an address, how to listen at it, how to
begin to connect to it, and what can be asked of the system for either.

Rules:

- Nothing here waits, and nothing looks up a name: where that is needed `targets` says None and the backend asks its
  loop.
- Options of accepted connections are set on the socket that listens, and are inherited, so that to accept costs nothing
  more. Linux does so with all that are here (measured on 6.18: keep-alive with its times, and the class of service).
- An option that cannot be set is an error, but for those that only save time. Its text is for people: what, and why.
- Between a Unix socket's being made and its file's being what was asked for, nobody can connect to it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from coulee.backends.addresses import check_address
from coulee.core.seam import CONNECT_OPTIONS, LISTEN_OPTIONS, Address, ConnectOptions, ListenOptions

ATTEMPT_DELAY_S = 0.25  # between the addresses of a name (RFC 8305, section 8, "Connection Attempt Delay")
ACCEPTS_MAX = 64  # in one turn of the loop, for the connections that are there want theirs too
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
    check_address(address)
    if isinstance(address, str):
        if not address.startswith("@"):
            return [(socket.AF_UNIX, address)]
        if sys.platform != "linux":
            raise OSError(errno.EINVAL, "abstract sockets are Linux's: write a path")
        return [(socket.AF_UNIX, f"\0{address[1:]}")]
    host, port = address
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


# ----------------------------------------------------------------------------------------------- listening


def listen(
    places: list[Target], options: ListenOptions = LISTEN_OPTIONS, *, shared: bool = False
) -> list[socket.socket]:
    """Sockets that listen at every place that this host has, all on one port. Raises OSError.

    `shared`: others that say so too may listen at the same TCP addresses, and the kernel deals out who comes.
    """
    places = _fitting(places, options)
    opened: list[socket.socket] = []
    try:
        for family, asked in places:
            place = asked
            if opened and place[1] == 0:
                place = (place[0], opened[0].getsockname()[1], *place[2:])
            try:
                opened.append(_listen(family, place, options, shared))
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


def _fitting(places: list[Target], options: ListenOptions) -> list[Target]:
    """Where to listen with these options. Raises OSError where they are not for such an address."""
    is_path = places[0][0] == socket.AF_UNIX
    if options.mode is not None or options.owner:
        if not is_path:
            raise OSError(errno.EINVAL, "mode and owner are of a Unix socket's file, and this is a TCP address")
        if places[0][1].startswith("\0"):
            raise OSError(
                errno.EINVAL,
                "mode and owner are of a file, and an abstract socket has none: write a path, or omit them",
            )
    if is_path and (options.reuse_port or options.dual_stack):
        raise OSError(errno.EINVAL, "reuse_port and dual_stack are of TCP addresses, and this is a Unix socket")
    if not options.dual_stack:
        return places
    both = [(family, place) for family, place in places if family == socket.AF_INET6 and place[0] == "::"]
    if not both:
        raise OSError(errno.EINVAL, "dual_stack takes in every address of this host: write '[::]:PORT' or ':PORT'")
    return both


def _listen(family: int, place: Any, options: ListenOptions, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_UNIX:
            _bind_unix(sock, place)
            _hand_over(place, options)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared or options.reuse_port:
                _set(sock, socket.SOL_SOCKET, "SO_REUSEPORT", 1, "reuse_port")
            if family == socket.AF_INET6:  # where it takes no IPv4, that has a socket of its own
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not options.dual_stack)
            sock.bind(place)
            adjust(sock, options)
        sock.listen(options.backlog)
    except BaseException:
        stop_listening(sock)
        raise
    return sock


def adjust(sock: socket.socket, options: ListenOptions) -> None:
    """Set what can be set also on a socket that listens already. Raises OSError."""
    if sock.family == socket.AF_UNIX:
        return
    _set_common(sock, options)
    for name, value in (("TCP_FASTOPEN", options.fast_open), ("TCP_DEFER_ACCEPT", options.defer_accept_s)):
        number = getattr(socket, name, None)
        if value and number is not None:
            with suppress(OSError):  # it would have saved time
                sock.setsockopt(socket.IPPROTO_TCP, number, value)


def _bind_unix(sock: socket.socket, path: str) -> None:
    """Bind to a path, also over what a process that is gone has left there."""
    try:
        sock.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise OSError(error.errno, _why_not(error, path)) from error
        if path.startswith("\0"):
            raise
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            # It is somebody's, and to connect to it would not tell it from a socket that nobody listens at.
            text = "a file is in its place that is no socket: remove it, or write another path"
            raise OSError(error.errno, text) from error
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            if probe.connect_ex(path) != errno.ECONNREFUSED:
                raise
        os.unlink(path)
        sock.bind(path)


def _why_not(error: OSError, path: str) -> str:
    """Why no socket can be made at a path, and what to do."""
    folder = os.path.dirname(path) or "."
    if error.errno == errno.ENOENT:
        return f"there is no folder {folder}: make it first"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission to make a file in {folder}: write a path in a folder of your own, or change who owns it"
    return error.strerror or str(error)


def _hand_over(path: str, options: ListenOptions) -> None:
    """Make a Unix socket's file what it is to be. Raises OSError."""
    if options.owner:
        user, group = _number(options.owner, is_group=False), _number(options.owner, is_group=True)
        try:
            os.chown(path, user, group)
        except PermissionError as error:
            text = f"cannot give it to {options.owner!r}: that takes root, or CAP_CHOWN, or a group that you are in"
            raise OSError(error.errno, text) from error
    if options.mode is not None:
        os.chmod(path, options.mode)


_NUMBERS_MAX: Final = 2**32 - 1
"""Users, and groups, that there can be; this one is nobody."""


def _number(owner: str, *, is_group: bool) -> int:
    """The number of a user, or of a group; -1 where none is named. Raises OSError."""
    import grp  # here, for there are systems without, which have no owners either
    import pwd

    name = owner.partition(":")[2 if is_group else 0]
    if not name:
        return -1
    try:
        if name.isascii() and name.isdecimal() and int(name) < _NUMBERS_MAX:
            return int(name)
        return grp.getgrnam(name).gr_gid if is_group else pwd.getpwnam(name).pw_uid
    except KeyError as error:
        kind = "group" if is_group else "user"
        text = f"there is no {kind} {name!r}, which owner {owner!r} names: write one of this host, or a number"
        raise OSError(errno.EINVAL, text) from error


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


# ---------------------------------------------------------------------------------------------- connecting


def from_source(places: Sequence[Target], options: ConnectOptions) -> Sequence[Target]:
    """Those places that can be reached from where the options say. Raises OSError where there are none."""
    source = options.source
    if not source:
        return places
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    found = [place for place in places if place[0] in (family, socket.AF_UNIX)]
    if not found:
        kind = "IPv6" if ":" in source else "IPv4"
        raise OSError(errno.EAFNOSUPPORT, f"it has no {kind} address, and is to be reached from {source}")
    return found


def dialling(family: int, options: ConnectOptions) -> socket.socket:
    """A socket to connect with. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX and options is not CONNECT_OPTIONS:
            _set_common(sock, options)
            if options.user_timeout_s:
                ms = round(options.user_timeout_s * 1000)
                _set(sock, socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", ms, "user_timeout_s")
            if options.source:
                _bind_source(sock, options.source)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_source(sock: socket.socket, source: str) -> None:
    if _BIND_ADDRESS_NO_PORT is not None:
        # A port is chosen when it is known where to, so that connections to different places may have the same one.
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
    try:
        sock.bind((source, 0))
    except OSError as error:
        why = "it is no address of this host" if error.errno == errno.EADDRNOTAVAIL else error.strerror
        raise OSError(error.errno, f"cannot connect from {source}: {why}") from error


_BIND_ADDRESS_NO_PORT: Final[int | None] = getattr(
    socket, "IP_BIND_ADDRESS_NO_PORT", 24 if sys.platform == "linux" else None
)


# ---------------------------------------------------------------------------------------------------- both


def _set_common(sock: socket.socket, options: ListenOptions | ConnectOptions) -> None:
    """What both ways have, at a TCP socket."""
    probes, dscp = options.keep_alive, options.dscp
    if probes is not None:
        tcp = socket.IPPROTO_TCP
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        idle = "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"  # so macOS calls it
        _set(sock, tcp, idle, probes.idle_s, "keep_alive")
        _set(sock, tcp, "TCP_KEEPINTVL", probes.interval_s, "keep_alive")
        _set(sock, tcp, "TCP_KEEPCNT", probes.probes_max, "keep_alive")
    if dscp is not None and sock.family == socket.AF_INET6:
        _set(sock, socket.IPPROTO_IPV6, "IPV6_TCLASS", dscp << 2, "dscp")
        with suppress(OSError):  # for IPv4 within it, of which there need be none
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
    elif dscp is not None:
        _set(sock, socket.IPPROTO_IP, "IP_TOS", dscp << 2, "dscp")


def _set(sock: socket.socket, level: int, name: str, value: int, wanted_by: str) -> None:
    number = getattr(socket, name, None)
    if number is None:
        raise OSError(errno.ENOPROTOOPT, f"this system has no {name}, so {wanted_by} cannot be had: leave it out")
    try:
        sock.setsockopt(level, number, value)
    except OSError as error:
        text = f"{wanted_by} cannot be had: this system does not take {name} = {value}: {error.strerror}"
        raise OSError(error.errno, text) from error


def plain(name: Any) -> Address:
    """What sockets call an address, as the core has it: without flow label and scope, IPv4 within IPv6 as IPv4, an
    abstract name with `@`, and "" for an unnamed socket."""
    if isinstance(name, str):
        return name
    if isinstance(name, bytes):  # so they are where they are abstract
        return os.fsdecode(name.replace(b"\0", b"@"))
    address: tuple[str, int] = name if len(name) == 2 else name[:2]
    host = address[0]
    return (host[7:], address[1]) if host.startswith("::ffff:") and "." in host else address


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
