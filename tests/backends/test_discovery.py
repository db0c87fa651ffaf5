"""What discovery does on the host: files that change under its eyes, this machine's resolver, and its name servers.

Files are real, time is the simulator's. A file's age is set, and never waited for.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coulee.discovery
from coulee.core import Proxy
from coulee.discovery import Dns, DnsSrv, File, HttpSd, Resolver, nameservers
from coulee.lb.discovery import Source
from coulee.testing import Exchange
from tests.lb.seeking import Seeker

OLD_S = 60.0


def watching(source: Source) -> tuple[Exchange, Seeker]:
    """A proxy that has asked a source once, in a simulator, where its blocking jobs are really done."""
    seeker = Seeker(source)
    return Exchange(Proxy(seeker)).settle(), seeker


def aged(path: Path, age_s: float = OLD_S) -> None:
    """It was written so long ago."""
    then_ns = time.time_ns() - int(age_s * 1e9)
    os.utime(path, ns=(then_ns, then_ns))


def groups(*targets: str) -> str:
    return json.dumps([{"targets": list(targets)}])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A JSON file with one endpoint, written a while ago."""
    found = tmp_path / "endpoints.json"
    found.write_text(groups("a"))
    aged(found)
    return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are opened from now on."""
    seen: list[str] = []
    real = os.open

    def noted(path: Any, *args: Any, **options: Any) -> int:
        seen.append(str(path))
        return real(path, *args, **options)

    monkeypatch.setattr("coulee.discovery.os.open", noted)
    return seen


# -------------------------------------------------------------------------------------------------------------- files


def test_a_file_is_read_and_read_again_when_it_is_replaced(path: Path) -> None:
    x, seeker = watching(File(path))
    assert seeker.names == [["a:80"]]
    other = path.with_name("other")
    other.write_text(groups("a", "b"))
    os.replace(other, path)
    x.advance(1.2)
    assert seeker.names == [["a:80"], ["a:80", "b:80"]]
    assert seeker.said == []


def test_a_file_that_stays_the_same_is_not_opened_again(path: Path, reads: list[str]) -> None:
    x, seeker = watching(File(path))
    x.advance(60)
    assert len(reads) == 1
    assert seeker.names == [["a:80"]]


@pytest.mark.parametrize("what", ["time", "size", "file"])
def test_whatever_tells_two_states_apart_has_it_read_again(path: Path, reads: list[str], what: str) -> None:
    x, seeker = watching(File(path))
    status = path.stat()
    other = path.with_name("other") if what == "file" else path
    other.write_text(groups("b") + (" " if what == "size" else ""))
    shift_ns = 1 if what == "time" else 0
    os.utime(other, ns=(status.st_mtime_ns, status.st_mtime_ns + shift_ns))
    if what == "file":
        os.replace(other, path)
    x.advance(1.2)
    assert seeker.names == [["a:80"], ["b:80"]]
    assert len(reads) == 2


def test_a_second_change_within_a_tick_of_the_clock_is_seen(path: Path) -> None:
    path.write_text(groups("a"))
    status = path.stat()
    x, seeker = watching(File(path))
    path.write_text(groups("b"))  # as long as the other, and, for this file system, at the same time
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    x.advance(1.2)
    assert seeker.names == [["a:80"], ["b:80"]]


def test_a_file_is_read_until_it_has_settled(path: Path, reads: list[str]) -> None:
    path.write_text(groups("a"))
    x, seeker = watching(File(path))
    x.advance(1.2)
    assert len(reads) == 2
    aged(path)
    x.advance(60)
    assert len(reads) == 3
    assert seeker.names == [["a:80"]]


def test_content_that_was_only_touched_is_not_made_endpoints_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def noted(data: bytes, place: str) -> Any:
        parsed.append(data)
        return json.loads(data)

    monkeypatch.setattr(coulee.discovery, "parse_json", noted)
    x, seeker = watching(File(path))
    aged(path, OLD_S / 2)
    x.advance(3)
    assert len(parsed) == 1
    assert seeker.names == [["a:80"]]


def test_a_half_written_file_is_an_error_until_it_is_whole(path: Path) -> None:
    x, seeker = watching(File(path))
    whole = groups("a", "b")
    path.write_text(whole[:-3])
    x.advance(60)
    assert seeker.names == [["a:80"]]
    (said,) = seeker.said
    assert said.startswith(f"{path}:1: no JSON: ")
    path.write_text(whole)
    x.advance(1.2)
    assert seeker.names == [["a:80"], ["a:80", "b:80"]]
    assert len(seeker.said) == 2


def test_a_mistake_in_an_old_file_is_not_forgotten(path: Path) -> None:
    x, seeker = watching(File(path))
    path.write_text(groups("b:c"))
    aged(path)
    x.advance(60)
    assert len(seeker.said) == 1, "it is neither said twice nor taken for mended"
    assert seeker.said[0].startswith(f"{path}: [0].targets[0]: ")
    path.write_text(groups("a"))
    aged(path)
    x.advance(1.2)
    assert len(seeker.said) == 2
    assert seeker.names == [["a:80"]]


def test_a_toml_file_is_told_of_with_lines(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_text('[[endpoints]]\nurl = "http://a"\nweight = 3\n')
    x, seeker = watching(File(path))
    assert [each.weight for each in seeker.sets[0]] == [3]
    path.write_text('[[endpoints]]\nurl = "http://a"\n\n[[endpoints]]\nurl = "http://b"\nweight = "3"\n')
    x.advance(1.2)
    assert seeker.said == [f"{path}:4: endpoints[1].weight: '3' is no whole number"]
    path.write_text('[[endpoints]]\nurl = "http://a"\n[[endpoints]\n')
    x.advance(1.2)
    assert seeker.said[1].startswith(f"{path}:3: no TOML: ")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "Is a directory"),
        (os.mkfifo, "this is no file"),
        (lambda path: path.write_text(" " * 101), "it is longer than 100 bytes"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.write_text("[]"), "there are no endpoints in the answer"),
    ],
)
def test_what_is_no_file_with_endpoints(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    path = tmp_path / "endpoints.json"
    make(path)
    x, seeker = watching(File(path, document_bytes_max=100))
    assert seeker.said == [f"{path}: {why}"]
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.write_text(groups("a"))
    x.advance(1.2)
    assert seeker.names == [["a:80"]]


def test_a_file_may_be_gone_for_a_while(path: Path) -> None:
    x, seeker = watching(File(path))
    content = path.read_bytes()
    path.unlink()
    x.advance(30)
    assert seeker.said == [f"{path}: No such file or directory"]
    path.write_bytes(content)
    aged(path)
    x.advance(1.2)
    assert seeker.names == [["a:80"]]
    assert len(seeker.said) == 2


def test_a_file_leaves_no_descriptor_open(path: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.json"
    os.mkfifo(fifo)
    before = len(os.listdir("/dev/fd"))
    (tmp_path / "folder.json").mkdir()
    for source in (File(path), File(fifo), File(tmp_path / "none.json"), File(tmp_path / "folder.json")):
        x, _ = watching(source)
        x.advance(10)
    assert len(os.listdir("/dev/fd")) == before


def test_what_a_thread_returns_is_plain(path: Path) -> None:
    """So that a recording can be replayed without trust."""
    stamp, digest, content = coulee.discovery._look(str(path), None, b"", 1000) or (None, b"", None)
    assert stamp is not None
    assert all(type(each) is int for each in stamp)
    assert type(digest) is bytes
    assert content == ([{"targets": ["a"]}], [])


@pytest.mark.parametrize("name", ["endpoints", "endpoints.yaml", "endpoints.json.bak", ".json"])
def test_a_file_says_by_its_name_what_is_in_it(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: the name of a file with endpoints ends with \.json or \.toml$"):
        File(name)


def test_a_fresh_file_has_not_been_looked_at(path: Path) -> None:
    first = File(path, interval_s=3, document_bytes_max=1000)
    watching(first)
    fresh = first.fresh()
    assert (fresh.name, fresh.interval_s, fresh.document_bytes_max) == (str(path), 3, 1000)
    assert watching(fresh)[1].names == [["a:80"]]


# ----------------------------------------------------------------------------------------------------------- resolver


def resolving(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], list[str]]) -> list[tuple[Any, ...]]:
    """This machine's resolver is a function now; what it is asked."""
    asked: list[tuple[Any, ...]] = []

    def getaddrinfo(*args: Any) -> list[Any]:
        asked.append(args)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in answer()]

    monkeypatch.setattr("coulee.discovery.socket.getaddrinfo", getaddrinfo)
    return asked


