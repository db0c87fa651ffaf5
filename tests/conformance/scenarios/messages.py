"""Messages of every kind, on their way through: nothing goes wrong here."""

from __future__ import annotations

from typing import Final

from coulee.core import Exchange, Filter, Forwarding, Limits, Timeouts, sleep
from tests.conformance.scenarios.script import LAST_CHUNK, Set, answer, ask, chunk, pattern, serve, setting
from tests.conformance.stage import END, Stage

SET: Final = Set()
MUCH: Final = pattern("much", 300_000)
MORE_THAN_FITS: Final = pattern("more than kernels take", 10_000_000) + b"THE END"


@SET.play("200")
def a_get_answered_with_a_length(stage: Stage) -> None:
    client = stage.client(ask("GET /a?b=c", "Accept: */*", "Cookie: x=1", "Cookie: y=2"))
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 Fine", "Set-Cookie: a=1", "Set-Cookie: b=2", "Server: x", body=b"hello"))
    client.hears(b"hello")


@SET.play("200")
def a_head_request_has_no_body_in_its_answer(stage: Stage) -> None:
    client = stage.client(ask("HEAD /"))
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Content-Length: 5"))
    client.hears(END)


@SET.play("201")
def a_post_with_a_length(stage: Stage) -> None:
    client = stage.client(ask("POST /new", body=b"name=value"))
    origin = stage.origin()
    origin.hears(b"name=value")
    origin.says(answer("201 Created", "Location: /1", body=b""))
    client.hears(END)


@SET.play("200")
def a_post_in_chunks_with_extensions(stage: Stage) -> None:
    client = stage.client(ask("POST /", "Transfer-Encoding: chunked"))
    origin = stage.origin()
    origin.hears(END)
    client.says(b"3;a=b\r\nabc\r\n", chunk(b"defgh"), LAST_CHUNK)
    origin.hears(LAST_CHUNK)
    origin.says(answer(body=b"got it"))
    client.hears(b"got it")


@SET.play("200")
def a_post_that_comes_piece_by_piece(stage: Stage) -> None:
    client = stage.client(ask("POST /", "Content-Length: 9"), b"one")
    origin = stage.origin()
    for piece in (b"one", b"two", b"end"):
        if piece != b"one":
            client.says(piece)
        origin.hears(piece)
    origin.says(answer(body=b"got it"))
    client.hears(b"got it")


@SET.play("200")
def an_answer_in_chunks(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Transfer-Encoding: chunked"))
    for piece in (b"one", b"two", b"end"):
        origin.says(chunk(piece))
        client.hears(piece)
    origin.says(LAST_CHUNK)
    client.hears(LAST_CHUNK)


@SET.play("200")
def an_answer_that_the_end_of_its_connection_ends(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer(), b"until the end")
    client.hears(b"until the end")
    origin.half_closes()
    client.hears(LAST_CHUNK)
    origin.hears_eof()


@SET.play("200")
def a_client_of_an_old_version(stage: Stage) -> None:
    client = stage.client(ask(version="1.0"))
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Transfer-Encoding: chunked"), chunk(b"hello"), LAST_CHUNK)
    client.hears(b"hello")
    client.hears_eof()


@SET.play("200")
def a_client_of_an_old_version_without_a_host(stage: Stage) -> None:
    client = stage.client(b"GET / HTTP/1.0\r\n\r\n")
    serve(stage, client, b"hello")
    client.hears_eof()


@SET.play("200")
def an_origin_of_an_old_version(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer(version="1.0", body=b"hello"))
    client.hears(b"hello")
    origin.hears_eof()


@SET.play("200", "200", "200")
def both_connections_are_used_again(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = serve(stage, client, b"first")
    for number, body in ((2, b"second"), (3, b"third")):
        client.says(ask(f"GET /{number}"))
        serve(stage, client, body, origin)


@SET.play("200", "200")
def two_clients_share_a_connection_to_the_origin(stage: Stage) -> None:
    one = stage.client(ask("GET /1"))
    origin = serve(stage, one, b"first")
    other = stage.client(ask("GET /2"))
    serve(stage, other, b"second", origin)


@SET.play("200", "200")
def two_clients_at_once_need_two_connections(stage: Stage) -> None:
    one = stage.client(ask("GET /1"))
    origin = stage.origin()
    origin.hears(END)
    other = stage.client(ask("GET /2"))
    serve(stage, other, b"second")
    origin.says(answer(body=b"first"))
    one.hears(b"first")


@SET.play("200", "204", "200")
def pipelined_requests_are_answered_in_their_order(stage: Stage) -> None:
    client = stage.client(ask("GET /1"), ask("DELETE /2"), ask("GET /3"))
    origin = serve(stage, client, b"first")
    origin.hears(END)
    origin.says(answer("204 No Content"))
    client.hears(END)
    serve(stage, client, b"third", origin)


@SET.play("200")
def a_client_that_expects_100_is_told_to_go_on(stage: Stage) -> None:
    client = stage.client(ask("POST /", "Expect: 100-continue", "Content-Length: 5"))
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("100 Continue"))
    client.hears(END)
    client.says(b"hello")
    origin.hears(b"hello")
    origin.says(answer(body=b"got it"))
    client.hears(b"got it")


@SET.play("403")
def a_client_that_expects_100_is_refused(stage: Stage) -> None:
    client = stage.client(ask("POST /", "Expect: 100-continue", "Content-Length: 5"))
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("403 Forbidden", body=b"no"))
    client.hears(b"no")
    client.hears_eof()
    origin.hears_reset()


