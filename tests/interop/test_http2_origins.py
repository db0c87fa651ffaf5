"""Origins of HTTP/2 behind coulee, on every backend, with prior knowledge and by TLS: nginx, nghttpd, and one of our
own on python-hyper's h2; and that a message means the same whichever versions it comes and goes by.

The short form runs with every test run; HTTP2_LONG=1 makes it the long one (`make grpc`).
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.fleet import HOST, WITHIN_S, until
from tests.interop.h2_client import Cut, Fields, Http1Client, Http2Client, dialled
from tests.interop.http2_proxied import LONG, Doors, doors, serving
from tests.interop.proxied import Certificates, certificates_in
from tests.interop.test_tls_origins import nginx as running_nginx

if TYPE_CHECKING:
    from tests.interop.conftest import Curl

PORTS_TRIED = 5
SIZE = (10 if LONG else 2) * 1024 * 1024
NOISE = hashlib.shake_256(b"noise").digest(SIZE)
Client = Http1Client | Http2Client


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates_in(tmp_path_factory.mktemp("http2"))


class Own:
    """Our own origin (see `h2_origin.py`), of which some things are asked without coulee."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.ports = ports
        self.urls = {
            "h1": f"http://{HOST}:{ports['h1']}",
            "h2": f"h2c://{HOST}:{ports['h2']}",
            "tls": f"https://{HOST}:{ports['tls']}",
            "tls1": f"https://{HOST}:{ports['tls1']}",
        }

    def count(self, word: str) -> int:
        """How often that has been so far."""
        conn = http.client.HTTPConnection(HOST, self.ports["h1"], timeout=WITHIN_S)
        with contextlib.closing(conn):
            conn.request("GET", "/counts")
            counts: dict[str, int] = json.loads(conn.getresponse().read())
        return counts.get(word, 0)


@pytest.fixture(scope="module")
def own(certificates: Certificates) -> Iterator[Own]:
    with serving("h2_origin.py", pair=str(certificates.pair)) as ports:
        yield Own(ports)
        assert Own(ports).count("broken") == 0, "coulee has broken HTTP/2"


@pytest.fixture(scope="module")
def goes(certificates: Certificates) -> Iterator[Own]:
    """One whose connections serve five requests, and at most three at once."""
    with serving("h2_origin.py", pair=str(certificates.pair), goaway_after=5) as ports:
        yield Own(ports)


@pytest.fixture(scope="module")
def narrow(certificates: Certificates) -> Iterator[Own]:
    """One that takes few requests at once, and little of each."""
    with serving("h2_origin.py", pair=str(certificates.pair), streams_max=4, window=1000) as ports:
        yield Own(ports)


@pytest.fixture(scope="module")
def wants(certificates: Certificates) -> Iterator[Own]:
    """One that is asked for what it does not give by HTTP/2."""
    with serving("h2_origin.py", pair=str(certificates.pair)) as ports:
        yield Own(ports)


