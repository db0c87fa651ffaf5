"""Endpoints: origin addresses, as users write them."""

from __future__ import annotations

from urllib.parse import urlsplit

from coulee.core.peer import Peer


def peer_from_url(url: str) -> Peer:
    """The peer that a URL such as `http://127.0.0.1:9000` names. Raises `ValueError` with what is wrong with it.

    Only scheme, host and port count; `unix:/path` names a Unix socket.
    """
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        if not path:
            raise ValueError(f"{url!r} names no socket; write unix:/path/to/socket")
        return Peer(path, name=url)
    if "://" not in url:
        raise ValueError(f"{url!r} has no scheme; write http://{url}")
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise ValueError(f"{url!r}: the scheme {parts.scheme!r} is not supported; write http://...")
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"{url!r}: the port is no number from 1 to 65535") from None
    if not parts.hostname:
        raise ValueError(f"{url!r} has no host; write http://127.0.0.1:9000")
    if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{url!r}: give scheme, host and port alone, as in http://{parts.hostname}:{port or 80}")
    if port == 0:
        raise ValueError(f"{url!r}: port 0 is nobody's")
    return Peer((parts.hostname, port or 80))
