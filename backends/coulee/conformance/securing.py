"""TLS: it begins when it is asked for, what is read and written is within it from then on, and its end is told.

Nobody needs a certificate here: both sides use a cipher without authentication, which is good for nothing else. A
driver that cannot do TLS says so with `Closed`.
"""

from __future__ import annotations

import ssl
from math import inf
from typing import Final

import pytest

from coulee.conformance.bench import MUCH, Bench, Chapter
from coulee.core.seam import (
    Accept,
    Accepted,
    Close,
    Closed,
    Connect,
    Connected,
    DownstreamTls,
    Hold,
    ListenerTls,
    Receive,
    Received,
    Secure,
    Secured,
    Send,
    UpstreamTls,
)

CIPHERS: Final = "AECDH-AES128-SHA:@SECLEVEL=0"


class NoCertificates:
    """A source with nothing in it."""

    name = "nowhere"
    interval_s = inf
    stamp = None
    certificates = ()

    def look(self, stamp: object) -> None:
        """See `CertificateSource`."""


DOWNSTREAM: Final = DownstreamTls((), ListenerTls(NoCertificates(), ciphers=CIPHERS))
UPSTREAM: Final = UpstreamTls(server_name="", verified_name="", verify=False, ciphers=CIPHERS)
LARGE: Final = MUCH[:100_000]  # more than one record of TLS has


class Securing(Chapter):
    """See the top of the module."""

    def test_bytes_within_tls(self, bench: Bench) -> None:
        down, up = secured(bench)
        bench.do(Receive(down), Receive(up), Send(down, LARGE), Send(up, [b"two ", b"pieces"]))
        assert bench.wait_for_bytes(up, len(LARGE)) == LARGE
        assert bench.wait_for_bytes(down, 10) == b"two pieces"

    def test_nothing_comes_before_it_is_asked_for(self, bench: Bench) -> None:
        """Also where it comes with the end of the handshake."""
        down, up = opened(bench)
        bench.react(Secured, up, Send(up, b"at once"))
        bench.do(Secure(down, DOWNSTREAM), Secure(up, UPSTREAM))
        bench.wait(Secured, down)
        bench.fence()
        assert not bench.heard(Received, down)
        bench.do(Receive(down))
        assert bench.wait_for_bytes(down, 7) == b"at once"

    def test_what_was_read_before_goes_with_it(self, bench: Bench) -> None:
        down, up = opened(bench)
        bench.react(Received, down, Hold(down))
        bench.do(Receive(down), Secure(up, UPSTREAM))
        bench.wait(Received, down)
        early = bench.read(down)
        bench.do(Secure(down, DOWNSTREAM, early))
        bench.wait(Secured, down)
        bench.wait(Secured, up)
        bench.do(Receive(down), Send(up, b"within"))
        assert bench.wait_for_bytes(down, len(early) + 6)[len(early) :] == b"within"

    def test_what_was_sent_before_goes_before(self, bench: Bench) -> None:
        need_tls(bench)
        conn, peer = bench.connected()
        bench.do(Send(conn, b"a word before"), Secure(conn, UPSTREAM))
        bench.harness.until(lambda: peer.count > 13)
        assert peer.received.startswith(b"a word before")

    def test_an_end_in_order(self, bench: Bench) -> None:
        down, up = secured(bench)
        bench.do(Receive(down), Receive(up), Send(up, b"last words", eof=True))
        bench.wait_for_end(down)
        assert bench.read(down) == b"last words"

    def test_a_close_is_an_end_in_order(self, bench: Bench) -> None:
        down, up = secured(bench)
        bench.do(Receive(down), Send(up, LARGE), Close(up))
        assert bench.wait(Closed, up).error is None
        bench.wait_for_end(down)
        assert bench.read(down) == LARGE

    def test_an_end_that_was_cut_off(self, bench: Bench) -> None:
        """It must not look as if the peer had ended."""
        down, up = secured(bench)
        bench.do(Receive(down), Close(up, abort=True))
        assert bench.wait(Closed, down).error == "reset"
        assert not bench.ended(down)

    def test_a_peer_that_does_not_speak_it(self, bench: Bench) -> None:
        need_tls(bench)
        conn, peer = bench.connected()
        bench.do(Secure(conn, UPSTREAM))
        peer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        closed = bench.wait(Closed, conn)
        assert closed.error == "tls"
        assert closed.detail

    @pytest.mark.parametrize("leave", ["write_eof", "close", "reset"])
    def test_a_peer_that_leaves_during_the_handshake(self, bench: Bench, leave: str) -> None:
        need_tls(bench)
        conn, peer = bench.connected()
        bench.do(Secure(conn, UPSTREAM))
        bench.harness.until(lambda: peer.count)
        getattr(peer, leave)()
        assert bench.wait(Closed, conn).error == "reset"
        assert not bench.heard(Secured, conn)

    @pytest.mark.parametrize("abort", [False, True])
    def test_a_handshake_that_is_given_up(self, bench: Bench, abort: bool) -> None:
        need_tls(bench)
        conn, peer = bench.connected()
        bench.do(Secure(conn, UPSTREAM))
        bench.fence()
        bench.do(Close(conn, abort))
        assert bench.wait(Closed, conn).error is None
        bench.harness.until(lambda: peer.was_reset or peer.eof)

    @pytest.mark.parametrize("tls", [DOWNSTREAM, UPSTREAM], ids=["downstream", "upstream"])
    def test_who_cannot_do_it_says_so(self, bench: Bench, tls: DownstreamTls | UpstreamTls) -> None:
        if bench.harness.has_tls:
            pytest.skip("it can")
        conn, peer = bench.connected()
        bench.do(Secure(conn, tls))
        closed = bench.wait(Closed, conn)
        assert closed.error == "tls"
        assert closed.detail
        bench.harness.until(lambda: peer.was_reset or peer.eof)
        assert not peer.received


def opened(bench: Bench) -> tuple[int, int]:
    """Both ends of a connection, the one that was accepted first."""
    need_tls(bench)
    listener, local = bench.listener()
    down, up = bench.number(), bench.number()
    bench.do(Accept(down, listener), Connect(up, local))
    bench.wait(Accepted, down)
    bench.wait(Connected, up)
    return down, up


def secured(bench: Bench) -> tuple[int, int]:
    """The same, with TLS between them."""
    down, up = opened(bench)
    bench.do(Secure(down, DOWNSTREAM), Secure(up, UPSTREAM))
    for conn in (down, up):
        assert bench.wait(Secured, conn).security.cipher
    return down, up


def need_tls(bench: Bench) -> None:
    if not bench.harness.has_tls:
        pytest.skip("this driver cannot do TLS")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(CIPHERS)
    except ssl.SSLError:
        pytest.skip("this OpenSSL has no cipher without authentication")
