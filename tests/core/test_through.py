"""The way through an HTTP proxy, as packet traces: what is asked, all that may be answered, and what is left."""

from __future__ import annotations

from base64 import b64encode
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core import Config, ExchangeError, Limits, Peer
from coulee.core.codec import ProtocolError
from coulee.core.errors import REASONS
from coulee.core.http1 import Http1Codec
from coulee.core.kernel import Task
from coulee.core.proxy import Proxy
from coulee.core.seam import Address, Blocked, Closed, ErrorKind, Hold, Receive, Received, Send
from coulee.core.sole_connection import SoleConnection
from coulee.core.through import Through, authority_for, open_tunnel
from coulee.core.tls import UpstreamTls
from coulee.core.transport import Transport
from tests.core.ledger import Ledger
from tests.core.world import World

PROXY = Peer(("10.0.0.3", 3128), "squid")
TARGET = ("origin.test", 443)
ASKED = b"CONNECT origin.test:443 HTTP/1.1\r\nHost: origin.test:443\r\n\r\n"
OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"
SECRET = Through(PROXY, user="aladdin", password="open: sesame", headers=(("X-Team", "thieves"),))


class End(SoleConnection):
    """A connection as a pool's is: what happens to it is for its stream."""

    def __init__(self, proxy: Proxy) -> None:
        self.own_codec = Http1Codec("client", proxy.config.limits)
        super().__init__(proxy, proxy.number(), self.own_codec, proxy.config)

    def wanted_by_nobody(self) -> None:
        raise AssertionError("whoever is asked is listened to")

    def ended_by_peer(self) -> None:
        raise AssertionError("whoever is asked is listened to")

    def gone(self, kind: ErrorKind | None, detail: str) -> None:
        if self.stream is not None:
            self.stream.fail(ExchangeError("upstream_reset", detail))

    def timed_out(self, reading: bool) -> None:
        assert self.stream is not None
        self.stream.give_up(ExchangeError("upstream_timeout", "whatever"))

    def fault(self, error: ProtocolError) -> ExchangeError:
        raise AssertionError("its own codec reads nothing of this")


class Opened:
    """A machine with a connection through a proxy that is connected, and has been asked."""

    def __init__(self, through: Through | None = None, target: Address = TARGET, limits: Limits | None = None) -> None:
        self.through = through or Through(PROXY)
        self.target = target
        self.proxy = Proxy(Ledger(), config=Config(limits=limits or Limits()), rng=Random(1))
        self.world = World(self.proxy)
        self.world.gives(None)
        self.error: ExchangeError | None = None
        self.end = End(self.proxy)
        self.task = Task(self.proxy.kernel, self.run())
        self.proxy.kernel.wake(self.task, None)
        self.world.gives(None)
        self.conn = self.world.connects()

    async def run(self) -> None:
        await self.end.connect(PROXY.address, 3.0)
        try:
            await open_tunnel(self.end, self.target, self.through, 3.0)
        except ExchangeError as error:
            self.error = error

    def says(self, *pieces: bytes) -> None:
        """The proxy sends something, in these pieces."""
        for piece in pieces:
            if self.world.reading.get(self.conn):
                self.world.receives(self.conn, piece)

    def failed(self) -> str:
        """What it has failed with; nothing is awaited any more."""
        assert self.task.done
        assert self.error is not None, "the way is open"
        assert "sesame" not in str(self.error)
        self.is_as_before()
        return str(self.error)

    def is_open(self) -> bool:
        assert self.error is None, self.error
        if self.task.done:
            self.is_as_before()
        return self.task.done

    def is_as_before(self) -> None:
        end = self.end
        assert (end.codec, end.stream, end.unread) == (end.own_codec, None, False)
        assert end.own_codec.idle
        assert end.held or end.closing
        assert end.closing or not self.world.reading.get(self.conn)
        assert end.read_by == float("inf")


# --------------------------------------------------------------------------------------------------------- asking


def test_the_way_is_asked_for_and_opened() -> None:
    opened = Opened()
    assert opened.world.operations[-2:] == [Send(opened.conn, ASKED), Receive(opened.conn)]
    assert opened.world.receives(opened.conn, OPEN) == [Hold(opened.conn)]
    assert opened.is_open()


@pytest.mark.parametrize(
    ("target", "authority"),
    [
        (("10.0.0.1", 80), b"10.0.0.1:80"),
        (("2001:db8::1", 8443), b"[2001:db8::1]:8443"),
        (("origin.test", 1), b"origin.test:1"),
    ],
)
def test_where_to_go_is_said_with_its_port(target: Address, authority: bytes) -> None:
    opened = Opened(target=target)
    assert opened.world.sent(opened.conn) == b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (authority, authority)


