"""Families of addresses: IPv4, IPv6, both at once, the paths of Unix sockets, and names that are not paths."""

from __future__ import annotations

import sys

import pytest

from coulee.conformance.bench import Bench, Chapter, port_of
from coulee.core.seam import Accept, Accepted, Address, Close, Closed, Connect, Connected, Listen, Receive, Send


class Addresses(Chapter):
    """See the top of the module."""

    def test_ipv4(self, bench: Bench) -> None:
        there_and_back(bench, ("127.0.0.1", 0))

    def test_ipv6(self, bench: Bench) -> None:
        if not bench.harness.has_ipv6:
            pytest.skip("there is no ::1 here")
        there_and_back(bench, ("::1", 0))

    def test_unix_sockets(self, bench: Bench) -> None:
        there_and_back(bench, bench.harness.path())

    def test_abstract_unix_sockets(self, bench: Bench) -> None:
        need_abstract("@")
        there_and_back(bench, "@" + bench.harness.path())

    @pytest.mark.parametrize("prefix", ["", "@"], ids=["path", "abstract"])
    def test_names_of_unix_sockets(self, bench: Bench, prefix: str) -> None:
        """Who connects has none."""
        need_abstract(prefix)
        listener, local = bench.listener(prefix + bench.harness.path())
        up, down = bench.number(), bench.number()
        bench.do(Accept(up, listener), Connect(down, local))
        accepted, connected = bench.wait(Accepted, up), bench.wait(Connected, down)
        assert str(local).startswith(f"{prefix}/")
        assert (accepted.local, accepted.peer) == (local, "")
        assert (connected.local, connected.peer) == ("", local)

    @pytest.mark.parametrize(
        "name",
        ["", "@", "/nul\0", "@nul\0", "/" + "p" * 107, "@" + "p" * 108, "/\ud800"],
        ids=["none", "no name", "nul", "abstract nul", "long", "abstract long", "no text"],
    )
    def test_what_cannot_be_a_unix_socket(self, bench: Bench, name: str) -> None:
        conn, listener = bench.number(), bench.number()
        bench.do(Connect(conn, name), Listen(listener, name))
        for number in (conn, listener):
            closed = bench.wait(Closed, number)
            assert closed.error == "other"
            assert closed.detail

    def test_no_host_stands_for_all_addresses_of_this_one(self, bench: Bench) -> None:
        listener, local = bench.listener(("", 0))
        for host in ("127.0.0.1", "::1") if bench.harness.has_ipv6 else ("127.0.0.1",):
            conn = bench.number()
            bench.do(Accept(conn, listener))
            bench.harness.connect((host, port_of(local)))
            bench.wait(Accepted, conn)

    def test_ipv6_has_a_port_of_its_own(self, bench: Bench) -> None:
        """Who listens at an IPv6 address does not have the IPv4 ones too."""
        if not bench.harness.has_ipv6:
            pytest.skip("there is no ::1 here")
        _, local = bench.listener(("::1", 0))
        assert bench.listener(("127.0.0.1", port_of(local)))[1] == ("127.0.0.1", local[1])

    @pytest.mark.parametrize("prefix", ["", "@"], ids=["path", "abstract"])
    def test_the_path_of_a_listener_is_free_again_behind_it(self, bench: Bench, prefix: str) -> None:
        need_abstract(prefix)
        path = prefix + bench.harness.path()
        for _ in range(2):
            listener, local = bench.listener(path)
            assert local == path
            bench.do(Close(listener))
            bench.wait(Closed, listener)
            conn = bench.number()
            bench.do(Connect(conn, path))
            assert bench.wait(Closed, conn).error == "refused"

    @pytest.mark.parametrize("prefix", ["", "@"], ids=["path", "abstract"])
    def test_a_path_that_is_taken(self, bench: Bench, prefix: str) -> None:
        need_abstract(prefix)
        _, local = bench.listener(prefix + bench.harness.path())
        second = bench.number()
        bench.do(Listen(second, local))
        assert bench.wait(Closed, second).error == "resources"
        up = bench.number()
        bench.do(Connect(up, local))
        bench.wait(Connected, up)

    def test_a_port_that_is_none(self, bench: Bench) -> None:
        conn, listener = bench.number(), bench.number()
        bench.do(Connect(conn, ("127.0.0.1", 65536)), Listen(listener, ("127.0.0.1", -1)))
        for number in (conn, listener):
            assert bench.wait(Closed, number).error == "other"


def need_abstract(prefix: str) -> None:
    if prefix == "@" and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")


def there_and_back(bench: Bench, address: Address) -> None:
    """Bytes each way: on a connection that has been accepted at an address, and on one made to it."""
    accepted = bench.accepted(address)
    other = address if isinstance(address, tuple) else f"{address}-2"
    for conn, peer in (accepted, bench.connected(other)):
        bench.do(Receive(conn), Send(conn, b"to the peer"))
        peer.write(b"from the peer")
        assert bench.wait_for_bytes(conn, 13) == b"from the peer"
        bench.wait_for_peer(peer, b"to the peer")