def test_this_machines_resolver_is_asked_every_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["10.0.0.2", "10.0.0.1", "10.0.0.2"]
    asked = resolving(monkeypatch, lambda: addresses)
    x, seeker = watching(Resolver("api.internal", 8080, interval_s=10))
    assert seeker.names == [["10.0.0.1:8080", "10.0.0.2:8080"]]
    addresses.append("10.0.0.3")
    x.advance(9.9)
    assert len(asked) == 1
    x.advance(1.2)
    assert asked == [("api.internal", None, socket.AF_INET, socket.SOCK_STREAM)] * 2
    assert len(seeker.names[1]) == 3


@pytest.mark.parametrize(("kind", "family"), [("AAAA", socket.AF_INET6), ("both", socket.AF_UNSPEC)])
def test_kinds_of_addresses(monkeypatch: pytest.MonkeyPatch, kind: Any, family: int) -> None:
    asked = resolving(monkeypatch, lambda: ["::1"])
    _, seeker = watching(Resolver("api.internal", kind=kind))
    assert asked[0][2] == family
    assert seeker.names == [["[::1]:80"]]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (UnicodeError("label empty or too long"), "label empty or too long"),
        (OSError(24, "Too many open files"), "Too many open files"),
    ],
)
def test_what_a_resolver_may_say_instead(monkeypatch: pytest.MonkeyPatch, error: Exception, text: str) -> None:
    def fails() -> list[str]:
        raise error

    resolving(monkeypatch, fails)
    _, seeker = watching(Resolver("api.internal"))
    assert seeker.said == [f"api.internal: {text}"]


