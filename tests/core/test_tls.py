"""Settings and results of TLS, which are values."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from coulee.core.tls import (
    HTTP1,
    HTTP2_OR_1,
    Certificate,
    CertificatesFound,
    CertificateSource,
    ClientCertificates,
    DownstreamTls,
    ListenerTls,
    UpstreamTls,
)

PEM = b"-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n"
CERTIFICATE = Certificate(PEM, b"secret", ("a.test", "*.b.test"), "ecdsa", 1.0, 2.0, "abcd", "a.pem")


class Source:
    """A source with one certificate that stays."""

    name = "a.pem"
    certificates = (CERTIFICATE,)
    interval_s = 1.0
    stamp = None

    def look(self, stamp: object) -> CertificatesFound | None:
        return None


SOURCE: CertificateSource = Source()


def test_a_key_is_in_no_text_and_in_no_recording() -> None:
    assert "secret" not in repr(CERTIFICATE)
    for value in (CERTIFICATE, CertificatesFound(((CERTIFICATE,),), [CERTIFICATE])):
        assert b"secret" not in pickle.dumps(value)
    copy = pickle.loads(pickle.dumps(CERTIFICATE))
    assert (copy.chain, copy.key, copy.source) == (PEM, b"", "a.pem")
    assert (copy.names, copy.kind, copy.fingerprint) == (CERTIFICATE.names, "ecdsa", "abcd")
    assert (copy.not_before, copy.not_after) == (1.0, 2.0)
    assert "secret" not in repr(DownstreamTls((CERTIFICATE,), ListenerTls(SOURCE)))
    assert "secret" not in repr(UpstreamTls(certificate=CERTIFICATE))


def test_a_certificate_knows_whom_it_covers() -> None:
    assert CERTIFICATE.covers("x.b.test")
    assert not CERTIFICATE.covers("b.test")


def test_clients_are_offered_http2_and_origins_are_not() -> None:
    assert ListenerTls(SOURCE).alpn == HTTP2_OR_1 == ("h2", "http/1.1")
    assert UpstreamTls().alpn == HTTP1 == ("http/1.1",)


def test_one_source_and_several_are_told_apart() -> None:
    assert ListenerTls(SOURCE).sources == (SOURCE,)
    other = Source()
    assert ListenerTls([SOURCE, other]).sources == (SOURCE, other)


def test_what_is_left_to_the_host_is_filled_in() -> None:
    tls = UpstreamTls().for_host("a.test")
    assert (tls.server_name, tls.verified_name) == ("a.test", "a.test")
    tls = UpstreamTls().for_host("10.0.0.1")
    assert (tls.server_name, tls.verified_name) == ("", "10.0.0.1")
    tls = UpstreamTls(server_name="b.test").for_host("a.test")
    assert (tls.server_name, tls.verified_name) == ("b.test", "a.test")
    tls = UpstreamTls(server_name="", verified_name="b.test", ca=PEM).for_host("a.test")
    assert (tls.server_name, tls.verified_name, tls.ca) == ("", "b.test", PEM)
    assert tls.verify, "no name that is asked for switches it off"


def test_equal_settings_are_one_key_and_others_are_not() -> None:
    tls = UpstreamTls(verified_name="a.test", alternative_names=("b.test",), ca=PEM)
    same = UpstreamTls(verified_name="a.test", alternative_names=("b.test",), ca=PEM)
    assert {tls: 1}[same] == 1
    for changes in ({"verify": False}, {"verified_name": "c.test"}, {"certificate": CERTIFICATE}, {"alpn": ()}):
        settings: dict[str, Any] = {"verified_name": "a.test", "alternative_names": ("b.test",), "ca": PEM} | changes
        other = UpstreamTls(**settings)
        assert other != tls
        assert hash(other) != hash(tls)


PROTOCOL = [
    ({"alpn": ("",)}, "alpn has ''; a protocol's name has 1 to 255 characters of ASCII"),
    ({"alpn": ("http/1.1", "a" * 256)}, "alpn has 'a+'; a protocol's name"),
    ({"alpn": ("é",)}, "alpn has 'é'"),
    ({"minimum_version": "1.1"}, "minimum_version is '1.1'; it must be one of 1.2, 1.3"),
    ({"ciphers": ""}, "ciphers is ''; it must be a list"),
    ({"ciphers": "é"}, "ciphers is 'é'"),
]


@pytest.mark.parametrize(("settings", "text"), PROTOCOL)
def test_settings_of_both_sides_that_are_wrong_are_an_error(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ListenerTls(SOURCE, **settings)
    with pytest.raises(ValueError, match=text):
        UpstreamTls(**settings)


def test_settings_at_their_limits_are_taken() -> None:
    for settings in ({"alpn": ("a", "b" * 255)}, {"alpn": ()}, {"minimum_version": "1.3"}):
        chosen: dict[str, Any] = settings
        ListenerTls(SOURCE, **chosen)
        UpstreamTls(**chosen)
    ClientCertificates(PEM, depth_max=0)


def test_a_listener_needs_certificates() -> None:
    with pytest.raises(ValueError, match="certificates is empty; a listener with TLS needs one"):
        ListenerTls([])


@pytest.mark.parametrize("name", ["10.0.0.1", "::1", "[::1]", "é.test"])
def test_only_a_dns_name_can_be_asked_for(name: str) -> None:
    with pytest.raises(ValueError, match="it must be a DNS name in ASCII"):
        UpstreamTls(server_name=name)


@pytest.mark.parametrize("ca", [b"", b"/etc/ssl/ca.pem", b"-----BEGIN PRIVATE KEY-----\n", "é".encode() + PEM])
def test_authorities_are_certificates(ca: bytes) -> None:
    with pytest.raises(ValueError, match=r"ca has no certificate in PEM; read a file of them with coulee\.tls"):
        ClientCertificates(ca)
    if ca:
        with pytest.raises(ValueError, match="ca has no certificate in PEM"):
            UpstreamTls(ca=ca)


def test_depth_is_a_number() -> None:
    with pytest.raises(ValueError, match="depth_max is -1; it must be 0 or more"):
        ClientCertificates(PEM, depth_max=-1)