NGINX = """\
    server {{
        listen {host}:{h2} http2;
        listen {host}:{tls} ssl http2;
        ssl_certificate {pair};
        ssl_certificate_key {pair};
        default_type text/plain;
        keepalive_requests 100000;
        location /file/ {{ }}
        location = /204 {{ return 204; }}
        location / {{
            add_header X-Said "$request_method $request_uri $server_protocol $http_host $content_length." always;
            return 200 "hello\\n";
        }}
    }}
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[dict[str, int]]:
    """nginx, or a skip."""
    folder = tmp_path_factory.mktemp("nginx")
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)
    (folder / "files" / "file").mkdir(parents=True)
    (folder / "files" / "file" / "large").write_bytes(NOISE)
    (folder / "ca.pem").write_bytes(certificates.ca.read_bytes())

    def servers(ports: dict[str, int]) -> str:
        return NGINX.format(host=HOST, pair=certificates.pair, **ports)

    with running_nginx(folder, ["h2", "tls"], servers) as ports:
        yield ports


@contextlib.contextmanager
def running_nghttpd(*args: str) -> Generator[int, None, None]:
    """nghttpd while the block lasts, or a skip; its port, which it cannot tell by itself."""
    found = shutil.which("nghttpd", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin")))
    if found is None:
        pytest.skip("nghttpd is not installed (Debian: nghttp2-server)")
    for _ in range(PORTS_TRIED):
        with socket.create_server((HOST, 0)) as probe:
            port: int = probe.getsockname()[1]
        command = [found, "-a", HOST, "--echo-upload", "--trailer", "x-late: so it was", str(port), *args]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        def listens() -> bool:
            with socket.socket() as sock:
                return process.poll() is not None or sock.connect_ex((HOST, port)) == 0  # noqa: B023

        until(listens, "nghttpd listens")
        if process.poll() is None:
            break
    assert process.poll() is None
    try:
        yield port
    finally:
        process.terminate()
        process.wait(WITHIN_S)


@pytest.fixture(scope="module")
def nghttpd(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[dict[str, int]]:
    """nghttpd, with a page."""
    folder = tmp_path_factory.mktemp("nghttpd")
    (folder / "page").write_bytes(NOISE[:300_000])
    pair = str(certificates.pair)
    args = ["-d", str(folder)]
    with running_nghttpd("--no-tls", *args) as plain, running_nghttpd(pair, pair, *args) as tls:
        yield {"h2": plain, "tls": tls}


@pytest.fixture(scope="module")
def coulee(
    backend: str,
    certificates: Certificates,
    own: Own,
    goes: Own,
    narrow: Own,
    wants: Own,
) -> Generator[Doors, None, None]:
    """Before our own."""
    origins: dict[str, dict[str, Any]] = {name: {"url": url} for name, url in own.urls.items()}
    for word, which in (("goes", goes), ("narrow", narrow), ("wants", wants)):
        origins |= {f"{word} {name}": {"url": which.urls[name]} for name in ("h2", "tls")}
    with doors(backend, certificates, origins) as running:
        yield running


@pytest.fixture
def client(coulee: Doors) -> Iterator[Http2Client]:
    """A new connection."""
    with Http2Client(dialled(coulee.ports["plain"])) as found:
        yield found


def to(name: str, *more: tuple[str, str]) -> Fields:
    """Fields that send a request to an origin."""
    return [("x-to", name), *more]


BY = pytest.mark.parametrize("by", ["h2", "tls"])


# --------------------------------------------------------------------------------------------------- all pairs


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
REQUESTS = {
    "none": None,
    "empty": (b"",),
    "length": (b"x" * 1000, NOISE[:99_000]),
    "unknown": (b"x" * 1000, NOISE[:99_000]),
    "trailers": (NOISE[:50_000], b"z"),
}
"""The bodies of requests."""

ANSWERS = ["answer=none", "answer=length", "answer=unknown", "answer=trailers", "status=204", "status=304",
           "status=404&answer=length", "interim=103&answer=length"]  # fmt: skip
FRAMING = {"content-length", "transfer-encoding", "connection", "keep-alive", "te", "host", "date", "trailer",
           "x-origin", "x-said"}  # fmt: skip
"""What belongs to a connection and not to a message, or says what is compared otherwise."""


def meaning(fields: Any) -> list[tuple[str, str]]:
    """What fields say, by whichever version they have come."""
    return sorted(
        (name.lower(), value) for name, value in fields if name.lower() not in FRAMING | {"x-origin", "x-said"}
    )


def asked(client: Client, origin: str, method: str, kind: str, wish: str) -> dict[str, Any]:
    """What it comes to, on both sides."""
    pieces = REQUESTS[kind]
    fields = [("x-a", "1"), ("x-a", "2"), ("cookie", "a=1; b=2"), ("accept", "*/*"), ("te", "trailers"), *to(origin)]
    if kind == "length" and pieces is not None:
        fields.append(("content-length", str(sum(map(len, pieces)))))
    trailers = [("x-late", "yes")] if kind == "trailers" else None
    if isinstance(client, Http1Client):
        fields.append(("connection", "te"))
    answer = client.fetch(method, f"/echo?{wish}", fields, pieces, trailers)
    said: dict[str, Any] = {"status": answer.status, "fields": meaning(answer.fields), "interims": answer.interims}
    says_length = answer.get("content-length")
    if method == "HEAD":
        said["length"] = bool(says_length) and says_length != "0"
        assert not answer.body
        return said
    assert says_length in (None, str(len(answer.body))), "its length is another"
    trailers_back = dict(answer.trailers)
    check = trailers_back.pop("x-check", None)
    assert check in (None, hashlib.sha256(answer.body).hexdigest())
    said |= {"checked": check is not None, "trailers": trailers_back}
    if answer.body:
        told = json.loads(answer.body)
        del told["version"]
        declared = dict(map(tuple, told["fields"])).get("content-length")
        assert declared in (None, str(told["size"]))
        said["told"] = {**told, "fields": meaning(told["fields"])}
        said["declared"] = declared is not None or not told["size"]
    return said


@pytest.mark.parametrize("door", ["plain", "tls"])
def test_a_message_means_the_same_by_all_versions(coulee: Doors, door: str, certificates: Certificates) -> None:
    context = certificates.plain if door == "tls" else None
    first, second = ("h1", "h2") if door == "plain" else ("tls1", "tls")
    with (
        Http1Client(dialled(coulee.ports[door], context, ["http/1.1"])) as one,
        Http2Client(dialled(coulee.ports[door], context)) as two,
    ):
        differing = []
        for number, which in enumerate(itertools.product(METHODS, REQUESTS, ANSWERS)):
            if LONG or number % 5 == 0:
                found = [asked(each, origin, *which) for each in (one, two) for origin in (first, second)]
                differing += [(which, each, found[0]) for each in found[1:] if each != found[0]]
                self_evident(found[0], *which)
        assert differing == []


def self_evident(said: dict[str, Any], method: str, kind: str, wish: str) -> None:
    """That it is not the same because it is wrong everywhere."""
    pieces = REQUESTS[kind]
    status = 204 if "204" in wish else 304 if "304" in wish else 404 if "404" in wish else 200
    assert said["status"] == status
    assert [interim for interim, _ in said["interims"]] == ([103] if "interim" in wish else [])
    assert said["fields"].count(("set-cookie", "a=1")) == 1
    if method == "HEAD":
        return
    assert said["checked"] == ("trailers" in wish)
    if wish not in ("answer=none", "status=204", "status=304"):
        told = said["told"]
        body = b"".join(pieces or ())
        assert (told["method"], told["target"]) == (method, f"/echo?{wish}")
        assert (told["size"], told["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        assert told["trailers"] == ([["x-late", "yes"]] if kind == "trailers" else [])
        assert told["authority"] == "localhost"
        assert said["declared"] == (kind not in ("unknown", "trailers"))


# ----------------------------------------------------------------------------------------------- which version


class TestVersions:
    @pytest.mark.parametrize(("name", "version"), [("h1", "1.1"), ("h2", "2"), ("tls", "2"), ("tls1", "1.1")])
    def test_what_is_spoken(self, client: Http2Client, name: str, version: str) -> None:
        """With an origin of TLS it is found by ALPN; one that has HTTP/1.1 only is spoken to so."""
        for _ in range(2):
            assert json.loads(client.fetch("GET", "/echo", to(name)).body)["version"] == version

    def test_one_that_wants_http_1_1_for_something(self, client: Http2Client, wants: Own) -> None:
        """RFC 9113 section 7: HTTP_1_1_REQUIRED. It is remembered."""
        before = wants.count("http11")
        for body in (None, [b"once more"], [b"and again"]):
            answer = client.fetch("POST" if body else "GET", "/http11", to("wants tls"), body)
            told = json.loads(answer.body)
            assert (answer.status, told["version"]) == (200, "1.1")
            assert told["size"] == len(b"".join(body or ()))
        assert wants.count("http11") == before + 1


class TestStreams:
    @BY
    def test_one_connection_carries_many(self, client: Http2Client, own: Own, by: str) -> None:
        client.fetch("GET", "/echo", to(by))
        before = own.count("connections 2")
        numbers = [client.ask("GET", "/late?s=0.1", to(by)) for _ in range(50)]
        assert {client.answer(number).status for number in numbers} == {200}
        assert own.count("connections 2") == before

    @BY
    def test_an_origin_that_takes_few(self, client: Http2Client, narrow: Own, by: str) -> None:
        before = narrow.count("connections 2")
        numbers = [client.ask("GET", "/late?s=0.05", to(f"narrow {by}")) for _ in range(30)]
        assert {client.answer(number).status for number in numbers} == {200}
        assert narrow.count("connections 2") - before <= 30 / 4 + 1

    @BY
    def test_a_large_body_to_one_that_takes_little_of_it(self, client: Http2Client, by: str) -> None:
        told = json.loads(client.fetch("POST", "/echo", to(f"narrow {by}"), [NOISE[:200_000]]).body)
        assert told["sha256"] == hashlib.sha256(NOISE[:200_000]).hexdigest()

    @BY
    def test_large_bodies_both_ways(self, client: Http2Client, by: str) -> None:
        number = client.ask("POST", "/copy", to(by), ended=False)
        client.data(number, NOISE, ended=True)
        answer = client.answer(number)
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(NOISE).digest()

    @BY
    def test_it_goes_away_now_and_then(self, client: Http2Client, goes: Own, by: str) -> None:
        """Its connections carry five each, and say so: none of the requests is lost."""
        name, before = f"goes {by}", goes.count("connections 2")
        for _ in range(12):
            assert client.fetch("GET", "/echo", to(name)).status == 200
        assert goes.count("connections 2") - before >= 2
        numbers = [client.ask("GET", "/late?s=0.05", to(name)) for _ in range(12)]
        assert [client.answer(number).status for number in numbers] == [200] * 12

    @BY
    def test_it_goes_away_under_a_body(self, client: Http2Client, by: str) -> None:
        """What it has taken before it serves to the end."""
        name = f"goes {by}"
        numbers = [client.ask("POST", "/echo", to(name), ended=False) for _ in range(4)]
        for number in numbers:
            client.data(number, NOISE[:30_000])
        for _ in range(6):
            assert client.fetch("GET", "/echo", to(name)).status == 200
        for number in numbers:
            client.data(number, b"the end", ended=True)
        assert [json.loads(client.answer(number).body)["size"] for number in numbers] == [30_007] * 4

    @BY
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_a_request_that_it_has_not_looked_at(
        self, client: Http2Client, coulee: Doors, by: str, method: str
    ) -> None:
        """RFC 9113 section 8.7: REFUSED_STREAM can be tried again, whatever it is."""
        target = f"/refused?key={by}-{method}-{coulee.process.pid}"
        answer = client.fetch(method, target, to(by), [b"a body"] if method == "POST" else None)
        assert answer.status == 200
        assert json.loads(answer.body)["size"] == (6 if method == "POST" else 0)
        attempts = coulee.record(target)["attempts"]
        assert len(attempts) == 2

    @BY
    def test_a_client_that_takes_its_request_back(self, client: Http2Client, own: Own, coulee: Doors, by: str) -> None:
        """The origin is told, and the connection to it goes on."""
        client.fetch("GET", "/echo", to(by))
        key, before = f"{by}-{coulee.process.pid}", own.count("connections 2")
        number = client.ask("GET", f"/stuck?key={key}", to(by))
        until(lambda: own.count(f"begun {key}"), "it is there")
        client.cancel(number)
        until(lambda: own.count(f"ended {key}"), "the origin is told")
        assert client.fetch("GET", "/echo", to(by)).status == 200
        assert own.count("connections 2") == before
        assert coulee.record(f"/stuck?key={key}")["reason"] == "client_gone"

    @BY
    def test_a_client_of_http_1_that_leaves(self, own: Own, coulee: Doors, by: str) -> None:
        key = f"1-{by}-{coulee.process.pid}"
        with dialled(coulee.ports["plain"]) as sock:
            sock.sendall(f"GET /stuck?key={key} HTTP/1.1\r\nHost: a\r\nX-To: {by}\r\n\r\n".encode())
            until(lambda: own.count(f"begun {key}"), "it is there")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        until(lambda: own.count(f"ended {key}"), "the origin is told")

    @BY
    def test_an_answer_that_is_cut(self, client: Http2Client, coulee: Doors, by: str) -> None:
        """RST_STREAM in the middle of a body is seen as a cut by all clients; others go on."""
        target = f"/cut?size=100000&{by}"
        number = client.ask("GET", target, to(by))
        with pytest.raises(Cut):
            client.answer(number)
        assert client.answers[number].reset not in (None, 0)
        assert coulee.record(target)["reason"] == "upstream_reset"
        assert client.fetch("GET", "/echo", to(by)).status == 200
        with Http1Client(dialled(coulee.ports["plain"])) as other, pytest.raises(Cut):
            other.fetch("GET", target, to(by))

    @BY
    def test_it_is_asked_to_go_on(self, client: Http2Client, by: str) -> None:
        """100 comes from the origin, or from coulee, before the body does."""
        number = client.ask("POST", "/copy", to(by, ("expect", "100-continue")), ended=False)
        answer = client.answers[number]
        client.until(lambda: answer.interims, "100 comes")
        assert answer.interims[0][0] == 100
        client.data(number, b"here it is", ended=True)
        assert bytes(client.answer(number).body) == b"here it is"


# ------------------------------------------------------------------------------------------------- real programs


@pytest.fixture(scope="module")
def before_nginx(backend: str, certificates: Certificates, nginx: dict[str, int]) -> Generator[Doors, None, None]:
    origins = {"h2": {"url": f"h2c://{HOST}:{nginx['h2']}"}, "tls": {"url": f"https://{HOST}:{nginx['tls']}"}}
    with doors(backend, certificates, origins) as running:
        yield running


class TestNginx:
    @BY
    def test_messages(self, before_nginx: Doors, curl: Curl, by: str) -> None:
        url = before_nginx.url("plain")
        way = ["-H", f"X-To: {by}"]
        host = f"localhost:{before_nginx.ports['plain']}"
        answer = curl(*way, f"{url}/a?b=c")
        assert answer.body == b"hello\n"
        assert answer.get("x-said") == f"GET /a?b=c HTTP/2.0 {host} ."
        answer = curl(*way, "--head", f"{url}/file/large")
        assert (answer.status, answer.get("content-length")) == (200, str(SIZE))
        assert curl(*way, f"{url}/204").status == 204
        etag = curl(*way, f"{url}/file/large", "-r", "0-9")
        assert (etag.status, etag.body) == (206, NOISE[:10])
        assert curl(*way, "-H", f"If-None-Match: {etag.get('etag')}", f"{url}/file/large").status == 304
        answer = curl(*way, "--data-binary", "@-", f"{url}/posted", data=NOISE[:300_000])
        assert answer.get("x-said") == f"POST /posted HTTP/2.0 {host} 300000."

    @BY
    def test_large_answers_at_once(self, before_nginx: Doors, by: str) -> None:
        with Http2Client(dialled(before_nginx.ports["plain"])) as client:
            numbers = [client.ask("GET", "/file/large", to(by)) for _ in range(4)]
            for number in numbers:
                assert hashlib.sha256(client.answer(number).body).digest() == hashlib.sha256(NOISE).digest()


@pytest.fixture(scope="module")
def before_nghttpd(backend: str, certificates: Certificates, nghttpd: dict[str, int]) -> Generator[Doors, None, None]:
    origins = {"h2": {"url": f"h2c://{HOST}:{nghttpd['h2']}"}, "tls": {"url": f"https://{HOST}:{nghttpd['tls']}"}}
    with doors(backend, certificates, origins) as running:
        yield running


class TestNghttpd:
    @BY
    @pytest.mark.parametrize("version", ["1", "2"])
    def test_messages(self, before_nghttpd: Doors, by: str, version: str) -> None:
        kind: type[Client] = Http1Client if version == "1" else Http2Client
        with kind(dialled(before_nghttpd.ports["plain"])) as client:
            answer = client.fetch("GET", "/page", to(by))
            assert (answer.status, bytes(answer.body)) == (200, NOISE[:300_000])
            # It says how long the body is, and behind such a body HTTP/1.1 has no trailers.
            assert answer.trailers == ([("x-late", "so it was")] if version == "2" else [])
            answer = client.fetch("HEAD", "/page", to(by))
            assert (answer.status, answer.get("content-length")) == (200, "300000")
            assert client.fetch("GET", "/nothing", to(by)).status == 404
            answer = client.fetch("POST", "/upload", to(by), [NOISE[:200_000]], [("x-t", "1")])
            assert (answer.status, bytes(answer.body)) == (200, NOISE[:200_000])
            answer = client.fetch("PUT", "/upload", to(by, ("content-length", "5")), [b"hello"])
            assert bytes(answer.body) == b"hello"


# ------------------------------------------------------------------------------------------------ without coulee


def test_the_origins_by_themselves(own: Own, nginx: dict[str, int], nghttpd: dict[str, int]) -> None:
    """What the tests take for granted."""
    with Http2Client(dialled(nginx["h2"])) as client:
        assert client.fetch("POST", "/", [], [NOISE[:100_000]]).body == b"hello\n"
    with Http2Client(dialled(nghttpd["h2"])) as client:
        answer = client.fetch("POST", "/upload", [], [NOISE])
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(NOISE).digest()
        assert client.fetch("GET", "/page").trailers == [("x-late", "so it was")]
    found = []
    for kind, port in ((Http1Client, own.ports["h1"]), (Http2Client, own.ports["h2"])):
        with kind(dialled(port)) as each:
            found.append(
                [asked(each, "", method, kind, wish) for method in METHODS for kind in REQUESTS for wish in ANSWERS]
            )
    assert found[0] == found[1]
