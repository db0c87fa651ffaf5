"""Addresses as text, and what the system's errors about them mean to the core.

The core never sees an errno, for they differ between systems; it sees one of eight kinds, and a text for the log.
"""

from __future__ import annotations

import errno
import socket

from coulee.core.seam import Address, ErrorKind

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
    text = error.strerror or str(error) or type(error).__name__
    if isinstance(error, socket.gaierror):
        return "resources" if error.errno == socket.EAI_MEMORY else "unreachable", text
    if isinstance(error, TimeoutError):
        return "timed_out", text
    return _KINDS.get(error.errno, "other"), text


def parse_address(text: str) -> Address:
    """An address from `HOST:PORT`, `[IPV6]:PORT`, `:PORT` (every address of this host) or `unix:PATH`.

    A path with a slash in it counts as one, with or without `unix:`. Raises ValueError, which says what to write.
    """
    if text.startswith("unix:"):
        path = text[5:]
        if not path:
            raise ValueError("'unix:' needs a path behind it: write 'unix:/run/coulee.sock'")
        return path if "/" in path else f"./{path}"
    if "://" in text:
        raise ValueError(f"{text!r} is a URL, and an address is wanted: write '127.0.0.1:8000', without 'http://'")
    if "/" in text:
        return text
    host, colon, port = text.rpartition(":")
    if not colon:
        example = f"127.0.0.1:{text}" if text.isdecimal() else f"{text or '127.0.0.1'}:8000"
        raise ValueError(f"{text!r} has no port, or no colon before it: write '{example}'")
    if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise ValueError(f"{port!r} in {text!r} is not a port: write a number from 0 to 65535 behind the last colon")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(f"{host!r} in {text!r} is not an IPv6 address: write it without brackets")
    elif ":" in host or "[" in host or "]" in host:
        raise ValueError(f"{text!r} is ambiguous: write an IPv6 address in brackets, as '[::1]:8000'")
    return host, int(port)