@SET.play("200")
def early_hints_go_before_the_answer(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("103 Early Hints", "Link: </a.css>"))
    client.hears(END)
    origin.says(answer(body=b"hello"))
    client.hears(b"hello")


@SET.play("200")
def trailers_both_ways(stage: Stage) -> None:
    client = stage.client(ask("POST /", "Transfer-Encoding: chunked", "TE: trailers"))
    origin = stage.origin()
    origin.hears(END)
    client.says(chunk(b"up"), b"0\r\nX-Sum: 1\r\n\r\n")
    origin.hears(b"X-Sum: 1\r\n\r\n")
    origin.says(answer("200 OK", "Transfer-Encoding: chunked", "Trailer: X-Sum"))
    client.hears(END)
    origin.says(chunk(b"down"), b"0\r\nX-Sum: 2\r\n\r\n")
    client.hears(b"X-Sum: 2\r\n\r\n")


@SET.play("204", "304", "200")
def answers_that_have_no_body(stage: Stage) -> None:
    client = stage.client(ask("DELETE /1"))
    origin = stage.origin()
    for status, line in (("204 No Content", "GET /2"), ("304 Not Modified", "GET /3")):
        origin.hears(END)
        origin.says(answer(status, 'ETag: "x"'))
        client.hears(END)
        client.says(ask(line))
    serve(stage, client, b"hello", origin)


@SET.play("204", "200")
def options_that_may_go_no_further(stage: Stage) -> None:
    client = stage.client(ask("OPTIONS *", "Max-Forwards: 0"))
    client.hears(END)
    client.says(ask("OPTIONS *", "Max-Forwards: 2"))
    serve(stage, client, b"from the origin")


@SET.play("200")
def fields_of_one_hop_stay_on_it(stage: Stage) -> None:
    client = stage.client(ask("GET /", "Connection: keep-alive, X-Mine", "X-Mine: 1", "Keep-Alive: 5", "X-Other: 2"))
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Connection: X-Its", "X-Its: 1", "Proxy-Connection: y", "X-Other: 2", body=b"hello"))
    client.hears(b"hello")


@SET.play("200", config=setting(forwarding=Forwarding(via="gate")))
def the_origin_is_told_who_asks(stage: Stage) -> None:
    client = stage.client(ask("GET /", "X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4"))
    serve(stage, client, b"hello")


@SET.play("200")
def a_target_with_scheme_and_host(stage: Stage) -> None:
    client = stage.client(ask("GET http://b.test/there"))
    serve(stage, client, b"hello")


@SET.play("200", "200")
def empty_lines_before_a_request(stage: Stage) -> None:
    client = stage.client(b"\r\n", ask("GET /1"))
    origin = serve(stage, client, b"first")
    client.says(b"\r\n", ask("GET /2"))
    serve(stage, client, b"second", origin)


@SET.play("200")
def a_client_that_wants_the_connection_closed(stage: Stage) -> None:
    client = stage.client(ask("GET /", "Connection: close"))
    serve(stage, client, b"hello")
    client.hears_eof()


