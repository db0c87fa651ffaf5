"""Bodies of 1 GiB through the real program: they arrive as they were sent, and coulee's memory does not grow with them,
whoever is slow. Each block of the data is made as it is sent and differs from every other. Memory is read from /proc,
so these tests need Linux."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee, Curl, Head, Raw, Wire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")

GIB = 1 << 30
GROWTH_MAX_KIB = 20 * 1024
PACE = 100_000  # bytes in each tenth of a second: 1 MB/s
THROTTLED_S = 4.0
HELD_BACK_MAX = 48 * 1024 * 1024
"""What may have left a fast sender while a slow reader took 4 MB: the kernel's buffers of two connections, 4 MiB to
send and 6 MiB to receive by default, twice that for its bookkeeping; and coulee's, which are small."""

FILTERED = """
from coulee.core import Filter, Proxy
from coulee.lb import Cluster


class Rotate(Filter):
    '''Looks at each piece, and changes it: there and back again.'''

    def request_body_filter(self, exchange, data, ended):
        return data.swapcase().swapcase()

    async def response_body_filter(self, exchange, data, ended):
        return data.swapcase().swapcase()


class Count(Filter):
    def request_body_filter(self, exchange, data, ended):
        exchange.tags["pieces"] = exchange.tags.get("pieces", 0) + 1

    def response_body_filter(self, exchange, data, ended):
        exchange.tags["pieces"] = exchange.tags.get("pieces", 0) + 1


proxy = Proxy(Cluster({url!r}), [Rotate(), Count()])
"""


class Big:
    """An origin's scripts for large bodies, and what became of them."""

    def __init__(self, blocks: Callable[[int], Any], digest_of: Callable[[int], str]) -> None:
        self.blocks = blocks
        self.expected = digest_of(GIB)
        self.sent = 0
        self.received = 0
        self.throttle = False
        self.sent_while_throttled = 0

    def small(self, wire: Wire, head: Head) -> bool:
        """Nothing."""
        wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        return True

    def download(self, wire: Wire, head: Head) -> bool:
        """1 GiB with its length."""
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIB)
        for block in self.blocks(GIB):
            wire.send(block)
            self.sent += len(block)
        return True

    def chunked_download(self, wire: Wire, head: Head) -> bool:
        """1 GiB in chunks."""
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for block in self.blocks(GIB):
            wire.send(b"%x\r\n%s\r\n" % (len(block), block))
        wire.send(b"0\r\n\r\n")
        return True

    def upload(self, wire: Wire, head: Head) -> bool:
        """Read 1 GiB, however it is framed; answer with its SHA-256."""
        sha = hashlib.sha256()
        if head.get("transfer-encoding") == "chunked":
            while size := int(wire.read_until(b"\r\n"), 16):
                sha.update(wire.read(size))
                wire.read(2)
            wire.read_until(b"\r\n")
        else:
            left = GIB
            if self.throttle:
                left -= read_slowly(wire, sha)
                self.sent_while_throttled = self.sent
            read_on(wire, sha, left)
        text = sha.hexdigest().encode()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
        return True


def read_on(wire: Wire, sha: Any, left: int) -> None:
    """Read the rest as fast as it comes."""
    while left:
        data = wire.more()
        assert data, "the body was cut"
        sha.update(data)
        left -= len(data)


def read_slowly(wire: Wire, sha: Any) -> int:
    """Read at 1 MB/s for some seconds; how much it was."""
    pace = threading.Event()
    taken = 0
    ends = time.monotonic() + THROTTLED_S
    while time.monotonic() < ends:
        data = wire.early[:PACE] or wire.sock.recv(PACE)
        wire.early = wire.early[PACE:]
        assert data
        sha.update(data)
        taken += len(data)
        pace.wait(0.1)
    return taken


@pytest.fixture
def big(raw: Raw, data: tuple[Callable[[int], Any], Callable[[int], str]]) -> Big:
    """An origin with large bodies."""
    scripts = Big(*data)
    for name in ("download", "chunked_download", "upload"):
        raw.on(f"/{name}", getattr(scripts, name))
    raw.on("/small", scripts.small)
    return scripts


