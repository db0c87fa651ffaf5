"""The documentation is true: generated pages are fresh, code in it compiles and runs, examples do what is said of them.

A block of Python is executed where its info string is `python run`, or where `<!-- run -->` stands before it. The
blocks of one page run in order and share their names, as a reader would read them. All other blocks are compiled.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

import coulee.core
import coulee.lb
from coulee import testing
from coulee.core import (
    REASONS,
    Access,
    Config,
    Exchange,
    ExchangeError,
    Filter,
    Forwarding,
    Http2,
    Limits,
    Proxy,
    Response,
    Retry,
    Timeouts,
    WebSocket,
    effects,
    respond,
    sleep,
)
from coulee.core.filters import PHASES
from coulee.core.listener import ProxyProtocol
from coulee.core.seam import CONNECT_OPTIONS, LISTEN_OPTIONS, Completion, Operation
from coulee.core.tls import ListenerTls
from coulee.lb import Cluster

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md")])
IDS = [page.name for page in PAGES]
BLOCK = re.compile(
    r"^(?P<mark><!-- run -->\n+)?(?P<indent> *)```python(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: Path) -> list[tuple[str, bool]]:
    """The Python of a page, on the lines where it stands in it; and whether it is to run."""
    text = page.read_text(encoding="utf-8")
    found: list[tuple[str, bool]] = []
    for match in BLOCK.finditer(text):
        cut = len(match["indent"])
        code = "".join(line[cut:] or "\n" for line in match["code"].splitlines(keepends=True))
        found.append(
            (
                "\n" * text.count("\n", 0, match.start("code")) + code,
                bool(match["mark"]) or match["info"].split() == ["run"],
            )
        )
    return found


@cache
def run_page(page: Path) -> dict[str, Any]:
    """What the executed blocks of a page leave behind."""
    names: dict[str, Any] = {"__name__": f"docs_{page.stem}"}
    for code, runs in blocks(page):
        if runs:
            exec(compile(code, str(page), "exec", dont_inherit=True), names)
    return names


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_in_pages_compiles(page: Path) -> None:
    for code, _ in blocks(page):
        compile(code, str(page), "exec", dont_inherit=True)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_marked_python_runs(page: Path) -> None:
    run_page(page)


def test_tests_in_pages_pass() -> None:
    tests = {name: value for name, value in run_page(DOCS / "testing.md").items() if name.startswith("test_")}
    assert sorted(tests) == ["test_a_call", "test_an_endpoint_hangs_up_in_the_middle"]
    for test in tests.values():
        test()


def test_blocks_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\na\n```\n<!-- run -->\n```python\nb\n```\n```python run\nc\n```\n- x\n  ```python\n  d\n  ```\n"
    )
    assert [(code.strip(), runs) for code, runs in blocks(page)] == [
        ("a", False),
        ("b", True),
        ("c", True),
        ("d", False),
    ]
    assert [code.index(code.strip()) for code, _ in blocks(page)] == [1, 5, 8, 12]  # newlines before it: its line


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_pages_name_no_place_of_one_machine(page: Path) -> None:
    assert not re.findall(r"(?<![\w.])/(?:home|root|work|Users|tmp|mnt)/", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["errors.md", "configuration.md"])
def test_generated_pages_are_fresh(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == generator().pages()[name], "run: python docs/generate.py"


def test_advice_names_settings_that_exist() -> None:
    known = {each.name for each in fields(Config)}
    for part in (Limits, Timeouts, Http2, WebSocket, Retry, Forwarding, ListenerTls, ProxyProtocol):
        known |= {each.name for each in fields(part)}
    for reason in REASONS.values():
        for name in re.findall(r"`(\w+)`", reason.advice):
            assert name in known, f"{reason.word}: there is no setting {name}"


def test_every_setting_has_its_docstring() -> None:
    module = generator()
    for kind, field in module.SECTIONS.items():
        for name, _, text in module.documented_fields(kind):
            assert text or (kind is Config and hasattr(Config(), name)), f"{field or 'config'}.{name}"


def test_the_reference_has_every_public_name() -> None:
    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    for name in {*coulee.core.__all__, *coulee.lb.__all__, *effects.__all__}:
        assert re.search(rf"(?<!\w){name}(?!\w)", page), f"{name} is not in the reference"


def test_the_seam_page_has_every_operation_and_completion() -> None:
    page = (DOCS / "seam.md").read_text(encoding="utf-8")
    for kind in (*get_args(Operation), *get_args(Completion)):
        signature = ", ".join(
            str(each).partition(":")[0] + _default(each) for each in inspect.signature(kind).parameters.values()
        )
        assert f"`{kind.__name__}({signature})`" in page, f"{kind.__name__}({signature})"
    laws = re.findall(r"^(\d+)\. \*\*", page, re.MULTILINE)
    assert laws == ["1", "2", "3", "4", "5", "6", "7", "8"]


def _default(parameter: inspect.Parameter) -> str:
    known = {id(CONNECT_OPTIONS): "CONNECT_OPTIONS", id(LISTEN_OPTIONS): "LISTEN_OPTIONS"}
    default = parameter.default
    return "" if default is inspect.Parameter.empty else f"={known.get(id(default), repr(default))}"


def test_the_filter_page_has_every_phase_with_its_arguments() -> None:
    page = (DOCS / "filters.md").read_text(encoding="utf-8")
    assert len(PHASES) == 18, "index.md tells the number"
    rows = {row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \| ([^|]*) ?\| ([^|]*) ?\|", page, re.MULTILINE)}
    assert [name for name in rows if name in PHASES] == list(rows)
    assert set(rows) == set(PHASES)
    for phase, (called_with, returns) in rows.items():
        signature = inspect.signature(getattr(Filter, phase))
        assert re.findall(r"\w+", called_with) == list(signature.parameters)[2:], phase
        result = ast.unparse(ast.parse(signature.return_annotation).body[0]).rpartition("|")[0].strip()
        wanted = result.rpartition("|")[2].strip()
        assert re.findall(r"\w+", returns) == ([] if "Awaitable" in wanted else [wanted]), phase


def test_the_architecture_has_one_picture_for_light_and_dark() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", page)
    assert len(pictures) == 1 and "mermaid" not in page
    svg = (DOCS / pictures[0][1]).read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in svg and "<title" in svg and "<desc" in svg
    assert not re.search(r"(href|src|url\()\s*=?\s*[\"']?https?:", svg), "a picture loads nothing"


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        "-d",
        str(tmp_path / "doctrees"),
    ]
    built = subprocess.run([*command, str(DOCS), str(tmp_path / "html")], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    for page in (tmp_path / "html").glob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img)\b[^>]*(?:src|href)=\"(?:https?:)?//[^\"]*", page.read_text(encoding="utf-8")
        )
        assert not loaded, f"{page.name} loads something from the network: {loaded}"


# ------------------------------------------------------------------------------------------------- examples


def example(name: str) -> Any:
    return run_page(DOCS / "filters.md")[name]


def through(*filters: Filter) -> testing.Exchange:
    """A client of a proxy with these filters, and with two origins that say hello."""
    proxy = Proxy(Cluster("http://127.0.0.1:9000", "http://127.0.0.1:9001"), filters)
    return testing.Exchange(proxy, origin=lambda request: respond(200, "hello", headers={"Server": "x"}))


def by_hand(*filters: Filter) -> testing.Exchange:
    """The same, but the test plays the origins."""
    return testing.Exchange(Proxy(Cluster("http://127.0.0.1:9000", "http://127.0.0.1:9001"), filters))


def outcome(x: testing.Exchange) -> Access:
    assert x.record is not None
    return x.record


@pytest.mark.parametrize("page", ["filters.md", "index.md"])
def test_first_example(page: str) -> None:
    proxy = run_page(DOCS / page)["proxy"]
    x = testing.Exchange(proxy, origin=lambda request: respond(200, "hello", headers={"Server": "x"}))
    assert (x.get("/").status, x.response.body, x.attempts) == (401, b'{"error": "missing key"}', 0)
    assert x.get("/", headers={"X-Api-Key": "s3cret"}).body == b"hello"
    assert "server" not in x.response.headers
    assert outcome(x).tags == ({"tenant": "demo"} if page == "filters.md" else {})


def test_maintenance() -> None:
    maintenance = example("Maintenance")()
    x = through(maintenance)
    assert x.get("/").status == 200
    maintenance.on = True
    assert (x.get("/").status, x.response.body, x.response.headers["retry-after"]) == (503, b"back soon\n", "60")


def test_canary() -> None:
    canary, peer = example("Canary"), example("Peer")(("127.0.0.1", 9100), name="canary")
    x = through(canary(peer, 1.0))
    assert x.get("/").status == 200 and outcome(x).peer == "canary"
    x = through(canary(peer, 0.0))
    assert x.get("/").status == 200 and outcome(x).peer == "127.0.0.1:9000"
    x = through(canary(peer, 1.0)).down("http://127.0.0.1:9100")
    assert x.get("/").status == 200 and [attempt.peer for attempt in outcome(x).attempts] == [
        "canary",
        "127.0.0.1:9000",
    ]


def test_strip_prefix() -> None:
    x = through(example("StripPrefix")("/api"))
    x.get("/api/a?b=c")
    assert (x.upstreams[0].request.target, x.upstreams[0].request.headers["x-forwarded-prefix"]) == ("/a?b=c", "/api")


def test_upper() -> None:
    assert through(example("Upper")()).get("/").body == b"HELLO"


def test_replace() -> None:
    assert through(example("Replace")(b"hello", b"bye")).get("/").body == b"bye"
    x = by_hand(example("Replace")(b"hello", b"bye", limit=10)).start()
    upstream = x.upstream
    upstream.begin(200, length=10)
    upstream.send(b"hel")
    upstream.send(b"lo wor")
    upstream.send(b"d")
    upstream.end()
    assert x.response.complete and x.response.body == b"bye word" and outcome(x).tags == {}
    upstream = x.start().upstream
    upstream.begin(200, length=20)
    upstream.send(b"hello hello")
    assert outcome(x).reason == "filter_error" and not x.response.complete and not x.connected


def test_signed() -> None:
    def is_genuine(body: bytes, signature: str) -> bool:
        return body.decode() == signature

    x = through(example("Signed")(is_genuine))
    assert x.post("/", b"abc", headers={"X-Signature": "abc"}).status == 200
    assert x.upstreams[0].request.body == b"abc"
    assert x.post("/", b"abc", headers={"X-Signature": "xyz"}).status == 403
    assert x.post("/", b"a" * 70000).status == 413


def test_retry_unavailable() -> None:
    x = by_hand(example("RetryUnavailable")()).start()
    x.upstream.reply(503)
    assert x.upstream.reply(200, "hello").response.body == b"hello"
    attempts = [(attempt.peer, attempt.reason) for attempt in outcome(x).attempts]
    assert attempts == [("127.0.0.1:9000", "upstream_invalid"), ("127.0.0.1:9001", "")]
    assert x.start("DELETE").upstream.reply(503).response.status == 503 and x.attempts == 1


def test_error_page() -> None:
    x = by_hand(example("ErrorPage")()).start()
    assert (x.upstream.send_raw(b"nonsense\r\n\r\n").response.status, x.response.body) == (
        502,
        b"sorry: upstream_invalid\n",
    )
    assert outcome(x).tags == {"retried": False}


def test_forward_auth() -> None:
    service = example("Peer")(("127.0.0.1", 9200))
    x = by_hand(example("ForwardAuth")(service)).start(headers={"Authorization": "me"})
    assert (x.upstream.address, x.upstream.request.target) == (service.address, "/check")
    assert x.upstream.request.headers["authorization"] == "me"
    x.upstream.reply(200)
    assert x.upstream.reply(200).response.status == 200
    assert x.start().upstream.reply(401).response.status == 403
    assert not x.start().advance(1.9).answered
    assert x.advance(0.1).response.status == 503
    x.down("http://127.0.0.1:9200").start()
    assert outcome(x).reason == "upstream_refused"


def test_lookup() -> None:
    x = through(example("Lookup")(str.upper))
    assert x.get("/").status == 200 and outcome(x).tags == {"tenant": "EXAMPLE.COM"}


async def foreign(exchange: Exchange) -> None:
    import asyncio

    await asyncio.sleep(1)


async def too_late(exchange: Exchange) -> None:
    with effects.deadline(1):
        await sleep(5)


def useless(exchange: Exchange) -> Any:
    return 7


@pytest.mark.parametrize("phase", [foreign, too_late, useless])
def test_what_is_said_of_failing_filters(phase: Callable[[Exchange], Any]) -> None:
    x = through()
    x.proxy.on("request_filter")(phase)
    assert x.start().advance(2).response.status == 500 and outcome(x).reason == "filter_error"
    [event] = [each for each in x.events if each.name == "filter_error"]
    assert "traceback" in event.fields
    assert phase is not foreign or ("native" in event.text and "blocking" in event.text)


def test_what_is_said_of_reasons_of_choice() -> None:
    def busy(exchange: Exchange) -> None:
        raise ExchangeError("no_healthy_endpoint", "not now", status=429)

    x = through()
    x.proxy.on("request_filter")(busy)
    assert x.get("/").status == 429 and outcome(x).reason == "no_healthy_endpoint"
    assert json.loads(x.response.body)["error"] == "no_healthy_endpoint"


class Named(Filter):
    def __init__(self, name: str, seen: list[str]) -> None:
        self.name = name
        self.seen = seen

    def request_filter(self, exchange: Exchange) -> None:
        self.seen.append(f"request {self.name}")

    def response_filter(self, exchange: Exchange, response: Response) -> None:
        self.seen.append(f"response {self.name}")

    def logging(self, exchange: Exchange) -> None:
        self.seen.append(f"logging {self.name}")


def test_what_is_said_of_the_order() -> None:
    seen: list[str] = []
    through(Named("a", seen), Named("b", seen)).get("/")
    assert seen == ["request a", "request b", "response b", "response a", "logging b", "logging a"]


def test_what_is_said_of_a_failing_logging_filter() -> None:
    seen: list[str] = []
    x = through(Named("first", seen))
    x.proxy.on("logging")(lambda exchange: 1 / 0)
    assert x.get("/").status == 200
    assert seen == ["request first", "response first", "logging first"] and len(x.records) == 1
    assert "filter_error" in [event.name for event in x.events]