@SET.play("200", "200")
def an_origin_that_wants_the_connection_closed(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Connection: close", body=b"first"))
    client.hears(b"first")
    origin.hears_eof()
    client.says(ask("GET /2"))
    serve(stage, client, b"second")


@SET.play("200", "200", config=setting(Limits(requests_per_connection_max=2)))
def the_last_request_of_a_connection(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = serve(stage, client, b"first")
    client.says(ask("GET /2"), ask("GET /unread"))
    serve(stage, client, b"second", origin)
    client.hears_eof()


class _Waits(Filter):
    async def request_filter(self, exchange: Exchange) -> None:
        if exchange.request.path == "/1":
            await sleep(0.35)


@SET.play("200", "200", filters=[_Waits], config=setting(timeouts=Timeouts(connection_life_s=0.3)))
def a_connection_past_its_life(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = serve(stage, client, b"first")
    client.says(ask("GET /2"))
    serve(stage, client, b"second", origin)
    client.hears_eof()


@SET.play("200")
def a_client_that_half_closes_is_answered(stage: Stage) -> None:
    client = stage.client(ask())
    client.half_closes()
    serve(stage, client, b"hello")
    client.hears_eof()


@SET.play("200")
def a_large_answer_with_a_length(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer(body=MUCH))
    client.hears(MUCH)


@SET.play("200")
def a_large_answer_in_chunks(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Transfer-Encoding: chunked"), chunk(MUCH), LAST_CHUNK)
    client.hears(LAST_CHUNK)


@SET.play("200")
def a_large_upload_with_a_length(stage: Stage) -> None:
    client = stage.client(ask("PUT /", body=MUCH))
    origin = stage.origin()
    origin.hears(MUCH)
    origin.says(answer(body=b"got it"))
    client.hears(b"got it")


@SET.play("200")
def a_large_upload_in_chunks(stage: Stage) -> None:
    client = stage.client(ask("PUT /", "Transfer-Encoding: chunked"), chunk(MUCH), LAST_CHUNK)
    origin = stage.origin()
    origin.hears(LAST_CHUNK)
    origin.says(answer(body=b"got it"))
    client.hears(b"got it")


@SET.play("200")
def large_bodies_both_ways_at_once(stage: Stage) -> None:
    client = stage.client(ask("POST /", f"Content-Length: {len(MUCH) + 3}"))
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", f"Content-Length: {len(MUCH) + 3}"))
    client.hears(END)
    client.says(MUCH)
    origin.says(MUCH)
    origin.hears(MUCH)
    client.hears(MUCH)
    client.says(b"end")
    origin.hears(b"end")
    origin.says(b"end")
    client.hears(b"end")


@SET.play("200", "200")
def a_reader_that_stops_holds_up_nobody_else(stage: Stage) -> None:
    stopped = stage.client(ask("GET /much"))
    stopped.stops_reading()
    source = stage.origin()
    source.hears(END)
    source.says(answer(body=MORE_THAN_FITS))
    other = stage.client(ask("GET /little"))
    serve(stage, other, b"hello")
    stopped.reads_on()
    stopped.hears_bytes(len(MORE_THAN_FITS))
    stopped.hears(b"THE END")


@SET.play("200", "200")
def an_early_answer_and_a_small_rest(stage: Stage) -> None:
    client = stage.client(ask("POST /1", "Content-Length: 10"), b"one")
    origin = stage.origin()
    origin.hears(b"one")
    origin.says(answer(body=b"enough"))
    client.hears(b"enough")
    origin.hears_reset()
    client.says(b"sevenof", ask("GET /2"))
    serve(stage, client, b"hello")


@SET.play("413")
def an_early_answer_and_a_large_rest(stage: Stage) -> None:
    client = stage.client(ask("POST /", "Content-Length: 1000000"), b"one")
    origin = stage.origin()
    origin.hears(b"one")
    origin.says(answer("413 Content Too Large", body=b"enough"))
    client.hears(b"enough")
    origin.hears_reset()
    client.says(bytes(100_000))
    client.hears_eof()


@SET.play("200", "200", origins=("unix",), listens="unix")
def unix_sockets_on_both_sides(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = serve(stage, client, b"first")
    client.says(ask("GET /2"))
    serve(stage, client, b"second", origin)
