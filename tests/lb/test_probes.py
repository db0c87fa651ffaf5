"""The probes as packet traces: what each sends, what it makes of the answers, and that it leaves nothing behind."""

from __future__ import annotations

import re
from typing import Any

import pytest

from coulee.core.kernel import Task
from coulee.core.proxy_protocol import read_header
from coulee.core.seam import Closed, Send, UpstreamTls
from coulee.core.transport import Transport
from coulee.lb.checks import cause_of
from coulee.lb.endpoint import Endpoint
from coulee.lb.health import Probe
from coulee.lb.probes import BODY_BYTES_MAX, SEARCHED_BYTES_MAX, Grpc, Http, Tcp, TlsHello
from tests.lb.bench import Bench
from tests.lb.test_grpc_health import OK, SERVING, Server
from tests.lb.test_tls_hello import SERVER_HELLO, WARNING, extensions_of

HTTP_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Check:
    """One check of one endpoint."""

    def __init__(self, probe: Probe, endpoint: Endpoint | None = None) -> None:
        self.bench = Bench()
        self.world = self.bench.world

        async def body() -> None:
            await probe(endpoint or Endpoint("http://10.0.0.1:9000"))

        self.task: Task = self.bench.runs(body())
        self.address = self.world.connecting[0].address if self.world.connecting else None
        self.conn = 0

    def connect(self) -> Check:
        """The connection stands."""
        self.conn = self.world.connects()
        return self

    def receive(self, *pieces: bytes) -> Check:
        """The endpoint sends."""
        for piece in pieces:
            self.world.receives(self.conn, piece)
        return self

    @property
    def sent(self) -> bytes:
        """What was sent since the last look."""
        return self.world.sent(self.conn)

    @property
    def cause(self) -> str:
        """What the check, which is over, came to."""
        assert self.task.done, "it waits"
        assert self.bench.left == {}
        assert not self.world.connecting
        return "" if self.task.error is None else cause_of(self.task.error)


PROBES: list[Any] = [Tcp(), TlsHello(), Http(), Grpc()]


@pytest.mark.parametrize("probe", PROBES)
def test_an_endpoint_that_refuses_is_not_healthy(probe: Probe) -> None:
    check = Check(probe)
    assert check.address == ("10.0.0.1", 9000)
    check.world.refuses()
    assert check.cause == "upstream_refused: connection refused"


@pytest.mark.parametrize("probe", PROBES)
def test_a_connection_that_does_not_stand_in_three_seconds_is_given_up(probe: Probe) -> None:
    check = Check(probe)
    check.bench.wait(2.9)
    assert not check.task.done
    check.bench.wait(0.2)
    assert check.cause == "upstream_connect_timeout: not connected within 3 s"


@pytest.mark.parametrize("probe", PROBES)
def test_a_check_may_be_cancelled_before_its_connection_stands(probe: Probe) -> None:
    check = Check(probe)
    check.bench.does(check.task.cancel)
    assert check.cause == "Cancelled"


@pytest.mark.parametrize("probe", PROBES[1:])
def test_a_check_that_is_cancelled_resets_its_connection(probe: Probe) -> None:
    check = Check(probe).connect()
    assert check.sent
    check.bench.does(check.task.cancel)
    assert check.cause == "Cancelled"
    assert check.world.closing == {check.conn: True}


@pytest.mark.parametrize("probe", PROBES[1:])
def test_a_connection_that_breaks_is_not_healthy(probe: Probe) -> None:
    check = Check(probe).connect()
    check.world.resets(check.conn)
    assert check.cause == "upstream_reset: the connection was closed"


@pytest.mark.parametrize("kind", [Tcp, TlsHello, Http, Grpc])
def test_another_port_of_the_same_host_may_be_checked(kind: Any) -> None:
    assert Check(kind(port=9001)).address == ("10.0.0.1", 9001)
    check = Check(kind(port=9001), Endpoint("unix:/run/a.sock"))
    assert check.address is None
    assert check.cause == "unix:/run/a.sock is a Unix socket, which has no port 9001"
    assert Check(kind(), Endpoint("unix:/run/a.sock")).address == "/run/a.sock"


