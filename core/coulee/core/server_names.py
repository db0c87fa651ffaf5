"""Which certificate is for which host (RFC 9525): the one place where names are compared.

Rules:

- Names are DNS names in ASCII and IP addresses; case does not matter, nor does a dot at the end.
- A wildcard is a whole first label, and stands for exactly one (RFC 9525 section 6.3). It stands for no IP address.
- An IP address is covered by an equal one only, however the two are written.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address


def normalized(host: str) -> str:
    """A host as it is compared: in lower case, without a dot at its end, and without the brackets of IPv6."""
    host = host.lower().removesuffix(".")
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def is_ip(host: str) -> bool:
    """Whether it is an IP address."""
    host = normalized(host)
    if not (host[-1:].isdigit() or ":" in host):  # to hear it from an exception takes ten times as long
        return False
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def wildcard_for(host: str) -> str:
    """The wildcard that covers a host; "" where none does. `host` is normalized."""
    label, dot, parent = host.partition(".")
    return f"*.{parent}" if label and dot and "." in parent and not is_ip(host) else ""


def covers(names: Iterable[str], host: str) -> bool:
    """Whether a certificate with these names, as it has them, is for this host."""
    host = normalized(host)
    if not host:
        return False
    if is_ip(host):
        wanted = ip_address(host)
        return any(is_ip(name) and ip_address(normalized(name)) == wanted for name in names)
    wildcard = wildcard_for(host)
    return any(name and normalized(name) in (host, wildcard) for name in names)
