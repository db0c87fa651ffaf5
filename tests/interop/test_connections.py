"""Connections through the real program: keep-alive and reuse on both sides, pipelining, HTTP/1.0 clients, Unix
sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee, Curl, Head, Nginx, Raw, Wire

PIPELINED = 20


def echo(wire: Wire, head: Head) -> bool:
    """Answer with the method and the body, and go on."""
    body, _ = wire.read_body(head)
    method = head.start.split()[0].encode()
    text = method + b" " + body
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), b"" if method == b"HEAD" else text))
    return True


# --------------------------------------------------------------------------------------------------- reuse


def test_one_connection_on_each_side_serves_many_requests(
    coulee: Callable[..., Coulee], nginx: Nginx, curl: Curl, backend: str
) -> None:
    proxy = coulee("--to", nginx.url, "--backend", backend)
    url = f"{proxy.url}/etag"
    done = curl.run(*["-o", "/dev/null"] * 10, "-w", "%{num_connects} %header{x-connection}\n", *[url] * 10)
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    assert [row[0] for row in rows] == ["1"] + ["0"] * 9
    assert {row[1] for row in rows} == {rows[0][1]}, "the connection to nginx changed"
    assert [row[2] for row in rows] == [str(number) for number in range(1, 11)]
    assert [record["reused"] for record in proxy.records] == [False] + [True] * 9


def test_clients_one_after_the_other_share_an_upstream_connection(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    raw.on("/", echo)
    for method in ("GET", "POST", "HEAD", "DELETE", "GET"):
        assert curl(*(["--head"] if method == "HEAD" else ["-X", method]), raw_proxy.url).status == 200
    assert (len(raw.heads), raw.connections) == (5, 1)


def test_clients_at_once_have_upstream_connections_of_their_own(
    raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]
) -> None:
    def wait(wire: Wire, head: Head) -> bool:
        waiting.append(wire)
        if len(waiting) == 3:
            for each in waiting:
                each.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        return True

    waiting: list[Wire] = []
    raw.on("/", wait)
    clients = [dial(raw_proxy.port) for _ in range(3)]
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [client.read_head().status for client in clients] == [204] * 3
    assert raw.connections == 3


def test_an_origin_that_closes_after_each_answer_is_connected_to_anew(python_10_proxy: Coulee, curl: Curl) -> None:
    url = f"{python_10_proxy.url}/anew"
    done = curl.run(*["-o", "/dev/null"] * 3, "-w", "%{num_connects} %header{x-connection}\n", *[url] * 3)
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    assert [row[0] for row in rows] == ["1", "0", "0"], "the client's connection lives on"
    assert len({row[1] for row in rows}) == 3
    assert {row[2] for row in rows} == {"1"}


def test_a_client_that_asks_for_close_gets_it(raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]) -> None:
    raw.on("/", echo)
    client = dial(raw_proxy.port)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    head = client.read_head()
    assert head.get("connection") == "close"
    assert client.rest() == b"GET "


def test_a_client_that_closes_its_sending_side_is_answered(
    raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]
) -> None:
    raw.on("/", echo)
    client = dial(raw_proxy.port)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    client.sock.shutdown(socket.SHUT_WR)
    assert client.read_body(client.read_head())[0] == b"GET "
    assert client.rest() == b""


def test_a_reused_connection_that_dies_is_replaced_and_the_request_sent_again(
    raw: Raw, raw_proxy: Coulee, curl: Curl
) -> None:
    def die(wire: Wire, head: Head) -> bool:
        if len(raw.heads) == 1:
            return echo(wire, head)
        raw.on("/", echo)
        wire.reset()
        return False

    raw.on("/", die)
    assert curl(raw_proxy.url).status == 200
    assert curl(f"{raw_proxy.url}/").status == 200
    assert (len(raw.heads), raw.connections) == (3, 2)
    attempts = json.loads(raw_proxy.line("upstream_reset"))["attempts"]
    assert [(attempt["reason"], attempt["reused"]) for attempt in attempts] == [("upstream_reset", True), ("", False)]


def test_a_post_on_a_reused_connection_that_dies_is_not_sent_again(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    def die(wire: Wire, head: Head) -> bool:
        if len(raw.heads) == 1:
            return echo(wire, head)
        wire.read_body(head)
        wire.reset()
        return False

    raw.on("/", die)
    assert curl(raw_proxy.url).status == 200
    answer = curl("--data-binary", "pay once", raw_proxy.url)
    assert answer.status == 502
    assert b"upstream_reset" in answer.body
    assert len(raw.heads) == 2


# ---------------------------------------------------------------------------------------------- pipelining


def test_20_pipelined_requests_in_one_write_are_answered_in_order(
    raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]
) -> None:
    requests = []
    for number in range(PIPELINED):
        raw.on(f"/{number}", echo)
        if number % 3 == 2:
            body = b"%x\r\nbody %d\r\n0\r\n\r\n" % (len(b"body %d" % number), number)
            requests.append(b"PUT /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%s" % (number, body))
        else:
            body = b"body %d" % number if number % 3 else b""
            method = b"POST" if body else b"GET"
            length = b"Content-Length: %d\r\n" % len(body) if body else b""
            requests.append(b"%s /%d HTTP/1.1\r\nHost: a\r\n%s\r\n%s" % (method, number, length, body))
    client = dial(raw_proxy.port)
    client.send(b"".join(requests))
    answers = [client.read_body(client.read_head())[0] for _ in requests]
    assert answers == [
        (f"PUT body {number}" if number % 3 == 2 else f"POST body {number}" if number % 3 else "GET ").encode()
        for number in range(PIPELINED)
    ]
    assert [head.start.split()[1] for head in raw.heads] == [f"/{number}" for number in range(PIPELINED)]
    assert raw.connections == 1


def test_20_pipelined_requests_are_answered_in_order_before_nginx(
    nginx_proxy: Coulee, dial: Callable[[int], Wire]
) -> None:
    client = dial(nginx_proxy.port)
    client.send(b"".join(b"GET /n/%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(PIPELINED)))
    said = []
    for _ in range(PIPELINED):
        head = client.read_head()
        client.read_body(head)
        said.append(head.get("x-said"))
    assert said == [f"GET /n/{number}" for number in range(PIPELINED)]


# ------------------------------------------------------------------------------------------------- HTTP/1.0


@pytest.mark.parametrize("path", ["/etag", "/chunked", "/close", "/204"])
def test_a_client_of_http_1_0_never_gets_chunked(
    proxy: Coulee, path: str, curl: Curl, dial: Callable[[int], Wire]
) -> None:
    answer = curl("--http1.0", "--compressed", proxy.url + path)
    assert answer.code == 0
    assert answer.get("transfer-encoding") is None
    expected = {"/chunked": b"chunk by chunk\n" * 1000, "/close": b"until I close\n" * 1000, "/204": b""}
    if path in expected:
        assert answer.body == expected[path]
    client = dial(proxy.port)
    client.send(b"GET %s HTTP/1.0\r\nConnection: keep-alive\r\nAccept-Encoding: gzip\r\n\r\n" % path.encode())
    head = client.read_head()
    assert head.get("transfer-encoding") is None
    length = head.get("content-length")
    if length is None and path != "/204":
        assert head.get("connection") != "keep-alive", "only the end of the connection can end this answer"
        assert client.rest()


def test_a_request_of_http_1_0_without_host_gets_one_on_its_way(
    raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]
) -> None:
    raw.on("/", echo)
    client = dial(raw_proxy.port)
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert client.read_head().status == 200
    assert raw.asked_for("/").start == "GET / HTTP/1.1"
    assert raw.asked_for("/").get("host") == f"127.0.0.1:{raw.port}"


# --------------------------------------------------------------------------------------------- Unix sockets


def test_an_origin_at_a_unix_socket(coulee: Callable[..., Coulee], nginx: Nginx, curl: Curl, backend: str) -> None:
    proxy = coulee("--to", nginx.unix, "--backend", backend)
    answer = curl("--data-binary", "over a path", f"{proxy.url}/x")
    assert (answer.status, answer.get("x-body")) == (200, "over a path")
    assert proxy.record("/x")["peer"] == nginx.unix


def test_a_listener_at_a_unix_socket(coulee: Callable[..., Coulee], nginx: Nginx, curl: Curl, backend: str) -> None:
    with TemporaryDirectory(prefix="coulee-") as folder:
        path = Path(folder, "proxy.sock")
        proxy = coulee("--to", nginx.url, "--backend", backend, listen=f"unix:{path}")
        answer = curl("--unix-socket", str(path), "http://any.example/y")
        assert (answer.status, answer.get("x-said")) == (200, "GET /y")
        assert proxy.end() == 0
        assert not path.exists()


def test_a_unix_socket_that_was_left_behind_is_taken_over(
    coulee: Callable[..., Coulee], nginx: Nginx, curl: Curl, backend: str
) -> None:
    with TemporaryDirectory(prefix="coulee-") as folder:
        path = Path(folder, "proxy.sock")
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        proxy = coulee("--to", nginx.url, "--backend", backend, listen=f"unix:{path}")
        assert curl("--unix-socket", str(path), "http://any.example/y").status == 200
        assert proxy.end() == 0
