"""gRPC-Web to gRPC and back, over HTTP/1.1, as browsers speak it; the origin's chunks carry the trailers of gRPC."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core import Config, Exchange, Filter, Forwarding, GrpcWeb, Headers, Limits, Proxy, Response, Retry, respond
from coulee.lb import Cluster
from tests.core.ledger import body, on
from tests.core.world import LISTENER, World

MESSAGE = b"\0\0\0\0\x03abc"
GRPC = "application/grpc-web"
TEXT = "application/grpc-web-text"
HEAD = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Type: application/grpc+proto\r\nTransfer-Encoding: chunked\r\n\r\n"
FINE = b"grpc-status: 0\r\ngrpc-message: \r\n"
SITE = "https://app.example.com"


def make(
    *filters: Filter,
    to: tuple[str, ...] = ("http://10.0.0.1",),
    retry: Retry | None = None,
    limits: Limits | None = None,
) -> World:
    config = Config(
        forwarding=Forwarding(x_forwarded=False, forwarded=False), retry=retry or Retry(), limits=limits or Limits()
    )
    proxy = Proxy(Cluster(*to), filters or [GrpcWeb()], config)
    return World(proxy.fresh(rng=Random(1), wall_clock_offset_s=1e9, listen=[LISTENER]))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def last(trailers: bytes) -> bytes:
    return b"0\r\n" + trailers + b"\r\n"


def frame(trailers: bytes) -> bytes:
    return b"\x80" + len(trailers).to_bytes(4, "big") + trailers


@dataclass
class Got:
    """An answer, read back."""

    status: int
    headers: Headers
    body: bytes
    chunks: list[bytes] = field(default_factory=list[bytes])
    whole: bool = True


def read(sent: bytes) -> Got:
    head, _, rest = sent.partition(b"\r\n\r\n")
    line, _, block = head.partition(b"\r\n")
    headers = Headers.from_block(b"\r\n" + block)
    status = int(line.split(b" ")[1]) if line.startswith(b"HTTP/") else 0
    if headers.get("transfer-encoding") != "chunked":
        return Got(status, headers, rest)
    chunks: list[bytes] = []
    while found := re.match(rb"([0-9a-fA-F]+)\r\n", rest):
        size = int(found[1], 16)
        data, rest = rest[found.end() : found.end() + size], rest[found.end() + size + 2 :]
        if not size:
            assert rest == b"", "there are no trailers"
            return Got(status, headers, b"".join(chunks), chunks)
        chunks.append(data)
    return Got(status, headers, b"".join(chunks), chunks, False)


def ask(kind: str, data: bytes, *fields: str, method: str = "POST") -> bytes:
    lines = [f"{method} /a.B/C HTTP/1.1", "Host: a", *fields, f"Content-Length: {len(data)}"]
    if kind:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def call(world: World, kind: str = GRPC, data: bytes = MESSAGE, *fields: str) -> tuple[int, int, bytes]:
    """A client calls: its connection, the origin's, and what the origin got."""
    client = world.client()
    world.receives(client, ask(kind, data, *fields))
    origin = world.connects()
    return client, origin, world.sent(origin)


# ------------------------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize(
    ("kind", "up"),
    [
        ("application/grpc-web", "application/grpc"),
        ("application/grpc-web+proto", "application/grpc+proto"),
        ("application/grpc-web+json", "application/grpc+json"),
        ("Application/GRPC-Web+proto ; charset=utf-8", "application/grpc+proto"),
        ("application/grpc-web;v=1", "application/grpc"),
        ("application/grpc-web-text", "application/grpc"),
        ("application/grpc-web-text+proto", "application/grpc+proto"),
        ("application/grpc-web-text-base64", "application/grpc"),
    ],
)
def test_a_call_goes_up_as_one_of_grpc(kind: str, up: str) -> None:
    world = make()
    _, _, sent = call(world, kind, b64encode(MESSAGE) if "text" in kind else MESSAGE, "grpc-timeout: 1S")
    assert sent.startswith(b"POST /a.B/C HTTP/1.1\r\n")
    assert b"\r\ncontent-type: %s\r\n" % up.encode() in sent
    assert sent.lower().count(b"\r\ncontent-type:") == 1
    assert b"\r\nte: trailers\r\n" in sent
    assert b"\r\ngrpc-timeout: 1S\r\n" in sent
    assert body(sent) == MESSAGE


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("application/grpc-web", "GET"),
        ("application/grpc-web", "OPTIONS"),
        ("application/grpc-webx", "POST"),
        ("application/grpc-web-textual", "POST"),
        ("application/grpc", "POST"),
        ("application/json", "POST"),
        ("x, application/grpc-web", "POST"),
        ("", "POST"),
    ],
)
def test_what_is_no_call_passes_untouched(kind: str, method: str) -> None:
    world = make(GrpcWeb(SITE))
    client = world.client()
    request = ask(kind, b"", f"Origin: {SITE}", method=method).replace(b"Content-Length: 0\r\n", b"")
    world.receives(client, request)
    origin = world.connects()
    sent = world.sent(origin)
    assert b"te: trailers" not in sent
    assert sent.count(kind.encode()) == (1 if kind else sent.count(b""))
    world.receives(origin, HEAD + chunk(b"x") + last(FINE))
    assert world.sent(client).endswith(b"\r\n\r\n1\r\nx\r\n0\r\n" + FINE + b"\r\n")
    assert b"access-control" not in world.sent(client).lower()


