"""Where a cluster's endpoints come from: a file, a name, an HTTP address, a function.

    from coulee.discovery import Dns, File, nameservers

    Cluster(discovery=File("endpoints.toml"))
    Cluster(discovery=Dns("api.internal", 8080, server=nameservers()))

Rules:

- An error, and an answer without an endpoint, keep the last good set. Both are said, and so is the recovery.
- What touches the host is here, and runs on a thread; it returns plain values, so that a recording of a machine can be
  replayed. All else is pure, in `coulee.lb`.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import time
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, get_args

from coulee.core.effects import blocking
from coulee.lb.discovery import DiscoveryError, Finder, Found, Function, HttpSd, Source, check_times, gathered
from coulee.lb.documents import DOCUMENT_BYTES_MAX, parse_json, parse_toml, read_document, toml_lines
from coulee.lb.endpoint import Endpoint

if TYPE_CHECKING:
    from coulee.lb.dns import Dns, DnsSrv

__all__ = [
    "DiscoveryError",
    "Dns",
    "DnsSrv",
    "File",
    "Finder",
    "Found",
    "Function",
    "HttpSd",
    "Resolver",
    "Source",
    "nameservers",
]

SETTLED_S: Final = 2.0
"""A file that was written less than this ago is read again, even where it looks the same: the clock of a file system
ticks slowly, and a second change within one tick would show in nothing else."""

NAMESERVERS_MAX: Final = 3
"""As many as resolvers look at (resolv.conf(5))."""

Stamp: TypeAlias = tuple[int, int, int, int]
"""Device, inode, size and time of change of a file: what tells two states of it apart."""


def __getattr__(name: str) -> Any:
    """`Dns` and `DnsSrv` need dnspython, and only who uses them does."""
    if name in ("Dns", "DnsSrv"):
        import coulee.lb.dns

        return getattr(coulee.lb.dns, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# -------------------------------------------------------------------------------------------------------------- files


class File:
    """A JSON or TOML file, as its suffix says, in a shape of `coulee.lb.documents`. A change is seen within
    `interval_s`.

    Replace it in one step, by renaming another over it. One that is caught half written is an error, until it is whole.
    """

    timeout_s: float | None = None

    def __init__(
        self, path: str | os.PathLike[str], *, interval_s: float = 1.0, document_bytes_max: int = DOCUMENT_BYTES_MAX
    ) -> None:
        check_times(interval_s=interval_s, document_bytes_max=document_bytes_max)
        self.name = os.fspath(path)
        if PurePath(self.name).suffix not in (".json", ".toml"):
            raise ValueError(f"{self.name}: the name of a file with endpoints ends with .json or .toml")
        self.interval_s = interval_s
        self.document_bytes_max = document_bytes_max
        self._stamp: Stamp | None = None
        self._digest = b""
        self._found: Found | None = None

    def fresh(self) -> Self:
        """The same file, not looked at yet."""
        return type(self)(self.name, interval_s=self.interval_s, document_bytes_max=self.document_bytes_max)

    async def find(self) -> Found:
        """Look at the file; read it where it has changed."""
        look = await blocking(_look, self.name, self._stamp, self._digest, self.document_bytes_max)
        if look is not None:
            stamp, digest, content = look
            if content is not None:
                document, lines = content
                self._found = Found(await gathered(read_document(document, self.name, lines=lines)))
            self._stamp, self._digest = stamp, digest
        assert self._found is not None, "it was read once"
        return self._found


def _look(
    path: str, known: Stamp | None, known_digest: bytes, bytes_max: int
) -> tuple[Stamp | None, bytes, tuple[Any, list[int]] | None] | None:
    """On a thread. None where the file has not changed; else its stamp, its digest, and, where that is another one than
    before, its values and the lines of its endpoints. Raises `DiscoveryError`."""
    try:
        if known is not None and _stamp_of(os.stat(path)) == known:
            return None
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DiscoveryError(f"{path}: this is no file")
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise DiscoveryError(f"{path}: {error.strerror}") from None
    if len(data) > bytes_max:
        raise DiscoveryError(f"{path}: it is longer than {bytes_max} bytes")
    settled = time.time() - status.st_mtime > SETTLED_S
    stamp = _stamp_of(status) if settled else None
    digest = hashlib.sha256(data).digest()
    if digest == known_digest:
        return stamp, digest, None
    if path.endswith(".toml"):
        return stamp, digest, (parse_toml(data, path), toml_lines(data))
    return stamp, digest, (parse_json(data, path), [])


def _open_without_waiting(path: str, flags: int) -> int:
    """A pipe would otherwise keep us until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _stamp_of(status: os.stat_result) -> Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


# -------------------------------------------------------------------------------------------------------------- names


class Resolver:
    """The addresses of a name, as this machine's resolver has them: `Resolver("api.internal", 8080)`.

    It knows /etc/hosts and whatever else this machine asks, and it does not tell for how long an answer is valid; so it
    is asked every `interval_s`. `kind` is "A", "AAAA" or "both". Raises `ValueError`.
    """

    timeout_s: float | None = None

    def __init__(
        self, name: str, port: int = 80, *, kind: Literal["A", "AAAA", "both"] = "A", interval_s: float = 30.0
    ) -> None:
        check_times(interval_s=interval_s)
        if not 0 < port < 65536:
            raise ValueError(f"port is {port}; it must be from 1 to 65535")
        if kind not in get_args(_Kind):
            raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(map(repr, get_args(_Kind)))}")
        self.name = name
        self.port = port
        self.kind: _Kind = kind
        self.interval_s = interval_s

    def fresh(self) -> Self:
        """The same; it has no state."""
        return self

    async def find(self) -> Found:
        """Ask it, on a thread."""
        addresses = await blocking(_resolve, self.name, self.kind)
        return Found([Endpoint((address, self.port)) for address in addresses])


_Kind: TypeAlias = Literal["A", "AAAA", "both"]
_FAMILIES: Final = {"A": socket.AF_INET, "AAAA": socket.AF_INET6, "both": socket.AF_UNSPEC}


def _resolve(name: str, kind: _Kind) -> list[str]:
    """On a thread. The addresses, in an order that is always the same. Raises `DiscoveryError`."""
    try:
        found = socket.getaddrinfo(name, None, _FAMILIES[kind], socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise DiscoveryError(f"{name}: {text}") from None
    return sorted({str(address[0]) for *_, address in found})


def nameservers(path: str = "/etc/resolv.conf") -> list[tuple[str, int]]:
    """The name servers that this machine asks, for `Dns(..., server=nameservers())`. Without any, or without the file,
    the one on this machine, as resolv.conf(5) has it. Raises `OSError` where the file cannot be read."""
    found: list[tuple[str, int]] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.split()
                if len(words) > 1 and words[0] == "nameserver":
                    found.append((words[1], 53))
    except FileNotFoundError:
        pass
    return found[:NAMESERVERS_MAX] or [("127.0.0.1", 53)]
