"""TLS as the simulator has it: records, names, refusals and farewells like the real one, and no secrets.

So a seed gives the same run everywhere, and what is said can be read in a trace. Between `Layer`s of this module only;
a ClientHello is a real one as far as anybody reads it who is not the other side.

    asks: ClientHello -->  <-- ServerHello (certificate, protocol)  Finished -->  then records of plain bytes

A session is resumed where the peer shows the certificate that it had; nothing but `Security.resumed` comes of it.

Rules:

- It judges as OpenSSL would: names, times, authorities, protocols, clients' certificates. An authority is a text that
  has to be in a certificate's chain.
- A word that ends a handshake is an alert, which the other side hears.
- A key update (RFC 8446 section 4.6.3) changes no key, for there is none; but who asks for one back gets it, and so TLS
  has words of its own here too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, TypeAlias

from coulee.backends.layer import LayerError
from coulee.core.seam import Address, Bytes, Certificate, DownstreamTls, PeerCertificate, Security, UpstreamTls, covers

ALERT, HANDSHAKE, DATA = 21, 22, 23
CLIENT_HELLO, SERVER_HELLO, FINISHED, KEY_UPDATE = 1, 2, 20, 24

SESSIONS_MAX: Final = 4096
"""Of one simulator; that made longest ago goes first."""

CLOSE_NOTIFY: Final = b"\1\0"
_RECORD_BYTES_MAX: Final = 2**14
_MARK: Final = b"simulated "
_OURS: Final = 0xFF5A  # an extension that nobody else has

_ALERTS: Final = {
    10: "unexpected message", 40: "handshake failure", 42: "bad certificate", 45: "certificate expired",
    48: "unknown ca", 116: "certificate required", 120: "no application protocol",
}  # fmt: skip


def record(kind: int, body: bytes) -> bytes:
    """One record, or as many as it takes."""
    pieces = [body[at : at + _RECORD_BYTES_MAX] for at in range(0, len(body), _RECORD_BYTES_MAX)] or [b""]
    return b"".join(bytes([kind, 3, 3]) + len(piece).to_bytes(2, "big") + piece for piece in pieces)


KEY_UPDATE_WANTED: Final = record(HANDSHAKE, bytes([KEY_UPDATE, 1]))
"""Asks for one back."""

Sessions: TypeAlias = dict[tuple[UpstreamTls, Address], str]
"""The fingerprint of whom there was a session with."""


class SimulatedLayer:
    """One side; which one, its settings say. `wall_clock` tells seconds since 1970. The side that asks resumes what is
    in `sessions` of the `place` that it has connected to."""

    def __init__(
        self,
        tls: DownstreamTls | UpstreamTls,
        wall_clock: Callable[[], float],
        sessions: Sessions | None = None,
        place: Address = "",
    ) -> None:
        self.tls = tls
        self.security: Security | None = None
        self.ended = False
        self.to_send = b""
        self._wall_clock = wall_clock
        self._sessions: Sessions = {} if sessions is None else sessions
        self._place = place
        self._heard = b""
        self._began = False
        self._told: dict[str, Any] = {}  # by the side that answers

    # -- see `Layer`

    def receive(self, data: bytes) -> bytes:
        """See `Layer`."""
        if isinstance(self.tls, UpstreamTls) and not self._began:
            self._began = True
            self.to_send += _client_hello(self.tls, self._sessions.get((self.tls, self._place), ""))
        heard = self._heard + data
        plain: list[bytes] = []
        at = 0
        try:
            while len(heard) >= at + 5 and not self.ended:
                end = at + 5 + int.from_bytes(heard[at + 3 : at + 5], "big")
                if heard[at + 1] != 3:
                    raise self._refused(10, "the peer does not speak TLS")
                if len(heard) < end:
                    break
                self._take(heard[at], heard[at + 5 : end], plain)
                at = end
        except LayerError as error:
            error.plain = b"".join(plain)
            raise
        self._heard = heard[at:]
        return b"".join(plain)

    def _take(self, kind: int, body: bytes, plain: list[bytes]) -> None:
        """One record."""
        stands = self.security is not None
        if kind == ALERT:
            self._alerted(body)
        elif kind == DATA and stands:
            plain.append(body)
        elif kind == HANDSHAKE and not stands:
            self._handshake(body)
        elif kind == HANDSHAKE and body[:1] == bytes([KEY_UPDATE]):
            if body[1:] == b"\1":
                self.to_send += record(HANDSHAKE, bytes([KEY_UPDATE, 0]))
        else:
            raise self._refused(10, f"a record of type {kind} where none may be")

    def encrypt(self, data: Bytes) -> bytes:
        """See `Layer`."""
        assert self.security is not None, "nothing is sent before the handshake is done"
        return record(DATA, data if isinstance(data, bytes) else b"".join(data))

    def farewell(self) -> bytes:
        """See `Layer`."""
        return record(ALERT, CLOSE_NOTIFY) if self.security is not None else b""

    # -- the handshake

    def _alerted(self, body: bytes) -> None:
        if body == CLOSE_NOTIFY:
            self.ended = True
            return
        raise LayerError("tls", f"the peer says: {_ALERTS.get(body[-1], 'alert')}")

    def _refused(self, alert: int, why: str) -> LayerError:
        """Say it to the peer too."""
        self.to_send += record(ALERT, bytes([2, alert]))
        return LayerError("tls", why)

    def _handshake(self, body: bytes) -> None:
        kind, said = body[0], body.rpartition(_MARK)[2]
        try:
            told: dict[str, Any] = json.loads(said)
        except ValueError:
            raise self._refused(10, "a handshake that nobody here can read") from None
        if isinstance(self.tls, UpstreamTls):
            if kind != SERVER_HELLO:
                raise self._refused(10, f"a handshake message of type {kind}")
            self._answered(self.tls, told)
        elif kind == CLIENT_HELLO and not self._told:
            self._answer(self.tls, told)
        elif kind == FINISHED and self._told:
            self._finish(self.tls, told)
        else:
            raise self._refused(10, f"a handshake message of type {kind}")

    def _answer(self, tls: DownstreamTls, told: dict[str, Any]) -> None:
        listener = tls.listener
        offered = told["alpn"]
        alpn = next((protocol for protocol in listener.alpn if protocol in offered), "")
        if offered and not alpn:
            raise self._refused(120, "no protocol in common")
        shown = _shown(tls.certificates[0]) if tls.certificates else None
        self._told = {
            "alpn": alpn,
            "certificate": shown,
            "resumed": shown is not None and told["session"] == shown["fingerprint"],
            "asks": listener.client_certificates is not None,
        }
        self.to_send += record(HANDSHAKE, bytes([SERVER_HELLO]) + _MARK + _encoded(self._told))

    def _answered(self, tls: UpstreamTls, told: dict[str, Any]) -> None:
        shown = told["certificate"]
        if tls.verify:
            if shown is None:
                raise self._refused(42, "the peer has shown no certificate")
            self._verify(shown, tls.ca)
            wanted = [tls.verified_name or "", *tls.alternative_names]
            if not any(covers(shown["names"], name) for name in wanted):
                raise self._refused(42, f"the peer's certificate is not for {wanted[0]}: it has {shown['names']}")
        mine = _shown(tls.certificate) if told["asks"] and tls.certificate is not None else None
        self.to_send += record(HANDSHAKE, bytes([FINISHED]) + _MARK + _encoded({"certificate": mine}))
        self._stands(told, shown if tls.verify else None)
        if shown is not None:
            self._keep_session(tls, shown["fingerprint"])

    def _finish(self, tls: DownstreamTls, told: dict[str, Any]) -> None:
        asked, shown = tls.listener.client_certificates, told["certificate"]
        if asked is not None and shown is not None:
            self._verify(shown, asked.ca)
        if asked is not None and asked.required and shown is None:
            raise self._refused(116, "the client has shown no certificate")
        self._stands(self._told, shown)

    def _verify(self, shown: dict[str, Any], ca: bytes) -> None:
        now = self._wall_clock()
        if not shown["not_before"] <= now <= shown["not_after"]:
            raise self._refused(45, "its certificate cannot be trusted: certificate has expired")
        if ca.decode("latin-1") not in shown["chain"]:
            raise self._refused(48, "its certificate cannot be trusted: unable to get local issuer certificate")

    def _keep_session(self, tls: UpstreamTls, fingerprint: str) -> None:
        sessions = self._sessions
        sessions[tls, self._place] = fingerprint
        if len(sessions) > SESSIONS_MAX:
            del sessions[next(iter(sessions))]

    def _stands(self, told: dict[str, Any], shown: dict[str, Any] | None) -> None:
        certificate = None
        if shown is not None:
            names = tuple(f"DNS:{name}" for name in shown["names"])
            certificate = PeerCertificate(f"CN={shown['names'][0]}", "CN=simulated", names, shown["fingerprint"], "1",
                                          shown["not_after"])  # fmt: skip
        self.security = Security("TLSv1.3", "SIMULATED", told["alpn"], told["resumed"], certificate)


def _shown(certificate: Certificate) -> dict[str, Any]:
    return {
        "names": list(certificate.names),
        "chain": certificate.chain.decode("latin-1"),
        "not_before": certificate.not_before,
        "not_after": certificate.not_after,
        "fingerprint": sha256(certificate.chain).hexdigest(),
    }


def _encoded(told: dict[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True).encode()


def _client_hello(tls: UpstreamTls, session: str) -> bytes:
    """RFC 8446 section 4.1.2, with what is to be known in an extension of ours."""
    extensions = b""
    if tls.server_name:
        name = tls.server_name.encode("ascii")
        extensions += _extension(0, _sized(2, b"\0" + _sized(2, name)))
    if tls.alpn:
        extensions += _extension(16, _sized(2, b"".join(_sized(1, each.encode("latin-1")) for each in tls.alpn)))
    extensions += _extension(43, b"\2\3\4")
    extensions += _extension(_OURS, _MARK + _encoded({"alpn": list(tls.alpn), "session": session}))
    body = b"\3\3" + bytes(32) + b"\0" + _sized(2, b"\x13\1") + _sized(1, b"\0") + _sized(2, extensions)
    return record(HANDSHAKE, bytes([CLIENT_HELLO]) + _sized(3, body))


def _extension(number: int, body: bytes) -> bytes:
    return number.to_bytes(2, "big") + _sized(2, body)


def _sized(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data
