"""TLS for a program: its settings, and where certificates come from.

    from coulee.tls import CertificateFiles, Listener, ListenerTls

    Listener("0.0.0.0:8443", tls=ListenerTls(CertificateFiles("cert.pem", "key.pem")))

Rules:

- A certificate is used only with the key that fits it. OpenSSL was asked whether it does, on the thread that read them,
  so a pair that is caught half replaced is not used: what was there before is, until both fit.
- An error names the file, says what is wrong, and what to do, in one line. It never quotes what is in a file.
- A file is looked at through whatever links lead to it, so that a link which is turned elsewhere counts as a change.
- Nothing here touches the system's trust store.
"""

from __future__ import annotations

import os
import ssl
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from math import inf
from typing import Final, NamedTuple, TypeAlias, cast

from coulee.backends.tls import explained, load_certificate
from coulee.core.listener import Listener
from coulee.core.pem import Block, pem_blocks
from coulee.core.tls import (
    Certificate,
    CertificateError,
    CertificatesFound,
    CertificateSource,
    ClientCertificates,
    ListenerTls,
    UpstreamTls,
)
from coulee.core.x509 import Facts, read_certificate

__all__ = [
    "Certificate",
    "CertificateDirectory",
    "CertificateError",
    "CertificateFiles",
    "CertificateSource",
    "CertificatesFound",
    "ClientCertificates",
    "Listener",
    "ListenerTls",
    "SelfSigned",
    "UpstreamTls",
    "client_ca",
    "client_certificate",
]

SETTLED_S: Final = 2.0
"""A file that was written less than this ago is read again, even where it looks the same: the clock of a file system
ticks slowly, and a second change within one tick would show in nothing else."""

FILE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one file. A system's whole trust store has a quarter of a MiB."""

CHAIN_MAX: Final = 16
"""Certificates in one chain. Every handshake carries them all, and three are many."""

PAIRS_MAX: Final = 4096
"""Certificates in one directory."""

ENTRIES_MAX: Final = 4 * PAIRS_MAX
"""Files and folders in one directory, of whatever kind."""

SELF_SIGNED_DAYS: Final = 397
"""For so long a self-signed certificate is valid; browsers refuse those of more than some four hundred days."""

Stamp: TypeAlias = tuple[int, int, int, int]
"""Device, inode, size and time of change of a file: what tells two states of it apart."""


class Pair(NamedTuple):
    """Where a certificate is, and where its key; both may be in one file."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of a pair."""

    pair: Pair
    stamps: tuple[Stamp, ...]
    """Of its files; empty where they have to be read again."""
    digest: bytes
    """Of what `certificate` was read from."""
    certificate: Certificate | None
    """The last that was good."""
    problem: str
    """What is wrong with what is there now."""


# ------------------------------------------------------------------------------------------------------------ sources


class CertificateFiles:
    """A certificate with those that lead to its authority, and its key, in PEM; without `key`, all in one file.

    A change is seen within `interval_s`. Raises `CertificateError`.
    """

    def __init__(
        self,
        certificate: str | os.PathLike[str],
        key: str | os.PathLike[str] | None = None,
        *,
        interval_s: float = 1.0,
    ) -> None:
        self.name = os.fspath(certificate)
        self._pair = Pair(self.name, self.name if key is None else os.fspath(key))
        self.interval_s = _interval(interval_s)
        self.stamp, self.certificates = _first_look([self._pair])

    def look(self, stamp: object) -> CertificatesFound | None:
        """See `CertificateSource`."""
        return _look([self._pair], stamp)


