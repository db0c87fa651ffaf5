"""Origins that fail, at every point of an exchange; and what follows: another attempt, an answer that says why, or a
visible cut."""

from __future__ import annotations

from functools import partial
from typing import Final

from coulee.core import Limits, Retry
from tests.conformance.scenarios.script import ERROR_END, LAST_CHUNK, Set, answer, ask, chunk, serve, setting
from tests.conformance.stage import END, Scenario, Stage

SET: Final = Set()
ONE_ATTEMPT: Final = setting(retry=Retry(retries_max=0))


# -- before there is a connection


@SET.play("502 upstream_refused", origins=("nobody",))
def an_origin_that_is_down(stage: Stage) -> None:
    client = stage.client(ask())
    client.hears(ERROR_END)


@SET.play("502 upstream_refused", origins=("no path",))
def a_unix_socket_that_is_not_there(stage: Stage) -> None:
    client = stage.client(ask())
    client.hears(ERROR_END)


@SET.play("200, 2 attempts", origins=("nobody", "tcp"))
def the_second_endpoint_takes_over(stage: Stage) -> None:
    client = stage.client(ask("POST /", body=b"once"))
    origin = stage.origin(2)
    origin.hears(b"once")
    origin.says(answer(body=b"hello"))
    client.hears(b"hello")


@SET.play("200, 3 attempts", origins=("nobody", "no path", "tcp"))
def the_third_endpoint_takes_over(stage: Stage) -> None:
    client = stage.client(ask())
    serve(stage, client, b"hello", stage.origin(3))


@SET.play("502 upstream_refused, 3 attempts", origins=("nobody", "nobody", "nobody"))
def all_endpoints_are_down(stage: Stage) -> None:
    client = stage.client(ask())
    client.hears(ERROR_END)


@SET.play("502 upstream_refused", origins=("nobody", "tcp"), config=ONE_ATTEMPT)
def no_second_attempt_is_wanted(stage: Stage) -> None:
    client = stage.client(ask())
    client.hears(ERROR_END)


