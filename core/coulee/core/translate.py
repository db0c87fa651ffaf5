"""What changes in a message on its way through: one file for all that a gateway must do to fields.

- Hop-by-hop fields, and those that Connection names, stay on their hop (RFC 9110 section 7.6.1). Some fields cannot be
  named away, because a client could use that to change what the request means to the origin, or to hide who it is.
- Framing is not handled here: codecs never write the framing they are given, see `parts`.
- The client's address, scheme and host go along in X-Forwarded-* and Forwarded (RFC 7239). What arrives in these fields
  is dropped unless the peer is trusted, because anybody can write anything into them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from coulee.core.errors import ExchangeError
from coulee.core.headers import UNDERSCORE, Headers, encode_field, field_pattern, fields_named
from coulee.core.parts import Interim, Request, Response
from coulee.core.seam import Address

if TYPE_CHECKING:
    from coulee.core.config import Config

_HOP_BY_HOP: Final = (
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "proxy-authorization",
)
_FORWARDING: Final = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded")
_VERSION: Final = (1, 1)
_headers_from: Final = Headers.from_block  # a method of a name that is imported is looked up anew by each call
_NEVER_NAMED_AWAY: Final = frozenset(
    {*_FORWARDING, "upgrade", "host", "authorization", "cookie", "via", "date", "expect", "max-forwards", "set-cookie"}
)

_DROP_FROM_STRANGER: Final = re.compile(
    fields_named(b"|".join([*(name.encode() for name in _HOP_BY_HOP), b"forwarded", b"x-forwarded-[^:\r]*"]))
)
_DROP_FROM_TRUSTED: Final = field_pattern(_HOP_BY_HOP)
_KEPT: Final = frozenset(
    {b"host", b"content-length", b"content-type", b"date", b"expect", b"range", b"via", b"trailer", b"max-forwards",
     UNDERSCORE}
)  # fmt: skip
"""Of what `Headers.marks` tells, the fields that are never dropped here."""
_KEPT_OR_CONNECTION: Final = _KEPT | {b"connection"}
_UNDERSCORE: Final = re.compile(rb"\r\n[^:\r_]*_[^:\r]*:[^\r]*")
_ORDINARY_CONNECTION: Final = frozenset({b"keep-alive", b"close", b""})


def drop_on_arrival(headers: Headers, config: Config) -> bool:
    """What no filter is to see of a request, in place: the fields that Connection names (RFC 9110 section 7.6.1), for
    what a filter adds later, no client can name away; and those with an underscore in their name. Raises
    `ExchangeError` where these are to be refused. True where Connection names any."""
    marks = headers._marks or headers.marks
    if UNDERSCORE in marks and config.underscore_in_names != "pass":
        if config.underscore_in_names == "refuse":
            raise ExchangeError("bad_request", "a field with an underscore in its name")
        headers.block = _UNDERSCORE.sub(b"", headers.block)
    return drop_named(headers)


def drop_named(headers: Headers) -> bool:
    """Drop the fields that Connection names, in place, and leave Connection and Upgrade to be looked at. True where it
    names any."""
    named = (headers._marks or headers.marks).get(b"connection")
    if named is None or named in _ORDINARY_CONNECTION:
        return False  # so it nearly always is
    headers.block = _without_named(headers.block, named.decode("latin-1"))
    return True


def request_for_upstream(request: Request, client: Address, trusted: bool, config: Config) -> Request:
    """The request as it goes to the origin, in an object of its own."""
    headers = request.headers
    block = headers._block
    marks = headers._marks or headers.marks
    if (len(marks) > 1 or b"host" not in marks) and not _KEPT.issuperset(marks):
        block, marks = _without_hop(headers, _DROP_FROM_TRUSTED if trusted else _DROP_FROM_STRANGER)
    forwarding = config.forwarding
    if trusted:
        out = _forwarded_by_trusted(headers, block, request, client, config)
    else:
        fresh = _fresh_forwarding(
            host_of(client), request.scheme, request.authority, forwarding.x_forwarded, forwarding.forwarded
        )
        out = _headers_from(block + fresh, None, marks)
    if forwarding.via:
        out.set("Via", _appended(headers.get("via"), _via_element(request.version, config)))
    if request.method == "OPTIONS":
        hops = hops_left(request)
        if hops:
            out.set("Max-Forwards", str(hops - 1))
    return Request(request.method, request.target, out, _VERSION, request.scheme, request.authority, request.length,
                   b"", True, request.upgrade, request.sensitive)  # fmt: skip


def response_for_downstream(response: Response, wall_clock: float, config: Config) -> None:
    """Make an origin's answer one that we give: in place."""
    headers = response.headers
    marks = headers._marks or headers.marks
    named = marks.get(b"connection")
    if named is not None or not _KEPT.issuperset(marks):
        if named is not None and named not in _ORDINARY_CONNECTION:
            drop_named(headers)
        block, marks = _without_hop(headers, _DROP_FROM_TRUSTED)
        headers.known(block, marks)
    if config.forwarding.via:
        headers.set("Via", _appended(headers.get("via"), _via_element(response.version, config)))
    if b"date" not in (headers._marks or headers.marks):
        add_date(headers, wall_clock)
    response.version = _VERSION


