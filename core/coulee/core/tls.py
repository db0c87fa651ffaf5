"""TLS as the core sees it: settings and results, which are values. Whoever has OpenSSL carries it out.

- `ListenerTls` is what a user asks for at a listener, `UpstreamTls` for a peer.
- `DownstreamTls` is what one handshake with a client goes by: its certificates are chosen, from a `ListenerTls`.
- `Security` is what a handshake came to.

Rules:

- Verification of a peer is on unless somebody says `verify=False`, in these words. No other setting switches it off.
- A private key is in no text and in no recording of what is here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

from coulee.core.pem import has_certificates
from coulee.core.server_names import covers, is_ip

Version: TypeAlias = Literal["1.2", "1.3"]

CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
"""For TLS 1.2: those with forward secrecy and an AEAD, as Mozilla's "intermediate" has them (version 5.7), without its
finite-field ones. TLS 1.3 has good ones only."""


HTTP1: Final = ("http/1.1",)
HTTP2_OR_1: Final = ("h2", "http/1.1")
"""Protocols by their names of RFC 7301, the preferred one first."""


# ------------------------------------------------------------------------------------------------- certificates


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Certificate:
    """A certificate with its chain and its private key, as it was loaded. Two that look alike are two."""

    chain: bytes
    """The certificate and those between it and a root, in PEM."""

    key: bytes = field(repr=False)
    """Its private key, in PEM and not encrypted."""

    names: tuple[str, ...]
    """What it is for: DNS names in lower case, of which the first label may be `*`, and IP addresses."""

    kind: str
    """Of its key: "ecdsa", "rsa" or "ed25519"."""

    not_before: float
    """When it begins to be valid, in seconds since 1970."""

    not_after: float
    """... and ends."""

    fingerprint: str
    """SHA-256 of the certificate in DER, in hexadecimal."""

    source: str
    """Where it comes from, for people: a path, mostly."""

    def covers(self, host: str) -> bool:
        """Whether it is for this host."""
        return covers(self.names, host)

    def __reduce__(self) -> tuple[Any, ...]:
        # Who pickles it wants to tell what happened, and no key belongs there.
        return (Certificate, (self.chain, b"", self.names, self.kind, self.not_before, self.not_after,
                              self.fingerprint, self.source))  # fmt: skip


class CertificateError(ValueError):
    """A certificate, or its key, that cannot be used: the file, what is wrong, and what to do, in one line."""


@dataclass(frozen=True, slots=True)
class CertificatesFound:
    """What a source has now."""

    stamp: object
    """What stands for it; it must be possible to pickle it."""

    certificates: Sequence[Certificate]
    """All of them, also those that were there before, as the same objects."""

    problems: tuple[str, ...] = ()
    """What is wrong with some, so that what was there before them is kept: a line for each."""


class CertificateSource(Protocol):
    """Where certificates come from, and how it is seen that there are new ones."""

    @property
    def name(self) -> str:
        """For people: a path, mostly."""
        ...

    @property
    def certificates(self) -> Sequence[Certificate]:
        """Those that were loaded when the source was made; the first is the default."""
        ...

    @property
    def interval_s(self) -> float:
        """How often to look for new ones; `math.inf` is never."""
        ...

    @property
    def stamp(self) -> object:
        """What `look` is to be given first."""
        ...

    def look(self, stamp: object) -> CertificatesFound | None:
        """What is there now; None where that is what `stamp` stands for. Blocks, so it runs on a thread; keeps nothing,
        for several machines may look at one source. May raise `CertificateError`, and does so each time: whoever asks
        says it once."""
        ...


CertificateFunction: TypeAlias = Callable[[str], "Certificate | Awaitable[Certificate | None] | None"]
"""A user's own choice, by the name that a client asks for ("" where it names none). None leaves it to the sources."""


# ----------------------------------------------------------------------------------------------------- settings


@dataclass(frozen=True, slots=True)
class ClientCertificates:
    """What a listener asks its clients for."""

    ca: bytes
    """The authorities whose certificates are taken, in PEM."""

    required: bool = True
    """A client without one is turned away. False asks, and lets those without one in too."""

    depth_max: int = 4
    """Certificates between the client's and an authority of `ca`."""

    def __post_init__(self) -> None:
        _check_ca(self.ca)
        if self.depth_max < 0:
            raise ValueError(f"depth_max is {self.depth_max}; it must be 0 or more")


