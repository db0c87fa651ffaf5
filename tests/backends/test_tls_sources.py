"""Certificates from files, and how they are replaced.

Files are real. A file's age is set, and never waited for.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from contextlib import suppress
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trustme

import coulee.tls
from coulee.backends.tls import Tls
from coulee.core.certificates import Certificates
from coulee.core.tls import CertificateSource, DownstreamTls
from coulee.tls import CertificateDirectory, CertificateFiles, ListenerTls
from tests.backends.issuing import AUTHORITY, CHAIN, DAY, KEY, NOW, aged, error_of, fits, issue, put

REPLACEMENTS = 50


class Looking:
    """Looks at a source as a machine does."""

    def __init__(self, source: CertificateSource) -> None:
        self.source = source
        self.stamp = source.stamp
        self.certificates = list(source.certificates)
        self.problems: list[str] = []

    def look(self) -> bool:
        """Whether there was something new."""
        found = self.source.look(self.stamp)
        if found is None:
            return False
        self.stamp, self.problems = found.stamp, list(found.problems)
        self.certificates = list(found.certificates)
        return True

    @property
    def names(self) -> list[str]:
        return [certificate.names[0] for certificate in self.certificates]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, in which we are."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pair(here: Path) -> tuple[Path, Path]:
    """A good pair, written a while ago."""
    certificate, key = here / "cert.pem", here / "key.pem"
    for path, data in zip((certificate, key), issue(), strict=True):
        put(path, data)
    return certificate, key


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened from now on."""
    seen: list[str] = []
    real = os.open

    def noted(path: Any, *args: Any, **options: Any) -> int:
        seen.append(os.path.basename(path))
        return real(path, *args, **options)

    monkeypatch.setattr("coulee.tls.os.open", noted)
    return seen


@pytest.mark.parametrize("interval_s", [0, -1, float("nan")])
def test_an_interval_is_above_0(pair: tuple[Path, Path], interval_s: float) -> None:
    for make in (lambda: CertificateFiles(*pair, interval_s=interval_s),
                 lambda: CertificateDirectory(pair[0].parent, interval_s=interval_s)):  # fmt: skip
        with pytest.raises(ValueError, match="interval_s is .*; it must be above 0"):
            make()
    assert CertificateFiles(*pair, interval_s=inf).interval_s == inf


# ------------------------------------------------------------------------------------------------------------ looking


def test_files_that_stay_the_same_are_not_opened_again(pair: tuple[Path, Path], opened: list[str]) -> None:
    looking = Looking(CertificateFiles(*pair))
    assert opened == ["cert.pem", "key.pem"]
    assert not any(looking.look() for _ in range(5))
    assert len(opened) == 2


def test_files_are_read_until_they_have_settled(pair: tuple[Path, Path], opened: list[str]) -> None:
    aged(pair[1], 0)
    looking = Looking(CertificateFiles(*pair))
    (before,) = looking.certificates
    assert not looking.look()
    assert len(opened) == 4
    aged(pair[1])
    looking.look()
    assert len(opened) == 6
    assert not looking.look()
    assert len(opened) == 6
    assert looking.certificates == [before], "what is the same stays the same object"


def padded(names: str, size: int = 8192) -> bytes:
    """A certificate and its key, in so many bytes."""
    return b"".join(issue(names)).ljust(size, b"\n")


def test_a_second_change_within_a_tick_of_the_clock_is_seen(here: Path) -> None:
    path = here / "both.pem"
    path.write_bytes(padded("a.test"))
    status = path.stat()
    looking = Looking(CertificateFiles(path))
    path.write_bytes(padded("b.test"))
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert looking.look()
    assert looking.names == ["b.test"]


@pytest.mark.parametrize("which", ["both.pem", "key.pem"])
@pytest.mark.parametrize("what", ["time", "size", "file"])
def test_whatever_tells_two_states_apart_has_them_read_again(
    here: Path, opened: list[str], what: str, which: str
) -> None:
    """Also where it is only the key's file that differs."""
    both = here / "both.pem"
    put(both, padded("a.test"))
    key = here / which
    if key != both:
        put(key, both.read_bytes())
    looking = Looking(CertificateFiles(both, key))
    status = key.stat()
    other = here / "other" if what == "file" else key
    other.write_bytes(key.read_bytes() + (b"\n" if what == "size" else b""))
    shift_ns = 1 if what == "time" else 0
    os.utime(other, ns=(status.st_mtime_ns, status.st_mtime_ns + shift_ns))
    if what == "file":
        os.replace(other, key)
    opened.clear()
    looking.look()
    assert which in opened
    assert looking.names == ["a.test"]