def test_credentials_and_more_fields_are_said_to_the_proxy() -> None:
    opened = Opened(SECRET)
    basic = b64encode(b"aladdin:open: sesame")
    assert opened.world.sent(opened.conn) == (
        ASKED.removesuffix(b"\r\n") + b"X-Team: thieves\r\nProxy-Authorization: Basic " + basic + b"\r\n\r\n"
    )


def test_credentials_are_utf_8() -> None:
    opened = Opened(Through(PROXY, user="test", password="123£"))  # the example of RFC 7617 section 2.1
    assert b"Proxy-Authorization: Basic dGVzdDoxMjPCow==\r\n" in opened.world.sent(opened.conn)


def test_no_proxy_leads_to_a_unix_socket() -> None:
    with pytest.raises(ValueError, match="/run/x is a Unix socket, and no proxy is on the way to one"):
        authority_for("/run/x")


# ------------------------------------------------------------------------------------------------------- settings


def test_what_a_proxy_is_told_does_not_show() -> None:
    for text in (repr(SECRET), str(SECRET), f"{SECRET}"):
        assert text == f"Through(peer={PROXY!r})"


def test_two_are_equal_that_say_the_same_to_the_same_proxy() -> None:
    same = Through(Peer(PROXY.address, "another name"), "aladdin", "open: sesame", (("X-Team", "thieves"),))
    assert same == SECRET
    assert hash(same) == hash(SECRET)
    others = [
        Through(PROXY),
        Through(Peer(("10.0.0.4", 3128)), "aladdin", "open: sesame", (("X-Team", "thieves"),)),
        Through(PROXY, "aladdin", "open: sesam", (("X-Team", "thieves"),)),
        Through(PROXY, "aladdin2", "open: sesame", (("X-Team", "thieves"),)),
        Through(PROXY, "aladdin", "open: sesame", (("X-Team", "thief"),)),
        Through(PROXY, "aladdin", "open: sesame"),
    ]
    for other in others:
        assert other != SECRET
        assert hash(other) != hash(SECRET)
    assert SECRET != "aladdin"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"user": "a:b"}, "user: there is a colon in it"),
        ({"password": "x"}, "password: there is one without a user"),
        ({"user": "a\r\nX y"}, "user, password: there is a control character"),
        ({"user": "a", "password": "hidden\n"}, "user, password: there is a control character"),
        ({"headers": (("Host", "x"),)}, "headers: Host is not for you to say"),
        ({"headers": (("Transfer-Encoding", "chunked"),)}, "headers: Transfer-Encoding is not"),
        ({"headers": (("proxy-authorization", "hidden"),)}, "headers: proxy-authorization is not"),
        ({"headers": (("X Y", "hidden"),)}, "headers: 'X Y', or its value, is nothing that a field can be"),
        ({"headers": (("X", "hidden\r\nY: z"),)}, "headers: 'X', or its value, is nothing that a field can be"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        Through(PROXY, **settings)  # type: ignore[arg-type]
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("transport", [Transport(through=Through(PROXY)), Transport(proxy_protocol=1)])
def test_the_way_to_a_proxy_is_no_longer_than_tls(transport: Transport) -> None:
    with pytest.raises(ValueError, match="peer: the way to a proxy is no longer than TLS"):
        Through(Peer(PROXY.address, transport=transport))
    Through(Peer(PROXY.address, transport=Transport(tls=UpstreamTls())))


@pytest.mark.parametrize(
    "transport", [Transport(prior_knowledge=True), Transport(tls=UpstreamTls(alpn=("h2", "http/1.1")))]
)
def test_a_proxy_is_asked_in_http1_alone(transport: Transport) -> None:
    with pytest.raises(ValueError, match="peer: a proxy is asked in HTTP/1.1; leave out `prior_knowledge`, and h2"):
        Through(Peer(PROXY.address, transport=transport))


# -------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    "answer",
    [
        OPEN,
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
        b"HTTP/1.1 299 Fine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OPEN,
    ],
)
def test_what_opens_the_way(answer: bytes) -> None:
    opened = Opened()
    opened.says(answer)
    assert opened.is_open()
    bytewise = Opened()
    for at in range(len(answer)):
        assert not bytewise.is_open()
        bytewise.says(answer[at : at + 1])
    assert bytewise.is_open()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic\r\nContent-Length: 8\r\n\r\ngo away!",
         "upstream_proxy_refused: the proxy squid: it answered 407 to CONNECT"),
        (b"HTTP/1.1 403 No\r\n\r\n", "upstream_proxy_refused: the proxy squid: it answered 403 to CONNECT"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
         "upstream_proxy_refused: the proxy squid: it answered 302 to CONNECT"),
        (b"HTTP/1.1 999 No\r\n\r\n", "upstream_proxy_refused: the proxy squid: it answered 999 to CONNECT"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", "upstream_proxy_refused: the proxy squid: it answered 500 to CONNECT"),
        (b"HTTP/1.1 502 No\r\n\r\n", "upstream_unreachable: the proxy squid: it answered 502 to CONNECT"),
        (b"HTTP/1.1 503 No\r\n\r\n", "upstream_unreachable: the proxy squid: it answered 503 to CONNECT"),
        (b"HTTP/1.1 504 No\r\n\r\n", "upstream_connect_timeout: the proxy squid: it answered 504 to CONNECT"),
        (b"HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
         "upstream_invalid: the proxy squid: a 101 that nobody asked for"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "upstream_invalid: the proxy squid: the answer does not begin with HTTP/"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "upstream_invalid: the proxy squid: HTTP/2.0 is not spoken here"),
        (b"HTTP/1.1 200 OK\nX: y\n\r\n\r\n", "upstream_invalid: the proxy squid: the status line is not"),
        (b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "upstream_invalid: the proxy squid: a field without a name"),
    ],
)  # fmt: skip
def test_what_does_not(answer: bytes, said: str) -> None:
    opened = Opened(SECRET)
    opened.says(answer)
    assert opened.failed().startswith(said)
    bytewise = Opened(SECRET)
    bytewise.says(*(answer[at : at + 1] for at in range(len(answer))))
    assert bytewise.failed() == opened.failed()


