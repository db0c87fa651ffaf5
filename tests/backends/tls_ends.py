"""Certificates, and ends of TLS that are joined in memory, for tests."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Any, Protocol

import trustme
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from coulee.backends.layer import Layer
from coulee.backends.tls import Tls
from coulee.conformance.securing import NoCertificates
from coulee.core.seam import Certificate, DownstreamTls, UpstreamTls
from coulee.core.tls import ListenerTls, Version

AUTHORITY = trustme.CA(key_type=trustme.KeyType.ECDSA)
STRANGER = trustme.CA(key_type=trustme.KeyType.ECDSA)
"""Another authority, whom nobody trusts."""

ROOT = AUTHORITY.cert_pem.bytes()
PLACE = ("10.0.0.2", 443)
VERSIONS: tuple[Version, ...] = ("1.2", "1.3")
_NUMBERS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def issued(
    *names: str,
    authority: trustme.CA = AUTHORITY,
    rsa: bool = False,
    begins: datetime | None = None,
    expires: datetime | None = None,
) -> trustme.LeafCert:
    """A certificate as trustme has it."""
    kind = trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA
    return authority.issue_cert(*names, key_type=kind, not_before=begins, not_after=expires)


def made_of(leaf: trustme.LeafCert) -> Certificate:
    """The same as coulee has it. What is for the core only is left out."""
    chain = b"".join(each.bytes() for each in leaf.cert_chain_pems)
    return Certificate(chain, leaf.private_key_pem.bytes(), (), "", 0.0, 0.0, "", "a test")


def certificate(*names: str, authority: trustme.CA = AUTHORITY, rsa: bool = False) -> Certificate:
    """One that is good for these names; the same one each time."""
    return _certificate(names, authority, rsa)


@cache
def _certificate(names: tuple[str, ...], authority: trustme.CA, rsa: bool) -> Certificate:
    return made_of(issued(*names, authority=authority, rsa=rsa))


def downstream(*certificates: Certificate, **settings: Any) -> DownstreamTls:
    """For the side that answers, which is a.test unless something else is given."""
    return DownstreamTls(certificates or (certificate("a.test"),), ListenerTls(NoCertificates(), **settings))


def upstream(host: str = "a.test", **settings: Any) -> UpstreamTls:
    """For the side that asks, and that trusts the authority."""
    settings.setdefault("ca", ROOT)
    return UpstreamTls(**settings).for_host(host)


# ------------------------------------------------------------------------------------------------------- joined


class End(Protocol):
    """One side."""

    def start(self) -> None:
        """Speak first, where that is for this side to do."""

    def feed(self, data: bytes) -> None:
        """Bytes have come."""

    def take(self) -> bytes:
        """What is to go out."""
        ...


class LayerEnd:
    """A layer of ours."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.plain = b""

    def start(self) -> None:
        self.feed(b"")

    def feed(self, data: bytes) -> None:
        plain = self.layer.receive(data)
        assert self.layer.security is not None or not plain
        self.plain += plain

    def take(self) -> bytes:
        data, self.layer.to_send = self.layer.to_send, b""
        return data


class PythonEnd:
    """Python's own TLS, as its users have it."""

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        name: str | None = "a.test",
        server: bool = False,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server, server_hostname=None if server else name, session=session
        )
        self.done = False
        self.plain = b""
        self.ended = False

    def start(self) -> None:
        self.feed(b"")

    def feed(self, data: bytes) -> None:
        self.incoming.write(data)
        try:
            if not self.done:
                self.tls.do_handshake()
                self.done = True
            while piece := self.tls.read(65536):
                self.plain += piece
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True

    def take(self) -> bytes:
        return self.outgoing.read()

    def say(self, data: bytes) -> bytes:
        """What goes out for `data`."""
        self.tls.write(data)
        return self.outgoing.read()

    def farewell(self) -> bytes:
        """What goes out in the end."""
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.outgoing.read()


def whole(data: bytes) -> Iterable[bytes]:
    """As it comes."""
    return (data,)


def bytewise(data: bytes) -> Iterable[bytes]:
    """Each byte by itself."""
    return (data[index : index + 1] for index in range(len(data)))