@pytest.mark.parametrize("port", [0, -1, 65536])
@pytest.mark.parametrize("kind", [Tcp, TlsHello, Http, Grpc])
def test_a_port_that_is_none_is_refused(kind: Any, port: int) -> None:
    with pytest.raises(ValueError, match=f"^port is {port}; it must be from 1 to 65535"):
        kind(port=port)


# ----------------------------------------------------------------------------------------------------- tcp


def test_tcp_is_content_with_a_connection_and_closes_it() -> None:
    check = Check(Tcp()).connect()
    assert check.cause == ""
    assert check.sent == b""
    assert check.world.closing == {check.conn: False}


# ----------------------------------------------------------------------------------------------------- tls


def test_tls_is_content_with_a_server_hello() -> None:
    check = Check(TlsHello(server_name="a.example")).connect()
    assert extensions_of(check.sent)[0].endswith(b"a.example")
    check.receive(WARNING + SERVER_HELLO[:3])
    assert not check.task.done
    check.receive(SERVER_HELLO[3:])
    assert check.cause == ""
    assert check.world.closing == {check.conn: False}


@pytest.mark.parametrize(
    ("pieces", "cause"),
    [
        ([b""], "closed without an answer"),
        ([b"\x16\3", b""], "not TLS: \\x16\\x03"),
        ([b"HTTP/1.1 400 Bad Request\r\n"], "not TLS: HTTP/1.1 400 Bad Request"),
        ([b"\x15\3\1\0\2", b"\2\x28"], "TLS alert: handshake_failure (40)"),
    ],
)
def test_tls_wants_nothing_else(pieces: list[bytes], cause: str) -> None:
    assert Check(TlsHello()).connect().receive(*pieces).cause == cause


@pytest.mark.parametrize("name", ["a b", "ä.example", "10.0.0.1", "a\r\n", "-a", "a" * 254, "[::1]", "a."])
def test_a_server_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^server_name is .*; it must be a host name in ASCII, as example\.com$"):
        TlsHello(server_name=name)


# ---------------------------------------------------------------------------------------------------- http


def test_http_asks_and_is_content_with_a_good_status() -> None:
    check = Check(Http(path="/health?full=1", headers={"X-Check": "1"})).connect()
    assert check.sent == (
        b"GET /health?full=1 HTTP/1.1\r\nHost: 10.0.0.1:9000\r\nX-Check: 1\r\nUser-Agent: coulee-check\r\n\r\n"
    )
    assert check.receive(HTTP_OK).cause == ""
    assert check.world.closed == [check.conn]


def test_http_says_what_it_is_told_to() -> None:
    check = Check(Http(method="HEAD", host="www.example", headers={"user-agent": "me"})).connect()
    assert check.sent == b"HEAD / HTTP/1.1\r\nHost: www.example\r\nuser-agent: me\r\n\r\n"
    assert check.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").cause == ""


def test_each_check_asks_anew() -> None:
    probe = Http(headers={"X": "1"})
    for _ in range(2):
        assert Check(probe).connect().sent.count(b"X: 1") == 1
    bench = Bench()
    for _ in range(2):
        bench.runs(probe_once(probe))
        conn = bench.world.connects()
        bench.world.receives(conn, HTTP_OK)
        assert bench.left == {}
    assert bench.world.closed == [1, 2]


async def probe_once(probe: Probe) -> None:
    """A check of an endpoint."""
    await probe(Endpoint("http://10.0.0.1:9000"))


