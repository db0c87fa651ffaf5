"""The certificates of one listener: which of them is for a connection, and how they are replaced while it is open.

    certificates = Certificates(settings)
    certificates.start(machine)                  # watches the sources, until `stop`
    tls = await certificates.choose("a.test")    # what a handshake goes by

Rules:

- An exact name goes before a wildcard, and a wildcard before the default, which is the first certificate of all.
- Of one name there is one certificate for each kind of key. Of two of the same kind the one that is valid for longer
  is taken, and of two that are alike the first.
- What cannot be used keeps what was there before. It is said once, and so is the recovery.
- A choice is one object for as long as its certificates are the same ones, for a handshake's costly context hangs on
  it. Connections that were made with an earlier choice know nothing of a later one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from ipaddress import ip_address
from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

from coulee.core.effects import blocking
from coulee.core.kernel import Task, sleep
from coulee.core.report import Event
from coulee.core.server_names import is_ip, normalized, wildcard_for
from coulee.core.tls import (
    Certificate,
    CertificateError,
    CertificatesFound,
    CertificateSource,
    DownstreamTls,
    ListenerTls,
)

if TYPE_CHECKING:
    from coulee.core.machine import KernelMachine

EXPIRES_SOON_S: Final = 7 * 86400.0
"""A certificate with less than this left is spoken of: whoever renews automatically has done so long before."""

CHOSEN_MAX: Final = 1024
"""Certificates of a user's own choice for which a context is kept; the one that was asked for longest ago goes first,
and if it comes again costs as much as a new one."""

CERTIFICATES_MAX: Final = 16384
"""Of one source. More are refused, because each takes tens of KiB once it is used."""

LOOK_PAUSE_MIN_S: Final = 0.05
"""Between two looks at a source, whatever it says."""

TEXT_MAX: Final = 400
"""Characters of an error, for what a source of a user's own raises may be of any length."""


class Certificates:
    """The certificates of one listener, by name; kept fresh while the machine runs."""

    def __init__(self, settings: ListenerTls) -> None:
        self.settings = settings
        self._kept = [_Kept(source) for source in settings.sources]
        self._table = _Table(settings, self._all(), {})
        self._chosen: dict[Certificate, DownstreamTls] = {}
        self._tasks: list[Task] = []
        self._machine: KernelMachine | None = None

    def start(self, machine: KernelMachine) -> None:
        """Watch the sources, and say what is about to expire."""
        self._machine = machine
        for kept in self._kept:
            self._warn(kept)
            if kept.source.interval_s != inf:
                self._tasks.append(machine.kernel.start(self._watch(kept)))

    def stop(self) -> None:
        """Watch no longer. What is there can still be asked for."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    def find(self, server_name: str) -> DownstreamTls:
        """What the sources have for a name; "" where none was asked for."""
        return self._table.find(normalized(server_name))

    async def choose(self, server_name: str) -> DownstreamTls:
        """What there is for a name: by the user's own choice, or else as `find`. What the user's function raises goes
        through."""
        function = self.settings.choose
        if function is not None:
            answer = function(normalized(server_name))
            certificate = await answer if isinstance(answer, Awaitable) else answer
            if certificate is not None:
                if not isinstance(certificate, Certificate):
                    raise TypeError(f"a certificate, or None, is to be chosen, and not a {type(certificate).__name__}")
                return self._entry(certificate)
        return self.find(server_name)

    def _entry(self, certificate: Certificate) -> DownstreamTls:
        """What a handshake goes by with the certificate that a user has chosen."""
        chosen = self._chosen
        entry = chosen.pop(certificate, None) or DownstreamTls((certificate,), self.settings)
        chosen[certificate] = entry  # as the latest
        if len(chosen) > CHOSEN_MAX:
            del chosen[next(iter(chosen))]
        return entry

    def _all(self) -> list[Certificate]:
        return [certificate for kept in self._kept for certificate in kept.certificates]

    # -- watching

    async def _watch(self, kept: _Kept) -> None:
        """Look at a source, again and again."""
        while True:
            await sleep(max(LOOK_PAUSE_MIN_S, kept.source.interval_s))
            try:
                found = await blocking(kept.source.look, kept.stamp)
                if found is not None:
                    self._take(kept, found)
                self._say(kept, kept.problems)
            except Exception as error:
                self._say(kept, (*kept.problems, _text_of(kept.source, error)))
            self._warn(kept)

    def _take(self, kept: _Kept, found: CertificatesFound) -> None:
        """The source has something new. Raises `CertificateError` where it cannot be taken."""
        certificates = tuple(found.certificates)
        _check_number(kept.source, certificates)
        kept.stamp = found.stamp
        kept.problems = tuple(found.problems)
        if certificates != kept.certificates:
            known = dict.fromkeys(kept.certificates)
            new = [certificate for certificate in certificates if certificate not in known]
            kept.certificates = certificates
            kept.look_at_times_at = -inf
            self._table = _Table(self.settings, self._all(), self._table.made)
            self._report(kept, f"{kept.source.name}: {_shown(new)}")

    # -- what is said

    def _say(self, kept: _Kept, problems: tuple[str, ...]) -> None:
        """What is wrong with a source now: say of it what was not said yet."""
        for text in problems:
            if text not in kept.said:
                self._report(kept, f"{text}; what there was before is kept", text)
        if kept.said and not problems:
            self._report(kept, f"{kept.source.name}: it can be read again")
        kept.said = problems

    def _warn(self, kept: _Kept) -> None:
        """Say of each certificate once that it will expire soon, and once that it has."""
        assert self._machine is not None, "start comes first"
        now = self._machine.wall_clock
        if now < kept.look_at_times_at:
            return
        warned: dict[str, str] = {}
        kept.look_at_times_at = inf
        for certificate in kept.certificates:
            left_s = certificate.not_after - now
            if left_s > EXPIRES_SOON_S:
                kept.look_at_times_at = min(kept.look_at_times_at, certificate.not_after - EXPIRES_SOON_S)
                continue
            if left_s > 0:
                kept.look_at_times_at = min(kept.look_at_times_at, certificate.not_after)
                what = f"will expire in {_days(left_s)}"
            else:
                what = f"has expired {_days(now - certificate.not_after)} ago"
            text = f"{certificate.source}: the certificate for {_names(certificate)} {what}; renew it"
            key = certificate.fingerprint
            warned[key] = "over" if left_s <= 0 else "soon"
            if kept.warned.get(key) != warned[key]:
                self._report(kept, text, text)
        kept.warned = warned

    def _report(self, kept: _Kept, text: str, error: str = "") -> None:
        assert self._machine is not None, "start comes first"
        fields: dict[str, object] = {"source": kept.source.name, "error": error}
        self._machine.report(Event("certificates", text, self._machine.wall_clock, fields))


class _Kept:
    """What there is of one source."""

    __slots__ = ("certificates", "look_at_times_at", "problems", "said", "source", "stamp", "warned")

    def __init__(self, source: CertificateSource) -> None:
        self.source = source
        self.stamp = source.stamp
        self.certificates = tuple(source.certificates)
        self.problems: tuple[str, ...] = ()
        """As it told them."""
        self.said: tuple[str, ...] = ()
        """Of what is wrong now."""
        self.look_at_times_at = -inf
        """When there is something to say of a certificate's age, in seconds since 1970."""
        self.warned: dict[str, str] = {}
        """What was said, by fingerprint."""
        _check_number(source, self.certificates)


