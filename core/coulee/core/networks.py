"""Sets of addresses, as users write them: `10.0.0.0/8`, `::1`, `unix`."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Final

from coulee.core.admission import ip_of

UNIX: Final = "unix"
"""Stands for whoever comes by a Unix socket."""


class Networks:
    """Tells whether an address is in one of them. Raises `ValueError` for what is no network."""

    __slots__ = ("_networks", "_unix")

    def __init__(self, networks: Sequence[str], name: str = "trusted") -> None:
        self._unix = UNIX in networks
        try:
            self._networks = [ip_network(network, strict=False) for network in networks if network != UNIX]
        except ValueError as error:
            raise ValueError(f"{name}: {error}; write networks like 10.0.0.0/8") from None

    def __contains__(self, address: object) -> bool:
        if isinstance(address, str):
            return self._unix
        if not self._networks:
            return False
        ip = ip_of(address)
        return ip is not None and any(ip in network for network in self._networks)
