"""Recordings of what came by TLS, and behind the PROXY protocol: replayed to the last operation, and without a key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from coulee.backends.recorder import Recorder
from coulee.backends.recording import Recording
from coulee.backends.replay import Replay
from coulee.core import Config, Forwarding, Proxy
from coulee.core.listener import Listener, ProxyProtocol
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
from coulee.core.tls import Certificate, ListenerTls
from coulee.lb import Cluster
from coulee.server.redaction import Redaction
from tests.core.test_entrance import HELLO, Source
from tests.core.world import CLIENT, LISTENER, TLS

SECRET = b"-----BEGIN PRIVATE KEY-----\nthis is the secret\n-----END PRIVATE KEY-----\n"
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
