"""TLS without I/O: both of our sides joined in memory, and each with Python's own at its other end."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID
from hypothesis import given
from hypothesis import strategies as st

from coulee.backends import tls as tls_module
from coulee.backends.layer import LayerError
from coulee.backends.tls import RECORD_BYTES_MAX, SESSIONS_MAX, Tls, downstream_context, explained, upstream_context
from coulee.core.seam import Certificate, DownstreamTls, UpstreamTls
from coulee.core.tls import ClientCertificates, Version
from tests.backends.tls_ends import (
    ALERT,
    AUTHORITY,
    DATA,
    HANDSHAKE,
    KEY_UPDATE,
    PLACE,
    ROOT,
    STRANGER,
    VERSIONS,
    CutAt,
    Hand,
    LayerEnd,
    PythonEnd,
    answering,
    asking,
    bytewise,
    certificate,
    downstream,
    issued,
    joined,
    made_of,
    pair,
    talk,
    upstream,
    whole,
)

MIB = 1_048_576
both_versions = pytest.mark.parametrize("version", VERSIONS)


def only(version: Version) -> DownstreamTls:
    """The side that answers, and speaks nothing older. TLS 1.2 by itself is for the other side to choose."""
    return downstream(minimum_version=version)


def python_asks(
    down: DownstreamTls | None = None, context: ssl.SSLContext | None = None, name: str | None = "a.test"
) -> tuple[PythonEnd, LayerEnd]:
    """Python's own end behind a handshake with ours."""
    asks = PythonEnd(context or asking(), name=name)
    answers = LayerEnd(Tls().layer(down or downstream(), PLACE))
    talk(asks, answers)
    return asks, answers


def python_answers(context: ssl.SSLContext, up: UpstreamTls | None = None) -> tuple[LayerEnd, PythonEnd]:
    """Our end behind a handshake with Python's own."""
    asks = LayerEnd(Tls().layer(up or upstream(), PLACE))
    answers = PythonEnd(context, server=True)
    talk(asks, answers)
    return asks, answers


def refused(asks: LayerEnd | PythonEnd, answers: LayerEnd | PythonEnd) -> str:
    """Why a handshake comes to nothing."""
    with pytest.raises((LayerError, ssl.SSLError)) as caught:
        talk(asks, answers)
    if isinstance(caught.value, LayerError):
        assert caught.value.kind == "tls"
        return caught.value.detail
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------- handshake


