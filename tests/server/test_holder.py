"""Who holds a port: found in a /proc made by hand, and once in the real one."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from coulee.server import holder
from coulee.server.holder import holder_of

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(local: str, state: str, inode: int) -> str:
    return (
        f"   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100\n"
    )


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc of our own, with nobody in it."""
    monkeypatch.setattr(holder, "Path", lambda path: tmp_path / path.lstrip("/"))
    net = tmp_path / "proc" / "net"
    net.mkdir(parents=True)
    (net / "tcp").write_text(HEAD)
    (net / "tcp6").write_text(HEAD)
    (tmp_path / "proc" / "meminfo").write_text("")
    return tmp_path / "proc"


def process(proc: Path, pid: int, name: str, *descriptors: str) -> None:
    """A process that has descriptors open."""
    folder = proc / str(pid) / "fd"
    folder.mkdir(parents=True)
    (proc / str(pid) / "comm").write_text(f"{name}\n")
    for number, target in enumerate(descriptors):
        (folder / str(number)).symlink_to(target)


def test_the_process_that_listens_is_named(proc: Path) -> None:
    (proc / "net" / "tcp").write_text(HEAD + row("0100007F:1F40", "0A", 777))
    process(proc, 41, "bystander", "/dev/null", "socket:[778]", "socket:[77]", "pipe:[777]")
    process(proc, 42, "python3", "/dev/null", "socket:[777]")
    assert holder_of(8000) == "python3 (pid 42)"


def test_a_process_that_listens_by_ipv6_only_is_named_too(proc: Path) -> None:
    (proc / "net" / "tcp6").write_text(HEAD + row("00000000000000000000000000000000:1F40", "0A", 777))
    process(proc, 42, "nginx", "socket:[777]")
    assert holder_of(8000) == "nginx (pid 42)"


def test_nobody_is_named_where_nobody_listens(proc: Path) -> None:
    other_port, connected = row("0100007F:1F41", "0A", 777), row("0100007F:1F40", "01", 777)
    (proc / "net" / "tcp").write_text(HEAD + other_port + connected)
    process(proc, 42, "python3", "socket:[777]")
    assert holder_of(8000) is None


def test_nobody_is_named_where_the_holder_cannot_be_seen(proc: Path) -> None:
    (proc / "net" / "tcp").write_text(HEAD + row("0100007F:1F40", "0A", 777))
    process(proc, 41, "bystander", "socket:[778]")
    (proc / "42").mkdir()  # gone, or somebody else's: no descriptors to look at
    assert holder_of(8000) is None


def test_descriptors_and_processes_that_vanish_meanwhile_are_passed_over(proc: Path) -> None:
    (proc / "net" / "tcp").write_text(HEAD + row("0100007F:1F40", "0A", 777))
    process(proc, 41, "gone", "socket:[777]")
    (proc / "41" / "comm").unlink()
    (proc / "41" / "fd" / "9").write_text("no link")
    assert holder_of(8000) is None


def test_elsewhere_than_on_linux_nobody_is_named(proc: Path) -> None:
    for table in ("tcp", "tcp6"):
        (proc / "net" / table).unlink()
    assert holder_of(8000) is None


def test_a_process_may_be_called_anything(proc: Path) -> None:
    (proc / "net" / "tcp").write_text(HEAD + row("0100007F:1F40", "0A", 777))
    process(proc, 42, "x", "socket:[777]")
    (proc / "42" / "comm").write_bytes(b"caf\xe9\x1b[2J\n")
    name = holder_of(8000)
    assert name is not None
    assert name.startswith("caf")
    assert name.endswith(" (pid 42)")
    assert name.isprintable()


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_real_listener_is_found() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        own = Path("/proc/self/comm").read_text().strip()
        assert holder_of(port) == f"{own} (pid {os.getpid()})"
