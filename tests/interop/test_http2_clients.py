"""Real clients of HTTP/2 before coulee, on every backend, with prior knowledge and by TLS: nghttp, h2load, curl, httpx;
and clients of HTTP/1 at the same ports.

The short form runs with every test run; HTTP2_LONG=1 makes it the long one (`make grpc`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.conftest import Wire
from tests.interop.fleet import HOST, WITHIN_S, until
from tests.interop.h2_client import PREFACE, Cut, Http2Client, dialled
from tests.interop.http2_proxied import LONG, Doors, doors, serving
from tests.interop.proxied import Certificates, certificates_in

if TYPE_CHECKING:
    from tests.interop.conftest import Curl, Nginx

SIZES = [0, 1, 64 * 1024, 1024 * 1024]
LARGEST = 10 * 1024 * 1024
REQUESTS = 2000 if LONG else 500
NOISE = hashlib.shake_256(b"noise").digest(LARGEST)
ALL_STREAMS = 2**31 - 1


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates_in(tmp_path_factory.mktemp("http2"))


@pytest.fixture(scope="module")
def origins(nginx: Nginx) -> Iterator[dict[str, dict[str, Any]]]:
    """Of HTTP/1.1, for this is about clients."""
    with serving("h2_origin.py") as ports:
        yield {"own": {"url": f"http://{HOST}:{ports['h1']}"}, "nginx": {"url": nginx.url}}


@pytest.fixture(scope="module")
def coulee(
    backend: str, certificates: Certificates, origins: dict[str, dict[str, Any]]
) -> Generator[Doors, None, None]:
    with doors(backend, certificates, origins) as running:
        yield running


@pytest.fixture(params=["plain", "tls"])
def door(request: pytest.FixtureRequest) -> str:
    """By which listener."""
    name: str = request.param
    return name


def body_file(folder: Path, size: int) -> str:
    """A file with a body of this size."""
    path = folder / "body"
    path.write_bytes(NOISE[:size])
    return str(path)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -------------------------------------------------------------------------------------------------------- nghttp


@pytest.fixture(scope="session")
def nghttp() -> Callable[..., bytes]:
    """Runs nghttp, which ends well; what it printed."""
    found = shutil.which("nghttp")
    if found is None:
        pytest.skip("nghttp is not installed (Debian: nghttp2-client)")

    def run(*args: str) -> bytes:
        done = subprocess.run([found, "-y", "-t", "30", *args], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        # It ends well also where the other side breaks the protocol.
        assert b"Some requests were not processed" not in done.stderr, done.stderr.decode()
        return done.stdout

    return run


class TestNghttp:
    def test_two_sizes_of_the_table_at_once(self, coulee: Doors, door: str, nghttp: Callable[..., bytes]) -> None:
        """Of several in one SETTINGS frame, the smallest and the last must be acknowledged (RFC 7541 section 4.2)."""
        said = nghttp("-c", "0", "-c", "256", "-m", "3", f"{coulee.url(door)}/make?size=100")
        assert len(said) == 3 * 100

    def test_bodies_both_ways(self, coulee: Doors, door: str, nghttp: Callable[..., bytes], tmp_path: Path) -> None:
        for size in [*SIZES, LARGEST] if LONG else SIZES:
            said = nghttp("-d", body_file(tmp_path, size), f"{coulee.url(door)}/copy?{size}")
            assert digest(said) == digest(NOISE[:size]), size

    def test_a_body_of_unknown_length_with_trailers(
        self, coulee: Doors, door: str, nghttp: Callable[..., bytes], tmp_path: Path
    ) -> None:
        body = body_file(tmp_path, 100_000)
        url = f"{coulee.url(door)}/echo?answer=trailers"
        told = json.loads(nghttp("-d", body, "--no-content-length", "--trailer", "x-late: so it was", url))
        assert (told["method"], told["size"]) == ("POST", 100_000)
        assert told["sha256"] == digest(NOISE[:100_000])
        assert ["x-late", "so it was"] in told["trailers"]
        verbose = nghttp("-v", "-d", body, url).decode()
        assert re.search(r"recv \(stream_id=\d+\) x-check: [0-9a-f]{64}", verbose)

    def test_padding(self, coulee: Doors, door: str, nghttp: Callable[..., bytes], tmp_path: Path) -> None:
        args = ["-b", "255", "-d", body_file(tmp_path, 100_000)]
        assert digest(nghttp(*args, f"{coulee.url(door)}/copy")) == digest(NOISE[:100_000])

    def test_continuations(self, coulee: Doors, door: str, nghttp: Callable[..., bytes]) -> None:
        """It has a head of several frames then."""
        told = json.loads(nghttp("--continuation", f"{coulee.url(door)}/echo"))
        assert ["continuation-test-1", "-" * 4096] in told["fields"]

    def test_it_waits_for_100(self, coulee: Doors, door: str, nghttp: Callable[..., bytes], tmp_path: Path) -> None:
        args = ["-v", "--expect-continue", "-d", body_file(tmp_path, 1000)]
        said = nghttp(*args, f"{coulee.url(door)}/echo").decode()
        assert said.index(":status: 100") < said.index("send DATA frame") < said.index(":status: 200")
        assert digest(NOISE[:1000]) in said

    def test_head(self, coulee: Doors, door: str, nghttp: Callable[..., bytes]) -> None:
        said = nghttp("-v", "-H", ":method: HEAD", f"{coulee.url(door)}/echo").decode()
        assert ":status: 200" in said
        assert re.search(r"\) content-length: [1-9]\d*\n", said)
        assert "recv DATA" not in said

    def test_small_windows_and_a_small_table(self, coulee: Doors, door: str, nghttp: Callable[..., bytes]) -> None:
        """Windows of 1023 bytes, and twenty at once."""
        said = nghttp("-w", "10", "-W", "16", "-c", "100", "-m", "20", f"{coulee.url(door)}/make?size=20000")
        assert len(said) == 20 * 20000

    def test_several_cookies(self, coulee: Doors, door: str, nghttp: Callable[..., bytes]) -> None:
        cookies = [part for cookie in ("a=1", "b=2", "c=3") for part in ("-H", f"cookie: {cookie}")]
        told = json.loads(nghttp(*cookies, f"{coulee.url(door)}/echo"))
        assert [value for name, value in told["fields"] if name == "cookie"] == ["a=1; b=2; c=3"]

    def test_early_hints(self, coulee: Doors, door: str, nghttp: Callable[..., bytes]) -> None:
        said = nghttp("-v", f"{coulee.url(door)}/echo?interim=103").decode()
        assert said.index(":status: 103") < said.index(":status: 200")
        assert "link: </style.css>; rel=preload" in said


# -------------------------------------------------------------------------------------------------------- h2load


@pytest.fixture(scope="session")
def h2load() -> Callable[..., str]:
    """Runs h2load, all of whose requests are answered well; what it printed."""
    found = shutil.which("h2load")
    if found is None:
        pytest.skip("h2load is not installed (Debian: nghttp2-client)")

    def run(requests: int, *args: str) -> str:
        command = [found, "-n", str(requests), *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        assert f"status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx" in done.stdout, done.stdout
        assert f"{requests} succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout, done.stdout
        return done.stdout

    return run


class TestH2load:
    def test_many_at_once(self, coulee: Doors, door: str, h2load: Callable[..., str]) -> None:
        said = h2load(REQUESTS, "-c", "4", "-m", "32", "-H", "x-to: nginx", f"{coulee.url(door)}/sink")
        assert "Application protocol: h2" in said
        print(re.findall(r"finished in .*", said))

    def test_bodies(self, coulee: Doors, door: str, h2load: Callable[..., str], tmp_path: Path) -> None:
        count = REQUESTS // 10
        url = f"{coulee.url(door)}/copy"
        said = h2load(count, "-c", "2", "-m", "10", "-d", body_file(tmp_path, 100_000), url)
        assert f"({count * 100_000})" in re.sub(r".*headers.*, ", "", said), said

    def test_more_at_once_than_are_allowed(self, coulee: Doors, h2load: Callable[..., str]) -> None:
        """h2load keeps within what SETTINGS say, as everybody must."""
        h2load(300, "-c", "1", "-m", "200", "-H", "x-to: nginx", f"{coulee.url('plain')}/sink")

    def test_http_1_at_the_same_ports(self, coulee: Doors, door: str, h2load: Callable[..., str]) -> None:
        said = h2load(200, "--h1", "-c", "4", "-H", "x-to: nginx", f"{coulee.url(door)}/sink")
        assert "Application protocol: http/1.1" in said


# ---------------------------------------------------------------------------------------------------------- curl


@pytest.fixture
def by(coulee: Doors, door: str, certificates: Certificates) -> list[str]:
    """What curl is told, to speak HTTP/2."""
    return ["--http2-prior-knowledge"] if door == "plain" else ["--http2", "--cacert", str(certificates.ca)]


class TestCurl:
    def test_it_speaks_it(self, coulee: Doors, door: str, curl: Curl, by: list[str]) -> None:
        urls = [f"{coulee.url(door)}/echo"] * (1 if door == "plain" else 3)
        done = curl.run(*by, "-w", "%{stderr}%{http_version} %{num_connects}\n", *urls)
        # With prior knowledge curl 7.88 cannot go on with a connection, whoever is at its end.
        assert done.stderr == b"2 1\n2 0\n2 0\n"[: 4 * len(urls)]

    def test_bodies_both_ways(self, coulee: Doors, door: str, curl: Curl, by: list[str]) -> None:
        for size in (*SIZES, LARGEST):
            answer = curl(*by, "--data-binary", "@-", f"{coulee.url(door)}/copy?{size}", data=NOISE[:size])
            assert (answer.code, answer.status) == (0, 200)
            assert digest(answer.body) == digest(NOISE[:size]), size

    def test_a_body_of_unknown_length_and_trailers_back(
        self, coulee: Doors, door: str, curl: Curl, by: list[str]
    ) -> None:
        url = f"{coulee.url(door)}/echo?answer=trailers"
        answer = curl(*by, "-T", "-", "-X", "PUT", url, data=NOISE[:100_000])
        told = json.loads(answer.body)
        assert (told["method"], told["size"], told["sha256"]) == ("PUT", 100_000, digest(NOISE[:100_000]))
        assert not any(name == "content-length" for name, _ in told["fields"])
        shown = [*answer.trailers, *answer.head.fields]
        assert ("x-check", digest(answer.body)) in shown

    def test_head_204_304(self, coulee: Doors, door: str, curl: Curl, by: list[str]) -> None:
        answer = curl(*by, "--head", f"{coulee.url(door)}/echo")
        assert (answer.code, answer.status, answer.body) == (0, 200, b"")
        assert int(answer.get("content-length") or 0) > 0
        for status in (204, 304):
            answer = curl(*by, f"{coulee.url(door)}/echo?status={status}")
            assert (answer.code, answer.status, answer.body) == (0, status, b"")

    def test_it_waits_for_100(self, coulee: Doors, door: str, curl: Curl, by: list[str]) -> None:
        args = ["-H", "Expect: 100-continue", "--expect100-timeout", "30"]
        answer = curl(*by, *args, "--data-binary", "@-", f"{coulee.url(door)}/copy", data=NOISE[:2_000_000])
        assert [head.status for head in answer.interims] == [100]
        assert digest(answer.body) == digest(NOISE[:2_000_000])

    def test_fields(self, coulee: Doors, door: str, curl: Curl, by: list[str]) -> None:
        answer = curl(*by, "-b", "a=1; b=2", "-H", "X-Twice: 1", "-H", "x-twice: 2", f"{coulee.url(door)}/echo?q=1%20")
        told = json.loads(answer.body)
        assert told["target"] == "/echo?q=1%20"
        assert told["authority"] == f"localhost:{coulee.ports[door]}"
        fields = [(name.lower(), value) for name, value in told["fields"]]
        assert ("cookie", "a=1; b=2") in fields
        assert [value for name, value in fields if name == "x-twice"] == ["1", "2"]
        assert ("x-forwarded-proto", "https" if door == "tls" else "http") in fields
        assert [name for name, _ in fields].count("host") == 1
        assert answer.head.all("set-cookie") == ["a=1", "b=2"]
        assert answer.get("connection") is None
        assert answer.get("transfer-encoding") is None

    def test_a_head_that_is_too_large(self, coulee: Doors, door: str, curl: Curl, by: list[str]) -> None:
        for size in (9_000, 40_000):
            heard = len(coulee.lines)
            answer = curl(*by, "-H", f"X-Large: {'x' * size}", f"{coulee.url(door)}/echo")
            assert answer.status == 431, size
            until(lambda: any(line.get("status") == 431 for line in coulee.lines[heard:]), "a record")  # noqa: B023
            assert coulee.lines[-1]["reason"] == "header_too_large"

    def test_many_fields(self, coulee: Doors, door: str, curl: Curl, by: list[str]) -> None:
        many = [part for number in range(101) for part in ("-H", f"x-{number}: {number}")]
        assert curl(*by, *many, f"{coulee.url(door)}/echo").status == 431

    def test_a_host_that_the_certificate_does_not_cover(
        self, coulee: Doors, curl: Curl, door: str, by: list[str]
    ) -> None:
        answer = curl(*by, "-H", "Host: b.test", f"{coulee.url(door)}/echo")
        assert answer.status == (421 if door == "tls" else 200)

    def test_an_answer_that_is_cut(self, coulee: Doors, door: str, curl: Curl, by: list[str]) -> None:
        done = curl.run(*by, f"{coulee.url(door)}/cut?size=1000")
        assert done.returncode == 92, "it looks whole"  # a stream was not closed cleanly


# --------------------------------------------------------------------------------------------------------- httpx


class TestHttpx:
    @pytest.fixture
    def client(self, coulee: Doors, door: str, certificates: Certificates) -> Iterator[Any]:
        httpx = pytest.importorskip("httpx", reason="the package httpx is not installed")
        pytest.importorskip("h2", reason="the package h2 is not installed")
        context = ssl.create_default_context(cafile=str(certificates.ca))
        with httpx.Client(
            http1=door == "tls", http2=True, verify=context, base_url=coulee.url(door), timeout=30, trust_env=False
        ) as client:
            yield client

    def test_bodies_both_ways(self, client: Any) -> None:
        for size in [*SIZES, LARGEST] if LONG else SIZES:
            answer = client.post(f"/copy?{size}", content=NOISE[:size])
            assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
            assert digest(answer.content) == digest(NOISE[:size]), size

    def test_a_body_of_unknown_length(self, client: Any) -> None:
        told = client.put("/echo", content=iter([NOISE[:70_000], b"", NOISE[70_000:100_000]])).json()
        assert (told["method"], told["size"], told["sha256"]) == ("PUT", 100_000, digest(NOISE[:100_000]))

    def test_methods_and_cookies(self, client: Any) -> None:
        for method in ("GET", "HEAD", "DELETE", "OPTIONS", "PATCH"):
            answer = client.request(method, "/echo", headers=[("cookie", "a=1"), ("cookie", "b=2")])
            assert answer.status_code == 200
            if method != "HEAD":
                told = answer.json()
                assert told["method"] == method
                assert [value for name, value in told["fields"] if name.lower() == "cookie"] == ["a=1; b=2"]

    def test_an_answer_that_is_cut(self, client: Any) -> None:
        httpx = pytest.importorskip("httpx")
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/cut?size=1000")

    def test_streams_at_once(self, client: Any) -> None:
        """One that is not read any further, and others beside it."""
        with client.stream("GET", f"/make?size={LARGEST}") as large:
            pieces = large.iter_raw(65536)
            first = len(next(pieces))
            for _ in range(5):
                assert client.post("/copy", content=NOISE[:10_000]).content == NOISE[:10_000]
            assert first + sum(map(len, pieces)) == LARGEST


# ------------------------------------------------------------------------------------------- which version it is


REQUEST = b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


@pytest.fixture
def wire(coulee: Doors, door: str, certificates: Certificates) -> Iterator[Wire]:
    """A raw connection, by TLS without a word of ALPN."""
    sock = socket.create_connection((HOST, coulee.ports[door]), timeout=WITHIN_S)
    if door == "tls":
        context = ssl.create_default_context(cafile=str(certificates.ca))
        sock = context.wrap_socket(sock, server_hostname="localhost")
    with contextlib.closing(Wire(sock)) as found:
        yield found


def is_silent(wire: Wire, seconds: float = 0.05) -> bool:
    """Whether nothing comes."""
    return not select.select([wire.sock], [], [], seconds)[0]


class TestVersions:
    def test_a_short_request_is_answered_at_once(self, wire: Wire) -> None:
        """Though it is shorter than the preface of HTTP/2 would be."""
        wire.send(b"GET / HTTP/1.0\r\n\r\n")
        assert wire.read_head().status == 200

    @pytest.mark.parametrize("begin", [b"P", b"PR"])
    def test_it_could_be_either_so_far(self, wire: Wire, begin: bytes, door: str) -> None:
        wire.send(begin)
        assert is_silent(wire)
        wire.send((b"POST /copy HTTP/1.1" if begin == b"P" else b"PROPFIND /copy HTTP/1.1")[len(begin) :])
        wire.send(b"\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi")
        head = wire.read_head()
        assert head.status == 200
        assert wire.read_body(head)[0] == b"hi"

    @pytest.mark.parametrize("cut", [1, 14, 23])
    def test_it_is_http_2_after_all(self, coulee: Doors, cut: int) -> None:
        wire = Wire.to(coulee.ports["plain"])
        with contextlib.closing(wire):
            wire.send(PREFACE[:cut])
            assert is_silent(wire)
            wire.send(PREFACE[cut:] + SETTINGS)
            header = wire.read(9)
            assert header[3] == 4, "the first frame is SETTINGS"

    def test_it_is_neither(self, wire: Wire) -> None:
        wire.send(b"PRI * HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert wire.read_head().status in (400, 405, 501)

    def test_an_upgrade_is_not_taken(self, coulee: Doors, curl: Curl) -> None:
        """RFC 9113 section 3.1 has none any more; curl asks for it here, and goes on without."""
        done = curl.run("--http2", "-w", "%{stderr}%{http_version}", f"{coulee.url('plain')}/echo")
        assert done.stderr == b"1.1"
        assert not any(name.lower() == "upgrade" for name, _ in json.loads(done.stdout)["fields"])

    @pytest.mark.parametrize("wants", [["--http1.1"], ["--no-alpn"]])
    def test_a_client_of_tls_that_wants_http_1(
        self, coulee: Doors, curl: Curl, certificates: Certificates, wants: list[str]
    ) -> None:
        args = ["--cacert", str(certificates.ca), "-w", "%{stderr}%{http_version}"]
        done = curl.run(*wants, *args, f"{coulee.url('tls')}/echo")
        assert done.stderr == b"1.1"
        assert json.loads(done.stdout)["method"] == "GET"

    def test_a_client_that_prefers_http_1_of_both(self, coulee: Doors, certificates: Certificates) -> None:
        """The order is ours."""
        context = ssl.create_default_context(cafile=str(certificates.ca))
        with dialled(coulee.ports["tls"], context, ["http/1.1", "h2"]) as sock:
            assert isinstance(sock, ssl.SSLSocket)
            assert sock.selected_alpn_protocol() == "h2"


def test_a_head_in_several_frames(coulee: Doors, door: str, certificates: Certificates) -> None:
    fields = [(f"x-{number}", "X" * 7000) for number in range(4)]
    with Http2Client(dialled(coulee.ports[door], certificates.plain if door == "tls" else None)) as client:
        for _ in range(2):
            told = json.loads(client.fetch("GET", "/echo", fields).body)
            assert [[name.lower(), value] for name, value in told["fields"] if name.lower().startswith("x-")][:4] == [
                list(field) for field in fields
            ]


# --------------------------------------------------------------------------------------------------------- drain


def test_a_drain_lets_what_is_under_way_end(
    backend: str, door: str, certificates: Certificates, origins: dict[str, dict[str, Any]]
) -> None:
    """RFC 9113 section 6.8: first it is said that the end is near, and later which request was the last."""
    if door == "tls" and backend != "asyncio" and not LONG:
        pytest.skip("HTTP2_LONG=1 runs it")
    with doors(backend, certificates, origins, grace_s=20, http2={"drain_notice_s": 0.2}) as coulee:
        context = ssl.create_default_context(cafile=str(certificates.ca)) if door == "tls" else None
        with (
            Http2Client(dialled(coulee.ports[door], context)) as client,
            Http2Client(dialled(coulee.ports[door], context)) as idle,
        ):
            assert idle.fetch("GET", "/echo").status == 200
            download = client.ask("GET", "/drip?times=10&every=0.06")
            client.until(lambda: client.answers[download].size, "it begins")
            coulee.process.send_signal(signal.SIGTERM)
            client.until(lambda: client.goaways, "a first word")
            assert client.goaways[0][:2] == (ALL_STREAMS, 0)
            crossed = client.ask("GET", "/echo")  # as if it had been on its way
            assert client.answer(crossed).status == 200
            client.until(lambda: len(client.goaways) == 2, "a second word")
            assert client.goaways[1][:2] == (crossed, 0)
            assert not client.answers[download].ended
            answer = client.answer(download)
            assert bytes(answer.body) == b"drop" * 10
            with pytest.raises(Cut):
                client.until(lambda: False, "it ends")
            with pytest.raises(Cut):
                idle.until(lambda: False, "the other ends")
            assert idle.goaways[-1][1] == 0
        assert coulee.process.wait(WITHIN_S) in (0, -signal.SIGTERM)
