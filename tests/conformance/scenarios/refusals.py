"""What clients ask and do not get: requests that break HTTP, or are over a limit, or over a cap."""

from __future__ import annotations

from functools import partial
from typing import Final

from coulee.core import Limits
from tests.conformance.scenarios.script import ERROR_END, Set, ask, chunk, serve, setting
from tests.conformance.stage import Scenario, Stage

SET: Final = Set()
SMALL: Final = setting(Limits(head_bytes_max=2000, line_bytes_max=500, fields_max=10, request_body_bytes_max=10))


def _is_refused(request: bytes, stage: Stage) -> None:
    client = stage.client(request)
    client.hears(ERROR_END)
    client.hears_eof()


for _name, _request, _record in (
    ("a request without a host", b"GET / HTTP/1.1\r\n\r\n", "400 bad_request"),
    ("a request with two hosts", ask("GET /", "Host: b.test"), "400 bad_request"),
    ("a line that ends with a bare line feed", b"GET / HTTP/1.1\nHost: a\r\n\r\n", "400 bad_request"),
    ("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "400 bad_request"),
    ("both framings", ask("POST /", "Content-Length: 3", "Transfer-Encoding: chunked"), "400 bad_request"),
    ("a folded field", ask("GET /", "X: a\r\n b"), "400 bad_request"),
    ("a space before a colon", ask("GET /", "X : a"), "400 bad_request"),
    ("two lengths", ask("POST /", "Content-Length: 3", "Content-Length: 4"), "400 bad_request"),
    ("a version of tomorrow", ask("GET /", version="9.9"), "505 version_not_supported"),
    ("a coding that nobody knows", ask("POST /", "Transfer-Encoding: gzip, chunked"), "501 not_implemented"),
    ("a head over the limit", ask("GET /", *[f"X: {'y' * 400}"] * 5), "431 header_too_large"),
    ("a field over the limit", ask("GET /", f"X: {'y' * 600}"), "431 header_too_large"),
    ("a target over the limit", ask(f"GET /{'y' * 600}"), "414 target_too_long"),
    ("too many fields", ask("GET /", *["X: y"] * 11), "431 header_too_large"),
    ("a body that is announced too large", ask("POST /", body=b"twelve bytes"), "413 body_too_large"),
):
    SET.append(Scenario(_name, partial(_is_refused, _request), (_record,), config=SMALL))


@SET.play("405 method_not_allowed")
def connect_is_for_another_kind_of_proxy(stage: Stage) -> None:
    client = stage.client(ask("CONNECT a.test:443"))
    client.hears(ERROR_END)
    client.hears_eof()


@SET.play("417 expectation_failed")
def an_expectation_that_nobody_knows(stage: Stage) -> None:
    client = stage.client(ask("GET /", "Expect: miracles"))
    client.hears(ERROR_END)
    client.hears_eof()


@SET.play("200", "400 bad_request")
def garbage_behind_a_request(stage: Stage) -> None:
    client = stage.client(ask(), b"garbage\r\n\r\n", ask("GET /unread"))
    serve(stage, client, b"hello")
    client.hears(ERROR_END)
    client.hears_eof()


@SET.play("400 bad_request", config=setting(underscore_in_names="refuse"))
def a_page_for_a_browser(stage: Stage) -> None:
    client = stage.client(ask("GET /", "Accept: text/html,*/*;q=0.8", "X_Y: z"))
    client.hears(b"</html>\n")
    client.hears_eof()


@SET.play("400 bad_request")
def a_chunk_that_is_none(stage: Stage) -> None:
    client = stage.client(ask("POST /", "Transfer-Encoding: chunked"), chunk(b"good"))
    origin = stage.origin()
    origin.hears(b"good\r\n")
    client.says(b"zz\r\n")
    client.hears(ERROR_END)
    client.hears_eof()
    origin.hears_reset()


@SET.play("413 body_too_large", config=SMALL)
def a_body_that_turns_out_too_large(stage: Stage) -> None:
    client = stage.client(ask("POST /", "Transfer-Encoding: chunked"), chunk(b"little"))
    origin = stage.origin()
    origin.hears(b"little\r\n")
    client.says(chunk(b"too much"))
    client.hears(ERROR_END)
    client.hears_eof()
    origin.hears_reset()


@SET.play("0 client_gone")
def a_body_that_ends_before_its_length(stage: Stage) -> None:
    client = stage.client(ask("POST /", "Content-Length: 10"), b"half")
    origin = stage.origin()
    origin.hears(b"half")
    client.half_closes()
    client.hears_reset()
    origin.hears_reset()


@SET.play("200", "503 too_many_connections", "200", config=setting(Limits(connections_per_address_max=1)))
def one_connection_too_many_from_an_address(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = serve(stage, client, b"first")
    other = stage.client(ask("GET /2"))
    other.hears(ERROR_END)
    other.hears_eof()
    client.says(ask("GET /3"))
    serve(stage, client, b"third", origin)


@SET.play("200", "503 too_many_connections", config=setting(Limits(downstream_connections_max=1)))
def one_connection_too_many_in_all(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    serve(stage, client, b"first")
    other = stage.client(ask("GET /2"))
    other.hears(ERROR_END)
    other.hears_eof()


@SET.play("200", config=setting(Limits(connections_per_address_max=1, refused_connections_max=0)))
def one_connection_too_many_is_turned_away(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    serve(stage, client, b"first")
    other = stage.client()
    other.hears_reset()


@SET.play("200", "200", config=setting(Limits(downstream_connections_max=1, refused_connections_max=0)))
def one_connection_too_many_waits_outside(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = serve(stage, client, b"first")
    other = stage.client(ask("GET /2"))
    client.closes()
    serve(stage, other, b"second", origin)
