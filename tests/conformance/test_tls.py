"""OpenSSL at the other end of connections of every backend that has sockets: the layer, the driver and the transport
together.

`conformance.Securing` holds a backend to the laws of `Secure`; here is what needs certificates, and peers that do what
no driver of ours would.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import trustme

from coulee.backends.layer import TRUNCATED
from coulee.conformance import Harness, Peer
from coulee.conformance.bench import MUCH, Bench, Chapter
from coulee.core.seam import (
    Accept,
    Accepted,
    Blocked,
    Close,
    Closed,
    Completion,
    Connect,
    Connected,
    DownstreamTls,
    Hold,
    Operation,
    Receive,
    Received,
    Secure,
    Secured,
    Send,
    Sent,
    UpstreamTls,
)
from coulee.core.tls import ClientCertificates, Version
from tests.backends.tls_ends import (
    DATA,
    HANDSHAKE,
    KEY_UPDATE,
    ROOT,
    STRANGER,
    VERSIONS,
    Hand,
    PythonEnd,
    answering,
    asking,
    bytewise,
    downstream,
    issued,
    upstream,
)
from tests.conformance.conftest import HARNESSES

MIB = bytes(range(256)) * 4096
both_versions = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture(params=[name for name in HARNESSES if not name.startswith("simulator")])
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    made = HARNESSES[request.param]()
    try:
        yield made
    finally:
        made.end()


@dataclass
class Other:
    """The other end of a connection: a peer of the harness, who speaks TLS by Python's own."""

    peer: Peer
    end: PythonEnd
    heard: int = 0
    failed: str = ""
    pieces: Callable[[bytes], Sequence[bytes]] = lambda data: (data,)

    def go_on(self) -> None:
        """Take in what has come, and answer."""
        data = self.peer.received[self.heard :]
        self.heard += len(data)
        try:
            if data:
                self.end.feed(data)
        except ssl.SSLError as error:
            self.failed = str(error)
        self.write(self.end.take())

    def write(self, data: bytes) -> None:
        for piece in self.pieces(data) if data else ():
            self.peer.write(piece)

    def say(self, data: bytes) -> None:
        self.write(self.end.say(data))

    def close_in_order(self) -> None:
        self.write(self.end.farewell())
        self.peer.close()


def accepted(bench: Bench, end: PythonEnd | None = None) -> tuple[int, Other]:
    """A client, connected, and nothing said yet."""
    conn, peer = bench.accepted()
    return conn, Other(peer, end or PythonEnd(asking()))


def connected(bench: Bench, end: PythonEnd | None = None) -> tuple[int, Other]:
    """An origin, connected, and nothing said yet."""
    conn, peer = bench.connected()
    return conn, Other(peer, end or PythonEnd(answering(issued("a.test")), server=True))


def until(bench: Bench, condition: Callable[[], object], *others: Other) -> None:
    """Let things happen, at the other ends too."""

    def holds() -> object:
        for other in others:
            other.go_on()
        return condition()

    bench.harness.until(holds)


def shake(bench: Bench, conn: int, other: Other, tls: DownstreamTls | UpstreamTls | None = None) -> Secured:
    """A handshake, up to where both sides know that it is done."""
    begin(bench, conn, other, tls)
    until(bench, lambda: bench.heard(Secured, conn) and other.end.done, other)
    return bench.heard(Secured, conn)[0]


def begin(bench: Bench, conn: int, other: Other, tls: DownstreamTls | UpstreamTls | None = None) -> None:
    served = bool(bench.heard(Accepted, conn))
    bench.do(Secure(conn, tls or (downstream() if served else upstream())))
    if served:
        other.end.start()


def secured(bench: Bench, end: PythonEnd | None = None, tls: DownstreamTls | None = None) -> tuple[int, Other]:
    """A client behind its handshake, whom we read from."""
    conn, other = accepted(bench, end)
    shake(bench, conn, other, tls)
    bench.do(Receive(conn))
    return conn, other


