"""Recordings of what came by TLS, and behind the PROXY protocol: replayed to the last operation, and without a key."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.backends.recorder import Recorder
from coulee.backends.recording import Recording
from coulee.backends.replay import Replay
from coulee.core import Config, Forwarding, Proxy
from coulee.core.listener import Listener, ProxyProtocol
from coulee.core.options import KeepAlive, ListenOptions
from coulee.core.proxy_protocol import Header, to_bytes
from coulee.core.seam import (
    Accepted,
    Blocked,
    Closed,
    Completion,
    Connected,
    Listening,
    PeerCertificate,
    Received,
    Secured,
    Security,
    Sent,
)
from coulee.core.tls import Certificate, ClientCertificates, ListenerTls
from coulee.lb import Cluster
from coulee.server.redaction import Redaction
from tests.core.test_entrance import HELLO, Source
from tests.core.world import CLIENT, LISTENER, TLS

SECRET = b"-----BEGIN PRIVATE KEY-----\nthis is the secret\n-----END PRIVATE KEY-----\n"
PEM = b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
GET = b"GET /a?token=s3cret HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer s3cret\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ns3cret"
BALANCER = ("10.0.0.7", 40000)
ALICE = PeerCertificate("CN=alice", "CN=ca", ("DNS:alice.test",), "00ff", "1", 4e9)


def program(*, proxied: bool) -> Proxy:
    """A proxy between TLS and TLS."""
    certificate = Certificate(b"chain", SECRET, ("a.test",), "ecdsa", 0.0, 4e9, "ab" * 32, "a.pem")
    trusted = ProxyProtocol(("10.0.0.7",)) if proxied else None
    listener = Listener(LISTENER, ListenerTls(Source(certificate)), trusted)
    config = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False))
    return Proxy(Cluster("https://10.0.0.1"), config=config, listen=[listener])


def completions(header: bytes) -> list[Completion | None]:
    return [
        None,
        Listening(1, LISTENER),
        Accepted(2, BALANCER if header else CLIENT, LISTENER),
        Received(2, header + HELLO[:50]),
        Received(2, HELLO[50:]),
        Secured(2, replace(TLS, certificate=ALICE)),
        Received(2, GET),
        Connected(4, ("10.0.0.1", 443), ("10.0.0.2", 1)),
        Secured(4, TLS),
        Received(4, OK),
        Blocked(2),
        Sent(2),
        Closed(2, "reset", "gone"),
        Closed(4),
    ]


@pytest.mark.parametrize("hide", [(), ("bodies", "query", "credentials")])
@pytest.mark.parametrize("version", [0, 1, 2])
def test_it_is_replayed_to_the_last_operation(tmp_path: Path, version: int, hide: tuple[str, ...]) -> None:
    path = tmp_path / "recording"
    header = to_bytes(Header(("192.0.2.1", 7), LISTENER, version)) if version else b""  # type: ignore[arg-type]
    definition = program(proxied=bool(version))
    redactor = Redaction(hide).redactor if hide else None
    recorder = Recorder(definition, path, redactor=redactor)
    machine = recorder.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[])
    for turn, completion in enumerate(completions(header)):
        machine.handle(completion, turn / 8)
    recorder.close()
    replay = Replay(Recording(path), definition, redactor=redactor) if hide else Replay(Recording(path), definition)
    steps = [replay.step(turn) for turn in replay.recording]
    assert [step.difference for step in steps if step.difference] == []
    assert len(steps) == len(completions(header))
    said = path.read_bytes()
    assert b"this is the secret" not in said
    assert (b"s3cret" in said) is not bool(hide)
    assert Secured(2, Security(TLS.version, TLS.cipher, TLS.alpn, False, ALICE)) in [
        turn.completion for turn in Recording(path)
    ]


def test_listeners_come_back_as_far_as_a_replay_needs_them(tmp_path: Path) -> None:
    certificate = Certificate(b"chain", SECRET, ("a.test", "10.0.0.1"), "ecdsa", 1.0, 4e9, "ab" * 32, "a.pem")
    tls = ListenerTls(
        [Source(certificate)], client_certificates=ClientCertificates(PEM, required=False, depth_max=2),
        alpn=("h2", "http/1.1"), minimum_version="1.3", covered_only=False,
    )  # fmt: skip
    options = ListenOptions(backlog=7, keep_alive=KeepAlive(1, 2, 3), dscp=46)
    given = [LISTENER, "/run/x.sock", Listener(LISTENER, tls, ProxyProtocol(("10.0.0.0/8", "unix")), options),
             Listener("@x", options=ListenOptions(backlog=9))]  # fmt: skip
    path = tmp_path / "recording"
    recorder = Recorder(Proxy(Cluster("http://10.0.0.1")), path)
    recorder.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=given)
    recorder.close()
    plain, unix, back, abstract = Recording(path).header.listen
    assert [plain, unix, abstract] == [given[0], given[1], given[3]]
    assert isinstance(back, Listener)
    assert (back.address, back.proxy_protocol, back.options) == (
        LISTENER,
        ProxyProtocol(("10.0.0.0/8", "unix")),
        options,
    )
    assert back.tls is not None
    assert (back.tls.alpn, back.tls.minimum_version, back.tls.covered_only) == (("h2", "http/1.1"), "1.3", False)
    assert back.tls.client_certificates == tls.client_certificates
    [kept] = back.tls.sources[0].certificates
    assert (kept.names, kept.kind, kept.not_before, kept.not_after, kept.fingerprint) == (
        certificate.names, "ecdsa", 1.0, 4e9, "ab" * 32,
    )  # fmt: skip
    assert (kept.key, kept.chain) == (b"", b"")
    assert back.tls.sources[0].look(None) is None


@given(cuts=st.lists(st.integers(0, 400)), version=st.sampled_from((0, 1, 2)), hello=st.booleans())
def test_what_comes_before_http_is_kept_however_it_is_split(cuts: list[int], version: Any, hello: bool) -> None:
    header = to_bytes(Header(("192.0.2.1", 7), LISTENER, version)) if version else b""
    whole = header + (HELLO if hello else GET)
    redactor = Redaction(("query", "credentials")).redactor()
    redactor.opened(1, True)
    edges = [0, *sorted(cut % (len(whole) + 1) for cut in cuts), len(whole)]
    kept = b"".join(redactor.received(1, whole[a:b]) for a, b in pairwise(edges))
    assert len(kept) == len(whole)
    assert kept.startswith(header)
    if hello:
        assert kept == whole
    else:
        assert b"s3cret" not in kept
