"""gRPC through the real program: grpcio before it and behind it, on every backend, plain and by TLS.

The short form runs with every test run; HTTP2_LONG=1 makes it the long one (`make grpc`).
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.interop.fleet import HOST, WITHIN_S, until
from tests.interop.h2_client import Http2Client, dialled
from tests.interop.http2_proxied import LONG, Doors, doors, serving
from tests.interop.proxied import Certificates, certificates_in

grpc = pytest.importorskip("grpc", reason="the package grpcio is not installed")

from tests.interop.grpc_ends import SERVICE, Client  # noqa: E402

CALLS = 10_000 if LONG else 200
STREAM_S = 60.0 if LONG else 0.3
MESSAGES = 2000 if LONG else 100
AT_ONCE = 100
MIB = 1024 * 1024
LARGE = b"".join(hashlib.sha256(bytes((number % 256, number // 256 % 256, number // 65536))).digest()
                 for number in range(4 * MIB // 32))  # fmt: skip


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates_in(tmp_path_factory.mktemp("grpc"))


@pytest.fixture(scope="module")
def origins(certificates: Certificates) -> Iterator[dict[str, dict[str, Any]]]:
    """grpcio, one of h2 that ignores deadlines, and nobody."""
    pair = str(certificates.pair)
    with (
        serving("grpc_ends.py", pair=pair) as ports,
        serving("h2_origin.py") as stubborn,
        socket.socket() as nobody,
    ):
        nobody.bind((HOST, 0))
        yield {
            "plain": {"url": f"h2c://{HOST}:{ports['plain']}"},
            "tls": {"url": f"https://{HOST}:{ports['tls']}", "alpn": ["h2"]},
            "stubborn": {"url": f"h2c://{HOST}:{stubborn['h2']}"},
            "nobody": {"url": f"h2c://{HOST}:{nobody.getsockname()[1]}"},
        }


@pytest.fixture(scope="module")
def coulee(
    backend: str, certificates: Certificates, origins: dict[str, dict[str, Any]]
) -> Generator[Doors, None, None]:
    with doors(backend, certificates, origins) as running:
        yield running


@pytest.fixture(params=["plain", "tls"], scope="module")
def door(request: pytest.FixtureRequest) -> str:
    """By which listener; the origin is reached in the same way."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def client(coulee: Doors, door: str, certificates: Certificates) -> Generator[Client, None, None]:
    with connected(coulee, door, certificates) as found:
        yield found


def connected(coulee: Doors, door: str, certificates: Certificates, **more: Any) -> Client:
    """A client of coulee's."""
    ca = certificates.ca.read_bytes() if door == "tls" else None
    return Client(f"localhost:{coulee.ports[door]}", ca, **more)


@pytest.fixture
def to(door: str) -> Callable[..., dict[str, Any]]:
    """How a call is sent: where it is to go, which metadata, and how long it may take."""

    def chosen(origin: str = door, *metadata: tuple[str, Any], timeout: float = WITHIN_S) -> dict[str, Any]:
        return {"metadata": (("x-to", origin), *metadata), "timeout": timeout}

    return chosen


To = Callable[..., dict[str, Any]]