def failure(bench: Bench, conn: int, other: Other) -> Closed:
    until(bench, lambda: bench.heard(Closed, conn), other)
    return bench.heard(Closed, conn)[0]


class TestHandshakes(Chapter):
    @both_versions
    def test_with_a_client(self, bench: Bench, version: Version) -> None:
        conn, other = accepted(bench, PythonEnd(asking(version)))
        assert shake(bench, conn, other).security.version == f"TLSv{version}"

    @both_versions
    def test_with_an_origin(self, bench: Bench, version: Version) -> None:
        conn, other = connected(bench, PythonEnd(answering(issued("a.test"), version=version), server=True))
        security = shake(bench, conn, other).security
        assert security.version == f"TLSv{version}"
        assert security.certificate is not None
        assert security.certificate.names == ("DNS:a.test",)

    @pytest.mark.parametrize("makes", [accepted, connected])
    def test_byte_by_byte(self, bench: Bench, makes: Callable[[Bench], tuple[int, Other]]) -> None:
        conn, other = makes(bench)
        other.pieces = lambda data: list(bytewise(data))
        shake(bench, conn, other)
        bench.do(Receive(conn), Send(conn, b"there"))
        other.say(b"and back")
        until(bench, lambda: bench.puppet.count[conn] == 8 and len(other.end.plain) == 5, other)

    def test_its_first_bytes_were_read_already(self, bench: Bench) -> None:
        """As a machine does that reads the ClientHello itself."""
        conn, other = accepted(bench)
        bench.react(Received, conn)
        bench.do(Receive(conn))
        other.end.start()
        hello = other.end.take()
        other.write(hello[:100])
        until(bench, lambda: bench.puppet.count[conn] == 100)
        bench.do(Hold(conn), Secure(conn, downstream(), bench.read(conn)))
        other.write(hello[100:])
        until(bench, lambda: bench.heard(Secured, conn) and other.end.done, other)

    def test_both_show_certificates(self, bench: Bench) -> None:
        context = asking()
        issued("alice.test").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
        conn, other = accepted(bench, PythonEnd(context))
        security = shake(bench, conn, other, downstream(client_certificates=ClientCertificates(ROOT))).security
        assert security.certificate is not None
        assert security.certificate.names == ("DNS:alice.test",)

    @both_versions
    def test_a_session_goes_on(self, bench: Bench, version: Version) -> None:
        context = asking(version)
        down = downstream()
        session = None
        for resumed in (False, True):
            conn, other = accepted(bench, PythonEnd(context, session=session))
            assert shake(bench, conn, other, down).security.resumed is resumed
            bench.do(Send(conn, b"x"))
            until(bench, lambda other=other: other.end.plain, other)  # type: ignore[misc]
            session = other.end.tls.session

    @both_versions
    def test_a_session_goes_on_with_an_origin(self, bench: Bench, version: Version) -> None:
        context = answering(issued("a.test"), version=version)
        local, peers = bench.harness.listen(("127.0.0.1", 0))
        for index in range(2):
            conn = bench.number()
            bench.do(Connect(conn, local))
            bench.wait(Connected, conn)
            bench.harness.until(lambda index=index: len(peers) > index)  # type: ignore[misc]
            other = Other(peers[index], PythonEnd(context, server=True))
            assert shake(bench, conn, other).security.resumed is bool(index)
            bench.do(Receive(conn))
            other.say(b"x")
            until(bench, lambda conn=conn: bench.puppet.count[conn], other)  # type: ignore[misc]

    def test_100_at_once(self, bench: Bench) -> None:
        """Each at another place of its handshake, and each hears what is its own."""
        listener, local = bench.listener()
        down, context = downstream(), asking()
        conns = [bench.number() for _ in range(100)]

        def react(completion: Completion) -> Sequence[Operation]:
            match completion:
                case Accepted(conn):
                    return [Secure(conn, down)]
                case Secured(conn):
                    return [Receive(conn)]
                case Received(conn, data) if data:
                    return [Send(conn, data)]
                case _:
                    return ()

        bench.puppet.react = react
        bench.do(*(Accept(conn, listener) for conn in conns))
        others = [Other(bench.harness.connect(local), PythonEnd(context)) for _ in conns]
        for index, other in enumerate(others):
            other.pieces = partial(_cut, index)
            other.end.start()
        until(bench, lambda: all(other.end.done for other in others), *others)
        for index, other in enumerate(others):
            other.say(b"%02d" % index)
        until(bench, lambda: all(len(other.end.plain) == 2 for other in others), *others)
        assert [other.end.plain for other in others] == [b"%02d" % index for index in range(100)]


