"""What the tests of certificates from files share: certificates of every kind, and files that are replaced."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from coulee.tls import (
    Certificate,
    CertificateError,
)

OLD_S = 60.0
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
AUTHORITY = trustme.CA(key_type=trustme.KeyType.ECDSA)


def issue(*names: str, begin: dt.datetime = NOW - DAY, end: dt.datetime = NOW + 30 * DAY) -> tuple[bytes, bytes]:
    """A new certificate and its key, in PEM."""
    made = AUTHORITY.issue_cert(*(names or ("a.test",)), not_before=begin, not_after=end)
    return b"".join(each.bytes() for each in made.cert_chain_pems), made.private_key_pem.bytes()


def unusual(key: Any, *, names: bool = True) -> x509.Certificate:
    """A certificate as no authority gives one today."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.test")])
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    builder = x509.CertificateBuilder(issuer, name, key.public_key(), 5, NOW - DAY, NOW + DAY)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("a.test")]), critical=False)
    return builder.sign(key, hashes.SHA256())


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def pem(thing: Any, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes = b"") -> bytes:
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(Encoding.PEM)
    encryption = serialization.BestAvailableEncryption(password) if password else NoEncryption()
    data: bytes = thing.private_bytes(Encoding.PEM, form, encryption)
    return data


def key_of(text: bytes) -> Any:
    return serialization.load_pem_private_key(text, None)


def aged(path: Path, age_s: float = OLD_S) -> None:
    """It was written so long ago."""
    then_ns = time.time_ns() - int(age_s * 1e9)
    os.utime(path, ns=(then_ns, then_ns))


def put(path: Path, data: bytes) -> None:
    """In one step, as another file."""
    other = path.with_name(".new")
    other.write_bytes(data)
    aged(other)
    os.replace(other, path)


def fits(certificate: Certificate) -> bool:
    """Whether the key is the certificate's, by another judge than OpenSSL's loader."""
    leaf = x509.load_pem_x509_certificate(certificate.chain)
    return bool(leaf.public_key() == key_of(certificate.key).public_key())


CHAIN, KEY = issue()
"""A good pair."""


def error_of(make: Callable[[], object]) -> str:
    """What is said: always one line."""
    with pytest.raises(CertificateError) as caught:
        make()
    text = str(caught.value)
    assert "\n" not in text
    return text