class TestHandshake:
    @both_versions
    def test_what_it_came_to(self, version: Version) -> None:
        asks, answers = python_asks(context=asking(version))
        assert answers.layer.security is not None
        assert answers.layer.security.version == f"TLSv{version}"
        assert answers.layer.security.cipher == asks.tls.cipher()[0]  # type: ignore[index]
        assert not answers.layer.security.resumed
        assert answers.layer.security.certificate is None

    def test_both_of_ours(self) -> None:
        asks, answers = joined(downstream(alpn=("h2", "http/1.1")), upstream(alpn=("http/1.1", "h2")))
        here, there = asks.layer.security, answers.layer.security
        assert here is not None
        assert there is not None
        assert (here.version, here.alpn) == (there.version, there.alpn) == ("TLSv1.3", "h2")  # who answers prefers
        assert here.certificate is not None
        assert here.certificate.names == ("DNS:a.test",)

    @pytest.mark.parametrize(
        ("ours", "theirs", "agreed"),
        [
            (("http/1.1",), ["h2", "http/1.1"], "http/1.1"),
            (("http/1.1",), ["h2"], ""),
            (("http/1.1",), [], ""),
            (("h2", "http/1.1"), ["http/1.1", "h2"], "h2"),
            ((), ["h2"], ""),
        ],
    )
    def test_alpn_of_a_client(self, ours: tuple[str, ...], theirs: list[str], agreed: str) -> None:
        context = asking()
        context.set_alpn_protocols(theirs)
        asks, answers = python_asks(downstream(alpn=ours), context)
        assert answers.layer.security is not None
        assert answers.layer.security.alpn == (asks.tls.selected_alpn_protocol() or "") == agreed

    @pytest.mark.parametrize(("name", "asked"), [(None, "a.test"), ("other.test", "other.test"), ("", None)])
    def test_the_name_that_is_asked_for(self, name: str | None, asked: str | None) -> None:
        heard: list[str | None] = []
        context = answering(issued("a.test"))
        context.sni_callback = lambda _, server_name, __: heard.append(server_name)
        python_answers(context, upstream(server_name=name))
        assert heard == [asked]

    def test_no_name_is_asked_for_where_there_is_an_address(self) -> None:
        heard: list[str | None] = []
        context = answering(issued("10.0.0.2"))
        context.sni_callback = lambda _, server_name, __: heard.append(server_name)
        python_answers(context, upstream("10.0.0.2"))
        assert heard == [None]

    @both_versions
    @pytest.mark.parametrize("cut", range(2))
    def test_any_cut_of_the_bytes_comes_to_the_same(self, version: Version, cut: int) -> None:
        """Each place in what one side sends, and then in what the other does; `cut` says whose."""
        tls, down = Tls(), downstream()
        sizes = talk(PythonEnd(asking(version)), LayerEnd(tls.layer(down, PLACE)))
        for index in range(1, max(sizes)):
            asks, answers = PythonEnd(context := asking(version)), LayerEnd(tls.layer(down, PLACE))
            assert context
            talk(asks, answers, *((CutAt(index), whole) if cut else (whole, CutAt(index))))
            assert asks.done
            assert answers.layer.security is not None
            assert answers.layer.security.version == f"TLSv{version}"

    @both_versions
    def test_byte_by_byte_with_data_behind_it(self, version: Version) -> None:
        tls = Tls()
        asks = LayerEnd(tls.layer(upstream(minimum_version=version), PLACE))
        answers = LayerEnd(tls.layer(downstream(), PLACE))
        talk(asks, answers, bytewise, bytewise)
        for byte in bytewise(asks.layer.encrypt(b"question")):
            answers.feed(byte)
        for byte in bytewise(answers.layer.encrypt([b"ans", b"", b"wer"])):
            asks.feed(byte)
        assert (answers.plain, asks.plain) == (b"question", b"answer")

    def test_data_in_the_same_bytes_as_the_last_flight(self) -> None:
        asks, answers = PythonEnd(asking()), LayerEnd(Tls().layer(downstream(), PLACE))
        asks.start()
        answers.feed(asks.take())
        asks.feed(answers.take())
        answers.feed(asks.take() + asks.say(b"at once") + asks.say(b", and more") + asks.farewell())
        assert answers.layer.security is not None
        assert answers.plain == b"at once, and more"
        assert answers.layer.ended

    def test_much_both_ways(self) -> None:
        asks, answers = joined()
        data = os.urandom(MIB)
        sent = asks.layer.encrypt(data)
        for start in range(0, len(sent), 70_001):
            answers.feed(sent[start : start + 70_001])
        asks.feed(answers.layer.encrypt([data[:5], data[5:]]))
        assert answers.plain == data
        assert asks.plain == data
        assert len(sent) < MIB + 25 * (MIB // RECORD_BYTES_MAX + 1)

    @given(sizes=st.lists(st.integers(1, 40_000), max_size=6), pieces=st.lists(st.integers(1, 50_000), min_size=1))
    def test_any_split_of_what_follows_gives_the_same_bytes(self, sizes: list[int], pieces: list[int]) -> None:
        asks, answers = joined(tls=SHARED)
        data = [bytes((index,)) * size for index, size in enumerate(sizes)]
        sent = b"".join(asks.layer.encrypt(each) for each in data) + asks.layer.farewell()
        at = 0
        while at < len(sent):
            size = pieces[at % len(pieces)]
            answers.feed(sent[at : at + size])
            at += size
        assert answers.plain == b"".join(data)
        assert answers.layer.ended

    def test_connections_of_a_driver_do_not_mix(self) -> None:
        """They have one pair of buffers: each flight of one is between those of others."""
        tls = Tls()
        pairs = [pair(tls=tls) for _ in range(100)]
        outs = [b""] * len(pairs)
        for asks, _ in pairs:
            asks.start()
        for _ in range(4):
            for index, (asks, answers) in enumerate(pairs):
                for byte in (outs[index], asks.take()):
                    if byte:
                        answers.feed(byte)
                outs[index] = b""
            for index, (asks, answers) in enumerate(pairs):
                back = answers.take()
                half = len(back) // 2
                if back:
                    asks.feed(back[:half])
                    outs[index] = asks.take()
                    asks.feed(back[half:])
        for index, (asks, answers) in enumerate(pairs):
            answers.feed(asks.layer.encrypt(b"%d" % index))
        assert [answers.plain for _, answers in pairs] == [b"%d" % index for index in range(100)]


SHARED = Tls()


# ------------------------------------------------------------------------------------------ which certificate


class TestCertificates:
    @pytest.mark.parametrize("rsa", [False, True], ids=["ecdsa", "rsa"])
    def test_a_client_that_knows_one_kind_of_key_is_shown_that(self, rsa: bool) -> None:
        down = downstream(certificate("a.test"), certificate("a.test", rsa=True))
        context = asking("1.2")
        context.set_ciphers("ECDHE+aRSA" if rsa else "ECDHE+aECDSA")
        asks, answers = python_asks(down, context)
        assert answers.layer.security is not None
        assert answers.layer.security.cipher.startswith("ECDHE-RSA" if rsa else "ECDHE-ECDSA")
        shown = asks.tls.getpeercert(True)
        assert shown == ssl.PEM_cert_to_DER_cert(_first(certificate("a.test", rsa=rsa).chain))

    def test_one_who_knows_both_is_shown_that_which_costs_less(self) -> None:
        """To sign with ECDSA P-256 is some twenty times as fast as with RSA 2048."""
        for certificates in (("e", "r"), ("r", "e")):
            made = {"e": certificate("a.test"), "r": certificate("a.test", rsa=True)}
            asks, _ = python_asks(downstream(*(made[each] for each in certificates)))
            assert asks.tls.getpeercert(True) == ssl.PEM_cert_to_DER_cert(_first(made["e"].chain))

    def test_the_whole_chain_is_shown(self) -> None:
        between = AUTHORITY.create_child_ca(key_type=trustme.KeyType.ECDSA)
        asks, _ = python_asks(downstream(made_of(issued("a.test", authority=between))))
        assert asks.done

    @pytest.mark.parametrize(
        ("certificate_", "text"),
        [
            (replace(certificate("a.test"), key=certificate("b.test").key), "key values mismatch"),
            (replace(certificate("a.test"), key=b""), "TLS cannot be set up"),
            (replace(certificate("a.test"), chain=b"no certificate"), "TLS cannot be set up"),
            (replace(certificate("a.test"), chain=b""), "TLS cannot be set up"),
        ],
    )
    def test_what_is_no_certificate_says_so_and_ends_nothing_else(self, certificate_: Certificate, text: str) -> None:
        tls = Tls()
        with pytest.raises(LayerError, match=re.compile(text, re.IGNORECASE)) as caught:
            tls.layer(downstream(certificate_), PLACE)
        assert caught.value.kind == "tls"
        with pytest.raises(LayerError, match="TLS cannot be set up"):
            tls.layer(upstream(certificate=certificate_), PLACE)
        joined(tls=tls)

    def test_an_encrypted_key_is_not_asked_about_at_the_terminal(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        with pytest.raises(LayerError, match="TLS cannot be set up: the key is encrypted"):
            Tls().layer(downstream(replace(certificate("a.test"), key=key)), PLACE)

    @pytest.mark.parametrize("inside", [b"", b"AAAA\n"])
    def test_what_is_no_authority(self, inside: bytes) -> None:
        ca = b"-----BEGIN CERTIFICATE-----\n" + inside + b"-----END CERTIFICATE-----\n"
        with pytest.raises(LayerError, match="TLS cannot be set up"):
            Tls().layer(upstream(ca=ca), PLACE)
        with pytest.raises(LayerError, match="TLS cannot be set up"):
            Tls().layer(downstream(client_certificates=ClientCertificates(ca)), PLACE)

    def test_without_files_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(os, "memfd_create")
        asks, _ = joined()
        asks.layer.farewell()

    def test_no_certificate_is_left_open(self) -> None:
        before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
        for _ in range(20):
            downstream_context(downstream())
        assert len(os.listdir("/proc/self/fd") if before else []) == len(before)

    def test_a_context_lives_as_long_as_its_certificates(self) -> None:
        tls = Tls()
        down = downstream()
        assert tls.downstream_context(down) is tls.downstream_context(down)
        assert tls.downstream_context(down) is not tls.downstream_context(downstream())
        assert len(tls._downstream) == 1

    def test_contexts_towards_peers_are_shared_whatever_their_names_and_bounded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tls_module, "UPSTREAM_CONTEXTS_MAX", 2)
        tls = Tls()
        first = tls.upstream_context(upstream("a.test"))
        assert tls.upstream_context(upstream("b.test")) is first
        second = tls.upstream_context(upstream(alpn=("h2",)))
        assert tls.upstream_context(upstream()) is first  # so it was used last
        tls.upstream_context(upstream(minimum_version="1.3"))
        assert len(tls._upstream) == 2
        assert tls.upstream_context(upstream()) is first
        assert tls.upstream_context(upstream(alpn=("h2",))) is not second


def _first(chain: bytes) -> str:
    return chain.decode().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"


# ------------------------------------------------------------------------------------------ who the other side is


class TestPeers:
    def test_an_authority_that_is_not_known(self) -> None:
        strange = certificate("a.test", authority=STRANGER)
        said = refused(*pair(downstream(strange)))
        assert said == "its certificate cannot be trusted: unable to get local issuer certificate"

    def test_a_certificate_that_signed_itself(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        said = refused(*pair(downstream(_signed(key, "a.test", b""))))
        assert said == "its certificate cannot be trusted: self-signed certificate"

    def test_a_certificate_that_has_expired(self) -> None:
        yesterday = datetime.now(UTC) - timedelta(days=1)
        said = refused(*pair(downstream(made_of(issued("a.test", expires=yesterday)))))
        assert said == "its certificate cannot be trusted: certificate has expired"

    def test_a_name_it_is_not_for(self) -> None:
        said = refused(*pair(up=upstream("b.test", alternative_names=("c.test",))))
        assert said == "the peer's certificate is not for b.test or c.test: it has a.test"

    def test_a_name_that_is_not_verified_because_somebody_said_so(self) -> None:
        asks, answers = joined(downstream(certificate("x.test", authority=STRANGER)), upstream(verify=False))
        assert asks.layer.security is not None
        assert asks.layer.security.certificate is None
        answers.feed(asks.layer.encrypt(b"hello"))
        assert answers.plain == b"hello"

    @pytest.mark.parametrize("server_name", ["", None, "b.test"])
    def test_what_is_asked_for_never_changes_what_is_verified(self, server_name: str | None) -> None:
        settings = upstream("b.test", server_name=server_name)
        assert "not for b.test" in refused(*pair(up=settings))

    @pytest.mark.parametrize("server_name", [".a.test", "a..test", "a\0.test", "a" * 64 + ".test"])
    def test_a_name_that_cannot_be_asked_for(self, server_name: str) -> None:
        with pytest.raises(LayerError, match="TLS cannot be set up"):
            Tls().layer(upstream(server_name=server_name), PLACE)

    def test_one_who_shows_nothing_because_the_ciphers_do_not_ask_for_it(self) -> None:
        """They are for a user to choose, and OpenSSL has some with which nobody shows anything."""
        nobody = "AECDH-AES128-SHA:@SECLEVEL=0"
        context = answering(version="1.2")  # TLS 1.3 has none of these
        context.set_ciphers(nobody)
        asks, answers = LayerEnd(Tls().layer(upstream(ciphers=nobody), PLACE)), PythonEnd(context, server=True)
        assert refused(asks, answers) == "the peer has shown no certificate"

    def test_who_is_trusted_where_nobody_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The system's store, wherever OpenSSL is told that it is."""
        assert "unable to get local issuer" in refused(*pair(up=upstream(ca=b"")))
        (tmp_path / "store.pem").write_bytes(ROOT)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "store.pem"))
        asks, _ = joined(up=upstream(ca=b""))
        assert asks.layer.security is not None

    @pytest.mark.parametrize("verified_name", ["", "."])
    def test_an_empty_name_to_verify_matches_nothing(self, verified_name: str) -> None:
        assert "not for" in refused(*pair(up=UpstreamTls("a.test", verified_name, ca=ROOT)))

    @pytest.mark.parametrize(
        "settings", [{"verified_name": "a.test"}, {"alternative_names": ("x.test", "A.TEST")}], ids=str
    )
    def test_another_name_that_will_do(self, settings: dict[str, object]) -> None:
        asks, _ = joined(up=upstream("b.test", **settings))
        assert asks.layer.security is not None

    def test_nothing_is_finished_towards_a_peer_that_is_somebody_else(self) -> None:
        """With TLS 1.3 our certificate would be in it, and he would think that he had been believed."""
        asks, answers = pair(up=upstream("b.test", certificate=certificate("client.test")))
        asks.start()
        answers.feed(asks.take())
        with pytest.raises(LayerError, match="not for b.test"):
            asks.feed(answers.take())
        assert asks.take() == b""
        assert asks.layer.security is None

    def test_a_text_that_looks_like_an_address_is_none(self) -> None:
        """RFC 9525 section 6.4: an address is compared with addresses only, and not with names."""
        san = b"\x30\x0a\x82\x0810.0.0.9"  # dNSName
        down = downstream(_signed(_AUTHORITY_KEY, "x", san))
        ca = _AUTHORITY_PEM
        assert refused(*pair(down, UpstreamTls("", "10.0.0.9", ca=ca))).startswith("the peer's certificate is not for")

    def test_names_that_cannot_be_read_end_the_handshake_and_nothing_else(self) -> None:
        san = b"\x30\x08\x82\x06\xff\xfe.tst"
        down = downstream(_signed(_AUTHORITY_KEY, "x", san))
        said = refused(*pair(down, UpstreamTls("x", "x", ca=_AUTHORITY_PEM)))
        assert said.startswith("its certificate cannot be read: ")

    def test_what_a_certificate_says(self) -> None:
        name = x509.Name(
            [
                x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "DE"),
                x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, 'Acme, "Inc"+ '),
                x509.NameAttribute(x509.NameOID.COMMON_NAME, "#alice"),
                x509.NameAttribute(x509.NameOID.PSEUDONYM, "<a>;\\"),
            ]
        )
        san = (
            b"\x30\x38\x82\x06a.test\x87\x04\x0a\x00\x00\x01\x86\x12spiffe://td/worker\x81\x08a@b.test"
            b"\x88\x03\x2a\x03\x04\xa4\x05\x30\x03\x31\x01\x00"
        )[:-7]
        san = b"\x30" + bytes((len(san) - 2,)) + san[2:]
        down = downstream(made := _signed(_AUTHORITY_KEY, name, san))
        asks, _ = joined(down, UpstreamTls("a.test", "a.test", ca=_AUTHORITY_PEM))
        assert asks.layer.security is not None
        said = asks.layer.security.certificate
        assert said is not None
        assert said.subject == 'pseudonym=\\<a\\>\\;\\\\,CN=\\#alice,O=Acme\\, \\"Inc\\"\\+\\ ,C=DE'
        assert said.issuer == "CN=the authority"
        assert said.names[:4] == ("DNS:a.test", "IP:10.0.0.1", "URI:spiffe://td/worker", "email:a@b.test")
        read = x509.load_pem_x509_certificate(made.chain)
        assert said.fingerprint == read.fingerprint(hashes.SHA256()).hex()
        assert int(said.serial, 16) == read.serial_number
        assert said.not_after == read.not_valid_after_utc.timestamp()