def test_an_address_is_its_own_name() -> None:
    assert watching(Resolver("127.0.0.1", 9000))[1].names == [["127.0.0.1:9000"]]


def test_a_resolver_has_no_state() -> None:
    source = Resolver("api.internal")
    assert source.fresh() is source


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resolver("a", 0), "port is 0; it must be from 1 to 65535"),
        (lambda: Resolver("a", kind="C"), "kind is 'C'; it must be one of 'A', 'AAAA', 'both'"),  # type: ignore[arg-type]
        (lambda: Resolver("a", interval_s=0), "interval_s is 0; it must be above 0"),
        (lambda: File("a.json", interval_s=-1), "interval_s is -1; it must be above 0"),
    ],
)
def test_settings_that_make_no_sense(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()


# -------------------------------------------------------------------------------------------------------- resolv.conf


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nameserver 10.0.0.53\n", ["10.0.0.53"]),
        ("# none\n\nsearch internal\noptions ndots:5\n  nameserver\t::1  # ours\n;nameserver 1.1.1.1\n", ["::1"]),
        ("nameserver\nnameservers 1.1.1.1\nnameserver 10.0.0.1", ["10.0.0.1"]),
        ("".join(f"nameserver 10.0.0.{number}\n" for number in range(9)), ["10.0.0.0", "10.0.0.1", "10.0.0.2"]),
        ("search internal\n", ["127.0.0.1"]),
    ],
)
def test_the_name_servers_of_this_machine(tmp_path: Path, text: str, servers: list[str]) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(b"# \xff\n" + text.encode())
    assert nameservers(str(path)) == [(server, 53) for server in servers]


def test_without_resolv_conf_it_is_the_one_here(tmp_path: Path) -> None:
    assert nameservers(str(tmp_path / "none")) == [("127.0.0.1", 53)]


# --------------------------------------------------------------------------------------------------------------- face


def test_all_that_is_promised_is_there() -> None:
    assert {name for name in coulee.discovery.__all__ if getattr(coulee.discovery, name) is not None} >= {"Dns", "File"}
    assert isinstance(DnsSrv("_http._tcp.a", server="10.0.0.53"), DnsSrv)
    assert Dns("a", server=nameservers()).servers
    assert HttpSd("http://sd").name == "http://sd"
    with pytest.raises(AttributeError, match=r"has no attribute 'Dnss'$"):
        coulee.discovery.Dnss  # noqa: B018
