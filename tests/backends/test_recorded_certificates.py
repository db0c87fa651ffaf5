"""Certificates that come while a machine is recorded: a replay is given the same ones, and nobody gets a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from coulee.backends.far_end import FarEnd
from coulee.backends.recorded_certificates import Found, Numbers, Objects
from coulee.backends.recorder import Recorder
from coulee.backends.recording import Recording, RecordingError
from coulee.backends.replay import Replay
from coulee.backends.ring import Ring
from coulee.backends.simulator import Simulator
from coulee.core import Event, Listener, ListenerTls, Proxy, blocking
from coulee.core.seam import Completion, Finished, ListenAt, Operation, UpstreamTls
from coulee.core.tls import Certificate, CertificatesFound
from coulee.lb import Cluster

HERE = ("10.0.0.1", 443)
SECRET = b"this is the secret"


def certificate(name: str, mark: int = 1) -> Certificate:
    return Certificate(b"chain", SECRET, (name,), "ecdsa", 0.0, 4e9, f"{name} {mark}", f"{name}.pem")


class Stamp:
    """It can be pickled, and nobody can be trusted with that."""


class Renewing:
    """A source whose second certificate of two is replaced, then is said to be bad, then read again as it is."""

    name = "renewing"
    interval_s = 1.0
    stamp: object = None

    def __init__(self) -> None:
        self.certificates: Sequence[Certificate] = [certificate("a.test"), certificate("b.test")]
        new = [self.certificates[0], certificate("b.test", 2)]
        again = [certificate("a.test"), new[1]]  # another object: its chain may be another
        self.finds = [
            None,
            CertificatesFound(Stamp(), new),
            CertificatesFound(Stamp(), new, ("c.pem: no certificate",)),
            CertificatesFound(Stamp(), again),
            CertificatesFound(Stamp(), again[1:]),
        ]

    def look(self, stamp: object) -> CertificatesFound | None:
        return self.finds.pop(0) if self.finds else None


def program(own: bool, choose: Any = None) -> tuple[Proxy, list[ListenAt]]:
    listener = Listener(HERE, ListenerTls(Renewing(), choose=choose))
    return Proxy(Cluster("http://10.0.0.2"), listen=[listener] if own else []), [] if own else [listener]


def differences(path: Path, definition: Proxy) -> list[str]:
    replay = Replay(Recording(path), definition)
    return [step.difference for step in map(replay.step, replay.recording) if step.difference]


def told(records: list[Any]) -> list[str]:
    return [event.text for event in records if isinstance(event, Event) and event.name == "certificates"]


@pytest.mark.parametrize("own", [True, False], ids=["its own listener", "one that it is given"])
def test_a_renewal_is_replayed_for_who_trusts_nobody(own: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    definition, listen = program(own)
    simulator = Simulator(1)
    driver = simulator.run(Recorder(definition, path), listen)
    simulator.advance(10)
    driver.drain(0)
    simulator.settle()
    assert told(driver.records) == [
        "renewing: there is a new certificate for b.test",
        "c.pem: no certificate; what there was before is kept",
        "renewing: there is a new certificate for a.test",
        "renewing: it can be read again",
        "renewing: some certificates are gone",
    ]
    assert differences(path, program(own)[0]) == []
    assert SECRET not in path.read_bytes()
    assert Recording(path).header.defined == [] if not own else [HERE]


def test_a_choice_that_a_thread_makes_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    made = {name: certificate(name) for name in ("c.test", "d.test")}

    async def choose(name: str) -> Certificate | None:
        return await blocking(made.get, name)

    definition, _ = program(True, choose)
    simulator = Simulator(1)
    driver = simulator.run(Recorder(definition, path))
    for name in ("c.test", "d.test", "c.test", "e.test"):
        far = FarEnd()
        far.layer = simulator.layer(UpstreamTls(name, name, verify=False))
        simulator.connect(HERE, far)
        simulator.advance(0.1)
        assert far.layer.security is not None
    driver.drain(0)
    simulator.settle()
    made.clear()  # what jobs have returned is in the file
    assert differences(path, definition) == []
    assert SECRET not in path.read_bytes()


def test_a_ring_has_them_too(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    definition, listen = program(False)
    simulator = Simulator(1)
    texts: list[str] = []

    def fails(report: object) -> bool:
        texts.append(getattr(report, "text", ""))
        return "gone" in texts[-1]

    driver = simulator.run(Ring(definition, path, 60, fails), listen)
    simulator.advance(10)
    driver.drain(0)
    simulator.settle()
    assert differences(path, program(False)[0]) == []


class World:
    """A machine that has these certificates, as far as is asked for them."""

    deadline = None
    finished = False

    def __init__(self, *certificates: Certificate) -> None:
        source = Renewing()
        source.certificates = certificates
        self.listen_at = [Listener(HERE, ListenerTls(source)), Listener("/run/x.sock"), HERE]

    def fresh(self, **_: Any) -> World:
        return self

    def handle(self, completion: Completion | None, now: float) -> list[Operation]:
        return []


def test_each_is_the_same_object_wherever_it_is_found() -> None:
    first, second, third = certificate("a"), certificate("a"), certificate("c")
    numbers = Numbers(World(first, second))
    kept = [
        numbers.kept(Finished(1, CertificatesFound(Stamp(), [second, third], ("bad",)))),
        numbers.kept(Finished(2, first)),
        numbers.kept(Finished(3, third)),
        numbers.kept(Finished(4, second)),
    ]
    again = [certificate("a"), certificate("a")]
    objects = Objects(World(*again))
    given: list[Any] = [objects.given(each) for each in kept]
    found = given[0].value
    assert isinstance(found, Found)
    assert (given[0].job, found.stamp, found.problems) == (1, None, ("bad",))
    assert found.certificates[0] is again[1]
    assert given[1].value is again[0]
    assert given[2].value is found.certificates[1]
    assert given[2].value.names == ("c",)
    assert given[2].value.key == b""
    assert given[3].value is again[1]


def test_a_program_that_has_others_by_now_is_given_those_of_then() -> None:
    first = certificate("a", 1)
    kept = Numbers(World(first)).kept(Finished(1, first))
    objects = Objects(World(certificate("a", 2)))
    given: list[Any] = [objects.given(kept), objects.given(kept)]
    assert given[0].value.fingerprint == "a 1"
    assert given[0].value is given[1].value


def test_a_certificate_that_is_gone_leaves_its_number() -> None:
    numbers = Numbers(World())
    given: list[Any] = [numbers.kept(Finished(1, certificate(f"{number}"))) for number in range(3)]
    assert [each.value[1][0] for each in given] == [0, 1, 2]


@dataclass
class Alike:
    """Has what a source's find has, and is none."""

    stamp: object
    certificates: Sequence[object]
    problems: Sequence[str]