class Growth:
    """How much more memory coulee needs than after a first, small request."""

    def __init__(self, proxy: Coulee, curl: Curl) -> None:
        assert curl(f"{proxy.url}/small").status == 204
        self.proxy = proxy
        self.before = proxy.memory_kib("VmRSS")

    def check(self) -> None:
        growth = self.proxy.memory_kib("VmHWM") - self.before
        print(f"memory grew by {growth} KiB from {self.before} KiB")
        assert growth < GROWTH_MAX_KIB


def download(proxy: Coulee, curl: Curl, path: str) -> str:
    """The SHA-256 of what curl gets."""
    with subprocess.Popen(curl.command(proxy.url + path), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        sha = hashlib.sha256()
        while data := process.stdout.read(1 << 20):
            sha.update(data)
    assert process.returncode == 0
    return sha.hexdigest()


def upload(proxy: Coulee, curl: Curl, big: Big) -> str:
    """What the origin answers to 1 GiB from curl."""
    command = curl.command("-H", f"Content-Length: {GIB}", "-H", "Transfer-Encoding:", "-H", "Expect:", "-T", "-",
                           f"{proxy.url}/upload")  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for block in big.blocks(GIB):
            process.stdin.write(block)
            big.sent += len(block)
        process.stdin.close()
        answer = process.stdout.read()
    assert process.returncode == 0
    return answer.decode()


def test_a_download_of_1_gib(raw: Raw, big: Big, raw_proxy: Coulee, curl: Curl) -> None:
    growth = Growth(raw_proxy, curl)
    assert download(raw_proxy, curl, "/download") == big.expected
    growth.check()
    assert raw_proxy.record("/download")["bytes_out"] == GIB


def test_an_upload_of_1_gib(raw: Raw, big: Big, raw_proxy: Coulee, curl: Curl) -> None:
    growth = Growth(raw_proxy, curl)
    assert upload(raw_proxy, curl, big) == big.expected
    growth.check()
    assert raw_proxy.record("/upload")["bytes_in"] == GIB


def test_a_filter_on_each_piece_of_a_download(coulee: Callable[..., Coulee], raw: Raw, big: Big, curl: Curl) -> None:
    proxy = coulee(app=FILTERED.format(url=raw.url))
    growth = Growth(proxy, curl)
    assert download(proxy, curl, "/chunked_download") == big.expected
    growth.check()
    assert proxy.record("/chunked_download")["tags"]["pieces"] > 1000


def test_a_filter_on_each_piece_of_an_upload(coulee: Callable[..., Coulee], raw: Raw, big: Big, curl: Curl) -> None:
    proxy = coulee("--backend", "uvloop", app=FILTERED.format(url=raw.url))
    growth = Growth(proxy, curl)
    assert upload(proxy, curl, big) == big.expected
    growth.check()
    assert proxy.record("/upload")["tags"]["pieces"] > 1000


def test_a_slow_reader_of_a_download_holds_the_origin_back(
    coulee: Callable[..., Coulee], raw: Raw, big: Big, curl: Curl, dial: Callable[[int], Wire]
) -> None:
    proxy = coulee("--to", raw.url)
    growth = Growth(proxy, curl)
    client = dial(proxy.port)
    client.send(b"GET /download HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.read_head().get("content-length") == str(GIB)
    sha = hashlib.sha256()
    left = GIB - read_slowly(client, sha)
    print(f"the origin had sent {big.sent >> 20} MiB")
    assert big.sent < HELD_BACK_MAX
    growth.check()
    read_on(client, sha, left)
    assert sha.hexdigest() == big.expected
    growth.check()


def test_a_slow_origin_of_an_upload_holds_the_client_back(
    coulee: Callable[..., Coulee], raw: Raw, big: Big, curl: Curl
) -> None:
    proxy = coulee("--to", raw.url)
    growth = Growth(proxy, curl)
    big.throttle = True
    assert upload(proxy, curl, big) == big.expected
    print(f"the client had sent {big.sent_while_throttled >> 20} MiB")
    assert big.sent_while_throttled < HELD_BACK_MAX
    growth.check()