@dataclass(frozen=True, slots=True)
class ListenerTls:
    """TLS at a listener.

    ListenerTls(CertificateFiles("cert.pem", "key.pem"))
    """

    certificates: CertificateSource | Sequence[CertificateSource]
    """The certificate for a connection is the one that covers the name the client asks for: exactly, or by a wildcard,
    or else the first of all. Of one name there may be one for each kind of key, and the client takes what it knows."""

    choose: CertificateFunction | None = None
    """Asked first, for each connection; may be `async`."""

    client_certificates: ClientCertificates | None = None
    """Ask clients for a certificate."""

    alpn: tuple[str, ...] = HTTP2_OR_1
    """Protocols that are offered (RFC 7301), the preferred one first. A client that says nothing of it is let in, and
    gets HTTP/1.1; one that offers others only is not. `("http/1.1",)` switches HTTP/2 off. At a `Tunnel`, which does
    not know what its origins speak, the default stands for that too."""

    minimum_version: Version = "1.2"
    """Of TLS."""

    ciphers: str = CIPHERS
    """For TLS 1.2, in OpenSSL's notation."""

    covered_only: bool = True
    """A request for a host that the connection's certificate does not cover is answered 421 (RFC 9110 section 7.4), so
    that nobody comes by one name to where another is served."""

    key_log: str = ""
    """A file to write session keys to, for Wireshark. Whoever has it can read the traffic: for debugging only."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("certificates is empty; a listener with TLS needs one, as CertificateFiles('cert.pem')")
        _check_protocol(self.alpn, self.minimum_version, self.ciphers)

    @property
    def sources(self) -> tuple[CertificateSource, ...]:
        """Where its certificates come from, in their order."""
        given = self.certificates
        return tuple(given) if isinstance(given, Sequence) else (given,)


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class DownstreamTls:
    """What one handshake with a client goes by."""

    certificates: tuple[Certificate, ...]
    """One for each kind of key; all for the same name."""

    listener: ListenerTls


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """TLS to a peer. Peers with equal settings can share connections, and others cannot."""

    server_name: str | None = None
    """The name to ask for (RFC 6066 section 3). None is the host of the peer's URL, "" asks for none."""

    verified_name: str | None = None
    """The name, or IP address, that the peer's certificate must be for. None is the host of the peer's URL."""

    alternative_names: tuple[str, ...] = ()
    """Others that do as well."""

    verify: bool = True
    """Whether the peer's certificate is looked at. Without it anybody can be the peer: each start says so."""

    ca: bytes = b""
    """The authorities that are trusted, in PEM; b"" is the system's store."""

    certificate: Certificate | None = None
    """What to show where the peer asks for a certificate of ours."""

    alpn: tuple[str, ...] = HTTP1
    """Protocols that are offered (RFC 7301), the preferred one first. `("h2", "http/1.1")` is HTTP/2 where the peer
    takes it."""

    minimum_version: Version = "1.2"
    """Of TLS."""

    ciphers: str = CIPHERS
    """For TLS 1.2, in OpenSSL's notation."""

    key_log: str = ""
    """A file to write session keys to, for Wireshark. Whoever has it can read the traffic: for debugging only."""

    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.server_name and (is_ip(self.server_name) or not self.server_name.isascii()):
            raise ValueError(
                f"server_name is {self.server_name!r}; it must be a DNS name in ASCII, and for an IP address the "
                "name to verify is verified_name"
            )
        if self.ca:
            _check_ca(self.ca)
        _check_protocol(self.alpn, self.minimum_version, self.ciphers)
        values = (self.server_name, self.verified_name, self.alternative_names, self.verify, self.ca, self.certificate,
                  self.alpn, self.minimum_version, self.ciphers, self.key_log)  # fmt: skip
        object.__setattr__(self, "_hash", values.__hash__())

    def __hash__(self) -> int:
        return self._hash  # it is part of what connections are looked up by

    def for_host(self, host: str) -> UpstreamTls:
        """With what is left to the peer's host filled in. No name is asked for where the host is an IP address (RFC
        6066 section 3)."""
        asked = self.server_name if self.server_name is not None else "" if is_ip(host) else host
        verified = host if self.verified_name is None else self.verified_name
        return replace(self, server_name=asked, verified_name=verified)


def _check_ca(ca: bytes) -> None:
    if not has_certificates(ca):
        raise ValueError("ca has no certificate in PEM; read a file of them with coulee.tls.client_ca")


def _check_protocol(alpn: tuple[str, ...], minimum_version: str, ciphers: str) -> None:
    for protocol in alpn:
        if not (0 < len(protocol) < 256 and protocol.isascii()):
            raise ValueError(f"alpn has {protocol!r}; a protocol's name has 1 to 255 characters of ASCII")
    if minimum_version not in get_args(Version):
        raise ValueError(f"minimum_version is {minimum_version!r}; it must be one of {', '.join(get_args(Version))}")
    if not ciphers or not ciphers.isascii():
        raise ValueError(f"ciphers is {ciphers!r}; it must be a list as OpenSSL has it, and without one the default")


# ------------------------------------------------------------------------------------------------------ results


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What the other side has shown, once it was verified."""

    subject: str
    """Its distinguished name, as `CN=alice,O=Acme` (RFC 4514)."""

    issuer: str

    names: tuple[str, ...]
    """Its alternative names, each with its kind: `DNS:a.test`, `IP:10.0.0.1`, `URI:spiffe://...`, `email:a@b.test`."""

    fingerprint: str
    """SHA-256 of it in DER, in hexadecimal."""

    serial: str
    not_after: float


@dataclass(frozen=True, slots=True)
class Security:
    """What a handshake came to."""

    version: str
    """`TLSv1.2` or `TLSv1.3`."""

    cipher: str
    """By OpenSSL's name."""

    alpn: str = ""
    """The protocol agreed on; "" for none."""

    resumed: bool = False
    """Whether an earlier session went on."""

    certificate: PeerCertificate | None = None
    """The peer's, where one was asked for, shown and verified."""