_AUTHORITY_KEY = ec.generate_private_key(ec.SECP256R1())


def _signed(key: ec.EllipticCurvePrivateKey, name: str | x509.Name, san: bytes) -> Certificate:
    """A certificate whose alternative names are these bytes; it signs itself where `key` is not the authority's."""
    if isinstance(name, str):
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    own = ec.generate_private_key(ec.SECP256R1()) if key is _AUTHORITY_KEY else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(_AUTHORITY_NAME if key is _AUTHORITY_KEY else name)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
    )
    if san:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, san), critical=False
        )
    made = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    written = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(made, written, (), "ecdsa", 0.0, 0.0, "", "a test")


_AUTHORITY_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "the authority")])
_AUTHORITY_PEM = (
    x509.CertificateBuilder()
    .subject_name(_AUTHORITY_NAME)
    .issuer_name(_AUTHORITY_NAME)
    .public_key(_AUTHORITY_KEY.public_key())
    .serial_number(1)
    .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
    .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    .sign(_AUTHORITY_KEY, hashes.SHA256())
    .public_bytes(serialization.Encoding.PEM)
)


# -------------------------------------------------------------------------------------------- client certificates


class TestClientCertificates:
    @both_versions
    def test_one_is_seen(self, version: Version) -> None:
        down = downstream(client_certificates=ClientCertificates(ROOT))
        context = asking(version)
        issued("alice.test").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
        _, answers = python_asks(down, context)
        assert answers.layer.security is not None
        assert answers.layer.security.certificate is not None
        assert answers.layer.security.certificate.names == ("DNS:alice.test",)

    def test_both_of_ours(self) -> None:
        down = downstream(client_certificates=ClientCertificates(ROOT))
        _, answers = joined(down, upstream(certificate=certificate("alice.test")))
        assert answers.layer.security is not None
        assert answers.layer.security.certificate is not None
        assert answers.layer.security.certificate.names == ("DNS:alice.test",)

    @both_versions
    def test_without_one_where_it_is_required(self, version: Version) -> None:
        down = downstream(client_certificates=ClientCertificates(ROOT))
        asks, answers = PythonEnd(asking(version)), LayerEnd(Tls().layer(down, PLACE))
        assert refused(asks, answers) == "peer did not return a certificate"
        alert = answers.take()
        assert alert
        with pytest.raises(ssl.SSLError, match="ALERT"):
            asks.feed(alert)

    def test_without_one_where_it_is_optional(self) -> None:
        down = downstream(client_certificates=ClientCertificates(ROOT, required=False))
        _, answers = python_asks(down)
        assert answers.layer.security is not None
        assert answers.layer.security.certificate is None

    @pytest.mark.parametrize("required", [True, False])
    def test_one_of_a_stranger(self, required: bool) -> None:
        down = downstream(client_certificates=ClientCertificates(ROOT, required=required))
        up = upstream(certificate=certificate("alice.test", authority=STRANGER))
        said = refused(*pair(down, up))
        assert said == "its certificate cannot be trusted: unable to get local issuer certificate"

    def test_none_is_asked_for_as_a_rule(self) -> None:
        _, answers = joined(up=upstream(certificate=certificate("alice.test")))
        assert answers.layer.security is not None
        assert answers.layer.security.certificate is None

    @pytest.mark.parametrize(("depth_max", "is_let_in"), [(2, True), (1, False), (0, False)])
    def test_how_far_from_its_root(self, depth_max: int, is_let_in: bool) -> None:
        down = downstream(client_certificates=ClientCertificates(ROOT, depth_max=depth_max))
        ends = pair(down, upstream(certificate=made_of(issued("alice.test", authority=_far_authority()))))
        if is_let_in:
            talk(*ends)
            assert ends[1].layer.security is not None
        else:
            assert refused(*ends) == f"the client's certificate has more than {depth_max} between it and its root"
            assert ends[1].layer.security is None

    @both_versions
    def test_who_was_turned_away_for_it_has_no_ticket_to_come_again(self, version: Version) -> None:
        """Of one who comes with a session the chain is not known any more, and is not counted."""
        tls = Tls()
        down = downstream(client_certificates=ClientCertificates(ROOT, depth_max=1))
        context = asking(version)
        issued("alice.test", authority=_far_authority()).configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
        asks, answers = PythonEnd(context), LayerEnd(tls.layer(down, PLACE))
        refused(asks, answers)
        assert answers.take() == b""
        session = asks.tls.session
        assert session is None or not session.has_ticket

    @both_versions
    def test_who_comes_again_is_known_again(self, version: Version) -> None:
        tls = Tls()
        down = downstream(client_certificates=ClientCertificates(ROOT))
        up = upstream(certificate=certificate("alice.test"), minimum_version=version)
        for resumed in (False, True):
            asks, answers = joined(down, up, tls)
            asks.feed(answers.layer.encrypt(b"x"))
            assert answers.layer.security is not None
            assert answers.layer.security.resumed is resumed
            assert answers.layer.security.certificate is not None
            assert answers.layer.security.certificate.names == ("DNS:alice.test",)