def test_the_status_comes_in_the_last_frame() -> None:
    world = make()
    client, origin, _ = call(world)
    world.receives(origin, HEAD + chunk(MESSAGE) + last(b"Grpc-Status: 0\r\nX-Sum:  1 \r\nx-sum: 2\r\n"))
    got = read(world.sent(client))
    assert (got.status, got.whole) == (200, True)
    assert got.headers["content-type"] == "application/grpc-web+proto"
    assert got.body == MESSAGE + frame(b"grpc-status: 0\r\nx-sum: 1\r\nx-sum: 2\r\n")
    (record,) = world.access
    assert (record.status, record.reason, record.tags) == (200, "", {"grpc_status": 0})
    assert record.bytes_out == len(got.body)
    world.receives(client, ask(GRPC, MESSAGE))
    assert body(world.sent(origin)) == MESSAGE, "both connections are used again"
    world.receives(origin, HEAD + last(b"Grpc-Status: 0\r\n"))
    world.leaves_nothing()


def test_messages_come_when_they_come() -> None:
    world = make()
    client, origin, _ = call(world, TEXT, b64encode(MESSAGE))
    world.receives(origin, HEAD)
    assert body(world.sent(client)) == b""
    for data in (MESSAGE, MESSAGE[:4], MESSAGE[4:]):
        world.receives(origin, chunk(data))
        assert world.sent(client) == chunk(b64encode(data)), "whole, with its padding"
    world.receives(origin, last(FINE))
    assert world.sent(client) == chunk(b64encode(frame(FINE))) + last(b"")


@pytest.mark.parametrize(
    ("kind", "accept", "answered"),
    [
        (GRPC, "", "application/grpc-web+proto"),
        (TEXT, "", "application/grpc-web-text+proto"),
        (GRPC, "*/*", "application/grpc-web+proto"),
        (TEXT, "application/json", "application/grpc-web-text+proto"),
        (GRPC, "application/grpc-web-text", "application/grpc-web-text+proto"),
        (TEXT, "application/grpc-web", "application/grpc-web+proto"),
        (TEXT, "application/grpc-web+proto", "application/grpc-web+proto"),
        (GRPC, "*/*, Application/GRPC-web-text+proto;q=1", "application/grpc-web-text+proto"),
        (TEXT, "application/grpc-web, application/grpc-web-text", "application/grpc-web+proto"),
        (TEXT, "application/grpc-webx", "application/grpc-web-text+proto"),
        (GRPC, "application/grpc-web-text-base64", "application/grpc-web-text+proto"),
    ],
)
def test_the_client_says_what_it_reads(kind: str, accept: str, answered: str) -> None:
    world = make()
    data = b64encode(MESSAGE) if kind == TEXT else MESSAGE
    client, origin, sent = call(world, kind, data, *([f"Accept: {accept}"] if accept else []))
    assert body(sent) == MESSAGE
    world.receives(origin, HEAD + chunk(MESSAGE) + last(FINE))
    got = read(world.sent(client))
    assert got.headers["content-type"] == answered
    pieces = [b64decode(piece) for piece in got.chunks] if "text" in answered else got.chunks
    assert pieces == [MESSAGE, frame(FINE)]


