"""Certificates that jobs find while a machine is recorded: by numbers, and without their keys.

A machine tells certificates apart as objects, for two that look alike are two. So each of them has a number in a
recording, beginning with those that the machine's listeners have at first, and a replay hands over the same objects
again. Rules:

- Nothing is pickled, so whoever replays a recording need not trust who has made it.
- What is not all certificates is none of our business, and kept as any other result of a job.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from coulee.core.seam import Certificate, Completion, Finished, Listener, Machine

FACTS: Final = ("names", "kind", "not_before", "not_after", "fingerprint", "source")
"""What is kept of a certificate."""

_ONE: Final = "\0one certificate"
_SEVERAL: Final = "\0certificates of a source"


@dataclass(frozen=True, slots=True)
class Found:
    """What a source has found, as a replay hands it over; see `coulee.core.tls.CertificatesFound`. Its stamp is for the
    source, and a replay asks none."""

    stamp: object
    certificates: tuple[Certificate, ...]
    problems: tuple[str, ...]


class Numbers:
    """Of the certificates of one machine, as it is recorded."""

    def __init__(self, machine: Machine) -> None:
        self._numbers: WeakKeyDictionary[Certificate, int] = WeakKeyDictionary()
        self._count = 0
        for certificate in at_first(machine):
            self._told(certificate)

    def kept(self, completion: Finished) -> Finished:
        """A job's result as it is kept."""
        value: Any = completion.value
        if isinstance(value, Certificate):
            return replace(completion, value=(_ONE, self._told(value)))
        if _is_found(value.__class__) and all(isinstance(each, Certificate) for each in value.certificates):
            told = tuple(self._told(each) for each in value.certificates)
            return replace(completion, value=(_SEVERAL, told, tuple(value.problems)))
        return completion

    def _told(self, certificate: Certificate) -> tuple[Any, ...]:
        number = self._numbers.get(certificate)
        if number is None:
            number = self._numbers[certificate] = self._count
            self._count += 1
        return (number, *(getattr(certificate, each) for each in FACTS))


class Objects:
    """The certificates of one machine, as it is replayed."""

    def __init__(self, machine: Machine) -> None:
        self._known = dict(enumerate(at_first(machine)))

    def given(self, completion: Completion | None) -> Completion | None:
        """What the machine is told. Raises ValueError where a recording is damaged."""
        value: Any = completion.value if isinstance(completion, Finished) else None
        is_ours = value.__class__ is tuple and value and value[0].__class__ is str and value[0] in (_ONE, _SEVERAL)
        if not is_ours:
            return completion
        mark, told, *problems = value
        try:
            given: object = self._made(told) if mark == _ONE else Found(None, tuple(map(self._made, told)), *problems)
        except TypeError as error:
            raise ValueError(f"what is told of certificates makes no sense: {error}") from None
        return replace(cast("Finished", completion), value=given)

    def _made(self, told: tuple[Any, ...]) -> Certificate:
        number, *facts = told
        known = self._known.get(number)
        made = certificate_of(dict(zip(FACTS, facts, strict=True)))
        if known is None or known.fingerprint != made.fingerprint:  # else the program has others than it had
            known = self._known[number] = made
        return known


def certificate_of(facts: dict[str, Any]) -> Certificate:
    """A certificate as a replay has it: whose it is, and until when."""
    told: dict[str, Any] = {**facts, "names": tuple(facts["names"])}
    return Certificate(b"", b"", **told)


def at_first(machine: Machine) -> Iterator[Certificate]:
    """The certificates of a machine's listeners, as they are when it begins."""
    for listener in getattr(machine, "listen_at", ()):
        if isinstance(listener, Listener) and listener.tls is not None:
            for source in listener.tls.sources:
                yield from source.certificates


@cache
def _is_found(kind: Any) -> bool:
    """Whether objects of this class are what sources find. Nobody's object is asked, for it might answer anything."""
    return is_dataclass(kind) and [each.name for each in fields(kind)] == [each.name for each in fields(Found)]
