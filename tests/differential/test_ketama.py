"""Our ring beside two others: nginx's, by a table that one made and by the one that is installed, and uhashring's.

uhashring has no ring of this kind, but takes any hash: here it is given nginx's points, made by other means than ours,
and does the rest itself: it sorts, searches, wraps round, and takes endpoints off and puts them on again.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from random import Random

import pytest
from uhashring import HashRing  # type: ignore[import-untyped]

from coulee.lb.endpoint import Endpoint
from coulee.lb.ketama import Ketama
from tests.differential.nginx_ring import KEYS, SERVERS, ask, find_nginx, read_table
from tests.lb.stub import Asks, FakeView

ONE_POINT = ("127.0.0.149:9003", "127.0.0.48:9002")
"""Two that have the point 0x423ab33b in common, in the order of their text."""

KEY_OF_ONE_POINT = "k9528"


def view_of(servers: Sequence[tuple[str, int]]) -> FakeView:
    """A cluster as an `upstream` block has it; each endpoint is called as its server is."""
    members = [
        Endpoint(server if server.startswith("unix:") else f"http://{server}", name=server, weight=weight)
        for server, weight in servers
    ]
    return FakeView(members, Ketama(lambda exchange: exchange.request.target))


def choices(view: FakeView, keys: Sequence[str]) -> list[str]:
    return [chosen.name for key in keys if (chosen := view.choose(Asks(key)))]


def test_10_000_keys_go_where_nginx_sent_them() -> None:
    table = read_table()
    assert len(table) == len(KEYS) == 10_000
    assert set(table) == {server for server, _ in SERVERS}
    assert choices(view_of(SERVERS), KEYS) == table


def test_the_order_of_the_servers_does_not_matter() -> None:
    assert choices(view_of(SERVERS[::-1]), KEYS) == read_table()


@pytest.fixture
def nginx() -> str:
    program = find_nginx()
    if program is None:
        pytest.skip("nginx is not installed (Debian: nginx-light)")
    return program


def test_the_installed_nginx_agrees_on_its_table(nginx: str) -> None:
    assert ask(nginx, SERVERS, KEYS) == read_table()


@pytest.mark.parametrize("seed", range(3))
def test_the_installed_nginx_agrees_on_any_servers(nginx: str, seed: int) -> None:
    rng = Random(seed)
    ports = rng.sample(range(1024, 65536), 30)
    servers = [(f"127.{rng.randrange(256)}.{rng.randrange(256)}.7:{port}", rng.choice((1, 1, 2, 7))) for port in ports]
    keys = [f"{rng.getrandbits(rng.randrange(1, 90)):x}" for _ in range(2000)]
    assert choices(view_of(servers), keys) == ask(nginx, servers, keys)


def test_where_two_have_one_point_nginx_takes_the_first_and_we_the_first_in_order(nginx: str) -> None:
    for servers in (ONE_POINT, ONE_POINT[::-1]):
        weighted = [(server, 1) for server in servers]
        assert ask(nginx, weighted, [KEY_OF_ONE_POINT]) == [servers[0]]
        assert choices(view_of(weighted), [KEY_OF_ONE_POINT]) == [ONE_POINT[0]]


def test_a_server_without_a_port_is_another_one_for_nginx(nginx: str) -> None:
    named = [("127.0.0.3:80", 1), ("127.0.0.4:80", 1), ("127.0.0.5:80", 1)]
    bare = [(server.removesuffix(":80"), weight) for server, weight in named]
    keys = KEYS[:500]
    assert ask(nginx, named, keys) == choices(view_of(named), keys)
    assert ask(nginx, bare, keys) != choices(view_of(named), keys)


def test_a_host_name_is_hashed_as_it_is_written(nginx: str) -> None:
    servers = [("localhost:9005", 1), ("127.0.0.3:80", 1), ("127.0.0.4:80", 1)]
    keys = KEYS[:500]
    theirs = ask(nginx, servers, keys)
    where = ("127.0.0.1:9005", "[::1]:9005")  # what it found for that name, perhaps both
    assert choices(view_of(servers), keys) == ["localhost:9005" if each in where else each for each in theirs]


# ------------------------------------------------------------------------------------------------ uhashring


def hash_of(text: str) -> int:
    """What uhashring asks for: `SERVER-NUMBER`, the number of a point, and what is no such thing, a key."""
    server, _, number = text.rpartition("-")
    if server not in _POINTS:
        return binascii.crc32(text.encode())
    return _POINTS[server][int(number)]


def chain(server: str, length: int) -> list[int]:
    """The points of a server, each from the whole text that nginx hashes."""
    host, port = (server[5:], "") if server.startswith("unix:") else server.rsplit(":", 1)
    points = [0]
    for _ in range(length):
        points.append(binascii.crc32(b"%s\0%s%s" % (host.encode(), port.encode(), points[-1].to_bytes(4, "little"))))
    return points[1:]


_POINTS = {server: chain(server, weight * 160) for server, weight in SERVERS}


def uhashring_of(servers: Sequence[tuple[str, int]]) -> HashRing:
    return HashRing(dict(servers), hash_fn=hash_of, vnodes=160)


def test_uhashring_agrees_with_nginx_and_with_us() -> None:
    theirs = uhashring_of(SERVERS)
    assert [theirs.get_node(key) for key in KEYS] == read_table()


def test_the_whole_order_of_preference_is_that_of_uhashring() -> None:
    theirs = uhashring_of(SERVERS)
    view = view_of(SERVERS)
    for key in KEYS[:500]:
        tried: list[str] = []
        while chosen := view.choose(Asks(key, tried=tried)):
            tried.append(chosen.name)
        assert tried == list(theirs.iterate_nodes(key))


def test_what_goes_and_comes_back_does_so_as_in_uhashring() -> None:
    rng = Random(1)
    theirs = uhashring_of(SERVERS)
    view = view_of(SERVERS)
    everybody = list(view.members)
    for _ in range(12):
        endpoint = rng.choice(everybody)
        if endpoint not in view.members:
            theirs.add_node(endpoint.name, endpoint.weight)
            view.place([*view.members, endpoint])
            view.reopen(endpoint)
        elif len(view.members) > 1:
            theirs.remove_node(endpoint.name)
            view.place([each for each in view.members if each is not endpoint])
        keys = KEYS[:300]
        assert choices(view, keys) == [theirs.get_node(key) for key in keys]