class CutAt:
    """Once, behind so many bytes of a stream."""

    def __init__(self, index: int) -> None:
        self._left = index

    def __call__(self, data: bytes) -> Iterable[bytes]:
        cut, self._left = self._left, self._left - len(data)
        return (data[:cut], data[cut:]) if 0 < cut < len(data) else (data,)


def talk(
    asks: End,
    answers: End,
    to_answers: Callable[[bytes], Iterable[bytes]] = whole,
    to_asks: Callable[[bytes], Iterable[bytes]] = whole,
) -> tuple[int, int]:
    """Carry everything there and back until both are silent. How many bytes went each way."""
    there = back = 0
    asks.start()
    while True:
        out = asks.take()
        there += len(out)
        for piece in to_answers(out) if out else ():
            answers.feed(piece)
        out = answers.take()
        if not out:
            return there, back
        back += len(out)
        for piece in to_asks(out):
            asks.feed(piece)


def asking(version: Version | None = None, *, trust: bool = True) -> ssl.SSLContext:
    """Python's own side that asks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trust:
        AUTHORITY.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]
    if version is not None:
        context.minimum_version = context.maximum_version = _NUMBERS[version]
    return context


def answering(*leaves: trustme.LeafCert, version: Version | None = None) -> ssl.SSLContext:
    """Python's own side that answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for leaf in leaves:
        leaf.configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    if version is not None:
        context.minimum_version = context.maximum_version = _NUMBERS[version]
    return context


def pair(
    down: DownstreamTls | None = None, up: UpstreamTls | None = None, tls: Tls | None = None
) -> tuple[LayerEnd, LayerEnd]:
    """The side that asks and the one that answers, both ours."""
    tls = tls or Tls()
    return LayerEnd(tls.layer(up or upstream(), PLACE)), LayerEnd(tls.layer(down or downstream(), PLACE))


def joined(
    down: DownstreamTls | None = None, up: UpstreamTls | None = None, tls: Tls | None = None
) -> tuple[LayerEnd, LayerEnd]:
    """The same behind their handshake."""
    asks, answers = pair(down, up, tls)
    talk(asks, answers)
    return asks, answers


# ------------------------------------------------------------------------------------------------ records by hand


ALERT, HANDSHAKE, DATA = 21, 22, 23
KEY_UPDATE = bytes((24, 0, 0, 1, 1))
"""One that asks for the same in return (RFC 8446 section 4.6.3)."""


class Hand:
    """Writes records of TLS 1.3 that no library would, once the handshake of somebody else is done: with his secret,
    as a key log has it. TLS_AES_256_GCM_SHA384."""

    def __init__(self, key_log: str, label: str = "CLIENT_TRAFFIC_SECRET_0") -> None:
        secret = next(line.split()[2] for line in key_log.splitlines() if line.startswith(label))
        self._use(bytes.fromhex(secret))

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._key = AESGCM(_expanded(secret, b"key", 32))
        self._iv = int.from_bytes(_expanded(secret, b"iv", 12), "big")
        self._sequence = 0

    def record(self, kind: int, data: bytes) -> bytes:
        """A record of this kind (RFC 8446 section 5.2)."""
        header = b"\x17\x03\x03" + (len(data) + 17).to_bytes(2, "big")
        nonce = (self._iv ^ self._sequence).to_bytes(12, "big")
        self._sequence += 1
        return header + self._key.encrypt(nonce, data + bytes((kind,)), header)

    def key_update(self) -> bytes:
        """A whole one."""
        record = self.record(HANDSHAKE, KEY_UPDATE)
        self.turn()
        return record

    def turn(self) -> None:
        """To the next keys, as behind a key update (RFC 8446 section 7.2)."""
        self._use(_expanded(self._secret, b"traffic upd", 48))


def _expanded(secret: bytes, label: bytes, size: int) -> bytes:
    """RFC 8446 section 7.1: HKDF-Expand-Label."""
    label = b"tls13 " + label
    about = size.to_bytes(2, "big") + bytes((len(label),)) + label + b"\0"
    return HKDFExpand(SHA384(), size, about).derive(secret)
