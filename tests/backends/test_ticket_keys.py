"""Sessions that were begun in one context go on in another of the same listener, and in no other."""

from __future__ import annotations

import _ssl
import ssl
import subprocess
import sys

import pytest

from coulee.backends import ticket_keys
from coulee.backends.tls import Tls, downstream_context
from coulee.core.seam import DownstreamTls
from coulee.core.tls import ClientCertificates, Version
from tests.backends.tls_ends import PLACE, ROOT, VERSIONS, LayerEnd, PythonEnd, asking, certificate, downstream, talk


def test_this_openssl_can_be_told() -> None:
    """What follows rests on it: without it each worker has its own, which is no failure."""
    assert ticket_keys.share(downstream_context(downstream()), b"about")


def test_what_was_told_is_read_back() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert ticket_keys.share(context, b"about")
    assert ticket_keys._control is not None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("later", "resumed"),
    [
        (downstream(), True),
        (downstream(certificate("a.test", rsa=True)), True),
        (downstream(certificate("a.test", "b.test")), True),
        (downstream(client_certificates=ClientCertificates(ROOT, required=False)), False),
        (downstream(alpn=("h2",)), False),
    ],
    ids=["another worker", "another key", "another certificate", "clients show theirs", "other protocols"],
)
def test_who_resumes_what(version: Version, later: DownstreamTls, resumed: bool) -> None:
    first = downstream()
    context = asking(version)
    asks = PythonEnd(context)
    answers = LayerEnd(Tls().layer(first, PLACE))
    talk(asks, answers)
    asks.feed(answers.layer.encrypt(b"x"))
    again = PythonEnd(context, session=asks.tls.session)
    answers = LayerEnd(Tls().layer(later, PLACE))
    talk(again, answers)
    assert answers.layer.security is not None
    assert answers.layer.security.resumed is bool(again.tls.session_reused) is resumed


def test_a_listener_that_wants_certificates_takes_no_session_begun_without() -> None:
    context = asking()
    asks, answers = PythonEnd(context), LayerEnd(Tls().layer(downstream(), PLACE))
    talk(asks, answers)
    asks.feed(answers.layer.encrypt(b"x"))
    again = PythonEnd(context, session=asks.tls.session)
    answers = LayerEnd(Tls().layer(downstream(client_certificates=ClientCertificates(ROOT)), PLACE))
    with pytest.raises(OSError, match="did not return a certificate"):
        talk(again, answers)


def test_keys_are_another_program_s_own() -> None:
    script = "from coulee.backends import ticket_keys; print(ticket_keys._SECRET.hex())"
    secrets = {subprocess.check_output([sys.executable, "-c", script]) for _ in range(2)}
    assert len(secrets | {ticket_keys._SECRET.hex().encode()}) == 3


def test_workers_inherit_them() -> None:
    """The secret is there as soon as the module is, before anything forks."""
    script = """
import os
from coulee.backends import ticket_keys
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, ticket_keys._SECRET)
    os._exit(0)
print(os.read(read, 99) == ticket_keys._SECRET)
"""
    assert subprocess.check_output([sys.executable, "-c", script]) == b"True\n"


def test_where_openssl_cannot_be_told_all_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticket_keys, "_control", None)
    assert not ticket_keys.share(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), b"about")
    asks, answers = PythonEnd(asking()), LayerEnd(Tls().layer(downstream(), PLACE))
    talk(asks, answers)
    assert asks.done


@pytest.mark.parametrize("file", ["/nowhere.so", None])
def test_where_the_function_is_not_to_be_found(monkeypatch: pytest.MonkeyPatch, file: str | None) -> None:
    if file is None:
        monkeypatch.delattr(_ssl, "__file__")
    else:
        monkeypatch.setattr(_ssl, "__file__", file)
    assert ticket_keys._found() is None


def test_another_python_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.implementation, "name", "pypy")
    assert ticket_keys._found() is None
