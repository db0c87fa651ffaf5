"""What one process of coulee does: makes its proxy, runs it on a backend, and says what happens.

It is the same with and without workers; what differs is who hears that it listens, and who says why it cannot.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

from coulee.core import Proxy
from coulee.core.listener import ListenAt
from coulee.core.seam import Address
from coulee.server.console import Console
from coulee.server.edges import Edges
from coulee.server.holder import holder_of
from coulee.server.recording import NotWritable, Records

CANNOT_LISTEN: Final = 3  # the exit code


class Failure(Exception):
    """Why the program ends, as one line, and its exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Backend:
    """A choice of --backend: the module that has its `run`, what else `run` is to know, and the library it needs."""

    module: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    library: str = ""  # also the name of the extra that installs it
    worker_options: Mapping[str, Any] = field(default_factory=dict[str, Any])  # of `run`, where it is one of several


BACKENDS: Final = {
    "asyncio": Backend("coulee.backends.asyncio"),
    "uvloop": Backend("coulee.backends.asyncio", {"uvloop": True}, "uvloop"),
    "trio": Backend("coulee.backends.trio", library="trio"),
    "curio": Backend("coulee.backends.curio", library="curio"),
    "threads": Backend("coulee.backends.threads", worker_options={"workers": 1}),  # processes are in place of threads
}


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `make` makes the proxy and may raise `LoadError`; `command` is what the user wrote."""

    make: Callable[[], Proxy]
    listen: list[Address]
    backend: str
    form: str  # of the access lines
    grace_s: float
    command: str
    records: Records | None = None
    edges: Edges = field(default_factory=Edges)

    def check(self) -> None:
        """Say what is wrong with what was asked for before anything starts. Raises `Failure`."""
        self._listeners()

    def _listeners(self) -> list[ListenAt]:
        try:
            return self.edges.listeners(self.listen)
        except ValueError as error:
            raise Failure(str(error), 2) from error

    def run(self, proxy: Proxy, console: Console, on_ready: Callable[[Any], object] | None = None,
            *, is_worker: bool = False) -> None:  # fmt: skip
        """Run a proxy until it is told to stop. Raises `Failure`."""
        chosen = BACKENDS[self.backend]
        options = {**chosen.options, **chosen.worker_options} if is_worker else chosen.options
        listeners = self._listeners()
        try:
            with nullcontext(proxy) if self.records is None else self.records.around(proxy, is_worker) as definition:
                importlib.import_module(chosen.module).run(
                    definition, listeners, reporter=console, grace_s=self.grace_s, on_ready=on_ready, **options
                )
        except NotWritable as error:
            raise Failure(str(error), 2) from error
        except OSError as error:
            if console.listen_failed is None:
                raise Failure(str(error), 1) from error
        if console.listen_failed is not None:
            raise cannot_listen(self.listen[0], console.listen_failed.text, self.command)


def need_library(backend: str) -> None:
    """Say what is missing before anything starts. Raises `Failure`."""
    library = BACKENDS[backend].library
    if library and importlib.util.find_spec(library) is None:
        raise Failure(f'--backend {backend} needs: pip install "coulee[{library}]"', 2)


def cannot_listen(address: Address, why: str, command: str) -> Failure:
    """Says who is in the way, and what to do."""
    if isinstance(address, str):
        return Failure(f"cannot listen on {address}: {why}", CANNOT_LISTEN)
    host, port = address
    holder = holder_of(port) if "in use" in why else None
    if holder is not None:
        why = f"in use by {holder}"
    elif "ermission" in why and port < 1024:
        why = "ports below 1024 need root or CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)"
    elif "in use" not in why:  # another port would not help
        return Failure(f"cannot listen on {host}:{port}: {why}", CANNOT_LISTEN)
    free = command.replace(f":{port}", f":{port + 1 if port >= 1024 else 8000}", 1)
    return Failure(f"cannot listen on {host}:{port}: {why}. Try: {free}", CANNOT_LISTEN)