@SET.play("200", "200", "200", "200", origins=("tcp", "tcp", "tcp"))
def endpoints_take_turns(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    first = serve(stage, client, b"first")
    for number, body in ((2, b"second"), (3, b"third")):
        client.says(ask(f"GET /{number}"))
        serve(stage, client, body, stage.origin(number))
    client.says(ask("GET /4"))
    serve(stage, client, b"fourth", first)


# -- before there is an answer


@SET.play("502 upstream_reset, 3 attempts")
def an_origin_that_always_resets(stage: Stage) -> None:
    client = stage.client(ask())
    for _ in range(3):
        origin = stage.origin()
        origin.hears(END)
        origin.resets()
    client.hears(ERROR_END)


@SET.play("502 upstream_reset, 3 attempts")
def an_origin_that_always_closes(stage: Stage) -> None:
    client = stage.client(ask())
    for _ in range(3):
        origin = stage.origin()
        origin.hears(END)
        origin.closes()
    client.hears(ERROR_END)


@SET.play("200, 2 attempts")
def an_origin_that_resets_once(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.resets()
    serve(stage, client, b"hello")


@SET.play("200, 2 attempts", origins=("tcp", "tcp"))
def an_origin_that_resets_and_another_that_answers(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.resets()
    serve(stage, client, b"hello", stage.origin(2))


@SET.play("502 upstream_reset")
def a_post_is_never_sent_twice(stage: Stage) -> None:
    client = stage.client(ask("POST /", body=b"once"))
    origin = stage.origin()
    origin.hears(b"once")
    origin.resets()
    client.hears(ERROR_END)


@SET.play("200, 2 attempts", config=setting(retry=Retry(non_idempotent=True)))
def a_post_is_sent_twice_where_that_is_allowed(stage: Stage) -> None:
    client = stage.client(ask("POST /", body=b"twice"))
    origin = stage.origin()
    origin.hears(b"twice")
    origin.resets()
    origin = stage.origin()
    origin.hears(b"twice")
    origin.says(answer(body=b"hello"))
    client.hears(b"hello")


@SET.play("200, 2 attempts")
def half_a_body_is_sent_again_and_then_the_rest(stage: Stage) -> None:
    client = stage.client(ask("PUT /", "Content-Length: 8"), b"half")
    origin = stage.origin()
    origin.hears(b"half")
    origin.resets()
    origin = stage.origin()
    origin.hears(b"half")
    client.says(b"rest")
    origin.hears(b"rest")
    origin.says(answer(body=b"hello"))
    client.hears(b"hello")


@SET.play("502 upstream_reset", config=setting(Limits(replay_bytes_max=10)))
def a_body_too_large_to_be_sent_again(stage: Stage) -> None:
    client = stage.client(ask("PUT /", "Content-Length: 20"), b"half of it")
    origin = stage.origin()
    origin.hears(b"half of it")
    client.says(b" and more")
    origin.hears(b" and more")
    origin.resets()
    client.hears(ERROR_END)


def _says_instead(data: bytes, stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(data)
    client.hears(ERROR_END)
    origin.hears_reset()


for _name, _data in (
    ("an answer in another protocol", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    ("an answer with two lengths", answer("200 OK", "Content-Length: 2", "Content-Length: 3") + b"hi"),
    ("an answer with a head over the limit", answer("200 OK", *[f"X: {'y' * 400}"] * 5, body=b"")),
    ("an upgrade that nobody asked for", answer("101 Switching Protocols", "Connection: upgrade", "Upgrade: x")),
    ("too many early hints", answer("103 Early Hints") * 3 + answer(body=b"")),
):
    SET.append(
        Scenario(
            _name,
            partial(_says_instead, _data),
            ("502 upstream_invalid",),
            config=setting(Limits(head_bytes_max=2000, interims_max=2)),
        )
    )


@SET.play("502 upstream_reset", config=ONE_ATTEMPT)
def an_answer_whose_head_is_cut(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(b"HTTP/1.1 200 OK\r\nContent-Le")
    origin.closes()
    client.hears(ERROR_END)


# -- within the answer


def _cut(reset: bool, head: bytes, stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(head)
    client.hears(b"half")
    if reset:
        origin.resets()
    else:
        origin.closes()
    client.hears_eof()


for _kind, _head in (
    ("with a length", answer("200 OK", "Content-Length: 10") + b"half"),
    ("in chunks", answer("200 OK", "Transfer-Encoding: chunked") + chunk(b"half")),
):
    for _reset in (False, True):
        SET.append(
            Scenario(
                f"an answer {_kind} is cut by {'a reset' if _reset else 'an end'}",
                partial(_cut, _reset, _head),
                ("200 upstream_reset",),
            )
        )


@SET.play("200 upstream_reset")
def an_answer_without_a_length_is_cut_by_a_reset(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer(), b"half")
    client.hears(b"half")
    origin.resets()
    client.hears_eof()


@SET.play("200 upstream_reset")
def an_answer_without_a_length_is_cut_for_an_old_client(stage: Stage) -> None:
    client = stage.client(ask(version="1.0"))
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Transfer-Encoding: chunked"), chunk(b"half"))
    client.hears(b"half")
    origin.closes()
    client.hears_reset()


@SET.play("200 upstream_invalid")
def an_answer_with_a_chunk_that_is_none(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Transfer-Encoding: chunked"), chunk(b"half"))
    client.hears(b"half")
    origin.says(b"zz\r\n")
    client.hears_eof()
    origin.hears_reset()


# -- behind the answer


@SET.play("200", "200")
def bytes_behind_an_answer_end_the_connection(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer(body=b"first"), b"HTTP/1.1 200 OK\r\n\r\nunasked")
    client.hears(b"first")
    origin.hears_eof()
    client.says(ask("GET /2"))
    serve(stage, client, b"second")


@SET.play("200", "200")
def an_idle_connection_that_the_origin_closes(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = serve(stage, client, b"first")
    origin.half_closes()
    origin.hears_eof()
    client.says(ask("GET /2"))
    serve(stage, client, b"second")


@SET.play("200", "200, 2 attempts")
def an_idle_connection_that_dies_when_it_is_used(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = serve(stage, client, b"first")
    client.says(ask("GET /2"))
    origin.hears(END)
    origin.resets()
    serve(stage, client, b"second")


@SET.play("200", "502 upstream_reset")
def an_idle_connection_that_dies_under_a_post(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = serve(stage, client, b"first")
    client.says(ask("POST /2", body=b"once"))
    origin.hears(b"once")
    origin.closes()
    client.hears(ERROR_END)


@SET.play("200", "200")
def an_origin_that_half_closes_behind_its_answer(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Transfer-Encoding: chunked"), chunk(b"first"), LAST_CHUNK)
    origin.half_closes()
    client.hears(LAST_CHUNK)
    origin.hears_eof()
    client.says(ask("GET /2"))
    serve(stage, client, b"second")
