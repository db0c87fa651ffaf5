"""What may be wrong with a certificate, its key and their files, and what is said of it."""

from __future__ import annotations

import os
import ssl
import sys
import time
from math import inf
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

import coulee.tls
from coulee.backends.tls import load_certificate
from coulee.core.tls import CertificateSource
from coulee.tls import (
    CertificateFiles,
    SelfSigned,
    client_ca,
    client_certificate,
)
from tests.backends.issuing import (
    AUTHORITY,
    CHAIN,
    DAY,
    KEY,
    NOW,
    error_of,
    fits,
    issue,
    key_of,
    pem,
    put,
    rsa_key,
    unusual,
)


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


# ------------------------------------------------------------------------------------------------- what is in a file


def test_a_pair_is_loaded(pair: tuple[Path, Path]) -> None:
    chain, key = issue("a.test", "*.B.test", "10.0.0.1", "::1")
    put(pair[0], b"a comment: \xe9\n" + chain)
    put(pair[1], key)
    source: CertificateSource = CertificateFiles(*pair)
    (certificate,) = source.certificates
    leaf = x509.load_pem_x509_certificate(chain)
    assert certificate.names == ("a.test", "*.b.test", "10.0.0.1", "::1")
    assert certificate.kind == "ecdsa"
    assert certificate.fingerprint == leaf.fingerprint(hashes.SHA256()).hex()
    assert certificate.not_after == leaf.not_valid_after_utc.timestamp()
    assert certificate.not_before == leaf.not_valid_before_utc.timestamp()
    assert certificate.source == source.name == str(pair[0])
    assert certificate.chain == chain.replace(b"\r\n", b"\n")
    assert fits(certificate)
    load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate)


@pytest.mark.parametrize("order", [1, -1])
def test_a_key_may_be_in_the_same_file(here: Path, order: int) -> None:
    (here / "both.pem").write_bytes(b"\n".join(issue()[::order]))
    assert fits(CertificateFiles("both.pem").certificates[0])


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_keys_are_taken_in_every_form_that_openssl_writes(here: Path, form: PrivateFormat, kind: str) -> None:
    key = rsa_key() if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    (here / "c.pem").write_bytes(pem(unusual(key)))
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    (here / "k.pem").write_bytes((parameters if kind == "ecdsa" else b"") + pem(key, form))
    (certificate,) = CertificateFiles("c.pem", "k.pem").certificates
    assert certificate.kind == kind
    assert fits(certificate)


LATER_CHAIN = CHAIN + AUTHORITY.cert_pem.bytes()
OTHER_CHAIN, OTHER_KEY = issue("b.test")
SMALL = rsa_key(1024)
PLAIN_PEM = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
DER = ssl.PEM_cert_to_DER_cert(CHAIN.decode().replace("\r\n", "\n"))
KEY_DER = key_of(KEY).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
PKCS12 = pkcs12.serialize_key_and_certificates(
    b"a", key_of(KEY), x509.load_pem_x509_certificate(CHAIN), None, serialization.BestAvailableEncryption(b"p")
)
PUBLIC = key_of(KEY).public_key().public_bytes(Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
SSH = key_of(KEY).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
REQUEST = (
    x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key_of(KEY), hashes.SHA256()).public_bytes(Encoding.PEM)
)


def relabelled(label: str) -> bytes:
    return CHAIN.replace(b"CERTIFICATE", label.encode())


def with_sha1() -> bytes:
    """The algorithm is only named here: to sign by it is what libraries refuse."""
    der = unusual(rsa_key()).public_bytes(Encoding.DER)
    sha256, sha1 = (bytes.fromhex(f"2a864886f70d0101{last}") for last in ("0b", "05"))
    return ssl.DER_cert_to_PEM_cert(der.replace(sha256, sha1)).encode()


