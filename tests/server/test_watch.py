"""The first look at the origins: who is down is named with the reason, on real loopback sockets and in no time."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coulee.core import Balancer, Peer, Proxy
from coulee.core.peer import Routed
from coulee.lb import Cluster
from coulee.server.watch import say_what_is_down


@pytest.fixture
def up() -> Iterator[Peer]:
    """An origin that takes connections."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield Peer(listener.getsockname(), name="up")


@pytest.fixture
def down() -> Iterator[Peer]:
    """An origin that refuses: the port is bound, and nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield Peer(bound.getsockname(), name="down")


def lookers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "coulee-first-look"]


def said(*peers: Peer) -> list[str]:
    """The lines that the look at a cluster prints."""
    out = io.StringIO()
    say_what_is_down(Proxy(Cluster(*peers)), out)
    for thread in lookers():
        thread.join(30)
    return out.getvalue().splitlines()


def test_nothing_is_said_of_origins_that_are_up(up: Peer) -> None:
    assert said(up) == []


def test_an_origin_that_is_down_is_named_with_how_many_are_left(up: Peer, down: Peer) -> None:
    assert said(up, down) == ["! down is down (connection refused); 1 of 2 endpoints left"]


def test_when_none_is_left_it_is_said_what_that_means(down: Peer) -> None:
    assert said(down) == ["! down is down (connection refused); requests will fail until it is up"]


def test_each_origin_that_is_down_has_a_line(down: Peer, tmp_path: Path) -> None:
    path = f"{tmp_path}/none.sock"
    assert said(down, Peer(path)) == [
        "! down is down (connection refused); requests will fail until it is up",
        f"! {path} is down (no such file or directory); requests will fail until it is up",
    ]


def test_an_origin_on_a_unix_socket_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("up.sock")
        listener.listen()
        assert said(Peer("up.sock")) == []


def test_a_reason_that_the_system_has_no_words_for_is_told_in_python_s() -> None:
    (line,) = said(Peer("/" + "a" * 200, name="long"))
    assert line == "! long is down (af_unix path too long); requests will fail until it is up"


@pytest.mark.parametrize("address", [("a..example", 80), ("a" * 64 + ".example", 80), ("127.0.0.1", 70000)])
def test_an_address_that_no_name_server_can_be_asked_for_is_down_like_any_other(address: tuple[str, int]) -> None:
    (line,) = said(Peer(address, name="odd"))
    assert line.startswith("! odd is down (")


def test_a_balancer_of_another_kind_is_left_alone() -> None:
    class Mine(Balancer):
        def choose(self, exchange: Routed) -> Peer | None:
            return None

    out = io.StringIO()
    say_what_is_down(Proxy(Mine()), out)
    assert lookers() == []
    assert out.getvalue() == ""