def _far_authority() -> trustme.CA:
    """With one between it and the root, so that two are between the root and whom it signs for."""
    return AUTHORITY.create_child_ca(key_type=trustme.KeyType.ECDSA).create_child_ca(key_type=trustme.KeyType.ECDSA)


# ------------------------------------------------------------------------------------------------------- sessions


class TestSessions:
    def test_the_second_connection_goes_on_with_the_session_of_the_first(self) -> None:
        tls = Tls()
        down = downstream()
        seen: list[bool] = []
        for _ in range(3):
            asks, answers = joined(down, tls=tls)
            asks.feed(answers.layer.encrypt(b"x"))
            assert asks.layer.security is not None
            assert asks.layer.security.certificate is not None  # as the first has seen it
            seen.append(asks.layer.security.resumed)
        assert seen == [False, True, True]

    def test_one_whose_first_word_nobody_has_heard_keeps_none(self) -> None:
        tls = Tls()
        down = downstream()
        joined(down, tls=tls)
        asks, _ = joined(down, tls=tls)
        assert asks.layer.security is not None
        assert not asks.layer.security.resumed

    @pytest.mark.parametrize(
        ("other", "place"),
        [
            (upstream(verified_name="a.test", alternative_names=("x.test",)), PLACE),
            (upstream(), ("10.0.0.3", 443)),
            (upstream(certificate=certificate("alice.test")), PLACE),
            (upstream(verify=False), PLACE),
        ],
    )
    def test_a_session_is_for_the_same_settings_and_place(self, other: UpstreamTls, place: tuple[str, int]) -> None:
        tls = Tls()
        down = downstream()
        asks, answers = joined(down, tls=tls)
        asks.feed(answers.layer.encrypt(b"x"))
        asks, answers = LayerEnd(tls.layer(other, place)), LayerEnd(tls.layer(down, PLACE))
        talk(asks, answers)
        assert asks.layer.security is not None
        assert not asks.layer.security.resumed

    def test_nobody_resumes_without_a_look_at_the_certificate_what_was_begun_so(self) -> None:
        tls = Tls()
        down = downstream(certificate("a.test", authority=STRANGER))
        asks, answers = joined(down, upstream(verify=False), tls)
        asks.feed(answers.layer.encrypt(b"x"))
        assert "cannot be trusted" in refused(*pair(down, upstream(), tls))

    def test_a_failure_makes_it_forgotten(self) -> None:
        tls = Tls()
        down = downstream()
        asks, answers = joined(down, tls=tls)
        asks.feed(answers.layer.encrypt(b"x"))
        assert len(tls._sessions) == 1
        with pytest.raises(LayerError):
            asks.feed(b"\x17\x03\x03\x00\x20" + bytes(32))
        assert not tls._sessions

    def test_they_are_bounded_and_the_oldest_goes_first(self) -> None:
        tls = Tls()
        context = tls.upstream_context(upstream())
        session = _session()
        for port in range(SESSIONS_MAX + 1):
            tls.keep_session(upstream(), ("10.0.0.2", port), context, session)
        assert len(tls._sessions) == SESSIONS_MAX
        assert tls.session(upstream(), ("10.0.0.2", 0), context) is None
        assert tls.session(upstream(), ("10.0.0.2", 1), context) is session

    def test_one_whose_context_is_gone_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """OpenSSL would refuse it, and no connection to the peer could be made any more."""
        monkeypatch.setattr(tls_module, "UPSTREAM_CONTEXTS_MAX", 1)
        tls = Tls()
        down = downstream()
        for up in (upstream(), upstream(alpn=("h2",)), upstream()):
            asks, answers = joined(down, up, tls)
            asks.feed(answers.layer.encrypt(b"x"))
            assert asks.layer.security is not None
            assert not asks.layer.security.resumed
        asks, _ = joined(down, upstream(), tls)
        assert asks.layer.security is not None
        assert asks.layer.security.resumed


