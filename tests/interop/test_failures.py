"""What a user sees when an origin fails: the status, and one reason word in the answer, in Proxy-Status and in the
access line. A client never sees an empty reply."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee, Curl, Head, Raw, Wire

LIMIT_S = 0.4

IMPATIENT = """
from coulee.core import Config, Proxy, Timeouts
from coulee.lb import Cluster

timeouts = Timeouts(connect_timeout_s={limit}, answer_timeout_s={limit}, upstream_idle_timeout_s={limit})
proxy = Proxy(Cluster({url!r}), config=Config(timeouts=timeouts))
"""


def reset(wire: Wire, head: Head) -> None:
    """Reset the connection instead of an answer."""
    wire.reset()


def close(wire: Wire, head: Head) -> None:
    """Close the connection instead of an answer."""


def silent(wire: Wire, head: Head) -> None:
    """Say nothing, for as long as the other side stays."""
    wire.rest()


def garbage(wire: Wire, head: Head) -> None:
    """Speak another protocol."""
    wire.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    wire.rest()


def cut_head(wire: Wire, head: Head) -> None:
    """Close in the middle of the head."""
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Le")


def too_slow(wire: Wire, head: Head) -> None:
    """Send the head byte by byte, in ten times the time that it may take."""
    slowly = threading.Event()
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":
        wire.send(bytes([byte]))
        slowly.wait(LIMIT_S / 4)


def fine(wire: Wire, head: Head) -> bool:
    """Answer, and go on."""
    wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    return True


FAILURES = {
    "reset": (reset, 502, "upstream_reset", "connection_terminated"),
    "close": (close, 502, "upstream_reset", "connection_terminated"),
    "cut-head": (cut_head, 502, "upstream_reset", "connection_terminated"),
    "silent": (silent, 504, "upstream_timeout", "http_response_timeout"),
    "garbage": (garbage, 502, "upstream_invalid", "http_protocol_error"),
    "too-slow": (too_slow, 504, "upstream_timeout", "http_response_timeout"),
}


@pytest.fixture
def impatient(coulee: Callable[..., Coulee], raw: Raw, backend: str) -> Coulee:
    """coulee with short time limits before a scripted origin; JSON log."""
    return coulee("--backend", backend, app=IMPATIENT.format(limit=LIMIT_S, url=raw.url))


@pytest.fixture
def dead_port() -> Generator[int, None, None]:
    """A port where nobody listens, and nobody else will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        yield port


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_origin_is_told_in_the_answer_and_in_the_log(
    failure: str, impatient: Coulee, raw: Raw, curl: Curl
) -> None:
    script, status, word, proxy_error = FAILURES[failure]
    raw.on("/api", script)
    raw.on("/page", script)
    answer = curl(f"{impatient.url}/api")
    assert (answer.code, answer.status) == (0, status)
    assert answer.get("content-type") == "application/json"
    said = json.loads(answer.body)
    assert (said["error"], said["status"]) == (word, status)
    assert answer.get("proxy-status") == f'coulee; error={proxy_error}; details="{word}"'
    record = impatient.record("/api")
    assert (record["status"], record["reason"], record["peer"]) == (status, word, f"127.0.0.1:{raw.port}")
    assert record["detail"]
    page = curl("-H", "Accept: text/html,application/xhtml+xml,*/*;q=0.8", f"{impatient.url}/page")
    assert page.status == status
    assert (page.get("content-type") or "").startswith("text/html")
    assert page.body.startswith(b"<!doctype html>")
    assert word.encode() in page.body
    assert word in (page.get("proxy-status") or "")