class CertificateDirectory:
    """All certificates of a directory: `NAME.pem` or `NAME.crt`, each with its key in the same file, or in `NAME.key`
    or `NAME-key.pem`; and those of its folders, as certbot has them, in `fullchain.pem` and `privkey.pem`.

    They may come and go while they are in use: put a key there before its certificate. The first by name is the default
    one. Files called `ca` or `chain` are passed over, and so is what begins with a dot. Raises `CertificateError`.
    """

    def __init__(self, path: str | os.PathLike[str], *, interval_s: float = 1.0) -> None:
        self.name = os.fspath(path)
        self.interval_s = _interval(interval_s)
        self.stamp, self.certificates = _first_look(_pairs_in(self.name))

    def look(self, stamp: object) -> CertificatesFound | None:
        """See `CertificateSource`."""
        return _look(_pairs_in(self.name), stamp)


class SelfSigned:
    """A certificate for a developer's own machine, made when it is asked for and kept in memory only.

    No browser trusts it. Whoever wants to can use `ca`, the authority it was signed by, in PEM: `curl --cacert`.
    Raises `CertificateError`.
    """

    def __init__(self, *names: str) -> None:
        self.name = "self-signed"
        self.interval_s = inf
        self.stamp: object = None
        try:
            import trustme
        except ImportError:
            raise CertificateError('--tls self-signed needs: pip install "coulee[tls]"') from None
        now = time.time()
        authority = trustme.CA(organization_name="coulee, for development", key_type=trustme.KeyType.ECDSA)
        try:
            made = authority.issue_cert(
                *(names or ("localhost", "127.0.0.1", "::1")),
                not_before=datetime.fromtimestamp(now - 3600, UTC),
                not_after=datetime.fromtimestamp(now + SELF_SIGNED_DAYS * 86400, UTC),
                key_type=trustme.KeyType.ECDSA,
            )
        except ValueError as error:  # an `idna.IDNAError` is one too
            raise CertificateError(f"self-signed: no certificate for {', '.join(names)}: {error}") from None
        self.ca: bytes = authority.cert_pem.bytes()
        both = made.private_key_and_cert_chain_pem.bytes()
        certificate = _pair_of(both, both, Pair(self.name, self.name), now)
        self.certificates: Sequence[Certificate] = (certificate,)

    def look(self, stamp: object) -> CertificatesFound | None:
        """See `CertificateSource`."""
        return None


def client_ca(path: str | os.PathLike[str]) -> bytes:
    """A file of authorities, for `ClientCertificates` and `UpstreamTls`: its certificates, without what stands around
    them. Raises `CertificateError`."""
    path = os.fspath(path)
    chain = _chain(path, _blocks(path, _read(path)[1]))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=chain.decode("ascii"))
    except ssl.SSLError as error:
        raise CertificateError(f"{path}: a certificate in it is damaged ({explained(error)}); get it anew") from None
    return chain


def client_certificate(certificate: str | os.PathLike[str], key: str | os.PathLike[str] | None = None) -> Certificate:
    """A certificate to show to peers, for `UpstreamTls`; it needs no name of a host. Read once. Raises
    `CertificateError`."""
    path = os.fspath(certificate)
    pair = Pair(path, path if key is None else os.fspath(key))
    return _pair_of(_read(pair.certificate)[1], _read(pair.key)[1], pair, time.time(), named=False)


def _interval(interval_s: float) -> float:
    if not 0 < interval_s <= inf:
        raise ValueError(f"interval_s is {interval_s}; it must be above 0")
    return interval_s


# ------------------------------------------------------------------------------------------------------------ looking


def _first_look(pairs: Sequence[Pair]) -> tuple[tuple[_Entry, ...], Sequence[Certificate]]:
    """When a program starts, all must be good. Raises `CertificateError`."""
    entries = tuple(_entry(pair, None) for pair in pairs)
    for entry in entries:
        if entry.problem:
            raise CertificateError(entry.problem)
    return entries, [entry.certificate for entry in entries if entry.certificate is not None]


