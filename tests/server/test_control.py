"""The control socket: who may talk to it, and what becomes of nonsense."""

from __future__ import annotations

import json
import os
import selectors
import socket
import tempfile
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from coulee.server.control import CONNECTIONS_MAX, REQUEST_BYTES_MAX, Control, ask, control_folder, remove_stale


class World:
    """A control socket, and the selector that is turned by hand."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.asked: list[tuple[int, dict[str, Any]]] = []
        self.control = Control(self.selector, lambda asker, request: self.asked.append((asker, request)))
        self.control.open()
        assert self.control.path is not None
        self.path = self.control.path
        self.clients: list[socket.socket] = []

    def turn(self) -> None:
        """Until there is nothing to do."""
        while ready := self.selector.select(0):
            for key, _ in ready:
                key.data()

    def dial(self, request: bytes = b"") -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5.0)
        client.connect(str(self.path))
        client.sendall(request)
        self.clients.append(client)
        self.turn()
        return client

    def close(self) -> None:
        self.control.close()
        self.turn()
        for client in self.clients:
            client.close()
        self.turn()
        self.control.abandon()
        self.selector.close()


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Generator[Path, None, None]:
    """Where the folder will be; a short name, for the paths of sockets are short."""
    with tempfile.TemporaryDirectory(prefix="coulee-") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


@pytest.fixture
def world(home: Path) -> Generator[World, None, None]:
    found = World()
    yield found
    found.close()


def test_a_request_is_handed_on_and_its_answer_is_one_line(world: World) -> None:
    client = world.dial(b'{"do": "rel')
    assert world.asked == []
    client.sendall(b'oad"}\n')
    world.turn()
    [(asker, request)] = world.asked
    assert request == {"do": "reload"}
    world.control.answer(asker, {"ok": True, "text": "reloaded"})
    assert json.loads(client.makefile("rb").read()) == {"ok": True, "text": "reloaded"}
    world.control.answer(asker, {})  # once is enough


@pytest.mark.parametrize("nonsense", [b"\n", b"reload\n", b'["do"]\n', b"\xff\xfe\n", b"{}\n"])
def test_nonsense_is_an_empty_request(world: World, nonsense: bytes) -> None:
    world.dial(nonsense)
    assert [request for _, request in world.asked] == [{}]


def test_a_request_without_an_end_is_cut_off(world: World) -> None:
    client = world.dial(b"x" * (REQUEST_BYTES_MAX + 1))
    with suppress(ConnectionResetError):  # for what it had not read
        assert client.recv(1) == b""
    assert world.asked == []


def test_who_leaves_is_forgotten_and_needs_no_answer(world: World) -> None:
    client = world.dial(b'{"do": "reload"}\n')
    [(asker, _)] = world.asked
    client.close()
    world.turn()
    world.control.answer(asker, {"ok": True})


def test_the_number_of_those_who_are_connected_is_bounded(world: World) -> None:
    first = world.dial()
    for _ in range(CONNECTIONS_MAX):
        world.dial()
    assert first.recv(1) == b"", "the oldest goes"
    world.clients[-1].sendall(b"{}\n")
    world.turn()
    assert len(world.asked) == 1


def test_it_is_for_its_owner_alone_and_goes_with_the_supervisor(home: Path) -> None:
    world = World()
    assert world.path == home / "coulee" / f"{os.getpid()}.sock"
    assert (home / "coulee").stat().st_mode & 0o777 == 0o700
    world.close()
    assert not world.path.exists()


@pytest.mark.parametrize("trouble", ["others may enter", "a file", "a link"])
def test_a_folder_that_others_have_a_hand_in_is_not_used(home: Path, trouble: str) -> None:
    folder = home / "coulee"
    if trouble == "others may enter":
        folder.mkdir(mode=0o755)
    elif trouble == "a file":
        folder.write_text("")
    else:
        (home / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(home / "elsewhere")
    with pytest.raises(OSError, match="coulee"):
        World()


def test_without_a_runtime_folder_it_is_in_the_temporary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert control_folder() == Path(tempfile.gettempdir()) / f"coulee-{os.getuid()}"


def test_what_a_dead_supervisor_has_left_is_removed(home: Path, world: World) -> None:
    folder = home / "coulee"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "1.sock"))
    (folder / "2.sock").write_text("not a socket")
    assert remove_stale(folder) == [world.path]
    assert not (folder / "1.sock").exists()


def test_an_end_without_an_answer_is_an_error(home: Path) -> None:
    path = home / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        pid = os.fork()
        if not pid:
            listening.accept()[0].recv(100)
            os._exit(0)
        with pytest.raises(ConnectionResetError):
            ask(path, {"do": "reload"})
        os.waitpid(pid, 0)
