"""TLS without I/O: what every backend puts between its connections and the machine, made of OpenSSL's.

Rules:

- All connections of a driver have one pair of buffers for what OpenSSL reads and writes. That works because both are
  empty whenever no call is under way: OpenSSL takes in all that it is given, and what it writes is taken at once. So an
  idle connection keeps no buffer, whatever it has carried.
- Who a peer is, is decided here and nowhere later: a layer whose handshake is done has a peer that was verified, or one
  of whom somebody said that it need not be.
- The name of a peer is compared by `core.server_names` (RFC 9525), because the name to verify, and others that will do,
  may differ from the one that is asked for.
- No renegotiation, no compression, no early data (0-RTT), which could be replayed.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Any, Final
from weakref import WeakKeyDictionary

from coulee.backends import ticket_keys
from coulee.backends.layer import Layer, LayerError
from coulee.core.seam import Address, Bytes, Certificate, DownstreamTls, PeerCertificate, Security, UpstreamTls, covers

RECORD_BYTES_MAX: Final = 16 * 1024
"""Of what is in one record (RFC 8446 section 5.1): as much as one read of OpenSSL's gives."""

SESSIONS_MAX: Final = 4096
"""Upstream sessions that are kept for another connection to the same peer; the oldest goes first."""

UPSTREAM_CONTEXTS_MAX: Final = 256
"""Different settings of upstream TLS, apart from names; that used longest ago goes first."""

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Tls:
    """Makes the layers of one driver."""

    def __init__(self) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._downstream: WeakKeyDictionary[DownstreamTls, ssl.SSLContext] = WeakKeyDictionary()
        self._upstream: OrderedDict[tuple[object, ...], ssl.SSLContext] = OrderedDict()
        self._sessions: OrderedDict[tuple[UpstreamTls, Address], tuple[ssl.SSLContext, ssl.SSLSession]] = OrderedDict()
        self._securities: dict[tuple[str, str, str, bool], Security] = {}

    def layer(self, tls: DownstreamTls | UpstreamTls, place: Address) -> Layer:
        """A layer for one connection; `place` is the address that it was made to. Raises `LayerError`."""
        try:
            if isinstance(tls, DownstreamTls):
                return _Downstream(self, tls)
            return _Upstream(self, tls, place)
        except (ssl.SSLError, ValueError, TypeError) as error:  # the last is for a name with a NUL in it
            raise LayerError("tls", f"TLS cannot be set up: {error}") from error

    # -- for layers

    def downstream_context(self, tls: DownstreamTls) -> ssl.SSLContext:
        """The context for these certificates, made when it is first wanted."""
        context = self._downstream.get(tls)
        if context is None:
            context = self._downstream[tls] = downstream_context(tls)
        return context

    def upstream_context(self, tls: UpstreamTls) -> ssl.SSLContext:
        """The context for these settings. Names are no part of it, for to read the system's authorities takes 20 ms."""
        key = (tls.verify, tls.ca, tls.certificate, tls.alpn, tls.minimum_version, tls.ciphers, tls.key_log)
        context = self._upstream.get(key)
        if context is None:
            context = self._upstream[key] = upstream_context(tls)
            if len(self._upstream) > UPSTREAM_CONTEXTS_MAX:
                self._upstream.popitem(last=False)
        else:
            self._upstream.move_to_end(key)
        return context

    def session(self, tls: UpstreamTls, place: Address, context: ssl.SSLContext) -> ssl.SSLSession | None:
        """An earlier session with the same peer. OpenSSL takes it in the context only that it was begun in."""
        of, session = self._sessions.get((tls, place), (None, None))
        return session if of is context else None

    def keep_session(self, tls: UpstreamTls, place: Address, context: ssl.SSLContext, session: ssl.SSLSession) -> None:
        """For the next connection to this peer."""
        self._sessions[tls, place] = context, session
        self._sessions.move_to_end((tls, place))
        if len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)

    def forget_session(self, tls: UpstreamTls, place: Address) -> None:
        """It was of no use."""
        self._sessions.pop((tls, place), None)

    def security(self, tls: ssl.SSLObject, certificate: PeerCertificate | None) -> Security:
        """What a handshake came to. Most are alike, and those are one object."""
        version, cipher = tls.version() or "", tls.cipher()
        values = (version, cipher[0] if cipher else "", tls.selected_alpn_protocol() or "", bool(tls.session_reused))
        if certificate is not None:
            return Security(*values, certificate)
        found = self._securities.get(values)
        if found is None:
            found = self._securities[values] = Security(*values)
        return found