class TestCalls:
    def test_the_four_kinds(self, client: Client, to: To) -> None:
        assert client.unary("Echo")(b"hello", **to()) == b"hello"
        assert client.unary("Echo")(b"", **to()) == b""
        sent = [str(number).encode() * 100 for number in range(MESSAGES)]
        told = json.loads(client.gathers("Gathered")(iter(sent), **to()))
        assert told == {"number": MESSAGES, "sha256": hashlib.sha256(b"".join(sent)).hexdigest()}
        wish = json.dumps({"times": MESSAGES, "size": 1000}).encode()
        assert list(client.streams("Many")(wish, **to())) == [
            number.to_bytes(4, "big") * 250 for number in range(MESSAGES)
        ]
        assert list(client.talks("Chat")(iter(sent), **to())) == sent

    def test_one_answer_for_each_word_at_once(self, client: Client, to: To) -> None:
        """Nothing waits for more to come before it is passed on."""
        said: list[bytes] = []
        answered = threading.Semaphore(0)

        def words() -> Iterator[bytes]:
            for number in range(20):
                yield str(number).encode()
                assert answered.acquire(timeout=WITHIN_S)

        for answer in client.talks("Chat")(words(), **to()):
            said.append(answer)
            answered.release()
        assert said == [str(number).encode() for number in range(20)]

    def test_many_calls(self, client: Client, to: To) -> None:
        """More than one connection may carry, in the long form."""
        call, kwargs = client.unary("Echo"), to(timeout=60)
        under_way: list[tuple[bytes, Any]] = []
        for number in range(CALLS):
            said = str(number).encode()
            under_way.append((said, call.future(said, **kwargs)))
            if len(under_way) == 50:
                self.check(under_way)
        self.check(under_way)

    def check(self, under_way: list[tuple[bytes, Any]]) -> None:
        for said, answer in under_way:
            assert answer.result() == said
        under_way.clear()

    def test_4_mib_both_ways(self, client: Client, to: To) -> None:
        assert client.unary("Echo")(LARGE, **to()) == LARGE
        assert list(client.talks("Chat")(iter([LARGE, b"", LARGE]), **to())) == [LARGE, b"", LARGE]

    def test_100_at_once(self, client: Client, to: To) -> None:
        waiting = [client.streams("Waits")(b"crowd", **to(timeout=30)) for _ in range(AT_ONCE)]
        for each in waiting:
            assert next(each) == b"begun"
        for each in waiting:
            each.cancel()

    def test_compressed(self, coulee: Doors, door: str, certificates: Certificates, to: To) -> None:
        with connected(coulee, door, certificates, compression=grpc.Compression.Gzip) as client:
            text = b"all the same " * 100_000
            assert client.unary("Echo")(text, **to()) == text
            assert client.unary("Squeezed")(text, **to()) == text
        record = until(lambda: coulee.first(target=f"/{SERVICE}/Squeezed"), "a record")
        assert max(record["bytes_in"], record["bytes_out"]) < len(text) / 10

    def test_a_long_stream(self, client: Client, to: To) -> None:
        times = 20
        wish = json.dumps({"times": times, "every": STREAM_S / times}).encode()
        began = time.monotonic()
        late: list[float] = []
        for number, _ in enumerate(client.streams("Many")(wish, **to(timeout=STREAM_S + WITHIN_S))):
            late.append(time.monotonic() - began - number * STREAM_S / times)
        assert len(late) == times
        assert min(late) < STREAM_S / 2, "they came in the end"

    def test_metadata(self, client: Client, to: To, door: str) -> None:
        binary = bytes(range(256))
        answer, call = client.unary("Told").with_call(b"", **to(door, ("x-a", "1"), ("x-a", "2"), ("x-b-bin", binary)))
        told = json.loads(answer)
        metadata = told["metadata"]
        assert [value for name, value in metadata if name == "x-a"] in (["1", "2"], ["1, 2"], ["1,2"])
        assert ["x-b-bin", binary.hex()] in metadata
        assert any(name == "user-agent" and "grpc-python" in value for name, value in metadata)
        assert WITHIN_S - 5 < told["left_s"] < WITHIN_S + 1  # grpcio rounds up
        assert ("x-early", "1") in call.initial_metadata()
        assert ("x-early-bin", binary) in call.initial_metadata()
        assert ("x-late", "2") in call.trailing_metadata()
        assert ("x-late-bin", b"\x00\xff") in call.trailing_metadata()