def test_a_pair_that_is_replaced_is_used_when_both_fit(pair: tuple[Path, Path]) -> None:
    looking = Looking(CertificateFiles(*pair))
    (before,) = looking.certificates
    chain, key = issue("b.test")
    put(pair[0], chain)
    assert looking.look()
    assert looking.certificates == [before]
    (problem,) = looking.problems
    assert (
        problem
        == f"{pair[1]}: the key is not the one of the certificate in {pair[0]}; give the two that belong together"
    )
    assert not looking.look(), "it is said once"
    put(pair[1], key)
    assert looking.look()
    assert looking.names == ["b.test"]
    assert looking.problems == []
    assert not looking.look()


def test_a_pair_that_is_as_before_again_is_the_same_object(pair: tuple[Path, Path]) -> None:
    looking = Looking(CertificateFiles(*pair))
    (before,) = looking.certificates
    chain = pair[0].read_bytes()
    for data in (b"", chain):
        put(pair[0], data)
        assert looking.look()
        assert looking.certificates == [before]
        assert bool(looking.problems) == (not data)


def test_a_file_that_is_gone_or_turns_unreadable_keeps_the_pair(pair: tuple[Path, Path]) -> None:
    looking = Looking(CertificateFiles(*pair))
    (before,) = looking.certificates
    data = pair[1].read_bytes()
    pair[1].unlink()
    assert looking.look()
    assert looking.problems == [f"{pair[1]}: there is no such file; check the path, or make one"]
    assert looking.certificates == [before]
    put(pair[1], data)
    assert looking.look()
    assert (looking.certificates, looking.problems) == ([before], [])


