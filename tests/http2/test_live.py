"""Cases over real sockets: coulee as a child process on two backends, plain and by TLS. What it answers to each case is
what a machine answers; here a driver, a loop and the kernel are in between, and closing is what a client sees of it."""

from __future__ import annotations

import ssl
from collections.abc import Generator, Iterator

import pytest

from tests.http2.case import Case, play
from tests.http2.cases import CASES
from tests.http2.live import HOST, SecureWire, ServedOrigin, SocketWire
from tests.http2.outcomes import finish
from tests.http2.talk import Talk
from tests.interop.proxied import Proxied, certificates_in, proxied


def chosen() -> Iterator[Case]:
    """The first case of each section in which the connection ends, or may, or goes on."""
    seen = set()
    for case in CASES:
        kind = case.section, case.expected.may_end, case.expected.may_go_on
        if case.for_sockets and not case.slow and kind not in seen:
            seen.add(kind)
            yield case


CHOSEN = list(chosen())


@pytest.fixture(scope="module", params=["asyncio", "threads"])
def doors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Doors, None, None]:
    """coulee before an origin, with a plain listener and one with TLS."""
    folder = tmp_path_factory.mktemp("http2")
    certificates = certificates_in(folder)
    listen = {"plain": {"address": f"{HOST}:0"}, "tls": {"address": f"{HOST}:0", "tls": True}}
    origin = ServedOrigin()
    try:
        url = f"http://{HOST}:{origin.port}"
        with proxied(folder, certificates, backend=request.param, origin=url, listen=listen) as coulee:
            context = ssl.create_default_context(cafile=str(certificates.ca))
            context.set_alpn_protocols(["h2"])
            yield Doors(coulee, context)
    finally:
        origin.close()


class Doors:
    """Ways to coulee."""

    def __init__(self, coulee: Proxied, context: ssl.SSLContext) -> None:
        self.coulee = coulee
        self.context = context

    def wire(self, secure: bool) -> SocketWire:
        """A new connection."""
        if secure:
            return SecureWire(self.coulee.at("tls")[1], self.context)
        return SocketWire(self.coulee.at("plain")[1])


@pytest.mark.parametrize("case", CHOSEN, ids=str)
def test_a_case(case: Case, doors: Doors) -> None:
    play_on(doors.wire(secure=False), case)


@pytest.mark.parametrize("case", [case for case in CHOSEN if case.of_literals], ids=str)
def test_a_case_by_tls(case: Case, doors: Doors) -> None:
    play_on(doors.wire(secure=True), case)


def play_on(wire: SocketWire, case: Case) -> None:
    """All of it."""
    try:
        talk = Talk(wire)
        play(case, talk)
        finish(talk, case.expected)
        missing = case.expected.missing(talk)
        assert not missing, f"{case}: {missing}; expected {case.expected}; came {'; '.join(map(str, talk.frames))}"
        case.check(talk)
    finally:
        wire.close()


def test_the_chosen_ones_are_of_all_sections() -> None:
    assert {case.section for case in CHOSEN} == {case.section for case in CASES if case.for_sockets and not case.slow}
    assert len(CHOSEN) > 40