def test_a_refused_connection_is_told_everywhere(
    coulee: Callable[..., Coulee], dead_port: int, backend: str, curl: Curl
) -> None:
    proxy = coulee("--backend", backend, "--to", f"http://127.0.0.1:{dead_port}")
    answer = curl(f"{proxy.url}/api")
    assert (answer.code, answer.status) == (0, 502)
    assert json.loads(answer.body)["error"] == "upstream_refused"
    assert answer.get("proxy-status") == 'coulee; error=connection_refused; details="upstream_refused"'
    record = proxy.record("/api")
    assert (record["status"], record["reason"]) == (502, "upstream_refused")
    assert b"upstream_refused" in curl("-H", "Accept: text/html", f"{proxy.url}/page").body
    head = curl("--head", proxy.url)
    assert (head.code, head.status, head.body) == (0, 502, b"")
    assert curl("--http1.0", proxy.url).status == 502
    assert curl("--data-binary", "@-", proxy.url, data=b"z" * 100_000).status == 502


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops what a full backlog does not take")
def test_an_origin_that_accepts_nobody_is_a_gateway_timeout(
    coulee: Callable[..., Coulee], backend: str, curl: Curl
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        crowd = []
        try:
            for _ in range(8):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(address)
                crowd.append(one)
            proxy = coulee(
                "--backend", backend, app=IMPATIENT.format(limit=LIMIT_S, url=f"http://127.0.0.1:{address[1]}")
            )
            answer = curl(f"{proxy.url}/")
        finally:
            for one in crowd:
                one.close()
    assert answer.status == 504
    assert json.loads(answer.body)["error"] == "upstream_connect_timeout"
    assert proxy.record("/")["reason"] == "upstream_connect_timeout"


@pytest.mark.parametrize("failure", ["reset", "silent", "garbage"])
def test_the_short_log_has_the_reason_too(failure: str, coulee: Callable[..., Coulee], raw: Raw, curl: Curl) -> None:
    script, status, word, _ = FAILURES[failure]
    proxy = coulee("--log", "short", app=IMPATIENT.format(limit=LIMIT_S, url=raw.url))
    raw.on("/a", script)
    assert curl(f"{proxy.url}/a").status == status
    line = proxy.line(f"[{word}")
    assert f"GET /a {status} " in line
    assert f"127.0.0.1:{raw.port}" in line


def test_the_short_log_shows_fail_over(coulee: Callable[..., Coulee], dead_port: int, raw: Raw, curl: Curl) -> None:
    raw.on("/a", fine)
    proxy = coulee("--log", "short", "--to", f"http://127.0.0.1:{dead_port}", "--to", raw.url)
    assert curl(f"{proxy.url}/a").status == 204
    assert "retry: upstream_refused" in proxy.line("GET /a 204")


# ---------------------------------------------------------------------------- after the answer has begun


def test_an_answer_that_breaks_off_is_a_visible_cut(impatient: Coulee, raw: Raw, curl: Curl) -> None:
    def half(wire: Wire, head: Head) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")

    def half_chunk(wire: Wire, head: Head) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")

    raw.on("/length", half)
    raw.on("/chunked", half_chunk)
    for path in ("/length", "/chunked"):
        answer = curl(impatient.url + path)
        assert answer.status == 200
        assert answer.code in (18, 56), "curl must know that it is not whole"
        record = impatient.record(path)
        assert (record["status"], record["reason"], record["bytes_out"]) == (200, "upstream_reset", 5)


def test_an_answer_that_stops_in_the_middle_is_cut_after_the_limit(impatient: Coulee, raw: Raw, curl: Curl) -> None:
    def stop(wire: Wire, head: Head) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        wire.rest()

    raw.on("/", stop)
    began = time.monotonic()
    answer = curl(f"{impatient.url}/")
    assert time.monotonic() - began < 10 * LIMIT_S + 2
    assert (answer.status, answer.code in (18, 56)) == (200, True)
    assert impatient.record("/")["reason"] == "upstream_timeout"


def test_a_client_that_leaves_closes_the_upstream_connection(
    raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]
) -> None:
    asked, left = threading.Event(), threading.Event()

    def wait(wire: Wire, head: Head) -> None:
        asked.set()
        wire.rest()
        left.set()

    def waits(wire: Wire, head: Head) -> None:
        try:
            wait(wire, head)
        except ConnectionResetError:
            left.set()

    raw.on("/", waits)
    client = dial(raw_proxy.port)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert asked.wait(10)
    client.reset()
    assert left.wait(10)
    record = raw_proxy.record("/")
    assert (record["status"], record["reason"]) == (0, "client_gone")


# ----------------------------------------------------------------------------------------- bad requests

BAD = {
    "no-protocol": (b"hello\r\n\r\n", 400),
    "no-host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two-lengths": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "length-and-chunked": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "huge-head": (b"GET / HTTP/1.1\r\nHost: a\r\nX-Big: " + b"x" * 40_000 + b"\r\n\r\n", 431),
    "connect": (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
    "version": (b"GET / HTTP/3.7\r\nHost: a\r\n\r\n", 505),
    "coding": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_request_is_answered_logged_and_kept_from_the_origin(
    kind: str, raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]
) -> None:
    data, status = BAD[kind]
    client = dial(raw_proxy.port)
    client.send(data)
    head = client.read_head()
    assert head.status == status
    assert (head.get("proxy-status") or "").startswith("coulee; error=http_request_")
    body, _ = client.read_body(head)
    word = json.loads(body)["error"]
    assert word in raw_proxy.line(word)
    assert client.rest() == b""
    assert raw.heads == []


def test_a_filter_that_raises_gives_500_and_the_proxy_goes_on(
    coulee: Callable[..., Coulee], raw: Raw, backend: str, curl: Curl
) -> None:
    app = f"""
from coulee.core import Proxy
from coulee.lb import Cluster

proxy = Proxy(Cluster({raw.url!r}))


@proxy.on("request_filter")
def fail(exchange):
    if exchange.request.path == "/bad":
        raise LookupError("no such luck")
"""
    raw.on("/good", fine)
    proxy = coulee("--backend", backend, app=app, traceback=True)
    bad = curl(f"{proxy.url}/bad")
    assert bad.status == 500
    assert json.loads(bad.body)["error"] == "filter_error"
    assert b"luck" not in bad.body
    assert curl(f"{proxy.url}/good").status == 204
    assert proxy.said.count("LookupError: no such luck") == 2  # the line that says so, and the traceback's last
    assert proxy.record("/bad")["reason"] == "filter_error"
