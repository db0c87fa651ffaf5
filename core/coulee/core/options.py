"""What can be asked of the system for a socket.

Rules:

- The defaults are what coulee does where nobody asks for anything.
- What a system does not have is left out where all it does is save time: `fast_open` and `defer_accept_s`. Where
  anything else cannot be had, the listener is not opened, or the connection not made, and it says why.
- Options of TCP mean nothing to a Unix socket, and are not looked at there. `dual_stack` and `reuse_port`, which say
  who can come, are refused, as `mode` and `owner` are at a TCP address.
- A listening socket that was handed over (by systemd, or by an earlier program) is as its giver has made it. What can
  be set afterwards is set: `keep_alive`, `fast_open`, `defer_accept_s` and `dscp`.

All are frozen dataclasses, which raise ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

_SECONDS_MAX: Final = 32767
"""What systems take for a time of keep-alive (Linux: MAX_TCP_KEEPIDLE)."""

_PROBES_MAX: Final = 127
"""... and for the number of its probes (MAX_TCP_KEEPCNT)."""

_INTEGER_MAX: Final = 2**31 - 1
"""What an option of a socket holds."""

_DSCP_MAX: Final = 63


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """TCP's own probes, which find a peer that has vanished (RFC 9293 section 3.8.4)."""

    idle_s: int = 60
    """Silence before the first probe."""

    interval_s: int = 10
    """... and between two."""

    probes_max: int = 6
    """Probes without an answer before the connection is given up."""

    def __post_init__(self) -> None:
        _check("idle_s", self.idle_s, 1, _SECONDS_MAX)
        _check("interval_s", self.interval_s, 1, _SECONDS_MAX)
        _check("probes_max", self.probes_max, 1, _PROBES_MAX)


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """Of a listener, and of the connections that it accepts."""

    backlog: int = 1024
    """Connections that the system completes before they are accepted; it cuts this to its own limit."""

    mode: int | None = None
    """Permissions of a Unix socket's file, as `0o660`: who may write may connect. None leaves them to the umask. They
    are set before anybody can connect."""

    owner: str = ""
    """Who owns it: `user`, `user:group` or `:group`, by name or number. "" is whoever runs coulee."""

    dual_stack: bool = False
    """At every address of this host (`:80`, `[::]:80`), one IPv6 socket takes IPv4 too, whose clients are seen as IPv4
    addresses. By default each family has its own."""

    reuse_port: bool = False
    """Other processes of this user may listen at the same address (SO_REUSEPORT), and the system deals out who comes.
    Who has come to one that ends is lost."""

    keep_alive: KeepAlive | None = None
    """None leaves probes off."""

    fast_open: int = 0
    """Clients that may have sent data in their SYN and not yet been accepted (TCP_FASTOPEN, RFC 7413). 0 is off. A
    request may come twice then, so nothing is to be listened at that cannot bear it."""

    defer_accept_s: int = 0
    """Accept a connection when its first bytes are there, or when about so long has passed (TCP_DEFER_ACCEPT). 0 is
    off."""

    dscp: int | None = None
    """The class of what we send (RFC 2474), from 0 to 63."""

    def __post_init__(self) -> None:
        _check("backlog", self.backlog, 1, _INTEGER_MAX)
        _check("fast_open", self.fast_open, 0, _INTEGER_MAX)
        _check("defer_accept_s", self.defer_accept_s, 0, _SECONDS_MAX)
        _check_dscp(self.dscp)
        if self.mode is not None and not 0 <= self.mode <= 0o777:
            raise ValueError(f"mode is {self.mode}; permissions are from 0 to 0o777, so write them in octal, as 0o660")
        user, colon, group = self.owner.partition(":")
        if self.owner and ((colon and not group) or not (user or group) or ":" in group):
            raise ValueError(f"{self.owner!r} is no owner: write 'user', 'user:group' or ':group'")


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """Of a connection to an upstream peer."""

    source: str = ""
    """The address of this host to connect from; "" leaves it to the system. Of a name, only addresses of its family
    are tried."""

    keep_alive: KeepAlive | None = None
    """None leaves probes off."""

    user_timeout_s: float = 0.0
    """How long what was sent may stay unacknowledged before the connection is given up (TCP_USER_TIMEOUT, RFC 5482). 0
    leaves it to the system."""

    dscp: int | None = None
    """The class of what we send (RFC 2474), from 0 to 63."""

    def __post_init__(self) -> None:
        if self.source:
            try:
                ip_address(self.source)
            except ValueError as error:
                raise ValueError(f"{self.source!r} is no IP address: write one of this host, without a port") from error
        if self.user_timeout_s != 0:
            _check("user_timeout_s", self.user_timeout_s, 0.001, _INTEGER_MAX // 1000)  # it is told in milliseconds
        _check_dscp(self.dscp)


def _check_dscp(dscp: int | None) -> None:
    if dscp is not None:
        _check("dscp", dscp, 0, _DSCP_MAX)


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}; it must be from {least} to {most}")


LISTEN_OPTIONS = ListenOptions()
CONNECT_OPTIONS = ConnectOptions()
