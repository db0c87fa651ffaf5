"""What blocks, as a driver of one's own may do it: in threads, with nothing of coulee but the seam.

`connected` and `listening` are for a thread: they look up names, try every address of one, set the options of sockets,
and return sockets that do not block. `Threads` has the threads, and a loop of asyncio's for native jobs, where the host
has none of its own. All that is known by a `concurrent.futures.Future`, which the driver waits for in its own way.
"""

import asyncio
import errno
import os
import select
import shutil
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeAlias

from coulee.core.seam import Address, ConnectOptions, ErrorKind, ListenOptions

HEAD_START_S = 0.25  # of one address of a name over the next (RFC 8305, section 5)
Outcome: TypeAlias = tuple[Any, BaseException | None]
KINDS: dict[ErrorKind, str] = {
    "refused": "ECONNREFUSED ENOENT",
    "unreachable": "ENETUNREACH EHOSTUNREACH EACCES EPERM EAFNOSUPPORT",
    "timed_out": "ETIMEDOUT",
    "reset": "ECONNRESET EPIPE ENOTCONN",
    "resources": "EMFILE ENFILE ENOMEM ENOBUFS EAGAIN EADDRINUSE EADDRNOTAVAIL",
}
SAVING_TIME = ("TCP_FASTOPEN", "TCP_DEFER_ACCEPT", "IP_BIND_ADDRESS_NO_PORT")  # so no system need have them


def connected(address: Address, options: ConnectOptions, is_wanted: Callable[[], bool]) -> list[socket.socket]:
    """One socket, which is connected. Each address of a name has a head start on the next. Gives up when told to."""
    places = _reachable(_places(address), options.source)
    trying: list[socket.socket] = []
    trouble = OSError("nobody waits for it any more")
    while is_wanted() and (places or trying):
        if places:
            family, place = places.popleft()
            try:
                trying.append(socket.socket(family, socket.SOCK_STREAM))
                _prepare(trying[-1], options)
                if options.source and family != socket.AF_UNIX:
                    _bind_source(trying[-1], options.source)
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


def listening(address: Address, options: ListenOptions) -> list[socket.socket]:
    """Sockets that listen at every address of a name that is ours, all on one port."""
    _check(address, options)
    socks: list[socket.socket] = []
    for family, place in _places(address):
        if options.dual_stack and family != socket.AF_INET6:
            continue
        if socks and place[1] == 0:
            place = (place[0], socks[0].getsockname()[1], *place[2:])  # noqa: PLW2901
        try:
            socks.append(_open(family, place, options))
        except OSError as error:
            if not socks or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                close(socks)
                raise
    return socks


def _open(family: int, place: Any, options: ListenOptions) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not options.dual_stack)
        _prepare(sock, options)
        sock.bind(place)
        try:
            if options.owner:
                user, _, group = options.owner.partition(":")
                shutil.chown(place, _known_as(user), _known_as(group))
            if options.mode is not None:
                os.chmod(place, options.mode)
        except BaseException:
            os.unlink(place)
            raise
        sock.listen(options.backlog)  # nobody can connect before this
    except BaseException:
        sock.close()
        raise
    return sock


def _prepare(sock: socket.socket, options: ListenOptions | ConnectOptions) -> None:
    """Set what is of TCP. Who is accepted inherits it from the socket that listens."""
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        return
    whole, tcp, ip, ipv6 = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6
    wanted: list[tuple[int, str, int]] = []
    if options.keep_alive is not None:
        wanted.append((whole, "SO_KEEPALIVE", 1))
        wanted.append((tcp, "TCP_KEEPIDLE", options.keep_alive.idle_s))
        wanted.append((tcp, "TCP_KEEPINTVL", options.keep_alive.interval_s))
        wanted.append((tcp, "TCP_KEEPCNT", options.keep_alive.probes_max))
    if options.dscp is not None:
        wanted.append((ip, "IP_TOS", options.dscp << 2))
    if options.dscp is not None and sock.family == socket.AF_INET6:
        wanted.append((ipv6, "IPV6_TCLASS", options.dscp << 2))
    if isinstance(options, ConnectOptions):
        wanted.append((tcp, "TCP_USER_TIMEOUT", round(options.user_timeout_s * 1000)))
        wanted.append((ip, "IP_BIND_ADDRESS_NO_PORT", bool(options.source)))
    else:
        wanted.append((whole, "SO_REUSEPORT", options.reuse_port))
        wanted.append((tcp, "TCP_FASTOPEN", options.fast_open))
        wanted.append((tcp, "TCP_DEFER_ACCEPT", options.defer_accept_s))
    for level, name, value in wanted:
        if hasattr(socket, name):
            sock.setsockopt(level, getattr(socket, name), value)
        elif value and name not in SAVING_TIME:
            raise OSError(f"this system has no {name}")


def _check(address: Address, options: ListenOptions) -> None:
    """Options that are for other addresses are a mistake."""
    has_file = isinstance(address, str) and not address.startswith("@")
    if not has_file and (options.mode is not None or options.owner):
        raise OSError("mode and owner are of the file of a Unix socket")
    if isinstance(address, str) and options.reuse_port:
        raise OSError("reuse_port is of TCP")
    if options.dual_stack and (isinstance(address, str) or address[0] not in ("", "::")):
        raise OSError("dual_stack is of all addresses of this host")


def _known_as(owner: str) -> Any:
    """As `shutil.chown` takes it, which knows names."""
    return int(owner) if owner.isdecimal() else owner or None


def _bind_source(sock: socket.socket, source: str) -> None:
    try:
        sock.bind((source, 0))
    except OSError as error:
        raise OSError(error.errno, f"cannot connect from {source}: {error.strerror}") from error


def _reachable(places: deque[tuple[int, Any]], source: str) -> deque[tuple[int, Any]]:
    """Those that are of the family of the source; or paths."""
    family, kind = (socket.AF_INET6, "IPv6") if ":" in source else (socket.AF_INET, "IPv4")
    found = deque(place for place in places if not source or place[0] in (family, socket.AF_UNIX))
    if not found:
        raise OSError(errno.EAFNOSUPPORT, f"it has no {kind} address, and is to be reached from {source}")
    return found


def _places(address: Address) -> deque[tuple[int, Any]]:
    """What to try for an address: families of sockets, and addresses as those take them."""
    if isinstance(address, str):
        if not os.fsencode(address).removeprefix(b"@") or "\0" in address:
            raise OSError(f"{address!r} names no Unix socket")
        return deque([(socket.AF_UNIX, f"\0{address[1:]}" if address.startswith("@") else address)])
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
    """What a socket calls an address, as the core has it: IPv4 within IPv6 as IPv4, and an abstract name with `@`."""
    if isinstance(name, tuple):
        return name[0].removeprefix("::ffff:") if "." in name[0] else name[0], name[1]
    return os.fsdecode(name.replace(b"\0", b"@") if isinstance(name, bytes) else name)


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