@pytest.mark.parametrize(
    ("kind", "answered"),
    [
        ("application/grpc", "application/grpc-web-text"),
        ("APPLICATION/grpc+Proto ;x=1", "application/grpc-web-text+Proto"),
    ],
)
def test_an_answer_without_messages_keeps_its_status_in_the_head(kind: str, answered: str) -> None:
    world = make()
    client, origin, _ = call(world, TEXT, b64encode(MESSAGE))
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\ngrpc-status: 5\r\nContent-Length: 0\r\n\r\n"
    world.receives(origin, head.encode())
    got = read(world.sent(client))
    assert (got.headers["content-type"], got.headers["grpc-status"], got.body) == (answered, "5", b"")
    assert world.access[0].tags == {"grpc_status": 5}


@pytest.mark.parametrize("kind", ["text/html", "application/json", "application/grpcx", "application/grpc-web"])
def test_what_is_no_answer_of_grpc_passes_untouched(kind: str) -> None:
    world = make()
    client, origin, _ = call(world, TEXT, b64encode(MESSAGE))
    head = f"HTTP/1.1 502 Bad\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    world.receives(origin, head + chunk(b"oops") + last(b"x: 1\r\n"))
    sent = world.sent(client)
    assert sent.startswith(b"HTTP/1.1 502 Bad\r\nContent-Type: %s\r\n" % kind.encode())
    assert sent.endswith(chunk(b"oops") + last(b"x: 1\r\n"))


def test_an_answer_without_a_type_passes_untouched() -> None:
    world = make()
    client, origin, _ = call(world, TEXT, b64encode(MESSAGE))
    world.receives(origin, b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 1\r\n\r\nx")
    assert world.sent(client) == b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 1\r\n\r\nx"


def test_the_filters_behind_it_see_grpc() -> None:
    seen: list[Any] = []
    world = make(
        GrpcWeb(),
        on("upstream_request_filter", lambda _, request: seen.append(request.headers["content-type"])),
        on("request_body_filter", lambda _, data, __: seen.append(data)),
        on("response_body_filter", lambda _, data, __: seen.append(data)),
        on("response_trailer_filter", lambda _, trailers: trailers.set("grpc-status", "9")),
    )
    client, origin, _ = call(world, TEXT, b64encode(MESSAGE))
    world.receives(origin, HEAD + chunk(MESSAGE) + last(b"grpc-status: 0\r\n"))
    assert seen == ["application/grpc", MESSAGE, MESSAGE, b""]
    assert b64decode(read(world.sent(client)).chunks[1]) == frame(b"grpc-status: 9\r\n")


# ------------------------------------------------------------------------------------------------------------ base64


def upload(pieces: list[bytes]) -> tuple[World, tuple[int, int], bytes]:
    """A body of base64 that comes in these pieces: over which connections, and what the origin gets of it."""
    world = make()
    client = world.client()
    world.receives(client, ask(TEXT, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
    origin = world.connects()
    head = world.sent(origin)
    for piece in pieces:
        if piece:
            world.receives(client, chunk(piece))
    world.receives(client, last(b""))
    return world, (client, origin), read(head + world.sent(origin)).body


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (b"", b""),
        (b"YWJj", b"abc"),
        (b"YQ==", b"a"),
        (b"YWI=", b"ab"),
        (b"YQ==YWI=YWJj", b"aababc"),
        (b"YWI=YQ==", b"aba"),
        (b"+/+/", b"\xfb\xff\xbf"),
    ],
)
def test_any_split_of_base64_means_the_same(text: bytes, data: bytes) -> None:
    assert upload([text])[2] == data
    assert upload([text[at : at + 1] for at in range(len(text))])[2] == data
    for at in range(len(text)):
        assert upload([text[:at], text[at:]])[2] == data


@given(st.data())
def test_what_a_client_encodes_in_pieces_arrives_whole(data: st.DataObject) -> None:
    """Against the plainest reference: each piece is encoded by itself, and cut somewhere else."""
    pieces = data.draw(st.lists(st.binary(max_size=9), max_size=6))
    text = b"".join(map(b64encode, pieces))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    cut = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert upload(cut)[2] == b"".join(pieces)


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=6), st.booleans())
def test_what_comes_down_can_be_read_as_it_comes(pieces: list[bytes], text: bool) -> None:
    world = make()
    client, origin, _ = call(world, TEXT if text else GRPC, b"")
    world.receives(origin, HEAD)
    for piece in pieces:
        world.receives(origin, chunk(piece))
    world.receives(origin, last(FINE))
    got = read(world.sent(client))
    groups = [got.body[at : at + 4] for at in range(0, len(got.body), 4)]
    assert (b"".join(map(b64decode, groups)) if text else got.body) == b"".join(pieces) + frame(FINE)


