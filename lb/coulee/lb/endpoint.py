"""Endpoints: origin addresses, as users write them."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from coulee.core.peer import Peer
from coulee.core.seam import show_address

_NO_HOST: Final = re.compile(r"[\x00-\x20\x7f\\,\"<>^`{|}]")
"""What stands in no host, and what `urlsplit` would drop without a word."""


def peer_from_url(url: str) -> Peer:
    """The peer that a URL such as `http://127.0.0.1:9000` names. Raises `ValueError` with what is wrong with it.

    Only scheme, host and port count; `unix:/path` names a Unix socket.
    """
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        if not path:
            raise ValueError(f"{url!r} names no socket; write unix:/path/to/socket")
        return Peer(path, name=url)
    if not url.isascii() or _NO_HOST.search(url):
        raise ValueError(f"{url!r} has characters that no URL has")
    if "://" not in url:
        raise ValueError(f"{url!r} has no scheme; write http://{url}")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise ValueError(f"{url!r} is no URL: {error}") from None
    if parts.scheme != "http":
        raise ValueError(f"{url!r}: the scheme {parts.scheme!r} is not supported; write http://...")
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"{url!r}: the port is no number from 1 to 65535") from None
    if not host:
        raise ValueError(f"{url!r} has no host; write http://127.0.0.1:9000")
    if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{url!r}: give scheme, host and port alone, as in http://{show_address((host, port or 80))}")
    if port == 0:
        raise ValueError(f"{url!r}: port 0 is nobody's")
    return Peer((host, port or 80))
