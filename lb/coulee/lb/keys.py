"""Keys: what of a request decides where it goes, for the policies that hash.

Rules:

- A key is a function of the exchange that gives text, bytes, or None where there is nothing to go by. Any function will
  do: `Ketama(lambda exchange: exchange.request.headers.get("x-tenant"))`.
- It depends on the exchange alone, so that equal requests have equal keys on every machine and after every restart.
- Text stands for the bytes it came in: ISO 8859-1, as everywhere in a head. What has no such form is taken as UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from coulee.core.admission import origin_of
from coulee.core.headers import TOKEN
from coulee.core.seam import show_address

if TYPE_CHECKING:
    from coulee.core.parts import Request
    from coulee.core.peer import Peer, Routed

Key: TypeAlias = "Callable[[Routed], str | bytes | None]"

ADDRESSES_REMEMBERED: Final = 4096
"""IPv6 clients whose /64 is not worked out again."""


def by_address() -> Key:
    """The client's address: IPv4 whole, IPv6 by its /64, which is what one household is given (RFC 6177). None for a
    Unix socket: all its clients are one."""

    def address(exchange: Routed) -> str | None:
        client = exchange.client
        if isinstance(client, str):
            return None
        host = client[0]
        return _network(host) if ":" in host else host

    return address


@lru_cache(maxsize=ADDRESSES_REMEMBERED)
def _network(host: str) -> str | None:
    """An IPv4 address in IPv6 clothes is the IPv4 address, as it is for the limits on connections."""
    origin = origin_of((host, 0))
    return f"{origin:016x}" if isinstance(origin, int) else origin


def by_header(name: str) -> Key:
    """A field of the request; several lines of one name are joined. Raises `ValueError`."""
    _check_name(name, "field")

    def header(exchange: Routed) -> str | None:
        return exchange.request.headers.get(name)

    return header


def by_cookie(name: str) -> Key:
    """The first cookie of this name. Raises `ValueError`."""
    _check_name(name, "cookie")

    def cookie(exchange: Routed) -> str | None:
        return next(cookies(exchange.request, name), None)

    return cookie


def by_path() -> Key:
    """The path, without the query: what is cached under one path is then cached once."""

    def path(exchange: Routed) -> str:
        return exchange.request.path

    return path


def by_target() -> Key:
    """The path with its query: nginx's `$request_uri`."""

    def target(exchange: Routed) -> str:
        return exchange.request.target

    return target


def bytes_of(key: str | bytes) -> bytes:
    """What is hashed. It never raises."""
    if isinstance(key, bytes):
        return key
    try:
        return key.encode("latin-1")
    except UnicodeEncodeError:
        return key.encode("utf-8", "surrogatepass")


def cookies(request: Request, name: str) -> Iterator[str]:
    """The values of all cookies of one name, in order (RFC 6265 section 5.4; HTTP/2 may send one field for each)."""
    for line in request.headers.get_all("cookie"):
        for found in _cookie_pattern(name).finditer(line):
            yield found[1].strip(" \t")


@lru_cache(maxsize=256)
def _cookie_pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|;)[ \t]*{re.escape(name)}=([^;]*)")


def _check_name(name: str, what: str) -> None:
    if not name.isascii() or TOKEN.fullmatch(name.encode()) is None:
        raise ValueError(f"{name!r} is no name of a {what}: use letters, digits and !#$%&'*+-.^_`|~")


def identity(peer: Peer) -> bytes:
    """What an endpoint is known by where its place comes from a hash: its address, and its group where it has one.
    Never its name, weight, or place among the others."""
    address = show_address(peer.address)
    return (f"{address} {peer.group}" if peer.group else address).encode("utf-8", "surrogatepass")