@pytest.mark.parametrize("answer", [OPEN, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"])
def test_who_speaks_before_anybody_has_asked(answer: bytes) -> None:
    opened = Opened()
    opened.says(answer + b"!")
    assert opened.failed() == (
        "upstream_invalid: the proxy squid: bytes behind its answer, before anybody has asked for any"
    )


def test_heads_have_a_bound() -> None:
    opened = Opened(limits=Limits(head_bytes_max=1000))
    for _ in range(10):
        opened.says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 900 if opened.world.sent(opened.conn) else b"x" * 50)
    assert opened.failed() == "upstream_invalid: the proxy squid: the head is larger than 1000 bytes"


def test_interim_answers_have_a_bound() -> None:
    opened = Opened(limits=Limits(interims_max=2))
    opened.says(b"HTTP/1.1 100 Continue\r\n\r\n" * 2)
    assert not opened.is_open()
    opened.says(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert opened.failed() == "upstream_invalid: the proxy squid: more than 2 interim answers"


# ------------------------------------------------------------------------------------------------- how it can fail


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 O", OPEN[:-1]])
def test_a_proxy_that_closes(part: bytes) -> None:
    opened = Opened()
    if part:
        opened.says(part)
    opened.says(b"")
    assert opened.failed() == ("upstream_reset: the proxy squid: the connection was closed before the answer was whole")
    assert opened.error is not None
    assert opened.error.status == REASONS["upstream_reset"].status


def test_a_proxy_that_resets() -> None:
    opened = Opened()
    opened.says(b"HTTP/1.1")
    opened.world.gives(Closed(opened.conn, "reset", "reset by peer"))
    assert opened.failed() == "upstream_reset: the proxy squid: reset by peer"


def test_a_proxy_that_says_nothing() -> None:
    opened = Opened()
    opened.world.wait(2.9)
    assert not opened.is_open()
    opened.world.wait(0.2)
    assert opened.failed() == ("upstream_connect_timeout: the proxy squid opened no way to the endpoint within 3 s")


def test_the_time_is_for_the_whole_answer() -> None:
    opened = Opened()
    for at in range(7):
        opened.says(OPEN[at : at + 1])
        opened.world.wait(0.5)
    assert opened.failed().startswith("upstream_connect_timeout")
    opened = Opened()
    for at in range(5):
        opened.says(OPEN[at : at + 1])
        opened.world.wait(0.5)
    opened.says(OPEN[5:])
    assert opened.is_open()
    opened.world.wait(10)
    assert opened.is_open(), "its time is over with it"


def test_a_proxy_that_takes_nothing_is_too_slow() -> None:
    opened = Opened()
    opened.world.gives(Blocked(opened.conn))
    opened.world.wait(3.1)
    assert opened.failed().startswith("upstream_connect_timeout")


def test_who_gives_up_leaves_the_connection_as_it_was() -> None:
    opened = Opened()
    opened.says(b"HTTP/1.1 2")
    opened.task.cancel()
    opened.world.gives(None)
    assert opened.task.done
    opened.is_as_before()


@given(st.lists(st.integers(0, 200), max_size=6), st.sampled_from([b"", b"!"]))
def test_how_it_is_cut_does_not_matter(cuts: list[int], behind: bytes) -> None:
    whole = b"HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: y\r\n\r\n"
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    pieces = [whole[start:end] for start, end in pairwise(places)]
    pieces[-1] += behind
    opened = Opened()
    for piece in pieces:
        assert not opened.task.done
        opened.world.gives(Received(opened.conn, piece))
    if behind:
        assert opened.failed().startswith("upstream_invalid")
    else:
        assert opened.is_open()