class Anything:
    """Answers to every name."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError("nobody asks it")


@pytest.mark.parametrize("value", [None, (), ("a", 1), (1, 2), Alike(1, ["no certificate"], ()), Anything, Found])
def test_other_results_are_none_of_its_business(value: object) -> None:
    value = Anything() if value is Anything else value
    finished = Finished(1, value, None)
    assert Numbers(World()).kept(finished) is finished
    assert Objects(World()).given(finished) is finished


def test_what_is_no_result_passes() -> None:
    assert Objects(World()).given(None) is None


@pytest.mark.parametrize(
    "value",
    [
        ("\0one certificate",),
        ("\0one certificate", 3),
        ("\0one certificate", (0, "names")),
        ("\0one certificate", (0, 1, 2, 3, 4, 5, 6)),
        ("\0certificates of a source", ()),
        ("\0certificates of a source", (1,), ()),
        ("\0certificates of a source", (), (), ()),
        ("\0certificates of a source", (([0], ("a",), "k", 0.0, 0.0, "f", "s"),), ()),
    ],
)
def test_what_makes_no_sense_is_said_to_be_damaged(value: object, tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorder = Recorder(World(), path)
    machine = recorder.fresh(rng=Random(1), wall_clock_offset_s=0.0)
    machine.handle(None, 0.0)
    machine.handle(Finished(1, value), 1.0)
    recorder.close()
    replay = Replay(Recording(path), World())
    with pytest.raises(RecordingError, match="^turn 1 is damaged: "):
        list(map(replay.step, replay.recording))
