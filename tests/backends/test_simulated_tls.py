"""What stands for TLS in the simulator: it judges as the real one does, and a handshake may be cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.backends.far_end import FarEnd, LayerFault
from coulee.backends.layer import LayerError
from coulee.backends.peers import Ask, H11Client, H11Origin, Reply
from coulee.backends.simulated_tls import ALERT, HANDSHAKE, KEY_UPDATE_WANTED, Sessions, SimulatedLayer, record
from coulee.backends.simulator import WALL_CLOCK_OFFSET_S, Simulator
from coulee.backends.weather import Weather
from coulee.core import Listener, Proxy
from coulee.core.client_hello import read_client_hello
from coulee.core.seam import Address
from coulee.core.tls import ClientCertificates, DownstreamTls, ListenerTls, UpstreamTls
from coulee.lb import Cluster
from tests.simulation.edges import ANOTHER, AUTHORITY, Source, certificate

HERE: Address = ("10.0.0.1", 443)
ORIGIN: Address = ("10.1.0.1", 80)
NOW = WALL_CLOCK_OFFSET_S


def answers(
    name: str = "a.test", *, chain: bytes = AUTHORITY, expired: bool = False, asked: ClientCertificates | None = None
) -> SimulatedLayer:
    shown = certificate(name, chain=chain, expired=expired)
    return SimulatedLayer(DownstreamTls((shown,), ListenerTls(Source(shown), client_certificates=asked)), lambda: NOW)


def asks(tls: UpstreamTls | None = None) -> SimulatedLayer:
    return SimulatedLayer(tls or UpstreamTls("a.test", "a.test", ca=AUTHORITY), lambda: NOW)


def taken(layer: SimulatedLayer) -> bytes:
    data, layer.to_send = layer.to_send, b""
    return data


def joined(up: SimulatedLayer, down: SimulatedLayer, cuts: int = 10**6) -> None:
    """A handshake, whose flights come in pieces of so many bytes."""
    up.receive(b"")
    for _ in range(3):
        for source, sink in ((up, down), (down, up)):
            flight = taken(source)
            for at in range(0, len(flight), cuts):
                assert sink.receive(flight[at : at + cuts]) == b""


def test_both_sides_know_what_it_came_to() -> None:
    up, down = asks(), answers()
    joined(up, down)
    assert up.security is not None
    assert down.security is not None
    assert up.security.certificate is not None
    assert up.security.certificate.names == ("DNS:a.test",)
    assert down.security.certificate is None
    assert up.security.alpn == down.security.alpn == "http/1.1"


@given(cuts=st.integers(1, 400), data=st.binary(max_size=40_000))
def test_flights_and_records_may_be_cut_anywhere(cuts: int, data: bytes) -> None:
    up, down = asks(), answers()
    joined(up, down, cuts)
    sent = up.encrypt(data) + up.encrypt([b"more", b""]) + up.farewell()
    heard = b"".join(down.receive(sent[at : at + cuts]) for at in range(0, len(sent), cuts))
    assert heard == data + b"more"
    assert down.ended
    assert not up.ended


def test_its_hello_is_one_that_can_be_read() -> None:
    up = asks(UpstreamTls("a.test", "b.test", alpn=("h2", "http/1.1")))
    up.receive(b"")
    hello = read_client_hello(taken(up))
    assert hello is not None
    assert (hello.server_name, hello.alpn, hello.versions) == ("a.test", ("h2", "http/1.1"), (0x0304,))
    nameless = asks(UpstreamTls("", "b.test", alpn=()))
    nameless.receive(b"")
    hello = read_client_hello(taken(nameless))
    assert hello is not None
    assert (hello.server_name, hello.alpn) == ("", ())


@pytest.mark.parametrize(
    ("up", "down", "why"),
    [
        (None, answers("b.test"), "is not for a.test"),
        (None, answers(expired=True), "expired"),
        (None, answers(chain=ANOTHER), "local issuer"),
        (UpstreamTls("a.test", "a.test", ca=AUTHORITY, alpn=("x",)), answers(), "no protocol in common"),
        (None, answers(asked=ClientCertificates(AUTHORITY)), "shown no certificate"),
        (
            UpstreamTls("a.test", "a.test", ca=AUTHORITY, certificate=certificate("me", chain=ANOTHER)),
            answers(asked=ClientCertificates(AUTHORITY, required=False)),
            "local issuer",
        ),
    ],
)
def test_what_is_wrong_is_refused_and_the_other_side_hears_of_it(
    up: UpstreamTls | None, down: SimulatedLayer, why: str
) -> None:
    layer = asks(up)
    with pytest.raises(LayerError, match=why):
        joined(layer, down)
    words = [taken(layer), taken(down)]
    [alert] = [word for word in words if word[:1] == bytes([ALERT])]
    other = down if words[0] == alert else layer
    with pytest.raises(LayerError, match="the peer says"):
        other.receive(alert)


def test_somebody_may_look_at_no_certificate() -> None:
    up = asks(UpstreamTls("a.test", "a.test", verify=False))
    joined(up, answers("b.test", expired=True))
    assert up.security is not None
    assert up.security.certificate is None


def test_without_a_certificate_nobody_is_who_he_should_be() -> None:
    nobody = DownstreamTls((), ListenerTls(Source(certificate("a.test"))))
    joined(up := asks(UpstreamTls("", "", verify=False)), SimulatedLayer(nobody, lambda: NOW))
    assert up.security is not None
    with pytest.raises(LayerError, match="has shown no certificate"):
        joined(asks(), SimulatedLayer(nobody, lambda: NOW))


def test_a_client_may_show_who_it_is() -> None:
    up = asks(UpstreamTls("a.test", "a.test", ca=AUTHORITY, certificate=certificate("me")))
    down = answers(asked=ClientCertificates(AUTHORITY))
    joined(up, down)
    assert down.security is not None
    assert down.security.certificate is not None
    assert down.security.certificate.subject == "CN=me"


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n", record(23, b"early"), record(HANDSHAKE, b"\x0b?"), record(HANDSHAKE, b"\x14simulated {}")],
)
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(LayerError):
        answers().receive(garbage)
    up = asks()
    up.receive(b"")
    with pytest.raises(LayerError):
        up.receive(garbage)


def test_a_session_is_resumed_with_the_same_peer_by_the_same_settings() -> None:
    sessions: Sessions = {}
    tls = UpstreamTls("a.test", "a.test", ca=AUTHORITY)

    def resumed(down: SimulatedLayer, place: Address = HERE, settings: UpstreamTls = tls) -> bool:
        up = SimulatedLayer(settings, lambda: NOW, sessions, place)
        joined(up, down)
        assert up.security is not None
        assert down.security is not None
        assert up.security.resumed is down.security.resumed
        return up.security.resumed

    assert [resumed(answers()), resumed(answers())] == [False, True]
    assert not resumed(answers(), ("10.0.0.2", 443))
    assert not resumed(answers(), settings=UpstreamTls("a.test", "a.test", ca=AUTHORITY, alpn=()))
    assert [resumed(answers(chain=AUTHORITY + b"renewed")), resumed(answers(chain=AUTHORITY + b"renewed"))] == [
        False,
        True,
    ]
    nobody = DownstreamTls((), ListenerTls(Source(certificate("a.test"))))
    anybody = UpstreamTls("", "", verify=False)
    assert not any(resumed(SimulatedLayer(nobody, lambda: NOW), settings=anybody) for _ in range(2))


def test_the_oldest_session_goes_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coulee.backends.simulated_tls.SESSIONS_MAX", 2)
    sessions: Sessions = {}
    for host in ("1", "2", "3"):
        joined(SimulatedLayer(UpstreamTls("a.test", "a.test", ca=AUTHORITY), lambda: NOW, sessions, host), answers())
    assert [place for _, place in sessions] == ["2", "3"]


def test_who_asks_for_a_key_update_gets_one_among_other_records() -> None:
    up, down = asks(), answers()
    joined(up, down)
    said = up.encrypt(b"one") + KEY_UPDATE_WANTED + up.encrypt(b"two") + KEY_UPDATE_WANTED
    assert down.receive(said) == b"onetwo"
    answer = taken(down)
    assert len(answer) == 2 * len(KEY_UPDATE_WANTED)
    assert up.receive(answer + down.encrypt(b"three")) == b"three"
    assert taken(up) == b"", "one that is an answer asks for none"


def test_before_it_stands_there_are_no_key_updates() -> None:
    with pytest.raises(LayerError, match="nobody here can read"):
        answers().receive(KEY_UPDATE_WANTED)


def test_what_came_in_order_before_an_error_is_told_with_it() -> None:
    up, down = asks(), answers()
    joined(up, down)
    with pytest.raises(LayerError) as caught:
        down.receive(up.encrypt(b"one") + record(HANDSHAKE, b"\x01") + up.encrypt(b"two"))
    assert caught.value.plain == b"one"


def test_nothing_is_said_in_the_end_of_what_never_stood() -> None:
    assert asks().farewell() == b""


# --------------------------------------------------------------------------------------------------- scripted ends


class Pair:
    """Two scripted ends that speak TLS with each other."""

    def __init__(self, fault: str | None = None, whose: str = "client") -> None:
        self.simulator = Simulator(1)
        self.client, self.server = FarEnd(), FarEnd()
        self.heard: list[bytes] = []
        self.server.on_received = self.heard.append
        self.client.layer = self.simulator.layer(UpstreamTls("a.test", "a.test", ca=AUTHORITY))
        shown = certificate("a.test")
        self.server.layer = self.simulator.layer(DownstreamTls((shown,), ListenerTls(Source(shown))))
        (self.client if whose == "client" else self.server).layer_fault = fault  # type: ignore[assignment]
        self.simulator.listen(HERE, lambda _: self.server)
        self.simulator.connect(HERE, self.client)

    def run(self) -> None:
        self.client.write(b"hello")
        self.client.write_eof()
        self.simulator.advance(10)


def test_scripted_ends_speak_it_and_say_farewell() -> None:
    pair = Pair()
    pair.run()
    assert pair.heard == [b"hello", b""]


@pytest.mark.parametrize(
    ("fault", "whose", "heard"),
    [
        ("stall_1", "client", []),
        ("stall_2", "client", []),
        ("stall_1", "server", []),
        ("alert_1", "server", []),
        ("alert_2", "client", []),
        ("truncate", "client", [b"hello"]),
        ("update", "client", [b"hello", b""]),
        ("flood", "client", [b"hello", b""]),
    ],
)
def test_scripted_ends_fail_as_they_are_told(fault: str, whose: str, heard: list[bytes]) -> None:
    pair = Pair(fault, whose)
    pair.run()
    assert pair.heard == heard, "the end of a stream is heard by its farewell only"
    assert pair.simulator.census[f"fault:tls_{fault.partition('_')[0]}"] == 1


def test_what_goes_before_is_sent_and_skipped() -> None:
    pair = Pair()
    pair.client.prelude = b"12345"
    pair.server.skip = lambda data: 5 if len(data) >= 5 else None
    pair.run()
    assert pair.heard == [b"hello", b""]


# --------------------------------------------------------------------------------------------------------- machines


@pytest.mark.parametrize(("fault", "ends"), [("update", []), ("flood", ["aborted"])])
def test_words_of_its_own_are_answered_until_nobody_takes_them(fault: LayerFault, ends: list[str]) -> None:
    simulator = Simulator(1, Weather(window_bytes=(1024, 1024)))
    shown = certificate("a.test")
    listener = Listener(HERE, ListenerTls(Source(shown)))
    simulator.listen(ORIGIN, lambda _: H11Origin(lambda asked: Reply(200, pieces=[b"hi"])))
    driver = simulator.run(Proxy(Cluster("http://10.1.0.1")), [listener])
    client = H11Client([Ask(fields=[("Host", "a.test")])], stay=True)
    client.layer = simulator.layer(UpstreamTls("a.test", "a.test", ca=AUTHORITY))
    client.layer_fault = fault
    simulator.connect(HERE, client)
    simulator.advance(1.0)
    assert [answer.complete for answer in client.answers] == [not ends]
    assert simulator.census["error:aborted"] == len(ends)
    driver.drain(0.0)
    simulator.settle()
    assert driver.done
