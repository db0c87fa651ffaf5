"""The certificate of all peers that speak TLS, and what clients of theirs go by.

Rules: ECDSA on P-256, which is what servers have nowadays; one cipher order for all that can be told it, since AES-256
costs a third more than AES-128; clients verify nothing, for what they do is not what is measured.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.benchmarks.processes import HOST, BenchError

CIPHERS = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM."""

    chain: Path
    key: Path
    together: Path  # both in one, as some want it


def make_certificate(folder: Path) -> Certificate:
    """One for this machine, in a folder. Raises `BenchError`."""
    try:
        import trustme
    except ImportError:
        raise BenchError("trustme is not installed, which makes the certificate") from None
    made = trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert(HOST, "localhost", key_type=trustme.KeyType.ECDSA)
    certificate = Certificate(folder / "certificate.pem", folder / "key.pem", folder / "together.pem")
    chain, key = b"".join(each.bytes() for each in made.cert_chain_pems), made.private_key_pem.bytes()
    certificate.chain.write_bytes(chain)
    certificate.key.write_bytes(key)
    certificate.together.write_bytes(key + chain)
    return certificate


@cache
def client_context() -> ssl.SSLContext:
    """For a client that takes whatever it gets."""
    return _trusting()


@cache
def http2_context() -> ssl.SSLContext:
    """The same for one that speaks HTTP/2."""
    context = _trusting()
    context.set_alpn_protocols(["h2"])
    return context


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
