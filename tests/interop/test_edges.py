"""Less common things that real clients and origins do, through the real program."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee, Curl, Head, Raw, Wire


def respond(answer: bytes) -> Callable[[Wire, Head], bool]:
    """A script that answers so, and goes on."""

    def script(wire: Wire, head: Head) -> bool:
        wire.read_body(head)
        wire.send(answer)
        return True

    return script


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


# ------------------------------------------------------------------------------------------------ messages


def test_repeated_fields_keep_their_order_and_names_their_case(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    raw.on(
        "/", respond(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-oDD: 1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n")
    )
    answer = curl("-H", "X-mY: 1", "-H", "X-mY: 2", "-H", "Cookie: c=3", raw_proxy.url)
    assert answer.head.all("set-cookie") == ["a=1", "b=2"]
    assert ("X-oDD", "1") in answer.head.fields
    asked = raw.asked_for("/")
    assert [field for field in asked.fields if field[0] == "X-mY"] == [("X-mY", "1"), ("X-mY", "2")]
    assert asked.get("cookie") == "c=3"


def test_a_target_goes_on_as_it_was_written(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    target = "/a%2Fb/../%C3%A9;x=1?q=%00&r=a+b&&=?"
    raw.on(target, respond(OK))
    assert curl("--path-as-is", raw_proxy.url + target).status == 200
    assert raw_proxy.record(target)["status"] == 200


def test_a_client_that_takes_coulee_for_a_forward_proxy_is_served(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    raw.on("/path", respond(OK))
    answer = curl("--noproxy", "", "--proxy", raw_proxy.url, "http://other.example:81/path")
    assert (answer.status, answer.body) == (200, b"ok")
    assert raw.asked_for("/path").get("host") == "other.example:81"


def test_options_for_the_whole_server(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    raw.on("*", respond(b"HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n"))
    answer = curl("-X", "OPTIONS", "--request-target", "*", raw_proxy.url)
    assert (answer.status, answer.get("allow")) == (204, "GET")


def test_a_range_of_a_file_from_nginx(nginx_proxy: Coulee, curl: Curl) -> None:
    answer = curl("--range", "2-4", f"{nginx_proxy.url}/etag")
    assert (answer.status, answer.body, answer.get("content-range")) == (206, b"gge", "bytes 2-4/7")


def test_a_get_with_a_body(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    bodies: list[bytes] = []

    def keep(wire: Wire, head: Head) -> bool:
        bodies.append(wire.read_body(head)[0])
        wire.send(OK)
        return True

    raw.on("/", keep)
    assert curl("-X", "GET", "--data-binary", "query", raw_proxy.url).status == 200
    assert bodies == [b"query"]


def test_head_and_get_in_one_write_are_told_apart(raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]) -> None:
    def answer(wire: Wire, head: Head) -> bool:
        body = b"" if head.start.startswith("HEAD") else b"5\r\nhello\r\n0\r\n\r\n"
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        return True

    raw.on("/", answer)
    client = dial(raw_proxy.port)
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
    for _ in range(2):
        assert client.read_head().status == 200
        head = client.read_head()
        assert client.read_body(head)[0] == b"hello"
    assert raw.connections == 1


def test_an_upload_by_a_client_of_http_1_0(raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]) -> None:
    bodies: list[bytes] = []

    def keep(wire: Wire, head: Head) -> bool:
        if head.get("expect"):
            wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        bodies.append(wire.read_body(head)[0])
        wire.send(OK)
        return True

    raw.on("/", keep)
    for extra in (b"", b"Expect: 100-continue\r\n"):
        client = dial(raw_proxy.port)
        client.send(b"POST / HTTP/1.0\r\n%sContent-Length: 200000\r\n\r\n" % extra + b"x" * 200_000)
        assert client.rest().startswith(b"HTTP/1.1 200 OK\r\n")
    assert bodies == [b"x" * 200_000] * 2


# ----------------------------------------------------------------------------------------- bad answers of origins

BAD_ANSWERS = {
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    "a huge head": b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 70_000 + b"\r\n\r\n",
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 200 + b"Content-Length: 0\r\n\r\n",
    "endless interim answers": b"HTTP/1.1 102 Processing\r\n\r\n" * 50 + OK,
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_an_answer_that_breaks_http_is_502_and_its_connection_is_not_used_again(
    kind: str, raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]
) -> None:
    def answer(wire: Wire, head: Head) -> None:
        wire.send(BAD_ANSWERS[kind])
        wire.rest()

    raw.on("/bad", answer)
    raw.on("/good", respond(OK))
    client = dial(raw_proxy.port)
    client.send(b"GET /bad HTTP/1.1\r\nHost: a\r\n\r\n")
    head = client.read_head()
    while head.status < 200:
        head = client.read_head()
    assert head.status == 502
    assert json.loads(client.read_body(head)[0])["error"] == "upstream_invalid"
    client.send(b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.read_head().status == 200
    assert raw.connections == 2


def test_an_answer_that_begins_like_no_http_at_all_is_refused_at_once(
    raw: Raw, dial: Callable[[int], Wire], coulee: Callable[..., Coulee]
) -> None:
    def answer(wire: Wire, head: Head) -> None:
        wire.send(b"<html>hello</html>\n")
        wire.rest()

    raw.on("/", answer)
    proxy = coulee("--to", raw.url, "--grace", "0")
    client = dial(proxy.port)
    client.sock.settimeout(1.5)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    head = client.read_head()
    assert head.status == 502
    assert json.loads(client.read_body(head)[0])["error"] == "upstream_invalid"


def test_bytes_behind_an_answer_are_never_taken_for_the_next(
    raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]
) -> None:
    raw.on("/first", respond(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"))
    raw.on("/second", respond(OK))
    client = dial(raw_proxy.port)
    for path in (b"/first", b"/second"):
        client.send(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        assert client.read_body(client.read_head())[0] == b"ok"
    assert raw.connections == 2


# ------------------------------------------------------------------------------------------ leaving and dying


def test_an_idle_connection_that_the_origin_closes_is_not_used_again(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    closed = threading.Event()

    def answer_and_close(wire: Wire, head: Head) -> None:
        wire.read_body(head)
        wire.send(OK)
        wire.sock.shutdown(socket.SHUT_WR)
        wire.rest()
        closed.set()

    raw.on("/", answer_and_close)
    for _ in range(3):
        closed.clear()
        assert curl("--data-binary", "a POST cannot be sent again", raw_proxy.url).status == 200
        assert closed.wait(10)
    assert [len(record["attempts"]) for record in raw_proxy.records] == [1, 1, 1]


def test_a_clients_fin_ends_its_exchange_where_that_is_wanted(
    coulee: Callable[..., Coulee], raw: Raw, backend: str, dial: Callable[[int], Wire]
) -> None:
    asked, left = threading.Event(), threading.Event()

    def wait(wire: Wire, head: Head) -> None:
        asked.set()
        with contextlib.suppress(ConnectionError):
            wire.rest()
        left.set()

    raw.on("/", wait)
    proxy = coulee(
        "--backend",
        backend,
        app=f"""