class _OpensslLayer:
    """What both sides have in common."""

    __slots__ = ("_incoming", "_late", "_outgoing", "_owner", "_read", "_tls", "_write", "ended", "security", "to_send")

    def __init__(self, owner: Tls, tls: ssl.SSLObject) -> None:
        self._owner = owner
        self._incoming = owner._incoming
        self._outgoing = owner._outgoing
        self._tls = tls
        self._read = tls.read
        self._write = tls.write
        self.security: Security | None = None
        self.ended = False
        self.to_send = b""
        self._late = b""  # what goes out with the next bytes, for nobody waits for it

    def verified(self) -> PeerCertificate | None:
        """The handshake is done: who the peer is. Raises `LayerError` where it should be somebody else."""
        raise NotImplementedError

    def after_handshake(self, security: Security) -> None:
        """The handshake is done, and the peer is who it should be."""

    def receive(self, data: bytes) -> bytes:
        """See `Layer`."""
        incoming = self._incoming
        incoming.write(data)
        try:
            if self.security is None:
                self._tls.do_handshake()
                self.security = self._owner.security(self._tls, self._approved())
                self.after_handshake(self.security)
                if not incoming.pending:
                    return b""
            plain = self._read(RECORD_BYTES_MAX)
            if incoming.pending and plain:
                return self._read_on([plain])
            if not plain:
                self.ended = True
            return plain
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLZeroReturnError:  # so it is said where we have said farewell before
            self.ended = True
            return b""
        except ssl.SSLError as error:
            raise LayerError("tls", explained(error)) from error
        finally:
            if self._outgoing.pending:
                self.to_send += self._written()
            if incoming.pending:
                incoming.read()  # behind the peer's last word, or behind an error

    def _approved(self) -> PeerCertificate | None:
        """`verified`; what would end the handshake for the peer is not sent where that raises, least of all a ticket
        with which he could come again and not be looked at."""
        try:
            return self.verified()
        except LayerError:
            self._outgoing.read()
            raise
        except ValueError as error:  # also of an encoding, for Python reads more of it than OpenSSL has to
            self._outgoing.read()
            raise LayerError("tls", f"its certificate cannot be read: {error}") from error

    def _read_on(self, pieces: list[bytes]) -> bytes:
        """More than one record is there."""
        incoming, read = self._incoming, self._read
        try:
            while incoming.pending and not self.ended:
                plain = read(RECORD_BYTES_MAX)
                pieces.append(plain)
                self.ended = not plain
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            raise LayerError("tls", explained(error), b"".join(pieces)) from error
        return b"".join(pieces)

    def encrypt(self, data: Bytes) -> bytes:
        """See `Layer`."""
        whole = data if isinstance(data, bytes) else b"".join(data)
        try:
            sent = self._write(whole)
            while sent < len(whole):
                sent += self._write(memoryview(whole)[sent:])
        except ssl.SSLWantReadError as error:  # OpenSSL writes nothing then; and no peer has a reason for it
            self._outgoing.read()
            raise LayerError("tls", "the peer has left a message of TLS itself unfinished") from error
        except ssl.SSLError as error:
            self._outgoing.read()
            raise LayerError("tls", explained(error)) from error
        return self._written()

    def farewell(self) -> bytes:
        """See `Layer`."""
        if self.security is None:
            return b""
        with suppress(ssl.SSLError):  # it wants to hear the peer's farewell, and that may come or not
            self._tls.unwrap()
        return self._written()

    def _written(self) -> bytes:
        """What OpenSSL has written, behind what was kept for this."""
        if not self._late:
            return self._outgoing.read()
        late, self._late = self._late, b""
        return late + self._outgoing.read()


