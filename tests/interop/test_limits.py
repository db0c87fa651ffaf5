"""Limits of clients' connections, on real sockets: who is slow, who sends too much, and who comes too often."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee, Curl, Head, Raw, Wire

APP = """
from coulee.core import Config, Limits, Proxy, Timeouts
from coulee.lb import Cluster

limits = Limits(connections_per_address_max=2, refused_connections_max=2, request_body_bytes_max=100_000)
timeouts = Timeouts(body_rate_window_s=0.5, body_rate_grace_s=0.1)
proxy = Proxy(Cluster({url!r}), config=Config(limits=limits, timeouts=timeouts))
"""
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture
def limited(coulee: Callable[..., Coulee], raw: Raw, backend: str) -> Coulee:
    """coulee with low limits before a scripted origin; JSON log."""
    return coulee("--backend", backend, app=APP.format(url=raw.url))


def answer_at_the_end(wire: Wire, head: Head) -> bool:
    """Read all of the request, then answer."""
    wire.read_body(head)
    wire.send(OK)
    return True


def test_a_byte_of_the_body_now_and_then_is_not_enough(raw: Raw, limited: Coulee, dial: Callable[[int], Wire]) -> None:
    raw.on("/", answer_at_the_end)
    client = dial(limited.port)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
    client.sock.settimeout(0.05)  # the pace, and a look whether an answer has come
    sent = 0
    while sent < 100:
        with contextlib.suppress(TimeoutError):
            client.early = client.sock.recv(65536)
            break
        client.send(b"x")
        sent += 1
    assert 3 <= sent < 100, "it was not ended"
    client.sock.settimeout(10)
    head = client.read_head()
    assert (head.status, head.get("connection")) == (408, "close")
    body, _ = client.read_body(head)
    assert json.loads(body)["error"] == "body_timeout"
    assert client.rest() == b""
    record = limited.record("/")
    assert (record["status"], record["reason"]) == (408, "body_timeout")
    assert record["detail"] == "less than 100 bytes of the body a second"


def test_a_body_that_is_announced_too_large_goes_nowhere(raw: Raw, limited: Coulee, curl: Curl) -> None:
    raw.on("/", answer_at_the_end)
    for size, status in ((100_000, 200), (100_001, 413)):
        assert curl("--data-binary", "@-", limited.url, data=b"x" * size).status == status
    assert limited.line("body_too_large")
    assert len(raw.heads) == 1


def test_a_body_that_becomes_too_large_is_cut(
    raw: Raw, limited: Coulee, curl: Curl, dial: Callable[[int], Wire]
) -> None:
    begun = threading.Event()

    def begin_and_answer(wire: Wire, head: Head) -> bool:
        begun.set()
        return answer_at_the_end(wire, head)

    raw.on("/", begin_and_answer)
    client = dial(limited.port)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert begun.wait(10)
    client.send(b"186a1\r\n" + b"x" * 100_001 + b"\r\n")
    head = client.read_head()
    assert (head.status, head.get("connection")) == (413, "close")
    assert limited.record("/")["reason"] == "body_too_large"
    assert curl(limited.url).status == 200
    assert raw.connections == 2, "a request that was cut takes its connection along"


def test_a_client_with_too_many_connections_is_told_so(raw: Raw, limited: Coulee, dial: Callable[[int], Wire]) -> None:
    raw.on("/", answer_at_the_end)
    clients = [dial(limited.port) for _ in range(2)]
    for client in clients:
        client.send(GET)
        assert client.read_head().status == 200
        client.read(2)
    refused = dial(limited.port)
    refused.send(GET)
    head = refused.read_head()
    assert (head.status, head.get("connection"), head.get("retry-after")) == (503, "close", "1")
    assert head.get("proxy-status") == 'coulee; error=connection_limit_reached; details="too_many_connections"'
    refused.read_body(head)
    assert refused.rest() == b""
    assert limited.line("too_many_connections")
    refused.close()  # it is counted until then
    silent = [dial(limited.port) for _ in range(2)]  # they wait to be refused, and nobody else may
    with contextlib.suppress(ConnectionError):  # which may be before `dial` returns
        assert dial(limited.port).rest() == b"", "it is closed without a word"
    clients[0].close()
    silent[0].close()
    for _ in range(1000):  # until that is noticed
        with contextlib.suppress(ConnectionError, EOFError), contextlib.closing(dial(limited.port)) as again:
            again.send(GET)
            if again.read_head().status == 200:
                break
    else:
        pytest.fail("there was no room again")