class TestEnds:
    @pytest.mark.parametrize(("code", "details"), [(5, "not here"), (16, "who? ä€ % \n"), (13, "")])
    def test_an_error_without_a_message(self, client: Client, to: To, code: int, details: str) -> None:
        """Its answer is trailers only."""
        with pytest.raises(grpc.RpcError) as caught:
            client.unary("Fails")(json.dumps({"code": code, "details": details}).encode(), **to())
        error: Any = caught.value
        assert (error.code().value[0], error.details()) == (code, details)
        assert ("x-late", "2") in error.trailing_metadata()

    def test_an_error_behind_a_message(self, client: Client, to: To) -> None:
        answers = client.streams("FailsLate")(json.dumps({"code": 9, "details": "so far"}).encode(), **to())
        assert next(answers) == b"first"
        with pytest.raises(grpc.RpcError):
            next(answers)
        assert (answers.code(), answers.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "so far")

    def test_a_method_that_is_not_there(self, client: Client, to: To) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            client.unary("Nothing")(b"", **to())
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_a_deadline_of_the_client_s(self, coulee: Doors, client: Client, to: To, door: str) -> None:
        name = f"deadline {door} {coulee.process.pid}"
        began = time.monotonic()
        answers = client.streams("Waits")(name.encode(), **to(timeout=0.3))
        assert next(answers) == b"begun"
        with pytest.raises(grpc.RpcError):
            next(answers)
        assert answers.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert 0.25 < time.monotonic() - began < 3
        self.is_over(client, to, name)

    def test_a_deadline_that_the_origin_ignores(self, coulee: Doors, door: str, certificates: Certificates) -> None:
        """A client that says it, and does not keep it itself, is told by coulee; and the origin's stream is ended."""
        key = f"{door}-{coulee.process.pid}"
        context = certificates.plain if door == "tls" else None
        with Http2Client(dialled(coulee.ports[door], context)) as client:
            began = time.monotonic()
            fields = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "200m")]
            number = client.ask("POST", f"/stuck?key={key}", [*fields, ("x-to", "stubborn")])
            answer = client.answer(number)
            assert 0.15 < time.monotonic() - began < 3
            assert answer.status == 200
            assert answer.get("grpc-status") == "4"
            assert answer.get("content-type") == "application/grpc"

            def ended() -> bool:
                counts = json.loads(client.fetch("GET", "/counts", [("x-to", "stubborn")]).body)
                return bool(counts.get(f"begun {key}") == counts.get(f"ended {key}") == 1)

            until(ended, "the origin's stream ends")
        record = coulee.record(f"/stuck?key={key}")
        assert record["reason"]

    def test_the_client_cancels(self, coulee: Doors, client: Client, to: To, door: str) -> None:
        name = f"cancel {door} {coulee.process.pid}"
        answers = client.streams("Waits")(name.encode(), **to())
        assert next(answers) == b"begun"
        answers.cancel()
        self.is_over(client, to, name)

    def is_over(self, client: Client, to: To, name: str) -> None:
        """The origin has been told."""
        counts = client.unary("Counts")
        until(lambda: json.loads(counts(b"", **to())).get(f"over {name}"), "the origin is told")

    def test_the_origin_cancels(self, client: Client, to: To, door: str) -> None:
        """As a server whose handler is cancelled does."""
        with pytest.raises(grpc.RpcError) as caught:
            client.unary("Fails")(json.dumps({"code": 1, "details": "enough"}).encode(), **to())
        error: Any = caught.value
        assert (error.code(), error.details()) == (grpc.StatusCode.CANCELLED, "enough")

    def test_the_origin_breaks_off(self, coulee: Doors, door: str, certificates: Certificates) -> None:
        """RST_STREAM in the middle of a message: a client sees an error of one kind or another, and no end."""
        context = certificates.plain if door == "tls" else None
        with Http2Client(dialled(coulee.ports[door], context)) as client:
            fields = [("content-type", "application/grpc"), ("te", "trailers"), ("x-to", "stubborn")]
            number = client.ask("POST", "/cut?size=7", fields)
            answer = client.answers[number]
            client.until(lambda: answer.over, "it ends")
            status = dict(answer.trailers).get("grpc-status", answer.get("grpc-status"))
            assert answer.reset is not None or status in ("13", "14"), answer

    def test_an_origin_that_is_down(self, coulee: Doors, client: Client, to: To) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            client.unary("Echo")(b"hello", **to("nobody"))
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "upstream_refused" in error.details()
        answers = client.talks("Chat")(iter([b"one"]), **to("nobody"))
        with pytest.raises(grpc.RpcError):
            next(answers)
        assert answers.code() is grpc.StatusCode.UNAVAILABLE
        assert "upstream_refused" in answers.details()


class TestDirectly:
    """The two ends without coulee: what is found there is theirs."""

    @pytest.mark.parametrize("door", ["plain", "tls"])
    def test_they_understand_each_other(self, certificates: Certificates, door: str) -> None:
        with serving("grpc_ends.py", pair=str(certificates.pair)) as ports:
            ca = certificates.ca.read_bytes() if door == "tls" else None
            with Client(f"localhost:{ports[door]}", ca) as client:
                assert client.unary("Echo")(LARGE, timeout=WITHIN_S) == LARGE