@pytest.mark.parametrize(
    ("statuses", "good", "bad"),
    [
        ((range(200, 400),), (200, 204, 302, 399), (400, 404, 500, 503)),
        ((200, 204), (200, 204), (201, 301)),
        (range(200, 300), (200, 299), (300,)),
        ((range(200, 300), 401), (200, 401), (400, 403)),
        (lambda status: status != 503, (200, 500), (503,)),
    ],
)
def test_http_looks_at_the_status(statuses: Any, good: tuple[int, ...], bad: tuple[int, ...]) -> None:
    for status in good + bad:
        check = Check(Http(statuses=statuses)).connect()
        check.receive(b"HTTP/1.1 %d Whatever\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n" % status)
        assert check.cause == ("" if status in good else f"status {status}")


def test_http_without_more_is_content_with_200_to_399() -> None:
    assert Http().statuses == (range(200, 400),)


@pytest.mark.parametrize("body", ["grün", "grün".encode()])
def test_http_looks_into_the_body(body: str | bytes) -> None:
    answer = "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}"
    for text, good in (("all is grün.", True), ("all is red.", False), ("", False)):
        check = Check(Http(body=body)).connect()
        check.receive(answer.format(len(text.encode()), text).encode())
        assert check.cause == ("" if good else f"status 200, without {body!r} in its body")


def test_http_looks_into_the_beginning_of_a_long_body_only() -> None:
    for before, good in ((SEARCHED_BYTES_MAX - 2, True), (SEARCHED_BYTES_MAX - 1, False)):
        body = b"a" * before + b"ok"
        check = Check(Http(body="ok")).connect()
        check.receive(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)
        assert (check.cause == "") == good


def test_http_reads_no_more_than_it_may() -> None:
    check = Check(Http()).connect()
    check.receive(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1), bytes(BODY_BYTES_MAX + 1))
    assert check.cause == f"upstream_invalid: the answer to a sub-request is over {BODY_BYTES_MAX} bytes"


def test_http_wants_http() -> None:
    check = Check(Http()).connect().receive(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    assert check.cause.startswith("upstream_invalid: ")


def test_http_takes_no_connection_from_exchanges_and_waits_for_none() -> None:
    check = Check(Http())
    endpoint = Endpoint("http://10.0.0.1:9000")
    assert [key for key in check.bench.pool.desks if key == endpoint.key] == []
    assert len(check.bench.pool.desks) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "GE T"}, "method is 'GE T'; it must be one of HTTP, as GET or HEAD"),
        ({"method": "GÄT"}, "method is 'GÄT'; it must be one of HTTP, as GET or HEAD"),
        ({"path": "health"}, "path is 'health'; it must be a path in ASCII without spaces, as /health?full=1"),
        ({"path": "/a b"}, "path is '/a b'; it must be a path in ASCII without spaces, as /health?full=1"),
        ({"path": "/\r\nX: 1"}, "path is '/\\r\\nX: 1'; it must be a path in ASCII without spaces, as /health?full=1"),
        ({"host": "a b"}, "host is 'a b'; it must be a host and perhaps a port in ASCII, as example.com"),
        ({"statuses": ()}, "statuses is empty, so no answer would be good; leave it out for 200 to 399"),
        ({"body": ""}, "body is ''; it must be a part of a body that an answer to GET has"),
        ({"body": "a", "method": "HEAD"}, "body is 'a'; it must be a part of a body that an answer to HEAD has"),
        ({"headers": {"a b": "c"}}, "'a b' is no field name: use letters, digits and !#$%&'*+-.^_`|~"),
        ({"headers": {"Host": "c"}}, "headers: Host is not for you to say; for the host there is `host`"),
        ({"headers": {"te": "", "content-length": "1"}},
         "headers: content-length is not for you to say; for the host there is `host`"),
    ],
)  # fmt: skip
def test_http_that_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Http(**settings)


def test_an_asterisk_may_be_asked_for() -> None:
    assert Check(Http(method="OPTIONS", path="*")).connect().sent.startswith(b"OPTIONS * HTTP/1.1\r\n")


# ---------------------------------------------------------------------------------------------------- grpc