def _cut(index: int, data: bytes) -> Sequence[bytes]:
    return data[:index], data[index:]


class TestStalls(Chapter):
    """Who says nothing more: nothing happens until the machine has had enough. The core says how long that is."""

    @pytest.mark.parametrize("abort", [False, True])
    @pytest.mark.parametrize("count", [0, 1, 5, 100])
    def test_a_client_in_its_first_flight(self, bench: Bench, count: int, abort: bool) -> None:
        conn, other = accepted(bench)
        bench.do(Secure(conn, downstream()))
        other.end.start()
        other.write(other.end.take()[:count])
        self.nothing_comes(bench, conn, other, abort)

    @both_versions
    def test_a_client_in_its_second_flight(self, bench: Bench, version: Version) -> None:
        conn, other = accepted(bench, PythonEnd(asking(version)))
        bench.do(Secure(conn, downstream()))
        other.end.start()
        other.write(other.end.take())
        bench.harness.until(lambda: other.peer.count)
        other.end.feed(other.peer.received)
        other.write(other.end.take()[:20])
        self.nothing_comes(bench, conn, other, False)

    @pytest.mark.parametrize("count", [0, 1, 5, 100])
    def test_an_origin(self, bench: Bench, count: int) -> None:
        conn, other = connected(bench)
        bench.do(Secure(conn, upstream()))
        bench.harness.until(lambda: other.peer.count)
        other.end.feed(other.peer.received)
        other.write(other.end.take()[:count])
        self.nothing_comes(bench, conn, other, False)

    def nothing_comes(self, bench: Bench, conn: int, other: Other, abort: bool) -> None:
        bench.fence()
        assert not bench.heard(Secured, conn)
        assert not bench.heard(Closed, conn)
        bench.do(Close(conn, abort))
        assert bench.wait(Closed, conn).error is None
        bench.harness.until(lambda: other.peer.eof or other.peer.was_reset)


class TestRefusals(Chapter):
    @pytest.mark.parametrize(
        ("leaf", "text"),
        [
            (issued("b.test"), "the peer's certificate is not for a.test: it has b.test"),
            (issued("a.test", authority=STRANGER), "unable to get local issuer certificate"),
            (issued("a.test", expires=datetime.now(UTC) - timedelta(days=1)), "certificate has expired"),
        ],
        ids=["another name", "a strange authority", "expired"],
    )
    @both_versions
    def test_an_origin_that_is_not_who_it_should_be(
        self, bench: Bench, leaf: trustme.LeafCert, text: str, version: Version
    ) -> None:
        conn, other = connected(bench, PythonEnd(answering(leaf, version=version), server=True))
        begin(bench, conn, other)
        closed = failure(bench, conn, other)
        assert closed.error == "tls"
        assert text in closed.detail
        until(bench, lambda: other.peer.eof or other.peer.was_reset, other)
        assert other.end.plain == b""

    def test_a_client_that_does_not_trust_us(self, bench: Bench) -> None:
        conn, other = accepted(bench, PythonEnd(asking(trust=False)))
        begin(bench, conn, other)
        assert failure(bench, conn, other) == Closed(conn, "tls", "the peer says: alert unknown ca")

    @both_versions
    def test_a_client_without_a_certificate_hears_why(self, bench: Bench, version: Version) -> None:
        conn, other = accepted(bench, PythonEnd(asking(version)))
        begin(bench, conn, other, downstream(client_certificates=ClientCertificates(ROOT)))
        assert failure(bench, conn, other) == Closed(conn, "tls", "peer did not return a certificate")
        until(bench, lambda: other.failed, other)
        assert "ALERT" in other.failed

    def test_a_client_that_is_turned_away_by_an_origin_after_its_handshake(self, bench: Bench) -> None:
        """With TLS 1.3 the side that asks is through before the other has looked at its certificate."""
        context = answering(issued("a.test"), version="1.3")
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=ROOT.decode())
        conn, other = connected(bench, PythonEnd(context, server=True))
        begin(bench, conn, other)
        until(bench, lambda: bench.heard(Secured, conn) and other.failed, other)
        bench.do(Receive(conn))
        assert failure(bench, conn, other).detail == "the peer says: alert certificate required"

    @pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(1000)])
    def test_what_is_no_tls(self, bench: Bench, garbage: bytes) -> None:
        conn, other = accepted(bench)
        bench.do(Secure(conn, downstream()))
        other.peer.write(garbage)
        assert bench.wait(Closed, conn).error == "tls"
        bench.harness.until(lambda: other.peer.eof or other.peer.was_reset)