# -------------------------------------------------------------------------------------------------------- the table


Kinds: TypeAlias = dict[str, Certificate]
"""The certificates for one name, by the kind of their keys."""


class _Table:
    """What there is for each name."""

    __slots__ = ("default", "entries", "made")

    def __init__(
        self,
        settings: ListenerTls,
        certificates: Sequence[Certificate],
        earlier: dict[tuple[Certificate, ...], DownstreamTls],
    ) -> None:
        self.made: dict[tuple[Certificate, ...], DownstreamTls] = {}
        """The choices, by their certificates."""

        def entry(kinds: Kinds) -> DownstreamTls:
            key = tuple(kinds[kind] for kind in sorted(kinds))
            if key not in self.made:
                self.made[key] = earlier.get(key) or DownstreamTls(key, settings)
            return self.made[key]

        by_name: dict[str, Kinds] = {}
        for certificate in certificates:
            for name in certificate.names:
                _put(by_name.setdefault(_key_of(name), {}), certificate)
        self.entries = {name: entry(kinds) for name, kinds in by_name.items()}
        self.default = entry(_default(certificates))

    def find(self, name: str) -> DownstreamTls:
        """What there is for a name, which is normalized."""
        found = self.entries.get(_key_of(name))
        if found is None:
            found = self.entries.get(wildcard_for(name), self.default)
        return found


def _default(certificates: Sequence[Certificate]) -> Kinds:
    """The first one, and those for the very same names."""
    kinds: Kinds = {}
    names = _sorted_names(certificates[0])
    for certificate in certificates:
        if len(certificate.names) == len(names) and _sorted_names(certificate) == names:
            _put(kinds, certificate)
    return kinds


def _put(kinds: Kinds, certificate: Certificate) -> None:
    """Of one kind, the one that is valid for longest."""
    other = kinds.get(certificate.kind)
    if other is None or certificate.not_after > other.not_after:
        kinds[certificate.kind] = certificate


def _sorted_names(certificate: Certificate) -> list[str]:
    return sorted(map(_key_of, certificate.names))


def _key_of(name: str) -> str:
    """A name as it stands in the table: an IP address may be written in more than one way."""
    name = normalized(name)
    return ip_address(name).compressed if is_ip(name) else name


# ------------------------------------------------------------------------------------------------------------ texts


def _check_number(source: CertificateSource, certificates: Sequence[Certificate]) -> None:
    if not certificates:
        raise CertificateError(f"{source.name}: there are no certificates in it")
    if len(certificates) > CERTIFICATES_MAX:
        raise CertificateError(f"{source.name}: there are more than {CERTIFICATES_MAX} certificates in it")


def _text_of(source: CertificateSource, error: Exception) -> str:
    """An error as it may stand in a log, whoever wrote it."""
    text = str(error) if isinstance(error, CertificateError) else f"{source.name}: {type(error).__name__}: {error}"
    if len(text) > TEXT_MAX:
        text = f"{text[:TEXT_MAX]}..."
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _shown(new: Sequence[Certificate]) -> str:
    if not new:
        return "some certificates are gone"
    more = f", and {len(new) - 1} more" if len(new) > 1 else ""
    return f"there is a new certificate for {_names(new[0])}{more}"


def _names(certificate: Certificate) -> str:
    """The first of its names, and how many others there are."""
    names = certificate.names
    if len(names) > 1:
        return f"{names[0]} and {len(names) - 1} more"
    return "".join(names) or "no name"


def _days(seconds: float) -> str:
    days = seconds / 86400
    return f"{days:.0f} days" if days >= 2 else f"{seconds / 3600:.0f} hours"