def _look(pairs: Sequence[Pair], stamp: object) -> CertificatesFound | None:
    """`stamp` is what is known of the pairs."""
    known = {entry.pair.certificate: entry for entry in cast("tuple[_Entry, ...]", stamp)}
    entries = tuple(_entry(pair, known.get(pair.certificate)) for pair in pairs)
    if entries == stamp:
        return None
    certificates = [entry.certificate for entry in entries if entry.certificate is not None]
    return CertificatesFound(entries, certificates, tuple(entry.problem for entry in entries if entry.problem))


def _entry(pair: Pair, known: _Entry | None) -> _Entry:
    """What is to be known of a pair. One with a problem is read each time, for it may be cured by the clock alone."""
    try:
        if known is not None and _stamps(pair) == known.stamps:
            return known
        stamp, chain = _read(pair.certificate)
        key_stamp, key = (stamp, chain) if pair.key == pair.certificate else _read(pair.key)
        digest = sha256(sha256(chain).digest() + sha256(key).digest()).digest()
        if known is not None and known.certificate is not None and digest == known.digest:
            certificate = known.certificate
        else:
            certificate = _pair_of(chain, key, pair, time.time())
        stamps = (stamp, key_stamp) if stamp is not None and key_stamp is not None else ()
        return _Entry(pair, stamps, digest, certificate, "")
    except CertificateError as error:
        if known is None:
            return _Entry(pair, (), b"", None, str(error))
        return _Entry(pair, (), known.digest, known.certificate, str(error))


def _stamps(pair: Pair) -> tuple[Stamp, Stamp]:
    try:
        first = _stamp_of(os.stat(pair.certificate))
        return first, first if pair.key == pair.certificate else _stamp_of(os.stat(pair.key))
    except OSError as error:
        raise _unreadable(str(error.filename), error) from None


def _read(path: str) -> tuple[Stamp | None, bytes]:
    """A file, and its stamp if that will tell a change."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CertificateError(f"{path}: this is no file; give the path of one in PEM")
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(data) > FILE_BYTES_MAX:
        raise CertificateError(f"{path}: it is longer than {FILE_BYTES_MAX} bytes; is it the right file?")
    return _stamp_of(status) if time.time() - status.st_mtime > SETTLED_S else None, data


def _open_without_waiting(path: str, flags: int) -> int:
    """A pipe would otherwise keep us until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _stamp_of(status: os.stat_result) -> Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _unreadable(path: str, error: OSError) -> CertificateError:
    if isinstance(error, FileNotFoundError):
        return CertificateError(f"{path}: there is no such file; check the path, or make one")
    if isinstance(error, PermissionError):
        return CertificateError(f"{path}: this user may not read it; let its group, as with chmod g+r and chgrp")
    if isinstance(error, IsADirectoryError):
        return CertificateError(f"{path}: this is a directory; name a file in it, or use CertificateDirectory")
    return CertificateError(f"{path}: it cannot be read: {error.strerror}")


# -------------------------------------------------------------------------------------------------------- directories


def _pairs_in(directory: str) -> list[Pair]:
    """Those of a directory, by name. Raises `CertificateError`."""
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for _, entry in zip(range(ENTRIES_MAX + 1), entries, strict=False))
    except NotADirectoryError:
        raise CertificateError(f"{directory}: this is no directory; use CertificateFiles for a file") from None
    except OSError as error:
        raise _unreadable(directory, error) from None
    if len(names) > ENTRIES_MAX:
        raise CertificateError(f"{directory}: it has more than {ENTRIES_MAX} files; is it the right directory?")
    folder = _folder(directory)
    pairs = [folder] if folder is not None else list(_pairs_of(directory, names))
    if not pairs:
        raise CertificateError(f"{directory}: there is no certificate in it; put NAME.pem or NAME.crt there with "
                               "NAME.key, or folders with fullchain.pem and privkey.pem")  # fmt: skip
    if len(pairs) > PAIRS_MAX:
        raise CertificateError(f"{directory}: it has more than {PAIRS_MAX} certificates; use more than one directory")
    return pairs


