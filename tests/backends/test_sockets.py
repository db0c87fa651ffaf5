"""Sockets: what is tried for an address, what becomes of a path, and options that a system does not have.

That each backend sets the options that there are is shown by the conformance suite, on their sockets.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from coulee.backends import inherited, sockets, threads
from coulee.backends.addresses import describe
from coulee.backends.nonblocking import NonblockingListener
from coulee.conformance import Bench
from coulee.core import Proxy
from coulee.core.seam import (
    Accept,
    Accepted,
    Close,
    ConnectOptions,
    Drain,
    KeepAlive,
    Listen,
    Listener,
    Listening,
    ListenOptions,
)
from coulee.lb import Cluster
from tests.conformance.conftest import HARNESSES
from tests.conformance.harness import ThreadsHarness

V4, V6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
IP_LOCAL_PORT_RANGE = 51  # of Linux; Python does not know it yet
KEEP_ALIVE = KeepAlive(71, 13, 4)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def opened_at(stack: ExitStack, path: object, options: ListenOptions | None = None) -> socket.socket:
    """A socket that listens at a path, or is abstract."""
    places = sockets.targets(str(path))
    assert places is not None
    (sock,) = sockets.listen(places, options or ListenOptions())
    stack.enter_context(sock)
    return sock


def fails(path: object, options: ListenOptions | None = None) -> tuple[str, str]:
    """Of what kind the failure is, and its text."""
    with ExitStack() as stack, pytest.raises(OSError) as raised:  # noqa: PT011
        opened_at(stack, path, options)
    return describe(raised.value)


# ------------------------------------------------------------------------------------------------- addresses


def test_what_is_tried_for_an_address() -> None:
    assert sockets.targets("/run/a.sock") == [(UNIX, "/run/a.sock")]
    assert sockets.targets(("127.0.0.1", 80)) == [(V4, ("127.0.0.1", 80))]
    assert sockets.targets(("::1", 80)) == [(V6, ("::1", 80, 0, 0))]
    assert sockets.targets(("a.test", 80)) is None
    assert sockets.targets(("", 80)) == [(V4, ("0.0.0.0", 80)), (V6, ("::", 80))]


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_abstract_names_begin_with_a_zero_byte(stack: ExitStack) -> None:
    name = f"coulee-test-{os.getpid()}"
    assert sockets.targets(f"@{name}") == [(UNIX, f"\0{name}")]
    sock = opened_at(stack, f"@{name}")
    assert f"@{name}\n" in Path("/proc/net/unix").read_text()
    assert sockets.plain(sock.getsockname()) == f"@{name}"
    assert fails(f"@{name}") == ("resources", os.strerror(errno.EADDRINUSE))
    assert not Path(f"@{name}").exists()


def test_where_there_are_no_abstract_sockets_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OSError, match="abstract sockets are Linux's: write a path"):
        sockets.targets("@a")


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 80)),
        (("::1", 80, 0, 0), ("::1", 80)),
        (("::ffff:10.0.0.1", 80, 0, 0), ("10.0.0.1", 80)),
        (("::ffff:0:1", 80, 0, 0), ("::ffff:0:1", 80)),
        (("fe80::1%eth0", 80, 7, 2), ("fe80::1%eth0", 80)),
        ("/run/a.sock", "/run/a.sock"),
        ("", ""),
        (b"", ""),
        (b"\0a", "@a"),
        (b"\0a\0b", "@a@b"),
        (b"\0\xff", "@\udcff"),
    ],
)
def test_names_of_sockets_are_addresses(name: Any, address: object) -> None:
    assert sockets.plain(name) == address


# ----------------------------------------------------------------------------------------------------- paths


def test_nobody_connects_before_the_file_is_what_it_is_to_be(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tried = str(tmp_path / "a"), list[tuple[str, int]]()

    def knocking(change: Any) -> Any:
        def changed(of: str, *args: Any) -> None:
            with socket.socket(UNIX) as client:
                tried.append((change.__name__, client.connect_ex(of)))
            change(of, *args)

        return changed

    monkeypatch.setattr(os, "chown", knocking(os.chown))
    monkeypatch.setattr(os, "chmod", knocking(os.chmod))
    opened_at(stack, path, ListenOptions(mode=0o640, owner=str(os.getuid())))
    assert tried == [("chown", errno.ECONNREFUSED), ("chmod", errno.ECONNREFUSED)]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    with socket.socket(UNIX) as client:
        client.connect(path)


def test_an_owner_by_name_or_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []

    def chown(_: str, user: int, group: int) -> None:
        given.append((user, group))

    monkeypatch.setattr(os, "chown", chown)
    user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
    for owner in (user.pw_name, f"{user.pw_name}:{group.gr_name}", f":{group.gr_name}", "12", "12:13", ":13"):
        with ExitStack() as stack:
            opened_at(stack, tmp_path / "a", ListenOptions(owner=owner))
    uid, gid = user.pw_uid, group.gr_gid
    assert given == [(uid, -1), (uid, gid), (-1, gid), (12, -1), (12, 13), (-1, 13)]


@pytest.mark.parametrize(
    ("owner", "text"),
    [
        (
            "no-such-user",
            "there is no user 'no-such-user', which owner 'no-such-user' names: write one of this host, or",
        ),
        ("0:no-such-group", "there is no group 'no-such-group', which owner '0:no-such-group' names"),
        (str(2**32 - 1), "there is no user '4294967295'"),
        ("\u0661", "there is no user"),  # a digit, to Python
    ],
)
def test_an_owner_that_there_is_not(tmp_path: Path, owner: str, text: str) -> None:
    kind, said = fails(tmp_path / "a", ListenOptions(owner=owner))
    assert kind == "other"
    assert said.startswith(text)
    assert not (tmp_path / "a").exists()


def test_who_may_not_give_it_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", refuse)
    assert fails(tmp_path / "a", ListenOptions(owner="0")) == (
        "unreachable",
        "cannot give it to '0': that takes root, or CAP_CHOWN, or a group that you are in",
    )
    assert not (tmp_path / "a").exists()


def test_a_mode_that_cannot_be_set_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "chmod", fail)
    assert fails(tmp_path / "a", ListenOptions(mode=0o600)) == ("other", os.strerror(errno.EROFS))
    assert not (tmp_path / "a").exists()


def test_a_path_in_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fails(tmp_path / "no" / "a") == ("refused", f"there is no folder {tmp_path}/no: make it first")
    (tmp_path / "file").touch()
    assert fails(tmp_path / "file" / "a")[1] == os.strerror(errno.ENOTDIR)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert fails("a")[1] == "there is no folder .: make it first"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_a_path_in_a_folder_of_somebody_else(code: int, tmp_path: Path) -> None:
    class Refused(socket.socket):
        def bind(self, _: Any) -> None:
            raise PermissionError(code, os.strerror(code))

    with Refused(UNIX) as sock, pytest.raises(OSError) as raised:  # noqa: PT011 - root would be let in
        sockets._bind_unix(sock, str(tmp_path / "a"))
    assert raised.value.errno == code
    assert raised.value.strerror is not None
    assert raised.value.strerror.startswith(
        f"no permission to make a file in {tmp_path}: write a path in a folder of your own"
    )


def test_what_a_process_that_is_gone_has_left_is_taken_over(stack: ExitStack, tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    with socket.socket(UNIX) as gone:
        gone.bind(path)
    sock = opened_at(stack, path, ListenOptions(mode=0o600))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    sockets.stop_listening(sock)
    assert not os.path.exists(path)


def test_what_somebody_listens_at_is_left_alone(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "a"
    opened_at(stack, path, ListenOptions(mode=0o640))
    assert fails(path, ListenOptions(mode=0o600))[0] == "resources"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("of somebody")
    assert fails(path) == ("resources", "a file is in its place that is no socket: remove it, or write another path")
    assert path.read_text() == "of somebody"


# ------------------------------------------------------------------------------------------- what is wanting


def port(stack: ExitStack, options: ListenOptions, place: sockets.Target = (V4, ("127.0.0.1", 0))) -> socket.socket:
    (sock,) = sockets.listen([place], options)
    return stack.enter_context(sock)


@pytest.mark.parametrize(
    ("missing", "options"),
    [
        ("TCP_KEEPINTVL", ListenOptions(keep_alive=KEEP_ALIVE)),
        ("TCP_KEEPCNT", ListenOptions(keep_alive=KEEP_ALIVE)),
        ("SO_REUSEPORT", ListenOptions(reuse_port=True)),
        ("IP_TOS", ListenOptions(dscp=8)),
        ("TCP_USER_TIMEOUT", ConnectOptions(user_timeout_s=1.0)),
        ("IP_TOS", ConnectOptions(dscp=8)),
    ],
)
def test_what_would_be_missed_is_an_error(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack, missing: str, options: ListenOptions | ConnectOptions
) -> None:
    monkeypatch.delattr(socket, missing)
    text = f"this system has no {missing}, so .+ cannot be had: leave it out"
    if isinstance(options, ListenOptions):
        with pytest.raises(OSError, match=text):
            port(stack, options)
    else:
        with pytest.raises(OSError, match=text):
            sockets.dialling(V4, options)


@pytest.mark.parametrize("missing", ["TCP_FASTOPEN", "TCP_DEFER_ACCEPT"])
def test_what_saves_time_is_not_missed(monkeypatch: pytest.MonkeyPatch, stack: ExitStack, missing: str) -> None:
    monkeypatch.delattr(socket, missing)
    port(stack, ListenOptions(fast_open=5, defer_accept_s=5))
    monkeypatch.setattr(socket, missing, 9999, raising=False)  # it is known, and the system does not take it
    port(stack, ListenOptions(fast_open=5, defer_accept_s=5))


def test_what_the_system_does_not_take_is_told(monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> None:
    monkeypatch.setattr(socket, "TCP_KEEPCNT", 9999)
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match=r"keep_alive cannot be had: this system does not take TCP_KEEPCNT = 4: .+"):
        port(stack, ListenOptions(keep_alive=KEEP_ALIVE))
    with pytest.raises(OSError, match="keep_alive cannot be had"):
        sockets.dialling(V4, ConnectOptions(keep_alive=KEEP_ALIVE))
    assert len(os.listdir("/dev/fd")) == before


def test_idle_time_by_the_name_of_macos(monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> None:
    number = socket.TCP_KEEPIDLE
    monkeypatch.delattr(socket, "TCP_KEEPIDLE")
    monkeypatch.setattr(socket, "TCP_KEEPALIVE", number, raising=False)
    sock = port(stack, ListenOptions(keep_alive=KEEP_ALIVE))
    assert sock.getsockopt(socket.IPPROTO_TCP, number) == 71


def test_ports_that_are_chosen_late_are_not_missed(monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> None:
    for number in (None, 9999):
        monkeypatch.setattr(sockets, "_BIND_ADDRESS_NO_PORT", number)
        sock = stack.enter_context(sockets.dialling(V4, ConnectOptions("127.0.0.1")))
        assert sock.getsockname()[1] > 0


@pytest.mark.parametrize(("family", "source"), [(V4, "127.0.0.1"), (V6, "::1")])
def test_connections_from_one_address_to_different_places_share_a_port(
    stack: ExitStack, family: int, source: str
) -> None:
    """There is one port that they may have. One that is chosen before it is known where to would be for one of them."""
    try:
        places = [stack.enter_context(socket.create_server((source, 0), family=family)) for _ in range(2)]
    except OSError:
        pytest.skip(f"there is no {source} here")
    with socket.create_server((source, 0), family=family) as free:
        only: int = free.getsockname()[1]
    for place in places:
        sock = stack.enter_context(sockets.dialling(family, ConnectOptions(source)))
        try:
            sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("HH", only, only))
        except OSError:
            pytest.skip("this system cannot narrow the ports of one socket (Linux 6.3 can)")
        assert sock.connect_ex(place.getsockname()) in (0, errno.EINPROGRESS)
        assert sock.getsockname()[:2] == (source, only)


def test_a_source_that_cannot_be_bound_to() -> None:
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match=r"^\[Errno \d+\] cannot connect from 192.0.2.1: it is no address of this host$"):
        sockets.dialling(V4, ConnectOptions("192.0.2.1"))
    with pytest.raises(OSError, match=r"cannot connect from ::1: .+"):
        sockets.dialling(V4, ConnectOptions("::1"))
    assert len(os.listdir("/dev/fd")) == before


def test_places_of_another_family_than_the_source_are_left_out() -> None:
    v4, v6, path = (V4, ("10.0.0.1", 80)), (V6, ("::2", 80, 0, 0)), (UNIX, "/run/a.sock")
    assert sockets.from_source([v4, v6, path], ConnectOptions()) == [v4, v6, path]
    assert sockets.from_source([v4, v6, path], ConnectOptions("10.0.0.2")) == [v4, path]
    assert sockets.from_source([v4, v6], ConnectOptions("::3")) == [v6]
    with pytest.raises(OSError, match="it has no IPv4 address, and is to be reached from 10.0.0.2") as raised:
        sockets.from_source([v6], ConnectOptions("10.0.0.2"))
    assert describe(raised.value)[0] == "unreachable"


def test_options_that_are_for_other_addresses(tmp_path: Path) -> None:
    path = tmp_path / "a"
    of_tcp = "reuse_port and dual_stack are of TCP addresses, and this is a Unix socket"
    of_file = "mode and owner are of a file, and an abstract socket has none: write a path, or omit them"
    assert fails(path, ListenOptions(reuse_port=True)) == ("other", of_tcp)
    assert fails(path, ListenOptions(dual_stack=True)) == ("other", of_tcp)
    if sys.platform == "linux":
        assert fails("@a", ListenOptions(mode=0o600)) == ("other", of_file)
        assert fails("@a", ListenOptions(owner="0")) == ("other", of_file)
    with ExitStack() as stack, pytest.raises(OSError, match="mode and owner are of a Unix socket's file"):
        port(stack, ListenOptions(mode=0o600))
    for place in ((V4, ("0.0.0.0", 0)), (V6, ("::1", 0))):
        with ExitStack() as stack, pytest.raises(OSError, match=r"write '\[::\]:PORT' or ':PORT'"):
            port(stack, ListenOptions(dual_stack=True), place)


# -------------------------------------------------------------------------------------- sockets that were given


def test_what_can_be_set_afterwards_is_set_on_a_socket_that_was_given(stack: ExitStack, tmp_path: Path) -> None:
    address = ("127.0.0.1", 0)
    (original,) = inherited.open_all(address, ListenOptions(backlog=7))
    stack.enter_context(original)
    stack.enter_context(inherited.giving(address, [original]))
    options = ListenOptions(99, 0o600, "no-such-user", True, True, KEEP_ALIVE, 5, 5, 8)  # some are the giver's
    (lent,) = inherited.given(address, options) or []
    with lent:
        assert lent.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 71
        assert lent.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 32
        assert lent.getsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN) == 5
        assert lent.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= 5
        assert not lent.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    path = str(tmp_path / "a")
    (original,) = inherited.open_all(path, ListenOptions(mode=0o640))
    stack.callback(sockets.stop_listening, original)
    stack.enter_context(inherited.giving(path, [original]))
    (lent,) = inherited.given(path, ListenOptions(mode=0o600, keep_alive=KEEP_ALIVE)) or []
    lent.close()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640


def test_a_socket_that_was_given_and_cannot_be_set_leaves_no_duplicate(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    address = ("127.0.0.1", 0)
    originals = [stack.enter_context(inherited.open_all(address)[0]) for _ in range(2)]
    stack.enter_context(inherited.giving(address, originals))
    monkeypatch.delattr(socket, "IP_TOS")
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match="IP_TOS"):
        inherited.given(address, ListenOptions(dscp=8))
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_abstract_sockets_are_given(stack: ExitStack) -> None:
    name = f"@coulee-test-{os.getpid()}"
    (original,) = inherited.open_all(name)
    stack.enter_context(original)
    stack.enter_context(inherited.giving(name, [original]))
    assert sockets.plain(original.getsockname()) == name
    for lent in inherited.given(name) or []:
        with lent:
            assert sockets.plain(lent.getsockname()) == name
    assert inherited.given(name.removeprefix("@")) is None


@pytest.fixture(params=[name for name in HARNESSES if "simulator" not in name])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    harness = HARNESSES[request.param]()
    try:
        bench = Bench(harness)
        yield bench
        bench.end()
    finally:
        harness.end()


def test_each_backend_sets_options_on_what_it_was_given(bench: Bench, stack: ExitStack) -> None:
    address = ("127.0.0.1", 0)
    (original,) = inherited.open_all(address)
    stack.enter_context(original)
    stack.enter_context(inherited.giving(address, [original]))
    listener, conn = bench.number(), bench.number()
    bench.do(Listen(listener, address, ListenOptions(keep_alive=KEEP_ALIVE)), Accept(conn, listener))
    bench.harness.connect(bench.wait(Listening, listener).local)
    accepted = bench.wait(Accepted, conn)
    with bench.harness.look_at(accepted.local, accepted.peer) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 71


@pytest.mark.parametrize("backlog", [2, 1200])
def test_who_is_in_the_backlog_is_let_in_when_it_ends(backlog: int) -> None:
    """All of them: Linux takes one more than it is told."""
    if backlog > int(Path("/proc/sys/net/core/somaxconn").read_text()):
        pytest.skip("this system has no backlog of such a length")
    harness = ThreadsHarness()
    harness.make_room(3 * backlog)
    bench = Bench(harness)
    try:
        listener, conns = bench.number(), [bench.number() for _ in range(backlog + 1)]
        bench.do(Listen(listener, ("127.0.0.1", 0), ListenOptions(backlog=backlog)))
        local = bench.wait(Listening, listener).local
        for _ in conns:
            harness.connect(local)
        bench.react(Drain, 0, Close(listener))
        bench.do(*(Accept(conn, listener) for conn in conns))
        harness.driver.drain(30.0)
        assert sum(len(bench.heard(Accepted, conn)) for conn in conns) == len(conns)
        bench.end()
    finally:
        harness.end()


@pytest.mark.parametrize("options", [ListenOptions(dscp=8, backlog=7), ListenOptions(dscp=8, reuse_port=True)])
def test_each_worker_has_the_options(options: ListenOptions) -> None:
    running = threads.start(Proxy(Cluster("http://127.0.0.1:9")), Listener("127.0.0.1:0", options=options), workers=3)
    try:
        for driver in running.drivers:
            (listener,) = driver.listeners.values()
            assert isinstance(listener, NonblockingListener)
            (sock,) = listener._sockets
            assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 32
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
            assert struct.unpack_from("I", info, 28) == (options.backlog,)  # tcpi_sacked, which is the backlog here
    finally:
        running.stop(0.0)
        running.join()


def test_workers_have_one_path_with_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a"
    listen = Listener(str(path), options=ListenOptions(mode=0o640))
    running = threads.start(Proxy(Cluster("http://127.0.0.1:9")), listen, workers=3)
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        running.stop(0.0)
        running.join()
    assert not path.exists()
