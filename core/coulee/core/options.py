"""What can be asked of the system for a socket. What a system does not have is left out, and nothing else comes of it.

All are frozen dataclasses; the defaults are what coulee does where nobody asks for anything.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """TCP's own probes, which find a peer that has vanished."""

    idle_s: int = 60
    """Silence before the first probe."""

    interval_s: int = 10
    """... and between two."""

    probes_max: int = 6
    """Probes without an answer before the connection is given up."""


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """Of a listener, and of the connections that it accepts."""

    backlog: int = 1024
    """Connections that the system completes before they are accepted; it cuts this to its own limit."""

    mode: int | None = None
    """Permissions of a Unix socket's file, as 0o660. None leaves them to the umask."""

    owner: str = ""
    """Who owns it: `user`, `user:group` or `:group`. "" is whoever runs coulee."""

    dual_stack: bool = False
    """One IPv6 socket takes IPv4 too, whose clients are seen as IPv4 addresses. By default each family has its own."""

    reuse_port: bool = False
    """Other processes may listen at the same address (SO_REUSEPORT), and the system deals out who comes."""

    keep_alive: KeepAlive | None = None
    """Probe clients that say nothing (SO_KEEPALIVE)."""

    fast_open: int = 0
    """Clients that may have sent data in their SYN and not yet been accepted (TCP_FASTOPEN). 0 is off."""

    defer_accept_s: int = 0
    """Accept a connection when its first bytes are there, or when so long has passed (TCP_DEFER_ACCEPT). 0 is off."""

    dscp: int | None = None
    """The class of what we send (RFC 2474), from 0 to 63."""


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """Of a connection to an upstream peer."""

    source: str = ""
    """The address of this host to connect from; "" leaves it to the system."""

    keep_alive: KeepAlive | None = None
    """Probe a peer that says nothing (SO_KEEPALIVE)."""

    user_timeout_s: float = 0.0
    """How long what was sent may stay unacknowledged before the connection is given up (TCP_USER_TIMEOUT, RFC 5482). 0
    leaves it to the system."""

    dscp: int | None = None
    """The class of what we send (RFC 2474), from 0 to 63."""


LISTEN_OPTIONS = ListenOptions()
CONNECT_OPTIONS = ConnectOptions()