def _pairs_of(directory: str, names: Sequence[str]) -> Iterator[Pair]:
    """Of a directory that has these files and folders."""
    there = dict.fromkeys(names)
    for name in names:
        stem, suffix = os.path.splitext(name)
        path = os.path.join(directory, name)
        if name.startswith("."):
            continue
        if suffix in (".pem", ".crt"):
            if stem in ("ca", "chain") or (suffix == ".pem" and stem.endswith("-key")):
                continue
            key = next((each for each in (f"{stem}.key", f"{stem}-key.pem") if each in there), name)
            yield Pair(path, os.path.join(directory, key))
        elif suffix != ".key" and (folder := _folder(path)) is not None:
            yield folder


def _folder(path: str) -> Pair | None:
    """A folder of certbot's, if it is one."""
    pair = Pair(os.path.join(path, "fullchain.pem"), os.path.join(path, "privkey.pem"))
    return pair if os.path.exists(pair.certificate) else None


# ------------------------------------------------------------------------------------------------- what is in a file


_KEYS: Final = ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY")
_OTHERS: Final = {
    "CERTIFICATE REQUEST": "it is a request for a certificate; use what the authority has sent back",
    "PKCS7": "it is in PKCS #7; convert it: openssl pkcs7 -print_certs -in {path} -out cert.pem",
    "TRUSTED CERTIFICATE": "it is in a format of OpenSSL's own; convert it: openssl x509 -in {path} -out cert.pem",
    "PUBLIC KEY": "it is a public key, and the private one is wanted",
    "OPENSSH PRIVATE KEY": "it is a key for SSH; make one for TLS: openssl genpkey -algorithm EC "
    "-pkeyopt ec_paramgen_curve:P-256",
}
"""What people give instead of a certificate or a key, and what to do."""


def _pair_of(chain: bytes, key: bytes, pair: Pair, now: float, *, named: bool = True) -> Certificate:
    """A certificate that may be used now, from what is in its files; `named` wants it to be for a host. Raises
    `CertificateError`."""
    blocks = _blocks(pair.certificate, chain)
    key_blocks = blocks if pair.key == pair.certificate else _blocks(pair.key, key)
    pem = _chain(pair.certificate, blocks, key_blocks)
    certificates = [block.der for block in blocks if block.label == "CERTIFICATE"]
    if len(certificates) > CHAIN_MAX:
        raise CertificateError(f"{pair.certificate}: it has more than {CHAIN_MAX} certificates; "
                               "leave its own and those that lead to its authority")  # fmt: skip
    key_pem = _key(pair, key_blocks)
    try:
        facts = read_certificate(certificates[0])
    except ValueError as error:
        raise CertificateError(f"{pair.certificate}: its first certificate cannot be used: {error}") from None
    certificate = _made(facts, pem, key_pem, pair)
    _check_fit(certificate, certificates, pair)
    if named and not facts.names:
        raise CertificateError(f"{pair.certificate}: it has no subjectAltName, so it is for no host; ask for one with "
                               "names: openssl req -addext subjectAltName=DNS:NAME")  # fmt: skip
    if now >= facts.not_after:
        raise CertificateError(f"{pair.certificate}: it expired on {_day(facts.not_after)}; renew it")
    if now < facts.not_before:
        raise CertificateError(f"{pair.certificate}: it is not valid before {_day(facts.not_before)}; "
                               "wait, or set this machine's clock")  # fmt: skip
    return certificate


def _made(facts: Facts, chain: bytes, key: bytes, pair: Pair) -> Certificate:
    return Certificate(chain, key, facts.names, facts.kind, facts.not_before, facts.not_after, facts.fingerprint,
                       pair.certificate)  # fmt: skip