def interim_for_downstream(interim: Interim) -> None:
    """Make an origin's interim answer one that we give: in place."""
    headers = interim.headers
    if not _KEPT.issuperset(headers.marks):
        drop_named(headers)
        headers.known(*_without_hop(headers, _DROP_FROM_TRUSTED))


def keep_allowed_trailers(trailers: Headers, config: Config) -> None:
    """Drop the trailers that are not on the list of those that are passed on, in place."""
    if "*" not in config.trailers:
        allowed = {name.lower() for name in config.trailers}
        trailers.remove(*(name for name, _ in trailers if name.lower() not in allowed))


def add_date(headers: Headers, wall_clock: float) -> None:
    """A recipient with a clock adds the Date that an answer lacks (RFC 9110 section 6.6.1)."""
    if b"date" not in (headers._marks or headers.marks):
        headers.block += _date_field(int(wall_clock))


def hops_left(request: Request) -> int | None:
    """The value of Max-Forwards (RFC 9110 section 7.6.2), None where there is none that counts."""
    value = request.headers.get("max-forwards")
    return int(value) if value is not None and value.isdecimal() and len(value) < 10 else None


def host_of(address: Address) -> str:
    """The host of a peer's address, without its port; `unknown` for a Unix socket (RFC 7239 section 6.2)."""
    return "unknown" if isinstance(address, str) else address[0]


def _without_hop(headers: Headers, pattern: re.Pattern[bytes]) -> tuple[bytes, dict[bytes, bytes]]:
    """The fields without those that `pattern` finds, and what marks are left."""
    marks = headers._marks or headers.marks
    if _KEPT_OR_CONNECTION.issuperset(marks) and marks[b"connection"] in _ORDINARY_CONNECTION:
        # The usual case: one line, which need not be searched for field by field.
        block = headers._block
        lower = headers._lower or headers.lower
        at = lower.find(b"\r\nconnection:")
        end = lower.find(b"\r\n", at + 2)
        marks = marks.copy()
        del marks[b"connection"]
        return block[:at] + block[end:] if end >= 0 else block[:at], marks
    return pattern.sub(b"", headers._block), {name: value for name, value in marks.items() if name in _KEPT}


def _without_named(block: bytes, named: str) -> bytes:
    """Drop the fields that a Connection field names, but for those that nobody may name away."""
    names = [name.strip().lower() for name in named.split(",")]
    drop = tuple(name for name in names if name and name not in _NEVER_NAMED_AWAY and not name.startswith("content-"))
    # not through the cache of patterns: these names are the client's choice
    if not drop:
        return block
    kept = [line for line in block.split(b"\r\n")[1:] if line.partition(b":")[0].decode("latin-1").lower() not in drop]
    return b"".join([b"\r\n" + line for line in kept])


def _forwarded_by_trusted(headers: Headers, block: bytes, request: Request, client: Address, config: Config) -> Headers:
    """The fields of a request from a trusted peer: what it says of those before it stays, and itself is added."""
    out = Headers.from_block(block)
    forwarding = config.forwarding
    if forwarding.x_forwarded:
        if "x-forwarded-proto" not in out:
            out.add("X-Forwarded-Proto", request.scheme)
        if "x-forwarded-host" not in out and request.authority:
            out.add("X-Forwarded-Host", request.authority)
        out.set("X-Forwarded-For", _appended(headers.get("x-forwarded-for"), host_of(client)))
    if forwarding.forwarded:
        out.set("Forwarded", _appended(headers.get("forwarded"), _forwarded_element(client, request)))
    return out


@lru_cache(maxsize=1024)
def _fresh_forwarding(host: str, scheme: str, authority: str, x_forwarded: bool, forwarded: bool) -> bytes:
    """All of them, for a client whose own do not count. The same for all requests of a client, hence the cache."""
    block = b""
    if x_forwarded:
        block += encode_field("X-Forwarded-For", host) + encode_field("X-Forwarded-Proto", scheme)
        if authority:
            block += encode_field("X-Forwarded-Host", authority)
    if forwarded:
        block += encode_field("Forwarded", _element(host, scheme, authority))
    return block


def _forwarded_element(client: Address, request: Request) -> str:
    return _element(host_of(client), request.scheme, request.authority)


def _element(host: str, scheme: str, authority: str) -> str:
    """One element of Forwarded (RFC 7239 section 4)."""
    who = f'"[{host}]"' if ":" in host else host
    element = f"for={who};proto={scheme}"
    if authority:
        escaped = authority.replace("\\", "\\\\").replace('"', '\\"')
        element += f';host="{escaped}"'
    return element


def _via_element(version: tuple[int, int], config: Config) -> str:
    """One element of Via (RFC 9110 section 7.6.3)."""
    number = f"{version[0]}.{version[1]}" if version < (2, 0) else str(version[0])  # which has no minor one
    return f"{number} {config.forwarding.via}"


def _appended(before: str | None, element: str) -> str:
    return f"{before}, {element}" if before else element


_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=4)
def _date_field(second: int) -> bytes:
    """An IMF-fixdate (RFC 9110 section 5.6.7), whatever the locale."""
    at = datetime.fromtimestamp(second, UTC)
    return (
        f"\r\nDate: {_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year} "
        f"{at.hour:02}:{at.minute:02}:{at.second:02} GMT"
    ).encode()