class _Downstream(_OpensslLayer):
    """The side that answers."""

    __slots__ = ("_settings",)

    def __init__(self, owner: Tls, settings: DownstreamTls) -> None:
        context = owner.downstream_context(settings)
        super().__init__(owner, context.wrap_bio(owner._incoming, owner._outgoing, server_side=True))
        self._settings = settings

    def verified(self) -> PeerCertificate | None:
        """See `_OpensslLayer`."""
        asked = self._settings.listener.client_certificates
        if asked is None:
            return None
        certificate = shown(self._tls)
        if certificate is None:
            if asked.required:
                raise LayerError("tls", "the client has shown no certificate")
            return None
        if not self._tls.session_reused and _chain_length(self._tls) - 2 > asked.depth_max:
            raise LayerError("tls", f"the client's certificate has more than {asked.depth_max} between it and its root")
        return certificate

    def after_handshake(self, security: Security) -> None:
        """See `_OpensslLayer`. In TLS 1.3 all that is written now are tickets, which can go with the first answer: to
        send them by themselves costs a call of the system, and wakes the client for nothing."""
        if security.version == "TLSv1.3":
            self._late = self._outgoing.read()


class _Upstream(_OpensslLayer):
    """The side that asks."""

    __slots__ = ("_context", "_place", "_settings", "_wants_session")

    def __init__(self, owner: Tls, settings: UpstreamTls, place: Address) -> None:
        self._context = context = owner.upstream_context(settings)
        tls = context.wrap_bio(
            owner._incoming,
            owner._outgoing,
            server_hostname=settings.server_name or None,
            session=owner.session(settings, place, context),
        )
        super().__init__(owner, tls)
        self._settings = settings
        self._place = place
        self._wants_session = True

    def verified(self) -> PeerCertificate | None:
        """See `_OpensslLayer`."""
        settings = self._settings
        if not settings.verify:
            return None
        certificate = shown(self._tls)
        if certificate is None:
            raise LayerError("tls", "the peer has shown no certificate")
        wanted = [settings.verified_name or "", *settings.alternative_names]
        names = [name for name in map(_name, certificate.names) if name]
        if not any(covers(names, name) for name in wanted):
            has = ", ".join(names) or "no name"
            asked = " or ".join(filter(None, wanted))
            raise LayerError("tls", f"the peer's certificate is not for {asked}: it has {has}")
        return certificate

    def receive(self, data: bytes) -> bytes:
        """See `Layer`. A session can be kept when the peer has said something: in TLS 1.3 its ticket comes before."""
        try:
            plain = super().receive(data)
        except LayerError:
            self._owner.forget_session(self._settings, self._place)
            raise
        if plain and self._wants_session:
            self._wants_session = False
            session = self._tls.session
            if session is not None:
                self._owner.keep_session(self._settings, self._place, self._context, session)
        return plain


# ------------------------------------------------------------------------------------------------------- contexts


def downstream_context(tls: DownstreamTls) -> ssl.SSLContext:
    """A context for the side that answers. Raises `ssl.SSLError`, and OSError where the key log cannot be written."""
    listener = tls.listener
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[listener.minimum_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 1
    context.set_ciphers(listener.ciphers)
    context.set_alpn_protocols(list(listener.alpn))
    for certificate in tls.certificates:
        load_certificate(context, certificate)
    asked = listener.client_certificates
    if asked is not None:
        context.verify_mode = ssl.CERT_REQUIRED if asked.required else ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=asked.ca.decode("ascii"))
    if listener.key_log:
        context.keylog_filename = listener.key_log
    ticket_keys.share(context, repr((asked, listener.alpn, listener.minimum_version)).encode())
    return context


