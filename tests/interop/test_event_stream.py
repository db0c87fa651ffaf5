"""Server-sent events and long polls through the real program, with curl and httpx: the origin sends its next event only
when the client has seen the one before, so whatever is held back is never seen."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import pytest

from tests.interop.conftest import EVERY_BACKEND, WITHIN_S, Raw, installed, running
from tests.interop.websocket_doors import LONG

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee, Curl, Head, Wire

APP = """
from dataclasses import replace

from coulee.core import Proxy
from coulee.core.event_stream import EventStream
from coulee.lb import Cluster


class Upper(EventStream):
    '''Changes some events, and lets others pass.'''

    async def server_sent_event(self, exchange, event):
        return replace(event, data=event.data.upper()) if event.event == "shout" else None


proxy = Proxy(Cluster({url!r}), [Upper()])
"""

SENT = [b": hello\n", b"id: 1\r\ndata: one\r\n\r\n", b"event: shout\ndata: two\n\n", b": still here\n\n",
        b"retry: 5\n\n", b"data: " + b"x" * 100_000 + b"\n\n", b"event: shout\rdata: \xc3\xa9\r\r"]  # fmt: skip
SEEN = [b": hello\n", b"id: 1\r\ndata: one\r\n\r\n", b"event: shout\ndata: TWO\n\n", b": still here\n\n",
        b"retry: 5\n\n", b"data: " + b"x" * 100_000 + b"\n\n", b"event: shout\ndata: \xc3\x89\n\n"]  # fmt: skip


class Origin:
    """Sends what it is told, when it is told, and notes that nobody is there any more."""

    def __init__(self, raw: Raw) -> None:
        self.next: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.asked = threading.Event()
        self.left = threading.Event()
        self.url = raw.url
        self.raw = raw
        raw.on("/events", self.events)
        raw.on("/unframed", self.unframed)
        raw.on("/quiet", self.quiet)
        raw.on("/poll", self.poll)

    def events(self, wire: Wire, head: Head) -> bool:
        """In chunks; b"" ends them."""
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while piece := self.next.get(timeout=WITHIN_S):
            wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        wire.send(b"0\r\n\r\n")
        return True

    def unframed(self, wire: Wire, head: Head) -> bool:
        """Until it closes."""
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while piece := self.next.get(timeout=WITHIN_S):
            wire.send(piece)
        return False

    def quiet(self, wire: Wire, head: Head) -> bool:
        """One event, and no more."""
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        wire.send(b"9\r\ndata: a\n\n\r\n")
        return self.poll(wire, head)

    def poll(self, wire: Wire, head: Head) -> bool:
        """Nothing at all."""
        self.asked.set()
        with contextlib.suppress(ConnectionError):
            assert wire.more() == b""
        self.left.set()
        return False


@pytest.fixture(scope="module")
def raw() -> Generator[Raw, None, None]:
    """An origin for all tests here."""
    origin = Raw()
    yield origin
    origin.close()


BACKENDS = EVERY_BACKEND if LONG else ["asyncio", "threads"]
"""Two in the short form, which runs with every test run; WEBSOCKET_LONG=1 has all of them (`make websockets`)."""


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


@pytest.fixture(scope="module")
def proxies(backend: str, raw: Raw) -> Generator[dict[str, Coulee], None, None]:
    """coulee with a filter that sees events, and without, on each backend."""
    with (
        running("--backend", backend, app=APP.format(url=raw.url)) as filtered,
        running("--to", raw.url, "--backend", backend) as plain,
    ):
        yield {"filtered": filtered, "plain": plain}


@pytest.fixture
def origin(raw: Raw) -> Origin:
    return Origin(raw)


class Reader:
    """Reads what a program prints, as it comes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.process = process
        self.out = process.stdout

    def read(self, count: int) -> bytes:
        """That many bytes, or what came within the time; b"" at the end."""
        deadline = time.monotonic() + WITHIN_S
        found = b""
        while len(found) < count and select.select([self.out], [], [], max(0, deadline - time.monotonic()))[0]:
            data = os.read(self.out.fileno(), count - len(found))
            if not data:
                break
            found += data
        return found


