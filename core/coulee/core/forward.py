"""Where a client may go by CONNECT (RFC 9110 section 9.3.6): nowhere, unless it is written down.

Config(forward=Forward(hosts=("*.example.com", "api.internal", "10.0.0.0/8"), ports=(443,)))

A proxy that lets anybody connect anywhere is an open door to all that it can reach itself. So these rules:

- A target is a host and a port, both in full. It is either a name or an IP address, and no third thing: what only some
  resolvers take for an address (`127.1`, `0x7f000001`) is neither.
- A name is let through by itself, or as one below a domain; an IP address only by an address or a network.
- `*` is any name, but what it lets through must turn out to be at a public address, or at one that is listed. That is
  known when the connection stands, of the very address that it goes to, and before anything is sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from coulee.core.address import Address
from coulee.core.admission import ip_of
from coulee.core.networks import Networks

_LABEL: Final = r"[0-9A-Za-z_-]{1,63}"
_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_TARGET: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z._-]+?)\.?):([1-9][0-9]{0,4})")
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[Xx][0-9A-Fa-f]*)", re.DOTALL)
"""What ends in a number, and so is meant for an IPv4 address (the URL standard of the WHATWG, section 3.5)."""

ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Forward:
    """An allow-list for CONNECT. Raises `ValueError` for what is no host, and where it would let nobody through."""

    hosts: tuple[str, ...]
    """Names (`api.internal`), all names below a domain (`*.example.com`, which is not `example.com` itself), IP
    addresses and networks (`10.0.0.0/8`). `*` is every name that is at a public address."""

    ports: tuple[int, ...] = (443,)
    """... and the ports there."""

    _names: frozenset[str] = field(init=False, repr=False, compare=False)
    _domains: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _networks: Networks = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.hosts, str):
            raise ValueError(f"hosts is {self.hosts!r}; write a list: ({self.hosts!r},)")  # noqa: TRY004
        if not self.hosts or not self.ports:
            raise ValueError("hosts or ports is empty, and nobody could go anywhere; leave `forward` out instead")
        for port in self.ports:
            if not 1 <= port <= 65535:
                raise ValueError(f"ports: {port} is none; write a number from 1 to 65535")
        names: list[str] = []
        networks: list[str] = []
        for host in self.hosts:
            (networks if "/" in host or ":" in host or _NUMBER.fullmatch(host) else names).append(host)
        for name in names:
            if name != ANY and not _NAME.fullmatch(name.removeprefix("*.")):
                raise ValueError(f"hosts: {name!r} is no host; write 'api.internal', '*.example.com' or '10.0.0.0/8'")
        lower = [name.lower() for name in names]
        object.__setattr__(self, "_names", frozenset(lower))
        object.__setattr__(self, "_domains", tuple(name[1:] for name in lower if name.startswith("*.")))
        object.__setattr__(self, "_networks", Networks(networks, "hosts"))

    def allows(self, host: str, port: int) -> bool:
        """Whether a client may ask to go there."""
        if port not in self.ports:
            return False
        if ip_of((host, port)) is not None:
            return (host, port) in self._networks
        return ANY in self._names or self._names_it(host)

    def allows_at(self, host: str, address: Address) -> bool:
        """Whether a host that may be asked for may be at the address at which it is."""
        ip = ip_of(address)
        if ip_of((host, 0)) is not None or self._names_it(host) or address in self._networks:
            return True
        return ip is not None and ip.is_global

    def _names_it(self, host: str) -> bool:
        return host in self._names or host.endswith(self._domains)


def read_target(text: str) -> tuple[str, int]:
    """The host, in lower case and without a dot at its end, and the port of a target in authority form. Raises
    `ValueError`."""
    match = _TARGET.fullmatch(text)
    if match is None or int(match[3]) > 65535:
        raise ValueError("the target of a CONNECT is not a host and a port (RFC 9112 section 3.2.3)")
    six, host, port = match.groups()
    if six or _NUMBER.fullmatch(host):
        ip = ip_of((six or host, 0))
        if ip is None or bool(six) is not (":" in (six or "")):
            raise ValueError("the host of the target looks like an IP address, and is none")
        return str(ip), int(port)
    if not _NAME.fullmatch(host):
        raise ValueError("the host of the target is no name")
    return host.lower(), int(port)
