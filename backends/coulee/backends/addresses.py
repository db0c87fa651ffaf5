"""What the system's errors mean to the core, and what can be no Unix socket's name.

The core never sees an errno, for they differ between systems; it sees one of nine kinds, and a text for the log.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from coulee.backends.layer import LayerError
from coulee.core.seam import Address, ErrorKind

NAME_BYTES_MAX: Final = 107
"""Of a Unix socket's path, or of an abstract name behind its `@` (unix(7)). Some systems take a little less."""

_KINDS: dict[int | None, ErrorKind] = {
    errno.ECONNREFUSED: "refused",
    errno.ENOENT: "refused",  # the path of a Unix socket: nobody listens there
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETDOWN: "unreachable",
    errno.EHOSTDOWN: "unreachable",
    errno.EACCES: "unreachable",  # a firewall of this host, or a Unix socket of somebody else
    errno.EPERM: "unreachable",
    errno.EAFNOSUPPORT: "unreachable",
    errno.ETIMEDOUT: "timed_out",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ECONNABORTED: "reset",
    errno.ENOTCONN: "reset",  # what shutdown() says of a connection that the peer has reset
    errno.EMFILE: "resources",
    errno.ENFILE: "resources",
    errno.ENOBUFS: "resources",
    errno.ENOMEM: "resources",
    errno.EAGAIN: "resources",  # a Unix socket whose backlog is full; a system out of ports
    errno.EADDRINUSE: "resources",
    errno.EADDRNOTAVAIL: "resources",
}


def describe(error: OSError) -> tuple[ErrorKind, str]:
    """The kind of an error of the system, and its text for the log."""
    if isinstance(error, LayerError):
        return error.kind, error.detail
    text = error.strerror or str(error) or type(error).__name__
    if isinstance(error, socket.gaierror):
        return "resources" if error.errno == socket.EAI_MEMORY else "unreachable", text
    if isinstance(error, TimeoutError):
        return "timed_out", text
    return _KINDS.get(error.errno, "other"), text


def check_address(address: Address) -> None:
    """Raises OSError where no system could have this address."""
    if isinstance(address, tuple):
        if not 0 <= address[1] <= 65535:
            raise OSError(f"port {address[1]} is not within 0 and 65535")
        return
    text = f"{address!r} names no Unix socket: write a path, or '@' and a name"
    if address in ("", "@") or "\0" in address:
        raise OSError(errno.EINVAL, text)
    try:
        size = len(address.removeprefix("@").encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise OSError(errno.EINVAL, text) from error
    if size > NAME_BYTES_MAX:
        text = (
            f"{address!r} is too long for a Unix socket: it has {size} bytes of {NAME_BYTES_MAX}; write a shorter one"
        )
        raise OSError(errno.ENAMETOOLONG, text)