def _blocks(path: str, data: bytes) -> list[Block]:
    if not data.strip():
        raise CertificateError(f"{path}: it is empty; put the PEM there")
    try:
        blocks = pem_blocks(data)
    except ValueError as error:
        raise CertificateError(f"{path}: {error}; write it anew") from None
    if not blocks and data[:1] == b"\x30":
        raise CertificateError(f"{path}: it is binary, and PEM is wanted; convert it: {_conversion(path, data)}")
    return blocks


def _conversion(path: str, data: bytes) -> str:
    """How to make PEM of what begins as DER does."""
    try:
        read_certificate(data)
    except ValueError:
        if b"\x02\x01\x03\x30" in data[:10]:  # the version of PKCS #12
            return f"openssl pkcs12 -in {path} -nodes -out cert.pem"
        return f"openssl pkey -inform der -in {path} -out key.pem"
    return f"openssl x509 -inform der -in {path} -out cert.pem"


def _chain(path: str, blocks: Sequence[Block], key_blocks: Sequence[Block] = ()) -> bytes:
    """The certificates of a file."""
    found = [ssl.DER_cert_to_PEM_cert(block.der).encode() for block in blocks if block.label == "CERTIFICATE"]
    if found:
        return b"".join(found)
    what = "there is no certificate in it; it must begin with -----BEGIN CERTIFICATE-----"
    if any(block.label in _KEYS for block in blocks):
        what = "there is a key in it, and no certificate"
        if any(block.label == "CERTIFICATE" for block in key_blocks):
            what += ", which is where the key should be; are the two swapped?"
        else:
            what += "; put the certificate there, before the key"
    raise CertificateError(f"{path}: {_other(path, blocks) or what}")


def _key(pair: Pair, blocks: Sequence[Block]) -> bytes:
    """The one key of a file."""
    path = pair.key
    found = [block for block in blocks if block.label in _KEYS]
    if not found:
        what = "there is no key in it; "
        what += (
            "give the key's file too" if pair.key == pair.certificate else "it must have -----BEGIN PRIVATE KEY-----"
        )
        raise CertificateError(f"{path}: {_other(path, blocks) or what}")
    if len(found) > 1:
        raise CertificateError(f"{path}: there are {len(found)} keys in it; leave the one that is the certificate's")
    if found[0].encrypted:
        raise CertificateError(f"{path}: the key is encrypted; decrypt it: openssl pkey -in {path} -out key.pem")
    return found[0].text


def _other(path: str, blocks: Sequence[Block]) -> str:
    """What was given instead, if it is known."""
    return next((_OTHERS[block.label].format(path=path) for block in blocks if block.label in _OTHERS), "")


def _check_fit(certificate: Certificate, chain: Sequence[bytes], pair: Pair) -> None:
    """Whether OpenSSL takes a certificate, and the key is its own. Raises `CertificateError`."""
    error = _refusal(certificate)
    if error is None:
        return
    reason = error.reason or ""
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
        for der in chain[1:]:
            first = ssl.DER_cert_to_PEM_cert(der).encode()
            other = Certificate(first, certificate.key, (), "", 0.0, 0.0, "", "")
            if _refusal(other) is None:
                raise CertificateError(f"{pair.certificate}: its first certificate is not the one of the key, and a "
                                       "later one is; put that first, and then its issuers") from None  # fmt: skip
        raise CertificateError(f"{pair.key}: the key is not the one of the certificate in {pair.certificate}; "
                               "give the two that belong together")  # fmt: skip
    if reason.endswith(("_TOO_SMALL", "_TOO_WEAK")):
        raise CertificateError(f"{pair.certificate}: OpenSSL refuses it: {explained(error)}; make one with an "
                               "ECDSA key (or RSA of 2048 bits) and SHA-256")  # fmt: skip
    raise CertificateError(f"{pair.certificate}: OpenSSL cannot read it or its key ({explained(error)}); get them anew")


def _refusal(certificate: Certificate) -> ssl.SSLError | None:
    """What OpenSSL says against a certificate and its key."""
    try:
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate)
    except ssl.SSLError as error:
        return error
    return None


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