def _session() -> ssl.SSLSession:
    asks, _ = python_asks()
    assert asks.tls.session is not None
    return asks.tls.session


# ------------------------------------------------------------------------------------- what nobody should be doing


class TestAbuse:
    @pytest.mark.parametrize(
        "garbage",
        [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", bytes(100), b"\x15\x03\x03\x00\x02\x02\x28"],
    )
    def test_what_is_no_handshake(self, garbage: bytes) -> None:
        answers = LayerEnd(Tls().layer(downstream(), PLACE))
        with pytest.raises(LayerError) as caught:
            answers.feed(garbage)
        assert caught.value.kind == "tls"
        assert caught.value.detail
        assert answers.layer.security is None

    def test_an_old_version(self) -> None:
        context = asking()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
            context.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        assert refused(PythonEnd(context), LayerEnd(Tls().layer(downstream(), PLACE))) == "unsupported protocol"

    def test_one_older_than_is_wanted(self) -> None:
        ends = PythonEnd(asking("1.2")), LayerEnd(Tls().layer(downstream(minimum_version="1.3"), PLACE))
        assert refused(*ends) == "unsupported protocol"
        peer = PythonEnd(answering(issued("a.test"), version="1.2"), server=True)
        with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
            talk(LayerEnd(Tls().layer(upstream(minimum_version="1.3"), PLACE)), peer)

    @pytest.mark.parametrize("ciphers", ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256"])
    def test_ciphers_without_forward_secrecy_or_authenticated_encryption(self, ciphers: str) -> None:
        context = asking("1.2")
        context.set_ciphers(ciphers)
        assert refused(PythonEnd(context), LayerEnd(Tls().layer(downstream(), PLACE))) == "no shared cipher"

    def test_what_the_peer_says_for_a_farewell(self) -> None:
        """Its alert is told in its words."""
        asks, answers = PythonEnd(asking(trust=False)), LayerEnd(Tls().layer(downstream(), PLACE))
        asks.start()
        answers.feed(asks.take())
        with pytest.raises(ssl.SSLError):
            asks.feed(answers.take())
        with pytest.raises(LayerError) as caught:
            answers.feed(asks.take())
        assert caught.value.detail == "the peer says: alert unknown ca"

    def test_an_alert_goes_out(self) -> None:
        asks, answers = pair(downstream(certificate("a.test", authority=STRANGER)))
        asks.start()
        answers.feed(asks.take())
        with pytest.raises(LayerError, match="cannot be trusted"):
            asks.feed(answers.take())
        with pytest.raises(LayerError, match="the peer says: alert unknown ca"):
            answers.feed(asks.take())

    @both_versions
    def test_a_record_that_was_tampered_with(self, version: Version) -> None:
        asks, answers = python_asks(context=asking(version))
        good, bad = asks.say(b"good"), bytearray(asks.say(b"bad"))
        bad[-1] ^= 1
        with pytest.raises(LayerError) as caught:
            answers.feed(good + bytes(bad))
        assert caught.value.detail == "decryption failed or bad record mac"
        assert caught.value.plain == b"good"  # as it would have been heard, had it come by itself
        assert answers.take()

    def test_records_in_another_order(self) -> None:
        asks, answers = python_asks()
        first, second = asks.say(b"first"), asks.say(b"second")
        with pytest.raises(LayerError, match="bad record mac"):
            answers.feed(second + first)

    def test_a_record_once_more(self) -> None:
        asks, answers = python_asks()
        record = asks.say(b"pay")
        with pytest.raises(LayerError, match="bad record mac") as caught:
            answers.feed(record + record)
        assert caught.value.plain == b"pay"

    @pytest.mark.parametrize("option", [ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_COMPRESSION])
    def test_no_new_handshake_and_no_compression_within_tls_1_2(self, option: ssl.Options) -> None:
        """That they are refused is tested by who can ask for them: tests/interop."""
        assert downstream_context(downstream()).options & option
        assert upstream_context(upstream()).options & option


class TestByHand:
    """Records of TLS 1.3 that no library writes."""

    @pytest.fixture
    def hand(self, tmp_path: Path) -> tuple[Hand, LayerEnd]:
        """A client behind his handshake, who writes by hand."""
        context = asking("1.3")
        context.keylog_filename = str(tmp_path / "keys")
        _, answers = python_asks(context=context)
        answers.layer.encrypt(b"a ticket goes with the first bytes")
        return Hand((tmp_path / "keys").read_text()), answers

    def test_data(self, hand: tuple[Hand, LayerEnd]) -> None:
        writes, answers = hand
        answers.feed(writes.record(DATA, b"hello"))
        assert answers.plain == b"hello"

    def test_key_updates_are_answered_one_by_one(self, hand: tuple[Hand, LayerEnd]) -> None:
        """So a flood of them has to be bounded by who sends what is said to them: `layer.OWN_BYTES_MAX`."""
        writes, answers = hand
        answers.feed(b"".join(writes.key_update() for _ in range(101)))
        answers.feed(writes.record(DATA, b"hello"))
        assert answers.plain == b"hello"
        assert 100 * 27 <= len(answers.take()) <= 101 * 27

    @pytest.mark.parametrize("cut", range(1, 5))
    def test_part_of_a_message_of_tls_itself(self, hand: tuple[Hand, LayerEnd], cut: int) -> None:
        """OpenSSL sends nothing until it is whole, when it has seen its head."""
        writes, answers = hand
        answers.feed(writes.record(HANDSHAKE, KEY_UPDATE[:cut]))
        if cut < 4:
            answers.layer.encrypt(b"answer")
        else:
            with pytest.raises(LayerError, match="left a message of TLS itself unfinished") as caught:
                answers.layer.encrypt(b"answer")
            assert caught.value.kind == "tls"
        answers.layer.farewell()

    def test_a_message_in_two_records(self, hand: tuple[Hand, LayerEnd]) -> None:
        writes, answers = hand
        answers.feed(writes.record(HANDSHAKE, KEY_UPDATE[:4]) + writes.record(HANDSHAKE, KEY_UPDATE[4:]))
        writes.turn()
        answers.feed(writes.record(DATA, b"hello"))
        assert answers.plain == b"hello"
        assert answers.layer.encrypt(b"answer")

    @pytest.mark.parametrize(
        ("kind", "data", "text"),
        [
            (ALERT, b"\x02\x28", "the peer says: alert handshake failure"),
            (ALERT, b"\x02\x50", "the peer says: alert internal error"),
            (ALERT, b"\x02", "invalid alert"),
            (HANDSHAKE, b"\x01\x00\x00\x01\x00", "unexpected message"),
            (HANDSHAKE, b"\x18\x00\x00\x01\x07", "bad key update"),
            (HANDSHAKE, b"\xff\xff\xff\xff", "unexpected message"),
            (20, b"\x01", "unexpected ccs message|invalid ccs message|bad record type"),
            (24, b"\x01\x40\x00", "bad record type|unexpected record"),  # a heartbeat that asks for 16 KiB
            (99, b"x", "bad record type|unexpected record"),
        ],
    )
    def test_what_has_no_place_here(self, hand: tuple[Hand, LayerEnd], kind: int, data: bytes, text: str) -> None:
        writes, answers = hand
        with pytest.raises(LayerError) as caught:
            answers.feed(writes.record(DATA, b"good") + writes.record(kind, data))
        assert caught.value.kind == "tls"
        assert re.fullmatch(text, caught.value.detail), caught.value.detail
        assert caught.value.plain == b"good"

    def test_a_record_that_is_too_long(self, hand: tuple[Hand, LayerEnd]) -> None:
        writes, answers = hand
        with pytest.raises(LayerError, match="too long|too big"):
            answers.feed(writes.record(DATA, bytes(RECORD_BYTES_MAX + 1)))

    def test_the_longest(self, hand: tuple[Hand, LayerEnd]) -> None:
        writes, answers = hand
        answers.feed(writes.record(DATA, bytes(RECORD_BYTES_MAX)) + writes.record(DATA, b"x"))
        assert len(answers.plain) == RECORD_BYTES_MAX + 1

    def test_empty_records(self, hand: tuple[Hand, LayerEnd]) -> None:
        """They are no end of the stream; and of many in a row OpenSSL makes an end (32 of them)."""
        writes, answers = hand
        for _ in range(10):
            answers.feed(writes.record(DATA, b""))
        answers.feed(writes.record(DATA, b"") + writes.record(DATA, b"hello"))
        assert not answers.layer.ended
        assert answers.plain == b"hello"


# -------------------------------------------------------------------------------------------------------- the end


class TestTheEnd:
    """Who says farewell first, and what comes behind it."""

    @both_versions
    def test_the_peer_says_it(self, version: Version) -> None:
        asks, answers = python_asks(context=asking(version))
        answers.feed(asks.say(b"last") + asks.farewell())
        assert answers.plain == b"last"
        assert answers.layer.ended
        asks.feed(answers.layer.encrypt(b"answer"))
        assert asks.plain == b"answer"  # half-closed only
        asks.feed(answers.layer.farewell())
        assert asks.ended

    @both_versions
    def test_we_say_it_and_still_hear_the_peer(self, version: Version) -> None:
        asks, answers = python_asks(context=asking(version))
        asks.feed(answers.layer.farewell())
        assert asks.ended
        for word in (b"one", b"two"):
            answers.feed(asks.say(word))
        assert answers.plain == b"onetwo"
        answers.feed(asks.say(b"three") + asks.say(b"four") + asks.farewell())
        assert answers.plain == b"onetwothreefour"
        assert answers.layer.ended

    def test_both_at_once(self) -> None:
        asks, answers = joined()
        there, back = asks.layer.farewell(), answers.layer.farewell()
        asks.feed(back)
        answers.feed(there)
        assert asks.layer.ended
        assert answers.layer.ended

    def test_it_is_no_end_without_it(self) -> None:
        asks, answers = joined()
        answers.feed(asks.layer.encrypt(b"some"))
        assert not answers.layer.ended

    def test_it_is_said_once(self) -> None:
        _, answers = joined()
        assert answers.layer.farewell()
        assert answers.layer.farewell() == b""

    def test_nobody_says_it_before_the_handshake_is_done(self) -> None:
        asks, answers = pair()
        asks.start()
        answers.feed(asks.take())
        assert asks.layer.farewell() == answers.layer.farewell() == b""

    def test_nothing_can_be_sent_behind_it(self) -> None:
        _, answers = joined()
        answers.layer.farewell()
        with pytest.raises(LayerError, match="protocol is shutdown"):
            answers.layer.encrypt(b"more")

    def test_what_comes_behind_the_peers_is_not_heard(self) -> None:
        asks, answers = joined()
        behind = pair()[0]
        behind.start()
        answers.feed(asks.layer.encrypt(b"last") + asks.layer.farewell() + behind.take() + b"junk")
        assert answers.plain == b"last"
        assert answers.layer.ended
        asks, answers = joined(tls=SHARED)
        answers.feed(asks.layer.farewell() + b"junk")
        assert not SHARED._incoming.pending  # and nobody else hears it either
        assert answers.plain == b""


# ---------------------------------------------------------------------------------------------------- the key log


def test_the_key_log_has_what_is_needed_to_read_both_sides(tmp_path: Path) -> None:
    files = tmp_path / "down", tmp_path / "up"
    joined(downstream(key_log=str(files[0])), upstream(key_log=str(files[1])))
    said = [sorted(line for line in file.read_text().splitlines() if not line.startswith("#")) for file in files]
    assert said[0] == said[1]
    assert {line.split()[0] for line in said[0]} >= {"CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"}


def test_a_key_log_that_cannot_be_written_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match="No such file"):
        Tls().layer(downstream(key_log="/nowhere/at/all"), PLACE)


def test_what_openssl_says_without_a_reason() -> None:
    assert explained(ssl.SSLError("something else")) == "('something else',)"