class GrpcOrigin(Server):
    """The endpoint's side of a check."""

    def __init__(self, check: Check) -> None:
        self.check = check
        super().__init__(check)  # type: ignore[arg-type]

    def hear(self) -> None:
        self.call = self  # type: ignore[assignment]
        super().hear()

    def to_send(self) -> bytes:
        """What the check has sent."""
        return self.check.sent


def test_grpc_is_content_with_serving() -> None:
    check = Check(Grpc(service="acme.Billing", authority="b.example")).connect()
    origin = GrpcOrigin(check)
    assert origin.request[":authority"] == "b.example"
    assert b"acme.Billing" in origin.body
    origin.conn.ping(b"12345678")
    check.receive(origin.conn.data_to_send())
    assert b"12345678" in check.sent
    check.receive(origin.answer())
    assert check.cause == ""
    assert check.world.closing == {check.conn: False}


def test_grpc_names_the_endpoint_and_sends_nothing_that_nobody_asked_for() -> None:
    check = Check(Grpc()).connect()
    origin = GrpcOrigin(check)
    assert origin.request[":authority"] == "10.0.0.1:9000"
    assert origin.body == bytes(5)
    answer = origin.answer()
    check.receive(answer[:3])
    assert check.sent == b""
    check.receive(answer[3:])
    assert check.cause == ""
    assert all(each.data for each in check.world.operations if isinstance(each, Send))


def test_grpc_says_https_where_the_endpoint_has_tls() -> None:
    tls = UpstreamTls(alpn=("h2",))
    check = Check(Grpc(), Endpoint("https://a.test", transport=Transport(tls=tls))).connect()
    assert check.world.secures().tls == tls.for_host("a.test")
    origin = GrpcOrigin(check)
    assert (origin.request[":scheme"], origin.request[":authority"]) == ("https", "a.test")


def test_grpc_wants_nothing_else() -> None:
    check = Check(Grpc()).connect()
    assert check.receive(GrpcOrigin(check).answer(OK, SERVING[:-1] + b"\2")).cause == "NOT_SERVING"
    assert Check(Grpc()).connect().receive(b"").cause == "closed without an answer"
    assert Check(Grpc()).connect().receive(b"HTTP/1.1 400 x\r\n").cause == "not HTTP/2: HTTP/1.1 400 x"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"service": "a" * 1025}, "service is longer than 1024 bytes; it must be a name, as acme.Billing"),
        ({"authority": "a b"}, "authority is 'a b'; it must be a host and perhaps a port in ASCII"),
    ],
)
def test_grpc_that_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Grpc(**settings)


def test_a_probe_bears_that_its_connection_is_gone_when_it_closes_it() -> None:
    check = Check(TlsHello()).connect()
    check.world.holds_closes = True
    check.receive(SERVER_HELLO)
    assert check.task.done
    check.world.gives(Closed(check.conn))
    assert check.cause == ""


def test_a_check_of_an_endpoint_of_https_is_done_with_tls() -> None:
    check = Check(Tcp(), Endpoint("https://a.test")).connect()
    assert not check.task.done
    assert check.world.secures().tls == UpstreamTls().for_host("a.test")
    assert check.cause == ""


def test_a_check_with_a_hello_of_its_own_speaks_tls_itself() -> None:
    check = Check(TlsHello(), Endpoint("https://a.test")).connect()
    assert not check.world.securing
    assert check.sent.startswith(b"\x16\x03\x01")


def test_a_check_says_that_it_speaks_for_nobody_where_somebody_has_to_be_named() -> None:
    endpoint = Endpoint("http://10.0.0.1", transport=Transport(proxy_protocol=2))
    check = Check(Http(), endpoint).connect()
    found = read_header(sent := check.sent)
    assert found is not None
    header, length = found
    assert header.source is None
    assert sent[length:].startswith(b"GET / ")
    check.receive(HTTP_OK)
    assert check.cause == ""
