"""Addresses: what they are, and how people write them."""

from __future__ import annotations

from typing import Final, TypeAlias

Address: TypeAlias = tuple[str, int] | str
"""A TCP address as `(host, port)`, where host may be a name; or the path of a Unix socket, whose abstract form, which
has no file, begins with `@`."""

UNIX_NAME_BYTES_MAX: Final = 107
"""Of a Unix socket's path, or of an abstract name behind its `@`: what Linux takes (unix(7)). Others take less."""


def show_address(address: Address) -> str:
    """An address as people write it."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str) -> Address:
    """An address from `HOST:PORT`, `[IPV6]:PORT`, `:PORT` (every address of this host) or `unix:PATH`.

    A path with a slash in it counts as one, with or without `unix:`; `unix:@NAME` is an abstract socket, which has no
    file. Raises ValueError, which says what to write.
    """
    if text.startswith("unix:"):
        path = text[5:]
        if not path:
            raise ValueError("'unix:' needs a path behind it: write 'unix:/run/coulee.sock'")
        return _unix(path if "/" in path or path.startswith("@") else f"./{path}")
    if "://" in text:
        raise ValueError(f"{text!r} is a URL, and an address is wanted: write '127.0.0.1:8000', without 'http://'")
    if "/" in text or text.startswith("@"):
        return _unix(text)
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


def _unix(path: str) -> str:
    if "\0" in path or path == "@":
        raise ValueError(f"{path!r} names no Unix socket: write 'unix:/run/coulee.sock' or 'unix:@coulee'")
    size = len(path.removeprefix("@").encode("utf-8", "replace"))
    if size > UNIX_NAME_BYTES_MAX:
        raise ValueError(
            f"{path!r} is too long for a Unix socket: it has {size} bytes of {UNIX_NAME_BYTES_MAX}; write a shorter one"
        )
    return path