class TestTheEnd(Chapter):
    def test_without_a_farewell_it_was_cut_off(self, bench: Bench) -> None:
        conn, other = secured(bench)
        other.say(b"some")
        other.peer.write_eof()
        assert failure(bench, conn, other) == Closed(conn, "truncated", TRUNCATED)
        assert bench.read(conn) == b"some"
        assert not bench.ended(conn)

    def test_with_a_farewell_it_was_the_end(self, bench: Bench) -> None:
        conn, other = secured(bench)
        other.say(b"all")
        other.close_in_order()
        bench.wait_for_end(conn)
        assert bench.read(conn) == b"all"
        bench.do(Close(conn))
        bench.wait(Closed, conn)

    def test_while_held(self, bench: Bench) -> None:
        conn, other = accepted(bench)
        shake(bench, conn, other)
        other.say(b"all")
        other.close_in_order()
        bench.fence()
        assert not bench.heard(Received, conn)
        bench.do(Receive(conn))
        bench.wait_for_end(conn)
        assert bench.read(conn) == b"all"

    def test_each_direction_by_itself(self, bench: Bench) -> None:
        conn, other = secured(bench)
        other.say(b"request")
        other.write(other.end.farewell())
        bench.wait_for_end(conn)
        for _ in range(3):
            bench.do(Send(conn, b"answer"))
        bench.do(Send(conn, b" end", eof=True))
        until(bench, lambda: other.end.ended and other.peer.eof, other)
        assert other.end.plain == b"answer" * 3 + b" end"

    def test_ours_first(self, bench: Bench) -> None:
        conn, other = secured(bench)
        bench.do(Send(conn, b"request", eof=True))
        until(bench, lambda: other.end.ended and other.peer.eof, other)
        for _ in range(3):
            other.say(b"answer")
        other.close_in_order()
        bench.wait_for_end(conn)
        assert bench.read(conn) == b"answer" * 3

    def test_a_close_behind_much(self, bench: Bench) -> None:
        conn, other = secured(bench)
        other.peer.pause()
        bench.do(Send(conn, MUCH), Close(conn))
        other.peer.resume()
        until(bench, lambda: other.end.ended, other)
        assert other.end.plain == MUCH
        assert bench.wait(Closed, conn).error is None

    def test_an_end_of_stream_behind_much(self, bench: Bench) -> None:
        conn, other = secured(bench)
        other.peer.pause()
        bench.do(Send(conn, MUCH, eof=True))
        other.peer.resume()
        until(bench, lambda: other.end.ended and bench.heard(Sent, conn), other)
        assert other.end.plain == MUCH

    def test_an_abort_has_no_farewell(self, bench: Bench) -> None:
        conn, other = secured(bench)
        bench.do(Close(conn, abort=True))
        bench.harness.until(lambda: other.peer.was_reset)
        assert not other.end.ended

    def test_a_reset_behind_a_farewell(self, bench: Bench) -> None:
        conn, other = secured(bench)
        other.write(other.end.farewell())
        bench.wait_for_end(conn)
        other.peer.reset()
        bench.fence()
        bench.do(*([] if bench.heard(Closed, conn) else [Send(conn, b"x")]))
        bench.fence()
        bench.do(*([] if bench.heard(Closed, conn) else [Close(conn)]))
        bench.wait(Closed, conn)


