"""A real browser before coulee, headless Chromium: WebSocket and server-sent events, without TLS, by HTTP/1.1 in TLS,
and by HTTP/2, where it opens them as streams of the connection that it has (RFC 8441).

The origin is a site by aiohttp. The short form runs with every test run, on one backend; WEBSOCKET_LONG=1 makes it all
(`make websockets`).
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
import urllib.request
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.conftest import EVERY_BACKEND, installed
from tests.interop.fleet import HOST, WITHIN_S, until
from tests.interop.http2_proxied import serving
from tests.interop.proxied import certificates_in
from tests.interop.websocket_doors import LONG, WAYS, before

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.interop.conftest import Coulee

BACKENDS = EVERY_BACKEND if LONG else ["asyncio"]
DOORS = {"plain": "1.1", "tls": "1.1", "h2": "2.0"}
"""And the version that the browser speaks there."""

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--ignore-certificate-errors"]  # fmt: skip
VISITS = list(itertools.product(DOORS, WAYS)) if LONG else [("plain", "passed"), ("tls", "filtered"), ("h2", "passed"),
                                                            ("h2", "filtered")]  # fmt: skip
NUMBERS = itertools.count()
NOISE = random.Random(5).randbytes(100_000).hex()
SOCKETS = 20 if LONG else 4  # Chromium takes its time between the many that a page opens

# Sends the messages all at once, and then closes, or has the origin close; tells all that it hears.
CHAT = """async ([target, subprotocols, messages, code, reason]) => {
    const url = new URL(target, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, subprotocols);
    socket.binaryType = "arraybuffer";
    const heard = [];
    return await new Promise((resolve) => {
        socket.onopen = () => {
            for (const message of messages) {
                socket.send(typeof message === "string" ? message : new Uint8Array(message));
            }
            if (messages.length === 0) code === null ? socket.close() : socket.close(code, reason);
        };
        socket.onmessage = ({data}) => {
            heard.push(typeof data === "string" ? data : Array.from(new Uint8Array(data)));
            if (heard.length === messages.length) code === null ? socket.close() : socket.close(code, reason);
        };
        socket.onclose = ({code, reason, wasClean}) => resolve({
            heard, code, reason, clean: wasClean, protocol: socket.protocol, extensions: socket.extensions,
        });
    });
}"""

# Asks for the next event when it has one.
EVENTS = """async (name) => {
    const source = new EventSource("/events?" + name);
    const heard = [];
    return await new Promise((resolve, reject) => {
        source.onmessage = ({data, lastEventId}) => {
            heard.push([lastEventId, data]);
            fetch("/next?" + name).catch(reject);
        };
        source.addEventListener("end", ({data}) => {
            source.close();
            resolve([...heard, ["end", data]]);
        });
    });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, or a skip."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium is not installed (Debian: chromium)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Its URL."""
    pytest.importorskip("aiohttp", reason="the package aiohttp is not installed")
    with serving("web_origin.py") as ports:
        yield f"http://{HOST}:{ports['site']}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A certificate that no browser knows."""
    return str(certificates_in(tmp_path_factory.mktemp("browser")).pair)


@dataclass
class Visit:
    """A page by way of coulee."""

    proxy: Coulee
    page: Page
    site: str
    way: str
    version: str

    def chat(
        self,
        messages: list[str | list[int]],
        code: int | None = 1000,
        reason: str = "",
        subprotocols: tuple[str, ...] = (),
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the browser heard, and the access record."""
        target = f"/chat?{next(NUMBERS)}"
        heard: dict[str, Any] = self.page.evaluate(CHAT, [target, list(subprotocols), messages, code, reason])
        record = self.proxy.record(target)
        assert record["version"] == self.version
        return heard, record

    def ended(self, target: str) -> int:
        """The code that the origin heard."""

        def look() -> int | None:
            with urllib.request.urlopen(f"{self.site}/ended", timeout=WITHIN_S) as answer:
                found: int | None = json.load(answer).get(target)
            return None if found is None else found + 1  # for 0 would be nothing yet

        return until(look, f"the origin's end of {target}") - 1


@pytest.fixture(scope="module", params=VISITS, ids="-".join)
def visit(
    request: pytest.FixtureRequest, browser: Browser, site: str, backend: str, pair: str
) -> Generator[Visit, None, None]:
    """By each door, and whether a filter sees the messages or not."""
    door, way = request.param
    args = {"plain": (), "tls": ("--tls", pair, "--http1-only"), "h2": ("--tls", pair)}[door]
    scheme = "http" if door == "plain" else "https"
    with before(site, way, backend, *args) as proxy, browser.new_context(ignore_https_errors=True) as context:
        page = context.new_page()
        page.set_default_timeout(WITHIN_S * 1000)
        page.goto(f"{scheme}://localhost:{proxy.port}/page")
        assert page.title() == "coulee"
        assert proxy.record("/page")["version"] == DOORS[door]
        yield Visit(proxy, page, site, way, DOORS[door])


def test_messages(visit: Visit) -> None:
    messages: list[str | list[int]] = ["text", "", "\N{GRINNING FACE}", [0, 255, 10], [], NOISE]
    heard, record = visit.chat(messages, 3001, "enough", ("x", "chat.v2"))
    assert (heard["heard"], heard["protocol"], heard["clean"]) == (messages, "chat.v2", True)
    assert heard["code"] == 1000, "what aiohttp always answers"
    assert visit.ended(record["target"]) == 3001
    assert heard["extensions"].startswith("permessage-deflate")
    assert record["reason"] == "", "though Chromium ends TLS without a close_notify"
    assert record["tags"] == ({"websocket_close": 3001} if visit.way == "filtered" else {})


def test_the_browser_closes_without_a_code(visit: Visit) -> None:
    heard, record = visit.chat([], None)
    assert heard["clean"]
    assert visit.ended(record["target"]) in (0, 1005), "aiohttp has 0 for it"
    assert record["tags"] == ({"websocket_close": 1005} if visit.way == "filtered" else {})


def test_the_origin_closes(visit: Visit) -> None:
    heard, record = visit.chat(["close 4002 leave me"])
    assert (heard["heard"], heard["code"], heard["reason"], heard["clean"]) == ([], 4002, "leave me", True)
    assert record["tags"] == ({"websocket_close": 4002} if visit.way == "filtered" else {})


def test_many_at_once_on_one_page(visit: Visit) -> None:
    """By HTTP/2 all are streams of one connection."""
    targets = [f"/chat?{next(NUMBERS)}" for _ in range(SOCKETS)]
    script = f"(targets) => Promise.all(targets.map((target) => ({CHAT})([target, [], [target], 1000, ''])))"
    assert [each["heard"] for each in visit.page.evaluate(script, targets)] == [[target] for target in targets]
    records = [visit.proxy.record(target) for target in targets]
    assert {record["version"] for record in records} == {visit.version}
    assert len({tuple(record["client"]) for record in records}) == (1 if visit.version == "2.0" else len(targets))


def test_events_come_one_by_one(visit: Visit) -> None:
    """The origin has no next one before the browser has had the last, and asks for it."""
    name = str(next(NUMBERS))
    heard = visit.page.evaluate(EVENTS, name)
    assert heard == [*([str(number), f"event {number}"] for number in range(5)), ["end", "all"]]
    assert visit.proxy.record(f"/events?{name}")["version"] == visit.version
