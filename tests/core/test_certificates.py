"""Which certificate a connection gets, and what happens when a source has others. Time is the world's."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core import certificates as module
from coulee.core.certificates import Certificates
from coulee.core.effects import sleep
from coulee.core.kernel import Task
from coulee.core.machine import KernelMachine
from coulee.core.seam import Accepted, Finished, Listening
from coulee.core.tls import Certificate, CertificateError, CertificatesFound, DownstreamTls, ListenerTls
from tests.core.world import World

NOW = 1e9
"""Seconds since 1970, when a test begins."""

DAY_S = 86400.0
LATER = NOW + 90 * DAY_S


def make(*names: str, kind: str = "ecdsa", until: float = LATER, mark: str = "") -> Certificate:
    """A certificate, known by its `mark`, or else its first name."""
    mark = mark or (names[0] if names else "nobody")
    return Certificate(b"", b"", names, kind, 0.0, until, f"{mark}/{kind}", f"{mark}.pem")


@dataclass
class Source:
    """A source that is told what there will be."""

    certificates: Sequence[Certificate]
    name: str = "certs"
    interval_s: float = 1.0
    stamp: object = 0
    next: CertificatesFound | Exception | None = None
    """What the next look gives."""
    seen: list[object] = field(default_factory=list[object])
    """The stamps of the looks."""

    def look(self, stamp: object) -> CertificatesFound | None:
        self.seen.append(stamp)
        if isinstance(self.next, Exception):
            raise self.next
        return self.next


class Machine(KernelMachine):
    """One that only watches certificates."""

    def __init__(self, certificates: Certificates) -> None:
        super().__init__(Random(0), NOW)
        self.certificates = certificates

    def start(self) -> None:
        self.certificates.start(self)

    def accepted(self, completion: Accepted, listener: int) -> None:
        raise NotImplementedError

    def listening(self, completion: Listening) -> None:
        raise NotImplementedError

    def drain(self, grace_s: float) -> None:
        self.certificates.stop()


class Watched:
    """Certificates of some sources, in a world."""

    def __init__(self, *sources: Source, **settings: Any) -> None:
        self.certificates = Certificates(ListenerTls(sources, **settings))
        self.machine = Machine(self.certificates)
        self.world = World(self.machine)
        self.world.gives(None)

    def looks(self, pause_s: float = 1.0) -> None:
        """Time passes, and each job that was asked for is done."""
        self.world.wait(pause_s)
        while self.world.jobs:
            run = self.world.jobs.pop(0)
            try:
                self.world.gives(Finished(run.job, run.call()))
            except Exception as error:
                self.world.gives(Finished(run.job, None, error))

    def marks(self, name: str) -> list[str]:
        return marks(self.certificates.find(name))

    @property
    def said(self) -> list[str]:
        return [event.text for event in self.world.events("certificates")]

    @property
    def errors(self) -> list[object]:
        return [event.fields["error"] for event in self.world.events("certificates")]

    def chosen(self, name: str) -> DownstreamTls:
        """What is chosen, by a task, at once or a while later."""
        kernel = self.machine.kernel
        task = Task(kernel, self.certificates.choose(name), lambda _: None)
        kernel.wake(task, None)
        self.world.gives(None)
        self.world.wait(0.5)
        assert task.done
        if task.error is not None:
            raise task.error
        found: DownstreamTls = task.value
        return found


def marks(tls: DownstreamTls) -> list[str]:
    return [certificate.fingerprint for certificate in tls.certificates]


def found(stamp: object, *certificates: Certificate, problems: tuple[str, ...] = ()) -> CertificatesFound:
    return CertificatesFound(stamp, certificates, problems)


# --------------------------------------------------------------------------------------------------------- by name


def test_an_exact_name_goes_before_a_wildcard_and_that_before_the_default() -> None:
    watched = Watched(Source([make("default.test"), make("*.a.test")]), Source([make("b.a.test")]))
    assert watched.marks("b.a.test") == ["b.a.test/ecdsa"]
    assert watched.marks("c.a.test") == ["*.a.test/ecdsa"]
    assert watched.marks("d.c.a.test") == ["default.test/ecdsa"]
    assert watched.marks("a.test") == ["default.test/ecdsa"]
    assert watched.marks("") == ["default.test/ecdsa"]


def test_names_are_compared_as_hosts_are() -> None:
    watched = Watched(Source([make("default.test"), make("A.Test"), make("::1"), make("10.0.0.1")]))
    assert watched.marks("a.TEST.") == ["A.Test/ecdsa"]
    assert watched.marks("[0:0::1]") == ["::1/ecdsa"]
    assert watched.marks("10.0.0.1") == ["10.0.0.1/ecdsa"]
    assert watched.marks("0.0.1") == ["default.test/ecdsa"]


def test_there_is_one_of_each_kind_of_key() -> None:
    rsa, ed25519 = make("a.test", kind="rsa"), make("a.test", "b.test", kind="ed25519", mark="a.test")
    watched = Watched(Source([make("default.test"), rsa]), Source([ed25519, make("a.test")]))
    assert watched.marks("a.test") == ["a.test/ecdsa", "a.test/ed25519", "a.test/rsa"]
    assert watched.marks("b.test") == ["a.test/ed25519"]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_of_a_kind_the_one_that_is_valid_for_longer_is_taken(order: int) -> None:
    pair = [make("a.test", until=LATER, mark="short"), make("a.test", "b.test", until=LATER + 1, mark="long")]
    watched = Watched(Source([make("default.test"), *pair[::order]]))
    assert watched.marks("a.test") == ["long/ecdsa"]


def test_of_two_that_are_alike_the_first_is_taken() -> None:
    watched = Watched(Source([make("a.test", mark="first")]), Source([make("a.test", mark="second")]))
    assert watched.marks("a.test") == ["first/ecdsa"]
    assert watched.marks("") == ["first/ecdsa"]


def test_the_default_has_every_kind_for_its_own_names() -> None:
    first = make("a.test", "b.test", mark="first")
    same = make("B.test", "a.test", kind="rsa", mark="same")
    longer = make("b.test", "a.test", until=LATER + 1, mark="longer")
    watched = Watched(Source([first, make("a.test", kind="ed25519"), same, longer]))
    assert watched.marks("unknown.test") == ["longer/ecdsa", "same/rsa"]


def test_what_is_found_for_several_names_is_one_object() -> None:
    watched = Watched(Source([make("a.test", "b.test", "*.c.test")]))
    find = watched.certificates.find
    assert find("a.test") is find("b.test") is find("x.c.test") is find("")
    assert find("a.test").listener is watched.certificates.settings


NAMES = st.sampled_from(["a.test", "b.a.test", "*.a.test", "*.test", "*.b.a.test", "test", "10.0.0.1", "::1"])
LISTS = st.lists(
    st.builds(
        lambda names, kind, until, mark: make(*names, kind=kind, until=until, mark=str(mark)),
        st.lists(NAMES, max_size=3), st.sampled_from(["ecdsa", "rsa"]), st.sampled_from([LATER, LATER + 1]),
        st.integers(0, 10**9),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@given(LISTS, NAMES.map(lambda name: name.replace("*", "x")))
def test_whoever_covers_a_name_is_found_and_else_the_default(certificates: list[Certificate], name: str) -> None:
    tls = Certificates(ListenerTls(Source(certificates))).find(name)
    covering = [certificate for certificate in certificates if certificate.covers(name)]
    exact = [certificate for certificate in covering if name in certificate.names]
    if not covering:
        assert tls.certificates[0].names == certificates[0].names or len(certificates[0].names) > 1
    for certificate in tls.certificates if covering else ():
        among = exact or covering
        assert certificate in among
        assert certificate.not_after == max(each.not_after for each in among if each.kind == certificate.kind)
    kinds = [certificate.kind for certificate in tls.certificates]
    assert kinds == sorted(set(kinds))
    if covering:
        assert set(kinds) == {each.kind for each in exact or covering}


# --------------------------------------------------------------------------------------------------- a user's choice


def test_a_users_choice_goes_first_and_none_leaves_it_to_the_sources() -> None:
    own, asked = make("own"), []

    def choose(name: str) -> Certificate | None:
        asked.append(name)
        return own if name == "a.test" else None

    watched = Watched(Source([make("a.test"), make("b.test")]), choose=choose)
    assert marks(watched.chosen("A.test.")) == ["own/ecdsa"]
    assert marks(watched.chosen("b.test")) == ["b.test/ecdsa"]
    assert watched.chosen("a.test") is watched.chosen("a.test"), "a context hangs on it"
    assert asked == ["a.test", "b.test", "a.test", "a.test"]


def test_a_users_choice_may_take_its_time() -> None:
    async def choose(name: str) -> Certificate | None:
        await sleep(0.2)
        return make("own") if name else None

    watched = Watched(Source([make("a.test")]), choose=choose)
    assert marks(watched.chosen("a.test")) == ["own/ecdsa"]
    assert marks(watched.chosen("")) == ["a.test/ecdsa"]


def test_without_a_choice_the_sources_are_asked() -> None:
    watched = Watched(Source([make("default.test"), make("a.test")]))
    assert watched.chosen("a.test") is watched.certificates.find("a.test")


def test_what_a_users_choice_raises_goes_through() -> None:
    def choose(name: str) -> Awaitable[Certificate | None] | None:
        raise LookupError(name)

    with pytest.raises(LookupError, match=r"a\.test"):
        Watched(Source([make("a.test")]), choose=choose).chosen("a.test")


def test_a_choice_that_is_no_certificate_is_an_error() -> None:
    with pytest.raises(TypeError, match="not a str"):
        Watched(Source([make("a.test")]), choose=lambda name: name).chosen("a.test")


def test_few_choices_are_kept_and_that_asked_for_longest_ago_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHOSEN_MAX", 2)
    made = {name: make(name) for name in "abc"}
    watched = Watched(Source([make("a.test")]), choose=made.get)
    first, second = watched.chosen("a"), watched.chosen("b")
    assert watched.chosen("a") is first
    watched.chosen("c")
    assert watched.chosen("a") is first
    assert watched.chosen("b") is not second


# ------------------------------------------------------------------------------------------------------- replacement


def test_new_certificates_are_taken_and_the_next_look_is_given_their_stamp() -> None:
    source = Source([make("a.test", mark="old")])
    watched = Watched(source)
    source.next = found(7, make("a.test", "b.test", mark="new"))
    watched.looks()
    assert watched.marks("a.test") == watched.marks("b.test") == ["new/ecdsa"]
    source.next = None
    watched.looks()
    assert source.seen == [0, 7]
    assert watched.said == ["certs: there is a new certificate for a.test and 1 more"]
    assert watched.world.events("certificates")[0].fields == {"source": "certs", "error": ""}
    assert watched.world.events("certificates")[0].at == NOW + 1


def test_what_has_not_changed_stays_the_same_object() -> None:
    kept, other = make("kept.test"), make("other.test")
    source = Source([kept, other, make("gone.test")])
    watched = Watched(source)
    before = watched.certificates.find("kept.test"), watched.certificates.find("other.test")
    source.next = found(1, kept, make("other.test"), make("more.test"))
    watched.looks()
    assert watched.certificates.find("kept.test") is before[0]
    assert watched.certificates.find("other.test") is not before[1]
    assert watched.marks("gone.test") == ["kept.test/ecdsa"]
    assert watched.said == ["certs: there is a new certificate for other.test, and 1 more"]
    source.next = found(2, kept)
    watched.looks()
    assert watched.said[1:] == ["certs: some certificates are gone"]
    assert watched.marks("other.test") == ["kept.test/ecdsa"]


def test_an_earlier_choice_is_forgotten_when_its_certificates_are_gone() -> None:
    source = Source([make("a.test")])
    watched = Watched(source)
    for number in range(5):
        source.next = found(number, make("a.test"))
        watched.looks()
    assert len(watched.certificates._table.made) == 1


def test_a_source_that_gives_the_same_again_is_not_spoken_of() -> None:
    source = Source([make("a.test")])
    watched = Watched(source)
    source.next = found(1, *source.certificates)
    watched.looks()
    watched.looks()
    assert source.seen == [0, 1]
    assert watched.said == []


def test_each_source_is_looked_at_in_its_own_time() -> None:
    fast, slow = Source([make("a.test")], interval_s=1), Source([make("b.test")], interval_s=3)
    never = Source([make("c.test")], interval_s=inf)
    watched = Watched(fast, slow, never)
    for _ in range(60):
        watched.looks(0.1)
    assert (len(fast.seen), len(slow.seen), len(never.seen)) == (5, 1, 0)


def test_there_is_a_pause_between_looks_whatever_a_source_says() -> None:
    source = Source([make("a.test")], interval_s=0)
    watched = Watched(source)
    for _ in range(3):
        watched.looks(0)
    assert source.seen == []
    for _ in range(3):
        watched.looks(module.LOOK_PAUSE_MIN_S)
    assert len(source.seen) == 3


def test_the_sources_are_those_of_before_until_a_look_has_ended() -> None:
    source = Source([make("a.test", mark="old")])
    watched = Watched(source)
    source.next = found(1, make("a.test", mark="new"))
    watched.world.wait(10)
    assert len(watched.world.jobs) == 1
    assert watched.marks("a.test") == ["old/ecdsa"]


@pytest.mark.parametrize("under_way", [False, True])
def test_a_drain_ends_the_watching(under_way: bool) -> None:
    source = Source([make("a.test")])
    watched = Watched(source)
    if under_way:
        watched.world.wait(1)
    watched.machine.drain(0)
    watched.world.gives(None)
    assert watched.machine.kernel.tasks == 0
    if under_way:
        run = watched.world.jobs.pop()
        assert watched.world.cancelled == [run.job]
        watched.world.gives(Finished(run.job, found(1, make("b.test"))))
    watched.looks(60)
    assert source.seen == []
    assert not any(watched.machine.leftovers.values())
    assert watched.marks("b.test") == ["a.test/ecdsa"]


# ------------------------------------------------------------------------------------------------------ what is said


def test_an_error_keeps_what_there_was_and_is_said_once_and_so_is_the_recovery() -> None:
    source = Source([make("a.test")])
    watched = Watched(source)
    source.next = CertificateError("a.pem: it is empty; put the PEM there")
    for _ in range(3):
        watched.looks()
    assert watched.said == ["a.pem: it is empty; put the PEM there; what there was before is kept"]
    assert watched.errors == ["a.pem: it is empty; put the PEM there"]
    assert watched.marks("a.test") == ["a.test/ecdsa"]
    source.next = CertificateError("another")
    watched.looks()
    source.next = None
    for _ in range(3):
        watched.looks()
    assert watched.said[1:] == ["another; what there was before is kept", "certs: it can be read again"]
    assert watched.errors[1:] == ["another", ""]
    assert source.seen == [0] * 7


def test_problems_of_a_part_are_said_beside_what_is_new() -> None:
    source = Source([make("a.test"), make("b.test")])
    watched = Watched(source)
    source.next = found(1, make("a.test", mark="new"), source.certificates[1], problems=("b.pem: bad",))
    watched.looks()
    assert watched.marks("a.test") == ["new/ecdsa"]
    assert watched.said == [
        "certs: there is a new certificate for a.test",
        "b.pem: bad; what there was before is kept",
    ]
    source.next = None
    watched.looks()
    source.next = CertificateError("certs: unreadable")
    watched.looks()
    source.next = None
    watched.looks()
    assert watched.said[2:] == ["certs: unreadable; what there was before is kept"], "b.pem is bad all the while"
    source.next = found(2, *watched.certificates._all(), problems=("b.pem: bad", "c.pem: bad"))
    watched.looks()
    assert watched.said[3:] == ["c.pem: bad; what there was before is kept"]
    source.next = found(3, *watched.certificates._all())
    watched.looks()
    assert watched.said[4:] == ["certs: it can be read again"]


def test_whatever_a_source_raises_is_an_error_in_one_line() -> None:
    source = Source([make("a.test")])
    watched = Watched(source)
    source.next = RuntimeError("a\nb" + "c" * 1000)
    watched.looks()
    assert watched.errors == ["certs: RuntimeError: a\\nb" + "c" * (module.TEXT_MAX - len("certs: RuntimeError: a\nb"))
                              + "..."]  # fmt: skip


def test_a_source_without_certificates_or_with_too_many_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CERTIFICATES_MAX", 2)
    source = Source([make("a.test"), make("b.test")])
    watched = Watched(source)
    source.next = found(1)
    watched.looks()
    source.next = found(1, *[make("c.test")] * 3)
    watched.looks()
    assert watched.errors == ["certs: there are no certificates in it",
                              "certs: there are more than 2 certificates in it"]  # fmt: skip
    assert source.seen == [0, 0]
    assert watched.marks("a.test") == ["a.test/ecdsa"]
    for certificates in ([], [make("a.test")] * 3):
        with pytest.raises(CertificateError, match="certs: there are"):
            Certificates(ListenerTls(Source(certificates)))


def test_a_certificate_that_expires_is_spoken_of_in_time_and_when_it_has() -> None:
    soon = make("a.test", "b.test", until=NOW + 8 * DAY_S)
    watched = Watched(Source([make("c.test"), soon], interval_s=3600))
    assert watched.said == []
    for _ in range(9 * 24):
        watched.looks(3600)
    assert watched.said == [
        "a.test.pem: the certificate for a.test and 1 more will expire in 7 days; renew it",
        "a.test.pem: the certificate for a.test and 1 more has expired 0 hours ago; renew it",
    ]
    assert [event.at - NOW for event in watched.world.events("certificates")] == [DAY_S, 8 * DAY_S]
    assert watched.errors == watched.said


def test_what_expires_is_said_at_once_when_it_is_loaded() -> None:
    source = Source([make("a.test", until=NOW + DAY_S), make(until=NOW - 3 * DAY_S)])
    watched = Watched(source)
    assert watched.said == [
        "a.test.pem: the certificate for a.test will expire in 24 hours; renew it",
        "nobody.pem: the certificate for no name has expired 3 days ago; renew it",
    ]
    source.next = found(1, make("c.test", until=NOW + 3 * DAY_S), *source.certificates)
    watched.looks()
    watched.looks()
    assert watched.said[2:] == [
        "certs: there is a new certificate for c.test",
        "c.test.pem: the certificate for c.test will expire in 3 days; renew it",
    ]


def test_a_source_that_is_never_looked_at_is_spoken_of_once() -> None:
    watched = Watched(Source([make("a.test", until=NOW)], interval_s=inf))
    watched.looks(1e6)
    assert len(watched.said) == 1
    assert watched.machine.deadline is None