WRONG = [b"A", b"AB", b"ABC", b"YWJjA", b"A===", b"====", b"=AAA", b"AA=A", b"AA==A", b"AA=AAAAA", b"YW J", b"YWJ\n",
         b"YWJjYW\nj", b"YWJ-", b"YWJ\xe9", b"YWJjYQ=a",
         b"YWJj----", b"YWJj\r\n\r\n"]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.parametrize("size", [1, 3, 99])
def test_what_is_not_base64_ends_the_call(text: bytes, size: int) -> None:
    world, (client, origin), _ = upload([text[at : at + size] for at in range(0, len(text), size)])
    (record,) = world.access
    assert (record.reason, record.tags) == ("bad_request", {"grpc_status": 13})
    assert record.detail.startswith("the body is not base64: ")
    got = read(world.sent(client))
    assert (got.status, got.headers["content-type"], got.headers["grpc-status"]) == (200, TEXT, "13")
    assert origin in world.closed, "what it has of the call is cut off"


def test_an_attempt_decodes_from_the_beginning() -> None:
    world = make()
    client = world.client()
    text = b64encode(MESSAGE)
    world.receives(client, ask(TEXT, b"").replace(b"Content-Length: 0", b"Content-Length: %d" % len(text)) + text[:6])
    first = world.connects()
    assert body(world.sent(first)) == chunk(MESSAGE[:3])
    world.resets(first)
    assert read(world.sent(client)).headers["grpc-status"] == "14", "a POST is not sent twice"
    two = ("http://10.0.0.1", "http://10.0.0.2")
    retrying = make(GrpcWeb(), on("error_while_proxy", lambda *_: True), to=two)
    client = retrying.client()
    retrying.receives(
        client, ask(TEXT, b"").replace(b"Content-Length: 0", b"Content-Length: %d" % len(text)) + text[:6]
    )
    retrying.resets(retrying.connects())
    second = retrying.connects()
    assert body(retrying.sent(second)) == chunk(MESSAGE[:3])
    retrying.receives(client, text[6:])
    assert retrying.sent(second) == chunk(MESSAGE[3:]) + last(b"")


# ------------------------------------------------------------------------------------------------- what goes wrong


def test_an_error_of_ours_is_one_that_the_client_reads() -> None:
    world = make(GrpcWeb(SITE), retry=Retry(retries_max=0))
    client = world.client()
    world.receives(client, ask(f"{TEXT}+proto", b64encode(MESSAGE), f"Origin: {SITE}"))
    world.refuses()
    got = read(world.sent(client))
    assert (got.status, got.body) == (200, b"")
    assert got.headers["content-type"] == "application/grpc-web-text+proto"
    assert got.headers["grpc-status"] == "14"
    assert got.headers["grpc-message"] == "upstream_refused: nothing listens at the endpoint's address"
    assert got.headers["proxy-status"] == 'coulee; error=connection_refused; details="upstream_refused"'
    assert got.headers["access-control-allow-origin"] == SITE
    (record,) = world.access
    assert (record.status, record.reason, record.tags) == (200, "upstream_refused", {"grpc_status": 14})


def test_a_call_that_is_refused_at_the_door_is_told_so_too() -> None:
    world = make(limits=Limits(request_body_bytes_max=4))
    client = world.client()
    world.receives(client, ask(GRPC, MESSAGE, "Accept: application/grpc-web-text"))
    got = read(world.sent(client))
    assert (got.status, got.headers["content-type"], got.headers["grpc-status"]) == (200, TEXT, "8")


