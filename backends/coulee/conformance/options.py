"""Options of sockets: each is seen on the socket of the backend, or by who connects; and one that cannot be is told.

A world without sockets of the system takes them all, and nothing comes of it.
"""

from __future__ import annotations

import os
import socket
import stat
import struct

import pytest

from coulee.conformance.bench import Bench, Chapter, port_of
from coulee.conformance.harness import TCP
from coulee.core.seam import (
    Accept,
    Accepted,
    Address,
    Closed,
    Connect,
    Connected,
    ConnectOptions,
    KeepAlive,
    Listen,
    Listening,
    ListenOptions,
    Receive,
)

HERE = "127.0.0.5"  # of this host, where all of 127.0.0.0/8 is
NOT_HERE = "192.0.2.1"  # of no host (RFC 5737)
NAME = "somewhere.test"
DEAD = "127.0.0.2"  # of this host, and nobody listens there
KEEP_ALIVE = KeepAlive(idle_s=71, interval_s=13, probes_max=4)
DSCP = 46  # "expedited forwarding" (RFC 3246)
TOS = DSCP << 2  # its place in the octet


class Options(Chapter):
    """See the top of the module."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    def test_options_of_a_connection(self, bench: Bench, host: str) -> None:
        source = "" if ":" in host else "127.0.0.1"
        options = ConnectOptions(source, KEEP_ALIVE, user_timeout_s=2.5, dscp=DSCP)
        local, peers = bench.harness.listen(at(bench, host))
        conn = bench.number()
        bench.do(Connect(conn, local, options))
        connected = bench.wait(Connected, conn)
        bench.harness.until(lambda: peers)
        bench.do(Receive(conn))
        bench.echo(conn, peers[0])
        with bench.harness.look_at(connected.local, connected.peer) as sock:
            check_common(sock)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2500

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    def test_options_of_a_connection_that_is_accepted(self, bench: Bench, host: str) -> None:
        address = at(bench, host)
        accepted = accept(bench, address, host, ListenOptions(keep_alive=KEEP_ALIVE, dscp=DSCP))
        with bench.harness.look_at(accepted.local, accepted.peer) as sock:
            check_common(sock)

    def test_what_nobody_asks_for_is_left_alone(self, bench: Bench) -> None:
        listener, local = bench.listener()
        one, other = bench.number(), bench.number()
        bench.do(Accept(one, listener), Connect(other, local))
        for stands in (bench.wait(Accepted, one), bench.wait(Connected, other)):
            with bench.harness.look_at(stands.local, stands.peer) as sock:
                assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert not sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)

    def test_options_of_a_listener(self, bench: Bench) -> None:
        local = listen(bench, TCP, ListenOptions(backlog=7, fast_open=5, defer_accept_s=3, reuse_port=True))
        with bench.harness.look_at(local) as sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            if hasattr(socket, "TCP_FASTOPEN"):
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN)
            if hasattr(socket, "TCP_DEFER_ACCEPT"):  # Linux keeps it as a number of retransmissions
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= 3
            if hasattr(socket, "TCP_INFO"):
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
                assert struct.unpack_from("I", info, 28) == (7,)  # tcpi_sacked, which is the backlog here

    def test_listeners_that_share_a_port(self, bench: Bench) -> None:
        need_sockets(bench)
        local = listen(bench, TCP, ListenOptions(reuse_port=True))
        assert listen(bench, local, ListenOptions(reuse_port=True)) == local
        third = bench.number()
        bench.do(Listen(third, local))
        assert bench.wait(Closed, third).error == "resources"

    @pytest.mark.parametrize("host", ["", "::"])
    def test_ipv4_comes_by_an_ipv6_socket(self, bench: Bench, host: str) -> None:
        """And is seen as what it is, with the options of both."""
        if not bench.harness.has_ipv6:
            pytest.skip("there is no ::1 here")
        options = ListenOptions(dual_stack=True, dscp=DSCP)
        for each in ("127.0.0.1", "::1"):
            accepted = accept(bench, (host, 0), each, options)
            if bench.harness.has_socket_options:
                assert accepted.peer[0] == accepted.local[0] == each
            with bench.harness.look_at(accepted.local, accepted.peer) as sock:
                assert sock.family == socket.AF_INET6
                if each == "127.0.0.1":
                    assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == TOS
                else:
                    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == TOS

    def test_where_a_connection_comes_from(self, bench: Bench) -> None:
        need_sockets(bench)
        need_here()
        listener, local = bench.listener()
        ups, downs = [bench.number() for _ in range(3)], [bench.number() for _ in range(3)]
        bench.do(*(Accept(conn, listener) for conn in ups))
        bench.do(*(Connect(conn, local, ConnectOptions(HERE)) for conn in downs))
        ours = {bench.wait(Connected, conn).local for conn in downs}
        assert {each[0] for each in ours} == {HERE}
        assert {bench.wait(Accepted, conn).peer for conn in ups} == ours
        assert len(ours) == 3

    def test_connections_from_one_address_share_its_ports(self, bench: Bench) -> None:
        """To two places. A port that is bound to at once would be for one connection only."""
        need_sockets(bench)
        if not hasattr(socket, "TCP_INFO"):
            pytest.skip("only Linux can put this off")
        need_here()
        conn, (local, _) = bench.number(), bench.harness.listen(TCP)
        bench.do(Connect(conn, local, ConnectOptions(HERE)))
        connected = bench.wait(Connected, conn)
        with bench.harness.look_at(connected.local, connected.peer) as sock:
            assert sock.getsockopt(socket.IPPROTO_IP, 24)  # IP_BIND_ADDRESS_NO_PORT

    def test_a_source_that_is_not_ours(self, bench: Bench) -> None:
        need_sockets(bench)
        conn, (local, _) = bench.number(), bench.harness.listen(TCP)
        bench.do(Connect(conn, local, ConnectOptions(NOT_HERE)))
        closed = bench.wait(Closed, conn)
        assert closed.error == "resources"
        assert NOT_HERE in closed.detail

    def test_addresses_of_another_family_than_the_source_are_left_out(self, bench: Bench) -> None:
        need_sockets(bench)
        local, peers = bench.harness.listen(TCP)
        bench.harness.look_up(lambda _: ["::1", DEAD, "127.0.0.1"])
        conn = bench.number()
        bench.do(Connect(conn, (NAME, port_of(local)), ConnectOptions("127.0.0.1", keep_alive=KEEP_ALIVE, dscp=DSCP)))
        connected = bench.wait(Connected, conn)
        assert connected.peer == local
        bench.harness.until(lambda: peers)
        with bench.harness.look_at(connected.local, connected.peer) as sock:
            check_common(sock)

    @pytest.mark.parametrize("by_name", [False, True], ids=["address", "name"])
    def test_no_address_is_of_the_family_of_the_source(self, bench: Bench, by_name: bool) -> None:
        need_sockets(bench)
        local, _ = bench.harness.listen(TCP)
        bench.harness.look_up(lambda _: ["127.0.0.1"])
        conn = bench.number()
        bench.do(Connect(conn, (NAME, port_of(local)) if by_name else local, ConnectOptions("::1")))
        closed = bench.wait(Closed, conn)
        assert closed.error == "unreachable"
        assert "IPv6" in closed.detail
        assert "::1" in closed.detail

    def test_options_of_tcp_mean_nothing_to_a_path(self, bench: Bench) -> None:
        path = bench.harness.path()
        listener, up, down = bench.number(), bench.number(), bench.number()
        bench.do(Listen(listener, path, ListenOptions(8, None, "", False, False, KEEP_ALIVE, 5, 3, DSCP)))
        bench.wait(Listening, listener)
        bench.do(Accept(up, listener), Connect(down, path, ConnectOptions("127.0.0.1", KEEP_ALIVE, 1.0, DSCP)))
        bench.wait(Accepted, up)
        bench.wait(Connected, down)

    @pytest.mark.parametrize("mode", [0o600, 0o666])
    def test_the_permissions_of_a_path(self, bench: Bench, mode: int) -> None:
        path = bench.harness.path()
        assert listen(bench, path, ListenOptions(mode=mode)) == path
        need_sockets(bench)
        assert stat.S_IMODE(os.stat(path).st_mode) == mode

    def test_the_owner_of_a_path(self, bench: Bench) -> None:
        need_sockets(bench)
        for owner in (f"{os.getuid()}:{os.getgid()}", f"{os.getuid()}", f":{os.getgid()}"):
            path = bench.harness.path()
            listen(bench, path, ListenOptions(owner=owner))
            assert (os.stat(path).st_uid, os.stat(path).st_gid) == (os.getuid(), os.getgid())

    def test_an_owner_that_there_is_not(self, bench: Bench) -> None:
        need_sockets(bench)
        path, listener = bench.harness.path(), bench.number()
        bench.do(Listen(listener, path, ListenOptions(owner="nobody-of-this-name")))
        assert "nobody-of-this-name" in bench.wait(Closed, listener).detail
        assert not os.path.exists(path)

    def test_options_that_are_for_other_addresses(self, bench: Bench) -> None:
        need_sockets(bench)
        wrong: list[tuple[Address, ListenOptions]] = [
            (TCP, ListenOptions(mode=0o600)),
            (TCP, ListenOptions(owner="root")),
            (bench.harness.path(), ListenOptions(reuse_port=True)),
            (bench.harness.path(), ListenOptions(dual_stack=True)),
            (TCP, ListenOptions(dual_stack=True)),
            ("@" + bench.harness.path(), ListenOptions(mode=0o600)),
            ("@" + bench.harness.path(), ListenOptions(owner="root")),
        ]
        for address, options in wrong:
            listener = bench.number()
            bench.do(Listen(listener, address, options))
            closed = bench.wait(Closed, listener)
            assert closed.error == "other"
            assert closed.detail


def listen(bench: Bench, address: Address, options: ListenOptions) -> Address:
    """Where it listens then."""
    listener = bench.number()
    bench.do(Listen(listener, address, options))
    return bench.wait(Listening, listener).local


def accept(bench: Bench, address: Address, host: str, options: ListenOptions) -> Accepted:
    """A connection that a peer makes to `host`, where we listen at an address of it."""
    listener, conn = bench.number(), bench.number()
    bench.do(Listen(listener, address, options), Accept(conn, listener))
    local = bench.wait(Listening, listener).local
    peer = bench.harness.connect((host, port_of(local)))
    accepted = bench.wait(Accepted, conn)
    bench.do(Receive(conn))
    bench.echo(conn, peer)
    return accepted


def check_common(sock: socket.socket) -> None:
    """What both ways have."""
    idle = getattr(socket, "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE")  # so macOS calls it
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, idle) == KEEP_ALIVE.idle_s
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == KEEP_ALIVE.interval_s
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == KEEP_ALIVE.probes_max
    if sock.family == socket.AF_INET6:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == TOS
    else:
        assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == TOS


def at(bench: Bench, host: str) -> Address:
    """A free port of it."""
    if ":" in host and not bench.harness.has_ipv6:
        pytest.skip("there is no ::1 here")
    return host, 0


def need_sockets(bench: Bench) -> None:
    if not bench.harness.has_socket_options:
        pytest.skip("nothing comes of options of sockets here")


def need_here() -> None:
    with socket.socket() as sock:
        try:
            sock.bind((HERE, 0))
        except OSError:
            pytest.skip(f"this system has no {HERE}")