from coulee.core import Config, Proxy
from coulee.lb import Cluster

proxy = Proxy(Cluster({raw.url!r}), config=Config(cancel_on_half_close=True))
""",
    )
    client = dial(proxy.port)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert asked.wait(10)
    client.close()
    assert left.wait(10)
    assert proxy.record("/")["reason"] == "client_gone"


def test_an_origin_that_dies_in_the_middle_of_an_upload_is_told(raw: Raw, raw_proxy: Coulee, curl: Curl) -> None:
    def die(wire: Wire, head: Head) -> None:
        wire.read(1_000_000)
        wire.reset()

    raw.on("/", die)
    answer = curl("-H", "Expect:", "--data-binary", "@-", raw_proxy.url, data=b"x" * 20_000_000)
    assert answer.status == 502
    assert b"upstream_reset" in answer.body
    assert len(raw.heads) == 1, "a body that was spent is never sent again"


def test_a_client_that_leaves_in_the_middle_of_its_upload_cuts_the_upload(
    raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]
) -> None:
    seen: list[str] = []
    begun, ended = threading.Event(), threading.Event()

    def read(wire: Wire, head: Head) -> None:
        wire.read(500_000)
        begun.set()
        try:
            wire.read(500_000)
        except (EOFError, OSError) as error:
            seen.append(type(error).__name__)
        ended.set()

    raw.on("/", read)
    client = dial(raw_proxy.port)
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 600_000)
    assert begun.wait(10)
    client.close()
    assert ended.wait(10)
    assert seen in (["EOFError"], ["ConnectionResetError"])
    assert raw_proxy.record("/")["reason"] == "client_gone"


def test_a_client_that_leaves_in_the_middle_of_a_chunked_upload_does_not_end_it(
    raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]
) -> None:
    bodies: list[object] = []
    begun, ended = threading.Event(), threading.Event()

    def read(wire: Wire, head: Head) -> None:
        begun.set()
        try:
            bodies.append(wire.read_body(head))
        except (EOFError, OSError) as error:
            bodies.append(type(error).__name__)
        ended.set()

    raw.on("/", read)
    client = dial(raw_proxy.port)
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    assert begun.wait(10)
    client.close()
    assert ended.wait(10)
    assert bodies in (["EOFError"], ["ConnectionResetError"])


def test_a_client_that_sends_half_a_head_and_leaves_reaches_nobody(
    raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire], curl: Curl
) -> None:
    raw.on("/", respond(OK))
    client = dial(raw_proxy.port)
    client.send(b"GET / HTTP/1.1\r\nHo")
    client.close()
    assert curl(raw_proxy.url).status == 200
    assert len(raw.heads) == 1


# --------------------------------------------------------------------------------------------------- load


def test_a_hundred_requests_at_once_before_nginx(nginx_proxy: Coulee, curl: Curl) -> None:
    urls = [f"{nginx_proxy.url}/n/{number}" for number in range(100)]
    done = curl.run("--parallel", "--parallel-immediate", "--parallel-max", "50", "-w", "%{response_code}\n",
                    *(word for url in urls for word in ("-o", "/dev/null", url)))  # fmt: skip
    assert done.stdout.split() == [b"200"] * 100


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
def test_a_client_that_sends_requests_and_reads_no_answers_is_held_back(
    raw: Raw, raw_proxy: Coulee, dial: Callable[[int], Wire]
) -> None:
    raw.on("/", respond(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + b"x" * 20_000))
    client = dial(raw_proxy.port)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    client.read_body(client.read_head())
    before = raw_proxy.memory_kib("VmRSS")
    client.sock.settimeout(1.0)
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
    sent = 0
    with contextlib.suppress(TimeoutError):
        for sent in range(10_000):  # noqa: B007
            client.send(request)
    assert sent < 9_999, "nobody held it back"
    assert raw_proxy.memory_kib("VmHWM") - before < 20 * 1024


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_more_clients_than_descriptors_wait_and_are_served(raw: Raw, backend: str, dial: Callable[[int], Wire]) -> None:
    raw.on("/", respond(OK))
    program = Path(sys.executable).with_name("coulee")
    command = f'ulimit -n 30; exec "{program}" 127.0.0.1:0 --to {raw.url} --backend {backend}'
    with subprocess.Popen(
        ["bash", "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            port = int(process.stderr.readline().rpartition(":")[2])
            crowd = [dial(port) for _ in range(60)]
            crowd[0].send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            first = crowd[0].rest()
            for client in crowd[1:50]:
                client.close()
            crowd[-1].send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert crowd[-1].rest().startswith(b"HTTP/1.1 200 OK\r\n")
            assert first.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 502 "))
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(15) == 0
            assert "Traceback" not in rest, rest
        finally:
            process.kill()


# -------------------------------------------------------------------------------------------------- its log


def test_coulee_goes_on_when_nobody_reads_its_log_any_more(raw: Raw, backend: str, curl: Curl) -> None:
    raw.on("/", respond(OK))
    program = Path(sys.executable).with_name("coulee")
    with subprocess.Popen(
        [str(program), "127.0.0.1:0", "--to", raw.url, "--backend", backend],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            url = f"http://127.0.0.1:{process.stderr.readline().rpartition(':')[2].strip()}/"
            assert curl(url).status == 200
            assert json.loads(process.stdout.readline())["target"] == "/"
            process.stdout.close()
            for _ in range(3):
                assert curl(url).status == 200
            process.send_signal(signal.SIGTERM)
            assert process.stderr.read() == ""
            assert process.wait(15) == 0
        finally:
            process.kill()


def test_no_request_can_forge_a_line_of_the_log(
    coulee: Callable[..., Coulee], raw: Raw, dial: Callable[[int], Wire]
) -> None:
    proxy = coulee("--log", "short", "--to", raw.url)
    client = dial(proxy.port)
    client.send(b"GET /\x1b[2J\x85\xe2\x80\xa8forged HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.read_head().status == 400
    line = proxy.line("bad_request")
    assert line.isprintable()
    assert len(proxy.lines) == 1