@pytest.mark.parametrize("request_", [ask("", b"x", method="POST"), ask(GRPC, b"x", method="PUT"), b"nonsense\r\n\r\n"])
def test_other_errors_are_as_ever(request_: bytes) -> None:
    world = make(limits=Limits(request_body_bytes_max=0), retry=Retry(retries_max=0))
    client = world.client()
    world.receives(client, request_)
    if world.connecting:
        world.refuses()
    got = read(world.sent(client))
    assert got.status >= 400
    assert got.headers["content-type"] == "application/json"


def test_an_origin_that_dies_in_the_middle() -> None:
    world = make()
    client, origin, _ = call(world, TEXT, b64encode(MESSAGE))
    world.receives(origin, HEAD + chunk(MESSAGE))
    world.resets(origin)
    got = read(world.sent(client))
    assert got.whole
    end = b64decode(got.chunks[1])
    assert end == frame(
        b"grpc-status: 14\r\n"
        b"grpc-message: upstream_reset: the endpoint closed the connection before its answer was whole\r\n"
    )
    assert world.access[0].reason == "upstream_reset"


def test_the_deadline_holds_for_all_of_the_call() -> None:
    world = make()
    client, origin, _ = call(world, GRPC, MESSAGE, "grpc-timeout: 500m")
    world.receives(origin, HEAD + chunk(MESSAGE))
    world.wait(0.5)
    got = read(world.sent(client))
    assert got.whole
    assert got.chunks[1].startswith(b"\x80\0\0\0")
    assert b"grpc-status: 4\r\n" in got.chunks[1]
    assert world.access[0].reason == "deadline_exceeded"


def test_a_deadline_that_cannot_be_read() -> None:
    world = make()
    client = world.client()
    world.receives(client, ask(GRPC, MESSAGE, "grpc-timeout: soon"))
    assert read(world.sent(client)).headers["grpc-status"] == "13"


# -------------------------------------------------------------------------------------------------- who may call


def preflight(world: World, *fields: str, method: str = "POST", wanted: str = "content-type,x-grpc-web") -> int:
    client = world.client()
    lines = [f"Access-Control-Request-Method: {method}", *fields]
    if wanted:
        lines.append(f"Access-Control-Request-Headers: {wanted}")
    world.receives(client, ask("", b"", *lines, method="OPTIONS").replace(b"Content-Length: 0\r\n", b""))
    return client


def access(headers: Headers) -> dict[str, str]:
    return {
        name.removeprefix("access-control-"): value
        for name, value in headers
        if name == "vary" or name.startswith("access-control-")
    }


@pytest.mark.parametrize(
    ("filter_", "origin", "status", "said"),
    [
        (GrpcWeb(SITE), SITE, 204, {"vary": "origin", "allow-origin": SITE}),
        (GrpcWeb("https://b", SITE), SITE, 204, {"vary": "origin", "allow-origin": SITE}),
        (GrpcWeb("*"), SITE, 204, {"allow-origin": "*"}),
        (GrpcWeb("*"), "null", 204, {"allow-origin": "*"}),
        (
            GrpcWeb(SITE, credentials=True, max_age_s=0),
            SITE,
            204,
            {"vary": "origin", "allow-origin": SITE, "allow-credentials": "true", "max-age": "0"},
        ),
        (GrpcWeb(SITE), "https://evil.example.com", 403, {"vary": "origin"}),
        (GrpcWeb(SITE), SITE + ".evil.com", 403, {"vary": "origin"}),
        (GrpcWeb(SITE), "http://app.example.com", 403, {"vary": "origin"}),
        (GrpcWeb(SITE), "null", 403, {"vary": "origin"}),
    ],
)
def test_a_browser_asks_beforehand(filter_: GrpcWeb, origin: str, status: int, said: dict[str, str]) -> None:
    world = make(filter_)
    client = preflight(world, f"Origin: {origin}", wanted="content-type, X-Grpc-Web,x-user-agent")
    got = read(world.sent(client))
    assert (got.status, got.body) == (status, b"")
    if status == 204:
        said = {
            "allow-methods": "POST",
            "allow-headers": "content-type, X-Grpc-Web,x-user-agent",
            "max-age": "600",
        } | said
    assert access(got.headers) == said
    assert not world.connecting, "it is answered here"