def upstream_context(tls: UpstreamTls) -> ssl.SSLContext:
    """A context for the side that asks. Raises `ssl.SSLError`, and OSError where the key log cannot be written."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # see the rules
    context.minimum_version = _VERSIONS[tls.minimum_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(tls.ciphers)
    context.set_alpn_protocols(list(tls.alpn))
    if not tls.verify:
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca:
        context.load_verify_locations(cadata=tls.ca.decode("ascii"))
    else:
        context.load_default_certs()
    if tls.certificate is not None:
        load_certificate(context, tls.certificate)
    if tls.key_log:
        context.keylog_filename = tls.key_log
    return context


def load_certificate(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Put a certificate and its key into a context. Raises `ssl.SSLError` where they do not fit each other."""
    with _in_a_file(certificate.chain.rstrip() + b"\n" + certificate.key) as path:
        context.load_cert_chain(path, password=_refuse)


def _refuse() -> str:
    """OpenSSL would ask at the terminal."""
    raise ValueError("the key is encrypted")


@contextmanager
def _in_a_file(content: bytes) -> Generator[str, None, None]:
    """What OpenSSL reads from a path only: in memory where the system has files there, or else one for us alone."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:  # of mode 0600
            file.write(content)
            file.flush()
            yield file.name


# ----------------------------------------------------------------------------------------------------- certificates


def shown(tls: ssl.SSLObject) -> PeerCertificate | None:
    """The certificate that the peer has shown, if it was verified."""
    told: Any = tls.getpeercert()
    der = tls.getpeercert(binary_form=True)
    if not told or der is None:
        return None
    names: Sequence[tuple[str, str]] = told.get("subjectAltName", ())
    return PeerCertificate(
        subject=_distinguished(told.get("subject", ())),
        issuer=_distinguished(told.get("issuer", ())),
        names=tuple(f"{_KINDS.get(kind, kind)}:{value}" for kind, value in names),
        fingerprint=sha256(der).hexdigest(),
        serial=told.get("serialNumber", ""),
        not_after=float(ssl.cert_time_to_seconds(told["notAfter"])),
    )


def _name(name: str) -> str:
    """A name for which its peer may be verified, or "". An address is one only where it is given as such, and not as
    a DNS name (RFC 9525 section 6.4)."""
    kind, _, value = name.partition(":")
    looks_like_an_address = ":" in value or value.rpartition(".")[2].isdigit()
    return value if kind == "IP" or (kind == "DNS" and not looks_like_an_address) else ""


_KINDS: Final = {"IP Address": "IP"}
_SHORT: Final = {
    "commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C",
    "stateOrProvinceName": "ST", "localityName": "L", "domainComponent": "DC", "userId": "UID",
    "streetAddress": "STREET",
}  # fmt: skip


def _distinguished(name: Any) -> str:
    """A distinguished name as text, its last part first (RFC 4514 section 2.1)."""
    return ",".join("+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in part)
                    for part in reversed(name))  # fmt: skip


def _escaped(value: str) -> str:
    """RFC 4514 section 2.4."""
    text = "".join(f"\\{each}" if each in ',+"\\<>;' else each for each in value).replace("\0", "\\00")
    if text.startswith((" ", "#")):
        text = f"\\{text}"
    return f"{text[:-1]}\\ " if text.endswith(" ") and len(text) > 1 else text


def _chain_length(tls: ssl.SSLObject) -> int:
    """Certificates from the peer's to its root, both counted."""
    inner: Any = tls  # it has it since Python 3.13, and before that what it wraps
    return len((inner if hasattr(tls, "get_verified_chain") else inner._sslobj).get_verified_chain())


def explained(error: ssl.SSLError) -> str:
    """What OpenSSL says, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be trusted: {error.verify_message}"
    reason: str | None = getattr(error, "reason", None)  # those that Python makes by itself have none
    if not reason:
        return str(error)
    words = reason.lower().replace("_", " ")
    for version in ("sslv3 ", "tlsv1 ", "tlsv13 "):
        if words.startswith(f"{version}alert "):
            return f"the peer says: {words.removeprefix(version)}"
    return words