@contextlib.contextmanager
def curling(curl: Curl, *args: str) -> Generator[Reader, None, None]:
    """curl, unbuffered, while the block lasts."""
    with subprocess.Popen(curl.command("-N", *args), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield Reader(process)
        finally:
            process.kill()


def passes(origin: Origin, read: Callable[[int], bytes], seen: list[bytes]) -> None:
    """Each piece is seen before the next is sent."""
    for piece, wanted in zip(SENT, seen, strict=True):
        origin.next.put(piece)
        assert read(len(wanted)) == wanted
    origin.next.put(b"")
    assert read(1) == b""


@pytest.mark.parametrize(
    ("name", "version", "path"),
    [
        ("filtered", "--http1.1", "/events"),
        ("filtered", "--http1.0", "/events"),
        ("filtered", "--http2-prior-knowledge", "/unframed"),
        ("plain", "--http1.1", "/unframed"),
        ("plain", "--http1.0", "/events"),
        ("plain", "--http2-prior-knowledge", "/events"),
    ],
)
def test_curl_sees_each_event_at_once(
    proxies: dict[str, Coulee], origin: Origin, curl: Curl, name: str, version: str, path: str
) -> None:
    url = proxies[name].url + path
    with curling(curl, version, "-H", "Accept: text/event-stream", "--compressed", url) as reader:
        passes(origin, reader.read, SEEN if name == "filtered" else SENT)
        assert reader.process.wait(WITHIN_S) == 0
    coding = origin.raw.heads[-1].get("accept-encoding")
    assert (coding == "identity") == (name == "filtered")


@pytest.mark.parametrize("http2", [False, True])
def test_httpx_sees_each_event_at_once(proxies: dict[str, Coulee], origin: Origin, http2: bool) -> None:
    httpx = pytest.importorskip("httpx", reason="the package httpx is not installed")
    with (
        httpx.Client(http1=not http2, http2=http2, timeout=WITHIN_S, trust_env=False) as client,
        client.stream("GET", proxies["filtered"].url + "/events", headers={"Accept": "text/event-stream"}) as answer,
    ):
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2" if http2 else "HTTP/1.1")
        pieces = answer.iter_raw()

        def read(count: int) -> bytes:
            found = b""
            while len(found) < count and (piece := next(pieces, b"")):
                found += piece
            return found

        passes(origin, read, SEEN)


@pytest.mark.parametrize("version", ["--http1.1", "--http1.0", "--http2-prior-knowledge"])
def test_a_client_that_is_killed_while_nothing_comes(
    proxies: dict[str, Coulee], origin: Origin, curl: Curl, version: str
) -> None:
    with curling(curl, version, proxies["filtered"].url + "/quiet") as reader:
        assert reader.read(9) == b"data: a\n\n"
        assert not origin.left.is_set()
        reader.process.kill()
        assert origin.left.wait(WITHIN_S), "the origin hears of it at once, not when it sends the next event"


def test_a_client_that_leaves_a_long_poll(
    proxies: dict[str, Coulee], origin: Origin, dial: Callable[[int], Wire]
) -> None:
    wire = dial(proxies["plain"].port)
    wire.send(b"GET /poll HTTP/1.1\r\nHost: a\r\n\r\n")
    assert origin.asked.wait(WITHIN_S)
    wire.reset()
    assert origin.left.wait(WITHIN_S)


@pytest.mark.parametrize(
    ("version", "codes"), [("--http1.1", [18]), ("--http1.0", [56]), ("--http2-prior-knowledge", [18, 92])]
)
def test_the_end_of_the_grace_period_shows_as_a_cut(
    coulee: Callable[..., Coulee], origin: Origin, curl: Curl, version: str, codes: list[int]
) -> None:
    proxy = coulee("--to", origin.url, "--grace", "0.2")
    with curling(curl, version, proxy.url + "/quiet") as reader:
        assert reader.read(9) == b"data: a\n\n"
        proxy.process.send_signal(signal.SIGTERM)
        assert reader.read(1) == b""
        assert reader.process.wait(WITHIN_S) in codes
    assert origin.left.wait(WITHIN_S)
    assert proxy.process.wait(WITHIN_S) == 0