@pytest.mark.parametrize(
    ("filter_", "fields", "method", "wanted"),
    [
        (GrpcWeb(), [f"Origin: {SITE}"], "POST", "x-grpc-web"),
        (GrpcWeb(SITE), [], "POST", "x-grpc-web"),
        (GrpcWeb(SITE), [f"Origin: {SITE}"], "PUT", "x-grpc-web"),
        (GrpcWeb(SITE), [f"Origin: {SITE}"], "POST", "content-type"),
        (GrpcWeb(SITE), [f"Origin: {SITE}"], "POST", "x-grpc-webs"),
        (GrpcWeb(SITE), [f"Origin: {SITE}"], "POST", ""),
    ],
)
def test_what_asks_for_something_else_is_not_for_us(
    filter_: GrpcWeb, fields: list[str], method: str, wanted: str
) -> None:
    world = make(filter_)
    preflight(world, *fields, method=method, wanted=wanted)
    assert world.sent(world.connects()).startswith(b"OPTIONS /a.B/C ")


SAID = {"expose-headers": "grpc-status, grpc-message, grpc-status-details-bin"}


@pytest.mark.parametrize(
    ("filter_", "origin", "said"),
    [
        (GrpcWeb(), SITE, {}),
        (GrpcWeb(SITE), SITE, SAID | {"vary": "origin", "allow-origin": SITE}),
        (GrpcWeb(SITE), "https://other", {"vary": "origin"}),
        (GrpcWeb(SITE), "", {"vary": "origin"}),
        (GrpcWeb("*"), SITE, SAID | {"allow-origin": "*"}),
        (GrpcWeb("*"), "", {}),
        (
            GrpcWeb(SITE, credentials=True, exposed=["x-trace", "x-b"]),
            SITE,
            {
                "vary": "origin",
                "allow-origin": SITE,
                "allow-credentials": "true",
                "expose-headers": "grpc-status, grpc-message, grpc-status-details-bin, x-trace, x-b",
            },
        ),
    ],
)
def test_an_answer_says_who_may_read_it(filter_: GrpcWeb, origin: str, said: dict[str, str]) -> None:
    world = make(filter_)
    fields = [f"Origin: {origin}"] if origin else []
    client, upstream, _ = call(world, GRPC, MESSAGE, *fields)
    world.receives(upstream, HEAD + chunk(MESSAGE) + last(FINE))
    assert access(read(world.sent(client)).headers) == said


def test_what_the_origin_says_of_it_is_replaced() -> None:
    world = make(GrpcWeb(SITE))
    client, origin, _ = call(world, GRPC, MESSAGE, f"Origin: {SITE}")
    world.receives(origin, HEAD[:-2] + b"access-control-allow-origin: *\r\nvary: accept\r\n\r\n" + last(FINE))
    got = read(world.sent(client))
    assert got.headers.get_all("access-control-allow-origin") == [SITE]
    assert got.headers.get_all("vary") == ["accept", "origin"]


def test_an_answer_of_another_filter_says_it_too() -> None:
    def deny(exchange: Exchange) -> Response:
        return respond(401, "no\n")

    world = make(GrpcWeb(SITE), on("request_filter", deny))
    client = world.client()
    world.receives(client, ask(TEXT, b64encode(MESSAGE), f"Origin: {SITE}"))
    got = read(world.sent(client))
    assert (got.status, got.body, got.headers["access-control-allow-origin"]) == (401, b"no\n", SITE)


@pytest.mark.parametrize(
    ("arguments", "more", "words"),
    [
        (("*", SITE), {}, "leave out the others"),
        (("*",), {"credentials": True}, "name the origins"),
        ((SITE + "/",), {}, "no origin"),
        ((SITE + "/app",), {}, "no origin"),
        (("app.example.com",), {}, "no origin"),
        (("https://*.example.com",), {}, "no origin"),
        (("HTTPS://app.example.com",), {}, "no origin"),
        (("null",), {}, "no origin"),
        (("https://a, https://b",), {}, "no origin"),
        ((SITE,), {"exposed": ["x trace"]}, "no field name"),
        ((SITE,), {"exposed": ["x-tr\xe4ce"]}, "no field name"),
        ((SITE,), {"exposed": [""]}, "no field name"),
        ((SITE,), {"max_age_s": -1}, "0 or above"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[str, ...], more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        GrpcWeb(*arguments, **more)


def test_origins_may_have_ports_and_schemes_of_their_own() -> None:
    GrpcWeb("http://localhost:8080", "http://[::1]:80", "capacitor://localhost", "chrome-extension://abcdef")
