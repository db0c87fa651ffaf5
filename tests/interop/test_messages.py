"""Messages through the real program: methods, framings, statuses without a body, interim answers, Expect, trailers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee, Curl, Head, Raw, Wire

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@pytest.mark.parametrize("method", METHODS)
def test_each_method_reaches_the_origin_and_its_answer_comes_back(proxy: Coulee, curl: Curl, method: str) -> None:
    body = ["--data-binary", "some words"] if method in ("POST", "PUT", "PATCH") else []
    how = ["--head"] if method == "HEAD" else ["--request", method]
    answer = curl(*how, *body, f"{proxy.url}/any/path?q=1")
    assert (answer.code, answer.status) == (0, 200)
    if (said := answer.get("x-said")) is not None:  # nginx
        assert said == f"{method} /any/path?q=1"
        assert (answer.get("x-body") == "some words") == bool(body)
    elif method == "HEAD":
        assert answer.get("content-length") == str(len("HEAD /any/path?q=1 "))
    else:
        assert answer.body == f"{method} /any/path?q=1 {'some words' if body else ''}".encode()
    if method == "HEAD":
        assert answer.body == b""


def test_an_answer_with_content_length_keeps_it(proxy: Coulee, curl: Curl) -> None:
    answer = curl(f"{proxy.url}/etag")
    assert answer.get("content-length") == str(len(answer.body))
    assert answer.get("transfer-encoding") is None
    assert answer.body


@pytest.mark.parametrize("path", ["/chunked", "/close"])
def test_an_answer_that_only_its_end_delimits_arrives_whole(proxy: Coulee, curl: Curl, path: str) -> None:
    answer = curl("--compressed", proxy.url + path)  # nginx chunks what it compresses
    assert (answer.code, answer.status) == (0, 200)
    line = b"chunk by chunk\n" if path == "/chunked" else b"until I close\n"
    assert answer.body == line * 1000
    assert answer.get("transfer-encoding") == "chunked"
    assert answer.get("content-length") is None


def test_204_has_no_body_and_no_length(proxy: Coulee, curl: Curl) -> None:
    answer = curl(f"{proxy.url}/204")
    assert (answer.code, answer.status, answer.body) == (0, 204, b"")
    assert answer.get("content-length") is None
    assert answer.get("transfer-encoding") is None


def test_304_has_no_body_and_its_connection_serves_on(proxy: Coulee, curl: Curl) -> None:
    tag = curl(f"{proxy.url}/etag").get("etag")
    assert tag is not None
    url = f"{proxy.url}/etag"
    answer = curl("-H", f"If-None-Match: {tag}", url)
    assert (answer.code, answer.status, answer.body) == (0, 304, b"")
    assert answer.get("etag") == tag
    twice = curl.run("-o", "/dev/null", "-o", "/dev/null", "-H", f"If-None-Match: {tag}",
                     "-w", "%{response_code} %{num_connects}\n", url, url)  # fmt: skip
    assert twice.stdout == b"304 1\n304 0\n"


def test_hop_by_hop_fields_stay_on_their_hop_and_the_client_is_named(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    raw.on("/", respond(b"HTTP/1.1 200 OK\r\nConnection: x-mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n"
                        b"X-Kept: yes\r\nContent-Length: 2\r\n\r\nhi"))  # fmt: skip
    answer = curl("-H", "Connection: x-secret", "-H", "X-Secret: 1", "-H", "X-Forwarded-For: 6.6.6.6", raw_proxy.url)
    asked = raw.asked_for("/")
    assert asked.get("x-secret") is None
    assert asked.get("x-forwarded-for") == "127.0.0.1"
    assert asked.get("host") == f"127.0.0.1:{raw_proxy.port}"
    assert [answer.get(name) for name in ("x-mine", "keep-alive", "x-kept")] == [None, None, "yes"]


# ---------------------------------------------------------------------------------------------- interim answers

EARLY_HINTS = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </script.js>; rel=preload\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
)


def test_103_is_passed_on_to_a_client_of_http_1_1(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    raw.on("/", respond(EARLY_HINTS))
    answer = curl(raw_proxy.url)
    assert [head.status for head in answer.interims] == [103, 103]
    assert answer.interims[1].get("link") == "</script.js>; rel=preload"
    assert (answer.status, answer.body) == (200, b"hello")


def test_103_is_not_passed_on_to_a_client_of_http_1_0(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    raw.on("/", respond(EARLY_HINTS))
    answer = curl("--http1.0", raw_proxy.url)
    assert answer.interims == []
    assert (answer.status, answer.body) == (200, b"hello")


@pytest.mark.parametrize("proxy", ["nginx_proxy", "python_11_proxy"], indirect=True)
def test_a_body_announced_with_expect_is_asked_for_and_sent(proxy: Coulee, curl: Curl) -> None:
    answer = curl("-H", "Expect: 100-continue", "--expect100-timeout", "60", "--data-binary", "@-",
                  f"{proxy.url}/sink", data=b"x" * 200_000)  # fmt: skip
    assert [head.status for head in answer.interims] == [100]  # or curl would have waited for a minute
    assert (answer.code, answer.status) == (0, 200)


@pytest.mark.parametrize("status", [413, 417])
def test_a_refusal_instead_of_100_reaches_the_client_which_sends_no_body(
    raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire], status: int
) -> None:
    body: list[bytes] = []

    def refuse(wire: Wire, head: Head) -> None:
        assert head.get("expect") == "100-continue"
        wire.send(b"HTTP/1.1 %d Refused\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n" % status)
        body.append(wire.rest())

    raw.on("/", refuse)
    client = dial(raw_proxy.port)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
    answer = client.read_head()
    assert answer.status == status
    assert client.read_body(answer)[0] == b"no\n"
    assert answer.get("connection") == "close"  # nobody knows whether the body comes now
    assert client.rest() == b""
    raw_proxy.record("/")
    assert b"".join(body) == b""


def test_curl_is_told_of_a_refusal_by_nginx_before_it_sends_a_byte(nginx_proxy: Coulee, curl: Curl) -> None:
    answer = curl("-H", "Expect: 100-continue", "--expect100-timeout", "60", "-w", "%{stderr}%{size_upload}",
                  "--data-binary", "@-", f"{nginx_proxy.url}/big", data=b"x" * 200_000)  # fmt: skip
    assert (answer.status, answer.interims) == (413, [])
    assert answer.errors == "0"


def test_an_unknown_expectation_is_refused_by_coulee(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    answer = curl("-H", "Expect: a-miracle", raw_proxy.url)
    assert answer.status == 417
    assert b"expectation_failed" in answer.body
    assert raw.heads == []


def test_an_early_answer_reaches_a_client_that_is_still_sending(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    def refuse(wire: Wire, head: Head) -> None:
        wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")
        wire.sock.shutdown(socket.SHUT_WR)
        while wire.more():
            pass

    raw.on("/", refuse)
    answer = curl("-H", "Expect:", "--data-binary", "@-", raw_proxy.url, data=b"x" * 5_000_000)
    assert (answer.status, answer.body) == (413, b"no\n")


def test_an_early_answer_of_an_origin_that_then_resets_is_an_answer_too(
    raw: Raw, raw_proxy: Coulee, curl: Curl
) -> None:
    def refuse(wire: Wire, head: Head) -> None:
        wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")

    raw.on("/", refuse)  # and closes with bytes unread, so its answer may be lost on the way
    answer = curl("-H", "Expect:", "--data-binary", "@-", raw_proxy.url, data=b"x" * 5_000_000)
    assert answer.status in (413, 502)
    assert answer.body == b"no\n" or b"upstream_reset" in answer.body


# --------------------------------------------------------------------------------------------- request bodies


def test_a_chunked_upload_is_chunked_to_the_origin_too(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    bodies: list[bytes] = []
    raw.on("/", keeping(bodies))
    body = b"0123456789abcdef" * 20_000
    answer = curl("-H", "Transfer-Encoding: chunked", "-H", "Expect:", "-T", "-", raw_proxy.url, data=body)
    assert (answer.code, answer.status) == (0, 200)
    assert bodies == [body]
    assert raw.asked_for("/").get("transfer-encoding") == "chunked"
    assert raw.asked_for("/").get("content-length") is None


def test_a_chunked_upload_is_accepted_by_nginx(nginx_proxy: Coulee, curl: Curl) -> None:
    answer = curl("-X", "POST", "-H", "Transfer-Encoding: chunked", "--data-binary", "three words here",
                  f"{nginx_proxy.url}/form")  # fmt: skip
    assert (answer.status, answer.get("x-body")) == (200, "three words here")


def test_an_upload_with_a_length_keeps_it(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    bodies: list[bytes] = []
    raw.on("/", keeping(bodies))
    curl("-H", "Expect:", "--data-binary", "@-", raw_proxy.url, data=b"y" * 300_000)
    assert raw.asked_for("/").all("content-length") == ["300000"]
    assert raw.asked_for("/").get("transfer-encoding") is None
    assert bodies == [b"y" * 300_000]


# ------------------------------------------------------------------------------------------------- trailers


def test_trailers_of_an_answer_reach_the_client(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    raw.on("/", respond(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                        b"5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n"))  # fmt: skip
    answer = curl(raw_proxy.url)
    assert answer.body == b"hello"
    assert answer.trailers == [("X-Sum", "42")]


def test_trailers_of_a_request_reach_the_origin(raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]) -> None:
    seen: list[tuple[bytes, list[tuple[str, str]]]] = []

    def take(wire: Wire, head: Head) -> bool:
        seen.append(wire.read_body(head))
        wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        return True

    raw.on("/", take)
    client = dial(raw_proxy.port)
    for split in (False, True):
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n")
        if split:
            client.send(b"0\r\n")
        client.send((b"" if split else b"0\r\n") + b"X-Sum: 42\r\n\r\n")
        assert client.read_head().status == 204
    assert seen == [(b"hello", [("X-Sum", "42")])] * 2


def respond(answer: bytes) -> Callable[[Wire, Head], bool]:
    """A script that answers so, and goes on."""

    def script(wire: Wire, head: Head) -> bool:
        wire.read_body(head)
        wire.send(answer)
        return True

    return script


def keeping(bodies: list[bytes]) -> Callable[[Wire, Head], bool]:
    """A script that keeps the bodies of its requests."""

    def script(wire: Wire, head: Head) -> bool:
        if head.get("expect") is not None:
            wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        bodies.append(wire.read_body(head)[0])
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return True

    return script