@pytest.mark.parametrize(
    ("certificate", "key", "text"),
    [
        (b"", KEY, "c.pem: it is empty; put the PEM there"),
        (b"hello", KEY, "c.pem: there is no certificate in it; it must begin with -----BEGIN CERTIFICATE-----"),
        (CHAIN, b"hello", "k.pem: there is no key in it; it must have -----BEGIN PRIVATE KEY-----"),
        (CHAIN, b"\n", "k.pem: it is empty; put the PEM there"),
        (CHAIN, OTHER_KEY, "k.pem: the key is not the one of the certificate in c.pem; give the two"),
        (CHAIN, pem(rsa_key()), "k.pem: the key is not the one of the certificate in c.pem"),
        (pem(unusual(rsa_key())), KEY, "k.pem: the key is not the one of the certificate in c.pem"),
        (LATER_CHAIN, OTHER_KEY, "k.pem: the key is not the one of the certificate in c.pem"),
        (KEY, CHAIN, "c.pem: there is a key in it, and no certificate, which is where the key should be; are the two"),
        (KEY, KEY, "c.pem: there is a key in it, and no certificate; put the certificate there"),
        (CHAIN, KEY + OTHER_KEY, "k.pem: there are 2 keys in it; leave the one that is the certificate's"),
        (CHAIN, pem(key_of(KEY), password=b"p"), "k.pem: the key is encrypted; decrypt it: openssl pkey -in k.pem"),
        (CHAIN, pem(key_of(KEY), PrivateFormat.TraditionalOpenSSL, b"p"), "k.pem: the key is encrypted"),
        (DER, KEY, "c.pem: it is binary, and PEM is wanted; convert it: openssl x509 -inform der -in c.pem"),
        (CHAIN, KEY_DER, "k.pem: it is binary, and PEM is wanted; convert it: openssl pkey -inform der -in k.pem"),
        (PKCS12, KEY, "c.pem: it is binary, and PEM is wanted; convert it: openssl pkcs12 -in c.pem -nodes"),
        (AUTHORITY.cert_pem.bytes() + CHAIN, KEY, "c.pem: its first certificate is not the one of the key, and a"),
        (CHAIN[:-20], KEY, "c.pem: it has no end of its block CERTIFICATE, as if it were "),
        (CHAIN, KEY[:-20], "k.pem: it has no end of its block"),
        (CHAIN.replace(b"M", b"!", 1), KEY, "c.pem: what is in its block CERTIFICATE is not base64; write it anew"),
        (PLAIN_PEM, KEY, "c.pem: its first certificate cannot be used: it ends too soon"),
        (CHAIN + PLAIN_PEM, KEY, "c.pem: OpenSSL cannot read it or its key"),
        (CHAIN, relabelled("PRIVATE KEY"), "c.pem: OpenSSL cannot read it or its key"),
        (CHAIN * 17, KEY, "c.pem: it has more than 16 certificates; leave its own and"),
        (pem(unusual(key_of(KEY), names=False)), KEY, "c.pem: it has no subjectAltName, so it is for no "),
        (pem(unusual(SMALL)), pem(SMALL), "c.pem: OpenSSL refuses it: ee key too small; make one with an ECDSA key"),
        (with_sha1(), pem(rsa_key()), "c.pem: OpenSSL refuses it: ca md too weak; make one with"),
        (REQUEST, KEY, "c.pem: it is a request for a certificate; use what the authority has sent back"),
        (relabelled("PKCS7"), KEY, "c.pem: it is in PKCS #7; convert it: openssl pkcs7 -print_certs -in c.pem"),
        (relabelled("TRUSTED CERTIFICATE"), KEY, "c.pem: it is in a format of OpenSSL's own; convert it"),
        (CHAIN, PUBLIC, "k.pem: it is a public key, and the private one is wanted"),
        (CHAIN, SSH, "k.pem: it is a key for SSH; make one for TLS: openssl genpkey"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_pair_is_said_in_one_line(here: Path, certificate: bytes, key: bytes, text: str) -> None:
    (here / "c.pem").write_bytes(certificate)
    (here / "k.pem").write_bytes(key)
    said = error_of(lambda: CertificateFiles("c.pem", "k.pem"))
    assert said.startswith(text)
    for secret in key.split()[3:]:
        assert len(secret) < 8 or secret not in said.encode()


def test_what_is_wrong_with_times_is_said(here: Path) -> None:
    for begin, end, text in (
        (NOW - 3 * DAY, NOW - DAY, f"c.pem: it expired on {(NOW - DAY).date()}; renew it"),
        (NOW + DAY, NOW + 3 * DAY, f"c.pem: it is not valid before {(NOW + DAY).date()}; wait, or set"),
    ):
        chain, key = issue(begin=begin, end=end)
        (here / "c.pem").write_bytes(chain + key)
        assert error_of(lambda: CertificateFiles("c.pem")).startswith(text)


def test_a_file_without_a_key_asks_for_the_keys(here: Path) -> None:
    (here / "c.pem").write_bytes(CHAIN)
    assert error_of(lambda: CertificateFiles("c.pem")) == "c.pem: there is no key in it; give the key's file too"


def test_what_is_wrong_with_paths_is_said(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ": there is no such file; check the path, or make one"
    assert error_of(lambda: CertificateFiles("none.pem", "key.pem")) == f"none.pem{missing}"
    assert error_of(lambda: CertificateFiles("cert.pem", "none.pem")) == f"none.pem{missing}"
    os.mkdir("folder")
    assert error_of(lambda: CertificateFiles("folder", "key.pem")) == (
        "folder: this is a directory; name a file in it, or use CertificateDirectory"
    )
    os.mkfifo("pipe")
    assert error_of(lambda: CertificateFiles("pipe", "key.pem")).startswith("pipe: this is no file")
    monkeypatch.setattr(coulee.tls, "FILE_BYTES_MAX", 10)
    assert error_of(lambda: CertificateFiles("cert.pem", "key.pem")).startswith("cert.pem: it is longer than 10 bytes")

    def refused(path: Any, *_: Any) -> int:
        raise OSError(errors[-1], os.strerror(errors[-1]), path)

    errors: list[int] = []
    monkeypatch.setattr("coulee.tls.os.open", refused)
    for number, text in ((13, "this user may not read it; let its group"), (5, "it cannot be read: Input/output")):
        errors.append(number)
        assert error_of(lambda: CertificateFiles("cert.pem", "key.pem")).startswith(f"cert.pem: {text}")


# -------------------------------------------------------------------------------------------------------- in memory


def test_a_self_signed_certificate_is_trusted_by_whoever_is_given_its_authority() -> None:
    source = SelfSigned()
    checked: CertificateSource = source
    (certificate,) = checked.certificates
    assert certificate.names == ("localhost", "127.0.0.1", "::1")
    assert certificate.kind == "ecdsa"
    assert certificate.not_before < time.time() < time.time() + 390 * 86400 < certificate.not_after
    assert (certificate.not_after - certificate.not_before) / 86400 < 398
    leaf = x509.load_pem_x509_certificate(certificate.chain)
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(source.ca))
    assert fits(certificate)
    assert checked.look(source.stamp) is None
    assert checked.interval_s == inf
    assert SelfSigned("a.test", "*.b.test").certificates[0].names == ("a.test", "*.b.test")
    assert SelfSigned().ca != source.ca


def test_a_name_that_no_certificate_can_have_is_an_error() -> None:
    assert error_of(lambda: SelfSigned("a b")).startswith("self-signed: no certificate for a b: ")


def test_without_trustme_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    assert error_of(SelfSigned) == '--tls self-signed needs: pip install "coulee[tls]"'


# -------------------------------------------------------------------------------------------- authorities and clients


def test_authorities_are_read_without_what_stands_around_them(here: Path) -> None:
    (here / "ca.pem").write_bytes("# Företag\n".encode() + AUTHORITY.cert_pem.bytes() + KEY + CHAIN)
    ca = client_ca("ca.pem")
    assert ca.isascii()
    assert [each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(ca)] == [
        ssl.PEM_cert_to_DER_cert(AUTHORITY.cert_pem.bytes().decode()), DER,
    ]  # fmt: skip
    assert b"PRIVATE" not in ca


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "ca.pem: it is empty"),
        (KEY, "ca.pem: there is a key in it, and no certificate"),
        (DER, "ca.pem: it is binary, and PEM is wanted; convert it: openssl x509 -inform der"),
        (CHAIN[:-9], "ca.pem: it has no end of its block CERTIFICATE"),
        (PLAIN_PEM, "ca.pem: a certificate in it is damaged ("),
    ],
)
def test_what_is_wrong_with_authorities_is_said(here: Path, data: bytes, text: str) -> None:
    (here / "ca.pem").write_bytes(data)
    assert error_of(lambda: client_ca(here / "ca.pem")).startswith(f"{here}/{text}")
    assert error_of(lambda: client_ca("none.pem")).startswith("none.pem: there is no such file")


def test_a_clients_certificate_needs_no_name(here: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (here / "c.pem").write_bytes(pem(unusual(key, names=False)))
    (here / "k.pem").write_bytes(pem(key))
    certificate = client_certificate("c.pem", here / "k.pem")
    assert certificate.names == ()
    assert fits(certificate)
    (here / "both.pem").write_bytes(pem(key) + pem(unusual(key, names=False)))
    assert fits(client_certificate("both.pem"))
    (here / "k.pem").write_bytes(KEY)
    assert error_of(lambda: client_certificate("c.pem", "k.pem")).startswith("k.pem: the key is not the one of")
