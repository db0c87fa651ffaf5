"""What a service tells systemd, and the sockets that systemd hands over: sd_notify(3), sd_watchdog_enabled(3) and
sd_listen_fds(3), without a library.

Rules:

- Who is not run by systemd notices nothing: where the environment asks for nothing, nothing is done.
- The service never fails for want of a listener: what cannot be told is dropped, and nothing here blocks.
- The watchdog is told by the loop that serves, through a timer of its own. A thread would go on telling it that all is
  well while the loop hangs.
- Each socket that was handed over is listened at, or the start fails: nobody would ever answer who connects to it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from coulee.backends import inherited, sockets
from coulee.core.report import Event
from coulee.core.seam import Address, parse_address, show_address

SYSTEMD: Final = "systemd"
"""What stands for an address where all that was handed over is listened at."""

_FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
_EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - what is bound to, not what we bind to


# --------------------------------------------------------------------------------------- what systemd is told


def notify(state: str) -> None:
    """Tell the service manager of a change: `READY=1`, say, one `NAME=value` a line. Never raises, never blocks."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if place.startswith("@"):
        place = f"\0{place[1:]}"  # an abstract name
    if place:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(state.encode("utf-8", "replace"), place)


def watchdog_interval_s() -> float | None:
    """How long systemd waits for `WATCHDOG=1` before it takes this process to hang; None where it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # another process of this service is watched
    with suppress(ValueError):
        interval_s = int(os.environ.get("WATCHDOG_USEC", "")) / 1e6
        return interval_s if interval_s > 0 else None
    return None


class Service:
    """What a program with one process tells systemd while it runs."""

    def __init__(self) -> None:
        self._silent: set[Any] = set()  # loops that have not been heard of since the last WATCHDOG=1
        self._loops: list[Any] = []

    def ready(self, running: Any) -> None:
        """All listeners are open. `running` is what `on_ready` of a backend is called with."""
        notify(f"READY=1\nSTATUS={_line('listening on', running.addresses)}")
        interval_s = watchdog_interval_s()
        if interval_s is not None:
            self._loops = [driver.loop for driver in getattr(running, "drivers", [running])]
            for loop in self._loops[1:]:  # these are turned by threads of their own
                loop.call(partial(self._beat, loop, interval_s / 2))
            self._beat(self._loops[0], interval_s / 2)

    def draining(self, event: Event) -> None:
        """The machine was told to stop."""
        notify(f"STOPPING=1\nSTATUS={event.text}")

    def _beat(self, loop: Any, every_s: float) -> None:
        """Called by each loop, again and again. When all have come round, systemd is told."""
        loop.call_later(every_s, partial(self._beat, loop, every_s))
        self._silent.discard(loop)
        if not self._silent:
            notify("WATCHDOG=1")
            self._silent.update(self._loops)


def _line(what: str, addresses: Sequence[Address]) -> str:
    """A text that is one line, whatever a path has in it."""
    return " ".join(f"{what} {', '.join(map(show_address, addresses))}".split())


# ------------------------------------------------------------------------------------ what systemd hands over


def activated() -> list[tuple[str, socket.socket]]:
    """The sockets that were handed over, with the names that their units give them. Asked again there are none: the
    environment is cleared, so that no child takes them for its own. Raises ValueError where one cannot be listened
    at."""
    asked_of = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if asked_of != str(os.getpid()) or not count.isdecimal():
        return []
    found: list[tuple[str, socket.socket]] = []
    for index in range(int(count)):
        name = names[index] if index < len(names) and names[index] else "unknown"
        found.append((name, _taken(_FIRST_FD + index, name)))
    return found


def _taken(fd: int, name: str) -> socket.socket:
    """A socket that is ours from here on, and no child's."""
    what = f"what systemd hands over as {name!r} (descriptor {fd})"
    try:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise ValueError(f"{what} is no socket: {error.strerror}") from error
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise ValueError(f"{what} does not listen for streams: its unit needs ListenStream=, and Accept=no")
    return sock


def listen_at(text: str) -> list[Address]:
    """The addresses that a command's LISTEN stands for: that which it is, or, for `systemd`, all that were handed over.
    What was handed over for them is given to whoever will listen at them. Raises ValueError, which says what to
    write."""
    handed = [(sockets.plain(sock.getsockname()), sock) for _, sock in activated()]
    if text == SYSTEMD:
        if not handed:
            raise ValueError(
                "systemd has handed over no socket (LISTEN_FDS is not set for this process): "
                "start it by a .socket unit, or write an address for 'systemd'"
            )
        asked = {local: [sock for other, sock in handed if other == local] for local, _ in handed}
        unused: list[Address] = []
    else:
        address = parse_address(text)
        asked = {address: [sock for local, sock in handed if _serves(local, address)]}
        unused = [local for local, _ in handed if not _serves(local, address)]
    if unused:
        raise ValueError(
            f"{_line('systemd has handed over', unused)}, where nobody would listen: "
            f"write 'systemd' for {text!r} to listen at what it hands over"
        )
    for address, listening in asked.items():
        if listening:
            inherited.give(address, listening)
    return list(asked)


def _serves(local: Address, asked: Address) -> bool:
    """Whether a socket that is bound to `local` is what somebody wants who asks for an address."""
    if isinstance(asked, tuple) and isinstance(local, tuple) and not asked[0]:
        return local[0] in _EVERYWHERE and local[1] == asked[1]
    return inherited.same(local, asked)
