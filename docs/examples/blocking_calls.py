"""What blocks, as a driver of one's own may do it: in threads, with nothing of coulee but the seam.

`connected` and `listening` are for a thread: they look up names, try every address of one, and return sockets that do
not block. `Threads` has the threads, and a loop of asyncio's for native jobs, where the host has none of its own. All
that is known by a `concurrent.futures.Future`, which the driver waits for in its own way.
"""

import asyncio
import errno
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeAlias

from coulee.core.seam import Address, ErrorKind

HEAD_START_S = 0.25  # of one address of a name over the next (RFC 8305, section 5)
Outcome: TypeAlias = tuple[Any, BaseException | None]
KINDS: dict[ErrorKind, str] = {
    "refused": "ECONNREFUSED ENOENT",
    "unreachable": "ENETUNREACH EHOSTUNREACH EACCES EPERM EAFNOSUPPORT",
    "timed_out": "ETIMEDOUT",
    "reset": "ECONNRESET EPIPE ENOTCONN",
    "resources": "EMFILE ENFILE ENOMEM ENOBUFS EAGAIN EADDRINUSE EADDRNOTAVAIL",
}


def connected(address: Address, is_wanted: Callable[[], bool]) -> list[socket.socket]:
    """One socket, which is connected. Each address of a name has a head start on the next. Gives up when told to."""
    places = _places(address)
    trying: list[socket.socket] = []
    trouble = OSError("nobody waits for it any more")
    while is_wanted() and (places or trying):
        if places:
            family, place = places.popleft()
            try:
                trying.append(socket.socket(family, socket.SOCK_STREAM))
                trying[-1].setblocking(False)
                code = trying[-1].connect_ex(place)
            except OSError:
                close(trying)
                raise
            if code not in (0, errno.EINPROGRESS):
                trouble = OSError(code, os.strerror(code))
                trying.pop().close()
                continue
        for sock in select.select([], trying, [], HEAD_START_S)[1]:
            trying.remove(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                close(trying)
                return [sock]
            trouble = OSError(code, os.strerror(code))
            sock.close()
    close(trying)
    raise trouble


def listening(address: Address) -> list[socket.socket]:
    """Sockets that listen at every address of a name that is ours, all on one port."""
    socks: list[socket.socket] = []
    for family, place in _places(address):
        if socks and place[1] == 0:
            place = (place[0], socks[0].getsockname()[1], *place[2:])  # noqa: PLW2901
        try:
            socks.append(socket.create_server(place, family=family, backlog=1024))
            socks[-1].setblocking(False)
        except OSError as error:
            if not socks or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                close(socks)
                raise
    return socks


def _places(address: Address) -> deque[tuple[int, Any]]:
    """What to try for an address: families of sockets, and addresses as those take them."""
    if isinstance(address, str):
        return deque([(socket.AF_UNIX, address)])
    host, port = address
    if not 0 <= port <= 65535:
        raise OSError(f"{port} is not a port")
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return deque((info[0], info[4]) for info in infos)


def close(outcome: Any) -> None:
    """Close sockets, and remove the paths that they listened at. The outcome of a job has none."""
    for sock in outcome if isinstance(outcome, list) else ():
        with suppress(OSError):
            name = sock.getsockname()
            if isinstance(name, str) and name and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                os.unlink(name)
        sock.close()


def plain(name: Any) -> Address:
    """What a socket calls an address, as the core has it."""
    return (name[0], name[1]) if isinstance(name, tuple) else os.fsdecode(name)


def describe(error: BaseException) -> tuple[ErrorKind, str]:
    """The kind of an error, and its text for the log. The core has no errno, for they differ between systems."""
    text = str(error) or type(error).__name__
    if isinstance(error, socket.gaierror):
        return "unreachable", text
    name = errno.errorcode.get(error.errno or 0, "") if isinstance(error, OSError) else ""
    for kind, names in KINDS.items():
        if name in names.split():
            return kind, text
    return "other", text


class Threads:
    """Runs what blocks, and what is to be awaited, elsewhere."""

    def __init__(self) -> None:
        self.jobs, self.dials = ThreadPoolExecutor(32), ThreadPoolExecutor(32)  # no name waits behind a job
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._thread = threading.Thread(target=self._runner.get_loop().run_forever, daemon=True)
        self._thread.start()

    def run(self, mode: str, call: Callable[[], Any]) -> Future[Any]:
        """Run a job; the future has what it returned or raised, as an `Outcome`."""
        if mode == "blocking":
            return self.jobs.submit(_called, call)
        return asyncio.run_coroutine_threadsafe(_awaited(call), self._runner.get_loop())

    def shut(self) -> None:
        """End them, and cancel what is awaited."""
        for pool in (self.jobs, self.dials):
            pool.shutdown(wait=False, cancel_futures=True)
        self._runner.get_loop().call_soon_threadsafe(self._runner.get_loop().stop)
        self._thread.join()
        self._runner.close()


def _called(call: Callable[[], Any]) -> Outcome:
    try:
        return call(), None
    except BaseException as error:  # whatever it is, the one who asked is told
        return None, error


async def _awaited(call: Callable[[], Awaitable[Any]]) -> Outcome:
    try:
        return await call(), None
    except BaseException as error:  # a SystemExit would end the loop, and with it all other jobs
        return None, error