def test_a_certificate_that_begins_later_is_used_from_then_on(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = Looking(CertificateFiles(*pair))
    for path, data in zip(pair, issue("b.test", begin=NOW + DAY), strict=True):
        put(path, data)
    assert looking.look()
    assert looking.names == ["a.test"]
    assert not looking.look()
    later = time.time() + 2 * DAY.total_seconds()
    monkeypatch.setattr("coulee.tls.time.time", lambda: later)
    assert looking.look()
    assert looking.names == ["b.test"]


def test_a_certificate_that_expires_while_it_is_used_is_kept(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = Looking(CertificateFiles(*pair))
    later = time.time() + 60 * DAY.total_seconds()
    monkeypatch.setattr("coulee.tls.time.time", lambda: later)
    aged(pair[0], 90)
    looking.look()
    assert looking.names == ["a.test"]
    assert looking.problems == []


def test_certificates_are_replaced_many_times(pair: tuple[Path, Path]) -> None:
    looking = Looking(CertificateFiles(*pair))
    for number in range(REPLACEMENTS):
        for path, data in zip(pair, issue(f"a{number}.test"), strict=True):
            put(path, data)
        assert looking.look()
        assert looking.names == [f"a{number}.test"]
        assert fits(looking.certificates[0])


def test_a_pair_that_is_written_in_place_is_never_used_half(pair: tuple[Path, Path]) -> None:
    """Whoever looks sees every state that a writer leaves between two of its writes."""
    looking = Looking(CertificateFiles(*pair))
    for number in range(REPLACEMENTS):
        (before,) = looking.certificates
        for path, data in zip(
            pair[:: number % 2 * 2 - 1], issue(f"a{number}.test")[:: number % 2 * 2 - 1], strict=True
        ):
            for piece in (b"", data[:100], data[:-30]):
                path.write_bytes(piece)
                looking.look()
                assert looking.certificates == [before]
            path.write_bytes(data)
            looking.look()
        assert looking.names == [f"a{number}.test"]
        assert fits(looking.certificates[0])


def test_a_pair_is_never_mixed_while_somebody_replaces_it(pair: tuple[Path, Path]) -> None:
    made = [issue(f"a{number}.test") for number in range(REPLACEMENTS)]
    looking = Looking(CertificateFiles(*pair))

    def replace() -> None:
        for both in made:
            for path, data in zip(pair, both, strict=True):
                put(path, data)

    writer = threading.Thread(target=replace)
    writer.start()
    while writer.is_alive():
        looking.look()
        assert fits(looking.certificates[0])
    writer.join()
    looking.look()
    assert looking.names == [f"a{REPLACEMENTS - 1}.test"]


def folder(path: Path, *names: str) -> Path:
    """One as certbot makes it."""
    path.mkdir()
    for name, data in zip(("fullchain.pem", "privkey.pem"), issue(*names), strict=True):
        put(path / name, data)
    (path / "cert.pem").write_bytes(b"")
    return path


def test_a_link_that_is_turned_elsewhere_is_a_change(here: Path, opened: list[str]) -> None:
    """So do certbot, with each file, and Kubernetes, with the directory of them all."""
    folder(here / "1", "a.test")
    folder(here / "2", "b.test")
    (here / "..data").symlink_to("1")
    for name in ("fullchain.pem", "privkey.pem"):
        (here / name).symlink_to(f"..data/{name}")
    looking = Looking(CertificateFiles("fullchain.pem", "privkey.pem"))
    whole = Looking(CertificateDirectory(here))
    assert whole.names == ["a.test"]
    (here / "..new").symlink_to("2")
    os.replace(here / "..new", here / "..data")
    for each in (looking, whole):
        assert each.look()
        assert each.names == ["b.test"]
        assert fits(each.certificates[0])
        opened.clear()
        assert not each.look()
        assert opened == []


def served(tls: DownstreamTls, name: str, ciphers: str = "DEFAULT") -> tuple[str, str]:
    """The fingerprint that a client is shown, which knows these ciphers of TLS 1.2; and the cipher agreed on."""
    context = ssl.create_default_context(cadata=AUTHORITY.cert_pem.bytes().decode())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    layer = Tls().layer(tls, ("127.0.0.1", 1))
    for _ in range(4):
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        layer.receive(outgoing.read())
        incoming.write(layer.to_send)
        layer.to_send = b""
    shown, agreed = client.getpeercert(binary_form=True), client.cipher()
    assert shown is not None
    assert agreed is not None
    return sha256(shown).hexdigest(), agreed[0]


def test_what_was_found_serves_handshakes_with_either_kind_of_key(here: Path) -> None:
    made = AUTHORITY.issue_cert("a.test", key_type=trustme.KeyType.RSA)
    put(here / "rsa.pem", made.private_key_and_cert_chain_pem.bytes())
    put(here / "ecdsa.pem", padded("a.test"))
    put(here / "other.pem", padded("other.test"))
    source = CertificateDirectory(here)
    certificates = Certificates(ListenerTls(source))
    ecdsa, other, rsa = (certificate.fingerprint for certificate in source.certificates)
    tls = certificates.find("a.test")
    assert served(tls, "a.test") == (ecdsa, "ECDHE-ECDSA-AES128-GCM-SHA256")
    assert served(tls, "a.test", "ECDHE-RSA-AES256-GCM-SHA384") == (rsa, "ECDHE-RSA-AES256-GCM-SHA384")
    assert served(certificates.find("other.test"), "other.test")[0] == other


# -------------------------------------------------------------------------------------------------------- directories


def test_a_directory_has_pairs_by_their_names(here: Path) -> None:
    folder(here / "live.test", "live.test")
    (here / "archive").mkdir()
    for certificate, key in (
        ("b.pem", "b.key"), ("c.crt", "c.key"), ("d+1.pem", "d+1-key.pem"), ("e.pem", "e.pem"), (".f.pem", "f.key"),
        ("ca.crt", ""), ("chain.pem", ""), ("README", ""), ("old.key", "old.key"),
    ):  # fmt: skip
        chain, key_data = issue(f"{certificate.lstrip('.')[0]}.test")
        put(here / certificate, chain)
        if key:
            put(here / key, chain + key_data if key == certificate else key_data)
    source: CertificateSource = CertificateDirectory(here)
    assert [certificate.names[0] for certificate in source.certificates] == [
        "b.test", "c.test", "d.test", "e.test", "live.test",
    ]  # fmt: skip
    assert source.certificates[0].source == str(here / "b.pem")
    assert source.name == str(here)
    assert all(map(fits, source.certificates))


def test_a_folder_of_certbots_is_a_directory_too(here: Path) -> None:
    (certificate,) = CertificateDirectory(folder(here / "live.test")).certificates
    assert fits(certificate)


def put_pair(path: Path, *names: str) -> None:
    for suffix, data in zip((".pem", ".key"), issue(*names), strict=True):
        put(path.with_suffix(suffix), data)


def test_files_come_and_go(here: Path, opened: list[str]) -> None:
    put_pair(here / "b", "b.test")
    looking = Looking(CertificateDirectory(here))
    (first,) = looking.certificates
    put_pair(here / "c", "c.test")
    assert looking.look()
    put_pair(here / "a", "a.test")
    folder(here / "d", "d.test")
    assert looking.look()
    assert looking.names == ["a.test", "b.test", "c.test", "d.test"]
    assert looking.certificates[1] is first
    assert sorted(opened).count("b.pem") == 1
    opened.clear()
    assert not looking.look()
    assert opened == []
    (here / "c.pem").unlink()
    assert looking.look()
    assert looking.names == ["a.test", "b.test", "d.test"]
    assert looking.problems == []


def test_a_bad_pair_keeps_its_old_one_and_the_others_go_on(here: Path) -> None:
    for name in ("a", "b"):
        put_pair(here / name, f"{name}.test")
    looking = Looking(CertificateDirectory(here))
    old = looking.certificates[1]
    put(here / "b.pem", b"")
    put(here / "c.pem", CHAIN)
    put_pair(here / "a", "new.test")
    assert looking.look()
    assert looking.names == ["new.test", "b.test"]
    assert looking.certificates[1] is old
    assert [problem.split(": ")[:2] for problem in looking.problems] == [
        [str(here / "b.pem"), "it is empty; put the PEM there"],
        [str(here / "c.pem"), "there is no key in it; give the key's file too"],
    ]
    assert not looking.look()
    put(here / "c.key", KEY)
    assert looking.look()
    assert len(looking.certificates) == 3
    assert len(looking.problems) == 1


def test_a_key_that_moves_to_a_file_of_its_own_keeps_the_pair(here: Path) -> None:
    chain, key = issue()
    put(here / "a.pem", chain + key)
    looking = Looking(CertificateDirectory(here))
    put(here / "a.key", b"")
    looking.look()
    assert looking.names == ["a.test"]
    assert len(looking.problems) == 1
    put(here / "a.key", key)
    looking.look()
    assert (looking.names, looking.problems) == (["a.test"], [])


def test_what_is_wrong_with_a_directory_is_said(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = (f"{here}: there is no certificate in it; put NAME.pem or NAME.crt there with NAME.key, or folders with "
             "fullchain.pem and privkey.pem")  # fmt: skip
    assert error_of(lambda: CertificateDirectory(here)) == empty
    (here / "chain.pem").write_bytes(CHAIN)
    assert error_of(lambda: CertificateDirectory(here)) == empty
    assert error_of(lambda: CertificateDirectory("none")).startswith("none: there is no such file")
    assert error_of(lambda: CertificateDirectory("chain.pem")) == (
        "chain.pem: this is no directory; use CertificateFiles for a file"
    )
    put_pair(here / "a")
    put(here / "b.pem", CHAIN)
    assert (
        error_of(lambda: CertificateDirectory(here)) == f"{here}/b.pem: there is no key in it; give the key's file too"
    )
    put(here / "b.key", KEY)
    looking = Looking(CertificateDirectory(here))
    monkeypatch.setattr(coulee.tls, "PAIRS_MAX", 1)
    assert error_of(looking.look).startswith(f"{here}: it has more than 1 certificates; use more than one directory")
    monkeypatch.setattr(coulee.tls, "ENTRIES_MAX", 4)
    assert error_of(looking.look).startswith(f"{here}: it has more than 4 files; is it the right directory?")
    for path in here.iterdir():
        path.unlink()
    assert error_of(looking.look) == empty
    here.rmdir()
    assert error_of(looking.look).startswith(f"{here}: there is no such file")


def test_a_certificate_without_its_key_file_is_one_with_a_problem(here: Path) -> None:
    folder(here / "a")
    (here / "a" / "privkey.pem").unlink()
    assert error_of(lambda: CertificateDirectory(here)).startswith(f"{here}/a/privkey.pem: there is no such file")