class TestVolume(Chapter):
    @both_versions
    def test_a_mebibyte_both_ways(self, bench: Bench, version: Version) -> None:
        conn, other = secured(bench, PythonEnd(asking(version)))
        bench.do(Send(conn, MIB))
        other.say(MIB)
        until(bench, lambda: bench.puppet.count[conn] == len(MIB) == len(other.end.plain), other)
        assert bench.read(conn) == MIB
        assert other.end.plain == MIB

    def test_who_does_not_read_blocks(self, bench: Bench) -> None:
        conn, other = secured(bench)
        other.peer.pause()
        bench.do(Send(conn, MUCH))
        assert bench.heard(Blocked, conn)
        other.say(b"and yet speaks")
        bench.wait_for_bytes(conn, 14)
        other.peer.resume()
        until(bench, lambda: bench.heard(Sent, conn) and len(other.end.plain) == len(MUCH), other)
        assert other.end.plain == MUCH

    def test_held_and_let_go_on(self, bench: Bench) -> None:
        conn, other = secured(bench)
        bench.do(Hold(conn))
        for _ in range(16):
            other.say(MIB)
        bench.fence()
        assert not bench.heard(Received, conn)
        bench.do(Receive(conn))
        bench.wait_for_bytes(conn, 16 * len(MIB))
        assert bench.read(conn) == MIB * 16


class TestByHand(Chapter):
    """Records that no library writes."""

    @pytest.fixture
    def writing(self, bench: Bench, tmp_path: Path) -> tuple[int, Other, Hand]:
        context = asking("1.3")
        context.keylog_filename = str(tmp_path / "keys")
        conn, other = secured(bench, PythonEnd(context))
        return conn, other, Hand((tmp_path / "keys").read_text())

    def test_a_flood_of_key_updates_from_who_reads(self, bench: Bench, writing: tuple[int, Other, Hand]) -> None:
        conn, other, hand = writing
        other.peer.write(b"".join(hand.key_update() for _ in range(3000)) + hand.record(DATA, b"still here"))
        bench.wait_for_bytes(conn, 10)
        assert not bench.heard(Closed, conn)

    def test_and_from_who_does_not(self, bench: Bench, writing: tuple[int, Other, Hand]) -> None:
        conn, other, hand = writing
        other.peer.pause()
        bench.do(Send(conn, MUCH))
        assert bench.heard(Blocked, conn)
        other.peer.write(b"".join(hand.key_update() for _ in range(3000)))
        closed = bench.wait(Closed, conn)
        assert closed.error == "aborted"
        other.peer.resume()
        bench.harness.until(lambda: other.peer.was_reset)

    def test_a_message_that_is_broken_off(self, bench: Bench, writing: tuple[int, Other, Hand]) -> None:
        conn, other, hand = writing
        other.peer.write(hand.record(DATA, b"x") + hand.record(HANDSHAKE, KEY_UPDATE[:4]))
        bench.wait_for_bytes(conn, 1)
        bench.fence()
        bench.do(Send(conn, b"answer"))
        assert bench.wait(Closed, conn).error == "tls"
        bench.fence()  # and everybody else is served

    def test_a_bad_record_behind_a_good_one(self, bench: Bench, writing: tuple[int, Other, Hand]) -> None:
        conn, other, hand = writing
        other.peer.write(hand.record(DATA, b"good") + bytes(5) + hand.record(DATA, b"bad"))
        assert bench.wait(Closed, conn).error == "tls"
        assert bench.read(conn) == b"good"
